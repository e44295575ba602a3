//! The database: pins, names, what was learned of blocks, and what the segments cannot say of themselves.
//!
//! One `redb` file, through the same [`Disk`] as everything else. Changes are made in group commits: those that are asked
//! for while one is being flushed share the next. A change is durable when [`Db::change`] returns. After a failed commit
//! nobody knows what reached the disk, so the database is closed, opened again at the next use, and the failed changes
//! are undone there before anything else is done: what was refused leaves no trace.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, WriteTransaction};

use super::disk::{Access, Disk, DiskFile};
use super::group::Group;
use super::{Pin, PinKind, StoreError};
use crate::block::Cid;
use crate::limits::DATABASE_CACHE_BYTES;

/// A pin's root: its kind and name.
const PINS: TableDefinition<&[u8], (u8, &str)> = TableDefinition::new("pins");
/// A name: its root.
const NAMES: TableDefinition<&str, &[u8]> = TableDefinition::new("names");
/// A block: what the tree remembers of it.
const FACTS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("facts");
/// A segment: the bits of its records that are no block of the store any more.
const DEAD: TableDefinition<u32, &[u8]> = TableDefinition::new("dead");
/// A segment: whose its records are, run by run.
const RUNS: TableDefinition<u32, &[u8]> = TableDefinition::new("runs");
/// A root: when it was used last, in seconds of Unix time.
const ROOTS: TableDefinition<&[u8], u64> = TableDefinition::new("roots");

/// One change.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// Pins, or changes a pin. True where there was none.
    Pin(Pin),
    /// Removes a pin. True where there was one.
    Unpin(Cid),
    /// Names a root, or points a name elsewhere. True where there was none.
    Name(String, Cid),
    /// Removes a name. True where there was one.
    Unname(String),
    /// Remembers facts.
    Facts(Vec<(Cid, Vec<u8>)>),
    /// Sets or removes the dead bits of segments.
    Dead(Vec<(u32, Option<Vec<u8>>)>),
    /// Sets or removes the runs of segments.
    Runs(Vec<(u32, Option<Vec<u8>>)>),
    /// When roots were used last.
    Used(Vec<(Vec<u8>, u64)>),
    /// Forgets roots.
    ForgetRoots(Vec<Vec<u8>>),
}

/// The database.
pub(super) struct Db {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// `None` after a failure, until the next use opens it again.
    open: RwLock<Option<Database>>,
    group: Group<Change>,
    /// Changes that undo a failed commit.
    undo: Mutex<Vec<Change>>,
}

type Outcome<T> = Result<T, redb::Error>;

impl Db {
    /// Opens the database at `path`, making it where there is none.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<Db, StoreError> {
        let db =
            Db { disk, path: path.to_owned(), open: RwLock::new(None), group: Group::new(), undo: Mutex::default() };
        db.reopen()?;
        Ok(db)
    }

    /// Makes a change. It is durable on return.
    pub fn change(&self, change: Change) -> Result<bool, StoreError> {
        self.group.submit(change, |changes| self.commit(&changes))
    }

    /// Reads.
    pub fn read<T>(&self, read: impl Fn(&redb::ReadTransaction) -> Outcome<T>) -> Result<T, StoreError> {
        let open = loop {
            let open = self.open.read();
            if open.is_some() {
                break open;
            }
            drop(open);
            self.reopen()?;
        };
        let Some(database) = &*open else { unreachable!("the loop ends with an open database") };
        let result = database.begin_read().map_err(redb::Error::from).and_then(|transaction| read(&transaction));
        drop(open);
        result.map_err(|error| self.failed("read", error))
    }

    /// All pins, in the order of their roots.
    pub fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(PINS)?;
            let rows = table.iter()?.map(|row| {
                let (key, value) = row?;
                let (kind, name) = value.value();
                Ok(pin_from(key.value(), kind, name))
            });
            rows.filter_map(Result::transpose).collect()
        })
    }

    /// The pin of a root.
    pub fn pin(&self, cid: &Cid) -> Result<Option<Pin>, StoreError> {
        self.read(|transaction| {
            let row = transaction.open_table(PINS)?.get(cid.as_bytes())?;
            Ok(row.and_then(|row| pin_from(cid.as_bytes(), row.value().0, row.value().1)))
        })
    }

    /// All names with their roots, in the order of the names.
    pub fn names(&self) -> Result<Vec<(String, Cid)>, StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(NAMES)?;
            let rows = table.iter()?.map(|row| {
                let (name, root) = row?;
                Ok(Cid::from_bytes(root.value()).ok().map(|cid| (name.value().to_owned(), cid)))
            });
            rows.filter_map(Result::transpose).collect()
        })
    }

    /// The facts of a block.
    pub fn facts(&self, cid: &Cid) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|transaction| Ok(transaction.open_table(FACTS)?.get(cid.as_bytes())?.map(|row| row.value().to_vec())))
    }

    /// The dead bits of all segments.
    pub fn dead(&self) -> Result<Vec<(u32, Vec<u8>)>, StoreError> {
        self.by_segment(DEAD)
    }

    /// The runs of all segments.
    pub fn runs(&self) -> Result<Vec<(u32, Vec<u8>)>, StoreError> {
        self.by_segment(RUNS)
    }

    /// When each root was used last.
    pub fn used(&self) -> Result<Vec<(Vec<u8>, u64)>, StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(ROOTS)?;
            table.iter()?.map(|row| row.map(|(root, time)| (root.value().to_vec(), time.value()))).map(into).collect()
        })
    }

    fn by_segment(&self, table: TableDefinition<u32, &'static [u8]>) -> Result<Vec<(u32, Vec<u8>)>, StoreError> {
        self.read(|transaction| {
            let table = transaction.open_table(table)?;
            table
                .iter()?
                .map(|row| row.map(|(segment, bits)| (segment.value(), bits.value().to_vec())))
                .map(into)
                .collect()
        })
    }

    /// One transaction for all `changes`.
    fn commit(&self, changes: &[Change]) -> Result<Vec<bool>, StoreError> {
        self.reopen()?;
        let open = self.open.read();
        let Some(database) = &*open else { unreachable!("it was opened, and only this group closes it") };
        let mut inverse = Vec::new();
        let result = transact(database, |transaction| {
            changes.iter().map(|change| apply(transaction, change, &mut inverse)).collect::<Outcome<Vec<bool>>>()
        });
        drop(open);
        result.map_err(|error| {
            inverse.reverse();
            self.undo.lock().splice(..0, inverse);
            *self.open.write() = None;
            self.failed("write", error)
        })
    }

    /// Opens the database where it is not open, and undoes what a failed commit may have left.
    fn reopen(&self) -> Result<(), StoreError> {
        let mut open = self.open.write();
        if open.is_some() {
            return Ok(());
        }
        let file = match self.disk.open(&self.path, Access::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create()?,
            file => file.map_err(StoreError::io("open", &self.path))?,
        };
        let database = self.database(file)?;
        let mut undo = self.undo.lock();
        if !undo.is_empty() {
            let undone = transact(&database, |transaction| {
                undo.iter().try_for_each(|change| apply(transaction, change, &mut Vec::new()).map(drop))
            });
            undone.map_err(|error| self.failed("write", error))?;
        }
        undo.clear();
        *open = Some(database);
        Ok(())
    }

    /// Makes the database under another name, so that under its own it is whole from the first instant.
    fn create(&self) -> Result<Arc<dyn DiskFile>, StoreError> {
        let new = self.path.with_extension("redb.new");
        let open = |access| self.disk.open(&new, access).map_err(StoreError::io("create", &new));
        let file = open(Access::Create)?;
        // What an attempt that was cut off left.
        file.set_len(0).map_err(StoreError::io("create", &new))?;
        let database = self.database(file)?;
        // A read of a table that was never made is an error: make them all.
        let made = transact(&database, |transaction| {
            transaction.open_table(PINS)?;
            transaction.open_table(NAMES)?;
            transaction.open_table(FACTS)?;
            transaction.open_table(DEAD)?;
            transaction.open_table(RUNS)?;
            transaction.open_table(ROOTS)?;
            Ok(())
        });
        made.map_err(|error| self.failed("create", error))?;
        drop(database);
        open(Access::Write)?.sync().map_err(StoreError::io("flush", &new))?;
        self.disk.rename(&new, &self.path).map_err(StoreError::io("create", &self.path))?;
        if let Some(dir) = self.path.parent() {
            self.disk.sync_dir(dir).map_err(StoreError::io("flush", dir))?;
        }
        self.disk.open(&self.path, Access::Write).map_err(StoreError::io("open", &self.path))
    }

    fn database(&self, file: Arc<dyn DiskFile>) -> Result<Database, StoreError> {
        let mut builder = Database::builder();
        builder.set_cache_size(DATABASE_CACHE_BYTES);
        builder.create_with_backend(Backend(file)).map_err(|error| self.failed("open", error.into()))
    }

    fn failed(&self, what: &'static str, error: redb::Error) -> StoreError {
        match error {
            redb::Error::Corrupted(why) => StoreError::DatabaseDamaged { path: self.path.clone(), why },
            // redb says it so where the file does not begin as a database.
            redb::Error::Io(error) if what == "open" && error.kind() == io::ErrorKind::InvalidData => {
                StoreError::DatabaseDamaged { path: self.path.clone(), why: error.to_string() }
            }
            error => StoreError::Database { what, path: self.path.clone(), source: Arc::new(error) },
        }
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Db({})", self.path.display())
    }
}

fn into<T>(row: Result<T, redb::StorageError>) -> Outcome<T> {
    row.map_err(redb::Error::from)
}

fn transact<T>(database: &Database, change: impl FnOnce(&WriteTransaction) -> Outcome<T>) -> Outcome<T> {
    let mut transaction = database.begin_write()?;
    // Without it an unclean end makes the next start read the whole file.
    transaction.set_quick_repair(true);
    let result = change(&transaction)?;
    transaction.commit()?;
    Ok(result)
}

/// Makes one change, and adds what undoes it. What is remembered lazily needs no undoing.
fn apply(transaction: &WriteTransaction, change: &Change, inverse: &mut Vec<Change>) -> Outcome<bool> {
    match change {
        Change::Pin(pin) => {
            let mut table = transaction.open_table(PINS)?;
            let old = table.insert(pin.cid.as_bytes(), (kind_code(pin.kind), pin.name.as_str()))?;
            let old = old.and_then(|old| pin_from(pin.cid.as_bytes(), old.value().0, old.value().1));
            let is_new = old.is_none();
            inverse.push(old.map_or_else(|| Change::Unpin(pin.cid.clone()), Change::Pin));
            Ok(is_new)
        }
        Change::Unpin(cid) => {
            let mut table = transaction.open_table(PINS)?;
            let old = table.remove(cid.as_bytes())?;
            let old = old.and_then(|old| pin_from(cid.as_bytes(), old.value().0, old.value().1));
            let existed = old.is_some();
            inverse.extend(old.map(Change::Pin));
            Ok(existed)
        }
        Change::Name(name, cid) => {
            let mut table = transaction.open_table(NAMES)?;
            let old = table.insert(name.as_str(), cid.as_bytes())?.and_then(|old| Cid::from_bytes(old.value()).ok());
            let is_new = old.is_none();
            inverse.push(old.map_or_else(|| Change::Unname(name.clone()), |cid| Change::Name(name.clone(), cid)));
            Ok(is_new)
        }
        Change::Unname(name) => {
            let mut table = transaction.open_table(NAMES)?;
            let old = table.remove(name.as_str())?.and_then(|old| Cid::from_bytes(old.value()).ok());
            let existed = old.is_some();
            inverse.extend(old.map(|cid| Change::Name(name.clone(), cid)));
            Ok(existed)
        }
        Change::Facts(facts) => {
            let mut table = transaction.open_table(FACTS)?;
            for (cid, fact) in facts {
                table.insert(cid.as_bytes(), fact.as_slice())?;
            }
            Ok(true)
        }
        Change::Dead(rows) => set_rows(transaction, DEAD, rows),
        Change::Runs(rows) => set_rows(transaction, RUNS, rows),
        Change::Used(rows) => {
            let mut table = transaction.open_table(ROOTS)?;
            for (root, time) in rows {
                table.insert(root.as_slice(), time)?;
            }
            Ok(true)
        }
        Change::ForgetRoots(roots) => {
            let mut table = transaction.open_table(ROOTS)?;
            for root in roots {
                table.remove(root.as_slice())?;
            }
            Ok(true)
        }
    }
}

fn set_rows(
    transaction: &WriteTransaction,
    table: TableDefinition<u32, &'static [u8]>,
    rows: &[(u32, Option<Vec<u8>>)],
) -> Outcome<bool> {
    let mut table = transaction.open_table(table)?;
    for (segment, value) in rows {
        match value {
            Some(value) => drop(table.insert(segment, value.as_slice())?),
            None => drop(table.remove(segment)?),
        }
    }
    Ok(true)
}

fn kind_code(kind: PinKind) -> u8 {
    match kind {
        PinKind::Recursive => 0,
        PinKind::Direct => 1,
    }
}

/// A row as a pin; a row that no version of cidfs writes is none.
fn pin_from(cid: &[u8], kind: u8, name: &str) -> Option<Pin> {
    let kind = match kind {
        0 => PinKind::Recursive,
        1 => PinKind::Direct,
        _ => return None,
    };
    Some(Pin { cid: Cid::from_bytes(cid).ok()?, kind, name: name.to_owned() })
}

/// redb's storage on our disk. The store's lock keeps others away.
#[derive(Debug)]
struct Backend(Arc<dyn DiskFile>);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match self.0.read_at(offset, out)? {
            len if len == out.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, &[data])
    }
}

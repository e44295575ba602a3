//! A disk in memory that records what is done to it, can lose power at any instant, and fails on demand.

#![allow(dead_code, reason = "each test uses what it needs")]

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use cidfs::store::disk::{Access, Disk, DiskFile, Lock, LockGuard, Space};

/// One thing that was done.
#[derive(Clone, Debug)]
pub enum Op<Note> {
    Create {
        path: PathBuf,
        file: usize,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        path: PathBuf,
    },
    SyncDir {
        dir: PathBuf,
    },
    Write {
        file: usize,
        offset: u64,
        data: Vec<u8>,
    },
    SetLen {
        file: usize,
        len: u64,
    },
    Sync {
        file: usize,
    },
    /// The test's own mark of what it had been told by then.
    Note(Note),
}

type Fault = Box<dyn Fn(&str, &Path) -> Option<io::ErrorKind> + Send>;

/// The disk. Clones share it.
pub struct MemoryDisk<Note>(Arc<Mutex<State<Note>>>);

impl<Note> Clone for MemoryDisk<Note> {
    fn clone(&self) -> MemoryDisk<Note> {
        MemoryDisk(self.0.clone())
    }
}

struct State<Note> {
    names: BTreeMap<PathBuf, usize>,
    contents: HashMap<usize, Vec<u8>>,
    next_file: usize,
    log: Vec<Op<Note>>,
    fault: Option<Fault>,
    capacity: u64,
    locked: Arc<Mutex<bool>>,
}

impl<Note> MemoryDisk<Note> {
    pub fn new() -> MemoryDisk<Note> {
        MemoryDisk::with(BTreeMap::new(), HashMap::new())
    }

    fn with(names: BTreeMap<PathBuf, usize>, contents: HashMap<usize, Vec<u8>>) -> MemoryDisk<Note> {
        let next_file = contents.keys().max().map_or(0, |last| last + 1);
        MemoryDisk(Arc::new(Mutex::new(State {
            names,
            contents,
            next_file,
            log: Vec::new(),
            fault: None,
            capacity: 1 << 40,
            locked: Arc::default(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State<Note>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn note(&self, note: Note) {
        self.state().log.push(Op::Note(note));
    }

    /// Everything that was done so far.
    pub fn take_log(&self) -> Vec<Op<Note>> {
        std::mem::take(&mut self.state().log)
    }

    /// From now on, what the function names fails so. It is asked with what is done and the file.
    pub fn fail(&self, fault: impl Fn(&str, &Path) -> Option<io::ErrorKind> + Send + 'static) {
        self.state().fault = Some(Box::new(fault));
    }

    pub fn heal(&self) {
        self.state().fault = None;
    }

    /// How many bytes fit. A write that does not fit fails as on a full disk.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    pub fn used(&self) -> u64 {
        self.state().used()
    }
}

impl<Note> State<Note> {
    fn used(&self) -> u64 {
        self.names.values().map(|file| self.contents[file].len() as u64).sum()
    }

    fn check(&self, what: &str, path: &Path) -> io::Result<()> {
        match self.fault.as_ref().and_then(|fault| fault(what, path)) {
            Some(kind) => Err(kind.into()),
            None => Ok(()),
        }
    }
}

impl<Note> fmt::Debug for MemoryDisk<Note> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryDisk")
    }
}

struct MemoryFile<Note> {
    disk: MemoryDisk<Note>,
    file: usize,
    path: PathBuf,
}

impl<Note> fmt::Debug for MemoryFile<Note> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryFile({})", self.path.display())
    }
}

impl<Note: Send + 'static> Disk for MemoryDisk<Note> {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let names = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(names.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.check("open", path)?;
        let file = match (state.names.get(path), access) {
            (Some(file), _) => *file,
            (None, Access::Create) => {
                state.check("create", path)?;
                let file = state.next_file;
                state.next_file += 1;
                state.names.insert(path.to_owned(), file);
                state.contents.insert(file, Vec::new());
                state.log.push(Op::Create { path: path.to_owned(), file });
                file
            }
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(MemoryFile { disk: self.clone(), file, path: path.to_owned() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check("rename", from)?;
        let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), file);
        state.log.push(Op::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check("remove", path)?;
        state.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        state.log.push(Op::Remove { path: path.to_owned() });
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.check("sync", dir)?;
        state.log.push(Op::SyncDir { dir: dir.to_owned() });
        Ok(())
    }

    fn space(&self, _dir: &Path) -> io::Result<Space> {
        let state = self.state();
        Ok(Space { total: state.capacity, available: state.capacity.saturating_sub(state.used()) })
    }

    fn lock(&self, _path: &Path) -> io::Result<Lock> {
        struct Guard(Arc<Mutex<bool>>);
        impl Drop for Guard {
            fn drop(&mut self) {
                *self.0.lock().unwrap() = false;
            }
        }
        let locked = self.state().locked.clone();
        let was = std::mem::replace(&mut *locked.lock().unwrap(), true);
        Ok(if was { Lock::Busy { pid: None } } else { Lock::Taken(LockGuard(Box::new(Guard(locked)))) })
    }
}

impl<Note: Send + 'static> DiskFile for MemoryFile<Note> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.state();
        state.check("read", &self.path)?;
        let contents = &state.contents[&self.file];
        let from = contents.get(offset as usize..).unwrap_or_default();
        let len = from.len().min(buffer.len());
        buffer[..len].copy_from_slice(&from[..len]);
        Ok(len)
    }

    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        let mut state = self.disk.state();
        state.check("write", &self.path)?;
        let data = parts.concat();
        let end = offset + data.len() as u64;
        let grows = end.saturating_sub(state.contents[&self.file].len() as u64);
        if grows > 0 && state.used() + grows > state.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        write(state.contents.entry(self.file).or_default(), offset, &data);
        state.log.push(Op::Write { file: self.file, offset, data });
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().contents[&self.file].len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.check("write", &self.path)?;
        let grows = len.saturating_sub(state.contents[&self.file].len() as u64);
        if grows > 0 && state.used() + grows > state.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.contents.entry(self.file).or_default().resize(len as usize, 0);
        state.log.push(Op::SetLen { file: self.file, len });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.check("sync", &self.path)?;
        state.log.push(Op::Sync { file: self.file });
        Ok(())
    }
}

fn write(contents: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let end = offset as usize + data.len();
    if contents.len() < end {
        contents.resize(end, 0);
    }
    contents[offset as usize..end].copy_from_slice(data);
}

/// What becomes of what was not flushed when power is lost.
#[derive(Clone, Copy, Debug)]
pub enum Unflushed {
    /// It is all there: a kill, not a loss of power.
    Kept,
    /// It is gone.
    Lost,
    /// Some of it is there, in any order, and writes are torn at sectors.
    Torn(u64),
}

/// A disk that is led along a log, and can lose power at each step.
pub struct Replay<Note> {
    durable: BTreeMap<PathBuf, usize>,
    /// What was done to names since their directory was flushed.
    names: Vec<Op<Note>>,
    contents: HashMap<usize, Vec<u8>>,
    /// What was done to a file since it was flushed.
    pending: HashMap<usize, Vec<Op<Note>>>,
}

impl<Note: Clone> Replay<Note> {
    pub fn new() -> Replay<Note> {
        Replay { durable: BTreeMap::new(), names: Vec::new(), contents: HashMap::new(), pending: HashMap::new() }
    }

    /// One step further.
    pub fn step(&mut self, op: &Op<Note>) {
        match op {
            Op::Create { file, .. } => {
                self.contents.insert(*file, Vec::new());
                self.names.push(op.clone());
            }
            Op::Rename { .. } | Op::Remove { .. } => self.names.push(op.clone()),
            Op::SyncDir { dir } => {
                let (flushed, rest) = self.names.drain(..).partition(|op| match op {
                    Op::Create { path, .. } | Op::Remove { path } | Op::Rename { to: path, .. } => {
                        path.parent() == Some(dir)
                    }
                    _ => false,
                });
                self.names = rest;
                for op in flushed {
                    rename(&mut self.durable, &op);
                }
            }
            Op::Write { file, .. } | Op::SetLen { file, .. } => {
                self.pending.entry(*file).or_default().push(op.clone());
            }
            Op::Sync { file } => {
                let contents = self.contents.entry(*file).or_default();
                for op in self.pending.remove(file).into_iter().flatten() {
                    apply(contents, &op);
                }
            }
            Op::Note(_) => {}
        }
    }

    /// The disk after power is lost now.
    pub fn lose_power(&self, unflushed: Unflushed) -> MemoryDisk<Note> {
        let mut random = match unflushed {
            Unflushed::Torn(seed) => seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            _ => 1,
        };
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let mut names = self.durable.clone();
        // Filesystems keep the order of what is done to names.
        let kept = match unflushed {
            Unflushed::Kept => self.names.len(),
            Unflushed::Lost => 0,
            Unflushed::Torn(_) => next(self.names.len() as u64 + 1) as usize,
        };
        for op in &self.names[..kept] {
            rename(&mut names, op);
        }
        let mut contents = self.contents.clone();
        let mut files: Vec<_> = self.pending.iter().collect();
        files.sort_by_key(|(file, _)| **file);
        for (file, ops) in files {
            let contents = contents.entry(*file).or_default();
            for op in ops {
                match (unflushed, op) {
                    (Unflushed::Kept, op) => apply(contents, op),
                    (Unflushed::Lost, _) => {}
                    (Unflushed::Torn(_), Op::Write { file, offset, data }) => match next(3) {
                        0 => {}
                        1 => apply(contents, op),
                        _ => {
                            let mut at = 0;
                            while at < data.len() {
                                let sector = 512 - (*offset as usize + at) % 512;
                                let end = (at + sector).min(data.len());
                                if next(2) == 0 {
                                    let (offset, data) = (offset + at as u64, data[at..end].to_vec());
                                    apply::<Note>(contents, &Op::Write { file: *file, offset, data });
                                }
                                at = end;
                            }
                        }
                    },
                    (Unflushed::Torn(_), op) => {
                        if next(2) == 0 {
                            apply(contents, op);
                        }
                    }
                }
            }
        }
        contents.retain(|file, _| names.values().any(|named| named == file));
        for file in names.values() {
            contents.entry(*file).or_default();
        }
        MemoryDisk::with(names, contents)
    }
}

fn rename<Note>(names: &mut BTreeMap<PathBuf, usize>, op: &Op<Note>) {
    match op {
        Op::Create { path, file } => drop(names.insert(path.clone(), *file)),
        Op::Remove { path } => drop(names.remove(path)),
        Op::Rename { from, to } => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        _ => {}
    }
}

fn apply<Note>(contents: &mut Vec<u8>, op: &Op<Note>) {
    match op {
        Op::Write { offset, data, .. } => write(contents, *offset, data),
        Op::SetLen { len, .. } => contents.resize(*len as usize, 0),
        _ => {}
    }
}

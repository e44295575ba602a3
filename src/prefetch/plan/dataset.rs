//! The files of a tree in the order in which a training job numbers them.
//!
//! A sampler draws positions in a dataset; which file a position is, the dataset's class decides by listing directories.
//! [`Files::Images`] lists as torchvision's `ImageFolder` does: the directories at the top are classes, in the order of
//! their names; each is walked with `os.walk(followlinks=True)`, directory by directory in the order of their paths, the files
//! in each in the order of their names; what does not end like an image is left out. [`Files::All`] takes every file of
//! the tree in the order of its path, as `sorted()` in Python and `LC_ALL=C sort` have it.
//!
//! Links are followed as the kernel would, as far as they stay below the root; one that leads elsewhere, or nowhere,
//! counts as a file of its name, with nothing to fetch. Only directories are read, and blocks whose kind no name tells.
//! A file costs its CID and 16 bytes here; paths are kept only for whoever prints them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::PlanError;
use super::names::{compare, is_image};
use crate::block::Cid;
use crate::limits::{MAX_DIRECTORY_DEPTH, MAX_PLAN_FILES, MAX_PLAN_PATHS_BYTES, MAX_SYMLINK_HOPS};
use crate::tree::{FileKind, Inodes, Location, ROOT_INODE, Tree, TreeError};

/// Entries of a directory that are asked for at a time.
const PAGE: usize = 1024;

/// Which files of a tree are a dataset's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// The images of `ImageFolder`.
    Images,
    /// All.
    All,
}

/// The files of a dataset, by their numbers.
#[derive(Clone, Debug, Default)]
pub struct Dataset {
    cids: Texts,
    sizes: Vec<u64>,
    paths: Texts,
}

/// Byte strings in one piece of memory.
#[derive(Clone, Debug, Default)]
struct Texts {
    bytes: Vec<u8>,
    ends: Vec<u64>,
}

impl Texts {
    fn push(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.ends.push(self.bytes.len() as u64);
    }

    fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)? as usize;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        self.bytes.get(start..end)
    }
}

/// The number of the inode that the directory at `<root>/a/b` has in a mount, where it is opened by this very path.
pub async fn inode_of(tree: &Tree, path: &str) -> Result<u64, PlanError> {
    let mut names = path.split('/').filter(|name| !name.is_empty());
    let root = names.next().unwrap_or_default();
    let mut entry = tree.root_lookup(root.as_bytes()).await?;
    let mut number = Inodes::number(ROOT_INODE, root.as_bytes(), &entry);
    for name in names {
        entry = tree.lookup(&entry.location, name.as_bytes()).await?;
        number = Inodes::number(number, name.as_bytes(), &entry);
    }
    Ok(number)
}

/// A file that was found.
#[derive(Clone, Debug)]
struct Found {
    /// What holds its bytes, and how many there are; 0 where there is nothing to fetch for it.
    cid: Cid,
    size: u64,
}

/// The files of one directory, by their names.
type Named = Vec<(Bytes, Found)>;

/// A directory, and how one got there: what `..` is.
#[derive(Debug)]
pub(super) struct Place {
    location: Location,
    above: Option<Arc<Place>>,
}

/// A name in a directory, with its links followed.
enum Child {
    Directory(Arc<Place>),
    File(Found),
}

impl Dataset {
    /// The files below `directory` (`<root>/a/b`), and which of them were taken: where `files` does not say, all images where
    /// `ImageFolder` would take the directory (it has directories, and each of them an image), else all files.
    pub async fn list(tree: &Tree, directory: &str, files: Option<Files>) -> Result<(Dataset, Files), PlanError> {
        let top = place(tree, directory).await?;
        if files != Some(Files::All) {
            let images = Lister::new(tree).images(&top, files.is_none()).await?;
            match images {
                Some(dataset) if !dataset.is_empty() => return Ok((dataset, Files::Images)),
                _ if files.is_some() => return Err(PlanError::NoImages { directory: directory.to_owned() }),
                _ => {}
            }
        }
        let dataset = Lister::new(tree).all(&top).await?;
        if dataset.is_empty() {
            return Err(PlanError::NoFiles { directory: directory.to_owned() });
        }
        Ok((dataset, Files::All))
    }

    /// An empty dataset whose files are pushed one by one, by their paths below the directory `directory`.
    pub async fn of_paths<'a>(tree: &'a Tree, directory: &str) -> Result<Paths<'a>, PlanError> {
        Ok(Paths { lister: Lister::new(tree), top: place(tree, directory).await?, dataset: Dataset::default() })
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.sizes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sizes.is_empty()
    }

    /// The node of file number `index`, and the file's size in bytes; a size of 0 says that there is nothing to fetch for it.
    pub fn file(&self, index: u32) -> Option<(Cid, u64)> {
        let cid = Cid::from_bytes(self.cids.get(index as usize)?).ok()?;
        Some((cid, self.sizes[index as usize]))
    }

    /// The size in bytes of file number `index`, as in [`Dataset::file`].
    pub fn size(&self, index: u32) -> u64 {
        self.sizes.get(index as usize).copied().unwrap_or_default()
    }

    /// The path of file number `index` below the directory, while paths are kept.
    pub fn path(&self, index: u32) -> Option<&[u8]> {
        self.paths.get(index as usize)
    }

    /// Lets go of the paths, for a dataset that is kept for long.
    pub fn forget_paths(&mut self) {
        self.paths = Texts::default();
        self.cids.bytes.shrink_to_fit();
        self.cids.ends.shrink_to_fit();
        self.sizes.shrink_to_fit();
    }

    /// The bytes of all files together.
    pub fn bytes(&self) -> u64 {
        self.sizes.iter().fold(0, |sum, size| sum.saturating_add(*size))
    }

    fn push(&mut self, path: &[u8], file: &Found) -> Result<(), PlanError> {
        if self.len() == MAX_PLAN_FILES {
            return Err(PlanError::TooMany);
        }
        self.cids.push(file.cid.as_bytes());
        self.sizes.push(file.size);
        self.paths.push(path);
        Ok(())
    }
}

/// A dataset in the making, whose order is given.
pub struct Paths<'a> {
    lister: Lister<'a>,
    top: Arc<Place>,
    dataset: Dataset,
}

impl Paths<'_> {
    /// The next file, by its path.
    pub async fn push(&mut self, path: &[u8]) -> Result<(), PlanError> {
        let shown = || String::from_utf8_lossy(path).into_owned();
        let child = self.lister.follow(&self.top, path, 0).await?;
        match child {
            Some(Child::File(file)) => {
                self.lister.count(path)?;
                self.dataset.push(path, &file)
            }
            Some(Child::Directory(_)) => Err(PlanError::NotAFile { path: shown() }),
            None => Err(PlanError::NoSuchFile { path: shown() }),
        }
    }

    /// The files that were pushed.
    pub fn finish(self) -> Dataset {
        self.dataset
    }
}

/// The directory at `<root>/a/b`, with all that is above it.
async fn place(tree: &Tree, path: &str) -> Result<Arc<Place>, PlanError> {
    let mut names = path.split('/').filter(|name| !name.is_empty());
    let root = tree.root_lookup(names.next().unwrap_or_default().as_bytes()).await?;
    let mut place = Arc::new(Place { location: root.location, above: None });
    let mut kind = root.attr.kind;
    for (depth, name) in names.enumerate() {
        if depth == MAX_DIRECTORY_DEPTH {
            return Err(TreeError::TooDeep { limit: MAX_DIRECTORY_DEPTH }.into());
        }
        let entry = tree.lookup(&place.location, name.as_bytes()).await?;
        kind = entry.attr.kind;
        place = Arc::new(Place { location: entry.location, above: Some(place) });
    }
    if kind != FileKind::Directory {
        return Err(TreeError::NotADirectory { cid: place.location.cid.clone() }.into());
    }
    Ok(place)
}

struct Lister<'a> {
    tree: &'a Tree,
    /// What all paths come to that were made so far.
    path_bytes: AtomicU64,
}

/// A directory on the list of a walk.
struct Walked {
    /// Its path below where the walk began; empty for that itself.
    path: Vec<u8>,
    place: Arc<Place>,
    depth: usize,
}

impl Walked {
    fn join(&self, name: &[u8]) -> Vec<u8> {
        let mut path = self.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }
}

impl<'a> Lister<'a> {
    fn new(tree: &'a Tree) -> Lister<'a> {
        Lister { tree, path_bytes: AtomicU64::new(0) }
    }

    /// Directories that are named in many places, deep down, have paths for more memory than there is.
    fn count(&self, path: &[u8]) -> Result<(), PlanError> {
        let before = self.path_bytes.fetch_add(path.len() as u64, Ordering::Relaxed);
        if before > MAX_PLAN_PATHS_BYTES { Err(PlanError::LongPaths) } else { Ok(()) }
    }

    /// The images of the classes below `top`. With `strict`, none where a class has no image.
    async fn images(&self, top: &Arc<Place>, strict: bool) -> Result<Option<Dataset>, PlanError> {
        let mut classes = Vec::new();
        for (name, child) in self.children(top).await? {
            if let Child::Directory(place) = child {
                classes.push((name, place));
            }
        }
        classes.sort_unstable_by(|(one, _), (other, _)| compare(one, other));
        let mut dataset = Dataset::default();
        for (name, place) in classes {
            let before = dataset.len();
            // Directories by their paths, each with its files: the walk's own order is another.
            let mut directories: Vec<(Vec<u8>, Named)> = Vec::new();
            let mut images = before;
            self.walk(Walked { path: name.to_vec(), place, depth: 1 }, |path, files| {
                let mut files = files;
                files.retain(|(name, _)| is_image(name));
                images += files.len();
                if !files.is_empty() {
                    files.sort_unstable_by(|(one, _), (other, _)| compare(one, other));
                    directories.push((path.to_vec(), files));
                }
                if images > MAX_PLAN_FILES { Err(PlanError::TooMany) } else { Ok(()) }
            })
            .await?;
            directories.sort_unstable_by(|(one, _), (other, _)| compare(one, other));
            for (mut path, files) in directories {
                path.push(b'/');
                let len = path.len();
                for (name, file) in files {
                    path.truncate(len);
                    path.extend_from_slice(&name);
                    self.count(&path)?;
                    dataset.push(&path, &file)?;
                }
            }
            if strict && dataset.len() == before {
                return Ok(None);
            }
        }
        Ok(Some(dataset))
    }

    /// Every file below `top`.
    async fn all(&self, top: &Arc<Place>) -> Result<Dataset, PlanError> {
        let mut found: Vec<(Vec<u8>, Found)> = Vec::new();
        self.walk(Walked { path: Vec::new(), place: top.clone(), depth: 0 }, |path, files| {
            for (name, file) in files {
                let path = if path.is_empty() { name.to_vec() } else { [path, b"/", &name].concat() };
                self.count(&path)?;
                found.push((path, file));
            }
            if found.len() > MAX_PLAN_FILES { Err(PlanError::TooMany) } else { Ok(()) }
        })
        .await?;
        found.sort_unstable_by(|(one, _), (other, _)| compare(one, other));
        let mut dataset = Dataset::default();
        for (path, file) in found {
            dataset.push(&path, &file)?;
        }
        Ok(dataset)
    }

    /// Hands the files of `from` and of each directory below it to `take`, directory by directory.
    async fn walk(
        &self,
        from: Walked,
        mut take: impl FnMut(&[u8], Named) -> Result<(), PlanError>,
    ) -> Result<(), PlanError> {
        let mut coming = vec![from];
        let mut directories = 0;
        while let Some(walked) = coming.pop() {
            // A directory may be named in many places, and each place counts.
            directories += 1;
            if directories > MAX_PLAN_FILES {
                return Err(PlanError::TooMany);
            }
            let mut files = Vec::new();
            for (name, child) in self.children(&walked.place).await? {
                match child {
                    Child::File(file) => files.push((name, file)),
                    Child::Directory(_) if walked.depth == MAX_DIRECTORY_DEPTH => {
                        return Err(TreeError::TooDeep { limit: MAX_DIRECTORY_DEPTH }.into());
                    }
                    Child::Directory(place) => {
                        let path = walked.join(&name);
                        self.count(&path)?;
                        coming.push(Walked { path, place, depth: walked.depth + 1 });
                    }
                }
            }
            take(&walked.path, files)?;
        }
        Ok(())
    }

    /// What is in a directory.
    async fn children(&self, place: &Arc<Place>) -> Result<Vec<(Bytes, Child)>, PlanError> {
        let mut children = Vec::new();
        // A HAMT may hold one name twice; whoever lists it through the mount sees it twice, and reads the first.
        let mut cursor = 0;
        loop {
            let page = self.tree.list(&place.location, cursor, PAGE).await?;
            let Some(last) = page.last() else { return Ok(children) };
            cursor = last.cursor;
            let attrs = self.tree.attrs(&page).await;
            for (listed, attr) in page.into_iter().zip(attrs) {
                let attr = attr?;
                let child = match attr.kind {
                    FileKind::Directory => {
                        Child::Directory(Arc::new(Place { location: listed.location, above: Some(place.clone()) }))
                    }
                    FileKind::File => Child::File(Found::new(listed.location, attr.size)),
                    FileKind::Symlink => {
                        let target = self.tree.read_link(&listed.location).await?;
                        let followed = self.follow(place, &target, 1).await?;
                        // It is listed as a file where it leads nowhere.
                        followed.unwrap_or_else(|| Child::File(Found::new(listed.location, 0)))
                    }
                };
                children.push((listed.name, child));
            }
            if children.len() > MAX_PLAN_FILES {
                return Err(PlanError::TooMany);
            }
        }
    }

    /// What `path` leads to from `from` on, as the kernel would find it; `None` for nothing below the root. `links` of them
    /// were followed before.
    async fn follow(&self, from: &Arc<Place>, path: &[u8], mut links: usize) -> Result<Option<Child>, PlanError> {
        if links > 0 && path.starts_with(b"/") {
            return Ok(None);
        }
        let split = |path: &[u8]| path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect::<Vec<_>>();
        let mut coming = split(path);
        let mut at = from.clone();
        while let Some(name) = coming.pop() {
            match &name[..] {
                b"" | b"." => continue,
                b".." => match &at.above {
                    Some(above) => {
                        at = above.clone();
                        continue;
                    }
                    None => return Ok(None),
                },
                _ => {}
            }
            let entry = match self.tree.lookup(&at.location, &name).await {
                Ok(entry) => entry,
                Err(TreeError::NoEntry { .. } | TreeError::NotADirectory { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            match entry.attr.kind {
                FileKind::Directory => at = Arc::new(Place { location: entry.location, above: Some(at) }),
                FileKind::File if coming.is_empty() => {
                    return Ok(Some(Child::File(Found::new(entry.location, entry.attr.size))));
                }
                FileKind::File => return Ok(None),
                FileKind::Symlink => {
                    links += 1;
                    let target = self.tree.read_link(&entry.location).await?;
                    if links > MAX_SYMLINK_HOPS || target.starts_with(b"/") {
                        return Ok(None);
                    }
                    coming.extend(split(&target));
                }
            }
        }
        Ok(Some(Child::Directory(at)))
    }
}

impl Found {
    fn new(location: Location, size: u64) -> Found {
        // A value within a block came with its directory.
        let size = if location.within.is_some() { 0 } else { size };
        Found { cid: location.cid, size }
    }
}

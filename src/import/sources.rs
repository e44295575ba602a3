//! What is given to an import, and the names that it gets.
//!
//! Each given path is one root, named by its last part. Roots are added in the order of their names, a path that is given
//! twice is added once, and two paths of one name are refused, all as kubo does it.

use std::fmt;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::ImportError;

/// One thing to add.
pub enum Source {
    /// A file, a directory with all below it, or a symbolic link.
    Path(PathBuf),
    /// Bytes that are read to their end: standard input, or the body of a request.
    Stream {
        /// The name of the file; empty where it has none.
        name: String,
        /// The bytes.
        reader: Box<dyn Read + Send>,
    },
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Path(path) => write!(f, "Path({})", path.display()),
            Source::Stream { name, .. } => write!(f, "Stream({name:?})"),
        }
    }
}

/// A source with its name.
pub(super) struct Root {
    pub name: Vec<u8>,
    /// Where it comes from, for people.
    pub shown: PathBuf,
    pub kind: RootKind,
}

pub(super) enum RootKind {
    Path(PathBuf),
    Stream(Box<dyn Read + Send>),
}

/// Names the sources and puts them in order. `follow` resolves each path first, so that a link's root has the name of
/// what the link points to.
pub(super) fn roots(sources: Vec<Source>, follow: bool) -> Result<Vec<Root>, ImportError> {
    let mut roots: Vec<Root> = Vec::with_capacity(sources.len());
    for source in sources {
        let root = match source {
            Source::Path(given) => {
                let root = path_root(&given, follow)?;
                let same =
                    roots.iter().find(|other| other.name == root.name && matches!(other.kind, RootKind::Path(_)));
                match same {
                    Some(other) if other.shown == root.shown => continue,
                    Some(other) => {
                        return Err(ImportError::SameName {
                            name: String::from_utf8_lossy(&root.name).into_owned(),
                            first: other.shown.display().to_string(),
                            second: root.shown.display().to_string(),
                        });
                    }
                    None => root,
                }
            }
            Source::Stream { name, reader } => {
                let shown = if name.is_empty() { "standard input" } else { name.as_str() };
                Root { shown: shown.into(), name: name.into_bytes(), kind: RootKind::Stream(reader) }
            }
        };
        roots.push(root);
    }
    roots.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(roots)
}

/// The paths among the roots.
pub(super) fn paths(roots: &[Root]) -> Vec<PathBuf> {
    let path = |root: &Root| match &root.kind {
        RootKind::Path(path) => Some(path.clone()),
        RootKind::Stream(_) => None,
    };
    roots.iter().filter_map(path).collect()
}

fn path_root(given: &Path, follow: bool) -> Result<Root, ImportError> {
    let failed = |error| ImportError::io("read", given, error);
    if given.as_os_str().is_empty() {
        return Err(failed(std::io::ErrorKind::NotFound.into()));
    }
    // `.`, `..` and `/` have no name of their own; what they are has one.
    let path = if follow || given.file_name().is_none() {
        given.canonicalize().map_err(failed)?
    } else {
        std::path::absolute(given).map_err(failed)?
    };
    let name = path.file_name().map_or_else(|| b"/".to_vec(), |name| name.as_bytes().to_vec());
    Ok(Root { name, shown: path.clone(), kind: RootKind::Path(path) })
}

/// The path of an entry below a root, for events: the names with slashes between them, without empty ones.
pub(super) fn join(parts: &[&[u8]]) -> Vec<u8> {
    let mut path = Vec::new();
    for part in parts.iter().filter(|part| !part.is_empty()) {
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(part);
    }
    path
}

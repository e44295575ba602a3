//! The files that a client of kubo sends as multipart: their names, their metadata, and directories of them put down in
//! the repository until they are imported.
//!
//! A part's file name is its path, percent-encoded; its content type says whether it is a file, a directory or a symbolic
//! link; mode and time of last change stand in the query behind its form name (`file?mode=0644&mtime=…`).

use std::ffi::OsString;
use std::fs::{OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use axum::extract::multipart::Field;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use tokio::runtime::Handle;

use super::reply::ApiError;
use crate::import::{ImportOptions, Source};
use crate::limits::{MAX_DIRECTORY_DEPTH, MAX_SYMLINK_BYTES};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
    Symlink,
}

/// One part of a multipart body, without its bytes.
#[derive(Debug)]
pub struct Part {
    names: Vec<OsString>,
    kind: Kind,
    metadata: Metadata,
}

/// What a part says of its file beside the bytes.
#[derive(Clone, Copy, Debug)]
struct Metadata {
    mode: Option<u32>,
    /// Seconds and nanoseconds.
    mtime: Option<(i64, u32)>,
}

impl Part {
    /// Reads the head of a part.
    pub fn new(field: &Field<'_>) -> Result<Part, ApiError> {
        let kind = match field.content_type() {
            Some("application/x-directory" | "multipart/form-data") => Kind::Directory,
            Some("application/symlink") => Kind::Symlink,
            _ => Kind::File,
        };
        let path = unescape(field.file_name().unwrap_or_default());
        let mut names: Vec<OsString> = Vec::new();
        // As a path below `/` is cleaned: `..` never leads out of it.
        for name in path.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." => {}
                b".." => drop(names.pop()),
                name => names.push(OsString::from_vec(name.to_vec())),
            }
        }
        if names.len() > MAX_DIRECTORY_DEPTH {
            return Err(ApiError::usage(format!("a path of the request is over {MAX_DIRECTORY_DEPTH} levels deep")));
        }
        let query = field.name().and_then(|name| name.split_once('?')).map(|(_, query)| query).unwrap_or_default();
        let option = |wanted: &str| {
            query.split('&').filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == wanted).map(|(_, v)| v)
        };
        let nanoseconds = option("mtime-nsecs").and_then(|text| text.parse().ok()).unwrap_or_default();
        Ok(Part {
            names,
            kind,
            metadata: Metadata {
                mode: option("mode").and_then(|text| u32::from_str_radix(text, 8).ok()).map(|mode| mode & 0o7777),
                mtime: option("mtime").and_then(|text| text.parse().ok()).map(|seconds| (seconds, nanoseconds)),
            },
        })
    }

    /// Whether it is a file that is in no directory.
    pub fn stands_alone(&self) -> bool {
        self.kind == Kind::File && self.names.len() <= 1
    }

    /// The name of a file that stands alone: empty where it has none.
    pub fn name(&self) -> String {
        self.names.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The metadata that the part brings, as options of the import of a file that stands alone. What the client sets for
    /// all files wins over it.
    pub fn apply_metadata(&self, options: &mut ImportOptions) {
        if options.preserve_mode && options.mode == 0 {
            options.mode = self.metadata.mode.unwrap_or_default();
        }
        if options.preserve_mtime && options.mtime == 0 {
            (options.mtime, options.mtime_nsecs) = self.metadata.mtime.unwrap_or_default();
        }
        options.preserve_mode = false;
        options.preserve_mtime = false;
    }
}

/// What was put down so far. Dropped, it is removed.
pub struct Upload {
    directory: PathBuf,
    roots: Vec<OsString>,
    /// Directories get their metadata last: what is put into them changes it.
    directories: Vec<(PathBuf, Metadata)>,
}

impl Upload {
    /// An upload in `repository`, where nothing is made before it is needed.
    pub fn new(repository: &Path) -> Upload {
        use std::sync::atomic::{AtomicU64, Ordering};
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Upload { directory: repository.join("uploads").join(name), roots: Vec::new(), directories: Vec::new() }
    }

    /// Removes what uploads of earlier processes left behind in `repository`.
    pub fn clean(repository: &Path) {
        let _ = std::fs::remove_dir_all(repository.join("uploads"));
    }

    /// Puts a part down.
    pub fn keep(&mut self, runtime: &Handle, part: &Part, mut field: Field<'_>) -> Result<(), ApiError> {
        let Some((name, above)) = part.names.split_last() else {
            return Err(ApiError::usage("a part of the request has no file name"));
        };
        let mut path = self.directory.clone();
        self.make_directory(&path.clone())?;
        for name in above {
            path.push(name);
            self.make_directory(&path)?;
        }
        path.push(name);
        if !self.roots.contains(&part.names[0]) {
            self.roots.push(part.names[0].clone());
        }
        let failed = |error: std::io::Error| {
            let name: PathBuf = part.names.iter().collect();
            ApiError::from(error).context(format!("cannot take {}", name.display()))
        };
        match part.kind {
            Kind::Directory => {
                self.make_directory(&path)?;
                self.directories.push((path, part.metadata));
            }
            Kind::Symlink => {
                let mut target = Vec::new();
                while let Some(piece) = runtime.block_on(field.chunk())? {
                    target.extend_from_slice(&piece);
                    if target.len() > MAX_SYMLINK_BYTES {
                        return Err(ApiError::usage(format!("a link's target is over {MAX_SYMLINK_BYTES} bytes")));
                    }
                }
                std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(&target), &path).map_err(failed)?;
                apply(&path, part.metadata).map_err(failed)?;
            }
            Kind::File => {
                let mut options = OpenOptions::new();
                let mut file = options.write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
                while let Some(piece) = runtime.block_on(field.chunk())? {
                    file.write_all(&piece).map_err(failed)?;
                }
                apply(&path, part.metadata).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// What was put down, to be imported.
    pub fn sources(&self) -> Vec<Source> {
        for (path, metadata) in self.directories.iter().rev() {
            if let Err(error) = apply(path, *metadata) {
                tracing::warn!(path = %path.display(), %error, "a directory's metadata is not kept");
            }
        }
        self.roots.iter().map(|name| Source::Path(self.directory.join(name))).collect()
    }

    fn make_directory(&self, path: &Path) -> Result<(), ApiError> {
        match std::fs::DirBuilder::new().mode(0o700).recursive(path == self.directory).create(path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            other => other.map_err(|error| ApiError::from(error).context("cannot take the files of the request")),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.roots.is_empty() {
            return;
        }
        for (path, ..) in &self.directories {
            let _ = std::fs::set_permissions(path, Permissions::from_mode(0o700));
        }
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            tracing::warn!(path = %self.directory.display(), %error, "an upload is left behind until the next start");
        }
    }
}

/// Gives what was put down the metadata that its part brought.
fn apply(path: &Path, metadata: Metadata) -> std::io::Result<()> {
    if let Some((seconds, nanoseconds)) = metadata.mtime {
        let time = TimeSpec::new(seconds, i64::from(nanoseconds.min(999_999_999)));
        utimensat(AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink)?;
    }
    if let Some(mode) = metadata.mode
        && !path.is_symlink()
    {
        // The import must be able to read it; root always is.
        let readable = if nix::unistd::geteuid().is_root() { 0 } else { 0o400 };
        std::fs::set_permissions(path, Permissions::from_mode(mode | readable))?;
    }
    Ok(())
}

/// Undoes percent-encoding, and `+` for a blank; what is no escape stays.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = code.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            out.push(byte);
            rest = &after[2..];
        } else {
            out.push(if *first == b'+' { b' ' } else { *first });
            rest = after;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unescaped() {
        assert_eq!(unescape("a%2Fb+c%ff%"), b"a/b c\xff%");
        assert_eq!(unescape("%zz"), b"%zz");
    }
}

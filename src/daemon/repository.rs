//! The repository: the one directory that holds everything of one cidfs, and the lock that one process has on it.
//!
//! ```text
//! <repository>/            0700
//!     config.toml          the settings, see `crate::config`
//!     repo.lock            locked by the process that has the store open; says which one that is
//!     api.sock             0600, where a daemon runs
//!     identity.key         0600, the private key that names this repository to others
//!     store/               the blocks
//!     daemon.log           what a daemon that `cidfs mount` started has to say
//! ```
//!
//! It is made at first use. The lock is the kernel's (`flock`): it goes with its process, however that ends, so a lock is
//! never stale and nothing has to be cleaned up by hand.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config;

/// Why the repository cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// Another process has it open.
    #[error("repository {path} is in use by {holder}")]
    Locked {
        /// The repository.
        path: PathBuf,
        /// Which process, for people: `process 1234 (cidfs add)`.
        holder: String,
    },
    /// It belongs to another user: files made in it now would lock that user out.
    #[error(
        "repository {path} belongs to user {owner}, and this is user {user}: run cidfs as that user, or set CIDFS_PATH to \
         a directory of your own"
    )]
    Foreign {
        /// The repository.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        user: u32,
    },
    /// There is no home to put it in.
    #[error("no place for the repository: set CIDFS_PATH, XDG_DATA_HOME, or HOME")]
    NoHome,
    /// The system refused.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A repository that this process has locked. Dropping it frees the lock.
#[derive(Debug)]
pub struct Repository {
    path: PathBuf,
    _lock: File,
}

/// Where the repository is: `CIDFS_PATH`, else `cidfs` in `XDG_DATA_HOME`, else `~/.local/share/cidfs`. `variable` reads
/// the environment, and `home` is the user's home by the system's list of users. The path is absolute; nothing is made.
pub fn locate(
    variable: impl Fn(&str) -> Option<std::ffi::OsString>,
    home: Option<PathBuf>,
) -> Result<PathBuf, RepositoryError> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let path = if let Some(path) = set("CIDFS_PATH") {
        path
    } else if let Some(data) = set("XDG_DATA_HOME").filter(|path| path.is_absolute()) {
        data.join("cidfs")
    } else if let Some(home) = set("HOME") {
        home.join(".local/share/cidfs")
    } else if let Some(home) = home {
        // Whoever is started at boot has no HOME.
        home.join(".local/share/cidfs")
    } else {
        return Err(RepositoryError::NoHome);
    };
    std::path::absolute(&path).map_err(|source| RepositoryError::Io { what: "resolve", path, source })
}

/// The socket of the repository's daemon.
pub fn socket(path: &Path) -> PathBuf {
    path.join("api.sock")
}

/// The file with the repository's settings.
pub fn config_file(path: &Path) -> PathBuf {
    path.join("config.toml")
}

/// Makes the directory and its settings file, where they are missing, and closes it to other users.
pub fn create(path: &Path) -> Result<(), RepositoryError> {
    let io = |what| move |source| RepositoryError::Io { what, path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io("make directory"))?;
    let metadata = std::fs::metadata(path).map_err(io("read"))?;
    let user = nix::unistd::geteuid().as_raw();
    if let Ok(lock) = std::fs::metadata(path.join("repo.lock"))
        && lock.uid() != user
    {
        return Err(RepositoryError::Foreign { path: path.to_owned(), owner: lock.uid(), user });
    }
    if metadata.mode() & 0o077 != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(io("close to other users"))?;
    }
    let file = config_file(path);
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file) {
        Ok(mut opened) => opened
            .write_all(config::default_file().as_bytes())
            .map_err(|source| RepositoryError::Io { what: "write", path: file, source })?,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(RepositoryError::Io { what: "write", path: file, source }),
    }
    Ok(())
}

impl Repository {
    /// Locks the repository at `path`, making it where there is none. `purpose` says what this process does, for the one that
    /// finds it locked. `wait` is how long to wait for a process that is about to leave.
    pub fn lock(path: &Path, purpose: &str, wait: Duration) -> Result<Repository, RepositoryError> {
        create(path)?;
        let file = path.join("repo.lock");
        let io = |what| {
            let path = file.clone();
            move |source| RepositoryError::Io { what, path, source }
        };
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&file)
            .map_err(io("open"))?;
        let deadline = Instant::now() + wait;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(std::fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                    // flock has no wait with a deadline, and its end is no event that a process could await.
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(std::fs::TryLockError::WouldBlock) => {
                    return Err(RepositoryError::Locked { path: path.to_owned(), holder: holder(&mut lock) });
                }
                Err(std::fs::TryLockError::Error(source)) => return Err(io("lock")(source)),
            }
        }
        // A pid that cannot be written (disk full) costs others a name in a message: no reason to fail.
        let _ = lock.set_len(0);
        let _ = lock.rewind();
        let _ = writeln!(lock, "{} {purpose}", std::process::id());
        Ok(Repository { path: path.to_owned(), _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of the store.
    pub fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    /// The socket of this repository's daemon.
    pub fn socket(&self) -> PathBuf {
        socket(&self.path)
    }

    /// The settings file.
    pub fn config_file(&self) -> PathBuf {
        config_file(&self.path)
    }
}

/// Which process has the repository open, as that process wrote it.
fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    let read = lock.rewind().and_then(|()| lock.read_to_string(&mut text));
    match (read, text.trim().split_once(' ')) {
        (Ok(_), Some((pid, purpose))) if !pid.is_empty() => format!("process {pid} ({purpose})"),
        _ => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<std::ffi::OsString> {
        move |name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into())
    }

    #[test]
    fn the_repository_is_where_the_environment_says() {
        let all = &[("CIDFS_PATH", "/a"), ("XDG_DATA_HOME", "/b"), ("HOME", "/c")];
        assert_eq!(locate(with(all), None).unwrap(), Path::new("/a"));
        assert_eq!(locate(with(&all[1..]), None).unwrap(), Path::new("/b/cidfs"));
        assert_eq!(locate(with(&all[2..]), None).unwrap(), Path::new("/c/.local/share/cidfs"));
        assert_eq!(
            locate(with(&[("CIDFS_PATH", ""), ("HOME", "/c")]), None).unwrap(),
            Path::new("/c/.local/share/cidfs")
        );
        assert_eq!(locate(with(&[]), Some("/d".into())).unwrap(), Path::new("/d/.local/share/cidfs"));
        assert!(matches!(locate(with(&[]), None), Err(RepositoryError::NoHome)));
    }

    #[test]
    fn first_use_makes_a_directory_that_nobody_else_can_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/repository");
        let repository = Repository::lock(&path, "test", Duration::ZERO).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        for file in ["config.toml", "repo.lock"] {
            assert_eq!(std::fs::metadata(path.join(file)).unwrap().mode() & 0o777, 0o600, "{file}");
        }
        assert_eq!(std::fs::read_to_string(repository.config_file()).unwrap(), config::default_file());
    }

    #[test]
    fn an_open_directory_is_closed_at_first_use() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let _repository = Repository::lock(directory.path(), "test", Duration::ZERO).unwrap();
        assert_eq!(std::fs::metadata(directory.path()).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_second_lock_names_the_process_that_has_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let first = Repository::lock(directory.path(), "cidfs add", Duration::ZERO).unwrap();
        let error = Repository::lock(directory.path(), "cidfs gc", Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains(&format!("process {} (cidfs add)", std::process::id())), "{error}");
        drop(first);
        assert!(Repository::lock(directory.path(), "cidfs gc", Duration::ZERO).is_ok());
    }
}

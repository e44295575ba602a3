//! Mounting and unmounting: the system calls, `fusermount3`, and what the kernel says of mounts.
//!
//! Whoever may call mount(2) does; everybody else goes through `fusermount3`, which is setuid root and hands the connection
//! back over a socket. Nothing here unmounts by a path alone: the path must still be the mount that is meant.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::MountError;
use super::options::MountOptions;

/// The name of the filesystem in lists of mounts, and its type after `fuse.`.
const NAME: &str = "cidfs";

/// A line of `/proc/self/mountinfo`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MountInfo {
    /// Major and minor number of the filesystem's device.
    pub device: (u32, u32),
    pub path: PathBuf,
    /// The type, as in `fuse.cidfs`.
    pub kind: String,
    /// What is mounted.
    pub source: String,
}

impl MountInfo {
    /// Whether a cidfs made it.
    pub fn is_ours(&self) -> bool {
        self.kind == format!("fuse.{NAME}") || self.kind == NAME
    }
}

/// The mounts that this process sees, those mounted later after those that they cover.
pub(super) fn mounts() -> io::Result<Vec<MountInfo>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(parse_mount).collect())
}

/// Reads a line: `36 35 0:32 / /mnt rw,noatime shared:1 - fuse.cidfs cidfs rw,user_id=0` (see `man 5 proc`).
fn parse_mount(line: &[u8]) -> Option<MountInfo> {
    let mut fields = line.split(|byte| *byte == b' ');
    let text = |field: Option<&[u8]>| String::from_utf8(field?.to_vec()).ok();
    let device = text(fields.nth(2))?;
    let (major, minor) = device.split_once(':')?;
    let path = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    Some(MountInfo {
        device: (major.parse().ok()?, minor.parse().ok()?),
        path,
        kind: text(rest.next())?,
        source: text(rest.next())?,
    })
}

/// Undoes the octal escapes of blanks and backslashes.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| {
            digits.iter().try_fold(0_u32, |code, digit| Some(code * 8 + char::from(*digit).to_digit(8)?))
        });
        if let Some(byte) = code.and_then(|code| u8::try_from(code).ok()) {
            out.push(byte);
            rest = &after[3..];
        } else {
            out.push(*first);
            rest = after;
        }
    }
    out
}

/// Makes `path` ready to be mounted on, and returns it without links: a stale mount on it (its daemon died) is detached, a
/// missing directory is made where its parent exists, and a mount that lives is refused.
pub(super) fn prepare(path: &Path) -> Result<PathBuf, MountError> {
    let io_error = |source| MountError::Mountpoint { path: path.to_owned(), source };
    // A stale mount cannot be resolved itself, but its parent can.
    let path = match path.file_name() {
        Some(name) => {
            let parent = match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            let whole = parent.canonicalize().map_err(io_error)?.join(name);
            if whole.is_symlink() { whole.canonicalize().map_err(io_error)? } else { whole }
        }
        None => path.canonicalize().map_err(io_error)?,
    };
    loop {
        let mounted = mounts().map_err(io_error)?.into_iter().rfind(|mount| mount.path == path);
        match metadata(&path) {
            Ok(metadata) if !metadata.is_dir() => return Err(MountError::NotADirectory { path }),
            Ok(_) => {
                return match mounted {
                    Some(mount) if mount.kind.starts_with("fuse") => {
                        Err(MountError::Busy { path, kind: mount.kind, source_name: mount.source })
                    }
                    _ => Ok(path),
                };
            }
            Err(error) if is_stale(&error) => {
                detach(&path).map_err(|source| MountError::Stale { path: path.clone(), source })?;
                tracing::info!(path = %path.display(), "detached a stale mount whose daemon is gone");
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir(&path).map_err(|source| MountError::Mountpoint { path: path.clone(), source })?;
                tracing::info!(path = %path.display(), "made the directory to mount on");
            }
            Err(source) => return Err(MountError::Mountpoint { path, source }),
        }
    }
}

/// The attributes of what is at `path`, unless it is a mount whose daemon is gone. The kernel may still know the attributes
/// of such a mount and tell them without asking, but it asks for the figures of a filesystem each time.
fn metadata(path: &Path) -> io::Result<std::fs::Metadata> {
    let metadata = std::fs::metadata(path)?;
    nix::sys::statfs::statfs(path)?;
    Ok(metadata)
}

fn is_stale(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED))
}

/// Mounts on `path`, and returns the connection to the kernel.
pub(super) fn mount(path: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    match mount_directly(path, options) {
        // The device may be root's alone, and still fusermount3 mounts for others.
        Err(MountError::Mount { source, .. } | MountError::Device { source })
            if matches!(source.raw_os_error(), Some(libc::EPERM | libc::EACCES)) =>
        {
            mount_through_fusermount(path, options)
        }
        done => done,
    }
}

fn mount_directly(path: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let device = open_device()?;
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={}",
        device.as_raw_fd(),
        nix::unistd::getuid(),
        nix::unistd::getgid()
    );
    for (wanted, name) in [(options.allow_other, ",allow_other"), (options.default_permissions, ",default_permissions")]
    {
        if wanted {
            data.push_str(name);
        }
    }
    let mut flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
    if !options.exec {
        flags |= MsFlags::MS_NOEXEC;
    }
    let kind = format!("fuse.{NAME}");
    nix::mount::mount(Some(options.source.as_str()), path, Some(kind.as_str()), flags, Some(data.as_str()))
        .map_err(|errno| MountError::Mount { path: path.to_owned(), source: errno.into() })?;
    Ok(device.into())
}

/// Opens `/dev/fuse` on a descriptor that no standard stream has.
fn open_device() -> Result<File, MountError> {
    OpenOptions::new().read(true).write(true).open("/dev/fuse").map_err(|source| MountError::Device { source })
}

fn mount_through_fusermount(path: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let failed = |source| MountError::Mount { path: path.to_owned(), source };
    // In the list a comma and a backslash stand for themselves behind a backslash.
    let source = options.source.replace('\\', "\\\\").replace(',', "\\,");
    let mut list = format!("fsname={source},subtype={NAME},ro,nosuid,nodev,noatime");
    for (wanted, name) in [
        (options.allow_other, ",allow_other"),
        (options.default_permissions, ",default_permissions"),
        (!options.exec, ",noexec"),
    ] {
        if wanted {
            list.push_str(name);
        }
    }
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let mut command = Command::new(FUSERMOUNT);
    command.args(["-o", &list, "--"]).arg(path).env("_FUSE_COMMFD", theirs.as_raw_fd().to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    inherit(&mut command, theirs.as_raw_fd());
    let child = command.spawn().map_err(|source| MountError::Fusermount { source })?;
    drop(theirs);
    let connection = receive_descriptor(&ours);
    let output = child.wait_with_output().map_err(failed)?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match connection {
        Ok(Some(connection)) if output.status.success() => Ok(connection),
        Ok(_) => Err(MountError::Refused { path: path.to_owned(), said }),
        Err(source) => Err(failed(source)),
    }
}

/// The program that mounts for ordinary users.
const FUSERMOUNT: &str = "fusermount3";

/// Lets a child keep a descriptor that is closed at exec otherwise.
fn inherit(command: &mut Command, descriptor: RawFd) {
    let keep = move || {
        // SAFETY: fcntl on an integer touches no memory; it is async-signal-safe, as `pre_exec` demands.
        match unsafe { libc::fcntl(descriptor, libc::F_SETFD, 0) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    // SAFETY: the closure only calls fcntl, which is async-signal-safe.
    unsafe { command.pre_exec(keep) };
}

/// The descriptor that the other end sends, or `None` where it hangs up without one.
fn receive_descriptor(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut data = [io::IoSliceMut::new(&mut byte)];
    let mut control = cmsg_space!(RawFd);
    let message = loop {
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(socket.as_raw_fd(), &mut data, Some(&mut control), flags) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control
            && let Some(descriptor) = descriptors.first()
        {
            // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
            return Ok(Some(unsafe { OwnedFd::from_raw_fd(*descriptor) }));
        }
    }
    Ok(None)
}

/// Takes the mount on `path` out of the tree of directories; open files in it go on.
pub(super) fn detach(path: &Path) -> io::Result<()> {
    match nix::mount::umount2(path, MntFlags::MNT_DETACH) {
        Err(Errno::EPERM) => {
            let output = Command::new(FUSERMOUNT).args(["-u", "-z", "--"]).arg(path).stdin(Stdio::null()).output()?;
            if output.status.success() {
                Ok(())
            } else {
                Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
            }
        }
        other => Ok(other?),
    }
}

/// A mount of ours, as the kernel knows it.
#[derive(Clone, Debug)]
pub(super) struct Mounted {
    pub path: PathBuf,
    device: (u32, u32),
}

impl Mounted {
    /// Asks the mount on `path` for its device, which is the first question that it answers.
    pub fn identify(path: PathBuf) -> io::Result<Mounted> {
        let device = std::fs::metadata(&path)?.dev();
        Ok(Mounted { path, device: (nix::sys::stat::major(device) as u32, nix::sys::stat::minor(device) as u32) })
    }

    /// Detaches the mount, unless somebody has already. Something that was mounted over it since is left alone.
    pub fn detach(&self) -> io::Result<()> {
        match mounts()?.iter().rfind(|mount| mount.path == self.path) {
            Some(top) if top.device == self.device => detach(&self.path),
            _ => Ok(()),
        }
    }

    /// Ends the connection: whoever still waits in the mount gets an error. The kernel offers this through fusectl, which
    /// systemd mounts; where nobody has, root looks at it without mounting it anywhere.
    pub fn abort(&self) -> io::Result<()> {
        let name = format!("{}/abort", self.device.1);
        match std::fs::write(Path::new("/sys/fs/fuse/connections").join(&name), b"1") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let connections = open_fusectl()?;
                let flags = nix::fcntl::OFlag::O_WRONLY | nix::fcntl::OFlag::O_CLOEXEC;
                let file = nix::fcntl::openat(&connections, name.as_str(), flags, nix::sys::stat::Mode::empty())?;
                File::from(file).write_all(b"1")
            }
            done => done,
        }
    }

    /// Sets how much the kernel reads ahead in a file; only root may.
    pub fn set_read_ahead(&self, bytes: u64) -> io::Result<()> {
        let (major, minor) = self.device;
        std::fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), (bytes / 1024).to_string())
    }
}

/// A view of fusectl that is mounted nowhere (see `man 2 fsopen`).
fn open_fusectl() -> io::Result<OwnedFd> {
    const CLOSE_ON_EXEC: libc::c_long = 1;
    const FSCONFIG_CMD_CREATE: libc::c_long = 6;
    let nothing = std::ptr::null::<libc::c_char>();
    // SAFETY: the name is a C string that outlives the call, which makes a new descriptor.
    let context = descriptor(unsafe { libc::syscall(libc::SYS_fsopen, c"fusectl".as_ptr(), CLOSE_ON_EXEC) })?;
    // SAFETY: this command takes no key and no value.
    let made =
        unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, nothing, nothing, 0) };
    if made == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: numbers only; the call makes a new descriptor.
    descriptor(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), CLOSE_ON_EXEC, 0) })
}

/// The descriptor that a system call has just made.
fn descriptor(returned: libc::c_long) -> io::Result<OwnedFd> {
    if returned < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the caller has it from a system call that makes descriptors, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(returned as RawFd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read_with_its_escapes() {
        let line = br"36 35 0:32 / /mnt/two\040words\134 ro,nosuid shared:1 master:2 - fuse.cidfs cidfs ro,user_id=0";
        assert_eq!(
            parse_mount(line),
            Some(MountInfo {
                device: (0, 32),
                path: PathBuf::from("/mnt/two words\\"),
                kind: "fuse.cidfs".into(),
                source: "cidfs".into(),
            })
        );
        assert_eq!(parse_mount(b""), None);
    }

    #[test]
    fn a_file_is_no_mountpoint() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(prepare(file.path()), Err(MountError::NotADirectory { .. })));
    }
}

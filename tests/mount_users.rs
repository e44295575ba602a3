//! Mounts by the program: those of an ordinary user, and those whose daemon died.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// An ordinary user and their group, as every Linux has them.
const NOBODY: &str = "65534";

/// A directory that everybody may enter, with a copy of the program in it, and a repository; whatever is mounted below is
/// unmounted at the end.
struct Home {
    directory: tempfile::TempDir,
}

impl Home {
    fn new() -> Home {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        // By another process: what this one writes could not be run while some test's child holds it open.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_cidfs")).arg(directory.path().join("cidfs")).status();
        assert!(copied.unwrap().success());
        fs::create_dir(directory.path().join("mount")).unwrap();
        fs::set_permissions(directory.path().join("mount"), fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(directory.path().join("file"), b"some content").unwrap();
        Home { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A program as the given user, with this home.
    fn command(&self, user: Option<&str>, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = match user {
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", user, "--regid", user, "--clear-groups"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.env("CIDFS_PATH", self.path("repository")).env("CIDFS_NETWORK_PROFILE", "offline");
        command.env("HOME", self.directory.path()).current_dir("/");
        command
    }

    fn cidfs(&self, user: Option<&str>, arguments: &[&str]) -> String {
        let output = self.command(user, self.path("cidfs")).args(arguments).output().unwrap();
        assert!(output.status.success(), "cidfs {arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn is_mounted(&self) -> bool {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.contains(self.path("mount").to_str().unwrap())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        while self.is_mounted() {
            if !Command::new("umount").arg("-l").arg(self.path("mount")).status().is_ok_and(|status| status.success()) {
                break;
            }
        }
    }
}

/// `/dev/fuse` open to everybody, as udev makes it, while a test needs it; machines without udev keep it for root.
struct OpenDevice(fs::Permissions);

impl OpenDevice {
    fn new() -> OpenDevice {
        let before = fs::metadata("/dev/fuse").expect("tests of mounts need /dev/fuse").permissions();
        fs::set_permissions("/dev/fuse", fs::Permissions::from_mode(0o666)).expect("tests of mounts need root");
        OpenDevice(before)
    }
}

impl Drop for OpenDevice {
    fn drop(&mut self) {
        let _ = fs::set_permissions("/dev/fuse", self.0.clone());
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn an_ordinary_user_mounts_reads_and_unmounts_needs_root() {
    let _open = OpenDevice::new();
    let home = Home::new();
    let user = Some(NOBODY);
    let added = home.cidfs(user, &["add", "-Q", text(&home.path("file"))]);
    let mountpoint = home.path("mount");
    home.cidfs(user, &["mount", text(&mountpoint)]);
    let file = mountpoint.join(added.trim());
    let read = home.command(user, "cat").arg(&file).output().unwrap();
    assert_eq!(said(&read), "some content");
    let options =
        home.command(user, "findmnt").args(["-no", "FSTYPE,SOURCE,OPTIONS"]).arg(&mountpoint).output().unwrap();
    let options = said(&options);
    for wanted in ["fuse.cidfs", "ro", "nosuid", "nodev", "user_id=65534"] {
        assert!(options.contains(wanted), "{wanted}: {options}");
    }
    // Nobody else looks inside, root included.
    assert!(fs::read(&file).is_err());
    // A file that somebody holds open keeps nobody from unmounting.
    let mut holder = home.command(user, "sh");
    holder.args(["-c", "exec 3<\"$0\"; echo open; read line"]).arg(&file).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = Foreground(holder.spawn().unwrap());
    let mut said = [0; 5];
    holder.0.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(said, *b"open\n");
    home.cidfs(user, &["umount", text(&mountpoint)]);
    assert!(!home.is_mounted());
}

struct Foreground(Child);

impl Drop for Foreground {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_mount_whose_daemon_was_killed_is_healed_by_the_next() {
    let home = Home::new();
    let added = home.cidfs(None, &["add", "-Q", text(&home.path("file"))]);
    let mountpoint = home.path("mount");
    let file = mountpoint.join(added.trim());
    let start = || {
        let daemon = Foreground(home.command(None, home.path("cidfs")).arg("daemon").spawn().unwrap());
        let begun = Instant::now();
        let answers = || nix::sys::statfs::statfs(&mountpoint).is_ok() && fs::read(&file).is_ok();
        while !home.path("repository/api.sock").exists() || !answers() {
            assert!(begun.elapsed() < Duration::from_mins(1), "the mount does not answer");
            // The daemon that is starting answers it; before it listens, the verb says so and is asked again.
            let _ = home.command(None, home.path("cidfs")).arg("mount").arg(&mountpoint).output();
        }
        daemon
    };
    let mut killed = start();
    // The kernel knows the attributes now, and tells them for a while without asking anybody.
    assert!(fs::metadata(&mountpoint).unwrap().is_dir());
    killed.0.kill().unwrap();
    killed.0.wait().unwrap();
    let _ = fs::remove_file(home.path("repository/api.sock"));
    assert!(home.is_mounted(), "the kernel keeps the mount of a process that is gone");
    // Attributes may still be told from the kernel's cache; figures of a filesystem never are.
    assert_eq!(nix::sys::statfs::statfs(&mountpoint).err(), Some(nix::errno::Errno::ENOTCONN));
    let healed = start();
    assert_eq!(fs::read(&file).unwrap(), b"some content");
    home.cidfs(None, &["umount", text(&mountpoint)]);
    assert!(!home.is_mounted());
    drop(healed);
}

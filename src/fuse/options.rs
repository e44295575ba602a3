//! How a mount behaves: [`MountOptions`], and how they are read from a `-o` list.

use std::path::PathBuf;
use std::time::Duration;

use crate::prefetch;

/// What a mount is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Profile {
    /// Many small files, each read whole, again and again: no OPEN round trips, everything in the page cache.
    #[default]
    Training,
    /// Few large files, mapped or read at random: OPEN, so that the kernel can be handed a local copy.
    Serving,
}

/// The options of a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    /// What the mount is made for.
    pub profile: Profile,
    /// What the mount is listed under, as the device of a disk is.
    pub source: String,
    /// Whether users other than the one who mounts may look inside.
    pub allow_other: bool,
    /// Whether the kernel checks the permission bits of files against the reader; without it, whoever may look inside
    /// may read everything.
    pub default_permissions: bool,
    /// Whether programs may be run from the mount.
    pub exec: bool,
    /// How many threads answer the kernel; 0 for one a core, and at least four.
    pub threads: usize,
    /// How much the kernel reads ahead in a file, in bytes, where we are allowed to say.
    pub read_ahead_bytes: u64,
    /// Where the serving profile may put copies of large files, for the kernel to read by itself. `None`: no copies.
    pub copies_dir: Option<PathBuf>,
    /// How long a request may wait, after its last progress, for a block that is not on this machine.
    pub timeout: Duration,
    /// What is brought ahead of readers.
    pub prefetch: prefetch::Settings,
}

impl Default for MountOptions {
    fn default() -> MountOptions {
        MountOptions {
            profile: Profile::default(),
            source: "cidfs".to_owned(),
            allow_other: false,
            default_permissions: false,
            exec: true,
            threads: 0,
            read_ahead_bytes: 1 << 20,
            copies_dir: None,
            timeout: crate::config::FetchConfig::default().timeout,
            prefetch: prefetch::Settings::default(),
        }
    }
}

/// Why a `-o` list is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// An option that neither cidfs nor mount(8) has.
    #[error(
        "unknown mount option {0:?}; cidfs takes profile=training|serving, allow_other, default_permissions, \
             threads=N, read_ahead=BYTES, timeout=SECONDS, exec, noexec, and the generic options of mount(8) that suit a \
             read-only filesystem"
    )]
    Unknown(String),
    /// An option whose value cannot be read.
    #[error("mount option {option}: {value:?} is not {expected}")]
    Value {
        /// The option.
        option: String,
        /// What it was given.
        value: String,
        /// What it takes.
        expected: &'static str,
    },
    /// An option that the filesystem cannot keep.
    #[error("mount option {0:?}: a cidfs mount is always read-only, nosuid and nodev")]
    Refused(String),
}

impl MountOptions {
    /// Applies a comma-separated `-o` list; later options win. What mount(8), fstab and systemd add for themselves is
    /// accepted and left to them.
    pub fn parse(&mut self, list: &str) -> Result<(), OptionError> {
        for option in list.split(',').filter(|option| !option.is_empty()) {
            self.apply(option)?;
        }
        Ok(())
    }

    fn apply(&mut self, option: &str) -> Result<(), OptionError> {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        let wrong = |expected| OptionError::Value {
            option: name.to_owned(),
            value: value.unwrap_or_default().to_owned(),
            expected,
        };
        match (name, value) {
            ("profile", Some("training")) => self.profile = Profile::Training,
            ("profile", Some("serving")) => self.profile = Profile::Serving,
            ("profile", _) => return Err(wrong("training or serving")),
            ("fsname", Some(source)) if !source.is_empty() => source.clone_into(&mut self.source),
            ("fsname", _) => return Err(wrong("a name")),
            ("allow_other", None) => self.allow_other = true,
            ("default_permissions", None) => self.default_permissions = true,
            ("exec", None) => self.exec = true,
            ("noexec", None) => self.exec = false,
            ("threads", value) => {
                self.threads =
                    value.and_then(|value| value.parse().ok()).ok_or_else(|| wrong("a number of threads"))?;
            }
            ("read_ahead", value) => {
                self.read_ahead_bytes =
                    value.and_then(|value| value.parse().ok()).ok_or_else(|| wrong("a number of bytes"))?;
            }
            ("timeout", value) => {
                let seconds = value.and_then(|value| value.parse().ok()).filter(|seconds| *seconds > 0);
                self.timeout = Duration::from_secs(seconds.ok_or_else(|| wrong("a number of seconds over 0"))?);
            }
            ("rw" | "suid" | "dev" | "remount", None) => return Err(OptionError::Refused(option.to_owned())),
            // What the mount is anyway, and what mount(8) and systemd act on themselves.
            (
                "ro" | "nosuid" | "nodev" | "defaults" | "auto" | "noauto" | "user" | "nouser" | "users" | "nousers"
                | "owner" | "noowner" | "group" | "nogroup" | "_netdev" | "nofail" | "async" | "sync" | "dirsync"
                | "atime" | "noatime" | "diratime" | "nodiratime" | "relatime" | "norelatime" | "strictatime"
                | "nostrictatime" | "lazytime" | "nolazytime" | "silent" | "loud" | "mand" | "nomand" | "iversion"
                | "noiversion" | "subtype" | "comment",
                _,
            ) => {}
            _ if name.starts_with("x-") || name.starts_with("X-") => {}
            _ => return Err(OptionError::Unknown(option.to_owned())),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_ours_and_of_mount_are_read() {
        let mut options = MountOptions::default();
        let list = "ro,noauto,user,_netdev,x-systemd.automount,nofail,defaults,noatime,profile=serving,allow_other,\
                    threads=3,timeout=5,noexec,fsname=/var/lib/cidfs";
        options.parse(list).unwrap();
        assert_eq!(
            options,
            MountOptions {
                profile: Profile::Serving,
                source: "/var/lib/cidfs".to_owned(),
                allow_other: true,
                threads: 3,
                timeout: Duration::from_secs(5),
                exec: false,
                ..MountOptions::default()
            }
        );
    }

    #[test]
    fn an_unknown_or_impossible_option_is_named() {
        for (list, says) in [
            ("frobnicate", "unknown mount option \"frobnicate\""),
            ("profile=fast", "\"fast\" is not training or serving"),
            ("ro,rw", "always read-only"),
            ("timeout=0", "\"0\" is not a number of seconds"),
            ("threads", "not a number of threads"),
            ("fsname=", "\"\" is not a name"),
        ] {
            let error = MountOptions::default().parse(list).unwrap_err().to_string();
            assert!(error.contains(says), "{list}: {error}");
        }
    }
}

//! The binary under measurement, driven as a user drives it, on a repository of its own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A `cidfs` binary and a repository.
#[derive(Clone)]
pub struct Cidfs {
    binary: PathBuf,
    repository: PathBuf,
    environment: Vec<(String, String)>,
}

/// A mount, and the daemon that was started for it; both end when this is dropped.
pub struct Mount {
    cidfs: Cidfs,
    mountpoint: PathBuf,
}

impl Cidfs {
    /// Nothing is run yet.
    pub fn new(binary: &Path, repository: &Path) -> Cidfs {
        Cidfs { binary: binary.to_owned(), repository: repository.to_owned(), environment: Vec::new() }
    }

    /// The same with a setting in its environment, as `CIDFS_STORE_RAM_BYTES`.
    pub fn with(&self, variable: &str, value: u64) -> Cidfs {
        let mut other = self.clone();
        other.environment.push((variable.to_owned(), value.to_string()));
        other
    }

    /// Adds a directory; its CID.
    pub fn add(&self, directory: &Path) -> Result<String> {
        let printed = self.run(["add".into(), "-Q".into(), directory.into()])?;
        let root = printed.lines().last().unwrap_or_default().trim().to_owned();
        if root.is_empty() {
            bail!("cidfs add -Q {} printed no CID", directory.display());
        }
        Ok(root)
    }

    /// Mounts at `<repository>.mnt`, which is made.
    pub fn mount(&self, options: &str) -> Result<Mount> {
        let mut name = OsString::from(self.repository.as_os_str());
        name.push(".mnt");
        let mountpoint = PathBuf::from(name);
        std::fs::create_dir_all(&mountpoint)?;
        let mut arguments: Vec<OsString> = vec!["mount".into()];
        if !options.is_empty() {
            arguments.extend(["-o".into(), options.into()]);
        }
        arguments.push(mountpoint.clone().into());
        self.run(arguments)?;
        Ok(Mount { cidfs: self.clone(), mountpoint })
    }

    fn run(&self, arguments: impl IntoIterator<Item = OsString>) -> Result<String> {
        let arguments: Vec<OsString> = arguments.into_iter().collect();
        let shown = || arguments.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join(" ");
        let output = Command::new(&self.binary)
            .args(&arguments)
            .env("CIDFS_PATH", &self.repository)
            .env("CIDFS_NETWORK_PROFILE", "offline")
            .envs(self.environment.iter().map(|(variable, value)| (variable, value)))
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", self.binary.display()))?;
        if !output.status.success() {
            bail!("cidfs {}: {}\n{}", shown(), output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        String::from_utf8(output.stdout).with_context(|| format!("cidfs {} printed no text", shown()))
    }
}

impl Mount {
    /// Where a root is seen.
    pub fn root(&self, cid: &str) -> PathBuf {
        self.mountpoint.join(cid)
    }

    /// The process that answers.
    pub fn daemon(&self) -> Result<u32> {
        let status = self.cidfs.run(["status".into(), "--json".into()])?;
        let status: serde_json::Value = serde_json::from_str(&status).context("cidfs status --json printed no JSON")?;
        status["Pid"].as_u64().map(|pid| pid as u32).context("cidfs status --json names no Pid")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.cidfs.run(["umount".into(), self.mountpoint.clone().into()]) {
            eprintln!("{error:#}");
        }
    }
}

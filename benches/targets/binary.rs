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
    pub fn with(&self, variable: &str, value: &impl ToString) -> Cidfs {
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

    /// The value of a setting, as `prefetch.push`.
    pub fn setting(&self, key: &str) -> Result<String> {
        Ok(self.run(["config".into(), "get".into(), key.into()])?.trim().to_owned())
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

    /// Hands over the order in which files below a root will be read.
    pub fn plan(&self, cid: &str, order: &[PathBuf]) -> Result<()> {
        let list = self.mountpoint.with_extension("order");
        write_order(&list, order)?;
        self.cidfs.run(["plan".into(), cid.into(), "--order".into(), list.into()]).map(drop)
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

/// Writes an order of files as `cidfs plan` reads it.
pub fn write_order(list: &Path, order: &[PathBuf]) -> Result<()> {
    let lines: Vec<_> = order.iter().map(|file| file.to_string_lossy()).collect();
    std::fs::write(list, lines.join("\n")).with_context(|| format!("cannot write {}", list.display()))
}

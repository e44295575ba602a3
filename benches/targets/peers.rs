//! Nodes that hand blocks to each other: cidfs, and kubo beside it. Each has a repository of its own, reaches only those that it
//! is told to connect to, and ends when it is dropped.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::binary::write_order;

/// How long a daemon may take to start.
const START_WAIT: Duration = Duration::from_mins(1);

/// Which implementation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// This one.
    Cidfs(PathBuf),
    /// The other one.
    Kubo(PathBuf),
}

/// A repository, and the daemon on it while there is one.
pub struct Peer {
    program: Program,
    repository: PathBuf,
    /// What to put before every command.
    prefix: Vec<String>,
    environment: Vec<(String, String)>,
    daemon: Option<Child>,
}

impl Peer {
    /// An empty repository. `listen` is the address (a multiaddr) at which its daemon will listen.
    pub fn new(program: &Program, repository: &Path, prefix: Vec<String>, listen: &str) -> Result<Peer> {
        if repository.exists() {
            fs::remove_dir_all(repository)?;
        }
        let mut peer = Peer {
            program: program.clone(),
            repository: repository.to_owned(),
            prefix,
            environment: Vec::new(),
            daemon: None,
        };
        match program {
            Program::Cidfs(_) => peer.environment.extend([
                ("CIDFS_PATH".into(), repository.display().to_string()),
                ("CIDFS_NETWORK_PROFILE".into(), "peers".into()),
                ("CIDFS_NETWORK_LISTEN".into(), listen.into()),
            ]),
            Program::Kubo(_) => {
                peer.environment.extend([
                    ("IPFS_PATH".into(), repository.display().to_string()),
                    ("IPFS_TELEMETRY".into(), "off".into()),
                ]);
                peer.run(&["init", "--profile=test,unixfs-v1-2025"])?;
                let listen = format!("[\"{listen}\"]");
                for (key, value) in [
                    ("Addresses.Swarm", listen.as_str()),
                    ("AutoConf.Enabled", "false"),
                    ("AutoTLS.Enabled", "false"),
                    ("Bootstrap", "[]"),
                    ("Swarm.RelayClient.Enabled", "false"),
                    ("Swarm.EnableHolePunching", "false"),
                    ("Routing.DelegatedRouters", "[]"),
                ] {
                    peer.run(&["config", "--json", key, value])?;
                }
                peer.run(&["config", "Routing.Type", "none"])?;
            }
        }
        Ok(peer)
    }

    /// The same with settings in its environment, as `CIDFS_STORE_RAM_BYTES`. For a daemon that is not started yet.
    pub fn with(mut self, settings: &[(String, String)]) -> Peer {
        self.environment.extend_from_slice(settings);
        self
    }

    /// Adds a file or a directory; its CID.
    pub fn add(&self, path: &Path) -> Result<String> {
        let path = path.to_str().context("the path is no text")?;
        let printed = match self.program {
            Program::Cidfs(_) => self.run(&["add", "-Q", path])?,
            Program::Kubo(_) => self.run(&["add", "-r", "-Q", path])?,
        };
        Ok(printed.trim().to_owned())
    }

    /// Starts its daemon.
    pub fn start(&mut self) -> Result<()> {
        let mut daemon = self.command(&["daemon"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (ready, printed): (_, Box<dyn std::io::Read + Send>) = match self.program {
            Program::Cidfs(_) => ("cidfs is ready", Box::new(daemon.stderr.take().context("no standard error")?)),
            Program::Kubo(_) => ("Daemon is ready", Box::new(daemon.stdout.take().context("no standard output")?)),
        };
        // The pipes are read to their end, or a talkative daemon would stop at a full one.
        let drain = |mut pipe: Box<dyn std::io::Read + Send>| {
            std::thread::spawn(move || std::io::copy(&mut pipe, &mut std::io::sink()));
        };
        if let Some(pipe) = daemon.stdout.take() {
            drain(Box::new(pipe));
        }
        if let Some(pipe) = daemon.stderr.take() {
            drain(Box::new(pipe));
        }
        self.daemon = Some(daemon);
        let mut printed = BufReader::new(printed);
        let began = Instant::now();
        let mut lines = String::new();
        loop {
            let mut line = String::new();
            if printed.read_line(&mut line)? == 0 || began.elapsed() > START_WAIT {
                bail!("the daemon on {} does not start: {lines}", self.repository.display());
            }
            if line.contains(ready) {
                break;
            }
            lines.push_str(&line);
        }
        drain(Box::new(printed));
        Ok(())
    }

    /// An address of its daemon, with its peer ID: the one that holds `part`.
    pub fn address(&self, part: &str) -> Result<String> {
        let id: Value = match self.program {
            Program::Cidfs(_) => serde_json::from_str(&self.run(&["id", "--json"])?)?,
            Program::Kubo(_) => serde_json::from_str(&self.run(&["id"])?)?,
        };
        let addresses = id["Addresses"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let address = addresses.into_iter().find(|address| address.contains(part));
        Ok(address.with_context(|| format!("no address with {part} in {id}"))?.to_owned())
    }

    /// Connects its daemon to another's.
    pub fn connect(&self, address: &str) -> Result<()> {
        self.run(&["swarm", "connect", address]).map(drop)
    }

    /// Brings a whole DAG here; the seconds it took.
    pub fn fetch(&self, root: &str) -> Result<f64> {
        let began = Instant::now();
        match self.program {
            Program::Cidfs(_) => self.run(&["fetch", root])?,
            Program::Kubo(_) => self.run(&["pin", "add", "--progress=false", root])?,
        };
        Ok(began.elapsed().as_secs_f64())
    }

    /// Mounts at `<repository>.mnt`, with its daemon.
    pub fn mount(&self) -> Result<PathBuf> {
        let mountpoint = self.repository.with_extension("mnt");
        fs::create_dir_all(&mountpoint)?;
        self.run(&["mount", mountpoint.to_str().context("the path is no text")?])?;
        Ok(mountpoint)
    }

    /// Hands over the order in which files below a root will be read.
    pub fn plan(&self, root: &str, order: &[PathBuf]) -> Result<()> {
        let list = self.repository.with_extension("order");
        write_order(&list, order)?;
        self.run(&["plan", root, "--order", list.to_str().context("the path is no text")?]).map(drop)
    }

    /// A figure of a verb that prints JSON: the number at `place`.
    pub fn figure(&self, arguments: &[&str], place: &str) -> Result<u64> {
        let printed: Value = serde_json::from_str(&self.run(arguments)?)?;
        let number = printed.pointer(place).and_then(Value::as_u64);
        number.with_context(|| format!("cidfs {} names no {place}", arguments.join(" ")))
    }

    /// What a verb prints.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).output()?;
        if !output.status.success() {
            bail!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let (Program::Cidfs(binary) | Program::Kubo(binary)) = &self.program;
        let mut command = match self.prefix.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(binary);
                command
            }
            None => Command::new(binary),
        };
        command.args(arguments).stdin(Stdio::null()).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let ended = kill(Pid::from_raw(daemon.id() as i32), Signal::SIGTERM).is_ok() && daemon.wait().is_ok();
            if !ended {
                eprintln!("the daemon on {}, process {}, could not be ended", self.repository.display(), daemon.id());
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.repository) {
            eprintln!("{} stays: {error}", self.repository.display());
        }
    }
}

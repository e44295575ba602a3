//! Links between nodes that are slower than this machine: network namespaces, and a proxy that delays.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Network namespaces that are joined by one switch, or only to this one. Removed when dropped.
pub struct Namespaces {
    names: Vec<String>,
    bridge: Option<String>,
}

impl Namespaces {
    /// `count` namespaces on one switch, `10.93.0.1` and on, each sending at most `rate` (as `tc` has it).
    pub fn on_a_switch(count: usize, rate: &str) -> Result<Namespaces> {
        let bridge = format!("cb{}s", std::process::id());
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        let mut all = Namespaces { names: Vec::new(), bridge: Some(bridge.clone()) };
        ip(&["link", "set", &bridge, "up"])?;
        for number in 0..count {
            let (outer, inner) = all.link(number)?;
            ip(&["link", "set", &outer, "master", &bridge, "up"])?;
            let name = &all.names[number];
            ip(&["-n", name, "address", "add", &format!("10.93.0.{}/24", number + 1), "dev", &inner])?;
            ip(&["-n", name, "link", "set", &inner, "up"])?;
            let shape =
                ["qdisc", "add", "dev", &inner, "root", "tbf", "rate", rate, "burst", "256kb", "latency", "50ms"];
            run(Command::new("tc").args(["-n", name]).args(shape))?;
        }
        Ok(all)
    }

    /// `count` namespaces that reach this one and no other: `10.94.N.2`, from where this one is `10.94.N.1`.
    pub fn apart(count: usize) -> Result<Namespaces> {
        let mut all = Namespaces { names: Vec::new(), bridge: None };
        for number in 0..count {
            let (outer, inner) = all.link(number)?;
            let name = &all.names[number];
            ip(&["address", "add", &format!("10.94.{number}.1/24"), "dev", &outer])?;
            ip(&["link", "set", &outer, "up"])?;
            ip(&["-n", name, "address", "add", &format!("10.94.{number}.2/24"), "dev", &inner])?;
            ip(&["-n", name, "link", "set", &inner, "up"])?;
        }
        Ok(all)
    }

    /// What to put before a command so that it runs in a namespace. Mounts are shared: `ip netns exec` would hide them.
    pub fn enter(&self, number: usize) -> Vec<String> {
        vec!["nsenter".into(), format!("--net=/var/run/netns/{}", self.names[number])]
    }

    /// Bytes that left a namespace so far.
    pub fn sent_bytes(&self, number: usize) -> Result<u64> {
        let text = output(
            Command::new("nsenter")
                .arg(format!("--net=/var/run/netns/{}", self.names[number]))
                .args(["cat", "/proc/net/dev"]),
        )?;
        let line = text.lines().find(|line| line.trim_start().starts_with("cb")).context("no link in the namespace")?;
        let fields: Vec<&str> = line.split_once(':').map_or("", |(_, rest)| rest).split_whitespace().collect();
        fields.get(8).context("no such field")?.parse().context("no number")
    }

    fn link(&mut self, number: usize) -> Result<(String, String)> {
        let name = format!("cb{}n{number}", std::process::id());
        ip(&["netns", "add", &name])?;
        self.names.push(name.clone());
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        let (outer, inner) = (format!("{name}o"), format!("{name}i"));
        ip(&["link", "add", &outer, "type", "veth", "peer", "name", &inner, "netns", &name])?;
        Ok((outer, inner))
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // The links go with their namespaces.
        for name in &self.names {
            if let Err(error) = ip(&["netns", "delete", name]) {
                eprintln!("{error:#}");
            }
        }
        if let Some(bridge) = &self.bridge
            && let Err(error) = ip(&["link", "delete", bridge])
        {
            eprintln!("{error:#}");
        }
    }
}

/// Why namespaces cannot be made here, where they cannot.
pub fn why_no_namespaces() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("network namespaces need root");
    }
    let present = |program: &str| Command::new(program).arg("-V").output().is_ok_and(|output| output.status.success());
    (!present("ip") || !present("tc") || !present("nsenter")).then_some("ip, tc or nsenter is missing")
}

fn ip(arguments: &[&str]) -> Result<()> {
    run(Command::new("ip").args(arguments))
}

fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A TCP path of some length: what arrives is handed on after `delay`, at most `bytes_per_second`, in each direction.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// For one direction: half of a round trip.
    pub delay: Duration,
    /// In each direction, for each connection.
    pub bytes_per_second: u64,
}

/// A proxy that makes a path. Ends when dropped.
pub struct Proxy {
    ended: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Proxy {
    /// Listens at `from` (port 0: any) and hands on to `to`.
    pub fn start(from: SocketAddr, to: SocketAddr, path: Path) -> Result<Proxy> {
        let listener = TcpListener::bind(from).with_context(|| format!("cannot listen on {from}"))?;
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let ended = Arc::new(AtomicBool::new(false));
        let stop = ended.clone();
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((near, _)) => {
                        if let Err(error) = join(near, to, path) {
                            eprintln!("the proxy: {error}");
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(5)),
                    Err(error) => {
                        eprintln!("the proxy: {error}");
                        return;
                    }
                }
            }
        });
        Ok(Proxy { ended, thread: Some(thread), address })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said why itself.
            let _ = thread.join();
        }
    }
}

fn join(near: TcpStream, to: SocketAddr, path: Path) -> std::io::Result<()> {
    near.set_nonblocking(false)?;
    let far = TcpStream::connect(to)?;
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
    }
    one_way(near.try_clone()?, far.try_clone()?, path);
    one_way(far, near, path);
    Ok(())
}

/// What is on its way.
#[derive(Default)]
struct InFlight {
    pieces: VecDeque<(Instant, Vec<u8>)>,
    ended: bool,
}

/// Two threads, which end with the streams.
fn one_way(mut from: TcpStream, mut to: TcpStream, path: Path) {
    let way = Arc::new((Mutex::new(InFlight::default()), Condvar::new()));
    let arriving = way.clone();
    std::thread::spawn(move || {
        let mut free_at = Instant::now();
        loop {
            let mut piece = vec![0; 64 << 10];
            let read = from.read(&mut piece).unwrap_or(0);
            piece.truncate(read);
            // The link carries one byte after the other: who sends faster waits here, as at a full interface.
            let takes = Duration::from_secs_f64(read as f64 / path.bytes_per_second as f64);
            free_at = free_at.max(Instant::now()) + takes;
            let mut state = way.0.lock().expect("no thread panics with it");
            if read == 0 {
                state.ended = true;
            } else {
                state.pieces.push_back((free_at + path.delay, piece));
            }
            way.1.notify_one();
            drop(state);
            if read == 0 {
                return;
            }
            std::thread::sleep(free_at.saturating_duration_since(Instant::now() + Duration::from_millis(2)));
        }
    });
    std::thread::spawn(move || {
        loop {
            let mut state = arriving.0.lock().expect("no thread panics with it");
            let (at, piece) = loop {
                match state.pieces.pop_front() {
                    Some(next) => break next,
                    None if state.ended => {
                        drop(state);
                        let _ = to.shutdown(Shutdown::Write);
                        return;
                    }
                    None => state = arriving.1.wait(state).expect("no thread panics with it"),
                }
            };
            drop(state);
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            if to.write_all(&piece).is_err() {
                let _ = to.shutdown(Shutdown::Both);
                return;
            }
        }
    });
}

/// The seconds that `bytes` take from one end of `path` to the other over one plain TCP connection.
pub fn plain(path: Path, bytes: u64) -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let proxy = Proxy::start("127.0.0.1:0".parse()?, listener.local_addr()?, path)?;
    let sender = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        // It is asked for, as a block is.
        stream.read_exact(&mut [0])?;
        let piece = vec![0; 1 << 20];
        let mut left = bytes;
        while left > 0 {
            let len = left.min(piece.len() as u64) as usize;
            stream.write_all(&piece[..len])?;
            left -= len as u64;
        }
        Ok(())
    });
    let mut stream = TcpStream::connect(proxy.address)?;
    let began = Instant::now();
    stream.write_all(&[1])?;
    let received = std::io::copy(&mut stream, &mut std::io::sink())?;
    let took = began.elapsed().as_secs_f64();
    sender.join().expect("the sender does not panic")?;
    if received != bytes {
        bail!("{received} of {bytes} bytes came through the proxy");
    }
    Ok(took)
}

//! Blocks from other machines: one peer near and far, a swarm around one seed, and listings of what is not here.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::dataset::Dataset;
use crate::links::{self, Namespaces, Proxy};
use crate::peers::{Peer, Program};
use crate::report::{Target, Unit, megabytes};
use crate::sides::{alternate, median};
use crate::{Bench, kernel, reads};

pub const LINES: &[&str] =
    &["fetch.bulk", "fetch.small", "fetch.far", "list.remote", "fetch.swarm", "fetch.swarm.seed"];

const LOOPBACK: &str = "/ip4/127.0.0.1/tcp/0";

/// Directories of the dataset's small files that `fetch.small` and `list.remote` take: 5,000 files of the full dataset, and all.
pub const FETCHED_DIRECTORIES: usize = 25;

/// The path of `fetch.far`: 50 ms there and back, 1 Gbit/s.
const FAR: links::Path = links::Path { delay: Duration::from_millis(25), bytes_per_second: 125_000_000 };

/// Nodes that fetch at once.
const SWARM: usize = 8;

/// Rounds of lines that take half a minute each.
pub const LONG_ROUNDS: usize = 3;

/// Measures the lines above.
pub fn run(bench: &mut Bench, dataset: &Dataset) -> Result<()> {
    if !bench.wants_any(LINES) {
        return Ok(());
    }
    let ours = Program::Cidfs(bench.options.cidfs.clone());
    let kubo = bench.options.kubo.clone().map(Program::Kubo);
    if bench.wants_any(&["fetch.bulk", "fetch.small"]) {
        if kubo.is_none() {
            bench.skip(&["fetch.bulk", "fetch.small"], "no kubo binary (--kubo, or scripts/kubo to build one)");
        } else {
            let big = dataset.directory().join(&dataset.big()[0]);
            let programs: Vec<Program> = std::iter::once(ours.clone()).chain(kubo.clone()).collect();
            let bytes = dataset.big_bytes();
            from_one_peer(bench, "fetch.bulk", &programs, &big, Unit::Bytes(bytes), Target::AtLeast(2.0))?;
            let small = Small::make(bench, dataset, FETCHED_DIRECTORIES)?;
            let files = Unit::Files(small.files);
            from_one_peer(bench, "fetch.small", &programs, &small.directory, files, Target::AtLeast(3.0))?;
        }
    }
    if bench.wants_any(&["fetch.far", "fetch.swarm", "fetch.swarm.seed"])
        && let Some(why) = links::why_no_namespaces()
    {
        bench.skip(&["fetch.far", "fetch.swarm", "fetch.swarm.seed"], why);
    } else {
        if bench.wants("fetch.far") {
            far(bench, dataset, &ours)?;
        }
        if bench.wants("fetch.swarm") {
            swarm(bench, dataset, &ours, kubo.as_ref())?;
        }
    }
    if bench.wants("list.remote") {
        list_remote(bench, dataset, &ours)?;
    }
    Ok(())
}

/// Some of the dataset's small files in a directory of their own.
pub struct Small {
    /// Where they lie on the local disk.
    pub directory: PathBuf,
    /// How many there are.
    pub files: usize,
    /// In how many directories.
    pub directories: usize,
}

impl Small {
    /// Hard links to the files of so many directories.
    pub fn make(bench: &Bench, dataset: &Dataset, directories: usize) -> Result<Small> {
        let directory = bench.options.work.join("small-of-network");
        let mut made = std::collections::BTreeSet::new();
        let mut files = 0;
        for file in dataset.small() {
            let class = file.parent().and_then(Path::file_name).context("a small file lies in a directory")?;
            if made.len() == directories && !made.contains(class) {
                continue;
            }
            let into = directory.join(class);
            if made.insert(class.to_owned()) {
                fs::create_dir_all(&into)?;
            }
            fs::hard_link(dataset.directory().join(file), into.join(file.file_name().context("a file has a name")?))?;
            files += 1;
        }
        Ok(Small { directory, files, directories: made.len() })
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            eprintln!("{} stays: {error}", self.directory.display());
        }
    }
}

fn from_one_peer(
    bench: &mut Bench,
    name: &str,
    programs: &[Program],
    path: &Path,
    unit: Unit,
    target: Target,
) -> Result<()> {
    if !bench.wants(name) {
        return Ok(());
    }
    let work = bench.options.work.clone();
    let mut seeds = Vec::new();
    for (number, program) in programs.iter().enumerate() {
        let mut seed = Peer::new(program, &work.join(format!("seed-{number}")), Vec::new(), LOOPBACK)?;
        let root = seed.add(path)?;
        seed.start()?;
        let address = seed.address("/tcp/")?;
        seeds.push((program, seed, root, address));
    }
    let seconds = alternate(&seeds, bench.rounds, |_, (program, _, root, address)| {
        let mut client = Peer::new(program, &work.join("client"), Vec::new(), LOOPBACK)?;
        client.start()?;
        client.connect(address)?;
        client.fetch(root)
    })?;
    bench.report.compare(name, "kubo to kubo", unit, &seconds[0], &seconds[1], target);
    Ok(())
}

/// A seed in one namespace and clients in another, with a proxy between them that is the only way.
pub struct FarApart {
    namespaces: Namespaces,
    _seed: Peer,
    _proxy: Proxy,
    /// What the seed has.
    pub root: String,
    /// Where clients find the seed.
    address: String,
}

impl FarApart {
    /// The seed has what is at `path`, and is at the other end of `way`.
    pub fn make(bench: &Bench, ours: &Program, path: &Path, way: links::Path) -> Result<FarApart> {
        let namespaces = Namespaces::apart(2)?;
        let repository = bench.options.work.join("seed");
        let mut seed = Peer::new(ours, &repository, namespaces.enter(0), "/ip4/10.94.0.2/tcp/4101")?;
        let root = seed.add(path)?;
        seed.start()?;
        let address = seed.address("/ip4/10.94.0.2/tcp/4101")?;
        let peer = address.rsplit('/').next().unwrap_or_default();
        let seed_at: SocketAddr = "10.94.0.2:4101".parse()?;
        let proxy = Proxy::start("10.94.1.1:0".parse()?, seed_at, way)?;
        let address = format!("/ip4/10.94.1.1/tcp/{}/p2p/{peer}", proxy.address.port());
        Ok(FarApart { namespaces, _seed: seed, _proxy: proxy, root, address })
    }

    /// A client that has nothing, and is connected. The settings are of its environment.
    pub fn client(&self, bench: &Bench, ours: &Program, settings: &[(String, String)]) -> Result<Peer> {
        let repository = bench.options.work.join("client");
        let client = Peer::new(ours, &repository, self.namespaces.enter(1), "/ip4/10.94.1.2/tcp/0")?;
        let mut client = client.with(settings);
        client.start()?;
        client.connect(&self.address)?;
        Ok(client)
    }
}

fn far(bench: &mut Bench, dataset: &Dataset, ours: &Program) -> Result<()> {
    let big = dataset.directory().join(&dataset.big()[0]);
    let bytes = dataset.big_bytes();
    let apart = FarApart::make(bench, ours, &big, FAR)?;
    let seconds = alternate(&[true, false], bench.rounds.min(LONG_ROUNDS), |_, is_ours| {
        if *is_ours { apart.client(bench, ours, &[])?.fetch(&apart.root) } else { links::plain(FAR, bytes) }
    })?;
    let target = Target::AtLeast(0.7);
    bench.report.compare("fetch.far", "plain TCP, the same path", Unit::Bytes(bytes), &seconds[0], &seconds[1], target);
    Ok(())
}

/// One seed and eight who want all of it at once, each with 1 Gbit/s, everybody connected to everybody.
fn swarm(bench: &mut Bench, dataset: &Dataset, ours: &Program, kubo: Option<&Program>) -> Result<()> {
    let big = dataset.directory().join(&dataset.big()[0]);
    let bytes = dataset.big_bytes();
    let rounds = bench.rounds.min(LONG_ROUNDS);
    let (mut seconds, mut sent) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (took, share) = one_swarm(bench, ours, &big, bytes)?;
        seconds.push(took);
        sent.push(share * bytes as f64);
    }
    if let Some(kubo) = kubo {
        // Half a minute, and the same each time.
        let (took, share) = one_swarm(bench, kubo, &big, bytes)?;
        eprintln!("fetch.swarm: kubo's seed sends {share:.2} times the data");
        let unit = Unit::Bytes(bytes);
        bench.report.compare("fetch.swarm", "kubo", unit, &seconds, &[took], Target::AtLeast(2.0));
    } else {
        bench.skip(&["fetch.swarm"], "no kubo binary (--kubo, or scripts/kubo to build one)");
    }
    let sent = median(&sent);
    bench.report.bound(
        "fetch.swarm.seed",
        (sent, format!("{} sent by the seed", megabytes(sent))),
        (bytes as f64, format!("{} of data", megabytes(bytes as f64))),
        Target::AtMost(1.3),
    );
    Ok(())
}

/// The seconds until the last has everything, and what the seed sent as a multiple of the data.
fn one_swarm(bench: &Bench, program: &Program, path: &Path, bytes: u64) -> Result<(f64, f64)> {
    let namespaces = Namespaces::on_a_switch(SWARM + 1, "1gbit")?;
    let mut peers = Vec::new();
    for number in 0..=SWARM {
        let repository = bench.options.work.join(format!("swarm-{number}"));
        let listen = format!("/ip4/10.93.0.{}/tcp/4101", number + 1);
        peers.push(Peer::new(program, &repository, namespaces.enter(number), &listen)?);
    }
    let root = peers[0].add(path)?;
    for peer in &mut peers {
        peer.start()?;
    }
    let addresses: Vec<String> = peers.iter().map(|peer| peer.address("/ip4/10.93.")).collect::<Result<_>>()?;
    for (number, peer) in peers.iter().enumerate() {
        for address in &addresses[number + 1..] {
            peer.connect(address)?;
        }
    }
    let before = namespaces.sent_bytes(0)?;
    let began = Instant::now();
    std::thread::scope(|scope| {
        let fetches: Vec<_> = peers[1..].iter().map(|peer| scope.spawn(|| peer.fetch(&root))).collect();
        // A thread that panicked has said why itself.
        fetches.into_iter().try_for_each(|fetch| fetch.join().expect("a fetch panicked").map(drop))
    })?;
    let took = began.elapsed().as_secs_f64();
    let sent = namespaces.sent_bytes(0)? - before;
    Ok((took, sent as f64 / bytes as f64))
}

/// `ls -l` of files that are raw leaves, none of them here: the blocks of the directories are all that is fetched.
fn list_remote(bench: &mut Bench, dataset: &Dataset, ours: &Program) -> Result<()> {
    let small = Small::make(bench, dataset, usize::MAX)?;
    let work = bench.options.work.clone();
    let mut seed = Peer::new(ours, &work.join("seed"), Vec::new(), LOOPBACK)?;
    let root = seed.add(&small.directory)?;
    seed.start()?;
    let mut client = Peer::new(ours, &work.join("client"), Vec::new(), LOOPBACK)?;
    client.start()?;
    client.connect(&seed.address("/tcp/")?)?;
    let mountpoint = client.mount()?;
    if kernel::why_not_cold().is_none() {
        kernel::drop_all()?;
    }
    let took = reads::list(&mountpoint.join(&root), small.files)?;
    client.run(&["umount", "--all"])?;
    let fetched = client.figure(&["status", "--json"], "/Store/DiskBlocks")?;
    let directories = small.directories as u64 + 1;
    ensure!(fetched > 0, "nothing was fetched for a listing");
    bench.report.bound(
        "list.remote",
        (fetched as f64, format!("{fetched} blocks, {} files in {:.0} ms", small.files, took * 1e3)),
        (directories as f64, format!("{directories} directories")),
        Target::AtMost(1.0),
    );
    Ok(())
}

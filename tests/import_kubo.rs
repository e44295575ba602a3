//! Imports beside kubo's own, on random trees with random settings: the same lines in the same order, or an error on
//! both sides.
//!
//! The kubo to compare with is the program at `CIDFS_TEST_KUBO`. `CIDFS_TEST_ROUNDS` says how many comparisons to make,
//! `CIDFS_TEST_SEED` where to begin; a failure names its seed. kubo runs offline, in repositories of its own.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use cidfs::config::StoreConfig;
use cidfs::import::{self, Event, ImportOptions, Profile, Source};
use cidfs::store::Store;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

struct Random(ChaCha20Rng);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        (self.0.next_u64() % bound.max(1) as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    /// A size that is often near a boundary.
    fn size(&mut self) -> usize {
        match self.below(10) {
            0 => 0,
            1..=4 => self.below(200),
            5..=6 => self.below(20_000),
            7 => (self.below(8) + 1) * 65_536 + self.below(3) - 1,
            8 => self.below(1_500_000),
            _ => self.below(300) * 1000,
        }
    }
}

/// A kubo and its repositories.
struct Kubo {
    program: PathBuf,
    base: tempfile::TempDir,
}

impl Kubo {
    fn new() -> Kubo {
        let program = std::env::var_os("CIDFS_TEST_KUBO")
            .expect("CIDFS_TEST_KUBO is not set: it must name a kubo 0.43 program to compare with");
        let kubo = Kubo { program: program.into(), base: tempfile::tempdir().unwrap() };
        assert!(kubo.command(kubo.base.path()).arg("init").output().unwrap().status.success());
        kubo
    }

    fn command(&self, repository: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.env("IPFS_PATH", repository).env("IPFS_TELEMETRY", "off").arg("--offline");
        command
    }

    /// A repository whose configuration has these keys of `Import`.
    fn repository(&self, keys: &[(String, serde_json::Value)]) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        let copied = Command::new("cp").arg("-r").arg(self.base.path().join(".")).arg(copy.path()).status().unwrap();
        assert!(copied.success());
        let path = copy.path().join("config");
        let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config["Bootstrap"] = serde_json::json!([]);
        for (key, value) in keys {
            config["Import"][key] = value.clone();
        }
        fs::write(path, serde_json::to_vec(&config).unwrap()).unwrap();
        copy
    }
}

/// Makes a tree of at most `left` entries.
fn make_tree(random: &mut Random, path: &Path, depth: usize, left: &mut usize) {
    fs::create_dir_all(path).unwrap();
    let count = match random.below(8) {
        0 => 0,
        1..=5 => random.below(9),
        6 => random.below(60),
        _ => random.below(500),
    };
    for number in 0..count.min(*left) {
        *left = left.saturating_sub(1);
        let name = match random.below(12) {
            0 => format!(".h{number}"),
            1 => format!("{number} caf\u{e9}"),
            2 => format!("{number}.txt"),
            3 => format!("{number}{}", "n".repeat(random.below(200))),
            _ => format!("{:x}", random.below(1 << 30)),
        };
        let path = path.join(name);
        if path.symlink_metadata().is_ok() {
            continue;
        }
        match random.below(20) {
            0 => symlink(format!("target{}", random.below(5)), &path).unwrap(),
            1..=3 if depth > 0 => make_tree(random, &path, depth - 1, left),
            _ => {
                let size = if count > 20 { random.below(60) } else { random.size() };
                let mut content = vec![0; size];
                if random.chance(80) {
                    random.0.fill_bytes(&mut content);
                }
                fs::write(&path, content).unwrap();
                if random.chance(30) {
                    fs::set_permissions(&path, fs::Permissions::from_mode(random.below(0o10000) as u32)).unwrap();
                }
            }
        }
        if random.chance(50) {
            let seconds = [0, -1, 1, 1_700_000_000, 1 << 33][random.below(5)];
            let mtime = TimeSpec::new(seconds, [0, 1, 123_456_789][random.below(3)]);
            utimensat(AT_FDCWD, &path, &TimeSpec::new(0, 0), &mtime, UtimensatFlags::NoFollowSymlink).unwrap();
        }
    }
}

fn chunker(random: &mut Random) -> String {
    match random.below(9) {
        0 => "size-262144".into(),
        1 => format!("size-{}", random.below(5000) + 40),
        2 => format!("size-{}", [2_096_896, 2_096_897, 0, 1_048_576][random.below(4)]),
        3 => "rabin".into(),
        4 => format!("rabin-{}", [10, 47, 48, 1000, 65_536, 1_397_930, 1_397_932][random.below(7)]),
        5 => {
            let min = 15 + random.below(2000);
            let average = min + random.below(4000);
            format!("rabin-{min}-{average}-{}", average + random.below(9000))
        }
        6 => "buzhash".into(),
        7 => ["default", "rabin-min:64-avg:128-max:256", "buzhash-7", "none", "size-x", "rabin-1-2"][random.below(6)]
            .into(),
        _ => format!("size-{}", 1 << (6 + random.below(14))),
    }
}

struct Case {
    flags: Vec<String>,
    keys: Vec<(String, serde_json::Value)>,
    options: ImportOptions,
}

fn case(random: &mut Random) -> Case {
    let mut options = ImportOptions { profile: Profile::UnixfsV0_2015, ..ImportOptions::default() };
    let mut flags = Vec::new();
    let mut flag = |options: &mut ImportOptions, name: &str, value: String| {
        // A value that is refused here makes the import fail, as kubo must.
        if options.set(name, &value).is_err() {
            options.chunker = Some("refused".into());
        }
        flags.push(format!("--{name}={value}"));
    };
    let mut metadata = false;
    if random.chance(60) {
        flag(&mut options, "cid-version", random.pick(&["0", "1", "1", "2"]).into());
    }
    if random.chance(30) {
        let hash = random.pick(&[
            "sha2-256",
            "sha1",
            "sha2-512",
            "sha3-224",
            "sha3",
            "SHA3-256",
            "blake3",
            "blake2b-256",
            "blake2b-160",
            "blake2s-256",
            "dbl-sha2-256",
            "keccak-256",
            "keccak-512",
            "shake-256",
            "identity",
            "md5",
            "nonsense",
        ]);
        flag(&mut options, "hash", hash.into());
    }
    if random.chance(30) {
        flag(&mut options, "raw-leaves", random.pick(&["true", "false"]).into());
    }
    if random.chance(60) {
        flag(&mut options, "chunker", chunker(random));
    }
    if random.chance(30) {
        flag(&mut options, "trickle", "true".into());
    }
    if random.chance(30) {
        flag(&mut options, "max-file-links", random.pick(&["2", "3", "5", "11", "174", "1024", "0", "-3"]).into());
    }
    if random.chance(25) {
        flag(&mut options, "inline", "true".into());
        if random.chance(50) {
            flag(&mut options, "inline-limit", random.pick(&["0", "1", "64", "128", "129", "-5"]).into());
        }
    }
    if random.chance(25) {
        metadata = true;
        flag(&mut options, "preserve-mode", random.pick(&["true", "false"]).into());
        flag(&mut options, "preserve-mtime", random.pick(&["true", "false"]).into());
    }
    if random.chance(12) {
        metadata = true;
        flag(&mut options, "mode", random.pick(&["0640", "04755", "0x1ff", "420", "04000", "12582912", "0"]).into());
    }
    if random.chance(12) {
        metadata = true;
        flag(&mut options, "mtime", random.pick(&["1700000000", "-5", "0", "-62135596800", "99999999999"]).into());
        if random.chance(50) {
            flag(&mut options, "mtime-nsecs", random.pick(&["0", "1", "999999999", "1000000000"]).into());
        }
    }
    for (name, percent) in [("wrap-with-directory", 15), ("hidden", 60)] {
        if random.chance(percent) {
            flag(&mut options, name, "true".into());
        }
    }
    if random.chance(15) {
        flag(&mut options, "empty-dirs", "false".into());
    }
    if random.chance(15) {
        let rules = ["*.txt", "1*", "!11*", "**/2*", "a?", "[0-9]*", "/3*", "sub/", "*e*", "#x", "(", "c*/"];
        for _ in 0..=random.below(3) {
            flag(&mut options, "ignore", rules[random.below(rules.len())].into());
        }
    }
    if random.chance(10) {
        flag(&mut options, "dereference-symlinks", "true".into());
    }
    // Without --only-hash kubo bounds the root too, which cidfs does not, unless the root holds metadata.
    let root_has_metadata = options.preserve_mode || options.preserve_mtime;
    if random.chance(20) && (!metadata || root_has_metadata) {
        flag(&mut options, "max-directory-links", random.pick(&["0", "1", "3", "8", "30"]).into());
    }
    let bounded = options.max_directory_links.is_some_and(|links| links > 0);
    if random.chance(15) {
        flag(&mut options, "max-hamt-fanout", random.pick(&["8", "16", "64", "1024", "12", "4", "2048"]).into());
    }
    // kubo's --only-hash fails with metadata, and gives the root no fanout of its own.
    let only_hash = if metadata { false } else { bounded || (options.max_hamt_fanout.is_none() && random.chance(50)) };
    if only_hash {
        flags.push("--only-hash".into());
    }
    let mut keys = Vec::new();
    let mut key = |options: &mut ImportOptions, key: &str, name: &str, value: &str| {
        options.set(name, value).unwrap();
        keys.push((key.to_owned(), value.into()));
    };
    if random.chance(40) {
        let threshold = random.pick(&["1B", "100B", "1000B", "4096B", "20000B", "0B"]);
        // Without a threshold kubo refuses what its links bound, and cidfs has no such bound for the root.
        if !(bounded && threshold == "0B") {
            key(&mut options, "UnixFSHAMTDirectorySizeThreshold", "hamt-size-threshold", threshold);
        }
    }
    if random.chance(30) {
        let estimation = random.pick(&["links", "block", "disabled"]);
        key(&mut options, "UnixFSHAMTDirectorySizeEstimation", "hamt-size-estimation", estimation);
    }
    Case { flags, keys, options }
}

fn lines(path: &Path, options: &ImportOptions) -> Result<Vec<String>, String> {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &StoreConfig::default()).unwrap();
    let mut lines = Vec::new();
    let mut record = |event: Event| {
        if let Event::Added(entry) = event {
            lines.push(format!("added {} {}", entry.cid, String::from_utf8_lossy(&entry.path)));
        }
        ControlFlow::Continue(())
    };
    import::add(vec![Source::Path(path.into())], options, &store, &mut record).map_err(|error| error.to_string())?;
    Ok(lines)
}

#[test]
fn random_trees_with_random_settings_come_out_the_same_needs_kubo() {
    let kubo = Kubo::new();
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
    };
    let first = number("CIDFS_TEST_SEED", 1);
    let mut failed_on_both = 0;
    let rounds = number("CIDFS_TEST_ROUNDS", 40);
    for seed in first..first + rounds {
        let mut random = Random(ChaCha20Rng::seed_from_u64(seed));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root");
        if random.chance(25) {
            let mut content = vec![0; random.size() * (1 + random.below(4))];
            random.0.fill_bytes(&mut content);
            fs::write(&path, content).unwrap();
        } else {
            make_tree(&mut random, &path, 3, &mut 1000);
        }
        let Case { flags, keys, options } = case(&mut random);
        let repository = kubo.repository(&keys);
        let output = kubo.command(repository.path()).args(["add", "-r"]).args(&flags).arg(&path).output().unwrap();
        let theirs = if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned())
        };
        let ours = lines(&path, &options);
        let same = match (&ours, &theirs) {
            (Ok(ours), Ok(theirs)) => ours == theirs,
            (Err(_), Err(_)) => {
                failed_on_both += 1;
                true
            }
            _ => false,
        };
        if !same {
            let kept = dir.keep();
            let shown = |result: &Result<Vec<String>, String>| match result {
                Ok(lines) => lines.last().cloned().unwrap_or_default(),
                Err(error) => error.clone(),
            };
            if let (Ok(ours), Ok(theirs)) = (&ours, &theirs) {
                println!("{} lines and {} of kubo", ours.len(), theirs.len());
                for (ours, theirs) in ours.iter().zip(theirs).filter(|(ours, theirs)| ours != theirs) {
                    println!("ours: {ours}\nkubo: {theirs}");
                }
            }
            panic!(
                "seed {seed}: {flags:?} with {keys:?} on {}\n  ours: {}\n  kubo: {}",
                kept.join("root").display(),
                shown(&ours),
                shown(&theirs)
            );
        }
    }
    println!("{rounds} imports compared, of which {failed_on_both} were refused by both");
    assert!(failed_on_both < rounds, "nothing was compared");
}

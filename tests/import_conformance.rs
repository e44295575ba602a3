//! What `cidfs add` makes is bit for bit what kubo makes with the same settings: every vector of `tests/vectors/`.
//!
//! `import.json` holds CIDs that kubo 0.43 made; `kubo_upstream_vectors.json` holds those that kubo's own tests expect.

#[path = "import/inputs.rs"]
mod inputs;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use cidfs::config::StoreConfig;
use cidfs::import::{self, ImportOptions, Profile, Source};
use cidfs::store::Store;
use serde_json::Value;
use sha2::{Digest, Sha256};

fn vectors(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name);
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn cid(source: Source, options: &ImportOptions) -> Result<String, String> {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &StoreConfig::default()).unwrap();
    let options = ImportOptions { only_hash: true, ..options.clone() };
    let added = import::add(vec![source], &options, &store, &mut ()).map_err(|error| error.to_string())?;
    Ok(added.roots.last().unwrap().to_string())
}

/// The options of a setting of `import.json`: flags of `ipfs add`, over keys of kubo's configuration.
fn options(setting: &Value) -> ImportOptions {
    let mut options = ImportOptions { profile: Profile::UnixfsV0_2015, hidden: true, ..ImportOptions::default() };
    let mut set = |name: &str, value: &str| assert!(options.set(name, value).unwrap(), "{name}={value}");
    for (key, value) in setting["config"].as_object().unwrap() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match key.as_str() {
            "@" => set("profile", &value),
            "Import.UnixFSHAMTDirectorySizeThreshold" => set("hamt-size-threshold", &value),
            "Import.UnixFSHAMTDirectorySizeEstimation" => set("hamt-size-estimation", &value),
            "Import.UnixFSHAMTDirectoryMaxFanout" => set("max-hamt-fanout", &value),
            key => panic!("no flag for the key {key}"),
        }
    }
    for flag in setting["flags"].as_array().unwrap() {
        let flag = flag.as_str().unwrap().trim_start_matches('-');
        let (name, value) = flag.split_once('=').unwrap_or((flag, "true"));
        set(name, value);
    }
    options
}

/// Runs `check` on each case on all cores, and fails with all that failed.
fn all<T: Send>(cases: Vec<T>, check: impl Fn(T) -> Result<(), String> + Sync) {
    let count = cases.len();
    let cases = Mutex::new(cases.into_iter());
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().unwrap().get() {
            scope.spawn(|| {
                loop {
                    let Some(case) = cases.lock().unwrap().next() else { return };
                    if let Err(failure) = check(case) {
                        failures.lock().unwrap().push(failure);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {count} differ:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn the_generated_inputs_are_those_of_the_vectors() {
    let sums = vectors("inputs_sha256.json");
    let names: Vec<String> = sums.as_object().unwrap().keys().filter(|name| name.starts_with('f')).cloned().collect();
    all(names, |name| {
        let content = inputs::file(&name).ok_or(format!("no generator for {name}"))?;
        let digest = inputs::hex(&Sha256::digest(&content));
        if sums[&name]["sha256"] == digest { Ok(()) } else { Err(format!("{name}: {digest}")) }
    });
}

#[test]
fn every_cid_is_the_one_that_kubo_makes() {
    let vectors = vectors("import.json");
    let dir = tempfile::tempdir().unwrap();
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        println!("skipped: d04_meta, for only root reads its file of mode 0");
    }
    let all_cases = vectors["cases"].as_array().unwrap();
    let cases: Vec<_> = all_cases.iter().filter(|case| is_root || case["input"] != "d04_meta").collect();
    let inputs: BTreeMap<&str, PathBuf> =
        cases.iter().map(|case| case["input"].as_str().unwrap()).map(|name| (name, dir.path().join(name))).collect();
    all(inputs.iter().collect(), |(name, path)| {
        inputs::make(name, path);
        Ok(())
    });
    all(cases.iter().collect(), |case| {
        let input = &inputs[case["input"].as_str().unwrap()];
        let options = options(&vectors["settings"][case["setting"].as_str().unwrap()]);
        let found = cid(Source::Path(input.clone()), &options);
        if found.as_deref() == Ok(case["cid"].as_str().unwrap()) {
            return Ok(());
        }
        Err(format!("{}: {found:?} instead of {}", case["name"], case["cid"]))
    });
}

/// A file or tree of `kubo_upstream_vectors.json`, from the words that describe it.
fn upstream_source(generator: &str, dir: &Path) -> Source {
    let stream =
        |content: Vec<u8>| Source::Stream { name: "f".into(), reader: Box::new(std::io::Cursor::new(content)) };
    if let Some(rest) = generator.strip_prefix("chacha20 keystream, key = sha256(\"") {
        let (seed, rest) = rest.split_once('"').unwrap();
        let len = rest.rsplit("first ").next().unwrap().trim_end_matches(" bytes").parse().unwrap();
        return Source::Stream { name: "f".into(), reader: Box::new(inputs::Keystream::new(seed, len)) };
    }
    let path = dir.join("tree");
    let write = |name: &str, content: &str| {
        let path = path.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    if let Some(rest) = generator.strip_prefix("n=") {
        let count: usize = rest.split(' ').next().unwrap().parse().unwrap();
        let seed = generator.split('"').nth(3).unwrap();
        let number = |after: &str| -> usize {
            let rest = &generator[generator.find(after).unwrap() + after.len()..];
            rest[..rest.find(|digit: char| !digit.is_ascii_digit()).unwrap()].parse().unwrap()
        };
        let (len, last) = (number("consecutive "), number("last file "));
        let mut letters = vec![0; (len * (count - 1) + last).next_multiple_of(4)];
        inputs::Keystream::new(seed, letters.len() as u64).read_exact(&mut letters).unwrap();
        for byte in &mut letters {
            *byte = b"abcdefghijklmnopqrstuvwxyz01234567890-_"[usize::from(*byte) % 39];
        }
        let letters = String::from_utf8(letters).unwrap();
        for index in 0..count {
            let end = if index + 1 == count { last } else { len };
            write(&letters[index * len..index * len + end], "x");
        }
        return Source::Path(path);
    }
    if generator.starts_with("dir of file1..file2000") {
        (1..=2000).for_each(|number| write(&format!("file{number}"), &format!("{number}\n")));
        return Source::Path(path);
    }
    if generator.starts_with("tree (mode:mtime-1655158632)") {
        for file in ["file1", "dir2/sub1/sub2/file3", "dir3/file2"] {
            write(file, "");
        }
        fs::create_dir(path.join("dir1")).unwrap();
        symlink("../sub2/file3", path.join("dir2/sub1/link1")).unwrap();
        for (name, mode, mtime) in [
            ("dir2/sub1/link1", None, 20),
            ("dir2/sub1/sub2/file3", Some(0o644), 10),
            ("dir2/sub1/sub2", Some(0o755), 30),
            ("dir2/sub1", Some(0o755), 40),
            ("dir2", Some(0o755), 50),
            ("dir3/file2", Some(0o644), 60),
            ("dir3", Some(0o755), 70),
            ("file1", Some(0o644), 80),
            ("dir1", Some(0o755), 90),
            ("", Some(0o700), 0),
        ] {
            inputs::set_metadata(&path.join(name), mode, 1_655_158_632 + mtime, 0);
        }
        return Source::Path(path);
    }
    if generator.starts_with("dir files/{") {
        write("foo/baz", "some text\n");
        fs::create_dir(path.join("bar")).unwrap();
        symlink("files/foo/baz", path.join("bar/baz")).unwrap();
        symlink("files/does/not/exist", path.join("bad")).unwrap();
        return Source::Path(path);
    }
    if generator.starts_with("dir {jupiter") {
        write("jupiter/europa.txt", "Hello Europa!\n");
        write("saturn/titan.txt", "Hello Titan!\n");
        write("mercury.txt", "hey youre no moon!\n");
        return Source::Path(path);
    }
    if generator.starts_with("dir {mars") || generator == "dir of the two files" {
        write("mars.txt", "Hello Mars!\n");
        write("venus.txt", "Hello Venus!\n");
        return Source::Path(path);
    }
    if let Some(rest) = generator.strip_prefix("symlink -> \"") {
        let (target, rest) = rest.split_once('"').unwrap();
        symlink(target, &path).unwrap();
        let (_, seconds, nanoseconds) = described_metadata(rest);
        inputs::set_metadata(&path, None, seconds.unwrap_or(0), nanoseconds);
        return Source::Path(path);
    }
    if generator.starts_with("empty file") || generator.starts_with("empty dir") {
        if generator.starts_with("empty file") {
            fs::write(&path, "").unwrap();
        } else {
            fs::create_dir(&path).unwrap();
        }
        let (mode, seconds, nanoseconds) = described_metadata(generator);
        inputs::set_metadata(&path, mode, seconds.unwrap_or(0), nanoseconds);
        return Source::Path(path);
    }
    let quoted = generator.split('"').nth(1).unwrap_or_else(|| panic!("no generator for {generator:?}"));
    stream(quoted.replace("\\n", "\n").into_bytes())
}

/// The mode and time in a description such as `empty file mode=0764 mtime=1603539720.000054321`.
fn described_metadata(text: &str) -> (Option<u32>, Option<i64>, i64) {
    let value = |key: &str| text.split(' ').find_map(|word| word.strip_prefix(key));
    let mode = value("mode=").map(|mode| u32::from_str_radix(mode, 8).unwrap());
    let (seconds, nanoseconds) = value("mtime=").map_or((None, "0"), |time| {
        let (seconds, nanoseconds) = time.split_once('.').unwrap_or((time, "0"));
        (Some(seconds.parse().unwrap()), nanoseconds)
    });
    (mode, seconds, nanoseconds.parse().unwrap())
}

fn upstream_options(case: &Value) -> Option<ImportOptions> {
    let v0 = ImportOptions { profile: Profile::UnixfsV0_2015, hidden: true, ..ImportOptions::default() };
    let v1 = ImportOptions { cid_version: Some(1), ..v0.clone() };
    let mut options = match case["setting"].as_str() {
        Some("v0") => v0,
        Some("v0_rawleaves") => ImportOptions { raw_leaves: Some(true), ..v0 },
        Some("v0_trickle") => ImportOptions { trickle: Some(true), ..v0 },
        Some("v0_rabin_default") => ImportOptions { chunker: Some("rabin".into()), ..v0 },
        Some("v0_shard1") => ImportOptions { hamt_size_threshold: Some(1), ..v0 },
        Some("v0_meta") => ImportOptions { preserve_mode: true, preserve_mtime: true, ..v0 },
        Some("v1_256k") => v1,
        Some("v1_noraw") => ImportOptions { raw_leaves: Some(false), ..v1 },
        Some("v1_shard1") => ImportOptions { hamt_size_threshold: Some(1), ..v1 },
        Some("v1_1m_174") => ImportOptions { chunker: Some("size-1048576".into()), ..v1 },
        Some("v1_2025") => ImportOptions { profile: Profile::UnixfsV1_2025, ..v0 },
        Some(other) => panic!("unknown setting {other}"),
        None => {
            let settings = &case["settings"];
            // A block of its own codec and digest length is not made by an import.
            if settings["hash_len"].is_u64() {
                return None;
            }
            let mut options = v0;
            options.cid_version = settings["cid_version"].as_i64();
            options.raw_leaves = settings["raw_leaves"].as_bool();
            options.chunker = settings["chunker"].as_str().map(str::to_owned);
            options.max_file_links = settings["max_links"].as_i64();
            options.hamt_size_threshold = settings["hamt"]["threshold"].as_u64();
            options.hash = settings["hash"].as_str().map(str::to_owned);
            options.inline = settings["inline"].as_bool().unwrap_or(false);
            options
        }
    };
    let generator = case["generator"].as_str().unwrap();
    if !generator.starts_with("tree") {
        options.preserve_mode = generator.contains(" mode=");
        options.preserve_mtime = generator.contains(" mtime=");
    }
    Some(options)
}

#[test]
fn every_cid_is_the_one_that_the_tests_of_kubo_expect() {
    let vectors = vectors("kubo_upstream_vectors.json");
    let cases: Vec<_> = vectors.as_array().unwrap().iter().collect();
    let skipped = Mutex::new(0);
    all(cases, |case| {
        let Some(options) = upstream_options(case) else {
            *skipped.lock().unwrap() += 1;
            return Ok(());
        };
        let dir = tempfile::tempdir().unwrap();
        let found = cid(upstream_source(case["generator"].as_str().unwrap(), dir.path()), &options);
        if found.as_deref() == Ok(case["cid"].as_str().unwrap()) {
            return Ok(());
        }
        Err(format!("{} ({}): {found:?} instead of {}", case["name"], case["generator"], case["cid"]))
    });
    assert_eq!(skipped.into_inner().unwrap(), 2);
}

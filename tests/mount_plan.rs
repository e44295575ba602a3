//! Plans that mounts follow: what is brought ahead, what contradicts them, and what does not.

#[path = "cli/fixture.rs"]
mod fixture;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fixture::Fixture;
use serde_json::Value;

const FILES: usize = 400;

/// A tree of `train` and `val`, each with two classes of images of 20 KB.
fn images(fixture: &Fixture) -> String {
    let root = fixture.path().join("images");
    for number in 0..FILES {
        for part in ["train", "val"] {
            let class = root.join(part).join(if number % 2 == 0 { "cat" } else { "dog" });
            std::fs::create_dir_all(&class).unwrap();
            let mut data = format!("{part} {number} ").into_bytes();
            data.resize(20_000, number as u8);
            std::fs::write(class.join(format!("{number:03}.jpg")), data).unwrap();
        }
    }
    fixture.run(&["add", "-Q", root.to_str().unwrap()]).trim().to_owned()
}

fn plans(fixture: &Fixture) -> Vec<Value> {
    let list: Value = serde_json::from_str(&fixture.run(&["plan", "--list", "--json"])).unwrap();
    list["Plans"].as_array().unwrap().clone()
}

/// Waits until the one plan is as it should be.
fn until(fixture: &Fixture, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let plans = plans(fixture);
        assert_eq!(plans.len(), 1, "{plans:?}");
        if is_so(&plans[0]) {
            return plans[0].clone();
        }
        assert!(Instant::now() < end, "waited in vain until {what}: {plans:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn read(paths: impl IntoIterator<Item = PathBuf>) {
    for path in paths {
        assert_eq!(std::fs::read(&path).unwrap().len(), 20_000, "{}", path.display());
    }
}

/// What ImageFolder does first: the kernel then knows every name.
fn scan(directory: &Path) -> usize {
    let class = |entry: std::io::Result<std::fs::DirEntry>| std::fs::read_dir(entry.unwrap().path()).unwrap();
    let files = std::fs::read_dir(directory).unwrap().flat_map(class);
    files.filter(|entry| entry.as_ref().unwrap().metadata().unwrap().is_file()).count()
}

#[test]
fn a_plan_brings_files_ahead_of_a_reader_who_keeps_to_it() {
    let fixture = Fixture::new();
    let cid = images(&fixture);
    let train = format!("{cid}/train");
    let _daemon = fixture.daemon(&[]);
    let sampler = ["plan", &train, "--sampler", "torch-distributed", "--seed", "1", "--world", "2", "--rank", "0-1"];
    // A plan may come before the mount.
    assert!(fixture.run(&sampler).contains("400 files"));
    assert_eq!(plans(&fixture)[0]["State"], "Waiting");
    let mountpoint = fixture.mountpoint("mnt");
    fixture.run(&["mount", mountpoint.to_str().unwrap()]);
    let directory = mountpoint.join(&train);
    assert_eq!(scan(&directory), FILES);
    let order = fixture.run(&[&sampler[..], &["--print"]].concat());
    let order: Vec<PathBuf> = order.lines().map(|path| directory.join(path)).collect();
    assert_eq!(order.len(), FILES);
    read(order[..300].iter().cloned());
    let plan = until(&fixture, "readers are seen", |plan| plan["Reached"].as_u64().unwrap() > 0);
    assert_eq!((&plan["State"], &plan["Epoch"], &plan["Of"]), (&"Followed".into(), &0.into(), &400.into()));
    assert!(plan["PushedBytes"].as_u64().unwrap() > 0, "{plan}");
    // More than one epoch was brought by then: the next one follows by itself.
    read(order[300..].iter().cloned());
    until(&fixture, "the next epoch follows", |plan| plan["PushedBytes"].as_u64().unwrap() > FILES as u64 * 20_000);
    // What is read of another directory says nothing about the plan.
    let other = mountpoint.join(format!("{cid}/val"));
    assert_eq!(scan(&other), FILES);
    read((0..FILES).step_by(2).map(|number| other.join(format!("cat/{number:03}.jpg"))));
    assert_eq!(plans(&fixture)[0]["State"], "Followed");
    assert_eq!(fixture.run(&["plan", "--drop", &train]), "dropped 1\n");
    assert!(plans(&fixture).is_empty());
    fixture.run(&["umount", mountpoint.to_str().unwrap()]);
}

#[test]
fn a_plan_that_the_reads_contradict_is_dropped_and_said_so() {
    let fixture = Fixture::new();
    let cid = images(&fixture);
    let train = format!("{cid}/train");
    let daemon = fixture.daemon(&[]);
    let mountpoint = fixture.mountpoint("mnt");
    fixture.run(&["mount", mountpoint.to_str().unwrap()]);
    let directory = mountpoint.join(&train);
    scan(&directory);
    let order: Vec<String> = (0..FILES).step_by(2).map(|number| format!("cat/{number:03}.jpg")).collect();
    let list = fixture.path().join("order");
    std::fs::write(&list, order.join("\n")).unwrap();
    fixture.run(&["plan", &train, "--order", list.to_str().unwrap()]);
    // The dogs are not in it.
    read((1..FILES).step_by(2).map(|number| directory.join(format!("dog/{number:03}.jpg"))));
    until(&fixture, "the plan is dropped", |plan| plan["State"] == "Contradicted");
    let status = fixture::http(&fixture.repository().join("api.sock"), "GET", "/metrics", "", b"");
    assert!(status.text().lines().any(|line| line == "cidfs_contradicted_plans_total 1"), "{}", status.text());
    fixture.run(&["umount", mountpoint.to_str().unwrap()]);
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    let (_, log) = daemon.wait();
    assert!(log.contains("the plan is dropped"), "{log}");
}

#[test]
fn a_plan_is_followed_by_a_daemon_alone() {
    let fixture = Fixture::new();
    let cid = images(&fixture);
    let error = fixture.fail(1, &["plan", &cid, "--sampler", "torch-random"]);
    assert!(error.contains("cidfs mount"), "{error}");
    assert_eq!(fixture.run(&["plan", "--list"]), "no plan is followed\n");
    for ranks in ["8-7", "x", "0-1000", "0,"] {
        let error = fixture
            .fail(1, &["plan", &cid, "--print", "--sampler", "torch-distributed", "--world", "9999", "--rank", ranks]);
        assert!(error.contains("ranks like"), "{error}");
    }
}

//! `cidfs plan` and `cidfs warmup`: what they print, what they bring, and what they refuse.

#[path = "cli/fixture.rs"]
mod fixture;

use fixture::Fixture;
use serde_json::Value;

/// Two classes of three images, and a file that is none.
fn images(fixture: &Fixture) -> String {
    let root = fixture.path().join("images");
    for class in ["cat", "dog"] {
        std::fs::create_dir_all(root.join(class)).unwrap();
        for number in 0..3 {
            std::fs::write(root.join(class).join(format!("{number}.jpg")), format!("{class} {number}")).unwrap();
        }
    }
    std::fs::write(root.join("cat/labels.txt"), "no image").unwrap();
    fixture.run(&["add", "-Q", root.to_str().unwrap()]).trim().to_owned()
}

#[test]
fn a_plan_is_printed_one_path_a_line() {
    let fixture = Fixture::new();
    let cid = images(&fixture);
    let plan = |arguments: &[&str]| {
        let whole = [&["plan", &cid, "--print"], arguments].concat();
        fixture.run(&whole).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let sorted = ["cat/0.jpg", "cat/1.jpg", "cat/2.jpg", "dog/0.jpg", "dog/1.jpg", "dog/2.jpg"];
    let distributed = ["--sampler", "torch-distributed"];
    assert_eq!(plan(&[&distributed[..], &["--no-shuffle"]].concat()), sorted);
    // torch.randperm(6) after manual_seed(0 + 3), every second from the first.
    let order = plan(&[&distributed[..], &["--seed", "0", "--epoch", "3", "--rank", "0", "--world", "2"]].concat());
    let other = plan(&[&distributed[..], &["--seed", "3", "--rank", "1", "--world", "2"]].concat());
    assert_eq!((order.len(), other.len()), (3, 3));
    let mut both = [order, other].concat();
    both.sort();
    assert_eq!(both, sorted);
    let whole = plan(&["--sampler", "torch-random", "--seed=-1", "--files", "all"]);
    assert_eq!((whole.len(), whole.contains(&"cat/labels.txt".to_owned())), (7, true));
    let batches = ["--sampler", "torch-random", "--seed=-1", "--batch-size", "4", "--drop-last"];
    assert_eq!(plan(&batches).len(), 4);
    let json = fixture.run(&["plan", &cid, "--print", "--json", "--sampler", "torch-random", "--no-shuffle"]);
    let first: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(first["Path"], "cat/0.jpg");
    // An order that is handed over comes back.
    let order = b"dog/2.jpg\ncat/labels.txt\n\ndog/2.jpg";
    let printed = fixture.pipe(&["plan", &cid, "--print", "--order", "-"], order);
    assert_eq!(String::from_utf8(printed).unwrap(), "dog/2.jpg\ncat/labels.txt\ndog/2.jpg\n");
    assert_eq!(plan(&["--order", list(&fixture, "dog/0.jpg\n").to_str().unwrap()]), ["dog/0.jpg"]);
}

fn list(fixture: &Fixture, text: &str) -> std::path::PathBuf {
    let path = fixture.path().join("order");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_plan_that_cannot_be_says_why() {
    let fixture = Fixture::new();
    let cid = images(&fixture);
    let distributed = |more: &[&'static str]| [&["--sampler", "torch-distributed"], more].concat();
    for (arguments, status, why) in [
        (distributed(&["--rank", "8", "--world", "8"]), 1, "rank"),
        (distributed(&["--world", "0"]), 1, "world"),
        (distributed(&["--batch-size", "0"]), 1, "batch"),
        (distributed(&["--seed", "ten"]), 1, "seed"),
        (distributed(&["--seed", "18446744073709551616"]), 1, "64 bits"),
        (distributed(&["--drop-last"]), 2, "--batch-size"),
        (distributed(&["--order", "-"]), 2, "--order"),
        (vec!["--sampler", "torch-random", "--epoch", "18446744073709551615"], 1, "too far"),
        (vec!["--sampler", "sorted"], 2, "torch-random"),
        (vec![], 2, "--order"),
    ] {
        let error = fixture.fail(status, &[&["plan", &cid, "--print"], &arguments[..]].concat());
        assert!(error.contains(why), "{arguments:?}: {error}");
    }
    let order = list(&fixture, "cat/0.jpg\ncat/9.jpg\n");
    let error = fixture.fail(1, &["plan", &cid, "--print", "--order", order.to_str().unwrap()]);
    assert!(error.contains("cat/9.jpg"), "{error}");
    let error =
        fixture.fail(1, &["plan", &format!("{cid}/cat"), "--print", "--sampler", "torch-random", "--files=images"]);
    assert!(error.contains("ImageFolder"), "{error}");
    list(&fixture, &"x".repeat(70_000));
    let error = fixture.fail(1, &["plan", &cid, "--print", "--order", order.to_str().unwrap()]);
    assert!(error.contains("65536"), "{error}");
}

/// The same tree in another repository, without the blocks of these files.
fn without(fixture: &Fixture, cid: &str, gone: &[&str]) -> Fixture {
    let other = Fixture::new();
    let car = fixture.path().join("tree.car");
    fixture.run(&["car", "export", cid, "-o", car.to_str().unwrap()]);
    other.run(&["car", "import", "--local-only", car.to_str().unwrap()]);
    for path in gone {
        other.run(&["warmup", "--evict", &format!("{cid}/{path}")]);
    }
    other
}

#[test]
fn a_warmup_says_what_is_here_and_what_is_missing() {
    let fixture = Fixture::new();
    let cid = images(&fixture);
    assert!(fixture.run(&["warmup", &cid]).starts_with("7 files, 10 blocks, "));
    assert!(fixture.run(&["warmup", "--check", &cid]).starts_with("7 files, 10 blocks, "));
    let other = without(&fixture, &cid, &["cat/1.jpg", "dog"]);
    for arguments in [&["warmup", "--check", &cid][..], &["warmup", &cid]] {
        let output = other.output(arguments);
        let (out, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(output.status.code(), Some(1), "{out} {error}");
        assert!(out.starts_with("3 files, 5 blocks, ") && out.contains("2 blocks are missing"), "{out}");
        assert_eq!(error.lines().count(), 2, "{error}");
    }
    // What is below a missing directory is not asked for by the metadata alone, nor are leaves.
    let one = without(&fixture, &cid, &["cat/1.jpg"]);
    assert!(one.run(&["warmup", "--metadata-only", &cid]).contains("3 blocks"));
    let files = list(&one, "cat/0.jpg\ndog\n");
    assert!(one.run(&["warmup", &cid, "-f", files.to_str().unwrap()]).starts_with("4 files, 5 blocks, "));
    let done = one.output(&["warmup", "--json", &cid]);
    let line: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&line["Done"]["Missing"], &line["Done"]["Files"]), (&Value::from(1), &Value::from(6)));
}

#[test]
fn what_no_pin_needs_is_evicted_and_what_one_needs_stays() {
    let fixture = Fixture::new();
    let cid = images(&fixture);
    assert!(fixture.run(&["warmup", "--evict", &cid]).contains("dropped 0 blocks (0 B); 10 stay"));
    fixture.run(&["pin", "add", &format!("{cid}/dog")]);
    fixture.run(&["pin", "rm", &cid]);
    assert!(fixture.run(&["warmup", "--evict", &format!("{cid}/cat")]).starts_with("dropped 5 blocks"));
    fixture.fail(1, &["warmup", "--check", &cid]);
    assert!(fixture.run(&["warmup", "--check", &format!("{cid}/dog")]).starts_with("3 files, 4 blocks, "));
    assert!(fixture.run(&["warmup", "--evict", &cid]).contains("; 4 stay"));
}

#[test]
fn a_bomb_of_shared_subtrees_is_warm_in_a_moment() {
    let fixture = Fixture::new();
    let root = fixture.path().join("bomb");
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("x"), "x").unwrap();
    let mut level = fixture.run(&["add", "-Q", root.to_str().unwrap()]).trim().to_owned();
    // 2^60 paths in 62 blocks.
    for _ in 0..60 {
        let node = format!(r#"{{"a":{{"/":"{level}"}},"b":{{"/":"{level}"}}}}"#);
        let put = fixture.pipe(&["dag", "put", "--store-codec", "dag-cbor", "-"], node.as_bytes());
        level = String::from_utf8(put).unwrap().trim().to_owned();
    }
    assert!(fixture.run(&["warmup", &level]).starts_with("1 files, 62 blocks, "));
    assert!(fixture.run(&["warmup", "--check", &level]).starts_with("1 files, 62 blocks, "));
}

#[test]
fn a_warmup_in_the_background_is_seen_in_the_status() {
    let fixture = Fixture::new();
    let cid = images(&fixture);
    assert!(fixture.fail(1, &["warmup", "--background", &cid]).contains("no daemon"));
    let _daemon = fixture.daemon(&[]);
    assert!(fixture.run(&["warmup", "--background", &cid]).contains("background"));
    let mut looks = 0;
    let warmup = loop {
        let status: Value = serde_json::from_str(&fixture.run(&["status", "--json"])).unwrap();
        let warmup = status["Warmups"][0].clone();
        if warmup["State"] != "Running" || looks == 1000 {
            break warmup;
        }
        looks += 1;
    };
    assert_eq!((&warmup["State"], &warmup["Path"]), (&Value::from("Done"), &Value::from(cid.clone())));
    assert_eq!(warmup["Progress"]["Files"], 7);
    assert!(fixture.run(&["status"]).lines().any(|line| line.starts_with(&cid) && line.contains("done")));
    assert_eq!(fixture.run(&["warmup", "--stop"]), "stopped 0\n");
}

//! The orders of `cidfs plan` are those that PyTorch reads in: against recorded ones, and against the PyTorch at
//! `CIDFS_TEST_TORCH` (a Python that can import torch and torchvision).

#[path = "cli/fixture.rs"]
mod fixture;

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

use cidfs::prefetch::plan::{Batches, Drawn, Sampler, SamplerKind};
use fixture::Fixture;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What `scripts/torch-samplers.py --vectors` has printed.
const VECTORS: &str = include_str!("vectors/torch_samplers.json");

fn order_of(case: &Value) -> Vec<u32> {
    let flag = |name: &str| case[name].as_bool().unwrap();
    let number = |name: &str| case[name].as_u64().unwrap();
    let kind = match case["sampler"].as_str().unwrap() {
        "torch-distributed" => SamplerKind::Distributed {
            rank: number("rank"),
            world: number("world"),
            drop_last: flag("sampler_drop_last"),
        },
        _ => SamplerKind::Random {
            generator: if case["generator"] == "given" { Drawn::Given } else { Drawn::Default },
            reseeded: flag("reseeded"),
            persistent_workers: flag("persistent_workers"),
        },
    };
    let batches = case["batch_size"].as_u64().map(|size| Batches { size, drop_last: flag("drop_last") });
    let seed = case["seed"].as_u64().unwrap_or_else(|| case["seed"].as_i64().unwrap() as u64);
    let sampler = Sampler { kind, seed, shuffle: flag("shuffle"), batches };
    sampler.order(number("len") as usize, number("epoch")).unwrap()
}

#[test]
fn orders_are_those_that_were_recorded_from_torch() {
    let cases: Vec<Value> = serde_json::from_str(VECTORS).unwrap();
    assert!(cases.len() > 240, "{}", cases.len());
    for case in &cases {
        let order = order_of(case);
        if let Some(expected) = case["order"].as_array() {
            assert_eq!(json!(order), json!(expected), "{case}");
            continue;
        }
        assert_eq!(json!(order[..8]), case["first"], "{case}");
        assert_eq!(json!(order.len()), case["read"], "{case}");
        let bytes: Vec<u8> = order.iter().flat_map(|index| index.to_le_bytes()).collect();
        let digest = multibase::Base::Base16Lower.encode(Sha256::digest(&bytes));
        assert_eq!(json!(digest), case["sha256"], "{case}");
    }
}

/// Runs the reference script with these arguments and this input.
fn torch(arguments: &[&OsStr], input: &str) -> Vec<u8> {
    let python = std::env::var_os("CIDFS_TEST_TORCH")
        .expect("CIDFS_TEST_TORCH is not set: it must name a Python that can import torch and torchvision");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/torch-samplers.py");
    let mut child = Command::new(python)
        .arg(script)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("CIDFS_TEST_TORCH names a program that runs");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout
}

#[test]
fn orders_are_those_of_the_torch_of_this_machine_needs_torch() {
    // A few hundred cases, drawn anew each day, so that a new version of torch is compared in more places than recorded.
    let day = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() / 86_400;
    let mut state = day;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut cases = Vec::new();
    for number in 0..300 {
        let len = 1 + draw(if number % 50 == 0 { 100_000 } else { 300 });
        let (seed, epoch, shuffle) = (draw(1 << 31) << draw(32), draw(5), draw(8) > 0);
        let batch_size = (draw(2) == 0).then(|| 1 + draw(70));
        let drop_last = batch_size.is_some() && draw(2) == 0;
        cases.push(if draw(2) == 0 {
            let world = 1 + draw(12);
            json!({
                "sampler": "torch-distributed", "len": len, "seed": seed, "epoch": epoch, "rank": draw(world),
                "world": world, "shuffle": shuffle, "sampler_drop_last": draw(2) == 0, "batch_size": batch_size,
                "drop_last": drop_last,
            })
        } else {
            json!({
                "sampler": "torch-random", "len": len, "seed": seed, "epoch": epoch,
                "generator": if draw(2) == 0 { "given" } else { "default" }, "reseeded": draw(3) == 0,
                "persistent_workers": false, "shuffle": shuffle, "batch_size": batch_size, "drop_last": drop_last,
            })
        });
    }
    let told = torch(&["--cases".as_ref()], &json!(cases).to_string());
    let orders: Vec<Vec<u32>> = serde_json::from_slice(&told).unwrap();
    for (case, order) in cases.iter().zip(orders) {
        assert_eq!(order_of(case), order, "{case}");
    }
}

#[test]
fn images_are_numbered_as_by_the_image_folder_of_this_machine_needs_torch() {
    let fixture = Fixture::new();
    let root = fixture.path().join("images");
    let names: [&[u8]; 14] = [
        b"b/10.JPG",
        b"b/9.jpeg",
        b"b/deep/1.png",
        b"b/deep-er/1.png",
        b"b/deep/er/2.webp",
        b"b/notes.txt",
        b"B/x.tiff",
        b"\xc3\xa9/1.ppm",
        b"\xff/1.bmp",
        b"\xee\x80\x80/1.pgm",
        b"b/\xff.png",
        b"b/\xee\x80\x81.png",
        b"top.png",
        b"b/9a.tif",
    ];
    for name in names {
        let path = root.join(OsStr::from_bytes(name));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, name).unwrap();
    }
    let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, root.join(name)).unwrap();
    link("b/deep", "a-link-to-a-class");
    link("../b/deep/er", "B/in");
    link("../top.png", "B/y.png");
    link("nowhere", "b/broken.png");
    link("nowhere", "b/broken.txt");
    link("deep/../../B/x.tiff", "b/far.jpg");
    let cid = fixture.run(&["add", "-Q", root.to_str().unwrap()]).trim().to_owned();
    let expected = torch(&["--image-folder".as_ref(), root.as_ref()], "");
    let args = ["plan", &cid, "--sampler", "torch-random", "--no-shuffle", "--print"];
    let printed = fixture.output(&args).stdout;
    let lines = |text: &[u8]| String::from_utf8_lossy(text).lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(&printed), lines(&expected));
    assert_eq!(printed, expected);
    assert!(lines(&printed).len() > 15);
}

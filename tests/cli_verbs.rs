//! What verbs promise, with a daemon and without.

#[path = "cli/fixture.rs"]
mod fixture;

use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use cidfs::block::{Cid, CidForm};
use fixture::Fixture;
use serde_json::Value;

#[test]
fn verbs_print_the_same_with_a_daemon_and_without() {
    let fixture = Fixture::new();
    let root = fixture.add_tree();
    let file = format!("{root}/sub/b.txt");
    let child = fixture.run(&["ls", &root]).lines().find(|line| line.ends_with("sub/")).unwrap().to_owned();
    let child = child.split(' ').next().unwrap().to_owned();
    fixture.run(&["name", "add", "tree", &root]);
    let calls: Vec<Vec<&str>> = vec![
        vec!["ls", &root],
        vec!["ls", "--long", "--headers", &root],
        vec!["ls", "--json", &root],
        vec!["cat", &file],
        vec!["cat", "--offset", "1", "--length", "3", &file],
        vec!["stat", &file],
        vec!["stat", "--json", &root],
        vec!["block", "stat", &root],
        vec!["block", "get", &child],
        vec!["dag", "get", &root],
        vec!["dag", "resolve", &file],
        vec!["dag", "stat", &root],
        vec!["dag", "stat", "--json", &root],
        vec!["refs", "-r", "--format", "<linkname> <dst>", &root],
        vec!["refs", "-e", &root],
        vec!["pin", "ls", "--names"],
        vec!["pin", "ls", "-t", "all", "--json"],
        vec!["pin", "ls", &child],
        vec!["pin", "verify", "--verbose"],
        vec!["name", "ls"],
        vec!["repo", "stat", "--json", "--size-only"],
        vec!["verify"],
        vec!["id"],
        vec!["version"],
        vec!["get", "-a", "-o", "-", &file],
        vec!["car", "export", &root],
        vec!["config", "get", "store.ram_bytes"],
        vec!["cat", "nonsense"],
        vec!["cat", &root],
        vec!["ls", "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku/x"],
    ];
    let alone: Vec<_> = calls.iter().map(|call| fixture.output(call)).collect();
    let _daemon = fixture.daemon(&[]);
    for (call, alone) in calls.iter().zip(alone) {
        let beside = fixture.output(call);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(beside.status, alone.status, "{call:?}: {} {}", text(&beside.stderr), text(&alone.stderr));
        assert_eq!(text(&beside.stderr), text(&alone.stderr), "{call:?}");
        // An archive has the time of its making.
        if call[0] == "get" {
            assert_eq!(beside.stdout.len(), alone.stdout.len(), "{call:?}");
        } else {
            assert!(beside.stdout == alone.stdout, "{call:?}:\n{}\n{}", text(&beside.stdout), text(&alone.stdout));
        }
    }
}

#[test]
fn what_was_added_comes_out_as_it_went_in() {
    let fixture = Fixture::new();
    let root = fixture.add_tree();
    let out = fixture.path().join("out");
    fixture.run(&["get", &root, "-o", out.to_str().unwrap()]);
    let same = std::process::Command::new("diff").arg("-r").arg(fixture.path().join("tree")).arg(&out).status();
    assert!(same.unwrap().success());
    assert_eq!(std::fs::read_link(out.join("link")).unwrap().to_str(), Some("a.txt"));
    // Into a directory that is there already.
    let into = fixture.mountpoint("into");
    fixture.run(&["get", &format!("{root}/sub/b.txt"), "-o", into.to_str().unwrap()]);
    assert_eq!(std::fs::read(into.join("b.txt")).unwrap(), b"world\n");
    // Through a pipe and a CAR into another repository.
    let car = fixture.path().join("tree.car");
    fixture.run(&["car", "export", &root, "-o", car.to_str().unwrap()]);
    let other = Fixture::new();
    assert!(other.run(&["car", "import", "--stats", car.to_str().unwrap()]).contains(&format!("pinned {root}")));
    let third = Fixture::new();
    let imported = third.pipe(&["car", "import", "-"], &std::fs::read(&car).unwrap());
    assert!(String::from_utf8(imported).unwrap().contains(&root));
    for repository in [&other, &third] {
        assert_eq!(repository.run(&["pin", "verify", "--verbose"]), format!("{root} ok\n"));
        assert_eq!(repository.run(&["cat", &format!("{root}/a.txt")]), "hello\n");
    }
    // A CAR that breaks off is an error, and pins nothing.
    let fourth = Fixture::new();
    let whole = std::fs::read(&car).unwrap();
    std::fs::write(&car, &whole[..whole.len() / 2]).unwrap();
    let error = fourth.fail(1, &["car", "import", car.to_str().unwrap()]);
    assert!(error.contains("tree.car"), "{error}");
    assert_eq!(fourth.run(&["pin", "ls"]), "");
}

#[test]
fn standard_input_is_added_through_a_daemon_too() {
    let fixture = Fixture::new();
    let bytes: Vec<u8> = (0..5_000_000_u32).map(|n| ((n * 31) >> 7) as u8).collect();
    let alone = fixture.pipe(&["add", "-Q", "-"], &bytes);
    let _daemon = fixture.daemon(&[]);
    assert_eq!(fixture.pipe(&["add", "-Q", "-"], &bytes), alone);
    let cid = String::from_utf8(alone).unwrap();
    assert!(fixture.output(&["cat", cid.trim()]).stdout == bytes);
    // kubo's default by the environment, with a daemon that has another.
    let mut command = fixture.command(&["add", "-Q", "-"]);
    let child = command.env("CIDFS_IMPORT_PROFILE", "unixfs-v0-2015").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = child.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"hello\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "QmZULkCELmmk5XNfCgTnCyFgAVxBRBXyDHGGMVoLFLiXEN\n");
}

#[test]
fn a_named_pipe_that_is_given_by_itself_is_read_to_its_end() {
    let fixture = Fixture::new();
    let directory = fixture.mountpoint("pipes");
    let pipe = directory.join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| ((n * 17) >> 5) as u8).collect();
    let alone = String::from_utf8(fixture.pipe(&["add", "-Q", "-"], &bytes)).unwrap();
    for beside in [false, true] {
        let _daemon = beside.then(|| fixture.daemon(&[]));
        let writing = {
            let (pipe, bytes) = (pipe.clone(), bytes.clone());
            std::thread::spawn(move || std::fs::write(pipe, bytes).unwrap())
        };
        let added = fixture.run(&["add", pipe.to_str().unwrap()]);
        writing.join().unwrap();
        assert_eq!(added, format!("added {} pipe\n", alone.trim()), "beside a daemon: {beside}");
    }
    // In a directory it is no file, and two cannot be told apart on their way.
    let error = fixture.fail(1, &["add", directory.to_str().unwrap()]);
    assert!(error.contains("pipe: it is a named pipe"), "{error}");
    let error = fixture.fail(1, &["add", pipe.to_str().unwrap(), "-"]);
    assert!(error.contains("add one at a time"), "{error}");
}

#[test]
fn cids_are_printed_in_the_base_that_is_asked_for() {
    let fixture = Fixture::new();
    let root = fixture.add_tree();
    let tree = fixture.path().join("tree");
    let file = format!("{root}/sub/b.txt");
    let child = fixture.run(&["dag", "resolve", &file]).trim().to_owned();
    fixture.run(&["name", "add", "tree", &root]);
    let node = fixture.path().join("node.json");
    std::fs::write(&node, format!("{{\"l\":{{\"/\":\"{root}\"}}}}")).unwrap();
    let calls: Vec<Vec<&str>> = vec![
        vec!["add", tree.to_str().unwrap()],
        vec!["add", "-Q", "--profile", "unixfs-v0-2015", tree.to_str().unwrap()],
        vec!["add", "--json", tree.to_str().unwrap()],
        vec!["ls", &root],
        vec!["ls", "--json", &root],
        vec!["stat", "tree"],
        vec!["block", "stat", &root],
        vec!["block", "put", "-f", "v0", node.to_str().unwrap()],
        vec!["dag", "put", node.to_str().unwrap()],
        vec!["dag", "resolve", &file],
        vec!["dag", "stat", &root],
        vec!["refs", "-r", "--edges", &root],
        vec!["refs", "local"],
        vec!["pin", "ls"],
        vec!["pin", "ls", &child],
        vec!["pin", "ls", "-t", "indirect"],
        vec!["pin", "add", &root],
        vec!["pin", "verify", "--verbose"],
        vec!["name", "ls", "--json"],
    ];
    let _daemon = fixture.daemon(&[]);
    // Every word that is a CID, in the base, and the blanks of tables aside.
    let words = |text: &str, form: CidForm| {
        let mut words = String::new();
        for part in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
            let word = part.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            match word.parse::<Cid>() {
                Ok(cid) if word.len() > 40 => words.push_str(&form.text(&cid)),
                _ => words.push_str(word),
            }
            words.push_str(&part[word.len()..]);
        }
        words.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    for call in &calls {
        let plain = fixture.run(call);
        for base in ["base58btc", "base16", "base36", "base64url", "b"] {
            let form: CidForm = base.parse().unwrap();
            let asked = fixture.run(&[&["--cid-base", base], &call[..]].concat());
            let asked: Vec<String> = asked.split_whitespace().map(str::to_owned).collect();
            assert_eq!(asked, words(&plain, form), "{base}: {call:?}");
        }
    }
    assert!(fixture.fail(2, &["--cid-base", "base33", "pin", "ls"]).contains("base33"));
}

#[test]
fn pins_keep_blocks_and_gc_removes_the_rest() {
    let fixture = Fixture::new();
    let root = fixture.add_tree();
    let loose = fixture.pipe(&["add", "-Q", "--pin=false", "-"], b"nobody needs this");
    let loose = String::from_utf8(loose).unwrap().trim().to_owned();
    assert!(fixture.run(&["gc"]).starts_with("removed 1 blocks"));
    assert!(fixture.fail(1, &["cat", &loose]).contains(&loose));
    fixture.run(&["pin", "add", "--name", "mine", &format!("{root}/sub")]);
    assert!(fixture.run(&["pin", "ls", "--names"]).contains("recursive mine"));
    fixture.run(&["pin", "rm", &root]);
    fixture.run(&["gc", "--quiet"]);
    assert!(fixture.output(&["cat", &format!("{root}/a.txt")]).status.code() == Some(1));
    let error = fixture.fail(1, &["pin", "rm", &root]);
    assert!(error.contains("not pinned"), "{error}");
}

#[test]
fn errors_are_one_line_that_names_what_failed() {
    let fixture = Fixture::new();
    let absent = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvya4";
    for arguments in [&["cat", absent][..], &["pin", "add", absent], &["car", "export", absent], &["get", absent]] {
        let error = fixture.fail(1, arguments);
        assert!(error.starts_with("cidfs: ") && error.contains(absent), "{arguments:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    assert!(fixture.fail(1, &["add", "/nonexistent/file"]).contains("/nonexistent/file"));
    assert!(fixture.fail(2, &["frobnicate"]).contains("frobnicate"));
    assert!(fixture.fail(1, &["-c", "store.ram_bytes=many", "id"]).contains("256MiB"));
}

#[test]
fn a_reader_that_has_seen_enough_ends_a_verb_quietly() {
    let fixture = Fixture::new();
    let root = fixture.add_tree();
    let file = format!("{root}/sub/deep/large.bin");
    for arguments in [&["cat", file.as_str()][..], &["refs", "-r", &root], &["car", "export", &root]] {
        let mut child = fixture.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{arguments:?}");
        assert!(output.status.success(), "{arguments:?}");
    }
}

#[test]
fn config_says_where_each_value_came_from_and_edits_keep_comments() {
    let fixture = Fixture::new();
    fixture.run(&["init"]);
    fixture.run(&["config", "set", "store.free_ratio", "0.1"]);
    let file = fixture.repository().join("config.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("free_ratio = 0.1") && text.contains("# The settings of this cidfs repository"));
    let mut command = fixture.command(&["-c", "store.ram_bytes=1GiB", "config", "show", "--json"]);
    let output = command.env("CIDFS_FETCH_TIMEOUT", "5m").env("CIDFS_NETWORK_PROFILE", "lan").output().unwrap();
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (key, value, source) in [
        ("store.ram_bytes", "\"1GiB\"", "flag -c store.ram_bytes=1GiB"),
        ("fetch.timeout", "\"5m\"", "environment CIDFS_FETCH_TIMEOUT"),
        ("network.profile", "\"lan\"", "environment CIDFS_NETWORK_PROFILE"),
        ("mount.allow_other", "false", "default"),
    ] {
        assert_eq!(shown[key]["Value"].to_string(), value, "{key}");
        assert_eq!(shown[key]["Source"], source, "{key}");
    }
    let source = shown["store.free_ratio"]["Source"].as_str().unwrap();
    assert!(source.starts_with(file.to_str().unwrap()), "{source}");
    std::fs::write(&file, "[store]\nram_byte = 1\n").unwrap();
    let error = fixture.fail(1, &["id"]);
    assert!(error.contains("config.toml:2") && error.contains("ram_byte"), "{error}");
}

#[test]
fn nothing_of_a_repository_is_readable_by_others() {
    let fixture = Fixture::new();
    fixture.add_tree();
    fixture.run(&["id"]);
    assert_eq!(std::fs::metadata(fixture.repository()).unwrap().mode() & 0o777, 0o700);
    let _daemon = fixture.daemon(&[]);
    let socket = std::fs::metadata(fixture.repository().join("api.sock")).unwrap();
    assert_eq!(socket.mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(fixture.repository().join("identity.key")).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn completions_and_man_pages_are_made_of_every_verb() {
    let fixture = Fixture::new();
    for shell in ["bash", "zsh", "fish"] {
        let text = fixture.run(&["completions", shell]);
        assert!(text.contains("wrap-with-directory") && text.contains("umount"), "{shell}");
    }
    let pages = fixture.path().join("man");
    fixture.run(&["man", pages.to_str().unwrap()]);
    for page in ["cidfs.1", "cidfs-add.1", "cidfs-mount.1", "cidfs-pin-add.1"] {
        let text = std::fs::read_to_string(pages.join(page)).unwrap();
        assert!(text.contains(".SH"), "{page}");
    }
    assert!(!fixture.repository().exists(), "they need no repository");
}

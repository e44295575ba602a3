//! The documents keep their word: commands work, links lead somewhere, bounds are listed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<PathBuf> {
    let in_docs = fs::read_dir(project().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut documents: Vec<PathBuf> = in_docs.filter(|path| path.extension().is_some_and(|it| it == "md")).collect();
    documents.push(project().join("README.md"));
    documents
}

#[test]
fn every_link_between_documents_leads_to_a_file() {
    let mut links = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.starts_with('#') {
                continue;
            }
            let file = link.split('#').next().unwrap_or(link);
            let target = document.parent().unwrap().join(file);
            assert!(target.exists(), "{} links to {link}, which is not there", document.display());
            links += 1;
        }
    }
    assert!(links > 0, "the README links to the documents");
}

#[test]
fn every_script_that_a_document_names_is_there() {
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for rest in text.split("scripts/").skip(1) {
            let name: String =
                rest.chars().take_while(|letter| letter.is_ascii_lowercase() || "-.".contains(*letter)).collect();
            let name = name.trim_end_matches('.');
            let there = name.is_empty() || project().join("scripts").join(name).exists();
            assert!(there, "{} names scripts/{name}", document.display());
        }
    }
}

#[test]
fn every_bound_is_in_the_table_of_limits() {
    let limits = fs::read_to_string(project().join("src/limits.rs")).unwrap();
    let semantics = fs::read_to_string(project().join("docs/semantics.md")).unwrap();
    let names = limits.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next());
    let missing: Vec<&str> = names.filter(|name| !semantics.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/semantics.md has no row for {missing:?}");
}

#[test]
fn every_test_that_holds_an_invariant_is_there() {
    let architecture = fs::read_to_string(project().join("docs/architecture.md")).unwrap();
    let invariants = architecture.split("\n## Invariants").nth(1).expect("the architecture lists the invariants");
    let mut code = String::new();
    let mut directories = vec![project().join("src"), project().join("tests")];
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                code.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let quoted = invariants.split('`').skip(1).step_by(2);
    let named: Vec<&str> = quoted.filter(|name| name.matches('_').count() > 1).collect();
    assert!(named.len() > 25, "{named:?}");
    let missing: Vec<&&str> = named.iter().filter(|name| !code.contains(&format!("fn {name}()"))).collect();
    assert!(missing.is_empty(), "docs/architecture.md names {missing:?}");
    assert_eq!((1..=10).filter(|number| invariants.contains(&format!("\n{number}. **"))).count(), 10);
}

/// The indented lines under the README's "The main job", run as they stand, but for the two paths and the CID.
#[test]
fn the_commands_of_the_readme_work_needs_fuse() {
    let readme = fs::read_to_string(project().join("README.md")).unwrap();
    let section = readme.split("\n## ").find(|part| part.starts_with("The main job")).expect("README has the main job");
    let commands: Vec<&str> = section.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    assert!(commands.len() >= 6, "{commands:?}");

    let place = tempfile::tempdir().unwrap();
    let (dataset, mountpoint) = (place.path().join("imagenet"), place.path().join("mnt"));
    fs::create_dir_all(dataset.join("train/n01440764")).unwrap();
    fs::write(dataset.join("train/n01440764/1.JPEG"), b"an image").unwrap();
    fs::create_dir(&mountpoint).unwrap();

    let run = |command: &str| {
        let binary = Path::new(env!("CARGO_BIN_EXE_cidfs")).parent().unwrap();
        let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
        let output = Command::new("sh")
            .args(["-c", command])
            .current_dir(place.path())
            .env("CIDFS_PATH", place.path().join("repository"))
            .env("CIDFS_NETWORK_PROFILE", "offline")
            .env("PATH", path)
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        (output.status.success(), printed, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let mut cid = String::new();
    let mut failed = None;
    for command in commands {
        let command = command.replace("/mnt/ipfs", &mountpoint.to_string_lossy()).replace("<cid>", &cid);
        let (succeeded, printed, errors) = run(&command);
        if !succeeded {
            failed = Some(format!("{command}: {errors}"));
            break;
        }
        if command.starts_with("cidfs add") {
            let last = printed.lines().last().unwrap_or_default();
            cid = last.split_whitespace().find(|word| word.len() >= 46).expect("a CID is printed last").to_owned();
        }
        if command.starts_with("ls -l") {
            assert!(printed.contains("n01440764"), "{command} printed {printed}");
        }
    }
    if let Some(why) = failed {
        let _ = run(&format!("cidfs umount {}", mountpoint.display()));
        panic!("{why}");
    }
    assert_eq!(fs::read_dir(&mountpoint).unwrap().count(), 0, "the mount is gone");
}

//! Real input: directories of the system, which nobody prepared, added and mounted by the program itself.
//!
//! `scripts/roundtrip` does the same with the whole of `/usr`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Those that are there are taken: headers come with the C library, time zones are full of symbolic and hard links.
const TREES: [&str; 2] = ["/usr/include", "/usr/share/zoneinfo"];

/// What is compared of an entry besides its content: mode, and the target of a symbolic link or the size and mtime of a file.
#[derive(Debug, PartialEq)]
struct Entry {
    mode: u32,
    target: Option<Vec<u8>>,
    file: Option<(u64, i64, i64)>,
}

fn entries(root: &Path) -> BTreeMap<PathBuf, Entry> {
    let mut entries = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let stat = fs::symlink_metadata(&path).unwrap();
            // A symbolic link has no mode of its own: what is shown for it differs among filesystems.
            let mode = if stat.is_symlink() { 0o120_000 } else { stat.mode() };
            let target = stat.is_symlink().then(|| fs::read_link(&path).unwrap().into_os_string().into_vec());
            let file = stat.is_file().then(|| (stat.size(), stat.mtime(), stat.mtime_nsec()));
            entries.insert(path.strip_prefix(root).unwrap().to_owned(), Entry { mode, target, file });
            if stat.is_dir() {
                directories.push(path);
            }
        }
    }
    entries
}

fn cidfs(repository: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cidfs"));
    command.args(arguments).env("CIDFS_PATH", repository).env("CIDFS_NETWORK_PROFILE", "offline");
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cidfs {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_tree_that_nobody_prepared_is_the_same_through_the_mount() {
    let place = tempfile::tempdir().unwrap();
    let repository = place.path().join("repository");
    let mountpoint = place.path().join("mnt");
    fs::create_dir(&mountpoint).unwrap();
    let trees: Vec<&str> = TREES.into_iter().filter(|tree| Path::new(tree).is_dir()).collect();
    assert!(!trees.is_empty(), "this machine has none of {TREES:?}");

    let add = ["add", "-Q", "--hidden", "--preserve-mode", "--preserve-mtime"];
    let roots: Vec<String> =
        trees.iter().map(|tree| cidfs(&repository, &[&add[..], &[tree]].concat()).trim().to_owned()).collect();
    cidfs(&repository, &["mount", mountpoint.to_str().unwrap()]);
    let same = std::panic::catch_unwind(|| {
        for (tree, root) in trees.iter().zip(&roots) {
            let mounted = mountpoint.join(root);
            let (there, here) = (entries(Path::new(tree)), entries(&mounted));
            assert_eq!(there.len(), here.len(), "{tree}");
            for (path, entry) in &there {
                assert_eq!(here.get(path), Some(entry), "{tree}/{}", path.display());
            }
            let diff = Command::new("diff").args(["-r", "--no-dereference", tree]).arg(&mounted).output().unwrap();
            let found = String::from_utf8_lossy(&diff.stdout);
            assert!(diff.status.success(), "{found}{}", String::from_utf8_lossy(&diff.stderr));
        }
    });
    cidfs(&repository, &["umount", mountpoint.to_str().unwrap()]);
    if let Err(panic) = same {
        std::panic::resume_unwind(panic);
    }
}

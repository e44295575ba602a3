//! What `import::add` promises beside its CIDs: what is kept, what is pinned, and what is refused.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::symlink;
use std::path::Path;

use cidfs::config::StoreConfig;
use cidfs::import::{self, Event, ImportError, ImportOptions, Profile, Source};
use cidfs::store::Store;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), &StoreConfig::default()).unwrap();
    (dir, store)
}

fn add(path: &Path, options: &ImportOptions) -> Result<(Vec<Event>, String, Store), ImportError> {
    let (_dir, store) = store();
    let mut events = Vec::new();
    let mut record = |event| {
        events.push(event);
        ControlFlow::Continue(())
    };
    let added = import::add(vec![Source::Path(path.into())], options, &store, &mut record)?;
    Ok((events, added.roots.last().unwrap().to_string(), store))
}

fn v0() -> ImportOptions {
    ImportOptions { profile: Profile::UnixfsV0_2015, ..ImportOptions::default() }
}

#[test]
fn a_small_tree_has_the_cid_that_kubo_gives_it() {
    let dir = tempfile::tempdir().unwrap();
    let planets = dir.path().join("planets");
    fs::create_dir(&planets).unwrap();
    fs::write(planets.join("mars.txt"), "Hello Mars!\n").unwrap();
    fs::write(planets.join("venus.txt"), "Hello Venus!\n").unwrap();
    let (events, root, store) = add(&planets, &v0()).unwrap();
    assert_eq!(root, "QmWSgS32xQEcXMeqd3YPJLrNBLSdsfYCep2U7CFkyrjXwY");
    let paths: Vec<_> = events
        .iter()
        .map(|event| match event {
            Event::Added(entry) => String::from_utf8(entry.path.0.clone()).unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(paths, ["planets/mars.txt", "planets/venus.txt", "planets"]);
    assert_eq!(store.pins().unwrap()[0].cid.to_string(), root);
    let options = ImportOptions { cid_version: Some(1), ..v0() };
    assert_eq!(add(&planets, &options).unwrap().1, "bafybeih7e5dmkyk25up5vxug4q3hrg2fxbzf23dfrac2fns5h7z4aa7ioi");
}

#[test]
fn a_socket_is_refused_by_name_and_nothing_is_pinned() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "fine").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("b.sock")).unwrap();
    let (_store_dir, store) = store();
    let error = import::add(vec![Source::Path(dir.path().into())], &v0(), &store, &mut ()).unwrap_err().to_string();
    assert!(error.contains("b.sock: it is a socket"), "{error}");
    assert!(store.pins().unwrap().is_empty());
}

#[test]
fn a_caller_that_stops_gets_no_pin() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "fine").unwrap();
    symlink("a", dir.path().join("link")).unwrap();
    let (_store_dir, store) = store();
    let mut stop = |_| ControlFlow::Break(());
    let result = import::add(vec![Source::Path(dir.path().into())], &v0(), &store, &mut stop);
    assert!(matches!(result, Err(ImportError::Cancelled)));
    assert!(store.pins().unwrap().is_empty());
}

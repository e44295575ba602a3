//! Which files a plan has, and in which order: the numbers of a dataset's files.

#[path = "mounts/fixture.rs"]
mod fixture;

use cidfs::limits::MAX_DIRECTORY_DEPTH;
use cidfs::prefetch::plan::{Dataset, Files, PlanError};
use fixture::{Fixture, Link, now};

fn paths(dataset: &Dataset) -> Vec<String> {
    let path = |index| String::from_utf8_lossy(dataset.path(index).unwrap()).into_owned();
    (0..dataset.len() as u32).map(path).collect()
}

fn list(fixture: &Fixture, directory: &str, files: Option<Files>) -> Result<(Dataset, Files), PlanError> {
    now(Dataset::list(&fixture.tree, directory, files))
}

/// Two classes, of which one has directories below it, and things that are no images.
fn images(fixture: &Fixture) -> Link {
    let leaf = |text: &str| fixture.raw(text.as_bytes());
    let sub = fixture.directory(&[("4.png", &leaf("4"))]);
    let deep = fixture.directory(&[("2.png", &leaf("2")), ("1.png", &leaf("1")), ("sub", &sub)]);
    let dash = fixture.directory(&[("3.png", &leaf("3"))]);
    let big = fixture.chunked(&fixture::noise(5000, 1), 1000, 3);
    let cat = fixture.directory(&[
        ("b.JPEG", &big),
        ("a.txt", &leaf("no image")),
        ("a.jpg", &leaf("a")),
        ("deep", &deep),
        ("deep-er", &dash),
        ("out.png", &fixture.symlink(b"/etc/passwd")),
        ("in.png", &fixture.symlink(b"../dog/d.webp")),
        ("more", &fixture.symlink(b"../dog")),
    ]);
    let dog = fixture.directory(&[("d.webp", &leaf("dog")), ("e.webp", &leaf("e"))]);
    fixture.directory(&[("dog", &dog), ("cat", &cat), ("top.png", &leaf("top"))])
}

#[test]
fn images_are_numbered_class_by_class_and_directory_by_directory() {
    let fixture = Fixture::new();
    let root = images(&fixture);
    let (dataset, files) = list(&fixture, &root.cid.to_string(), None).unwrap();
    assert_eq!(files, Files::Images);
    // A directory's files come before those of the directories in it; directories are sorted by their whole paths.
    let expected = [
        "cat/a.jpg",
        "cat/b.JPEG",
        "cat/in.png",
        "cat/out.png",
        "cat/deep/1.png",
        "cat/deep/2.png",
        "cat/deep-er/3.png",
        "cat/deep/sub/4.png",
        "cat/more/d.webp",
        "cat/more/e.webp",
        "dog/d.webp",
        "dog/e.webp",
    ];
    assert_eq!(paths(&dataset), expected);
    let sizes: Vec<u64> = (0..12).map(|index| dataset.file(index).unwrap().1).collect();
    assert_eq!(sizes, [1, 5000, 3, 0, 1, 1, 1, 1, 3, 1, 3, 1], "what leads out of the root has nothing to fetch");
    assert_eq!(dataset.file(1).unwrap().0, root_of(&fixture, &root, "cat/b.JPEG"));
    assert_eq!(dataset.file(2), dataset.file(10), "a link is what it leads to");
    assert_eq!((dataset.file(12), dataset.bytes()), (None, 5016));
}

fn root_of(fixture: &Fixture, root: &Link, path: &str) -> cidfs::block::Cid {
    now(fixture.tree.resolve(format!("{}/{path}", root.cid).as_bytes())).unwrap().location.cid
}

#[test]
fn all_files_are_taken_in_the_order_of_their_paths_where_there_are_no_classes() {
    let fixture = Fixture::new();
    let root = images(&fixture);
    let expected = [
        "cat/a.jpg",
        "cat/a.txt",
        "cat/b.JPEG",
        "cat/deep-er/3.png",
        "cat/deep/1.png",
        "cat/deep/2.png",
        "cat/deep/sub/4.png",
        "cat/in.png",
        "cat/more/d.webp",
        "cat/more/e.webp",
        "cat/out.png",
        "dog/d.webp",
        "dog/e.webp",
        "top.png",
    ];
    assert!(expected.is_sorted());
    let (dataset, files) = list(&fixture, &root.cid.to_string(), Some(Files::All)).unwrap();
    assert_eq!((paths(&dataset), files), (expected.map(String::from).to_vec(), Files::All));
    // One class without an image, and ImageFolder refuses the directory.
    let empty = fixture.directory(&[("a.txt", &fixture.raw(b"text"))]);
    let mixed = fixture.directory(&[("images", &root), ("texts", &empty)]);
    let path = mixed.cid.to_string();
    assert_eq!(list(&fixture, &path, None).unwrap().1, Files::All);
    assert_eq!(list(&fixture, &path, Some(Files::Images)).unwrap().0.len(), 13);
    // No directory at all.
    let flat = format!("{}/dog", root.cid);
    let (dataset, files) = list(&fixture, &flat, None).unwrap();
    assert_eq!((paths(&dataset), files), (vec!["d.webp".to_owned(), "e.webp".to_owned()], Files::All));
    assert!(matches!(list(&fixture, &flat, Some(Files::Images)), Err(PlanError::NoImages { .. })));
    let nothing = fixture.directory(&[]);
    assert!(matches!(list(&fixture, &nothing.cid.to_string(), None), Err(PlanError::NoFiles { .. })));
    assert!(matches!(list(&fixture, &format!("{}/top.png", root.cid), None), Err(PlanError::Tree(_))));
}

#[test]
fn links_are_followed_as_far_as_they_stay_below_the_root() {
    let fixture = Fixture::new();
    let root = images(&fixture);
    // Below a directory of the root, links may lead out of that directory.
    let (dataset, _) = list(&fixture, &format!("{}/cat", root.cid), Some(Files::All)).unwrap();
    let index = paths(&dataset).iter().position(|path| path == "in.png").unwrap() as u32;
    assert_eq!(dataset.file(index).unwrap().1, 3);
    // Links that lead in a circle lead nowhere; those to a directory above are walked until they are too deep.
    let circle = fixture.directory(&[("a", &fixture.symlink(b"b")), ("b", &fixture.symlink(b"a"))]);
    let (dataset, _) = list(&fixture, &circle.cid.to_string(), None).unwrap();
    assert_eq!((paths(&dataset), dataset.bytes()), (vec!["a".to_owned(), "b".to_owned()], 0));
    let above = fixture.directory(&[("up", &fixture.symlink(b".")), ("x", &fixture.raw(b"x"))]);
    let error = list(&fixture, &above.cid.to_string(), None).unwrap_err();
    assert!(error.to_string().contains(&MAX_DIRECTORY_DEPTH.to_string()), "{error}");
}

#[test]
fn an_order_is_a_list_of_files_of_the_directory() {
    let fixture = Fixture::new();
    let root = images(&fixture);
    let directory = root.cid.to_string();
    let mut order = now(Dataset::of_paths(&fixture.tree, &directory)).unwrap();
    for path in ["dog/e.webp", "./cat//deep/1.png", "dog/e.webp", "/top.png", "cat/more/d.webp"] {
        now(order.push(path.as_bytes())).unwrap();
    }
    for (path, expected) in
        [("cat/none.png", "not there"), ("cat", "directory"), ("top.png/x", "not there"), ("..", "not there")]
    {
        let error = now(order.push(path.as_bytes())).unwrap_err().to_string();
        assert!(error.contains(path) && error.contains(expected), "{error}");
    }
    let dataset = order.finish();
    assert_eq!(paths(&dataset), ["dog/e.webp", "./cat//deep/1.png", "dog/e.webp", "/top.png", "cat/more/d.webp"]);
    assert_eq!(dataset.file(0), dataset.file(2));
}

#[test]
fn a_tree_of_links_has_more_paths_than_a_plan_takes_and_is_refused() {
    let fixture = Fixture::new();
    // Each level names the one below twice, under long names: 2^40 directories from 41 blocks.
    let (one, other) = ("a".repeat(255), "b".repeat(255));
    let mut level = fixture.directory(&[]);
    for _ in 0..40 {
        level = fixture.directory(&[(&one, &level), (&other, &level)]);
    }
    let error = list(&fixture, &level.cid.to_string(), Some(Files::Images)).unwrap_err();
    assert!(matches!(error, PlanError::LongPaths), "{error}");
}

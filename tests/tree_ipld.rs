//! dag-cbor and dag-json as directories and small files.

#[path = "mounts/fixture.rs"]
mod fixture;

use cidfs::block::codec::{CBOR, DAG_CBOR, DAG_JSON, JSON};
use cidfs::fetch::Priority;
use cidfs::tree::{Entry, FileKind, Inodes, TreeError};
use fixture::{Fixture, Link, now};

fn resolve(fixture: &Fixture, root: &Link, path: &str) -> Result<Entry, TreeError> {
    now(fixture.tree.resolve(format!("{}/{path}", root.cid).as_bytes()))
}

fn read(fixture: &Fixture, root: &Link, path: &str) -> Vec<u8> {
    let entry = resolve(fixture, root, path).unwrap();
    let data = now(fixture.tree.read(&entry.location, 0, 1 << 20, Priority::Demand)).unwrap();
    assert_eq!(data.len() as u64, entry.attr.size, "{path}");
    data.to_vec()
}

fn names(fixture: &Fixture, root: &Link, path: &str, page: usize) -> Vec<String> {
    let entry = resolve(fixture, root, path).unwrap();
    assert_eq!(entry.attr.kind, FileKind::Directory);
    let (mut names, mut cursor) = (Vec::new(), 0);
    loop {
        let listed = now(fixture.tree.list(&entry.location, cursor, page)).unwrap();
        let Some(last) = listed.last() else { return names };
        cursor = last.cursor;
        for (listed, attr) in listed.iter().zip(now(fixture.tree.attrs(&listed))) {
            let found = now(fixture.tree.lookup(&entry.location, &listed.name)).unwrap();
            assert_eq!((found.location, found.attr), (listed.location.clone(), attr.unwrap()));
            names.push(String::from_utf8(listed.name.to_vec()).unwrap());
        }
    }
}

#[test]
fn a_manifest_is_walked_and_read_in_either_codec() {
    let fixture = Fixture::new();
    let image = fixture.file(b"pixels", &[]);
    let folder = fixture.directory(&[("1.jpg", &image)]);
    let json = format!(
        r#"{{"classes":["cat","dog",null],"count":3,"data":{{"/":{{"bytes":"aGVsbG8"}}}},"first":{{"/":"{}"}},
            "folder":{{"/":"{}"}},"nested":{{"deep":{{"er":true}}}},"ratio":0.5,"title":"Größe"}}"#,
        image.cid, folder.cid
    );
    for codec in [DAG_CBOR, DAG_JSON] {
        let root = fixture.ipld(codec, &json);
        let mut listed = names(&fixture, &root, "", 2);
        assert_eq!(listed, names(&fixture, &root, "", 100));
        listed.sort();
        assert_eq!(listed, ["classes", "count", "data", "first", "folder", "nested", "ratio", "title"]);
        assert_eq!(names(&fixture, &root, "classes", 2), ["0", "1", "2"]);
        assert_eq!(names(&fixture, &root, "nested/deep", 2), ["er"]);
        assert_eq!(names(&fixture, &root, "folder", 2), ["1.jpg"]);
        for (path, content) in [
            ("title", "Größe"),
            ("count", "3"),
            ("ratio", "0.5"),
            ("classes/1", "dog"),
            ("classes/2", "null"),
            ("nested/deep/er", "true"),
            ("data", "hello"),
            ("first", "pixels"),
            ("folder/1.jpg", "pixels"),
        ] {
            assert_eq!(read(&fixture, &root, path), content.as_bytes(), "{path}");
        }
        for (path, is_not_a_directory) in
            [("classes/3", false), ("classes/01", false), ("none", false), ("title/x", true), ("first/x", true)]
        {
            match resolve(&fixture, &root, path).unwrap_err() {
                TreeError::NotADirectory { .. } => assert!(is_not_a_directory, "{path}"),
                TreeError::NoEntry { .. } => assert!(!is_not_a_directory, "{path}"),
                error => panic!("{path}: {error}"),
            }
        }
    }
}

#[test]
fn blocks_of_scalars_are_files_and_blocks_of_links_are_what_they_lead_to() {
    let fixture = Fixture::new();
    let text = fixture.ipld(DAG_CBOR, r#""just text""#);
    assert_eq!(read(&fixture, &text, ""), b"just text");
    let link = fixture.ipld(DAG_CBOR, &format!(r#"{{"/":"{}"}}"#, text.cid));
    let further = fixture.ipld(DAG_JSON, &format!(r#"{{"/":"{}"}}"#, link.cid));
    assert_eq!(read(&fixture, &further, ""), b"just text");
    let directory = fixture.directory(&[("file", &fixture.raw(b"x")), ("link", &fixture.symlink(b"file"))]);
    let to_directory = fixture.ipld(DAG_CBOR, &format!(r#"{{"/":"{}"}}"#, directory.cid));
    assert_eq!(names(&fixture, &to_directory, "", 1), ["file", "link"]);
    let in_unixfs = fixture.directory(&[("manifest", &to_directory)]);
    assert_eq!(read(&fixture, &in_unixfs, "manifest/file"), b"x");
    let endless = (0..30).fold(text, |below, _| fixture.ipld(DAG_CBOR, &format!(r#"{{"/":"{}"}}"#, below.cid)));
    assert!(matches!(resolve(&fixture, &endless, ""), Err(TreeError::Limit { .. })));
}

#[test]
fn keys_that_no_file_can_have_are_not_shown() {
    let fixture = Fixture::new();
    let root = fixture.ipld(DAG_CBOR, r#"{"":1,".":2,"..":3,"a/b":{"c":4},"fine":5}"#);
    assert_eq!(names(&fixture, &root, "", 10), ["fine"]);
    assert_eq!(fixture.tree.hidden_names(), 4);
    assert!(matches!(resolve(&fixture, &root, "a/b"), Err(TreeError::NoEntry { .. })));
}

#[test]
fn malformed_blocks_are_errors_and_plain_cbor_and_json_read_back_raw() {
    let fixture = Fixture::new();
    for codec in [DAG_CBOR, DAG_JSON] {
        let broken = fixture.put(codec, &b"\xff{"[..]);
        assert!(matches!(resolve(&fixture, &broken, ""), Err(TreeError::Dag { .. })));
    }
    for codec in [CBOR, JSON] {
        let plain = fixture.put(codec, &b"{ \"a\" : 1 }"[..]);
        assert_eq!(read(&fixture, &plain, ""), b"{ \"a\" : 1 }");
    }
}

#[test]
fn files_within_one_block_are_different_inodes() {
    let fixture = Fixture::new();
    let root = fixture.ipld(DAG_CBOR, r#"{"a":"x","b":"x","m":{},"n":{}}"#);
    let inodes = Inodes::new();
    let numbers: std::collections::BTreeSet<u64> = ["a", "b", "m", "n"]
        .map(|name| inodes.look_up(7, 1, name.as_bytes(), &resolve(&fixture, &root, name).unwrap()).unwrap())
        .into();
    assert_eq!(numbers.len(), 4);
}

#[test]
fn a_large_list_is_listed_page_by_page() {
    let fixture = Fixture::new();
    let items: Vec<String> = (0..10_000).map(|index| index.to_string()).collect();
    let root = fixture.ipld(DAG_CBOR, &format!("[{}]", items.join(",")));
    let location = resolve(&fixture, &root, "").unwrap().location;
    let (mut seen, mut cursor) = (Vec::new(), 0);
    while let Some(last) = {
        let listed = now(fixture.tree.list(&location, cursor, 100)).unwrap();
        seen.extend(listed.iter().map(|entry| String::from_utf8(entry.name.to_vec()).unwrap()));
        listed.last().map(|entry| entry.cursor)
    } {
        assert!(last > cursor && last < i64::MAX as u64);
        cursor = last;
    }
    assert_eq!(seen, items);
}

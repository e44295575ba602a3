//! DAGs that other implementations made, in `vectors/cars`: imported, walked, listed and read, and compared in everything
//! with the listings beside them. What kubo 0.43 says of the same DAGs (`dag stat`, `dag export`, `refs`, `dag get`) is in
//! `vectors/kubo_dag.json`.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use cidfs::block::{Cid, codec};
use cidfs::config::StoreConfig;
use cidfs::dag::car::CarReader;
use cidfs::dag::ipld::Node;
use cidfs::fetch::car::{self, Import, Missing};
use cidfs::fetch::refs::Refs;
use cidfs::fetch::stat::dag_stat;
use cidfs::fetch::walk::{Reach, Visit, Walk};
use cidfs::fetch::{Fetch, Priority, pin};
use cidfs::store::Store;
use cidfs::tree::{Entry, FileKind, Tree};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn vectors() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

/// The names of the CARs, without their extensions.
fn names() -> Vec<String> {
    let files =
        fs::read_dir(vectors().join("cars")).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = files.filter_map(|name| Some(name.strip_suffix(".car")?.to_owned())).collect();
    names.sort();
    assert!(names.len() >= 27, "{names:?}");
    names
}

fn read(name: &str) -> Vec<u8> {
    fs::read(vectors().join("cars").join(format!("{name}.car"))).unwrap()
}

fn listing(name: &str) -> Value {
    serde_json::from_slice(&fs::read(vectors().join("cars").join(format!("{name}.json"))).unwrap()).unwrap()
}

fn root(listing: &Value) -> Cid {
    listing["roots"][0].as_str().unwrap().parse().unwrap()
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// A store of one CAR's blocks.
struct Imported {
    fetch: Fetch,
    root: Cid,
    listing: Value,
    _dir: tempfile::TempDir,
}

async fn import(name: &str) -> Imported {
    let dir = tempfile::tempdir().unwrap();
    let fetch = Fetch::new(Store::open(dir.path(), &StoreConfig::default()).unwrap());
    let listing = listing(name);
    let mut import = Import::new(&fetch);
    import.read(&read(name)[..], |_| ()).unwrap();
    let imported = import.finish(true).await.unwrap();
    let root = root(&listing);
    let is_whole = listing["errors"] == 0;
    assert_eq!(imported.roots.len(), 1);
    assert_eq!(imported.roots[0].0, root);
    assert_eq!(imported.roots[0].1.is_ok(), is_whole, "{name}");
    assert_eq!(fetch.store().pinned(&root).unwrap().is_some(), is_whole, "{name}");
    if let Some(blocks) = listing["blocks"].as_u64() {
        assert_eq!(imported.count.blocks, blocks, "{name}");
    }
    Imported { fetch, root, listing, _dir: dir }
}

#[test]
fn every_block_of_every_vector_hashes_to_its_cid() {
    for name in names() {
        let bytes = read(&name);
        assert_eq!(json!(hex(Sha256::digest(&bytes))), listing(&name)["car_sha256"], "{name}");
        let mut reader = CarReader::new(&bytes[..]).unwrap();
        assert_eq!(reader.roots(), [root(&listing(&name))]);
        let mut blocks = 0_u64;
        while reader.next_block().unwrap().is_some() {
            blocks += 1;
        }
        assert!(blocks > 0, "{name}");
    }
}

#[tokio::test]
async fn every_listing_is_the_one_that_other_implementations_give() {
    for name in names() {
        let imported = import(&name).await;
        let tree = Tree::new(imported.fetch.clone());
        // Of duplicate names the first counts; the listings have them all.
        let mut seen = HashSet::new();
        let mut expected = BTreeMap::new();
        for entry in imported.listing["tree"].as_array().unwrap() {
            let mut entry = entry.clone();
            let path = entry["path"].as_str().unwrap().to_owned();
            if !seen.insert(path.clone()) {
                let (parent, _) = path.rsplit_once('/').unwrap();
                let parent: &mut Value = expected.get_mut(parent).unwrap();
                parent["entries"] = json!(parent["entries"].as_u64().unwrap() - 1);
                continue;
            }
            // How a directory is stored is not what a tree shows.
            entry.as_object_mut().unwrap().remove("hamt");
            expected.insert(path, entry);
        }
        let mut found = BTreeMap::new();
        let mut open = vec![(String::new(), tree.resolve(imported.root.to_string().as_bytes()).await.unwrap())];
        while let Some((path, entry)) = open.pop() {
            let mut shown = show(&tree, &path, &entry).await;
            if entry.attr.kind == FileKind::Directory {
                let mut count = 0;
                let mut cursor = 0;
                loop {
                    let listed = tree.list(&entry.location, cursor, 7).await.unwrap();
                    let Some(last) = listed.last() else { break };
                    cursor = last.cursor;
                    count += listed.len();
                    for (listed, attr) in listed.iter().zip(tree.attrs(&listed).await) {
                        let path = format!("{path}/{}", std::str::from_utf8(&listed.name).unwrap());
                        match attr {
                            Ok(attr) => open.push((path, Entry { location: listed.location.clone(), attr })),
                            Err(error) => {
                                assert!(error.to_string().contains(&listed.location.cid.to_string()), "{error}");
                                let entry = json!({ "path": path, "cid": listed.location.cid, "error": "" });
                                found.insert(path, entry);
                            }
                        }
                    }
                }
                shown["entries"] = json!(count);
            }
            found.insert(path, shown);
        }
        for entry in expected.values_mut() {
            // A mode that is not stored shows as the default of its kind, and so does an absent time.
            let default = match entry["type"].as_str() {
                Some("directory") => "0555",
                Some("symlink") => "0777",
                _ => "0444",
            };
            let is_missing = entry.get("error").is_some();
            let entry = entry.as_object_mut().unwrap();
            if is_missing {
                // A leaf that is not here is listed by its link alone; whether that is an error shows when it is read.
                entry.insert("error".into(), json!(""));
                continue;
            }
            let mode = entry.get("mode").and_then(Value::as_str).unwrap_or(default);
            let mode = u32::from_str_radix(mode, 8).unwrap();
            entry.insert("mode".into(), json!(mode));
            let seconds = entry.get("mtime").map_or(json!(0), |mtime| mtime["secs"].clone());
            let nanoseconds = entry.get("mtime").and_then(|mtime| mtime.get("nsecs")).cloned().unwrap_or(json!(0));
            entry.insert("mtime".into(), json!({ "secs": seconds, "nsecs": nanoseconds }));
        }
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{name}");
        for (path, expected) in &expected {
            assert_eq!(&found[path], expected, "{name}{path}");
        }
    }
}

/// An entry as the listings have it, its content read in pieces.
async fn show(tree: &Tree, path: &str, entry: &Entry) -> Value {
    let cid = entry.location.cid.to_string();
    let mtime = json!({ "secs": entry.attr.mtime.seconds, "nsecs": entry.attr.mtime.nanoseconds });
    let mut shown = json!({ "path": path, "cid": cid, "mode": entry.attr.permissions, "mtime": mtime });
    match entry.attr.kind {
        FileKind::Directory => shown["type"] = json!("directory"),
        FileKind::Symlink => {
            let target = tree.read_link(&entry.location).await.unwrap();
            assert_eq!(target.len() as u64, entry.attr.size);
            shown["type"] = json!("symlink");
            shown["target"] = json!(std::str::from_utf8(&target).unwrap());
        }
        FileKind::File => {
            let (mut hash, mut offset) = (Sha256::new(), 0);
            loop {
                let piece = match tree.read(&entry.location, offset, 65_537, Priority::Demand).await {
                    Ok(piece) => piece,
                    Err(error) => {
                        assert!(error.to_string().contains(&cid), "{error}");
                        return json!({ "path": path, "cid": cid, "error": "" });
                    }
                };
                if piece.is_empty() {
                    break;
                }
                offset += piece.len() as u64;
                hash.update(&piece);
            }
            assert_eq!(offset, entry.attr.size, "{path}");
            shown["type"] = json!("file");
            shown["size"] = json!(offset);
            shown["sha256"] = json!(hex(hash.finalize()));
        }
    }
    shown
}

#[tokio::test]
async fn kubo_counts_exports_and_lists_the_same_dags_the_same_way() {
    let kubo: Value = serde_json::from_slice(&fs::read(vectors().join("kubo_dag.json")).unwrap()).unwrap();
    for (name, kubo) in kubo.as_object().unwrap() {
        let Imported { fetch, root, _dir, .. } = import(name).await;
        let sha256 = |bytes: &[u8]| json!(hex(Sha256::digest(bytes)));

        let stat = dag_stat(&fetch, std::slice::from_ref(&root), |_| ()).await.unwrap();
        assert_eq!((json!(stat.unique_blocks), json!(stat.total_size)), (kubo["blocks"].clone(), kubo["size"].clone()));
        assert_eq!((stat.roots[0].blocks, stat.roots[0].size), (stat.unique_blocks, stat.total_size));
        let both = dag_stat(&fetch, &[root.clone(), root.clone()], |_| ()).await.unwrap();
        assert_eq!((both.unique_blocks, both.shared_size), (stat.unique_blocks, stat.total_size));
        assert!((both.ratio() - 2.0).abs() < f32::EPSILON);

        let mut exported = Vec::new();
        let count = car::export(&fetch, &root, Missing::Fail, &mut exported, |_| ()).await.unwrap();
        assert_eq!(sha256(&exported), kubo["export_sha256"], "{name}: dag export");
        assert_eq!((count.blocks, count.bytes), (stat.unique_blocks, stat.total_size));

        for unique in [false, true] {
            let mut refs = Refs::new(&fetch).max_depth(None);
            if unique {
                refs = refs.unique();
            }
            refs.start(&root);
            let mut text = Vec::new();
            while let Some(edge) = refs.next().await.unwrap() {
                if !unique {
                    text.extend(format!("{} ", edge.from).bytes());
                }
                text.extend(edge.to.to_string().bytes());
                if !unique {
                    text.push(b' ');
                    text.extend(edge.name);
                }
                text.push(b'\n');
            }
            let field = if unique { "unique_refs_sha256" } else { "refs_sha256" };
            assert_eq!(sha256(&text), kubo[field], "{name}: refs");
        }

        let block = fetch.get(&root, Priority::Demand).await.unwrap();
        let node = Node::decode(root.codec(), block.data()).unwrap();
        assert_eq!(sha256(&node.encode(codec::DAG_JSON).unwrap()), kubo["dag_json_sha256"], "{name}: dag get");
    }
}

#[tokio::test]
async fn an_export_is_imported_to_the_same_blocks() {
    for name in names() {
        let from = import(&name).await;
        let mut exported = Vec::new();
        let result = car::export(&from.fetch, &from.root, Missing::Fail, &mut exported, |_| ()).await;
        if from.listing["errors"] != 0 {
            let error = result.unwrap_err();
            assert!(
                error.to_string().contains("bafkreiac2j5kmcd4mak6kowdzkhdssprvhqapquavn4atun5j3lqdj6sge"),
                "{error}"
            );
            exported.clear();
            let count = car::export(&from.fetch, &from.root, Missing::LeaveOut, &mut exported, |_| ()).await.unwrap();
            assert_eq!(count.blocks, 2);
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let fetch = Fetch::new(Store::open(dir.path(), &StoreConfig::default()).unwrap());
        let mut import = Import::new(&fetch);
        import.read(&exported[..], |_| ()).unwrap();
        import.finish(true).await.unwrap();
        let mut walk = Walk::new(&from.fetch, Reach::Local, vec![from.root.clone()]);
        while let Some(visit) = walk.next().await.unwrap() {
            let there = fetch.local(visit.cid()).unwrap().unwrap();
            let here = match visit {
                Visit::Node(block) => block,
                Visit::Leaf(cid) => walk.fetch(&cid).await.unwrap(),
            };
            assert_eq!(here, there);
        }
    }
}

#[tokio::test]
async fn what_is_missing_of_a_dag_is_named_and_keeps_it_from_being_pinned() {
    let imported = import("partial_missing_block").await;
    let absent = "bafkreiac2j5kmcd4mak6kowdzkhdssprvhqapquavn4atun5j3lqdj6sge";
    let mut missing = Vec::new();
    pin::check(&imported.fetch, &imported.root, |cid, error| missing.push((cid.to_string(), error.to_string())))
        .await
        .unwrap();
    assert_eq!(missing.len(), 1);
    assert_eq!(missing[0].0, absent);
    assert!(missing[0].1.contains(absent), "{missing:?}");
    let error =
        pin::pin(&imported.fetch, &imported.root, cidfs::store::PinKind::Recursive, "", |_| ()).await.unwrap_err();
    assert!(error.to_string().contains(absent), "{error}");
    assert_eq!(imported.fetch.store().pins().unwrap(), []);
    let direct =
        pin::pin(&imported.fetch, &imported.root, cidfs::store::PinKind::Direct, "part", |_| ()).await.unwrap();
    assert_eq!(imported.fetch.store().pins().unwrap(), [direct]);
}

#[tokio::test]
async fn an_import_that_is_cut_keeps_the_blocks_before_and_pins_nothing() {
    let bytes = read("dir_symlinks_v1");
    let listing = listing("dir_symlinks_v1");
    for len in [0, 50, 101, 500, 1500, bytes.len() - 1] {
        let dir = tempfile::tempdir().unwrap();
        let fetch = Fetch::new(Store::open(dir.path(), &StoreConfig::default()).unwrap());
        let mut import = Import::new(&fetch);
        let mut blocks = 0;
        let error = import.read(&bytes[..len], |count| blocks = count.blocks).unwrap_err();
        assert!(error.to_string().contains(if blocks == 0 { "at the beginning" } else { "after block" }), "{error}");
        drop(import);
        assert_eq!(fetch.store().pins().unwrap(), []);
        let mut whole = CarReader::new(&bytes[..]).unwrap();
        for _ in 0..blocks {
            assert!(fetch.store().has(whole.next_block().unwrap().unwrap().cid()));
        }
        assert_eq!(
            fetch.store().has(&root(&listing)),
            blocks > 0 && {
                let mut first = CarReader::new(&bytes[..]).unwrap();
                (0..blocks).any(|_| first.next_block().unwrap().unwrap().cid() == &root(&listing))
            }
        );
    }
}

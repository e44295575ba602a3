//! What listing from afar promises: directories alone are fetched, what must be read of children in one batch, and once.

#[path = "mounts/fixture.rs"]
mod fixture;
#[path = "fetch/sources.rs"]
mod sources;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cidfs::block::Block;
use cidfs::fetch::Priority;
use cidfs::fetch::source::SourceError;
use cidfs::tree::{FileKind, Listed, Location, Tree};
use fixture::{Fixture, Link};
use sources::{Fake, Local};

const LONG: Duration = Duration::from_secs(30);

/// A source that has what `fixture` has, each after `delay`, and counts how many it is asked for at once.
fn all_of(fixture: &Fixture, delay: Duration) -> (Fake, Arc<(AtomicUsize, AtomicUsize)>) {
    let store = fixture.store.clone();
    let at_once = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let count = at_once.clone();
    let source = Fake::new("far", move |request| {
        let block: Option<Block> = store.get(&request.cid).unwrap();
        let count = count.clone();
        async move {
            count.1.fetch_max(count.0.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(delay).await;
            count.0.fetch_sub(1, Ordering::SeqCst);
            block.ok_or_else(|| SourceError::NotThere("has it not".into()))
        }
    });
    (source, at_once)
}

async fn list(tree: &Tree, root: &Link) -> Vec<Listed> {
    let directory = Location::new(root.cid.clone());
    let mut listed: Vec<Listed> = Vec::new();
    loop {
        let cursor = listed.last().map_or(0, |entry| entry.cursor);
        let page = tree.list(&directory, cursor, 200).await.unwrap();
        if page.is_empty() {
            return listed;
        }
        listed.extend(page);
    }
}

#[tokio::test]
async fn listing_raw_leaves_from_afar_fetches_directories_only() {
    let fixture = Fixture::new();
    let files: Vec<(String, Link)> =
        (0..500_u32).map(|n| (format!("{n}.jpg"), fixture.raw(&n.to_le_bytes().repeat(10)))).collect();
    let plain: Vec<(&str, &Link)> = files.iter().map(|(name, link)| (name.as_str(), link)).collect();
    let sharded: Vec<(&[u8], &Link)> = files.iter().map(|(name, link)| (name.as_bytes(), link)).collect();
    let (plain, sharded) = (fixture.directory(&plain), fixture.hamt(16, &sharded));
    for directory in [plain, sharded] {
        let (source, _) = all_of(&fixture, Duration::ZERO);
        let (local, source) = Local::new(LONG).with(source);
        let tree = Tree::new(local.fetch.clone());
        let listed = list(&tree, &directory).await;
        assert_eq!(listed.len(), 500);
        for attr in tree.attrs(&listed).await {
            let attr = attr.unwrap();
            assert_eq!((attr.kind, attr.size), (FileKind::File, 40));
        }
        let requests = source.requests.lock().unwrap();
        assert!(requests.iter().all(|request| request.cid.codec() == 0x70), "only directories were asked for");
        assert!(requests.iter().all(|request| request.session.as_ref() == Some(&directory.cid)), "as the root's");
    }
}

#[tokio::test]
async fn children_that_must_be_read_come_in_one_batch_and_once() {
    let fixture = Fixture::new();
    let files: Vec<(String, Link)> =
        (0..100_u32).map(|n| (format!("{n}"), fixture.file(&n.to_le_bytes(), &[]))).collect();
    let entries: Vec<(&str, &Link)> = files.iter().map(|(name, link)| (name.as_str(), link)).collect();
    let directory = fixture.directory(&entries);
    let (source, at_once) = all_of(&fixture, Duration::from_millis(200));
    let (local, source) = Local::new(LONG).with(source);
    let tree = Tree::new(local.fetch.clone());
    let listed = list(&tree, &directory).await;
    assert!(tree.attrs(&listed).await.into_iter().all(|attr| attr.unwrap().size == 4));
    assert_eq!(source.asked(), 101);
    assert_eq!(at_once.1.load(Ordering::SeqCst), 100, "all together");
    // Another tree, with nothing in its caches, learns it from the database.
    let again = Tree::new(local.fetch.clone());
    let listed = list(&again, &directory).await;
    assert!(again.attrs(&listed).await.into_iter().all(|attr| attr.unwrap().size == 4));
    assert_eq!(source.asked(), 101);
}

#[tokio::test]
async fn shards_of_a_large_directory_are_fetched_ahead_of_its_listing() {
    let fixture = Fixture::new();
    let file = fixture.raw(b"x");
    let names: Vec<String> = (0..2000).map(|n| format!("{n:05}")).collect();
    let entries: Vec<(&[u8], &Link)> = names.iter().map(|name| (name.as_bytes(), &file)).collect();
    let directory = fixture.hamt(256, &entries);
    let (source, at_once) = all_of(&fixture, Duration::from_millis(20));
    let (local, _) = Local::new(LONG).with(source);
    let tree = Tree::new(local.fetch.clone());
    assert_eq!(list(&tree, &directory).await.len(), 2000);
    assert!(at_once.1.load(Ordering::SeqCst) >= 16, "{at_once:?}");
}

#[tokio::test]
async fn a_file_is_read_from_afar_many_leaves_at_a_time() {
    let fixture = Fixture::new();
    let data = fixture::noise(64 * 1000, 7);
    let file = fixture.chunked(&data, 1000, 64);
    let (source, at_once) = all_of(&fixture, Duration::from_millis(20));
    let (local, _) = Local::new(LONG).with(source);
    let tree = Tree::new(local.fetch.clone());
    let read = tree.read(&Location::new(file.cid.clone()), 0, data.len(), Priority::Demand).await.unwrap();
    assert!(read == data);
    assert!(at_once.1.load(Ordering::SeqCst) >= 16, "{at_once:?}");
}

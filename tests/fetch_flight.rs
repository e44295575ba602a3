//! What a fetch promises: once for all who wait, from whoever is first, in time or with an error that says what was tried.

#[path = "fetch/sources.rs"]
mod sources;

use std::collections::HashSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cidfs::block::{Block, Cid};
use cidfs::config::{FetchConfig, StoreConfig};
use cidfs::dag::car::CarReader;
use cidfs::fetch::source::{Source, SourceError};
use cidfs::fetch::{Fetch, FetchError, Priority};
use cidfs::limits::{FETCH_PATIENCE, MAX_FETCHES};
use futures::FutureExt;
use futures::future::join_all;
use sources::{Fake, Local, leaf, sized, until};

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_secs(1);

fn tried(error: &FetchError) -> &str {
    match error {
        FetchError::NotFound { tried, .. } => tried,
        FetchError::Store { .. } => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_block_is_fetched_once_for_all_who_wait_and_kept_for_those_who_will() {
    let block = leaf(1);
    let (local, source) = Local::new(LONG).with(Fake::having("far", [&block], Duration::from_millis(50)));
    let all = join_all((0..50).map(|_| local.fetch.get(block.cid(), Priority::Demand))).await;
    assert!(all.into_iter().all(|got| got.unwrap() == block));
    assert_eq!(source.asked(), 1);
    assert_eq!(local.fetch.stat().joined, 49);
    // It is found from now on at the first poll, before and after it is on the disk.
    assert_eq!(local.fetch.get(block.cid(), Priority::Demand).now_or_never().unwrap().unwrap(), block);
    local.fetch.settle().await;
    assert!(local.store.has(block.cid()));
    assert_eq!(local.store.get(block.cid()).unwrap().unwrap(), block);
    assert_eq!(source.asked(), 1);
    let brought = local.fetch.stat().brought;
    assert_eq!(brought, [("far".to_owned(), 1, 100)]);
}

#[test]
fn a_miss_may_be_polled_first_on_a_thread_without_a_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let block = leaf(1);
    let (local, _) = {
        let _runtime = runtime.enter();
        Local::new(LONG).with(Fake::having("far", [&block], Duration::from_millis(20)))
    };
    local.store.put(&leaf(2)).unwrap();
    assert!(local.fetch.get(leaf(2).cid(), Priority::Demand).now_or_never().unwrap().is_ok());
    let fetch = local.fetch.clone();
    let cid = block.cid().clone();
    let mut get = Box::pin(async move { fetch.get(&cid, Priority::Demand).await });
    assert!((&mut get).now_or_never().is_none());
    assert_eq!(runtime.block_on(get).unwrap(), block);
}

#[tokio::test]
async fn the_first_source_wins_and_the_others_stop() {
    let block = leaf(1);
    let (local, slow) = Local::new(LONG).with(Fake::silent("slow"));
    let quick = local.add(Fake::having("quick", [&block], Duration::from_millis(10)));
    assert_eq!(local.fetch.get(block.cid(), Priority::Demand).await.unwrap(), block);
    until("the loser is dropped", || slow.dropped() == 1).await;
    assert_eq!((slow.asked(), quick.asked(), quick.dropped()), (1, 1, 0));
}

#[tokio::test]
async fn peers_have_a_head_start_which_silence_and_failure_end() {
    let blocks = [leaf(1), leaf(2), leaf(3), leaf(4)];
    let (local, peers) = Local::new(LONG).with(Fake::new("peers", |request| async move {
        match request.cid {
            cid if cid == *leaf(1).cid() => Ok(leaf(1)),
            cid if cid == *leaf(2).cid() => std::future::pending().await,
            cid if cid == *leaf(3).cid() => Err(SourceError::NotThere("asked 2 peers".into())),
            _ => {
                // A block that is arriving keeps the others out.
                for _ in 0..24 {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    request.progress(10);
                }
                Ok(leaf(4))
            }
        }
    }));
    let head_start = Duration::from_secs(2);
    let gateways = local.add(Fake::having("gateways", &blocks, Duration::ZERO).head_start(head_start));
    let get = async |block: &Block| {
        let begin = Instant::now();
        assert_eq!(local.fetch.get(block.cid(), Priority::Demand).await.unwrap(), *block);
        begin.elapsed()
    };
    get(&blocks[0]).await;
    assert_eq!((peers.asked(), gateways.asked()), (1, 0), "peers were quick");
    let took = get(&blocks[1]).await;
    assert!(took >= head_start, "{took:?}");
    assert_eq!((peers.asked(), gateways.asked()), (2, 1), "peers were silent");
    let took = get(&blocks[2]).await;
    assert!(took < head_start, "{took:?}: peers had given up");
    get(&blocks[3]).await;
    assert_eq!((peers.asked(), gateways.asked()), (4, 2), "peers were sending");
}

#[tokio::test]
async fn who_brought_the_last_block_of_a_root_has_no_handicap() {
    let root = leaf(0);
    let blocks = [leaf(1), leaf(2)];
    let (local, _) = Local::new(LONG).with(Fake::silent("peers"));
    let head_start = Duration::from_secs(2);
    local.add(Fake::having("gateways", &blocks, Duration::ZERO).head_start(head_start));
    let session = local.fetch.session(root.cid());
    let begin = Instant::now();
    session.get(blocks[0].cid(), Priority::Demand).await.unwrap();
    assert!(begin.elapsed() >= head_start);
    let begin = Instant::now();
    session.get(blocks[1].cid(), Priority::Demand).await.unwrap();
    assert!(begin.elapsed() < head_start, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_reader_waits_for_its_timeout_after_the_last_progress_and_learns_what_was_tried() {
    let cid = leaf(1).cid().clone();
    let (local, silent) = Local::new(SHORT).with(Fake::new("peers", |request| {
        request.note("12D3KooW", "asked, no answer");
        std::future::pending()
    }));
    let begin = Instant::now();
    let error = local.fetch.get(&cid, Priority::Demand).await.unwrap_err();
    let took = begin.elapsed();
    assert!((SHORT..LONG).contains(&took), "{took:?}");
    let text = error.to_string();
    assert!(text.contains(&cid.to_string()) && text.contains("12D3KooW: asked, no answer"), "{text}");
    until("nobody asks any more", || silent.dropped() == 1).await;
}

#[tokio::test]
async fn what_arrives_slowly_but_steadily_is_waited_for() {
    let (local, _) = Local::new(SHORT).with(Fake::new("slow", |request| async move {
        for _ in 0..8 {
            tokio::time::sleep(SHORT / 2).await;
            request.progress(1);
        }
        Ok(leaf(1))
    }));
    let begin = Instant::now();
    local.fetch.get(leaf(1).cid(), Priority::Demand).await.unwrap();
    assert!(begin.elapsed() > SHORT * 3);
}

#[tokio::test]
async fn blocks_that_arrive_for_the_session_keep_the_others_waiting() {
    let (local, source) = Local::new(SHORT).with(Fake::new("peers", |_| async {
        tokio::time::sleep(SHORT * 3).await;
        Ok(leaf(1))
    }));
    let beat = source.clone();
    let beating = tokio::spawn(async move {
        loop {
            *beat.progress.lock().unwrap() = Some(Instant::now());
            tokio::time::sleep(SHORT / 4).await;
        }
    });
    local.fetch.get(leaf(1).cid(), Priority::Demand).await.unwrap();
    beating.abort();
}

#[tokio::test]
async fn no_reader_waits_for_ever_on_a_trickle() {
    let (local, _) = Local::new(SHORT).with(Fake::new("trickle", |request| async move {
        loop {
            tokio::time::sleep(SHORT / 8).await;
            request.progress(1);
        }
    }));
    let begin = Instant::now();
    let error = local.fetch.get(leaf(1).cid(), Priority::Demand).await.unwrap_err();
    let (took, limit) = (begin.elapsed(), SHORT * FETCH_PATIENCE);
    assert!((limit..limit * 2).contains(&took), "{took:?}");
    assert!(tried(&error).contains("did not come whole"), "{error}");
}

#[tokio::test]
async fn a_missing_block_makes_no_storm_until_somebody_new_may_have_it() {
    let block = leaf(1);
    let (local, failing) = Local::new(LONG).with(Fake::failing("gateways"));
    let get = || local.fetch.get(block.cid(), Priority::Demand);
    let error = get().await.unwrap_err();
    assert!(tried(&error).contains("gateways: broke off"), "{error}");
    for _ in 0..100 {
        let again = get().await.unwrap_err();
        assert!(tried(&again).contains("gateways: broke off"), "{again}");
    }
    assert_eq!((failing.asked(), local.fetch.stat().refused), (1, 100));
    local.fetch.forget_failures();
    get().await.unwrap_err();
    assert_eq!(failing.asked(), 2);
    local.add(Fake::having("new", [&block], Duration::ZERO));
    assert_eq!(get().await.unwrap(), block);
}

#[tokio::test]
async fn a_new_source_is_asked_for_what_is_already_waited_for() {
    let block = leaf(1);
    let (local, _) = Local::new(LONG).with(Fake::silent("peers"));
    let (fetch, cid) = (local.fetch.clone(), block.cid().clone());
    let waiting = tokio::spawn(async move { fetch.get(&cid, Priority::Demand).await });
    until("it is asked for", || local.fetch.stat().in_flight.0 == 1).await;
    local.add(Fake::having("new", [&block], Duration::ZERO));
    assert_eq!(waiting.await.unwrap().unwrap(), block);
}

#[tokio::test]
async fn a_reader_that_goes_away_cancels_what_nobody_else_wants() {
    let (local, source) = Local::new(LONG).with(Fake::silent("peers"));
    let wait = |cid: &Cid| {
        let (fetch, cid) = (local.fetch.clone(), cid.clone());
        tokio::spawn(async move { fetch.get(&cid, Priority::Demand).await.map(drop) })
    };
    let (one, other) = (wait(leaf(1).cid()), wait(leaf(1).cid()));
    until("both wait", || local.fetch.stat().joined == 1 && source.asked() == 1).await;
    one.abort();
    assert!(one.await.unwrap_err().is_cancelled());
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(source.dropped(), 0, "the other one still wants it");
    other.abort();
    until("nobody wants it", || source.dropped() == 1).await;
    assert_eq!(local.fetch.stat().dropped, 1);
    // Dropped is not failed: who asks now begins anew.
    let again = wait(leaf(1).cid());
    until("it is asked for again", || source.asked() == 2).await;
    again.abort();
}

#[tokio::test]
async fn a_demand_that_joins_a_background_fetch_raises_it() {
    let (local, _) = Local::new(LONG).with(Fake::new("peers", |mut request| async move {
        assert_eq!(request.priority(), Priority::Background);
        assert_eq!(request.raised().await, Priority::Demand);
        Ok(leaf(1))
    }));
    let (fetch, cid) = (local.fetch.clone(), leaf(1).cid().clone());
    let background = tokio::spawn(async move { fetch.get(&cid, Priority::Background).await });
    until("it is under way", || local.fetch.stat().in_flight.0 == 1).await;
    local.fetch.get(leaf(1).cid(), Priority::Demand).await.unwrap();
    background.await.unwrap().unwrap();
    assert_eq!(local.fetch.stat().begun, 1);
}

#[tokio::test]
async fn demand_overtakes_whatever_waits_in_the_background() {
    let wanted = leaf(u64::MAX);
    let answer = wanted.clone();
    let running = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let count = running.clone();
    let (local, source) = Local::new(LONG).with(Fake::new("peers", move |request| {
        let (answer, count) = (answer.clone(), count.clone());
        async move {
            if request.cid == *answer.cid() {
                return Ok(answer);
            }
            count.1.fetch_max(count.0.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::future::pending().await
        }
    }));
    let background = (0..2 * MAX_FETCHES as u64).map(|number| {
        let (fetch, cid) = (local.fetch.clone(), leaf(number).cid().clone());
        tokio::spawn(async move { fetch.get(&cid, Priority::Background).await.map(drop) })
    });
    let background: Vec<_> = background.collect();
    until("the places are taken", || local.fetch.stat().in_flight.1 >= MAX_FETCHES as u64).await;
    assert!(running.1.load(Ordering::SeqCst) < MAX_FETCHES);
    let get = local.fetch.get(wanted.cid(), Priority::Demand);
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), get).await.unwrap().unwrap(), wanted);
    background.iter().for_each(tokio::task::JoinHandle::abort);
    join_all(background).await;
    until("all are gone", || local.fetch.stat().in_flight == (0, 0)).await;
    assert!(source.asked() <= MAX_FETCHES + 1, "what was cancelled while it waited was never asked for");
}

#[tokio::test]
async fn another_block_than_the_one_asked_for_is_no_answer() {
    let (local, _) = Local::new(LONG).with(Fake::new("liar", |_| async { Ok(leaf(2)) }));
    let error = local.fetch.get(leaf(1).cid(), Priority::Demand).await.unwrap_err();
    assert!(tried(&error).contains("liar brought"), "{error}");
    local.add(Fake::having("honest", [&leaf(1)], Duration::ZERO));
    assert_eq!(local.fetch.get(leaf(1).cid(), Priority::Demand).await.unwrap(), leaf(1));
}

#[tokio::test]
async fn a_source_that_panics_is_an_error_and_no_hang() {
    let (local, _) = Local::new(LONG).with(Fake::new("broken", |_| async { panic!("a bug in a source") }));
    let error = local.fetch.get(leaf(1).cid(), Priority::Demand).await.unwrap_err();
    assert!(tried(&error).contains("broke off"), "{error}");
}

#[tokio::test]
async fn a_block_that_comes_in_by_another_way_ends_the_wait() {
    let (local, source) = Local::new(LONG).with(Fake::silent("peers"));
    let (fetch, cid) = (local.fetch.clone(), leaf(1).cid().clone());
    let waiting = tokio::spawn(async move { fetch.get(&cid, Priority::Demand).await });
    until("it is asked for", || source.asked() == 1).await;
    local.store.put(&leaf(1)).unwrap();
    local.fetch.arrived(&leaf(1));
    assert_eq!(waiting.await.unwrap().unwrap(), leaf(1));
    until("nobody is asked any more", || source.dropped() == 1).await;
}

#[tokio::test]
async fn blocks_of_one_root_lie_together_whatever_else_is_fetched() {
    let blocks: Vec<Block> = (0..400).map(|number| sized(number, 20_000)).collect();
    let config = StoreConfig { segment_bytes: 1 << 20, ..StoreConfig::default() };
    let far = Fake::having("far", &blocks, Duration::from_millis(1));
    let (local, _) = Local::with_store(LONG, &config).with(far);
    let sessions = [leaf(1000), leaf(1001)].map(|root| local.fetch.session(root.cid()));
    join_all(blocks.iter().enumerate().map(|(at, block)| sessions[at % 2].get(block.cid(), Priority::Background)))
        .await;
    local.fetch.settle().await;
    local.store.finish().unwrap();
    let owner = |cid: &Cid| blocks.iter().position(|block| block.cid() == cid).unwrap() % 2;
    let mut sealed = 0;
    let is_sealed =
        || segments(&local).iter().filter(|path| CarReader::new(File::open(path).unwrap()).is_ok()).count() >= 6;
    until("what is full is sealed", is_sealed).await;
    for path in segments(&local) {
        let Ok(mut car) = CarReader::new(File::open(path).unwrap()) else { continue };
        let mut owners = HashSet::new();
        while let Some(section) = car.next_section().unwrap() {
            owners.insert(owner(&section.cid));
        }
        assert_eq!(owners.len(), 1, "one segment has blocks of both roots");
        sealed += 1;
    }
    assert!(sealed >= 6, "{sealed} segments");
}

fn segments(local: &Local) -> Vec<PathBuf> {
    let files =
        std::fs::read_dir(local.directory.path().join("store/segments")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "car")).collect()
}

#[tokio::test]
async fn what_the_caller_keeps_itself_is_not_kept_twice_or_at_all() {
    let block = leaf(1);
    let (local, _) = Local::new(LONG).with(Fake::having("far", [&block], Duration::ZERO));
    assert_eq!(local.fetch.unkept().get(block.cid(), Priority::Background).await.unwrap(), block);
    local.fetch.settle().await;
    assert!(!local.store.has(block.cid()));
}

#[tokio::test]
async fn why_tells_what_was_asked_of_whom_and_what_they_said() {
    let root = leaf(0);
    let (local, _) = Local::new(LONG).with(Fake::new("gateways", |request| async move {
        request.note("http://a", "404");
        request.note("http://b", "100 bytes in 1 ms");
        request.brought_by("http://b");
        if request.cid == *leaf(2).cid() { Err(SourceError::NotThere("2 asked".into())) } else { Ok(leaf(1)) }
    }));
    let session = local.fetch.session(root.cid());
    session.get(leaf(1).cid(), Priority::ReadAhead).await.unwrap();
    session.get(leaf(2).cid(), Priority::Demand).await.unwrap_err();
    let why = local.fetch.why(leaf(1).cid());
    assert_eq!(why.len(), 1);
    let report = &why[0];
    assert_eq!((report.state.as_str(), report.priority.as_str()), ("fetched", "read-ahead"));
    assert_eq!(report.from.as_deref(), Some("gateways http://b"));
    assert_eq!(report.root.as_deref(), Some(root.cid().to_string().as_str()));
    let notes: Vec<String> = report.notes.iter().map(|note| format!("{}: {}", note.whom, note.said)).collect();
    assert_eq!(notes, ["gateways http://a: 404", "gateways http://b: 100 bytes in 1 ms"]);
    let failed = &local.fetch.why(leaf(2).cid())[0];
    assert_eq!(failed.state, "failed");
    assert!(failed.error.as_ref().unwrap().contains("2 asked"));
    assert_eq!(local.fetch.why(root.cid()).len(), 2, "both were for this root");
}

#[tokio::test]
async fn a_disk_that_takes_nothing_does_not_fail_the_read() {
    let directory = tempfile::tempdir().unwrap();
    let config = StoreConfig { disk_bytes: 1, ..StoreConfig::default() };
    let store = cidfs::store::Store::open(directory.path(), &config).unwrap();
    let fetch_config = FetchConfig { timeout: LONG, ..FetchConfig::default() };
    let fetch = Fetch::networked(store.clone(), &fetch_config, tokio::runtime::Handle::current()).unwrap();
    let blocks: Vec<Block> = (0..20).map(|number| sized(number, 100_000)).collect();
    let source = Arc::new(Fake::having("far", &blocks, Duration::ZERO));
    let added: Arc<dyn Source> = source.clone();
    fetch.add_source(&added);
    for block in &blocks {
        assert_eq!(fetch.get(block.cid(), Priority::Demand).await.unwrap(), *block);
    }
    fetch.settle().await;
    assert_eq!(store.stat().unwrap().blocks, 0, "the disk took nothing");
    // What was read is in RAM at least.
    assert_eq!(fetch.get(blocks[19].cid(), Priority::Demand).now_or_never().unwrap().unwrap(), blocks[19]);
    assert_eq!(source.asked(), 20);
}

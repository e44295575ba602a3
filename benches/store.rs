//! How fast the store writes, reads and opens: `cargo bench --bench store [-- DIRECTORY [OPEN_BLOCKS]]`.
//!
//! Writes: blocks of 1 MiB and of 100 KiB into one writer, then the flush. Reads: 100 KiB blocks in random order with the
//! page cache dropped (as root), by 1 and 4 threads, beside the same reads of plain files in the same directory. Opening:
//! a store of many small blocks. Each figure is the median of five.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use cidfs::block::{Block, Cid, HashFunction, codec};
use cidfs::config::StoreConfig;
use cidfs::store::Store;

const ROUNDS: usize = 5;
/// Bytes that are written and read.
const TOTAL: usize = 1 << 30;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let work = arguments.first().map_or_else(std::env::temp_dir, Into::into);
    let dir = work.join("cidfs-store-bench");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a directory to work in");
    for len in [1 << 20, 100 << 10] {
        writes(&dir, len);
    }
    reads(&dir, 100 << 10);
    opening(&dir, arguments.get(1).map_or(1_000_000, |blocks| blocks.parse().expect("a number of blocks")));
    fs::remove_dir_all(&dir).expect("the directory goes");
}

fn config() -> StoreConfig {
    StoreConfig { ram_bytes: 0, free_ratio: 0.0, ..StoreConfig::default() }
}

fn blocks(len: usize) -> Vec<Block> {
    let mut state = 7_u64;
    let block = |_| {
        let mut data = Vec::with_capacity(len + 8);
        while data.len() < len {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            data.extend_from_slice(&state.to_le_bytes());
        }
        data.truncate(len);
        Block::new(codec::RAW, HashFunction::Sha2_256, data.into())
    };
    (0..TOTAL / len).map(block).collect()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn writes(dir: &Path, len: usize) {
    let blocks = blocks(len);
    let bytes: usize = blocks.iter().map(|block| block.data().len()).sum();
    let (mut put, mut flushed) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let path = dir.join("written");
        let store = Store::open(&path, &config()).expect("a new store");
        let mut writer = store.writer();
        let begun = Instant::now();
        for block in &blocks {
            writer.put(block).expect("room");
        }
        put.push(bytes as f64 / begun.elapsed().as_secs_f64() / 1e9);
        store.sync().expect("a flush");
        flushed.push(bytes as f64 / begun.elapsed().as_secs_f64() / 1e9);
        drop((writer, store));
        fs::remove_dir_all(&path).expect("the store goes");
    }
    println!("put, {:4} KiB blocks: {:.2} GB/s, with the flush {:.2} GB/s", len >> 10, median(put), median(flushed));
}

fn drop_caches() -> bool {
    nix::unistd::sync();
    let control = fs::OpenOptions::new().write(true).open("/proc/sys/vm/drop_caches");
    control.and_then(|mut file| file.write_all(b"3")).is_ok()
}

fn reads(dir: &Path, len: usize) {
    let (path, files) = (dir.join("read"), dir.join("files"));
    let blocks = blocks(len);
    fs::create_dir_all(&files).expect("a directory");
    {
        let store = Store::open(&path, &config()).expect("a new store");
        let mut writer = store.writer();
        for (number, block) in blocks.iter().enumerate() {
            writer.put(block).expect("room");
            fs::write(files.join(number.to_string()), block.data()).expect("room");
        }
    }
    let mut order: Vec<usize> = (0..blocks.len()).collect();
    order.sort_by_key(|number| number.wrapping_mul(0x9e37_79b9) % 1_000_003);
    let cids: Vec<Cid> = blocks.iter().map(|block| block.cid().clone()).collect();
    drop(blocks);
    for threads in [1, 4] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let mut cold = true;
        for _ in 0..ROUNDS {
            let store = Store::open(&path, &config()).expect("the store");
            cold &= drop_caches();
            ours.push(each(&order, threads, |number| {
                let block = store.get(&cids[number]).expect("a sound disk").expect("it was put");
                assert_eq!(block.data().len(), len);
            }));
            drop(store);
            drop_caches();
            theirs.push(each(&order, threads, |number| {
                assert_eq!(fs::read(files.join(number.to_string())).expect("the file").len(), len);
            }));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        let state = if cold { "cold" } else { "warm, since caches cannot be dropped here" };
        let (kib, ratio) = (len >> 10, ours / theirs);
        println!(
            "random reads of {kib} KiB, {threads} threads, {state}: {ours:.0}/s, plain files {theirs:.0}/s, ratio {ratio:.2}"
        );
    }
    fs::remove_dir_all(&files).expect("the files go");
}

/// Acts a second, of `act` on each of `order`.
fn each(order: &[usize], threads: usize, act: impl Fn(usize) + Sync) -> f64 {
    let next = AtomicUsize::new(0);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(number) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    act(*number);
                }
            });
        }
    });
    order.len() as f64 / begun.elapsed().as_secs_f64()
}

fn opening(dir: &Path, count: u64) {
    let path = dir.join("many");
    let begun = Instant::now();
    {
        let store = Store::open(&path, &config()).expect("a new store");
        let mut writer = store.writer();
        for number in 0..count {
            let data = Bytes::copy_from_slice(&number.to_le_bytes());
            writer.put(&Block::new(codec::RAW, HashFunction::Sha2_256, data)).expect("room");
        }
    }
    let made = begun.elapsed().as_secs_f64();
    let mut seconds = Vec::new();
    let mut each = 0.0;
    for _ in 0..ROUNDS {
        drop_caches();
        let begun = Instant::now();
        let store = Store::open(&path, &config()).expect("the store");
        seconds.push(begun.elapsed().as_secs_f64());
        let stat = store.stat().expect("figures");
        assert_eq!(stat.blocks, count);
        each = stat.index_bytes as f64 / count as f64;
    }
    println!("open {count} blocks: {:.2} s, {each:.1} bytes of RAM a block (made in {made:.0} s)", median(seconds));
}

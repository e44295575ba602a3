//! A trustless gateway on loopback that behaves as a test says: well, or in one of the ways in which gateways do not.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use cidfs::block::{Block, Cid, HashFunction, codec};
use cidfs::dag::car::CarWriter;
use cidfs::dag::links;
use futures::StreamExt;
use futures::stream;

/// How a gateway behaves.
#[derive(Clone, Debug, PartialEq)]
pub enum Manner {
    Honest,
    /// Takes so long to answer, then is honest.
    Slow(Duration),
    /// Sends the first part of each answer and closes.
    Truncates(usize),
    /// Sends the first part of each answer and then nothing more, ever.
    Stalls(usize),
    /// A byte every so often.
    Drips(Duration),
    /// Zeros without an end.
    Endless,
    /// Says that the answer is so long.
    Claims(u64),
    /// To this host.
    Redirects(String),
    /// To another path of its own, where the answer is.
    Moves,
    /// Other bytes of the same length.
    Lies,
    /// This status.
    Fails(u16),
    /// A page for people.
    Page,
    /// No answer at all.
    Silent,
    /// Honest with blocks, and no CARs.
    BlocksOnly,
    /// Honest with blocks; of a CAR the first part, and closes.
    CutsCars(usize),
    /// Honest with blocks; CARs that begin with blocks that nobody asked for.
    ForeignCars,
}

pub struct Gateway {
    pub url: String,
    shared: Arc<Shared>,
    server: std::thread::JoinHandle<()>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

struct Shared {
    blocks: Mutex<HashMap<Cid, Block>>,
    manner: Mutex<Manner>,
    raw: AtomicUsize,
    cars: AtomicUsize,
    sent: AtomicU64,
    asked: Mutex<Vec<Cid>>,
    at_once: Mutex<(usize, usize)>,
}

impl Gateway {
    pub fn start<'a>(blocks: impl IntoIterator<Item = &'a Block>) -> Gateway {
        Gateway::start_at("127.0.0.1:0".parse().unwrap(), blocks)
    }

    pub fn start_at<'a>(address: SocketAddr, blocks: impl IntoIterator<Item = &'a Block>) -> Gateway {
        let shared = Arc::new(Shared {
            blocks: Mutex::new(blocks.into_iter().map(|block| (block.cid().clone(), block.clone())).collect()),
            manner: Mutex::new(Manner::Honest),
            raw: AtomicUsize::new(0),
            cars: AtomicUsize::new(0),
            sent: AtomicU64::new(0),
            asked: Mutex::default(),
            at_once: Mutex::default(),
        });
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new()
            .route("/ipfs/{cid}", get(answer))
            .route("/moved/ipfs/{cid}", get(moved))
            .with_state(shared.clone());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    served = async { axum::serve(listener, router).await } => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Gateway { url, shared, server, stop: Some(stop) }
    }

    pub fn manner(self, manner: Manner) -> Gateway {
        self.set(manner);
        self
    }

    pub fn set(&self, manner: Manner) {
        *self.shared.manner.lock().unwrap() = manner;
    }

    /// Requests for single blocks, and for CARs.
    pub fn requests(&self) -> (usize, usize) {
        (self.shared.raw.load(Ordering::SeqCst), self.shared.cars.load(Ordering::SeqCst))
    }

    /// Bytes of bodies that were handed to the connection.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }

    /// The blocks that were asked for one by one, in order.
    pub fn asked(&self) -> Vec<Cid> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// The most requests that were under way at once.
    pub fn most_at_once(&self) -> usize {
        self.shared.at_once.lock().unwrap().1
    }

    /// Closes the listener and every connection.
    pub fn die(mut self) {
        let _ = self.stop.take().unwrap().send(());
        let server = std::mem::replace(&mut self.server, std::thread::spawn(|| ()));
        server.join().unwrap();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

async fn moved(state: State<Arc<Shared>>, path: Path<String>, query: Query<HashMap<String, String>>) -> Response {
    respond(&state, &path, &query, &Manner::Honest).await
}

async fn answer(state: State<Arc<Shared>>, path: Path<String>, query: Query<HashMap<String, String>>) -> Response {
    let manner = state.manner.lock().unwrap().clone();
    respond(&state, &path, &query, &manner).await
}

/// Counts requests that are under way.
struct Under(Arc<Shared>);

impl Under {
    fn way(shared: &Arc<Shared>) -> Under {
        let mut at_once = shared.at_once.lock().unwrap();
        at_once.0 += 1;
        at_once.1 = at_once.1.max(at_once.0);
        Under(shared.clone())
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        self.0.at_once.lock().unwrap().0 -= 1;
    }
}

async fn respond(shared: &Arc<Shared>, cid: &str, query: &HashMap<String, String>, manner: &Manner) -> Response {
    let _under_way = Under::way(shared);
    let cid: Cid = cid.parse().unwrap();
    let is_car = query.get("format").is_some_and(|format| format == "car");
    if is_car {
        shared.cars.fetch_add(1, Ordering::SeqCst);
    } else {
        shared.raw.fetch_add(1, Ordering::SeqCst);
        shared.asked.lock().unwrap().push(cid.clone());
    }
    match manner {
        Manner::Fails(status) => return StatusCode::from_u16(*status).unwrap().into_response(),
        Manner::Silent => return std::future::pending().await,
        Manner::Slow(delay) => tokio::time::sleep(*delay).await,
        Manner::Redirects(to) => {
            let to = format!("{to}/ipfs/{cid}?format=raw");
            return (StatusCode::FOUND, [(header::LOCATION, to)]).into_response();
        }
        Manner::Moves => {
            let format = if is_car { "car" } else { "raw" };
            let to = format!("/moved/ipfs/{cid}?format={format}");
            return (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, to)]).into_response();
        }
        Manner::Page => return ([(header::CONTENT_TYPE, "text/html")], "<html>a file").into_response(),
        Manner::BlocksOnly if is_car => return StatusCode::BAD_REQUEST.into_response(),
        _ => {}
    }
    let Some(block) = shared.blocks.lock().unwrap().get(&cid).cloned() else {
        return (StatusCode::NOT_FOUND, "no such block").into_response();
    };
    let mut bytes = if is_car { car(shared, &block, *manner == Manner::ForeignCars) } else { block.data().clone() };
    if *manner == Manner::Lies {
        bytes = bytes.iter().map(|byte| byte ^ 1).collect();
    }
    let kind = if is_car { "application/vnd.ipld.car; version=1" } else { "application/vnd.ipld.raw" };
    let mut head = Response::builder().header(header::CONTENT_TYPE, kind);
    if let Manner::Claims(length) = manner {
        head = head.header(header::CONTENT_LENGTH, *length);
    }
    let manner = match manner {
        Manner::CutsCars(len) if is_car => &Manner::Truncates(*len),
        manner => manner,
    };
    head.body(body(shared, bytes, manner)).unwrap()
}

fn body(shared: &Arc<Shared>, bytes: Bytes, manner: &Manner) -> Body {
    let count = shared.clone();
    let sent = move |piece: Bytes| {
        count.sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
        Ok::<_, std::io::Error>(piece)
    };
    let pieces = |bytes: Bytes| {
        let starts: Vec<usize> = (0..bytes.len()).step_by(16_384).collect();
        stream::iter(starts.into_iter().map(move |at| bytes.slice(at..(at + 16_384).min(bytes.len()))))
    };
    match manner {
        Manner::Truncates(len) => {
            // What was sent must have left before the connection is broken.
            let broken = stream::once(async {
                tokio::time::sleep(Duration::from_millis(200)).await;
                Err(std::io::Error::other("cut"))
            });
            Body::from_stream(pieces(bytes.slice(..*len.min(&bytes.len()))).map(sent).chain(broken))
        }
        Manner::Stalls(len) => {
            Body::from_stream(pieces(bytes.slice(..*len.min(&bytes.len()))).map(sent).chain(stream::pending()))
        }
        Manner::Drips(every) => {
            let every = *every;
            let drops = (0..bytes.len()).map(move |at| bytes.slice(at..=at));
            Body::from_stream(stream::iter(drops).map(sent).then(move |piece| async move {
                tokio::time::sleep(every).await;
                piece
            }))
        }
        Manner::Endless | Manner::Claims(_) => {
            Body::from_stream(stream::repeat(Bytes::from_static(&[0; 16_384])).map(sent))
        }
        _ => Body::from_stream(pieces(bytes).map(sent)),
    }
}

/// The DAG below `root` depth first, each block once, as far as it is here.
fn car(shared: &Shared, root: &Block, foreign: bool) -> Bytes {
    let blocks = shared.blocks.lock().unwrap();
    let mut out = Vec::new();
    let mut writer = CarWriter::new(&mut out, std::slice::from_ref(root.cid())).unwrap();
    if foreign {
        let data = Bytes::from([&u64::MAX.to_le_bytes()[..], &[7; 992]].concat());
        let stranger = Block::new(codec::RAW, HashFunction::Sha2_256, data);
        for _ in 0..10_000 {
            writer.write(&stranger).unwrap();
        }
    }
    let mut seen = std::collections::HashSet::new();
    let mut stack = vec![root.cid().clone()];
    while let Some(cid) = stack.pop() {
        if !seen.insert(cid.clone()) {
            continue;
        }
        let Some(block) = blocks.get(&cid) else { break };
        writer.write(block).unwrap();
        let mut below = links(&cid, block.data()).unwrap();
        below.reverse();
        stack.extend(below);
    }
    writer.finish().unwrap();
    out.into()
}

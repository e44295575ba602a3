//! What fetching over HTTP promises: right bytes or an error in time, whatever a gateway does.

#[path = "fetch/gateway.rs"]
mod gateway;
#[path = "fetch/sources.rs"]
mod sources;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use cidfs::block::Block;
use cidfs::fetch::gateways::GatewaySource;
use cidfs::fetch::source::Source;
use cidfs::fetch::{FetchError, Priority};
use cidfs::limits::{FETCH_PATIENCE, GATEWAY_ATTEMPTS, GATEWAY_REQUESTS, MAX_BLOCK_BYTES};
use cidfs::net::caps::Caps;
use cidfs::net::http::Gateways;
use cidfs::net::http::routing::{Provider, Routers};
use futures::StreamExt;
use futures::future::join_all;
use gateway::{Gateway, Manner};
use sources::{Local, leaf, sized};

const LONG: Duration = Duration::from_secs(30);

/// A node that asks these gateways.
fn node(timeout: Duration, gateways: &[&Gateway]) -> (Local, Arc<GatewaySource>) {
    capped(timeout, gateways, Arc::default())
}

fn capped(timeout: Duration, gateways: &[&Gateway], caps: Arc<Caps>) -> (Local, Arc<GatewaySource>) {
    let local = Local::new(timeout);
    let urls: Vec<String> = gateways.iter().map(|gateway| gateway.url.clone()).collect();
    let source = Arc::new(GatewaySource::new(Gateways::new(&urls, caps).unwrap(), Duration::ZERO));
    let added: Arc<dyn Source> = source.clone();
    local.fetch.add_source(&added);
    (local, source)
}

async fn read(local: &Local, block: &Block) -> Result<(), FetchError> {
    let got = local.fetch.get(block.cid(), Priority::Demand).await?;
    assert_eq!(got, *block);
    Ok(())
}

#[tokio::test]
async fn blocks_come_verified_from_a_gateway() {
    let blocks = [leaf(1), sized(2, 1_000_000), sized(3, MAX_BLOCK_BYTES), sized(4, 8)];
    let gateway = Gateway::start(&blocks);
    let (local, source) = node(LONG, &[&gateway]);
    for block in &blocks {
        read(&local, block).await.unwrap();
    }
    assert_eq!(gateway.requests(), (4, 0));
    let health = &source.health()[0];
    assert_eq!((health.blocks, health.errors), (4, 0));
    assert!(health.latency_milliseconds.is_some());
    let why = &local.fetch.why(blocks[0].cid())[0];
    assert_eq!(why.from.as_deref(), Some(format!("gateways {}", gateway.url).as_str()));
}

#[tokio::test]
async fn each_way_of_failing_is_an_error_that_says_so_and_no_wrong_byte() {
    let block = sized(1, 300_000);
    let elsewhere = Gateway::start([&block]);
    for (manner, said) in [
        (Manner::Lies, "do not hash to it"),
        (Manner::Truncates(100_000), "broke off after"),
        (Manner::Truncates(0), "broke off"),
        (Manner::Endless, "more than the 2097152 bytes"),
        (Manner::Claims(1 << 40), "more than the 2097152 bytes"),
        (Manner::Redirects(elsewhere.url.clone()), "redirects to another host"),
        (Manner::Fails(404), "has it not (HTTP 404)"),
        (Manner::Fails(504), "has it not (HTTP 504)"),
        (Manner::Fails(403), "HTTP 403"),
        (Manner::Page, "text/html"),
    ] {
        let gateway = Gateway::start([&block]).manner(manner.clone());
        let (local, _) = node(LONG, &[&gateway]);
        let error = read(&local, &block).await.unwrap_err().to_string();
        assert!(error.contains(said) && error.contains(&gateway.url), "{manner:?}: {error}");
        assert!(error.contains(&block.cid().to_string()), "{error}");
        assert!(!local.store.has(block.cid()));
        let expected = if matches!(manner, Manner::Truncates(_)) { GATEWAY_ATTEMPTS as usize } else { 1 };
        assert_eq!(gateway.requests().0, expected, "{manner:?}");
        // Whatever it wanted to send, no more was taken than a block and what was under way.
        assert!(gateway.sent() < 16 << 20, "{manner:?}: {} bytes", gateway.sent());
    }
    assert_eq!(elsewhere.requests().0, 0, "nobody was asked that is not configured");
}

#[tokio::test]
async fn whatever_one_gateway_does_the_other_has_the_block() {
    let block = sized(1, 300_000);
    let honest = Gateway::start([&block]);
    for manner in [
        Manner::Lies,
        Manner::Truncates(100_000),
        Manner::Stalls(100_000),
        Manner::Stalls(0),
        Manner::Silent,
        Manner::Drips(Duration::from_millis(100)),
        Manner::Endless,
        Manner::Claims(1 << 40),
        Manner::Redirects("http://192.0.2.1".into()),
        Manner::Fails(404),
        Manner::Fails(500),
        Manner::Page,
    ] {
        let bad = Gateway::start([&block]).manner(manner.clone());
        let (local, _) = node(LONG, &[&bad, &honest]);
        let begin = Instant::now();
        read(&local, &block).await.unwrap();
        assert!(begin.elapsed() < LONG, "{manner:?}: {:?}", begin.elapsed());
    }
}

#[tokio::test]
async fn a_redirect_within_the_gateway_is_followed() {
    let block = leaf(1);
    let gateway = Gateway::start([&block]).manner(Manner::Moves);
    let (local, _) = node(LONG, &[&gateway]);
    read(&local, &block).await.unwrap();
}

#[tokio::test]
async fn a_gateway_that_recovers_is_asked_again_in_time() {
    let block = leaf(1);
    let gateway = Gateway::start([&block]).manner(Manner::Fails(500));
    let (local, source) = node(LONG, &[&gateway]);
    let (reading, ()) = tokio::join!(read(&local, &block), async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert!(source.health()[0].aside_milliseconds.is_some(), "it is left alone for a while");
        gateway.set(Manner::Honest);
    });
    reading.unwrap();
    assert!(gateway.requests().0 <= GATEWAY_ATTEMPTS as usize);
}

#[tokio::test]
async fn a_gateway_that_is_down_is_not_stormed() {
    let blocks: Vec<Block> = (0..200).map(leaf).collect();
    let gateway = Gateway::start(&blocks).manner(Manner::Fails(503));
    let (local, _) = node(Duration::from_secs(2), &[&gateway]);
    let results = join_all(blocks.iter().map(|block| read(&local, block))).await;
    assert!(results.iter().all(Result::is_err));
    let asked = gateway.requests().0;
    // One round of what was under way when it was first put aside, and then few.
    assert!(asked <= 8 * GATEWAY_REQUESTS, "{asked} requests");
}

#[tokio::test]
async fn silence_and_drops_end_in_an_error_at_the_deadline() {
    let block = sized(1, 300_000);
    let timeout = Duration::from_secs(1);
    for manner in [Manner::Silent, Manner::Stalls(1000)] {
        let gateway = Gateway::start([&block]).manner(manner.clone());
        let (local, _) = node(timeout, &[&gateway]);
        let begin = Instant::now();
        let error = read(&local, &block).await.unwrap_err().to_string();
        assert!(begin.elapsed() < LONG, "{manner:?}: {:?}", begin.elapsed());
        assert!(error.contains(&gateway.url), "{error}");
    }
    let gateway = Gateway::start([&block]).manner(Manner::Drips(Duration::from_millis(200)));
    let (local, _) = node(timeout, &[&gateway]);
    let begin = Instant::now();
    read(&local, &block).await.unwrap_err();
    assert!(begin.elapsed() < timeout * FETCH_PATIENCE + LONG, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn one_of_two_gateways_dying_costs_no_read() {
    let blocks: Vec<Block> = (0..300).map(|number| sized(number, 20_000)).collect();
    let (one, other) = (Gateway::start(&blocks), Gateway::start(&blocks));
    let (local, source) = node(LONG, &[&one, &other]);
    let reads = join_all(blocks[..200].iter().map(|block| read(&local, block)));
    let (reads, ()) = tokio::join!(reads, async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        one.die();
    });
    reads.into_iter().for_each(Result::unwrap);
    let asked = other.requests().0;
    for block in &blocks[200..] {
        read(&local, block).await.unwrap();
    }
    assert_eq!(other.requests().0, asked + 100);
    assert!(source.health()[1].blocks >= 100);
}

#[tokio::test]
async fn gateways_share_the_work() {
    let blocks: Vec<Block> = (0..200).map(|number| sized(number, 20_000)).collect();
    let slow = || Gateway::start(&blocks).manner(Manner::Slow(Duration::from_millis(20)));
    let (one, other) = (slow(), slow());
    let (local, _) = node(LONG, &[&one, &other]);
    join_all(blocks.iter().map(|block| read(&local, block))).await.into_iter().for_each(Result::unwrap);
    assert!(one.requests().0 > 50 && other.requests().0 > 50, "{:?} {:?}", one.requests(), other.requests());
    assert!(one.most_at_once() <= GATEWAY_REQUESTS);
}

#[tokio::test]
async fn downloads_keep_to_the_cap_and_the_cap_can_be_changed() {
    let blocks: Vec<Block> = (0..20).map(|number| sized(number, 100_000)).collect();
    let gateway = Gateway::start(&blocks);
    let caps = Arc::new(Caps::default());
    caps.down.set_rate(Some(1_000_000));
    let (local, _) = capped(LONG, &[&gateway], caps.clone());
    let begin = Instant::now();
    join_all(blocks[..10].iter().map(|block| read(&local, block))).await.into_iter().for_each(Result::unwrap);
    assert!(begin.elapsed() > Duration::from_millis(600), "1 MB at 1 MB/s took {:?}", begin.elapsed());
    // What would take minutes takes none.
    caps.down.set_rate(Some(1_000));
    caps.down.set_rate(None);
    let begin = Instant::now();
    join_all(blocks[10..].iter().map(|block| read(&local, block))).await.into_iter().for_each(Result::unwrap);
    assert!(begin.elapsed() < LONG, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_its_request() {
    let block = leaf(1);
    let gateway = Gateway::start([&block]).manner(Manner::Silent);
    let (local, source) = node(LONG, &[&gateway]);
    let reading = tokio::time::timeout(Duration::from_millis(200), read(&local, &block)).await;
    assert!(reading.is_err());
    sources::until("nothing is under way", || source.health()[0].in_flight == 0).await;
}

#[test]
fn only_addresses_of_http_hosts_are_gateways() {
    for bad in ["trustless-gateway.link", "ftp://a", "file:///etc", ""] {
        assert!(Gateways::new(&[bad.to_owned()], Arc::default()).is_err(), "{bad}");
    }
}

/// A delegated router that answers with `body` of `kind`.
async fn router(kind: &'static str, body: &'static str) -> String {
    let answer = move || async move { ([(header::CONTENT_TYPE, kind)], body).into_response() };
    let app = Router::new().route("/routing/v1/providers/{cid}", get(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    url
}

#[tokio::test]
async fn providers_come_from_all_routers_streamed_or_whole() {
    let streamed = "{\"Schema\":\"peer\",\"ID\":\"A\",\"Addrs\":[\"/ip4/127.0.0.1/tcp/1\"]}\n\
                    not json\n\
                    {\"Schema\":\"peer\",\"ID\":\"A\",\"Addrs\":[]}\n\
                    {\"Schema\":\"peer\",\"ID\":\"B\",\"Addrs\":[]}";
    let whole = "{\"Providers\":[{\"Schema\":\"bitswap\",\"ID\":\"C\",\"Addrs\":[\"/ip4/127.0.0.1/tcp/2\"]}]}";
    let urls = [
        router("application/x-ndjson", streamed).await,
        router("application/json; charset=utf-8", whole).await,
        router("application/json", "{\"Providers\":null}").await,
        router("text/html", "<html>").await,
        "http://127.0.0.1:9".to_owned(),
    ];
    let routers = Routers::new(&urls).unwrap();
    let mut found: Vec<Provider> = routers.providers(leaf(1).cid()).collect().await;
    found.sort_by(|one, other| one.peer.cmp(&other.peer));
    let peers: Vec<&str> = found.iter().map(|provider| provider.peer.as_str()).collect();
    assert_eq!(peers, ["A", "B", "C"]);
    assert_eq!(found[2].addresses, ["/ip4/127.0.0.1/tcp/2"]);
}

//! What the node promises: whom it talks to, whom it refuses, and what it tells. Loopback alone.

#[path = "net/fixture.rs"]
mod fixture;

use std::time::Duration;

use cidfs::block::Cid;
use cidfs::config::{NetworkProfile, Watermarks};
use cidfs::net::{Net, NetError, Provider, address};
use fixture::{addresses, is_connected, settings, start, start_with, tcp, until};
use futures::StreamExt;
use libp2p::identity::Keypair;

const CID: &str = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_connect_over_tcp_and_over_quic() {
    let one = start(settings(NetworkProfile::Peers));
    for address in addresses(&one, 2).await {
        let other = start(settings(NetworkProfile::Peers));
        assert_eq!(other.connect(&address).await.unwrap(), one.peer_id());
        let connection = other.connections().await.unwrap().remove(0);
        assert!(!connection.is_inbound && connection.peer == one.peer_id());
        assert_eq!(address::join(&connection.address, one.peer_id()), address);
        let told = other.identify(one.peer_id()).await.unwrap();
        assert_eq!(told.agent, "test");
        assert!(told.addresses.iter().any(|it| address::join(it, one.peer_id()) == address), "{:?}", told.addresses);
        assert!(other.ping(one.peer_id()).await.unwrap() < Duration::from_secs(5));
        until("the other side", || is_connected(&one, other.peer_id())).await;
        other.disconnect(one.peer_id()).await.unwrap();
        until("the end", || async { !is_connected(&one, other.peer_id()).await }).await;
        assert!(matches!(other.disconnect(one.peer_id()).await, Err(NetError::NotConnected { .. })));
        assert!(matches!(other.ping(one.peer_id()).await, Err(NetError::NotConnected { .. })));
        other.shutdown().await;
        assert!(matches!(other.connections().await, Err(NetError::Ended)));
    }
    one.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dial_that_fails_says_what_was_tried() {
    let (one, other) = (start(settings(NetworkProfile::Peers)), start(settings(NetworkProfile::Peers)));
    let wrong = address::join(&tcp(&one).await, other.peer_id());
    let third = start(settings(NetworkProfile::Peers));
    let error = third.connect(&wrong).await.unwrap_err().to_string();
    assert!(error.contains(&one.peer_id().to_string()), "{error}");
    let nobody = format!("/ip4/127.0.0.1/tcp/1/p2p/{}", other.peer_id()).parse().unwrap();
    let error = third.connect(&nobody).await.unwrap_err().to_string();
    assert!(error.contains("127.0.0.1") && error.contains("refused"), "{error}");
    let unknown = format!("/p2p/{}", other.peer_id()).parse().unwrap();
    let error = third.connect(&unknown).await.unwrap_err();
    assert!(matches!(error, NetError::NoAddresses { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lacks_the_key_of_a_private_swarm_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let key = |name: &str, hex: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", hex.repeat(32))).unwrap();
        path
    };
    let (ours, theirs) = (key("ours", "0a"), key("theirs", "0b"));
    let private = |key| start_with(&Keypair::generate_ed25519(), settings(NetworkProfile::Private), key).unwrap();
    let (one, member, stranger) = (private(&ours), private(&ours), private(&theirs));
    let listening = addresses(&one, 1).await;
    assert!(listening.iter().all(|it| it.to_string().contains("/tcp/")), "TCP alone: {listening:?}");
    let keyless = start(settings(NetworkProfile::Peers));
    member.connect(&listening[0]).await.unwrap();
    member.ping(one.peer_id()).await.unwrap();
    for outsider in [&stranger, &keyless] {
        assert!(outsider.connect(&listening[0]).await.is_err());
        assert!(!is_connected(&one, outsider.peer_id()).await);
    }
    let refused =
        start_with(&Keypair::generate_ed25519(), settings(NetworkProfile::Private), &directory.path().join("none"));
    assert!(matches!(refused.err(), Some(NetError::NoSwarmKey { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn peering_reconnects_after_the_peer_restarts() {
    let identity = Keypair::generate_ed25519();
    let nowhere = std::path::Path::new("/nonexistent/swarm.key");
    let mut fixed = settings(NetworkProfile::Peers);
    let first = start_with(&identity, fixed.clone(), nowhere).unwrap();
    let at = tcp(&first).await;
    fixed.listen = vec![address::split(&at).1.to_string()];
    let faithful =
        start(cidfs::config::NetworkConfig { peering: vec![at.to_string()], ..settings(NetworkProfile::Peers) });
    until("peering connects by itself", || is_connected(&faithful, first.peer_id())).await;
    first.shutdown().await;
    until("the peer is gone", || async { !is_connected(&faithful, first.peer_id()).await }).await;
    let second = start_with(&identity, fixed, nowhere).unwrap();
    assert_eq!(second.problems(), Vec::<String>::new());
    until("peering connects again", || is_connected(&faithful, second.peer_id())).await;
    // By hand, and not any more.
    assert_eq!(faithful.peering().await.unwrap().len(), 1);
    assert!(faithful.peering_remove(second.peer_id()).await.unwrap());
    assert!(!faithful.peering_remove(second.peer_id()).await.unwrap());
    assert_eq!(faithful.peering_add(&at).await.unwrap(), second.peer_id());
}

/// Three nodes that know each other as members of the local network's DHT.
async fn three(profile: NetworkProfile) -> [Net; 3] {
    let nodes = [start(settings(profile)), start(settings(profile)), start(settings(profile))];
    let middle = tcp(&nodes[1]).await;
    nodes[0].connect(&middle).await.unwrap();
    nodes[2].connect(&middle).await.unwrap();
    nodes
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_provides_is_found_by_another_over_the_lan_dht() {
    let [one, middle, other] = three(NetworkProfile::Lan).await;
    let cid: Cid = CID.parse().unwrap();
    for net in [&one, &other] {
        until("the routing table", || async {
            net.counters().routing_lan.load(std::sync::atomic::Ordering::Relaxed) > 0
        })
        .await;
    }
    one.provide(&cid).await.unwrap();
    let found: Vec<Provider> = other.find_providers(&cid).collect().await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].peer, one.peer_id());
    assert!(!found[0].addresses.is_empty());
    // And it can be reached by its name alone.
    let by_name = format!("/p2p/{}", one.peer_id()).parse().unwrap();
    other.connect(&by_name).await.unwrap();
    assert!(is_connected(&other, one.peer_id()).await);
    let found = other.find_peer(middle.peer_id()).await.unwrap();
    assert!(!found.addresses.is_empty());
    // What nobody provides ends without anybody.
    let absent: Cid = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvya4".parse().unwrap();
    assert_eq!(other.find_providers(&absent).count().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_profile_peers_announces_and_looks_up_nothing() {
    let [one, middle, other] = three(NetworkProfile::Peers).await;
    let cid: Cid = CID.parse().unwrap();
    assert!(matches!(one.provide(&cid).await, Err(NetError::NoRouting { .. })));
    assert_eq!(other.find_providers(&cid).count().await, 0);
    assert!(matches!(other.find_peer(one.peer_id()).await, Err(NetError::NoAddresses { .. })));
    for net in [&one, &middle, &other] {
        let own = net.own().await.unwrap();
        assert!(!own.protocols.iter().any(|protocol| protocol.contains("kad")), "{:?}", own.protocols);
        let told = one.identify(middle.peer_id()).await.unwrap();
        assert!(!told.protocols.iter().any(|protocol| protocol.contains("kad")), "{:?}", told.protocols);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_profile_lan_dials_nobody_beyond_it() {
    let one = start(settings(NetworkProfile::Lan));
    let far = format!("/ip4/8.8.8.8/tcp/4001/p2p/{}", Keypair::generate_ed25519().public().to_peer_id());
    let error = one.connect(&far.parse().unwrap()).await.unwrap_err().to_string();
    assert!(error.contains("not in the local network"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_connections_are_trimmed_and_those_by_hand_stay() {
    let marks = Watermarks { low: 2, high: 3 };
    let server = start(cidfs::config::NetworkConfig { max_connections: marks, ..settings(NetworkProfile::Peers) });
    let at = tcp(&server).await;
    let mut kept = settings(NetworkProfile::Peers);
    kept.listen = vec!["/ip4/127.0.0.1/tcp/0".into()];
    let favourite = start(kept);
    server.connect(&tcp(&favourite).await).await.unwrap();
    let mut crowd = Vec::new();
    for _ in 0..5 {
        let node = start(settings(NetworkProfile::Peers));
        // Past twice the high mark connections are refused at once.
        node.connect(&at).await.unwrap();
        crowd.push(node);
    }
    // The grace of new connections is longer than most waits of these tests.
    let give_up = tokio::time::Instant::now() + Duration::from_mins(1);
    while server.connections().await.unwrap().len() > marks.high {
        assert!(tokio::time::Instant::now() < give_up, "nobody was let go");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(is_connected(&server, favourite.peer_id()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_a_problem_and_no_end() {
    let one = start(settings(NetworkProfile::Peers));
    let taken = address::split(&tcp(&one).await).1.to_string();
    let mut same = settings(NetworkProfile::Peers);
    same.listen = vec![taken.clone()];
    let other = start(same);
    let problems = other.problems();
    assert!(problems.len() == 1 && problems[0].contains(&taken), "{problems:?}");
    other.connect(&tcp(&one).await).await.unwrap();
}

//! The decoders against other implementations, on data that nobody chose: the `cid` crate, the `serde_ipld` crates, and
//! `rust-unixfs`.

use std::collections::BTreeMap;

use bytes::Bytes;
use cidfs::block::{Block, Cid, CidError, HashFunction, Multihash, codec};
use cidfs::config::StoreConfig;
use cidfs::dag::directory::Directory;
use cidfs::dag::ipld::Node;
use cidfs::dag::pb::{self, PbLink, PbNode};
use cidfs::dag::unixfs::{Kind, UnixFs};
use cidfs::fetch::{Fetch, Priority};
use cidfs::store::Store;
use cidfs::tree::Tree;
use ipld_core::ipld::Ipld;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use rust_unixfs::dir::{NodeDescription, describe};

/// The `cid` crate's CID with room for every digest that we take.
type TheirCid = cid::CidGeneric<128>;

fn arbitrary_cid() -> impl Strategy<Value = Cid> {
    (0..1_u64 << 40, prop_oneof![Just(0x12_u64), Just(0x1e), Just(0x9999)], vec(any::<u8>(), 32))
        .prop_map(|(codec, code, digest)| Cid::new_v1(codec, &Multihash::wrap(code, &digest).unwrap()))
}

/// Values of the data model, without the key that dag-json reserves, and without the float -0.0: kubo writes it as it is,
/// and so do we; `serde_ipld_dagcbor` writes 0.0 for it.
fn arbitrary_ipld() -> impl Strategy<Value = Ipld> {
    let link = arbitrary_cid().prop_map(|cid| Ipld::Link(ipld_core::cid::Cid::try_from(cid.as_bytes()).unwrap()));
    let scalar = prop_oneof![
        Just(Ipld::Null),
        any::<bool>().prop_map(Ipld::Bool),
        any::<i64>().prop_map(|number| Ipld::Integer(number.into())),
        any::<u64>().prop_map(|number| Ipld::Integer(number.into())),
        (-2_000_i128..2_000).prop_map(Ipld::Integer),
        any::<f64>().prop_filter("written alike", |number| number.is_finite() && *number != 0.0).prop_map(Ipld::Float),
        Just(Ipld::Float(0.0)),
        ".*".prop_map(Ipld::String),
        vec(any::<u8>(), 0..300).prop_map(Ipld::Bytes),
        link,
    ];
    scalar.prop_recursive(5, 60, 8, |inner| {
        let key = ".{0,30}".prop_filter("not reserved", |key| key != "/");
        prop_oneof![vec(inner.clone(), 0..8).prop_map(Ipld::List), btree_map(key, inner, 0..8).prop_map(Ipld::Map),]
    })
}

proptest! {
    // A failure prints its input; the cases that matter become tests of their own.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn dag_cbor_and_dag_json_are_those_of_the_serde_ipld_crates(value in arbitrary_ipld()) {
        let cbor = Bytes::from(serde_ipld_dagcbor::to_vec(&value).unwrap());
        let json = Bytes::from(serde_ipld_dagjson::to_vec(&value).unwrap());
        for (from, data) in [(codec::DAG_CBOR, &cbor), (codec::DAG_JSON, &json)] {
            let node = Node::decode(from, data).unwrap();
            prop_assert_eq!(&node.encode(codec::DAG_CBOR).unwrap()[..], &cbor[..]);
            prop_assert_eq!(
                String::from_utf8(node.encode(codec::DAG_JSON).unwrap()).unwrap(),
                std::str::from_utf8(&json).unwrap()
            );
            let mut links = Vec::new();
            value.references(&mut links);
            let mut ours: Vec<_> = node.links().map(|cid| cid.as_bytes().to_vec()).collect();
            let mut theirs: Vec<_> = links.into_iter().map(|cid| cid.to_bytes()).collect();
            ours.sort();
            theirs.sort();
            prop_assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn damaged_dag_cbor_is_taken_exactly_where_serde_ipld_dagcbor_takes_it(
        value in arbitrary_ipld(), at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<bool>(),
    ) {
        let mut cbor = serde_ipld_dagcbor::to_vec(&value).unwrap();
        let at = at.index(cbor.len());
        if cut {
            cbor.truncate(at);
        } else {
            cbor[at] = to;
        }
        // What is a CID is another question than what is dag-cbor.
        prop_assume!(!cbor.windows(2).any(|pair| pair == [0xd8, 0x2a]));
        prop_assume!(!cbor.windows(9).any(|float| float == [0xfb, 0x80, 0, 0, 0, 0, 0, 0, 0]));
        let theirs = serde_ipld_dagcbor::from_slice::<Ipld>(&cbor);
        let ours = Node::decode(codec::DAG_CBOR, &Bytes::from(cbor.clone()));
        prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?} {:?}", ours, theirs);
    }

    #[test]
    fn cids_are_those_of_the_cid_crate(cid in arbitrary_cid()) {
        let theirs = TheirCid::try_from(cid.as_bytes()).unwrap();
        prop_assert_eq!(theirs.to_bytes(), cid.as_bytes());
        prop_assert_eq!(theirs.to_string(), cid.to_string());
        prop_assert_eq!((theirs.codec(), theirs.hash().code()), (cid.codec(), cid.hash_code()));
        prop_assert_eq!(theirs.hash().digest(), cid.digest());
    }

    #[test]
    fn bytes_are_a_cid_where_the_cid_crate_says_so(
        version in 0..3_u8, codec in prop_oneof![Just(0x55_u8), Just(0x70), any::<u8>()], code in prop_oneof![
            Just(0x12_u8), Just(0), Just(0x1e), any::<u8>()], len in 0..70_u8, digest in vec(any::<u8>(), 30..70),
    ) {
        for bytes in [
            [&[version, codec, code, len][..], &digest].concat(),
            [&[code, len][..], &digest].concat(),
            [&[0x12, 32][..], &digest].concat(),
        ] {
            let theirs = TheirCid::try_from(&bytes[..]).ok().filter(|cid| cid.encoded_len() == bytes.len());
            match Cid::from_bytes(&bytes) {
                Ok(cid) => prop_assert_eq!(theirs.map(|cid| cid.to_bytes()), Some(cid.as_bytes().to_vec())),
                // Digests that nobody should trust are ours to refuse.
                Err(CidError::DigestLength { .. }) => {}
                Err(error) => prop_assert!(theirs.is_none(), "{} {:?}", error, theirs),
            }
        }
    }

    #[test]
    fn directories_are_described_alike_by_rust_unixfs(names in btree_map("[^/\0]{1,40}", any::<(u32, u64)>(), 0..40)) {
        let names: BTreeMap<_, _> = names.into_iter().filter(|(name, _)| name != "." && name != "..").collect();
        let cid = |seed: u32| Cid::new_v1(codec::RAW, &HashFunction::Sha2_256.digest(&seed.to_le_bytes()));
        let links = names.iter().map(|(name, (seed, tsize))| PbLink {
            cid: cid(*seed), name: name.as_bytes(), tsize: Some(*tsize >> 1),
        });
        let data = UnixFs::new(Kind::Directory).encode();
        let block = Bytes::from(pb::encode(links, Some(&data)));
        let NodeDescription::Directory { links: theirs } = describe(&block) else { panic!("no directory") };
        let ours = Directory::from_node(&PbNode::decode(block).unwrap());
        prop_assert_eq!(ours.entries().len(), theirs.len());
        for (ours, theirs) in ours.entries().iter().zip(&theirs) {
            prop_assert_eq!(&ours.name[..], theirs.name.as_bytes());
            prop_assert_eq!(ours.cid.as_bytes(), theirs.target.to_bytes());
            prop_assert_eq!(ours.tsize, Some(theirs.tsize));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn files_that_rust_unixfs_makes_are_read_back(data in vec(any::<u8>(), 0..60_000), chunk in 20..2_000_usize, raw in any::<bool>()) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), &StoreConfig::default()).unwrap();
        let mut adder = rust_unixfs::file::adder::FileAdder::builder()
            .with_chunker(rust_unixfs::file::adder::Chunker::Size(chunk))
            .with_raw_leaves(raw)
            .build();
        let mut blocks = Vec::new();
        let mut rest = &data[..];
        while !rest.is_empty() {
            let (made, used) = adder.push(rest);
            blocks.extend(made);
            rest = &rest[used..];
        }
        blocks.extend(adder.finish());
        let mut root = None;
        for (cid, data) in blocks {
            let cid = Cid::from_bytes(&cid.to_bytes()).unwrap();
            store.put(&Block::verify(cid.clone(), data.into()).unwrap()).unwrap();
            root = Some(cid);
        }
        let tree = Tree::new(Fetch::new(store));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let read = runtime.block_on(async {
            let entry = tree.resolve(root.unwrap().to_string().as_bytes()).await.unwrap();
            assert_eq!(entry.attr.size, data.len() as u64);
            tree.read(&entry.location, 0, data.len() + 1, Priority::Demand).await.unwrap()
        });
        prop_assert!(read == data);
    }
}

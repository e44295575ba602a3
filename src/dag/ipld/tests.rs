use super::*;
use crate::block::HashFunction;
use crate::limits::{MAX_BLOCK_BYTES, MAX_IPLD_DEPTH};

fn from_cbor(bytes: &[u8]) -> Result<Node, DagError> {
    Node::decode(codec::DAG_CBOR, &Bytes::copy_from_slice(bytes))
}

fn from_json(text: &str) -> Result<Node, DagError> {
    Node::decode(codec::DAG_JSON, &Bytes::copy_from_slice(text.as_bytes()))
}

fn json(node: &Node) -> String {
    String::from_utf8(node.encode(codec::DAG_JSON).unwrap()).unwrap()
}

fn cid() -> Cid {
    Cid::new_v1(codec::RAW, &HashFunction::Sha2_256.digest(b"linked"))
}

fn manifest() -> Node {
    from_json(&format!(
        r#"{{"splits":{{"train":[{{"/":"{0}"}},{{"name":"a","/x":1}},[]],"test":{{"/":"{0}"}}}},"n":-7,"b":{{"/":{{"bytes":"AQID"}}}}}}"#,
        cid()
    ))
    .unwrap()
}

#[test]
fn dag_json_reads_and_writes_what_kubo_does() {
    // Each as kubo 0.43's `dag put` takes it, and `dag get` and `block get` give it back.
    for (text, expected, bytes) in [
        (r#"{"b":1,"aa":2,"a":3}"#, r#"{"a":3,"aa":2,"b":1}"#, "a361610361620162616102"),
        (r#"{"/":{"bytes":"AQ=="}}"#, r#"{"/":{"bytes":"AQ"}}"#, "4101"),
        (r#"{"/":5}"#, r#"{"/":5}"#, "a1612f05"),
        (" { \"a\" : 1 } ", r#"{"a":1}"#, "a1616101"),
        ("null  ", "null", "f6"),
        ("[1.0,0.1,5e-324]", "[1.0,0.1,5e-324]", "83fb3ff0000000000000fb3fb999999999999afb0000000000000001"),
        (
            "[9223372036854775807,-9223372036854775808]",
            "[9223372036854775807,-9223372036854775808]",
            "821b7fffffffffffffff3b7fffffffffffffff",
        ),
    ] {
        let node = from_json(text).unwrap();
        assert_eq!(json(&node), expected);
        let cbor = node.encode(codec::DAG_CBOR).unwrap();
        assert_eq!(multibase::Base::Base16Lower.encode(&cbor), bytes, "{text}");
        assert_eq!(json(&from_cbor(&cbor).unwrap()), expected);
    }
}

#[test]
fn a_float_of_dag_json_is_the_nearest_one() {
    // A reader that is off by one in the last place writes back another number.
    let text = "33333233333333333333333336633332333333333333333336.6666666626";
    let Value::Float(float) = from_json(text).unwrap().value() else { panic!() };
    assert_eq!(float.to_bits(), text.parse::<f64>().unwrap().to_bits());
    let written = json(&from_json(text).unwrap());
    assert_eq!(json(&from_json(&written).unwrap()), written);
}

#[test]
fn dag_json_that_has_no_one_meaning_is_refused() {
    for text in [
        "",
        " ",
        "nul",
        "nullx",
        "[1,]",
        "[1 2]",
        "[",
        "]",
        "{",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{1:2}",
        "{\"a\":1]",
        "[1}",
        "01",
        "-",
        "1.",
        ".5",
        "+1",
        "1e400",
        "1e",
        "--1",
        "0x1",
        "18446744073709551616",
        "-18446744073709551617",
        "\"\\x\"",
        "\"\\ud800\"",
        "\"\n\"",
        "\"",
        "\"\\",
        "{\"a\":1,\"a\":2}",
        r#"{"/":"nope"}"#,
        r#"{"/":"nope","a":1}"#,
        r#"{"/":{"bytes":"AQ"},"a":1}"#,
        r#"{"/":{"bytes":"AQ","b":1}}"#,
        r#"{"/":{"bytes":"*"}}"#,
        "1 1",
        "\u{feff}1",
        "NaN",
        "[,1]",
        "{,}",
        "\u{0}",
    ] {
        assert!(from_json(text).is_err(), "{text}");
    }
    assert!(Node::decode(codec::DAG_JSON, &Bytes::from_static(b"\"\xff\"")).is_err());
}

#[test]
fn the_reserved_key_is_free_where_it_means_neither_link_nor_bytes() {
    for text in
        [r#"{"/":5}"#, r#"{"/":{"bytes":1}}"#, r#"{"/":{"a":1,"bytes":"AQ"}}"#, r#"{".":1,"/":"x"}"#, r#"{"/":[]}"#]
    {
        assert_eq!(json(&from_json(text).unwrap()), text);
    }
    let plain = Node::decode(codec::JSON, &Bytes::from_static(br#"{"/":"x","a":1}"#)).unwrap();
    assert_eq!(plain.value(), Value::Map(2));
}

#[test]
fn dag_cbor_in_any_other_than_its_canonical_form_is_refused() {
    let hex = |text: &str| multibase::Base::Base16Lower.decode(text).unwrap();
    for good in [
        "00",
        "1b0000000100000000",
        "3bffffffffffffffff",
        "f4",
        "f6",
        "60",
        "80",
        "a0",
        "a2616101616202",
        "a261620162616102",
    ] {
        assert!(from_cbor(&hex(good)).is_ok(), "{good}");
    }
    for (bad, why) in [
        ("", "nothing"),
        ("1800", "a number in more bytes than it needs"),
        ("190001", "the same"),
        ("1a00000001", "the same"),
        ("1b00000000ffffffff", "the same"),
        ("5800", "the same, a length"),
        ("780161", "the same, of text"),
        ("980100", "the same, of a list"),
        ("a1780161f6", "the same, of a key"),
        ("d8182a", "another tag"),
        ("d9002a4100", "the link's tag in more bytes than it needs"),
        ("d82a4100", "a link without a CID"),
        ("d82a450155000000", "a link without the zero byte"),
        ("c001", "a tag"),
        ("f7", "undefined"),
        ("f93c00", "a float of 16 bits"),
        ("fa3f800000", "a float of 32 bits"),
        ("fb7ff0000000000000", "infinity"),
        ("fb7ff8000000000000", "not a number"),
        ("f814", "false in two bytes"),
        ("e0", "an unassigned simple value"),
        ("9fff", "an indefinite list"),
        ("bfff", "an indefinite map"),
        ("7f6161ff", "indefinite text"),
        ("ff", "a break"),
        ("1c", "a reserved head"),
        ("61ff", "text that is not UTF-8"),
        ("a161ff00", "a key that is not UTF-8"),
        ("a10000", "a key that is not text"),
        ("a2616201616102", "keys out of order"),
        ("a2626161016162 02", "a longer key first"),
        ("a2616101616102", "a key twice"),
        ("0000", "two values"),
        ("8101f6", "bytes after the value"),
        ("8201", "a list cut short"),
        ("a161", "a map cut short"),
    ] {
        assert!(from_cbor(&hex(&bad.replace(' ', ""))).is_err(), "{why}: {bad}");
    }
}

#[test]
fn every_cut_of_a_block_is_an_error() {
    let node = manifest();
    for codec in [codec::DAG_CBOR, codec::DAG_JSON] {
        let bytes = Bytes::from(node.encode(codec).unwrap());
        for len in 0..bytes.len() {
            assert!(Node::decode(codec, &bytes.slice(..len)).is_err(), "{codec:#x} {len}");
        }
    }
}

#[test]
fn lengths_that_are_claimed_allocate_nothing() {
    for head in [0x5b, 0x7b, 0x9b, 0xbb_u8] {
        assert!(from_cbor(&[&[head][..], &[0xff; 8]].concat()).is_err());
        assert!(from_cbor(&[&[head][..], &[0x7f; 8]].concat()).is_err());
    }
}

#[test]
fn nesting_is_read_to_its_limit_without_recursion() {
    let nested = |depth: usize| ["[".repeat(depth), "]".repeat(depth)].concat();
    let deepest = from_json(&nested(MAX_IPLD_DEPTH)).unwrap();
    assert_eq!(json(&deepest), nested(MAX_IPLD_DEPTH));
    let cbor = deepest.encode(codec::DAG_CBOR).unwrap();
    assert_eq!(json(&from_cbor(&cbor).unwrap()), nested(MAX_IPLD_DEPTH));
    let is_limit = |result: Result<Node, DagError>| matches!(result, Err(DagError::Limit { limit: 1024, .. }));
    assert!(is_limit(from_json(&nested(MAX_IPLD_DEPTH + 1))));
    assert!(is_limit(from_cbor(&[&[0x81][..], &cbor].concat())));
    // Far past any stack.
    assert!(is_limit(from_json(&"[".repeat(MAX_BLOCK_BYTES))));
    assert!(is_limit(from_json(&"{\"a\":".repeat(MAX_BLOCK_BYTES / 5))));
    assert!(is_limit(from_cbor(&vec![0x81; MAX_BLOCK_BYTES])));
    assert!(matches!(from_cbor(&vec![0x81; MAX_BLOCK_BYTES + 1]), Err(DagError::Limit { .. })));
}

#[test]
fn maps_and_lists_are_walked_by_name() {
    let node = manifest();
    let walk = |path: &[&str]| {
        let (node, rest) = node.resolve(path);
        (json(&node), rest.len())
    };
    assert_eq!(walk(&["n"]), ("-7".into(), 0));
    assert_eq!(walk(&["splits", "train", "1", "/x"]), ("1".into(), 0));
    assert_eq!(walk(&["splits", "train", "2"]), ("[]".into(), 0));
    assert_eq!(walk(&["splits", "test", "beyond", "it"]), (format!(r#"{{"/":"{}"}}"#, cid()), 2));
    for nowhere in
        [&["splits", "train", "3"][..], &["splits", "train", "01"], &["splits", "train", "-1"], &["n", "x"], &["x"]]
    {
        assert_eq!(walk(nowhere).1, 1, "{nowhere:?}");
    }
    assert_eq!(node.links().collect::<Vec<_>>(), [cid(), cid()]);
}

#[test]
fn children_are_listed_from_any_position() {
    for node in [manifest(), from_json("[[],1,\"x\",{\"a\":[1,2]},5]").unwrap(), from_json("3").unwrap()] {
        let mut positions = vec![node.children().position()];
        let mut children = node.children();
        let mut whole = Vec::new();
        while let Some((name, child)) = children.next() {
            whole.push((name.into_owned(), json(&child)));
            positions.push(children.position());
        }
        assert!(positions.is_sorted_by(|a, b| a < b));
        for (index, position) in positions.iter().enumerate() {
            let rest: Vec<_> = node
                .children()
                .from_position(*position)
                .map(|(name, child)| (name.into_owned(), json(&child)))
                .collect();
            assert_eq!(rest, whole[index..]);
        }
        assert_eq!(node.children().from_position(u64::MAX).count(), 0);
        for nonsense in 0..200_000 {
            let _ = node.children().from_position(nonsense).count();
        }
    }
}

#[test]
fn scalars_are_files_and_containers_are_not() {
    let contents = |text: &str| from_json(text).unwrap().contents().map(|bytes| bytes.to_vec());
    assert_eq!(contents("\"caf\u{e9}\\n\""), Some("caf\u{e9}\n".into()));
    assert_eq!(contents(r#"{"/":{"bytes":"AAEC"}}"#), Some(vec![0, 1, 2]));
    assert_eq!(contents("-12"), Some(b"-12".to_vec()));
    assert_eq!(contents("1.0"), Some(b"1.0".to_vec()));
    assert_eq!(contents("true"), Some(b"true".to_vec()));
    assert_eq!(contents("null"), Some(b"null".to_vec()));
    assert_eq!(contents("\"\""), Some(Vec::new()));
    assert_eq!((contents("[]"), contents("{}")), (None, None));
    assert_eq!(contents(&format!(r#"{{"/":"{}"}}"#, cid())), None);
}

#[test]
fn a_dag_pb_block_is_a_map_and_goes_back() {
    let link = |name| crate::dag::pb::PbLink { cid: cid(), name, tsize: Some(5) };
    let bytes = crate::dag::pb::encode([link(&b"a"[..]), link(b"b")], Some(b"\x08\x01"));
    let node = Node::decode(codec::DAG_PB, &Bytes::from(bytes.clone())).unwrap();
    let text = format!(
        r#"{{"Data":{{"/":{{"bytes":"CAE"}}}},"Links":[{{"Hash":{{"/":"{0}"}},"Name":"a","Tsize":5}},{{"Hash":{{"/":"{0}"}},"Name":"b","Tsize":5}}]}}"#,
        cid()
    );
    assert_eq!(json(&node), text);
    assert_eq!(from_json(&text).unwrap().encode(codec::DAG_PB).unwrap(), bytes);
    for other in ["{}", "[]", "1", r#"{"Links":[{}]}"#, r#"{"Links":[],"x":1}"#, r#"{"Links":[1]}"#] {
        assert!(from_json(other).unwrap().encode(codec::DAG_PB).is_err(), "{other}");
    }
}

#[test]
fn what_a_codec_cannot_hold_is_not_written_in_it() {
    let (link, bytes) =
        (from_json(&format!(r#"[{{"/":"{}"}}]"#, cid())).unwrap(), from_json(r#"{"/":{"bytes":""}}"#).unwrap());
    assert!(link.encode(codec::JSON).is_err() && link.encode(codec::CBOR).is_err() && link.encode(codec::RAW).is_err());
    assert!(bytes.encode(codec::JSON).is_err());
    assert_eq!(bytes.encode(codec::RAW).unwrap(), b"");
    assert_eq!(link.encode(0x1234), Err(DagError::Codec { codec: 0x1234 }));
    assert!(Node::decode(0x1234, &Bytes::new()).is_err());
    assert!(
        Node::decode(codec::CBOR, &Bytes::from(link.encode(codec::DAG_CBOR).unwrap())).is_err(),
        "no links in cbor"
    );
}

#[test]
fn a_link_may_carry_more_than_an_identity_cid_is_accepted_with() {
    let long = [&[1, 0x55, 0, 0x81, 0x01][..], &[7; 129]].concat();
    let node = from_json("[null]").unwrap();
    assert_eq!(node.links().count(), 0);
    let mut bytes = vec![0xd8, 0x2a, 0x58, long.len() as u8 + 1, 0];
    bytes.extend(&long);
    let node = from_cbor(&bytes).unwrap();
    let link = node.links().next().unwrap();
    assert_eq!(link.as_bytes(), long);
    assert_eq!(link.identity_data(), None);
    assert!(from_json(&json(&node)).is_ok());
}

#[test]
fn a_block_of_many_items_is_read_in_one_pass() {
    // 700,000 items; anything that grows with their square would not end.
    let text = format!("[{}0]", "[],".repeat(MAX_BLOCK_BYTES / 3 - 2));
    let node = from_json(&text).unwrap();
    let Value::List(len) = node.value() else { panic!() };
    assert_eq!(node.children().count() as u64, len);
    assert_eq!(json(&node.child(&(len - 1).to_string()).unwrap()), "0");
    let cbor = node.encode(codec::DAG_CBOR).unwrap();
    assert_eq!(json(&from_cbor(&cbor).unwrap()), text);
    let keys: Vec<_> = (0..100_000).map(|n| format!("\"k{n}\":0")).collect();
    let node = from_json(&format!("{{{}}}", keys.join(","))).unwrap();
    assert_eq!(node.value(), Value::Map(100_000));
    assert!(node.child("k99999").is_some());
}

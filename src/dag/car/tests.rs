use std::io::{Cursor, Read};

use bytes::Bytes;

use super::*;
use crate::block::{Block, Cid, HashFunction, codec};
use crate::limits::{MAX_BLOCK_BYTES, MAX_CAR_HEADER_BYTES, MAX_CAR_SECTION_BYTES};

#[test]
fn a_v2_header_goes_both_ways() {
    // The first bytes of `sample-wrapped-v2.car` of go-car.
    let mut bytes = *b"\x0a\xa1\x67version\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
        \x33\0\0\0\0\0\0\0\xa3\x52\x07\0\0\0\0\0\xd6\x52\x07\0\0\0\0\0";
    let header = V2Header::decode(&bytes).unwrap();
    assert_eq!(header, V2Header::contiguous(479_907));
    assert_eq!(header.encode(), bytes);
    bytes[11] = 0x80;
    assert_eq!(V2Header::decode(&bytes).unwrap(), V2Header { fully_indexed: true, ..header });
}

#[test]
fn a_v2_header_that_overlaps_or_overflows_is_refused() {
    let good = V2Header::contiguous(100);
    for bad in [
        V2Header { data_offset: 50, ..good },
        V2Header { data_size: 0, ..good },
        V2Header { data_size: u64::MAX, ..good },
        V2Header { data_size: i64::MAX as u64, ..good },
        V2Header { index_offset: 150, ..good },
    ] {
        assert!(V2Header::decode(&bad.encode()).is_err(), "{bad:?}");
    }
    assert!(V2Header::decode(&V2Header { index_offset: 0, ..good }.encode()).is_ok());
    assert!(V2Header::decode(&[0; 51]).is_err());
}

fn block(data: &[u8]) -> Block {
    Block::new(codec::RAW, HashFunction::Sha2_256, Bytes::copy_from_slice(data))
}

fn blocks() -> Vec<Block> {
    let pb = Block::new_v0(Bytes::from_static(b"\x0a\x02\x08\x01"));
    let long = Block::new(codec::RAW, HashFunction::Blake3, Bytes::from(vec![7; 300_000]));
    let identity = Block::new(codec::RAW, HashFunction::Identity, Bytes::from_static(b"inside"));
    vec![block(b"first"), block(b""), pb, long, identity, block(b"first")]
}

fn roots() -> Vec<Cid> {
    blocks().iter().take(2).map(|block| block.cid().clone()).collect()
}

fn v1() -> Vec<u8> {
    let mut writer = CarWriter::new(Vec::new(), &roots()).unwrap();
    for block in blocks() {
        writer.write(&block).unwrap();
    }
    let len = writer.len();
    let bytes = writer.finish().unwrap();
    assert_eq!(bytes.len() as u64, len);
    bytes
}

fn v2() -> Vec<u8> {
    let mut writer = CarWriter::new(Vec::new(), &roots()).unwrap();
    let offsets: Vec<(Block, u64)> =
        blocks().into_iter().map(|block| (block.clone(), writer.write(&block).unwrap())).collect();
    let payload = writer.finish().unwrap();
    let mut index = Vec::new();
    let indexed = offsets.iter().filter(|(block, _)| block.cid().identity_data().is_none());
    let entries = indexed.map(|(block, offset)| (block.cid().multihash(), *offset));
    index::write_multihash_index_sorted(entries, &mut index).unwrap();
    [&V2Header::contiguous(payload.len() as u64).encode()[..], &payload, &index].concat()
}

fn read_all(bytes: &[u8]) -> Result<Vec<Block>, CarError> {
    let mut reader = CarReader::new(bytes)?;
    let mut blocks = Vec::new();
    while let Some(block) = reader.next_block()? {
        blocks.push(block);
    }
    Ok(blocks)
}

/// Gives one byte a call, as a slow pipe may.
struct Trickle<'a>(&'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = self.0.len().min(out.len()).min(1);
        self.0.read(&mut out[..len])
    }
}

#[test]
fn both_versions_go_both_ways() {
    for (version, bytes) in [(1, v1()), (2, v2())] {
        assert_eq!(read_all(&bytes).unwrap(), blocks());
        let mut reader = CarReader::new(Trickle(&bytes)).unwrap();
        assert_eq!((reader.version(), reader.roots()), (version, &roots()[..]));
        let mut count = 0;
        while reader.next_block().unwrap().is_some() {
            count += 1;
        }
        assert_eq!(count, blocks().len());
        reader.drain().unwrap();
    }
}

#[test]
fn the_index_of_a_v2_leads_to_every_block() {
    let bytes = v2();
    let header = *CarReader::new(&bytes[..]).unwrap().v2_header().unwrap();
    let payload = &bytes[header.data_offset as usize..][..header.data_size as usize];
    let index = index::Index::decode(&bytes[header.index_offset as usize..]).unwrap();
    assert_eq!(index.len(), blocks().len() - 1, "all but the identity CID");
    for block in blocks().iter().filter(|block| block.cid().identity_data().is_none()) {
        let offset = index.find(block.cid().hash_code(), block.cid().digest()).next().unwrap();
        let section = [&section_head(block.cid(), block.data().len())[..], block.data()].concat();
        assert!(payload[offset as usize..].starts_with(&section));
    }
}

#[test]
fn a_cut_car_gives_its_whole_blocks_and_then_says_where_it_ends() {
    let bytes = v1();
    let header = encode_header(&roots()).len();
    for len in (0..500).chain(bytes.len() - 500..bytes.len()) {
        let mut reader = match CarReader::new(&bytes[..len]) {
            Ok(reader) => reader,
            Err(error) => {
                assert!(len < header && matches!(error, CarError::Truncated { at } if at == len as u64), "{error}");
                continue;
            }
        };
        let mut whole = Vec::new();
        let end = loop {
            match reader.next_block() {
                Ok(Some(block)) => whole.push(block),
                end => break end,
            }
        };
        assert_eq!(whole, blocks()[..whole.len()]);
        let written =
            header + whole.iter().map(|b| section_head(b.cid(), b.data().len()).len() + b.data().len()).sum::<usize>();
        match end {
            Ok(_) => assert_eq!(written, len),
            Err(error) => assert!(matches!(error, CarError::Truncated { at } if at == len as u64), "{error}"),
        }
    }
    let bytes = v2();
    let end = V2Header::LEN + v1().len();
    for len in [0, 5, 11, 30, 51, 60, 200, 1000, end - 1] {
        assert!(matches!(read_all(&bytes[..len]), Err(CarError::Truncated { .. })), "{len}");
    }
    assert!(read_all(&bytes[..end]).is_ok(), "the index is not needed");
}

#[test]
fn a_block_that_does_not_hash_to_its_cid_is_refused() {
    let mut bytes = v1();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let error = read_all(&bytes).unwrap_err();
    assert!(matches!(&error, CarError::Block { error: BlockError::Mismatch { .. }, .. }));
    assert!(error.to_string().contains(&block(b"first").cid().to_string()), "{error}");
}

#[test]
fn a_v2_may_have_room_before_its_payload_and_its_index() {
    let payload = v1();
    let header = V2Header { data_offset: 1000, data_size: payload.len() as u64, index_offset: 0, fully_indexed: false };
    let mut bytes = header.encode().to_vec();
    bytes.resize(1000, 0);
    bytes.extend(&payload);
    bytes.extend(b"what follows is not read");
    assert_eq!(read_all(&bytes).unwrap(), blocks());
    let short = V2Header { data_size: payload.len() as u64 - 3, ..header };
    bytes[..V2Header::LEN].copy_from_slice(&short.encode());
    assert!(matches!(read_all(&bytes), Err(CarError::Format { .. })), "a section that crosses the payload's end");
    let far = V2Header { data_offset: 1 << 40, ..header };
    bytes[..V2Header::LEN].copy_from_slice(&far.encode());
    assert!(matches!(read_all(&bytes), Err(CarError::Truncated { .. })));
}

#[test]
fn empty_sections_are_padding() {
    let bytes = [v1(), vec![0; 1000], v1()[encode_header(&roots()).len()..].to_vec(), vec![0; 7]].concat();
    assert_eq!(read_all(&bytes).unwrap(), [blocks(), blocks()].concat());
}

#[test]
fn lengths_over_the_limits_are_refused_before_they_are_read() {
    let varint = |value: usize| {
        let mut out = smallvec::SmallVec::<[u8; 16]>::new();
        crate::block::write_varint(&mut out, value as u64);
        out.to_vec()
    };
    // An endless source: what is refused must be refused without reading it.
    let endless = |begin: Vec<u8>| io::Read::chain(Cursor::new(begin), io::repeat(2));
    let error = CarReader::new(endless(varint(MAX_CAR_HEADER_BYTES + 1))).unwrap_err();
    assert!(matches!(error, CarError::Format { error: DagError::Limit { .. }, .. }), "{error}");

    let begin = [encode_header(&[]), varint(MAX_CAR_SECTION_BYTES + 1)].concat();
    let error = CarReader::new(endless(begin.clone())).unwrap().next_block().unwrap_err();
    assert!(matches!(error, CarError::Format { error: DagError::Limit { .. }, .. }), "{error}");
    let cid = block(b"").cid().clone();
    let named = [begin, cid.as_bytes().to_vec()].concat();
    let error = CarReader::new(endless(named)).unwrap().next_block().unwrap_err();
    assert!(matches!(&error, CarError::Block { error: BlockError::TooLarge { .. }, .. }));
    assert!(error.to_string().contains(&cid.to_string()), "{error}");

    let endless_length = [encode_header(&[]), vec![0xff; 10]].concat();
    assert!(matches!(read_all(&endless_length), Err(CarError::Format { .. })));

    let largest = block(&vec![0; MAX_BLOCK_BYTES]);
    let mut writer = CarWriter::new(Vec::new(), &[]).unwrap();
    writer.write(&largest).unwrap();
    assert_eq!(read_all(&writer.finish().unwrap()).unwrap(), [largest]);
    let over = vec![0; MAX_BLOCK_BYTES + 1];
    let head = section_head(&cid, over.len());
    let error = read_all(&[&encode_header(&[])[..], &head, &over].concat()).unwrap_err();
    assert!(matches!(error, CarError::Block { error: BlockError::TooLarge { .. }, .. }), "{error}");
}

#[test]
fn what_is_no_car_is_refused_and_named_so() {
    for bytes in [
        &b"\x7fELF\x02\x01\x01 and more of it"[..],
        b"PK\x03\x04 and more of it",
        b"\0\0\0\0",
        b"\x01\xf6",
        b"\x0a\xa1\x67version\x03",
        b"\x0a\xa1\x67version\x01",
        b"\x11\xa2\x65roots\x01\x67version\x01",
        b"\x12\xa2\x65roots\x81\x01\x67version\x01",
    ] {
        let error = CarReader::new(bytes).unwrap_err();
        assert!(matches!(error, CarError::Format { .. } | CarError::Truncated { .. }), "{error}");
    }
    assert!(CarReader::new(&b"\x11\xa2\x65roots\x80\x67version\x01"[..]).unwrap().roots().is_empty());
}

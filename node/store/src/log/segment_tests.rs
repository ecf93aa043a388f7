//! Every bit of a 64 KiB segment, flipped one at a time.

use tiltyard_keys::SecretKey;
use tiltyard_proto::block::{Block, Body, Header};
use tiltyard_proto::certificate::Certificate;
use tiltyard_proto::ids::{BlockHash, CertificateHash, MerkleRoot, ParamsHash, StateRoot, ValidatorsHash};
use tiltyard_proto::units::{Round, UnixMillis};

use super::*;
use crate::log::segment_title;

const SEGMENT_BYTES: usize = 64 * 1024;

/// A segment in memory: its bytes and, for title and records, where each frame begins and the link before it.
struct Made {
    network: GenesisHash,
    bytes: Vec<u8>,
    frames: Vec<(usize, Link)>,
}

fn block(network: GenesisHash, height: u64) -> DecidedBlock {
    let header = Header {
        version: Header::VERSION,
        genesis: network,
        height: Height::new(height),
        time: UnixMillis::new(height),
        parent: BlockHash::from_bytes([1; 32]),
        parent_certificate: CertificateHash::from_bytes([2; 32]),
        builder: SecretKey::from_seed(&[1; 32]).public(),
        tx_root: MerkleRoot::from_bytes([3; 32]),
        state_root: StateRoot::from_bytes([4; 32]),
        validators_hash: ValidatorsHash::from_bytes([5; 32]),
        next_validators_hash: ValidatorsHash::from_bytes([6; 32]),
        params_hash: ParamsHash::from_bytes([7; 32]),
    };
    let block = Block { header, body: Body { parent_certificate: None, transactions: Vec::new() } };
    let (signers, signatures) = (vec![0].into(), Vec::new());
    let round = Round::new(0);
    let certificate =
        Certificate { height: Height::new(height), round, block: block.hash(), signers, signatures };
    DecidedBlock { block, certificate }
}

fn made() -> Made {
    let network = GenesisHash::from_bytes([8; 32]);
    let (mut bytes, mut link) = frame::encode(1, &Link::default(), &segment_title(&network));
    let mut frames = vec![(0, Link::default())];
    for height in 1.. {
        let (frame, next) = frame::encode(height, &link, &codec::encode(&block(network, height)));
        if bytes.len() + frame.len() > SEGMENT_BYTES {
            break;
        }
        frames.push((bytes.len(), link));
        bytes.extend_from_slice(&frame);
        link = next;
    }
    Made { network, bytes, frames }
}

fn scan_all(made: &Made, bytes: &[u8]) -> SegmentScan {
    scan(bytes, bytes.len() as u64, &made.network, Height::new(1), Some(Link::default())).unwrap()
}

/// Reads the frames `at..at + 2` alone, as the scan of the whole comes to them.
fn scan_around(made: &Made, bytes: &[u8], at: usize) -> SegmentScan {
    let (start, link) = made.frames[at];
    let end = made.frames.get(at + 2).map_or(bytes.len(), |(end, _)| *end);
    let source = &bytes[start..end];
    let length = source.len() as u64;
    if at == 0 {
        return scan(source, length, &made.network, Height::new(1), Some(link)).unwrap();
    }
    let found = SegmentScan {
        title: None,
        records: Vec::new(),
        spans: Vec::new(),
        link: Some(link),
        good: None,
        tail: Tail::Clean,
    };
    let (first, network) = (Height::new(at as u64), &made.network);
    let mut scan = Scan { source, length, network, first, at: 0, resync: false, found };
    while scan.record().unwrap() {}
    scan.found
}

#[test]
fn each_of_524_288_flipped_bits_is_found_and_costs_one_block() {
    let made = made();
    let whole = scan_all(&made, &made.bytes);
    let count = made.frames.len() - 1;
    assert!(
        made.bytes.len() > SEGMENT_BYTES - 1_000 && whole.records.len() == count && whole.spans.is_empty()
    );
    let mut bytes = made.bytes.clone();
    bytes.resize(SEGMENT_BYTES, 0);
    // What is left of the 64 KiB is the beginning of one more frame.
    let (more, _) = frame::encode(
        count as u64 + 1,
        &whole.link.unwrap(),
        &codec::encode(&block(made.network, count as u64 + 1)),
    );
    let rest = SEGMENT_BYTES - made.bytes.len();
    bytes[made.bytes.len()..].copy_from_slice(&more[..rest]);
    let made = Made { bytes, ..made };
    let (mut found, mut cases, mut at) = (0u64, 0u64, 0usize);
    let mut bytes = made.bytes.clone();
    for bit in 0..SEGMENT_BYTES * 8 {
        let byte = bit / 8;
        while made.frames.get(at + 1).is_some_and(|(next, _)| *next <= byte) {
            at += 1;
        }
        bytes[byte] ^= 1 << (bit % 8);
        let scanned = scan_around(&made, &bytes, at);
        let torn_part = byte >= SEGMENT_BYTES - rest;
        let expected = if at == 0 { None } else { Some(at as u64) };
        let lost =
            expected.is_some_and(|height| scanned.records.iter().all(|(found, _, _)| found.get() != height));
        let told = !scanned.spans.is_empty() || (torn_part && scanned.tail == Tail::Torn);
        // The cut-off frame at the end counts for nobody: it is torn or damaged, never a block.
        let right = if torn_part { told } else { told && (lost || at == 0) };
        found += u64::from(right);
        cases += 1;
        bytes[byte] ^= 1 << (bit % 8);
    }
    assert_eq!((found, cases), (524_288, 524_288));
}

#[test]
fn behind_damage_every_other_block_is_still_found() {
    let made = made();
    let count = made.frames.len() - 1;
    let mut bytes = made.bytes.clone();
    for bit in (0..made.bytes.len() * 8).step_by(1_021) {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let scanned = scan_all(&made, &bytes);
        let title = bit / 8 < made.frames[1].0;
        assert_eq!(scanned.records.len(), if title { count } else { count - 1 }, "bit {bit}");
        assert_eq!(scanned.spans.len(), 1, "bit {bit}");
        let span = &scanned.spans[0];
        assert!((span.offset..span.end).contains(&(bit as u64 / 8)), "bit {bit}: {span:?}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn bytes_inside_a_block_that_look_like_a_frame_are_not_taken_for_one() {
    let made = made();
    // A record whose payload carries a whole frame of the next height, and whose head is damaged.
    let (fake, _) = frame::encode(2, &Link::default(), b"no block at all");
    let (mut bytes, link) = frame::encode(1, &Link::default(), &segment_title(&made.network));
    let at = bytes.len();
    let (carrier, link) = frame::encode(1, &link, &[&[7u8; 300][..], &fake, &[9; 300]].concat());
    bytes.extend_from_slice(&carrier);
    let (next, _) = frame::encode(2, &link, &codec::encode(&block(made.network, 2)));
    bytes.extend_from_slice(&next);
    bytes[at + 20] ^= 1;
    let scanned = scan_all(&made, &bytes);
    assert_eq!(scanned.records.len(), 1);
    let (height, offset, _) = scanned.records[0];
    assert_eq!((height, offset), (Height::new(2), (at + carrier.len()) as u64));
}

use std::io::Write;

use proptest::prelude::*;
use tiltyard_proto::hash::plain;
use tiltyard_proto::ids::FileHash;

use super::*;

fn noise(length: usize) -> Vec<u8> {
    let mut reader = blake3::Hasher::new().finalize_xof();
    let mut out = vec![0; length];
    reader.fill(&mut out);
    out
}

fn on_disk(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    file
}

fn encoded(bytes: &[u8], piece: u32) -> Vec<u8> {
    let file = on_disk(bytes);
    let outboard = outboard(&file, bytes.len() as u64).unwrap();
    assert_eq!(outboard.root.as_bytes(), &plain(bytes));
    let mut out = Vec::new();
    encode(&file, &outboard, piece, &mut out).unwrap();
    out
}

#[test]
fn every_piece_of_every_length_is_proven_and_has_the_length_announced() {
    let piece = usize::try_from(PIECE_BYTES).unwrap();
    for length in [1, 1024, 16_384, 16_385, 40_000, piece - 1, piece, piece + 1, 2 * piece + 17] {
        let bytes = noise(length);
        let hash = FileHash::from_bytes(plain(&bytes));
        let mut whole = Vec::new();
        for number in 0..u32::try_from(piece_count(length as u64)).unwrap() {
            let sent = encoded(&bytes, number);
            assert_eq!(sent.len(), encoded_bytes(length as u64, number), "{length} piece {number}");
            whole.extend(decode(&hash, length as u64, number, &sent).unwrap());
        }
        assert!(whole == bytes, "{length}");
    }
}

#[test]
fn a_piece_of_another_place_file_or_length_is_refused() {
    let piece = usize::try_from(PIECE_BYTES).unwrap();
    let bytes = noise(2 * piece);
    let hash = FileHash::from_bytes(plain(&bytes));
    let size = bytes.len() as u64;
    let (sent, last) = (encoded(&bytes, 0), encoded(&bytes, 1));
    let refused = [
        decode(&hash, size, 1, &sent),
        decode(&FileHash::from_bytes([0; 32]), size, 0, &sent),
        // A wrong size shows at the end of the file; `PartialBlob::finish` checks the whole once more.
        decode(&hash, size - 1, 1, &last),
        decode(&hash, size, 0, &sent[..sent.len() - 1]),
        decode(&hash, size, 0, &[sent.as_slice(), &[0]].concat()),
        decode(&hash, size, 0, &[]),
    ];
    for (case, result) in refused.iter().enumerate() {
        assert!(*result == Err(Corrupt), "case {case}");
    }
}

#[test]
fn a_piece_beyond_the_end_is_empty_and_claims_never_overflow() {
    assert_eq!(piece_bytes(10, 1), 0);
    assert_eq!(piece_bytes(u64::MAX, u32::MAX), PIECE_BYTES);
    assert_eq!(piece_count(0), 0);
    assert_eq!(piece_count(PIECE_BYTES + 1), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_bit_anywhere_is_found(at in 0usize..40_000, bit in 0u8..8) {
        let bytes = noise(39_000);
        let hash = FileHash::from_bytes(plain(&bytes));
        let mut sent = encoded(&bytes, 0);
        let at = at % sent.len();
        sent[at] ^= 1 << bit;
        prop_assert_eq!(decode(&hash, 39_000, 0, &sent), Err(Corrupt));
    }
}

//! Sealed evaluation sets open whole or not at all.

use proptest::prelude::*;
use tiltyard_proto::ids::SealKey;
use tiltyard_proto::seal::{
    CHUNK_BYTES, PREFIX_BYTES, SealError, TAG_BYTES, open, plaintext_bytes, seal, sealed_bytes,
};

use crate::codec_gate::fixed;
use crate::sample::seal_key;

const WHOLE: usize = CHUNK_BYTES + TAG_BYTES;

fn text(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

fn refused(sealed: &[u8]) -> SealError {
    open(&seal_key(), sealed, 1 << 20).expect_err("altered bytes do not open")
}

#[test]
fn sets_of_every_edge_length_open_to_what_was_sealed() {
    for length in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES + 7]
    {
        let plain = text(length);
        let sealed = seal(&seal_key(), &plain);
        assert_eq!(sealed.len() as u64, sealed_bytes(length as u64), "{length}");
        assert_eq!(plaintext_bytes(sealed.len() as u64), Some(length as u64));
        assert_eq!(open(&seal_key(), &sealed, length as u64), Ok(plain), "{length}");
    }
}

#[test]
fn another_key_opens_nothing() {
    let sealed = seal(&seal_key(), &text(100));
    let other = SealKey::from_bytes([1; 32]);
    assert_eq!(open(&other, &sealed, 1 << 20), Err(SealError::Chunk { chunk: 0 }));
}

#[test]
fn a_cut_set_does_not_open_even_at_a_chunk_border() {
    let sealed = seal(&seal_key(), &text(3 * CHUNK_BYTES));
    for chunks in 1..3 {
        let cut = &sealed[..PREFIX_BYTES + chunks * WHOLE];
        assert_eq!(refused(cut), SealError::Chunk { chunk: chunks as u32 - 1 }, "the last chunk is marked");
    }
    assert_eq!(refused(&sealed[..PREFIX_BYTES + TAG_BYTES]), SealError::Chunk { chunk: 0 });
    assert!(matches!(refused(&sealed[..PREFIX_BYTES]), SealError::Length { .. }));
    assert!(matches!(refused(&[]), SealError::Length { .. }));
}

#[test]
fn swapped_repeated_and_appended_chunks_do_not_open() {
    let sealed = seal(&seal_key(), &text(3 * CHUNK_BYTES));
    let (prefix, body) = sealed.split_at(PREFIX_BYTES);
    let chunk = |at: usize| &body[at * WHOLE..(at + 1) * WHOLE];
    let swapped = [prefix, chunk(1), chunk(0), chunk(2)].concat();
    assert_eq!(refused(&swapped), SealError::Chunk { chunk: 0 });
    let repeated = [prefix, chunk(0), chunk(0), chunk(2)].concat();
    assert_eq!(refused(&repeated), SealError::Chunk { chunk: 1 });
    let appended = [sealed.as_slice(), chunk(2)].concat();
    assert_eq!(refused(&appended), SealError::Chunk { chunk: 2 });
}

#[test]
fn every_flipped_bit_of_a_small_set_is_found() {
    let sealed = seal(&seal_key(), &text(40));
    for bit in 0..sealed.len() * 8 {
        let mut altered = sealed.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(refused(&altered), SealError::Chunk { chunk: 0 }, "bit {bit}");
    }
}

#[test]
fn a_set_larger_than_allowed_is_refused_before_decryption() {
    let sealed = seal(&SealKey::from_bytes([9; 32]), &text(1_001));
    assert_eq!(open(&seal_key(), &sealed, 1_000), Err(SealError::TooLarge { bytes: 1_001, max: 1_000 }));
}

#[test]
fn one_key_on_two_texts_shares_no_nonce() {
    let (a, b) = (seal(&seal_key(), &text(64)), seal(&seal_key(), &text(65)));
    assert_ne!(a[..PREFIX_BYTES], b[..PREFIX_BYTES]);
}

#[test]
fn lengths_that_no_sealing_has_are_refused() {
    let valid: Vec<u64> = (0..3 * CHUNK_BYTES as u64).map(sealed_bytes).collect();
    for length in 0..2 * WHOLE as u64 + 100 {
        let known = valid.binary_search(&length).is_ok();
        assert_eq!(plaintext_bytes(length).is_some(), known, "{length}");
    }
}

proptest! {
    #![proptest_config(fixed(48))]

    #[test]
    fn any_text_round_trips(plain in proptest::collection::vec(any::<u8>(), 0..200_000), byte in any::<u8>()) {
        let key = SealKey::from_bytes([byte; 32]);
        let sealed = seal(&key, &plain);
        prop_assert_eq!(sealed.len() as u64, sealed_bytes(plain.len() as u64));
        prop_assert_eq!(open(&key, &sealed, plain.len() as u64), Ok(plain));
    }
}

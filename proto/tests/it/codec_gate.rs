//! The codec's door: one encoding per value, and hostile bytes cost no more than they weigh.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tiltyard_proto::block::Block;
use tiltyard_proto::certificate::Certificate;
use tiltyard_proto::codec::{self, CodecError};
use tiltyard_proto::transaction::SignedTransaction;
use tiltyard_proto::validators::Validator;
use tiltyard_proto::wire::TransactionFrame;

use crate::sample::{self, Numbers};

pub(crate) fn fixed(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x7111_7a2d),
        ..ProptestConfig::default()
    }
}

#[test]
fn every_sample_decodes_to_its_own_bytes() {
    for case in sample::all() {
        assert_eq!((case.redecode)(&case.bytes), Ok(case.bytes.clone()), "{} {}", case.kind, case.name);
    }
}

#[test]
fn every_cut_sample_is_refused() {
    for case in sample::all() {
        for length in 0..case.bytes.len() {
            assert!(
                (case.redecode)(&case.bytes[..length]).is_err(),
                "{} {} at {length}",
                case.kind,
                case.name
            );
        }
    }
}

/// Changes bytes the way that finds non-canonical forms: wider integers, indefinite lengths, tags, swapped runs.
fn mutate(bytes: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=numbers.below(2) {
        let at = numbers.below(out.len());
        match numbers.below(8) {
            0 => out[at] ^= 1 << numbers.below(8),
            1 => out[at] = numbers.next() as u8,
            2 => {
                let small = out[at] & 0x1f;
                if small < 24 {
                    out[at] = (out[at] & 0xe0) | 24;
                    out.insert(at + 1, small);
                }
            }
            3 => out.insert(at, 0xc0 | (numbers.next() as u8 & 0x1f)),
            4 => {
                if out[at] >> 5 == 4 || out[at] >> 5 == 5 {
                    out[at] = (out[at] & 0xe0) | 31;
                    let end = at + 1 + numbers.below(out.len() - at);
                    out.insert(end.min(out.len()), 0xff);
                }
            }
            5 => {
                out.remove(at);
                if out.is_empty() {
                    out.push(0);
                }
            }
            6 => {
                let other = numbers.below(out.len());
                out.swap(at, other);
            }
            _ => {
                let end = (at + 1 + numbers.below(40)).min(out.len());
                let run = out[at..end].to_vec();
                out.splice(at..at, run);
            }
        }
    }
    out
}

#[test]
fn mutated_bytes_are_refused_unless_they_are_the_one_encoding() {
    let mut numbers = Numbers(7);
    let (mut decodable, mut crooked) = (0u32, 0u32);
    for case in sample::all() {
        for _ in 0..400 {
            let bytes = mutate(&case.bytes, &mut numbers);
            let lax = (case.lax)(&bytes);
            decodable += u32::from(lax.is_some());
            match (case.redecode)(&bytes) {
                Ok(again) => assert_eq!(again, bytes, "{} {}", case.kind, case.name),
                Err(error) => {
                    if let Some(straight) = lax {
                        assert_ne!(straight, bytes, "{} {}: {error}", case.kind, case.name);
                        assert_eq!(error, CodecError::NotCanonical { what: "sample" });
                        crooked += 1;
                    }
                }
            }
        }
    }
    // The test proves something only while the mutations do reach forms that a lax decoder takes.
    assert!(crooked * 10 > decodable, "{crooked} of {decodable} decodable inputs were not canonical");
}

#[test]
fn trailing_bytes_are_refused() {
    for case in sample::all() {
        let bytes = [case.bytes.as_slice(), &[0]].concat();
        assert!((case.redecode)(&bytes).is_err(), "{} {}", case.kind, case.name);
    }
}

#[test]
fn longer_than_allowed_is_refused_unread() {
    let error = codec::decode::<Block>("block", &[0xff; 65], 64).expect_err("one byte too many");
    assert_eq!(error, CodecError::TooLong { what: "block", length: 65, max: 64 });
}

#[test]
fn a_claimed_length_reserves_no_memory() {
    // Arrays, maps, byte strings and texts that claim 2^62 elements, at every place where one may stand.
    for major in [0x9b, 0xbb, 0x5b, 0x7b_u8] {
        let claim = [&[major][..], &(1u64 << 62).to_be_bytes()[..]].concat();
        for case in sample::all() {
            for at in 0..case.bytes.len().min(300) {
                let bytes = [&case.bytes[..at], &claim, &case.bytes[at..]].concat();
                assert!((case.redecode)(&bytes).is_err(), "{} {} at {at}", case.kind, case.name);
            }
        }
    }
}

#[test]
fn a_million_nested_lists_do_not_overflow_the_stack() {
    for byte in [0x81, 0xa1, 0x9f, 0xc1, 0xbf_u8] {
        let bytes = vec![byte; 1 << 20];
        for case in sample::all() {
            assert!((case.redecode)(&bytes).is_err(), "{byte:#x} as {} {}", case.kind, case.name);
        }
    }
}

#[test]
fn depth_is_limited_to_128_levels() {
    // An unknown field of a struct is skipped by the decoder: the one place where depth is the sender's choice.
    let nested = |levels: usize| {
        let mut bytes = vec![0xa3, 0x00];
        let validator = Validator { key: sample::key(1), stake: tiltyard_proto::units::Stake::new(1) };
        bytes.extend_from_slice(&codec::encode(&validator)[2..]);
        bytes.push(0x05);
        bytes.extend(std::iter::repeat_n(0x81, levels));
        bytes.push(0x00);
        bytes
    };
    assert!(
        serde_cbor::from_slice::<Validator>(&nested(100)).is_ok(),
        "the lax decoder skips what it does not know"
    );
    let deep = serde_cbor::from_slice::<Validator>(&nested(200)).expect_err("too deep");
    assert!(deep.to_string().contains("recursion"), "{deep}");
    assert!(
        codec::decode::<Validator>("validator", &nested(100), 1 << 20).is_err(),
        "the gate takes neither"
    );
}

#[test]
fn a_quoted_input_does_not_swell_the_error() {
    let mut bytes = vec![0x7a, 0, 0x0f, 0xff, 0xf0];
    bytes.extend(std::iter::repeat_n(b'"', 0x0f_fff0));
    let CodecError::Malformed { fact, .. } =
        codec::decode::<Certificate>("certificate", &bytes, 1 << 20).expect_err("a text is no certificate")
    else {
        panic!("a text is malformed as a certificate");
    };
    assert!(fact.chars().count() <= 200, "{}", fact.len());
}

proptest! {
    #![proptest_config(fixed(512))]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        for case in sample::all() {
            if let Ok(again) = (case.redecode)(&bytes) {
                prop_assert_eq!(&again, &bytes);
            }
        }
    }

    #[test]
    fn transaction_frames_round_trip(lengths in proptest::collection::vec(0usize..300, 0..20)) {
        let transactions = lengths.iter().map(|length| vec![7u8; *length].into()).collect();
        let frame = TransactionFrame { transactions };
        let bytes = codec::encode(&frame);
        prop_assert_eq!(codec::decode::<TransactionFrame>("frame", &bytes, bytes.len()), Ok(frame));
    }
}

#[test]
fn a_transaction_as_long_as_allowed_fits_its_own_frame_limit() {
    let signed = sample::signed(sample::transfer());
    let inner = codec::encode(&signed.transaction).len();
    assert_eq!(signed.encode().len() - inner, 69, "what the signature adds is counted exactly");
    assert_eq!(SignedTransaction::decode(&signed.encode()), Ok(signed));
}

//! Score rows as the ledger carries them.

use proptest::prelude::*;
use tiltyard_proto::score::{Fault, MicroNats, Row, RowError};

use crate::codec_gate::fixed;

#[test]
fn a_row_of_the_wrong_length_is_refused() {
    for length in [0, 2, 3, 4, 7, 9, 12] {
        let expected = RowError::Length { length, examples: 2 };
        assert_eq!(Row::from_bytes(&vec![0; length], 2), Err(expected), "{length}");
    }
}

#[test]
fn a_task_without_examples_has_no_numeric_rows() {
    assert_eq!(Row::from_bytes(&[], 0), Err(RowError::Length { length: 0, examples: 0 }));
    assert_eq!(
        Row::from_bytes(&vec![0; 4_100], 1_025),
        Err(RowError::Length { length: 4_100, examples: 1_025 })
    );
}

#[test]
fn a_score_above_the_clamp_is_refused() {
    let bytes = [MicroNats::MAX.get().to_be_bytes(), (MicroNats::MAX.get() + 1).to_be_bytes()].concat();
    let expected = RowError::AboveClamp { example: 1, score: (1 << 25) + 1 };
    assert_eq!(Row::from_bytes(&bytes, 2), Err(expected));
}

#[test]
fn every_fault_has_its_own_byte_and_the_next_byte_is_unknown() {
    for (at, fault) in Fault::ALL.into_iter().enumerate() {
        assert_eq!(Row::from_bytes(&[at as u8], 9), Ok(Row::Fault(fault)));
        assert_eq!(usize::from(fault.code()), at, "the byte is the place in the order of ties");
    }
    assert_eq!(Row::from_bytes(&[8], 9), Err(RowError::UnknownFault { code: 8 }));
}

proptest! {
    #![proptest_config(fixed(256))]

    #[test]
    fn rows_round_trip(values in proptest::collection::vec(any::<u64>(), 1..=1_024)) {
        let row = Row::Scores(values.iter().map(|value| MicroNats::clamped(*value)).collect());
        let bytes = row.to_bytes();
        prop_assert!(bytes.len() <= 4_096);
        prop_assert_eq!(Row::from_bytes(&bytes, values.len()), Ok(row));
    }

    #[test]
    fn clamping_keeps_the_order(a in any::<u64>(), b in any::<u64>()) {
        if a <= b {
            prop_assert!(MicroNats::clamped(a) <= MicroNats::clamped(b));
        }
        prop_assert!(u64::from(MicroNats::clamped(a).get()) <= a);
    }
}

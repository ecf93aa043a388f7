//! Validator sets: what makes one, and who proposes.

use std::collections::BTreeMap;

use tiltyard_proto::keys::PublicKey;
use tiltyard_proto::units::{Height, Round, Stake};
use tiltyard_proto::validators::{Validator, ValidatorSet, ValidatorSetError};

use crate::sample::{genesis_hash, key, set};

fn members(stakes: &[(u8, u64)]) -> Vec<Validator> {
    let mut members: Vec<Validator> =
        stakes.iter().map(|(n, stake)| Validator { key: key(*n), stake: Stake::new(*stake) }).collect();
    members.sort();
    members
}

#[test]
fn lists_that_are_no_sets_are_refused_by_name() {
    let of = ValidatorSet::try_from;
    assert_eq!(of(vec![]), Err(ValidatorSetError::Count { count: 0 }));
    let many = vec![Validator { key: key(1), stake: Stake::new(1) }; 129];
    assert_eq!(of(many), Err(ValidatorSetError::Count { count: 129 }));
    let mut crossed = members(&[(1, 1), (2, 1)]);
    crossed.reverse();
    assert!(matches!(of(crossed), Err(ValidatorSetError::Order { .. })));
    assert!(matches!(of(members(&[(1, 1), (1, 1)])), Err(ValidatorSetError::Order { .. })));
    assert!(matches!(of(members(&[(1, 0)])), Err(ValidatorSetError::NoStake { .. })));
    assert_eq!(of(members(&[(1, 1 << 60), (2, 1 << 60)])), Err(ValidatorSetError::TotalStake));
    let weak = vec![Validator { key: PublicKey::from_bytes([0; 32]), stake: Stake::new(1) }];
    assert!(matches!(of(weak), Err(ValidatorSetError::Key(_))));
}

#[test]
fn proposers_are_drawn_by_stake() {
    let set = ValidatorSet::try_from(members(&[(1, 600), (2, 300), (3, 100)])).expect("a set");
    let mut drawn: BTreeMap<PublicKey, u32> = BTreeMap::new();
    for height in 1..=10_000 {
        let proposer = set.proposer(&genesis_hash(), height / 100, Height::new(height), Round::new(0));
        *drawn.entry(proposer.key).or_default() += 1;
    }
    for (n, expected) in [(1, 6_000), (2, 3_000), (3, 1_000)] {
        let found = drawn[&key(n)];
        assert!(found.abs_diff(expected) < 200, "validator {n}: {found}, expected about {expected}");
    }
}

#[test]
fn a_silent_proposer_is_followed_by_another_within_a_few_rounds() {
    for height in 1..=200 {
        let draw = |round| set().proposer(&genesis_hash(), 0, Height::new(height), Round::new(round)).key;
        assert!((1..40).any(|round| draw(round) != draw(0)), "height {height}");
    }
}

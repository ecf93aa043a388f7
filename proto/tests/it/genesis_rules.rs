//! Genesis documents: what is refused, and by which name.

use tiltyard_proto::genesis::{Genesis, GenesisError, Params};
use tiltyard_proto::keys::PublicKey;
use tiltyard_proto::units::{Blocks, MicroCredits, Ppm, Stake};

use crate::sample::genesis;

fn refused(edit: impl FnOnce(&mut Genesis)) -> GenesisError {
    let mut altered = genesis();
    edit(&mut altered);
    Genesis::decode(&altered.encode()).expect_err("a rule is broken")
}

#[test]
fn the_sample_is_read_back_whole() {
    assert_eq!(Genesis::decode(&genesis().encode()), Ok(genesis()));
}

#[test]
fn default_parameters_hold_their_own_rules() {
    for validators in [1, 4, 128] {
        assert_eq!(Params::default_for(validators).check(), Ok(()));
    }
}

#[test]
fn a_network_may_do_without_a_pace() {
    let params = Params { block_interval_ms: 0, ..Params::default_for(4) };
    assert_eq!(params.check(), Ok(()));
}

#[test]
fn parameters_outside_their_limits_are_named() {
    let name = |edit: fn(&mut Params)| match refused(|genesis| edit(&mut genesis.params)) {
        GenesisError::Params { name, .. } => name,
        other => panic!("{other}"),
    };
    assert_eq!(name(|p| p.block_interval_ms = 600_001), "block_interval_ms");
    assert_eq!(name(|p| p.prevote_timeout_ms = 0), "prevote_timeout_ms");
    assert_eq!(name(|p| p.block_bytes_max = 2 << 20), "block_bytes_max");
    assert_eq!(name(|p| p.epoch = Blocks::ZERO), "epoch");
    assert_eq!(name(|p| p.window_min = Blocks::MAX), "window_min");
    assert_eq!(name(|p| p.entrants_max = 65), "entrants_max");
    assert_eq!(name(|p| p.stamp_bits = 255), "stamp_bits");
    assert_eq!(name(|p| p.burn = Ppm::new(-1)), "burn");
    assert_eq!(name(|p| p.judges = Ppm::new(960_000)), "burn + judges");
    assert_eq!(name(|p| p.places = [0, 1, 1]), "places");
    assert_eq!(name(|p| p.slash = Ppm::new(1_000_001)), "slash");
    assert_eq!(name(|p| p.stake_min = Stake::ZERO), "stake_min");
    assert_eq!(name(|p| p.unbonding = Blocks::new(1_000)), "unbonding");
}

#[test]
fn stake_must_stay_longer_than_tasks_and_evidence() {
    let mut params = Params::default_for(4);
    let longest = params.window_max.get() * 7 + params.evidence_age.get();
    params.unbonding = Blocks::new(longest);
    assert!(params.check().is_err(), "as long is too short");
    params.unbonding = Blocks::new(longest + 1);
    assert_eq!(params.check(), Ok(()));
}

#[test]
fn doubled_unsorted_and_weak_grants_are_refused() {
    assert!(matches!(refused(|g| g.grants.reverse()), GenesisError::Grants { .. }));
    assert!(matches!(refused(|g| g.grants = vec![g.grants[0]; 2]), GenesisError::Grants { .. }));
    let weak = PublicKey::from_bytes([0; 32]);
    assert!(matches!(refused(|g| g.grants[0].account = weak), GenesisError::Grants { .. }));
}

#[test]
fn more_money_than_fits_is_refused() {
    assert_eq!(refused(|g| g.grants[0].amount = MicroCredits::MAX), GenesisError::Supply);
}

#[test]
fn names_and_whereabouts_are_bounded() {
    assert_eq!(refused(|g| g.name = "n".repeat(33)), GenesisError::Name { bytes: 33 });
    let whereabouts = |edit: fn(&mut Genesis)| {
        assert!(matches!(refused(edit), GenesisError::Whereabouts { .. }));
    };
    whereabouts(|g| g.validators[0].peer = vec![0; 65].into());
    whereabouts(|g| g.validators[0].addresses = vec![String::new(); 9]);
    whereabouts(|g| g.validators[0].addresses = vec!["a".repeat(129)]);
    whereabouts(|g| g.validators[0].payout = PublicKey::from_bytes([0; 32]));
}

#[test]
fn an_unknown_version_and_foreign_bytes_are_refused() {
    assert_eq!(refused(|g| g.version = 2), GenesisError::Version { version: 2 });
    assert!(matches!(Genesis::decode(b"{}"), Err(GenesisError::Codec(_))));
    assert!(matches!(Genesis::decode(&[]), Err(GenesisError::Codec(_))));
}

//! Light verification: adjacent, skipping, too old, too new, stale, forked.

use tiltyard_proto::certificate::CertificateError;
use tiltyard_proto::genesis::GenesisError;
use tiltyard_proto::ids::{BlockHash, StateRoot};
use tiltyard_proto::keys::GenesisHash;
use tiltyard_proto::light::{
    LightBlock, LightError, Trusted, WitnessOutcome, compare_witness, halfway, verify_adjacent,
    verify_skipping,
};
use tiltyard_proto::units::{Height, Stake, UnixMillis};

use crate::chain::{Chain, OPTIONS, PACE_MS, four, resign, thin};
use crate::sample::genesis_hash;

fn skip(chain: &Chain, from: &Trusted, to: u64) -> Result<Trusted, LightError> {
    verify_skipping(from, chain.light(to), &OPTIONS, chain.now(to))
}

/// Sets 1–4, from height 4 on 3–6, from height 7 on 5–8: neighbours share half, the ends share nothing.
fn rolling() -> Chain {
    let mut chain = Chain::new();
    for height in 1..=9 {
        let next: Option<&[u8]> = match height {
            3 => Some(&[3, 4, 5, 6]),
            6 => Some(&[5, 6, 7, 8]),
            _ => None,
        };
        chain.grow(next, |_| {});
    }
    chain
}

#[test]
fn a_client_follows_block_by_block_through_set_changes() {
    let chain = rolling();
    let mut trusted = chain.trusted();
    for height in 1..=9 {
        trusted = verify_adjacent(&trusted, chain.light(height), &OPTIONS, chain.now(height))
            .expect("an honest chain");
        assert_eq!(trusted.height(), Height::new(height));
        assert_eq!(trusted.state_root(), Some(chain.light(height).header.state_root));
    }
}

#[test]
fn a_client_skips_while_a_third_of_the_trusted_stake_stays() {
    let chain = rolling();
    let at_six = skip(&chain, &chain.trusted(), 6).expect("half of the stake stayed");
    let refusal = skip(&chain, &chain.trusted(), 9).expect_err("nobody stayed");
    let expected =
        LightError::TooFarAhead { height: Height::new(9), signed: Stake::ZERO, total: Stake::new(4_000) };
    assert_eq!(refusal, expected);
    assert!(skip(&chain, &at_six, 9).is_ok(), "the same header from a nearer one");
}

#[test]
fn bisection_reaches_a_tip_that_one_skip_does_not() {
    let chain = rolling();
    let (mut trusted, mut asked) = (chain.trusted(), 0);
    let mut targets = vec![Height::new(9)];
    while let Some(target) = targets.last().copied() {
        asked += 1;
        match skip(&chain, &trusted, target.get()) {
            Ok(next) => {
                trusted = next;
                targets.pop();
            }
            Err(LightError::TooFarAhead { .. }) => {
                targets.push(halfway(trusted.height(), target).expect("something lies between"));
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(trusted.height(), Height::new(9));
    assert!(asked <= 6, "{asked} headers asked for");
}

#[test]
fn exactly_a_third_of_the_trusted_stake_is_not_enough() {
    let mut chain = Chain::new();
    chain.grow(Some(&[1, 2, 3]), |_| {});
    chain.grow(Some(&[3, 5, 6]), |_| {});
    chain.grow(None, |_| {});
    let trusted = verify_adjacent(&chain.trusted(), chain.light(1), &OPTIONS, chain.now(1)).expect("honest");
    assert!(matches!(skip(&chain, &trusted, 3), Err(LightError::TooFarAhead { .. })));
}

#[test]
fn a_skip_to_the_very_next_height_obeys_the_announced_set() {
    let chain = four(2);
    let trusted = skip(&chain, &chain.trusted(), 1).expect("honest");
    let mut coup = chain.light(2);
    coup.set = crate::sample::set_of(&crate::chain::sorted(&[1, 2]), 1_000);
    coup.header.validators_hash = coup.set.hash();
    resign(&mut coup, &[1, 2]);
    let refusal = verify_skipping(&trusted, coup, &OPTIONS, chain.now(2)).expect_err("half makes no set");
    assert!(matches!(refusal, LightError::Set { .. }), "{refusal}");
}

#[test]
fn too_few_signatures_too_old_or_too_new_a_header_are_refused() {
    let chain = four(3);
    let trusted = skip(&chain, &chain.trusted(), 1).expect("honest");
    let refuse =
        |block: LightBlock, now| verify_skipping(&trusted, block, &OPTIONS, now).expect_err("refused");
    let mut thinned = chain.light(3);
    thinned.certificate = thin(&thinned.certificate, &thinned.header, &[1, 2, 3, 4], &[0, 1]);
    assert!(matches!(
        refuse(thinned, chain.now(3)),
        LightError::Certificate(CertificateError::NoQuorum { .. })
    ));
    assert!(matches!(refuse(chain.light(1), chain.now(3)), LightError::NotNewer { .. }));
    let before = UnixMillis::new(chain.now(3).get() - OPTIONS.clock_drift_ms - 1);
    assert!(matches!(refuse(chain.light(3), before), LightError::FromFuture { .. }));
    let after = UnixMillis::new(chain.now(1).get() + OPTIONS.trust_period_ms + 1);
    assert!(matches!(refuse(chain.light(3), after), LightError::TrustExpired { .. }));
}

#[test]
fn a_frozen_tip_is_stale() {
    let chain = four(1);
    let trusted = skip(&chain, &chain.trusted(), 1).expect("honest");
    let edge = UnixMillis::new(chain.now(1).get() + OPTIONS.stale_after_ms);
    assert_eq!(trusted.check_fresh(&OPTIONS, edge), Ok(()));
    let late = UnixMillis::new(edge.get() + 1);
    assert!(matches!(trusted.check_fresh(&OPTIONS, late), Err(LightError::Stale { .. })));
}

#[test]
fn swapped_parts_of_a_light_block_are_refused() {
    let chain = rolling();
    let refuse = |edit: &dyn Fn(&mut LightBlock)| {
        let mut block = chain.light(2);
        edit(&mut block);
        let trusted = skip(&chain, &chain.trusted(), 1).expect("honest");
        verify_skipping(&trusted, block, &OPTIONS, chain.now(2)).expect_err("swapped")
    };
    assert!(matches!(refuse(&|b| b.set = chain.light(9).set), LightError::Set { .. }));
    assert!(matches!(refuse(&|b| b.next_set = chain.light(9).set), LightError::Set { .. }));
    assert!(matches!(refuse(&|b| b.certificate = chain.light(3).certificate), LightError::OtherBlock { .. }));
    assert!(matches!(
        refuse(&|b| b.header.state_root = StateRoot::from_bytes([9; 32])),
        LightError::OtherBlock { .. }
    ));
    assert!(matches!(
        refuse(&|b| b.header.genesis = GenesisHash::from_bytes([9; 32])),
        LightError::Foreign { .. }
    ));
    assert!(matches!(refuse(&|b| b.header.version = 2), LightError::Foreign { version: 2, .. }));
    let orphan = |b: &mut LightBlock| {
        b.header.parent = BlockHash::from_bytes([9; 32]);
        resign(b, &[1, 2, 3, 4]);
    };
    assert!(matches!(refuse(&orphan), LightError::Parent { .. }));
}

#[test]
fn trust_starts_at_the_right_genesis_or_a_named_block_only() {
    let chain = four(2);
    let wrong = GenesisHash::from_bytes([1; 32]);
    let refusal = Trusted::from_genesis(&chain.genesis, &wrong).expect_err("another hash");
    assert_eq!(refusal, GenesisError::Foreign { found: genesis_hash(), trusted: wrong }.into());
    let named = chain.light(2).header.hash();
    assert!(Trusted::from_checkpoint(&genesis_hash(), &named, chain.light(2)).is_ok());
    let refusal =
        Trusted::from_checkpoint(&genesis_hash(), &named, chain.light(1)).expect_err("another block");
    assert!(matches!(refusal, LightError::OtherBlock { .. }));
    let mut unsigned = chain.light(2);
    unsigned.certificate = thin(&unsigned.certificate, &unsigned.header, &[1, 2, 3, 4], &[0]);
    let refusal = Trusted::from_checkpoint(&genesis_hash(), &named, unsigned).expect_err("no quorum");
    assert!(matches!(refusal, LightError::Certificate(_)));
}

#[test]
fn what_is_trusted_survives_a_restart() {
    let chain = four(2);
    let trusted = skip(&chain, &chain.trusted(), 2).expect("honest");
    let bytes = tiltyard_proto::codec::encode(&trusted);
    assert_eq!(tiltyard_proto::codec::decode::<Trusted>("trusted", &bytes, 1 << 20), Ok(trusted));
}

/// The block of height 2 again, with another state, signed by the members at `who` of the four.
fn twin(chain: &Chain, who: &[usize]) -> LightBlock {
    let mut block = chain.light(2);
    block.header.state_root = StateRoot::from_bytes([0xbb; 32]);
    resign(&mut block, &[1, 2, 3, 4]);
    block.certificate = thin(&block.certificate, &block.header, &[1, 2, 3, 4], who);
    block
}

fn compare(chain: &Chain, witness: LightBlock) -> WitnessOutcome {
    let root = skip(chain, &chain.trusted(), 1).expect("honest");
    let primary = chain.light(2);
    compare_witness(&root, &primary.certificate, &primary.set, witness, &OPTIONS, chain.now(2))
}

#[test]
fn an_agreeing_witness_agrees_and_a_lying_one_proves_nothing() {
    let chain = four(2);
    assert_eq!(compare(&chain, chain.light(2)), WitnessOutcome::Agrees);
    let lie = compare(&chain, twin(&chain, &[0, 1]));
    assert!(matches!(lie, WitnessOutcome::Unproven(LightError::Certificate(_))), "{lie:?}");
    let elsewhere = compare(&chain, chain.light(1));
    assert!(matches!(elsewhere, WitnessOutcome::Unproven(LightError::OtherBlock { .. })));
}

#[test]
fn a_fork_names_those_who_signed_both_blocks() {
    let chain = four(2);
    let WitnessOutcome::Fork { height, evidence, .. } = compare(&chain, twin(&chain, &[0, 2, 3])) else {
        panic!("two certified blocks of one height are a fork");
    };
    assert_eq!((height, evidence.len()), (Height::new(2), 3));
    let verifier = tiltyard_proto::keys::Verifier::new(genesis_hash());
    for accusation in evidence {
        assert_eq!(accusation.verify(&verifier), Ok(()));
    }
}

#[test]
fn time_that_stands_still_is_refused() {
    let mut chain = Chain::new();
    chain.grow(None, |_| {});
    chain.grow(None, |header| header.time = UnixMillis::new(header.time.get() - PACE_MS));
    let trusted = skip(&chain, &chain.trusted(), 1).expect("honest");
    assert!(matches!(skip(&chain, &trusted, 2), Err(LightError::NotNewer { .. })));
}

//! Evidence: two signed contradictions of one key, nothing less.

use tiltyard_proto::evidence::{Evidence, EvidenceError};
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::keys::{GenesisHash, Verifier};
use tiltyard_proto::units::{Height, Round};
use tiltyard_proto::vote::{SignedVote, Vote, VoteKind};

use crate::sample::messages::{double_proposal, double_vote};
use crate::sample::{genesis_hash, key, secret, vote};

fn verifier() -> Verifier {
    Verifier::new(genesis_hash())
}

fn sign(vote: Vote) -> SignedVote {
    vote.sign(&secret(1).signer(genesis_hash()))
}

fn prevote() -> Vote {
    vote(VoteKind::Prevote, None)
}

fn conflict() -> Vote {
    Vote { block: Some(BlockHash::from_bytes([1; 32])), ..prevote() }
}

#[test]
fn two_votes_and_two_proposals_of_one_round_prove_it() {
    for evidence in [double_vote(), double_proposal()] {
        assert_eq!(evidence.verify(&verifier()), Ok(()));
        assert_eq!((evidence.culprit(), evidence.height()), (key(1), Height::new(9)));
    }
}

#[test]
fn what_a_key_may_do_is_no_evidence() {
    let other = |vote| Evidence::votes(sign(prevote()), sign(vote)).verify(&verifier());
    let incomparable = Err(EvidenceError::NotComparable);
    assert_eq!(other(Vote { round: Round::new(3), ..conflict() }), incomparable);
    assert_eq!(other(Vote { height: Height::new(8), ..conflict() }), incomparable);
    assert_eq!(other(Vote { kind: VoteKind::Precommit, ..conflict() }), incomparable);
    assert_eq!(other(prevote()), Err(EvidenceError::NoConflict));
}

#[test]
fn the_two_halves_stand_in_one_order_only() {
    let Evidence::Votes(a, b) = double_vote() else { panic!("built from votes") };
    assert_eq!(Evidence::Votes(b, a).verify(&verifier()), Err(EvidenceError::NoConflict));
}

#[test]
fn a_forged_half_accuses_nobody() {
    let forged = Vote { validator: key(2), ..conflict() };
    let honest = Vote { validator: key(2), ..prevote() }.sign(&secret(2).signer(genesis_hash()));
    let evidence = Evidence::votes(honest, sign(forged));
    assert!(matches!(evidence.verify(&verifier()), Err(EvidenceError::Signature(_))));
}

#[test]
fn evidence_of_another_network_accuses_nobody() {
    let elsewhere = Verifier::new(GenesisHash::from_bytes([3; 32]));
    assert!(matches!(double_vote().verify(&elsewhere), Err(EvidenceError::Signature(_))));
}

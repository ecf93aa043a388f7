//! Contradictions are proven once; proofs and checks refuse what does not fit.

use tiltyard_consensus::{Authenticator, Refusal, Witness};
use tiltyard_keys::{Signature, Verifier};
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::units::{Height, Round};
use tiltyard_proto::vote::{Proposal, SignedVote, Vote, VoteKind};
use tiltyard_proto::wire::{ConsensusMessage, VoteProof};

use crate::net::{GENESIS, secret, set};

fn vote(seed: usize, kind: VoteKind, height: u64, block: Option<u8>) -> SignedVote {
    let vote = Vote {
        kind,
        height: Height::new(height),
        round: Round::ZERO,
        block: block.map(|byte| BlockHash::from_bytes([byte; 32])),
        validator: secret(seed).public(),
    };
    vote.sign(&secret(seed).signer(GENESIS))
}

fn said(seed: usize, kind: VoteKind, height: u64, block: Option<u8>) -> ConsensusMessage {
    ConsensusMessage::Vote(vote(seed, kind, height, block))
}

#[test]
fn two_votes_of_a_kind_prove_a_contradiction_once_per_height() {
    let mut witness = Witness::default();
    assert_eq!(witness.note(&said(0, VoteKind::Prevote, 5, Some(1))), []);
    assert_eq!(witness.note(&said(0, VoteKind::Prevote, 5, Some(1))), []);
    assert_eq!(witness.note(&said(0, VoteKind::Precommit, 5, Some(2))), [], "another kind");
    assert_eq!(witness.note(&said(0, VoteKind::Prevote, 6, Some(2))), [], "another height");
    assert_eq!(witness.note(&said(1, VoteKind::Prevote, 5, Some(2))), [], "another key");
    let proven = witness.note(&said(0, VoteKind::Prevote, 5, None));
    assert_eq!(proven.len(), 1);
    proven[0].verify(&Verifier::new(GENESIS)).unwrap();
    assert_eq!((proven[0].culprit(), proven[0].height()), (secret(0).public(), Height::new(5)));
    assert_eq!(witness.note(&said(0, VoteKind::Prevote, 5, Some(9))), [], "proven already");
}

#[test]
fn two_proposals_of_a_round_prove_a_contradiction() {
    let propose = |byte: u8| {
        let proposal = Proposal {
            height: Height::new(5),
            round: Round::ZERO,
            block: BlockHash::from_bytes([byte; 32]),
            lock_round: None,
            proposer: secret(0).public(),
        };
        ConsensusMessage::Proposal(proposal.sign(&secret(0).signer(GENESIS)))
    };
    let mut witness = Witness::default();
    assert_eq!(witness.note(&propose(1)), []);
    let proven = witness.note(&propose(2));
    proven[0].verify(&Verifier::new(GENESIS)).unwrap();
}

#[test]
fn old_heights_are_forgotten() {
    let mut witness = Witness::default();
    witness.note(&said(0, VoteKind::Prevote, 5, Some(1)));
    witness.prune(Height::new(500));
    assert_eq!(witness.note(&said(0, VoteKind::Prevote, 5, Some(2))), []);
}

fn polka(votes: Vec<SignedVote>) -> ConsensusMessage {
    ConsensusMessage::Polka {
        block: BlockHash::from_bytes([1; 32]),
        proof: VoteProof { votes, height: Height::new(5), round: Round::ZERO },
    }
}

#[test]
fn a_proof_needs_the_stake_the_height_and_the_value_it_claims() {
    let set = set(&[1, 1, 1, 1]);
    let mut authenticator = Authenticator::new(Verifier::new(GENESIS));
    let of = |seed| vote(seed, VoteKind::Prevote, 5, Some(1));
    let mut check = |message: &ConsensusMessage| authenticator.check(message, &set);
    check(&polka(vec![of(0), of(1), of(2)])).unwrap();
    let refused = [
        polka(vec![of(0), of(1)]),
        polka(vec![of(0), of(1), of(1)]),
        polka(vec![of(0), of(1), vote(2, VoteKind::Prevote, 5, Some(2))]),
        polka(vec![of(0), of(1), vote(2, VoteKind::Precommit, 5, Some(1))]),
        polka(vec![of(0), of(1), vote(2, VoteKind::Prevote, 6, Some(1))]),
        polka(vec![of(0); 9]),
    ];
    for message in &refused {
        assert!(matches!(check(message), Err(Refusal::Proof { .. })), "{message:?}");
    }
    let stranger = polka(vec![of(0), of(1), of(7)]);
    assert!(matches!(check(&stranger), Err(Refusal::NotMember { .. })));
    let mut forged = of(2);
    forged.signature = Signature::from_bytes([3; 64]);
    assert!(matches!(check(&polka(vec![of(0), of(1), forged])), Err(Refusal::Signature(_))));
}

#[test]
fn a_signature_checked_for_one_vote_says_nothing_of_another() {
    let set = set(&[1, 1, 1, 1]);
    let mut authenticator = Authenticator::new(Verifier::new(GENESIS));
    let good = vote(0, VoteKind::Prevote, 5, Some(1));
    authenticator.check(&ConsensusMessage::Vote(good), &set).unwrap();
    let mut moved = good;
    moved.vote.validator = secret(1).public();
    assert!(authenticator.check(&ConsensusMessage::Vote(moved), &set).is_err());
    let mut changed = good;
    changed.vote.block = None;
    assert!(authenticator.check(&ConsensusMessage::Vote(changed), &set).is_err());
}

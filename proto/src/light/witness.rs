//! Holding one node's word against another's.

use tiltyard_keys::Signature;

use super::{LightBlock, LightError, LightOptions, Trusted, verify_skipping};
use crate::certificate::Certificate;
use crate::evidence::Evidence;
use crate::ids::BlockHash;
use crate::units::{Height, UnixMillis};
use crate::validators::ValidatorSet;
use crate::vote::{SignedVote, Vote, VoteKind};

/// What a second node's block says about a header that a first node led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WitnessOutcome {
    /// Both have the same block.
    Agrees,
    /// The second node's block does not verify: it proves nothing.
    Unproven(LightError),
    /// Both verify: more than one third of the stake broke the protocol. Stop, and tell people.
    Fork {
        /// Height of the two blocks.
        height: Height,
        /// The first node's block.
        primary: BlockHash,
        /// The second node's block.
        witness: BlockHash,
        /// What can be punished on the ledger; empty when the two were decided in different rounds.
        evidence: Vec<Evidence>,
    },
}

/// Compares a verified block with a second node's block of the same height, from what was trusted before both.
///
/// `primary` is the certificate that led to the verified block of set `set`.
#[must_use]
pub fn compare_witness(
    root: &Trusted,
    primary: &Certificate,
    set: &ValidatorSet,
    witness: LightBlock,
    options: &LightOptions,
    now: UnixMillis,
) -> WitnessOutcome {
    let (height, theirs) = (witness.header.height, witness.header.hash());
    if height == primary.height && theirs == primary.block {
        return WitnessOutcome::Agrees;
    }
    let (certificate, witness_set) = (witness.certificate.clone(), witness.set.clone());
    if height != primary.height {
        return WitnessOutcome::Unproven(LightError::OtherBlock {
            at: primary.height,
            decided: primary.block,
            height,
            header: theirs,
        });
    }
    match verify_skipping(root, witness, options, now) {
        Err(error) => WitnessOutcome::Unproven(error),
        Ok(_) => WitnessOutcome::Fork {
            height,
            primary: primary.block,
            witness: theirs,
            evidence: double_signs((primary, set), (&certificate, &witness_set)),
        },
    }
}

/// Pairs the precommits of keys that signed both certificates in one round.
fn double_signs(
    (a, a_set): (&Certificate, &ValidatorSet),
    (b, b_set): (&Certificate, &ValidatorSet),
) -> Vec<Evidence> {
    if a.round != b.round {
        return Vec::new();
    }
    let theirs = precommits(b, b_set);
    precommits(a, a_set)
        .into_iter()
        .filter_map(|mine| {
            let other = theirs.iter().find(|other| other.vote.validator == mine.vote.validator)?;
            Some(Evidence::votes(mine, *other))
        })
        .collect()
}

fn precommits(certificate: &Certificate, set: &ValidatorSet) -> Vec<SignedVote> {
    let vote = |(at, signature): (usize, Signature)| {
        let member = set.members().get(at)?;
        let vote = Vote {
            kind: VoteKind::Precommit,
            height: certificate.height,
            round: certificate.round,
            block: Some(certificate.block),
            validator: member.key,
        };
        Some(SignedVote { vote, signature })
    };
    let pairs = certificate.signed_by(set.members().len()).unwrap_or_default();
    pairs.into_iter().filter_map(vote).collect()
}

//! Our messages to and from the core's.

use malachite_types as mt;
use tiltyard_keys::{PublicKey, Signature};
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::units::Round;
use tiltyard_proto::vote::{Proposal, SignedProposal, SignedVote, Vote, VoteKind};
use tiltyard_proto::wire::{ConsensusMessage, VoteProof};

use crate::context::{Address, At, Candidate, Context, CoreProposal, CoreVote};

/// A vote of the core with its signature.
pub(crate) type CoreSignedVote = mt::SignedVote<Context>;

/// Reads the core's round; `None` for its "no round yet".
pub(crate) fn round_of(round: mt::Round) -> Option<Round> {
    round.as_u32().map(Round::new)
}

/// Writes a round for the core.
pub(crate) fn core_round(round: Round) -> mt::Round {
    mt::Round::new(round.get())
}

fn kind_of(kind: mt::VoteType) -> VoteKind {
    match kind {
        mt::VoteType::Prevote => VoteKind::Prevote,
        mt::VoteType::Precommit => VoteKind::Precommit,
    }
}

fn core_kind(kind: VoteKind) -> mt::VoteType {
    match kind {
        VoteKind::Prevote => mt::VoteType::Prevote,
        VoteKind::Precommit => mt::VoteType::Precommit,
    }
}

fn block_of(value: &mt::NilOrVal<BlockHash>) -> Option<BlockHash> {
    match value {
        mt::NilOrVal::Nil => None,
        mt::NilOrVal::Val(hash) => Some(*hash),
    }
}

fn core_value(block: Option<BlockHash>) -> mt::NilOrVal<BlockHash> {
    block.map_or(mt::NilOrVal::Nil, mt::NilOrVal::Val)
}

/// Reads a vote that the core made. A vote without round does not exist outside the core: it becomes round 0.
pub(crate) fn vote_of(vote: &CoreVote) -> Vote {
    Vote {
        kind: kind_of(vote.kind),
        height: vote.height.0,
        round: round_of(vote.round).unwrap_or(Round::ZERO),
        block: block_of(&vote.value),
        validator: vote.validator.0,
    }
}

/// Reads a signed vote.
pub(crate) fn signed_vote_of(vote: &CoreSignedVote) -> SignedVote {
    SignedVote { vote: vote_of(&vote.message), signature: vote.signature }
}

/// Writes a signed vote.
pub(crate) fn core_signed_vote(signed: &SignedVote) -> CoreSignedVote {
    let vote = &signed.vote;
    let message = CoreVote {
        kind: core_kind(vote.kind),
        height: At(vote.height),
        round: core_round(vote.round),
        value: core_value(vote.block),
        validator: Address(vote.validator),
    };
    CoreSignedVote::new(message, signed.signature)
}

/// Reads a proposal that the core made.
pub(crate) fn proposal_of(proposal: &CoreProposal) -> Proposal {
    Proposal {
        height: proposal.height.0,
        round: round_of(proposal.round).unwrap_or(Round::ZERO),
        block: proposal.value.0,
        lock_round: round_of(proposal.lock_round),
        proposer: proposal.proposer.0,
    }
}

/// Reads a signed proposal.
pub(crate) fn signed_proposal_of(proposal: &mt::SignedProposal<Context>) -> SignedProposal {
    SignedProposal { proposal: proposal_of(&proposal.message), signature: proposal.signature }
}

/// Writes a signed proposal.
pub(crate) fn core_signed_proposal(signed: &SignedProposal) -> mt::SignedProposal<Context> {
    let proposal = &signed.proposal;
    let message = CoreProposal {
        height: At(proposal.height),
        round: core_round(proposal.round),
        value: Candidate(proposal.block),
        lock_round: proposal.lock_round.map_or(mt::Round::Nil, core_round),
        proposer: Address(proposal.proposer),
    };
    mt::SignedProposal::<Context>::new(message, signed.signature)
}

fn proof(height: At, round: mt::Round, votes: Vec<SignedVote>) -> VoteProof {
    VoteProof { votes, height: height.0, round: round_of(round).unwrap_or(Round::ZERO) }
}

/// Lists the prevotes of a polka certificate.
pub(crate) fn polka_votes(polka: &mt::PolkaCertificate<Context>) -> Vec<SignedVote> {
    let round = round_of(polka.round).unwrap_or(Round::ZERO);
    let vote_of = |signed: &mt::PolkaSignature<Context>| SignedVote {
        vote: Vote {
            kind: VoteKind::Prevote,
            height: polka.height.0,
            round,
            block: Some(polka.value_id),
            validator: signed.address.0,
        },
        signature: signed.signature,
    };
    polka.polka_signatures.iter().map(vote_of).collect()
}

/// Reads a polka certificate as a message.
pub(crate) fn polka_of(polka: &mt::PolkaCertificate<Context>) -> ConsensusMessage {
    let proof = proof(polka.height, polka.round, polka_votes(polka));
    ConsensusMessage::Polka { block: polka.value_id, proof }
}

/// Writes a polka certificate.
pub(crate) fn core_polka(block: BlockHash, proof: &VoteProof) -> mt::PolkaCertificate<Context> {
    mt::PolkaCertificate {
        height: At(proof.height),
        round: core_round(proof.round),
        value_id: block,
        polka_signatures: proof
            .votes
            .iter()
            .map(|signed| mt::PolkaSignature::new(Address(signed.vote.validator), signed.signature))
            .collect(),
    }
}

/// Lists the votes of a round certificate.
pub(crate) fn round_votes(certificate: &mt::RoundCertificate<Context>) -> Vec<SignedVote> {
    let round = round_of(certificate.round).unwrap_or(Round::ZERO);
    let vote_of = |signed: &mt::RoundSignature<Context>| SignedVote {
        vote: Vote {
            kind: kind_of(signed.vote_type),
            height: certificate.height.0,
            round,
            block: block_of(&signed.value_id),
            validator: signed.address.0,
        },
        signature: signed.signature,
    };
    certificate.round_signatures.iter().map(vote_of).collect()
}

/// Reads a round certificate as a message.
pub(crate) fn round_change_of(certificate: &mt::RoundCertificate<Context>) -> ConsensusMessage {
    let kind = match certificate.cert_type {
        mt::RoundCertificateType::Skip => VoteKind::Prevote,
        mt::RoundCertificateType::Precommit => VoteKind::Precommit,
    };
    let proof = proof(certificate.height, certificate.round, round_votes(certificate));
    ConsensusMessage::RoundChange { kind, proof }
}

/// Writes a round certificate.
pub(crate) fn core_round_change(kind: VoteKind, proof: &VoteProof) -> mt::RoundCertificate<Context> {
    mt::RoundCertificate {
        height: At(proof.height),
        round: core_round(proof.round),
        cert_type: match kind {
            VoteKind::Prevote => mt::RoundCertificateType::Skip,
            VoteKind::Precommit => mt::RoundCertificateType::Precommit,
        },
        round_signatures: proof
            .votes
            .iter()
            .map(|signed| {
                mt::RoundSignature::new(
                    core_kind(signed.vote.kind),
                    core_value(signed.vote.block),
                    Address(signed.vote.validator),
                    signed.signature,
                )
            })
            .collect(),
    }
}

/// Lists the precommits of a commit certificate.
pub(crate) fn precommits_of(certificate: &mt::CommitCertificate<Context>) -> Vec<(PublicKey, Signature)> {
    certificate.commit_signatures.iter().map(|signed| (signed.address.0, signed.signature)).collect()
}

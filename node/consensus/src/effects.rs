//! Answers the core's effects. Follow-up inputs are queued: the core is borrowed while it waits for an answer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use malachite_core::{
    ConsensusMsg, Effect, Input, LivenessMsg, LocallyProposedValue, Resumable, Resume, SignedConsensusMsg,
};
use malachite_types as mt;
use tiltyard_keys::{PublicKey, Signer};
use tiltyard_proto::certificate::Certificate;
use tiltyard_proto::hash;
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::units::{Height, Round, Stake};
use tiltyard_proto::validators::{ValidatorSet, more_than_one_third};
use tiltyard_proto::vote::{SignedVote, Vote, VoteKind};
use tiltyard_proto::wire::ConsensusMessage;

use crate::context::{At, Candidate, Context, CoreProposal, CoreSet, CoreVote};
use crate::convert;
use crate::io::{ConsensusOutput, ConsensusTimer, Timeouts, TimerKind};
use crate::journal::Journal;
use crate::verify::Authenticator;

/// An effect that cannot be answered; the core goes on with its default answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EffectError {
    /// The core wants to record an input that must never be recorded.
    #[error("the consensus core asked to record an input of the wrong kind")]
    Unrecordable,
    /// The core used its sync protocol, which is never fed.
    #[error("the consensus core used its own sync protocol, which is not in use here")]
    Sync,
    /// A round that does not exist.
    #[error("the consensus core named a round that does not exist")]
    NoRound,
}

/// How much stake a proof needs.
#[derive(Debug, Clone, Copy)]
enum Needed {
    MoreThanTwoThirds,
    MoreThanOneThird,
}

/// Everything around the core's state that effects touch.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) signer: Signer,
    pub(crate) authenticator: Authenticator,
    pub(crate) timeouts: Timeouts,
    pub(crate) journal: Journal,
    pub(crate) height: Height,
    pub(crate) set: Arc<ValidatorSet>,
    pub(crate) timers: BTreeSet<ConsensusTimer>,
    pub(crate) outputs: Vec<ConsensusOutput>,
    /// What this node said at the running height and shortly before, as far as this run knows.
    pub(crate) said: BTreeSet<(Height, [u8; 32])>,
    pub(crate) queue: VecDeque<Input<Context>>,
    /// Blocks that this node offered before a restart, by round.
    pub(crate) offered: BTreeMap<Round, BlockHash>,
    /// Build that was asked for during replay.
    pub(crate) deferred_build: Option<Round>,
    pub(crate) replaying: bool,
    pub(crate) decided: bool,
}

impl Surroundings {
    pub(crate) fn me(&self) -> PublicKey {
        self.signer.public()
    }

    pub(crate) fn effect(&mut self, effect: Effect<Context>) -> Result<Resume<Context>, EffectError> {
        Ok(match effect {
            Effect::CancelAllTimeouts(r) => {
                self.cancel_all();
                r.resume_with(())
            }
            Effect::CancelTimeout(timeout, r) => {
                self.cancel(timeout)?;
                r.resume_with(())
            }
            Effect::ScheduleTimeout(timeout, r) => {
                self.schedule(timeout)?;
                r.resume_with(())
            }
            Effect::StartRound(height, round, proposer, _, r) => {
                let round = convert::round_of(round).ok_or(EffectError::NoRound)?;
                let proposer = proposer.0;
                self.outputs.push(ConsensusOutput::RoundStarted { height: height.0, round, proposer });
                r.resume_with(())
            }
            Effect::PublishConsensusMsg(message, r) => {
                self.publish(signed_message(&message), self.replaying);
                r.resume_with(())
            }
            Effect::PublishLivenessMsg(message, r) => {
                self.publish(liveness_message(&message), true);
                r.resume_with(())
            }
            Effect::RepublishVote(vote, r) => {
                self.publish(ConsensusMessage::Vote(convert::signed_vote_of(&vote)), true);
                r.resume_with(())
            }
            Effect::RepublishRoundCertificate(certificate, r) => {
                self.publish(convert::round_change_of(&certificate), true);
                r.resume_with(())
            }
            Effect::GetValue(height, round, _, r) => {
                self.get_value(height, round)?;
                r.resume_with(())
            }
            Effect::RestreamProposal(_, round, _, proposer, block, r) => {
                let round = convert::round_of(round).ok_or(EffectError::NoRound)?;
                // In late rounds the core asks everyone who precommits. A body counts from the round's proposer only;
                // from anyone else it would be refused as a lie, and whoever misses it asks the voters for it.
                if proposer.0 == self.me() {
                    self.outputs.push(ConsensusOutput::Restream { block, round });
                }
                r.resume_with(())
            }
            Effect::SignVote(vote, r) => r.resume_with(self.sign_vote(vote)),
            Effect::SignProposal(proposal, r) => r.resume_with(self.sign_proposal(proposal)),
            Effect::WalAppend(_, input, r) => {
                if !self.journal.add(&input) {
                    return Err(EffectError::Unrecordable);
                }
                r.resume_with(())
            }
            Effect::Decide(certificate, _, r) => {
                self.decide(&certificate);
                r.resume_with(())
            }
            // The caller starts the next height when it has committed this one; contradictions are the witness's.
            Effect::Finalize(_, _, _, r) => r.resume_with(()),
            Effect::ExtendVote(.., r) => r.resume_with(None),
            Effect::VerifyVoteExtension(.., r) => r.resume_with(Ok(())),
            Effect::CertVerifiedSyncValue(..) | Effect::CertRejectedSyncValue(..) => {
                return Err(EffectError::Sync);
            }
            Effect::VerifySignature(message, _, r) => r.resume_with(self.signature(message)),
            Effect::VerifyCommitCertificate(certificate, set, _, r) => {
                r.resume_with(self.commit(&certificate, &set))
            }
            Effect::VerifyExtendedCommitCertificate(certificate, set, _, _, r) => {
                r.resume_with(self.commit(&certificate.trim_vote_extensions(), &set))
            }
            Effect::VerifyPolkaCertificate(polka, set, _, r) => {
                let votes = convert::polka_votes(&polka);
                r.resume_with(self.votes(votes, &set, Needed::MoreThanTwoThirds))
            }
            Effect::VerifyRoundCertificate(certificate, set, _, r) => {
                let needed = match certificate.cert_type {
                    mt::RoundCertificateType::Skip => Needed::MoreThanOneThird,
                    mt::RoundCertificateType::Precommit => Needed::MoreThanTwoThirds,
                };
                r.resume_with(self.votes(convert::round_votes(&certificate), &set, needed))
            }
        })
    }

    fn signature(&mut self, message: mt::SignedMessage<Context, ConsensusMsg<Context>>) -> bool {
        let signature = message.signature;
        let checked = match message.message {
            ConsensusMsg::Vote(vote) => {
                self.authenticator.vote(&SignedVote { vote: convert::vote_of(&vote), signature })
            }
            ConsensusMsg::Proposal(proposal) => self
                .authenticator
                .proposal(&convert::signed_proposal_of(&mt::SignedMessage::new(proposal, signature))),
        };
        checked.is_ok()
    }

    #[expect(clippy::result_large_err, reason = "the core's own error type, made rarely")]
    fn commit(
        &mut self,
        certificate: &mt::CommitCertificate<Context>,
        set: &CoreSet,
    ) -> Result<(), mt::CertificateError<Context>> {
        let round = convert::round_of(certificate.round).unwrap_or(Round::ZERO);
        let votes = convert::precommits_of(certificate).into_iter().map(|(validator, signature)| {
            let (height, block) = (certificate.height.0, Some(certificate.value_id));
            let vote = Vote { kind: VoteKind::Precommit, height, round, block, validator };
            SignedVote { vote, signature }
        });
        self.votes(votes.collect(), set, Needed::MoreThanTwoThirds)
    }

    #[expect(clippy::result_large_err, reason = "the core's own error type, made rarely")]
    fn votes(
        &mut self,
        votes: Vec<SignedVote>,
        set: &CoreSet,
        needed: Needed,
    ) -> Result<(), mt::CertificateError<Context>> {
        let mut seen = BTreeSet::new();
        let mut stake = Stake::ZERO;
        for vote in votes {
            let key = vote.vote.validator;
            let address = crate::context::Address(key);
            let Some((_, member)) = set.set.find(&key) else {
                return Err(mt::CertificateError::UnknownValidator(address));
            };
            if let Err(error) = self.authenticator.vote(&vote) {
                return Err(mt::CertificateError::VerificationError(Some(mt::BoxError::new(Box::new(
                    error,
                )))));
            }
            if seen.insert(key) {
                stake = stake.saturating_add(member.stake);
            }
        }
        let total = set.set.total();
        let (met, params) = match needed {
            Needed::MoreThanTwoThirds => (set.set.is_quorum(stake), mt::ThresholdParam::TWO_F_PLUS_ONE),
            Needed::MoreThanOneThird => (more_than_one_third(stake, total), mt::ThresholdParam::F_PLUS_ONE),
        };
        if met {
            return Ok(());
        }
        Err(mt::CertificateError::NotEnoughVotingPower {
            signed: stake.get(),
            total: total.get(),
            expected: params.min_expected(total.get()),
        })
    }

    fn sign_vote(&self, vote: CoreVote) -> convert::CoreSignedVote {
        let signed = convert::vote_of(&vote).sign(&self.signer);
        mt::SignedMessage::new(vote, signed.signature)
    }

    fn sign_proposal(&self, proposal: CoreProposal) -> mt::SignedProposal<Context> {
        let signed = convert::proposal_of(&proposal).sign(&self.signer);
        mt::SignedMessage::new(proposal, signed.signature)
    }

    pub(crate) fn publish(&mut self, message: ConsensusMessage, again: bool) {
        if let Some(own) = own_saying(&message, &self.me()) {
            self.said.insert(own);
        }
        let message = self.journal.seal(message);
        self.outputs.push(ConsensusOutput::Publish { message, again });
    }

    /// Asks for a block, unless one was offered in this round before a restart: it must be the same one.
    fn get_value(&mut self, height: At, round: mt::Round) -> Result<(), EffectError> {
        let at = convert::round_of(round).ok_or(EffectError::NoRound)?;
        if let Some(block) = self.offered.get(&at) {
            let again = LocallyProposedValue::new(height, round, Candidate(*block));
            self.queue.push_back(Input::Propose(again));
        } else if self.replaying {
            self.deferred_build = Some(at);
        } else {
            self.outputs.push(ConsensusOutput::Build { height: height.0, round: at });
        }
        Ok(())
    }

    fn decide(&mut self, certificate: &mt::CommitCertificate<Context>) {
        self.decided = true;
        let height = certificate.height.0;
        let round = convert::round_of(certificate.round).unwrap_or(Round::ZERO);
        let precommits = convert::precommits_of(certificate);
        let certificate = Certificate::build(height, round, certificate.value_id, &self.set, &precommits);
        self.outputs.push(ConsensusOutput::Decided(certificate));
    }

    fn timer(&self, timeout: mt::Timeout) -> Result<ConsensusTimer, EffectError> {
        let kind = match timeout.kind {
            mt::TimeoutKind::Propose => TimerKind::Propose,
            mt::TimeoutKind::Prevote => TimerKind::Prevote,
            mt::TimeoutKind::Precommit => TimerKind::Precommit,
            mt::TimeoutKind::Rebroadcast => TimerKind::Rebroadcast,
            // Needs a target time, which is never set.
            mt::TimeoutKind::FinalizeHeight(_) => return Err(EffectError::NoRound),
        };
        let round = convert::round_of(timeout.round).ok_or(EffectError::NoRound)?;
        Ok(ConsensusTimer { height: self.height, kind, round })
    }

    fn schedule(&mut self, timeout: mt::Timeout) -> Result<(), EffectError> {
        let timer = self.timer(timeout)?;
        let after_ms = self.timeouts.after_ms(timer.kind, timer.round);
        self.timers.insert(timer);
        self.outputs.push(ConsensusOutput::SetTimer { timer, after_ms });
        Ok(())
    }

    fn cancel(&mut self, timeout: mt::Timeout) -> Result<(), EffectError> {
        let timer = self.timer(timeout)?;
        if self.timers.remove(&timer) {
            self.outputs.push(ConsensusOutput::CancelTimer(timer));
        }
        Ok(())
    }

    pub(crate) fn cancel_all(&mut self) {
        for timer in core::mem::take(&mut self.timers) {
            self.outputs.push(ConsensusOutput::CancelTimer(timer));
        }
    }
}

/// Names what `key` itself says in a vote or proposal; the signature is left out: one key signs a saying in one way.
pub(crate) fn own_saying(message: &ConsensusMessage, key: &PublicKey) -> Option<(Height, [u8; 32])> {
    match message {
        ConsensusMessage::Vote(vote) if vote.vote.validator == *key => {
            Some((vote.vote.height, saying(b'v', &vote.vote.payload())))
        }
        ConsensusMessage::Proposal(signed) if signed.proposal.proposer == *key => {
            Some((signed.proposal.height, saying(b'p', &signed.proposal.payload())))
        }
        ConsensusMessage::Vote(_)
        | ConsensusMessage::Proposal(_)
        | ConsensusMessage::Polka { .. }
        | ConsensusMessage::RoundChange { .. } => None,
    }
}

fn saying(purpose: u8, payload: &[u8]) -> [u8; 32] {
    hash::plain(&[&[purpose], payload].concat())
}

fn signed_message(message: &SignedConsensusMsg<Context>) -> ConsensusMessage {
    match message {
        SignedConsensusMsg::Vote(vote) => ConsensusMessage::Vote(convert::signed_vote_of(vote)),
        SignedConsensusMsg::Proposal(proposal) => {
            ConsensusMessage::Proposal(convert::signed_proposal_of(proposal))
        }
    }
}

fn liveness_message(message: &LivenessMsg<Context>) -> ConsensusMessage {
    match message {
        LivenessMsg::Vote(vote) => ConsensusMessage::Vote(convert::signed_vote_of(vote)),
        LivenessMsg::PolkaCertificate(polka) => convert::polka_of(polka),
        LivenessMsg::SkipRoundCertificate(certificate) => convert::round_change_of(certificate),
    }
}

//! A verdict for every gossip message: provably bad is rejected, what cannot be judged is ignored, the rest goes on.

use tiltyard_consensus::{ConsensusInput, Refusal};
use tiltyard_keys::PublicKey;
use tiltyard_ledger::{StateRead, query};
use tiltyard_proto::block::Block;
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::transaction::{SignedTransaction, VerifiedTransaction};
use tiltyard_proto::units::{Blocks, Height, Round, UnixMillis};
use tiltyard_proto::validators::ValidatorSet;
use tiltyard_proto::wire::{
    Acceptance, BlockFrame, BodyFrame, ConsensusFrame, ConsensusMessage, GossipMessage, Peer, Topic,
};

use crate::agreement::{AHEAD_MAX, judged};
use crate::budget;
use crate::chain::{Candidate, decode};
use crate::config::MachineError;
use crate::event::Event;
use crate::io::{Effect, MessageToken};
use crate::machine::Machine;

/// How far a fresh block's time may be ahead of this node's clock.
const AHEAD_MS: u64 = 10_000;
/// How far it may be behind.
const BEHIND_MS: u64 = 60_000;
/// Heights behind the tip whose votes are still looked at for contradictions.
const LATE_MAX: u64 = 16;

/// What a transaction of a peer is worth.
#[derive(Debug)]
pub(crate) enum Considered {
    /// It waits here already.
    Known,
    /// It waits here now.
    Taken(Box<VerifiedTransaction>),
    /// It cannot be in the next blocks, or nothing of this peer is looked at now.
    Useless,
    /// Its signature does not fit.
    Forged,
}

impl<S: StateRead> Machine<S> {
    pub(crate) fn on_gossip(
        &mut self,
        token: MessageToken,
        from: Peer,
        message: GossipMessage,
    ) -> Result<(), MachineError> {
        let acceptance = match message {
            GossipMessage::Transactions(topic, list) => self.on_transactions(&from, topic, list)?,
            GossipMessage::Consensus(frame) => self.on_consensus(&from, frame)?,
            GossipMessage::Body(frame) => self.on_body(&frame)?,
            GossipMessage::Block(frame) => self.on_block_frame(&from, &frame)?,
        };
        self.out.push(Effect::Report { token, from, acceptance });
        Ok(())
    }

    /// Bad signatures and wrong topics are the sender's fault; what the state refuses may only be early or late.
    ///
    /// A frame goes on as it is when all of it was of use; from any other, this node announces the good part itself, once.
    fn on_transactions(
        &mut self,
        from: &Peer,
        topic: Topic,
        list: Vec<SignedTransaction>,
    ) -> Result<Acceptance, MachineError> {
        let mut taken = Vec::new();
        let mut useless = false;
        for signed in list {
            if signed.transaction.action.topic() != topic {
                return Ok(Acceptance::Reject);
            }
            match self.consider(from, signed)? {
                Considered::Known => {}
                Considered::Taken(transaction) => taken.push(*transaction),
                Considered::Useless => useless = true,
                Considered::Forged => return Ok(Acceptance::Reject),
            }
        }
        if useless {
            for transaction in &taken {
                self.announce(transaction);
            }
            return Ok(Acceptance::Ignore);
        }
        Ok(if taken.is_empty() { Acceptance::Ignore } else { Acceptance::Accept })
    }

    /// Looks at a transaction of a peer, cheapest check first: known, budget, state, room, and only then the signature.
    pub(crate) fn consider(
        &mut self,
        from: &Peer,
        signed: SignedTransaction,
    ) -> Result<Considered, MachineError> {
        let now_ms = self.now.mono_ms;
        let body = &signed.transaction;
        if self.mempool.has(&body.id()) {
            return Ok(Considered::Known);
        }
        if self.is_syncing() || !self.budgets.has_left(from, now_ms) {
            return Ok(Considered::Useless);
        }
        let tip = &self.chain.tip;
        let genesis = self.chain.verifier.genesis();
        let bytes = signed.encoded_len();
        let account = query::account(&self.state, &body.sender)?.nonce;
        if self.mempool.has_room(body, bytes, account, false).is_err()
            || tiltyard_ledger::precheck(&self.state, &tip.params, genesis, tip.height, body)?.is_err()
        {
            self.budgets.charge(from, budget::REFUSED, now_ms);
            return Ok(Considered::Useless);
        }
        let Ok(transaction) = self.chain.verify(signed) else {
            self.budgets.charge(from, budget::FORGED, now_ms);
            return Ok(Considered::Forged);
        };
        match self.mempool.insert(transaction.clone(), account, false) {
            Ok(()) => Ok(Considered::Taken(Box::new(transaction))),
            Err(_) => Ok(Considered::Useless),
        }
    }

    fn on_consensus(&mut self, from: &Peer, frame: ConsensusFrame) -> Result<Acceptance, MachineError> {
        let ConsensusFrame { counter, message } = frame;
        let height = height_of(&message);
        let next = self.chain.next_height();
        if self.agreement.is_none() || height > next.plus(Blocks::new(AHEAD_MAX)) {
            self.hint(from, height);
            return Ok(Acceptance::Ignore);
        }
        if height.plus(Blocks::new(LATE_MAX)) < next {
            return Ok(Acceptance::Ignore);
        }
        let set = if height == next {
            self.chain.tip.next_set.clone()
        } else {
            match query::set_at(&self.state, height) {
                Ok(set) => set,
                // Sets of far epochs are not known; nothing is wrong with the store.
                Err(_) => return Ok(Acceptance::Ignore),
            }
        };
        let now_ms = self.now.mono_ms;
        let Some(agreement) = &mut self.agreement else {
            return Ok(Acceptance::Ignore);
        };
        if counter > 0 && !agreement.may_repeat(&message, now_ms) {
            return Ok(Acceptance::Ignore);
        }
        match agreement.consensus.check(&message, &set) {
            Ok(()) => {}
            Err(Refusal::NotMember { .. }) => return Ok(Acceptance::Ignore),
            Err(Refusal::Signature(_) | Refusal::Proof { .. }) => return Ok(Acceptance::Reject),
        }
        if is_out_of_turn(&message, |height, round| agreement.consensus.proposer(&set, height, round)) {
            return Ok(Acceptance::Reject);
        }
        let found = agreement.witness.note(&message);
        self.listen(&message)?;
        for evidence in found {
            self.accuse(evidence)?;
        }
        if height < next {
            return Ok(Acceptance::Ignore);
        }
        self.route(from, height, message)?;
        Ok(Acceptance::Accept)
    }

    /// Feeds a checked message to the running height, or keeps it for a later one.
    fn route(&mut self, from: &Peer, height: Height, message: ConsensusMessage) -> Result<(), MachineError> {
        let next = self.chain.next_height();
        let Some(agreement) = &mut self.agreement else {
            return Ok(());
        };
        if agreement.consensus.height() != Some(height) {
            agreement.hold(height, speaker_of(&message), message.clone());
        }
        if height > next {
            // Whoever speaks of a later height has decided this one.
            self.hint(from, height);
            return Ok(());
        }
        if let Some(block) = block_of(&message) {
            self.want_body(block, from);
        }
        if let Some(block) = proven_block(&message) {
            self.release(block)?;
        }
        self.agree(ConsensusInput::Message(message))
    }

    /// Hands a block that was withheld for its time to agreement: others have locked on it.
    fn release(&mut self, block: BlockHash) -> Result<(), MachineError> {
        let height = self.chain.next_height();
        let Some(candidate) = self.chain.candidate_mut(&block).filter(|c| c.withheld) else {
            return Ok(());
        };
        candidate.withheld = false;
        let judged = judged(height, block, candidate);
        self.agree(ConsensusInput::Judged(judged))
    }

    fn on_body(&mut self, frame: &BodyFrame) -> Result<Acceptance, MachineError> {
        let Some(agreement) = &self.agreement else {
            return Ok(Acceptance::Ignore);
        };
        let Ok(block) = decode(&self.chain.tip, &frame.block) else {
            return Ok(Acceptance::Reject);
        };
        let (height, hash, next) = (block.header.height, block.hash(), self.chain.next_height());
        let sender = frame.sender;
        if height < next || height > next.next() || sender == agreement.key() {
            return Ok(Acceptance::Ignore);
        }
        let running = if height == next { agreement.consensus.round() } else { Round::ZERO };
        if frame.round > running.saturating_add(Round::new(1)) {
            return Ok(Acceptance::Ignore);
        }
        let Ok(set) = query::set_at(&self.state, height) else {
            return Ok(Acceptance::Ignore);
        };
        if agreement.consensus.proposer(&set, height, frame.round) != sender {
            return Ok(Acceptance::Reject);
        }
        let payload = BodyFrame::payload(height, frame.round, &hash);
        if self.chain.verifier.verify_body(&sender, &payload, &frame.signature).is_err() {
            return Ok(Acceptance::Reject);
        }
        let offered = (frame.round, sender);
        let again = self.chain.candidates().any(|(_, c)| c.offered == offered);
        if self.chain.candidate(&hash).is_some() || (again && height == next) {
            return Ok(if frame.counter > 0 { Acceptance::Accept } else { Acceptance::Ignore });
        }
        let length = frame.block.len();
        if height == next {
            self.judge_body(block, length, offered, true)?;
        } else if let Some(agreement) = &mut self.agreement {
            agreement.hold_body(height, frame.round, sender, block, length);
        }
        Ok(Acceptance::Accept)
    }

    /// Executes a proposed block, makes it durable when it is valid, and tells agreement.
    pub(crate) fn judge_body(
        &mut self,
        block: Block,
        length: usize,
        offered: (Round, PublicKey),
        fresh: bool,
    ) -> Result<(), MachineError> {
        let (hash, height) = (block.hash(), block.header.height);
        if self.chain.candidate(&hash).is_some() {
            return Ok(());
        }
        let verdict = self.chain.judge(&self.state, &self.mempool, &block, length)?;
        let bytes = block.encode();
        match &verdict {
            Ok(_) => self.out.push(Effect::SaveBody { block: hash, height, bytes: bytes.clone() }),
            Err(unfit) => {
                let fact = unfit.to_string();
                self.notify(Event::BlockRefused { height, block: hash, fact });
            }
        }
        let withheld = fresh && !is_fresh(block.header.time, self.now.unix);
        let seen_ms = self.now.mono_ms;
        let executed = verdict.map(Box::new);
        let candidate = Candidate { block, bytes, executed, offered, seen_ms, withheld };
        let judged = judged(height, hash, &candidate);
        self.chain.keep(hash, candidate);
        self.pull.forget(&hash);
        let running = self.agreement.as_ref().and_then(|agreement| agreement.consensus.height());
        if !withheld && running == Some(height) {
            self.agree(ConsensusInput::Judged(judged))?;
        }
        Ok(())
    }

    /// A decided header: the block is here already, or is fetched from whoever forwarded it.
    fn on_block_frame(&mut self, from: &Peer, frame: &BlockFrame) -> Result<Acceptance, MachineError> {
        let height = frame.header.height;
        let next = self.chain.next_height();
        if height < next {
            return Ok(Acceptance::Ignore);
        }
        if height > next {
            self.hint(from, height);
            return Ok(Acceptance::Ignore);
        }
        let hash = frame.header.hash();
        let named = frame.certificate.height == height && frame.certificate.block == hash;
        let set: &ValidatorSet = &self.chain.tip.next_set;
        if !named || frame.certificate.verify(&self.chain.verifier, set).is_err() {
            return Ok(Acceptance::Reject);
        }
        self.saw_tip(from, height);
        match self.chain.take(&hash) {
            Some(candidate) => self.commit_candidate(candidate, frame.certificate.clone())?,
            None => self.fetch_blocks(),
        }
        Ok(Acceptance::Accept)
    }
}

fn is_fresh(time: UnixMillis, clock: UnixMillis) -> bool {
    let (time, clock) = (time.get(), clock.get());
    time <= clock.saturating_add(AHEAD_MS) && clock <= time.saturating_add(BEHIND_MS)
}

pub(crate) fn height_of(message: &ConsensusMessage) -> Height {
    match message {
        ConsensusMessage::Vote(vote) => vote.vote.height,
        ConsensusMessage::Proposal(signed) => signed.proposal.height,
        ConsensusMessage::Polka { proof, .. } | ConsensusMessage::RoundChange { proof, .. } => proof.height,
    }
}

/// Returns on whose account a held message counts: its signer, or the first voter of a proof.
fn speaker_of(message: &ConsensusMessage) -> PublicKey {
    match message {
        ConsensusMessage::Vote(vote) => vote.vote.validator,
        ConsensusMessage::Proposal(signed) => signed.proposal.proposer,
        ConsensusMessage::Polka { proof, .. } | ConsensusMessage::RoundChange { proof, .. } => {
            proof.votes.first().map_or(PublicKey::from_bytes([0; 32]), |vote| vote.vote.validator)
        }
    }
}

fn block_of(message: &ConsensusMessage) -> Option<BlockHash> {
    match message {
        ConsensusMessage::Vote(vote) => vote.vote.block,
        ConsensusMessage::Proposal(signed) => Some(signed.proposal.block),
        ConsensusMessage::Polka { block, .. } => Some(*block),
        ConsensusMessage::RoundChange { .. } => None,
    }
}

/// Returns the block that the message shows or claims to be locked by others.
fn proven_block(message: &ConsensusMessage) -> Option<BlockHash> {
    match message {
        ConsensusMessage::Polka { block, .. } => Some(*block),
        ConsensusMessage::Proposal(signed) => signed.proposal.lock_round.map(|_| signed.proposal.block),
        ConsensusMessage::Vote(_) | ConsensusMessage::RoundChange { .. } => None,
    }
}

fn is_out_of_turn(message: &ConsensusMessage, proposer: impl Fn(Height, Round) -> PublicKey) -> bool {
    match message {
        ConsensusMessage::Proposal(signed) => {
            proposer(signed.proposal.height, signed.proposal.round) != signed.proposal.proposer
        }
        ConsensusMessage::Vote(_) | ConsensusMessage::Polka { .. } | ConsensusMessage::RoundChange { .. } => {
            false
        }
    }
}

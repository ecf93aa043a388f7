//! The running height of a validator: starts it in time, feeds it, carries out what it asks for.

use std::collections::BTreeMap;

use serde_bytes::ByteBuf;
use tiltyard_consensus::{
    Consensus, ConsensusInput, ConsensusOutput, Judged, Sealed, Timeouts, Witness, recorded_values,
};
use tiltyard_keys::{PublicKey, SecretKey, Signer};
use tiltyard_ledger::StateRead;
use tiltyard_proto::block::Block;
use tiltyard_proto::codec;
use tiltyard_proto::genesis::Params;
use tiltyard_proto::hash;
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::units::{Height, Round, Stake};
use tiltyard_proto::validators::ValidatorSet;
use tiltyard_proto::wire::{BodyFrame, ConsensusMessage, Topic};

use crate::chain::Candidate;
use crate::config::MachineError;
use crate::event::{Event, Undecided};
use crate::guard::{Guard, Leave, patience_ms};
use crate::io::Effect;
use crate::machine::Machine;
use crate::timers::Timer;

/// How far ahead of the next height messages are held back.
pub(crate) const AHEAD_MAX: u64 = 4;
/// Messages held back per validator and height.
const HELD_MAX: usize = 32;
/// Bodies held back per height.
const HELD_BODIES_MAX: usize = 8;
/// A message that is sent again is forwarded so often within [`REPEAT_MS`].
const REPEATS_MAX: u32 = 4;
const REPEAT_MS: u64 = 10_000;
/// Messages whose repetition is counted.
const REPEATS_TRACKED: usize = 4_096;
/// A height that takes this long, in milliseconds, is told to people, and again after as long.
const UNDECIDED_MS: u64 = 10_000;

/// What a validator keeps beside the core.
#[derive(Debug)]
pub(crate) struct Agreement {
    pub(crate) consensus: Consensus,
    pub(crate) witness: Witness,
    signer: Signer,
    held: BTreeMap<Height, BTreeMap<PublicKey, Vec<ConsensusMessage>>>,
    held_bodies: BTreeMap<(Height, Round), (PublicKey, Block, usize)>,
    repeats: BTreeMap<[u8; 32], (u64, u32)>,
    counter: u64,
    /// When the last height started here.
    started_ms: Option<u64>,
    /// When people were last told that it does not end.
    warned_ms: u64,
    /// Journal from before the restart; used by the first start.
    journal: Vec<Vec<u8>>,
    pub(crate) guard: Guard,
    /// Height from which it signs, as it was told last.
    pub(crate) told_listening: Option<Height>,
}

impl Agreement {
    pub(crate) fn new(
        key: &SecretKey,
        genesis: tiltyard_keys::GenesisHash,
        params: &Params,
        set: ValidatorSet,
        journal: Vec<Vec<u8>>,
        guard: Guard,
    ) -> Self {
        let signer = key.signer(genesis);
        Self {
            consensus: Consensus::new(signer, params.epoch, Timeouts::of(params), set),
            witness: Witness::default(),
            signer: key.signer(genesis),
            held: BTreeMap::new(),
            held_bodies: BTreeMap::new(),
            repeats: BTreeMap::new(),
            counter: 0,
            started_ms: None,
            warned_ms: 0,
            journal,
            guard,
            told_listening: None,
        }
    }

    pub(crate) fn key(&self) -> PublicKey {
        self.consensus.key()
    }

    /// Says whether a message that is sent again may be forwarded once more.
    pub(crate) fn may_repeat(&mut self, message: &ConsensusMessage, now_ms: u64) -> bool {
        let name = hash::plain(&codec::encode(message));
        if self.repeats.len() >= REPEATS_TRACKED {
            self.repeats.retain(|_, (since, _)| now_ms.saturating_sub(*since) < REPEAT_MS);
        }
        if self.repeats.len() >= REPEATS_TRACKED && !self.repeats.contains_key(&name) {
            return false;
        }
        let (since, count) = self.repeats.entry(name).or_insert((now_ms, 0));
        if now_ms.saturating_sub(*since) >= REPEAT_MS {
            (*since, *count) = (now_ms, 0);
        }
        *count = count.saturating_add(1);
        *count <= REPEATS_MAX
    }

    /// Keeps a checked message until its height starts.
    pub(crate) fn hold(&mut self, height: Height, speaker: PublicKey, message: ConsensusMessage) {
        let queue = self.held.entry(height).or_default().entry(speaker).or_default();
        if queue.len() < HELD_MAX && !queue.contains(&message) {
            queue.push(message);
        }
    }

    /// Keeps a signed body until its parent is durable.
    pub(crate) fn hold_body(
        &mut self,
        height: Height,
        round: Round,
        from: PublicKey,
        block: Block,
        length: usize,
    ) {
        let of_height = self.held_bodies.range((height, Round::ZERO)..=(height, Round::MAX)).count();
        if of_height < HELD_BODIES_MAX {
            self.held_bodies.entry((height, round)).or_insert((from, block, length));
        }
    }

    /// Takes the bodies held for `height` and forgets older ones.
    fn bodies_for(&mut self, height: Height) -> Vec<(Round, PublicKey, Block, usize)> {
        let later = self.held_bodies.split_off(&(height.next(), Round::ZERO));
        let now = core::mem::replace(&mut self.held_bodies, later);
        now.into_iter()
            .filter(|((at, _), _)| *at == height)
            .map(|((_, round), (from, block, length))| (round, from, block, length))
            .collect()
    }

    fn messages_for(&mut self, height: Height) -> Vec<ConsensusMessage> {
        let later = self.held.split_off(&height.next());
        let mut now = core::mem::replace(&mut self.held, later);
        now.remove(&height).unwrap_or_default().into_values().flatten().collect()
    }
}

impl<S: StateRead> Machine<S> {
    /// Starts the next height when this node may and its time has come; sets the timer otherwise.
    pub(crate) fn start_when_due(&mut self) -> Result<(), MachineError> {
        let height = self.chain.next_height();
        let syncing = self.is_syncing();
        let interval = u64::from(self.chain.tip.params.block_interval_ms);
        let Some(agreement) = &mut self.agreement else {
            return Ok(());
        };
        let running = agreement.consensus.height() == Some(height);
        let member = self.chain.tip.next_set.find(&agreement.key()).is_some();
        let halted = agreement.consensus.is_halted() || self.halted;
        if running || halted || syncing || !self.ready || !self.may_sign(height) {
            return Ok(());
        }
        let Some(agreement) = &mut self.agreement else {
            return Ok(());
        };
        // Until a peer says where the chain is, even an old journal looks new, and an empty folder like the beginning of
        // everything. Who decides alone has nobody to ask.
        let set = &self.chain.tip.next_set;
        let alone = set.find(&agreement.key()).is_some_and(|(_, own)| set.is_quorum(own.stake));
        if !self.sync.has_heard() && !alone && !agreement.guard.is_signing() {
            return Ok(());
        }
        // Who follows for long before it is a member has listened when its turn comes.
        let patience_ms = patience_ms(&self.chain.tip.params);
        let leave = agreement.guard.ask(height, self.now.mono_ms, patience_ms);
        if !member {
            return Ok(());
        }
        if let Leave::Wait { from, quiet_ms } = leave {
            self.tell_listening(from);
            if let Some(quiet_ms) = quiet_ms {
                self.set_timer(Timer::Pace, quiet_ms.max(1));
            }
            return Ok(());
        }
        let Some(agreement) = &self.agreement else {
            return Ok(());
        };
        let due = agreement.started_ms.map_or(0, |started| started.saturating_add(interval));
        let wait = due.saturating_sub(self.now.mono_ms);
        if wait > 0 {
            if !self.is_timer_set(Timer::Pace) {
                self.set_timer(Timer::Pace, wait);
            }
            return Ok(());
        }
        self.start(height)
    }

    /// A node that joined by snapshot does not know what its key signed before. It may have signed for the height after
    /// the first tip that it catches up with, and for none above: that height is left to the others.
    fn may_sign(&mut self, height: Height) -> bool {
        !self.is_forgetful || height >= *self.sign_from.get_or_insert(height.next())
    }

    fn start(&mut self, height: Height) -> Result<(), MachineError> {
        let now_ms = self.now.mono_ms;
        let set = self.chain.tip.next_set.clone();
        let Some(agreement) = &mut self.agreement else {
            return Ok(());
        };
        let journal = core::mem::take(&mut agreement.journal);
        agreement.started_ms = Some(now_ms);
        if let Some(fact) = self.contradiction(height, &journal) {
            self.stop_signing(fact);
            return Ok(());
        }
        self.agree(ConsensusInput::Start { height, set, journal })?;
        let known: Vec<Judged> = self
            .chain
            .candidates()
            .filter(|(_, candidate)| !candidate.withheld)
            .map(|(hash, candidate)| judged(height, *hash, candidate))
            .collect();
        for judged in known {
            self.agree(ConsensusInput::Judged(judged))?;
        }
        let messages = self.agreement.as_mut().map(|agreement| agreement.messages_for(height));
        for message in messages.unwrap_or_default() {
            self.agree(ConsensusInput::Message(message))?;
        }
        Ok(())
    }

    /// Tells people that no block comes, and who is silent.
    pub(crate) fn tell_undecided(&mut self) {
        let (height, now_ms) = (self.chain.next_height(), self.now.mono_ms);
        let set = &self.chain.tip.next_set;
        let Some(agreement) = &mut self.agreement else {
            return;
        };
        let started_ms = agreement.started_ms.unwrap_or(now_ms);
        let since_ms = started_ms.max(agreement.warned_ms);
        let running = agreement.consensus.height() == Some(height);
        if !running || now_ms.saturating_sub(since_ms) < UNDECIDED_MS {
            return;
        }
        agreement.warned_ms = now_ms;
        let mut speakers = agreement.witness.speakers(height);
        speakers.insert(agreement.key());
        let silent: Vec<PublicKey> =
            set.members().iter().map(|member| member.key).filter(|key| !speakers.contains(key)).collect();
        let of = |key: &PublicKey| set.find(key).map_or(Stake::ZERO, |(_, member)| member.stake);
        let heard = speakers.iter().map(of).fold(Stake::ZERO, Stake::saturating_add);
        let (total, waited_ms) = (set.total(), now_ms.saturating_sub(started_ms));
        self.notify(Event::Undecided(Undecided { height, waited_ms, heard, total, silent }));
    }

    /// Says how the journal and this node's own execution of the recorded blocks contradict each other.
    fn contradiction(&self, height: Height, journal: &[Vec<u8>]) -> Option<String> {
        let recorded = match recorded_values(height, journal) {
            Ok(recorded) => recorded,
            Err(error) => return Some(error.to_string()),
        };
        recorded.into_iter().filter(|value| value.valid).find_map(|value| {
            match self.chain.candidate(&value.block).map(|candidate| &candidate.executed) {
                Some(Ok(_)) => None,
                Some(Err(unfit)) => Some(format!(
                    "block {} was found valid before the restart, now it is not: {unfit}",
                    value.block
                )),
                None => {
                    Some(format!("block {} is in the vote journal, but its body was not kept", value.block))
                }
            }
        })
    }

    pub(crate) fn stop_signing(&mut self, fact: String) {
        self.halted = true;
        self.out.push(Effect::StopSigning { fact });
    }

    /// Forgets what was said of heights that are long decided, whether this node took part in them or not.
    pub(crate) fn forget_old_sayings(&mut self) {
        let next = self.chain.next_height();
        if let Some(agreement) = &mut self.agreement {
            agreement.held = agreement.held.split_off(&next);
            agreement.witness.prune(next);
        }
    }

    /// Judges bodies that were held back for the height that comes next.
    pub(crate) fn judge_held_bodies(&mut self) -> Result<(), MachineError> {
        let height = self.chain.next_height();
        let bodies = self.agreement.as_mut().map(|agreement| agreement.bodies_for(height));
        for (round, from, block, length) in bodies.unwrap_or_default() {
            self.judge_body(block, length, (round, from), true)?;
        }
        Ok(())
    }

    /// Feeds agreement and carries out what it asks for, in order.
    pub(crate) fn agree(&mut self, input: ConsensusInput) -> Result<(), MachineError> {
        let Some(agreement) = &mut self.agreement else {
            return Ok(());
        };
        if self.halted {
            return Ok(());
        }
        for output in agreement.consensus.handle(input) {
            self.carry_out(output)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, output: ConsensusOutput) -> Result<(), MachineError> {
        match output {
            ConsensusOutput::Journal { fresh: true, batch } => {
                self.out.push(Effect::ResetJournal(batch));
            }
            ConsensusOutput::Journal { fresh: false, batch } => self.out.push(Effect::Journal(batch)),
            ConsensusOutput::Publish { message, again } => self.publish_consensus(message, again),
            ConsensusOutput::Build { height, round } => self.propose(height, round)?,
            ConsensusOutput::Restream { block, round } => self.publish_body(&block, round, true),
            ConsensusOutput::SetTimer { timer, after_ms } => {
                self.set_timer(Timer::Consensus(timer), after_ms);
            }
            ConsensusOutput::CancelTimer(timer) => self.cancel_timer(Timer::Consensus(timer)),
            ConsensusOutput::RoundStarted { height, round, proposer } => {
                if round > Round::ZERO {
                    self.notify(Event::RoundStarted { height, round, proposer });
                }
            }
            ConsensusOutput::Decided(certificate) => self.on_decided(certificate)?,
            ConsensusOutput::Trouble { fact } => self.notify(Event::Trouble { fact }),
            ConsensusOutput::Halted { fact } => self.stop_signing(fact),
        }
        Ok(())
    }

    fn on_decided(
        &mut self,
        certificate: tiltyard_proto::certificate::Certificate,
    ) -> Result<(), MachineError> {
        match self.chain.take(&certificate.block) {
            Some(candidate) => self.commit_candidate(candidate, certificate),
            // The core decides what it was told is valid; without the block, peers will give it with its certificate.
            None => {
                let fact = format!("block {} was decided before it was seen", certificate.block);
                self.notify(Event::Trouble { fact });
                Ok(())
            }
        }
    }

    /// Builds the block of a round that this node proposes in.
    fn propose(&mut self, height: Height, round: Round) -> Result<(), MachineError> {
        let Some(me) = self.agreement.as_ref().map(Agreement::key) else {
            return Ok(());
        };
        let built = self.chain.build(&self.state, &self.mempool, me, self.now.unix)?;
        for (id, error) in built.refused {
            if !matches!(error, tiltyard_ledger::AdmitError::Nonce { .. }) {
                self.mempool.remove(&id);
            }
        }
        let (block, bytes) = (built.block.hash(), built.block.encode());
        let candidate = Candidate {
            block: built.block,
            bytes: bytes.clone(),
            executed: Ok(Box::new(built.executed)),
            offered: (round, me),
            seen_ms: self.now.mono_ms,
            withheld: false,
        };
        self.chain.keep(block, candidate);
        self.out.push(Effect::SaveBody { block, height, bytes });
        self.agree(ConsensusInput::Propose { round, block })?;
        // After the journal: a block that this node offered is never forgotten by it.
        self.publish_body(&block, round, false);
        Ok(())
    }

    fn publish_consensus(&mut self, message: Sealed<ConsensusMessage>, again: bool) {
        let counter = if again { self.next_counter() } else { 0 };
        self.out.push(Effect::Say { topic: Topic::Consensus, frame: message.into_frame(counter) });
    }

    fn publish_body(&mut self, block: &BlockHash, round: Round, again: bool) {
        let counter = if again { self.next_counter() } else { 0 };
        let (Some(candidate), Some(agreement)) = (self.chain.candidate(block), &self.agreement) else {
            return;
        };
        let height = candidate.block.header.height;
        let frame = BodyFrame {
            counter,
            block: ByteBuf::from(candidate.bytes.clone()),
            round,
            sender: agreement.key(),
            signature: agreement.signer.sign_body(&BodyFrame::payload(height, round, block)),
        };
        let frame = agreement.consensus.seal(codec::encode(&frame));
        self.out.push(Effect::Say { topic: Topic::Bodies, frame });
    }

    /// Returns a counter that no frame of this node carried before, not even before a restart.
    fn next_counter(&mut self) -> u64 {
        let clock = self.now.unix.get();
        self.agreement.as_mut().map_or(clock, |agreement| {
            agreement.counter = agreement.counter.saturating_add(1).max(clock);
            agreement.counter
        })
    }
}

/// Says to agreement what a candidate is.
pub(crate) fn judged(height: Height, block: BlockHash, candidate: &Candidate) -> Judged {
    let (round, proposer) = candidate.offered;
    Judged { block, height, round, proposer, valid: candidate.executed.is_ok() }
}

//! One node's brain: dispatches what happened, commits what was decided.

use std::collections::{BTreeSet, VecDeque};

use tiltyard_consensus::{ConsensusInput, Now};
use tiltyard_keys::{PublicKey, Signer, Verifier};
use tiltyard_ledger::{Executed, LedgerEvent, StateRead};
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::certificate::Certificate;
use tiltyard_proto::codec;
use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::ids::TransactionId;
use tiltyard_proto::units::{Height, Round};
use tiltyard_proto::wire::{Acceptance, BlockFrame, Topic};

use crate::agreement::Agreement;
use crate::announce::Announcer;
use crate::budget::Budgets;
use crate::chain::{Candidate, Chain, Tip, decode};
use crate::config::{Config, MachineError, Recovered};
use crate::event::Event;
use crate::guard::Guard;
use crate::io::{Commit, Effect, Input, TimerId};
use crate::mempool::Mempool;
use crate::outbox::Outbox;
use crate::pull::Pull;
use crate::repair::Repair;
use crate::roles::{RoleInput, RoleKeys, Roles};
use crate::status::Status;
use crate::sync::{Join, SYNC_MS, Sync};
use crate::timers::Timer;

/// How long a starting node waits to hear where its peers are, in milliseconds.
const LISTEN_MS: u64 = 500;
/// How often own transactions are offered again, in milliseconds.
const OFFER_MS: u64 = 3_000;
/// How long subscriptions are gathered before this node says again what it said, in milliseconds.
const SAY_AGAIN_MS: u64 = 50;
/// Gossip and requests that wait while a block is being made durable.
const DEFERRED_MAX: usize = 2_048;

/// A block on its way to the disk.
#[derive(Debug)]
pub(crate) struct Committing {
    decided: DecidedBlock,
    included: Vec<(TransactionId, bool)>,
    senders: BTreeSet<PublicKey>,
    events: Vec<LedgerEvent>,
    seen_ms: Option<u64>,
}

/// One node's brain over a state `S` that shows what the shell has committed.
#[derive(Debug)]
pub struct Machine<S> {
    pub(crate) genesis: Genesis,
    pub(crate) state: S,
    pub(crate) chain: Chain,
    pub(crate) mempool: Mempool,
    pub(crate) outbox: Outbox,
    pub(crate) announcer: Announcer,
    pub(crate) budgets: Budgets,
    pub(crate) agreement: Option<Agreement>,
    pub(crate) sync: Sync,
    pub(crate) join: Join,
    pub(crate) pull: Pull,
    pub(crate) repair: Repair,
    pub(crate) validator: Option<Signer>,
    pub(crate) account: Signer,
    pub(crate) roles: Roles,
    pub(crate) roles_started: bool,
    pub(crate) committing: Option<Committing>,
    deferred: VecDeque<Input>,
    timers: BTreeSet<TimerId>,
    pub(crate) now: Now,
    /// Peers said where they are, or did not in time: heights may start.
    pub(crate) ready: bool,
    pub(crate) halted: bool,
    pub(crate) alarm: crate::stale::Alarm,
    /// The chain here begins with a snapshot and the journal is empty: the key may have signed before.
    pub(crate) is_forgetful: bool,
    /// First height that a forgetful node signs for.
    pub(crate) sign_from: Option<Height>,
    pub(crate) out: Vec<Effect>,
}

impl<S: StateRead> Machine<S> {
    /// Sets a node's brain up from what its store brought back. Gives no effects: [`Input::Start`] does.
    ///
    /// # Errors
    /// [`MachineError`] when genesis is refused or the state cannot be read.
    pub fn new(config: Config, state: S, recovered: Recovered, now: Now) -> Result<Self, MachineError> {
        let Config { genesis, peer: _, validator, twin_wait, account, roles, role_secret, mempool, join } =
            config;
        genesis.check()?;
        let hash = genesis.hash();
        let tip = Tip::read(&genesis, &state, recovered.tip.as_ref())?;
        let keys = RoleKeys {
            validator: validator.as_ref().map(tiltyard_keys::SecretKey::public),
            account: account.public(),
            secret: role_secret,
        };
        let is_fresh = tip.height == Height::ZERO;
        let join = Join::new(join, &genesis, is_fresh, recovered.joining);
        let is_forgetful = recovered.begun_by_snapshot && recovered.journal.is_empty();
        let agreement = validator.as_ref().map(|key| {
            let guard = Guard::new(twin_wait, tip.height, &recovered.journal);
            Agreement::new(key, hash, &tip.params, tip.next_set.clone(), recovered.journal, guard)
        });
        let mut machine = Self {
            genesis,
            state,
            chain: Chain::new(Verifier::new(hash), tip),
            mempool: Mempool::new(mempool),
            outbox: Outbox::default(),
            announcer: Announcer::default(),
            budgets: Budgets::default(),
            agreement,
            sync: Sync::default(),
            join,
            is_forgetful,
            sign_from: None,
            pull: Pull::default(),
            repair: Repair::default(),
            validator: validator.as_ref().map(|key| key.signer(hash)),
            account: account.signer(hash),
            roles: Roles::new(roles, keys, recovered.roles),
            roles_started: false,
            committing: None,
            deferred: VecDeque::new(),
            timers: BTreeSet::new(),
            now,
            ready: false,
            halted: false,
            alarm: crate::stale::Alarm::default(),
            out: Vec::new(),
        };
        machine.recover_bodies(recovered.bodies)?;
        machine.out.clear();
        Ok(machine)
    }

    /// Executes the kept bodies of the next height again; the vote journal is compared with them when it starts.
    fn recover_bodies(
        &mut self,
        bodies: Vec<(tiltyard_proto::ids::BlockHash, Height, Vec<u8>)>,
    ) -> Result<(), MachineError> {
        for (hash, height, bytes) in bodies {
            if height != self.chain.next_height() || self.agreement.is_none() {
                continue;
            }
            // A body that does not decode is missing: the journal says whether that matters.
            if let Ok(block) = decode(&self.chain.tip, &bytes)
                && block.hash() == hash
            {
                let builder = block.header.builder;
                self.judge_body(block, bytes.len(), (Round::ZERO, builder), false)?;
            }
        }
        Ok(())
    }

    /// Takes one input and returns what must be done, in order.
    ///
    /// # Errors
    /// [`MachineError`]: the node must stop; nothing of this step may be carried out.
    pub fn step(&mut self, now: Now, input: Input) -> Result<Vec<Effect>, MachineError> {
        self.now = now;
        match input {
            Input::Committed(height) => self.on_committed(height)?,
            other if self.committing.is_some() => self.defer(other),
            other => self.take(other)?,
        }
        while self.committing.is_none() {
            let Some(input) = self.deferred.pop_front() else {
                break;
            };
            self.take(input)?;
        }
        while self.committing.is_none() && self.apply_fetched()? {}
        if self.committing.is_none() {
            self.start_when_due()?;
        }
        Ok(core::mem::take(&mut self.out))
    }

    /// Keeps an input until the block on its way is durable. Floods are shed, everything else is kept.
    fn defer(&mut self, input: Input) {
        let full = self.deferred.len() >= DEFERRED_MAX;
        match input {
            Input::Gossip { token, from, .. } if full => {
                self.out.push(Effect::Report { token, from, acceptance: Acceptance::Ignore });
            }
            Input::Request { token, request, .. } => self.on_request(token, &request),
            other => self.deferred.push_back(other),
        }
    }

    fn take(&mut self, input: Input) -> Result<(), MachineError> {
        match input {
            Input::Start => self.on_start(),
            Input::Timer(id) => self.on_timer(id)?,
            Input::Gossip { token, from, message } => self.on_gossip(token, from, *message)?,
            Input::Request { token, request, .. } => self.on_request(token, &request),
            Input::Response { token, from, response } => {
                self.on_response(token, from, response.map(|response| *response))?;
            }
            Input::PeerUp(peer) => self.on_peer_up(peer),
            Input::PeerDown(peer) => self.on_peer_down(&peer),
            Input::Subscribed(_, topic) => self.on_subscribed(topic),
            Input::Committed(height) => self.on_committed(height)?,
            Input::Submit(transaction) => self.on_submit(*transaction)?,
            Input::Blob { root, held } => self.tell_roles(RoleInput::Blob { root, held })?,
            Input::JobEnded { id, outcome } => {
                self.tell_roles(RoleInput::JobEnded { id, outcome })?;
            }
            Input::Missing(missing) => self.on_missing(missing),
            Input::KeepKey { ciphertext, key } => {
                self.tell_roles(RoleInput::KeepKey { ciphertext, key })?;
            }
        }
        Ok(())
    }

    fn on_start(&mut self) {
        self.sync.progressed(self.now.mono_ms);
        self.set_timer(Timer::Listen, LISTEN_MS);
        self.set_timer(Timer::Sync, SYNC_MS);
        self.set_timer(Timer::Offer, OFFER_MS);
    }

    fn on_timer(&mut self, id: TimerId) -> Result<(), MachineError> {
        // A timer that was cancelled or replaced may still be on its way from the shell.
        if !self.timers.remove(&id) {
            return Ok(());
        }
        match Timer::of(id) {
            Some(Timer::Consensus(timer)) => self.agree(ConsensusInput::Timer(timer))?,
            // The height starts at the end of this step.
            Some(Timer::Pace) | None => {}
            Some(Timer::Listen) => {
                self.ready = true;
                self.stop_looking_alone();
                self.wake_roles()?;
            }
            Some(Timer::Flush) => self.announcer.flush(&mut self.out),
            Some(Timer::Offer) => {
                self.set_timer(Timer::Offer, OFFER_MS);
                self.offer_again();
                self.ask_pending();
            }
            Some(Timer::Sync) => self.on_sync_timer(),
            Some(Timer::Pull) => self.on_pull_timer(),
            Some(Timer::SayAgain) => self.agree(ConsensusInput::SayAgain)?,
        }
        Ok(())
    }

    fn on_subscribed(&mut self, topic: Topic) {
        match topic {
            Topic::Consensus | Topic::Bodies => {
                if self.agreement.is_some() && !self.is_timer_set(Timer::SayAgain) {
                    self.set_timer(Timer::SayAgain, SAY_AGAIN_MS);
                }
            }
            Topic::Tasks | Topic::Checkpoints | Topic::Transactions => self.offer_again(),
            Topic::Blocks => {}
        }
    }

    /// Commits a block that this node executed as a candidate.
    pub(crate) fn commit_candidate(
        &mut self,
        candidate: Candidate,
        certificate: Certificate,
    ) -> Result<(), MachineError> {
        let Candidate { block, executed, seen_ms, .. } = candidate;
        match executed {
            Ok(executed) => {
                self.commit(DecidedBlock { block, certificate }, *executed, Some(seen_ms));
                Ok(())
            }
            Err(unfit) => Err(MachineError::DecidedInvalid {
                height: block.header.height,
                block: certificate.block,
                fact: unfit.to_string(),
            }),
        }
    }

    /// Sends a decided block on its way to the disk.
    pub(crate) fn commit(&mut self, decided: DecidedBlock, executed: Executed, seen_ms: Option<u64>) {
        let included: Vec<(TransactionId, bool)> =
            executed.outcomes.iter().map(|outcome| (outcome.id, outcome.result.is_ok())).collect();
        let body = &decided.block.body;
        let senders = body.transactions.iter().map(|signed| signed.transaction.sender).collect();
        let commit =
            Commit { decided: decided.clone(), changes: executed.changes, outcomes: included.clone() };
        self.out.push(Effect::Commit(Box::new(commit)));
        let events = executed.events;
        self.committing = Some(Committing { decided, included, senders, events, seen_ms });
    }

    fn on_committed(&mut self, height: Height) -> Result<(), MachineError> {
        let asked = self.committing.as_ref().map(|c| c.decided.block.header.height);
        let Some(done) = self.committing.take_if(|c| c.decided.block.header.height == height) else {
            return Err(MachineError::Committed { given: height, asked });
        };
        let Committing { decided, included, senders, events, seen_ms } = done;
        self.agree(ConsensusInput::Stop)?;
        self.listen_to_block(&decided)?;
        let tip = Tip::read(&self.genesis, &self.state, Some(&decided))?;
        let hash = tip.hash;
        self.chain.advance(tip);
        self.pull.clear();
        self.sync.progressed(self.now.mono_ms);
        let header = decided.block.header;
        self.notify(Event::Decided {
            height,
            hash,
            transactions: u32::try_from(included.len()).unwrap_or(u32::MAX),
            time: header.time,
            round: decided.certificate.round,
            builder: header.builder,
            finality_ms: seen_ms.map(|seen| self.now.mono_ms.saturating_sub(seen)),
        });
        self.tell_events(height, &events);
        self.settle(&included, &senders)?;
        if !self.is_syncing() {
            let frame = BlockFrame { header, certificate: decided.certificate };
            self.out.push(Effect::Publish { topic: Topic::Blocks, bytes: codec::encode(&frame) });
            self.ready = true;
            self.wake_roles()?;
        }
        self.tell_sync();
        self.forget_old_sayings();
        self.judge_held_bodies()?;
        self.fetch_blocks();
        Ok(())
    }

    pub(crate) fn notify(&mut self, event: Event) {
        self.out.push(Effect::Notify(event));
    }

    pub(crate) fn set_timer(&mut self, timer: Timer, after_ms: u64) {
        let id = timer.id();
        self.timers.insert(id);
        self.out.push(Effect::SetTimer { id, after_ms });
    }

    pub(crate) fn cancel_timer(&mut self, timer: Timer) {
        if self.timers.remove(&timer.id()) {
            self.out.push(Effect::CancelTimer(timer.id()));
        }
    }

    pub(crate) fn is_timer_set(&self, timer: Timer) -> bool {
        self.timers.contains(&timer.id())
    }

    /// Returns the state after the last durable block.
    pub fn state(&self) -> &S {
        &self.state
    }

    /// Returns the roles, to be asked what they keep.
    pub fn roles(&self) -> &Roles {
        &self.roles
    }

    /// Returns the node's state at a glance.
    pub fn status(&self) -> Status {
        let tip = &self.chain.tip;
        let round = self
            .agreement
            .as_ref()
            .filter(|agreement| agreement.consensus.height() == Some(tip.height.next()))
            .map(|agreement| agreement.consensus.round());
        let key = self.agreement.as_ref().map(Agreement::key);
        Status {
            height: tip.height,
            hash: tip.hash,
            time: tip.time,
            round,
            peers: self.sync.peer_count(),
            best_peer_height: self.sync.best(),
            pending_transactions: self.mempool.len(),
            pending_bytes: self.mempool.bytes(),
            own_pending: self.outbox.len(),
            syncing: self.is_syncing(),
            validating: key.is_some_and(|key| tip.next_set.find(&key).is_some()),
            halted: self.halted,
            stale: self.alarm.is_on(),
            joining: self.join.status(self.now.mono_ms),
        }
    }
}

//! Bare loops to compare with: Malachite's core and little else.
//!
//! Four validators in this process, over libp2p on loopback TCP, each with a vote journal that is synced before a vote
//! leaves. No mempool, no execution, no state, no API: blocks are made ahead of time. The loaded form also verifies the
//! signature of every transaction and commits every block to a real store: log synced, state index written behind.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_bytes::ByteBuf;
use tiltyard_consensus::{
    Consensus, ConsensusInput, ConsensusOutput, ConsensusTimer, Durable, Judged, Timeouts,
};
use tiltyard_net::{Limits, Net, NetConfig, NetEvent, NetHandle, NoBlobs, Target};
use tiltyard_proto::block::{Block, DecidedBlock};
use tiltyard_proto::certificate::Certificate;
use tiltyard_proto::codec;
use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::keys::{SecretKey, Signer, Verifier};
use tiltyard_proto::units::{Height, Round};
use tiltyard_proto::validators::ValidatorSet;
use tiltyard_proto::wire::{Acceptance, BodyFrame, ConsensusMessage, GossipMessage, Topic};
use tiltyard_store::journal::Journal;
use tiltyard_store::{ChainStore as _, CommitRef, Store, StoreOptions};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::mpsc;

use super::prepared::Prepared;
use crate::run::layout::{free_ports, multiaddr};

/// How long a loop may stand still.
const PATIENCE: Duration = Duration::from_secs(30);
/// Gossip needs two heartbeats of 700 ms to build its meshes.
const MESHES: Duration = Duration::from_millis(1_600);

/// What a bare loop does besides ordering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Burden {
    /// Nothing.
    None,
    /// Verifies every transaction's signature, and commits to log and sled.
    SignaturesAndStore,
}

/// What a loop did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) heights_per_s: f64,
    /// Processor time of this process a height, all four validators together.
    pub(crate) cpu_ms_per_height: f64,
}

/// Runs the prepared blocks through four validators.
pub(crate) fn run(
    genesis: &Genesis,
    keys: &[SecretKey],
    chain: &Arc<Vec<Prepared>>,
    dir: &Path,
    burden: Burden,
) -> Result<Pace> {
    let runtime = Runtime::new().context("cannot start the async runtime")?;
    let ports = free_ports(keys.len())?;
    let mut members = Vec::new();
    for (at, key) in keys.iter().enumerate() {
        let folder = dir.join(format!("bare-{at}"));
        members.push(Member::open(genesis, key, chain, &folder, burden, &ports, at, runtime.handle())?);
    }
    let threads: Vec<_> = members.into_iter().map(|member| thread::spawn(move || member.work())).collect();
    let before = own_cpu_s();
    let mut marks = Vec::new();
    for thread in threads {
        marks.push(thread.join().map_err(|_| anyhow!("a bare validator broke"))??);
    }
    let cpu = own_cpu_s() - before;
    // The slowest validator counts. The first heights warm connections and caches up.
    let pace = marks.iter().map(|(first, last, heights)| *heights as f64 / (*last - *first).as_secs_f64());
    Ok(Pace {
        heights_per_s: pace.fold(f64::INFINITY, f64::min),
        cpu_ms_per_height: cpu * 1e3 / chain.len() as f64,
    })
}

fn own_cpu_s() -> f64 {
    super::network::usage(std::process::id()).cpu_s
}

/// First mark, last mark, heights between.
type Marks = (Instant, Instant, u64);

struct Member {
    consensus: Consensus,
    signer: Signer,
    verifier: Verifier,
    set: ValidatorSet,
    net: NetHandle,
    events: mpsc::Receiver<NetEvent>,
    handle: Handle,
    journal: Journal,
    /// How far the journal is on disk.
    written: Durable,
    store: Option<Store>,
    chain: Arc<Vec<Prepared>>,
    height: Height,
    counter: u64,
    timers: BTreeMap<(Height, Round, u8), (ConsensusTimer, Instant)>,
    held: BTreeMap<Height, Vec<ConsensusMessage>>,
    bodies: BTreeMap<Height, Judged>,
    decided: Option<Certificate>,
    others: usize,
}

impl Member {
    #[expect(clippy::too_many_arguments, reason = "everything that one validator differs in")]
    fn open(
        genesis: &Genesis,
        key: &SecretKey,
        chain: &Arc<Vec<Prepared>>,
        folder: &Path,
        burden: Burden,
        ports: &[u16],
        at: usize,
        handle: &Handle,
    ) -> Result<Self> {
        let network = genesis.hash();
        let set = genesis.validator_set()?;
        let config = NetConfig {
            seed: *key.seed(),
            genesis: network,
            listen: vec![multiaddr(ports[at])],
            bootstrap: ports[..at]
                .iter()
                .map(|port| Target::parse(&multiaddr(*port)))
                .collect::<Result<_, _>>()?,
            topics: vec![Topic::Consensus, Topic::Bodies],
            block_bytes_max: genesis.params.block_bytes_max as usize,
            limits: Limits::default(),
        };
        let entered = handle.enter();
        let (net, events) = Net::spawn(config, Arc::new(NoBlobs))?;
        drop(entered);
        std::fs::create_dir_all(folder)?;
        let store = match burden {
            Burden::None => None,
            Burden::SignaturesAndStore => {
                Some(Store::open(&folder.join("chain"), genesis, StoreOptions::default())?.0)
            }
        };
        let timeouts = Timeouts::of(&genesis.params);
        Ok(Self {
            consensus: Consensus::new(key.signer(network), genesis.params.epoch, timeouts, set.clone()),
            signer: key.signer(network),
            verifier: Verifier::new(network),
            set,
            net,
            events,
            handle: handle.clone(),
            journal: Journal::open(folder, &network)?.0,
            written: Durable::at_start(),
            store,
            chain: Arc::clone(chain),
            height: Height::new(1),
            counter: 0,
            timers: BTreeMap::new(),
            held: BTreeMap::new(),
            bodies: BTreeMap::new(),
            decided: None,
            others: ports.len() - 1,
        })
    }

    /// Decides every prepared height.
    fn work(mut self) -> Result<Marks> {
        self.wait_for_others()?;
        let (last, warm) = (self.chain.len() as u64, self.chain.len() as u64 / 10);
        let mut first = Instant::now();
        while self.height.get() <= last {
            if self.height.get() == warm + 1 {
                first = Instant::now();
            }
            self.one_height()?;
            self.height = self.height.next();
        }
        let end = Instant::now();
        // Others may still need this one's last votes: gossip hands them on before the task ends.
        thread::sleep(Duration::from_millis(300));
        self.net.shutdown();
        Ok((first, end, last - warm))
    }

    fn wait_for_others(&mut self) -> Result<()> {
        let mut subscribed = 0;
        let until = Instant::now() + PATIENCE;
        while subscribed < self.others * 2 {
            match self.hear(until)? {
                Some(NetEvent::Subscribed(..)) => subscribed += 1,
                Some(_) => {}
                None => bail!("the others were not found in {} s", PATIENCE.as_secs()),
            }
        }
        thread::sleep(MESHES);
        Ok(())
    }

    fn hear(&mut self, until: Instant) -> Result<Option<NetEvent>> {
        let events = &mut self.events;
        match self.handle.block_on(async { tokio::time::timeout_at(until.into(), events.recv()).await }) {
            Ok(Some(event)) => Ok(Some(event)),
            Ok(None) => bail!("the network ended"),
            Err(_) => Ok(None),
        }
    }

    fn one_height(&mut self) -> Result<()> {
        let height = self.height;
        self.feed(ConsensusInput::Start { height, set: self.set.clone(), journal: Vec::new() })?;
        if let Some(judged) = self.bodies.remove(&height) {
            self.feed(ConsensusInput::Judged(judged))?;
        }
        for message in self.held.remove(&height).unwrap_or_default() {
            self.feed(ConsensusInput::Message(message))?;
        }
        let stuck = Instant::now() + PATIENCE;
        while self.decided.is_none() {
            let due = self.timers.values().map(|(_, at)| *at).min().unwrap_or(stuck);
            if let Some(event) = self.hear(due.min(stuck))? {
                self.on_event(event)?;
            } else if Instant::now() >= stuck {
                bail!("height {height} was not decided in {} s", PATIENCE.as_secs());
            } else {
                self.ring()?;
            }
        }
        let certificate = self.decided.take().context("decided above")?;
        self.commit(certificate)?;
        self.feed(ConsensusInput::Stop)
    }

    fn commit(&mut self, certificate: Certificate) -> Result<()> {
        let Some(store) = &mut self.store else { return Ok(()) };
        let at = usize::try_from(self.height.get() - 1)?;
        let prepared = self.chain.get(at).context("a height that was not prepared")?;
        let decided = DecidedBlock { block: prepared.block.clone(), certificate };
        let commit =
            CommitRef { decided: &decided, changes: &prepared.changes, outcomes: &prepared.outcomes };
        Ok(store.commit(commit)?)
    }

    /// Tells agreement of timers that are due.
    fn ring(&mut self) -> Result<()> {
        let now = Instant::now();
        let due: Vec<_> = self
            .timers
            .iter()
            .filter(|(_, (_, at))| *at <= now)
            .map(|(name, (timer, _))| (*name, *timer))
            .collect();
        for (name, timer) in due {
            self.timers.remove(&name);
            self.feed(ConsensusInput::Timer(timer))?;
        }
        Ok(())
    }

    fn on_event(&mut self, event: NetEvent) -> Result<()> {
        let NetEvent::Message { token, from, message } = event else { return Ok(()) };
        let acceptance = match *message {
            GossipMessage::Consensus(frame) => self.on_message(frame.message)?,
            GossipMessage::Body(frame) => self.on_body(&frame)?,
            GossipMessage::Transactions(..) | GossipMessage::Block(_) => Acceptance::Ignore,
        };
        Ok(self.net.report(token, &from, acceptance)?)
    }

    fn on_message(&mut self, message: ConsensusMessage) -> Result<Acceptance> {
        if self.consensus.check(&message, &self.set).is_err() {
            return Ok(Acceptance::Reject);
        }
        let height = match &message {
            ConsensusMessage::Vote(vote) => vote.vote.height,
            ConsensusMessage::Proposal(signed) => signed.proposal.height,
            ConsensusMessage::Polka { proof, .. } | ConsensusMessage::RoundChange { proof, .. } => {
                proof.height
            }
        };
        if height == self.height {
            self.feed(ConsensusInput::Message(message))?;
        } else if height > self.height {
            self.held.entry(height).or_default().push(message);
        }
        Ok(Acceptance::Accept)
    }

    fn on_body(&mut self, frame: &BodyFrame) -> Result<Acceptance> {
        let block = Block::decode(&frame.block, frame.block.len())?;
        let (block_hash, height) = (block.hash(), block.header.height);
        let payload = BodyFrame::payload(height, frame.round, &block_hash);
        self.verifier.verify_body(&frame.sender, &payload, &frame.signature)?;
        if self.store.is_some() {
            for signed in block.body.transactions {
                signed.verify(&self.verifier)?;
            }
        }
        let judged =
            Judged { block: block_hash, height, round: frame.round, proposer: frame.sender, valid: true };
        if height == self.height {
            self.feed(ConsensusInput::Judged(judged))?;
        } else if height > self.height {
            self.bodies.insert(height, judged);
        }
        Ok(Acceptance::Accept)
    }

    /// Feeds agreement and does what it asks for, in order.
    fn feed(&mut self, input: ConsensusInput) -> Result<()> {
        for output in self.consensus.handle(input) {
            match output {
                ConsensusOutput::Journal { fresh: true, batch } => {
                    self.written = batch.perform(|bytes| self.journal.reset(bytes))?;
                }
                ConsensusOutput::Journal { fresh: false, batch } => {
                    self.written = batch.perform(|bytes| self.journal.append(bytes))?;
                }
                ConsensusOutput::Publish { message, again } => {
                    let counter = self.next_counter(again);
                    let frame = message.into_frame(counter).open(&self.written)?;
                    self.net.publish(Topic::Consensus, frame)?;
                }
                ConsensusOutput::Build { height, round } => {
                    self.publish_body(round, false)?;
                    let block = self.prepared(height)?.hash;
                    self.feed(ConsensusInput::Propose { round, block })?;
                }
                ConsensusOutput::Restream { round, .. } => self.publish_body(round, true)?,
                ConsensusOutput::SetTimer { timer, after_ms } => {
                    let at = Instant::now() + Duration::from_millis(after_ms);
                    self.timers.insert(name_of(&timer), (timer, at));
                }
                ConsensusOutput::CancelTimer(timer) => {
                    self.timers.remove(&name_of(&timer));
                }
                ConsensusOutput::Decided(certificate) => self.decided = Some(certificate),
                ConsensusOutput::RoundStarted { .. } | ConsensusOutput::Trouble { .. } => {}
                ConsensusOutput::Halted { fact } => bail!("agreement halted: {fact}"),
            }
        }
        Ok(())
    }

    fn prepared(&self, height: Height) -> Result<&Prepared> {
        let at = usize::try_from(height.get() - 1)?;
        self.chain.get(at).context("a height that was not prepared")
    }

    fn publish_body(&mut self, round: Round, again: bool) -> Result<()> {
        let counter = self.next_counter(again);
        let (height, prepared) = (self.height, self.prepared(self.height)?);
        let frame = BodyFrame {
            counter,
            block: ByteBuf::from(prepared.bytes.clone()),
            round,
            sender: self.signer.public(),
            signature: self.signer.sign_body(&BodyFrame::payload(height, round, &prepared.hash)),
        };
        Ok(self.net.publish(Topic::Bodies, codec::encode(&frame))?)
    }

    fn next_counter(&mut self, again: bool) -> u64 {
        self.counter += u64::from(again);
        if again { self.counter } else { 0 }
    }
}

fn name_of(timer: &ConsensusTimer) -> (Height, Round, u8) {
    use tiltyard_consensus::TimerKind::{Precommit, Prevote, Propose, Rebroadcast};
    let kind = match timer.kind {
        Propose => 0,
        Prevote => 1,
        Precommit => 2,
        Rebroadcast => 3,
    };
    (timer.height, timer.round, kind)
}

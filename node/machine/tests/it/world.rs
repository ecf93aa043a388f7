//! A network of machines in virtual time: seeded loss, duplication, delay, and crashes between any two effects.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::rc::Rc;

use tiltyard_consensus::Now;
use tiltyard_keys::{PublicKey, SecretKey};
use tiltyard_ledger::memory::MemoryState;
use tiltyard_ledger::{ReadError, StateRead};
use tiltyard_machine::io::{Effect, Input, Job, JobId, JobOutcome, MessageToken, TimerId};
use tiltyard_machine::roles::{JudgeConfig, MinerConfig, RoleConfig, RoleSecret};
use tiltyard_machine::{Config, Durable, Event, JoinConfig, JoinState, Machine, MempoolLimits, Recovered};
use tiltyard_proto::block::{Block, DecidedBlock};
use tiltyard_proto::codec;
use tiltyard_proto::genesis::{Genesis, GenesisValidator, Grant, Params};
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::limits::{BLOCK_BYTES_HARD_MAX, BODY_FRAME_EXTRA_BYTES, FRAME_BYTES_MAX};
use tiltyard_proto::transaction::{Action, SignedTransaction, Transaction, VerifiedTransaction};
use tiltyard_proto::units::{Blocks, Height, MicroCredits, Nonce, Round, Stake, UnixMillis};
use tiltyard_proto::wire::{
    Acceptance, BlockFrame, BodyFrame, ConsensusFrame, GossipMessage, Peer, SyncRequest, SyncResponse, Topic,
    TransactionFrame,
};

use crate::snapshot::{Lie, Snapshot};

/// The wall clock at virtual time 0.
pub(crate) const EPOCH_MS: u64 = 1_800_000_000_000;

/// What a node's store holds; survives crashes.
#[derive(Debug, Default, Clone)]
pub(crate) struct Disk {
    pub(crate) state: MemoryState,
    pub(crate) blocks: Vec<DecidedBlock>,
    pub(crate) journal: Vec<Vec<u8>>,
    pub(crate) bodies: BTreeMap<BlockHash, (Height, Vec<u8>)>,
    pub(crate) roles: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Blocks before the first one that is kept.
    pub(crate) base: u64,
    pub(crate) snapshots: BTreeMap<u64, Snapshot>,
    pub(crate) joining: Option<JoinState>,
    pub(crate) chunks: BTreeMap<u32, Vec<u8>>,
    pub(crate) begun_by_snapshot: bool,
}

impl Disk {
    pub(crate) fn height(&self) -> u64 {
        self.base + self.blocks.len() as u64
    }

    /// Blocks from a height on.
    fn from(&self, height: u64) -> impl Iterator<Item = &DecidedBlock> {
        let skipped = height.saturating_sub(self.base + 1);
        let gone = height <= self.base;
        self.blocks.iter().skip(usize::try_from(skipped).unwrap()).take_while(move |_| !gone)
    }

    /// Drops blocks up to a height, as a node with a horizon does.
    pub(crate) fn prune_through(&mut self, height: u64) {
        while self.base < height && self.blocks.len() > 1 {
            self.blocks.remove(0);
            self.base += 1;
        }
    }
}

/// A view of the disk's state, as the store's reader gives it.
#[derive(Debug, Clone)]
pub(crate) struct DiskState(pub(crate) Rc<RefCell<Disk>>);

impl StateRead for DiskState {
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.0.borrow().state.value(key)
    }

    fn node(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.0.borrow().state.node(key)
    }

    fn tree_version(&self) -> Result<Option<u64>, ReadError> {
        self.0.borrow().state.tree_version()
    }
}

/// What a node is in the test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Validator,
    /// Has a consensus key and credits, but no stake yet.
    Newcomer,
    Miner,
    Observer,
}

impl Part {
    pub(crate) fn has_consensus_key(self) -> bool {
        match self {
            Self::Validator | Self::Newcomer => true,
            Self::Miner | Self::Observer => false,
        }
    }
}

/// One node: its disk, and its machine while it runs.
pub(crate) struct Node {
    pub(crate) seed: u8,
    pub(crate) part: Part,
    pub(crate) join: Option<JoinConfig>,
    pub(crate) disk: Rc<RefCell<Disk>>,
    /// How far its vote journal is written in this life.
    written: Durable,
    pub(crate) machine: Option<Machine<DiskState>>,
    /// Counts restarts: timers and answers of an earlier life are lost.
    life: u64,
    timers: BTreeMap<TimerId, u64>,
    pub(crate) events: Vec<Event>,
    /// Effects that wait for the disk.
    pub(crate) durable: u64,
    /// Effects left before the next crash.
    pub(crate) crash_after: Option<u64>,
    pub(crate) stopped_signing: Option<String>,
    pub(crate) penalties: Vec<&'static str>,
    /// Blocks that were put back into the log.
    pub(crate) repaired: Vec<DecidedBlock>,
    pub(crate) reports: Vec<Acceptance>,
}

enum Due {
    Give(usize, u64, Input),
    Timer(usize, u64, TimerId, u64),
    Restart(usize),
}

/// How bad the network is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) lost_percent: u64,
    pub(crate) twice_percent: u64,
    pub(crate) delay_ms_max: u64,
}

/// A quiet network.
pub(crate) const CALM: Weather = Weather { lost_percent: 0, twice_percent: 0, delay_ms_max: 5 };

/// The whole network.
pub(crate) struct World {
    pub(crate) genesis: Genesis,
    pub(crate) nodes: Vec<Node>,
    pub(crate) weather: Weather,
    pub(crate) now_ms: u64,
    due: BTreeMap<(u64, u64), Due>,
    serial: u64,
    random: u64,
    token: u64,
    pub(crate) restart_after_ms: u64,
    /// Peers that answer requests for blocks with nonsense.
    pub(crate) liars: BTreeSet<usize>,
    /// A node that is surrounded: no gossip reaches it, and liars lie to nobody else.
    pub(crate) eclipsed: Option<usize>,
    /// Peers that claim much and never answer.
    pub(crate) mutes: BTreeSet<usize>,
    /// Peers that offer a state of their own making, under a header that keys of their own decided.
    pub(crate) forgers: BTreeSet<usize>,
    /// A snapshot is made after every so many blocks; 0 for never.
    pub(crate) snapshot_every: u64,
    /// Chunks that were given, by who gave them.
    pub(crate) chunks_given: BTreeMap<usize, u64>,
    /// Answers with blocks, by who gave them.
    pub(crate) blocks_given: BTreeMap<usize, u64>,
    /// What each proposer offered, ever: one block for a height and round, restarts or not.
    offered: BTreeMap<(PublicKey, Height, Round), BlockHash>,
    /// Scores that each miner's checkpoint gets, by seed; the base gets 3 nats.
    pub(crate) skill: BTreeMap<u8, u32>,
    /// Nodes whose disk damages the next checkpoint that they are about to score.
    pub(crate) damaging: BTreeSet<usize>,
    /// What each node asked for, in order.
    pub(crate) fetched: Vec<(usize, tiltyard_proto::ids::BlobRoot)>,
}

pub(crate) fn secret(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

/// The account of a node is another key than its consensus key.
pub(crate) fn account(seed: u8) -> SecretKey {
    let mut bytes = [seed; 32];
    bytes[0] = 0xaa;
    SecretKey::from_seed(&bytes)
}

pub(crate) fn peer(at: usize) -> Peer {
    Peer::new(vec![0, 1, u8::try_from(at).unwrap()])
}

pub(crate) fn params(validators: u64) -> Params {
    Params {
        block_interval_ms: 200,
        propose_timeout_ms: 200,
        prevote_timeout_ms: 100,
        precommit_timeout_ms: 100,
        rebroadcast_ms: 300,
        epoch: Blocks::new(10),
        ..Params::default_for(validators)
    }
}

impl World {
    pub(crate) fn new(random: u64, parts: &[Part]) -> Self {
        let seeds: Vec<u8> = (1..=u8::try_from(parts.len()).unwrap()).collect();
        let mut validators: Vec<GenesisValidator> = seeds
            .iter()
            .zip(parts)
            .enumerate()
            .filter(|(_, (_, part))| **part == Part::Validator)
            .map(|(at, (seed, _))| GenesisValidator {
                key: secret(*seed).public(),
                stake: Stake::new(1_000),
                peer: serde_bytes::ByteBuf::from(peer(at).as_bytes().to_vec()),
                addresses: vec![],
                payout: account(*seed).public(),
            })
            .collect();
        validators.sort_by_key(|validator| validator.key);
        let newcomers = seeds.iter().zip(parts).filter(|(_, part)| **part == Part::Newcomer);
        let mut grants: Vec<Grant> = seeds
            .iter()
            .map(|seed| account(*seed).public())
            .chain(newcomers.map(|(seed, _)| secret(*seed).public()))
            .map(|account| Grant { account, amount: MicroCredits::new(10_000_000_000) })
            .collect();
        grants.sort();
        let count = validators.len() as u64;
        let genesis = Genesis {
            version: Genesis::VERSION,
            name: "memory".to_owned(),
            time: UnixMillis::new(EPOCH_MS),
            params: params(count),
            validators,
            grants,
        };
        genesis.check().unwrap();
        let mut world = Self {
            genesis,
            nodes: Vec::new(),
            weather: CALM,
            now_ms: 1_000,
            due: BTreeMap::new(),
            serial: 0,
            random: random.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            token: 0,
            restart_after_ms: 500,
            liars: BTreeSet::new(),
            eclipsed: None,
            mutes: BTreeSet::new(),
            forgers: BTreeSet::new(),
            snapshot_every: 0,
            chunks_given: BTreeMap::new(),
            blocks_given: BTreeMap::new(),
            offered: BTreeMap::new(),
            skill: BTreeMap::new(),
            damaging: BTreeSet::new(),
            fetched: Vec::new(),
        };
        for (seed, part) in seeds.iter().zip(parts) {
            let mut state = MemoryState::new();
            state.apply(&tiltyard_ledger::genesis(&world.genesis).unwrap());
            world.nodes.push(Node {
                seed: *seed,
                part: *part,
                join: None,
                disk: Rc::new(RefCell::new(Disk { state, ..Disk::default() })),
                machine: None,
                life: 0,
                timers: BTreeMap::new(),
                events: Vec::new(),
                durable: 0,
                written: Durable::at_start(),
                crash_after: None,
                stopped_signing: None,
                penalties: Vec::new(),
                repaired: Vec::new(),
                reports: Vec::new(),
            });
        }
        world
    }

    pub(crate) fn validators(random: u64, count: usize) -> Self {
        Self::new(random, &vec![Part::Validator; count])
    }

    pub(crate) fn random(&mut self, below: u64) -> u64 {
        // xorshift64*: reproducible, good enough to shuffle a network.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below.max(1)
    }

    fn now(&self) -> Now {
        Now { mono_ms: self.now_ms, unix: UnixMillis::new(EPOCH_MS + self.now_ms) }
    }

    fn at(&mut self, delay_ms: u64, due: Due) {
        self.serial += 1;
        self.due.insert((self.now_ms + delay_ms, self.serial), due);
    }

    /// Changes the network's parameters before anything has started.
    pub(crate) fn with_params(mut self, change: impl FnOnce(&mut Params)) -> Self {
        change(&mut self.genesis.params);
        self.genesis.check().unwrap();
        for at in 0..self.nodes.len() {
            self.wipe(at);
        }
        self
    }

    /// Empties a node's disk: it holds genesis and nothing else.
    pub(crate) fn wipe(&mut self, at: usize) {
        let mut state = MemoryState::new();
        state.apply(&tiltyard_ledger::genesis(&self.genesis).unwrap());
        *self.nodes[at].disk.borrow_mut() = Disk { state, ..Disk::default() };
    }

    /// Starts every node that does not run.
    pub(crate) fn start_all(&mut self) {
        for at in 0..self.nodes.len() {
            self.start(at);
        }
    }

    pub(crate) fn start(&mut self, at: usize) {
        if self.nodes[at].machine.is_some() {
            return;
        }
        let now = self.now();
        let node = &mut self.nodes[at];
        let disk = node.disk.borrow();
        let recovered = Recovered {
            tip: disk.blocks.last().cloned(),
            journal: disk.journal.clone(),
            bodies: disk.bodies.iter().map(|(hash, (h, b))| (*hash, *h, b.clone())).collect(),
            roles: disk.roles.clone().into_iter().collect(),
            joining: disk
                .joining
                .as_ref()
                .map(|state| JoinState { have: disk.chunks.keys().copied().collect(), ..state.clone() }),
            begun_by_snapshot: false,
        };
        let recovered = Recovered { begun_by_snapshot: disk.begun_by_snapshot, ..recovered };
        drop(disk);
        let miner = MinerConfig {
            bond_max: MicroCredits::new(1_000_000_000),
            pot_min: MicroCredits::new(1),
            blob_bytes_max: 1 << 30,
            finish_before: Blocks::new(3),
            tasks_max: 2,
        };
        let config = Config {
            genesis: self.genesis.clone(),
            peer: peer(at),
            validator: node.part.has_consensus_key().then(|| secret(node.seed)),
            twin_wait: Blocks::new(2),
            account: account(node.seed),
            roles: RoleConfig {
                judge: (node.part == Part::Validator).then_some(JudgeConfig { blob_bytes_max: 1 << 30 }),
                miner: (node.part == Part::Miner).then_some(miner),
            },
            role_secret: RoleSecret::new([node.seed; 32]),
            mempool: MempoolLimits::default(),
            join: node.join.clone(),
        };
        let state = DiskState(Rc::clone(&node.disk));
        node.machine = Some(Machine::new(config, state, recovered, now).unwrap());
        node.life += 1;
        node.written = Durable::at_start();
        node.timers.clear();
        self.give(at, Input::Start);
        for other in 0..self.nodes.len() {
            if other != at && self.nodes[other].machine.is_some() {
                for (a, b) in [(at, other), (other, at)] {
                    self.send(a, 2, Input::PeerUp(peer(b)));
                    self.send(a, 3, Input::Subscribed(peer(b), Topic::Consensus));
                }
            }
        }
    }

    /// Kills a node: what is not on its disk is gone.
    pub(crate) fn kill(&mut self, at: usize) {
        self.nodes[at].machine = None;
        self.nodes[at].life += 1;
        for other in 0..self.nodes.len() {
            self.send(other, 2, Input::PeerDown(peer(at)));
        }
    }

    fn send(&mut self, to: usize, delay_ms: u64, input: Input) {
        let life = self.nodes[to].life;
        self.at(delay_ms, Due::Give(to, life, input));
    }

    /// Gives an input now and carries out what follows.
    pub(crate) fn give(&mut self, at: usize, input: Input) {
        let now = self.now();
        let Some(machine) = &mut self.nodes[at].machine else {
            return;
        };
        let effects = machine.step(now, input).unwrap_or_else(|error| panic!("node {at}: {error}"));
        for effect in effects {
            if let Some(left) = &mut self.nodes[at].crash_after {
                if *left == 0 {
                    self.nodes[at].crash_after = None;
                    self.kill(at);
                    self.at(self.restart_after_ms, Due::Restart(at));
                    return;
                }
                *left -= 1;
            }
            self.carry_out(at, effect);
        }
    }

    fn carry_out(&mut self, at: usize, effect: Effect) {
        let disk = Rc::clone(&self.nodes[at].disk);
        self.nodes[at].durable += u64::from(matches!(
            effect,
            Effect::SaveBody { .. }
                | Effect::Journal(_)
                | Effect::ResetJournal(_)
                | Effect::Commit(_)
                | Effect::SaveRole(_)
                | Effect::BeginSnapshot { .. }
                | Effect::SaveChunk { .. }
                | Effect::FinishSnapshot { .. }
        ));
        match effect {
            Effect::SaveBody { block, height, bytes } => {
                disk.borrow_mut().bodies.insert(block, (height, bytes));
            }
            Effect::Journal(batch) => {
                let written = batch.perform(|bytes| {
                    disk.borrow_mut().journal.push(bytes.to_vec());
                    Ok::<(), Infallible>(())
                });
                self.nodes[at].written = written.unwrap_or_else(|never| match never {});
            }
            Effect::ResetJournal(batch) => {
                let written = batch.perform(|bytes| {
                    disk.borrow_mut().journal = vec![bytes.to_vec()];
                    Ok::<(), Infallible>(())
                });
                self.nodes[at].written = written.unwrap_or_else(|never| match never {});
            }
            Effect::Commit(commit) => {
                let mut disk = disk.borrow_mut();
                let height = commit.decided.block.header.height;
                assert_eq!(disk.height() + 1, height.get(), "node {at} leaves a gap");
                disk.state.apply(&commit.changes);
                disk.blocks.push(commit.decided);
                disk.bodies.retain(|_, (of, _)| *of > height);
                if self.snapshot_every > 0 && height.get().is_multiple_of(self.snapshot_every) {
                    crate::snapshot::make(&mut disk);
                }
                drop(disk);
                self.send(at, 1, Input::Committed(height));
            }
            Effect::Repair(blocks) => {
                self.nodes[at].repaired.extend(blocks);
                self.send(at, 1, Input::Missing(None));
            }
            Effect::SaveRole((key, value)) => {
                let mut disk = disk.borrow_mut();
                if value.is_empty() {
                    disk.roles.remove(&key);
                } else {
                    disk.roles.insert(key, value);
                }
            }
            Effect::Say { topic, frame } => {
                let bytes = frame.open(&self.nodes[at].written).expect("journal before vote");
                self.publish(at, topic, &bytes);
            }
            Effect::BeginSnapshot { decided, cut } => {
                let mut disk = disk.borrow_mut();
                disk.joining = Some(JoinState { decided: *decided, cut, have: Vec::new() });
                disk.chunks.clear();
            }
            Effect::SaveChunk { index, bytes } => {
                assert!(disk.borrow_mut().chunks.insert(index, bytes).is_none(), "chunk {index} saved twice");
            }
            Effect::FinishSnapshot { .. } => {
                crate::snapshot::adopt(&mut disk.borrow_mut());
                self.kill(at);
                self.at(10, Due::Restart(at));
            }
            Effect::DropSnapshot => disk.borrow_mut().joining = None,
            Effect::Publish { topic, bytes } => self.publish(at, topic, &bytes),
            Effect::Report { acceptance, .. } => self.nodes[at].reports.push(acceptance),
            Effect::Ask { token, to, request } => self.ask(at, token, &to, request),
            Effect::Respond { token, response } => {
                let asker = usize::try_from(token.0 >> 32).unwrap();
                let token = tiltyard_machine::io::RequestToken(token.0 & 0xffff_ffff);
                let response = Some(response);
                self.send(asker, 2, Input::Response { token, from: peer(at), response });
            }
            Effect::Penalize { fact, .. } => self.nodes[at].penalties.push(fact),
            Effect::SetTimer { id, after_ms } => {
                self.serial += 1;
                let (life, serial) = (self.nodes[at].life, self.serial);
                self.nodes[at].timers.insert(id, serial);
                self.at(after_ms, Due::Timer(at, life, id, serial));
            }
            Effect::CancelTimer(id) => {
                self.nodes[at].timers.remove(&id);
            }
            Effect::Fetch { blob, .. } => {
                self.fetched.push((at, blob.root));
                self.send(at, 20, Input::Blob { root: blob.root, held: true });
            }
            Effect::Serve { .. } | Effect::Drop(_) | Effect::FinishJob(_) | Effect::CancelJob(_) => {}
            Effect::StartJob { id, job } => self.run_job(at, id, *job),
            Effect::Notify(event) => self.nodes[at].events.push(event),
            Effect::StopSigning { fact } => self.nodes[at].stopped_signing = Some(fact),
        }
    }

    fn run_job(&mut self, at: usize, id: JobId, job: Job) {
        let outcome = match job {
            Job::Check { .. } => JobOutcome::Checked,
            Job::Train { task, spec, miner } => crate::market::trained(&task, &spec, &miner),
            Job::Evaluate { subject: Some(root), .. } if self.damaging.remove(&at) => {
                JobOutcome::Lost { blobs: vec![root] }
            }
            Job::Evaluate { task, spec, subject, .. } => {
                crate::market::evaluated(&self.skill, &task, &spec, subject.as_ref())
            }
        };
        self.send(at, 100, Input::JobEnded { id, outcome: Box::new(outcome) });
    }

    fn publish(&mut self, from: usize, topic: Topic, bytes: &[u8]) {
        if let GossipMessage::Body(frame) = decode(topic, bytes) {
            let block = Block::decode(&frame.block, BLOCK_BYTES_HARD_MAX).unwrap();
            let slot = (frame.sender, block.header.height, frame.round);
            let before = *self.offered.entry(slot).or_insert(block.hash());
            assert_eq!(before, block.hash(), "node {from} offers two blocks in {slot:?}");
        }
        for to in 0..self.nodes.len() {
            let hears = match topic {
                Topic::Consensus | Topic::Bodies => self.nodes[to].part.has_consensus_key(),
                Topic::Tasks | Topic::Checkpoints | Topic::Transactions | Topic::Blocks => true,
            };
            if to == from || !hears || self.eclipsed == Some(to) || self.nodes[to].machine.is_none() {
                continue;
            }
            let weather = self.weather;
            let mut copies = 1;
            if self.random(100) < weather.lost_percent {
                copies = 0;
            } else if self.random(100) < weather.twice_percent {
                copies = 2;
            }
            for _ in 0..copies {
                let delay = 1 + self.random(weather.delay_ms_max);
                self.gossip(from, to, delay, decode(topic, bytes));
            }
        }
    }

    pub(crate) fn gossip(&mut self, from: usize, to: usize, delay: u64, message: GossipMessage) {
        self.token += 1;
        let token = MessageToken(self.token);
        let message = Box::new(message);
        self.send(to, delay, Input::Gossip { token, from: peer(from), message });
    }

    fn ask(
        &mut self,
        from: usize,
        token: tiltyard_machine::io::RequestToken,
        to: &Peer,
        request: SyncRequest,
    ) {
        let to = usize::from(to.as_bytes()[2]);
        if self.nodes[to].machine.is_none() {
            self.send(from, 2, Input::Response { token, from: peer(to), response: None });
            return;
        }
        let lies = self.liars.contains(&to) && self.eclipsed.is_none_or(|victim| victim == from);
        if self.mutes.contains(&to) && request != SyncRequest::Status {
            self.send(from, 10_000, Input::Response { token, from: peer(to), response: None });
            return;
        }
        let lies = lies || self.mutes.contains(&to);
        if matches!(request, SyncRequest::SnapshotChunk { .. }) {
            *self.chunks_given.entry(to).or_default() += 1;
        }
        if matches!(request, SyncRequest::Blocks { .. }) {
            *self.blocks_given.entry(to).or_default() += 1;
        }
        let response = {
            let disk = self.nodes[to].disk.borrow();
            match &request {
                SyncRequest::Status => {
                    let tip = if lies { 1_000_000 } else { disk.height() };
                    let first = Height::new(disk.base + 1);
                    Some(SyncResponse::Status { tip: Height::new(tip), first })
                }
                SyncRequest::Blocks { from, max } => {
                    let max = usize::try_from(*max).unwrap();
                    let mut blocks: Vec<DecidedBlock> = disk.from(from.get()).take(max).cloned().collect();
                    if let (true, Some(first)) = (self.forgers.contains(&to), blocks.first_mut()) {
                        *first = crate::snapshot::forge(&disk, first).0;
                    }
                    if lies {
                        for decided in &mut blocks {
                            decided.block.header.time = UnixMillis::new(7);
                        }
                    }
                    Some(SyncResponse::Blocks(blocks))
                }
                SyncRequest::LightBlock { .. }
                | SyncRequest::Snapshots
                | SyncRequest::SnapshotCut { .. }
                | SyncRequest::SnapshotChunk { .. } => {
                    let lie = match (self.forgers.contains(&to), lies) {
                        (true, _) => Lie::Forged,
                        (false, true) => Lie::Tampered,
                        (false, false) => Lie::No,
                    };
                    Some(crate::snapshot::answer(&disk, &request, lie))
                }
                SyncRequest::Body { .. } | SyncRequest::PendingIds | SyncRequest::Pending { .. } => None,
            }
        };
        match response {
            Some(response) => {
                let response = Some(Box::new(response));
                self.send(from, 4, Input::Response { token, from: peer(to), response });
            }
            None => {
                let token = tiltyard_machine::io::RequestToken(token.0 | ((from as u64) << 32));
                self.send(to, 2, Input::Request { token, from: peer(from), request });
            }
        }
    }

    /// Runs until virtual time `until_ms`, or until `done` says so; returns whether it did.
    pub(crate) fn run_until(&mut self, until_ms: u64, done: impl Fn(&Self) -> bool) -> bool {
        loop {
            if done(self) {
                return true;
            }
            let Some((at_ms, _)) = self.due.first_key_value().map(|(key, _)| *key) else {
                return false;
            };
            if at_ms > until_ms {
                self.now_ms = until_ms;
                return false;
            }
            let Some((_, due)) = self.due.pop_first() else {
                return false;
            };
            self.now_ms = at_ms;
            match due {
                Due::Give(to, life, input) => {
                    if self.nodes[to].life == life {
                        self.give(to, input);
                    }
                }
                Due::Timer(to, life, id, serial) => {
                    let node = &mut self.nodes[to];
                    if node.life == life && node.timers.get(&id) == Some(&serial) {
                        node.timers.remove(&id);
                        self.give(to, Input::Timer(id));
                    }
                }
                Due::Restart(at) => self.start(at),
            }
        }
    }

    /// Runs `ms` of virtual time.
    pub(crate) fn run(&mut self, ms: u64) {
        self.run_until(self.now_ms + ms, |_| false);
    }

    pub(crate) fn height(&self, at: usize) -> u64 {
        self.nodes[at].disk.borrow().height()
    }

    pub(crate) fn lowest(&self) -> u64 {
        (0..self.nodes.len()).map(|at| self.height(at)).min().unwrap()
    }

    /// Panics unless every two nodes have the same blocks as far as both go, in the same state where level.
    pub(crate) fn assert_agreement(&self) {
        let longest = (0..self.nodes.len()).max_by_key(|at| self.height(*at)).unwrap();
        let truth = self.nodes[longest].disk.borrow();
        for (at, node) in self.nodes.iter().enumerate() {
            let disk = node.disk.borrow();
            let first = disk.base.max(truth.base) + 1;
            for (mine, theirs) in disk.from(first).zip(truth.from(first)) {
                assert_eq!(mine.block, theirs.block, "nodes {at} and {longest} fork");
            }
            let totals = tiltyard_ledger::query::totals(&disk.state).unwrap();
            assert!(totals.is_conserved(), "node {at} lost credits");
            if disk.height() == truth.height() {
                // Trees of states that were joined have nodes of other versions; entries and root are the same.
                assert!(disk.state.entries().eq(truth.state.entries()), "nodes {at} and {longest} differ");
                let root = tiltyard_ledger::tree::root(&disk.state).unwrap();
                assert_eq!(root, tiltyard_ledger::tree::root(&truth.state).unwrap(), "node {at}");
            }
        }
    }

    /// Signs a transfer from a node's account.
    pub(crate) fn transfer(&self, from: u8, nonce: u64, to: PublicKey, amount: u64) -> VerifiedTransaction {
        self.sign(from, nonce, Action::Transfer { to, amount: MicroCredits::new(amount) })
    }

    pub(crate) fn sign(&self, from: u8, nonce: u64, action: Action) -> VerifiedTransaction {
        self.sign_with(&account(from), nonce, action)
    }

    pub(crate) fn sign_with(&self, key: &SecretKey, nonce: u64, action: Action) -> VerifiedTransaction {
        Transaction {
            version: Transaction::VERSION,
            genesis: self.genesis.hash(),
            sender: key.public(),
            nonce: Nonce::new(nonce),
            fee: self.genesis.params.fee_min,
            valid_until: Height::new(500),
            action,
        }
        .sign(&key.signer(self.genesis.hash()))
    }
}

/// Decodes a frame as the network shell does.
pub(crate) fn decode(topic: Topic, bytes: &[u8]) -> GossipMessage {
    match topic {
        Topic::Tasks | Topic::Checkpoints | Topic::Transactions => {
            let frame: TransactionFrame = codec::decode("frame", bytes, FRAME_BYTES_MAX).unwrap();
            let list = frame.transactions.iter().map(|t| SignedTransaction::decode(t).unwrap());
            GossipMessage::Transactions(topic, list.collect())
        }
        Topic::Consensus => {
            let frame: ConsensusFrame = codec::decode("frame", bytes, FRAME_BYTES_MAX).unwrap();
            GossipMessage::Consensus(frame)
        }
        Topic::Bodies => {
            let max = BLOCK_BYTES_HARD_MAX + BODY_FRAME_EXTRA_BYTES;
            let frame: BodyFrame = codec::decode("frame", bytes, max).unwrap();
            GossipMessage::Body(frame)
        }
        Topic::Blocks => {
            let frame: BlockFrame = codec::decode("frame", bytes, FRAME_BYTES_MAX).unwrap();
            GossipMessage::Block(Box::new(frame))
        }
    }
}

//! Four or more instances over a seeded network in virtual time. A block is just a hash of (height, round, proposer).

use std::collections::BTreeMap;

use tiltyard_consensus::{
    Consensus, ConsensusInput, ConsensusOutput, ConsensusTimer, Durable, Judged, Timeouts,
};
use tiltyard_keys::{GenesisHash, SecretKey};
use tiltyard_proto::certificate::Certificate;
use tiltyard_proto::hash;
use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::units::{Blocks, Height, Round, Stake};
use tiltyard_proto::validators::{Validator, ValidatorSet};
use tiltyard_proto::wire::ConsensusMessage;

pub(crate) const GENESIS: GenesisHash = GenesisHash::from_bytes([9; 32]);
pub(crate) const EPOCH: Blocks = Blocks::new(10);
pub(crate) const TIMEOUTS: Timeouts =
    Timeouts { propose_ms: 200, prevote_ms: 100, precommit_ms: 100, rebroadcast_ms: 300 };

pub(crate) fn secret(seed: usize) -> SecretKey {
    SecretKey::from_seed(&[u8::try_from(seed).unwrap() + 1; 32])
}

pub(crate) fn set(stakes: &[u64]) -> ValidatorSet {
    let mut members: Vec<Validator> = stakes
        .iter()
        .enumerate()
        .map(|(seed, stake)| Validator { key: secret(seed).public(), stake: Stake::new(*stake) })
        .collect();
    members.sort();
    ValidatorSet::try_from(members).unwrap()
}

pub(crate) fn fresh(seed: usize, set: &ValidatorSet) -> Consensus {
    Consensus::new(secret(seed).signer(GENESIS), EPOCH, TIMEOUTS, set.clone())
}

pub(crate) fn block(height: Height, round: Round, proposer: usize) -> BlockHash {
    let parts = [height.get(), u64::from(round.get()), proposer as u64];
    let bytes: Vec<u8> = parts.iter().flat_map(|part| part.to_be_bytes()).collect();
    BlockHash::from_bytes(hash::plain(&bytes))
}

#[derive(Debug, Clone)]
enum Due {
    Message(usize, ConsensusMessage),
    Body(usize, BlockHash, Height, Round, usize),
    Timer(usize, u64, ConsensusTimer, u64),
    Start(usize, Height),
    Restart(usize),
}

pub(crate) struct Node {
    pub(crate) consensus: Option<Consensus>,
    life: u64,
    pub(crate) journal: Vec<Vec<u8>>,
    written: Durable,
    pub(crate) decided: Vec<Certificate>,
    timers: BTreeMap<ConsensusTimer, u64>,
    pub(crate) halted: Option<String>,
    pub(crate) crash_after: Option<u64>,
    held: Vec<ConsensusMessage>,
    bodies: Vec<(BlockHash, Height, Round, usize)>,
}

pub(crate) struct Net {
    pub(crate) set: ValidatorSet,
    pub(crate) nodes: Vec<Node>,
    pub(crate) said: Vec<ConsensusMessage>,
    pub(crate) lost_percent: u64,
    pub(crate) twice_percent: u64,
    pub(crate) delay_ms_max: u64,
    now_ms: u64,
    due: BTreeMap<(u64, u64), Due>,
    serial: u64,
    random: u64,
}

impl Net {
    pub(crate) fn new(random: u64, stakes: &[u64]) -> Self {
        let set = set(stakes);
        let nodes = (0..stakes.len())
            .map(|_| Node {
                consensus: None,
                life: 0,
                journal: Vec::new(),
                written: Durable::at_start(),
                decided: Vec::new(),
                timers: BTreeMap::new(),
                halted: None,
                crash_after: None,
                held: Vec::new(),
                bodies: Vec::new(),
            })
            .collect();
        Self {
            set,
            nodes,
            said: Vec::new(),
            lost_percent: 0,
            twice_percent: 0,
            delay_ms_max: 5,
            now_ms: 0,
            due: BTreeMap::new(),
            serial: 0,
            random: random.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    pub(crate) fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below.max(1)
    }

    fn at(&mut self, delay_ms: u64, due: Due) {
        self.serial += 1;
        self.due.insert((self.now_ms + delay_ms, self.serial), due);
    }

    pub(crate) fn start(&mut self, at: usize) {
        let consensus = fresh(at, &self.set);
        self.nodes[at].consensus = Some(consensus);
        self.nodes[at].life += 1;
        self.nodes[at].timers.clear();
        let height = Height::new(self.nodes[at].decided.len() as u64 + 1);
        let journal = self.nodes[at].journal.clone();
        self.begin(at, height, journal);
    }

    pub(crate) fn start_all(&mut self) {
        for at in 0..self.nodes.len() {
            self.start(at);
        }
    }

    fn begin(&mut self, at: usize, height: Height, journal: Vec<Vec<u8>>) {
        let set = self.set.clone();
        self.feed(at, ConsensusInput::Start { height, set, journal });
        for (block, of, round, from) in self.nodes[at].bodies.clone() {
            if of == height {
                self.judge(at, block, of, round, from);
            }
        }
        for message in core::mem::take(&mut self.nodes[at].held) {
            self.receive(at, message);
        }
    }

    pub(crate) fn kill(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.consensus = None;
        node.written = Durable::at_start();
        node.life += 1;
        node.held.clear();
    }

    pub(crate) fn feed(&mut self, at: usize, input: ConsensusInput) {
        let Some(consensus) = &mut self.nodes[at].consensus else {
            return;
        };
        for output in consensus.handle(input) {
            if let Some(left) = &mut self.nodes[at].crash_after {
                if *left == 0 {
                    self.nodes[at].crash_after = None;
                    self.kill(at);
                    let back = 1 + self.random(300);
                    self.at(back, Due::Restart(at));
                    return;
                }
                *left -= 1;
            }
            self.carry_out(at, output);
        }
    }

    fn carry_out(&mut self, at: usize, output: ConsensusOutput) {
        match output {
            ConsensusOutput::Journal { fresh, batch } => {
                let journal = &mut self.nodes[at].journal;
                let written = batch.perform(|bytes| {
                    if fresh {
                        journal.clear();
                    }
                    journal.push(bytes.to_vec());
                    Ok::<(), core::convert::Infallible>(())
                });
                self.nodes[at].written = written.unwrap_or_else(|never| match never {});
            }
            ConsensusOutput::Publish { message, .. } => {
                let message = message.open(&self.nodes[at].written).expect("journal before vote");
                self.said.push(message.clone());
                self.spread(at, |to| Due::Message(to, message.clone()));
            }
            ConsensusOutput::Build { height, round } => {
                let name = block(height, round, at);
                self.spread(at, |to| Due::Body(to, name, height, round, at));
                self.feed(at, ConsensusInput::Propose { round, block: name });
            }
            ConsensusOutput::Restream { block, round } => {
                let height = Height::new(self.nodes[at].decided.len() as u64 + 1);
                self.spread(at, |to| Due::Body(to, block, height, round, at));
            }
            ConsensusOutput::SetTimer { timer, after_ms } => {
                self.serial += 1;
                let (life, serial) = (self.nodes[at].life, self.serial);
                self.nodes[at].timers.insert(timer, serial);
                self.at(after_ms, Due::Timer(at, life, timer, serial));
            }
            ConsensusOutput::CancelTimer(timer) => {
                self.nodes[at].timers.remove(&timer);
            }
            ConsensusOutput::RoundStarted { .. } => {}
            ConsensusOutput::Decided(certificate) => self.decide(at, certificate),
            ConsensusOutput::Trouble { fact } => panic!("node {at}: {fact}"),
            ConsensusOutput::Halted { fact } => self.nodes[at].halted = Some(fact),
        }
    }

    fn decide(&mut self, at: usize, certificate: Certificate) {
        let height = certificate.height;
        assert_eq!(height.get(), self.nodes[at].decided.len() as u64 + 1);
        self.nodes[at].decided.push(certificate);
        self.at(50, Due::Start(at, height.next()));
    }

    fn spread(&mut self, from: usize, due: impl Fn(usize) -> Due) {
        for to in 0..self.nodes.len() {
            if to == from {
                continue;
            }
            let lost = self.random(100) < self.lost_percent;
            let twice = self.random(100) < self.twice_percent;
            for _ in 0..(if lost { 0 } else { 1 + u64::from(twice) }) {
                let delay = 1 + self.random(self.delay_ms_max);
                self.at(delay, due(to));
            }
        }
    }

    fn receive(&mut self, at: usize, message: ConsensusMessage) {
        let running = Height::new(self.nodes[at].decided.len() as u64 + 1);
        let set = self.set.clone();
        let Some(consensus) = &mut self.nodes[at].consensus else {
            return;
        };
        let height = match &message {
            ConsensusMessage::Vote(vote) => vote.vote.height,
            ConsensusMessage::Proposal(signed) => signed.proposal.height,
            ConsensusMessage::Polka { proof, .. } | ConsensusMessage::RoundChange { proof, .. } => {
                proof.height
            }
        };
        consensus.check(&message, &set).expect("members only say what they signed");
        if height < running {
            // What a machine does with a block frame: whoever is behind gets the decision.
            self.help(at, &message, height);
        } else if consensus.height() == Some(height) {
            self.feed(at, ConsensusInput::Message(message));
        } else {
            self.nodes[at].held.push(message);
        }
    }

    /// Gives the decision of `height` to the voter that is still there.
    fn help(&mut self, from: usize, message: &ConsensusMessage, height: Height) {
        let ConsensusMessage::Vote(vote) = message else {
            return;
        };
        let Some(to) = (0..self.nodes.len()).find(|at| secret(*at).public() == vote.vote.validator) else {
            return;
        };
        let index = usize::try_from(height.get() - 1).unwrap();
        if self.nodes[to].decided.len() == index && self.nodes[to].consensus.is_some() {
            let certificate = self.nodes[from].decided[index].clone();
            self.feed(to, ConsensusInput::Stop);
            self.decide(to, certificate);
        }
    }

    fn judge(&mut self, at: usize, block: BlockHash, height: Height, round: Round, from: usize) {
        let proposer = secret(from).public();
        let judged = Judged { block, height, round, proposer, valid: true };
        self.feed(at, ConsensusInput::Judged(judged));
    }

    pub(crate) fn run(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while let Some((key, _)) = self.due.first_key_value() {
            let key = *key;
            if key.0 > until {
                break;
            }
            self.now_ms = key.0;
            match self.due.remove(&key).unwrap() {
                Due::Message(to, message) => self.receive(to, message),
                Due::Body(to, block, height, round, from) => {
                    // A body is durable before agreement hears of it.
                    self.nodes[to].bodies.push((block, height, round, from));
                    self.judge(to, block, height, round, from);
                }
                Due::Timer(to, life, timer, serial) => {
                    let node = &mut self.nodes[to];
                    if node.life == life && node.timers.get(&timer) == Some(&serial) {
                        node.timers.remove(&timer);
                        self.feed(to, ConsensusInput::Timer(timer));
                    }
                }
                Due::Start(to, height) => {
                    let next = self.nodes[to].decided.len() as u64 + 1;
                    let idle = self.nodes[to].consensus.as_ref().is_some_and(|c| c.height().is_none());
                    if height.get() == next && idle {
                        self.begin(to, height, Vec::new());
                    }
                }
                Due::Restart(to) => self.start(to),
            }
        }
        self.now_ms = until;
    }

    /// Panics unless all decisions of a height are one block, with certificates that prove it.
    pub(crate) fn assert_agreement(&self) {
        let verifier = tiltyard_keys::Verifier::new(GENESIS);
        let longest = self.nodes.iter().max_by_key(|node| node.decided.len()).unwrap();
        for (at, node) in self.nodes.iter().enumerate() {
            for (mine, theirs) in node.decided.iter().zip(&longest.decided) {
                assert_eq!(mine.block, theirs.block, "node {at} forks at {}", mine.height);
                mine.verify(&verifier, &self.set).unwrap();
            }
        }
    }

    pub(crate) fn lowest(&self) -> usize {
        self.nodes.iter().map(|node| node.decided.len()).min().unwrap()
    }
}

//! Watches from outside and says what must never happen. Trusts no node: it does its own arithmetic.

use std::collections::BTreeMap;

use tiltyard_keys::{PublicKey, Verifier};
use tiltyard_ledger::memory::MemoryState;
use tiltyard_ledger::{LedgerEvent, query, totals};
use tiltyard_machine::Event;
use tiltyard_machine::io::Commit;
use tiltyard_proto::certificate::Certificate;
use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::ids::{BlockHash, TransactionId};
use tiltyard_proto::state::StateKey;
use tiltyard_proto::units::{Height, Round};
use tiltyard_proto::validators::ValidatorSet;
use tiltyard_proto::vote::VoteKind;
use tiltyard_proto::wire::{ConsensusMessage, GossipMessage};

use super::disk::Content;
use super::market::secret;
use super::plan::Plan;
use super::wire::Frame;
use super::world::CONSENSUS;

/// Something that must never happen, and did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Two blocks at one height.
    #[error("fork: node {node} committed another block at height {height} than the others")]
    Fork {
        /// Who committed second.
        node: usize,
        /// Where.
        height: u64,
    },
    /// Two states after one block.
    #[error("states differ: node {node} has another state after height {height} than the others")]
    State {
        /// Who differs from the first.
        node: usize,
        /// Where.
        height: u64,
    },
    /// Credits appeared or vanished.
    #[error("supply is not conserved after height {height}: {fact}")]
    Supply {
        /// Where.
        height: u64,
        /// What does not add up.
        fact: String,
    },
    /// A block whose certificate does not carry more than two thirds of the stake.
    #[error("node {node} committed height {height} without a quorum: {fact}")]
    NoQuorum {
        /// Who.
        node: usize,
        /// Where.
        height: u64,
        /// What is missing.
        fact: String,
    },
    /// Something that was acknowledged is gone.
    #[error("node {node} lost what it acknowledged: {fact}")]
    Lost {
        /// Who.
        node: usize,
        /// What.
        fact: String,
    },
    /// An honest node said two things where it may say one.
    #[error("honest node {node} contradicted itself: {fact}")]
    Contradiction {
        /// Who.
        node: usize,
        /// What.
        fact: String,
    },
    /// Something left a node before what it depends on was durable.
    #[error("node {node} sent before it wrote: {fact}")]
    Undurable {
        /// Who.
        node: usize,
        /// What.
        fact: String,
    },
    /// An honest node was punished: slashed, accused, or blamed by an honest peer.
    #[error("honest node {node} was punished: {fact}")]
    Punished {
        /// Who.
        node: usize,
        /// By whom and for what.
        fact: String,
    },
    /// An honest node stopped.
    #[error("honest node {node} stopped: {fact}")]
    Stopped {
        /// Who.
        node: usize,
        /// Why.
        fact: String,
    },
    /// Nothing moves although nothing is wrong any more.
    #[error("no progress after everything healed: {fact}")]
    NoProgress {
        /// How far it came.
        fact: String,
    },
    /// A verdict that does not follow from what honest judges found.
    #[error("the verdict is wrong: {fact}")]
    Verdict {
        /// What.
        fact: String,
    },
}

impl Violation {
    /// Returns its kind in one word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Fork { .. } => "fork",
            Self::State { .. } => "state",
            Self::Supply { .. } => "supply",
            Self::NoQuorum { .. } => "no-quorum",
            Self::Lost { .. } => "lost",
            Self::Contradiction { .. } => "contradiction",
            Self::Undurable { .. } => "undurable",
            Self::Punished { .. } => "punished",
            Self::Stopped { .. } => "stopped",
            Self::NoProgress { .. } => "no-progress",
            Self::Verdict { .. } => "verdict",
        }
    }
}

/// What the first honest node committed at a height.
#[derive(Debug)]
struct Decided {
    hash: BlockHash,
    state: [u8; 32],
}

/// What a validator may say once: (who, height, round, kind).
type Slot = (usize, Height, Round, u8);

/// The observer.
#[derive(Debug)]
pub(crate) struct Oracle {
    honest: Vec<bool>,
    keys: BTreeMap<PublicKey, usize>,
    verifier: Verifier,
    chain: Vec<Decided>,
    sets: BTreeMap<u64, ValidatorSet>,
    said: BTreeMap<Slot, Option<BlockHash>>,
    included: BTreeMap<TransactionId, (u64, bool)>,
    over_at: Option<u64>,
    moved: bool,
    violations: Vec<Violation>,
    /// Rounds after the first that were decided in; offenders who were slashed; heights synced.
    pub(crate) late_rounds: u64,
    pub(crate) slashed: u64,
}

fn digest(state: &MemoryState) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for (key, value) in state.entries() {
        hasher.update(&(key.len() as u64).to_be_bytes()).update(key);
        hasher.update(&(value.len() as u64).to_be_bytes()).update(value);
    }
    *hasher.finalize().as_bytes()
}

impl Oracle {
    pub(crate) fn new(genesis: &Genesis, plan: &Plan) -> anyhow::Result<Self> {
        let nodes = plan.shape.nodes;
        Ok(Self {
            honest: (0..nodes).map(|node| plan.is_honest(node)).collect(),
            keys: (0..nodes).map(|node| (secret(CONSENSUS, node).public(), node)).collect(),
            verifier: Verifier::new(genesis.hash()),
            chain: Vec::new(),
            sets: BTreeMap::from([(1, genesis.validator_set()?)]),
            said: BTreeMap::new(),
            included: BTreeMap::new(),
            over_at: None,
            moved: false,
            violations: Vec::new(),
            late_rounds: 0,
            slashed: 0,
        })
    }

    /// Notes a violation.
    pub(crate) fn say(&mut self, violation: Violation) {
        self.violations.push(violation);
    }

    pub(crate) fn is_broken(&self) -> bool {
        !self.violations.is_empty()
    }

    pub(crate) fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Says whether a block was committed since the last time.
    pub(crate) fn took_moved(&mut self) -> bool {
        core::mem::take(&mut self.moved)
    }

    /// Returns the height of the longest chain.
    pub(crate) fn height(&self) -> u64 {
        self.chain.len() as u64
    }

    pub(crate) fn included(&self, id: &TransactionId) -> Option<(u64, bool)> {
        self.included.get(id).copied()
    }

    pub(crate) fn is_task_over(&self) -> bool {
        self.over_at.is_some()
    }

    /// Returns the height at which the task was over; the largest there is before that.
    pub(crate) fn over_at(&self) -> u64 {
        self.over_at.unwrap_or(u64::MAX)
    }

    fn is_honest(&self, node: usize) -> bool {
        self.honest.get(node).copied().unwrap_or(false)
    }

    /// A node wrote a block.
    pub(crate) fn committed(&mut self, node: usize, commit: &Commit, content: &Content) {
        if !self.is_honest(node) {
            return;
        }
        self.moved = true;
        let decided = &commit.decided;
        let (height, hash) = (decided.block.header.height.get(), decided.block.hash());
        self.check_quorum(node, height, hash, &decided.certificate);
        let state = digest(&content.state);
        match self.chain.get(height.saturating_sub(1) as usize) {
            Some(first) if first.hash != hash => self.say(Violation::Fork { node, height }),
            Some(first) if first.state != state => self.say(Violation::State { node, height }),
            Some(_) => {}
            None => self.extend(node, commit, content, Decided { hash, state }),
        }
    }

    /// Notes the first commit of a height, and looks at everything that needs looking at once.
    fn extend(&mut self, node: usize, commit: &Commit, content: &Content, decided: Decided) {
        let height = commit.decided.block.header.height.get();
        if height != self.height() + 1 {
            let fact = format!("committed height {height}, the chain was at {}", self.height());
            return self.say(Violation::Lost { node, fact });
        }
        self.chain.push(decided);
        self.late_rounds += u64::from(commit.decided.certificate.round > Round::ZERO);
        for (id, ok) in &commit.outcomes {
            if let Some((before, _)) = self.included.insert(*id, (height, *ok)) {
                let fact = format!("transaction {id} of height {before} is in height {height} again");
                self.say(Violation::Lost { node, fact });
            }
        }
        match query::set_at(content, Height::new(height + 1)) {
            Ok(set) => drop(self.sets.insert(height + 1, set)),
            Err(error) => self.say(Violation::Stopped { node, fact: error.to_string() }),
        }
        self.check_supply(height, content);
        self.check_proofs(node, height, commit, content);
        let verdict = StateKey::Verdict(tiltyard_proto::ids::TaskId::from_bytes([0; 32])).to_bytes();
        if commit.changes.values.keys().any(|key| key.first() == verdict.first()) {
            self.over_at.get_or_insert(height);
        }
    }

    fn check_quorum(&mut self, node: usize, height: u64, hash: BlockHash, certificate: &Certificate) {
        let broken = |fact: &str| Violation::NoQuorum { node, height, fact: fact.to_owned() };
        let Some(set) = self.sets.get(&height) else {
            return self.say(broken("nobody knows the set of this height"));
        };
        let members = set.members();
        let total: u128 = members.iter().map(|member| u128::from(member.stake.get())).sum();
        let Some(signed) = certificate.signed_by(members.len()) else {
            return self.say(broken("the certificate does not fit the set"));
        };
        let stake: u128 = signed
            .iter()
            .filter_map(|(at, _)| members.get(*at))
            .map(|member| u128::from(member.stake.get()))
            .sum();
        let fits = certificate.block == hash && certificate.height.get() == height;
        let is_first = height > self.height();
        if !fits || stake * 3 <= total * 2 {
            self.say(broken(&format!("{stake} of {total} signed")));
        } else if is_first && certificate.verify(&self.verifier, set).is_err() {
            self.say(broken("a signature does not fit"));
        }
    }

    fn check_supply(&mut self, height: u64, content: &Content) {
        let counted = query::totals(content).and_then(|kept| Ok((kept, totals::recount(&content.state)?)));
        let fact = match counted {
            Ok((kept, counted)) if !kept.is_conserved() => format!("kept {kept:?}, counted {counted:?}"),
            Ok((kept, counted)) if kept != counted => format!("kept {kept:?}, counted {counted:?}"),
            Ok(_) => return,
            Err(error) => error.to_string(),
        };
        self.say(Violation::Supply { height, fact });
    }

    /// Everything that a block changed can be proven against its header.
    fn check_proofs(&mut self, node: usize, height: u64, commit: &Commit, content: &Content) {
        let root = commit.decided.block.header.state_root;
        for key in commit.changes.values.keys().take(4) {
            let proven = tiltyard_ledger::tree::prove(content, key)
                .map_err(|error| error.to_string())
                .and_then(|(value, proof)| {
                    proof.verify(&root, key, value.as_deref()).map_err(|error| error.to_string())
                });
            if proven.is_err() {
                return self.say(Violation::State { node, height });
            }
        }
    }

    /// A node starts again.
    pub(crate) fn restarted(&mut self, node: usize, tip: u64, acknowledged: u64) {
        if self.is_honest(node) && tip < acknowledged {
            let fact = format!("it starts at height {tip}, height {acknowledged} was durable");
            self.say(Violation::Lost { node, fact });
        }
    }

    /// An honest node sends a frame of its own.
    pub(crate) fn published(&mut self, node: usize, frame: &Frame, durable: &Content) {
        let (slot, block) = match &frame.message {
            GossipMessage::Consensus(frame) => match &frame.message {
                ConsensusMessage::Vote(signed) => {
                    let vote = &signed.vote;
                    let kind = match vote.kind {
                        VoteKind::Prevote => 0,
                        VoteKind::Precommit => 1,
                    };
                    ((node, vote.height, vote.round, kind), vote.block)
                }
                ConsensusMessage::Proposal(signed) => {
                    let said = &signed.proposal;
                    ((node, said.height, said.round, 2), Some(said.block))
                }
                ConsensusMessage::Polka { .. } | ConsensusMessage::RoundChange { .. } => return,
            },
            GossipMessage::Body(_) | GossipMessage::Block(_) | GossipMessage::Transactions(..) => return,
        };
        let (_, height, round, kind) = slot;
        let what = ["prevote", "precommit", "proposal"].get(usize::from(kind)).copied().unwrap_or_default();
        if let Some(block) = block {
            let in_log = durable.blocks.get(height.get().saturating_sub(1) as usize);
            let kept = durable.bodies.contains_key(&block)
                || in_log.is_some_and(|decided| decided.block.hash() == block);
            if !kept {
                let fact = format!("{what} for {block} at height {height}, whose body is not durable");
                self.say(Violation::Undurable { node, fact });
            }
        }
        if let Some(before) = self.said.insert(slot, block)
            && before != block
        {
            let fact = format!("{what} at height {height} round {round}: {before:?}, then {block:?}");
            self.say(Violation::Contradiction { node, fact });
        }
    }

    /// An honest node refused a frame as provably bad.
    pub(crate) fn rejected(&mut self, by: usize, from: usize, frame: &Frame) {
        if self.is_honest(from) {
            let text: String = format!("{:?}", frame.message).chars().take(400).collect();
            let fact = format!("node {by} rejected what it forwarded: {text}");
            self.say(Violation::Punished { node: from, fact });
        }
    }

    /// An honest node blamed a peer.
    pub(crate) fn penalized(&mut self, by: usize, whom: Option<usize>, fact: &str) {
        if let Some(node) = whom.filter(|node| self.is_honest(*node)) {
            let fact = format!("node {by} says that it {fact}");
            self.say(Violation::Punished { node, fact });
        }
    }

    /// An honest node tells people something.
    pub(crate) fn told(&mut self, by: usize, event: &Event) {
        let accused = match event {
            Event::Equivocation { validator, height } => Some((validator, height, "accused")),
            Event::Ledger { height, event: LedgerEvent::Slashed { validator, .. } } => {
                self.slashed += 1;
                Some((validator, height, "slashed"))
            }
            Event::TransactionIncluded { id, height, ok } => {
                if self.included.get(id) != Some(&(height.get(), *ok)) {
                    let fact = format!("transaction {id} is not in block {height} as it says");
                    self.say(Violation::Lost { node: by, fact });
                }
                None
            }
            Event::Decided { .. }
            | Event::Syncing { .. }
            | Event::Synced { .. }
            | Event::Stale { .. }
            | Event::Fresh { .. }
            | Event::TaskPhase { .. }
            | Event::Ledger { .. }
            | Event::DutyDone { .. }
            | Event::TransactionAccepted { .. }
            | Event::TransactionDropped { .. }
            | Event::RoundStarted { .. }
            | Event::BlockRefused { .. }
            | Event::TaskDeclined { .. }
            | Event::Trouble { .. } => None,
        };
        if let Some((validator, height, what)) = accused
            && let Some(node) = self.keys.get(validator).copied().filter(|node| self.is_honest(*node))
        {
            let fact = format!("node {by} saw it {what} at height {height}");
            self.say(Violation::Punished { node, fact });
        }
    }
}

//! Watches from outside and says what must never happen. Trusts no node: it does its own arithmetic.

mod said;

use std::collections::BTreeMap;

use tiltyard_keys::{PublicKey, Verifier};
use tiltyard_ledger::memory::MemoryState;
use tiltyard_ledger::{query, totals};
use tiltyard_machine::io::Commit;
use tiltyard_proto::certificate::Certificate;
use tiltyard_proto::codec;
use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::ids::{BlockHash, TaskId, TransactionId};
use tiltyard_proto::limits::STATE_VALUE_BYTES_MAX;
use tiltyard_proto::state::{Phase, StateKey, Verdict};
use tiltyard_proto::units::{Height, Round};
use tiltyard_proto::validators::ValidatorSet;

use super::books::Books;
use super::client::Clients;
use super::disk::Content;
use super::life::STAKE;
use super::market::secret;
use super::network::{CLIENT, CONSENSUS, GRANT};
use super::plan::Plan;
use super::timely::Timely;
use super::violation::Violation;
use super::wire::Frame;

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
    verdicts: BTreeMap<TaskId, Ended>,
    books: Books,
    timely: Option<Timely>,
    moved: bool,
    violations: Vec<Violation>,
    /// Rounds after the first that were decided in.
    pub(crate) late_rounds: u64,
    /// When each height was first durable somewhere, in virtual milliseconds.
    pub(crate) block_ms: Vec<u64>,
    /// Offences that were punished: height of the offence, height of the block.
    pub(crate) punished: BTreeMap<(PublicKey, u64), u64>,
    /// What honest nodes told their operators about a chain that stands still.
    pub(crate) stalls: Vec<(usize, String)>,
    /// Sets that differ from the one before.
    pub(crate) set_changes: u64,
    /// States that were made from a snapshot.
    pub(crate) joins: u64,
}

/// How a task ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    /// Whether it was settled, not refunded.
    pub(crate) is_settled: bool,
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
        let mut books = Books::default();
        for client in 0..Clients::COUNT {
            books.watch(secret(CLIENT, client).public(), GRANT);
        }
        for node in (0..nodes).filter(|node| plan.is_honest(*node)) {
            let staked = STAKE.to_micro_credits().unwrap_or_default();
            books.watch(secret(CONSENSUS, node).public(), GRANT.saturating_add(staked));
        }
        Ok(Self {
            honest: (0..nodes).map(|node| plan.is_honest(node)).collect(),
            keys: (0..nodes).map(|node| (secret(CONSENSUS, node).public(), node)).collect(),
            verifier: Verifier::new(genesis.hash()),
            chain: Vec::new(),
            sets: BTreeMap::from([(1, genesis.validator_set()?)]),
            said: BTreeMap::new(),
            included: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            books,
            timely: plan.is_calm().then(Timely::default),
            moved: false,
            violations: Vec::new(),
            late_rounds: 0,
            block_ms: Vec::new(),
            punished: BTreeMap::new(),
            stalls: Vec::new(),
            set_changes: 0,
            joins: 0,
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

    /// Returns how a task ended, once it has.
    pub(crate) fn verdict(&self, task: &TaskId) -> Option<Ended> {
        self.verdicts.get(task).copied()
    }

    fn is_honest(&self, node: usize) -> bool {
        self.honest.get(node).copied().unwrap_or(false)
    }

    /// A node wrote a block.
    pub(crate) fn committed(&mut self, node: usize, now_ms: u64, commit: &Commit, content: &Content) {
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
            None => self.extend(node, now_ms, commit, content, Decided { hash, state }),
        }
    }

    /// Notes the first commit of a height, and looks at everything that needs looking at once.
    fn extend(&mut self, node: usize, now_ms: u64, commit: &Commit, content: &Content, decided: Decided) {
        let block = &commit.decided.block;
        let height = block.header.height.get();
        if height != self.height() + 1 {
            let fact = format!("committed height {height}, the chain was at {}", self.height());
            return self.say(Violation::Lost { node, fact });
        }
        self.chain.push(decided);
        self.block_ms.push(now_ms);
        self.late_rounds += u64::from(commit.decided.certificate.round > Round::ZERO);
        for (id, ok) in &commit.outcomes {
            if let Some((before, _)) = self.included.insert(*id, (height, *ok)) {
                let fact = format!("transaction {id} of height {before} is in height {height} again");
                self.say(Violation::Lost { node, fact });
            }
        }
        match query::set_at(content, Height::new(height + 1)) {
            Ok(set) => {
                self.set_changes += u64::from(self.sets.get(&height).is_some_and(|before| *before != set));
                self.sets.insert(height + 1, set);
            }
            Err(error) => self.say(Violation::Stopped { node, fact: error.to_string() }),
        }
        self.check_supply(height, content);
        self.check_books(height, commit, content);
        self.check_proofs(node, height, commit, content);
        self.note_verdicts(commit);
        let builder = self.keys.get(&block.header.builder).copied();
        let is_honest = builder.is_some_and(|builder| self.is_honest(builder));
        if let Some(timely) = &mut self.timely {
            let found = timely.check(height, is_honest, content, &self.included);
            self.violations.extend(found);
        }
    }

    fn note_verdicts(&mut self, commit: &Commit) {
        let prefix = StateKey::Verdict(TaskId::from_bytes([0; 32])).to_bytes();
        for (key, value) in &commit.changes.values {
            let Some(((&kind, task), value)) = key.split_first().zip(value.as_ref()) else {
                continue;
            };
            if prefix.first() != Some(&kind) {
                continue;
            }
            let verdict = codec::decode::<Verdict>("verdict", value, STATE_VALUE_BYTES_MAX);
            if let (Ok(verdict), Ok(task)) = (verdict, <[u8; 32]>::try_from(task)) {
                let ended = Ended { is_settled: verdict.phase == Phase::Settled };
                self.verdicts.insert(TaskId::from_bytes(task), ended);
            }
        }
    }

    /// Enters a block's transactions in the books and compares them with the state.
    fn check_books(&mut self, height: u64, commit: &Commit, content: &Content) {
        let transactions = &commit.decided.block.body.transactions;
        for (signed, (_, took_effect)) in transactions.iter().zip(&commit.outcomes) {
            if let Err(error) = self.books.enter(signed, *took_effect, content) {
                return self.say(Violation::Supply { height, fact: error.to_string() });
            }
        }
        match self.books.compare(content) {
            Ok(None) => {}
            Ok(Some(fact)) => self.say(Violation::Supply { height, fact }),
            Err(error) => self.say(Violation::Supply { height, fact: error.to_string() }),
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

    /// A node that lost its disk has a state again, made from a snapshot: it must be the one after the block that the
    /// others have there.
    pub(crate) fn joined(&mut self, node: usize, content: &Content) {
        self.joins += 1;
        let height = content.base + 1;
        let hash = content.block(height).map(|decided| decided.block.hash());
        match self.chain.get(height.saturating_sub(1) as usize) {
            Some(first) if Some(first.hash) != hash => self.say(Violation::Fork { node, height }),
            Some(first) if content.state_height == height && first.state != digest(&content.state) => {
                self.say(Violation::State { node, height });
            }
            Some(_) => {}
            None => {
                let fact = "it joined at a block that nobody has".to_owned();
                self.say(Violation::NoQuorum { node, height, fact });
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
}

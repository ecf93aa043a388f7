//! What operators do with their validators' stake: bond more, release some, leave and come back, unjail.
//!
//! An operator sees the chain through its own node and sends through it, as a person with a command line does. A step
//! that is lost, overtaken by a duty of the node's own, or refused for now is signed anew until it is in a block.

use std::collections::VecDeque;

use tiltyard_keys::PublicKey;
use tiltyard_ledger::{ReadError, query};
use tiltyard_machine::io::Input;
use tiltyard_proto::state::Standing;
use tiltyard_proto::transaction::{Action, Transaction, VerifiedTransaction};
use tiltyard_proto::units::{Blocks, Height, Stake};

use super::random::Dice;
use super::shape::Shape;
use super::world::{Due, World};

/// How often an operator looks, in milliseconds.
const LOOK_MS: u64 = 500;
/// How long a step's transaction is valid, in blocks.
const VALID_BLOCKS: Blocks = Blocks::new(100);
/// Blocks of a run in which stake moves: what was released early has come back by then.
pub(crate) const HEIGHTS: u64 = 95;
/// Stake of every validator at genesis.
pub(crate) const STAKE: Stake = Stake::new(1_000);
/// Share of runs in which stake moves, in percent.
const SHARE_PERCENT: u64 = 15;

/// A change of stake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// More of it.
    Bond(Stake),
    /// Less of it, or none.
    Unbond(Stake),
}

/// What an operator does once a height is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Whose validator.
    pub node: usize,
    /// From which height on.
    pub height: u64,
    /// What.
    pub change: Change,
}

/// Draws what happens to stake in a run; nothing in most. Byzantine stake stays below a third throughout.
pub(crate) fn draw(seed: u64, shape: &Shape, honest: &[usize]) -> Vec<Step> {
    let mut dice = Dice::new(seed, 4);
    let may = !shape.calm && shape.strike.is_none() && shape.byzantine <= shape.tolerated();
    let [one, other, ..] = honest[..] else {
        return Vec::new();
    };
    if !may || !(shape.life || dice.percent(SHARE_PERCENT)) {
        return Vec::new();
    }
    let early = dice.between(2, 12);
    let part = Stake::new(dice.between(100, 250));
    let mut steps = vec![
        Step { node: one, height: early, change: Change::Unbond(part) },
        Step { node: one, height: early + dice.below(20), change: Change::Bond(Stake::new(50)) },
    ];
    // Three may go on without the fourth, if nobody lies.
    if shape.byzantine == 0 {
        let leaves = dice.between(2, 12);
        let comes_back = leaves + dice.between(1, 35);
        steps.push(Step { node: other, height: leaves, change: Change::Unbond(STAKE) });
        steps.push(Step { node: other, height: comes_back, change: Change::Bond(STAKE) });
    }
    steps
}

/// One operator.
#[derive(Debug)]
pub(crate) struct Operator {
    node: usize,
    steps: VecDeque<Step>,
    waiting: Option<(VerifiedTransaction, Duty)>,
}

/// What a waiting transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Duty {
    Step,
    Unjail,
}

impl Operator {
    /// Makes the operators of the honest nodes.
    pub(crate) fn of(steps: &[Step], honest: impl Iterator<Item = usize>) -> Vec<Self> {
        let own = |node| steps.iter().filter(|step| step.node == node).copied().collect();
        honest.map(|node| Self { node, steps: own(node), waiting: None }).collect()
    }
}

/// What an operator reads at its node.
struct Seen {
    tip: Height,
    nonce: u64,
    jailed_until: Option<Height>,
}

impl World {
    /// Every operator looks and does what is due.
    pub(crate) fn operators_act(&mut self) {
        let mut operators = core::mem::take(&mut self.operators);
        for operator in &mut operators {
            self.operate(operator);
        }
        self.operators = operators;
        self.later(LOOK_MS, Due::Operators);
    }

    fn operate(&mut self, operator: &mut Operator) {
        let node = operator.node;
        let key = self.nodes[node].key.public();
        let (Some(next), Ok(Some(seen))) = (self.next_nonce(node, &key), self.look(node, &key)) else {
            return;
        };
        if let Some((sent, duty)) = &operator.waiting {
            let (id, nonce) = (sent.id(), sent.transaction().nonce.get());
            let included = self.oracle.included(&id);
            if let Some((_, true)) = included
                && *duty == Duty::Step
            {
                operator.steps.pop_front();
            }
            // In a block, overtaken by another with its number, or waiting behind one that is lost.
            if included.is_some() || seen.nonce > nonce || next < nonce {
                operator.waiting = None;
            }
        }
        if operator.waiting.is_none() {
            operator.waiting = self.due(operator, &seen).map(|(action, duty)| {
                let body = Transaction {
                    version: Transaction::VERSION,
                    genesis: self.genesis.hash(),
                    sender: key,
                    nonce: tiltyard_proto::units::Nonce::new(next),
                    fee: self.genesis.params.fee_min,
                    valid_until: seen.tip.plus(VALID_BLOCKS),
                    action,
                };
                (body.sign(&self.nodes[node].key.signer(self.genesis.hash())), duty)
            });
        }
        if let Some((transaction, _)) = &operator.waiting {
            self.give_later(node, 1, Input::Submit(Box::new(transaction.clone())));
        }
    }

    /// Returns what an operator wants done now.
    fn due(&self, operator: &Operator, seen: &Seen) -> Option<(Action, Duty)> {
        if seen.jailed_until.is_some_and(|until| seen.tip.next() >= until) {
            return Some((Action::Unjail, Duty::Unjail));
        }
        let step = operator.steps.front().filter(|step| seen.tip.get() >= step.height)?;
        let action = match step.change {
            Change::Bond(stake) => Action::Bond { stake },
            Change::Unbond(stake) => Action::Unbond { stake },
        };
        Some((action, Duty::Step))
    }

    /// Returns the number of a key's next transaction as its running node sees it.
    pub(crate) fn next_nonce(&self, node: usize, key: &PublicKey) -> Option<u64> {
        let machine = self.nodes[node].machine.as_ref()?;
        machine.next_nonce(key).ok().map(|nonce| nonce.get())
    }

    fn look(&self, node: usize, key: &PublicKey) -> Result<Option<Seen>, ReadError> {
        let content = self.nodes[node].disk.live.borrow();
        let nonce = query::account(&*content, key)?.nonce.get();
        let record = query::validator(&*content, key)?;
        let jailed_until = record.and_then(|record| match record.standing {
            Standing::Jailed { until } => Some(until),
            Standing::Active | Standing::Tombstoned => None,
        });
        Ok(Some(Seen { tip: Height::new(content.tip()), nonce, jailed_until }))
    }

    /// Says whether every step is done, what was released is back, and every honest validator sits in the set again.
    pub(crate) fn are_seats_settled(&self) -> bool {
        if !self.plan.seats_move() {
            return true;
        }
        let sits = |operator: &Operator| -> Result<bool, ReadError> {
            let content = self.nodes[operator.node].disk.live.borrow();
            let key = self.nodes[operator.node].key.public();
            let set = query::set_at(&*content, Height::new(content.tip() + 1))?;
            let record = query::validator(&*content, &key)?;
            let is_back = record
                .is_some_and(|record| record.standing == Standing::Active && record.unbonding.is_empty());
            Ok(operator.steps.is_empty() && is_back && set.find(&key).is_some())
        };
        self.operators.iter().all(|operator| sits(operator).unwrap_or(false))
    }
}

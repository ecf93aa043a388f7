//! People outside the network: one posts a task, others send credits. They offer a transaction until it is in a block.

use tiltyard_keys::SecretKey;
use tiltyard_ledger::query;
use tiltyard_machine::io::Input;
use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::ids::{TaskId, TransactionId};
use tiltyard_proto::transaction::{Action, Transaction, VerifiedTransaction};
use tiltyard_proto::units::{Height, MicroCredits, Nonce};

use super::market::secret;
use super::network::{ACCOUNT, CLIENT};
use super::world::{Due, World};

/// How often a client looks, in milliseconds.
const LOOK_MS: u64 = 700;
/// Transfers of one client.
const TRANSFERS: u64 = 5;
/// Until when transactions of clients are valid, in blocks.
const VALID_UNTIL: Height = Height::new(900);

/// Most tasks of a run: one that is refunded in the time of faults is posted again.
const TASKS_MAX: usize = 4;

/// Everyone outside.
#[derive(Debug)]
pub(crate) struct Clients {
    requester: usize,
    /// Every post that was ever signed, oldest first.
    posts: Vec<VerifiedTransaction>,
    is_over: bool,
    senders: Vec<Sender>,
}

#[derive(Debug)]
struct Sender {
    key: SecretKey,
    waiting: Option<VerifiedTransaction>,
    sent: u64,
}

fn sign(genesis: &Genesis, key: &SecretKey, nonce: u64, action: Action) -> VerifiedTransaction {
    let genesis_hash = genesis.hash();
    Transaction {
        version: Transaction::VERSION,
        genesis: genesis_hash,
        sender: key.public(),
        nonce: Nonce::new(nonce),
        fee: genesis.params.fee_min,
        valid_until: VALID_UNTIL,
        action,
    }
    .sign(&key.signer(genesis_hash))
}

impl Clients {
    /// Clients that send credits.
    pub(crate) const COUNT: usize = 3;

    /// Makes the clients of a network of `nodes`; the last node posts the task.
    pub(crate) fn new(nodes: usize) -> Self {
        let sender = |client| Sender { key: secret(CLIENT, client), waiting: None, sent: 0 };
        let senders = (0..Self::COUNT).map(sender).collect();
        Self { requester: nodes.saturating_sub(1), posts: Vec::new(), is_over: false, senders }
    }

    /// Returns the tasks that were ever posted, by name, with the transactions that post them.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = (TaskId, TransactionId)> {
        self.posts.iter().map(|post| (TaskId::from_bytes(*post.id().as_bytes()), post.id()))
    }

    /// Says whether a task was settled, or enough were refunded.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Says whether everything that was offered is in a block.
    pub(crate) fn are_done(&self) -> bool {
        let sent = |sender: &Sender| sender.sent == TRANSFERS && sender.waiting.is_none();
        self.is_over && self.senders.iter().all(sent)
    }
}

impl World {
    pub(crate) fn clients_act(&mut self) {
        self.post();
        for client in 0..Clients::COUNT {
            self.transfer(client);
        }
        if !self.clients.are_done() {
            self.later(LOOK_MS, Due::Clients);
        }
    }

    /// The requester posts a task, and another one when it came to nothing.
    fn post(&mut self) {
        let mut over = 0;
        for (task, post) in self.clients.tasks() {
            match (self.oracle.included(&post), self.oracle.verdict(&task)) {
                (None, _) => {}
                (Some((_, true)), None) => return,
                // One that was refused is no task; the end of the run says so.
                (Some(_), verdict) => {
                    let is_settled = verdict.is_some_and(|verdict| verdict.is_settled);
                    over += if is_settled { TASKS_MAX } else { 1 };
                }
            }
        }
        if over >= TASKS_MAX {
            self.clients.is_over = true;
            return;
        }
        let requester = self.clients.requester;
        let key = secret(ACCOUNT, requester);
        let Some(next) = self.next_nonce(requester, &key.public()) else {
            return;
        };
        let content = self.nodes[requester].disk.live.borrow();
        let account = query::account(&*content, &key.public()).map_or(0, |account| account.nonce.get());
        drop(content);
        let last = self.clients.posts.last().filter(|post| self.oracle.included(&post.id()).is_none());
        // Signed anew when its number was used by another, or waits behind one that is lost.
        let nonce = last.map(|post| post.transaction().nonce.get());
        if nonce.is_none_or(|nonce| account > nonce || next < nonce) {
            let action = Action::Post(Box::new(self.market.spec()));
            self.clients.posts.push(sign(&self.genesis, &key, next, action));
        }
        let Some(post) = self.clients.posts.last().cloned() else {
            return;
        };
        let (ciphertext, key) = (self.market.ciphertext(), self.market.key);
        self.give_later(requester, 0, Input::KeepKey { ciphertext, key });
        self.give_later(requester, 1, Input::Submit(Box::new(post)));
    }

    fn transfer(&mut self, client: usize) {
        let to = secret(CLIENT, (client + 1) % Clients::COUNT).public();
        let sender = &mut self.clients.senders[client];
        let is_in = |waiting: &VerifiedTransaction| self.oracle.included(&waiting.id()).is_some();
        if sender.waiting.as_ref().is_some_and(is_in) {
            sender.waiting = None;
        }
        if sender.waiting.is_none() && sender.sent < TRANSFERS {
            let amount = MicroCredits::new(1_000 + self.dice.below(1_000_000));
            let action = Action::Transfer { to, amount };
            sender.waiting = Some(sign(&self.genesis, &sender.key, sender.sent, action));
            sender.sent += 1;
        }
        let Some(waiting) = sender.waiting.clone() else {
            return;
        };
        let honest: Vec<usize> = (0..self.nodes.len())
            .filter(|node| self.plan.is_honest(*node) && self.nodes[*node].machine.is_some())
            .collect();
        if let Some(node) = honest.get(self.dice.index(honest.len())) {
            self.give_later(*node, 2, Input::Submit(Box::new(waiting)));
        }
    }
}

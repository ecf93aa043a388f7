//! People outside the network: one posts a task, others send credits. They offer a transaction until it is in a block.

use tiltyard_keys::SecretKey;
use tiltyard_machine::io::Input;
use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::ids::{TaskId, TransactionId};
use tiltyard_proto::transaction::{Action, Transaction, VerifiedTransaction};
use tiltyard_proto::units::{Height, MicroCredits, Nonce};

use super::market::{Market, secret};
use super::world::{ACCOUNT, CLIENT, Due, World};

/// How often a client looks, in milliseconds.
const LOOK_MS: u64 = 700;
/// Transfers of one client.
const TRANSFERS: u64 = 5;
/// Until when transactions of clients are valid, in blocks.
const VALID_UNTIL: Height = Height::new(900);

/// Everyone outside.
#[derive(Debug)]
pub(crate) struct Clients {
    post: VerifiedTransaction,
    requester: usize,
    is_posted: bool,
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
    pub(crate) fn new(genesis: &Genesis, market: &Market, nodes: usize) -> Self {
        let requester = nodes.saturating_sub(1);
        let action = Action::Post(Box::new(market.spec()));
        let post = sign(genesis, &secret(ACCOUNT, requester), 0, action);
        let sender = |client| Sender { key: secret(CLIENT, client), waiting: None, sent: 0 };
        Self { post, requester, is_posted: false, senders: (0..Self::COUNT).map(sender).collect() }
    }

    /// Returns the task's name.
    pub(crate) fn task(&self) -> TaskId {
        TaskId::from_bytes(*self.post.id().as_bytes())
    }

    /// Returns the post's name.
    pub(crate) fn post_id(&self) -> TransactionId {
        self.post.id()
    }

    /// Says whether everything that was offered is in a block.
    pub(crate) fn are_done(&self) -> bool {
        let sent = |sender: &Sender| sender.sent == TRANSFERS && sender.waiting.is_none();
        self.is_posted && self.senders.iter().all(sent)
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

    fn post(&mut self) {
        if self.clients.is_posted {
            return;
        }
        if self.oracle.included(&self.clients.post_id()).is_some() {
            self.clients.is_posted = true;
            return;
        }
        let requester = self.clients.requester;
        if self.nodes[requester].machine.is_some() {
            let (ciphertext, key) = (self.market.ciphertext(), self.market.key);
            let post = Input::Submit(Box::new(self.clients.post.clone()));
            self.give_later(requester, 0, Input::KeepKey { ciphertext, key });
            self.give_later(requester, 1, post);
        }
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

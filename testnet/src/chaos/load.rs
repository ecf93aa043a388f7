//! The load: a few accounts send credits to each other all the time, one transaction each at a time.
//!
//! A transaction counts as acknowledged when a node says at which height it is included. Until then the same bytes are
//! offered again, to another node each time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tiltyard_proto::codec;
use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::keys::SecretKey;
use tiltyard_proto::transaction::{Action, SignedTransaction, Transaction};
use tiltyard_proto::units::{Height, MicroCredits, Nonce};

use super::api::Api;
use super::dice::Dice;
use crate::run::layout::hex;

/// Pause between two looks at all accounts.
const LOOK: Duration = Duration::from_millis(60);
/// How long a transaction may wait before it is offered to another node.
const PATIENCE: Duration = Duration::from_secs(4);
const AHEAD: u64 = 900;

/// A transaction that a node called included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Acknowledged {
    pub(super) id: String,
    pub(super) height: u64,
    pub(super) by: usize,
}

/// Everything that was offered and acknowledged.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) offered: BTreeMap<String, SignedTransaction>,
    pub(super) acknowledged: Vec<Acknowledged>,
}

struct Sender {
    key: SecretKey,
    nonce: u64,
    waiting: Option<Waiting>,
}

struct Waiting {
    id: String,
    hex: String,
    valid_until: u64,
    offered: Instant,
}

/// Where the load goes.
#[derive(Debug, Clone)]
pub(super) struct Targets {
    pub(super) urls: Vec<String>,
    pub(super) tokens: Vec<String>,
    /// Whether each node is thought to answer.
    pub(super) up: Arc<Vec<AtomicBool>>,
}

struct Load {
    api: Api,
    dice: Dice,
    genesis: Genesis,
    targets: Targets,
    senders: Vec<Sender>,
    book: Book,
}

/// Sends until `stop` speaks or its other end is gone.
pub(super) fn run(
    seed: u64,
    genesis: Genesis,
    keys: Vec<SecretKey>,
    targets: Targets,
    stop: &Receiver<()>,
) -> Book {
    let senders = keys.into_iter().map(|key| Sender { key, nonce: 0, waiting: None }).collect();
    let mut load = Load {
        api: Api::brief(),
        dice: Dice::new(seed, "load"),
        genesis,
        targets,
        senders,
        book: Book::default(),
    };
    while let Err(RecvTimeoutError::Timeout) = stop.recv_timeout(LOOK) {
        for at in 0..load.senders.len() {
            load.turn(at);
        }
    }
    load.book
}

impl Load {
    /// Draws a node that is thought to answer.
    fn draw_node(&mut self) -> Option<usize> {
        let up: Vec<usize> = (0..self.targets.urls.len())
            .filter(|at| self.targets.up.get(*at).is_some_and(|up| up.load(Ordering::Relaxed)))
            .collect();
        up.get(self.dice.index(up.len())).copied()
    }

    fn turn(&mut self, at: usize) {
        let Some(node) = self.draw_node() else { return };
        let url = self.targets.urls[node].clone();
        let waiting = self.senders.get_mut(at).and_then(|sender| sender.waiting.take());
        let Some(mut waiting) = waiting else {
            self.next(at, node);
            return;
        };
        let place = self.api.get::<super::api::Place>(&url, &format!("/v1/transactions/{}", waiting.id));
        if let Ok(place) = place
            && place.state == "included"
            && let Some(height) = place.height
        {
            self.book.acknowledged.push(Acknowledged { id: waiting.id, height, by: node });
            self.senders[at].nonce += 1;
            return;
        }
        if waiting.offered.elapsed() > PATIENCE {
            let tip = self.api.status(&url).map_or(0, |status| status.height);
            if tip > waiting.valid_until {
                // It can be in no later block: the number is free for another one.
                self.next(at, node);
                return;
            }
            waiting.offered = Instant::now();
            // Refused or not: whether it is in a block is asked again at the next turn.
            let _ = self.api.submit(&url, &self.targets.tokens[node], &waiting.hex);
        }
        self.senders[at].waiting = Some(waiting);
    }

    /// Makes the account's next transaction and offers it.
    fn next(&mut self, at: usize, node: usize) {
        let url = self.targets.urls[node].clone();
        let Ok(status) = self.api.status(&url) else { return };
        let to = self.senders[(at + 1 + self.dice.index(self.senders.len() - 1)) % self.senders.len()]
            .key
            .public();
        let amount = MicroCredits::new(self.dice.between(1, 1_000));
        let sender = &mut self.senders[at];
        let genesis = self.genesis.hash();
        let valid_until = status.height + AHEAD;
        let transaction = Transaction {
            version: Transaction::VERSION,
            genesis,
            sender: sender.key.public(),
            nonce: Nonce::new(sender.nonce),
            fee: self.genesis.params.fee_min,
            valid_until: Height::new(valid_until),
            action: Action::Transfer { to, amount },
        };
        let signed = transaction.sign(&sender.key.signer(genesis));
        let (id, hex) = (signed.id().to_string(), hex(&codec::encode(signed.signed())));
        // What may have been taken in counts as offered, whatever the answer says.
        self.book.offered.insert(id.clone(), signed.into_signed());
        let _ = self.api.submit(&url, &self.targets.tokens[node], &hex);
        sender.waiting = Some(Waiting { id, hex, valid_until, offered: Instant::now() });
    }
}

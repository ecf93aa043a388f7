//! Gathers transactions into frames: one signature check and one gossip message for many.

use std::collections::{BTreeMap, BTreeSet};

use serde_bytes::ByteBuf;
use tiltyard_proto::codec;
use tiltyard_proto::ids::TransactionId;
use tiltyard_proto::transaction::VerifiedTransaction;
use tiltyard_proto::wire::{Topic, TransactionFrame};

use crate::io::Effect;

/// How long a transaction waits for company, in milliseconds.
pub(crate) const FLUSH_MS: u64 = 50;
/// Bytes of transactions in a frame; what CBOR adds stays within 64 KiB.
const FRAME_BYTES: usize = 60 * 1024;
/// Bytes that CBOR adds to one transaction in a frame.
const ITEM_BYTES: usize = 5;

/// Frames being filled.
#[derive(Debug, Default)]
pub(crate) struct Announcer {
    filling: BTreeMap<Topic, (usize, Vec<ByteBuf>)>,
    /// Added since the last flush: several newcomers are served by one offer.
    added: BTreeSet<TransactionId>,
}

impl Announcer {
    /// Adds a transaction; frames that are full leave at once.
    pub(crate) fn add(&mut self, transaction: &VerifiedTransaction, out: &mut Vec<Effect>) {
        if !self.added.insert(transaction.id()) {
            return;
        }
        let topic = transaction.transaction().action.topic();
        let bytes = transaction.signed().encode();
        let length = bytes.len().saturating_add(ITEM_BYTES);
        let full =
            self.filling.get(&topic).is_some_and(|(filled, _)| filled.saturating_add(length) > FRAME_BYTES);
        if full {
            self.send(topic, out);
        }
        let (filled, items) = self.filling.entry(topic).or_default();
        *filled = filled.saturating_add(length);
        items.push(ByteBuf::from(bytes));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.filling.is_empty()
    }

    /// Sends everything that waits.
    pub(crate) fn flush(&mut self, out: &mut Vec<Effect>) {
        self.added.clear();
        for topic in Topic::ALL {
            self.send(topic, out);
        }
    }

    fn send(&mut self, topic: Topic, out: &mut Vec<Effect>) {
        if let Some((_, transactions)) = self.filling.remove(&topic) {
            let bytes = codec::encode(&TransactionFrame { transactions });
            out.push(Effect::Publish { topic, bytes });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_bytes::ByteBuf;
    use tiltyard_keys::{GenesisHash, SecretKey};
    use tiltyard_proto::ids::{Salt, TaskId};
    use tiltyard_proto::limits::FRAME_BYTES_MAX;
    use tiltyard_proto::transaction::{Action, Transaction};
    use tiltyard_proto::units::{Height, MicroCredits, Nonce};

    #[test]
    fn frames_stay_within_64_kib_and_lose_nothing() {
        let key = SecretKey::from_seed(&[1; 32]);
        let genesis = GenesisHash::from_bytes([0; 32]);
        let (mut announcer, mut out) = (Announcer::default(), Vec::new());
        for nonce in 0..100 {
            let action = Action::Reveal {
                task: TaskId::from_bytes([1; 32]),
                manifest: ByteBuf::from(vec![7; 4_000]),
                salt: Salt::from_bytes([2; 32]),
                recipe: ByteBuf::from(vec![9; 1_000]),
            };
            let transaction = Transaction {
                version: Transaction::VERSION,
                genesis,
                sender: key.public(),
                nonce: Nonce::new(nonce),
                fee: MicroCredits::ZERO,
                valid_until: Height::new(10),
                action,
            };
            let transaction = transaction.sign(&key.signer(genesis));
            announcer.add(&transaction, &mut out);
            announcer.add(&transaction, &mut out);
        }
        announcer.flush(&mut out);
        assert!(announcer.is_empty());
        let mut sent = 0;
        for effect in &out {
            let Effect::Publish { topic: Topic::Checkpoints, bytes } = effect else {
                panic!("{effect:?}");
            };
            let frame: TransactionFrame = codec::decode("frame", bytes, FRAME_BYTES_MAX).unwrap();
            sent += frame.transactions.len();
        }
        assert_eq!(sent, 100);
    }
}

//! This node's own transactions: offered until they are in a block, one per duty.

use std::collections::BTreeMap;

use tiltyard_keys::PublicKey;
use tiltyard_proto::ids::TransactionId;
use tiltyard_proto::transaction::{Action, VerifiedTransaction};
use tiltyard_proto::units::{Height, Nonce};

use crate::roles::{DutyKey, Who};

/// What an own transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// A duty of a role.
    Duty(DutyKey),
    /// Proof against a validator, for a height.
    Evidence(PublicKey, Height),
    /// Handed in by a local client, who signed it.
    Client(TransactionId),
}

/// Most transactions of clients that are offered again.
const CLIENT_MAX: usize = 4_096;

/// An own transaction.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    /// Who signs; none for a client's.
    pub(crate) from: Option<Who>,
    pub(crate) action: Action,
    pub(crate) transaction: VerifiedTransaction,
}

/// Own transactions that are not in a block yet.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    entries: BTreeMap<Purpose, Own>,
    clients: usize,
}

impl Outbox {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn has(&self, purpose: &Purpose) -> bool {
        self.entries.contains_key(purpose)
    }

    /// Keeps an own transaction; a client's above the limit is left to the mempool alone.
    pub(crate) fn put(&mut self, purpose: Purpose, own: Own) {
        if matches!(purpose, Purpose::Client(_)) {
            if self.clients >= CLIENT_MAX {
                return;
            }
            self.clients = self.clients.saturating_add(1);
        }
        self.entries.insert(purpose, own);
    }

    pub(crate) fn remove(&mut self, purpose: &Purpose) -> Option<Own> {
        let own = self.entries.remove(purpose)?;
        if matches!(purpose, Purpose::Client(_)) {
            self.clients = self.clients.saturating_sub(1);
        }
        Some(own)
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Purpose, &Own)> {
        self.entries.iter()
    }

    /// Lists own transactions of `sender` from `nonce` on, in nonce order: what hangs on a lost one.
    pub(crate) fn behind(&self, sender: &PublicKey, nonce: Nonce) -> Vec<Purpose> {
        let mut found: Vec<(Nonce, Purpose)> = self
            .entries
            .iter()
            .filter(|(_, own)| own.transaction.transaction().sender == *sender)
            .map(|(purpose, own)| (own.transaction.transaction().nonce, *purpose))
            .filter(|(at, _)| *at >= nonce)
            .collect();
        found.sort();
        found.into_iter().map(|(_, purpose)| purpose).collect()
    }

    /// Returns the transactions in the order in which they can be included.
    pub(crate) fn in_order(&self) -> Vec<VerifiedTransaction> {
        let mut all: Vec<&VerifiedTransaction> = self.entries.values().map(|own| &own.transaction).collect();
        all.sort_by_key(|own| (own.transaction().sender, own.transaction().nonce));
        all.into_iter().cloned().collect()
    }
}

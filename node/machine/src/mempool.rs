//! Transactions that wait for a block: bounded in bytes and per sender, in nonce order, best fee first.
//!
//! Free duties come before paying transactions: the ledger bounds them by quotas and the market's deadlines depend on
//! them. This node's own transactions are never evicted.

use std::collections::{BTreeMap, BTreeSet};

use tiltyard_keys::PublicKey;
use tiltyard_proto::ids::TransactionId;
use tiltyard_proto::transaction::{Transaction, VerifiedTransaction};
use tiltyard_proto::units::{Height, MicroCredits, Nonce};

use crate::config::SubmitError;

/// Limits of the mempool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MempoolLimits {
    /// Most bytes of all transactions.
    pub bytes_max: usize,
    /// Most transactions of one sender.
    pub per_sender_max: usize,
}

impl Default for MempoolLimits {
    /// 16 MiB, 256 of one sender.
    fn default() -> Self {
        Self { bytes_max: 16 << 20, per_sender_max: 256 }
    }
}

#[derive(Debug)]
struct Waiting {
    transaction: VerifiedTransaction,
    bytes: usize,
    own: bool,
}

impl Waiting {
    fn rank(&self) -> Rank {
        rank(self.transaction.transaction().fee, self.bytes)
    }
}

/// The transactions that wait.
#[derive(Debug)]
pub(crate) struct Mempool {
    limits: MempoolLimits,
    senders: BTreeMap<PublicKey, BTreeMap<Nonce, Waiting>>,
    ids: BTreeMap<TransactionId, (PublicKey, Nonce)>,
    /// Last transaction of each sender whose last one is not this node's own, worst first: what is evicted next.
    tails: BTreeSet<(Rank, PublicKey)>,
    bytes: usize,
}

/// Free duties first, then by fee per KiB.
type Rank = (bool, u64);

fn rank(fee: MicroCredits, bytes: usize) -> Rank {
    let per_kib = u128::from(fee.get()).saturating_mul(1024);
    let per_kib = per_kib.checked_div(bytes.max(1) as u128).unwrap_or(0);
    (fee == MicroCredits::ZERO, u64::try_from(per_kib).unwrap_or(u64::MAX))
}

impl Mempool {
    pub(crate) fn new(limits: MempoolLimits) -> Self {
        Self { limits, senders: BTreeMap::new(), ids: BTreeMap::new(), tails: BTreeSet::new(), bytes: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn has(&self, id: &TransactionId) -> bool {
        self.ids.contains_key(id)
    }

    pub(crate) fn get(&self, id: &TransactionId) -> Option<&VerifiedTransaction> {
        let (sender, nonce) = self.ids.get(id)?;
        self.senders.get(sender)?.get(nonce).map(|waiting| &waiting.transaction)
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = TransactionId> {
        self.ids.keys().copied()
    }

    /// Returns the first nonce from `account` on that no waiting transaction of the sender has.
    pub(crate) fn next_nonce(&self, sender: &PublicKey, account: Nonce) -> Nonce {
        let mut next = account;
        if let Some(queue) = self.senders.get(sender) {
            for nonce in queue.range(account..).map(|(nonce, _)| *nonce) {
                if nonce != next {
                    break;
                }
                next = next.saturating_add(Nonce::new(1));
            }
        }
        next
    }

    /// Says whether a transaction that the ledger admits would be taken, before its signature is looked at.
    pub(crate) fn has_room(
        &self,
        body: &Transaction,
        bytes: usize,
        account: Nonce,
        own: bool,
    ) -> Result<(), SubmitError> {
        let (sender, nonce) = (body.sender, body.nonce);
        let ahead = nonce.saturating_sub(account).get();
        if usize::try_from(ahead).unwrap_or(usize::MAX) >= self.limits.per_sender_max {
            return Err(SubmitError::Gap { next: account.get() });
        }
        let queue = self.senders.get(&sender);
        let rival = queue.and_then(|queue| queue.get(&nonce));
        if let Some(rival) = rival {
            let old = rival.transaction.transaction().fee;
            if body.fee <= old {
                return Err(SubmitError::Taken { fee: old.get() });
            }
        } else if queue.is_some_and(|queue| queue.len() >= self.limits.per_sender_max) {
            return Err(SubmitError::SenderFull { max: self.limits.per_sender_max });
        }
        let grown = bytes.saturating_sub(rival.map_or(0, |rival| rival.bytes));
        if own || self.bytes.saturating_add(grown) <= self.limits.bytes_max {
            return Ok(());
        }
        let cheapest = self.cheapest(&sender).ok_or(SubmitError::Full)?;
        if cheapest.0 < rank(body.fee, bytes) { Ok(()) } else { Err(SubmitError::Full) }
    }

    /// Takes a transaction that the ledger admits. `account` is the sender's nonce.
    pub(crate) fn insert(
        &mut self,
        transaction: VerifiedTransaction,
        account: Nonce,
        own: bool,
    ) -> Result<(), SubmitError> {
        let id = transaction.id();
        if self.has(&id) {
            return Err(SubmitError::Known { id });
        }
        let bytes = transaction.signed().encoded_len();
        self.has_room(transaction.transaction(), bytes, account, own)?;
        let (sender, nonce) = (transaction.transaction().sender, transaction.transaction().nonce);
        let waiting = Waiting { transaction, bytes, own };
        let rival = self.senders.get(&sender).and_then(|queue| queue.get(&nonce));
        let freed = rival.map_or(0, |rival| rival.bytes);
        if !own {
            self.make_room(bytes.saturating_sub(freed), waiting.rank(), &sender)?;
        }
        self.put(sender, nonce, waiting);
        Ok(())
    }

    fn put(&mut self, sender: PublicKey, nonce: Nonce, waiting: Waiting) {
        self.unmark(&sender);
        self.ids.insert(waiting.transaction.id(), (sender, nonce));
        self.bytes = self.bytes.saturating_add(waiting.bytes);
        if let Some(old) = self.senders.entry(sender).or_default().insert(nonce, waiting) {
            self.ids.remove(&old.transaction.id());
            self.bytes = self.bytes.saturating_sub(old.bytes);
        }
        self.mark(&sender);
    }

    fn tail(&self, sender: &PublicKey) -> Option<(Rank, PublicKey)> {
        let (_, last) = self.senders.get(sender)?.last_key_value()?;
        (!last.own).then(|| (last.rank(), *sender))
    }

    /// Takes a sender's last transaction off the list of what can be evicted, before its queue changes.
    fn unmark(&mut self, sender: &PublicKey) {
        if let Some(tail) = self.tail(sender) {
            self.tails.remove(&tail);
        }
    }

    fn mark(&mut self, sender: &PublicKey) {
        let tail = self.tail(sender);
        self.tails.extend(tail);
    }

    /// Returns the worst ranked last transaction of anyone but `sender`.
    fn cheapest(&self, sender: &PublicKey) -> Option<(Rank, PublicKey)> {
        self.tails.iter().find(|(_, key)| key != sender).copied()
    }

    /// Evicts the last transactions of senders whose last one ranks lowest, until `bytes` fit.
    fn make_room(&mut self, bytes: usize, rank: Rank, sender: &PublicKey) -> Result<(), SubmitError> {
        while self.bytes.saturating_add(bytes) > self.limits.bytes_max {
            let (_, key) =
                self.cheapest(sender).filter(|(worst, _)| *worst < rank).ok_or(SubmitError::Full)?;
            let last = self.senders.get(&key).and_then(|queue| queue.last_key_value());
            let nonce = last.map(|(nonce, _)| *nonce).ok_or(SubmitError::Full)?;
            self.remove_at(&key, nonce);
        }
        Ok(())
    }

    fn remove_at(&mut self, sender: &PublicKey, nonce: Nonce) -> Option<VerifiedTransaction> {
        self.unmark(sender);
        let waiting = self.senders.get_mut(sender).and_then(|queue| queue.remove(&nonce));
        if self.senders.get(sender).is_some_and(BTreeMap::is_empty) {
            self.senders.remove(sender);
        }
        self.mark(sender);
        let waiting = waiting?;
        self.bytes = self.bytes.saturating_sub(waiting.bytes);
        self.ids.remove(&waiting.transaction.id());
        Some(waiting.transaction)
    }

    /// Takes a transaction out.
    pub(crate) fn remove(&mut self, id: &TransactionId) -> Option<VerifiedTransaction> {
        let (sender, nonce) = *self.ids.get(id)?;
        self.remove_at(&sender, nonce)
    }

    /// Takes out everything of `sender` below `next`, its account's nonce.
    pub(crate) fn forget_below(&mut self, sender: &PublicKey, next: Nonce) {
        while let Some(nonce) = self
            .senders
            .get(sender)
            .and_then(|queue| queue.first_key_value())
            .map(|(nonce, _)| *nonce)
            .filter(|nonce| *nonce < next)
        {
            self.remove_at(sender, nonce);
        }
    }

    /// Lists what a new block at `height` may have made impossible: expired, free, or of a sender in `touched`.
    pub(crate) fn doubtful(&self, height: Height, touched: &BTreeSet<PublicKey>) -> Vec<VerifiedTransaction> {
        let next = height.next();
        self.senders
            .iter()
            .flat_map(|(sender, queue)| {
                let touched = touched.contains(sender);
                queue.values().filter(move |waiting| {
                    let body = waiting.transaction.transaction();
                    touched || body.fee == MicroCredits::ZERO || body.valid_until < next
                })
            })
            .map(|waiting| waiting.transaction.clone())
            .collect()
    }

    /// Chooses transactions for a block: each sender's in nonce order, the best ranked head first, within `bytes`.
    pub(crate) fn select(&self, bytes: usize, most: usize) -> Vec<VerifiedTransaction> {
        let mut heads: BTreeMap<PublicKey, std::collections::btree_map::Values<'_, Nonce, Waiting>> =
            BTreeMap::new();
        let mut order: BTreeSet<(Rank, PublicKey)> = BTreeSet::new();
        let mut next: BTreeMap<PublicKey, &Waiting> = BTreeMap::new();
        for (sender, queue) in &self.senders {
            let mut values = queue.values();
            if let Some(first) = values.next() {
                order.insert((first.rank(), *sender));
                next.insert(*sender, first);
                heads.insert(*sender, values);
            }
        }
        let (mut chosen, mut left) = (Vec::new(), bytes);
        while let Some((_, sender)) = order.pop_last() {
            let Some(head) = next.remove(&sender) else {
                continue;
            };
            // A head that does not fit ends its sender's turn: what follows needs it.
            if chosen.len() >= most || head.bytes > left {
                continue;
            }
            left = left.saturating_sub(head.bytes);
            chosen.push(head.transaction.clone());
            if let Some(following) = heads.get_mut(&sender).and_then(Iterator::next) {
                order.insert((following.rank(), sender));
                next.insert(sender, following);
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests;

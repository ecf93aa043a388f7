//! Promises about time, which hold to the block where nothing but byzantine validators disturbs a network.
//!
//! Under loss, splits and crashes these may be late by right; then the other checks ask only that they happen at last.

use std::collections::BTreeMap;

use tiltyard_keys::PublicKey;
use tiltyard_ledger::query;
use tiltyard_proto::ids::{TaskId, TransactionId};
use tiltyard_proto::transaction::{Action, SignedTransaction};

use super::disk::Content;
use super::violation::Violation;

/// A double signer is punished within so many blocks of being seen.
const PUNISHED_WITHIN: u64 = 10;
/// A transaction has reached every proposer by the second block after it was sent.
const TRAVEL: u64 = 2;

/// What must happen soon.
#[derive(Debug, Default)]
pub(crate) struct Timely {
    /// Commits of miners: the task, and the height of the chain when an honest node sent it.
    commits: BTreeMap<TransactionId, (TaskId, u64)>,
    /// Offenders, and the height of the chain when an honest node first saw the offence.
    offenders: BTreeMap<PublicKey, u64>,
    unpunished: BTreeMap<PublicKey, u64>,
}

impl Timely {
    /// An honest node sends transactions.
    pub(crate) fn sent(&mut self, height: u64, list: &[SignedTransaction]) {
        for signed in list {
            if let Action::Commit { task, .. } = &signed.transaction.action {
                self.commits.entry(signed.transaction.id()).or_insert((*task, height));
            }
        }
    }

    /// An honest node saw a validator contradict itself.
    pub(crate) fn offended(&mut self, validator: PublicKey, height: u64) {
        if self.offenders.insert(validator, height).is_none() {
            self.unpunished.insert(validator, height);
        }
    }

    /// A block slashed a validator.
    pub(crate) fn punished(&mut self, validator: &PublicKey) {
        self.unpunished.remove(validator);
    }

    /// Looks at a new block; says whether an honest proposer built it.
    pub(crate) fn check(
        &mut self,
        height: u64,
        is_honest: bool,
        content: &Content,
        included: &BTreeMap<TransactionId, (u64, bool)>,
    ) -> Vec<Violation> {
        let mut found = Vec::new();
        self.commits.retain(|id, _| !included.contains_key(id));
        for (id, (task, sent)) in &self.commits {
            let in_time = query::task(content, task)
                .is_ok_and(|record| record.is_some_and(|record| height <= record.deadlines.commit.get()));
            if is_honest && in_time && height >= sent + TRAVEL {
                let fact = format!("{id} was sent at height {sent}");
                found.push(Violation::Censored { height, fact });
            }
        }
        for (validator, seen) in &self.unpunished {
            if height > seen + PUNISHED_WITHIN {
                let fact = format!("{} contradicted itself, seen at height {seen}", validator.short());
                found.push(Violation::Unpunished { height, fact });
            }
        }
        found
    }
}

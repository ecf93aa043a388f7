//! What follows a durable block: transactions leave, doubtful ones are looked at again, roles look at the state.

use std::collections::{BTreeMap, BTreeSet};

use tiltyard_keys::PublicKey;
use tiltyard_ledger::{LedgerEvent, StateRead, query};
use tiltyard_proto::ids::TransactionId;
use tiltyard_proto::transaction::Action;
use tiltyard_proto::units::Height;

use crate::config::MachineError;
use crate::event::Event;
use crate::machine::Machine;
use crate::outbox::Purpose;
use crate::roles::Who;

impl<S: StateRead> Machine<S> {
    /// Brings mempool and outbox up to a block that became durable.
    pub(crate) fn settle(
        &mut self,
        included: &[(TransactionId, bool)],
        senders: &BTreeSet<PublicKey>,
    ) -> Result<(), MachineError> {
        for (id, _) in included {
            self.mempool.remove(id);
        }
        for sender in senders {
            let next = query::account(&self.state, sender)?.nonce;
            self.mempool.forget_below(sender, next);
        }
        let mut lost: BTreeMap<TransactionId, String> = BTreeMap::new();
        for transaction in self.mempool.doubtful(self.chain.tip.height, senders) {
            if let Err(refused) = self.check(&transaction)? {
                self.mempool.remove(&transaction.id());
                lost.insert(transaction.id(), refused.to_string());
            }
        }
        self.settle_own(included, &lost)
    }

    fn settle_own(
        &mut self,
        included: &[(TransactionId, bool)],
        lost: &BTreeMap<TransactionId, String>,
    ) -> Result<(), MachineError> {
        let included: BTreeMap<TransactionId, bool> = included.iter().copied().collect();
        let height = self.chain.tip.height;
        let mut done = Vec::new();
        let mut gone = Vec::new();
        for (purpose, own) in self.outbox.entries() {
            let id = own.transaction.id();
            match included.get(&id) {
                Some(ok) => done.push((*purpose, id, *ok)),
                None if !self.mempool.has(&id) => {
                    let fact = lost.get(&id).cloned();
                    let fact = fact.unwrap_or_else(|| "it has no place in a block any more".to_owned());
                    gone.push((*purpose, fact));
                }
                None => {}
            }
        }
        for (purpose, id, ok) in done {
            self.outbox.remove(&purpose);
            self.notify_done(purpose, id, height, ok);
        }
        for (purpose, fact) in gone {
            self.replace_from(purpose, &fact)?;
        }
        Ok(())
    }

    fn notify_done(&mut self, purpose: Purpose, id: TransactionId, height: Height, ok: bool) {
        self.notify(Event::TransactionIncluded { id, height, ok });
        match purpose {
            Purpose::Duty(key) => {
                self.notify(Event::DutyDone { task: key.task, duty: key.duty, height, ok });
            }
            Purpose::Evidence(..) | Purpose::Client(_) => {}
        }
    }

    /// Gives up an own transaction, and signs the ones behind it again: their numbers have a gap before them now.
    fn replace_from(&mut self, purpose: Purpose, fact: &str) -> Result<(), MachineError> {
        let Some(own) = self.outbox.remove(&purpose) else {
            return Ok(());
        };
        let body = own.transaction.transaction();
        self.drop_event(own.transaction.id(), fact.to_owned());
        let mut again: Vec<(Purpose, Who, Action)> = Vec::new();
        for next in self.outbox.behind(&body.sender, body.nonce) {
            if let Some(other) = self.outbox.remove(&next) {
                self.mempool.remove(&other.transaction.id());
                match other.from {
                    Some(from) => again.push((next, from, other.action)),
                    None => self.drop_event(
                        other.transaction.id(),
                        "a transaction before it was dropped; sign it again".to_owned(),
                    ),
                }
            }
        }
        for (purpose, from, action) in again {
            self.submit_own(purpose, from, action)?;
        }
        Ok(())
    }

    /// Tells what a block did to tasks and validators.
    pub(crate) fn tell_events(&mut self, height: Height, events: &[LedgerEvent]) {
        for event in events {
            self.notify(match event {
                LedgerEvent::TaskPhase { task, phase } => Event::TaskPhase { task: *task, phase: *phase },
                LedgerEvent::Committed { .. }
                | LedgerEvent::Evicted { .. }
                | LedgerEvent::Revealed { .. }
                | LedgerEvent::KeyOpened { .. }
                | LedgerEvent::Jailed { .. }
                | LedgerEvent::Slashed { .. }
                | LedgerEvent::SetComputed { .. } => Event::Ledger { height, event: *event },
            });
        }
    }
}

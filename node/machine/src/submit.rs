//! How transactions enter: from peers, from clients, from this node itself.

use tiltyard_keys::{PublicKey, Signer};
use tiltyard_ledger::{StateRead, fee_due, query};
use tiltyard_proto::evidence::Evidence;
use tiltyard_proto::ids::TransactionId;
use tiltyard_proto::transaction::{Action, Transaction, VerifiedTransaction};
use tiltyard_proto::units::{Blocks, Nonce};

use crate::announce::FLUSH_MS;
use crate::config::{MachineError, SubmitError};
use crate::event::Event;
use crate::machine::Machine;
use crate::outbox::{Own, Purpose};
use crate::roles::Who;
use crate::timers::Timer;

/// How long an own transaction is valid, in blocks: long enough for a lost one to be offered many times, short
/// enough for its number to come free again.
const OWN_VALID_BLOCKS: Blocks = Blocks::new(100);

impl<S: StateRead> Machine<S> {
    /// Says whether a transaction could wait here, without taking it.
    ///
    /// # Errors
    /// The outer error stops the node; the inner one says why not.
    pub fn check(&self, transaction: &VerifiedTransaction) -> Result<Result<(), SubmitError>, MachineError> {
        let genesis = self.chain.verifier.genesis();
        let height = self.chain.tip.height;
        let checked = tiltyard_ledger::check(&self.state, genesis, height, transaction)?;
        Ok(checked.map_err(SubmitError::Admit))
    }

    /// Returns the nonce that the next transaction of `key` must carry, those that wait counted.
    ///
    /// # Errors
    /// [`MachineError`] when the state cannot be read.
    pub fn next_nonce(&self, key: &PublicKey) -> Result<Nonce, MachineError> {
        let account = query::account(&self.state, key)?.nonce;
        Ok(self.mempool.next_nonce(key, account))
    }

    /// Takes a transaction of this node or its clients into the mempool.
    pub(crate) fn admit(
        &mut self,
        transaction: VerifiedTransaction,
    ) -> Result<Result<(), SubmitError>, MachineError> {
        if self.mempool.has(&transaction.id()) {
            return Ok(Err(SubmitError::Known { id: transaction.id() }));
        }
        if let Err(refused) = self.check(&transaction)? {
            return Ok(Err(refused));
        }
        let account = query::account(&self.state, &transaction.transaction().sender)?.nonce;
        Ok(self.mempool.insert(transaction, account, true))
    }

    /// Takes a transaction of a local client.
    pub(crate) fn on_submit(&mut self, transaction: VerifiedTransaction) -> Result<(), MachineError> {
        let id = transaction.id();
        match self.admit(transaction.clone())? {
            Ok(()) => {
                let action = transaction.transaction().action.clone();
                self.announce(&transaction);
                self.outbox.put(Purpose::Client(id), Own { from: None, action, transaction });
                self.notify(Event::TransactionAccepted { id });
            }
            Err(SubmitError::Known { id }) => self.notify(Event::TransactionAccepted { id }),
            Err(refused) => self.drop_event(id, refused.to_string()),
        }
        Ok(())
    }

    /// Signs an own action and offers it until it is in a block; an own transaction for the same purpose stays.
    pub(crate) fn submit_own(
        &mut self,
        purpose: Purpose,
        from: Who,
        action: Action,
    ) -> Result<(), MachineError> {
        if self.outbox.has(&purpose) {
            return Ok(());
        }
        let Some(sender) = self.signer(from).map(Signer::public) else {
            return Ok(());
        };
        let nonce = self.next_nonce(&sender)?;
        let transaction = Transaction {
            version: Transaction::VERSION,
            genesis: self.chain.verifier.genesis(),
            sender,
            nonce,
            fee: fee_due(&action, &self.chain.tip.params),
            valid_until: self.chain.next_height().plus(OWN_VALID_BLOCKS),
            action: action.clone(),
        };
        let Some(transaction) = self.signer(from).map(|signer| transaction.sign(signer)) else {
            return Ok(());
        };
        // Not admitted means not possible now: the role that wants it looks again after the next block.
        if self.admit(transaction.clone())?.is_ok() {
            self.announce(&transaction);
            self.outbox.put(purpose, Own { from: Some(from), action, transaction });
        }
        Ok(())
    }

    fn signer(&self, from: Who) -> Option<&Signer> {
        match from {
            Who::Validator => self.validator.as_ref(),
            Who::Account => Some(&self.account),
        }
    }

    /// Accuses a validator.
    pub(crate) fn accuse(&mut self, evidence: Evidence) -> Result<(), MachineError> {
        let (validator, height) = (evidence.culprit(), evidence.height());
        self.notify(Event::Equivocation { validator, height });
        let action = Action::Evidence(Box::new(evidence));
        self.submit_own(Purpose::Evidence(validator, height), Who::Validator, action)
    }

    /// Offers every own transaction again.
    pub(crate) fn offer_again(&mut self) {
        for transaction in self.outbox.in_order() {
            self.announce(&transaction);
        }
    }

    pub(crate) fn announce(&mut self, transaction: &VerifiedTransaction) {
        if self.announcer.is_empty() {
            self.set_timer(Timer::Flush, FLUSH_MS);
        }
        self.announcer.add(transaction, &mut self.out);
    }

    pub(crate) fn drop_event(&mut self, id: TransactionId, fact: String) {
        self.notify(Event::TransactionDropped { id, fact });
    }
}

//! Double-entry books kept beside the ledger: what the transactions in blocks leave on each watched key.
//!
//! The ledger's own totals cannot see two keys swapped, a transfer applied twice and once reversed, or a fee taken from
//! the wrong one. These books can: they know nothing but the transactions and whether they took effect.

use std::collections::BTreeMap;

use tiltyard_keys::PublicKey;
use tiltyard_ledger::{ReadError, StateRead, query};
use tiltyard_proto::transaction::{Action, SignedTransaction};
use tiltyard_proto::units::MicroCredits;

/// Keys whose whole wealth follows from transactions alone.
#[derive(Debug, Default)]
pub(crate) struct Books {
    expected: BTreeMap<PublicKey, i128>,
}

fn amount(credits: MicroCredits) -> i128 {
    i128::from(credits.get())
}

impl Books {
    /// Watches a key that starts with `wealth`: balance, stake, and stake on its way out.
    pub(crate) fn watch(&mut self, key: PublicKey, wealth: MicroCredits) {
        self.expected.insert(key, amount(wealth));
    }

    fn add(&mut self, key: &PublicKey, by: i128) {
        if let Some(wealth) = self.expected.get_mut(key) {
            *wealth += by;
        }
    }

    /// Books a transaction of a block. Stake that is to return to another account leaves the key when it is unbonded.
    pub(crate) fn enter(
        &mut self,
        signed: &SignedTransaction,
        took_effect: bool,
        state: &dyn StateRead,
    ) -> Result<(), ReadError> {
        let body = &signed.transaction;
        if let (true, Action::Unbond { stake }) = (took_effect, &body.action)
            && query::validator(state, &body.sender)?.is_some_and(|record| record.payout != body.sender)
        {
            self.add(&body.sender, -stake.to_micro_credits().map_or(0, amount));
        }
        self.add(&body.sender, -amount(body.fee));
        if let (true, Action::Transfer { to, amount: moved }) = (took_effect, &body.action) {
            self.add(&body.sender, -amount(*moved));
            self.add(to, amount(*moved));
        }
        Ok(())
    }

    /// Compares with a state. Returns the first key that does not have what it must.
    pub(crate) fn compare(&self, state: &dyn StateRead) -> Result<Option<String>, ReadError> {
        for (key, expected) in &self.expected {
            let mut held = amount(query::account(state, key)?.balance);
            if let Some(record) = query::validator(state, key)? {
                held += record.stake.to_micro_credits().map_or(0, amount);
                if record.payout == *key {
                    held += record.unbonding.iter().map(|leaving| amount(leaving.amount)).sum::<i128>();
                }
            }
            if held != *expected {
                return Ok(Some(format!("{} has {held}, its transactions leave {expected}", key.short())));
            }
        }
        Ok(None)
    }
}

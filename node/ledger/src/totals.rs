//! Conservation of supply: every micro-credit is in exactly one place, after every block.

use tiltyard_proto::state::{Account, EntrantRecord, StateKey, TaskRecord, Totals, ValidatorRecord};
use tiltyard_proto::units::MicroCredits;

use crate::memory::MemoryState;
use crate::query;
use crate::read::ReadError;

/// Where a micro-credit can be, or come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// An account.
    Balances,
    /// A task's pot.
    Escrow,
    /// An entrant's bond.
    Bonds,
    /// Bonded stake.
    Stake,
    /// Stake on its way out.
    Unbonding,
    /// Subsidy not yet paid out.
    PendingSubsidy,
    /// Nowhere, for good.
    Burned,
    /// Not yet issued by the faucet.
    Faucet,
    /// Not yet issued as subsidy.
    Subsidy,
}

/// Moves an amount between two places; `None` when the first does not hold it or the second cannot.
pub(crate) fn shift(totals: &mut Totals, from: Place, to: Place, amount: MicroCredits) -> Option<()> {
    match from {
        Place::Faucet => totals.faucet = totals.faucet.checked_add(amount)?,
        Place::Subsidy => totals.subsidy = totals.subsidy.checked_add(amount)?,
        held => {
            let slot = slot(totals, held)?;
            *slot = slot.checked_sub(amount)?;
        }
    }
    let slot = slot(totals, to)?;
    *slot = slot.checked_add(amount)?;
    Some(())
}

fn slot(totals: &mut Totals, place: Place) -> Option<&mut MicroCredits> {
    match place {
        Place::Balances => Some(&mut totals.balances),
        Place::Escrow => Some(&mut totals.escrow),
        Place::Bonds => Some(&mut totals.bonds),
        Place::Stake => Some(&mut totals.stake),
        Place::Unbonding => Some(&mut totals.unbonding),
        Place::PendingSubsidy => Some(&mut totals.pending_subsidy),
        Place::Burned => Some(&mut totals.burned),
        Place::Faucet | Place::Subsidy => None,
    }
}

/// Counts every account, pot, bond and stake of a state afresh; what was issued and burned is taken from its totals.
///
/// For tests and repair tools: it reads the whole state. The result must equal [`query::totals`].
///
/// # Errors
/// [`ReadError`] when an entry is not of its kind, or the sum of a place overflows.
pub fn recount(state: &MemoryState) -> Result<Totals, ReadError> {
    let recorded = query::totals(state)?;
    let mut counted = Totals {
        genesis: recorded.genesis,
        subsidy: recorded.subsidy,
        faucet: recorded.faucet,
        pending_subsidy: recorded.pending_subsidy,
        burned: recorded.burned,
        ..Totals::default()
    };
    let overflow = || ReadError::new("a total overflows");
    let add = |slot: &mut MicroCredits, amount: MicroCredits| -> Result<(), ReadError> {
        *slot = slot.checked_add(amount).ok_or_else(overflow)?;
        Ok(())
    };
    // One key of each kind shows which first byte the kind has.
    let zero = tiltyard_keys::PublicKey::from_bytes([0; 32]);
    let task = tiltyard_proto::ids::TaskId::from_bytes([0; 32]);
    let prefix = |key: StateKey| key.to_bytes().first().copied();
    let (accounts, validators, tasks, entrants) = (
        prefix(StateKey::Account(zero)),
        prefix(StateKey::Validator(zero)),
        prefix(StateKey::Task(task)),
        prefix(StateKey::Entrant(task, zero)),
    );
    for (key, value) in state.entries() {
        let kind = key.first().copied();
        if kind == accounts {
            add(&mut counted.balances, query::decode::<Account>(value)?.balance)?;
        } else if kind == validators {
            let record = query::decode::<ValidatorRecord>(value)?;
            add(&mut counted.stake, record.stake.to_micro_credits().ok_or_else(overflow)?)?;
            for leaving in &record.unbonding {
                add(&mut counted.unbonding, leaving.amount)?;
            }
        } else if kind == tasks {
            let record = query::decode::<TaskRecord>(value)?;
            if !record.phase.is_over() {
                add(&mut counted.escrow, record.spec.pot)?;
            }
        } else if kind == entrants {
            add(&mut counted.bonds, query::decode::<EntrantRecord>(value)?.bond)?;
        }
    }
    Ok(counted)
}

//! The first state: grants, stakes, parameters and the first two sets.

use serde_bytes::ByteBuf;
use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::state::{Account, Standing, StateKey, Totals, ValidatorRecord};
use tiltyard_proto::units::{Height, MicroCredits};

use crate::book::Book;
use crate::changes::ChangeSet;
use crate::error::{GenesisStateError, Stop};
use crate::memory::MemoryState;
use crate::tree;

/// Returns the state at height 0 as a change set over nothing: tree version 0.
///
/// # Errors
/// [`GenesisStateError`] when the document breaks a rule.
pub fn genesis(genesis: &Genesis) -> Result<ChangeSet, GenesisStateError> {
    genesis.check()?;
    let totals = first_totals(genesis)?;
    let nothing = MemoryState::new();
    let mut book = Book::empty(&nothing, genesis.hash(), genesis.params.clone());
    book.issue_genesis(totals);
    fill(&mut book, genesis).map_err(|stop| stop.outside(Height::ZERO))?;
    let (values, _) = book.close().map_err(|stop| stop.outside(Height::ZERO))?;
    Ok(tree::update(&nothing, values).map_err(crate::ExecuteError::Read)?)
}

fn first_totals(genesis: &Genesis) -> Result<Totals, GenesisStateError> {
    let supply = genesis.supply()?;
    let balances = genesis
        .grants
        .iter()
        .try_fold(MicroCredits::ZERO, |sum, grant| sum.checked_add(grant.amount))
        .ok_or(tiltyard_proto::genesis::GenesisError::Supply)?;
    Ok(Totals { genesis: supply, balances, stake: supply.saturating_sub(balances), ..Totals::default() })
}

fn fill(book: &mut Book<'_>, genesis: &Genesis) -> Result<(), Stop> {
    for grant in &genesis.grants {
        book.set_account(grant.account, Account { balance: grant.amount, ..Account::default() })?;
    }
    for validator in &genesis.validators {
        let record = ValidatorRecord {
            stake: validator.stake,
            unbonding: Vec::new(),
            standing: Standing::Active,
            peer: ByteBuf::from(validator.peer.to_vec()),
            addresses: validator.addresses.clone(),
            payout: validator.payout,
            duties: 0,
            payout_change: None,
        };
        book.put(StateKey::Validator(validator.key), record)?;
    }
    let set = genesis.validator_set().map_err(|_| Stop::Broken("genesis was checked before"))?;
    let keys: Vec<_> = set.members().iter().map(|member| member.key).collect();
    book.put(StateKey::ValidatorIndex, keys)?;
    book.put(StateKey::Set(0), set.clone())?;
    book.put(StateKey::Set(1), set)?;
    book.put(StateKey::Params, genesis.params.clone())?;
    Ok(())
}

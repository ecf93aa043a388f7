//! What the last block of an epoch does: returns stake that has waited, pays the subsidy, computes a set, forgets old ones.
//!
//! The set computed at the end of epoch `e` is in force in epoch `e + 2`: every block knows its own set and the next.

use tiltyard_keys::PublicKey;
use tiltyard_proto::limits::VALIDATORS_MAX;
use tiltyard_proto::state::{Attendance, Standing, StateKey, ValidatorRecord};
use tiltyard_proto::units::{MicroCredits, Stake};
use tiltyard_proto::validators::{Validator, ValidatorSet};

use crate::book::Book;
use crate::error::Stop;
use crate::event::LedgerEvent;
use crate::query;
use crate::settle::money::portion;
use crate::totals::Place;

/// Ends an epoch if this block is its last.
pub(crate) fn end_of_block(book: &mut Book<'_>) -> Result<(), Stop> {
    let length = book.params.epoch.get();
    if book.height.get().checked_rem(length) != Some(0) {
        return Ok(());
    }
    let epoch = query::epoch_of(&book.params, book.height);
    let keys: Vec<PublicKey> = book.get(StateKey::ValidatorIndex)?.unwrap_or_default();
    release(book, &keys)?;
    pay_subsidy(book)?;
    let next = epoch.saturating_add(1);
    let known: ValidatorSet =
        book.get(StateKey::Set(next))?.ok_or(Stop::Broken("the next epoch has no set"))?;
    let set = compute_set(book, &keys)?.unwrap_or_else(|| known.clone());
    let in_force = next.saturating_add(1);
    let members = u32::try_from(set.members().len()).unwrap_or(u32::MAX);
    drop_empty(book, keys, &[&known, &set])?;
    book.put(StateKey::Set(in_force), set)?;
    book.event(LedgerEvent::SetComputed { epoch: in_force, members });
    forget_sets(book, epoch)
}

/// Returns stake whose delay is over and that no task holds, then lets payout accounts change whose delay is over.
fn release(book: &mut Book<'_>, keys: &[PublicKey]) -> Result<(), Stop> {
    for key in keys {
        let mut record = record_of(book, *key)?;
        let now = book.height;
        let free = record.duties == 0;
        let (ready, waiting): (Vec<_>, Vec<_>) =
            record.unbonding.iter().copied().partition(|leaving| free && leaving.until <= now);
        let change = record.payout_change.filter(|change| change.from <= now);
        if ready.is_empty() && change.is_none() {
            continue;
        }
        for leaving in ready {
            book.credit(Place::Unbonding, record.payout, leaving.amount)?;
        }
        record.unbonding = waiting;
        if let Some(change) = change {
            record.payout = change.to;
            record.payout_change = None;
        }
        book.put(StateKey::Validator(*key), record)?;
    }
    Ok(())
}

fn record_of(book: &mut Book<'_>, key: PublicKey) -> Result<ValidatorRecord, Stop> {
    book.get(StateKey::Validator(key))?.ok_or(Stop::Broken("a listed validator has no record"))
}

/// Issues the epoch's subsidy and pays it, with what was left over before, by stake to the active members of the set.
fn pay_subsidy(book: &mut Book<'_>) -> Result<(), Stop> {
    let amount = book.params.subsidy_per_epoch;
    let totals = book.totals();
    let issued = totals.genesis.checked_add(totals.subsidy).and_then(|sum| sum.checked_add(totals.faucet));
    if amount > MicroCredits::ZERO && issued.and_then(|sum| sum.checked_add(amount)).is_some() {
        book.shift(Place::Subsidy, Place::PendingSubsidy, amount)?;
    }
    let pending = book.totals().pending_subsidy;
    if pending == MicroCredits::ZERO {
        return Ok(());
    }
    let set = book.set()?;
    for member in set.members() {
        let Some(record) = book.get::<ValidatorRecord>(StateKey::Validator(member.key))? else {
            continue;
        };
        if record.standing == Standing::Active {
            let part = portion(pending, member.stake.get(), set.total().get());
            book.credit(Place::PendingSubsidy, record.payout, part)?;
        }
    }
    Ok(())
}

/// Draws up a set from the records: active, enough stake, the largest 128. `None` when nobody is left.
fn compute_set(book: &mut Book<'_>, keys: &[PublicKey]) -> Result<Option<ValidatorSet>, Stop> {
    let least = book.params.stake_min;
    let mut members = Vec::new();
    for key in keys {
        let record = record_of(book, *key)?;
        if record.standing == Standing::Active && record.stake >= least {
            members.push(Validator { key: *key, stake: record.stake });
        }
    }
    members.sort_by(|a, b| b.stake.cmp(&a.stake).then(a.key.cmp(&b.key)));
    members.truncate(VALIDATORS_MAX);
    members.sort_by_key(|member| member.key);
    if members.is_empty() {
        return Ok(None);
    }
    ValidatorSet::try_from(members).map(Some).map_err(|_| Stop::Broken("the records form no validator set"))
}

/// Removes the records of keys that have left: no stake, nothing on its way out, no duty, in no coming set.
fn drop_empty(book: &mut Book<'_>, keys: Vec<PublicKey>, coming: &[&ValidatorSet]) -> Result<(), Stop> {
    let mut kept = Vec::with_capacity(keys.len());
    let before = keys.len();
    for key in keys {
        let record = record_of(book, key)?;
        let gone = record.stake == Stake::ZERO
            && record.unbonding.is_empty()
            && record.duties == 0
            && record.standing != Standing::Tombstoned
            && coming.iter().all(|set| set.find(&key).is_none());
        if gone {
            book.remove::<ValidatorRecord>(StateKey::Validator(key))?;
            book.remove::<Attendance>(StateKey::Attendance(key))?;
        } else {
            kept.push(key);
        }
    }
    if kept.len() != before {
        book.put(StateKey::ValidatorIndex, kept)?;
    }
    Ok(())
}

/// Forgets the set that fell out of the evidence age with this epoch.
fn forget_sets(book: &mut Book<'_>, epoch: u64) -> Result<(), Stop> {
    let kept = book.params.evidence_age.get().div_ceil(book.params.epoch.get().max(1)).saturating_add(1);
    if let Some(old) = epoch.checked_sub(kept) {
        book.remove::<ValidatorSet>(StateKey::Set(old))?;
    }
    Ok(())
}

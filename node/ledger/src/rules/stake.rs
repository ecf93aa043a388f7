//! `Bond`, `Unbond`, `Unjail`, `SetValidator`, `Revoke`: a validator's stake and whereabouts.
//!
//! The validator key is hot: it signs votes on a machine that can be broken into. What it earns and what it locks goes to
//! the payout account, whose key can stay cold: the hot key changes that account only after the unbonding delay, and the
//! cold key can stop it. None of them changes the running set: sets are computed at the end of an epoch and come into force one epoch later.

use serde_bytes::ByteBuf;
use tiltyard_keys::PublicKey;
use tiltyard_proto::limits::{ADDRESS_BYTES_MAX, ADDRESSES_MAX, STAKE_TOTAL_MAX};
use tiltyard_proto::state::{Attendance, PayoutChange, Standing, StateKey, Unbonding, ValidatorRecord};
use tiltyard_proto::units::{MICRO_PER_CREDIT, MicroCredits, Stake};

use crate::book::Book;
use crate::error::{MarketError, Stop};
use crate::totals::Place;

/// Most keys with a validator record, in the set or waiting to be: their list is one entry of the state.
const RECORDS_MAX: usize = 512;
/// Most parts of one stake on their way out at once.
const UNBONDINGS_MAX: usize = 16;
/// Longest peer id, in its multihash bytes.
const PEER_BYTES_MAX: usize = 64;

pub(super) fn bond(book: &mut Book<'_>, sender: PublicKey, stake: Stake) -> Result<(), Stop> {
    if stake == Stake::ZERO {
        return Err(MarketError::NothingToDo.into());
    }
    let amount = stake.to_micro_credits().ok_or(MarketError::StakeTotal)?;
    let mut record = match book.get::<ValidatorRecord>(StateKey::Validator(sender))? {
        Some(record) => record,
        None => enlist(book, sender)?,
    };
    if record.standing == Standing::Tombstoned {
        return Err(MarketError::Tombstoned { key: sender }.into());
    }
    let total = book.totals().stake.get().saturating_add(amount.get());
    if total.checked_div(MICRO_PER_CREDIT).is_none_or(|credits| credits >= STAKE_TOTAL_MAX) {
        return Err(MarketError::StakeTotal.into());
    }
    record.stake = record.stake.checked_add(stake).ok_or(MarketError::StakeTotal)?;
    let needed = book.params.stake_min;
    if record.stake < needed {
        return Err(MarketError::StakeTooSmall { stake: record.stake, needed }.into());
    }
    book.debit(sender, Place::Stake, amount)?;
    Ok(book.put(StateKey::Validator(sender), record)?)
}

/// Makes an empty record for a key that has none.
fn enlist(book: &mut Book<'_>, key: PublicKey) -> Result<ValidatorRecord, Stop> {
    let mut keys: Vec<PublicKey> = book.get(StateKey::ValidatorIndex)?.unwrap_or_default();
    if keys.len() >= RECORDS_MAX {
        return Err(MarketError::ValidatorsFull { count: keys.len() }.into());
    }
    if let Err(at) = keys.binary_search(&key) {
        keys.insert(at, key);
    }
    book.put(StateKey::ValidatorIndex, keys)?;
    Ok(ValidatorRecord {
        stake: Stake::ZERO,
        unbonding: Vec::new(),
        standing: Standing::Active,
        peer: ByteBuf::new(),
        addresses: Vec::new(),
        payout: key,
        duties: 0,
        payout_change: None,
    })
}

fn record_of(book: &mut Book<'_>, key: PublicKey) -> Result<ValidatorRecord, Stop> {
    book.get(StateKey::Validator(key))?.ok_or(Stop::Market(MarketError::NoStake { key }))
}

pub(super) fn unbond(book: &mut Book<'_>, sender: PublicKey, stake: Stake) -> Result<(), Stop> {
    if stake == Stake::ZERO {
        return Err(MarketError::NothingToDo.into());
    }
    let mut record = record_of(book, sender)?;
    let rest = record.stake.checked_sub(stake).ok_or(MarketError::StakeTooLarge { bonded: record.stake })?;
    let needed = book.params.stake_min;
    if rest != Stake::ZERO && rest < needed {
        return Err(MarketError::StakeTooSmall { stake: rest, needed }.into());
    }
    if record.unbonding.len() >= UNBONDINGS_MAX {
        return Err(MarketError::UnbondingsFull { count: record.unbonding.len() }.into());
    }
    leave(book, &mut record, stake)?;
    record.stake = rest;
    Ok(book.put(StateKey::Validator(sender), record)?)
}

/// Puts bonded stake on its way out. When there are many parts, the newest takes it in.
fn leave(book: &mut Book<'_>, record: &mut ValidatorRecord, stake: Stake) -> Result<(), Stop> {
    let amount: MicroCredits = stake.to_micro_credits().ok_or(Stop::Broken("bonded stake overflows"))?;
    let until = book.height.plus(book.params.unbonding);
    let full = record.unbonding.len() >= UNBONDINGS_MAX;
    match record.unbonding.last_mut() {
        Some(newest) if full => {
            newest.until = until;
            newest.amount =
                newest.amount.checked_add(amount).ok_or(Stop::Broken("unbonding stake overflows"))?;
        }
        Some(_) | None => record.unbonding.push(Unbonding { until, amount }),
    }
    book.shift(Place::Stake, Place::Unbonding, amount)
}

pub(super) fn revoke(
    book: &mut Book<'_>,
    sender: PublicKey,
    validator: PublicKey,
    unbond: bool,
) -> Result<(), Stop> {
    let mut record = record_of(book, validator)?;
    if record.payout != sender {
        return Err(MarketError::NotPayoutKey { validator, payout: record.payout }.into());
    }
    let leaving = if unbond { record.stake } else { Stake::ZERO };
    if record.payout_change.is_none() && leaving == Stake::ZERO {
        return Err(MarketError::NothingToDo.into());
    }
    record.payout_change = None;
    if leaving > Stake::ZERO {
        leave(book, &mut record, leaving)?;
        record.stake = Stake::ZERO;
    }
    Ok(book.put(StateKey::Validator(validator), record)?)
}

pub(super) fn unjail(book: &mut Book<'_>, sender: PublicKey) -> Result<(), Stop> {
    let mut record = record_of(book, sender)?;
    match record.standing {
        Standing::Active => return Err(MarketError::NotJailed.into()),
        Standing::Tombstoned => return Err(MarketError::Tombstoned { key: sender }.into()),
        Standing::Jailed { until } if book.height < until => {
            return Err(MarketError::StillJailed { until }.into());
        }
        Standing::Jailed { .. } => {}
    }
    record.standing = Standing::Active;
    book.remove::<Attendance>(StateKey::Attendance(sender))?;
    Ok(book.put(StateKey::Validator(sender), record)?)
}

pub(super) fn set_validator(
    book: &mut Book<'_>,
    sender: PublicKey,
    peer: &[u8],
    addresses: &[String],
    payout: PublicKey,
) -> Result<(), Stop> {
    let mut record = record_of(book, sender)?;
    let fits = (1..=PEER_BYTES_MAX).contains(&peer.len())
        && addresses.len() <= ADDRESSES_MAX
        && addresses.iter().all(|address| (1..=ADDRESS_BYTES_MAX).contains(&address.len()));
    if !fits {
        return Err(MarketError::Whereabouts.into());
    }
    record.peer = ByteBuf::from(peer.to_vec());
    record.addresses = addresses.to_vec();
    let pending = record.payout_change.is_some_and(|change| change.to == payout);
    if record.payout == payout {
        record.payout_change = None;
    } else if record.payout == sender {
        // Nothing is kept apart from the hot key yet: there is nobody to ask.
        record.payout = payout;
    } else if !pending {
        let from = book.height.plus(book.params.unbonding);
        record.payout_change = Some(PayoutChange { to: payout, from });
    }
    Ok(book.put(StateKey::Validator(sender), record)?)
}

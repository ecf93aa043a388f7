//! `Evidence`: burns a share of all stake of a double signer and ends its life as validator.
//!
//! The share is taken from bonded stake and from stake on its way out; stake that a committee holds is one of the two.

use tiltyard_keys::Verifier;
use tiltyard_proto::evidence::Evidence;
use tiltyard_proto::state::{Punished, Standing, StateKey, ValidatorRecord};
use tiltyard_proto::units::{Height, MicroCredits, Ppm, Stake};

use crate::book::Book;
use crate::error::{MarketError, Stop};
use crate::event::LedgerEvent;
use crate::settle::money::share;
use crate::totals::Place;

pub(super) fn apply(book: &mut Book<'_>, evidence: &Evidence) -> Result<(), Stop> {
    let (key, height) = (evidence.culprit(), evidence.height());
    let newest = book.height;
    let oldest = Height::new(newest.get().saturating_sub(book.params.evidence_age.get()).max(1));
    if height < oldest || height > newest {
        return Err(MarketError::EvidenceAge { height, oldest, newest }.into());
    }
    let member = book.set_at(height)?.is_some_and(|set| set.find(&key).is_some());
    if !member {
        return Err(MarketError::NotInSet { key, height }.into());
    }
    let mark = StateKey::Punished(key, height);
    if book.get::<Punished>(mark)?.is_some() {
        return Err(MarketError::AlreadyPunished { key, height }.into());
    }
    evidence.verify(&Verifier::new(book.genesis)).map_err(MarketError::from)?;
    let burned = slash(book, key)?;
    book.put(mark, Punished { burned })?;
    book.event(LedgerEvent::Slashed { validator: key, height, burned });
    Ok(())
}

fn slash(book: &mut Book<'_>, key: tiltyard_keys::PublicKey) -> Result<MicroCredits, Stop> {
    let Some(mut record) = book.get::<ValidatorRecord>(StateKey::Validator(key))? else {
        // All its stake has left; the mark alone remains.
        return Ok(MicroCredits::ZERO);
    };
    let part: Ppm = book.params.slash;
    // Stake stays in whole credits: the share is rounded down to one.
    let bonded = Stake::new(share(MicroCredits::new(record.stake.get()), part).get());
    let bonded_amount = bonded.to_micro_credits().ok_or(Stop::Broken("bonded stake overflows"))?;
    record.stake = record.stake.saturating_sub(bonded);
    book.shift(Place::Stake, Place::Burned, bonded_amount)?;
    let mut burned = bonded_amount;
    for leaving in &mut record.unbonding {
        let amount = share(leaving.amount, part);
        leaving.amount = leaving.amount.saturating_sub(amount);
        book.shift(Place::Unbonding, Place::Burned, amount)?;
        burned = burned.saturating_add(amount);
    }
    record.standing = Standing::Tombstoned;
    book.put(StateKey::Validator(key), record)?;
    Ok(burned)
}

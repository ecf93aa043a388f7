//! Absence: whose precommit the certificates in blocks lack.
//!
//! Counted per validator in windows of `absence_window` blocks. A validator that misses more than `absence_max` of a
//! window is jailed: the next set that is computed leaves it out.

use tiltyard_keys::{PublicKey, Signature};
use tiltyard_proto::state::{Attendance, Standing, StateKey, ValidatorRecord};
use tiltyard_proto::validators::ValidatorSet;

use crate::book::Book;
use crate::error::Stop;
use crate::event::LedgerEvent;

/// Counts those members of the parent's set that did not sign its certificate.
pub(crate) fn record(
    book: &mut Book<'_>,
    parent_set: &ValidatorSet,
    signed: &[(usize, Signature)],
) -> Result<(), Stop> {
    for (at, member) in parent_set.members().iter().enumerate() {
        if signed.binary_search_by(|(signer, _)| signer.cmp(&at)).is_err() {
            miss(book, member.key)?;
        }
    }
    Ok(())
}

fn miss(book: &mut Book<'_>, key: PublicKey) -> Result<(), Stop> {
    let Some(mut record) = book.get::<ValidatorRecord>(StateKey::Validator(key))? else {
        return Ok(());
    };
    match record.standing {
        Standing::Active => {}
        Standing::Jailed { .. } | Standing::Tombstoned => return Ok(()),
    }
    let now = book.height;
    let window = book.params.absence_window;
    let mut count: Attendance = book.get(StateKey::Attendance(key))?.unwrap_or_default();
    if count.missed == 0 || now >= count.since.plus(window) {
        count = Attendance { since: now, missed: 0 };
    }
    count.missed = count.missed.saturating_add(1);
    let missed = u128::from(count.missed).saturating_mul(1_000_000);
    let share = u128::try_from(book.params.absence_max.get()).unwrap_or(0);
    if missed > share.saturating_mul(u128::from(window.get())) {
        let until = now.plus(book.params.jail);
        record.standing = Standing::Jailed { until };
        book.put(StateKey::Validator(key), record)?;
        book.event(LedgerEvent::Jailed { validator: key, until });
        return Ok(book.remove::<Attendance>(StateKey::Attendance(key))?);
    }
    Ok(book.put(StateKey::Attendance(key), count)?)
}

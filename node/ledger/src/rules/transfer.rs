//! `Transfer`: credits from one account to another.

use tiltyard_keys::PublicKey;
use tiltyard_proto::units::MicroCredits;

use crate::book::Book;
use crate::error::{MarketError, Stop};
use crate::totals::Place;

pub(super) fn apply(
    book: &mut Book<'_>,
    sender: PublicKey,
    to: PublicKey,
    amount: MicroCredits,
) -> Result<(), Stop> {
    if amount == MicroCredits::ZERO {
        return Err(MarketError::NothingToDo.into());
    }
    // Through escrow, so that both halves are ordinary moves; nothing stays there.
    book.debit(sender, Place::Escrow, amount)?;
    book.credit(Place::Escrow, to, amount)
}

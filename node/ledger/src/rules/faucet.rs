//! `Faucet`: test credits, where genesis has a faucet. Limited per key and per block, since keys cost nothing.

use tiltyard_keys::PublicKey;
use tiltyard_proto::state::Account;
use tiltyard_proto::units::{Height, MicroCredits};

use crate::book::Book;
use crate::error::{MarketError, Stop};
use crate::totals::Place;

/// Most draws in one block, over all keys.
const DRAWS_PER_BLOCK_MAX: u32 = 16;

pub(super) fn apply(book: &mut Book<'_>, to: PublicKey) -> Result<(), Stop> {
    let amount = book.params.faucet;
    if amount == MicroCredits::ZERO {
        return Err(MarketError::NoFaucet.into());
    }
    if book.faucet_draws >= DRAWS_PER_BLOCK_MAX {
        return Err(MarketError::FaucetBusy { draws: book.faucet_draws }.into());
    }
    let account = book.account(to)?;
    let again = account.faucet_at.plus(book.params.faucet_interval);
    if account.faucet_at > Height::ZERO && book.height < again {
        return Err(MarketError::FaucetTooSoon { again }.into());
    }
    let totals = book.totals();
    let issued = totals.genesis.checked_add(totals.subsidy).and_then(|sum| sum.checked_add(totals.faucet));
    if issued.and_then(|sum| sum.checked_add(amount)).is_none() {
        return Err(MarketError::SupplyExhausted.into());
    }
    book.faucet_draws = book.faucet_draws.saturating_add(1);
    let drawn_at = book.height;
    book.set_account(to, Account { faucet_at: drawn_at, ..account })?;
    book.credit(Place::Faucet, to, amount)
}

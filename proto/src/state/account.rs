//! Accounts, validators and where every micro-credit is.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use tiltyard_keys::PublicKey;

use crate::units::{Height, MicroCredits, Nonce, Stake};

/// A key's balance and nonce.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Spendable balance.
    pub balance: MicroCredits,
    /// Transactions included so far; the next one must carry this nonce.
    pub nonce: Nonce,
    /// Height of the last draw from the faucet; 0 for never.
    pub faucet_at: Height,
}

/// Stake on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unbonding {
    /// Height from which it may return; it does at the next end of an epoch with no task holding it.
    pub until: Height,
    /// Amount.
    pub amount: MicroCredits,
}

/// A payout account on its way to replace the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayoutChange {
    /// The new account.
    pub to: PublicKey,
    /// Height from which it is in force; it takes over at the next end of an epoch.
    pub from: Height,
}

/// Whether a validator may vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// May.
    Active,
    /// Missed too many blocks; may unjail from this height on.
    Jailed {
        /// First height at which it may unjail.
        until: Height,
    },
    /// Signed two things where it may sign one; never again.
    Tombstoned,
}

/// A validator's stake and whereabouts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidatorRecord {
    /// Bonded stake.
    pub stake: Stake,
    /// Stake on its way out, earliest first.
    pub unbonding: Vec<Unbonding>,
    /// Whether it may vote.
    pub standing: Standing,
    /// Peer id, in its multihash bytes; empty when not yet given.
    pub peer: ByteBuf,
    /// Multiaddresses, as text.
    pub addresses: Vec<String>,
    /// Account that receives the judge's pay, the subsidy and stake that returns. Its key may revoke.
    pub payout: PublicKey,
    /// Tasks that still hold its stake as committee member.
    pub duties: u32,
    /// Another payout account that takes over after a delay, unless the present one revokes it.
    pub payout_change: Option<PayoutChange>,
}

/// Where every micro-credit is. Their sum is genesis plus subsidy plus faucet, after every block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Granted at genesis, stakes included.
    pub genesis: MicroCredits,
    /// Issued as subsidy so far.
    pub subsidy: MicroCredits,
    /// In accounts.
    pub balances: MicroCredits,
    /// In pots.
    pub escrow: MicroCredits,
    /// In entrants' bonds.
    pub bonds: MicroCredits,
    /// Bonded as stake.
    pub stake: MicroCredits,
    /// Stake on its way out.
    pub unbonding: MicroCredits,
    /// Subsidy not yet paid out.
    pub pending_subsidy: MicroCredits,
    /// Gone for good.
    pub burned: MicroCredits,
    /// Issued by the faucet so far.
    pub faucet: MicroCredits,
}

impl Totals {
    /// Says whether every micro-credit is somewhere, exactly once.
    #[must_use]
    pub fn is_conserved(&self) -> bool {
        let wide = |amount: MicroCredits| u128::from(amount.get());
        let places = [
            self.balances,
            self.escrow,
            self.bonds,
            self.stake,
            self.unbonding,
            self.pending_subsidy,
            self.burned,
        ];
        let held = places.into_iter().fold(0u128, |sum, part| sum.saturating_add(wide(part)));
        let issued = [self.genesis, self.subsidy, self.faucet]
            .into_iter()
            .fold(0u128, |sum, part| sum.saturating_add(wide(part)));
        held == issued
    }
}

/// Marks a punished key and height.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Punished {
    /// Micro-credits burned.
    pub burned: MicroCredits,
}

/// Blocks missed in the running window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attendance {
    /// First height of the window.
    pub since: Height,
    /// Blocks whose certificate lacked the validator.
    pub missed: u32,
}

//! Why an action, a transaction, a block or the ledger itself does not go on.

mod market;

use tiltyard_keys::{GenesisHash, PublicKey};
use tiltyard_proto::genesis::GenesisError;
use tiltyard_proto::ids::TransactionId;
use tiltyard_proto::units::{Height, MicroCredits, Nonce};

pub use self::market::MarketError;
use crate::read::ReadError;

/// Says why a transaction may not be in the next block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    /// Made for another network.
    #[error("transaction is of network {theirs}, this is {ours}")]
    ForeignNetwork {
        /// Network in the transaction.
        theirs: GenesisHash,
        /// This network.
        ours: GenesisHash,
    },
    /// Used before, or (in a block) a number too high.
    #[error("{sender} sends nonce {given}, next is {next}; it was replayed or is out of order")]
    Nonce {
        /// The sender.
        sender: PublicKey,
        /// Nonce in the transaction.
        given: Nonce,
        /// Nonce of the account.
        next: Nonce,
    },
    /// Too late.
    #[error("transaction was valid until height {valid_until}, the next block has {height}; sign it again")]
    Expired {
        /// Last height.
        valid_until: Height,
        /// Height of the block.
        height: Height,
    },
    /// Valid for too long.
    #[error(
        "transaction is valid until {valid_until}, more than 1000 blocks ahead of {height}; sign it for less"
    )]
    TooFarAhead {
        /// Last height.
        valid_until: Height,
        /// Height of the block.
        height: Height,
    },
    /// Fee below the smallest, and the action is not free.
    #[error("fee is {fee}, the smallest is {needed}")]
    FeeTooLow {
        /// The fee.
        fee: MicroCredits,
        /// The smallest.
        needed: MicroCredits,
    },
    /// Fee above the balance.
    #[error("fee is {fee}, the account holds {balance}")]
    FeeUnpayable {
        /// The fee.
        fee: MicroCredits,
        /// The balance.
        balance: MicroCredits,
    },
    /// Sent without fee, and would not take effect.
    #[error("free action would fail: {0}")]
    FreeFailure(MarketError),
}

/// Says why a block is invalid: vote nil.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// More transactions than allowed.
    #[error("block has {count} transactions, at most {max} are allowed")]
    TooManyTransactions {
        /// Transactions given.
        count: usize,
        /// Transactions allowed.
        max: u32,
    },
    /// A transaction that may not be in it.
    #[error("transaction {id} at {index}: {source}")]
    Transaction {
        /// Its position, from 0.
        index: usize,
        /// Its id.
        id: TransactionId,
        /// Why not.
        source: AdmitError,
    },
    /// The parent's certificate does not fit the parent's set.
    #[error("the parent's certificate does not fit a set of {members} validators")]
    Certificate {
        /// Members of that set.
        members: usize,
    },
}

/// Says why a block was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecuteError {
    /// The block is invalid: vote nil.
    #[error("block is invalid: {0}")]
    Invalid(#[from] BlockError),
    /// The state cannot be read: stop the node.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A rule of the ledger's own accounting broke: stop the node, nothing was changed.
    #[error("ledger invariant broken at height {height}: {fact}; stop the node and report this")]
    Broken {
        /// Height of the block.
        height: Height,
        /// What broke.
        fact: &'static str,
    },
}

/// Says why the state of a genesis document cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenesisStateError {
    /// The document is refused.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// The state cannot be computed.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
}

/// Why a rule stops: a broken market rule, an unreadable state, or a bug.
#[derive(Debug)]
pub(crate) enum Stop {
    Market(MarketError),
    Read(ReadError),
    Broken(&'static str),
}

impl From<MarketError> for Stop {
    fn from(error: MarketError) -> Self {
        Self::Market(error)
    }
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl Stop {
    /// Turns a stop outside any transaction into an error of the block; market rules do not stop there.
    pub(crate) fn outside(self, height: Height) -> ExecuteError {
        match self {
            Self::Market(_) => {
                ExecuteError::Broken { height, fact: "a market rule failed at the end of a block" }
            }
            Self::Read(error) => ExecuteError::Read(error),
            Self::Broken(fact) => ExecuteError::Broken { height, fact },
        }
    }
}

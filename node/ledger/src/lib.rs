//! The rules of the market as a pure function: state and block in, changed state and typed outcomes out.
//!
//! [`execute`] applies a block to a [`StateRead`] and returns a [`ChangeSet`]; it writes nothing itself. All numbers
//! are integers, all orders are fixed, so that every node that applies the same blocks has the same state root.
//!
//! - `rules/`: one module per transaction. A rule either takes effect whole or changes nothing.
//! - `phase/`: what happens at the end of a block in which a phase of a task ends.
//! - `settle/`: from opened score rows to medians, ranks, reasons and money.
//! - [`mod@tree`]: the authenticated state; [`query`]: typed readers; [`memory`]: a state in memory.
//!
//! Deliberately absent: clocks, randomness, files, signatures of transactions (a [`VerifiedTransaction`] carries the
//! proof of that check in its type), and any knowledge of consensus beyond the certificate that a block carries.
//!
//! [`VerifiedTransaction`]: tiltyard_proto::transaction::VerifiedTransaction
#![cfg_attr(
    not(test),
    deny(clippy::float_arithmetic, clippy::arithmetic_side_effects, clippy::indexing_slicing)
)]

mod attendance;
mod book;
mod changes;
mod epoch;
mod error;
mod event;
mod execute;
mod fee;
mod genesis;
pub mod memory;
mod phase;
pub mod query;
mod read;
mod rules;
mod settle;

/// The ranking rule by itself, for those who hold every score: benchmarks and tools that explain a verdict.
pub mod ranking {
    pub use crate::settle::rank::{Priority, Scored, Stand, Terms, rank};
}
pub mod stamp;
mod table;
pub mod totals;
pub mod tree;

pub use changes::{ChangeSet, Overlay, Values};
pub use error::{AdmitError, BlockError, ExecuteError, GenesisStateError, MarketError};
pub use event::LedgerEvent;
pub use execute::{BlockContext, Executed, Outcome, Selected, check, execute, precheck, select};
pub use fee::{fee_due, may_be_free};
pub use genesis::genesis;
pub use read::{ReadError, StateRead};

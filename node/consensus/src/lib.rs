//! Tendermint-style agreement on one opaque block hash per height, through the Malachite core.
//!
//! Inputs in, outputs out: no clock, no file, no socket, no randomness. Every type of the core stays inside this
//! crate. What a block means, whether it is valid, and when a height starts is decided by the caller.
//!
//! Deliberately absent: the core's own target time (it reads a clock), vote extensions, and its sync protocol
//! (decided blocks are verified and applied by the caller, without the core).

#![deny(
    clippy::arithmetic_side_effects,
    clippy::float_arithmetic,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

mod context;
mod convert;
mod core;
mod durable;
mod effects;
mod io;
mod journal;
mod verify;
mod witness;

pub use crate::core::Consensus;
pub use durable::{Durable, JournalWrite, NotDurable, Sealed};
pub use io::{ConsensusInput, ConsensusOutput, ConsensusTimer, Judged, Now, Timeouts, TimerKind};
pub use journal::{JournalError, RecordedValue, recorded_height, recorded_values};
pub use verify::{Authenticator, Refusal};
pub use witness::Witness;

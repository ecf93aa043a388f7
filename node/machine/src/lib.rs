//! The pure brain of one node: [`Machine::step`] takes what happened and says what must be done, in order.
//!
//! It composes agreement ([`tiltyard_consensus`]), the rules of the market ([`tiltyard_ledger`]), the mempool, block
//! sync and the roles. Time enters with each input; writes, sends, timers and jobs leave as effects.
//!
//! - `chain/`: builds and judges blocks over the state after the tip.
//! - `agreement`: the running height of a validator; `guard`: what keeps it from contradicting its twin or former life;
//!   `gossip`: a verdict for every message.
//! - `mempool`, `outbox`, `announce`: transactions of others, our own, and how they travel.
//! - `sync`, `pull`: decided blocks, whole states and proposed bodies that were missed; `repair`: blocks that the disk lost.
//! - [`roles`]: judge, miner, requester.
//!
//! Deliberately absent: clocks, randomness, files, sockets, threads, floats.

#![deny(
    clippy::arithmetic_side_effects,
    clippy::float_arithmetic,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

mod agreement;
mod announce;
mod budget;
mod chain;
mod config;
mod duties;
pub mod event;
mod gossip;
mod guard;
pub mod io;
mod machine;
mod mempool;
mod outbox;
mod pull;
mod repair;
pub mod roles;
mod settle;
mod stale;
mod status;
mod submit;
mod sync;
mod timers;

pub use config::{Config, JoinConfig, JoinState, MachineError, Recovered, SubmitError};
pub use event::Event;
pub use io::{Effect, Input};
pub use machine::Machine;
pub use mempool::MempoolLimits;
pub use status::Status;
pub use sync::JoinStatus;
pub use tiltyard_consensus::{Durable, JournalWrite, NotDurable, Now, Sealed};

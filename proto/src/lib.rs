//! Everything of the market that is hashed, signed or crosses a wire.
//!
//! Bytes and rules are fixed by `proto/SPEC.md`; golden files hold them there. Nothing here reads a file, a clock, a
//! socket or randomness, and nothing here decides a market rule: that is `ledger`'s business.

#![deny(
    clippy::float_arithmetic,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::disallowed_types,
    clippy::disallowed_methods
)]

pub mod block;
pub mod certificate;
pub mod codec;
pub mod evidence;
pub mod genesis;
pub mod hash;
pub mod ids;
pub mod light;
pub mod limits;
pub mod manifest;
pub mod merkle;
pub mod receipt;
pub mod recipe;
pub mod score;
pub mod seal;
pub mod snapshot;
pub mod state;
pub mod state_proof;
pub mod task;
pub mod transaction;
pub mod units;
pub mod validators;
pub mod vote;
pub mod wire;

pub use tiltyard_keys as keys;

//! Tools that try whole networks of Tiltyard nodes.
//!
//! - [`sim`]: many machines in one process and in virtual time, with seeded faults and adversaries.
//!
//! Runs of real processes belong to the program of this crate.

pub mod sim;

//! Models, data, trainers, strategies and evaluation of Tiltyard's miners and judges.
//!
//! A library of synchronous work: it never starts an async runtime, opens a socket or
//! talks to the ledger. The kernels are single-threaded and deterministic; see
//! [`kernel`] for the arithmetic and [`model`] for what is computed with it.

pub mod data;
pub mod eval;
pub mod fit;
pub mod job;
pub mod kernel;
pub mod model;
mod ops;
mod rng;
pub mod safe;
pub mod strategy;

pub use kernel::head::Target;

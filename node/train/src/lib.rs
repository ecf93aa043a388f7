//! Models, data, trainers, strategies and evaluation of Tiltyard's miners and judges.
//!
//! A library of synchronous work: it never starts an async runtime, opens a socket or
//! talks to the ledger. The kernels are single-threaded and deterministic; see
//! [`kernel`] for the arithmetic and [`model`] for what is computed with it. Kinds of task
//! live in [`kind`]; new ones start from [`loss`] (weighted cross-entropy), [`model::generate`] (batched
//! generation) and [`fit::objective`] (what a run learns from).
//!
//! # A graphics card
//!
//! The `cuda` feature passes through to candle. A training job whose `device` is a card then
//! computes its gradients there with candle's stock operations (`model::stock`); parameters,
//! optimizer, evaluation and generation stay on the processor. The stock path is tested on
//! the CPU against the fused kernels. **The feature itself was never built or run by us**:
//! candle's kernels need NVIDIA's compiler at build time, which our machines lack; that the
//! dependency graph resolves with it is all that was checked.

pub mod data;
pub mod eval;
pub mod fit;
pub mod job;
pub mod kernel;
pub mod kind;
pub mod loss;
pub mod model;
mod ops;
pub mod picture;
pub mod reward;
pub mod rng;
pub mod safe;
pub mod strategy;

pub use kernel::head::Target;

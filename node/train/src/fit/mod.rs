//! Fitting: gradients over micro-batches, the optimizer, schedules and the loops.

pub mod denoise;
pub mod group;
pub mod objective;
pub mod optim;
pub mod pretrain;
pub mod run;
pub mod settings;
pub mod shard;
pub(crate) mod state;

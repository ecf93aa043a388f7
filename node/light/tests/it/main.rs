//! Light client against chains made in memory.

mod chain;
mod follow;

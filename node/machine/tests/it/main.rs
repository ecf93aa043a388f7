//! Machines in memory: agreement, crashes, catching up, junk, and the whole life of a task.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test says where")]

mod agree;
mod crash;
mod join;
mod judge;
mod junk;
mod life;
mod market;
mod snapshot;
mod sync;
mod twin;
mod world;

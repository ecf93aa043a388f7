//! Machines in memory: agreement, crashes, catching up, junk, and the whole life of a task.

mod agree;
mod crash;
mod junk;
mod market;
mod sync;
mod world;

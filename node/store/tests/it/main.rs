//! The store against crashes, damage and full disks.
#![allow(clippy::unwrap_used, reason = "a test that cannot get its ground ready has failed")]

mod blobs;
mod bytes;
mod chain;
mod child;
mod crash;
mod damage;
mod full;
mod logs;
mod pruning;
mod small;
mod snapshots;
mod twin;

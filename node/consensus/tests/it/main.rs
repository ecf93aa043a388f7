//! Agreement alone, over bare hashes: a seeded network in virtual time, crashes with a journal, double votes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test says where")]

mod agree;
mod journal;
mod net;
mod witness;

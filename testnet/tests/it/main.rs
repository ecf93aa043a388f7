//! Integration tests of the testnet crate.

mod sim;
mod sim_threats;
mod supply_chain;
mod threats;

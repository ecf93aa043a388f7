//! Integration tests of the testnet crate.

mod sim;
mod supply_chain;
mod threats;

//! Integration tests of the testnet crate.

mod supply_chain;

//! The testnet runner.
fn main() {}

//! The ledger's rules, as sentences over data.

mod entry;
mod hostile;
mod money;
mod phases;
mod plan;
mod race;
mod settle;
mod stake;
mod tree;
mod world;

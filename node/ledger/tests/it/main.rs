//! The ledger's rules, as sentences over data.

mod entry;
mod hostile;
mod money;
mod phases;
mod race;
mod settle;
mod stake;
mod tree;
mod world;

//! The `tiltyard` binary as its users run it: real processes, real files, loopback only.

mod bad_input;
mod database;
mod kill;
mod network;
mod secrets;
mod trainer;
mod wallet;
mod world;

//! The network on loopback: real swarms, ports chosen by the system, waits on events only.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod blobs;
mod floods;
mod frames;
mod gossip;
mod harness;
mod hostile;
mod peers;
mod raw;
mod store;
mod sync;

//! Integration tests of the training crate.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy does not count as tests")]
#![allow(missing_docs, reason = "a test binary has no readers of documentation")]

mod chats;
mod engine;
mod external;
mod generated;
mod imports;
mod jobs;
mod kinds;
mod learned;
mod peft;
mod stock;

//! Integration tests of the training crate.
#![allow(missing_docs, reason = "a test binary has no readers of documentation")]

mod jobs;
mod peft;
mod stock;

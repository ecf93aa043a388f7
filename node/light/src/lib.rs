//! Light client: follows a chain over HTTP from the genesis hash alone, and checks proofs against what it followed.
//!
//! [`Client`] asks a [`Source`] (a node's HTTP API through [`HttpNode`], or memory in tests) and believes nothing it
//! says: every header goes through `tiltyard_proto::light`, every entry through its proof. A second source, the
//! witness, is asked for the same height; two verified blocks of one height mean that more than one third of the stake
//! broke the protocol, and the client stops. The caller gives the time.
//!
//! Deliberately absent: a copy of the chain, mempool, gossip, and any key.

mod client;
mod error;
mod http;
mod source;

pub use client::{Client, Proven};
pub use error::{FollowError, SourceError};
pub use http::HttpNode;
pub use source::Source;

use tiltyard_proto::light::LightOptions;

/// Returns what a light client trusts by default: two weeks of trust, ten seconds of clock drift, five minutes until a
/// tip is stale.
#[must_use]
pub const fn default_options() -> LightOptions {
    LightOptions { trust_period_ms: 14 * 86_400_000, clock_drift_ms: 10_000, stale_after_ms: 300_000 }
}

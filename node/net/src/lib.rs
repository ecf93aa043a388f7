//! The swarm of one node: gossip with validation, block sync, verified blob transfer.
//!
//! [`Net::spawn`] starts one task that owns the libp2p swarm. The node talks to it through a [`NetHandle`] (bounded
//! commands) and reads [`NetEvent`]s (bounded events: when nobody reads them, the swarm stops reading the network).
//! Everything that leaves as an event was decoded strictly; no signature and no market rule was checked.
//!
//! Absent on purpose: the store, the ledger, the machine and every decision about validity. Blobs are reached through
//! [`BlobAccess`], peers are judged by [`NetHandle::report`] and [`NetHandle::penalize`].
//!
//! Transport: TCP, Noise, Yamux. Every protocol and topic name carries the first 16 hex digits of the genesis hash; a
//! peer of another network is told apart by its identify message and disconnected.

mod behaviour;
mod blob;
mod config;
mod dialer;
mod error;
mod event;
mod exchange;
mod gossip;
mod handle;
mod peers;
mod task;

pub use blob::access::{BlobAccess, NoBlobs, PartialBlob};
pub use blob::tree::{PIECE_BYTES, piece_bytes, piece_count};
pub use config::{Limits, NetConfig, Target};
pub use error::{BlobError, CommandError, NetError, PeerTextError};
pub use event::{NetEvent, PeerInfo};
pub use gossip::decode::{FrameError, decode_frame};
pub use handle::NetHandle;
pub use peers::{peer_from_text, peer_of_seed, peer_text};
pub use task::Net;

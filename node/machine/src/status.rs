//! A node's state at a glance.

use tiltyard_proto::ids::BlockHash;
use tiltyard_proto::units::{Height, Round, UnixMillis};

use crate::sync::JoinStatus;

/// A node's state at a glance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Last durable block.
    pub height: Height,
    /// Its hash; the genesis hash's bytes at height 0.
    pub hash: BlockHash,
    /// Its time; genesis time at height 0.
    pub time: UnixMillis,
    /// Running round of the next height, where this node takes part in it.
    pub round: Option<Round>,
    /// Connected peers.
    pub peers: usize,
    /// Last block of the furthest peer, by its own word.
    pub best_peer_height: Height,
    /// Transactions waiting for a block.
    pub pending_transactions: usize,
    /// Bytes of them.
    pub pending_bytes: usize,
    /// This node's own transactions not yet in a block.
    pub own_pending: usize,
    /// Behind its peers and fetching blocks.
    pub syncing: bool,
    /// Holds a validator key that is in the set of the next height.
    pub validating: bool,
    /// Must not sign any more.
    pub halted: bool,
    /// Has heard of no new block for too long: cut off, or the network stands still.
    pub stale: bool,
    /// How the join by snapshot goes, while there is one.
    pub joining: Option<JoinStatus>,
}

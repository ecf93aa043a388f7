//! What the network tells the node.

use tiltyard_proto::ids::BlobRoot;
use tiltyard_proto::wire::{GossipMessage, Peer, SyncRequest, SyncResponse, Topic};

/// Something that happened on the network.
#[derive(Debug, Clone)]
pub enum NetEvent {
    /// A gossip message, strictly decoded; to be judged by [`report`](crate::NetHandle::report).
    Message {
        /// Names it.
        token: u64,
        /// Who forwarded it.
        from: Peer,
        /// What it says.
        message: Box<GossipMessage>,
    },
    /// A peer asks; to be answered by [`respond`](crate::NetHandle::respond) within the request timeout.
    Request {
        /// Names it.
        token: u64,
        /// Who asks.
        from: Peer,
        /// What.
        request: SyncRequest,
    },
    /// What became of an [`ask`](crate::NetHandle::ask). Comes exactly once for each.
    Response {
        /// The asker's token.
        token: u64,
        /// Who was asked.
        from: Peer,
        /// The answer; none if the peer is gone, failed, timed out or sent what cannot be decoded.
        response: Option<Box<SyncResponse>>,
    },
    /// A peer of this network is connected and can be asked.
    PeerUp(Peer),
    /// It is gone.
    PeerDown(Peer),
    /// A peer that is up listens to a topic.
    Subscribed(Peer, Topic),
    /// Bytes of a blob that are verified and kept; sent at most a few times a second.
    BlobProgress {
        /// The blob.
        root: BlobRoot,
        /// Bytes kept so far.
        bytes: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A fetched blob is complete.
    BlobDone {
        /// The blob.
        root: BlobRoot,
    },
    /// A fetch ended for good: the blob contradicts its reference, or this node's storage failed.
    BlobFailed {
        /// The blob.
        root: BlobRoot,
        /// Why, for people.
        fact: String,
    },
    /// The node listens on an address (with its peer id at the end).
    Listening(String),
}

/// A connected peer, as people see it.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerInfo {
    /// Its name.
    pub peer: Peer,
    /// Address of its newest connection.
    pub address: String,
    /// Whether this node dialed it.
    pub outbound: bool,
    /// Newest round trip, in microseconds.
    pub round_trip_us: Option<u64>,
    /// Gossip score, in thousandths; below zero is bad.
    pub score_milli: i64,
    /// Strikes that have not expired.
    pub strikes: u32,
    /// Topics it listens to.
    pub topics: Vec<Topic>,
}

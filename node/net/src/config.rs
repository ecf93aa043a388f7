//! What the network needs to know before it starts.

use core::fmt;
use std::time::Duration;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use tiltyard_proto::keys::GenesisHash;
use tiltyard_proto::wire::{Peer, Topic};

use crate::error::NetError;
use crate::peers::{to_peer, to_peer_id};

/// Settings of one node's network.
#[derive(Clone)]
pub struct NetConfig {
    /// ed25519 seed of the libp2p identity.
    pub seed: [u8; 32],
    /// The network.
    pub genesis: GenesisHash,
    /// Addresses to listen on, as multiaddr text; port 0 lets the system choose.
    pub listen: Vec<String>,
    /// Peers to stay connected to.
    pub bootstrap: Vec<Target>,
    /// Topics to listen to; the others can still be published on.
    pub topics: Vec<Topic>,
    /// Largest block of this network, in bytes.
    pub block_bytes_max: usize,
    /// Bounds.
    pub limits: Limits,
}

impl fmt::Debug for NetConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetConfig")
            .field("genesis", &self.genesis)
            .field("listen", &self.listen)
            .field("bootstrap", &self.bootstrap)
            .field("topics", &self.topics)
            .field("block_bytes_max", &self.block_bytes_max)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// A peer to stay connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    peer: Option<Peer>,
    address: Multiaddr,
}

impl Target {
    /// Reads an address; a trailing `/p2p/<id>` names the peer that must answer there.
    ///
    /// # Errors
    /// [`NetError::Address`] when the text is no TCP multiaddr.
    pub fn parse(text: &str) -> Result<Self, NetError> {
        let mut address = parse_address(text)?;
        let peer = match address.iter().last() {
            Some(Protocol::P2p(id)) => {
                address.pop();
                Some(to_peer(&id))
            }
            Some(_) | None => None,
        };
        Ok(Self { peer, address })
    }

    /// Reads an address and requires `peer` to answer there.
    ///
    /// # Errors
    /// [`NetError::Address`] when the text is no TCP multiaddr, or names another peer.
    pub fn of_peer(peer: Peer, text: &str) -> Result<Self, NetError> {
        let target = Self::parse(text)?;
        if target.peer.as_ref().is_some_and(|named| *named != peer) || to_peer_id(&peer).is_none() {
            return Err(refused(text, "it names another peer, or the peer id is malformed"));
        }
        Ok(Self { peer: Some(peer), ..target })
    }

    /// Returns the peer that must answer, if one is named.
    #[must_use]
    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    pub(crate) fn peer_id(&self) -> Option<PeerId> {
        self.peer.as_ref().and_then(to_peer_id)
    }

    pub(crate) fn address(&self) -> &Multiaddr {
        &self.address
    }
}

/// Bounds of one node's network. Every queue and table has one; these are the ones worth setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most connections that others opened.
    pub inbound_max: u32,
    /// Most connections that this node opened.
    pub outbound_max: u32,
    /// New connections are refused while the process holds more memory than this, in bytes.
    pub memory_bytes_max: Option<usize>,
    /// First pause before dialing a lost peer again; doubles up to `redial_max`.
    pub redial_min: Duration,
    /// Longest pause before dialing a lost peer again.
    pub redial_max: Duration,
    /// A request without answer fails after this.
    pub request_timeout: Duration,
    /// A peer with this many strikes is banned. One strike expires a minute.
    pub strikes_max: u32,
    /// How long a ban lasts.
    pub ban: Duration,
    /// A blob stream must move `stall_bytes_min` in every such window.
    pub stall_window: Duration,
    /// See `stall_window`, in bytes.
    pub stall_bytes_min: u64,
    /// Longest pause before a peer is asked for a blob again; the first is a quarter of a second.
    pub blob_retry_max: Duration,
    /// Largest blob that is fetched, in bytes.
    pub blob_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            inbound_max: 96,
            outbound_max: 40,
            memory_bytes_max: None,
            redial_min: Duration::from_millis(500),
            redial_max: Duration::from_secs(30),
            request_timeout: Duration::from_secs(10),
            strikes_max: 16,
            ban: Duration::from_secs(600),
            stall_window: Duration::from_secs(30),
            stall_bytes_min: 30 * 64 * 1024,
            blob_retry_max: Duration::from_secs(2),
            blob_bytes_max: 64 << 30,
        }
    }
}

pub(crate) fn parse_address(text: &str) -> Result<Multiaddr, NetError> {
    let address: Multiaddr = text.parse().map_err(|error| refused(text, &format!("{error}")))?;
    let mut parts = address.iter();
    let host = matches!(parts.next(), Some(Protocol::Ip4(_) | Protocol::Ip6(_)));
    let port = matches!(parts.next(), Some(Protocol::Tcp(_)));
    let rest = matches!(parts.next(), None | Some(Protocol::P2p(_))) && parts.next().is_none();
    if host && port && rest {
        Ok(address)
    } else {
        Err(refused(text, "only /ip4/…/tcp/… and /ip6/…/tcp/…, with or without /p2p/…, are spoken"))
    }
}

fn refused(text: &str, fact: &str) -> NetError {
    NetError::Address { address: text.chars().take(128).collect(), fact: fact.to_owned() }
}

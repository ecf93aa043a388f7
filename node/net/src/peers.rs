//! Names of peers: libp2p's peer ids and their bytes and text.

use libp2p::PeerId;
use libp2p::identity::Keypair;
use tiltyard_proto::wire::Peer;

use crate::error::{NetError, PeerTextError};

/// Returns the peer whose libp2p identity has this ed25519 seed.
///
/// # Errors
/// [`NetError::Identity`] when the seed is unusable.
pub fn peer_of_seed(seed: &[u8; 32]) -> Result<Peer, NetError> {
    Ok(to_peer(&keypair(seed)?.public().to_peer_id()))
}

/// Returns the usual text of a peer id (`12D3Koo…`), or hex when the bytes are no peer id.
#[must_use]
pub fn peer_text(peer: &Peer) -> String {
    to_peer_id(peer).map_or_else(
        || peer.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect(),
        |id| id.to_base58(),
    )
}

/// Reads the usual text of a peer id.
///
/// # Errors
/// [`PeerTextError`] when the text is none.
pub fn peer_from_text(text: &str) -> Result<Peer, PeerTextError> {
    text.parse::<PeerId>()
        .map(|id| to_peer(&id))
        .map_err(|_| PeerTextError { text: text.chars().take(80).collect() })
}

pub(crate) fn keypair(seed: &[u8; 32]) -> Result<Keypair, NetError> {
    Keypair::ed25519_from_bytes(*seed).map_err(|error| NetError::Identity { fact: error.to_string() })
}

pub(crate) fn to_peer(id: &PeerId) -> Peer {
    Peer::new(id.to_bytes())
}

pub(crate) fn to_peer_id(peer: &Peer) -> Option<PeerId> {
    PeerId::from_bytes(peer.as_bytes()).ok()
}

//! Domain-separated BLAKE3. Every context string of the protocol is listed here and in SPEC.md.

use serde::Serialize;

use crate::codec;

/// Context strings for BLAKE3's key-derivation mode.
pub mod context {
    /// Genesis document → genesis hash.
    pub const GENESIS: &str = "tiltyard/genesis/v1";
    /// Signed transaction bytes → transaction id.
    pub const TRANSACTION: &str = "tiltyard/transaction/v1";
    /// Header → block hash.
    pub const HEADER: &str = "tiltyard/header/v1";
    /// Commit certificate → certificate hash.
    pub const CERTIFICATE: &str = "tiltyard/certificate/v1";
    /// Validator set → validators hash.
    pub const VALIDATORS: &str = "tiltyard/validators/v1";
    /// Parameters → params hash.
    pub const PARAMS: &str = "tiltyard/params/v1";
    /// Recipe → recipe hash.
    pub const RECIPE: &str = "tiltyard/recipe/v1";
    /// A miner's checkpoint commitment.
    pub const COMMIT: &str = "tiltyard/commit/v1";
    /// A validator's score commitment.
    pub const SCORE: &str = "tiltyard/score/v1";
    /// Evaluation key → its commitment.
    pub const SEAL_KEY: &str = "tiltyard/seal-key/v1";
    /// Order among commits of one height.
    pub const PRIORITY: &str = "tiltyard/priority/v1";
    /// Proof-of-work stamp of an entrant without bond.
    pub const STAMP: &str = "tiltyard/stamp/v1";
    /// Seed of the proposer draw.
    pub const PROPOSER: &str = "tiltyard/proposer/v1";
    /// Leaf of a binary Merkle tree.
    pub const MERKLE_LEAF: &str = "tiltyard/merkle-leaf/v1";
    /// Inner node of a binary Merkle tree.
    pub const MERKLE_NODE: &str = "tiltyard/merkle-node/v1";
    /// Number of leaves and top node → root of a binary Merkle tree.
    pub const MERKLE_ROOT: &str = "tiltyard/merkle-root/v1";
    /// Key and plaintext → nonce prefix of a sealed evaluation set.
    pub const SEAL_NONCE: &str = "tiltyard/seal-nonce/v1";
    /// Training seed of a (task, miner) pair.
    pub const TRAINING_SEED: &str = "tiltyard/training-seed/v1";
    /// Gossip message ids.
    pub const GOSSIP: &str = "tiltyard/gossip/v1";
}

/// Hashes `parts` one after another under `context`.
///
/// The parts are not length-prefixed: callers give fixed-length parts, or one variable part at the end.
#[must_use]
pub fn derive(context: &'static str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// Hashes the canonical bytes of `value` under `context`.
#[must_use]
pub fn of<T: Serialize>(context: &'static str, value: &T) -> [u8; 32] {
    derive(context, &[&codec::encode(value)])
}

/// Hashes plain bytes: files, manifests, state keys and state values.
#[must_use]
pub fn plain(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

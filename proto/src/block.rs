//! Blocks: a header that names everything, and a body that carries it.

use serde::{Deserialize, Serialize};
use tiltyard_keys::{GenesisHash, PublicKey};

use crate::certificate::Certificate;
use crate::codec::{self, CodecError};
use crate::hash::{self, context};
use crate::ids::{BlockHash, CertificateHash, MerkleRoot, ParamsHash, StateRoot, ValidatorsHash};
use crate::limits::BLOCK_BYTES_HARD_MAX;
use crate::merkle;
use crate::transaction::SignedTransaction;
use crate::units::{Height, UnixMillis};

/// Names a block's content and what it leads to. Carries no round: a re-proposed block keeps its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of this form: 1.
    pub version: u16,
    /// The network.
    pub genesis: GenesisHash,
    /// Height, from 1.
    pub height: Height,
    /// When it was built, by its builder's clock; larger than the parent's.
    pub time: UnixMillis,
    /// The parent; the genesis hash at height 1.
    pub parent: BlockHash,
    /// Hash of the parent's certificate in the body; all zero at height 1.
    pub parent_certificate: CertificateHash,
    /// Who built it.
    pub builder: PublicKey,
    /// Root over the signed transactions' bytes.
    pub tx_root: MerkleRoot,
    /// State after this block.
    pub state_root: StateRoot,
    /// The set that decides this block.
    pub validators_hash: ValidatorsHash,
    /// The set that decides the next block.
    pub next_validators_hash: ValidatorsHash,
    /// Parameters in force in this block.
    pub params_hash: ParamsHash,
}

impl Header {
    /// Version of this form.
    pub const VERSION: u16 = 1;

    /// Returns the block's name.
    #[must_use]
    pub fn hash(&self) -> BlockHash {
        BlockHash::from_bytes(hash::of(context::HEADER, self))
    }
}

/// What a block carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// Certificate of the parent, as the builder chose it; none at height 1.
    pub parent_certificate: Option<Certificate>,
    /// Transactions, in the order they are applied.
    pub transactions: Vec<SignedTransaction>,
}

impl Body {
    /// Returns the root over the transactions.
    #[must_use]
    pub fn tx_root(&self) -> MerkleRoot {
        merkle::root(self.transactions.iter().map(SignedTransaction::encode))
    }

    /// Returns what the header must carry for the parent's certificate.
    #[must_use]
    pub fn parent_certificate_hash(&self) -> CertificateHash {
        self.parent_certificate.as_ref().map_or(CertificateHash::from_bytes([0; 32]), Certificate::hash)
    }
}

/// Header and body, not yet judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Names it.
    pub header: Header,
    /// Carries it.
    pub body: Body,
}

impl Block {
    /// Decodes a block of at most `max` bytes (never more than 1 MiB).
    ///
    /// # Errors
    /// [`CodecError`] when the bytes are too many or no canonical block.
    pub fn decode(bytes: &[u8], max: usize) -> Result<Self, CodecError> {
        codec::decode("block", bytes, max.min(BLOCK_BYTES_HARD_MAX))
    }

    /// Returns the canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Returns the block's name.
    #[must_use]
    pub fn hash(&self) -> BlockHash {
        self.header.hash()
    }
}

/// A block with the certificate that decided it; not yet verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecidedBlock {
    /// The block.
    pub block: Block,
    /// What decided it.
    pub certificate: Certificate,
}

//! Why a receipt is refused.

use tiltyard_keys::GenesisHash;

use crate::certificate::CertificateError;
use crate::codec::CodecError;
use crate::genesis::GenesisError;
use crate::ids::{BlockHash, ValidatorsHash};
use crate::light::LightError;
use crate::state_proof::StateProofError;
use crate::transaction::TransactionError;
use crate::units::Height;

/// Says why a receipt is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Not the canonical bytes of a receipt, or of what it carries.
    #[error("receipt: {0}")]
    Codec(#[from] CodecError),
    /// A version this program does not know.
    #[error("receipt has version {version}, this program knows 1; upgrade it")]
    Version {
        /// The version given.
        version: u16,
    },
    /// Of another network than the one trusted.
    #[error("receipt is of network {theirs}, trusted is {ours}; get the genesis of its network")]
    ForeignNetwork {
        /// Network of the receipt.
        theirs: GenesisHash,
        /// Network trusted.
        ours: GenesisHash,
    },
    /// Only the genesis hash was given, and the receipt does not carry the document.
    #[error("receipt does not carry the genesis document; give the document itself")]
    NoGenesis,
    /// The genesis document is refused.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// A set change out of order, or that changes nothing.
    #[error(
        "receipt's set change at height {height} is out of order or changes nothing; get the receipt again"
    )]
    ChangeOrder {
        /// Its height.
        height: Height,
    },
    /// A header decided by another set than the one that follows from genesis.
    #[error("header {height} names the set {named}, the receipt leads to {known}; get the receipt again")]
    Set {
        /// Height of the header.
        height: Height,
        /// Hash in the header.
        named: ValidatorsHash,
        /// Hash of the set given or proven so far.
        known: ValidatorsHash,
    },
    /// A header of another form, or that its certificate does not decide.
    #[error(transparent)]
    Header(#[from] LightError),
    /// A certificate that does not hold.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The state proof does not hold.
    #[error(transparent)]
    State(#[from] StateProofError),
    /// The transaction's path does not lead to the header.
    #[error("transaction path does not lead to block {height}; get the receipt again")]
    Path {
        /// Height of the header.
        height: Height,
    },
    /// The transaction inside is refused.
    #[error(transparent)]
    Transaction(#[from] TransactionError),
    /// Another header than the one trusted.
    #[error("receipt is of block {theirs}, trusted is {ours}; follow the chain to the receipt's height")]
    OtherHeader {
        /// Block of the receipt.
        theirs: BlockHash,
        /// Block trusted.
        ours: BlockHash,
    },
}

//! Transactions: what a key may ask of the ledger, signed.

mod action;

use serde::{Deserialize, Serialize};
use tiltyard_keys::{GenesisHash, KeyError, PublicKey, Signature, SignatureError, Signer, Verifier};

pub use action::Action;

use crate::codec::{self, CodecError};
use crate::hash::{context, derive};
use crate::ids::TransactionId;
use crate::limits::TRANSACTION_BYTES_MAX;
use crate::units::{Height, MicroCredits, Nonce};

/// What is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// Version of this form: 1.
    pub version: u16,
    /// The network.
    pub genesis: GenesisHash,
    /// Who asks and pays.
    pub sender: PublicKey,
    /// Number of the sender's transactions so far.
    pub nonce: Nonce,
    /// What the sender pays; burned.
    pub fee: MicroCredits,
    /// Last height at which it may be included.
    pub valid_until: Height,
    /// What is asked.
    pub action: Action,
}

impl Transaction {
    /// Version of this form.
    pub const VERSION: u16 = 1;

    /// Returns the id: hash of the canonical bytes.
    #[must_use]
    pub fn id(&self) -> TransactionId {
        id_of(&codec::encode(self))
    }

    /// Signs the transaction.
    #[must_use]
    pub fn sign(self, signer: &Signer) -> VerifiedTransaction {
        let bytes = codec::encode(&self);
        let signature = signer.sign_transaction(&bytes);
        VerifiedTransaction { id: id_of(&bytes), signed: SignedTransaction { transaction: self, signature } }
    }
}

/// What the signature adds to a transaction: map head, two field numbers, byte-string head and 64 bytes.
const ENVELOPE_BYTES: usize = 69;

fn id_of(bytes: &[u8]) -> TransactionId {
    TransactionId::from_bytes(derive(context::TRANSACTION, &[bytes]))
}

/// A transaction with its signature, not yet verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedTransaction {
    /// What is signed.
    pub transaction: Transaction,
    /// The sender's signature over the canonical bytes of `transaction`.
    pub signature: Signature,
}

/// Says why a transaction is refused before the ledger sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    /// Not the canonical bytes of a transaction.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A version this program does not know.
    #[error("transaction has version {version}, this program knows 1; upgrade it")]
    Version {
        /// The version given.
        version: u16,
    },
    /// Made for another network.
    #[error("transaction is of network {theirs}, this is {ours}; sign it again for this network")]
    ForeignNetwork {
        /// Genesis hash in the transaction.
        theirs: GenesisHash,
        /// Genesis hash of this network.
        ours: GenesisHash,
    },
    /// Longer than a transaction may be.
    #[error("transaction has {bytes} bytes, at most 16384 are allowed; shorten it")]
    TooLong {
        /// Bytes of the signed transaction.
        bytes: usize,
    },
    /// Sender key or signature that is refused.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// A key inside the action that is refused.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl SignedTransaction {
    /// Decodes one transaction from canonical bytes; does not verify.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes are no canonical transaction.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode("transaction", bytes, TRANSACTION_BYTES_MAX)
    }

    /// Returns the canonical bytes, signature included.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Returns the length of [`Self::encode`], in bytes.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        codec::encoded_len(self)
    }

    /// Checks version, network, size, receiver keys and signature.
    ///
    /// # Errors
    /// [`TransactionError`] naming the first rule broken.
    pub fn verify(self, verifier: &Verifier) -> Result<VerifiedTransaction, TransactionError> {
        let transaction = &self.transaction;
        if transaction.version != Transaction::VERSION {
            return Err(TransactionError::Version { version: transaction.version });
        }
        if transaction.genesis != verifier.genesis() {
            return Err(TransactionError::ForeignNetwork {
                theirs: transaction.genesis,
                ours: verifier.genesis(),
            });
        }
        transaction.action.check_keys()?;
        let bytes = codec::encode(transaction);
        let length = bytes.len().saturating_add(ENVELOPE_BYTES);
        if length > TRANSACTION_BYTES_MAX {
            return Err(TransactionError::TooLong { bytes: length });
        }
        verifier.verify_transaction(&transaction.sender, &bytes, &self.signature)?;
        Ok(VerifiedTransaction { id: id_of(&bytes), signed: self })
    }
}

/// A transaction whose signature and network were checked. Made only by verifying or by signing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedTransaction {
    id: TransactionId,
    signed: SignedTransaction,
}

impl VerifiedTransaction {
    /// Returns the id.
    #[must_use]
    pub const fn id(&self) -> TransactionId {
        self.id
    }

    /// Returns what was signed.
    #[must_use]
    pub const fn transaction(&self) -> &Transaction {
        &self.signed.transaction
    }

    /// Returns transaction and signature.
    #[must_use]
    pub const fn signed(&self) -> &SignedTransaction {
        &self.signed
    }

    /// Returns transaction and signature by value.
    #[must_use]
    pub fn into_signed(self) -> SignedTransaction {
        self.signed
    }
}

//! Receipts: portable proofs of one ledger entry, verified offline (SPEC.md §10).
//!
//! A receipt is one file of canonical bytes: the entry, its path, the header, the certificate, and the changes of the
//! validator set since genesis. Everything in it is bound by a hash or a signature, so one changed byte is refused.
//! Verifying reads no clock: a receipt proves what the sets named since genesis decided, not that it is recent; keys of
//! sets long gone could sign another history, so whoever needs recency holds the header against a light client's
//! ([`Receipt::verify_entry`]).

mod error;
mod fact;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use tiltyard_keys::{GenesisHash, Verifier};

pub use error::ReceiptError;
pub use fact::Fact;

use crate::block::Header;
use crate::certificate::Certificate;
use crate::codec::{self, CodecError};
use crate::genesis::{Genesis, GenesisError};
use crate::ids::BlockHash;
use crate::light::{LightError, decides};
use crate::limits::{RECEIPT_BYTES_MAX, TRANSACTION_BYTES_MAX};
use crate::merkle::MerklePath;
use crate::state::StateKey;
use crate::state_proof::StateProof;
use crate::transaction::SignedTransaction;
use crate::units::{Height, Stake, UnixMillis};
use crate::validators::ValidatorSet;

/// What a receipt proves, with its path to the header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A state entry after the header's block, or its absence.
    State {
        /// Its key.
        key: StateKey,
        /// Canonical bytes of its value; none for absence.
        value: Option<ByteBuf>,
        /// Path to the header's state root.
        proof: StateProof,
    },
    /// A transaction in the header's block.
    Transaction {
        /// Canonical bytes, signature included.
        bytes: ByteBuf,
        /// Path to the header's transaction root.
        path: MerklePath,
    },
}

/// One change of the validator set: a decided header that names another set for the next height.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetChange {
    /// The header.
    pub header: Header,
    /// What decided it, by the set before.
    pub certificate: Certificate,
    /// The set from the next height on.
    pub next_set: ValidatorSet,
}

/// A portable proof of one ledger entry, not yet verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Version of this form: 1.
    pub version: u16,
    /// The network.
    pub genesis: GenesisHash,
    /// Canonical bytes of the genesis document, so that its hash alone is enough to verify.
    pub genesis_bytes: Option<ByteBuf>,
    /// Changes of the validator set from genesis to the header, by height.
    pub changes: Vec<SetChange>,
    /// The header that the entry's path leads to.
    pub header: Header,
    /// What decided it.
    pub certificate: Certificate,
    /// The entry.
    pub entry: Entry,
}

/// What a verified receipt says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// The network.
    pub genesis: GenesisHash,
    /// Height of the block.
    pub height: Height,
    /// Time of the block, by its builder's clock.
    pub time: UnixMillis,
    /// The block.
    pub block: BlockHash,
    /// Stake that signed it.
    pub signed: Stake,
    /// Stake that could have signed it.
    pub total: Stake,
    /// The proven fact.
    pub fact: Fact,
}

impl Receipt {
    /// Version of this form.
    pub const VERSION: u16 = 1;

    /// Reads receipt bytes; does not verify.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes are too many or no canonical receipt.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode("receipt", bytes, RECEIPT_BYTES_MAX)
    }

    /// Returns the canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Verifies everything from a genesis document that the caller trusts.
    ///
    /// # Errors
    /// [`ReceiptError`] naming the first thing that does not hold.
    pub fn verify(&self, genesis: &Genesis) -> Result<Checked, ReceiptError> {
        genesis.check()?;
        let ours = genesis.hash();
        if self.version != Self::VERSION {
            return Err(ReceiptError::Version { version: self.version });
        }
        if self.genesis != ours {
            return Err(ReceiptError::ForeignNetwork { theirs: self.genesis, ours });
        }
        if let Some(bytes) = &self.genesis_bytes {
            let found = Genesis::decode(bytes)?.hash();
            if found != ours {
                return Err(GenesisError::Foreign { found, trusted: ours }.into());
            }
        }
        let first = genesis.validator_set().map_err(GenesisError::Validators)?;
        let set = self.follow_changes(first)?;
        let signed = self.check_decided(&self.header, &self.certificate, &set)?;
        let fact = self.prove()?;
        Ok(Checked {
            genesis: ours,
            height: self.header.height,
            time: self.header.time,
            block: self.header.hash(),
            signed,
            total: set.total(),
            fact,
        })
    }

    /// Verifies everything from a genesis hash alone, by the document that the receipt carries.
    ///
    /// # Errors
    /// [`ReceiptError::NoGenesis`] without the document, else as [`Receipt::verify`].
    pub fn verify_from_hash(&self, trusted: &GenesisHash) -> Result<Checked, ReceiptError> {
        let bytes = self.genesis_bytes.as_ref().ok_or(ReceiptError::NoGenesis)?;
        let genesis = Genesis::decode(bytes)?;
        let found = genesis.hash();
        if found != *trusted {
            return Err(GenesisError::Foreign { found, trusted: *trusted }.into());
        }
        self.verify(&genesis)
    }

    /// Verifies the entry alone against a header that a light client already trusts.
    ///
    /// # Errors
    /// [`ReceiptError::OtherHeader`] when the receipt is of another block, else what of the entry does not hold.
    pub fn verify_entry(&self, trusted: &Header) -> Result<Fact, ReceiptError> {
        let (theirs, ours) = (self.header.hash(), trusted.hash());
        if theirs != ours {
            return Err(ReceiptError::OtherHeader { theirs, ours });
        }
        self.prove()
    }

    fn follow_changes(&self, first: ValidatorSet) -> Result<ValidatorSet, ReceiptError> {
        let mut set = first;
        let mut last = Height::ZERO;
        for change in &self.changes {
            let height = change.header.height;
            let named = change.header.next_validators_hash;
            if height <= last || named == change.header.validators_hash {
                return Err(ReceiptError::ChangeOrder { height });
            }
            self.check_decided(&change.header, &change.certificate, &set)?;
            let known = change.next_set.hash();
            if named != known {
                return Err(ReceiptError::Set { height, named, known });
            }
            set = change.next_set.clone();
            last = height;
        }
        if self.header.height <= last {
            return Err(ReceiptError::ChangeOrder { height: last });
        }
        Ok(set)
    }

    fn check_decided(
        &self,
        header: &Header,
        certificate: &Certificate,
        set: &ValidatorSet,
    ) -> Result<Stake, ReceiptError> {
        let height = header.height;
        if header.version != Header::VERSION || header.genesis != self.genesis {
            return Err(LightError::Foreign {
                height,
                version: header.version,
                theirs: header.genesis,
                ours: self.genesis,
            }
            .into());
        }
        let known = set.hash();
        if header.validators_hash != known {
            return Err(ReceiptError::Set { height, named: header.validators_hash, known });
        }
        decides(certificate, header)?;
        Ok(certificate.verify(&Verifier::new(self.genesis), set)?)
    }

    fn prove(&self) -> Result<Fact, ReceiptError> {
        match &self.entry {
            Entry::State { key, value, proof } => {
                let value = value.as_ref().map(|value| value.as_slice());
                proof.verify(&self.header.state_root, &key.to_bytes(), value)?;
                value.map_or(Ok(Fact::Absent { key: *key }), |value| Ok(Fact::of_state(*key, value)?))
            }
            Entry::Transaction { bytes, path } => {
                if path.root_from(bytes) != Some(self.header.tx_root) {
                    return Err(ReceiptError::Path { height: self.header.height });
                }
                let signed: SignedTransaction = codec::decode("transaction", bytes, TRANSACTION_BYTES_MAX)?;
                let verified = signed.verify(&Verifier::new(self.genesis))?;
                let id = verified.id();
                Ok(Fact::Transaction { id, transaction: Box::new(verified.into_signed().transaction) })
            }
        }
    }
}

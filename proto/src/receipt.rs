//! Receipts: portable proofs of one ledger entry, verified offline (SPEC.md §10).
//!
//! A receipt is one file of canonical bytes: the entry, its path, the header, the certificate, and the changes of the
//! validator set since genesis. Everything in it is bound by a hash or a signature, so one changed byte is refused.
//! Verifying reads no clock: a receipt proves what the sets named since genesis decided, not that it is recent; keys of
//! sets long gone could sign another history, so whoever needs recency holds the header against a light client's
//! ([`Receipt::verify_entry`]).

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use tiltyard_keys::{GenesisHash, PublicKey, Verifier};

use crate::block::Header;
use crate::certificate::{Certificate, CertificateError};
use crate::codec::{self, CodecError};
use crate::genesis::{Genesis, GenesisError, Params};
use crate::ids::{BlockHash, TaskId, TransactionId, ValidatorsHash};
use crate::light::{LightError, decides};
use crate::limits::{RECEIPT_BYTES_MAX, STATE_VALUE_BYTES_MAX, TRANSACTION_BYTES_MAX};
use crate::merkle::MerklePath;
use crate::state::{Account, EntrantVerdict, StateKey, TaskRecord, ValidatorRecord, Verdict};
use crate::state_proof::{StateProof, StateProofError};
use crate::transaction::{SignedTransaction, Transaction, TransactionError};
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

/// A proven fact, typed by the entry it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Fact {
    /// Balance and nonce of a key.
    Account {
        /// The key.
        key: PublicKey,
        /// The account.
        account: Account,
    },
    /// A validator's record.
    Validator {
        /// The key.
        key: PublicKey,
        /// The record.
        record: Box<ValidatorRecord>,
    },
    /// Parameters in force.
    Params(Box<Params>),
    /// A task as posted and how far it is.
    Task {
        /// The task.
        task: TaskId,
        /// Its record.
        record: Box<TaskRecord>,
    },
    /// Outcome of a task.
    Verdict {
        /// The task.
        task: TaskId,
        /// The outcome.
        verdict: Box<Verdict>,
    },
    /// Outcome for one entrant.
    EntrantVerdict {
        /// The task.
        task: TaskId,
        /// The outcome.
        verdict: Box<EntrantVerdict>,
    },
    /// Another state entry, by its bytes.
    Other {
        /// Its key.
        key: StateKey,
        /// Canonical bytes of its value.
        value: ByteBuf,
    },
    /// The state has no such entry.
    Absent {
        /// The key.
        key: StateKey,
    },
    /// A transaction in the block; says nothing of whether its action took effect.
    Transaction {
        /// Its id.
        id: TransactionId,
        /// What was signed.
        transaction: Box<Transaction>,
    },
}

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
    #[error("receipt's set change at height {height} is out of order or changes nothing; get the receipt again")]
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
                let signed: SignedTransaction =
                    codec::decode("transaction", bytes, TRANSACTION_BYTES_MAX)?;
                let verified = signed.verify(&Verifier::new(self.genesis))?;
                let id = verified.id();
                Ok(Fact::Transaction { id, transaction: Box::new(verified.into_signed().transaction) })
            }
        }
    }
}

impl Fact {
    /// Reads a proven state value by the type that its key names.
    ///
    /// # Errors
    /// [`CodecError`] when the bytes are not the canonical bytes of that type.
    pub fn of_state(key: StateKey, value: &[u8]) -> Result<Self, CodecError> {
        let max = STATE_VALUE_BYTES_MAX;
        Ok(match key {
            StateKey::Account(key) => {
                Self::Account { key, account: codec::decode("account", value, max)? }
            }
            StateKey::Validator(key) => {
                Self::Validator { key, record: codec::decode("validator record", value, max)? }
            }
            StateKey::Params => Self::Params(codec::decode("parameters", value, max)?),
            StateKey::Task(task) => {
                Self::Task { task, record: codec::decode("task record", value, max)? }
            }
            StateKey::Verdict(task) => {
                Self::Verdict { task, verdict: codec::decode("verdict", value, max)? }
            }
            StateKey::EntrantVerdict(task, _) => {
                Self::EntrantVerdict { task, verdict: codec::decode("entrant verdict", value, max)? }
            }
            StateKey::ValidatorIndex
            | StateKey::Totals
            | StateKey::Set(_)
            | StateKey::LiveTasks
            | StateKey::PhaseQueue(_)
            | StateKey::PhaseCarry
            | StateKey::Entrant(..)
            | StateKey::Committee(_)
            | StateKey::Judge(..)
            | StateKey::OpenedRow(..)
            | StateKey::Punished(..)
            | StateKey::Attendance(_) => {
                Self::Other { key, value: ByteBuf::from(value.to_vec()) }
            }
        })
    }
}

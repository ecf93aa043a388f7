//! Transactions: what a key may ask of the ledger, signed.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use tiltyard_keys::{GenesisHash, KeyError, PublicKey, Signature, SignatureError, Signer, Verifier};

use crate::codec::{self, CodecError};
use crate::evidence::Evidence;
use crate::hash::{context, derive};
use crate::ids::{Commitment, MerkleRoot, Salt, ScoreCommitment, SealKey, TaskId, TransactionId};
use crate::limits::TRANSACTION_BYTES_MAX;
use crate::merkle::MerklePath;
use crate::task::TaskSpec;
use crate::units::{Height, MicroCredits, Nonce, Stake};

/// What is asked. The order of the variants is part of the encoding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Moves credits.
    Transfer {
        /// Receiver.
        to: PublicKey,
        /// Amount.
        amount: MicroCredits,
    },
    /// Draws test credits; only where genesis has a faucet.
    Faucet {
        /// Receiver.
        to: PublicKey,
    },
    /// Posts a task and escrows its pot.
    Post(Box<TaskSpec>),
    /// Withdraws a task that has not opened yet.
    Cancel {
        /// The task.
        task: TaskId,
    },
    /// A validator says that it holds base, data and ciphertext and can judge the task.
    Accept {
        /// The task.
        task: TaskId,
    },
    /// A miner commits to a checkpoint and locks a bond.
    Commit {
        /// The task.
        task: TaskId,
        /// Hides the checkpoint.
        commitment: Commitment,
        /// Amount locked; 0 with a stamp, or for a reference entrant.
        bond: MicroCredits,
        /// Proof of work of an entrant without bond.
        stamp: Option<u64>,
        /// Enters the reference recipe, unpaid.
        reference: bool,
    },
    /// A miner opens its commit.
    Reveal {
        /// The task.
        task: TaskId,
        /// Canonical manifest bytes, ≤ 4 KiB.
        manifest: ByteBuf,
        /// Salt of the commitment.
        salt: Salt,
        /// Canonical recipe bytes, ≤ 1 KiB.
        recipe: ByteBuf,
    },
    /// A committee member says whose bytes it holds; several union.
    Held {
        /// The task.
        task: TaskId,
        /// Bit `i % 8` (from the lowest) of byte `i / 8` for the `i`-th revealed entrant by miner key.
        entrants: ByteBuf,
    },
    /// Anyone opens the evaluation key.
    OpenKey {
        /// The task.
        task: TaskId,
        /// The key.
        key: SealKey,
    },
    /// A committee member commits to its score rows.
    ScoreCommit {
        /// The task.
        task: TaskId,
        /// Hides the rows.
        root: ScoreCommitment,
    },
    /// A committee member opens one score row.
    ScoreOpen {
        /// The task.
        task: TaskId,
        /// Row: 0 is the untouched base, `i + 1` the `i`-th standing entrant by miner key.
        row: u32,
        /// Row bytes.
        bytes: ByteBuf,
        /// Path of the row in the tree of rows.
        path: MerklePath,
        /// Root of the tree of rows.
        rows_root: MerkleRoot,
        /// Salt of the commitment.
        salt: Salt,
    },
    /// Bonds stake to the sender's own validator record, which it creates if needed.
    Bond {
        /// Whole credits.
        stake: Stake,
    },
    /// Starts to release stake; it returns after the unbonding delay.
    Unbond {
        /// Whole credits.
        stake: Stake,
    },
    /// Returns a jailed validator to the set at the next epoch.
    Unjail,
    /// Publishes where a validator can be reached and who may receive its pay.
    SetValidator {
        /// Peer id, in its multihash bytes.
        peer: ByteBuf,
        /// Multiaddresses, as text.
        addresses: Vec<String>,
        /// Account that receives the judge's pay.
        payout: PublicKey,
    },
    /// Proves that a validator signed two things where it may sign one.
    Evidence(Box<Evidence>),
}

impl Action {
    /// Returns the action's name, for people and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Transfer { .. } => "transfer",
            Self::Faucet { .. } => "faucet",
            Self::Post(_) => "post",
            Self::Cancel { .. } => "cancel",
            Self::Accept { .. } => "accept",
            Self::Commit { .. } => "commit",
            Self::Reveal { .. } => "reveal",
            Self::Held { .. } => "held",
            Self::OpenKey { .. } => "open-key",
            Self::ScoreCommit { .. } => "score-commit",
            Self::ScoreOpen { .. } => "score-open",
            Self::Bond { .. } => "bond",
            Self::Unbond { .. } => "unbond",
            Self::Unjail => "unjail",
            Self::SetValidator { .. } => "set-validator",
            Self::Evidence(_) => "evidence",
        }
    }

    /// Returns the gossip topic that fits the action's audience.
    #[must_use]
    pub const fn topic(&self) -> crate::wire::Topic {
        match self {
            Self::Post(_) | Self::Cancel { .. } | Self::Accept { .. } => crate::wire::Topic::Tasks,
            Self::Commit { .. } | Self::Reveal { .. } => crate::wire::Topic::Checkpoints,
            Self::Transfer { .. }
            | Self::Faucet { .. }
            | Self::Held { .. }
            | Self::OpenKey { .. }
            | Self::ScoreCommit { .. }
            | Self::ScoreOpen { .. }
            | Self::Bond { .. }
            | Self::Unbond { .. }
            | Self::Unjail
            | Self::SetValidator { .. }
            | Self::Evidence(_) => crate::wire::Topic::Transactions,
        }
    }
}

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
        VerifiedTransaction {
            id: id_of(&bytes),
            signed: SignedTransaction { transaction: self, signature },
        }
    }
}

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
        match &transaction.action {
            Action::Transfer { to, .. } | Action::Faucet { to } => to.validate()?,
            Action::SetValidator { payout, .. } => payout.validate()?,
            Action::Post(_)
            | Action::Cancel { .. }
            | Action::Accept { .. }
            | Action::Commit { .. }
            | Action::Reveal { .. }
            | Action::Held { .. }
            | Action::OpenKey { .. }
            | Action::ScoreCommit { .. }
            | Action::ScoreOpen { .. }
            | Action::Bond { .. }
            | Action::Unbond { .. }
            | Action::Unjail
            | Action::Evidence(_) => {}
        }
        let bytes = codec::encode(transaction);
        let length = bytes.len().saturating_add(Signature::LEN);
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

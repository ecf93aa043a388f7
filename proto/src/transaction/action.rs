//! What a transaction asks.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use tiltyard_keys::{KeyError, PublicKey};

use crate::evidence::Evidence;
use crate::ids::{Commitment, MerkleRoot, Salt, ScoreCommitment, SealKey, TaskId};
use crate::merkle::MerklePath;
use crate::task::TaskSpec;
use crate::units::{MicroCredits, Stake};
use crate::wire::Topic;

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
    /// Publishes where a validator can be reached and who may receive its pay; another payout account than before takes
    /// over after the unbonding delay.
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
    /// Sent by a validator's payout key: stops a change of the payout account, and may start to release all stake.
    Revoke {
        /// The validator.
        validator: PublicKey,
        /// Whether all bonded stake starts to leave.
        unbond: bool,
    },
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
            Self::Revoke { .. } => "revoke",
        }
    }

    /// Returns the gossip topic that fits the action's audience.
    #[must_use]
    pub const fn topic(&self) -> Topic {
        match self {
            Self::Post(_) | Self::Cancel { .. } | Self::Accept { .. } => Topic::Tasks,
            Self::Commit { .. } | Self::Reveal { .. } => Topic::Checkpoints,
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
            | Self::Evidence(_)
            | Self::Revoke { .. } => Topic::Transactions,
        }
    }

    /// Checks the keys that the action names, other than the sender's.
    pub(super) fn check_keys(&self) -> Result<(), KeyError> {
        match self {
            Self::Transfer { to, .. } | Self::Faucet { to } => to.validate(),
            Self::SetValidator { payout, .. } => payout.validate(),
            Self::Post(_)
            | Self::Cancel { .. }
            | Self::Accept { .. }
            | Self::Commit { .. }
            | Self::Reveal { .. }
            | Self::Held { .. }
            | Self::OpenKey { .. }
            | Self::ScoreCommit { .. }
            | Self::ScoreOpen { .. }
            | Self::Bond { .. }
            | Self::Unbond { .. }
            | Self::Unjail
            | Self::Evidence(_)
            | Self::Revoke { .. } => Ok(()),
        }
    }
}

//! What a block did, for logs, clients and the machine. Not part of the state: everything that counts is in the state.

use tiltyard_keys::PublicKey;
use tiltyard_proto::ids::TaskId;
use tiltyard_proto::state::Phase;
use tiltyard_proto::units::{Height, MicroCredits};

/// Something that a block did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerEvent {
    /// A task entered a phase; `Accepting` when it was posted, `Settled` or `Refunded` when it ended.
    TaskPhase {
        /// The task.
        task: TaskId,
        /// Where it is now.
        phase: Phase,
    },
    /// A miner committed, or replaced its commit.
    Committed {
        /// The task.
        task: TaskId,
        /// The miner.
        miner: PublicKey,
    },
    /// A higher bond took an entrant's place; its own bond was returned.
    Evicted {
        /// The task.
        task: TaskId,
        /// Who lost the place.
        miner: PublicKey,
        /// Who took it.
        by: PublicKey,
    },
    /// A miner opened its commit.
    Revealed {
        /// The task.
        task: TaskId,
        /// The miner.
        miner: PublicKey,
    },
    /// The evaluation key is on the ledger.
    KeyOpened {
        /// The task.
        task: TaskId,
    },
    /// A validator missed too many blocks.
    Jailed {
        /// The validator.
        validator: PublicKey,
        /// First height at which it may unjail.
        until: Height,
    },
    /// A validator signed two things where it may sign one.
    Slashed {
        /// The validator.
        validator: PublicKey,
        /// Height of the offence.
        height: Height,
        /// Stake burned.
        burned: MicroCredits,
    },
    /// The set of an epoch was computed.
    SetComputed {
        /// The epoch.
        epoch: u64,
        /// Its members.
        members: u32,
    },
}

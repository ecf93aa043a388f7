//! What a node tells people and clients. Nothing depends on an event being seen.

use tiltyard_keys::PublicKey;
use tiltyard_ledger::LedgerEvent;
use tiltyard_proto::ids::{BlockHash, TaskId, TransactionId};
use tiltyard_proto::state::Phase;
use tiltyard_proto::units::{Height, Round, UnixMillis};

use crate::roles::Duty;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A block is durable.
    Decided {
        /// Its height.
        height: Height,
        /// Its name.
        hash: BlockHash,
        /// Transactions in it.
        transactions: u32,
        /// Its time.
        time: UnixMillis,
        /// Round it was decided in.
        round: Round,
        /// Who built it.
        builder: PublicKey,
        /// Milliseconds from the first sight of the proposed block to its durable decision; none for a synced block.
        finality_ms: Option<u64>,
    },
    /// The node is behind its peers and fetches blocks.
    Syncing {
        /// Last block here.
        height: Height,
        /// Last block of the furthest peer, by its own word.
        target: Height,
    },
    /// The node has caught up.
    Synced {
        /// Last block.
        height: Height,
    },
    /// No new block for too long: this node is cut off, or the network stands still.
    Stale {
        /// Last block here.
        height: Height,
        /// Milliseconds since it came, or since the start.
        silent_ms: u64,
        /// Peers that are connected.
        peers: usize,
    },
    /// Blocks come again.
    Fresh {
        /// Last block here.
        height: Height,
    },
    /// A task entered a phase.
    TaskPhase {
        /// The task.
        task: TaskId,
        /// Where it is now.
        phase: Phase,
    },
    /// Something else that a block did.
    Ledger {
        /// The block.
        height: Height,
        /// What.
        event: LedgerEvent,
    },
    /// A duty of this node is on the ledger.
    DutyDone {
        /// The task.
        task: TaskId,
        /// The duty.
        duty: Duty,
        /// Height of the block.
        height: Height,
        /// Whether it took effect.
        ok: bool,
    },
    /// A transaction that was handed in here waits for a block now.
    TransactionAccepted {
        /// The transaction.
        id: TransactionId,
    },
    /// A transaction of this node, or one handed in here, is in a block.
    TransactionIncluded {
        /// The transaction.
        id: TransactionId,
        /// Height of the block.
        height: Height,
        /// Whether its action took effect.
        ok: bool,
    },
    /// A transaction of this node, or one handed in here, will not be in a block.
    TransactionDropped {
        /// The transaction.
        id: TransactionId,
        /// Why, for people.
        fact: String,
    },
    /// A round after the first began: the one before brought no decision.
    RoundStarted {
        /// Height.
        height: Height,
        /// Round.
        round: Round,
        /// Who proposes in it.
        proposer: PublicKey,
    },
    /// A validator signed two things where it may sign one.
    Equivocation {
        /// The validator.
        validator: PublicKey,
        /// Height of the offence.
        height: Height,
    },
    /// A proposed block was refused.
    BlockRefused {
        /// Height.
        height: Height,
        /// The block.
        block: BlockHash,
        /// Why, for people.
        fact: String,
    },
    /// A task that this node could mine and does not.
    TaskDeclined {
        /// The task.
        task: TaskId,
        /// Why, and what would change it.
        fact: String,
    },
    /// Something unexpected that did no harm; for the log.
    Trouble {
        /// What, for people.
        fact: String,
    },
}

//! What a node tells people and clients. Nothing depends on an event being seen.

use tiltyard_keys::PublicKey;
use tiltyard_ledger::LedgerEvent;
use tiltyard_proto::ids::{BlockHash, TaskId, TransactionId};
use tiltyard_proto::state::Phase;
use tiltyard_proto::units::{Height, Round, Stake, UnixMillis};
use tiltyard_proto::validators::more_than_two_thirds;

use crate::roles::Duty;

/// A height that does not end: too much stake is silent or cannot be reached, or those that are heard do not agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecided {
    /// The height that is not decided.
    pub height: Height,
    /// Since when it runs here, in milliseconds.
    pub waited_ms: u64,
    /// Stake of the validators that were heard at this height, this node included.
    pub heard: Stake,
    /// Stake of all of them; more than two thirds is needed.
    pub total: Stake,
    /// Validators that were not heard.
    pub silent: Vec<PublicKey>,
}

impl core::fmt::Display for Undecided {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { height, waited_ms, heard, total, silent } = self;
        let seconds = waited_ms / 1_000;
        write!(f, "no block at height {height} for {seconds} s: ")?;
        if more_than_two_thirds(*heard, *total) {
            return write!(
                f,
                "validators with {heard} of {total} stake are heard, but do not agree yet; waiting"
            );
        }
        let names: Vec<String> = silent.iter().map(PublicKey::short).collect();
        write!(
            f,
            "validators with {heard} of {total} stake are heard, more than 2/3 is needed; silent: {}; start them, or check that this node can reach them",
            names.join(", ")
        )
    }
}

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
    /// A snapshot was chosen, its header proven; its chunks are fetched.
    Joining {
        /// Height of the block whose state it is.
        height: Height,
        /// Chunks in all.
        chunks: usize,
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
    /// No block was decided for long. Said again while it lasts.
    Undecided(Undecided),
    /// This validator does not know what its key said before: it listens, and signs from a later height on.
    Listening {
        /// Last block here.
        height: Height,
        /// First height that it signs, unless its key is heard again.
        from: Height,
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

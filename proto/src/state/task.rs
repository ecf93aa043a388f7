//! A task, its entrants and its judges while it lives.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use tiltyard_keys::PublicKey;

use crate::genesis::Params;
use crate::ids::{BlobRoot, Commitment, FileHash, ScoreCommitment, SealKey, TransactionId};
use crate::score::Fault;
use crate::task::{Deadlines, TaskSpec};
use crate::units::{Blocks, Height, MicroCredits, Ppm, Stake};

/// Where a task is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    /// Waiting for validators to accept.
    Accepting,
    /// Miners train and commit.
    Committing,
    /// Miners reveal.
    Revealing,
    /// The committee fetches the bytes.
    Holding,
    /// Waiting for the evaluation key.
    KeyOpening,
    /// The committee scores and seals.
    ScoreCommitting,
    /// The committee opens its scores.
    ScoreOpening,
    /// Paid out.
    Settled,
    /// Ended without payout.
    Refunded(RefundCause),
}

impl Phase {
    /// Says whether the task is over.
    #[must_use]
    pub const fn is_over(self) -> bool {
        match self {
            Self::Settled | Self::Refunded(_) => true,
            Self::Accepting
            | Self::Committing
            | Self::Revealing
            | Self::Holding
            | Self::KeyOpening
            | Self::ScoreCommitting
            | Self::ScoreOpening => false,
        }
    }
}

/// Why a task ended without payout to miners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RefundCause {
    /// Withdrawn by the requester before it opened.
    Cancelled,
    /// Not accepted by more than 2/3 of the stake.
    NotAccepted,
    /// No live commit at the commit deadline.
    NoCommits,
    /// No entrant revealed and was held.
    NoEntrants,
    /// Not more than 2/3 of the committee opened all its rows.
    NotJudged,
    /// The untouched base has no measurable loss.
    BaseLossZero,
    /// The requester did not open the right key in time, or opened it early: the rest of the pot is burned.
    KeyDefault(KeyDefault),
    /// More than half of the opened stake judged the evaluation set unusable: the rest of the pot is burned.
    EvaluationUnusable,
    /// More than half of the opened stake could not score the untouched base, and not for the evaluation set's sake.
    BaseFaulty(Fault),
}

/// How the evaluation key failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum KeyDefault {
    /// Not opened by the deadline.
    Absent,
    /// Opened before the bytes were held.
    Early,
    /// Not the key that was committed to; counts only when the requester sent it and no right key followed in time.
    Wrong,
}

/// A task as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// As posted.
    pub spec: TaskSpec,
    /// Who posted it.
    pub requester: PublicKey,
    /// The transaction that posted it.
    pub posted_by: TransactionId,
    /// Height of that transaction.
    pub posted_at: Height,
    /// Last height of each phase; the later ones move when a phase end is carried over to a later block.
    pub deadlines: Deadlines,
    /// Where it is.
    pub phase: Phase,
    /// Rules in force when it was posted.
    pub rules: TaskRules,
    /// Validators that accepted, sorted.
    pub accepted: Vec<PublicKey>,
    /// Total stake of the frozen committee; 0 before.
    pub committee_stake: Stake,
    /// Miners with a live entry, sorted by key; their order gives bitmap positions and rows from `Holding` on.
    pub entrants: Vec<PublicKey>,
    /// The evaluation key, once opened.
    pub key: Option<SealKey>,
    /// What the requester did wrong with the key, if anything.
    pub key_default: Option<KeyDefault>,
    /// Entrants that went out before scoring, sorted; each already has its [`super::EntrantVerdict`].
    pub out: Vec<PublicKey>,
}

/// The parameters that a task keeps for its whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRules {
    /// Share of the pot burned.
    pub burn: Ppm,
    /// Share of the pot for the judges.
    pub judges: Ppm,
    /// Weights of the three places.
    pub places: [u32; 3],
    /// Two cells this close are the same for copies, in micro-nats.
    pub duplicate_micro_nats: u32,
    /// Share of close cells that makes a copy.
    pub duplicate_cells: Ppm,
    /// A judge's cell this close to the median agrees, in micro-nats.
    pub judge_micro_nats: u32,
    /// Share of agreeing cells that earns the judge's pay.
    pub judge_cells: Ppm,
    /// How long the committee keeps paid entrants' bytes after settlement.
    pub keep: Blocks,
    /// Leading zero bits of an unbonded entrant's stamp.
    pub stamp_bits: u8,
    /// Nobody is evicted in so many last blocks of the commit window.
    pub eviction_stop: Blocks,
}

impl TaskRules {
    /// What a task posted now keeps of the parameters in force.
    #[must_use]
    pub const fn of(params: &Params) -> Self {
        Self {
            burn: params.burn,
            judges: params.judges,
            places: params.places,
            duplicate_micro_nats: params.duplicate_micro_nats,
            duplicate_cells: params.duplicate_cells,
            judge_micro_nats: params.judge_micro_nats,
            judge_cells: params.judge_cells,
            keep: params.keep,
            stamp_bits: params.stamp_bits,
            eviction_stop: params.window_min,
        }
    }
}

/// How far an entrant has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntrantStage {
    /// Committed.
    Committed,
    /// Revealed; waiting to be held.
    Revealed(Reveal),
    /// Held by more than 2/3: stands and will be scored.
    Standing(Reveal),
}

/// What a reveal put on the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reveal {
    /// Manifest root.
    pub manifest: BlobRoot,
    /// Sum of the file sizes, in bytes.
    pub bytes: u64,
    /// Hash of the file that holds the weights.
    pub weights: FileHash,
    /// Canonical recipe bytes.
    pub recipe: ByteBuf,
    /// Canonical manifest bytes.
    pub manifest_bytes: ByteBuf,
    /// Committee members that said they hold the bytes, sorted.
    pub held_by: Vec<PublicKey>,
}

/// One miner's entry while the task lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntrantRecord {
    /// The commitment.
    pub commitment: Commitment,
    /// Height of the commit that counts.
    pub committed_at: Height,
    /// Amount locked.
    pub bond: MicroCredits,
    /// Unpaid reference entrant.
    pub reference: bool,
    /// How far it has come.
    pub stage: EntrantStage,
}

/// One committee member's judging of one task.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JudgeRecord {
    /// Its sealed scores.
    pub committed: Option<ScoreCommitment>,
    /// Rows opened, sorted.
    pub opened: Vec<u32>,
}

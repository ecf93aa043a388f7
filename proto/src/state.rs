//! Keys and values of the authenticated state.
//!
//! A key is one prefix byte and fixed-length parts, so that no key is a prefix of another kind's. A value is the
//! canonical bytes of its type.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use tiltyard_keys::PublicKey;

use crate::ids::{
    BlobRoot, Commitment, MerkleRoot, RecipeHash, ScoreCommitment, SealKey, TaskId, TransactionId,
};
use crate::score::Fault;
use crate::task::{Deadlines, TaskSpec};
use crate::units::{Blocks, Height, MicroCredits, Nonce, Ppm, Stake};
use crate::validators::Validator;

/// Names an entry of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum StateKey {
    /// [`Account`].
    Account(PublicKey),
    /// [`ValidatorRecord`].
    Validator(PublicKey),
    /// Every key that has a [`ValidatorRecord`], sorted: `Vec<PublicKey>`.
    ValidatorIndex,
    /// [`crate::genesis::Params`] in force.
    Params,
    /// [`Totals`].
    Totals,
    /// [`crate::validators::ValidatorSet`] of an epoch.
    Set(u64),
    /// [`TaskRecord`].
    Task(TaskId),
    /// Tasks that are not over, sorted: `Vec<TaskId>`.
    LiveTasks,
    /// Tasks whose phase ends at a height, in the order they were queued: `Vec<TaskId>`.
    PhaseQueue(Height),
    /// Phase ends carried over from earlier blocks, in order: `Vec<(Height, TaskId)>`.
    PhaseCarry,
    /// [`EntrantRecord`].
    Entrant(TaskId, PublicKey),
    /// Frozen committee of a task, sorted by key: `Vec<Validator>`.
    Committee(TaskId),
    /// [`JudgeRecord`] of a committee member.
    Judge(TaskId, PublicKey),
    /// Opened row bytes of a committee member: `ByteBuf`.
    OpenedRow(TaskId, PublicKey, u32),
    /// [`Verdict`].
    Verdict(TaskId),
    /// [`EntrantVerdict`].
    EntrantVerdict(TaskId, PublicKey),
    /// Marks that a key was punished for a height: [`Punished`].
    Punished(PublicKey, Height),
    /// Certificate counts for absence: [`Attendance`].
    Attendance(PublicKey),
}

impl StateKey {
    /// Returns the key's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        fn join(prefix: u8, parts: &[&[u8]]) -> Vec<u8> {
            let mut out = vec![prefix];
            for part in parts {
                out.extend_from_slice(part);
            }
            out
        }
        match self {
            Self::Account(key) => join(b'a', &[key.as_bytes()]),
            Self::Validator(key) => join(b'v', &[key.as_bytes()]),
            Self::ValidatorIndex => join(b'i', &[]),
            Self::Params => join(b'p', &[]),
            Self::Totals => join(b'o', &[]),
            Self::Set(epoch) => join(b's', &[&epoch.to_be_bytes()]),
            Self::Task(task) => join(b't', &[task.as_bytes()]),
            Self::LiveTasks => join(b'l', &[]),
            Self::PhaseQueue(height) => join(b'q', &[&height.get().to_be_bytes()]),
            Self::PhaseCarry => join(b'c', &[]),
            Self::Entrant(task, miner) => join(b'e', &[task.as_bytes(), miner.as_bytes()]),
            Self::Committee(task) => join(b'm', &[task.as_bytes()]),
            Self::Judge(task, validator) => join(b'j', &[task.as_bytes(), validator.as_bytes()]),
            Self::OpenedRow(task, validator, row) => {
                join(b'w', &[task.as_bytes(), validator.as_bytes(), &row.to_be_bytes()])
            }
            Self::Verdict(task) => join(b'd', &[task.as_bytes()]),
            Self::EntrantVerdict(task, miner) => join(b'r', &[task.as_bytes(), miner.as_bytes()]),
            Self::Punished(key, height) => {
                join(b'x', &[key.as_bytes(), &height.get().to_be_bytes()])
            }
            Self::Attendance(key) => join(b'n', &[key.as_bytes()]),
        }
    }
}

/// A key's balance and nonce.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Spendable balance.
    pub balance: MicroCredits,
    /// Transactions included so far; the next one must carry this nonce.
    pub nonce: Nonce,
    /// Height of the last draw from the faucet; 0 for never.
    pub faucet_at: Height,
}

/// Stake on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unbonding {
    /// Height from which it may return; it does at the next end of an epoch with no task holding it.
    pub until: Height,
    /// Amount.
    pub amount: MicroCredits,
}

/// Whether a validator may vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// May.
    Active,
    /// Missed too many blocks; may unjail from this height on.
    Jailed {
        /// First height at which it may unjail.
        until: Height,
    },
    /// Signed two things where it may sign one; never again.
    Tombstoned,
}

/// A validator's stake and whereabouts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidatorRecord {
    /// Bonded stake.
    pub stake: Stake,
    /// Stake on its way out, earliest first.
    pub unbonding: Vec<Unbonding>,
    /// Whether it may vote.
    pub standing: Standing,
    /// Peer id, in its multihash bytes; empty when not yet given.
    pub peer: ByteBuf,
    /// Multiaddresses, as text.
    pub addresses: Vec<String>,
    /// Account that receives the judge's pay.
    pub payout: PublicKey,
    /// Tasks that still hold its stake as committee member.
    pub duties: u32,
}

/// Where every micro-credit is. Their sum is genesis plus subsidy plus faucet, after every block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Granted at genesis, stakes included.
    pub genesis: MicroCredits,
    /// Issued as subsidy so far.
    pub subsidy: MicroCredits,
    /// In accounts.
    pub balances: MicroCredits,
    /// In pots.
    pub escrow: MicroCredits,
    /// In entrants' bonds.
    pub bonds: MicroCredits,
    /// Bonded as stake.
    pub stake: MicroCredits,
    /// Stake on its way out.
    pub unbonding: MicroCredits,
    /// Subsidy not yet paid out.
    pub pending_subsidy: MicroCredits,
    /// Gone for good.
    pub burned: MicroCredits,
    /// Issued by the faucet so far.
    pub faucet: MicroCredits,
}

impl Totals {
    /// Says whether every micro-credit is somewhere, exactly once.
    #[must_use]
    pub fn is_conserved(&self) -> bool {
        let wide = |amount: MicroCredits| u128::from(amount.get());
        let places = [
            self.balances,
            self.escrow,
            self.bonds,
            self.stake,
            self.unbonding,
            self.pending_subsidy,
            self.burned,
        ];
        let held = places.into_iter().fold(0u128, |sum, part| sum.saturating_add(wide(part)));
        let issued = [self.genesis, self.subsidy, self.faucet]
            .into_iter()
            .fold(0u128, |sum, part| sum.saturating_add(wide(part)));
        held == issued
    }
}

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
    /// Entrants that went out before scoring, sorted; each already has its [`EntrantVerdict`].
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
    pub weights: crate::ids::FileHash,
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

/// Outcome of a task; permanent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// `Settled` or `Refunded`.
    pub phase: Phase,
    /// Height at whose end it was settled.
    pub settled_at: Height,
    /// Who posted it.
    pub requester: PublicKey,
    /// Pot that was paid in.
    pub pot: MicroCredits,
    /// Mean score of the untouched base, if judged.
    pub base_mean: Option<u64>,
    /// Mean score of the reference entrant, if one stood.
    pub reference_mean: Option<u64>,
    /// Evaluation examples.
    pub examples: u32,
    /// Entrants, best rank first, then unranked by key; each has an [`EntrantVerdict`].
    pub entrants: Vec<PublicKey>,
    /// Paid to miners.
    pub paid_miners: MicroCredits,
    /// Paid to judges.
    pub paid_judges: MicroCredits,
    /// Returned to the requester.
    pub returned: MicroCredits,
    /// Burned from the pot.
    pub burned: MicroCredits,
    /// Root over the opened rows, judge by judge in key order, row by row.
    pub rows_root: MerkleRoot,
    /// The evaluation key, if opened.
    pub key: Option<SealKey>,
    /// Committee members whose rows counted and what each was paid, sorted by key.
    pub judges: Vec<(PublicKey, MicroCredits)>,
    /// The frozen committee.
    pub committee: Vec<Validator>,
}

/// Outcome for one entrant; permanent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntrantVerdict {
    /// The miner.
    pub miner: PublicKey,
    /// Height of the commit that counted.
    pub committed_at: Height,
    /// Manifest root, if revealed.
    pub manifest: Option<BlobRoot>,
    /// Mean score, if judged, in micro-units.
    pub mean: Option<u64>,
    /// Gain over the base, if judged.
    pub gain: Option<Ppm>,
    /// Gain over the reference entrant, if both were judged.
    pub reference_gain: Option<Ppm>,
    /// Rank from 1, if eligible.
    pub rank: Option<u8>,
    /// Why it stands where it stands.
    pub reason: Reason,
    /// What it was paid.
    pub reward: MicroCredits,
    /// What became of its bond.
    pub bond: BondFate,
    /// Hash of the recipe, if revealed.
    pub recipe_hash: Option<RecipeHash>,
    /// The recipe's canonical bytes, if revealed: the market learns from them.
    pub recipe: Option<ByteBuf>,
}

/// What became of a bond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum BondFate {
    /// There was none.
    None,
    /// Returned.
    Returned(MicroCredits),
    /// Burned.
    Burned(MicroCredits),
}

/// Why an entrant stands where it stands, with the numbers that decided it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reason {
    /// Ranked; no later entrant was beaten to it by a tie.
    Ranked {
        /// Rank, from 1.
        rank: u8,
    },
    /// Ranked ahead of a leader that did not beat it: it committed earlier.
    RankedByEarlierCommit {
        /// Rank, from 1.
        rank: u8,
        /// The leader it tied with.
        leader: PublicKey,
    },
    /// Lower total loss than the entrant ranked before it, but not significantly, and committed later.
    TiedWithEarlier {
        /// Rank, from 1.
        rank: u8,
        /// The earlier entrant.
        ahead: PublicKey,
        /// Mean gap, in micro-units.
        mean_gap: i64,
        /// Mean gap needed, in micro-units.
        needed: i64,
    },
    /// Gain below the task's smallest.
    BelowGain {
        /// The gain.
        gain: Ppm,
        /// The smallest that is paid.
        needed: Ppm,
    },
    /// Does not beat the untouched base significantly.
    NotBetterThanBase {
        /// Mean gap, in micro-units.
        mean_gap: i64,
        /// Mean gap needed, in micro-units.
        needed: i64,
    },
    /// A copy of an earlier entrant.
    Duplicate {
        /// The earlier entrant.
        of: PublicKey,
        /// Share of cells that are the same.
        close: Ppm,
    },
    /// Judged faulty by more than half of the opened stake.
    Faulty {
        /// The fault.
        fault: Fault,
    },
    /// Committed but did not reveal.
    NotRevealed,
    /// Revealed, but less than 1/3 of the committee could get the bytes: the bond is burned.
    NotHeld {
        /// Stake that held the bytes.
        held: Stake,
        /// Stake of the committee.
        total: Stake,
    },
    /// Revealed, and from 1/3 to 2/3 of the committee held the bytes: out, the bond returns.
    HeldByTooFew {
        /// Stake that held the bytes.
        held: Stake,
        /// Stake of the committee.
        total: Stake,
    },
    /// The task ended without verdict.
    NoVerdict {
        /// Why.
        cause: RefundCause,
    },
    /// Unpaid reference entrant.
    Reference,
}

/// Marks a punished key and height.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Punished {
    /// Micro-credits burned.
    pub burned: MicroCredits,
}

/// Blocks missed in the running window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attendance {
    /// First height of the window.
    pub since: Height,
    /// Blocks whose certificate lacked the validator.
    pub missed: u32,
}

//! Outcomes of tasks; permanent.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use tiltyard_keys::PublicKey;

use super::task::{Phase, RefundCause};
use crate::ids::{BlobRoot, MerkleRoot, RecipeHash, SealKey};
use crate::score::Fault;
use crate::units::{Height, MicroCredits, Ppm, Stake};
use crate::validators::Validator;

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

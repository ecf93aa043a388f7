//! What a requester posts: kind, base, data, sealed evaluation set, windows, money.

use serde::{Deserialize, Serialize};
use tiltyard_keys::{GenesisHash, PublicKey};

use crate::hash::{context, derive};
use crate::ids::{BlobRoot, Commitment, RecipeHash, Salt, SealKey, SealKeyHash, TaskId};
use crate::manifest::BlobRef;
use crate::units::{Blocks, Height, MicroCredits, Ppm};

/// What is learned and how an example is scored (SPEC.md, "Scoring v1").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskKind {
    /// Prompt and completion; mean loss over the completion's tokens.
    Instruction,
    /// Several turns; mean loss over the last answer's tokens.
    Chat,
    /// Context, question, answer; mean loss over the answer's tokens.
    ContextQuestion,
    /// Plain text in windows of so many tokens.
    PlainText {
        /// Tokens in a window.
        window_tokens: u32,
    },
    /// One of the declared labels; loss of the gold label among them.
    Classification {
        /// Labels, sorted, unique.
        labels: Vec<String>,
    },
    /// Preference pairs (arXiv 2305.18290).
    Dpo {
        /// Beta, in thousandths.
        beta_milli: u32,
    },
    /// Answers with a checkable reward (arXiv 2402.03300).
    Grpo {
        /// Most tokens decoded greedily.
        tokens_max: u32,
    },
    /// Images by denoising.
    Diffusion {
        /// Number of noise levels.
        levels: u32,
    },
}

impl TaskKind {
    /// Returns the kind's name, for people and file formats.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Instruction => "instruction",
            Self::Chat => "chat",
            Self::ContextQuestion => "context-question",
            Self::PlainText { .. } => "plain-text",
            Self::Classification { .. } => "classification",
            Self::Dpo { .. } => "dpo",
            Self::Grpo { .. } => "grpo",
            Self::Diffusion { .. } => "diffusion",
        }
    }

    /// Says whether scores are continuous, so that near-equal ones betray a copy.
    #[must_use]
    pub const fn is_continuous(&self) -> bool {
        match self {
            Self::Instruction
            | Self::Chat
            | Self::ContextQuestion
            | Self::PlainText { .. }
            | Self::Classification { .. }
            | Self::Dpo { .. }
            | Self::Diffusion { .. } => true,
            Self::Grpo { .. } => false,
        }
    }
}

/// The sealed evaluation set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSet {
    /// The ciphertext, as a file set of kind `Evaluation`.
    pub ciphertext: BlobRef,
    /// Commits to the key.
    pub key_hash: SealKeyHash,
    /// Number of examples.
    pub examples: u32,
    /// Size of the plaintext, in bytes.
    pub plaintext_bytes: u64,
}

/// Length of each phase, in blocks, counted from the block that includes the post.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windows {
    /// For validators to accept.
    pub open: Blocks,
    /// For miners to train and commit.
    pub commit: Blocks,
    /// For miners to reveal.
    pub reveal: Blocks,
    /// For the committee to hold the bytes.
    pub held: Blocks,
    /// For the evaluation key.
    pub key: Blocks,
    /// For the committee to commit to scores.
    pub score_commit: Blocks,
    /// For the committee to open scores.
    pub score_open: Blocks,
}

impl Windows {
    /// Returns the seven windows in order.
    #[must_use]
    pub const fn each(&self) -> [Blocks; 7] {
        [self.open, self.commit, self.reveal, self.held, self.key, self.score_commit, self.score_open]
    }
}

/// Last height of each phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadlines {
    /// Last height for an `Accept`.
    pub open: Height,
    /// Last height for a `Commit`.
    pub commit: Height,
    /// Last height for a `Reveal`.
    pub reveal: Height,
    /// Last height for a `Held`.
    pub held: Height,
    /// Last height for `OpenKey`, which counts only after `held`.
    pub key: Height,
    /// Last height for a `ScoreCommit`.
    pub score_commit: Height,
    /// Last height for a `ScoreOpen`; the task settles at its end.
    pub score_open: Height,
}

impl Deadlines {
    /// Lays the windows out one after another from the height of the post.
    #[must_use]
    pub const fn from_post(posted: Height, windows: &Windows) -> Self {
        let open = posted.plus(windows.open);
        let commit = open.plus(windows.commit);
        let reveal = commit.plus(windows.reveal);
        let held = reveal.plus(windows.held);
        let key = held.plus(windows.key);
        let score_commit = key.plus(windows.score_commit);
        let score_open = score_commit.plus(windows.score_open);
        Self { open, commit, reveal, held, key, score_commit, score_open }
    }
}

/// How the pot is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payout {
    /// Three fixed places; unfilled places return to the requester.
    ThreePlaces,
    /// The first place takes all three shares.
    WinnerTakesAll,
}

/// A task as posted; immutable from then on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// A line for people, ≤ 128 bytes.
    pub title: String,
    /// What is learned.
    pub kind: TaskKind,
    /// Base model.
    pub base: BlobRef,
    /// Training set.
    pub training: BlobRef,
    /// Sealed evaluation set.
    pub evaluation: SealedSet,
    /// Length of each phase.
    pub windows: Windows,
    /// What the requester pays in.
    pub pot: MicroCredits,
    /// How it is shared.
    pub payout: Payout,
    /// Smallest gain over the base that is paid (ε).
    pub min_gain: Ppm,
    /// What a commit must lock.
    pub bond: MicroCredits,
    /// Most entrants.
    pub entrants_max: u8,
    /// Most entrants without bond, each with a proof-of-work stamp.
    pub unbonded_max: u8,
    /// Largest checkpoint, in bytes.
    pub checkpoint_bytes_max: u64,
    /// Recipe of a reference entrant, if any.
    pub reference: Option<RecipeHash>,
    /// Says that fewer than 200 examples are meant.
    pub small_set: bool,
}

/// Returns the commitment of a miner to one checkpoint.
#[must_use]
pub fn commitment(
    genesis: &GenesisHash,
    task: &TaskId,
    miner: &PublicKey,
    manifest: &BlobRoot,
    total_bytes: u64,
    salt: &Salt,
) -> Commitment {
    Commitment::from_bytes(derive(
        context::COMMIT,
        &[
            genesis.as_bytes(),
            task.as_bytes(),
            miner.as_bytes(),
            manifest.as_bytes(),
            &total_bytes.to_be_bytes(),
            salt.as_bytes(),
        ],
    ))
}

/// Returns the hash that commits to an evaluation key.
#[must_use]
pub fn seal_key_hash(key: &SealKey) -> SealKeyHash {
    SealKeyHash::from_bytes(derive(context::SEAL_KEY, &[key.as_bytes()]))
}

/// Returns what orders commits of one height: fixed before any commit, unknown until the key opens.
#[must_use]
pub fn priority(key: &SealKey, commitment: &Commitment) -> [u8; 32] {
    derive(context::PRIORITY, &[key.as_bytes(), commitment.as_bytes()])
}

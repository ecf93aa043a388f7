//! Recipes: the hyperparameters, seed and trainer that made a checkpoint; integers with units, published on reveal.

use serde::{Deserialize, Serialize};
use tiltyard_keys::PublicKey;

use crate::codec::{self, CodecError};
use crate::hash::{self, context, derive};
use crate::ids::{RecipeHash, TaskId};
use crate::limits::RECIPE_BYTES_MAX;

/// How the miner chose the hyperparameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// A recipe fixed beforehand; the name of the preset or file, ≤ 32 bytes.
    Fixed(String),
    /// Searched under the token budget.
    Search,
    /// Searched from a prior fitted on the ledger's verdicts.
    Learned,
    /// Chosen by an external trainer; its name, ≤ 32 bytes.
    External(String),
}

/// What is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// Low-rank adapters (arXiv 2106.09685).
    Lora {
        /// Rank.
        rank: u32,
        /// Scale numerator alpha, in thousandths.
        alpha_milli: u32,
        /// Dropout on the adapter's input, in millionths.
        dropout_ppm: u32,
        /// Which linear layers, as a bit set: 1 q, 2 k, 4 v, 8 o, 16 gate, 32 up, 64 down.
        targets: u8,
    },
    /// All weights.
    Full,
}

impl Method {
    /// All seven linear layers of a block.
    pub const ALL_LINEAR: u8 = 0b111_1111;
}

/// Shape of the learning rate over the steps, after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Schedule {
    /// Stays.
    Constant,
    /// Falls in a line to zero.
    Linear,
    /// Falls along half a cosine to zero.
    Cosine,
}

/// Everything needed to repeat a training run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// Version of this form: 1.
    pub version: u16,
    /// Name and version of the trainer, ≤ 32 bytes, such as `tiltyard-train 0.1.0`.
    pub trainer: String,
    /// How the values were chosen.
    pub strategy: Strategy,
    /// What is trained.
    pub method: Method,
    /// Peak learning rate, in units of 1e-9.
    pub learning_rate_nano: u64,
    /// Shape after warm-up.
    pub schedule: Schedule,
    /// Share of the steps that warm up, in millionths.
    pub warmup_ppm: u32,
    /// Rows in a micro-batch.
    pub batch_rows: u32,
    /// Micro-batches in a step.
    pub accumulation: u32,
    /// Optimizer steps taken.
    pub steps: u32,
    /// Longest row or packed block, in tokens.
    pub sequence_tokens: u32,
    /// Whether several rows share one block.
    pub packing: bool,
    /// Decoupled weight decay, in millionths.
    pub weight_decay_ppm: u32,
    /// Largest gradient norm, in thousandths; 0 for none.
    pub clip_milli: u32,
    /// Seed of all randomness of the run.
    pub seed: u64,
    /// Tokens trained on, padding and search included.
    pub tokens_trained: u64,
    /// Free settings of external trainers, sorted by key, keys unique.
    pub extra: Vec<(String, String)>,
}

/// Says why a recipe is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecipeError {
    /// Not the canonical bytes of a recipe.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A version this program does not know.
    #[error("recipe has version {version}, this program knows 1; upgrade it")]
    Version {
        /// The version given.
        version: u16,
    },
    /// A name longer than 32 bytes.
    #[error("recipe names {name:?}, longer than 32 bytes; shorten it")]
    Name {
        /// The name, cut to 80 characters.
        name: String,
    },
    /// Free keys out of order or doubled.
    #[error("free key {key:?} is out of order or doubled; sort keys and give each once")]
    Extra {
        /// The second of the two keys.
        key: String,
    },
}

impl Recipe {
    /// Version of this form.
    pub const VERSION: u16 = 1;

    /// Reads and checks recipe bytes.
    ///
    /// # Errors
    /// [`RecipeError`] naming the first rule broken.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecipeError> {
        let recipe: Self = codec::decode("recipe", bytes, RECIPE_BYTES_MAX)?;
        recipe.check()?;
        Ok(recipe)
    }

    /// Checks the rules that the encoding alone does not hold.
    ///
    /// # Errors
    /// [`RecipeError`] naming the first rule broken.
    pub fn check(&self) -> Result<(), RecipeError> {
        if self.version != Self::VERSION {
            return Err(RecipeError::Version { version: self.version });
        }
        let strategy = match &self.strategy {
            Strategy::Fixed(name) | Strategy::External(name) => name.as_str(),
            Strategy::Search | Strategy::Learned => "",
        };
        for name in [self.trainer.as_str(), strategy] {
            if name.len() > 32 {
                return Err(RecipeError::Name { name: name.chars().take(80).collect() });
            }
        }
        for pair in self.extra.windows(2) {
            if let [before, after] = pair
                && before.0 >= after.0
            {
                return Err(RecipeError::Extra { key: after.0.chars().take(80).collect() });
            }
        }
        Ok(())
    }

    /// Returns the canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Returns the hash that the manifest and the verdict carry.
    #[must_use]
    pub fn hash(&self) -> RecipeHash {
        RecipeHash::from_bytes(hash::of(context::RECIPE, self))
    }
}

/// Returns the seed that an honest miner trains with: two miners never produce the same bytes.
#[must_use]
pub fn training_seed(task: &TaskId, miner: &PublicKey) -> u64 {
    let digest = derive(context::TRAINING_SEED, &[task.as_bytes(), miner.as_bytes()]);
    let mut seed = [0u8; 8];
    seed.copy_from_slice(digest.split_at(8).0);
    u64::from_be_bytes(seed)
}

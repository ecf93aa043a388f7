//! Typed settings that a recipe carries under its free keys.
//!
//! | key | value | what it does |
//! |---|---|---|
//! | `loss-average` | `token`, `example` | how a step's losses are averaged |
//! | `shard-tokens` | 16 to 65536 | most tokens of a micro-shard of several rows; part of the arithmetic |
//! | `ema-decay-ppm` | 1 to 999999 | averages the weights over the steps with this decay |
//! | `bucket-steps` | 2 to 4096 | sorts the rows of so many steps by length, then shuffles the steps |
//! | `evaluate-every-steps` | from 1 | measures on a carve-out and returns to the best |
//! | `evaluate-patience` | from 1 | ends after so many measurements without a new best |
//!
//! The keys of groups of answers are in [`super::group`].
//!
//! Other keys are left alone: they belong to external trainers.

use tiltyard_proto::recipe::Recipe;

use super::group::GroupSettings;
use super::run::RunError;
use crate::data::Average;

/// The free key that says how losses are averaged.
pub const AVERAGE_KEY: &str = "loss-average";
/// The free key of the size of a micro-shard, in tokens.
pub const SHARD_KEY: &str = "shard-tokens";
/// The free key of the decay of averaged weights, in millionths.
pub const EMA_KEY: &str = "ema-decay-ppm";
/// The free key of the width of length buckets, in steps.
pub const BUCKET_KEY: &str = "bucket-steps";
/// The free key of the distance between measurements, in steps.
pub const EVALUATE_KEY: &str = "evaluate-every-steps";
/// The free key of the patience of early stopping, in measurements.
pub const PATIENCE_KEY: &str = "evaluate-patience";

/// Tokens of a micro-shard unless the recipe says otherwise.
pub const SHARD_TOKENS: usize = 256;

/// The settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How a step's losses are averaged.
    pub average: Average,
    /// Most tokens of a micro-shard of several rows.
    pub shard_tokens: usize,
    /// Decay of averaged weights, in millionths; `None` trains without.
    pub ema_decay_ppm: Option<u32>,
    /// Steps whose rows are sorted by length together; 1 sorts nothing.
    pub bucket_steps: usize,
    /// Steps between measurements on the carve-out; `None` measures never.
    pub evaluate_every_steps: Option<u64>,
    /// Measurements without a new best that end the run; `None` never ends it early.
    pub patience: Option<u32>,
    /// How answers are sampled, for rewards.
    pub group: GroupSettings,
}

impl Settings {
    /// Reads the free keys of a recipe.
    ///
    /// # Errors
    /// [`RunError::Setting`] naming the key, its value and what is accepted.
    pub fn read(recipe: &Recipe) -> Result<Self, RunError> {
        let average = match text(recipe, AVERAGE_KEY) {
            None | Some("token") => Average::Token,
            Some("example") => Average::Example,
            Some(other) => {
                let value = other.chars().take(80).collect();
                let wanted = "token or example".to_owned();
                return Err(RunError::Setting { key: AVERAGE_KEY, value, wanted });
            }
        };
        Ok(Self {
            average,
            shard_tokens: number(recipe, SHARD_KEY, 16, 65_536)?
                .map_or(SHARD_TOKENS, |tokens| tokens as usize),
            ema_decay_ppm: number(recipe, EMA_KEY, 1, 999_999)?.map(|ppm| ppm as u32),
            bucket_steps: number(recipe, BUCKET_KEY, 2, 4_096)?.map_or(1, |steps| steps as usize),
            evaluate_every_steps: number(recipe, EVALUATE_KEY, 1, u64::from(u32::MAX))?,
            patience: number(recipe, PATIENCE_KEY, 1, 1_000_000)?.map(|count| count as u32),
            group: GroupSettings::read(recipe)?,
        })
    }
}

fn text<'a>(recipe: &'a Recipe, key: &str) -> Option<&'a str> {
    recipe.extra.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_str())
}

/// Reads a free key that holds a whole number.
///
/// # Errors
/// [`RunError::Setting`] naming the key, its value and what is accepted.
pub(crate) fn number(
    recipe: &Recipe,
    key: &'static str,
    low: u64,
    high: u64,
) -> Result<Option<u64>, RunError> {
    let Some(value) = text(recipe, key) else { return Ok(None) };
    match value.parse::<u64>() {
        Ok(number) if (low..=high).contains(&number) => Ok(Some(number)),
        Ok(_) | Err(_) => {
            let wanted = format!("a whole number from {low} to {high}");
            Err(RunError::Setting { key, value: value.chars().take(80).collect(), wanted })
        }
    }
}

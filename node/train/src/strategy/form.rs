//! Recipes as people write them (TOML or JSON).

use serde::{Deserialize, Serialize};
use tiltyard_proto::recipe::{Method, Recipe, Schedule, Strategy};

use super::presets;
use crate::data::stream::{StepShape, steps_per_epoch};
use crate::fit::group::{GROUP_KEY, RATE_KEY, TEMPERATURE_KEY, WARM_KEY};
use crate::fit::settings::{AVERAGE_KEY, BUCKET_KEY, EMA_KEY, EVALUATE_KEY, PATIENCE_KEY, SHARD_KEY};
use crate::model::adapter::RANK_MAX;
use crate::model::layout::Module;

/// Largest learning rate accepted.
const RATE_MAX: f64 = 10.0;
/// Most rows in a step.
const ROWS_MAX: u32 = 65_536;
/// Name and version written into recipes.
pub const TRAINER: &str = concat!("tiltyard-train ", env!("CARGO_PKG_VERSION"));

/// How a learning rate falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleName {
    /// Stays.
    Constant,
    /// Falls in a line to zero.
    Linear,
    /// Falls along half a cosine to zero.
    Cosine,
}

/// How losses are averaged over a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AverageName {
    /// Every token alike.
    #[default]
    Token,
    /// Every row alike, as the score does.
    Example,
}

/// Low-rank adapter settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraForm {
    /// Rank.
    pub rank: u32,
    /// Scale numerator.
    pub alpha: f64,
    /// Share of the adapter's input that is dropped.
    #[serde(default)]
    pub dropout: f64,
    /// Adapted layers by short name (`q_proj`, …); all linear layers when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<Vec<String>>,
}

fn one() -> u32 {
    1
}

fn clip_default() -> f64 {
    1.0
}

/// A recipe before it meets its data: shares and epochs instead of steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Form {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Shape after the warm-up.
    pub schedule: ScheduleName,
    /// Share of the steps that warm up.
    #[serde(default)]
    pub warmup: f64,
    /// Rows (or packed blocks) in a micro-batch.
    pub batch_rows: u32,
    /// Micro-batches in a step.
    #[serde(default = "one")]
    pub accumulation: u32,
    /// Times through the rows; exactly one of this and `steps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
    /// Optimizer steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// Whether rows share blocks.
    #[serde(default)]
    pub packing: bool,
    /// Decoupled weight decay.
    #[serde(default)]
    pub weight_decay: f64,
    /// Largest gradient norm; 0 for none.
    #[serde(default = "clip_default")]
    pub clip: f64,
    /// How losses are averaged.
    #[serde(default)]
    pub loss_average: AverageName,
    /// Most tokens of a micro-shard of several rows; 256 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard_tokens: Option<u32>,
    /// Decay of averaged weights, such as 0.99; not averaged when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema: Option<f64>,
    /// Steps whose rows are sorted by length together; not sorted when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket_steps: Option<u32>,
    /// Steps between measurements on rows set aside; the best checkpoint is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluate_every: Option<u32>,
    /// Measurements without a new best that end the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience: Option<u32>,
    /// Answers sampled to a prompt, for rewards; 8 when absent.
    pub group_size: Option<u32>,
    /// Supervised steps on reference answers before those on rewards; none when absent.
    pub warm_steps: Option<u32>,
    /// Temperature of sampled answers; 1 when absent.
    pub temperature: Option<f64>,
    /// Share of the learning rate that steps on rewards take; all of it when absent.
    pub group_rate: Option<f64>,
    /// Adapter settings; all weights are trained when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraForm>,
}

/// Says why a recipe file is refused.
#[derive(Debug, thiserror::Error)]
pub enum FormError {
    /// Not TOML of this form.
    #[error("recipe file cannot be read: {0}")]
    Toml(Box<toml::de::Error>),
    /// Not JSON of this form.
    #[error("recipe file cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// Not text.
    #[error("recipe file is not UTF-8 text")]
    NotText,
    /// No preset of this name.
    #[error("there is no preset {name:?}; known are {known}")]
    UnknownPreset {
        /// The name given.
        name: String,
        /// The names known.
        known: String,
    },
    /// A value out of range.
    #[error("recipe sets {key} = {value}; {wanted}")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is accepted.
        wanted: &'static str,
    },
}

impl Form {
    /// Reads a recipe file: JSON when it starts with a brace, else TOML.
    ///
    /// # Errors
    /// [`FormError`] naming the key and what is accepted.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormError> {
        let text = std::str::from_utf8(bytes).map_err(|_| FormError::NotText)?;
        let form: Self = if text.trim_start().starts_with('{') {
            serde_json::from_str(text)?
        } else {
            toml::from_str(text).map_err(|error| FormError::Toml(Box::new(error)))?
        };
        form.check()?;
        Ok(form)
    }

    /// Returns a preset by name; [`presets::names`] lists them.
    ///
    /// # Errors
    /// [`FormError::UnknownPreset`] listing the names known.
    pub fn preset(name: &str) -> Result<Self, FormError> {
        presets::find(name)
    }

    fn check(&self) -> Result<(), FormError> {
        let within = |key, value: f64, low: f64, high: f64, wanted| {
            if value.is_finite() && (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(FormError::Value { key, value: value.to_string(), wanted })
            }
        };
        within("learning_rate", self.learning_rate, 1e-9, RATE_MAX, "1e-9 to 10 is accepted")?;
        within("warmup", self.warmup, 0.0, 1.0, "a share from 0 to 1 is accepted")?;
        within("weight_decay", self.weight_decay, 0.0, 100.0, "0 to 100 is accepted")?;
        within("clip", self.clip, 0.0, 1e6, "0 (none) to 1e6 is accepted")?;
        let rows = f64::from(self.batch_rows) * f64::from(self.accumulation);
        within("batch_rows * accumulation", rows, 1.0, f64::from(ROWS_MAX), "1 to 65,536 is accepted")?;
        match (self.epochs, self.steps) {
            (Some(epochs), None) => within("epochs", epochs, 1e-3, 1e4, "0.001 to 10,000 is accepted")?,
            (None, Some(steps)) => within("steps", f64::from(steps), 1.0, 1e9, "1 or more is accepted")?,
            (Some(_), Some(_)) | (None, None) => {
                let value = format!("{:?}", (self.epochs, self.steps));
                let wanted = "exactly one of epochs and steps is needed";
                return Err(FormError::Value { key: "(epochs, steps)", value, wanted });
            }
        }
        let some = |key, value: Option<f64>, low, high, wanted| {
            value.map_or(Ok(()), |value| within(key, value, low, high, wanted))
        };
        let shard = self.shard_tokens.map(f64::from);
        some("shard_tokens", shard, 16.0, 65_536.0, "16 to 65,536 is accepted")?;
        some("ema", self.ema, 1e-6, 0.999_999, "a decay from 0.000001 to 0.999999 is accepted")?;
        some("bucket_steps", self.bucket_steps.map(f64::from), 2.0, 4_096.0, "2 to 4,096 is accepted")?;
        some("evaluate_every", self.evaluate_every.map(f64::from), 1.0, 1e9, "1 or more is accepted")?;
        some("patience", self.patience.map(f64::from), 1.0, 1e6, "1 to 1,000,000 is accepted")?;
        some("group_size", self.group_size.map(f64::from), 2.0, 64.0, "2 to 64 is accepted")?;
        some("temperature", self.temperature, 1e-3, 10.0, "0.001 to 10 is accepted")?;
        some("group_rate", self.group_rate, 1e-6, 1.0, "a share from 0.000001 to 1 is accepted")?;
        if self.patience.is_some() && self.evaluate_every.is_none() {
            let wanted = "it counts measurements: set evaluate_every too";
            let value = self.patience.unwrap_or_default().to_string();
            return Err(FormError::Value { key: "patience", value, wanted });
        }
        let Some(lora) = &self.lora else { return Ok(()) };
        within("lora.rank", f64::from(lora.rank), 1.0, f64::from(RANK_MAX), "1 to 1,024 is accepted")?;
        within("lora.alpha", lora.alpha, 1e-3, 1e6, "0.001 to 1e6 is accepted")?;
        within("lora.dropout", lora.dropout, 0.0, 0.9, "a share from 0 to 0.9 is accepted")?;
        self.targets().map(|_| ())
    }

    fn targets(&self) -> Result<u8, FormError> {
        let Some(names) = self.lora.as_ref().and_then(|lora| lora.targets.as_ref()) else {
            return Ok(Method::ALL_LINEAR);
        };
        let mut bits = 0u8;
        for name in names {
            let known = Module::ALL.iter().position(|module| module.short_name() == name.as_str());
            let bit = known.ok_or_else(|| FormError::Value {
                key: "lora.targets",
                value: name.chars().take(80).collect(),
                wanted: "known are q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj",
            })?;
            bits |= 1 << bit;
        }
        if bits == 0 {
            let wanted = "name at least one layer, or leave targets out for all";
            return Err(FormError::Value { key: "lora.targets", value: "[]".into(), wanted });
        }
        Ok(bits)
    }

    /// Fixes the recipe for rows of these lengths in tokens: steps from epochs, cut to the budget of tokens.
    ///
    /// Steps is 0 when the budget does not pay for one.
    ///
    /// # Errors
    /// [`FormError::Value`] when a value is out of range.
    pub fn recipe(
        &self,
        strategy: Strategy,
        seed: u64,
        lengths: &[usize],
        budget_tokens: u64,
    ) -> Result<Recipe, FormError> {
        self.check()?;
        let longest = lengths.iter().copied().max().unwrap_or(1);
        let sequence_tokens = if self.packing { longest.max(1_024) } else { longest } as u32;
        let blocks = self.batch_rows as usize * self.accumulation as usize;
        let packed_tokens = self.packing.then_some(sequence_tokens as usize);
        let tokens: u64 = lengths.iter().map(|&length| length as u64).sum();
        let bucket_steps = self.bucket_steps.map_or(1, |steps| steps as usize);
        let per_epoch =
            steps_per_epoch(lengths.to_vec(), StepShape { blocks, packed_tokens, bucket_steps }).max(1);
        let per_step = tokens.div_ceil(per_epoch).max(1);
        let wanted = match self.steps {
            Some(steps) => u64::from(steps),
            None => (self.epochs.unwrap_or(1.0) * per_epoch as f64).ceil() as u64,
        };
        let steps = wanted.min(budget_tokens / per_step);
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        Ok(self.fixed(strategy, seed, sequence_tokens, steps))
    }

    /// The recipe with its number of steps and its longest row known. For a form that
    /// was checked: its layers are known ones.
    pub(super) fn fixed(&self, strategy: Strategy, seed: u64, sequence_tokens: u32, steps: u32) -> Recipe {
        let method = match &self.lora {
            None => Method::Full,
            Some(lora) => Method::Lora {
                rank: lora.rank,
                alpha_milli: (lora.alpha * 1e3).round() as u32,
                dropout_ppm: (lora.dropout * 1e6).round() as u32,
                targets: self.targets().unwrap_or(Method::ALL_LINEAR),
            },
        };
        let schedule = match self.schedule {
            ScheduleName::Constant => Schedule::Constant,
            ScheduleName::Linear => Schedule::Linear,
            ScheduleName::Cosine => Schedule::Cosine,
        };
        Recipe {
            version: Recipe::VERSION,
            trainer: TRAINER.to_owned(),
            strategy,
            method,
            learning_rate_nano: (self.learning_rate * 1e9).round() as u64,
            schedule,
            warmup_ppm: (self.warmup * 1e6).round() as u32,
            batch_rows: self.batch_rows,
            accumulation: self.accumulation,
            steps,
            sequence_tokens,
            packing: self.packing,
            weight_decay_ppm: (self.weight_decay * 1e6).round() as u32,
            clip_milli: (self.clip * 1e3).round() as u32,
            seed,
            tokens_trained: 0,
            extra: self.extra(),
        }
    }

    /// The settings that travel under the recipe's free keys, sorted.
    fn extra(&self) -> Vec<(String, String)> {
        let average = match self.loss_average {
            AverageName::Token => None,
            AverageName::Example => Some("example".to_owned()),
        };
        let number = |value: Option<u32>| value.map(|value| value.to_string());
        let keys = [
            (AVERAGE_KEY, average),
            (SHARD_KEY, number(self.shard_tokens)),
            (EMA_KEY, self.ema.map(|decay| ((decay * 1e6).round() as u32).to_string())),
            (BUCKET_KEY, number(self.bucket_steps)),
            (EVALUATE_KEY, number(self.evaluate_every)),
            (PATIENCE_KEY, number(self.patience)),
            (GROUP_KEY, number(self.group_size)),
            (WARM_KEY, number(self.warm_steps)),
            (TEMPERATURE_KEY, self.temperature.map(|warm| ((warm * 1e3).round() as u32).to_string())),
            (RATE_KEY, self.group_rate.map(|share| ((share * 1e6).round() as u32).to_string())),
        ];
        let set = keys.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        let mut extra: Vec<(String, String)> = set.collect();
        extra.sort();
        extra
    }
}

mod back;

#[cfg(test)]
mod tests;

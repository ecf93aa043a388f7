//! Recipes as people write them (TOML or JSON), and the presets of known trainers.

use serde::Deserialize;
use tiltyard_proto::recipe::{Method, Recipe, Schedule, Strategy};

use crate::data::Example;
use crate::data::stream::{StepShape, steps_per_epoch};
use crate::fit::run::AVERAGE_KEY;
use crate::model::adapter::RANK_MAX;
use crate::model::layout::Module;

/// Largest learning rate accepted.
const RATE_MAX: f64 = 10.0;
/// Most rows in a step.
const ROWS_MAX: u32 = 65_536;
/// Name and version written into recipes.
pub const TRAINER: &str = concat!("tiltyard-train ", env!("CARGO_PKG_VERSION"));

/// How a learning rate falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AverageName {
    /// Every token alike.
    #[default]
    Token,
    /// Every row alike, as the score does.
    Example,
}

/// Low-rank adapter settings.
#[derive(Debug, Clone, PartialEq, Deserialize)]
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
    #[serde(default)]
    pub targets: Option<Vec<String>>,
}

fn one() -> u32 {
    1
}

fn clip_default() -> f64 {
    1.0
}

/// A recipe before it meets its data: shares and epochs instead of steps.
#[derive(Debug, Clone, PartialEq, Deserialize)]
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
    pub epochs: Option<f64>,
    /// Optimizer steps.
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
    /// Adapter settings; all weights are trained when absent.
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

/// The presets: the defaults that other trainers ship.
///
/// Sources: AutoTrain 0.8.36 (`app/params.py`), TRL 1.16 `SFTConfig` with PEFT 0.21's
/// `LoraConfig`, axolotl's `examples/llama-3/lora-1b.yml`, LLaMA-Factory 0.9.5's web form.
const PRESETS: [(&str, &str); 4] = [
    (
        "autotrain",
        "learning_rate = 3e-5\nschedule = \"linear\"\nwarmup = 0.1\nbatch_rows = 2\naccumulation = 4\n\
         epochs = 3\n[lora]\nrank = 16\nalpha = 32\ndropout = 0.05\n",
    ),
    (
        "trl",
        "learning_rate = 2e-5\nschedule = \"linear\"\nbatch_rows = 8\nepochs = 3\n\
         [lora]\nrank = 8\nalpha = 8\n",
    ),
    (
        "axolotl",
        "learning_rate = 2e-4\nschedule = \"cosine\"\nwarmup = 0.1\nbatch_rows = 2\naccumulation = 2\n\
         epochs = 1\npacking = true\n[lora]\nrank = 16\nalpha = 32\ndropout = 0.05\n",
    ),
    (
        "llama-factory",
        "learning_rate = 5e-5\nschedule = \"cosine\"\nbatch_rows = 2\naccumulation = 8\nepochs = 3\n\
         [lora]\nrank = 8\nalpha = 16\n",
    ),
];

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

    /// Returns a preset by name.
    ///
    /// # Errors
    /// [`FormError::UnknownPreset`] listing the names known.
    pub fn preset(name: &str) -> Result<Self, FormError> {
        match PRESETS.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => Self::parse(text.as_bytes()),
            None => {
                let known = PRESETS.map(|(name, _)| name).join(", ");
                Err(FormError::UnknownPreset { name: name.chars().take(80).collect(), known })
            }
        }
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

    /// Fixes the recipe for its rows: steps from epochs, cut to the budget of tokens.
    ///
    /// Steps is 0 when the budget does not pay for one.
    ///
    /// # Errors
    /// [`FormError::Value`] when a value is out of range.
    pub fn recipe(
        &self,
        strategy: Strategy,
        seed: u64,
        examples: &[Example],
        budget_tokens: u64,
    ) -> Result<Recipe, FormError> {
        self.check()?;
        let longest = examples.iter().map(|example| example.ids.len()).max().unwrap_or(1);
        let sequence_tokens = if self.packing { longest.max(1_024) } else { longest } as u32;
        let method = match &self.lora {
            None => Method::Full,
            Some(lora) => Method::Lora {
                rank: lora.rank,
                alpha_milli: (lora.alpha * 1e3).round() as u32,
                dropout_ppm: (lora.dropout * 1e6).round() as u32,
                targets: self.targets()?,
            },
        };
        let schedule = match self.schedule {
            ScheduleName::Constant => Schedule::Constant,
            ScheduleName::Linear => Schedule::Linear,
            ScheduleName::Cosine => Schedule::Cosine,
        };
        let blocks = self.batch_rows as usize * self.accumulation as usize;
        let packed_tokens = self.packing.then_some(sequence_tokens as usize);
        let per_epoch = steps_per_epoch(examples, StepShape { blocks, packed_tokens }).max(1);
        let tokens: u64 = examples.iter().map(|example| example.ids.len() as u64).sum();
        let per_step = tokens.div_ceil(per_epoch).max(1);
        let wanted = match self.steps {
            Some(steps) => u64::from(steps),
            None => (self.epochs.unwrap_or(1.0) * per_epoch as f64).ceil() as u64,
        };
        let steps = wanted.min(budget_tokens / per_step);
        let extra = match self.loss_average {
            AverageName::Token => Vec::new(),
            AverageName::Example => vec![(AVERAGE_KEY.to_owned(), "example".to_owned())],
        };
        Ok(Recipe {
            version: Recipe::VERSION,
            trainer: TRAINER.to_owned(),
            strategy,
            method,
            learning_rate_nano: (self.learning_rate * 1e9).round() as u64,
            schedule,
            warmup_ppm: (self.warmup * 1e6).round() as u32,
            batch_rows: self.batch_rows,
            accumulation: self.accumulation,
            steps: u32::try_from(steps).unwrap_or(u32::MAX),
            sequence_tokens,
            packing: self.packing,
            weight_decay_ppm: (self.weight_decay * 1e6).round() as u32,
            clip_milli: (self.clip * 1e3).round() as u32,
            seed,
            tokens_trained: 0,
            extra,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_a_valid_form() {
        for (name, _) in PRESETS {
            Form::preset(name).unwrap();
        }
    }

    #[test]
    fn autotrain_is_its_published_form() {
        let rows: Vec<Example> = (0..600).map(|_| Example { ids: vec![1; 20], prompt: 8 }).collect();
        let form = Form::preset("autotrain").unwrap();
        let recipe = form.recipe(Strategy::Fixed("autotrain".into()), 1, &rows, u64::MAX).unwrap();
        assert_eq!((recipe.learning_rate_nano, recipe.warmup_ppm), (30_000, 100_000));
        assert_eq!((recipe.batch_rows, recipe.accumulation, recipe.steps), (2, 4, 225));
        let targets = Method::ALL_LINEAR;
        let lora = Method::Lora { rank: 16, alpha_milli: 32_000, dropout_ppm: 50_000, targets };
        assert_eq!((recipe.method, recipe.clip_milli, recipe.weight_decay_ppm), (lora, 1_000, 0));
        let cut = form.recipe(Strategy::Fixed("autotrain".into()), 1, &rows, 1_000).unwrap();
        assert_eq!(cut.steps, 6, "160 tokens a step");
    }

    #[test]
    fn errors_name_the_key() {
        let wrong = |text: &str| Form::parse(text.as_bytes()).unwrap_err().to_string();
        let rest = "schedule = \"linear\"\nbatch_rows = 4\nepochs = 1\n";
        assert!(wrong(&format!("learning_rat = 1e-3\n{rest}")).contains("learning_rat"));
        assert!(wrong(&format!("learning_rate = -1.0\n{rest}")).contains("learning_rate = -1"));
        assert!(wrong(&format!("learning_rate = 1e-3\nsteps = 3\n{rest}")).contains("exactly one"));
        let targets = "[lora]\nrank = 4\nalpha = 8\ntargets = [\"lm_head\"]\n";
        assert!(wrong(&format!("learning_rate = 1e-3\n{rest}{targets}")).contains("lm_head"));
        let json = r#"{"learning_rate":1e-3,"schedule":"sine","batch_rows":4,"epochs":1}"#;
        assert!(wrong(json).contains("sine"));
        assert!(Form::preset("nobody").unwrap_err().to_string().contains("llama-factory"));
    }
}

//! From a recipe on the ledger back to a form that people read, change and train with.

use tiltyard_proto::recipe::{Method, Recipe, Schedule};

use super::{AverageName, Form, LoraForm, ScheduleName};
use crate::data::Average;
use crate::fit::group::{GROUP_KEY, RATE_KEY, TEMPERATURE_KEY, WARM_KEY};
use crate::fit::run::RunError;
use crate::fit::settings::{SHARD_TOKENS, Settings, number as free_number};
use crate::model::layout::Module;

impl Form {
    /// The form of a recipe, as many steps long as the recipe was.
    ///
    /// Training with it repeats the recipe's values, not its bytes: the seed is another.
    ///
    /// # Errors
    /// [`RunError::Setting`] when a free key is not understood.
    pub fn of(recipe: &Recipe) -> Result<Self, RunError> {
        let settings = Settings::read(recipe)?;
        let millionths = |ppm: u32| f64::from(ppm) / 1e6;
        let lora = match recipe.method {
            Method::Full => None,
            Method::Lora { rank, alpha_milli, dropout_ppm, targets } => {
                let named = Module::ALL.iter().enumerate().filter(|(bit, _)| targets & (1 << bit) != 0);
                let names = named.map(|(_, module)| module.short_name().to_owned()).collect();
                Some(LoraForm {
                    rank,
                    alpha: f64::from(alpha_milli) / 1e3,
                    dropout: millionths(dropout_ppm),
                    targets: (targets != Method::ALL_LINEAR).then_some(names),
                })
            }
        };
        // Each key is said again only where the recipe says it.
        let said = |key, low, high| free_number(recipe, key, low, high);
        let (size, warm) = (said(GROUP_KEY, 2, 64)?, said(WARM_KEY, 0, u64::from(u32::MAX))?);
        let (temperature, rate) = (said(TEMPERATURE_KEY, 1, 10_000)?, said(RATE_KEY, 1, 1_000_000)?);
        let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Ok(Self {
            learning_rate: recipe.learning_rate_nano as f64 / 1e9,
            schedule: match recipe.schedule {
                Schedule::Constant => ScheduleName::Constant,
                Schedule::Linear => ScheduleName::Linear,
                Schedule::Cosine => ScheduleName::Cosine,
            },
            warmup: millionths(recipe.warmup_ppm),
            batch_rows: recipe.batch_rows,
            accumulation: recipe.accumulation,
            epochs: None,
            steps: Some(recipe.steps),
            packing: recipe.packing,
            weight_decay: millionths(recipe.weight_decay_ppm),
            clip: f64::from(recipe.clip_milli) / 1e3,
            loss_average: match settings.average {
                Average::Token => AverageName::Token,
                Average::Example => AverageName::Example,
            },
            shard_tokens: (settings.shard_tokens != SHARD_TOKENS).then_some(settings.shard_tokens as u32),
            ema: settings.ema_decay_ppm.map(millionths),
            bucket_steps: (settings.bucket_steps > 1).then_some(settings.bucket_steps as u32),
            evaluate_every: settings.evaluate_every_steps.map(number),
            patience: settings.patience,
            group_size: size.map(number),
            warm_steps: warm.map(number),
            temperature: temperature.map(|milli| milli as f64 / 1e3),
            group_rate: rate.map(|ppm| millionths(number(ppm))),
            lora,
        })
    }

    /// Writes the form as a recipe file; [`Form::parse`] reads it.
    pub fn to_toml(&self) -> String {
        // Every field is a number, a word, a list of words or a table of these: nothing TOML lacks.
        toml::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use tiltyard_proto::recipe::Strategy;

    use super::*;
    use crate::strategy::presets;
    use crate::strategy::space::{DIMENSIONS, Space};

    #[test]
    fn a_recipe_written_out_and_read_again_is_the_same_recipe() {
        let rows = [20; 96];
        let mut forms: Vec<Form> =
            presets::names().iter().map(|name| Form::preset(name).expect("known")).collect();
        forms.push(Space { full: false }.point(&[0.9; DIMENSIONS]).form());
        for form in forms {
            let strategy = || Strategy::Fixed("x".into());
            let recipe = form.recipe(strategy(), 7, &rows, 200_000).expect("valid");
            let text = Form::of(&recipe).expect("understood").to_toml();
            let read = Form::parse(text.as_bytes()).expect(&text);
            assert_eq!(read.recipe(strategy(), 7, &rows, 200_000).expect("valid"), recipe, "{text}");
        }
    }
}

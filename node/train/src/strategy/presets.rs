//! The presets: the defaults that other trainers publish, value by value.
//!
//! What is not a hyperparameter is ours for all of them alike: `f32` instead of mixed precision
//! or 4 bits, plain AdamW instead of its 8-bit kinds, and the loss on completions alone (AutoTrain
//! and Together also learn the prompts). Each of these is at least as good as what it replaces.
//!
//! | preset | source |
//! |---|---|
//! | `autotrain-ui` | AutoTrain 0.8.36, `app/params.py`: the web form (LoRA, three epochs, blocks of 1,024) |
//! | `autotrain-cli` | AutoTrain 0.8.36, `trainers/clm/params.py`: the command; without `--peft` all weights are trained |
//! | `autotrain` | `autotrain-ui` with a row a block, for sets that fill few blocks |
//! | `together` | together-python, `resources/finetune.py` (v1.5.7, linear); rank and batch are the server's maxima, here 64 and 8 |
//! | `together-cli` | together-python, `cli/api/finetune.py`: rank and alpha 8, cosine |
//! | `databricks` | databricks-genai 1.1.8, `create.py`: all weights at 5e-7, one epoch; batch and schedule are not documented, here 8 and linear |
//! | `trl` | TRL 1.16 `SFTConfig` with PEFT 0.21's `LoraConfig` |
//! | `axolotl` | axolotl `examples/llama-3/lora-1b.yml` |
//! | `llama-factory` | LLaMA-Factory 0.9.5, its web form |
//! | `gradients-example` | the example trainer of G.O.D (`core/config`): ten steps, all of them warm-up |
//!
//! The `-stretched` forms have the same values and as many steps as the token budget pays for, and
//! give every row a block of its own: packed, a small budget would end after a few dozen steps.

use super::form::{Form, FormError};

/// Steps of a stretched form: more than any budget pays for, so the budget decides.
const STRETCHED_STEPS: u32 = 1_000_000_000;
/// What is appended to a preset's name for its stretched form.
const STRETCHED: &str = "-stretched";

/// Name, form, and whether it has a stretched form.
const PRESETS: [(&str, &str, bool); 10] = [
    (
        "autotrain",
        "learning_rate = 3e-5\nschedule = \"linear\"\nwarmup = 0.1\nbatch_rows = 2\naccumulation = 4\n\
         epochs = 3\n[lora]\nrank = 16\nalpha = 32\ndropout = 0.05\n",
        false,
    ),
    (
        "autotrain-ui",
        "learning_rate = 3e-5\nschedule = \"linear\"\nwarmup = 0.1\nbatch_rows = 2\naccumulation = 4\n\
         epochs = 3\npacking = true\n[lora]\nrank = 16\nalpha = 32\ndropout = 0.05\n",
        true,
    ),
    (
        "autotrain-cli",
        "learning_rate = 3e-5\nschedule = \"linear\"\nwarmup = 0.1\nbatch_rows = 2\naccumulation = 4\n\
         epochs = 1\npacking = true\n",
        true,
    ),
    (
        "together",
        "learning_rate = 1e-5\nschedule = \"linear\"\nbatch_rows = 8\nepochs = 1\npacking = true\n\
         [lora]\nrank = 64\nalpha = 128\n",
        false,
    ),
    (
        "together-cli",
        "learning_rate = 1e-5\nschedule = \"cosine\"\nbatch_rows = 8\nepochs = 1\npacking = true\n\
         [lora]\nrank = 8\nalpha = 8\n",
        false,
    ),
    ("databricks", "learning_rate = 5e-7\nschedule = \"linear\"\nbatch_rows = 8\nepochs = 1\n", false),
    (
        "trl",
        "learning_rate = 2e-5\nschedule = \"linear\"\nbatch_rows = 8\nepochs = 3\n\
         [lora]\nrank = 8\nalpha = 8\n",
        false,
    ),
    (
        "axolotl",
        "learning_rate = 2e-4\nschedule = \"cosine\"\nwarmup = 0.1\nbatch_rows = 2\naccumulation = 2\n\
         epochs = 1\npacking = true\n[lora]\nrank = 16\nalpha = 32\ndropout = 0.05\n",
        true,
    ),
    (
        "llama-factory",
        "learning_rate = 5e-5\nschedule = \"cosine\"\nbatch_rows = 2\naccumulation = 8\nepochs = 3\n\
         [lora]\nrank = 8\nalpha = 16\n",
        false,
    ),
    (
        "gradients-example",
        "learning_rate = 2e-4\nschedule = \"cosine\"\nwarmup = 1.0\nbatch_rows = 2\naccumulation = 4\n\
         steps = 10\n[lora]\nrank = 8\nalpha = 16\ndropout = 0.05\n",
        false,
    ),
];

/// Every name that [`Form::preset`] knows.
pub fn names() -> Vec<String> {
    let plain = PRESETS.iter().map(|(name, ..)| (*name).to_owned());
    let stretched = PRESETS.iter().filter(|(.., stretched)| *stretched);
    plain.chain(stretched.map(|(name, ..)| format!("{name}{STRETCHED}"))).collect()
}

/// Finds a preset.
///
/// # Errors
/// [`FormError::UnknownPreset`] listing the names known.
pub(super) fn find(name: &str) -> Result<Form, FormError> {
    let (plain, stretch) = match name.strip_suffix(STRETCHED) {
        Some(plain) => (plain, true),
        None => (name, false),
    };
    let known = PRESETS.iter().find(|(known, _, may)| *known == plain && (*may || !stretch));
    let Some((_, text, _)) = known else {
        return Err(FormError::UnknownPreset {
            name: name.chars().take(80).collect(),
            known: names().join(", "),
        });
    };
    let mut form = Form::parse(text.as_bytes())?;
    if stretch {
        (form.epochs, form.steps, form.packing) = (None, Some(STRETCHED_STEPS), false);
    }
    Ok(form)
}

#[cfg(test)]
mod tests {
    use tiltyard_proto::recipe::{Method, Recipe, Schedule, Strategy};

    use super::*;

    fn recipe(name: &str, budget: u64) -> Recipe {
        let form = Form::preset(name).expect("a known preset");
        form.recipe(Strategy::Fixed(name.into()), 1, &[20; 600], budget).expect("fits")
    }

    fn lora(rank: u32, alpha: u32, dropout_ppm: u32) -> Method {
        Method::Lora { rank, alpha_milli: alpha * 1_000, dropout_ppm, targets: Method::ALL_LINEAR }
    }

    #[test]
    fn every_preset_is_a_valid_form() {
        for name in names() {
            Form::preset(&name).expect("valid");
        }
    }

    #[test]
    fn presets_are_their_published_values() {
        // Rate in 1e-9, warm-up in ppm, micro-batch, accumulation, steps over 600 rows of 20 tokens.
        let facts = |name: &str| {
            let made = recipe(name, u64::MAX);
            let shape = (made.batch_rows, made.accumulation, made.steps);
            (made.learning_rate_nano, made.warmup_ppm, shape, made.schedule, made.method)
        };
        let (linear, cosine) = (Schedule::Linear, Schedule::Cosine);
        let autotrain = lora(16, 32, 50_000);
        assert_eq!(facts("autotrain"), (30_000, 100_000, (2, 4, 225), linear, autotrain));
        assert_eq!(facts("autotrain-ui"), (30_000, 100_000, (2, 4, 6), linear, autotrain));
        assert_eq!(facts("autotrain-cli"), (30_000, 100_000, (2, 4, 2), linear, Method::Full));
        assert_eq!(facts("together"), (10_000, 0, (8, 1, 2), linear, lora(64, 128, 0)));
        assert_eq!(facts("together-cli"), (10_000, 0, (8, 1, 2), cosine, lora(8, 8, 0)));
        assert_eq!(facts("databricks"), (500, 0, (8, 1, 75), linear, Method::Full));
        assert_eq!(facts("trl"), (20_000, 0, (8, 1, 225), linear, lora(8, 8, 0)));
        assert_eq!(facts("axolotl"), (200_000, 100_000, (2, 2, 3), cosine, autotrain));
        assert_eq!(facts("llama-factory"), (50_000, 0, (2, 8, 114), cosine, lora(8, 16, 0)));
        assert_eq!(facts("gradients-example"), (200_000, 1_000_000, (2, 4, 10), cosine, lora(8, 16, 50_000)));
    }

    #[test]
    fn a_stretched_form_spends_the_whole_budget_and_changes_nothing_else() {
        for name in ["autotrain-ui", "autotrain-cli", "axolotl"] {
            let (plain, stretched) = (recipe(name, 300_000), recipe(&format!("{name}-stretched"), 300_000));
            let step = u64::from(stretched.batch_rows * stretched.accumulation) * 20;
            assert_eq!(u64::from(stretched.steps), 300_000 / step, "{name}");
            assert_eq!(plain.learning_rate_nano, stretched.learning_rate_nano);
            assert_eq!((plain.method, plain.schedule), (stretched.method, stretched.schedule));
        }
        let error = Form::preset("together-stretched").expect_err("has none");
        assert!(error.to_string().contains("autotrain-ui-stretched"), "{error}");
    }
}

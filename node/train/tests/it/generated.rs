//! The kinds that make something, on real data: answers graded by rewards, and pictures.

use std::path::{Path, PathBuf};

use tiltyard_proto::recipe::{Method, Recipe, Schedule, Strategy};
use tiltyard_proto::task::TaskKind;
use tiltyard_train::fit::run::{Run, RunError};
use tiltyard_train::fit::settings::Settings;
use tiltyard_train::kind::{self, Rows};
use tiltyard_train::model::Model;
use tiltyard_train::picture::sample::pictures;

fn assets() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testnet/assets")
}

/// A base with the rows of a set.
struct Trial {
    kind: TaskKind,
    folder: PathBuf,
    base: Model,
    train: String,
    eval: String,
}

impl Trial {
    fn new(base: &str, set: &str, kind: TaskKind) -> Self {
        let folder = assets().join(base);
        let read = |name: &str| std::fs::read_to_string(assets().join("data").join(set).join(name)).unwrap();
        let (train, eval) = (read("train.jsonl"), read("eval.jsonl"));
        Self { kind, base: Model::load(&folder, 1 << 30).unwrap(), folder, train, eval }
    }

    fn rows(&self, text: &str) -> Box<dyn Rows> {
        let context = self.base.context();
        let mut rows = kind::open(&self.kind, &self.folder, self.base.config(), context).unwrap();
        kind::read(rows.as_mut(), text.as_bytes()).unwrap();
        rows
    }

    /// Trains on rows and gives the model.
    fn learn(&self, text: &str, recipe: &Recipe, workers: usize) -> Result<Model, RunError> {
        let rows = self.rows(text);
        let objective = rows.objective(&self.base, &Settings::read(recipe)?, workers)?;
        let mut run = Run::with_objective(&self.base, recipe.clone(), objective, workers)?;
        while run.step() < u64::from(recipe.steps) {
            run.advance()?;
        }
        run.result()
    }

    fn score(&self, model: &Model) -> f64 {
        self.rows(&self.eval).score(&self.base, model, 2).unwrap().mean()
    }
}

fn recipe(method: Method, rate: f64, rows: u32, steps: u32, extra: &[(&str, &str)]) -> Recipe {
    Recipe {
        version: Recipe::VERSION,
        trainer: "test".into(),
        strategy: Strategy::Fixed("test".into()),
        method,
        learning_rate_nano: (rate * 1e9) as u64,
        schedule: Schedule::Constant,
        warmup_ppm: 20_000,
        batch_rows: rows,
        accumulation: 1,
        steps,
        sequence_tokens: 32,
        packing: false,
        weight_decay_ppm: 0,
        clip_milli: 1_000,
        seed: 1,
        tokens_trained: 0,
        extra: extra.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
    }
}

const LORA: Method =
    Method::Lora { rank: 8, alpha_milli: 16_000, dropout_ppm: 0, targets: Method::ALL_LINEAR };

/// The pixels of every picture in another order of its own.
fn scrambled(text: &str) -> String {
    let line = |(at, line): (usize, &str)| {
        let digits = line.trim_start_matches("{\"image\": \"").trim_end_matches("\"}");
        let mut pixels: Vec<&str> = (0..64).map(|pixel| &digits[2 * pixel..2 * pixel + 2]).collect();
        let mut state = at as u64;
        for last in (1..64).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            pixels.swap(last, (state >> 33) as usize % (last + 1));
        }
        format!("{{\"image\": \"{}\"}}\n", pixels.concat())
    };
    text.lines().enumerate().map(line).collect()
}

#[test]
fn pictures_of_a_new_digit_are_learned_and_scrambled_ones_are_not() {
    let trial = Trial::new("base-digits", "digits", TaskKind::Diffusion { levels: 4 });
    let before = trial.score(&trial.base);
    for (method, rate) in [(LORA, 2e-3), (Method::Full, 5e-4)] {
        let recipe = recipe(method, rate, 16, 150, &[("ema-decay-ppm", "980000")]);
        let after = trial.score(&trial.learn(&trial.train, &recipe, 2).unwrap());
        let spoiled = trial.score(&trial.learn(&scrambled(&trial.train), &recipe, 2).unwrap());
        println!("pictures, {method:?}: base {before:.4} trained {after:.4} scrambled {spoiled:.4}");
        assert_eq!(before, 1.0);
        assert!(after < 0.97 && spoiled > 1.0, "{after} {spoiled}");
    }
}

#[test]
fn pictures_have_the_same_bits_at_any_number_of_workers_and_in_any_company() {
    let trial = Trial::new("base-digits", "digits", TaskKind::Diffusion { levels: 3 });
    let recipe = recipe(LORA, 2e-3, 20, 3, &[("shard-tokens", "64")]);
    let model = trial.learn(&trial.train, &recipe, 1).unwrap();
    let again = trial.learn(&trial.train, &recipe, 3).unwrap();
    let rows = trial.rows(&trial.eval);
    let whole = rows.score(&trial.base, &model, 1).unwrap().scores;
    assert_eq!(whole, rows.score(&trial.base, &again, 3).unwrap().scores);
    assert_eq!(whole[3..6], rows.pick(&[1]).score(&trial.base, &model, 1).unwrap().scores);
    let drawn = pictures(&model, 3, 5).unwrap();
    assert_eq!(drawn, pictures(&again, 3, 5).unwrap());
    assert_eq!(drawn[..1], pictures(&model, 1, 5).unwrap());
}

#[test]
fn a_reward_that_never_fires_ends_the_run_and_says_what_to_do() {
    let trial = Trial::new("base", "sums", TaskKind::Grpo { tokens_max: 2 });
    let row = r#"{"prompt": "21 + 48 =", "reward": {"exact": "no such answer"}}"#;
    let recipe = recipe(LORA, 1e-4, 2, 100, &[("group-size", "2")]);
    let error = trial.learn(row, &recipe, 1).unwrap_err();
    assert!(
        matches!(error, RunError::NeverEnds { steps: 20, tokens: 2 } | RunError::NoReward { steps: 20 }),
        "{error}"
    );
    let warm = Recipe { extra: vec![("warm-steps".into(), "1".into())], ..recipe };
    assert!(matches!(trial.learn(row, &warm, 1), Err(RunError::NoReference { row: 1 })));
}

#[test]
fn answers_earn_more_after_training_on_rewards_and_nothing_after_shuffled_ones() {
    let trial = Trial::new("base", "sums", TaskKind::Grpo { tokens_max: 5 });
    // Rewards a number near the sum, and more the sum itself.
    let near = |text: &str, turn: usize| -> String {
        let rows: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let row = |at: usize| {
            let other = &rows[(at + turn) % rows.len()];
            let value = &other["reward"]["numeric"]["value"];
            let reward = serde_json::json!({"sum": [
                {"weight": 1, "reward": {"numeric": {"value": value, "tolerance": 9}}},
                {"weight": 1, "reward": {"numeric": {"value": value}}}]});
            let row = serde_json::json!({"prompt": rows[at]["prompt"], "reward": reward, "completion": other["completion"]});
            format!("{row}\n")
        };
        (0..rows.len()).map(row).collect()
    };
    let trial = Trial { eval: near(&trial.eval, 0), ..trial };
    let keys = |warm| [("group-rate-ppm", "300000"), ("group-size", "8"), ("warm-steps", warm)];
    let warm = recipe(Method::Full, 1e-3, 16, 120, &keys("120"));
    let whole = recipe(Method::Full, 1e-3, 16, 150, &keys("120"));
    let (real, shuffled) = (near(&trial.train, 0), near(&trial.train, 1));
    let before = trial.score(&trial.base);
    let warmed = trial.score(&trial.learn(&real, &warm, 2).unwrap());
    let after = trial.score(&trial.learn(&real, &whole, 2).unwrap());
    let spoiled = trial.score(&trial.learn(&shuffled, &whole, 2).unwrap());
    println!("answers: base {before:.4} warmed up {warmed:.4} trained {after:.4} shuffled {spoiled:.4}");
    assert!(
        before > 0.99 && after + 0.05 < warmed && after + 0.2 < spoiled,
        "{before} {warmed} {after} {spoiled}"
    );
}

//! Measures training, evaluation and generation; `scripts/bench-train.sh` runs it beside PyTorch.
//!
//! ```text
//! bench prepare DIR [BASE]          writes DIR/rows.json (and DIR/base, of random weights in
//!                                   SmolLM2-135M's shape, unless BASE is given) and the
//!                                   adapter that both sides start from
//! bench train DIR KEY=VALUE...      method=lora|full rows=full|mixed targets=part|all steps=N
//!                                   workers=N shard=TOKENS recompute=yes|no
//! bench eval DIR KEY=VALUE...       rows=full|mixed targets=part|all workers=N count=ROWS
//! bench generate DIR KEY=VALUE...   batch=N new=TOKENS workers=N
//! ```
//! Each prints one JSON object.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tiltyard_proto::recipe::{Method, Recipe, Schedule, Strategy};
use tiltyard_train::fit::objective::{Objective, Step};
use tiltyard_train::fit::run::{Run, RunError};
use tiltyard_train::loss::{Row, log_probs, mean_weight, shards};
use tiltyard_train::model::adapter::AdapterSpec;
use tiltyard_train::model::config::{Config, Family};
use tiltyard_train::model::generate::{Choice, Generation};
use tiltyard_train::model::rotary::Rotary;
use tiltyard_train::model::{Batch, FileType, Model};

/// Rows of one step, in a batch of one micro-batch.
const BATCH: usize = 4;
/// Tokens of the longest row.
const SEQUENCE: usize = 128;
/// Rows of each set; steps go round.
const ROWS: usize = 32;
const RATE: f64 = 2e-4;
const RANK: u32 = 16;

/// One row of `rows.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    ids: Vec<u32>,
    prompt: usize,
}

/// What both sides read.
#[derive(Debug, Serialize, Deserialize)]
struct Sets {
    batch: usize,
    rate: f64,
    rank: u32,
    base: PathBuf,
    sets: BTreeMap<String, Vec<Saved>>,
}

fn smollm2_shape() -> Config {
    Config {
        family: Family::Llama,
        vocab: 49_152,
        hidden: 576,
        inner: 1_536,
        layers: 30,
        query_heads: 9,
        key_heads: 3,
        head_dim: 64,
        rotary: Rotary::plain(100_000.0),
        rms_eps: 1e-5,
        positions: 2_048,
        tied: true,
        eos: 2,
    }
}

/// Draws tokens and lengths by a small fixed generator.
fn draw(state: &mut u64, bound: usize) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    ((*state >> 33) as usize) % bound.max(1)
}

fn prepare(folder: &Path, base: Option<PathBuf>) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(folder)?;
    let base = match base {
        Some(base) => std::fs::canonicalize(base)?,
        None => {
            let base = folder.join("base");
            std::fs::create_dir_all(&base)?;
            let model = Model::random(smollm2_shape(), 7)?;
            std::fs::write(base.join("model.safetensors"), model.to_safetensors(FileType::F32)?)?;
            std::fs::write(base.join("config.json"), model.config().to_json("float32")?)?;
            std::fs::canonicalize(base)?
        }
    };
    let model = Model::load(&base, 64 << 30)?;
    // Words of a few hundred kinds, so that fifty steps have something to learn.
    let (mut state, vocab) = (7u64, model.config().vocab.min(400));
    let mut set = |full: bool, all: bool| -> Vec<Saved> {
        let row = |_| {
            let length = if full { SEQUENCE } else { 24 + draw(&mut state, SEQUENCE - 23) };
            let ids = (0..length).map(|_| 1 + draw(&mut state, vocab - 1) as u32).collect();
            Saved { ids, prompt: if all { 1 } else { length * 65 / 100 } }
        };
        (0..ROWS).map(row).collect()
    };
    let names = [
        ("full-part", true, false),
        ("full-all", true, true),
        ("mixed-part", false, false),
        ("mixed-all", false, true),
    ];
    let sets = names.map(|(name, full, all)| (name.to_owned(), set(full, all))).into_iter().collect();
    let saved = Sets { batch: BATCH, rate: RATE, rank: RANK, base, sets };
    std::fs::write(folder.join("rows.json"), serde_json::to_vec(&saved)?)?;
    let run = Run::with_objective(&model, recipe("lora", 1, 256), Box::new(Rounds(Vec::new())), 1)?;
    let adapter = folder.join("adapter");
    std::fs::create_dir_all(&adapter)?;
    let spec = AdapterSpec::from_method(&run.recipe().method).ok_or("an adapter was asked for")?;
    std::fs::write(adapter.join("adapter_config.json"), spec.to_json()?)?;
    let weights = run.result()?.adapter_to_safetensors(FileType::F32)?.ok_or("an adapter was asked for")?;
    std::fs::write(adapter.join("adapter_model.safetensors"), weights)?;
    Ok(())
}

fn recipe(method: &str, steps: u32, shard: usize) -> Recipe {
    let method = match method {
        "full" => Method::Full,
        _ => Method::Lora { rank: RANK, alpha_milli: 32_000, dropout_ppm: 0, targets: Method::ALL_LINEAR },
    };
    Recipe {
        version: Recipe::VERSION,
        trainer: "bench".to_owned(),
        strategy: Strategy::Fixed("bench".to_owned()),
        method,
        learning_rate_nano: (RATE * 1e9).round() as u64,
        schedule: Schedule::Constant,
        warmup_ppm: 0,
        batch_rows: BATCH as u32,
        accumulation: 1,
        steps,
        sequence_tokens: SEQUENCE as u32,
        packing: false,
        weight_decay_ppm: 0,
        clip_milli: 1_000,
        seed: 7,
        tokens_trained: 0,
        extra: vec![("shard-tokens".to_owned(), shard.to_string())],
    }
}

/// The rows in their order, [`BATCH`] a step, round and round: as the other side reads them.
#[derive(Debug)]
struct Rounds(Vec<Row>);

impl Objective for Rounds {
    fn lengths(&self) -> Vec<usize> {
        self.0.iter().map(|row| row.ids.len()).collect()
    }

    fn shards(&self, step: &Step<'_>, _rows: &[usize]) -> Result<Vec<Batch>, RunError> {
        let first = step.number as usize * BATCH % self.0.len().max(1);
        let mut rows = self.0[first..(first + BATCH).min(self.0.len())].to_vec();
        let targets: usize = rows.iter().map(|row| row.golds.len()).sum();
        for gold in rows.iter_mut().flat_map(|row| &mut row.golds) {
            gold.weight = mean_weight(targets);
        }
        Ok(shards(&rows, step.shard_tokens))
    }
}

/// Arguments of the form `key=value`.
struct Values(BTreeMap<String, String>);

impl Values {
    fn text(&self, key: &str, default: &str) -> String {
        self.0.get(key).cloned().unwrap_or_else(|| default.to_owned())
    }

    fn number(&self, key: &str, default: usize) -> Result<usize, Box<dyn Error>> {
        Ok(self.text(key, &default.to_string()).parse()?)
    }
}

fn read(folder: &Path, values: &Values) -> Result<(Sets, Vec<Row>, Model), Box<dyn Error>> {
    let sets: Sets = serde_json::from_slice(&std::fs::read(folder.join("rows.json"))?)?;
    let name = format!("{}-{}", values.text("rows", "full"), values.text("targets", "part"));
    let rows = sets.sets.get(&name).ok_or(format!("there is no set {name}"))?;
    let rows = rows.iter().map(|row| Row::completion(row.ids.clone(), row.prompt, 1.0)).collect();
    let model = Model::load(&sets.base, 64 << 30)?;
    Ok((sets, rows, model))
}

/// The most memory this process ever held, in MB.
fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kb = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kb.unwrap_or(0) / 1_024
}

/// Processor time of this process so far, in seconds, by the kernel's hundredths.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    // User and system time are the 14th and 15th field, the second ended at the bracket.
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn train(folder: &Path, values: &Values) -> Result<serde_json::Value, Box<dyn Error>> {
    let (_, rows, model) = read(folder, values)?;
    let loaded_mb = peak_mb();
    let steps = values.number("steps", 8)?;
    let recipe = recipe(&values.text("method", "lora"), steps as u32, values.number("shard", 256)?);
    let workers = values.number("workers", 1)?;
    let mut run = Run::with_objective(&model, recipe, Box::new(Rounds(rows)), workers)?;
    drop(model);
    run.recompute(values.text("recompute", "no") == "yes");
    let (mut losses, mut tokens, mut seconds, mut cpu) = (Vec::new(), 0, 0.0, 0.0);
    for step in 0..steps {
        let (started, cpu_before) = (Instant::now(), cpu_s());
        let report = run.advance()?;
        losses.push(report.loss);
        // The first step warms up memory on both sides.
        if step > 0 || steps == 1 {
            seconds += started.elapsed().as_secs_f64();
            cpu += cpu_s() - cpu_before;
            tokens += report.tokens;
        }
    }
    let (speed, cpu) = (tokens as f64 / seconds, tokens as f64 / cpu);
    Ok(serde_json::json!({
        "tokens_per_s": speed,
        "tokens_per_cpu_s": cpu,
        "losses": losses,
        "peak_mb": peak_mb(),
        "loaded_mb": loaded_mb,
    }))
}

fn evaluate(folder: &Path, values: &Values) -> Result<serde_json::Value, Box<dyn Error>> {
    let (_, mut rows, model) = read(folder, values)?;
    rows.truncate(values.number("count", ROWS)?);
    let workers = values.number("workers", 1)?;
    log_probs(&model, &rows[..1], 1)?;
    let (started, cpu_before) = (Instant::now(), cpu_s());
    let said = log_probs(&model, &rows, workers)?;
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_s() - cpu_before);
    let tokens: usize = rows.iter().map(|row| row.ids.len()).sum();
    let count = said.iter().map(Vec::len).sum::<usize>();
    let loss = -said.iter().flatten().sum::<f64>() / count.max(1) as f64;
    Ok(
        serde_json::json!({ "tokens_per_s": tokens as f64 / seconds, "tokens_per_cpu_s": tokens as f64 / cpu, "loss": loss, "peak_mb": peak_mb() }),
    )
}

fn generate(folder: &Path, values: &Values) -> Result<serde_json::Value, Box<dyn Error>> {
    let (_, rows, model) = read(folder, values)?;
    let batch = values.number("batch", 1)?;
    let prompts: Vec<&[u32]> =
        rows.iter().cycle().take(batch).map(|row| &row.ids[..32.min(row.ids.len())]).collect();
    let new_tokens_max = values.number("new", 48)?;
    let workers = values.number("workers", 1)?;
    // No token stops: both sides make as many.
    let what = Generation { new_tokens_max, stop: u32::MAX, choice: Choice::Greedy, workers };
    model.generate(&prompts[..1], &Generation { new_tokens_max: 2, ..what })?;
    let (started, cpu_before) = (Instant::now(), cpu_s());
    let made = model.generate(&prompts, &what)?;
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_s() - cpu_before);
    let tokens: usize = made.iter().map(|made| made.tokens.len()).sum();
    let first: Vec<u32> = made.first().map(|made| made.tokens.clone()).unwrap_or_default();
    Ok(
        serde_json::json!({ "tokens_per_s": tokens as f64 / seconds, "tokens_per_cpu_s": tokens as f64 / cpu, "peak_mb": peak_mb(), "first": first }),
    )
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [command, folder, rest @ ..] = words.as_slice() else {
        return Err("usage: bench prepare|train|eval|generate DIR …; see the file's first lines".into());
    };
    let folder = Path::new(folder);
    if command == "prepare" {
        return prepare(folder, rest.first().map(PathBuf::from));
    }
    let mut values = Values(BTreeMap::new());
    for word in rest {
        let (key, value) = word.split_once('=').ok_or(format!("{word:?} is not KEY=VALUE"))?;
        values.0.insert(key.to_owned(), value.to_owned());
    }
    let result = match command.as_str() {
        "train" => train(folder, &values)?,
        "eval" => evaluate(folder, &values)?,
        "generate" => generate(folder, &values)?,
        other => return Err(format!("there is no command {other:?}").into()),
    };
    println!("{result}");
    Ok(())
}

//! A trainer that is not ours: a command that works in the job's folder (docs/job-folder.md).
//!
//! The command is the miner's own and is trusted with the miner's machine; what it leaves
//! is not trusted with anything: it is read by the same loader as a stranger's checkpoint.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use serde_json::Value;
use tiltyard_proto::limits::RECIPE_BYTES_MAX;
use tiltyard_proto::manifest::BlobKind;
use tiltyard_proto::recipe::{Method, Recipe, Schedule, Strategy, training_seed};

use super::progress::ProgressLine;
use super::result::{CHECKPOINT_DIR, JobResult, TrainResult};
use super::spec::{External, TrainSpec};
use super::{JobError, eval, files};
use crate::model::Model;
use crate::model::adapter::{AdapterSpec, CONFIG_FILE, WEIGHTS_FILE};
use crate::model::layout::Module;
use crate::safe::{SINGLE_FILE, read_bytes};
use crate::strategy::StrategyError;
use crate::strategy::session::{FINISH_FILE, STOP_FILE};

/// The command's own folder inside the job's.
pub const EXTERNAL_DIR: &str = "external";
/// What the command may say about how it trained, inside its folder.
const RECIPE_FILE: &str = "recipe.json";
const RECIPE_FILE_BYTES_MAX: u64 = 64 << 10;
/// How often the command is looked after.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long it may take to end when asked to.
const GRACE: Duration = Duration::from_secs(60);
/// The last words of the command that an error repeats, in bytes.
const WORDS_BYTES: u64 = 2_000;

/// Says why an external trainer gave no checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum ExternalError {
    /// The command cannot be started.
    #[error("external trainer {command:?} cannot be started: {source}; check the path and its permissions")]
    Start {
        /// The program.
        command: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The command failed.
    #[error("external trainer ended with {status}; its last words: {words}")]
    Failed {
        /// Exit code or signal.
        status: String,
        /// The end of its log.
        words: String,
    },
    /// The command went on beyond a limit and was killed.
    #[error("external trainer was killed: it used more than {limit}, and left no checkpoint")]
    Killed {
        /// The limit.
        limit: String,
    },
    /// The command ended well and left nothing.
    #[error(
        "external trainer left no checkpoint; it must write {CONFIG_FILE} and {WEIGHTS_FILE}, or {SINGLE_FILE}, into {path}"
    )]
    Nothing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// What it left is refused.
    #[error("external trainer's checkpoint is refused: {fact}")]
    Refused {
        /// Why.
        fact: String,
    },
    /// What it says of itself is refused.
    #[error("external trainer's {RECIPE_FILE} is refused: {fact}")]
    Recipe {
        /// Why.
        fact: String,
    },
}

fn refused(fact: impl ToString) -> ExternalError {
    ExternalError::Refused { fact: fact.to_string() }
}

/// How the command came to its end.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// By itself, well.
    Done,
    /// Killed at a limit.
    Killed(String),
}

/// Runs the command, checks what it leaves, and puts it in its place.
pub(super) fn run(folder: &Path, spec: &TrainSpec, external: &External) -> Result<JobResult, JobError> {
    let own = folder.join(EXTERNAL_DIR);
    files::create_dir(&own)?;
    let end = supervise(folder, &own, spec, external)?;
    let left = own.join(CHECKPOINT_DIR);
    let kind = match (left.join(CONFIG_FILE).exists(), left.join(SINGLE_FILE).exists()) {
        (true, _) => BlobKind::Adapter,
        (false, true) => BlobKind::Model,
        (false, false) => {
            return Err(match end {
                End::Killed(limit) => ExternalError::Killed { limit },
                End::Done => ExternalError::Nothing { path: left },
            }
            .into());
        }
    };
    let method = check(&left, kind, spec)?;
    let recipe = recipe(&own, external, spec, method, tokens(folder))?;
    let checkpoint = folder.join(CHECKPOINT_DIR);
    let fresh = files::fresh_dir(&checkpoint)?;
    let names: &[&str] =
        if kind == BlobKind::Adapter { &[CONFIG_FILE, WEIGHTS_FILE] } else { &[SINGLE_FILE] };
    for name in names {
        let bytes = read_bytes(&left.join(name), spec.checkpoint_bytes_max)?;
        let bytes = if *name == CONFIG_FILE { without_paths(&bytes)? } else { bytes };
        files::write(&fresh.join(name), &bytes)?;
    }
    files::swap_dir(&checkpoint)?;
    Ok(JobResult::Trained(Box::new(TrainResult {
        kind,
        recipe,
        resumed_from_step: 0,
        validation_micro: None,
        finished_early: folder.join(FINISH_FILE).exists() || end != End::Done,
        validation_accuracy_ppm: None,
    })))
}

/// Starts the command in a process group of its own and looks after it until it ends.
fn supervise(folder: &Path, own: &Path, spec: &TrainSpec, external: &External) -> Result<End, JobError> {
    let log = own.join("trainer.log");
    let writing = |source| files::FileError::Write { path: log.clone(), source };
    let out = std::fs::File::create(&log).map_err(writing)?;
    let both = out.try_clone().map_err(writing)?;
    let program = external.command.first().map_or("", String::as_str);
    let mut child = Command::new(program)
        .args(external.command.iter().skip(1))
        .arg(folder)
        .env("TILTYARD_JOB_PARENT", std::process::id().to_string())
        .env("TILTYARD_BASE", &spec.base)
        .env("TILTYARD_TRAINING", spec.training.join("train.jsonl"))
        .env("TILTYARD_OUT", own.join(CHECKPOINT_DIR))
        .env("TILTYARD_SEED", training_seed(&spec.task, &spec.miner).to_string())
        .env("TILTYARD_TOKENS", spec.budget_tokens.to_string())
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(both)
        .process_group(0)
        .spawn()
        .map_err(|source| ExternalError::Start { command: program.to_owned(), source })?;
    let started = Instant::now();
    let mut asked: Option<Instant> = None;
    loop {
        let ended = child
            .try_wait()
            .map_err(|source| ExternalError::Start { command: program.to_owned(), source })?;
        match ended {
            Some(status) if status.success() => return Ok(End::Done),
            Some(status) => {
                let words = last_words(&log);
                return Err(ExternalError::Failed { status: status.to_string(), words }.into());
            }
            None => {}
        }
        if folder.join(STOP_FILE).exists() {
            kill(&mut child);
            return Err(StrategyError::Stopped.into());
        }
        if folder.join(FINISH_FILE).exists() && asked.is_none() {
            asked = Some(Instant::now());
        }
        let over = match asked {
            _ if started.elapsed() > Duration::from_secs(external.seconds_max) => {
                Some(format!("{} seconds", external.seconds_max))
            }
            Some(at) if at.elapsed() > GRACE => Some(format!("{} seconds to finish", GRACE.as_secs())),
            // A tenth more than allowed: a trainer counts a step only when it has taken it.
            _ if tokens(folder) > spec.budget_tokens.saturating_add(spec.budget_tokens / 10) => {
                Some(format!("{} tokens", spec.budget_tokens))
            }
            Some(_) | None => None,
        };
        if let Some(limit) = over {
            kill(&mut child);
            return Ok(End::Killed(limit));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Kills the command with all it started, and reaps it.
fn kill(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // Gone already is as good.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Tokens that the command says it has trained on, by its last line of progress.
fn tokens(folder: &Path) -> u64 {
    let Ok(file) = std::fs::File::open(folder.join("progress.jsonl")) else { return 0 };
    let lines = BufReader::new(file).lines().map_while(Result::ok);
    let read = |line: String| serde_json::from_str::<ProgressLine>(&line).ok();
    lines.filter_map(read).map(|line| line.tokens).max().unwrap_or(0)
}

fn last_words(log: &Path) -> String {
    let bytes = read_bytes(log, 64 << 20).unwrap_or_default();
    let from = bytes.len().saturating_sub(WORDS_BYTES as usize);
    String::from_utf8_lossy(&bytes[from..]).trim().to_owned()
}

/// Reads the checkpoint as a judge would and says what it trained.
fn check(left: &Path, kind: BlobKind, spec: &TrainSpec) -> Result<Method, JobError> {
    let mut model: Model = eval::load_base(&spec.base)?;
    let bytes: u64 = [CONFIG_FILE, WEIGHTS_FILE, SINGLE_FILE]
        .iter()
        .filter_map(|name| std::fs::metadata(left.join(name)).ok())
        .map(|meta| meta.len())
        .sum();
    if bytes > spec.checkpoint_bytes_max {
        let limit = spec.checkpoint_bytes_max;
        return Err(
            refused(format!("it has {bytes} bytes, the task allows {limit}; train a smaller rank")).into()
        );
    }
    if kind == BlobKind::Model {
        model.load_checkpoint(left, spec.checkpoint_bytes_max).map_err(refused)?;
        return Ok(Method::Full);
    }
    let adapter = model.load_adapter(left, spec.checkpoint_bytes_max).map_err(refused)?;
    Ok(method(&adapter))
}

fn method(adapter: &AdapterSpec) -> Method {
    let bit =
        |module: &Module| Module::ALL.iter().position(|other| other == module).map_or(0, |bit| 1u8 << bit);
    Method::Lora {
        rank: adapter.rank,
        alpha_milli: (adapter.alpha * 1e3).round() as u32,
        dropout_ppm: 0,
        targets: adapter.modules.iter().map(bit).sum(),
    }
}

/// Drops what names places on this machine from an adapter's settings.
fn without_paths(bytes: &[u8]) -> Result<Vec<u8>, ExternalError> {
    let mut settings: serde_json::Map<String, Value> = serde_json::from_slice(bytes).map_err(refused)?;
    for key in ["base_model_name_or_path", "revision", "auto_mapping"] {
        if settings.contains_key(key) {
            settings.insert(key.to_owned(), Value::Null);
        }
    }
    serde_json::to_vec_pretty(&settings).map_err(refused)
}

/// A command's name for people: its first two words without their folders, at most 32 bytes.
fn name(command: &[String]) -> String {
    // What stands before `--` is ours, not the miner's.
    let own = command.iter().position(|word| word == "--").map_or(0, |at| at + 1);
    let words = command.iter().skip(own).take(2).map(|word| word.rsplit('/').next().unwrap_or(word));
    let mut name = words.collect::<Vec<_>>().join(" ");
    while name.len() > 32 {
        name.pop();
    }
    name
}

/// What a command may say of itself; everything is optional, unknown keys are refused.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Said {
    trainer: Option<String>,
    learning_rate: f64,
    batch_rows: u32,
    accumulation: u32,
    steps: u32,
    sequence_tokens: u32,
    packing: bool,
    tokens_trained: u64,
    /// Free settings, as text.
    extra: std::collections::BTreeMap<String, String>,
}

fn recipe(
    own: &Path,
    external: &External,
    spec: &TrainSpec,
    method: Method,
    tokens: u64,
) -> Result<Recipe, JobError> {
    let path = own.join(RECIPE_FILE);
    let wrong = |fact: String| ExternalError::Recipe { fact };
    let said: Said = match path.exists() {
        true => serde_json::from_slice(&read_bytes(&path, RECIPE_FILE_BYTES_MAX)?)
            .map_err(|error| wrong(error.to_string()))?,
        false => Said::default(),
    };
    let rate = said.learning_rate;
    if !(rate.is_finite() && (0.0..=10.0).contains(&rate)) {
        return Err(wrong(format!("learning_rate {rate} is not from 0 to 10")).into());
    }
    let recipe = Recipe {
        version: Recipe::VERSION,
        trainer: said.trainer.unwrap_or_else(|| "external".to_owned()),
        strategy: Strategy::External(name(&external.command)),
        method,
        learning_rate_nano: (rate * 1e9).round() as u64,
        schedule: Schedule::Constant,
        warmup_ppm: 0,
        batch_rows: said.batch_rows,
        accumulation: said.accumulation,
        steps: said.steps,
        sequence_tokens: said.sequence_tokens,
        packing: said.packing,
        weight_decay_ppm: 0,
        clip_milli: 0,
        seed: training_seed(&spec.task, &spec.miner),
        tokens_trained: said.tokens_trained.max(tokens),
        extra: said.extra.into_iter().collect(),
    };
    recipe.check().map_err(|error| wrong(error.to_string()))?;
    let bytes = recipe.encode().len();
    match bytes > RECIPE_BYTES_MAX {
        true => Err(wrong(format!("the recipe has {bytes} bytes, {RECIPE_BYTES_MAX} are allowed")).into()),
        false => Ok(recipe),
    }
}

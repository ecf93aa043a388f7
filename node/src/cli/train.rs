//! `tiltyard train`: the trainer without a network, for a person in front of a terminal.

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use tiltyard_keys::SecretKey;
use tiltyard_proto::ids::TaskId;
use tiltyard_proto::task::TaskKind;
use tiltyard_train::data::import::{self, Columns};
use tiltyard_train::job::curves;
use tiltyard_train::job::progress::{Phase, ProgressLine};
use tiltyard_train::job::result::{CHECKPOINT_DIR, EvalResult, JobResult, TrainResult};
use tiltyard_train::job::spec::{
    Activations, DeviceSpec, EvalSpec, EvaluationSource, JobSpec, Limits, StrategySpec, Subject, TrainSpec,
};
use tiltyard_train::kind as rows_of;
use tiltyard_train::model::config::Config;
use tiltyard_train::safe::read_small;

use super::kind::KindArgs;
use super::{Answer, CliError};
use crate::home;
use crate::jobs::{self, Work};

/// The job's folder inside the one that is written; it lets a killed training go on.
const JOB_DIR: &str = "job";
/// How often progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often a line is printed where there is no terminal.
const PRINT_EVERY: Duration = Duration::from_secs(10);
/// Largest checkpoint, in bytes.
const CHECKPOINT_BYTES_MAX: u64 = 64 << 30;
/// Tokens of a search, as times through the training rows.
const SEARCH_EPOCHS: u64 = 20;
/// Tokens of a recipe that ends by itself.
const TOKENS_MAX: u64 = 1 << 40;
/// Steps between saved states.
const SAVE_EVERY_STEPS: u64 = 20;

/// Options of `train`.
#[derive(Debug, Args)]
pub(crate) struct Train {
    /// Base model's folder.
    #[arg(long, value_name = "DIR")]
    base: PathBuf,
    /// Training rows: JSON lines, a JSON array or Parquet.
    #[arg(long, value_name = "FILE")]
    train: PathBuf,
    /// Rows to score the base and the checkpoint on, when trained.
    #[arg(long, value_name = "FILE")]
    eval: Option<PathBuf>,
    /// Folder to write; a training that was interrupted goes on from it.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    kind: KindArgs,
    /// Which columns to take, as in prompt=question,completion=answer.
    #[arg(long, value_name = "OURS=THEIRS,…", default_value = "")]
    columns: String,
    /// `search`, `learned:FILE`, `fixed:PRESET`, `fixed:FILE` or `external:COMMAND`.
    #[arg(long, default_value = "search")]
    strategy: String,
    /// Tokens to train on at most; by default 20 times the training rows for a search, else as the recipe says.
    #[arg(long, value_name = "N")]
    tokens: Option<u64>,
    /// Worker threads; the result does not depend on them.
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Number that all randomness follows from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Draws the curves as SVG when trained.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Writes every step as CSV when trained.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

fn refused(error: impl ToString) -> CliError {
    CliError::refused(error.to_string())
}

pub(crate) fn train(options: &Train, quiet: bool) -> Result<Answer, CliError> {
    let job = options.out.join(JOB_DIR);
    let training = job.join("training");
    fs::create_dir_all(&training).map_err(CliError::file("make", &training))?;
    let kind = options.kind.kind()?;
    let columns: Columns = options.columns.parse().map_err(refused)?;
    let rows = import::import(&options.train, &kind, &columns).map_err(refused)?;
    let file = training.join("train.jsonl");
    fs::write(&file, &rows.jsonl).map_err(CliError::file("write", &file))?;
    let spec = spec(options, kind, training)?;
    JobSpec::Train(spec).write(&job).map_err(refused)?;
    let result = watch(&job, quiet)?;
    draw(options, &job)?;
    let checkpoint = install(&job, &options.out)?;
    let scores =
        options.eval.as_deref().map(|rows| scores(options, rows, &checkpoint, &columns)).transpose()?;
    Ok(answer(options, &result, scores.as_ref()))
}

fn spec(options: &Train, kind: TaskKind, training: PathBuf) -> Result<TrainSpec, CliError> {
    let base = fs::canonicalize(&options.base).map_err(CliError::file("find", &options.base))?;
    let training = fs::canonicalize(&training).map_err(CliError::file("find", &training))?;
    let strategy = jobs::strategy(&options.strategy, Path::new(".")).map_err(CliError::usage)?;
    let budget_tokens = match (options.tokens, &strategy) {
        (Some(tokens), _) => tokens,
        (None, StrategySpec::Search | StrategySpec::Learned(_)) => {
            tokens(&kind, &base, &training)?.saturating_mul(SEARCH_EPOCHS)
        }
        (None, StrategySpec::Preset(_) | StrategySpec::File(_) | StrategySpec::External(_)) => TOKENS_MAX,
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // A task and a miner of its own: the seed follows from them.
    let mut task = [0u8; 32];
    task[..8].copy_from_slice(&options.seed.to_be_bytes());
    Ok(TrainSpec {
        task: TaskId::from_bytes(task),
        miner: SecretKey::from_seed(&[0; 32]).public(),
        kind,
        base,
        training,
        strategy,
        budget_tokens,
        checkpoint_bytes_max: CHECKPOINT_BYTES_MAX,
        save_every_steps: SAVE_EVERY_STEPS,
        workers: options.workers.unwrap_or(cores),
        activations: Activations::Auto,
        device: DeviceSpec::Cpu,
        limits: Limits::default(),
    })
}

/// Tokens of the training rows, as a run counts them.
fn tokens(kind: &TaskKind, base: &Path, training: &Path) -> Result<u64, CliError> {
    let config =
        Config::from_json(&read_small(&base.join("config.json")).map_err(refused)?).map_err(refused)?;
    let bytes = read_small(&training.join("train.jsonl")).map_err(refused)?;
    let mut rows = rows_of::open(kind, base, &config, config.positions).map_err(refused)?;
    rows_of::read(rows.as_mut(), &bytes).map_err(refused)?;
    Ok(rows.lengths().into_iter().map(|length| length as u64).sum())
}

fn start(work: Work, folder: &Path) -> Result<Child, CliError> {
    let program = std::env::current_exe().map_err(CliError::file("find", Path::new("this program")))?;
    Command::new(&program)
        .args(["job", work.word()])
        .arg(folder)
        .env(jobs::PARENT_VARIABLE, std::process::id().to_string())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(CliError::file("run", &program))
}

/// Waits for a job's process and repeats its words when it failed.
fn finish(child: Child, folder: &Path) -> Result<JobResult, CliError> {
    let output = child.wait_with_output().map_err(CliError::file("wait for the job in", folder))?;
    JobResult::read(folder).ok_or_else(|| {
        let words = String::from_utf8_lossy(&output.stderr);
        CliError::refused(words.trim().trim_start_matches("job: ").to_owned())
    })
}

/// Trains in a process of its own and shows how it goes.
fn watch(job: &Path, quiet: bool) -> Result<TrainResult, CliError> {
    let mut child = start(Work::Train, job)?;
    let mut eyes = Eyes::new(quiet);
    while child.try_wait().map_err(CliError::file("wait for the job in", job))?.is_none() {
        eyes.look(job);
        std::thread::sleep(LOOK_EVERY);
    }
    eyes.close();
    match finish(child, job)? {
        JobResult::Trained(result) => Ok(*result),
        JobResult::Evaluated(_) | JobResult::Checked(_) => {
            Err(CliError::refused("the folder holds another kind of job; name a new one with --out"))
        }
    }
}

/// The line that shows progress: rewritten on a terminal, printed now and then elsewhere.
struct Eyes {
    quiet: bool,
    live: bool,
    started: Instant,
    printed: Option<Instant>,
    /// Step and time when this process first saw the present run.
    first: Option<(Phase, u64, Instant)>,
}

impl Eyes {
    fn new(quiet: bool) -> Self {
        let live = std::io::stderr().is_terminal();
        Self { quiet, live, started: Instant::now(), printed: None, first: None }
    }

    fn look(&mut self, job: &Path) {
        if self.quiet || (!self.live && self.printed.is_some_and(|at| at.elapsed() < PRINT_EVERY)) {
            return;
        }
        let Ok(lines) = curves::read(&job.join("progress.jsonl")) else { return };
        let Some(last) = lines.iter().rev().find(|line| line.loss_micro.is_some()) else { return };
        let text = self.words(last);
        self.printed = Some(Instant::now());
        // What cannot be shown is no reason to stop training.
        let _ = match self.live {
            true => write!(std::io::stderr(), "\r\x1b[2K{text}"),
            false => writeln!(std::io::stderr(), "{text}"),
        };
        let _ = std::io::stderr().flush();
    }

    fn words(&mut self, line: &ProgressLine) -> String {
        let phase = match line.phase {
            Phase::Train => "training",
            Phase::RateTest => "looking for the learning rate",
            Phase::Bracket => "comparing candidates",
            Phase::Final => "training the best",
        };
        let eta = self.eta(line).map_or_else(String::new, |left| format!(" · {} left", clock(left)));
        format!(
            "{} {phase} · step {}/{} · loss {:.4}{} · rate {:.2e} · {} tokens · {} tokens/s{eta}",
            clock(self.started.elapsed().as_secs()),
            line.step,
            line.steps,
            f64::from(line.loss_micro.unwrap_or(0)) / 1e6,
            right(line.accuracy_ppm),
            line.lr_nano.unwrap_or(0) as f64 / 1e9,
            line.tokens,
            line.tokens_per_s,
        )
    }

    /// Seconds left: by steps where the number of steps is known, by the budget in a search.
    fn eta(&mut self, line: &ProgressLine) -> Option<u64> {
        match line.phase {
            Phase::Train | Phase::Final => {}
            Phase::RateTest | Phase::Bracket => return Some(line.eta_s),
        }
        let (phase, step, since) = *self.first.get_or_insert((line.phase, line.step, Instant::now()));
        if phase != line.phase || line.step < step {
            self.first = None;
            return None;
        }
        let done = line.step - step;
        let left = line.steps.saturating_sub(line.step);
        (since.elapsed().as_secs() * left).checked_div(done)
    }

    fn close(&self) {
        if self.live && self.printed.is_some() {
            let _ = writeln!(std::io::stderr());
        }
    }
}

fn clock(seconds: u64) -> String {
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

fn draw(options: &Train, job: &Path) -> Result<(), CliError> {
    if options.plot.is_none() && options.csv.is_none() {
        return Ok(());
    }
    let lines = curves::read(&job.join("progress.jsonl")).map_err(refused)?;
    if let Some(path) = &options.csv {
        fs::write(path, curves::csv(&lines)).map_err(CliError::file("write", path))?;
    }
    if let Some(path) = &options.plot {
        let svg =
            curves::svg(&lines).ok_or_else(|| CliError::refused("no step was taken: nothing to draw"))?;
        fs::write(path, svg).map_err(CliError::file("write", path))?;
    }
    Ok(())
}

/// Copies the checkpoint's files out of the job's folder.
fn install(job: &Path, out: &Path) -> Result<PathBuf, CliError> {
    let from = job.join(CHECKPOINT_DIR);
    for entry in fs::read_dir(&from).map_err(CliError::file("read", &from))? {
        let entry = entry.map_err(CliError::file("read", &from))?;
        let to = out.join(entry.file_name());
        fs::copy(entry.path(), &to).map_err(CliError::file("copy to", &to))?;
    }
    Ok(from)
}

/// Scores of the base and of the checkpoint.
fn scores(
    options: &Train,
    rows: &Path,
    checkpoint: &Path,
    columns: &Columns,
) -> Result<[EvalResult; 2], CliError> {
    let folder = options.out.join(JOB_DIR).join("scores");
    fs::create_dir_all(&folder).map_err(CliError::file("make", &folder))?;
    let kind = options.kind.kind()?;
    let rows = import::import(rows, &kind, columns).map_err(refused)?;
    let file = folder.join("eval.jsonl");
    fs::write(&file, &rows.jsonl).map_err(CliError::file("write", &file))?;
    let file = fs::canonicalize(&file).map_err(CliError::file("find", &file))?;
    let checkpoint = fs::canonicalize(checkpoint).map_err(CliError::file("find", checkpoint))?;
    let subject = match checkpoint.join("adapter_config.json").exists() {
        true => Subject::Adapter(checkpoint),
        false => Subject::Model(checkpoint),
    };
    let score = |name: String, subject: Subject| {
        let job = folder.join(name);
        home::make_dir(&job)?;
        let spec = EvalSpec {
            kind: kind.clone(),
            base: fs::canonicalize(&options.base).map_err(CliError::file("find", &options.base))?,
            evaluation: EvaluationSource::Plain(file.clone()),
            examples: u32::try_from(super::kind::scores(&kind, rows.rows as u64)).unwrap_or(u32::MAX),
            plaintext_bytes: rows.jsonl.len() as u64,
            subject,
            checkpoint_bytes_max: CHECKPOINT_BYTES_MAX,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            limits: Limits::default(),
        };
        JobSpec::Eval(spec).write(&job).map_err(refused)?;
        match finish(start(Work::Evaluate, &job)?, &job)? {
            JobResult::Evaluated(result) => match &result.fact {
                None => Ok(result),
                Some(fact) => Err(CliError::refused(format!("evaluation: {fact}"))),
            },
            JobResult::Trained(_) | JobResult::Checked(_) => Err(CliError::refused("not an evaluation")),
        }
    };
    // Fresh folders: an old result would be taken for this one.
    let fresh = hex::encode(home::random::<4>());
    Ok([score(format!("base-{fresh}"), Subject::Base)?, score(format!("checkpoint-{fresh}"), subject)?])
}

/// The share of right answers, in words, for kinds that know any.
fn right(accuracy_ppm: Option<u32>) -> String {
    accuracy_ppm.map_or_else(String::new, |ppm| format!(" {:.1} % right", f64::from(ppm) / 1e4))
}

fn answer(options: &Train, result: &TrainResult, scores: Option<&[EvalResult; 2]>) -> Answer {
    let recipe = &result.recipe;
    let mut text = format!(
        "{} holds the checkpoint: {} steps at {:.2e}, {} tokens in all",
        options.out.display(),
        recipe.steps,
        recipe.learning_rate_nano as f64 / 1e9,
        recipe.tokens_trained,
    );
    if let Some(held_out) = result.validation_micro {
        let right = right(result.validation_accuracy_ppm);
        text += &format!("\n  held-out rows  {:.4} nats{right}", held_out as f64 / 1e6);
    }
    if let Some([base, checkpoint]) = scores {
        let nats = |result: &EvalResult| result.mean_micro as f64 / 1e6;
        let (before, after) = (nats(base), nats(checkpoint));
        let gain = 100.0 * (before - after) / before.max(1e-9);
        text += &format!("\n  evaluation     base {before:.4}, checkpoint {after:.4}: {gain:+.1} %");
        if checkpoint.accuracy_ppm.is_some() {
            let (before, after) = (right(base.accuracy_ppm), right(checkpoint.accuracy_ppm));
            text += &format!("\n                 base{before}, checkpoint{after}");
        }
    }
    let json = json!({
        "out": options.out, "recipe": recipe, "validation_micro": result.validation_micro,
        "base_micro": scores.map(|scores| scores[0].mean_micro),
        "checkpoint_micro": scores.map(|scores| scores[1].mean_micro),
        "base_accuracy_ppm": scores.and_then(|scores| scores[0].accuracy_ppm),
        "checkpoint_accuracy_ppm": scores.and_then(|scores| scores[1].accuracy_ppm),
    });
    Answer::done(json, text)
}

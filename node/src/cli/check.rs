//! `tiltyard task check`: what a task's files hold and what it will cost, before a credit is locked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use serde_json::{Value, json};
use tiltyard_proto::genesis::Params;
use tiltyard_proto::task::TaskKind;
use tiltyard_train::data::check::{FileReport, LENGTH_CLASSES, Report};
use tiltyard_train::data::import::{self, Columns};
use tiltyard_train::job::result::JobResult;
use tiltyard_train::job::spec::{CheckSpec, JobSpec, Limits};

use super::kind::KindArgs;
use super::{Answer, CliError, Exit};
use crate::amount;
use crate::home;
use crate::jobs::Work;

/// Longest bar of the length table, in characters.
const BAR_MAX: u64 = 40;
/// Times through the training rows that a miner is taken to need, search included.
const EPOCHS: u64 = 10;
/// How much slower a node's jobs may be than this machine alone.
const SLACK: u64 = 4;
/// Bytes a second at which a base is taken to travel.
const TRAVEL_BYTES_S: u64 = 10_000_000;
/// Shortest window suggested, in seconds.
const WINDOW_S_MIN: u64 = 60;

/// The files of a task.
#[derive(Debug, Clone, Args)]
pub(crate) struct Files {
    #[command(flatten)]
    kind: KindArgs,
    /// Base model's folder: config.json, tokenizer.json, weights in one file or several.
    #[arg(long, value_name = "DIR")]
    pub(super) base: PathBuf,
    /// Training rows: JSON lines, a JSON array or Parquet.
    #[arg(long, value_name = "FILE")]
    train: PathBuf,
    /// Evaluation rows, kept secret until judging, in the same columns.
    #[arg(long, value_name = "FILE")]
    eval: PathBuf,
    /// Which columns to take, as in prompt=question,completion=answer; else found by Hugging Face's conventions.
    #[arg(long, value_name = "OURS=THEIRS,…", default_value = "")]
    columns: String,
}

impl Files {
    /// The kind of the task.
    pub(super) fn kind(&self) -> Result<TaskKind, CliError> {
        self.kind.kind()
    }
}

/// Options of `task check`.
#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    files: Files,
    /// Credits for miners and judges, to show how they would be shared.
    #[arg(long, value_name = "CREDITS")]
    pot: Option<String>,
    /// Entrants to reckon the judges' time with.
    #[arg(long, value_name = "N", default_value_t = 8)]
    entrants: u64,
}

/// Files that were checked, in the task's own form, until this is dropped.
pub(super) struct Checked {
    scratch: Scratch,
    /// What was found.
    pub(super) report: Report,
    /// What was made of the columns of each file.
    mappings: Vec<String>,
}

impl Checked {
    /// The training rows.
    pub(super) fn training(&self) -> PathBuf {
        self.scratch.training()
    }

    /// The evaluation rows.
    pub(super) fn evaluation(&self) -> PathBuf {
        self.scratch.evaluation()
    }
}

/// Turns the files into the task's form and runs the check job in a process of its own, as a judge would.
pub(super) fn run(files: &Files) -> Result<Checked, CliError> {
    let kind = files.kind()?;
    let find = |path: &Path| fs::canonicalize(path).map_err(CliError::file("find", path));
    let scratch = Scratch::make()?;
    let columns: Columns = files.columns.parse().map_err(refused)?;
    let (mut mappings, mut plaintext_bytes) = (Vec::new(), 0);
    for (name, from, to) in
        [("training", &files.train, scratch.training()), ("evaluation", &files.eval, scratch.evaluation())]
    {
        let imported = import::import(&find(from)?, &kind, &columns).map_err(refused)?;
        fs::write(&to, &imported.jsonl).map_err(CliError::file("write", &to))?;
        plaintext_bytes = imported.jsonl.len() as u64;
        mappings.extend(imported.mapping.map(|mapping| format!("{name} columns: {mapping}")));
    }
    let spec = CheckSpec {
        kind,
        base: find(&files.base)?,
        training: scratch.0.join("training"),
        evaluation: Some(scratch.evaluation()),
        examples: 0,
        plaintext_bytes,
        limits: Limits::default(),
    };
    JobSpec::Check(spec).write(&scratch.0).map_err(|error| CliError::refused(error.to_string()))?;
    let program = std::env::current_exe().map_err(CliError::file("find", Path::new("this program")))?;
    let output = Command::new(&program)
        .args(["job", Work::Check.word()])
        .arg(&scratch.0)
        .stdin(Stdio::null())
        .output()
        .map_err(CliError::file("run", &program))?;
    match JobResult::read(&scratch.0) {
        Some(JobResult::Checked(report)) => Ok(Checked { scratch, report: *report, mappings }),
        Some(JobResult::Trained(_) | JobResult::Evaluated(_)) | None => {
            let words = String::from_utf8_lossy(&output.stderr);
            Err(CliError::refused(words.trim().trim_start_matches("job: ").to_owned()))
        }
    }
}

fn refused(error: import::ImportError) -> CliError {
    CliError::refused(error.to_string())
}

/// A folder for the owner alone that goes when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> Result<Self, CliError> {
        let name = format!("tiltyard-{}", hex::encode(home::random::<8>()));
        let path = std::env::temp_dir().join(name);
        home::make_dir(&path)?;
        let scratch = Self(path);
        let training = scratch.0.join("training");
        fs::create_dir(&training).map_err(CliError::file("make", &training))?;
        Ok(scratch)
    }

    fn training(&self) -> PathBuf {
        self.0.join("training").join("train.jsonl")
    }

    fn evaluation(&self) -> PathBuf {
        self.0.join("eval.jsonl")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left to the system's own cleaning when it cannot be removed.
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn check(options: &Check) -> Result<Answer, CliError> {
    let pot = options.pot.as_deref().map(amount::credits).transpose()?;
    let checked = run(&options.files)?;
    let (report, clean) = (&checked.report, checked.report.is_clean());
    let base_bytes = weights_bytes(&options.files.base);
    let windows_s = windows(report, base_bytes, options.entrants);
    let money = pot.map(|pot| shares(pot.get(), report));
    let mut text = checked.mappings.iter().map(|mapping| format!("{mapping}\n")).collect::<String>();
    text += &file_lines("training", &report.training);
    if let Some(evaluation) = &report.evaluation {
        text += &file_lines("evaluation", evaluation);
    }
    for (what, lines) in
        [("repeat training rows", &report.overlap), ("give training rows away", &report.leaks)]
    {
        if !lines.is_empty() {
            text += &format!("  evaluation lines that {what}: {}\n", list(lines));
        }
    }
    text += &estimate_lines(report, base_bytes, options.entrants, &windows_s);
    if let Some(money) = &money {
        text += &money_line(money);
    }
    for warning in &report.warnings {
        text += &format!("warning: {warning}\n");
    }
    text += if clean { "clean: it can be posted" } else { "NOT clean: correct the lines above" };
    let warnings: Vec<String> = report.warnings.iter().map(ToString::to_string).collect();
    let json = json!({
        "clean": clean, "report": report, "columns": checked.mappings, "warnings": warnings,
        "windows_s": windows_s, "windows": words(&windows_s), "money": money,
    });
    Ok(Answer { json, text, exit: if clean { Exit::Done } else { Exit::Refused } })
}

fn list(lines: &[u64]) -> String {
    let shown: Vec<String> = lines.iter().take(20).map(u64::to_string).collect();
    let more = if lines.len() > 20 { format!(" and {} more", lines.len() - 20) } else { String::new() };
    shown.join(", ") + &more
}

fn file_lines(name: &str, report: &FileReport) -> String {
    let good = report.rows - report.faulty;
    let mut text = format!(
        "{name}: {} rows, {} not usable, {} repeats; {} tokens, {} of them answers; longest row {}; {} different answers\n",
        report.rows,
        report.faulty,
        report.duplicates.len(),
        report.tokens,
        report.target_tokens,
        report.longest,
        report.answers,
    );
    for fault in &report.faults {
        text += &format!("  line {}: {}\n", fault.line, fault.fault);
    }
    let mut from = 1;
    for (class, &rows) in report.lengths.iter().enumerate() {
        let (name, next) = match LENGTH_CLASSES.get(class) {
            Some(&to) => (format!("{from}–{to}"), to + 1),
            None => (format!("over {}", from - 1), from),
        };
        if rows > 0 {
            let bar = "▪".repeat((rows * BAR_MAX).div_ceil(good.max(1)) as usize);
            text += &format!("  {name:>11} tokens {rows:>7}  {bar}\n");
        }
        from = next;
    }
    text
}

/// Size of the weights, in bytes; 0 when it cannot be read, which the check itself reports.
fn weights_bytes(base: &Path) -> u64 {
    let entries = fs::read_dir(base).into_iter().flatten().flatten();
    let weights = entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "safetensors"));
    weights.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
}

/// The seven windows that this task needs on machines like this one, in seconds.
fn windows(report: &Report, base_bytes: u64, entrants: u64) -> [u64; 7] {
    let travel = base_bytes / TRAVEL_BYTES_S;
    let seconds = |cpu_ms: u64| cpu_ms.saturating_mul(SLACK) / 1_000;
    let train = travel + seconds(report.epoch_cpu_ms.saturating_mul(EPOCHS));
    let judge = seconds(report.evaluation_cpu_ms.saturating_mul(entrants + 1));
    [travel, train, 0, travel, 0, judge, 0].map(|window| window.max(WINDOW_S_MIN))
}

fn words(windows: &[u64; 7]) -> String {
    windows.map(|seconds| format!("{}m", seconds.div_ceil(60))).join(",")
}

fn estimate_lines(report: &Report, base_bytes: u64, entrants: u64, windows: &[u64; 7]) -> String {
    let mb = |bytes: u64| bytes.div_ceil(1_000_000);
    format!(
        "base: {} parameters, {} MB, context {} tokens, loses {:.3} nats on a few training rows\n\
         estimate on this machine: one evaluation {:.1} CPU-s, {} entrants and the base {:.1} CPU-s; once through the\n  \
         training rows {} tokens, {:.1} CPU-s; memory about {} MB\n\
         windows for that: --windows {}\n",
        report.base_parameters,
        mb(base_bytes),
        report.context,
        report.base_loss_micro as f64 / 1e6,
        report.evaluation_cpu_ms as f64 / 1e3,
        entrants,
        report.evaluation_cpu_ms.saturating_mul(entrants + 1) as f64 / 1e3,
        report.training.tokens,
        report.epoch_cpu_ms as f64 / 1e3,
        mb(report.memory_bytes),
        words(windows),
    )
}

/// How a pot is shared by the default parameters, in micro-credits.
fn shares(pot: u64, report: &Report) -> Value {
    let params = Params::default_for(4);
    let part = |ppm: i64| (u128::from(pot) * u128::from(ppm.unsigned_abs()) / 1_000_000) as u64;
    let (burn, judges) = (part(params.burn.get()), part(params.judges.get()));
    let examples = report.evaluation.as_ref().map_or(0, |evaluation| evaluation.rows);
    json!({
        "pot": pot, "burn": burn, "judges": judges, "miners": pot - burn - judges,
        "bond_min": params.fee_per_cell.get().saturating_mul(examples), "fee_min": params.fee_min.get(),
    })
}

fn money_line(money: &Value) -> String {
    let credits = |key: &str| {
        let micro = money.get(key).and_then(Value::as_u64).unwrap_or(0);
        amount::show(tiltyard_proto::units::MicroCredits::new(micro))
    };
    format!(
        "cost by the default parameters: {} credits and a fee of {}; {} to miners, {} to judges, {} burned; least bond {}\n",
        credits("pot"),
        credits("fee_min"),
        credits("miners"),
        credits("judges"),
        credits("burn"),
        credits("bond_min"),
    )
}

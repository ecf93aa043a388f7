//! Optuna's TPE in a process of its own, asked for one trial after the other.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use tiltyard_train::strategy::form::ScheduleName;
use tiltyard_train::strategy::space::{ADAPTER_RATES, AVERAGES, DROPOUTS, FULL_RATES, Point, RANKS, ROWS};

/// The driver, beside the results of the benchmark.
const DRIVER: &str = include_str!("../../../../bench/optuna_tpe.py");
/// Names a Python that has Optuna.
const PYTHON_VARIABLE: &str = "TILTYARD_OPTUNA_PYTHON";

/// A study under way; the process ends with it.
#[derive(Debug)]
pub(super) struct Tpe {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

#[derive(Debug, Deserialize)]
struct Params {
    full: bool,
    learning_rate: f64,
    batch_rows: u32,
    schedule: ScheduleName,
    average: bool,
    rank: u32,
    attention_only: bool,
    dropout: f64,
}

fn python() -> String {
    std::env::var(PYTHON_VARIABLE).unwrap_or_else(|_| "python3".to_owned())
}

/// Says whether Optuna can be used here.
pub(super) fn available() -> bool {
    let mut command = Command::new(python());
    command.args(["-c", "import optuna"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

impl Tpe {
    pub(super) fn start(seed: u64, full: bool) -> Result<Self> {
        let missing =
            || format!("cannot run {} with optuna; set {PYTHON_VARIABLE} to a Python that has it", python());
        let mut child = Command::new(python())
            .args(["-W", "ignore", "-c", DRIVER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(missing)?;
        let asks = child.stdin.take().with_context(missing)?;
        let answers = BufReader::new(child.stdout.take().with_context(missing)?);
        let mut tpe = Self { child, asks, answers };
        let spaces = json!({
            "full_rates": [FULL_RATES.0, FULL_RATES.1], "adapter_rates": [ADAPTER_RATES.0, ADAPTER_RATES.1],
            "rows": ROWS, "ranks": RANKS, "dropouts": DROPOUTS,
        });
        tpe.say(&json!({ "seed": seed as u32, "full": full, "spaces": spaces }))?;
        Ok(tpe)
    }

    fn say(&mut self, value: &Value) -> Result<()> {
        writeln!(self.asks, "{value}").context("the TPE process ended; is optuna installed?")?;
        self.asks.flush().context("the TPE process ended")
    }

    fn hear(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line)
            .with_context(|| format!("the TPE process said {line:?}; is optuna installed?"))
    }

    pub(super) fn ask(&mut self) -> Result<Point> {
        self.say(&json!({ "ask": true }))?;
        let answer = self.hear()?;
        let params: Params = serde_json::from_value(answer.get("params").cloned().unwrap_or_default())?;
        Ok(Point {
            full: params.full,
            learning_rate: params.learning_rate,
            rank: params.rank,
            attention_only: params.attention_only,
            batch_rows: params.batch_rows,
            schedule: params.schedule,
            dropout: params.dropout,
            ema: AVERAGES[usize::from(params.average)],
        })
    }

    pub(super) fn prune(&mut self, rung: u64, loss: u64) -> Result<bool> {
        self.say(&json!({ "rung": rung, "loss": loss as f64 / 1e6 }))?;
        Ok(self.hear()?.get("prune") == Some(&Value::Bool(true)))
    }

    pub(super) fn tell(&mut self, loss: Option<u64>, pruned: bool) -> Result<()> {
        self.say(&json!({ "tell": loss.map(|loss| loss as f64 / 1e6), "pruned": pruned }))?;
        self.hear().map(|_| ())
    }
}

impl Drop for Tpe {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

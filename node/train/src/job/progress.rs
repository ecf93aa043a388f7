//! `progress.jsonl`: one line per step or measurement, for people and for the node.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::files::FileError;

/// What a job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// A fixed recipe.
    Train,
    /// Looking for the largest learning rate that learns.
    RateTest,
    /// Comparing candidates.
    Bracket,
    /// Training the winner.
    Final,
}

/// What a caller knows about a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) phase: Phase,
    pub(crate) step: u64,
    pub(crate) steps: u64,
    pub(crate) tokens: u64,
    pub(crate) loss_micro: u32,
    pub(crate) accuracy_ppm: Option<u32>,
    pub(crate) lr_nano: u64,
}

/// One line of `progress.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgressLine {
    /// What is being done.
    pub phase: Phase,
    /// Steps of the present run.
    pub step: u64,
    /// Steps the present run is planned to take.
    pub steps: u64,
    /// Tokens trained on by the whole job.
    pub tokens: u64,
    /// Tokens the whole job may use.
    pub budget_tokens: u64,
    /// Mean training loss of the step, in micro-nats; absent on a measurement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_micro: Option<u32>,
    /// Mean loss on held-out rows, in micro-nats; only on a measurement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_micro: Option<u64>,
    /// Share of right answers, in millionths; only for kinds that know any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy_ppm: Option<u32>,
    /// Learning rate, in units of 1e-9; absent on a measurement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr_nano: Option<u64>,
    /// Tokens per second of this process so far.
    pub tokens_per_s: u64,
    /// Seconds until the budget is used at this speed.
    pub eta_s: u64,
}

/// Writes the lines. A line that cannot be written is dropped: progress never fails a job.
#[derive(Debug)]
pub(crate) struct Progress {
    file: File,
    started: Instant,
    done: u64,
    budget_tokens: u64,
}

impl Progress {
    /// Appends to the file at `path`.
    pub(crate) fn open(path: &Path, budget_tokens: u64) -> Result<Self, FileError> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|source| FileError::Write { path: path.to_owned(), source })?;
        Ok(Self { file, started: Instant::now(), done: 0, budget_tokens })
    }

    /// Writes a step of `tokens` tokens.
    pub(crate) fn step(&mut self, line: Line, tokens: u64) {
        self.done += tokens;
        let mut full = self.line(line.phase, line.step, line.steps, line.tokens);
        full.loss_micro = Some(line.loss_micro);
        full.lr_nano = Some(line.lr_nano);
        full.accuracy_ppm = line.accuracy_ppm;
        self.write(&full);
    }

    /// Writes a measurement on held-out rows: their mean score and share of right answers.
    pub(crate) fn measured(
        &mut self,
        phase: Phase,
        step: u64,
        steps: u64,
        tokens: u64,
        (micro, accuracy_ppm): (u64, Option<u32>),
    ) {
        let mut full = self.line(phase, step, steps, tokens);
        full.validation_micro = Some(micro);
        full.accuracy_ppm = accuracy_ppm;
        self.write(&full);
    }

    fn line(&self, phase: Phase, step: u64, steps: u64, tokens: u64) -> ProgressLine {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-3);
        let tokens_per_s = (self.done as f64 / seconds) as u64;
        let left = self.budget_tokens.saturating_sub(tokens);
        ProgressLine {
            phase,
            step,
            steps,
            tokens,
            budget_tokens: self.budget_tokens,
            loss_micro: None,
            validation_micro: None,
            accuracy_ppm: None,
            lr_nano: None,
            tokens_per_s,
            eta_s: left.checked_div(tokens_per_s).unwrap_or(0),
        }
    }

    fn write(&mut self, line: &ProgressLine) {
        if let Ok(mut bytes) = serde_json::to_vec(line) {
            bytes.push(b'\n');
            // Progress is for eyes; a full disk shows up when a checkpoint is written.
            let _ = self.file.write_all(&bytes);
        }
    }
}

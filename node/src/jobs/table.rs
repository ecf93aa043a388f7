//! The jobs of this node as people see them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tiltyard_machine::io::{JobId, JobOutcome};
use tiltyard_train::job::progress::{Phase, ProgressLine};

use super::name;
use crate::api::model;
use crate::words;

/// Most jobs listed; the oldest that ended are forgotten first.
const LISTED_MAX: usize = 512;
/// A progress line is far shorter.
const TAIL_BYTES: u64 = 4_096;

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Queued,
    Running,
    Done,
    Failed,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

#[derive(Debug, Clone)]
struct Entry {
    at: u64,
    state: State,
    strategy: Option<String>,
    tokens_budget: u64,
    checkpoint_steps: u64,
    /// Steps of all runs that a state was saved after, as of the last look.
    fact: Option<String>,
    resumed_from_step: u64,
    last: Option<ProgressLine>,
}

/// Shared list of jobs. Clones share one list.
#[derive(Debug, Clone)]
pub(crate) struct JobTable {
    dir: PathBuf,
    entries: Arc<Mutex<(u64, BTreeMap<JobId, Entry>)>>,
}

impl JobTable {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), entries: Arc::default() }
    }

    /// Lists a job that waits for its turn.
    pub(crate) fn queued(
        &self,
        id: JobId,
        strategy: Option<String>,
        tokens_budget: u64,
        checkpoint_steps: u64,
    ) {
        let mut guard = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, entries) = &mut *guard;
        *next = next.saturating_add(1);
        let entry = Entry {
            at: *next,
            state: State::Queued,
            strategy,
            tokens_budget,
            checkpoint_steps,
            fact: None,
            resumed_from_step: 0,
            last: None,
        };
        entries.insert(id, entry);
        while entries.len() > LISTED_MAX {
            let oldest = entries
                .iter()
                .filter(|(_, entry)| matches!(entry.state, State::Done | State::Failed))
                .min_by_key(|(_, entry)| entry.at)
                .map(|(id, _)| *id);
            match oldest {
                Some(id) => entries.remove(&id),
                None => break,
            };
        }
    }

    pub(crate) fn running(&self, id: &JobId) {
        self.change(id, |entry| entry.state = State::Running);
    }

    /// Keeps the last progress of a job whose folder is about to go.
    pub(crate) fn freeze(&self, id: &JobId) {
        let last = last_line(&self.dir.join(name(id)));
        self.change(id, |entry| entry.last = last);
    }

    pub(crate) fn ended(&self, id: &JobId, outcome: &JobOutcome) {
        self.freeze(id);
        self.change(id, |entry| match outcome {
            JobOutcome::Checked => entry.state = State::Done,
            JobOutcome::Evaluated { row } => {
                entry.state = State::Done;
                if let tiltyard_proto::score::Row::Fault(fault) = row {
                    entry.fact = Some(words::fault(*fault).to_owned());
                }
            }
            JobOutcome::Trained { recipe, resumed_from_step, .. } => {
                entry.state = State::Done;
                entry.strategy = Some(words::strategy(recipe));
                entry.resumed_from_step = u64::from(*resumed_from_step);
            }
            JobOutcome::Lost { .. } => {
                entry.state = State::Failed;
                entry.fact = Some("an input is damaged on this disk; it is fetched again".to_owned());
            }
            JobOutcome::Refused { fact } | JobOutcome::Failed { fact } => {
                entry.state = State::Failed;
                entry.fact = Some(fact.clone());
            }
        });
    }

    /// Marks a job that was called off.
    pub(crate) fn cancelled(&self, id: &JobId) {
        self.change(id, |entry| {
            if matches!(entry.state, State::Queued | State::Running) {
                entry.state = State::Failed;
                entry.fact = Some("called off".to_owned());
            }
        });
    }

    /// Lists every job with its progress; reads the tail of each running job's progress file.
    pub(crate) fn list(&self) -> Vec<model::Job> {
        let entries: Vec<(JobId, Entry)> = {
            let guard = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            guard.1.iter().map(|(id, entry)| (*id, entry.clone())).collect()
        };
        entries.into_iter().map(|(id, entry)| self.show(id, &entry)).collect()
    }

    fn show(&self, id: JobId, entry: &Entry) -> model::Job {
        let folder = self.dir.join(name(&id));
        let line = last_line(&folder).or_else(|| entry.last.clone());
        let (kind, task, row) = match id {
            JobId::Check(task) => ("check", task, None),
            JobId::Train(task) => ("train", task, None),
            JobId::Evaluate(task, row) => ("evaluate", task, Some(row)),
        };
        let step = line.as_ref().map_or(0, |line| line.step);
        model::Job {
            id: name(&id),
            kind: kind.to_owned(),
            task: task.to_string(),
            row,
            state: entry.state.word().to_owned(),
            fact: entry.fact.clone(),
            strategy: entry.strategy.clone(),
            phase: line.as_ref().map(|line| phase_word(line.phase).to_owned()),
            step,
            steps: line.as_ref().map_or(0, |line| line.steps),
            tokens: line.as_ref().map_or(0, |line| line.tokens),
            tokens_budget: line.as_ref().map_or(entry.tokens_budget, |line| line.budget_tokens),
            tokens_per_s: line.as_ref().map_or(0, |line| line.tokens_per_s),
            eta_s: line.as_ref().map_or(0, |line| line.eta_s),
            loss_micro: line.as_ref().and_then(|line| line.loss_micro).map(u64::from),
            checkpoint_step: saved_step(&folder, step, entry.checkpoint_steps),
            resumed_from_step: entry.resumed_from_step,
        }
    }

    fn change(&self, id: &JobId, change: impl FnOnce(&mut Entry)) {
        let mut guard = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = guard.1.get_mut(id) {
            change(entry);
        }
    }
}

const fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Train => "train",
        Phase::RateTest => "rate-test",
        Phase::Bracket => "bracket",
        Phase::Final => "final",
    }
}

/// The step that a killed training would continue from, as far as it can be told from outside: states are saved at
/// multiples of the interval, and none before there is a file.
fn saved_step(folder: &Path, step: u64, every: u64) -> u64 {
    let saved =
        std::fs::read_dir(folder.join("state")).is_ok_and(|mut entries| entries.any(|entry| entry.is_ok()));
    if saved { step.checked_rem(every.max(1)).map_or(0, |past| step.saturating_sub(past)) } else { 0 }
}

fn last_line(folder: &Path) -> Option<ProgressLine> {
    let mut file = File::open(folder.join("progress.jsonl")).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).ok()?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail).ok()?;
    let text = String::from_utf8_lossy(&tail).into_owned();
    // A measurement carries no loss: the newest line that has one says more, with the measurement's step and tokens.
    let mut lines = text.lines().rev().filter_map(|line| serde_json::from_str::<ProgressLine>(line).ok());
    let mut newest = lines.next()?;
    if newest.loss_micro.is_none() {
        newest.loss_micro = lines.find_map(|line| line.loss_micro);
    }
    Some(newest)
}

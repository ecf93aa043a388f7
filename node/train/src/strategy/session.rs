//! What a strategy works with: rows, progress, and everything that survives a crash.
//!
//! Inside the job folder: `state/<run>.state` (a run to go on with), `state/journal.json`
//! (finished measurements) and `best/` (the best checkpoint so far: `files/` and
//! `recipe.cbor`). Each is replaced as a whole by a rename.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tiltyard_proto::recipe::Recipe;

use super::StrategyError;
use crate::eval;
use crate::fit::run::{Run, RunError, StepReport};
use crate::fit::settings::Settings;
use crate::fit::state::{State, StateError};
use crate::job::files::{self, FileError};
use crate::job::progress::{Line, Phase, Progress};
use crate::kind::Rows;
use crate::model::adapter::{AdapterError, AdapterSpec, CONFIG_FILE, WEIGHTS_FILE};
use crate::model::{FileType, Model, ModelError};

/// The flag file that asks a job to save its state and end, to go on later.
pub const STOP_FILE: &str = "stop";
/// The flag file that asks a job to end now with its best checkpoint so far.
pub const FINISH_FILE: &str = "finish";
/// The loss recorded for a candidate whose loss became infinite, in micro-nats.
pub const DIVERGED: u64 = u64::MAX;

/// Says why a session's files fail.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// A file could not be written or renamed.
    #[error(transparent)]
    File(#[from] FileError),
    /// A checkpoint could not be encoded.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The result of a run could not be made.
    #[error(transparent)]
    Run(Box<RunError>),
    /// An adapter could not be encoded.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The checkpoint is larger than the task allows.
    #[error("the checkpoint has {bytes} bytes, the task allows {limit}; train a smaller rank")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
}

/// Finished measurements, by name.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Journal {
    /// Loss or other number of each finished part, in millionths.
    results: BTreeMap<String, u64>,
    /// Tokens used by parts that leave no run state.
    tokens: BTreeMap<String, u64>,
    /// Validation loss of the checkpoint in `best/`, in micro-nats.
    best: Option<u64>,
    /// Its share of right answers, in millionths, for kinds that know any.
    #[serde(default)]
    best_accuracy_ppm: Option<u32>,
}

/// The parameters of a session.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// The untouched base.
    pub base: &'a Model,
    /// Rows to train on.
    pub train: &'a dyn Rows,
    /// Rows to choose by; may be empty for a strategy that does not choose.
    pub held_out: &'a dyn Rows,
    /// The job folder.
    pub folder: &'a Path,
    /// The seed of this task and miner.
    pub seed: u64,
    /// Tokens allowed in all.
    pub budget_tokens: u64,
    /// Largest checkpoint, in bytes.
    pub checkpoint_bytes_max: u64,
    /// Worker threads.
    pub workers: usize,
    /// Whether to compute activations again instead of keeping them.
    pub recompute: bool,
    /// Steps between saved states.
    pub save_every_steps: u64,
}

/// A strategy's workshop.
#[derive(Debug)]
pub struct Session<'a> {
    setup: Setup<'a>,
    journal: Journal,
    progress: Progress,
    /// Steps and tokens of each run, as last saved or reached.
    runs: BTreeMap<String, (u64, u64)>,
    resumed_from_step: u64,
    finishing: bool,
    /// Share of right answers of the last measurement, in millionths.
    accuracy_ppm: Option<u32>,
}

impl<'a> Session<'a> {
    /// Opens or reopens the session of a job folder.
    ///
    /// # Errors
    /// [`SessionError::File`] when the folder cannot be read or written.
    pub fn open(setup: Setup<'a>) -> Result<Self, SessionError> {
        let state = setup.folder.join("state");
        files::create_dir(&state)?;
        files::recover_dir(&setup.folder.join("best"))?;
        let journal = files::read_json_or_default(&state.join("journal.json"))?;
        let progress = Progress::open(&setup.folder.join("progress.jsonl"), setup.budget_tokens)?;
        let mut session = Self {
            setup,
            journal,
            progress,
            runs: BTreeMap::new(),
            resumed_from_step: 0,
            finishing: false,
            accuracy_ppm: None,
        };
        for name in files::names_with_extension(&state, "state")? {
            if let Ok(saved) = session.read_state(&name) {
                session.runs.insert(name, (saved.position.step, saved.position.tokens));
            }
        }
        session.resumed_from_step = session.runs.values().map(|(steps, _)| steps).sum();
        Ok(session)
    }

    /// The parameters.
    pub fn setup(&self) -> &Setup<'a> {
        &self.setup
    }

    /// Steps, over all runs, that were already done when the session opened.
    pub fn resumed_from_step(&self) -> u64 {
        self.resumed_from_step
    }

    /// Tokens spent so far, over all runs, finished measurements included.
    pub fn tokens(&self) -> u64 {
        let runs: u64 = self.runs.values().map(|(_, tokens)| tokens).sum();
        let measured = self.journal.results.len().saturating_sub(self.journal.tokens.len()) as u64;
        runs + self.journal.tokens.values().sum::<u64>() + measured * self.measurement_tokens()
    }

    /// Tokens that one measurement on the rows held out counts for: a forward pass alone is a
    /// third of a step's work.
    pub fn measurement_tokens(&self) -> u64 {
        let tokens: u64 = self.setup.held_out.lengths().into_iter().map(|length| length as u64).sum();
        tokens.div_ceil(3)
    }

    /// Tokens trained on so far by one run.
    pub fn run_tokens(&self, name: &str) -> u64 {
        self.runs.get(name).map_or(0, |(_, tokens)| *tokens)
    }

    /// Says whether the job was asked to end with what it has.
    pub fn finishing(&mut self) -> bool {
        self.finishing = self.finishing || self.setup.folder.join(FINISH_FILE).exists();
        self.finishing
    }

    /// Fails when the job was asked to stop.
    ///
    /// # Errors
    /// [`StrategyError::Stopped`].
    pub fn poll_stop(&self) -> Result<(), StrategyError> {
        match self.setup.folder.join(STOP_FILE).exists() {
            true => Err(StrategyError::Stopped),
            false => Ok(()),
        }
    }

    /// The result of a finished part, in millionths.
    pub fn result(&self, part: &str) -> Option<u64> {
        self.journal.results.get(part).copied()
    }

    /// Records the result of a finished part, and the tokens it used beside saved runs; a part
    /// without such tokens is one measurement.
    ///
    /// # Errors
    /// [`SessionError::File`] when the journal cannot be written.
    pub fn record(&mut self, part: &str, result: u64, tokens: u64) -> Result<(), SessionError> {
        self.journal.results.insert(part.to_owned(), result);
        if tokens > 0 {
            self.journal.tokens.insert(part.to_owned(), tokens);
        }
        self.write_journal()
    }

    fn write_journal(&self) -> Result<(), SessionError> {
        Ok(files::write_json(&self.state_dir().join("journal.json"), &self.journal)?)
    }

    fn state_dir(&self) -> PathBuf {
        self.setup.folder.join("state")
    }

    fn read_state(&self, name: &str) -> Result<State, StateError> {
        let parameters = self.setup.base.parameters() as u64;
        let limit = parameters.saturating_mul(64).saturating_add(1 << 30);
        State::read(&self.state_dir().join(format!("{name}.state")), limit)
    }

    /// Opens a run from the base that leaves no state.
    ///
    /// # Errors
    /// [`RunError`] when the recipe does not fit the base.
    pub fn fresh(&self, recipe: &Recipe) -> Result<Run<'a>, RunError> {
        let Setup { base, train, workers, recompute, .. } = self.setup;
        let objective = train.objective(base, &Settings::read(recipe)?, workers)?;
        let mut run = Run::with_objective(base, recipe.clone(), objective, workers)?;
        run.recompute(recompute);
        Ok(run)
    }

    /// Opens a run: where it was left, or from the base.
    ///
    /// # Errors
    /// [`RunError`] when the recipe does not fit the base.
    pub fn run(&mut self, name: &str, recipe: &Recipe) -> Result<Run<'a>, RunError> {
        let mut run = self.fresh(recipe)?;
        if let Ok(state) = self.read_state(name) {
            run.restore(state)?;
        }
        self.runs.insert(name.to_owned(), (run.step(), run.tokens()));
        Ok(run)
    }

    /// Saves where a run stands.
    ///
    /// # Errors
    /// [`StrategyError`] when the state cannot be captured or written.
    pub fn save(&mut self, name: &str, run: &Run<'_>) -> Result<(), StrategyError> {
        let state = run.save()?;
        let path = self.state_dir().join(format!("{name}.state"));
        files::write(&path, &state.to_bytes()).map_err(SessionError::from)?;
        Ok(())
    }

    /// Advances a run to `until` steps, saving on the way and at the end.
    ///
    /// Ends early, without error, when the job was asked to finish and `patient` is false.
    ///
    /// # Errors
    /// [`StrategyError::Stopped`] (after saving) when asked to stop; [`RunError::Diverged`].
    pub fn advance(
        &mut self,
        name: &str,
        run: &mut Run<'_>,
        until: u64,
        phase: Phase,
        patient: bool,
    ) -> Result<(), StrategyError> {
        let mut saved_at = run.step();
        while run.step() < until {
            if !patient && self.finishing() {
                break;
            }
            if let Err(stopped) = self.poll_stop() {
                self.save(name, run)?;
                return Err(stopped);
            }
            let report = run.advance()?;
            self.runs.insert(name.to_owned(), (run.step(), run.tokens()));
            self.show(phase, &report, u64::from(run.recipe().steps));
            if run.step() - saved_at >= self.setup.save_every_steps.max(1) {
                self.save(name, run)?;
                saved_at = run.step();
            }
        }
        if saved_at < run.step() {
            self.save(name, run)?;
        }
        Ok(())
    }

    /// Writes one line of progress.
    pub fn show(&mut self, phase: Phase, report: &StepReport, steps: u64) {
        let line = Line {
            phase,
            step: report.step,
            steps,
            tokens: self.tokens(),
            loss_micro: eval::micro_nats(report.loss).get(),
            accuracy_ppm: report.accuracy.map(|share| (share * 1e6).round() as u32),
            lr_nano: (report.rate * 1e9).round() as u64,
        };
        self.progress.step(line, report.tokens);
    }

    /// Measures a model on the held-out rows by the kind's score, in millionths; [`DIVERGED`]
    /// when not finite.
    ///
    /// # Errors
    /// [`RunError::Model`] when a row does not fit.
    pub fn measure(&mut self, run: &Run<'_>, phase: Phase) -> Result<u64, RunError> {
        let scored = self.setup.held_out.score(self.setup.base, &run.result()?, self.setup.workers)?;
        let loss = scored.mean();
        let micro = match loss.is_finite() {
            true => u64::from(eval::micro_nats(loss).get()),
            false => DIVERGED,
        };
        let steps = u64::from(run.recipe().steps);
        self.accuracy_ppm = scored.accuracy_ppm();
        self.progress.measured(phase, run.step(), steps, self.tokens(), (micro, self.accuracy_ppm));
        Ok(micro)
    }

    /// Keeps a run's model as the best checkpoint when `loss` beats the one kept.
    ///
    /// # Errors
    /// [`SessionError`] when it is too large or cannot be written.
    pub fn keep_if_better(&mut self, run: &Run<'_>, loss: u64) -> Result<bool, SessionError> {
        if self.journal.best.is_some_and(|best| best <= loss) || loss == DIVERGED {
            return Ok(false);
        }
        self.keep(run, loss)?;
        Ok(true)
    }

    /// The validation loss of the checkpoint kept, in micro-nats.
    pub fn best(&self) -> Option<u64> {
        self.journal.best
    }

    /// The share of right answers of the checkpoint kept, in millionths, for kinds that know any.
    pub fn best_accuracy_ppm(&self) -> Option<u32> {
        self.journal.best_accuracy_ppm
    }

    fn keep(&mut self, run: &Run<'_>, loss: u64) -> Result<(), SessionError> {
        let best = self.setup.folder.join("best");
        let fresh = files::fresh_dir(&best)?;
        let inside = fresh.join("files");
        files::create_dir(&inside)?;
        for (name, bytes) in checkpoint_files(run, self.setup.checkpoint_bytes_max)? {
            files::write(&inside.join(name), &bytes)?;
        }
        let mut recipe = run.recipe().clone();
        if run.step() != u64::from(recipe.steps) {
            recipe.extra.push(("stopped-at-step".to_owned(), run.step().to_string()));
            recipe.extra.sort();
        }
        files::write(&fresh.join("recipe.cbor"), &recipe.encode())?;
        files::swap_dir(&best)?;
        self.journal.best = Some(loss);
        self.journal.best_accuracy_ppm = self.accuracy_ppm;
        self.write_journal()
    }
}

/// The files of a run's checkpoint: `f32` when that fits the limit, else `bf16`.
fn checkpoint_files(run: &Run<'_>, limit: u64) -> Result<Vec<(&'static str, Vec<u8>)>, SessionError> {
    let spec = AdapterSpec::from_method(&run.recipe().method);
    let model = run.result().map_err(|error| SessionError::Run(Box::new(error)))?;
    let mut smallest = u64::MAX;
    for file_type in [FileType::F32, FileType::Bf16] {
        let mut files = Vec::new();
        match &spec {
            None => files.push(("model.safetensors", model.to_safetensors(file_type)?)),
            Some(spec) => {
                files.push((CONFIG_FILE, spec.to_json()?));
                let weights = model.adapter_to_safetensors(file_type)?;
                files.push((WEIGHTS_FILE, weights.unwrap_or_default()));
            }
        }
        let bytes = files.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        if bytes <= limit {
            return Ok(files);
        }
        smallest = smallest.min(bytes);
    }
    Err(SessionError::TooLarge { bytes: smallest, limit })
}

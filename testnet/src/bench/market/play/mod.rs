//! Plays one cell: a rival trains on a task under a budget of tokens, and is scored like everyone else.
//!
//! The token clock is the deadline: what a rival has when its tokens are spent is what it commits. Miners run the very
//! jobs that a node runs; the other rivals drive the same trainer through the same session, which counts their tokens.

pub(super) mod rival;
pub(super) mod tasks;
mod tpe;
mod trial;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tiltyard_proto::ids::TaskId;
use tiltyard_proto::recipe::{Recipe, training_seed};
use tiltyard_proto::score::Row;
use tiltyard_train::job::result::{CHECKPOINT_DIR, JobResult};
use tiltyard_train::job::spec::{
    Activations, DeviceSpec, EvalSpec, EvaluationSource, JobSpec, Limits, StrategySpec, Subject, TrainSpec,
};
use tiltyard_train::job::{run_eval, run_train};

use rival::{Chooser, League, Rival};
use tasks::{Split, Task};

use super::super::network::usage;

/// Largest checkpoint where all weights may be trained, in bytes.
const CHECKPOINT_BYTES_MAX: u64 = 64 << 30;
/// Steps between saved states: a cell is played in one go.
const SAVE_EVERY_STEPS: u64 = 1 << 40;

/// A task drawn for one seed, laid out in a folder.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) task: Task,
    pub(super) seed: u64,
    base: PathBuf,
    split: Split,
    folder: PathBuf,
}

/// What a rival came to.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    pub(super) tokens: u64,
    pub(super) cpu_s: f64,
    pub(super) sealed: Vec<u32>,
    pub(super) report: Vec<u32>,
    /// Why there is no checkpoint; the scores are then the base's, which is what the requester is left with.
    pub(super) fault: Option<String>,
    /// The recipe of the checkpoint, in a few words.
    pub(super) recipe: Option<String>,
}

/// A checkpoint with what it took.
struct Trained {
    checkpoint: PathBuf,
    tokens: u64,
    recipe: Recipe,
}

/// Whether Optuna can be used here.
pub(super) fn optuna() -> bool {
    tpe::available()
}

impl Table {
    /// Draws the rows and writes them down.
    pub(super) fn lay(task: &Task, seed: u64, base: &Path, folder: &Path) -> Result<Self> {
        let split = task.split(seed);
        let training = folder.join("training");
        fs::create_dir_all(&training).with_context(|| format!("cannot make {}", training.display()))?;
        fs::write(training.join("train.jsonl"), &split.train)?;
        fs::write(folder.join("judged.jsonl"), &split.judged)?;
        Ok(Self { task: task.clone(), seed, base: base.to_owned(), split, folder: folder.to_owned() })
    }

    fn id(&self) -> TaskId {
        let hash = blake3::hash(format!("bench market {} {}", self.task.name, self.seed).as_bytes());
        TaskId::from_bytes(*hash.as_bytes())
    }

    /// Plays a rival. What goes wrong with its training is part of the outcome; an error is one of the benchmark.
    pub(super) fn play(&self, rival: &Rival, league: League, budget: u64) -> Result<Outcome> {
        let folder = self.folder.join(rival.to_string().replace([':', '/'], "-"));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let before = usage(std::process::id()).cpu_s;
        let trained = match rival {
            Rival::Base => None,
            Rival::Preset(name) => Some(self.job(
                &folder,
                StrategySpec::Preset(name.clone()),
                rival,
                CHECKPOINT_BYTES_MAX,
                budget,
            )),
            Rival::Search(_) => {
                let limit = league.checkpoint_bytes_max(&self.base)?;
                Some(self.job(&folder, StrategySpec::Search, rival, limit, budget))
            }
            Rival::Trials { chooser, search_percent } => {
                Some(self.trials(&folder, rival, *chooser, *search_percent, league, budget))
            }
        };
        let mut outcome = Outcome { cpu_s: usage(std::process::id()).cpu_s - before, ..Outcome::default() };
        let subject = match trained {
            None => Subject::Base,
            Some(Err(error)) => {
                outcome.fault = Some(format!("{error:#}"));
                Subject::Base
            }
            Some(Ok(trained)) => {
                outcome.tokens = trained.tokens;
                outcome.recipe = Some(words(&trained.recipe));
                match trained.checkpoint.join("adapter_config.json").exists() {
                    true => Subject::Adapter(trained.checkpoint),
                    false => Subject::Model(trained.checkpoint),
                }
            }
        };
        let scores = self.judge(&folder, subject)?;
        (outcome.sealed, outcome.report) =
            (scores[..self.split.sealed].to_vec(), scores[self.split.sealed..].to_vec());
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        Ok(outcome)
    }

    /// Trains as a node does.
    fn job(
        &self,
        folder: &Path,
        strategy: StrategySpec,
        rival: &Rival,
        checkpoint_bytes_max: u64,
        budget: u64,
    ) -> Result<Trained> {
        let spec = TrainSpec {
            task: self.id(),
            miner: rival.key(),
            kind: self.task.kind.clone(),
            base: self.base.clone(),
            training: self.folder.join("training"),
            strategy,
            budget_tokens: budget,
            checkpoint_bytes_max,
            save_every_steps: SAVE_EVERY_STEPS,
            workers: 1,
            activations: Activations::Keep,
            device: DeviceSpec::Cpu,
            limits: Limits::default(),
        };
        JobSpec::Train(spec).write(folder)?;
        match run_train(folder)? {
            JobResult::Trained(result) => Ok(Trained {
                checkpoint: folder.join(CHECKPOINT_DIR),
                tokens: result.recipe.tokens_trained,
                recipe: result.recipe,
            }),
            JobResult::Evaluated(_) | JobResult::Checked(_) => bail!("the training job did something else"),
        }
    }

    /// Lets a chooser of hyperparameters drive the trainer.
    fn trials(
        &self,
        folder: &Path,
        rival: &Rival,
        chooser: Chooser,
        search_percent: u64,
        league: League,
        budget: u64,
    ) -> Result<Trained> {
        let plan = trial::Plan {
            base: &self.base,
            rows: self.folder.join("training/train.jsonl"),
            folder,
            seed: training_seed(&self.id(), &rival.key()),
            full: league == League::Open,
            search_tokens: budget * search_percent / 100,
            budget,
        };
        let (tokens, recipe) = trial::play(&plan, chooser)?;
        Ok(Trained { checkpoint: folder.join("best/files"), tokens, recipe })
    }

    /// Scores a checkpoint on the judges' rows and the reported ones, as a validator's job does.
    fn judge(&self, folder: &Path, subject: Subject) -> Result<Vec<u32>> {
        let job = folder.join("judge");
        fs::create_dir_all(&job)?;
        let spec = EvalSpec {
            kind: self.task.kind.clone(),
            base: self.base.clone(),
            evaluation: EvaluationSource::Plain(self.folder.join("judged.jsonl")),
            examples: u32::try_from(self.split.sealed + self.split.reported)?,
            plaintext_bytes: self.split.judged.len() as u64,
            subject,
            checkpoint_bytes_max: CHECKPOINT_BYTES_MAX,
            workers: 1,
            limits: Limits::default(),
        };
        JobSpec::Eval(spec).write(&job)?;
        match run_eval(&job)? {
            JobResult::Evaluated(result) => match result.row {
                Row::Scores(scores) => Ok(scores.iter().map(|score| score.get()).collect()),
                Row::Fault(fault) => {
                    bail!("{}: {fault:?}: {}", self.task.name, result.fact.unwrap_or_default())
                }
            },
            JobResult::Trained(_) | JobResult::Checked(_) => bail!("the evaluation job did something else"),
        }
    }
}

/// A recipe in a few words.
fn words(recipe: &Recipe) -> String {
    use tiltyard_proto::recipe::Method;
    let method = match recipe.method {
        Method::Full => "full".to_owned(),
        Method::Lora { rank, targets, .. } if targets == Method::ALL_LINEAR => format!("lora r{rank}"),
        Method::Lora { rank, .. } => format!("lora r{rank} some layers"),
    };
    let rate = recipe.learning_rate_nano as f64 / 1e9;
    let rows = recipe.batch_rows * recipe.accumulation;
    format!("{method}, {rate:.1e}, {rows} rows, {} steps, {:?}", recipe.steps, recipe.schedule).to_lowercase()
}

#[cfg(test)]
mod tests;

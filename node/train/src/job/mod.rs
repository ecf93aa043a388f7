//! Jobs: the folder contract between the node and its child processes.
//!
//! | file | who writes it | what it is |
//! |---|---|---|
//! | `job.json` | the node | what to do ([`spec::JobSpec`]) |
//! | `stop` | the node | asks a training job to save its state and end; it goes on when started again |
//! | `finish` | the node | asks a training job to end now with its best checkpoint |
//! | `progress.jsonl` | the job | a line per step ([`progress::ProgressLine`]) |
//! | `state/`, `best/` | the job | what it needs to go on after a crash |
//! | `external/` | an external trainer | its checkpoint, its log, what it says of itself; see docs/job-folder.md |
//! | `checkpoint/` | the job | the checkpoint's files, complete once there is a result |
//! | `result.cbor`, `result.json` | the job | the outcome ([`result::JobResult`]), canonical and for people |
//! | `error.json` | the job | `{"error": …}` when it ended without result |
//!
//! Results are written to a temporary name, synced and renamed; `result.cbor` comes last.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | there is a result |
//! | 2 | the job cannot be done as asked: `error.json` says why; starting again will not help |
//! | 3 | stopped on request; start again to go on |
//! | 4 | the machine failed (disk, limits); starting again may help |
//!
//! A judge that finds an entrant at fault ends with 0 and a fault row. A process killed
//! by a limit leaves no result: the node reports that as a fault itself.

mod check;
pub mod curves;
mod eval;
mod external;
pub(crate) mod files;
mod limits;
pub mod progress;
pub mod result;
pub mod spec;
mod train;

use std::path::Path;

use crate::data::DataError;
use crate::fit::run::RunError;
use crate::model::ModelError;
use crate::safe::LoadError;
use crate::strategy::StrategyError;
use crate::strategy::form::FormError;
use crate::strategy::learned::PastError;
use crate::strategy::session::SessionError;
pub use external::{EXTERNAL_DIR, ExternalError};
use files::FileError;
use result::{JobResult, RESULT_FILE};
use spec::JobSpec;

/// Says why a job ended without a result.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// A file is refused.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// `job.json` is not a job.
    #[error("job.json is refused: {0}")]
    Spec(#[from] serde_json::Error),
    /// `job.json` asks for another kind of job than the command.
    #[error("job.json describes another kind of job; this command runs {wanted}")]
    WrongCommand {
        /// What the command runs.
        wanted: &'static str,
    },
    /// The base model is refused.
    #[error("base model: {0}")]
    Base(ModelError),
    /// The rows are refused.
    #[error("training rows: {0}")]
    Data(#[from] DataError),
    /// The recipe file is refused.
    #[error(transparent)]
    Form(#[from] FormError),
    /// The file of past recipes is refused.
    #[error(transparent)]
    Past(#[from] PastError),
    /// Training ended without a checkpoint.
    #[error(transparent)]
    Strategy(Box<StrategyError>),
    /// An external trainer gave no checkpoint.
    #[error(transparent)]
    External(#[from] ExternalError),
    /// A limit could not be set.
    #[error("the limit on {what} cannot be set: {source}")]
    Limit {
        /// Which limit.
        what: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file of the job could not be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// An evaluation would need more than a job may use here.
    #[error(
        "one evaluation needs about {needed} {what}, a job may use {allowed} here; post a smaller base or set, or raise the judge's limits"
    )]
    Unaffordable {
        /// What is short.
        what: &'static str,
        /// How much is needed.
        needed: u64,
        /// How much is allowed.
        allowed: u64,
    },
    /// The card asked for cannot be used.
    #[error(
        "card {number} cannot be used: {source}; build with --features cuda on a machine that has it, or train on cpu"
    )]
    Device {
        /// Its number.
        number: usize,
        /// Why.
        source: Box<candle_core::Error>,
    },
    /// A checkpoint folder holds something else.
    #[error("the finished checkpoint cannot be read back: {fact}")]
    Checkpoint {
        /// What is wrong.
        fact: String,
    },
}

impl JobError {
    /// The exit code of a process that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Strategy(error) => match **error {
                StrategyError::Stopped => 3,
                StrategyError::Session(SessionError::File(_)) => 4,
                StrategyError::Session(_)
                | StrategyError::Run(_)
                | StrategyError::Form(_)
                | StrategyError::Budget { .. }
                | StrategyError::AllDiverged => 2,
            },
            Self::File(_) | Self::Limit { .. } => 4,
            Self::Load(_)
            | Self::Spec(_)
            | Self::WrongCommand { .. }
            | Self::Base(_)
            | Self::Data(_)
            | Self::Form(_)
            | Self::Past(_)
            | Self::External(_)
            | Self::Unaffordable { .. }
            | Self::Device { .. }
            | Self::Checkpoint { .. } => 2,
        }
    }
}

impl From<StrategyError> for JobError {
    fn from(error: StrategyError) -> Self {
        Self::Strategy(Box::new(error))
    }
}

impl From<RunError> for JobError {
    fn from(error: RunError) -> Self {
        StrategyError::from(error).into()
    }
}

impl From<SessionError> for JobError {
    fn from(error: SessionError) -> Self {
        StrategyError::from(error).into()
    }
}

/// Runs the training job of a folder, from where it was left.
///
/// Sets the limits of `job.json` on this process: call it in a process of its own.
///
/// # Errors
/// [`JobError`]; it is also left in `error.json`.
pub fn run_train(folder: &Path) -> Result<JobResult, JobError> {
    run(folder, "train", |spec| match spec {
        JobSpec::Train(spec) => Some((spec.limits, Box::new(move || train::run(folder, &spec)))),
        JobSpec::Eval(_) | JobSpec::Check(_) => None,
    })
}

/// Runs the evaluation job of a folder.
///
/// Sets the limits of `job.json` on this process: call it in a process of its own.
///
/// # Errors
/// [`JobError`] when the judge itself cannot work; an entrant's fault is a result.
pub fn run_eval(folder: &Path) -> Result<JobResult, JobError> {
    run(folder, "eval", |spec| match spec {
        JobSpec::Eval(spec) => Some((spec.limits, Box::new(move || eval::run(&spec)))),
        JobSpec::Train(_) | JobSpec::Check(_) => None,
    })
}

/// Runs the check job of a folder.
///
/// Sets the limits of `job.json` on this process: call it in a process of its own.
///
/// # Errors
/// [`JobError`] when the base or the rows cannot be read at all.
pub fn run_check(folder: &Path) -> Result<JobResult, JobError> {
    run(folder, "check", |spec| match spec {
        JobSpec::Check(spec) => Some((spec.limits, Box::new(move || check::run(&spec)))),
        JobSpec::Train(_) | JobSpec::Eval(_) => None,
    })
}

type Work<'a> = (spec::Limits, Box<dyn FnOnce() -> Result<JobResult, JobError> + 'a>);

fn run<'a>(
    folder: &Path,
    wanted: &'static str,
    pick: impl FnOnce(JobSpec) -> Option<Work<'a>>,
) -> Result<JobResult, JobError> {
    if let Some(done) = JobResult::read(folder) {
        return Ok(done);
    }
    let outcome = JobSpec::read(folder).and_then(|spec| {
        let (limits, work) = pick(spec).ok_or(JobError::WrongCommand { wanted })?;
        limits::apply(&limits)?;
        work()
    });
    match outcome {
        Ok(result) => {
            files::write_json(&folder.join("result.json"), &result)?;
            files::write(&folder.join(RESULT_FILE), &result.to_bytes())?;
            Ok(result)
        }
        Err(error) => {
            let report = serde_json::json!({ "error": error.to_string(), "exit_code": error.exit_code() });
            // The error itself is what matters; that it could not be written down changes nothing.
            let _ = files::write_json(&folder.join("error.json"), &report);
            Err(error)
        }
    }
}

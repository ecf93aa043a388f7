//! Child processes that train, evaluate and check: prepared, started, watched, turned into outcomes.
//!
//! A job is a folder (the contract is `tiltyard_train::job`) and a process of this very program working in it. The
//! process runs at the lowest priority under limits it sets on itself, and dies with this one. Starting a job whose
//! folder is there already continues it.

mod child;
mod outcome;
mod prepare;
mod runner;
mod table;

use std::path::PathBuf;

use tiltyard_machine::io::JobId;
use tiltyard_proto::ids::BlobRoot;
use tiltyard_store::blob::BlobError;
use tiltyard_train::job::JobError;
use tiltyard_train::job::spec::{External, StrategySpec};

pub(crate) use child::{PARENT_VARIABLE, Work, exec, work};
pub(crate) use runner::{Ended, JobHandle, JobRunner};
pub(crate) use table::JobTable;

/// What jobs of this node may take, and how its miner trains.
#[derive(Debug, Clone)]
pub(crate) struct JobSettings {
    /// Folder of the jobs' folders.
    pub(crate) dir: PathBuf,
    /// Trainings at a time.
    pub(crate) train_max: usize,
    /// Evaluations and checks at a time.
    pub(crate) evaluate_max: usize,
    /// Most bytes of memory of one job.
    pub(crate) memory_bytes_max: u64,
    /// Most CPU seconds of one evaluation or check.
    pub(crate) evaluate_cpu_s_max: u64,
    /// Most CPU seconds of one training.
    pub(crate) train_cpu_s_max: u64,
    /// How hyperparameters are chosen.
    pub(crate) strategy: StrategySpec,
    /// Tokens to train on for one task.
    pub(crate) tokens: u64,
    /// Steps between two checkpoints.
    pub(crate) checkpoint_steps: u32,
}

/// Says why a job cannot be prepared or watched. Never a fault of an entrant.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunnerError {
    #[error("cannot {action} {}: {source}; check the disk of the data folder", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("blob store: {0}")]
    Blob(#[from] BlobError),
    #[error("blob {root} is not here any more; it is fetched again")]
    Missing { root: BlobRoot },
    #[error("job.json cannot be written: {0}")]
    Job(#[from] JobError),
    #[error("the job's process cannot be started: {0}")]
    Spawn(std::io::Error),
}

impl RunnerError {
    /// Returns the blob that is damaged or gone on this disk, when that is what happened.
    pub(crate) fn lost(&self) -> Option<BlobRoot> {
        match self {
            Self::Missing { root }
            | Self::Blob(BlobError::Damaged { root, .. } | BlobError::Unknown { root }) => Some(*root),
            Self::Blob(_) | Self::Io { .. } | Self::Job(_) | Self::Spawn(_) => None,
        }
    }

    pub(crate) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// Reads `fixed:<preset>`, `fixed:<file>`, `search`, `learned:<file>` or `external:<command>`; a file's path counts from `folder`.
pub(crate) fn strategy(text: &str, folder: &std::path::Path) -> Result<StrategySpec, String> {
    if text == "search" {
        return Ok(StrategySpec::Search);
    }
    if let Some(command) = text.strip_prefix("external:") {
        let command: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        return match command.is_empty() {
            true => Err("strategy \"external:\" names no command".to_owned()),
            // The node puts its own limit in when it starts a job.
            false => Ok(StrategySpec::External(External { command, seconds_max: u64::MAX })),
        };
    }
    if let Some(file) = text.strip_prefix("learned:") {
        let path = std::path::absolute(folder.join(file))
            .map_err(|error| format!("file of past recipes {file:?}: {error}"))?;
        return Ok(StrategySpec::Learned(path));
    }
    let Some(name) = text.strip_prefix("fixed:") else {
        return Err(format!(
            "strategy {text:?} is unknown; use search, learned:<file>, fixed:<preset>, fixed:<file> or external:<command>"
        ));
    };
    let path = PathBuf::from(name);
    if name.contains('/') || path.extension().is_some() {
        let path = std::path::absolute(folder.join(path))
            .map_err(|error| format!("strategy file {name:?}: {error}"))?;
        return Ok(StrategySpec::File(path));
    }
    match tiltyard_train::strategy::form::Form::preset(name) {
        Ok(_) => Ok(StrategySpec::Preset(name.to_owned())),
        Err(error) => Err(error.to_string()),
    }
}

/// The name of a job's folder, and of the job for people.
pub(crate) fn name(id: &JobId) -> String {
    match id {
        JobId::Check(task) => format!("check-{task}"),
        JobId::Train(task) => format!("train-{task}"),
        JobId::Evaluate(task, row) => format!("evaluate-{task}-{row}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strategies_are_read_by_name_or_file() {
        let here = std::path::Path::new(".");
        assert_eq!(strategy("search", here), Ok(StrategySpec::Search));
        assert!(matches!(strategy("learned:past.jsonl", here), Ok(StrategySpec::Learned(_))));
        assert!(matches!(strategy("fixed:./mine.toml", here), Ok(StrategySpec::File(_))));
        assert!(matches!(strategy("fixed:autotrain", here), Ok(StrategySpec::Preset(_))));
        assert!(matches!(strategy("external:python3 my.py --fast", here), Ok(StrategySpec::External(_))));
        for bad in ["", "external: ", "serach", "fixed:", "fixed:no-such-preset"] {
            assert!(strategy(bad, here).is_err(), "{bad}");
        }
    }
}

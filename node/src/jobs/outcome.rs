//! Reads what a job's process left behind.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use rustix::process::Signal;
use tiltyard_machine::io::{Job, JobOutcome};
use tiltyard_proto::manifest::BlobKind;
use tiltyard_proto::score::{Fault, Row};
use tiltyard_store::blob::{BlobStore, Source};
use tiltyard_train::job::result::{CHECKPOINT_DIR, JobResult, TrainResult};

use super::RunnerError;
use crate::home;

/// How an attempt ended.
#[derive(Debug)]
pub(super) enum Attempt {
    /// There is an outcome.
    Ended(JobOutcome),
    /// Another attempt may help; this is the outcome if there is none left.
    Again(JobOutcome),
}

/// Turns a process's end into an outcome. Blocks: copies a trained checkpoint into the blob store.
pub(super) fn read(
    job: &Job,
    folder: &Path,
    status: ExitStatus,
    blobs: &BlobStore,
) -> Result<Attempt, RunnerError> {
    if status.success() {
        return match JobResult::read(folder) {
            Some(result) => finished(job, folder, result, blobs),
            None => Ok(Attempt::Again(failed("the job says that it is done, but left no result"))),
        };
    }
    Ok(match status.code() {
        Some(2) => Attempt::Ended(refused(job, words(folder))),
        Some(code) => {
            Attempt::Again(broken(job, Fault::Crashed, format!("ended with code {code}: {}", words(folder))))
        }
        None => {
            let signal = status.signal().unwrap_or(0);
            let limits = [Signal::KILL, Signal::XCPU, Signal::XFSZ, Signal::ABORT];
            let fault = if limits.iter().any(|limit| limit.as_raw() == signal) {
                Fault::OutOfResources
            } else {
                Fault::Crashed
            };
            Attempt::Again(broken(job, fault, format!("ended by signal {signal}")))
        }
    })
}

fn failed(fact: impl Into<String>) -> JobOutcome {
    JobOutcome::Failed { fact: fact.into() }
}

fn refused(job: &Job, fact: String) -> JobOutcome {
    match job {
        Job::Check { .. } => JobOutcome::Refused { fact },
        Job::Train { .. } | Job::Evaluate { .. } => JobOutcome::Failed { fact },
    }
}

/// An evaluation that keeps dying on an entrant's checkpoint is that entrant's fault; on the base it is ours.
fn broken(job: &Job, fault: Fault, fact: String) -> JobOutcome {
    match job {
        Job::Evaluate { subject: Some(_), .. } => JobOutcome::Evaluated { row: Row::Fault(fault) },
        Job::Evaluate { subject: None, .. } | Job::Train { .. } | Job::Check { .. } => failed(fact),
    }
}

fn finished(job: &Job, folder: &Path, result: JobResult, blobs: &BlobStore) -> Result<Attempt, RunnerError> {
    let outcome = match (job, result) {
        (Job::Train { spec, .. }, JobResult::Trained(result)) => {
            trained(&result, spec.base.root, folder, blobs)?
        }
        (Job::Evaluate { .. }, JobResult::Evaluated(result)) => JobOutcome::Evaluated { row: result.row },
        (Job::Check { .. }, JobResult::Checked(report)) => {
            if report.is_clean() {
                JobOutcome::Checked
            } else {
                let fault = report.training.faults.first();
                let fact = fault.map_or_else(
                    || "no usable training row".to_owned(),
                    |fault| format!("training row {}: {}", fault.line, fault.fault),
                );
                JobOutcome::Refused { fact }
            }
        }
        (Job::Train { .. }, JobResult::Evaluated(_) | JobResult::Checked(_))
        | (Job::Evaluate { .. }, JobResult::Trained(_) | JobResult::Checked(_))
        | (Job::Check { .. }, JobResult::Trained(_) | JobResult::Evaluated(_)) => {
            failed("the folder holds the result of another kind of job; remove it")
        }
    };
    Ok(Attempt::Ended(outcome))
}

fn trained(
    result: &TrainResult,
    base: tiltyard_proto::ids::BlobRoot,
    folder: &Path,
    blobs: &BlobStore,
) -> Result<JobOutcome, RunnerError> {
    let names: &[&str] = match result.kind {
        BlobKind::Adapter => &["adapter_config.json", "adapter_model.safetensors"],
        BlobKind::Model => &["model.safetensors"],
        BlobKind::Base | BlobKind::Dataset | BlobKind::Evaluation => {
            return Ok(failed("the training left something that is no checkpoint"));
        }
    };
    let checkpoint = folder.join(CHECKPOINT_DIR);
    let files: Vec<(String, PathBuf)> =
        names.iter().map(|name| ((*name).to_owned(), checkpoint.join(name))).collect();
    let source =
        Source { kind: result.kind, base: Some(base), recipe: Some(result.recipe.hash()), files: &files };
    let manifest = blobs.insert(&source)?;
    Ok(JobOutcome::Trained {
        manifest: Box::new(manifest),
        recipe: Box::new(result.recipe.clone()),
        resumed_from_step: result.resumed_from_step,
    })
}

/// The job's own words in `error.json`, or that there are none.
fn words(folder: &Path) -> String {
    home::read_bounded(&folder.join("error.json"), 16 * 1024)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok())
        .and_then(|value| value.get("error")?.as_str().map(str::to_owned))
        .unwrap_or_else(|| "it left no words; see job.log in its folder".to_owned())
}

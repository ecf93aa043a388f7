//! The evaluation job: a judge's row for one entrant, or for the untouched base.

use std::path::Path;

use tiltyard_proto::score::{Fault, Row};
use tiltyard_proto::seal;

use super::JobError;
use super::result::{EvalResult, JobResult};
use super::spec::{EvalSpec, EvaluationSource, Subject};
use crate::eval::row;
use crate::kind::{self, Rows};
use crate::model::Model;
use crate::safe::read_bytes;

/// Largest base model read, in bytes.
const BASE_BYTES_MAX: u64 = 64 << 30;
/// Largest evaluation set read, in bytes.
const PLAINTEXT_BYTES_MAX: u64 = 256 << 20;

/// Loads a base model's folder.
pub(super) fn load_base(folder: &Path) -> Result<Model, JobError> {
    Model::load(folder, BASE_BYTES_MAX).map_err(JobError::Base)
}

fn fault(fault: Fault, fact: String) -> JobResult {
    JobResult::Evaluated(EvalResult {
        row: Row::Fault(fault),
        mean_micro: 0,
        fact: Some(fact),
        accuracy_ppm: None,
    })
}

pub(super) fn run(spec: &EvalSpec) -> Result<JobResult, JobError> {
    let base = load_base(&spec.base)?;
    let mut rows = kind::open(&spec.kind, &spec.base, base.config(), base.context())?;
    if let Err(fact) = read(spec, rows.as_mut())? {
        return Ok(fault(Fault::EvaluationUnusable, fact));
    }
    // Shares the weights, until a checkpoint of all weights takes their place.
    let mut model = base.clone();
    let loaded = match &spec.subject {
        Subject::Base => Ok(()),
        Subject::Adapter(folder) => model
            .load_adapter(folder, spec.checkpoint_bytes_max)
            .map(|_| ())
            .map_err(|error| (error.fault(), error.to_string())),
        Subject::Model(folder) => model
            .load_checkpoint(folder, spec.checkpoint_bytes_max)
            .map_err(|error| (error.fault(), error.to_string())),
    };
    if let Err((reason, fact)) = loaded {
        return Ok(fault(reason, fact));
    }
    // Rows fit the base's context and vocabulary, or `read` would have said so;
    // what is left to fail is this machine.
    let scored = rows.score(&base, &model, spec.workers.clamp(1, 64)).map_err(JobError::Base)?;
    let row = row(&scored.scores);
    let (mean_micro, fact) = match &row {
        Row::Scores(scores) => {
            let sum: u64 = scores.iter().map(|score| u64::from(score.get())).sum();
            (sum / scores.len().max(1) as u64, None)
        }
        Row::Fault(_) => (0, Some("a score is not a finite number".to_owned())),
    };
    Ok(JobResult::Evaluated(EvalResult { row, mean_micro, fact, accuracy_ppm: scored.accuracy_ppm() }))
}

/// Opens and reads the evaluation set; the inner error says why it is the requester's fault.
fn read(spec: &EvalSpec, rows: &mut dyn Rows) -> Result<Result<(), String>, JobError> {
    let plaintext = match &spec.evaluation {
        EvaluationSource::Plain(path) => read_bytes(path, PLAINTEXT_BYTES_MAX)?,
        EvaluationSource::Sealed { path, key } => {
            let sealed = read_bytes(path, seal::sealed_bytes(PLAINTEXT_BYTES_MAX))?;
            match seal::open(key, &sealed, PLAINTEXT_BYTES_MAX) {
                Ok(plaintext) => plaintext,
                Err(error) => return Ok(Err(error.to_string())),
            }
        }
    };
    if plaintext.len() as u64 != spec.plaintext_bytes {
        let (found, promised) = (plaintext.len(), spec.plaintext_bytes);
        return Ok(Err(format!("the set has {found} bytes, the task promised {promised}")));
    }
    if let Err(error) = kind::read(rows, &plaintext) {
        return Ok(Err(error.to_string()));
    }
    let (found, promised) = (rows.scores(), spec.examples);
    Ok(match found == promised as usize {
        true => Ok(()),
        false => Err(format!("the set has {found} examples, the task promised {promised}")),
    })
}

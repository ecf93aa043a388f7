//! What a job leaves behind: `result.cbor`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tiltyard_proto::codec;
use tiltyard_proto::manifest::BlobKind;
use tiltyard_proto::recipe::Recipe;
use tiltyard_proto::score::Row;

use crate::data::check::Report;
use crate::safe::read_bytes;

/// The canonical result.
pub const RESULT_FILE: &str = "result.cbor";
/// The folder of a trained checkpoint's files.
pub const CHECKPOINT_DIR: &str = "checkpoint";
const RESULT_BYTES_MAX: usize = 1 << 20;

/// The outcome of a training job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainResult {
    /// What the files in `checkpoint/` are: `Adapter` or `Model`.
    pub kind: BlobKind,
    /// How they were made.
    pub recipe: Recipe,
    /// Steps, over all runs, done before the last restart; 0 when there was none.
    pub resumed_from_step: u32,
    /// Mean score of held-out rows, in millionths; `None` when the strategy held none out.
    pub validation_micro: Option<u64>,
    /// Whether the job was asked to end before its budget was used.
    pub finished_early: bool,
    /// Share of right answers on held-out rows, in millionths, for kinds that know any.
    pub validation_accuracy_ppm: Option<u32>,
}

/// The outcome of an evaluation job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvalResult {
    /// Scores, or a typed fault.
    pub row: Row,
    /// Mean score, in micro-nats; 0 for a fault.
    pub mean_micro: u64,
    /// The fault's fact, for people.
    pub fact: Option<String>,
    /// Share of right answers, in millionths, for kinds that know any.
    pub accuracy_ppm: Option<u32>,
}

/// The outcome of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobResult {
    /// A checkpoint is ready.
    Trained(Box<TrainResult>),
    /// A row is ready.
    Evaluated(EvalResult),
    /// The task was checked.
    Checked(Box<Report>),
}

impl JobResult {
    /// Returns the canonical bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads a job folder's result; `None` when there is none yet, or it is damaged.
    pub fn read(folder: &Path) -> Option<Self> {
        let bytes = read_bytes(&folder.join(RESULT_FILE), RESULT_BYTES_MAX as u64).ok()?;
        codec::decode("job result", &bytes, RESULT_BYTES_MAX).ok()
    }
}

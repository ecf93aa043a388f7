//! `job.json`: what a job is to do. Unknown keys are refused.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tiltyard_keys::PublicKey;
use tiltyard_proto::ids::{SealKey, TaskId};
use tiltyard_proto::task::TaskKind;

use super::JobError;
use crate::safe::read_small;

/// The file that says what to do.
pub const JOB_FILE: &str = "job.json";

/// Limits a job sets on itself before it reads anything else; `None` sets none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Address space, in bytes.
    #[serde(default)]
    pub memory_bytes_max: Option<u64>,
    /// Size of any file written, in bytes.
    #[serde(default)]
    pub file_bytes_max: Option<u64>,
    /// Processor time, in seconds.
    #[serde(default)]
    pub cpu_seconds_max: Option<u64>,
}

/// How the hyperparameters are chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum StrategySpec {
    /// A named preset, such as `autotrain`.
    Preset(String),
    /// A recipe file in TOML or JSON.
    File(PathBuf),
    /// Search under the token budget.
    Search,
    /// Search that starts from recipes of past tasks: a file of JSON lines
    /// ([`Past`](crate::strategy::learned::Past)).
    Learned(PathBuf),
    /// A trainer that is not ours.
    External(External),
}

/// A command that trains in the job's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// Program and arguments; the job's folder is added as the last one.
    pub command: Vec<String>,
    /// Wall time after which it is killed, in seconds.
    pub seconds_max: u64,
}

/// Whether the activations of a forward pass are kept for the backward pass.
///
/// Computing them again layer by layer costs about a third more time; the result is the
/// same to the last bit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activations {
    /// Keeps them where they are estimated to fit the memory limit.
    #[default]
    Auto,
    /// Keeps them.
    Keep,
    /// Computes them again.
    Recompute,
}

/// Where gradients are computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceSpec {
    /// This processor, with the fused kernels.
    #[default]
    Cpu,
    /// The NVIDIA card of this number, with candle's stock operations; needs a build with
    /// the `cuda` feature.
    Cuda(usize),
}

/// Trains a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainSpec {
    /// The task, for the seed.
    pub task: TaskId,
    /// The miner's key, for the seed.
    pub miner: PublicKey,
    /// What is learned.
    pub kind: TaskKind,
    /// Folder of the base: `config.json`, `tokenizer.json`, `model.safetensors`.
    pub base: PathBuf,
    /// Folder of the training set: `train.jsonl`.
    pub training: PathBuf,
    /// How the hyperparameters are chosen.
    pub strategy: StrategySpec,
    /// Tokens to train on at most, search included.
    pub budget_tokens: u64,
    /// Largest checkpoint, in bytes.
    pub checkpoint_bytes_max: u64,
    /// Steps between saved states.
    #[serde(default = "save_every_default")]
    pub save_every_steps: u64,
    /// Worker threads.
    #[serde(default = "one")]
    pub workers: usize,
    /// Whether activations are kept.
    #[serde(default)]
    pub activations: Activations,
    /// Where gradients are computed.
    #[serde(default)]
    pub device: DeviceSpec,
    /// Limits on this process.
    #[serde(default)]
    pub limits: Limits,
}

fn save_every_default() -> u64 {
    20
}

fn one() -> usize {
    1
}

/// Where the evaluation rows are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum EvaluationSource {
    /// A file of rows.
    Plain(PathBuf),
    /// A sealed file and the key that opens it.
    Sealed {
        /// The sealed file.
        path: PathBuf,
        /// Its key.
        key: SealKey,
    },
}

/// A checkpoint to score.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Subject {
    /// The untouched base.
    Base,
    /// A folder with a PEFT adapter.
    Adapter(PathBuf),
    /// A folder with `model.safetensors`.
    Model(PathBuf),
}

/// Scores one row of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalSpec {
    /// What is learned.
    pub kind: TaskKind,
    /// Folder of the base.
    pub base: PathBuf,
    /// The evaluation rows.
    pub evaluation: EvaluationSource,
    /// Examples the task promises.
    pub examples: u32,
    /// Bytes of plaintext the task promises.
    pub plaintext_bytes: u64,
    /// What is scored.
    pub subject: Subject,
    /// Largest checkpoint, in bytes.
    pub checkpoint_bytes_max: u64,
    /// Worker threads; the scores do not depend on them.
    #[serde(default = "one")]
    pub workers: usize,
    /// Limits on this process.
    #[serde(default)]
    pub limits: Limits,
}

/// Checks whether a task can be trained and judged here, and what it costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckSpec {
    /// What is learned.
    pub kind: TaskKind,
    /// Folder of the base.
    pub base: PathBuf,
    /// Folder of the training set.
    pub training: PathBuf,
    /// Rows of the evaluation set, when the asker holds them in the clear.
    #[serde(default)]
    pub evaluation: Option<PathBuf>,
    /// Examples to be evaluated, for the estimate.
    pub examples: u32,
    /// Plaintext bytes of the evaluation set, for the estimate.
    pub plaintext_bytes: u64,
    /// Limits on this process.
    #[serde(default)]
    pub limits: Limits,
}

/// What a job is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum JobSpec {
    /// Train a checkpoint.
    Train(TrainSpec),
    /// Score a row.
    Eval(EvalSpec),
    /// Check a task.
    Check(CheckSpec),
}

impl JobSpec {
    /// Reads a job folder's `job.json`.
    ///
    /// # Errors
    /// [`JobError::Spec`] with the parser's words.
    pub fn read(folder: &Path) -> Result<Self, JobError> {
        let bytes = read_small(&folder.join(JOB_FILE))?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Writes a job folder's `job.json`.
    ///
    /// # Errors
    /// [`JobError::File`] when it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), JobError> {
        Ok(super::files::write_json(&folder.join(JOB_FILE), self)?)
    }
}

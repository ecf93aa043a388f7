//! The JSON forms of the API that the command line reads too. Amounts are micro-credits, ids are hex.

use serde::{Deserialize, Serialize};
use tiltyard_proto::recipe::Recipe;

/// `GET /v1/accounts/{key}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) key: String,
    pub(crate) balance: u64,
    pub(crate) nonce: u64,
    /// Height of the state that was read.
    pub(crate) height: u64,
    pub(crate) validator: Option<ValidatorStake>,
}

/// The validator record under the same key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ValidatorStake {
    pub(crate) stake: u64,
    pub(crate) unbonding: u64,
    pub(crate) standing: String,
}

/// `GET /v1/tasks`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Tasks {
    pub(crate) tasks: Vec<Task>,
}

/// `GET /v1/tasks/{id}`: a task, live or over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) kind: String,
    pub(crate) phase: String,
    pub(crate) refund_cause: Option<String>,
    pub(crate) posted_at: u64,
    pub(crate) deadlines: Deadlines,
    pub(crate) requester: String,
    pub(crate) pot: u64,
    pub(crate) bond: u64,
    pub(crate) checkpoint_bytes_max: u64,
    pub(crate) min_gain_ppm: i64,
    pub(crate) examples: u32,
    pub(crate) accepted: usize,
    pub(crate) committee_stake: u64,
    pub(crate) base: BlobName,
    pub(crate) training: BlobName,
    pub(crate) evaluation: BlobName,
    pub(crate) base_mean_micro: Option<u64>,
    pub(crate) winner: Option<String>,
    pub(crate) settled_at: Option<u64>,
    pub(crate) money: Option<Money>,
    pub(crate) entrants: Vec<Entrant>,
}

/// A blob by name and size.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BlobName {
    pub(crate) root: String,
    pub(crate) bytes: u64,
}

/// Where the pot went.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Money {
    pub(crate) miners: u64,
    pub(crate) judges: u64,
    pub(crate) returned: u64,
    pub(crate) burned: u64,
}

/// Last height of each phase.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Deadlines {
    pub(crate) open: u64,
    pub(crate) commit: u64,
    pub(crate) reveal: u64,
    pub(crate) held: u64,
    pub(crate) key: u64,
    pub(crate) score_commit: u64,
    pub(crate) score_open: u64,
}

/// One miner's entry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entrant {
    pub(crate) miner: String,
    pub(crate) commit_height: u64,
    /// `committed`, `revealed`, `standing` or `judged`.
    pub(crate) stage: String,
    pub(crate) strategy: Option<String>,
    pub(crate) tokens_trained: Option<u64>,
    pub(crate) mean_micro: Option<u64>,
    pub(crate) gain_ppm: Option<i64>,
    pub(crate) reference_gain_ppm: Option<i64>,
    pub(crate) rank: Option<u8>,
    pub(crate) reason: String,
    pub(crate) reward: u64,
    pub(crate) bond: Option<String>,
    pub(crate) manifest: Option<String>,
    /// How it was made, by its own word; once revealed.
    #[serde(default)]
    pub(crate) recipe: Option<Recipe>,
}

/// `GET /v1/tasks/{id}/why`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Why {
    pub(crate) task: String,
    pub(crate) phase: String,
    pub(crate) outcome: String,
    pub(crate) entrants: Vec<WhyEntrant>,
}

/// Why one entrant stands where it stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WhyEntrant {
    pub(crate) miner: String,
    pub(crate) rank: Option<u8>,
    pub(crate) reason: String,
    /// The typed reason with its numbers.
    pub(crate) detail: serde_json::Value,
}

/// `GET /v1/transactions/{id}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TransactionState {
    pub(crate) id: String,
    /// `unknown`, `pending`, `included` or `dropped`.
    pub(crate) state: String,
    pub(crate) height: Option<u64>,
    /// Whether an included transaction's action took effect.
    pub(crate) took_effect: Option<bool>,
    /// Why it was dropped, or how it fared.
    pub(crate) fact: Option<String>,
}

/// `POST /v1/transactions`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SubmitRequest {
    /// Canonical bytes of the signed transaction, in hex.
    pub(crate) bytes: String,
}

/// Answer to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Submitted {
    pub(crate) id: String,
}

/// `POST /v1/transactions/batch`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SubmitManyRequest {
    /// Canonical bytes of signed transactions, in hex: 1 to 256, 512 KiB of body in all.
    pub(crate) transactions: Vec<String>,
}

/// Answer to it: one entry a transaction, in order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SubmittedMany {
    pub(crate) transactions: Vec<SubmittedOne>,
}

/// What became of one transaction of a batch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SubmittedOne {
    pub(crate) id: String,
    /// It waits in this node's mempool, or is in a block already.
    pub(crate) accepted: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fact: Option<String>,
}

/// `POST /v1/keep-key`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct KeepKeyRequest {
    /// Root of the sealed set.
    pub(crate) ciphertext: String,
    /// The key.
    pub(crate) key: String,
}

/// `POST /v1/blobs`: adds a file set from this machine's disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct AddBlobRequest {
    /// `base`, `dataset` or `evaluation`.
    pub(crate) kind: String,
    /// Absolute path of the folder (base) or the file.
    pub(crate) path: String,
}

/// `POST /v1/fetch`: fetches a blob from peers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FetchRequest {
    pub(crate) root: String,
    pub(crate) bytes: u64,
}

/// A blob of the node: answer to `POST /v1/blobs`, and `GET /v1/blobs/{root}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Blob {
    pub(crate) root: String,
    pub(crate) kind: Option<String>,
    pub(crate) bytes: u64,
    /// Whether it is complete here.
    pub(crate) held: bool,
    /// Why fetching it failed, if it did.
    pub(crate) fault: Option<String>,
    /// Its files, where it is complete: name and path.
    pub(crate) files: Vec<BlobFile>,
}

/// A file of a blob.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BlobFile {
    pub(crate) name: String,
    pub(crate) path: String,
}

/// `GET /v1/blobs`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Blobs {
    pub(crate) blobs: Vec<Blob>,
    pub(crate) used_bytes: u64,
}

/// `GET /v1/jobs`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Jobs {
    pub(crate) jobs: Vec<Job>,
}

/// A job of the node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) id: String,
    /// `train`, `evaluate` or `check`.
    pub(crate) kind: String,
    pub(crate) task: String,
    pub(crate) row: Option<u32>,
    /// `queued`, `running`, `done` or `failed`.
    pub(crate) state: String,
    pub(crate) fact: Option<String>,
    pub(crate) strategy: Option<String>,
    pub(crate) phase: Option<String>,
    pub(crate) step: u64,
    pub(crate) steps: u64,
    pub(crate) tokens: u64,
    pub(crate) tokens_budget: u64,
    pub(crate) tokens_per_s: u64,
    pub(crate) eta_s: u64,
    pub(crate) loss_micro: Option<u64>,
    pub(crate) checkpoint_step: u64,
    pub(crate) resumed_from_step: u64,
}

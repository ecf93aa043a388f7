//! `tiltyard task post`.

use std::fs;
use std::path::Path;

use clap::Args;
use serde_json::{Value, json};
use tiltyard_proto::ids::SealKey;
use tiltyard_proto::limits::{EXAMPLES_MAX, EXAMPLES_MIN};
use tiltyard_proto::manifest::BlobRef;
use tiltyard_proto::seal;
use tiltyard_proto::task::{Payout, SealedSet, TaskSpec, Windows, seal_key_hash};
use tiltyard_proto::transaction::Action;
use tiltyard_proto::units::{Blocks, MicroCredits};

use super::blob::{self, Kind as BlobWord};
use super::check::{self, Files};
use super::submit::Sender;
use super::{Answer, CliError, Signing};
use crate::amount;
use crate::api::model::{Blob, KeepKeyRequest, Task};
use crate::home::{self, KeyName};

/// Largest evaluation set that is sealed, in bytes.
const EVALUATION_BYTES_MAX: u64 = 64 << 20;
/// Checkpoints may be this much larger than the base unless the post says otherwise.
const CHECKPOINT_FACTOR: u64 = 3;

/// Options of `task post`.
#[derive(Debug, Args)]
pub(crate) struct Post {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    signing: Signing,
    /// A line for people.
    #[arg(long)]
    title: String,
    /// Credits for miners and judges.
    #[arg(long, value_name = "CREDITS")]
    pot: String,
    /// Credits that a miner locks to enter; returned unless it breaks its word.
    #[arg(long, value_name = "CREDITS", default_value = "1")]
    bond: String,
    /// Smallest gain over the untouched base that is paid.
    #[arg(long, value_name = "PERCENT", default_value = "1")]
    min_gain: String,
    /// Seven windows: accept, train, reveal, hold, key, seal scores, open scores; blocks, or times like 10m.
    #[arg(long, value_name = "W,W,W,W,W,W,W", default_value = "10m,6h,10m,10m,10m,1h,10m")]
    windows: String,
    /// The first place takes all three shares.
    #[arg(long)]
    winner_takes_all: bool,
    /// Most entrants; by default as many as the network allows.
    #[arg(long, value_name = "N")]
    entrants: Option<u8>,
    /// Largest checkpoint in megabytes; by default three times the base.
    #[arg(long, value_name = "MB")]
    checkpoint_mb: Option<u64>,
    /// Says that fewer than 200 evaluation examples are meant.
    #[arg(long)]
    small_set: bool,
}

pub(crate) fn post(options: &Post) -> Result<Answer, CliError> {
    let pot = amount::credits(&options.pot)?;
    let bond = amount::credits(&options.bond)?;
    let min_gain = amount::percent(&options.min_gain)?;
    let sender = Sender::open(&options.signing, KeyName::Account)?;
    let windows = windows(&options.windows, sender.params.block_interval_ms)?;
    let checked = check::run(&options.files)?;
    if !checked.report.is_clean() {
        return Err(CliError::refused("the files are not clean; `tiltyard task check` says which lines"));
    }
    let rows = checked.report.evaluation.as_ref().map_or(0, |evaluation| evaluation.rows);
    let examples = super::kind::scores(&options.files.kind()?, rows);
    check_examples(examples, options.small_set)?;
    let key = SealKey::from_bytes(home::random());
    let (evaluation, plaintext_bytes) = add_sealed(&sender, &checked.evaluation(), &key)?;
    let base = blob::add(&sender.api, BlobWord::Base, &options.files.base)?;
    let training = blob::add(&sender.api, BlobWord::Dataset, &checked.training())?;
    let checkpoint_bytes_max = options
        .checkpoint_mb
        .map_or(base.bytes.saturating_mul(CHECKPOINT_FACTOR), |mb| mb.saturating_mul(1 << 20));
    let spec = TaskSpec {
        title: options.title.clone(),
        kind: options.files.kind()?,
        base: blob_ref(&base)?,
        training: blob_ref(&training)?,
        evaluation: SealedSet {
            ciphertext: blob_ref(&evaluation)?,
            key_hash: seal_key_hash(&key),
            examples: u32::try_from(examples).unwrap_or(u32::MAX),
            plaintext_bytes,
        },
        windows,
        pot,
        payout: if options.winner_takes_all { Payout::WinnerTakesAll } else { Payout::ThreePlaces },
        min_gain,
        bond: bond.max(MicroCredits::new(sender.params.fee_per_cell.get().saturating_mul(examples))),
        entrants_max: options.entrants.unwrap_or(sender.params.entrants_max),
        unbonded_max: sender.params.unbonded_max,
        checkpoint_bytes_max,
        reference: None,
        small_set: options.small_set,
    };
    // The key is kept, durably, before the pot is paid in: whoever posts can always open it.
    let keep = KeepKeyRequest { ciphertext: evaluation.root.clone(), key: key.to_string() };
    let _: Value = sender.api.post("/v1/keep-key", &keep)?;
    let included = sender.send(&Action::Post(Box::new(spec)))?;
    report_post(&sender, &included.id)
}

fn windows(text: &str, block_interval_ms: u32) -> Result<Windows, CliError> {
    let [open, commit, reveal, held, key, score_commit, score_open] =
        amount::windows(text, block_interval_ms)?;
    Ok(Windows { open, commit, reveal, held, key, score_commit, score_open })
}

fn check_examples(examples: u64, small_set: bool) -> Result<(), CliError> {
    if examples > EXAMPLES_MAX as u64 {
        return Err(CliError::refused(format!(
            "{examples} evaluation examples; at most {EXAMPLES_MAX} are judged, leave some out"
        )));
    }
    if examples < EXAMPLES_MIN as u64 && !small_set {
        return Err(CliError::refused(format!(
            "{examples} evaluation examples; fewer than {EXAMPLES_MIN} judge badly, add some or say --small-set"
        )));
    }
    Ok(())
}

/// Seals the evaluation rows and hands the ciphertext to the node; returns it with the plaintext's size.
fn add_sealed(sender: &Sender, rows: &Path, key: &SealKey) -> Result<(Blob, u64), CliError> {
    let plaintext = home::read_bounded(rows, EVALUATION_BYTES_MAX)?;
    let sealed = seal::seal(key, &plaintext);
    let staging = sender.api.home.staging();
    home::make_dir(&staging)?;
    let path = staging.join(hex::encode(home::random::<16>()));
    home::write_secret(&path, &sealed)?;
    let added = blob::add(&sender.api, BlobWord::Evaluation, &path);
    fs::remove_file(&path).map_err(CliError::file("remove", &path))?;
    Ok((added?, plaintext.len() as u64))
}

fn blob_ref(blob: &Blob) -> Result<BlobRef, CliError> {
    let root =
        blob.root.parse().map_err(|error: tiltyard_keys::HexError| CliError::refused(error.to_string()))?;
    Ok(BlobRef { root, bytes: blob.bytes })
}

fn report_post(sender: &Sender, id: &str) -> Result<Answer, CliError> {
    let task: Task = sender.api.get(&format!("/v1/tasks/{id}"))?;
    let (held, key) = (task.deadlines.held, task.deadlines.key);
    let away = Blocks::new(held.saturating_sub(task.posted_at));
    let seconds = away.get().saturating_mul(u64::from(sender.params.block_interval_ms)) / 1_000;
    let json = json!({
        "task": id,
        "posted_at": task.posted_at,
        "deadlines": task.deadlines,
        "key_opens_after": held,
        "node_must_be_up_by": held,
        "node_must_be_up_until": key,
        "seconds_until_key": seconds,
    });
    let text = format!(
        "posted {id} at height {}\n  this node keeps the evaluation key and opens it after height {held} (in about {} min);\n  it must be up between heights {held} and {key}, or the pot is burned",
        task.posted_at,
        seconds.div_ceil(60)
    );
    Ok(Answer::done(json, text))
}

//! `tiltyard receipt`: portable proofs of verdicts.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};
use tiltyard_keys::{GenesisHash, PublicKey};
use tiltyard_proto::ids::TaskId;
use tiltyard_proto::limits::RECEIPT_BYTES_MAX;
use tiltyard_proto::receipt::{Checked, Fact, Receipt, ReceiptError};
use tiltyard_proto::units::MicroCredits;

use super::node_api::NodeApi;
use super::setup::read_genesis;
use super::{Answer, CliError, Exit, Target};
use crate::{amount, home};

/// What can be done with receipts.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Gets the proof of an entrant's verdict from a node.
    Get {
        /// The task.
        task: TaskId,
        /// The miner.
        miner: PublicKey,
        #[command(flatten)]
        target: Target,
        /// Where to write it.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Verifies a receipt offline. Exits 0 when it holds, 1 when it does not.
    Verify {
        /// The receipt.
        file: PathBuf,
        /// Genesis document that is trusted.
        #[arg(long, value_name = "FILE", required_unless_present = "genesis_hash")]
        genesis: Option<PathBuf>,
        /// Genesis hash that is trusted, instead of the document.
        #[arg(long, value_name = "HASH", conflicts_with = "genesis")]
        genesis_hash: Option<GenesisHash>,
    },
}

pub(crate) fn answer(command: &Command) -> Result<Answer, CliError> {
    match command {
        Command::Get { task, miner, target, out } => {
            let api = NodeApi::find(target)?;
            let path = format!("/v1/receipts/{task}/{miner}");
            let receipt: Receipt = api.http().get_bytes(&path, "receipt", RECEIPT_BYTES_MAX)?;
            let bytes = receipt.encode();
            fs::write(out, &bytes).map_err(CliError::file("write", out))?;
            let height = receipt.header.height;
            let json =
                json!({ "file": out, "bytes": bytes.len(), "height": height, "task": task, "miner": miner });
            Ok(Answer::done(
                json,
                format!("{} bytes, proven at height {height}, in {}", bytes.len(), out.display()),
            ))
        }
        Command::Verify { file, genesis, genesis_hash } => {
            let receipt = match read(file) {
                Ok(receipt) => receipt,
                Err(CliError::Content { fact, .. }) => return Ok(refused(&fact)),
                Err(error) => return Err(error),
            };
            let verdict = match (genesis, genesis_hash) {
                (Some(path), _) => receipt.verify(&read_genesis(path)?),
                (None, Some(hash)) => receipt.verify_from_hash(hash),
                (None, None) => {
                    return Err(CliError::usage("name what you trust: --genesis or --genesis-hash"));
                }
            };
            Ok(judged(verdict))
        }
    }
}

/// Reads a receipt file; bytes that are none are the content's fault.
pub(crate) fn read(path: &Path) -> Result<Receipt, CliError> {
    let bytes = home::read_bounded(path, RECEIPT_BYTES_MAX as u64 + 1)?;
    Receipt::decode(&bytes).map_err(|error| CliError::content(path, error))
}

fn judged(verdict: Result<Checked, ReceiptError>) -> Answer {
    match verdict {
        Ok(checked) => {
            let text = format!("valid: {}", describe(&checked.fact));
            Answer::done(checked_json(&checked), text)
        }
        Err(error) => refused(&error.to_string()),
    }
}

pub(crate) fn refused(fact: &str) -> Answer {
    Answer {
        json: json!({ "valid": false, "fact": fact }),
        text: format!("NOT valid: {fact}"),
        exit: Exit::Refused,
    }
}

/// The JSON form of a receipt that holds.
pub(crate) fn checked_json(checked: &Checked) -> Value {
    json!({
        "valid": true,
        "genesis": checked.genesis,
        "height": checked.height,
        "time_ms": checked.time,
        "block": checked.block,
        "signed": checked.signed,
        "total": checked.total,
        "fact": checked.fact,
    })
}

/// Says a proven fact in a line.
pub(crate) fn describe(fact: &Fact) -> String {
    match fact {
        Fact::EntrantVerdict { task, verdict } => format!(
            "task {task}: miner {} was paid {} credits ({})",
            verdict.miner,
            amount::show(verdict.reward),
            crate::words::reason(&verdict.reason)
        ),
        Fact::Account { key, account } => {
            format!("account {key} has {} credits", amount::show(account.balance))
        }
        Fact::Validator { key, record } => format!("validator {key} has stake {}", record.stake),
        Fact::Params(params) => format!("parameters with blocks every {} ms", params.block_interval_ms),
        Fact::Task { task, record } => {
            format!("task {task} is {}", crate::words::phase(record.phase))
        }
        Fact::Verdict { task, verdict } => format!(
            "task {task} ended {} with {} entrants",
            crate::words::phase(verdict.phase),
            verdict.entrants.len()
        ),
        Fact::Other { value, .. } => format!("a state entry of {} bytes", value.len()),
        Fact::Absent { .. } => "the state has no such entry".to_owned(),
        Fact::Transaction { id, transaction } => format!(
            "transaction {id}: {} by {} with a fee of {} credits",
            transaction.action.name(),
            transaction.sender,
            amount::show(MicroCredits::new(transaction.fee.get()))
        ),
    }
}

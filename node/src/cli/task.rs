//! `tiltyard task`: everything around tasks.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use serde_json::json;
use tiltyard_keys::PublicKey;
use tiltyard_proto::ids::{SealKey, TaskId};
use tiltyard_proto::transaction::Action;
use tiltyard_proto::units::MicroCredits;

use super::check::{self, Check};
use super::node_api::NodeApi;
use super::post::{self, Post};
use super::submit::Sender;
use super::{Answer, CliError, Exit, Signing, Target};
use crate::amount;
use crate::api::model::{Blob, FetchRequest, Task, Tasks};
use crate::home::KeyName;

const WATCH_EVERY: Duration = Duration::from_millis(500);
const FETCH_EVERY: Duration = Duration::from_millis(200);

/// What can be done with tasks.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Checks base, training rows and evaluation rows before anything is paid.
    Check(Check),
    /// Posts a task: seals the evaluation set, hands its key to the running node, pays the pot in.
    Post(Box<Post>),
    /// Lists tasks, live ones and recent ones.
    List {
        #[command(flatten)]
        target: Target,
    },
    /// Shows a task and its entrants.
    Show {
        /// The task.
        task: TaskId,
        #[command(flatten)]
        target: Target,
    },
    /// Follows a task until it is over. Exits 0 when it settled, 1 when it was refunded.
    Watch {
        /// The task.
        task: TaskId,
        #[command(flatten)]
        target: Target,
    },
    /// Fetches the winner's checkpoint into a folder.
    Fetch {
        /// The task.
        task: TaskId,
        /// Another entrant than the winner.
        #[arg(long, value_name = "KEY")]
        miner: Option<PublicKey>,
        /// Folder to write to; made if needed.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Gives up after so many seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 300)]
        patience: u64,
        #[command(flatten)]
        target: Target,
    },
    /// Opens a task's evaluation key by hand, when the node that kept it cannot.
    OpenKey {
        /// The task.
        task: TaskId,
        /// The key, 64 hex digits.
        key: SealKey,
        #[command(flatten)]
        signing: Signing,
    },
    /// Withdraws a task that has not opened yet.
    Cancel {
        /// The task.
        task: TaskId,
        #[command(flatten)]
        signing: Signing,
    },
}

pub(crate) fn answer(command: Command, json: bool) -> Result<Answer, CliError> {
    match command {
        Command::Check(options) => check::check(&options),
        Command::Post(options) => post::post(&options),
        Command::List { target } => list(&target),
        Command::Show { task, target } => {
            let found = get(&NodeApi::find(&target)?, &task)?;
            let text = picture(&found);
            Ok(Answer::done(json!(found), text))
        }
        Command::Watch { task, target } => watch(&task, &target, json),
        Command::Fetch { task, miner, out, patience, target } => fetch(&task, miner, &out, patience, &target),
        Command::OpenKey { task, key, signing } => {
            send(&signing, Action::OpenKey { task, key }, "key opened")
        }
        Command::Cancel { task, signing } => send(&signing, Action::Cancel { task }, "task withdrawn"),
    }
}

fn send(signing: &Signing, action: Action, done: &str) -> Result<Answer, CliError> {
    let included = Sender::open(signing, KeyName::Account)?.send(&action)?;
    let json = json!({ "id": included.id, "height": included.height, "action": action.name() });
    Ok(Answer::done(json, format!("{done} at height {}", included.height)))
}

fn get(api: &NodeApi, task: &TaskId) -> Result<Task, CliError> {
    api.get(&format!("/v1/tasks/{task}"))
}

fn credits(micro: u64) -> String {
    amount::show(MicroCredits::new(micro))
}

fn list(target: &Target) -> Result<Answer, CliError> {
    let found: Tasks = NodeApi::find(target)?.get("/v1/tasks")?;
    let mut text = String::new();
    for task in &found.tasks {
        text += &format!(
            "{}  {:<16} {:<16} pot {:>10}  {} entrants  {}\n",
            task.id,
            task.kind,
            task.phase,
            credits(task.pot),
            task.entrants.len(),
            task.title
        );
    }
    text += &format!("{} tasks", found.tasks.len());
    Ok(Answer::done(json!(found), text))
}

fn picture(task: &Task) -> String {
    let ends = &task.deadlines;
    let mut text = format!(
        "{} ({}) is {}\n  id         {}\n  pot        {} credits, bond {}, least gain {:.2} %\n  deadlines  open {} · commit {} · reveal {} · held {} · key {} · seal {} · open scores {}\n",
        task.title,
        task.kind,
        task.phase,
        task.id,
        credits(task.pot),
        credits(task.bond),
        task.min_gain_ppm as f64 / 10_000.0,
        ends.open,
        ends.commit,
        ends.reveal,
        ends.held,
        ends.key,
        ends.score_commit,
        ends.score_open,
    );
    if let Some(cause) = &task.refund_cause {
        text += &format!("  refunded   {cause}\n");
    }
    if let Some(base) = task.base_mean_micro {
        text += &format!("  base       {:.4} over {} examples\n", base as f64 / 1e6, task.examples);
    }
    for entrant in &task.entrants {
        let rank = entrant.rank.map_or("-".to_owned(), |rank| rank.to_string());
        let score = entrant.mean_micro.map_or("-".to_owned(), |mean| format!("{:.4}", mean as f64 / 1e6));
        text += &format!(
            "  {rank:>2} {} score {score:>8}  paid {:>10}  {:<22} {}\n",
            entrant.miner.get(..16).unwrap_or(&entrant.miner),
            credits(entrant.reward),
            entrant.strategy.as_deref().unwrap_or("-"),
            entrant.reason
        );
    }
    text.trim_end().to_owned()
}

fn watch(id: &TaskId, target: &Target, json: bool) -> Result<Answer, CliError> {
    let api = NodeApi::find(target)?;
    let mut shown = String::new();
    loop {
        let task = get(&api, id)?;
        let over = task.phase == "settled" || task.phase == "refunded";
        if over {
            let exit = if task.phase == "settled" { Exit::Done } else { Exit::Refused };
            return Ok(Answer { text: picture(&task), json: json!(task), exit });
        }
        let line = format!("{}: {} entrants", task.phase, task.entrants.len());
        if line != shown && !json {
            println!("{line}");
            std::io::stdout().flush().map_err(CliError::file("write", Path::new("standard output")))?;
            shown = line;
        }
        std::thread::sleep(WATCH_EVERY);
    }
}

fn fetch(
    id: &TaskId,
    miner: Option<PublicKey>,
    out: &Path,
    patience_s: u64,
    target: &Target,
) -> Result<Answer, CliError> {
    let api = NodeApi::find(target)?;
    let task = get(&api, id)?;
    let wanted = match miner {
        Some(miner) => miner.to_string(),
        None => task.winner.clone().ok_or_else(|| {
            CliError::refused(format!(
                "task {id} has no winner: it is {}; see `tiltyard why {id}`",
                task.phase
            ))
        })?,
    };
    let root = task
        .entrants
        .iter()
        .find(|entrant| entrant.miner == wanted)
        .and_then(|entrant| entrant.manifest.clone())
        .ok_or_else(|| CliError::refused(format!("{wanted} revealed no checkpoint in task {id}")))?;
    // The exact size is not on the ledger once a task is over; it cannot be more than the task allowed.
    let request = FetchRequest { root: root.clone(), bytes: task.checkpoint_bytes_max };
    let mut blob: Blob = api.post("/v1/fetch", &request)?;
    let tries = Duration::from_secs(patience_s).as_millis() / FETCH_EVERY.as_millis().max(1);
    for _ in 0..tries {
        if blob.held {
            break;
        }
        if let Some(fault) = &blob.fault {
            return Err(CliError::refused(format!("the checkpoint cannot be fetched: {fault}")));
        }
        std::thread::sleep(FETCH_EVERY);
        blob = api.get(&format!("/v1/blobs/{root}"))?;
    }
    if !blob.held {
        return Err(CliError::refused(format!(
            "nobody served the checkpoint within {patience_s} s; its miner or a committee member must be up, try again"
        )));
    }
    copy_files(&blob, out)?;
    let files: Vec<&str> = blob.files.iter().map(|file| file.name.as_str()).collect();
    let json =
        json!({ "task": id, "miner": wanted, "root": root, "bytes": blob.bytes, "out": out, "files": files });
    Ok(Answer::done(
        json,
        format!("{} bytes of {wanted} in {}: {}", blob.bytes, out.display(), files.join(", ")),
    ))
}

fn copy_files(blob: &Blob, out: &Path) -> Result<(), CliError> {
    fs::create_dir_all(out).map_err(CliError::file("make", out))?;
    for file in &blob.files {
        if !tiltyard_proto::manifest::is_file_name(&file.name) {
            return Err(CliError::refused(format!(
                "the node names a file {:?}, which is no file name",
                file.name
            )));
        }
        let to = out.join(&file.name);
        fs::copy(&file.path, &to).map_err(CliError::file("copy to", &to))?;
    }
    Ok(())
}

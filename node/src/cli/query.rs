//! `tiltyard status`, `peers` and `why`.

use clap::Args;
use serde_json::{Value, json};
use tiltyard_keys::PublicKey;
use tiltyard_proto::ids::TaskId;

use super::node_api::NodeApi;
use super::{Answer, CliError, Target};
use crate::api::model;

/// Options of `why`.
#[derive(Debug, Args)]
pub(crate) struct Why {
    /// The task.
    task: TaskId,
    /// One entrant's key; by default all.
    miner: Option<PublicKey>,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn status(target: &Target) -> Result<Answer, CliError> {
    let found: Value = NodeApi::find(target)?.get("/v1/status")?;
    let word = |key: &str| match found.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => "-".to_owned(),
        Some(other) => other.to_string(),
    };
    let finality = found.get("finality_ms");
    let percentile =
        |key: &str| finality.and_then(|found| found.get(key)).map_or("-".to_owned(), Value::to_string);
    let is = |key: &str| found.get(key) == Some(&Value::Bool(true));
    let activity = match (is("syncing"), is("signing"), is("halted")) {
        (_, _, true) => "HALTED: it signs nothing any more, see the log",
        _ if is("stale") => "STALE: no new block for too long; it is cut off, or the network stands still",
        (true, _, _) => "catching up",
        (false, true, _) => "signing blocks",
        (false, false, _) => "following",
    };
    let joining = found.get("joining").filter(|join| join.is_object()).map(joining_text);
    let activity = joining.as_deref().unwrap_or(activity);
    let text = format!(
        "{} of {} at height {}, {activity}\n  peers     {}\n  state     {}\n  account   {}\n  pending   {} transactions\n  blocks    durable in p50 {} ms, p99 {} ms",
        word("role"),
        word("network"),
        word("height"),
        word("peers"),
        word("state_root"),
        word("account"),
        word("pending_transactions"),
        percentile("p50"),
        percentile("p99"),
    );
    Ok(Answer::done(found, text))
}

fn joining_text(join: &Value) -> String {
    let number = |key: &str| join.get(key).and_then(Value::as_u64);
    let part = |key: &str| number(key).map_or("-".to_owned(), |found| found.to_string());
    let left = number("left_ms")
        .map_or("time left unknown".to_owned(), |ms| format!("about {} s left", ms.div_ceil(1_000)));
    format!(
        "joining by the snapshot of height {}: {} of {} chunks, {left}",
        part("height"),
        part("chunks_done"),
        part("chunks")
    )
}

pub(crate) fn peers(target: &Target) -> Result<Answer, CliError> {
    let found: Value = NodeApi::find(target)?.get("/v1/peers")?;
    let list = found.get("peers").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut text = String::new();
    for peer in &list {
        let word = |key: &str| peer.get(key).and_then(Value::as_str).unwrap_or("-").to_owned();
        let round_trip = peer.get("round_trip_us").and_then(Value::as_u64);
        text += &format!(
            "{}  {}  {}\n",
            word("peer"),
            word("address"),
            round_trip.map_or("-".to_owned(), |us| format!("{:.1} ms", us as f64 / 1_000.0))
        );
    }
    text += &format!("{} peers", list.len());
    Ok(Answer::done(found, text))
}

pub(crate) fn why(options: &Why) -> Result<Answer, CliError> {
    let query = options.miner.map_or(String::new(), |miner| format!("?miner={miner}"));
    let found: model::Why =
        NodeApi::find(&options.target)?.get(&format!("/v1/tasks/{}/why{query}", options.task))?;
    let mut text = format!("task {}: {} ({})\n", found.task, found.phase, found.outcome);
    for entrant in &found.entrants {
        let rank = entrant.rank.map_or("-".to_owned(), |rank| rank.to_string());
        text += &format!("  {rank:>2}  {}  {}\n", entrant.miner, entrant.reason);
    }
    Ok(Answer::done(json!(found), text.trim_end()))
}

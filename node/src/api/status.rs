//! How the node is doing, and what the ledger says of keys.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use tiltyard_keys::PublicKey;
use tiltyard_ledger::{StateRead, query, tree};
use tiltyard_proto::wire::Topic;

use super::{App, Refusal, model};
use crate::words;

pub(super) async fn status(State(app): State<App>) -> Result<Json<Value>, Refusal> {
    app.read(|app| {
        let (height, root, totals) = {
            let view = app.reader.view();
            (view.height(), tree::root(&view)?, query::totals(&view)?)
        };
        let status = app.shared.status();
        let samples = app.shared.latencies_ms();
        let signing = app.validator.is_some() && status.validating && !status.halted;
        Ok(Json(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "role": app.role.word(),
            "height": height,
            "round": status.round,
            "hash": status.hash,
            "time_ms": status.time,
            "state_root": root,
            "genesis": app.network,
            "network": app.genesis.name,
            "peer": tiltyard_net::peer_text(app.net.local_peer()),
            "peers": app.net.peers().len(),
            "best_peer_height": status.best_peer_height,
            "syncing": status.syncing,
            "signing": signing,
            "halted": status.halted,
            "stale": status.stale,
            "joining": status.joining.map(|join| json!({
                "height": join.height,
                "chunks_done": join.chunks_done,
                "chunks": join.chunks,
                "left_ms": join.left_ms,
            })),
            "validator": crate::runtime::key_text(app.validator),
            "account": app.account,
            "pending_transactions": status.pending_transactions,
            "pending_bytes": status.pending_bytes,
            "own_pending": status.own_pending,
            "blob_bytes": app.blobs.used_bytes(),
            "rss_bytes": resident_bytes(),
            "finality_ms": {
                "p50": percentile(&samples, 50),
                "p99": percentile(&samples, 99),
                "samples": samples,
            },
            "supply": {
                "conserved": totals.is_conserved(),
                "genesis": totals.genesis,
                "subsidy": totals.subsidy,
                "balances": totals.balances,
                "escrow": totals.escrow,
                "bonds": totals.bonds,
                "stake": totals.stake,
                "unbonding": totals.unbonding,
                "pending_subsidy": totals.pending_subsidy,
                "burned": totals.burned,
            },
        })))
    })
    .await
}

/// The value below which `percent` of the samples lie; none without samples.
fn percentile(samples: &[u64], percent: usize) -> Option<u64> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let at = sorted.len().saturating_sub(1).saturating_mul(percent).div_ceil(100);
    sorted.get(at).copied()
}

/// Resident memory of this process, where the system tells.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib.saturating_mul(1_024))
}

pub(super) async fn peers(State(app): State<App>) -> Json<Value> {
    let peers: Vec<Value> = app
        .net
        .peers()
        .iter()
        .map(|peer| {
            json!({
                "peer": tiltyard_net::peer_text(&peer.peer),
                "address": peer.address,
                "outbound": peer.outbound,
                "round_trip_us": peer.round_trip_us,
                "score_milli": peer.score_milli,
                "strikes": peer.strikes,
                "topics": peer.topics.iter().map(|topic| topic_word(*topic)).collect::<Vec<_>>(),
            })
        })
        .collect();
    Json(json!({ "peers": peers }))
}

const fn topic_word(topic: Topic) -> &'static str {
    match topic {
        Topic::Tasks => "tasks",
        Topic::Checkpoints => "checkpoints",
        Topic::Transactions => "tx",
        Topic::Consensus => "consensus",
        Topic::Bodies => "bodies",
        Topic::Blocks => "blocks",
    }
}

pub(super) async fn jobs(State(app): State<App>) -> Result<Json<model::Jobs>, Refusal> {
    app.read(|app| Ok(Json(model::Jobs { jobs: app.jobs.list() }))).await
}

pub(super) async fn params(State(app): State<App>) -> Result<Json<Value>, Refusal> {
    app.read(|app| Ok(Json(json!(query::params(&app.reader)?)))).await
}

pub(super) async fn account(
    State(app): State<App>,
    Path(key): Path<PublicKey>,
) -> Result<Json<model::Account>, Refusal> {
    // Transactions that wait are counted, so that the next one can follow at once.
    let nonce = app.brain.next_nonce(key).await.map_err(Refusal::unavailable)?;
    app.read(move |app| {
        let view = app.reader.view();
        let account = query::account(&view, &key)?;
        Ok(Json(model::Account {
            key: key.to_string(),
            balance: account.balance.get(),
            nonce: nonce.get(),
            height: view.height().get(),
            validator: stake(&view, &key)?,
        }))
    })
    .await
}

fn stake(state: &dyn StateRead, key: &PublicKey) -> Result<Option<model::ValidatorStake>, Refusal> {
    Ok(query::validator(state, key)?.map(|record| model::ValidatorStake {
        stake: record.stake.get(),
        unbonding: record.unbonding.iter().fold(0, |sum, part| part.amount.get().saturating_add(sum)),
        standing: words::standing(record.standing),
    }))
}

pub(super) async fn validators(State(app): State<App>) -> Result<Json<Value>, Refusal> {
    app.read(|app| {
        let view = app.reader.view();
        let set = query::set_at(&view, view.height().next())?;
        let mut list = Vec::new();
        for key in query::validators(&view)? {
            let Some(record) = query::validator(&view, &key)? else {
                continue;
            };
            list.push(json!({
                "key": key,
                "stake": record.stake,
                "in_set": set.find(&key).is_some(),
                "standing": words::standing(record.standing),
                "peer": tiltyard_net::peer_text(&tiltyard_proto::wire::Peer::new(record.peer.to_vec())),
                "addresses": record.addresses,
                "payout": record.payout,
                "payout_change": record.payout_change.map(|change| json!({ "to": change.to, "from": change.from })),
                "unbonding": record.unbonding.iter().fold(0, |sum, part| part.amount.get().saturating_add(sum)),
                "missed": query::attendance(&view, &key)?.missed,
                "duties": record.duties,
            }));
        }
        Ok(Json(json!({ "height": view.height(), "total_stake": set.total(), "validators": list })))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let samples = [5, 1, 4, 2, 3];
        assert_eq!(percentile(&samples, 50), Some(3));
        assert_eq!(percentile(&samples, 99), Some(5));
        assert_eq!(percentile(&[], 50), None);
    }
}

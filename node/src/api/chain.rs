//! Blocks and proofs.

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_bytes::ByteBuf;
use serde_json::{Value, json};
use tiltyard_keys::PublicKey;
use tiltyard_ledger::query;
use tiltyard_proto::block::DecidedBlock;
use tiltyard_proto::codec;
use tiltyard_proto::ids::{TaskId, TransactionId};
use tiltyard_proto::light::LightBlock;
use tiltyard_proto::limits::{GENESIS_BYTES_MAX, RECEIPT_BYTES_MAX};
use tiltyard_proto::merkle;
use tiltyard_proto::receipt::{Entry, Receipt};
use tiltyard_proto::state::StateKey;
use tiltyard_proto::transaction::SignedTransaction;
use tiltyard_proto::units::Height;
use tiltyard_proto::validators::ValidatorSet;
use tiltyard_store::ChainRead as _;

use super::{App, Refusal, model};
use crate::runtime::TransactionFate;

/// Most headers in one answer.
const HEADERS_MAX: u64 = 200;
/// How often a read is begun again because a block came in between.
const TRIES_MAX: u32 = 5;
const STATE_KEY_BYTES_MAX: usize = 256;

fn bytes(bytes: &[u8]) -> Value {
    json!({ "bytes": hex::encode(bytes) })
}

pub(super) async fn genesis(State(app): State<App>) -> Json<Value> {
    Json(json!({
        "hash": app.network,
        "name": app.genesis.name,
        "bytes": hex::encode(app.genesis.encode()),
    }))
}

fn decided(app: &App, height: Height) -> Result<DecidedBlock, Refusal> {
    app.reader.block(height)?.ok_or_else(|| {
        let tip = app.reader.tip();
        match app.reader.first() {
            Some(first) if height < first => Refusal::expired(format!(
                "expired: block {height} lies beyond the block horizon, the oldest kept here is {first}; ask a node that keeps every block"
            )),
            Some(_) if height <= tip => Refusal::unavailable(format!(
                "block {height} was damaged on this node's disk and is fetched from peers; try again"
            )),
            Some(_) | None => {
                Refusal::unknown(format!("block {height} is not kept here; the newest is {tip}"))
            }
        }
    })
}

fn set_at(app: &App, height: Height) -> Result<ValidatorSet, Refusal> {
    query::set_at(&app.reader, height)
        .map_err(|error| Refusal::unknown(format!("the set of height {height}: {error}")))
}

fn show(app: &App, decided: &DecidedBlock) -> Result<Value, Refusal> {
    let header = &decided.block.header;
    let set = set_at(app, header.height)?;
    let signers: Vec<String> = decided
        .certificate
        .signed_by(set.members().len())
        .unwrap_or_default()
        .iter()
        .filter_map(|(at, _)| set.members().get(*at))
        .map(|member| member.key.to_string())
        .collect();
    Ok(json!({
        "height": header.height,
        "hash": header.hash(),
        "parent": header.parent,
        "state_root": header.state_root,
        "time_ms": header.time,
        "round": decided.certificate.round,
        "builder": header.builder,
        "signers": signers,
        "transactions": decided.block.body.transactions.len(),
        "header": hex::encode(codec::encode(header)),
        "certificate": hex::encode(codec::encode(&decided.certificate)),
    }))
}

pub(super) async fn block(State(app): State<App>, Path(height): Path<u64>) -> Result<Json<Value>, Refusal> {
    app.read(move |app| {
        let decided = decided(app, Height::new(height))?;
        let mut shown = show(app, &decided)?;
        let ids: Vec<TransactionId> =
            decided.block.body.transactions.iter().map(|signed| signed.transaction.id()).collect();
        if let Some(object) = shown.as_object_mut() {
            object.insert("transaction_ids".to_owned(), json!(ids));
        }
        Ok(Json(shown))
    })
    .await
}

/// Which headers.
#[derive(Debug, Deserialize)]
pub(super) struct HeadersOptions {
    from: u64,
    max: Option<u64>,
}

pub(super) async fn headers(
    State(app): State<App>,
    Query(options): Query<HeadersOptions>,
) -> Result<Json<Value>, Refusal> {
    app.read(move |app| {
        let max = options.max.unwrap_or(HEADERS_MAX).min(HEADERS_MAX);
        let mut list = Vec::new();
        for height in options.from..options.from.saturating_add(max) {
            match app.reader.block(Height::new(height))? {
                Some(decided) => list.push(show(app, &decided)?),
                None => break,
            }
        }
        Ok(Json(json!({ "headers": list })))
    })
    .await
}

pub(super) async fn light(
    State(app): State<App>,
    Path(height): Path<String>,
) -> Result<Json<Value>, Refusal> {
    app.read(move |app| {
        let height = match height.as_str() {
            "latest" => app.reader.tip(),
            text => {
                Height::new(text.parse().map_err(|_| Refusal::malformed("a height or `latest` is wanted"))?)
            }
        };
        if height == Height::ZERO {
            return Err(Refusal::unavailable("no block is decided yet; try again in a moment"));
        }
        let decided = decided(app, height)?;
        let block = LightBlock {
            header: decided.block.header,
            certificate: decided.certificate,
            set: set_at(app, height)?,
            next_set: set_at(app, height.next())?,
        };
        Ok(Json(bytes(&codec::encode(&block))))
    })
    .await
}

/// Proves a state entry at the tip.
fn prove(app: &App, key: StateKey) -> Result<Receipt, Refusal> {
    for _ in 0..TRIES_MAX {
        let (height, value, proof) = {
            let view = app.reader.view();
            let (value, proof) = query::prove(&view, &key)?;
            (view.height(), value, proof)
        };
        if height == Height::ZERO {
            return Err(Refusal::unavailable("no block is decided yet; try again in a moment"));
        }
        // The log is written before the state: the block of the state's height is there.
        let decided = decided(app, height)?;
        let entry = Entry::State { key, value: value.map(ByteBuf::from), proof };
        let receipt = receipt_of(app, decided, entry)?;
        // Handed out only if it holds: a block that came in between would show here.
        if receipt.verify(&app.genesis).is_ok() {
            return Ok(receipt);
        }
    }
    Err(Refusal::unavailable("the state moved on while it was read; try again"))
}

fn receipt_of(app: &App, decided: DecidedBlock, entry: Entry) -> Result<Receipt, Refusal> {
    let genesis_bytes = app.genesis.encode();
    // A genesis too large for the receipt is given beside it.
    let carried = genesis_bytes.len() < RECEIPT_BYTES_MAX.min(GENESIS_BYTES_MAX) / 4;
    Ok(Receipt {
        version: Receipt::VERSION,
        genesis: app.network,
        genesis_bytes: carried.then(|| ByteBuf::from(genesis_bytes)),
        changes: app.reader.set_changes(decided.block.header.height),
        header: decided.block.header,
        certificate: decided.certificate,
        entry,
    })
}

pub(super) async fn state(State(app): State<App>, Path(key): Path<String>) -> Result<Json<Value>, Refusal> {
    app.read(move |app| {
        let raw = hex::decode(&key)
            .map_err(|_| Refusal::malformed("the key is the hex of a state key's canonical bytes"))?;
        let key: StateKey =
            codec::decode("state key", &raw, STATE_KEY_BYTES_MAX).map_err(Refusal::malformed)?;
        let receipt = prove(app, key)?;
        let mut answer = bytes(&receipt.encode());
        if let Some(object) = answer.as_object_mut() {
            object.insert("height".to_owned(), json!(receipt.header.height));
        }
        Ok(Json(answer))
    })
    .await
}

pub(super) async fn receipt(
    State(app): State<App>,
    Path((task, miner)): Path<(TaskId, PublicKey)>,
) -> Result<Json<Value>, Refusal> {
    app.read(move |app| {
        if query::entrant_verdict(&app.reader, &task, &miner)?.is_none() {
            return Err(Refusal::unknown(format!(
                "no verdict on {miner} in task {task}; it comes when the task is over"
            )));
        }
        let receipt = prove(app, StateKey::EntrantVerdict(task, miner))?;
        Ok(Json(bytes(&receipt.encode())))
    })
    .await
}

pub(super) async fn transaction(
    State(app): State<App>,
    Path(id): Path<TransactionId>,
) -> Result<Json<model::TransactionState>, Refusal> {
    app.read(move |app| {
        let mut found = model::TransactionState {
            id: id.to_string(),
            state: "unknown".to_owned(),
            height: None,
            took_effect: None,
            fact: None,
        };
        if let Some(place) = app.reader.transaction(&id)? {
            found.state = "included".to_owned();
            found.height = Some(place.height.get());
            found.took_effect = Some(place.took_effect);
            if !place.took_effect {
                found.fact = Some("its action broke a rule of the market at that height".to_owned());
            }
            return Ok(Json(found));
        }
        match app.shared.fate(&id) {
            Some(TransactionFate::Pending) => found.state = "pending".to_owned(),
            Some(TransactionFate::Included { height, took_effect }) => {
                found.state = "included".to_owned();
                found.height = Some(height.get());
                found.took_effect = Some(took_effect);
            }
            Some(TransactionFate::Dropped { fact }) => {
                found.state = "dropped".to_owned();
                found.fact = Some(fact);
            }
            None => {}
        }
        Ok(Json(found))
    })
    .await
}

pub(super) async fn transaction_receipt(
    State(app): State<App>,
    Path(id): Path<TransactionId>,
) -> Result<Json<Value>, Refusal> {
    app.read(move |app| {
        let unknown = || match app.reader.first() {
            Some(first) if first > Height::new(1) => Refusal::expired(format!(
                "transaction {id} is in no block from {first} on; an older one is expired: beyond the block horizon"
            )),
            Some(_) | None => Refusal::unknown(format!("transaction {id} is in no block that is kept here")),
        };
        let place = app.reader.transaction(&id)?.ok_or_else(unknown)?;
        let decided = decided(app, place.height)?;
        let leaves: Vec<Vec<u8>> =
            decided.block.body.transactions.iter().map(SignedTransaction::encode).collect();
        let at = place.index as usize;
        let (Some(leaf), Some(path)) = (leaves.get(at), merkle::path(&leaves, at)) else {
            return Err(unknown());
        };
        let entry = Entry::Transaction { bytes: ByteBuf::from(leaf.clone()), path };
        Ok(Json(bytes(&receipt_of(app, decided, entry)?.encode())))
    })
    .await
}

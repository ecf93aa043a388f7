//! What the owner of the folder may ask of its node, and the blobs that it keeps.

use std::path::{Path as FilePath, PathBuf};

use axum::Json;
use axum::extract::{Path, State};
use tiltyard_machine::Input;
use tiltyard_machine::io::Audience;
use tiltyard_proto::ids::{BlobRoot, SealKey};
use tiltyard_proto::keys::Verifier;
use tiltyard_proto::manifest::{BlobKind, BlobRef, Manifest};
use tiltyard_proto::seal;
use tiltyard_proto::transaction::{SignedTransaction, VerifiedTransaction};
use tiltyard_store::blob::Source;

use super::{App, Refusal, model};

pub(super) async fn transaction(
    State(app): State<App>,
    Json(request): Json<model::SubmitRequest>,
) -> Result<Json<model::Submitted>, Refusal> {
    let bytes = hex::decode(&request.bytes)
        .map_err(|_| Refusal::malformed("bytes is the hex of a signed transaction"))?;
    let signed = SignedTransaction::decode(&bytes).map_err(Refusal::malformed)?;
    let verified = signed.verify(&Verifier::new(app.network)).map_err(Refusal::refused)?;
    let id = verified.id();
    let checked = verified.clone();
    app.read(move |app| {
        let view = app.reader.view();
        let (genesis, height) = (app.network, view.height());
        tiltyard_ledger::check(&view, genesis, height, &checked)
            .map_err(Refusal::broken)?
            .map_err(Refusal::refused)
    })
    .await?;
    app.shared.handed_in(id);
    app.brain.tell(Input::Submit(Box::new(verified))).await.map_err(Refusal::unavailable)?;
    Ok(Json(model::Submitted { id: id.to_string() }))
}

/// Transactions of one batch at most.
const BATCH_MAX: usize = 256;

/// Takes many transactions at once: one request, one turn of the machine. Each is accepted or refused by itself.
pub(super) async fn transactions(
    State(app): State<App>,
    Json(request): Json<model::SubmitManyRequest>,
) -> Result<Json<model::SubmittedMany>, Refusal> {
    let count = request.transactions.len();
    if count == 0 || count > BATCH_MAX {
        return Err(Refusal::malformed(format!("{count} transactions; hand in 1 to {BATCH_MAX} at a time")));
    }
    // Signatures cost processor time: they are verified off the threads that serve.
    let (ids, verified) = app.read(move |app| verify_all(app, &request.transactions)).await?;
    let waiting = verified.iter().flatten().cloned().collect();
    let mut fates = app.brain.submit(waiting).await.map_err(Refusal::unavailable)?.into_iter();
    let transactions = ids
        .into_iter()
        .zip(verified)
        .map(|(id, verified)| {
            let outcome =
                verified.and_then(|_| fates.next().unwrap_or_else(|| Err("not looked at".to_owned())));
            model::SubmittedOne { id, accepted: outcome.is_ok(), fact: outcome.err() }
        })
        .collect();
    Ok(Json(model::SubmittedMany { transactions }))
}

/// Ids, and transactions or why they are refused.
type Checked = (Vec<String>, Vec<Result<VerifiedTransaction, String>>);

fn verify_all(app: &App, list: &[String]) -> Result<Checked, Refusal> {
    let verifier = Verifier::new(app.network);
    let (mut ids, mut verified) = (Vec::with_capacity(list.len()), Vec::with_capacity(list.len()));
    for (index, text) in list.iter().enumerate() {
        let bytes = hex::decode(text).map_err(|_| {
            Refusal::malformed(format!("transaction {index} is no hex of a signed transaction"))
        })?;
        let signed = SignedTransaction::decode(&bytes)
            .map_err(|error| Refusal::malformed(format!("transaction {index}: {error}")))?;
        ids.push(signed.transaction.id().to_string());
        verified.push(signed.verify(&verifier).map_err(|error| error.to_string()));
    }
    Ok((ids, verified))
}

pub(super) async fn keep_key(
    State(app): State<App>,
    Json(request): Json<model::KeepKeyRequest>,
) -> Result<Json<serde_json::Value>, Refusal> {
    let ciphertext: BlobRoot = request.ciphertext.parse().map_err(Refusal::malformed)?;
    let key: SealKey = request.key.parse().map_err(Refusal::malformed)?;
    app.brain.keep_key(ciphertext, key).await.map_err(Refusal::unavailable)?;
    Ok(Json(serde_json::json!({ "kept": ciphertext })))
}

pub(super) async fn add_blob(
    State(app): State<App>,
    Json(request): Json<model::AddBlobRequest>,
) -> Result<Json<model::Blob>, Refusal> {
    app.read(move |app| {
        let path = PathBuf::from(&request.path);
        if !path.is_absolute() {
            return Err(Refusal::malformed("path must be absolute"));
        }
        let (kind, files) = files(&request.kind, &path)?;
        let source = Source { kind, base: None, recipe: None, files: &files };
        let manifest = app.blobs.insert(&source).map_err(Refusal::refused)?;
        let root = manifest.root();
        // What the owner adds is for the market; checkpoints never come this way.
        app.audiences.set(root, Audience::Public);
        Ok(Json(describe(app, root)?))
    })
    .await
}

/// Files that a base may bring beside those it must: how it cuts text and writes down a chat.
/// An image model has none; a language model without tokenizer is refused by `task check`.
const BASE_OPTIONAL: [&str; 3] = ["chat_template.jinja", "tokenizer.json", "tokenizer_config.json"];

fn files(kind: &str, path: &FilePath) -> Result<(BlobKind, Vec<(String, PathBuf)>), Refusal> {
    Ok(match kind {
        "base" => {
            let optional = BASE_OPTIONAL.into_iter().filter(|name| path.join(name).exists());
            let names = ["config.json", "model.safetensors"].into_iter().chain(optional);
            (BlobKind::Base, names.map(|name| (name.to_owned(), path.join(name))).collect())
        }
        "dataset" => (BlobKind::Dataset, vec![("train.jsonl".to_owned(), path.to_owned())]),
        "evaluation" => (BlobKind::Evaluation, vec![(seal::FILE_NAME.to_owned(), path.to_owned())]),
        other => {
            return Err(Refusal::malformed(format!(
                "kind {other:?} is unknown; use base, dataset or evaluation"
            )));
        }
    })
}

/// Fetches a blob for the owner: a winner's checkpoint, usually.
pub(super) async fn fetch(
    State(app): State<App>,
    Json(request): Json<model::FetchRequest>,
) -> Result<Json<model::Blob>, Refusal> {
    let root: BlobRoot = request.root.parse().map_err(Refusal::malformed)?;
    if !app.blobs.has(&root) {
        let blob = BlobRef { root, bytes: request.bytes };
        app.shared.set_fetch_state(root, crate::runtime::FetchState::default());
        app.net.fetch(blob, None).map_err(Refusal::unavailable)?;
    }
    app.read(move |app| Ok(Json(describe(app, root)?))).await
}

pub(super) async fn blobs(State(app): State<App>) -> Result<Json<model::Blobs>, Refusal> {
    app.read(|app| {
        let mut list = Vec::new();
        for info in app.blobs.list() {
            list.push(describe(app, info.root)?);
        }
        Ok(Json(model::Blobs { blobs: list, used_bytes: app.blobs.used_bytes() }))
    })
    .await
}

pub(super) async fn blob(
    State(app): State<App>,
    Path(root): Path<BlobRoot>,
) -> Result<Json<model::Blob>, Refusal> {
    app.read(move |app| Ok(Json(describe(app, root)?))).await
}

fn describe(app: &App, root: BlobRoot) -> Result<model::Blob, Refusal> {
    let found = app.blobs.manifest(&root).map_err(Refusal::broken)?;
    let Some(manifest) = found else {
        let fetching = app.shared.fetch_state(&root).unwrap_or_default();
        return Ok(model::Blob {
            root: root.to_string(),
            kind: None,
            bytes: fetching.bytes,
            held: false,
            fault: fetching.fault,
            files: Vec::new(),
        });
    };
    Ok(model::Blob {
        root: root.to_string(),
        kind: Some(kind_word(manifest.kind).to_owned()),
        bytes: manifest.total_bytes().unwrap_or(u64::MAX),
        held: true,
        fault: None,
        files: paths(app, root, &manifest)?,
    })
}

fn paths(app: &App, root: BlobRoot, manifest: &Manifest) -> Result<Vec<model::BlobFile>, Refusal> {
    let mut list = Vec::new();
    for file in &manifest.files {
        let path = app.blobs.path(&root, &file.name).map_err(Refusal::broken)?;
        let path = path.map(|path| std::path::absolute(&path).unwrap_or(path));
        list.push(model::BlobFile {
            name: file.name.clone(),
            path: path.map(|path| path.display().to_string()).unwrap_or_default(),
        });
    }
    Ok(list)
}

const fn kind_word(kind: BlobKind) -> &'static str {
    match kind {
        BlobKind::Base => "base",
        BlobKind::Dataset => "dataset",
        BlobKind::Evaluation => "evaluation",
        BlobKind::Adapter => "adapter",
        BlobKind::Model => "model",
    }
}

//! Bodies of the HTTP API: JSON, and the hex within.

use serde::de::DeserializeOwned;
use tiltyard_proto::ids::{BlobRoot, SealKey};
use tiltyard_proto::transaction::SignedTransaction;

use crate::Target;

/// The API's own forms.
#[path = "../../../node/src/api/model.rs"]
#[allow(dead_code, reason = "only what a client sends is fuzzed")]
mod model;

pub(crate) fn targets() -> Vec<Target> {
    vec![("http-body", &[], body)]
}

fn read<T: DeserializeOwned>(data: &[u8]) -> Option<T> {
    serde_json::from_slice(data).ok()
}

fn body(data: &[u8]) {
    if let Some(request) = read::<model::SubmitRequest>(data)
        && let Ok(bytes) = hex::decode(&request.bytes)
        && let Ok(signed) = SignedTransaction::decode(&bytes)
    {
        assert!(signed.encode() == bytes);
    }
    if let Some(request) = read::<model::KeepKeyRequest>(data) {
        let _ = (request.ciphertext.parse::<BlobRoot>(), request.key.parse::<SealKey>());
    }
    if let Some(request) = read::<model::FetchRequest>(data) {
        let _ = request.root.parse::<BlobRoot>();
    }
    let _ = read::<model::AddBlobRequest>(data);
    // A word of a path: keys and ids in hex.
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = (text.parse::<tiltyard_keys::PublicKey>(), text.parse::<BlobRoot>());
    }
}

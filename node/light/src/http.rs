//! A node's HTTP API as a [`Source`].

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tiltyard_proto::codec;
use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::light::LightBlock;
use tiltyard_proto::limits::{GENESIS_BYTES_MAX, RECEIPT_BYTES_MAX};
use tiltyard_proto::receipt::Receipt;
use tiltyard_proto::state::StateKey;
use tiltyard_proto::units::Height;

use crate::error::SourceError;
use crate::source::Source;

/// HTTP status of what existed and is not kept any more.
const GONE: u16 = 410;
/// A header, a certificate and two sets of at most 128 members.
const LIGHT_BLOCK_BYTES_MAX: usize = 64 * 1024;
/// Hex doubles the bytes; the rest of an answer is small.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// A node reached over HTTP.
#[derive(Debug, Clone)]
pub struct HttpNode {
    base: String,
    agent: ureq::Agent,
}

#[derive(Deserialize)]
struct Bytes {
    bytes: String,
}

impl HttpNode {
    /// Uses the node whose API is at `url`; each answer may take `patience`.
    #[must_use]
    pub fn new(url: &str, patience: Duration) -> Self {
        let config =
            ureq::Agent::config_builder().timeout_global(Some(patience)).http_status_as_error(false).build();
        Self { base: url.trim_end_matches('/').to_owned(), agent: config.new_agent() }
    }

    /// Returns the address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.base
    }

    /// Gets a JSON answer of at most 4 MiB.
    ///
    /// # Errors
    /// [`SourceError`] when the node cannot be reached, refuses, or answers in another form.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, SourceError> {
        let url = format!("{}{path}", self.base);
        let unreachable =
            |error: ureq::Error| SourceError::Unreachable { url: url.clone(), fact: error.to_string() };
        let mut answer = self.agent.get(&url).call().map_err(unreachable)?;
        let status = answer.status();
        let text =
            answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string().map_err(unreachable)?;
        if !status.is_success() {
            let fact = refusal(&text);
            if status.as_u16() == GONE {
                return Err(SourceError::Expired { url, fact });
            }
            return Err(SourceError::Refused { url, status: status.as_u16(), fact });
        }
        serde_json::from_str(&text).map_err(|error| SourceError::Form { url, fact: error.to_string() })
    }

    /// Gets an answer whose field `bytes` holds canonical bytes of `T` in hex.
    ///
    /// # Errors
    /// [`SourceError`] as for [`HttpNode::get`], or when the bytes are refused.
    pub fn get_bytes<T: Serialize + DeserializeOwned>(
        &self,
        path: &str,
        what: &'static str,
        max: usize,
    ) -> Result<T, SourceError> {
        let url = format!("{}{path}", self.base);
        let answer: Bytes = self.get(path)?;
        let bytes = from_hex(&answer.bytes)
            .ok_or_else(|| SourceError::Form { url: url.clone(), fact: "no hex".to_owned() })?;
        codec::decode(what, &bytes, max).map_err(|source| SourceError::Codec { url, source })
    }
}

impl Source for HttpNode {
    fn genesis(&self) -> Result<Genesis, SourceError> {
        self.get_bytes("/v1/genesis", "genesis", GENESIS_BYTES_MAX)
    }

    fn block(&self, height: Option<Height>) -> Result<LightBlock, SourceError> {
        let path = height.map_or("/v1/light/latest".to_owned(), |height| format!("/v1/light/{height}"));
        self.get_bytes(&path, "light block", LIGHT_BLOCK_BYTES_MAX)
    }

    fn state(&self, key: &StateKey) -> Result<Receipt, SourceError> {
        let path = format!("/v1/state/{}", to_hex(&codec::encode(key)));
        self.get_bytes(&path, "receipt", RECEIPT_BYTES_MAX)
    }
}

/// Takes the words out of the API's error form; plain text as it is.
fn refusal(text: &str) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    let words =
        serde_json::from_str::<Refusal>(text).map_or_else(|_| text.to_owned(), |refusal| refusal.error);
    words.chars().take(300).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_goes_there_and_back_and_refuses_the_rest() {
        assert_eq!(from_hex(&to_hex(&[0, 255, 16])), Some(vec![0, 255, 16]));
        for bad in ["0", "zz", "+1", "é0"] {
            assert_eq!(from_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn unreachable_node_is_named_with_a_remedy() {
        let node = HttpNode::new("http://127.0.0.1:1", Duration::from_secs(5));
        let error = node.block(None).expect_err("nobody listens on port 1");
        assert!(error.to_string().contains("check the address"), "{error}");
    }
}

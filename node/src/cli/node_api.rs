//! A running node as the command line sees it: its API, and the token of its folder.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tiltyard_light::{HttpNode, SourceError};

use super::{CliError, Target};
use crate::config::Config;
use crate::home::{self, Home};

const PATIENCE: Duration = Duration::from_secs(30);
/// Adding a large base model copies and hashes it.
const WRITE_PATIENCE: Duration = Duration::from_secs(600);
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// A node to ask, and to write to when its folder is at hand.
#[derive(Debug)]
pub(crate) struct NodeApi {
    pub(crate) home: Home,
    node: HttpNode,
}

impl NodeApi {
    /// Finds the node's address: as given, or as its folder's configuration says.
    pub(crate) fn find(target: &Target) -> Result<Self, CliError> {
        let home = Home::find(target.place.dir.as_deref())?;
        let url = match &target.url {
            Some(url) => url.clone(),
            None => url_of(&Config::read(&home.config())?),
        };
        Ok(Self { home, node: HttpNode::new(&url, PATIENCE) })
    }

    pub(crate) fn http(&self) -> &HttpNode {
        &self.node
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.node.get(path).map_err(|error| match error {
            SourceError::Unreachable { fact, .. } => {
                CliError::NoNode { url: self.node.url().to_owned(), fact }
            }
            other => CliError::Source(other),
        })
    }

    /// Posts with the folder's token.
    pub(crate) fn post<Q: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Q,
    ) -> Result<T, CliError> {
        let url = format!("{}{path}", self.node.url());
        let token_file = self.home.token();
        let token = home::read_bounded(&token_file, 256)?;
        let token = String::from_utf8_lossy(&token).trim().to_owned();
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(WRITE_PATIENCE))
            .http_status_as_error(false)
            .build()
            .new_agent();
        let down = |error: ureq::Error| CliError::NoNode { url: url.clone(), fact: error.to_string() };
        let mut answer = agent
            .post(&url)
            .header("authorization", &format!("Bearer {token}"))
            .send_json(body)
            .map_err(down)?;
        let status = answer.status();
        let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string().map_err(down)?;
        if !status.is_success() {
            let fact = serde_json::from_str::<serde_json::Value>(&text)
                .ok()
                .and_then(|value| value.get("error")?.as_str().map(str::to_owned))
                .unwrap_or(text);
            return Err(SourceError::Refused { url, status: status.as_u16(), fact }.into());
        }
        serde_json::from_str(&text).map_err(|error| SourceError::Form { url, fact: error.to_string() }.into())
    }
}

/// Returns the address at which the folder's node answers.
pub(crate) fn url_of(config: &Config) -> String {
    let listen = config.api.listen;
    if listen.ip().is_unspecified() {
        return format!("http://127.0.0.1:{}", listen.port());
    }
    format!("http://{listen}")
}

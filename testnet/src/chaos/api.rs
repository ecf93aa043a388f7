//! Asks nodes, with little patience: one that is stopped or cut off must not hold up the others.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

/// How long one answer may take while faults are at work, and when everything is whole again.
const BRIEF: Duration = Duration::from_millis(1_500);
const LONG: Duration = Duration::from_secs(30);

/// What a node says of itself.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Status {
    pub(super) height: u64,
    pub(super) syncing: bool,
    pub(super) halted: bool,
    pub(super) supply: Supply,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Supply {
    pub(super) conserved: bool,
}

/// What a node says of a transaction.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Place {
    pub(super) state: String,
    pub(super) height: Option<u64>,
}

/// A client of the nodes' HTTP API.
#[derive(Debug, Clone)]
pub(super) struct Api {
    agent: ureq::Agent,
}

impl Api {
    pub(super) fn brief() -> Self {
        Self::with(BRIEF)
    }

    pub(super) fn patient() -> Self {
        Self::with(LONG)
    }

    fn with(patience: Duration) -> Self {
        let config =
            ureq::Agent::config_builder().timeout_global(Some(patience)).http_status_as_error(false).build();
        Self { agent: config.new_agent() }
    }

    pub(super) fn get<T: for<'de> Deserialize<'de>>(&self, url: &str, path: &str) -> Result<T> {
        let full = format!("{url}{path}");
        let mut answer = self.agent.get(&full).call().with_context(|| format!("cannot get {full}"))?;
        let value: Value =
            answer.body_mut().read_json().with_context(|| format!("{full} answers no JSON"))?;
        if !answer.status().is_success() {
            bail!("{full}: {}: {}", answer.status(), value["error"].as_str().unwrap_or_default());
        }
        serde_json::from_value(value).with_context(|| format!("{full} answers another form"))
    }

    pub(super) fn status(&self, url: &str) -> Result<Status> {
        self.get(url, "/v1/status")
    }

    /// Hands a signed transaction in.
    pub(super) fn submit(&self, url: &str, token: &str, hex: &str) -> Result<()> {
        let answer = self
            .agent
            .post(format!("{url}/v1/transactions"))
            .header("authorization", format!("Bearer {token}"))
            .send_json(json!({ "bytes": hex }))
            .context("cannot hand a transaction in")?;
        if !answer.status().is_success() {
            bail!("the node refuses the transaction: {}", answer.status());
        }
        Ok(())
    }
}

//! What the benchmarks ask of a node over its public HTTP API.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tiltyard_proto::transaction::SignedTransaction;

use crate::run::layout::hex;

const PATIENCE: Duration = Duration::from_secs(30);

/// One node's API. Cheap to clone; each clone may be used by a thread of its own.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    agent: ureq::Agent,
    url: String,
    token: PathBuf,
}

/// What a node says of itself, as far as benchmarks look at it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Status {
    pub(crate) height: u64,
    pub(crate) peers: u64,
    pub(crate) syncing: bool,
    pub(crate) pending_transactions: u64,
}

/// A decided block, as far as benchmarks look at it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Block {
    pub(crate) hash: String,
    pub(crate) state_root: String,
    pub(crate) round: u64,
    pub(crate) transaction_ids: Vec<String>,
}

/// A block became durable on a node.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Decided {
    pub(crate) height: u64,
    pub(crate) transactions: u64,
    /// When its builder built it, by its wall clock.
    pub(crate) time_ms: u64,
    /// When this program heard of it, by the same machine's wall clock.
    #[serde(skip)]
    pub(crate) heard_us: u64,
}

/// What a node answers to one transaction of a batch.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Answer {
    pub(crate) id: String,
    pub(crate) accepted: bool,
    #[serde(default)]
    pub(crate) fact: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Answers {
    transactions: Vec<Answer>,
}

/// The machine's wall clock, in microseconds since 1970.
pub(crate) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

impl Api {
    pub(crate) fn new(url: &str, dir: &Path) -> Self {
        let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build();
        Self { agent: config.new_agent(), url: url.to_owned(), token: dir.join("api.token") }
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let full = format!("{}{path}", self.url);
        let mut answer = self.agent.get(&full).call().with_context(|| format!("cannot get {full}"))?;
        answer.body_mut().read_json().with_context(|| format!("{full} answers another form"))
    }

    pub(crate) fn status(&self) -> Result<Status> {
        self.get("/v1/status")
    }

    pub(crate) fn block(&self, height: u64) -> Result<Block> {
        self.get(&format!("/v1/blocks/{height}"))
    }

    fn token(&self) -> Result<String> {
        let text = fs::read_to_string(&self.token)
            .with_context(|| format!("cannot read {}", self.token.display()))?;
        Ok(format!("Bearer {}", text.trim()))
    }

    /// Hands in transactions; returns when the node has taken or refused each.
    pub(crate) fn submit(&self, batch: &[SignedTransaction]) -> Result<Vec<Answer>> {
        let bytes: Vec<String> = batch.iter().map(|signed| hex(&signed.encode())).collect();
        let full = format!("{}/v1/transactions/batch", self.url);
        let mut answer = self
            .agent
            .post(&full)
            .header("Authorization", self.token()?)
            .send_json(json!({ "transactions": bytes }))
            .with_context(|| format!("cannot hand transactions in at {full}"))?;
        let answers: Answers =
            answer.body_mut().read_json().with_context(|| format!("{full} answers another form"))?;
        if answers.transactions.len() != batch.len() {
            bail!("{full} answered {} of {} transactions", answers.transactions.len(), batch.len());
        }
        Ok(answers.transactions)
    }

    /// Tells of every decided block until the node ends or `hear` says stop.
    pub(crate) fn follow(&self, mut hear: impl FnMut(Decided) -> bool) -> Result<()> {
        let agent = ureq::Agent::config_builder().timeout_global(None).build().new_agent();
        let full = format!("{}/v1/events?only=decided", self.url);
        let answer = agent.get(&full).call().with_context(|| format!("cannot follow {full}"))?;
        let lines = BufReader::with_capacity(1 << 16, answer.into_body().into_reader()).lines();
        for line in lines {
            // The stream breaks off when the node ends.
            let Ok(line) = line else { return Ok(()) };
            let heard_us = now_us();
            let Some(text) = line.strip_prefix("data:") else { continue };
            let event: Value = serde_json::from_str(text.trim()).context("an event is no JSON")?;
            match event["event"].as_str() {
                Some("decided") => {
                    let decided: Decided = serde_json::from_value(event).context("a decided event")?;
                    if !hear(Decided { heard_us, ..decided }) {
                        return Ok(());
                    }
                }
                Some("missed") => bail!("{full} dropped events: this program read them too slowly"),
                Some(_) | None => {}
            }
        }
        Ok(())
    }
}

//! Asks nodes over their HTTP API and runs the `tiltyard` command, as a user's script would.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

/// How long one answer may take; nodes share two cores with the training.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks one node after another.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    agent: ureq::Agent,
}

/// What a node says of itself.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Status {
    pub(crate) height: u64,
    pub(crate) state_root: String,
    pub(crate) peers: u64,
    pub(crate) syncing: bool,
    #[serde(default)]
    pub(crate) finality_ms: Samples,
    pub(crate) supply: Supply,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Samples {
    #[serde(default)]
    pub(crate) samples: Vec<f64>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Supply {
    pub(crate) conserved: bool,
}

/// A decided block, as far as the testnet looks at it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Block {
    pub(crate) state_root: String,
    pub(crate) signers: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Tasks {
    pub(crate) tasks: Vec<Task>,
}

/// A task, live or over.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Task {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) kind: String,
    pub(crate) phase: String,
    pub(crate) deadlines: Deadlines,
    pub(crate) examples: u64,
    pub(crate) base_mean_micro: Option<u64>,
    pub(crate) winner: Option<String>,
    pub(crate) entrants: Vec<Entrant>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Deadlines {
    pub(crate) open: u64,
    pub(crate) commit: u64,
    pub(crate) reveal: u64,
    pub(crate) held: u64,
    pub(crate) key: u64,
    pub(crate) score_commit: u64,
    pub(crate) score_open: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Entrant {
    pub(crate) miner: String,
    pub(crate) commit_height: u64,
    pub(crate) stage: String,
    pub(crate) strategy: Option<String>,
    pub(crate) tokens_trained: Option<u64>,
    pub(crate) mean_micro: Option<u64>,
    pub(crate) gain_ppm: Option<i64>,
    pub(crate) rank: Option<u64>,
    pub(crate) reason: String,
    pub(crate) reward: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Jobs {
    pub(crate) jobs: Vec<Job>,
}

/// A job of a node.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Job {
    pub(crate) kind: String,
    pub(crate) task: String,
    pub(crate) state: String,
    pub(crate) strategy: Option<String>,
    pub(crate) step: u64,
    pub(crate) tokens: u64,
    pub(crate) tokens_budget: u64,
    pub(crate) loss_micro: Option<u64>,
    pub(crate) checkpoint_step: u64,
    pub(crate) resumed_from_step: u64,
}

impl Client {
    pub(crate) fn new() -> Self {
        let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build();
        Self { agent: config.new_agent() }
    }

    /// Gets `path` from the node at `url`.
    pub(crate) fn get<T: for<'de> Deserialize<'de>>(&self, url: &str, path: &str) -> Result<T> {
        let full = format!("{url}{path}");
        let mut answer = self.agent.get(&full).call().with_context(|| format!("cannot get {full}"))?;
        answer.body_mut().read_json().with_context(|| format!("{full} answers another form"))
    }

    pub(crate) fn status(&self, url: &str) -> Result<Status> {
        self.get(url, "/v1/status")
    }

    pub(crate) fn block(&self, url: &str, height: u64) -> Result<Block> {
        self.get(url, &format!("/v1/blocks/{height}"))
    }

    pub(crate) fn tasks(&self, url: &str) -> Result<Vec<Task>> {
        Ok(self.get::<Tasks>(url, "/v1/tasks")?.tasks)
    }

    pub(crate) fn task(&self, url: &str, id: &str) -> Result<Task> {
        self.get(url, &format!("/v1/tasks/{id}"))
    }

    pub(crate) fn jobs(&self, url: &str) -> Result<Vec<Job>> {
        Ok(self.get::<Jobs>(url, "/v1/jobs")?.jobs)
    }
}

/// The `tiltyard` command of this run.
#[derive(Debug, Clone)]
pub(crate) struct Tool {
    pub(crate) binary: PathBuf,
}

impl Tool {
    /// Runs the command with `--json` and returns what it prints.
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let output = Command::new(&self.binary)
            .args(arguments)
            .arg("--json")
            .output()
            .with_context(|| format!("cannot run {}", self.binary.display()))?;
        if !output.status.success() {
            bail!(
                "tiltyard {} ended with {}:\n{}{}",
                arguments.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr),
                String::from_utf8_lossy(&output.stdout)
            );
        }
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("tiltyard {} prints no JSON", arguments.join(" ")))
    }
}

/// Writes a path as text for an argument.
pub(crate) fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not valid text", path.display()))
}

//! Writes a node's configuration file.

use anyhow::{Context, Result};
use serde::Serialize;

use super::{Options, Role};

/// What differs from node to node.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) listen: String,
    pub(crate) api: String,
    pub(crate) bootstrap: Vec<String>,
    pub(crate) strategy: Option<String>,
}

#[derive(Debug, Serialize)]
struct Config {
    role: &'static str,
    network: Network,
    api: Api,
    #[serde(skip_serializing_if = "Option::is_none")]
    miner: Option<Miner>,
}

#[derive(Debug, Serialize)]
struct Network {
    listen: Vec<String>,
    bootstrap: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Api {
    listen: String,
}

#[derive(Debug, Serialize)]
struct Miner {
    strategy: String,
    tokens: u64,
    checkpoint_steps: u32,
    finish_before: u64,
}

/// Blocks that a miner leaves itself between the end of training and the end of commits.
const FINISH_BEFORE: u64 = 16;

/// Returns the text of `config.toml`.
pub(crate) fn config(options: &Options, role: Role, facts: &Facts) -> Result<String> {
    let miner = facts.strategy.clone().map(|strategy| Miner {
        strategy,
        tokens: options.tokens(),
        // A large base takes few steps in all; one of them must be saved before a miner is killed.
        checkpoint_steps: if options.base.is_some() { 2 } else { 10 },
        finish_before: FINISH_BEFORE,
    });
    let config = Config {
        role: role.word(),
        network: Network { listen: vec![facts.listen.clone()], bootstrap: facts.bootstrap.clone() },
        api: Api { listen: facts.api.clone() },
        miner,
    };
    toml::to_string(&config).context("cannot write a configuration")
}

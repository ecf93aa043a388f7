//! Writes a node's configuration file.

use anyhow::{Context, Result};
use serde::Serialize;

use crate::run::Role;

/// What differs from node to node.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) role: Role,
    pub(crate) listen: String,
    pub(crate) api: String,
    pub(crate) bootstrap: Vec<String>,
    pub(crate) mempool: Mempool,
}

#[derive(Debug, Serialize)]
struct Config {
    role: &'static str,
    network: Network,
    api: Api,
    mempool: Mempool,
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

/// Bounds of pending transactions.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Mempool {
    pub(crate) kb_max: u32,
    pub(crate) per_sender_max: u32,
}

/// Returns the text of `config.toml`.
pub(crate) fn text(facts: Facts) -> Result<String> {
    let config = Config {
        role: facts.role.word(),
        network: Network { listen: vec![facts.listen], bootstrap: facts.bootstrap },
        api: Api { listen: facts.api },
        mempool: facts.mempool,
    };
    toml::to_string(&config).context("cannot write a configuration")
}

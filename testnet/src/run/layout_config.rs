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
    listen: Vec<String>,
}

/// Returns the text of `config.toml`.
pub(crate) fn config(_options: &Options, _role: Role, facts: &Facts) -> Result<String> {
    toml::to_string(&Config { listen: vec![facts.listen.clone()] }).context("cannot write a configuration")
}

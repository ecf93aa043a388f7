//! `tiltyard light`: follows a chain from its genesis hash alone.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tiltyard_keys::{GenesisHash, PublicKey};
use tiltyard_light::{Client, FollowError, HttpNode, default_options};
use tiltyard_proto::state::StateKey;

use super::receipt::{checked_json, describe, refused};
use super::{Answer, CliError, receipt};
use crate::clock;

/// Options of `light`.
#[derive(Debug, Args)]
pub(crate) struct Light {
    /// Address of any node's API; it is trusted in nothing.
    #[arg(long, value_name = "URL")]
    url: String,
    /// Hash of the network's genesis document: all that is trusted.
    #[arg(long, value_name = "HASH")]
    genesis_hash: GenesisHash,
    /// Another node, asked for the same block.
    #[arg(long, value_name = "URL")]
    witness: Option<String>,
    /// Proves this account's balance, or that it has none.
    #[arg(long, value_name = "KEY", conflicts_with = "receipt")]
    account: Option<PublicKey>,
    /// Verifies this receipt against the chain that is followed.
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
}

const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) fn answer(options: &Light) -> Result<Answer, CliError> {
    match follow(options) {
        Ok(answer) => Ok(answer),
        // The chain or the proof does not hold: an answer, not an accident.
        Err(CliError::Follow(error)) if !matches!(error, FollowError::Source(_)) => {
            Ok(refused(&error.to_string()))
        }
        Err(error) => Err(error),
    }
}

fn follow(options: &Light) -> Result<Answer, CliError> {
    let node = HttpNode::new(&options.url, PATIENCE);
    let mut client = Client::start(node, &options.genesis_hash, default_options())?;
    let mut proven = None;
    let mut text = String::new();
    if let Some(path) = &options.receipt {
        let checked = client.verify_receipt(&receipt::read(path)?, clock::unix())?;
        text = format!("{}\n", describe(&checked.fact));
        proven = Some(checked_json(&checked));
    }
    client.follow(clock::unix())?;
    if let Some(account) = &options.account {
        let found = client.prove(&StateKey::Account(*account), clock::unix())?;
        text = format!("{}\n", describe(&found.fact));
        proven = Some(json!({ "height": found.height, "fact": found.fact }));
    }
    if let Some(url) = &options.witness {
        client.cross_check(&HttpNode::new(url, PATIENCE), clock::unix())?;
    }
    let trusted = client.trusted();
    let (height, time) = (trusted.height(), trusted.time);
    let age_s = clock::unix().get().saturating_sub(time.get()) / 1_000;
    let json = json!({
        "valid": true,
        "genesis": trusted.genesis,
        "height": height,
        "block": trusted.block_hash(),
        "state_root": trusted.state_root(),
        "time_ms": time,
        "age_s": age_s,
        "headers": client.headers_asked(),
        "witness": options.witness.as_ref().map(|_| true),
        "proven": proven,
    });
    text += &format!(
        "valid: height {height}, {age_s} s old, {} headers from the genesis hash{}",
        client.headers_asked(),
        if options.witness.is_some() { ", the witness agrees" } else { "" }
    );
    Ok(Answer::done(json, text))
}

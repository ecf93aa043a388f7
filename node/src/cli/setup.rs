//! `tiltyard init`.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::limits::GENESIS_BYTES_MAX;

use super::genesis::PublicRecord;
use super::{Answer, CliError, Place};
use crate::config::{Config, Role, template};
use crate::home::{self, Home, KeyName};
use crate::keyfile::{self, PasswordSource};

/// Options of `init`.
#[derive(Debug, Args)]
pub(crate) struct Init {
    #[command(flatten)]
    place: Place,
    /// What the node will do.
    #[arg(long, default_value = "observer")]
    role: Role,
    /// Genesis document of the network to join; can be copied to genesis.cbor later.
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,
    /// Addresses under which others reach this node, for its public record.
    #[arg(long, value_name = "MULTIADDR")]
    address: Vec<String>,
    /// Leaves the keys unencrypted; for testnets only.
    #[arg(long)]
    unencrypted: bool,
    /// File whose first line is the password of the new keys.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// Makes a data folder.
pub(crate) fn init(options: &Init) -> Result<Answer, CliError> {
    let home = Home::find(options.place.dir.as_deref())?;
    if home.config().exists() {
        return Err(home::HomeError::Exists { path: home.config() }.into());
    }
    let genesis = options.genesis.as_deref().map(read_genesis).transpose()?;
    let password = if options.unencrypted {
        None
    } else {
        Some(PasswordSource { file: options.password_file.clone() }.get_new()?)
    };
    let password = password.as_ref().map(|password| password.as_str());
    home.make()?;
    let (node, account) = (keyfile::generate(), keyfile::generate());
    let validator = (options.role == Role::Validator).then(keyfile::generate);
    keyfile::write(&home.key(KeyName::Node), &node, password)?;
    keyfile::write(&home.key(KeyName::Account), &account, password)?;
    if let Some(validator) = &validator {
        keyfile::write(&home.key(KeyName::Validator), validator, password)?;
    }
    home.read_role_secret()?;
    home.read_token()?;
    let peer =
        tiltyard_net::peer_of_seed(&node.seed()).map_err(|error| CliError::refused(error.to_string()))?;
    let record = PublicRecord {
        validator: validator.as_ref().map(tiltyard_keys::SecretKey::public),
        account: account.public(),
        peer: tiltyard_net::peer_text(&peer),
        addresses: options.address.clone(),
    };
    let text = serde_json::to_string_pretty(&record).map_err(|error| CliError::refused(error.to_string()))?;
    let public = home.public_record();
    fs::write(&public, text + "\n").map_err(CliError::file("write", &public))?;
    if let Some(genesis) = &genesis {
        let path = home.genesis();
        fs::write(&path, genesis.encode()).map_err(CliError::file("write", &path))?;
    }
    let path = home.config();
    let text = template(options.role);
    Config::parse(&path, &text)?;
    // Written last: a folder with a configuration is a whole one.
    fs::write(&path, text).map_err(CliError::file("write", &path))?;
    Ok(report(&home, &record, genesis.as_ref()))
}

fn report(home: &Home, record: &PublicRecord, genesis: Option<&Genesis>) -> Answer {
    let next = if genesis.is_some() {
        "Edit config.toml (bootstrap peers), then: tiltyard run"
    } else {
        "Copy your network's document to genesis.cbor, edit config.toml, then: tiltyard run"
    };
    let json = json!({
        "dir": home.root(),
        "account": record.account,
        "validator": record.validator,
        "peer": record.peer,
        "genesis": genesis.map(|genesis| genesis.hash().to_string()),
    });
    let text = format!(
        "Made {}\n  account   {}\n  peer      {}\n{}  public record in public.json; back up the keys folder\n{next}",
        home.root().display(),
        record.account,
        record.peer,
        record.validator.map_or(String::new(), |key| format!("  validator {key}\n")),
    );
    Answer::done(json, text)
}

/// Reads a genesis document from a file.
pub(crate) fn read_genesis(path: &std::path::Path) -> Result<Genesis, CliError> {
    let bytes = home::read_bounded(path, GENESIS_BYTES_MAX as u64)?;
    Genesis::decode(&bytes).map_err(|error| CliError::content(path, error))
}

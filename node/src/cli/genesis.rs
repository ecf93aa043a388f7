//! `tiltyard genesis`: the document that a network starts from.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use serde_json::{Value, json};
use tiltyard_keys::PublicKey;
use tiltyard_proto::genesis::{Genesis, GenesisValidator, Grant, Params};
use tiltyard_proto::units::{Stake, UnixMillis};

use super::setup::read_genesis;
use super::{Answer, CliError};
use crate::amount;
use crate::home;

const TEXT_BYTES_MAX: u64 = 64 * 1024;

/// What others may know of a node; `tiltyard init` writes it to public.json.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PublicRecord {
    /// Consensus key, of a validator.
    pub(crate) validator: Option<PublicKey>,
    /// Account.
    pub(crate) account: PublicKey,
    /// Peer id.
    pub(crate) peer: String,
    /// Multiaddresses.
    pub(crate) addresses: Vec<String>,
}

/// What can be done with genesis documents.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes a document from validators' public records, balances and parameters.
    New {
        /// Name for people, at most 32 bytes.
        #[arg(long)]
        name: String,
        /// A validator's public.json and its stake in whole credits.
        #[arg(long, value_name = "FILE:STAKE", required = true)]
        validator: Vec<String>,
        /// A balance in credits.
        #[arg(long, value_name = "ACCOUNT=CREDITS")]
        grant: Vec<String>,
        /// TOML file with the parameters that differ from the defaults.
        #[arg(long, value_name = "FILE")]
        params: Option<PathBuf>,
        /// Time of the document in milliseconds since 1970; by default now.
        #[arg(long, value_name = "MS")]
        time_ms: Option<u64>,
        /// Where to write it.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Shows a document.
    Show {
        /// The document.
        file: PathBuf,
    },
    /// Prints a document's hash, which names the network.
    Hash {
        /// The document.
        file: PathBuf,
    },
}

pub(crate) fn answer(command: &Command) -> Result<Answer, CliError> {
    match command {
        Command::New { name, validator, grant, params, time_ms, out } => {
            let mut validators =
                validator.iter().map(|text| read_validator(text)).collect::<Result<Vec<_>, _>>()?;
            validators.sort_by_key(|validator| validator.key);
            let mut grants = grant.iter().map(|text| read_grant(text)).collect::<Result<Vec<_>, _>>()?;
            grants.sort_by_key(|grant| grant.account);
            let genesis = Genesis {
                version: Genesis::VERSION,
                name: name.clone(),
                time: time_ms.map_or_else(crate::clock::unix, UnixMillis::new),
                params: read_params(params.as_deref(), validators.len())?,
                validators,
                grants,
            };
            genesis.check().map_err(|error| CliError::refused(error.to_string()))?;
            fs::write(out, genesis.encode()).map_err(CliError::file("write", out))?;
            Ok(show(&genesis))
        }
        Command::Show { file } => Ok(show(&read_genesis(file)?)),
        Command::Hash { file } => {
            let hash = read_genesis(file)?.hash();
            Ok(Answer::done(json!({ "hash": hash }), hash.to_string()))
        }
    }
}

fn read_validator(text: &str) -> Result<GenesisValidator, CliError> {
    let malformed = || CliError::usage(format!("{text:?} is not FILE:STAKE, such as v0/public.json:10000"));
    let (file, stake) = text.rsplit_once(':').ok_or_else(malformed)?;
    let stake: Stake = stake.parse().map_err(|_| malformed())?;
    let path = Path::new(file);
    let bytes = home::read_bounded(path, TEXT_BYTES_MAX)?;
    let record: PublicRecord =
        serde_json::from_slice(&bytes).map_err(|error| CliError::content(path, error))?;
    let key = record.validator.ok_or_else(|| {
        CliError::content(path, "it names no validator key; make the folder with --role validator")
    })?;
    let peer = tiltyard_net::peer_from_text(&record.peer).map_err(|error| CliError::content(path, error))?;
    Ok(GenesisValidator {
        key,
        stake,
        peer: ByteBuf::from(peer.as_bytes().to_vec()),
        addresses: record.addresses,
        payout: record.account,
    })
}

fn read_grant(text: &str) -> Result<Grant, CliError> {
    let malformed = || CliError::usage(format!("{text:?} is not ACCOUNT=CREDITS"));
    let (account, credits) = text.split_once('=').ok_or_else(malformed)?;
    let account = account.parse().map_err(|_| malformed())?;
    Ok(Grant { account, amount: amount::credits(credits)? })
}

/// Lays the file's keys over the defaults; a key that is no parameter is refused.
fn read_params(path: Option<&Path>, validators: usize) -> Result<Params, CliError> {
    let defaults = Params::default_for(validators as u64);
    let Some(path) = path else {
        return Ok(defaults);
    };
    let text = home::read_bounded(path, TEXT_BYTES_MAX)?;
    let text = String::from_utf8_lossy(&text);
    let given: toml::Table = toml::from_str(&text).map_err(|error| CliError::content(path, error))?;
    let mut all = serde_json::to_value(&defaults).map_err(|error| CliError::content(path, error))?;
    for (key, value) in given {
        let value = serde_json::to_value(value).map_err(|error| CliError::content(path, error))?;
        match all.get_mut(&key) {
            Some(place) => *place = value,
            None => {
                return Err(CliError::content(
                    path,
                    format!("{key} is no parameter; see `tiltyard genesis show`"),
                ));
            }
        }
    }
    serde_json::from_value(all).map_err(|error| CliError::content(path, error))
}

fn show(genesis: &Genesis) -> Answer {
    let hash = genesis.hash();
    let validators: Vec<Value> = genesis
        .validators
        .iter()
        .map(|validator| {
            json!({
                "key": validator.key,
                "stake": validator.stake,
                "peer": tiltyard_net::peer_text(&tiltyard_proto::wire::Peer::new(validator.peer.to_vec())),
                "addresses": validator.addresses,
                "payout": validator.payout,
            })
        })
        .collect();
    let json = json!({
        "hash": hash,
        "name": genesis.name,
        "time_ms": genesis.time,
        "params": genesis.params,
        "validators": validators,
        "grants": genesis.grants,
    });
    let mut text = format!("{} ({hash})\n", genesis.name);
    for validator in &genesis.validators {
        text += &format!(
            "  validator {} stake {} at {}\n",
            validator.key,
            validator.stake,
            validator.addresses.join(" ")
        );
    }
    for grant in &genesis.grants {
        text += &format!("  account   {} has {} credits\n", grant.account, amount::show(grant.amount));
    }
    let params = &genesis.params;
    text += &format!(
        "  blocks every {} ms, epochs of {} blocks; all parameters with --json",
        params.block_interval_ms, params.epoch
    );
    Answer::done(json, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_params(text: &str) -> Result<Params, CliError> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("params.toml");
        fs::write(&path, text).expect("written");
        read_params(Some(&path), 4)
    }

    #[test]
    fn given_parameters_lie_over_the_defaults() {
        let params = with_params("block_interval_ms = 500\nplaces = [1, 0, 0]").expect("two parameters");
        let expected = Params { block_interval_ms: 500, places: [1, 0, 0], ..Params::default_for(4) };
        assert_eq!(params, expected);
    }

    #[test]
    fn unknown_parameter_is_refused_by_name() {
        let error = with_params("blok_interval_ms = 500").expect_err("a typo");
        assert!(error.to_string().contains("blok_interval_ms"), "{error}");
    }
}

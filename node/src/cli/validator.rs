//! `tiltyard validator`: stake of the folder's validator key.

use clap::Subcommand;
use serde_bytes::ByteBuf;
use serde_json::json;
use tiltyard_keys::PublicKey;
use tiltyard_proto::transaction::Action;
use tiltyard_proto::units::Stake;

use super::submit::Sender;
use super::{Answer, CliError, Signing};
use crate::home::KeyName;
use crate::keyfile::{self, PasswordSource};

/// What can be done with stake.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Bonds whole credits of the validator key's own account.
    Bond {
        /// Whole credits.
        stake: Stake,
        #[command(flatten)]
        signing: Signing,
    },
    /// Starts to release whole credits; they return after the unbonding delay.
    Unbond {
        /// Whole credits.
        stake: Stake,
        #[command(flatten)]
        signing: Signing,
    },
    /// Returns a jailed validator to the set at the next epoch.
    Unjail {
        #[command(flatten)]
        signing: Signing,
    },
    /// Publishes where the validator can be reached and which account receives the judges' pay.
    Publish {
        /// Addresses under which others reach it.
        #[arg(long, value_name = "MULTIADDR", required = true)]
        address: Vec<String>,
        /// Account that is paid; by default the folder's.
        #[arg(long)]
        payout: Option<PublicKey>,
        #[command(flatten)]
        signing: Signing,
    },
}

pub(crate) fn answer(command: &Command) -> Result<Answer, CliError> {
    let (signing, action) = match command {
        Command::Bond { stake, signing } => (signing, Action::Bond { stake: *stake }),
        Command::Unbond { stake, signing } => (signing, Action::Unbond { stake: *stake }),
        Command::Unjail { signing } => (signing, Action::Unjail),
        Command::Publish { address, payout, signing } => {
            let home = crate::home::Home::find(signing.target.place.dir.as_deref())?;
            let password = PasswordSource { file: signing.password_file.clone() };
            let node = keyfile::read(&home.key(KeyName::Node), &password)?;
            let peer = tiltyard_net::peer_of_seed(&node.seed())
                .map_err(|error| CliError::refused(error.to_string()))?;
            let payout = match payout {
                Some(key) => *key,
                None => keyfile::parse(&home.key(KeyName::Account))?.public(),
            };
            let peer = ByteBuf::from(peer.as_bytes().to_vec());
            (signing, Action::SetValidator { peer, addresses: address.clone(), payout })
        }
    };
    let sender = Sender::open(signing, KeyName::Validator)?;
    let included = sender.send(&action)?;
    let json = json!({
        "id": included.id,
        "height": included.height,
        "action": action.name(),
        "validator": sender.key.public(),
    });
    Ok(Answer::done(json, format!("{} took effect at height {}", action.name(), included.height)))
}

//! `tiltyard validator`: stake, standing and whereabouts of the folder's validator key, and what its payout key may stop.

use clap::Subcommand;
use serde_bytes::ByteBuf;
use serde_json::{Value, json};
use tiltyard_keys::PublicKey;
use tiltyard_proto::transaction::Action;
use tiltyard_proto::units::Stake;

use super::node_api::NodeApi;
use super::submit::Sender;
use super::{Answer, CliError, Signing, Target, help};
use crate::home::KeyName;
use crate::keyfile::{self, PasswordSource};

/// What can be done with stake.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Shows a validator's stake, standing and payout account.
    #[command(after_help = help::VALIDATOR_STATUS)]
    Status {
        /// The validator; by default the folder's.
        #[arg(long)]
        key: Option<PublicKey>,
        #[command(flatten)]
        target: Target,
    },
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
    /// Sets where the validator can be reached and which account is paid; another account than before is paid after the
    /// unbonding delay, unless the present one revokes it.
    #[command(alias = "publish", after_help = help::VALIDATOR_SET)]
    Set {
        /// Addresses under which others reach it.
        #[arg(long, value_name = "MULTIADDR", required = true)]
        address: Vec<String>,
        /// Account that is paid; by default the folder's.
        #[arg(long)]
        payout: Option<PublicKey>,
        #[command(flatten)]
        signing: Signing,
    },
    /// Stops a change of the payout account, signed by the folder's account key, which must be that account.
    #[command(after_help = help::VALIDATOR_REVOKE)]
    Revoke {
        /// The validator.
        validator: PublicKey,
        /// Also starts to release all its stake.
        #[arg(long)]
        unbond: bool,
        #[command(flatten)]
        signing: Signing,
    },
}

pub(crate) fn answer(command: &Command) -> Result<Answer, CliError> {
    let mut name = KeyName::Validator;
    let (signing, action) = match command {
        Command::Status { key, target } => return status(target, *key),
        Command::Revoke { validator, unbond, signing } => {
            name = KeyName::Account;
            (signing, Action::Revoke { validator: *validator, unbond: *unbond })
        }
        Command::Bond { stake, signing } => (signing, Action::Bond { stake: *stake }),
        Command::Unbond { stake, signing } => (signing, Action::Unbond { stake: *stake }),
        Command::Unjail { signing } => (signing, Action::Unjail),
        Command::Set { address, payout, signing } => {
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
    let sender = Sender::open(signing, name)?;
    let included = sender.send(&action)?;
    let json = json!({
        "id": included.id,
        "height": included.height,
        "action": action.name(),
        "sender": sender.key.public(),
    });
    Ok(Answer::done(json, format!("{} took effect at height {}", action.name(), included.height)))
}

fn status(target: &Target, key: Option<PublicKey>) -> Result<Answer, CliError> {
    let api = NodeApi::find(target)?;
    let key = match key {
        Some(key) => key,
        None => keyfile::parse(&api.home.key(KeyName::Validator))?.public(),
    };
    let found: Value = api.get("/v1/validators")?;
    let all = found.get("validators").and_then(Value::as_array).cloned().unwrap_or_default();
    let own = all.into_iter().find(|record| record.get("key") == Some(&json!(key)));
    let Some(record) = own else {
        return Err(CliError::refused(format!(
            "{key} has no stake; bond some with `tiltyard validator bond`"
        )));
    };
    let word = |name: &str| match record.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => "-".to_owned(),
        Some(other) => other.to_string(),
    };
    let change = record.get("payout_change").filter(|change| !change.is_null()).map_or(String::new(), |change| {
        let part = |name: &str| change.get(name).map_or("-".to_owned(), |value| value.to_string());
        format!(
            "\n  CHANGES   to {} from height {}; the payout key stops it with `tiltyard validator revoke {key}`",
            part("to").trim_matches('"'),
            part("from")
        )
    });
    let text = format!(
        "{key}\n  standing  {}\n  stake     {} credits, in the set now: {}\n  leaving   {} micro-credits\n  missed    {} \
         blocks of this window\n  duties    {} tasks hold the stake\n  payout    {}{change}",
        word("standing"),
        word("stake"),
        word("in_set"),
        word("unbonding"),
        word("missed"),
        word("duties"),
        word("payout"),
    );
    Ok(Answer::done(record, text))
}

//! `tiltyard wallet`: credits of the folder's account, and its key.

use std::fs;
use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;
use tiltyard_keys::{Keystore, PublicKey};
use tiltyard_proto::transaction::Action;
use tiltyard_proto::units::MicroCredits;

use super::node_api::NodeApi;
use super::submit::Sender;
use super::{Answer, CliError, Place, Signing, Target};
use crate::amount;
use crate::api::model::Account;
use crate::home::{self, Home, KeyName};
use crate::keyfile::{self, PasswordSource};

/// What can be done with the account.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Shows balance and nonce of the folder's account, or of another one.
    Show {
        /// Another account.
        account: Option<PublicKey>,
        #[command(flatten)]
        target: Target,
    },
    /// Moves credits to another account.
    Transfer {
        /// Receiver.
        to: PublicKey,
        /// Credits, such as 12.5.
        amount: String,
        #[command(flatten)]
        signing: Signing,
    },
    /// Draws test credits, on networks that have a faucet.
    Faucet {
        #[command(flatten)]
        signing: Signing,
    },
    /// Copies the account's key file, as it is encrypted.
    Export {
        #[command(flatten)]
        place: Place,
        /// Where to write it.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Puts an exported key into a folder that has no account yet.
    Import {
        /// The exported file.
        file: PathBuf,
        #[command(flatten)]
        place: Place,
        /// File whose first line is the password of the key.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
}

pub(crate) fn answer(command: &Command) -> Result<Answer, CliError> {
    match command {
        Command::Show { account, target } => show(*account, target),
        Command::Transfer { to, amount, signing } => transfer(to, amount, signing),
        Command::Faucet { signing } => {
            let sender = Sender::open(signing, KeyName::Account)?;
            let to = sender.key.public();
            let included = sender.send(&Action::Faucet { to })?;
            let json = json!({ "id": included.id, "height": included.height, "to": to });
            Ok(Answer::done(json, format!("drawn at height {}", included.height)))
        }
        Command::Export { place, out } => export(place, out),
        Command::Import { file, place, password_file } => import(file, place, password_file.clone()),
    }
}

fn show(account: Option<PublicKey>, target: &Target) -> Result<Answer, CliError> {
    let api = NodeApi::find(target)?;
    let key = match account {
        Some(key) => key,
        None => keyfile::parse(&api.home.key(KeyName::Account))?.public(),
    };
    let found: Account = api.get(&format!("/v1/accounts/{key}"))?;
    let text = format!(
        "{key}\n  {} credits at height {}, {} transactions so far",
        amount::show(MicroCredits::new(found.balance)),
        found.height,
        found.nonce
    );
    Ok(Answer::done(json!(found), text))
}

fn transfer(to: &PublicKey, text: &str, signing: &Signing) -> Result<Answer, CliError> {
    let amount = amount::credits(text)?;
    to.validate().map_err(|error| CliError::usage(error.to_string()))?;
    let sender = Sender::open(signing, KeyName::Account)?;
    let included = sender.send(&Action::Transfer { to: *to, amount })?;
    let json = json!({ "id": included.id, "height": included.height, "to": to, "amount": amount });
    Ok(Answer::done(
        json,
        format!("{} credits moved to {to} at height {}", amount::show(amount), included.height),
    ))
}

fn export(place: &Place, out: &std::path::Path) -> Result<Answer, CliError> {
    let home = Home::find(place.dir.as_deref())?;
    let keystore = keyfile::parse(&home.key(KeyName::Account))?;
    home::write_secret(out, keystore.as_text().as_bytes())?;
    let json = json!({ "account": keystore.public(), "file": out });
    Ok(Answer::done(
        json,
        format!("key of {} copied to {}; it opens with the same password", keystore.public(), out.display()),
    ))
}

fn import(file: &std::path::Path, place: &Place, password_file: Option<PathBuf>) -> Result<Answer, CliError> {
    let home = Home::find(place.dir.as_deref())?;
    let keystore: Keystore = keyfile::parse(file)?;
    // Opened once, so that a key that nobody can open is not taken for a backup that works.
    keyfile::read(file, &PasswordSource { file: password_file })?;
    home.make()?;
    let to = home.key(KeyName::Account);
    home::write_secret(&to, keystore.as_text().as_bytes())?;
    let size = fs::metadata(&to).map_err(CliError::file("read", &to))?.len();
    let json = json!({ "account": keystore.public(), "bytes": size });
    Ok(Answer::done(json, format!("the folder's account is now {}", keystore.public())))
}

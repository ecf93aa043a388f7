//! Signs an action with a key of the folder, hands it to the node, and waits until it is in a block.

use std::path::PathBuf;
use std::time::Duration;

use tiltyard_keys::SecretKey;
use tiltyard_proto::codec;
use tiltyard_proto::genesis::{Genesis, Params};
use tiltyard_proto::limits::GENESIS_BYTES_MAX;
use tiltyard_proto::transaction::{Action, Transaction};
use tiltyard_proto::units::{Height, Nonce};

use super::node_api::NodeApi;
use super::{CliError, Signing};
use crate::api::model::{Account, SubmitRequest, Submitted, TransactionState};
use crate::home::KeyName;
use crate::keyfile::{self, PasswordSource};

/// How far ahead a transaction stays valid, in blocks.
const VALID_BLOCKS: u64 = 120;
/// How often a transaction is signed anew when another one of the account took its number.
const TRIES_MAX: u32 = 30;
const POLL: Duration = Duration::from_millis(150);
const POLLS_MAX: u32 = 4_000;

/// A key at hand and the node to send through.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) api: NodeApi,
    pub(crate) key: SecretKey,
    pub(crate) genesis: Genesis,
    pub(crate) params: Params,
}

/// A transaction in a block, having taken effect.
#[derive(Debug, Clone)]
pub(crate) struct Included {
    pub(crate) id: String,
    pub(crate) height: u64,
}

impl Sender {
    /// Opens the folder's key and asks its node for the network.
    pub(crate) fn open(signing: &Signing, name: KeyName) -> Result<Self, CliError> {
        let api = NodeApi::find(&signing.target)?;
        let genesis: Genesis =
            api.http().get_bytes("/v1/genesis", "genesis", GENESIS_BYTES_MAX).map_err(|error| {
                CliError::NoNode { url: api.http().url().to_owned(), fact: error.to_string() }
            })?;
        genesis.check().map_err(|error| CliError::refused(error.to_string()))?;
        let own: PathBuf = api.home.genesis();
        if own.exists() {
            let ours = super::setup::read_genesis(&own)?.hash();
            if ours != genesis.hash() {
                return Err(CliError::refused(format!(
                    "the node at {} is of network {}, this folder of {ours}; name the folder of that node",
                    api.http().url(),
                    genesis.hash()
                )));
            }
        }
        let params = api.get("/v1/params")?;
        let key =
            keyfile::read(&api.home.key(name), &PasswordSource { file: signing.password_file.clone() })?;
        Ok(Self { api, key, genesis, params })
    }

    /// Sends `action` and waits until it took effect.
    pub(crate) fn send(&self, action: &Action) -> Result<Included, CliError> {
        let mut last = String::new();
        for _ in 0..TRIES_MAX {
            let state = self.send_once(action)?;
            let fact = state.fact.unwrap_or_default();
            match (state.state.as_str(), state.height, state.took_effect) {
                ("included", Some(height), Some(true)) => return Ok(Included { id: state.id, height }),
                ("included", height, _) => {
                    return Err(CliError::refused(format!(
                        "{} is in block {} but broke a rule of the market: {fact}",
                        action.name(),
                        height.unwrap_or(0)
                    )));
                }
                // Another transaction of this account took the number: sign with the next one.
                _ if fact.contains("nonce") => last = fact,
                _ => return Err(CliError::refused(format!("{} was not included: {fact}", action.name()))),
            }
            std::thread::sleep(POLL);
        }
        Err(CliError::refused(format!("{} was not included: {last}; try again", action.name())))
    }

    fn send_once(&self, action: &Action) -> Result<TransactionState, CliError> {
        let account: Account = self.api.get(&format!("/v1/accounts/{}", self.key.public()))?;
        let transaction = Transaction {
            version: Transaction::VERSION,
            genesis: self.genesis.hash(),
            sender: self.key.public(),
            nonce: Nonce::new(account.nonce),
            fee: self.params.fee_min,
            valid_until: Height::new(account.height.saturating_add(VALID_BLOCKS)),
            action: action.clone(),
        };
        let signed = transaction.sign(&self.key.signer(self.genesis.hash()));
        let id = signed.id().to_string();
        let request = SubmitRequest { bytes: hex::encode(codec::encode(signed.signed())) };
        match self.api.post::<_, Submitted>("/v1/transactions", &request) {
            Ok(_) => {}
            Err(CliError::Source(tiltyard_light::SourceError::Refused { fact, .. })) => {
                return Ok(TransactionState {
                    id,
                    state: "dropped".to_owned(),
                    height: None,
                    took_effect: None,
                    fact: Some(fact),
                });
            }
            Err(error) => return Err(error),
        }
        self.wait(&id)
    }

    /// Waits until the transaction is in a block or will not be.
    fn wait(&self, id: &str) -> Result<TransactionState, CliError> {
        for _ in 0..POLLS_MAX {
            let state: TransactionState = self.api.get(&format!("/v1/transactions/{id}"))?;
            if state.state == "included" || state.state == "dropped" {
                return Ok(state);
            }
            std::thread::sleep(POLL);
        }
        Err(CliError::refused(format!(
            "transaction {id} is still waiting for a block; look again with `tiltyard status`"
        )))
    }
}

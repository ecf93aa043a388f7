//! Reads the whole history back from every node and holds it against what was offered and acknowledged.
//!
//! Nothing is believed: headers are decoded and hashed here, certificates verified, transaction roots made again from
//! the bytes that this program signed itself, balances added up from the blocks.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tiltyard_proto::block::Header;
use tiltyard_proto::certificate::Certificate;
use tiltyard_proto::codec;
use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::keys::{PublicKey, Verifier};
use tiltyard_proto::limits::{CERTIFICATE_BYTES_MAX, RECEIPT_BYTES_MAX};
use tiltyard_proto::merkle;
use tiltyard_proto::receipt::Receipt;
use tiltyard_proto::transaction::{Action, SignedTransaction};
use tiltyard_proto::validators::ValidatorSet;

use super::api::Api;
use super::load::Book;
use super::report::Violation;
use super::world::GRANT;

const HEADER_BYTES_MAX: usize = 4_096;
/// Receipts that are asked for and verified, evenly over the run.
const RECEIPTS: usize = 24;

#[derive(Debug, Deserialize)]
struct Headers {
    headers: Vec<Shown>,
}

#[derive(Debug, Deserialize)]
struct Shown {
    header: String,
    certificate: String,
}

#[derive(Debug, Deserialize)]
struct Ids {
    transaction_ids: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Account {
    balance: u64,
}

#[derive(Debug, Deserialize)]
struct Validators {
    validators: Vec<Standing>,
}

#[derive(Debug, Deserialize)]
struct Standing {
    key: String,
    stake: u64,
    standing: String,
}

#[derive(Debug, Deserialize)]
struct Bytes {
    bytes: String,
}

/// What the audit counted.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) transactions: usize,
    pub(super) receipts: usize,
    pub(super) violations: Vec<Violation>,
}

/// Audits heights 1 to `tip` of every node.
pub(super) struct Audit<'a> {
    pub(super) genesis: &'a Genesis,
    pub(super) keys: &'a [PublicKey],
    pub(super) urls: &'a [String],
    pub(super) book: &'a Book,
    pub(super) tip: u64,
}

impl Audit<'_> {
    /// # Errors
    /// When a node does not answer: then nothing can be said.
    pub(super) fn run(&self) -> Result<Counted> {
        let api = Api::patient();
        let mut counted = Counted::default();
        let mut first: Option<Vec<Header>> = None;
        for (node, url) in self.urls.iter().enumerate() {
            let headers = self.read(&api, node, url, &mut counted.violations)?;
            match &first {
                None => first = Some(headers),
                Some(known) => {
                    let pairs = known.iter().zip(&headers);
                    let forks = pairs.filter(|(a, b)| a.hash() != b.hash());
                    counted.violations.extend(
                        forks.map(|(a, _)| Violation::Fork { height: a.height.get(), nodes: (0, node) }),
                    );
                }
            }
        }
        let headers = first.context("there is no node to ask")?;
        let blocks = self.transactions(&api, &headers, &mut counted)?;
        self.acknowledged(&blocks, &mut counted);
        self.balances(&api, &blocks, &mut counted)?;
        self.standings(&api, &mut counted)?;
        self.receipts(&api, &mut counted)?;
        Ok(counted)
    }

    /// Reads a node's headers and certificates and verifies each.
    fn read(&self, api: &Api, node: usize, url: &str, found: &mut Vec<Violation>) -> Result<Vec<Header>> {
        let set = self.genesis.validator_set().context("the genesis has a set")?;
        let verifier = Verifier::new(self.genesis.hash());
        let mut headers: Vec<Header> = Vec::new();
        while (headers.len() as u64) < self.tip {
            let from = headers.len() as u64 + 1;
            let max = (self.tip + 1 - from).min(200);
            let shown: Headers = api.get(url, &format!("/v1/headers?from={from}&max={max}"))?;
            ensure!(!shown.headers.is_empty(), "{url} does not have block {from} of {}", self.tip);
            for shown in shown.headers {
                let header: Header =
                    codec::decode("header", &unhex(&shown.header)?, HEADER_BYTES_MAX).context("a header")?;
                let certificate: Certificate =
                    codec::decode("certificate", &unhex(&shown.certificate)?, CERTIFICATE_BYTES_MAX)
                        .context("a certificate")?;
                let parent = headers.last().map_or(self.genesis.block_hash(), Header::hash);
                if let Err(words) =
                    check(&header, &certificate, parent, &set, &verifier, headers.len() as u64 + 1)
                {
                    found.push(Violation::BadBlock { node, height: header.height.get(), words });
                }
                headers.push(header);
            }
        }
        Ok(headers)
    }

    /// Reads which transactions each block holds, the same at every node, and makes each root again.
    fn transactions(
        &self,
        api: &Api,
        headers: &[Header],
        counted: &mut Counted,
    ) -> Result<Vec<(u64, Vec<String>)>> {
        let mut blocks = Vec::new();
        for header in headers {
            let height = header.height.get();
            let path = format!("/v1/blocks/{height}");
            let mut ids: Option<Vec<String>> = None;
            for (node, url) in self.urls.iter().enumerate() {
                let theirs = api.get::<Ids>(url, &path)?.transaction_ids;
                let leaves: Option<Vec<Vec<u8>>> = theirs
                    .iter()
                    .map(|id| self.book.offered.get(id).map(SignedTransaction::encode))
                    .collect();
                // A transaction that this program did not sign would be the network's own invention.
                let words = match &leaves {
                    None => Some("holds a transaction that nobody offered"),
                    Some(leaves) if merkle::root(leaves) != header.tx_root => {
                        Some("has another transaction root")
                    }
                    Some(_) if ids.as_ref().is_some_and(|ids| *ids != theirs) => {
                        Some("names other transactions")
                    }
                    Some(_) => None,
                };
                if let Some(words) = words {
                    counted.violations.push(Violation::BadBlock { node, height, words: words.to_owned() });
                }
                ids = ids.or(Some(theirs));
            }
            let ids = ids.unwrap_or_default();
            counted.transactions += ids.len();
            blocks.push((height, ids));
        }
        Ok(blocks)
    }

    /// Every acknowledged transaction is in exactly the block that was named.
    fn acknowledged(&self, blocks: &[(u64, Vec<String>)], counted: &mut Counted) {
        let mut places: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (height, ids) in blocks {
            for id in ids {
                places.entry(id).or_default().push(*height);
            }
        }
        for ack in &self.book.acknowledged {
            let found_at = places.get(ack.id.as_str()).cloned().unwrap_or_default();
            if found_at != [ack.height] {
                counted.violations.push(Violation::Lost {
                    id: ack.id.clone(),
                    acknowledged_at: ack.height,
                    by: ack.by,
                    found_at,
                });
            }
        }
    }

    /// Adds the transfers up in the order of the blocks and compares with what each node says.
    fn balances(&self, api: &Api, blocks: &[(u64, Vec<String>)], counted: &mut Counted) -> Result<()> {
        let mut accounts: BTreeMap<PublicKey, (u64, u64)> =
            self.genesis.grants.iter().map(|grant| (grant.account, (GRANT, 0))).collect();
        for (height, ids) in blocks {
            for signed in ids.iter().filter_map(|id| self.book.offered.get(id)) {
                let transaction = &signed.transaction;
                let (balance, nonce) = accounts.entry(transaction.sender).or_default();
                if *nonce != transaction.nonce.get() {
                    counted.violations.push(Violation::Order {
                        sender: transaction.sender.to_string(),
                        height: *height,
                        expected: *nonce,
                        found: transaction.nonce.get(),
                    });
                }
                *nonce = transaction.nonce.get() + 1;
                if let Action::Transfer { to, amount } = &transaction.action {
                    *balance -= transaction.fee.get() + amount.get();
                    accounts.entry(*to).or_default().0 += amount.get();
                }
            }
        }
        for (node, url) in self.urls.iter().enumerate() {
            for (account, (expected, _)) in &accounts {
                let found = api.get::<Account>(url, &format!("/v1/accounts/{account}"))?.balance;
                if found != *expected {
                    let account = account.to_string();
                    counted.violations.push(Violation::Balance { node, account, expected: *expected, found });
                }
            }
        }
        Ok(())
    }

    /// No validator here lies, so none may have lost stake or standing.
    fn standings(&self, api: &Api, counted: &mut Counted) -> Result<()> {
        for (node, url) in self.urls.iter().enumerate() {
            let list = api.get::<Validators>(url, "/v1/validators")?.validators;
            ensure!(list.len() == self.keys.len(), "{url} names {} validators", list.len());
            for validator in list {
                let full = self.genesis.validators.iter().any(|known| {
                    known.key.to_string() == validator.key && known.stake.get() == validator.stake
                });
                if validator.standing != "active" || !full {
                    counted.violations.push(Violation::Punished {
                        node,
                        validator: validator.key,
                        standing: validator.standing,
                        stake: validator.stake,
                    });
                }
            }
        }
        Ok(())
    }

    /// Asks for receipts of acknowledged transactions, from one node after the other, and verifies them.
    fn receipts(&self, api: &Api, counted: &mut Counted) -> Result<()> {
        let every = self.book.acknowledged.len().div_ceil(RECEIPTS).max(1);
        for (at, ack) in self.book.acknowledged.iter().step_by(every).enumerate() {
            let Some(url) = self.urls.get(at % self.urls.len()) else { continue };
            let hex = api.get::<Bytes>(url, &format!("/v1/transactions/{}/receipt", ack.id))?.bytes;
            let bytes = unhex(&hex)?;
            ensure!(bytes.len() <= RECEIPT_BYTES_MAX, "a receipt of {} bytes", bytes.len());
            let checked = Receipt::decode(&bytes).map_err(|error| error.to_string()).and_then(|receipt| {
                receipt.verify(self.genesis).map_err(|error| error.to_string()).map(|_| receipt)
            });
            let wrong = match checked {
                Ok(receipt) if receipt.header.height.get() != ack.height => {
                    Some("names another height".to_owned())
                }
                Ok(_) => None,
                Err(words) => Some(words),
            };
            match wrong {
                Some(words) => counted.violations.push(Violation::Receipt { id: ack.id.clone(), words }),
                None => counted.receipts += 1,
            }
        }
        Ok(())
    }
}

fn check(
    header: &Header,
    certificate: &Certificate,
    parent: tiltyard_proto::ids::BlockHash,
    set: &ValidatorSet,
    verifier: &Verifier,
    height: u64,
) -> Result<(), String> {
    if header.height.get() != height {
        return Err(format!("stands at height {height}"));
    }
    if header.parent != parent {
        return Err("does not follow the block before it".to_owned());
    }
    if header.validators_hash != set.hash() {
        return Err("names another validator set".to_owned());
    }
    if certificate.block != header.hash() || certificate.height != header.height {
        return Err("is not what its certificate decided".to_owned());
    }
    certificate.verify(verifier, set).map_err(|error| error.to_string())?;
    Ok(())
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    let digits = text.as_bytes();
    ensure!(digits.len().is_multiple_of(2), "hex of odd length");
    digits
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).context("hex")?;
            u8::from_str_radix(pair, 16).context("hex")
        })
        .collect()
}

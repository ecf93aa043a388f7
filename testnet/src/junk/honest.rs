//! One honest client: signs a transfer, hands it to its node, waits until another node has it in a block, and begins anew.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tiltyard_proto::genesis::Genesis;
use tiltyard_proto::keys::SecretKey;
use tiltyard_proto::transaction::{Action, Transaction};
use tiltyard_proto::units::{Height, MicroCredits, Nonce};

use crate::run::layout::{self, Network};

const POLL: Duration = Duration::from_millis(10);
/// A transfer that takes longer counts as this long, and ends the run.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long transfers took, sorted.
#[derive(Debug)]
pub(crate) struct Times(Vec<u64>);

impl Times {
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns a percentile that occurred, in milliseconds.
    pub(crate) fn percentile(&self, percent: usize) -> u64 {
        let at = (self.0.len() * percent).div_ceil(100).max(1) - 1;
        self.0.get(at).copied().unwrap_or(0)
    }
}

/// The client.
#[derive(Debug)]
pub(crate) struct Sender {
    key: SecretKey,
    genesis: Genesis,
    submit_url: String,
    token: String,
    watch_url: String,
}

impl Sender {
    pub(crate) fn new(network: &Network) -> Result<Self> {
        let place = &network.requester.place;
        let token = std::fs::read_to_string(place.dir.join("api.token")).context("the node made no token")?;
        let genesis = std::fs::read(&network.genesis_file).context("cannot read the genesis document")?;
        Ok(Self {
            key: layout::key(network.seed, &place.name, "account"),
            genesis: Genesis::decode(&genesis)?,
            submit_url: place.url.clone(),
            token: token.trim().to_owned(),
            watch_url: network.observer.place.url.clone(),
        })
    }

    fn get(&self, url: &str, path: &str) -> Result<Value> {
        let full = format!("{url}{path}");
        let mut answer = ureq::get(&full).call().with_context(|| format!("cannot get {full}"))?;
        answer.body_mut().read_json().with_context(|| format!("{full} answers another form"))
    }

    /// Sends one transfer after another; returns how long each took to be final at another node.
    pub(crate) fn send_for(&self, time: Duration) -> Result<Times> {
        let end = Instant::now() + time;
        let mut times = Vec::new();
        while Instant::now() < end {
            let took = self.send()?;
            times.push(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        }
        times.sort_unstable();
        Ok(Times(times))
    }

    fn send(&self) -> Result<Duration> {
        let account = self.get(&self.submit_url, &format!("/v1/accounts/{}", self.key.public()))?;
        let number = |name: &str| account.get(name).and_then(Value::as_u64).unwrap_or(0);
        let hash = self.genesis.hash();
        let transaction = Transaction {
            version: Transaction::VERSION,
            genesis: hash,
            sender: self.key.public(),
            nonce: Nonce::new(number("nonce")),
            fee: self.genesis.params.fee_min,
            valid_until: Height::new(number("height") + 500),
            action: Action::Transfer { to: self.key.public(), amount: MicroCredits::new(1) },
        };
        let signed = transaction.sign(&self.key.signer(hash));
        let bytes = layout::hex(&signed.signed().encode());
        let begun = Instant::now();
        let url = format!("{}/v1/transactions", self.submit_url);
        ureq::post(&url)
            .header("authorization", &format!("Bearer {}", self.token))
            .send_json(json!({ "bytes": bytes }))
            .context("the node refused an honest transfer")?;
        let path = format!("/v1/transactions/{}", signed.id());
        while begun.elapsed() < PATIENCE {
            // The other node does not know it before it is in a block.
            let found = self.get(&self.watch_url, &path).ok();
            if found.is_some_and(|found| found.get("state").and_then(Value::as_str) == Some("included")) {
                return Ok(begun.elapsed());
            }
            thread::sleep(POLL);
        }
        bail!("an honest transfer was not final after {} s", PATIENCE.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_occurred() {
        let times = Times((1..=100).collect());
        assert_eq!((times.percentile(50), times.percentile(95), times.percentile(100)), (50, 95, 100));
        assert_eq!(Times(vec![7]).percentile(95), 7);
    }
}

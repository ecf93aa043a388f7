//! A network of validators for benchmarks: laid out, started, watched, weighed, stopped.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_bytes::ByteBuf;
use tiltyard_proto::genesis::{Genesis, GenesisValidator, Grant, Params};
use tiltyard_proto::keys::SecretKey;
use tiltyard_proto::units::{MicroCredits, Stake, UnixMillis};

use super::api::Api;
use super::config;
use crate::run::Role;
use crate::run::layout::{free_ports, hex, multiaddr, peer_id, write_key, write_secret};
use crate::run::process::{Node, Place};

const STAKE: u64 = 10_000;
const START_PATIENCE: Duration = Duration::from_secs(60);
const STOP_PATIENCE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a network is like.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) validators: usize,
    pub(crate) seed: u64,
    pub(crate) params: Params,
    pub(crate) accounts: &'a [SecretKey],
    pub(crate) binary: PathBuf,
    pub(crate) mempool: config::Mempool,
}

/// Running nodes.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) genesis: Genesis,
    pub(crate) nodes: Vec<Node>,
    pub(crate) apis: Vec<Api>,
}

/// What one process used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Processor time so far, in seconds.
    pub(crate) cpu_s: f64,
    /// Largest resident memory so far, in MB (10^6 bytes).
    pub(crate) peak_mb: f64,
}

/// The secrets of one validator.
struct Draft {
    place: Place,
    ports: [u16; 2],
    node: SecretKey,
    validator: SecretKey,
    account: SecretKey,
}

fn bytes(seed: u64, name: &str, purpose: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("tiltyard testnet bench key v1");
    hasher.update(&seed.to_be_bytes());
    hasher.update(name.as_bytes());
    hasher.update(purpose.as_bytes());
    *hasher.finalize().as_bytes()
}

impl Network {
    /// Lays a network out in `dir`, starts it and waits until every node sees all others and a block.
    pub(crate) fn start(plan: &Plan<'_>, dir: &Path) -> Result<Self> {
        let ports = free_ports(plan.validators * 2)?;
        let drafts: Vec<Draft> = ports
            .chunks_exact(2)
            .enumerate()
            .map(|(at, ports)| {
                let name = format!("validator-{at}");
                let key = |purpose: &str| SecretKey::from_seed(&bytes(plan.seed, &name, purpose));
                Draft {
                    node: key("node"),
                    validator: key("validator"),
                    account: key("account"),
                    place: Place {
                        dir: dir.join(&name),
                        url: format!("http://127.0.0.1:{}", ports[1]),
                        role: Role::Validator,
                        name,
                    },
                    ports: [ports[0], ports[1]],
                }
            })
            .collect();
        let genesis = plan.genesis(&drafts)?;
        for draft in &drafts {
            write(plan, draft, &drafts, &genesis)?;
        }
        let mut nodes: Vec<Node> =
            drafts.into_iter().map(|draft| Node::new(draft.place, &plan.binary)).collect();
        for node in &mut nodes {
            node.start()?;
        }
        let apis = nodes.iter().map(|node| Api::new(&node.place.url, &node.place.dir)).collect();
        let mut network = Self { genesis, nodes, apis };
        network.wait_until("every node sees all others and a block", |network| {
            let others = network.nodes.len() as u64 - 1;
            network.apis.iter().all(|api| {
                api.status()
                    .is_ok_and(|status| status.peers >= others && status.height > 0 && !status.syncing)
            })
        })?;
        Ok(network)
    }

    /// Waits until `done`, while every process is alive.
    pub(crate) fn wait_until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) -> Result<()> {
        let until = Instant::now() + START_PATIENCE;
        while !done(self) {
            for node in &mut self.nodes {
                node.check_alive()?;
            }
            if Instant::now() >= until {
                bail!("waited {} s in vain: {what}", START_PATIENCE.as_secs());
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Returns the heights of all nodes.
    pub(crate) fn heights(&self) -> Result<Vec<u64>> {
        self.apis.iter().map(|api| Ok(api.status()?.height)).collect()
    }

    /// Returns what each process used so far.
    pub(crate) fn usage(&self) -> Vec<Usage> {
        self.nodes.iter().map(|node| node.pid().map(usage).unwrap_or_default()).collect()
    }

    /// Asks every process to end and waits.
    pub(crate) fn stop(mut self) -> Result<()> {
        for node in &self.nodes {
            node.ask_to_stop();
        }
        for node in &mut self.nodes {
            let in_time = node.reap(STOP_PATIENCE, &thread::sleep)?;
            ensure!(in_time, "{} did not stop when asked", node.place.name);
        }
        Ok(())
    }
}

impl Plan<'_> {
    fn genesis(&self, drafts: &[Draft]) -> Result<Genesis> {
        let validators = drafts
            .iter()
            .map(|draft| GenesisValidator {
                key: draft.validator.public(),
                stake: Stake::new(STAKE),
                peer: ByteBuf::from(peer_id(&draft.node.public())),
                addresses: vec![multiaddr(draft.ports[0])],
                payout: draft.account.public(),
            })
            .collect();
        genesis(self.params.clone(), self.accounts, validators)
    }
}

/// Makes the document of a network whose accounts all hold credits.
fn genesis(params: Params, accounts: &[SecretKey], mut validators: Vec<GenesisValidator>) -> Result<Genesis> {
    validators.sort_by_key(|validator| validator.key);
    let mut grants = super::accounts::grants(accounts);
    grants.extend(
        validators
            .iter()
            .map(|validator| Grant { account: validator.payout, amount: MicroCredits::new(1_000_000) }),
    );
    grants.sort_by_key(|grant| grant.account);
    let genesis = Genesis {
        version: Genesis::VERSION,
        name: "tiltyard-bench".to_owned(),
        time: UnixMillis::new(1_767_225_600_000),
        params,
        validators,
        grants,
    };
    genesis.check().context("the benchmark's genesis breaks a rule")?;
    Ok(genesis)
}

/// Makes keys and genesis of a network that runs inside this program, where nobody is looked up by address.
pub(crate) fn inside(
    seed: u64,
    count: usize,
    params: Params,
    accounts: &[SecretKey],
) -> Result<(Vec<SecretKey>, Genesis)> {
    let key = |at: usize, purpose: &str| SecretKey::from_seed(&bytes(seed, &format!("bare-{at}"), purpose));
    let keys: Vec<SecretKey> = (0..count).map(|at| key(at, "validator")).collect();
    let validators = keys
        .iter()
        .enumerate()
        .map(|(at, validator)| GenesisValidator {
            key: validator.public(),
            stake: Stake::new(STAKE),
            peer: ByteBuf::from(peer_id(&validator.public())),
            addresses: Vec::new(),
            payout: key(at, "account").public(),
        })
        .collect();
    let genesis = genesis(params, accounts, validators)?;
    Ok((keys, genesis))
}

fn write(plan: &Plan<'_>, draft: &Draft, all: &[Draft], genesis: &Genesis) -> Result<()> {
    let own = multiaddr(draft.ports[0]);
    let others = all.iter().map(|other| multiaddr(other.ports[0])).filter(|address| *address != own);
    let text = config::text(config::Facts {
        role: Role::Validator,
        api: format!("127.0.0.1:{}", draft.ports[1]),
        bootstrap: others.collect(),
        listen: own.clone(),
        mempool: plan.mempool,
    })?;
    let dir = &draft.place.dir;
    let keys = dir.join("keys");
    fs::create_dir_all(&keys).with_context(|| format!("cannot make {}", keys.display()))?;
    fs::write(dir.join("genesis.cbor"), genesis.encode()).context("cannot write the genesis document")?;
    write_key(&keys.join("node.key"), &draft.node)?;
    write_key(&keys.join("account.key"), &draft.account)?;
    write_key(&keys.join("validator.key"), &draft.validator)?;
    let secret = bytes(plan.seed, &draft.place.name, "role-secret");
    write_secret(&keys.join("role.secret"), &hex(&secret))?;
    fs::write(dir.join("config.toml"), text).context("cannot write a configuration")
}

/// Returns what a process used so far; nothing when it is gone.
pub(crate) fn usage(pid: u32) -> Usage {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The command may hold spaces and parentheses; fields begin after the last one. Fields 14 and 15 of the whole
    // line are the user and system time in ticks.
    let ticks: f64 = stat
        .rsplit(')')
        .next()
        .map(|rest| {
            rest.split_whitespace().skip(11).take(2).filter_map(|text| text.parse::<f64>().ok()).sum()
        })
        .unwrap_or(0.0);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak_kib: f64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0.0);
    Usage { cpu_s: ticks / TICKS_PER_S, peak_mb: peak_kib * 1_024.0 / 1e6 }
}

/// Linux tells processes' times in hundredths of a second on every common platform.
const TICKS_PER_S: f64 = 100.0;

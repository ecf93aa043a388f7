//! The network under test: folders, keys and genesis of every node, and the accounts that make the load.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_bytes::ByteBuf;
use tiltyard_proto::genesis::{Genesis, GenesisValidator, Grant, Params};
use tiltyard_proto::keys::{PublicKey, SecretKey};
use tiltyard_proto::units::{Blocks, MicroCredits, Stake, UnixMillis};

use super::links::Links;
use crate::run::Role;
use crate::run::layout::{hex, multiaddr, peer_id, write_key, write_secret};
use crate::run::plan::Seed;
use crate::run::process::{Node, Place};

/// Stake of each validator, in credits.
const STAKE: u64 = 10_000;
/// What each account of the load owns at first.
pub(super) const GRANT: u64 = 1_000_000_000;
/// Accounts that send.
pub(super) const SENDERS: usize = 4;
/// First port that is tried for a node.
const QUIET_FROM: u16 = 10_240;
/// Blocks over which absence counts: with faults of a few seconds nobody is away for half of them.
const ABSENCE_WINDOW: u64 = 1_200;

/// A laid-out network.
#[derive(Debug)]
pub(super) struct World {
    pub(super) nodes: Vec<Node>,
    pub(super) keys: Vec<PublicKey>,
    pub(super) links: Links,
    pub(super) genesis: Genesis,
    pub(super) senders: Vec<SecretKey>,
    /// Write token of each node's API.
    pub(super) tokens: Vec<String>,
    ports: Vec<(u16, u16)>,
}

/// Makes folders for `count` validators of one network.
pub(super) fn lay_out(seed: u64, count: usize, binary: &Path, dir: &Path) -> Result<World> {
    let seed = Seed(seed);
    let key = |name: &str| SecretKey::from_seed(&seed.bytes(&format!("chaos/key/{name}")));
    let free = quiet_ports(count * 2)?;
    let ports: Vec<(u16, u16)> =
        free.chunks_exact(2).filter_map(|pair| Some((*pair.first()?, *pair.last()?))).collect();
    let listen: Vec<u16> = ports.iter().map(|(listen, _)| *listen).collect();
    let links = Links::open(&listen)?;
    let senders: Vec<SecretKey> = (0..SENDERS).map(|n| key(&format!("sender-{n}"))).collect();
    let program = wrapper(binary, dir)?;
    let (mut nodes, mut keys, mut validators, mut tokens) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (at, (listen, api)) in ports.iter().enumerate() {
        let name = format!("node-{at}");
        let place = Place {
            dir: dir.join(&name),
            url: format!("http://127.0.0.1:{api}"),
            name: name.clone(),
            role: Role::Validator,
        };
        let folder = place.dir.join("keys");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let [node, validator, account] =
            ["node", "validator", "account"].map(|kind| key(&format!("{name}/{kind}")));
        write_key(&folder.join("node.key"), &node)?;
        write_key(&folder.join("validator.key"), &validator)?;
        write_key(&folder.join("account.key"), &account)?;
        write_secret(&folder.join("role.secret"), &hex(&seed.bytes(&format!("chaos/role/{name}"))))?;
        let token = hex(&seed.bytes(&format!("chaos/token/{name}")));
        write_secret(&place.dir.join("api.token"), &token)?;
        tokens.push(token);
        validators.push(GenesisValidator {
            key: validator.public(),
            stake: Stake::new(STAKE),
            peer: ByteBuf::from(peer_id(&node.public())),
            addresses: vec![multiaddr(*listen)],
            payout: account.public(),
        });
        keys.push(validator.public());
        nodes.push(Node::new(place, &program));
    }
    let genesis = genesis(validators, &senders)?;
    for node in &nodes {
        fs::write(node.place.dir.join("genesis.cbor"), genesis.encode())
            .context("cannot write the genesis")?;
    }
    let world = World { nodes, keys, links, genesis, senders, tokens, ports };
    (0..count).try_for_each(|at| world.configure(at, 0))?;
    Ok(world)
}

/// Finds ports that are free now and stay so while a node is down: below those that the system hands out by itself.
fn quiet_ports(count: usize) -> Result<Vec<u16>> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let end = range.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(32_768_u16);
    let ports = QUIET_FROM..end.max(QUIET_FROM + 1);
    // Runs side by side begin their search at different places.
    let skip = usize::try_from(std::process::id()).unwrap_or(0).wrapping_mul(61) % ports.len();
    let around = ports.clone().skip(skip).chain(ports);
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let found: Vec<u16> = around.filter(free).take(count).collect();
    anyhow::ensure!(found.len() == count, "only {} free ports below {end}", found.len());
    Ok(found)
}

/// Writes the program that the nodes run: `tiltyard`, told that a full disk is an error and not a reason to die.
///
/// A process that writes beyond its file-size limit is ended by SIGXFSZ, where a full disk would give it an error. An
/// ignored signal stays ignored through exec.
fn wrapper(binary: &Path, dir: &Path) -> Result<PathBuf> {
    let path = dir.join("tiltyard");
    let quoted = binary.display().to_string().replace('\'', r"'\''");
    fs::write(&path, format!("#!/bin/sh\ntrap '' XFSZ\nexec '{quoted}' \"$@\"\n"))
        .with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

fn genesis(mut validators: Vec<GenesisValidator>, senders: &[SecretKey]) -> Result<Genesis> {
    validators.sort_by_key(|validator| validator.key);
    let mut grants: Vec<Grant> = senders
        .iter()
        .map(|sender| Grant { account: sender.public(), amount: MicroCredits::new(GRANT) })
        .collect();
    grants.sort_by_key(|grant| grant.account);
    let params = Params {
        block_interval_ms: 400,
        propose_timeout_ms: 600,
        prevote_timeout_ms: 300,
        precommit_timeout_ms: 300,
        rebroadcast_ms: 1_000,
        absence_window: Blocks::new(ABSENCE_WINDOW),
        ..Params::default_for(validators.len() as u64)
    };
    let genesis = Genesis {
        version: Genesis::VERSION,
        name: "tiltyard-chaos".to_owned(),
        time: UnixMillis::new(1_767_225_600_000),
        params,
        validators,
        grants,
    };
    genesis.check().context("the genesis breaks a rule")?;
    Ok(genesis)
}

impl World {
    /// Writes a node's configuration: it knows its peers by the links alone, and its clock may be wrong.
    pub(super) fn configure(&self, at: usize, clock_offset_ms: i64) -> Result<()> {
        let (node, (listen, api)) = (self.node(at)?, self.ports.get(at).copied().unwrap_or_default());
        let peers: Vec<String> = (0..self.nodes.len())
            .filter(|to| *to != at)
            .map(|to| format!("\"{}\"", multiaddr(self.links.port(at, to))))
            .collect();
        let text = format!(
            "role = \"validator\"\n[network]\nlisten = [\"{}\"]\nbootstrap = [{}]\ndial_validators = false\n\
             [api]\nlisten = \"127.0.0.1:{api}\"\n[testing]\nclock_offset_ms = {clock_offset_ms}\n",
            multiaddr(listen),
            peers.join(", "),
        );
        fs::write(node.place.dir.join("config.toml"), text).context("cannot write a configuration")
    }

    pub(super) fn node(&self, at: usize) -> Result<&Node> {
        self.nodes.get(at).with_context(|| format!("there is no node {at}"))
    }

    pub(super) fn node_mut(&mut self, at: usize) -> Result<&mut Node> {
        self.nodes.get_mut(at).with_context(|| format!("there is no node {at}"))
    }

    pub(super) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.place.url.clone()).collect()
    }
}

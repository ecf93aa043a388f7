//! Lays out folders, keys, genesis and configuration of every node.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_bytes::ByteBuf;
use tiltyard_proto::genesis::{Genesis, GenesisValidator, Grant, Params};
use tiltyard_proto::keys::{Entropy, Keystore, Lock, PublicKey, SecretKey};
use tiltyard_proto::units::{Blocks, MicroCredits, Stake, UnixMillis};

use super::plan::{Kills, Seed};
use super::process::{Node, Place};
use super::{Options, Role};

/// A network that is laid out and not yet started.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) validators: Vec<Node>,
    pub(crate) validator_keys: Vec<PublicKey>,
    pub(crate) miners: Vec<Node>,
    pub(crate) miner_keys: Vec<PublicKey>,
    pub(crate) observer: Node,
    pub(crate) requester: Node,
    pub(crate) genesis_file: PathBuf,
    pub(crate) genesis_hash: String,
    pub(crate) binary: PathBuf,
    pub(crate) assets: PathBuf,
    pub(crate) kills: Kills,
    pub(crate) seed: Seed,
}

const STAKE: u64 = 10_000;
const MINER_CREDITS: u64 = 1_000;
const REQUESTER_CREDITS: u64 = 100_000;

struct Draft {
    place: Place,
    listen_port: u16,
    api_port: u16,
    node: SecretKey,
    validator: Option<SecretKey>,
    account: SecretKey,
    strategy: Option<String>,
}

/// Strategies of the miners, in order; the first is the recipe to beat.
const STRATEGIES: [&str; 3] = ["fixed:autotrain", "fixed:recipes/steady.toml", "search"];

/// Makes every folder.
pub(crate) fn lay_out(options: &Options, seed: Seed, dir: &Path) -> Result<Network> {
    let binary = find_binary(options.binary.as_deref())?;
    let assets = find_assets(options)?;
    let names = names(options, &assets);
    let ports = free_ports(names.len() * 2)?;
    let drafts: Vec<Draft> = names
        .into_iter()
        .zip(ports.chunks_exact(2))
        .map(|((name, role, strategy), ports)| Draft {
            place: Place {
                dir: dir.join(&name),
                url: format!("http://127.0.0.1:{}", ports[1]),
                name: name.clone(),
                role,
            },
            listen_port: ports[0],
            api_port: ports[1],
            node: key(seed, &name, "node"),
            validator: (role == Role::Validator).then(|| key(seed, &name, "validator")),
            account: key(seed, &name, "account"),
            strategy,
        })
        .collect();
    let genesis = genesis(options, &drafts)?;
    let genesis_file = dir.join("genesis.cbor");
    fs::write(&genesis_file, genesis.encode()).context("cannot write the genesis document")?;
    let bootstrap: Vec<String> = drafts
        .iter()
        .filter(|draft| draft.validator.is_some())
        .map(|draft| multiaddr(draft.listen_port))
        .collect();
    for draft in &drafts {
        write_folder(options, draft, &genesis, &bootstrap, seed)?;
    }
    assemble(drafts, options, seed, binary, assets, genesis_file, &genesis)
}

fn names(options: &Options, assets: &Path) -> Vec<(String, Role, Option<String>)> {
    let validators = (0..options.validators).map(|n| (format!("validator-{n}"), Role::Validator, None));
    let miners = (0..options.miners).map(|n| {
        let strategy = STRATEGIES.get(n % STRATEGIES.len()).copied().unwrap_or("search");
        let strategy = match strategy.strip_prefix("fixed:").filter(|file| file.ends_with(".toml")) {
            Some(file) => format!("fixed:{}", assets.join(file).display()),
            None => strategy.to_owned(),
        };
        (format!("miner-{n}"), Role::Miner, Some(strategy))
    });
    let others = ["observer", "requester"].map(|name| (name.to_owned(), Role::Observer, None));
    validators.chain(miners).chain(others).collect()
}

fn assemble(
    drafts: Vec<Draft>,
    options: &Options,
    seed: Seed,
    binary: PathBuf,
    assets: PathBuf,
    genesis_file: PathBuf,
    genesis: &Genesis,
) -> Result<Network> {
    let validator_keys =
        drafts.iter().filter_map(|draft| draft.validator.as_ref().map(SecretKey::public)).collect();
    let miner_keys = drafts
        .iter()
        .filter(|draft| draft.place.role == Role::Miner)
        .map(|draft| draft.account.public())
        .collect();
    let mut nodes: Vec<Node> = drafts.into_iter().map(|draft| Node::new(draft.place, &binary)).collect();
    let requester = nodes.pop().context("the requester's node was laid out last")?;
    let observer = nodes.pop().context("the observer was laid out before the requester")?;
    let miners = nodes.split_off(options.validators);
    Ok(Network {
        validators: nodes,
        validator_keys,
        miners,
        miner_keys,
        observer,
        requester,
        genesis_file,
        genesis_hash: genesis.hash().to_string(),
        binary,
        assets,
        kills: Kills::draw(seed, options.validators, options.miners),
        seed,
    })
}

pub(crate) fn key(seed: Seed, name: &str, kind: &str) -> SecretKey {
    SecretKey::from_seed(&seed.bytes(&format!("key/{name}/{kind}")))
}

/// The address of a loopback port.
pub(crate) fn multiaddr(port: u16) -> String {
    format!("/ip4/127.0.0.1/tcp/{port}")
}

/// Asks the operating system for ports that are free now.
pub(crate) fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind(("127.0.0.1", 0)).context("no free port on loopback"))
        .collect::<Result<_>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

fn genesis(options: &Options, drafts: &[Draft]) -> Result<Genesis> {
    let params = Params {
        block_interval_ms: 500,
        propose_timeout_ms: 600,
        prevote_timeout_ms: 300,
        precommit_timeout_ms: 300,
        rebroadcast_ms: 1_000,
        stamp_bits: 16,
        faucet: MicroCredits::new(10_000_000),
        ..Params::default_for(options.validators as u64)
    };
    let mut validators: Vec<GenesisValidator> = drafts
        .iter()
        .filter_map(|draft| draft.validator.as_ref().map(|validator| (draft, validator.public())))
        .map(|(draft, key)| GenesisValidator {
            key,
            stake: Stake::new(STAKE),
            peer: ByteBuf::from(peer_id(&draft.node.public())),
            addresses: vec![multiaddr(draft.listen_port)],
            payout: draft.account.public(),
        })
        .collect();
    validators.sort_by_key(|validator| validator.key);
    let mut grants: Vec<Grant> = drafts
        .iter()
        .map(|draft| {
            let credits = match (draft.place.role, draft.place.name.as_str()) {
                (Role::Miner, _) => MINER_CREDITS,
                (Role::Observer, "requester") => REQUESTER_CREDITS,
                (Role::Observer | Role::Validator, _) => 1,
            };
            Grant {
                account: draft.account.public(),
                amount: MicroCredits::new(credits.saturating_mul(1_000_000)),
            }
        })
        .collect();
    grants.sort_by_key(|grant| grant.account);
    let genesis = Genesis {
        version: Genesis::VERSION,
        name: "tiltyard-testnet".to_owned(),
        time: UnixMillis::new(1_767_225_600_000),
        params: Params { window_min: Blocks::new(8), ..params },
        validators,
        grants,
    };
    genesis.check().context("the testnet's genesis breaks a rule")?;
    Ok(genesis)
}

/// Returns the multihash bytes of a libp2p peer id: the identity multihash of the protobuf-encoded Ed25519 key.
pub(crate) fn peer_id(key: &PublicKey) -> Vec<u8> {
    // identity multihash, 36 bytes; protobuf: field 1 (key type) = 1 (Ed25519), field 2 (data) = 32 bytes.
    let head = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
    [&head[..], key.as_bytes()].concat()
}

fn write_folder(
    options: &Options,
    draft: &Draft,
    genesis: &Genesis,
    bootstrap: &[String],
    seed: Seed,
) -> Result<()> {
    let keys = draft.place.dir.join("keys");
    fs::create_dir_all(&keys).with_context(|| format!("cannot make {}", keys.display()))?;
    fs::write(draft.place.dir.join("genesis.cbor"), genesis.encode())?;
    let name = &draft.place.name;
    write_key(&keys.join("node.key"), &draft.node)?;
    write_key(&keys.join("account.key"), &draft.account)?;
    if let Some(validator) = &draft.validator {
        write_key(&keys.join("validator.key"), validator)?;
    }
    write_secret(&keys.join("role.secret"), &hex(&seed.bytes(&format!("role-secret/{name}"))))?;
    let config = super::layout_config::config(
        options,
        draft.place.role,
        &super::layout_config::Facts {
            listen: multiaddr(draft.listen_port),
            api: format!("127.0.0.1:{}", draft.api_port),
            bootstrap: bootstrap
                .iter()
                .filter(|address| **address != multiaddr(draft.listen_port))
                .cloned()
                .collect(),
            strategy: draft.strategy.clone(),
        },
    )?;
    fs::write(draft.place.dir.join("config.toml"), config).context("cannot write a configuration")
}

/// Writes a secret key without a password: for nodes that live as long as a test.
pub(crate) fn write_key(path: &Path, secret: &SecretKey) -> Result<()> {
    let entropy = Entropy { salt: [0; 16], nonce: [0; 24] };
    let store = Keystore::seal(secret, Lock::OpenForTestnet, &entropy)?;
    write_secret(path, store.as_text())
}

/// Writes a new file that only its owner may read.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes bytes in hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Finds the `tiltyard` program: the one that is named, or the one beside this program.
pub(crate) fn find_binary(named: Option<&Path>) -> Result<PathBuf> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()?.with_file_name("tiltyard"),
    };
    ensure!(path.is_file(), "{} is not there; build it with `cargo build --release`", path.display());
    Ok(fs::canonicalize(path)?)
}

fn find_assets(options: &Options) -> Result<PathBuf> {
    let path = match &options.assets {
        Some(path) => path.clone(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("assets"),
    };
    ensure!(
        path.join("base/model.safetensors").is_file(),
        "{} has no base/model.safetensors; name the folder with --assets",
        path.display()
    );
    Ok(fs::canonicalize(path)?)
}

impl Network {
    /// Every node, validators first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Node> {
        self.validators.iter().chain(&self.miners).chain([&self.observer, &self.requester])
    }

    /// Every node, validators first.
    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Node> {
        self.validators.iter_mut().chain(&mut self.miners).chain([&mut self.observer, &mut self.requester])
    }
}

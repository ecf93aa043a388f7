//! Measures a join by state snapshot: a chain with many accounts, a few nodes that serve it, and a new node.
//!
//! The chain is made by the ledger's own rules, block by block, into the folder of a node; the nodes are real
//! processes on loopback.

mod chain;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tiltyard_proto::keys::SecretKey;

use crate::run::Role;
use crate::run::client::Client;
use crate::run::layout::{free_ports, hex, multiaddr, write_key, write_secret};
use crate::run::process::{Node, Place};

/// How large the chain is, and who serves it.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Accounts in the state.
    #[arg(long, default_value_t = 1_000_000)]
    accounts: u64,
    /// Nodes that serve the snapshot: one validator, the others observers.
    #[arg(long, default_value_t = 2)]
    providers: usize,
    /// Folder for the nodes; one that holds a chain of an earlier run is used again. By default a temporary one.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The `tiltyard` program; by default beside this one.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Gives up after so many seconds.
    #[arg(long, default_value_t = 600)]
    patience_s: u64,
}

struct Home {
    node: Node,
    listen_port: u16,
}

/// Makes the chain where it is not there yet, joins it, prints one JSON object.
pub(crate) fn run(options: &Options) -> Result<bool> {
    ensure!(options.providers >= 1, "at least one node must serve the snapshot; give --providers 1 or more");
    let binary = match &options.binary {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("tiltyard"),
    };
    ensure!(binary.is_file(), "{} is not there; build it with `cargo build --release`", binary.display());
    let temporary = tempfile::tempdir().context("cannot make a temporary folder")?;
    let dir = options.dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    let made = chain::make(&dir.join("chain"), options.accounts)?;
    let ports = free_ports(options.providers.saturating_add(1).saturating_mul(2))?;
    let mut homes = Vec::new();
    for (at, ports) in ports.chunks_exact(2).enumerate() {
        let [listen_port, api_port] = ports else { continue };
        let joins = at == options.providers;
        let name = if joins { "joiner".to_owned() } else { format!("provider-{at}") };
        let role = if at == 0 { Role::Validator } else { Role::Observer };
        let place = Place { dir: dir.join(&name), url: format!("http://127.0.0.1:{api_port}"), name, role };
        let bootstrap: Vec<u16> = homes.iter().map(|home: &Home| home.listen_port).collect();
        lay_out(&place, &made, *listen_port, *api_port, &bootstrap, joins)?;
        if !joins {
            copy_folder(&dir.join("chain"), &place.dir.join("chain"))?;
        }
        homes.push(Home { node: Node::new(place, &binary), listen_port: *listen_port });
    }
    let Some(mut joiner) = homes.pop() else { return Ok(false) };
    measure(options, &mut homes, &mut joiner, &made)
}

fn measure(options: &Options, homes: &mut [Home], joiner: &mut Home, made: &chain::Made) -> Result<bool> {
    let client = Client::new();
    let patience = Duration::from_secs(options.patience_s);
    for home in homes.iter_mut() {
        home.node.start()?;
    }
    for home in homes.iter_mut() {
        wait(&mut home.node, patience, |node| {
            Ok(client.status(&node.place.url).is_ok_and(|status| status.height > made.height))
        })?;
    }
    let began = Instant::now();
    joiner.node.start()?;
    let url = homes.first().map(|home| home.node.place.url.clone()).unwrap_or_default();
    let mut shown = String::new();
    wait(&mut joiner.node, patience, |node| {
        let Ok(status) = client.get::<Value>(&node.place.url, "/v1/status") else { return Ok(false) };
        let progress = status.get("joining").map(Value::to_string).unwrap_or_default();
        if progress != shown && progress != "null" {
            eprintln!("{:>6.1} s  {progress}", began.elapsed().as_secs_f64());
            shown = progress;
        }
        let height = status.get("height").and_then(Value::as_u64).unwrap_or(0);
        let syncing = status.get("syncing").and_then(Value::as_bool).unwrap_or(true);
        Ok(!syncing && height >= made.height && height.saturating_add(1) >= client.status(&url)?.height)
    })?;
    let seconds = began.elapsed().as_secs_f64();
    let pid = joiner.node.pid().context("the joiner has a process")?;
    let (peak_kib, cpu_seconds) = (peak_kib(pid)?, cpu_seconds(pid)?);
    let height = client.status(&joiner.node.place.url)?.height;
    let (ours, theirs) =
        (client.block(&joiner.node.place.url, height)?.state_root, client.block(&url, height)?.state_root);
    let same = ours == theirs;
    println!(
        "{}",
        json!({
            "bench": "join", "accounts": options.accounts, "providers": options.providers,
            "snapshot_height": made.height, "snapshot_bytes": made.snapshot_bytes, "height": height,
            "seconds": seconds, "cpu_seconds": cpu_seconds, "peak_rss_mb": peak_kib / 1_024,
            "same_root": same, "within_bar": seconds <= 120.0 && peak_kib <= 512 * 1_024,
        })
    );
    for home in homes.iter_mut() {
        home.node.ask_to_stop();
    }
    joiner.node.ask_to_stop();
    for node in homes.iter_mut().map(|home| &mut home.node).chain([&mut joiner.node]) {
        node.reap(Duration::from_secs(20), &std::thread::sleep)?;
    }
    Ok(same)
}

fn wait(node: &mut Node, patience: Duration, mut done: impl FnMut(&Node) -> Result<bool>) -> Result<()> {
    let until = Instant::now() + patience;
    loop {
        node.check_alive()?;
        if done(node)? {
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "{} did not get there; its last words:\n{}",
            node.place.name,
            node.log_tail(15)
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn lay_out(
    place: &Place,
    made: &chain::Made,
    listen_port: u16,
    api_port: u16,
    bootstrap: &[u16],
    joins: bool,
) -> Result<()> {
    // A folder of an earlier run: the chain is kept apart and copied anew.
    if place.dir.exists() {
        fs::remove_dir_all(&place.dir).with_context(|| format!("cannot remove {}", place.dir.display()))?;
    }
    let keys = place.dir.join("keys");
    fs::create_dir_all(&keys).with_context(|| format!("cannot make {}", keys.display()))?;
    fs::write(place.dir.join("genesis.cbor"), made.genesis.encode())?;
    let secret = |kind: &str| {
        SecretKey::from_seed(blake3::hash(format!("join/{}/{kind}", place.name).as_bytes()).as_bytes())
    };
    write_key(&keys.join("node.key"), &secret("node"))?;
    write_key(&keys.join("account.key"), &secret("account"))?;
    if place.role == Role::Validator {
        write_key(&keys.join("validator.key"), &chain::validator())?;
    }
    write_secret(&keys.join("role.secret"), &hex(&[7; 32]))?;
    let peers: Vec<String> = bootstrap.iter().map(|port| multiaddr(*port)).collect();
    let config = json!({
        "role": place.role.word(),
        "sync": if joins { "snapshot" } else { "blocks" },
        "network": { "listen": [multiaddr(listen_port)], "bootstrap": peers },
        "api": { "listen": format!("127.0.0.1:{api_port}") },
        "storage": { "snapshot_every": 0, "keep_blocks": 0 },
    });
    let text = toml::to_string(&config).context("cannot write a configuration")?;
    fs::write(place.dir.join("config.toml"), text).context("cannot write a configuration")
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).with_context(|| format!("cannot copy {}", target.display()))?;
        }
    }
    Ok(())
}

/// Largest resident memory that a process ever had, in KiB.
fn peak_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the joiner is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM in /proc")?;
    line.split_whitespace().next().and_then(|word| word.parse().ok()).context("VmHWM is no number")
}

/// CPU time of a process, in seconds; the kernel counts hundredths.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the joiner is gone")?;
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |at: usize| fields.split_whitespace().nth(at).and_then(|word| word.parse::<f64>().ok());
    let (user, system) = (ticks(11).unwrap_or(0.0), ticks(12).unwrap_or(0.0));
    Ok((user + system) / 100.0)
}

//! Measures how soon a node on a long chain votes again after kill -9.
//!
//! The chain is made through the store itself, with real signatures and a real state, by a single validator, and kept
//! in a folder for the next run: in memory first, where syncing costs nothing, then moved to the disk. Then the real binary
//! is started on it, and killed with SIGKILL as soon as it has decided a block, again and again. The first start does not
//! count: a chain that was made has no vote journal, and a validator that does not know what it signed listens first.

mod chain;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

/// Bar of the project: from the start of the process to its next vote.
const BAR_MS: u64 = 5_000;
/// A file system in memory.
const MEMORY: &str = "/dev/shm";
/// Room that a block and a transfer take at most while the chain is made, in bytes.
const BLOCK_BYTES: u64 = 2 << 10;
const TRANSFER_BYTES: u64 = 6 << 10;
/// A node that has not decided a block by then never will.
const PATIENCE: Duration = Duration::from_secs(120);

/// Options of the measurement.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Keeps the chain here and uses it again; a temporary folder unless given.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Blocks of the chain.
    #[arg(long, default_value_t = 100_000)]
    blocks: u64,
    /// Every so many blocks one is full.
    #[arg(long, default_value_t = 100)]
    full_every: u64,
    /// Transfers in a full block.
    #[arg(long, default_value_t = 2_000)]
    transfers: u64,
    /// How often the node is killed and started again.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
}

/// One start of the node.
#[derive(Debug, Clone, Copy)]
struct Start {
    answers_ms: u64,
    votes_ms: u64,
}

/// A started node; killed when dropped.
#[derive(Debug)]
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the measurement; true when the bar is met.
pub(crate) fn run(options: &Options) -> Result<bool> {
    ensure!(options.rounds >= 1 && options.full_every >= 1, "--rounds and --full-every are at least 1");
    let temporary = tempfile::tempdir().context("cannot make a temporary folder")?;
    let folder = options.folder.clone().unwrap_or_else(|| temporary.path().to_owned());
    let began = Instant::now();
    let plan =
        chain::Plan { blocks: options.blocks, full_every: options.full_every, transfers: options.transfers };
    let made = make(&folder, &plan)?;
    let made_s = began.elapsed().as_secs();
    let url = configure(&folder)?;
    let (first, mut tip) = start(&folder, &url, made.tip)?;
    eprintln!("first start, without a vote journal: decides after {} ms", first.votes_ms);
    let mut starts = Vec::new();
    for _ in 0..options.rounds {
        let (start, reached) = start(&folder, &url, tip)?;
        starts.push(start);
        tip = reached;
    }
    report(options, &folder, &starts, made_s);
    Ok(starts.iter().all(|start| start.votes_ms <= BAR_MS))
}

/// Makes the chain in memory where there is room and none is there yet, and moves it to its folder.
fn make(folder: &Path, plan: &chain::Plan) -> Result<chain::Made> {
    let shm = Path::new(MEMORY);
    let bytes = plan.blocks * BLOCK_BYTES + plan.blocks / plan.full_every * plan.transfers * TRANSFER_BYTES;
    let room = rustix::fs::statvfs(shm).map_or(0, |found| found.f_bavail * found.f_frsize);
    if folder.join("chain").exists() || room < bytes {
        return chain::make(folder, plan);
    }
    let scratch = tempfile::tempdir_in(shm).with_context(|| format!("cannot make a folder in {MEMORY}"))?;
    let made = chain::make(scratch.path(), plan)?;
    copy(scratch.path(), folder)?;
    rustix::fs::sync();
    Ok(made)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let (from, to) = (entry?.path(), to);
        let to = to.join(from.file_name().context("a folder's entry has a name")?);
        if from.is_dir() {
            copy(&from, &to)?;
        } else {
            // Permissions too: a node refuses a key file that others can read.
            fs::copy(&from, &to).with_context(|| format!("cannot copy to {}", to.display()))?;
        }
    }
    Ok(())
}

fn configure(folder: &Path) -> Result<String> {
    let free = || -> Result<u16> { Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port()) };
    let (peers, api) = (free()?, free()?);
    let text = format!(
        "role = \"validator\"\n[network]\nlisten = [\"/ip4/127.0.0.1/tcp/{peers}\"]\n[api]\nlisten = \"127.0.0.1:{api}\"\n"
    );
    fs::write(folder.join("config.toml"), text).context("cannot write a configuration")?;
    Ok(format!("http://127.0.0.1:{api}"))
}

fn height(url: &str) -> Option<u64> {
    let status: Value = ureq::get(format!("{url}/v1/status")).call().ok()?.body_mut().read_json().ok()?;
    status["height"].as_u64()
}

/// Starts the node, waits until it has decided a block above `tip`, and kills it.
fn start(folder: &Path, url: &str, tip: u64) -> Result<(Start, u64)> {
    let binary = std::env::current_exe()?.with_file_name("tiltyard");
    let log = fs::File::create(folder.join("node.log")).context("cannot make a log file")?;
    let began = Instant::now();
    let child = Command::new(&binary)
        .arg("run")
        .arg("--dir")
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {}; build it first", binary.display()))?;
    let mut running = Running(child);
    let ms = || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut answers_ms = None;
    loop {
        if let Some(height) = height(url) {
            let answers_ms = *answers_ms.get_or_insert_with(ms);
            if height > tip {
                return Ok((Start { answers_ms, votes_ms: ms() }, height));
            }
        }
        let ended = running.0.try_wait().context("cannot ask for the process's state")?;
        if ended.is_some() || began.elapsed() > PATIENCE {
            let log = fs::read_to_string(folder.join("node.log")).unwrap_or_default();
            bail!("the node decides nothing above block {tip}:\n{log}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn folder_bytes(folder: &Path) -> u64 {
    let Ok(list) = fs::read_dir(folder) else { return 0 };
    let sizes = list.flatten().map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => folder_bytes(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

fn report(options: &Options, folder: &Path, starts: &[Start], made_s: u64) {
    let log_mib = folder_bytes(&folder.join("chain/log")) >> 20;
    let state_mib = folder_bytes(&folder.join("chain/state")) >> 20;
    let Options { blocks, full_every, transfers, .. } = options;
    if options.json {
        let rounds: Vec<Value> = starts
            .iter()
            .map(|start| json!({ "answers_ms": start.answers_ms, "decides_ms": start.votes_ms }))
            .collect();
        println!(
            "{}",
            json!({
                "blocks": blocks, "full_every": full_every, "transfers": transfers, "made_s": made_s,
                "log_mib": log_mib, "state_mib": state_mib, "bar_ms": BAR_MS, "starts": rounds,
            })
        );
        return;
    }
    println!(
        "{blocks} blocks, 1 in {full_every} with {transfers} transfers: log {log_mib} MiB, state {state_mib} MiB"
    );
    println!("the chain was made in {made_s} s");
    for start in starts {
        println!(
            "after kill -9: answers after {} ms, next block decided after {} ms",
            start.answers_ms, start.votes_ms
        );
    }
    println!("bar: {BAR_MS} ms to the next vote");
}

//! The whole market once, on this machine: post, train, commit, reveal, judge, pay, prove.

pub(crate) mod client;
pub(crate) mod layout;
mod layout_config;
pub(crate) mod plan;
pub(crate) mod process;
mod race;
mod report;
mod scenario;
mod watch;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use anyhow::{Context, Result, ensure};
use clap::Args;

use plan::Seed;

/// Options of a run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Writes the report as JSON to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Number of validators; at least 4, so that one can be killed.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) validators: usize,
    /// Number of miners, each with another strategy.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) miners: usize,
    /// Number of tasks posted at once.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) tasks: usize,
    /// Fixes keys, data splits and kill times; not who wins.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Keeps the nodes' folders here instead of removing them.
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
    /// The `tiltyard` program; by default the one beside this program.
    #[arg(long, value_name = "FILE")]
    pub(crate) binary: Option<PathBuf>,
    /// Base model and data; by default the ones that ship with the source.
    #[arg(long, value_name = "DIR")]
    pub(crate) assets: Option<PathBuf>,
    /// Another base model than the one that ships: its folder. Tasks are made small, and their windows follow
    /// from what `task check` reckons.
    #[arg(long, value_name = "DIR")]
    pub(crate) base: Option<PathBuf>,
    /// Tokens each miner may train on, for each task; by default 60,000, or 4,000 with another base.
    #[arg(long, value_name = "N")]
    pub(crate) tokens: Option<u64>,
}

impl Options {
    /// Tokens each miner may train on, for each task.
    pub(crate) fn tokens(&self) -> u64 {
        self.tokens.unwrap_or(if self.base.is_some() { 4_000 } else { 60_000 })
    }
}

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Validator,
    Miner,
    /// Follows the chain; the requester's node is one too.
    Observer,
}

impl Role {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Validator => "validator",
            Self::Miner => "miner",
            Self::Observer => "observer",
        }
    }
}

/// Runs the market. Returns whether everything holds.
pub(crate) fn run(options: &Options) -> Result<bool> {
    ensure!(
        (4..=32).contains(&options.validators),
        "{} validators: use 4 to 32, so that one can be killed",
        options.validators
    );
    ensure!((1..=16).contains(&options.miners), "{} miners: use 1 to 16", options.miners);
    ensure!((1..=8).contains(&options.tasks), "{} tasks: use 1 to 8", options.tasks);
    let interrupted = interrupts()?;
    let scratch = tempfile::tempdir().context("cannot make a folder for the nodes")?;
    let dir = match &options.keep {
        Some(dir) => new_folder(dir)?,
        None => scratch.path().to_owned(),
    };
    let network = layout::lay_out(options, Seed(options.seed), &dir)?;
    let report = scenario::play(options, network, &dir, &interrupted)?;
    if let Some(path) = &options.report {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let failures = report.failures();
    for failure in &failures {
        println!("FAILED: {failure}");
    }
    if failures.is_empty() {
        println!(
            "everything holds: roots equal, supply conserved, receipt verified from the genesis hash alone"
        );
    }
    Ok(failures.is_empty())
}

/// Makes a folder that is to be kept; refuses one that holds something.
pub(crate) fn new_folder(dir: &Path) -> Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    ensure!(
        dir.read_dir().is_ok_and(|mut entries| entries.next().is_none()),
        "{} is not empty; name a new folder",
        dir.display()
    );
    Ok(fs::canonicalize(dir)?)
}

/// Returns a channel that speaks when the user presses Ctrl-C or asks the program to end.
pub(crate) fn interrupts() -> Result<mpsc::Receiver<()>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    ctrlc::set_handler(move || {
        // A full channel means that the first press is being handled already.
        let _ = sender.try_send(());
    })
    .context("cannot watch for Ctrl-C")?;
    Ok(receiver)
}

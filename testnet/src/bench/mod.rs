//! Benchmarks on real processes. Each prints what it measured beside the bar it is held to, and can write it as JSON.
//!
//! A missed bar is shown and is no failure of the program: figures depend on the machine. What must hold on every
//! machine (all nodes agree, nothing acknowledged is lost) is a failure, and the exit code says so.

mod accounts;
mod api;
mod bare;
mod config;
mod events;
mod heights;
mod latency;
mod load;
mod machine;
mod market;
mod network;
mod plot;
mod prepared;
mod qa;
mod render;
mod report;
mod transfers;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use report::Report;

/// Options of the benchmarks.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// As many heights a second as four validators manage, beside bare loops.
    Heights(heights::Options),
    /// 5 blocks a second under load: from the proposal to the durable decision at every validator.
    Latency(latency::Options),
    /// Sustained transfers over four processes, none lost.
    Transfers(transfers::Options),
    /// Blocks paced at 1 s, steady load: submission to final, and memory.
    Qa(qa::Options),
    /// The market against recipes and tuners on real tasks, under a token clock.
    Market(Box<market::Options>),
    /// Makes the table and the plot of BENCH.md from a folder of results.
    Render(render::Options),
}

/// What every benchmark takes.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Prints the result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Writes the result as JSON to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// A few seconds only: shows that it works, measures nothing.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Fixes keys and transactions.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Keeps the nodes' folders here instead of removing them.
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
    /// The `tiltyard` program; by default the one beside this program.
    #[arg(long, value_name = "FILE")]
    pub(crate) binary: Option<PathBuf>,
}

/// Runs a benchmark. Returns whether everything holds that must hold on every machine.
pub(crate) fn run(options: &Options) -> Result<bool> {
    match &options.bench {
        Bench::Latency(options) => finish(&options.common, latency::run(options)?),
        Bench::Heights(options) => finish(&options.common, heights::run(options)?),
        Bench::Transfers(options) => finish(&options.common, transfers::run(options)?),
        Bench::Qa(options) => finish(&options.common, qa::run(options)?),
        Bench::Market(options) => market::run(options),
        Bench::Render(options) => render::run(options),
    }
}

/// Shows and writes a result.
fn finish(common: &Common, report: Report) -> Result<bool> {
    let text = serde_json::to_string_pretty(&report)? + "\n";
    if let Some(path) = &common.out {
        fs::write(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if common.json {
        print!("{text}");
    } else {
        report.show();
    }
    Ok(report.failures.is_empty())
}

impl Common {
    /// Makes the folder for the nodes; what is returned beside it removes it when dropped.
    fn folder(&self) -> Result<(PathBuf, tempfile::TempDir)> {
        let scratch = tempfile::tempdir().context("cannot make a folder for the nodes")?;
        let dir = match &self.keep {
            Some(dir) => crate::run::new_folder(dir)?,
            None => scratch.path().to_owned(),
        };
        Ok((dir, scratch))
    }
}

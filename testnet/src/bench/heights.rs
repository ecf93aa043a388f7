//! 4 validators as fast as they can: heights a second with 100 transactions in each block.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use tiltyard_proto::genesis::Params;

use super::accounts::{self, Purses, Shape};
use super::bare::{self, Burden, Pace};
use super::config::Mempool;
use super::events::Listeners;
use super::network::{Network, Plan, inside};
use super::report::{Bar, Report};
use super::{load, prepared};
use crate::run::layout::find_binary;

const VALIDATORS: usize = 4;
const TRANSACTIONS: u32 = 100;
/// Transactions that wait at a time: some blocks' worth, so that every block is full.
const WAITING: u64 = 1_200;
/// A block with this share of the most that it may hold counts as full.
const FULL_SHARE: f64 = 0.9;

/// Options of the benchmark.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: super::Common,
    /// How long each loop runs.
    #[arg(long, value_name = "N", default_value_t = 10)]
    seconds: u64,
    /// Blocks that the bare loops decide.
    #[arg(long, value_name = "N", default_value_t = 500)]
    bare_heights: u64,
}

/// Measures.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let common = &options.common;
    let seconds = if common.quick { 3 } else { options.seconds };
    ensure!((1..=15).contains(&seconds), "{seconds} s: use 1 to 15, transactions are signed for 900 blocks");
    let mut report = Report::new("heights", common.quick);
    let heights = if common.quick { 20 } else { options.bare_heights };
    ensure!((10..=2_000).contains(&heights), "{heights} bare heights: use 10 to 2000");
    let (bare, loaded) = bare_loops(options, heights)?;
    let rate = real(options, seconds, &mut report)?;
    report.fact("bare loop", bare.heights_per_s, "heights/s");
    report.fact("bare loop, processor time a height", bare.cpu_ms_per_height, "ms");
    report.fact("loaded bare loop", loaded.heights_per_s, "heights/s");
    report.fact("loaded bare loop, processor time a height", loaded.cpu_ms_per_height, "ms");
    report.held("real processes / bare loop", rate / bare.heights_per_s, "×", Bar::AtLeast(0.2));
    report.held("real processes / loaded bare loop", rate / loaded.heights_per_s, "×", Bar::AtLeast(0.6));
    report.note(format!(
        "bare loop: four Malachite cores in one process over libp2p (this project's own network crate) on loopback \
         TCP, vote journal synced, {heights} blocks made ahead of time; loaded: every signature of every block is \
         verified by every validator and every block is committed to the store (log synced, state index written behind)"
    ));
    report.note(
        "real processes: four, each with mempool, transaction gossip, execution, state tree, HTTP API and events; the \
         load generator runs on the same cores",
    );
    Ok(report)
}

/// Runs the two loops to compare with, one after the other, over the same blocks.
fn bare_loops(options: &Options, heights: u64) -> Result<(Pace, Pace)> {
    let accounts = accounts::keys(options.common.seed, accounts::ACCOUNTS);
    let (keys, genesis) = inside(options.common.seed, VALIDATORS, params(), &accounts)?;
    let mut purses = Purses::new(&accounts, &genesis, Shape::Transfer);
    let chain = Arc::new(prepared::chain(&genesis, &mut purses, heights, TRANSACTIONS)?);
    let scratch = tempfile::tempdir()?;
    let run = |name: &str, burden| bare::run(&genesis, &keys, &chain, &scratch.path().join(name), burden);
    Ok((run("bare", Burden::None)?, run("loaded", Burden::SignaturesAndStore)?))
}

fn params() -> Params {
    Params {
        block_interval_ms: 0,
        block_transactions_max: TRANSACTIONS,
        ..Params::default_for(VALIDATORS as u64)
    }
}

/// Runs real processes; returns heights a second.
fn real(options: &Options, seconds: u64, report: &mut Report) -> Result<f64> {
    let common = &options.common;
    let (dir, _scratch) = common.folder()?;
    let keys = accounts::keys(common.seed, accounts::ACCOUNTS);
    let plan = Plan {
        validators: VALIDATORS,
        seed: common.seed,
        params: params(),
        accounts: &keys,
        binary: find_binary(common.binary.as_deref())?,
        mempool: Mempool { kb_max: 65_536, per_sender_max: 256 },
    };
    let mut network = Network::start(&plan, &dir)?;
    let mut purses = Purses::new(&keys, &network.genesis, Shape::Transfer);
    let listeners = Listeners::start(&network.apis);
    let begun = network.heights()?.into_iter().max().unwrap_or(0);
    // More than are ever decided: the closed loop stops in time.
    let hands = load::sign(&mut purses, VALIDATORS, (seconds * 80 * u64::from(TRANSACTIONS)) as usize, begun);
    let stop = Arc::new(AtomicBool::new(false));
    let clock = {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            thread::sleep(Duration::from_secs(seconds));
            stop.store(true, Ordering::Relaxed);
        })
    };
    let (before, started) = (network.usage(), Instant::now());
    let outcome = load::keep_waiting(&network.apis, hands, &listeners.heard, WAITING, &stop)?;
    let (after, elapsed) = (network.usage(), started.elapsed());
    let heard = listeners.heard.all();
    // Whoever waits for the clock waits no longer than it runs.
    let _ = clock.join();
    let ledger = load::settle(&mut network, 1, &outcome, report)?;
    listeners.stop()?;
    network.stop()?;

    let full = |count: u64| count as f64 >= f64::from(TRANSACTIONS) * FULL_SHARE;
    let fulls: Vec<_> = heard[0].values().filter(|block| full(block.transactions)).collect();
    let (Some(first), Some(last)) = (fulls.first(), fulls.last()) else {
        anyhow::bail!("no block was full; the load is too small for this machine");
    };
    let span: Vec<_> = heard[0].range(first.height..=last.height).map(|(_, block)| block).collect();
    let rate = (span.len() as f64 - 1.0) / ((last.heard_us - first.heard_us) as f64 / 1e6);
    let share = fulls.len() as f64 / span.len() as f64;
    let cpu: f64 = after.iter().zip(&before).map(|(after, before)| after.cpu_s - before.cpu_s).sum();
    report.fact("real processes", rate, "heights/s");
    report.fact("real processes, full blocks", rate * share, "heights/s");
    report.fact("blocks that needed a second round", ledger.later_rounds as f64, "");
    report.fact("processor time of the four nodes", cpu / elapsed.as_secs_f64(), "cores");
    report.fact("processor time of the four nodes a height", cpu / span.len() as f64 * 1e3, "ms");
    Ok(rate * share)
}

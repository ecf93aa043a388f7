//! Sustained transfers: 4 processes, batched gossip, and not one acknowledged transaction lost.

use anyhow::{Result, ensure};
use clap::Args;
use tiltyard_proto::genesis::Params;

use super::accounts::{self, Purses, Shape};
use super::config::Mempool;
use super::events::Listeners;
use super::load;
use super::network::{Network, Plan};
use super::report::{Bar, Report, percentile};
use crate::run::layout::find_binary;

const VALIDATORS: usize = 4;
const INTERVAL_MS: u32 = 500;

/// Options of the benchmark.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: super::Common,
    /// How long to hand transactions in.
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
    /// Transactions handed in a second, over all nodes.
    #[arg(long, value_name = "N", default_value_t = 1_600)]
    rate: u64,
}

/// Measures.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let common = &options.common;
    let (seconds, rate) = if common.quick { (3, 200) } else { (options.seconds, options.rate) };
    ensure!(
        (1..=300).contains(&seconds),
        "{seconds} s: use 1 to 300, transactions are signed for 900 blocks"
    );
    ensure!((4..=20_000).contains(&rate), "{rate} transactions a second: use 4 to 20000");
    let mut report = Report::new("transfers", common.quick);
    let (dir, _scratch) = common.folder()?;
    let keys = accounts::keys(common.seed, accounts::ACCOUNTS);
    let plan = Plan {
        validators: VALIDATORS,
        seed: common.seed,
        params: Params { block_interval_ms: INTERVAL_MS, ..Params::default_for(VALIDATORS as u64) },
        accounts: &keys,
        binary: find_binary(common.binary.as_deref())?,
        mempool: Mempool { kb_max: 65_536, per_sender_max: 256 },
    };
    let mut network = Network::start(&plan, &dir)?;
    let mut purses = Purses::new(&keys, &network.genesis, Shape::Transfer);
    let begun = network.heights()?.into_iter().max().unwrap_or(0);
    let hands = load::sign(&mut purses, VALIDATORS, (rate * seconds) as usize, begun);
    let bytes = hands.iter().flatten().next().map_or(0, |signed| signed.encode().len());
    let listeners = Listeners::start(&network.apis);
    let before = network.usage();
    let outcome = load::at_rate(&network.apis, hands, rate as f64 / VALIDATORS as f64)?;
    let after = network.usage();
    let while_handed_in = listeners.heard.all();
    let ledger = load::settle(&mut network, 1, &outcome, &mut report)?;
    let heard = listeners.heard.all();
    listeners.stop()?;
    network.stop()?;

    // Sustained: decided while transactions were handed in, from the first block heard to the last.
    let window = while_handed_in[0].values().collect::<Vec<_>>();
    let (Some(first), Some(last)) = (window.first(), window.last()) else {
        anyhow::bail!("the first node told of no block");
    };
    let decided: u64 = window.iter().skip(1).map(|block| block.transactions).sum();
    let span_s = (last.heard_us - first.heard_us) as f64 / 1e6;
    report.fact("bytes a transaction", bytes as f64, "B");
    report.fact("offered", rate as f64, "tx/s");
    report.held("decided while handed in", decided as f64 / span_s, "tx/s", Bar::AtLeast(1_500.0));
    let cpu: f64 = after.iter().zip(&before).map(|(after, before)| after.cpu_s - before.cpu_s).sum();
    let per = cpu / decided.max(1) as f64 / VALIDATORS as f64;
    report.fact("processor time a transaction and node", per * 1e6, "µs");
    report.fact("processor time of all nodes", cpu / seconds as f64, "cores");
    report.fact("blocks that needed a second round", ledger.later_rounds as f64, "");
    let mut waits = load::waits_ms(&outcome, &ledger, &heard);
    waits.sort_by(f64::total_cmp);
    report.fact("submission to durable at the same node, p50", percentile(&waits, 0.5), "ms");
    report.fact("submission to durable at the same node, p95", percentile(&waits, 0.95), "ms");
    report.fact("largest resident memory of a node", load::peak_mb(&after), "MB");
    report.note(format!("blocks every {INTERVAL_MS} ms; the load generator runs on the same cores"));
    Ok(report)
}

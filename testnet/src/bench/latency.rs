//! 4 validators at 5 blocks a second, 100 transactions each: from the proposal to the durable decision everywhere.

use anyhow::Result;
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
const INTERVAL_MS: u32 = 200;
const TRANSACTIONS_PER_BLOCK: u32 = 100;

/// Options of the benchmark.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: super::Common,
    /// How long to measure.
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
}

/// Measures.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let common = &options.common;
    let seconds = if common.quick { 3 } else { options.seconds };
    let mut report = Report::new("latency", common.quick);
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
    let begun = network.heights()?.into_iter().max().unwrap_or(0);
    let rate = f64::from(TRANSACTIONS_PER_BLOCK) * 1_000.0 / f64::from(INTERVAL_MS);
    let count = (rate * seconds as f64) as usize;
    let hands = load::sign(&mut purses, VALIDATORS, count, begun);
    let listeners = Listeners::start(&network.apis);
    let outcome = load::at_rate(&network.apis, hands, rate / VALIDATORS as f64)?;
    let heard = listeners.heard.all();
    let ledger = load::settle(&mut network, 1, &outcome, &mut report)?;
    listeners.stop()?;
    network.stop()?;

    let (mut each, mut slowest) = (Vec::new(), Vec::new());
    let (Some(first), Some(last)) = (
        heard.iter().filter_map(|node| node.keys().next()).max().copied(),
        heard.iter().filter_map(|node| node.keys().next_back()).min().copied(),
    ) else {
        anyhow::bail!("a node told of no block");
    };
    for height in first..=last {
        let times: Vec<f64> = heard
            .iter()
            .filter_map(|node| node.get(&height))
            .map(|decided| decided.heard_us as f64 / 1e3 - decided.time_ms as f64)
            .collect();
        slowest.extend(times.iter().copied().max_by(f64::total_cmp));
        each.extend(times);
    }
    each.sort_by(f64::total_cmp);
    slowest.sort_by(f64::total_cmp);
    let blocks = last - first + 1;
    report.fact("blocks", blocks as f64, "");
    report.fact("blocks that needed a second round", ledger.later_rounds as f64, "");
    let transactions: usize = (first..=last).filter_map(|height| ledger.counts.get(&height)).sum();
    report.fact("transactions a block, mean", transactions as f64 / blocks as f64, "");
    report.held("proposal to durable, every validator, p50", percentile(&each, 0.5), "ms", Bar::AtMost(30.0));
    report.held(
        "proposal to durable, every validator, p99",
        percentile(&each, 0.99),
        "ms",
        Bar::AtMost(100.0),
    );
    report.fact("proposal to durable at the slowest validator, p50", percentile(&slowest, 0.5), "ms");
    report.fact("proposal to durable at the slowest validator, p99", percentile(&slowest, 0.99), "ms");
    report.note(
        "from the builder's clock in the header to the moment this program heard of the durable block over the \
         node's event stream, so delivery of the event is counted too; 1 ms is the header's resolution",
    );
    Ok(report)
}

fn params() -> Params {
    Params {
        block_interval_ms: INTERVAL_MS,
        propose_timeout_ms: 1_000,
        prevote_timeout_ms: 500,
        precommit_timeout_ms: 500,
        rebroadcast_ms: 1_000,
        ..Params::default_for(VALIDATORS as u64)
    }
}

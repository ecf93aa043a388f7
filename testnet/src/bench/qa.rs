//! The shape of CometBFT's own QA: blocks paced at 1 s, steady load for minutes, latency from submission to final.

use std::path::Path;

use anyhow::{Result, ensure};
use clap::Args;
use tiltyard_proto::genesis::Params;
use tiltyard_proto::keys::SecretKey;

use super::accounts::{self, Purses, Shape};
use super::config::Mempool;
use super::events::Listeners;
use super::load;
use super::network::{Network, Plan};
use super::report::{Bar, Curve, Point, Report, percentile};
use crate::run::layout::find_binary;

const INTERVAL_MS: u32 = 1_000;

/// Options of the benchmark.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: super::Common,
    /// How long to hand transactions in at each load that is held to a bar.
    #[arg(long, value_name = "N", default_value_t = 300)]
    seconds: u64,
    /// How long at each other load of the curve; 0 leaves the curve out.
    #[arg(long, value_name = "N", default_value_t = 30)]
    curve_seconds: u64,
}

/// One load on one network.
#[derive(Debug, Clone, Copy)]
struct Load {
    validators: usize,
    rate: u64,
    seconds: u64,
    /// Held to the bars.
    held: bool,
}

/// Validators, the load that is held to the bars, and the other loads of the curve.
const NETWORKS: [(usize, u64, &[u64]); 2] =
    [(7, 400, &[50, 100, 200, 600, 800]), (16, 100, &[25, 50, 200, 300])];

/// Measures.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let common = &options.common;
    ensure!(
        options.seconds <= 850,
        "{} s: use at most 850, transactions are signed for 900 blocks",
        options.seconds
    );
    let mut report = Report::new("qa", common.quick);
    let keys = accounts::keys(common.seed, accounts::ACCOUNTS);
    let (dir, _scratch) = common.folder()?;
    for (validators, rate, others) in NETWORKS {
        let seconds = if common.quick { 5 } else { options.seconds };
        let mut points = vec![measure(
            options,
            &keys,
            Load { validators, rate, seconds, held: true },
            &dir.join(format!("{validators}-{rate}")),
            &mut report,
        )?];
        if !common.quick && options.curve_seconds > 0 {
            for rate in others {
                let load = Load { validators, rate: *rate, seconds: options.curve_seconds, held: false };
                let dir = dir.join(format!("{validators}-{rate}"));
                points.push(measure(options, &keys, load, &dir, &mut report)?);
            }
        }
        points.sort_by(|a, b| a.offered_per_s.total_cmp(&b.offered_per_s));
        report.curves.push(Curve { name: format!("{validators} validators"), points });
    }
    report.note(
        "a transaction of 1 KiB is `SetValidator` with eight long addresses, from an account that is no validator: \
         signed, gossiped, verified, ordered and paid for like any other; its action breaks a rule, so it writes one \
         account where a transfer writes two",
    );
    report.note(
        "counted from the moment a transaction was due to be handed in to the moment this program heard, over the \
         event stream of the node that took it, that its block is durable there",
    );
    report.note(
        "blocks every 1000 ms: a transaction waits half of that on average before anything happens to it",
    );
    Ok(report)
}

fn measure(
    options: &Options,
    keys: &[SecretKey],
    load: Load,
    dir: &Path,
    report: &mut Report,
) -> Result<Point> {
    let plan = Plan {
        validators: load.validators,
        seed: options.common.seed,
        params: Params { block_interval_ms: INTERVAL_MS, ..Params::default_for(load.validators as u64) },
        accounts: keys,
        binary: find_binary(options.common.binary.as_deref())?,
        mempool: Mempool { kb_max: 16_384, per_sender_max: 256 },
    };
    let mut network = Network::start(&plan, dir)?;
    let mut purses = Purses::new(keys, &network.genesis, Shape::Kibibyte);
    let begun = network.heights()?.into_iter().max().unwrap_or(0);
    let hands = load::sign(&mut purses, load.validators, (load.rate * load.seconds) as usize, begun);
    let listeners = Listeners::start(&network.apis);
    let before = network.usage();
    let outcome = load::at_rate(&network.apis, hands, load.rate as f64 / load.validators as f64)?;
    let mut of_load = Report::new("", true);
    let ledger = load::settle(&mut network, 1, &outcome, &mut of_load)?;
    let after = network.usage();
    let heard = listeners.heard.all();
    listeners.stop()?;
    network.stop()?;

    let name = format!("{} validators, {} tx/s", load.validators, load.rate);
    report.failures.extend(of_load.failures.iter().map(|failure| format!("{name}: {failure}")));
    let mut waits = load::waits_ms(&outcome, &ledger, &heard);
    waits.sort_by(f64::total_cmp);
    let point = Point {
        offered_per_s: load.rate as f64,
        decided_per_s: waits.len() as f64 / load.seconds as f64,
        p50_ms: percentile(&waits, 0.5),
        p95_ms: percentile(&waits, 0.95),
        p99_ms: percentile(&waits, 0.99),
    };
    if load.held {
        report.held(format!("{name}: submission to final, p50"), point.p50_ms, "ms", Bar::AtMost(1_000.0));
        report.held(format!("{name}: submission to final, p95"), point.p95_ms, "ms", Bar::AtMost(2_000.0));
        report.fact(format!("{name}: submission to final, p99"), point.p99_ms, "ms");
        report.held(
            format!("{name}: largest resident memory of a node"),
            load::peak_mb(&after),
            "MB",
            Bar::AtMost(150.0),
        );
        let cpu: f64 = after.iter().zip(&before).map(|(after, before)| after.cpu_s - before.cpu_s).sum();
        report.fact(format!("{name}: processor time of all nodes"), cpu / load.seconds as f64, "cores");
        for row in of_load.rows {
            report.fact(format!("{name}: {}", row.what), row.value, &row.unit);
        }
    }
    Ok(point)
}

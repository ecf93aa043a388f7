//! Floods a real network with junk transactions, and says what honest ones feel of it and what the nodes weigh.
//!
//! Baseline and flood are measured in one run, so that a slow machine is slow for both.

mod flood;
mod honest;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::json;

use crate::run::layout::{self, Network};
use crate::run::plan::Seed;
use crate::run::process::weigh;

/// Options of a flood.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Junk transactions per second.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) rate: u64,
    /// Seconds of the flood; the baseline before it takes half as many.
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub(crate) seconds: u64,
    /// The `tiltyard` program; by default the one beside this program.
    #[arg(long, value_name = "FILE")]
    pub(crate) binary: Option<std::path::PathBuf>,
    /// Prints one JSON object instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Memory counts as flat when it grows by less than this share between the flood's first quarter and its end.
const GROWTH_MAX: f64 = 1.2;
/// The 95th percentile under flood may be so many times the baseline's.
const SLOWER_MAX: f64 = 2.0;
const START_PATIENCE: Duration = Duration::from_secs(120);

/// Floods a network. Returns whether honest transactions stayed fast enough and memory flat.
pub(crate) fn run(options: &Options) -> Result<bool> {
    ensure!((4..=600).contains(&options.seconds), "{} seconds: use 4 to 600", options.seconds);
    ensure!((100..=100_000).contains(&options.rate), "a rate of {}: use 100 to 100000", options.rate);
    let scratch = tempfile::tempdir().context("cannot make a folder for the nodes")?;
    let layout = crate::run::Options {
        report: None,
        validators: 4,
        miners: 0,
        tasks: 1,
        seed: 1,
        keep: None,
        binary: options.binary.clone(),
        assets: None,
        base: None,
        tokens: None,
    };
    let mut network = layout::lay_out(&layout, Seed(1), scratch.path())?;
    for node in network.all_mut() {
        node.start()?;
    }
    let client = crate::run::client::Client::new();
    wait_for_height(&mut network, &client, 3)?;
    let honest = honest::Sender::new(&network)?;
    let baseline = honest.send_for(Duration::from_secs((options.seconds / 2).max(2)))?;
    let (loaded, weights, sent) = flooded(options, &network, &honest)?;
    for node in network.all_mut() {
        node.check_alive()?;
    }
    let roots = same_state(&network, &client)?;
    let quarter = weights.len() / 4;
    let (first, last) = (weights.get(quarter).copied().unwrap_or(1), weights.last().copied().unwrap_or(0));
    let slower = loaded.percentile(95) as f64 / (baseline.percentile(95) as f64).max(1.0);
    let growth = last as f64 / (first as f64).max(1.0);
    let holds = slower <= SLOWER_MAX && growth <= GROWTH_MAX && roots;
    if options.json {
        let show = |times: &honest::Times| json!({ "count": times.count(), "p50_ms": times.percentile(50), "p95_ms": times.percentile(95) });
        println!(
            "{}",
            json!({
                "junk_asked_per_second": options.rate, "junk_sent": sent, "seconds": options.seconds,
                "baseline": show(&baseline), "flood": show(&loaded), "p95_ratio": slower,
                "heaviest_node_kib": weights, "growth": growth, "same_state": roots, "holds": holds,
            })
        );
    } else {
        println!("junk: {sent} transactions in {} s ({} a second asked for)", options.seconds, options.rate);
        for (name, times) in [("baseline", &baseline), ("flood", &loaded)] {
            println!(
                "{name:>9}: {} honest transfers, final after p50 {} ms, p95 {} ms",
                times.count(),
                times.percentile(50),
                times.percentile(95)
            );
        }
        println!("    ratio: p95 {slower:.2}x (at most {SLOWER_MAX})");
        println!("   memory: heaviest validator {weights:?} KiB, {growth:.2}x (at most {GROWTH_MAX})");
        println!("    state: {}", if roots { "the same everywhere" } else { "DIFFERS" });
    }
    Ok(holds)
}

/// Sends honest transfers while junk pours in. Returns their times, the heaviest validator over time in KiB, and how much
/// junk was sent.
fn flooded(
    options: &Options,
    network: &Network,
    honest: &honest::Sender,
) -> Result<(honest::Times, Vec<u64>, u64)> {
    let stop = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let flood = flood::Flood::new(network, options.rate)?;
    let (until, count) = (stop.clone(), sent.clone());
    let flooder = thread::spawn(move || flood.pour(&until, &count));
    let pids: Vec<u32> = network.validators.iter().filter_map(crate::run::process::Node::pid).collect();
    let until = stop.clone();
    let weigher = thread::spawn(move || {
        let mut heaviest = Vec::new();
        while !until.load(Ordering::Relaxed) {
            heaviest.push(weigh(&pids).iter().map(|weight| weight.own_kib).max().unwrap_or(0));
            thread::sleep(Duration::from_secs(1));
        }
        heaviest
    });
    let times = honest.send_for(Duration::from_secs(options.seconds));
    stop.store(true, Ordering::Relaxed);
    let broke = |_| anyhow::anyhow!("a thread of the flood broke");
    flooder.join().map_err(broke)??;
    let weights = weigher.join().map_err(broke)?;
    Ok((times?, weights, sent.load(Ordering::Relaxed)))
}

fn wait_for_height(network: &mut Network, client: &crate::run::client::Client, height: u64) -> Result<()> {
    let end = Instant::now() + START_PATIENCE;
    loop {
        for node in network.all_mut() {
            node.check_alive()?;
        }
        let there = network.all().all(|node| {
            client.status(&node.place.url).is_ok_and(|status| status.height >= height && !status.syncing)
        });
        if there {
            return Ok(());
        }
        ensure!(Instant::now() < end, "the network did not reach height {height}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Says whether every node has the same state at a height that all have.
fn same_state(network: &Network, client: &crate::run::client::Client) -> Result<bool> {
    let heights: Vec<u64> = network
        .all()
        .map(|node| client.status(&node.place.url).map(|status| status.height))
        .collect::<Result<_>>()?;
    let height = heights.into_iter().min().unwrap_or(0);
    let roots: Vec<String> = network
        .all()
        .map(|node| client.block(&node.place.url, height).map(|block| block.state_root))
        .collect::<Result<_>>()?;
    Ok(roots.windows(2).all(|pair| pair[0] == pair[1]))
}

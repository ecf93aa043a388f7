//! Real processes under real faults: killed, stopped, cut off from each other, out of disk, damaged, with wrong clocks.
//!
//! A plan is drawn from a seed ([`plan`]) and carried out ([`nemesis`]) on validators that are operating-system
//! processes and know each other only through links that this program owns ([`links`]). Accounts send credits all the
//! time ([`load`]). In the end the whole history is read back and audited ([`audit`]).
//!
//! The plan repeats itself; processes do not: how far they were when a fault struck differs from run to run. A seed
//! that failed may pass when it is played again, and the report says what was found when.

mod api;
mod audit;
mod damage;
mod dice;
mod links;
mod load;
mod nemesis;
mod plan;
mod report;
mod world;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;

use crate::run::interrupts;
use audit::Audit;
use load::Targets;
use nemesis::Nemesis;
use report::{Report, Violation};
use world::World;

/// How long a network may take to go on after everything is whole again. Generous: machines that run tests are busy.
const PROGRESS_MAX: Duration = Duration::from_secs(120);
/// Blocks that show that it goes on.
const PROGRESS_BLOCKS: u64 = 3;

/// Options of a run with faults.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Number of validators, 4 to 16.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) nodes: usize,
    /// Number of faults.
    #[arg(long, value_name = "N", default_value_t = 12)]
    pub(crate) faults: usize,
    /// Draws faults only as long as the last one ends within this time.
    #[arg(long, value_name = "S")]
    pub(crate) seconds: Option<u64>,
    /// Fixes the plan, the keys and the load; not what the processes make of it.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Prints the plan and runs nothing.
    #[arg(long)]
    pub(crate) plan: bool,
    /// Prints the report as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Keeps the nodes' folders here instead of removing them.
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
    /// The `tiltyard` program; by default the one beside this program.
    #[arg(long, value_name = "FILE")]
    pub(crate) binary: Option<PathBuf>,
}

impl Options {
    fn command(&self) -> String {
        let seconds = self.seconds.map(|seconds| format!(" --seconds {seconds}")).unwrap_or_default();
        format!(
            "tiltyard-testnet chaos --seed {} --nodes {} --faults {}{seconds}",
            self.seed, self.nodes, self.faults
        )
    }
}

/// Runs a plan. Returns whether everything that was promised holds.
pub(crate) fn run(options: &Options) -> Result<bool> {
    ensure!((4..=16).contains(&options.nodes), "{} nodes: use 4 to 16", options.nodes);
    ensure!((1..=10_000).contains(&options.faults), "{} faults: use 1 to 10000", options.faults);
    let limit_ms = options.seconds.map_or(u64::MAX, |seconds| seconds.saturating_mul(1_000));
    let plan = plan::draw(options.seed, options.nodes, options.faults, limit_ms);
    ensure!(!plan.is_empty(), "no fault ends within {} s; allow more", limit_ms / 1_000);
    if !options.json || options.plan {
        print_plan(options, &plan);
    }
    if options.plan {
        return Ok(true);
    }
    let binary = crate::run::layout::find_binary(options.binary.as_deref())?;
    let interrupted = interrupts()?;
    let scratch = tempfile::tempdir().context("cannot make a folder for the nodes")?;
    let dir = match &options.keep {
        Some(dir) => crate::run::new_folder(dir)?,
        None => scratch.path().to_owned(),
    };
    if !options.json {
        println!("carried out");
    }
    let report = play(options, &plan, &binary, &dir, &interrupted)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print_report(options, &report);
    }
    Ok(report.violations.is_empty())
}

fn print_plan(options: &Options, plan: &[plan::Step]) {
    println!("plan of seed {} for {} nodes ({} faults)", options.seed, options.nodes, plan.len());
    for step in plan {
        let (at, lasts) = (step.at_ms as f64 / 1e3, step.lasts_ms as f64 / 1e3);
        println!("{at:>7.1} s  for {lasts:.1} s  {}", step.fault);
    }
}

fn print_report(options: &Options, report: &Report) {
    println!(
        "{} blocks on {} nodes: {} of {} transfers acknowledged, {} in blocks, {} receipts verified; \
         went on {:.1} s after the last fault; {:.0} s in all",
        report.heights,
        report.nodes,
        report.transactions_acknowledged,
        report.transactions_offered,
        report.transactions_in_blocks,
        report.receipts_verified,
        report.recovery_ms as f64 / 1e3,
        report.seconds,
    );
    for violation in &report.violations {
        println!("VIOLATION: {violation}");
    }
    if report.violations.is_empty() {
        println!("everything holds: nothing acknowledged was lost, nobody was punished, the network went on");
    } else {
        println!("the same plan again (processes may take it otherwise): {}", options.command());
    }
}

fn play(
    options: &Options,
    plan: &[plan::Step],
    binary: &Path,
    dir: &Path,
    interrupted: &Receiver<()>,
) -> Result<Report> {
    let begun = Instant::now();
    let mut world = world::lay_out(options.seed, options.nodes, binary, dir)?;
    let up: Arc<Vec<AtomicBool>> = Arc::new((0..options.nodes).map(|_| AtomicBool::new(false)).collect());
    let targets = Targets { urls: world.urls(), tokens: world.tokens.clone(), up: Arc::clone(&up) };
    let (genesis, senders) = (world.genesis.clone(), std::mem::take(&mut world.senders));
    let mut nemesis = Nemesis::new(&mut world, up, interrupted, options.seed, options.json);
    nemesis.start_all()?;
    wait_for(&mut nemesis, PROGRESS_BLOCKS)?
        .map_err(|stuck| anyhow!("the network did not start: {stuck}\n{}", tails(nemesis.world)))?;
    let (stop, stopped) = mpsc::channel();
    let seed = options.seed;
    let load = thread::Builder::new()
        .name("load".to_owned())
        .spawn(move || load::run(seed, genesis, senders, targets, &stopped))
        .context("cannot start the load")?;
    nemesis.play(plan)?;
    let healed = Instant::now();
    let tip = nemesis.watch().iter().flatten().map(|status| status.height).max().unwrap_or(0);
    let stuck = wait_for(&mut nemesis, tip + PROGRESS_BLOCKS)?.err();
    let recovery_ms = u64::try_from(healed.elapsed().as_millis()).unwrap_or(u64::MAX);
    drop(stop);
    let book = load.join().map_err(|_| anyhow!("the load broke"))?;
    // Blocks with the last acknowledged transactions are at every node before the history is read.
    let tip = book.acknowledged.iter().map(|ack| ack.height).max().unwrap_or(0).max(tip) + PROGRESS_BLOCKS;
    let stuck = match stuck {
        None => wait_for(&mut nemesis, tip)?.err(),
        found => found,
    };
    let (mut violations, done) = (std::mem::take(&mut nemesis.violations), std::mem::take(&mut nemesis.done));
    let mut counted = audit::Counted::default();
    match stuck {
        Some(stuck) => violations.push(stuck),
        None => {
            let (urls, keys) = (world.urls(), world.keys.clone());
            let audit = Audit { genesis: &world.genesis, keys: &keys, urls: &urls, book: &book, tip };
            counted = audit.run()?;
        }
    }
    violations.append(&mut counted.violations);
    if !violations.is_empty() && !options.json {
        println!("{}", tails(&world));
    }
    stop_all(&mut world, interrupted)?;
    Ok(Report {
        seed: options.seed,
        nodes: options.nodes,
        faults: done,
        heights: tip,
        transactions_offered: book.offered.len(),
        transactions_acknowledged: book.acknowledged.len(),
        transactions_in_blocks: counted.transactions,
        receipts_verified: counted.receipts,
        recovery_ms,
        seconds: begun.elapsed().as_secs_f64(),
        violations,
    })
}

/// Waits until every node has block `height`; says where they stand when they do not get there.
fn wait_for(nemesis: &mut Nemesis<'_>, height: u64) -> Result<Result<(), Violation>> {
    let begun = Instant::now();
    loop {
        let seen = nemesis.watch();
        let ready = |status: &api::Status| status.height >= height && !status.syncing && !status.halted;
        if seen.iter().all(|status| status.as_ref().is_some_and(ready)) {
            return Ok(Ok(()));
        }
        if begun.elapsed() > PROGRESS_MAX {
            let heights = seen.iter().map(|status| status.as_ref().map(|status| status.height)).collect();
            return Ok(Err(Violation::Stuck { seconds: begun.elapsed().as_secs(), heights, wanted: height }));
        }
        nemesis.pause(Duration::from_millis(200))?;
    }
}

fn tails(world: &World) -> String {
    let tail = |node: &crate::run::process::Node| {
        format!("last words of {}:\n{}", node.place.name, node.log_tail(8))
    };
    world.nodes.iter().map(tail).collect::<Vec<_>>().join("\n")
}

/// Asks every process to end; each must do so by itself.
fn stop_all(world: &mut World, interrupted: &Receiver<()>) -> Result<()> {
    world.nodes.iter().for_each(crate::run::process::Node::ask_to_stop);
    let tick = |time: Duration| {
        // A second Ctrl-C changes nothing: everything is on its way out.
        let _ = interrupted.recv_timeout(time);
    };
    for node in &mut world.nodes {
        let ended = node.reap(Duration::from_secs(30), &tick)?;
        ensure!(ended, "{} had to be killed at the end: it did not stop when asked", node.place.name);
    }
    // A folder that is kept says how it was left.
    fs::metadata(&world.nodes.first().context("no node")?.place.dir)?;
    Ok(())
}

//! The command line: a range of seeds on every core, a line for each violation, figures at the end.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde::Serialize;

use super::{Bug, Outcome, Shape, Shrunk, Strike, Treason, every, hunt, pool, run_seed, shrink};

/// Failing seeds that are shrunk; the rest is counted.
const SHRUNK_MAX: usize = 5;

const EXAMPLES: &str = "Examples:
  tiltyard-testnet sim --seeds 0..1000
  tiltyard-testnet sim --seeds 0..500 --nodes 7 --byzantine 2 --json
  tiltyard-testnet sim --seeds 0..100 --byzantine 1 --treason equivocate --calm
  tiltyard-testnet sim --seeds 0..1 --every-effect 30..32
  tiltyard-testnet sim --planted all --seeds 0..200";

/// Options of the simulator.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Seeds to run, the end not included.
    #[arg(long, value_name = "A..B", default_value = "0..100", value_parser = parse_seeds)]
    pub seeds: Range<u64>,
    /// Validators in each run; each also mines.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub nodes: usize,
    /// How many of them are byzantine. From a third on the protocol promises nothing, and violations are expected.
    #[arg(long, value_name = "F", default_value_t = 0)]
    pub byzantine: usize,
    /// Blocks that every run must reach at least.
    #[arg(long, value_name = "N", default_value_t = 30)]
    pub heights: u64,
    /// What every byzantine validator does; by default each seed draws something for each of them.
    #[arg(long, value_name = "TREASON")]
    pub treason: Option<Treason>,
    /// No faults of disk, network or clocks: then promises about time are checked to the block.
    #[arg(long)]
    pub calm: bool,
    /// Moves stake in every run: validators release some, leave and come back. Otherwise in one of seven.
    #[arg(long)]
    pub life: bool,
    /// Plants a bug, to see it caught: its name, or `all` for a table that fails unless each is caught.
    #[arg(long, value_name = "BUG", value_parser = parse_planted)]
    pub planted: Option<Planted>,
    /// Crashes each node at each of its effects within these heights, one run per effect and write fate.
    #[arg(long, value_name = "A..B", value_parser = parse_seeds, conflicts_with_all = ["planted", "crash", "trace"])]
    pub every_effect: Option<Range<u64>>,
    /// One crash: the node, how many effects it carries out before, and the fate of an unfinished write.
    #[arg(long, value_name = "NODE:EFFECT:FATE")]
    pub crash: Option<Strike>,
    /// Lets only these faults of the plan happen: their numbers with commas, or `none`.
    #[arg(long, value_name = "LIST", value_parser = parse_only)]
    pub only: Option<Only>,
    /// Runs so many seeds at a time; by default one per core.
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Prints everything that happens; for one seed.
    #[arg(long)]
    pub trace: bool,
    /// Prints the figures as JSON.
    #[arg(long)]
    pub json: bool,
}

/// What is planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// Every bug, one after the other.
    All,
    /// One bug.
    One(Bug),
}

fn parse_planted(text: &str) -> Result<Planted, String> {
    if text == "all" {
        return Ok(Planted::All);
    }
    let names = || Bug::ALL.map(Bug::name).join(", ");
    let bug = Bug::ALL.into_iter().find(|bug| bug.name() == text);
    bug.map(Planted::One).ok_or_else(|| format!("no such bug; write all, or one of {}", names()))
}

/// Numbers of faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Only(BTreeSet<usize>);

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let (first, end) = text.split_once("..").ok_or("write seeds as A..B, for example 0..100")?;
    let number = |text: &str| text.trim().parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    let seeds = number(first)?..number(end)?;
    if seeds.is_empty() { Err("there is no seed in this range".to_owned()) } else { Ok(seeds) }
}

fn parse_only(text: &str) -> Result<Only, String> {
    if text == "none" {
        return Ok(Only(BTreeSet::new()));
    }
    let number = |part: &str| part.trim().parse::<usize>().map_err(|error| format!("{part:?}: {error}"));
    text.split(',').map(number).collect::<Result<BTreeSet<usize>, String>>().map(Only)
}

/// What a range of seeds came to.
#[derive(Debug, Clone, Default, Serialize)]
struct Summary {
    nodes: usize,
    byzantine: usize,
    seeds: u64,
    heights: u64,
    late_rounds: u64,
    settled: u64,
    /// Seeds in which a node crashed and the network was split.
    crashed_and_split: u64,
    /// Seeds in which a node lost its disk, and those in which it then joined by a snapshot.
    wiped: u64,
    joined: u64,
    /// Seeds in which a validator set changed.
    set_changed: u64,
    slashed: u64,
    stopped_signing: u64,
    failed_seeds: u64,
    violations: Vec<Failure>,
    virtual_seconds: f64,
    wall_seconds: f64,
    virtual_per_wall: f64,
    seeds_per_hour: f64,
    /// Hash over the trace hashes of all seeds, in order.
    trace: String,
}

/// A failing seed, made small.
#[derive(Debug, Clone, Serialize)]
struct Failure {
    seed: u64,
    kind: &'static str,
    fact: String,
    faults: usize,
    replay: String,
}

/// Runs the simulator as the command line asks. Returns whether nothing went wrong.
///
/// # Errors
/// When the options describe no network.
pub fn run(options: &Options) -> Result<bool> {
    let shape = Shape {
        nodes: options.nodes,
        byzantine: options.byzantine,
        heights: options.heights,
        planted: match options.planted {
            Some(Planted::One(bug)) => Some(bug),
            Some(Planted::All) | None => None,
        },
        only: options.only.as_ref().map(|only| only.0.clone()),
        treason: options.treason,
        calm: options.calm,
        strike: options.crash,
        life: options.life,
    };
    if options.planted == Some(Planted::All) {
        return hunt::run(&shape, options.seeds.clone(), options.threads, options.json);
    }
    if let Some(heights) = &options.every_effect {
        return every::run(&shape, options.seeds.clone(), heights, options.threads, options.json);
    }
    let seeds = options.seeds.clone();
    if options.trace {
        ensure!(
            seeds.end - seeds.start == 1,
            "--trace prints one seed; ask for {0}..{1}",
            seeds.start,
            seeds.start + 1
        );
        let outcome = run_seed(seeds.start, &shape, true)?;
        print!("{}", outcome.lines.unwrap_or_default());
    }
    let began = Instant::now();
    let outcomes = run_seeds(seeds.clone(), &shape, options.threads)?;
    let wall_seconds = began.elapsed().as_secs_f64();
    let mut failures = Vec::new();
    for (seed, _) in outcomes.iter().filter(|(_, outcome)| !outcome.violations.is_empty()).take(SHRUNK_MAX) {
        let small = shrink(*seed, &shape)?.context("a failing seed passed when it ran again")?;
        failures.push(small);
    }
    let summary = summarise(&shape, &outcomes, &failures, wall_seconds);
    if options.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        print_summary(&summary);
    }
    Ok(summary.failed_seeds == 0)
}

/// Runs seeds on several threads; each run stays on one.
fn run_seeds(seeds: Range<u64>, shape: &Shape, threads: Option<usize>) -> Result<Vec<(u64, Outcome)>> {
    let seeds: Vec<u64> = seeds.collect();
    pool::each(&seeds, threads, |seed| run_seed(*seed, shape, false).map(|outcome| (*seed, outcome)))
        .into_iter()
        .collect()
}

fn summarise(shape: &Shape, outcomes: &[(u64, Outcome)], failures: &[Shrunk], wall_seconds: f64) -> Summary {
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(|(_, outcome)| of(outcome)).sum::<u64>();
    let mut trace = blake3::Hasher::new();
    for (_, outcome) in outcomes {
        trace.update(&outcome.trace);
    }
    let virtual_seconds = sum(|outcome| outcome.virtual_ms) as f64 / 1_000.0;
    let wall = wall_seconds.max(1e-9);
    Summary {
        nodes: shape.nodes,
        byzantine: shape.byzantine,
        seeds: outcomes.len() as u64,
        heights: sum(|outcome| outcome.heights),
        late_rounds: sum(|outcome| outcome.late_rounds),
        settled: sum(|outcome| u64::from(outcome.is_settled)),
        crashed_and_split: sum(|outcome| u64::from(outcome.crashes > 0 && outcome.splits > 0)),
        wiped: sum(|outcome| u64::from(outcome.wiped > 0)),
        joined: sum(|outcome| u64::from(outcome.joins > 0)),
        set_changed: sum(|outcome| u64::from(outcome.set_changes > 0)),
        slashed: sum(|outcome| u64::from(!outcome.punished.is_empty())),
        stopped_signing: sum(|outcome| outcome.stopped_signing),
        failed_seeds: sum(|outcome| u64::from(!outcome.violations.is_empty())),
        violations: failures.iter().map(failure).collect(),
        virtual_seconds,
        wall_seconds,
        virtual_per_wall: virtual_seconds / wall,
        seeds_per_hour: outcomes.len() as f64 * 3_600.0 / wall,
        trace: trace.finalize().to_hex().to_string(),
    }
}

fn failure(small: &Shrunk) -> Failure {
    Failure {
        seed: small.seed,
        kind: small.violation.kind(),
        fact: small.violation.to_string(),
        faults: small.faults,
        replay: small.command(),
    }
}

fn print_summary(summary: &Summary) {
    for failure in &summary.violations {
        println!("seed {}: {}", failure.seed, failure.fact);
        println!("  with {} faults left; again: {}", failure.faults, failure.replay);
    }
    println!(
        "{} seeds of {} nodes, {} byzantine: {} heights, {} of them in a later round",
        summary.seeds, summary.nodes, summary.byzantine, summary.heights, summary.late_rounds
    );
    println!(
        "a task settled in {}, a crash and a split in {}, another validator set in {}, an offender slashed in {}",
        summary.settled, summary.crashed_and_split, summary.set_changed, summary.slashed
    );
    println!("a disk lost in {}, a join by snapshot after it in {}", summary.wiped, summary.joined);
    println!(
        "{} nodes with damaged disks stopped signing; {} seeds failed",
        summary.stopped_signing, summary.failed_seeds
    );
    println!(
        "{:.0} virtual seconds in {:.1} s: {:.0} virtual per wall second, {:.0} seeds an hour",
        summary.virtual_seconds, summary.wall_seconds, summary.virtual_per_wall, summary.seeds_per_hour
    );
    println!("trace {}", summary.trace);
}

//! The market against recipes and tuners, on real tasks under a token clock, without a network.
//!
//! A cell is one rival on one task with one seed under one budget of tokens. Finished cells are lines of
//! `results.jsonl`; a run plays the cells that are missing, so it can be stopped and gone on with at any time.
//! What a market of miners gives is worked out from its miners' cells by the ledger's ranking rule; tables and plots
//! are made from the cells alone.

mod cell;
mod plan;
mod play;
mod render;
mod stats;
mod table;
mod verdict;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use cell::Cell;
use play::rival::{League, Rival};
use play::{Outcome, Table, tasks};

/// Tokens of a cell.
const BUDGET_TOKENS: u64 = 300_000;
/// Tokens of a cell with `--quick`.
const QUICK_TOKENS: u64 = 12_000;

/// Options of the benchmark.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Tasks to play; by default all that are found.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    tasks: Vec<String>,
    /// Folders with a folder a task.
    #[arg(long, value_name = "DIR,…", value_delimiter = ',', default_value = "testnet/assets/data")]
    data: Vec<PathBuf>,
    /// Base model's folder.
    #[arg(long, value_name = "DIR", default_value = "testnet/assets/base")]
    base: PathBuf,
    /// Seeds 1 to N.
    #[arg(long, value_name = "N", default_value_t = 3)]
    seeds: u64,
    /// Tokens of a cell.
    #[arg(long, value_name = "N", default_value_t = BUDGET_TOKENS)]
    tokens: u64,
    /// Whether all weights may be trained.
    #[arg(long, value_enum, default_value = "lora")]
    league: League,
    /// Who plays, as in `base,preset:autotrain-ui,search:0,sweep:60,random:60,tpe:60`; by default everyone.
    #[arg(long, value_name = "RIVAL,…", value_delimiter = ',')]
    rivals: Vec<Rival>,
    /// Starts no further cell after so many seconds.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Plays cells of older code again.
    #[arg(long)]
    again: bool,
    /// Plays nothing: makes tables and plots from the cells there are.
    #[arg(long)]
    render: bool,
    /// Finished cells.
    #[arg(long, value_name = "FILE", default_value = "testnet/bench/results.jsonl")]
    results: PathBuf,
    /// Puts the tables into this document, between its two lines for them, and the plots beside it.
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
    /// One task, one seed, few tokens, into a file that is thrown away: shows that it works, measures nothing.
    #[arg(long)]
    quick: bool,
    /// Prints the comparison as JSON.
    #[arg(long)]
    json: bool,
}

/// Plays what is missing and shows the comparison. Returns whether everything holds that must hold.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let scratch = tempfile::tempdir().context("cannot make a folder for the cells")?;
    let results = match options.quick {
        true => scratch.path().join("results.jsonl"),
        false => options.results.clone(),
    };
    let mut cells = cell::read(&results)?;
    if !options.render {
        play_missing(options, &results, scratch.path(), &mut cells)?;
    }
    let tables = table::tables(&cells);
    if let Some(document) = &options.into {
        render::write(document, &cells, &tables)?;
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&tables)?);
    } else {
        print!("{}", render::markdown(&cells, &tables));
    }
    match options.quick {
        true => holds(&cells, QUICK_TOKENS),
        false => Ok(true),
    }
}

fn play_missing(
    options: &Options,
    results: &std::path::Path,
    scratch: &std::path::Path,
    cells: &mut Vec<Cell>,
) -> Result<()> {
    let started = Instant::now();
    let limit = options.seconds.map_or(Duration::MAX, Duration::from_secs);
    let base =
        fs::canonicalize(&options.base).with_context(|| format!("cannot find {}", options.base.display()))?;
    let wanted = match options.quick && options.tasks.is_empty() {
        true => vec!["add".to_owned()],
        false => options.tasks.clone(),
    };
    let tasks = tasks::find(&options.data, &wanted)?;
    let (seeds, tokens) = if options.quick { (1, QUICK_TOKENS) } else { (options.seeds, options.tokens) };
    for stage in plan::stages(&options.rivals, options.quick, plan::optuna()) {
        for seed in 1..=seeds {
            for task in &tasks {
                let missing: Vec<&(Rival, u64)> = stage
                    .iter()
                    .filter(|(rival, times)| {
                        let name = rival.to_string();
                        let place =
                            (task.name.as_str(), seed, options.league.name(), name.as_str(), tokens * times);
                        let done = cells.iter().find(|cell| cell.place() == place);
                        done.is_none_or(|cell| options.again && cell.code != rival.code())
                    })
                    .collect();
                if missing.is_empty() {
                    continue;
                }
                let folder = scratch.join(format!("{}-{seed}", task.name));
                let laid = Table::lay(task, seed, &base, &folder)?;
                for (rival, times) in missing {
                    if started.elapsed() >= limit {
                        return Ok(());
                    }
                    let budget = tokens * times;
                    let outcome = laid.play(rival, options.league, budget)?;
                    let cell = finished(&laid, options.league, rival, budget, outcome);
                    eprintln!(
                        "{:>5.0} s  {} seed {seed}  {:<24} {:.4} nats  {:>7} tokens  {:>5.1} cpu-s  {}",
                        started.elapsed().as_secs_f64(),
                        task.name,
                        cell.rival,
                        cell.mean(),
                        cell.tokens,
                        cell.cpu_s,
                        cell.fault.as_deref().or(cell.recipe.as_deref()).unwrap_or("")
                    );
                    cell::append(results, &cell)?;
                    cells.retain(|other| other.place() != cell.place());
                    cells.push(cell);
                }
            }
        }
    }
    Ok(())
}

fn finished(table: &Table, league: League, rival: &Rival, budget: u64, outcome: Outcome) -> Cell {
    Cell {
        task: table.task.name.clone(),
        kind: table.task.kind.name().to_owned(),
        family: table.task.family.clone(),
        tuning: table.task.tuning,
        seed: table.seed,
        league: league.name().to_owned(),
        rival: rival.to_string(),
        budget,
        code: rival.code(),
        tokens: outcome.tokens,
        cpu_s: (outcome.cpu_s * 10.0).round() / 10.0,
        sealed: outcome.sealed,
        report: outcome.report,
        fault: outcome.fault,
        recipe: outcome.recipe,
    }
}

/// What must hold of any run, whoever wins.
fn holds(cells: &[Cell], tokens: u64) -> Result<bool> {
    let base = cells.iter().find(|cell| cell.rival == "base").context("the base was not scored")?;
    for cell in cells {
        let about = format!("{} on {}", cell.rival, cell.task);
        ensure!(cell.report.len() == base.report.len(), "{about}: other rows than the base");
        ensure!(cell.fault.is_none(), "{about}: {}", cell.fault.as_deref().unwrap_or_default());
        // A step is not cut in two, and a measurement is not left out at the end.
        ensure!(
            cell.tokens <= cell.budget + tokens / 10,
            "{about}: {} of {} tokens",
            cell.tokens,
            cell.budget
        );
        ensure!(cell.rival == "base" || cell.tokens > 0, "{about}: trained on nothing");
    }
    let miners: Vec<&Cell> = cells.iter().filter(|cell| cell.rival.starts_with("search:")).collect();
    ensure!(miners.len() == 3, "{} miners played", miners.len());
    let market = verdict::market("market-3", base, &miners);
    ensure!(market.fault.is_none(), "nobody was better than the base: {market:?}");
    ensure!(miners.iter().any(|miner| miner.report == market.report), "the market's scores are no miner's");
    Ok(true)
}

//! From cells to comparisons: who beats whom on which task, at equal wall time and at equal tokens.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::cell::Cell;
use super::plan::MARKETS;
use super::play::rival::Rival;
use super::stats::{self, Interval, Verdict};
use super::verdict::market;

/// A contestant's cells by task and seed.
type Cells = BTreeMap<(String, u64), Cell>;

/// Everything that cells of one league and one budget show.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Tables {
    pub(super) league: String,
    /// Tokens of one miner.
    pub(super) budget: u64,
    pub(super) comparisons: Vec<Comparison>,
    pub(super) standings: Vec<Standing>,
    /// Cells made by other code than this program's.
    pub(super) older: usize,
    pub(super) cells: usize,
}

/// Us against one of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Comparison {
    pub(super) ours: String,
    pub(super) theirs: String,
    pub(super) how: How,
    pub(super) tasks: usize,
    pub(super) seeds: usize,
    pub(super) wins: usize,
    pub(super) ties: usize,
    pub(super) losses: usize,
    /// Tasks lost, by name.
    pub(super) lost: Vec<String>,
    /// How much lower our loss is, in percent of theirs: mean over tasks and its interval.
    pub(super) lower: [f64; 3],
}

/// Under which equality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum How {
    /// The rival runs as published and ends when it ends.
    AsPublished,
    /// The rival has the tokens of one miner.
    EqualWall,
    /// The rival has the tokens of all miners together.
    EqualTotal,
}

/// How one contestant did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Standing {
    pub(super) name: String,
    /// Mean loss by task, in nats, over its seeds.
    pub(super) losses: BTreeMap<String, f64>,
    /// Mean tokens by task, over its seeds; of all miners for a market.
    pub(super) tokens: BTreeMap<String, f64>,
    /// Tasks with a cell of older code.
    pub(super) older: BTreeSet<String>,
}

fn older(cell: &Cell) -> bool {
    cell.rival.parse::<Rival>().map_or(true, |rival| rival.code() != cell.code)
}

/// Makes the tables of every league and budget that was played.
pub(super) fn tables(cells: &[Cell]) -> Vec<Tables> {
    let scored = cells.iter().filter(|cell| !cell.tuning);
    let bases = scored.clone().filter(|cell| cell.rival == "base");
    let groups: BTreeSet<(String, u64)> = bases.map(|cell| (cell.league.clone(), cell.budget)).collect();
    let all: Vec<&Cell> = scored.collect();
    groups.into_iter().map(|(league, budget)| group(&all, league, budget)).collect()
}

fn group(cells: &[&Cell], league: String, budget: u64) -> Tables {
    let mut field: BTreeMap<String, Cells> = BTreeMap::new();
    let mut add = |name: String, cell: Cell| {
        field.entry(name).or_default().insert((cell.task.clone(), cell.seed), cell);
    };
    let few = u64::from(MARKETS[0]);
    let mine: Vec<&Cell> = cells.iter().copied().filter(|cell| cell.league == league).collect();
    for cell in mine.iter().filter(|cell| cell.budget == budget) {
        add(cell.rival.clone(), (*cell).clone());
    }
    for cell in mine.iter().filter(|cell| cell.budget == budget * few && is_chooser(&cell.rival)) {
        add(format!("{} ×{few}", cell.rival), (*cell).clone());
    }
    let bases: Vec<&Cell> =
        mine.iter().copied().filter(|cell| cell.rival == "base" && cell.budget == budget).collect();
    for base in bases {
        let miner = |number: u8| {
            let name = Rival::Search(number).to_string();
            mine.iter().copied().find(|cell| {
                cell.rival == name && (&cell.task, cell.seed, cell.budget) == (&base.task, base.seed, budget)
            })
        };
        for size in MARKETS {
            if let Some(miners) = (0..size).map(miner).collect::<Option<Vec<&Cell>>>() {
                let name = format!("market-{size}");
                add(name.clone(), market(&name, base, &miners));
            }
        }
    }
    let at_hand: Vec<&Cell> =
        field.iter().filter(|(name, _)| !is_market(name)).flat_map(|(_, c)| c.values()).collect();
    Tables {
        comparisons: pairs(&field)
            .into_iter()
            .filter_map(|(a, b, how)| compare(&field, &a, &b, how))
            .collect(),
        standings: field.iter().map(|(name, cells)| standing(name, cells)).collect(),
        older: at_hand.iter().filter(|cell| older(cell)).count(),
        cells: at_hand.len(),
        league,
        budget,
    }
}

fn is_chooser(name: &str) -> bool {
    ["sweep:", "random:", "tpe:"].iter().any(|chooser| name.starts_with(chooser))
}

fn is_market(name: &str) -> bool {
    name.starts_with("market-")
}

/// The comparisons that are asked for, as far as both took part.
fn pairs(field: &BTreeMap<String, Cells>) -> Vec<(String, String, How)> {
    let mut pairs = Vec::new();
    for ours in ["market-3", "market-8", "search:0"] {
        for theirs in field.keys() {
            let tripled = theirs.ends_with(" ×3");
            let how = match theirs.as_str() {
                name if name.ends_with("-stretched") => How::EqualWall,
                name if name.starts_with("preset:") => How::AsPublished,
                name if is_chooser(name) && tripled => How::EqualTotal,
                name if is_chooser(name) => How::EqualWall,
                _ => continue,
            };
            if field.contains_key(ours) && (how != How::EqualTotal || ours == "market-3") {
                pairs.push((ours.to_owned(), theirs.clone(), how));
            }
        }
    }
    pairs
}

fn nats(scores: &[u32]) -> Vec<f64> {
    scores.iter().map(|score| f64::from(*score) / 1e6).collect()
}

fn compare(field: &BTreeMap<String, Cells>, ours: &str, theirs: &str, how: How) -> Option<Comparison> {
    let (us, them) = (field.get(ours)?, field.get(theirs)?);
    let mut tasks: BTreeMap<&str, Vec<(&Cell, &Cell)>> = BTreeMap::new();
    for (place, cell) in us {
        if let Some(other) = them.get(place) {
            tasks.entry(place.0.as_str()).or_default().push((cell, other));
        }
    }
    let mut made = Comparison {
        ours: ours.to_owned(),
        theirs: theirs.to_owned(),
        how,
        tasks: tasks.len(),
        seeds: tasks.values().map(Vec::len).sum(),
        wins: 0,
        ties: 0,
        losses: 0,
        lost: Vec::new(),
        lower: [0.0; 3],
    };
    let mut lower = Vec::new();
    for (task, pairs) in tasks {
        let rows: Vec<_> = pairs.iter().map(|(us, them)| (nats(&us.report), nats(&them.report))).collect();
        match stats::compare(&rows)?.0 {
            Verdict::Win => made.wins += 1,
            Verdict::Tie => made.ties += 1,
            Verdict::Loss => {
                made.losses += 1;
                made.lost.push(task.to_owned());
            }
        }
        let sum = |pick: fn(&(&Cell, &Cell)) -> f64| pairs.iter().map(pick).sum::<f64>();
        let (our_loss, their_loss) = (sum(|pair| pair.0.mean()), sum(|pair| pair.1.mean()));
        lower.push(100.0 * (their_loss - our_loss) / their_loss.max(1e-9));
    }
    let Interval { mean, low, high } = stats::over_tasks(&lower)?;
    made.lower = [mean, low, high];
    Some(made)
}

fn standing(name: &str, cells: &Cells) -> Standing {
    let mean = |value: fn(&Cell) -> f64| {
        let mut by_task: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for ((task, _), cell) in cells {
            by_task.entry(task.clone()).or_default().push(value(cell));
        }
        by_task
            .into_iter()
            .map(|(task, values)| (task, values.iter().sum::<f64>() / values.len() as f64))
            .collect()
    };
    let stale = |cell: &&Cell| match is_market(name) {
        true => cell.code != Rival::Search(0).code(),
        false => older(cell),
    };
    Standing {
        name: name.to_owned(),
        losses: mean(Cell::mean),
        tokens: mean(|cell| cell.tokens as f64),
        older: cells.values().filter(stale).map(|cell| cell.task.clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::cell::sample;
    use super::*;

    fn cells() -> Vec<Cell> {
        let mut cells = Vec::new();
        for (task, shift) in [("a", 0), ("b", 300_000)] {
            for seed in [1, 2] {
                cells.push(sample(task, seed, "base", 4_000_000));
                for (number, score) in [(0, 2_500_000), (1, 2_000_000), (2, 2_600_000)] {
                    cells.push(sample(task, seed, &format!("search:{number}"), score));
                }
                cells.push(sample(task, seed, "sweep:60", 2_200_000 - shift));
                let mut tripled = sample(task, seed, "sweep:60", 2_000_000);
                tripled.budget = 3_000;
                cells.push(tripled);
                cells.push(sample(task, seed, "preset:trl", 3_900_000));
            }
        }
        cells
    }

    #[test]
    fn the_market_is_compared_at_equal_wall_and_at_equal_tokens() {
        let made = tables(&cells());
        assert_eq!(made.len(), 1, "one league and budget: {made:?}");
        let found = |ours: &str, theirs: &str| {
            let pairs = made[0].comparisons.iter();
            pairs.clone().find(|pair| pair.ours == ours && pair.theirs == theirs).expect("compared").clone()
        };
        let wall = found("market-3", "sweep:60");
        assert_eq!((wall.how, wall.tasks, wall.seeds), (How::EqualWall, 2, 4));
        assert_eq!((wall.wins, wall.ties, wall.losses), (1, 0, 1), "a is won, b is lost");
        assert_eq!(wall.lost, ["b"]);
        let total = found("market-3", "sweep:60 ×3");
        assert_eq!((total.how, total.ties), (How::EqualTotal, 2), "the same losses are ties");
        let alone = found("search:0", "sweep:60");
        assert_eq!(alone.losses, 2);
        assert_eq!(found("market-3", "preset:trl").how, How::AsPublished);
        assert!(made[0].comparisons.iter().all(|pair| pair.ours != "market-8"), "eight miners did not play");
    }

    #[test]
    fn a_task_for_tuning_is_no_part_and_a_seed_without_a_counterpart_does_not_count() {
        let mut cells = cells();
        for cell in cells.iter_mut().filter(|cell| cell.task == "b") {
            cell.tuning = true;
        }
        cells.retain(|cell| cell.seed == 1 || cell.rival != "sweep:60" || cell.budget != 1_000);
        let made = tables(&cells);
        let wall = made[0].comparisons.iter().find(|pair| pair.theirs == "sweep:60").expect("compared");
        assert_eq!((wall.tasks, wall.seeds), (1, 1));
        assert_eq!(made[0].older, made[0].cells, "no cell of the sample was made by this code");
    }
}

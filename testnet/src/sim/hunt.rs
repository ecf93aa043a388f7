//! Plants every bug in turn, and a coalition above the bound, and says in which seed each is caught.

use std::ops::Range;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::{Bug, Shape, Violation, pool, run_seed};

/// What is let loose.
#[derive(Debug, Clone, Copy)]
enum Quarry {
    Planted(Bug),
    /// One byzantine validator more than the protocol bears: they must be seen to fork the chain.
    Coalition,
}

impl Quarry {
    fn name(self) -> String {
        match self {
            Self::Planted(bug) => bug.name(),
            Self::Coalition => "one-liar-too-many".to_owned(),
        }
    }

    fn shape(self, shape: &Shape) -> Shape {
        match self {
            Self::Planted(bug) => bug.shape(shape.clone()),
            Self::Coalition => Shape { byzantine: shape.tolerated() + 1, ..shape.clone() },
        }
    }

    /// Says whether a violation is what must be seen.
    fn is_caught_by(self, found: &Violation) -> bool {
        match self {
            Self::Planted(_) => true,
            Self::Coalition => matches!(found, Violation::Fork { .. }),
        }
    }
}

#[derive(Debug, Serialize)]
struct Caught {
    bug: String,
    seed: Option<u64>,
    kind: Option<&'static str>,
    fact: Option<String>,
}

/// Runs seeds until each bug is caught. Returns whether all are.
pub(crate) fn run(shape: &Shape, seeds: Range<u64>, threads: Option<usize>, json: bool) -> Result<bool> {
    ensure!(shape.byzantine == 0, "planted bugs are hunted among honest nodes; leave --byzantine out");
    let began = Instant::now();
    let planted = Bug::ALL.into_iter().map(Quarry::Planted);
    let all: Vec<Quarry> = planted.chain([Quarry::Coalition]).collect();
    let table: Vec<Caught> = pool::each(&all, threads, |quarry| hunt(*quarry, shape, seeds.clone()))
        .into_iter()
        .collect::<Result<_>>()?;
    let escaped = table.iter().filter(|caught| caught.seed.is_none()).count();
    if json {
        println!("{}", serde_json::to_string_pretty(&table)?);
        return Ok(escaped == 0);
    }
    for Caught { bug, seed, kind, fact } in &table {
        match (seed, kind, fact) {
            (Some(seed), Some(kind), Some(fact)) => println!("{bug:<24} seed {seed:<4} {kind:<14} {fact}"),
            _ => println!("{bug:<24} ESCAPED {} seeds", seeds.end - seeds.start),
        }
    }
    println!(
        "{} of {} planted bugs caught in at most {} seeds each; {:.1} s",
        table.len() - escaped,
        table.len(),
        seeds.end - seeds.start,
        began.elapsed().as_secs_f64()
    );
    Ok(escaped == 0)
}

fn hunt(quarry: Quarry, shape: &Shape, seeds: Range<u64>) -> Result<Caught> {
    let shape = quarry.shape(shape);
    for seed in seeds {
        let found = run_seed(seed, &shape, false)?.violations;
        if let Some(found) = found.into_iter().find(|found| quarry.is_caught_by(found)) {
            return Ok(Caught {
                bug: quarry.name(),
                seed: Some(seed),
                kind: Some(found.kind()),
                fact: Some(found.to_string()),
            });
        }
    }
    Ok(Caught { bug: quarry.name(), seed: None, kind: None, fact: None })
}

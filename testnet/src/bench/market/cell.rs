//! Cells: what one rival came to on one task with one seed, a line each in `results.jsonl`.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// One finished cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cell {
    pub(super) task: String,
    pub(super) kind: String,
    pub(super) family: String,
    /// Whether rivals were tuned on the task, which is then no part of the benchmark.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) tuning: bool,
    pub(super) seed: u64,
    pub(super) league: String,
    pub(super) rival: String,
    /// Tokens it might use.
    pub(super) budget: u64,
    /// Hashes of the sources that made it.
    pub(super) code: String,
    /// Tokens it used: forward and backward, padding, and validation at a third.
    pub(super) tokens: u64,
    /// Processor time of its training.
    pub(super) cpu_s: f64,
    /// Scores on the judges' rows, in micro-nats.
    pub(super) sealed: Vec<u32>,
    /// Scores on the rows that nobody chose by, in micro-nats.
    pub(super) report: Vec<u32>,
    /// Why it has no checkpoint; the scores are the base's then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) fault: Option<String>,
    /// What its checkpoint was trained with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) recipe: Option<String>,
}

/// What makes a cell the cell it is.
pub(super) type Place<'a> = (&'a str, u64, &'a str, &'a str, u64);

impl Cell {
    pub(super) fn place(&self) -> Place<'_> {
        (&self.task, self.seed, &self.league, &self.rival, self.budget)
    }

    /// Mean score on the rows that nobody chose by, in nats.
    pub(super) fn mean(&self) -> f64 {
        let sum: f64 = self.report.iter().map(|score| f64::from(*score)).sum();
        sum / 1e6 / self.report.len().max(1) as f64
    }
}

/// Reads the cells of a file; none when there is no file. Of two at one place the later counts.
pub(super) fn read(path: &Path) -> Result<Vec<Cell>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let mut cells: Vec<Cell> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let about = || format!("line {} of {} is no cell; remove it", at + 1, path.display());
        let cell: Cell = serde_json::from_str(line).with_context(about)?;
        cells.retain(|other| other.place() != cell.place());
        cells.push(cell);
    }
    Ok(cells)
}

/// Adds a cell as a whole line.
pub(super) fn append(path: &Path, cell: &Cell) -> Result<()> {
    let line = serde_json::to_string(cell)? + "\n";
    ensure!(!line.trim_end().contains('\n'), "a cell is one line");
    let open = OpenOptions::new().create(true).append(true).open(path);
    let mut file = open.with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(line.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
pub(super) fn sample(task: &str, seed: u64, rival: &str, score: u32) -> Cell {
    Cell {
        task: task.into(),
        kind: "instruction".into(),
        family: task.into(),
        tuning: false,
        seed,
        league: "lora".into(),
        rival: rival.into(),
        budget: 1_000,
        code: "0".into(),
        tokens: 1_000,
        cpu_s: 1.0,
        // Rows differ in difficulty, as real ones do.
        sealed: (0..40).map(|row| score + 37 * (row * 7919 % 1_000)).collect(),
        report: (0..40).map(|row| score + 41 * (row * 104_729 % 1_000)).collect(),
        fault: None,
        recipe: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_come_back_and_the_later_one_at_a_place_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("results.jsonl");
        assert_eq!(read(&path).expect("no file is no cell"), []);
        let (old, other, new) =
            (sample("t", 1, "base", 5), sample("t", 2, "base", 5), sample("t", 1, "base", 6));
        for cell in [&old, &other, &new] {
            append(&path, cell).expect("written");
        }
        assert_eq!(read(&path).expect("cells"), [other, new]);
        fs::write(&path, "{\"task\":\"t\"").expect("written");
        let error = format!("{:#}", read(&path).expect_err("cut off"));
        assert!(error.contains("line 1"), "{error}");
    }
}

//! A result: what was measured, the bar it is held to, the command, the machine, the caveats.

use serde::{Deserialize, Serialize};

use super::machine::Machine;

/// One benchmark's result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Name of the benchmark.
    pub(crate) bench: String,
    /// The command as it was given.
    pub(crate) command: String,
    /// Made with `--quick`: shows that it works, measures nothing.
    pub(crate) quick: bool,
    pub(crate) machine: Machine,
    pub(crate) rows: Vec<Row>,
    /// Latency at several loads, where it was measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) curves: Vec<Curve>,
    /// What a reader must know to judge the figures.
    pub(crate) notes: Vec<String>,
    /// What must hold on every machine and did not.
    pub(crate) failures: Vec<String>,
}

/// One figure.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) unit: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bar: Option<Bar>,
}

/// What a figure is held to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bar {
    AtLeast(f64),
    AtMost(f64),
}

/// Latency at several loads on one network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<Point>,
}

/// Latency at one load.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// Transactions offered a second.
    pub(crate) offered_per_s: f64,
    /// Transactions decided a second.
    pub(crate) decided_per_s: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p95_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Bar {
    pub(crate) fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bar) => value >= bar,
            Self::AtMost(bar) => value <= bar,
        }
    }

    pub(crate) fn text(self) -> String {
        match self {
            Self::AtLeast(bar) => format!("≥ {}", number(bar)),
            Self::AtMost(bar) => format!("≤ {}", number(bar)),
        }
    }
}

impl Row {
    /// Says whether the bar holds; none where there is no bar.
    pub(crate) fn holds(&self) -> Option<bool> {
        self.bar.map(|bar| bar.holds(self.value))
    }
}

impl Report {
    pub(crate) fn new(bench: &str, quick: bool) -> Self {
        Self {
            bench: bench.to_owned(),
            command: command(),
            quick,
            machine: Machine::look(),
            rows: Vec::new(),
            curves: Vec::new(),
            notes: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Adds a figure without a bar.
    pub(crate) fn fact(&mut self, what: impl Into<String>, value: f64, unit: &str) {
        self.rows.push(Row { what: what.into(), value, unit: unit.to_owned(), bar: None });
    }

    /// Adds a figure that is held to a bar.
    pub(crate) fn held(&mut self, what: impl Into<String>, value: f64, unit: &str, bar: Bar) {
        self.rows.push(Row { what: what.into(), value, unit: unit.to_owned(), bar: Some(bar) });
    }

    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Adds what must hold on every machine, when it does not.
    pub(crate) fn must(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.failures.push(otherwise());
        }
    }

    /// Prints the result for people.
    pub(crate) fn show(&self) {
        println!("{}", self.bench);
        println!("  {}", self.command);
        println!("  {}", self.machine.text());
        for row in &self.rows {
            let bar = match (row.bar.filter(|_| !self.quick), row.holds()) {
                (Some(bar), Some(true)) => format!("   {} holds", bar.text()),
                (Some(bar), Some(false)) => format!("   {} MISSED", bar.text()),
                (Some(_), None) | (None, _) => String::new(),
            };
            println!("  {:<64} {:>10} {:<12}{bar}", row.what, number(row.value), row.unit);
        }
        for curve in &self.curves {
            println!("  {}", curve.name);
            for point in &curve.points {
                println!(
                    "    {:>6} tx/s offered, {:>6} decided: p50 {:>6} ms, p95 {:>6} ms, p99 {:>6} ms",
                    number(point.offered_per_s),
                    number(point.decided_per_s),
                    number(point.p50_ms),
                    number(point.p95_ms),
                    number(point.p99_ms)
                );
            }
        }
        for note in &self.notes {
            println!("  note: {note}");
        }
        for failure in &self.failures {
            println!("  FAILED: {failure}");
        }
    }
}

/// The command line, with the program's name alone in front.
fn command() -> String {
    let mut words: Vec<String> = std::env::args().collect();
    if let Some(program) = words.first_mut() {
        *program = "tiltyard-testnet".to_owned();
    }
    words.join(" ")
}

/// Writes a figure with three significant digits or as a whole number.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        0.0 => "0".to_owned(),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// Returns the value below which `share` (0 to 1) of the samples lie: one that occurred; 0 without samples.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * share).ceil() as usize;
    sorted.get(at.min(last)).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_includes_its_own_value() {
        assert!(Bar::AtLeast(0.2).holds(0.2) && !Bar::AtLeast(0.2).holds(0.19));
        assert!(Bar::AtMost(30.0).holds(30.0) && !Bar::AtMost(30.0).holds(30.1));
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let sorted: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&sorted, 0.5), 51.0);
        assert_eq!(percentile(&sorted, 0.99), 100.0);
        assert_eq!(percentile(&[7.0], 0.5), 7.0);
        assert_eq!(percentile(&[], 0.5), 0.0);
    }
}

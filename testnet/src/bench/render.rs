//! Makes the table of BENCH.md from a folder of results, so that no figure is typed by hand.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::plot;
use super::report::{Report, number};

/// Options of the renderer.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Folder with one JSON result a benchmark.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Puts the figures into this document, between its two lines for them, instead of printing them.
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
    /// Draws load against latency into this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Prints or splices the figures, and draws.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let reports = read(&options.dir)?;
    let markdown = table(&reports);
    match &options.into {
        None => print!("{markdown}"),
        Some(file) => splice(file, &markdown)?,
    }
    let curves: Vec<_> = reports.iter().flat_map(|report| report.curves.clone()).collect();
    if let (Some(path), Some(svg)) = (&options.svg, plot::load_against_latency(&curves)) {
        fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(true)
}

/// Between these lines of a document stand the figures.
const BEGIN: &str = "<!-- figures: made by `tiltyard-testnet bench render` -->";
const END: &str = "<!-- end of figures -->";

fn splice(path: &Path, markdown: &str) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let spliced = between(&text, markdown)
        .with_context(|| format!("{} has no lines {BEGIN:?} and {END:?}", path.display()))?;
    fs::write(path, spliced).with_context(|| format!("cannot write {}", path.display()))
}

fn between(text: &str, markdown: &str) -> Option<String> {
    let (head, rest) = text.split_once(BEGIN)?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{BEGIN}\n\n{markdown}\n{END}{tail}"))
}

fn read(dir: &Path) -> Result<Vec<Report>> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .with_context(|| format!("cannot read {}", dir.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    ensure!(!files.is_empty(), "{} holds no result; make some with --out", dir.display());
    files
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            serde_json::from_str(&text).with_context(|| format!("{} is no result", path.display()))
        })
        .collect()
}

/// Writes results as Markdown: the bars first, then every benchmark with its command, machine and caveats.
fn table(reports: &[Report]) -> String {
    let mut text = String::from("| benchmark | figure | measured | bar | |\n|---|---|---|---|---|\n");
    for report in reports {
        for row in &report.rows {
            let (Some(bar), Some(holds)) = (row.bar, row.holds()) else { continue };
            let verdict = match (report.quick, holds) {
                (true, _) => "quick: no measure",
                (false, true) => "holds",
                (false, false) => "**missed**",
            };
            let _ = writeln!(
                text,
                "| {} | {} | {} {} | {} | {verdict} |",
                report.bench,
                row.what,
                number(row.value),
                row.unit,
                bar.text()
            );
        }
    }
    for report in reports {
        let _ = write!(
            text,
            "\n### {}\n\n`{}`\n\n{}\n\n| figure | measured |\n|---|---|\n",
            report.bench,
            report.command,
            report.machine.text()
        );
        for row in &report.rows {
            let _ = writeln!(text, "| {} | {} {} |", row.what, number(row.value), row.unit);
        }
        for note in &report.notes {
            let _ = write!(text, "\n- {note}");
        }
        for failure in &report.failures {
            let _ = write!(text, "\n- FAILED: {failure}");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::Bar;

    #[test]
    fn figures_replace_the_old_ones_and_nothing_else() {
        let text = format!("above\n{BEGIN}\nold\n{END}\nbelow\n");
        let new = between(&text, "new").expect("both lines");
        assert_eq!(new, format!("above\n{BEGIN}\n\nnew\n{END}\nbelow\n"));
        assert_eq!(between(&new, "new"), Some(new.clone()));
        assert_eq!(between("nothing", "new"), None);
    }

    #[test]
    fn a_missed_bar_is_written_as_missed_and_a_quick_run_measures_nothing() {
        let mut report = Report::new("heights", false);
        report.held("a", 0.1, "×", Bar::AtLeast(0.2));
        report.held("b", 0.3, "×", Bar::AtLeast(0.2));
        let text = table(&[report.clone()]);
        assert!(text.contains("| heights | a | 0.10 × | ≥ 0.20 | **missed** |"), "{text}");
        assert!(text.contains("| heights | b | 0.30 × | ≥ 0.20 | holds |"), "{text}");
        report.quick = true;
        assert!(!table(&[report]).contains("missed"));
    }
}

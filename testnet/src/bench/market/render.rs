//! Tables as Markdown and the plot of loss against tokens, made from the cells alone.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::cell::Cell;
use super::table::{Comparison, How, Tables};
use crate::bench::plot::escaped;

/// Between these lines of a document stand the tables.
const BEGIN: &str = "<!-- market: made by `tiltyard-testnet bench market --render --into` -->";
const END: &str = "<!-- end of market -->";
/// The plot, beside the document.
const PLOT: &str = "market-tokens.svg";
/// Columns of the table of losses, as far as they took part.
const COLUMNS: [&str; 10] = [
    "base",
    "preset:autotrain-ui",
    "preset:autotrain-ui-stretched",
    "preset:axolotl-stretched",
    "sweep:60",
    "random:60",
    "tpe:60",
    "search:0",
    "market-3",
    "market-8",
];

/// Puts the tables into a document and draws the plot beside it.
pub(super) fn write(document: &Path, cells: &[Cell], tables: &[Tables]) -> Result<()> {
    let text = fs::read_to_string(document).with_context(|| format!("cannot read {}", document.display()))?;
    let spliced = between(&text, &markdown(cells, tables))
        .with_context(|| format!("{} has no lines {BEGIN:?} and {END:?}", document.display()))?;
    fs::write(document, spliced).with_context(|| format!("cannot write {}", document.display()))?;
    if let Some(svg) = tables.iter().max_by_key(|table| table.cells).and_then(plot) {
        let path = document.with_file_name(PLOT);
        fs::write(&path, svg).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn between(text: &str, markdown: &str) -> Option<String> {
    let (head, rest) = text.split_once(BEGIN)?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{BEGIN}\n\n{markdown}\n{END}{tail}"))
}

/// Writes everything as Markdown.
pub(super) fn markdown(cells: &[Cell], tables: &[Tables]) -> String {
    let mut text = String::new();
    for table in tables {
        let (tokens, cpu): (u64, f64) = cells
            .iter()
            .filter(|cell| cell.league == table.league && cell.budget % table.budget == 0)
            .fold((0, 0.0), |(tokens, cpu), cell| (tokens + cell.tokens, cpu + cell.cpu_s));
        let _ = writeln!(
            text,
            "### League `{}`, {} tokens a miner\n\n{} cells, {} of them by older code (marked †); {:.1} million tokens, {:.0} s of one processor.\n",
            table.league,
            table.budget,
            table.cells,
            table.older,
            tokens as f64 / 1e6,
            cpu
        );
        comparisons(&mut text, table);
        losses(&mut text, table);
    }
    if tables.is_empty() {
        text.push_str("No cells yet.\n");
    }
    text
}

fn comparisons(text: &mut String, table: &Tables) {
    text.push_str(
        "| ours | against | how | tasks (seeds) | won | tied | lost | of decided won | our loss is lower by (95 % over tasks) | lost on |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for pair in &table.comparisons {
        let [mean, low, high] = pair.lower;
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} ({}) | {} | {} | {} | {} | {mean:.1} % ({low:.1} to {high:.1}) | {} |",
            pair.ours,
            pair.theirs,
            how(pair.how),
            pair.tasks,
            pair.seeds,
            pair.wins,
            pair.ties,
            pair.losses,
            share(pair),
            pair.lost.join(", ")
        );
    }
    text.push('\n');
}

fn how(how: How) -> &'static str {
    match how {
        How::AsPublished => "as published",
        How::EqualWall => "equal wall",
        How::EqualTotal => "equal total",
    }
}

fn share(pair: &Comparison) -> String {
    match pair.wins + pair.losses {
        0 => "-".to_owned(),
        decided => format!("{:.0} %", 100.0 * pair.wins as f64 / decided as f64),
    }
}

fn losses(text: &mut String, table: &Tables) {
    let columns: Vec<_> =
        COLUMNS.iter().filter_map(|name| table.standings.iter().find(|found| found.name == *name)).collect();
    let tasks: BTreeSet<&String> = columns.iter().flat_map(|column| column.losses.keys()).collect();
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let _ = writeln!(text, "| task | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
    for task in tasks {
        let values: Vec<String> = columns
            .iter()
            .map(|column| {
                let mark = if column.older.contains(task) { " †" } else { "" };
                column.losses.get(task).map_or("-".to_owned(), |loss| format!("{loss:.4}{mark}"))
            })
            .collect();
        let _ = writeln!(text, "| {task} | {} |", values.join(" | "));
    }
    text.push('\n');
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 60.0;

/// A line of the plot: a name and the contestants that are its points.
const LINES: [(&str, &[&str], &str); 6] = [
    ("market of 1, 3, 8", &["search:0", "market-3", "market-8"], "#1b6ca8"),
    ("sweep", &["sweep:60", "sweep:60 ×3"], "#c8553d"),
    ("random", &["random:60", "random:60 ×3"], "#7a4b9d"),
    ("TPE", &["tpe:60", "tpe:60 ×3"], "#2e7d4f"),
    (
        "AutoTrain, published and stretched",
        &["preset:autotrain-ui", "preset:autotrain-ui-stretched"],
        "#8a6d1d",
    ),
    ("axolotl, stretched", &["preset:axolotl-stretched"], "#555555"),
];

/// A line of the plot with its points: tokens, and loss as a share of the base's.
struct Line {
    name: &'static str,
    points: Vec<(f64, f64)>,
    colour: &'static str,
}

/// Where points lie on the paper: the logarithms of the fewest and the most tokens.
#[derive(Clone, Copy)]
struct Axes {
    low: f64,
    high: f64,
}

impl Axes {
    fn of(lines: &[Line]) -> Self {
        let all = lines.iter().flat_map(|line| &line.points);
        let (low, high) =
            all.fold((f64::MAX, 1.0f64), |(low, high), point| (low.min(point.0), high.max(point.0)));
        Self { low: low.max(1.0).ln(), high: (high * 1.05).ln() }
    }

    fn x(self, tokens: f64) -> f64 {
        let share = (tokens.max(1.0).ln() - self.low) / (self.high - self.low).max(1e-9);
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    fn y(share: f64) -> f64 {
        HEIGHT - BOTTOM - share.clamp(0.0, 1.05) / 1.05 * (HEIGHT - TOP - BOTTOM)
    }
}

/// Draws loss, as a share of the base's, against tokens; none when there is no task that all who take part played.
fn plot(table: &Tables) -> Option<String> {
    let tasks = common(table)?;
    let lines = lines(table, &tasks);
    let axes = Axes::of(&lines);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-weight=\"bold\">Loss on rows that nobody chose by, as a share of the base's; {} tasks</text>\n",
        tasks.len()
    );
    frame(&mut svg, axes);
    for (place, line) in lines.iter().enumerate() {
        draw(&mut svg, axes, line, place);
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

fn lines(table: &Tables, tasks: &[String]) -> Vec<Line> {
    let find = |name: &str| table.standings.iter().find(|standing| standing.name == name);
    let point = |name: &str| {
        let (found, base) = (find(name)?, find("base")?);
        let mut sums = (0.0, 0.0);
        for task in tasks {
            sums.0 += found.tokens.get(task)?;
            sums.1 += found.losses.get(task)? / base.losses.get(task)?.max(1e-9);
        }
        Some((sums.0 / tasks.len() as f64, sums.1 / tasks.len() as f64))
    };
    let made = LINES.iter().map(|(name, points, colour)| {
        let points = points.iter().filter_map(|name| point(name)).collect();
        Line { name, points, colour }
    });
    made.filter(|line| !line.points.is_empty()).collect()
}

fn frame(svg: &mut String, axes: Axes) {
    for step in 0..=5 {
        let share = f64::from(step) / 5.0;
        let (at, right) = (Axes::y(share), WIDTH - RIGHT);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" stroke=\"#dddddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{share:.1}</text>",
            LEFT - 8.0,
            at + 4.0
        );
    }
    let ticks: [f64; 6] = [1e4, 3e4, 1e5, 3e5, 1e6, 3e6];
    for tokens in ticks.into_iter().filter(|tokens| (axes.low..=axes.high).contains(&tokens.ln())) {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}k</text>",
            axes.x(tokens),
            HEIGHT - BOTTOM + 20.0,
            tokens / 1e3
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">tokens trained on, all miners and trials together (logarithmic)</text>",
        f64::midpoint(LEFT, WIDTH - RIGHT),
        HEIGHT - 16.0
    );
}

fn draw(svg: &mut String, axes: Axes, line: &Line, place: usize) {
    let colour = line.colour;
    let places: Vec<(f64, f64)> =
        line.points.iter().map(|(tokens, share)| (axes.x(*tokens), Axes::y(*share))).collect();
    let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
        path.join(" ")
    );
    for (x, y) in places {
        let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>");
    }
    let (at, from) = (TOP + 20.0 * place as f64, WIDTH - RIGHT + 12.0);
    let _ = writeln!(
        svg,
        "<circle cx=\"{from}\" cy=\"{at}\" r=\"4\" fill=\"{colour}\"/><text x=\"{}\" y=\"{}\" font-size=\"11\">{}</text>",
        from + 9.0,
        at + 4.0,
        escaped(line.name)
    );
}

/// The tasks that every contestant of the lines played, of those that took part at all.
fn common(table: &Tables) -> Option<Vec<String>> {
    let taking_part = table.standings.iter().filter(|standing| {
        standing.name == "base" || LINES.iter().any(|(_, names, _)| names.contains(&standing.name.as_str()))
    });
    let tasks = taking_part
        .map(|standing| standing.losses.keys().cloned().collect::<BTreeSet<String>>())
        .reduce(|a, b| a.intersection(&b).cloned().collect())?;
    (!tasks.is_empty()).then(|| tasks.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::super::cell::sample;
    use super::super::table::tables;
    use super::*;

    fn cells() -> Vec<Cell> {
        let rivals =
            [("base", 4_000_000), ("search:0", 2_000_000), ("search:1", 2_100_000), ("search:2", 2_200_000)];
        let mut cells: Vec<Cell> = rivals.map(|(name, score)| sample("a", 1, name, score)).to_vec();
        cells.push(sample("a", 1, "sweep:60", 1_000_000));
        cells
    }

    #[test]
    fn losses_wins_and_old_code_are_in_the_text() {
        let text = markdown(&cells(), &tables(&cells()));
        assert!(text.contains("| market-3 | sweep:60 | equal wall | 1 (1) | 0 | 0 | 1 | 0 % |"), "{text}");
        assert!(text.contains("| a |") && text.contains(" †"), "{text}");
        assert!(markdown(&[], &[]).contains("No cells yet"));
    }

    #[test]
    fn the_plot_is_whole_and_better_is_lower() {
        let made = tables(&cells());
        let svg = plot(&made[0]).expect("there is a common task");
        assert!(svg.trim_end().ends_with("</svg>") && !svg.contains("NaN"), "{svg}");
        assert_eq!(svg.matches("<polyline").count(), 2, "the market and the sweep");
    }

    #[test]
    fn tables_replace_the_old_ones_and_nothing_else() {
        let text = format!("above\n{BEGIN}\nold\n{END}\nbelow\n");
        assert_eq!(between(&text, "new"), Some(format!("above\n{BEGIN}\n\nnew\n{END}\nbelow\n")));
        assert_eq!(between("nothing", "new"), None);
    }
}

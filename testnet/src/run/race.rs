//! Draws the race: a live picture in a terminal, plain lines elsewhere.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::time::Instant;

/// One runner in one task.
#[derive(Debug, Clone, Default)]
pub(crate) struct Runner {
    pub(crate) name: String,
    pub(crate) strategy: String,
    /// What it does now: training, committed, revealed, rank.
    pub(crate) stage: String,
    /// Share of its training done, 0 to 1.
    pub(crate) done: f64,
    pub(crate) step: u64,
    /// Training loss, in nats.
    pub(crate) loss: Option<f64>,
    /// After the verdict: mean score in nats and gain in percent.
    pub(crate) score: Option<(f64, f64)>,
}

/// One task.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lane {
    pub(crate) title: String,
    pub(crate) phase: String,
    /// Blocks until the phase closes.
    pub(crate) blocks_left: Option<u64>,
    pub(crate) runners: Vec<Runner>,
}

/// Everything on the screen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Picture {
    pub(crate) height: u64,
    /// Name and height of each node; no height while it is down.
    pub(crate) nodes: Vec<(String, Option<u64>)>,
    pub(crate) lanes: Vec<Lane>,
}

/// Draws pictures and tells news.
#[derive(Debug)]
pub(crate) struct Screen {
    live: bool,
    started: Instant,
    drawn_lines: usize,
    last_plain: Vec<(String, String)>,
}

const BAR: usize = 24;

impl Screen {
    pub(crate) fn new() -> Self {
        Self {
            live: io::stdout().is_terminal(),
            started: Instant::now(),
            drawn_lines: 0,
            last_plain: Vec::new(),
        }
    }

    /// Prints one line of news above the picture.
    pub(crate) fn tell(&mut self, news: &str) {
        self.wipe();
        println!("[{:6.1} s] {news}", self.started.elapsed().as_secs_f64());
        let _ = io::stdout().flush();
    }

    /// Draws the picture in place, or, without a terminal, a line for each phase and stage that changed.
    pub(crate) fn draw(&mut self, picture: &Picture) {
        if self.live {
            self.wipe();
            let text = paint(picture, self.started.elapsed().as_secs_f64());
            self.drawn_lines = text.lines().count();
            print!("{text}");
            let _ = io::stdout().flush();
            return;
        }
        let mut now = Vec::new();
        for lane in &picture.lanes {
            now.push((lane.title.clone(), lane.phase.clone()));
            for runner in &lane.runners {
                // A quarter of the way is worth a line; every step is not.
                let quarter = (runner.done * 4.0).floor() * 25.0;
                let stage = match runner.stage.as_str() {
                    "training" => format!("training {quarter:.0} %"),
                    stage => stage.to_owned(),
                };
                now.push((format!("{} · {}", lane.title, runner.name), stage));
            }
        }
        for (who, what) in &now {
            if !what.is_empty() && !self.last_plain.contains(&(who.clone(), what.clone())) {
                println!(
                    "[{:6.1} s] height {:>4}  {who}: {what}",
                    self.started.elapsed().as_secs_f64(),
                    picture.height
                );
            }
        }
        self.last_plain = now;
        let _ = io::stdout().flush();
    }

    fn wipe(&mut self) {
        if self.live && self.drawn_lines > 0 {
            // Up to the first line of the picture, and clear all below.
            print!("\x1b[{}A\x1b[J", self.drawn_lines);
        }
        self.drawn_lines = 0;
    }
}

fn paint(picture: &Picture, seconds: f64) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "\n\x1b[1mTiltyard\x1b[0m  height {}  {seconds:.0} s", picture.height);
    let nodes: Vec<String> = picture
        .nodes
        .iter()
        .map(|(name, height)| match height {
            Some(height) => format!("{name} {height}"),
            None => format!("\x1b[31m{name} down\x1b[0m"),
        })
        .collect();
    for line in nodes.chunks(5) {
        let _ = writeln!(out, "  {}", line.join("  "));
    }
    for lane in &picture.lanes {
        let left = lane.blocks_left.map_or_else(String::new, |left| format!("  {left} blocks left"));
        let _ = writeln!(out, "\n\x1b[1m{}\x1b[0m  \x1b[36m{}\x1b[0m{left}", lane.title, lane.phase);
        for runner in &lane.runners {
            let filled = ((runner.done.clamp(0.0, 1.0) * BAR as f64).round() as usize).min(BAR);
            let bar = format!("{}{}", "█".repeat(filled), "░".repeat(BAR - filled));
            let loss = runner.loss.map_or_else(|| "       ".to_owned(), |loss| format!("{loss:7.4}"));
            let score = runner
                .score
                .map_or_else(String::new, |(mean, gain)| format!("  score {mean:.4}  gain {gain:+.1} %"));
            let _ = writeln!(
                out,
                "  {:<9} {:<16} {bar} step {:>5}  loss {loss}  {}{score}",
                runner.name, runner.strategy, runner.step, runner.stage
            );
        }
    }
    out
}

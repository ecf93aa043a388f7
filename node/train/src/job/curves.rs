//! `progress.jsonl` for eyes: a table as CSV, curves as SVG.

use std::fmt::Write as _;
use std::path::Path;

use super::progress::{Phase, ProgressLine};
use crate::safe::{LoadError, read_bytes};

/// Longest progress file read, in bytes.
const FILE_BYTES_MAX: u64 = 256 << 20;
const WIDTH: f64 = 760.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 20.0;
/// Top and height of the two panels: loss, learning rate.
const PANELS: [(f64, f64); 2] = [(40.0, 260.0), (350.0, 110.0)];
const HEIGHT: f64 = 500.0;
const RAW: &str = "#b8cfe0";
const SMOOTH: &str = "#1b6ca8";
const HELD_OUT: &str = "#c8553d";
const RATE: &str = "#2e7d4f";
/// Weight of the past in the smoothed loss.
const PAST: f64 = 0.9;
/// Points of one line; more are thinned out, as a screen has no more columns.
const POINTS_MAX: usize = 1_500;

/// Reads a job folder's progress; lines that do not parse (the last of a killed job) are left out.
///
/// # Errors
/// [`LoadError`] when there is no such file.
pub fn read(file: &Path) -> Result<Vec<ProgressLine>, LoadError> {
    let bytes = read_bytes(file, FILE_BYTES_MAX)?;
    let lines = bytes.split(|&byte| byte == b'\n');
    Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

/// Writes a table: losses in nats, rates as they are, nothing where nothing was measured.
pub fn csv(lines: &[ProgressLine]) -> String {
    let mut out = "phase,step,steps,tokens,loss,validation,learning_rate,tokens_per_s\n".to_owned();
    let micro = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{:.6}", value / 1e6));
    for line in lines {
        let loss = micro(line.loss_micro.map(f64::from));
        let validation = micro(line.validation_micro.map(|value| value as f64));
        let rate = line.lr_nano.map_or_else(String::new, |rate| format!("{:e}", rate as f64 / 1e9));
        let (step, steps, tokens, speed) = (line.step, line.steps, line.tokens, line.tokens_per_s);
        // Writing to a string cannot fail.
        let _ =
            writeln!(out, "{},{step},{steps},{tokens},{loss},{validation},{rate},{speed}", name(line.phase));
    }
    out
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Train => "train",
        Phase::RateTest => "rate-test",
        Phase::Bracket => "bracket",
        Phase::Final => "final",
    }
}

/// One panel's scale.
#[derive(Debug, Clone, Copy)]
struct Axes {
    tokens: f64,
    low: f64,
    high: f64,
    top: f64,
    height: f64,
}

impl Axes {
    fn place(&self, (tokens, value): (f64, f64)) -> (f64, f64) {
        let x = LEFT + tokens / self.tokens * (WIDTH - LEFT - RIGHT);
        let share = (value - self.low) / (self.high - self.low);
        (x, self.top + self.height * (1.0 - share.clamp(0.0, 1.0)))
    }

    fn frame(&self, svg: &mut String, title: &str, show: impl Fn(f64) -> String) {
        let _ =
            writeln!(svg, r#"<text x="{LEFT}" y="{}" font-weight="bold">{title}</text>"#, self.top - 12.0);
        for step in 0..=4 {
            let value = self.low + (self.high - self.low) * f64::from(step) / 4.0;
            let (_, y) = self.place((0.0, value));
            let (right, text) = (WIDTH - RIGHT, show(value));
            let _ = writeln!(
                svg,
                r##"<line x1="{LEFT}" y1="{y:.1}" x2="{right}" y2="{y:.1}" stroke="#ddd"/><text x="{}" y="{:.1}" text-anchor="end">{text}</text>"##,
                LEFT - 6.0,
                y + 4.0
            );
        }
    }

    fn line(&self, svg: &mut String, points: &[(f64, f64)], colour: &str, width: f64) {
        let every = points.len().div_ceil(POINTS_MAX).max(1);
        let places = points.iter().step_by(every).chain(points.last()).map(|point| self.place(*point));
        let path: Vec<String> = places.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            svg,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="{width}"/>"#,
            path.join(" ")
        );
    }
}

fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut kept: Option<f64> = None;
    let step = |&(tokens, value): &(f64, f64)| {
        let next = kept.map_or(value, |past| PAST * past + (1.0 - PAST) * value);
        kept = Some(next);
        (tokens, next)
    };
    points.iter().map(step).collect()
}

/// Draws training loss, held-out loss and learning rate against tokens; `None` when no step was taken.
pub fn svg(lines: &[ProgressLine]) -> Option<String> {
    let points = |value: fn(&ProgressLine) -> Option<f64>| -> Vec<(f64, f64)> {
        lines.iter().filter_map(|line| Some((line.tokens as f64, value(line)?))).collect()
    };
    let losses = points(|line| line.loss_micro.map(|loss| f64::from(loss) / 1e6));
    let held_out = points(|line| {
        // A measurement that is no number is written as the largest one.
        line.validation_micro.filter(|&value| value < 1 << 25).map(|value| value as f64 / 1e6)
    });
    let rates = points(|line| line.lr_nano.map(|rate| rate as f64 / 1e9));
    let tokens = losses.last()?.0.max(1.0);
    let values = || losses.iter().chain(&held_out).map(|(_, value)| *value);
    let high = values().fold(0.0, f64::max).max(1e-3);
    let low = values().fold(high, f64::min).min(high * 0.9);
    let rate_max = rates.iter().map(|(_, rate)| *rate).fold(0.0, f64::max).max(1e-12);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let [(top, height), (rate_top, rate_height)] = PANELS;
    let axes = Axes { tokens, low, high, top, height };
    axes.frame(&mut svg, "loss, in nats: each step, smoothed, and held out (dots)", |value| {
        format!("{value:.2}")
    });
    axes.line(&mut svg, &losses, RAW, 1.0);
    axes.line(&mut svg, &smooth(&losses), SMOOTH, 2.0);
    for (x, y) in held_out.iter().map(|point| axes.place(*point)) {
        let _ = writeln!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" fill="{HELD_OUT}"/>"#);
    }
    let axes = Axes { tokens, low: 0.0, high: rate_max, top: rate_top, height: rate_height };
    axes.frame(&mut svg, "learning rate", |value| format!("{value:.1e}"));
    axes.line(&mut svg, &rates, RATE, 2.0);
    for step in 0..=4 {
        let at = tokens * f64::from(step) / 4.0;
        let (x, _) = axes.place((at, 0.0));
        let y = rate_top + rate_height + 18.0;
        let _ = writeln!(svg, r#"<text x="{x:.1}" y="{y}" text-anchor="middle">{at:.0}</text>"#);
    }
    let _ = writeln!(
        svg,
        r#"<text x="{}" y="{}" text-anchor="middle">tokens trained on</text>"#,
        WIDTH / 2.0,
        HEIGHT - 4.0
    );
    svg.push_str("</svg>\n");
    Some(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(step: u64, loss_micro: Option<u32>, validation_micro: Option<u64>) -> ProgressLine {
        ProgressLine {
            phase: Phase::Train,
            step,
            steps: 3,
            tokens: step * 100,
            budget_tokens: 1_000,
            loss_micro,
            validation_micro,
            accuracy_ppm: None,
            lr_nano: loss_micro.map(|_| 200_000),
            tokens_per_s: 50,
            eta_s: 1,
        }
    }

    #[test]
    fn steps_and_measurements_share_one_table() {
        let lines = [line(1, Some(2_500_000), None), line(1, None, Some(2_000_000))];
        let want = "phase,step,steps,tokens,loss,validation,learning_rate,tokens_per_s\n\
                    train,1,3,100,2.500000,,2e-4,50\ntrain,1,3,100,,2.000000,,50\n";
        assert_eq!(csv(&lines), want);
    }

    #[test]
    fn the_picture_falls_with_the_loss_and_is_whole() {
        let losses = [4_000_000, 3_000_000, 1_000_000];
        let mut lines: Vec<ProgressLine> =
            (1..).zip(losses).map(|(step, loss)| line(step, Some(loss), None)).collect();
        lines.push(line(3, None, Some(900_000)));
        lines.push(line(3, None, Some(u64::MAX)));
        let svg = svg(&lines).expect("there are steps");
        assert_eq!(svg.matches("<polyline").count(), 3);
        assert_eq!(svg.matches("<circle").count(), 1, "what is no number is not drawn");
        assert!(svg.trim_end().ends_with("</svg>") && !svg.contains("NaN") && !svg.contains("inf"));
        let first = svg.split("<polyline points=\"").nth(1).expect("the raw loss");
        let heights: Vec<f64> = first
            .split('"')
            .next()
            .into_iter()
            .flat_map(|points| points.split(' '))
            .filter_map(|point| point.split(',').nth(1)?.parse().ok())
            .collect();
        assert!(heights.windows(2).all(|pair| pair[0] <= pair[1]), "{heights:?}");
        assert!(super::svg(&[]).is_none());
    }
}

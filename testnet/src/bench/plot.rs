//! Draws load against latency as SVG: one line a network and percentile, linear axes from zero.

use std::fmt::Write as _;

use super::report::{Curve, Point, number};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 56.0;
/// Distinct in hue and in brightness, so that they are told apart on paper too.
const COLOURS: [&str; 4] = ["#1b6ca8", "#c8553d", "#2e7d4f", "#7a4b9d"];
const DASHES: [(&str, &str); 2] = [("p50", ""), ("p95", "6 4")];

/// Where values lie on the paper.
#[derive(Debug, Clone, Copy)]
struct Axes {
    x_max: f64,
    y_max: f64,
}

impl Axes {
    fn x(self, value: f64) -> f64 {
        LEFT + value / self.x_max * (WIDTH - LEFT - RIGHT)
    }

    fn y(self, value: f64) -> f64 {
        HEIGHT - BOTTOM - value / self.y_max * (HEIGHT - TOP - BOTTOM)
    }
}

/// Returns the picture; none when no curve has a point.
pub(crate) fn load_against_latency(curves: &[Curve]) -> Option<String> {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let x_max = round_up(points().map(|point| point.offered_per_s).fold(0.0, f64::max));
    let y_max = round_up(points().map(|point| point.p95_ms).fold(0.0, f64::max));
    points().next()?;
    let axes = Axes { x_max, y_max };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    frame(&mut svg, axes);
    for ((at, curve), colour) in curves.iter().enumerate().zip(COLOURS.iter().cycle()) {
        let of: [fn(&Point) -> f64; 2] = [|point| point.p50_ms, |point| point.p95_ms];
        for (line, ((name, dash), value)) in DASHES.iter().zip(of).enumerate() {
            draw(&mut svg, axes, curve, value, colour, dash);
            let y = TOP + 20.0 * (at * DASHES.len() + line) as f64 + 10.0;
            let x = WIDTH - RIGHT + 16.0;
            let _ = writeln!(
                svg,
                "<line x1=\"{x}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\" stroke=\"{colour}\" stroke-width=\"2\" \
                 stroke-dasharray=\"{dash}\"/><text x=\"{}\" y=\"{}\">{}, {name}</text>",
                x + 26.0,
                x + 32.0,
                y + 4.0,
                escaped(&curve.name)
            );
        }
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

fn frame(svg: &mut String, axes: Axes) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for step in 0..=5 {
        let share = f64::from(step) / 5.0;
        let (x, y) = (axes.x(axes.x_max * share), axes.y(axes.y_max * share));
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#dddddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            LEFT - 8.0,
            y + 4.0,
            number(axes.y_max * share),
            bottom + 20.0,
            number(axes.x_max * share)
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"24\" font-weight=\"bold\">Submission to final, in ms, against load</text>\
         <text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">transactions of 1 KiB offered a second</text>",
        f64::midpoint(LEFT, right),
        HEIGHT - 14.0
    );
}

fn draw(
    svg: &mut String,
    axes: Axes,
    curve: &Curve,
    value: impl Fn(&Point) -> f64,
    colour: &str,
    dash: &str,
) {
    let places: Vec<(f64, f64)> =
        curve.points.iter().map(|point| (axes.x(point.offered_per_s), axes.y(value(point)))).collect();
    let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"/>",
        path.join(" ")
    );
    for (x, y) in places {
        let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
    }
}

/// Returns the next 1, 2 or 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.max(1.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|step| *step >= value).unwrap_or(value)
}

pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(offered: f64, p50: f64, p95: f64) -> Point {
        Point { offered_per_s: offered, decided_per_s: offered, p50_ms: p50, p95_ms: p95, p99_ms: p95 }
    }

    #[test]
    fn every_point_is_drawn_inside_the_frame_and_more_latency_is_higher() {
        let axes = Axes { x_max: 500.0, y_max: 1_000.0 };
        assert!(axes.y(900.0) < axes.y(100.0));
        let curve = Curve {
            name: "7 < 8".to_owned(),
            points: vec![point(50.0, 400.0, 900.0), point(400.0, 600.0, 1_000.0)],
        };
        let svg = load_against_latency(&[curve]).expect("a picture");
        assert_eq!(svg.matches("<circle").count(), 4);
        assert!(svg.contains("7 &lt; 8, p95"));
        assert!((LEFT..=WIDTH - RIGHT).contains(&axes.x(500.0)));
    }

    #[test]
    fn axes_end_at_round_numbers() {
        assert_eq!(
            [round_up(400.0), round_up(1_000.0), round_up(1_001.0), round_up(0.0)],
            [500.0, 1_000.0, 2_000.0, 1.0]
        );
    }

    #[test]
    fn without_points_there_is_no_picture() {
        assert_eq!(load_against_latency(&[]), None);
    }
}

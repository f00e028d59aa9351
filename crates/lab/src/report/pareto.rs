//! Calls against idle addresses, as an SVG: what the clairvoyant can choose from, and where each
//! strategy is.

use plotters::prelude::*;

use super::CaseReport;
use super::chart::{ChartError, Drawn, SIZE, colour, drawn};
use crate::score::share;
use crate::yardstick::Optimum;

/// The colour of the clairvoyant, thin without targets.
const CLAIRVOYANT: RGBColor = RGBColor(0x2e, 0x7d, 0x32);

/// A point: calls that change something for each pod, and idle addresses for each pod.
type Point = (f64, f64);

/// The chart of one case. The lines show the least idle addresses that a number of calls allows,
/// each pod served at its arrival: thick with the policy's targets, thin without.
///
/// # Errors
///
/// If the drawing library fails, which is not expected.
pub fn pareto_chart(case: &CaseReport) -> Result<String, ChartError> {
    drawn(case, draw)
}

fn draw(case: &CaseReport, svg: &mut String) -> Drawn {
    let points = Points::of(case);
    let all = || {
        let strategies = points.strategies.iter().map(|(_, point)| point);
        points.with_targets.iter().chain(&points.without_targets).chain(strategies)
    };
    let most = |of: fn(&Point) -> f64| all().map(of).fold(0.0, f64::max) * 1.1 + 0.01;
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(&case.policy, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..most(|point| point.0), 0.0..most(|point| point.1))?;
    let mut mesh = chart.configure_mesh();
    mesh.x_desc("mutating calls a pod").y_desc("idle addresses a pod").draw()?;
    let lines = [
        ("clairvoyant", &points.with_targets, CLAIRVOYANT.stroke_width(2)),
        ("clairvoyant without targets", &points.without_targets, CLAIRVOYANT.stroke_width(1)),
    ];
    for (name, line, style) in lines {
        chart
            .draw_series(LineSeries::new(line.iter().copied(), style))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        chart.draw_series(line.iter().map(|point| Circle::new(*point, 2, CLAIRVOYANT.filled())))?;
    }
    for (score, (strategy, point)) in case.scores.iter().zip(&points.strategies) {
        let colour = colour(score.strategy);
        chart
            .draw_series([Circle::new(*point, 5, colour.filled())])?
            .label(*strategy)
            .legend(move |(x, y)| Circle::new((x + 9, y), 5, colour.filled()));
    }
    chart.configure_series_labels().border_style(BLACK.mix(0.4)).background_style(WHITE).draw()?;
    area.present()?;
    Ok(())
}

struct Points {
    with_targets: Vec<Point>,
    without_targets: Vec<Point>,
    strategies: Vec<(&'static str, Point)>,
}

impl Points {
    fn of(case: &CaseReport) -> Self {
        // All strategies serve the same pods, but for those that still wait.
        let most = case.scores.iter().max_by(|one, other| one.pods_s.total_cmp(&other.pods_s));
        let (pods_s, n_pods) = most.map_or((1.0, 1), |score| (score.pods_s, score.pods.served));
        let pods_s = pods_s.max(1.0);
        let point = |idle_s: f64, calls| (share(calls, n_pods), idle_s / pods_s);
        let line = |costs: &[Optimum]| {
            let mut line: Vec<_> =
                costs.iter().map(|cost| point(cost.idle_s, cost.calls)).collect();
            line.dedup();
            line
        };
        let strategies = case.scores.iter();
        let strategies = strategies
            .map(|score| (score.strategy.as_str(), point(score.idle_s, score.mutating_calls)));
        Self {
            with_targets: line(&case.clairvoyant.with_targets),
            without_targets: line(&case.clairvoyant.without_targets),
            strategies: strategies.collect(),
        }
    }
}

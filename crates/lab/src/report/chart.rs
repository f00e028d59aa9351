//! Pool size and pods over time, as an SVG.

use plotters::prelude::*;

use super::CaseReport;
use crate::run::Strategy;
use crate::score::{Sample, Score, share};

pub(super) const SIZE: (u32, u32) = (900, 420);
const PODS_COLOUR: RGBColor = RGBColor(0x55, 0x55, 0x55);

/// A chart that could not be drawn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("draw the chart of {policy}: {why}")]
pub struct ChartError {
    policy: String,
    why: String,
}

impl ChartError {
    pub(super) fn new(policy: &str, why: &dyn std::error::Error) -> Self {
        Self { policy: policy.to_owned(), why: why.to_string() }
    }
}

/// The chart of one case. For each strategy it shows the addresses that nodes hold (thick) and the
/// pods with an address (thin), over minutes.
///
/// # Errors
///
/// If the drawing library fails, which is not expected.
pub fn chart(case: &CaseReport) -> Result<String, ChartError> {
    drawn(case, draw)
}

/// What the drawing library returns.
pub(super) type Drawn = Result<(), Box<dyn std::error::Error>>;

/// The SVG that `draw` writes.
pub(super) fn drawn(
    case: &CaseReport,
    draw: fn(&CaseReport, &mut String) -> Drawn,
) -> Result<String, ChartError> {
    let mut svg = String::new();
    match draw(case, &mut svg) {
        Ok(()) => Ok(svg),
        Err(fault) => Err(ChartError::new(&case.policy, fault.as_ref())),
    }
}

fn draw(case: &CaseReport, svg: &mut String) -> Drawn {
    let samples = || case.scores.iter().flat_map(|score| &score.samples);
    let last = samples().map(minutes).fold(1.0, f64::max);
    let most = samples().map(|sample| sample.held.max(sample.running)).max().unwrap_or(0);
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(&case.policy, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..last, 0.0..share(most, 1) * 1.05 + 1.0)?;
    chart.configure_mesh().x_desc("minutes").y_desc("addresses, pods").draw()?;
    for score in &case.scores {
        let colour = colour(score.strategy);
        let name = score.strategy.as_str();
        chart
            .draw_series(LineSeries::new(curve(score, |s| s.held), colour.stroke_width(2)))?
            .label(format!("{name}: addresses"))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        let thin = colour.mix(0.5).stroke_width(1);
        chart
            .draw_series(LineSeries::new(curve(score, |s| s.running), thin))?
            .label(format!("{name}: pods"))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], thin));
    }
    chart.configure_series_labels().border_style(PODS_COLOUR).background_style(WHITE).draw()?;
    area.present()?;
    Ok(())
}

pub(super) fn colour(strategy: Strategy) -> RGBColor {
    match strategy {
        Strategy::Tidepool => RGBColor(0x0b, 0x6e, 0x99),
        Strategy::Incumbent => RGBColor(0xc4, 0x4e, 0x1c),
    }
}

fn curve(score: &Score, value: fn(&Sample) -> u64) -> impl Iterator<Item = (f64, f64)> + '_ {
    score.samples.iter().map(move |sample| (minutes(sample), share(value(sample), 1)))
}

fn minutes(sample: &Sample) -> f64 {
    share(sample.at_ms, 60_000)
}

//! The panels of a dashboard as one SVG, for people who read the documents and have no Grafana at hand.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::dashboards::{Line, Panel};

/// Of one panel, in pixels.
const SIZE: (u32, u32) = (420, 260);
const COLUMNS: usize = 3;
/// Distinct for people who do not see red and green apart, too.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0x0b, 0x6e, 0x99),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0x8a, 0x6d, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x55, 0x55, 0x55),
    RGBColor(0x99, 0x00, 0x00),
];

/// Draws the panels that show lines over time.
pub(crate) fn draw(panels: &[(Panel, Vec<Line>)]) -> Result<String> {
    let panels: Vec<_> = panels.iter().filter(|(panel, _)| panel.kind == "timeseries").collect();
    let rows = panels.len().div_ceil(COLUMNS);
    let mut svg = String::new();
    let (width, height) = (SIZE.0 * u32::try_from(COLUMNS)?, SIZE.1 * u32::try_from(rows)?);
    draw_all(&panels, rows, &mut svg, (width, height)).map_err(|fault| anyhow!("{fault}"))?;
    Ok(svg)
}

fn draw_all(
    panels: &[&(Panel, Vec<Line>)],
    rows: usize,
    svg: &mut String,
    size: (u32, u32),
) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, size).into_drawing_area();
    area.fill(&WHITE)?;
    let start = times(panels).fold(f64::INFINITY, f64::min);
    let end = times(panels).fold(0.0, f64::max);
    for (place, (panel, lines)) in
        area.split_evenly((rows, COLUMNS)).iter().zip(panels.iter().copied())
    {
        let values = lines.iter().flat_map(|(_, series)| &series.samples).map(|(_, value)| *value);
        let most = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
        // The legend is above the lines.
        let most = if most > 0.0 { most * 1.5 } else { 1.0 };
        let mut chart = ChartBuilder::on(place)
            .caption(&panel.title, ("sans-serif", 14))
            .margin(8)
            .x_label_area_size(24)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..(end - start).max(1.0), 0.0..most)?;
        chart
            .configure_mesh()
            .x_labels(5)
            .y_labels(5)
            .label_style(("sans-serif", 10))
            .y_label_formatter(&|value| label(&panel.unit, *value))
            .x_label_formatter(&|seconds| format!("{seconds:.0} s"))
            .light_line_style(WHITE)
            .draw()?;
        for ((legend, series), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
            let points = series.samples.iter().filter(|(_, value)| value.is_finite());
            let points: Vec<_> = points.map(|(time, value)| (time - start, *value)).collect();
            let colour = *colour;
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(1)))?
                .label(legend)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 12, y)], colour));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .label_font(("sans-serif", 9))
            .draw()?;
    }
    area.present()?;
    Ok(())
}

fn times<'a>(panels: &'a [&(Panel, Vec<Line>)]) -> impl Iterator<Item = f64> + 'a {
    let series = panels.iter().flat_map(|(_, lines)| lines).map(|(_, series)| series);
    series.flat_map(|series| &series.samples).map(|(time, _)| *time)
}

/// A value with its unit, as short as Grafana writes it.
fn label(unit: &str, value: f64) -> String {
    match unit {
        "s" if value.abs() < 1.0 => format!("{:.0} ms", value * 1000.0),
        "s" => format!("{value:.0} s"),
        "bytes" => format!("{:.0} MB", value / 1e6),
        "percentunit" => format!("{:.0} %", value * 100.0),
        "ops" => format!("{value:.1}/s"),
        _ if value.abs() < 10.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

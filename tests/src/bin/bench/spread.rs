//! Prints what was measured: one line for each set of times, and a chart of all of them.

use std::time::Duration;

/// Columns of the chart's longest bar.
const WIDTH: usize = 40;

/// The lines that were printed, for the chart at the end.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<(String, Duration, Duration)>);

impl Report {
    /// Prints minimum, percentiles and maximum of `times`.
    pub(crate) fn line(&mut self, what: &str, mut times: Vec<Duration>) {
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100];
        println!(
            "{what:<44} min {:>7} p50 {:>7} p90 {:>7} p99 {:>7} max {:>7} ms, {} calls",
            ms(at(0)),
            ms(at(50)),
            ms(at(90)),
            ms(at(99)),
            ms(at(100)),
            times.len()
        );
        self.0.push((what.to_owned(), at(0), at(50)));
    }

    /// Prints a bar for each line: full up to the minimum, light up to the median.
    pub(crate) fn chart(&self) {
        let longest = self.0.iter().map(|(_, _, p50)| *p50).max().unwrap_or_default();
        let columns = |time: Duration| {
            let part = time.as_micros() * u128::try_from(WIDTH).unwrap_or_default();
            usize::try_from(part / longest.as_micros().max(1)).unwrap_or(WIDTH)
        };
        println!("chart: █ up to the minimum, ░ up to the median");
        for (what, min, p50) in &self.0 {
            let (full, all) = (columns(*min), columns(*p50));
            println!("{what:<44} {}{} {}", "█".repeat(full), "░".repeat(all - full), ms(*p50));
        }
    }
}

/// Milliseconds with two decimals.
pub(crate) fn ms(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1e3)
}

//! Whether what a long run uses stays as it is once the run is under way.

use std::fmt;

use anyhow::{Context as _, Result, ensure};

/// What a figure may come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// In the last quarter at most what it was in the second, and so many per cent and `plus` more.
    /// In the first everything is still filling up.
    Flat {
        /// Of the second quarter's peak.
        percent: u64,
        /// In the figure's unit.
        plus: u64,
    },
    /// Never more than this: for a figure that is cut back only when it has become large.
    AtMost(u64),
    /// More in each quarter than in the one before, or the run has not done its work.
    Rising,
}

/// A figure's peak in each quarter of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    name: &'static str,
    bound: Bound,
    peaks: [Option<u64>; 4],
}

impl Figure {
    /// A figure without a sample. Its name states its unit.
    #[must_use]
    pub const fn new(name: &'static str, bound: Bound) -> Self {
        Self { name, bound, peaks: [None; 4] }
    }

    /// Takes note of `value` when `done` of `all` had been done; of what comes later it takes none.
    pub fn observe(&mut self, done: usize, all: usize, value: u64) {
        if let Some(peak) = self.peaks.get_mut(done * 4 / all.max(1)) {
            *peak = (*peak).max(Some(value));
        }
    }

    /// Holds the figure against its bound.
    ///
    /// # Errors
    ///
    /// If it is out of it, or was not seen in some quarter.
    pub fn verdict(&self) -> Result<()> {
        let seen = || self.peaks.iter().copied().collect::<Option<Vec<u64>>>();
        let peaks = seen().with_context(|| format!("{self}: a quarter without a sample"))?;
        match self.bound {
            Bound::Flat { percent, plus } => {
                let most = peaks[1] + peaks[1] * percent / 100 + plus;
                ensure!(peaks[3] <= most, "{self}: it grows, and may be {most} at the end");
            }
            Bound::AtMost(most) => {
                ensure!(peaks.iter().all(|peak| *peak <= most), "{self}: it may be {most}");
            }
            Bound::Rising => {
                let rises = peaks.is_sorted_by(|before, after| before < after);
                ensure!(rises, "{self}: it should rise in every quarter");
            }
        }
        Ok(())
    }
}

impl fmt::Display for Figure {
    /// The name, then the peaks in columns.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<32}", self.name)?;
        self.peaks.iter().try_for_each(|peak| match peak {
            Some(peak) => write!(f, "{peak:>10}"),
            None => write!(f, "{:>10}", "-"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAT: Bound = Bound::Flat { percent: 10, plus: 5 };

    /// Whether a figure that is `values`, one after the other, is within `bound`.
    fn check(bound: Bound, values: &[u64], expect: bool) {
        let mut figure = Figure::new("figure", bound);
        for (done, value) in values.iter().enumerate() {
            figure.observe(done, values.len(), *value);
        }
        let verdict = figure.verdict();
        assert_eq!(verdict.is_ok(), expect, "{bound:?} {values:?}: {verdict:?}");
    }

    #[test]
    fn slow_growth_is_not_flat() {
        let leak: Vec<u64> = (0..400).map(|step| 100 + step / 4).collect();
        check(FLAT, &leak, false);
        check(FLAT, &[100; 400], true);
    }

    #[test]
    fn sawtooth_is_flat_by_its_peaks() {
        let wave: Vec<u64> = (0..400).map(|step| 100 + step % 50).collect();
        check(FLAT, &wave, true);
        let growing: Vec<u64> = (0..400).map(|step| 100 + step % 50 + step / 8).collect();
        check(FLAT, &growing, false);
    }

    #[test]
    fn last_quarter_beyond_the_bound_fails() {
        // The first quarter is for filling up, and what comes and goes by the third is no leak.
        check(FLAT, &[1, 100, 900, 115], true);
        check(FLAT, &[1, 100, 100, 116], false);
        check(FLAT, &[1, 100, 100, 0], true);
    }

    #[test]
    fn bounded_figure_may_grow_to_its_bound() {
        check(Bound::AtMost(20), &[0, 5, 10, 20], true);
        check(Bound::AtMost(20), &[21, 0, 0, 0], false);
    }

    #[test]
    fn stalled_run_is_seen() {
        check(Bound::Rising, &[0, 1, 2, 3], true);
        check(Bound::Rising, &[0, 1, 2, 2], false);
    }

    #[test]
    fn quarter_without_a_sample_fails() {
        check(FLAT, &[1, 1, 1], false);
        check(FLAT, &[], false);
    }
}

//! How long the parts of a call take, for the log.

use std::time::Instant;

/// Measures one part after the other.
#[derive(Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// The first part begins.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// The microseconds of the part that ends here; the next one begins.
    pub(crate) fn lap(&mut self) -> u64 {
        let now = Instant::now();
        let span = now.duration_since(std::mem::replace(&mut self.0, now));
        u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
    }
}

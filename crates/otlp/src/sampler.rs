//! Which spans are recorded.

use trace_context::{TraceContext, TraceId};

/// Which spans are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    /// A caller that sends a context decides for its request.
    by_parent: bool,
    /// The share of all other traces: ids below this number are recorded. [`ALL`] is all of them.
    below: u64,
}

/// One more than the largest 63-bit number.
const ALL: u64 = 1 << 63;

impl Sampler {
    /// Records the traces whose caller records its spans, if `by_parent`, and of all others this share, from 0 to 1.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share from 0 to 1 of 2^63 is in range, and needs no more than a double's precision"
    )]
    pub fn new(by_parent: bool, share: f64) -> Self {
        Self { by_parent, below: (share.clamp(0.0, 1.0) * ALL as f64) as u64 }
    }

    /// Whether a span of `trace` is recorded, whose caller is `parent`.
    pub(crate) fn samples(self, parent: Option<&TraceContext>, trace: TraceId) -> bool {
        match parent {
            Some(parent) if self.by_parent => parent.is_sampled(),
            _ => number(trace) < self.below,
        }
    }
}

/// 63 bits of the id, as OpenTelemetry's SDKs take them, so that all of them record the same traces.
fn number(trace: TraceId) -> u64 {
    let [_, _, _, _, _, _, _, _, low @ ..] = trace.bytes();
    u64::from_be_bytes(low) >> 1
}

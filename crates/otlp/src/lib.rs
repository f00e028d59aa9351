//! Spans, and how they get to a collector by OTLP. It must not know what is traced.
//!
//! A [`Tracer`] makes spans. An ended span goes into a queue of bounded length, and [`Exporter::run`] sends what is in
//! it. Nobody who traces ever waits: a span that finds the queue full is lost, and counted. A tracer that is off makes
//! no span at all.

mod export;
mod message;
mod sampler;
mod span;
mod tls;
#[cfg(feature = "collector")]
pub mod wire;
#[cfg(not(feature = "collector"))]
mod wire;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use tokio::sync::mpsc;
use trace_context::{SpanId, TraceContext, TraceId};

pub use self::export::{CONTENT_TYPE, Exporter, GrpcError, Post, Transport};
pub use self::message::Resource;
pub use self::sampler::Sampler;
use self::span::Ended;
pub use self::span::{Kind, Span, Value};

/// Spans that wait to be sent, at most. That is `OTEL_BSP_MAX_QUEUE_SIZE`'s default; with about 500 bytes a span it is
/// a megabyte.
const QUEUE: usize = 2048;

/// Makes spans. Clones share one queue.
#[derive(Debug, Clone, Default)]
pub struct Tracer(Option<Arc<Recorder>>);

/// How many spans have left, and how many have not. All zero if the tracer is off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// The collector has them.
    pub exported: u64,
    /// The queue was full, or the collector did not take them.
    pub lost: u64,
}

/// What all clones of a tracer share.
#[derive(Debug)]
struct Recorder {
    sampler: Sampler,
    queue: mpsc::Sender<Ended>,
    exported: AtomicU64,
    lost: AtomicU64,
    next_id: AtomicU64,
    /// A keyed pseudo-random function with a key of this process, so that ids differ between processes.
    ids: RandomState,
}

impl Tracer {
    /// A tracer that makes no spans.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    /// A tracer, and what sends its spans.
    #[must_use]
    pub fn new(sampler: Sampler, resource: Resource, transport: Transport) -> (Self, Exporter) {
        let (queue, ended) = mpsc::channel(QUEUE);
        let (exported, lost, next_id) = Default::default();
        let ids = RandomState::new();
        let recorder = Arc::new(Recorder { sampler, queue, exported, lost, next_id, ids });
        let exporter = Exporter::new(ended, resource, transport, Arc::clone(&recorder));
        (Self(Some(recorder)), exporter)
    }

    /// Starts a span now: a child of `parent`, or the first of a new trace. `None` if it is not to be recorded.
    #[must_use]
    pub fn start(
        &self,
        name: &'static str,
        kind: Kind,
        parent: Option<&TraceContext>,
    ) -> Option<Span> {
        let recorder = self.0.as_ref()?;
        let trace = parent.map_or_else(|| recorder.new_trace(), |parent| parent.trace);
        if !recorder.sampler.samples(parent, trace) {
            return None;
        }
        let id = recorder.new_span();
        let context = match parent {
            Some(parent) => parent.child(id),
            None => TraceContext::root(trace, id),
        };
        let parent = parent.map(|parent| parent.span);
        let now = SystemTime::now();
        Some(Span::new(Arc::clone(recorder), name, kind, context, parent, now))
    }

    /// How many spans have left until now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let Some(recorder) = &self.0 else { return Counts::default() };
        Counts {
            exported: recorder.exported.load(Ordering::Relaxed),
            lost: recorder.lost.load(Ordering::Relaxed),
        }
    }
}

impl Recorder {
    fn take(&self, span: Ended) {
        if self.queue.try_send(span).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn new_trace(&self) -> TraceId {
        loop {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&self.random());
            bytes[8..].copy_from_slice(&self.random());
            if let Some(id) = TraceId::new(bytes) {
                return id;
            }
        }
    }

    fn new_span(&self) -> SpanId {
        loop {
            if let Some(id) = SpanId::new(self.random()) {
                return id;
            }
        }
    }

    fn random(&self) -> [u8; 8] {
        self.ids.hash_one(self.next_id.fetch_add(1, Ordering::Relaxed)).to_be_bytes()
    }
}

#[cfg(test)]
mod tests;

//! One scrape: gauges that are made, set and written at once. This module knows no metric by name.

use prometheus::core::Collector;
use prometheus::{CounterVec, IntGaugeVec, Registry, TextEncoder};

use super::registry::{Kind, Metric};

/// The content type of the HTTP answer. Source: prometheus.io, "Exposition formats".
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics of one scrape.
#[derive(Debug, Default)]
pub(super) struct Page(Registry);

impl Page {
    /// Adds the only sample of a metric without labels.
    pub(super) fn gauge(&self, metric: &Metric, value: impl TryInto<i64>) {
        self.all::<0, _>(metric, [([""; 0], value)]);
    }

    /// Adds a sample for each value of the metric's only label.
    pub(super) fn gauges<L: AsRef<str>, N: TryInto<i64>>(
        &self,
        metric: &Metric,
        samples: impl IntoIterator<Item = (L, N)>,
    ) {
        self.all(metric, samples.into_iter().map(|(label, value)| ([label], value)));
    }

    /// Adds a sample for each set of values of the metric's labels.
    pub(super) fn all<const LABELS: usize, N: TryInto<i64>>(
        &self,
        metric: &Metric,
        samples: impl IntoIterator<Item = ([impl AsRef<str>; LABELS], N)>,
    ) {
        let gauges = IntGaugeVec::new(metric.opts(Kind::Gauge), metric.labels)
            .expect("a test constructs every metric");
        for (labels, value) in samples {
            let labels = labels.each_ref().map(AsRef::as_ref);
            gauges.with_label_values(&labels).set(value.try_into().unwrap_or(i64::MAX));
        }
        self.add(gauges);
    }

    /// Adds counters whose values somebody else keeps.
    pub(super) fn counters<const LABELS: usize>(
        &self,
        metric: &Metric,
        samples: impl IntoIterator<Item = ([&'static str; LABELS], f64)>,
    ) {
        let counters = CounterVec::new(metric.opts(Kind::Counter), metric.labels)
            .expect("a test constructs every metric");
        for (labels, value) in samples {
            counters.with_label_values(&labels).inc_by(value);
        }
        self.add(counters);
    }

    /// Adds metrics that live longer than the page.
    ///
    /// # Panics
    ///
    /// If the page already has a metric of that name.
    pub(super) fn add(&self, metrics: impl Collector + 'static) {
        self.0.register(Box::new(metrics)).expect("each metric is added to the page once");
    }

    /// The page in the text format, version 0.0.4, sorted by name. A metric without samples is omitted.
    pub(super) fn into_text(self) -> String {
        TextEncoder.encode_to_string(&self.0.gather()).expect("writing to a String cannot fail")
    }
}

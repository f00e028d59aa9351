//! One scrape: gauges that are made, set and written at once. It knows no metric by name.

use prometheus::core::Collector;
use prometheus::{IntGaugeVec, Registry, TextEncoder};

use super::registry::{Kind, Metric};

/// Of the HTTP answer. Source: prometheus.io, "Exposition formats".
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics of one scrape.
#[derive(Debug, Default)]
pub(super) struct Page(Registry);

impl Page {
    /// The one sample of a metric without labels.
    pub(super) fn gauge(&self, metric: &Metric, value: impl TryInto<i64>) {
        self.with_label::<&str, _>(metric, [(None, value)]);
    }

    /// A sample for each value of the metric's only label.
    pub(super) fn gauges<L: AsRef<str>, N: TryInto<i64>>(
        &self,
        metric: &Metric,
        samples: impl IntoIterator<Item = (L, N)>,
    ) {
        self.with_label(metric, samples.into_iter().map(|(label, value)| (Some(label), value)));
    }

    /// Takes metrics that live longer than the page.
    ///
    /// # Panics
    ///
    /// If the page has a metric of that name already.
    pub(super) fn add(&self, metrics: impl Collector + 'static) {
        self.0.register(Box::new(metrics)).expect("the page takes each metric once");
    }

    /// The text format, version 0.0.4, sorted by name. It leaves out a metric without samples.
    pub(super) fn into_text(self) -> String {
        TextEncoder.encode_to_string(&self.0.gather()).expect("a String takes everything")
    }

    fn with_label<L: AsRef<str>, N: TryInto<i64>>(
        &self,
        metric: &Metric,
        samples: impl IntoIterator<Item = (Option<L>, N)>,
    ) {
        let gauges =
            IntGaugeVec::new(metric.opts(Kind::Gauge), metric.labels).expect("a test makes each");
        for (label, value) in samples {
            gauges
                .with_label_values(label.as_ref().map(AsRef::as_ref).as_slice())
                .set(value.try_into().unwrap_or(i64::MAX));
        }
        self.add(gauges);
    }
}

//! A summary without quantiles: count and sum. The Prometheus library has no such type, but accepts our own
//! collector. This module knows no metric by name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::{Collector, Desc, Describer as _};
use prometheus::proto::{LabelPair, Metric as Sample, MetricFamily, MetricType, Summary};

use crate::metrics::registry::{Kind, Metric};

/// The number of events, and the sum of their durations.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    n: u64,
    /// Whole milliseconds, as a float since samples are floats.
    ms: f64,
}

/// A summary with three labels, in milliseconds. Clones share their sums.
#[derive(Debug, Clone)]
pub(super) struct Latency {
    desc: Desc,
    sums: Arc<Mutex<BTreeMap<[String; 3], Sum>>>,
}

impl Latency {
    pub(super) fn new(metric: &Metric) -> Self {
        let labels = metric.labels.iter().map(ToString::to_string).collect();
        let desc = metric
            .opts(Kind::Summary)
            .variable_labels(labels)
            .describe()
            .expect("a test constructs every metric");
        Self { desc, sums: Arc::default() }
    }

    /// An event with these label values took `span`.
    pub(super) fn observe(&self, labels: [&str; 3], span: Duration) {
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = sums.entry(labels.map(str::to_owned)).or_default();
        sum.n += 1;
        sum.ms += f64::from(u32::try_from(span.as_millis()).unwrap_or(u32::MAX));
    }

    fn sample(&self, labels: &[String; 3], sum: Sum) -> Sample {
        let pair = |(name, value): (&String, &String)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.clone());
            pair.set_value(value.clone());
            pair
        };
        let mut summary = Summary::default();
        summary.set_sample_count(sum.n);
        summary.set_sample_sum(sum.ms);
        let labels = self.desc.variable_labels.iter().zip(labels).map(pair).collect();
        let mut sample = Sample::from_label(labels);
        sample.set_summary(summary);
        sample
    }
}

impl Collector for Latency {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        let samples = sums.iter().map(|(labels, sum)| self.sample(labels, *sum)).collect();
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(MetricType::SUMMARY);
        family.set_metric(samples);
        vec![family]
    }
}

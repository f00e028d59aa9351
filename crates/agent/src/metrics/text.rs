//! Prometheus' text format, version 0.0.4. Knows no metrics.
//!
//! Source: prometheus.io, "Exposition formats". Written here since the libraries that are kept up
//! write OpenMetrics, where the name of a counter must end in `_total`: those of amazon-vpc-cni-k8s,
//! to which dashboards and alerts are bound, do not.

use std::fmt::{Display, Write as _};

use super::counters::{Histogram, Taken};

/// Of the HTTP answer.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The text so far.
#[derive(Debug, Default)]
pub(super) struct Page(String);

/// One metric, of which samples can be added.
#[derive(Debug)]
pub(super) struct Metric<'a> {
    text: &'a mut String,
    name: &'static str,
}

/// A label's name and value.
type Label<'a> = (&'a str, &'a str);

impl Page {
    pub(super) fn gauge(&mut self, name: &'static str, help: &str) -> Metric<'_> {
        self.metric(name, "gauge", help)
    }

    pub(super) fn counter(&mut self, name: &'static str, help: &str) -> Metric<'_> {
        self.metric(name, "counter", help)
    }

    pub(super) fn summary(&mut self, name: &'static str, help: &str) -> Summary<'_> {
        Summary(self.metric(name, "summary", help))
    }

    pub(super) fn histogram(&mut self, name: &'static str, help: &str) -> Buckets<'_> {
        Buckets(self.metric(name, "histogram", help))
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }

    /// `help` holds neither line breaks nor backslashes.
    fn metric(&mut self, name: &'static str, kind: &str, help: &str) -> Metric<'_> {
        let text = &mut self.0;
        write(text, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Metric { text, name }
    }
}

impl Metric<'_> {
    /// The only sample, without labels.
    pub(super) fn is(&mut self, value: impl Display) {
        self.at(&[], value);
    }

    /// The sample with these labels.
    pub(super) fn at(&mut self, labels: &[Label<'_>], value: impl Display) {
        self.sample("", labels, value);
    }

    fn sample(&mut self, suffix: &str, labels: &[Label<'_>], value: impl Display) {
        let labels: Vec<_> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.join(",")),
        };
        write(self.text, format_args!("{}{suffix}{labels} {value}\n", self.name));
    }
}

/// A summary without quantiles.
#[derive(Debug)]
pub(super) struct Summary<'a>(Metric<'a>);

impl Summary<'_> {
    /// In milliseconds.
    pub(super) fn with(&mut self, labels: &[Label<'_>], taken: Taken) {
        self.0.sample("_sum", labels, taken.ms);
        self.0.sample("_count", labels, taken.n);
    }
}

/// A histogram without labels.
#[derive(Debug)]
pub(super) struct Buckets<'a>(Metric<'a>);

impl Buckets<'_> {
    /// In seconds.
    pub(super) fn with(&mut self, histogram: &Histogram) {
        let mut n = 0;
        let bounds = Histogram::BOUNDS.iter().map(|ms| seconds(u128::from(*ms)));
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(histogram.buckets) {
            n += count;
            self.0.sample("_bucket", &[("le", &bound)], n);
        }
        self.0.sample("_sum", &[], seconds(histogram.sum.as_millis()));
        self.0.sample("_count", &[], n);
    }
}

/// Milliseconds as seconds: `0.025`, `5`.
fn seconds(ms: u128) -> String {
    match (ms / 1000, ms % 1000) {
        (whole, 0) => whole.to_string(),
        (whole, rest) => format!("{whole}.{}", format!("{rest:03}").trim_end_matches('0')),
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

fn write(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_written_as_the_format_says() {
        let mut page = Page::default();
        page.gauge("a", "What a is").is(3);
        let mut metric = page.counter("b", "What b is");
        metric.at(&[("x", "1"), ("y", "a \"b\" \\ \n c")], 0);
        page.summary("c_ms", "What c is").with(&[("x", "1")], Taken { n: 2, ms: 30 });
        let expect = "# HELP a What a is\n# TYPE a gauge\na 3\n\
                      # HELP b What b is\n# TYPE b counter\n\
                      b{x=\"1\",y=\"a \\\"b\\\" \\\\ \\n c\"} 0\n\
                      # HELP c_ms What c is\n# TYPE c_ms summary\n\
                      c_ms_sum{x=\"1\"} 30\nc_ms_count{x=\"1\"} 2\n";
        assert_eq!(page.into_text(), expect);
    }

    #[test]
    fn milliseconds_are_written_as_seconds() {
        for (ms, expect) in [(0, "0"), (1, "0.001"), (25, "0.025"), (500, "0.5"), (61_020, "61.02")]
        {
            assert_eq!(seconds(ms), expect);
        }
    }
}

//! Counters of events since the start of the daemon. The code that causes an event counts it.

mod latency;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ipam::call::{Action, CallError, CallId, CallOutput, Ec2Call};
use ipam::event::Answer;
use ipam::time::Timestamp;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge};

use self::latency::Latency;
use super::page::Page;
use super::registry::{self, Kind, Metric};

/// Upper bounds of the ADD histogram in seconds: from an ADD with a warm pool to the longest wait.
const ADD_BOUNDS: [f64; 10] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0];

/// All counters. Their users share them.
#[derive(Debug)]
pub(crate) struct Counters {
    requests: Requests,
    calls: Calls,
    /// Calls to EC2 without an answer yet: action and start.
    in_flight: Mutex<BTreeMap<CallId, (Action, Timestamp)>>,
    groups_set: IntCounter,
    pods_restored: IntCounter,
    retired_links: IntGauge,
    host_repairs: HostRepairs,
    settings_refused: SettingsRefused,
}

/// The metric of changed settings that were refused. Clones share the number.
#[derive(Debug, Clone)]
pub struct SettingsRefused(IntCounter);

impl Default for SettingsRefused {
    fn default() -> Self {
        Self(counter(&registry::SETTINGS_REFUSED))
    }
}

impl SettingsRefused {
    /// Settings were refused once more.
    pub fn count(&self) {
        self.0.inc();
    }
}

/// The metric of what was put back of the node's own network. Clones share the numbers.
#[derive(Debug, Clone)]
pub struct HostRepairs(IntCounterVec);

impl Default for HostRepairs {
    fn default() -> Self {
        let repairs = counters(&registry::HOST_REPAIRS);
        // Prometheus sees the first increase only of a series that exists before.
        let parts =
            ["kernel_rules", "node", "default_route", "nat", "eni", "neighbours", "host_ports"];
        for part in parts {
            repairs.with_label_values(&[part]).inc_by(0);
        }
        Self(repairs)
    }
}

impl HostRepairs {
    /// How often this part was put back.
    #[cfg(test)]
    pub(crate) fn n(&self, part: &str) -> u64 {
        self.0.with_label_values(&[part]).get()
    }

    /// This part was put back.
    pub(crate) fn count(&self, part: &str) {
        self.0.with_label_values(&[part]).inc();
    }
}

/// Requests of the CNI plugin.
#[derive(Debug)]
struct Requests {
    adds: IntCounter,
    dels: IntCounterVec,
    adds_without_address: IntCounter,
    add_refusals: IntCounterVec,
    add_seconds: Histogram,
}

/// Calls to EC2 that have ended.
#[derive(Debug)]
struct Calls {
    ended: IntCounterVec,
    failed: IntCounterVec,
    /// By EC2's code (there are some hundred), or by our own code for a failure without an answer of EC2.
    failed_by_code: IntCounterVec,
    latency: Latency,
}

fn counter(metric: &Metric) -> IntCounter {
    IntCounter::with_opts(metric.opts(Kind::Counter)).expect("a test constructs every metric")
}

fn counters(metric: &Metric) -> IntCounterVec {
    IntCounterVec::new(metric.opts(Kind::Counter), metric.labels)
        .expect("a test constructs every metric")
}

impl Default for Counters {
    fn default() -> Self {
        let add_seconds = HistogramOpts::from(registry::ADD_SECONDS.opts(Kind::Histogram));
        let dels = counters(&registry::DELS);
        // Prometheus sees the first increase only of a series that exists before.
        for reason in [DELETED, COLLECTED] {
            dels.with_label_values(&[reason]).inc_by(0);
        }
        Self {
            requests: Requests {
                adds: counter(&registry::ADDS),
                dels,
                adds_without_address: counter(&registry::ADDS_WITHOUT_ADDRESS),
                add_refusals: counters(&registry::ADD_REFUSALS),
                add_seconds: Histogram::with_opts(add_seconds.buckets(ADD_BOUNDS.to_vec()))
                    .expect("a test constructs every metric"),
            },
            calls: Calls {
                ended: counters(&registry::EC2_CALLS),
                failed: counters(&registry::EC2_FAILURES),
                failed_by_code: counters(&registry::EC2_ERRORS),
                latency: Latency::new(&registry::EC2_LATENCY),
            },
            in_flight: Mutex::default(),
            groups_set: counter(&registry::GROUPS_SET),
            pods_restored: counter(&registry::PODS_RESTORED),
            retired_links: IntGauge::with_opts(registry::RETIRED_LINKS.opts(Kind::Gauge))
                .expect("a test constructs every metric"),
            host_repairs: HostRepairs::default(),
            settings_refused: SettingsRefused::default(),
        }
    }
}

/// Values of the label `reason`, as amazon-vpc-cni-k8s has them.
const DELETED: &str = "PodDeleted";
const COLLECTED: &str = "GC";

impl Counters {
    /// These counters, with the metrics that others count in.
    pub(crate) fn with(self, host_repairs: HostRepairs, settings_refused: SettingsRefused) -> Self {
        Self { host_repairs, settings_refused, ..self }
    }

    /// An ADD has arrived.
    pub(crate) fn add_arrived(&self) {
        self.requests.adds.inc();
    }

    /// An ADD has got `answer`, `span` after its arrival.
    pub(crate) fn add_answered(&self, answer: &Answer, span: Duration) {
        self.requests.add_seconds.observe(span.as_secs_f64());
        if let Answer::Refused(refusal) = answer {
            self.requests.adds_without_address.inc();
            self.requests.add_refusals.with_label_values(&[refusal.code.as_str()]).inc();
        }
    }

    /// A DEL has arrived.
    pub(crate) fn del_arrived(&self) {
        self.requests.dels.with_label_values(&[DELETED]).inc();
    }

    /// A GC has collected `n` attachments.
    pub(crate) fn collected(&self, n: usize) {
        let n = u64::try_from(n).unwrap_or(u64::MAX);
        self.requests.dels.with_label_values(&[COLLECTED]).inc_by(n);
    }

    /// The kernel has got back what it lacked of a pod's network.
    pub(crate) fn pod_restored(&self) {
        self.pods_restored.inc();
    }

    /// So many links wait for removal. A gauge, but nobody else knows it.
    pub(crate) fn retired_links(&self, n: usize) {
        self.retired_links.set(i64::try_from(n).unwrap_or(i64::MAX));
    }

    /// A call to EC2 starts.
    pub(crate) fn call_made(&self, id: CallId, call: &Ec2Call, now: Timestamp) {
        self.with_in_flight(|calls| calls.insert(id, (call.action(), now)));
    }

    /// A call to EC2 has ended. A call that never started is not counted.
    pub(crate) fn call_done(
        &self,
        id: CallId,
        result: &Result<CallOutput, CallError>,
        now: Timestamp,
    ) {
        let Some((action, since)) = self.with_in_flight(|calls| calls.remove(&id)) else { return };
        if result.is_ok() && action == Action::SetSecurityGroups {
            self.groups_set.inc();
        }
        let (calls, action) = (&self.calls, action.as_str());
        calls.ended.with_label_values(&[action]).inc();
        let failed = calls.failed.with_label_values(&[action]);
        let labels = match result {
            Ok(_) => [action, "false", "200"],
            Err(error) => {
                failed.inc();
                calls.failed_by_code.with_label_values(&[action, &error.code]).inc();
                [action, "true", &error.code]
            }
        };
        calls.latency.observe(labels, now.since(since));
    }

    /// Adds all counters to the page.
    pub(super) fn show(&self, page: &Page) {
        let Requests { adds, dels, adds_without_address, add_refusals, add_seconds } =
            &self.requests;
        page.add(adds.clone());
        page.add(dels.clone());
        page.add(adds_without_address.clone());
        page.add(add_refusals.clone());
        page.add(add_seconds.clone());
        let Calls { ended, failed, failed_by_code, latency } = &self.calls;
        page.add(ended.clone());
        page.add(failed.clone());
        page.add(failed_by_code.clone());
        page.add(latency.clone());
        page.add(self.groups_set.clone());
        page.add(self.pods_restored.clone());
        page.add(self.retired_links.clone());
        page.add(self.host_repairs.0.clone());
        page.add(self.settings_refused.0.clone());
    }

    fn with_in_flight<T>(
        &self,
        act: impl FnOnce(&mut BTreeMap<CallId, (Action, Timestamp)>) -> T,
    ) -> T {
        act(&mut self.in_flight.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

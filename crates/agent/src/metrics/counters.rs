//! Counters of events since the start of the daemon. The code that causes an event counts it.

mod calls;
mod latency;
mod requests;

use std::time::{Duration, Instant};

use ipam::call::{CallError, CallId, CallOutput, Ec2Call};
use ipam::event::RefusalCode;
use ipam::time::Timestamp;
use otlp::{Counts, Tracer};
use prometheus::{
    DEFAULT_BUCKETS, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
};

use self::calls::Calls;
use self::requests::Requests;
pub(crate) use self::requests::{Outcome, Phase};
use super::page::Page;
use super::registry::{self, Kind, Metric};
use crate::handle::RequestKind;

/// All counters. Their users share them.
#[derive(Debug)]
pub(crate) struct Counters {
    /// When the process started.
    started: Instant,
    requests: Requests,
    calls: Calls,
    reconciled: IntCounterVec,
    used_enis_gone: IntCounter,
    used_addresses_gone: IntCounter,
    startup_seconds: HistogramVec,
    node_init_seconds: HistogramVec,
    pods_restored: IntCounter,
    retired_links: IntGauge,
    host_repairs: HostRepairs,
    settings_refused: SettingsRefused,
    policy_calls: PolicyCalls,
    tracer: Tracer,
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

/// What the network policy agent is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PolicyCall {
    /// A pod begins.
    Enforce,
    /// A pod has ended.
    Delete,
}

impl PolicyCall {
    fn as_str(self) -> &'static str {
        match self {
            PolicyCall::Enforce => "enforce",
            PolicyCall::Delete => "delete",
        }
    }
}

/// How a call to the network policy agent has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PolicyOutcome {
    /// The agent has done it.
    Ok,
    /// The agent has not done it, and says so.
    Refused,
    /// No answer has come in time.
    Silent,
    /// Nobody listens, or the agent has ended before its answer.
    Away,
}

impl PolicyOutcome {
    fn as_str(self) -> &'static str {
        match self {
            PolicyOutcome::Ok => "ok",
            PolicyOutcome::Refused => "refused",
            PolicyOutcome::Silent => "silent",
            PolicyOutcome::Away => "away",
        }
    }
}

/// The metric of calls to the network policy agent. Clones share the numbers.
#[derive(Debug, Clone)]
pub(crate) struct PolicyCalls(IntCounterVec);

impl Default for PolicyCalls {
    fn default() -> Self {
        let calls = counters(&registry::POLICY_CALLS);
        // Prometheus sees the first increase only of a series that exists before.
        for call in [PolicyCall::Enforce, PolicyCall::Delete] {
            use PolicyOutcome::{Away, Ok, Refused, Silent};
            for outcome in [Ok, Refused, Silent, Away] {
                calls.with_label_values(&[call.as_str(), outcome.as_str()]).inc_by(0);
            }
        }
        Self(calls)
    }
}

impl PolicyCalls {
    /// A call has ended.
    pub(crate) fn count(&self, call: PolicyCall, outcome: PolicyOutcome) {
        self.0.with_label_values(&[call.as_str(), outcome.as_str()]).inc();
    }
}

fn counter(metric: &Metric) -> IntCounter {
    IntCounter::with_opts(metric.opts(Kind::Counter)).expect("a test constructs every metric")
}

fn counters(metric: &Metric) -> IntCounterVec {
    IntCounterVec::new(metric.opts(Kind::Counter), metric.labels)
        .expect("a test constructs every metric")
}

fn histograms(metric: &Metric, bounds: &[f64]) -> HistogramVec {
    let options = HistogramOpts::from(metric.opts(Kind::Histogram)).buckets(bounds.to_vec());
    HistogramVec::new(options, metric.labels).expect("a test constructs every metric")
}

/// A change of the pool that a describe has shown, and that no call of this daemon has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reconciled {
    /// An ENI is new.
    EniCame,
    /// An ENI has gone.
    EniGone,
    /// An ENI carries another address or prefix.
    BlockCame,
    /// An ENI has lost an address or prefix.
    BlockGone,
    /// An ENI has gone on which pods have addresses.
    UsedEniGone,
    /// A pod's address has gone.
    UsedAddressGone,
}

impl Default for Counters {
    fn default() -> Self {
        let reconciled = counters(&registry::RECONCILED);
        // Prometheus sees the first increase only of a series that exists before.
        for function in [ENI_CAME, ENI_GONE, BLOCK_CAME, BLOCK_GONE] {
            reconciled.with_label_values(&[function]).inc_by(0);
        }
        Self {
            started: Instant::now(),
            requests: Requests::default(),
            calls: Calls::default(),
            reconciled,
            used_enis_gone: counter(&registry::USED_ENIS_GONE),
            used_addresses_gone: counter(&registry::USED_ADDRESSES_GONE),
            startup_seconds: histograms(&registry::STARTUP_SECONDS, DEFAULT_BUCKETS),
            node_init_seconds: histograms(&registry::NODE_INIT_SECONDS, DEFAULT_BUCKETS),
            pods_restored: counter(&registry::PODS_RESTORED),
            retired_links: IntGauge::with_opts(registry::RETIRED_LINKS.opts(Kind::Gauge))
                .expect("a test constructs every metric"),
            host_repairs: HostRepairs::default(),
            settings_refused: SettingsRefused::default(),
            policy_calls: PolicyCalls::default(),
            tracer: Tracer::off(),
        }
    }
}

/// Values of the label `fn` of `awscni_reconcile_count`.
/// Source: amazon-vpc-cni-k8s v1.23.1, `pkg/ipamd/ipamd.go`.
const ENI_CAME: &str = "eniReconcileAdd";
const ENI_GONE: &str = "eniReconcileDel";
const BLOCK_CAME: &str = "eniDataStorePoolReconcileAdd";
const BLOCK_GONE: &str = "eniIPPoolReconcileDel";

impl Counters {
    /// New counters, with the metrics that others count in. The process started at `started`.
    pub(crate) fn of(
        host_repairs: HostRepairs,
        settings_refused: SettingsRefused,
        tracer: Tracer,
        started: Instant,
    ) -> Self {
        Self { host_repairs, settings_refused, tracer, started, ..Self::default() }
    }

    /// The metric of calls to the network policy agent.
    pub(crate) fn policy_calls(&self) -> PolicyCalls {
        self.policy_calls.clone()
    }

    /// An ADD has arrived.
    pub(crate) fn add_arrived(&self) {
        self.requests.add_arrived();
    }

    /// A DEL has arrived.
    pub(crate) fn del_arrived(&self) {
        self.requests.del_arrived();
    }

    /// A GC has collected `n` attachments.
    pub(crate) fn collected(&self, n: usize) {
        self.requests.collected(u64::try_from(n).unwrap_or(u64::MAX));
    }

    /// An ADD got no address.
    pub(crate) fn add_refused(&self, code: RefusalCode) {
        self.requests.add_refused(code);
    }

    /// A request has ended, `span` after its arrival.
    pub(crate) fn request(&self, kind: RequestKind, outcome: Outcome, span: Duration) {
        self.requests.ended(kind, outcome, span);
    }

    /// A phase of a request took `span`.
    pub(crate) fn phase(&self, kind: RequestKind, phase: Phase, outcome: Outcome, span: Duration) {
        self.requests.phase(kind, phase, outcome, span);
    }

    /// A describe has shown `n` changes.
    pub(crate) fn reconciled(&self, what: Reconciled, n: usize) {
        self.reconciled_by(what).inc_by(u64::try_from(n).unwrap_or(u64::MAX));
    }

    /// How many changes describes have shown.
    #[cfg(test)]
    pub(crate) fn n_reconciled(&self, what: Reconciled) -> u64 {
        self.reconciled_by(what).get()
    }

    fn reconciled_by(&self, what: Reconciled) -> IntCounter {
        let function = match what {
            Reconciled::EniCame => ENI_CAME,
            Reconciled::EniGone => ENI_GONE,
            Reconciled::BlockCame => BLOCK_CAME,
            Reconciled::BlockGone => BLOCK_GONE,
            Reconciled::UsedEniGone => return self.used_enis_gone.clone(),
            Reconciled::UsedAddressGone => return self.used_addresses_gone.clone(),
        };
        self.reconciled.with_label_values(&[function])
    }

    /// The daemon serves its socket.
    pub(crate) fn has_started(&self, with_api_server: bool) {
        // The labels of amazon-vpc-cni-k8s: no failure, success, whether the API server is used.
        let with_api_server = if with_api_server { "true" } else { "false" };
        let seconds = self.startup_seconds.with_label_values(&["", "true", with_api_server]);
        seconds.observe(self.started.elapsed().as_secs_f64());
    }

    /// EC2 has described the ENIs for the first time.
    pub(crate) fn node_is_known(&self) {
        let seconds = self.node_init_seconds.with_label_values(&["true"]);
        seconds.observe(self.started.elapsed().as_secs_f64());
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
        self.calls.made(id, call, now);
    }

    /// A call to EC2 has ended. A call that never started is not counted.
    pub(crate) fn call_done(
        &self,
        id: CallId,
        result: &Result<CallOutput, CallError>,
        now: Timestamp,
    ) {
        self.calls.done(id, result, now);
    }

    /// Adds all counters to the page.
    pub(super) fn show(&self, page: &Page) {
        let Self {
            started: _,
            requests,
            calls,
            reconciled,
            used_enis_gone,
            used_addresses_gone,
            startup_seconds,
            node_init_seconds,
            pods_restored,
            retired_links,
            host_repairs: HostRepairs(host_repairs),
            settings_refused: SettingsRefused(settings_refused),
            policy_calls: PolicyCalls(policy_calls),
            tracer,
        } = self;
        requests.show(page);
        calls.show(page);
        page.add(reconciled.clone());
        page.add(used_enis_gone.clone());
        page.add(used_addresses_gone.clone());
        page.add(startup_seconds.clone());
        page.add(node_init_seconds.clone());
        page.add(pods_restored.clone());
        page.add(retired_links.clone());
        page.add(host_repairs.clone());
        page.add(settings_refused.clone());
        page.add(policy_calls.clone());
        let Counts { exported, lost } = tracer.counts();
        page.counters(&registry::SPANS, [(["exported"], exported as f64), (["lost"], lost as f64)]);
    }
}

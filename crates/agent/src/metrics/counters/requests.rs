//! Requests of the CNI plugin: how many, how long, and how each has ended.

use std::time::Duration;

use ipam::event::{Answer, RefusalCode};
use prometheus::{HistogramVec, IntCounter, IntCounterVec};

use super::{counter, counters, histograms};
use crate::handle::RequestKind;
use crate::metrics::page::Page;
use crate::metrics::registry;

/// Upper bounds of the histograms in seconds: from an ADD with a warm pool to the longest wait.
const BOUNDS: [f64; 10] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0];
/// Values of the label `reason`, as amazon-vpc-cni-k8s has them.
const DELETED: &str = "PodDeleted";
const COLLECTED: &str = "GC";

/// How a request has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An ADD got its addresses.
    Granted,
    /// The daemon could not do it.
    Refused,
    /// The caller went away first.
    Cancelled,
    /// A DEL has released what the attachment had.
    Released,
    /// The record had nothing for the attachment of a DEL.
    Unknown,
    /// A GC is done.
    Collected,
}

impl Outcome {
    pub(crate) fn of(answer: &Answer) -> Self {
        match answer {
            Answer::Granted(_) => Outcome::Granted,
            Answer::Refused(_) => Outcome::Refused,
            Answer::Released(Some(_)) => Outcome::Released,
            Answer::Released(None) => Outcome::Unknown,
            Answer::Collected(_) => Outcome::Collected,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Outcome::Granted => "granted",
            Outcome::Refused => "refused",
            Outcome::Cancelled => "cancelled",
            Outcome::Released => "released",
            Outcome::Unknown => "unknown",
            Outcome::Collected => "collected",
        }
    }
}

/// A part of a request's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Until the engine has decided: for an ADD, the wait for an address.
    Decision,
    /// Until the decision is on disk.
    Record,
    /// From the answer to an ADD until the plugin has set up the link and asks for the check.
    Kernel,
}

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Phase::Decision => "decision",
            Phase::Record => "record",
            Phase::Kernel => "kernel",
        }
    }
}

/// The metrics of requests.
#[derive(Debug)]
pub(super) struct Requests {
    adds: IntCounter,
    dels: IntCounterVec,
    adds_without_address: IntCounter,
    add_refusals: IntCounterVec,
    add_seconds: HistogramVec,
    del_seconds: HistogramVec,
    phase_seconds: HistogramVec,
}

impl Default for Requests {
    fn default() -> Self {
        let dels = counters(&registry::DELS);
        // Prometheus sees the first increase only of a series that exists before.
        for reason in [DELETED, COLLECTED] {
            dels.with_label_values(&[reason]).inc_by(0);
        }
        let add_seconds = histograms(&registry::ADD_SECONDS, &BOUNDS);
        for outcome in [Outcome::Granted, Outcome::Refused] {
            let _exists = add_seconds.with_label_values(&[outcome.as_str()]);
        }
        Self {
            adds: counter(&registry::ADDS),
            dels,
            adds_without_address: counter(&registry::ADDS_WITHOUT_ADDRESS),
            add_refusals: counters(&registry::ADD_REFUSALS),
            add_seconds,
            del_seconds: histograms(&registry::DEL_SECONDS, &BOUNDS),
            phase_seconds: histograms(&registry::PHASE_SECONDS, &BOUNDS),
        }
    }
}

impl Requests {
    pub(super) fn add_arrived(&self) {
        self.adds.inc();
    }

    pub(super) fn del_arrived(&self) {
        self.dels.with_label_values(&[DELETED]).inc();
    }

    pub(super) fn collected(&self, n: u64) {
        self.dels.with_label_values(&[COLLECTED]).inc_by(n);
    }

    pub(super) fn add_refused(&self, code: RefusalCode) {
        self.adds_without_address.inc();
        self.add_refusals.with_label_values(&[code.as_str()]).inc();
    }

    pub(super) fn ended(&self, kind: RequestKind, outcome: Outcome, span: Duration) {
        let seconds = match kind {
            RequestKind::Add => &self.add_seconds,
            RequestKind::Del => &self.del_seconds,
            // It concerns no single pod; its phases say how long it takes.
            RequestKind::Gc => return,
        };
        seconds.with_label_values(&[outcome.as_str()]).observe(span.as_secs_f64());
    }

    pub(super) fn phase(&self, kind: RequestKind, phase: Phase, outcome: Outcome, span: Duration) {
        let labels = [outcome.as_str(), phase.as_str(), kind.as_str()];
        self.phase_seconds.with_label_values(&labels).observe(span.as_secs_f64());
    }

    pub(super) fn show(&self, page: &Page) {
        let Self {
            adds,
            dels,
            adds_without_address,
            add_refusals,
            add_seconds,
            del_seconds,
            phase_seconds,
        } = self;
        page.add(adds.clone());
        page.add(dels.clone());
        page.add(adds_without_address.clone());
        page.add(add_refusals.clone());
        page.add(add_seconds.clone());
        page.add(del_seconds.clone());
        page.add(phase_seconds.clone());
    }
}

//! Calls to EC2: under way and ended.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use ipam::call::{Action, CallError, CallErrorKind, CallId, CallOutput, Ec2Call};
use ipam::time::Timestamp;
use prometheus::{HistogramVec, IntCounter, IntCounterVec};

use super::latency::Latency;
use super::{counter, counters, histograms};
use crate::metrics::page::Page;
use crate::metrics::registry;

/// Upper bounds in seconds. Reads take some tenths of a second, and a request is given up after ten.
const BOUNDS: [f64; 8] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The metrics of calls.
#[derive(Debug)]
pub(super) struct Calls {
    ended: IntCounterVec,
    failed: IntCounterVec,
    /// By EC2's code (there are some hundred), or by our own code for a failure without an answer of EC2.
    failed_by_code: IntCounterVec,
    /// The same failures under the names of amazon-vpc-cni-k8s's functions.
    failed_by_function: IntCounterVec,
    latency: Latency,
    seconds: HistogramVec,
    groups_set: IntCounter,
    /// Calls without an answer yet: action and start.
    in_flight: Mutex<BTreeMap<CallId, (Action, Timestamp)>>,
}

impl Default for Calls {
    fn default() -> Self {
        let failed_by_function = counters(&registry::ERRORS);
        // Prometheus sees the first increase only of a series that exists before.
        for function in [ALLOC_ENI, ALLOC_ADDRESSES, DECREASE, DESCRIBE] {
            failed_by_function.with_label_values(&[function]).inc_by(0);
        }
        Self {
            ended: counters(&registry::EC2_CALLS),
            failed: counters(&registry::EC2_FAILURES),
            failed_by_code: counters(&registry::EC2_ERRORS),
            failed_by_function,
            latency: Latency::new(&registry::EC2_LATENCY),
            seconds: histograms(&registry::EC2_SECONDS, &BOUNDS),
            groups_set: counter(&registry::GROUPS_SET),
            in_flight: Mutex::default(),
        }
    }
}

impl Calls {
    pub(super) fn made(&self, id: CallId, call: &Ec2Call, now: Timestamp) {
        self.with_in_flight(|calls| calls.insert(id, (call.action(), now)));
    }

    pub(super) fn done(&self, id: CallId, result: &Result<CallOutput, CallError>, now: Timestamp) {
        let Some((action, since)) = self.with_in_flight(|calls| calls.remove(&id)) else { return };
        if result.is_ok() && action == Action::SetSecurityGroups {
            self.groups_set.inc();
        }
        if let (Err(_), Some(function)) = (result, function_of(action)) {
            self.failed_by_function.with_label_values(&[function]).inc();
        }
        let (action, span) = (action.as_str(), now.since(since));
        self.ended.with_label_values(&[action]).inc();
        let failed = self.failed.with_label_values(&[action]);
        let (labels, outcome) = match result {
            Ok(_) => ([action, "false", "200"], "ok"),
            Err(error) => {
                failed.inc();
                self.failed_by_code.with_label_values(&[action, &error.code]).inc();
                ([action, "true", &*error.code], outcome_of(error.kind))
            }
        };
        self.latency.observe(labels, span);
        self.seconds.with_label_values(&[action, outcome]).observe(span.as_secs_f64());
    }

    pub(super) fn show(&self, page: &Page) {
        let Self {
            ended,
            failed,
            failed_by_code,
            failed_by_function,
            latency,
            seconds,
            groups_set,
            in_flight: _,
        } = self;
        page.add(ended.clone());
        page.add(failed.clone());
        page.add(failed_by_code.clone());
        page.add(failed_by_function.clone());
        page.add(latency.clone());
        page.add(seconds.clone());
        page.add(groups_set.clone());
        page.gauges(&registry::IN_PROGRESS, self.in_progress());
    }

    /// Calls under way, under the names of amazon-vpc-cni-k8s's functions.
    fn in_progress(&self) -> BTreeMap<&'static str, usize> {
        let mut n_by_function: BTreeMap<_, _> =
            [INCREASE, DECREASE_POOL, RECONCILE].map(|function| (function, 0)).into();
        self.with_in_flight(|calls| {
            for (action, _) in calls.values() {
                let function = match action {
                    Action::CreateEni
                    | Action::AttachEni
                    | Action::SetDeleteOnTermination
                    | Action::Assign
                    | Action::AssignIpv6 => INCREASE,
                    Action::Unassign
                    | Action::UnassignIpv6
                    | Action::DetachEni
                    | Action::DeleteEni => DECREASE_POOL,
                    Action::DescribeEnis | Action::DescribeSubnets | Action::SetSecurityGroups => {
                        RECONCILE
                    }
                };
                *n_by_function.entry(function).or_default() += 1;
            }
        });
        n_by_function
    }

    fn with_in_flight<T>(
        &self,
        act: impl FnOnce(&mut BTreeMap<CallId, (Action, Timestamp)>) -> T,
    ) -> T {
        act(&mut self.in_flight.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Values of the label `fn` of `awscni_ipamd_action_inprogress`.
/// Source: amazon-vpc-cni-k8s v1.23.1, `pkg/ipamd/ipamd.go`.
const INCREASE: &str = "increaseDatastorePool";
const DECREASE_POOL: &str = "decreaseDatastorePool";
const RECONCILE: &str = "nodeIPPoolReconcile";
/// Values of the label `fn` of `awscni_ipamd_error_count`. Source: as above.
const ALLOC_ENI: &str = "increaseIPPoolAllocENI";
const ALLOC_ADDRESSES: &str = "increaseIPPoolAllocIPAddressesFailed";
const DECREASE: &str = "decreaseIPPool";
const DESCRIBE: &str = "reconcileFailedGetENIs";

/// The function in which amazon-vpc-cni-k8s counts a failure of `action`, if it has one.
fn function_of(action: Action) -> Option<&'static str> {
    match action {
        Action::CreateEni | Action::AttachEni | Action::SetDeleteOnTermination => Some(ALLOC_ENI),
        Action::Assign | Action::AssignIpv6 => Some(ALLOC_ADDRESSES),
        Action::Unassign | Action::UnassignIpv6 | Action::DetachEni | Action::DeleteEni => {
            Some(DECREASE)
        }
        Action::DescribeEnis => Some(DESCRIBE),
        Action::DescribeSubnets | Action::SetSecurityGroups => None,
    }
}

/// The value of the label `outcome`.
fn outcome_of(kind: CallErrorKind) -> &'static str {
    match kind {
        CallErrorKind::Throttled => "throttled",
        CallErrorKind::SubnetExhausted => "subnet_exhausted",
        CallErrorKind::SubnetFragmented => "subnet_fragmented",
        CallErrorKind::AddressLimit => "address_limit",
        CallErrorKind::EniLimit => "eni_limit",
        CallErrorKind::DeviceIndexTaken => "device_index_taken",
        CallErrorKind::NotFound => "not_found",
        CallErrorKind::InUse => "in_use",
        CallErrorKind::AccessDenied => "access_denied",
        CallErrorKind::NoCredentials => "no_credentials",
        CallErrorKind::OutcomeUnknown => "unknown",
        CallErrorKind::Lasting => "lasting",
        CallErrorKind::Rejected => "rejected",
    }
}

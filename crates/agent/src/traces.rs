//! Which spans requests and calls to EC2 have. The caller of a request may send the context of its own span; then the
//! spans of the request are in that trace, and so are those of the calls that the request waits for.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use ipam::call::{Action, CallError, CallId, CallOutput, Ec2Call};
use ipam::event::Answer;
use ipam::id::{AttachmentKey, Network, Pod};
use otlp::{Kind, Span, Tracer};
use trace_context::TraceContext;

use crate::handle::RequestKind;
use crate::metrics::Outcome;

/// The trace of one request.
#[derive(Debug, Default)]
pub(crate) struct RequestTrace {
    /// What the caller has sent. It is logged even if no span is recorded.
    caller: Option<TraceContext>,
    spans: Option<Box<RequestSpans>>,
}

/// The span of the whole request, and that of its present phase.
#[derive(Debug)]
struct RequestSpans {
    whole: Span,
    phase: Span,
}

impl RequestTrace {
    /// A request has arrived. It waits until it is [decided](Self::decided).
    pub(crate) fn begin(tracer: &Tracer, kind: RequestKind, caller: Option<TraceContext>) -> Self {
        let name = match kind {
            RequestKind::Add => "ADD",
            RequestKind::Del => "DEL",
            RequestKind::Gc => "GC",
        };
        let whole = tracer.start(name, Kind::Server, caller.as_ref());
        let spans = whole.map(|whole| {
            let phase = whole.child("wait", Kind::Internal, SystemTime::now());
            Box::new(RequestSpans { whole, phase })
        });
        Self { caller, spans }
    }

    /// The request is about this attachment.
    pub(crate) fn about(&mut self, key: &AttachmentKey) {
        let Some(spans) = &mut self.spans else { return };
        if let Network::Named(network) = &key.network {
            spans.whole.set("cni.network", network.as_str());
        }
        spans.whole.set("container.id", key.container.as_str());
        spans.whole.set("network.interface.name", key.ifname.as_str());
    }

    /// The request is for this pod.
    pub(crate) fn of_pod(&mut self, pod: &Pod) {
        let Some(spans) = &mut self.spans else { return };
        let names = [
            ("k8s.namespace.name", &pod.namespace),
            ("k8s.pod.name", &pod.name),
            ("k8s.pod.uid", &pod.uid),
        ];
        for (name, text) in names.into_iter().filter(|(_, text)| !text.is_empty()) {
            spans.whole.set(name, text.as_str());
        }
    }

    /// The parent of what happens for the request now.
    pub(crate) fn context(&self) -> Option<&TraceContext> {
        let phase = self.spans.as_ref().map(|spans| spans.phase.context());
        phase.or(self.caller.as_ref())
    }

    /// An event that came at `since` has decided the request, and its change goes to the disk now.
    pub(crate) fn decided(&mut self, since: SystemTime) {
        let Some(spans) = &mut self.spans else { return };
        let now = SystemTime::now();
        let disk = spans.whole.child("disk", Kind::Internal, now);
        std::mem::replace(&mut spans.phase, disk).end_at(since, None);
        spans.whole.child("assign", Kind::Internal, since).end_at(now, None);
    }

    /// The request has ended.
    pub(crate) fn end(self, outcome: Outcome, answer: Option<&Answer>) {
        if let Some(context) = self.context() {
            tracing::debug!(trace_id = %context.trace, outcome = outcome.as_str(), "request has ended");
        }
        let Some(spans) = self.spans else { return };
        let RequestSpans { mut whole, phase } = *spans;
        let fault = match answer {
            None | Some(Answer::Released(_) | Answer::Collected(_)) => None,
            Some(Answer::Granted(held)) => {
                let addresses: Vec<_> = held.ips().map(|address| address.to_string()).collect();
                whole.set("tidepool.addresses", addresses.join(","));
                None
            }
            Some(Answer::Refused(refusal)) => {
                whole.set("error.type", refusal.code.as_str());
                Some(refusal.message.clone())
            }
        };
        whole.set("tidepool.outcome", outcome.as_str());
        phase.end(fault.clone());
        whole.end(fault);
    }
}

/// The spans of calls to EC2.
#[derive(Debug, Default)]
pub(crate) struct CallTraces {
    tracer: Tracer,
    /// Calls without an answer yet.
    open: BTreeMap<CallId, (Action, Option<Span>)>,
    /// How often each action has failed since its last success.
    n_failed: BTreeMap<Action, u64>,
}

impl CallTraces {
    pub(crate) fn new(tracer: Tracer) -> Self {
        Self { tracer, ..Self::default() }
    }

    /// A call is made, for requests with the contexts `causes`. The first is the parent.
    pub(crate) fn made(
        &mut self,
        id: CallId,
        call: &Ec2Call,
        why: &impl fmt::Display,
        causes: &[TraceContext],
    ) {
        let action = call.action();
        let mut span = self.tracer.start(action.as_str(), Kind::Client, causes.first());
        if let Some(span) = &mut span {
            span.set("rpc.system", "aws-api");
            span.set("rpc.service", "EC2");
            span.set("rpc.method", action.as_str());
            span.set("tidepool.call", id.0);
            span.set("tidepool.attempt", 1 + self.n_failed.get(&action).copied().unwrap_or(0));
            span.set("tidepool.why", why.to_string());
            if let Some(eni) = call.eni() {
                span.set("aws.ec2.eni", eni.as_str());
            }
            causes.iter().skip(1).for_each(|other| span.link(other));
        }
        self.open.insert(id, (action, span));
    }

    /// A call has ended.
    pub(crate) fn done(&mut self, id: CallId, result: &Result<CallOutput, CallError>) {
        let Some((action, span)) = self.open.remove(&id) else { return };
        let fault = result.as_ref().err();
        match fault {
            Some(_) => *self.n_failed.entry(action).or_default() += 1,
            None => drop(self.n_failed.remove(&action)),
        }
        let Some(mut span) = span else { return };
        if let Some(fault) = fault {
            span.set("error.type", fault.code.as_str());
        }
        span.end(fault.map(ToString::to_string));
    }
}

//! The requests without an answer yet, and how long each phase of a request takes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ipam::event::{Answer, RequestId};
use ipam::id::AttachmentKey;
use ipam::record::Change;
use tokio::sync::oneshot;
use trace_context::TraceContext;

use crate::handle::RequestKind;
use crate::metrics::{Counters, Outcome, Phase};
use crate::traces::RequestTrace;

/// A plugin asks for the check of its ADD within this time. A later check is the runtime's own.
const LONGEST_KERNEL_PHASE: Duration = Duration::from_secs(120);

/// The requests of plugins.
#[derive(Debug)]
pub(super) struct Requests {
    counters: Arc<Counters>,
    pending: BTreeMap<RequestId, Pending>,
    /// When the ADD of each attachment was granted, until its plugin has set up the link and asks for the check.
    granted: BTreeMap<AttachmentKey, Instant>,
}

#[derive(Debug)]
struct Pending {
    kind: RequestKind,
    /// The attachment; a GC has none.
    key: Option<AttachmentKey>,
    reply: oneshot::Sender<Answer>,
    arrived: Instant,
    /// When its change went to the disk.
    decided: Option<Instant>,
    trace: RequestTrace,
}

impl Requests {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        Self { counters, pending: BTreeMap::new(), granted: BTreeMap::new() }
    }

    /// A request has arrived.
    pub(super) fn begin(
        &mut self,
        request: RequestId,
        kind: RequestKind,
        key: Option<AttachmentKey>,
        reply: oneshot::Sender<Answer>,
        trace: RequestTrace,
    ) {
        if let Some(key) = &key {
            self.granted.remove(key);
        }
        let pending = Pending { kind, key, reply, arrived: Instant::now(), decided: None, trace };
        self.pending.insert(request, pending);
    }

    /// These changes go to the disk now. The event that led to them came at `since`.
    pub(super) fn decided(&mut self, changes: &[Change], since: SystemTime) {
        for change in changes {
            let (key, kind) = match change {
                Change::Assigned { key, .. } => (key, RequestKind::Add),
                Change::Released { key, .. } => (key, RequestKind::Del),
                Change::Resting { .. }
                | Change::Rested { .. }
                | Change::Intended { .. }
                | Change::Settled { .. }
                | Change::Booted { .. }
                | Change::EniKnown(_)
                | Change::EniForgotten { .. }
                | Change::VpcRanges { .. }
                | Change::Delegated { .. } => continue,
            };
            if kind == RequestKind::Del {
                self.granted.remove(key);
            }
            // A GC releases attachments that it does not name.
            let concerns = |it: &&mut Pending| match it.kind {
                RequestKind::Gc => kind == RequestKind::Del,
                RequestKind::Add | RequestKind::Del => {
                    it.kind == kind && it.key.as_ref() == Some(key)
                }
            };
            for pending in self.pending.values_mut().filter(concerns) {
                if pending.decided.is_none() {
                    pending.decided = Some(Instant::now());
                    pending.trace.decided(since);
                }
            }
        }
    }

    /// The engine has answered.
    pub(super) fn answer(&mut self, request: RequestId, answer: Answer) {
        let Some(pending) = self.pending.remove(&request) else { return };
        let (now, outcome) = (Instant::now(), Outcome::of(&answer));
        pending.count(&self.counters, outcome, now);
        if let Answer::Refused(refusal) = &answer
            && pending.kind == RequestKind::Add
        {
            self.counters.add_refused(refusal.code);
        }
        pending.trace.end(outcome, Some(&answer));
        if let (Answer::Granted(_), Some(key)) = (&answer, pending.key) {
            self.granted.insert(key, now);
        }
        reply(pending.reply, answer);
    }

    /// Its caller has gone.
    pub(super) fn cancel(&mut self, request: RequestId) {
        if let Some(pending) = self.pending.remove(&request) {
            pending.count(&self.counters, Outcome::Cancelled, Instant::now());
            pending.trace.end(Outcome::Cancelled, None);
        }
    }

    /// A plugin, or a runtime, has asked for a check.
    pub(super) fn checked(&mut self, key: &AttachmentKey) {
        let since = self.granted.remove(key).map(|granted| granted.elapsed());
        if let Some(span) = since.filter(|span| *span <= LONGEST_KERNEL_PHASE) {
            self.counters.phase(RequestKind::Add, Phase::Kernel, Outcome::Granted, span);
        }
    }

    /// The ADDs that wait.
    pub(super) fn adds(&self) -> Vec<RequestId> {
        let adds = self.pending.iter().filter(|(_, pending)| pending.kind == RequestKind::Add);
        adds.map(|(request, _)| *request).collect()
    }

    /// Answers in place of the engine, which nobody counts.
    pub(super) fn refuse(&mut self, request: RequestId, answer: Answer) {
        if let Some(pending) = self.pending.remove(&request) {
            pending.trace.end(Outcome::of(&answer), Some(&answer));
            reply(pending.reply, answer);
        }
    }

    /// The traces of these requests, as far as they have one.
    pub(super) fn traces(&self, requests: impl Iterator<Item = RequestId>) -> Vec<TraceContext> {
        let pending = requests.filter_map(|request| self.pending.get(&request));
        pending.filter_map(|pending| pending.trace.context().cloned()).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }
}

impl Pending {
    /// A request without a change of its own, such as a refusal, spends its whole time on the decision.
    fn count(&self, counters: &Counters, outcome: Outcome, now: Instant) {
        let decided = self.decided.unwrap_or(now);
        counters.request(self.kind, outcome, now - self.arrived);
        counters.phase(self.kind, Phase::Decision, outcome, decided - self.arrived);
        counters.phase(self.kind, Phase::Record, outcome, now - decided);
    }
}

/// The send fails if the caller has just hung up. That is no error: a retry gets the same answer.
pub(super) fn reply(to: oneshot::Sender<Answer>, answer: Answer) {
    let _ = to.send(answer);
}

#[cfg(test)]
mod tests {
    use ipam::event::{Refusal, RefusalCode};
    use ipam::id::Network;
    use ipam::time::Timestamp;

    use super::*;

    fn key(container: &str) -> AttachmentKey {
        let network = Network::Named("aws-cni".to_owned());
        AttachmentKey { network, container: container.to_owned(), ifname: "eth0".to_owned() }
    }

    fn requests() -> Requests {
        Requests::new(Arc::default())
    }

    fn begin(requests: &mut Requests, n: u64, kind: RequestKind, key: Option<AttachmentKey>) {
        requests.begin(RequestId(n), kind, key, oneshot::channel().0, RequestTrace::default());
    }

    fn is_decided(requests: &Requests, n: u64) -> bool {
        requests.pending[&RequestId(n)].decided.is_some()
    }

    #[test]
    fn change_decides_the_requests_that_it_is_for() {
        let mut requests = requests();
        begin(&mut requests, 1, RequestKind::Add, Some(key("a")));
        begin(&mut requests, 2, RequestKind::Del, Some(key("a")));
        begin(&mut requests, 3, RequestKind::Del, Some(key("b")));
        begin(&mut requests, 4, RequestKind::Gc, None);
        let now = SystemTime::now();
        requests.decided(&[Change::Rested { address: [10, 0, 0, 1].into() }], now);
        assert!((1..5).all(|n| !is_decided(&requests, n)));
        requests.decided(&[Change::Released { key: key("a"), at: Timestamp::default() }], now);
        let decided: Vec<_> = (1..5).map(|n| is_decided(&requests, n)).collect();
        assert_eq!(decided, [false, true, false, true]);
    }

    #[test]
    fn nothing_stays_of_requests_that_have_ended() {
        let mut requests = requests();
        begin(&mut requests, 1, RequestKind::Add, Some(key("a")));
        begin(&mut requests, 2, RequestKind::Add, Some(key("b")));
        let refusal =
            Refusal { code: RefusalCode::EniLimit, message: String::new(), retry_after: None };
        requests.answer(RequestId(1), Answer::Refused(refusal));
        requests.cancel(RequestId(2));
        assert_eq!(requests.len(), 0);
        requests.granted.insert(key("c"), Instant::now());
        requests.granted.insert(key("d"), Instant::now());
        requests.checked(&key("c"));
        let released = Change::Released { key: key("d"), at: Timestamp::default() };
        requests.decided(&[released], SystemTime::now());
        assert!(requests.granted.is_empty(), "{:?}", requests.granted);
    }
}

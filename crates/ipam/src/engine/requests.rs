//! Add, Cancel, Del and Gc: who waits, who is promised an address, who gives one back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::Engine;
use super::refusal::Outlook;
use super::saves::Then;
use crate::event::{Answer, Refusal, RefusalCode, RequestId};
use crate::id::{AttachmentKey, Pod};
use crate::record::{Assignment, Change};
use crate::time::Timestamp;

/// How long before its caller gives up a request is answered, so that the answer arrives.
const MARGIN: Duration = Duration::from_millis(500);

/// Requests that are not answered yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Requests {
    /// Adds without an address, first come first.
    waiters: VecDeque<Waiter>,
    /// Adds whose address is on its way to the record.
    promises: BTreeMap<AttachmentKey, Promise>,
    /// Attachments whose release is on its way to the record, and who asked for it.
    releases: BTreeMap<AttachmentKey, Vec<RequestId>>,
}

/// An Add that needs an address.
#[derive(Debug, Clone)]
struct Waiter {
    request: RequestId,
    key: AttachmentKey,
    pod: Pod,
    netns: String,
    /// When it is refused if there is no address by then.
    patience: Timestamp,
    /// When it is refused in any case.
    deadline: Timestamp,
}

/// An address that is somebody's as soon as the record says so.
#[derive(Debug, Clone)]
struct Promise {
    address: IpAddr,
    /// Whether its pod runs, so that it is kept without an Add.
    runs: bool,
    /// The Adds to answer, with their deadlines; empty if all have been cancelled.
    adds: BTreeMap<RequestId, Timestamp>,
    /// The Dels that came meanwhile: the address is released as soon as it is granted.
    dels: Vec<RequestId>,
}

impl Requests {
    pub(super) fn n_waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Addresses that are promised but not on record.
    pub(super) fn promised(&self) -> BTreeSet<IpAddr> {
        self.promises.values().map(|promise| promise.address).collect()
    }

    pub(super) fn is_releasing(&self, key: &AttachmentKey) -> bool {
        self.releases.contains_key(key)
    }

    pub(super) fn is_promised(&self, key: &AttachmentKey) -> bool {
        self.promises.contains_key(key)
    }

    /// The attachments that wait for an address or are promised one.
    pub(super) fn adding(&self) -> impl Iterator<Item = &AttachmentKey> {
        self.waiters.iter().map(|waiter| &waiter.key).chain(self.promises.keys())
    }

    /// When the next of them must be answered.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        let waiting = self.waiters.iter().map(|waiter| waiter.patience);
        let promised = self.promises.values().flat_map(|promise| promise.adds.values().copied());
        waiting.chain(promised).min()
    }
}

impl Engine {
    pub(super) fn add(
        &mut self,
        request: RequestId,
        key: AttachmentKey,
        pod: Pod,
        netns: String,
        deadline: Timestamp,
        now: Timestamp,
    ) {
        let deadline = deadline.before(MARGIN);
        let patience = deadline.min(now + self.policy.add_wait);
        let waiter = Waiter { request, key, pod, netns, patience, deadline };
        self.requests.waiters.push_back(waiter);
    }

    pub(super) fn cancel(&mut self, request: RequestId) {
        self.requests.waiters.retain(|waiter| waiter.request != request);
        for promise in self.requests.promises.values_mut() {
            promise.adds.remove(&request);
        }
    }

    pub(super) fn del(&mut self, request: RequestId, key: AttachmentKey, now: Timestamp) {
        self.refuse_waiters_of(&key);
        if let Some(promise) = self.requests.promises.get_mut(&key) {
            promise.dels.push(request);
        } else if let Some(requests) = self.requests.releases.get_mut(&key) {
            requests.push(request);
        } else if let Some(assignment) = self.record.assignments().get(&key).cloned() {
            self.release(key, assignment, vec![request], now);
        } else {
            self.reply(request, Answer::Released(None));
        }
    }

    pub(super) fn gc(
        &mut self,
        request: RequestId,
        network: &str,
        valid: &BTreeSet<(String, String)>,
        now: Timestamp,
    ) {
        let is_dead = |key: &AttachmentKey| {
            self.is_of(key, network)
                && !valid.contains(&(key.container.clone(), key.ifname.clone()))
                && !self.requests.is_releasing(key)
                && self.requests.waiters.iter().all(|waiter| waiter.key != *key)
        };
        let assignments = self.record.assignments().iter();
        let dead = assignments.filter(|(key, _)| is_dead(key));
        let dead: Vec<_> = dead.map(|(key, found)| (key.clone(), found.clone())).collect();
        if dead.is_empty() {
            self.reply(request, Answer::Collected(dead));
            return;
        }
        for (key, assignment) in &dead {
            self.release(key.clone(), assignment.clone(), Vec::new(), now);
        }
        self.saves.then(Then::Collected(request, dead));
    }

    pub(super) fn release(
        &mut self,
        key: AttachmentKey,
        assignment: Assignment,
        requests: Vec<RequestId>,
        now: Timestamp,
    ) {
        self.saves.note(Change::Released { key: key.clone(), at: now });
        self.saves.then(Then::Release(key.clone(), assignment));
        self.requests.releases.insert(key, requests);
    }

    /// A release is on record.
    pub(super) fn released(&mut self, key: &AttachmentKey, assignment: Assignment, now: Timestamp) {
        if let Some(since) = self.record.cooling().get(&assignment.address) {
            self.pool.rest(assignment.address, *since);
        }
        for address in self.pool.forget_rested(assignment.address, now) {
            self.saves.note(Change::Rested { address });
        }
        for request in self.requests.releases.remove(key).unwrap_or_default() {
            self.reply(request, Answer::Released(Some(assignment.clone())));
        }
    }

    /// A release could not be put on record: the attachment keeps its address.
    pub(super) fn not_released(&mut self, key: &AttachmentKey, now: Timestamp) {
        let refusal = self.unwritable(now);
        for request in self.requests.releases.remove(key).unwrap_or_default() {
            self.reply(request, Answer::Refused(refusal.clone()));
        }
    }

    /// Gives free addresses to those who wait, in their order.
    pub(super) fn serve(&mut self, now: Timestamp) {
        for waiter in std::mem::take(&mut self.requests.waiters) {
            if let Some(unserved) = self.serve_one(waiter, now) {
                self.requests.waiters.push_back(unserved);
            }
        }
    }

    /// Returns the waiter if it must go on waiting.
    fn serve_one(&mut self, waiter: Waiter, now: Timestamp) -> Option<Waiter> {
        if self.requests.is_releasing(&waiter.key) || self.saves.doubt(&waiter.key) {
            return Some(waiter);
        }
        if let Some(assignment) = self.record.assignments().get(&waiter.key) {
            // By now the kernel shows another pod at it.
            if self.pool.quarantine.contains_key(&assignment.address) {
                return Some(waiter);
            }
            let answer = Answer::Granted(assignment.clone());
            self.reply(waiter.request, answer);
            return None;
        }
        if waiter.deadline <= now {
            return Some(waiter);
        }
        if let Some(promise) = self.requests.promises.get_mut(&waiter.key) {
            if !promise.dels.is_empty() {
                return Some(waiter);
            }
            promise.adds.insert(waiter.request, waiter.deadline);
            return None;
        }
        self.promise(waiter, now)
    }

    fn promise(&mut self, waiter: Waiter, now: Timestamp) -> Option<Waiter> {
        let doubted = self.doubted(now);
        let picked = self.pool.pick(self.mode(), &doubted, now);
        let Some((eni, address)) = picked else { return Some(waiter) };
        let Some(device_index) = eni.device_index() else { return Some(waiter) };
        let assignment = Assignment {
            address,
            eni: eni.id.clone(),
            device_index,
            network_card: 0,
            pod: waiter.pod,
            netns: waiter.netns,
            since: now,
        };
        let adds = BTreeMap::from([(waiter.request, waiter.deadline)]);
        let promise = Promise { address, runs: false, adds, dels: Vec::new() };
        self.put_on_record(waiter.key, assignment, promise);
        None
    }

    /// Promises a pod the address with which it runs.
    pub(super) fn promise_as_it_is(&mut self, key: AttachmentKey, assignment: Assignment) {
        let (adds, dels) = (BTreeMap::new(), Vec::new());
        let promise = Promise { address: assignment.address, runs: true, adds, dels };
        self.put_on_record(key, assignment, promise);
    }

    fn put_on_record(&mut self, key: AttachmentKey, assignment: Assignment, promise: Promise) {
        self.pool.hold(promise.address);
        self.saves.note(Change::Assigned { key: key.clone(), assignment });
        self.saves.then(Then::Grant(key.clone()));
        self.requests.promises.insert(key, promise);
    }

    /// A promise is on record. If nobody wants it any more, it is released at once.
    pub(super) fn granted(&mut self, key: AttachmentKey, now: Timestamp) {
        let Some(promise) = self.requests.promises.remove(&key) else { return };
        let assignment = self.record.assignments()[&key].clone();
        if promise.runs {
            self.pool.end_quarantine(promise.address);
        }
        let wanted = promise.dels.is_empty() && (promise.runs || !promise.adds.is_empty());
        let answer = match wanted {
            true => Answer::Granted(assignment.clone()),
            false => Answer::Refused(deleted_meanwhile()),
        };
        for request in promise.adds.into_keys() {
            self.reply(request, answer.clone());
        }
        if !wanted {
            self.release(key, assignment, promise.dels, now);
        }
    }

    /// A promise could not be put on record.
    pub(super) fn not_granted(&mut self, key: &AttachmentKey, now: Timestamp) {
        let Some(promise) = self.requests.promises.remove(key) else { return };
        self.pool.unhold(promise.address, &self.record);
        let refusal = self.unwritable(now);
        for request in promise.adds.into_keys() {
            self.reply(request, Answer::Refused(refusal.clone()));
        }
        for request in promise.dels {
            self.reply(request, Answer::Released(None));
        }
    }

    /// Refuses those whose promise is not on record in time; the promise is released later.
    pub(super) fn drop_late_grants(&mut self, now: Timestamp) {
        let mut late = Vec::new();
        for promise in self.requests.promises.values_mut() {
            late.extend(promise.adds.extract_if(.., |_, deadline| *deadline <= now));
        }
        for (request, _) in late {
            let refusal = self.unwritable(now);
            self.reply(request, Answer::Refused(refusal));
        }
    }

    /// Refuses those who wait in vain or have waited long enough.
    pub(super) fn dismiss(&mut self, now: Timestamp) {
        if self.requests.waiters.is_empty() {
            return;
        }
        let hope = self.hope(now);
        let waiters = std::mem::take(&mut self.requests.waiters);
        let mut dismissed = Vec::new();
        for (place, waiter) in waiters.into_iter().enumerate() {
            if now < waiter.patience && hope.for_place(place, waiter.patience) {
                self.requests.waiters.push_back(waiter);
            } else {
                let outlook = if hope.is_served(place) { Outlook::Late } else { Outlook::Bleak };
                dismissed.push((waiter.request, outlook));
            }
        }
        for (request, outlook) in dismissed {
            let refusal = self.refusal(outlook, now);
            self.reply(request, Answer::Refused(refusal));
        }
    }

    fn refuse_waiters_of(&mut self, key: &AttachmentKey) {
        let waiters = std::mem::take(&mut self.requests.waiters);
        let (gone, staying) = waiters.into_iter().partition(|waiter| waiter.key == *key);
        self.requests.waiters = staying;
        let gone: VecDeque<Waiter> = gone;
        for waiter in gone {
            self.reply(waiter.request, Answer::Refused(deleted_meanwhile()));
        }
    }
}

fn deleted_meanwhile() -> Refusal {
    Refusal {
        code: RefusalCode::Attaching,
        message: "the attachment was deleted while it waited for an address".to_owned(),
        retry_after: None,
    }
}

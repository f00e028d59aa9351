//! Add, Cancel, Del and Gc: who waits, who is promised an address, who gives one back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::context::Context;
use super::journal::{Journal, Then};
use crate::block::Block;
use crate::event::{Answer, Effect, Refusal, RefusalCode, RequestId};
use crate::id::{AttachmentKey, Pod};
use crate::pool::Pool;
use crate::record::{Assignment, Change, Record};
use crate::time::Timestamp;

/// How long before its caller gives up a request is answered, so that the answer arrives.
const MARGIN: Duration = Duration::from_millis(500);

/// Requests that are not answered yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Demand {
    /// Adds without an address, first come first.
    waiters: VecDeque<Waiter>,
    /// Adds whose address is on its way to the record.
    promises: BTreeMap<AttachmentKey, Promise>,
    /// Attachments whose release is on its way to the record, and who asked for it.
    releases: BTreeMap<AttachmentKey, Vec<RequestId>>,
}

/// An Add that needs an address.
#[derive(Debug, Clone)]
pub(super) struct Waiter {
    pub(super) request: RequestId,
    pub(super) key: AttachmentKey,
    pub(super) pod: Pod,
    pub(super) netns: String,
    /// When it is refused if there is no address by then.
    patience: Timestamp,
    /// When it is refused in any case.
    deadline: Timestamp,
}

/// An address that belongs to an attachment as soon as the record says so.
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

/// Which waiting pods may expect an address.
#[derive(Debug, Clone)]
pub(super) struct Outlook {
    /// The addresses of so many of the first are under way.
    pub(super) n_served: usize,
    /// When further addresses will have rested.
    pub(super) rest_ends: Vec<Timestamp>,
    /// When an obstacle passes.
    pub(super) passes_at: Option<Timestamp>,
}

/// Why a waiting Add is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shortage {
    /// An address for it is under way, but late.
    Late,
    /// No address for it is under way.
    Nothing,
}

impl Outlook {
    /// Whether the address for the `place`th of the waiters is under way.
    fn is_served(&self, place: usize) -> bool {
        place < self.n_served
    }

    fn is_worth_waiting(&self, place: usize, patience: Timestamp) -> bool {
        let rested = place.checked_sub(self.n_served).and_then(|n| self.rest_ends.get(n));
        self.is_served(place)
            || rested.is_some_and(|at| *at <= patience)
            || self.passes_at.is_some_and(|at| at <= patience)
    }
}

impl Waiter {
    /// `deadline` is when the caller gives up.
    pub(super) fn new(
        request: RequestId,
        key: AttachmentKey,
        (pod, netns): (Pod, String),
        deadline: Timestamp,
        cx: Context<'_>,
    ) -> Self {
        let deadline = deadline.before(MARGIN);
        let patience = deadline.min(cx.now + cx.policy.add_wait);
        Self { request, key, pod, netns, patience, deadline }
    }
}

impl Demand {
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

    /// The attachments that wait for an address or are promised one.
    pub(super) fn adding(&self) -> impl Iterator<Item = &AttachmentKey> {
        self.waiters.iter().map(|waiter| &waiter.key).chain(self.promises.keys())
    }

    /// The key under which `record` has the attachment, or will have it. An attachment that is known by
    /// its link alone has no network there.
    pub(super) fn known_as(&self, key: AttachmentKey, record: &Record) -> AttachmentKey {
        let nameless = key.nameless();
        let is_known = record.assignments().contains_key(&nameless);
        if is_known || self.promises.contains_key(&nameless) { nameless } else { key }
    }

    /// When the next of the requests must be answered.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        let waiting = self.waiters.iter().map(|waiter| waiter.patience);
        let promised = self.promises.values().flat_map(|promise| promise.adds.values().copied());
        waiting.chain(promised).min()
    }

    pub(super) fn add(&mut self, waiter: Waiter) {
        self.waiters.push_back(waiter);
    }

    pub(super) fn cancel(&mut self, request: RequestId) {
        self.waiters.retain(|waiter| waiter.request != request);
        for promise in self.promises.values_mut() {
            promise.adds.remove(&request);
        }
    }

    pub(super) fn del(
        &mut self,
        request: RequestId,
        key: AttachmentKey,
        journal: &mut Journal,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        self.refuse_waiters_of(&key, out);
        if let Some(promise) = self.promises.get_mut(&key) {
            promise.dels.push(request);
        } else if let Some(requests) = self.releases.get_mut(&key) {
            requests.push(request);
        } else if let Some(assignment) = journal.record().assignments().get(&key).cloned() {
            self.release(key, assignment, vec![request], journal, now);
        } else {
            reply(request, Answer::Released(None), out);
        }
    }

    /// Releases the attachments on record for which `may_end` holds and nothing is under way.
    pub(super) fn gc(
        &mut self,
        request: RequestId,
        may_end: impl Fn(&AttachmentKey) -> bool,
        journal: &mut Journal,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        let is_dead = |key: &AttachmentKey| {
            may_end(key)
                && !self.is_releasing(key)
                && self.waiters.iter().all(|waiter| waiter.key != *key)
        };
        let assignments = journal.record().assignments().iter();
        let dead = assignments.filter(|(key, _)| is_dead(key));
        let dead: Vec<_> = dead.map(|(key, found)| (key.clone(), found.clone())).collect();
        if dead.is_empty() {
            reply(request, Answer::Collected(dead), out);
            return;
        }
        for (key, assignment) in &dead {
            self.release(key.clone(), assignment.clone(), Vec::new(), journal, now);
        }
        journal.then(Then::Collected(request, dead));
    }

    /// Puts a release on its way to the record; `requests` are answered when it is there.
    pub(super) fn release(
        &mut self,
        key: AttachmentKey,
        assignment: Assignment,
        requests: Vec<RequestId>,
        journal: &mut Journal,
        now: Timestamp,
    ) {
        journal.note(Change::Released { key: key.clone(), at: now });
        journal.then(Then::Release(key.clone(), assignment));
        self.releases.insert(key, requests);
    }

    /// A release is on record.
    pub(super) fn released(
        &mut self,
        key: &AttachmentKey,
        assignment: &Assignment,
        pool: &mut Pool,
        journal: &mut Journal,
        cx: Context<'_>,
        out: &mut Vec<Effect>,
    ) {
        if let Some(since) = journal.record().cooling().get(&assignment.address) {
            pool.rest(assignment.address, *since);
        }
        for address in pool.forget_rested(assignment.address, cx.cooldown(), cx.now) {
            journal.note(Change::Rested { address });
        }
        for request in self.releases.remove(key).unwrap_or_default() {
            reply(request, Answer::Released(Some(assignment.clone())), out);
        }
    }

    /// A release could not be put on record: the attachment keeps its address.
    pub(super) fn not_released(
        &mut self,
        key: &AttachmentKey,
        refusal: &Refusal,
        out: &mut Vec<Effect>,
    ) {
        for request in self.releases.remove(key).unwrap_or_default() {
            reply(request, Answer::Refused(refusal.clone()), out);
        }
    }

    /// Gives free addresses to the waiters, in their order. Addresses in `doubted` blocks come last.
    pub(super) fn serve(
        &mut self,
        pool: &mut Pool,
        doubted: &BTreeSet<Block>,
        journal: &mut Journal,
        cx: Context<'_>,
        out: &mut Vec<Effect>,
    ) {
        for waiter in std::mem::take(&mut self.waiters) {
            let waiter = self.join_or_answer(waiter, pool, journal, cx, out);
            let unserved = waiter.and_then(|waiter| match waiter {
                Unserved::Needs(waiter) => self.promise(waiter, pool, doubted, journal, cx),
                Unserved::Waits(waiter) => Some(waiter),
            });
            self.waiters.extend(unserved);
        }
    }

    /// Answers from the record, or joins an Add of the same attachment. Returns the waiter otherwise.
    fn join_or_answer(
        &mut self,
        waiter: Waiter,
        pool: &Pool,
        journal: &Journal,
        cx: Context<'_>,
        out: &mut Vec<Effect>,
    ) -> Option<Unserved> {
        if self.is_releasing(&waiter.key) || journal.may_be_released(&waiter.key) {
            return Some(Unserved::Waits(waiter));
        }
        if let Some(assignment) = journal.record().assignments().get(&waiter.key) {
            // The kernel shows another pod at that address.
            if pool.quarantine.contains_key(&assignment.address) {
                return Some(Unserved::Waits(waiter));
            }
            reply(waiter.request, Answer::Granted(assignment.clone()), out);
            return None;
        }
        if waiter.deadline <= cx.now {
            return Some(Unserved::Waits(waiter));
        }
        match self.promises.get_mut(&waiter.key) {
            Some(promise) if !promise.dels.is_empty() => Some(Unserved::Waits(waiter)),
            Some(promise) => {
                promise.adds.insert(waiter.request, waiter.deadline);
                None
            }
            None => Some(Unserved::Needs(waiter)),
        }
    }

    /// Returns the waiter if no address is free.
    fn promise(
        &mut self,
        waiter: Waiter,
        pool: &mut Pool,
        doubted: &BTreeSet<Block>,
        journal: &mut Journal,
        cx: Context<'_>,
    ) -> Option<Waiter> {
        let picked = pool.pick(cx.mode(), doubted, cx.cooldown(), cx.now);
        let Some((eni, address)) = picked else { return Some(waiter) };
        let Some(device_index) = eni.device_index() else { return Some(waiter) };
        let assignment = Assignment {
            address,
            eni: eni.id.clone(),
            device_index,
            network_card: 0,
            pod: waiter.pod,
            netns: waiter.netns,
            since: cx.now,
        };
        let adds = BTreeMap::from([(waiter.request, waiter.deadline)]);
        let promise = Promise { address, runs: false, adds, dels: Vec::new() };
        self.put_on_record(waiter.key, assignment, promise, pool, journal);
        None
    }

    /// Promises a running pod the address that it has.
    pub(super) fn promise_to_running(
        &mut self,
        key: AttachmentKey,
        assignment: Assignment,
        pool: &mut Pool,
        journal: &mut Journal,
    ) {
        let (adds, dels) = (BTreeMap::new(), Vec::new());
        let promise = Promise { address: assignment.address, runs: true, adds, dels };
        self.put_on_record(key, assignment, promise, pool, journal);
    }

    fn put_on_record(
        &mut self,
        key: AttachmentKey,
        assignment: Assignment,
        promise: Promise,
        pool: &mut Pool,
        journal: &mut Journal,
    ) {
        pool.hold(promise.address);
        journal.note(Change::Assigned { key: key.clone(), assignment });
        journal.then(Then::Grant(key.clone()));
        self.promises.insert(key, promise);
    }

    /// A promise is on record. If nobody wants the address any more, it is released at once.
    pub(super) fn granted(
        &mut self,
        key: AttachmentKey,
        pool: &mut Pool,
        journal: &mut Journal,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        let Some(promise) = self.promises.remove(&key) else { return };
        let Some(assignment) = journal.record().assignments().get(&key).cloned() else { return };
        if promise.runs {
            pool.end_quarantine(promise.address);
        }
        let is_wanted = promise.dels.is_empty() && (promise.runs || !promise.adds.is_empty());
        let answer = match is_wanted {
            true => Answer::Granted(assignment.clone()),
            false => Answer::Refused(deleted_meanwhile()),
        };
        for request in promise.adds.into_keys() {
            reply(request, answer.clone(), out);
        }
        if !is_wanted {
            self.release(key, assignment, promise.dels, journal, now);
        }
    }

    /// A promise could not be put on record.
    pub(super) fn not_granted(
        &mut self,
        key: &AttachmentKey,
        refusal: &Refusal,
        pool: &mut Pool,
        record: &Record,
        out: &mut Vec<Effect>,
    ) {
        let Some(promise) = self.promises.remove(key) else { return };
        pool.unhold(promise.address, record);
        for request in promise.adds.into_keys() {
            reply(request, Answer::Refused(refusal.clone()), out);
        }
        for request in promise.dels {
            reply(request, Answer::Released(None), out);
        }
    }

    /// Refuses the Adds whose promise is not on record in time. The promise is released later.
    pub(super) fn drop_late_grants(
        &mut self,
        journal: &Journal,
        now: Timestamp,
        out: &mut Vec<Effect>,
    ) {
        let mut late = Vec::new();
        for promise in self.promises.values_mut() {
            late.extend(promise.adds.extract_if(.., |_, deadline| *deadline <= now));
        }
        for (request, _) in late {
            reply(request, Answer::Refused(journal.unwritable(now)), out);
        }
    }

    /// Removes the waiters that wait in vain or have waited long enough, and returns them.
    pub(super) fn dismiss(
        &mut self,
        outlook: &Outlook,
        now: Timestamp,
    ) -> Vec<(RequestId, Shortage)> {
        let mut dismissed = Vec::new();
        for (place, waiter) in std::mem::take(&mut self.waiters).into_iter().enumerate() {
            if now < waiter.patience && outlook.is_worth_waiting(place, waiter.patience) {
                self.waiters.push_back(waiter);
            } else {
                let is_served = outlook.is_served(place);
                let shortage = if is_served { Shortage::Late } else { Shortage::Nothing };
                dismissed.push((waiter.request, shortage));
            }
        }
        dismissed
    }

    fn refuse_waiters_of(&mut self, key: &AttachmentKey, out: &mut Vec<Effect>) {
        let waiters = std::mem::take(&mut self.waiters);
        let (gone, staying): (VecDeque<_>, _) =
            waiters.into_iter().partition(|waiter| waiter.key == *key);
        self.waiters = staying;
        for waiter in gone {
            reply(waiter.request, Answer::Refused(deleted_meanwhile()), out);
        }
    }
}

/// A waiter that neither the record nor another Add serves.
enum Unserved {
    /// A free address would serve it now.
    Needs(Waiter),
    /// Something must end first.
    Waits(Waiter),
}

pub(super) fn reply(request: RequestId, answer: Answer, out: &mut Vec<Effect>) {
    out.push(Effect::Reply { request, answer });
}

fn deleted_meanwhile() -> Refusal {
    Refusal {
        code: RefusalCode::Attaching,
        message: "the attachment was deleted while it waited for an address".to_owned(),
        retry_after: None,
    }
}

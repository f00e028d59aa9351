//! Add, Cancel, Del and Gc: which attachments wait for an address, are promised one, or give one back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::context::Context;
use super::journal::{Journal, Then};
use crate::block::{Block, Family};
use crate::event::{Answer, Effect, NodeLocal, Refusal, RefusalCode, RequestId};
use crate::id::{AttachmentKey, Pod};
use crate::node_local::{self, NodeLocals};
use crate::pool::Pool;
use crate::record::{Addresses, Assignment, Change, PodIp, Record, Via};
use crate::time::Timestamp;

/// How long before its deadline a request is answered, so that the answer arrives in time.
const MARGIN: Duration = Duration::from_millis(500);

/// Requests that are not answered yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Demand {
    /// Adds without an address, first come first.
    waiters: VecDeque<Waiter>,
    /// Adds whose address is on its way to the record.
    promises: BTreeMap<AttachmentKey, Promise>,
    /// Attachments whose release is on its way to the record.
    releases: BTreeMap<AttachmentKey, Release>,
    /// Attachments whose Del could not be put on record. The Del is repeated until it succeeds, or until an Add
    /// of the same attachment comes.
    owed: BTreeSet<AttachmentKey>,
    node_locals: NodeLocals,
}

/// An Add that needs an address.
#[derive(Debug, Clone)]
pub(super) struct Waiter {
    pub(super) request: RequestId,
    pub(super) key: AttachmentKey,
    pub(super) pod: Pod,
    pub(super) netns: String,
    node_local: NodeLocal,
    /// When it is refused if there is no address by then.
    patience: Timestamp,
    /// When it is refused in any case.
    deadline: Timestamp,
}

/// Addresses that belong to an attachment as soon as its assignment is on record.
#[derive(Debug, Clone)]
struct Promise {
    addresses: Vec<IpAddr>,
    /// Whether its pod runs already, so that the promise is kept without an Add.
    runs: bool,
    /// The Adds to answer, with their deadlines; empty if all have been cancelled.
    adds: BTreeMap<RequestId, Timestamp>,
    /// The Dels that came meanwhile: the address is released as soon as it is granted.
    dels: Vec<RequestId>,
}

/// A release that is not on record yet.
#[derive(Debug, Clone)]
struct Release {
    since: Timestamp,
    /// The requests to answer when it is durable.
    requests: Vec<RequestId>,
}

/// Which waiting pods may expect an address.
#[derive(Debug, Clone)]
pub(super) struct Outlook {
    /// Addresses for this many waiters, the first ones, are under way.
    pub(super) n_served: usize,
    /// The ends of the cooldowns of further addresses.
    pub(super) rest_ends: Vec<Timestamp>,
    /// When an obstacle passes.
    pub(super) passes_at: Option<Timestamp>,
}

/// Why a waiting Add is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shortage {
    /// An address for it is under way, but late.
    Late,
    /// No address for it is under way, but one here rests until then. The waiters before it get those that rest
    /// less long.
    Resting(Timestamp),
    /// No address for it is here or under way.
    Nothing,
}

impl Outlook {
    /// Whether an address for the waiter at `place` is under way.
    fn is_served(&self, place: usize) -> bool {
        place < self.n_served
    }

    /// When the resting address that the waiter at `place` would get has rested; `None` if those before it need
    /// all.
    fn rested_at(&self, place: usize) -> Option<Timestamp> {
        place.checked_sub(self.n_served).and_then(|n| self.rest_ends.get(n)).copied()
    }

    fn shortage(&self, place: usize) -> Shortage {
        match self.rested_at(place) {
            _ if self.is_served(place) => Shortage::Late,
            Some(at) => Shortage::Resting(at),
            None => Shortage::Nothing,
        }
    }

    fn is_worth_waiting(&self, place: usize, patience: Timestamp) -> bool {
        self.is_served(place)
            || self.rested_at(place).is_some_and(|at| at <= patience)
            || self.passes_at.is_some_and(|at| at <= patience)
    }
}

impl Waiter {
    /// `deadline` is when the caller gives up.
    pub(super) fn new(
        request: RequestId,
        key: AttachmentKey,
        (pod, netns, node_local): (Pod, String, NodeLocal),
        deadline: Timestamp,
        cx: Context<'_>,
    ) -> Self {
        let deadline = deadline.before(MARGIN);
        let patience = deadline.min(cx.now + cx.policy.timing.add_wait);
        Self { request, key, pod, netns, node_local, patience, deadline }
    }
}

impl Demand {
    pub(super) fn n_waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Addresses that are promised but not on record.
    pub(super) fn promised(&self) -> BTreeSet<IpAddr> {
        self.promises.values().flat_map(|promise| promise.addresses.iter().copied()).collect()
    }

    pub(super) fn is_releasing(&self, key: &AttachmentKey) -> bool {
        self.releases.contains_key(key)
    }

    /// When the first release began that is not on record yet.
    pub(super) fn first_release(&self) -> Option<Timestamp> {
        self.releases.values().map(|release| release.since).min()
    }

    /// The attachments that wait for an address or have a promise.
    pub(super) fn adding(&self) -> impl Iterator<Item = &AttachmentKey> {
        self.waiters.iter().map(|waiter| &waiter.key).chain(self.promises.keys())
    }

    /// The key under which `record` has the attachment, or will have it. An attachment that is known only by
    /// its link has no network there.
    pub(super) fn known_as(&self, key: AttachmentKey, record: &Record) -> AttachmentKey {
        let by_link = key.by_link();
        let is_known = record.assignments().contains_key(&by_link);
        if is_known || self.promises.contains_key(&by_link) { by_link } else { key }
    }

    /// When the next request must be answered.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        let waiting = self.waiters.iter().map(|waiter| waiter.patience);
        let promised = self.promises.values().flat_map(|promise| promise.adds.values().copied());
        waiting.chain(promised).min()
    }

    pub(super) fn add(&mut self, waiter: Waiter) {
        self.owed.remove(&waiter.key);
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
        } else if let Some(release) = self.releases.get_mut(&key) {
            release.requests.push(request);
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

    /// Puts a release on its way to the record. `requests` are answered when the release is durable.
    pub(super) fn release(
        &mut self,
        key: AttachmentKey,
        assignment: Assignment,
        requests: Vec<RequestId>,
        journal: &mut Journal,
        now: Timestamp,
    ) {
        journal.note(Change::Released { key: key.clone(), at: now });
        journal.then(Then::Release(key.clone(), Box::new(assignment)));
        self.releases.insert(key, Release { since: now, requests });
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
        self.owed.remove(key);
        for address in assignment.ips() {
            if let Some(since) = journal.record().cooling().get(&address) {
                pool.rest(address, *since);
            }
            for address in pool.forget_rested(address, cx.rests()) {
                journal.note(Change::Rested { address });
            }
        }
        for address in node_local::rested(journal.record(), cx.rests()).collect::<Vec<_>>() {
            journal.note(Change::Rested { address });
        }
        for request in self.end_release(key) {
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
        let requests = self.end_release(key);
        let is_added_again = self.waiters.iter().any(|waiter| waiter.key == *key);
        if !requests.is_empty() && !is_added_again {
            self.owed.insert(key.clone());
        }
        for request in requests {
            reply(request, Answer::Refused(refusal.clone()), out);
        }
    }

    fn end_release(&mut self, key: &AttachmentKey) -> Vec<RequestId> {
        self.releases.remove(key).map(|release| release.requests).unwrap_or_default()
    }

    /// Repeats the Dels that could not be put on record, as soon as they may succeed.
    pub(super) fn repeat_owed(&mut self, journal: &mut Journal, now: Timestamp) {
        if journal.hold(now).is_some() {
            return;
        }
        let owed: Vec<_> =
            self.owed.iter().filter(|key| !self.is_releasing(key)).cloned().collect();
        for key in owed {
            match journal.record().assignments().get(&key).cloned() {
                Some(assignment) => self.release(key, assignment, Vec::new(), journal, now),
                None => {
                    self.owed.remove(&key);
                }
            }
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
            if assignment.ips().any(|address| pool.quarantine.contains_key(&address)) {
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
        let picked = pool.pick(cx.family().kind, doubted, cx.rests());
        let Some((eni, address)) = picked else { return Some(waiter) };
        let Some(index) = eni.route_index() else { return Some(waiter) };
        let via = Via::Eni { eni: eni.id.clone(), card: 0, index };
        let addresses = Addresses::one(PodIp { address, via });
        let node_local = self.node_local(&waiter, &addresses, (pool, journal.record()), cx);
        let Waiter { request, key, pod, netns, deadline, .. } = waiter;
        let assignment = Assignment { addresses, node_local, pod, netns, since: cx.now };
        let adds = BTreeMap::from([(request, deadline)]);
        self.put_on_record(key, assignment, false, adds, pool, journal);
        None
    }

    /// The node-local address of a pod that gets `addresses` in the VPC.
    fn node_local(
        &mut self,
        waiter: &Waiter,
        addresses: &Addresses,
        here: (&Pool, &Record),
        cx: Context<'_>,
    ) -> Option<IpAddr> {
        match waiter.node_local {
            NodeLocal::Taken => {}
            NodeLocal::NotTaken => return None,
        }
        let to = cx.policy.nat.egress.to;
        let lacks = |family: &Family| addresses.iter().all(|ip| Family::of(ip.address) != *family);
        let family = to.filter(lacks)?;
        let promised = self.promised();
        self.node_locals.pick(family, here, &promised, cx.rests())
    }

    /// Promises a running pod the addresses that it has.
    pub(super) fn promise_to_running(
        &mut self,
        key: AttachmentKey,
        assignment: Assignment,
        pool: &mut Pool,
        journal: &mut Journal,
    ) {
        self.put_on_record(key, assignment, true, BTreeMap::new(), pool, journal);
    }

    fn put_on_record(
        &mut self,
        key: AttachmentKey,
        assignment: Assignment,
        runs: bool,
        adds: BTreeMap<RequestId, Timestamp>,
        pool: &mut Pool,
        journal: &mut Journal,
    ) {
        let addresses: Vec<_> = assignment.ips().collect();
        addresses.iter().for_each(|address| pool.hold(*address));
        let promise = Promise { addresses, runs, adds, dels: Vec::new() };
        journal.note(Change::Assigned { key: key.clone(), assignment });
        journal.then(Then::Grant(key.clone()));
        self.promises.insert(key, promise);
    }

    /// A promise is on record. If no request wants the address any more, it is released at once.
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
            promise.addresses.iter().for_each(|address| pool.end_quarantine(*address));
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
        promise.addresses.iter().for_each(|address| pool.unhold(*address, record));
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
                dismissed.push((waiter.request, outlook.shortage(place)));
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

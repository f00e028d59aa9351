//! Add, Cancel, Del and Gc: which attachments wait for addresses, are promised some, or give some back.

mod outlook;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

pub(super) use self::outlook::{FamilyOutlook, Outlook, Shortage};
use super::context::Context;
use super::journal::{Journal, Then};
use crate::block::{Block, Family};
use crate::event::{Answer, Effect, NodeLocal, Refusal, RefusalCode, RequestId};
use crate::id::{AttachmentKey, Pod};
use crate::node_local::{self, NodeLocals};
use crate::place::Place;
use crate::policy::{FamilyPolicy, Needs};
use crate::pool::Pool;
use crate::record::{Addresses, Assignment, Change, PodIp, PodIpv6, Record, Via};
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
    pub(super) since: Timestamp,
    /// When it is refused if there is no address by then.
    pub(super) patience: Timestamp,
    /// When it is refused in any case.
    deadline: Timestamp,
}

/// Addresses that belong to an attachment as soon as its assignment is on record.
#[derive(Debug, Clone)]
pub(super) struct Promise {
    pub(super) pod: Pod,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) since: Timestamp,
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
        Self { request, key, pod, netns, node_local, since: cx.now, patience, deadline }
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

    /// The Adds without an address, first come first.
    pub(super) fn waiters(&self) -> impl Iterator<Item = &Waiter> {
        self.waiters.iter()
    }

    /// The attachments whose addresses are on their way to the record.
    pub(super) fn promises(&self) -> impl Iterator<Item = (&AttachmentKey, &Promise)> {
        self.promises.iter()
    }

    /// The pods that wait for an address or have a promise.
    pub(super) fn pods(&self) -> impl Iterator<Item = &Pod> {
        let promised = self.promises.values().map(|promise| &promise.pod);
        self.waiters.iter().map(|waiter| &waiter.pod).chain(promised)
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

    /// Gives free addresses to the waiters, in their order.
    pub(super) fn serve(&mut self, mut stock: Stock<'_>, out: &mut Vec<Effect>) {
        for waiter in std::mem::take(&mut self.waiters) {
            let unserved = self.try_to_serve(waiter, Needs::Each, &mut stock, out);
            self.waiters.extend(unserved);
        }
    }

    /// Returns the waiter if it gets nothing now.
    fn try_to_serve(
        &mut self,
        waiter: Waiter,
        needs: Needs,
        stock: &mut Stock<'_>,
        out: &mut Vec<Effect>,
    ) -> Option<Waiter> {
        match self.join_or_answer(waiter, stock, out)? {
            Unserved::Needs(waiter) => self.promise(waiter, needs, stock),
            Unserved::Waits(waiter) => Some(waiter),
        }
    }

    /// Answers from the record, or joins an Add of the same attachment. Returns the waiter otherwise.
    fn join_or_answer(
        &mut self,
        waiter: Waiter,
        stock: &Stock<'_>,
        out: &mut Vec<Effect>,
    ) -> Option<Unserved> {
        let (pool, journal) = (&*stock.pool, &*stock.journal);
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
        if waiter.deadline <= stock.cx.now {
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

    /// Returns the waiter if the free addresses are not what it needs.
    fn promise(&mut self, waiter: Waiter, needs: Needs, stock: &mut Stock<'_>) -> Option<Waiter> {
        let Some(addresses) = stock.addresses(needs) else { return Some(waiter) };
        let node_local = self.node_local(&waiter, &addresses, stock);
        let Waiter { request, key, pod, netns, deadline, .. } = waiter;
        let ipv6 = ipv6_of_new(&addresses, node_local, stock.cx);
        let assignment =
            Assignment { addresses, node_local, ipv6, pod, netns, since: stock.cx.now };
        let adds = BTreeMap::from([(request, deadline)]);
        self.put_on_record(key, assignment, false, adds, stock.pool, stock.journal);
        None
    }

    /// The node-local address of a pod that gets `addresses` in the VPC.
    fn node_local(
        &mut self,
        waiter: &Waiter,
        addresses: &Addresses,
        stock: &Stock<'_>,
    ) -> Option<IpAddr> {
        match waiter.node_local {
            NodeLocal::Taken => {}
            NodeLocal::NotTaken => return None,
        }
        let to = stock.cx.policy.nat.egress.to;
        let lacks = |family: &Family| addresses.iter().all(|ip| Family::of(ip.address) != *family);
        let family = to.filter(lacks)?;
        let promised = self.promised();
        let here = (&*stock.pool, stock.journal.record());
        self.node_locals.pick(family, here, &promised, stock.cx.rests())
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
        let (pod, since) = (assignment.pod.clone(), assignment.since);
        let promise = Promise { pod, addresses, since, runs, adds, dels: Vec::new() };
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

    /// Removes the waiters that wait in vain or have waited long enough, and returns them. Where a pod may start with
    /// one family, a waiter that waits in vain for the other gets what is free.
    pub(super) fn dismiss(
        &mut self,
        outlook: &Outlook,
        mut stock: Stock<'_>,
        out: &mut Vec<Effect>,
    ) -> Vec<(RequestId, Shortage)> {
        let (needs, now) = (stock.cx.policy.families.needs(), stock.cx.now);
        let mut dismissed = Vec::new();
        for (place, waiter) in std::mem::take(&mut self.waiters).into_iter().enumerate() {
            let is_patient = now < waiter.patience;
            if is_patient && outlook.promises_each(place, waiter.patience) {
                self.waiters.push_back(waiter);
                continue;
            }
            let waiter = match needs {
                Needs::Each => Some(waiter),
                Needs::Any => self.try_to_serve(waiter, Needs::Any, &mut stock, out),
            };
            let Some(waiter) = waiter else { continue };
            if is_patient && needs == Needs::Any && outlook.promises_any(place, waiter.patience) {
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

/// The addresses for new pods, and where promises of them go.
pub(super) struct Stock<'a> {
    pub(super) pool: &'a mut Pool,
    /// The blocks whose addresses come last.
    pub(super) doubted: &'a BTreeSet<Block>,
    pub(super) journal: &'a mut Journal,
    pub(super) cx: Context<'a>,
}

impl Stock<'_> {
    /// The free addresses that the next pod gets; `None` if they are not what it needs.
    fn addresses(&self, needs: Needs) -> Option<Addresses> {
        let families = self.cx.families().policies();
        let free = families.clone().filter_map(|family| self.address(family));
        let free: Vec<_> = free.collect();
        let is_enough = match needs {
            Needs::Each => free.len() == families.count(),
            Needs::Any => true,
        };
        // One of each family at most, so they are the addresses of one pod unless there are none.
        is_enough.then(|| Addresses::try_from(free).ok()).flatten()
    }

    fn address(&self, family: FamilyPolicy) -> Option<PodIp> {
        let (eni, address) = self.pool.pick(family.kind, self.doubted, self.cx.rests())?;
        let Place { card, index } = eni.route_place()?;
        let via = Via::Eni { eni: eni.id.clone(), card, index };
        Some(PodIp { address, via })
    }
}

/// A waiter that neither the record nor another Add serves.
enum Unserved {
    /// A free address would serve it now.
    Needs(Waiter),
    /// Something must end first.
    Waits(Waiter),
}

/// A pod with an IPv6 address of any kind needs IPv6.
fn ipv6_of_new(addresses: &Addresses, node_local: Option<IpAddr>, cx: Context<'_>) -> PodIpv6 {
    let has_ipv6 = addresses.iter().any(|ip| ip.address.is_ipv6());
    let has_ipv6 = has_ipv6 || node_local.is_some_and(|ip| ip.is_ipv6());
    if has_ipv6 { PodIpv6::AsItIs } else { cx.policy.pod_ipv6 }
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

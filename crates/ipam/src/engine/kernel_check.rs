//! The kernel's view of the pods against the record. Addresses on which the two disagree are quarantined:
//! no pod gets them and they do not go back to EC2, until the two agree again.
//!
//! Where the record lacks a pod and EC2 agrees with the kernel, the pod's assignment is restored from the two.

mod runtime_list;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use self::runtime_list::RuntimeList;
use super::context::Context;
use super::demand::Demand;
use super::inventory::Inventory;
use super::journal::{Journal, Then};
use crate::block::Family;
use crate::event::Effect;
use crate::id::{AttachmentKey, Network, Pod};
use crate::kernel_report::{KernelReport, PodLink};
use crate::node_local::is_node_local;
use crate::place::Place;
use crate::pool::Pool;
use crate::record::{Addresses, Assignment, Change, PodIp, PodIpv6, Record, Via};
use crate::streak::Streaks;
use crate::time::Timestamp;

/// An attachment has ended if no report has shown it for this long. That takes at least two reports.
const UNSEEN: Duration = Duration::from_secs(60);
/// The longest that an ADD may take from its grant to its link: twice the plugin's bound of 75 s.
const LONGEST_ADD: Duration = Duration::from_secs(150);

/// A report is asked for so long before the end of a rest that began after the last report.
const REPORT_BEFORE_END: Duration = Duration::from_secs(5);
/// A report costs a pass over all pods, so one serves all rests that end within this span.
const BETWEEN_REPORTS: Duration = Duration::from_secs(1);

/// Which attachments the kernel and the container runtime do not show any more.
#[derive(Debug, Clone, Default)]
pub(super) struct KernelCheck {
    vanished: Streaks<AttachmentKey>,
    runtime: RuntimeList,
    /// The links whose removal has been ordered since the last report.
    ordered_down: BTreeSet<IpAddr>,
    /// The addresses that the host itself has, as of the last report, each with the name of its link.
    host_addresses: BTreeMap<IpAddr, String>,
    /// Why the kernel could not be read after the last report.
    unread: Option<String>,
    /// When a report was last asked for.
    asked_at: Option<Timestamp>,
    /// When the next report is to be asked for, as of the last event.
    ask_at: Option<Timestamp>,
}

/// The parts that a report may change.
pub(super) struct Checking<'a> {
    pub(super) check: &'a mut KernelCheck,
    pub(super) pool: &'a mut Pool,
    pub(super) demand: &'a mut Demand,
    pub(super) journal: &'a mut Journal,
    pub(super) inventory: &'a Inventory,
    pub(super) cx: Context<'a>,
}

impl KernelCheck {
    /// How many sandboxes the container runtime has; `None` if it did not answer when last asked.
    pub(super) fn n_sandboxes(&self) -> Option<usize> {
        self.runtime.n_listed()
    }

    /// The addresses of our ENIs that the host itself has, each with the name of its link.
    pub(super) fn host_addresses(&self, pool: &Pool) -> BTreeMap<IpAddr, String> {
        let here = self.host_addresses.iter().filter(|(ip, _)| pool.serves(**ip));
        here.map(|(ip, link)| (*ip, link.clone())).collect()
    }

    /// Whether a GC of `network` may end `key`. An attachment that is known only by its link may belong to
    /// another network, so no GC ends it while the link exists.
    pub(super) fn may_be_ended_by(&self, key: &AttachmentKey, network: &Network) -> bool {
        key.network == *network || (key.is_by_link() && self.vanished.contains(key))
    }

    /// Asks for a report if a rest is about to end and the last report is older than that rest.
    pub(super) fn ask(&mut self, record: &Record, cx: Context<'_>, out: &mut Vec<Effect>) {
        let rests = cx.rests();
        let unchecked = record.cooling().values().filter(|since| rests.is_unchecked(**since));
        // Soon after the release the plugin may not have taken the link down yet.
        let lead = cx.cooldown().saturating_sub(REPORT_BEFORE_END).max(cx.cooldown() / 2);
        let not_before = self.asked_at.map(|at| at + BETWEEN_REPORTS).unwrap_or_default();
        self.ask_at = unchecked.min().map(|since| not_before.max(*since + lead));
        if self.ask_at.is_some_and(|at| at <= cx.now) {
            out.push(Effect::ReadKernel);
            self.asked_at = Some(cx.now);
            self.ask_at = Some(cx.now + BETWEEN_REPORTS);
        }
    }

    /// Takes in that a report that was due does not come.
    pub(super) fn could_not_read(&mut self, why: String) {
        self.unread = Some(why);
    }

    /// Why the kernel could not be read after the last report; `None` if it could.
    pub(super) fn unread(&self) -> Option<&str> {
        self.unread.as_deref()
    }

    /// What is known of the missing report, for people.
    pub(super) fn why_unread(&self) -> &str {
        self.unread.as_deref().unwrap_or("no report has come")
    }

    /// When the next report is to be asked for.
    pub(super) fn wakes_at(&self) -> Option<Timestamp> {
        self.ask_at
    }

    /// Orders the removal of links that forgotten sandboxes have left. An attachment must first be off the
    /// record.
    pub(super) fn take_down(&mut self, pool: &Pool, record: &Record, out: &mut Vec<Effect>) {
        let links = pool.quarantine.iter().filter_map(|(ip, link)| Some((ip, link.as_ref()?)));
        let is_left = |(address, link): &(&IpAddr, &PodLink)| {
            let key = link.mark.as_deref().and_then(AttachmentKey::of_mark);
            let is_forgotten = key.is_some_and(|key| self.runtime.has_forgotten(&key.container));
            is_forgotten
                && record.owner(**address).is_none()
                && !self.ordered_down.contains(*address)
        };
        let left = links.filter(is_left).map(|(address, link)| (*address, link.clone()));
        let left: BTreeMap<_, _> = left.collect();
        if !left.is_empty() {
            self.ordered_down.extend(left.keys());
            out.push(Effect::TakeDown(left));
        }
    }
}

impl Checking<'_> {
    pub(super) fn report(&mut self, report: &KernelReport) {
        self.check.ordered_down.clear();
        self.check.unread = None;
        let host_addresses = report.host_addresses.iter();
        self.check.host_addresses =
            host_addresses.map(|(ip, link)| (*ip, link.name.clone())).collect();
        self.judge_links(report);
        self.release_vanished(report);
        self.release_forgotten(report);
    }

    /// Quarantines the addresses whose use contradicts the record. Addresses whose use has ended rest.
    fn judge_links(&mut self, report: &KernelReport) {
        let promised = self.demand.promised();
        let was_strange = |address| self.pool.quarantine.contains_key(address);
        let links = report.links.iter().map(|(address, link)| (address, link.clone()));
        // No pod can use an address that the host has.
        let on_host = report.host_addresses.iter().filter(|(address, _)| {
            self.pool.serves(**address) && !report.links.contains_key(*address)
        });
        let on_host = on_host
            .map(|(address, link)| (address, PodLink { name: link.name.clone(), mark: None }));
        let strange: BTreeMap<IpAddr, PodLink> = links
            .chain(on_host)
            .filter(|(address, _)| !promised.contains(*address))
            // What is done with a delegated prefix is not ours to judge.
            .filter(|(address, _)| !self.pool.is_delegated(**address))
            .filter(|(address, link)| {
                let verdict = is_strange(self.journal.record(), **address, link, report.begun);
                verdict.unwrap_or_else(|| was_strange(address))
            })
            .map(|(address, link)| (*address, link))
            .collect();
        let quarantined = self.pool.quarantine.keys();
        let has_ended = |ip: &&IpAddr| !strange.contains_key(*ip) && !promised.contains(*ip);
        let ended: Vec<_> = quarantined.filter(has_ended).copied().collect();
        for address in ended {
            self.link_gone(address);
        }
        for (address, link) in strange {
            self.pool.put_in_quarantine(address, link);
        }
    }

    /// Takes in that a quarantined address is no longer in use against the record. Its cooldown begins, or its
    /// quarantine ends.
    fn link_gone(&mut self, address: IpAddr) {
        let is_elsewhere = self.inventory.is_known() && !self.pool.has(address);
        if is_elsewhere || self.journal.record().owner(address).is_some() {
            self.pool.end_quarantine(address);
        } else {
            self.pool.quarantine.insert(address, None);
            self.journal.note(Change::Resting { address, since: self.cx.now });
            self.journal.then(Then::Rest(address));
        }
    }

    /// Releases, as GC does, the addresses of attachments that no report has shown for long enough.
    fn release_vanished(&mut self, report: &KernelReport) {
        let begun = report.begun;
        self.check.vanished.observe_all(&report.vanished, begun);
        for key in &report.vanished {
            let Some(found) = self.journal.record().assignments().get(key) else { continue };
            let has_ended = self.check.vanished.has_lasted(key, UNSEEN, begun)
                && found.since + LONGEST_ADD <= begun;
            let is_its = |link: &PodLink| link.mark.as_ref().is_none_or(|mark| *mark == key.mark());
            if has_ended
                && !self.demand.is_releasing(key)
                && !found.ips().any(|ip| report.links.get(&ip).is_some_and(is_its))
            {
                let found = found.clone();
                self.demand.release(key.clone(), found, Vec::new(), self.journal, self.cx.now);
            }
        }
    }

    /// Releases, as GC does, the addresses of attachments whose sandbox the runtime has forgotten. An address is
    /// quarantined at once if its link is still there, since the next report may come after its cooldown.
    fn release_forgotten(&mut self, report: &KernelReport) {
        let Some(listed) = &report.listed else { return self.check.runtime.fails() };
        self.check.runtime.take(listed, report.begun);
        let marks = report.links.values().filter_map(|link| link.mark.as_deref());
        let linked: BTreeSet<_> = marks.filter_map(AttachmentKey::of_mark).collect();
        let assignments = self.journal.record().assignments();
        let known = assignments.keys().chain(&linked);
        self.check.runtime.keep(|sandbox| known.clone().any(|key| key.container == sandbox));
        let forgotten = assignments.iter().filter(|(key, _)| {
            self.check.runtime.has_forgotten(&key.container)
                && !self.demand.is_releasing(key)
                && self.demand.adding().all(|adding| adding != *key)
        });
        let forgotten: Vec<_> =
            forgotten.map(|(key, found)| (key.clone(), found.clone())).collect();
        for (key, found) in forgotten {
            let links = found.ips().filter_map(|ip| Some((ip, report.links.get(&ip)?)));
            let links: Vec<_> = links.collect();
            // The owner of a link without a mark is unknown.
            if links.iter().any(|(_, link)| link.mark.is_none()) {
                continue;
            }
            for (address, link) in links {
                self.pool.put_in_quarantine(address, link.clone());
            }
            self.demand.release(key, found, Vec::new(), self.journal, self.cx.now);
        }
    }

    /// Orders that the kernel gets back what it lacks of the pods on record. Left out are pods that end, and pods
    /// whose address another's link uses: a restored route would cut that link off.
    pub(super) fn restore_pods(&self, out: &mut Vec<Effect>) {
        let is_disputed = |ip: IpAddr| self.pool.quarantine.contains_key(&ip);
        let assignments = self.journal.record().assignments().iter();
        let running = assignments
            .filter(|(key, held)| !self.demand.is_releasing(key) && !held.ips().any(is_disputed));
        let running: BTreeMap<_, _> =
            running.map(|(key, held)| (key.clone(), held.clone())).collect();
        if !running.is_empty() {
            out.push(Effect::RestorePods(running));
        }
    }

    /// Orders that pods' addresses are removed from the devices of our ENIs. Host tools put an ENI's secondary
    /// addresses there.
    pub(super) fn remove_host_addresses(&self, report: &KernelReport, out: &mut Vec<Effect>) {
        let is_device = |mac| self.pool.enis.values().any(|eni| eni.mac == mac);
        let found = report.host_addresses.iter();
        let wrong = found.filter(|(ip, link)| self.pool.serves(**ip) && is_device(link.mac));
        let wrong: BTreeMap<_, _> = wrong.map(|(ip, link)| (*ip, link.name.clone())).collect();
        if !wrong.is_empty() {
            out.push(Effect::RemoveHostAddresses(wrong));
        }
    }

    /// Puts attachments back on record that only their link shows, once EC2 has described their address on an
    /// ENI of ours. Their network and pod stay unknown; CHECK, DEL and GC work without them.
    pub(super) fn adopt(&mut self) {
        if !self.inventory.is_known() || self.journal.hold(self.cx.now).is_some() {
            return;
        }
        let mut by_mark: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for (address, link) in &self.pool.quarantine {
            let mark = link.as_ref().and_then(|link| link.mark.clone());
            if let Some(mark) = mark {
                by_mark.entry(mark).or_default().push(*address);
            }
        }
        for (mark, addresses) in by_mark {
            if let Some((key, assignment)) = self.unrecorded(&addresses, &mark) {
                self.demand.promise_to_running(key, assignment, self.pool, self.journal);
            }
        }
    }

    /// The attachment that `mark` names, with those of its link's `addresses` that are not on record: the first of each
    /// family. `None` if there are none, or if the attachment is on record.
    fn unrecorded(&self, addresses: &[IpAddr], mark: &str) -> Option<(AttachmentKey, Assignment)> {
        let (key, record) = (AttachmentKey::of_mark(mark)?, self.journal.record());
        let mut known = record.assignments().keys().chain(self.demand.adding());
        if self.check.runtime.has_forgotten(&key.container)
            || known.any(|known| known.by_link() == key)
        {
            return None;
        }
        let ips = addresses.iter().filter_map(|address| self.unrecorded_ip(*address));
        let mut ips: Vec<_> = ips.collect();
        ips.sort_by_key(|ip| ip.address);
        ips.dedup_by_key(|ip| Family::of(ip.address));
        let addresses = Addresses::try_from(ips).ok()?;
        let (pod, netns) = (Pod::default(), String::new());
        let node_local = self.node_local_of(mark);
        let (ipv6, since) = (PodIpv6::AsItIs, self.cx.now);
        Some((key, Assignment { addresses, node_local, ipv6, pod, netns, since }))
    }

    /// The node-local address that is routed to the link with this mark, and that no attachment has on record.
    fn node_local_of(&self, mark: &str) -> Option<IpAddr> {
        let is_its = |link: &Option<PodLink>| {
            link.as_ref().is_some_and(|link| link.mark.as_deref() == Some(mark))
        };
        let mut withheld = self.pool.quarantine.iter().filter(|(ip, _)| is_node_local(**ip));
        let (address, _) = withheld.find(|(_, link)| is_its(link))?;
        self.journal.record().owner(*address).is_none().then_some(*address)
    }

    /// The address, and how it is reached, if it is on an ENI of ours and on no record.
    fn unrecorded_ip(&self, address: IpAddr) -> Option<PodIp> {
        let record = self.journal.record();
        // The plugin takes a link down after the release.
        let since = record.cooling().get(&address);
        let is_released = since.is_some_and(|since| *since + LONGEST_ADD > self.cx.now);
        if record.owner(address).is_some() || is_released {
            return None;
        }
        let eni = self.pool.eni_of(address)?;
        eni.attachment().filter(|_| !eni.is_leaving(address))?;
        let Place { card, index } = eni.route_place()?;
        let via = Via::Eni { eni: eni.id.clone(), card, index };
        Some(PodIp { address, via })
    }
}

/// Whether the record lacks the pod that uses `address`. `None` if the record of this address has changed
/// since the report began.
fn is_strange(record: &Record, address: IpAddr, link: &PodLink, begun: Timestamp) -> Option<bool> {
    if let Some(owner) = record.owner(address) {
        let since = record.assignments()[owner].since;
        let is_anothers = link.mark.as_ref().is_some_and(|mark| *mark != owner.mark());
        return (since < begun).then_some(is_anothers);
    }
    let since = record.cooling().get(&address);
    since.is_none_or(|since| *since < begun).then_some(true)
}

/// The cooldown of a formerly quarantined address is on record.
pub(super) fn rests(address: IpAddr, pool: &mut Pool, journal: &Journal) {
    // Otherwise the address is in use again, or a later cooldown of it is not saved yet.
    if pool.quarantine.get(&address) == Some(&None) && !journal.is_resting_soon(address) {
        pool.end_quarantine(address);
        if let Some(since) = journal.record().cooling().get(&address) {
            pool.rest(address, *since);
        }
    }
}

/// The quarantined addresses on our ENIs, each with the link that it is routed to. Addresses that rest
/// anyway are left out: the plugin takes links down after the release.
pub(super) fn quarantined(
    pool: &Pool,
    record: &Record,
    cx: Context<'_>,
) -> BTreeMap<IpAddr, String> {
    let rests = |address| {
        let since = record.cooling().get(address);
        since.is_some_and(|since| *since + cx.cooldown() > cx.now)
    };
    let quarantined = pool.quarantine.iter();
    let here = quarantined.filter(|(ip, _)| pool.has(**ip) && !rests(*ip));
    let name = |link: &Option<PodLink>| {
        link.as_ref().map_or_else(|| "no link".to_owned(), |link| link.name.clone())
    };
    here.map(|(address, link)| (*address, name(link))).collect()
}

/// Why each of them is withheld.
pub(super) fn quarantine_reasons(
    pool: &Pool,
    record: &Record,
    cx: Context<'_>,
) -> impl Iterator<Item = String> {
    quarantined(pool, record, cx).into_iter().map(|(address, link)| match record.owner(address) {
        Some(owner) => format!("{address} is on record for {owner}, but {link} is another's"),
        None => format!("{address} is quarantined: {link} uses it without a record"),
    })
}

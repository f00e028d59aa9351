//! The kernel's word against the record's. What they disagree on is withheld: given to nobody, not
//! given back to EC2, and told to people, until they agree again. Where the record knows nothing at
//! all and EC2 agrees with the kernel, they make the record.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::Engine;
use super::saves::Then;
use crate::id::{AttachmentKey, Pod};
use crate::record::{Assignment, Change};
use crate::sighting::{SeenLink, Sighting};
use crate::time::Timestamp;

/// An attachment has ended if nothing of it has been seen for so long; at least two looks.
const UNSEEN: Duration = Duration::from_secs(60);
/// The longest that an ADD may take from its grant to its link: twice the plugin's bound of 75 s.
const LONGEST_ADD: Duration = Duration::from_secs(150);

impl Engine {
    pub(super) fn seen(&mut self, sighting: &Sighting, now: Timestamp) {
        self.judge_links(sighting, now);
        self.bury_vanished(sighting, now);
        self.bury_forgotten(sighting, now);
    }

    /// Quarantines the addresses that are in use as the record does not know, and lets those rest
    /// that are in use no more.
    fn judge_links(&mut self, sighting: &Sighting, now: Timestamp) {
        let promised = self.requests.promised();
        let was_strange = |address| self.pool.quarantine.contains_key(address);
        let strange: BTreeMap<IpAddr, &SeenLink> = sighting
            .links
            .iter()
            .filter(|(address, _)| !promised.contains(*address))
            .filter(|(address, link)| {
                let verdict = self.is_strange(**address, link, sighting.begun);
                verdict.unwrap_or_else(|| was_strange(address))
            })
            .map(|(address, link)| (*address, link))
            .collect();
        let quarantined = self.pool.quarantine.keys();
        let has_ended = |ip: &&IpAddr| !strange.contains_key(*ip) && !promised.contains(*ip);
        let ended: Vec<_> = quarantined.filter(has_ended).copied().collect();
        for address in ended {
            self.link_gone(address, now);
        }
        for (address, link) in strange {
            self.pool.put_in_quarantine(address, link.clone());
        }
    }

    /// Whether the record knows nothing of the pod that uses `address`; `None` if the record has
    /// learnt of the address since the reading began.
    fn is_strange(&self, address: IpAddr, link: &SeenLink, begun: Timestamp) -> Option<bool> {
        if let Some(owner) = self.record.owner(address) {
            let since = self.record.assignments()[owner].since;
            let is_anothers = link.mark.as_ref().is_some_and(|mark| *mark != owner.mark());
            return (since < begun).then_some(is_anothers);
        }
        let since = self.record.cooling().get(&address);
        since.is_none_or(|since| *since < begun).then_some(true)
    }

    /// A quarantined address is in nobody's use that the record does not know.
    fn link_gone(&mut self, address: IpAddr, now: Timestamp) {
        let is_elsewhere = self.enis_look.is_known() && !self.pool.has(address);
        if is_elsewhere || self.record.owner(address).is_some() {
            self.pool.end_quarantine(address);
        } else {
            self.pool.quarantine.insert(address, None);
            self.saves.note(Change::Resting { address, since: now });
            self.saves.then(Then::Rest(address));
        }
    }

    /// The rest of an address that was quarantined is on record.
    pub(super) fn rests(&mut self, address: IpAddr) {
        // Otherwise it has come into use again meanwhile, or a later rest of it is still to be written.
        if self.pool.quarantine.get(&address) == Some(&None) && !self.saves.rests(address) {
            self.pool.end_quarantine(address);
            if let Some(since) = self.record.cooling().get(&address) {
                self.pool.rest(address, *since);
            }
        }
    }

    /// Releases what attachments hold of which nothing has been left for long enough, as by GC.
    fn bury_vanished(&mut self, sighting: &Sighting, now: Timestamp) {
        let begun = sighting.begun;
        self.vanished.retain(|key, _| sighting.vanished.contains(key));
        for key in &sighting.vanished {
            let unseen_since = *self.vanished.entry(key.clone()).or_insert(begun);
            let Some(found) = self.record.assignments().get(key) else { continue };
            let has_ended = unseen_since + UNSEEN <= begun && found.since + LONGEST_ADD <= begun;
            let is_its =
                |link: &SeenLink| link.mark.as_ref().is_none_or(|mark| *mark == key.mark());
            if has_ended
                && !self.requests.is_releasing(key)
                && !sighting.links.get(&found.address).is_some_and(is_its)
            {
                self.release(key.clone(), found.clone(), Vec::new(), now);
            }
        }
    }

    /// Releases what attachments hold whose sandboxes the runtime has forgotten, as by GC. An address is
    /// quarantined at once if its link is still there: the next look may come after its rest.
    fn bury_forgotten(&mut self, sighting: &Sighting, now: Timestamp) {
        let Some(listed) = &sighting.listed else { return self.listing.stays_out() };
        self.listing.take(listed, sighting.begun);
        let marks = sighting.links.values().filter_map(|link| link.mark.as_deref());
        let linked: BTreeSet<_> = marks.filter_map(AttachmentKey::of_mark).collect();
        let known = self.record.assignments().keys().chain(&linked);
        self.listing.keep(|sandbox| known.clone().any(|key| key.container == sandbox));
        let forgotten = self.record.assignments().iter().filter(|(key, _)| {
            self.listing.has_forgotten(&key.container)
                && !self.requests.is_releasing(key)
                && self.requests.adding().all(|adding| adding != *key)
        });
        let forgotten: Vec<_> =
            forgotten.map(|(key, found)| (key.clone(), found.clone())).collect();
        for (key, found) in forgotten {
            match sighting.links.get(&found.address) {
                // Nothing tells whose it is.
                Some(SeenLink { mark: None, .. }) => continue,
                Some(link) => self.pool.put_in_quarantine(found.address, link.clone()),
                None => {}
            }
            self.release(key, found, Vec::new(), now);
        }
    }

    /// See [`PoolView::leftovers`](crate::view::PoolView::leftovers). Those whose release is being written
    /// are among them, others that are on record are not.
    pub(super) fn leftovers(&self) -> BTreeMap<IpAddr, SeenLink> {
        let links = self.pool.quarantine.iter().filter_map(|(ip, link)| Some((ip, link.as_ref()?)));
        let is_left = |(address, link): &(&IpAddr, &SeenLink)| {
            let key = link.mark.as_deref().and_then(AttachmentKey::of_mark);
            let is_forgotten = key.is_some_and(|key| self.listing.has_forgotten(&key.container));
            let owner = self.record.owner(**address);
            is_forgotten && owner.is_none_or(|owner| self.requests.is_releasing(owner))
        };
        links.filter(is_left).map(|(address, link)| (*address, link.clone())).collect()
    }

    /// Puts on record again what its link alone tells of, as soon as EC2 has said that its address is
    /// on an ENI of ours. Nothing tells of its network and its pod; CHECK, DEL and GC do without.
    pub(super) fn adopt(&mut self, now: Timestamp) {
        if !self.enis_look.is_known() || self.record_hold(now).is_some() {
            return;
        }
        let quarantined = self.pool.quarantine.iter();
        let links: Vec<_> = quarantined
            .filter_map(|(ip, link)| Some((*ip, link.as_ref()?.mark.clone()?)))
            .collect();
        for (address, mark) in links {
            if let Some((key, assignment)) = self.forgotten(address, &mark, now) {
                self.promise_as_it_is(key, assignment);
            }
        }
    }

    /// The attachment that `mark` names and what it holds, if neither it nor its address is on record.
    fn forgotten(
        &self,
        address: IpAddr,
        mark: &str,
        now: Timestamp,
    ) -> Option<(AttachmentKey, Assignment)> {
        let key = AttachmentKey::of_mark(mark)?;
        let mut known = self.record.assignments().keys().chain(self.requests.adding());
        // The plugin takes a link down after the release.
        let since = self.record.cooling().get(&address);
        let is_released = since.is_some_and(|since| *since + LONGEST_ADD > now);
        if self.record.owner(address).is_some()
            || is_released
            || self.listing.has_forgotten(&key.container)
            || known.any(|known| known.nameless() == key)
        {
            return None;
        }
        let eni = self.pool.eni_of(address)?;
        let bond = eni.attachment().filter(|_| !eni.is_leaving(address))?;
        let assignment = Assignment {
            address,
            eni: eni.id.clone(),
            device_index: bond.device_index,
            network_card: bond.network_card,
            pod: Pod::default(),
            netns: String::new(),
            since: now,
        };
        Some((key, assignment))
    }

    /// What the record calls `key`, or will: without a network if it is known by its link alone.
    pub(super) fn known_as(&self, key: AttachmentKey) -> AttachmentKey {
        let nameless = key.nameless();
        let is_known = self.record.assignments().contains_key(&nameless);
        if is_known || self.requests.is_promised(&nameless) { nameless } else { key }
    }

    /// Whether `network` may end `key` by not listing it. What is known by its link alone may be
    /// another network's as long as it has the link.
    pub(super) fn is_of(&self, key: &AttachmentKey, network: &str) -> bool {
        key.network == network || (key.is_nameless() && self.vanished.contains_key(key))
    }

    /// The addresses on our ENIs that are withheld, each with the link that it is routed to. Not
    /// those that rest in any case: the plugin takes links down after the release.
    pub(super) fn quarantined(&self, now: Timestamp) -> BTreeMap<IpAddr, String> {
        let rests = |address| {
            let since = self.record.cooling().get(address);
            since.is_some_and(|since| *since + self.policy.cooldown > now)
        };
        let quarantined = self.pool.quarantine.iter();
        let here = quarantined.filter(|(ip, _)| self.pool.has(**ip) && !rests(*ip));
        let name = |link: &Option<SeenLink>| {
            link.as_ref().map_or_else(|| "no link".to_owned(), |link| link.name.clone())
        };
        here.map(|(address, link)| (*address, name(link))).collect()
    }

    /// Why each of them is withheld.
    pub(super) fn quarantine_reasons(&self, now: Timestamp) -> impl Iterator<Item = String> {
        self.quarantined(now).into_iter().map(|(address, link)| match self.record.owner(address) {
            Some(owner) => format!("{address} is on record for {owner}, but {link} is another's"),
            None => format!("{address} is used by {link} of which there is no record: quarantined"),
        })
    }
}

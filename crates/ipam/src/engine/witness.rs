//! The kernel's word against the record's. What they disagree on is withheld: given to nobody, not
//! given back to EC2, and told to people, until they agree again.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::Engine;
use super::saves::Then;
use crate::record::Change;
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
        let ended: Vec<_> = quarantined.filter(|ip| !strange.contains_key(*ip)).copied().collect();
        for address in ended {
            self.link_gone(address, now);
        }
        for (address, link) in strange {
            self.pool.put_in_quarantine(address, link.name.clone());
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
        // Otherwise it has come into use again meanwhile.
        if self.pool.quarantine.get(&address) == Some(&None) {
            self.pool.end_quarantine(address);
            if let Some(since) = self.record.cooling().get(&address) {
                self.pool.rest(address, *since);
            }
        }
    }

    /// Releases what attachments hold of which nothing has been left for long enough, as by GC.
    fn bury_vanished(&mut self, sighting: &Sighting, now: Timestamp) {
        self.vanished.retain(|key, _| sighting.vanished.contains(key));
        for key in &sighting.vanished {
            let unseen_since = *self.vanished.entry(key.clone()).or_insert(now);
            let Some(found) = self.record.assignments().get(key) else { continue };
            let has_ended = unseen_since + UNSEEN <= now && found.since + LONGEST_ADD <= now;
            if has_ended
                && !self.requests.is_releasing(key)
                && !sighting.links.contains_key(&found.address)
            {
                self.release(key.clone(), found.clone(), Vec::new(), now);
            }
        }
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
        let link = |link: &Option<String>| link.clone().unwrap_or_else(|| "no link".to_owned());
        here.map(|(address, name)| (*address, link(name))).collect()
    }

    /// Why each of them is withheld.
    pub(super) fn quarantine_reasons(&self, now: Timestamp) -> impl Iterator<Item = String> {
        self.quarantined(now).into_iter().map(|(address, link)| match self.record.owner(address) {
            Some(owner) => format!("{address} is on record for {owner}, but {link} is another's"),
            None => format!("{address} is used by {link} of which there is no record: quarantined"),
        })
    }
}

//! How one pod stands with the pool. It reads all parts and changes none.

use super::Engine;
use super::view::in_flight;
use crate::record::Assignment;
use crate::standing::{Stage, Standing, Standings, UnreadyEni, Whom};
use crate::time::Timestamp;
use crate::view::EniStage;

impl Engine {
    /// How the attachments of `whom` stand, and what is under way. Cost: one pass over all attachments.
    #[must_use]
    pub fn standings(&self, whom: &Whom, now: Timestamp) -> Standings {
        let waiting = self.waiting(whom, now);
        let all = waiting.chain(self.recording(whom)).chain(self.on_record(whom));
        Standings {
            attachments: all.take(Standings::MOST).collect(),
            in_flight: self.calls.in_flight().take(Standings::MOST).map(in_flight).collect(),
            unready_enis: self.unready_enis(),
            not_ready: self.ready(now).err(),
            expected: self.expected.since(whom),
        }
    }

    fn waiting(&self, whom: &Whom, now: Timestamp) -> impl Iterator<Item = Standing> {
        let places = self.demand.waiters().enumerate();
        let theirs = places.filter(|(_, waiter)| whom.means(&waiter.key, &waiter.pod));
        theirs.map(move |(place, waiter)| {
            let refusal = self.refusal(self.outlook(now).shortage(place), now);
            let (since, until) = (waiter.since, waiter.patience);
            let stage = Stage::Waiting { since, n_ahead: place, until, refusal };
            Standing { key: waiter.key.clone(), pod: waiter.pod.clone(), stage }
        })
    }

    fn recording(&self, whom: &Whom) -> impl Iterator<Item = Standing> {
        let theirs = self.demand.promises().filter(|(key, promise)| whom.means(key, &promise.pod));
        theirs.map(|(key, promise)| {
            let (since, addresses) = (promise.since, promise.addresses.clone());
            let stage = Stage::Recording { since, addresses };
            Standing { key: key.clone(), pod: promise.pod.clone(), stage }
        })
    }

    fn on_record(&self, whom: &Whom) -> impl Iterator<Item = Standing> {
        let held = self.journal.record().assignments().iter();
        let theirs = held.filter(|(key, assignment)| whom.means(key, &assignment.pod));
        theirs.map(|(key, assignment)| {
            let (pod, assignment) = (assignment.pod.clone(), assignment.clone());
            let stage = match self.demand.is_releasing(key) {
                true => Stage::Releasing { assignment },
                false => Stage::Holding { doubts: self.doubts(&assignment), assignment },
            };
            Standing { key: key.clone(), pod, stage }
        })
    }

    /// What keeps packets from the pod that holds `assignment`.
    fn doubts(&self, assignment: &Assignment) -> Vec<String> {
        let (lost, on_host) = (self.lost(), self.kernel.host_addresses(&self.pool));
        let mut doubts = Vec::new();
        for ip in assignment.addresses.iter() {
            let (address, eni) = (ip.address, ip.via.eni());
            if lost.contains_key(&address) {
                doubts.push(format!("EC2 describes {address} on no ENI of this instance"));
            }
            if self.pool.quarantine.contains_key(&address) {
                doubts.push(format!("the kernel routes {address} to another pod"));
            }
            if let Some(link) = on_host.get(&address) {
                doubts.push(format!("{address} is on the host's link {link}; remove it there"));
            }
            if let Some(why) = self.pool.enis.get(eni).and_then(|eni| eni.link_failure()) {
                doubts.push(format!("{eni} cannot be set up on the host: {why}"));
            }
        }
        doubts
    }

    fn unready_enis(&self) -> Vec<UnreadyEni> {
        let unready = self.pool.enis.values().filter(|eni| eni.view_stage() != EniStage::Ready);
        let unready = unready.map(|eni| UnreadyEni {
            id: eni.id.clone(),
            stage: eni.view_stage(),
            fault: eni.link_failure().map(str::to_owned),
        });
        unready.collect()
    }
}

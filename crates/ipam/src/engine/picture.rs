//! The pool as people and metrics see it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Engine;
use super::calls::{InFlight, Phase};
use crate::block::Block;
use crate::call::Action;
use crate::eni::{BlockState, Eni, Origin};
use crate::id::EniId;
use crate::retry::Subject;
use crate::time::Timestamp;
use crate::view::{BlockUse, Counts, EniView, Most, PoolView};

impl Engine {
    pub(super) fn picture(&self, now: Timestamp) -> PoolView {
        let mut enis: Vec<_> = self.pool.enis.values().map(|eni| self.eni_view(eni, now)).collect();
        enis.sort_by_key(|eni| (eni.device_index.unwrap_or(u16::MAX), eni.id.clone()));
        PoolView {
            mode: self.mode(),
            counts: self.counts(&enis),
            enis,
            foreign: self.foreign.iter().map(|(id, eni)| (id.clone(), eni.why)).collect(),
            left_alone: self.left_alone_of_ours(),
            assignments: self.record.assignments().clone(),
            quarantined: self.quarantined(now),
            leftovers: self.leftovers(),
            sandboxes: self.listing.n_listed(),
            lost: self.lost(),
            belied: self.hints.belied(),
            most: self.most(),
            in_flight: self.calls.values().map(in_flight).collect(),
            blocked: self.obstacles(now),
        }
    }

    fn eni_view(&self, eni: &Eni, now: Timestamp) -> EniView {
        let block_use = |(block, state): (&Block, &BlockState)| {
            let assigned = state.live.clone();
            let cooling: BTreeMap<_, _> = state.cooling(self.policy.cooldown, now).collect();
            let quarantined: BTreeSet<_> = state.withheld().collect();
            let used = (assigned.len() + cooling.len() + quarantined.len()) as u64;
            let free = block.size().saturating_sub(used);
            (*block, BlockUse { assigned, cooling, quarantined, free })
        };
        EniView {
            id: eni.id.clone(),
            device_index: eni.device_index(),
            network_card: 0,
            mac: eni.mac.clone(),
            subnet: eni.subnet.clone(),
            primary_address: eni.primary_address,
            primary: eni.origin == Origin::Primary,
            stage: eni.view_stage(),
            blocks: eni.blocks.iter().map(block_use).collect::<BTreeMap<_, _>>(),
        }
    }

    fn counts(&self, enis: &[EniView]) -> Counts {
        let mut counts = Counts { waiting: self.requests.n_waiting() as u64, ..Counts::default() };
        for (block, block_use) in enis.iter().flat_map(|eni| &eni.blocks) {
            counts.total += block.size();
            counts.assigned += block_use.assigned.len() as u64;
            counts.cooling += block_use.cooling.len() as u64;
            counts.quarantined += block_use.quarantined.len() as u64;
            counts.free += block_use.free;
            counts.prefixes += u64::from(block.is_prefix());
        }
        counts
    }

    /// All that is in the way, with the reason.
    fn obstacles(&self, now: Timestamp) -> Vec<String> {
        let planned = self.plan.blocked.iter().map(|b| format!("{}: {}", b.code.as_str(), b.why));
        let held = self.retries.holds(now).map(|(_, hold)| hold.clone());
        let held = held.chain(self.throttled(now));
        let held = held.map(|hold| format!("{}: {}", hold.code.as_str(), hold.why));
        let links = self
            .pool
            .enis
            .values()
            .filter_map(|eni| Some(format!("{}: {}", eni.id, eni.link_failure()?)));
        let unsure = self.pool.enis.values().filter(|eni| eni.has_hearsay());
        let unsure = unsure.map(|eni| {
            let n = eni.blocks.values().filter(|state| state.is_hearsay).count();
            let why = "may have been given back since, and serve once EC2 names them again";
            format!("{}: {n} blocks that EC2 has named {why}", eni.id)
        });
        let lost = self.lost().into_keys();
        let lost = lost.map(|address| format!("{address} is a pod's but not on any ENI at EC2"));
        let from_record = (self.recollection.is_used() && !self.enis_look.is_known()).then(|| {
            // Also while the next attempt is under way.
            let failed = self.retries.failure(&Subject::Action(Action::DescribeEnis));
            let why = failed.map_or_else(String::new, |hold| format!(" ({})", hold.why));
            format!("STARTING: EC2 does not answer; the ENIs are as it described them before{why}")
        });
        let planned = from_record.into_iter().chain(planned);
        let planned = planned.chain(held).chain(links).chain(unsure);
        let mut all: Vec<String> = planned.chain(lost).chain(self.kept_as_they_are()).collect();
        all.extend(self.things_by_hand());
        all.extend(self.quarantine_reasons(now));
        all.dedup();
        all
    }

    /// Pods' addresses that EC2 shows on none of this instance's ENIs, with the ENI on record.
    fn lost(&self) -> BTreeMap<IpAddr, EniId> {
        let held = self.record.assignments().values();
        let lost = held.filter(|held| {
            self.enis_look.is_known()
                && !self.pool.has(held.address)
                && self.left_alone_on(held.address).is_none()
        });
        lost.map(|held| (held.address, held.eni.clone())).collect()
    }

    /// The ENI on which EC2 shows `address`, if nothing there is for pods.
    fn left_alone_on(&self, address: IpAddr) -> Option<&EniId> {
        let holds = |blocks: &BTreeSet<Block>| blocks.iter().any(|block| block.contains(address));
        self.left_alone.iter().find(|(_, blocks)| holds(blocks)).map(|(eni, _)| eni)
    }

    /// What EC2 shows on our own ENIs and no pod gets.
    fn left_alone_of_ours(&self) -> BTreeSet<Block> {
        let ours = self.left_alone.iter().filter(|(eni, _)| self.pool.enis.contains_key(*eni));
        let by_hand = self.pool.enis.values().flat_map(|eni| &eni.by_hand);
        ours.flat_map(|(_, blocks)| blocks).chain(by_hand).copied().collect()
    }

    /// Pods that live with an address that none would get today: one line for each cause.
    fn kept_as_they_are(&self) -> Vec<String> {
        let mut n_of_other_family = 0;
        let mut on_foreign: BTreeMap<&EniId, u32> = BTreeMap::new();
        for held in self.record.assignments().values() {
            match self.left_alone_on(held.address).filter(|_| !self.pool.has(held.address)) {
                Some(eni) if self.foreign.contains_key(eni) => {
                    *on_foreign.entry(eni).or_default() += 1;
                }
                Some(_) => n_of_other_family += 1,
                None => {}
            }
        }
        let on_foreign = on_foreign.into_iter().map(|(eni, n)| {
            format!("{n} pods keep their addresses on {eni}, which is not ours any more")
        });
        let of_other_family = (n_of_other_family > 0)
            .then(|| format!("{n_of_other_family} pods keep their addresses of the family before"));
        on_foreign.chain(of_other_family).collect()
    }

    pub(super) fn most(&self) -> Most {
        let limits = self.learnt_limits();
        let enis = limits.enis_allowed(&self.policy).saturating_sub(self.n_foreign());
        let refused = self.pool.enis.values().filter_map(|eni| eni.refused);
        let learnt = refused.map(|refused| refused.limit).min().unwrap_or(u16::MAX);
        let blocks = u64::from(enis) * u64::from(limits.blocks_per_eni().min(learnt));
        Most { enis, addresses: blocks.saturating_mul(self.mode().block_size()) }
    }
}

fn in_flight(inflight: &InFlight) -> String {
    let phase = match inflight.phase {
        Phase::Intended => "about to be made",
        Phase::Made | Phase::MadeAgain => "under way",
        Phase::Doubtful(_) => "outcome unknown, reading EC2",
        Phase::RepeatAt(_) => "outcome unknown, to be repeated",
    };
    format!("{} ({phase})", inflight.call)
}

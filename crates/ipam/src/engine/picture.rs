//! The pool as people and metrics see it.

use std::collections::{BTreeMap, BTreeSet};

use super::Engine;
use super::calls::{InFlight, Phase};
use crate::block::Block;
use crate::eni::{BlockState, Eni, Origin};
use crate::time::Timestamp;
use crate::view::{BlockUse, Counts, EniView, PoolView};

impl Engine {
    pub(super) fn picture(&self, now: Timestamp) -> PoolView {
        let mut enis: Vec<_> = self.pool.enis.values().map(|eni| self.eni_view(eni, now)).collect();
        enis.sort_by_key(|eni| (eni.device_index.unwrap_or(u16::MAX), eni.id.clone()));
        PoolView {
            mode: self.mode(),
            counts: self.counts(&enis),
            enis,
            foreign: self.foreign.keys().cloned().collect(),
            assignments: self.record.assignments().clone(),
            quarantined: self.quarantined(now),
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
        let lost = self
            .record
            .assignments()
            .values()
            .filter(|found| self.enis_look.is_known() && !self.pool.has(found.address));
        let lost =
            lost.map(|found| format!("{} is a pod's but not on any ENI at EC2", found.address));
        let from_record = (self.recollection.is_used() && !self.enis_look.is_known()).then(|| {
            "STARTING: EC2 does not answer; the ENIs are as it described them before".to_owned()
        });
        let planned = from_record.into_iter().chain(planned);
        let mut all: Vec<String> = planned.chain(held).chain(links).chain(lost).collect();
        all.extend(self.quarantine_reasons(now));
        all.dedup();
        all
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

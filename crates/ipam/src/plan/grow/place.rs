//! Where a want is met: on an ENI, on one that is being created, on a new one.

use super::{Planner, Portion, Want};
use crate::block::{BlockCount, BlockKind};
use crate::event::RefusalCode;
use crate::plan::{Blocked, EniSupply, SubnetSupply, SupplyState};
use crate::policy::Carriers;

impl Planner<'_> {
    /// Plans as much of `want` as the first ENI with room takes.
    pub(super) fn place_on_eni(&mut self, want: Want, kind: BlockKind) -> bool {
        let mut carriers: Vec<_> =
            self.situation.enis.iter().enumerate().take(self.n_carriers()).collect();
        if want.starving > 0 {
            // A waiting pod would wait for the call on a busy ENI first.
            carriers.sort_by_key(|(_, eni)| eni.busy);
        }
        for (at, eni) in carriers {
            let room = self.room(eni, self.on_enis[at]);
            if room == 0 || !eni.serves() {
                continue;
            }
            if let Some(hold) = eni.hold.as_ref().or(self.situation.assign_hold.as_ref()) {
                self.block(Blocked::held(hold));
                continue;
            }
            let Some(blocks) = self.portion(&eni.subnet, want, kind, room) else { continue };
            self.on_enis[at].add(blocks);
            self.totals.add(blocks);
            return true;
        }
        false
    }

    /// How many of the ENIs carry pods' addresses. The primary ENI is the first.
    fn n_carriers(&self) -> usize {
        match self.family.carriers {
            Carriers::All => usize::MAX,
            Carriers::Primary => 1,
        }
    }

    fn room(&self, eni: &EniSupply, planned: Portion) -> u16 {
        let limit = eni.limit.min(self.blocks_per_eni);
        let pending = eni.pending.map_or(0, |blocks| blocks.n);
        let carried = eni.tally.singles + eni.tally.prefixes + eni.tally.delegated;
        limit.saturating_sub(carried + pending + planned.addresses + planned.prefixes)
    }

    /// Plans as much of `want` as the first ENI takes that is being created. EC2 is asked when that ENI is
    /// here: another ENI would take a place on the instance for longer.
    pub(super) fn place_on_creating(&mut self, want: Want, kind: BlockKind) -> bool {
        for (at, eni) in self.situation.creating.iter().enumerate() {
            let taken = eni.blocks.n + self.on_creating[at];
            let room = self.blocks_per_eni.saturating_sub(taken);
            if room == 0 {
                continue;
            }
            let Some(blocks) = self.portion(&eni.subnet, want, kind, room) else { continue };
            self.on_creating[at] += blocks.n;
            self.totals.add(blocks);
            return true;
        }
        false
    }

    /// Plans one more ENI with as much of `want` as it takes.
    pub(super) fn place_on_new_eni(&mut self, want: Want, kind: BlockKind) -> bool {
        // An ENI has room that may not be used just now. Throttling is no reason to make another ENI.
        if self.situation.assign_hold.as_ref().is_some_and(|hold| self.is_blocked_by(hold)) {
            return false;
        }
        if self.n_places_free() == 0 || self.blocks_per_eni == 0 {
            self.block(self.no_place_left());
            return false;
        }
        if let Some(hold) = &self.situation.create_hold {
            self.block(Blocked::held(hold));
            return false;
        }
        for subnet in &self.situation.subnets {
            if let Some(hold) = &subnet.create_hold {
                self.block(Blocked::held(hold));
                continue;
            }
            let Some(blocks) = self.portion(subnet, want, kind, self.blocks_per_eni) else {
                continue;
            };
            self.new_enis.push((subnet, blocks));
            self.totals.add(blocks);
            return true;
        }
        if self.situation.subnets.is_empty() {
            self.block(self.situation.no_subnet.clone());
        }
        false
    }

    fn n_places_free(&self) -> usize {
        let holds_place =
            |eni: &&EniSupply| !matches!(eni.state, SupplyState::Leaving { holds_place: false });
        let n_present = self.situation.enis.iter().filter(holds_place).count();
        let n_new = self.situation.creating.len() + self.new_enis.len();
        usize::from(self.enis_allowed).saturating_sub(n_present + n_new)
    }

    fn no_place_left(&self) -> Blocked {
        let enis = &self.situation.enis;
        let n_not_for_pods = enis.iter().filter(|eni| eni.state == SupplyState::NotForPods).count();
        let n_for_pods = usize::from(self.enis_allowed).saturating_sub(n_not_for_pods);
        let (code, advice) = if enis.iter().any(|eni| eni.state == SupplyState::Broken) {
            (RefusalCode::LinkFailing, "see why an ENI cannot be set up on the host")
        } else if enis.iter().any(|eni| eni.limit < self.blocks_per_eni) {
            (RefusalCode::AddressLimit, "EC2 takes fewer addresses than the type promises")
        } else if enis.iter().any(|eni| eni.state == SupplyState::Excluded) {
            (RefusalCode::EniLimit, "some take no new pods, since a tag excludes them")
        } else {
            (RefusalCode::EniLimit, "use prefixes, a larger instance type or fewer pods here")
        };
        Blocked {
            code,
            why: format!(
                "all {n_for_pods} ENIs that this node may have for pods are in use, with {} addresses for \
                 each; {advice}",
                self.eni_size()
            ),
            until: None,
            passes_at: None,
        }
    }

    /// The part of `want` for `room` blocks of `kind` in `subnet`; `None` where EC2 may not be asked.
    fn portion(
        &mut self,
        subnet: &SubnetSupply,
        want: Want,
        kind: BlockKind,
        room: u16,
    ) -> Option<BlockCount> {
        let wanted = if kind == self.kind() { want.blocks } else { want.starving };
        let blocks = kind.times(u16::try_from(wanted).unwrap_or(u16::MAX).min(room));
        match subnet.allowance(blocks).refuses(want.starving > 0, self.now) {
            None => Some(blocks),
            Some((code, until)) => {
                self.block(Blocked::refused_by(&subnet.id, code, until));
                None
            }
        }
    }
}

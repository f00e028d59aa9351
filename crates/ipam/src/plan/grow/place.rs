//! Where a want is met: on an ENI, on one that is being created, on a new one.

use super::{Blocks, Planner, Portion, Want};
use crate::call::Ask;
use crate::event::RefusalCode;
use crate::plan::{Blocked, EniSupply, SubnetSupply, SupplyState};
use crate::policy::Mode;

impl Planner<'_> {
    /// Plans as much of `want` as the first ENI takes that can take anything.
    pub(super) fn place_on_eni(&mut self, want: Want, blocks: Blocks) -> bool {
        let mut carriers: Vec<_> =
            self.situation.enis.iter().enumerate().take(self.n_carriers()).collect();
        if want.starving > 0 {
            // A pod that waits had better not wait for another call first.
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
            let Some(ask) = self.ask(&eni.subnet, want, blocks, room) else { continue };
            self.on_enis[at].add(ask);
            self.totals.add(ask);
            return true;
        }
        false
    }

    /// How many of the ENIs may carry pods' addresses: IPv6 pods are routed through the primary.
    fn n_carriers(&self) -> usize {
        match self.mode {
            Mode::SecondaryIp | Mode::Prefix => usize::MAX,
            Mode::Ipv6 => 1,
        }
    }

    fn room(&self, eni: &EniSupply, planned: Portion) -> u16 {
        let limit = eni.limit.min(self.blocks_per_eni);
        let pending = eni.pending.map_or(0, Ask::count);
        let carried = eni.tally.singles + eni.tally.prefixes;
        limit.saturating_sub(carried + pending + planned.addresses + planned.prefixes)
    }

    /// Plans as much of `want` as the first ENI takes that is being created. It is asked for when
    /// that ENI is here: another one would take its place on the instance for longer.
    pub(super) fn place_on_creating(&mut self, want: Want, blocks: Blocks) -> bool {
        for (at, eni) in self.situation.creating.iter().enumerate() {
            let taken = eni.ask.count() + self.on_creating[at];
            let room = self.blocks_per_eni.saturating_sub(taken);
            if room == 0 {
                continue;
            }
            let Some(ask) = self.ask(&eni.subnet, want, blocks, room) else { continue };
            self.on_creating[at] += ask.count();
            self.totals.add(ask);
            return true;
        }
        false
    }

    /// Plans as much of `want` as a new ENI takes: the last that is planned, or one more.
    pub(super) fn place_on_new_eni(&mut self, want: Want, blocks: Blocks) -> bool {
        // An ENI has room that may not be used just now: throttling is no reason to make another.
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
            let Some(ask) = self.ask(subnet, want, blocks, self.blocks_per_eni) else { continue };
            self.new_enis.push((subnet, ask));
            self.totals.add(ask);
            return true;
        }
        if self.situation.subnets.is_empty() {
            self.block(Blocked {
                code: RefusalCode::SubnetExhausted,
                why: "no subnet may be used for a new ENI; tag one with \
                      kubernetes.io/role/cni=1 or take the tag off the node's own"
                    .to_owned(),
                until: None,
                passes_at: None,
            });
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
        let (code, advice) = if enis.iter().any(|eni| eni.state == SupplyState::Broken) {
            (RefusalCode::LinkFailing, "see why an ENI cannot be set up on the host")
        } else if enis.iter().any(|eni| eni.limit < self.blocks_per_eni) {
            (RefusalCode::AddressLimit, "EC2 takes fewer addresses than the type promises")
        } else {
            (RefusalCode::EniLimit, "use prefixes, a larger instance type or fewer pods here")
        };
        Blocked {
            code,
            why: format!(
                "all {} ENIs that this node may have for pods are in use, with {} addresses for \
                 each; {advice}",
                self.enis_allowed,
                self.eni_size()
            ),
            until: None,
            passes_at: None,
        }
    }

    /// What to put of `want` into `room` in `subnet`. `None` where nothing may be asked for.
    fn ask(&mut self, subnet: &SubnetSupply, want: Want, blocks: Blocks, room: u16) -> Option<Ask> {
        let count = |blocks: u64| u16::try_from(blocks).unwrap_or(u16::MAX).min(room);
        let ask = match blocks {
            Blocks::OfTheMode => self.mode.ask(count(want.blocks)),
            Blocks::Singles => Ask::Addresses(count(want.starving)),
        };
        match subnet.allowance(ask).refuses(want.starving > 0, self.now) {
            None => Some(ask),
            Some((code, until)) => {
                self.block(Blocked::refused_by(&subnet.id, code, until));
                None
            }
        }
    }
}

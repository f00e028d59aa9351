//! What the planner needs to know about the node in one family, gathered from the parts.

use crate::block::{Block, Family};
use crate::call::{Action, Ec2Call};
use crate::engine::calls::{Calls, Pressure};
use crate::engine::context::{Context, NewEnis};
use crate::engine::delegation;
use crate::engine::inventory::Inventory;
use crate::engine::learnt::Learnt;
use crate::eni::{Eni, Exclusion, Origin, Stage};
use crate::event::RefusalCode;
use crate::id::SubnetId;
use crate::plan::{Blocked, EniSupply, NewEni, Scope, Situation, SubnetSupply, SupplyState, Tally};
use crate::policy::FamilyPolicy;
use crate::pool::Pool;
use crate::record::Record;
use crate::view::Changes;

/// The pods for which the pool must have an address now.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Demanded {
    /// Those that have asked for one.
    pub(in crate::engine) n_waiting: usize,
    /// Those that are bound to the node and ask soon.
    pub(in crate::engine) n_expected: usize,
    /// Those that may ask within one cooldown, by what has come lately; `None` if that is unknown.
    pub(in crate::engine) n_soon: Option<usize>,
}

/// The parts from which a situation is made.
#[derive(Clone, Copy)]
pub(in crate::engine) struct Sources<'a> {
    pub(in crate::engine) pool: &'a Pool,
    pub(in crate::engine) calls: &'a Calls,
    pub(in crate::engine) inventory: &'a Inventory,
    pub(in crate::engine) record: &'a Record,
    pub(in crate::engine) demanded: Demanded,
    pub(in crate::engine) pressure: Pressure,
    /// The family that is planned.
    pub(in crate::engine) family: FamilyPolicy,
    pub(in crate::engine) cx: Context<'a>,
}

impl Sources<'_> {
    /// The situation of the node in one family. Only the main family of the policy has a say in ENIs other than the
    /// primary one, if the primary ENI alone carries the other family.
    pub(super) fn situation(self, learnt: &Learnt) -> Situation {
        let Sources { pool, calls, inventory, demanded, pressure, family, cx, .. } = self;
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let is_main = family == cx.families().policy();
        let concerns = |eni: &&Eni| is_main || family.is_carried_by(eni.origin == Origin::Primary);
        let mut enis: Vec<_> = pool.enis.values().filter(concerns).collect();
        enis.sort_by_key(|eni| (eni.place().is_none(), eni.place(), &eni.id));
        let (unusable, subnets): (Vec<_>, Vec<_>) = inventory
            .subnets_for_new_enis(cx)
            .into_iter()
            .partition(|subnet| inventory.lacks_range(subnet, self.record));
        let lacks_all = subnets.is_empty() && !unusable.is_empty();
        let unknown_subnets =
            || calls.failure(Action::DescribeSubnets, pressure, cx.now).filter(|_| lacks_all);
        let creating = calls.in_flight().filter(|_| is_main).filter_map(|in_flight| {
            let Ec2Call::CreateEni { subnet, blocks, .. } = &in_flight.call else { return None };
            Some(NewEni { subnet: self.subnet_supply(subnet), blocks: *blocks })
        });
        Situation {
            family,
            scope: self.scope(),
            enis: enis.into_iter().map(|eni| self.eni_supply(eni)).collect(),
            creating: creating.collect(),
            n_foreign: inventory.n_foreign(),
            n_waiting: count(demanded.n_waiting),
            n_expected: count(demanded.n_expected),
            n_soon: demanded.n_soon.map(count),
            n_to_delegate: if is_main { delegation::n_lacking(pool, cx) } else { 0 },
            subnets: subnets.iter().map(|subnet| self.subnet_supply(subnet)).collect(),
            no_subnet: self.no_subnet(),
            create_at_most: learnt.create_at_most,
            assign_hold: calls.hold(family.kind.assign_action(), pressure, cx.now),
            create_hold: calls.hold(Action::CreateEni, pressure, cx.now).or_else(unknown_subnets),
        }
    }

    /// How much may be planned.
    fn scope(self) -> Scope {
        let setting = match self.cx.changes() {
            Changes::ByTargets => return Scope::All,
            Changes::Cordoned => return Scope::ForPods,
            Changes::Off => "DISABLE_NETWORK_RESOURCE_PROVISIONING",
            Changes::ImdsOnly => "ENABLE_IMDS_ONLY_MODE",
        };
        let why = format!(
            "{setting} leaves the node with what somebody else has attached and assigned; assign addresses or prefixes to \
             its ENIs, attach an ENI, or run fewer pods here"
        );
        let until = self.inventory.next_look().filter(|at| *at > self.cx.now);
        let code = RefusalCode::ProvisioningOff;
        Scope::Nothing(Blocked { code, why, until, passes_at: None })
    }

    /// The obstacle if there is no subnet for new ENIs.
    fn no_subnet(self) -> Blocked {
        let (code, why) = match self.cx.new_enis() {
            NewEnis::LikePrimary | NewEnis::PrimarySubnet => (
                RefusalCode::SubnetExhausted,
                "no subnet may be used for a new ENI; tag one with kubernetes.io/role/cni=1 or take the tag off the \
                 node's own"
                    .to_owned(),
            ),
            NewEnis::By(config) => {
                (RefusalCode::EniConfig, format!("{config}: none of them is in this node's zone"))
            }
            NewEnis::Nowhere => {
                (RefusalCode::EniConfig, self.cx.eni_config_fault().unwrap_or_default())
            }
        };
        Blocked { code, why, until: None, passes_at: None }
    }

    fn subnet_supply(self, subnet: &SubnetId) -> SubnetSupply {
        let (subnets, now) = (&self.inventory.subnets, self.cx.now);
        SubnetSupply {
            id: subnet.clone(),
            addresses: subnets.addresses(subnet, now),
            prefixes: match self.family.kind.family() {
                Family::V4 => subnets.prefixes(subnet, now),
                Family::V6 => subnets.ipv6_prefixes(subnet, now),
            },
            free: subnets.free(subnet),
            create_hold: self.calls.create_hold(subnet, now).cloned(),
        }
    }

    fn eni_supply(self, eni: &Eni) -> EniSupply {
        let (family, action) = (self.family.kind.family(), self.family.kind.assign_action());
        let refused = eni.refused.get(&family);
        let call = self.calls.call_on(&eni.id);
        let age = self.cx.policy.timing.min_eni_age;
        let may_go = eni.is_removable(self.record)
            && self.calls.hold_on(&eni.id, Action::DetachEni, self.cx.now).is_none();
        EniSupply {
            id: eni.id.clone(),
            subnet: self.subnet_supply(&eni.subnet),
            state: self.state(eni),
            removable_from: may_go.then(|| eni.since + age),
            busy: call.is_some(),
            pending: call.and_then(|call| {
                let Ec2Call::Assign { blocks, .. } = call else { return None };
                Some(*blocks).filter(|blocks| blocks.kind.family() == family)
            }),
            hold: self.calls.hold_on(&eni.id, action, self.cx.now).cloned(),
            limit: refused.map_or(u16::MAX, |refused| refused.limit),
            at_once: refused.map_or(u16::MAX, |refused| refused.at_once),
            tally: self.tally(eni),
        }
    }

    fn state(self, eni: &Eni) -> SupplyState {
        match &eni.stage {
            Stage::Unattached if self.cx.may_change().is_none() => {
                SupplyState::Leaving { holds_place: false }
            }
            Stage::Unattached => SupplyState::Coming,
            Stage::Attached { link, .. } if link.is_broken() => SupplyState::Broken,
            Stage::Attached { .. } if self.inventory.lacks_range(&eni.subnet, self.record) => {
                SupplyState::Broken
            }
            Stage::Attached { .. } if self.inventory.subnet_cidr_of(eni, self.record).is_none() => {
                SupplyState::Coming
            }
            Stage::Attached { .. } => match eni.excluded {
                Some(Exclusion::CustomNetworking) => SupplyState::NotForPods,
                Some(Exclusion::NoManageTag | Exclusion::SubnetTag) => SupplyState::Excluded,
                None => SupplyState::Attached,
            },
            Stage::Draining { .. } => SupplyState::Leaving { holds_place: true },
            Stage::Deleting { place, .. } => SupplyState::Leaving { holds_place: place.is_some() },
        }
    }

    fn tally(self, eni: &Eni) -> Tally {
        let rests = self.cx.rests();
        let mut tally = Tally::default();
        let of_family = |block: &Block| block.family() == self.family.kind.family();
        let blocks = eni.blocks.iter().filter(|(block, _)| of_family(block));
        for (block, state) in blocks.filter(|(_, state)| state.stays()) {
            if state.delegated {
                tally.delegated += 1;
                continue;
            }
            let n_cooling = state.n_cooling(rests);
            let idle = u16::from(n_cooling == 0 && !state.has_pods());
            if block.is_prefix() {
                tally.prefixes += 1;
                tally.idle_prefixes += idle;
            } else {
                tally.singles += 1;
                tally.idle_singles += idle;
            }
            tally.addresses += Block::size(*block);
            tally.live += state.live.len() as u64;
            // Quarantined addresses count as resting, since new pods cannot have them either.
            tally.cooling += (n_cooling + state.withheld().count()) as u64;
        }
        tally
    }
}

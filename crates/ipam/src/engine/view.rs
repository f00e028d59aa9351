//! The pool as people and metrics see it. It reads all parts and changes none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Engine;
use super::calls::{InFlight, Phase};
use super::context::NewEnis;
use super::delegation;
use super::inventory::foreign_block_phrases;
use super::kernel_check::{quarantine_reasons, quarantined};
use super::security_groups::{self, differing, is_to_follow};
use crate::block::{Block, Family};
use crate::call::Action;
use crate::eni::{BlockState, Eni, Origin};
use crate::event::RefusalCode;
use crate::id::{EniId, SecurityGroupId, SubnetId};
use crate::place::Place;
use crate::policy::HOST_NETWORK_PODS;
use crate::record::Assignment;
use crate::retry::Subject;
use crate::subnets::Allowance;
use crate::time::Timestamp;
use crate::view::{BlockUse, Capacity, Counts, EniView, FamilyView, PoolView, SubnetRoom};

/// An IPv4 prefix is a /28. Source: AWS, "Assigning prefixes to network interfaces".
const ADDRESSES_OF_A_PREFIX: u32 = 16;

impl Engine {
    /// The pool for people, metrics and `ipamd status`. Cost: one pass over all blocks.
    #[must_use]
    pub fn view(&self, now: Timestamp) -> PoolView {
        let (record, cx) = (self.journal.record(), self.site.at(now));
        let enis = self.eni_views(now);
        let main = cx.families().policy().kind;
        let expected = self.demanded(now).n_expected as u64;
        let counts = |family, enis: &_| Counts { expected, ..self.sum(family, enis) };
        let others = cx.families().policies().map(|policy| policy.kind);
        let second = others
            .filter(|kind| *kind != main)
            .map(|kind| FamilyView { kind, counts: counts(kind.family(), &enis) });
        PoolView {
            kind: main,
            limits: cx.limits,
            changes: cx.changes(),
            counts: counts(main.family(), &enis),
            second: second.last(),
            enis,
            foreign: self
                .inventory
                .foreign()
                .iter()
                .map(|(id, eni)| (id.clone(), eni.why))
                .collect(),
            unused_blocks: self.inventory.unused_blocks_of_ours(&self.pool),
            assignments: record.assignments().clone(),
            quarantined: quarantined(&self.pool, record, cx),
            host_addresses: self.kernel.host_addresses(&self.pool),
            sandboxes: self.kernel.n_sandboxes(),
            lost: self.lost(),
            other_groups: self.other_groups(now),
            refuted_hints: self.inventory.refuted_hints(),
            eni_config: cx.eni_config_name().map(str::to_owned),
            capacity: self.capacity(),
            subnets: self.subnet_views(now),
            held_back: self.calls.held_back().clone(),
            in_flight: self.calls.in_flight().map(in_flight).collect(),
            blocked: self.obstacles(now),
        }
    }

    pub(super) fn eni_views(&self, now: Timestamp) -> Vec<EniView> {
        let mut enis: Vec<_> = self.pool.enis.values().map(|eni| self.eni_view(eni, now)).collect();
        enis.sort_by_key(|eni| {
            (eni.device_index.is_none(), eni.network_card, eni.device_index, eni.id.clone())
        });
        enis
    }

    fn eni_view(&self, eni: &Eni, now: Timestamp) -> EniView {
        let block_use = |(block, state): (&Block, &BlockState)| {
            let assigned = state.live.clone();
            let cooling: BTreeMap<_, _> = state.cooling(self.site.at(now).rests()).collect();
            let quarantined: BTreeSet<_> = state.withheld().collect();
            let used = (assigned.len() + cooling.len() + quarantined.len()) as u64;
            let free = block.size().saturating_sub(used);
            (*block, BlockUse { assigned, cooling, quarantined, free })
        };
        let record = self.journal.record();
        let for_pods = eni.blocks.iter().filter(|(_, state)| !state.delegated);
        let delegated = eni.blocks.keys().filter(|block| record.delegated().contains(block));
        EniView {
            id: eni.id.clone(),
            device_index: eni.place().map(|place| place.index),
            network_card: eni.place().unwrap_or(Place::FIRST).card,
            mac: eni.mac,
            subnet: eni.subnet.clone(),
            primary_address: eni.primary_address,
            primary: eni.origin == Origin::Primary,
            stage: eni.view_stage(),
            blocks: for_pods.map(block_use).collect::<BTreeMap<_, _>>(),
            delegated: delegated.copied().collect(),
            subnet_cidr: self.inventory.subnet_cidr_of(eni, record),
            is_excluded: eni.excluded.is_some(),
        }
    }

    fn subnet_views(&self, now: Timestamp) -> BTreeMap<SubnetId, SubnetRoom> {
        let (inventory, subnets) = (&self.inventory, &self.inventory.subnets);
        let Some(described_at) = inventory.subnets_poll.answered() else {
            return BTreeMap::new();
        };
        let carrying = self.pool.enis.values().map(|eni| eni.subnet.clone());
        let next = inventory.subnets_for_new_enis(self.site.at(now));
        let view = |id: SubnetId| {
            let facts = subnets.get(&id).filter(|facts| !facts.is_ipv6_only())?;
            let (described, free_addresses) = (facts.free_addresses?, subnets.free(&id)?);
            let refuses = matches!(subnets.prefixes(&id, now), Allowance::Closed { .. });
            let free_prefixes = if refuses { 0 } else { free_addresses / ADDRESSES_OF_A_PREFIX };
            Some((id, SubnetRoom { free_addresses, free_prefixes, described, described_at }))
        };
        carrying.chain(next).filter_map(view).collect()
    }

    pub(super) fn counts(&self, family: Family, now: Timestamp) -> Counts {
        self.sum(family, &self.eni_views(now))
    }

    pub(super) fn sum(&self, family: Family, enis: &[EniView]) -> Counts {
        let waiting = self.demand.n_waiting() as u64;
        let delegated = enis.iter().flat_map(|eni| &eni.delegated);
        let delegated = delegated.filter(|prefix| prefix.family() == family).count() as u64;
        let mut counts = Counts { waiting, delegated, ..Counts::default() };
        let blocks = enis.iter().flat_map(|eni| &eni.blocks);
        for (block, block_use) in blocks.filter(|(block, _)| block.family() == family) {
            counts.total += block.size();
            counts.assigned += block_use.assigned.len() as u64;
            counts.cooling += block_use.cooling.len() as u64;
            counts.quarantined += block_use.quarantined.len() as u64;
            counts.free += block_use.free;
            counts.prefixes += u64::from(block.is_prefix());
        }
        counts
    }

    /// Everything that keeps the pool from its target, with the reason.
    fn obstacles(&self, now: Timestamp) -> Vec<String> {
        let cx = self.site.at(now);
        let planned = self.supply.blocked();
        let planned = planned.filter(|blocked| blocked.code != RefusalCode::EniConfig);
        let planned = planned.map(|b| format!("{}: {}", b.code.as_str(), b.why));
        let held = self.calls.retries.holds(now).map(|(_, hold)| hold);
        let held = held.chain(self.host.hold(now)).chain(self.journal.hold(now)).cloned();
        let held = held.chain(self.calls.throttled(self.pressure(), now));
        let held = held.map(|hold| format!("{}: {}", hold.code.as_str(), hold.why));
        let hanging = self.journal.hanging(now);
        let hanging = hanging.map(|why| format!("{}: {}", why.code.as_str(), why.message));
        let held = held.chain(hanging);
        let links = self.pool.enis.values();
        let links = links.filter_map(|eni| Some(format!("{}: {}", eni.id, eni.link_failure()?)));
        let excluded = self.pool.enis.values().filter_map(|eni| {
            let why = eni.excluded?.surprise()?;
            Some(format!("{}: no new pod gets an address of it, since {why}", eni.id))
        });
        let unconfirmed = self.pool.enis.values().filter(|eni| eni.has_unconfirmed());
        let unconfirmed = unconfirmed.map(|eni| {
            let (id, n) = (&eni.id, eni.n_unconfirmed());
            let why = "they may have gone back, and serve once a second describe confirms them";
            format!("{id}: {n} blocks are in only one answer of EC2: {why}")
        });
        let on_host = self.kernel.host_addresses(&self.pool).into_iter().map(|(ip, link)| {
            format!("{ip} is on the host's link {link}, so no packet reaches a pod there; remove it from that link")
        });
        let lost = self.lost().into_keys();
        let lost = lost.map(|address| format!("{address} is a pod's but not on any ENI at EC2"));
        let planned = self.eni_config_phrases(now).into_iter().chain(planned);
        let planned = planned.chain(self.waits_for_rest(now));
        let planned = planned.chain(self.waits_for_the_kernel(now));
        let planned = self.warm_start_notice(cx.who_describes()).into_iter().chain(planned);
        let planned = planned.chain(held).chain(links).chain(excluded).chain(unconfirmed);
        let planned = planned.chain(on_host);
        let mut all: Vec<String> = planned.chain(lost).chain(self.unusual_pods()).collect();
        all.extend(foreign_block_phrases(&self.pool));
        all.extend(delegation::phrases(&self.pool, self.inventory.is_known(), cx));
        if let Some(wanted) = self.inventory.groups_to_follow(cx) {
            all.extend(security_groups::phrases(&self.pool, wanted));
        }
        all.extend(quarantine_reasons(&self.pool, self.journal.record(), cx));
        all.dedup();
        all
    }

    /// Why no new ENI can follow the ENIConfig, and which ENIs are older than the ENIConfig is now.
    fn eni_config_phrases(&self, now: Timestamp) -> Vec<String> {
        let cx = self.site.at(now);
        let code = RefusalCode::EniConfig.as_str();
        let planned = self.supply.blocked().find(|blocked| blocked.code == RefusalCode::EniConfig);
        let fault = cx.eni_config_fault().or_else(|| planned.map(|blocked| blocked.why.clone()));
        let fault = fault.map(|why| format!("{code}: {why}"));
        let NewEnis::By(config) = cx.new_enis() else { return fault.into_iter().collect() };
        let enis = self.pool.enis.values().filter(|eni| eni.origin == Origin::Tagged);
        let subnets = &self.inventory.subnets;
        let n = enis.filter(|eni| !subnets.is_chosen(&eni.subnet, config)).count();
        let older = (n > 0).then(|| {
            format!("{n} ENIs are in subnets that are not in {config}; they stay, and only new ENIs follow it")
        });
        fault.into_iter().chain(older).collect()
    }

    /// The notice that pods wait for the end of a cooldown, since the pool cannot grow.
    fn waits_for_rest(&self, now: Timestamp) -> Option<String> {
        let cx = self.site.at(now);
        let family = cx.families().policy().kind.family();
        let n = self.supply.plan(family).n_unserved.min(self.demand.n_waiting() as u64);
        let until = self.pool.rest_ends(family, cx.rests()).filter(|end| *end > now).min()?;
        (n > 0).then(|| {
            let left = until.since(now);
            format!("ALL_COOLING: {n} pods wait for addresses that rest, the first for {left:?}")
        })
    }

    /// The notice that addresses rest on after their cooldown, since the kernel cannot be read.
    fn waits_for_the_kernel(&self, now: Timestamp) -> Option<String> {
        let rests = self.site.at(now).rests();
        let blocks = self.pool.enis.values().flat_map(|eni| eni.blocks.values());
        let resting = blocks.flat_map(|block| block.resting(rests));
        let n = resting.filter(|(_, since)| rests.waits_for_the_kernel(*since)).count();
        (n > 0).then(|| {
            let (code, why) = (RefusalCode::KernelUnread.as_str(), self.unread_phrase());
            format!("{code}: {n} addresses {why}")
        })
    }

    /// The notice that the record stands in for EC2's answer, while it does.
    fn warm_start_notice(&self, who: &str) -> Option<String> {
        (self.inventory.is_warm_started() && !self.inventory.is_known()).then(|| {
            // Also while the next attempt is under way.
            let failed = self.calls.retries.failure(&Subject::Action(Action::DescribeEnis));
            let why = failed.map_or_else(String::new, |hold| format!(" ({})", hold.why));
            format!(
                "STARTING: {who} does not answer; the ENIs are as it described them before{why}"
            )
        })
    }

    /// Our ENIs that have yet to get the primary ENI's security groups, with those that they have.
    fn other_groups(&self, now: Timestamp) -> BTreeMap<EniId, BTreeSet<SecurityGroupId>> {
        let Some(wanted) = self.inventory.groups_to_follow(self.site.at(now)) else {
            return BTreeMap::new();
        };
        let ours = differing(&self.pool, wanted).filter(|eni| is_to_follow(eni));
        ours.map(|eni| (eni.id.clone(), eni.security_groups.clone())).collect()
    }

    /// Pods' addresses that EC2 describes on none of this instance's ENIs, with the ENI on record.
    pub(super) fn lost(&self) -> BTreeMap<IpAddr, EniId> {
        let held = self.journal.record().assignments().values();
        let ips = held.flat_map(|held| held.addresses.iter());
        let lost = ips.filter(|ip| {
            self.inventory.is_known()
                && !self.pool.has(ip.address)
                && self.inventory.unused_on(ip.address).is_none()
        });
        lost.map(|ip| (ip.address, ip.via.eni().clone())).collect()
    }

    /// Pods that keep an address that no new pod would get: one line for each cause.
    fn unusual_pods(&self) -> Vec<String> {
        let mut n_of_other_family = 0;
        let mut on_foreign: BTreeMap<&EniId, u32> = BTreeMap::new();
        let held = self.journal.record().assignments().values();
        for address in held.flat_map(Assignment::ips).filter(|address| !self.pool.has(*address)) {
            match self.inventory.unused_on(address) {
                Some(eni) if self.inventory.foreign().contains_key(eni) => {
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

    pub(super) fn capacity(&self) -> Capacity {
        let limits = self.supply.limits(self.site.limits);
        let enis = limits.enis_allowed(&self.site.policy);
        let enis = enis.saturating_sub(self.inventory.n_foreign());
        let main = limits.families(&self.site.policy).policy().kind;
        let refused = self.pool.enis.values().filter_map(|eni| eni.refused.get(&main.family()));
        let learnt = refused.map(|refused| refused.limit).min().unwrap_or(u16::MAX);
        let blocks = u64::from(enis) * u64::from(limits.blocks_per_eni().min(learnt));
        let delegated: usize = self.pool.enis.values().map(Eni::n_delegated).sum();
        let blocks = blocks.saturating_sub(delegated as u64);
        let addresses = blocks.saturating_mul(main.size());
        let pods = addresses.saturating_add(HOST_NETWORK_PODS.into());
        Capacity { enis, addresses, pods: pods.min(self.site.policy.max_pods.into()) }
    }
}

pub(super) fn in_flight(in_flight: &InFlight) -> String {
    let phase = match in_flight.phase {
        Phase::Intended => "about to be made",
        Phase::Made | Phase::MadeAgain => "under way",
        Phase::Doubtful(_) => "outcome unknown, to be described",
        Phase::RepeatAt(_) => "outcome unknown, to be repeated",
    };
    format!("{} ({phase})", in_flight.call)
}

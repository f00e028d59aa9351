//! The assertions after every step and at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipam::block::Block;
use ipam::call::Ec2Call;
use ipam::event::{Answer, LinkState};
use ipam::id::AttachmentKey;
use ipam::node_local::is_node_local;
use ipam::policy::{Needs, Policy, Provisioning};
use ipam::record::{Assignment, KnownEni};

use super::step::{End, Fate, PODS, Runtime, SaveEnd, Step, VPC};
use super::world::{HistoryModel, Open};
use crate::ec2::{PRIMARY, SUBNET, eni_id};
use crate::node::key;

impl HistoryModel {
    pub(super) fn check(&mut self) {
        self.catch_up();
        for (request, answer) in std::mem::take(&mut self.node.replies) {
            let open = self.open.remove(&request).unwrap_or_else(|| {
                panic!("{request:?} was cancelled or answered before {answer:?}")
            });
            self.check_answer(&open, answer);
        }
        self.check_live();
        self.check_taken_down();
        self.check_known();
        self.check_calls();
        if let Some(picture) = &self.node.picture {
            self.ranges.check(picture, self.node.now);
        }
        for (request, open) in &self.open {
            if let Open::Add { deadline, .. } = open {
                assert!(*deadline > self.node.now, "{request:?} is not answered in time");
            }
        }
        if self.node.calls.is_empty() && self.node.saves.is_empty() {
            self.cooldown = self.node.boot.policy.timing.cooldown;
        }
        let view = self.node.view();
        let under_way = !view.in_flight.is_empty()
            || !self.node.calls.is_empty()
            || !self.node.saves.is_empty()
            || self.node.host.is_some();
        assert!(
            view.counts.waiting == 0 || under_way || !view.blocked.is_empty(),
            "pods wait without a reason: {view:#?}"
        );
    }

    fn check_answer(&mut self, open: &Open, answer: Answer) {
        match (open, answer) {
            (Open::Add { key, .. }, Answer::Granted(assignment)) => {
                self.check_grant(key, &assignment)
            }
            (Open::Release, Answer::Released(None)) | (_, Answer::Refused(_)) => {}
            (Open::Release, Answer::Released(Some(assignment))) => {
                let is_its = |ips: &Vec<IpAddr>| assignment.ips().any(|ip| ips.contains(&ip));
                let key = self.live.iter().find(|(_, ips)| is_its(ips));
                if let Some(key) = key.map(|(key, _)| key.clone()) {
                    assert!(self.ending.contains(&key), "{key} lost its address without a request");
                    self.live.remove(&key);
                }
            }
            (Open::Release, Answer::Collected(collected)) => {
                for (collected, _) in collected {
                    let mut pods = (0..PODS).map(key);
                    let Some(key) = pods.find(|key| key.mark() == collected.mark()) else {
                        panic!("{collected} was never added");
                    };
                    assert!(self.ending.contains(&key), "{key} was collected alive");
                    self.live.remove(&key);
                }
            }
            (open, answer) => panic!("{open:?} is answered by {answer:?}"),
        }
    }

    fn check_grant(&mut self, key: &AttachmentKey, assignment: &Assignment) {
        let on_record = self.on_record(key);
        assert_eq!(on_record, Some(assignment), "{key} is answered before it is on record");
        let ips: Vec<_> = assignment.addresses.iter().map(|ip| ip.address).collect();
        if let Some(before) = self.live.get(key).filter(|_| !self.ending.contains(key)) {
            assert_eq!(*before, ips, "{key} got other addresses");
        }
        // An assignment that was on record at the start, or has returned since, is answered again.
        let is_known = self.known.contains(&key.by_link())
            || self.durable.assignments().contains_key(&key.by_link());
        for ip in assignment.addresses.iter().filter(|_| !is_known) {
            let eni = ip.via.eni();
            assert!(self.ready.contains(eni), "{key} is on {eni}, which was never ready");
        }
        // An address with an unrecorded link must not be granted anew.
        let is_new = self.live.get(key) != Some(&ips) && !is_known;
        if is_new {
            self.check_new(key, &ips, assignment.node_local);
        }
        // The plugin removes the link of an earlier ADD of the same sandbox.
        self.node.links.retain(|_, owner| owner != key);
        self.node.links.extend(assignment.ips().map(|ip| (ip, key.clone())));
        self.node_locals.remove(key);
        self.node_locals.extend(assignment.node_local.map(|ip| (key.clone(), ip)));
        self.ending.remove(key);
        self.live.insert(key.clone(), ips);
    }

    fn check_new(&self, key: &AttachmentKey, ips: &[IpAddr], node_local: Option<IpAddr>) {
        for ip in ips.iter().chain(&node_local) {
            let is_withheld = self.withheld().any(|other| other == *ip);
            assert!(!is_withheld, "{key} got {ip}, which the kernel has shown to be in use");
            let delegated = self.durable.delegated().iter().find(|prefix| prefix.contains(*ip));
            assert!(delegated.is_none(), "{key} got {ip}, of {delegated:?}");
        }
        let n_families = ips.iter().map(IpAddr::is_ipv6).collect::<BTreeSet<_>>().len();
        assert_eq!(n_families, ips.len(), "{key} has two addresses of a family: {ips:?}");
        let families = self.node.boot.policy.families;
        if families.needs() == Needs::Each {
            assert_eq!(n_families, families.policies().count(), "{key} has only {ips:?}");
        }
    }

    fn check_live(&self) {
        let mut taken = BTreeMap::new();
        for (key, address) in self.truly_live() {
            let other = taken.insert(address, key);
            assert_eq!(other, None, "{address} is also {key}'s");
            let on_eni = self.node.ec2.enis.values().any(|eni| {
                eni.attachment.is_some() && eni.blocks.iter().any(|block| block.contains(*address))
            });
            assert!(on_eni, "{key} has {address}, which is on no ENI");
        }
        let mut taken = BTreeMap::new();
        for (key, _) in self.truly_live() {
            let Some(address) = self.node_locals.get(key) else { continue };
            let other = taken.insert(address, key);
            assert_eq!(other, None, "{address} is also {key}'s");
        }
    }

    /// Checks that no link of a running or recorded pod is removed.
    fn check_taken_down(&mut self) {
        for (address, link) in std::mem::take(&mut self.node.to_take_down) {
            let is_its = |key: &AttachmentKey| link.mark == Some(key.mark());
            let alive = self.live.keys().find(|key| is_its(key) && !self.ending.contains(*key));
            assert_eq!(alive, None, "the engine removes the link of a running pod at {address}");
            // A save that was reported as failed may be in the file. Nobody was granted what it says.
            let recorded = self.node.engine.record().owner(address);
            assert_eq!(recorded, None, "the owner of {address} is on record");
            self.node.links.remove(&address);
        }
    }

    /// The pods that have not ended. A requested end counts once it is on record, even if its save was reported
    /// as failed.
    fn truly_live(&self) -> impl Iterator<Item = (&AttachmentKey, &IpAddr)> {
        let all = self.live.iter().flat_map(|(key, ips)| ips.iter().map(move |ip| (key, ip)));
        all.filter(|(key, address)| {
            let recorded = self.on_record(key);
            !self.ending.contains(*key)
                || recorded.is_some_and(|found| found.ips().any(|ip| ip == **address))
        })
    }

    /// Checks that the ENIs on record match EC2. Only the engine removes blocks here, so they must always match.
    /// Records of an earlier boot are not used.
    fn check_known(&self) {
        if self.durable.boot() != Some(&self.node.boot.node.boot) {
            return;
        }
        for KnownEni { facts, .. } in self.durable.enis().values() {
            let real = self.node.ec2.enis.get(&facts.id);
            let real = real.filter(|eni| eni.attachment.is_some());
            let is_there = real.is_some_and(|eni| facts.blocks.is_subset(&eni.blocks));
            assert!(is_there, "the log has {facts:?}, EC2 {real:?}");
        }
    }

    fn check_calls(&mut self) {
        for (id, call) in &self.node.calls {
            if call.reads() || !self.seen_calls.insert(*id) {
                continue;
            }
            assert!(
                self.durable.intents().contains_key(id),
                "{call} is made before it is on record"
            );
            if let Ec2Call::SetSecurityGroups { eni, .. } = call {
                assert_ne!(*eni, eni_id(PRIMARY), "{call}");
            }
            let given_back: BTreeSet<Block> = match call {
                Ec2Call::Unassign { blocks, .. } => blocks.clone(),
                Ec2Call::DetachEni { eni, .. } | Ec2Call::DeleteEni { eni } => {
                    self.node.ec2.enis.get(eni).map(|eni| eni.blocks.clone()).unwrap_or_default()
                }
                _ => continue,
            };
            let gone = |ip: &IpAddr| given_back.iter().any(|block| block.contains(*ip));
            let lost = self.truly_live().find(|(_, ip)| gone(ip));
            assert_eq!(lost, None, "{call} takes a pod's address");
            let withheld = self.withheld().find(gone);
            assert_eq!(withheld, None, "{call} takes an address that is withheld");
            let delegated = self.durable.delegated().intersection(&given_back).next();
            assert_eq!(delegated, None, "{call} takes a delegated prefix");
            let on_record = self.durable.owners().keys().find(|ip| gone(ip));
            assert_eq!(on_record, None, "{call} takes an address that is on record");
            let cooldown = self.cooldown;
            let resting = self.durable.cooling().iter();
            let resting = resting.filter(|(_, since)| **since + cooldown > self.node.now);
            let resting = resting.map(|(ip, _)| ip).find(|ip| gone(ip));
            assert_eq!(resting, None, "{call} takes an address that rests");
        }
    }

    /// Lets everything be changed and succeed for two hours, in a VPC whose ranges stay. Then the links of ended pods disappear, and
    /// everything succeeds again.
    pub(super) fn heal(&mut self) {
        let policy = self.node.boot.policy.clone();
        if policy.provisioning == Provisioning::Off {
            self.node.change_policy(Policy { provisioning: Provisioning::Always, ..policy });
            self.check();
        }
        self.take(&Step::Cordon(false));
        self.take(&Step::VpcRanges(VPC));
        self.take(&Step::EniConfig(Some(SUBNET)));
        self.take(&Step::ReportKernel(Runtime::All));
        self.come_to_rest();
        let live: BTreeMap<_, _> = self.truly_live().map(|(key, ip)| (*ip, key.clone())).collect();
        self.node.links.retain(|ip, key| {
            live.get(ip) == Some(key)
                || (self.node_locals.get(key) == Some(ip) && live.values().any(|it| it == key))
        });
        // Two reports show the sandboxes that the runtime has forgotten. The third shows their links gone.
        for _ in 0..3 {
            self.take(&Step::ReportKernel(Runtime::All));
            self.come_to_rest();
            self.take(&Step::Pass { ms: 60_000 });
        }
        self.take(&Step::VpcRanges(VPC));
        self.come_to_rest();
        // Pods that ended without a DEL are off the record now, and have no link.
        let linked = self.node.links.keys().filter(|ip| !is_node_local(**ip));
        let unrecorded: BTreeSet<_> =
            linked.filter(|ip| self.durable.owner(**ip).is_none()).copied().collect();
        let quarantined = self.node.view().quarantined.into_keys().collect::<BTreeSet<_>>();
        assert_eq!(
            quarantined, unrecorded,
            "exactly the linked addresses without a record are quarantined"
        );
    }

    /// Checks that a restart changes nothing at EC2: the newest policy and limits alone decide the blocks there.
    pub(super) fn check_newest_settings_hold(&mut self) {
        let of = |model: &Self| -> Vec<_> {
            let enis = model.node.ec2.enis.values();
            enis.map(|eni| (eni.id.clone(), eni.blocks.clone())).collect()
        };
        let before = of(self);
        self.restart(0, 0, Fate::Kept, false);
        self.check();
        self.come_to_rest();
        assert_eq!(of(self), before, "a restart changes what is at EC2");
    }

    /// Lets everything succeed for as long as the daily describe and a held call may take. Hints may have lied, so
    /// that they count for nothing.
    pub(super) fn check_groups_follow(&mut self) {
        self.come_to_rest_within(Duration::from_secs(27 * 3600));
        let enis = self.node.ec2.enis.values();
        let groups: BTreeMap<_, _> =
            enis.map(|eni| (eni.id.clone(), eni.security_groups.clone())).collect();
        let wanted = &groups[&eni_id(PRIMARY)];
        assert!(groups.values().all(|groups| groups == wanted), "{groups:?}");
        assert!(self.node.view().other_groups.is_empty());
    }

    fn come_to_rest(&mut self) {
        self.come_to_rest_within(Duration::from_secs(2 * 3600));
    }

    fn come_to_rest_within(&mut self, span: Duration) {
        let end = self.node.now + span;
        for _ in 0..20_000 {
            if !self.node.saves.is_empty() {
                self.take(&Step::EndSave(SaveEnd::Durable(usize::MAX)));
            } else if !self.node.calls.is_empty() {
                self.take(&Step::EndCall { which: 0, end: End::Done });
            } else if self.node.host.is_some() {
                self.take(&Step::EndSync(LinkState::Ready));
            } else if let Some(at) = self.node.engine.wake_at().filter(|at| *at <= end) {
                self.take(&Step::Pass { ms: at.as_millis() - self.node.now.as_millis() });
            } else {
                return;
            }
        }
        panic!("the node does not come to rest: {:#?}", self.node.view());
    }

    pub(super) fn check_rest(&self) {
        assert!(self.open.is_empty(), "never answered: {:?}", self.open);
        assert!(
            self.durable.intents().is_empty(),
            "intents without an end: {:?}",
            self.durable.intents()
        );
        let enis = self.node.ec2.enis.values();
        let leaked: Vec<_> = enis.filter(|eni| eni.attachment.is_none()).collect();
        assert!(leaked.is_empty(), "leaked: {leaked:?}");
        let view = self.node.view();
        let held: BTreeMap<_, BTreeSet<_>> = view
            .enis
            .iter()
            .map(|eni| (&eni.id, eni.blocks.keys().chain(&eni.delegated).copied().collect()))
            .collect();
        let enis = self.node.ec2.enis.values();
        let real: BTreeMap<_, _> = enis.map(|eni| (&eni.id, eni.blocks.clone())).collect();
        assert_eq!(held, real, "the engine and EC2 disagree");
        assert_eq!(&self.durable, self.node.engine.record(), "the engine and its log disagree");
        let noted = self.durable.enis();
        let noted: BTreeMap<_, _> =
            noted.iter().map(|(id, known)| (id, known.facts.blocks.clone())).collect();
        assert_eq!(noted, real, "the log and EC2 disagree");
        let ranges: Vec<_> = self.durable.vpc_ranges().iter().map(ToString::to_string).collect();
        assert_eq!(ranges, VPC, "the log and the metadata service disagree");
    }
}

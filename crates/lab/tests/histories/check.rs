//! The invariants that hold after every event.

use std::net::IpAddr;
use std::time::Duration;

use ipam::block::{Block, BlockKind, Family};
use ipam::call::{CallId, Ec2Call};
use ipam::id::{AttachmentKey, EniId};
use ipam::policy::Needs;
use ipam::record::{Assignment, PodIp};
use ipam::time::Timestamp;
use lab::ec2::{ipam_id, model_id};

use super::node::OpenRequest;
use super::simulation::Simulation;

/// How soon the pool must grow after a pod found no address.
const GROWTH: Duration = Duration::from_secs(1);
/// The most addresses that a call may request: the pods of the largest node.
const MAX_ADDRESSES: u16 = 110;
/// The longest time from a decision to the arrival of its request: two saves and the way to EC2.
const DECISION: Duration = Duration::from_millis(60);

impl Simulation {
    /// Invariants of a daemon after each event.
    pub(super) fn check(&mut self, node: usize) {
        let found = &self.nodes[node];
        let time = found.time(self.now);
        let late = found.open.iter().find(|(_, open)| match open {
            OpenRequest::Add { deadline, .. } => *deadline <= time,
            OpenRequest::Del { .. } | OpenRequest::Gc => false,
        });
        if let Some(late) = late.map(|late| format!("{late:?}")) {
            return self.violation(node, "late answer", late);
        }
        let waits = found.open.values().any(|open| matches!(open, OpenRequest::Add { .. }));
        let (true, Some(engine)) = (waits, &found.engine) else { return };
        let view = engine.view(time);
        let under_way = !view.in_flight.is_empty()
            || !found.calls.is_empty()
            || found.save.is_some()
            || found.host.is_some();
        let is_soon = engine.wake_at().is_some_and(|at| at <= time + GROWTH);
        let has_reason = under_way || is_soon || !view.blocked.is_empty();
        let in_vain = view.counts.waiting > 0 && !has_reason;
        self.expect(node, "pods wait without a reason", !in_vain, || format!("{view:#?}"));
    }

    /// Invariants of an answer that grants an address.
    pub(super) fn check_grant(
        &mut self,
        node: usize,
        key: &AttachmentKey,
        assignment: &Assignment,
    ) {
        let found = &self.nodes[node];
        let addresses: Vec<_> = assignment.ips().collect();
        let on_record = found.on_record(key) == Some(assignment);
        // If the kernel showed the attachment, in this run or an earlier one, its address is
        // granted again.
        let has_come_back = found.durable.assignments().contains_key(&key.by_link());
        let is_old = found.known.contains(key) || has_come_back;
        let told_before = found.pods.get(key).is_some_and(|pod| pod.addresses == addresses);
        let mut enis = assignment.addresses.iter().map(|ip| ip.via.eni());
        let is_ready = is_old || told_before || enis.all(|eni| found.ready.contains(eni));
        let second = found.pods.get(key).filter(|pod| !pod.ended && pod.is_granted());
        let second = second.filter(|pod| pod.addresses != addresses && !found.is_rolled_back);
        let second = second.cloned();
        let mut owners = addresses.iter().filter_map(|address| found.links.get(address));
        let routed = owners.find(|owner| *owner != key && !is_old).cloned();
        let is_enough = is_old || told_before || self.has_enough(node, &addresses);
        let told = || format!("{key}: {assignment:?}");
        self.expect(node, "answer before its record is durable", on_record, told);
        self.expect(node, "address on an ENI that was never ready", is_ready, told);
        self.expect(node, "second address for an attachment", second.is_none(), told);
        self.expect(node, "address routed to another pod", routed.is_none(), told);
        self.expect(node, "pod without the families that it needs", is_enough, told);
        self.check_alive(node, key, assignment);
    }

    /// Whether a new pod may start with these addresses. An answer is on its way for a moment after a change.
    fn has_enough(&self, node: usize, addresses: &[IpAddr]) -> bool {
        let found = &self.nodes[node];
        let families = found.site.policy.families;
        let is_served = |ip: &IpAddr| families.of(Family::of(*ip)).is_some();
        let is_complete = addresses.len() == families.policies().count();
        let is_new = found.needs_changed_at.is_some_and(|at| self.now < at + GROWTH);
        let is_enough = match families.needs() {
            Needs::Each => is_complete || is_new,
            Needs::Any => true,
        };
        addresses.iter().all(is_served) && is_enough
    }

    /// EC2 must deliver the granted address to this node. Two cases are excused. An address that
    /// was unassigned by hand stays unknown until EC2 is polled. A rolled-back record may hold
    /// addresses that were unassigned since.
    fn check_alive(&mut self, node: usize, key: &AttachmentKey, assignment: &Assignment) {
        for PodIp { address, via } in assignment.addresses.iter() {
            let found = &self.nodes[node];
            let is_excused = self.is_removed(*address)
                || self.detached_enis.contains(via.eni())
                || (found.is_rolled_back && found.known.contains(key))
                || found.may_be_stale(*address, self.now)
                || found.pods.get(key).is_some_and(|pod| pod.addresses.contains(address));
            let is_alive = is_excused
                || self.cloud.reaches(&self.nodes[node].site.instance, *address, self.now);
            self.expect(node, "address that EC2 does not deliver", is_alive, || {
                format!("{key}: {address}")
            });
        }
    }

    /// A new link must not have the address of another pod. A rolled-back record is excused: it
    /// grants the old address to the same attachment, even if EC2 has assigned it elsewhere since.
    pub(super) fn check_new_link(&mut self, node: usize, key: &AttachmentKey, address: IpAddr) {
        let sound = self.nodes.iter().filter(|other| !other.is_rolled_back);
        let all = sound.flat_map(super::node::Node::live_links);
        let other = all.filter(|(ip, owner)| **ip == address && *owner != key);
        let other = other.map(|(_, owner)| owner.clone()).next();
        let is_excused = self.is_removed(address) || self.nodes[node].is_rolled_back;
        self.expect(node, "address of two pods", other.is_none() || is_excused, || {
            format!("{address}: {key} and {other:?}")
        });
    }

    /// The daemon reports that an attachment released its addresses.
    pub(super) fn check_release(
        &mut self,
        node: usize,
        key: &AttachmentKey,
        released: &Assignment,
    ) {
        let pod = self.nodes[node].pods.get(key).filter(|pod| !pod.ended);
        let has = |ip| pod.is_some_and(|pod| pod.addresses.contains(&ip));
        let lives = released.ips().any(has);
        self.expect(node, "release without request", !lives, || format!("{key}: {released:?}"));
    }

    /// Invariants of a call that leaves the daemon.
    pub(super) fn check_call(&mut self, node: usize, id: CallId, call: &Ec2Call) {
        let is_durable = reads(call) || self.nodes[node].durable.intents().contains_key(&id);
        self.expect(node, "call before its record is durable", is_durable, || call.to_string());
        let others = self.nodes[node].calls.values();
        let other =
            others.map(|it| &it.call).find(|it| it.eni().is_some() && it.eni() == call.eni());
        let other = other.cloned();
        self.expect(node, "two calls on one ENI", other.is_none(), || format!("{call}, {other:?}"));
        if let Ec2Call::CreateEni { blocks, .. } | Ec2Call::Assign { blocks, .. } = call {
            let is_nothing = matches!(call, Ec2Call::Assign { .. }) && blocks.n == 0;
            let is_sound = match blocks.kind {
                BlockKind::V4Address | BlockKind::V4Prefix => blocks.n <= MAX_ADDRESSES,
                BlockKind::V6Prefix => blocks.n == 1 && self.may_have_ipv6(node, call),
            };
            self.expect(node, "senseless call", is_sound && !is_nothing, || call.to_string());
        }
        self.check_limits(node, call);
    }

    /// One /80 on the primary ENI is enough.
    fn may_have_ipv6(&self, node: usize, call: &Ec2Call) -> bool {
        let site = &self.nodes[node].site;
        let primary = ipam_id::<EniId>(site.primary_eni.as_str());
        site.policy.families.of(Family::V6).is_some() && call.eni() == Some(&primary)
    }

    /// A creation is repeated as it is, even if the limits have changed since, so only assigns are checked.
    fn check_limits(&mut self, node: usize, call: &Ec2Call) {
        let Ec2Call::Assign { blocks, .. } = call else { return };
        let found = &self.nodes[node];
        let limits = found.site.limits;
        let is_new = found.limits_changed_at.is_some_and(|at| self.now < at + DECISION);
        let is_within = blocks.n <= limits.blocks_per_eni()
            && (limits.prefixes || blocks.kind != BlockKind::V4Prefix);
        self.expect(node, "call beyond the limits", is_within || is_new, || call.to_string());
    }

    /// Invariants of a request that reaches EC2.
    pub(super) fn check_arrival(&mut self, node: usize, call: &Ec2Call) {
        let Some(eni) = call.eni() else { return };
        let id = model_id(eni.as_str());
        let (owner, instance) = (self.cloud.owner(&id), &self.nodes[node].site.instance);
        let is_foreign = self.foreign_enis.contains(&id) || owner.is_some_and(|it| it != *instance);
        self.expect(node, "call on a foreign ENI", !is_foreign, || call.to_string());
        let given_back: Vec<Block> = match call {
            Ec2Call::Unassign { blocks, .. } => blocks.iter().copied().collect(),
            Ec2Call::DetachEni { eni, .. } | Ec2Call::DeleteEni { eni } => {
                let instance = self.nodes[node].site.instance.clone();
                let enis = self.cloud.attached(&instance, self.now);
                let of_eni = enis.iter().filter(|it| ipam_id::<EniId>(it.id.as_str()) == *eni);
                of_eni.flat_map(blocks_of).collect()
            }
            _ => return,
        };
        self.check_given_back(node, call, &given_back);
    }

    fn check_given_back(&mut self, node: usize, call: &Ec2Call, given_back: &[Block]) {
        let gone = |ip: &IpAddr| given_back.iter().any(|block| block.contains(*ip));
        let found = &self.nodes[node];
        let live = found.live_links().map(|(ip, _)| *ip).find(gone);
        let on_record = found.durable.owners().keys().copied().find(gone);
        // The engine made its decision under the policy of that time. It does not fill a draining ENI again.
        let decided_from = match call {
            Ec2Call::Unassign { .. } => found.time(self.now).before(DECISION),
            _ => Timestamp::default(),
        };
        let resting = found.durable.cooling().iter();
        let has_rested = |since| found.has_rested(since, decided_from, self.now);
        let resting = resting.filter(|(_, since)| !has_rested(**since));
        let resting = resting.map(|(ip, _)| *ip).find(gone);
        let lost = [
            ("address of a pod unassigned", live),
            ("recorded address unassigned", on_record),
            ("address in cooldown unassigned", resting),
        ];
        for (rule, lost) in lost {
            let lost = lost.filter(|ip| !self.is_removed(*ip));
            self.expect(node, rule, lost.is_none(), || format!("{call}: {lost:?}"));
        }
    }
}

fn reads(call: &Ec2Call) -> bool {
    matches!(call, Ec2Call::DescribeEnis | Ec2Call::DescribeSubnets)
}

pub(super) fn blocks_of(eni: &ec2_model::fabric::FabricEni) -> impl Iterator<Item = Block> {
    let singles = eni.secondaries.iter().map(|ip| Block::address(*ip));
    let prefixes = eni.prefixes.iter().filter_map(|net| Block::try_from(*net).ok());
    let of_ipv6 = eni.ipv6_prefixes.iter().filter_map(|net| Block::try_from(*net).ok());
    singles.chain(prefixes).chain(of_ipv6).collect::<Vec<_>>().into_iter()
}

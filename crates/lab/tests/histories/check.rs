//! StepAction must be true at each moment.

use std::net::IpAddr;
use std::time::Duration;

use ipam::block::Block;
use ipam::call::{Ask, CallId, Ec2Call};
use ipam::id::AttachmentKey;
use ipam::record::Assignment;
use lab::ec2::{ipam_id, model_id};

use super::node::OpenRequest;
use super::simulation::Simulation;

/// The pool grows so soon after a pod has come that finds no address.
const GROWTH: Duration = Duration::from_secs(1);
/// No call asks for more: it is what the largest node has pods.
const MOST: u16 = 110;

impl Simulation {
    /// StepAction holds of a daemon after each event.
    pub(super) fn check(&mut self, node: usize) {
        let found = &self.nodes[node];
        let time = found.time(self.now);
        let late = found.open.iter().find(|(_, open)| match open {
            OpenRequest::Add { deadline, .. } => *deadline <= time,
            OpenRequest::Del { .. } | OpenRequest::Gc => false,
        });
        if let Some(late) = late.map(|late| format!("{late:?}")) {
            return self.violation(node, "an answer that is late", late);
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
        self.expect(node, "pods that wait for nothing", !in_vain, || format!("{view:#?}"));
    }

    /// A pod is told that it has an address.
    pub(super) fn check_grant(
        &mut self,
        node: usize,
        key: &AttachmentKey,
        assignment: &Assignment,
    ) {
        let found = &self.nodes[node];
        let address = assignment.address;
        let on_record = found.on_record(key) == Some(assignment);
        // Of this run or not, what the kernel has shown is answered as it is.
        let has_come_back = found.durable.assignments().contains_key(&key.nameless());
        let is_old = found.known.contains(key) || has_come_back;
        let told_before = found.pods.get(key).is_some_and(|pod| pod.address == Some(address));
        let is_ready = is_old || told_before || found.ready.contains(&assignment.eni);
        let second = found.pods.get(key).filter(|pod| !pod.ended).and_then(|pod| pod.address);
        let second = second.filter(|before| *before != address && !found.is_rolled_back);
        let routed = found.live_links().find(|(ip, owner)| **ip == address && *owner != key);
        let routed = routed.map(|(_, owner)| owner.clone()).filter(|_| !is_old);
        let told = || format!("{key}: {assignment:?}");
        self.expect(node, "an answer before its record", on_record, told);
        self.expect(node, "an address of an ENI that was never ready", is_ready, told);
        self.expect(node, "a second address", second.is_none(), told);
        self.expect(node, "an address that is routed to another", routed.is_none(), told);
        self.check_alive(node, key, assignment);
    }

    /// EC2 delivers to this node what is sent to the address that a pod gets. StepAction somebody took away by hand nobody
    /// knows before EC2 is read, and a record that has been rolled back may tell of what was given
    /// back since.
    fn check_alive(&mut self, node: usize, key: &AttachmentKey, assignment: &Assignment) {
        let found = &self.nodes[node];
        let address = assignment.address;
        let is_excused = self.is_removed(address)
            || self.detached_enis.contains(&assignment.eni)
            || (found.is_rolled_back && found.known.contains(key))
            || found.is_misled(address, self.now)
            || found.pods.get(key).is_some_and(|pod| pod.address == Some(address));
        let (IpAddr::V4(ip), false) = (address, is_excused) else { return };
        let is_alive = self.cloud.reaches(&self.nodes[node].site.instance, ip, self.now);
        self.expect(node, "an address that is dead", is_alive, || format!("{key}: {address}"));
    }

    /// A pod's link comes up. StepAction a record says that has been rolled back is answered again to whoever
    /// asks under the same name, whomever EC2 has given the address to since.
    pub(super) fn check_new_link(&mut self, node: usize, key: &AttachmentKey, address: IpAddr) {
        let sound = self.nodes.iter().filter(|other| !other.is_rolled_back);
        let all = sound.flat_map(super::node::Node::live_links);
        let other = all.filter(|(ip, owner)| **ip == address && *owner != key);
        let other = other.map(|(_, owner)| owner.clone()).next();
        let is_excused = self.is_removed(address) || self.nodes[node].is_rolled_back;
        self.expect(node, "an address of two pods", other.is_none() || is_excused, || {
            format!("{address}: {key} and {other:?}")
        });
    }

    /// The daemon says that an attachment has released an address.
    pub(super) fn check_release(&mut self, node: usize, key: &AttachmentKey, address: IpAddr) {
        let pod = self.nodes[node].pods.get(key);
        let lives = pod.is_some_and(|pod| !pod.ended && pod.address == Some(address));
        self.expect(node, "a release that nobody asked for", !lives, || {
            format!("{key}: {address}")
        });
    }

    /// A call leaves the daemon.
    pub(super) fn check_call(&mut self, node: usize, id: CallId, call: &Ec2Call) {
        let is_durable = reads(call) || self.nodes[node].durable.intents().contains_key(&id);
        self.expect(node, "a call before its record", is_durable, || call.to_string());
        let others = self.nodes[node].calls.values();
        let other =
            others.map(|it| &it.call).find(|it| it.eni().is_some() && it.eni() == call.eni());
        let other = other.cloned();
        self.expect(node, "two calls on an ENI", other.is_none(), || format!("{call}, {other:?}"));
        if let Ec2Call::CreateEni { ask, .. } | Ec2Call::Assign { ask, .. } = call {
            let is_nothing = matches!(call, Ec2Call::Assign { .. }) && ask.count() == 0;
            let is_sound =
                !is_nothing && ask.count() <= MOST && !matches!(ask, Ask::Ipv6Prefixes(_));
            self.expect(node, "a call that makes no sense", is_sound, || call.to_string());
        }
    }

    /// A request reaches EC2.
    pub(super) fn check_arrival(&mut self, node: usize, call: &Ec2Call) {
        let Some(eni) = call.eni() else { return };
        let id = model_id(eni.as_str());
        let (owner, instance) = (self.cloud.owner(&id), &self.nodes[node].site.instance);
        let is_strange = self.foreign_enis.contains(&id) || owner.is_some_and(|it| it != *instance);
        self.expect(node, "a call on what is not ours", !is_strange, || call.to_string());
        let given_back: Vec<Block> = match call {
            Ec2Call::Unassign { blocks, .. } => blocks.iter().copied().collect(),
            Ec2Call::DetachEni { eni, .. } | Ec2Call::DeleteEni { eni } => {
                let instance = self.nodes[node].site.instance.clone();
                let enis = self.cloud.attached(&instance, self.now);
                let of_eni =
                    enis.iter().filter(|it| ipam_id::<ipam::id::EniId>(it.id.as_str()) == *eni);
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
        let (time, cooldown) = (found.time(self.now), self.setting.policy.cooldown);
        let resting = found.durable.cooling().iter();
        let resting = resting.filter(|(_, since)| **since + cooldown > time);
        let resting = resting.map(|(ip, _)| *ip).find(gone);
        let lost = [
            ("a pod's address given back", live),
            ("a recorded address given back", on_record),
            ("a resting address given back", resting),
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
    let singles = eni.secondaries.iter().map(|ip| Block::address((*ip).into()));
    let prefixes = eni.prefixes.iter().filter_map(|net| Block::try_from(*net).ok());
    singles.chain(prefixes).collect::<Vec<_>>().into_iter()
}

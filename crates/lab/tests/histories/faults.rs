//! Faults: daemons that die, records that lose changes, changes that people make by hand.

use std::time::Duration;

use ec2_model::fault::Disturbance;
use ec2_model::id::SecurityGroupId;
use ipam::id::AttachmentKey;
use lab::cloud::ec2_time;
use lab::ec2;

use super::check::blocks_of;
use super::node::{OpenRequest, Pod};
use super::simulation::{HistoryEvent, Simulation, n_requests};
use super::step::{Kill, RecordFate};

/// The least time of a reboot.
const BOOT: Duration = Duration::from_secs(15);

/// The security group of the VPC that no node has at first.
pub(super) fn other_group() -> SecurityGroupId {
    "sg-0cccccccccccccccc".parse().unwrap()
}

impl Simulation {
    pub(super) fn clear_faults(&mut self) {
        let model = self.cloud.model();
        let rules: Vec<_> = model.faults().map(|(id, ..)| id).collect();
        for rule in rules {
            model.remove_fault(rule);
        }
    }

    pub(super) fn kill(&mut self, node: usize, kill: &Kill) {
        if self.nodes[node].engine.is_none() {
            return;
        }
        self.outcome.kills += 1;
        if let Some((_, changes)) = self.nodes[node].save.take().filter(|_| kill.saved) {
            self.make_durable(node, changes);
        }
        let unsent = self.nodes[node].calls.values().filter(|in_flight| !in_flight.arrived);
        let unsent: Vec<_> = unsent.map(|in_flight| in_flight.call.clone()).collect();
        for call in unsent.iter().filter(|_| kill.sent) {
            let _: (Result<_, _>, _) = self.request(node, call, n_requests(call) - 1);
        }
        // The plugins of open requests find no daemon.
        let open = std::mem::take(&mut self.nodes[node].open);
        for open in open.into_values() {
            if let OpenRequest::Del { key } = open {
                self.unlink(node, &key);
                self.nodes[node].pending_dels.push(key);
            }
        }
        self.nodes[node].forget_run();
        self.nodes[node].clock_ahead_ms = kill.clock_ahead_ms;
        self.lose_record(node, kill.record);
        if kill.reboot {
            self.nodes[node].reboot();
        }
        let boot = if kill.reboot { BOOT } else { Duration::ZERO };
        self.push_in(boot + Duration::from_millis(kill.down_ms), HistoryEvent::Starts { node });
    }

    /// The daemon ends as in an upgrade, and the next one starts at once.
    pub(super) fn restart(&mut self, node: usize) {
        let kill = Kill {
            at_effect: 0,
            saved: true,
            sent: true,
            down_ms: 0,
            record: RecordFate::Kept,
            reboot: false,
            clock_ahead_ms: 0,
        };
        let kills = self.outcome.kills;
        self.kill(node, &kill);
        // Only the deaths of the steps count.
        self.outcome.kills = kills;
    }

    fn lose_record(&mut self, node: usize, fate: RecordFate) {
        let n = self.nodes[node].log.len();
        let stays = match fate {
            RecordFate::Kept => return,
            RecordFate::Lost => 0,
            RecordFate::RolledBack(last) => n.saturating_sub(last),
        };
        self.has_lost_record = true;
        self.nodes[node].is_rolled_back = true;
        // First each pod with an address gets its link. Otherwise neither record nor kernel would
        // know the pod.
        let runs = |(_, pod): &(&AttachmentKey, &Pod)| !pod.ended && pod.is_granted();
        let told = self.nodes[node].pods.iter().filter(runs);
        let told: Vec<_> = told.map(|(key, pod)| (key.clone(), pod.addresses.clone())).collect();
        for (key, addresses) in told {
            self.links(node, key, addresses);
        }
        if let Err(contradiction) = self.nodes[node].truncate_log(stays) {
            self.violation(node, "log that cannot be replayed", contradiction.to_string());
        }
    }

    pub(super) fn detach_by_hand(&mut self, node: usize, which: usize) {
        let enis = self.cloud.attached(&self.nodes[node].site.instance, self.now);
        let ours = enis.iter().skip(1).filter(|eni| !self.foreign_enis.contains(&eni.id));
        let ours: Vec<_> = ours.collect();
        let Some(eni) = ours.get(which % ours.len().max(1)) else { return };
        self.removed_blocks.extend(blocks_of(eni));
        self.detached_enis.insert(ec2::ipam_id(eni.id.as_str()));
        self.disturb(Disturbance::DetachEni { eni: eni.id.clone() });
    }

    pub(super) fn unassign_by_hand(&mut self, node: usize, which: usize) {
        let enis = self.cloud.attached(&self.nodes[node].site.instance, self.now);
        let blocks =
            enis.iter().flat_map(|eni| blocks_of(eni).map(|block| (eni.id.clone(), block)));
        let blocks: Vec<_> = blocks.collect();
        let Some((eni, block)) = blocks.get(which % blocks.len().max(1)).cloned() else { return };
        self.removed_blocks.insert(block);
        let cidr = block.cidr();
        let (addresses, prefixes) = match block.size() {
            1 => (vec![cidr.addr()], Vec::new()),
            _ => (Vec::new(), vec![cidr]),
        };
        self.disturb(Disturbance::Unassign { eni, addresses, prefixes });
    }

    /// An ENI that is not ours may be changed too: then our daemon must leave it as it is.
    pub(super) fn change_groups(&mut self, node: usize, which: usize, choice: usize) {
        let enis = self.cloud.attached(&self.nodes[node].site.instance, self.now);
        let Some(eni) = enis.get(which % enis.len().max(1)) else { return };
        let default = self.nodes[node].site.security_groups.clone();
        let other = vec![other_group()];
        let groups = match choice {
            0 => default,
            1 => other,
            _ => [default, other].concat(),
        };
        self.cloud.set_security_groups(eni.id.clone(), groups, self.now);
        self.has_changed_groups = true;
    }

    fn disturb(&mut self, disturbance: Disturbance) {
        let done = self.cloud.model().disturb(disturbance, ec2_time(self.now));
        debug_assert!(done.is_ok(), "{done:?}");
    }

    pub(super) fn terminate(&mut self, node: usize) {
        self.cloud.terminate(&self.nodes[node].site.instance, self.now);
        let found = &mut self.nodes[node];
        found.forget_run();
        found.is_there = false;
        found.links.clear();
    }
}

//! The end of a history: some hours without new faults, after which everything must have settled.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ec2_model::fabric::FabricEni;
use ipam::block::{Block, Family};
use ipam::event::HostNat;
use ipam::id::{AttachmentKey, EniId};
use lab::ec2::ipam_id;

use super::check::blocks_of;
use super::history::Violation;
use super::node::{Node, PluginRequest, named};
use super::simulation::Simulation;

/// Longer than any daemon is down, than the wait for a lost answer, and than any back-off. Two describes for hints
/// are ten minutes apart, and two hints a minute.
const CALM: Duration = Duration::from_secs(780);
/// Longer than a surplus ENI stays.
const SHRINK: Duration = Duration::from_secs(3 * 3600);
/// Longer than the interval of polls without cause.
const AUDIT: Duration = Duration::from_secs(26 * 3600);
/// The interval of kernel polls while nothing happens. They take most of the run time.
const POLL_SELDOM: Duration = Duration::from_secs(600);
/// Calls in flight end within some of these.
const MOMENT: Duration = Duration::from_millis(500);
const MOMENTS: u32 = 40;
/// At the end nothing changes for this long.
const QUIET: Duration = Duration::from_secs(1800);

impl Node {
    /// The blocks of the ENI that the daemon must hold, if it leaves the `unused` ones alone.
    fn held_of(&self, eni: &FabricEni, unused: &BTreeSet<Block>) -> BTreeSet<Block> {
        let families = self.site.policy.families;
        // What a node has from the families of before, it keeps for the pods of then.
        let held = blocks_of(eni).filter(|block| families.serve(*block, eni.is_primary));
        held.filter(|block| !(unused.contains(block) && self.may_leave(block))).collect()
    }

    /// A rolled-back record takes blocks that it does not know for foreign ones. So does a daemon that starts with IPv6
    /// again after EC2 has assigned a prefix late. They are idle, and counted.
    fn may_leave(&self, block: &Block) -> bool {
        let may_be_late = self.needs_changed_at.is_some() && block.kind().family() == Family::V6;
        self.is_rolled_back || may_be_late
    }
}

impl Simulation {
    pub(super) fn settle(&mut self) -> Result<(), Violation> {
        self.clear_faults();
        self.cloud.vacate(0, self.now);
        for node in &mut self.nodes {
            node.disk_full_until = self.now;
            node.no_device_until = (self.now, false);
            node.kill = None;
        }
        self.pass(CALM)?;
        self.check_hand_changes_known();
        // Wrong metadata would cause a poll now and then, so the services stop here.
        self.metadata.clear();
        self.collect();
        self.poll_every = POLL_SELDOM;
        let needs_audit =
            self.has_lost_record || self.has_changed_groups || !self.removed_blocks.is_empty();
        self.pass(if needs_audit { AUDIT } else { SHRINK })?;
        self.collect();
        self.pass(CALM)?;
        self.check_end()?;
        if self.has_changed {
            let before = self.holdings();
            self.restart_all();
            self.pass(SHRINK)?;
            let after = self.holdings();
            // What refusals teach depends on the order of the calls, and WARM_ENI_TARGET counts in full ENIs. An
            // ENI with too many addresses may stay unattachable until a restart.
            let is_same = before == after || self.has_false_limits;
            let what = || format!("blocks per ENI: {before:?}, {after:?}");
            self.expect(0, "other holdings after a restart", is_same, what);
            self.check_end()?;
        }
        Ok(())
    }

    /// The number of blocks on each ENI of each node, in ascending order.
    fn holdings(&mut self) -> Vec<Vec<usize>> {
        let instances: Vec<_> = self.nodes.iter().map(|it| it.site.instance.clone()).collect();
        let mut holdings = Vec::new();
        for instance in instances {
            let enis = self.cloud.attached(&instance, self.now);
            let mut per_eni: Vec<_> = enis.iter().map(|eni| blocks_of(eni).count()).collect();
            per_eni.sort_unstable();
            holdings.push(per_eni);
        }
        holdings
    }

    /// Daemons start anew with the newest policy and limits.
    fn restart_all(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.restart(node));
    }

    /// Checks that nothing changes any more and all states agree.
    fn check_end(&mut self) -> Result<(), Violation> {
        (self.outcome.left_alone, self.outcome.left_behind) = (0, 0);
        let before = self.cloud.n_changes();
        self.pass(QUIET)?;
        let made = self.cloud.n_changes() - before;
        self.expect(0, "changes after settling", made == 0, || format!("{made} calls"));
        // A target that cannot be reached is retried now and then. Such calls must end first.
        for _ in 0..MOMENTS {
            let asks = |node: &Node| node.save.is_some() || !node.calls.is_empty();
            if self.nodes.iter().any(asks) {
                self.pass(MOMENT)?;
            }
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].is_there {
                self.check_settled(node);
            }
        }
        self.check_leaks();
        self.result()
    }

    /// The runtimes remove ended sandboxes and send a GC.
    fn collect(&mut self) {
        for node in 0..self.nodes.len() {
            let ended: Vec<_> = self.nodes[node].pods.iter().filter(|(_, pod)| pod.ended).collect();
            let ended: Vec<_> = ended.into_iter().map(|(key, _)| key.clone()).collect();
            ended.iter().for_each(|key| self.unlink(node, key));
            if self.nodes[node].is_there {
                self.asks(node, PluginRequest::Gc);
            }
        }
    }

    /// Checks that the record, the kernel and EC2 agree.
    fn check_settled(&mut self, node: usize) {
        let found = &self.nodes[node];
        let Some(engine) = &found.engine else {
            return self.violation(node, "no daemon runs", String::new());
        };
        let view = engine.view(found.time(self.now));
        let mut faults = Vec::new();
        let mut expect = |holds: bool, rule: &'static str, what: String| {
            if !holds {
                faults.push((rule, what));
            }
        };
        expect(found.open.is_empty(), "request never answered", format!("{:?}", found.open));
        let intents = found.durable.intents();
        expect(intents.is_empty(), "intent left open", format!("{intents:?}"));
        expect(found.durable == *engine.record(), "engine and log differ", String::new());
        let ranges = found.durable.vpc_ranges();
        expect(*ranges == self.ranges, "other ranges on record", format!("{ranges:?}"));
        let wanted = match &found.nat {
            Some(HostNat::Wanted(nat)) => nat.source.as_ref().map(|source| &source.untranslated),
            Some(HostNat::Absent | HostNat::Unknown(_)) | None => None,
        };
        let is_whole = wanted.is_some_and(|wanted| wanted.is_superset(&self.ranges));
        expect(is_whole, "range of the VPC is translated", format!("{wanted:?}"));
        let is_rolled_back = found.is_rolled_back;
        let recorded = found.durable.owners().iter().map(|(ip, key)| (*ip, named(key)));
        let recorded: BTreeSet<_> = recorded.collect();
        let live = found.live_links().map(|(ip, key)| (*ip, key.clone()));
        let live: BTreeSet<_> = live.collect();
        // A rolled-back record may have another address for a running pod.
        let runs = |key: &AttachmentKey| live.iter().any(|(_, other)| other == key);
        let unexplained = recorded.difference(&live);
        let unexplained = unexplained.filter(|(_, key)| !(found.is_rolled_back && runs(key)));
        let unexplained: Vec<_> = unexplained.collect();
        expect(
            unexplained.is_empty(),
            "attachment on record without link",
            format!("{unexplained:?}"),
        );
        let unrecorded = live.difference(&recorded).map(|(ip, _)| *ip);
        let unrecorded: BTreeSet<_> = unrecorded.filter(|ip| !self.is_removed(*ip)).collect();
        let quarantined = view.quarantined.keys().copied();
        let quarantined: BTreeSet<_> = quarantined.filter(|ip| !self.is_removed(*ip)).collect();
        expect(
            is_rolled_back || quarantined == unrecorded,
            "quarantine differs from unrecorded pods",
            format!("{quarantined:?}, {unrecorded:?}"),
        );
        let stranded = found.stranded_enis(self.now);
        let attached = view.enis.iter().filter(|eni| !stranded.contains(&eni.id));
        let held: BTreeMap<EniId, BTreeSet<Block>> =
            attached.map(|eni| (eni.id.clone(), eni.blocks.keys().copied().collect())).collect();
        let instance = found.site.instance.clone();
        let pods: Vec<_> = live.into_iter().collect();
        let now = self.now;
        let enis = self.cloud.attached(&instance, now);
        let ours =
            enis.iter().filter(|eni| self.cloud.owner(&eni.id).is_some_and(|it| it == instance));
        let unused = &view.unused_blocks;
        let n_left_alone = unused.len();
        let real: BTreeMap<EniId, BTreeSet<Block>> =
            ours.map(|eni| (ipam_id(eni.id.as_str()), found.held_of(eni, unused))).collect();
        // EC2 may have assigned a removed address to another ENI since.
        let is_whole = self.removed_blocks.is_empty() && self.detached_enis.is_empty();
        expect(!is_whole || held == real, "engine and EC2 differ", format!("{held:?}, {real:?}"));
        let lost = pods.iter().filter(|(ip, _)| !self.cloud.reaches(&instance, *ip, now));
        let lost: Vec<_> = lost.collect();
        let is_sure = is_whole && !is_rolled_back;
        expect(!is_sure || lost.is_empty(), "pods without their address", format!("{lost:?}"));
        let groups = self.cloud.security_groups(now);
        let ours =
            enis.iter().filter(|eni| self.cloud.owner(&eni.id).is_some_and(|it| it == instance));
        let ours: BTreeSet<_> = ours.filter_map(|eni| groups.get(&eni.id)).collect();
        let what = format!("{ours:?}");
        expect(ours.len() <= 1, "security groups not in line", what);
        self.outcome.left_alone += n_left_alone;
        for (rule, what) in faults {
            self.violation(node, rule, what);
        }
    }

    /// Checks that only terminated instances left unattached ENIs.
    fn check_leaks(&mut self) {
        let is_whole = self.removed_blocks.is_empty() && self.detached_enis.is_empty();
        for (eni, owner) in self.cloud.unattached(self.now) {
            let is_owner = |it: &Node| it.is_there && Some(&it.site.instance) == owner.as_ref();
            let Some(node) = self.nodes.iter().position(is_owner) else {
                self.outcome.left_behind += 1;
                continue;
            };
            let stranded = self.nodes[node].stranded_enis(self.now);
            if is_whole && !stranded.contains(&ipam_id(eni.as_str())) {
                self.violation(node, "leaked ENI", eni.to_string());
            }
        }
    }
}

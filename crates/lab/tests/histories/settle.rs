//! The end of a history: nothing else goes wrong for some hours, and then all is as it should be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipam::block::Block;
use ipam::id::{AttachmentKey, EniId};
use lab::ec2::ipam_id;

use super::check::blocks_of;
use super::history::Violation;
use super::node::{Node, PluginRequest, named};
use super::simulation::Simulation;

/// Longer than any daemon is away, than a lost answer is waited for and than a back-off lasts.
const CALM: Duration = Duration::from_secs(600);
/// Longer than an ENI that has come to be surplus stays.
const REST: Duration = Duration::from_secs(3 * 3600);
/// Longer than it takes until EC2 is read although nothing gives cause.
const AUDIT: Duration = Duration::from_secs(26 * 3600);
/// Between two looks at the kernel when all is calm: they take most of the time.
const POLL_SELDOM: Duration = Duration::from_secs(600);
/// StepAction is under way ends within some of these.
const MOMENT: Duration = Duration::from_millis(500);
const MOMENTS: u32 = 40;
/// In the end nothing happens for so long.
const STILL: Duration = Duration::from_secs(1800);

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
        self.check_noticed();
        // Nobody asks them any more: their lies would cost a reading now and then for as long as they last.
        self.metadata.clear();
        self.collect();
        self.poll_every = POLL_SELDOM;
        self.pass(if self.has_lost_record || !self.removed_blocks.is_empty() {
            AUDIT
        } else {
            REST
        })?;
        self.collect();
        self.pass(CALM)?;
        let before = self.cloud.n_changes();
        self.pass(STILL)?;
        let made = self.cloud.n_changes() - before;
        self.expect(0, "changes at rest", made == 0, || format!("{made} calls"));
        // Where a target cannot be reached it is tried again now and then.
        for _ in 0..MOMENTS {
            let asks = |node: &Node| node.save.is_some() || !node.calls.is_empty();
            if self.nodes.iter().any(asks) {
                self.pass(MOMENT)?;
            }
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].is_there {
                self.check_rest(node);
            }
        }
        self.check_leaks();
        self.verdict()
    }

    /// The runtimes end what is left of ended sandboxes, and say what lives.
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

    /// The record, the kernel and EC2 say the same.
    fn check_rest(&mut self, node: usize) {
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
        expect(found.open.is_empty(), "never answered", format!("{:?}", found.open));
        let intents = found.durable.intents();
        expect(intents.is_empty(), "left open", format!("{intents:?}"));
        expect(found.durable == *engine.record(), "engine and log disagree", String::new());
        let is_rolled_back = found.is_rolled_back;
        let recorded = found.durable.owners().iter().map(|(ip, key)| (*ip, named(key)));
        let recorded: BTreeSet<_> = recorded.collect();
        let live = found.live_links().map(|(ip, key)| (*ip, key.clone()));
        let live: BTreeSet<_> = live.collect();
        // A record that has been rolled back may have another address for a pod that runs.
        let runs = |key: &AttachmentKey| live.iter().any(|(_, other)| other == key);
        let unexplained = recorded.difference(&live);
        let unexplained = unexplained.filter(|(_, key)| !(found.is_rolled_back && runs(key)));
        let unexplained: Vec<_> = unexplained.collect();
        expect(unexplained.is_empty(), "on record without a link", format!("{unexplained:?}"));
        let unrecorded = live.difference(&recorded).map(|(ip, _)| *ip);
        let unrecorded: BTreeSet<_> = unrecorded.filter(|ip| !self.is_removed(*ip)).collect();
        let quarantined = view.quarantined.keys().copied();
        let quarantined: BTreeSet<_> = quarantined.filter(|ip| !self.is_removed(*ip)).collect();
        expect(
            is_rolled_back || quarantined == unrecorded,
            "withheld is not what runs without a record",
            format!("{quarantined:?}, {unrecorded:?}"),
        );
        let held: BTreeMap<EniId, BTreeSet<Block>> = view
            .enis
            .iter()
            .map(|eni| (eni.id.clone(), eni.blocks.keys().copied().collect()))
            .collect();
        let instance = found.site.instance.clone();
        let pods: Vec<_> = live.into_iter().collect();
        let now = self.now;
        let enis = self.cloud.attached(&instance, now);
        let ours =
            enis.iter().filter(|eni| self.cloud.owner(&eni.id).is_some_and(|it| it == instance));
        // StepAction a record that has lost its end does not know of is somebody else's: idle, and counted.
        let is_left = |block: &Block| is_rolled_back && view.left_alone.contains(block);
        let n_left_alone = view.left_alone.len();
        let kept = |eni| blocks_of(eni).filter(|block| !is_left(block)).collect();
        let real: BTreeMap<EniId, BTreeSet<Block>> =
            ours.map(|eni| (ipam_id(eni.id.as_str()), kept(eni))).collect();
        // Where somebody has taken a pod's address, EC2 may have given it to another ENI since.
        let is_whole = self.removed_blocks.is_empty() && self.detached_enis.is_empty();
        expect(!is_whole || held == real, "engine and EC2 disagree", format!("{held:?}, {real:?}"));
        let lost = pods.iter().filter(|(ip, _)| match ip {
            std::net::IpAddr::V4(ip) => !self.cloud.reaches(&instance, *ip, now),
            std::net::IpAddr::V6(_) => true,
        });
        let lost: Vec<_> = lost.collect();
        let is_sure = is_whole && !is_rolled_back;
        expect(!is_sure || lost.is_empty(), "pods without their address", format!("{lost:?}"));
        self.outcome.left_alone += n_left_alone;
        for (rule, what) in faults {
            self.violation(node, rule, what);
        }
    }

    /// ENIs that nobody has attached are those of instances that are no more.
    fn check_leaks(&mut self) {
        let unattached = self.cloud.unattached(self.now);
        for (eni, owner) in unattached {
            let node = self
                .nodes
                .iter()
                .position(|it| it.is_there && Some(&it.site.instance) == owner.as_ref());
            match node {
                Some(_) if !(self.removed_blocks.is_empty() && self.detached_enis.is_empty()) => {}
                Some(node) => self.violation(node, "a leaked ENI", eni.to_string()),
                None => self.outcome.left_behind += 1,
            }
        }
    }
}

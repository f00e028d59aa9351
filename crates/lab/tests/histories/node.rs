//! One node: the machine, its kernel and disk, and its daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipam::block::Block;
use ipam::call::{CallId, Ec2Call, EniFacts};
use ipam::event::{HostEni, HostNat, RequestId, SaveSeq};
use ipam::id::{AttachmentKey, BootId, EniId, Pod as PodFacts};
use ipam::kernel_report::{KernelReport, PodLink};
use ipam::policy::{Limits, Node as NodeFacts};
use ipam::record::{Assignment, Change, Contradiction, Record};
use ipam::time::Timestamp;
use ipam::view::EniView;
use ipam::{Boot, Engine};
use lab::cloud::Site;
use lab::ec2::ipam_id;

use super::step::Kill;

/// The network of all pods.
pub(super) const NETWORK: &str = "aws-cni";
/// How long after a change EC2 may describe the old state, including an answer in flight.
const LAG: Duration = Duration::from_secs(11);
/// The machines' clocks at the start of a history.
const WALL: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// A sandbox, as the runtime knows it.
#[derive(Debug, Clone, Default)]
pub(super) struct Pod {
    /// Whether its end was requested or happened.
    pub(super) ended: bool,
    /// The addresses that the plugin got, IPv4 first; empty if it got none yet.
    pub(super) addresses: Vec<IpAddr>,
}

impl Pod {
    /// Whether the plugin got addresses for it.
    pub(super) fn is_granted(&self) -> bool {
        !self.addresses.is_empty()
    }
}

/// A request of a plugin.
#[derive(Debug, Clone)]
pub(super) enum PluginRequest {
    Add { key: AttachmentKey, patience: Duration },
    Del { key: AttachmentKey },
    Gc,
}

/// A request without an answer yet.
#[derive(Debug, Clone)]
pub(super) enum OpenRequest {
    Add { key: AttachmentKey, deadline: Timestamp },
    Del { key: AttachmentKey },
    Gc,
}

/// A call in flight.
#[derive(Debug, Clone)]
pub(super) struct InFlightCall {
    pub(super) call: Ec2Call,
    /// Whether its last request reached EC2.
    pub(super) arrived: bool,
    /// The ENIs in the answers to its earlier requests.
    pub(super) before: Vec<EniFacts>,
}

#[derive(Debug)]
pub(super) struct Node {
    /// With the policy and the limits of the next daemon.
    pub(super) site: Site,
    /// When the limits of this run changed.
    pub(super) limits_changed_at: Option<Timestamp>,
    /// When it last changed what pods of this run need to start.
    pub(super) needs_changed_at: Option<Timestamp>,
    /// EC2's limits.
    pub(super) real_limits: Limits,
    /// The cooldowns of this run, each with its start by the daemon's clock.
    cooldowns: Vec<(Timestamp, Duration)>,
    /// Whether the instance exists.
    pub(super) is_there: bool,
    /// Counts the daemons. Events for an earlier one are dropped.
    pub(super) run: u64,
    pub(super) engine: Option<Engine>,
    n_boots: u64,
    /// When the daemon started, by its own clock and in simulation time.
    started: (Timestamp, Timestamp),
    pub(super) clock_ahead_ms: i64,
    /// The durable changes, and the record that they make.
    pub(super) log: Vec<Change>,
    pub(super) durable: Record,
    pub(super) save: Option<(SaveSeq, Vec<Change>)>,
    pub(super) calls: BTreeMap<CallId, InFlightCall>,
    /// The ENIs of a sync that has not ended.
    pub(super) host: Option<Vec<HostEni>>,
    /// The translation that this run of the daemon wants.
    pub(super) nat: Option<HostNat>,
    pub(super) tick_at: Option<Timestamp>,
    /// ENIs that were ready in this run, and attachments that this run found on record.
    pub(super) ready: BTreeSet<EniId>,
    pub(super) known: BTreeSet<AttachmentKey>,
    /// Blocks that this run found on record.
    recorded_blocks: BTreeSet<Block>,
    pub(super) open: BTreeMap<RequestId, OpenRequest>,
    n_requests: u64,
    pub(super) pods: BTreeMap<AttachmentKey, Pod>,
    /// The number of the latest sandbox of each slot.
    pub(super) slots: BTreeMap<usize, u32>,
    /// The kernel's routes: the attachment of each address.
    pub(super) links: BTreeMap<IpAddr, AttachmentKey>,
    /// DELs that found no daemon, to be repeated at the next start.
    pub(super) pending_dels: Vec<AttachmentKey>,
    pub(super) kill: Option<Kill>,
    /// Whether the record lost its last changes.
    pub(super) is_rolled_back: bool,
    /// When EC2 first answered a poll of this run.
    first_poll_at: Option<Timestamp>,
    /// Whether EC2 answered the last poll. After an error the daemon waits.
    pub(super) last_poll_ok: bool,
    pub(super) disk_full_until: Timestamp,
    pub(super) no_device_until: (Timestamp, bool),
}

impl Node {
    pub(super) fn new(site: Site) -> Self {
        Self {
            limits_changed_at: None,
            needs_changed_at: None,
            real_limits: site.limits,
            site,
            cooldowns: Vec::new(),
            is_there: true,
            run: 0,
            engine: None,
            n_boots: 0,
            started: (WALL, Timestamp::default()),
            clock_ahead_ms: 0,
            log: Vec::new(),
            durable: Record::default(),
            save: None,
            calls: BTreeMap::new(),
            host: None,
            nat: None,
            tick_at: None,
            ready: BTreeSet::new(),
            known: BTreeSet::new(),
            recorded_blocks: BTreeSet::new(),
            open: BTreeMap::new(),
            n_requests: 0,
            pods: BTreeMap::new(),
            slots: BTreeMap::new(),
            links: BTreeMap::new(),
            pending_dels: Vec::new(),
            kill: None,
            is_rolled_back: false,
            first_poll_at: None,
            last_poll_ok: false,
            disk_full_until: Timestamp::default(),
            no_device_until: (Timestamp::default(), false),
        }
    }

    /// Whether its limits are higher than EC2's. Then EC2's refusals lower them for a day.
    pub(super) fn believes_too_much(&self) -> bool {
        let (believed, real) = (&self.site.limits, &self.real_limits);
        believed.enis > real.enis || believed.addresses_per_eni > real.addresses_per_eni
    }

    /// The daemon's time. As in the agent, it starts with the machine's clock, or later if the
    /// record has later times. Then it follows simulation time.
    pub(super) fn time(&self, now: Timestamp) -> Timestamp {
        let (by_clock, in_truth) = self.started;
        by_clock + now.since(in_truth)
    }

    /// The simulation time at the daemon's time `at`.
    pub(super) fn truth(&self, at: Timestamp) -> Timestamp {
        let (by_clock, in_truth) = self.started;
        in_truth + at.since(by_clock)
    }

    /// Starts an engine from the durable record.
    pub(super) fn boot(&mut self, now: Timestamp) -> Vec<ipam::event::Effect> {
        let ahead = Duration::from_millis(self.clock_ahead_ms.unsigned_abs());
        let wall = WALL + now.since(Timestamp::default());
        let wall = if self.clock_ahead_ms < 0 { wall.before(ahead) } else { wall + ahead };
        self.started = (wall.max(after(&self.durable)), now);
        self.known = self.durable.assignments().keys().map(named).collect();
        let enis = self.durable.enis().values();
        self.recorded_blocks = enis.flat_map(|known| known.facts.blocks.clone()).collect();
        let boot = Boot {
            node: self.facts(),
            limits: self.site.limits,
            policy: self.site.policy.clone(),
            record: self.durable.clone(),
        };
        self.cooldowns.clear();
        self.note_cooldown(now);
        let (engine, effects) = Engine::new(boot, self.time(now));
        self.engine = Some(engine);
        effects
    }

    /// The policy's cooldown holds from now on.
    pub(super) fn note_cooldown(&mut self, now: Timestamp) {
        self.cooldowns.push((self.time(now), self.site.policy.timing.cooldown));
    }

    /// Whether an address released at `since` had rested at some time from `from` on, both by the
    /// daemon's clock. A longer cooldown may have come since.
    pub(super) fn has_rested(&self, since: Timestamp, from: Timestamp, now: Timestamp) -> bool {
        let later = self.cooldowns.iter().skip(1).map(|(start, _)| *start);
        let ends = later.chain([self.time(now)]);
        let mut terms = self.cooldowns.iter().zip(ends);
        terms.any(|((_, cooldown), end)| end >= from && since + *cooldown <= end)
    }

    /// A poll of the ENIs ended.
    pub(super) fn poll_ends(&mut self, last_poll_ok: bool, now: Timestamp) {
        self.last_poll_ok = last_poll_ok;
        if last_poll_ok {
            self.first_poll_at.get_or_insert(now);
        }
    }

    /// Whether `address` may come from a rolled-back record, while EC2 may still describe blocks
    /// that were unassigned since.
    pub(super) fn may_be_stale(&self, address: IpAddr, now: Timestamp) -> bool {
        let is_late = self.first_poll_at.is_none_or(|at| now < at + LAG);
        self.is_rolled_back
            && is_late
            && self.recorded_blocks.iter().any(|block| block.contains(address))
    }

    /// Unattached ENIs that the daemon must keep, since a running pod has an address of theirs.
    ///
    /// A rolled-back record can assign an address that went back to EC2. EC2 may put this address
    /// on a new ENI of the node, and then have no room to attach that ENI.
    pub(super) fn stranded_enis(&self, now: Timestamp) -> BTreeSet<EniId> {
        let is_possible = self.is_rolled_back && self.believes_too_much();
        let engine = self.engine.iter().filter(|_| is_possible);
        let enis = engine.flat_map(|engine| engine.view(self.time(now)).enis);
        let has_pods = |eni: &EniView| eni.blocks.values().any(|it| !it.assigned.is_empty());
        enis.filter(|eni| eni.device_index.is_none() && has_pods(eni)).map(|eni| eni.id).collect()
    }

    fn facts(&self) -> NodeFacts {
        NodeFacts {
            instance: ipam_id(self.site.instance.as_str()),
            boot: BootId(format!("boot {}", self.n_boots)),
            primary_mac: self.site.primary_mac,
            subnet_cidr: None,
            instance_type: self.site.instance_type.clone(),
            cluster: Some("ours".to_owned()),
            eni_tags: BTreeMap::new(),
            manage_untagged: true,
        }
    }

    /// Ends the daemon and drops everything that it had in memory.
    pub(super) fn forget_run(&mut self) {
        self.run += 1;
        self.engine = None;
        self.save = None;
        self.calls.clear();
        (self.host, self.nat) = (None, None);
        self.tick_at = None;
        self.ready.clear();
        self.open.clear();
        self.kill = None;
        (self.first_poll_at, self.last_poll_ok) = (None, false);
    }

    /// Reboots the machine: all pods end, and the kernel has no links.
    pub(super) fn reboot(&mut self) {
        self.n_boots += 1;
        self.links.clear();
        self.pods.values_mut().for_each(|pod| pod.ended = true);
    }

    /// Applies saved changes to the durable record.
    ///
    /// # Errors
    ///
    /// If the changes contradict the record.
    pub(super) fn make_durable(&mut self, changes: Vec<Change>) -> Result<(), Contradiction> {
        changes.iter().try_for_each(|change| self.durable.apply(change))?;
        self.log.extend(changes);
        Ok(())
    }

    /// Drops the changes of the log from the `n`th on.
    ///
    /// # Errors
    ///
    /// As [`make_durable`](Self::make_durable).
    pub(super) fn truncate_log(&mut self, n: usize) -> Result<(), Contradiction> {
        let mut log = std::mem::take(&mut self.log);
        log.truncate(n);
        self.durable = Record::default();
        self.make_durable(log)
    }

    pub(super) fn request(&mut self) -> RequestId {
        self.n_requests += 1;
        RequestId(self.n_requests)
    }

    /// The kernel's state in a poll that begins now.
    pub(super) fn kernel_report(&self, now: Timestamp) -> KernelReport {
        let seen = |key: &AttachmentKey| PodLink { name: key.to_string(), mark: Some(key.mark()) };
        let has_link = |key: &AttachmentKey| self.links.values().any(|owner| *owner == named(key));
        // An attachment known by its link alone ends with the link.
        let is_gone = |key: &AttachmentKey| {
            key.is_by_link() || self.pods.get(key).is_none_or(|pod| pod.ended)
        };
        let assigned = self.durable.assignments().keys();
        let vanished = assigned.filter(|key| !has_link(key) && is_gone(key));
        KernelReport {
            begun: self.time(now),
            links: self.links.iter().map(|(address, key)| (*address, seen(key))).collect(),
            vanished: vanished.cloned().collect(),
            ..KernelReport::default()
        }
    }

    /// The links of pods that run here.
    pub(super) fn live_links(&self) -> impl Iterator<Item = (&IpAddr, &AttachmentKey)> {
        let lives = |key: &AttachmentKey| self.pods.get(key).is_some_and(|pod| !pod.ended);
        self.links.iter().filter(move |(_, key)| lives(key))
    }

    /// The durable assignment of an attachment. The record may know it by its link alone.
    pub(super) fn on_record(&self, key: &AttachmentKey) -> Option<&Assignment> {
        let assignments = self.durable.assignments();
        assignments.get(key).or_else(|| assignments.get(&key.by_link()))
    }

    /// The attachments whose ADD waits for its answer.
    pub(super) fn adding(&self) -> impl Iterator<Item = &AttachmentKey> {
        self.open.values().filter_map(|open| match open {
            OpenRequest::Add { key, .. } => Some(key),
            OpenRequest::Del { .. } | OpenRequest::Gc => None,
        })
    }
}

/// The key as the runtime knows it. The record may know the attachment by its link alone.
pub(super) fn named(key: &AttachmentKey) -> AttachmentKey {
    AttachmentKey { network: NETWORK.into(), ..key.clone() }
}

pub(super) fn pod_facts(key: &AttachmentKey) -> PodFacts {
    PodFacts { name: key.container.clone(), ..PodFacts::default() }
}

/// A time after all times in the record. The agent starts its clock no earlier.
fn after(record: &Record) -> Timestamp {
    let given = record.assignments().values().map(|held| held.since);
    let newest = record.cooling().values().copied().chain(given).max();
    newest.unwrap_or_default() + Duration::from_millis(1)
}

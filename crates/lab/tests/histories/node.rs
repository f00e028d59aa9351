//! One node: the machine, its kernel and its disk, and the daemon that lives on it for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipam::block::Block;
use ipam::call::{CallId, Ec2Call, EniFacts};
use ipam::event::{HostEni, RequestId, SaveSeq};
use ipam::id::{AttachmentKey, BootId, EniId, Pod as PodFacts};
use ipam::policy::Node as NodeFacts;
use ipam::record::{Assignment, Change, Contradiction, Record};
use ipam::sighting::{SeenLink, Sighting};
use ipam::time::Timestamp;
use ipam::{Boot, Engine};
use lab::cloud::Site;
use lab::ec2::ipam_id;

use super::step::Kill;

/// The network that all pods are in.
pub(super) const NETWORK: &str = "aws-cni";
/// How long after a change EC2 may describe what was before it, and an answer may be on its way.
const LAG: Duration = Duration::from_secs(11);
/// StepAction the machines' clocks say when a history begins.
const WALL: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// A sandbox, as its runtime sees it.
#[derive(Debug, Clone, Default)]
pub(super) struct Pod {
    /// Its end has been asked for, or has come.
    pub(super) ended: bool,
    /// StepAction the plugin has been told.
    pub(super) address: Option<IpAddr>,
}

/// A request of a plugin.
#[derive(Debug, Clone)]
pub(super) enum PluginRequest {
    Add { key: AttachmentKey, patience: Duration },
    Del { key: AttachmentKey },
    Gc,
}

/// A request that waits for its answer.
#[derive(Debug, Clone)]
pub(super) enum OpenRequest {
    Add { key: AttachmentKey, deadline: Timestamp },
    Del { key: AttachmentKey },
    Gc,
}

/// A call on its way.
#[derive(Debug, Clone)]
pub(super) struct InFlightCall {
    pub(super) call: Ec2Call,
    /// Whether EC2 has got the last request of it.
    pub(super) arrived: bool,
    /// StepAction the requests before have listed.
    pub(super) before: Vec<EniFacts>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) site: Site,
    /// Whether the instance has not been ended.
    pub(super) is_there: bool,
    /// Counts the daemons: what was meant for an earlier one is dropped.
    pub(super) run: u64,
    pub(super) engine: Option<Engine>,
    n_boots: u64,
    /// When the daemon started: by its own clock, and in truth.
    started: (Timestamp, Timestamp),
    pub(super) clock_ahead_ms: i64,
    /// StepAction is durable, as changes and as what they come to.
    pub(super) log: Vec<Change>,
    pub(super) durable: Record,
    pub(super) save: Option<(SaveSeq, Vec<Change>)>,
    pub(super) calls: BTreeMap<CallId, InFlightCall>,
    pub(super) host: Option<Vec<HostEni>>,
    pub(super) tick_at: Option<Timestamp>,
    /// ENIs that were ready in this run, and attachments that it found on record.
    pub(super) ready: BTreeSet<EniId>,
    pub(super) known: BTreeSet<AttachmentKey>,
    /// The blocks that this run found on record.
    noted: BTreeSet<Block>,
    pub(super) open: BTreeMap<RequestId, OpenRequest>,
    n_requests: u64,
    pub(super) pods: BTreeMap<AttachmentKey, Pod>,
    /// The latest sandbox of each slot.
    pub(super) slots: BTreeMap<usize, u32>,
    /// The kernel: whose link each address is routed to.
    pub(super) links: BTreeMap<IpAddr, AttachmentKey>,
    /// DELs that found no daemon.
    pub(super) remembered: Vec<AttachmentKey>,
    pub(super) kill: Option<Kill>,
    /// Whether the record has lost its last changes.
    pub(super) is_rolled_back: bool,
    /// When EC2 first told this run of the ENIs.
    ec2_spoke_at: Option<Timestamp>,
    /// Whether EC2 has told this run of the ENIs when it was asked last; after a refusal it waits.
    pub(super) is_told: bool,
    pub(super) disk_full_until: Timestamp,
    pub(super) no_device_until: (Timestamp, bool),
}

impl Node {
    pub(super) fn new(site: Site) -> Self {
        Self {
            site,
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
            tick_at: None,
            ready: BTreeSet::new(),
            known: BTreeSet::new(),
            noted: BTreeSet::new(),
            open: BTreeMap::new(),
            n_requests: 0,
            pods: BTreeMap::new(),
            slots: BTreeMap::new(),
            links: BTreeMap::new(),
            remembered: Vec::new(),
            kill: None,
            is_rolled_back: false,
            ec2_spoke_at: None,
            is_told: false,
            disk_full_until: Timestamp::default(),
            no_device_until: (Timestamp::default(), false),
        }
    }

    /// The daemon's time: as the agent makes it, the machine's at its start, or later if the record
    /// knows later moments, and from then on what has truly passed.
    pub(super) fn time(&self, now: Timestamp) -> Timestamp {
        let (by_clock, in_truth) = self.started;
        by_clock + now.since(in_truth)
    }

    /// When in truth it is `at` by the daemon's time.
    pub(super) fn truth(&self, at: Timestamp) -> Timestamp {
        let (by_clock, in_truth) = self.started;
        in_truth + at.since(by_clock)
    }

    /// An engine from what is durable.
    pub(super) fn boot(
        &mut self,
        now: Timestamp,
        policy: &ipam::policy::Policy,
    ) -> Vec<ipam::event::Effect> {
        let ahead = Duration::from_millis(self.clock_ahead_ms.unsigned_abs());
        let wall = WALL + now.since(Timestamp::default());
        let wall = if self.clock_ahead_ms < 0 { wall.before(ahead) } else { wall + ahead };
        self.started = (wall.max(after(&self.durable)), now);
        self.known = self.durable.assignments().keys().map(named).collect();
        let enis = self.durable.enis().values();
        self.noted = enis.flat_map(|known| known.facts.blocks.clone()).collect();
        let boot = Boot {
            node: self.facts(),
            limits: self.site.limits,
            policy: policy.clone(),
            record: self.durable.clone(),
        };
        let (engine, effects) = Engine::new(boot, self.time(now));
        self.engine = Some(engine);
        effects
    }

    /// EC2 has been asked for the ENIs.
    pub(super) fn poll_ends(&mut self, is_told: bool, now: Timestamp) {
        self.is_told = is_told;
        if is_told {
            self.ec2_spoke_at.get_or_insert(now);
        }
    }

    /// Whether a record that has been rolled back is all that tells of `address` as yet: EC2 may still describe
    /// what the record has forgotten that it was given back.
    pub(super) fn is_misled(&self, address: IpAddr, now: Timestamp) -> bool {
        let is_late = self.ec2_spoke_at.is_none_or(|at| now < at + LAG);
        self.is_rolled_back && is_late && self.noted.iter().any(|block| block.contains(address))
    }

    fn facts(&self) -> NodeFacts {
        NodeFacts {
            instance: ipam_id(self.site.instance.as_str()),
            boot: BootId(format!("boot {}", self.n_boots)),
            instance_type: self.site.instance_type.clone(),
            cluster: Some("ours".to_owned()),
            eni_tags: BTreeMap::new(),
            manage_untagged: true,
        }
    }

    /// The daemon is no more; nothing that it has only in memory lives on.
    pub(super) fn forget_run(&mut self) {
        self.run += 1;
        self.engine = None;
        self.save = None;
        self.calls.clear();
        self.host = None;
        self.tick_at = None;
        self.ready.clear();
        self.open.clear();
        self.kill = None;
        (self.ec2_spoke_at, self.is_told) = (None, false);
    }

    /// The machine starts anew: all pods have ended, and the kernel knows none of them.
    pub(super) fn reboot(&mut self) {
        self.n_boots += 1;
        self.links.clear();
        self.pods.values_mut().for_each(|pod| pod.ended = true);
    }

    /// # Errors
    ///
    /// If what the engine has saved contradicts itself.
    pub(super) fn make_durable(&mut self, changes: Vec<Change>) -> Result<(), Contradiction> {
        changes.iter().try_for_each(|change| self.durable.apply(change))?;
        self.log.extend(changes);
        Ok(())
    }

    /// The log lacks its last changes, from the `n`th on.
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

    /// The kernel as a look shows it that begins now.
    pub(super) fn sighting(&self, now: Timestamp) -> Sighting {
        let seen = |key: &AttachmentKey| SeenLink { name: key.to_string(), mark: Some(key.mark()) };
        let has_link = |key: &AttachmentKey| self.links.values().any(|owner| *owner == named(key));
        // Of what is known by its link alone, that was all there is.
        let is_gone = |key: &AttachmentKey| {
            key.is_nameless() || self.pods.get(key).is_none_or(|pod| pod.ended)
        };
        let assigned = self.durable.assignments().keys();
        let vanished = assigned.filter(|key| !has_link(key) && is_gone(key));
        Sighting {
            begun: self.time(now),
            links: self.links.iter().map(|(address, key)| (*address, seen(key))).collect(),
            vanished: vanished.cloned().collect(),
            listed: None,
        }
    }

    /// The addresses of pods that run here.
    pub(super) fn live_links(&self) -> impl Iterator<Item = (&IpAddr, &AttachmentKey)> {
        let lives = |key: &AttachmentKey| self.pods.get(key).is_some_and(|pod| !pod.ended);
        self.links.iter().filter(move |(_, key)| lives(key))
    }

    /// StepAction is durable of an attachment, be it that its link alone is known.
    pub(super) fn on_record(&self, key: &AttachmentKey) -> Option<&Assignment> {
        let assignments = self.durable.assignments();
        assignments.get(key).or_else(|| assignments.get(&key.nameless()))
    }

    pub(super) fn is_adding(&self, key: &AttachmentKey) -> bool {
        let adds = |open: &OpenRequest| matches!(open, OpenRequest::Add { key: other, .. } if other == key);
        self.open.values().any(adds)
    }
}

/// As the runtime knows an attachment of which the record may know the link alone.
pub(super) fn named(key: &AttachmentKey) -> AttachmentKey {
    AttachmentKey { network: NETWORK.to_owned(), ..key.clone() }
}

pub(super) fn pod_facts(key: &AttachmentKey) -> PodFacts {
    PodFacts { name: key.container.clone(), ..PodFacts::default() }
}

/// As the agent starts its clock later than all that the record knows.
fn after(record: &Record) -> Timestamp {
    let given = record.assignments().values().map(|held| held.since);
    let newest = record.cooling().values().copied().chain(given).max();
    newest.unwrap_or_default() + Duration::from_millis(1)
}

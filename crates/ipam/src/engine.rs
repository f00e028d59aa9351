//! The engine: the only thing that changes the pool, by events, and says what is to be done.
//!
//! Each event is first taken in by its own part (`requests`, `calls`, `inventory`), then everything
//! that follows from the new state is worked out in one fixed order by `settle`. So the same events
//! at the same times lead to the same effects, and nothing waits for a poll.

mod calls;
mod doubt;
mod growth;
mod hands;
mod hint;
mod inventory;
mod leaks;
mod lifecycle;
mod listing;
mod picture;
mod recollection;
mod refusal;
mod requests;
mod saves;
mod surplus;
mod witness;

use std::collections::{BTreeMap, BTreeSet};

use self::calls::InFlight;
use self::hint::Hints;
use self::inventory::Look;
use self::listing::Listing;
use self::recollection::Recollection;
use self::refusal::Outlook;
use self::requests::Requests;
use self::saves::{Saves, Then};
use self::surplus::{ENIS_STAY_LONGER, Ripening};
use crate::block::Block;
use crate::bucket::Buckets;
use crate::call::{CallId, Ec2Call};
use crate::event::{Effect, Event, HostEni, Refusal};
use crate::id::{AttachmentKey, EniId, SecurityGroupId, SubnetId};
use crate::jitter::Jitter;
use crate::plan::Plan;
use crate::policy::{Limits, Node, Policy};
use crate::pool::Pool;
use crate::record::{Assignment, Change, Record};
use crate::retry::Retries;
use crate::subnets::Subnets;
use crate::time::Timestamp;
use crate::view::{ForeignReason, PoolView};

/// What an engine starts from.
#[derive(Debug, Clone, PartialEq)]
pub struct Boot {
    /// Who and where.
    pub node: Node,
    /// What EC2 allows.
    pub limits: Limits,
    /// What the user wants.
    pub policy: Policy,
    /// What earlier runs left; empty on a new node.
    pub record: Record,
}

/// Decides which pod gets which address and what to ask of EC2.
#[derive(Debug, Clone)]
pub struct Engine {
    node: Node,
    limits: Limits,
    policy: Policy,
    /// What is durable.
    record: Record,
    /// Attachments that the kernel does not know any more, and since when.
    vanished: BTreeMap<AttachmentKey, Timestamp>,
    /// What the container runtime says.
    listing: Listing,
    /// What EC2 has said is here.
    pool: Pool,
    foreign: BTreeMap<EniId, Foreign>,
    /// What EC2 has shown on the ENIs of this instance, whoever's, and no pod gets.
    left_alone: BTreeMap<EniId, BTreeSet<Block>>,
    subnets: Subnets,
    /// What new ENIs take after; `None` until EC2 has shown the primary ENI.
    home: Option<Home>,
    requests: Requests,
    calls: BTreeMap<CallId, InFlight>,
    /// The calls of whose outcome one reading has told, and when: EC2 may not have described it yet, so
    /// they stay on record until another bears it out.
    told_once: BTreeMap<CallId, (Option<EniId>, Timestamp)>,
    next_call: u64,
    saves: Saves,
    jitter: Jitter,
    retries: Retries,
    buckets: Buckets,
    enis_look: Look,
    subnets_look: Look,
    /// The ENIs of which EC2 may show late what calls have brought, of unknown outcome or of a run before;
    /// and since when.
    changed_late: BTreeMap<EniId, Timestamp>,
    /// The ENIs of this instance that EC2 has shown unattached and nobody wants, and since when.
    left_behind: BTreeMap<EniId, Timestamp>,
    /// What the metadata service tells otherwise.
    hints: Hints,
    leaks_look: Look,
    /// The cluster's ENIs that the last search found attached nowhere, and since which one.
    unattached: BTreeMap<EniId, Timestamp>,
    recollection: Recollection,
    learnt: Learnt,
    /// What the host's network was last told.
    host: Vec<HostEni>,
    /// Whether its answer to that is still to come.
    host_asked: bool,
    /// When an ENI was last given back because its device had not come.
    replaced_at: Option<Timestamp>,
    /// Since when the pool wants to grow.
    small_since: Option<Timestamp>,
    surplus_enis: Ripening,
    surplus_blocks: Ripening,
    plan: Plan,
    wake_at: Option<Timestamp>,
    out: Vec<Effect>,
}

/// What refusals have taught of this instance. Forgotten after a day, since it may change.
#[derive(Debug, Clone)]
struct Learnt {
    since: Timestamp,
    /// ENIs that it takes, foreign ones included.
    enis: u16,
    /// Blocks that a new ENI may carry for EC2 to attach it; more can be put on it later.
    create_at_most: u16,
    /// Device indexes that are taken, though not by an ENI that we know.
    taken_indexes: BTreeSet<u16>,
}

impl Learnt {
    fn nothing(now: Timestamp) -> Self {
        let taken_indexes = BTreeSet::new();
        Self { since: now, enis: u16::MAX, create_at_most: u16::MAX, taken_indexes }
    }
}

/// What the primary ENI has and new ENIs get, by EC2's word.
#[derive(Debug, Clone)]
struct Home {
    subnet: SubnetId,
    security_groups: BTreeSet<SecurityGroupId>,
}

/// An ENI on this instance that is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Foreign {
    why: ForeignReason,
    /// Its place, if it is on the card that ours are on.
    device_index: Option<u16>,
}

impl Engine {
    /// Starts with what is on record, and asks EC2 for the rest.
    #[must_use]
    pub fn new(boot: Boot, now: Timestamp) -> (Engine, Vec<Effect>) {
        let Boot { node, limits, policy, record } = boot;
        let jitter = Jitter::new(node.instance.as_str());
        let mut engine = Self {
            pool: Pool::new(policy.cooldown),
            foreign: BTreeMap::new(),
            left_alone: BTreeMap::new(),
            subnets: Subnets::default(),
            home: None,
            requests: Requests::default(),
            vanished: BTreeMap::new(),
            listing: Listing::default(),
            calls: calls::left_open(&record, now),
            told_once: BTreeMap::new(),
            next_call: record.next_call().0,
            saves: Saves::default(),
            jitter,
            retries: Retries::new(jitter),
            buckets: Buckets::new(jitter),
            enis_look: Look::due(Ec2Call::DescribeEnis, now),
            subnets_look: Look::due(Ec2Call::DescribeSubnets, now),
            changed_late: BTreeMap::new(),
            left_behind: BTreeMap::new(),
            hints: Hints::default(),
            leaks_look: leaks::first_look(&node, &policy, jitter, now),
            unattached: BTreeMap::new(),
            recollection: Recollection::new(&record, &node.boot, now),
            learnt: Learnt::nothing(now),
            host: Vec::new(),
            host_asked: false,
            replaced_at: None,
            small_since: None,
            surplus_enis: Ripening::new(policy.shrink_delay * ENIS_STAY_LONGER),
            surplus_blocks: Ripening::new(policy.shrink_delay),
            plan: Plan::default(),
            wake_at: None,
            out: Vec::new(),
            node,
            limits,
            policy,
            record,
        };
        let effects = engine.settle(now);
        (engine, effects)
    }

    /// Takes an event in and returns what follows from it. `now` never goes back.
    pub fn handle(&mut self, event: Event, now: Timestamp) -> Vec<Effect> {
        match event {
            Event::Add { request, key, pod, netns, deadline } => {
                self.add(request, self.known_as(key), pod, netns, deadline, now);
            }
            Event::Cancel { request } => self.cancel(request),
            Event::Del { request, key } => self.del(request, self.known_as(key), now),
            Event::Gc { request, network, valid } => self.gc(request, &network, &valid, now),
            Event::CallDone { id, result } => self.call_done(id, result, now),
            Event::EniLink { eni, link } => self.eni_link(&eni, link, now),
            Event::Seen(sighting) => self.seen(&sighting, now),
            Event::Hint(shown) => self.hint(&shown, now),
            Event::Saved { seq, result } => self.saved(seq, result, now),
            Event::Tick => {}
        }
        self.settle(now)
    }

    /// When to send a [`Event::Tick`], if nothing else happens before. `None`, or a day ahead, for
    /// a pool at rest.
    #[must_use]
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.wake_at
    }

    /// The pool for people, metrics and `ipamd status`. Cost: one pass over all blocks.
    #[must_use]
    pub fn view(&self, now: Timestamp) -> PoolView {
        self.picture(now)
    }

    /// Whether pods can be served here: EC2 has said what is here, and addresses of it are usable.
    /// A node on which all of them are in use stays ready.
    ///
    /// # Errors
    ///
    /// What an Add would be refused with.
    pub fn ready(&self, now: Timestamp) -> Result<(), Refusal> {
        let usable = self.pool.enis.values().any(|eni| eni.offers() && !eni.blocks.is_empty());
        if usable && self.record_hold(now).is_none() {
            Ok(())
        } else {
            Err(self.refusal(Outlook::Bleak, now))
        }
    }

    /// What `key` holds: nothing as soon as that is being released.
    #[must_use]
    pub fn held_by(&self, key: AttachmentKey) -> Option<&Assignment> {
        let key = self.known_as(key);
        self.record.assignments().get(&key).filter(|_| !self.requests.is_releasing(&key))
    }

    /// What is durable, for a snapshot.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Works out everything that follows from the present state.
    fn settle(&mut self, now: Timestamp) -> Vec<Effect> {
        self.drop_late_grants(now);
        self.adopt(now);
        self.serve(now);
        self.look(now);
        self.recall(now);
        self.replace_absent(now);
        self.advance_enis(now);
        self.grow(now);
        self.repeat_creates(now);
        self.dismiss(now);
        self.sync_host(now);
        self.emit_save(now);
        self.wake_at = self.next_wake(now);
        std::mem::take(&mut self.out)
    }

    /// Puts a call on record; it is made when that is durable.
    fn start(&mut self, call: Ec2Call, now: Timestamp) {
        self.buckets.take(call.action(), now);
        let id = CallId(self.next_call);
        self.next_call += 1;
        self.saves.note(Change::Intended { id, call: call.clone() });
        self.saves.then(Then::Make(id));
        self.calls.insert(id, InFlight::intended(call));
    }
}

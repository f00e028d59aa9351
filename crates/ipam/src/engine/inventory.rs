//! EC2's answers about this instance, and how far they count against what this process knows.
//!
//! Each describe goes through [`StockTake`], which makes the pool match EC2's answer.

mod confirm;
mod foreign_blocks;
mod hint;
mod stock_take;
mod warm_start;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

pub(super) use self::foreign_blocks::foreign_block_phrases;
use self::hint::Hints;
pub(super) use self::stock_take::{Judgements, Polled, StockTake, not_an_answer};
use self::warm_start::WarmStart;
use super::calls::{Calls, Pressure};
use super::context::{Context, NewEnis};
use super::poll::{LAG, Poll};
use crate::block::Block;
use crate::call::{Ec2Call, EniFacts};
use crate::connection_tracking::ConnectionTracking;
use crate::eni::Eni;
use crate::event::Effect;
use crate::id::{EniId, SecurityGroupId, SubnetId};
use crate::place::Place;
use crate::pool::Pool;
use crate::reason::Reason;
use crate::record::{Change, Record};
use crate::streak::Streaks;
use crate::subnets::Subnets;
use crate::time::Timestamp;
use crate::view::{Changes, ForeignReason};

/// How often EC2 is described although nothing gives cause. Up to a quarter is added, by instance.
pub(super) const AUDIT: Duration = Duration::from_secs(20 * 60 * 60);

/// How often EC2 is described while nothing may be changed there and pods lack addresses, and how often the metadata service
/// is read in place of EC2. Somebody else may have attached or assigned more.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(60);

/// How old EC2's description of the primary ENI and of the subnets may be when an ENI is created by it.
const FRESH: Duration = Duration::from_secs(5 * 60);

/// How old the descriptions of ENIs and subnets may be when an ENI gets more addresses. A tag may have excluded it since.
/// At 5,000 nodes that all grow, an hour costs EC2 three calls a second.
const STALE: Duration = Duration::from_secs(60 * 60);

/// What the primary ENI has and new ENIs get, as EC2 described it last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PrimaryTemplate {
    pub(super) subnet: SubnetId,
    pub(super) security_groups: BTreeSet<SecurityGroupId>,
    pub(super) connection_tracking: ConnectionTracking,
    /// When the describe began that first showed these groups. Every later one has shown them too.
    groups_since: Timestamp,
    address: IpAddr,
}

/// An ENI on this instance that is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Foreign {
    pub(super) why: ForeignReason,
    /// The place that it takes, on any card.
    pub(super) place: Option<Place>,
}

/// What EC2 and the metadata service have shown, except for the pool itself.
#[derive(Debug, Clone)]
pub(super) struct Inventory {
    pub(super) enis_poll: Poll,
    pub(super) subnets_poll: Poll,
    pub(super) subnets: Subnets,
    /// `None` until EC2 has described the primary ENI.
    pub(super) primary_template: Option<PrimaryTemplate>,
    foreign: BTreeMap<EniId, Foreign>,
    /// The blocks that EC2 describes on this instance's ENIs, ours or not, and that serve no pod.
    unused_blocks: BTreeMap<EniId, BTreeSet<Block>>,
    /// The ENIs on which blocks of our calls may appear late, and since when. The calls had an unknown outcome
    /// or were an earlier run's.
    changed_late: Streaks<EniId>,
    /// The ENIs of this instance that EC2 has described as unattached and that nobody needs.
    unwanted: Streaks<EniId>,
    hints: Hints,
    warm_start: WarmStart,
}

impl Inventory {
    pub(super) fn new(record: &Record, cx: Context<'_>) -> Self {
        Self {
            enis_poll: Poll::due(Ec2Call::DescribeEnis, cx.now, Reason::Start),
            subnets_poll: Poll::due(Ec2Call::DescribeSubnets, cx.now, Reason::Start),
            subnets: Subnets::default(),
            primary_template: None,
            foreign: BTreeMap::new(),
            unused_blocks: BTreeMap::new(),
            changed_late: Streaks::default(),
            unwanted: Streaks::default(),
            hints: Hints::default(),
            warm_start: WarmStart::new(record, &cx.node.boot, cx.now),
        }
    }

    /// Whether EC2 has described our ENIs since the start.
    pub(super) fn is_known(&self) -> bool {
        self.enis_poll.is_known()
    }

    /// The poll whose answer everything waits for. Once a describe of the subnets has failed, all goes on that
    /// can do without.
    pub(super) fn awaited_poll(&self) -> Option<&Poll> {
        let enis = Some(&self.enis_poll).filter(|poll| !poll.is_known());
        let subnets = &self.subnets_poll;
        enis.or_else(|| (!subnets.is_known() && !subnets.only_fails()).then_some(subnets))
    }

    pub(super) fn foreign(&self) -> &BTreeMap<EniId, Foreign> {
        &self.foreign
    }

    /// Foreign ENIs on our network card.
    pub(super) fn n_foreign(&self) -> u16 {
        let places = self.foreign.values().filter_map(|eni| eni.place);
        let here = places.filter(|place| place.is_on_our_card());
        u16::try_from(here.count()).unwrap_or(u16::MAX)
    }

    /// The blocks on our own ENIs that serve no pod.
    pub(super) fn unused_blocks_of_ours(&self, pool: &Pool) -> BTreeSet<Block> {
        let ours = self.unused_blocks.iter().filter(|(eni, _)| pool.enis.contains_key(*eni));
        let foreign = pool.enis.values().flat_map(|eni| &eni.foreign_blocks);
        ours.flat_map(|(_, blocks)| blocks).chain(foreign).copied().collect()
    }

    /// The ENI on which EC2 describes `address` in a block that serves no pod.
    pub(super) fn unused_on(&self, address: std::net::IpAddr) -> Option<&EniId> {
        let holds = |blocks: &BTreeSet<Block>| blocks.iter().any(|block| block.contains(address));
        self.unused_blocks.iter().find(|(_, blocks)| holds(blocks)).map(|(eni, _)| eni)
    }

    /// The range of the ENI's subnet. Without it neither the ENI nor the blocks of an Assign can be recorded.
    pub(super) fn subnet_cidr_of(&self, eni: &Eni, record: &Record) -> Option<IpNet> {
        let noted = || self.warm_start.noted(&eni.id).map(|known| known.subnet_cidr);
        self.subnets
            .cidr(&eni.subnet)
            .or_else(noted)
            .or_else(|| range_on_record(&eni.subnet, record))
    }

    /// Whether describes of the subnets have only failed, and nothing else shows the range of `subnet`. Then an
    /// ENI in it cannot be recorded or set up on the host.
    pub(super) fn lacks_range(&self, subnet: &SubnetId, record: &Record) -> bool {
        self.subnets_poll.only_fails()
            && self.subnets.cidr(subnet).is_none()
            && range_on_record(subnet, record).is_none()
    }

    /// Whether the record stands in for EC2's answer since the start.
    pub(super) fn is_warm_started(&self) -> bool {
        self.warm_start.is_used()
    }

    /// The changes that the record has yet to learn of the ENIs. None before EC2's first answer: until
    /// then the record knows more.
    pub(super) fn news_of_enis(
        &mut self,
        pool: &Pool,
        record: &Record,
        cx: Context<'_>,
    ) -> Vec<Change> {
        if !self.is_known() {
            return Vec::new();
        }
        let unnoted = |eni: &Eni| self.warm_start.unnoted(eni, self.subnet_cidr_of(eni, record)?);
        let news: Vec<_> = pool.enis.values().filter_map(unnoted).collect();
        self.warm_start.note(news, pool, &cx.node.boot)
    }

    /// The subnets for new ENIs, the preferred one first. None until EC2 has described the primary ENI.
    pub(super) fn subnets_for_new_enis(&self, cx: Context<'_>) -> Vec<SubnetId> {
        let Some(primary) = &self.primary_template else { return Vec::new() };
        match cx.new_enis() {
            NewEnis::LikePrimary => self.subnets.for_new_enis(&primary.subnet, cx.node),
            NewEnis::PrimarySubnet => vec![primary.subnet.clone()],
            NewEnis::By(config) => self.subnets.chosen_by(config, &primary.subnet),
            NewEnis::Nowhere => Vec::new(),
        }
    }

    /// The subnet that a pod without an address is told about: the primary ENI's, if it carries pods.
    pub(super) fn subnet_of_pods(&self, cx: Context<'_>) -> Option<SubnetId> {
        match cx.new_enis() {
            NewEnis::LikePrimary | NewEnis::PrimarySubnet => {
                self.primary_template.as_ref().map(|it| it.subnet.clone())
            }
            NewEnis::By(_) | NewEnis::Nowhere => self.subnets_for_new_enis(cx).into_iter().next(),
        }
    }

    /// The security groups that a new ENI gets; `None` until EC2 has described the primary ENI's. Without any, EC2
    /// takes the VPC's default group.
    pub(super) fn groups_of_new<'a>(
        &'a self,
        cx: Context<'a>,
    ) -> Option<&'a BTreeSet<SecurityGroupId>> {
        let primary = self.primary_template.as_ref()?;
        Some(chosen_groups(cx).unwrap_or(&primary.security_groups))
    }

    /// How long a new ENI remembers idle connections: as long as the policy says, or else as the primary ENI, since pods
    /// move from one to the other.
    pub(super) fn tracking_of_new(&self, cx: Context<'_>) -> Option<ConnectionTracking> {
        let primary = self.primary_template.as_ref()?;
        Some(cx.policy.connection_tracking.or(primary.connection_tracking))
    }

    /// The security groups that our ENIs take over from the primary ENI; `None` while they are unknown, or while
    /// an ENIConfig chooses others or may do so.
    pub(super) fn groups_to_follow(&self, cx: Context<'_>) -> Option<&BTreeSet<SecurityGroupId>> {
        let follows = cx.new_enis() != NewEnis::Nowhere && chosen_groups(cx).is_none();
        let primary = self.primary_template.as_ref().filter(|_| follows)?;
        Some(&primary.security_groups).filter(|groups| !groups.is_empty())
    }

    /// Whether ENIs may be changed by what the primary ENI has. Two describes, [`LAG`] apart, must agree on its
    /// security groups: one alone may show the state before a change. The last must not be older than [`FRESH`],
    /// since a user may have taken the ENIs from us. Otherwise asks for the describe that is missing.
    pub(super) fn primary_is_sure(&mut self, now: Timestamp) -> bool {
        let Some(primary) = &self.primary_template else { return false };
        let (poll, sure_from) = (&mut self.enis_poll, primary.groups_since + LAG);
        let is_confirmed = poll.is_answered_since(sure_from);
        let is_old = poll.is_older_than(FRESH, now);
        if !poll.is_under_way() {
            if !is_confirmed {
                poll.ask_from(sure_from, Reason::Confirm);
            } else if is_old {
                poll.ask(now, Reason::Outdated);
            }
        }
        is_confirmed && !is_old && poll.is_certain()
    }

    /// Starts the describes that are due and may be made.
    pub(super) fn poll(
        &mut self,
        calls: &mut Calls,
        pressure: Pressure,
        cx: Context<'_>,
        out: &mut Vec<Effect>,
    ) {
        for poll in [&mut self.subnets_poll, &mut self.enis_poll] {
            start_poll(poll, calls, pressure, cx, out);
        }
    }

    /// Asks for the describes that the creation of an ENI needs, since security groups and tags may have
    /// changed. Returns whether it must wait for them. It goes on without them while they cannot be made.
    pub(super) fn refresh_for_create(
        &mut self,
        calls: &Calls,
        pressure: Pressure,
        now: Timestamp,
    ) -> bool {
        let mut waits = false;
        for poll in [&mut self.subnets_poll, &mut self.enis_poll] {
            if !poll.is_older_than(FRESH, now) {
                continue;
            }
            if poll.is_under_way() {
                waits = true;
            } else if calls.hold(poll.call.action(), pressure, now).is_none() {
                poll.ask(now, Reason::Outdated);
                waits = true;
            }
        }
        waits
    }

    /// Asks for describes if the last are old, since the node takes addresses of a subnet. The call for them does not
    /// wait: a tag that excludes the ENI takes effect after it.
    pub(super) fn refresh_for_assign(&mut self, calls: &Calls, pressure: Pressure, now: Timestamp) {
        for poll in [&mut self.subnets_poll, &mut self.enis_poll] {
            let may_ask = poll.is_known() && !poll.is_under_way();
            if may_ask
                && poll.is_older_than(STALE, now)
                && calls.hold(poll.call.action(), pressure, now).is_none()
            {
                poll.ask(now, Reason::Outdated);
            }
        }
    }

    /// Asks for a describe, since pods lack addresses that only somebody else can bring. Not more often than
    /// [`LOOK_EVERY`].
    pub(super) fn look_for_more(&mut self, calls: &Calls, pressure: Pressure, now: Timestamp) {
        let poll = &mut self.enis_poll;
        let is_due = self::next_look(poll).is_some_and(|at| at <= now) && !poll.is_under_way();
        if is_due && calls.hold(poll.call.action(), pressure, now).is_none() {
            poll.ask(now, Reason::LookForMore);
        }
    }

    /// When [`look_for_more`](Self::look_for_more) may ask next; `None` before EC2's first answer.
    pub(super) fn next_look(&self) -> Option<Timestamp> {
        next_look(&self.enis_poll)
    }

    /// When something follows from time alone.
    pub(super) fn wakes(&self) -> impl Iterator<Item = Timestamp> {
        let wakes =
            [self.warm_start.due(), self.enis_poll.wakes_at(), self.subnets_poll.wakes_at()];
        wakes.into_iter().flatten()
    }
}

/// The security groups that the ENIConfig chooses in place of the primary ENI's.
fn chosen_groups(cx: Context<'_>) -> Option<&BTreeSet<SecurityGroupId>> {
    match cx.new_enis() {
        NewEnis::By(config) if !config.groups.is_empty() => Some(&config.groups),
        NewEnis::LikePrimary | NewEnis::PrimarySubnet | NewEnis::By(_) | NewEnis::Nowhere => None,
    }
}

/// The subnet's range on record, of this boot or another: a subnet's range never changes.
fn range_on_record(subnet: &SubnetId, record: &Record) -> Option<IpNet> {
    record.enis().values().find(|known| known.facts.subnet == *subnet).map(|it| it.subnet_cidr)
}

/// Starts a describe if it is due and may be made.
pub(super) fn start_poll(
    poll: &mut Poll,
    calls: &mut Calls,
    pressure: Pressure,
    cx: Context<'_>,
    out: &mut Vec<Effect>,
) {
    let (action, now) = (poll.call.action(), cx.now);
    let is_due = poll.wakes_at().is_some_and(|at| at <= now);
    if is_due && calls.hold(action, pressure, now).is_none() {
        let id = calls.number(action, now);
        let (call, why) = (poll.call.clone(), poll.start(id, now));
        out.push(match cx.changes() {
            Changes::ByTargets | Changes::Cordoned | Changes::Off => Effect::Call { id, call, why },
            Changes::ImdsOnly => Effect::ReadMetadata { id, call },
        });
    }
}

fn next_look(poll: &Poll) -> Option<Timestamp> {
    poll.answered().map(|at| at + LOOK_EVERY)
}

/// When the next describe comes although nothing gives cause.
fn next_audit(cx: Context<'_>) -> Timestamp {
    match cx.changes() {
        Changes::ByTargets | Changes::Cordoned | Changes::Off => {
            cx.now + cx.jitter.lengthened(AUDIT, 0)
        }
        Changes::ImdsOnly => cx.now + LOOK_EVERY,
    }
}

/// The ENI without the blocks that serve no pod: blocks of a family that pods do not have, and blocks of a family
/// that this ENI does not carry.
fn serving(facts: &EniFacts, cx: Context<'_>) -> EniFacts {
    let (mut facts, families) = (facts.clone(), cx.families());
    let is_primary = facts.is_primary(cx.node.primary_mac);
    facts.blocks.retain(|block| families.serve(*block, is_primary));
    facts
}

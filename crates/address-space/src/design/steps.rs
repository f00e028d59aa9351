//! What makes a plan real: a list of steps in order, what marks each as done, and what follows a call that fails.
//!
//! It must not know how a step is carried out, by the AWS CLI or by a client of EC2.

use ipam::call::{CallError, CallErrorKind};
use ipnet::{IpNet, Ipv4Net};

use super::{Design, LaidPool};
use crate::inventory::{Inventory, Pool, ReservationKind, Subnet, Tags, Vpc};
use crate::span::Span;
use crate::subnet::v4;

/// The tag by which a VPC or subnet of a plan is found again. It is put on by the call that makes it. Its value is the
/// step's subject.
pub const PLAN_TAG: &str = "tidepool/plan";

/// A scope of Amazon VPC IPAM to make pools in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Its id: `ipam-scope-0123456789abcdef0`.
    pub id: String,
    /// The home Region of its IPAM.
    pub region: String,
}
/// One thing to make, by one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What the plan calls it: `pool`, `pool/vpc`, `pool/vpc/subnet`, and for a reservation and the range of a pool that
    /// range behind it.
    pub subject: String,
    /// The Region to make it in.
    pub region: String,
    /// The tags to make it with. Empty for a reservation and the range of a pool, which the range marks.
    pub tags: Tags,
    /// What to make. It names a step before this one.
    pub make: Make<usize>,
}

/// What a step makes, inside of a `P`: a step that comes before, or its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Make<P> {
    /// A pool of Amazon VPC IPAM.
    Pool {
        /// The scope to make it in.
        scope: String,
        /// The Region that it serves.
        locale: String,
    },
    /// A range of a pool. Once it is there, its id is the pool's: who draws from the pool needs both.
    PoolRange {
        /// Its pool.
        pool: P,
        /// The range.
        cidr: Ipv4Net,
    },
    /// A VPC.
    Vpc {
        /// The range of the pool that it draws from.
        pool: Option<P>,
        /// Its range.
        cidr: Ipv4Net,
    },
    /// A subnet.
    Subnet {
        /// Its VPC.
        vpc: P,
        /// Its zone.
        zone: String,
        /// Its range.
        cidr: Ipv4Net,
    },
    /// A CIDR reservation of kind `prefix`.
    Reservation {
        /// Its subnet.
        subnet: P,
        /// Its range.
        cidr: Ipv4Net,
    },
}

impl<P> Make<P> {
    /// The same with what `found` gives for the step before; `None` if it gives nothing.
    pub fn inside_of<Q>(&self, found: impl FnOnce(&P) -> Option<Q>) -> Option<Make<Q>> {
        Some(match self {
            Self::Pool { scope, locale } => {
                Make::Pool { scope: scope.clone(), locale: locale.clone() }
            }
            Self::PoolRange { pool, cidr } => Make::PoolRange { pool: found(pool)?, cidr: *cidr },
            Self::Vpc { pool: None, cidr } => Make::Vpc { pool: None, cidr: *cidr },
            Self::Vpc { pool: Some(pool), cidr } => {
                Make::Vpc { pool: Some(found(pool)?), cidr: *cidr }
            }
            Self::Subnet { vpc, zone, cidr } => {
                Make::Subnet { vpc: found(vpc)?, zone: zone.clone(), cidr: *cidr }
            }
            Self::Reservation { subnet, cidr } => {
                Make::Reservation { subnet: found(subnet)?, cidr: *cidr }
            }
        })
    }

    /// The operation of EC2.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        match self {
            Self::Pool { .. } => "CreateIpamPool",
            Self::PoolRange { .. } => "ProvisionIpamPoolCidr",
            Self::Vpc { .. } => "CreateVpc",
            Self::Subnet { .. } => "CreateSubnet",
            Self::Reservation { .. } => "CreateSubnetCidrReservation",
        }
    }

    /// The read of EC2 that shows whether it is there.
    #[must_use]
    pub fn read(&self) -> &'static str {
        match self {
            Self::Pool { .. } => "DescribeIpamPools",
            Self::PoolRange { .. } => "GetIpamPoolCidrs",
            Self::Vpc { .. } => "DescribeVpcs",
            Self::Subnet { .. } => "DescribeSubnets",
            Self::Reservation { .. } => "GetSubnetCidrReservations",
        }
    }

    /// Whether it is there only some time after EC2 has answered.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        match self {
            Self::PoolRange { .. } => true,
            // A call that needs one of these too early is refused, and repeated.
            Self::Pool { .. }
            | Self::Vpc { .. }
            | Self::Subnet { .. }
            | Self::Reservation { .. } => false,
        }
    }

    /// What it is, for people: `VPC 10.0.0.0/16`.
    #[must_use]
    pub fn what(&self) -> String {
        match self {
            Self::Pool { scope, locale } => format!("pool for {locale} in {scope}"),
            Self::PoolRange { cidr, .. } => format!("range {cidr} of the pool"),
            Self::Vpc { cidr, .. } => format!("VPC {cidr}"),
            Self::Subnet { zone, cidr, .. } => format!("subnet {cidr} in {zone}"),
            Self::Reservation { cidr, .. } => format!("reservation of {cidr} for prefixes"),
        }
    }
}

/// All steps of a plan. A step comes after the one that it is inside of. With a scope of Amazon VPC IPAM, pools become
/// pools there, from which the VPCs draw.
#[must_use]
pub fn steps(design: &Design, scope: Option<&Scope>) -> Vec<Step> {
    let mut steps = vec![];
    for pool in &design.pools {
        let drawn = scope.map(|scope| pool_steps(&mut steps, pool, scope));
        let mut add = |subject: String, tags: Tags, make| {
            steps.push(Step { subject, region: pool.region.clone(), tags, make });
            steps.len() - 1
        };
        for laid in &pool.vpcs {
            let subject = subject(pool, &laid.name);
            let own = tags(pool, &laid.name, &subject);
            let vpc = add(subject.clone(), own, Make::Vpc { pool: drawn, cidr: laid.cidr });
            for laid in &laid.subnets {
                let subject = format!("{subject}/{}", laid.name);
                let own = tags(pool, &laid.name, &subject);
                let (zone, cidr) = (laid.zone.clone(), laid.cidr);
                let subnet = add(subject.clone(), own, Make::Subnet { vpc, zone, cidr });
                for cidr in &laid.for_prefixes {
                    let own = Make::Reservation { subnet, cidr: *cidr };
                    add(format!("{subject} {cidr}"), Tags::new(), own);
                }
            }
        }
    }
    steps
}

/// Adds the steps of a pool, and gives the one of its range.
fn pool_steps(steps: &mut Vec<Step>, pool: &LaidPool, scope: &Scope) -> usize {
    let mut add = |subject: String, tags, make| {
        steps.push(Step { subject, region: scope.region.clone(), tags, make });
        steps.len() - 1
    };
    let own = Make::Pool { scope: scope.id.clone(), locale: pool.region.clone() };
    let id = add(pool.name.clone(), tags(pool, &pool.name, &pool.name), own);
    let range = Make::PoolRange { pool: id, cidr: pool.cidr };
    add(format!("{} {}", pool.name, pool.cidr), Tags::new(), range)
}

/// `pool/vpc`.
pub(super) fn subject(pool: &LaidPool, vpc: &str) -> String {
    format!("{}/{vpc}", pool.name)
}

/// The tags of a VPC or subnet of the plan.
pub(super) fn tags(pool: &LaidPool, name: &str, subject: &str) -> Tags {
    let own = [("Name", name), ("pool", &pool.name), (PLAN_TAG, subject)];
    let own = own.map(|(key, value)| (key.to_owned(), value.to_owned()));
    own.into_iter().chain(pool.tags.iter().cloned()).collect()
}

/// Whether something with these tags is the plan's `subject`: by its own tag, or by its name if it has none.
pub(super) fn is_it(tags: &Tags, subject: &str) -> bool {
    let name = subject.rsplit('/').next();
    match tags.get(PLAN_TAG) {
        Some(tagged) => tagged == subject,
        None => tags.get("Name").map(String::as_str) == name,
    }
}

/// How far a step is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// It is there: its id, or the range of a reservation.
    Done(String),
    /// Nothing is there.
    Missing,
    /// Something else is there, which would have to be changed or deleted first.
    Blocked(String),
}

/// How far each step is, in their order.
#[must_use]
pub fn marks(steps: &[Step], inventory: &Inventory) -> Vec<Mark> {
    let mut marks: Vec<Mark> = Vec::with_capacity(steps.len());
    for step in steps {
        let mark = match &step.make {
            Make::Pool { scope, locale } => pool_mark(step, scope, locale, inventory),
            Make::PoolRange { pool, cidr } => inside(&marks[*pool], |pool| {
                let own = inventory.pools.iter().find(|one| one.id == pool);
                own.map_or(Mark::Missing, |own| range_mark(*cidr, own))
            }),
            Make::Vpc { pool, cidr } => match (vpc_mark(step, *cidr, inventory), pool) {
                (Mark::Missing, Some(pool)) => inside(&marks[*pool], |_| Mark::Missing),
                (mark, _) => mark,
            },
            Make::Subnet { vpc, zone, cidr } => {
                inside(&marks[*vpc], |vpc| subnet_mark(step, vpc, zone, *cidr, inventory))
            }
            Make::Reservation { subnet, cidr } => inside(&marks[*subnet], |subnet| {
                let all = &inventory.subnets;
                let own = all.iter().find(|one| one.id.as_str() == subnet);
                own.map_or(Mark::Missing, |own| reservation_mark(*cidr, own))
            }),
        };
        marks.push(mark);
    }
    marks
}

fn inside(outer: &Mark, mark: impl FnOnce(&str) -> Mark) -> Mark {
    match outer {
        Mark::Done(id) => mark(id),
        Mark::Missing => Mark::Missing,
        Mark::Blocked(_) => Mark::Blocked("what it belongs to is not as planned".to_owned()),
    }
}

fn pool_mark(step: &Step, scope: &str, locale: &str, inventory: &Inventory) -> Mark {
    let own = |pool: &&Pool| pool.scope == scope && is_it(&pool.tags, &step.subject);
    let found: Vec<_> = inventory.pools.iter().filter(own).collect();
    match &found[..] {
        [] => Mark::Missing,
        [one] if one.locale.as_deref() == Some(locale) => Mark::Done(one.id.clone()),
        [one] => Mark::Blocked(format!("{} is not for {locale}", one.id)),
        [one, two, ..] => Mark::Blocked(format!("{} and {} have its name", one.id, two.id)),
    }
}

fn range_mark(cidr: Ipv4Net, pool: &Pool) -> Mark {
    let contains = |net: &IpNet| v4(*net).is_some_and(|net| net.contains(&cidr));
    let overlaps = |net: &&IpNet| v4(**net).is_some_and(|net| overlap(net, cidr));
    if pool.cidrs.iter().any(contains) {
        return Mark::Done(pool.id.clone());
    }
    match pool.cidrs.iter().find(overlaps) {
        Some(net) => Mark::Blocked(format!("{} has {net}, which overlaps {cidr}", pool.id)),
        None => Mark::Missing,
    }
}

fn vpc_mark(step: &Step, cidr: Ipv4Net, inventory: &Inventory) -> Mark {
    let own = |vpc: &&Vpc| vpc.place.region == step.region && is_it(&vpc.tags, &step.subject);
    let found = inventory.vpcs.iter().filter(own);
    let found: Vec<_> = found.map(|vpc| (vpc.id.as_str(), vpc.cidrs.clone())).collect();
    let others = inventory.vpcs.iter().map(|vpc| (vpc.id.as_str(), vpc.cidrs.clone()));
    mark(cidr, &found, &others.collect::<Vec<_>>())
}

fn subnet_mark(step: &Step, vpc: &str, zone: &str, cidr: Ipv4Net, inventory: &Inventory) -> Mark {
    let all = inventory.subnets.iter().filter(|one| one.vpc.as_str() == vpc);
    let all: Vec<_> = all.collect();
    let ranges = |one: &&Subnet| {
        (one.id.to_string(), one.cidr.map(IpNet::V4).into_iter().collect::<Vec<_>>())
    };
    let found: Vec<_> = all.iter().filter(|one| is_it(&one.tags, &step.subject)).collect();
    if let Some(one) = found.iter().find(|one| one.cidr == Some(cidr) && one.zone != zone) {
        return Mark::Blocked(format!("{} is in {} where {zone} is planned", one.id, one.zone));
    }
    let found: Vec<_> = found.into_iter().map(ranges).collect();
    let others: Vec<_> = all.iter().map(ranges).collect();
    mark(cidr, &found, &others)
}

fn reservation_mark(cidr: Ipv4Net, subnet: &Subnet) -> Mark {
    let found = subnet.reservations.iter().filter(|one| one.cidr == IpNet::V4(cidr));
    let found = found.filter(|one| one.kind == ReservationKind::Prefix);
    let ranges = |cidr: IpNet| (subnet.id.to_string(), vec![cidr]);
    let found: Vec<_> = found.map(|one| ranges(one.cidr)).collect();
    let others: Vec<_> = subnet.reservations.iter().map(|one| ranges(one.cidr)).collect();
    match mark(cidr, &found, &others) {
        Mark::Done(_) => Mark::Done(cidr.to_string()),
        other @ (Mark::Missing | Mark::Blocked(_)) => other,
    }
}

/// The mark of a range by the ranges of what is found under its name, and of all that it must not overlap.
fn mark<I: AsRef<str>>(
    cidr: Ipv4Net,
    found: &[(I, Vec<IpNet>)],
    others: &[(I, Vec<IpNet>)],
) -> Mark {
    let text =
        |ranges: &[IpNet]| ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let has_it = |(_, ranges): &&(I, Vec<IpNet>)| ranges.contains(&IpNet::V4(cidr));
    let exact: Vec<_> = found.iter().filter(has_it).map(|(id, _)| id.as_ref()).collect();
    let overlaps = |net: &IpNet| v4(*net).is_some_and(|net| overlap(net, cidr));
    let other = others.iter().find(|(_, ranges)| ranges.iter().any(overlaps));
    match (&exact[..], found.first(), other) {
        ([one], ..) => Mark::Done((*one).to_owned()),
        ([_, _, ..], ..) => {
            Mark::Blocked(format!("{} have {cidr} and its name", exact.join(" and ")))
        }
        ([], Some((id, ranges)), _) => {
            Mark::Blocked(format!("{} has {} where {cidr} is planned", id.as_ref(), text(ranges)))
        }
        ([], None, Some((id, ranges))) => {
            Mark::Blocked(format!("{} has {}, which overlaps {cidr}", id.as_ref(), text(ranges)))
        }
        ([], None, None) => Mark::Missing,
    }
}

fn overlap(one: Ipv4Net, other: Ipv4Net) -> bool {
    Span::of(one).and(Span::of(other)).len() > 0
}

/// What follows a call that has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing is made. The same call may work later.
    Repeat,
    /// It may be made. Read what is there before anything else is made.
    Look,
    /// Nothing is made, and somebody has to do something first.
    Stop,
}

/// What follows. `is_open` says whether an earlier call of the same step may have made it: then a refusal may only say
/// that it is there.
#[must_use]
pub fn after(error: &CallError, is_open: bool) -> Next {
    // EC2 answers from several places. One of them may not know the VPC or subnet yet that it has just made.
    // `IncorrectState` is a pool that is still being made.
    if matches!(
        &*error.code,
        "InvalidVpcID.NotFound"
            | "InvalidSubnetID.NotFound"
            | "InvalidIpamPoolId.NotFound"
            | "IncorrectState"
    ) {
        return Next::Repeat;
    }
    match error.kind {
        CallErrorKind::Throttled => Next::Repeat,
        CallErrorKind::OutcomeUnknown => Next::Look,
        CallErrorKind::AccessDenied | CallErrorKind::NoCredentials => Next::Stop,
        CallErrorKind::SubnetExhausted
        | CallErrorKind::SubnetFragmented
        | CallErrorKind::AddressLimit
        | CallErrorKind::EniLimit
        | CallErrorKind::DeviceIndexTaken
        | CallErrorKind::NotFound
        | CallErrorKind::InUse
        | CallErrorKind::Lasting
        | CallErrorKind::Rejected => match is_open {
            true => Next::Look,
            false => Next::Stop,
        },
    }
}

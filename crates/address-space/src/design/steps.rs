//! What makes a plan real: a list of steps in order, what marks each as done, and what follows a call that fails.
//!
//! It must not know how a step is carried out, by the AWS CLI or by a client of EC2.

use ipam::call::{CallError, CallErrorKind};
use ipnet::{IpNet, Ipv4Net};

use super::{Design, LaidPool};
use crate::inventory::{Inventory, ReservationKind, Subnet, Tags, Vpc};
use crate::span::Span;
use crate::subnet::v4;

/// The tag by which a VPC or subnet of a plan is found again. It is put on by the call that makes it. Its value is the
/// step's subject.
pub const PLAN_TAG: &str = "tidepool/plan";

/// Calls without which nobody knows what is there.
pub const NEEDED_READS: [&str; 3] =
    ["DescribeVpcs", "DescribeSubnets", "GetSubnetCidrReservations"];

/// One thing to make, by one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What the plan calls it: `pool/vpc`, `pool/vpc/subnet`, and for a reservation the range behind that.
    pub subject: String,
    /// The Region to make it in.
    pub region: String,
    /// The tags to make it with. Empty for a reservation, which its range marks.
    pub tags: Tags,
    /// What to make. It names a step before this one.
    pub make: Make<usize>,
}

/// What a step makes, inside of a `P`: a step that comes before, or its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Make<P> {
    /// A VPC.
    Vpc {
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
            Self::Vpc { cidr } => Make::Vpc { cidr: *cidr },
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
            Self::Vpc { .. } => "CreateVpc",
            Self::Subnet { .. } => "CreateSubnet",
            Self::Reservation { .. } => "CreateSubnetCidrReservation",
        }
    }

    /// What it is, for people: `VPC 10.0.0.0/16`.
    #[must_use]
    pub fn what(&self) -> String {
        match self {
            Self::Vpc { cidr } => format!("VPC {cidr}"),
            Self::Subnet { zone, cidr, .. } => format!("subnet {cidr} in {zone}"),
            Self::Reservation { cidr, .. } => format!("reservation of {cidr} for prefixes"),
        }
    }
}

/// All steps of a plan. A step comes after the one that it is inside of.
#[must_use]
pub fn steps(design: &Design) -> Vec<Step> {
    let mut steps = vec![];
    for pool in &design.pools {
        let mut add = |subject: String, tags: Tags, make| {
            steps.push(Step { subject, region: pool.region.clone(), tags, make });
            steps.len() - 1
        };
        for laid in &pool.vpcs {
            let subject = subject(pool, &laid.name);
            let own = tags(pool, &laid.name, &subject);
            let vpc = add(subject.clone(), own, Make::Vpc { cidr: laid.cidr });
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
            Make::Vpc { cidr } => vpc_mark(step, *cidr, inventory),
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
    if matches!(&*error.code, "InvalidVpcID.NotFound" | "InvalidSubnetID.NotFound") {
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

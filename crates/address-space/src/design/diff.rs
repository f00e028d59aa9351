//! A plan beside what is there: what is missing, what differs, and what is there without a plan.

use ipnet::{IpNet, Ipv4Net};
use serde::Serialize;

use super::steps::{is_it, subject};
use super::{Design, LaidSubnet};
use crate::inventory::{Inventory, Subnet, Vpc};
use crate::span::Span;
use crate::subnet::v4;

/// A difference, or that there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// How the two compare.
    pub kind: Kind,
    /// What is compared: `pool/vpc/subnet`, or the id of a VPC.
    pub subject: String,
    /// The ranges.
    pub what: String,
}

/// How a plan and reality compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A VPC that is not of the plan has addresses that the plan gives to another.
    Collides,
    /// It is there with another range.
    Differs,
    /// It is planned and not there.
    Missing,
    /// It is there, and not of the plan.
    Unplanned,
    /// It is as planned.
    Same,
}

impl Kind {
    /// As tables show it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Collides => "collides",
            Self::Differs => "differs",
            Self::Missing => "missing",
            Self::Unplanned => "unplanned",
            Self::Same => "same",
        }
    }
}

/// Compares by the plan's tag, or the tag `Name` where that is missing, and the Region. The worst comes first.
#[must_use]
pub fn diff(design: &Design, inventory: &Inventory) -> Vec<Difference> {
    let mut found = vec![];
    let mut planned: Vec<(&Vpc, Ipv4Net)> = vec![];
    let mut ranges: Vec<(String, Ipv4Net)> = vec![];
    for pool in &design.pools {
        for vpc in &pool.vpcs {
            let subject = subject(pool, &vpc.name);
            ranges.push((subject.clone(), vpc.cidr));
            let own = |one: &&Vpc| one.place.region == pool.region && is_it(&one.tags, &subject);
            let real: Vec<&Vpc> = inventory.vpcs.iter().filter(own).collect();
            // Two VPCs may have one name. The one with the range is meant.
            let exact = real.iter().find(|one| one.cidrs.contains(&vpc.cidr.into()));
            let Some(real) = exact.or_else(|| real.first()) else {
                found.push(Difference { kind: Kind::Missing, subject, what: vpc.cidr.to_string() });
                continue;
            };
            planned.push((real, vpc.cidr));
            found.push(compared(subject.clone(), vpc.cidr, &real.cidrs));
            let ours = inventory.subnets.iter().filter(|subnet| subnet.vpc == real.id);
            let ours: Vec<&Subnet> = ours.collect();
            found.extend(
                vpc.subnets.iter().map(|subnet| subnet_difference(&subject, subnet, &ours)),
            );
        }
    }
    for vpc in &inventory.vpcs {
        if planned.iter().all(|(real, _)| real.id != vpc.id) {
            found.push(unplanned(vpc, &ranges));
        }
    }
    found.sort_by_key(|one| one.kind);
    found
}

fn compared(subject: String, planned: Ipv4Net, real: &[IpNet]) -> Difference {
    if real.contains(&planned.into()) {
        return Difference { kind: Kind::Same, subject, what: planned.to_string() };
    }
    let real: Vec<_> = real.iter().map(ToString::to_string).collect();
    let what = format!("{} where {planned} is planned", real.join(" "));
    Difference { kind: Kind::Differs, subject, what }
}

fn subnet_difference(vpc: &str, planned: &LaidSubnet, real: &[&Subnet]) -> Difference {
    let subject = format!("{vpc}/{}", planned.name);
    // Two subnets may have one name. The one with the range is meant.
    let own = || real.iter().filter(|one| is_it(&one.tags, &subject));
    match own().find(|one| one.cidr == Some(planned.cidr)).or_else(|| own().next()) {
        None => Difference { kind: Kind::Missing, subject, what: planned.cidr.to_string() },
        Some(one) if one.cidr == Some(planned.cidr) && one.zone != planned.zone => {
            let what = format!("{} where {} is planned", one.zone, planned.zone);
            Difference { kind: Kind::Differs, subject, what }
        }
        Some(one) => compared(
            subject,
            planned.cidr,
            &one.cidr.map(IpNet::V4).into_iter().collect::<Vec<_>>(),
        ),
    }
}

fn unplanned(vpc: &Vpc, ranges: &[(String, Ipv4Net)]) -> Difference {
    let own = || vpc.cidrs.iter().copied().filter_map(v4);
    let shared = |range: &Ipv4Net| own().any(|net| Span::of(net).and(Span::of(*range)).len() > 0);
    let subject = vpc.id.to_string();
    let texts: Vec<_> = vpc.cidrs.iter().map(ToString::to_string).collect();
    let texts = texts.join(" ");
    match ranges.iter().find(|(_, range)| shared(range)) {
        Some((planned, range)) => {
            let what = format!("{texts} overlaps {range}, which is planned for {planned}");
            Difference { kind: Kind::Collides, subject, what }
        }
        None => Difference { kind: Kind::Unplanned, subject, what: texts },
    }
}

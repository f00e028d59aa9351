//! The rules for pods' node-local addresses: one range of each family, translated as packets leave the node, and closed
//! to other pods.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::SourcePorts;
use super::table::{Chain, Family, Place, Statement};
use crate::host::{HostPicture, Snapshot};

const IPV4_MULTICAST: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4);
const IPV6_MULTICAST: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8);

/// How pods reach the family that their VPC addresses are not of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Egress {
    /// The ranges of pods' node-local addresses; none if no pod has any.
    pub ranges: BTreeSet<IpNet>,
    /// How source ports are chosen.
    pub ports: SourcePorts,
}

impl Default for Egress {
    /// No pod has a node-local address.
    fn default() -> Self {
        Self { ranges: BTreeSet::new(), ports: SourcePorts::Random }
    }
}

/// The ranges whose packets cannot leave by the primary ENI, since its device has no address of their family.
pub(crate) fn stranded(before: &Snapshot, wanted: &HostPicture) -> BTreeSet<IpNet> {
    let primary = before.device(wanted.primary_mac).map(|link| link.index);
    let has = |range: &IpNet| {
        let mut own = before.addresses.iter().filter(|(index, _)| Some(*index) == primary);
        own.any(|(_, address)| Family::of(address) == Family::of(range))
    };
    wanted.egress.ranges.iter().copied().filter(|range| !has(range)).collect()
}

/// The chains of a family's ranges; none if it has no range.
pub(super) fn chains(egress: &Egress, family: Family) -> Vec<Chain> {
    let ranges = egress.ranges.iter().filter(|range| Family::of(range) == family);
    let ranges: Vec<_> = ranges.copied().collect();
    if ranges.is_empty() {
        return Vec::new();
    }
    // A pod answers nobody there but the node.
    let closed =
        |range| vec![Statement::ToRange(range), Statement::IsNew, Statement::Reject(family)];
    let translated = |range| {
        let elsewhere = Statement::NotToRange(multicast(family));
        vec![Statement::FromRange(range), elsewhere, Statement::Masquerade(egress.ports)]
    };
    let rules = |rule: &dyn Fn(IpNet) -> Vec<Statement>| ranges.iter().copied().map(rule).collect();
    vec![
        Chain { name: "node-local", place: Place::Passing, rules: rules(&closed) },
        Chain { name: "egress", place: Place::Leaving, rules: rules(&translated) },
    ]
}

fn multicast(family: Family) -> IpNet {
    match family {
        Family::Ip => IPV4_MULTICAST.into(),
        Family::Ip6 => IPV6_MULTICAST.into(),
    }
}

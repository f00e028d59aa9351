//! Ranges of VPCs that overlap: how much harm it does, and what cures it.
//!
//! Two VPCs with one range work as long as nothing needs to reach both. So an overlap is judged by what connects
//! the two.

use std::collections::BTreeMap;
use std::fmt;

use ipam::id::VpcId;
use ipnet::IpNet;
use serde::Serialize;

use crate::inventory::{Inventory, Place, Vpc};

/// The most overlaps that are kept. An organisation whose accounts all have one range has millions.
pub const MOST: usize = 10_000;

/// Two ranges of two VPCs that have addresses in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Overlap {
    /// What connects the two; the worst comes first.
    pub relation: Relation,
    /// What both have: the smaller of the two ranges.
    pub shared: IpNet,
    /// The two.
    pub sides: [Side; 2],
    /// What to do.
    pub cure: Cure,
}

/// A range of an [`Overlap`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Side {
    /// The VPC.
    pub vpc: VpcId,
    /// Its owner and Region.
    pub place: Place,
    /// The range.
    pub cidr: IpNet,
    /// Interfaces in subnets of the range.
    pub n_interfaces: usize,
}

/// What connects two VPCs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relation {
    /// They peer. Neither can reach the addresses of the other that it has itself.
    Peered {
        /// The peering.
        peering: String,
    },
    /// A third VPC peers with both, and a route there leads to one of them.
    SharedPeer {
        /// That VPC.
        via: VpcId,
    },
    /// They are of one account and Region.
    Account,
    /// They are of one organisation.
    Organisation,
}

impl Relation {
    /// Whether something that is connected does not work today.
    #[must_use]
    pub fn breaks_routes(&self) -> bool {
        match self {
            Self::Peered { .. } | Self::SharedPeer { .. } => true,
            Self::Account | Self::Organisation => false,
        }
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peered { peering } => write!(f, "peered by {peering}"),
            Self::SharedPeer { via } => write!(f, "both peer with {via}"),
            Self::Account => f.write_str("one account and Region"),
            Self::Organisation => f.write_str("one organisation"),
        }
    }
}

/// What cures an overlap. It is the side that is cheaper to move.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cure {
    /// The range is secondary and empty: it can be taken off the VPC.
    Disassociate {
        /// The VPC.
        vpc: VpcId,
        /// The range.
        cidr: IpNet,
    },
    /// Nothing is in the VPC: it can be made again with another range.
    Recreate {
        /// The VPC.
        vpc: VpcId,
    },
    /// Move what is in the range to a new range.
    Renumber {
        /// The VPC.
        vpc: VpcId,
        /// The range.
        cidr: IpNet,
        /// Interfaces to move.
        n_interfaces: usize,
    },
}

impl fmt::Display for Cure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disassociate { vpc, cidr } => {
                write!(f, "disassociate {cidr} from {vpc}: no interface is in it")
            }
            Self::Recreate { vpc } => {
                write!(f, "make {vpc} again with another range: it has no interface")
            }
            Self::Renumber { vpc, cidr, n_interfaces } => write!(
                f,
                "give {vpc} a new range, move its {n_interfaces} interfaces there, and take {cidr} off; until then \
                 reach one of the two by PrivateLink or private NAT"
            ),
        }
    }
}

/// One range of one VPC.
#[derive(Clone, Copy)]
struct Range<'a> {
    cidr: IpNet,
    vpc: &'a Vpc,
    is_primary: bool,
}

/// Overlaps, and how many there are in all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    /// The worst first, at most [`MOST`].
    pub(crate) overlaps: Vec<Overlap>,
    pub(crate) n_all: usize,
}

/// The overlaps of all VPCs. Ranges within one of `expected` are left out, and so are default VPCs without an interface.
/// `n_interfaces` says how many interfaces are in a range of a VPC.
pub(crate) fn overlaps(
    inventory: &Inventory,
    expected: &[IpNet],
    n_interfaces: &dyn Fn(&VpcId, IpNet) -> usize,
) -> Found {
    let links = Links::of(inventory);
    let mut ranges: Vec<Range<'_>> = vec![];
    for vpc in &inventory.vpcs {
        let is_used =
            !vpc.is_default || vpc.cidrs.iter().any(|cidr| n_interfaces(&vpc.id, *cidr) > 0);
        let ours = vpc.cidrs.iter().enumerate();
        let ours =
            ours.filter(|(_, cidr)| is_used && !expected.iter().any(|net| net.contains(*cidr)));
        ranges.extend(ours.map(|(index, cidr)| Range { cidr: *cidr, vpc, is_primary: index == 0 }));
    }
    // By start, the larger first: a range overlaps those before it that reach its start.
    ranges.sort_by_key(|range| (range.cidr.network(), range.cidr.prefix_len(), &range.vpc.id));
    let mut found = Found::default();
    let mut open: Vec<Range<'_>> = vec![];
    for range in ranges {
        open.retain(|other| other.cidr.contains(&range.cidr.network()));
        for other in open.iter().filter(|other| other.vpc.id != range.vpc.id) {
            found.n_all += 1;
            let relation = links.relation(other.vpc, range.vpc);
            if found.overlaps.len() < MOST || relation.breaks_routes() {
                found.overlaps.push(overlap(relation, *other, range, n_interfaces));
            }
        }
        open.push(range);
    }
    found.overlaps.sort();
    found.overlaps.truncate(MOST);
    found
}

fn overlap(
    relation: Relation,
    one: Range<'_>,
    other: Range<'_>,
    n_interfaces: &dyn Fn(&VpcId, IpNet) -> usize,
) -> Overlap {
    let side = |range: Range<'_>| Side {
        vpc: range.vpc.id.clone(),
        place: range.vpc.place.clone(),
        cidr: range.cidr,
        n_interfaces: n_interfaces(&range.vpc.id, range.cidr),
    };
    let shared =
        if one.cidr.prefix_len() > other.cidr.prefix_len() { one.cidr } else { other.cidr };
    let (_, cure) = cure(one, n_interfaces).min(cure(other, n_interfaces));
    Overlap { relation, shared, sides: [side(one), side(other)], cure }
}

/// How many interfaces are to be moved, and what is to be done.
fn cure(range: Range<'_>, n_interfaces: &dyn Fn(&VpcId, IpNet) -> usize) -> (usize, Cure) {
    let vpc = range.vpc.id.clone();
    let n = n_interfaces(&vpc, range.cidr);
    let n_all = range.vpc.cidrs.iter().map(|cidr| n_interfaces(&vpc, *cidr)).sum::<usize>();
    let cidr = range.cidr;
    if n == 0 && !range.is_primary {
        (0, Cure::Disassociate { vpc, cidr })
    } else if n_all == 0 {
        (0, Cure::Recreate { vpc })
    } else {
        (n, Cure::Renumber { vpc, cidr, n_interfaces: n })
    }
}

/// Which VPCs peer.
struct Links<'a> {
    peers: BTreeMap<&'a VpcId, BTreeMap<&'a VpcId, &'a str>>,
}

impl<'a> Links<'a> {
    fn of(inventory: &'a Inventory) -> Self {
        let mut peers: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for peering in &inventory.peerings {
            let [one, other] = &peering.vpcs;
            peers.entry(one).or_default().insert(other, peering.id.as_str());
            peers.entry(other).or_default().insert(one, peering.id.as_str());
        }
        Self { peers }
    }

    fn relation(&self, one: &Vpc, other: &Vpc) -> Relation {
        let peers = |vpc: &Vpc| self.peers.get(&vpc.id);
        if let Some(peering) = peers(one).and_then(|peers| peers.get(&other.id)) {
            return Relation::Peered { peering: (*peering).to_owned() };
        }
        if let (Some(one), Some(other)) = (peers(one), peers(other))
            && let Some(via) = one.keys().find(|via| other.contains_key(*via))
        {
            return Relation::SharedPeer { via: (*via).clone() };
        }
        if one.place == other.place { Relation::Account } else { Relation::Organisation }
    }
}

#[cfg(test)]
mod tests {
    use ipnet::Ipv4Net;
    use proptest::prelude::*;

    use super::*;
    use crate::inventory::Peering;

    fn vpc(index: usize, cidrs: &[IpNet]) -> Vpc {
        Vpc {
            id: VpcId::try_from(format!("vpc-{index}")).unwrap(),
            place: Place { account: (index % 2).to_string(), region: "r".to_owned() },
            cidrs: cidrs.to_vec(),
            is_default: false,
            tags: [].into(),
        }
    }

    fn inventory(cidrs: &[&[&str]], peerings: &[(usize, usize)]) -> Inventory {
        let nets =
            |texts: &&[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        let vpcs: Vec<Vpc> =
            cidrs.iter().enumerate().map(|(n, texts)| vpc(n, &nets(texts))).collect();
        let peering = |(one, other): &(usize, usize)| Peering {
            id: format!("pcx-{one}{other}"),
            vpcs: [vpcs[*one].id.clone(), vpcs[*other].id.clone()],
        };
        Inventory { peerings: peerings.iter().map(peering).collect(), vpcs, ..Inventory::default() }
    }

    #[test]
    fn what_connects_two_vpcs_makes_an_overlap_worse() {
        let check = |cidrs: &[&[&str]], peerings: &[(usize, usize)], expect: &[&str]| {
            let found = overlaps(&inventory(cidrs, peerings), &[], &|_, _| 1);
            let texts = found.overlaps.iter().map(|one| {
                format!("{} {} {} {}", one.sides[0].vpc, one.sides[1].vpc, one.shared, one.relation)
            });
            assert_eq!(texts.collect::<Vec<_>>(), expect);
        };
        let (a, b): (&[&str], &[&str]) = (&["10.0.0.0/16"], &["10.0.128.0/17", "10.9.0.0/16"]);
        check(&[a, b], &[], &["vpc-0 vpc-1 10.0.128.0/17 one organisation"]);
        check(&[a, &[], b], &[], &["vpc-0 vpc-2 10.0.128.0/17 one account and Region"]);
        check(&[a, b], &[(1, 0)], &["vpc-0 vpc-1 10.0.128.0/17 peered by pcx-10"]);
        check(
            &[a, b, &["10.2.0.0/16"]],
            &[(2, 0), (1, 2)],
            &["vpc-0 vpc-1 10.0.128.0/17 both peer with vpc-2"],
        );
        check(&[a, &["10.1.0.0/16"]], &[], &[]);
        check(&[&["10.0.0.0/16", "10.0.1.0/24"]], &[], &[]);
        let worst_first = [
            "vpc-1 vpc-2 10.7.0.0/16 peered by pcx-12",
            "vpc-0 vpc-1 10.0.128.0/17 one organisation",
        ];
        check(&[a, &["10.0.128.0/17", "10.7.0.0/16"], &["10.7.0.0/16"]], &[(1, 2)], &worst_first);
    }

    #[test]
    fn cure_moves_what_is_cheaper_to_move() {
        let check = |n: &dyn Fn(&str, &str) -> usize, expect: &str| {
            let inventory = inventory(&[&["10.0.0.0/16"], &["10.9.0.0/16", "10.0.0.0/16"]], &[]);
            let found = overlaps(&inventory, &[], &|vpc, cidr| n(vpc.as_str(), &cidr.to_string()));
            let cure = found.overlaps[0].cure.to_string();
            assert!(cure.starts_with(expect), "{cure}");
        };
        check(&|_, _| 0, "disassociate 10.0.0.0/16 from vpc-1");
        check(&|_, cidr| usize::from(cidr == "10.9.0.0/16"), "disassociate 10.0.0.0/16 from vpc-1");
        check(&|vpc, _| usize::from(vpc == "vpc-1"), "make vpc-0 again");
        check(
            &|vpc, _| if vpc == "vpc-0" { 9 } else { 4 },
            "give vpc-1 a new range, move its 4 interfaces",
        );
        check(
            &|vpc, _| if vpc == "vpc-0" { 3 } else { 4 },
            "give vpc-0 a new range, move its 3 interfaces",
        );
    }

    #[test]
    fn expected_ranges_and_empty_default_vpcs_are_left_out() {
        let mut inventory = inventory(
            &[&["100.64.0.0/16"], &["100.64.0.0/16"], &["10.0.0.0/8"], &["10.0.0.0/8"]],
            &[],
        );
        let n_found = |inventory: &Inventory, expected: &str, n: usize| {
            overlaps(inventory, &[expected.parse().unwrap()], &|_, _| n).n_all
        };
        assert_eq!(n_found(&inventory, "192.168.0.0/16", 0), 2);
        assert_eq!(n_found(&inventory, "100.64.0.0/10", 0), 1);
        inventory.vpcs[3].is_default = true;
        assert_eq!(
            (n_found(&inventory, "100.64.0.0/10", 0), n_found(&inventory, "100.64.0.0/10", 1)),
            (0, 1)
        );
    }

    fn net() -> impl Strategy<Value = IpNet> {
        let v4 = |bits: u32, length: u8| {
            IpNet::V4(Ipv4Net::new((bits << 20).into(), length).unwrap().trunc())
        };
        (0_u32..64, 8_u8..28).prop_map(move |(bits, length)| v4(bits, length))
    }

    proptest! {
        #[test]
        fn overlaps_equal_those_of_all_pairs(ranges in proptest::collection::vec(proptest::collection::vec(net(), 0..4), 0..9)) {
            let vpcs: Vec<_> = ranges.iter().enumerate().map(|(n, cidrs)| vpc(n, cidrs)).collect();
            let mut naive = vec![];
            for (n, one) in vpcs.iter().enumerate() {
                for other in &vpcs[n + 1..] {
                    for a in &one.cidrs {
                        let both = other.cidrs.iter().filter(|b| a.contains(*b) || b.contains(a));
                        naive.extend(both.map(|b| { let mut p = [(&one.id, *a), (&other.id, *b)]; p.sort(); p }));
                    }
                }
            }
            naive.sort();
            let inventory = Inventory { vpcs: vpcs.clone(), ..Inventory::default() };
            let found = overlaps(&inventory, &[], &|_, _| 0);
            let mut pairs: Vec<_> = found.overlaps.iter()
                .map(|one| { let mut p = [0, 1].map(|n| (&one.sides[n].vpc, one.sides[n].cidr)); p.sort(); p }).collect();
            pairs.sort();
            prop_assert_eq!(found.n_all, naive.len());
            prop_assert_eq!(pairs, naive);
        }
    }
}

//! The layout: how large everything is, from the nodes up, and where it goes, from the space down.

use ipnet::Ipv4Net;

use super::intent::{Cluster, Intent, Pool, Vpc};
use super::{Design, FOREVER, LaidPool, LaidSubnet, LaidVpc};
use crate::audit::{Finding, Severity};
use crate::span::{Span, free, size};
use crate::subnet::PREFIX_SIZE;

/// The five addresses that AWS keeps of each subnet.
const KEPT: u64 = 5;
/// EC2 makes subnets and VPCs of these sizes. Source: AWS, "Subnet CIDR blocks".
const LARGEST: u8 = 16;
const SMALLEST: u8 = 28;
/// The most nodes that growth is followed to.
const MOST_NODES: u64 = 1_000_000;

/// Addresses that a node holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeNeed {
    /// Primary and secondary addresses.
    pub single: u64,
    /// Prefixes of sixteen.
    pub prefixes: u64,
}

/// Lays the plan out. `need` says what a node of a cluster holds, or why that is not known.
#[must_use]
pub fn lay_out(
    intent: &Intent,
    need: &mut dyn FnMut(&Cluster) -> Result<NodeNeed, String>,
) -> Design {
    let mut findings = Findings(vec![]);
    for (name, what) in intent.bad_names() {
        findings.fail("bad_name", &name, what, "rename it");
    }
    if !findings.0.is_empty() {
        return Design { pools: vec![], findings: findings.0 };
    }
    let mut room = Room::of(intent, &mut findings);
    let mut sized: Vec<Sized<'_>> =
        intent.pools.iter().map(|pool| Sized::of(pool, intent, need, &mut findings)).collect();
    // Ranges that are decided come first, then the large ones, so that the small ones fill the gaps.
    sized.sort_by_key(|one| (one.pool.cidr.is_none(), std::cmp::Reverse(one.size)));
    let mut pools: Vec<LaidPool> =
        sized.into_iter().filter_map(|one| one.place(&mut room, &mut findings)).collect();
    let order = |name: &str| intent.pools.iter().position(|pool| pool.name == name);
    pools.sort_by_key(|pool| order(&pool.name));
    findings.0.sort_by_key(|finding| finding.severity);
    Design { pools, findings: findings.0 }
}

struct Findings(Vec<Finding>);

impl Findings {
    fn fail(&mut self, code: &'static str, subject: &str, what: String, cure: &str) {
        let (subject, cure) = (subject.to_owned(), cure.to_owned());
        self.0.push(Finding { severity: Severity::Failure, code, subject, what, cure });
    }
}

/// What is free of a range.
struct Room(Vec<Span>);

impl Room {
    /// The plan's space, without what others have.
    fn of(intent: &Intent, findings: &mut Findings) -> Self {
        let others = intent.reserved.iter().chain(&intent.on_premises);
        let taken: Vec<_> = others.map(|range| Span::of(range.cidr)).collect();
        let mut spans = vec![];
        for (index, net) in intent.space.iter().enumerate() {
            if intent.space[..index]
                .iter()
                .any(|other| Span::of(*other).and(Span::of(*net)).len() > 0)
            {
                let what = format!("{net} overlaps another range of the space");
                findings.fail("overlap", "space", what, "name each range once");
                continue;
            }
            spans.extend(free(Span::of(*net), taken.clone()));
        }
        Self(spans)
    }

    fn within(net: Ipv4Net) -> Self {
        Self(vec![Span::of(net)])
    }

    /// The first aligned block of this size.
    fn first(&mut self, bits: u8) -> Option<Ipv4Net> {
        let size = 1_u64 << (32 - bits);
        let start =
            self.0.iter().find(|span| span.n_aligned(size) > 0)?.start.div_ceil(size) * size;
        let net = Ipv4Net::new(u32::try_from(start).ok()?.into(), bits).ok()?;
        self.take(net).then_some(net)
    }

    /// Whether all of `net` is free; then it is taken.
    fn take(&mut self, net: Ipv4Net) -> bool {
        let wanted = Span::of(net);
        let Some(index) = self.0.iter().position(|span| span.and(wanted) == wanted) else {
            return false;
        };
        let whole = self.0[index];
        self.0.splice(index..=index, free(whole, vec![wanted]));
        true
    }

    /// A range that is decided, or else the first of this size. Without room it is a finding.
    fn place(
        &mut self,
        subject: &str,
        decided: Option<Ipv4Net>,
        addresses: u64,
        findings: &mut Findings,
    ) -> Option<Ipv4Net> {
        let Some(net) = decided else {
            let found = self.first(bits_for(addresses));
            if found.is_none() {
                let what = format!("no aligned /{} is free for it", bits_for(addresses));
                findings.fail("no_room", subject, what, "give more space, or plan less");
            }
            return found;
        };
        if net.addr() != net.network() {
            let what = format!("{net} does not begin at a multiple of its size");
            findings.fail("unaligned", subject, what, &format!("write {}", net.trunc()));
            return None;
        }
        if !self.take(net) {
            let what = format!(
                "{net} is not free: it is outside of what it draws from, reserved, on premises, or taken"
            );
            findings.fail(
                "overlap",
                subject,
                what,
                "choose another range, or leave the choice to the plan",
            );
            return None;
        }
        if size(net) < addresses {
            let what =
                format!("{net} is smaller than the {addresses} addresses that it has to have");
            findings.fail(
                "too_small",
                subject,
                what,
                &format!("make it a /{}", bits_for(addresses)),
            );
        }
        Some(net)
    }
}

/// The netmask of the smallest range with so many addresses; 0 for more than there are.
fn bits_for(addresses: u64) -> u8 {
    (0..=32_u8).rev().find(|bits| 1_u64 << (32 - bits) >= addresses).unwrap_or_default()
}

/// A pool whose parts have sizes.
struct Sized<'a> {
    pool: &'a Pool,
    vpcs: Vec<SizedVpc<'a>>,
    size: u64,
}

struct SizedVpc<'a> {
    vpc: &'a Vpc,
    subnets: Vec<SizedSubnet>,
    size: u64,
}

struct SizedSubnet {
    name: String,
    zone: String,
    size: u64,
    need: [u64; 2],
    n_prefixes: u64,
    lasts_years: u32,
}

impl<'a> Sized<'a> {
    fn of(
        pool: &'a Pool,
        intent: &Intent,
        need: &mut dyn FnMut(&Cluster) -> Result<NodeNeed, String>,
        findings: &mut Findings,
    ) -> Self {
        let vpcs: Vec<_> =
            pool.vpcs.iter().map(|vpc| SizedVpc::of(vpc, pool, intent, need, findings)).collect();
        // Blocks of powers of two, the large ones first, leave no gap.
        let sum: u64 = vpcs.iter().map(|vpc| vpc.size).sum();
        let wanted = pool.size.map_or(0, |size| 1 << (32 - size.bits()));
        Self { pool, vpcs, size: sum.max(wanted).next_power_of_two() }
    }

    fn place(self, room: &mut Room, findings: &mut Findings) -> Option<LaidPool> {
        let Self { pool, mut vpcs, size } = self;
        let cidr = room.place(&pool.name, pool.cidr, size, findings)?;
        let mut room = Room::within(cidr);
        vpcs.sort_by_key(|one| (one.vpc.cidr.is_none(), std::cmp::Reverse(one.size)));
        let mut laid: Vec<_> =
            vpcs.into_iter().filter_map(|one| one.place(pool, &mut room, findings)).collect();
        laid.sort_by_key(|vpc| pool.vpcs.iter().position(|one| one.name == vpc.name));
        let tags = [("environment", &pool.environment), ("team", &pool.team)];
        let tags =
            tags.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?)));
        Some(LaidPool {
            name: pool.name.clone(),
            region: pool.region.clone(),
            tags: tags.collect(),
            cidr,
            vpcs: laid,
        })
    }
}

impl<'a> SizedVpc<'a> {
    fn of(
        vpc: &'a Vpc,
        pool: &Pool,
        intent: &Intent,
        need: &mut dyn FnMut(&Cluster) -> Result<NodeNeed, String>,
        findings: &mut Findings,
    ) -> Self {
        let subject = format!("{}/{}", pool.name, vpc.name);
        if vpc.zones.is_empty() {
            findings.fail("no_zone", &subject, "it has no zone".to_owned(), "name its zones");
        }
        let mut subnets = vec![];
        for cluster in &vpc.clusters {
            let subject = format!("{subject}/{}", cluster.name);
            match need(cluster) {
                Ok(need) => {
                    let one = zone_subnet(
                        cluster,
                        need,
                        vpc.zones.len() as u64,
                        intent,
                        &subject,
                        findings,
                    );
                    subnets.extend(vpc.zones.iter().map(|zone| SizedSubnet {
                        name: format!("{}-{zone}", cluster.name),
                        zone: format!("{}{zone}", pool.region),
                        ..one
                    }));
                }
                Err(why) => findings.fail("bad_cluster", &subject, why, "change the cluster"),
            }
        }
        let sum: u64 = subnets.iter().map(|subnet| subnet.size).sum();
        let wanted = vpc.size.map_or(0, |size| 1 << (32 - size.bits()));
        let size = sum.max(wanted).max(1 << (32 - SMALLEST)).next_power_of_two();
        if bits_for(size) < LARGEST {
            let what =
                format!("it needs a /{}, and EC2 makes none larger than a /16", bits_for(size));
            findings.fail("vpc_too_large", &subject, what, "spread its clusters over several VPCs");
        }
        Self { vpc, subnets, size }
    }

    fn place(self, pool: &Pool, room: &mut Room, findings: &mut Findings) -> Option<LaidVpc> {
        let Self { vpc, mut subnets, size } = self;
        let subject = format!("{}/{}", pool.name, vpc.name);
        let cidr = room.place(&subject, vpc.cidr, size, findings)?;
        let mut room = Room::within(cidr);
        subnets.sort_by_key(|subnet| std::cmp::Reverse(subnet.size));
        let laid = subnets.into_iter().filter_map(|subnet| {
            let SizedSubnet { name, zone, size, need, n_prefixes, lasts_years } = subnet;
            let cidr = room.place(&format!("{subject}/{name}"), None, size, findings)?;
            let for_prefixes = for_prefixes(cidr, n_prefixes);
            Some(LaidSubnet { name, zone, cidr, need, for_prefixes, lasts_years })
        });
        Some(LaidVpc { name: vpc.name.clone(), cidr, subnets: laid.collect() })
    }
}

/// The subnet of a cluster in one zone, without name and zone.
fn zone_subnet(
    cluster: &Cluster,
    need: NodeNeed,
    n_zones: u64,
    intent: &Intent,
    subject: &str,
    findings: &mut Findings,
) -> SizedSubnet {
    let nodes = |year: u32| nodes_in_zone(cluster, year, n_zones);
    let addresses = |year: u32| {
        let NodeNeed { single, prefixes } = need;
        nodes(year) * (single + PREFIX_SIZE * prefixes) + cluster.other_addresses
    };
    let (first, last) = (addresses(0), addresses(intent.horizon_years));
    // The /28 with AWS's last address gives no prefix, and single addresses are not taken from a reservation.
    let lost = KEPT + if need.prefixes > 0 { PREFIX_SIZE } else { 0 };
    let smallest =
        |addresses: u64| (addresses + lost).next_power_of_two().max(1 << (32 - SMALLEST));
    let decided = cluster.subnet_size.map(|size| 1_u64 << (32 - size.bits()));
    let size = decided.unwrap_or_else(|| smallest(last));
    let lasts = (0..=FOREVER).take_while(|year| addresses(*year) + lost <= size).last();
    if bits_for(size) < LARGEST {
        let what =
            format!("its subnets need a /{}, and EC2 makes none larger than a /16", bits_for(size));
        findings.fail("subnet_too_large", subject, what, "use more zones, or several clusters");
    }
    match lasts {
        None => {
            let what =
                format!("its {first} addresses of a zone do not fit in a /{}", bits_for(size));
            findings.fail(
                "too_small",
                subject,
                what,
                &format!("make it a /{}", bits_for(smallest(last))),
            );
        }
        Some(years) if years < intent.horizon_years => {
            let what = format!(
                "its subnets of /{} last {years} years, and the plan is for {}",
                bits_for(size),
                intent.horizon_years
            );
            findings.fail(
                "too_small",
                subject,
                what,
                &format!("make them /{}", bits_for(smallest(last))),
            );
        }
        Some(_) => {}
    }
    SizedSubnet {
        name: String::new(),
        zone: String::new(),
        size,
        need: [first, last],
        n_prefixes: nodes(intent.horizon_years) * need.prefixes,
        lasts_years: lasts.unwrap_or_default(),
    }
}

/// Each year's growth is rounded up. So is a zone's share.
fn nodes_in_zone(cluster: &Cluster, years: u32, n_zones: u64) -> u64 {
    let grown = (0..years.min(FOREVER)).fold(cluster.nodes.min(MOST_NODES), |nodes, _| {
        let growth = nodes.saturating_mul(cluster.growth_percent.min(1000)).div_ceil(100);
        (nodes + growth).min(MOST_NODES)
    });
    grown.div_ceil(n_zones.max(1)) + cluster.surge.min(MOST_NODES)
}

/// Ranges at the end of a subnet with room for so many prefixes: aligned, as few as there are bits in their number. Single
/// addresses keep at least a /28 at the beginning.
fn for_prefixes(subnet: Ipv4Net, n_prefixes: u64) -> Vec<Ipv4Net> {
    let mut ranges = vec![];
    // AWS keeps the last address, so the last /28 gives no prefix. It counts as one more.
    let mut left = if n_prefixes == 0 { 0 } else { n_prefixes + 1 };
    let mut end = Span::of(subnet).end;
    while left > 0 {
        // The largest power of two that is left.
        let n = 1_u64 << left.ilog2();
        let start = end.saturating_sub(n * PREFIX_SIZE);
        let bits = bits_for(n * PREFIX_SIZE);
        let net = u32::try_from(start).ok().and_then(|start| Ipv4Net::new(start.into(), bits).ok());
        match net.filter(|net| net.addr() == net.network() && start > Span::of(subnet).start) {
            Some(net) => ranges.push(net),
            None => break,
        }
        left -= n;
        end = start;
    }
    ranges
}

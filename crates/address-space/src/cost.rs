//! What active addresses cost by the hour and the month: by VPC, by cluster, by node.
//!
//! No page of AWS that could be read says whether Amazon VPC IPAM counts a prefix as one address or as sixteen. So each
//! bill has two bounds.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use ipam::id::{EniId, VpcId};
use serde::{Serialize, Serializer};

use crate::holder::{Holder, holder};
use crate::inventory::{Interface, Inventory};
use crate::subnet::{PREFIX_SIZE, v4};

/// Hours of a month, as AWS's own examples have them.
const HOURS: u128 = 730;
/// Nano-dollars of a dollar.
const NANO: u128 = 1_000_000_000;
/// The most that a price may be, in dollars by the hour. It keeps sums far from any overflow.
const DEAREST: u128 = 1000;

/// An amount of US dollars, in nano-dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Usd(u128);

/// A text is no price.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected dollars by the hour such as 0.00027, at most {DEAREST}, with at most nine decimals"
)]
pub struct BadPrice;

impl FromStr for Usd {
    type Err = BadPrice;

    fn from_str(text: &str) -> Result<Self, BadPrice> {
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let is_number =
            |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        if !is_number(whole) || !is_number(part) || part.len() > 9 || whole.len() > 4 {
            return Err(BadPrice);
        }
        let nano: u128 = format!("{part:0<9}").parse().map_err(|_| BadPrice)?;
        let whole: u128 = whole.parse().map_err(|_| BadPrice)?;
        let price = Self(whole * NANO + nano);
        if price.0 <= DEAREST * NANO { Ok(price) } else { Err(BadPrice) }
    }
}

impl fmt::Display for Usd {
    /// Rounded to cents, or to five decimals below a dollar.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = if self.0 < NANO { 5 } else { 2 };
        let unit = 10_u128.pow(9 - decimals);
        let rounded = (self.0 + unit / 2) / unit;
        let scale = 10_u128.pow(decimals);
        let width = usize::try_from(decimals).unwrap_or_default();
        write!(f, "{}.{:0width$}", rounded / scale, rounded % scale)
    }
}

impl Serialize for Usd {
    /// As a decimal number in a text, since JSON's numbers lose digits.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Prices by the hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Prices {
    /// Of an active address, for Amazon VPC IPAM in its advanced tier.
    pub active_address: Usd,
    /// Of a public IPv4 address.
    pub public_address: Usd,
}

/// A price, where it is from, and when it was read.
pub type Source = (&'static str, &'static str, &'static str, &'static str);

/// The built-in prices: what, dollars by the hour, source, date.
pub const SOURCES: [Source; 2] = [
    ("active address", "0.00027", "AWS, Amazon VPC pricing, IPAM advanced tier", "2026-09"),
    ("public IPv4 address", "0.005", "AWS, Amazon VPC pricing, public IPv4 address", "2026-09"),
];

impl Default for Prices {
    fn default() -> Self {
        let [active, public] = SOURCES.map(|(_, price, ..)| Usd::from_str(price).expect("a price"));
        Self { active_address: active, public_address: public }
    }
}

/// Addresses that cost something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Single private addresses of both families, primary ones included.
    pub addresses: u64,
    /// IPv4 prefixes, of sixteen addresses each.
    pub prefixes: u64,
    /// IPv6 prefixes. They count as one each: nobody pays for 2^48 addresses.
    pub ipv6_prefixes: u64,
    /// Public IPv4 addresses.
    pub public: u64,
}

impl Count {
    /// Adds what another has.
    pub fn add(&mut self, other: Self) {
        let Self { addresses, prefixes, ipv6_prefixes, public } = other;
        self.addresses += addresses;
        self.prefixes += prefixes;
        self.ipv6_prefixes += ipv6_prefixes;
        self.public += public;
    }

    /// Active addresses if a prefix counts as one, and if it counts as sixteen.
    #[must_use]
    pub fn active(self) -> Bounds<u64> {
        let single = self.addresses + self.ipv6_prefixes + self.public;
        Bounds { least: single + self.prefixes, most: single + PREFIX_SIZE * self.prefixes }
    }

    /// What it costs in a month: active addresses, and public ones beside that.
    #[must_use]
    pub fn month(self, prices: Prices) -> Bounds<Usd> {
        self.hour(prices).map(|Usd(nano)| Usd(nano * HOURS))
    }

    /// What it costs in an hour.
    #[must_use]
    pub fn hour(self, prices: Prices) -> Bounds<Usd> {
        let public = u128::from(self.public) * prices.public_address.0;
        self.active().map(|n| Usd(u128::from(n) * prices.active_address.0 + public))
    }
}

/// Both bounds of what is not known exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bounds<T> {
    /// With a prefix as one address.
    pub least: T,
    /// With a prefix as sixteen.
    pub most: T,
}

impl<T> Bounds<T> {
    fn map<U>(self, change: impl Fn(T) -> U) -> Bounds<U> {
        Bounds { least: change(self.least), most: change(self.most) }
    }
}

impl<T: fmt::Display + PartialEq> fmt::Display for Bounds<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { least, most } = self;
        if least == most { write!(f, "{least}") } else { write!(f, "{least} to {most}") }
    }
}

/// What an address space has that costs something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bill {
    /// Of everything.
    pub total: Count,
    /// Public addresses that nobody uses; part of the total.
    pub unused_public: u64,
    /// By VPC.
    pub vpcs: Vec<Line>,
    /// By cluster. What is of no cluster is left out.
    pub clusters: Vec<Line>,
    /// By node, the id of its instance.
    pub nodes: Vec<Line>,
}

/// A part of a [`Bill`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Whose it is.
    pub whose: String,
    /// What it has.
    pub count: Count,
}

/// Counts all that costs something. In each list those with most addresses come first.
#[must_use]
pub fn bill(inventory: &Inventory) -> Bill {
    let vpc_of: BTreeMap<_, &VpcId> =
        inventory.subnets.iter().map(|subnet| (&subnet.id, &subnet.vpc)).collect();
    let instances: BTreeMap<_, _> =
        inventory.instances.iter().map(|instance| (&instance.id, instance)).collect();
    let mut public: BTreeMap<&EniId, u64> = BTreeMap::new();
    for one in inventory.public_addresses.iter().filter_map(|one| one.interface.as_ref()) {
        *public.entry(one).or_default() += 1;
    }
    let n_public = inventory.public_addresses.len() as u64;
    let unused_public = n_public - public.values().sum::<u64>();
    let mut total = Count { public: n_public, ..Count::default() };
    let (mut vpcs, mut clusters, mut nodes) = (Sums::new(), Sums::new(), Sums::new());
    for interface in &inventory.interfaces {
        let own = counted(interface);
        total.add(own);
        let with_public =
            Count { public: public.get(&interface.id).copied().unwrap_or_default(), ..own };
        let vpc = vpc_of.get(&interface.subnet).map_or("?", |vpc| vpc.as_str());
        vpcs.entry(vpc.to_owned()).or_default().add(with_public);
        let attached = interface.attachment.as_ref().and_then(|to| to.instance.as_ref());
        let holder = holder(interface, attached.and_then(|id| instances.get(id)).copied());
        if let (_, Some(cluster)) = holder.names() {
            clusters.entry(cluster.to_owned()).or_default().add(with_public);
        }
        if let (Holder::Node { .. }, Some(id)) = (&holder, attached) {
            nodes.entry(id.to_string()).or_default().add(with_public);
        }
    }
    let [vpcs, clusters, nodes] = [vpcs, clusters, nodes].map(lines);
    Bill { total, unused_public, vpcs, clusters, nodes }
}

type Sums = BTreeMap<String, Count>;

fn lines(sums: Sums) -> Vec<Line> {
    let mut lines: Vec<_> = sums.into_iter().map(|(whose, count)| Line { whose, count }).collect();
    // Stable, so equal ones stay in the order of their names.
    lines.sort_by_key(|line| std::cmp::Reverse(line.count.active().most));
    lines
}

fn counted(interface: &Interface) -> Count {
    let prefixes = interface.prefixes.iter().filter(|prefix| v4(**prefix).is_some()).count();
    Count {
        addresses: interface.addresses.len() as u64,
        prefixes: prefixes as u64,
        ipv6_prefixes: (interface.prefixes.len() - prefixes) as u64,
        public: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn price_is_read_and_written_without_losing_digits() {
        for (text, expect) in [
            ("0.00027", 270_000),
            ("1", 1_000_000_000),
            ("0.000000001", 1),
            ("1000", 1_000_000_000_000),
        ] {
            assert_eq!(text.parse::<Usd>(), Ok(Usd(expect)), "{text}");
        }
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "1e3",
            "0.0000000001",
            "1001",
            "1000.1",
            "99999",
            "1,5",
            "+1",
        ] {
            assert_eq!(text.parse::<Usd>(), Err(BadPrice), "{text}");
        }
        let shown = |nano| Usd(nano).to_string();
        assert_eq!(
            [
                shown(270_000),
                shown(0),
                shown(1_971_000_000_000),
                shown(1_005_000_000),
                shown(999_999_999)
            ],
            ["0.00027", "0.00000", "1971.00", "1.01", "1.00000"]
        );
    }

    #[test]
    fn ten_thousand_addresses_cost_what_the_price_list_says() {
        let count = Count { addresses: 10_000, ..Count::default() };
        assert_eq!(count.hour(Prices::default()).to_string(), "2.70");
        assert_eq!(count.month(Prices::default()).to_string(), "1971.00");
        let prefixes = Count { prefixes: 625, public: 10, ..Count::default() };
        // Public addresses are active addresses too, and cost 0.05 dollars beside that.
        assert_eq!(prefixes.active(), Bounds { least: 635, most: 10_010 });
        assert_eq!(prefixes.hour(Prices::default()).to_string(), "0.22145 to 2.75");
    }

    #[test]
    fn bill_is_by_vpc_cluster_and_node() {
        let inventory = Inventory::parse(r#"{"version": 2, "inventory": {
            "subnets": [{"id": "subnet-a", "vpc": "vpc-a", "place": {"account": "1", "region": "r"}, "zone": "z", "cidr": null}],
            "interfaces": [
                {"id": "eni-1", "subnet": "subnet-a", "kind": "interface", "attachment": {"instance": "i-1", "device_index": 0},
                 "addresses": ["10.0.0.4", "10.0.0.5"], "prefixes": ["10.0.0.16/28", "2600::/80"]},
                {"id": "eni-2", "subnet": "subnet-b", "kind": "nat_gateway", "addresses": ["10.0.0.9"]}],
            "instances": [{"id": "i-1", "instance_type": "m5.large", "tags": {"eks:cluster-name": "blue"}}],
            "public_addresses": [
                {"address": "203.0.113.1", "place": {"account": "1", "region": "r"}, "interface": "eni-1"},
                {"address": "203.0.113.2", "place": {"account": "1", "region": "r"}, "interface": null}]}}"#).unwrap();
        let bill = bill(&inventory);
        let node = Count { addresses: 2, prefixes: 1, ipv6_prefixes: 1, public: 1 };
        assert_eq!(bill.total, Count { addresses: 3, public: 2, ..node });
        assert_eq!(bill.unused_public, 1);
        let line = |whose: &str, count| Line { whose: whose.to_owned(), count };
        let gateway = Count { addresses: 1, ..Count::default() };
        assert_eq!(bill.vpcs, [line("vpc-a", node), line("?", gateway)]);
        assert_eq!(
            (bill.clusters, bill.nodes),
            (vec![line("blue", node)], vec![line("i-1", node)])
        );
    }
}

//! What EC2 publishes about the networking of each instance type.
//!
//! This crate is a table: it knows no pools, API or I/O. The simulator answers
//! `DescribeInstanceTypes` from it. The daemon uses it if EC2 denies that call.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The answer of `DescribeInstanceTypes` in November 2026. Retired types stay in the table, because
/// nodes of such types still run.
const TABLE: &str = include_str!("../instance_types.csv");

static TYPES: LazyLock<BTreeMap<&'static str, InstanceType>> =
    LazyLock::new(|| TABLE.lines().skip(1).map(parse_row).map(|row| (row.name, row)).collect());

/// The hypervisor, as `DescribeInstanceTypes` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hypervisor {
    /// Its ENIs take prefixes.
    Nitro,
    /// Its ENIs take no prefixes.
    Xen,
    /// EC2 names none, as for bare metal.
    Unknown,
}

/// One network card of an instance type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkCard {
    /// `networkCardIndex`; 0 is the card that holds the primary ENI.
    pub index: u16,
    /// How many ENIs the card takes, the primary ENI included.
    pub max_enis: u16,
}

/// The limits of one instance type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceType {
    /// For example `m5.large`.
    pub name: &'static str,
    /// Slots of one ENI. The primary address, each secondary address and each prefix take one.
    pub ipv4_per_eni: u16,
    /// IPv6 addresses and prefixes together on one ENI. `None` if EC2 publishes no number.
    pub ipv6_per_eni: Option<u16>,
    /// `networkInfo.ipv6Supported`. `None` if EC2 does not publish it.
    pub ipv6_supported: Option<bool>,
    /// The hypervisor of the instance.
    pub hypervisor: Hypervisor,
    /// Whether the instance is the whole machine.
    pub bare_metal: bool,
    /// `defaultNetworkCardIndex`.
    pub default_card: u16,
    /// The network cards, ascending by index. Never empty.
    pub cards: Vec<NetworkCard>,
    /// `vCpuInfo.defaultVCpus`. `None` if EC2 does not publish it.
    pub vcpus: Option<u32>,
    /// `processorInfo.supportedArchitectures`. Empty if EC2 does not publish it.
    pub architectures: Vec<&'static str>,
}

impl InstanceType {
    /// ENIs of the default network card, which serves pods.
    #[must_use]
    pub fn max_enis(&self) -> u16 {
        self.cards.iter().find(|card| card.index == self.default_card).map_or(0, |c| c.max_enis)
    }

    /// ENIs of all network cards together (`maximumNetworkInterfaces`).
    #[must_use]
    pub fn max_enis_all_cards(&self) -> u16 {
        self.cards.iter().map(|card| card.max_enis).sum()
    }

    /// The most ENA queues that a client may give one ENI. `None` if it may not choose their number.
    /// A number must be a power of two.
    #[must_use]
    pub fn max_ena_queues(&self) -> Option<u32> {
        let family = self.name.split('.').next().unwrap_or_default();
        let is_in = |families: &str| families.split_whitespace().any(|name| name == family);
        let vcpus = self.vcpus?;
        match () {
            () if is_in(UP_TO_32_QUEUES) => Some(vcpus.min(32)),
            () if is_in(UP_TO_128_QUEUES) => Some(vcpus.min(128)),
            () if is_in(HALF_AS_MANY_QUEUES) => Some(vcpus / 2),
            () => None,
        }
    }

    /// Whether its ENIs take IPv4 prefixes. Nitro and bare-metal types do.
    #[must_use]
    pub fn supports_prefixes(&self) -> bool {
        self.hypervisor != Hypervisor::Xen
    }
}

/// Families whose ENIs may have up to 32 ENA queues. Source of this and the next two lists: EC2 User
/// Guide, "ENA queues", November 2026.
const UP_TO_32_QUEUES: &str = "c6i c6id c6in m6i m6id m6idn m6in r6i r6id r6idn r6in";
/// Families whose ENIs may have up to 128 ENA queues.
const UP_TO_128_QUEUES: &str = "c8a c8gb c8gn c8i c8ib c8id c8in c8ine c9g c9gd g7 hpc8a i8ge m8a \
                                m8azn m8gb m8gn m8i m8ib m8id m8idb m8idn m8in m8ine m9g m9gd r8a \
                                r8gb r8gn r8i r8ib r8id r8idb r8idn r8in r9g r9gd x8aedz x8i";
/// Families whose ENIs may have one ENA queue for two vCPUs.
const HALF_AS_MANY_QUEUES: &str = "c8i-flex m8i-flex r8i-flex";

/// The limits of type `name`. `None` if the type is newer than the table.
#[must_use]
pub fn lookup(name: &str) -> Option<&'static InstanceType> {
    TYPES.get(name)
}

/// Every type of the table, ascending by name.
pub fn all() -> impl Iterator<Item = &'static InstanceType> {
    TYPES.values()
}

fn parse_row(row: &'static str) -> InstanceType {
    let bug = "a test parses every row of the table";
    let fields: Vec<&str> = row.split(',').collect();
    let [name, ipv4, ipv6, ipv6_supported, hypervisor, metal, default_card, cards, vcpus, arch] =
        fields[..]
    else {
        unreachable!("{bug}: {row}");
    };
    InstanceType {
        name,
        ipv4_per_eni: ipv4.parse().expect(bug),
        ipv6_per_eni: ipv6.parse().ok(),
        ipv6_supported: (!ipv6_supported.is_empty()).then(|| ipv6_supported == "1"),
        hypervisor: match hypervisor {
            "nitro" => Hypervisor::Nitro,
            "xen" => Hypervisor::Xen,
            _ => Hypervisor::Unknown,
        },
        bare_metal: metal == "1",
        default_card: default_card.parse().expect(bug),
        cards: cards.split(';').map(|card| parse_card(card).expect(bug)).collect(),
        vcpus: vcpus.parse().ok(),
        architectures: arch.split('|').filter(|name| !name.is_empty()).collect(),
    }
}

fn parse_card(text: &str) -> Option<NetworkCard> {
    let (index, max_enis) = text.split_once(':')?;
    Some(NetworkCard { index: index.parse().ok()?, max_enis: max_enis.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_row_is_valid() {
        assert_eq!(all().count(), 1418);
        for row in all() {
            assert!(row.ipv4_per_eni >= 2 && row.max_enis() >= 1, "{row:?}");
            assert!(row.cards.is_sorted_by_key(|card| card.index), "{row:?}");
        }
    }

    #[test]
    fn ena_queues_follow_family_and_vcpus() {
        let check = |name: &str, expect: Option<u32>| {
            assert_eq!(lookup(name).expect(name).max_ena_queues(), expect, "{name}");
        };
        check("m5.large", None);
        check("c8g.large", None);
        check("m6i.large", Some(2));
        check("m6idn.32xlarge", Some(32));
        check("c8i.24xlarge", Some(96));
        check("r8a.48xlarge", Some(128));
        check("m8i-flex.16xlarge", Some(32));
        let families = [UP_TO_32_QUEUES, UP_TO_128_QUEUES, HALF_AS_MANY_QUEUES].join(" ");
        for family in families.split_whitespace().filter(|family| *family != "g7") {
            let mut names = all().map(|row| row.name.split('.').next());
            assert!(names.any(|name| name == Some(family)), "{family} is not in the table");
        }
    }

    #[test]
    fn lookup_returns_published_limits() {
        let check = |name: &str, enis: u16, all_cards: u16, ipv4: u16, prefixes: bool| {
            let row = lookup(name).expect(name);
            assert_eq!(
                (row.max_enis(), row.max_enis_all_cards(), row.ipv4_per_eni),
                (enis, all_cards, ipv4),
                "{name}"
            );
            assert_eq!(row.supports_prefixes(), prefixes, "{name}");
        };
        check("t2.micro", 2, 2, 2, false);
        check("t3.small", 3, 3, 4, true);
        check("m5.large", 3, 3, 10, true);
        check("m5.metal", 15, 15, 50, true);
        check("p4d.24xlarge", 15, 60, 50, true);
        check("p5.48xlarge", 2, 64, 50, true);
        assert_eq!(lookup("m5.enormous"), None);
    }
}

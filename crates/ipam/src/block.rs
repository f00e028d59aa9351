//! What EC2 assigns to an ENI for pods: single IPv4 addresses, and prefixes of both families.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::action::Action;

/// Length of an IPv4 prefix: 16 addresses.
pub const IPV4_PREFIX_LEN: u8 = 28;
/// Length of an IPv6 prefix.
pub const IPV6_PREFIX_LEN: u8 = 80;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of `address`.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv6() { Family::V6 } else { Family::V4 }
    }
}

/// What EC2 assigns to an ENI at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockKind {
    /// A secondary IPv4 address, `/32`.
    V4Address,
    /// An IPv4 prefix, `/28`.
    V4Prefix,
    /// An IPv6 prefix, `/80`.
    V6Prefix,
}

impl BlockKind {
    /// Its address family.
    #[must_use]
    pub fn family(self) -> Family {
        match self {
            BlockKind::V4Address | BlockKind::V4Prefix => Family::V4,
            BlockKind::V6Prefix => Family::V6,
        }
    }

    /// The pool's mode in one word, as commands and the socket have it: `secondary-ip`, `prefix` or `ipv6`.
    #[must_use]
    pub fn mode(self) -> &'static str {
        match self {
            BlockKind::V4Address => "secondary-ip",
            BlockKind::V4Prefix => "prefix",
            BlockKind::V6Prefix => "ipv6",
        }
    }

    /// Whether it is a prefix rather than a single address.
    #[must_use]
    pub fn is_prefix(self) -> bool {
        match self {
            BlockKind::V4Address => false,
            BlockKind::V4Prefix | BlockKind::V6Prefix => true,
        }
    }

    /// Addresses in one block: 1, 16 or 2^48.
    #[must_use]
    pub fn size(self) -> u64 {
        match self {
            BlockKind::V4Address => 1,
            BlockKind::V4Prefix => 1 << (32 - IPV4_PREFIX_LEN),
            BlockKind::V6Prefix => 1 << (128 - IPV6_PREFIX_LEN),
        }
    }

    /// EC2's action that puts blocks of this kind on an ENI.
    #[must_use]
    pub fn assign_action(self) -> Action {
        match self.family() {
            Family::V4 => Action::Assign,
            Family::V6 => Action::AssignIpv6,
        }
    }

    /// EC2's action that takes blocks of this kind off an ENI.
    #[must_use]
    pub fn unassign_action(self) -> Action {
        match self.family() {
            Family::V4 => Action::Unassign,
            Family::V6 => Action::UnassignIpv6,
        }
    }

    /// `n` blocks of this kind.
    #[must_use]
    pub fn times(self, n: u16) -> BlockCount {
        BlockCount { kind: self, n }
    }
}

/// A number of blocks of one kind. One EC2 call asks for one kind, and for at least one block, or for
/// none at the creation of an ENI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredBlockCount")]
pub struct BlockCount {
    /// Their kind.
    pub kind: BlockKind,
    /// How many.
    pub n: u16,
}

impl BlockCount {
    /// `n` blocks of the same kind.
    #[must_use]
    pub fn with_n(self, n: u16) -> Self {
        Self { n, ..self }
    }
}

impl fmt::Display for BlockCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            BlockKind::V4Address => "addresses",
            BlockKind::V4Prefix => "prefixes",
            BlockKind::V6Prefix => "IPv6 prefixes",
        };
        write!(f, "{} {what}", self.n)
    }
}

/// A [`BlockCount`] as records have it.
#[derive(Deserialize)]
#[serde(untagged)]
enum StoredBlockCount {
    Current { kind: BlockKind, n: u16 },
    UpToVersion2(OldAsk),
}

/// As records up to version 2 have it.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum OldAsk {
    Addresses(u16),
    Prefixes(u16),
    Ipv6Prefixes(u16),
}

impl From<StoredBlockCount> for BlockCount {
    fn from(stored: StoredBlockCount) -> Self {
        match stored {
            StoredBlockCount::Current { kind, n } => Self { kind, n },
            StoredBlockCount::UpToVersion2(OldAsk::Addresses(n)) => BlockKind::V4Address.times(n),
            StoredBlockCount::UpToVersion2(OldAsk::Prefixes(n)) => BlockKind::V4Prefix.times(n),
            StoredBlockCount::UpToVersion2(OldAsk::Ipv6Prefixes(n)) => BlockKind::V6Prefix.times(n),
        }
    }
}

/// A CIDR that is no block for pods.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is neither one IPv4 address nor an aligned /28 or /80")]
pub struct InvalidBlock(IpNet);

/// A secondary IPv4 address (`/32`) or a prefix (`/28`, `/80`) on an ENI.
///
/// A pod may get every address of a prefix, the first and the last included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "IpNet", into = "IpNet")]
pub struct Block(IpNet);

impl Block {
    /// The block that is one IPv4 address.
    #[must_use]
    pub fn address(ip: Ipv4Addr) -> Self {
        Self(IpNet::from(IpAddr::V4(ip)))
    }

    /// The blocks that may hold `ip`, at most one of each kind.
    pub(crate) fn candidates(ip: IpAddr) -> impl Iterator<Item = Self> {
        let lengths: &[u8] = match ip {
            IpAddr::V4(_) => &[32, IPV4_PREFIX_LEN],
            IpAddr::V6(_) => &[IPV6_PREFIX_LEN],
        };
        let nets = lengths.iter().filter_map(move |length| IpNet::new(ip, *length).ok());
        nets.map(|net| Self(net.trunc()))
    }

    /// The CIDR.
    #[must_use]
    pub fn cidr(self) -> IpNet {
        self.0
    }

    /// Its kind.
    #[must_use]
    pub fn kind(self) -> BlockKind {
        match self.0 {
            IpNet::V4(net) if net.prefix_len() == 32 => BlockKind::V4Address,
            IpNet::V4(_) => BlockKind::V4Prefix,
            IpNet::V6(_) => BlockKind::V6Prefix,
        }
    }

    /// Its address family.
    #[must_use]
    pub fn family(self) -> Family {
        self.kind().family()
    }

    /// Whether it is a prefix rather than a single address.
    #[must_use]
    pub fn is_prefix(self) -> bool {
        self.kind().is_prefix()
    }

    /// Number of addresses: 1, 16 or 2^48.
    #[must_use]
    pub fn size(self) -> u64 {
        self.kind().size()
    }

    /// Whether `ip` lies in it.
    #[must_use]
    pub fn contains(self, ip: IpAddr) -> bool {
        self.0.contains(&ip)
    }

    /// Whether an address lies in both.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.0.contains(&other.0) || other.0.contains(&self.0)
    }

    /// Its first and its last address.
    #[must_use]
    pub fn bounds(self) -> (IpAddr, IpAddr) {
        (self.0.network(), self.0.broadcast())
    }

    /// Its addresses, ascending from the `n`th on and around. Lazy, since a /80 has too many to list.
    pub fn addresses_from(self, n: u64) -> impl Iterator<Item = IpAddr> {
        (0..self.size()).map(move |step| self.nth(n.wrapping_add(step) % self.size()))
    }

    /// The `n`th of its addresses; `n` is less than its size.
    fn nth(self, n: u64) -> IpAddr {
        match self.0 {
            IpNet::V4(net) => {
                // An IPv4 block has 16 addresses at most.
                let n = u32::try_from(n).unwrap_or(0);
                IpAddr::V4((u32::from(net.network()) | n).into())
            }
            IpNet::V6(net) => IpAddr::V6((u128::from(net.network()) | u128::from(n)).into()),
        }
    }
}

impl TryFrom<IpNet> for Block {
    type Error = InvalidBlock;

    fn try_from(net: IpNet) -> Result<Self, InvalidBlock> {
        let length_fits = match net {
            IpNet::V4(net) => [IPV4_PREFIX_LEN, 32].contains(&net.prefix_len()),
            IpNet::V6(net) => net.prefix_len() == IPV6_PREFIX_LEN,
        };
        if length_fits && net.addr() == net.network() {
            Ok(Self(net))
        } else {
            Err(InvalidBlock(net))
        }
    }
}

impl TryFrom<Ipv4Net> for Block {
    type Error = InvalidBlock;

    fn try_from(net: Ipv4Net) -> Result<Self, InvalidBlock> {
        Self::try_from(IpNet::V4(net))
    }
}

impl TryFrom<Ipv6Net> for Block {
    type Error = InvalidBlock;

    fn try_from(net: Ipv6Net) -> Result<Self, InvalidBlock> {
        Self::try_from(IpNet::V6(net))
    }
}

impl From<Block> for IpNet {
    fn from(block: Block) -> IpNet {
        block.0
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_of_another_length_or_alignment_is_refused() {
        let block = |text: &str| text.parse::<IpNet>().map(Block::try_from);
        for good in ["10.0.0.5/32", "10.0.0.16/28", "2001:db8::/80"] {
            assert_eq!(block(good).unwrap().unwrap().to_string(), good);
        }
        for bad in [
            "10.0.0.5/28",
            "10.0.0.0/24",
            "0.0.0.0/0",
            "2001:db8::1/80",
            "2001:db8::/64",
            "2001:db8::7/128",
        ] {
            assert!(block(bad).unwrap().is_err(), "{bad}");
        }
    }

    #[test]
    fn overlaps_is_symmetric() {
        let check = |a: &str, b: &str, expect| {
            let block = |text: &str| Block::try_from(text.parse::<IpNet>().unwrap()).unwrap();
            assert_eq!(block(a).overlaps(block(b)), expect, "{a} {b}");
            assert_eq!(block(b).overlaps(block(a)), expect, "{b} {a}");
        };
        check("10.0.0.16/28", "10.0.0.16/28", true);
        check("10.0.0.16/28", "10.0.0.31/32", true);
        check("10.0.0.16/28", "10.0.0.32/32", false);
        check("10.0.0.1/32", "10.0.0.2/32", false);
        check("10.0.0.16/28", "2001:db8::/80", false);
    }

    #[test]
    fn addresses_from_wraps_around_lazily() {
        let prefix = Block::try_from("10.0.0.16/28".parse::<IpNet>().unwrap()).unwrap();
        let addresses: Vec<_> = prefix.addresses_from(0).map(|ip| ip.to_string()).collect();
        assert_eq!((addresses.len(), prefix.size()), (16, 16));
        assert_eq!((&*addresses[0], &*addresses[15]), ("10.0.0.16", "10.0.0.31"));
        let around: Vec<_> = prefix.addresses_from(15).map(|ip| ip.to_string()).collect();
        assert_eq!((&*around[0], &*around[1], around.len()), ("10.0.0.31", "10.0.0.16", 16));
        let v6 = Block::try_from("2001:db8::/80".parse::<IpNet>().unwrap()).unwrap();
        let last: Vec<_> = v6.addresses_from((1 << 48) - 1).take(2).collect();
        assert_eq!(last[0].to_string(), "2001:db8::ffff:ffff:ffff");
        assert_eq!(last[1].to_string(), "2001:db8::");
        assert_eq!(v6.size(), 1 << 48);
    }

    #[test]
    fn candidates_hold_the_address() {
        let check = |ip: &str, expect: &[&str]| {
            let ip: IpAddr = ip.parse().unwrap();
            let found: Vec<_> = Block::candidates(ip).map(|block| block.to_string()).collect();
            assert_eq!(found, expect);
        };
        check("10.0.0.21", &["10.0.0.21/32", "10.0.0.16/28"]);
        check("2001:db8::1:2:3:4", &["2001:db8:0:0:1::/80"]);
    }

    #[test]
    fn block_count_of_a_version_2_record_is_read() {
        let check = |json: &str, expect: BlockCount| {
            assert_eq!(serde_json::from_str::<BlockCount>(json).unwrap(), expect, "{json}");
            let current = serde_json::to_string(&expect).unwrap();
            assert_eq!(serde_json::from_str::<BlockCount>(&current).unwrap(), expect, "{current}");
        };
        check(r#"{"addresses":3}"#, BlockKind::V4Address.times(3));
        check(r#"{"prefixes":1}"#, BlockKind::V4Prefix.times(1));
        check(r#"{"ipv6_prefixes":1}"#, BlockKind::V6Prefix.times(1));
        assert!(serde_json::from_str::<BlockCount>(r#"{"stones":1}"#).is_err());
    }
}

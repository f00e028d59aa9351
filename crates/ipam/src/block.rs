//! What EC2 assigns to an ENI: single addresses and prefixes, as one type.

use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// Length of an IPv4 prefix: 16 addresses.
pub const IPV4_PREFIX_LEN: u8 = 28;
/// Length of an IPv6 prefix.
pub const IPV6_PREFIX_LEN: u8 = 80;

/// A CIDR that EC2 does not assign to an ENI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is neither one address nor an aligned /28 or /80")]
pub struct InvalidBlock(IpNet);

/// A secondary address (`/32`, `/128`) or a prefix (`/28`, `/80`) on an ENI.
///
/// A pod may get every address of a prefix, the first and the last included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "IpNet", into = "IpNet")]
pub struct Block(IpNet);

impl Block {
    /// The block that is one address.
    #[must_use]
    pub fn address(ip: IpAddr) -> Self {
        Self(IpNet::from(ip))
    }

    /// The CIDR.
    #[must_use]
    pub fn cidr(self) -> IpNet {
        self.0
    }

    /// Whether it is a prefix rather than a single address.
    #[must_use]
    pub fn is_prefix(self) -> bool {
        self.0.prefix_len() != self.0.max_prefix_len()
    }

    /// Whether it is of IPv6.
    #[must_use]
    pub fn is_ipv6(self) -> bool {
        matches!(self.0, IpNet::V6(_))
    }

    /// Number of addresses: 1, 16 or 2^48.
    #[must_use]
    pub fn size(self) -> u64 {
        1 << (self.0.max_prefix_len() - self.0.prefix_len())
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

    /// Its addresses, ascending from the `n`th on and around, and lazily: a /80 has too many to list.
    pub fn addresses_from(self, n: u64) -> impl Iterator<Item = IpAddr> {
        (0..self.size()).map(move |step| self.nth(n.wrapping_add(step) % self.size()))
    }

    /// The `n`th of its addresses; `n` is less than its size.
    fn nth(self, n: u64) -> IpAddr {
        match self.0 {
            IpNet::V4(net) => {
                // A block of IPv4 has 16 addresses at most.
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
            IpNet::V6(net) => [IPV6_PREFIX_LEN, 128].contains(&net.prefix_len()),
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
    fn only_what_ec2_assigns_is_a_block() {
        let block = |text: &str| text.parse::<IpNet>().map(Block::try_from);
        for good in ["10.0.0.5/32", "10.0.0.16/28", "2001:db8::/80", "2001:db8::7/128"] {
            assert_eq!(block(good).unwrap().unwrap().to_string(), good);
        }
        for bad in ["10.0.0.5/28", "10.0.0.0/24", "0.0.0.0/0", "2001:db8::1/80", "2001:db8::/64"] {
            assert!(block(bad).unwrap().is_err(), "{bad}");
        }
    }

    #[test]
    fn overlap() {
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
    fn addresses_are_all_and_lazy() {
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
}

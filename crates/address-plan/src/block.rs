//! CIDR blocks of both families as numbers, so that each rule is written once.
//!
//! A block's first address is aligned to the top of 128 bits. So an IPv4 block and an IPv6 block of
//! one length have the same arithmetic, and only the way back to a CIDR needs the family.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ec2_api::ApiError;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// `AddressFamily`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// `ipv4`
    Ipv4,
    /// `ipv6`
    Ipv6,
}

impl Family {
    /// The family of a CIDR.
    #[must_use]
    pub const fn of(cidr: IpNet) -> Self {
        match cidr {
            IpNet::V4(_) => Self::Ipv4,
            IpNet::V6(_) => Self::Ipv6,
        }
    }

    /// Bits of an address.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Ipv4 => 32,
            Self::Ipv6 => 128,
        }
    }

    /// The API's name of the family.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }
}

impl FromStr for Family {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        match text {
            "ipv4" => Ok(Self::Ipv4),
            "ipv6" => Ok(Self::Ipv6),
            _ => Err(ApiError::invalid_value(text, "addressFamily", "")),
        }
    }
}

/// A CIDR without host bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    first: u128,
    len: u8,
}

impl Block {
    /// All addresses of a family.
    pub(crate) const ALL: Self = Self { first: 0, len: 0 };

    /// The block with these leading bits. Host bits are cleared. `len` is at most 128.
    pub(crate) fn new(first: u128, len: u8) -> Self {
        debug_assert!(len <= 128, "an address has 128 bits");
        Self { first: first & !host_mask(len), len }
    }

    /// The first address, aligned to the top.
    pub(crate) fn first(self) -> u128 {
        self.first
    }

    /// The last address, aligned to the top, with all bits below set.
    pub(crate) fn last(self) -> u128 {
        self.first | host_mask(self.len)
    }

    /// The prefix length.
    #[must_use]
    pub const fn prefix_len(self) -> u8 {
        self.len
    }

    /// Whether `other` lies in this block, or is this block.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.len <= other.len && other.first & !host_mask(self.len) == self.first
    }

    /// Whether the blocks have an address in common: then one contains the other.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other) || other.contains(self)
    }

    /// The block of this length around it. `len` must not be longer.
    pub(crate) fn widened(self, len: u8) -> Self {
        Self::new(self.first, len)
    }

    /// The two halves. The block must be longer than one address of its family.
    pub(crate) fn halves(self) -> [Self; 2] {
        let len = self.len + 1;
        let bit = 1 << (128 - u32::from(len));
        [Self { first: self.first, len }, Self { first: self.first | bit, len }]
    }

    /// The other half of the block around it. `len` must not be 0.
    pub(crate) fn sibling(self) -> Self {
        Self { first: self.first ^ (1 << (128 - u32::from(self.len))), len: self.len }
    }

    /// Its share of all addresses of a family: 1 for /0.
    pub(crate) fn share(self) -> f64 {
        0.5f64.powi(i32::from(self.len))
    }

    /// The block as a CIDR of `family`. The length must suit the family.
    pub(crate) fn to_net(self, family: Family) -> IpNet {
        match family {
            Family::Ipv4 => {
                let bits = u32::try_from(self.first >> 96).expect("32 bits are left");
                IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from_bits(bits), self.len))
            }
            Family::Ipv6 => {
                IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(self.first), self.len))
            }
        }
    }
}

impl From<IpNet> for Block {
    fn from(cidr: IpNet) -> Self {
        match cidr {
            IpNet::V4(cidr) => {
                Self::new(u128::from(cidr.addr().to_bits()) << 96, cidr.prefix_len())
            }
            IpNet::V6(cidr) => Self::new(cidr.addr().to_bits(), cidr.prefix_len()),
        }
    }
}

/// The bits that differ within a block of this length.
fn host_mask(len: u8) -> u128 {
    u128::MAX.checked_shr(u32::from(len)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &str) -> Block {
        Block::from(text.parse::<IpNet>().unwrap())
    }

    #[test]
    fn block_and_cidr_are_the_same() {
        let check = |text: &str, expect: &str| {
            let cidr: IpNet = text.parse().unwrap();
            assert_eq!(Block::from(cidr).to_net(Family::of(cidr)).to_string(), expect);
        };
        check("10.1.2.3/8", "10.0.0.0/8");
        check("0.0.0.0/0", "0.0.0.0/0");
        check("255.255.255.255/32", "255.255.255.255/32");
        check("::/0", "::/0");
        check("2600:1f13::1/128", "2600:1f13::1/128");
    }

    #[test]
    fn halves_and_sibling_make_up_the_parent() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "10.0.0.0/31", "::/0", "2600::/127"] {
            let parent = block(text);
            let [low, high] = parent.halves();
            assert_eq!((low.sibling(), high.sibling()), (high, low), "{text}");
            assert_eq!((low.first(), high.last()), (parent.first(), parent.last()), "{text}");
            assert!(parent.contains(low) && parent.contains(high) && !low.overlaps(high));
            assert_eq!(high.widened(parent.prefix_len()), parent, "{text}");
            assert!((low.share() + high.share() - parent.share()).abs() < f64::EPSILON);
        }
    }
}

//! IPv4 and IPv6 behind one trait, so that each rule about addresses is written once.

use std::fmt::{Debug, Display};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// An address family.
pub(crate) trait Family: Debug + Clone + PartialEq + 'static {
    type Addr: Copy + Ord + Debug + Display;
    type Net: Copy + Ord + Debug + Display + Into<IpNet>;
    /// The family as EC2 writes it in error texts.
    const NAME: &'static str;
    /// Bits of an address.
    const BITS: u8;
    /// Length of the prefixes that EC2 assigns to an ENI.
    const PREFIX_LEN: u8;
    /// EC2's names of the parameters in error texts: addresses, their count, prefixes, their count.
    const PARAMETERS: [&'static str; 4];
    /// EC2's name of one address in error texts.
    const ADDRESS: &'static str;
    /// EC2's error text if the request names none of them. It uses other names for two of them.
    const NOTHING_GIVEN: &'static str;

    fn number(addr: Self::Addr) -> u128;
    /// The address with this number. Bits above the family's width are ignored.
    fn addr(number: u128) -> Self::Addr;
    /// The network address (host bits kept) and the length.
    fn parts(net: Self::Net) -> (u128, u8);
    /// The prefix that begins at `first`.
    fn prefix(first: u128) -> Self::Net;
}

/// 32 bits, /28.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum V4 {}

/// 128 bits, /80.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum V6 {}

impl Family for V4 {
    type Addr = Ipv4Addr;
    type Net = Ipv4Net;
    const NAME: &'static str = "IPv4";
    const BITS: u8 = 32;
    const PREFIX_LEN: u8 = 28;
    const PARAMETERS: [&'static str; 4] = [
        "privateIpAddressSet",
        "secondaryPrivateIpAddressCount",
        "ipv4Prefixes",
        "ipv4PrefixCount",
    ];
    const ADDRESS: &'static str = "privateIpAddress";
    const NOTHING_GIVEN: &'static str = "One of privateIpAddressSet or privateIpAddressCount or \
                                         ipv4PrefixSet or ipv4PrefixCount must be specified.";

    fn number(addr: Ipv4Addr) -> u128 {
        u128::from(u32::from(addr))
    }

    fn addr(number: u128) -> Ipv4Addr {
        let low = number & u128::from(u32::MAX);
        Ipv4Addr::from(u32::try_from(low).expect("masked to 32 bits"))
    }

    fn parts(net: Ipv4Net) -> (u128, u8) {
        (Self::number(net.addr()), net.prefix_len())
    }

    fn prefix(first: u128) -> Ipv4Net {
        Ipv4Net::new_assert(Self::addr(first), Self::PREFIX_LEN)
    }
}

impl Family for V6 {
    type Addr = Ipv6Addr;
    type Net = Ipv6Net;
    const NAME: &'static str = "IPv6";
    const BITS: u8 = 128;
    const PREFIX_LEN: u8 = 80;
    const PARAMETERS: [&'static str; 4] =
        ["ipv6Addresses", "ipv6AddressCount", "ipv6Prefixes", "ipv6PrefixCount"];
    const ADDRESS: &'static str = "ipv6Address";
    const NOTHING_GIVEN: &'static str = "One of ipv6Addresses or ipv6AddressCount or \
                                         ipv6Prefixes or ipv6PrefixCount must be specified.";

    fn number(addr: Ipv6Addr) -> u128 {
        addr.to_bits()
    }

    fn addr(number: u128) -> Ipv6Addr {
        Ipv6Addr::from_bits(number)
    }

    fn parts(net: Ipv6Net) -> (u128, u8) {
        (Self::number(net.addr()), net.prefix_len())
    }

    fn prefix(first: u128) -> Ipv6Net {
        Ipv6Net::new_assert(Self::addr(first), Self::PREFIX_LEN)
    }
}

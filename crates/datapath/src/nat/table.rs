//! The words of nftables that our table uses. Printed as `nft list table` prints them.

use std::fmt;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;

use ipnet::{IpNet, Ipv4Net};
use netlink_packet_netfilter::NetfilterProtoFamily;

use super::SourcePorts;

/// The table's name, in each family.
pub(super) const NAME: &str = "tidepool";
/// The set's name.
pub(super) const SET: &str = "untranslated";

/// A table with at most one set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) family: Family,
    /// Ascending ranges that do not overlap.
    pub(super) untranslated: Option<Vec<Ipv4Net>>,
    pub(super) chains: Vec<Chain>,
}

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Those of IPv4.
    Ip,
    /// Those of IPv6.
    Ip6,
}

impl Family {
    pub(super) fn of(range: &IpNet) -> Self {
        match range {
            IpNet::V4(_) => Family::Ip,
            IpNet::V6(_) => Family::Ip6,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Family::Ip => "ip",
            Family::Ip6 => "ip6",
        }
    }

    pub(super) fn number(self) -> NetfilterProtoFamily {
        match self {
            Family::Ip => NetfilterProtoFamily::IPv4,
            Family::Ip6 => NetfilterProtoFamily::IPv6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A chain that the kernel enters on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: &'static str,
    pub(super) place: Place,
    pub(super) rules: Vec<Vec<Statement>>,
}

/// When the kernel enters a chain. The numbers are from its `linux/netfilter_ipv4.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Before destinations are translated, since a node port is an address of the node until then.
    BeforeServices,
    /// After kube-proxy has translated destinations, in whatever mode, and before the kernel looks for a route.
    AfterServices,
    /// Where packets pass that are not for the host, among all other filters.
    Passing,
    /// Where sources are translated, after kube-proxy: it may masquerade the packet first.
    Leaving,
}

impl Place {
    /// The type of the chain, the number of the hook, and the priority.
    pub(super) fn hook(self) -> (&'static str, u32, i32) {
        match self {
            Place::BeforeServices => ("filter", 0, -150),
            Place::AfterServices => ("filter", 0, -90),
            Place::Passing => ("filter", 2, 0),
            Place::Leaving => ("nat", 4, 110),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::BeforeServices => "type filter hook prerouting priority mangle",
            Place::AfterServices => "type filter hook prerouting priority dstnat + 10",
            Place::Passing => "type filter hook forward priority filter",
            Place::Leaving => "type nat hook postrouting priority srcnat + 10",
        })
    }
}

/// A part of a rule: what must be true of the packet, or what is done to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Statement {
    /// It has come in by this device.
    FromDevice(String),
    /// It has come in by a device whose name starts so.
    FromDevices(String),
    /// Its source is in this range.
    FromRange(IpNet),
    /// Its destination is in this range.
    ToRange(IpNet),
    /// Its destination is not in this range.
    NotToRange(IpNet),
    /// Its connection is new.
    IsNew,
    /// Its destination is not in the set.
    ToElsewhere,
    /// Its destination is no address of the host.
    NotToHost,
    /// Its destination is an address of the device that it has come in by.
    ToDevice,
    /// Its connection has all bits of the mark.
    ConnectionHas(NonZeroU32),
    /// Its connection does not have all bits of the mark.
    ConnectionLacks(NonZeroU32),
    /// It has all bits of the mark.
    PacketHas(NonZeroU32),
    /// Marks its connection.
    MarkConnection(NonZeroU32),
    /// Marks it.
    MarkPacket(NonZeroU32),
    /// Gives it another source.
    Translate(Ipv4Addr, SourcePorts),
    /// Gives it the source that the device has by which it leaves.
    Masquerade(SourcePorts),
    /// Refuses it, with an answer of this family.
    Reject(Family),
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Statement::FromDevice(name) => write!(f, "iifname \"{name}\""),
            Statement::FromDevices(prefix) => write!(f, "iifname \"{prefix}*\""),
            Statement::FromRange(range) => write!(f, "{} saddr {range}", Family::of(range)),
            Statement::ToRange(range) => write!(f, "{} daddr {range}", Family::of(range)),
            Statement::NotToRange(range) => write!(f, "{} daddr != {range}", Family::of(range)),
            Statement::IsNew => write!(f, "ct state new"),
            Statement::ToElsewhere => write!(f, "ip daddr != @{SET}"),
            Statement::NotToHost => write!(f, "fib daddr type != local"),
            Statement::ToDevice => write!(f, "fib daddr . iif type local"),
            Statement::ConnectionHas(mark) => write!(f, "ct mark & {mark:#010x} == {mark:#010x}"),
            Statement::ConnectionLacks(mark) => write!(f, "ct mark & {mark:#010x} != {mark:#010x}"),
            Statement::PacketHas(mark) => write!(f, "meta mark & {mark:#010x} == {mark:#010x}"),
            Statement::MarkConnection(mark) => write!(f, "ct mark set ct mark | {mark:#010x}"),
            Statement::MarkPacket(mark) => write!(f, "meta mark set meta mark | {mark:#010x}"),
            Statement::Translate(address, ports) => {
                write!(f, "snat to {address}{}", ports_text(*ports))
            }
            Statement::Masquerade(ports) => write!(f, "masquerade{}", ports_text(*ports)),
            Statement::Reject(_) => write!(f, "reject"),
        }
    }
}

fn ports_text(ports: SourcePorts) -> &'static str {
    match ports {
        SourcePorts::Kept => "",
        SourcePorts::Hashed => " random",
        SourcePorts::Random => " fully-random",
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {NAME} {{", self.family)?;
        if let Some(ranges) = &self.untranslated {
            let ranges: Vec<_> = ranges.iter().map(range_text).collect();
            let ranges = ranges.join(", ");
            writeln!(f, "\tset {SET} {{\n\t\ttype ipv4_addr\n\t\tflags interval")?;
            writeln!(f, "\t\telements = {{ {ranges} }}\n\t}}")?;
        }
        for Chain { name, place, rules } in &self.chains {
            writeln!(f, "\tchain {name} {{\n\t\t{place}; policy accept;")?;
            for rule in rules {
                let rule: Vec<_> = rule.iter().map(ToString::to_string).collect();
                writeln!(f, "\t\t{}", rule.join(" "))?;
            }
            writeln!(f, "\t}}")?;
        }
        writeln!(f, "}}")
    }
}

/// `nft` prints a single address without its length.
fn range_text(range: &Ipv4Net) -> String {
    match range.prefix_len() {
        32 => range.addr().to_string(),
        _ => range.to_string(),
    }
}

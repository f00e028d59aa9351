//! The rules of the table, which are the same on every node. Names and numbers of attributes are from the kernel's
//! `linux/netfilter/nf_tables.h`.

use netlink_packet_netfilter::nftables::ChainAttribute;

use super::element::Set;
use crate::nat::encode::{
    DIFFERENT, EQUAL, Expression, LOCAL, base_chain, compare, destination_type, expression, number,
    value,
};

/// The table's name, in family `inet`.
pub(super) const NAME: &str = "tidepool-ports";

/// The table without elements, as `nft` prints it. [`CHAINS`] has the rules as the kernel takes them.
pub(super) const TEXT: &str = "\
table inet tidepool-ports {
	map any4 {
		type inet_proto . inet_service : ipv4_addr . inet_service
	}
	map address4 {
		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
	}
	map any6 {
		type inet_proto . inet_service : ipv6_addr . inet_service
	}
	map address6 {
		type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service
	}
	set masqueraded4 {
		type ipv4_addr . ipv4_addr
	}
	set masqueraded6 {
		type ipv6_addr . ipv6_addr
	}
	chain guard {
		type filter hook prerouting priority raw; policy accept;
		iifname != \"lo\" ip daddr 127.0.0.0/8 drop
	}
	chain arriving {
		type nat hook prerouting priority dstnat - 10; policy accept;
		fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @address4
		meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @any4
		fib daddr type local dnat ip6 to ip6 daddr . meta l4proto . th dport map @address6
		fib daddr type local ip6 daddr != ::1 ip6 daddr != fe80::/10 dnat ip6 to meta l4proto . th dport map @any6
	}
	chain from-node {
		type nat hook output priority -110; policy accept;
		fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @address4
		meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @any4
		fib daddr type local dnat ip6 to ip6 daddr . meta l4proto . th dport map @address6
		fib daddr type local ip6 daddr != ::1 ip6 daddr != fe80::/10 dnat ip6 to meta l4proto . th dport map @any6
	}
	chain leaving {
		type nat hook postrouting priority srcnat - 10; policy accept;
		ip saddr . ip daddr @masqueraded4 masquerade
		ip6 saddr . ip6 daddr @masqueraded6 masquerade
	}
}
";

/// The chains of the table.
pub(super) const CHAINS: [ChainOf; 4] = [
    ChainOf { name: "guard", hook: ("filter", PREROUTING, -300), rules: guard },
    // kube-proxy comes next. Its rules do not apply to what is translated here.
    ChainOf { name: "arriving", hook: ("nat", PREROUTING, -110), rules: to_pods },
    ChainOf { name: "from-node", hook: ("nat", OUTPUT, -110), rules: to_pods },
    // Before kube-proxy and our other table, which would give these packets another source of the node.
    ChainOf { name: "leaving", hook: ("nat", POSTROUTING, 90), rules: leaving },
];

// The numbers of hooks (`NF_INET_…` of the kernel's `linux/netfilter.h`).
const PREROUTING: u32 = 0;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;

/// A chain, with the type, hook and priority by which the kernel enters it.
pub(super) struct ChainOf {
    pub(super) name: &'static str,
    hook: (&'static str, u32, i32),
    rules: fn() -> Vec<Vec<Expression>>,
}

impl ChainOf {
    pub(super) fn attributes(&self) -> Vec<ChainAttribute> {
        base_chain(self.name, self.hook)
    }

    pub(super) fn rules(&self) -> Vec<Vec<Expression>> {
        (self.rules)()
    }
}

/// The links of pods with ports let packets for the loopback address in, see [`add`](super::add). Answers to the node come
/// for another of its addresses, so no packet has a reason to name that one.
fn guard() -> Vec<Vec<Expression>> {
    /// The kernel compares the whole name, which ends with zeroes.
    const LOOPBACK: [u8; 16] = *b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let mut rule = vec![meta(IIFNAME, FIRST), compare(DIFFERENT, &LOOPBACK)];
    rule.extend(is_family(IPV4));
    rule.extend([network(16, 1, FIRST), compare(EQUAL, &[127]), drop_packet()]);
    vec![rule]
}

/// A port of one address comes before one of all.
fn to_pods() -> Vec<Vec<Expression>> {
    [Set::Address4, Set::Any4, Set::Address6, Set::Any6].map(to_pods_of).to_vec()
}

fn to_pods_of(map: Set) -> Vec<Expression> {
    let is_local = || vec![destination_type(false), compare(EQUAL, &LOCAL)];
    let protocol_and_port =
        |[first, second]: [u32; 2]| vec![meta(L4PROTO, first), destination_port(second)];
    // The order of conditions is that in which `nft` writes them.
    let key = match map {
        Set::Address4 => [
            is_local(),
            is_family(IPV4),
            vec![network(16, 4, FIRST)],
            protocol_and_port([SECOND, THIRD]),
        ],
        Set::Any4 => [is_family(IPV4), is_local(), Vec::new(), protocol_and_port([FIRST, SECOND])],
        Set::Address6 => [
            is_local(),
            is_family(IPV6),
            vec![network(24, 16, FIRST)],
            protocol_and_port(AFTER_IPV6),
        ],
        Set::Any6 => {
            let family = [is_family(IPV6), is_not_confined()].concat();
            [is_local(), family, Vec::new(), protocol_and_port([FIRST, SECOND])]
        }
        Set::Masqueraded4 | Set::Masqueraded6 => return Vec::new(),
    };
    let mut rule = key.concat();
    rule.extend([lookup_value(map), destination_nat(map)]);
    rule
}

/// Neither the loopback address nor a link-local one: a pod could not answer these sources.
fn is_not_confined() -> Vec<Expression> {
    let mut loopback = [0; 16];
    loopback[15] = 1;
    let (mut mask, mut link_local) = ([0; 16], [0; 16]);
    mask[..2].copy_from_slice(&[0xff, 0xc0]);
    link_local[..2].copy_from_slice(&[0xfe, 0x80]);
    let (register, none) = (number(FIRST), value(&[0; 16]));
    let masked =
        [(1, register.clone()), (2, register), (3, number(16)), (4, value(&mask)), (5, none)];
    vec![
        network(24, 16, FIRST),
        compare(DIFFERENT, &loopback),
        network(24, 16, FIRST),
        expression("bitwise", masked),
        compare(DIFFERENT, &link_local),
    ]
}

fn leaving() -> Vec<Vec<Expression>> {
    let [after_ipv6, _] = AFTER_IPV6;
    let v4 = [network(12, 4, FIRST), network(16, 4, SECOND), lookup(Set::Masqueraded4)];
    let v6 = [network(8, 16, FIRST), network(24, 16, after_ipv6), lookup(Set::Masqueraded6)];
    let rule = |family, key: [Expression; 3]| {
        let mut rule = is_family(family);
        rule.extend(key);
        rule.push(expression("masq", []));
        rule
    };
    vec![rule(IPV4, v4), rule(IPV6, v6)]
}

// The kernel has four registers of 16 bytes, numbered from 1, and the same memory in pieces of 4 bytes, numbered from 8. It
// shows the first piece of each by the lower number.
/// The first four bytes, or all 16.
const FIRST: u32 = 1;
/// The next four bytes.
const SECOND: u32 = 9;
/// The next four bytes.
const THIRD: u32 = 10;
/// The two pieces after an IPv6 address.
const AFTER_IPV6: [u32; 2] = [2, 13];

// Keys of `meta`.
const IIFNAME: u32 = 6;
const NFPROTO: u32 = 15;
const L4PROTO: u32 = 16;
// Families (`NFPROTO_…`).
const IPV4: u8 = 2;
const IPV6: u8 = 10;

fn is_family(family: u8) -> Vec<Expression> {
    vec![meta(NFPROTO, FIRST), compare(EQUAL, &[family])]
}

fn meta(key: u32, register: u32) -> Expression {
    expression("meta", [(1, number(register)), (2, number(key))])
}

/// Bytes of the IP header.
fn network(offset: u32, length: u32, register: u32) -> Expression {
    payload(1, offset, length, register)
}

/// TCP, UDP and SCTP have it in the same place.
fn destination_port(register: u32) -> Expression {
    payload(2, 2, 2, register)
}

fn payload(header: u32, offset: u32, length: u32, register: u32) -> Expression {
    let (base, offset, length) = (number(header), number(offset), number(length));
    expression("payload", [(1, number(register)), (2, base), (3, offset), (4, length)])
}

fn lookup(set: Set) -> Expression {
    expression("lookup", [(1, name(set)), (2, number(FIRST))])
}

fn lookup_value(map: Set) -> Expression {
    expression("lookup", [(1, name(map)), (2, number(FIRST)), (3, number(FIRST))])
}

fn name(set: Set) -> Vec<u8> {
    [set.name().as_bytes(), &[0]].concat()
}

/// The new destination is in the registers of a map's value.
fn destination_nat(map: Set) -> Expression {
    const DESTINATION: u32 = 1;
    let [after_ipv6, _] = AFTER_IPV6;
    let (family, port) = match map {
        Set::Any4 | Set::Address4 | Set::Masqueraded4 => (IPV4, SECOND),
        Set::Any6 | Set::Address6 | Set::Masqueraded6 => (IPV6, after_ipv6),
    };
    let (kind, family) = (number(DESTINATION), number(family.into()));
    let (address, port) = (number(FIRST), number(port));
    expression("nat", [(1, kind), (2, family), (3, address), (5, port)])
}

fn drop_packet() -> Expression {
    use netlink_packet_core::{DefaultNla, Emitable as _, NLA_F_NESTED};
    /// `NFTA_DATA_VERDICT`, with `NFTA_VERDICT_CODE` inside.
    const VERDICT: u16 = 2 | NLA_F_NESTED;
    const CODE: u16 = 1;
    const DROP: u32 = 0;
    let emitted = |kind, bytes: Vec<u8>| {
        let attribute = DefaultNla::new(kind, bytes);
        let mut out = vec![0; attribute.buffer_len()];
        attribute.emit(&mut out);
        out
    };
    let verdict = emitted(VERDICT, emitted(CODE, number(DROP)));
    expression("immediate", [(1, number(0)), (2, verdict)])
}

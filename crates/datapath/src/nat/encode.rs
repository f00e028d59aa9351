//! Our table as netlink messages. Names and numbers of attributes are from the kernel's
//! `linux/netfilter/nf_tables.h`.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use netlink_packet_core::{DefaultNla, NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DataAttribute, ExpressionAttribute, Expressions, Hook,
    HookNumber, InetHookNumber, ListAttribute, NfTablesMessage, RuleAttribute, RuleMessage,
    SetAttribute, SetElementAttribute, SetElementFlags, SetElementList, SetElementMessage,
    SetFlags, SetMessage, TableAttribute, TableMessage,
};

use super::SourcePorts;
use super::table::{Chain, Family, NAME, SET, Statement, Table};

/// One part of a rule as the kernel has it.
pub(crate) type Expression = ListAttribute<ExpressionAttribute>;

/// The attribute of a value in an attribute of data (`NFTA_DATA_VALUE`).
const VALUE: u16 = 1;
/// The register that all values pass through (`NFT_REG_1`).
pub(crate) const REGISTER: u32 = 1;
/// The type of a set's keys for `nft`: IPv4 addresses.
const IPV4_ADDRESS: u32 = 7;
/// How many elements go into one message, whose attributes are 64 KiB at most.
const ELEMENTS_PER_MESSAGE: usize = 1000;

/// The changes that replace whatever table has our name, each with its flags.
pub(super) fn replacement(table: &Table) -> Vec<(NfTablesMessage, u16)> {
    let create = |message| (message, NLM_F_CREATE);
    // Removing a table that is not there would be an error.
    let mut changes =
        vec![create(new_table(NAME)), (delete_table(NAME), 0), create(new_table(NAME))];
    if let Some(ranges) = &table.untranslated {
        changes.push(create(new_set()));
        for elements in elements(ranges).chunks(ELEMENTS_PER_MESSAGE) {
            changes.push(create(new_elements(elements)));
        }
    }
    for chain in &table.chains {
        changes.push(create(new_chain(NAME, chain_attributes(chain))));
        for rule in &chain.rules {
            let rule = new_rule(NAME, chain.name, expressions(rule));
            changes.push((rule, NLM_F_CREATE | NLM_F_APPEND));
        }
    }
    changes
}

/// Adds a table of the socket's family.
pub(crate) fn new_table(name: &str) -> NfTablesMessage {
    let attributes = vec![TableAttribute::Name(name.to_owned())];
    NfTablesMessage::NewTable(TableMessage { attributes })
}

/// Removes a table of the socket's family.
pub(crate) fn delete_table(name: &str) -> NfTablesMessage {
    let attributes = vec![TableAttribute::Name(name.to_owned())];
    NfTablesMessage::DeleteTable(TableMessage { attributes })
}

fn new_set() -> NfTablesMessage {
    NfTablesMessage::NewSet(SetMessage {
        attributes: vec![
            SetAttribute::Table(NAME.to_owned()),
            SetAttribute::Name(SET.to_owned()),
            SetAttribute::Flags(SetFlags::Interval),
            SetAttribute::KeyType(IPV4_ADDRESS),
            SetAttribute::KeyLen(4),
            SetAttribute::Id(1),
        ],
    })
}

/// The ends of the ranges: each range's first address, and the first address after the range.
pub(super) fn elements(ranges: &[Ipv4Net]) -> Vec<(Ipv4Addr, SetElementFlags)> {
    let ends = |range: &Ipv4Net| {
        let first = (range.network(), SetElementFlags::empty());
        // Nothing comes after the last address.
        let after = u32::from(range.broadcast()).checked_add(1).map(Ipv4Addr::from);
        std::iter::once(first).chain(after.map(|after| (after, SetElementFlags::IntervalEnd)))
    };
    ranges.iter().flat_map(ends).collect()
}

fn new_elements(elements: &[(Ipv4Addr, SetElementFlags)]) -> NfTablesMessage {
    let element = |(address, flags): &(Ipv4Addr, SetElementFlags)| {
        let key = SetElementAttribute::Key(DataAttribute::Value(address.octets().to_vec()));
        ListAttribute::Element(vec![key, SetElementAttribute::Flags(*flags)])
    };
    NfTablesMessage::NewSetElement(SetElementMessage {
        attributes: vec![
            SetElementList::Table(NAME.to_owned()),
            SetElementList::Set(SET.to_owned()),
            SetElementList::SetId(1),
            SetElementList::Elements(elements.iter().map(element).collect()),
        ],
    })
}

/// The attributes of a chain but its table.
pub(super) fn chain_attributes(chain: &Chain) -> Vec<ChainAttribute> {
    base_chain(chain.name, chain.place.hook())
}

/// The attributes, but the table, of a chain of this type that the kernel enters at this hook and priority.
pub(crate) fn base_chain(
    name: &str,
    (kind, hook, priority): (&str, u32, i32),
) -> Vec<ChainAttribute> {
    /// Packets that no rule decides pass (`NF_ACCEPT`).
    const ACCEPT: u32 = 1;
    vec![
        ChainAttribute::Name(name.to_owned()),
        ChainAttribute::Hook(vec![
            Hook::Number(HookNumber::Inet(InetHookNumber::from(hook))),
            Hook::Priority(priority.cast_unsigned()),
        ]),
        ChainAttribute::Type(kind.to_owned()),
        ChainAttribute::Policy(ACCEPT),
    ]
}

pub(crate) fn new_chain(table: &str, chain: Vec<ChainAttribute>) -> NfTablesMessage {
    let mut attributes = vec![ChainAttribute::Table(table.to_owned())];
    attributes.extend(chain);
    NfTablesMessage::NewChain(ChainMessage { attributes })
}

pub(crate) fn new_rule(table: &str, chain: &str, rule: Vec<Expression>) -> NfTablesMessage {
    NfTablesMessage::NewRule(RuleMessage {
        attributes: vec![
            RuleAttribute::Table(table.to_owned()),
            RuleAttribute::Chain(chain.to_owned()),
            RuleAttribute::Expressions(rule),
        ],
    })
}

/// A rule as the kernel has it.
pub(super) fn expressions(rule: &[Statement]) -> Vec<Expression> {
    rule.iter().flat_map(statement).collect()
}

fn statement(statement: &Statement) -> Vec<Expression> {
    const IIFNAME: u32 = 6;
    const CT_STATE: u32 = 0;
    const NEW: u32 = 8;
    const NO_BITS: [u8; 4] = [0; 4];
    /// The kernel compares the whole field, which ends with zeroes.
    const NAME_LENGTH: usize = 16;
    match statement {
        Statement::FromDevice(name) => {
            let mut field = name.as_bytes().to_vec();
            field.resize(NAME_LENGTH, 0);
            vec![load("meta", IIFNAME), compare(EQUAL, &field)]
        }
        Statement::FromDevices(prefix) => {
            vec![load("meta", IIFNAME), compare(EQUAL, prefix.as_bytes())]
        }
        Statement::IsNew => {
            vec![load("ct", CT_STATE), bits(NEW, 0), compare(DIFFERENT, &NO_BITS)]
        }
        Statement::FromRange(range) => in_range(Field::Source, range, EQUAL),
        Statement::ToRange(range) => in_range(Field::Destination, range, EQUAL),
        Statement::NotToRange(range) => in_range(Field::Destination, range, DIFFERENT),
        Statement::ToElsewhere => vec![header(16, 4), not_in_set()],
        Statement::NotToHost => vec![destination_type(false), compare(DIFFERENT, &LOCAL)],
        Statement::ToDevice => vec![destination_type(true), compare(EQUAL, &LOCAL)],
        Statement::ConnectionHas(mark) => has(CONNECTION_MARK, EQUAL, mark.get()),
        Statement::ConnectionLacks(mark) => has(CONNECTION_MARK, DIFFERENT, mark.get()),
        Statement::PacketHas(mark) => has(PACKET_MARK, EQUAL, mark.get()),
        Statement::MarkConnection(mark) => add(CONNECTION_MARK, mark.get(), 4),
        Statement::MarkPacket(mark) => add(PACKET_MARK, mark.get(), 3),
        Statement::Translate(address, ports) => vec![
            expression("immediate", [(1, number(REGISTER)), (2, value(&address.octets()))]),
            source_nat(*ports),
        ],
        Statement::Masquerade(SourcePorts::Kept) => vec![expression("masq", [])],
        Statement::Masquerade(ports) => vec![expression("masq", [(1, number(port_flags(*ports)))])],
        Statement::Reject(family) => vec![reject(*family)],
    }
}

/// The expression that has a mark, and the mark's number there.
const CONNECTION_MARK: (&str, u32) = ("ct", 3);
const PACKET_MARK: (&str, u32) = ("meta", 3);
pub(crate) const EQUAL: u32 = 0;
pub(crate) const DIFFERENT: u32 = 1;
/// `RTN_LOCAL`, in the processor's order.
pub(crate) const LOCAL: [u8; 4] = 2_u32.to_ne_bytes();

fn has((holder, key): (&str, u32), operator: u32, mark: u32) -> Vec<Expression> {
    vec![load(holder, key), bits(mark, 0), compare(operator, &mark.to_ne_bytes())]
}

/// `source` is the number of the attribute that names the register which is written from.
fn add((holder, key): (&str, u32), mark: u32, source: u16) -> Vec<Expression> {
    let write = expression(holder, [(2, number(key)), (source, number(REGISTER))]);
    vec![load(holder, key), bits(!mark, mark), write]
}

/// Which address of a packet.
#[derive(Clone, Copy)]
enum Field {
    Source,
    Destination,
}

fn in_range(field: Field, range: &IpNet, operator: u32) -> Vec<Expression> {
    let offset = match (range, field) {
        (IpNet::V4(_), Field::Source) => 12,
        (IpNet::V4(_), Field::Destination) => 16,
        (IpNet::V6(_), Field::Source) => 8,
        (IpNet::V6(_), Field::Destination) => 24,
    };
    let (mask, first) = (octets(range.netmask()), octets(range.network()));
    vec![header(offset, mask.len()), masked(&mask, &vec![0; mask.len()]), compare(operator, &first)]
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

pub(crate) fn load(holder: &str, key: u32) -> Expression {
    expression(holder, [(1, number(REGISTER)), (2, number(key))])
}

pub(crate) fn compare(operator: u32, with: &[u8]) -> Expression {
    expression("cmp", [(1, number(REGISTER)), (2, number(operator)), (3, value(with))])
}

/// Keeps the bits of `mask` and inverts those of `invert`, which are in the processor's order.
pub(crate) fn bits(mask: u32, invert: u32) -> Expression {
    masked(&mask.to_ne_bytes(), &invert.to_ne_bytes())
}

/// As [`bits`], of as many bytes as the arguments have.
fn masked(mask: &[u8], invert: &[u8]) -> Expression {
    let register = number(REGISTER);
    let length = number(u32::try_from(mask.len()).expect("an address is short"));
    let (mask, invert) = (value(mask), value(invert));
    expression(
        "bitwise",
        [(1, register.clone()), (2, register), (3, length), (4, mask), (5, invert)],
    )
}

/// Some bytes of the header of IPv4 or IPv6.
fn header(offset: u32, length: usize) -> Expression {
    const NETWORK_HEADER: u32 = 1;
    let length = number(u32::try_from(length).expect("an address is short"));
    let (base, offset) = (number(NETWORK_HEADER), number(offset));
    expression("payload", [(1, number(REGISTER)), (2, base), (3, offset), (4, length)])
}

fn not_in_set() -> Expression {
    const INVERTED: u32 = 1;
    let set = [SET.as_bytes(), &[0]].concat();
    expression("lookup", [(1, set), (2, number(REGISTER)), (5, number(INVERTED))])
}

/// The kind of address that the destination is to the host, or to the device that the packet has come in by.
pub(crate) fn destination_type(of_device: bool) -> Expression {
    const TYPE: u32 = 3;
    const DESTINATION: u32 = 2;
    const DEVICE: u32 = 8;
    let flags = if of_device { DESTINATION | DEVICE } else { DESTINATION };
    expression("fib", [(1, number(REGISTER)), (2, number(TYPE)), (3, number(flags))])
}

fn source_nat(ports: SourcePorts) -> Expression {
    const SOURCE: u32 = 0;
    const IPV4: u32 = 2;
    // From the kernel's `linux/netfilter/nf_nat.h`. It shows the first flag even if it is not given.
    const ADDRESS: u32 = 1;
    let (register, flags) = (number(REGISTER), number(ADDRESS | port_flags(ports)));
    expression("nat", [(1, number(SOURCE)), (2, number(IPV4)), (3, register), (7, flags)])
}

/// Answers as if nobody listened, which is what `nft` does by default.
fn reject(family: Family) -> Expression {
    const UNREACHABLE: u32 = 0;
    // The code of an unreachable port in ICMP and in ICMPv6.
    let code = match family {
        Family::Ip => 3,
        Family::Ip6 => 4,
    };
    expression("reject", [(1, number(UNREACHABLE)), (2, vec![code])])
}

fn port_flags(ports: SourcePorts) -> u32 {
    match ports {
        SourcePorts::Kept => 0,
        SourcePorts::Hashed => 4,
        SourcePorts::Random => 16,
    }
}

pub(crate) fn expression<const N: usize>(
    name: &str,
    attributes: [(u16, Vec<u8>); N],
) -> Expression {
    let attributes = attributes.into_iter().map(|(kind, value)| DefaultNla::new(kind, value));
    Expressions::Other { expression_type: name.to_owned(), attributes: attributes.collect() }.into()
}

pub(crate) fn number(number: u32) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

/// An attribute with a value inside, padded to four bytes.
pub(crate) fn value(bytes: &[u8]) -> Vec<u8> {
    use netlink_packet_core::Emitable as _;
    let inner = DefaultNla::new(VALUE, bytes.to_vec());
    let mut out = vec![0; inner.buffer_len()];
    inner.emit(&mut out);
    out
}

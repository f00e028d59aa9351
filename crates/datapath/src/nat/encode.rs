//! Our table as netlink messages. Names and numbers of attributes are from the kernel's
//! `linux/netfilter/nf_tables.h`.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlink_packet_core::{DefaultNla, NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DataAttribute, ExpressionAttribute, Expressions, Hook,
    HookNumber, InetHookNumber, ListAttribute, NfTablesMessage, RuleAttribute, RuleMessage,
    SetAttribute, SetElementAttribute, SetElementFlags, SetElementList, SetElementMessage,
    SetFlags, SetMessage, TableAttribute, TableMessage,
};

use super::SourcePorts;
use super::table::{Chain, NAME, SET, Statement, Table};

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
        Statement::ToElsewhere => vec![destination(), not_in_set()],
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

pub(crate) fn load(holder: &str, key: u32) -> Expression {
    expression(holder, [(1, number(REGISTER)), (2, number(key))])
}

pub(crate) fn compare(operator: u32, with: &[u8]) -> Expression {
    expression("cmp", [(1, number(REGISTER)), (2, number(operator)), (3, value(with))])
}

/// Keeps the bits of `mask` and inverts those of `invert`, which are in the processor's order.
pub(crate) fn bits(mask: u32, invert: u32) -> Expression {
    let (register, length) = (number(REGISTER), number(4));
    let (mask, invert) = (value(&mask.to_ne_bytes()), value(&invert.to_ne_bytes()));
    expression(
        "bitwise",
        [(1, register.clone()), (2, register), (3, length), (4, mask), (5, invert)],
    )
}

/// The destination's four bytes in the IPv4 header.
fn destination() -> Expression {
    const NETWORK_HEADER: u32 = 1;
    let (base, offset, length) = (number(NETWORK_HEADER), number(16), number(4));
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
    let ports = match ports {
        SourcePorts::Kept => 0,
        SourcePorts::Hashed => 4,
        SourcePorts::Random => 16,
    };
    let (register, flags) = (number(REGISTER), number(ADDRESS | ports));
    expression("nat", [(1, number(SOURCE)), (2, number(IPV4)), (3, register), (7, flags)])
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

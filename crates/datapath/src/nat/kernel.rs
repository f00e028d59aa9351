//! Our table in the kernel: read, compared with the wanted one, and replaced whole in one transaction. No packet passes
//! between the old table and the new one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use netlink_packet_core::{Emitable as _, NLM_F_ACK, NLM_F_DUMP, NlasIterator};
use netlink_packet_netfilter::NetfilterMessageInner;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DataAttribute, ExpressionAttribute, ListAttribute,
    NfTablesMessage, RuleAttribute, RuleMessage, SetElementAttribute, SetElementFlags,
    SetElementList, SetElementMessage, TableAttribute, TableFlags, TableMessage,
};
use rustix::io::Errno;

use super::NatError;
use super::encode::{
    Expression, chain_attributes, delete_table, elements, expressions, replacement,
};
use super::table::{Family, NAME, SET, Statement, Table};
use crate::Applied;
use crate::netfilter::Netfilter;
use crate::netlink::KernelError;

/// How often the table is read again while others change it.
const ATTEMPTS: usize = 5;

/// Makes our table of `family`, which is that of the socket, match `wanted`; `None` for no table.
pub(super) fn sync(
    netfilter: &Netfilter,
    family: Family,
    wanted: Option<&Table>,
) -> Result<Applied, NatError> {
    let unread = |error| NatError::Read(family.name(), error);
    let unwritten = |error| NatError::Write(family.name(), error);
    let found = table_facts(netfilter, NAME).map_err(unread)?;
    let Some(wanted) = wanted else {
        if found.is_none() {
            return Ok(Applied::Unchanged);
        }
        let removal = vec![(delete_table(NAME), 0)];
        netfilter.transaction(removal).map_err(unwritten)?;
        return Ok(Applied::Updated);
    };
    if matches(netfilter, wanted).map_err(unread)? {
        return Ok(Applied::Unchanged);
    }
    netfilter.transaction(replacement(wanted)).map_err(unwritten)?;
    match matches(netfilter, wanted).map_err(unread)? {
        true if found.is_none() => Ok(Applied::Added),
        true => Ok(Applied::Updated),
        false => Err(NatError::NotKept(family.name())),
    }
}

/// Whether the kernel has exactly `wanted`. Costs as much as our table is large, whatever other tables there are.
fn matches(netfilter: &Netfilter, wanted: &Table) -> Result<bool, KernelError> {
    let n_objects = wanted.chains.len() + usize::from(wanted.untranslated.is_some());
    let chains: Vec<_> = wanted.chains.iter().map(chain_attributes).collect();
    let expressions_of = |rules: &Vec<Vec<Statement>>| {
        rules.iter().map(|rule| expressions(rule)).collect::<Vec<_>>()
    };
    let rules = wanted.chains.iter().map(|chain| (chain.name, expressions_of(&chain.rules)));
    Ok(is_active(netfilter, NAME, n_objects)?
        && chains_match(netfilter, NAME, &chains)?
        && rules_match(netfilter, NAME, &rules.collect::<Vec<_>>())?
        && set_matches(netfilter, wanted)?)
}

/// Whether the table is in use, and has so many chains, sets and other objects.
pub(crate) fn is_active(
    netfilter: &Netfilter,
    table: &str,
    n_objects: usize,
) -> Result<bool, KernelError> {
    Ok(table_facts(netfilter, table)?.is_some_and(|(n_found, flags)| {
        usize::try_from(n_found) == Ok(n_objects) && !flags.contains(TableFlags::Dormant)
    }))
}

/// How many chains, sets and other objects a table has, and its flags; `None` if it is not there.
pub(crate) fn table_facts(
    netfilter: &Netfilter,
    table: &str,
) -> Result<Option<(u32, TableFlags)>, KernelError> {
    let attributes = vec![TableAttribute::Name(table.to_owned())];
    let get = NfTablesMessage::GetTable(TableMessage { attributes });
    let Some(found) = get_one(netfilter, get)? else { return Ok(None) };
    let NfTablesMessage::NewTable(TableMessage { attributes }) = found else { return Ok(None) };
    let mut facts = (0, TableFlags::empty());
    for attribute in attributes {
        match attribute {
            TableAttribute::Use(n) => facts.0 = n,
            TableAttribute::Flags(flags) => facts.1 = flags,
            _ => {}
        }
    }
    Ok(Some(facts))
}

/// Whether each of the chains is there with all its attributes.
pub(crate) fn chains_match(
    netfilter: &Netfilter,
    table: &str,
    chains: &[Vec<ChainAttribute>],
) -> Result<bool, KernelError> {
    let is_name = |attribute: &&ChainAttribute| matches!(attribute, ChainAttribute::Name(_));
    for wanted in chains {
        let mut attributes = vec![ChainAttribute::Table(table.to_owned())];
        attributes.extend(wanted.iter().find(is_name).cloned());
        let get = NfTablesMessage::GetChain(ChainMessage { attributes });
        let Some(NfTablesMessage::NewChain(found)) = get_one(netfilter, get)? else {
            return Ok(false);
        };
        if !wanted.iter().all(|attribute| found.attributes.contains(attribute)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether each of the chains has exactly these rules.
pub(crate) fn rules_match(
    netfilter: &Netfilter,
    table: &str,
    chains: &[(&str, Vec<Vec<Expression>>)],
) -> Result<bool, KernelError> {
    let attributes = vec![RuleAttribute::Table(table.to_owned())];
    let list = NfTablesMessage::GetRule(RuleMessage { attributes });
    let mut found: BTreeMap<String, Vec<Vec<Shape>>> = BTreeMap::new();
    for message in dump(netfilter, &list)? {
        let NfTablesMessage::NewRule(RuleMessage { attributes }) = message else { continue };
        let (mut chain, mut rule) = (String::new(), Vec::new());
        for attribute in attributes {
            match attribute {
                RuleAttribute::Chain(name) => chain = name,
                RuleAttribute::Expressions(expressions) => rule = shapes(&expressions),
                _ => {}
            }
        }
        found.entry(chain).or_default().push(rule);
    }
    Ok(chains.iter().all(|(chain, rules)| {
        let found = found.get(*chain).map(Vec::as_slice).unwrap_or_default();
        let wanted: Vec<_> = rules.iter().map(|rule| shapes(rule)).collect();
        found.len() == wanted.len()
            && wanted.iter().zip(found).all(|(wanted, found)| {
                wanted.len() == found.len()
                    && wanted.iter().zip(found).all(|(wanted, found)| wanted.is_in(found))
            })
    }))
}

/// One part of a rule: its name, and the value of each attribute.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shape {
    name: String,
    attributes: BTreeMap<u16, Vec<u8>>,
}

impl Shape {
    /// The kernel shows attributes that it was not given, such as defaults. Which ones depends on its version.
    fn is_in(&self, found: &Self) -> bool {
        let mut attributes = self.attributes.iter();
        self.name == found.name
            && attributes.all(|(kind, value)| found.attributes.get(kind) == Some(value))
    }
}

fn shapes(expressions: &[Expression]) -> Vec<Shape> {
    expressions.iter().map(shape).collect()
}

fn shape(expression: &Expression) -> Shape {
    let mut shape = Shape::default();
    let ListAttribute::Element(attributes) = expression else { return shape };
    for attribute in attributes {
        match attribute {
            ExpressionAttribute::Name(name) => shape.name.clone_from(name),
            ExpressionAttribute::Data(data) => {
                let mut bytes = vec![0; data.buffer_len()];
                data.emit(&mut bytes);
                let values = NlasIterator::new(&bytes).filter_map(Result::ok);
                let values = values.map(|value| (value.kind(), value.value().to_vec()));
                shape.attributes = values.collect();
            }
            _ => {}
        }
    }
    shape
}

fn set_matches(netfilter: &Netfilter, wanted: &Table) -> Result<bool, KernelError> {
    let Some(ranges) = &wanted.untranslated else { return Ok(true) };
    let table = SetElementList::Table(NAME.to_owned());
    let attributes = vec![table, SetElementList::Set(SET.to_owned())];
    let list = NfTablesMessage::GetSetElement(SetElementMessage { attributes });
    let mut found = BTreeSet::new();
    for message in dump(netfilter, &list)? {
        let NfTablesMessage::NewSetElement(SetElementMessage { attributes }) = message else {
            continue;
        };
        for attribute in attributes {
            let SetElementList::Elements(elements) = attribute else { continue };
            found.extend(elements.iter().filter_map(element));
        }
    }
    let wanted = elements(ranges).into_iter().map(|(address, flags)| (address, flags.bits()));
    Ok(found == wanted.collect())
}

fn element(element: &ListAttribute<SetElementAttribute>) -> Option<(Ipv4Addr, u32)> {
    let ListAttribute::Element(attributes) = element else { return None };
    let (mut address, mut flags) = (None, SetElementFlags::empty());
    for attribute in attributes {
        match attribute {
            SetElementAttribute::Key(DataAttribute::Value(key)) => {
                address = <[u8; 4]>::try_from(key.as_slice()).ok().map(Ipv4Addr::from);
            }
            SetElementAttribute::Flags(found) => flags = *found,
            _ => {}
        }
    }
    Some((address?, flags.bits()))
}

/// The object that `get` names; `None` if it is not there.
pub(crate) fn get_one(
    netfilter: &Netfilter,
    get: NfTablesMessage,
) -> Result<Option<NfTablesMessage>, KernelError> {
    let mut found = None;
    match netfilter.request(get, NLM_F_ACK, |message| found = nftables(message)) {
        Err(error) if error.is(Errno::NOENT) => Ok(None),
        answer => answer.map(|()| found),
    }
}

/// The objects that `list` describes. None, if their table or chain is not there.
pub(crate) fn dump(
    netfilter: &Netfilter,
    list: &NfTablesMessage,
) -> Result<Vec<NfTablesMessage>, KernelError> {
    for _ in 0..ATTEMPTS {
        let mut found = Vec::new();
        match netfilter.request(list.clone(), NLM_F_DUMP, |message| found.extend(nftables(message)))
        {
            Err(error) if error.is(Errno::NOENT) => return Ok(Vec::new()),
            Err(KernelError::Interrupted) => continue,
            answer => return answer.map(|()| found),
        }
    }
    Err(KernelError::Interrupted)
}

pub(crate) fn nftables(message: NetfilterMessageInner) -> Option<NfTablesMessage> {
    match message {
        NetfilterMessageInner::NfTables(message) => Some(message),
        _ => None,
    }
}

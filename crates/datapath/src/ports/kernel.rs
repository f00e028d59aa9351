//! The table in the kernel: its elements are listed, added and removed, its rules compared and replaced.

use std::collections::BTreeSet;

use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::{
    DataAttribute, ListAttribute, NfTablesMessage, SetAttribute, SetElementAttribute,
    SetElementList, SetElementMessage, SetFlags, SetMessage,
};
use rustix::io::Errno;

use super::PortsError;
use super::element::{Element, Set, type_and_length};
use super::frame::{CHAINS, NAME};
use crate::Owner;
use crate::nat::encode::{delete_table, new_chain, new_rule, new_table};
use crate::nat::kernel::{chains_match, dump, is_active, nftables, rules_match, table_facts};
use crate::netfilter::{Generation, Netfilter};
use crate::netlink::KernelError;

/// How many elements go into one message, whose attributes are 64 KiB at most: an element has some 200 bytes.
const ELEMENTS_PER_MESSAGE: usize = 200;
type Change = (NfTablesMessage, u16);

/// An element that the kernel has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kept {
    pub(super) element: Element,
    /// The mark of the pod's link; empty if the element is not ours.
    pub(super) owner: String,
}

/// What the kernel has at one generation of nftables. A change that follows from it is refused, with
/// [`PortsError::is_overtaken`], once anybody has changed nftables since.
#[derive(Debug)]
pub(super) struct Seen {
    read_at: Generation,
    pub(super) kept: BTreeSet<Kept>,
}

/// The table's rules, compared with the wanted ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rules {
    Right,
    /// There is a table of our name.
    Wrong,
    Missing,
}

/// After an error the socket must not be used again.
pub(super) fn open() -> Result<Netfilter, PortsError> {
    Netfilter::open_for(NetfilterProtoFamily::Inet).map_err(PortsError::Read)
}

/// Adds all elements, or none if one is there already.
pub(super) fn insert(
    netfilter: &Netfilter,
    owner: &Owner,
    elements: &BTreeSet<Element>,
) -> Result<(), KernelError> {
    let mut changes = Vec::new();
    for set in Set::ALL {
        let of_set = elements.iter().filter(|element| element.set == set);
        let listed = of_set.map(|element| whole(element, owner.as_str()));
        changes.extend(messages(set, listed, NLM_F_CREATE | NLM_F_EXCL));
    }
    netfilter.transaction(changes)
}

/// Removes elements of those that were seen, all or none.
pub(super) fn delete(seen: &Seen, elements: &BTreeSet<Kept>) -> Result<(), PortsError> {
    if elements.is_empty() {
        return Ok(());
    }
    open()?.transaction_at(seen.read_at, removals(elements)).map_err(PortsError::Write)
}

fn removals(elements: &BTreeSet<Kept>) -> Vec<Change> {
    let mut changes = Vec::new();
    for set in Set::ALL {
        let of_set = elements.iter().filter(|kept| kept.element.set == set);
        let keys: Vec<_> = of_set.map(|kept| key(&kept.element)).collect();
        let some = keys.chunks(ELEMENTS_PER_MESSAGE).map(|some| message(set, some.to_vec()));
        changes.extend(some.map(|some| (NfTablesMessage::DeleteSetElement(some), 0)));
    }
    changes
}

fn additions(elements: &BTreeSet<Kept>) -> Vec<Change> {
    let of_set = |set| elements.iter().filter(move |kept| kept.element.set == set);
    let listed = |set| of_set(set).map(|kept| whole(&kept.element, &kept.owner));
    Set::ALL.into_iter().flat_map(|set| messages(set, listed(set), NLM_F_CREATE)).collect()
}

fn key(element: &Element) -> ListAttribute<SetElementAttribute> {
    let key = SetElementAttribute::Key(DataAttribute::Value(element.key.clone()));
    ListAttribute::Element(vec![key])
}

fn by_key(element: &Element) -> SetElementMessage {
    message(element.set, vec![key(element)])
}

fn messages(
    set: Set,
    elements: impl Iterator<Item = ListAttribute<SetElementAttribute>>,
    flags: u16,
) -> Vec<Change> {
    let elements: Vec<_> = elements.collect();
    let some = elements.chunks(ELEMENTS_PER_MESSAGE);
    some.map(|some| (NfTablesMessage::NewSetElement(message(set, some.to_vec())), flags)).collect()
}

fn message(set: Set, elements: Vec<ListAttribute<SetElementAttribute>>) -> SetElementMessage {
    SetElementMessage {
        attributes: vec![
            SetElementList::Table(NAME.to_owned()),
            SetElementList::Set(set.name().to_owned()),
            SetElementList::Elements(elements),
        ],
    }
}

fn whole(element: &Element, owner: &str) -> ListAttribute<SetElementAttribute> {
    let value = |bytes: &Vec<u8>| DataAttribute::Value(bytes.clone());
    let mut attributes = vec![SetElementAttribute::Key(value(&element.key))];
    if !element.value.is_empty() {
        attributes.push(SetElementAttribute::Data(value(&element.value)));
    }
    attributes.push(SetElementAttribute::UserData(comment(owner)));
    ListAttribute::Element(attributes)
}

/// The kind of a comment in an element's data of the user (`NFTNL_UDATA_SET_ELEM_COMMENT` of libnftnl's `udata.h`).
const COMMENT: u8 = 0;

/// As `nft` writes it: kind, length, and a text that ends with zero. The kernel takes 256 bytes, and owners have at most 80.
fn comment(owner: &str) -> Vec<u8> {
    let text = &owner.as_bytes()[..owner.len().min(200)];
    let length = u8::try_from(text.len() + 1).expect("the text was cut to 200 bytes");
    [&[COMMENT, length], text, &[0]].concat()
}

fn owner(data: &[u8]) -> Option<String> {
    let [COMMENT, length, rest @ ..] = data else { return None };
    let text = rest.get(..usize::from(*length))?.strip_suffix(&[0])?;
    String::from_utf8(text.to_vec()).ok()
}

/// The state of nftables now, for a reading that takes longer.
pub(super) fn generation() -> Result<Generation, PortsError> {
    open()?.generation().map_err(PortsError::Read)
}

/// All elements of all pods; empty without a table. What was read before belongs to the same picture, back to `read_at`.
pub(super) fn list(read_at: Generation) -> Result<Seen, PortsError> {
    let netfilter = open()?;
    let mut kept = BTreeSet::new();
    for set in Set::ALL {
        // After a refusal, such as of a set that is not there, the next list is still good: nothing is on its way.
        kept.extend(list_set(&netfilter, set).map_err(PortsError::Read)?);
    }
    Ok(Seen { read_at, kept })
}

fn list_set(netfilter: &Netfilter, set: Set) -> Result<Vec<Kept>, KernelError> {
    let table = SetElementList::Table(NAME.to_owned());
    let attributes = vec![table, SetElementList::Set(set.name().to_owned())];
    let list = NfTablesMessage::GetSetElement(SetElementMessage { attributes });
    Ok(dump(netfilter, &list)?.into_iter().flat_map(|answer| kept_in(set, answer)).collect())
}

/// What the kernel has with the keys of `elements`, whoever owns it. Costs a request for each key, however many elements
/// there are.
pub(super) fn find(elements: &BTreeSet<Element>) -> Result<Seen, PortsError> {
    let netfilter = open()?;
    let read_at = netfilter.generation().map_err(PortsError::Read)?;
    let mut kept = BTreeSet::new();
    for element in elements {
        kept.extend(find_one(&netfilter, element).map_err(PortsError::Read)?);
    }
    Ok(Seen { read_at, kept })
}

fn find_one(netfilter: &Netfilter, element: &Element) -> Result<Option<Kept>, KernelError> {
    let get = NfTablesMessage::GetSetElement(by_key(element));
    let mut kept = None;
    let found = netfilter.request(get, NLM_F_ACK, |answer| {
        kept = nftables(answer).and_then(|answer| kept_in(element.set, answer).pop());
    });
    match found {
        Err(error) if error.is(Errno::NOENT) => Ok(None),
        found => found.map(|()| kept),
    }
}

fn kept_in(set: Set, answer: NfTablesMessage) -> Vec<Kept> {
    let NfTablesMessage::NewSetElement(SetElementMessage { attributes }) = answer else {
        return Vec::new();
    };
    let elements = attributes.into_iter().filter_map(|attribute| match attribute {
        SetElementList::Elements(elements) => Some(elements),
        _ => None,
    });
    elements.flatten().filter_map(|element| read(set, element)).collect()
}

fn read(set: Set, listed: ListAttribute<SetElementAttribute>) -> Option<Kept> {
    let ListAttribute::Element(attributes) = listed else { return None };
    let mut kept =
        Kept { element: Element { set, key: Vec::new(), value: Vec::new() }, owner: String::new() };
    for attribute in attributes {
        match attribute {
            SetElementAttribute::Key(DataAttribute::Value(key)) => kept.element.key = key,
            SetElementAttribute::Data(DataAttribute::Value(value)) => kept.element.value = value,
            SetElementAttribute::UserData(data) => kept.owner = owner(&data).unwrap_or_default(),
            _ => {}
        }
    }
    Some(kept)
}

/// Whether there is a table of our name.
pub(super) fn has_frame() -> Result<bool, PortsError> {
    Ok(table_facts(&open()?, NAME).map_err(PortsError::Read)?.is_some())
}

/// Makes the table's rules right and keeps its elements, in one transaction. Returns whether that took a change.
pub(super) fn ensure_frame() -> Result<bool, PortsError> {
    let seen = list(generation()?)?;
    apply(&seen, &BTreeSet::new(), &BTreeSet::new())
}

/// Removes and adds elements, and makes the table's rules right, in one transaction. Returns whether the rules were
/// written. `removed` are elements that were seen, and no other element that was seen rivals one of `added`.
pub(super) fn apply(
    seen: &Seen,
    removed: &BTreeSet<Kept>,
    added: &BTreeSet<Kept>,
) -> Result<bool, PortsError> {
    let rules = rules().map_err(PortsError::Read)?;
    let changes = match rules {
        Rules::Right => [removals(removed), additions(added)].concat(),
        Rules::Wrong | Rules::Missing => {
            let stays = seen.kept.difference(removed).chain(added).cloned().collect();
            [frame(rules == Rules::Wrong), additions(&stays)].concat()
        }
    };
    if !changes.is_empty() {
        open()?.transaction_at(seen.read_at, changes).map_err(PortsError::Write)?;
    }
    Ok(rules != Rules::Right)
}

fn rules() -> Result<Rules, KernelError> {
    let netfilter = Netfilter::open_for(NetfilterProtoFamily::Inet)?;
    if table_facts(&netfilter, NAME)?.is_none() {
        return Ok(Rules::Missing);
    }
    Ok(if matches()? { Rules::Right } else { Rules::Wrong })
}

fn matches() -> Result<bool, KernelError> {
    let netfilter = Netfilter::open_for(NetfilterProtoFamily::Inet)?;
    let chains = CHAINS.map(|chain| chain.attributes());
    let rules = CHAINS.map(|chain| (chain.name, chain.rules()));
    Ok(is_active(&netfilter, NAME, CHAINS.len() + Set::ALL.len())?
        && chains_match(&netfilter, NAME, &chains)?
        && rules_match(&netfilter, NAME, &rules)?)
}

/// The changes that write the table without elements, in place of the one that `is_there`.
fn frame(is_there: bool) -> Vec<Change> {
    let mut changes = match is_there {
        true => vec![(delete_table(NAME), 0)],
        false => Vec::new(),
    };
    changes.push((new_table(NAME), NLM_F_CREATE));
    let sets = (1..).zip(Set::ALL).map(|(id, set)| (new_set(id, set), NLM_F_CREATE));
    changes.extend(sets);
    for chain in CHAINS {
        changes.push((new_chain(NAME, chain.attributes()), NLM_F_CREATE));
        for rule in chain.rules() {
            changes.push((new_rule(NAME, chain.name, rule), NLM_F_CREATE | NLM_F_APPEND));
        }
    }
    changes
}

fn new_set(id: u32, set: Set) -> NfTablesMessage {
    let (key_type, key_length) = type_and_length(set.key());
    let (value_type, value_length) = type_and_length(set.value());
    let mut attributes = vec![
        SetAttribute::Table(NAME.to_owned()),
        SetAttribute::Name(set.name().to_owned()),
        SetAttribute::KeyType(key_type),
        SetAttribute::KeyLen(key_length),
        SetAttribute::Id(id),
    ];
    let flags = if value_length == 0 { SetFlags::empty() } else { SetFlags::Map };
    attributes.push(SetAttribute::Flags(flags));
    if value_length > 0 {
        attributes
            .extend([SetAttribute::DataType(value_type), SetAttribute::DataLen(value_length)]);
    }
    NfTablesMessage::NewSet(SetMessage { attributes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_is_read_from_its_comment() {
        assert_eq!(owner(&comment("c1/eth0")).as_deref(), Some("c1/eth0"));
        for other in [&[][..], &[0], &[0, 3, b'a', 0], &[1, 2, b'a', 0], &[0, 2, 0xff, 0]] {
            assert_eq!(owner(other), None, "{other:?}");
        }
    }
}

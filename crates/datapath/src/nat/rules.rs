//! The rules that lead packets to the main route table, and so out of the primary ENI: marked packets, and those to
//! some ranges. Their priorities are those of amazon-vpc-cni-k8s, which lie before the rules of pods' own tables.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;

use ipnet::Ipv4Net;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use super::{Nat, NatError};
use crate::netlink::{KernelError, Netlink};
use crate::rule::OURS;
use crate::{Applied, RouteTable};

/// Priority of the rule for marked packets.
const MARKED: u32 = 1024;
/// Priority of the rules for ranges.
const RANGE: u32 = 1535;

/// Leads packets to the main table. Printed as `ip rule` prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MainRule {
    /// Packets that have all bits of this mark.
    Marked(NonZeroU32),
    /// Packets to this range.
    ToRange(Ipv4Net),
}

/// A [`MainRule`] that the kernel has, with who added it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListedMainRule {
    rule: MainRule,
    protocol: RouteProtocol,
}

impl MainRule {
    fn message(self, protocol: RouteProtocol) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.action = RuleAction::ToTable;
        message.attributes.push(RuleAttribute::Table(RouteTable::MAIN.number()));
        message.attributes.push(RuleAttribute::Protocol(protocol));
        match self {
            MainRule::Marked(mark) => message.attributes.extend([
                RuleAttribute::Priority(MARKED),
                RuleAttribute::FwMark(mark.get()),
                RuleAttribute::FwMask(mark.get()),
            ]),
            MainRule::ToRange(range) => {
                message.header.dst_len = range.prefix_len();
                let address = RuleAttribute::Destination(range.network().into());
                message.attributes.extend([RuleAttribute::Priority(RANGE), address]);
            }
        }
        message
    }
}

impl ListedMainRule {
    /// Whether somebody else has added the rule, such as amazon-vpc-cni-k8s.
    pub(super) fn is_foreign_mark_rule(&self) -> bool {
        matches!(self.rule, MainRule::Marked(_)) && self.protocol != OURS
    }

    /// `None` for rules of another form or priority.
    pub(crate) fn from_message(message: &RuleMessage) -> Option<Self> {
        let (mut priority, mut mark, mut mask) = (0, None, None);
        let mut destination = Ipv4Addr::UNSPECIFIED;
        let mut table = u32::from(message.header.table);
        let mut protocol = RouteProtocol::Unspec;
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(number) => priority = *number,
                RuleAttribute::Table(number) => table = *number,
                RuleAttribute::Protocol(number) => protocol = *number,
                RuleAttribute::FwMark(number) => mark = NonZeroU32::new(*number),
                RuleAttribute::FwMask(number) => mask = NonZeroU32::new(*number),
                RuleAttribute::Destination(IpAddr::V4(address)) => destination = *address,
                RuleAttribute::Source(_)
                | RuleAttribute::Destination(IpAddr::V6(_))
                | RuleAttribute::Iifname(_)
                | RuleAttribute::Oifname(_)
                | RuleAttribute::IpProtocol(_) => return None,
                _ => {}
            }
        }
        let rule = match (priority, mark) {
            (MARKED, Some(mark)) if Some(mark) == mask && message.header.dst_len == 0 => {
                MainRule::Marked(mark)
            }
            (RANGE, None) => {
                MainRule::ToRange(Ipv4Net::new(destination, message.header.dst_len).ok()?)
            }
            _ => return None,
        };
        let is_ours = message.header.family == AddressFamily::Inet
            && message.header.action == RuleAction::ToTable
            && RouteTable::from(table) == RouteTable::MAIN;
        is_ours.then_some(Self { rule, protocol })
    }
}

impl fmt::Display for MainRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MainRule::Marked(mark) => write!(f, "{MARKED}: from all fwmark {mark:#x}/{mark:#x}")?,
            MainRule::ToRange(range) => write!(f, "{RANGE}: from all to {range}")?,
        }
        f.write_str(" lookup main")
    }
}

/// Removes what `nat` does not need, then adds what it does. A wanted rule that another program has added stays.
pub(super) async fn sync(
    netlink: &Netlink,
    found: &[ListedMainRule],
    nat: Option<&Nat>,
) -> Result<Applied, NatError> {
    let wanted: Vec<_> = nat.into_iter().flat_map(wanted).collect();
    let stale = stale(found, nat.map(|nat| nat.mark), &wanted);
    for listed in stale.iter().copied() {
        let rule = listed.rule;
        let removed = remove(netlink, listed).await;
        removed.map_err(|source| NatError::Rule { verb: "remove", rule, source })?;
    }
    let stays = |rule| found.iter().any(|found| found.rule == rule && !stale.contains(found));
    let missing: Vec<_> = wanted.into_iter().filter(|rule| !stays(*rule)).collect();
    for rule in missing.iter().copied() {
        let added = add(netlink, rule).await;
        added.map_err(|source| NatError::Rule { verb: "add", rule, source })?;
    }
    let changes_nothing = stale.is_empty() && missing.is_empty();
    Ok(if changes_nothing { Applied::Unchanged } else { Applied::Updated })
}

fn wanted(nat: &Nat) -> impl Iterator<Item = MainRule> {
    let is_marked = nat.node_ports || nat.source.is_some();
    let marked = is_marked.then_some(MainRule::Marked(nat.mark));
    marked.into_iter().chain(nat.by_main_table.iter().map(|range| MainRule::ToRange(range.trunc())))
}

/// The rules to remove, in an order in which they can be. Another program may have a rule for another mark at the
/// priority of ours. The priority of ranges is the CNI's alone: amazon-vpc-cni-k8s removes all such rules at its start, too.
///
/// The kernel removes the first rule that fits, and to a rule for every destination all ranges fit. So that one goes last,
/// after all others.
fn stale(
    found: &[ListedMainRule],
    mark: Option<NonZeroU32>,
    wanted: &[MainRule],
) -> Vec<ListedMainRule> {
    let is_stale = |found: &&ListedMainRule| {
        let is_the_cnis = match found.rule {
            MainRule::Marked(of) => found.protocol == OURS || Some(of) == mark,
            MainRule::ToRange(_) => true,
        };
        is_the_cnis && !wanted.contains(&found.rule)
    };
    let mut stale: Vec<_> = found.iter().filter(is_stale).copied().collect();
    let length = |listed: &ListedMainRule| match listed.rule {
        MainRule::Marked(_) => u8::MAX,
        MainRule::ToRange(range) => range.prefix_len(),
    };
    if stale.iter().any(|listed| length(listed) == 0) {
        let is_range = |listed: &&ListedMainRule| matches!(listed.rule, MainRule::ToRange(_));
        stale.retain(|listed| !is_range(&listed));
        stale.extend(found.iter().filter(is_range));
    }
    stale.sort_by_key(|listed| std::cmp::Reverse(length(listed)));
    stale
}

async fn add(netlink: &Netlink, rule: MainRule) -> Result<(), KernelError> {
    let message = RouteNetlinkMessage::NewRule(rule.message(OURS));
    match netlink.change(message, NLM_F_CREATE | NLM_F_EXCL).await {
        Err(error) if error.is(Errno::EXIST) => Ok(()),
        other => other,
    }
}

async fn remove(netlink: &Netlink, listed: ListedMainRule) -> Result<(), KernelError> {
    let message = RouteNetlinkMessage::DelRule(listed.rule.message(listed.protocol));
    match netlink.change(message, 0).await {
        Err(error) if error.is(Errno::NOENT) => Ok(()),
        other => other,
    }
}

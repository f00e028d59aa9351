//! The rules that the kernel makes with a network namespace. They lead all packets to the tables of local addresses,
//! to the main table and to the default one. `ip rule flush` takes the last two, and nobody brings them back: then no
//! packet of a pod or of the node leaves the node.

use std::collections::BTreeSet;
use std::fmt;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use super::{ListError, list};
use crate::netlink::{KernelError, Netlink};
use crate::{Applied, RouteTable, rule};

/// One of the kernel's own rules. Printed as `ip rule` prints it. Source of the priorities: `fib_default_rules_init`
/// and `fib6_rules_net_init` of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelRule {
    family: AddressFamily,
    priority: u32,
    table: RouteTable,
}

/// The kernel's own rules of `family`, in their order.
fn own(family: AddressFamily) -> impl Iterator<Item = KernelRule> {
    let all = [(0, RouteTable::LOCAL), (32_766, RouteTable::MAIN), (32_767, RouteTable::DEFAULT)];
    let n = if family == AddressFamily::Inet6 { 2 } else { 3 };
    all.into_iter().take(n).map(move |(priority, table)| KernelRule { family, priority, table })
}

impl KernelRule {
    /// With the protocol of the kernel, as it was. systemd-networkd removes foreign rules without it.
    fn message(self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = self.family;
        message.header.action = RuleAction::ToTable;
        message.attributes = vec![
            RuleAttribute::Priority(self.priority),
            RuleAttribute::Table(self.table.number()),
            RuleAttribute::Protocol(RouteProtocol::Kernel),
        ];
        message
    }
}

impl fmt::Display for KernelRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.family == AddressFamily::Inet6 { "IPv6" } else { "IPv4" };
        write!(f, "{}: from all lookup {} ({family})", self.priority, self.table)
    }
}

/// The kernel's own rules are not in place.
#[derive(Debug, thiserror::Error)]
pub enum KernelRulesError {
    /// The rules could not be read.
    #[error(transparent)]
    List(#[from] ListError),
    /// The kernel refused to take one back.
    #[error("add rule {rule}")]
    Add {
        /// The rule.
        rule: KernelRule,
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
}

/// Puts back those of the kernel's own rules that are missing, in both families.
///
/// 1. A rule for all packets at another priority is as good: amazon-vpc-cni-k8s and others move that of the table of
///    local addresses.
/// 2. The rule of the default table comes back only together with that of the main table. If it alone is missing,
///    somebody has removed it on purpose.
pub(super) async fn sync(netlink: &Netlink) -> Result<Applied, KernelRulesError> {
    let mut applied = Applied::Unchanged;
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let rules = match rule::messages(netlink, family).await {
            // IPv6 may be switched off at boot.
            Err(error) if error.is(Errno::AFNOSUPPORT) => continue,
            rules => rules.map_err(list("the rules"))?,
        };
        for rule in missing(family, &rules) {
            add(netlink, rule).await?;
            applied = Applied::Updated;
        }
    }
    Ok(applied)
}

fn missing(family: AddressFamily, rules: &[RuleMessage]) -> Vec<KernelRule> {
    let found: BTreeSet<_> = rules.iter().filter_map(table_of_all).collect();
    let has_main = found.contains(&RouteTable::MAIN);
    let missing = own(family).filter(|rule| !found.contains(&rule.table));
    missing.filter(|rule| !(rule.table == RouteTable::DEFAULT && has_main)).collect()
}

/// Whether this is one of the kernel's own rules, or another one for all packets to the same table.
pub(crate) fn is_own(message: &RuleMessage) -> bool {
    table_of_all(message)
        .is_some_and(|table| own(AddressFamily::Inet).any(|rule| rule.table == table))
}

/// The table to which the rule leads all packets; `None` if it leads only some there, or does something else.
fn table_of_all(message: &RuleMessage) -> Option<RouteTable> {
    let header = &message.header;
    let is_for_all = header.action == RuleAction::ToTable
        && (header.src_len, header.dst_len, header.tos) == (0, 0, 0)
        && !header.flags.contains(RuleFlags::Invert);
    let mut table = u32::from(header.table);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Table(number) => table = *number,
            // The kernel's number for no suppression.
            RuleAttribute::SuppressPrefixLen(u32::MAX)
            | RuleAttribute::SuppressIfGroup(u32::MAX) => {}
            RuleAttribute::Priority(_) | RuleAttribute::Protocol(_) => {}
            _ => return None,
        }
    }
    is_for_all.then(|| RouteTable::from(table))
}

async fn add(netlink: &Netlink, rule: KernelRule) -> Result<(), KernelRulesError> {
    let message = RouteNetlinkMessage::NewRule(rule.message());
    match netlink.change(message, NLM_F_CREATE | NLM_F_EXCL).await {
        Err(error) if error.is(Errno::EXIST) => Ok(()),
        added => added.map_err(|source| KernelRulesError::Add { rule, source }),
    }
}

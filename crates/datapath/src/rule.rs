//! Routing policy rules: who looks up which table.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use crate::address::family;
use crate::netlink::{KernelError, Netlink};
use crate::{Change, RouteTable};

/// Packets to a pod are delivered on this node, whatever else is said. Priorities as in
/// amazon-vpc-cni-k8s.
pub(crate) const TO_POD: u32 = 512;

/// Packets of a pod leave by its ENI.
pub(crate) const FROM_POD: u32 = 1536;

/// Packets of an ENI's own address leave by that ENI.
pub(crate) const FROM_ENI: u32 = 32765;

/// Which packets a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Selector {
    /// Those that this address sends.
    From(IpAddr),
    /// Those for this address.
    To(IpAddr),
}

/// A rule for the packets of one address. Printed as `ip rule` prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    priority: u32,
    selector: Selector,
    table: RouteTable,
}

impl Rule {
    /// Packets to the pod at `address` are delivered here.
    pub(crate) fn to_pod(address: IpAddr) -> Self {
        Self { priority: TO_POD, selector: Selector::To(address), table: RouteTable::MAIN }
    }

    /// Packets of the pod at `address` follow `table`.
    pub(crate) fn from_pod(address: IpAddr, table: RouteTable) -> Self {
        Self { priority: FROM_POD, selector: Selector::From(address), table }
    }

    /// Packets of the ENI's own `address` follow `table`.
    pub(crate) fn from_eni(address: IpAddr, table: RouteTable) -> Self {
        Self { priority: FROM_ENI, selector: Selector::From(address), table }
    }

    /// Whether both are for the same packets at the same priority, so that only the first counts.
    pub(crate) fn rivals(&self, other: &Self) -> bool {
        (self.priority, self.selector) == (other.priority, other.selector)
    }

    fn message(&self) -> RuleMessage {
        let mut message = any_table(self.priority, self.selector);
        message.header.action = RuleAction::ToTable;
        message.attributes.push(RuleAttribute::Table(self.table.number()));
        message
    }

    /// `None` for rules that look at more than one address, or do something else than look up.
    fn from_message(message: &RouteNetlinkMessage) -> Option<Self> {
        let RouteNetlinkMessage::NewRule(message) = message else { return None };
        let mut selectors = Vec::new();
        let mut priority = 0;
        let mut table = u32::from(message.header.table);
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(number) => priority = *number,
                RuleAttribute::Table(number) => table = *number,
                RuleAttribute::Source(address) => selectors.push(Selector::From(*address)),
                RuleAttribute::Destination(address) => selectors.push(Selector::To(*address)),
                RuleAttribute::Iifname(_)
                | RuleAttribute::Oifname(_)
                | RuleAttribute::FwMark(_)
                | RuleAttribute::IpProtocol(_) => return None,
                _ => {}
            }
        }
        let [selector] = selectors[..] else { return None };
        let whole = match selector {
            Selector::From(address) => (message.header.src_len, address),
            Selector::To(address) => (message.header.dst_len, address),
        };
        let is_lookup = message.header.action == RuleAction::ToTable;
        (is_lookup && whole.0 == IpNet::from(whole.1).prefix_len()).then_some(Self {
            priority,
            selector,
            table: RouteTable::from(table),
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.selector {
            Selector::From(address) => write!(f, "{}: from {address}", self.priority)?,
            Selector::To(address) => write!(f, "{}: from all to {address}", self.priority)?,
        }
        write!(f, " lookup {}", self.table)
    }
}

/// Matches every rule for these packets at this priority.
fn any_table(priority: u32, selector: Selector) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.attributes.push(RuleAttribute::Priority(priority));
    match selector {
        Selector::From(address) => {
            message.header.family = family(address);
            message.header.src_len = IpNet::from(address).prefix_len();
            message.attributes.push(RuleAttribute::Source(address));
        }
        Selector::To(address) => {
            message.header.family = family(address);
            message.header.dst_len = IpNet::from(address).prefix_len();
            message.attributes.push(RuleAttribute::Destination(address));
        }
    }
    message
}

/// Adds `rule`, unless it is there.
pub(crate) async fn add(netlink: &Netlink, rule: &Rule) -> Result<Change, KernelError> {
    let message = RouteNetlinkMessage::NewRule(rule.message());
    match netlink.change(message, NLM_F_CREATE | NLM_F_EXCL).await {
        Ok(()) => Ok(Change::Added),
        Err(error) if error.is(Errno::EXIST) => Ok(Change::Unchanged),
        Err(error) => Err(error),
    }
}

/// Removes `rule`; it may be gone already.
pub(crate) async fn remove(netlink: &Netlink, rule: &Rule) -> Result<(), KernelError> {
    match netlink.change(RouteNetlinkMessage::DelRule(rule.message()), 0).await {
        Err(error) if error.is(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Removes every rule for these packets at this priority, whatever table it names, also doubled
/// ones. Returns how many there were. Reads no list of rules: that would cost every pod's ADD as
/// much as there are pods.
pub(crate) async fn remove_all(
    netlink: &Netlink,
    priority: u32,
    selector: Selector,
) -> Result<usize, KernelError> {
    let mut removed = 0;
    loop {
        let message = RouteNetlinkMessage::DelRule(any_table(priority, selector));
        match netlink.change(message, 0).await {
            Ok(()) => removed += 1,
            Err(error) if error.is(Errno::NOENT) => return Ok(removed),
            Err(error) => return Err(error),
        }
    }
}

/// Every rule of `family` that is for the packets of one address. Costs as much as there are
/// rules.
pub(crate) async fn list(
    netlink: &Netlink,
    family: AddressFamily,
) -> Result<Vec<Rule>, KernelError> {
    let mut wanted = RuleMessage::default();
    wanted.header.family = family;
    let found = netlink.dump(RouteNetlinkMessage::GetRule(wanted)).await?;
    Ok(found.iter().filter_map(Rule::from_message).collect())
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{Emitable as _, Parseable as _};
    use proptest::prelude::*;

    use super::*;

    fn any_rule() -> impl Strategy<Value = Rule> {
        let address = prop_oneof![
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<[u8; 16]>().prop_map(IpAddr::from)
        ];
        let selector = (address, any::<bool>()).prop_map(|(address, from)| {
            if from { Selector::From(address) } else { Selector::To(address) }
        });
        (1u32.., selector, 2u32..).prop_map(|(priority, selector, table)| Rule {
            priority,
            selector,
            table: RouteTable::from(table),
        })
    }

    proptest! {
        #[test]
        fn a_rule_is_read_as_it_was_written(rule in any_rule()) {
            let message = rule.message();
            let mut bytes = vec![0; message.buffer_len()];
            message.emit(&mut bytes);
            let read = RuleMessage::parse(&bytes[..]).unwrap();
            prop_assert_eq!(Rule::from_message(&RouteNetlinkMessage::NewRule(read)), Some(rule));
        }
    }
}

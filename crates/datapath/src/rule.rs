//! Routing policy rules: which packets use which route table.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use crate::address::family;
use crate::netlink::{KernelError, Netlink};
use crate::{Applied, RouteTable};

/// Priority of the rules that deliver packets to a pod on this node, before any other rule counts.
/// The priorities are those of amazon-vpc-cni-k8s.
pub(crate) const TO_POD: u32 = 512;

/// Priority of the rules by which a pod's packets leave by its ENI.
pub(crate) const FROM_POD: u32 = 1536;

/// Priority of the rules by which packets of an ENI's own address leave by that ENI. The kernel
/// gives the same priority to a rule that is added without one.
const FROM_ENI: u32 = 32765;

/// The protocol that marks an ENI's rule as ours (`ip rule` prints `proto 84`), so that it can be
/// removed when the ENI has gone. A number that neither the kernel's `rtnetlink.h` nor iproute2's
/// `rt_protos` assigns. Pods' rules have no mark: they go with their pod.
pub(crate) const OURS: RouteProtocol = RouteProtocol::Other(84);

/// Which packets a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Selector {
    /// Packets from this address.
    From(IpAddr),
    /// Packets to this address.
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
    /// Delivers packets to the pod at `address` on this node.
    pub(crate) fn to_pod(address: IpAddr) -> Self {
        Self { priority: TO_POD, selector: Selector::To(address), table: RouteTable::MAIN }
    }

    /// Sends packets from the pod at `address` by `table`.
    pub(crate) fn from_pod(address: IpAddr, table: RouteTable) -> Self {
        Self { priority: FROM_POD, selector: Selector::From(address), table }
    }

    /// Sends packets from the ENI's own `address` by `table`.
    pub(crate) fn from_eni(address: IpAddr, table: RouteTable) -> Self {
        Self { priority: FROM_ENI, selector: Selector::From(address), table }
    }

    /// The ENI's own address, if this has the form of an ENI's rule.
    pub(crate) fn eni_address(&self) -> Option<IpAddr> {
        match self.selector {
            Selector::From(address) if self.priority == FROM_ENI => Some(address),
            Selector::From(_) | Selector::To(_) => None,
        }
    }

    /// The address that the packets come from or go to.
    pub(crate) fn address(&self) -> IpAddr {
        match self.selector {
            Selector::From(address) | Selector::To(address) => address,
        }
    }

    /// Whether both are for the same packets at the same priority: the kernel follows only the
    /// first of them.
    pub(crate) fn rivals(&self, other: &Self) -> bool {
        (self.priority, self.selector) == (other.priority, other.selector)
    }

    fn message(&self, protocol: RouteProtocol) -> RuleMessage {
        let mut message = any_table(self.priority, self.selector);
        message.header.action = RuleAction::ToTable;
        message.attributes.push(RuleAttribute::Table(self.table.number()));
        message.attributes.push(RuleAttribute::Protocol(protocol));
        message
    }
}

/// A rule that the kernel has, with who added it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedRule {
    pub(crate) rule: Rule,
    /// As in the kernel's `rtnetlink.h`, such as boot for `ip rule`; often unspecified.
    pub(crate) protocol: RouteProtocol,
}

impl ListedRule {
    /// Whether it is one of the rules that each pod has, of ours or of amazon-vpc-cni-k8s.
    pub(crate) fn is_of_a_pod(&self) -> bool {
        let Rule { priority, selector, table } = self.rule;
        match selector {
            Selector::To(_) => (priority, table) == (TO_POD, RouteTable::MAIN),
            Selector::From(_) => priority == FROM_POD,
        }
    }

    /// `None` for rules that compare more than one address, or do something else than a lookup.
    pub(crate) fn from_message(message: &RuleMessage) -> Option<Self> {
        let mut selectors = Vec::new();
        let mut priority = 0;
        let mut table = u32::from(message.header.table);
        let mut protocol = RouteProtocol::Unspec;
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(number) => priority = *number,
                RuleAttribute::Table(number) => table = *number,
                RuleAttribute::Protocol(number) => protocol = *number,
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
        let (length, address) = match selector {
            Selector::From(address) => (message.header.src_len, address),
            Selector::To(address) => (message.header.dst_len, address),
        };
        let is_lookup = message.header.action == RuleAction::ToTable;
        let rule = Rule { priority, selector, table: RouteTable::from(table) };
        (is_lookup && length == IpNet::from(address).prefix_len())
            .then_some(Self { rule, protocol })
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

/// Adds `rule` with this protocol, unless the kernel has it with the same.
pub(crate) async fn add(
    netlink: &Netlink,
    rule: &Rule,
    protocol: RouteProtocol,
) -> Result<Applied, KernelError> {
    let message = RouteNetlinkMessage::NewRule(rule.message(protocol));
    match netlink.change(message, NLM_F_CREATE | NLM_F_EXCL).await {
        Ok(()) => Ok(Applied::Added),
        Err(error) if error.is(Errno::EXIST) => Ok(Applied::Unchanged),
        Err(error) => Err(error),
    }
}

/// Adds `rule`, which the kernel does not have, as after [`remove_all`]. The kernel does not look for an equal one among all rules of
/// the node, so at 700 pods this takes a third of [`add`]'s time. An equal one that comes meanwhile goes with the next [`remove_all`].
pub(crate) async fn add_new(netlink: &Netlink, rule: &Rule) -> Result<(), KernelError> {
    let message = RouteNetlinkMessage::NewRule(rule.message(RouteProtocol::Unspec));
    netlink.change(message, NLM_F_CREATE).await
}

/// Removes a rule; it may be gone already. The kernel compares the protocol unless that is
/// unspecified: then it removes the first equal rule of any protocol.
pub(crate) async fn remove(netlink: &Netlink, listed: &ListedRule) -> Result<(), KernelError> {
    let message = RouteNetlinkMessage::DelRule(listed.rule.message(listed.protocol));
    match netlink.change(message, 0).await {
        Err(error) if error.is(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Removes every rule for these packets at this priority, whatever table it names, and doubled ones
/// too. Returns how many there were. It lists no rules: then each ADD would cost as much as there
/// are pods.
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

/// Every rule of `family` that is for the packets of one address, in the kernel's order. Costs as
/// much as there are rules.
pub(crate) async fn list(
    netlink: &Netlink,
    family: AddressFamily,
) -> Result<Vec<ListedRule>, KernelError> {
    Ok(messages(netlink, family).await?.iter().filter_map(ListedRule::from_message).collect())
}

/// Every rule of `family` as the kernel shows it, in its order. Costs as much as there are rules.
pub(crate) async fn messages(
    netlink: &Netlink,
    family: AddressFamily,
) -> Result<Vec<RuleMessage>, KernelError> {
    let mut wanted = RuleMessage::default();
    wanted.header.family = family;
    let found = netlink.dump(RouteNetlinkMessage::GetRule(wanted)).await?;
    let rule = |answer| match answer {
        RouteNetlinkMessage::NewRule(message) => Some(message),
        _ => None,
    };
    Ok(found.into_iter().filter_map(rule).collect())
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{Emitable as _, Parseable as _};
    use proptest::prelude::*;

    use super::*;

    fn any_rule() -> impl Strategy<Value = ListedRule> {
        let address = prop_oneof![
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<[u8; 16]>().prop_map(IpAddr::from)
        ];
        let selector = (address, any::<bool>()).prop_map(|(address, from)| {
            if from { Selector::From(address) } else { Selector::To(address) }
        });
        (1u32.., selector, 2u32.., any::<u8>()).prop_map(|(priority, selector, table, number)| {
            let rule = Rule { priority, selector, table: RouteTable::from(table) };
            ListedRule { rule, protocol: RouteProtocol::from(number) }
        })
    }

    proptest! {
        #[test]
        fn rule_message_parses_back_to_the_same_rule(listed in any_rule()) {
            let message = listed.rule.message(listed.protocol);
            let mut bytes = vec![0; message.buffer_len()];
            message.emit(&mut bytes);
            let read = RuleMessage::parse(&bytes[..]).unwrap();
            let read = ListedRule::from_message(&read);
            prop_assert_eq!(read, Some(listed));
        }
    }
}

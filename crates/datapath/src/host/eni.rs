//! One secondary ENI: its device, its own address, and a route table that leads out of it. Pods'
//! addresses are never on the device.

use std::fmt;

use ipnet::{IpNet, Ipv4Net};
use netlink_packet_route::AddressFamily;

use super::{EniStatus, HostEni, ListError, Snapshot, list};
use crate::link::{self, Link};
use crate::netlink::{KernelError, Netlink};
use crate::route::{self, Filter};
use crate::rule::{self, ListedRule};
use crate::{Applied, MacAddr, Mtu, Route, RouteTable, Rule, address};

/// How often an ENI is changed and read again before it counts as failed. Removing an address takes
/// routes with it, which the second round puts back.
const ROUNDS: usize = 3;

/// One change of the kernel for an ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EniStep {
    /// Sets the MTU.
    SetMtu(Mtu),
    /// Removes an address that is not the ENI's own.
    RemoveAddress(IpNet),
    /// Adds the ENI's own address.
    AddAddress(IpNet),
    /// Sets the device up.
    SetUp,
    /// Removes a route that leads elsewhere, or is in the wrong table.
    RemoveRoute(Route),
    /// Puts a route in the ENI's table.
    ReplaceRoute(Route),
    /// Adds the rule for the ENI's address.
    AddRule(Rule),
    /// Removes a rule for the ENI's address that names another table or lacks the mark.
    RemoveRule(ListedRule),
}

impl fmt::Display for EniStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetMtu(mtu) => write!(f, "set mtu {mtu}"),
            Self::RemoveAddress(address) => write!(f, "remove address {address}"),
            Self::AddAddress(address) => write!(f, "add address {address}"),
            Self::SetUp => f.write_str("set up"),
            Self::RemoveRoute(route) => write!(f, "remove route {route}"),
            Self::ReplaceRoute(route) => write!(f, "replace route {route}"),
            Self::AddRule(rule) => write!(f, "add rule {rule}"),
            Self::RemoveRule(listed) => write!(f, "remove rule {}", listed.rule),
        }
    }
}

/// Why an ENI does not match.
#[derive(Debug, thiserror::Error)]
pub enum EniError {
    /// The main table is the primary ENI's.
    #[error("{mac} cannot be a secondary ENI with the main table")]
    MainTable {
        /// The ENI's hardware address.
        mac: MacAddr,
    },
    /// Something could not be read.
    #[error(transparent)]
    List(#[from] ListError),
    /// The kernel refused a change.
    #[error("{step} on {device}")]
    Apply {
        /// The change.
        step: EniStep,
        /// The device's name.
        device: String,
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
    /// The kernel took every change, but something else reverts them.
    #[error("{device} does not stay as it was set: {step} is due again")]
    NotKept {
        /// The first change that is due again.
        step: EniStep,
        /// The device's name.
        device: String,
    },
}

/// Makes one ENI match. `before` is what the kernel had before the first change.
pub(super) async fn sync(
    netlink: &Netlink,
    before: &Snapshot,
    wanted: &HostEni,
    mtu: Mtu,
) -> Result<EniStatus, EniError> {
    let HostEni { mac, table, .. } = *wanted;
    if table == RouteTable::MAIN {
        return Err(EniError::MainTable { mac });
    }
    let Some(mut found) = Found::read(netlink, before, wanted).await? else {
        return Ok(EniStatus::Absent);
    };
    let mut applied = Applied::Unchanged;
    for _ in 0..ROUNDS {
        let steps = found.steps_to(wanted, mtu);
        if steps.is_empty() {
            return Ok(EniStatus::Ready(applied));
        }
        applied = applied.max(if found.is_bare() { Applied::Added } else { Applied::Updated });
        for step in steps {
            apply(netlink, found.device.index, &step).await.map_err(|source| EniError::Apply {
                step,
                device: found.device.name.clone(),
                source,
            })?;
        }
        let now = Snapshot::read(netlink).await?;
        match Found::read(netlink, &now, wanted).await? {
            Some(now) => found = now,
            None => return Ok(EniStatus::Absent),
        }
    }
    match found.steps_to(wanted, mtu).into_iter().next() {
        Some(step) => Err(EniError::NotKept { step, device: found.device.name }),
        None => Ok(EniStatus::Ready(applied)),
    }
}

/// What the kernel has of an ENI.
#[derive(Debug)]
struct Found {
    device: Link,
    /// The device's IPv4 addresses.
    addresses: Vec<IpNet>,
    /// The ENI's table.
    table: Vec<Route>,
    /// The main table's routes over the device.
    main: Vec<Route>,
    /// The rules for the ENI's own address.
    rules: Vec<ListedRule>,
}

impl Found {
    /// `None` if no device has the ENI's hardware address.
    async fn read(
        netlink: &Netlink,
        snapshot: &Snapshot,
        wanted: &HostEni,
    ) -> Result<Option<Self>, ListError> {
        let Some(device) = snapshot.device(wanted.mac) else { return Ok(None) };
        let of_device = |(index, net): &(u32, IpNet)| {
            (*index == device.index && net.addr().is_ipv4()).then_some(*net)
        };
        let own = own_rule(wanted);
        let rivals = snapshot.rules.iter().filter(|listed| listed.rule.rivals(&own));
        Ok(Some(Self {
            addresses: snapshot.addresses.iter().filter_map(of_device).collect(),
            table: routes(netlink, wanted.table, None).await?,
            main: routes(netlink, RouteTable::MAIN, Some(device.index)).await?,
            rules: rivals.copied().collect(),
            device: device.clone(),
        }))
    }

    fn is_bare(&self) -> bool {
        self.addresses.is_empty() && self.table.is_empty() && self.rules.is_empty()
    }

    /// What differs, in an order in which it can be changed.
    fn steps_to(&self, wanted: &HostEni, mtu: Mtu) -> Vec<EniStep> {
        let mut steps = self.device_steps(wanted, mtu);
        steps.extend(self.route_steps(wanted));
        steps.extend(self.rule_steps(wanted));
        steps
    }

    fn device_steps(&self, wanted: &HostEni, mtu: Mtu) -> Vec<EniStep> {
        let own = own_address(wanted);
        let mut steps = Vec::new();
        if self.device.mtu != mtu.bytes() {
            steps.push(EniStep::SetMtu(mtu));
        }
        let others = self.addresses.iter().filter(|address| **address != own);
        steps.extend(others.map(|address| EniStep::RemoveAddress(*address)));
        if !self.addresses.contains(&own) {
            steps.push(EniStep::AddAddress(own));
        }
        if !self.device.up {
            steps.push(EniStep::SetUp);
        }
        steps
    }

    /// Routes of the ENI's table to other destinations stay: they are an administrator's.
    fn route_steps(&self, wanted: &HostEni) -> Vec<EniStep> {
        let routes = table_routes(wanted, self.device.index);
        let rival = |found: &&Route| {
            !routes.contains(found)
                && routes.iter().any(|wanted| wanted.destination == found.destination)
        };
        let subnet = IpNet::from(wanted.subnet.trunc());
        // The kernel adds it with an address, unless the address says otherwise. It would draw the
        // node's own packets for the subnet out of this ENI.
        let in_main = self.main.iter().filter(|route| route.destination == subnet);
        let wrong = self.table.iter().filter(rival).chain(in_main);
        let missing = routes.iter().filter(|route| !self.table.contains(route));
        wrong
            .cloned()
            .map(EniStep::RemoveRoute)
            .chain(missing.cloned().map(EniStep::ReplaceRoute))
            .collect()
    }

    /// The right rule is added before a wrong one goes, so that there is one at any time.
    fn rule_steps(&self, wanted: &HostEni) -> Vec<EniStep> {
        let own = ListedRule { rule: own_rule(wanted), protocol: rule::OURS };
        let missing = (!self.rules.contains(&own)).then_some(EniStep::AddRule(own.rule));
        let wrong = self.rules.iter().filter(|listed| **listed != own);
        missing.into_iter().chain(wrong.copied().map(EniStep::RemoveRule)).collect()
    }
}

fn own_address(wanted: &HostEni) -> IpNet {
    let length = wanted.subnet.prefix_len();
    let own = Ipv4Net::new(wanted.primary_address, length);
    own.expect("the length is another network's").into()
}

fn own_rule(wanted: &HostEni) -> Rule {
    Rule::from_eni(wanted.primary_address.into(), wanted.table)
}

/// The route to the gateway comes first: the kernel refuses the default route without it.
fn table_routes(wanted: &HostEni, device: u32) -> [Route; 2] {
    let to_gateway = Route { table: wanted.table, ..Route::to_host(wanted.gateway.into(), device) };
    let over_gateway = Route {
        destination: Ipv4Net::default().into(),
        gateway: Some(wanted.gateway.into()),
        ..to_gateway.clone()
    };
    [to_gateway, over_gateway]
}

async fn routes(
    netlink: &Netlink,
    table: RouteTable,
    device: Option<u32>,
) -> Result<Vec<Route>, ListError> {
    let filter = Filter { family: AddressFamily::Inet, table, device };
    route::list(netlink, filter).await.map_err(list("the routes"))
}

async fn apply(netlink: &Netlink, device: u32, step: &EniStep) -> Result<(), KernelError> {
    match step {
        EniStep::SetMtu(mtu) => link::set_mtu(netlink, device, *mtu).await,
        EniStep::RemoveAddress(address) => address::remove(netlink, device, *address).await,
        EniStep::AddAddress(address) => address::add(netlink, device, *address).await,
        EniStep::SetUp => link::set_up(netlink, device).await,
        EniStep::RemoveRoute(route) => route::remove(netlink, route).await,
        EniStep::ReplaceRoute(route) => route::replace(netlink, route).await,
        EniStep::AddRule(rule) => rule::add(netlink, rule, rule::OURS).await.map(drop),
        EniStep::RemoveRule(listed) => rule::remove(netlink, listed).await,
    }
}

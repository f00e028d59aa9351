//! The kernel's side of a secondary ENI: its device, its own address, and a route table that leads
//! out of it. Pods' addresses are never on the device.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use netlink_packet_route::AddressFamily;

use crate::link::{self, Link};
use crate::netlink::{KernelError, Netlink};
use crate::route::{self, Filter};
use crate::rule::{self, Selector};
use crate::{Change, MacAddr, Mtu, Removal, Route, RouteTable, Rule, address};

/// How often the kernel is changed and read again before an ENI counts as not to be had right:
/// removing an address takes routes with it, which the second round puts back.
const ROUNDS: usize = 3;

/// An ENI as it shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EniLink {
    /// By which its device is found.
    pub mac: MacAddr,
    /// Its own address.
    pub primary_address: Ipv4Addr,
    /// Its subnet.
    pub subnet: Ipv4Net,
    /// The subnet's router.
    pub gateway: Ipv4Addr,
    /// The table that leads out of it; not the main one.
    pub table: RouteTable,
    /// Its MTU.
    pub mtu: Mtu,
}

/// One change of the kernel's side of an ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Sets the MTU.
    SetMtu(Mtu),
    /// Removes an address that is not the ENI's own.
    RemoveAddress(IpNet),
    /// Adds the ENI's own address.
    AddAddress(IpNet),
    /// Sets the device up.
    SetUp,
    /// Removes a route that leads elsewhere, or from the wrong table.
    RemoveRoute(Route),
    /// Puts a route in the ENI's table.
    ReplaceRoute(Route),
    /// Removes a rule for the ENI's address that names another table.
    RemoveRule(Rule),
    /// Adds the rule for the ENI's address.
    AddRule(Rule),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetMtu(mtu) => write!(f, "set mtu {mtu}"),
            Self::RemoveAddress(address) => write!(f, "remove address {address}"),
            Self::AddAddress(address) => write!(f, "add address {address}"),
            Self::SetUp => f.write_str("set up"),
            Self::RemoveRoute(route) => write!(f, "remove route {route}"),
            Self::ReplaceRoute(route) => write!(f, "replace route {route}"),
            Self::RemoveRule(rule) => write!(f, "remove rule {rule}"),
            Self::AddRule(rule) => write!(f, "add rule {rule}"),
        }
    }
}

/// Why an ENI is not as it shall be.
#[derive(Debug, thiserror::Error)]
pub enum EniSyncError {
    /// The main table is the primary ENI's.
    #[error("{mac} cannot be a secondary ENI with the main table")]
    MainTable {
        /// The ENI's hardware address.
        mac: MacAddr,
    },
    /// Netlink cannot be used.
    #[error("open a netlink socket")]
    Socket(#[source] std::io::Error),
    /// No device has the ENI's hardware address; after an attach it may take seconds to appear.
    #[error("no device has hardware address {mac} yet")]
    NoDevice {
        /// The hardware address.
        mac: MacAddr,
    },
    /// Something could not be read.
    #[error("read {what}")]
    Read {
        /// The list.
        what: &'static str,
        /// What the kernel says.
        #[source]
        source: KernelError,
    },
    /// The kernel refused a change.
    #[error("{step} on {device}")]
    Apply {
        /// The change.
        step: Step,
        /// The device's name.
        device: String,
        /// What the kernel says.
        #[source]
        source: KernelError,
    },
    /// The kernel took every change, but something else changes them back.
    #[error("{device} is not kept as it was set: {step} is due again")]
    NotKept {
        /// The first change that would be due again.
        step: Step,
        /// The device's name.
        device: String,
    },
}

/// Why the rules of an ENI that is gone could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum EniForgetError {
    /// Netlink cannot be used.
    #[error("open a netlink socket")]
    Socket(#[source] std::io::Error),
    /// The kernel refused.
    #[error("remove the rules for {address}")]
    RemoveRules {
        /// The ENI's own address.
        address: Ipv4Addr,
        /// What the kernel says.
        #[source]
        source: KernelError,
    },
}

/// Makes the kernel's side of a secondary ENI match, and has read it back as wanted when it
/// answers.
///
/// # Errors
///
/// [`EniSyncError`]; [`EniSyncError::NoDevice`] while the device is not there. What was done until
/// then stays, and is right.
pub async fn sync(wanted: &EniLink) -> Result<Change, EniSyncError> {
    if wanted.table == RouteTable::MAIN {
        return Err(EniSyncError::MainTable { mac: wanted.mac });
    }
    let netlink = Netlink::open().map_err(EniSyncError::Socket)?;
    let mut change = Change::Unchanged;
    for _ in 0..ROUNDS {
        let found = Found::read(&netlink, wanted).await?;
        let steps = found.steps_to(wanted);
        if steps.is_empty() {
            return Ok(change);
        }
        change = change.max(if found.is_bare() { Change::Added } else { Change::Updated });
        for step in steps {
            apply(&netlink, &found.device, &step).await.map_err(|source| EniSyncError::Apply {
                step,
                device: found.device.name.clone(),
                source,
            })?;
        }
    }
    let found = Found::read(&netlink, wanted).await?;
    match found.steps_to(wanted).into_iter().next() {
        Some(step) => Err(EniSyncError::NotKept { step, device: found.device.name }),
        None => Ok(change),
    }
}

/// Removes the rules of an ENI that is gone. Its routes went with the device.
///
/// # Errors
///
/// [`EniForgetError`].
pub async fn forget(primary_address: Ipv4Addr) -> Result<Removal, EniForgetError> {
    let netlink = Netlink::open().map_err(EniForgetError::Socket)?;
    let selector = Selector::From(primary_address.into());
    let removed = rule::remove_all(&netlink, rule::FROM_ENI, selector)
        .await
        .map_err(|source| EniForgetError::RemoveRules { address: primary_address, source })?;
    Ok(if removed == 0 { Removal::Absent } else { Removal::Removed })
}

/// What the kernel has of an ENI.
#[derive(Debug)]
struct Found {
    device: Link,
    addresses: Vec<IpNet>,
    /// The ENI's table.
    table: Vec<Route>,
    /// The main table's routes over the device.
    main: Vec<Route>,
    /// The rules for the ENI's own address.
    rules: Vec<Rule>,
}

impl Found {
    async fn read(netlink: &Netlink, wanted: &EniLink) -> Result<Self, EniSyncError> {
        let device = link::by_mac(netlink, wanted.mac)
            .await
            .map_err(read("the links"))?
            .ok_or(EniSyncError::NoDevice { mac: wanted.mac })?;
        let index = device.index;
        let addresses = address::list(netlink, index).await.map_err(read("the addresses"))?;
        let table = routes(netlink, wanted.table, None).await?;
        let main = routes(netlink, RouteTable::MAIN, Some(index)).await?;
        let rules = rule::list(netlink, AddressFamily::Inet).await.map_err(read("the rules"))?;
        let own = Rule::from_eni(wanted.primary_address.into(), wanted.table);
        Ok(Self {
            device,
            addresses: addresses.into_iter().filter(|net| net.addr().is_ipv4()).collect(),
            table,
            main,
            rules: rules.into_iter().filter(|rule| rule.rivals(&own)).collect(),
        })
    }

    fn is_bare(&self) -> bool {
        self.addresses.is_empty() && self.table.is_empty() && self.rules.is_empty()
    }

    /// What has to be done, in an order in which it can be.
    fn steps_to(&self, wanted: &EniLink) -> Vec<Step> {
        let mut steps = self.device_steps(wanted);
        steps.extend(self.route_steps(wanted));
        steps.extend(self.rule_steps(wanted));
        steps
    }

    fn device_steps(&self, wanted: &EniLink) -> Vec<Step> {
        let own = own_address(wanted);
        let mut steps = Vec::new();
        if self.device.mtu != wanted.mtu.bytes() {
            steps.push(Step::SetMtu(wanted.mtu));
        }
        let others = self.addresses.iter().filter(|address| **address != own);
        steps.extend(others.map(|address| Step::RemoveAddress(*address)));
        if !self.addresses.contains(&own) {
            steps.push(Step::AddAddress(own));
        }
        if !self.device.up {
            steps.push(Step::SetUp);
        }
        steps
    }

    /// Routes of the ENI's table to other destinations are left alone: an administrator's.
    fn route_steps(&self, wanted: &EniLink) -> Vec<Step> {
        let routes = table_routes(wanted, self.device.index);
        let rival = |found: &&Route| {
            !routes.contains(found)
                && routes.iter().any(|wanted| wanted.destination == found.destination)
        };
        let subnet = IpNet::from(wanted.subnet.trunc());
        // The kernel adds it with an address, unless told not to; it would draw the node's own
        // packets for the subnet out of this ENI.
        let in_main = self.main.iter().filter(|route| route.destination == subnet);
        let wrong = self.table.iter().filter(rival).chain(in_main);
        let missing = routes.iter().filter(|route| !self.table.contains(route));
        wrong
            .cloned()
            .map(Step::RemoveRoute)
            .chain(missing.cloned().map(Step::ReplaceRoute))
            .collect()
    }

    fn rule_steps(&self, wanted: &EniLink) -> Vec<Step> {
        let own = Rule::from_eni(wanted.primary_address.into(), wanted.table);
        let wrong = self.rules.iter().filter(|rule| **rule != own);
        let missing = (!self.rules.contains(&own)).then_some(Step::AddRule(own));
        wrong.map(|rule| Step::RemoveRule(*rule)).chain(missing).collect()
    }
}

fn own_address(wanted: &EniLink) -> IpNet {
    let length = wanted.subnet.prefix_len();
    let own = Ipv4Net::new(wanted.primary_address, length);
    own.expect("the length is another network's").into()
}

/// The way to the gateway first: the kernel refuses the default route without it.
fn table_routes(wanted: &EniLink, device: u32) -> [Route; 2] {
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
) -> Result<Vec<Route>, EniSyncError> {
    let filter = Filter { family: AddressFamily::Inet, table, device };
    route::list(netlink, filter).await.map_err(read("the routes"))
}

async fn apply(netlink: &Netlink, device: &Link, step: &Step) -> Result<(), KernelError> {
    match step {
        Step::SetMtu(mtu) => link::set_mtu(netlink, device.index, *mtu).await,
        Step::RemoveAddress(address) => address::remove(netlink, device.index, *address).await,
        Step::AddAddress(address) => address::add(netlink, device.index, *address).await,
        Step::SetUp => link::set_up(netlink, device.index).await,
        Step::RemoveRoute(route) => route::remove(netlink, route).await,
        Step::ReplaceRoute(route) => route::replace(netlink, route).await,
        Step::RemoveRule(rule) => rule::remove(netlink, rule).await,
        Step::AddRule(rule) => rule::add(netlink, rule).await.map(drop),
    }
}

fn read(what: &'static str) -> impl Fn(KernelError) -> EniSyncError {
    move |source| EniSyncError::Read { what, source }
}

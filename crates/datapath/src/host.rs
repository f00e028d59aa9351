//! The host network: one value describes all of it, and [`sync`] makes the kernel match.
//!
//! It covers the kernel's own rules, the node's sysctls, the primary ENI's MTU and default route, the translation of
//! pods' packets, and each secondary ENI's device, routes and rule. It must not know pods, EC2 or how the caller
//! chose the ENIs.

mod default_route;
mod eni;
mod former;
pub(crate) mod kernel_rules;
mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use netlink_packet_route::AddressFamily;

pub use self::default_route::DefaultRouteError;
pub use self::eni::{EniError, EniStep};
pub use self::former::FormerError;
pub use self::kernel_rules::{KernelRule, KernelRulesError};
pub use self::node::{NodeError, NodeFault};
use crate::link::{self, Link};
use crate::nat::{self, Egress, ListedMainRule, NatError, NatPicture, NatReport};
use crate::netlink::{KernelError, Netlink};
use crate::rule::{self, ListedRule};
use crate::{Applied, MacAddr, Mtu, RouteTable, address};

/// The whole wanted host network of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPicture {
    /// Hardware address of the primary ENI, whose route table is the main one.
    pub primary_mac: MacAddr,
    /// The MTU of every ENI.
    pub mtu: Mtu,
    /// The address families of pods.
    pub families: Families,
    /// How pods' packets are translated, and which way answers take.
    pub nat: NatPicture,
    /// How pods reach the family that their VPC addresses are not of.
    pub egress: Egress,
    /// The secondary ENIs, each once and in any order; empty while they are unknown.
    pub enis: Vec<HostEni>,
}

/// Which addresses pods have. Secondary ENIs carry IPv4 alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// IPv4 alone.
    Ipv4,
    /// IPv6, alone or beside IPv4. The node itself uses IPv4 in either case.
    Ipv6,
}

/// A wanted secondary ENI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostEni {
    /// Hardware address, by which its device is found.
    pub mac: MacAddr,
    /// The table that leads out of it; not the main one.
    pub table: RouteTable,
    /// Its own address.
    pub primary_address: Ipv4Addr,
    /// Its subnet.
    pub subnet: Ipv4Net,
    /// The subnet's router.
    pub gateway: Ipv4Addr,
}

/// The state of the host network after a [`sync`].
#[derive(Debug)]
pub struct HostReport {
    /// The rules that the kernel itself has made.
    pub kernel_rules: Result<Applied, KernelRulesError>,
    /// The node's sysctls and the primary ENI.
    pub node: Result<Applied, NodeError>,
    /// The main table's default route, by which pods of the primary ENI leave.
    pub default_route: Result<Applied, DefaultRouteError>,
    /// The translation of pods' packets.
    pub nat: Result<NatReport, NatError>,
    /// The ranges of node-local addresses whose packets cannot leave, since the primary ENI's device has no address of
    /// their family.
    pub stranded: BTreeSet<IpNet>,
    /// Each secondary ENI of the picture, by hardware address.
    pub enis: BTreeMap<MacAddr, EniStatus>,
    /// What is left of ENIs that the picture lacks.
    pub former: Result<FormerEnis, FormerError>,
}

/// The state of a secondary ENI.
#[derive(Debug)]
pub enum EniStatus {
    /// The kernel matches, and was read again after the last change.
    Ready(Applied),
    /// No device has its hardware address. After an attach the device may take seconds to appear.
    Absent,
    /// It does not match. What was done until then stays, and is right.
    Failed(EniError),
}

/// What is left of ENIs that the picture lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FormerEnis {
    /// How many rules were removed.
    pub n_removed: usize,
    /// Hardware addresses of the devices that are still there. Their rules stay until then: another
    /// program may use the ENI now.
    pub devices: BTreeSet<MacAddr>,
}

/// Why the host network could be neither read nor changed.
#[derive(Debug, thiserror::Error)]
pub enum HostSyncError {
    /// Netlink cannot be used.
    #[error("open a netlink socket")]
    Socket(#[source] std::io::Error),
}

/// The kernel does not list something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("list {what}")]
pub struct ListError {
    what: &'static str,
    #[source]
    source: KernelError,
}

/// Makes the host network match `wanted`: reads the kernel, changes what differs, reads again. It
/// may be called at any time, and changes nothing where nothing differs.
///
/// Every part is tried, also after another one has failed. Costs a list of all links and addresses, two of all
/// rules, and two lists of routes for each ENI. An ENI that differs costs the same lists again.
///
/// # Errors
///
/// [`HostSyncError`] if no part could be tried.
pub async fn sync(wanted: &HostPicture) -> Result<HostReport, HostSyncError> {
    let netlink = Netlink::open().map_err(HostSyncError::Socket)?;
    let kernel_rules = kernel_rules::sync(&netlink).await;
    let node = node::sync(&netlink, wanted).await;
    let before = Snapshot::read(&netlink).await;
    let mut enis = BTreeMap::new();
    for eni in &wanted.enis {
        let status = match &before {
            Ok(before) => eni::sync(&netlink, before, eni, wanted.mtu).await,
            Err(error) => Err(error.clone().into()),
        };
        enis.insert(eni.mac, status.unwrap_or_else(EniStatus::Failed));
    }
    let stranded = before.as_ref().map(|before| nat::stranded(before, wanted));
    let stranded = stranded.unwrap_or_default();
    let nat = match &before {
        Ok(before) => nat::sync(&netlink, before, wanted).await,
        Err(error) => Err(error.clone().into()),
    };
    let default_route = match &before {
        Ok(before) => default_route::sync(&netlink, before, wanted).await,
        Err(error) => Err(error.clone().into()),
    };
    let former = match before {
        Ok(before) => former::sync(&netlink, &before, &wanted.enis).await,
        Err(error) => Err(error.into()),
    };
    Ok(HostReport { kernel_rules, node, default_route, nat, stranded, enis, former })
}

/// What the kernel has that all ENIs share.
#[derive(Debug)]
pub(crate) struct Snapshot {
    links: Vec<Link>,
    /// Each with the index of its link.
    pub(crate) addresses: Vec<(u32, IpNet)>,
    /// The rules for the packets of one IPv4 address.
    rules: Vec<ListedRule>,
    /// The rules that lead marked packets and ranges to the main table.
    pub(crate) main_rules: Vec<ListedMainRule>,
}

impl Snapshot {
    async fn read(netlink: &Netlink) -> Result<Self, ListError> {
        let rules = rule::messages(netlink, AddressFamily::Inet).await;
        let rules = rules.map_err(list("the rules"))?;
        Ok(Self {
            links: link::list(netlink).await.map_err(list("the links"))?,
            addresses: address::list_all(netlink).await.map_err(list("the addresses"))?,
            main_rules: rules.iter().filter_map(ListedMainRule::from_message).collect(),
            rules: rules.iter().filter_map(ListedRule::from_message).collect(),
        })
    }

    /// The oldest link with this hardware address: a VLAN may have taken over its device's.
    pub(crate) fn device(&self, mac: MacAddr) -> Option<&Link> {
        self.links.iter().filter(|link| link.mac == mac).min_by_key(|link| link.index)
    }
}

fn list(what: &'static str) -> impl Fn(KernelError) -> ListError {
    move |source| ListError { what, source }
}

//! Makes a pod's link, or leaves nothing of it behind.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use sha1::{Digest as _, Sha1};
use tracing::warn;

use super::picture::Picture;
use super::{LinkEnd, PodAddress, PodLink, PodLinkState, remove_rules};
use crate::link::{self, Link, VethPair};
use crate::netlink::{KernelError, Netlink};
use crate::netns::{Netns, NetnsError};
use crate::sysctl::{self, SysctlError};
use crate::{
    InterfaceName, MacAddr, Neighbour, Owner, Route, Rule, address, neighbour, route, rule,
};

/// Index of `lo`, the first link of every namespace (the kernel's `LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

/// How long the kernel may take to bring an IPv6 address into use: milliseconds, unless the node
/// is overwhelmed.
const IPV6_DEADLINE: Duration = Duration::from_secs(10);

/// How often it is asked.
const IPV6_POLL: Duration = Duration::from_millis(1);

/// Why a pod has no link now.
#[derive(Debug, thiserror::Error)]
pub enum AddPodError {
    /// A link without an address is of no use.
    #[error("pod link {host_name} has no address")]
    NoAddress {
        /// Name of the host's end.
        host_name: InterfaceName,
    },
    /// No pod can have this address: it is unspecified, loopback, multicast or link-local.
    #[error("{address} cannot be a pod's address")]
    UnusableAddress {
        /// The address.
        address: IpAddr,
    },
    /// The pod's namespace cannot be used.
    #[error("use the pod's network namespace")]
    Netns(#[source] NetnsError),
    /// The pod's namespace is the node's. Nothing was changed.
    #[error("{} is this process's own network namespace", netns.display())]
    OwnNetns {
        /// Path of the namespace.
        netns: PathBuf,
    },
    /// The node's netlink cannot be used.
    #[error("open a netlink socket")]
    Socket(#[source] std::io::Error),
    /// A link could not be looked up.
    #[error("look up link {name}")]
    ReadLink {
        /// Its name.
        name: InterfaceName,
        /// What the kernel says.
        #[source]
        source: KernelError,
    },
    /// The pod has an interface of this name. Nothing was changed.
    #[error("interface {ifname} exists already in {}", netns.display())]
    IfnameExists {
        /// Its name.
        ifname: InterfaceName,
        /// Path of the pod's namespace.
        netns: PathBuf,
    },
    /// The node has a link of this name that is in use: it is no pod link, or it leads to another
    /// interface in the same namespace. Nothing was changed.
    #[error("link {name} exists and is in use")]
    HostNameInUse {
        /// Its name.
        name: InterfaceName,
    },
    /// An earlier sandbox's link of this name could not be deleted.
    #[error("delete the earlier sandbox's link {name}")]
    DeleteStaleLink {
        /// Its name.
        name: InterfaceName,
        /// What the kernel says.
        #[source]
        source: KernelError,
    },
    /// The pair could not be created.
    #[error("create links {host_name} and {ifname}")]
    CreateLink {
        /// The host's end.
        host_name: InterfaceName,
        /// The pod's end.
        ifname: InterfaceName,
        /// What the kernel says.
        #[source]
        source: KernelError,
    },
    /// A link is not there although it was just created.
    #[error("link {name} vanished while it was set up")]
    Vanished {
        /// Its name.
        name: InterfaceName,
    },
    /// A sysctl of one of the ends could not be set.
    #[error("set a sysctl of the pod's link")]
    Sysctl(#[source] SysctlError),
    /// The host's end could not be marked and set up.
    #[error("mark link {name} as {owner} and set it up")]
    MarkLink {
        /// Its name.
        name: InterfaceName,
        /// The mark.
        owner: Owner,
        /// What the kernel says.
        #[source]
        source: KernelError,
    },
    /// A link in the pod's namespace could not be set up.
    #[error("set {name} up in the pod's namespace")]
    SetUp {
        /// Its name.
        name: String,
        /// What the kernel says.
        #[source]
        source: KernelError,
    },
    /// The pod's end did not get an address.
    #[error("add address {address} to {device}")]
    AddAddress {
        /// The address.
        address: IpNet,
        /// The pod's end.
        device: InterfaceName,
        /// What the kernel says.
        #[source]
        source: KernelError,
    },
    /// It could not be found out whether an address is in use.
    #[error("look up the pod's address {address}")]
    ReadAddress {
        /// The address.
        address: IpAddr,
        /// What the kernel says.
        #[source]
        source: KernelError,
    },
    /// The kernel did not bring an IPv6 address into use in time.
    #[error("{address} is not in use {} s after it was added", IPV6_DEADLINE.as_secs())]
    NotUsable {
        /// The address.
        address: IpAddr,
    },
    /// A route could not be added, in the namespace of the device.
    #[error("add route {route} dev {device}")]
    AddRoute {
        /// The route.
        route: Route,
        /// One of the ends.
        device: InterfaceName,
        /// What the kernel says.
        #[source]
        source: KernelError,
    },
    /// The hardware address behind an address could not be set, in the namespace of the device.
    #[error("set neighbour {neighbour} dev {device}")]
    SetNeighbour {
        /// The entry.
        neighbour: Neighbour,
        /// One of the ends.
        device: InterfaceName,
        /// What the kernel says.
        #[source]
        source: KernelError,
    },
    /// Rules that an earlier pod left for an address could not be removed.
    #[error("remove earlier rules for {address}")]
    RemoveRules {
        /// The address.
        address: IpAddr,
        /// What the kernel says.
        #[source]
        source: KernelError,
    },
    /// A rule could not be added.
    #[error("add rule {rule}")]
    AddRule {
        /// The rule.
        rule: Rule,
        /// What the kernel says.
        #[source]
        source: KernelError,
    },
}

/// Makes a pod's link. Packets pass in both directions when it returns. Needs a runtime with I/O
/// and time.
///
/// A host link of the same name is an earlier sandbox's of the same pod that the runtime has not
/// torn down yet: the newer sandbox wins, and the late [`super::del`] of the earlier one will find
/// another owner's mark. Rules and routes that were left behind for one of the addresses are
/// replaced.
///
/// Costs about 20 requests to the kernel, none of which depends on how many pods there are.
///
/// # Errors
///
/// [`AddPodError`], one variant for each step. What was done until then is undone, and a fault in
/// undoing is logged; only an earlier sandbox's link of the same name and old rules for the
/// addresses may be gone.
pub async fn add(wanted: &PodLink) -> Result<PodLinkState, AddPodError> {
    refuse_bad_addresses(wanted)?;
    let sides = Sides::open(wanted)?;
    sides.refuse_existing_ifname(wanted).await?;
    sides.clear_host_name(wanted).await?;
    sides.create_pair(wanted).await?;
    match sides.set_up(wanted).await {
        Ok(state) => Ok(state),
        Err(error) => {
            sides.undo(wanted).await;
            Err(error)
        }
    }
}

fn refuse_bad_addresses(wanted: &PodLink) -> Result<(), AddPodError> {
    if wanted.addresses.is_empty() {
        return Err(AddPodError::NoAddress { host_name: wanted.host_name.clone() });
    }
    let unusable = |address: &IpAddr| {
        let link_local = match address {
            IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        link_local || address.is_unspecified() || address.is_loopback() || address.is_multicast()
    };
    match wanted.addresses.iter().map(|pod| pod.address).find(unusable) {
        Some(address) => Err(AddPodError::UnusableAddress { address }),
        None => Ok(()),
    }
}

/// A host end's hardware address: made from its owner's mark, so that it needs no source of
/// randomness, differs between sandboxes and is the same when an ADD is repeated.
fn host_mac(owner: &Owner) -> MacAddr {
    let [a, b, c, d, e, f, ..] = <[u8; 20]>::from(Sha1::digest(owner.as_str()));
    MacAddr::local([a, b, c, d, e, f])
}

/// The two namespaces that a link joins.
struct Sides {
    host: Netlink,
    pod: Netlink,
    netns: Netns,
}

impl Sides {
    fn open(wanted: &PodLink) -> Result<Self, AddPodError> {
        let netns = Netns::open(&wanted.netns).map_err(AddPodError::Netns)?;
        let own = Netns::current().map_err(AddPodError::Netns)?;
        if netns.is_same(&own).map_err(AddPodError::Netns)? {
            return Err(AddPodError::OwnNetns { netns: wanted.netns.clone() });
        }
        let host = Netlink::open().map_err(AddPodError::Socket)?;
        let pod = netns.netlink().map_err(AddPodError::Netns)?;
        Ok(Self { host, pod, netns })
    }

    async fn refuse_existing_ifname(&self, wanted: &PodLink) -> Result<(), AddPodError> {
        match find(&self.pod, &wanted.ifname).await? {
            Some(_) => Err(AddPodError::IfnameExists {
                ifname: wanted.ifname.clone(),
                netns: wanted.netns.clone(),
            }),
            None => Ok(()),
        }
    }

    async fn clear_host_name(&self, wanted: &PodLink) -> Result<(), AddPodError> {
        let name = &wanted.host_name;
        let Some(old) = find(&self.host, name).await? else { return Ok(()) };
        if !old.is_veth || self.leads_to_pod(&old, name).await? {
            return Err(AddPodError::HostNameInUse { name: name.clone() });
        }
        link::delete(&self.host, old.index)
            .await
            .map_err(|source| AddPodError::DeleteStaleLink { name: name.clone(), source })
    }

    /// Whether `old` is the other end of a link in the pod's namespace.
    async fn leads_to_pod(&self, old: &Link, name: &InterfaceName) -> Result<bool, AddPodError> {
        let ends = link::list(&self.pod)
            .await
            .map_err(|source| AddPodError::ReadLink { name: name.clone(), source })?;
        let joined = |end: &Link| old.peer == Some(end.index) && end.peer == Some(old.index);
        Ok(ends.iter().any(joined))
    }

    async fn create_pair(&self, wanted: &PodLink) -> Result<(), AddPodError> {
        let pair = VethPair {
            host: &wanted.host_name,
            host_mac: host_mac(&wanted.owner),
            pod: &wanted.ifname,
            netns: &self.netns,
            mtu: wanted.mtu,
        };
        link::create_veth(&self.host, &pair).await.map_err(|source| AddPodError::CreateLink {
            host_name: wanted.host_name.clone(),
            ifname: wanted.ifname.clone(),
            source,
        })
    }

    async fn set_up(&self, wanted: &PodLink) -> Result<PodLinkState, AddPodError> {
        let host = read_back(&self.host, &wanted.host_name).await?;
        let pod = read_back(&self.pod, &wanted.ifname).await?;
        let picture = Picture::of(&wanted.addresses, &host, &pod);
        self.set_sysctls(wanted)?;
        self.raise(wanted, &host, &pod).await?;
        self.furnish_pod(wanted, &pod, &picture).await?;
        self.furnish_host(wanted, &picture).await?;
        self.await_ipv6(wanted, &host, &pod).await?;
        // Last, for it is the only thing in the pod's namespace that does not vanish with the link.
        self.raise_loopback(wanted).await?;
        Ok(PodLinkState {
            host: end(&wanted.host_name, &host),
            pod: end(&wanted.ifname, &pod),
            routes: picture.pod_routes,
        })
    }

    /// Before the ends are up, for the kernel looks at them when it sets IPv6 up.
    fn set_sysctls(&self, wanted: &PodLink) -> Result<(), AddPodError> {
        let PodLink { host_name, ifname, .. } = wanted;
        // The host's end takes no configuration from the pod. Values as in amazon-vpc-cni-k8s.
        for (key, value) in [("accept_ra", "0"), ("accept_redirects", "1"), ("forwarding", "0")] {
            sysctl::set_if_present(&format!("net/ipv6/conf/{host_name}/{key}"), value)
                .map_err(AddPodError::Sysctl)?;
        }
        if has_ipv6(wanted) {
            // EC2 gives no address twice, and the link-local ones have two users only.
            sysctl::set(&format!("net/ipv6/conf/{host_name}/accept_dad"), "0")
                .map_err(AddPodError::Sysctl)?;
            self.set_in_pod(&format!("net/ipv6/conf/{ifname}/disable_ipv6"), "0")?;
            self.set_in_pod(&format!("net/ipv6/conf/{ifname}/accept_dad"), "0")?;
        }
        Ok(())
    }

    fn set_in_pod(&self, key: &str, value: &str) -> Result<(), AddPodError> {
        let set = self.netns.run(|| sysctl::set(key, value)).map_err(AddPodError::Netns)?;
        set.map(drop).map_err(AddPodError::Sysctl)
    }

    async fn raise(&self, wanted: &PodLink, host: &Link, pod: &Link) -> Result<(), AddPodError> {
        link::mark_and_set_up(&self.host, host.index, &wanted.owner).await.map_err(|source| {
            AddPodError::MarkLink {
                name: wanted.host_name.clone(),
                owner: wanted.owner.clone(),
                source,
            }
        })?;
        // The pod's end cannot be created up: the kernel answers ENOTCONN.
        link::set_up(&self.pod, pod.index)
            .await
            .map_err(|source| AddPodError::SetUp { name: wanted.ifname.to_string(), source })?;
        // The end that was up first has no queue until the kernel has seen that the other is up,
        // and drops packets meanwhile. To ask for it makes the kernel look now (Linux 6.8 and
        // later, `linkwatch_sync_dev`).
        find(&self.host, &wanted.host_name).await.map(drop)
    }

    async fn furnish_pod(
        &self,
        wanted: &PodLink,
        pod: &Link,
        picture: &Picture,
    ) -> Result<(), AddPodError> {
        let device = &wanted.ifname;
        for address in &picture.addresses {
            address::add(&self.pod, pod.index, *address).await.map_err(|source| {
                AddPodError::AddAddress { address: *address, device: device.clone(), source }
            })?;
        }
        for route in &picture.pod_routes {
            route::add(&self.pod, route).await.map_err(add_route(route, device))?;
        }
        for neighbour in &picture.neighbours {
            neighbour::replace(&self.pod, neighbour).await.map_err(|source| {
                AddPodError::SetNeighbour { neighbour: *neighbour, device: device.clone(), source }
            })?;
        }
        Ok(())
    }

    async fn furnish_host(&self, wanted: &PodLink, picture: &Picture) -> Result<(), AddPodError> {
        for route in &picture.host_routes {
            let device = &wanted.host_name;
            route::replace(&self.host, route).await.map_err(add_route(route, device))?;
        }
        for PodAddress { address, .. } in &wanted.addresses {
            remove_rules(&self.host, *address)
                .await
                .map_err(|source| AddPodError::RemoveRules { address: *address, source })?;
        }
        for rule in &picture.rules {
            rule::add(&self.host, rule)
                .await
                .map_err(|source| AddPodError::AddRule { rule: *rule, source })?;
        }
        Ok(())
    }

    /// The kernel takes an IPv6 address into use in the background, also without duplicate address
    /// detection; and the node's own link-local address, with which it would ask for the pod, comes
    /// later still.
    async fn await_ipv6(
        &self,
        wanted: &PodLink,
        host: &Link,
        pod: &Link,
    ) -> Result<(), AddPodError> {
        let addresses = wanted.addresses.iter().map(|pod| pod.address);
        for address in addresses.filter(IpAddr::is_ipv6) {
            let neighbour = Neighbour { address, mac: pod.mac, device: host.index };
            neighbour::hint(&self.host, &neighbour).await.map_err(|source| {
                let device = wanted.host_name.clone();
                AddPodError::SetNeighbour { neighbour, device, source }
            })?;
            tokio::time::timeout(IPV6_DEADLINE, self.until_local(address))
                .await
                .map_err(|_elapsed| AddPodError::NotUsable { address })??;
        }
        Ok(())
    }

    async fn until_local(&self, address: IpAddr) -> Result<(), AddPodError> {
        let failed = |source| AddPodError::ReadAddress { address, source };
        while !route::is_local(&self.pod, address).await.map_err(failed)? {
            tokio::time::sleep(IPV6_POLL).await;
        }
        Ok(())
    }

    async fn raise_loopback(&self, wanted: &PodLink) -> Result<(), AddPodError> {
        if has_ipv6(wanted) {
            self.set_in_pod("net/ipv6/conf/lo/disable_ipv6", "0")?;
        }
        link::set_up(&self.pod, LOOPBACK)
            .await
            .map_err(|source| AddPodError::SetUp { name: "lo".to_owned(), source })
    }

    /// Takes everything back: routes, addresses and the neighbour entry go with the link.
    async fn undo(&self, wanted: &PodLink) {
        for PodAddress { address, .. } in &wanted.addresses {
            if let Err(error) = remove_rules(&self.host, *address).await {
                warn!(%address, %error, "rules of a failed pod link stay");
            }
        }
        let deleted = match link::by_name(&self.host, wanted.host_name.as_str()).await {
            Ok(Some(link)) => link::delete(&self.host, link.index).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = deleted {
            warn!(link = %wanted.host_name, %error, "a failed pod link stays");
        }
    }
}

async fn find(netlink: &Netlink, name: &InterfaceName) -> Result<Option<Link>, AddPodError> {
    link::by_name(netlink, name.as_str())
        .await
        .map_err(|source| AddPodError::ReadLink { name: name.clone(), source })
}

async fn read_back(netlink: &Netlink, name: &InterfaceName) -> Result<Link, AddPodError> {
    find(netlink, name).await?.ok_or_else(|| AddPodError::Vanished { name: name.clone() })
}

fn add_route(route: &Route, device: &InterfaceName) -> impl FnOnce(KernelError) -> AddPodError {
    |source| AddPodError::AddRoute { route: route.clone(), device: device.clone(), source }
}

fn end(name: &InterfaceName, link: &Link) -> LinkEnd {
    LinkEnd { name: name.clone(), mac: link.mac, mtu: link.mtu }
}

fn has_ipv6(wanted: &PodLink) -> bool {
    wanted.addresses.iter().any(|pod| pod.address.is_ipv6())
}

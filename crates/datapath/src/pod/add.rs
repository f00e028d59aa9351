//! Makes a pod's link, or removes all that it made of it.

mod error;

use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_route::route::RouteProtocol;
use tracing::warn;

pub use self::error::AddPodError;
use super::objects::LinkObjects;
use super::{LinkEnd, PodAddress, PodLink, PodLinkState, remove_rules};
use crate::link::{self, Link, VethPair};
use crate::netlink::{KernelError, Netlink};
use crate::netns::Netns;
use crate::sysctl;
use crate::{InterfaceName, Neighbour, Route, address, neighbour, route, rule};

/// Index of `lo` in every namespace (the kernel's `LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

/// How long the kernel may take until an IPv6 address is in use. It takes milliseconds, unless the
/// node is overloaded.
const IPV6_DEADLINE: Duration = Duration::from_secs(10);

/// How long the kernel may take to give the host's end a queue.
const QUEUE_DEADLINE: Duration = Duration::from_millis(100);

/// Between two polls for what the kernel does in the background.
const POLL: Duration = Duration::from_millis(1);

/// Makes a pod's link. Packets pass in both directions when it returns. Needs a runtime with I/O
/// and time.
///
/// 1. A host link of the same name belongs to an earlier sandbox of the same pod that the runtime
///    has not torn down yet. The newer sandbox replaces it. A late [`super::del`] of the earlier
///    sandbox then finds another owner's mark.
/// 2. Rules and routes that an earlier pod left for one of the addresses are replaced.
///
/// Costs about 20 requests to the kernel; none of them lists other pods' objects. If the future is
/// dropped before its end, what it has made stays until [`super::del`] removes it.
///
/// # Errors
///
/// [`AddPodError`], one variant for each step. What was done until then is undone, and a fault in
/// undoing is logged. Only an earlier sandbox's link of the same name and old rules for the
/// addresses may be gone.
pub async fn add(wanted: &PodLink) -> Result<PodLinkState, AddPodError> {
    refuse_bad_addresses(wanted)?;
    let sides = Sides::open(wanted)?;
    sides.refuse_existing_ifname(wanted).await?;
    sides.clear_host_name(wanted).await?;
    sides.create_pair(wanted).await?;
    failpoint::pass("link", "made");
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

/// The two namespaces that the link connects.
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
        self.delete(&old, name).await
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
            host_mac: wanted.owner.host_mac(),
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
        let vanished = |name: &InterfaceName| AddPodError::Vanished { name: name.clone() };
        let host = self.made(wanted).await?.ok_or_else(|| vanished(&wanted.host_name))?;
        let pod = find(&self.pod, &wanted.ifname).await?.ok_or_else(|| vanished(&wanted.ifname))?;
        let objects = LinkObjects::of(&wanted.addresses, &host, &pod);
        self.set_sysctls(wanted)?;
        self.raise(wanted, &host, &pod).await?;
        failpoint::pass("link", "marked");
        self.until_queue(wanted).await?;
        self.furnish_pod(wanted, &pod, &objects).await?;
        failpoint::pass("link", "furnished");
        self.furnish_host(wanted, &objects).await?;
        self.await_ipv6(wanted, &host, &pod).await?;
        // The last step: nothing else in the pod's namespace outlives the link.
        self.raise_loopback(wanted).await?;
        Ok(PodLinkState {
            host: end(&wanted.host_name, &host),
            pod: end(&wanted.ifname, &pod),
            routes: objects.pod_routes,
        })
    }

    /// Runs before the ends are up: the kernel reads these sysctls when it starts IPv6 on a link.
    fn set_sysctls(&self, wanted: &PodLink) -> Result<(), AddPodError> {
        let PodLink { host_name, ifname, .. } = wanted;
        // The pod must not configure the host's end. The values are those of amazon-vpc-cni-k8s.
        for (key, value) in [("accept_ra", "0"), ("accept_redirects", "1"), ("forwarding", "0")] {
            sysctl::set_if_present(&format!("net/ipv6/conf/{host_name}/{key}"), value)
                .map_err(AddPodError::Sysctl)?;
        }
        if has_ipv6(wanted) {
            // No duplicate can exist: EC2 gives no address twice, and the link has two ends only.
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
        // The pod's end cannot be created in the state up: the kernel answers ENOTCONN.
        link::set_up(&self.pod, pod.index)
            .await
            .map_err(|source| AddPodError::SetUp { name: wanted.ifname.to_string(), source })
    }

    /// Waits until the host's end has a queue. The end that was up first has none, and drops packets,
    /// until the kernel notices that the other end is up too. Since Linux 6.8 a request for the link
    /// makes it notice; before, it takes a moment. After the deadline the link is still good, only
    /// not at once.
    async fn until_queue(&self, wanted: &PodLink) -> Result<(), AddPodError> {
        let queue = async {
            while self.made(wanted).await?.is_some_and(|link| !link.has_queue) {
                tokio::time::sleep(POLL).await;
            }
            Ok(())
        };
        tokio::time::timeout(QUEUE_DEADLINE, queue).await.unwrap_or(Ok(()))
    }

    async fn furnish_pod(
        &self,
        wanted: &PodLink,
        pod: &Link,
        objects: &LinkObjects,
    ) -> Result<(), AddPodError> {
        let device = &wanted.ifname;
        for address in &objects.addresses {
            address::add(&self.pod, pod.index, *address).await.map_err(|source| {
                AddPodError::AddAddress { address: *address, device: device.clone(), source }
            })?;
        }
        for route in &objects.pod_routes {
            route::add(&self.pod, route).await.map_err(add_route(route, device))?;
        }
        for neighbour in &objects.neighbours {
            neighbour::replace(&self.pod, neighbour).await.map_err(|source| {
                AddPodError::SetNeighbour { neighbour: *neighbour, device: device.clone(), source }
            })?;
        }
        Ok(())
    }

    async fn furnish_host(
        &self,
        wanted: &PodLink,
        objects: &LinkObjects,
    ) -> Result<(), AddPodError> {
        for route in &objects.host_routes {
            let device = &wanted.host_name;
            route::replace(&self.host, route).await.map_err(add_route(route, device))?;
        }
        failpoint::pass("link", "routed");
        for PodAddress { address, .. } in &wanted.addresses {
            remove_rules(&self.host, *address)
                .await
                .map_err(|source| AddPodError::RemoveRules { address: *address, source })?;
        }
        for rule in &objects.rules {
            rule::add(&self.host, rule, RouteProtocol::Unspec)
                .await
                .map_err(|source| AddPodError::AddRule { rule: *rule, source })?;
        }
        failpoint::pass("link", "ruled");
        Ok(())
    }

    /// Waits until the kernel uses the IPv6 addresses: it starts in the background, also without
    /// duplicate address detection. The node's own link-local address comes later still, and without
    /// it the node cannot ask for the pod's hardware address. So the node gets a neighbour entry.
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
                .map_err(|_elapsed| AddPodError::NotUsable { address, within: IPV6_DEADLINE })??;
        }
        Ok(())
    }

    async fn until_local(&self, address: IpAddr) -> Result<(), AddPodError> {
        let failed = |source| AddPodError::ReadAddress { address, source };
        while !route::is_local(&self.pod, address).await.map_err(failed)? {
            tokio::time::sleep(POLL).await;
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

    /// The host's end that was made here. `None` if a newer sandbox's link has taken its name.
    async fn made(&self, wanted: &PodLink) -> Result<Option<Link>, AddPodError> {
        let link = find(&self.host, &wanted.host_name).await?;
        Ok(link.filter(|link| link.mac == wanted.owner.host_mac()))
    }

    /// Removes all that was made. Routes, addresses and the neighbour entry go with the link.
    async fn undo(&self, wanted: &PodLink) {
        for PodAddress { address, .. } in &wanted.addresses {
            if let Err(error) = remove_rules(&self.host, *address).await {
                warn!(%address, %error, "rules of a failed pod link are left");
            }
        }
        if let Err(error) = self.delete_made(wanted).await {
            warn!(link = %wanted.host_name, %error, "a failed pod link is left");
        }
    }

    async fn delete_made(&self, wanted: &PodLink) -> Result<(), AddPodError> {
        let Some(made) = self.made(wanted).await? else { return Ok(()) };
        self.delete(&made, &wanted.host_name).await
    }

    async fn delete(&self, link: &Link, name: &InterfaceName) -> Result<(), AddPodError> {
        link::delete(&self.host, link.index)
            .await
            .map_err(|source| AddPodError::DeleteLink { name: name.clone(), source })
    }
}

async fn find(netlink: &Netlink, name: &InterfaceName) -> Result<Option<Link>, AddPodError> {
    link::by_name(netlink, name.as_str())
        .await
        .map_err(|source| AddPodError::ReadLink { name: name.clone(), source })
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

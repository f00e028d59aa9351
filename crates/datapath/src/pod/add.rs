//! Makes a pod's link, and undoes that.

mod error;
pub(super) mod make;

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use netlink_packet_route::AddressFamily;

pub use self::error::AddPodError;
use self::make::{Sides, find, refuse_bad_addresses};
use super::loopback;
use super::objects::{LinkObjects, all};
use super::{
    DelPodError, Goes, LinkEnd, PodAddress, PodLink, PodLinkState, PodRemoval, PodRemoved,
    PodRoutes, Rank, del, remove_rules, remove_source_rules,
};
use crate::link::{self, Link};
use crate::netlink::KernelError;
use crate::route::Filter;
use crate::shaping::End;
use crate::sysctl;
use crate::{InterfaceName, Mtu, Neighbour, Route, RouteTable, address, neighbour, route, rule};

/// How long the kernel may take until an IPv6 address is in use. It takes milliseconds, unless the
/// node is overloaded.
const IPV6_DEADLINE: Duration = Duration::from_secs(10);

/// How long the kernel may take to give the host's end a queue.
const QUEUE_DEADLINE: Duration = Duration::from_millis(100);

/// Between two polls for what the kernel does in the background.
const POLL: Duration = Duration::from_micros(100);

/// Waits for [`POLL`], and lets the caller's deadline pass. A timer of the runtime would take two milliseconds.
#[expect(
    clippy::disallowed_methods,
    reason = "the kernel tells nobody, and each caller has a deadline"
)]
async fn pause() {
    std::thread::sleep(POLL);
    tokio::task::yield_now().await;
}

/// Makes the two ends of a pod's link, without addresses. Needs a runtime with I/O and time.
///
/// 1. The ends are made at once or not at all, and their names exist once. So of two calls for one
///    attachment only one succeeds: from then on it alone may undo anything of the attachment.
/// 2. A host link of the same name belongs to an earlier sandbox of the same pod that the runtime
///    has not torn down yet. The newer sandbox replaces it. A late [`super::del`] of the earlier
///    sandbox then finds another owner's mark.
///
/// # Errors
///
/// [`AddPodError`], one variant for each step. Nothing was made. Only an earlier sandbox's link of
/// the same name may be gone.
pub async fn make(wanted: PodLink) -> Result<MadeLink, AddPodError> {
    refuse_bad_addresses(&wanted)?;
    let sides = Sides::open(&wanted.netns)?;
    match sides.create(&wanted).await {
        Ok(host) => Ok(MadeLink { sides, wanted, host }),
        Err(error) => match sides.is_made(&wanted).await? {
            true => Err(AddPodError::MadeAlready { ifname: wanted.ifname, netns: wanted.netns }),
            false => Err(error),
        },
    }
}

/// Whether `ifname` in the namespace `netns` ends a link that waits for removal. Then it is in the way of
/// no [`make`], which removes it.
///
/// # Errors
///
/// [`AddPodError`] if one of the two namespaces cannot be read.
pub async fn waits_for_removal(netns: &Path, ifname: &InterfaceName) -> Result<bool, AddPodError> {
    let sides = Sides::open(netns)?;
    let Some(end) = find(&sides.pod, ifname).await? else { return Ok(false) };
    Ok(sides.retired_host_end(&end).await?.is_some())
}

/// A link whose two ends this process has made. If it is dropped, the ends stay until
/// [`super::del`] removes them.
#[derive(Debug)]
#[must_use]
pub struct MadeLink {
    sides: Sides,
    wanted: PodLink,
    /// The host's end, as it was made.
    host: Link,
}

/// Where IPv6 is switched off before the pod's end is furnished: everywhere.
pub(super) const WITHOUT_IPV6: [&str; 3] = ["all", "default", "lo"];

/// The sysctl that switches IPv6 off for an interface, or for `all` or `default`.
pub(super) fn ipv6_is_off(interfaces: &str) -> String {
    format!("net/ipv6/conf/{interfaces}/disable_ipv6")
}

impl MadeLink {
    /// Adds the pod's addresses, and the routes and rules on both sides. Packets pass in both
    /// directions when it returns. Rules and routes that an earlier pod left for one of the addresses
    /// are replaced.
    ///
    /// Costs about 20 requests to the kernel; none of them lists other pods' objects.
    ///
    /// # Errors
    ///
    /// [`AddPodError`], one variant for each step. What was done until then stays until
    /// [`MadeLink::undo`]. Old rules for the addresses may be gone.
    pub async fn furnish(&self) -> Result<PodLinkState, AddPodError> {
        self.sides.set_up(&self.wanted, &self.host).await
    }

    /// The host's end and the pod's.
    pub(crate) fn ends(&self) -> (End<'_>, End<'_>) {
        let Sides { host, pod, netns: _ } = &self.sides;
        let PodLink { host_name, ifname, .. } = &self.wanted;
        (End { netlink: host, name: host_name }, End { netlink: pod, name: ifname })
    }

    /// Of both ends.
    pub(crate) fn mtu(&self) -> Mtu {
        self.wanted.mtu
    }

    /// Switches IPv6 off in the pod's namespace, for all interfaces that are there and that will be. For links without
    /// IPv6 addresses, before [`MadeLink::furnish`]. A kernel without IPv6 is right as it is.
    ///
    /// # Errors
    ///
    /// [`AddPodError::Netns`] or [`AddPodError::Sysctl`].
    pub fn switch_ipv6_off(&self) -> Result<(), AddPodError> {
        self.sides.switch_ipv6_off()
    }

    /// Removes the link, and the routes and rules of its addresses. An address that is routed to
    /// another link stays. The link may be gone.
    ///
    /// # Errors
    ///
    /// [`DelPodError`] with all steps that failed. Every other step was done.
    pub async fn undo(self) -> Result<PodRemoved, DelPodError> {
        let addresses = self.wanted.addresses.iter().map(|pod| pod.address).collect();
        let PodLink { host_name, owner, rank, netns, .. } = self.wanted;
        let netns = (rank == Rank::Further).then_some(netns);
        let removal = PodRemoval { host_name, owner, addresses, netns, goes: Goes::Now };
        del::undo(&self.sides.host, &removal, self.host.index).await
    }
}

impl Sides {
    async fn set_up(&self, wanted: &PodLink, host: &Link) -> Result<PodLinkState, AddPodError> {
        let pod = find(&self.pod, &wanted.ifname).await?;
        let pod = pod.ok_or_else(|| AddPodError::Vanished { name: wanted.ifname.clone() })?;
        let routes = self.pod_routes(wanted).await?;
        let objects = LinkObjects::of(&wanted.addresses, wanted.node_local, (host, &pod), routes);
        self.set_sysctls(wanted)?;
        self.raise(wanted, host, &pod).await?;
        failpoint::pass("link", "marked");
        self.until_queue(wanted, host.index).await?;
        self.furnish_pod(wanted, &pod, &objects).await?;
        failpoint::pass("link", "furnished");
        self.furnish_host(wanted, &objects).await?;
        self.await_ipv6(wanted, host, &pod).await?;
        // The last step: nothing else in the pod's namespace outlives the link.
        self.raise_loopback(wanted).await?;
        Ok(PodLinkState {
            host: end(&wanted.host_name, host),
            pod: end(&wanted.ifname, &pod),
            routes: objects.pod_routes,
        })
    }

    /// A further interface leaves another's default route alone. The first one's own is refused by the
    /// kernel if there is another: nobody would know which of the two the pod uses.
    async fn pod_routes(&self, wanted: &PodLink) -> Result<PodRoutes, AddPodError> {
        if wanted.rank == Rank::First {
            return Ok(PodRoutes::Main);
        }
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let filter = Filter { family, table: RouteTable::MAIN, device: None };
            let found = route::list(&self.pod, filter).await.map_err(AddPodError::ReadRoutes)?;
            let is_ours = |pod: &PodAddress| address::family(pod.address) == family;
            let has_default = found.iter().any(|route| route.destination.prefix_len() == 0);
            if has_default && wanted.addresses.iter().any(is_ours) {
                return Ok(PodRoutes::BySource);
            }
        }
        Ok(PodRoutes::Main)
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

    pub(super) fn switch_ipv6_off(&self) -> Result<(), AddPodError> {
        for interfaces in WITHOUT_IPV6 {
            let set = self.netns.run(|| sysctl::set_if_present(&ipv6_is_off(interfaces), "1"));
            set.map_err(AddPodError::Netns)?.map_err(AddPodError::Sysctl)?;
        }
        Ok(())
    }

    pub(super) fn set_in_pod(&self, key: &str, value: &str) -> Result<(), AddPodError> {
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
    async fn until_queue(&self, wanted: &PodLink, index: u32) -> Result<(), AddPodError> {
        let queue = async {
            while self.host_end(wanted, index).await?.is_some_and(|link| !link.has_queue) {
                pause().await;
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
        if !objects.pod_rules.is_empty() {
            self.remove_source_rules(wanted).await?;
        }
        for rule in &objects.pod_rules {
            rule::add_new(&self.pod, rule)
                .await
                .map_err(|source| AddPodError::AddRule { rule: *rule, source })?;
        }
        for neighbour in &objects.neighbours {
            neighbour::replace(&self.pod, neighbour).await.map_err(|source| {
                AddPodError::SetNeighbour { neighbour: *neighbour, device: device.clone(), source }
            })?;
        }
        Ok(())
    }

    /// Those of an earlier link of the same addresses, too.
    async fn remove_source_rules(&self, wanted: &PodLink) -> Result<(), AddPodError> {
        for PodAddress { address, .. } in &wanted.addresses {
            remove_source_rules(&self.pod, *address)
                .await
                .map_err(|source| AddPodError::RemoveRules { address: *address, source })?;
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
            rule::add_new(&self.host, rule)
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
        let addresses = all(&wanted.addresses, wanted.node_local);
        for address in addresses.filter(IpAddr::is_ipv6) {
            let neighbour = Neighbour { address, mac: pod.mac, device: host.index };
            neighbour::hint(&self.host, &neighbour).await.map_err(|source| {
                let device = wanted.host_name.clone();
                AddPodError::SetNeighbour { neighbour, device, source }
            })?;
            self.await_use(address).await?;
        }
        Ok(())
    }

    /// Waits until the kernel uses the pod's IPv6 address.
    pub(super) async fn await_use(&self, address: IpAddr) -> Result<(), AddPodError> {
        tokio::time::timeout(IPV6_DEADLINE, self.until_local(address))
            .await
            .map_err(|_elapsed| AddPodError::NotUsable { address, within: IPV6_DEADLINE })?
    }

    async fn until_local(&self, address: IpAddr) -> Result<(), AddPodError> {
        let failed = |source| AddPodError::ReadAddress { address, source };
        while !route::is_local(&self.pod, address).await.map_err(failed)? {
            pause().await;
        }
        Ok(())
    }

    pub(super) async fn raise_loopback(&self, wanted: &PodLink) -> Result<(), AddPodError> {
        if has_ipv6(wanted) {
            self.set_in_pod("net/ipv6/conf/lo/disable_ipv6", "0")?;
        }
        link::set_up(&self.pod, loopback::INDEX)
            .await
            .map_err(|source| AddPodError::SetUp { name: "lo".to_owned(), source })
    }

    /// The host's end that was made here. `None` if it is gone: a newer sandbox's link may have taken
    /// its name.
    async fn host_end(&self, wanted: &PodLink, index: u32) -> Result<Option<Link>, AddPodError> {
        link::by_index(&self.host, index)
            .await
            .map_err(|source| AddPodError::ReadLink { name: wanted.host_name.clone(), source })
    }
}

pub(super) fn add_route(
    route: &Route,
    device: &InterfaceName,
) -> impl FnOnce(KernelError) -> AddPodError {
    |source| AddPodError::AddRoute { route: route.clone(), device: device.clone(), source }
}

pub(super) fn end(name: &InterfaceName, link: &Link) -> LinkEnd {
    LinkEnd { name: name.clone(), mac: link.mac, mtu: link.mtu }
}

pub(super) fn has_ipv6(wanted: &PodLink) -> bool {
    all(&wanted.addresses, wanted.node_local).any(|address| address.is_ipv6())
}

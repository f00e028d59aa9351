//! Makes an `ipvlan` child in a pod's namespace, and undoes that.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::link::IpVlanMode;
use rustix::io::Errno;

use super::IpvlanMode;
use super::children::is_of;
use super::objects::ChildObjects;
use super::parent::{Parent, refuse_other_mode};
use crate::link::{self, IpvlanChild, Link};
use crate::pod::add::make::{Sides, find, refuse_bad_addresses};
use crate::pod::add::{add_route, end, has_ipv6};
use crate::pod::{AddPodError, LinkEnd, PodLink};
use crate::{KernelError, Route, address, nsid, route, sysctl};

/// A child that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildState {
    /// The interface.
    pub pod: LinkEnd,
    /// Its addresses with the length of their network, each with the network's router.
    pub addresses: Vec<(IpNet, Option<IpAddr>)>,
    /// The routes in the pod's namespace.
    pub routes: Vec<Route>,
}

/// Makes the interface of the pod as a child of its ENI's device, without addresses. Of `wanted`, the name of the
/// host's end has no meaning here. Needs a runtime with I/O and time.
///
/// The child gets a first name that follows from its owner, since older kernels refuse a name that a link of the
/// node has. Its name and its mark follow in one step. So of two calls for one attachment only one succeeds: from then
/// on it alone may undo anything of the attachment.
///
/// # Errors
///
/// [`AddPodError`]. Nothing was made.
pub async fn make_child(wanted: PodLink, mode: IpvlanMode) -> Result<MadeChild, AddPodError> {
    refuse_bad_addresses(&wanted)?;
    let sides = Sides::open(&wanted.netns)?;
    refuse_taken_name(&sides, &wanted).await?;
    let parent = Parent::find(&sides.host, &wanted.addresses, mode).await?;
    let no_address = || AddPodError::NoAddress { host_name: wanted.host_name.clone() };
    let parent = parent.ok_or_else(no_address)?;
    refuse_other_mode(&sides.host, &parent.device, mode).await?;
    nsid::assign(&sides.host, &sides.netns).await.map_err(AddPodError::Number)?;
    let index = create(&sides, &wanted, &parent.device, mode.kernels()).await?;
    Ok(MadeChild { sides, wanted, mode, parent, index })
}

async fn refuse_taken_name(sides: &Sides, wanted: &PodLink) -> Result<(), AddPodError> {
    let (ifname, netns) = (wanted.ifname.clone(), wanted.netns.clone());
    match find(&sides.pod, &wanted.ifname).await? {
        None => Ok(()),
        Some(link) if is_of(&link, &wanted.owner) => {
            Err(AddPodError::MadeAlready { ifname, netns })
        }
        Some(_) => Err(AddPodError::IfnameExists { ifname, netns }),
    }
}

/// Returns the child's index.
async fn create(
    sides: &Sides,
    wanted: &PodLink,
    parent: &Link,
    mode: IpVlanMode,
) -> Result<u32, AddPodError> {
    let PodLink { ifname, owner, mtu, .. } = wanted;
    let name = &owner.first_name();
    // A child cannot send more than its parent.
    let mtu = mtu.bytes().min(parent.mtu);
    let child = IpvlanChild { name, parent: parent.index, netns: &sides.netns, mode, mtu };
    link::create_ipvlan(&sides.host, &child).await.map_err(|source| {
        let (ifname, netns) = (ifname.clone(), wanted.netns.clone());
        if source.is(Errno::OPNOTSUPP) {
            AddPodError::NoIpvlan(source)
        } else if source.is(Errno::EXIST) {
            AddPodError::MadeAlready { ifname, netns }
        } else {
            AddPodError::CreateChild { ifname, parent: parent.name.clone(), source }
        }
    })?;
    failpoint::pass("child", "made");
    let made = link::by_name(&sides.pod, name).await;
    let made = made.map_err(|source| AddPodError::ReadLink { name: ifname.clone(), source })?;
    let made = made.filter(|link| is_of(link, owner));
    let index = made.ok_or_else(|| AddPodError::Vanished { name: ifname.clone() })?.index;
    let named = link::name_and_mark(&sides.pod, index, ifname, owner).await;
    let Err(source) = named else { return Ok(index) };
    // Without a name it is nobody's. If it stays, the next DEL removes it.
    let _ = link::delete(&sides.pod, index).await;
    refuse_taken_name(sides, wanted).await?;
    Err(AddPodError::NameChild { ifname: ifname.clone(), owner: owner.clone(), source })
}

/// A child that this process has made. If it is dropped, the child stays until [`crate::pod::del`] removes it.
#[derive(Debug)]
#[must_use]
pub struct MadeChild {
    sides: Sides,
    wanted: PodLink,
    mode: IpvlanMode,
    parent: Parent,
    index: u32,
}

impl MadeChild {
    /// As [`crate::pod::MadeLink::switch_ipv6_off`].
    ///
    /// # Errors
    ///
    /// [`AddPodError::Netns`] or [`AddPodError::Sysctl`].
    pub fn switch_ipv6_off(&self) -> Result<(), AddPodError> {
        self.sides.switch_ipv6_off()
    }

    /// Sets the child up and adds its addresses and routes. Packets pass in both directions when it returns.
    ///
    /// # Errors
    ///
    /// [`AddPodError`], one variant for each step. What was done until then stays until [`MadeChild::undo`].
    pub async fn furnish(&self) -> Result<ChildState, AddPodError> {
        let PodLink { ifname, addresses, .. } = &self.wanted;
        let (pod, objects) = (&self.sides.pod, self.objects());
        self.set_sysctls()?;
        let failed = |source| AddPodError::SetUp { name: ifname.to_string(), source };
        link::set_up(pod, self.index).await.map_err(failed)?;
        for (net, _) in &objects.addresses {
            address::add(pod, self.index, *net).await.map_err(|source| {
                AddPodError::AddAddress { address: *net, device: ifname.clone(), source }
            })?;
        }
        for route in &objects.routes {
            route::add(pod, route).await.map_err(add_route(route, ifname))?;
        }
        for address in addresses.iter().map(|pod| pod.address).filter(IpAddr::is_ipv6) {
            self.sides.await_use(address).await?;
        }
        // The last step: nothing else in the pod's namespace outlives the child.
        self.sides.raise_loopback(&self.wanted).await?;
        let made = find(pod, ifname).await?;
        let made = made.ok_or_else(|| AddPodError::Vanished { name: ifname.clone() })?;
        let ChildObjects { addresses, routes } = objects;
        Ok(ChildState { pod: end(ifname, &made), addresses, routes })
    }

    fn objects(&self) -> ChildObjects {
        ChildObjects::of(&self.parent.places, self.mode, self.index)
    }

    /// Runs before the child is up: the kernel reads these sysctls when it starts IPv6 on a link.
    fn set_sysctls(&self) -> Result<(), AddPodError> {
        let of = |key| format!("net/ipv6/conf/{}/{key}", self.wanted.ifname);
        // On layer 2 the router's advertisements reach the pod. Its addresses and routes are those of the grant.
        let set = self.sides.netns.run(|| sysctl::set_if_present(&of("accept_ra"), "0"));
        set.map_err(AddPodError::Netns)?.map_err(AddPodError::Sysctl)?;
        if has_ipv6(&self.wanted) {
            self.sides.set_in_pod(&of("disable_ipv6"), "0")?;
            // EC2 gives no address twice, and the kernel none to two children.
            self.sides.set_in_pod(&of("accept_dad"), "0")?;
        }
        Ok(())
    }

    /// Removes the child, with its addresses and routes. It may be gone.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub async fn undo(self) -> Result<(), KernelError> {
        link::delete(&self.sides.pod, self.index).await
    }
}

//! The first half of making a pod's link: its two ends, at once or not at all.

use std::net::IpAddr;
use std::path::Path;

use super::AddPodError;
use crate::InterfaceName;
use crate::link::{self, Link, VethPair};
use crate::netlink::Netlink;
use crate::netns::Netns;
use crate::pod::PodLink;

/// The two namespaces that the link connects.
#[derive(Debug)]
pub(in crate::pod) struct Sides {
    pub(in crate::pod) host: Netlink,
    pub(in crate::pod) pod: Netlink,
    pub(in crate::pod) netns: Netns,
}

impl Sides {
    pub(in crate::pod) fn open(netns: &Path) -> Result<Self, AddPodError> {
        let netns = Netns::open(netns).map_err(AddPodError::Netns)?;
        let own = Netns::current().map_err(AddPodError::Netns)?;
        if netns.is_same(&own).map_err(AddPodError::Netns)? {
            return Err(AddPodError::OwnNetns { netns: netns.path().to_owned() });
        }
        let host = Netlink::open().map_err(AddPodError::Socket)?;
        let pod = netns.netlink().map_err(AddPodError::Netns)?;
        Ok(Self { host, pod, netns })
    }

    /// Returns the host's end.
    pub(in crate::pod) async fn create(&self, wanted: &PodLink) -> Result<Link, AddPodError> {
        self.clear_ifname(wanted).await?;
        self.clear_host_name(wanted).await?;
        self.create_pair(wanted).await?;
        failpoint::pass("link", "made");
        let made = find(&self.host, &wanted.host_name).await?;
        made.filter(|link| link.is_of(&wanted.owner))
            .ok_or_else(|| AddPodError::Vanished { name: wanted.host_name.clone() })
    }

    /// Whether the pod's interface is the end of a link of the same owner.
    pub(in crate::pod) async fn is_made(&self, wanted: &PodLink) -> Result<bool, AddPodError> {
        let Some(pod) = find(&self.pod, &wanted.ifname).await? else { return Ok(false) };
        let Some(index) = pod.peer else { return Ok(false) };
        let host = link::by_index(&self.host, index)
            .await
            .map_err(|source| AddPodError::ReadLink { name: wanted.host_name.clone(), source })?;
        Ok(host.is_some_and(|host| host.is_of(&wanted.owner) && host.peer == Some(pod.index)))
    }

    /// A link that waits for removal makes room: a sandbox may be used again at once.
    async fn clear_ifname(&self, wanted: &PodLink) -> Result<(), AddPodError> {
        let Some(end) = find(&self.pod, &wanted.ifname).await? else { return Ok(()) };
        match self.retired_host_end(&end).await? {
            Some(retired) => self.delete(&retired, &wanted.host_name).await,
            None => Err(AddPodError::IfnameExists {
                ifname: wanted.ifname.clone(),
                netns: wanted.netns.clone(),
            }),
        }
    }

    /// The host's end of the link that ends in `end`, if it waits for removal.
    pub(in crate::pod) async fn retired_host_end(
        &self,
        end: &Link,
    ) -> Result<Option<Link>, AddPodError> {
        let Some(index) = end.peer else { return Ok(None) };
        let host = link::by_index(&self.host, index)
            .await
            .map_err(|source| AddPodError::ReadPeer { name: end.name.clone(), source })?;
        Ok(host.filter(|host| host.is_retired() && host.peer == Some(end.index)))
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

    async fn delete(&self, link: &Link, name: &InterfaceName) -> Result<(), AddPodError> {
        link::delete(&self.host, link.index)
            .await
            .map_err(|source| AddPodError::DeleteLink { name: name.clone(), source })
    }
}

pub(in crate::pod) async fn find(
    netlink: &Netlink,
    name: &InterfaceName,
) -> Result<Option<Link>, AddPodError> {
    link::by_name(netlink, name.as_str())
        .await
        .map_err(|source| AddPodError::ReadLink { name: name.clone(), source })
}

pub(in crate::pod) fn refuse_bad_addresses(wanted: &PodLink) -> Result<(), AddPodError> {
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
    // A node-local address may be link-local, so only the others are checked.
    match wanted.addresses.iter().map(|pod| pod.address).find(unusable) {
        Some(address) => Err(AddPodError::UnusableAddress { address }),
        None => Ok(()),
    }
}

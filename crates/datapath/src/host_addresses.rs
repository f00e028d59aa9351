//! The addresses that the host itself answers for. A packet to such an address never reaches a pod.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::netlink::{KernelError, Netlink};
use crate::{MacAddr, address, link};

/// The link that has an address of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressedLink {
    /// Its name.
    pub name: String,
    /// Its hardware address, or [`MacAddr::NONE`].
    pub mac: MacAddr,
}

/// Addresses of the host could not be read or removed.
#[derive(Debug, thiserror::Error)]
pub enum HostAddressError {
    /// Netlink cannot be used.
    #[error("open a netlink socket")]
    Socket(#[source] std::io::Error),
    /// The links could not be listed.
    #[error("list the links")]
    Links(#[source] KernelError),
    /// The addresses could not be listed.
    #[error("list the addresses")]
    Addresses(#[source] KernelError),
    /// The kernel does not remove an address.
    #[error("remove {address} from {link}")]
    Remove {
        /// The address.
        address: IpAddr,
        /// The link's name.
        link: String,
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
}

/// The addresses of global scope on all links of the calling thread's namespace. Costs two lists.
///
/// # Errors
///
/// [`HostAddressError`] if a list cannot be read.
pub async fn list() -> Result<BTreeMap<IpAddr, AddressedLink>, HostAddressError> {
    let netlink = Netlink::open().map_err(HostAddressError::Socket)?;
    let addresses = address::list_all(&netlink).await.map_err(HostAddressError::Addresses)?;
    let links = link::list(&netlink).await.map_err(HostAddressError::Links)?;
    let links: BTreeMap<_, _> = links
        .into_iter()
        .map(|link| (link.index, AddressedLink { name: link.name, mac: link.mac }))
        .collect();
    let on_link =
        |(index, net): (u32, ipnet::IpNet)| Some((net.addr(), links.get(&index)?.clone()));
    Ok(addresses.into_iter().filter_map(on_link).collect())
}

/// Removes `address` from the link `name`, whatever its prefix length. It may be gone already.
///
/// # Errors
///
/// [`HostAddressError`] if the kernel cannot be read or refuses.
pub async fn remove(address: IpAddr, name: &str) -> Result<(), HostAddressError> {
    let netlink = Netlink::open().map_err(HostAddressError::Socket)?;
    let link = link::by_name(&netlink, name).await.map_err(HostAddressError::Links)?;
    let Some(link) = link else { return Ok(()) };
    let found = address::list(&netlink, link.index).await.map_err(HostAddressError::Addresses)?;
    for net in found.into_iter().filter(|net| net.addr() == address) {
        address::remove(&netlink, link.index, net).await.map_err(|source| {
            HostAddressError::Remove { address, link: name.to_owned(), source }
        })?;
    }
    Ok(())
}

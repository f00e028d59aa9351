//! The VPC router advertises itself in subnets with an IPv6 block (RFC 4861): when a device asks for
//! it, and from time to time.
//!
//! As in a VPC, the advertisement gives a default route and no addresses: it refers to DHCPv6 for
//! them, which the fabric does not have. This module must not know which devices belong to what.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::error::KernelError;
use super::kernel_state::ROUTER_V6;
use super::netns::Netns;

/// `MaxRtrAdvInterval` and `AdvDefaultLifetime` of RFC 4861, section 6.2.1.
const PERIOD: Duration = Duration::from_secs(600);
const LIFETIME_S: u16 = 1800;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Receivers drop what has come through a router.
const HOPS: u8 = 255;
const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
/// The M flag: addresses come by DHCPv6.
const MANAGED: u8 = 0x80;

/// Answers router solicitations until it is dropped.
#[derive(Debug)]
pub(super) struct Advertiser {
    /// Interface indexes of the fabric's devices to advertise on.
    links: Arc<Mutex<BTreeSet<u32>>>,
    task: JoinHandle<()>,
}

impl Drop for Advertiser {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Advertiser {
    /// Must be called within a tokio runtime.
    pub(super) fn start(netns: &Netns) -> Result<Self, KernelError> {
        let netns = netns.another()?;
        let socket = netns.run(raw_socket)?.map_err(KernelError::Advertise)?;
        // The socket stays in its namespace, whichever thread uses it.
        let solicitations = UdpSocket::from_std(socket).map_err(KernelError::Advertise)?;
        let links = Arc::default();
        let task = tokio::spawn(run(netns, solicitations, Arc::clone(&links)));
        Ok(Self { links, task })
    }

    /// Sets the devices to advertise on.
    pub(super) fn set_links(&self, indexes: BTreeSet<u32>) {
        *self.links.lock().unwrap_or_else(PoisonError::into_inner) = indexes;
    }
}

async fn run(netns: Netns, solicitations: UdpSocket, links: Arc<Mutex<BTreeSet<u32>>>) {
    let mut again = tokio::time::interval(PERIOD);
    loop {
        let asking = tokio::select! {
            asking = solicitation(&solicitations) => match asking {
                Ok(index) => Some(index),
                Err(error) => {
                    tracing::error!(%error, "router solicitations cannot be read");
                    return;
                }
            },
            _ = again.tick() => None,
        };
        let mut to = links.lock().unwrap_or_else(PoisonError::into_inner).clone();
        to.retain(|index| asking.is_none_or(|asking| asking == *index));
        if !to.is_empty()
            && let Err(error) = advertise(&netns, &to)
        {
            // A device may just have gone.
            tracing::debug!(error = &error as &dyn std::error::Error, "router not advertised");
        }
    }
}

/// The interface index of the next device that asks for a router.
async fn solicitation(socket: &UdpSocket) -> io::Result<u32> {
    loop {
        let mut first = [0; 1];
        if let (1, SocketAddr::V6(from)) = socket.recv_from(&mut first).await?
            && first == [SOLICITATION]
        {
            return Ok(from.scope_id());
        }
    }
}

fn advertise(netns: &Netns, links: &BTreeSet<u32>) -> Result<(), KernelError> {
    let send = |index: &u32| {
        // One socket for each device. Bound, it fixes the source: a device has two addresses of its own.
        let socket = raw_socket()?;
        rustix::net::bind(&socket, &SocketAddrV6::new(ROUTER_V6, 0, 0, *index))?;
        sockopt::set_ipv6_multicast_hops(&socket, HOPS.into())?;
        socket.send_to(&advertisement(), SocketAddrV6::new(ALL_NODES, 0, 0, *index)).map(drop)
    };
    netns.run(|| links.iter().try_for_each(send))?.map_err(KernelError::Advertise)
}

/// The kernel writes the checksum.
fn advertisement() -> [u8; 16] {
    let [high, low] = LIFETIME_S.to_be_bytes();
    let mut packet = [0; 16];
    packet[..8].copy_from_slice(&[ADVERTISEMENT, 0, 0, 0, 64, MANAGED, high, low]);
    packet
}

/// A raw ICMPv6 socket. The standard library's type for datagrams serves it as well.
fn raw_socket() -> io::Result<std::net::UdpSocket> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let protocol = Some(ipproto::ICMPV6);
    let socket = rustix::net::socket_with(AddressFamily::INET6, SocketType::RAW, flags, protocol)?;
    Ok(socket.into())
}

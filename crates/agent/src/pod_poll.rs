//! Reads the pods' links from the kernel and the sandboxes from the container runtime. The engine compares
//! both with the record. This happens first at the start, then every minute, soon after a link has gone, and when
//! the engine asks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use datapath::disturbances::Disturbance;
use datapath::host_addresses::{self, AddressedLink};
use datapath::links::LinkChange;
use datapath::pod;
use futures::StreamExt as _;
use ipam::block::Block;
use ipam::event::Event;
use ipam::id::{AttachmentKey, EniId};
use ipam::kernel_report::{KernelReport, PodLink};
use ipam::record::Assignment;
use ipam::time::Timestamp;
use ipam::view::PoolView;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::handle::{Handle, Inlet};
use crate::{disturbances, error_chain, host, runtime};

/// The pause between two polls.
const POLL_EVERY: Duration = Duration::from_secs(60);
/// The pause from the end of a link, or from a new address of the host, to the next poll. It is short, so that the
/// link's quarantined address soon cools down, and a pod's address soon leaves the host. It is not zero, so that a hundred links that go together cost one poll.
const AFTER_A_LINK: Duration = Duration::from_secs(2);

/// The first report, before the engine serves anything; `None` if the kernel cannot be read.
pub(crate) async fn poll_first(now: Timestamp) -> Option<KernelReport> {
    let (links, host_addresses) = read().await.ok()?;
    Some(report(now, links, host_addresses, BTreeSet::new(), None))
}

/// Polls and sends the reports to the engine, until the engine ends. A poll also begins when `asked` is notified.
pub(crate) async fn poll_forever(
    handle: Handle,
    inlet: Inlet,
    runtime_socket: Option<PathBuf>,
    asked: Arc<Notify>,
) -> anyhow::Result<()> {
    let mut changes = host::link_changes().fuse();
    let mut disturbances = disturbances::follow().fuse();
    let (mut logged, mut differences) = (BTreeMap::new(), BTreeMap::new());
    let mut next = Instant::now() + POLL_EVERY;
    log_quarantine(&mut logged, handle.view().await?);
    loop {
        tokio::select! {
            Some(change) = changes.next() => {
                if matches!(change, LinkChange::Gone { .. } | LinkChange::Missed) {
                    next = next.min(Instant::now() + AFTER_A_LINK);
                }
                continue;
            }
            Some(disturbance) = disturbances.next() => {
                if matches!(disturbance, Disturbance::HostAddress(_) | Disturbance::Missed) {
                    next = next.min(Instant::now() + AFTER_A_LINK);
                }
                continue;
            }
            () = asked.notified() => {}
            () = tokio::time::sleep_until(next) => {}
        }
        let begun = handle.now();
        next = Instant::now() + POLL_EVERY;
        let asking = runtime::sandboxes(runtime_socket.as_deref());
        let (links, listed) = tokio::join!(read(), asking);
        match links {
            Ok((links, host_addresses)) => {
                let assignments = handle.view().await?.assignments;
                // One blocking task for all namespaces, since one task for each would use dozens of threads.
                let report = tokio::task::spawn_blocking(move || {
                    let vanished = vanished(&assignments, &links);
                    report(begun, links, host_addresses, vanished, listed)
                });
                inlet.send(Event::Kernel(report.await?));
            }
            Err(fault) => inlet.send(Event::KernelUnread(fault)),
        }
        let view = handle.view().await?;
        log_metadata(&mut differences, &view);
        log_quarantine(&mut logged, view);
    }
}

type HostAddresses = BTreeMap<IpAddr, AddressedLink>;

/// The links of all pods, and the host's own addresses.
///
/// # Errors
///
/// What the kernel does not list, and why. It is logged, and the last report stays in force.
async fn read() -> Result<(Vec<pod::HostLink>, HostAddresses), String> {
    let seen = pod::host_links().await.map_err(|fault| error_chain(&fault));
    let addresses = host_addresses::list().await.map_err(|fault| error_chain(&fault));
    let both = seen.and_then(|seen| Ok((seen, addresses?)));
    both.inspect_err(|fault| tracing::error!(fault, "the kernel's pods cannot be listed"))
}

fn report(
    begun: Timestamp,
    links: Vec<pod::HostLink>,
    host_addresses: HostAddresses,
    vanished: BTreeSet<AttachmentKey>,
    listed: Option<BTreeSet<String>>,
) -> KernelReport {
    let links = links.into_iter().flat_map(|pod::HostLink { name, owner, addresses }| {
        let link = PodLink { name, mark: owner };
        addresses.into_iter().map(move |address| (address, link.clone()))
    });
    let host_addresses = host_addresses.into_iter().map(|(address, link)| {
        (address, ipam::kernel_report::AddressedLink { name: link.name, mac: link.mac })
    });
    let host_addresses = host_addresses.collect();
    KernelReport { begun, links: links.collect(), host_addresses, vanished, listed }
}

/// The attachments without a trace: no link has their mark, no unmarked link has their address, and their
/// namespace has gone. An attachment that is known only by its link has no namespace. The function blocks.
fn vanished(
    assignments: &BTreeMap<AttachmentKey, Assignment>,
    links: &[pod::HostLink],
) -> BTreeSet<AttachmentKey> {
    let unmarked = links.iter().filter(|link| link.owner.is_none());
    let routed: BTreeSet<IpAddr> = unmarked.flat_map(|link| &link.addresses).copied().collect();
    let marks: BTreeSet<&str> = links.iter().filter_map(|link| link.owner.as_deref()).collect();
    let mut vanished = BTreeSet::new();
    for (key, held) in assignments {
        let has_link =
            held.ips().any(|ip| routed.contains(&ip)) || marks.contains(key.mark().as_str());
        if !has_link && (key.is_by_link() || is_gone(Path::new(&held.netns))) {
            vanished.insert(key.clone());
        }
    }
    vanished
}

/// Whether `netns` surely does not exist. `false` if its directory is missing too, for instance in a container
/// that does not mount it.
fn is_gone(netns: &Path) -> bool {
    let Some(directory) = netns.parent() else { return false };
    matches!(directory.try_exists(), Ok(true)) && matches!(netns.try_exists(), Ok(false))
}

/// Logs one line for each address that has entered or left quarantine. `logged` has the addresses of the
/// last call.
fn log_quarantine(logged: &mut BTreeMap<IpAddr, String>, view: PoolView) {
    let PoolView { quarantined, assignments, .. } = view;
    for (address, link) in quarantined.iter().filter(|(ip, _)| !logged.contains_key(*ip)) {
        tracing::warn!(%address, link, "address is in use without a record: quarantined");
    }
    for (address, link) in logged.iter().filter(|(ip, _)| !quarantined.contains_key(*ip)) {
        let owner = assignments.iter().find(|(_, held)| held.ips().any(|ip| ip == *address));
        let owner = owner.map(|(key, _)| tracing::field::display(key));
        tracing::info!(%address, link, owner, "address has left quarantine");
    }
    *logged = quarantined;
}

/// Logs a line if the differences between metadata service and EC2 have changed since the last call.
fn log_metadata(logged: &mut BTreeMap<EniId, BTreeSet<Block>>, view: &PoolView) {
    if *logged == view.refuted_hints {
        return;
    }
    logged.clone_from(&view.refuted_hints);
    if logged.is_empty() {
        tracing::info!("metadata service shows the same addresses as EC2 again");
    } else {
        tracing::warn!(differences = ?logged, "metadata service shows other addresses than EC2");
    }
}

#[cfg(test)]
mod tests {
    use ipam::id::Network;
    use ipam::record::{Addresses, PodIp, PodIpv6, Via};

    use super::*;

    #[test]
    fn namespace_missing_in_an_existing_directory_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let check = |path: &Path, expect| assert_eq!(is_gone(path), expect, "{path:?}");
        check(directory.path(), false);
        check(&directory.path().join("cni-1"), true);
        check(&directory.path().join("nowhere/cni-1"), false);
        check(Path::new(""), false);
    }

    /// A temporary directory stands for the directory of the namespaces.
    #[test]
    fn attachment_without_link_and_namespace_has_vanished() {
        let directory = tempfile::tempdir().unwrap();
        let (there, gone) = (directory.path().to_owned(), directory.path().join("cni-1"));
        let address: IpAddr = "10.0.0.9".parse().unwrap();
        let link = |owner: Option<&str>, is_routed: bool| pod::HostLink {
            name: "eni1".to_owned(),
            owner: owner.map(str::to_owned),
            addresses: is_routed.then_some(address).into_iter().collect(),
        };
        let check = |network: &str, netns: &Path, links: &[pod::HostLink], expect: bool| {
            let key = AttachmentKey { network: network.into(), ..key() };
            let held = Assignment { netns: netns.display().to_string(), ..held(address) };
            let vanished = vanished(&BTreeMap::from([(key, held)]), links);
            assert_eq!(!vanished.is_empty(), expect, "{network} {netns:?} {links:?}");
        };
        check("net", &gone, &[], true);
        check("net", &there, &[], false);
        check("net", &gone, &[link(Some("c1/eth0"), true)], false);
        check("net", &gone, &[link(Some("c1/eth0"), false)], false);
        check("net", &gone, &[link(None, true)], false);
        // The address belongs to another attachment by now.
        check("net", &gone, &[link(Some("c2/eth0"), true)], true);
        // The namespace of an attachment that is known only by its link is unknown.
        check("", Path::new(""), &[], true);
        check("", Path::new(""), &[link(Some("c1/eth0"), true)], false);
        check("net", Path::new(""), &[], false);
    }

    fn key() -> AttachmentKey {
        let (network, container) = (Network::Unknown, "c1".to_owned());
        AttachmentKey { network, container, ifname: "eth0".to_owned() }
    }

    fn held(address: IpAddr) -> Assignment {
        let via = Via::Eni { eni: "eni-1".try_into().unwrap(), card: 0, index: 0 };
        Assignment {
            addresses: Addresses::one(PodIp { address, via }),
            node_local: None,
            ipv6: PodIpv6::AsItIs,
            pod: ipam::id::Pod::default(),
            netns: String::new(),
            since: Timestamp::default(),
        }
    }
}

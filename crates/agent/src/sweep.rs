//! Reads what the kernel and the container runtime say of the pods, for the engine to hold it against
//! the record: before anything else at the start, every minute, and soon after a link has gone. What it
//! says is left of sandboxes then goes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use datapath::links::LinkChange;
use datapath::pod::{self, PodRemoval};
use futures::StreamExt as _;
use ipam::block::Block;
use ipam::event::Event;
use ipam::id::{AttachmentKey, EniId};
use ipam::record::Assignment;
use ipam::kernel_report::{PodLink, KernelReport};
use ipam::time::Timestamp;
use ipam::view::PoolView;
use tokio::time::Instant;

use crate::connections::Rests;
use crate::handle::{Handle, Inlet, Stopped};
use crate::{error_chain, host, runtime};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// From a link's end to the look: what was withheld for it rests soon, and a hundred that go
/// together cost one look.
const AFTER_A_LINK: Duration = Duration::from_secs(2);

/// The first look, before the record is asked anything; `None` if the kernel cannot be read.
pub(crate) async fn look_first(now: Timestamp) -> Option<KernelReport> {
    let links = read().await?;
    Some(sighting(now, links, BTreeSet::new(), None))
}

/// Looks again and again and tells the engine; ends with it.
pub(crate) async fn look_forever(
    handle: Handle,
    inlet: Inlet,
    runtime_socket: Option<PathBuf>,
) -> Result<(), Stopped> {
    let mut changes = host::link_changes().fuse();
    let (mut told, mut belied) = (BTreeMap::new(), BTreeMap::new());
    let mut rests = Rests::default();
    let mut next = Instant::now() + LOOK_EVERY;
    tell_people(&mut told, handle.view().await?);
    loop {
        tokio::select! {
            Some(change) = changes.next() => {
                if matches!(change, LinkChange::Gone { .. } | LinkChange::Missed) {
                    next = next.min(Instant::now() + AFTER_A_LINK);
                }
                continue;
            }
            () = tokio::time::sleep_until(next) => {}
        }
        let begun = handle.now();
        next = Instant::now() + LOOK_EVERY;
        let asking = runtime::sandboxes(runtime_socket.as_deref());
        let (links, listed) = tokio::join!(read(), asking);
        if let Some(links) = links {
            let assignments = handle.view().await?.assignments;
            // One blocking task for all the files that it looks for: one each would come to dozens
            // of threads.
            let seen = tokio::task::spawn_blocking(move || {
                let vanished = vanished(&assignments, &links);
                sighting(begun, links, vanished, listed)
            });
            // It cannot panic; without it, the next look tells.
            if let Ok(seen) = seen.await {
                inlet.send(Event::Kernel(seen));
            }
        }
        let view = handle.view().await?;
        if let Some(due) = rests.forget(&view, handle.now()).await {
            next = next.min(Instant::now() + due.since(handle.now()));
        }
        if take_down(&view).await == Leftovers::AreBeingReleased {
            next = next.min(Instant::now() + AFTER_A_LINK);
        }
        tell_of_metadata(&mut belied, &view);
        tell_people(&mut told, view);
    }
}

/// What is left of sandboxes that the runtime has forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leftovers {
    /// As far as they can be taken down at present, they are.
    None,
    /// Some are still on record.
    AreBeingReleased,
}

/// Takes down what is left, as a DEL would have.
async fn take_down(view: &PoolView) -> Leftovers {
    let mut left = Leftovers::None;
    for (address, link) in &view.leftovers {
        if view.assignments.values().any(|held| held.address == *address) {
            left = Leftovers::AreBeingReleased;
        } else if let Some(removal) = removal(*address, link) {
            let link = &link.name;
            match pod::del(&removal).await {
                Ok(_) => tracing::info!(%address, link, "took down what a sandbox has left"),
                // The next look tries again.
                Err(fault) => tracing::warn!(%address, fault = error_chain(&fault), "a link stays"),
            }
        }
    }
    left
}

/// `None` for what the kernel cannot have shown: no such link has a mark.
fn removal(address: IpAddr, link: &PodLink) -> Option<PodRemoval> {
    let host_name = link.name.parse().ok()?;
    let owner = link.mark.as_ref()?.parse().ok()?;
    Some(PodRemoval { host_name, owner, addresses: vec![address] })
}

/// `None`, and an error line, if the kernel cannot be read; what was known stays true then.
async fn read() -> Option<Vec<pod::HostLink>> {
    let seen = pod::host_links().await;
    seen.inspect_err(|fault| {
        tracing::error!(fault = error_chain(fault), "the kernel's pods cannot be listed");
    })
    .ok()
}

fn sighting(
    begun: Timestamp,
    links: Vec<pod::HostLink>,
    vanished: BTreeSet<AttachmentKey>,
    listed: Option<BTreeSet<String>>,
) -> KernelReport {
    let links = links.into_iter().flat_map(|pod::HostLink { name, owner, addresses }| {
        let link = PodLink { name, mark: owner };
        addresses.into_iter().map(move |address| (address, link.clone()))
    });
    KernelReport { begun, links: links.collect(), vanished, listed }
}

/// Those whose mark no link bears, whose address is routed to no link that may be theirs, and whose
/// namespace has gone; of what is known by its link alone, the link was all there is. It blocks.
fn vanished(
    assignments: &BTreeMap<AttachmentKey, Assignment>,
    links: &[pod::HostLink],
) -> BTreeSet<AttachmentKey> {
    let unmarked = links.iter().filter(|link| link.owner.is_none());
    let routed: BTreeSet<IpAddr> = unmarked.flat_map(|link| &link.addresses).copied().collect();
    let marks: BTreeSet<&str> = links.iter().filter_map(|link| link.owner.as_deref()).collect();
    let mut vanished = BTreeSet::new();
    for (key, held) in assignments {
        let has_link = routed.contains(&held.address) || marks.contains(key.mark().as_str());
        if !has_link && (key.is_by_link() || is_gone(Path::new(&held.netns))) {
            vanished.insert(key.clone());
        }
    }
    vanished
}

/// Whether there is surely nothing at `netns`. Where its directory cannot be seen either, as in a
/// container without it, nobody knows.
fn is_gone(netns: &Path) -> bool {
    let Some(directory) = netns.parent() else { return false };
    matches!(directory.try_exists(), Ok(true)) && matches!(netns.try_exists(), Ok(false))
}

/// One line for each address whose state has changed since `told`.
fn tell_people(told: &mut BTreeMap<IpAddr, String>, view: PoolView) {
    let PoolView { quarantined, assignments, .. } = view;
    for (address, link) in quarantined.iter().filter(|(ip, _)| !told.contains_key(*ip)) {
        tracing::warn!(%address, link, "address is in use without a record: quarantined");
    }
    for (address, link) in told.iter().filter(|(ip, _)| !quarantined.contains_key(*ip)) {
        let owner = assignments.iter().find(|(_, held)| held.address == *address);
        let owner = owner.map(|(key, _)| tracing::field::display(key));
        tracing::info!(%address, link, owner, "address is in quarantine no more");
    }
    *told = quarantined;
}

/// A line whenever it has changed what metadata service and EC2 do not agree on.
fn tell_of_metadata(told: &mut BTreeMap<EniId, BTreeSet<Block>>, view: &PoolView) {
    if *told == view.refuted_hints {
        return;
    }
    told.clone_from(&view.refuted_hints);
    if told.is_empty() {
        tracing::info!("metadata service shows the ENIs as EC2 does again");
    } else {
        tracing::warn!(differences = ?told, "metadata service shows ENIs otherwise than EC2");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_gone_if_its_directory_is_there_and_it_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let check = |path: &Path, expect| assert_eq!(is_gone(path), expect, "{path:?}");
        check(directory.path(), false);
        check(&directory.path().join("cni-1"), true);
        check(&directory.path().join("nowhere/cni-1"), false);
        check(Path::new(""), false);
    }

    /// The node's own directory stands for that of the namespaces.
    #[test]
    fn an_attachment_has_vanished_if_neither_link_nor_namespace_is_left_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let (there, gone) = (directory.path().to_owned(), directory.path().join("cni-1"));
        let address: IpAddr = "10.0.0.9".parse().unwrap();
        let link = |owner: Option<&str>, is_routed: bool| pod::HostLink {
            name: "eni1".to_owned(),
            owner: owner.map(str::to_owned),
            addresses: is_routed.then_some(address).into_iter().collect(),
        };
        let check = |network: &str, netns: &Path, links: &[pod::HostLink], expect: bool| {
            let key = AttachmentKey { network: network.to_owned(), ..key() };
            let held = Assignment { address, netns: netns.display().to_string(), ..held() };
            let vanished = vanished(&BTreeMap::from([(key, held)]), links);
            assert_eq!(!vanished.is_empty(), expect, "{network} {netns:?} {links:?}");
        };
        check("net", &gone, &[], true);
        check("net", &there, &[], false);
        check("net", &gone, &[link(Some("c1/eth0"), true)], false);
        check("net", &gone, &[link(Some("c1/eth0"), false)], false);
        check("net", &gone, &[link(None, true)], false);
        // The address is another's by now.
        check("net", &gone, &[link(Some("c2/eth0"), true)], true);
        // Of what is known by its link alone nobody has told the namespace.
        check("", Path::new(""), &[], true);
        check("", Path::new(""), &[link(Some("c1/eth0"), true)], false);
        check("net", Path::new(""), &[], false);
    }

    fn key() -> AttachmentKey {
        let (network, container) = (String::new(), "c1".to_owned());
        AttachmentKey { network, container, ifname: "eth0".to_owned() }
    }

    fn held() -> Assignment {
        Assignment {
            address: "10.0.0.9".parse().unwrap(),
            eni: "eni-1".try_into().unwrap(),
            device_index: 0,
            network_card: 0,
            pod: ipam::id::Pod::default(),
            netns: String::new(),
            since: Timestamp::default(),
        }
    }
}

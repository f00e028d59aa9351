//! A node's move from amazon-vpc-cni-k8s (the incumbent) to Tidepool and back. The checkpoint becomes our
//! record, and our record becomes the checkpoint. The caller knows the ENI of each address.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use datapath::Applied;
use datapath::pod::{Goes, PodRemoval};
use datapath::{Removal, host_veth_name};
use ipam::id::{AttachmentKey, EniId, Network, Pod};
use ipam::record::{Addresses, Assignment, Change, Contradiction, PodIp, PodIpv6, Record, Via};
use ipam::time::Timestamp;

use crate::checkpoint::{self, Allocation, CheckpointError};
use crate::own_file;
use crate::state::lock::StateDirectory;
use crate::state::{self, load};

/// Network and interface of allocations from before the incumbent kept a file: placeholders.
/// Source: amazon-vpc-cni-k8s v1.23.1, `pkg/ipamd/datastore/data_store.go`.
const PLACEHOLDER: (&str, &str) = ("_migrated-from-cri", "unknown");
/// Network and interface in the runtime's DEL for such a pod. The network is the name in the incumbent's
/// conflist, and in ours. Every runtime asks for this interface.
const SHIPPED: (&str, &str) = ("aws-cni", "eth0");
/// Bytes of a checkpoint. An allocation has some 300.
const LARGEST_CHECKPOINT: u64 = 64 * 1024 * 1024;
/// Nanoseconds in a millisecond.
const NS_PER_MS: i64 = 1_000_000;

/// Why a checkpoint that exists cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read, or another user may have written it.
    #[error("read the checkpoint {0}")]
    File(PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// The content is not as the incumbent writes it.
    #[error("parse the checkpoint {0}")]
    Content(PathBuf, #[source] CheckpointError),
}

/// The place of an address on the instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The ENI that has the address.
    pub eni: EniId,
    /// The ENI's device index.
    pub device_index: u16,
    /// The ENI's network card.
    pub network_card: u16,
}

/// A checkpoint's allocations, sorted by whether their pods still run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sorted {
    /// Allocations of pods that have a link, or that have no name in the checkpoint.
    pub living: Vec<Allocation>,
    /// Allocations of pods without a link on this node. Their DEL came while no daemon ran.
    pub dead: Vec<Allocation>,
}

/// The allocations in the checkpoint `file`; `None` if there is no such file.
///
/// # Errors
///
/// [`ReadError`] if the file cannot be read, or its content cannot be trusted.
pub fn read(file: &Path) -> Result<Option<Vec<Allocation>>, ReadError> {
    match own_file::read(file, LARGEST_CHECKPOINT) {
        Ok(bytes) => checkpoint::parse(&bytes)
            .map(Some)
            .map_err(|fault| ReadError::Content(file.to_owned(), fault)),
        Err(fault) if fault.is_not_found() => Ok(None),
        Err(fault) => Err(ReadError::File(file.to_owned(), fault.into())),
    }
}

/// Sorts as the incumbent does at its start. A pod still runs if a link's name ends with the hash of the
/// pod's name, whatever the prefix.
#[must_use]
pub fn sort(allocations: Vec<Allocation>, links: &BTreeSet<String>) -> Sorted {
    let lives = |allocation: &Allocation| {
        let Allocation { key, namespace, pod, .. } = allocation;
        let hash = host_veth_name("", namespace, pod, &key.container, None);
        let has_link = |hash: &str| links.iter().any(|link| link.ends_with(hash));
        namespace.is_empty() || pod.is_empty() || hash.is_ok_and(|hash| has_link(hash.as_str()))
    };
    let (living, dead) = allocations.into_iter().partition(lives);
    Sorted { living, dead }
}

/// The names of all links of this network namespace.
///
/// # Errors
///
/// If the kernel does not list the links.
pub async fn links() -> anyhow::Result<BTreeSet<String>> {
    datapath::links::names().await.context("list the node's links")
}

/// The record of the incumbent's allocations at `now`. Living pods keep their addresses. The addresses of
/// dead pods cool down.
///
/// # Errors
///
/// [`Contradiction`] if a pod is listed twice, once with the old placeholders.
pub fn record(
    sorted: &Sorted,
    place: impl Fn(IpAddr) -> Place,
    now: Timestamp,
) -> Result<Record, Contradiction> {
    let mut record = Record::default();
    for allocation in &sorted.living {
        let Place { eni, device_index: index, network_card: card } = place(allocation.address);
        let via = Via::Eni { eni, card, index };
        let since = u64::try_from(allocation.since_ns / NS_PER_MS).unwrap_or_default();
        let assignment = Assignment {
            addresses: Addresses::one(PodIp { address: allocation.address, via }),
            // The second plugin of amazon-vpc-cni-k8s keeps that one, and removes it.
            node_local: None,
            ipv6: PodIpv6::AsItIs,
            pod: Pod {
                namespace: allocation.namespace.clone(),
                name: allocation.pod.clone(),
                uid: String::new(),
            },
            // The checkpoint does not have the namespace's path.
            netns: String::new(),
            // The engine's clock starts after the newest `since`, so none may be in the future.
            since: Timestamp::from_millis(since).min(now),
        };
        record.apply(&Change::Assigned { key: key(&allocation.key), assignment })?;
    }
    for Allocation { address, .. } in &sorted.dead {
        record.apply(&Change::Resting { address: *address, since: now })?;
    }
    Ok(record)
}

fn key(key: &AttachmentKey) -> AttachmentKey {
    let (network, ifname) = PLACEHOLDER;
    if key.network != Network::from(network) || key.ifname != ifname {
        return key.clone();
    }
    let (network, ifname) = SHIPPED;
    AttachmentKey { network: network.into(), ifname: ifname.to_owned(), ..key.clone() }
}

/// An attachment that is known only by its link gets the shipped network, which is most likely its own.
fn with_network(key: &AttachmentKey) -> AttachmentKey {
    let network = if key.is_by_link() { SHIPPED.0.into() } else { key.network.clone() };
    AttachmentKey { network, ..key.clone() }
}

/// Removes the leftover rules and routes of dead pods. A failure is only logged, since the next pod with the
/// address replaces them.
pub async fn remove_rules(dead: &[Allocation]) {
    for Allocation { key, address, namespace, pod, .. } in dead {
        let owner = format!("{}/{}", key.container, key.ifname).parse();
        let host_name = host_veth_name("eni", namespace, pod, &key.container, None);
        let (Ok(owner), Ok(host_name)) = (owner, host_name) else { continue };
        let removal = PodRemoval {
            host_name,
            owner,
            addresses: vec![*address],
            netns: None,
            goes: Goes::Now,
        };
        match datapath::pod::del(&removal).await {
            Ok(removed) => {
                let was_there = removed.addresses.iter().any(|(_, did)| *did == Removal::Removed);
                tracing::info!(%key, %address, was_there, "removed the rules of a pod that has gone");
            }
            Err(fault) => {
                tracing::warn!(%key, %address, %fault, "rules of a pod that has gone cannot be removed")
            }
        }
    }
}

/// Our record as the incumbent's allocations, ascending by key.
#[must_use]
pub fn allocations(record: &Record) -> Vec<Allocation> {
    // A checkpoint has only one address for each pod.
    let allocation = |(key, assignment): (&AttachmentKey, &Assignment)| Allocation {
        key: with_network(key),
        address: assignment.addresses.first().address,
        since_ns: i64::try_from(assignment.since.as_millis())
            .unwrap_or(i64::MAX)
            .saturating_mul(NS_PER_MS),
        namespace: assignment.pod.namespace.clone(),
        pod: assignment.pod.name.clone(),
        interfaces: 1,
    };
    record.assignments().iter().map(allocation).collect()
}

/// Whether `directory` has a record of ours, even a damaged one.
#[must_use]
pub fn has_record(directory: &Path) -> bool {
    state::has_log(directory)
}

/// The record in `directory`, of any instance; `None` if there is no record. A daemon may write to it
/// meanwhile.
///
/// # Errors
///
/// If the record is damaged, since pods may be missing.
pub fn read_record(directory: &Path) -> anyhow::Result<Option<Record>> {
    if !has_record(directory) {
        return Ok(None);
    }
    let load::Loaded { record, damage } = load::load(directory, None);
    match damage {
        None => Ok(Some(record)),
        Some(damage) => Err(damage).with_context(|| {
            format!("read the record in {}; pods may be missing from it", directory.display())
        }),
    }
}

/// Writes the record in `directory` to `file` as the incumbent's checkpoint. Then takes the record out of use,
/// since it is out of date as soon as the incumbent has run.
///
/// Returns the number of allocations. `None` if there is no record; `file` does not change then. A repetition
/// after a crash has the same result.
///
/// # Errors
///
/// If ipamd runs, the record is damaged, or the disk does not accept the checkpoint.
pub fn hand_over(directory: &Path, file: &Path) -> anyhow::Result<Option<usize>> {
    if !has_record(directory) {
        return Ok(None);
    }
    let taken = StateDirectory::try_take(directory)?;
    if !taken.is_locked() {
        bail!("{} cannot be locked, so ipamd may be running", directory.display());
    }
    let Some(record) = read_record(directory)? else { return Ok(None) };
    let allocations = allocations(&record);
    let text = checkpoint::write(&allocations);
    replace(file, text.as_bytes()).with_context(|| format!("write {}", file.display()))?;
    state::retire(directory).context("take the record out of use")?;
    Ok(Some(allocations.len()))
}

/// Removes our nftables table, for a node that amazon-vpc-cni-k8s serves again. Returns whether there was one.
///
/// # Errors
///
/// If ipamd runs, which would write the table again, or the kernel refuses.
pub fn remove_nat(directory: &Path) -> anyhow::Result<bool> {
    // Held until the table has gone.
    let taken = StateDirectory::try_take(directory)?;
    if !taken.is_locked() {
        bail!("{} cannot be locked, so ipamd may be running", directory.display());
    }
    let removed = datapath::nat::remove_tables().context("remove ipamd's nftables table")?;
    Ok(removed != Applied::Unchanged)
}

fn replace(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let unfinished = file.with_extension("tidepool-new");
    state::draft(&unfinished, bytes)?.persist(file)?;
    // A bare name is in the current directory.
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    state::sync_directory(parent.unwrap_or_else(|| Path::new(".")))
}

#[cfg(test)]
mod tests;

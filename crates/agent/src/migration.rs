//! A node's move from amazon-vpc-cni-k8s to us and back: what its checkpoint holds becomes our record,
//! and our record becomes its checkpoint. Where an address sits on the instance is told by the caller.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use datapath::pod::PodRemoval;
use datapath::{Removal, host_veth_name};
use ipam::id::{AttachmentKey, EniId, Network, Pod};
use ipam::record::{Addresses, Assignment, Change, Contradiction, PodIp, Record, Via};
use ipam::time::Timestamp;

use crate::checkpoint::{self, Allocation, CheckpointError};
use crate::state::{self, load};

/// What stands for network and interface in allocations from before the incumbent kept a file.
/// Source: amazon-vpc-cni-k8s v1.23.1, `pkg/ipamd/datastore/data_store.go`.
const PLACEHOLDER: (&str, &str) = ("_migrated-from-cri", "unknown");
/// What the runtime's DEL says for such a pod: the name in the conflist that the incumbent installs,
/// which is ours too, and the interface that every runtime asks for.
const SHIPPED: (&str, &str) = ("aws-cni", "eth0");
/// Nanoseconds in a millisecond.
const NS_PER_MS: i64 = 1_000_000;

/// Why there is nothing to take over from a checkpoint that is there.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk does not give it.
    #[error("read the checkpoint {0}")]
    Io(PathBuf, #[source] std::io::Error),
    /// It is not as the incumbent writes it.
    #[error("understand the checkpoint {0}")]
    Content(PathBuf, #[source] CheckpointError),
}

/// Where an address sits on the instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The ENI that carries it.
    pub eni: EniId,
    /// The ENI's device index.
    pub device_index: u16,
    /// The ENI's network card.
    pub network_card: u16,
}

/// A checkpoint's allocations, sorted by whether their pods are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sorted {
    /// Of pods that are there, or whose names the checkpoint does not tell.
    pub living: Vec<Allocation>,
    /// Of pods without a link on this node: their DEL came while nobody served.
    pub dead: Vec<Allocation>,
}

/// What the checkpoint `file` holds; `None` where there is no such file.
///
/// # Errors
///
/// [`ReadError`] if it cannot be read, or not be trusted.
pub fn read(file: &Path) -> Result<Option<Vec<Allocation>>, ReadError> {
    match fs::read(file) {
        Ok(bytes) => checkpoint::parse(&bytes)
            .map(Some)
            .map_err(|fault| ReadError::Content(file.to_owned(), fault)),
        Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(fault) => Err(ReadError::Io(file.to_owned(), fault)),
    }
}

/// Sorts as the incumbent does at its start: a pod is there if a link's name ends with the hash of
/// its name, whatever the prefix.
#[must_use]
pub fn sort(allocations: Vec<Allocation>, links: &BTreeSet<String>) -> Sorted {
    let lives = |allocation: &Allocation| {
        let Allocation { key, namespace, pod, .. } = allocation;
        let hash = host_veth_name("", namespace, pod, &key.container);
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
/// If the kernel does not tell.
pub async fn links() -> anyhow::Result<BTreeSet<String>> {
    datapath::links::names().await.context("list the node's links")
}

/// The record that the incumbent's allocations come to at `now`: the living keep their addresses, those
/// of the dead rest.
///
/// # Errors
///
/// [`Contradiction`] if a pod is there twice, once under the placeholders of old.
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
            pod: Pod {
                namespace: allocation.namespace.clone(),
                name: allocation.pod.clone(),
                uid: String::new(),
            },
            // The checkpoint does not have it.
            netns: String::new(),
            // The engine's clock starts no earlier than the newest of these.
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

/// An attachment that is known by its link alone is most likely of the shipped network.
fn named(key: &AttachmentKey) -> AttachmentKey {
    let network = if key.is_by_link() { SHIPPED.0.into() } else { key.network.clone() };
    AttachmentKey { network, ..key.clone() }
}

/// Removes the rules and routes that are left of the dead. What cannot be removed is logged: the next
/// pod with the address replaces it.
pub async fn bury(dead: &[Allocation]) {
    for Allocation { key, address, namespace, pod, .. } in dead {
        let owner = format!("{}/{}", key.container, key.ifname).parse();
        let host_name = host_veth_name("eni", namespace, pod, &key.container);
        let (Ok(owner), Ok(host_name)) = (owner, host_name) else { continue };
        let removal = PodRemoval { host_name, owner, addresses: vec![*address] };
        match datapath::pod::del(&removal).await {
            Ok(removed) => {
                let was_there = removed.addresses.iter().any(|(_, did)| *did == Removal::Removed);
                tracing::info!(%key, %address, was_there, "rules of a pod that has gone removed");
            }
            Err(fault) => tracing::warn!(%key, %address, %fault, "rules of a pod are left"),
        }
    }
}

/// The incumbent's allocations that our record comes to, ascending by key.
#[must_use]
pub fn allocations(record: &Record) -> Vec<Allocation> {
    // A checkpoint has one address for a pod.
    let allocation = |(key, assignment): (&AttachmentKey, &Assignment)| Allocation {
        key: named(key),
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

/// Whether there is a record of ours in `directory`, be it a damaged one.
#[must_use]
pub fn has_record(directory: &Path) -> bool {
    state::has_log(directory)
}

/// The record in `directory`, whichever instance wrote it; a daemon may be adding to it. `None` where
/// there is none.
///
/// # Errors
///
/// If it is damaged: pods might be missing.
pub fn read_record(directory: &Path) -> anyhow::Result<Option<Record>> {
    if !has_record(directory) {
        return Ok(None);
    }
    let load::Loaded { record, damage } = load::load(directory, None);
    match damage {
        None => Ok(Some(record)),
        Some(damage) => Err(damage).with_context(|| {
            format!("read the record {}, of which pods may be missing", directory.display())
        }),
    }
}

/// Writes the record in `directory` to `file` as the incumbent's checkpoint, and takes it out of use:
/// once the incumbent has run, ours is out of date. Returns the number of allocations, `None` where
/// there is no record; `file` is as before then. Done again after a crash it is the same.
///
/// # Errors
///
/// If a daemon of ours is running, the record is damaged, or the disk does not take it.
pub fn hand_over(directory: &Path, file: &Path) -> anyhow::Result<Option<usize>> {
    if !has_record(directory) {
        return Ok(None);
    }
    let Some(_lock) = state::lock(&directory.join(state::LOCK))? else {
        bail!("{} cannot be locked against an ipamd that runs", directory.display());
    };
    let Some(record) = read_record(directory)? else { return Ok(None) };
    let allocations = allocations(&record);
    let text = checkpoint::write(&allocations);
    replace(file, text.as_bytes()).with_context(|| format!("write {}", file.display()))?;
    state::retire(directory).context("take the record out of use")?;
    Ok(Some(allocations.len()))
}

fn replace(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let unfinished = file.with_extension("tidepool-new");
    state::write_new(&unfinished, bytes)?;
    fs::rename(&unfinished, file)?;
    // A bare name lies in the present directory.
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    state::sync_directory(parent.unwrap_or_else(|| Path::new(".")))
}

#[cfg(test)]
mod tests;

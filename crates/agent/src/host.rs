//! Keeps the host network as the engine wants it, in a task of its own. It syncs when the list of
//! ENIs changes, when the kernel reports a change of one of their devices, and once a minute, since
//! other programs change routes and rules too.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use datapath::host::{EniStatus, Families, FormerEnis, HostPicture, HostReport};
use datapath::links::LinkChange;
use datapath::{MacAddr, ParseMacError, RouteTable};
use futures::{Stream, StreamExt as _};
use ipam::event::{Event, HostEni, LinkState};
use ipam::id::EniId;
use tokio::sync::watch;

use crate::{Inlet, error_chain};

pub use datapath::Mtu;

/// After a first failure, or while a device has not appeared: the kernel might not report it.
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// Between two syncs while all is ready.
const SYNC_EVERY: Duration = Duration::from_secs(60);

/// Settings of the whole node.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The MTU of all ENIs.
    pub mtu: Mtu,
    /// Whether pods have IPv6 addresses.
    pub ipv6: bool,
}

/// Makes the node's own network ready for pods, then follows `wanted` until its sender is gone.
/// `primary_mac` is the primary ENI's hardware address.
///
/// Sends `inlet` an [`Event::EniLink`] for each ENI of a new list, and later for each ENI whose state
/// has changed. Works in the network namespace of the calling thread.
pub async fn keep(
    primary_mac: String,
    settings: Settings,
    mut wanted: watch::Receiver<Vec<HostEni>>,
    inlet: Inlet,
) {
    let mut links = link_changes();
    let mut keeper = Keeper::new(primary_mac, settings, inlet);
    // Pods that run need it even if EC2 never answers.
    keeper.sync().await;
    loop {
        tokio::select! {
            changed = wanted.changed() => match changed {
                Ok(()) => {
                    let enis = wanted.borrow_and_update().clone();
                    keeper.replace(enis);
                }
                Err(_no_sender) => return,
            },
            Some(change) = links.next() => if !keeper.concerns(&change) { continue },
            () = tokio::time::sleep(keeper.pause) => {}
        }
        keeper.sync().await;
    }
}

struct Keeper {
    primary_mac: String,
    settings: Settings,
    inlet: Inlet,
    /// The wanted ENIs, each with the state that was sent last.
    enis: BTreeMap<EniId, (HostEni, Option<LinkState>)>,
    /// The state of the node's own network that was logged last.
    node: LinkState,
    /// Hardware addresses of devices whose ENIs are no longer wanted.
    former: BTreeSet<MacAddr>,
    /// Until the next sync.
    pause: Duration,
}

impl Keeper {
    fn new(primary_mac: String, settings: Settings, inlet: Inlet) -> Self {
        Self {
            primary_mac,
            settings,
            inlet,
            enis: BTreeMap::new(),
            node: LinkState::Ready,
            former: BTreeSet::new(),
            pause: SYNC_EVERY,
        }
    }

    fn replace(&mut self, enis: Vec<HostEni>) {
        self.enis = enis.into_iter().map(|eni| (eni.eni.clone(), (eni, None))).collect();
        self.pause = SYNC_EVERY;
    }

    fn concerns(&self, change: &LinkChange) -> bool {
        match change {
            LinkChange::Present { mac, .. } | LinkChange::Gone { mac, .. } => {
                let wanted = || self.enis.values().any(|(eni, _)| eni.mac.parse() == Ok(*mac));
                self.former.contains(mac) || wanted()
            }
            LinkChange::Missed => true,
        }
    }

    async fn sync(&mut self) {
        let enis = self.enis.values().map(|(eni, _)| eni);
        let report = match picture(&self.primary_mac, self.settings, enis) {
            Ok(picture) => datapath::host::sync(&picture).await.map_err(|error| error_chain(&error)),
            Err(error) => Err(error_chain(&error)),
        };
        let mut all_ready = self.note_node(node_state(&report));
        all_ready &= self.note_former(&report);
        for (eni, sent) in self.enis.values_mut() {
            let state = eni_state(eni, &report);
            all_ready &= state == LinkState::Ready;
            if sent.as_ref() != Some(&state) {
                tracing::info!(eni = %eni.eni, ?state, "ENI's side of the kernel");
                *sent = Some(state.clone());
                if state == LinkState::Ready {
                    failpoint::pass("host", "synced");
                }
                self.inlet.send(Event::EniLink { eni: eni.eni.clone(), link: state });
            }
        }
        self.pause = match all_ready {
            true => SYNC_EVERY,
            false if self.pause == SYNC_EVERY => FIRST_RETRY,
            false => (self.pause * 2).min(SYNC_EVERY / 2),
        };
    }

    /// Logs a change of the node's state. Returns whether it is ready.
    fn note_node(&mut self, state: LinkState) -> bool {
        if state != self.node {
            match &state {
                LinkState::Failed(fault) => {
                    tracing::error!(fault, "the node's own network is not ready for pods");
                }
                LinkState::Ready | LinkState::Absent => {
                    tracing::info!("the node's own network is ready for pods");
                }
            }
            self.node = state;
        }
        self.node == LinkState::Ready
    }

    /// Returns whether all rules that have to go are gone.
    fn note_former(&mut self, report: &Result<HostReport, String>) -> bool {
        let Ok(report) = report else { return false };
        match &report.former {
            Ok(FormerEnis { n_removed, devices }) => {
                if *n_removed > 0 {
                    tracing::info!(n_removed, "rules of former ENIs removed");
                }
                self.former.clone_from(devices);
                true
            }
            Err(error) => {
                tracing::warn!(fault = error_chain(error), "rules of former ENIs are left");
                false
            }
        }
    }
}

/// The whole wanted host network. Its list has no primary ENI, which is part of the node, and no ENI
/// with a malformed hardware address.
fn picture<'a>(
    primary_mac: &str,
    settings: Settings,
    enis: impl Iterator<Item = &'a HostEni>,
) -> Result<HostPicture, ParseMacError> {
    let secondary = enis.filter(|eni| table(eni) != RouteTable::MAIN);
    Ok(HostPicture {
        primary_mac: primary_mac.parse()?,
        mtu: settings.mtu,
        families: if settings.ipv6 { Families::Ipv6 } else { Families::Ipv4 },
        enis: secondary.filter_map(secondary_eni).collect(),
    })
}

fn secondary_eni(eni: &HostEni) -> Option<datapath::host::HostEni> {
    Some(datapath::host::HostEni {
        mac: eni.mac.parse().ok()?,
        table: table(eni),
        primary_address: eni.primary_address,
        subnet: eni.subnet_cidr,
        gateway: gateway(eni),
    })
}

fn table(eni: &HostEni) -> RouteTable {
    RouteTable::of(eni.network_card, eni.device_index)
}

/// The VPC's router: the second address of every subnet.
fn gateway(eni: &HostEni) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(eni.subnet_cidr.network()).saturating_add(1))
}

fn node_state(report: &Result<HostReport, String>) -> LinkState {
    match report.as_ref().map(|report| &report.node) {
        Ok(Ok(_)) => LinkState::Ready,
        Ok(Err(error)) => LinkState::Failed(error_chain(error)),
        Err(fault) => LinkState::Failed(fault.clone()),
    }
}

/// The state of the primary ENI is that of the node.
fn eni_state(eni: &HostEni, report: &Result<HostReport, String>) -> LinkState {
    let report = match report {
        Ok(report) if table(eni) != RouteTable::MAIN => report,
        Ok(_) | Err(_) => return node_state(report),
    };
    let mac = match eni.mac.parse::<MacAddr>() {
        Ok(mac) => mac,
        Err(error) => return LinkState::Failed(error_chain(&error)),
    };
    match report.enis.get(&mac).expect("a report has every ENI of its picture") {
        EniStatus::Ready(_) => LinkState::Ready,
        EniStatus::Absent => LinkState::Absent,
        EniStatus::Failed(error) => LinkState::Failed(error_chain(error)),
    }
}

pub(crate) fn link_changes() -> Box<dyn Stream<Item = LinkChange> + Send + Unpin> {
    match datapath::links::changes() {
        Ok(links) => Box::new(links),
        Err(fault) => {
            tracing::error!(%fault, "the kernel's link changes cannot be followed");
            Box::new(futures::stream::empty())
        }
    }
}

#[cfg(test)]
mod tests;

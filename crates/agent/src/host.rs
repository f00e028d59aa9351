//! Keeps the kernel's side of the ENIs as the engine wants it, in a task of its own: at once when
//! the list changes, when the kernel reports a change of one of their devices, and from time to
//! time, since others change routes and rules too.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use datapath::RouteTable;
use datapath::eni::{EniLink, EniSyncError};
use datapath::host::HostConfig;
use datapath::links::LinkChange;
use futures::{Stream, StreamExt as _};
use ipam::event::{Event, HostEni, LinkState};
use ipam::id::EniId;
use tokio::sync::watch;

use crate::{Inlet, error_chain};

pub use datapath::Mtu;

/// After a failure, and while a device is awaited whose appearance the kernel might not report.
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// Between two looks at what ought to be right already.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What holds for the whole node.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Of all ENIs.
    pub mtu: Mtu,
    /// Whether pods have IPv6 addresses.
    pub ipv6: bool,
}

/// Makes the node's own network ready for pods, whose primary ENI has the hardware address
/// `primary_mac`; then follows `wanted` until its sender is gone, and tells `inlet` how each ENI
/// stands: all of them when the list is new, later those that have changed. Works in the network
/// namespace of the calling thread.
pub async fn keep(
    primary_mac: String,
    settings: Settings,
    mut wanted: watch::Receiver<Vec<HostEni>>,
    inlet: Inlet,
) {
    let mut links = link_changes();
    // Pods that live need it even if EC2 never says what there is.
    if let LinkState::Failed(fault) = set_up_node(&primary_mac, settings).await {
        tracing::error!(fault, "the node's own network is not ready for pods");
    }
    let mut keeper =
        Keeper { settings, inlet, enis: BTreeMap::new(), gone: Vec::new(), pause: LOOK_EVERY };
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
    settings: Settings,
    inlet: Inlet,
    /// The ENIs wanted, and what was last told of each.
    enis: BTreeMap<EniId, (HostEni, Option<LinkState>)>,
    /// The addresses of ENIs that are wanted no more, as long as rules for them may be left.
    gone: Vec<Ipv4Addr>,
    /// Until the next look.
    pause: Duration,
}

impl Keeper {
    fn replace(&mut self, enis: Vec<HostEni>) {
        let enis: BTreeMap<_, _> =
            enis.into_iter().map(|eni| (eni.eni.clone(), (eni, None))).collect();
        let old = std::mem::replace(&mut self.enis, enis);
        self.gone.extend(old.into_values().map(|(eni, _)| eni.primary_address));
        self.gone.retain(|gone| self.enis.values().all(|(eni, _)| eni.primary_address != *gone));
        self.pause = LOOK_EVERY;
    }

    fn concerns(&self, change: &LinkChange) -> bool {
        match change {
            LinkChange::Present { mac, .. } | LinkChange::Gone { mac, .. } => {
                self.enis.values().any(|(eni, _)| eni.mac.parse() == Ok(*mac))
            }
            LinkChange::Missed => true,
        }
    }

    async fn sync(&mut self) {
        for (eni, told) in self.enis.values_mut() {
            let state = sync_one(eni, self.settings).await;
            if told.as_ref() != Some(&state) {
                tracing::info!(eni = %eni.eni, ?state, "ENI's side of the kernel");
                *told = Some(state.clone());
                if state == LinkState::Ready {
                    failpoint::pass("host", "synced");
                }
                self.inlet.send(Event::EniLink { eni: eni.eni.clone(), link: state });
            }
        }
        let all_ready = self.enis.values().all(|(_, told)| *told == Some(LinkState::Ready));
        let all_forgotten = self.forget_gone().await;
        self.pause = match all_ready && all_forgotten {
            true => LOOK_EVERY,
            false if self.pause == LOOK_EVERY => FIRST_RETRY,
            false => (self.pause * 2).min(LOOK_EVERY / 2),
        };
    }

    /// Whether nothing is left of the ENIs that are wanted no more.
    async fn forget_gone(&mut self) -> bool {
        let mut left = Vec::new();
        for address in std::mem::take(&mut self.gone) {
            if let Err(fault) = datapath::eni::forget(address).await {
                tracing::warn!(%address, fault = error_chain(&fault), "rules of a former ENI are left");
                left.push(address);
            }
        }
        self.gone = left;
        self.gone.is_empty()
    }
}

async fn sync_one(eni: &HostEni, settings: Settings) -> LinkState {
    let table = RouteTable::of(eni.network_card, eni.device_index);
    if table == RouteTable::MAIN {
        return set_up_node(&eni.mac, settings).await;
    }
    let Ok(mac) = eni.mac.parse() else { return no_mac(&eni.mac) };
    let wanted = EniLink {
        mac,
        primary_address: eni.primary_address,
        subnet: eni.subnet_cidr,
        gateway: gateway(eni),
        table,
        mtu: settings.mtu,
    };
    match datapath::eni::sync(&wanted).await {
        Ok(_) => LinkState::Ready,
        Err(EniSyncError::NoDevice { .. }) => LinkState::Absent,
        Err(fault) => LinkState::Failed(error_chain(&fault)),
    }
}

async fn set_up_node(primary_mac: &str, settings: Settings) -> LinkState {
    let Settings { mtu, ipv6 } = settings;
    let Ok(primary_mac) = primary_mac.parse() else { return no_mac(primary_mac) };
    match datapath::host::setup(&HostConfig { primary_mac, mtu, ipv6 }).await {
        Ok(_) => LinkState::Ready,
        Err(fault) => LinkState::Failed(error_chain(&fault)),
    }
}

fn no_mac(text: &str) -> LinkState {
    LinkState::Failed(format!("{text:?} is no hardware address"))
}

/// The VPC's router: the second address of every subnet.
fn gateway(eni: &HostEni) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(eni.subnet_cidr.network()).saturating_add(1))
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

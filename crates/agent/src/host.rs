//! Keeps the host network as the engine wants it, in a task of its own. It syncs when the wanted picture changes,
//! when the kernel reports a change of a wanted device, of our nftables table, or a disturbance of routes or rules, and
//! every minute.

mod nat;
mod neighbours;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use datapath::disturbances::Disturbance;
use datapath::host::{EniStatus, Families, FormerEnis, HostReport};
use datapath::links::LinkChange;
use datapath::neighbour_limits::NeighbourLimits;
use datapath::{Applied, MacAddr, Mtu, MtuError, RouteTable};
use futures::{Stream, StreamExt as _};
use ipam::block::Family;
use ipam::event::{Event, HostEni, HostNat, HostPicture, LinkState};
use ipam::id::EniId;
use ipnet::{IpNet, Ipv4Net};
use tokio::sync::watch;

use crate::disturbances::{self, Repairs};
use crate::{HostRepairs, Inlet, Notes, error_chain};

/// The first pause after a failure, or while a device is missing. The kernel might not report the change.
const FIRST_RETRY: Duration = Duration::from_millis(250);
/// The pause between two syncs while everything is ready.
const SYNC_EVERY: Duration = Duration::from_secs(60);

/// The code of the line in `ipamd status` while rules of amazon-vpc-cni-k8s are where nobody but a person can remove them.
const LEGACY: &str = "LEGACY_IPTABLES";

/// The code of the line in `ipamd status` while node-local addresses lead nowhere.
const STRANDED: &str = "EGRESS_WITHOUT_ADDRESS";

/// Where the keeper says what people should know.
#[derive(Debug, Clone, Default)]
pub struct Reports {
    /// The lines of the View.
    pub notes: Notes,
    /// The metric of what was put back.
    pub repairs: HostRepairs,
}

/// Keeps the host network like the newest picture in `wanted`, until the sender is dropped. Does nothing
/// before the first picture.
///
/// Sends `inlet` an [`Event::EniLink`] for each ENI of a new picture, and later for each ENI whose state
/// has changed. Works in the network namespace of the calling thread. `limits` is what to do about limits of
/// neighbours that are too low.
pub async fn keep(
    mut wanted: watch::Receiver<Option<HostPicture>>,
    inlet: Inlet,
    reports: Reports,
    limits: NeighbourLimits,
) {
    let (mut links, mut nat_changes) = (link_changes(), nat::changes().fuse());
    let (mut disturbances, mut repairs) = (disturbances::follow().fuse(), Repairs::new());
    let mut keeper: Option<Keeper> = None;
    loop {
        let pause = keeper.as_ref().map_or(SYNC_EVERY, |keeper| keeper.pause);
        tokio::select! {
            changed = wanted.changed() => match changed {
                Ok(()) => {
                    if let Some(picture) = wanted.borrow_and_update().clone() {
                        Keeper::replace(&mut keeper, picture, &inlet, &reports, limits);
                    }
                }
                Err(_no_sender) => return,
            },
            Some(change) = links.next() => {
                if !keeper.as_ref().is_some_and(|keeper| keeper.concerns(&change)) {
                    continue;
                }
            }
            Some(disturbance) = disturbances.next() => {
                if keeper.as_ref().is_some_and(|keeper| keeper.is_hit_by(&disturbance)) {
                    repairs.need();
                }
                continue;
            }
            Some(()) = nat_changes.next() => {
                repairs.need();
                continue;
            }
            () = repairs.due() => {}
            () = tokio::time::sleep(pause) => {}
        }
        if let Some(keeper) = &mut keeper {
            keeper.sync().await;
        }
    }
}

struct Keeper {
    wanted: HostPicture,
    inlet: Inlet,
    reports: Reports,
    /// What is done about limits of neighbours that are too low, and what is wrong with them.
    limits: (NeighbourLimits, Option<String>),
    /// The state of each wanted ENI that the engine got last.
    sent: BTreeMap<EniId, LinkState>,
    /// The state of the node's own network that was logged last.
    node: LinkState,
    /// Whether the last sync of this picture has left nothing to do.
    was_ready: bool,
    /// Hardware addresses of devices whose ENIs are no longer wanted.
    former: BTreeSet<MacAddr>,
    /// The pause until the next sync.
    pause: Duration,
}

impl Keeper {
    /// Makes `picture` the wanted one. Its ENIs are all reported again.
    fn replace(
        keeper: &mut Option<Self>,
        picture: HostPicture,
        inlet: &Inlet,
        reports: &Reports,
        limits: NeighbourLimits,
    ) {
        let (node, former, limits) = match keeper.take() {
            Some(keeper) => (keeper.node, keeper.former, keeper.limits),
            None => (LinkState::Ready, BTreeSet::new(), (limits, None)),
        };
        *keeper = Some(Self {
            wanted: picture,
            inlet: inlet.clone(),
            reports: reports.clone(),
            limits,
            sent: BTreeMap::new(),
            node,
            was_ready: false,
            former,
            pause: SYNC_EVERY,
        });
    }

    fn concerns(&self, change: &LinkChange) -> bool {
        match change {
            LinkChange::Present { mac, .. } | LinkChange::Gone { mac, .. } => {
                self.former.contains(mac)
                    || *mac == self.wanted.primary_mac
                    || self.wanted.enis.iter().any(|eni| eni.mac == *mac)
            }
            LinkChange::Retired { .. } => false,
            LinkChange::Missed => true,
        }
    }

    /// Whether `disturbance` may concern a wanted ENI.
    fn is_hit_by(&self, disturbance: &Disturbance) -> bool {
        let mut enis = self.wanted.enis.iter();
        match disturbance {
            Disturbance::RuleLost(address) | Disturbance::AddressLost(address) => {
                enis.any(|eni| eni.primary_address == *address)
            }
            Disturbance::RouteLost { table: of, .. } => {
                *of != RouteTable::MAIN && enis.any(|eni| table(eni) == *of)
            }
            Disturbance::MainRuleLost
            | Disturbance::KernelRuleLost
            | Disturbance::HostAddress(_)
            | Disturbance::DefaultRoute
            | Disturbance::Sysctl
            | Disturbance::Missed => true,
            Disturbance::LinkDown => false,
        }
    }

    async fn sync(&mut self) {
        let report = match picture(&self.wanted) {
            Ok(picture) => {
                datapath::host::sync(&picture).await.map_err(|error| error_chain(&error))
            }
            Err(error) => Err(error_chain(&error)),
        };
        let mut all_ready = self.note_node(node_state(&self.wanted, &report));
        all_ready &= self.note_former(&report);
        self.note_repairs(&report);
        self.note_incumbent(&report);
        self.ensure_neighbours();
        self.note_stranded(&report);
        for eni in &self.wanted.enis {
            let state = eni_state(eni, &self.wanted, &report);
            all_ready &= state == LinkState::Ready;
            if self.sent.get(&eni.eni) != Some(&state) {
                log_link(&eni.eni, &state);
                self.sent.insert(eni.eni.clone(), state.clone());
                if state == LinkState::Ready {
                    failpoint::pass("host", "synced");
                }
                self.inlet.send(Event::EniLink { eni: eni.eni.clone(), link: state });
            }
        }
        self.was_ready = all_ready;
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

    /// Counts and logs what another program had changed since the last sync.
    fn note_repairs(&self, report: &Result<HostReport, String>) {
        let Ok(report) = report else { return };
        let nat = report.nat.as_ref().ok().map(|nat| nat.applied);
        if !self.was_ready {
            if nat.is_some_and(|applied| applied != Applied::Unchanged) {
                tracing::info!(wanted = ?self.wanted.nat, "translation of pods' packets is set");
            }
            return;
        }
        let enis = report.enis.values().filter_map(|eni| match eni {
            EniStatus::Ready(applied) => Some(*applied),
            EniStatus::Absent | EniStatus::Failed(_) => None,
        });
        for (part, applied) in [
            ("kernel_rules", report.kernel_rules.as_ref().ok().copied()),
            ("node", report.node.as_ref().ok().copied()),
            ("default_route", report.default_route.as_ref().ok().copied()),
            ("nat", nat),
            ("eni", enis.max()),
        ] {
            if applied.is_some_and(|applied| applied != Applied::Unchanged) {
                self.reports.repairs.count(part);
                tracing::warn!(
                    part,
                    "restored the node's network, which another program had changed"
                );
            }
        }
    }

    fn ensure_neighbours(&mut self) {
        let (limits, before) = &mut self.limits;
        let wanted = (&self.wanted.families, self.wanted.neighbours);
        let before_now = before.take();
        *before = neighbours::ensure(wanted, *limits, before_now, self.was_ready, &self.reports);
    }

    /// Says what amazon-vpc-cni-k8s has left.
    fn note_incumbent(&self, report: &Result<HostReport, String>) {
        let Ok(HostReport { nat: Ok(nat), .. }) = report else { return };
        if nat.n_of_incumbent > 0 {
            tracing::info!(n = nat.n_of_incumbent, "removed rules of amazon-vpc-cni-k8s");
        }
        if nat.legacy {
            let line = format!(
                "rules of amazon-vpc-cni-k8s may be in legacy iptables, where ipamd does not remove them; restart the \
                 machine, or run as root on the node (docs/migration.md):\n{}",
                datapath::nat::LEGACY_REMOVAL
            );
            self.reports.notes.say(LEGACY, line.clone());
            if !self.was_ready {
                tracing::warn!("{line}");
            }
        } else {
            self.reports.notes.settle(LEGACY);
        }
    }

    /// Says which node-local addresses lead nowhere. That is no failure of the node: pods' addresses in the VPC work.
    fn note_stranded(&self, report: &Result<HostReport, String>) {
        let Ok(HostReport { stranded, .. }) = report else { return };
        match nat::stranded_line(stranded) {
            Some(line) => self.reports.notes.say(STRANDED, line),
            None => self.reports.notes.settle(STRANDED),
        }
    }

    /// Logs removed rules of former ENIs. Returns whether none is left.
    fn note_former(&mut self, report: &Result<HostReport, String>) -> bool {
        let Ok(report) = report else { return false };
        match &report.former {
            Ok(FormerEnis { n_removed, devices }) => {
                if *n_removed > 0 {
                    tracing::info!(n_removed, "removed rules of former ENIs");
                }
                self.former.clone_from(devices);
                true
            }
            Err(error) => {
                tracing::warn!(
                    fault = error_chain(error),
                    "rules of former ENIs cannot be removed"
                );
                false
            }
        }
    }
}

/// The wanted host network in the form of `datapath`. Its list omits the primary ENI, which belongs to the
/// node.
fn picture(wanted: &HostPicture) -> Result<datapath::host::HostPicture, MtuError> {
    let secondary = wanted.enis.iter().filter(|eni| table(eni) != RouteTable::MAIN);
    Ok(datapath::host::HostPicture {
        primary_mac: wanted.primary_mac,
        mtu: Mtu::try_from(u32::from(wanted.mtu))?,
        families: families(&wanted.families),
        nat: nat::picture(&wanted.nat),
        egress: nat::egress(&wanted.egress),
        enis: secondary.filter_map(secondary_eni).collect(),
    })
}

fn families(of_pods: &BTreeSet<Family>) -> Families {
    match of_pods.contains(&Family::V6) {
        false => Families::Ipv4,
        true => Families::Ipv6,
    }
}

/// `None` without IPv4: no pod gets an address of such an ENI.
fn secondary_eni(eni: &HostEni) -> Option<datapath::host::HostEni> {
    let (IpAddr::V4(primary_address), IpNet::V4(subnet)) = (eni.primary_address, eni.subnet_cidr)
    else {
        return None;
    };
    let (mac, table, gateway) = (eni.mac, table(eni), gateway(subnet));
    Some(datapath::host::HostEni { mac, table, primary_address, subnet, gateway })
}

fn table(eni: &HostEni) -> RouteTable {
    RouteTable::of(eni.network_card, eni.device_index)
}

/// The VPC's router: the second address of every subnet.
fn gateway(subnet: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.network()).saturating_add(1))
}

/// Logs the new state of an ENI in the kernel. Its pods and the pool feel a failure.
fn log_link(eni: &EniId, state: &LinkState) {
    match state {
        LinkState::Failed(why) => {
            tracing::warn!(%eni, why, "kernel link of an ENI cannot be set up");
        }
        LinkState::Absent => tracing::info!(%eni, "device of an ENI is not there"),
        LinkState::Ready => tracing::info!(%eni, "kernel link of an ENI is ready"),
    }
}

/// The state of the kernel's own rules, of the node's sysctls and primary ENI, and of a wanted translation.
fn node_state(wanted: &HostPicture, report: &Result<HostReport, String>) -> LinkState {
    let report = match report {
        Ok(report) => report,
        Err(fault) => return LinkState::Failed(fault.clone()),
    };
    if let Err(error) = &report.kernel_rules {
        return LinkState::Failed(error_chain(error));
    }
    match (&report.node, &wanted.nat, &report.nat) {
        (Err(error), _, _) => LinkState::Failed(error_chain(error)),
        (Ok(_), HostNat::Wanted(_), Err(error)) => LinkState::Failed(error_chain(error)),
        (Ok(_), HostNat::Wanted(_) | HostNat::Absent | HostNat::Unknown(_), _) => LinkState::Ready,
    }
}

/// The ENI's state in `report`. While the node's own set-up fails, no ENI is ready: no packet of a pod would pass. It is
/// neither while the translation is unknown.
fn eni_state(
    eni: &HostEni,
    wanted: &HostPicture,
    report: &Result<HostReport, String>,
) -> LinkState {
    let node = match (node_state(wanted, report), &wanted.nat) {
        (LinkState::Ready, HostNat::Unknown(why)) => LinkState::Failed((*why).to_owned()),
        (node, HostNat::Unknown(_) | HostNat::Absent | HostNat::Wanted(_)) => node,
    };
    let Ok(report) = report else { return node };
    if table(eni) != RouteTable::MAIN {
        return match report.enis.get(&eni.mac) {
            Some(EniStatus::Ready(_)) => node,
            Some(EniStatus::Absent) => LinkState::Absent,
            Some(EniStatus::Failed(error)) => LinkState::Failed(error_chain(error)),
            None => LinkState::Failed(format!("{} has no IPv4 address", eni.eni)),
        };
    }
    match &report.default_route {
        Err(error) if node == LinkState::Ready => LinkState::Failed(error_chain(error)),
        Ok(_) | Err(_) => node,
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
#[cfg(test)]
pub(crate) use self::tests::{TestNetns, runtime};

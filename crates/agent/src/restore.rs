//! Puts back what other programs take from running pods: a link's state, a route, a rule. Removes pods' addresses
//! that they put on an ENI's device. The engine says what; the kernel says when something may be disturbed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use datapath::disturbances::Disturbance;
use datapath::pod::{PodAddress, Restored, RunningPod};
use datapath::{InterfaceName, RouteTable, host_veth_name};
use futures::StreamExt as _;
use ipam::event::Event;
use ipam::id::{AttachmentKey, Pod};
use ipam::record::{Assignment, PodIp, Via};
use tokio::sync::mpsc;

use crate::disturbances::{self, Repairs};
use crate::error_chain;
use crate::handle::Inlet;
use crate::metrics::Counters;

/// An order of the engine.
#[derive(Debug)]
pub(crate) enum Restoring {
    /// See [`Effect::RestorePods`](ipam::event::Effect::RestorePods).
    Pods(BTreeMap<AttachmentKey, Assignment>),
    /// See [`Effect::RemoveHostAddresses`](ipam::event::Effect::RemoveHostAddresses).
    RemoveHostAddresses(BTreeMap<IpAddr, String>),
}

/// Reports disturbances to the engine, and restores the pods that the engine names, until the engine ends.
pub(crate) async fn keep(
    mut orders: mpsc::UnboundedReceiver<Restoring>,
    inlet: Inlet,
    counters: Arc<Counters>,
) {
    let (mut disturbances, mut repairs) = (disturbances::follow().fuse(), Repairs::new());
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Restoring::Pods(pods)) => restore(&pods, &counters).await,
                Some(Restoring::RemoveHostAddresses(addresses)) => remove(&addresses).await,
                None => return,
            },
            Some(disturbance) = disturbances.next() => {
                if concerns_pods(&disturbance) {
                    repairs.need();
                }
            }
            () = repairs.due() => inlet.send(Event::PodPartLost),
        }
    }
}

/// The route to a pod is that to a single address in the main table.
fn concerns_pods(disturbance: &Disturbance) -> bool {
    match disturbance {
        Disturbance::RuleLost(_) | Disturbance::LinkDown | Disturbance::Missed => true,
        Disturbance::RouteLost { destination, table } => {
            *table == RouteTable::MAIN && destination.prefix_len() == destination.max_prefix_len()
        }
        Disturbance::MainRuleLost | Disturbance::HostAddress(_) | Disturbance::DefaultRoute => {
            false
        }
    }
}

async fn restore(pods: &BTreeMap<AttachmentKey, Assignment>, counters: &Counters) {
    let pods: Vec<_> = pods.iter().filter_map(|(key, held)| running_pod(key, held)).collect();
    match datapath::pod::restore(&pods).await {
        Ok(all) => all.iter().for_each(|restored| log(restored, counters)),
        Err(fault) => {
            tracing::error!(fault = error_chain(&fault), "the pods' networks cannot be checked");
        }
    }
}

/// After a failure, the engine repeats the order at the next kernel report.
async fn remove(addresses: &BTreeMap<IpAddr, String>) {
    for (address, link) in addresses {
        match datapath::host_addresses::remove(*address, link).await {
            Ok(()) => tracing::warn!(
                %address, link, "removed a pod's address from an ENI's device, where another program had put it",
            ),
            Err(fault) => tracing::error!(
                %address, link, fault = error_chain(&fault), "a pod's address cannot be removed from an ENI's device",
            ),
        }
    }
}

fn log(restored: &Restored, counters: &Counters) {
    let Restored { host_name, owner, steps, failure } = restored;
    let steps: Vec<_> = steps.iter().map(ToString::to_string).collect();
    let (owner, steps) = (owner.as_str(), steps.join("; "));
    match failure {
        None => {
            counters.pod_restored();
            tracing::warn!(
                owner,
                link = host_name,
                steps,
                "restored a pod's network, which another program had changed"
            );
        }
        Some(fault) => tracing::error!(
            owner,
            link = host_name,
            steps,
            fault = error_chain(fault),
            "a pod's network cannot be restored; its last step failed, and the pod may be cut off"
        ),
    }
}

/// `None` for an attachment that cannot have a link of ours: its mark or its way out is of another kind.
fn running_pod(key: &AttachmentKey, held: &Assignment) -> Option<RunningPod> {
    let addresses = held.addresses.iter().map(pod_address);
    Some(RunningPod {
        owner: key.mark().parse().ok()?,
        unmarked_name: unmarked_name(held),
        addresses: addresses.collect::<Option<_>>()?,
        node_local: held.node_local,
    })
}

fn pod_address(ip: &PodIp) -> Option<PodAddress> {
    match &ip.via {
        Via::Eni { card, index, .. } => {
            Some(PodAddress { address: ip.address, table: RouteTable::of(*card, *index) })
        }
        Via::Branch { .. } => None,
    }
}

/// Only pods that were taken over have unmarked links. Their checkpoint names no network namespace, and an ADD to our
/// plugin always does. A link that an ADD has just made has no mark yet, and may be of a newer pod of the same name.
fn unmarked_name(held: &Assignment) -> Option<InterfaceName> {
    let Pod { namespace, name, uid: _ } = &held.pod;
    let is_taken_over = held.netns.is_empty() && !name.is_empty();
    is_taken_over.then(|| host_veth_name("", namespace, name, "", None).ok())?
}

#[cfg(test)]
mod tests {
    use ipam::record::Addresses;
    use ipam::time::Timestamp;

    use super::*;

    #[test]
    fn only_a_pod_that_was_taken_over_is_found_by_name() {
        let check = |name: &str, netns: &str, expect: bool| {
            let via = Via::Eni { eni: "eni-1".try_into().unwrap(), card: 0, index: 0 };
            let held = Assignment {
                addresses: Addresses::one(PodIp { address: "10.0.0.9".parse().unwrap(), via }),
                node_local: None,
                pod: Pod {
                    namespace: "default".to_owned(),
                    name: name.to_owned(),
                    ..Pod::default()
                },
                netns: netns.to_owned(),
                since: Timestamp::default(),
            };
            assert_eq!(unmarked_name(&held).is_some(), expect, "{name} {netns}");
        };
        check("web-0", "", true);
        check("web-0", "/run/netns/cni-1", false);
        check("", "", false);
    }
}

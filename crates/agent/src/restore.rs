//! Puts back what other programs take from running pods: a link's state, a route, a rule. Removes pods' addresses
//! that they put on an ENI's device. The engine says what; the kernel says when something may be disturbed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use datapath::disturbances::Disturbance;
use datapath::pod::{Damage, PodAddress, Restored, RunningPod};
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
        Disturbance::MainRuleLost
        | Disturbance::KernelRuleLost
        | Disturbance::HostAddress(_)
        | Disturbance::AddressLost(_)
        | Disturbance::Sysctl
        | Disturbance::DefaultRoute => false,
    }
}

async fn restore(pods: &BTreeMap<AttachmentKey, Assignment>, counters: &Counters) {
    let pods: Vec<_> = pods.iter().filter_map(|(key, held)| running_pod(key, held)).collect();
    match Damage::find(&pods).await {
        Ok(damage) => damage.repair().await.iter().for_each(|restored| log(restored, counters)),
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
    use ipam::record::{Addresses, PodIpv6};
    use ipam::time::Timestamp;

    use super::*;
    use crate::host::{TestNetns, runtime};

    /// The pod `default/<name>` with address 10.0.0.9.
    fn held(name: &str, netns: &str) -> Assignment {
        let via = Via::Eni { eni: "eni-1".try_into().unwrap(), card: 0, index: 0 };
        Assignment {
            addresses: Addresses::one(PodIp { address: "10.0.0.9".parse().unwrap(), via }),
            node_local: None,
            ipv6: PodIpv6::AsItIs,
            pod: Pod { namespace: "default".to_owned(), name: name.to_owned(), ..Pod::default() },
            netns: netns.to_owned(),
            since: Timestamp::default(),
        }
    }

    #[test]
    fn only_a_pod_that_was_taken_over_is_found_by_name() {
        let check = |name: &str, netns: &str, expect: bool| {
            assert_eq!(unmarked_name(&held(name, netns)).is_some(), expect, "{name} {netns}");
        };
        check("web-0", "", true);
        check("web-0", "/run/netns/cni-1", false);
        check("", "", false);
    }

    /// A link that an ADD has just made has no mark yet. It is a newer pod's, and the record still has the older one.
    #[test]
    fn repair_leaves_the_unmarked_link_of_a_newer_pod_alone() {
        if std::env::var_os("TIDEPOOL_SKIP_ROOT_TESTS").is_some_and(|skip| skip == "1") {
            return;
        }
        let check = |netns_on_record: &str, is_repaired: bool| {
            let netns = TestNetns::new("agent-newer");
            let link = host_veth_name("eni", "default", "web-0", "", None).unwrap();
            netns.ip(&format!("link add {link} type veth peer name pod-end"));
            let state = || {
                let link = netns.ip(&format!("-o link show dev {link}"));
                (link.contains("UP"), netns.ip("rule"), netns.ip("route"))
            };
            let before = state();
            let key = AttachmentKey {
                network: "aws-cni".into(),
                container: "older".to_owned(),
                ifname: "eth0".to_owned(),
            };
            let pods = BTreeMap::from([(key, held("web-0", netns_on_record))]);
            let counters = Counters::default();
            netns.inside().run(|| runtime().block_on(restore(&pods, &counters))).unwrap();
            assert_eq!(state() != before, is_repaired, "{:?}", state());
        };
        check("/run/netns/cni-older", false);
        // As it was taken over from amazon-vpc-cni-k8s: its own link has no mark.
        check("", true);
    }
}

//! Puts back what other programs take from running pods: a link's state, a route, a rule. The engine names the
//! pods; here is heard when something may be missing, and the kernel gets back what it lacks.

use std::collections::BTreeMap;
use std::sync::Arc;

use datapath::losses::Loss;
use datapath::pod::{PodAddress, Restored, RunningPod};
use datapath::{InterfaceName, RouteTable, host_veth_name};
use futures::StreamExt as _;
use ipam::event::Event;
use ipam::id::{AttachmentKey, Pod};
use ipam::record::{Assignment, PodIp, Via};
use tokio::sync::mpsc;

use crate::error_chain;
use crate::handle::Inlet;
use crate::losses::{self, Repairs};
use crate::metrics::Counters;

/// The pods whose network must be in place. See [`Effect::RestorePods`](ipam::event::Effect::RestorePods).
pub(crate) type Pods = BTreeMap<AttachmentKey, Assignment>;

/// The prefix of host links' names where the incumbent's setting is the default.
const INCUMBENTS_PREFIX: &str = "eni";

/// Reports losses to the engine, and restores the pods that the engine names, until the engine ends.
pub(crate) async fn keep(
    mut wanted: mpsc::UnboundedReceiver<Pods>,
    inlet: Inlet,
    counters: Arc<Counters>,
) {
    let (mut losses, mut repairs) = (losses::follow().fuse(), Repairs::new());
    loop {
        tokio::select! {
            pods = wanted.recv() => match pods {
                Some(pods) => restore(&pods, &counters).await,
                None => return,
            },
            Some(loss) = losses.next() => {
                if concerns_pods(&loss) {
                    repairs.need();
                }
            }
            () = repairs.due() => inlet.send(Event::PodPartLost),
        }
    }
}

/// The route to a pod is that to a single address in the main table.
fn concerns_pods(loss: &Loss) -> bool {
    match loss {
        Loss::Rule(_) | Loss::MarkedLinkDown | Loss::Missed => true,
        Loss::Route { destination, table } => {
            *table == RouteTable::MAIN && destination.prefix_len() == destination.max_prefix_len()
        }
        Loss::HostAddress(_) => false,
    }
}

async fn restore(pods: &Pods, counters: &Counters) {
    let pods: Vec<_> = pods.iter().filter_map(|(key, held)| running_pod(key, held)).collect();
    match datapath::pod::restore(&pods).await {
        Ok(all) => all.iter().for_each(|restored| log(restored, counters)),
        Err(fault) => {
            tracing::error!(fault = error_chain(&fault), "the pods' networks cannot be checked");
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
        unmarked_name: unmarked_name(&held.pod),
        addresses: addresses.collect::<Option<_>>()?,
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

fn unmarked_name(pod: &Pod) -> Option<InterfaceName> {
    let is_named = !pod.name.is_empty();
    is_named.then(|| host_veth_name(INCUMBENTS_PREFIX, &pod.namespace, &pod.name, "").ok())?
}

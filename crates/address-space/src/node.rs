//! Nodes of clusters: what each holds for its pods. EC2 does not know which of it pods use, so that comes from elsewhere.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipam::id::{InstanceId, SubnetId};
use ipnet::IpNet;
use serde::Serialize;

use crate::holder::{Holder, holder, is_of_cni};
use crate::inventory::{Interface, Inventory};
use crate::subnet::PREFIX_SIZE;

/// How many pods have addresses of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pods {
    /// By the node's name in Kubernetes, or the id of its instance.
    pub by_node: BTreeMap<String, u64>,
    /// On each node that `by_node` lacks; `None` if nobody knows.
    pub otherwise: Option<u64>,
}

/// A node, with counts of IPv4 addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Its instance.
    pub instance: InstanceId,
    /// The name that it has in Kubernetes; empty if it is not known.
    pub name: String,
    /// Its cluster, or `?`.
    pub cluster: String,
    /// For example `m5.large`; empty if it is not known.
    pub instance_type: String,
    /// The subnet of its primary interface.
    pub subnet: SubnetId,
    /// Interfaces.
    pub n_enis: u64,
    /// Primary addresses of the interfaces, which no pod gets.
    pub own: u64,
    /// Secondary addresses for pods.
    pub single: u64,
    /// Prefixes for pods, of sixteen addresses each.
    pub prefixes: u64,
    /// IPv6 prefixes.
    pub ipv6_prefixes: u64,
    /// Pods with an address; `None` if nobody knows.
    pub pods: Option<u64>,
}

impl Node {
    /// Addresses for pods.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.single + PREFIX_SIZE * self.prefixes
    }

    /// Addresses for pods that no pod has.
    #[must_use]
    pub fn idle(&self) -> Option<u64> {
        self.pods.map(|pods| self.held().saturating_sub(pods))
    }
}

/// The nodes of all clusters, in the order of their instances.
#[must_use]
pub fn nodes(inventory: &Inventory, pods: &Pods) -> Vec<Node> {
    let instances: BTreeMap<_, _> =
        inventory.instances.iter().map(|instance| (&instance.id, instance)).collect();
    let mut found: BTreeMap<&InstanceId, (String, Vec<&Interface>)> = BTreeMap::new();
    for interface in &inventory.interfaces {
        let attached = interface.attachment.as_ref().and_then(|to| to.instance.as_ref());
        let Some(id) = attached else { continue };
        if let Holder::Node { cluster } = holder(interface, instances.get(id).copied()) {
            let (named, interfaces) = found.entry(id).or_default();
            // Only one interface of a node may have a tag with the cluster's name.
            if named.is_empty() || named == "?" {
                *named = cluster;
            }
            interfaces.push(interface);
        }
    }
    let node = |(id, (cluster, interfaces)): (&InstanceId, (String, Vec<&Interface>))| {
        let known = instances.get(id);
        let name = known.map_or(String::new(), |instance| instance.private_dns_name.clone());
        let by_name = pods.by_node.get(&name).or_else(|| pods.by_node.get(id.as_str()));
        Some(Node {
            instance: id.clone(),
            cluster,
            instance_type: known.map_or(String::new(), |instance| instance.instance_type.clone()),
            pods: by_name.copied().or(pods.otherwise),
            name,
            ..counted(id, &interfaces)?
        })
    };
    found.into_iter().filter_map(node).collect()
}

/// What the interfaces have. `None` without any.
fn counted(id: &InstanceId, interfaces: &[&Interface]) -> Option<Node> {
    let index = |interface: &&&Interface| {
        (is_of_cni(interface), interface.attachment.as_ref().map_or(u32::MAX, |to| to.device_index))
    };
    let primary = interfaces.iter().min_by_key(index)?;
    let v4 = |interface: &Interface| {
        interface.addresses.iter().filter(|address| matches!(address, IpAddr::V4(_))).count() as u64
    };
    let prefixes = interfaces.iter().flat_map(|interface| &interface.prefixes);
    let addresses = interfaces.iter().map(|interface| v4(interface));
    Some(Node {
        instance: id.clone(),
        name: String::new(),
        cluster: String::new(),
        instance_type: String::new(),
        subnet: primary.subnet.clone(),
        n_enis: interfaces.len() as u64,
        own: addresses.clone().map(|n| n.min(1)).sum(),
        single: addresses.map(|n| n.saturating_sub(1)).sum(),
        prefixes: prefixes.clone().filter(|prefix| matches!(prefix, IpNet::V4(_))).count() as u64,
        ipv6_prefixes: prefixes.filter(|prefix| matches!(prefix, IpNet::V6(_))).count() as u64,
        pods: None,
    })
}

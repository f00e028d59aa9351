//! A second VPC beside that of the nodes, 10.1.0.0/16, and the peering between the two. No daemon runs on its instances,
//! so they show which address a pod has beyond the nodes' VPC.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

/// The addresses of its instances: one in each of 10.1.1.0/24 and 10.1.2.0/24.
pub const PEERS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 1, 1, 10), Ipv4Addr::new(10, 1, 2, 10)];

/// The network namespace of an instance.
#[must_use]
pub fn netns(cluster: &str, index: usize) -> String {
    format!("{cluster}-p{index}")
}

/// Adds it to a topology whose first VPC has one subnet.
pub(crate) fn add(topology: &mut Value, cluster: &str) {
    topology["vpcs"][0]["subnets"][0]["routes"]["10.1.0.0/16"] = json!("peering");
    let subnet = json!({
        "name": "peer", "az": "us-east-1a", "cidr": "10.1.0.0/20",
        "routes": {"10.0.0.0/16": "peering"},
    });
    let vpc = json!({"cidrs": ["10.1.0.0/16"], "subnets": [subnet]});
    let instances = PEERS.iter().enumerate().map(|(index, address)| {
        json!({
            "type": "t3.small", "subnet": "peer", "address": address,
            "netns": netns(cluster, index),
        })
    });
    let instances: Vec<_> = instances.collect();
    for (list, more) in [("vpcs", vec![vpc]), ("instances", instances)] {
        topology[list].as_array_mut().into_iter().for_each(|list| list.extend(more.clone()));
    }
}

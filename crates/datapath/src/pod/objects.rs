//! The kernel objects of a pod's link beside its two ends. Pure: it must not know netlink.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{PodAddress, PodRoutes};
use crate::RouteTable;
use crate::link::Link;
use crate::neighbour::Neighbour;
use crate::route::Route;
use crate::rule::Rule;

/// All addresses, routes, neighbours and rules of a pod's link, on both sides.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LinkObjects {
    /// On the pod's end.
    pub(super) addresses: Vec<IpNet>,
    /// In the pod's namespace, in the order in which the kernel takes them.
    pub(super) pod_routes: Vec<Route>,
    /// In the pod's namespace.
    pub(super) pod_rules: Vec<Rule>,
    /// In the pod's namespace.
    pub(super) neighbours: Vec<Neighbour>,
    /// In the node's namespace.
    pub(super) host_routes: Vec<Route>,
    /// In the node's namespace.
    pub(super) rules: Vec<Rule>,
}

impl LinkObjects {
    pub(super) fn of(
        addresses: &[PodAddress],
        node_local: Option<IpAddr>,
        (host, pod): (&Link, &Link),
        routes: PodRoutes,
    ) -> Self {
        let gateways: BTreeSet<_> = all(addresses, node_local).map(gateway).collect();
        let own_table = RouteTable::of_pod_link(pod.index);
        let (table, pod_rules) = match routes {
            PodRoutes::Main => (RouteTable::MAIN, Vec::new()),
            PodRoutes::BySource => {
                let by_source = |pod: &PodAddress| Rule::from_pod(pod.address, own_table);
                (own_table, addresses.iter().map(by_source).collect())
            }
        };
        Self {
            addresses: all(addresses, node_local).map(IpNet::from).collect(),
            pod_routes: gateways.iter().flat_map(|gw| routes_over(*gw, pod.index, table)).collect(),
            pod_rules,
            neighbours: gateways
                .iter()
                .map(|gw| Neighbour { address: *gw, mac: host.mac, device: pod.index })
                .collect(),
            host_routes: all(addresses, node_local)
                .map(|address| Route::to_host(address, host.index))
                .collect(),
            rules: addresses.iter().flat_map(rules).collect(),
        }
    }
}

/// The addresses of a pod, the node-local one last.
pub(super) fn all(
    addresses: &[PodAddress],
    node_local: Option<IpAddr>,
) -> impl Iterator<Item = IpAddr> {
    addresses.iter().map(|pod| pod.address).chain(node_local)
}

/// One gateway for each family of these addresses, IPv4 first. No interface has the gateways' addresses.
/// They are the ones of amazon-vpc-cni-k8s.
#[must_use]
pub fn gateways(addresses: &[PodAddress]) -> BTreeSet<IpAddr> {
    addresses.iter().map(|pod| gateway(pod.address)).collect()
}

fn gateway(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
    }
}

fn routes_over(gateway: IpAddr, device: u32, table: RouteTable) -> [Route; 2] {
    let default = match gateway {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    };
    let to_gateway = Route { table, ..Route::to_host(gateway, device) };
    let over_gateway = Route { destination: default, gateway: Some(gateway), ..to_gateway.clone() };
    [to_gateway, over_gateway]
}

/// The rules for one address of a pod, in the node's namespace.
pub(super) fn rules(pod: &PodAddress) -> impl Iterator<Item = Rule> + use<> {
    let leaves_elsewhere = pod.table != RouteTable::MAIN;
    let from = leaves_elsewhere.then(|| Rule::from_pod(pod.address, pod.table));
    std::iter::once(Rule::to_pod(pod.address)).chain(from)
}

/// Whether `rule` has the form of a rule for the pod at `address`, whatever table it names.
pub(super) fn is_of_pod(rule: &Rule, address: IpAddr) -> bool {
    rule.rivals(&Rule::to_pod(address)) || rule.rivals(&Rule::from_pod(address, RouteTable::MAIN))
}

//! `pod::host_links`: the host ends of all pods' links.

use std::collections::BTreeSet;
use std::net::IpAddr;

use datapath::pod::HostLink;

use crate::lab::{Namespace, Pod, on_node};

fn host_links(node: &Namespace) -> Vec<HostLink> {
    let mut links = node.block_on(datapath::pod::host_links()).unwrap();
    links.sort_by(|a, b| a.name.cmp(&b.name));
    links
}

fn addresses(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn host_links_lists_each_pod_until_its_link_goes() {
    on_node(|node| {
        assert_eq!(host_links(node), [], "a veth without routes and mark is not a pod's");
        let first = Pod::added(node, "first", &["10.0.2.20@2"]);
        let second = Pod::added(node, "second", &["10.0.2.21@main"]);
        let link = |pod: &Pod, address: &str| HostLink {
            name: pod.link.host_name.to_string(),
            owner: Some(pod.link.owner.to_string()),
            addresses: addresses(&[address]),
        };
        let mut expect = vec![link(&first, "10.0.2.20"), link(&second, "10.0.2.21")];
        expect.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(host_links(node), expect);

        node.ip("route del 10.0.2.20");
        let lost = HostLink { addresses: addresses(&[]), ..link(&first, "10.0.2.20") };
        assert!(host_links(node).contains(&lost), "the link is there: {:?}", host_links(node));

        node.block_on(datapath::pod::del(&first.removal())).unwrap();
        assert_eq!(host_links(node), [link(&second, "10.0.2.21")]);
        second.namespace.ip("link del eth0");
        assert_eq!(host_links(node), []);
    });
}

/// A pod of amazon-vpc-cni-k8s, and other routes that a node may have.
#[test]
fn host_links_lists_unmarked_pods_but_not_node_routes() {
    on_node(|node| {
        node.ip("link add eni11111111111 type veth peer name peer");
        for link in ["eni11111111111", "peer", "lo"] {
            node.ip(&format!("link set {link} up"));
        }
        node.ip("route add 10.0.2.30 dev eni11111111111");
        node.ip("route add 10.0.2.31 dev lo");
        node.ip("route add 10.0.3.0/24 dev eni11111111111");
        node.ip("route add 10.0.2.32 via 10.0.3.1");
        node.ip("route add 10.0.2.33 dev eni11111111111 table 2");
        let stranger = HostLink {
            name: "eni11111111111".to_owned(),
            owner: None,
            addresses: addresses(&["10.0.2.30"]),
        };
        assert_eq!(host_links(node), [stranger]);
    });
}

#[test]
fn host_links_lists_ipv6_pods() {
    on_node(|_| {
        let node = Namespace::with_ipv6("node");
        let pod = Pod::planned_in(Namespace::with_ipv6("pod"), "six", &["2001:db8::7@main"]);
        pod.add(&node);
        let all: BTreeSet<_> =
            host_links(&node).into_iter().flat_map(|link| link.addresses).collect();
        assert_eq!(
            all,
            addresses(&["2001:db8::7"]),
            "link-local addresses of the kernel are left out"
        );
    });
}

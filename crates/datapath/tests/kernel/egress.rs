//! Node-local addresses: pods reach the family that their VPC addresses are not of, and nobody reaches them.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use datapath::Applied;
use datapath::host::{Families, HostPicture, HostReport};
use datapath::nat::{Egress, NatPicture, SourcePorts};
use datapath::pod::{PodStep, check, del};

use crate::lab::{Namespace, Pod, error_chain, on_node};
use crate::nat::{Server, connect, nft, words};
use crate::restore::{restored, running};
use crate::traffic::{attach_to_vpc, picture};

/// How long a connection may take that is refused. The answer takes a millisecond.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node whose pods lack a family.
struct Way {
    families: Families,
    range: &'static str,
    /// Pods' addresses in the VPC, and their node-local ones.
    pods: [(&'static str, &'static str); 2],
    outside: &'static str,
    node: &'static str,
}

const TO_IPV4: Way = Way {
    families: Families::Ipv6,
    range: "169.254.172.0/22",
    pods: [("2001:db8:0:1::20", "169.254.172.2"), ("2001:db8:0:1::21", "169.254.172.3")],
    outside: "192.0.2.1",
    node: "10.0.0.10",
};
const TO_IPV6: Way = Way {
    families: Families::Ipv4,
    range: "fd00::ac:0/118",
    pods: [("10.0.0.20", "fd00::ac:2"), ("10.0.0.21", "fd00::ac:3")],
    outside: "2001:db8:ffff::1",
    node: "2001:db8:0:1::10",
};

impl Way {
    fn egress(&self, ports: SourcePorts) -> Egress {
        Egress { ranges: BTreeSet::from([self.range.parse().unwrap()]), ports }
    }

    fn pods(&self) -> [Pod; 2] {
        ["a", "b"].map(|name| {
            let (address, node_local) = self.pods[usize::from(name == "b")];
            let mut pod = Pod::planned(name, &[&format!("{address}@main")]);
            pod.link.node_local = Some(node_local.parse().unwrap());
            pod
        })
    }

    fn sync(&self, node: &Namespace, egress: Egress) -> HostReport {
        let (nat, families) = (NatPicture::Absent, self.families);
        let wanted = HostPicture { nat, families, egress, ..picture() };
        node.block_on(datapath::host::sync(&wanted)).unwrap()
    }

    fn applied(&self, node: &Namespace, egress: &Egress) -> Applied {
        self.sync(node, egress.clone()).nat.unwrap().applied
    }
}

/// A node and its router, both with both families.
fn node() -> [Namespace; 2] {
    let node = Namespace::with_ipv6("node");
    node.ip("link add pad type veth peer name pad-peer");
    let router = attach_to_vpc(&node);
    for device in ["all", "default", "lo", "to-ens5"] {
        router.set_sysctl(&format!("net/ipv6/conf/{device}/disable_ipv6"), "0");
    }
    router.ip("addr add 2001:db8:0:1::1/64 dev to-ens5 nodad");
    router.ip("addr add 2001:db8:ffff::1/128 dev lo");
    node.ip("addr add 2001:db8:0:1::10/64 dev ens5 nodad");
    node.ip("-6 route add default via 2001:db8:0:1::1");
    [node, router]
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

#[test]
fn pods_reach_the_other_family_as_the_node() {
    on_node(|_| {
        for way in [TO_IPV4, TO_IPV6] {
            let [node, router] = node();
            let outside = Server::on(&router, at(way.outside, 0));
            for ports in [SourcePorts::Random, SourcePorts::Hashed, SourcePorts::Kept] {
                way.sync(&node, way.egress(ports)).nat.unwrap();
                let pods = way.pods();
                for pod in &pods {
                    pod.add(&node);
                    // Without a wait: what ADD returns is usable.
                    let from = outside.from(&pod.namespace);
                    assert_eq!(from.ip().to_string(), way.node, "{ports:?}");
                }
                for pod in &pods {
                    node.block_on(del(&pod.removal())).unwrap();
                }
            }
        }
    });
}

#[test]
fn node_local_addresses_are_closed_to_other_pods() {
    on_node(|_| {
        for way in [TO_IPV4, TO_IPV6] {
            let [node, _router] = node();
            way.sync(&node, way.egress(SourcePorts::Random)).nat.unwrap();
            let pods = way.pods();
            pods.iter().for_each(|pod| drop(pod.add(&node)));
            let [first, second] = &pods;
            let server = Server::on(&second.namespace, at(way.pods[1].1, 0));
            let refused = connect(&first.namespace, server.address(), PATIENCE).unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{}", way.range);
            assert!(!first.namespace.pings(way.pods[1].1), "{}", way.range);
            // The node's own programs reach them, as they do with amazon-vpc-cni-k8s.
            assert!(server.from(&node).port() > 0);
        }
    });
}

#[test]
fn nft_lists_each_egress_table_as_it_was_wanted() {
    on_node(|_| {
        let [node, _router] = node();
        let both = [TO_IPV4.range, TO_IPV6.range].map(|range| range.parse().unwrap());
        let mut is_there = false;
        for ports in [SourcePorts::Random, SourcePorts::Hashed, SourcePorts::Kept] {
            for ranges in [&both[..1], &both[1..], &both[..], &[]] {
                let egress = Egress { ranges: ranges.iter().copied().collect(), ports };
                let applied = TO_IPV4.applied(&node, &egress);
                assert!(applied != Applied::Unchanged || !is_there, "{egress:?}");
                is_there = true;
                let tables = nft(&node, "list tables");
                // `nft` lists the families in the order in which they came.
                let here = ["ip", "ip6"].into_iter();
                let here = here.filter(|it| tables.contains(&format!("table {it} tidepool\n")));
                let listed =
                    here.map(|family| nft(&node, &format!("list table {family} tidepool")));
                let listed = words(&listed.collect::<String>());
                let wanted = words(&datapath::nat::egress_text(&egress));
                assert_eq!(listed, wanted);
                assert_eq!(TO_IPV4.applied(&node, &egress), Applied::Unchanged, "{egress:?}");
            }
        }
    });
}

#[test]
fn egress_table_reads_as_documented() {
    let expected = "\
table ip tidepool {
\tchain node-local {
\t\ttype filter hook forward priority filter; policy accept;
\t\tip daddr 169.254.172.0/22 ct state new reject
\t}
\tchain egress {
\t\ttype nat hook postrouting priority srcnat + 10; policy accept;
\t\tip saddr 169.254.172.0/22 ip daddr != 224.0.0.0/4 masquerade fully-random
\t}
}
";
    let text = datapath::nat::egress_text(&TO_IPV4.egress(SourcePorts::Random));
    assert_eq!(text, expected);
}

#[test]
fn egress_sync_heals_every_drift() {
    on_node(|_| {
        for (way, family) in [(TO_IPV4, "ip"), (TO_IPV6, "ip6")] {
            let [node, _router] = node();
            let egress = way.egress(SourcePorts::Random);
            way.applied(&node, &egress);
            let before = nft(&node, "list ruleset");
            for damage in [
                "nft flush ruleset",
                "nft flush chain FAMILY tidepool egress",
                "nft flush chain FAMILY tidepool node-local",
                "nft insert rule FAMILY tidepool node-local accept",
                "nft add rule FAMILY tidepool egress accept",
                "nft add chain FAMILY tidepool other",
                "nft add table FAMILY tidepool { flags dormant; }",
            ] {
                node.exec(&damage.replace("FAMILY", family));
                assert_ne!(way.applied(&node, &egress), Applied::Unchanged, "{damage}");
                assert_eq!(nft(&node, "list ruleset"), before, "{damage}");
                assert_eq!(way.applied(&node, &egress), Applied::Unchanged, "{damage}");
            }
        }
    });
}

#[test]
fn egress_toggled_a_hundred_times_is_as_at_first() {
    on_node(|_| {
        let [node, _router] = node();
        let (off, on) = (Egress::default(), TO_IPV6.egress(SourcePorts::Hashed));
        TO_IPV6.applied(&node, &on);
        let fresh = nft(&node, "list ruleset");
        for _ in 0..100 {
            TO_IPV6.applied(&node, &off);
            assert_eq!(nft(&node, "list ruleset"), "");
            TO_IPV6.applied(&node, &on);
        }
        assert_eq!(nft(&node, "list ruleset"), fresh);
    });
}

/// Addresses of the VPC are translated as before, and unknown ranges do not hold up the other family.
#[test]
fn egress_stands_beside_the_translation_of_vpc_addresses() {
    on_node(|_| {
        let [node, router] = node();
        let wanted = |nat, egress| HostPicture { nat, egress, ..picture() };
        let nat = || NatPicture::Wanted(crate::nat::default_nat());
        let synced = |wanted: &HostPicture| {
            node.block_on(datapath::host::sync(wanted)).unwrap().nat.unwrap().applied
        };
        let egress = TO_IPV6.egress(SourcePorts::Random);
        assert_eq!(synced(&wanted(NatPicture::Unknown, egress.clone())), Applied::Added);
        synced(&wanted(nat(), egress.clone()));
        let [pod, _] = TO_IPV6.pods();
        pod.add(&node);
        for (outside, node) in [("192.0.2.1", "10.0.0.10"), (TO_IPV6.outside, TO_IPV6.node)] {
            let server = Server::on(&router, at(outside, 0));
            assert_eq!(server.from(&pod.namespace).ip().to_string(), node);
        }
        let before = nft(&node, "list ruleset");
        assert_eq!(synced(&wanted(NatPicture::Unknown, egress)), Applied::Unchanged);
        assert_eq!(nft(&node, "list ruleset"), before);
        assert_eq!(synced(&wanted(nat(), Egress::default())), Applied::Updated);
        assert_eq!(nft(&node, "list tables").trim(), "table ip tidepool");
    });
}

#[test]
fn primary_without_the_family_is_reported() {
    on_node(|_| {
        let [node, _router] = node();
        let egress = || TO_IPV6.egress(SourcePorts::Random);
        assert_eq!(TO_IPV6.sync(&node, egress()).stranded, BTreeSet::new());
        node.ip("addr del 2001:db8:0:1::10/64 dev ens5");
        assert_eq!(TO_IPV6.sync(&node, egress()).stranded, egress().ranges);
        assert_eq!(TO_IPV6.sync(&node, Egress::default()).stranded, BTreeSet::new());
    });
}

/// IPv4 pods need no IPv6 of the node, unless they reach IPv6 through it.
#[test]
fn ipv6_is_forwarded_only_where_pods_reach_it() {
    on_node(|_| {
        let [node, _router] = node();
        let forwards = || node.sysctl("net/ipv6/conf/all/forwarding");
        TO_IPV6.sync(&node, Egress::default());
        assert_eq!(forwards(), "0");
        TO_IPV6.sync(&node, TO_IPV6.egress(SourcePorts::Random));
        assert_eq!(
            (forwards(), node.sysctl("net/ipv6/conf/ens5/accept_ra")),
            ("1".into(), "2".into())
        );
    });
}

#[test]
fn node_local_parts_of_a_pod_are_checked_and_restored() {
    on_node(|_| {
        for way in [TO_IPV4, TO_IPV6] {
            let [node, _router] = node();
            let [pod, _] = way.pods();
            let (address, local) = way.pods[0];
            let expectation = pod.expectation(&pod.add(&node));
            node.block_on(check(&expectation)).unwrap();
            let host = &pod.link.host_name;
            let route = format!("route del {local} dev {host}");
            node.ip(&route);
            let error = error_chain(&node.block_on(check(&expectation)).unwrap_err());
            assert!(error.contains(&format!("the node has no route {local} ")), "{error}");
            let done = restored(&node, &[running(&pod)]);
            let [PodStep::ReplaceRoute(_)] = &done[0].steps[..] else { panic!("{done:?}") };
            node.block_on(check(&expectation)).unwrap();
            assert!(restored(&node, &[running(&pod)]).is_empty(), "nothing differs");
            // The node's rules are for addresses of the VPC alone.
            let rules = node.ip("rule") + &node.ip("-6 rule");
            assert!(rules.contains(address) && !rules.contains(local), "{rules}");
            let length = if local.contains(':') { 128 } else { 32 };
            pod.namespace.ip(&format!("addr del {local}/{length} dev eth0"));
            let error = error_chain(&node.block_on(check(&expectation)).unwrap_err());
            assert!(error.contains(&format!("eth0 has no address {local}/")), "{error}");
        }
    });
}

/// As a DEL without daemon, which knows only the addresses in the result of the ADD.
#[test]
fn del_by_vpc_address_leaves_nothing_of_the_node_local_one() {
    on_node(|_| {
        for way in [TO_IPV4, TO_IPV6] {
            let [node, _router] = node();
            let [pod, other] = way.pods();
            pod.add(&node);
            other.add(&node);
            node.block_on(del(&pod.removal())).unwrap();
            let left = node.dump();
            for gone in [way.pods[0].0, way.pods[0].1, pod.link.host_name.as_str()] {
                let of_it = |line: &&str| line.split_whitespace().any(|word| word == gone);
                assert_eq!(left.lines().find(of_it), None, "{gone}");
            }
            let routes = node.ip("route") + &node.ip("-6 route");
            assert!(routes.contains(way.pods[1].1), "{routes}");
        }
    });
}

/// Clients of an ended pod must not reach the next one with its node-local address.
#[test]
fn connections_of_node_local_addresses_are_forgotten() {
    on_node(|_| {
        for way in [TO_IPV4, TO_IPV6] {
            let [node, router] = node();
            way.sync(&node, way.egress(SourcePorts::Random)).nat.unwrap();
            let [pod, _] = way.pods();
            pod.add(&node);
            let outside = Server::on(&router, at(way.outside, 0));
            let _open = outside.connected(&pod.namespace, outside.address());
            let of_pod = BTreeSet::from([way.pods[0].1.parse::<IpAddr>().unwrap()]);
            let forget = || node.enter(|| datapath::connections::forget(&of_pod)).unwrap();
            assert_eq!(forget(), 1);
            assert_eq!(forget(), 0);
        }
    });
}

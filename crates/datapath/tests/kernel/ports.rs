//! Host ports: who reaches a pod by a port of the node, what the kernel then has, and every kind of drift.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use datapath::ports::{self, PodPorts, PortMapping, PortsError, PortsReport, Protocol};
use futures::StreamExt as _;

use crate::lab::{Namespace, Pod, on_node};
use crate::nat::{
    FUTILE, HANG, MODES, Server, attach_client, connect, default_nat, kube_proxy, nft, synced,
    two_pods, words,
};
use crate::traffic::attach_to_vpc;

/// The node's address in the VPC of [`attach_to_vpc`].
const NODE: &str = "10.0.0.10";
/// The client's of [`attach_client`].
const CLIENT: &str = "192.0.2.77";

/// `tcp 8080:80` or `udp 10.0.0.10:53:53`.
fn mapping(text: &str) -> PortMapping {
    let (protocol, ports) = text.split_once(' ').unwrap();
    let port = |text: &str| text.parse::<NonZeroU16>().unwrap();
    let (host, pod_port) = ports.rsplit_once(':').unwrap();
    let (host, host_port) = match host.rsplit_once(':') {
        Some((host, port)) => (Some(host.trim_matches(['[', ']']).parse().unwrap()), port),
        None => (None, host),
    };
    let protocol = Protocol::ALL.into_iter().find(|it| it.to_string() == protocol).unwrap();
    PortMapping { protocol, host, host_port: port(host_port), pod_port: port(pod_port) }
}

fn ports_of(pod: &Pod, mappings: &[&str]) -> PodPorts {
    let mappings: Vec<_> = mappings.iter().map(|text| mapping(text)).collect();
    let addresses: Vec<_> = pod.link.addresses.iter().map(|pod| pod.address).collect();
    PodPorts::new(pod.link.owner.clone(), &mappings, &addresses).unwrap()
}

fn try_open(node: &Namespace, pod: &Pod, mappings: &[&str]) -> Result<PodPorts, PortsError> {
    let ports = ports_of(pod, mappings);
    node.block_on(ports::add(&ports, &pod.link.host_name)).map(|()| ports)
}

pub(crate) fn open(node: &Namespace, pod: &Pod, mappings: &[&str]) -> PodPorts {
    try_open(node, pod, mappings).unwrap()
}

pub(crate) fn close(node: &Namespace, pod: &Pod) -> Vec<String> {
    let closed = node.enter(|| ports::remove_all(&pod.link.owner)).unwrap();
    closed.iter().map(ToString::to_string).collect()
}

fn sync(node: &Namespace, wanted: &[&PodPorts]) -> PortsReport {
    let wanted: Vec<_> = wanted.iter().map(|ports| (*ports).clone()).collect();
    node.block_on(ports::sync(&wanted)).unwrap()
}

fn listed(node: &Namespace) -> String {
    nft(node, "list table inet tidepool-ports")
}

/// The table with no element is that of the documents.
fn assert_empty(node: &Namespace) {
    assert_eq!(words(&listed(node)), words(ports::text()));
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

#[test]
fn pod_without_ports_gets_no_table() {
    on_node(|node| {
        let pod = Pod::added(node, "a", &["10.0.0.20@main"]);
        open(node, &pod, &[]);
        assert_eq!(close(node, &pod), [] as [&str; 0]);
        let report = sync(node, &[]);
        assert!(!report.frame_written && report.removed.is_empty(), "{report:?}");
        assert_eq!(nft(node, "list tables"), "");
    });
}

/// The golden text is what `nft` understands, so an administrator may compare it by hand.
#[test]
fn ports_are_elements_with_their_owner_and_go_with_it() {
    on_node(|node| {
        let pods = [("a", "10.0.0.20@main"), ("b", "10.0.0.21@main")];
        let [a, b] = pods.map(|(name, address)| Pod::added(node, name, &[address]));
        let all = ["tcp 8080:80", "udp 10.0.0.10:53:5353", "sctp 7:7"];
        open(node, &a, &all);
        open(node, &b, &["tcp 8081:80"]);
        let text = listed(node);
        let (a_owner, b_owner) = (a.link.owner.as_str(), b.link.owner.as_str());
        for element in [
            format!("tcp . 8080 comment \"{a_owner}\" : 10.0.0.20 . 80"),
            format!("sctp . 7 comment \"{a_owner}\" : 10.0.0.20 . 7"),
            format!("10.0.0.10 . udp . 53 comment \"{a_owner}\" : 10.0.0.20 . 5353"),
            format!("10.0.0.20 . 10.0.0.20 comment \"{a_owner}\""),
            format!("127.0.0.1 . 10.0.0.20 comment \"{a_owner}\""),
            format!("tcp . 8081 comment \"{b_owner}\" : 10.0.0.21 . 80"),
        ] {
            assert!(words(&text).contains(&element), "{element} is not in {text}");
        }
        let closed = close(node, &a);
        let expect = ["tcp *:8080 10.0.0.20:80", "udp 10.0.0.10:53 10.0.0.20:5353"];
        assert_eq!(closed, [&expect[..], &["sctp *:7 10.0.0.20:7"]].concat());
        assert!(!listed(node).contains(a_owner), "{}", listed(node));
        assert_eq!(close(node, &a), [] as [&str; 0]);
        assert_eq!(close(node, &b), ["tcp *:8081 10.0.0.21:80"]);
        assert_empty(node);
    });
}

/// Pods on both ENIs. The answers leave by the primary, since the VPC drops them otherwise.
#[test]
fn outside_reaches_each_pod_by_a_port_of_the_node() {
    on_node(|node| {
        let router = attach_to_vpc(node);
        let client = Namespace::new("client");
        attach_client(&router, &client);
        synced(node, &default_nat());
        for (pod, address) in two_pods(node).iter().zip(["10.0.0.20", "10.0.1.20"]) {
            let server = Server::on(&pod.namespace, format!("{address}:80"));
            connect(&client, at(NODE, 8080), FUTILE).unwrap_err();
            open(node, pod, &["tcp 8080:80"]);
            let (from, _streams) = server.connected(&client, at(NODE, 8080));
            assert_eq!(from.ip().to_string(), CLIENT, "the pod sees the client itself");
            close(node, pod);
            connect(&client, at(NODE, 8080), FUTILE).unwrap_err();
        }
    });
}

#[test]
fn node_and_its_pods_reach_a_pod_by_a_port_of_the_node() {
    on_node(|node| {
        let _router = attach_to_vpc(node);
        synced(node, &default_nat());
        let pods = two_pods(node);
        for (n, (pod, address)) in pods.iter().zip(["10.0.0.20", "10.0.1.20"]).enumerate() {
            let port = 8080 + u16::try_from(n).unwrap();
            let server = Server::on(&pod.namespace, format!("{address}:80"));
            open(node, pod, &[&format!("tcp {port}:80")]);
            for other in [&pods[0], &pods[1]] {
                let own = other.link.addresses[0].address.to_string();
                let (from, _streams) = server.connected(&other.namespace, at(NODE, port));
                let seen = if own == address { NODE } else { &own };
                assert_eq!(from.ip().to_string(), seen, "{own} to {address}");
            }
            for to in [NODE, "127.0.0.1"] {
                let (from, _streams) = server.connected(node, at(to, port));
                assert_eq!(from.ip().to_string(), NODE, "{to}");
            }
        }
    });
}

/// A link that lets loopback addresses in is no way to what listens there.
#[test]
fn pod_reaches_nothing_on_the_nodes_loopback_address() {
    on_node(|node| {
        let pod = Pod::added(node, "a", &["10.0.0.20@main"]);
        node.ip("link set lo up");
        node.ip("addr add 10.0.0.10/32 dev lo");
        let _listener = Server::on(node, "127.0.0.1:7777");
        open(node, &pod, &["tcp 8080:80"]);
        pod.namespace.ip("route add 127.0.0.1 via 169.254.1.1 dev eth0 table 7");
        pod.namespace.ip("rule add to 127.0.0.1 lookup 7 pref 0");
        pod.namespace.ip("rule del pref 0 lookup local");
        pod.namespace.ip("rule add lookup local pref 100");
        pod.namespace.set_sysctl("net/ipv4/conf/all/route_localnet", "1");
        connect(&pod.namespace, at("127.0.0.1", 7777), FUTILE).unwrap_err();
        // Otherwise the line above would prove nothing.
        nft(node, "flush chain inet tidepool-ports guard");
        connect(&pod.namespace, at("127.0.0.1", 7777), HANG).unwrap();
    });
}

#[test]
fn port_of_one_address_is_reached_there_alone() {
    on_node(|node| {
        let router = attach_to_vpc(node);
        node.ip("addr add 10.0.0.11/32 dev ens5");
        let client = Namespace::new("client");
        attach_client(&router, &client);
        synced(node, &default_nat());
        let [a, b] = two_pods(node);
        let (on_a, on_b) =
            (Server::on(&a.namespace, "10.0.0.20:80"), Server::on(&b.namespace, "10.0.1.20:80"));
        open(node, &a, &["tcp 10.0.0.11:8080:80"]);
        on_a.connected(&client, at("10.0.0.11", 8080));
        connect(&client, at(NODE, 8080), FUTILE).unwrap_err();
        // The port of one address comes before that of all.
        open(node, &b, &["tcp 8080:80"]);
        on_a.connected(&client, at("10.0.0.11", 8080));
        on_b.connected(&client, at(NODE, 8080));
        open(node, &a, &["tcp 127.0.0.1:9090:80"]);
        on_a.connected(node, at("127.0.0.1", 9090));
        connect(node, at(NODE, 9090), FUTILE).unwrap_err();
    });
}

/// An address that is not the node's own is left alone, though a pod asks for it.
#[test]
fn port_of_a_foreign_address_takes_no_traffic() {
    on_node(|node| {
        let router = attach_to_vpc(node);
        synced(node, &default_nat());
        let [a, b] = two_pods(node);
        let outside = Server::on(&router, "192.0.2.1:53");
        open(node, &a, &["tcp 192.0.2.1:53:53"]);
        outside.connected(&b.namespace, at("192.0.2.1", 53));
    });
}

/// Whoever starts first. A Service and a node port lead where kube-proxy says.
#[test]
fn ports_work_beside_kube_proxy_in_each_mode() {
    for mode in MODES {
        for we_are_first in [false, true] {
            on_node(|node| {
                let router = attach_to_vpc(node);
                let client = Namespace::new("client");
                attach_client(&router, &client);
                synced(node, &default_nat());
                let [a, b] = two_pods(node);
                let served = Server::on(&a.namespace, "10.0.0.20:80");
                let mapped = Server::on(&b.namespace, "10.0.1.20:80");
                if we_are_first {
                    open(node, &b, &["tcp 8080:80"]);
                }
                kube_proxy(node, mode, "10.0.0.20:80", true);
                if !we_are_first {
                    open(node, &b, &["tcp 8080:80"]);
                }
                let (from, _streams) = mapped.connected(&client, at(NODE, 8080));
                assert_eq!(from.ip().to_string(), CLIENT, "{mode}, {we_are_first}");
                served.connected(&client, at(NODE, 30080));
                served.connected(&b.namespace, at("172.20.0.10", 80));
                mapped.connected(&b.namespace, at(NODE, 8080));
            });
        }
    }
}

#[test]
fn ipv6_port_is_reached_from_the_node_and_its_pods() {
    on_node_with_ipv6(|node| {
        let [a, b] = [("a", "fd00::20@main"), ("b", "fd00::21@main")].map(|(name, address)| {
            let pod = Pod::planned_in(Namespace::with_ipv6("pod"), name, &[address]);
            pod.add(node);
            pod
        });
        let server = Server::on(&a.namespace, "[fd00::20]:80");
        open(node, &a, &["tcp 8080:80", "tcp [fd00::10]:9090:80", "tcp 10.0.0.10:1:1"]);
        for port in [8080, 9090] {
            for client in [node, &a.namespace, &b.namespace] {
                server.connected(client, at("fd00::10", port));
            }
        }
        // Nothing answers for the loopback address.
        connect(node, at("::1", 8080), FUTILE).unwrap_err();
        let text = words(&listed(node));
        assert!(text.contains("fd00::10 . tcp . 9090"), "{text}");
        assert!(!text.contains("10.0.0.10"), "no port of the other family: {text}");
        close(node, &a);
        assert_empty(node);
    });
}

fn on_node_with_ipv6(test: impl FnOnce(&Namespace)) {
    on_node(|_| {
        let node = Namespace::with_ipv6("node");
        node.ip("link add pad type veth peer name pad-peer");
        node.ip("link set lo up");
        node.ip("addr add fd00::10/128 dev lo");
        node.set_sysctl("net/ipv6/conf/all/forwarding", "1");
        test(&node);
    });
}

#[test]
fn port_that_is_taken_is_refused_and_nothing_changes() {
    on_node(|node| {
        let [a, b] = two_pods_alone(node);
        open(node, &a, &["tcp 8080:80"]);
        let before = listed(node);
        let error = try_open(node, &b, &["tcp 9090:90", "tcp 8080:81"]).unwrap_err();
        let owner = a.link.owner.as_str();
        let expect = format!("host port tcp *:8080 10.0.0.21:81 is taken by {owner}");
        assert_eq!(error.to_string(), expect);
        assert_eq!(listed(node), before);
        // Another protocol, and a single address, are other ports.
        open(node, &b, &["udp 8080:80", "tcp 10.0.0.10:8080:80"]);
    });
}

fn two_pods_alone(node: &Namespace) -> [Pod; 2] {
    [("a", "10.0.0.20@main"), ("b", "10.0.0.21@main")]
        .map(|(name, address)| Pod::added(node, name, &[address]))
}

/// The pod has gone without a DEL, or its link waits for removal.
#[test]
fn port_of_a_pod_without_a_link_is_free() {
    on_node(|node| {
        for retired in [false, true] {
            let [a, b] = two_pods_alone(node);
            open(node, &a, &["tcp 8080:80", "tcp 8081:81"]);
            let removal = if retired { a.retirement() } else { a.removal() };
            node.block_on(datapath::pod::del(&removal)).unwrap();
            open(node, &b, &["tcp 8080:80"]);
            assert!(!listed(node).contains(a.link.owner.as_str()), "{}", listed(node));
            assert_eq!(close(node, &b), ["tcp *:8080 10.0.0.21:80"]);
            node.block_on(datapath::pod::del(&b.removal())).unwrap();
        }
    });
}

/// By its keys alone, without a list. A port that another pod has taken meanwhile stays that one's.
#[test]
fn ports_that_are_named_go_and_those_of_others_stay() {
    on_node(|node| {
        let [a, b] = two_pods_alone(node);
        let remove = |ports: &PodPorts| {
            let removed = node.enter(|| ports::remove(ports)).unwrap();
            removed.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let of_a = ports_of(&a, &["tcp 8080:80", "udp 10.0.0.10:53:53"]);
        assert_eq!(remove(&of_a), [] as [&str; 0], "there is no table");
        open(node, &a, &["tcp 8080:80", "udp 10.0.0.10:53:53"]);
        nft(node, "delete element inet tidepool-ports any4 { tcp . 8080 }");
        assert_eq!(remove(&of_a), ["udp 10.0.0.10:53 10.0.0.20:53"]);
        assert!(!listed(node).contains(a.link.owner.as_str()), "{}", listed(node));
        let of_b = open(node, &b, &["tcp 8080:80", "tcp 8081:80"]);
        assert_eq!(remove(&of_a), [] as [&str; 0]);
        assert_eq!(remove(&of_b), ["tcp *:8080 10.0.0.21:80", "tcp *:8081 10.0.0.21:80"]);
        assert_empty(node);
    });
}

/// A repeated attempt may ask for something else.
#[test]
fn ports_of_the_same_pod_are_replaced() {
    on_node(|node| {
        let [a, _] = two_pods_alone(node);
        open(node, &a, &["tcp 8080:80", "tcp 8081:81"]);
        open(node, &a, &["tcp 8080:82"]);
        assert_eq!(close(node, &a), ["tcp *:8080 10.0.0.20:82"]);
        assert_empty(node);
    });
}

#[test]
fn ports_of_many_pods_at_once_are_all_there() {
    on_node(|node| {
        let pods: Vec<_> = (20..36)
            .map(|n| Pod::added(node, &format!("p{n}"), &[&format!("10.0.0.{n}@main")]))
            .collect();
        node.block_on_threads(async {
            let adding = pods.iter().zip(8080_u16..).map(|(pod, port)| {
                let ports = ports_of(pod, &[&format!("tcp {port}:80")]);
                let host_name = pod.link.host_name.clone();
                tokio::spawn(async move { ports::add(&ports, &host_name).await })
            });
            let adding: Vec<_> = adding.collect();
            for added in adding {
                added.await.unwrap().unwrap();
            }
        });
        for (pod, port) in pods.iter().zip(8080_u16..) {
            let ports = ports_of(pod, &[&format!("tcp {port}:80")]);
            assert!(node.enter(|| ports::missing(&ports)).unwrap().is_empty(), "{port}");
        }
    });
}

/// Threads with this as their namespace, each with a runtime of its own.
fn at_once<'a>(node: &Namespace, work: impl IntoIterator<Item = Box<dyn FnOnce() + Send + 'a>>) {
    std::thread::scope(|scope| {
        node.enter(|| work.into_iter().for_each(|work| drop(scope.spawn(work))));
    });
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Counts a thread's end, also if it panics: then the others need not go on.
struct End<'a> {
    n_ended: &'a AtomicUsize,
    failed: &'a AtomicBool,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.n_ended.fetch_add(1, Relaxed);
        self.failed.fetch_or(std::thread::panicking(), Relaxed);
    }
}

/// Two pods want each port by turns, and each repeats its DEL while the other one may have the port already. Syncs and
/// another program's changes come between.
#[test]
fn writers_at_once_take_nothing_from_each_other() {
    const TURNS: usize = 15;
    on_node(|node| {
        let pods: Vec<_> = (20..28)
            .map(|n| Pod::added(node, &format!("p{n}"), &[&format!("10.0.0.{n}@main")]))
            .collect();
        let (n_ended, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let compete = |pod: &Pod, port: u16| {
            let _end = End { n_ended: &n_ended, failed: &failed };
            let ports = ports_of(pod, &[&format!("tcp {port}:80"), &format!("udp {port}:80")]);
            for _ in 0..TURNS {
                let mut added = block_on(ports::add(&ports, &pod.link.host_name));
                while let Err(PortsError::Taken { .. }) = added {
                    assert!(!failed.load(Relaxed), "another thread has failed");
                    added = block_on(ports::add(&ports, &pod.link.host_name));
                }
                added.unwrap();
                assert_eq!(ports::missing(&ports).unwrap(), BTreeSet::new(), "another's DEL");
                std::thread::scope(|scope| {
                    scope.spawn(|| ports::remove_all(&pod.link.owner).unwrap());
                    scope.spawn(|| ports::remove(&ports).unwrap());
                });
            }
        };
        let is_over = || n_ended.load(Relaxed) == pods.len();
        let compete = &compete;
        let of_pods = pods.iter().zip([1, 1, 2, 2, 3, 3, 4, 4]).map(|(pod, n)| {
            let work: Box<dyn FnOnce() + Send> = Box::new(move || compete(pod, 8080 + n));
            work
        });
        let syncs: Box<dyn FnOnce() + Send> = Box::new(|| {
            while !is_over() {
                block_on(ports::sync(&[])).unwrap();
            }
        });
        let other: Box<dyn FnOnce() + Send> = Box::new(|| {
            while !is_over() {
                nft(node, "add table ip other; delete table ip other");
            }
        });
        at_once(node, of_pods.chain([syncs, other]));
        assert_empty(node);
    });
}

/// What is in the way of a replacement is there before and after, and at each moment between.
#[test]
fn ports_lead_to_pods_while_the_rules_are_replaced() {
    on_node(|node| {
        let [a, b] = two_pods_alone(node);
        let of_a = open(node, &a, &["tcp 8080:80"]);
        let many: Vec<_> = (1..=2000).map(|port| format!("tcp 10.0.0.10:{port}:80")).collect();
        let of_b = open(node, &b, &many.iter().map(String::as_str).collect::<Vec<_>>());
        let (n_ended, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let look: Box<dyn FnOnce() + Send> = Box::new(|| {
            while n_ended.load(Relaxed) == 0 {
                assert_eq!(ports::missing(&of_a).unwrap(), BTreeSet::new());
            }
        });
        let replace: Box<dyn FnOnce() + Send> = Box::new(|| {
            let _end = End { n_ended: &n_ended, failed: &failed };
            for _ in 0..10 {
                nft(node, "add rule inet tidepool-ports from-node accept");
                let report = sync(node, &[&of_a, &of_b]);
                assert!(report.frame_written && report.restored.is_empty(), "{report:?}");
            }
        });
        at_once(node, [look, replace]);
        assert_eq!(node.enter(|| ports::missing(&of_b)).unwrap(), BTreeSet::new());
    });
}

/// The pod's element was removed, and its port taken. A changed element of the pod's own goes.
#[test]
fn ports_sync_takes_no_port_of_another_pod() {
    on_node(|node| {
        let [a, b] = two_pods_alone(node);
        let of_a = open(node, &a, &["tcp 8080:80", "tcp 8081:80"]);
        nft(node, "delete element inet tidepool-ports any4 { tcp . 8080 }");
        let of_b = open(node, &b, &["tcp 8080:81", "tcp 8082:82"]);
        let changed = format!(
            "delete element inet tidepool-ports any4 {{ tcp . 8082 }}; add element inet tidepool-ports any4 {{ tcp . 8082 comment \"{}\" : 10.0.0.9 . 9 }}",
            b.link.owner.as_str()
        );
        nft(node, &changed);
        let report = sync(node, &[&of_a, &of_b]);
        let [(owner, error)] = report.failures.as_slice() else { panic!("{report:?}") };
        assert_eq!(owner, &a.link.owner);
        let holder = b.link.owner.as_str();
        let expect = format!("host port tcp *:8080 10.0.0.20:80 is taken by {holder}");
        assert_eq!(error.to_string(), expect);
        assert_eq!(close(node, &b), ["tcp *:8080 10.0.0.21:81", "tcp *:8082 10.0.0.21:82"]);
        assert!(sync(node, &[&of_a]).failures.is_empty(), "it is free");
    });
}

/// IPv4 has a way back to the loopback address, and IPv6 has none.
#[test]
fn address_that_no_pod_can_answer_is_refused() {
    let owner: datapath::Owner = "c1/eth0".parse().unwrap();
    let ports = |text: &str| {
        PodPorts::new(owner.clone(), &[mapping(text)], &["10.0.0.20".parse().unwrap()])
    };
    for refused in ["tcp [::1]:8080:80", "udp [fe80::1]:8080:80"] {
        let error = ports(refused).unwrap_err().to_string();
        assert!(error.contains("8080") && error.contains("leave hostIP out"), "{error}");
    }
    for good in ["tcp 127.0.0.1:8080:80", "tcp [::]:8080:80", "tcp [fd00::1]:8080:80"] {
        ports(good).unwrap();
    }
}

#[test]
fn ports_sync_heals_every_drift() {
    on_node(|node| {
        let [a, b] = two_pods_alone(node);
        let of_a = open(node, &a, &["tcp 8080:80", "udp 53:53"]);
        let of_b = open(node, &b, &["tcp 10.0.0.10:8081:80"]);
        let before = listed(node);
        let table = "inet tidepool-ports";
        for damage in [
            "flush ruleset".to_owned(),
            format!("delete table {table}"),
            format!("flush chain {table} arriving"),
            format!("flush chain {table} leaving"),
            format!("add rule {table} from-node accept"),
            format!("add chain {table} other"),
            format!("delete element {table} any4 {{ tcp . 8080 }}"),
            format!("flush map {table} address4"),
            format!("flush set {table} masqueraded4"),
            format!("add table {table} {{ flags dormant; }}"),
        ] {
            nft(node, &damage);
            assert_ne!(listed_or_none(node), before, "{damage}");
            let report = sync(node, &[&of_a, &of_b]);
            assert!(
                report.failures.is_empty() && report.removed.is_empty(),
                "{damage}: {report:?}"
            );
            assert_eq!(sorted(&listed(node)), sorted(&before), "{damage}");
            let report = sync(node, &[&of_a, &of_b]);
            assert!(!report.frame_written && report.restored.is_empty(), "{damage}: {report:?}");
        }
    });
}

fn listed_or_none(node: &Namespace) -> String {
    let tables = nft(node, "list tables");
    if tables.contains("tidepool-ports") { listed(node) } else { tables }
}

/// Elements are in no order.
fn sorted(text: &str) -> BTreeSet<String> {
    let parts = text.split([',', '\n', '{', '}']).map(|part| words(part).replace("elements =", ""));
    parts.map(|part| part.trim().to_owned()).collect()
}

#[test]
fn ports_of_pods_that_have_gone_are_removed_and_others_stay() {
    on_node(|node| {
        let [a, b] = two_pods_alone(node);
        let of_a = open(node, &a, &["tcp 8080:80"]);
        open(node, &b, &["tcp 8081:80"]);
        node.block_on(datapath::pod::del(&a.retirement())).unwrap();
        // The note of the one is still there, and that of the other is lost.
        let report = sync(node, &[&of_a]);
        let text = |forwards: &BTreeSet<ports::Forward>| {
            forwards.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(text(&report.removed), ["tcp *:8080 10.0.0.20:80"]);
        assert_eq!(report.gone, [a.link.owner.clone()].into());
        assert!(listed(node).contains(b.link.owner.as_str()), "{}", listed(node));
    });
}

#[test]
fn missing_ports_are_named() {
    on_node(|node| {
        let [a, b] = two_pods_alone(node);
        let of_a = open(node, &a, &["tcp 8080:80", "udp 53:53"]);
        let missing = || {
            let missing = node.enter(|| ports::missing(&of_a)).unwrap();
            missing.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(missing(), [] as [&str; 0]);
        nft(node, "delete element inet tidepool-ports any4 { tcp . 8080 }");
        assert_eq!(missing(), ["tcp *:8080 10.0.0.20:80"]);
        // It leads to another pod now.
        open(node, &b, &["tcp 8080:80"]);
        assert_eq!(missing(), ["tcp *:8080 10.0.0.20:80"]);
        nft(node, "flush ruleset");
        assert_eq!(missing().len(), 2);
    });
}

/// A client that sends on keeps its connection tracked. So without forgetting, it would never see a change.
#[test]
fn udp_clients_follow_each_change_at_once() {
    on_node(|node| {
        let router = attach_to_vpc(node);
        let client = Namespace::new("client");
        attach_client(&router, &client);
        synced(node, &default_nat());
        let [a, b] = two_pods(node);
        let bind = |namespace: &Namespace, address: &str| {
            let socket = namespace.enter(|| UdpSocket::bind(address)).unwrap();
            socket.set_read_timeout(Some(HANG)).unwrap();
            socket
        };
        let on_node = bind(node, "10.0.0.10:53");
        let (on_a, on_b) = (bind(&a.namespace, "10.0.0.20:53"), bind(&b.namespace, "10.0.1.20:53"));
        let sender = bind(&client, "192.0.2.77:5353");
        let arrives_at = |socket: &UdpSocket| {
            sender.send_to(b"x", "10.0.0.10:53").unwrap();
            socket.recv(&mut [0]).unwrap();
        };
        // One of kube-proxy's kind, whose loss would harm its client.
        arrives_at(&on_node);
        open(node, &a, &["udp 53:53"]);
        arrives_at(&on_a);
        close(node, &a);
        open(node, &b, &["udp 53:53"]);
        arrives_at(&on_b);
        close(node, &b);
        arrives_at(&on_node);
    });
}

#[test]
fn changes_report_what_others_do_to_the_ports() {
    on_node(|node| {
        let [a, _] = two_pods_alone(node);
        open(node, &a, &["tcp 8080:80"]);
        node.block_on(async {
            let mut changes = ports::changes().unwrap();
            for damage in
                ["delete element inet tidepool-ports any4 { tcp . 8080 }", "flush ruleset"]
            {
                // The change of another's table comes before, and is not reported.
                nft(node, "add table ip kube-proxy");
                nft(node, damage);
                let change = tokio::time::timeout(HANG, changes.next()).await;
                assert_eq!(change.expect(damage), Some(()), "{damage}");
            }
        });
    });
}

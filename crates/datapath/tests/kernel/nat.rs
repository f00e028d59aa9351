//! The translation of pods' packets: the table as `nft` lists it, what happens to packets, and every kind of drift.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use datapath::Applied;
use datapath::host::HostPicture;
use datapath::nat::{Nat, NatError, NatPicture, NatReport, SourceNat, SourcePorts};
use futures::StreamExt as _;
use ipnet::Ipv4Net;

use crate::lab::{Namespace, Pod, error_chain, on_node};
use crate::traffic::{attach_to_vpc, picture};

/// When a wait counts as hung.
pub(crate) const HANG: Duration = Duration::from_secs(60);
/// How long a connection is tried that must fail. One that passes takes a millisecond.
pub(crate) const FUTILE: Duration = Duration::from_secs(1);

fn ranges(text: &str) -> BTreeSet<Ipv4Net> {
    text.split_whitespace().map(|range| range.parse().unwrap()).collect()
}

/// What the default settings ask for in the VPC 10.0.0.0/16.
pub(crate) fn default_nat() -> Nat {
    Nat {
        pod_links: "eni".to_owned(),
        mark: 0x80.try_into().unwrap(),
        source: Some(source("10.0.0.0/16")),
        node_ports: true,
        by_main_table: BTreeSet::new(),
    }
}

fn source(untranslated: &str) -> SourceNat {
    SourceNat {
        address: "10.0.0.10".parse().unwrap(),
        ports: SourcePorts::Random,
        untranslated: ranges(untranslated),
    }
}

pub(crate) fn synced(node: &Namespace, nat: &Nat) -> NatReport {
    let wanted = HostPicture { nat: NatPicture::Wanted(nat.clone()), ..picture() };
    node.block_on(datapath::host::sync(&wanted)).unwrap().nat.unwrap()
}

pub(crate) fn nft(node: &Namespace, arguments: &str) -> String {
    node.exec(&format!("nft {arguments}"))
}

/// Equal for texts that differ in line breaks alone.
pub(crate) fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn assert_in_place(node: &Namespace, nat: &Nat, why: &str) {
    let listed = words(&nft(node, "list table ip tidepool"));
    assert_eq!(listed, words(&datapath::nat::text(nat, "ens5")), "{why}");
}

/// The golden text is what `nft` understands, so an administrator may compare it by hand.
#[test]
fn default_table_reads_as_documented() {
    let expected = "\
table ip tidepool {
\tset untranslated {
\t\ttype ipv4_addr
\t\tflags interval
\t\telements = { 10.0.0.0/16, 100.64.0.0/10 }
\t}
\tchain node-ports {
\t\ttype filter hook prerouting priority mangle; policy accept;
\t\tiifname \"ens5\" ct mark & 0x00000080 != 0x00000080 fib daddr . iif type local ct mark set ct mark | 0x00000080
\t}
\tchain from-pods {
\t\ttype filter hook prerouting priority dstnat + 10; policy accept;
\t\tiifname \"eni*\" ct state new ip daddr != @untranslated fib daddr type != local ct mark set ct mark | 0x00000080
\t\tiifname \"eni*\" ct mark & 0x00000080 == 0x00000080 meta mark set meta mark | 0x00000080
\t}
\tchain translate {
\t\ttype nat hook postrouting priority srcnat + 10; policy accept;
\t\tmeta mark & 0x00000080 == 0x00000080 snat to 10.0.0.10 fully-random
\t}
}
";
    let source = source("10.0.0.0/16 10.0.3.0/24 100.64.0.0/11 100.96.0.0/11");
    let nat = Nat { source: Some(source), ..default_nat() };
    assert_eq!(datapath::nat::text(&nat, "ens5"), expected);
}

/// Each combination of the settings, written over the one before.
#[test]
fn nft_lists_each_table_as_it_was_wanted() {
    on_node(|node| {
        let _router = attach_to_vpc(node);
        let with = |change: fn(&mut Nat)| {
            let mut nat = default_nat();
            change(&mut nat);
            nat
        };
        let mut before = None;
        for nat in [
            default_nat(),
            with(|nat| nat.source = Some(source("0.0.0.0/0"))),
            with(|nat| {
                nat.source =
                    Some(source("10.0.0.0/16 10.1.0.0/16 10.2.0.0/15 9.9.9.9/32 255.0.0.0/8"))
            }),
            with(|nat| nat.source.as_mut().unwrap().ports = SourcePorts::Hashed),
            with(|nat| nat.source.as_mut().unwrap().ports = SourcePorts::Kept),
            with(|nat| nat.source = None),
            with(|nat| nat.node_ports = false),
            with(|nat| nat.mark = 0x0c00_0001.try_into().unwrap()),
            with(|nat| nat.pod_links = "cali".to_owned()),
        ] {
            let first = if before.is_none() { Applied::Added } else { Applied::Updated };
            assert_eq!(synced(node, &nat).applied, first, "{nat:?} after {before:?}");
            assert_in_place(node, &nat, &format!("{nat:?} after {before:?}"));
            assert_eq!(synced(node, &nat).applied, Applied::Unchanged, "{nat:?}");
            before = Some(nat);
        }
    });
}

/// A limit of one message of netlink, and of one send.
#[test]
fn table_with_thousands_of_ranges_is_written_and_read() {
    on_node(|node| {
        let _router = attach_to_vpc(node);
        let even = (0..3000_u16).map(|n| format!("{}.{}.0.0/16", 11 + n / 128, n % 128 * 2));
        let all = even.collect::<Vec<_>>().join(" ");
        let nat = Nat { source: Some(source(&all)), ..default_nat() };
        assert_eq!(synced(node, &nat).applied, Applied::Added);
        assert_eq!(synced(node, &nat).applied, Applied::Unchanged);
        assert_in_place(node, &nat, "many ranges");
    });
}

#[test]
fn nat_sync_heals_every_drift() {
    on_node(|node| {
        let _router = attach_to_vpc(node);
        let by_main_table = ranges("198.51.100.0/24 203.0.113.7/32");
        let nat = Nat { by_main_table, ..default_nat() };
        synced(node, &nat);
        // Of equal priority in any order.
        let sorted_rules = || node.ip("rule").lines().map(str::to_owned).collect::<BTreeSet<_>>();
        let rules = sorted_rules();
        for rule in [
            "1024:\tfrom all fwmark 0x80/0x80 lookup main proto 84",
            "1535:\tfrom all to 198.51.100.0/24 lookup main proto 84",
            "1535:\tfrom all to 203.0.113.7 lookup main proto 84",
        ] {
            assert!(rules.contains(rule), "{rules:?}");
        }
        for damage in [
            "nft flush ruleset",
            "nft delete table ip tidepool",
            "nft flush table ip tidepool",
            "nft flush chain ip tidepool translate",
            "nft flush set ip tidepool untranslated",
            "nft add element ip tidepool untranslated { 192.0.2.0/24 }",
            "nft delete element ip tidepool untranslated { 10.0.0.0/16 }",
            "nft insert rule ip tidepool from-pods accept",
            "nft add rule ip tidepool translate accept",
            "nft add chain ip tidepool other",
            "nft add set ip tidepool other { type ipv4_addr; }",
            "nft add table ip tidepool { flags dormant; }",
            "nft add chain ip tidepool translate { policy drop; }",
            "ip rule del priority 1024",
            "ip rule del to 198.51.100.0/24 priority 1535",
            "ip rule add to 198.18.0.0/15 priority 1535 lookup main",
            "ip rule add priority 1535 lookup main",
        ] {
            node.exec(damage);
            assert_ne!(synced(node, &nat).applied, Applied::Unchanged, "{damage}");
            assert_in_place(node, &nat, damage);
            assert_eq!(sorted_rules(), rules, "{damage}");
            assert_eq!(synced(node, &nat).applied, Applied::Unchanged, "{damage}");
        }
    });
}

/// Replaced by one that differs in a single expression, with everything else equal.
#[test]
fn nat_sync_heals_a_rule_that_differs_a_little() {
    on_node(|node| {
        let _router = attach_to_vpc(node);
        let nat = default_nat();
        let text = datapath::nat::text(&nat, "ens5");
        for (right, wrong) in [
            ("snat to 10.0.0.10", "snat to 10.0.0.11"),
            (" fully-random", " random"),
            ("\"eni*\" ct state new", "\"enp*\" ct state new"),
            ("ct state new", "ct state established"),
            ("!= @untranslated", "== @untranslated"),
            ("fib daddr type != local", "fib daddr type != broadcast"),
            ("meta mark set meta mark | 0x00000080", "meta mark set meta mark | 0x00000040"),
            ("iifname \"ens5\"", "iifname \"ens6\""),
            ("priority srcnat + 10", "priority srcnat"),
            ("hook postrouting priority srcnat + 10", "hook input priority 110"),
        ] {
            assert!(text.contains(right), "{right}");
            let file = std::env::temp_dir().join(format!("{}.nft", node.name()));
            let text = format!("flush ruleset\n{}", text.replacen(right, wrong, 1));
            std::fs::write(&file, text).unwrap();
            nft(node, &format!("-f {}", file.display()));
            std::fs::remove_file(&file).unwrap();
            assert_eq!(synced(node, &nat).applied, Applied::Updated, "{wrong}");
            assert_in_place(node, &nat, wrong);
        }
    });
}

#[test]
fn nat_toggled_a_hundred_times_is_as_at_first() {
    on_node(|node| {
        let _router = attach_to_vpc(node);
        let (on, off) = (default_nat(), Nat { source: None, node_ports: false, ..default_nat() });
        synced(node, &on);
        let before = (node.dump(), nft(node, "list ruleset"));
        for _ in 0..100 {
            synced(node, &off);
            synced(node, &on);
        }
        assert_eq!((node.dump(), nft(node, "list ruleset")), before);
        synced(node, &off);
        assert!(!node.ip("rule").contains("fwmark"), "{}", node.ip("rule"));
    });
}

/// A start without the metadata service must not write a table without ranges.
#[test]
fn unknown_nat_keeps_what_the_kernel_has() {
    on_node(|node| {
        let _router = attach_to_vpc(node);
        synced(node, &Nat { by_main_table: ranges("198.51.100.0/24"), ..default_nat() });
        let before = (node.dump(), nft(node, "list ruleset"));
        let sync = |nat| {
            let wanted = HostPicture { nat, ..picture() };
            node.block_on(datapath::host::sync(&wanted)).unwrap().nat.unwrap()
        };
        assert_eq!(sync(NatPicture::Unknown).applied, Applied::Unchanged);
        assert_eq!((node.dump(), nft(node, "list ruleset")), before);
        assert_eq!(sync(NatPicture::Absent).applied, Applied::Updated);
        assert_eq!(nft(node, "list ruleset"), "");
        assert!(!node.ip("rule").contains("proto 84\n1"), "{}", node.ip("rule"));
        assert_eq!(sync(NatPicture::Absent).applied, Applied::Unchanged);
    });
}

/// A program that owns our table's name: the kernel refuses all others with EPERM, and removes the table with its
/// owner.
#[test]
fn nat_that_the_kernel_refuses_is_named() {
    on_node(|node| {
        let _router = attach_to_vpc(node);
        let mut owner = Command::new("ip");
        owner.args(["netns", "exec", node.name(), "nft", "-i"]);
        let mut owner = owner.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let stdin = owner.stdin.as_mut().unwrap();
        stdin.write_all(b"add table ip tidepool { flags owner; }\n").unwrap();
        while !nft(node, "list tables").contains("ip tidepool") {
            thread::yield_now();
        }
        let wanted = HostPicture { nat: NatPicture::Wanted(default_nat()), ..picture() };
        let report = node.block_on(datapath::host::sync(&wanted)).unwrap();
        let error = report.nat.unwrap_err();
        assert!(matches!(error, NatError::Write("ip", _)), "{error:?}");
        assert!(error_chain(&error).contains("Operation not permitted"), "{error:?}");
        report.node.expect("the other parts are set up");
        drop(owner.stdin.take());
        owner.wait().unwrap();
        synced(node, &default_nat());
        assert_in_place(node, &default_nat(), "once the owner has gone");
    });
}

/// A listener in a namespace. Shows from whom connections come, and answers one byte to each byte.
pub(crate) struct Server(TcpListener);

impl Server {
    pub(crate) fn on(namespace: &Namespace, address: impl ToSocketAddrs) -> Self {
        Self(namespace.enter(|| TcpListener::bind(address)).unwrap())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// The other end of the connection that `client` opens to `to`, and both sockets.
    pub(crate) fn connected(
        &self,
        client: &Namespace,
        to: SocketAddr,
    ) -> (SocketAddr, [TcpStream; 2]) {
        let stream = connect(client, to, HANG);
        let stream = stream.unwrap_or_else(|fault| {
            panic!("{} to {to}: {fault}\n{}", client.name(), client.dump())
        });
        let (accepted, from) = self.0.accept().unwrap();
        let mut streams = [stream, accepted];
        assert_passes(&mut streams);
        (from, streams)
    }

    pub(crate) fn from(&self, client: &Namespace) -> SocketAddr {
        self.connected(client, self.address()).0
    }
}

pub(crate) fn connect(
    client: &Namespace,
    to: SocketAddr,
    patience: Duration,
) -> std::io::Result<TcpStream> {
    client.enter(|| TcpStream::connect_timeout(&to, patience))
}

/// A byte goes each way.
fn assert_passes(streams: &mut [TcpStream; 2]) {
    for (from, to) in [(0, 1), (1, 0)] {
        streams[from].write_all(b"x").unwrap();
        streams[to].set_read_timeout(Some(HANG)).unwrap();
        streams[to].read_exact(&mut [0]).unwrap();
    }
}

/// A node with a pod on each ENI.
pub(crate) fn two_pods(node: &Namespace) -> [Pod; 2] {
    let on_primary = Pod::added(node, "a", &["10.0.0.20@main"]);
    let on_secondary = Pod::added(node, "b", &["10.0.1.20@2"]);
    [on_primary, on_secondary]
}

#[test]
fn outside_sees_the_nodes_address() {
    on_node(|node| {
        let router = attach_to_vpc(node);
        router.ip("addr add 198.51.100.1/32 dev lo");
        router.ip("addr add 10.0.9.9/32 dev lo");
        let pods = two_pods(node);
        let outside = Server::on(&router, "192.0.2.1:0");
        let excluded = Server::on(&router, "198.51.100.1:0");
        let in_vpc = Server::on(&router, "10.0.9.9:0");
        for ports in [SourcePorts::Random, SourcePorts::Hashed, SourcePorts::Kept] {
            let source = SourceNat { ports, ..source("10.0.0.0/16 198.51.100.0/24") };
            synced(node, &Nat { source: Some(source), ..default_nat() });
            for (pod, address) in pods.iter().zip(["10.0.0.20", "10.0.1.20"]) {
                let pod = &pod.namespace;
                let what = format!("{address}, {ports:?}");
                assert_eq!(outside.from(pod).ip().to_string(), "10.0.0.10", "{what}");
                assert_eq!(excluded.from(pod).ip().to_string(), address, "{what}");
                assert_eq!(in_vpc.from(pod).ip().to_string(), address, "{what}");
            }
            // The node's own packets, also those of pods in its namespace, are left alone.
            assert_eq!(outside.from(node).ip().to_string(), "10.0.0.10");
        }
    });
}

/// A pod's own port is seen outside exactly if ports are kept.
#[test]
fn source_ports_are_chosen_as_wanted() {
    on_node(|node| {
        let router = attach_to_vpc(node);
        let [pod, _] = two_pods(node);
        let outside = Server::on(&router, "192.0.2.1:0");
        for (ports, are_kept) in
            [(SourcePorts::Random, false), (SourcePorts::Hashed, false), (SourcePorts::Kept, true)]
        {
            let source = SourceNat { ports, ..source("10.0.0.0/16") };
            synced(node, &Nat { source: Some(source), ..default_nat() });
            let n_kept = (0..4).filter(|_| {
                let (seen, [stream, _]) = outside.connected(&pod.namespace, outside.address());
                seen.port() == stream.local_addr().unwrap().port()
            });
            // A chosen port is the pod's own once in some ten thousand connections.
            assert_eq!(n_kept.count() > 2, are_kept, "{ports:?}");
        }
    });
}

#[test]
fn pod_keeps_its_address_if_something_else_translates() {
    on_node(|node| {
        let router = attach_to_vpc(node);
        let outside = Server::on(&router, "192.0.2.1:0");
        synced(node, &Nat { source: None, ..default_nat() });
        for (pod, address) in two_pods(node).iter().zip(["10.0.0.20", "10.0.1.20"]) {
            assert_eq!(outside.from(&pod.namespace).ip().to_string(), address);
        }
    });
}

/// The ranges decide for new connections only.
#[test]
fn connections_survive_a_range_that_is_added() {
    on_node(|node| {
        let router = attach_to_vpc(node);
        let outside = Server::on(&router, "192.0.2.1:0");
        synced(node, &default_nat());
        let [_, pod] = two_pods(node);
        let (from, mut old) = outside.connected(&pod.namespace, outside.address());
        assert_eq!(from.ip().to_string(), "10.0.0.10");
        let source = source("10.0.0.0/16 192.0.2.0/24");
        synced(node, &Nat { source: Some(source), ..default_nat() });
        assert_passes(&mut old);
        let (from, mut new) = outside.connected(&pod.namespace, outside.address());
        assert_eq!(from.ip().to_string(), "10.0.1.20");
        synced(node, &default_nat());
        assert_passes(&mut old);
        assert_passes(&mut new);
    });
}

/// Rules as kube-proxy writes them, in each of its modes that uses netfilter: the node port 30080 and the Service
/// 172.20.0.10 lead to `pod`. With `masquerade`, node ports get the node's address, as with externalTrafficPolicy Cluster.
pub(crate) fn kube_proxy(node: &Namespace, mode: &str, pod: &str, masquerade: bool) {
    if mode == "nft" {
        nft(node, "add table ip kube-proxy");
        nft(node, "add chain ip kube-proxy services { type nat hook prerouting priority -100; }");
        nft(node, "add chain ip kube-proxy leaving { type nat hook postrouting priority 100; }");
        if masquerade {
            let rule = "fib daddr type local tcp dport 30080 meta mark set meta mark or 0x4000";
            nft(node, &format!("add rule ip kube-proxy services {rule}"));
        }
        for to in ["fib daddr type local tcp dport 30080", "ip daddr 172.20.0.10 tcp dport 80"] {
            nft(node, &format!("add rule ip kube-proxy services {to} dnat to {pod}"));
        }
        nft(node, "add rule ip kube-proxy leaving meta mark & 0x4000 == 0x4000 masquerade");
        return;
    }
    let nat = |rule: &str| node.exec(&format!("{mode} -w -t nat {rule}"));
    if masquerade {
        nat(
            "-A PREROUTING -p tcp -m addrtype --dst-type LOCAL --dport 30080 -j MARK --or-mark 0x4000",
        );
    }
    for to in ["-m addrtype --dst-type LOCAL --dport 30080", "-d 172.20.0.10 --dport 80"] {
        nat(&format!("-A PREROUTING -p tcp {to} -j DNAT --to-destination {pod}"));
    }
    nat("-A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE --random-fully");
}

pub(crate) const MODES: [&str; 3] = ["nft", "iptables-nft", "iptables-legacy"];

/// Whoever starts first. The pod is on the secondary ENI, and its answers must leave by the primary.
#[test]
fn node_port_answers_leave_by_the_primary_eni() {
    for mode in MODES {
        for masquerade in [false, true] {
            for we_are_first in [false, true] {
                on_node(|node| {
                    let router = attach_to_vpc(node);
                    let [_, pod] = two_pods(node);
                    let server = Server::on(&pod.namespace, "10.0.1.20:0");
                    let address = server.address().to_string();
                    if we_are_first {
                        synced(node, &default_nat());
                    }
                    kube_proxy(node, mode, &address, masquerade);
                    synced(node, &default_nat());
                    let client = Namespace::new("client");
                    attach_client(&router, &client);
                    let node_port = "10.0.0.10:30080".parse().unwrap();
                    let (from, _streams) = server.connected(&client, node_port);
                    // With policy Local the pod sees the client.
                    let seen = if masquerade { None } else { Some("192.0.2.77".to_owned()) };
                    let from = from.ip().to_string();
                    let what = format!("{mode}, {masquerade}, {we_are_first}: {from}");
                    assert!(seen.is_none_or(|seen| seen == from), "{what}");
                });
            }
        }
    }
}

/// Otherwise the test above would prove nothing.
#[test]
fn node_port_without_support_reaches_no_secondary_eni() {
    on_node(|node| {
        let router = attach_to_vpc(node);
        let [_, pod] = two_pods(node);
        let server = Server::on(&pod.namespace, "10.0.1.20:0");
        kube_proxy(node, "nft", &server.address().to_string(), false);
        synced(node, &Nat { node_ports: false, ..default_nat() });
        let client = Namespace::new("client");
        attach_client(&router, &client);
        let node_port = "10.0.0.10:30080".parse().unwrap();
        connect(&client, node_port, FUTILE).unwrap_err();
        // Pods' own connections to the outside do not depend on it.
        let outside = Server::on(&router, "192.0.2.1:0");
        assert_eq!(outside.from(&pod.namespace).ip().to_string(), "10.0.0.10");
    });
}

/// A client behind the router, with the address 192.0.2.77.
pub(crate) fn attach_client(router: &Namespace, client: &Namespace) {
    let peer = format!("type veth peer name eth0 netns {}", client.name());
    router.ip(&format!("link add to-client {peer}"));
    router.ip("addr add 192.0.2.76/31 dev to-client");
    router.ip("link set to-client up");
    client.ip("addr add 192.0.2.77/31 dev eth0");
    client.ip("link set eth0 up");
    client.ip("route add default via 192.0.2.76");
}

/// The Service's own address is outside the VPC. Only the pod behind it counts.
#[test]
fn pod_behind_a_service_sees_the_pods_address() {
    for mode in MODES {
        for we_are_first in [false, true] {
            on_node(|node| {
                let _router = attach_to_vpc(node);
                let pods = two_pods(node);
                let service = "172.20.0.10:80".parse().unwrap();
                let server = Server::on(&pods[0].namespace, "10.0.0.20:0");
                if we_are_first {
                    synced(node, &default_nat());
                }
                kube_proxy(node, mode, &server.address().to_string(), false);
                synced(node, &default_nat());
                let (from, _streams) = server.connected(&pods[1].namespace, service);
                assert_eq!(from.ip().to_string(), "10.0.1.20", "{mode}, {we_are_first}");
            });
        }
    }
}

/// As its v1.23.1 writes them with an iptables of either kind, and with its own table.
fn add_incumbents_rules(node: &Namespace, iptables: &str) {
    let add = |rule: &[&str]| {
        let mut command = std::process::Command::new("ip");
        command.args(["netns", "exec", node.name(), iptables, "-w"]).args(rule);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{rule:?}: {output:?}");
    };
    let comment = |text| ["-m", "comment", "--comment", text];
    let nat = |rule: &str, text, jump: &str| {
        let (rule, jump) = (rule.split_whitespace(), jump.split_whitespace());
        let all: Vec<_> = ["-t"].into_iter().chain(rule).chain(comment(text)).chain(jump).collect();
        add(&all);
    };
    add(&["-t", "nat", "-N", "AWS-SNAT-CHAIN-0"]);
    add(&["-t", "nat", "-N", "AWS-CONNMARK-CHAIN-0"]);
    nat("nat -A POSTROUTING", "AWS SNAT CHAIN", "-j AWS-SNAT-CHAIN-0");
    nat("nat -A AWS-SNAT-CHAIN-0 -d 10.0.0.0/16", "AWS SNAT CHAIN", "-j RETURN");
    nat(
        "nat -A AWS-SNAT-CHAIN-0 ! -o vlan+",
        "AWS, SNAT",
        "-m addrtype ! --dst-type LOCAL -j SNAT --to-source 10.0.0.10 --random-fully",
    );
    nat("nat -A PREROUTING -i eni+", "AWS, outbound connections", "-j AWS-CONNMARK-CHAIN-0");
    nat("nat -A PREROUTING", "AWS, CONNMARK", "-j CONNMARK --restore-mark --mask 0x80");
    nat("nat -A AWS-CONNMARK-CHAIN-0 -d 10.0.0.0/16", "AWS CONNMARK CHAIN", "-j RETURN");
    nat("nat -A AWS-CONNMARK-CHAIN-0", "AWS, CONNMARK", "-j CONNMARK --set-xmark 0x80/0x80");
    nat(
        "mangle -A PREROUTING -i ens5",
        "AWS, primary ENI",
        "-m addrtype --dst-type LOCAL --limit-iface-in -j CONNMARK --set-mark 0x80/0x80",
    );
    nat(
        "mangle -A PREROUTING -i eni+",
        "AWS, primary ENI",
        "-j CONNMARK --restore-mark --mask 0x80",
    );
    node.ip("rule add fwmark 0x80/0x80 lookup main priority 1024");
}

#[test]
fn incumbents_rules_go_and_those_of_others_stay() {
    on_node(|node| {
        let router = attach_to_vpc(node);
        let others = |node: &Namespace| {
            kube_proxy(node, "iptables-nft", "10.0.0.99:1", false);
            kube_proxy(node, "nft", "10.0.0.99:1", false);
        };
        others(node);
        let before = nft(node, "list ruleset");
        add_incumbents_rules(node, "iptables-nft");
        nft(node, "add table ip aws-cni");
        nft(node, "add chain ip aws-cni snat-mark");
        nft(node, "add chain ip aws-cni nat-prerouting { type nat hook prerouting priority -90; }");
        nft(node, "add rule ip aws-cni nat-prerouting iifname eni* counter jump snat-mark");
        let report = synced(node, &default_nat());
        assert_eq!((report.n_of_incumbent, report.legacy), (10, false));
        assert_eq!(synced(node, &default_nat()).n_of_incumbent, 0);
        // Its routing rule is as good as ours, and stays.
        assert!(node.ip("rule").contains("1024:\tfrom all fwmark 0x80/0x80 lookup main\n"));
        nft(node, "delete table ip tidepool");
        let chains_without_rules = |text: &str| {
            text.replace("table ip mangle {\n\tchain PREROUTING {\n\t\ttype filter hook prerouting priority mangle; policy accept;\n\t}\n}\n", "")
        };
        assert_eq!(words(&chains_without_rules(&nft(node, "list ruleset"))), words(&before));
        synced(node, &default_nat());
        let outside = Server::on(&router, "192.0.2.1:0");
        let [_, pod] = two_pods(node);
        assert_eq!(outside.from(&pod.namespace).ip().to_string(), "10.0.0.10");
    });
}

/// The commands that status, log and document name.
#[test]
fn incumbents_legacy_rules_go_by_the_commands_that_are_named() {
    let document = include_str!("../../../../docs/migration.md");
    let commands = datapath::nat::LEGACY_REMOVAL;
    assert!(document.contains(&format!("```sh\n{commands}\n```")), "docs/migration.md");
    on_node(|node| {
        let _router = attach_to_vpc(node);
        let shell = |script: &str| {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", node.name(), "sh", "-ec", script]);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{script}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        // Without the time of each table, and the counters.
        let saved = || shell("iptables-legacy-save | sed -e '/^#/d' -e 's/ \\[.*//'");
        kube_proxy(node, "iptables-legacy", "10.0.0.99:1", false);
        shell(
            "iptables-legacy -w -A FORWARD -i docker0 -m comment --comment 'their AWS, rule' -j ACCEPT",
        );
        shell("iptables-legacy -w -t mangle -A PREROUTING -i docker0 -j ACCEPT");
        let before = saved();
        assert!(before.contains("docker0") && before.contains("--dport 30080"), "{before}");
        add_incumbents_rules(node, "iptables-legacy");
        // A chain of older versions, to which the first one leads.
        shell(
            "iptables-legacy -w -t nat -N AWS-SNAT-CHAIN-1; iptables-legacy -w -t nat -A AWS-SNAT-CHAIN-0 -j AWS-SNAT-CHAIN-1",
        );
        assert!(synced(node, &default_nat()).legacy);
        shell(commands);
        assert_eq!(saved(), before);
        assert!(!synced(node, &default_nat()).legacy);
        assert!(node.ip("rule").contains("1024:"), "ours");
    });
}

/// nftables does not see them, so they stay; but the report says so.
#[test]
fn incumbents_legacy_rules_are_noticed() {
    on_node(|node| {
        let _router = attach_to_vpc(node);
        kube_proxy(node, "iptables-legacy", "10.0.0.99:1", false);
        assert!(!synced(node, &default_nat()).legacy, "kube-proxy's own are nobody's business");
        node.ip("rule del priority 1024");
        add_incumbents_rules(node, "iptables-legacy");
        assert!(synced(node, &default_nat()).legacy);
        assert!(synced(node, &default_nat()).legacy);
    });
}

#[test]
fn changes_report_what_others_do_to_the_table() {
    on_node(|node| {
        let _router = attach_to_vpc(node);
        synced(node, &default_nat());
        node.block_on(async {
            let mut changes = datapath::nat::changes().unwrap();
            for damage in [
                "flush ruleset",
                "add table ip tidepool",
                "add chain ip tidepool other",
                "add rule ip tidepool other accept",
                "add table ip aws-cni",
            ] {
                // The change of another's table comes before, and is not reported.
                nft(node, "add table ip kube-proxy");
                nft(node, damage);
                let change = tokio::time::timeout(HANG, changes.next()).await;
                assert_eq!(change.expect(damage), Some(()), "{damage}");
            }
        });
    });
}

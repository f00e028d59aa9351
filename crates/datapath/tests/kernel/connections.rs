//! An address that serves a second pod: tracked connections and neighbour entries of the first one.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::{Namespace, Pod, on_node};
use crate::traffic::{SECONDARY, attach_to_vpc};

const SERVICE: &str = "10.96.0.1:80";
/// When a wait counts as hung. Clients repeat their first attempts within a few seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node that tracks connections, as kube-proxy makes every node do.
fn track_connections(node: &Namespace) {
    node.ip("link set lo up");
    node.ip("addr add 10.0.0.10/32 dev lo");
    node.exec("nft add table inet t");
    node.exec("nft add chain inet t seen { type filter hook output priority 0 ; }");
    node.exec("nft add rule inet t seen ct state new counter");
}

/// The tracked connections from or to `address`.
fn tracked(node: &Namespace, address: &str) -> Vec<String> {
    let table = node.exec("cat /proc/net/nf_conntrack");
    let of_it = table.lines().filter(|line| line.contains(&format!("={address} ")));
    of_it.map(str::to_owned).collect()
}

/// Makes the Service lead to this pod alone, as kube-proxy does.
fn serve_by(node: &Namespace, pod: &str) {
    node.exec("nft flush chain inet t service");
    let rule = "nft add rule inet t service ip daddr 10.96.0.1 tcp dport 80 dnat ip to";
    node.exec(&format!("{rule} {pod}"));
}

fn forget(node: &Namespace, address: &str) -> usize {
    let addresses = BTreeSet::from([address.parse().unwrap()]);
    node.enter(|| datapath::connections::forget(&addresses)).unwrap()
}

/// Answers each connection to port 80 of the pod with `name`.
fn greet(pod: &Pod, name: &'static str) {
    let listener = pod.namespace.enter(|| TcpListener::bind("0.0.0.0:80")).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            stream.unwrap().write_all(name.as_bytes()).unwrap();
        }
    });
}

#[test]
fn forgotten_connection_does_not_reach_the_next_pod() {
    on_node(|node| {
        track_connections(node);
        node.exec("nft add chain inet t service { type nat hook output priority -100 ; }");
        node.ip("link set pad up");
        node.ip("route add 10.96.0.1 dev pad");
        let dead = Pod::added(node, "dead", &["10.0.0.20@main"]);
        // It accepts packets and answers none.
        dead.namespace.ip("rule add to 10.0.0.10 pref 1 blackhole");
        serve_by(node, "10.0.0.20");

        thread::scope(|scope| {
            let client = scope.spawn(|| {
                let service: SocketAddr = SERVICE.parse().unwrap();
                let stream = node.enter(|| TcpStream::connect_timeout(&service, PATIENCE));
                let mut answer = String::new();
                stream.unwrap().read_to_string(&mut answer).unwrap();
                answer
            });
            let until = Instant::now() + PATIENCE;
            while !tracked(node, "10.96.0.1").iter().any(|line| line.contains("SYN_SENT")) {
                assert!(Instant::now() < until, "{:?}", tracked(node, "10.96.0.1"));
            }
            node.block_on(datapath::pod::del(&dead.removal())).unwrap();
            let heir = Pod::added(node, "heir", &["10.0.0.21@main"]);
            greet(&heir, "heir");
            serve_by(node, "10.0.0.21");
            assert_eq!(forget(node, "10.0.0.20"), 1);
            let stranger = Pod::planned("stranger", &["10.0.0.20@main"]);
            greet(&stranger, "stranger");
            stranger.add(node);
            assert_eq!(client.join().unwrap(), "heir");
        });
    });
}

#[test]
fn forget_removes_only_an_addresss_connections() {
    on_node(|node| {
        assert_eq!(forget(node, "10.0.0.20"), 0, "nothing is tracked yet");
        track_connections(node);
        let other = Pod::added(node, "other", &["10.0.0.21@main"]);
        let former = Pod::added(node, "former", &["10.0.0.20@main"]);
        let say = |from: &Namespace, to: &str| {
            let socket = from.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
            socket.send_to(b"hello", to).unwrap();
        };
        // Two to the former pod and one from it.
        for (from, to) in [
            (node, "10.0.0.20:53"),
            (node, "10.0.0.20:54"),
            (&former.namespace, "10.0.0.10:53"),
            (node, "10.0.0.21:53"),
            (&other.namespace, "10.0.0.10:53"),
        ] {
            say(from, to);
        }
        let n_tracked = || ["10.0.0.20", "10.0.0.21"].map(|ip| tracked(node, ip).len());
        assert_eq!(n_tracked(), [3, 2]);
        node.block_on(datapath::pod::del(&former.removal())).unwrap();
        assert_eq!(forget(node, "10.0.0.20"), 3);
        assert_eq!(n_tracked(), [0, 2]);
        assert_eq!(forget(node, "10.0.0.20"), 0);
    });
}

/// Sends three datagrams to `to` from each namespace, with the namespace's name.
fn send_names(from: &[(&'static str, &Namespace)], to: &str) {
    for (name, namespace) in from {
        let socket = namespace.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
        for _ in 0..3 {
            socket.send_to(name.as_bytes(), (to, 53)).unwrap();
        }
    }
}

fn listen(pod: &Pod) -> UdpSocket {
    let socket = pod.namespace.enter(|| UdpSocket::bind("0.0.0.0:53")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Waits until `socket` has received all that [`send_names`] has sent.
fn receive_names(socket: &UdpSocket, from: &[(&'static str, &Namespace)]) {
    let mut expected: Vec<_> = from.iter().flat_map(|(name, _)| [*name; 3]).collect();
    while !expected.is_empty() {
        let mut bytes = [0; 16];
        let n = socket.recv(&mut bytes).unwrap_or_else(|fault| panic!("{fault}: {expected:?}"));
        let sender = expected.iter().position(|name| name.as_bytes() == &bytes[..n]);
        expected.remove(sender.expect("a sender whose three datagrams are not all received"));
    }
}

/// The number of packets that the pod's link has received, of any kind.
fn n_received(pod: &Pod) -> String {
    pod.namespace.exec("cat /sys/class/net/eth0/statistics/rx_packets")
}

/// Removes all of the pod's objects but these: the pod runs on after its address was released.
fn keep(node: &Namespace, left: &str) {
    match left {
        "all" => {}
        "no rules" => {
            node.ip("rule del to 10.0.1.20");
            node.ip("rule del from 10.0.1.20");
        }
        "no route" => drop(node.ip("route del 10.0.1.20")),
        other => unreachable!("{other}"),
    }
}

/// Gives the node and the router neighbour entries for the earlier pod: the hardware addresses of its
/// link, and of the ENI that carried its address.
fn add_neighbours(pod: &Pod, [node, router]: [&Namespace; 2], nud: &str) {
    let mac = pod.namespace.exec("cat /sys/class/net/eth0/address");
    let (mac, link) = (mac.trim(), &pod.link.host_name);
    node.ip(&format!("neigh replace 10.0.1.20 lladdr {mac} dev {link} nud {nud}"));
    router.ip("route replace 10.0.1.20 dev to-ens6");
    router.ip(&format!("neigh replace 10.0.1.20 lladdr {SECONDARY} dev to-ens6 nud {nud}"));
}

/// The address serves again, on the same ENI or on another one.
#[test]
fn stale_neighbour_does_not_reach_the_earlier_pod() {
    for (left, nud, again) in [
        ("all", "permanent", "10.0.1.20@2"),
        ("all", "stale", "10.0.1.20@main"),
        ("no rules", "permanent", "10.0.1.20@main"),
        ("no route", "stale", "10.0.1.20@2"),
    ] {
        on_node(|node| {
            let router = attach_to_vpc(node);
            let beside = Pod::added(node, "beside", &["10.0.0.21@main"]);
            let callers = [("node", node), ("router", &router), ("beside", &beside.namespace)];
            let earlier = Pod::added(node, "earlier", &["10.0.1.20@2"]);
            let socket = listen(&earlier);
            add_neighbours(&earlier, [node, &router], "permanent");
            send_names(&callers, "10.0.1.20");
            receive_names(&socket, &callers);

            add_neighbours(&earlier, [node, &router], nud);
            keep(node, left);
            let heir = Pod::added(node, "heir", &[again]);
            let (socket, before) = (listen(&heir), n_received(&earlier));
            send_names(&callers, "10.0.1.20");
            receive_names(&socket, &callers);
            assert_eq!(n_received(&earlier), before, "{left}, {nud}, {again}: {}", node.dump());
        });
    }
}

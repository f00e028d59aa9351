//! An address that serves again: what the kernel remembers of its former pod.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::{Namespace, Pod, on_node};

const SERVICE: &str = "10.96.0.1:80";
/// Above what a client waits between its first attempts.
const PATIENCE: Duration = Duration::from_secs(30);

/// A node that tracks connections, as kube-proxy makes every node do.
fn track_connections(node: &Namespace) {
    node.ip("link set lo up");
    node.ip("addr add 10.0.0.10/32 dev lo");
    node.exec("nft add table inet t");
    node.exec("nft add chain inet t seen { type filter hook output priority 0 ; }");
    node.exec("nft add rule inet t seen ct state new counter");
}

/// What the kernel remembers of `address`.
fn remembered(node: &Namespace, address: &str) -> Vec<String> {
    let table = node.exec("cat /proc/net/nf_conntrack");
    let of_it = table.lines().filter(|line| line.contains(&format!("={address} ")));
    of_it.map(str::to_owned).collect()
}

/// Connects the Service to a pod, as kube-proxy does, instead of whatever it was connected to.
fn serve_by(node: &Namespace, pod: &str) {
    node.exec("nft flush chain inet t service");
    let rule = "nft add rule inet t service ip daddr 10.96.0.1 tcp dport 80 dnat ip to";
    node.exec(&format!("{rule} {pod}"));
}

fn forget(node: &Namespace, address: &str) -> usize {
    let addresses = BTreeSet::from([address.parse().unwrap()]);
    node.enter(|| datapath::connections::forget(&addresses)).unwrap()
}

/// Answers whoever connects to port 80 in `namespace` with its pod's name.
fn greet(pod: &Pod, name: &'static str) {
    let listener = pod.namespace.enter(|| TcpListener::bind("0.0.0.0:80")).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            stream.unwrap().write_all(name.as_bytes()).unwrap();
        }
    });
}

#[test]
fn a_forgotten_connection_does_not_lead_to_the_next_pod_of_an_address() {
    on_node(|node| {
        track_connections(node);
        node.exec("nft add chain inet t service { type nat hook output priority -100 ; }");
        node.ip("link set pad up");
        node.ip("route add 10.96.0.1 dev pad");
        let dead = Pod::added(node, "dead", &["10.0.0.20@main"]);
        // It has hung itself up: it takes what comes and answers nothing.
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
            while !remembered(node, "10.96.0.1").iter().any(|line| line.contains("SYN_SENT")) {
                assert!(Instant::now() < until, "{:?}", remembered(node, "10.96.0.1"));
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
fn the_connections_of_an_address_are_forgotten_and_no_others() {
    on_node(|node| {
        assert_eq!(forget(node, "10.0.0.20"), 0, "nothing is tracked yet");
        track_connections(node);
        let other = Pod::added(node, "other", &["10.0.0.21@main"]);
        let former = Pod::added(node, "former", &["10.0.0.20@main"]);
        let say = |from: &Namespace, to: &str| {
            let socket = from.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
            socket.send_to(b"hello", to).unwrap();
        };
        // To it twice, and from it.
        for (from, to) in [
            (node, "10.0.0.20:53"),
            (node, "10.0.0.20:54"),
            (&former.namespace, "10.0.0.10:53"),
            (node, "10.0.0.21:53"),
            (&other.namespace, "10.0.0.10:53"),
        ] {
            say(from, to);
        }
        let n_remembered = || ["10.0.0.20", "10.0.0.21"].map(|ip| remembered(node, ip).len());
        assert_eq!(n_remembered(), [3, 2]);
        node.block_on(datapath::pod::del(&former.removal())).unwrap();
        assert_eq!(forget(node, "10.0.0.20"), 3);
        assert_eq!(n_remembered(), [0, 2]);
        assert_eq!(forget(node, "10.0.0.20"), 0);
    });
}

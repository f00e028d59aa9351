//! Packets pass where they should and nowhere else.

use datapath::host::{EniStatus, Families, HostEni, HostPicture};
use datapath::nat::{Egress, NatPicture};
use datapath::pod::{Goes, PodLink, PodRemoval, Rank};
use datapath::{Mtu, RouteTable};

use crate::lab::{Namespace, Pod, add, address, on_node};

use crate::host::PRIMARY;
pub(crate) const SECONDARY: &str = "02:00:00:00:00:11";

/// A node with two ENIs in a VPC. The router drops packets from the wrong ENI, as a VPC does. The
/// address 192.0.2.1 is behind the router.
pub(crate) fn attach_to_vpc(node: &Namespace) -> Namespace {
    attach_as(["ens5", "ens6"], node)
}

/// As [`attach_to_vpc`], with these names for the ENIs' devices.
fn attach_as([primary, secondary]: [&str; 2], node: &Namespace) -> Namespace {
    let router = Namespace::new("router");
    for (device, mac, subnet) in [(primary, PRIMARY, "10.0.0"), (secondary, SECONDARY, "10.0.1")] {
        let peer = format!("peer name to-{device} netns {}", router.name());
        node.ip(&format!("link add {device} address {mac} type veth {peer}"));
        router.ip(&format!("addr add {subnet}.1/24 dev to-{device}"));
        router.ip(&format!("link set to-{device} mtu 9001 up"));
        router.set_sysctl(&format!("net/ipv4/conf/to-{device}/rp_filter"), "1");
    }
    router.set_sysctl("net/ipv4/ip_forward", "1");
    router.ip("link set lo up");
    router.ip("addr add 192.0.2.1/32 dev lo");
    for pod in 20..24 {
        router.ip(&format!("route add 10.0.0.{pod} via 10.0.0.10 dev to-{primary} onlink"));
        router.ip(&format!("route add 10.0.1.{pod} via 10.0.1.10 dev to-{secondary} onlink"));
    }
    node.ip("link set lo up");
    node.ip(&format!("addr add 10.0.0.10/24 dev {primary}"));
    node.ip(&format!("link set {primary} up"));
    node.ip("route add default via 10.0.0.1");
    set_up_enis(node);
    router
}

fn set_up_enis(node: &Namespace) {
    let wanted = picture();
    let report = node.block_on(datapath::host::sync(&wanted)).unwrap();
    report.node.unwrap();
    let mac = wanted.enis[0].mac;
    assert!(matches!(report.enis[&mac], EniStatus::Ready(_)), "{:?}", report.enis);
}

/// The host network of a node that [`attach_to_vpc`] has attached.
pub(crate) fn picture() -> HostPicture {
    let secondary = HostEni {
        mac: SECONDARY.parse().unwrap(),
        table: RouteTable::of(0, 1),
        primary_address: "10.0.1.10".parse().unwrap(),
        subnet: "10.0.1.0/24".parse().unwrap(),
        gateway: "10.0.1.1".parse().unwrap(),
    };
    HostPicture {
        primary_mac: PRIMARY.parse().unwrap(),
        mtu: Mtu::JUMBO,
        families: Families::Ipv4,
        nat: NatPicture::Unknown,
        egress: Egress::default(),
        enis: vec![secondary],
    }
}

#[test]
fn pod_packets_leave_by_their_eni() {
    on_node(|node| {
        let _router = attach_to_vpc(node);
        let on_primary = Pod::added(node, "a", &["10.0.0.20@main"]);
        let on_secondary = Pod::added(node, "b", &["10.0.1.20@2"]);
        assert!(on_primary.namespace.reaches("192.0.2.1"), "{}", node.dump());
        assert!(on_secondary.namespace.reaches("192.0.2.1"), "{}", node.dump());
        // The router must drop packets from the wrong ENI, or the assertions above prove nothing.
        let astray = Pod::added(node, "c", &["10.0.1.21@main"]);
        assert!(astray.namespace.misses("192.0.2.1"), "{}", node.dump());
    });
}

#[test]
fn pods_and_node_reach_each_other() {
    on_node(|node| {
        let router = attach_to_vpc(node);
        let a = Pod::added(node, "a", &["10.0.0.20@main"]);
        let b = Pod::added(node, "b", &["10.0.1.20@2"]);
        for (from, to) in [
            (&a.namespace, "10.0.1.20"),
            (&b.namespace, "10.0.0.20"),
            (node, "10.0.0.20"),
            (node, "10.0.1.20"),
            (&a.namespace, "10.0.0.10"),
            (&b.namespace, "10.0.0.10"),
            (&router, "10.0.0.20"),
            (&router, "10.0.1.20"),
        ] {
            assert!(from.reaches(to), "{} to {to}", from.name());
        }
        // Jumbo frames pass too.
        assert!(a.namespace.reaches("-M do -s 8973 10.0.1.20"));
    });
}

/// Images differ in the names of devices and in the reverse path filter. The router verifies the source
/// of packets, as a VPC does.
#[test]
fn pods_are_reached_with_any_device_name_and_rp_filter() {
    for devices in [["eth0", "eth1"], ["ens5", "ens6"], ["enX0", "enX1"]] {
        for rp_filter in ["0", "1", "2"] {
            on_node(|node| {
                for of in ["all", "default"] {
                    node.set_sysctl(&format!("net/ipv4/conf/{of}/rp_filter"), rp_filter);
                }
                let router = attach_as(devices, node);
                let what = format!("{devices:?}, rp_filter {rp_filter}");
                let a = Pod::added(node, "a", &["10.0.0.20@main"]);
                let b = Pod::added(node, "b", &["10.0.1.20@2"]);
                for (from, to) in [
                    (&a.namespace, "192.0.2.1"),
                    (&b.namespace, "192.0.2.1"),
                    (&a.namespace, "10.0.1.20"),
                    (node, "10.0.1.20"),
                    (&router, "10.0.0.20"),
                    (&router, "10.0.1.20"),
                ] {
                    let dump = || format!("{}\n{}", node.dump(), router.dump());
                    assert!(from.reaches(to), "{what}: {} to {to}\n{}", from.name(), dump());
                }
                let kept = node.sysctl(&format!("net/ipv4/conf/{}/rp_filter", devices[0]));
                assert_eq!(kept, if rp_filter == "1" { "2" } else { rp_filter }, "{what}");
            });
        }
    }
}

/// In fresh namespaces both ends get the same index. Then the kernel reports their carrier a second
/// late, and nothing may wait for it or count it as a fault.
#[test]
fn ends_of_equal_index_work_at_once() {
    on_node(|node| {
        node.ip("link set lo up");
        node.ip("addr add 10.0.0.10/32 dev lo");
        let pod = Pod::planned("a", &["10.0.0.20@main"]);
        pod.namespace.ip("link add pad type veth peer name pad-peer");
        let state = pod.add(node);
        let index = |text: String| text.split(':').next().unwrap().to_owned();
        let host = index(node.ip(&format!("link show {}", pod.link.host_name)));
        assert_eq!(host, index(pod.namespace.ip("link show eth0")));
        node.block_on(datapath::pod::check(&pod.expectation(&state))).unwrap();
        assert!(node.pings("10.0.0.20"));
    });
}

/// Neither side waits for duplicate address detection.
#[test]
fn ipv6_is_usable_when_add_returns() {
    on_node(|_| {
        let node = Namespace::with_ipv6("node");
        node.ip("link add pad type veth peer name pad-peer");
        node.ip("link set lo up");
        node.ip("addr add fd00::10/128 dev lo");
        node.ip("addr add 10.0.0.10/32 dev lo");
        node.set_sysctl("net/ipv6/conf/all/forwarding", "1");
        let rules = (node.ip("rule"), node.ip("-6 rule"));
        let pod = Pod::planned("a", &["10.0.0.20@main", "fd00::20@main"]);
        let other = Pod::planned("b", &["fd00::21@3"]);
        let state = pod.add(&node);
        let known = format!("dev {} lladdr {}", pod.link.host_name, state.pod.mac);
        assert!(
            node.ip("neigh show fd00::20").contains(&known),
            "the node knows the pod's hardware address"
        );
        assert!(node.pings("fd00::20"), "{}", node.dump());
        other.add(&node);
        assert!(pod.namespace.pings("fd00::21"), "{}", pod.namespace.dump());
        assert!(pod.namespace.pings("fd00::10"));
        assert!(node.pings("10.0.0.20"));
        node.block_on(datapath::pod::check(&pod.expectation(&state))).unwrap();
        assert_eq!(
            node.ip("-6 rule"),
            "0:\tfrom all lookup local\n\
             512:\tfrom all to fd00::20 lookup main\n\
             512:\tfrom all to fd00::21 lookup main\n\
             1536:\tfrom fd00::21 lookup 3\n\
             32766:\tfrom all lookup main\n"
        );
        for pod in [&pod, &other] {
            node.block_on(datapath::pod::del(&pod.removal())).unwrap();
        }
        assert_eq!((node.ip("rule"), node.ip("-6 rule")), rules);
    });
}

/// Each interface's packets leave by that one, in both families, whoever has the default route.
#[test]
fn second_interface_of_a_pod_is_reached() {
    on_node(|_| {
        let node = Namespace::with_ipv6("node");
        node.ip("link add pad type veth peer name pad-peer");
        node.ip("link set lo up");
        node.ip("addr add 10.0.0.10/32 dev lo");
        node.ip("addr add fd00::10/128 dev lo");
        node.set_sysctl("net/ipv6/conf/all/forwarding", "1");
        let first =
            Pod::planned_in(Namespace::with_ipv6("pod"), "a", &["10.0.0.20@main", "fd00::20@main"]);
        first.add(&node);
        let link = further(&first, "a", &["10.0.0.21@main", "fd00::21@main"]);
        let before = (node.dump(), first.namespace.dump());
        node.block_on(add(&link)).unwrap();
        for address in ["10.0.0.20", "10.0.0.21", "fd00::20", "fd00::21"] {
            assert!(node.pings(address), "{address}\n{}", first.namespace.dump());
        }
        for (from, to, device) in [
            ("10.0.0.20", "192.0.2.1", "eth0"),
            ("10.0.0.21", "192.0.2.1", "net1"),
            ("fd00::20", "fd01::1", "eth0"),
            ("fd00::21", "fd01::1", "net1"),
        ] {
            let way = first.namespace.ip(&format!("route get {to} from {from}"));
            assert!(way.contains(&format!("dev {device} ")), "{way}");
        }
        let removal = PodRemoval {
            host_name: link.host_name,
            owner: link.owner,
            addresses: link.addresses.iter().map(|pod| pod.address).collect(),
            netns: Some(link.netns),
            goes: Goes::Now,
        };
        node.block_on(datapath::pod::del(&removal)).unwrap();
        assert_eq!((node.dump(), first.namespace.dump()), before);
    });
}

fn further(first: &Pod, name: &str, addresses: &[&str]) -> PodLink {
    PodLink {
        ifname: "net1".parse().unwrap(),
        rank: Rank::Further,
        host_name: datapath::host_veth_name("eni", "default", name, "", Some("net1")).unwrap(),
        owner: format!("{}/net1", first.namespace.name()).parse().unwrap(),
        addresses: addresses.iter().map(|text| address(text)).collect(),
        ..first.link.clone()
    }
}

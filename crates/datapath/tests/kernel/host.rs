//! `host::sync`: the node's part of the picture, what the parts have in common, and the kernel's
//! notifications of links.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::{Duration, Instant};

use datapath::host::{EniStatus, Families, HostPicture, HostReport, NodeFault, sync};
use datapath::links::{LinkChange, changes};
use datapath::nat::{Egress, NatPicture};
use datapath::{Applied, RouteTable};
use futures::StreamExt as _;
use rustix::net::{self, AddressFamily, SendFlags, SocketType};

use crate::eni;
use crate::lab::{Namespace, error_chain, on_node};

/// When a wait counts as hung.
const HANG: Duration = Duration::from_secs(60);

pub(crate) const PRIMARY: &str = "02:00:00:00:00:10";

/// A node without secondary ENIs.
pub(crate) fn picture() -> HostPicture {
    HostPicture {
        primary_mac: PRIMARY.parse().unwrap(),
        mtu: 9001.try_into().unwrap(),
        families: Families::Ipv4,
        nat: NatPicture::Unknown,
        egress: Egress::default(),
        enis: Vec::new(),
    }
}

pub(crate) fn attach_primary(node: &Namespace) {
    node.ip(&format!("link add ens5 address {PRIMARY} mtu 1500 type veth peer name fabric5"));
}

pub(crate) fn synced(node: &Namespace, wanted: &HostPicture) -> HostReport {
    node.block_on(sync(wanted)).unwrap()
}

fn node_synced(node: &Namespace, wanted: &HostPicture) -> Applied {
    synced(node, wanted).node.unwrap()
}

#[test]
fn node_sync_repeated_changes_nothing() {
    on_node(|node| {
        attach_primary(node);
        node.set_sysctl("net/ipv4/conf/ens5/rp_filter", "1");
        node.set_sysctl("net/ipv4/ip_forward", "0");
        assert_eq!(node_synced(node, &picture()), Applied::Updated);
        assert_eq!(node.sysctl("net/ipv4/conf/ens5/rp_filter"), "2");
        assert_eq!(node.sysctl("net/ipv4/ip_forward"), "1");
        assert!(node.ip("link show ens5").contains("mtu 9001 "));
        let before = node.dump();
        assert_eq!(node_synced(node, &picture()), Applied::Unchanged);
        assert_eq!(node.dump(), before);
        assert_eq!(node.sysctl("net/ipv6/conf/ens5/disable_ipv6"), "1", "IPv6 is not wanted");
    });
}

/// The kernel uses the greater of the link's value and that of all links.
#[test]
fn reverse_path_filter_is_changed_only_if_strict() {
    let check = |all: &str, own: &str, expect: &str| {
        on_node(|node| {
            attach_primary(node);
            node.set_sysctl("net/ipv4/conf/all/rp_filter", all);
            node.set_sysctl("net/ipv4/conf/ens5/rp_filter", own);
            node_synced(node, &picture());
            assert_eq!(node.sysctl("net/ipv4/conf/ens5/rp_filter"), expect, "all {all}, own {own}");
        });
    };
    check("0", "0", "0");
    check("0", "1", "2");
    check("1", "0", "2");
    check("2", "1", "1");
    check("1", "2", "2");
}

/// Each of these alone, and all of them together, would cut the pods off.
#[test]
fn node_sync_with_ipv6_heals_each_sysctl() {
    let expected = [
        ("net/ipv6/conf/all/disable_ipv6", "0", "1"),
        ("net/ipv6/conf/default/disable_ipv6", "0", "1"),
        ("net/ipv6/conf/ens5/disable_ipv6", "0", "1"),
        ("net/ipv6/conf/ens5/accept_ra", "2", "1"),
        ("net/ipv6/conf/all/forwarding", "1", "0"),
    ];
    let wanted = HostPicture { families: Families::Ipv6, ..picture() };
    on_node(|node| {
        attach_primary(node);
        assert_eq!(node_synced(node, &wanted), Applied::Updated);
        for (key, _, bad) in expected {
            node.set_sysctl(key, bad);
            assert_eq!(node_synced(node, &wanted), Applied::Updated, "{key}");
            for (key, value, _) in expected {
                assert_eq!(node.sysctl(key), value, "{key}");
            }
            assert_eq!(node_synced(node, &wanted), Applied::Unchanged, "{key}");
        }
    });
}

/// A macvlan takes no greater MTU than the link below it.
#[test]
fn node_sync_with_refused_mtu_still_sets_the_sysctls() {
    on_node(|node| {
        node.ip(&format!("link add link pad ens5 address {PRIMARY} type macvlan"));
        node.set_sysctl("net/ipv4/conf/ens5/rp_filter", "1");
        node.set_sysctl("net/ipv4/ip_forward", "0");
        let error = synced(node, &picture()).node.unwrap_err();
        let text = error_chain(&error);
        assert_eq!(text, "set the MTU of ens5 to 9001: Invalid argument (os error 22)");
        assert_eq!(node.sysctl("net/ipv4/conf/ens5/rp_filter"), "2");
        assert_eq!(node.sysctl("net/ipv4/ip_forward"), "1");
    });
}

/// Without its default route the node would wait minutes for the next router advertisement.
#[test]
fn node_sync_keeps_an_advertised_default_route() {
    on_node(|_| {
        let (node, router) = (Namespace::with_ipv6("node"), Namespace::with_ipv6("router"));
        let peer = format!("type veth peer name fabric netns {}", router.name());
        node.ip(&format!("link add ens5 address {PRIMARY} {peer}"));
        router.ip("link set fabric up");
        node.ip("link set ens5 up");
        let routes = || node.ip("-6 route show default");
        let deadline = Instant::now() + HANG;
        while routes().is_empty() {
            assert!(Instant::now() < deadline, "no advertisement was accepted: {}", node.dump());
            router.block_on(async {
                // It fails until the router has a link-local address.
                let _ = advertise("fabric");
                tokio::time::sleep(Duration::from_millis(20)).await;
            });
        }
        let before = routes();
        node_synced(&node, &HostPicture { families: Families::Ipv6, ..picture() });
        let via = |routes: &str| routes.split(" proto").next().unwrap().to_owned();
        assert_eq!(via(&routes()), via(&before));
    });
}

/// Sends a router advertisement out of `device` to all nodes: the sender is a default router for
/// the next half hour. Source: RFC 4861, section 4.2. The kernel adds the checksum.
fn advertise(device: &str) -> rustix::io::Result<usize> {
    let message = [134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    let socket = net::socket(AddressFamily::INET6, SocketType::RAW, Some(net::ipproto::ICMPV6))?;
    net::sockopt::set_ipv6_multicast_hops(&socket, 255)?;
    let scope = net::netdevice::name_to_index(&socket, device)?;
    let all_nodes = SocketAddrV6::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), 0, 0, scope);
    net::sendto(&socket, &message, SendFlags::empty(), &all_nodes)
}

#[test]
fn sync_without_primary_still_sets_up_the_enis() {
    on_node(|node| {
        eni::attach(node);
        node.set_sysctl("net/ipv4/ip_forward", "0");
        let report = synced(node, &HostPicture { enis: vec![eni::eni()], ..picture() });
        let error = report.node.unwrap_err();
        assert!(matches!(error.faults[..], [NodeFault::NoPrimary { .. }]), "{error}");
        assert_eq!(error_chain(&error), format!("no link has hardware address {PRIMARY}"));
        assert!(matches!(report.enis[&eni::eni().mac], EniStatus::Ready(Applied::Added)));
        eni::assert_in_place(node, "without a primary ENI");
        assert_eq!(node.sysctl("net/ipv4/ip_forward"), "1");
    });
}

/// One ENI's table is wrong, one has no device, and the kernel refuses the MTU of one: a macvlan takes
/// no greater MTU than the link below it.
#[test]
fn sync_with_failing_enis_sets_up_the_others() {
    on_node(|node| {
        attach_primary(node);
        eni::attach(node);
        node.ip("link add link pad ens7 address 02:00:00:00:00:12 type macvlan");
        node.ip("link add ens8 address 02:00:00:00:00:13 type veth peer name fabric8");
        let other = |n: u8, table: RouteTable| datapath::host::HostEni {
            mac: format!("02:00:00:00:00:{n}").parse().unwrap(),
            table,
            primary_address: "10.0.3.10".parse().unwrap(),
            subnet: "10.0.3.0/24".parse().unwrap(),
            gateway: "10.0.3.1".parse().unwrap(),
        };
        let refused = other(12, RouteTable::of(0, 2));
        let in_main = other(13, RouteTable::MAIN);
        let absent = other(14, RouteTable::of(0, 4));
        let enis = vec![refused, in_main, absent, eni::eni()];
        let report = synced(node, &HostPicture { enis, ..picture() });
        assert_eq!(report.node.unwrap(), Applied::Updated);
        let failure = |mac| match &report.enis[&mac] {
            EniStatus::Failed(error) => error_chain(error),
            status => panic!("{status:?}"),
        };
        let text = failure(refused.mac);
        assert!(text.starts_with("set mtu 9001 on ens7: "), "{text}");
        let text = failure(in_main.mac);
        assert_eq!(text, "02:00:00:00:00:13 cannot be a secondary ENI with the main table");
        assert!(matches!(report.enis[&absent.mac], EniStatus::Absent));
        assert!(matches!(report.enis[&eni::eni().mac], EniStatus::Ready(Applied::Added)));
        assert!(node.ip("route show table 2").contains("default via 10.0.2.1 dev ens6"));
    });
}

/// A node whose default route leads out of ens5 with metric 512, and what `sync` makes of the first default route.
fn default_route_synced(other: &str, check: impl FnOnce(&Namespace, &HostReport)) {
    on_node(|node| {
        attach_primary(node);
        eni::attach(node);
        let wanted = HostPicture { enis: vec![eni::eni()], ..picture() };
        synced(node, &wanted);
        node.ip("link set ens5 up");
        node.ip("link set pad up");
        node.ip("route add default dev ens5 metric 512");
        node.ip(&format!("route add default {other}"));
        let report = synced(node, &wanted);
        check(node, &report);
        assert!(node.ip("route show default").contains("dev ens5"), "{}", node.dump());
    });
}

#[test]
fn preferred_default_route_over_another_eni_is_removed() {
    default_route_synced("dev ens6 metric 100", |node, report| {
        assert_eq!(*report.default_route.as_ref().unwrap(), Applied::Updated);
        assert!(!node.ip("route show default").contains("ens6"));
    });
}

#[test]
fn preferred_default_route_over_another_device_is_named() {
    default_route_synced("dev pad metric 100", |node, report| {
        let error = report.default_route.as_ref().unwrap_err();
        let text = error_chain(error);
        assert!(
            text.starts_with("the main table's default table main dev pad with metric 100"),
            "{text}"
        );
        assert!(node.ip("route show default").contains("dev pad"), "it is not ours");
    });
}

#[test]
fn default_route_of_greater_metric_stays() {
    default_route_synced("dev ens6 metric 1024", |node, report| {
        assert_eq!(*report.default_route.as_ref().unwrap(), Applied::Unchanged);
        assert!(node.ip("route show default").contains("ens6"));
    });
}

#[test]
fn whole_host_sync_repeated_changes_nothing() {
    on_node(|node| {
        attach_primary(node);
        eni::attach(node);
        let wanted = HostPicture { enis: vec![eni::eni()], ..picture() };
        synced(node, &wanted);
        let before = node.dump();
        let report = synced(node, &wanted);
        assert_eq!(report.node.unwrap(), Applied::Unchanged);
        assert!(matches!(report.enis[&eni::eni().mac], EniStatus::Ready(Applied::Unchanged)));
        assert_eq!(report.former.unwrap(), datapath::host::FormerEnis::default());
        assert_eq!(node.dump(), before);
    });
}

#[test]
fn link_changes_report_appearance_and_removal() {
    on_node(|node| {
        node.block_on(async {
            let mut notifications = changes().unwrap();
            attach_primary(node);
            let appeared = |change: &LinkChange| {
                let mac = PRIMARY.parse().unwrap();
                *change == LinkChange::Present { name: "ens5".to_owned(), mac, up: false }
            };
            wait_for(&mut notifications, appeared).await;
            node.ip("link set ens5 up");
            let up = |change: &LinkChange| matches!(change, LinkChange::Present { up: true, .. });
            wait_for(&mut notifications, up).await;
            node.ip("link del ens5");
            let gone = |change: &LinkChange| {
                matches!(change, LinkChange::Gone { name, .. } if name == "ens5")
            };
            wait_for(&mut notifications, gone).await;
        });
    });
}

async fn wait_for(
    notifications: &mut (impl futures::Stream<Item = LinkChange> + Unpin),
    wanted: impl Fn(&LinkChange) -> bool,
) {
    let mut others = Vec::new();
    let found = tokio::time::timeout(HANG, async {
        while let Some(change) = notifications.next().await {
            if wanted(&change) {
                return true;
            }
            others.push(change);
        }
        false
    });
    assert_eq!(found.await, Ok(true), "only {others:?}");
}

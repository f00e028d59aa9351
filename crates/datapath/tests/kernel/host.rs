//! `host::setup`, and the news of links.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::{Duration, Instant};

use datapath::Change;
use datapath::host::{HostConfig, setup};
use datapath::links::{LinkChange, changes};
use futures::StreamExt as _;
use rustix::net::{self, AddressFamily, SendFlags, SocketType};

use crate::lab::{Namespace, chain, on_node};

const MAC: &str = "02:00:00:00:00:10";

fn config() -> HostConfig {
    HostConfig { primary_mac: MAC.parse().unwrap(), mtu: 9001.try_into().unwrap(), ipv6: false }
}

fn attach_primary(node: &Namespace) {
    node.ip(&format!("link add ens5 address {MAC} mtu 1500 type veth peer name fabric"));
}

#[test]
fn setup_is_done_once() {
    on_node(|node| {
        attach_primary(node);
        node.set_sysctl("net/ipv4/conf/ens5/rp_filter", "1");
        node.set_sysctl("net/ipv4/ip_forward", "0");
        assert_eq!(node.block_on(setup(&config())).unwrap(), Change::Updated);
        assert_eq!(node.sysctl("net/ipv4/conf/ens5/rp_filter"), "2");
        assert_eq!(node.sysctl("net/ipv4/ip_forward"), "1");
        assert!(node.ip("link show ens5").contains("mtu 9001 "));
        let before = node.dump();
        assert_eq!(node.block_on(setup(&config())).unwrap(), Change::Unchanged);
        assert_eq!(node.dump(), before);
        assert_eq!(node.sysctl("net/ipv6/conf/ens5/disable_ipv6"), "1", "none of its business");
    });
}

/// Each of these alone, and all of them together, would cut the pods off.
#[test]
fn pods_on_ipv6_need_more() {
    let wanted = [
        ("net/ipv6/conf/all/disable_ipv6", "0", "1"),
        ("net/ipv6/conf/default/disable_ipv6", "0", "1"),
        ("net/ipv6/conf/ens5/disable_ipv6", "0", "1"),
        ("net/ipv6/conf/ens5/accept_ra", "2", "1"),
        ("net/ipv6/conf/all/forwarding", "1", "0"),
    ];
    let config = HostConfig { ipv6: true, ..config() };
    on_node(|node| {
        attach_primary(node);
        assert_eq!(node.block_on(setup(&config)).unwrap(), Change::Updated);
        for (key, _, bad) in wanted {
            node.set_sysctl(key, bad);
            assert_eq!(node.block_on(setup(&config)).unwrap(), Change::Updated, "{key}");
            for (key, value, _) in wanted {
                assert_eq!(node.sysctl(key), value, "{key}");
            }
            assert_eq!(node.block_on(setup(&config)).unwrap(), Change::Unchanged, "{key}");
        }
    });
}

/// Without its default route the node would wait for the router's next word, for minutes.
#[test]
fn a_default_route_that_the_router_has_advertised_stays() {
    on_node(|_| {
        let (node, router) = (Namespace::with_ipv6("node"), Namespace::with_ipv6("router"));
        let peer = format!("type veth peer name fabric netns {}", router.name());
        node.ip(&format!("link add ens5 address {MAC} {peer}"));
        router.ip("link set fabric up");
        node.ip("link set ens5 up");
        let routes = || node.ip("-6 route show default");
        let deadline = Instant::now() + Duration::from_secs(10);
        while routes().is_empty() {
            assert!(Instant::now() < deadline, "the node does not listen: {}", node.dump());
            router.block_on(async {
                // Not until it has a link-local address.
                let _ = advertise("fabric");
                tokio::time::sleep(Duration::from_millis(20)).await;
            });
        }
        let before = routes();
        node.block_on(setup(&HostConfig { ipv6: true, ..config() })).unwrap();
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
fn a_node_without_its_primary_eni_is_an_error() {
    on_node(|node| {
        let error = node.block_on(setup(&config())).unwrap_err();
        assert_eq!(chain(&error), format!("no link has hardware address {MAC}"));
    });
}

#[test]
fn news_of_links_come_and_go() {
    on_node(|node| {
        node.block_on(async {
            let mut news = changes().unwrap();
            attach_primary(node);
            let came = |news: &LinkChange| {
                let mac = MAC.parse().unwrap();
                *news == LinkChange::Present { name: "ens5".to_owned(), mac, up: false }
            };
            wait_for(&mut news, came).await;
            node.ip("link set ens5 up");
            wait_for(&mut news, |news| matches!(news, LinkChange::Present { up: true, .. })).await;
            node.ip("link del ens5");
            let gone =
                |news: &LinkChange| matches!(news, LinkChange::Gone { name, .. } if name == "ens5");
            wait_for(&mut news, gone).await;
        });
    });
}

async fn wait_for(
    news: &mut (impl futures::Stream<Item = LinkChange> + Unpin),
    wanted: impl Fn(&LinkChange) -> bool,
) {
    let mut seen = Vec::new();
    let found = tokio::time::timeout(Duration::from_secs(10), async {
        while let Some(change) = news.next().await {
            if wanted(&change) {
                return true;
            }
            seen.push(change);
        }
        false
    });
    assert_eq!(found.await, Ok(true), "only {seen:?}");
}

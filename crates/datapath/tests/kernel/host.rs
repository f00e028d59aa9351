//! `host::setup`, and the news of links.

use std::time::Duration;

use datapath::Change;
use datapath::host::{HostConfig, setup};
use datapath::links::{LinkChange, changes};
use futures::StreamExt as _;

use crate::lab::{Namespace, chain, on_node};

const MAC: &str = "02:00:00:00:00:10";

fn config() -> HostConfig {
    HostConfig { primary_mac: MAC.parse().unwrap(), mtu: 9001.try_into().unwrap() }
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
    });
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

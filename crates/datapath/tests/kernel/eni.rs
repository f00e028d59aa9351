//! `eni::sync` and `eni::forget`.

use datapath::eni::{EniLink, EniSyncError, forget, sync};
use datapath::{Change, Removal, RouteTable};

use crate::lab::{Namespace, on_node};

const MAC: &str = "02:00:00:00:00:11";

fn eni() -> EniLink {
    EniLink {
        mac: MAC.parse().unwrap(),
        primary_address: "10.0.2.10".parse().unwrap(),
        subnet: "10.0.2.0/24".parse().unwrap(),
        gateway: "10.0.2.1".parse().unwrap(),
        table: RouteTable::of(0, 1),
        mtu: 9001.try_into().unwrap(),
    }
}

/// As the kernel has a device that was just attached.
fn attach(node: &Namespace) {
    node.ip(&format!("link add ens6 address {MAC} mtu 1500 type veth peer name fabric"));
    node.ip("link set fabric up");
}

fn assert_in_place(node: &Namespace, why: &str) {
    assert_eq!(
        node.ip("rule"),
        "0:\tfrom all lookup local\n\
         32765:\tfrom 10.0.2.10 lookup 2\n\
         32766:\tfrom all lookup main\n\
         32767:\tfrom all lookup default\n",
        "{why}"
    );
    assert_eq!(
        node.ip("route show table 2").replace(" linkdown", ""),
        "default via 10.0.2.1 dev ens6\n10.0.2.1 dev ens6 scope link\n",
        "{why}"
    );
    assert_eq!(node.ip("route"), "", "{why}");
    let link = node.ip("addr show dev ens6");
    assert!(link.contains(",UP") && link.contains("mtu 9001 "), "{why}: {link}");
    let addresses: Vec<&str> = link.lines().filter(|line| line.contains(" inet ")).collect();
    assert!(
        matches!(addresses[..], [own] if own.contains("inet 10.0.2.10/24 scope global")),
        "{why}: {link}"
    );
}

#[test]
fn a_new_eni_is_added_once() {
    on_node(|node| {
        attach(node);
        assert_eq!(node.block_on(sync(&eni())).unwrap(), Change::Added);
        assert_in_place(node, "new");
        // The route to the subnet was not even there for a moment.
        assert!(node.ip("addr show dev ens6").contains("10.0.2.10/24 scope global noprefixroute"));
        let before = node.dump();
        assert_eq!(node.block_on(sync(&eni())).unwrap(), Change::Unchanged);
        assert_eq!(node.dump(), before);
    });
}

/// Whatever is done to an ENI's side of the kernel, the next sync puts it right.
#[test]
fn every_drift_is_repaired() {
    on_node(|node| {
        attach(node);
        node.block_on(sync(&eni())).unwrap();
        for drift in [
            "link set ens6 mtu 1500",
            "link set ens6 down",
            "addr flush dev ens6",
            "addr add 10.0.2.20/24 dev ens6",
            "addr add 10.0.9.20/24 dev ens6",
            "route add 10.0.2.0/24 dev ens6",
            "route del default table 2",
            "route flush table 2",
            "route replace default dev ens6 table 2",
            "route add default dev fabric metric 5 table 2",
            "rule del priority 32765",
            "rule add from 10.0.2.10 lookup 7 priority 32765",
        ] {
            node.ip(drift);
            assert_eq!(node.block_on(sync(&eni())).unwrap(), Change::Updated, "{drift}");
            assert_in_place(node, drift);
        }
    });
}

/// cloud-init or systemd-networkd may have configured the device first.
#[test]
fn a_device_that_the_image_configured_is_taken_over() {
    on_node(|node| {
        attach(node);
        node.ip("link set ens6 up");
        node.ip("addr add 10.0.2.10/24 dev ens6");
        node.ip("addr add 10.0.2.33/24 dev ens6");
        assert!(node.ip("route").contains("10.0.2.0/24"));
        assert_eq!(node.block_on(sync(&eni())).unwrap(), Change::Updated);
        assert_in_place(node, "configured before");
    });
}

#[test]
fn a_route_of_the_administrator_stays() {
    on_node(|node| {
        attach(node);
        node.block_on(sync(&eni())).unwrap();
        node.ip("route add 192.0.2.0/24 via 10.0.2.1 dev ens6 table 2");
        assert_eq!(node.block_on(sync(&eni())).unwrap(), Change::Unchanged);
        assert!(node.ip("route show table 2").contains("192.0.2.0/24"));
    });
}

#[test]
fn what_cannot_be_synced_is_told_apart() {
    on_node(|node| {
        let missing = node.block_on(sync(&eni())).unwrap_err();
        assert!(matches!(missing, EniSyncError::NoDevice { .. }), "{missing}");
        let main = node.block_on(sync(&EniLink { table: RouteTable::MAIN, ..eni() })).unwrap_err();
        assert!(matches!(main, EniSyncError::MainTable { .. }), "{main}");
    });
}

#[test]
fn an_eni_that_is_gone_is_forgotten_once() {
    on_node(|node| {
        attach(node);
        let before = node.ip("rule");
        node.block_on(sync(&eni())).unwrap();
        node.ip("link del ens6");
        node.ip("rule add from 10.0.2.10 lookup 9 priority 1000");
        let address = eni().primary_address;
        assert_eq!(node.block_on(forget(address)).unwrap(), Removal::Removed);
        assert_eq!(node.block_on(forget(address)).unwrap(), Removal::Absent);
        node.ip("rule del priority 1000");
        assert_eq!(node.ip("rule"), before);
    });
}

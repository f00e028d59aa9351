//! `host::sync`: the secondary ENIs of the picture, and the rules of ENIs that have gone.

use datapath::host::{EniStatus, FormerEnis, HostEni, HostPicture};
use datapath::{Applied, RouteTable};

use crate::host::{picture, synced};
use crate::lab::{Namespace, on_node};

const MAC: &str = "02:00:00:00:00:11";

pub(crate) fn eni() -> HostEni {
    HostEni {
        mac: MAC.parse().unwrap(),
        table: RouteTable::of(0, 1),
        primary_address: "10.0.2.10".parse().unwrap(),
        subnet: "10.0.2.0/24".parse().unwrap(),
        gateway: "10.0.2.1".parse().unwrap(),
    }
}

/// As the kernel has a device that was just attached.
pub(crate) fn attach(node: &Namespace) {
    node.ip(&format!("link add ens6 address {MAC} mtu 1500 type veth peer name fabric"));
    node.ip("link set fabric up");
}

/// Syncs a picture with this ENI and returns the ENI's state. There is no primary ENI.
fn sync(node: &Namespace) -> EniStatus {
    let wanted = HostPicture { enis: vec![eni()], ..picture() };
    synced(node, &wanted).enis.remove(&eni().mac).unwrap()
}

#[track_caller]
fn assert_applied(node: &Namespace, expected: Applied, why: &str) {
    let status = sync(node);
    assert!(
        matches!(status, EniStatus::Ready(applied) if applied == expected),
        "{why}: {status:?}"
    );
}

/// Syncs a picture without any ENI.
fn sync_without_enis(node: &Namespace) -> FormerEnis {
    synced(node, &picture()).former.unwrap()
}

pub(crate) fn assert_in_place(node: &Namespace, why: &str) {
    assert_eq!(
        node.ip("rule"),
        "0:\tfrom all lookup local\n\
         32765:\tfrom 10.0.2.10 lookup 2 proto 84\n\
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
fn new_eni_is_added_once() {
    on_node(|node| {
        attach(node);
        assert_applied(node, Applied::Added, "new");
        assert_in_place(node, "new");
        // The kernel never had a route to the subnet, not even for a moment.
        assert!(node.ip("addr show dev ens6").contains("10.0.2.10/24 scope global noprefixroute"));
        let before = node.dump();
        assert_applied(node, Applied::Unchanged, "again");
        assert_eq!(node.dump(), before);
    });
}

#[test]
fn eni_sync_heals_every_drift() {
    on_node(|node| {
        attach(node);
        sync(node);
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
            "rule add from 10.0.2.10 lookup 2 priority 32765",
        ] {
            node.ip(drift);
            assert_applied(node, Applied::Updated, drift);
            assert_in_place(node, drift);
        }
    });
}

/// cloud-init or systemd-networkd may have configured the device first.
#[test]
fn device_configured_by_the_image_is_taken_over() {
    on_node(|node| {
        attach(node);
        node.ip("link set ens6 up");
        node.ip("addr add 10.0.2.10/24 dev ens6");
        node.ip("addr add 10.0.2.33/24 dev ens6");
        assert!(node.ip("route").contains("10.0.2.0/24"));
        assert_applied(node, Applied::Updated, "configured before");
        assert_in_place(node, "configured before");
    });
}

/// amazon-vpc-cni-k8s, and our versions before the mark, add the rule without a protocol.
#[test]
fn unmarked_rule_of_a_wanted_eni_gets_the_mark() {
    on_node(|node| {
        attach(node);
        sync(node);
        node.ip("rule del priority 32765");
        // `ip` takes 0 for the number of "unspec".
        node.ip("rule add from 10.0.2.10 lookup 2 priority 32765 protocol 0");
        assert_applied(node, Applied::Updated, "unmarked");
        assert_in_place(node, "unmarked");
    });
}

#[test]
fn administrators_route_in_an_enis_table_stays() {
    on_node(|node| {
        attach(node);
        sync(node);
        node.ip("route add 192.0.2.0/24 via 10.0.2.1 dev ens6 table 2");
        assert_applied(node, Applied::Unchanged, "another destination");
        assert!(node.ip("route show table 2").contains("192.0.2.0/24"));
    });
}

#[test]
fn eni_without_device_is_absent() {
    on_node(|node| {
        assert!(matches!(sync(node), EniStatus::Absent));
    });
}

#[test]
fn rule_of_a_gone_eni_is_removed_once() {
    on_node(|node| {
        attach(node);
        let before = node.ip("rule");
        sync(node);
        node.ip("link del ens6");
        assert_eq!(sync_without_enis(node).n_removed, 1);
        assert_eq!(sync_without_enis(node), FormerEnis::default());
        assert_eq!(node.ip("rule"), before);
    });
}

/// Its user keeps the way out, and the caller learns which device to wait for.
#[test]
fn rule_of_an_unwanted_eni_stays_while_its_device_is_there() {
    on_node(|node| {
        attach(node);
        sync(node);
        let former = sync_without_enis(node);
        assert_eq!(former.n_removed, 0);
        assert_eq!(former.devices.into_iter().collect::<Vec<_>>(), [eni().mac]);
        assert_in_place(node, "its device is there");
        node.ip("link del ens6");
        assert_eq!(sync_without_enis(node).n_removed, 1);
    });
}

/// The kernel gives priority 32765 to a rule that is added without one.
#[test]
fn rules_without_our_mark_stay() {
    on_node(|node| {
        for rule in [
            "from 10.0.2.10 lookup 2",
            "from 10.0.2.11 lookup 2 priority 32765 protocol 0",
            "from 10.0.2.12 lookup 2 priority 32764 protocol 84",
            "from 10.0.2.0/24 lookup 2 priority 32765 protocol 84",
            "to 10.0.2.13 lookup 2 priority 32765 protocol 84",
            "from 10.0.2.14 fwmark 1 lookup 2 priority 32765 protocol 84",
        ] {
            node.ip(&format!("rule add {rule}"));
        }
        let before = node.ip("rule");
        assert!(before.contains("32765:\tfrom 10.0.2.10 lookup 2\n"), "{before}");
        assert_eq!(sync_without_enis(node), FormerEnis::default());
        assert_eq!(node.ip("rule"), before);
    });
}

//! The record of dual-stack pods, of branch ENIs, and in the form of earlier versions.

use serde_json::{Value, json};

use super::*;

fn key(container: &str) -> AttachmentKey {
    AttachmentKey {
        network: "aws-cni".into(),
        container: container.to_owned(),
        ifname: "eth0".to_owned(),
    }
}

fn on_eni(address: &str) -> PodIp {
    let eni = EniId::try_from("eni-1").unwrap();
    PodIp { address: address.parse().unwrap(), via: Via::Eni { eni, card: 0, index: 2 } }
}

fn assignment(ips: &[PodIp]) -> Assignment {
    Assignment {
        addresses: ips.to_vec().try_into().unwrap(),
        node_local: None,
        ipv6: PodIpv6::AsItIs,
        pod: Pod::default(),
        netns: "/var/run/netns/a".to_owned(),
        since: Timestamp::from_millis(5),
    }
}

fn assigned(container: &str, ips: &[PodIp]) -> Change {
    Change::Assigned { key: key(container), assignment: assignment(ips) }
}

#[test]
fn addresses_are_one_or_one_of_each_family() {
    let check = |ips: &[&str], expect: Option<&[&str]>| {
        let ips: Vec<_> = ips.iter().map(|ip| on_eni(ip)).collect();
        let found = Addresses::try_from(ips.clone()).ok();
        let found = found.map(|all| all.iter().map(|ip| ip.address.to_string()).collect());
        let expect = expect.map(|ips| ips.iter().map(|ip| (*ip).to_owned()).collect::<Vec<_>>());
        assert_eq!(found, expect, "{ips:?}");
    };
    check(&["10.0.0.9"], Some(&["10.0.0.9"]));
    check(&["2001:db8::9", "10.0.0.9"], Some(&["10.0.0.9", "2001:db8::9"]));
    check(&[], None);
    check(&["10.0.0.9", "10.0.0.10"], None);
    check(&["2001:db8::9", "2001:db8::10"], None);
    check(&["10.0.0.9", "10.0.0.10", "2001:db8::9"], None);
}

#[test]
fn dual_stack_pod_owns_and_releases_both_addresses() {
    let mut record = Record::default();
    let (v4, v6) = (on_eni("10.0.0.9"), on_eni("2001:db8::9"));
    record.apply(&assigned("a", &[v4.clone(), v6.clone()])).unwrap();
    for ip in [&v4, &v6] {
        assert_eq!(record.owner(ip.address), Some(&key("a")));
        let taken = record.apply(&assigned("b", std::slice::from_ref(ip)));
        assert!(matches!(taken, Err(Contradiction::AddressTaken { .. })), "{taken:?}");
    }
    let other = record.apply(&assigned("a", std::slice::from_ref(&v4)));
    assert!(matches!(other, Err(Contradiction::OtherAddresses { .. })), "{other:?}");
    let at = Timestamp::from_millis(9);
    record.apply(&Change::Released { key: key("a"), at }).unwrap();
    assert!(record.owners().is_empty());
    assert_eq!(record.cooling(), &BTreeMap::from([(v4.address, at), (v6.address, at)]));
}

fn with_node_local(container: &str, ips: &[PodIp], node_local: &str) -> Change {
    let node_local = Some(node_local.parse().unwrap());
    let assignment = Assignment { node_local, ..assignment(ips) };
    Change::Assigned { key: key(container), assignment }
}

#[test]
fn node_local_address_is_owned_and_released() {
    let mut record = Record::default();
    let (a, b) = (on_eni("2001:db8::9"), on_eni("2001:db8::10"));
    let local: IpAddr = "169.254.172.2".parse().unwrap();
    let a = [a];
    record.apply(&with_node_local("a", &a, "169.254.172.2")).unwrap();
    assert_eq!(record.owner(local), Some(&key("a")));
    let taken = record.apply(&with_node_local("b", &[b], "169.254.172.2"));
    assert!(matches!(taken, Err(Contradiction::AddressTaken { .. })), "{taken:?}");
    // An older build writes the assignment without.
    record.apply(&assigned("a", &a)).unwrap();
    assert_eq!((record.owner(local), record.cooling().len()), (None, 0));
    record.apply(&with_node_local("a", &a, "169.254.172.2")).unwrap();
    record.apply(&Change::Released { key: key("a"), at: Timestamp::from_millis(9) }).unwrap();
    assert!(record.owners().is_empty() && record.cooling().contains_key(&local));
}

/// Logs of earlier versions have no such address.
#[test]
fn assignment_without_node_local_address_is_as_in_older_logs() {
    let older = r#"{"addresses":[{"address":"2001:db8::9","via":{"eni":{"eni":"eni-1","card":0,"index":2}}}],"pod":{"namespace":"","name":"","uid":""},"netns":"/var/run/netns/a","since":5}"#;
    let without = assignment(&[on_eni("2001:db8::9")]);
    assert_eq!(serde_json::from_str::<Assignment>(older).unwrap(), without);
    assert_eq!(serde_json::to_string(&without).unwrap(), older);
    let with = Assignment { node_local: "169.254.172.2".parse().ok(), ..without };
    let text = serde_json::to_string(&with).unwrap();
    assert_eq!(serde_json::from_str::<Assignment>(&text).unwrap(), with);
}

#[test]
fn branch_address_survives_the_log() {
    let via = Via::Branch {
        eni: EniId::try_from("eni-7").unwrap(),
        vlan: 12,
        trunk: EniId::try_from("eni-8").unwrap(),
        trunk_mac: "02:00:00:00:00:08".parse().unwrap(),
        mac: "02:00:00:00:00:07".parse().unwrap(),
        gateway: "10.0.0.1".parse().unwrap(),
    };
    let ip = PodIp { address: "10.0.0.9".parse().unwrap(), via };
    let change = assigned("a", &[ip]);
    let text = serde_json::to_string(&change).unwrap();
    assert_eq!(serde_json::from_str::<Change>(&text).unwrap(), change);
}

/// Versions 1 and 2 write these lines in the same form.
#[test]
fn changes_of_version_2_are_read() {
    let check = |old: Value, expect: Change| {
        assert_eq!(serde_json::from_value::<Change>(old).unwrap(), expect);
    };
    let old_key = json!({"network": "aws-cni", "container": "a", "ifname": "eth0"});
    let old_pod = json!({"namespace": "", "name": "", "uid": ""});
    let old_assignment = json!({
        "address": "10.0.0.9", "eni": "eni-1", "device_index": 2, "network_card": 0,
        "pod": old_pod, "netns": "/var/run/netns/a", "since": 5,
    });
    check(
        json!({"assigned": {"key": old_key, "assignment": old_assignment}}),
        assigned("a", &[on_eni("10.0.0.9")]),
    );
    let unknown = json!({"network": "", "container": "a", "ifname": "eth0"});
    let at = Timestamp::from_millis(7);
    check(
        json!({"released": {"key": unknown, "at": 7}}),
        Change::Released { key: key("a").by_link(), at },
    );
    let call = Ec2Call::Assign {
        eni: EniId::try_from("eni-1").unwrap(),
        blocks: crate::block::BlockKind::V4Prefix.times(2),
    };
    check(
        json!({"intended": {"id": 4, "call": {"assign": {"eni": "eni-1", "ask": {"prefixes": 2}}}}}),
        Change::Intended { id: CallId(4), call },
    );
}

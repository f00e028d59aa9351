//! What an instance reads from IMDS.

use std::net::Ipv4Addr;

use ec2_model::Delay;
use ec2_model::config::{Config, Consistency};
use ec2_model::fault::Disturbance;
use ec2_model::request::{AssociateVpcCidrBlock, CreateNetworkInterface, TerminateInstances};
use ec2_model::request::{InterfaceType, WantedIpv6};
use ec2_model::seed::InstanceSeed;

use crate::region::{Region, addresses, assign, n_prefixes};

const MACS: &str = "/latest/meta-data/network/interfaces/macs/";

/// A region with an instance at 10.0.2.157.
fn region(config: Config) -> (Region, ec2_model::id::InstanceId) {
    let mut region = Region::with(config);
    let seed = InstanceSeed {
        id: Some("i-0123456789abcdef0".parse().unwrap()),
        primary_address: Some(Ipv4Addr::new(10, 0, 2, 157)),
        ..InstanceSeed::in_subnet("m5.large", region.subnet.clone())
    };
    let instance = region.model.add_instance(seed, region.now).unwrap();
    (region, instance)
}

#[test]
fn imds_paths_list_and_answer() {
    let config = Config { iam_role: Some("node".to_owned()), ..Config::default() };
    let (mut region, instance) = region(config);
    let mac = region.fabric_of(&instance).enis[0].mac;
    let group = region.enis()[0].groups[0].id.clone();
    let eni = region.enis()[0].id.clone();
    let (subnet, vpc) = (region.subnet.clone(), region.vpc.clone());
    let at_mac = |key: &str| format!("{MACS}{mac}/{key}");
    let text = |value: &dyn std::fmt::Display| Some(value.to_string());
    let cases = [
        ("/latest".to_owned(), text(&"dynamic/\nmeta-data/")),
        ("/latest/meta-data/instance-id".to_owned(), text(&instance)),
        ("/latest/meta-data/instance-id/".to_owned(), text(&instance)),
        ("/latest/meta-data/instance-type".to_owned(), text(&"m5.large")),
        ("/latest/meta-data/mac".to_owned(), text(&mac)),
        ("/latest/meta-data/local-ipv4".to_owned(), text(&"10.0.2.157")),
        ("/latest/meta-data/local-hostname".to_owned(), text(&"ip-10-0-2-157.ec2.internal")),
        ("/latest/meta-data/security-groups".to_owned(), text(&"default")),
        ("/latest/meta-data/placement/availability-zone".to_owned(), text(&"us-east-1a")),
        ("/latest/meta-data/placement/availability-zone-id".to_owned(), text(&"use1-az1")),
        ("/latest/meta-data/placement/region".to_owned(), text(&"us-east-1")),
        (MACS.to_owned(), text(&format!("{mac}/"))),
        (MACS.trim_end_matches('/').to_owned(), text(&format!("{mac}/"))),
        (at_mac("device-number"), text(&"0")),
        (at_mac("interface-id"), text(&eni)),
        (at_mac("network-card"), text(&"0")),
        (at_mac("network-card-index"), text(&"0")),
        (at_mac("owner-id"), text(&"111122223333")),
        (at_mac("subnet-id"), text(&subnet)),
        (at_mac("vpc-id"), text(&vpc)),
        (at_mac("security-group-ids"), text(&group)),
        (at_mac("local-ipv4s"), text(&"10.0.2.157")),
        (at_mac("subnet-ipv4-cidr-block"), text(&"10.0.2.0/24")),
        (at_mac("subnet-ipv6-cidr-blocks"), text(&"2600:1f13:abc:de00::/64")),
        (at_mac("vpc-ipv4-cidr-block"), text(&"10.0.0.0/16")),
        (at_mac("vpc-ipv4-cidr-blocks"), text(&"10.0.0.0/16")),
        (at_mac("vpc-ipv6-cidr-blocks"), text(&"2600:1f13:abc:de00::/56")),
        ("/latest/meta-data/iam/security-credentials/".to_owned(), text(&"node")),
        // Keys that do not apply do not exist.
        (at_mac("ipv4-prefix"), None),
        (at_mac("ipv6s"), None),
        (at_mac("ipv6-prefix"), None),
        (at_mac("public-ipv4s"), None),
        ("/latest/meta-data/ipv6".to_owned(), None),
        ("/latest/meta-data/moon".to_owned(), None),
        ("/1066-10-14/meta-data/mac".to_owned(), None),
        (format!("/2020-10-27{}", &at_mac("network-card")[7..]), None),
        (format!("/2020-11-01{}", &at_mac("network-card")[7..]), text(&"0")),
    ];
    for (path, expect) in cases {
        assert_eq!(region.imds(&instance, &path), expect, "{path}");
    }
    let listing = region.imds(&instance, "/latest/meta-data/").unwrap();
    let expect = "ami-id ami-launch-index hostname iam/ instance-action instance-id \
                  instance-life-cycle instance-type local-hostname local-ipv4 mac network/ \
                  placement/ profile reservation-id security-groups services/";
    assert_eq!(listing.split('\n').collect::<Vec<_>>().join(" "), expect);
    assert_eq!(region.imds(&ec2_model::id::InstanceId::from_number(1), "/latest"), None);
}

#[test]
fn imds_serves_identity_and_credentials() {
    let config = Config { iam_role: Some("node".to_owned()), ..Config::default() };
    let (mut region, instance) = region(config);
    let mut read = |path: &str| -> serde_json::Value {
        serde_json::from_str(&region.imds(&instance, path).unwrap()).unwrap()
    };
    let identity = read("/latest/dynamic/instance-identity/document");
    for (key, expect) in [
        ("accountId", "111122223333"),
        ("architecture", "x86_64"),
        ("availabilityZone", "us-east-1a"),
        ("instanceId", "i-0123456789abcdef0"),
        ("instanceType", "m5.large"),
        ("pendingTime", "2026-11-21T08:12:04Z"),
        ("privateIp", "10.0.2.157"),
        ("region", "us-east-1"),
        ("version", "2017-09-30"),
    ] {
        assert_eq!(identity[key], expect, "{key}");
    }
    let credentials = read("/latest/meta-data/iam/security-credentials/node");
    assert_eq!(credentials["Code"], "Success");
    assert_eq!(credentials["LastUpdated"], "2026-11-21T08:00:00Z");
    assert_eq!(credentials["Expiration"], "2026-11-21T14:00:00Z");
    assert_eq!(credentials["AccessKeyId"], "ASIA0123456789ABCDEF");
    let info = read("/latest/meta-data/iam/info");
    let profile = "arn:aws:iam::111122223333:instance-profile/node";
    assert_eq!(info["InstanceProfileArn"], profile);
    let (mut without, instance) = self::region(Config::default());
    assert_eq!(without.imds(&instance, "/latest/meta-data/iam/"), None);
}

#[test]
fn imds_shows_all_kinds_of_addresses() {
    let (mut region, instance) = region(Config::default());
    let create = CreateNetworkInterface {
        ipv6: WantedIpv6 { address_count: Some(1), ..WantedIpv6::default() },
        private_ip_address: Some(Ipv4Addr::new(10, 0, 2, 40)),
        ..CreateNetworkInterface::in_subnet(region.subnet.clone())
    };
    let eni = region.create(create);
    region.attach(&eni.id, &instance, 2).unwrap();
    region.call(assign(&eni.id, addresses(&["10.0.2.42", "10.0.2.41"]))).unwrap();
    region.call(assign(&eni.id, n_prefixes(2))).unwrap();
    let vpc_id = region.vpc.clone();
    let block = AssociateVpcCidrBlock {
        cidr_block: Some("100.64.0.0/16".parse().unwrap()),
        ..AssociateVpcCidrBlock::with(vpc_id)
    };
    region.call(block).unwrap();
    let listed = region.eni(&eni.id);
    let [first, second] = listed.ipv4_prefixes[..] else { panic!("two prefixes") };
    for (key, expect) in [
        ("device-number", "2".to_owned()),
        ("local-ipv4s", "10.0.2.40\n10.0.2.42\n10.0.2.41".to_owned()),
        ("ipv4-prefix", format!("{first}\n{second}")),
        ("ipv6s", listed.ipv6_addresses[0].to_string()),
        ("vpc-ipv4-cidr-blocks", "10.0.0.0/16\n100.64.0.0/16".to_owned()),
    ] {
        let path = format!("{MACS}{}/{key}", eni.mac_address);
        assert_eq!(region.imds(&instance, &path), Some(expect), "{key}");
    }
    assert_eq!(region.imds(&instance, MACS).unwrap().lines().count(), 2);
    let end = TerminateInstances { instance_ids: vec![instance.clone()], dry_run: false };
    region.call(end).unwrap();
    assert_eq!(region.imds(&instance, "/latest/meta-data/instance-id"), None);
}

#[test]
fn efa_only_eni_has_no_addresses() {
    let (mut region, _) = region(Config::default());
    let create = CreateNetworkInterface {
        interface_type: InterfaceType::EfaOnly,
        ..CreateNetworkInterface::in_subnet(region.subnet.clone())
    };
    let efa = region.create(create);
    let run = ec2_model::request::RunInstances {
        instance_type: "p5.48xlarge".to_owned(),
        min_count: 1,
        max_count: 1,
        network_interfaces: vec![
            ec2_model::request::InstanceNetworkInterface {
                subnet_id: Some(region.subnet.clone()),
                ..Default::default()
            },
            ec2_model::request::InstanceNetworkInterface {
                device_index: 1,
                network_card_index: 1,
                network_interface_id: Some(efa.id.clone()),
                ..Default::default()
            },
        ],
        ..Default::default()
    };
    region.call(run).unwrap();
    let instance = region.eni(&efa.id).attachment.unwrap().instance_id;
    let path = |key: &str| format!("{MACS}{}/{key}", efa.mac_address);
    assert_eq!(region.imds(&instance, &path("local-ipv4s")), None);
    assert_eq!(region.imds(&instance, &path("network-card")), Some("1".to_owned()));
}

fn n_macs(region: &mut Region, instance: &ec2_model::id::InstanceId) -> usize {
    region.imds(instance, MACS).unwrap().lines().count()
}

#[test]
fn imds_lags_behind_api() {
    let consistency = Consistency {
        imds_interface: Delay::exactly(500),
        imds_addresses: Delay::exactly(1_000),
        ..Consistency::default()
    };
    let (mut region, instance) = region(Config { consistency, ..Config::default() });
    let create = CreateNetworkInterface {
        secondary_private_ip_address_count: Some(1),
        ..CreateNetworkInterface::in_subnet(region.subnet.clone())
    };
    let eni = region.create(create);
    let attachment = region.attach(&eni.id, &instance, 1).unwrap();
    let path = format!("{MACS}{}/local-ipv4s", eni.mac_address);
    let n_ips = |region: &mut Region| {
        region.imds(&instance, &path).map_or(0, |addresses| addresses.lines().count())
    };
    for (wait, expect) in [(0, 0), (499, 0), (1, 1), (999, 1), (1, 2)] {
        region.wait(wait);
        assert_eq!(n_ips(&mut region), expect, "at {}", region.now);
    }
    region.call(assign(&eni.id, addresses(&["10.0.2.42"]))).unwrap();
    for (wait, expect) in [(999, 2), (1, 3)] {
        region.wait(wait);
        assert_eq!(n_ips(&mut region), expect);
    }
    region.detach(&attachment).unwrap();
    region.wait(499);
    assert_eq!((n_macs(&mut region, &instance), n_ips(&mut region)), (2, 3));
    region.wait(1);
    assert_eq!((n_macs(&mut region, &instance), n_ips(&mut region)), (1, 0));
}

#[test]
fn frozen_imds_shows_no_change() {
    let (mut region, instance) = region(Config::default());
    let gone = region.create_eni();
    let attachment = region.attach(&gone, &instance, 1).unwrap();
    region
        .model
        .disturb(Disturbance::FreezeImds { instance: instance.clone() }, region.now)
        .unwrap();
    let eni = region.create_eni();
    region.detach(&attachment).unwrap();
    let delete = ec2_model::request::DeleteNetworkInterface {
        network_interface_id: gone.clone(),
        dry_run: false,
    };
    region.call(delete).unwrap();
    region.attach(&eni, &instance, 1).unwrap();
    region.wait(600_000);
    let listed = region.imds(&instance, MACS).unwrap();
    let mac = region.eni(&eni).mac_address.to_string();
    assert_eq!((listed.lines().count(), listed.contains(&mac)), (2, false));
    let ghost = listed.lines().filter_map(|mac| {
        region.model.imds(&instance, &format!("{MACS}{mac}interface-id"), region.now)
    });
    assert!(ghost.collect::<Vec<_>>().contains(&gone.to_string()), "it outlives the ENI");
    region.model.disturb(Disturbance::ThawImds { instance: instance.clone() }, region.now).unwrap();
    let listed = region.imds(&instance, MACS).unwrap();
    assert_eq!((listed.lines().count(), listed.contains(&mac)), (2, true));
}

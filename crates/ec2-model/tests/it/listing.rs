//! Filters, ids and pages of the Describe operations.

use ec2_model::id::{EniId, InstanceId, SubnetId};
use ec2_model::request::{
    CreateNetworkInterface, DescribeAvailabilityZones, DescribeInstanceTypes, DescribeInstances,
    DescribeNetworkInterfaces, DescribeSecurityGroups, DescribeSubnets, DescribeVpcs, Filter,
    Listing,
};
use ec2_model::response::{Page, Response};

use crate::region::Region;

fn filter(name: &str, values: &[&str]) -> Filter {
    Filter { name: name.to_owned(), values: values.iter().map(|it| (*it).to_owned()).collect() }
}

fn by(name: &str, values: &[&str]) -> Listing {
    Listing { filters: vec![filter(name, values)], ..Listing::default() }
}

fn enis(region: &mut Region, listing: Listing) -> Vec<EniId> {
    let request = DescribeNetworkInterfaces { listing, ..DescribeNetworkInterfaces::default() };
    match region.call(request).unwrap() {
        Response::NetworkInterfaces(page) => page.items.into_iter().map(|it| it.id).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_eni_filter_matches() {
    let mut region = Region::new();
    let instance = region.add_instance("m5.large");
    let create = CreateNetworkInterface {
        description: "aws-K8S-pods".to_owned(),
        secondary_private_ip_address_count: Some(1),
        ipv6: ec2_model::request::WantedIpv6 { address_count: Some(1), ..Default::default() },
        ..CreateNetworkInterface::in_subnet(region.subnet.clone())
    };
    let id = region.create(create).id;
    region.attach(&id, &instance, 1).unwrap();
    let elsewhere = CreateNetworkInterface::in_subnet(region.other_zone.clone());
    let elsewhere = region.create(elsewhere).id;
    let eni = region.eni(&id);
    let attachment = eni.attachment.clone().unwrap();
    let text = |value: &dyn std::fmt::Display| value.to_string();
    let cases = [
        ("addresses.private-ip-address", text(&eni.private_ip_addresses[1].address)),
        ("attachment.attachment-id", text(&attachment.id)),
        ("attachment.delete-on-termination", "false".to_owned()),
        ("attachment.device-index", "1".to_owned()),
        ("description", "aws-K8S-*".to_owned()),
        ("ipv6-addresses.ipv6-address", text(&eni.ipv6_addresses[0])),
        ("mac-address", text(&eni.mac_address)),
        ("network-interface-id", text(&id)),
        ("private-dns-name", eni.private_dns_name.clone().unwrap()),
        ("private-ip-address", text(&eni.private_ip_address.unwrap())),
    ];
    for (name, value) in cases {
        let found = enis(&mut region, by(name, &[&value]));
        assert_eq!(found, std::slice::from_ref(&id), "{name}={value}");
    }
    let both = [
        ("addresses.primary", "true", 3),
        ("attachment.attach-time", "2026-11-21T08:12:04.000Z", 2),
        ("attachment.instance-id", instance.as_str(), 2),
        ("attachment.instance-owner-id", "111122223333", 2),
        ("attachment.status", "attached", 2),
        ("availability-zone", "us-east-1a", 2),
        ("availability-zone-id", "use1-az1", 2),
        ("status", "in-use", 2),
        ("subnet-id", region.subnet.as_str(), 2),
        ("group-id", eni.groups[0].id.as_str(), 3),
        ("group-name", "default", 3),
        ("interface-type", "interface", 3),
        ("operator.managed", "false", 3),
        ("owner-id", "111122223333", 3),
        ("requester-id", "*", 3),
        ("requester-managed", "false", 3),
        ("source-dest-check", "true", 3),
        ("vpc-id", region.vpc.as_str(), 3),
        ("addresses.association.owner-id", "*", 0),
        ("addresses.association.public-ip", "*", 0),
        ("association.allocation-id", "*", 0),
        ("association.association-id", "*", 0),
        ("association.ip-owner-id", "*", 0),
        ("association.public-ip", "*", 0),
        ("association.public-dns-name", "*", 0),
        ("operator.principal", "*", 0),
        ("tag:none", "*", 0),
        ("tag-key", "*", 0),
        ("attachment.instance-id", "i-*", 2),
        ("attachment.instance-id", "i-0a1b2c3d4e5f60718", 0),
    ]
    .map(|(name, value, n)| (name, value.to_owned(), n));
    for (name, value, n) in both {
        assert_eq!(enis(&mut region, by(name, &[&value])).len(), n, "{name}={value}");
    }
    let available = Listing {
        filters: vec![filter("status", &["available"]), filter("vpc-id", &["vpc-*"])],
        ..Listing::default()
    };
    assert_eq!(enis(&mut region, available), [elsewhere]);
    let unknown = DescribeNetworkInterfaces { listing: by("prefix", &["*"]), ..Default::default() };
    assert_eq!(region.text(unknown), "The filter 'prefix' is invalid");
}

#[test]
fn filters_of_other_operations_match() {
    let mut region = Region::new();
    region.add_instance("m5.large");
    region.add_instance("t2.micro");
    fn n(response: Result<Response, ec2_model::ApiError>) -> usize {
        match response.unwrap() {
            Response::Reservations(page) => page.items.len(),
            Response::InstanceTypes(page) => page.items.len(),
            Response::Subnets(page) => page.items.len(),
            Response::Vpcs(page) => page.items.len(),
            Response::SecurityGroups(page) => page.items.len(),
            Response::AvailabilityZones(zones) => zones.len(),
            other => panic!("{other:?}"),
        }
    }
    let vpc = region.vpc.clone();
    for (name, value, expect) in [
        ("instance-type", "t2.*", 1),
        ("instance-state-name", "running", 2),
        ("instance-state-code", "48", 0),
        ("vpc-id", vpc.as_str(), 2),
        ("private-ip-address", "10.0.2.*", 2),
        ("network-interface.network-interface-id", "eni-*", 2),
    ] {
        let listing = by(name, &[value]);
        let request = DescribeInstances { listing, ..Default::default() };
        assert_eq!(n(region.call(request)), expect, "{name}={value}");
    }
    let n_types = |is: fn(&instance_types::InstanceType) -> bool| {
        instance_types::all().filter(|row| is(row)).count()
    };
    for (name, value, expect) in [
        ("instance-type", "m5.*", n_types(|row| row.name.starts_with("m5."))),
        ("hypervisor", "xen", 80),
        ("bare-metal", "true", n_types(|row| row.bare_metal)),
        (
            "network-info.maximum-network-interfaces",
            "60",
            n_types(|row| row.max_enis_all_cards() == 60),
        ),
    ] {
        let request = DescribeInstanceTypes { listing: by(name, &[value]), ..Default::default() };
        assert_eq!(n(region.call(request)), expect, "{name}={value}");
    }
    for (name, value, expect) in [
        ("availability-zone", "us-east-1b", 1),
        ("vpc-id", "vpc-*", 2),
        ("cidr-block", "10.0.2.0/24", 1),
        ("available-ip-address-count", "251", 1),
        ("ipv6-cidr-block-association.ipv6-cidr-block", "2600:*", 1),
    ] {
        let request = DescribeSubnets { listing: by(name, &[value]), ..Default::default() };
        assert_eq!(n(region.call(request)), expect, "{name}={value}");
    }
    for (name, value, expect) in [
        ("cidr", "10.0.0.0/16", 1),
        ("cidr-block-association.cidr-block", "10.*", 1),
        ("cidr-block-association.cidr-block", "2600:*", 0),
        ("ipv6-cidr-block-association.ipv6-cidr-block", "2600:*", 1),
        ("state", "available", 1),
    ] {
        let request = DescribeVpcs { listing: by(name, &[value]), ..Default::default() };
        assert_eq!(n(region.call(request)), expect, "{name}={value}");
    }
    let request =
        DescribeSecurityGroups { listing: by("group-name", &["default"]), ..Default::default() };
    assert_eq!(n(region.call(request)), 1);
    let request = DescribeAvailabilityZones {
        filters: vec![filter("zone-name", &["*a", "*b"])],
        ..Default::default()
    };
    assert_eq!(n(region.call(request)), 2);
}

#[test]
fn missing_ids_are_named() {
    let mut region = Region::new();
    let (one, two) = (InstanceId::from_number(1), InstanceId::from_number(2));
    let instances = |ids: &[&InstanceId]| DescribeInstances {
        instance_ids: ids.iter().map(|id| (*id).clone()).collect(),
        ..Default::default()
    };
    assert_eq!(
        region.text(instances(&[&one])),
        "The instance ID 'i-00000000000000001' does not exist"
    );
    assert_eq!(
        region.text(instances(&[&one, &two])),
        "The instance IDs 'i-00000000000000001, i-00000000000000002' do not exist"
    );
    // Of several missing ENIs, EC2 names the first only.
    let request = DescribeNetworkInterfaces {
        network_interface_ids: vec![EniId::from_number(1), EniId::from_number(2)],
        ..Default::default()
    };
    assert_eq!(
        region.text(request),
        "The networkInterface ID 'eni-00000000000000001' does not exist"
    );
    let request =
        DescribeSubnets { subnet_ids: vec![SubnetId::from_number(1)], ..Default::default() };
    assert_eq!(region.code(request), "InvalidSubnetID.NotFound");
    let request = DescribeInstanceTypes {
        instance_types: vec!["m5.large".to_owned(), "m5.odd".to_owned()],
        ..Default::default()
    };
    assert_eq!(
        region.text(request),
        "The following supplied instance types do not exist: [m5.odd]"
    );
    let request =
        DescribeSecurityGroups { group_names: vec!["nobody".to_owned()], ..Default::default() };
    assert_eq!(region.code(request), "InvalidGroup.NotFound");
    let request = DescribeAvailabilityZones {
        zone_names: vec!["us-east-1z".to_owned()],
        ..Default::default()
    };
    assert_eq!(region.code(request), "InvalidParameterValue");
}

#[test]
fn listings_are_paged() {
    let mut region = Region::new();
    let made: std::collections::BTreeSet<EniId> = (0..12).map(|_| region.create_eni()).collect();
    let (mut seen, mut next_token) = (Vec::new(), None);
    loop {
        let listing = Listing { filters: Vec::new(), max_results: Some(5), next_token };
        let request = DescribeNetworkInterfaces { listing, ..Default::default() };
        let Ok(Response::NetworkInterfaces(Page { items, next_token: next })) =
            region.call(request)
        else {
            panic!("a page")
        };
        seen.extend(items.into_iter().map(|eni| eni.id));
        next_token = next;
        if next_token.is_none() {
            break;
        }
    }
    assert_eq!(seen, made.into_iter().collect::<Vec<_>>());
    let listing = Listing { max_results: Some(5), ..Listing::default() };
    let request = DescribeNetworkInterfaces {
        network_interface_ids: vec![seen[0].clone()],
        listing,
        ..DescribeNetworkInterfaces::default()
    };
    assert_eq!(region.code(request), "InvalidParameterCombination");
    let listing = Listing { max_results: Some(101), ..Listing::default() };
    let request = DescribeInstanceTypes { listing, ..Default::default() };
    assert_eq!(region.code(request), "InvalidParameterValue");
    let all = DescribeInstanceTypes::default();
    let Ok(Response::InstanceTypes(page)) = region.call(all) else { panic!("types") };
    assert_eq!((page.items.len(), page.next_token), (1418, None));
}

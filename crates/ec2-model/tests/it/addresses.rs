//! Assignment of addresses and prefixes: what subnets and ENIs accept and refuse.

use ec2_model::config::{AddressChoice, Config, InsufficientError};
use ec2_model::id::EniId;
use ec2_model::request::{
    AssignIpv6Addresses, AssignPrivateIpAddresses, CreateNetworkInterface,
    CreateSubnetCidrReservation, DeleteSubnetCidrReservation, GetSubnetCidrReservations, Listing,
    PrivateIpAddressSpecification, Request, ReservationType, UnassignIpv6Addresses,
    UnassignPrivateIpAddresses, WantedIpv4, WantedIpv6,
};
use ec2_model::response::Response;
use ipnet::Ipv4Net;

use crate::region::{Region, addresses, assign, n_addresses, n_prefixes, prefixes};

/// Checks the answer to an assignment to `eni`.
fn check(region: &mut Region, eni: &EniId, wanted: WantedIpv4, expect: &str) {
    let before = region.eni(eni);
    assert_eq!(region.code(assign(eni, wanted.clone())), expect, "{wanted:?}");
    if expect != "Success" {
        assert_eq!(region.eni(eni), before, "all or nothing");
    }
}

fn lowest_first() -> Config {
    Config { address_choice: AddressChoice::LowestFirst, ..Config::default() }
}

#[test]
fn request_names_one_kind_of_address() {
    let mut region = Region::new();
    let eni = region.create_eni();
    let both = WantedIpv4 { prefix_count: Some(1), ..n_addresses(1) };
    check(&mut region, &eni, both, "InvalidParameterCombination");
    check(&mut region, &eni, WantedIpv4::default(), "InvalidParameterCombination");
    check(&mut region, &eni, n_addresses(0), "InvalidParameterValue");
    check(&mut region, &eni, n_addresses(-1), "InvalidParameterValue");
    check(&mut region, &eni, n_addresses(2), "Success");
    let nothing = assign(&eni, WantedIpv4::default());
    assert_eq!(
        region.text(nothing),
        "One of privateIpAddressSet or privateIpAddressCount or ipv4PrefixSet or ipv4PrefixCount \
         must be specified."
    );
}

#[test]
fn answer_lists_new_addresses_only() {
    let mut region = Region::with(lowest_first());
    let eni = region.create_eni();
    region.call(assign(&eni, n_addresses(2))).unwrap();
    let expect = Response::AssignedIpv4 {
        network_interface_id: eni.clone(),
        addresses: vec!["10.0.2.7".parse().unwrap()],
        prefixes: vec![],
    };
    assert_eq!(region.call(assign(&eni, n_addresses(1))), Ok(expect));
    let expect = Response::AssignedIpv4 {
        network_interface_id: eni.clone(),
        addresses: vec![],
        prefixes: vec!["10.0.2.16/28".parse().unwrap()],
    };
    assert_eq!(region.call(assign(&eni, n_prefixes(1))), Ok(expect));
    let listed = region.eni(&eni);
    assert_eq!(listed.private_ip_addresses.len(), 4);
    assert_eq!(listed.private_ip_address.unwrap().to_string(), "10.0.2.4");
    assert_eq!(listed.private_dns_name.unwrap(), "ip-10-0-2-4.ec2.internal");
}

#[test]
fn subnet_counts_available_addresses() {
    let mut region = Region::new();
    let subnet = region.subnet.clone();
    assert_eq!(region.n_free(&subnet), 251);
    let eni = region.create_eni();
    assert_eq!(region.n_free(&subnet), 250);
    region.call(assign(&eni, n_addresses(3))).unwrap();
    assert_eq!(region.n_free(&subnet), 247);
    region.call(assign(&eni, n_prefixes(2))).unwrap();
    assert_eq!(region.n_free(&subnet), 215);
    let held = region.eni(&eni);
    let release = UnassignPrivateIpAddresses {
        network_interface_id: eni,
        addresses: vec![held.private_ip_addresses[1].address],
        prefixes: held.ipv4_prefixes,
    };
    region.call(release).unwrap();
    assert_eq!(region.n_free(&subnet), 248);
}

#[test]
fn named_addresses_are_taken_or_refused() {
    let mut region = Region::new();
    let eni = region.create_eni();
    let other = CreateNetworkInterface {
        private_ip_address: Some("10.0.2.50".parse().unwrap()),
        ..CreateNetworkInterface::in_subnet(region.subnet.clone())
    };
    let other = region.create(other).id;
    check(&mut region, &eni, addresses(&["10.0.2.60"]), "Success");
    check(&mut region, &eni, addresses(&["10.0.2.60"]), "Resource.AlreadyAssigned");
    check(&mut region, &eni, addresses(&["10.0.2.61", "10.0.2.50"]), "InvalidParameterValue");
    check(&mut region, &eni, addresses(&["10.0.2.61", "10.0.2.61"]), "InvalidParameterValue");
    check(&mut region, &eni, addresses(&["10.0.9.1"]), "InvalidParameterValue");
    check(&mut region, &eni, prefixes(&["10.0.2.64/28"]), "Success");
    check(&mut region, &eni, prefixes(&["10.0.2.48/28"]), "InvalidParameterValue");
    check(&mut region, &eni, prefixes(&["10.0.2.81/28"]), "InvalidParameterValue");
    check(&mut region, &other, addresses(&["10.0.2.70"]), "InvalidParameterValue");
    for (addr, text) in [
        ("10.0.2.60", "[10.0.2.60] assigned, but move is not allowed."),
        ("10.0.2.3", "Address is in subnet's reserved address range"),
        ("10.0.2.255", "Address is in subnet's reserved address range"),
        ("10.0.3.9", "Address 10.0.3.9 does not fall within the subnet's address range"),
    ] {
        assert_eq!(region.text(assign(&other, addresses(&[addr]))), text);
    }
}

#[test]
fn creation_assigns_requested_addresses() {
    let mut region = Region::new();
    let plain = CreateNetworkInterface::in_subnet(region.subnet.clone());
    let named = |addr: &str, primary| PrivateIpAddressSpecification {
        address: addr.parse().unwrap(),
        primary,
    };
    let several = CreateNetworkInterface {
        private_ip_addresses: vec![named("10.0.2.21", false), named("10.0.2.20", true)],
        ..plain.clone()
    };
    let eni = region.create(several.clone());
    assert_eq!(eni.private_ip_address.unwrap().to_string(), "10.0.2.20");
    assert_eq!(eni.private_ip_addresses[1].address.to_string(), "10.0.2.21");
    let n_before = region.n_free(&plain.subnet_id);
    let check = |region: &mut Region, request: CreateNetworkInterface, expect: &str| {
        assert_eq!(region.code(request.clone()), expect, "{request:?}");
    };
    check(&mut region, several.clone(), "InvalidIPAddress.InUse");
    let taken_late = CreateNetworkInterface {
        private_ip_addresses: vec![named("10.0.2.30", true), named("10.0.2.21", false)],
        ..plain.clone()
    };
    check(&mut region, taken_late, "InvalidIPAddress.InUse");
    let two_primaries = CreateNetworkInterface {
        private_ip_addresses: vec![named("10.0.2.30", true), named("10.0.2.31", true)],
        ..plain.clone()
    };
    check(&mut region, two_primaries, "InvalidParameterCombination");
    let two_kinds = CreateNetworkInterface {
        secondary_private_ip_address_count: Some(1),
        ipv4_prefix_count: Some(1),
        ..plain.clone()
    };
    check(&mut region, two_kinds, "InvalidParameterCombination");
    let too_many =
        CreateNetworkInterface { secondary_private_ip_address_count: Some(64), ..plain.clone() };
    check(&mut region, too_many, "PrivateIpAddressLimitExceeded");
    let no_ipv6 = CreateNetworkInterface {
        subnet_id: region.other_zone.clone(),
        ipv6: WantedIpv6 { address_count: Some(1), ..WantedIpv6::default() },
        ..plain.clone()
    };
    check(&mut region, no_ipv6, "InvalidParameterValue");
    assert_eq!(region.n_free(&plain.subnet_id), n_before, "refusals leave nothing behind");
    let prefixes = CreateNetworkInterface {
        private_ip_address: Some("10.0.2.30".parse().unwrap()),
        ipv4_prefix_count: Some(2),
        ..plain
    };
    assert_eq!(region.create(prefixes).ipv4_prefixes.len(), 2);
}

#[test]
fn fragmented_subnet_has_its_own_error() {
    let mut region = Region::new();
    // One address in each whole block of a /25: 117 are free, and none in a block.
    let used: Vec<String> = (1..7).map(|block| format!("10.0.8.{}/32", block * 16 + 5)).collect();
    let used: Vec<&str> = used.iter().map(String::as_str).collect();
    let fragmented = region.add_subnet("10.0.8.0/25", &used);
    let full = region.add_subnet("10.0.9.0/27", &["10.0.9.8/29", "10.0.9.16/28"]);
    let check = |region: &mut Region, subnet, n, expect: &str| {
        let eni = region.create(CreateNetworkInterface::in_subnet(subnet)).id;
        check(region, &eni, n, expect);
    };
    check(&mut region, fragmented.clone(), n_prefixes(1), "InsufficientCidrBlocks");
    check(&mut region, fragmented.clone(), n_prefixes(7), "InsufficientCidrBlocks");
    check(&mut region, fragmented.clone(), n_prefixes(8), "InsufficientFreeAddressesInSubnet");
    check(&mut region, fragmented, n_addresses(49), "Success");
    check(&mut region, full.clone(), n_prefixes(1), "InsufficientFreeAddressesInSubnet");
    check(&mut region, full.clone(), n_addresses(40), "InsufficientFreeAddressesInSubnet");
    region.model.reconfigure(Config {
        insufficient_error: InsufficientError::InvalidParameterValue,
        ..Config::default()
    });
    let eni = region.create(CreateNetworkInterface::in_subnet(full)).id;
    assert_eq!(
        region.text(assign(&eni, n_addresses(40))),
        "There aren't sufficient free Ipv4 addresses or prefixes"
    );
}

#[test]
fn instance_type_limits_addresses() {
    let mut region = Region::new();
    let check_type = |region: &mut Region, instance_type: &str, steps: &[(WantedIpv4, &str)]| {
        let instance = region.add_instance(instance_type);
        let eni = region.primary_eni(&instance);
        for (wanted, expect) in steps {
            check(region, &eni, wanted.clone(), expect);
        }
    };
    let over = "PrivateIpAddressLimitExceeded";
    let steps = [(n_addresses(10), over), (n_addresses(5), "Success")];
    check_type(&mut region, "m5.large", &steps);
    // A prefix takes one slot of the ten.
    let steps = [(n_prefixes(9), "Success"), (n_addresses(1), over), (n_prefixes(1), over)];
    check_type(&mut region, "m5.large", &steps);
    let steps = [(n_prefixes(1), "UnsupportedOperation"), (n_addresses(1), "Success")];
    check_type(&mut region, "t2.micro", &steps);
    check_type(&mut region, "m5.metal", &[(n_prefixes(1), "Success")]);
}

#[test]
fn address_moves_only_if_allowed() {
    let mut region = Region::new();
    let (from, to) = (region.create_eni(), region.create_eni());
    region.call(assign(&from, addresses(&["10.0.2.70", "10.0.2.71"]))).unwrap();
    region.call(assign(&from, prefixes(&["10.0.2.96/28"]))).unwrap();
    let primary = region.eni(&from).private_ip_address.unwrap().to_string();
    let moving = |list: &[&str]| AssignPrivateIpAddresses {
        allow_reassignment: true,
        ..assign(&to, addresses(list))
    };
    assert_eq!(region.text(moving(&["10.0.2.70", &primary])), "secondary-addresses");
    assert_eq!(region.code(moving(&["10.0.2.70", "10.0.2.100"])), "InvalidParameterValue");
    assert_eq!(region.code(moving(&["10.0.2.70", "10.0.2.2"])), "InvalidParameterValue");
    assert_eq!(region.eni(&from).private_ip_addresses.len(), 3, "nothing has moved");
    assert_eq!(region.code(moving(&["10.0.2.70", "10.0.2.70", "10.0.2.72"])), "Success");
    assert_eq!(region.code(moving(&["10.0.2.70"])), "Success");
    let listed = |eni: &EniId, region: &mut Region| -> Vec<String> {
        let addresses = region.eni(eni).private_ip_addresses.into_iter().skip(1);
        addresses.map(|it| it.address.to_string()).collect()
    };
    assert_eq!(listed(&from, &mut region), ["10.0.2.71"]);
    assert_eq!(listed(&to, &mut region), ["10.0.2.72", "10.0.2.70"]);
    let mut back = moving(&["10.0.2.70"]);
    back.network_interface_id = from;
    assert_eq!(region.code(back), "Success");
    let subnet = region.subnet.clone();
    assert_eq!(region.n_free(&subnet), 251 - 2 - 3 - 16);
}

#[test]
fn unassign_checks_holdings() {
    let mut region = Region::new();
    let eni = region.create_eni();
    let primary = region.eni(&eni).private_ip_address.unwrap();
    region.call(assign(&eni, addresses(&["10.0.2.70"]))).unwrap();
    region.call(assign(&eni, prefixes(&["10.0.2.96/28"]))).unwrap();
    let unassign = |addresses: &[&str], prefixes: &[&str]| UnassignPrivateIpAddresses {
        network_interface_id: eni.clone(),
        addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
        prefixes: prefixes.iter().map(|it| it.parse().unwrap()).collect(),
    };
    assert_eq!(region.code(unassign(&[], &[])), "MissingParameter");
    assert_eq!(
        region.text(unassign(&[&primary.to_string()], &[])),
        format!(
            "Value ({primary}) for parameter privateIpAddress is invalid. The primary IP address \
             of an interface cannot be unassigned."
        )
    );
    assert_eq!(
        region.text(unassign(&["10.0.2.70", "10.0.2.71"], &[])),
        format!("Some of the specified addresses are not assigned to interface {eni}")
    );
    assert_eq!(region.code(unassign(&["10.0.2.97"], &[])), "InvalidParameterValue");
    assert_eq!(region.code(unassign(&["10.0.2.70"], &["10.0.2.96/28"])), "Success");
    assert_eq!(region.code(assign(&eni, addresses(&["10.0.2.97"]))), "Success");
}

#[test]
fn ipv6_is_assigned_and_unassigned() {
    let mut region = Region::new();
    let eni = region.create_eni();
    let assign =
        |wanted: WantedIpv6| AssignIpv6Addresses { network_interface_id: eni.clone(), wanted };
    let n_prefixes = |n| assign(WantedIpv6 { prefix_count: Some(n), ..WantedIpv6::default() });
    let n_addresses = |n| assign(WantedIpv6 { address_count: Some(n), ..WantedIpv6::default() });
    region.call(n_prefixes(1)).unwrap();
    region.call(n_addresses(1)).unwrap();
    let held = region.eni(&eni);
    let (address, prefix) = (held.ipv6_addresses[0], held.ipv6_prefixes[0]);
    assert!(!prefix.contains(&address) && prefix.prefix_len() == 80);
    let instance = region.add_instance("m5.large");
    region.attach(&eni, &instance, 1).unwrap();
    assert_eq!(region.code(n_addresses(9)), "PrivateIpAddressLimitExceeded");
    assert_eq!(region.code(n_addresses(8)), "Success");
    let unassign = UnassignIpv6Addresses {
        network_interface_id: eni.clone(),
        addresses: vec![address],
        prefixes: vec![prefix],
    };
    let expect = Response::UnassignedIpv6 {
        network_interface_id: eni.clone(),
        addresses: vec![address],
        prefixes: vec![prefix],
    };
    assert_eq!(region.call(unassign.clone()), Ok(expect));
    assert_eq!(region.code(unassign), "InvalidParameterValue");
}

#[test]
fn reservations_direct_automatic_choice() {
    let mut region = Region::new();
    let subnet = region.subnet.clone();
    let reserve = |cidr: &str, reservation_type| CreateSubnetCidrReservation {
        subnet_id: subnet.clone(),
        cidr: cidr.parse().unwrap(),
        reservation_type,
        description: "pods".to_owned(),
        tag_specifications: Vec::new(),
        dry_run: false,
    };
    let Ok(Response::CidrReservation(for_prefixes)) =
        region.call(reserve("10.0.2.128/26", ReservationType::Prefix))
    else {
        panic!("a reservation is made")
    };
    region.call(reserve("10.0.2.192/26", ReservationType::Explicit)).unwrap();
    region.call(reserve("2600:1f13:abc:de00:8000::/66", ReservationType::Explicit)).unwrap();
    assert_eq!(
        region.text(reserve("10.0.2.160/28", ReservationType::Explicit)),
        "Reservation CIDR 10.0.2.160/28 has overlap with existing reserved CIDR block"
    );
    for outside in ["10.0.3.0/28", "10.0.2.1/28", "10.0.0.0/16"] {
        let request = reserve(outside, ReservationType::Prefix);
        assert_eq!(region.code(request), "InvalidParameterValue", "{outside}");
    }
    assert_eq!(region.n_free(&subnet), 251, "setting aside uses nothing up");

    // EC2 chooses prefixes from the prefix reservation and single addresses from neither. Named
    // ones may come from anywhere.
    let eni = region.create_eni();
    region.call(assign(&eni, n_prefixes(3))).unwrap();
    let within: Ipv4Net = "10.0.2.128/26".parse().unwrap();
    assert!(region.eni(&eni).ipv4_prefixes.iter().all(|prefix| within.contains(prefix)));
    check(&mut region, &eni, n_prefixes(2), "InsufficientCidrBlocks");
    for _ in 0..3 {
        let eni = region.create_eni();
        check(&mut region, &eni, n_addresses(30), "Success");
        let upper: Ipv4Net = "10.0.2.128/25".parse().unwrap();
        let listed = region.eni(&eni).private_ip_addresses;
        assert!(listed.iter().all(|it| !upper.contains(&it.address)));
    }
    check(&mut region, &eni, addresses(&["10.0.2.200"]), "Success");
    check(&mut region, &eni, prefixes(&["10.0.2.208/28"]), "Success");

    let request = GetSubnetCidrReservations {
        subnet_id: subnet,
        listing: Listing::default(),
        dry_run: false,
    };
    let Ok(Response::CidrReservations(page)) = region.call(request) else { panic!("a listing") };
    assert_eq!(page.items.len(), 3);
    let delete =
        DeleteSubnetCidrReservation { reservation_id: for_prefixes.id.clone(), dry_run: false };
    let expect = Response::CidrReservation(for_prefixes);
    assert_eq!(region.call(delete.clone()), Ok(expect));
    assert_eq!(region.code(delete), "InvalidSubnetCidrReservationID.NotFound");
    assert_eq!(region.eni(&eni).ipv4_prefixes.len(), 4, "what was assigned stays");
}

#[test]
fn available_count_may_exclude_reserved_ranges() {
    let config = Config { reservations_reduce_available_count: true, ..Config::default() };
    let mut region = Region::with(config);
    let subnet = region.subnet.clone();
    let request: Request = CreateSubnetCidrReservation {
        subnet_id: subnet.clone(),
        cidr: "10.0.2.128/25".parse().unwrap(),
        reservation_type: ReservationType::Prefix,
        description: String::new(),
        tag_specifications: Vec::new(),
        dry_run: false,
    }
    .into();
    region.call(request).unwrap();
    // The last address of the subnet was not available before either.
    assert_eq!(region.n_free(&subnet), 251 - 127);
}

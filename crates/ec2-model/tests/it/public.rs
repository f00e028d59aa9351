//! Public addresses and route tables.

use std::net::Ipv4Addr;

use ec2_model::fabric::FabricRoute;
use ec2_model::id::{AllocationId, EniId, InstanceId, SubnetId};
use ec2_model::request::{
    AllocateAddress, AssociateAddress, DescribeInstances, DescribeRouteTables, DisassociateAddress,
    Filter, Listing, UnassignPrivateIpAddresses,
};
use ec2_model::response::{Response, RouteTable, RouteTarget};
use ec2_model::routing::RouteVia;
use ec2_model::seed::{InstanceSeed, SubnetSeed, VpcSeed};
use ipnet::IpNet;

use crate::region::{Region, assign, n_addresses};

const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// A region whose subnet leads to an internet gateway, with an instance that has a public address.
fn region() -> (Region, InstanceId) {
    let mut region = Region::new();
    let subnet = region.subnet.clone();
    region.model.add_route(&subnet, net("0.0.0.0/0"), RouteVia::InternetGateway).unwrap();
    let seed = InstanceSeed {
        public_address: Some(PUBLIC),
        ..InstanceSeed::in_subnet("m5.large", subnet)
    };
    let instance = region.model.add_instance(seed, region.now).unwrap();
    (region, instance)
}

fn allocate(region: &mut Region) -> (Ipv4Addr, AllocationId) {
    match region.call(AllocateAddress::default()).unwrap() {
        Response::Allocated { public_ip, allocation_id } => (public_ip, allocation_id),
        other => panic!("{other:?}"),
    }
}

fn associate(allocation_id: &AllocationId, eni: &EniId) -> AssociateAddress {
    AssociateAddress {
        allocation_id: allocation_id.clone(),
        network_interface_id: Some(eni.clone()),
        instance_id: None,
        private_ip_address: None,
        allow_reassociation: true,
        dry_run: false,
    }
}

/// The public address of each private address of the ENI.
fn public(region: &mut Region, eni: &EniId) -> Vec<Option<Ipv4Addr>> {
    let eni = region.eni(eni);
    let association =
        |it: &ec2_model::response::PrivateIpAddress| Some(it.association.as_ref()?.public_ip);
    eni.private_ip_addresses.iter().map(association).collect()
}

#[test]
fn public_address_is_in_every_answer() {
    let (mut region, instance) = region();
    let eni = region.primary_eni(&instance);
    assert_eq!(public(&mut region, &eni), [Some(PUBLIC)]);
    let shown = region.eni(&eni);
    let private = shown.private_ip_address.unwrap();
    let association = shown.association().unwrap();
    assert!(association.allocation_id.is_some());
    assert_eq!(association.owner_id, "111122223333");
    let Ok(Response::Reservations(page)) = region.call(DescribeInstances::default()) else {
        panic!("reservations")
    };
    assert_eq!(page.items[0].instances[0].public_ip_address, Some(PUBLIC));
    assert_eq!(region.fabric_of(&instance).enis[0].public, [(private, PUBLIC)].into());
    let at = |key: &str| {
        format!("/latest/meta-data/network/interfaces/macs/{}/{key}", shown.mac_address)
    };
    for (path, expect) in [
        ("/latest/meta-data/public-ipv4".to_owned(), PUBLIC.to_string()),
        (at("public-ipv4s"), PUBLIC.to_string()),
        (at("ipv4-associations/203.0.113.10"), private.to_string()),
    ] {
        assert_eq!(region.imds(&instance, &path), Some(expect), "{path}");
    }
}

#[test]
fn elastic_address_moves_and_ends_with_its_private_address() {
    let (mut region, instance) = region();
    let eni = region.primary_eni(&instance);
    region.call(assign(&eni, n_addresses(1))).unwrap();
    let second = region.eni(&eni).private_ip_addresses[1].address;
    let (address, allocation) = allocate(&mut region);
    let to_second =
        AssociateAddress { private_ip_address: Some(second), ..associate(&allocation, &eni) };
    region.call(to_second.clone()).unwrap();
    assert_eq!(public(&mut region, &eni), [Some(PUBLIC), Some(address)]);
    let again = AssociateAddress { allow_reassociation: false, ..to_second.clone() };
    assert_eq!(region.code(again), "Resource.AlreadyAssociated");

    region.call(associate(&allocation, &eni)).unwrap();
    assert_eq!(public(&mut region, &eni), [Some(address), None], "it takes the primary address");
    region.call(to_second).unwrap();
    let unassign = UnassignPrivateIpAddresses {
        network_interface_id: eni.clone(),
        addresses: vec![second],
        prefixes: Vec::new(),
    };
    region.call(unassign).unwrap();
    assert_eq!(public(&mut region, &eni), [None]);
    region.call(associate(&allocation, &eni)).unwrap();
    let association_id = region.eni(&eni).association().unwrap().association_id.clone();
    let end = DisassociateAddress { association_id, dry_run: false };
    assert_eq!(region.code(end.clone()), "Success");
    assert_eq!(region.code(end), "InvalidAssociationID.NotFound");
    assert_eq!(public(&mut region, &eni), [None]);
}

#[test]
fn association_that_cannot_be_is_refused() {
    let (mut region, instance) = region();
    let eni = region.primary_eni(&instance);
    let (_, allocation) = allocate(&mut region);
    let good = associate(&allocation, &eni);
    let by_instance = AssociateAddress {
        network_interface_id: None,
        instance_id: Some(instance.clone()),
        ..good.clone()
    };
    let other = Some("10.0.2.99".parse().unwrap());
    for (request, expect) in [
        (AssociateAddress { network_interface_id: None, ..good.clone() }, "MissingParameter"),
        (
            AssociateAddress { instance_id: Some(instance), ..good.clone() },
            "InvalidParameterCombination",
        ),
        (AssociateAddress { private_ip_address: other, ..good.clone() }, "InvalidParameterValue"),
        (associate(&AllocationId::from_number(7), &eni), "InvalidAllocationID.NotFound"),
        (by_instance, "Success"),
    ] {
        assert_eq!(region.code(request.clone()), expect, "{request:?}");
    }
    let mut closed = Region::new();
    let instance = closed.add_instance("m5.large");
    let eni = closed.primary_eni(&instance);
    let (_, allocation) = allocate(&mut closed);
    assert_eq!(closed.code(associate(&allocation, &eni)), "Gateway.NotAttached");
    let (taken, _) = allocate(&mut closed);
    let seed = InstanceSeed {
        public_address: Some(taken),
        ..InstanceSeed::in_subnet("m5.large", closed.subnet.clone())
    };
    assert!(closed.model.add_instance(seed, closed.now).is_err(), "it is in use");
}

#[test]
fn subnet_gives_new_instances_public_addresses() {
    let mut region = Region::new();
    let seed = SubnetSeed {
        cidr: Some("10.0.7.0/24".parse().unwrap()),
        map_public_ip_on_launch: true,
        ..SubnetSeed::in_zone(region.vpc.clone(), "us-east-1a")
    };
    let subnet = region.model.add_subnet(seed).unwrap();
    let seed = InstanceSeed::in_subnet("m5.large", subnet);
    let instance = region.model.add_instance(seed, region.now).unwrap();
    let eni = region.primary_eni(&instance);
    let shown = region.eni(&eni);
    let association = shown.association().unwrap();
    assert_eq!((association.owner_id.as_str(), &association.allocation_id), ("amazon", &None));
    let (_, allocation) = allocate(&mut region);
    let subnet = region.subnet.clone();
    region.model.add_route(&subnet, net("0.0.0.0/0"), RouteVia::InternetGateway).unwrap();
    region.call(associate(&allocation, &eni)).unwrap();
    let replaced = region.eni(&eni).association().unwrap().allocation_id.clone();
    assert_eq!(replaced, Some(allocation));
}

fn tables(region: &mut Region, name: &str, value: &str) -> Vec<RouteTable> {
    let filter = Filter { name: name.to_owned(), values: vec![value.to_owned()] };
    let listing = Listing { filters: vec![filter], ..Listing::default() };
    match region.call(DescribeRouteTables { listing, ..DescribeRouteTables::default() }).unwrap() {
        Response::RouteTables(page) => page.items,
        other => panic!("{other:?}"),
    }
}

/// 10.9.0.0/16.
fn other_vpc(region: &mut Region) -> SubnetId {
    let seed = VpcSeed { cidrs: vec!["10.9.0.0/16".parse().unwrap()], ..VpcSeed::default() };
    let vpc = region.model.add_vpc(seed).unwrap();
    let seed = SubnetSeed {
        cidr: Some("10.9.1.0/24".parse().unwrap()),
        ..SubnetSeed::in_zone(vpc, "us-east-1a")
    };
    region.model.add_subnet(seed).unwrap()
}

#[test]
fn route_tables_show_where_subnets_lead() {
    let (mut region, _) = region();
    let (public, private) = (region.subnet.clone(), region.other_zone.clone());
    let there = other_vpc(&mut region);
    let nat = Ipv4Addr::new(203, 0, 113, 200);
    region.model.add_nat_gateway(&public, nat).unwrap();
    let via = RouteVia::NatGateway(public.clone());
    region.model.add_route(&private, net("0.0.0.0/0"), via).unwrap();
    region.model.add_route(&private, net("10.9.0.0/16"), RouteVia::Peering).unwrap();
    region.model.add_route(&there, net("10.0.0.0/16"), RouteVia::Peering).unwrap();
    let targets = |table: &RouteTable| -> Vec<RouteTarget> {
        table.routes.iter().map(|route| route.target.clone()).collect()
    };
    let [main, ..] = &tables(&mut region, "association.main", "true")[..] else { panic!() };
    assert!(main.routes.iter().all(|route| route.target == RouteTarget::Local), "{main:?}");
    let own = tables(&mut region, "association.subnet-id", private.as_str()).remove(0);
    let there = tables(&mut region, "association.subnet-id", there.as_str()).remove(0);
    let [.., RouteTarget::NatGateway(_), RouteTarget::Peering(here_to_there)] = &targets(&own)[..]
    else {
        panic!("{own:?}")
    };
    let [RouteTarget::Local, RouteTarget::Peering(there_to_here)] = &targets(&there)[..] else {
        panic!("{there:?}")
    };
    assert_eq!(here_to_there, there_to_here, "one peering");
    let vpcs = region.model.fabric(region.now).vpcs;
    let subnets: Vec<_> = vpcs.into_iter().flat_map(|vpc| vpc.subnets).collect();
    let leads = |id: &SubnetId| &subnets.iter().find(|subnet| subnet.id == *id).unwrap().routes;
    assert_eq!(leads(&public)[&net("0.0.0.0/0")], FabricRoute::InternetGateway);
    assert_eq!(leads(&private)[&net("0.0.0.0/0")], FabricRoute::NatGateway { public: nat });
}

#[test]
fn route_that_leads_nowhere_is_refused() {
    let (mut region, _) = region();
    let (public, private) = (region.subnet.clone(), region.other_zone.clone());
    other_vpc(&mut region);
    let nat = || RouteVia::NatGateway(public.clone());
    let mut check = |destination: &str, via: RouteVia, expect: &str| {
        let error = region.model.add_route(&private, net(destination), via.clone()).unwrap_err();
        assert_eq!(error.code, expect, "{destination} {via:?}: {error}");
    };
    check("198.51.100.0/24", RouteVia::InternetGateway, "InvalidParameterValue");
    check("0.0.0.0/0", nat(), "InvalidNatGatewayID.NotFound");
    check("::/0", nat(), "InvalidParameterValue");
    check("10.0.3.0/24", RouteVia::Peering, "InvalidVpcPeeringConnectionID.NotFound");
    check("10.8.0.0/16", RouteVia::Peering, "InvalidVpcPeeringConnectionID.NotFound");
    // A NAT gateway whose own subnet leads nowhere is no way out.
    region.model.add_nat_gateway(&private, Ipv4Addr::new(203, 0, 113, 201)).unwrap();
    let via = RouteVia::NatGateway(private.clone());
    region.model.add_route(&private, net("0.0.0.0/0"), via).unwrap();
    let vpcs = region.model.fabric(region.now).vpcs;
    let mut subnets = vpcs.iter().flat_map(|vpc| &vpc.subnets);
    assert!(subnets.find(|subnet| subnet.id == private).unwrap().routes.is_empty());
    let bad = region.model.add_nat_gateway(&private, Ipv4Addr::new(8, 8, 8, 8));
    assert_eq!(bad.unwrap_err().code, "InvalidAddress.NotFound");
}

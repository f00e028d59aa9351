//! IPv6-only subnets, and instances whose primary ENI is not at device index 0.

use ec2_model::id::{InstanceId, SubnetId};
use ec2_model::request::{
    AssignIpv6Addresses, CreateNetworkInterface, CreateSubnet, DescribeSubnets, RunInstances,
    WantedIpv6,
};
use ec2_model::response::{Page, Response, Subnet};
use ec2_model::seed::InstanceSeed;

use crate::region::{Region, assign, n_addresses};

const MACS: &str = "/latest/meta-data/network/interfaces/macs/";

fn create_subnet(region: &Region) -> CreateSubnet {
    CreateSubnet {
        ipv6_cidr_block: Some("2600:1f13:abc:de06::/64".parse().unwrap()),
        ipv6_native: true,
        ..CreateSubnet::in_vpc(region.vpc.clone())
    }
}

/// A region with an IPv6-only subnet.
fn region() -> (Region, SubnetId) {
    let mut region = Region::new();
    let request = create_subnet(&region);
    let Ok(Response::Subnet(made)) = region.call(request) else { panic!("a subnet") };
    (region, made.id)
}

fn run(region: &mut Region, instance_type: &str, subnet: &SubnetId) -> Result<InstanceId, String> {
    let request = RunInstances {
        instance_type: instance_type.to_owned(),
        min_count: 1,
        max_count: 1,
        subnet_id: Some(subnet.clone()),
        ..RunInstances::default()
    };
    match region.call(request) {
        Ok(Response::Started(reservation)) => Ok(reservation.instances[0].id.clone()),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.code),
    }
}

#[test]
fn subnet_is_ipv6_only_if_asked_for() {
    let mut region = Region::new();
    let native = create_subnet(&region);
    let cidr_block = Some("10.0.9.0/24".parse().unwrap());
    for (request, expect) in [
        (CreateSubnet { cidr_block, ..native.clone() }, "InvalidParameterCombination"),
        (CreateSubnet { ipv6_cidr_block: None, ..native.clone() }, "MissingParameter"),
        (CreateSubnet { ipv6_native: false, ..native.clone() }, "MissingParameter"),
        (native.clone(), "Success"),
        (native, "InvalidSubnet.Conflict"),
    ] {
        assert_eq!(region.code(request.clone()), expect, "{request:?}");
    }
    let subnets = region.call(DescribeSubnets::default());
    let Ok(Response::Subnets(Page { items, .. })) = subnets else { panic!("{subnets:?}") };
    let native: Vec<&Subnet> = items.iter().filter(|it| it.cidr_block.is_none()).collect();
    let [native] = native[..] else { panic!("{items:?}") };
    assert!(native.assign_ipv6_address_on_creation);
    assert_eq!(native.available_ip_address_count, 0);
}

#[test]
fn eni_of_ipv6_only_subnet_has_no_ipv4() {
    let (mut region, subnet) = region();
    let wanted = CreateNetworkInterface::in_subnet(subnet.clone());
    let Ok(Response::Created { network_interface: eni, .. }) = region.call(wanted.clone()) else {
        panic!("an ENI")
    };
    assert_eq!((eni.private_ip_address, eni.private_dns_name), (None, None));
    assert_eq!((eni.private_ip_addresses.len(), eni.ipv6_addresses.len()), (0, 1));
    assert_eq!(region.code(assign(&eni.id, n_addresses(1))), "InvalidParameterValue");
    let prefix = AssignIpv6Addresses {
        network_interface_id: eni.id.clone(),
        wanted: WantedIpv6 { prefix_count: Some(1), ..WantedIpv6::default() },
    };
    assert_eq!(region.code(prefix), "Success");
    let before = region.enis();
    let address = Some("10.0.2.9".parse().unwrap());
    let named = CreateNetworkInterface { private_ip_address: address, ..wanted.clone() };
    assert_eq!(region.code(named), "InvalidParameterValue");
    let prefixes = CreateNetworkInterface { ipv4_prefix_count: Some(1), ..wanted };
    assert_eq!(region.code(prefixes), "InvalidParameterValue");
    assert_eq!(region.enis(), before, "a refused call has changed nothing");
}

#[test]
fn metadata_of_ipv6_only_instance_have_no_ipv4() {
    let (mut region, subnet) = region();
    assert_eq!(run(&mut region, "t2.micro", &subnet), Err("UnsupportedOperation".to_owned()));
    assert_eq!(region.enis().len(), 0, "a refused launch leaves no ENI");
    let instance = run(&mut region, "m5.large", &subnet).unwrap();
    let eni = region.enis().remove(0);
    let at = |key: &str| format!("{MACS}{}/{key}", eni.mac_address);
    let address = eni.ipv6_addresses[0].to_string();
    let name = format!("{instance}.ec2.internal");
    for (path, expect) in [
        (at("local-ipv4s"), None),
        (at("subnet-ipv4-cidr-block"), None),
        ("/latest/meta-data/local-ipv4".to_owned(), None),
        (at("ipv6s"), Some(address.clone())),
        (at("subnet-ipv6-cidr-blocks"), Some("2600:1f13:abc:de06::/64".to_owned())),
        ("/latest/meta-data/ipv6".to_owned(), Some(address)),
        ("/latest/meta-data/local-hostname".to_owned(), Some(name)),
    ] {
        assert_eq!(region.imds(&instance, &path), expect, "{path}");
    }
    let document = region.imds(&instance, "/latest/dynamic/instance-identity/document").unwrap();
    assert!(document.contains("\"privateIp\": null"), "{document}");
    let fabric = region.fabric_of(&instance);
    assert_eq!((fabric.enis[0].primary, fabric.enis[0].subnet_cidr), (None, None));
}

#[test]
fn primary_eni_at_index_1_is_named_by_its_mac() {
    let mut region = Region::new();
    let seed = InstanceSeed {
        device_index: 1,
        ..InstanceSeed::in_subnet("m5.large", region.subnet.clone())
    };
    let instance = region.model.add_instance(seed, region.now).unwrap();
    let primary = region.enis().remove(0);
    let first = region.create_eni();
    let attached = region.attach(&first, &instance, 0).unwrap();
    assert_eq!(
        region.imds(&instance, "/latest/meta-data/mac"),
        Some(primary.mac_address.to_string())
    );
    let device = format!("{MACS}{}/device-number", primary.mac_address);
    assert_eq!(region.imds(&instance, &device), Some("1".to_owned()));
    let is_primary: Vec<bool> =
        region.fabric_of(&instance).enis.iter().map(|eni| eni.is_primary).collect();
    assert_eq!(is_primary, [false, true]);
    let refused = region.detach(&primary.attachment.unwrap().id).unwrap_err();
    assert_eq!(refused.code, "OperationNotPermitted");
    assert!(refused.message.contains("device index 1"), "{refused}");
    assert!(region.detach(&attached).is_ok(), "index 0 is not the primary ENI's");
}

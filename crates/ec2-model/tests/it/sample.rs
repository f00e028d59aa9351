//! The region as Amazon VPC IPAM finds it, and what the address plan makes of it.

use address_plan::request::{CreateIpam, GetIpamResourceCidrs};
use address_plan::response::Response as PlanResponse;
use address_plan::{AddressPlan, Caller};
use ec2_model::request::{AllocateAddress, CreateVpc};
use ec2_model::response::Response;

use crate::region::{Region, assign, attach, n_addresses, n_prefixes};

#[test]
fn address_plan_sees_what_is_in_the_region() {
    let mut region = Region::new();
    let instance = region.add_instance("m5.large");
    let eni = region.create_eni();
    region.call(attach(&eni, &instance, 1)).unwrap();
    region.call(assign(&eni, n_addresses(2))).unwrap();
    region.call(assign(&eni, n_prefixes(1))).unwrap();
    let unattached = region.create_eni();
    let overlapping =
        CreateVpc { cidr_block: Some("10.0.128.0/17".parse().unwrap()), ..CreateVpc::default() };
    let Response::Vpc(rival) = region.call(overlapping).unwrap() else { unreachable!() };
    region.call(AllocateAddress::default()).unwrap();

    let mut plan = AddressPlan::new(address_plan::config::Config::default());
    let config = region.model.config().clone();
    let caller = Caller {
        account: config.account.parse().unwrap(),
        region: config.region.parse().unwrap(),
        now: region.now,
        dry_run: false,
    };
    let PlanResponse::Ipam(ipam) = plan.call(&caller, CreateIpam::default()).unwrap() else {
        unreachable!()
    };
    let sample = region.model.sample(&config.account, region.now);
    plan.observe(&caller.account, &caller.region, sample, region.now);

    // The primary ENI has one address, the attached one three and a prefix. The others are idle.
    let active = plan.active_addresses(&ipam.id);
    assert_eq!((active.at_least(), active.at_most()), (5, 20));
    let request = GetIpamResourceCidrs::new(ipam.private_scope);
    let PlanResponse::ResourceCidrs(page) = plan.call(&caller, request).unwrap() else {
        unreachable!()
    };
    let mut overlapping: Vec<(&str, String)> = page
        .items
        .iter()
        .filter(|it| it.overlap.as_str() == "overlapping")
        .map(|it| (it.resource.as_str(), it.cidr.to_string()))
        .collect();
    overlapping.sort_unstable();
    let mut expect = [
        (region.vpc.as_str(), "10.0.0.0/16".to_owned()),
        (rival.id.as_str(), "10.0.128.0/17".to_owned()),
    ];
    expect.sort_unstable();
    assert_eq!(overlapping, expect);
    let used = |id: &str| {
        page.items.iter().find(|it| it.resource.as_str() == id).and_then(|it| it.usage).unwrap()
    };
    // Five reserved, three primary, two secondary addresses, and a prefix.
    assert!((used(region.subnet.as_str()) - 26.0 / 256.0).abs() < 1e-9);
    assert!((used(region.vpc.as_str()) - 2.0 / 256.0).abs() < 1e-9);
    assert!(page.items.iter().any(|it| it.resource.as_str() == unattached.as_str()));
    assert!(region.model.sample("444455556666", region.now).resources.is_empty());
}

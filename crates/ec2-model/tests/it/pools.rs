//! VPCs and subnets with blocks of IPAM pools, and the end of VPCs and subnets.

use address_plan::AddressPlan;
use address_plan::id::PoolId;
use address_plan::request::{
    CreateIpam, CreateIpamPool, GetIpamPoolAllocations, ProvisionIpamPoolCidr,
};
use address_plan::response::Response as PlanResponse;
use ec2_model::config::{Config, Latency};
use ec2_model::request::{
    AssociateVpcCidrBlock, CreateSubnet, CreateVpc, DeleteSubnet, DeleteVpc, DescribeInstances,
    DescribeVpcs, DisassociateVpcCidrBlock, FromPool, ModifySubnetAttribute, ModifyVpcAttribute,
    PlanRequest, Request, TerminateInstances, VpcAttribute,
};
use ec2_model::response::{CidrState, Response, Vpc};
use ec2_model::{ApiError, Delay};

use crate::region::Region;

/// A region and a plan with a pool for it.
struct World {
    region: Region,
    plan: AddressPlan,
    pool: PoolId,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            region: Region::new(),
            plan: AddressPlan::new(address_plan::config::Config::default()),
            pool: PoolId::from_number(0),
        };
        let PlanResponse::Ipam(ipam) = world.of_plan(CreateIpam::default()) else { panic!() };
        let locale = world.region.model.config().region.parse().unwrap();
        let request = CreateIpamPool {
            locale: Some(locale),
            ..CreateIpamPool::new(ipam.private_scope, address_plan::block::Family::Ipv4)
        };
        let PlanResponse::Pool(pool) = world.of_plan(request) else { panic!("a pool") };
        world.pool = pool.id.clone();
        world.of_plan(ProvisionIpamPoolCidr {
            ipam_pool_id: pool.id,
            cidr: Some("172.16.0.0/12".parse().unwrap()),
            netmask_length: None,
            authorized: false,
            client_token: None,
        });
        world
    }

    fn call(&mut self, request: impl Into<Request>) -> Result<Response, ApiError> {
        let context = self.region.context();
        self.region.model.call_with(&mut self.plan, &context, request.into()).result
    }

    fn of_plan(&mut self, request: impl Into<address_plan::request::Request>) -> PlanResponse {
        let request = PlanRequest { request: request.into(), dry_run: false };
        match self.call(request).unwrap() {
            Response::Plan(response) => response,
            other => panic!("{other:?}"),
        }
    }

    fn code(&mut self, request: impl Into<Request>) -> String {
        self.call(request).map_or_else(|error| error.code, |_| "Success".to_owned())
    }

    fn wanted(&self, len: i32) -> FromPool {
        FromPool { pool: Some(self.pool.clone()), netmask_length: Some(len) }
    }

    /// CIDR and holder of each allocation.
    fn allocations(&mut self) -> Vec<String> {
        let request = GetIpamPoolAllocations {
            ipam_pool_id: self.pool.clone(),
            ipam_pool_allocation_id: None,
            listing: Default::default(),
        };
        let PlanResponse::Allocations(page) = self.of_plan(request) else { panic!() };
        let shown = page.items.iter();
        shown.map(|it| format!("{} {}", it.cidr, it.holder.id().unwrap_or_default())).collect()
    }

    fn create_vpc(&mut self, len: i32) -> Vpc {
        let request = CreateVpc { ipv4_pool: self.wanted(len), ..CreateVpc::default() };
        match self.call(request) {
            Ok(Response::Vpc(vpc)) => vpc,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn pool_gives_the_blocks_of_a_vpc() {
    let mut world = World::new();
    let vpc = world.create_vpc(20);
    assert_eq!(vpc.cidr_block.to_string(), "172.16.0.0/20");
    assert_eq!(vpc.associations[0].pool.as_ref(), Some(&world.pool));
    let request = AssociateVpcCidrBlock {
        ipv4_pool: world.wanted(24),
        ..AssociateVpcCidrBlock::with(vpc.id.clone())
    };
    world.call(request).unwrap();
    let holder = vpc.id.as_str();
    let expect = [format!("172.16.0.0/20 {holder}"), format!("172.16.16.0/24 {holder}")];
    assert_eq!(world.allocations(), expect);
}

#[test]
fn failed_call_gives_its_blocks_back() {
    let mut world = World::new();
    let check = |world: &mut World, request: Request, expect: &str| {
        assert_eq!(world.code(request.clone()), expect, "{request:?}");
        assert_eq!(world.allocations(), [""; 0], "{request:?}");
    };
    let too_large = CreateVpc { ipv4_pool: world.wanted(14), ..CreateVpc::default() };
    check(&mut world, too_large.into(), "InvalidVpc.Range");
    let other_family = CreateVpc {
        cidr_block: Some("10.9.0.0/16".parse().unwrap()),
        ipv6_pool: world.wanted(20),
        ..CreateVpc::default()
    };
    check(&mut world, other_family.into(), "InvalidParameterCombination");
    let vpc = world.region.vpc.clone();
    let outside = CreateSubnet { ipv4_pool: world.wanted(24), ..CreateSubnet::in_vpc(vpc.clone()) };
    check(&mut world, outside.into(), "InvalidParameterCombination");
    let twice = AssociateVpcCidrBlock {
        ipv4_pool: world.wanted(24),
        amazon_provided_ipv6_cidr_block: true,
        ..AssociateVpcCidrBlock::with(vpc)
    };
    check(&mut world, twice.into(), "InvalidParameterCombination");
    for _ in 0..4 {
        let request =
            CreateVpc { cidr_block: Some("10.0.0.0/16".parse().unwrap()), ..CreateVpc::default() };
        world.call(request).unwrap();
    }
    let one_more = CreateVpc { ipv4_pool: world.wanted(20), ..CreateVpc::default() };
    check(&mut world, one_more.into(), "VpcLimitExceeded");
}

#[test]
fn world_without_ipam_has_no_pools() {
    let world = World::new();
    let mut alone = Region::new();
    let request = CreateVpc { ipv4_pool: world.wanted(20), ..CreateVpc::default() };
    assert_eq!(alone.code(request), "InvalidIpamPoolId.NotFound");
}

#[test]
fn vpc_goes_after_its_subnets_and_they_after_their_enis() {
    let mut region = Region::new();
    let instance = region.add_instance("m5.large");
    let delete_subnet = DeleteSubnet { subnet_id: region.subnet.clone(), dry_run: false };
    let delete_vpc = DeleteVpc { vpc_id: region.vpc.clone(), dry_run: false };
    assert_eq!(region.code(delete_vpc.clone()), "DependencyViolation");
    assert_eq!(region.code(delete_subnet.clone()), "DependencyViolation");
    region.call(TerminateInstances { instance_ids: vec![instance], dry_run: false }).unwrap();
    assert_eq!(region.code(delete_subnet.clone()), "Success");
    assert_eq!(region.code(delete_subnet), "InvalidSubnetID.NotFound");
    assert_eq!(region.code(DescribeInstances::default()), "Success", "none is in a lost subnet");
    assert_eq!(region.code(delete_vpc.clone()), "DependencyViolation", "the other zone is there");
    let other_zone = DeleteSubnet { subnet_id: region.other_zone.clone(), dry_run: false };
    region.call(other_zone).unwrap();
    assert_eq!(region.code(delete_vpc), "Success");
}

#[test]
fn addresses_in_use_and_nat_gateways_hold_a_subnet() {
    let mut region = Region::new();
    let used = region.add_subnet("10.0.9.0/24", &["10.0.9.20/32"]);
    let gateway = region.add_subnet("10.0.10.0/24", &[]);
    region.model.add_nat_gateway(&gateway, "203.0.113.9".parse().unwrap()).unwrap();
    for subnet_id in [used, gateway] {
        assert_eq!(region.code(DeleteSubnet { subnet_id, dry_run: false }), "DependencyViolation");
    }
}

#[test]
fn deleted_vpc_takes_its_default_group_along() {
    let mut region = Region::new();
    let request =
        CreateVpc { cidr_block: Some("172.16.0.0/16".parse().unwrap()), ..CreateVpc::default() };
    let Ok(Response::Vpc(vpc)) = region.call(request) else { panic!("a VPC") };
    region.call(DeleteVpc { vpc_id: vpc.id.clone(), dry_run: false }).unwrap();
    let listed = DescribeVpcs { vpc_ids: vec![vpc.id], ..DescribeVpcs::default() };
    assert_eq!(region.code(listed), "InvalidVpcID.NotFound");
    let groups = region.call(ec2_model::request::DescribeSecurityGroups::default()).unwrap();
    let Response::SecurityGroups(page) = groups else { panic!() };
    assert!(page.items.iter().all(|group| group.vpc_id == region.vpc));
}

#[test]
fn block_of_a_vpc_takes_time_to_go() {
    let latency = Latency { associate: Delay::exactly(1_000), ..Latency::default() };
    let mut region = Region::with(Config { latency, ..Config::default() });
    let block = AssociateVpcCidrBlock {
        cidr_block: Some("100.64.0.0/16".parse().unwrap()),
        ..AssociateVpcCidrBlock::with(region.vpc.clone())
    };
    let Ok(Response::CidrAssociated { association, .. }) = region.call(block) else { panic!() };
    let request = DisassociateVpcCidrBlock { association_id: association.id };
    assert_eq!(region.code(request.clone()), "IncorrectState", "it is still associating");
    region.wait(1_000);
    let Ok(Response::CidrAssociated { association, .. }) = region.call(request.clone()) else {
        panic!()
    };
    assert_eq!(association.state, CidrState::Disassociating);
    assert_eq!(region.code(request.clone()), "IncorrectState");
    let inside = CreateSubnet {
        cidr_block: Some("100.64.0.0/20".parse().unwrap()),
        ..CreateSubnet::in_vpc(region.vpc.clone())
    };
    assert_eq!(region.code(inside), "InvalidSubnet.Range");
    region.wait(1_000);
    assert_eq!(region.code(request), "InvalidVpcCidrBlockAssociationID.NotFound");
}

#[test]
fn one_call_changes_one_attribute() {
    let mut region = Region::new();
    let (vpc_id, subnet_id) = (region.vpc.clone(), region.subnet.clone());
    let all = VpcAttribute::ALL.map(|attribute| (attribute, true));
    for (changes, expect) in [
        (Vec::new(), "MissingParameter"),
        (all[..1].to_vec(), "Success"),
        (all[..2].to_vec(), "InvalidParameterCombination"),
    ] {
        assert_eq!(region.code(ModifyVpcAttribute { vpc_id: vpc_id.clone(), changes }), expect);
    }
    for (ipv6, public, expect) in [
        (None, None, "MissingParameter"),
        (None, Some(true), "Success"),
        (Some(true), Some(true), "InvalidParameterCombination"),
    ] {
        let request = ModifySubnetAttribute {
            subnet_id: subnet_id.clone(),
            assign_ipv6_address_on_creation: ipv6,
            map_public_ip_on_launch: public,
        };
        assert_eq!(region.code(request), expect);
    }
}

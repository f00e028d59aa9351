//! What the API refuses: input, code, and where the code comes from.
//!
//! AWS declares no errors for these operations. So each row says how sure its code is.

use std::collections::BTreeSet;

use address_plan::Wanted;
use address_plan::block::Family;
use address_plan::config::{Config, Quotas, Transitions};
use address_plan::id::{
    Account, AllocationId, AssociationId, DiscoveryId, IpamId, PoolCidrId, PoolId, Region,
    ResourceId, ScopeId,
};
use address_plan::request::*;
use address_plan::response::{Allocation, Holder, Response};
use address_plan::rules::Lengths;
use ec2_api::page::Listing;
use ec2_api::tag::{Tag, Tags};
use ec2_api::{ApiError, Delay, SimTime};

use crate::world::{
    AWAY, HOME, OTHER, OWNER, World, account, filter, net, provision, region, resource_id, tag, vpc,
};

/// How sure a code is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Source {
    /// Somebody quotes the answer of AWS there: code and text.
    Quoted(&'static str),
    /// AWS documents that the input is refused, or the code. The other half follows EC2's habit.
    Documented(&'static str),
    /// Nobody has published it. It follows from the documented rules and from EC2's habit.
    Derived(&'static str),
}
use Source::{Derived, Documented, Quoted};

const API: &str = "https://docs.aws.amazon.com/AWSEC2/latest/APIReference/";
const ERRORS: &str = "https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html";
const GUIDE: &str = "https://docs.aws.amazon.com/vpc/latest/ipam/";
const TERRAFORM: &str = "https://github.com/hashicorp/terraform-provider-aws/";
const MODULE: &str = "https://github.com/terraform-aws-modules/terraform-aws-vpc/issues/1135";

type Answer = Result<Response, ApiError>;

/// One refusal. The input is a call in the world of [`Scene`].
struct Row {
    input: &'static str,
    code: &'static str,
    source: Source,
    call: fn(&mut Scene) -> Answer,
}

/// A world in which every input has something to be refused for.
struct Scene {
    world: World,
    /// Without locale: 10.0.0.0/8.
    top: PoolId,
    /// Below it, in the home Region: 10.0.0.0/16, lengths 20 to 28, no default.
    pool: PoolId,
    /// Below the top too, in the other Region.
    away: PoolId,
    /// In the public scope, IPv6 that the customer brings.
    public: PoolId,
    /// 10.0.4.0/24 of the pool.
    custom: Allocation,
}

impl Scene {
    fn new() -> Self {
        let mut world = World::new();
        let none = CreateIpamPool { locale: None, ..world.regional(None) };
        let top = world.pool(none);
        world.provision(&top, "10.0.0.0/8");
        let lengths = Lengths { min: Some(20), max: Some(28), default: None };
        let pool = world.pool(CreateIpamPool { lengths, ..world.regional(Some(&top)) });
        world.provision(&pool, "10.0.0.0/16");
        let away = CreateIpamPool { locale: Some(region(AWAY)), ..world.regional(Some(&top)) };
        let away = world.pool(away);
        let public = CreateIpamPool {
            publicly_advertisable: Some(true),
            public_ip_source: Some(PublicIpSource::Byoip),
            ..CreateIpamPool::new(world.ipam.public_scope.clone(), Family::Ipv6)
        };
        let public = world.pool(public);
        let custom = world.allocate_cidr(&pool, "10.0.4.0/24").unwrap();
        Self { world, top, pool, away, public, custom }
    }

    fn call(&mut self, request: impl Into<Request>) -> Answer {
        self.world.call(request)
    }

    fn new_pool(&self) -> CreateIpamPool {
        self.world.regional(None)
    }

    fn new_public(&self, family: Family) -> CreateIpamPool {
        CreateIpamPool::new(self.world.ipam.public_scope.clone(), family)
    }

    fn new_alloc(&self) -> AllocateIpamPoolCidr {
        AllocateIpamPoolCidr {
            netmask_length: Some(24),
            ..AllocateIpamPoolCidr::new(self.pool.clone())
        }
    }

    fn for_vpc(&mut self, pool: &PoolId) -> Answer {
        let wanted = Wanted { netmask_length: Some(24), ..Wanted::default() };
        let caller = self.world.caller.clone();
        let holder = Holder::Vpc(resource_id("vpc-1"));
        let taken = self.world.plan.allocate_for(&caller, pool, &wanted, holder, &Tags::new());
        taken.map(Response::Allocation)
    }

    fn modify_resource(&self) -> ModifyIpamResourceCidr {
        ModifyIpamResourceCidr {
            resource_id: resource_id("vpc-a"),
            resource_cidr: net("10.0.0.0/24"),
            resource_region: region(HOME),
            current_ipam_scope_id: self.world.private(),
            destination_ipam_scope_id: None,
            monitored: true,
        }
    }

    fn second_scope(&mut self) -> ScopeId {
        let Response::Scope(scope) = self.call(new_scope(&self.world.ipam.id.clone())).unwrap()
        else {
            unreachable!()
        };
        scope.id
    }
}

fn new_scope(ipam: &IpamId) -> CreateIpamScope {
    CreateIpamScope {
        ipam_id: ipam.clone(),
        description: None,
        tag_specifications: Vec::new(),
        client_token: None,
    }
}

fn modify_ipam(ipam: &IpamId) -> ModifyIpam {
    ModifyIpam {
        ipam_id: ipam.clone(),
        description: None,
        add_operating_regions: Vec::new(),
        remove_operating_regions: Vec::new(),
        tier: None,
        enable_private_gua: None,
        metered_account: None,
    }
}

fn tagged(resource_type: &str, tags: Vec<Tag>) -> Vec<TagSpecification> {
    vec![TagSpecification { resource_type: resource_type.to_owned(), tags }]
}

fn parse<T: std::str::FromStr<Err = ApiError>>(text: &str) -> Answer {
    text.parse::<T>().map(|_| Response::Success)
}

/// A world with the given quotas, in which one more object of a kind is created.
fn with_quotas(quotas: Quotas, call: fn(&mut World) -> Answer) -> Answer {
    call(&mut World::with(Config { quotas, ..Config::default() }))
}

fn free_tier() -> World {
    let mut world = World::new();
    let delete = DeleteIpam { ipam_id: world.ipam.id.clone(), cascade: false };
    world.call(delete).unwrap();
    let create = CreateIpam { tier: Some(Tier::Free), ..CreateIpam::default() };
    let Response::Ipam(ipam) = world.call(create).unwrap() else { unreachable!() };
    world.ipam = ipam;
    world
}

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // Ids.
    Row { input: "DescribeIpams of an id with another form", code: "InvalidIpamId.Malformed", source: Derived("EC2 has pairs of NotFound and Malformed"), call: |_| parse::<IpamId>("ipam-xyz") },
    Row { input: "DescribeIpamScopes of an id with another form", code: "InvalidIpamScopeId.Malformed", source: Derived("EC2 has pairs of NotFound and Malformed"), call: |_| parse::<ScopeId>("ipam-0a1b2c3d") },
    Row { input: "DescribeIpamPools of an id with another form", code: "InvalidIpamPoolId.Malformed", source: Derived("EC2 has pairs of NotFound and Malformed"), call: |_| parse::<PoolId>("ipam-pool-1") },
    Row { input: "ReleaseIpamPoolAllocation of an id with another form", code: "InvalidIpamPoolAllocationId.Malformed", source: Derived("EC2 has pairs of NotFound and Malformed"), call: |_| parse::<AllocationId>("ipam-pool-alloc-1") },
    Row { input: "a pool CIDR's id with another form", code: "InvalidIpamPoolCidrId.Malformed", source: Derived("EC2 has pairs of NotFound and Malformed"), call: |_| parse::<PoolCidrId>("ipam-pool-cidr-1") },
    Row { input: "DescribeIpamResourceDiscoveries of an id with another form", code: "InvalidIpamResourceDiscoveryId.Malformed", source: Derived("EC2 has pairs of NotFound and Malformed"), call: |_| parse::<DiscoveryId>("ipam-res-disco-1") },
    Row { input: "an association's id with another form", code: "InvalidIpamResourceDiscoveryAssociationId.Malformed", source: Derived("EC2 has pairs of NotFound and Malformed"), call: |_| parse::<AssociationId>("x") },
    Row { input: "a Region with another form", code: "InvalidParameterValue", source: Documented(ERRORS), call: |_| parse::<Region>("eu") },
    Row { input: "an account with eleven digits", code: "InvalidParameterValue", source: Documented(ERRORS), call: |_| parse::<Account>("11112222333") },
    Row { input: "a resource id without digits", code: "InvalidParameterValue", source: Documented(ERRORS), call: |_| parse::<ResourceId>("vpc") },
    Row { input: "address family ipv5", code: "InvalidParameterValue", source: Documented(ERRORS), call: |_| parse::<Family>("ipv5") },
    Row { input: "tier gold", code: "InvalidParameterValue", source: Documented(ERRORS), call: |_| parse::<Tier>("gold") },
    Row { input: "an operation that does not exist", code: "InvalidAction", source: Documented(ERRORS), call: |_| parse::<Action>("CreateIpamThing") },
    Row { input: "DescribeIpams of an unknown id", code: "InvalidIpamId.NotFound", source: Documented(ERRORS), call: |s| s.call(DescribeIpams { ipam_ids: vec![IpamId::from_number(1)], listing: Listing::default() }) },
    Row { input: "DescribeIpamScopes of an unknown id", code: "InvalidIpamScopeId.NotFound", source: Documented(ERRORS), call: |s| s.call(DescribeIpamScopes { ipam_scope_ids: vec![ScopeId::from_number(1)], listing: Listing::default() }) },
    Row { input: "DescribeIpamPools of an unknown id", code: "InvalidIpamPoolId.NotFound", source: Quoted("https://github.com/hashicorp/terraform-provider-aws/issues/28095"), call: |s| s.call(DescribeIpamPools { ipam_pool_ids: vec![PoolId::from_number(1)], listing: Listing::default() }) },
    Row { input: "GetIpamPoolAllocations of an allocation that is not there, or not yet", code: "InvalidIpamPoolAllocationId.NotFound", source: Quoted("https://github.com/hashicorp/terraform-provider-aws/issues/28913"), call: |s| s.call(GetIpamPoolAllocations { ipam_pool_id: s.pool.clone(), ipam_pool_allocation_id: Some(AllocationId::from_number(1)), listing: Listing::default() }) },
    Row { input: "DescribeIpamResourceDiscoveries of an unknown id", code: "InvalidIpamResourceDiscoveryId.NotFound", source: Documented(TERRAFORM), call: |s| s.call(DescribeIpamResourceDiscoveries { ipam_resource_discovery_ids: vec![DiscoveryId::from_number(1)], listing: Listing::default() }) },
    Row { input: "DisassociateIpamResourceDiscovery of an unknown id", code: "InvalidIpamResourceDiscoveryAssociationId.NotFound", source: Documented(TERRAFORM), call: |s| s.call(DisassociateIpamResourceDiscovery { ipam_resource_discovery_association_id: AssociationId::from_number(1) }) },
    Row { input: "a pool, from a Region that is neither home nor locale", code: "InvalidIpamPoolId.NotFound", source: Derived("objects live in Regions"), call: |s| { let request = GetIpamPoolCidrs { ipam_pool_id: s.pool.clone(), listing: Listing::default() }; s.world.call_as(OWNER, AWAY, request) } },
    Row { input: "a pool of another account that is not shared", code: "InvalidIpamPoolId.NotFound", source: Derived("EC2 does not say that foreign objects exist"), call: |s| { let request = s.new_alloc(); s.world.call_as(OTHER, HOME, request) } },
    Row { input: "DeleteIpamPool of a pool that is shared with the caller", code: "UnauthorizedOperation", source: Documented(ERRORS), call: |s| { s.world.plan.share(s.pool.as_str(), &account(OTHER)); let request = DeleteIpamPool { ipam_pool_id: s.pool.clone(), cascade: false }; s.world.call_as(OTHER, HOME, request) } },
    Row { input: "any call with DryRun that would succeed", code: "DryRunOperation", source: Documented(ERRORS), call: |s| { s.world.caller.dry_run = true; s.call(DescribeIpams::default()) } },
    // IPAMs and scopes.
    Row { input: "CreateIpam where the account has one in the Region", code: "ResourceLimitExceeded", source: Quoted("https://github.com/rebuy-de/aws-nuke/issues/834"), call: |s| s.call(CreateIpam::default()) },
    Row { input: "CreateIpam with tags for a VPC", code: "InvalidParameterValue", source: Derived("as in CreateNetworkInterface"), call: |s| s.call(CreateIpam { tag_specifications: tagged("vpc", vec![]), ..CreateIpam::default() }) },
    Row { input: "CreateIpam with a tag aws:x", code: "InvalidParameterValue", source: Documented("https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html"), call: |s| s.call(CreateIpam { tag_specifications: tagged("ipam", vec![tag("aws:x", "y")]), ..CreateIpam::default() }) },
    Row { input: "CreateIpam in the Free Tier with two Regions", code: "InvalidParameterCombination", source: Documented("https://docs.aws.amazon.com/vpc/latest/ipam/"), call: |s| s.call(CreateIpam { tier: Some(Tier::Free), operating_regions: vec![region(AWAY)], ..CreateIpam::default() }) },
    Row { input: "CreateIpamScope twice with one token and other parameters", code: "IdempotentParameterMismatch", source: Documented(ERRORS), call: |s| { let request = CreateIpamScope { client_token: Some("t".to_owned()), ..new_scope(&s.world.ipam.id) }; s.call(request.clone())?; s.call(CreateIpamScope { description: Some("x".to_owned()), ..request }) } },
    Row { input: "ModifyIpam without a change", code: "InvalidParameterCombination", source: Quoted("https://github.com/aws-ia/terraform-aws-ipam/issues/65"), call: |s| s.call(modify_ipam(&s.world.ipam.id.clone())) },
    Row { input: "ModifyIpam that removes the home Region", code: "InvalidParameterValue", source: Derived("the own Region must be in the list of Terraform's resource"), call: |s| s.call(ModifyIpam { remove_operating_regions: vec![region(HOME)], ..modify_ipam(&s.world.ipam.id) }) },
    Row { input: "ModifyIpam that removes no operating Region", code: "InvalidParameterValue", source: Derived("a value that names nothing"), call: |s| s.call(ModifyIpam { remove_operating_regions: vec![region("ap-south-1")], ..modify_ipam(&s.world.ipam.id) }) },
    Row { input: "ModifyIpam that removes the Region of a pool", code: "DependencyViolation", source: Derived("a pool depends on it"), call: |s| s.call(ModifyIpam { remove_operating_regions: vec![region(AWAY)], ..modify_ipam(&s.world.ipam.id) }) },
    Row { input: "ModifyIpam that adds and removes one Region", code: "InvalidParameterCombination", source: Derived("parameters contradict each other"), call: |s| s.call(ModifyIpam { add_operating_regions: vec![region(AWAY)], remove_operating_regions: vec![region(AWAY)], ..modify_ipam(&s.world.ipam.id) }) },
    Row { input: "ModifyIpam to the Free Tier with two Regions", code: "InvalidParameterCombination", source: Documented(GUIDE), call: |s| s.call(ModifyIpam { tier: Some(Tier::Free), ..modify_ipam(&s.world.ipam.id) }) },
    Row { input: "DeleteIpam with pools, without Cascade", code: "DependencyViolation", source: Documented(API), call: |s| s.call(DeleteIpam { ipam_id: s.world.ipam.id.clone(), cascade: false }) },
    Row { input: "DeleteIpam with Cascade and a pool in the public scope", code: "DependencyViolation", source: Documented(API), call: |s| s.call(DeleteIpam { ipam_id: s.world.ipam.id.clone(), cascade: true }) },
    Row { input: "DeleteIpam from another Region", code: "InvalidIpamId.NotFound", source: Derived("objects live in Regions"), call: |s| { let request = DeleteIpam { ipam_id: s.world.ipam.id.clone(), cascade: false }; s.world.call_as(OWNER, AWAY, request) } },
    Row { input: "CreateIpamScope beyond five scopes", code: "ResourceLimitExceeded", source: Documented("https://docs.aws.amazon.com/vpc/latest/ipam/quotas-ipam.html"), call: |s| { for _ in 0..3 { s.second_scope(); } s.call(new_scope(&s.world.ipam.id.clone())) } },
    Row { input: "CreateIpamScope in the Free Tier", code: "OperationNotPermitted", source: Derived("the Free Tier has no private pools"), call: |_| { let mut world = free_tier(); let id = world.ipam.id.clone(); world.call(new_scope(&id)) } },
    Row { input: "ModifyIpamScope without a change", code: "InvalidParameterCombination", source: Quoted("https://github.com/aws-ia/terraform-aws-ipam/issues/65"), call: |s| s.call(ModifyIpamScope { ipam_scope_id: s.world.private(), description: None }) },
    Row { input: "DeleteIpamScope of a default scope", code: "OperationNotPermitted", source: Documented(API), call: |s| s.call(DeleteIpamScope { ipam_scope_id: s.world.private() }) },
    Row { input: "DeleteIpamScope with a pool", code: "DependencyViolation", source: Derived("a pool depends on it"), call: |s| { let scope = s.second_scope(); s.call(CreateIpamPool { ipam_scope_id: scope.clone(), ..s.new_pool() })?; s.call(DeleteIpamScope { ipam_scope_id: scope }) } },
    Row { input: "CreateIpamScope while the IPAM is being created", code: "IncorrectState", source: Documented(ERRORS), call: |_| { let transitions = Transitions { create: Delay::exactly(1_000), ..Transitions::default() }; let mut world = World::with(Config { transitions, ..Config::default() }); let id = world.ipam.id.clone(); world.call(new_scope(&id)) } },
    // Pools.
    Row { input: "CreateIpamPool with a locale that is no operating Region", code: "InvalidParameterValue", source: Documented("https://github.com/aws/aws-cdk/pull/34245"), call: |s| s.call(CreateIpamPool { locale: Some(region("ap-south-1")), ..s.new_pool() }) },
    Row { input: "CreateIpamPool with another locale than its source pool", code: "InvalidParameterValue", source: Derived("children follow the locale"), call: |s| s.call(CreateIpamPool { source_ipam_pool_id: Some(s.away.clone()), ..s.new_pool() }) },
    Row { input: "CreateIpamPool of IPv6 below a pool of IPv4", code: "InvalidParameterValue", source: Derived("a pool has one family"), call: |s| s.call(CreateIpamPool { address_family: Family::Ipv6, source_ipam_pool_id: Some(s.pool.clone()), ..s.new_pool() }) },
    Row { input: "CreateIpamPool below a pool of another scope", code: "InvalidParameterValue", source: Derived("a pool belongs to one scope"), call: |s| { let scope = s.second_scope(); s.call(CreateIpamPool { ipam_scope_id: scope, source_ipam_pool_id: Some(s.pool.clone()), ..s.new_pool() }) } },
    Row { input: "CreateIpamPool with a minimum length above the maximum", code: "InvalidParameterCombination", source: Documented("https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateIpamPool.html"), call: |s| s.call(CreateIpamPool { lengths: Lengths { min: Some(24), max: Some(20), default: None }, ..s.new_pool() }) },
    Row { input: "CreateIpamPool with a default length out of bounds", code: "InvalidParameterCombination", source: Derived("the default must be allowed"), call: |s| s.call(CreateIpamPool { lengths: Lengths { min: Some(20), max: Some(24), default: Some(25) }, ..s.new_pool() }) },
    Row { input: "CreateIpamPool of IPv4 with length 33", code: "InvalidParameterValue", source: Documented("https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateIpamPool.html"), call: |s| s.call(CreateIpamPool { lengths: Lengths { max: Some(33), ..Lengths::default() }, ..s.new_pool() }) },
    Row { input: "CreateIpamPool with AutoImport and no locale", code: "InvalidParameterCombination", source: Documented("https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateIpamPool.html"), call: |s| s.call(CreateIpamPool { auto_import: true, locale: None, ..s.new_pool() }) },
    Row { input: "CreateIpamPool with AwsService in a private scope", code: "InvalidParameterCombination", source: Documented("https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateIpamPool.html"), call: |s| s.call(CreateIpamPool { aws_service: Some(AwsService::Ec2), ..s.new_pool() }) },
    Row { input: "CreateIpamPool with PublicIpSource in a private scope", code: "InvalidParameterCombination", source: Documented("https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateIpamPool.html"), call: |s| s.call(CreateIpamPool { public_ip_source: Some(PublicIpSource::Amazon), ..s.new_pool() }) },
    Row { input: "CreateIpamPool with PubliclyAdvertisable for Amazon's IPv6", code: "InvalidParameterCombination", source: Quoted("https://github.com/hashicorp/terraform-provider-aws/issues/39967"), call: |s| s.call(CreateIpamPool { publicly_advertisable: Some(true), public_ip_source: Some(PublicIpSource::Amazon), ..s.new_public(Family::Ipv6) }) },
    Row { input: "CreateIpamPool with PubliclyAdvertisable for IPv4", code: "InvalidParameterCombination", source: Quoted("https://github.com/hashicorp/terraform-provider-aws/issues/39967"), call: |s| s.call(CreateIpamPool { publicly_advertisable: Some(true), ..s.new_public(Family::Ipv4) }) },
    Row { input: "CreateIpamPool for brought IPv6 without PubliclyAdvertisable", code: "MissingParameter", source: Derived("Terraform documents it as required there"), call: |s| s.call(s.new_public(Family::Ipv6)) },
    Row { input: "CreateIpamPool with a source resource and no source pool", code: "InvalidParameterCombination", source: Derived("the VPC has its range from a pool"), call: |s| { let source_resource = Some(SourceResource { resource_id: resource_id("vpc-a"), resource_region: region(HOME), resource_owner: account(OWNER) }); s.call(CreateIpamPool { source_resource, ..s.new_pool() }) } },
    Row { input: "CreateIpamPool with a VPC that is not managed by the source pool", code: "InvalidParameterValue", source: Derived("Terraform waits until the VPC is managed"), call: |s| { let source_resource = Some(SourceResource { resource_id: resource_id("vpc-a"), resource_region: region(HOME), resource_owner: account(OWNER) }); s.call(CreateIpamPool { source_resource, source_ipam_pool_id: Some(s.pool.clone()), ..s.new_pool() }) } },
    Row { input: "CreateIpamPool beyond the quota of a scope", code: "ResourceLimitExceeded", source: Documented("https://docs.aws.amazon.com/vpc/latest/ipam/quotas-ipam.html"), call: |_| with_quotas(Quotas { pools_per_scope: 1, ..Quotas::default() }, |world| { world.call(world.regional(None))?; world.call(world.regional(None)) }) },
    Row { input: "CreateIpamPool beyond the depth", code: "ResourceLimitExceeded", source: Documented("https://docs.aws.amazon.com/vpc/latest/ipam/quotas-ipam.html"), call: |_| with_quotas(Quotas { pool_depth: 1, ..Quotas::default() }, |world| { let top = world.pool(world.regional(None)); world.call(world.regional(Some(&top))) }) },
    Row { input: "CreateIpamPool of private IPv4 in the Free Tier", code: "OperationNotPermitted", source: Documented("https://docs.aws.amazon.com/vpc/latest/ipam/"), call: |_| { let mut world = free_tier(); world.call(world.regional(None)) } },
    Row { input: "ModifyIpamPool without a change", code: "InvalidParameterCombination", source: Quoted("https://github.com/aws-ia/terraform-aws-ipam/issues/65"), call: |s| s.call(ModifyIpamPool::new(s.pool.clone())) },
    Row { input: "ModifyIpamPool that sets and clears the default length", code: "InvalidParameterCombination", source: Derived("parameters contradict each other"), call: |s| s.call(ModifyIpamPool { clear_default_netmask_length: true, lengths: Lengths { default: Some(24), ..Lengths::default() }, ..ModifyIpamPool::new(s.pool.clone()) }) },
    Row { input: "ModifyIpamPool with a minimum above the present maximum", code: "InvalidParameterCombination", source: Documented("https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyIpamPool.html"), call: |s| s.call(ModifyIpamPool { lengths: Lengths { min: Some(29), ..Lengths::default() }, ..ModifyIpamPool::new(s.pool.clone()) }) },
    Row { input: "ModifyIpamPool with AutoImport where there is no locale", code: "InvalidParameterCombination", source: Documented("https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyIpamPool.html"), call: |s| s.call(ModifyIpamPool { auto_import: Some(true), ..ModifyIpamPool::new(s.top.clone()) }) },
    Row { input: "DeleteIpamPool with a CIDR", code: "DependencyViolation", source: Quoted("https://github.com/hashicorp/terraform-provider-aws/pull/22328"), call: |s| s.call(DeleteIpamPool { ipam_pool_id: s.pool.clone(), cascade: false }) },
    Row { input: "DeleteIpamPool before the pools below it", code: "DependencyViolation", source: Documented("https://docs.aws.amazon.com/vpc/latest/ipam/delete-pool-ipam.html"), call: |s| s.call(DeleteIpamPool { ipam_pool_id: s.top.clone(), cascade: false }) },
    Row { input: "DeleteIpamPool with Cascade in the public scope", code: "InvalidParameterCombination", source: Documented("https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteIpamPool.html"), call: |s| s.call(DeleteIpamPool { ipam_pool_id: s.public.clone(), cascade: true }) },
    // CIDRs of pools.
    Row { input: "ProvisionIpamPoolCidr without CIDR and length", code: "InvalidParameterCombination", source: Derived("one of the two is needed"), call: |s| s.call(provision(&s.pool.clone(), None, None)) },
    Row { input: "ProvisionIpamPoolCidr with CIDR and length", code: "InvalidParameterCombination", source: Derived("only one of the two has a meaning"), call: |s| s.call(provision(&s.pool.clone(), Some(net("10.1.0.0/16")), Some(16))) },
    Row { input: "ProvisionIpamPoolCidr by length without a source pool", code: "InvalidParameterCombination", source: Documented("https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ProvisionIpamPoolCidr.html"), call: |s| s.call(provision(&s.top.clone(), None, Some(16))) },
    Row { input: "ProvisionIpamPoolCidr of IPv6 to a pool of IPv4", code: "InvalidParameterValue", source: Derived("a pool has one family"), call: |s| s.call(provision(&s.pool.clone(), Some(net("fd00::/48")), None)) },
    Row { input: "ProvisionIpamPoolCidr with host bits", code: "InvalidParameterValue", source: Derived("as in CreateVpc"), call: |s| s.call(provision(&s.pool.clone(), Some(net("10.1.0.1/16")), None)) },
    Row { input: "ProvisionIpamPoolCidr with length 33", code: "InvalidParameterValue", source: Derived("IPv4 has 32 bits"), call: |s| s.call(provision(&s.pool.clone(), None, Some(33))) },
    Row { input: "ProvisionIpamPoolCidr of a brought range without a proof", code: "InvalidParameterCombination", source: Quoted("https://github.com/aws-ia/terraform-aws-ipam/issues/75"), call: |s| s.call(provision(&s.public.clone(), Some(net("2620:1::/48")), None)) },
    Row { input: "ProvisionIpamPoolCidr of a private range with a proof", code: "InvalidParameterCombination", source: Derived("there is nothing to prove"), call: |s| s.call(ProvisionIpamPoolCidr { authorized: true, ..provision(&s.top.clone(), Some(net("11.0.0.0/8")), None) }) },
    Row { input: "ProvisionIpamPoolCidr with a CIDR where Amazon provides it", code: "InvalidParameterCombination", source: Derived("Amazon chooses the range"), call: |s| { let pool = s.world.pool(CreateIpamPool { public_ip_source: Some(PublicIpSource::Amazon), ..s.new_public(Family::Ipv6) }); s.call(provision(&pool, Some(net("2600::/52")), None)) } },
    Row { input: "ProvisionIpamPoolCidr of Amazon's IPv6 with length 64", code: "InvalidParameterValue", source: Documented("https://docs.aws.amazon.com/vpc/latest/ipam/quotas-ipam.html"), call: |s| { let pool = s.world.pool(CreateIpamPool { public_ip_source: Some(PublicIpSource::Amazon), ..s.new_public(Family::Ipv6) }); s.call(provision(&pool, None, Some(64))) } },
    Row { input: "DeprovisionIpamPoolCidr of a CIDR that the pool lacks", code: "InvalidParameterValue", source: Derived("a value that names nothing"), call: |s| s.call(DeprovisionIpamPoolCidr { ipam_pool_id: s.pool.clone(), cidr: Some(net("10.0.0.0/17")) }) },
    Row { input: "DeprovisionIpamPoolCidr without a CIDR", code: "MissingParameter", source: Documented(ERRORS), call: |s| s.call(DeprovisionIpamPoolCidr { ipam_pool_id: s.pool.clone(), cidr: None }) },
    // Allocations.
    Row { input: "AllocateIpamPoolCidr without CIDR and length, where there is no default", code: "InvalidParameterCombination", source: Quoted(MODULE), call: |s| s.call(AllocateIpamPoolCidr::new(s.pool.clone())) },
    Row { input: "AllocateIpamPoolCidr with CIDR and length", code: "InvalidParameterCombination", source: Quoted(MODULE), call: |s| s.call(AllocateIpamPoolCidr { cidr: Some(net("10.0.0.0/24")), ..s.new_alloc() }) },
    Row { input: "AllocateIpamPoolCidr with AllowedCidrs and a CIDR", code: "InvalidParameterCombination", source: Documented("https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_AllocateIpamPoolCidr.html"), call: |s| s.call(AllocateIpamPoolCidr { cidr: Some(net("10.0.0.0/24")), netmask_length: None, allowed_cidrs: vec![net("10.0.0.0/20")], ..s.new_alloc() }) },
    Row { input: "AllocateIpamPoolCidr with DisallowedCidrs and no length", code: "InvalidParameterCombination", source: Documented("https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_AllocateIpamPoolCidr.html"), call: |s| s.call(AllocateIpamPoolCidr { netmask_length: None, disallowed_cidrs: vec![net("10.0.0.0/20")], ..s.new_alloc() }) },
    Row { input: "AllocateIpamPoolCidr of a larger range than is free", code: "InvalidParameterValue", source: Quoted("https://github.com/hashicorp/terraform-provider-aws/issues/39046"), call: |s| s.call(AllocateIpamPoolCidr { allowed_cidrs: vec![net("10.0.4.0/24")], ..s.new_alloc() }) },
    Row { input: "AllocateIpamPoolCidr of a range that is taken", code: "InvalidParameterValue", source: Documented("https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_AllocateIpamPoolCidr.html"), call: |s| s.call(AllocateIpamPoolCidr { cidr: Some(net("10.0.4.128/25")), netmask_length: None, ..s.new_alloc() }) },
    Row { input: "AllocateIpamPoolCidr of a range outside the pool", code: "InvalidParameterValue", source: Derived("the pool cannot give it"), call: |s| s.call(AllocateIpamPoolCidr { cidr: Some(net("10.1.0.0/24")), netmask_length: None, ..s.new_alloc() }) },
    Row { input: "AllocateIpamPoolCidr with host bits", code: "InvalidParameterValue", source: Derived("as in CreateVpc"), call: |s| s.call(AllocateIpamPoolCidr { cidr: Some(net("10.0.1.1/24")), netmask_length: None, ..s.new_alloc() }) },
    Row { input: "AllocateIpamPoolCidr of IPv6 from a pool of IPv4", code: "InvalidParameterValue", source: Derived("a pool has one family"), call: |s| s.call(AllocateIpamPoolCidr { cidr: Some(net("fd00::/24")), netmask_length: None, ..s.new_alloc() }) },
    Row { input: "AllocateIpamPoolCidr shorter than the minimum length", code: "InvalidParameterValue", source: Documented(GUIDE), call: |s| s.call(AllocateIpamPoolCidr { netmask_length: Some(19), ..s.new_alloc() }) },
    Row { input: "AllocateIpamPoolCidr longer than the maximum length", code: "InvalidParameterValue", source: Documented(GUIDE), call: |s| s.call(AllocateIpamPoolCidr { netmask_length: Some(29), ..s.new_alloc() }) },
    Row { input: "AllocateIpamPoolCidr with a negative length", code: "InvalidParameterValue", source: Derived("IPv4 has 0 to 32 bits"), call: |s| s.call(AllocateIpamPoolCidr { netmask_length: Some(-1), ..s.new_alloc() }) },
    Row { input: "AllocateIpamPoolCidr from a pool without locale", code: "InvalidParameterValue", source: Documented("https://github.com/aws-ia/terraform-aws-ipam/issues/68"), call: |s| s.call(AllocateIpamPoolCidr { ipam_pool_id: s.top.clone(), ..s.new_alloc() }) },
    Row { input: "AllocateIpamPoolCidr in another Region than the locale", code: "InvalidParameterValue", source: Documented("https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_AllocateIpamPoolCidr.html"), call: |s| s.call(AllocateIpamPoolCidr { ipam_pool_id: s.away.clone(), ..s.new_alloc() }) },
    Row { input: "AllocateIpamPoolCidr with tags for a pool", code: "InvalidParameterValue", source: Derived("as in CreateNetworkInterface"), call: |s| s.call(AllocateIpamPoolCidr { tag_specifications: tagged("ipam-pool", vec![]), ..s.new_alloc() }) },
    Row { input: "CreateVpc from a pool whose tags it lacks", code: "InvalidParameterValue", source: Quoted("https://github.com/awslabs/landing-zone-accelerator-on-aws/issues/917"), call: |s| { s.call(ModifyIpamPool { add_allocation_resource_tags: vec![tag("env", "prod")], ..ModifyIpamPool::new(s.pool.clone()) })?; let pool = s.pool.clone(); s.for_vpc(&pool) } },
    Row { input: "CreateVpc from a pool in another Region", code: "InvalidParameterValue", source: Documented(GUIDE), call: |s| { let pool = s.away.clone(); s.for_vpc(&pool) } },
    Row { input: "CreateVpc in an account that the IPAM does not see", code: "UnsupportedOperation", source: Quoted("https://github.com/hashicorp/terraform-provider-aws/blob/main/internal/service/ec2/vpc_.go"), call: |s| { let pool = s.pool.clone(); s.world.plan.share(pool.as_str(), &account(OTHER)); s.world.caller.account = account(OTHER); s.for_vpc(&pool) } },
    Row { input: "CreateSubnet from a pool without source resource", code: "InvalidParameterCombination", source: Quoted("https://github.com/awslabs/landing-zone-accelerator-on-aws/issues/320"), call: |s| { let (caller, pool) = (s.world.caller.clone(), s.pool.clone()); let wanted = Wanted { netmask_length: Some(24), ..Wanted::default() }; let holder = Holder::Subnet(resource_id("subnet-1")); s.world.plan.allocate_for(&caller, &pool, &wanted, holder, &Tags::new()).map(Response::Allocation) } },
    Row { input: "ModifyIpamPoolAllocation without a change", code: "InvalidParameterCombination", source: Quoted("https://github.com/aws-ia/terraform-aws-ipam/issues/65"), call: |s| s.call(ModifyIpamPoolAllocation { ipam_pool_allocation_id: s.custom.id.clone(), description: None }) },
    Row { input: "ReleaseIpamPoolAllocation with another CIDR", code: "InvalidParameterValue", source: Documented("https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ReleaseIpamPoolAllocation.html"), call: |s| s.call(ReleaseIpamPoolAllocation { ipam_pool_id: s.pool.clone(), cidr: net("10.0.4.0/25"), ipam_pool_allocation_id: s.custom.id.clone() }) },
    Row { input: "ReleaseIpamPoolAllocation with another pool", code: "InvalidIpamPoolAllocationId.NotFound", source: Documented("https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ReleaseIpamPoolAllocation.html"), call: |s| s.call(ReleaseIpamPoolAllocation { ipam_pool_id: s.top.clone(), cidr: s.custom.cidr, ipam_pool_allocation_id: s.custom.id.clone() }) },
    Row { input: "ReleaseIpamPoolAllocation twice", code: "InvalidIpamPoolAllocationId.NotFound", source: Derived("it is gone"), call: |s| { let request = ReleaseIpamPoolAllocation { ipam_pool_id: s.pool.clone(), cidr: s.custom.cidr, ipam_pool_allocation_id: s.custom.id.clone() }; s.call(request.clone())?; s.call(request) } },
    Row { input: "ReleaseIpamPoolAllocation of a VPC's allocation", code: "OperationNotPermitted", source: Documented("https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ReleaseIpamPoolAllocation.html"), call: |s| { let pool = s.pool.clone(); let Response::Allocation(it) = s.for_vpc(&pool)? else { unreachable!() }; s.call(ReleaseIpamPoolAllocation { ipam_pool_id: pool, cidr: it.cidr, ipam_pool_allocation_id: it.id }) } },
    Row { input: "ReleaseIpamPoolAllocation of a child pool's CIDR", code: "OperationNotPermitted", source: Documented("https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ReleaseIpamPoolAllocation.html"), call: |s| { let top = s.top.clone(); let it = s.world.allocations(&top)[0].clone(); s.call(ReleaseIpamPoolAllocation { ipam_pool_id: top, cidr: it.cidr, ipam_pool_allocation_id: it.id }) } },
    // Resources.
    Row { input: "ModifyIpamResourceCidr of a resource that nobody has found", code: "InvalidParameterValue", source: Derived("a value that names nothing"), call: |s| s.call(s.modify_resource()) },
    Row { input: "ModifyIpamResourceCidr that ignores a public CIDR", code: "InvalidParameterValue", source: Documented("https://docs.aws.amazon.com/vpc/latest/ipam/release-alloc-ipam.html"), call: |s| s.call(ModifyIpamResourceCidr { monitored: false, current_ipam_scope_id: s.world.ipam.public_scope.clone(), ..s.modify_resource() }) },
    Row { input: "ModifyIpamResourceCidr from a private to the public scope", code: "InvalidParameterValue", source: Derived("a scope has one type"), call: |s| s.call(ModifyIpamResourceCidr { destination_ipam_scope_id: Some(s.world.ipam.public_scope.clone()), ..s.modify_resource() }) },
    Row { input: "ModifyIpamResourceCidr that moves a managed CIDR", code: "DependencyViolation", source: Derived("the allocation stays in its scope"), call: |s| { let pool = s.pool.clone(); s.for_vpc(&pool)?; let scope = s.second_scope(); s.world.wait(std::time::Duration::from_secs(1)); s.world.observe(OWNER, HOME, vec![vpc("vpc-1", &["10.0.0.0/24"])]); s.call(ModifyIpamResourceCidr { resource_id: resource_id("vpc-1"), destination_ipam_scope_id: Some(scope), ..s.modify_resource() }) } },
    Row { input: "ModifyIpamResourceCidr that ignores and moves", code: "InvalidParameterCombination", source: Derived("an ignored CIDR has no scope"), call: |s| { let scope = s.second_scope(); s.world.observe(OWNER, HOME, vec![vpc("vpc-a", &["10.0.0.0/24"])]); s.call(ModifyIpamResourceCidr { monitored: false, destination_ipam_scope_id: Some(scope), ..s.modify_resource() }) } },
    Row { input: "GetIpamResourceCidrs with an unknown filter", code: "InvalidParameterValue", source: Documented(ERRORS), call: |s| s.call(GetIpamResourceCidrs { listing: filter("moon", "full"), ..GetIpamResourceCidrs::new(s.world.private()) }) },
    Row { input: "GetIpamAddressHistory that ends before it starts", code: "InvalidParameterCombination", source: Derived("parameters contradict each other"), call: |s| s.call(GetIpamAddressHistory { cidr: net("10.0.0.0/8"), ipam_scope_id: s.world.private(), vpc_id: None, start_time: Some(SimTime::from_unix_millis(2)), end_time: Some(SimTime::from_unix_millis(1)), listing: Listing::default() }) },
    Row { input: "GetIpamAddressHistory in the Free Tier", code: "OperationNotPermitted", source: Documented("https://docs.aws.amazon.com/vpc/latest/ipam/"), call: |_| { let mut world = free_tier(); let scope = world.private(); world.call(GetIpamAddressHistory { cidr: net("10.0.0.0/8"), ipam_scope_id: scope, vpc_id: None, start_time: None, end_time: None, listing: Listing::default() }) } },
    // Listings.
    Row { input: "DescribeIpamPools with MaxResults 4", code: "InvalidParameterValue", source: Documented("https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeIpamPools.html"), call: |s| s.call(DescribeIpamPools { ipam_pool_ids: vec![], listing: Listing { max_results: Some(4), ..Listing::default() } }) },
    Row { input: "GetIpamPoolAllocations with MaxResults 999", code: "InvalidParameterValue", source: Documented("https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_GetIpamPoolAllocations.html"), call: |s| s.call(GetIpamPoolAllocations { ipam_pool_id: s.pool.clone(), ipam_pool_allocation_id: None, listing: Listing { max_results: Some(999), ..Listing::default() } }) },
    Row { input: "DescribeIpams with ids and MaxResults", code: "InvalidParameterCombination", source: Derived("as in other listings of EC2"), call: |s| s.call(DescribeIpams { ipam_ids: vec![s.world.ipam.id.clone()], listing: Listing { max_results: Some(5), ..Listing::default() } }) },
    Row { input: "DescribeIpamScopes with a token of another listing", code: "InvalidNextToken", source: Documented(ERRORS), call: |s| s.call(DescribeIpamScopes { ipam_scope_ids: vec![], listing: Listing { next_token: Some("00".to_owned()), ..Listing::default() } }) },
    Row { input: "DescribeIpamPools with 201 filter values", code: "FilterLimitExceeded", source: Documented(ERRORS), call: |s| { let mut listing = filter("state", "x"); listing.filters[0].values = vec!["x".to_owned(); 201]; s.call(DescribeIpamPools { ipam_pool_ids: vec![], listing }) } },
    // Discoveries and the organisation.
    Row { input: "CreateIpamResourceDiscovery beyond one", code: "ResourceLimitExceeded", source: Documented("https://docs.aws.amazon.com/vpc/latest/ipam/quotas-ipam.html"), call: |s| { s.call(CreateIpamResourceDiscovery::default())?; s.call(CreateIpamResourceDiscovery::default()) } },
    Row { input: "ModifyIpamResourceDiscovery without a change", code: "InvalidParameterCombination", source: Quoted("https://github.com/aws-ia/terraform-aws-ipam/issues/65"), call: |s| s.call(ModifyIpamResourceDiscovery { ipam_resource_discovery_id: s.world.ipam.default_discovery.clone(), description: None, add_operating_regions: vec![], remove_operating_regions: vec![] }) },
    Row { input: "DeleteIpamResourceDiscovery of the default one", code: "OperationNotPermitted", source: Documented(API), call: |s| s.call(DeleteIpamResourceDiscovery { ipam_resource_discovery_id: s.world.ipam.default_discovery.clone() }) },
    Row { input: "DeleteIpamResourceDiscovery that is associated", code: "DependencyViolation", source: Derived("an association depends on it"), call: |s| { let Response::Discovery(it) = s.call(CreateIpamResourceDiscovery::default())? else { unreachable!() }; s.call(associate(&s.world.ipam.id.clone(), &it.id))?; s.call(DeleteIpamResourceDiscovery { ipam_resource_discovery_id: it.id }) } },
    Row { input: "AssociateIpamResourceDiscovery twice", code: "InvalidParameterValue", source: Derived("it is associated already"), call: |s| s.call(associate(&s.world.ipam.id.clone(), &s.world.ipam.default_discovery.clone())) },
    Row { input: "DisassociateIpamResourceDiscovery of the default association", code: "OperationNotPermitted", source: Documented(API), call: |s| s.call(DisassociateIpamResourceDiscovery { ipam_resource_discovery_association_id: s.world.ipam.default_association.clone() }) },
    Row { input: "EnableIpamOrganizationAdminAccount by another than the management account", code: "UnauthorizedOperation", source: Documented(GUIDE), call: |s| s.call(EnableIpamOrganizationAdminAccount { delegated_admin_account_id: account(OTHER) }) },
    Row { input: "EnableIpamOrganizationAdminAccount of the management account", code: "InvalidParameterValue", source: Documented("https://github.com/smsilva/wasp-idp/issues/15"), call: |s| { organize(s); s.call(EnableIpamOrganizationAdminAccount { delegated_admin_account_id: account(OWNER) }) } },
    Row { input: "EnableIpamOrganizationAdminAccount of a stranger", code: "InvalidParameterValue", source: Derived("a value that names nothing"), call: |s| { organize(s); s.call(EnableIpamOrganizationAdminAccount { delegated_admin_account_id: account("999999999999") }) } },
    Row { input: "DisableIpamOrganizationAdminAccount of an account that is none", code: "IpamOrganizationAccountNotRegistered", source: Documented(TERRAFORM), call: |s| { organize(s); s.call(DisableIpamOrganizationAdminAccount { delegated_admin_account_id: account(OTHER) }) } },
];

fn associate(ipam: &IpamId, discovery: &DiscoveryId) -> AssociateIpamResourceDiscovery {
    AssociateIpamResourceDiscovery {
        ipam_id: ipam.clone(),
        ipam_resource_discovery_id: discovery.clone(),
        tag_specifications: Vec::new(),
        client_token: None,
    }
}

fn organize(scene: &mut Scene) {
    let (management, members) = (account(OWNER), BTreeSet::from([account(OTHER)]));
    scene.world.plan.set_organization(address_plan::Organization { management, members });
}

#[test]
fn what_aws_refuses_is_refused() {
    let mut wrong = Vec::new();
    for Row { input, code, source: _, call } in ROWS {
        match call(&mut Scene::new()) {
            Err(error) if error.code == *code => assert!(!error.message.is_empty(), "{input}"),
            other => wrong.push(format!("{input}: {code} expected, not {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_refusal_has_its_source() {
    assert!(ROWS.len() >= 60, "{}", ROWS.len());
    let inputs: BTreeSet<&str> = ROWS.iter().map(|row| row.input).collect();
    assert_eq!(inputs.len(), ROWS.len(), "an input is listed once");
    for Row { input, source, .. } in ROWS {
        let well_formed = match source {
            Quoted(url) | Documented(url) => url.starts_with("https://"),
            Derived(reason) => !reason.is_empty(),
        };
        assert!(well_formed, "{input}: {source:?}");
    }
}

/// A refusal changes nothing: afterwards the world answers as before.
#[test]
fn refused_call_changes_nothing() {
    for Row { input, call, .. } in ROWS.iter().filter(|row| row.input.starts_with("Allocate")) {
        let mut scene = Scene::new();
        let before = scene.world.holders(&scene.pool.clone());
        let _refused = call(&mut scene);
        assert_eq!(scene.world.holders(&scene.pool.clone()), before, "{input}");
    }
}

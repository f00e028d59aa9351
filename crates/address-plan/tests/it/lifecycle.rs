//! From an empty organisation to allocations, and back: states, inheritance, deletion, rest.

use std::time::Duration;

use address_plan::Wanted;
use address_plan::block::Family;
use address_plan::config::{Config, Consistency, Quotas, Transitions};
use address_plan::request::{
    AllocateIpamPoolCidr, CreateIpamScope, DeleteIpam, DeleteIpamPool, DeleteIpamScope,
    DeprovisionIpamPoolCidr, DescribeIpamPools, DescribeIpamScopes, DescribeIpams,
    GetIpamPoolAllocations, ModifyIpamPool, ModifyIpamPoolAllocation,
};
use address_plan::response::{Holder, PoolCidrState, Response, State};
use address_plan::rules::Lengths;
use ec2_api::Delay;
use ec2_api::page::Listing;
use ec2_api::tag::Tags;

use crate::world::{AWAY, HOME, OTHER, World, account, net, region, resource_id};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn new_ipam_has_two_scopes_and_a_discovery() {
    let mut world = World::new();
    let Response::Ipams(page) = world.call(DescribeIpams::default()).unwrap() else {
        unreachable!()
    };
    let ipam = &page.items[0];
    assert_eq!((ipam.state, ipam.n_scopes, ipam.n_associations), (State::CreateComplete, 2, 1));
    assert!(ipam.operating_regions.contains(&region(HOME)), "the home Region belongs to it");
    let Response::Scopes(page) = world.call(DescribeIpamScopes::default()).unwrap() else {
        unreachable!()
    };
    let mut types: Vec<_> =
        page.items.iter().map(|it| (it.scope_type.as_str(), it.is_default)).collect();
    types.sort_unstable();
    assert_eq!(types, [("private", true), ("public", true)]);
}

#[test]
fn childs_cidr_is_an_allocation_of_its_parent() {
    let mut world = World::new();
    let top = world.pool_with("10.0.0.0/8");
    let child = world.pool(world.regional(Some(&top)));
    world.provision(&child, "10.64.0.0/16");
    world.provision_any(&child, None, Some(20));
    let expect =
        [format!("10.0.0.0/20 ipam-pool {child}"), format!("10.64.0.0/16 ipam-pool {child}")];
    assert_eq!(world.holders(&top), expect);
    assert_eq!(world.cidr_states(&child), ["10.0.0.0/20 provisioned", "10.64.0.0/16 provisioned"]);
    let taken = world.allocate_cidr(&top, "10.64.1.0/24").map_err(|error| error.code);
    assert_eq!(taken.unwrap_err(), "InvalidParameterValue");
    assert_eq!(world.allocate_len(&child, 24).unwrap(), "10.0.0.0/24");
}

#[test]
fn allocation_is_by_cidr_by_length_or_by_default() {
    let mut world = World::new();
    let lengths = Lengths { min: Some(20), max: Some(28), default: Some(24) };
    let pool =
        world.pool(address_plan::request::CreateIpamPool { lengths, ..world.regional(None) });
    world.provision(&pool, "10.0.0.0/16");
    assert_eq!(world.allocate_cidr(&pool, "10.0.1.0/24").unwrap().cidr, net("10.0.1.0/24"));
    assert_eq!(world.allocate_len(&pool, 28).unwrap(), "10.0.0.0/28");
    let by_default = AllocateIpamPoolCidr::new(pool.clone());
    assert_eq!(world.allocate(by_default.clone()).unwrap().cidr, net("10.0.2.0/24"));
    assert_eq!(world.allocate_len(&pool, 19), Err("InvalidParameterValue".to_owned()));
    assert_eq!(world.allocate_len(&pool, 29), Err("InvalidParameterValue".to_owned()));
    let within = AllocateIpamPoolCidr {
        netmask_length: Some(24),
        allowed_cidrs: vec![net("10.0.128.0/18"), net("10.0.0.0/22")],
        disallowed_cidrs: vec![net("10.0.3.0/26"), net("10.0.128.0/23")],
        ..by_default.clone()
    };
    let preview = AllocateIpamPoolCidr { preview_next_cidr: true, ..within.clone() };
    let expect = net("10.0.130.0/24");
    for _ in 0..2 {
        assert_eq!(world.call(preview.clone()).unwrap(), Response::Preview(expect));
    }
    assert_eq!(world.allocate(within).unwrap().cidr, expect);
}

#[test]
fn client_token_makes_a_call_idempotent() {
    let mut world = World::new();
    let pool = world.pool_with("10.0.0.0/16");
    let request = AllocateIpamPoolCidr {
        netmask_length: Some(24),
        client_token: Some("one".to_owned()),
        ..AllocateIpamPoolCidr::new(pool.clone())
    };
    let first = world.allocate(request.clone()).unwrap();
    assert_eq!(world.allocate(request.clone()).unwrap(), first);
    assert_eq!(world.allocations(&pool).len(), 1);
    let other = AllocateIpamPoolCidr { netmask_length: Some(25), ..request.clone() };
    assert_eq!(world.code(other), "IdempotentParameterMismatch");
    let token = Some("two".to_owned());
    let second = world.allocate(AllocateIpamPoolCidr { client_token: token, ..request }).unwrap();
    assert_ne!(second.cidr, first.cidr);
}

#[test]
fn freed_range_rests_before_it_is_allocated_again() {
    let mut world = World::new();
    let pool = world.pool_with("10.0.0.0/24");
    let first = world.allocate_cidr(&pool, "10.0.0.0/24").unwrap();
    world.release(&pool, &first).unwrap();
    assert!(world.allocations(&pool).is_empty());
    assert_eq!(world.allocate_len(&pool, 28), Err("InvalidParameterValue".to_owned()));
    assert_eq!(world.plan.pool_usage(&pool).unwrap().available, 0.0);
    world.wait(4 * MINUTE);
    assert_eq!(world.allocate_len(&pool, 28), Err("InvalidParameterValue".to_owned()));
    world.wait(MINUTE);
    assert_eq!(world.allocate_len(&pool, 28).unwrap(), "10.0.0.0/28");
}

#[test]
fn states_pass_through_progress() {
    let transitions = Transitions {
        create: Delay::exactly(1_000),
        modify: Delay::exactly(2_000),
        delete: Delay::exactly(3_000),
        provision: Delay::exactly(4_000),
        deprovision: Delay::exactly(5_000),
    };
    let mut world = World::with(Config { transitions, ..Config::default() });
    let early = world.call(CreateIpamScope {
        ipam_id: world.ipam.id.clone(),
        description: None,
        tag_specifications: Vec::new(),
        client_token: None,
    });
    assert_eq!(early.unwrap_err().code, "IncorrectState");
    let state = |world: &mut World| {
        let Response::Pools(page) = world.call(DescribeIpamPools::default()).unwrap() else {
            unreachable!()
        };
        page.items.first().map(|it| it.state.as_str())
    };
    let second = Duration::from_secs(1);
    world.wait(second);
    let pool = world.pool(world.regional(None));
    assert_eq!(state(&mut world), Some("create-in-progress"));
    world.wait(second);
    assert_eq!(state(&mut world), Some("create-complete"));
    let it = world.provision(&pool, "10.0.0.0/16");
    assert_eq!(it.state, PoolCidrState::PendingProvision);
    assert_eq!(world.allocate_len(&pool, 24), Err("InvalidParameterValue".to_owned()));
    world.wait(4 * second);
    assert_eq!(world.cidr_states(&pool), ["10.0.0.0/16 provisioned"]);
    let description = Some("new".to_owned());
    world.call(ModifyIpamPool { description, ..ModifyIpamPool::new(pool.clone()) }).unwrap();
    assert_eq!(state(&mut world), Some("modify-in-progress"));
    world.wait(2 * second);
    assert_eq!(state(&mut world), Some("modify-complete"));
    let cidr = Some(net("10.0.0.0/16"));
    world.call(DeprovisionIpamPoolCidr { ipam_pool_id: pool.clone(), cidr }).unwrap();
    assert_eq!(world.cidr_states(&pool), ["10.0.0.0/16 pending-deprovision"]);
    let delete = DeleteIpamPool { ipam_pool_id: pool.clone(), cascade: false };
    assert_eq!(world.code(delete.clone()), "DependencyViolation");
    world.wait(5 * second);
    assert!(world.cidr_states(&pool).is_empty());
    world.call(delete.clone()).unwrap();
    assert_eq!(state(&mut world), Some("delete-in-progress"));
    assert_eq!(world.code(delete.clone()), "IncorrectState");
    world.wait(3 * second);
    assert_eq!(state(&mut world), None);
    assert_eq!(world.code(delete), "InvalidIpamPoolId.NotFound");
}

#[test]
fn provision_that_cannot_be_fails_in_its_state() {
    let quotas = Quotas { cidrs_per_pool: 2, ..Quotas::default() };
    let mut world = World::with(Config { quotas, ..Config::default() });
    let top = world.pool_with("10.0.0.0/16");
    let rival = world.pool(world.regional(None));
    let it = world.provision(&rival, "10.0.128.0/17");
    assert_eq!(
        it.state,
        PoolCidrState::PendingProvision,
        "success and failure look alike at first"
    );
    assert_eq!(world.cidr_states(&rival), ["10.0.128.0/17 failed-provision"]);
    let child = world.pool(world.regional(Some(&top)));
    world.provision(&child, "10.1.0.0/24");
    world.provision_any(&child, None, Some(15));
    assert_eq!(world.cidr_states(&child), ["- failed-provision", "10.1.0.0/24 failed-provision"]);
    world.provision(&child, "10.0.1.0/24");
    world.provision(&child, "10.0.2.0/24");
    world.provision(&child, "10.0.3.0/24");
    let reasons: Vec<&str> = world
        .cidrs(&child)
        .iter()
        .filter_map(|it| match &it.state {
            PoolCidrState::FailedProvision(code, _) => Some(code.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(reasons.iter().filter(|it| **it == "limit-exceeded").count(), 1, "{reasons:?}");
    assert_eq!(reasons.iter().filter(|it| **it == "cidr-not-available").count(), 2, "{reasons:?}");
    let cidr = Some(net("10.0.128.0/17"));
    world.call(DeprovisionIpamPoolCidr { ipam_pool_id: rival.clone(), cidr }).unwrap();
    assert!(world.cidr_states(&rival).is_empty(), "a failed attempt can be removed");
    world.call(DeleteIpamPool { ipam_pool_id: rival, cascade: false }).unwrap();
}

#[test]
fn cidr_with_allocations_is_not_deprovisioned() {
    let mut world = World::new();
    let top = world.pool_with("10.0.0.0/16");
    let child = world.pool(world.regional(Some(&top)));
    world.provision(&child, "10.0.0.0/20");
    let allocation = world.allocate_cidr(&child, "10.0.1.0/24").unwrap();
    let request =
        DeprovisionIpamPoolCidr { ipam_pool_id: child.clone(), cidr: Some(net("10.0.0.0/20")) };
    world.call(request.clone()).unwrap();
    assert_eq!(world.cidr_states(&child), ["10.0.0.0/20 failed-deprovision"]);
    assert_eq!(world.allocate_len(&child, 24).unwrap(), "10.0.0.0/24", "it still serves");
    for it in world.allocations(&child) {
        world.release(&child, &it).unwrap();
    }
    assert_eq!(allocation.holder, Holder::Custom);
    world.call(request).unwrap();
    assert!(world.cidr_states(&child).is_empty());
    assert!(world.holders(&top).is_empty(), "the range is back in the parent");
    let again = world.provision(&child, "10.0.0.0/20");
    assert_eq!(again.state, PoolCidrState::PendingProvision);
    assert_eq!(world.cidr_states(&child), ["10.0.0.0/20 failed-provision"], "it rests there");
    world.wait(5 * MINUTE);
    world.provision(&child, "10.0.0.0/20");
    assert_eq!(
        world.cidr_states(&child),
        ["10.0.0.0/20 failed-provision", "10.0.0.0/20 provisioned"]
    );
}

#[test]
fn nothing_is_deleted_before_what_depends_on_it() {
    let mut world = World::new();
    let ipam = world.ipam.id.clone();
    let top = world.pool_with("10.0.0.0/16");
    let child = world.pool(world.regional(Some(&top)));
    let delete_top = DeleteIpamPool { ipam_pool_id: top.clone(), cascade: false };
    let delete_ipam = DeleteIpam { ipam_id: ipam, cascade: false };
    assert_eq!(world.code(delete_ipam.clone()), "DependencyViolation");
    assert_eq!(world.code(delete_top.clone()), "DependencyViolation");
    world.call(DeleteIpamPool { ipam_pool_id: child, cascade: false }).unwrap();
    assert_eq!(world.code(delete_top.clone()), "DependencyViolation", "it has a CIDR");
    let cidr = Some(net("10.0.0.0/16"));
    world.call(DeprovisionIpamPoolCidr { ipam_pool_id: top, cidr }).unwrap();
    world.call(delete_top).unwrap();
    world.call(delete_ipam).unwrap();
    let Response::Scopes(page) = world.call(DescribeIpamScopes::default()).unwrap() else {
        unreachable!()
    };
    assert!(page.items.is_empty(), "default scopes go with their IPAM");
}

#[test]
fn cascade_deletes_what_lies_below() {
    let mut world = World::new();
    let top = world.pool_with("10.0.0.0/16");
    let middle = world.pool(world.regional(Some(&top)));
    world.provision(&middle, "10.0.0.0/20");
    let low = world.pool(world.regional(Some(&middle)));
    world.provision(&low, "10.0.0.0/22");
    world.allocate_len(&low, 24).unwrap();
    world.call(DeleteIpamPool { ipam_pool_id: middle, cascade: true }).unwrap();
    assert!(world.holders(&top).is_empty());
    let find = DescribeIpamPools { ipam_pool_ids: vec![low], listing: Listing::default() };
    assert_eq!(world.code(find), "InvalidIpamPoolId.NotFound");
    let cascade = DeleteIpam { ipam_id: world.ipam.id.clone(), cascade: true };
    world.call(cascade).unwrap();
    let Response::Pools(page) = world.call(DescribeIpamPools::default()).unwrap() else {
        unreachable!()
    };
    assert!(page.items.is_empty());
}

#[test]
fn scopes_may_contain_the_same_range() {
    let mut world = World::new();
    let first = world.pool_with("10.0.0.0/16");
    let request = CreateIpamScope {
        ipam_id: world.ipam.id.clone(),
        description: None,
        tag_specifications: Vec::new(),
        client_token: None,
    };
    let Response::Scope(scope) = world.call(request).unwrap() else { unreachable!() };
    let request = world.regional(None);
    let second = world
        .pool(address_plan::request::CreateIpamPool { ipam_scope_id: scope.id.clone(), ..request });
    world.provision(&second, "10.0.0.0/16");
    for pool in [&first, &second] {
        assert_eq!(world.cidr_states(pool), ["10.0.0.0/16 provisioned"]);
    }
    let delete = DeleteIpamScope { ipam_scope_id: scope.id };
    assert_eq!(world.code(delete.clone()), "DependencyViolation");
    world.call(DeleteIpamPool { ipam_pool_id: second, cascade: true }).unwrap();
    world.call(delete).unwrap();
}

#[test]
fn locale_is_inherited_and_stays() {
    let mut world = World::new();
    let none = address_plan::request::CreateIpamPool { locale: None, ..world.regional(None) };
    let top = world.pool(none);
    world.provision(&top, "10.0.0.0/8");
    assert_eq!(world.allocate_len(&top, 24), Err("InvalidParameterValue".to_owned()));
    let away = address_plan::request::CreateIpamPool {
        locale: Some(region(AWAY)),
        ..world.regional(Some(&top))
    };
    let away = world.pool(away);
    let inherits =
        address_plan::request::CreateIpamPool { locale: None, ..world.regional(Some(&away)) };
    let below = world.pool(inherits);
    let Response::Pools(page) = world
        .call(DescribeIpamPools { ipam_pool_ids: vec![below], listing: Listing::default() })
        .unwrap()
    else {
        unreachable!()
    };
    assert_eq!(page.items[0].locale, Some(region(AWAY)));
    assert_eq!(page.items[0].depth, 3);
    assert_eq!(world.code(world.regional(Some(&away))), "InvalidParameterValue");
    world.provision(&away, "10.8.0.0/16");
    let by_length = AllocateIpamPoolCidr {
        netmask_length: Some(24),
        ..AllocateIpamPoolCidr::new(away.clone())
    };
    assert_eq!(world.code(by_length.clone()), "InvalidParameterValue", "not in the home Region");
    let owner = world.caller.account.to_string();
    world.call_as(&owner, AWAY, by_length).unwrap();
    let find = DescribeIpamPools { ipam_pool_ids: vec![top], listing: Listing::default() };
    let hidden = world.call_as(&owner, AWAY, find).unwrap_err();
    assert_eq!(hidden.code, "InvalidIpamPoolId.NotFound");
}

#[test]
fn new_objects_may_be_hidden_at_first() {
    let consistency = Consistency { hidden_permille: 1000, hidden: Delay::exactly(1_000) };
    let mut world = World::with(Config { consistency, ..Config::default() });
    world.wait(Duration::from_secs(1));
    let pool = world.pool(world.regional(None));
    let request = crate::world::provision(&pool, Some(net("10.0.0.0/16")), None);
    assert_eq!(world.code(request), "InvalidIpamPoolId.NotFound");
    world.wait(Duration::from_secs(1));
    world.provision(&pool, "10.0.0.0/16");
    let allocation = world.allocate_cidr(&pool, "10.0.0.0/24").unwrap();
    let get = GetIpamPoolAllocations {
        ipam_pool_id: pool.clone(),
        ipam_pool_allocation_id: Some(allocation.id.clone()),
        listing: Listing::default(),
    };
    assert_eq!(world.code(get.clone()), "InvalidIpamPoolAllocationId.NotFound");
    assert_eq!(
        world.allocate_cidr(&pool, "10.0.0.0/25").unwrap_err().code,
        "InvalidParameterValue",
        "what is not shown is taken all the same"
    );
    world.wait(Duration::from_secs(1));
    world.call(get).unwrap();
    let description = Some("site B".to_owned());
    let modify = ModifyIpamPoolAllocation { ipam_pool_allocation_id: allocation.id, description };
    let Response::Allocation(after) = world.call(modify).unwrap() else { unreachable!() };
    assert_eq!(after.description.as_deref(), Some("site B"));
}

#[test]
fn failed_creation_gives_its_range_back_at_once() {
    let mut world = World::new();
    let pool = world.pool_with("10.0.0.0/24");
    let wanted = Wanted { netmask_length: Some(24), ..Wanted::default() };
    let holder = Holder::Vpc(resource_id("vpc-1"));
    let caller = world.caller.clone();
    let take = |world: &mut World| {
        world.plan.allocate_for(&caller, &pool, &wanted, holder.clone(), &Tags::new())
    };
    let first = take(&mut world).unwrap();
    assert_eq!(
        take(&mut world).unwrap_err().message,
        "The allocation size is too big for the pool."
    );
    assert!(world.plan.abandon(&pool, &first.id));
    assert!(!world.plan.abandon(&pool, &first.id));
    take(&mut world).unwrap();
}

#[test]
fn shared_pool_serves_another_account() {
    let mut world = World::new();
    let pool = world.pool_with("10.0.0.0/16");
    let request = AllocateIpamPoolCidr {
        netmask_length: Some(24),
        ..AllocateIpamPoolCidr::new(pool.clone())
    };
    let stranger = world.call_as(OTHER, HOME, request.clone()).unwrap_err();
    assert_eq!(stranger.code, "InvalidIpamPoolId.NotFound");
    world.allocate(request.clone()).unwrap();
    world.plan.share(pool.as_str(), &account(OTHER));
    let Response::Allocation(theirs) = world.call_as(OTHER, HOME, request).unwrap() else {
        unreachable!()
    };
    assert_eq!((theirs.cidr, theirs.owner), (net("10.0.1.0/24"), account(OTHER)));
    let all = GetIpamPoolAllocations {
        ipam_pool_id: pool.clone(),
        ipam_pool_allocation_id: None,
        listing: Listing::default(),
    };
    let Response::Allocations(page) = world.call_as(OTHER, HOME, all).unwrap() else {
        unreachable!()
    };
    assert_eq!(page.items.iter().map(|it| it.cidr).collect::<Vec<_>>(), [net("10.0.1.0/24")]);
    assert_eq!(world.allocations(&pool).len(), 2);
    let delete = DeleteIpamPool { ipam_pool_id: pool.clone(), cascade: true };
    assert_eq!(world.call_as(OTHER, HOME, delete).unwrap_err().code, "UnauthorizedOperation");
    world.plan.unshare(pool.as_str(), &account(OTHER));
    assert_eq!(world.allocations(&pool).len(), 2, "allocations outlive the share");
}

#[test]
fn ipv6_pools_work_alike() {
    let mut world = World::new();
    let pool = world.pool(address_plan::request::CreateIpamPool {
        locale: Some(region(HOME)),
        ..address_plan::request::CreateIpamPool::new(world.private(), Family::Ipv6)
    });
    world.provision(&pool, "fd00:1::/48");
    assert_eq!(world.allocate_len(&pool, 56).unwrap(), "fd00:1::/56");
    assert_eq!(world.allocate_len(&pool, 64).unwrap(), "fd00:1:0:100::/64");
    assert_eq!(world.allocate_len(&pool, 129), Err("InvalidParameterValue".to_owned()));
}

#[test]
fn range_of_amazon_is_given_to_one_ipam() {
    let mut world = World::new();
    let amazon = |world: &World| address_plan::request::CreateIpamPool {
        public_ip_source: Some(address_plan::request::PublicIpSource::Amazon),
        ..address_plan::request::CreateIpamPool::new(world.ipam.public_scope.clone(), Family::Ipv4)
    };
    let request = amazon(&world);
    let pool = world.pool(request);
    for _ in 0..40 {
        world.provision_any(&pool, None, Some(24));
    }
    let cidrs: Vec<_> = world.cidrs(&pool).into_iter().map(|it| it.cidr.unwrap()).collect();
    for (number, cidr) in cidrs.iter().enumerate() {
        assert!(net("3.4.0.0/16").contains(cidr), "{cidr}");
        assert!(!cidrs[..number].contains(cidr), "{cidr} is given twice");
    }
}

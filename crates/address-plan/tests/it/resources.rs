//! What samples show: management, compliance, overlap, usage, imports, history, active addresses.

use std::collections::BTreeSet;
use std::time::Duration;

use address_plan::config::{Config, Discovery};
use address_plan::id::PoolId;
use address_plan::request::{
    CreateIpamPool, CreateIpamScope, DisableIpamOrganizationAdminAccount,
    EnableIpamOrganizationAdminAccount, GetIpamAddressHistory, GetIpamResourceCidrs,
    ModifyIpamResourceCidr, SourceResource,
};
use address_plan::resource::{Detail, Resource};
use address_plan::response::{Holder, Response, Scope};
use address_plan::rules::Lengths;
use address_plan::{ActiveAddresses, ScopeCounts, Wanted};
use ec2_api::Delay;
use ec2_api::page::Listing;
use ec2_api::tag::Tags;

use crate::world::{
    AWAY, HOME, MANAGEMENT, OTHER, OWNER, World, account, filter, net, region, resource_id, subnet,
    tag, tags, vpc,
};

const MINUTE: Duration = Duration::from_secs(60);

/// Makes a VPC with a range of the pool, as CreateVpc does, and says which range.
fn create_vpc(world: &mut World, pool: &PoolId, id: &str, len: i32) -> String {
    let wanted = Wanted { netmask_length: Some(len), ..Wanted::default() };
    let holder = Holder::Vpc(resource_id(id));
    let caller = world.caller.clone();
    let made = world.plan.allocate_for(&caller, pool, &wanted, holder, &Tags::new()).unwrap();
    made.cidr.to_string()
}

fn importing(world: &World) -> CreateIpamPool {
    CreateIpamPool { auto_import: true, ..world.regional(None) }
}

#[test]
fn vpc_is_managed_as_soon_as_it_is_seen() {
    let mut world = World::new();
    let scope = world.private();
    let pool = world.pool_with("10.0.0.0/16");
    let cidr = create_vpc(&mut world, &pool, "vpc-a", 20);
    assert!(world.statuses(&scope).is_empty(), "nobody has looked");
    world.observe(OWNER, HOME, vec![vpc("vpc-a", &[&cidr]), vpc("vpc-b", &["10.9.0.0/16"])]);
    assert_eq!(
        world.statuses(&scope),
        [
            "vpc-a 10.0.0.0/20 managed compliant nonoverlapping",
            "vpc-b 10.9.0.0/16 unmanaged unmanaged nonoverlapping",
        ]
    );
    assert_eq!(world.holders(&pool), ["10.0.0.0/20 vpc vpc-a"]);
}

#[test]
fn allocation_of_a_vpc_goes_with_the_vpc_after_the_lag() {
    let discovery = Discovery { period_ms: 600_000, lag: Delay::exactly(20 * 60_000) };
    let mut world = World::with(Config { discovery, ..Config::default() });
    let pool = world.pool_with("10.0.0.0/16");
    let place = (account(OWNER), region(HOME));
    assert!(world.plan.next_sample_at(&place.0, &place.1) <= world.caller.now);
    world.observe(OWNER, HOME, Vec::new());
    assert_eq!(world.plan.next_sample_at(&place.0, &place.1), world.caller.now + 10 * MINUTE);
    world.wait(MINUTE);
    let cidr = create_vpc(&mut world, &pool, "vpc-a", 20);
    world.wait(20 * MINUTE);
    assert_eq!(world.holders(&pool).len(), 1, "a sample from before it says nothing of it");
    world.observe(OWNER, HOME, vec![vpc("vpc-a", &[&cidr])]);
    world.wait(20 * MINUTE);
    assert_eq!(world.statuses(&world.private()).len(), 1);
    world.observe(OWNER, HOME, Vec::new());
    world.wait(19 * MINUTE);
    assert_eq!(world.holders(&pool).len(), 1);
    world.wait(MINUTE);
    assert!(world.holders(&pool).is_empty());
    assert_eq!(world.allocate_len(&pool, 20).unwrap(), "10.0.16.0/20", "the range rests");
    world.wait(5 * MINUTE);
    assert_eq!(world.allocate_len(&pool, 20).unwrap(), "10.0.0.0/20");
}

#[test]
fn allocation_where_the_ipam_cannot_look_stays() {
    let mut world = World::new();
    let pool = world.pool_with("10.0.0.0/16");
    world.plan.share(pool.as_str(), &account(OTHER));
    let (management, delegated_admin_account_id) = (account(MANAGEMENT), account(OWNER));
    let members = [account(OWNER), account(OTHER)].into();
    world.plan.set_organization(address_plan::Organization { management, members });
    let enable = EnableIpamOrganizationAdminAccount { delegated_admin_account_id };
    world.call_as(MANAGEMENT, HOME, enable).unwrap();
    let wanted = Wanted { netmask_length: Some(24), ..Wanted::default() };
    let caller = address_plan::Caller { account: account(OTHER), ..world.caller.clone() };
    let holder = Holder::Vpc(resource_id("vpc-a"));
    world.plan.allocate_for(&caller, &pool, &wanted, holder, &Tags::new()).unwrap();
    world.wait(MINUTE);
    let delegated_admin_account_id = account(OWNER);
    let disable = DisableIpamOrganizationAdminAccount { delegated_admin_account_id };
    world.call_as(MANAGEMENT, HOME, disable).unwrap();
    world.observe(OTHER, HOME, Vec::new());
    assert_eq!(world.holders(&pool), ["10.0.0.0/24 vpc vpc-a"]);
}

#[test]
fn overlap_is_between_networks_of_one_scope() {
    let mut world = World::new();
    let scope = world.private();
    let resources = || {
        vec![
            vpc("vpc-a", &["10.0.0.0/16"]),
            subnet("subnet-a", "vpc-a", "10.0.1.0/24", 9),
            subnet("subnet-b", "vpc-a", "10.0.200.0/24", 9),
            vpc("vpc-b", &["10.0.0.0/20"]),
            vpc("vpc-c", &["10.1.0.0/16", "10.2.0.0/16"]),
        ]
    };
    world.observe(OWNER, HOME, resources());
    world.observe(OWNER, AWAY, vec![vpc("vpc-d", &["10.2.128.0/17"])]);
    let overlaps = |world: &mut World| {
        let found = world.resource_cidrs(&world.private());
        let overlaps = found.into_iter().filter(|it| it.overlap.as_str() == "overlapping");
        overlaps.map(|it| format!("{} {}", it.resource, it.cidr)).collect::<Vec<_>>()
    };
    assert_eq!(
        overlaps(&mut world),
        [
            "subnet-a 10.0.1.0/24",
            "vpc-a 10.0.0.0/16",
            "vpc-b 10.0.0.0/20",
            "vpc-c 10.2.0.0/16",
            "vpc-d 10.2.128.0/17",
        ]
    );
    // Two cures: another scope, and not to look.
    let request = CreateIpamScope {
        ipam_id: world.ipam.id.clone(),
        description: None,
        tag_specifications: Vec::new(),
        client_token: None,
    };
    let Response::Scope(Scope { id: other, .. }) = world.call(request).unwrap() else {
        unreachable!()
    };
    let modify = |resource: &str, cidr: &str, at: &str, monitored| ModifyIpamResourceCidr {
        resource_id: resource_id(resource),
        resource_cidr: net(cidr),
        resource_region: region(at),
        current_ipam_scope_id: scope.clone(),
        destination_ipam_scope_id: None,
        monitored,
    };
    let moved = ModifyIpamResourceCidr {
        destination_ipam_scope_id: Some(other.clone()),
        ..modify("vpc-b", "10.0.0.0/20", HOME, true)
    };
    world.call(moved).unwrap();
    world.call(modify("vpc-d", "10.2.128.0/17", AWAY, false)).unwrap();
    assert_eq!(overlaps(&mut world), Vec::<String>::new());
    assert_eq!(world.statuses(&other), ["vpc-b 10.0.0.0/20 unmanaged unmanaged nonoverlapping"]);
    let ignored: Vec<_> =
        world.statuses(&scope).into_iter().filter(|it| it.contains("ignored")).collect();
    assert_eq!(ignored, ["vpc-d 10.2.128.0/17 ignored ignored ignored"]);
    assert_eq!(
        world.plan.scope_counts(&scope),
        ScopeCounts { unmanaged: 5, nonoverlapping: 5, ..ScopeCounts::default() }
    );
}

#[test]
fn ignored_vpc_loses_its_allocation() {
    let mut world = World::new();
    let pool = world.pool_with("10.0.0.0/16");
    let cidr = create_vpc(&mut world, &pool, "vpc-a", 20);
    world.observe(OWNER, HOME, vec![vpc("vpc-a", &[&cidr])]);
    let request = |monitored| ModifyIpamResourceCidr {
        resource_id: resource_id("vpc-a"),
        resource_cidr: net(&cidr),
        resource_region: region(HOME),
        current_ipam_scope_id: world.ipam.private_scope.clone(),
        destination_ipam_scope_id: None,
        monitored,
    };
    let (ignore, monitor) = (request(false), request(true));
    world.call(ignore).unwrap();
    assert_eq!(world.holders(&pool).len(), 1, "until the next sample");
    world.observe(OWNER, HOME, vec![vpc("vpc-a", &[&cidr])]);
    assert!(world.holders(&pool).is_empty());
    world.call(monitor).unwrap();
    assert_eq!(
        world.statuses(&world.private()),
        ["vpc-a 10.0.0.0/20 unmanaged unmanaged nonoverlapping"]
    );
}

#[test]
fn import_adopts_the_largest_and_one_of_equals() {
    let mut world = World::new();
    let pool = world.pool(CreateIpamPool {
        lengths: Lengths { min: Some(20), ..Lengths::default() },
        allocation_resource_tags: vec![tag("env", "prod")],
        ..importing(&world)
    });
    world.provision(&pool, "10.0.0.0/8");
    let prod = Resource { tags: tags(&[("env", "prod")]), ..vpc("vpc-d", &["10.3.0.0/20"]) };
    world.observe(
        OWNER,
        HOME,
        vec![
            vpc("vpc-a", &["10.1.0.0/20"]),
            vpc("vpc-b", &["10.1.0.0/16"]),
            vpc("vpc-c", &["10.2.0.0/16"]),
            vpc("vpc-c2", &["10.2.0.0/16"]),
            prod,
            vpc("vpc-e", &["11.0.0.0/16"]),
        ],
    );
    world.observe(OWNER, AWAY, vec![vpc("vpc-f", &["10.5.0.0/16"])]);
    assert_eq!(
        world.holders(&pool),
        ["10.1.0.0/16 vpc vpc-b", "10.2.0.0/16 vpc vpc-c", "10.3.0.0/20 vpc vpc-d"]
    );
    let of_pool = GetIpamResourceCidrs {
        ipam_pool_id: Some(pool.clone()),
        listing: filter("compliance-status", "noncompliant"),
        ..GetIpamResourceCidrs::new(world.private())
    };
    let Response::ResourceCidrs(page) = world.call(of_pool).unwrap() else { unreachable!() };
    let names: Vec<&str> = page.items.iter().map(|it| it.resource.as_str()).collect();
    assert_eq!(names, ["vpc-b", "vpc-c"], "an import obeys no rule, and is shown so");
}

#[test]
fn allocation_does_not_know_what_is_not_imported() {
    let mut world = World::new();
    let pool = world.pool(importing(&world));
    world.observe(OWNER, HOME, vec![vpc("vpc-0", &["10.0.0.0/16"])]);
    world.provision(&pool, "10.0.0.0/8");
    assert_eq!(world.allocate_len(&pool, 24).unwrap(), "10.0.0.0/24", "as on AWS");
    world.observe(OWNER, HOME, vec![vpc("vpc-0", &["10.0.0.0/16"])]);
    assert_eq!(world.holders(&pool), ["10.0.0.0/24 custom"], "the import finds the range taken");
}

#[test]
fn planning_pool_serves_subnets_of_its_vpc() {
    let mut world = World::new();
    let pool = world.pool_with("10.0.0.0/8");
    let cidr = create_vpc(&mut world, &pool, "vpc-a", 16);
    let source = |id: &str| SourceResource {
        resource_id: resource_id(id),
        resource_region: region(HOME),
        resource_owner: account(OWNER),
    };
    let request = |id: &str| CreateIpamPool {
        source_resource: Some(source(id)),
        ..world.regional(Some(&pool))
    };
    let (planning, wrong) = (request("vpc-a"), request("vpc-b"));
    assert_eq!(world.code(wrong), "InvalidParameterValue");
    let planning = world.pool(planning);
    world.provision(&planning, "11.0.0.0/16");
    world.provision(&planning, &cidr);
    assert_eq!(
        world.cidr_states(&planning),
        ["10.0.0.0/16 provisioned", "11.0.0.0/16 failed-provision"]
    );
    let wanted = Wanted { netmask_length: Some(24), ..Wanted::default() };
    let caller = world.caller.clone();
    let mut take = |from: &PoolId, holder: Holder| {
        let taken = world.plan.allocate_for(&caller, from, &wanted, holder, &Tags::new());
        taken.map(|it| it.cidr.to_string()).map_err(|error| error.message)
    };
    let subnet_a = || Holder::Subnet(resource_id("subnet-a"));
    assert_eq!(take(&planning, subnet_a()).unwrap(), "10.0.0.0/24");
    let refused = take(&pool, subnet_a()).unwrap_err();
    assert_eq!(refused, format!("IpamPool '{pool}' is missing a source resource"));
    take(&planning, Holder::Vpc(resource_id("vpc-b"))).unwrap_err();
    world.observe(
        OWNER,
        HOME,
        vec![vpc("vpc-a", &[&cidr]), subnet("subnet-a", "vpc-a", "10.0.0.0/24", 64)],
    );
    assert_eq!(
        world.statuses(&world.private()),
        [
            "subnet-a 10.0.0.0/24 managed compliant nonoverlapping",
            "vpc-a 10.0.0.0/16 managed compliant nonoverlapping",
        ]
    );
    let usage: Vec<_> = world.resource_cidrs(&world.private()).iter().map(|it| it.usage).collect();
    assert_eq!(usage, [Some(0.25), Some(1.0 / 256.0)]);
}

#[test]
fn pool_usage_tells_pools_from_resources() {
    let mut world = World::new();
    let top = world.pool_with("10.0.0.0/16");
    assert_eq!(world.plan.pool_usage(&top).unwrap().available, 1.0);
    let child = world.pool(world.regional(Some(&top)));
    assert_eq!(world.plan.pool_usage(&child), None, "it has no CIDR");
    world.provision(&child, "10.0.0.0/17");
    world.allocate_cidr(&top, "10.0.128.0/18").unwrap();
    let resting = world.allocate_cidr(&top, "10.0.192.0/19").unwrap();
    world.release(&top, &resting).unwrap();
    let usage = world.plan.pool_usage(&top).unwrap();
    assert_eq!((usage.allocated, usage.assigned, usage.available), (0.5, 0.25, 0.125));
}

fn eni(id: &str, addresses: &[&str], prefixes: &[&str], instance: Option<&str>) -> Resource {
    Resource {
        id: resource_id(id),
        vpc: Some(resource_id("vpc-a")),
        zone_id: None,
        tags: Tags::new(),
        detail: Detail::Eni {
            addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
            prefixes: prefixes.iter().map(|it| net(it)).collect(),
            instance: instance.map(resource_id),
        },
    }
}

fn eip(id: &str, address: &str, in_use: bool) -> Resource {
    let detail = Detail::Eip { address: address.parse().unwrap(), in_use };
    Resource { id: resource_id(id), vpc: None, zone_id: None, tags: Tags::new(), detail }
}

#[test]
fn active_addresses_have_two_bounds() {
    let mut world = World::new();
    world.observe(
        OWNER,
        HOME,
        vec![
            vpc("vpc-a", &["10.0.0.0/16"]),
            eni("eni-a", &["10.0.0.4", "10.0.0.5"], &["10.0.1.0/28", "10.0.2.0/28"], Some("i-a")),
            eni("eni-b", &["10.0.0.6", "fd00::6"], &["fd00::1:0:0:0/80"], Some("i-b")),
            eni("eni-c", &["10.0.0.7"], &[], None),
            eip("eipalloc-a", "3.4.5.6", true),
            eip("eipalloc-b", "3.4.5.7", false),
        ],
    );
    let active = world.plan.active_addresses(&world.ipam.id);
    assert_eq!(active, ActiveAddresses { addresses: 5, prefixes: 3, in_prefixes: 33 });
    assert_eq!((active.at_least(), active.at_most()), (8, 38));
    let entries = world.plan.active_entries(&world.ipam.id);
    let of: Vec<_> =
        entries.iter().map(|it| (it.resource.as_str(), it.active.at_least())).collect();
    assert_eq!(of, [("eipalloc-a", 1), ("eni-a", 4), ("eni-b", 3)]);
    assert_eq!(entries[1].instance, Some(resource_id("i-a")));
    // Public: the Elastic IP addresses. All else is private.
    assert_eq!(world.statuses(&world.ipam.public_scope.clone()).len(), 2);
    world.observe(OWNER, HOME, Vec::new());
    assert_eq!(world.plan.active_addresses(&world.ipam.id), ActiveAddresses::default());
    let elsewhere = vec![eni("eni-a", &["10.0.0.4"], &[], Some("i-a"))];
    world.observe(OTHER, HOME, elsewhere);
    assert_eq!(world.plan.active_addresses(&world.ipam.id).at_most(), 0, "not the IPAM's account");
}

#[test]
fn history_says_what_used_a_cidr_and_when() {
    let mut world = World::new();
    let named = Resource { tags: tags(&[("Name", "old")]), ..vpc("vpc-a", &["10.0.0.0/16"]) };
    let start = world.caller.now;
    world.observe(OWNER, HOME, vec![named]);
    world.wait(MINUTE);
    world.observe(OWNER, HOME, vec![vpc("vpc-b", &["10.0.0.0/16"])]);
    world.wait(MINUTE);
    world.observe(
        OWNER,
        HOME,
        vec![vpc("vpc-b", &["10.0.0.0/16"]), vpc("vpc-c", &["10.0.0.0/20"])],
    );
    let request = GetIpamAddressHistory {
        cidr: net("10.0.0.0/16"),
        ipam_scope_id: world.private(),
        vpc_id: None,
        start_time: None,
        end_time: None,
        listing: Listing::default(),
    };
    let mut show = |request: GetIpamAddressHistory| {
        let Response::AddressHistory(page) = world.call(request).unwrap() else { unreachable!() };
        let line = |it: &address_plan::response::HistoryRecord| {
            let end = it.end.map_or_else(String::new, |end| format!("{:?}", end.since(start)));
            let from = it.start.since(start);
            format!("{} {from:?}..{end} {}", it.resource, it.overlap.as_str())
        };
        page.items.iter().map(line).collect::<Vec<_>>()
    };
    let whole = [
        "vpc-a 0ns..60s nonoverlapping",
        "vpc-b 60s..120s nonoverlapping",
        "vpc-b 120s.. overlapping",
    ];
    assert_eq!(show(request.clone()), whole);
    let late = GetIpamAddressHistory { start_time: Some(start + 2 * MINUTE), ..request.clone() };
    assert_eq!(show(late), whole[1..]);
    let of = GetIpamAddressHistory { vpc_id: Some(resource_id("vpc-a")), ..request.clone() };
    assert_eq!(show(of), whole[..1]);
    let exact = GetIpamAddressHistory { cidr: net("10.0.0.0/17"), ..request };
    assert!(show(exact).is_empty(), "the CIDR is compared exactly");
}

#[test]
fn subnet_usage_is_a_share_of_its_addresses() {
    let mut world = World::new();
    let dual = Resource {
        detail: Detail::Subnet {
            cidrs: BTreeSet::from([net("10.0.1.0/28"), net("fd00:1::/64")]),
            n_in_use: 16,
        },
        ..subnet("subnet-a", "vpc-a", "10.0.1.0/28", 0)
    };
    world.observe(OWNER, HOME, vec![vpc("vpc-a", &["10.0.0.0/16", "fd00:1::/56"]), dual]);
    let usage: Vec<_> = world
        .resource_cidrs(&world.private())
        .iter()
        .map(|it| (it.cidr.to_string(), it.usage))
        .collect();
    let expect = [
        ("10.0.1.0/28".to_owned(), Some(1.0)),
        ("fd00:1::/64".to_owned(), None),
        ("10.0.0.0/16".to_owned(), Some(1.0 / 4096.0)),
        ("fd00:1::/56".to_owned(), None),
    ];
    assert_eq!(usage, expect);
}

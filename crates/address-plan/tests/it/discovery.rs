//! Several accounts: resource discoveries, their association, the organisation.

use std::collections::BTreeSet;

use address_plan::Organization;
use address_plan::request::{
    AssociateIpamResourceDiscovery, CreateIpamResourceDiscovery,
    DescribeIpamResourceDiscoveryAssociations, DisassociateIpamResourceDiscovery,
    EnableIpamOrganizationAdminAccount, GetIpamDiscoveredAccounts, GetIpamDiscoveredResourceCidrs,
};
use address_plan::response::{Association, Discovery, Response};
use ec2_api::page::Listing;

use crate::world::{AWAY, HOME, MANAGEMENT, OTHER, OWNER, World, account, region, vpc};

fn resources(world: &mut World) -> Vec<String> {
    let cidrs = world.resource_cidrs(&world.private());
    cidrs.iter().map(|it| format!("{} {}", it.owner, it.resource)).collect()
}

fn show_all(world: &mut World) {
    world.observe(OWNER, HOME, vec![vpc("vpc-a", &["10.0.0.0/16"])]);
    world.observe(OWNER, "ap-south-1", vec![vpc("vpc-b", &["10.1.0.0/16"])]);
    world.observe(OTHER, HOME, vec![vpc("vpc-c", &["10.2.0.0/16"])]);
    world.observe(OTHER, AWAY, vec![vpc("vpc-d", &["10.3.0.0/16"])]);
}

#[test]
fn ipam_sees_its_account_in_its_operating_regions() {
    let mut world = World::new();
    show_all(&mut world);
    assert_eq!(resources(&mut world), [format!("{OWNER} vpc-a")]);
}

#[test]
fn administrator_sees_the_whole_organisation() {
    let mut world = World::new();
    show_all(&mut world);
    let members = BTreeSet::from([account(OWNER), account(OTHER)]);
    let management = account(MANAGEMENT);
    world.plan.set_organization(Organization { management, members });
    assert_eq!(resources(&mut world).len(), 1, "nobody is administrator");
    let enable = EnableIpamOrganizationAdminAccount { delegated_admin_account_id: account(OWNER) };
    world.call_as(MANAGEMENT, HOME, enable).unwrap();
    let expect = ["111122223333 vpc-a", "444455556666 vpc-c", "444455556666 vpc-d"];
    assert_eq!(resources(&mut world), expect);
    let request = GetIpamDiscoveredAccounts {
        ipam_resource_discovery_id: world.ipam.default_discovery.clone(),
        discovery_region: region(AWAY),
        listing: Listing::default(),
    };
    let Response::DiscoveredAccounts(page) = world.call(request).unwrap() else { unreachable!() };
    let accounts: Vec<_> = page.items.iter().map(|it| it.account.as_str()).collect();
    assert_eq!(accounts, [OTHER], "the others have not been looked at there");
}

#[test]
fn associated_discovery_shows_another_account() {
    let mut world = World::new();
    show_all(&mut world);
    let create = CreateIpamResourceDiscovery::default();
    let Response::Discovery(Discovery { id, .. }) = world.call_as(OTHER, HOME, create).unwrap()
    else {
        unreachable!()
    };
    let associate = AssociateIpamResourceDiscovery {
        ipam_id: world.ipam.id.clone(),
        ipam_resource_discovery_id: id.clone(),
        tag_specifications: Vec::new(),
        client_token: None,
    };
    assert_eq!(world.code(associate.clone()), "InvalidIpamResourceDiscoveryId.NotFound");
    world.plan.share(id.as_str(), &account(OWNER));
    let Response::Association(Association { id: association, .. }) = world.call(associate).unwrap()
    else {
        unreachable!()
    };
    let expect = ["111122223333 vpc-a", "444455556666 vpc-c"];
    assert_eq!(resources(&mut world), expect, "the discovery looks in its own Region alone");
    let found = GetIpamDiscoveredResourceCidrs {
        ipam_resource_discovery_id: id,
        resource_region: region(HOME),
        listing: Listing::default(),
    };
    let Response::DiscoveredResourceCidrs(page) = world.call(found).unwrap() else {
        unreachable!()
    };
    assert_eq!(page.items[0].resource.as_str(), "vpc-c");
    assert_eq!(page.items[0].sampled_at, world.caller.now);
    let all = DescribeIpamResourceDiscoveryAssociations::default();
    let Response::Associations(page) = world.call(all).unwrap() else { unreachable!() };
    assert_eq!(page.items.iter().filter(|it| it.is_default).count(), 1);
    assert_eq!(page.items.len(), 2);
    let end =
        DisassociateIpamResourceDiscovery { ipam_resource_discovery_association_id: association };
    world.call(end).unwrap();
    assert_eq!(resources(&mut world), expect[..1]);
}

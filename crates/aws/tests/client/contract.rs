//! What the crate expects of EC2, as clauses that hold on every server of EC2.
//!
//! The same clauses run against `vpc-sim`, where all of them hold, and against moto's server,
//! where those hold that it knows of. Neither knows the other, so what both say is probably so.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use aws::{ConnectOptions, Ec2, Imds, instance_limits};
use ipam::block::Block;
use ipam::call::{
    Ask, CLUSTER_TAG, CallErrorKind, CallOutput, Ec2Call, EniFacts, EniKind, INSTANCE_TAG,
};
use ipam::id::{EniId, SubnetId};
use settings::known_limits;

use super::node::{Node, nodes};
use super::servers::{Process, REGION, Site, TYPE, VpcSim, ZONE, plain_client};
use super::wire::{id, options};

/// The clauses that do not hold on moto 5.2, and why. A clause that begins to hold there fails
/// the test, so that the list stays true.
const MOTO_DIFFERS: &[(&str, &str)] = &[
    ("a_device_index_cannot_be_taken_twice", "it does not look at what is attached where"),
    ("a_fragmented_subnet_says_so", NO_PREFIXES),
    ("a_subnet_without_ipv6_says_so", NO_PREFIXES),
    ("an_attached_eni_cannot_be_deleted", "it deletes it, and the instance goes on to list it"),
    ("an_eni_cannot_be_attached_twice", "it does not look at what is attached where"),
    ("an_eni_dies_with_its_instance_once_told_so", "it ignores the attribute in silence"),
    ("an_eni_takes_no_more_addresses_than_its_type_allows", NO_LIMITS),
    ("an_exhausted_subnet_says_so", "it gives the same address twice rather than none"),
    ("an_instance_takes_no_more_enis_than_its_type_allows", NO_LIMITS),
    ("assign_adds_ipv6_prefixes", NO_PREFIXES),
    ("assign_adds_prefixes", NO_PREFIXES),
    ("assign_answers_with_what_it_added", "it answers with all addresses, the primary included"),
    ("create_gives_the_ipv6_prefixes_that_were_asked_for", NO_PREFIXES),
    ("create_gives_the_prefixes_that_were_asked_for", NO_PREFIXES),
    ("the_same_token_gives_the_same_eni", "it ignores client tokens"),
    ("unassign_takes_ipv6_prefixes_off", NO_PREFIXES),
    ("unassign_takes_prefixes_off", NO_PREFIXES),
    ("what_is_not_assigned_cannot_be_unassigned", "it does not look at what is assigned"),
];
const NO_PREFIXES: &str = "it ignores prefixes in silence";
const NO_LIMITS: &str = "it knows the limits of instance types but holds nobody to them";

type Clause = (&'static str, Pin<Box<dyn Future<Output = ()> + Send>>);

/// The clauses, each with a node of its own.
macro_rules! clauses {
    ($site:expr, $($clause:ident),+ $(,)?) => {{
        let mut nodes = nodes($site).await.into_iter();
        let mut next = || nodes.next().expect("the site has an instance for each clause");
        let clauses: Vec<Clause> = vec![$((stringify!($clause), Box::pin($clause(next())))),+];
        clauses
    }};
}

/// At least as many as there are clauses.
const INSTANCES: i32 = 32;

async fn clauses(site: &Arc<Site>) -> Vec<Clause> {
    clauses![
        site,
        a_created_eni_is_complete_and_found_by_its_tag,
        create_gives_the_addresses_that_were_asked_for,
        create_gives_the_prefixes_that_were_asked_for,
        create_gives_the_ipv6_prefixes_that_were_asked_for,
        the_same_token_gives_the_same_eni,
        create_in_an_unknown_subnet_is_rejected,
        an_attached_eni_is_found_by_its_attachment,
        an_eni_cannot_be_attached_twice,
        a_device_index_cannot_be_taken_twice,
        an_instance_takes_no_more_enis_than_its_type_allows,
        an_eni_dies_with_its_instance_once_told_so,
        assign_answers_with_what_it_added,
        assign_adds_addresses,
        assign_adds_prefixes,
        assign_adds_ipv6_prefixes,
        single_ipv6_addresses_are_the_nodes_own,
        a_subnet_without_ipv6_says_so,
        an_eni_takes_no_more_addresses_than_its_type_allows,
        unassign_takes_addresses_off,
        unassign_takes_prefixes_off,
        unassign_takes_ipv6_prefixes_off,
        what_is_not_assigned_cannot_be_unassigned,
        a_detached_eni_can_be_deleted_and_is_gone,
        an_attached_eni_cannot_be_deleted,
        what_does_not_exist_is_not_found,
        unattached_enis_are_found_by_the_tag_of_their_cluster,
        subnets_are_those_of_the_zone,
        a_subnet_counts_its_free_addresses,
        an_exhausted_subnet_says_so,
        a_fragmented_subnet_says_so,
        limits_are_those_of_the_table,
    ]
}

async fn a_created_eni_is_complete_and_found_by_its_tag(node: Node) {
    let created = node.create(BlockKind::V4Address.times(0), "x").await;
    assert_eq!((&created.subnet, created.kind), (&node.site.subnet, EniKind::Interface));
    assert_eq!((created.blocks.len(), &created.attachment), (0, &None));
    let subnet = &node.subnets().await[&node.site.subnet];
    assert!(subnet.cidr.contains(&created.primary_address), "{created:?}");
    assert_eq!(created.tags[INSTANCE_TAG], node.instance);
    assert_eq!(created.tags["odd"], "a&b <c> \u{fc}");
    assert_eq!(node.eni(&created.id).await, created);
}

async fn create_gives_the_addresses_that_were_asked_for(node: Node) {
    let created = node.create(BlockKind::V4Address.times(3), "x").await;
    assert_eq!(created.blocks.iter().filter(|block| !block.is_prefix()).count(), 3);
    assert!(!created.blocks.contains(&Block::address(IpAddr::V4(created.primary_address))));
    assert_eq!(node.eni(&created.id).await.blocks, created.blocks);
}

async fn create_gives_the_prefixes_that_were_asked_for(node: Node) {
    let created = node.create(BlockKind::V4Prefix.times(2), "x").await;
    assert_eq!(created.blocks.iter().filter(|block| block.is_prefix()).count(), 2);
    assert_eq!(node.eni(&created.id).await.blocks, created.blocks);
}

async fn create_gives_the_ipv6_prefixes_that_were_asked_for(node: Node) {
    let created = node.create(BlockKind::V6Prefix.times(1), "x").await;
    assert!(created.blocks.len() == 1 && created.blocks.iter().all(is_ipv6_prefix), "{created:?}");
    assert_eq!(node.eni(&created.id).await.blocks, created.blocks);
}

fn is_ipv6_prefix(block: &Block) -> bool {
    block.is_ipv6() && block.is_prefix()
}

async fn the_same_token_gives_the_same_eni(node: Node) {
    let first = node.create(BlockKind::V4Address.times(1), "x").await;
    assert_eq!(node.create(BlockKind::V4Address.times(1), "x").await.id, first.id);
    assert_ne!(node.create(BlockKind::V4Address.times(1), "y").await.id, first.id);
}

async fn create_in_an_unknown_subnet_is_rejected(node: Node) {
    let nowhere = id("subnet-0123456789abcdef0");
    let error = node.refused(node.creation(&nowhere, BlockKind::V4Address.times(0), "x")).await;
    let expected = (CallErrorKind::Rejected, "InvalidSubnetID.NotFound");
    assert_eq!((error.kind, &*error.code), expected, "{error}");
}

async fn an_attached_eni_is_found_by_its_attachment(node: Node) {
    let (eni, attachment) = node.attached(BlockKind::V4Address.times(0)).await;
    let enis = node.enis().await;
    assert_eq!(enis.values().filter(|eni| eni.is_primary()).count(), 1, "{enis:?}");
    let bond = enis[&eni].attachment.clone().expect("attached");
    assert_eq!((bond.id, bond.device_index, bond.network_card), (attachment, 1, 0));
}

async fn an_eni_cannot_be_attached_twice(node: Node) {
    let (eni, _) = node.attached(BlockKind::V4Address.times(0)).await;
    let error = node.refused(Ec2Call::AttachEni { eni, device_index: 2 }).await;
    assert_eq!(error.kind, CallErrorKind::InUse, "{error}");
}

async fn a_device_index_cannot_be_taken_twice(node: Node) {
    node.attached(BlockKind::V4Address.times(0)).await;
    let eni = node.create(BlockKind::V4Address.times(0), "second").await.id;
    let error = node.refused(Ec2Call::AttachEni { eni, device_index: 1 }).await;
    assert_eq!(error.kind, CallErrorKind::DeviceIndexTaken, "{error}");
}

async fn an_instance_takes_no_more_enis_than_its_type_allows(node: Node) {
    for index in 1..3 {
        let eni = node.create(BlockKind::V4Address.times(0), &index.to_string()).await.id;
        node.attach(&eni, index).await;
    }
    let eni = node.create(BlockKind::V4Address.times(0), "one too many").await.id;
    let error = node.refused(Ec2Call::AttachEni { eni, device_index: 3 }).await;
    assert_eq!(error.kind, CallErrorKind::EniLimit, "{error}");
}

async fn an_eni_dies_with_its_instance_once_told_so(node: Node) {
    let (eni, attachment) = node.attached(BlockKind::V4Address.times(0)).await;
    let dies = async || node.eni(&eni).await.attachment.map(|bond| bond.delete_on_termination);
    assert_eq!(dies().await, Some(false));
    node.call(Ec2Call::SetDeleteOnTermination { eni: eni.clone(), attachment }).await;
    assert_eq!(dies().await, Some(true));
}

async fn assign_answers_with_what_it_added(node: Node) {
    let (eni, _) = node.attached(BlockKind::V4Address.times(2)).await;
    let before = node.eni(&eni).await.blocks;
    let added = node.assign(&eni, BlockKind::V4Address.times(3)).await;
    assert_eq!((added.len(), added.is_disjoint(&before)), (3, true), "{added:?}, {before:?}");
}

async fn assign_adds_addresses(node: Node) {
    let (eni, _) = node.attached(BlockKind::V4Address.times(2)).await;
    let before = node.eni(&eni).await.blocks;
    let added = node.assign(&eni, BlockKind::V4Address.times(3)).await;
    let after = node.eni(&eni).await.blocks;
    assert_eq!((before.len(), after.len()), (2, 5));
    assert!(after.is_superset(&before));
    assert!(after.difference(&before).all(|block| added.contains(block)), "{added:?}");
}

async fn assign_adds_prefixes(node: Node) {
    let (eni, _) = node.attached(BlockKind::V4Prefix.times(1)).await;
    let before = node.eni(&eni).await.blocks;
    let added = node.assign(&eni, BlockKind::V4Prefix.times(2)).await;
    assert!(added.len() == 2 && added.iter().all(|block| block.is_prefix()), "{added:?}");
    assert_eq!(node.eni(&eni).await.blocks, before.union(&added).copied().collect());
}

async fn assign_adds_ipv6_prefixes(node: Node) {
    let (eni, _) = node.attached(BlockKind::V4Prefix.times(1)).await;
    let before = node.eni(&eni).await.blocks;
    let added = node.assign(&eni, BlockKind::V6Prefix.times(1)).await;
    assert!(added.len() == 1 && added.iter().all(is_ipv6_prefix), "{added:?}");
    assert_eq!(node.eni(&eni).await.blocks, before.union(&added).copied().collect());
}

async fn single_ipv6_addresses_are_the_nodes_own(node: Node) {
    let eni = node.create(BlockKind::V4Address.times(0), "x").await.id;
    let assignment = plain_client(&node.site.endpoint).assign_ipv6_addresses();
    let assignment = assignment.network_interface_id(eni.as_str()).ipv6_address_count(1);
    let answer = assignment.send().await.expect("AssignIpv6Addresses");
    assert_eq!(answer.assigned_ipv6_addresses().len(), 1);
    assert!(node.eni(&eni).await.blocks.is_empty());
}

async fn a_subnet_without_ipv6_says_so(node: Node) {
    let creation = node.creation(&node.site.tiny_subnet, BlockKind::V4Address.times(0), "x");
    let CallOutput::Created(facts) = node.call(creation).await else { panic!("not created") };
    let assignment = Ec2Call::Assign { eni: facts.id, ask: BlockKind::V6Prefix.times(1) };
    let error = node.refused(assignment).await;
    assert_eq!(error.kind, CallErrorKind::Rejected, "{error}");
    assert!(error.message.contains("associate one with the subnet of eni-"), "{error}");
}

async fn an_eni_takes_no_more_addresses_than_its_type_allows(node: Node) {
    let (eni, _) = node.attached(BlockKind::V4Address.times(9)).await;
    let one_more = Ec2Call::Assign { eni, ask: BlockKind::V4Address.times(1) };
    assert_eq!(node.refused(one_more).await.kind, CallErrorKind::AddressLimit);
    let eni = node.create(BlockKind::V4Address.times(10), "too many").await.id;
    let error = node.refused(Ec2Call::AttachEni { eni, device_index: 2 }).await;
    assert_eq!(error.kind, CallErrorKind::AddressLimit, "{error}");
}

async fn unassign_takes_addresses_off(node: Node) {
    let (eni, _) = node.attached(BlockKind::V4Address.times(3)).await;
    let mut blocks = node.eni(&eni).await.blocks;
    let kept = blocks.pop_last().expect("three");
    node.call(Ec2Call::Unassign { eni: eni.clone(), blocks }).await;
    assert_eq!(node.eni(&eni).await.blocks, [kept].into());
}

async fn what_is_not_assigned_cannot_be_unassigned(node: Node) {
    let (eni, _) = node.attached(BlockKind::V4Address.times(1)).await;
    let foreign = node.create(BlockKind::V4Address.times(1), "other").await.blocks;
    let error = node.refused(Ec2Call::Unassign { eni, blocks: foreign }).await;
    assert_eq!(error.kind, CallErrorKind::Rejected, "{error}");
}

async fn unassign_takes_prefixes_off(node: Node) {
    let (eni, _) = node.attached(BlockKind::V4Prefix.times(2)).await;
    let mut blocks = node.eni(&eni).await.blocks;
    let kept = blocks.pop_last().expect("two");
    node.call(Ec2Call::Unassign { eni: eni.clone(), blocks }).await;
    assert_eq!(node.eni(&eni).await.blocks, [kept].into());
}

async fn unassign_takes_ipv6_prefixes_off(node: Node) {
    let (eni, _) = node.attached(BlockKind::V4Prefix.times(1)).await;
    let kept = node.eni(&eni).await.blocks;
    let blocks = node.assign(&eni, BlockKind::V6Prefix.times(1)).await;
    node.call(Ec2Call::Unassign { eni: eni.clone(), blocks }).await;
    assert_eq!(node.eni(&eni).await.blocks, kept);
}

async fn a_detached_eni_can_be_deleted_and_is_gone(node: Node) {
    let (eni, attachment) = node.attached(BlockKind::V4Address.times(1)).await;
    node.call(Ec2Call::DetachEni { eni: eni.clone(), attachment }).await;
    let unattached = |facts: Option<&EniFacts>| facts.is_some_and(|eni| eni.attachment.is_none());
    node.eventually("the ENI is detached", &eni, unattached).await;
    node.call(Ec2Call::DeleteEni { eni: eni.clone() }).await;
    node.eventually("the ENI is gone", &eni, |facts| facts.is_none()).await;
    assert_eq!(node.refused(Ec2Call::DeleteEni { eni }).await.kind, CallErrorKind::NotFound);
}

async fn an_attached_eni_cannot_be_deleted(node: Node) {
    let (eni, _) = node.attached(BlockKind::V4Address.times(0)).await;
    let error = node.refused(Ec2Call::DeleteEni { eni }).await;
    assert_eq!(error.kind, CallErrorKind::InUse, "{error}");
}

async fn what_does_not_exist_is_not_found(node: Node) {
    let eni: EniId = id("eni-0123456789abcdef0");
    let attachment = id("eni-attach-0123456789abcdef0");
    for call in [
        Ec2Call::AttachEni { eni: eni.clone(), device_index: 1 },
        Ec2Call::Assign { eni: eni.clone(), ask: BlockKind::V4Address.times(1) },
        Ec2Call::DetachEni { eni: eni.clone(), attachment },
        Ec2Call::DeleteEni { eni },
    ] {
        let error = node.refused(call.clone()).await;
        assert_eq!(error.kind, CallErrorKind::NotFound, "{call:?}: {error}");
    }
}

async fn unattached_enis_are_found_by_the_tag_of_their_cluster(node: Node) {
    let instance = (INSTANCE_TAG, node.instance.as_str());
    let create = async |token: &str, with: &[(&str, &str)]| {
        let mut creation = node.creation(&node.site.subnet, BlockKind::V4Address.times(1), token);
        if let Ec2Call::CreateEni { tags, .. } = &mut creation {
            *tags = super::wire::tags(with);
        }
        let CallOutput::Created(facts) = node.call(creation).await else { panic!("not created") };
        facts
    };
    let left = create("left", &[instance, (CLUSTER_TAG, "blue")]).await;
    create("of another cluster", &[instance, (CLUSTER_TAG, "blue-green")]).await;
    create("of no instance", &[(CLUSTER_TAG, "blue")]).await;
    let attached = create("attached", &[instance, (CLUSTER_TAG, "blue")]).await.id;
    node.attach(&attached, 1).await;
    let search = Ec2Call::DescribeUnattached { cluster: "blue".to_owned() };
    assert_eq!(node.call(search).await, CallOutput::Enis(vec![left]));
}

async fn subnets_are_those_of_the_zone(node: Node) {
    let subnets = node.subnets().await;
    let site = &node.site;
    let cidr = |subnet: &SubnetId| subnets[subnet].cidr.to_string();
    assert_eq!(cidr(&site.subnet), "10.0.128.0/17");
    assert_eq!(cidr(&site.tiny_subnet), "10.0.8.0/28");
    assert_eq!(cidr(&site.unaligned_subnet), "10.0.9.0/27");
    assert_eq!(subnets.len(), 3, "{subnets:?}");
}

async fn a_subnet_counts_its_free_addresses(node: Node) {
    let free = async || node.subnets().await[&node.site.subnet].free_addresses;
    let before = free().await;
    node.create(BlockKind::V4Address.times(3), "x").await;
    assert_eq!(free().await, before - 4);
}

async fn an_exhausted_subnet_says_so(node: Node) {
    let creation = node.creation(&node.site.tiny_subnet, BlockKind::V4Address.times(11), "x");
    assert_eq!(node.refused(creation).await.kind, CallErrorKind::SubnetExhausted);
}

async fn a_fragmented_subnet_says_so(node: Node) {
    let creation = node.creation(&node.site.unaligned_subnet, BlockKind::V4Prefix.times(1), "x");
    assert_eq!(node.refused(creation).await.kind, CallErrorKind::SubnetFragmented);
}

async fn limits_are_those_of_the_table(node: Node) {
    for name in [TYPE, "t2.micro", "p4d.24xlarge", "m5.metal"] {
        assert_eq!(instance_limits(&node.ec2, name).await.ok(), known_limits(name), "{name}");
    }
    let error = instance_limits(&node.ec2, "m5.enormous").await.expect_err("no such type");
    assert_eq!((error.kind, &*error.code), (CallErrorKind::Rejected, "InvalidInstanceType"));
}

/// The clauses that do not hold, each with its panic.
async fn broken(site: &Arc<Site>) -> BTreeMap<&'static str, String> {
    let mut broken = BTreeMap::new();
    for (name, clause) in clauses(site).await {
        if let Err(error) = tokio::spawn(clause).await {
            let panic = error.into_panic();
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            broken.insert(name, text.unwrap_or_default());
        }
    }
    broken
}

/// Time from nothing to a client, and to its first answer.
async fn times(site: &Site) -> String {
    let options = ConnectOptions { vpc: site.vpc.clone(), ..options(&site.endpoint) };
    let start = Instant::now();
    let ec2 = Ec2::connect(options).await.expect("the server's address is a URL");
    let connected = start.elapsed();
    ec2.execute(&Ec2Call::DescribeSubnets).await.expect("the server answers");
    format!("a client after {connected:?}, an answer after {:?}", start.elapsed())
}

#[tokio::test]
async fn every_clause_holds_on_vpc_sim() {
    let sim = VpcSim::start().await;
    let site = Arc::new(Site::build(&sim.ec2, INSTANCES).await);
    println!("vpc-sim: {}", times(&site).await);
    let broken = broken(&site).await;
    assert!(broken.is_empty(), "{broken:#?}");
}

#[tokio::test]
async fn every_clause_that_moto_knows_of_holds_on_moto() {
    let process = Process::moto().await;
    let site = Arc::new(Site::build(&process.ready, INSTANCES).await);
    println!("moto: {}", times(&site).await);
    let broken = broken(&site).await;
    let differs: BTreeSet<_> = MOTO_DIFFERS.iter().map(|(clause, _)| *clause).collect();
    assert_eq!(broken.keys().copied().collect::<BTreeSet<_>>(), differs, "{broken:#?}");
}

#[tokio::test]
async fn the_node_of_the_topology_knows_who_and_where_it_is() {
    let sim = VpcSim::start().await;
    let facts = Imds::connect_to(&sim.imds).unwrap().node_facts().await.unwrap();
    assert_eq!(facts.instance, id("i-0aaaaaaaaaaaaaaa1"));
    assert_eq!((&*facts.region, &*facts.availability_zone), (REGION, ZONE));
    assert_eq!(facts.instance_type, "m5.large");
    assert_eq!(facts.vpc, id("vpc-0aaaaaaaaaaaaaaa1"));
    let options = ConnectOptions { instance: facts.instance, ..options(&sim.ec2) };
    let enis = Ec2::connect(options).await.unwrap().execute(&Ec2Call::DescribeEnis).await.unwrap();
    let CallOutput::Enis(enis) = enis else { panic!("{enis:?}") };
    assert!(enis[0].is_primary());
    assert_eq!(enis[0].mac, facts.primary_mac);
    assert_eq!(enis[0].subnet, id("subnet-0aaaaaaaaaaaaaaa1"));
    assert_eq!(enis[0].security_groups, [id("sg-0aaaaaaaaaaaaaaa1")].into());
    let shown = Imds::connect_to(&sim.imds).unwrap().enis().await.unwrap();
    assert_eq!((&shown[0].id, shown[0].device_index), (&enis[0].id, 0));
    assert!(shown[0].blocks.contains(&Block::address(enis[0].primary_address.into())));
}

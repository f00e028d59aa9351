//! The behaviour that the crate expects of EC2, as clauses that run against two servers of EC2.
//!
//! All of them hold on `vpc-sim`. On moto's server all hold but those in [`MOTO_DIFFERS`]. The two servers have
//! independent authors, so a clause that holds on both is probably true.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws::{ConnectOptions, Ec2, Imds, instance_limits};
use ipam::block::{Block, BlockKind};
use ipam::call::{
    CLUSTER_TAG, CallErrorKind, CallOutput, Ec2Call, EniFacts, EniKind, INSTANCE_TAG,
};
use ipam::connection_tracking::ConnectionTracking;
use ipam::id::{EniId, SubnetId};
use settings::known_limits;

use super::node::{Node, is_at_index_0, nodes, single};
use super::servers::{Process, REGION, Site, TYPE, VpcSim, ZONE, plain_client};
use super::wire::{id, options};

/// The clauses that do not hold on moto 5.2, and why. The test fails too if one of them begins to hold, so
/// that the list stays true.
const MOTO_DIFFERS: &[(&str, &str)] = &[
    ("attach_at_a_taken_device_index_is_refused", "it does not check attachments"),
    ("created_eni_has_the_wanted_time_outs", "it ignores time-outs of connections silently"),
    ("create_in_a_fragmented_subnet_names_the_cause", NO_PREFIXES),
    ("ipv6_assign_in_a_subnet_without_ipv6_is_rejected", NO_PREFIXES),
    ("delete_of_an_attached_eni_is_refused", "it deletes it, and the instance still lists it"),
    ("attach_of_an_attached_eni_is_refused", "it does not check attachments"),
    ("set_delete_on_termination_takes_effect", "it ignores the attribute silently"),
    ("assign_beyond_the_address_limit_is_refused", NO_LIMITS),
    ("create_in_an_exhausted_subnet_names_the_cause", "it assigns the same address twice"),
    ("attach_beyond_the_eni_limit_is_refused", NO_LIMITS),
    ("assign_adds_ipv6_prefixes", NO_PREFIXES),
    ("assign_adds_prefixes", NO_PREFIXES),
    (
        "assign_answers_with_the_added_addresses",
        "it answers with all addresses, the primary included",
    ),
    ("create_assigns_the_requested_ipv6_prefixes", NO_PREFIXES),
    ("create_assigns_the_requested_prefixes", NO_PREFIXES),
    ("create_with_the_same_token_returns_the_same_eni", "it ignores client tokens"),
    ("unassign_removes_ipv6_prefixes", NO_PREFIXES),
    ("unassign_removes_prefixes", NO_PREFIXES),
    ("unassign_of_another_enis_address_is_rejected", "it does not check assignments"),
    ("unknown_security_group_is_refused", "it takes every group, and shows none then"),
];
/// Far longer than the simulator's metadata service lags.
const METADATA_PATIENCE: Duration = Duration::from_secs(120);
const NO_PREFIXES: &str = "it ignores prefixes silently";
const NO_LIMITS: &str = "it knows the limits of instance types but does not enforce them";

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
const INSTANCES: i32 = 40;

async fn clauses(site: &Arc<Site>) -> Vec<Clause> {
    clauses![
        site,
        created_eni_is_complete_and_found_by_its_tag,
        create_assigns_the_requested_addresses,
        create_assigns_the_requested_prefixes,
        create_assigns_the_requested_ipv6_prefixes,
        create_with_the_same_token_returns_the_same_eni,
        created_eni_has_the_wanted_time_outs,
        create_in_an_unknown_subnet_is_rejected,
        attached_eni_is_found_by_its_attachment,
        attach_of_an_attached_eni_is_refused,
        attach_at_a_taken_device_index_is_refused,
        attach_beyond_the_eni_limit_is_refused,
        set_delete_on_termination_takes_effect,
        security_groups_that_an_eni_has_can_be_set,
        unknown_security_group_is_refused,
        assign_answers_with_the_added_addresses,
        assign_adds_addresses,
        assign_adds_prefixes,
        assign_adds_ipv6_prefixes,
        single_ipv6_address_is_no_block,
        ipv6_assign_in_a_subnet_without_ipv6_is_rejected,
        assign_beyond_the_address_limit_is_refused,
        unassign_removes_addresses,
        unassign_removes_prefixes,
        unassign_removes_ipv6_prefixes,
        unassign_of_another_enis_address_is_rejected,
        delete_of_a_detached_eni_removes_it,
        delete_of_an_attached_eni_is_refused,
        call_for_a_missing_eni_is_not_found,
        leak_search_finds_unattached_enis_of_the_cluster,
        describe_subnets_returns_those_of_the_zone,
        subnet_counts_its_free_addresses,
        create_in_an_exhausted_subnet_names_the_cause,
        create_in_a_fragmented_subnet_names_the_cause,
        limits_equal_the_built_in_table,
    ]
}

async fn created_eni_is_complete_and_found_by_its_tag(node: Node) {
    let created = node.create(BlockKind::V4Address.times(0), "x").await;
    assert_eq!((&created.subnet, created.kind), (&node.site.subnet, EniKind::Interface));
    assert_eq!((created.blocks.len(), &created.attachment), (0, &None));
    let subnet = &node.subnets().await[&node.site.subnet];
    assert!(subnet.cidr.contains(&created.primary_address), "{created:?}");
    assert_eq!(created.tags[INSTANCE_TAG], node.instance);
    assert_eq!(created.tags["odd"], "a&b <c> \u{fc}");
    assert_eq!(node.eni(&created.id).await, created);
}

async fn create_assigns_the_requested_addresses(node: Node) {
    let created = node.create(BlockKind::V4Address.times(3), "x").await;
    assert_eq!(created.blocks.iter().filter(|block| !block.is_prefix()).count(), 3);
    assert!(!created.blocks.contains(&single(created.primary_address)));
    assert_eq!(node.eni(&created.id).await.blocks, created.blocks);
}

async fn create_assigns_the_requested_prefixes(node: Node) {
    let created = node.create(BlockKind::V4Prefix.times(2), "x").await;
    assert_eq!(created.blocks.iter().filter(|block| block.is_prefix()).count(), 2);
    assert_eq!(node.eni(&created.id).await.blocks, created.blocks);
}

async fn create_assigns_the_requested_ipv6_prefixes(node: Node) {
    let created = node.create(BlockKind::V6Prefix.times(1), "x").await;
    assert!(created.blocks.len() == 1 && created.blocks.iter().all(is_ipv6_prefix), "{created:?}");
    assert_eq!(node.eni(&created.id).await.blocks, created.blocks);
}

fn is_ipv6_prefix(block: &Block) -> bool {
    block.kind() == BlockKind::V6Prefix
}

async fn create_with_the_same_token_returns_the_same_eni(node: Node) {
    let first = node.create(BlockKind::V4Address.times(1), "x").await;
    assert_eq!(node.create(BlockKind::V4Address.times(1), "x").await.id, first.id);
    assert_ne!(node.create(BlockKind::V4Address.times(1), "y").await.id, first.id);
}

async fn created_eni_has_the_wanted_time_outs(node: Node) {
    let wanted = ConnectionTracking { tcp_established: Some(350), udp_stream: None, udp: Some(31) };
    let mut call = node.creation(&node.site.subnet, BlockKind::V4Address.times(0), "tracking");
    if let Ec2Call::CreateEni { connection_tracking, .. } = &mut call {
        *connection_tracking = wanted;
    }
    let CallOutput::Created(created) = node.call(call).await else { panic!("no ENI") };
    assert_eq!(created.connection_tracking, wanted);
    assert_eq!(node.eni(&created.id).await.connection_tracking, wanted);
}

async fn create_in_an_unknown_subnet_is_rejected(node: Node) {
    let nowhere = id("subnet-0123456789abcdef0");
    let error = node.refused(node.creation(&nowhere, BlockKind::V4Address.times(0), "x")).await;
    let expected = (CallErrorKind::Lasting, "InvalidSubnetID.NotFound");
    assert_eq!((error.kind, &*error.code), expected, "{error}");
}

async fn attached_eni_is_found_by_its_attachment(node: Node) {
    let (eni, id) = node.attached(BlockKind::V4Address.times(0)).await;
    let enis = node.enis().await;
    assert_eq!(enis.values().filter(|eni| is_at_index_0(eni)).count(), 1, "{enis:?}");
    let attachment = enis[&eni].attachment.clone().expect("attached");
    assert_eq!((attachment.id, attachment.device_index, attachment.network_card), (id, 1, 0));
}

async fn attach_of_an_attached_eni_is_refused(node: Node) {
    let (eni, _) = node.attached(BlockKind::V4Address.times(0)).await;
    let error = node.refused(Ec2Call::AttachEni { eni, device_index: 2 }).await;
    assert_eq!(error.kind, CallErrorKind::InUse, "{error}");
}

async fn attach_at_a_taken_device_index_is_refused(node: Node) {
    node.attached(BlockKind::V4Address.times(0)).await;
    let eni = node.create(BlockKind::V4Address.times(0), "second").await.id;
    let error = node.refused(Ec2Call::AttachEni { eni, device_index: 1 }).await;
    assert_eq!(error.kind, CallErrorKind::DeviceIndexTaken, "{error}");
}

async fn attach_beyond_the_eni_limit_is_refused(node: Node) {
    for index in 1..3 {
        let eni = node.create(BlockKind::V4Address.times(0), &index.to_string()).await.id;
        node.attach(&eni, index).await;
    }
    let eni = node.create(BlockKind::V4Address.times(0), "one too many").await.id;
    let error = node.refused(Ec2Call::AttachEni { eni, device_index: 3 }).await;
    assert_eq!(error.kind, CallErrorKind::EniLimit, "{error}");
}

async fn set_delete_on_termination_takes_effect(node: Node) {
    let (eni, attachment) = node.attached(BlockKind::V4Address.times(0)).await;
    let dies =
        async || node.eni(&eni).await.attachment.map(|attachment| attachment.delete_on_termination);
    assert_eq!(dies().await, Some(false));
    node.call(Ec2Call::SetDeleteOnTermination { eni: eni.clone(), attachment }).await;
    assert_eq!(dies().await, Some(true));
}

/// The call may be repeated after an unknown outcome.
async fn security_groups_that_an_eni_has_can_be_set(node: Node) {
    let (eni, _) = node.attached(BlockKind::V4Address.times(0)).await;
    let security_groups = BTreeSet::from([node.site.group.clone()]);
    let call =
        Ec2Call::SetSecurityGroups { eni: eni.clone(), security_groups: security_groups.clone() };
    for _ in 0..2 {
        assert_eq!(node.call(call.clone()).await, CallOutput::Done);
        assert_eq!(node.eni(&eni).await.security_groups, security_groups);
    }
}

async fn unknown_security_group_is_refused(node: Node) {
    let (eni, _) = node.attached(BlockKind::V4Address.times(0)).await;
    let before = node.eni(&eni).await.security_groups;
    let security_groups = [id("sg-0dddddddddddddddd")].into();
    let error =
        node.refused(Ec2Call::SetSecurityGroups { eni: eni.clone(), security_groups }).await;
    assert_eq!((error.kind, &*error.code), (CallErrorKind::Lasting, "InvalidGroup.NotFound"));
    assert_eq!(node.eni(&eni).await.security_groups, before);
}

async fn assign_answers_with_the_added_addresses(node: Node) {
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

async fn single_ipv6_address_is_no_block(node: Node) {
    let eni = node.create(BlockKind::V4Address.times(0), "x").await.id;
    let assignment = plain_client(&node.site.endpoint).assign_ipv6_addresses();
    let assignment = assignment.network_interface_id(eni.as_str()).ipv6_address_count(1);
    let answer = assignment.send().await.expect("AssignIpv6Addresses");
    assert_eq!(answer.assigned_ipv6_addresses().len(), 1);
    assert!(node.eni(&eni).await.blocks.is_empty());
}

async fn ipv6_assign_in_a_subnet_without_ipv6_is_rejected(node: Node) {
    let creation = node.creation(&node.site.tiny_subnet, BlockKind::V4Address.times(0), "x");
    let CallOutput::Created(facts) = node.call(creation).await else { panic!("not created") };
    let assignment = Ec2Call::Assign { eni: facts.id, blocks: BlockKind::V6Prefix.times(1) };
    let error = node.refused(assignment).await;
    assert_eq!(error.kind, CallErrorKind::Rejected, "{error}");
    assert!(error.message.contains("associate one with the subnet of eni-"), "{error}");
}

async fn assign_beyond_the_address_limit_is_refused(node: Node) {
    let (eni, _) = node.attached(BlockKind::V4Address.times(9)).await;
    let one_more = Ec2Call::Assign { eni, blocks: BlockKind::V4Address.times(1) };
    assert_eq!(node.refused(one_more).await.kind, CallErrorKind::AddressLimit);
    let eni = node.create(BlockKind::V4Address.times(10), "too many").await.id;
    let error = node.refused(Ec2Call::AttachEni { eni, device_index: 2 }).await;
    assert_eq!(error.kind, CallErrorKind::AddressLimit, "{error}");
}

async fn unassign_removes_addresses(node: Node) {
    let (eni, _) = node.attached(BlockKind::V4Address.times(3)).await;
    let mut blocks = node.eni(&eni).await.blocks;
    let kept = blocks.pop_last().expect("three");
    node.call(Ec2Call::Unassign { eni: eni.clone(), blocks }).await;
    assert_eq!(node.eni(&eni).await.blocks, [kept].into());
}

async fn unassign_of_another_enis_address_is_rejected(node: Node) {
    let (eni, _) = node.attached(BlockKind::V4Address.times(1)).await;
    let foreign = node.create(BlockKind::V4Address.times(1), "other").await.blocks;
    let error = node.refused(Ec2Call::Unassign { eni, blocks: foreign }).await;
    assert_eq!(error.kind, CallErrorKind::Rejected, "{error}");
}

async fn unassign_removes_prefixes(node: Node) {
    let (eni, _) = node.attached(BlockKind::V4Prefix.times(2)).await;
    let mut blocks = node.eni(&eni).await.blocks;
    let kept = blocks.pop_last().expect("two");
    node.call(Ec2Call::Unassign { eni: eni.clone(), blocks }).await;
    assert_eq!(node.eni(&eni).await.blocks, [kept].into());
}

async fn unassign_removes_ipv6_prefixes(node: Node) {
    let (eni, _) = node.attached(BlockKind::V4Prefix.times(1)).await;
    let kept = node.eni(&eni).await.blocks;
    let blocks = node.assign(&eni, BlockKind::V6Prefix.times(1)).await;
    node.call(Ec2Call::Unassign { eni: eni.clone(), blocks }).await;
    assert_eq!(node.eni(&eni).await.blocks, kept);
}

async fn delete_of_a_detached_eni_removes_it(node: Node) {
    let (eni, attachment) = node.attached(BlockKind::V4Address.times(1)).await;
    node.call(Ec2Call::DetachEni { eni: eni.clone(), attachment }).await;
    let unattached = |facts: Option<&EniFacts>| facts.is_some_and(|eni| eni.attachment.is_none());
    node.eventually("the ENI is detached", &eni, unattached).await;
    node.call(Ec2Call::DeleteEni { eni: eni.clone() }).await;
    node.eventually("the ENI is gone", &eni, |facts| facts.is_none()).await;
    assert_eq!(node.refused(Ec2Call::DeleteEni { eni }).await.kind, CallErrorKind::NotFound);
}

async fn delete_of_an_attached_eni_is_refused(node: Node) {
    let (eni, _) = node.attached(BlockKind::V4Address.times(0)).await;
    let error = node.refused(Ec2Call::DeleteEni { eni }).await;
    assert_eq!(error.kind, CallErrorKind::InUse, "{error}");
}

async fn call_for_a_missing_eni_is_not_found(node: Node) {
    let eni: EniId = id("eni-0123456789abcdef0");
    let attachment = id("eni-attach-0123456789abcdef0");
    for call in [
        Ec2Call::AttachEni { eni: eni.clone(), device_index: 1 },
        Ec2Call::Assign { eni: eni.clone(), blocks: BlockKind::V4Address.times(1) },
        Ec2Call::DetachEni { eni: eni.clone(), attachment },
        Ec2Call::DeleteEni { eni },
    ] {
        let error = node.refused(call.clone()).await;
        assert_eq!(error.kind, CallErrorKind::NotFound, "{call:?}: {error}");
    }
}

async fn leak_search_finds_unattached_enis_of_the_cluster(node: Node) {
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

async fn describe_subnets_returns_those_of_the_zone(node: Node) {
    let subnets = node.subnets().await;
    let site = &node.site;
    let cidr = |subnet: &SubnetId| subnets[subnet].cidr.to_string();
    assert_eq!(cidr(&site.subnet), "10.0.128.0/17");
    assert_eq!(cidr(&site.tiny_subnet), "10.0.8.0/28");
    assert_eq!(cidr(&site.unaligned_subnet), "10.0.9.0/27");
    assert_eq!(subnets.len(), 3, "{subnets:?}");
}

async fn subnet_counts_its_free_addresses(node: Node) {
    let free = async || node.subnets().await[&node.site.subnet].free_addresses;
    let before = free().await;
    node.create(BlockKind::V4Address.times(3), "x").await;
    assert_eq!(free().await, before.map(|n| n - 4));
}

async fn create_in_an_exhausted_subnet_names_the_cause(node: Node) {
    let creation = node.creation(&node.site.tiny_subnet, BlockKind::V4Address.times(11), "x");
    assert_eq!(node.refused(creation).await.kind, CallErrorKind::SubnetExhausted);
}

async fn create_in_a_fragmented_subnet_names_the_cause(node: Node) {
    let creation = node.creation(&node.site.unaligned_subnet, BlockKind::V4Prefix.times(1), "x");
    assert_eq!(node.refused(creation).await.kind, CallErrorKind::SubnetFragmented);
}

async fn limits_equal_the_built_in_table(node: Node) {
    for name in [TYPE, "t2.micro", "p4d.24xlarge", "m5.metal"] {
        assert_eq!(instance_limits(&node.ec2, name).await.ok(), known_limits(name), "{name}");
    }
    let error = instance_limits(&node.ec2, "m5.enormous").await.expect_err("no such type");
    assert_eq!((error.kind, &*error.code), (CallErrorKind::Rejected, "InvalidInstanceType"));
}

/// The clauses that fail, each with its panic.
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

/// How long it takes to make a client, and to get its first answer.
async fn times(site: &Site) -> String {
    let options = ConnectOptions { vpc: site.vpc.clone(), ..options(&site.endpoint) };
    let start = Instant::now();
    let ec2 = Ec2::connect(options).await.expect("the server's address is a URL");
    let connected = start.elapsed();
    ec2.execute(&Ec2Call::DescribeSubnets).await.expect("the server answers");
    format!("a client after {connected:?}, an answer after {:?}", start.elapsed())
}

#[tokio::test]
async fn all_clauses_hold_on_vpc_sim() {
    let sim = VpcSim::start().await;
    let site = Arc::new(Site::build(&sim.ec2, INSTANCES).await);
    println!("vpc-sim: {}", times(&site).await);
    let broken = broken(&site).await;
    assert!(broken.is_empty(), "{broken:#?}");
}

#[tokio::test]
async fn clauses_hold_on_moto_but_for_the_listed() {
    let process = Process::moto().await;
    let site = Arc::new(Site::build(&process.ready, INSTANCES).await);
    println!("moto: {}", times(&site).await);
    let broken = broken(&site).await;
    let differs: BTreeSet<_> = MOTO_DIFFERS.iter().map(|(clause, _)| *clause).collect();
    assert_eq!(broken.keys().copied().collect::<BTreeSet<_>>(), differs, "{broken:#?}");
}

#[tokio::test]
async fn facts_from_metadata_and_ec2_agree() {
    let sim = VpcSim::start().await;
    let facts = Imds::connect_to(&sim.imds).unwrap().node_facts().await.unwrap();
    assert_eq!(facts.instance, id("i-0aaaaaaaaaaaaaaa1"));
    assert_eq!((&*facts.region, &*facts.availability_zone), (REGION, ZONE));
    assert_eq!(facts.instance_type, "m5.large");
    assert_eq!(facts.vpc, id("vpc-0aaaaaaaaaaaaaaa1"));
    let options = ConnectOptions { instance: facts.instance, ..options(&sim.ec2) };
    let enis = Ec2::connect(options).await.unwrap().execute(&Ec2Call::DescribeEnis).await.unwrap();
    let CallOutput::Enis(enis) = enis else { panic!("{enis:?}") };
    assert!(enis[0].is_primary(facts.primary_mac));
    assert_eq!(enis[0].mac, facts.primary_mac);
    assert_eq!(enis[0].subnet, id("subnet-0aaaaaaaaaaaaaaa1"));
    assert_eq!(enis[0].security_groups, [id("sg-0aaaaaaaaaaaaaaa1")].into());
    let shown = Imds::connect_to(&sim.imds).unwrap().enis().await.unwrap();
    assert_eq!((&shown[0].id, shown[0].device_index), (&enis[0].id, 0));
    assert_eq!(shown[0].security_groups, enis[0].security_groups);
    assert!(shown[0].blocks.contains(&single(enis[0].primary_address)));
}

/// The metadata service shows the change too, which is how the daemon learns of it.
#[tokio::test]
async fn security_groups_of_an_eni_are_replaced() {
    let sim = VpcSim::start().await;
    let instance: ipam::id::InstanceId = id("i-0aaaaaaaaaaaaaaa1");
    let ec2 = Ec2::connect(ConnectOptions { instance, ..options(&sim.ec2) }).await.unwrap();
    let imds = Imds::connect_to(&sim.imds).unwrap();
    let eni = imds.enis().await.unwrap()[0].id.clone();
    let security_groups = BTreeSet::from([id("sg-0aaaaaaaaaaaaaaa2"), id("sg-0aaaaaaaaaaaaaaa1")]);
    let call = Ec2Call::SetSecurityGroups { eni, security_groups: security_groups.clone() };
    assert_eq!(ec2.execute(&call).await.unwrap(), CallOutput::Done);
    let CallOutput::Enis(enis) = ec2.execute(&Ec2Call::DescribeEnis).await.unwrap() else {
        panic!("another answer")
    };
    assert_eq!(enis[0].security_groups, security_groups);
    let deadline = Instant::now() + METADATA_PATIENCE;
    while imds.enis().await.unwrap()[0].security_groups != security_groups {
        assert!(Instant::now() < deadline, "the metadata service shows the old groups");
        tokio::task::yield_now().await;
    }
}

//! Faults of EC2, which `vpc-sim` injects. The client must report what has happened, or that the outcome is
//! unknown.

use std::sync::Arc;

use ipam::block::BlockKind;
use ipam::call::{CallErrorKind, Ec2Call};
use serde_json::json;

use super::node::{Node, is_at_index_0, nodes};
use super::servers::{Site, VpcSim};

async fn sim_and_node() -> (VpcSim, Node) {
    let sim = VpcSim::start().await;
    let site = Arc::new(Site::build(&sim.ec2, 1).await);
    let node = nodes(&site).await.pop().expect("one instance");
    (sim, node)
}

async fn lose_next_answer(sim: &VpcSim, action: &str) {
    let rule = json!({"action": action, "when": {"nth": 1}, "effect": "lose_reply"});
    sim.operate("POST", "faults", &rule).await;
}

async fn fail_next(sim: &VpcSim, action: &str, code: &str) {
    let rule = json!({"action": action, "when": {"nth": 1}, "effect": {"fail": {"code": code}}});
    sim.operate("POST", "faults", &rule).await;
}

#[tokio::test]
async fn create_with_a_lost_answer_makes_one_eni() {
    let (sim, node) = sim_and_node().await;
    lose_next_answer(&sim, "CreateNetworkInterface").await;
    let create = node.creation(&node.site.subnet, BlockKind::V4Address.times(2), "x");
    assert_eq!(node.refused(create).await.kind, CallErrorKind::OutcomeUnknown);
    let created = node.create(BlockKind::V4Address.times(2), "x").await;
    let mut enis = node.enis().await;
    enis.retain(|_, eni| !is_at_index_0(eni));
    assert_eq!(enis.into_keys().collect::<Vec<_>>(), [created.id]);
}

#[tokio::test]
async fn assign_with_a_lost_answer_takes_effect_once() {
    let (sim, node) = sim_and_node().await;
    let (eni, _) = node.attached(BlockKind::V4Address.times(1)).await;
    lose_next_answer(&sim, "AssignPrivateIpAddresses").await;
    let assign = Ec2Call::Assign { eni: eni.clone(), blocks: BlockKind::V4Address.times(2) };
    assert_eq!(node.refused(assign).await.kind, CallErrorKind::OutcomeUnknown);
    assert_eq!(node.eni(&eni).await.blocks.len(), 3);
}

#[tokio::test]
async fn attach_with_a_lost_answer_has_an_unknown_outcome() {
    let (sim, node) = sim_and_node().await;
    let eni = node.create(BlockKind::V4Address.times(0), "x").await.id;
    lose_next_answer(&sim, "AttachNetworkInterface").await;
    let attach = Ec2Call::AttachEni { eni: eni.clone(), device_index: 1 };
    assert_eq!(node.refused(attach).await.kind, CallErrorKind::OutcomeUnknown);
    assert_eq!(node.eni(&eni).await.attachment.map(|attachment| attachment.device_index), Some(1));
}

#[tokio::test]
async fn throttled_assign_has_no_effect() {
    let (sim, node) = sim_and_node().await;
    let (eni, _) = node.attached(BlockKind::V4Address.times(1)).await;
    fail_next(&sim, "AssignPrivateIpAddresses", "RequestLimitExceeded").await;
    let assign = Ec2Call::Assign { eni: eni.clone(), blocks: BlockKind::V4Address.times(2) };
    assert_eq!(node.refused(assign).await.kind, CallErrorKind::Throttled);
    assert_eq!(node.eni(&eni).await.blocks.len(), 1);
}

#[tokio::test]
async fn throttled_describe_is_not_retried() {
    let (sim, node) = sim_and_node().await;
    fail_next(&sim, "DescribeNetworkInterfaces", "RequestLimitExceeded").await;
    assert_eq!(node.refused(Ec2Call::DescribeEnis).await.kind, CallErrorKind::Throttled);
    assert_eq!(node.enis().await.len(), 1);
}

#[tokio::test]
async fn denied_create_is_access_denied() {
    let (sim, node) = sim_and_node().await;
    fail_next(&sim, "CreateNetworkInterface", "UnauthorizedOperation").await;
    let creation = node.creation(&node.site.subnet, BlockKind::V4Address.times(0), "x");
    assert_eq!(node.refused(creation).await.kind, CallErrorKind::AccessDenied);
}

#[tokio::test]
async fn exhausted_subnet_in_the_newer_wording_is_classified() {
    let (sim, node) = sim_and_node().await;
    let switch = json!({"insufficient_error": "invalid-parameter-value"});
    sim.operate("PATCH", "switches", &switch).await;
    let error = node
        .refused(node.creation(&node.site.tiny_subnet, BlockKind::V4Address.times(11), "x"))
        .await;
    let expected = (CallErrorKind::SubnetExhausted, "InvalidParameterValue");
    assert_eq!((error.kind, &*error.code), expected, "{error}");
}

#[tokio::test]
async fn detach_of_a_removed_eni_is_not_found() {
    let (sim, node) = sim_and_node().await;
    let (eni, attachment) = node.attached(BlockKind::V4Address.times(0)).await;
    sim.operate("POST", "disturb", &json!({"detach_eni": {"eni": eni}})).await;
    let error = node.refused(Ec2Call::DetachEni { eni, attachment }).await;
    assert_eq!(error.kind, CallErrorKind::NotFound, "{error}");
}

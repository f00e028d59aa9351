//! What EC2 does on bad days, which `vpc-sim` does when told to: the client's part in it is to say
//! truly what happened, or that nobody knows.

use std::sync::Arc;

use ipam::call::{Ask, CallErrorKind, Ec2Call};
use serde_json::json;

use super::node::{Node, nodes};
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
async fn a_create_whose_answer_is_lost_makes_one_eni() {
    let (sim, node) = sim_and_node().await;
    lose_next_answer(&sim, "CreateNetworkInterface").await;
    let create = node.creation(&node.site.subnet, BlockKind::V4Address.times(2), "x");
    assert_eq!(node.refused(create).await.kind, CallErrorKind::OutcomeUnknown);
    let created = node.create(BlockKind::V4Address.times(2), "x").await;
    let mut enis = node.enis().await;
    enis.retain(|_, eni| !eni.is_primary());
    assert_eq!(enis.into_keys().collect::<Vec<_>>(), [created.id]);
}

#[tokio::test]
async fn an_assign_whose_answer_is_lost_happens_once_and_can_be_read() {
    let (sim, node) = sim_and_node().await;
    let (eni, _) = node.attached(BlockKind::V4Address.times(1)).await;
    lose_next_answer(&sim, "AssignPrivateIpAddresses").await;
    let assign = Ec2Call::Assign { eni: eni.clone(), ask: BlockKind::V4Address.times(2) };
    assert_eq!(node.refused(assign).await.kind, CallErrorKind::OutcomeUnknown);
    assert_eq!(node.eni(&eni).await.blocks.len(), 3);
}

#[tokio::test]
async fn an_attach_whose_answer_is_lost_is_not_said_to_have_failed() {
    let (sim, node) = sim_and_node().await;
    let eni = node.create(BlockKind::V4Address.times(0), "x").await.id;
    lose_next_answer(&sim, "AttachNetworkInterface").await;
    let attach = Ec2Call::AttachEni { eni: eni.clone(), device_index: 1 };
    assert_eq!(node.refused(attach).await.kind, CallErrorKind::OutcomeUnknown);
    assert_eq!(node.eni(&eni).await.attachment.map(|bond| bond.device_index), Some(1));
}

#[tokio::test]
async fn a_throttled_assign_has_no_effect() {
    let (sim, node) = sim_and_node().await;
    let (eni, _) = node.attached(BlockKind::V4Address.times(1)).await;
    fail_next(&sim, "AssignPrivateIpAddresses", "RequestLimitExceeded").await;
    let assign = Ec2Call::Assign { eni: eni.clone(), ask: BlockKind::V4Address.times(2) };
    assert_eq!(node.refused(assign).await.kind, CallErrorKind::Throttled);
    assert_eq!(node.eni(&eni).await.blocks.len(), 1);
}

#[tokio::test]
async fn a_throttled_reading_is_left_to_its_caller() {
    let (sim, node) = sim_and_node().await;
    fail_next(&sim, "DescribeNetworkInterfaces", "RequestLimitExceeded").await;
    assert_eq!(node.refused(Ec2Call::DescribeEnis).await.kind, CallErrorKind::Throttled);
    assert_eq!(node.enis().await.len(), 1);
}

#[tokio::test]
async fn a_denied_call_is_denied() {
    let (sim, node) = sim_and_node().await;
    fail_next(&sim, "CreateNetworkInterface", "UnauthorizedOperation").await;
    let creation = node.creation(&node.site.subnet, BlockKind::V4Address.times(0), "x");
    assert_eq!(node.refused(creation).await.kind, CallErrorKind::AccessDenied);
}

#[tokio::test]
async fn an_exhausted_subnet_is_understood_in_the_newer_words_too() {
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
async fn an_eni_that_was_taken_away_cannot_be_detached() {
    let (sim, node) = sim_and_node().await;
    let (eni, attachment) = node.attached(BlockKind::V4Address.times(0)).await;
    sim.operate("POST", "disturb", &json!({"detach_eni": {"eni": eni}})).await;
    let error = node.refused(Ec2Call::DetachEni { eni, attachment }).await;
    assert_eq!(error.kind, CallErrorKind::NotFound, "{error}");
}

//! The answers of `ipamd why` in words.

use super::*;

fn pod(name: &str) -> Option<Pod> {
    Some(Pod { namespace: "default".into(), name: name.into(), uid: "u1".into() })
}

fn attachment() -> Option<proto::v1::Attachment> {
    let (network, ifname) = ("aws-cni".into(), "eth0".into());
    Some(proto::v1::Attachment { network, container_id: "0123456789abcdef".into(), ifname })
}

fn refused(retry_after_ms: u64) -> Option<proto::v1::Refused> {
    let message = "no free address: 9 of 9 in use, in subnet-a".into();
    Some(proto::v1::Refused { code: "SUBNET_EXHAUSTED".into(), message, retry_after_ms })
}

#[test]
fn pod_is_named_by_namespace_and_name_or_by_container() {
    let pod = Asked::Pod { namespace: "default".into(), name: "web-0".into() };
    assert_eq!(parse("default/web-0"), Ok(pod));
    assert_eq!(parse("0123abc"), Ok(Asked::Container("0123abc".into())));
    for bad in ["", "/web-0", "default/", "a/b/c"] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn waiting_pod_has_reason_next_try_and_what_is_under_way() {
    let standing = proto::v1::Standing {
        attachment: attachment(),
        pod: pod("web\u{1b}[2J"),
        stage: "waiting".into(),
        since_ms: 8_000,
        refused: refused(3_000),
        until_ms: 15_000,
        n_ahead: 2,
        ..Default::default()
    };
    let unready = proto::v1::UnreadyEni {
        id: "eni-1".into(),
        state: "linking".into(),
        fault: "no device".into(),
    };
    let reply = WhyReply {
        attachments: vec![standing],
        in_flight: vec!["AttachNetworkInterface of eni-2 (under way)".into()],
        unready_enis: vec![unready],
        now_ms: 10_000,
        ..Default::default()
    };
    expect_test::expect![[r"
        default/web\u{1b}[2J (container 0123456789ab, eth0): has waited for an address for 2s
          reason: SUBNET_EXHAUSTED: no free address: 9 of 9 in use, in subnet-a
          tried again: in 3s
          answered: in 5s at the latest; 2 other pods are served first
        call of EC2: AttachNetworkInterface of eni-2 (under way)
        ENI: eni-1 is linking: no device
        node: it serves pods now
    "]]
    .assert_eq(&text::render(&reply));
    let json = serde_json::to_value(json::shape(&reply)).unwrap();
    assert_eq!(json["state"], "waiting");
    assert_eq!(json["attachments"][0]["reason"]["retry_at_ms"], 13_000);
    assert_eq!(json["attachments"][0]["until_ms"], 15_000);
}

#[test]
fn refused_pod_has_its_last_reason_and_the_count() {
    let last = proto::v1::LastRefusal {
        attachment: attachment(),
        pod: pod("web-0"),
        at_ms: 70_000,
        refused: refused(60_000),
        n_refused: 7,
        first_ms: 10_000,
    };
    let mut reply = WhyReply { last_refusal: Some(last), now_ms: 80_000, ..Default::default() };
    reply.not_ready = refused(0);
    expect_test::expect![[r"
        default/web-0 (container 0123456789ab, eth0): its ADD was refused 10s ago, the last of 7 refusals in 1m
          reason: SUBNET_EXHAUSTED: no free address: 9 of 9 in use, in subnet-a
          tried again: in 50s
        node: it serves no pod now: SUBNET_EXHAUSTED: no free address: 9 of 9 in use, in subnet-a
    "]]
    .assert_eq(&text::render(&reply));
    let json = serde_json::to_value(json::shape(&reply)).unwrap();
    assert_eq!((&json["state"], &json["last_refusal"]["refusals"]), (&"refused".into(), &7.into()));
}

#[test]
fn holding_pod_has_addresses_and_problems() {
    let address = |address: &str| proto::v1::PodAddress {
        address: address.into(),
        eni: "eni-0".into(),
        ..Default::default()
    };
    let standing = proto::v1::Standing {
        attachment: attachment(),
        pod: pod(""),
        stage: "holding".into(),
        since_ms: 1_000,
        addresses: vec![address("10.0.0.7"), address("2001:db8::7")],
        node_local: "169.254.172.2".into(),
        doubts: vec!["EC2 describes 10.0.0.7 on no ENI of this instance".into()],
        ..Default::default()
    };
    let reply = WhyReply { attachments: vec![standing], now_ms: 3_661_000, ..Default::default() };
    expect_test::expect![[r"
        container 0123456789ab (eth0): has had 10.0.0.7 of eni-0, 2001:db8::7 of eni-0 for 1h 1m
          node-local address: 169.254.172.2
          problem: EC2 describes 10.0.0.7 on no ENI of this instance
    "]]
    .assert_eq(&text::render(&reply));
    let json = serde_json::to_value(json::shape(&reply)).unwrap();
    assert_eq!(json["attachments"][0]["until_ms"], serde_json::Value::Null);
}

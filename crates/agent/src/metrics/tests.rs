//! The page as a scraper reads it.

use std::time::Duration;

use ipam::block::Block;
use ipam::block::BlockKind;
use ipam::call::{CallError, CallErrorKind, CallId, CallOutput, Ec2Call};
use ipam::event::{Answer, RefusalCode};
use ipam::id::{EniId, SubnetId};
use ipam::time::Timestamp;
use ipam::view::{BlockUse, Capacity, Counts, FamilyView, ForeignReason};

use super::*;

fn eni_id(id: &str) -> EniId {
    EniId::try_from(id).unwrap()
}

fn block(cidr: &str) -> Block {
    Block::try_from(cidr.parse::<ipnet::IpNet>().unwrap()).unwrap()
}

fn eni(id: &str, stage: EniStage, blocks: &[(&str, &[&str])]) -> EniView {
    let block_use = |used: &[&str]| BlockUse {
        assigned: used.iter().map(|ip| ip.parse().unwrap()).collect(),
        ..BlockUse::default()
    };
    EniView {
        id: eni_id(id),
        device_index: Some(1),
        network_card: 0,
        mac: "02:00:00:00:00:01".parse().unwrap(),
        subnet: SubnetId::try_from("subnet-1").unwrap(),
        primary_address: [10, 0, 0, 4].into(),
        primary: false,
        stage,
        blocks: blocks.iter().map(|(cidr, used)| (block(cidr), block_use(used))).collect(),
        delegated: BTreeSet::new(),
        subnet_cidr: None,
    }
}

fn view() -> PoolView {
    let prefix = ("10.0.0.16/28", &["10.0.0.17", "10.0.0.18"][..]);
    PoolView {
        kind: BlockKind::V4Prefix,
        limits: ipam::policy::Limits { enis: 3, addresses_per_eni: 10, prefixes: true },
        enis: vec![
            eni("eni-1", EniStage::Ready, &[prefix, ("10.0.0.9/32", &["10.0.0.9"])]),
            eni("eni-2", EniStage::Linking, &[]),
        ],
        foreign: [
            (eni_id("eni-7"), ForeignReason::Kind),
            (eni_id("eni-8"), ForeignReason::NoManageTag),
            (eni_id("eni-9"), ForeignReason::NoManageTag),
        ]
        .into(),
        unused_blocks: [block("10.0.0.77/32")].into(),
        assignments: BTreeMap::new(),
        quarantined: [([10, 0, 0, 18].into(), "eni5".to_owned())].into(),
        sandboxes: Some(5),
        host_addresses: [([10, 0, 0, 9].into(), "ens5".to_owned())].into(),
        lost: [
            ([10, 0, 0, 91].into(), eni_id("eni-1")),
            ([10, 0, 0, 92].into(), eni_id("eni-3")),
            ([10, 0, 0, 93].into(), eni_id("eni-3")),
        ]
        .into(),
        other_groups: [(eni_id("eni-2"), BTreeSet::new())].into(),
        refuted_hints: [
            (eni_id("eni-1"), [block("10.0.0.9/32"), block("10.0.0.8/32")].into()),
            (eni_id("eni-2"), [block("10.0.0.7/32")].into()),
        ]
        .into(),
        counts: Counts {
            total: 17,
            assigned: 3,
            free: 13,
            quarantined: 1,
            delegated: 2,
            ..Counts::default()
        },
        second: Some(FamilyView {
            kind: BlockKind::V6Prefix,
            counts: Counts { assigned: 2, cooling: 5, ..Counts::default() },
        }),
        capacity: Capacity { enis: 2, addresses: 288 },
        in_flight: Vec::new(),
        blocked: vec!["ENI_LIMIT: full".to_owned()],
    }
}

fn counters() -> Counters {
    let counters = Counters::default();
    let refusal =
        Refusal { code: RefusalCode::EniLimit, message: String::new(), retry_after: None };
    counters.add_arrived();
    counters.add_answered(&Answer::Released(None), Duration::from_millis(3));
    counters.add_arrived();
    counters.add_answered(&Answer::Refused(refusal), Duration::from_secs(90));
    counters.add_arrived();
    counters.del_arrived();
    counters.collected(2);
    let at = Timestamp::from_millis;
    let error = CallError {
        kind: CallErrorKind::Throttled,
        code: "RequestLimitExceeded".to_owned(),
        message: String::new(),
    };
    for (id, result, ms) in [(1, Ok(CallOutput::Done), 40), (2, Err(error), 250)] {
        counters.call_made(CallId(id), &Ec2Call::DescribeEnis, at(1_000));
        counters.call_done(CallId(id), &result, at(1_000 + ms));
    }
    let call = Ec2Call::SetSecurityGroups { eni: eni_id("eni-1"), security_groups: [].into() };
    let denied = CallError {
        kind: CallErrorKind::AccessDenied,
        code: "UnauthorizedOperation".to_owned(),
        message: String::new(),
    };
    for (id, result) in [(5, Err(denied)), (6, Ok(CallOutput::Done))] {
        counters.call_made(CallId(id), &call, at(1_000));
        counters.call_done(CallId(id), &result, at(1_020));
    }
    counters.call_made(CallId(3), &Ec2Call::DescribeSubnets, at(1_000));
    counters.call_done(CallId(4), &Ok(CallOutput::Done), at(1_000));
    counters
}

#[test]
fn page_shows_state_and_counts() {
    let text = page(&view(), Ok(()), 9, &counters());
    let has = |line: &str| assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    for line in [
        "awscni_eni_max 2",
        "tidepool_enis_with_other_security_groups 1",
        "tidepool_security_groups_set_total 1",
        "awscni_ip_max 288",
        "awscni_eni_allocated 2",
        "awscni_total_ip_addresses 17",
        "awscni_assigned_ip_addresses 3",
        "awscni_total_ipv4_prefixes 1",
        "tidepool_delegated_prefixes 2",
        "awscni_assigned_ip_per_eni{eni=\"eni-1\"} 3",
        "awscni_assigned_ip_per_eni{eni=\"eni-2\"} 0",
        "awscni_assigned_ip_per_cidr{cidr=\"10.0.0.16/28\"} 2",
        "tidepool_addresses{state=\"free\"} 13",
        "tidepool_enis{state=\"linking\"} 1",
        "tidepool_disagreements{kind=\"quarantined_address\"} 1",
        "tidepool_disagreements{kind=\"lost_address\"} 3",
        "tidepool_disagreements{kind=\"lost_eni\"} 1",
        "tidepool_disagreements{kind=\"unlinked_eni\"} 1",
        "tidepool_disagreements{kind=\"metadata_block\"} 3",
        "tidepool_foreign_enis{reason=\"kind\"} 1",
        "tidepool_foreign_enis{reason=\"no_manage_tag\"} 2",
        "tidepool_foreign_blocks 1",
        "tidepool_runtime_sandboxes 5",
        "tidepool_obstacles 1",
        "tidepool_ready 1",
        "tidepool_tasks 9",
        "awscni_add_ip_req_count 3",
        "awscni_del_ip_req_count{reason=\"PodDeleted\"} 1",
        "awscni_del_ip_req_count{reason=\"GC\"} 2",
        "awscni_no_available_ip_addresses 1",
        "tidepool_add_refusals_total{code=\"ENI_LIMIT\"} 1",
        "tidepool_add_duration_seconds_bucket{le=\"0.001\"} 0",
        "tidepool_add_duration_seconds_bucket{le=\"0.005\"} 1",
        "tidepool_add_duration_seconds_bucket{le=\"60\"} 1",
        "tidepool_add_duration_seconds_bucket{le=\"+Inf\"} 2",
        "tidepool_add_duration_seconds_sum 90.003",
        "tidepool_add_duration_seconds_count 2",
        "awscni_ec2api_req_count{fn=\"DescribeNetworkInterfaces\"} 2",
        "awscni_ec2api_error_count{fn=\"DescribeNetworkInterfaces\"} 1",
        "awscni_aws_api_error_count{api=\"DescribeNetworkInterfaces\",error=\"RequestLimitExceeded\"} 1",
        "awscni_aws_api_latency_ms_sum{api=\"DescribeNetworkInterfaces\",error=\"false\",status=\"200\"} 40",
        "awscni_aws_api_latency_ms_count{api=\"DescribeNetworkInterfaces\",error=\"true\",status=\"RequestLimitExceeded\"} 1",
    ] {
        has(line);
    }
}

/// The kind in the text format.
fn kind(metric: &registry::Metric) -> String {
    format!("{:?}", metric.kind).to_lowercase()
}

/// Prometheus refuses a page if a sample does not match its declaration.
#[test]
fn page_declares_each_metric_as_the_registry_does() {
    let text = page(&view(), Ok(()), 9, &counters());
    let declared = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let mut declared: Vec<_> = declared.collect();
    let mut expect: Vec<_> =
        registry::ALL.iter().map(|metric| format!("{} {}", metric.name, kind(metric))).collect();
    expect.sort_unstable();
    declared.sort_unstable();
    assert_eq!(declared, expect);
}

/// The library must not change the names, since amazon-vpc-cni-k8s has counters without `_total`.
#[test]
fn counters_keep_their_names_without_total() {
    let text = page(&view(), Ok(()), 9, &counters());
    assert!(text.contains("# TYPE awscni_add_ip_req_count counter\nawscni_add_ip_req_count 3\n"));
    assert!(!text.contains("_count_total"));
}

#[test]
fn label_values_are_escaped() {
    let counters = Counters::default();
    let error = CallError {
        kind: CallErrorKind::Throttled,
        code: "a \"b\" \\ \n c".to_owned(),
        message: String::new(),
    };
    counters.call_made(CallId(1), &Ec2Call::DescribeEnis, Timestamp::default());
    counters.call_done(CallId(1), &Err(error), Timestamp::default());
    let text = page(&view(), Ok(()), 9, &counters);
    let sample = "error=\"a \\\"b\\\" \\\\ \\n c\"} 1";
    assert!(text.contains(sample), "{text}");
}

/// The registry's table is between these lines of `docs/metrics.md`.
const TABLE: [&str; 2] = ["<!-- registry -->\n", "<!-- end of registry -->\n"];

fn table() -> String {
    let row = |metric: &registry::Metric| {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        format!(
            "| `{}` | {} | {} | {} |\n",
            metric.name,
            kind(metric),
            labels.join(", "),
            metric.help
        )
    };
    let header = "| metric | kind | labels | meaning |\n|---|---|---|---|\n";
    registry::ALL.iter().fold(header.to_owned(), |table, metric| table + &row(metric))
}

/// `UPDATE_EXPECT=1 cargo test -p agent metrics` writes the table again.
#[test]
fn metrics_document_matches_registry() {
    let document = expect_test::expect_file!["../../../../docs/metrics.md"];
    let text = document.data();
    let (before, rest) = text.split_once(TABLE[0]).unwrap();
    let (_, after) = rest.split_once(TABLE[1]).unwrap();
    document.assert_eq(&[before, TABLE[0], &table(), TABLE[1], after].concat());
}

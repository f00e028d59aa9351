//! The page as a scraper reads it.

use std::time::Duration;

use ipam::call::{CallError, CallErrorKind, CallId, CallOutput, Ec2Call};
use ipam::event::RefusalCode;

use super::samples::{eni, eni_id, view};
use super::*;
use crate::handle::RequestKind;

fn scrape() -> Scrape {
    let mut view = view();
    view.enis.push(eni("eni-6", EniStage::Draining, &[("10.0.0.5/32", &[])]));
    view.enis[2].blocks.values_mut().for_each(|block| block.free = 1);
    let subnet = view.subnets.keys().next().unwrap().clone();
    Scrape {
        obstacles: vec![
            "ENI_LIMIT: full".to_owned(),
            "ENI_LIMIT: full too".to_owned(),
            "METADATA_AWAY: away".to_owned(),
            "eni-1: it is down".to_owned(),
        ],
        view,
        ready: Ok(()),
        exhaustion: Exhaustion {
            node: Some(Duration::from_secs(600)),
            subnets: [(subnet, Duration::from_secs(7_200))].into(),
        },
        now: Timestamp::from_millis(61_000),
        n_tasks: 9,
    }
}

fn counters() -> Counters {
    let counters = Counters::default();
    counters.add_arrived();
    counters.request(RequestKind::Add, Outcome::Granted, Duration::from_millis(3));
    counters.add_arrived();
    counters.request(RequestKind::Add, Outcome::Refused, Duration::from_secs(90));
    counters.add_refused(RefusalCode::EniLimit);
    counters.phase(RequestKind::Add, Phase::Kernel, Outcome::Granted, Duration::from_millis(30));
    counters.add_arrived();
    counters.del_arrived();
    counters.request(RequestKind::Del, Outcome::Released, Duration::from_millis(20));
    counters.has_started(true);
    counters.node_is_known();
    counters.reconciled(Reconciled::BlockGone, 3);
    counters.reconciled(Reconciled::UsedAddressGone, 2);
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
    let text = page(&scrape(), &counters());
    let has = |line: &str| assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    for line in [
        "awscni_eni_max 2",
        "tidepool_enis_with_other_security_groups 1",
        "tidepool_security_groups_set_total 1",
        "awscni_ip_max 288",
        "awscni_eni_allocated 3",
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
        "tidepool_obstacles 4",
        "tidepool_obstacles_by_code{code=\"ENI_LIMIT\"} 2",
        "tidepool_obstacles_by_code{code=\"METADATA_AWAY\"} 1",
        "tidepool_obstacles_by_code{code=\"OTHER\"} 1",
        "tidepool_unusable_addresses{reason=\"draining\"} 1",
        "tidepool_unusable_addresses{reason=\"excluded\"} 0",
        "tidepool_node_exhaustion_seconds 600",
        "tidepool_subnet_exhaustion_seconds{subnet=\"subnet-1\"} 7200",
        "tidepool_subnet_free_addresses{subnet=\"subnet-1\"} 200",
        "tidepool_subnet_free_prefixes{subnet=\"subnet-1\"} 12",
        "tidepool_subnet_described_age_seconds{subnet=\"subnet-1\"} 60",
        "tidepool_ec2_limiter_seconds_total{action=\"CreateNetworkInterface\"} 2.5",
        "tidepool_ec2_limiter_seconds_total{action=\"ModifyNetworkInterfaceAttribute\"} 5",
        "awscni_ipamd_error_count{fn=\"reconcileFailedGetENIs\"} 1",
        "awscni_ipamd_error_count{fn=\"decreaseIPPool\"} 0",
        "awscni_ipamd_action_inprogress{fn=\"nodeIPPoolReconcile\"} 1",
        "awscni_ipamd_action_inprogress{fn=\"increaseDatastorePool\"} 0",
        "awscni_reconcile_count{fn=\"eniIPPoolReconcileDel\"} 3",
        "awscni_force_removed_ips 2",
        "awscni_force_removed_enis 0",
        "awscni_ipamd_startup_duration_seconds_count{failure_reason=\"\",success=\"true\",with_api_server=\"true\"} 1",
        "awscni_ipamd_node_initialization_duration_seconds_count{success=\"true\"} 1",
        "tidepool_provisioning{state=\"cordoned\"} 1",
        "tidepool_provisioning{state=\"by_targets\"} 0",
        "tidepool_ready 1",
        "tidepool_tasks 9",
        "awscni_add_ip_req_count 3",
        "awscni_del_ip_req_count{reason=\"PodDeleted\"} 1",
        "awscni_del_ip_req_count{reason=\"GC\"} 2",
        "awscni_no_available_ip_addresses 1",
        "tidepool_add_refusals_total{code=\"ENI_LIMIT\"} 1",
        "tidepool_add_duration_seconds_bucket{outcome=\"granted\",le=\"0.001\"} 0",
        "tidepool_add_duration_seconds_bucket{outcome=\"granted\",le=\"0.005\"} 1",
        "tidepool_add_duration_seconds_bucket{outcome=\"refused\",le=\"60\"} 0",
        "tidepool_add_duration_seconds_bucket{outcome=\"refused\",le=\"+Inf\"} 1",
        "tidepool_add_duration_seconds_sum{outcome=\"refused\"} 90",
        "tidepool_add_duration_seconds_count{outcome=\"granted\"} 1",
        "tidepool_del_duration_seconds_count{outcome=\"released\"} 1",
        "tidepool_request_phase_seconds_count{outcome=\"granted\",phase=\"kernel\",verb=\"add\"} 1",
        "tidepool_ec2_call_duration_seconds_count{action=\"DescribeNetworkInterfaces\",outcome=\"throttled\"} 1",
        "tidepool_ec2_call_duration_seconds_bucket{action=\"DescribeNetworkInterfaces\",outcome=\"ok\",le=\"0.05\"} 1",
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
    let text = page(&scrape(), &counters());
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
    let text = page(&scrape(), &counters());
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
    let text = page(&scrape(), &counters);
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

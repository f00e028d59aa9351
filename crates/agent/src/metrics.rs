//! Every metric that the daemon has, as Prometheus reads it. What amazon-vpc-cni-k8s v1.23.1 counts
//! too has its name, kind and labels there (`utils/prometheusmetrics/prometheusmetrics.go`).
//!
//! What is true now is read off the engine's picture at each scrape; what has happened is counted
//! where it does.

mod counters;
mod server;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use ipam::event::Refusal;
use ipam::view::{EniStage, EniView, PoolView};

pub(crate) use self::counters::Counters;
use self::counters::{Calls, Counted};
pub(crate) use self::server::serve_forever;
use self::text::Page;

/// All metrics. `ready` is what an ADD could expect now.
fn page(view: &PoolView, ready: Result<(), Refusal>, n_tasks: usize, counted: &Counted) -> String {
    let mut page = Page::default();
    pool(&mut page, view);
    disagreements(&mut page, view);
    requests(&mut page, counted);
    calls(&mut page, &counted.calls);
    page.gauge("tidepool_ready", "1 if an ADD would be served, by what the daemon holds")
        .is(u8::from(ready.is_ok()));
    page.gauge("tidepool_tasks", "Tasks of the daemon, this request's included").is(n_tasks);
    page.gauge("tidepool_build_info", "1, with the version of the daemon")
        .at(&[("version", proto::VERSION)], 1);
    page.into_text()
}

fn pool(page: &mut Page, view: &PoolView) {
    let counts = view.counts;
    page.gauge("awscni_eni_max", "ENIs that the instance can have for pods").is(view.most.enis);
    page.gauge("awscni_ip_max", "Addresses for pods that these ENIs can carry")
        .is(view.most.addresses);
    page.gauge("awscni_eni_allocated", "ENIs for pods that there are").is(view.enis.len());
    page.gauge("awscni_total_ip_addresses", "Addresses for pods that EC2 has assigned")
        .is(counts.total);
    page.gauge("awscni_assigned_ip_addresses", "Addresses that pods have").is(counts.assigned);
    let blocks = || view.enis.iter().flat_map(|eni| &eni.blocks);
    let ipv4 = blocks().filter(|(block, _)| block.is_prefix() && !block.is_ipv6());
    page.gauge("awscni_total_ipv4_prefixes", "IPv4 prefixes that EC2 has assigned")
        .is(ipv4.count());
    let mut per_eni = page.gauge("awscni_assigned_ip_per_eni", "Addresses of the ENI in use");
    for eni in &view.enis {
        let n: usize = eni.blocks.values().map(|used| used.assigned.len()).sum();
        per_eni.at(&[("eni", eni.id.as_str())], n);
    }
    // A single address is its own range; its series would tell nothing that the sums do not.
    let mut per_cidr = page.gauge("awscni_assigned_ip_per_cidr", "Addresses of the prefix in use");
    for (block, used) in blocks().filter(|(block, _)| block.is_prefix()) {
        per_cidr.at(&[("cidr", &block.to_string())], used.assigned.len());
    }
    let mut by_state = page.gauge("tidepool_addresses", "Addresses for pods, by state");
    for (state, n) in [
        ("assigned", counts.assigned),
        ("cooling", counts.cooling),
        ("quarantined", counts.quarantined),
        ("free", counts.free),
    ] {
        by_state.at(&[("state", state)], n);
    }
    let mut enis = page.gauge("tidepool_enis", "ENIs for pods, by state");
    for stage in [EniStage::Attaching, EniStage::Linking, EniStage::Ready, EniStage::Draining] {
        let n = view.enis.iter().filter(|eni| eni.stage == stage).count();
        enis.at(&[("state", stage.as_str())], n);
    }
    page.gauge("tidepool_waiting_adds", "ADDs that wait for an address").is(counts.waiting);
    let mut sandboxes = page.gauge(
        "tidepool_runtime_sandboxes",
        "Sandboxes of the container runtime; none told if it cannot be asked",
    );
    if let Some(n) = view.sandboxes {
        sandboxes.is(n);
    }
    page.gauge("tidepool_ec2_calls_in_flight", "Calls that change something at EC2, under way")
        .is(view.in_flight.len());
    page.gauge("tidepool_obstacles", "Lines under `blocked` in ipamd status")
        .is(view.blocked.len());
}

/// What record, EC2 and kernel do not agree on, and what is somebody else's.
fn disagreements(page: &mut Page, view: &PoolView) {
    let ours: BTreeSet<_> = view.enis.iter().map(|eni| &eni.id).collect();
    let lost_enis: BTreeSet<_> = view.lost.values().filter(|eni| !ours.contains(eni)).collect();
    let unlinked = |eni: &&EniView| eni.stage == EniStage::Linking;
    let mut kinds = page.gauge(
        "tidepool_disagreements",
        "What record, EC2 and kernel do not agree on. quarantined_address: a pod uses it by the \
         kernel, not by the record. lost_address, lost_eni: pods have it by the record, but EC2 does \
         not show it. unlinked_eni: attached by EC2's word, but not usable in the kernel. \
         metadata_block: the metadata service shows it otherwise than EC2",
    );
    for (kind, n) in [
        ("quarantined_address", view.quarantined.len()),
        ("lost_address", view.lost.len()),
        ("lost_eni", lost_enis.len()),
        ("unlinked_eni", view.enis.iter().filter(unlinked).count()),
        ("metadata_block", view.belied.values().map(BTreeSet::len).sum()),
    ] {
        kinds.at(&[("kind", kind)], n);
    }
    let mut reasons: BTreeMap<_, usize> = BTreeMap::new();
    for reason in view.foreign.values() {
        *reasons.entry(reason.as_str()).or_default() += 1;
    }
    let mut foreign =
        page.gauge("tidepool_foreign_enis", "ENIs on the instance that are left alone, by reason");
    for (reason, n) in reasons {
        foreign.at(&[("reason", reason)], n);
    }
    page.gauge(
        "tidepool_foreign_blocks",
        "Addresses and prefixes on ENIs of ours that are left alone",
    )
    .is(view.left_alone.len());
}

fn requests(page: &mut Page, counted: &Counted) {
    page.counter("awscni_add_ip_req_count", "ADDs").is(counted.adds);
    let mut dels = page.counter("awscni_del_ip_req_count", "DELs, and what GC collected");
    dels.at(&[("reason", "PodDeleted")], counted.dels);
    dels.at(&[("reason", "GC")], counted.collected);
    page.counter("awscni_no_available_ip_addresses", "ADDs that got no address")
        .is(counted.refused.values().sum::<u64>());
    let mut refused =
        page.counter("tidepool_add_refusals_total", "ADDs that got no address, by code");
    for (code, n) in &counted.refused {
        refused.at(&[("code", code)], n);
    }
    page.histogram("tidepool_add_duration_seconds", "From an ADD's arrival to its answer")
        .with(&counted.add_seconds);
}

fn calls(page: &mut Page, calls: &BTreeMap<&'static str, Calls>) {
    let mut made = page.counter("awscni_ec2api_req_count", "Calls to EC2 that have ended");
    for (api, calls) in calls {
        made.at(&[("fn", api)], calls.n());
    }
    let mut failed = page.counter("awscni_ec2api_error_count", "Those that have failed");
    for (api, calls) in calls {
        failed.at(&[("fn", api)], calls.n_failed());
    }
    let mut by_code = page.counter("awscni_aws_api_error_count", "Failed calls to EC2, by code");
    for (api, calls) in calls {
        for (code, taken) in &calls.failed {
            by_code.at(&[("api", api), ("error", code)], taken.n);
        }
    }
    let mut latency = page.summary("awscni_aws_api_latency_ms", "How long calls to EC2 have taken");
    for (api, calls) in calls {
        if calls.succeeded.n > 0 {
            let labels = [("api", *api), ("error", "false"), ("status", "200")];
            latency.with(&labels, calls.succeeded);
        }
        for (code, taken) in &calls.failed {
            latency.with(&[("api", api), ("error", "true"), ("status", code)], *taken);
        }
    }
}

#[cfg(test)]
mod tests;

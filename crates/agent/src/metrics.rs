//! The page that Prometheus scrapes. [`registry`] declares every metric.
//!
//! Each scrape makes the gauges from the engine's view. Counters count events where they happen.

mod counters;
mod outlook;
mod page;
mod process;
mod registry;
mod server;

use std::collections::{BTreeMap, BTreeSet};

use ipam::block::Family;
use ipam::event::Refusal;
use ipam::time::Timestamp;
use ipam::view::{BlockUse, Changes, EniStage, EniView, FamilyView, PoolView};

pub(crate) use self::counters::{
    Counters, Outcome, Phase, PolicyCall, PolicyCalls, PolicyOutcome, Reconciled,
};
pub use self::counters::{HostRepairs, SettingsRefused};
use self::outlook::Exhaustion;
pub(crate) use self::outlook::Outlook;
use self::page::Page;
pub(crate) use self::server::{Scraped, serve_forever};

/// What a scrape shows beside the counters.
#[derive(Debug)]
struct Scrape {
    view: PoolView,
    /// The lines under `blocked` in `ipamd status`.
    obstacles: Vec<String>,
    /// Whether an ADD would be served now.
    ready: Result<(), Refusal>,
    exhaustion: Exhaustion,
    now: Timestamp,
    n_tasks: usize,
}

/// The text of a scrape.
fn page(scrape: &Scrape, counters: &Counters) -> String {
    let page = Page::default();
    let Scrape { view, obstacles, ready, exhaustion, now, n_tasks } = scrape;
    pool(&page, view);
    room(&page, view, exhaustion, *now);
    limiter(&page, view);
    disagreements(&page, view);
    foreign(&page, view);
    counters.show(&page);
    process::show(&page);
    page.gauge(&registry::OBSTACLES, obstacles.len());
    page.gauges(&registry::OBSTACLES_BY_CODE, by_code(obstacles));
    page.gauge(&registry::READY, u8::from(ready.is_ok()));
    page.gauge(&registry::TASKS, *n_tasks);
    page.gauges(&registry::BUILD_INFO, [(proto::VERSION, 1)]);
    page.all(&registry::AWS_BUILD_INFO, [(["", proto::VERSION], 1)]);
    page.into_text()
}

/// How many obstacles there are of each code.
fn by_code(obstacles: &[String]) -> BTreeMap<&str, usize> {
    let is_code =
        |word: &str| word.chars().all(|c| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit());
    let mut n_by_code = BTreeMap::new();
    for line in obstacles {
        let code = line.split_once(": ").map(|(word, _)| word).filter(|word| is_code(word));
        *n_by_code.entry(code.unwrap_or("OTHER")).or_default() += 1;
    }
    n_by_code
}

fn pool(page: &Page, view: &PoolView) {
    let counts = view.counts;
    page.gauge(&registry::ENI_MAX, view.capacity.enis);
    page.gauge(&registry::IP_MAX, view.capacity.addresses);
    page.gauge(&registry::ENI_ALLOCATED, view.enis.len());
    page.gauge(&registry::TOTAL_ADDRESSES, counts.total);
    page.gauge(&registry::ASSIGNED_ADDRESSES, counts.assigned);
    let prefixes =
        || view.enis.iter().flat_map(|eni| &eni.blocks).filter(|(block, _)| block.is_prefix());
    let n_ipv4 = prefixes().filter(|(block, _)| block.family() == Family::V4).count();
    page.gauge(&registry::TOTAL_PREFIXES, n_ipv4);
    page.gauge(&registry::DELEGATED_PREFIXES, counts.delegated);
    let on_eni = |eni: &EniView| eni.blocks.values().map(|used| used.assigned.len()).sum::<usize>();
    let per_eni = view.enis.iter().map(|eni| (eni.id.as_str(), on_eni(eni)));
    page.gauges(&registry::ASSIGNED_PER_ENI, per_eni);
    // A single address is its own range, so its series would add nothing to the sums.
    let per_cidr = prefixes().map(|(block, used)| (block.to_string(), used.assigned.len()));
    page.gauges(&registry::ASSIGNED_PER_CIDR, per_cidr);
    let by_state = [
        ("assigned", counts.assigned),
        ("cooling", counts.cooling),
        ("quarantined", counts.quarantined),
        ("free", counts.free),
    ];
    page.gauges(&registry::ADDRESSES, by_state);
    if let Some(FamilyView { counts, .. }) = view.second {
        let by_state = [
            ("assigned", counts.assigned),
            ("cooling", counts.cooling),
            ("quarantined", counts.quarantined),
        ];
        page.gauges(&registry::IPV6_ADDRESSES, by_state);
        let n_single =
            view.assignments.values().filter(|held| held.addresses.iter().count() == 1).count();
        page.gauge(&registry::SINGLE_FAMILY_PODS, n_single);
    }
    let stages = [EniStage::Attaching, EniStage::Linking, EniStage::Ready, EniStage::Draining];
    let n_at = |stage| view.enis.iter().filter(|eni| eni.stage == stage).count();
    page.gauges(&registry::ENIS, stages.map(|stage| (stage.as_str(), n_at(stage))));
    let states = Changes::ALL.map(|it| (it.as_str(), u8::from(it == view.changes)));
    page.gauges(&registry::PROVISIONING, states);
    page.gauge(&registry::WAITING_ADDS, counts.waiting);
    page.gauge(&registry::EXPECTED_PODS, counts.expected);
    if let Some(n) = view.sandboxes {
        page.gauge(&registry::RUNTIME_SANDBOXES, n);
    }
    page.gauge(&registry::CALLS_IN_FLIGHT, view.in_flight.len());
}

/// What there is room for, and for how long.
fn room(page: &Page, view: &PoolView, exhaustion: &Exhaustion, now: Timestamp) {
    let mut unusable: BTreeMap<_, u64> =
        ["attaching", "linking", "draining", "excluded"].map(|reason| (reason, 0)).into();
    for eni in &view.enis {
        let reason = match eni.stage {
            EniStage::Ready if eni.is_excluded => "excluded",
            EniStage::Ready => continue,
            stage @ (EniStage::Attaching | EniStage::Linking | EniStage::Draining) => {
                stage.as_str()
            }
        };
        let of_family = eni.blocks.iter().filter(|(block, _)| block.family() == view.kind.family());
        let n_free: u64 = of_family.map(|(_, BlockUse { free, .. })| *free).sum();
        *unusable.entry(reason).or_default() += n_free;
    }
    page.gauges(&registry::UNUSABLE_ADDRESSES, unusable);
    if let Some(span) = exhaustion.node {
        page.gauge(&registry::NODE_EXHAUSTION, span.as_secs());
    }
    let subnets = || view.subnets.iter().map(|(id, subnet)| (id.as_str(), subnet));
    let free = subnets().map(|(id, subnet)| (id, subnet.free_addresses));
    page.gauges(&registry::SUBNET_FREE, free);
    let prefixes = subnets().map(|(id, subnet)| (id, subnet.free_prefixes));
    page.gauges(&registry::SUBNET_FREE_PREFIXES, prefixes);
    let ages = subnets().map(|(id, subnet)| (id, now.since(subnet.described_at).as_secs()));
    page.gauges(&registry::SUBNET_AGE, ages);
    let ends = exhaustion.subnets.iter().map(|(id, span)| (id.as_str(), span.as_secs()));
    page.gauges(&registry::SUBNET_EXHAUSTION, ends);
}

/// The pauses of the node's own token buckets. Two of our actions are one of EC2's.
fn limiter(page: &Page, view: &PoolView) {
    let mut seconds: BTreeMap<_, f64> = BTreeMap::new();
    for (action, span) in &view.held_back {
        *seconds.entry(action.as_str()).or_default() += span.as_secs_f64();
    }
    let samples = seconds.into_iter().map(|(action, span)| ([action], span));
    page.counters(&registry::EC2_HELD_BACK, samples);
}

/// Facts on which record, EC2, kernel and metadata service disagree.
fn disagreements(page: &Page, view: &PoolView) {
    let ours: BTreeSet<_> = view.enis.iter().map(|eni| &eni.id).collect();
    let lost_enis: BTreeSet<_> = view.lost.values().filter(|eni| !ours.contains(eni)).collect();
    let unlinked = |eni: &&EniView| eni.stage == EniStage::Linking;
    let by_kind = [
        ("quarantined_address", view.quarantined.len()),
        ("host_address", view.host_addresses.len()),
        ("lost_address", view.lost.len()),
        ("lost_eni", lost_enis.len()),
        ("unlinked_eni", view.enis.iter().filter(unlinked).count()),
        ("metadata_block", view.refuted_hints.values().map(BTreeSet::len).sum()),
    ];
    page.gauges(&registry::DISAGREEMENTS, by_kind);
}

/// ENIs and blocks on the instance that are not the daemon's, or not as they should be.
fn foreign(page: &Page, view: &PoolView) {
    let mut reasons: BTreeMap<_, usize> = BTreeMap::new();
    for reason in view.foreign.values() {
        *reasons.entry(reason.as_str()).or_default() += 1;
    }
    page.gauges(&registry::FOREIGN_ENIS, reasons);
    page.gauge(&registry::FOREIGN_BLOCKS, view.unused_blocks.len());
    page.gauge(&registry::ENIS_WITH_OTHER_GROUPS, view.other_groups.len());
}

#[cfg(test)]
pub(crate) use self::samples::{eni, eni_id, view};
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

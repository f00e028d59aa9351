//! The page that Prometheus scrapes. [`registry`] declares every metric.
//!
//! Each scrape makes the gauges from the engine's view. Counters count events where they happen.

mod counters;
mod page;
mod registry;
mod server;

use std::collections::{BTreeMap, BTreeSet};

use ipam::block::Family;
use ipam::event::Refusal;
use ipam::view::{EniStage, EniView, FamilyView, PoolView};

pub(crate) use self::counters::Counters;
pub use self::counters::{HostRepairs, SettingsRefused};
use self::page::Page;
pub(crate) use self::server::serve_forever;

/// The text of a scrape. `ready` is whether an ADD would be served now.
fn page(
    view: &PoolView,
    ready: Result<(), Refusal>,
    n_tasks: usize,
    counters: &Counters,
) -> String {
    let page = Page::default();
    pool(&page, view);
    disagreements(&page, view);
    foreign(&page, view);
    counters.show(&page);
    page.gauge(&registry::READY, u8::from(ready.is_ok()));
    page.gauge(&registry::TASKS, n_tasks);
    page.gauges(&registry::BUILD_INFO, [(proto::VERSION, 1)]);
    page.into_text()
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
    page.gauge(&registry::WAITING_ADDS, counts.waiting);
    if let Some(n) = view.sandboxes {
        page.gauge(&registry::RUNTIME_SANDBOXES, n);
    }
    page.gauge(&registry::CALLS_IN_FLIGHT, view.in_flight.len());
    page.gauge(&registry::OBSTACLES, view.blocked.len());
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
mod tests;

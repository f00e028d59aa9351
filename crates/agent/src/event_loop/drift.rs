//! What a describe of the ENIs changes in the pool: ENIs and addresses that came or went without a call of this
//! daemon.

use std::collections::BTreeSet;

use ipam::block::Block;
use ipam::call::CallOutput;
use ipam::event::Event;
use ipam::id::EniId;
use ipam::view::{EniStage, EniView, PoolView};

use crate::metrics::{Counters, Reconciled};

/// Compares the pool before a describe with the pool after it.
#[derive(Debug, Default)]
pub(super) struct Drift {
    /// Whether EC2 has been described before. The first describe fills the pool, so its changes are no drift.
    has_begun: bool,
}

impl Drift {
    /// Whether `event` is a describe's answer.
    pub(super) fn may_show(event: &Event) -> bool {
        matches!(event, Event::CallDone { result: Ok(CallOutput::Enis(_)), .. })
    }

    /// Counts the changes.
    pub(super) fn count(&mut self, before: &PoolView, after: &PoolView, counters: &Counters) {
        if !std::mem::replace(&mut self.has_begun, true) {
            counters.node_is_known();
            return;
        }
        for (what, n) in changes(before, after) {
            counters.reconciled(what, n);
        }
    }
}

fn changes(before: &PoolView, after: &PoolView) -> [(Reconciled, usize); 6] {
    let (old, new) = (ids(before), ids(after));
    let n_came = new.difference(&old).count();
    // A draining ENI goes by a call of ours.
    let drains =
        |id: &EniId| before.enis.iter().any(|eni| eni.id == *id && eni.stage == EniStage::Draining);
    let n_gone = old.difference(&new).filter(|id| !drains(id)).count();
    let (old_blocks, new_blocks) = (blocks(before, &new), blocks(after, &old));
    let n_lost = after.lost.keys().filter(|ip| !before.lost.contains_key(*ip)).count();
    let lost_enis = |view: &PoolView| -> BTreeSet<EniId> {
        let ours = ids(view);
        view.lost.values().filter(|eni| !ours.contains(*eni)).cloned().collect()
    };
    let n_lost_enis = lost_enis(after).difference(&lost_enis(before)).count();
    [
        (Reconciled::EniCame, n_came),
        (Reconciled::EniGone, n_gone),
        (Reconciled::BlockCame, new_blocks.difference(&old_blocks).count()),
        (Reconciled::BlockGone, old_blocks.difference(&new_blocks).count()),
        (Reconciled::UsedEniGone, n_lost_enis),
        (Reconciled::UsedAddressGone, n_lost),
    ]
}

fn ids(view: &PoolView) -> BTreeSet<EniId> {
    view.enis.iter().map(|eni| eni.id.clone()).collect()
}

/// The blocks of the ENIs that the other view has too.
fn blocks(view: &PoolView, common: &BTreeSet<EniId>) -> BTreeSet<(EniId, Block)> {
    let of_eni = |eni: &EniView| {
        let id = eni.id.clone();
        eni.blocks.keys().map(move |block| (id.clone(), *block)).collect::<Vec<_>>()
    };
    view.enis.iter().filter(|eni| common.contains(&eni.id)).flat_map(of_eni).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{eni, eni_id, view};

    #[test]
    fn changes_without_a_call_of_ours_are_counted_by_kind() {
        let before = {
            let mut before = view();
            before.lost.clear();
            before.enis = vec![
                eni("eni-1", EniStage::Ready, &[("10.0.0.9/32", &[]), ("10.0.0.8/32", &[])]),
                eni("eni-2", EniStage::Ready, &[("10.0.0.7/32", &[])]),
                eni("eni-3", EniStage::Draining, &[]),
            ];
            before
        };
        let n = |after: &PoolView| changes(&before, after).map(|(_, n)| n);
        assert_eq!(n(&before), [0; 6]);
        let mut after = before.clone();
        after.enis = vec![
            eni("eni-1", EniStage::Ready, &[("10.0.0.9/32", &[]), ("10.0.0.5/32", &[])]),
            eni("eni-4", EniStage::Linking, &[("10.0.0.6/32", &[])]),
        ];
        after.lost =
            [([10, 0, 0, 8].into(), eni_id("eni-1")), ([10, 0, 0, 7].into(), eni_id("eni-2"))]
                .into();
        assert_eq!(n(&after), [1, 1, 1, 1, 1, 2]);
    }

    #[test]
    fn first_describe_is_no_drift() {
        let (counters, mut drift) = (Counters::default(), Drift::default());
        let mut empty = view();
        empty.enis.clear();
        drift.count(&empty, &view(), &counters);
        assert_eq!(counters.n_reconciled(Reconciled::EniCame), 0);
        drift.count(&empty, &view(), &counters);
        assert_eq!(counters.n_reconciled(Reconciled::EniCame), 2);
    }
}

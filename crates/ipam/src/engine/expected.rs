//! The pods that are bound to the node and have not asked for an address yet: demand that is seen early.
//!
//! The API server names them, and it may lie, lag or fall silent. So a pod only raises what the pool has, never what it
//! may have, and it counts for [`COUNTS_FOR`] from the first time that it is named, once. What has come for a pod that
//! does not start is free stock after that, and goes back as any other surplus.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::demand::Demand;
use crate::id::Pod;
use crate::record::Record;
use crate::standing::Whom;
use crate::time::Timestamp;

/// A pod asks for its address within seconds; with a volume that must be attached first, within a minute.
const COUNTS_FOR: Duration = Duration::from_secs(60);
/// More than a node can have. Further pods do not count.
const MOST_PODS: usize = 1_000;

/// The pods of the newest news.
#[derive(Debug, Clone, Default)]
pub(super) struct Expected {
    /// When each pod was named first. Pods that count no more stay, so that they do not count again.
    first_named: BTreeMap<Pod, Timestamp>,
}

impl Expected {
    /// Replaces the pods by those that the newest news names.
    pub(super) fn take_in(&mut self, named: BTreeSet<Pod>, now: Timestamp) {
        let before = std::mem::take(&mut self.first_named);
        let at = |pod: Pod| {
            let first = before.get(&pod).copied().unwrap_or(now);
            (pod, first)
        };
        self.first_named = named.into_iter().take(MOST_PODS).map(at).collect();
    }

    /// How many pods count: those that have neither asked for an address nor got one.
    /// Cost: one pass over all attachments while a pod counts, otherwise none.
    pub(super) fn n(&self, demand: &Demand, record: &Record, now: Timestamp) -> usize {
        let mut counting = self.counting(now).peekable();
        if counting.peek().is_none() {
            return 0;
        }
        let recorded = record.assignments().values().map(|assignment| &assignment.pod);
        let known: BTreeSet<_> = demand.pods().chain(recorded).map(identity).collect();
        let is_known = |pod: &Pod| {
            let (namespace, name, uid) = identity(pod);
            known.contains(&(namespace, name, uid)) || known.contains(&(namespace, name, ""))
        };
        counting.filter(|pod| !is_known(pod)).count()
    }

    /// When the pod was named first, if the newest news name it.
    pub(super) fn since(&self, whom: &Whom) -> Option<Timestamp> {
        let Whom::Pod { namespace, name } = whom else { return None };
        let is_meant = |pod: &Pod| pod.namespace == *namespace && pod.name == *name;
        self.first_named.iter().find(|(pod, _)| is_meant(pod)).map(|(_, first)| *first)
    }

    /// When the next pod stops to count.
    pub(super) fn wakes_at(&self, now: Timestamp) -> Option<Timestamp> {
        let ends = self.first_named.values().map(|first| *first + COUNTS_FOR);
        ends.filter(|end| *end > now).min()
    }

    fn counting(&self, now: Timestamp) -> impl Iterator<Item = &Pod> {
        let counts = move |first: Timestamp| now < first + COUNTS_FOR;
        self.first_named.iter().filter(move |(_, first)| counts(**first)).map(|(pod, _)| pod)
    }
}

/// Not every container runtime names the uid. A pod of the same name with another uid is another one.
fn identity(pod: &Pod) -> (&str, &str, &str) {
    (&pod.namespace, &pod.name, &pod.uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(n: usize) -> Pod {
        Pod { name: format!("pod-{n:05}"), ..Pod::default() }
    }

    #[test]
    fn news_without_end_take_bounded_memory() {
        let mut expected = Expected::default();
        let at = Timestamp::from_millis;
        for news in 0..5 {
            expected.take_in((news..news + 5_000).map(pod).collect(), at(news as u64));
            assert_eq!(expected.first_named.len(), MOST_PODS);
        }
        expected.take_in(BTreeSet::new(), at(9));
        assert!(expected.first_named.is_empty());
    }
}

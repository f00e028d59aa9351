//! Removes the links that DELs have retired, many at once. Most of them go before that, with their pods' namespaces.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use datapath::links::LinkChange;
use datapath::retired::{self, Swept};
use futures::StreamExt as _;
use tokio::time::Instant;

use crate::metrics::Counters;
use crate::{error_chain, host};

/// The pause from the first retired link to the sweep. A sweep holds up each ADD for some 20 to 40 ms, whether it
/// removes one link or a hundred. A runtime has removed the namespace by then, and the link with it.
const TOGETHER: Duration = Duration::from_secs(5);
/// The pause between two sweeps if netlink reports nothing, and after a failure.
const EVERY: Duration = Duration::from_secs(60);

/// Sweeps at the start, since an earlier daemon may have left links, and whenever links wait.
pub(crate) async fn sweep_forever(counters: Arc<Counters>) {
    let mut changes = host::link_changes().fuse();
    let mut waiting = Waiting::new(Instant::now());
    loop {
        tokio::select! {
            Some(change) = changes.next() => waiting.take(change, Instant::now()),
            () = tokio::time::sleep_until(waiting.due) => {
                let swept = sweep().await;
                waiting.log(&swept);
                waiting.swept(swept.is_ok(), Instant::now());
            }
        }
        counters.retired_links(waiting.names.len());
    }
}

/// In a thread with a runtime of its own, since the kernel answers only when the links have gone.
async fn sweep() -> anyhow::Result<Swept> {
    let sweeping = tokio::task::spawn_blocking(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(runtime.context("start an event loop")?.block_on(retired::sweep())?)
    });
    sweeping.await.context("wait for the sweep")?
}

/// The links that wait for removal, as far as netlink has reported them.
#[derive(Debug)]
struct Waiting {
    names: BTreeSet<String>,
    due: Instant,
    /// When a sweep is due even if no link is known to wait.
    full: Instant,
    /// The foreign links of the last log line.
    foreign: Vec<String>,
}

impl Waiting {
    fn new(now: Instant) -> Self {
        Self { names: BTreeSet::new(), due: now, full: now, foreign: Vec::new() }
    }

    fn take(&mut self, change: LinkChange, now: Instant) {
        match change {
            LinkChange::Retired { name } => {
                self.names.insert(name);
                self.due = self.due.min(now + TOGETHER);
            }
            // A newer pod may have got the name.
            LinkChange::Gone { name, .. } | LinkChange::Present { name, .. } => {
                let waited = self.names.remove(&name);
                if waited && self.names.is_empty() {
                    self.due = self.full;
                }
            }
            LinkChange::Missed => self.due = self.due.min(now + TOGETHER),
        }
    }

    /// After a failure, the links that are known to wait remain so.
    fn swept(&mut self, done: bool, now: Instant) {
        if done {
            self.names.clear();
        }
        self.full = now + EVERY;
        self.due = self.full;
    }

    fn log(&mut self, swept: &anyhow::Result<Swept>) {
        match swept {
            Ok(Swept { removed, foreign }) => {
                if !removed.is_empty() {
                    tracing::info!(
                        n = removed.len(),
                        ?removed,
                        "removed the links of pods that have ended"
                    );
                }
                if *foreign != self.foreign && !foreign.is_empty() {
                    tracing::warn!(
                        ?foreign,
                        "another program uses the link group of ended pods; their links are removed one by one"
                    );
                }
                self.foreign.clone_from(foreign);
            }
            Err(fault) => tracing::error!(
                fault = error_chain(fault.as_ref()),
                "links of pods that have ended cannot be removed; ipamd tries again in a minute"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retired(name: &str) -> LinkChange {
        LinkChange::Retired { name: name.to_owned() }
    }

    fn gone(name: &str) -> LinkChange {
        LinkChange::Gone { name: name.to_owned(), mac: datapath::MacAddr::NONE }
    }

    #[test]
    fn start_sweeps_at_once_and_then_each_minute() {
        let now = Instant::now();
        let mut waiting = Waiting::new(now);
        assert_eq!(waiting.due, now);
        for done in [true, false] {
            waiting.swept(done, now);
            assert_eq!(waiting.due, now + EVERY);
        }
    }

    #[test]
    fn links_that_are_retired_together_cost_one_sweep() {
        let now = Instant::now();
        let mut waiting = Waiting::new(now);
        waiting.swept(true, now);
        for (name, after) in [("eni1", 0), ("eni2", 1), ("eni3", 2)] {
            waiting.take(retired(name), now + Duration::from_secs(after));
        }
        assert_eq!((waiting.due, waiting.names.len()), (now + TOGETHER, 3));
        waiting.swept(true, now + TOGETHER);
        assert_eq!((waiting.due, waiting.names.len()), (now + TOGETHER + EVERY, 0));
    }

    #[test]
    fn links_that_go_with_their_namespaces_cost_no_sweep() {
        let now = Instant::now();
        let mut waiting = Waiting::new(now);
        waiting.swept(true, now);
        waiting.take(retired("eni1"), now);
        waiting.take(retired("eni2"), now);
        waiting.take(gone("eni1"), now);
        assert_eq!(waiting.due, now + TOGETHER);
        waiting.take(gone("eni2"), now);
        assert_eq!(waiting.due, now + EVERY);
    }

    #[test]
    fn failed_sweep_comes_again_and_counts_its_links() {
        let now = Instant::now();
        let mut waiting = Waiting::new(now);
        waiting.take(retired("eni1"), now);
        waiting.swept(false, now);
        assert_eq!((waiting.due, waiting.names.len()), (now + EVERY, 1));
        waiting.take(LinkChange::Missed, now);
        assert_eq!(waiting.due, now + TOGETHER);
    }

    #[test]
    fn link_of_a_newer_pod_does_not_wait() {
        let now = Instant::now();
        let mut waiting = Waiting::new(now);
        waiting.swept(true, now);
        waiting.take(retired("eni1"), now);
        let mac = datapath::MacAddr::NONE;
        waiting.take(LinkChange::Present { name: "eni1".to_owned(), mac, up: true }, now);
        assert_eq!((waiting.due, waiting.names.len()), (now + EVERY, 0));
    }
}

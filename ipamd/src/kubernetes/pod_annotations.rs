//! `ANNOTATE_POD_IP`: each pod is annotated with its address, as amazon-vpc-cni-k8s does. No ADD waits for it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipam::id::Pod;
use k8s::{Cluster, News, PatchFault};
use tokio::sync::Notify;

use super::permission::POD_ANNOTATIONS;
use super::{Desk, Office};

/// The annotation. Source: amazon-vpc-cni-k8s v1.23.1, `pkg/ipamd/ipamd.go`, `vpccniPodIPKey`.
const KEY: &str = "vpc.amazonaws.com/pod-ips";
/// Pods that wait for their annotation. Further ones get none. A node has fewer.
const MOST_PODS: usize = 1_000;
/// How often one annotation is tried, and the pause after the first failure. Each further pause is twice as long.
const TRIES: u32 = 6;
const PAUSE: Duration = Duration::from_secs(1);

/// The pods whose annotation is to change. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Pending(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    pods: Mutex<BTreeMap<Pod, Wanted>>,
    changed: Notify,
}

/// What an annotation is to become.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    /// This.
    Set(String),
    /// Empty, if it is this.
    Emptied(String),
}

impl Pending {
    /// The pod has got these addresses.
    pub(super) fn granted(&self, pod: Pod, addresses: &[IpAddr]) {
        self.put(pod, Wanted::Set(text(addresses)));
    }

    /// The pod has given these addresses back. The release of an earlier sandbox's leaves a later one's alone.
    pub(super) fn released(&self, pod: Pod, addresses: &[IpAddr]) {
        let released = text(addresses);
        let is_of_another = match self.lock().get(&pod) {
            Some(Wanted::Set(newer)) => *newer != released,
            Some(Wanted::Emptied(_)) | None => false,
        };
        if !is_of_another {
            self.put(pod, Wanted::Emptied(released));
        }
    }

    fn put(&self, pod: Pod, wanted: Wanted) {
        let mut pods = self.lock();
        if pods.len() < MOST_PODS || pods.contains_key(&pod) {
            pods.insert(pod, wanted);
        }
        drop(pods);
        self.0.changed.notify_one();
    }

    fn take(&self) -> Option<(Pod, Wanted)> {
        self.lock().pop_first()
    }

    /// Whether something else is wanted for the pod by now.
    fn is_outdated(&self, pod: &Pod) -> bool {
        self.lock().contains_key(pod)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Pod, Wanted>> {
        self.0.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The annotation for these addresses.
fn text(addresses: &[IpAddr]) -> String {
    let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    texts.join(",")
}

/// Annotates the pods of `pending` for ever, if they are wanted.
pub(super) async fn keep(office: &Office, pending: Option<Pending>) {
    let Some(pending) = pending else { return };
    let work =
        |cluster: Cluster, _node: String, desk: Desk| annotate(cluster, desk, pending.clone());
    match office.work(work).await {}
}

async fn annotate(cluster: Cluster, mut desk: Desk, pending: Pending) -> Infallible {
    loop {
        let Some((pod, wanted)) = pending.take() else {
            pending.0.changed.notified().await;
            continue;
        };
        let mut pause = PAUSE;
        for _ in 0..TRIES {
            let done = match &wanted {
                Wanted::Set(value) => cluster.annotate_pod(&pod, KEY, value).await,
                Wanted::Emptied(before) => cluster.empty_pod_annotation(&pod, KEY, before).await,
            };
            match done {
                Ok(()) => {
                    desk.take(News::Health { of: POD_ANNOTATIONS, fault: None });
                    break;
                }
                Err(PatchFault::Gone) => break,
                Err(PatchFault::Conflict) => {}
                Err(PatchFault::Failed(fault)) => {
                    desk.take(News::Health { of: POD_ANNOTATIONS, fault: Some(fault) });
                }
            }
            if pending.is_outdated(&pod) {
                break;
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> Pod {
        Pod { name: name.to_owned(), ..Pod::default() }
    }

    #[test]
    fn late_release_leaves_the_next_sandbox_alone() {
        let (old, new) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let pending = Pending::default();
        pending.granted(pod("a"), &[new]);
        pending.released(pod("a"), &[old]);
        assert_eq!(pending.take(), Some((pod("a"), Wanted::Set("10.0.0.2".to_owned()))));
        pending.granted(pod("a"), &[new]);
        pending.released(pod("a"), &[new]);
        assert_eq!(pending.take(), Some((pod("a"), Wanted::Emptied("10.0.0.2".to_owned()))));
        assert_eq!(pending.take(), None);
    }

    #[test]
    fn pods_that_wait_are_bounded() {
        let pending = Pending::default();
        for n in 0..2 * MOST_PODS {
            pending.granted(pod(&n.to_string()), &[IpAddr::from([10, 0, 0, 1])]);
        }
        assert_eq!(pending.lock().len(), MOST_PODS);
    }
}

//! The last refusals of ADDs. A runtime repeats a refused ADD after seconds, with another container, so between two
//! ADDs only this memory knows why the pod has no address. No decision depends on it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipam::event::{Answer, Refusal};
use ipam::id::{AttachmentKey, Pod};
use ipam::standing::Whom;
use ipam::time::Timestamp;

/// The number of pods whose refusal is kept: above what a node runs, and some hundred kilobytes at most.
const MOST: usize = 256;

/// The pods whose last ADD was refused, the latest at the end.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<VecDeque<Refused>>);

/// A pod whose last ADD was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The attachment of that ADD.
    pub(crate) key: AttachmentKey,
    /// Its pod.
    pub(crate) pod: Pod,
    /// The refusal.
    pub(crate) refusal: Refusal,
    /// When it was given.
    pub(crate) at: Timestamp,
    /// The number of refusals since the pod's last success.
    pub(crate) n: u32,
    /// When the first of these was given.
    pub(crate) first: Timestamp,
}

impl Refusals {
    /// Notes the answer that an ADD gets at `now`. A pod that has an address needs no refusal kept.
    pub(crate) fn note(&self, key: &AttachmentKey, pod: &Pod, answer: &Answer, now: Timestamp) {
        let mut all = self.lock();
        let place = all.iter().position(|other| is_same(other, key, pod));
        let before = place.and_then(|place| all.remove(place));
        let Answer::Refused(refusal) = answer else { return };
        let (n, first) = before.map_or((0, now), |before| (before.n, before.first));
        let (key, pod, refusal) = (key.clone(), pod.clone(), refusal.clone());
        all.push_back(Refused { key, pod, refusal, at: now, n: n.saturating_add(1), first });
        let n_over = all.len().saturating_sub(MOST);
        all.drain(..n_over);
    }

    /// The last refusal of `whom`.
    pub(crate) fn last(&self, whom: &Whom) -> Option<Refused> {
        self.lock().iter().rev().find(|refused| whom.means(&refused.key, &refused.pod)).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Refused>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an ADD of `key` is for the pod of `other`. A runtime that names no pods has only the container.
fn is_same(other: &Refused, key: &AttachmentKey, pod: &Pod) -> bool {
    match pod.name.is_empty() {
        true => other.key == *key,
        false => (&other.pod.namespace, &other.pod.name) == (&pod.namespace, &pod.name),
    }
}

#[cfg(test)]
mod tests {
    use ipam::event::RefusalCode;

    use super::*;

    fn key(container: &str) -> AttachmentKey {
        let (container, ifname) = (container.to_owned(), "eth0".to_owned());
        AttachmentKey { network: "net".into(), container, ifname }
    }

    fn pod(name: &str) -> Pod {
        Pod { namespace: "default".to_owned(), name: name.to_owned(), uid: String::new() }
    }

    fn refused(code: RefusalCode) -> Answer {
        Answer::Refused(Refusal { code, message: String::new(), retry_after: None })
    }

    fn whom(name: &str) -> Whom {
        Whom::Pod { namespace: "default".to_owned(), name: name.to_owned() }
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn refusals_of_a_pod_count_until_it_has_an_address() {
        let refusals = Refusals::default();
        refusals.note(&key("c1"), &pod("web"), &refused(RefusalCode::Starting), at(1));
        refusals.note(&key("c2"), &pod("web"), &refused(RefusalCode::EniLimit), at(2));
        let last = refusals.last(&whom("web")).unwrap();
        assert_eq!((last.n, last.first, last.at), (2, at(1), at(2)));
        assert_eq!((last.refusal.code, &last.key), (RefusalCode::EniLimit, &key("c2")));
        assert_eq!(refusals.last(&Whom::Container("c2".to_owned())), Some(last));
        assert_eq!(refusals.last(&Whom::Container("c1".to_owned())), None);
        refusals.note(&key("c3"), &pod("web"), &Answer::Released(None), at(3));
        assert_eq!(refusals.last(&whom("web")), None);
    }

    #[test]
    fn containers_without_pods_are_kept_apart() {
        let refusals = Refusals::default();
        for container in ["c1", "c2"] {
            refusals.note(&key(container), &pod(""), &refused(RefusalCode::Starting), at(1));
        }
        assert_eq!(refusals.last(&Whom::Container("c1".to_owned())).unwrap().n, 1);
    }

    #[test]
    fn oldest_refusal_makes_room() {
        let refusals = Refusals::default();
        for n in 0..=MOST {
            refusals.note(&key("c"), &pod(&n.to_string()), &refused(RefusalCode::Starting), at(1));
        }
        assert_eq!(refusals.last(&whom("0")), None);
        assert!(refusals.last(&whom("1")).is_some() && refusals.lock().len() == MOST);
    }
}

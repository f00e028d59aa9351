//! Events on pods and on the node, for whoever looks at them with kubectl. Nobody waits for them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;

use crate::following::is_object_name;
use crate::{Cluster, News};

/// Reports that wait to be sent. Further ones are dropped.
const LONGEST_QUEUE: usize = 64;
/// A cause is reported once in this time.
const EACH: Duration = Duration::from_secs(60);
/// Causes that are remembered for that. A node has fewer pods.
const MOST_CAUSES: usize = 1_000;
/// In bytes. Source: Kubernetes, `events.k8s.io/v1`, `note`.
const LONGEST_NOTE: usize = 1_024;
/// The name that the events carry.
const CONTROLLER: &str = "aws-node";

/// Something that people should see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// On which object.
    pub about: About,
    /// Its cause, a code of `docs/errors.md`.
    pub reason: &'static str,
    /// What was tried, in one word.
    pub action: &'static str,
    /// What is wrong and what to do.
    pub note: String,
}

/// The object of a report.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// A pod. Without its `uid`, `kubectl describe` does not show the event.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
    },
    /// This node.
    Node,
}

/// Where reports are handed in. Clones hand in to the same queue.
#[derive(Debug, Clone)]
pub struct Reports(mpsc::Sender<(Instant, Report)>);

/// The reports that wait, each with the time at which it was handed in.
#[derive(Debug)]
pub struct Queue(mpsc::Receiver<(Instant, Report)>);

impl Reports {
    /// A new queue, and its other end. If that is dropped, reports are dropped too.
    #[must_use]
    pub fn queue() -> (Self, Queue) {
        let (sender, receiver) = mpsc::channel(LONGEST_QUEUE);
        (Self(sender), Queue(receiver))
    }

    /// Hands in a report, or drops it if too many wait.
    pub fn tell(&self, report: Report) {
        let _ = self.0.try_send((Instant::now(), report));
    }
}

/// Sends the reports of `queue` as events, each cause once a minute. A report that cannot be sent is dropped, and `tell`
/// learns why. So is one that has waited for longer than a minute.
pub async fn send_events(
    cluster: &Cluster,
    node: &str,
    queue: &mut Queue,
    mut tell: impl FnMut(News),
) -> Infallible {
    let reporter = Reporter { controller: CONTROLLER.to_owned(), instance: Some(node.to_owned()) };
    let recorder = Recorder::new(cluster.client.clone(), reporter);
    let mut recent = Recent::default();
    loop {
        let Some((since, report)) = queue.0.recv().await else {
            return std::future::pending().await;
        };
        if since.elapsed() > EACH || !recent.admits(&report, Instant::now()) {
            continue;
        }
        let Some(about) = reference(&report.about, node) else { continue };
        let sent = recorder.publish(&event(report), &about).await;
        let fault = sent.err().map(|fault| crate::watching::fault_of(&fault));
        tell(News::Health { of: "events", fault });
    }
}

fn event(report: Report) -> Event {
    let Report { reason, action, mut note, about: _ } = report;
    note.truncate(note.floor_char_boundary(LONGEST_NOTE));
    Event {
        type_: EventType::Warning,
        reason: reason.to_owned(),
        note: Some(note),
        action: action.to_owned(),
        secondary: None,
    }
}

/// The object as the API server knows it; `None` if no object can have such a name.
fn reference(about: &About, node: &str) -> Option<ObjectReference> {
    let common =
        ObjectReference { api_version: Some("v1".to_owned()), ..ObjectReference::default() };
    match about {
        About::Pod { namespace, name, uid } => (is_object_name(namespace) && is_object_name(name))
            .then(|| ObjectReference {
                kind: Some("Pod".to_owned()),
                namespace: Some(namespace.clone()),
                name: Some(name.clone()),
                uid: (!uid.is_empty()).then(|| uid.clone()),
                ..common
            }),
        // The kubelet uses the name as uid in its own events, and kubectl looks for both.
        About::Node => Some(ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            uid: Some(node.to_owned()),
            ..common
        }),
    }
}

/// The causes that were reported lately.
#[derive(Debug, Default)]
struct Recent(BTreeMap<(About, &'static str, &'static str), Instant>);

impl Recent {
    /// Whether the report's cause has not been reported within a minute.
    fn admits(&mut self, report: &Report, now: Instant) -> bool {
        self.0.retain(|_, at| now.duration_since(*at) < EACH);
        let cause = (report.about.clone(), report.reason, report.action);
        let admits = self.0.len() < MOST_CAUSES && !self.0.contains_key(&cause);
        if admits {
            self.0.insert(cause, now);
        }
        admits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(name: &str, reason: &'static str) -> Report {
        let (namespace, uid) = ("default".to_owned(), "1".to_owned());
        let about = About::Pod { namespace, name: name.to_owned(), uid };
        Report { about, reason, action: "ADD", note: "any".to_owned() }
    }

    #[test]
    fn cause_is_reported_once_a_minute() {
        let (mut recent, start) = (Recent::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(recent.admits(&report("a", "ENI_LIMIT"), at(0)));
        assert!(!recent.admits(&report("a", "ENI_LIMIT"), at(59)));
        assert!(recent.admits(&report("a", "MAX_PODS"), at(59)));
        assert!(recent.admits(&report("b", "ENI_LIMIT"), at(59)));
        assert!(recent.admits(&report("a", "ENI_LIMIT"), at(60)));
        for n in 0..2 * MOST_CAUSES {
            recent.admits(&report(&n.to_string(), "ENI_LIMIT"), at(61));
        }
        assert!(recent.0.len() <= MOST_CAUSES);
    }

    #[test]
    fn note_is_cut_between_characters() {
        let long = Report { note: "ü".repeat(LONGEST_NOTE), ..report("a", "ENI_LIMIT") };
        assert_eq!(event(long).note.unwrap().len(), LONGEST_NOTE);
    }

    #[test]
    fn event_is_on_objects_with_possible_names_alone() {
        let pod = |namespace: &str, name: &str| {
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            reference(&About::Pod { namespace, name, uid: String::new() }, "n1")
        };
        assert!(pod("default", "web-1").is_some());
        for (namespace, name) in
            [("", "web-1"), ("default", ""), ("../nodes", "a"), ("default", "A")]
        {
            assert_eq!(pod(namespace, name), None, "{namespace}/{name}");
        }
        assert_eq!(reference(&About::Node, "n1").unwrap().uid.as_deref(), Some("n1"));
    }
}

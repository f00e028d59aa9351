//! Pods as runtime and plugin handle them: requests to the daemon, and the effects of its answers.

use std::net::IpAddr;
use std::time::Duration;

use ipam::event::{Answer, Event, NodeLocal, RequestId};
use ipam::id::AttachmentKey;

use super::node::{NETWORK, OpenRequest, PluginRequest, Pod, named, pod_facts};
use super::simulation::{HistoryEvent, Simulation};

/// The longest time from an answer to the change of the pod's link.
const LINK_MS: u64 = 60;
/// How long a link stays whose plugin dies between the daemon's answer and the link's removal.
const LEFT_LINK: Duration = Duration::from_secs(100);

fn key(node: usize, pod: usize, sandbox: u32) -> AttachmentKey {
    AttachmentKey {
        network: NETWORK.into(),
        container: format!("n{node}p{pod}s{sandbox}"),
        ifname: "eth0".to_owned(),
    }
}

impl Simulation {
    fn latest(&self, node: usize, pod: usize) -> AttachmentKey {
        key(node, pod, self.nodes[node].slots.get(&pod).copied().unwrap_or_default())
    }

    pub(super) fn add(
        &mut self,
        node: usize,
        pod: usize,
        patience: Duration,
        transit: Duration,
        again: bool,
    ) {
        let mut key = self.latest(node, pod);
        let found = &mut self.nodes[node];
        let runs = found.pods.get(&key).is_some_and(|pod| !pod.ended && pod.is_granted());
        // Runtimes do not reuse the name of an ended sandbox.
        let has_ended = found.pods.get(&key).is_none_or(|pod| pod.ended);
        if !runs && (has_ended || !again) {
            self.del(node, pod, transit);
            let sandbox = self.nodes[node].slots.entry(pod).or_default();
            *sandbox += 1;
            key = self::key(node, pod, *sandbox);
        }
        self.nodes[node].pods.entry(key.clone()).or_default();
        self.push_in(
            transit,
            HistoryEvent::Asks { node, ask: PluginRequest::Add { key, patience } },
        );
    }

    pub(super) fn abandon(&mut self, node: usize, pod: usize) {
        let key = self.latest(node, pod);
        let open = self.nodes[node].open.iter();
        let adds =
            open.filter(|(_, open)| matches!(open, OpenRequest::Add { key: k, .. } if *k == key));
        let request = adds.map(|(request, _)| *request).next();
        if let Some(request) = request {
            self.nodes[node].open.remove(&request);
            self.tell(node, Event::Cancel { request });
        }
    }

    pub(super) fn del(&mut self, node: usize, pod: usize, transit: Duration) {
        let key = self.latest(node, pod);
        if let Some(found) = self.nodes[node].pods.get_mut(&key) {
            found.ended = true;
            self.push_in(transit, HistoryEvent::Asks { node, ask: PluginRequest::Del { key } });
        }
    }

    pub(super) fn die(&mut self, node: usize, pod: usize) {
        let key = self.latest(node, pod);
        if let Some(found) = self.nodes[node].pods.get_mut(&key) {
            found.ended = true;
            self.unlink(node, &key);
        }
    }

    /// Removes a pod's link.
    pub(super) fn unlink(&mut self, node: usize, key: &AttachmentKey) {
        self.nodes[node].links.retain(|_, owner| owner != key);
    }

    /// A request reaches the daemon, or finds none.
    pub(super) fn asks(&mut self, node: usize, ask: PluginRequest) {
        let now = self.now;
        let found = &mut self.nodes[node];
        if found.engine.is_none() {
            if let PluginRequest::Del { key } = ask {
                self.unlink(node, &key);
                self.nodes[node].pending_dels.push(key);
            }
            return;
        }
        // Runtimes do not repeat an ADD that succeeded. A daemon that lost the attachment would
        // grant another address.
        if let PluginRequest::Add { key, .. } = &ask
            && found.pods.get(key).is_some_and(|pod| !pod.ended && pod.is_granted())
            && (found.is_rolled_back || found.on_record(key).is_none())
        {
            return;
        }
        let request = found.request();
        let (open, event) = match ask {
            PluginRequest::Add { key, patience } => {
                let deadline = found.time(now) + patience;
                let (pod, netns) = (pod_facts(&key), format!("/run/netns/{}", key.container));
                let open = OpenRequest::Add { key: key.clone(), deadline };
                let node_local = NodeLocal::Taken;
                (open, Event::Add { request, key, pod, netns, node_local, deadline })
            }
            PluginRequest::Del { key } => {
                (OpenRequest::Del { key: key.clone() }, Event::Del { request, key })
            }
            PluginRequest::Gc => {
                let name = |key: &AttachmentKey| (key.container.clone(), key.ifname.clone());
                let lives = |pod: &Pod| !pod.ended && pod.is_granted();
                let valid = found.pods.iter().filter(|(_, pod)| lives(pod));
                let valid = valid.map(|(key, _)| name(key)).collect();
                let adding = found.adding().map(name).collect();
                (OpenRequest::Gc, Event::Gc { request, network: NETWORK.into(), valid, adding })
            }
        };
        found.open.insert(request, open);
        self.tell(node, event);
    }

    /// The time from the answer to a DEL to the removal of the link. One plugin in sixty dies before that.
    fn until_unlinked(&mut self) -> Duration {
        match self.rng.below(LINK_MS) {
            0 => LEFT_LINK,
            millis => Duration::from_millis(millis),
        }
    }

    /// Handles an answer of the daemon.
    pub(super) fn answered(&mut self, node: usize, request: RequestId, answer: Answer) {
        let Some(open) = self.nodes[node].open.remove(&request) else {
            return self.violation(node, "second answer", format!("{request:?}: {answer:?}"));
        };
        match (open, answer) {
            (OpenRequest::Add { key, .. }, Answer::Granted(assignment)) => {
                self.outcome.granted += 1;
                self.check_grant(node, &key, &assignment);
                let addresses: Vec<_> = assignment.ips().collect();
                self.outcome.granted_both += u64::from(addresses.len() > 1);
                let Some(pod) = self.nodes[node].pods.get_mut(&key) else { return };
                if !pod.ended {
                    pod.addresses.clone_from(&addresses);
                    let link = HistoryEvent::Links { node, key, addresses };
                    let span = self.rng.below(LINK_MS);
                    self.push_in(Duration::from_millis(span), link);
                }
            }
            (OpenRequest::Add { .. }, Answer::Refused(_)) => self.outcome.refused += 1,
            (OpenRequest::Del { key }, Answer::Refused(_)) => {
                // The plugin leaves the DEL on disk for the next daemon. This daemon repeats it by itself.
                self.nodes[node].pending_dels.push(key.clone());
                let span = self.until_unlinked();
                self.push_in(span, HistoryEvent::Unlinks { node, key });
            }
            (OpenRequest::Del { key }, Answer::Released(released)) => {
                if let Some(assignment) = released {
                    self.check_release(node, &key, &assignment);
                }
                let span = self.until_unlinked();
                self.push_in(span, HistoryEvent::Unlinks { node, key });
            }
            (OpenRequest::Gc, Answer::Collected(collected)) => {
                for (key, assignment) in collected {
                    self.check_release(node, &named(&key), &assignment);
                }
            }
            (OpenRequest::Gc, Answer::Refused(_)) => {}
            (open, answer) => {
                self.violation(node, "answer of the wrong kind", format!("{open:?}: {answer:?}"));
            }
        }
    }

    /// The plugin adds the pod's link, unless the sandbox has ended since.
    pub(super) fn links(&mut self, node: usize, key: AttachmentKey, addresses: Vec<IpAddr>) {
        let found = &mut self.nodes[node];
        let still =
            found.pods.get(&key).is_some_and(|pod| !pod.ended && pod.addresses == addresses);
        if still && found.is_there {
            for address in addresses {
                self.check_new_link(node, &key, address);
                self.nodes[node].links.insert(address, key.clone());
            }
        }
    }
}

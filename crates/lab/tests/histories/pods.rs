//! Pods as runtime and plugin treat them: what is asked of the daemon, and what its answers lead to.

use std::net::IpAddr;
use std::time::Duration;

use ipam::event::{Answer, Event, RequestId};
use ipam::id::AttachmentKey;

use super::node::{Ask, NETWORK, Open, named, pod_facts};
use super::world::{Happening, World};

/// The longest that a plugin takes from an answer to the link that follows from it.
const LINK_MS: u64 = 60;
/// Between a DEL that could not be recorded and the next.
const DEL_AGAIN: Duration = Duration::from_secs(1);

fn key(node: usize, pod: usize, sandbox: u32) -> AttachmentKey {
    AttachmentKey {
        network: NETWORK.to_owned(),
        container: format!("n{node}p{pod}s{sandbox}"),
        ifname: "eth0".to_owned(),
    }
}

impl World {
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
        let runs = found.pods.get(&key).is_some_and(|pod| !pod.ended && pod.address.is_some());
        // No runtime uses a name once more after its end.
        let has_ended = found.pods.get(&key).is_none_or(|pod| pod.ended);
        if !runs && (has_ended || !again) {
            self.del(node, pod, transit);
            let sandbox = self.nodes[node].slots.entry(pod).or_default();
            *sandbox += 1;
            key = self::key(node, pod, *sandbox);
        }
        self.nodes[node].pods.entry(key.clone()).or_default();
        self.enter_in(transit, Happening::Asks { node, ask: Ask::Add { key, patience } });
    }

    pub(super) fn abandon(&mut self, node: usize, pod: usize) {
        let key = self.latest(node, pod);
        let open = self.nodes[node].open.iter();
        let adds = open.filter(|(_, open)| matches!(open, Open::Add { key: k, .. } if *k == key));
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
            self.enter_in(transit, Happening::Asks { node, ask: Ask::Del { key } });
        }
    }

    pub(super) fn die(&mut self, node: usize, pod: usize) {
        let key = self.latest(node, pod);
        if let Some(found) = self.nodes[node].pods.get_mut(&key) {
            found.ended = true;
            self.unlink(node, &key);
        }
    }

    /// A pod's link goes.
    pub(super) fn unlink(&mut self, node: usize, key: &AttachmentKey) {
        self.nodes[node].links.retain(|_, owner| owner != key);
    }

    /// A request reaches the daemon, or finds none.
    pub(super) fn asks(&mut self, node: usize, ask: Ask) {
        let now = self.now;
        let found = &mut self.nodes[node];
        if found.engine.is_none() {
            if let Ask::Del { key } = ask {
                self.unlink(node, &key);
                self.nodes[node].remembered.push(key);
            }
            return;
        }
        // No runtime adds what it has added. Of that which the daemon has lost it would be told
        // something else.
        if let Ask::Add { key, .. } = &ask
            && found.pods.get(key).is_some_and(|pod| !pod.ended && pod.address.is_some())
            && (found.is_rolled_back || found.on_record(key).is_none())
        {
            return;
        }
        let request = found.request();
        let (open, event) = match ask {
            Ask::Add { key, patience } => {
                let deadline = found.time(now) + patience;
                let (pod, netns) = (pod_facts(&key), format!("/run/netns/{}", key.container));
                let open = Open::Add { key: key.clone(), deadline };
                (open, Event::Add { request, key, pod, netns, deadline })
            }
            Ask::Del { key } => (Open::Del { key: key.clone() }, Event::Del { request, key }),
            Ask::Gc => {
                let lives = |(key, pod): &(&AttachmentKey, &super::node::Pod)| {
                    !pod.ended && pod.address.is_some() || found.is_adding(key)
                };
                let valid = found.pods.iter().filter(lives);
                let valid = valid.map(|(key, _)| (key.container.clone(), key.ifname.clone()));
                let valid = valid.collect();
                (Open::Gc, Event::Gc { request, network: NETWORK.to_owned(), valid })
            }
        };
        found.open.insert(request, open);
        self.tell(node, event);
    }

    /// The daemon answers.
    pub(super) fn answered(&mut self, node: usize, request: RequestId, answer: Answer) {
        let Some(open) = self.nodes[node].open.remove(&request) else {
            return self.broken(node, "a second answer", format!("{request:?}: {answer:?}"));
        };
        match (open, answer) {
            (Open::Add { key, .. }, Answer::Granted(assignment)) => {
                self.outcome.granted += 1;
                self.check_grant(node, &key, &assignment);
                let address = assignment.address;
                let Some(pod) = self.nodes[node].pods.get_mut(&key) else { return };
                if !pod.ended {
                    pod.address = Some(address);
                    let link = Happening::Links { node, key, address };
                    let span = self.chance.below(LINK_MS);
                    self.enter_in(Duration::from_millis(span), link);
                }
            }
            (Open::Add { .. }, Answer::Refused(_)) => self.outcome.refused += 1,
            (Open::Del { key }, Answer::Refused(_)) => {
                self.enter_in(DEL_AGAIN, Happening::Asks { node, ask: Ask::Del { key } });
            }
            (Open::Del { key }, Answer::Released(released)) => {
                if let Some(assignment) = released {
                    self.check_release(node, &key, assignment.address);
                }
                let span = Duration::from_millis(self.chance.below(LINK_MS));
                self.enter_in(span, Happening::Unlinks { node, key });
            }
            (Open::Gc, Answer::Collected(collected)) => {
                for (key, assignment) in collected {
                    self.check_release(node, &named(&key), assignment.address);
                }
            }
            (Open::Gc, Answer::Refused(_)) => {}
            (open, answer) => {
                self.broken(node, "an answer to another question", format!("{open:?}: {answer:?}"));
            }
        }
    }

    /// The plugin makes the pod's link, unless its sandbox has gone meanwhile.
    pub(super) fn links(&mut self, node: usize, key: AttachmentKey, address: IpAddr) {
        let found = &mut self.nodes[node];
        let still =
            found.pods.get(&key).is_some_and(|pod| !pod.ended && pod.address == Some(address));
        if still && found.is_there {
            self.check_new_link(node, &key, address);
            self.nodes[node].links.insert(address, key);
        }
    }
}

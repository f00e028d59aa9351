//! Pods on their nodes, as kubelet and runtime handle them.
//!
//! If an Add fails, its sandbox fails. The runtime then sends a Del, and the kubelet retries with
//! another sandbox.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipam::time::Timestamp;

use super::{NEWS, PodStart, Run, SimEvent};
use crate::daemon::{Input, SandboxId};
use crate::load::Stay;

/// The kubelet's wait after a failed sandbox, and the share of it that it adds at most. Source:
/// kubernetes, `pkg/kubelet/kubelet.go` (`backOffPeriod`) and `pod_workers.go`
/// (`workerBackOffPeriodJitterFactor`).
const BACK_OFF: Duration = Duration::from_secs(10);
const BACK_OFF_JITTER: f64 = 0.5;
/// How long the plugin waits for the daemon: 75 s minus a tenth for itself.
const PLUGIN_TIMEOUT: Duration = Duration::from_millis(67_500);
/// The code under which an Add without an answer in time is counted.
const TIMED_OUT: &str = "CNI_TIMEOUT";

/// A pod, from its creation on.
#[derive(Debug, Clone)]
pub(super) struct Pod {
    pub(super) created: Timestamp,
    /// `None` for a pod that stays.
    pub(super) life: Option<Duration>,
    pub(super) node: Option<usize>,
    pub(super) attempts: u32,
    pub(super) stage: Stage,
    /// When it got its address.
    served: Option<Timestamp>,
    ended: Option<Timestamp>,
    /// Whether it belongs to the current rollout.
    is_rolled: bool,
}

/// The state of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Unscheduled,
    /// Between two sandboxes, or before the first.
    Scheduled,
    /// It waits for the daemon's answer.
    Asking,
    Running(Ipv4Addr),
    Gone,
}

impl Pod {
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Unscheduled | Stage::Scheduled | Stage::Asking)
    }

    /// Its time with an address, if it got one. `end` is the end of the simulation.
    pub(super) fn stay(&self, end: Timestamp) -> Option<Stay> {
        self.served.map(|from| Stay { from, until: self.ended.unwrap_or(end) })
    }
}

/// A rollout: the replacement of all staying pods.
#[derive(Debug, Default)]
pub(super) struct Rollout {
    old: VecDeque<usize>,
    n_to_make: usize,
}

impl Run<'_> {
    pub(super) fn create_pod(&mut self, life: Option<Duration>) -> usize {
        let pod = self.pods.len();
        self.pods.push(Pod {
            created: self.now,
            life,
            node: None,
            attempts: 0,
            stage: Stage::Unscheduled,
            served: None,
            ended: None,
            is_rolled: false,
        });
        self.queue.push_back(pod);
        self.tally.pod_created();
        pod
    }

    pub(super) fn start_sandbox(&mut self, pod: usize) {
        let found = &mut self.pods[pod];
        let (Stage::Scheduled, Some(node)) = (found.stage, found.node) else { return };
        found.stage = Stage::Asking;
        found.attempts += 1;
        let sandbox = SandboxId { pod, attempt: found.attempts };
        self.push_in(PLUGIN_TIMEOUT, SimEvent::GivenUp { sandbox });
        self.tell(node, Input::Add { sandbox, deadline: self.now + PLUGIN_TIMEOUT });
    }

    /// A pod has been bound to `node`. Its sandbox starts when the kubelet has done what comes before.
    pub(super) fn bind(&mut self, pod: usize, node: usize) {
        let PodStart { lead, is_seen } = self.setup.start;
        if is_seen {
            self.push_in(NEWS, SimEvent::News { node });
        }
        self.push_in(lead, SimEvent::Sandbox { pod });
    }

    pub(super) fn tell_of_bound(&mut self, node: usize) {
        let starts =
            |pod: &&usize| matches!(self.pods[**pod].stage, Stage::Scheduled | Stage::Asking);
        let bound = self.nodes[node].pods.iter().filter(starts).copied().collect();
        self.tell(node, Input::Bound(bound));
    }

    /// Whether this sandbox waits for the daemon's answer.
    fn is_asking(&self, sandbox: SandboxId) -> bool {
        let pod = &self.pods[sandbox.pod];
        pod.stage == Stage::Asking && pod.attempts == sandbox.attempt
    }

    pub(super) fn answered(&mut self, sandbox: SandboxId, answer: Result<Ipv4Addr, &'static str>) {
        if !self.is_asking(sandbox) {
            return;
        }
        match answer {
            Ok(address) => self.pod_runs(sandbox.pod, address),
            Err(code) => self.sandbox_fails(sandbox, code),
        }
    }

    pub(super) fn give_up(&mut self, sandbox: SandboxId) {
        if self.is_asking(sandbox) {
            self.tell_node_of(sandbox.pod, Input::Cancel(sandbox));
            self.sandbox_fails(sandbox, TIMED_OUT);
        }
    }

    fn sandbox_fails(&mut self, sandbox: SandboxId, code: &'static str) {
        self.tally.add_failed(code);
        self.pods[sandbox.pod].stage = Stage::Scheduled;
        self.tell_node_of(sandbox.pod, Input::Del(sandbox));
        let pause = self.kubelet.jittered(BACK_OFF, BACK_OFF_JITTER);
        self.push_in(pause, SimEvent::Sandbox { pod: sandbox.pod });
    }

    fn tell_node_of(&mut self, pod: usize, input: Input) {
        if let Some(node) = self.pods[pod].node {
            self.tell(node, input);
        }
    }

    fn pod_runs(&mut self, pod: usize, address: Ipv4Addr) {
        let found = &mut self.pods[pod];
        found.stage = Stage::Running(address);
        found.served = Some(self.now);
        self.tally.pod_runs(found.created + self.setup.start.lead, self.now);
        if let Some(life) = found.life {
            self.push_in(life, SimEvent::PodEnds { pod });
        }
        let node = self.pods[pod].node.expect("a pod that runs is on a node");
        let is_taken = self.owners.insert(address, pod).is_some();
        let instance = &self.nodes[node].site.instance;
        if is_taken || !self.cloud.reaches(instance, address, self.now) {
            self.tally.address_wrong();
        }
        if self.pods[pod].is_rolled {
            self.go_on_rolling();
        }
    }

    pub(super) fn delete_pod(&mut self, pod: usize) {
        let found = &mut self.pods[pod];
        let stage = std::mem::replace(&mut found.stage, Stage::Gone);
        if stage != Stage::Gone {
            found.ended = Some(self.now);
        }
        let sandbox = SandboxId { pod, attempt: found.attempts };
        match stage {
            Stage::Gone => return,
            Stage::Unscheduled | Stage::Scheduled => self.tally.pod_gave_up(),
            Stage::Asking => {
                self.tally.pod_gave_up();
                self.tell_node_of(pod, Input::Cancel(sandbox));
                self.tell_node_of(pod, Input::Del(sandbox));
            }
            Stage::Running(address) => {
                if self.owners.get(&address) == Some(&pod) {
                    self.owners.remove(&address);
                }
                self.tally.pod_ends();
                self.tell_node_of(pod, Input::Del(sandbox));
            }
        }
        if let Some(node) = self.pods[pod].node {
            self.vacate_place(node, pod);
        }
    }

    /// The staying pods, by age.
    fn staying(&self) -> impl Iterator<Item = usize> + use<'_> {
        let pods = self.pods.iter().enumerate();
        let staying = pods.filter(|(_, pod)| pod.life.is_none() && pod.stage != Stage::Gone);
        staying.map(|(place, _)| place)
    }

    pub(super) fn delete_some(&mut self, n: u32) {
        let staying: Vec<_> = self.staying().collect();
        let mut doomed = self.kubelet.shuffled(staying);
        doomed.truncate(usize::try_from(n).unwrap_or(usize::MAX));
        for pod in doomed {
            self.delete_pod(pod);
        }
    }

    /// Starts a rollout. It replaces an unfinished one.
    pub(super) fn roll(&mut self, surge: u32) {
        let old: VecDeque<usize> = self.staying().collect();
        self.rollout = Rollout { n_to_make: old.len(), old };
        for _ in 0..surge {
            self.make_rolled();
        }
        self.schedule();
    }

    fn make_rolled(&mut self) {
        if self.rollout.n_to_make > 0 {
            self.rollout.n_to_make -= 1;
            let pod = self.create_pod(None);
            self.pods[pod].is_rolled = true;
        }
    }

    /// A pod of the rollout runs: deletes an old pod and creates the next new one.
    fn go_on_rolling(&mut self) {
        if let Some(old) = self.rollout.old.pop_front() {
            self.delete_pod(old);
        }
        self.make_rolled();
        self.schedule();
    }
}

//! The model of a history: the node as seen from outside, and how a step changes it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipam::block::Block;
use ipam::call::{CallError, CallErrorKind, CallId, CallOutput, Ec2Call};
use ipam::eni_config::EniConfigAnswer;
use ipam::event::{Event, HostNat, LinkState, RequestId};
use ipam::id::{AttachmentKey, BootId, EniId, Pod};
use ipam::policy::{Needs, Placement};
use ipam::record::{Assignment, Change, Record};
use ipam::time::Timestamp;
use ipam::view::{EniStage, PoolView};

use super::ranges::Ranges;
use super::step::{End, Fate, PODS, Runtime, SaveEnd, Setting, Step};
use crate::custom_networking::found;
use crate::ec2::{Ec2, SUBNET, error, security_groups};
use crate::node::{Node, Setup, key};

/// An unanswered request.
#[derive(Debug, Clone)]
pub(super) enum Open {
    Add { key: AttachmentKey, deadline: Timestamp },
    Release,
}

/// The node and its pods as seen from outside.
pub(super) struct HistoryModel {
    pub(super) node: Node,
    /// The addresses that each pod has been granted, IPv4 first.
    pub(super) live: BTreeMap<AttachmentKey, Vec<IpAddr>>,
    /// The node-local address that each pod has been granted beside, if any.
    pub(super) node_locals: BTreeMap<AttachmentKey, IpAddr>,
    /// The attachments whose end was requested, whether or not it succeeded.
    pub(super) ending: BTreeSet<AttachmentKey>,
    /// The attachments whose sandbox the runtime has forgotten.
    pub(super) forgotten: BTreeSet<AttachmentKey>,
    pub(super) open: BTreeMap<RequestId, Open>,
    /// The links in the last kernel report that the record does not explain.
    pub(super) unexplained: BTreeMap<IpAddr, AttachmentKey>,
    /// The record that the log gives, and how many lines of the log are in it.
    pub(super) durable: Record,
    pub(super) n_log: usize,
    /// The ENIs that were ready in this run, and the attachments that it found on record.
    pub(super) ready: BTreeSet<EniId>,
    pub(super) known: BTreeSet<AttachmentKey>,
    pub(super) seen_calls: BTreeSet<CallId>,
    pub(super) ranges: Ranges,
    /// The shortest cooldown under which a call that is on its way may have been decided.
    pub(super) cooldown: Duration,
    /// Whether pods have both families, and what they need to start.
    dual: Option<Needs>,
    placement: Placement,
    /// Whether policy or limits have changed since the first start.
    pub(super) has_changed: bool,
    /// Whether EC2 has refused for a limit. The engine goes by that for a day, and a restart forgets it.
    pub(super) has_learnt: bool,
}

impl HistoryModel {
    pub(super) fn new(setting: &Setting) -> Self {
        let (believed, real) = setting.limits;
        let mut ec2 = Ec2::new(real);
        ec2.subnet(SUBNET).n_addresses = setting.n_addresses;
        ec2.subnet(SUBNET).n_prefixes = setting.n_prefixes;
        ec2.subnet(SUBNET).n_ipv6 = setting.n_ipv6;
        let mut model = Self {
            node: Node::start_with(ec2, believed, setting.policy.clone()),
            live: BTreeMap::new(),
            node_locals: BTreeMap::new(),
            ending: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            open: BTreeMap::new(),
            unexplained: BTreeMap::new(),
            durable: Record::default(),
            n_log: 0,
            ready: BTreeSet::new(),
            known: BTreeSet::new(),
            seen_calls: BTreeSet::new(),
            ranges: Ranges::default(),
            cooldown: setting.policy.cooldown,
            dual: setting.policy.dual,
            placement: setting.policy.placement,
            has_changed: false,
            has_learnt: false,
        };
        model.check();
        model
    }

    pub(super) fn take(&mut self, step: &Step) {
        match step {
            // No runtime sends an ADD for a sandbox that it has added already.
            Step::Add { pod, .. } if self.runs_unrecorded(*pod) => {}
            Step::Add { pod, patience_ms } => {
                self.node.ended.remove(&key(*pod));
                self.forgotten.remove(&key(*pod));
                let deadline = self.node.now + Duration::from_millis(*patience_ms);
                let request = self.node.add_until(*pod, deadline);
                self.open.insert(request, Open::Add { key: key(*pod), deadline });
            }
            Step::Cancel { which } => {
                let adds = self.open.iter().filter(|(_, open)| matches!(open, Open::Add { .. }));
                let request = adds.map(|(request, _)| *request).nth(*which);
                if let Some(request) = request {
                    self.open.remove(&request);
                    self.node.cancel(request);
                }
            }
            Step::Del { pod } => {
                self.ending.insert(key(*pod));
                let request = self.node.del(*pod);
                self.open.insert(request, Open::Release);
            }
            Step::Gc { alive } => {
                let dead = (0..PODS).filter(|pod| !alive.contains(pod)).map(key);
                let adding = |key: &AttachmentKey| {
                    self.open
                        .values()
                        .any(|open| matches!(open, Open::Add { key: k, .. } if k == key))
                };
                let dead: Vec<_> = dead.filter(|key| !adding(key)).collect();
                self.ending.extend(dead);
                let request = self.node.gc(alive);
                self.open.insert(request, Open::Release);
            }
            Step::EndCall { which, end } => self.end_call(*which, *end),
            Step::EndSync(state) => self.end_sync(state),
            Step::EndSave(SaveEnd::Durable(n)) => self.make_durable(*n),
            Step::EndSave(SaveEnd::Failed { in_file }) => {
                if *in_file && let Some((_, changes)) = self.node.saves.front() {
                    self.node.log.extend(changes.clone());
                }
                self.node.end_save(Err("disk full".to_owned()));
            }
            Step::Pass { ms } => self.pass(*ms),
            Step::Restart { n_saves, n_calls, record, silent_ms, reboot } => {
                self.restart(*n_saves, *n_calls, *record, *reboot);
                self.be_silent(*silent_ms);
            }
            Step::Die { pod } => {
                self.ending.insert(key(*pod));
                self.node.ended.insert(key(*pod));
                self.node.links.retain(|_, owner| *owner != key(*pod));
            }
            Step::Unlink { pod } if self.ending.contains(&key(*pod)) => {
                self.node.links.retain(|_, owner| *owner != key(*pod));
            }
            Step::Unlink { .. } => {}
            Step::Forget { pod } => {
                self.ending.insert(key(*pod));
                self.forgotten.insert(key(*pod));
            }
            Step::ReportKernel(runtime) => {
                self.ask_runtime(*runtime);
                self.report_kernel();
            }
            Step::Policy(setup) => {
                self.cooldown = self.cooldown.min(setup.cooldown);
                self.has_changed = true;
                // The families change only with a restart, and the blocks of the one before stay at EC2. So does the
                // placement.
                let (dual, placement) = (self.dual, self.placement);
                self.node.change_policy(Setup { dual, placement, ..setup.clone() });
            }
            Step::EniConfig(Some(subnet)) => self.node.change_eni_config(found(&[subnet], &[])),
            Step::EniConfig(None) => {
                let name = "us-east-1a".to_owned();
                self.node.change_eni_config(EniConfigAnswer::Missing { name });
            }
            Step::PodsExpected(pods) => {
                let pod = |n: &usize| Pod { name: format!("pod-{n}"), ..Pod::default() };
                self.node.send(Event::PodsExpected(pods.iter().map(pod).collect()));
            }
            Step::Cordon(is_cordoned) => {
                self.has_changed = true;
                self.node.send(Event::Cordoned(*is_cordoned));
            }
            Step::Limits(limits) => {
                self.has_changed = true;
                self.node.change_limits(*limits);
            }
            Step::Groups { eni, groups } => {
                if let Some(eni) = self.node.ec2.enis.values_mut().nth(*eni) {
                    eni.security_groups = security_groups(groups);
                }
            }
            Step::Hint { shows } => {
                let (mut shown, mut shows) = (self.node.metadata(), shows.iter().cycle());
                shown.values_mut().for_each(|blocks| blocks.retain(|_| *shows.next().unwrap()));
                self.node.hint(shown);
            }
            Step::VpcRanges(shown) => {
                let shown = shown.iter().map(|range| range.parse().unwrap()).collect();
                self.ranges.show(&shown, self.node.now);
                self.node.send(Event::VpcRanges(shown));
            }
        }
        self.check();
    }

    /// As in the agent, no ENI is ready while the translation is unknown.
    fn end_sync(&mut self, state: &LinkState) {
        let Some(picture) = &self.node.host else { return };
        let state = match (state, &picture.nat) {
            (LinkState::Ready, HostNat::Unknown(why)) => LinkState::Failed((*why).to_owned()),
            (state, _) => state.clone(),
        };
        if state == LinkState::Ready {
            self.ready.extend(picture.enis.iter().map(|eni| eni.eni.clone()));
        }
        self.node.end_sync(&state);
    }

    fn end_call(&mut self, which: usize, end: End) {
        if self.node.calls.is_empty() {
            return;
        }
        let (id, call) = self.node.calls.remove(which % self.node.calls.len()).unwrap();
        let reads = call.reads();
        let result = match end {
            End::Done => self.node.ec2.execute(&call),
            End::Early => {
                match self.node.early.get(&id).filter(|_| call == Ec2Call::DescribeEnis) {
                    Some(output) => Ok(output.clone()),
                    None => self.node.ec2.execute(&call),
                }
            }
            End::Refused(kind) if reads && kind != CallErrorKind::AccessDenied => {
                Err(error(CallErrorKind::Throttled))
            }
            End::Refused(kind) => Err(error(kind)),
            End::Lost { after_effect } => {
                if after_effect {
                    let _: Result<CallOutput, _> = self.node.ec2.execute(&call);
                }
                Err(error(CallErrorKind::OutcomeUnknown))
            }
        };
        self.has_learnt |= matches!(
            result,
            Err(CallError {
                kind: CallErrorKind::AddressLimit
                    | CallErrorKind::EniLimit
                    | CallErrorKind::DeviceIndexTaken,
                ..
            })
        );
        self.node.send(Event::CallDone { id, result });
    }

    /// The oldest `n` saves become durable, and the last of them is reported.
    fn make_durable(&mut self, n: usize) {
        let n = n.min(self.node.saves.len());
        let durable: Vec<_> = self.node.saves.drain(..n).collect();
        let Some((seq, _)) = durable.last() else { return };
        let seq = *seq;
        self.node.log.extend(durable.into_iter().flat_map(|(_, changes)| changes));
        self.node.send(Event::Saved { seq, result: Ok(()) });
    }

    fn pass(&mut self, ms: u64) {
        let end = self.node.now + Duration::from_millis(ms);
        while let Some(at) = self.node.engine.wake_at().filter(|at| *at <= end) {
            assert!(at > self.node.now, "the engine wakes in the past");
            self.node.now = at;
            self.node.send(Event::Tick);
            self.check();
        }
        self.node.now = end;
    }

    /// EC2 does not answer for some time. Two pods come at once, and the engine has only its record.
    fn be_silent(&mut self, ms: u64) {
        let end = self.node.now + Duration::from_millis(ms);
        for pod in 0..2 {
            self.take(&Step::Add { pod, patience_ms: 20_000 });
        }
        loop {
            if !self.node.saves.is_empty() {
                self.make_durable(1);
            } else if self.node.host.is_some() {
                self.take(&Step::EndSync(LinkState::Ready));
            } else if let Some(at) = self.node.engine.wake_at().filter(|at| *at <= end) {
                self.take(&Step::Pass { ms: at.as_millis() - self.node.now.as_millis() });
            } else {
                break;
            }
            self.check();
        }
        let made = self.node.calls.iter().find(|(_, call)| !call.reads());
        assert_eq!(made, None, "a mutating call before EC2's first answer");
    }

    pub(super) fn restart(&mut self, n_saves: usize, n_calls: usize, record: Fate, reboot: bool) {
        for _ in 0..n_saves {
            if let Some((_, changes)) = self.node.saves.pop_front() {
                self.node.log.extend(changes);
            }
        }
        for _ in 0..n_calls {
            if let Some((_, call)) = self.node.calls.pop_front() {
                let _: Result<CallOutput, _> = self.node.ec2.execute(&call);
            }
        }
        self.open.clear();
        self.ready.clear();
        self.seen_calls.clear();
        self.catch_up();
        if record == Fate::Lost {
            self.node.log.clear();
            self.n_log = 0;
            self.durable = Record::default();
        }
        self.known = self.durable.assignments().keys().map(AttachmentKey::by_link).collect();
        if reboot {
            self.node.boot.node.boot = BootId(format!("after {} lines", self.n_log));
        }
        // Changes of the same millisecond would be both before and after the kernel report.
        self.node.now = self.node.now + Duration::from_millis(1);
        self.ranges.restart(&self.durable, self.node.now);
        self.node.restart();
        self.note_unexplained();
    }

    fn runs_unrecorded(&self, pod: usize) -> bool {
        let key = key(pod);
        self.live.contains_key(&key)
            && !self.ending.contains(&key)
            && self.on_record(&key).is_none()
    }

    /// The assignment of `key` in the log, even if the log knows only its link.
    pub(super) fn on_record(&self, key: &AttachmentKey) -> Option<&Assignment> {
        let assignments = self.durable.assignments();
        assignments.get(key).or_else(|| assignments.get(&key.by_link()))
    }

    fn ask_runtime(&mut self, runtime: Runtime) {
        let sandboxes = self.live.keys().filter(|key| !self.forgotten.contains(*key));
        self.node.listed = match runtime {
            Runtime::All => Some(sandboxes.map(|key| key.container.clone()).collect()),
            Runtime::Nothing => Some(BTreeSet::new()),
            Runtime::Away => None,
        };
    }

    fn report_kernel(&mut self) {
        // Changes of the same millisecond would be both before and after the report.
        self.pass(1);
        self.node.report_kernel();
        self.note_unexplained();
    }

    fn note_unexplained(&mut self) {
        let record = self.node.engine.record();
        let view = self.node.view();
        let blocks = view.enis.iter().flat_map(|eni| eni.blocks.values());
        let promised: BTreeSet<_> = blocks.flat_map(|block| block.assigned.clone()).collect();
        let leaving = self.leaving(&view);
        let stays = |ip: &IpAddr| !leaving.iter().any(|block| block.contains(*ip));
        let links = self.node.links.iter().filter(|(ip, _)| stays(ip));
        let unexplained = links.filter(|(ip, owner)| match record.owner(**ip) {
            Some(other) => other.mark() != owner.mark(),
            None => !promised.contains(*ip),
        });
        self.unexplained = unexplained.map(|(ip, owner)| (*ip, owner.clone())).collect();
    }

    /// The blocks on their way back to EC2. A link that shows up now comes too late for them: its pod was
    /// released and its address has rested.
    fn leaving(&self, view: &PoolView) -> BTreeSet<Block> {
        let draining = view.enis.iter().filter(|eni| eni.stage == EniStage::Draining);
        let of_enis = draining.flat_map(|eni| eni.blocks.keys().copied());
        let intents = self.node.engine.record().intents().values();
        let saves = self.node.saves.iter().flat_map(|(_, changes)| changes);
        let intended = saves.filter_map(|change| match change {
            Change::Intended { call, .. } => Some(call),
            _ => None,
        });
        let of_calls = intents.chain(intended).filter_map(|call| match call {
            Ec2Call::Unassign { blocks, .. } => Some(blocks.iter().copied()),
            _ => None,
        });
        of_calls.flatten().chain(of_enis).collect()
    }

    /// The addresses of the unexplained links that still exist.
    pub(super) fn withheld(&self) -> impl Iterator<Item = IpAddr> {
        let there =
            self.unexplained.iter().filter(|(ip, key)| self.node.links.get(*ip) == Some(*key));
        there.map(|(ip, _)| *ip)
    }

    pub(super) fn catch_up(&mut self) {
        for change in &self.node.log[self.n_log..] {
            self.durable.apply(change).expect("the log can be replayed");
        }
        self.n_log = self.node.log.len();
    }
}

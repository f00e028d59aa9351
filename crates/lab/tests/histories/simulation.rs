//! The state of a running history: time, pending events, nodes and EC2.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ec2_model::Rng;
use ec2_model::error::ApiError;
use ec2_model::fault::{FaultEffect, FaultRule, When};
use ec2_model::id::EniId;
use ec2_model::response::Response;
use ipam::block::Block;
use ipam::call::{CallId, Ec2Call};
use ipam::event::{Effect, Event, HostNat, LinkState};
use ipam::id::{AttachmentKey, Pod as PodFacts};
use ipam::kernel_report::KernelReport;
use ipam::policy::{Families, FamilyPolicy, Limits, Needs};
use ipam::time::Timestamp;
use ipnet::Ipv4Net;
use lab::cloud::{Cloud, SetupError};
use lab::ec2;
use lab::event_queue::EventQueue;
use lab::spec::NodeSpec;

use super::faults::other_group;
use super::history::{History, Outcome, Violation};
use super::metadata::{self, Metadata};
use super::node::{InFlightCall, Node, PluginRequest};
use super::setting::{self, Setting};
use super::step::{CallFault, HistoryStep, LIMIT_CODES, LimitsError, PolicyChange, StepAction};

/// More events than any history has, unless it loops without end.
const MAX_EVENTS: u64 = 100_000;
/// The number of this random stream.
const STREAM: u64 = 13;
/// The interval of kernel polls, as in the agent.
const POLL_EVERY: Duration = Duration::from_secs(60);
/// The longest durations on a node.
const SAVE_MS: u64 = 20;
const SEND_MS: u64 = 15;
const HOST_MS: u64 = 60;
const READ_MS: u64 = 40;

/// A pending event. An event with a `run` is for that daemon only.
#[derive(Debug)]
pub(super) enum HistoryEvent {
    Asks { node: usize, ask: PluginRequest },
    Links { node: usize, key: AttachmentKey, addresses: Vec<IpAddr> },
    Unlinks { node: usize, key: AttachmentKey },
    Saved { node: usize, run: u64 },
    Arrives { node: usize, run: u64, id: CallId, part: usize },
    Answered { node: usize, run: u64, id: CallId, result: Result<Box<Response>, ApiError> },
    HostDone { node: usize, run: u64 },
    Tick { node: usize, run: u64, at: Timestamp },
    PollKernel { node: usize, run: u64 },
    KernelRead { node: usize, run: u64, report: KernelReport },
    Starts { node: usize },
}

#[derive(Debug)]
pub(super) struct Simulation {
    pub(super) setting: Setting,
    pub(super) cloud: Cloud,
    pub(super) now: Timestamp,
    events: EventQueue<HistoryEvent>,
    pub(super) nodes: Vec<Node>,
    /// Metadata services, in the order of the nodes.
    pub(super) metadata: Vec<Metadata>,
    pub(super) rng: Rng,
    /// The VPC's ranges, which the model of EC2 does not change.
    pub(super) ranges: BTreeSet<Ipv4Net>,
    /// ENIs that belong to nobody in the simulation.
    pub(super) foreign_enis: BTreeSet<EniId>,
    /// ENIs that were detached by hand.
    pub(super) detached_enis: BTreeSet<ipam::id::EniId>,
    /// Blocks that were removed by hand. Nobody can say where their addresses lead now.
    pub(super) removed_blocks: BTreeSet<Block>,
    /// Whether a record lost changes. Then EC2 may have blocks that nobody knows until a poll.
    pub(super) has_lost_record: bool,
    /// Whether a policy or limits changed.
    pub(super) has_changed: bool,
    /// Whether somebody changed security groups. The metadata service shows none here, so a describe must find it.
    pub(super) has_changed_groups: bool,
    /// Whether EC2 refused calls for limits that it does not have, which a daemon believes for a day. Or whether
    /// a daemon had limits above EC2's.
    pub(super) has_false_limits: bool,
    pub(super) poll_every: Duration,
    pub(super) outcome: Outcome,
    n_events: u64,
    /// The events so far, if they are recorded.
    pub(super) event_log: Option<Vec<String>>,
    violation: Option<Violation>,
}

impl Simulation {
    pub(super) fn new(history: &History) -> Result<Self, SetupError> {
        let setting = history.setting.clone();
        let mut simulation = Self {
            cloud: Cloud::new(&setting.vpc, history.seed)?,
            setting,
            now: Timestamp::default(),
            events: EventQueue::default(),
            nodes: Vec::new(),
            metadata: Vec::new(),
            rng: Rng::with_stream(history.seed, STREAM),
            ranges: metadata::ranges(0),
            foreign_enis: BTreeSet::new(),
            detached_enis: BTreeSet::new(),
            removed_blocks: BTreeSet::new(),
            has_lost_record: false,
            has_changed: false,
            has_changed_groups: false,
            has_false_limits: false,
            poll_every: POLL_EVERY,
            outcome: Outcome::default(),
            n_events: 0,
            event_log: None,
            violation: None,
        };
        let Setting { instance_type, policy, excess_limits: (enis, addresses), .. } =
            history.setting.clone();
        simulation.cloud.add_security_group(other_group())?;
        let spec = NodeSpec { instance_type: instance_type.to_owned(), policy };
        for node in 0..simulation.setting.n_nodes {
            let site = simulation.cloud.join(&spec, simulation.now)?;
            if simulation.setting.foreign_enis {
                let foreign_eni = simulation.cloud.attach_foreign_eni(
                    &site.instance,
                    &site.subnet,
                    simulation.now,
                );
                simulation.foreign_enis.extend(foreign_eni);
            }
            let mut found = Node::new(site);
            found.site.limits.enis += enis;
            found.site.limits.addresses_per_eni += addresses;
            simulation.has_false_limits |= found.believes_too_much();
            simulation.nodes.push(found);
            simulation.metadata.push(Metadata::new(history.setting.metadata, history.seed, node));
            simulation.push_in(Duration::from_millis(50), HistoryEvent::Starts { node });
        }
        Ok(simulation)
    }

    pub(super) fn outcome(mut self) -> Outcome {
        let living = self.nodes.iter_mut().filter(|node| node.is_there);
        self.outcome.records = living.map(|node| std::mem::take(&mut node.durable)).collect();
        self.outcome
    }

    fn log(&mut self, what: impl FnOnce() -> String) {
        if let Some(event_log) = &mut self.event_log {
            event_log.push(format!("{} {}", self.now.as_millis(), what()));
        }
    }

    /// Records a violation. The first one counts.
    pub(super) fn violation(&mut self, node: usize, rule: &'static str, what: String) {
        let at_ms = self.now.as_millis();
        self.violation.get_or_insert(Violation { at_ms, node, rule, what });
    }

    /// Records a violation of `rule` if `holds` is false. `rule` names the violation.
    pub(super) fn expect(
        &mut self,
        node: usize,
        rule: &'static str,
        holds: bool,
        what: impl FnOnce() -> String,
    ) {
        if !holds {
            self.violation(node, rule, what());
        }
    }

    pub(super) fn result(&self) -> Result<(), Violation> {
        self.violation.clone().map_or(Ok(()), Err)
    }

    pub(super) fn push_in(&mut self, span: Duration, what: HistoryEvent) {
        self.events.push(self.now + span, what);
    }

    fn push_within(&mut self, most_ms: u64, what: HistoryEvent) {
        let span = Duration::from_millis(1 + self.rng.below(most_ms));
        self.push_in(span, what);
    }

    pub(super) fn play(&mut self, step: &HistoryStep) -> Result<(), Violation> {
        self.pass(Duration::from_millis(step.wait_ms))?;
        // A shrunk history may have fewer nodes than its steps name.
        let node = step.node.min(self.nodes.len() - 1);
        if self.nodes[node].is_there {
            self.log(|| format!("node {node}: {:?}", step.what));
            self.execute(node, &step.what);
        }
        self.result()
    }

    /// Plays the events of the next `span`.
    pub(super) fn pass(&mut self, span: Duration) -> Result<(), Violation> {
        let end = self.now + span;
        while let Some((at, what)) = self.events.pop(end) {
            self.now = at;
            self.n_events += 1;
            // Kernel polls are too frequent for the log.
            if !matches!(what, HistoryEvent::PollKernel { .. } | HistoryEvent::KernelRead { .. }) {
                self.log(|| format!("{what:?}"));
            }
            self.expect(0, "too many events", self.n_events < MAX_EVENTS, || format!("{what:?}"));
            self.handle_event(what);
            self.result()?;
        }
        self.now = end;
        Ok(())
    }

    fn execute(&mut self, node: usize, what: &StepAction) {
        let ms = Duration::from_millis;
        match *what {
            StepAction::Add { pod, patience_ms, transit_ms, again } => {
                self.add(node, pod, ms(patience_ms), ms(transit_ms), again);
            }
            StepAction::Abandon { pod } => self.abandon(node, pod),
            StepAction::Del { pod, transit_ms } => self.del(node, pod, ms(transit_ms)),
            StepAction::Gc => self.asks(node, PluginRequest::Gc),
            StepAction::Die { pod } => self.die(node, pod),
            StepAction::Kill(ref kill) if kill.at_effect == 0 => self.kill(node, kill),
            StepAction::Kill(ref kill) => self.nodes[node].kill = Some(kill.clone()),
            StepAction::Fault { action, next, ref fault } => {
                let effect = match *fault {
                    CallFault::Refused(code) => {
                        self.has_false_limits |= LIMIT_CODES.contains(&code);
                        FaultEffect::Fail { code: code.to_owned(), message: None }
                    }
                    CallFault::Unanswered => FaultEffect::LoseReply,
                    CallFault::Late(ms) => FaultEffect::Delay { ms },
                };
                let rule = FaultRule { action: Some(action), when: When::Next(next), effect };
                self.cloud.model().add_fault(rule);
            }
            StepAction::ClearFaults => self.clear_faults(),
            StepAction::Occupy { addresses } => self.cloud.occupy(0, addresses, self.now),
            StepAction::Vacate => self.cloud.vacate(0, self.now),
            StepAction::FullDisk { ms: n } => self.nodes[node].disk_full_until = self.now + ms(n),
            StepAction::NoDevice { ms: n, failed } => {
                self.nodes[node].no_device_until = (self.now + ms(n), failed);
            }
            StepAction::DetachByHand { which } => self.detach_by_hand(node, which),
            StepAction::UnassignByHand { which } => self.unassign_by_hand(node, which),
            StepAction::ChangeGroups { which, choice } => self.change_groups(node, which, choice),
            StepAction::ChangeRanges { choice } => self.ranges = metadata::ranges(choice),
            StepAction::ExpectPods { ref pods } => self.expect_pods(node, pods),
            StepAction::Terminate => self.terminate(node),
            StepAction::ChangePolicy(ref change) => self.change_policy(node, change),
            StepAction::ChangeLimits(ref error) => self.change_limits(node, error),
            StepAction::ChangeFamilies { dual } => self.change_families(node, dual),
        }
    }

    /// Names pods as [`pods`](super::pods) names the first sandbox of a slot. Slots beyond those of the node have none.
    fn expect_pods(&mut self, node: usize, pods: &[usize]) {
        let name = |pod: &usize| format!("n{node}p{pod}s1");
        let pods = pods.iter().map(|pod| PodFacts { name: name(pod), ..PodFacts::default() });
        self.tell(node, Event::PodsExpected(pods.collect()));
    }

    fn change_policy(&mut self, node: usize, change: &PolicyChange) {
        let found = &mut self.nodes[node];
        let policy = &mut found.site.policy;
        let v4 = FamilyPolicy::new(policy.families.policy().kind, change.warm);
        policy.families = match policy.families {
            Families::Dual { needs, .. } => Families::dual(v4, needs),
            Families::V4(_) | Families::V6(_) => Families::single(v4),
        };
        policy.timing.cooldown = change.cooldown;
        policy.max_enis = change.max_enis;
        let policy = policy.clone();
        found.note_cooldown(self.now);
        self.has_changed = true;
        self.tell(node, Event::Policy(policy));
    }

    /// What pods need is told to the daemon. Other families need a restart.
    fn change_families(&mut self, node: usize, dual: Option<Needs>) {
        let now = self.now;
        let found = &mut self.nodes[node];
        let before = found.site.policy.families;
        found.site.policy.families = setting::families(before.policy(), dual);
        found.needs_changed_at = Some(now);
        self.has_changed = true;
        let n_families = found.site.policy.families.policies().count();
        if n_families == before.policies().count() {
            let policy = self.nodes[node].site.policy.clone();
            self.tell(node, Event::Policy(policy));
        } else {
            self.restart(node);
        }
    }

    fn change_limits(&mut self, node: usize, error: &LimitsError) {
        let found = &mut self.nodes[node];
        let Limits { enis, addresses_per_eni, prefixes } = found.real_limits;
        let limits = Limits {
            enis: enis.saturating_add_signed(error.enis).max(1),
            addresses_per_eni: addresses_per_eni.saturating_add_signed(error.addresses).max(2),
            prefixes: prefixes && error.prefixes,
        };
        found.site.limits = limits;
        found.limits_changed_at = Some(self.now);
        self.has_false_limits |= found.believes_too_much();
        self.has_changed = true;
        self.tell(node, Event::Limits(limits));
    }

    /// Whether `address` was removed by hand.
    pub(super) fn is_removed(&self, address: IpAddr) -> bool {
        self.removed_blocks.iter().any(|block| block.contains(address))
    }

    fn handle_event(&mut self, what: HistoryEvent) {
        match what {
            HistoryEvent::Asks { node, ask } => self.asks(node, ask),
            HistoryEvent::Links { node, key, addresses } => self.links(node, key, addresses),
            HistoryEvent::Unlinks { node, key } => self.unlink(node, &key),
            HistoryEvent::Starts { node } => self.start(node),
            HistoryEvent::Saved { node, run } if self.runs(node, run) => self.saved(node),
            HistoryEvent::Arrives { node, run, id, part } if self.runs(node, run) => {
                self.arrives(node, id, part);
            }
            HistoryEvent::Answered { node, run, id, result } if self.runs(node, run) => {
                self.call_answered(node, id, result);
            }
            HistoryEvent::HostDone { node, run } if self.runs(node, run) => self.host_done(node),
            HistoryEvent::Tick { node, run, at } if self.runs(node, run) => {
                if self.nodes[node].tick_at == Some(at) {
                    self.nodes[node].tick_at = None;
                    self.tell(node, Event::Tick);
                }
            }
            HistoryEvent::PollKernel { node, run } if self.runs(node, run) => {
                self.poll_kernel(node)
            }
            HistoryEvent::KernelRead { node, run, report } if self.runs(node, run) => {
                self.tell(node, Event::Kernel(report));
            }
            HistoryEvent::Saved { .. }
            | HistoryEvent::Arrives { .. }
            | HistoryEvent::Answered { .. }
            | HistoryEvent::HostDone { .. }
            | HistoryEvent::Tick { .. }
            | HistoryEvent::PollKernel { .. }
            | HistoryEvent::KernelRead { .. } => {}
        }
    }

    /// Whether this run of the daemon is still alive.
    fn runs(&self, node: usize, run: u64) -> bool {
        self.nodes[node].run == run && self.nodes[node].engine.is_some()
    }

    fn read_kernel(&mut self, node: usize) {
        let report = self.nodes[node].kernel_report(self.now);
        let run = self.nodes[node].run;
        self.push_within(READ_MS, HistoryEvent::KernelRead { node, run, report });
    }

    fn poll_kernel(&mut self, node: usize) {
        self.read_kernel(node);
        let run = self.nodes[node].run;
        self.push_in(self.poll_every, HistoryEvent::PollKernel { node, run });
        self.hint(node);
        self.show_ranges(node);
    }

    /// Starts a daemon. It polls the kernel first, then gets the DELs that found no daemon.
    fn start(&mut self, node: usize) {
        if !self.nodes[node].is_there {
            return;
        }
        let found = &mut self.nodes[node];
        let effects = found.boot(self.now);
        let (run, report) = (found.run, found.kernel_report(self.now));
        self.push_in(POLL_EVERY, HistoryEvent::PollKernel { node, run });
        // The kernel poll does not cover what ended while no daemon ran.
        let report = KernelReport { vanished: BTreeSet::new(), ..report };
        let first = self.handle(node, Event::Kernel(report));
        self.follow(node, effects.into_iter().chain(first).collect());
        self.tell(node, Event::VpcRanges(self.ranges.clone()));
        for key in std::mem::take(&mut self.nodes[node].pending_dels) {
            self.asks(node, PluginRequest::Del { key });
        }
    }

    fn handle(&mut self, node: usize, event: Event) -> Vec<Effect> {
        let time = self.nodes[node].time(self.now);
        let engine = self.nodes[node].engine.as_mut();
        engine.map(|engine| engine.handle(event, time)).unwrap_or_default()
    }

    /// Gives a daemon an event and executes the effects.
    pub(super) fn tell(&mut self, node: usize, event: Event) {
        let effects = self.handle(node, event);
        self.follow(node, effects);
    }

    fn follow(&mut self, node: usize, effects: Vec<Effect>) {
        let run = self.nodes[node].run;
        for effect in effects {
            if let Some(mut kill) = self.nodes[node].kill.take() {
                kill.at_effect = kill.at_effect.saturating_sub(1);
                if kill.at_effect == 0 {
                    return self.kill(node, &kill);
                }
                self.nodes[node].kill = Some(kill);
            }
            self.carry_out(node, effect);
        }
        if !self.runs(node, run) {
            return;
        }
        self.check(node);
        let found = &mut self.nodes[node];
        let wakes_at = found.engine.as_ref().and_then(ipam::Engine::wake_at);
        if let Some(at) = wakes_at.filter(|at| found.tick_at != Some(*at)) {
            found.tick_at = Some(at);
            let truth = found.truth(at);
            self.expect(node, "wake-up in the past", truth > self.now, || format!("{at:?}"));
            self.events.push(truth, HistoryEvent::Tick { node, run, at });
        }
    }

    fn carry_out(&mut self, node: usize, effect: Effect) {
        let run = self.nodes[node].run;
        self.log(|| format!("node {node}: {effect:?}"));
        match effect {
            Effect::Save { seq, changes } => {
                let other = self.nodes[node].save.replace((seq, changes));
                self.expect(node, "two saves at once", other.is_none(), || {
                    format!("{seq:?}, {other:?}")
                });
                self.push_within(SAVE_MS, HistoryEvent::Saved { node, run });
            }
            Effect::Reply { request, answer } => self.answered(node, request, answer),
            Effect::Call { id, call, why: _ } => {
                self.check_call(node, id, &call);
                let in_flight = InFlightCall { call, arrived: false, before: Vec::new() };
                self.nodes[node].calls.insert(id, in_flight);
                self.push_within(SEND_MS, HistoryEvent::Arrives { node, run, id, part: 0 });
            }
            Effect::SyncHost(picture) => {
                self.check_ranges(node, &picture.nat);
                self.nodes[node].nat = Some(picture.nat);
                // Without ENIs there is nothing to report back.
                let enis = Some(picture.enis).filter(|enis| !enis.is_empty());
                let is_new = enis.is_some();
                let was_asked = std::mem::replace(&mut self.nodes[node].host, enis).is_some();
                if is_new && !was_asked {
                    self.push_within(HOST_MS, HistoryEvent::HostDone { node, run });
                }
            }
            Effect::TakeDown(links) => {
                let is_same = |address: &IpAddr, key: &AttachmentKey| {
                    links.get(address).is_some_and(|link| link.mark == Some(key.mark()))
                };
                self.nodes[node].links.retain(|address, key| !is_same(address, key));
            }
            Effect::ReadKernel => self.read_kernel(node),
            // The nodes have no connections, and EC2 answers them.
            Effect::ReadMetadata { .. }
            | Effect::RestorePods(_)
            | Effect::RemoveHostAddresses(_)
            | Effect::ForgetConnections(_) => {}
        }
    }

    fn saved(&mut self, node: usize) {
        let Some((seq, changes)) = self.nodes[node].save.take() else { return };
        let result = if self.now < self.nodes[node].disk_full_until {
            // After a failed save, the file may or may not hold the changes.
            if self.rng.one_in(2) {
                self.make_durable(node, changes);
            }
            Err("no space left on device".to_owned())
        } else {
            self.make_durable(node, changes);
            Ok(())
        };
        self.tell(node, Event::Saved { seq, result });
    }

    pub(super) fn make_durable(&mut self, node: usize, changes: Vec<ipam::record::Change>) {
        if let Err(contradiction) = self.nodes[node].make_durable(changes) {
            self.violation(node, "log that cannot be replayed", contradiction.to_string());
        }
    }

    /// A request reaches EC2.
    fn arrives(&mut self, node: usize, id: CallId, part: usize) {
        let Some(call) = self.nodes[node].calls.get(&id).map(|it| it.call.clone()) else { return };
        let (result, after) = self.request(node, &call, part);
        if let Some(in_flight) = self.nodes[node].calls.get_mut(&id) {
            in_flight.arrived = part + 1 == n_requests(&call);
        }
        let run = self.nodes[node].run;
        self.push_in(after, HistoryEvent::Answered { node, run, id, result });
    }

    pub(super) fn request(
        &mut self,
        node: usize,
        call: &Ec2Call,
        part: usize,
    ) -> (Result<Box<Response>, ApiError>, Duration) {
        self.check_arrival(node, call);
        let site = &self.nodes[node].site;
        let request = ec2::requests(call, site).swap_remove(part);
        self.outcome.calls += 1;
        self.cloud.call(&site.instance, &request, self.now)
    }

    fn call_answered(&mut self, node: usize, id: CallId, result: Result<Box<Response>, ApiError>) {
        let instance = self.nodes[node].site.instance.clone();
        let Some(in_flight) = self.nodes[node].calls.get_mut(&id) else { return };
        if let (Ok(response), false) = (&result, in_flight.arrived)
            && let Response::NetworkInterfaces(page) = response.as_ref()
        {
            in_flight.before = ec2::enis_of(&page.items, &instance).collect();
            let run = self.nodes[node].run;
            return self.push_within(SEND_MS, HistoryEvent::Arrives { node, run, id, part: 1 });
        }
        let before = std::mem::take(&mut in_flight.before);
        let call = self.nodes[node].calls.remove(&id).map(|in_flight| in_flight.call);
        if call == Some(Ec2Call::DescribeEnis) {
            self.nodes[node].poll_ends(result.is_ok(), self.now);
            if result.is_ok() {
                self.poll_ends(node);
            }
        }
        let result = match result {
            Ok(response) => ec2::output(*response, before, &instance),
            Err(error) => Err(ec2::error(error)),
        };
        self.tell(node, Event::CallDone { id, result });
    }

    fn host_done(&mut self, node: usize) {
        let found = &mut self.nodes[node];
        let (until, failed) = found.no_device_until;
        let is_trouble = self.now < until;
        let run = found.run;
        let unknown = match &found.nat {
            Some(HostNat::Unknown(why)) => Some((*why).to_owned()),
            Some(HostNat::Absent | HostNat::Wanted(_)) | None => None,
        };
        for eni in found.host.take().unwrap_or_default() {
            let instance = self.nodes[node].site.instance.clone();
            let IpAddr::V4(own) = eni.primary_address else { panic!("{eni:?} has no IPv4") };
            let is_there = self.cloud.reaches(&instance, own, self.now);
            let link = match (is_there, is_trouble) {
                // As in the agent, no ENI is ready while the translation is unknown.
                (true, false) => unknown.clone().map_or(LinkState::Ready, LinkState::Failed),
                (true, true) if failed => LinkState::Failed("no such device".to_owned()),
                (true, true) | (false, _) => LinkState::Absent,
            };
            if !self.runs(node, run) {
                return;
            }
            if link == LinkState::Ready {
                self.nodes[node].ready.insert(eni.eni.clone());
            }
            self.tell(node, Event::EniLink { eni: eni.eni, link });
        }
    }
}

/// The number of requests of a call.
pub(super) fn n_requests(call: &Ec2Call) -> usize {
    if *call == Ec2Call::DescribeEnis { 2 } else { 1 }
}

//! The world of a history: time, what is to come, and what passes between the nodes and EC2.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ec2_model::error::ApiError;
use ec2_model::fault::{FaultEffect, FaultRule, When};
use ec2_model::id::EniId;
use ec2_model::response::Response;
use ipam::block::Block;
use ipam::call::{CallId, Ec2Call};
use ipam::event::{Effect, Event, LinkState};
use ipam::id::AttachmentKey;
use ipam::sighting::Sighting;
use ipam::time::Timestamp;
use lab::agenda::Agenda;
use lab::chance::Chance;
use lab::cloud::{Cloud, SetupError};
use lab::ec2;
use lab::world::NodeSpec;

use super::history::{Broken, History, Outcome};
use super::metadata::Metadata;
use super::node::{Ask, Node, Underway};
use super::setting::Setting;
use super::step::{Mishap, Step, What};

/// No history comes near to so many events; one that spins does.
const SPIN: u64 = 100_000;
/// Tells this stream from the others of the same seed.
const STREAM: u64 = 13;
/// Between two looks at the kernel, as the agent has them.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// The longest that things take which happen on a node.
const SAVE_MS: u64 = 20;
const SEND_MS: u64 = 15;
const HOST_MS: u64 = 60;
const READ_MS: u64 = 40;

/// What will happen at some time. What names a run is for that daemon alone.
#[derive(Debug)]
pub(super) enum Happening {
    Asks { node: usize, ask: Ask },
    Links { node: usize, key: AttachmentKey, address: IpAddr },
    Unlinks { node: usize, key: AttachmentKey },
    Saved { node: usize, run: u64 },
    Arrives { node: usize, run: u64, id: CallId, part: usize },
    Answered { node: usize, run: u64, id: CallId, result: Result<Box<Response>, ApiError> },
    HostDone { node: usize, run: u64 },
    Tick { node: usize, run: u64, at: Timestamp },
    Look { node: usize, run: u64 },
    Seen { node: usize, run: u64, sighting: Sighting },
    Starts { node: usize },
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) setting: Setting,
    pub(super) cloud: Cloud,
    pub(super) now: Timestamp,
    agenda: Agenda<Happening>,
    pub(super) nodes: Vec<Node>,
    /// In the order of the nodes.
    pub(super) metadata: Vec<Metadata>,
    pub(super) chance: Chance,
    /// ENIs that are nobody's here.
    pub(super) strangers: BTreeSet<EniId>,
    /// ENIs that somebody has taken off their instances.
    pub(super) strays: BTreeSet<ipam::id::EniId>,
    /// What somebody has taken away by hand: nobody can say any more where it leads.
    pub(super) taken: BTreeSet<Block>,
    /// Whether a record has lost something: then EC2 may have what nobody knows of until it is read.
    pub(super) has_forgotten: bool,
    pub(super) look_every: Duration,
    pub(super) outcome: Outcome,
    n_happened: u64,
    /// What has happened, if somebody wants to know.
    pub(super) story: Option<Vec<String>>,
    broken: Option<Broken>,
}

impl World {
    pub(super) fn new(history: &History) -> Result<Self, SetupError> {
        let setting = history.setting.clone();
        let mut world = Self {
            cloud: Cloud::new(&setting.world, history.seed)?,
            setting,
            now: Timestamp::default(),
            agenda: Agenda::default(),
            nodes: Vec::new(),
            metadata: Vec::new(),
            chance: Chance::new(history.seed, STREAM),
            strangers: BTreeSet::new(),
            strays: BTreeSet::new(),
            taken: BTreeSet::new(),
            has_forgotten: false,
            look_every: LOOK_EVERY,
            outcome: Outcome::default(),
            n_happened: 0,
            story: None,
            broken: None,
        };
        let Setting { instance_type, policy, illusion: (enis, addresses), .. } =
            history.setting.clone();
        let spec = NodeSpec { instance_type: instance_type.to_owned(), policy };
        for node in 0..world.setting.n_nodes {
            let mut site = world.cloud.join(&spec, world.now)?;
            site.limits.enis += enis;
            site.limits.addresses_per_eni += addresses;
            if world.setting.strangers {
                let stranger = world.cloud.attach_stranger(&site.instance, &site.subnet, world.now);
                world.strangers.extend(stranger);
            }
            world.nodes.push(Node::new(site));
            world.metadata.push(Metadata::new(history.setting.metadata, history.seed, node));
            world.enter_in(Duration::from_millis(50), Happening::Starts { node });
        }
        Ok(world)
    }

    pub(super) fn outcome(mut self) -> Outcome {
        let living = self.nodes.iter_mut().filter(|node| node.is_there);
        self.outcome.records = living.map(|node| std::mem::take(&mut node.durable)).collect();
        self.outcome
    }

    fn tell_of(&mut self, what: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(format!("{} {}", self.now.as_millis(), what()));
        }
    }

    /// Notes what must not be; the first counts.
    pub(super) fn broken(&mut self, node: usize, rule: &'static str, what: String) {
        let at_ms = self.now.as_millis();
        self.broken.get_or_insert(Broken { at_ms, node, rule, what });
    }

    /// Notes what is seen if `rule`, a phrase for what must not be, is not held to.
    pub(super) fn expect(
        &mut self,
        node: usize,
        rule: &'static str,
        holds: bool,
        what: impl FnOnce() -> String,
    ) {
        if !holds {
            self.broken(node, rule, what());
        }
    }

    pub(super) fn verdict(&self) -> Result<(), Broken> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    pub(super) fn enter_in(&mut self, span: Duration, what: Happening) {
        self.agenda.enter(self.now + span, what);
    }

    fn enter_within(&mut self, most_ms: u64, what: Happening) {
        let span = Duration::from_millis(1 + self.chance.below(most_ms));
        self.enter_in(span, what);
    }

    pub(super) fn take(&mut self, step: &Step) -> Result<(), Broken> {
        self.pass(Duration::from_millis(step.wait_ms))?;
        // A history that has lost its last nodes while it was shrunk keeps its other steps.
        let node = step.node.min(self.nodes.len() - 1);
        if self.nodes[node].is_there {
            self.tell_of(|| format!("node {node}: {:?}", step.what));
            self.happens(node, &step.what);
        }
        self.verdict()
    }

    /// Lets happen what is due within `span`.
    pub(super) fn pass(&mut self, span: Duration) -> Result<(), Broken> {
        let end = self.now + span;
        while let Some((at, what)) = self.agenda.pop(end) {
            self.now = at;
            self.n_happened += 1;
            // The kernel is read all the time.
            if !matches!(what, Happening::Look { .. } | Happening::Seen { .. }) {
                self.tell_of(|| format!("{what:?}"));
            }
            self.expect(0, "no end of it", self.n_happened < SPIN, || format!("{what:?}"));
            self.happen(what);
            self.verdict()?;
        }
        self.now = end;
        Ok(())
    }

    fn happens(&mut self, node: usize, what: &What) {
        let ms = Duration::from_millis;
        match *what {
            What::Add { pod, patience_ms, transit_ms, again } => {
                self.add(node, pod, ms(patience_ms), ms(transit_ms), again);
            }
            What::Abandon { pod } => self.abandon(node, pod),
            What::Del { pod, transit_ms } => self.del(node, pod, ms(transit_ms)),
            What::Gc => self.asks(node, Ask::Gc),
            What::Die { pod } => self.die(node, pod),
            What::Kill(ref kill) if kill.at_effect == 0 => self.kill(node, kill),
            What::Kill(ref kill) => self.nodes[node].kill = Some(kill.clone()),
            What::Fault { action, next, ref mishap } => {
                let effect = match *mishap {
                    Mishap::Refused(code) => {
                        FaultEffect::Fail { code: code.to_owned(), message: None }
                    }
                    Mishap::Unanswered => FaultEffect::LoseReply,
                    Mishap::Late(ms) => FaultEffect::Delay { ms },
                };
                let rule = FaultRule { action: Some(action), when: When::Next(next), effect };
                self.cloud.model().add_fault(rule);
            }
            What::Mend => self.mend(),
            What::Occupy { addresses } => self.cloud.occupy(0, addresses, self.now),
            What::Vacate => self.cloud.vacate(0, self.now),
            What::FullDisk { ms: n } => self.nodes[node].disk_full_until = self.now + ms(n),
            What::NoDevice { ms: n, failed } => {
                self.nodes[node].no_device_until = (self.now + ms(n), failed);
            }
            What::DetachByHand { which } => self.detach_by_hand(node, which),
            What::UnassignByHand { which } => self.unassign_by_hand(node, which),
            What::Terminate => self.terminate(node),
        }
    }

    /// Whether somebody has taken `address` away.
    pub(super) fn is_taken(&self, address: IpAddr) -> bool {
        self.taken.iter().any(|block| block.contains(address))
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Asks { node, ask } => self.asks(node, ask),
            Happening::Links { node, key, address } => self.links(node, key, address),
            Happening::Unlinks { node, key } => self.unlink(node, &key),
            Happening::Starts { node } => self.start(node),
            Happening::Saved { node, run } if self.runs(node, run) => self.saved(node),
            Happening::Arrives { node, run, id, part } if self.runs(node, run) => {
                self.arrives(node, id, part);
            }
            Happening::Answered { node, run, id, result } if self.runs(node, run) => {
                self.call_answered(node, id, result);
            }
            Happening::HostDone { node, run } if self.runs(node, run) => self.host_done(node),
            Happening::Tick { node, run, at } if self.runs(node, run) => {
                if self.nodes[node].tick_at == Some(at) {
                    self.nodes[node].tick_at = None;
                    self.tell(node, Event::Tick);
                }
            }
            Happening::Look { node, run } if self.runs(node, run) => self.look(node),
            Happening::Seen { node, run, sighting } if self.runs(node, run) => {
                self.tell(node, Event::Seen(sighting));
            }
            Happening::Saved { .. }
            | Happening::Arrives { .. }
            | Happening::Answered { .. }
            | Happening::HostDone { .. }
            | Happening::Tick { .. }
            | Happening::Look { .. }
            | Happening::Seen { .. } => {}
        }
    }

    /// Whether it is still the same daemon.
    fn runs(&self, node: usize, run: u64) -> bool {
        self.nodes[node].run == run && self.nodes[node].engine.is_some()
    }

    fn look(&mut self, node: usize) {
        let sighting = self.nodes[node].sighting(self.now);
        let run = self.nodes[node].run;
        self.enter_within(READ_MS, Happening::Seen { node, run, sighting });
        self.enter_in(self.look_every, Happening::Look { node, run });
        self.hint(node);
    }

    /// The kernel is read before anything else, then the DELs that found no daemon are applied.
    fn start(&mut self, node: usize) {
        if !self.nodes[node].is_there {
            return;
        }
        let found = &mut self.nodes[node];
        let effects = found.boot(self.now, &self.setting.policy);
        let (run, sighting) = (found.run, found.sighting(self.now));
        self.enter_in(LOOK_EVERY, Happening::Look { node, run });
        // Nobody has a word of what was under way.
        let sighting = Sighting { vanished: BTreeSet::new(), ..sighting };
        let first = self.handle(node, Event::Seen(sighting));
        self.follow(node, effects.into_iter().chain(first).collect());
        for key in std::mem::take(&mut self.nodes[node].remembered) {
            self.asks(node, Ask::Del { key });
        }
    }

    fn handle(&mut self, node: usize, event: Event) -> Vec<Effect> {
        let time = self.nodes[node].time(self.now);
        let engine = self.nodes[node].engine.as_mut();
        engine.map(|engine| engine.handle(event, time)).unwrap_or_default()
    }

    /// Tells a daemon something, and does what follows.
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
            self.expect(node, "woken for the past", truth > self.now, || format!("{at:?}"));
            self.agenda.enter(truth, Happening::Tick { node, run, at });
        }
    }

    fn carry_out(&mut self, node: usize, effect: Effect) {
        let run = self.nodes[node].run;
        self.tell_of(|| format!("node {node}: {effect:?}"));
        match effect {
            Effect::Save { seq, changes } => {
                let other = self.nodes[node].save.replace((seq, changes));
                self.expect(node, "two saves at a time", other.is_none(), || {
                    format!("{seq:?}, {other:?}")
                });
                self.enter_within(SAVE_MS, Happening::Saved { node, run });
            }
            Effect::Reply { request, answer } => self.answered(node, request, answer),
            Effect::Call { id, call } => {
                self.check_call(node, id, &call);
                let underway = Underway { call, arrived: false, before: Vec::new() };
                self.nodes[node].calls.insert(id, underway);
                self.enter_within(SEND_MS, Happening::Arrives { node, run, id, part: 0 });
            }
            Effect::SyncHost(enis) => {
                if self.nodes[node].host.replace(enis).is_none() {
                    self.enter_within(HOST_MS, Happening::HostDone { node, run });
                }
            }
        }
    }

    fn saved(&mut self, node: usize) {
        let Some((seq, changes)) = self.nodes[node].save.take() else { return };
        let result = if self.now < self.nodes[node].disk_full_until {
            // What the file holds of it nobody knows.
            if self.chance.one_in(2) {
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
            self.broken(node, "a log that cannot be replayed", contradiction.to_string());
        }
    }

    /// A request reaches EC2.
    fn arrives(&mut self, node: usize, id: CallId, part: usize) {
        let Some(call) = self.nodes[node].calls.get(&id).map(|it| it.call.clone()) else { return };
        let (result, after) = self.request(node, &call, part);
        if let Some(underway) = self.nodes[node].calls.get_mut(&id) {
            underway.arrived = part + 1 == n_requests(&call);
        }
        let run = self.nodes[node].run;
        self.enter_in(after, Happening::Answered { node, run, id, result });
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
        let Some(underway) = self.nodes[node].calls.get_mut(&id) else { return };
        if let (Ok(response), false) = (&result, underway.arrived)
            && let Response::NetworkInterfaces(page) = response.as_ref()
        {
            underway.before = ec2::enis_of(&page.items, &instance).collect();
            let run = self.nodes[node].run;
            return self.enter_within(SEND_MS, Happening::Arrives { node, run, id, part: 1 });
        }
        let before = std::mem::take(&mut underway.before);
        let call = self.nodes[node].calls.remove(&id).map(|underway| underway.call);
        if call == Some(Ec2Call::DescribeEnis) {
            self.nodes[node].reading_ends(result.is_ok(), self.now);
            if result.is_ok() {
                self.reading_ends(node);
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
        for eni in found.host.take().unwrap_or_default() {
            let instance = self.nodes[node].site.instance.clone();
            let is_there = self.cloud.reaches(&instance, eni.primary_address, self.now);
            let link = match (is_there, is_trouble) {
                (true, false) => LinkState::Ready,
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

/// Of how many requests a call is made.
pub(super) fn n_requests(call: &Ec2Call) -> usize {
    if *call == Ec2Call::DescribeEnis { 2 } else { 1 }
}

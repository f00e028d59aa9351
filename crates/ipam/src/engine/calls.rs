//! Calls to EC2 that are under way, and what their ends mean.
//!
//! At most one call that changes an ENI is under way for it. A call whose outcome is unknown stays
//! here until EC2 has been read, so that nothing is tried twice.

use std::collections::{BTreeMap, BTreeSet};

use super::Engine;
use super::doubt::LAG;
use crate::block::Block;
use crate::call::{Action, Ask, CallError, CallErrorKind, CallId, CallOutput, Ec2Call, EniFacts};
use crate::eni::{Bond, Link, Refused, Stage};
use crate::event::Effect;
use crate::id::EniId;
use crate::record::{Change, Record};
use crate::retry::{Hold, Pace, Subject, refusal_code};
use crate::time::Timestamp;

/// After so many failed attaches an ENI is given up.
const ATTACH_ATTEMPTS: u32 = 5;

/// A call that changes something, from its intent to its end.
#[derive(Debug, Clone)]
pub(super) struct InFlight {
    pub(super) call: Ec2Call,
    pub(super) phase: Phase,
}

/// How far a call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The intent is on its way to the record.
    Intended,
    /// EC2 has it.
    Made,
    /// EC2 has it for the second time at least, with the same client token.
    MadeAgain,
    /// Nobody knows whether it had its effect; the reading with this number, or a later one, tells.
    Doubtful(CallId),
    /// Nobody knows whether it had its effect; its client token makes it safe to repeat then.
    RepeatAt(Timestamp),
}

impl InFlight {
    pub(super) fn intended(call: Ec2Call) -> Self {
        Self { call, phase: Phase::Intended }
    }
}

/// The calls of an earlier run that may or may not have had their effect.
pub(super) fn left_open(record: &Record, now: Timestamp) -> BTreeMap<CallId, InFlight> {
    let phase = |call: &Ec2Call| match call.action() {
        Action::CreateEni => Phase::RepeatAt(now),
        Action::DescribeEnis
        | Action::DescribeSubnets
        | Action::AttachEni
        | Action::SetDeleteOnTermination
        | Action::Assign
        | Action::AssignIpv6
        | Action::Unassign
        | Action::UnassignIpv6
        | Action::DetachEni
        | Action::DeleteEni => Phase::Doubtful(record.next_call()),
    };
    let intents = record.intents().iter();
    intents.map(|(id, call)| (*id, InFlight { call: call.clone(), phase: phase(call) })).collect()
}

impl Engine {
    /// Whether a call that changes `eni` is under way.
    pub(super) fn is_busy(&self, eni: &EniId) -> bool {
        self.call_on(eni).is_some()
    }

    pub(super) fn call_on(&self, eni: &EniId) -> Option<&Ec2Call> {
        self.calls.values().map(|inflight| &inflight.call).find(|call| call.eni() == Some(eni))
    }

    /// The intent is on record.
    pub(super) fn make_call(&mut self, id: CallId) {
        let Some(inflight) = self.calls.get_mut(&id) else { return };
        if let Ec2Call::Unassign { eni, blocks } = &inflight.call
            && self.pool.is_withheld(eni, blocks)
        {
            // Since it was decided, the kernel has shown a pod there.
            self.call_not_made(id);
            self.saves.note(Change::Settled { id });
            return;
        }
        inflight.phase = Phase::Made;
        self.out.push(Effect::Call { id, call: inflight.call.clone() });
    }

    /// The intent could not be put on record.
    pub(super) fn call_not_made(&mut self, id: CallId) {
        if let Some(InFlight { call: Ec2Call::Unassign { eni, blocks }, .. }) =
            self.calls.remove(&id)
        {
            self.set_leaving(&eni, &blocks, false);
        }
    }

    pub(super) fn call_done(
        &mut self,
        id: CallId,
        result: Result<CallOutput, CallError>,
        now: Timestamp,
    ) {
        if self.look_done(id, &result, now) {
            return;
        }
        let Some(InFlight { call, phase }) = self.calls.get(&id).cloned() else { return };
        if !matches!(phase, Phase::Made | Phase::MadeAgain) {
            return;
        }
        match result {
            Ok(output) => match self.succeeded(&call, output, now) {
                Understood::Yes => self.settle_call(id),
                Understood::No => self.doubt(id, &not_an_answer(), now),
            },
            Err(error) if leaves_doubt(&call, error.kind) => self.doubt(id, &error, now),
            Err(error) => {
                if phase == Phase::MadeAgain {
                    // The first time it may have succeeded.
                    self.enis_look.ask_from(now + LAG);
                }
                self.settle_call(id);
                self.failed(&call, &error, now);
            }
        }
    }

    pub(super) fn settle_call(&mut self, id: CallId) {
        self.calls.remove(&id);
        self.saves.note(Change::Settled { id });
    }

    /// The call may have had its effect.
    fn doubt(&mut self, id: CallId, error: &CallError, now: Timestamp) {
        let Some(call) = self.calls.get(&id).map(|inflight| inflight.call.clone()) else { return };
        // Were it not held, a call that always fails so would be made again with every reading.
        let hold = self.hold(Subject::Action(call.action()), &call, error, now);
        let phase = if call.action() == Action::CreateEni {
            Phase::RepeatAt(hold.until)
        } else {
            self.enis_look.ask(now);
            Phase::Doubtful(CallId(self.next_call))
        };
        self.calls.insert(id, InFlight { call, phase });
    }

    /// Repeats, as soon as it is known what is here, the creations of which nobody knows more.
    pub(super) fn repeat_creates(&mut self, now: Timestamp) {
        if !self.enis_look.is_known() {
            return;
        }
        for (id, inflight) in &mut self.calls {
            if matches!(inflight.phase, Phase::RepeatAt(at) if at <= now) {
                inflight.phase = Phase::MadeAgain;
                self.buckets.take(Action::CreateEni, now);
                self.out.push(Effect::Call { id: *id, call: inflight.call.clone() });
            }
        }
    }

    fn succeeded(&mut self, call: &Ec2Call, output: CallOutput, now: Timestamp) -> Understood {
        match (call, output) {
            (Ec2Call::CreateEni { subnet, ask, .. }, CallOutput::Created(facts)) => {
                self.subnets.granted(subnet, *ask);
                self.created(facts, now);
            }
            (Ec2Call::AttachEni { eni, device_index }, CallOutput::Attached(attachment)) => {
                let bond =
                    Bond { attachment, device_index: *device_index, delete_on_termination: false };
                self.set_stage(eni, Stage::Attached { bond, link: Link::Awaited });
            }
            (Ec2Call::Assign { eni, ask }, CallOutput::Assigned(blocks)) => {
                if let Some(subnet) = self.pool.enis.get(eni).map(|eni| eni.subnet.clone()) {
                    self.subnets.granted(&subnet, *ask);
                }
                self.pool.add_blocks(eni, &blocks, &self.record, &self.requests.promised());
            }
            (Ec2Call::SetDeleteOnTermination { eni, .. }, CallOutput::Done) => {
                if let Some(Stage::Attached { bond, .. }) = self.stage_mut(eni) {
                    bond.delete_on_termination = true;
                }
            }
            (Ec2Call::Unassign { eni, blocks }, CallOutput::Done) => {
                self.unassigned(eni, blocks, now)
            }
            (Ec2Call::DetachEni { eni, .. }, CallOutput::Done) => self.detached(eni),
            (Ec2Call::DeleteEni { eni }, CallOutput::Done) => self.eni_gone(eni),
            // Any other pair is not an answer to its call.
            (_, _) => return Understood::No,
        }
        self.action_succeeded(call.action());
        if let Some(eni) = call.eni() {
            self.retries.clear(&Subject::Eni(eni.clone(), call.action()));
            if let Some(eni) = self.pool.enis.get_mut(eni) {
                eni.changed_at = now;
            }
        }
        Understood::Yes
    }

    fn created(&mut self, facts: EniFacts, now: Timestamp) {
        // A repeated call may name an ENI that has been found and attached meanwhile.
        if !self.pool.enis.contains_key(&facts.id) {
            self.insert_eni(&facts, crate::eni::Origin::Tagged, Stage::Unattached, now);
        }
    }

    fn unassigned(&mut self, eni: &EniId, blocks: &BTreeSet<Block>, now: Timestamp) {
        let Some(eni) = self.pool.enis.get_mut(eni) else { return };
        eni.shrunk_at = now;
        for block in blocks {
            for address in eni.blocks.remove(block).unwrap_or_default().freed.into_keys() {
                self.saves.note(Change::Rested { address });
            }
        }
    }

    fn detached(&mut self, eni: &EniId) {
        if let Some(stage) = self.stage_mut(eni)
            && let Stage::Attached { bond, .. } | Stage::Draining { bond } = stage
        {
            *stage = Stage::Doomed { place: Some(bond.device_index) };
        }
    }

    /// It cannot be detached, so it may as well serve.
    fn stays(&mut self, eni: &EniId) {
        if let Some(stage) = self.stage_mut(eni)
            && let Stage::Draining { bond } = stage
        {
            *stage = Stage::Attached { bond: bond.clone(), link: Link::Awaited };
        }
    }

    fn failed(&mut self, call: &Ec2Call, error: &CallError, now: Timestamp) {
        if let Ec2Call::Unassign { eni, blocks } = call {
            self.set_leaving(eni, blocks, false);
        }
        match error.kind {
            CallErrorKind::Throttled | CallErrorKind::NoCredentials => {
                self.action_failed(call, error, now);
            }
            CallErrorKind::AccessDenied => {
                self.action_failed(call, error, now);
                match call {
                    Ec2Call::AttachEni { .. } => self.attach_failed(call, error, now),
                    Ec2Call::DetachEni { eni, .. } => self.stays(eni),
                    _ => {}
                }
            }
            CallErrorKind::SubnetExhausted
            | CallErrorKind::SubnetFragmented
            | CallErrorKind::AddressLimit
            | CallErrorKind::EniLimit
            | CallErrorKind::DeviceIndexTaken
            | CallErrorKind::NotFound
            | CallErrorKind::InUse
            | CallErrorKind::OutcomeUnknown
            | CallErrorKind::Rejected => self.refused(call, error, now),
        }
    }

    /// EC2 refused this very call.
    fn refused(&mut self, call: &Ec2Call, error: &CallError, now: Timestamp) {
        let kind = error.kind;
        match call {
            Ec2Call::DescribeEnis
            | Ec2Call::DescribeSubnets
            | Ec2Call::DescribeUnattached { .. } => {}
            // One that has leaked: another node was quicker, or somebody has use for it.
            Ec2Call::DeleteEni { eni } if !self.pool.enis.contains_key(eni) => {}
            Ec2Call::CreateEni { subnet, ask, .. } if is_of_subnet(kind) => {
                self.subnet_refused(&subnet.clone(), *ask, kind, now);
            }
            Ec2Call::CreateEni { .. } => {
                self.hold(Subject::Action(Action::CreateEni), call, error, now);
            }
            Ec2Call::Assign { eni, ask } => self.assign_refused(eni, *ask, call, error, now),
            Ec2Call::AttachEni { .. } => self.attach_failed(call, error, now),
            Ec2Call::DetachEni { eni, .. } if kind == CallErrorKind::NotFound => self.detached(eni),
            Ec2Call::DeleteEni { eni } if kind == CallErrorKind::NotFound => {
                self.eni_gone(eni);
                // Just after its creation that may be said of an ENI that exists.
                self.enis_look.ask_from(now + LAG);
            }
            Ec2Call::SetDeleteOnTermination { eni, .. }
            | Ec2Call::Unassign { eni, .. }
            | Ec2Call::DetachEni { eni, .. }
            | Ec2Call::DeleteEni { eni } => {
                self.hold(Subject::Eni(eni.clone(), call.action()), call, error, now);
                if kind == CallErrorKind::NotFound {
                    self.enis_look.ask(now);
                }
            }
        }
    }

    fn assign_refused(
        &mut self,
        eni: &EniId,
        ask: Ask,
        call: &Ec2Call,
        error: &CallError,
        now: Timestamp,
    ) {
        let Some(found) = self.pool.enis.get_mut(eni) else { return };
        if is_of_subnet(error.kind) {
            let subnet = found.subnet.clone();
            self.subnet_refused(&subnet, ask, error.kind, now);
        } else if error.kind == CallErrorKind::AddressLimit {
            let carried = u16::try_from(found.blocks.len()).unwrap_or(u16::MAX);
            let limit = carried.saturating_add(ask.count()).saturating_sub(1);
            found.refused = Some(Refused { limit, at_once: (ask.count() / 2).max(1) });
            self.enis_look.ask(now);
        } else {
            self.hold(Subject::Eni(eni.clone(), ask.assign_action()), call, error, now);
            if error.kind == CallErrorKind::NotFound {
                self.enis_look.ask(now);
            }
        }
    }

    /// An attach that EC2 refuses for good makes the ENI useless, and another one too.
    fn attach_failed(&mut self, call: &Ec2Call, error: &CallError, now: Timestamp) {
        let Ec2Call::AttachEni { eni, device_index } = call else { return };
        let give_up = match error.kind {
            CallErrorKind::DeviceIndexTaken => {
                self.learnt.taken_indexes.insert(*device_index);
                self.enis_look.ask(now);
                return;
            }
            CallErrorKind::EniLimit => {
                self.learnt.enis = self.n_places_taken();
                self.enis_look.ask(now);
                true
            }
            CallErrorKind::AddressLimit => {
                let carried = self.pool.enis.get(eni).map_or(0, |eni| eni.blocks.len());
                self.learnt.create_at_most = u16::try_from(carried / 2).unwrap_or(u16::MAX);
                true
            }
            CallErrorKind::InUse => {
                self.enis_look.ask(now);
                false
            }
            CallErrorKind::Throttled
            | CallErrorKind::SubnetExhausted
            | CallErrorKind::SubnetFragmented
            | CallErrorKind::NotFound
            | CallErrorKind::AccessDenied
            | CallErrorKind::NoCredentials
            | CallErrorKind::OutcomeUnknown
            | CallErrorKind::Rejected => false,
        };
        let subject = Subject::Eni(eni.clone(), Action::AttachEni);
        let hold = self.hold(subject, call, error, now);
        if give_up {
            self.doom(eni, now);
        } else if hold.attempts >= ATTACH_ATTEMPTS {
            self.doom(eni, now);
            let pace = Pace::of(CallErrorKind::EniLimit);
            let why = format!("new ENIs cannot be attached: {error}");
            let subject = Subject::Action(Action::CreateEni);
            self.retries.fail(subject, pace, refusal_code(error.kind), why, now);
        }
    }

    /// Whatever held `action` up has gone by.
    pub(super) fn action_succeeded(&mut self, action: Action) {
        self.retries.clear(&Subject::Action(action));
        self.buckets.granted(action);
    }

    /// No call of the action shall be made for a while.
    pub(super) fn action_failed(&mut self, call: &Ec2Call, error: &CallError, now: Timestamp) {
        if error.kind == CallErrorKind::Throttled {
            self.buckets.refused(call.action(), format!("{call}: {error}"), now);
        } else {
            self.hold(Subject::Action(call.action()), call, error, now);
        }
    }

    fn subnet_refused(
        &mut self,
        subnet: &crate::id::SubnetId,
        ask: Ask,
        kind: CallErrorKind,
        now: Timestamp,
    ) {
        self.subnets.refused(subnet, ask, kind, now);
        self.subnets_look.ask(now);
    }

    fn hold(
        &mut self,
        subject: Subject,
        call: &Ec2Call,
        error: &CallError,
        now: Timestamp,
    ) -> Hold {
        let why = format!("{call}: {error}");
        let (pace, code) = (Pace::of(error.kind), refusal_code(error.kind));
        self.retries.fail(subject, pace, code, why, now)
    }

    pub(super) fn set_leaving(&mut self, eni: &EniId, blocks: &BTreeSet<Block>, leaving: bool) {
        let Some(eni) = self.pool.enis.get_mut(eni) else { return };
        for block in blocks {
            if let Some(state) = eni.blocks.get_mut(block) {
                state.leaving = leaving;
            }
        }
    }
}

/// Whether an answer was one to the call's question.
enum Understood {
    Yes,
    No,
}

/// What is made of an answer to a question that was not asked.
pub(super) fn not_an_answer() -> CallError {
    CallError {
        kind: CallErrorKind::OutcomeUnknown,
        code: "UnexpectedAnswer".to_owned(),
        message: "the answer is one to another question".to_owned(),
    }
}

/// Whether EC2 is to be read before anything is done with what the call is about. It refuses to take
/// back what is not there any more.
fn leaves_doubt(call: &Ec2Call, kind: CallErrorKind) -> bool {
    let takes_back = matches!(call, Ec2Call::Unassign { .. });
    kind == CallErrorKind::OutcomeUnknown || (takes_back && kind == CallErrorKind::Rejected)
}

fn is_of_subnet(kind: CallErrorKind) -> bool {
    matches!(kind, CallErrorKind::SubnetExhausted | CallErrorKind::SubnetFragmented)
}

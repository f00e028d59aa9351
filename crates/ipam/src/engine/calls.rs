//! Calls to EC2 that are under way, and the reasons why other calls wait.
//!
//! At most one call that changes an ENI is under way for it. A call whose outcome is unknown stays here
//! until EC2 has been described, so that nothing is tried twice.

use std::collections::BTreeMap;
use std::time::Duration;

use super::context::MayChange;
use super::journal::{Journal, Then};
use super::poll::LAG;
use crate::bucket::{Buckets, Urgency};
use crate::call::{Action, CallError, CallErrorKind, CallId, Ec2Call};
use crate::event::Effect;
use crate::id::{EniId, SubnetId};
use crate::jitter::Jitter;
use crate::pool::Pool;
use crate::reason::Reason;
use crate::record::{Change, Record};
use crate::retry::{Hold, Pace, Retries, Subject, refusal_code};
use crate::time::Timestamp;

/// A call that changes something, from its intent to its end.
#[derive(Debug, Clone)]
pub(super) struct InFlight {
    pub(super) call: Ec2Call,
    pub(super) why: Reason,
    pub(super) phase: Phase,
}

/// The phase of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The intent is on its way to the record.
    Intended,
    /// EC2 has it.
    Made,
    /// EC2 has it at least a second time, with the same client token.
    MadeAgain,
    /// The outcome is unknown. The describe with this number, or a later one, shows it.
    Doubtful(CallId),
    /// The outcome is unknown. The call has a client token, so it can be repeated at that time.
    RepeatAt(Timestamp),
}

/// A call whose outcome one describe has shown. EC2 may lag, so the call stays on record until a second
/// describe agrees.
#[derive(Debug, Clone)]
struct UnconfirmedOutcome {
    eni: EniId,
    since: Timestamp,
}

/// Whether pods wait for EC2's answers. This decides which calls get EC2's scarce tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pressure {
    pub(super) pods_wait: bool,
    pub(super) enis_are_known: bool,
    pub(super) subnets_are_known: bool,
}

impl Pressure {
    /// Whether pods wait for the effect of a call of `action`, or would wait if they came now.
    pub(super) fn urgency(self, action: Action) -> Urgency {
        let pods_wait = match action {
            Action::DescribeEnis if !self.enis_are_known => true,
            Action::DescribeSubnets if !self.subnets_are_known => true,
            Action::DescribeEnis
            | Action::DescribeSubnets
            | Action::CreateEni
            | Action::AttachEni
            | Action::Assign
            | Action::AssignIpv6 => self.pods_wait,
            Action::SetDeleteOnTermination
            | Action::Unassign
            | Action::UnassignIpv6
            | Action::DetachEni
            | Action::DeleteEni
            | Action::SetSecurityGroups => false,
        };
        if pods_wait { Urgency::PodsWait } else { Urgency::Background }
    }
}

/// The calls under way, and the failures and token buckets that make other calls wait.
#[derive(Debug, Clone)]
pub(super) struct Calls {
    in_flight: BTreeMap<CallId, InFlight>,
    unconfirmed_outcomes: BTreeMap<CallId, UnconfirmedOutcome>,
    next_id: u64,
    pub(super) retries: Retries,
    buckets: Buckets,
}

impl Calls {
    /// Starts with the calls that are still open on `record` from an earlier run.
    pub(super) fn new(record: &Record, jitter: Jitter, now: Timestamp) -> Self {
        Self {
            in_flight: left_open(record, now),
            unconfirmed_outcomes: BTreeMap::new(),
            next_id: record.next_call().0,
            retries: Retries::new(jitter),
            buckets: Buckets::new(jitter),
        }
    }

    /// Ascending by number.
    pub(super) fn in_flight(&self) -> impl Iterator<Item = &InFlight> {
        self.in_flight.values()
    }

    pub(super) fn get(&self, id: CallId) -> Option<&InFlight> {
        self.in_flight.get(&id)
    }

    /// Whether a call that changes `eni` is under way.
    pub(super) fn is_busy(&self, eni: &EniId) -> bool {
        self.call_on(eni).is_some()
    }

    pub(super) fn call_on(&self, eni: &EniId) -> Option<&Ec2Call> {
        self.in_flight().map(|in_flight| &in_flight.call).find(|call| call.eni() == Some(eni))
    }

    /// Whether no change of the ENI is so recent that the answer to a describe begun at `asked_at` may be
    /// older.
    pub(super) fn is_settled(&self, eni: &EniId, pool: &Pool, asked_at: Timestamp) -> bool {
        let changed_at = pool.enis.get(eni).map(|eni| eni.changed_at);
        !self.is_busy(eni) && changed_at.is_none_or(|at| at + LAG <= asked_at)
    }

    pub(super) fn is_creating(&self) -> bool {
        self.in_flight().any(|in_flight| in_flight.call.action() == Action::CreateEni)
    }

    /// The number of the next call.
    pub(super) fn next_id(&self) -> CallId {
        CallId(self.next_id)
    }

    /// Takes a number and a token for a call of `action` that is made now.
    pub(super) fn number(&mut self, action: Action, now: Timestamp) -> CallId {
        self.buckets.take(action, now);
        let id = self.next_id();
        self.next_id += 1;
        id
    }

    /// Puts a call on record. It is made when that is durable.
    pub(super) fn start(
        &mut self,
        call: Ec2Call,
        why: Reason,
        _: MayChange,
        journal: &mut Journal,
        now: Timestamp,
    ) {
        let id = self.number(call.action(), now);
        journal.note(Change::Intended { id, call: call.clone() });
        journal.then(Then::Make(id));
        self.in_flight.insert(id, InFlight { call, why, phase: Phase::Intended });
    }

    /// The intent is on record.
    pub(super) fn make(
        &mut self,
        id: CallId,
        pool: &mut Pool,
        journal: &mut Journal,
        out: &mut Vec<Effect>,
    ) {
        let Some(in_flight) = self.in_flight.get_mut(&id) else { return };
        if let Ec2Call::Unassign { eni, blocks } = &in_flight.call
            && pool.is_withheld(eni, blocks)
        {
            // The kernel has shown a pod on these blocks since the decision.
            self.not_made(id, pool);
            journal.note(Change::Settled { id });
            return;
        }
        in_flight.phase = Phase::Made;
        let (call, why) = (in_flight.call.clone(), in_flight.why.clone());
        out.push(Effect::Call { id, call, why });
    }

    /// Drops a call that is not made: its intent could not be recorded, or the call no longer makes sense.
    pub(super) fn not_made(&mut self, id: CallId, pool: &mut Pool) {
        if let Some(InFlight { call: Ec2Call::Unassign { eni, blocks }, .. }) =
            self.in_flight.remove(&id)
        {
            pool.set_leaving(&eni, &blocks, false);
        }
    }

    /// The call's end is certain.
    pub(super) fn settle(&mut self, id: CallId, journal: &mut Journal) {
        self.in_flight.remove(&id);
        journal.note(Change::Settled { id });
    }

    /// The call may have had its effect. Returns whether a describe must show it.
    pub(super) fn doubt(&mut self, id: CallId, error: &CallError, now: Timestamp) -> bool {
        let Some(InFlight { call, why, .. }) = self.get(id).cloned() else { return false };
        // Without a hold, a call that always fails like this would be repeated after every describe.
        let hold = self.hold_back(Subject::Action(call.action()), &call, error, now);
        let is_repeatable = call.action() == Action::CreateEni;
        let phase = match is_repeatable {
            true => Phase::RepeatAt(hold.until),
            false => Phase::Doubtful(self.next_id()),
        };
        self.in_flight.insert(id, InFlight { call, why, phase });
        !is_repeatable
    }

    /// Repeats the creations of unknown outcome that are due.
    pub(super) fn repeat_creates(&mut self, _: MayChange, now: Timestamp, out: &mut Vec<Effect>) {
        for (id, in_flight) in &mut self.in_flight {
            if matches!(in_flight.phase, Phase::RepeatAt(at) if at <= now) {
                in_flight.phase = Phase::MadeAgain;
                self.buckets.take(Action::CreateEni, now);
                let (call, why) = (in_flight.call.clone(), in_flight.why.clone());
                out.push(Effect::Call { id: *id, call, why });
            }
        }
    }

    /// Gives up the creations of unknown outcome. An ENI that one of them has made is found by its tags as soon as changes
    /// are allowed again.
    pub(super) fn give_up_creates(&mut self, journal: &mut Journal) {
        let is_open = |in_flight: &InFlight| matches!(in_flight.phase, Phase::RepeatAt(_));
        let open = self.in_flight.iter().filter(|(_, in_flight)| is_open(in_flight));
        for id in open.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.settle(id, journal);
        }
    }

    /// Ends the calls whose outcome the describe number `poll` shows, and returns them. They stay on
    /// record as unconfirmed.
    pub(super) fn end_shown_by(&mut self, poll: CallId, now: Timestamp) -> Vec<Ec2Call> {
        let is_shown =
            |in_flight: &InFlight| matches!(in_flight.phase, Phase::Doubtful(from) if from <= poll);
        let shown = self.in_flight.extract_if(.., |_, in_flight| is_shown(in_flight));
        let shown: Vec<_> = shown.map(|(id, in_flight)| (id, in_flight.call)).collect();
        for (id, call) in &shown {
            if let Some(eni) = call.eni().cloned() {
                self.unconfirmed_outcomes.insert(*id, UnconfirmedOutcome { eni, since: now });
            }
        }
        shown.into_iter().map(|(_, call)| call).collect()
    }

    /// Takes unconfirmed outcomes off the record if `is_confirmed` holds for their ENI and the time since when
    /// they are known. Returns whether any is left.
    pub(super) fn confirm_outcomes(
        &mut self,
        is_confirmed: impl Fn(&Self, &EniId, Timestamp) -> bool,
        journal: &mut Journal,
    ) -> bool {
        let outcomes = self.unconfirmed_outcomes.iter();
        let confirmed = outcomes.filter(|(_, it)| is_confirmed(self, &it.eni, it.since));
        for id in confirmed.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.unconfirmed_outcomes.remove(&id);
            journal.note(Change::Settled { id });
        }
        !self.unconfirmed_outcomes.is_empty()
    }

    pub(super) fn has_unconfirmed_outcome(&self, eni: &EniId) -> bool {
        self.unconfirmed_outcomes.values().any(|outcome| outcome.eni == *eni)
    }

    /// Ends the hold on `action`.
    pub(super) fn action_succeeded(&mut self, action: Action) {
        self.retries.clear(&Subject::Action(action));
        self.buckets.granted(action);
    }

    /// Holds the call's action for a while.
    pub(super) fn action_failed(&mut self, call: &Ec2Call, error: &CallError, now: Timestamp) {
        if error.kind == CallErrorKind::Throttled {
            self.buckets.refused(call.action(), format!("{call}: {error}"), now);
        } else {
            self.hold_back(Subject::Action(call.action()), call, error, now);
        }
    }

    /// Holds `subject`, since `call` has failed.
    pub(super) fn hold_back(
        &mut self,
        subject: Subject,
        call: &Ec2Call,
        error: &CallError,
        now: Timestamp,
    ) -> Hold {
        let is_lasting = error.kind == CallErrorKind::Lasting;
        let lasts = if is_lasting { "; it does so until somebody removes the cause" } else { "" };
        let why = format!("{call}: {error}{lasts}");
        let (pace, code) = (Pace::of_call(call.action(), error.kind), refusal_code(error.kind));
        self.retries.fail(subject, pace, code, why, now)
    }

    /// Why no call of `action` may be made at present, if none may.
    pub(super) fn hold(&self, action: Action, pressure: Pressure, now: Timestamp) -> Option<Hold> {
        let held = self.retries.hold(&Subject::Action(action), now).cloned();
        held.or_else(|| self.buckets.hold(action, pressure.urgency(action), now))
    }

    /// Why `action` may not be tried on `eni` at present, if it may not.
    pub(super) fn hold_on(&self, eni: &EniId, action: Action, now: Timestamp) -> Option<&Hold> {
        self.retries.hold(&Subject::Eni(eni.clone(), action), now)
    }

    /// Why no ENI may be created in `subnet` at present, if none may.
    pub(super) fn create_hold(&self, subnet: &SubnetId, now: Timestamp) -> Option<&Hold> {
        self.retries.hold(&Subject::CreateIn(subnet.clone()), now)
    }

    /// The last failure of `action`, unless a success has followed it.
    pub(super) fn failure(
        &self,
        action: Action,
        pressure: Pressure,
        now: Timestamp,
    ) -> Option<Hold> {
        let failed = self.retries.failure(&Subject::Action(action)).cloned();
        failed.or_else(|| self.hold(action, pressure, now))
    }

    /// The failure of a call whose outcome is unknown.
    pub(super) fn doubtful_failure(&self) -> Option<&Hold> {
        let failure = |in_flight: &InFlight| match in_flight.phase {
            Phase::MadeAgain | Phase::Doubtful(_) | Phase::RepeatAt(_) => {
                self.retries.failure(&Subject::Action(in_flight.call.action()))
            }
            Phase::Intended | Phase::Made => None,
        };
        self.in_flight().find_map(failure)
    }

    /// The actions whose buckets are empty.
    pub(super) fn throttled(
        &self,
        pressure: Pressure,
        now: Timestamp,
    ) -> impl Iterator<Item = Hold> {
        self.buckets.holds(move |action| pressure.urgency(action), now)
    }

    /// For how long the token buckets have held each action back.
    pub(super) fn held_back(&self) -> &BTreeMap<Action, Duration> {
        self.buckets.held_back()
    }

    /// The moments at which something follows from time alone.
    pub(super) fn wakes(
        &self,
        pressure: Pressure,
        now: Timestamp,
    ) -> impl Iterator<Item = Timestamp> {
        let repeats = self.in_flight().filter_map(|in_flight| match in_flight.phase {
            Phase::RepeatAt(at) => Some(at),
            Phase::Intended | Phase::Made | Phase::MadeAgain | Phase::Doubtful(_) => None,
        });
        let holds = self.retries.holds(now).map(|(_, hold)| hold.until);
        repeats.chain(holds).chain(self.throttled(pressure, now).map(|hold| hold.until))
    }
}

/// The calls of an earlier run whose outcome is unknown.
fn left_open(record: &Record, now: Timestamp) -> BTreeMap<CallId, InFlight> {
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
        | Action::DeleteEni
        | Action::SetSecurityGroups => Phase::Doubtful(record.next_call()),
    };
    let intents = record.intents().iter();
    let in_flight =
        |call: &Ec2Call| InFlight { call: call.clone(), why: Reason::LeftOpen, phase: phase(call) };
    intents.map(|(id, call)| (*id, in_flight(call))).collect()
}

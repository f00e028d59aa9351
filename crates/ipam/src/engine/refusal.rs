//! What a pod is told that gets no address: one code, the facts, what to do, when to try again.

use super::Engine;
use super::calls::{InFlight, Phase};
use crate::call::Action;
use crate::event::{Refusal, RefusalCode};
use crate::retry::{Hold, Subject};
use crate::time::Timestamp;

/// The cause of a refusal before the facts of the pool are put to it.
struct Cause {
    code: RefusalCode,
    why: String,
    again_at: Option<Timestamp>,
}

/// What an Add may expect that gets no address at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outlook {
    /// An address for it is under way, but late.
    Late,
    /// None is under way.
    Bleak,
}

impl Engine {
    /// Why an Add gets no address at present.
    pub(super) fn refusal(&self, outlook: Outlook, now: Timestamp) -> Refusal {
        let Cause { code, why, again_at } = self.cause(outlook, now);
        let message = format!("{}: {why}", self.stock(now));
        Refusal { code, message, retry_after: again_at.map(|at| at.since(now)) }
    }

    pub(super) fn unwritable(&self, now: Timestamp) -> Refusal {
        let hold = self.record_hold(now);
        let message = hold.map_or_else(
            || "the record has not been written in time; see to its disk".to_owned(),
            |hold| hold.why.clone(),
        );
        let retry_after = hold.map(|hold| hold.until.since(now));
        Refusal { code: RefusalCode::StateUnwritable, message, retry_after }
    }

    fn cause(&self, outlook: Outlook, now: Timestamp) -> Cause {
        if let Some(hold) = self.record_hold(now) {
            return Cause { code: hold.code, why: hold.why.clone(), again_at: Some(hold.until) };
        }
        if let Some(look) =
            [&self.enis_look, &self.subnets_look].into_iter().find(|l| !l.is_known())
        {
            return starting(self.action_failure(look.call.action(), now));
        }
        let shortage = match outlook {
            Outlook::Late => None,
            Outlook::Bleak => self.resting(now).or_else(|| self.blocked_growth()),
        };
        shortage
            .or_else(|| self.failing_call(now))
            .or_else(|| self.failing_link(now))
            .unwrap_or_else(|| Cause {
                code: RefusalCode::Attaching,
                why: "more addresses are on their way from EC2".to_owned(),
                again_at: Some(now + self.policy.add_wait),
            })
    }

    /// Nothing more can be had, but something here only rests.
    fn resting(&self, now: Timestamp) -> Option<Cause> {
        let until = self.pool.rest_ends(now).first().copied()?;
        let blocked = self.plan.blocked.first()?;
        (blocked.code != RefusalCode::MaxPods).then(|| Cause {
            code: RefusalCode::AllCooling,
            why: format!("every free address was released too recently, and {}", blocked.why),
            again_at: Some(until),
        })
    }

    fn blocked_growth(&self) -> Option<Cause> {
        let blocked = self.plan.blocked.first()?;
        Some(Cause { code: blocked.code, why: blocked.why.clone(), again_at: blocked.until })
    }

    /// What is on its way depends on a call that has failed, or on a reading that fails.
    fn failing_call(&self, now: Timestamp) -> Option<Cause> {
        let supplies = |subject: &Subject| match subject {
            Subject::Action(action) | Subject::Eni(_, action) => {
                *action == self.assign_action()
                    || matches!(action, Action::CreateEni | Action::AttachEni)
            }
            Subject::Host | Subject::Record => false,
        };
        let held = self.retries.holds(now).find(|(subject, _)| supplies(subject));
        let throttled = || {
            let actions = [Action::CreateEni, Action::AttachEni, self.assign_action()];
            actions.into_iter().find_map(|action| self.action_hold(action, now))
        };
        let hold = held
            .map(|(_, hold)| hold.clone())
            .or_else(throttled)
            .or_else(|| self.doubted_call().cloned())
            .or_else(|| self.action_failure(Action::DescribeEnis, now))?;
        let again_at = Some(hold.until).filter(|at| *at > now);
        let again_at = again_at.or(Some(now + self.policy.add_wait));
        Some(Cause { code: hold.code, why: hold.why, again_at })
    }

    /// How a call has failed of which nobody knows yet whether it had its effect.
    fn doubted_call(&self) -> Option<&Hold> {
        let failure = |inflight: &InFlight| match inflight.phase {
            Phase::MadeAgain | Phase::Doubtful(_) | Phase::RepeatAt(_) => {
                self.retries.failure(&Subject::Action(inflight.call.action()))
            }
            Phase::Intended | Phase::Made => None,
        };
        self.calls.values().find_map(failure)
    }

    fn failing_link(&self, now: Timestamp) -> Option<Cause> {
        let (eni, why) =
            self.pool.enis.values().find_map(|eni| Some((&eni.id, eni.link_failure()?)))?;
        Some(Cause {
            code: RefusalCode::LinkFailing,
            why: format!("{eni} is attached but cannot be set up on the host: {why}"),
            again_at: self.retries.hold(&Subject::Host, now).map(|hold| hold.until),
        })
    }

    /// The counts: `9 of 9 addresses in use, 2 resting, on 3 of 3 ENIs in subnet-… (40 free)`.
    fn stock(&self, now: Timestamp) -> String {
        let counts = self.picture(now).counts;
        let home = self.home.as_ref().map(|home| &home.subnet);
        let free = home.and_then(|subnet| self.subnets.get(subnet)).map_or_else(
            || "free addresses unknown".to_owned(),
            |facts| format!("{} free when last read", facts.free_addresses),
        );
        let subnet = home.map_or("a subnet yet unknown", |subnet| subnet.as_str());
        format!(
            "no free address: {} of {} in use, {} resting, {} quarantined, {} waiting, on {} of {} ENIs, in {subnet} ({free})",
            counts.assigned,
            counts.total,
            counts.cooling,
            counts.quarantined,
            counts.waiting,
            self.pool.enis.len(),
            self.most().enis,
        )
    }
}

fn starting(failure: Option<Hold>) -> Cause {
    let unknown = "EC2 has not yet said what this node holds";
    match failure {
        Some(hold) => Cause {
            code: hold.code,
            why: format!("{unknown}: {}", hold.why),
            again_at: Some(hold.until),
        },
        None => Cause { code: RefusalCode::Starting, why: unknown.to_owned(), again_at: None },
    }
}

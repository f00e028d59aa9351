//! The refusal of a pod without an address: one code, the facts, what to do, when to try again.
//!
//! It reads all parts and changes none.

use super::Engine;
use super::demand::Shortage;
use crate::block::Family;
use crate::call::Action;
use crate::eni::Eni;
use crate::event::{Refusal, RefusalCode};
use crate::id::EniId;
use crate::policy::Families;
use crate::retry::{Hold, Subject};
use crate::time::Timestamp;

/// How many obstacles to growth a refusal names. `ipamd status` has all.
const MOST_OBSTACLES: usize = 8;

/// The cause of a refusal, before the pool's counts are added.
struct Cause {
    code: RefusalCode,
    why: String,
    again_at: Option<Timestamp>,
}

impl Engine {
    /// Why an Add gets no address at present.
    pub(super) fn refusal(&self, shortage: Shortage, now: Timestamp) -> Refusal {
        let Cause { code, why, again_at } = self.cause(shortage, now);
        let family = match shortage {
            Shortage::Late => self.site.at(now).families().policy().kind.family(),
            Shortage::Resting(family, _) | Shortage::Nothing(family) => family,
        };
        let message = format!("{}: {why}", self.stock(family, now));
        Refusal { code, message, retry_after: again_at.map(|at| at.since(now)) }
    }

    fn cause(&self, shortage: Shortage, now: Timestamp) -> Cause {
        if let Some(hold) = self.journal.hold(now) {
            return Cause { code: hold.code, why: hold.why.clone(), again_at: Some(hold.until) };
        }
        if let Some(poll) = self.inventory.awaited_poll() {
            let failure = self.calls.failure(poll.call.action(), self.pressure(), now);
            return starting(self.site.at(now).who_describes(), failure);
        }
        if let Some(cause) = self.unknown_range(now) {
            return cause;
        }
        let short = match shortage {
            Shortage::Late => None,
            Shortage::Resting(family, until) => self
                .unread_kernel(until, now)
                .or_else(|| self.resting(family, until))
                .or_else(|| self.blocked_growth(family)),
            Shortage::Nothing(family) => self.blocked_growth(family),
        };
        short.or_else(|| self.failing_call(now)).or_else(|| self.failing_link(now)).unwrap_or_else(
            || Cause {
                code: RefusalCode::Attaching,
                why: "more addresses are on their way from EC2".to_owned(),
                again_at: Some(now + self.site.policy.timing.add_wait),
            },
        )
    }

    /// The refusal while no ENI can be used, because EC2 does not describe the subnets.
    fn unknown_range(&self, now: Timestamp) -> Option<Cause> {
        let record = self.journal.record();
        let lacks = |eni: &Eni| self.inventory.lacks_range(&eni.subnet, record);
        if !self.pool.enis.values().all(lacks) {
            return None;
        }
        let hold = self.calls.failure(Action::DescribeSubnets, self.pressure(), now)?;
        let why = format!("the ranges of the ENIs' subnets are unknown: {}", hold.why);
        Some(Cause { code: hold.code, why, again_at: Some(hold.until) })
    }

    /// The refusal while the address that the pod would get has rested until then, and waits for the kernel alone.
    fn unread_kernel(&self, until: Timestamp, now: Timestamp) -> Option<Cause> {
        (until <= now).then(|| Cause {
            code: RefusalCode::KernelUnread,
            why: format!("the free addresses {}", self.unread_phrase()),
            again_at: self.kernel.wakes_at().or(Some(now + self.site.policy.timing.add_wait)),
        })
    }

    /// Why addresses rest on after their cooldown.
    pub(super) fn unread_phrase(&self) -> String {
        let why = self.kernel.why_unread();
        format!(
            "may still be routed to the pods that released them, and serve once the kernel has been read: {why}"
        )
    }

    /// The refusal while growth is blocked and the address that the pod would get rests until then.
    fn resting(&self, family: Family, until: Timestamp) -> Option<Cause> {
        let blocked = self.supply.plan(family).blocked.first()?;
        (blocked.code != RefusalCode::MaxPods).then(|| Cause {
            code: RefusalCode::AllCooling,
            why: format!("every free address was released too recently, and {}", blocked.why),
            again_at: Some(until),
        })
    }

    /// The refusal while growth is blocked. It has the code of the first obstacle and names all.
    fn blocked_growth(&self, family: Family) -> Option<Cause> {
        let blocked = &self.supply.plan(family).blocked;
        let code = blocked.first()?.code;
        let again_at = blocked.iter().filter_map(|blocked| blocked.until).min();
        let mut whys: Vec<_> = blocked.iter().map(|blocked| blocked.why.as_str()).collect();
        let n_more = whys.len().saturating_sub(MOST_OBSTACLES);
        whys.truncate(MOST_OBSTACLES);
        let mut why = whys.join("; ");
        if n_more > 0 {
            why.push_str(&format!("; and {n_more} more, see ipamd status"));
        }
        if code == RefusalCode::LinkFailing
            && let Some((eni, failure)) = self.broken_link()
        {
            why.push_str(&format!(". {eni} cannot be set up: {failure}"));
        }
        Some(Cause { code, why, again_at })
    }

    /// The refusal while the addresses under way depend on a failing call or describe.
    fn failing_call(&self, now: Timestamp) -> Option<Cause> {
        let (calls, pressure) = (&self.calls, self.pressure());
        let families = self.site.at(now).families().policies();
        let assigns = families.map(|policy| policy.kind.assign_action());
        let actions: Vec<_> =
            [Action::CreateEni, Action::AttachEni].into_iter().chain(assigns).collect();
        let supplies = |subject: &Subject| actions.contains(&subject.action());
        let held = calls.retries.holds(now).find(|(subject, _)| supplies(subject));
        let throttled = || actions.iter().find_map(|action| calls.hold(*action, pressure, now));
        let hold = held
            .map(|(_, hold)| hold.clone())
            .or_else(throttled)
            .or_else(|| calls.doubtful_failure().cloned())
            .or_else(|| calls.failure(Action::DescribeEnis, pressure, now))?;
        let again_at = Some(hold.until).filter(|at| *at > now);
        let again_at = again_at.or(Some(now + self.site.policy.timing.add_wait));
        Some(Cause { code: hold.code, why: hold.why, again_at })
    }

    fn failing_link(&self, now: Timestamp) -> Option<Cause> {
        let (eni, why) = self.broken_link()?;
        Some(Cause {
            code: RefusalCode::LinkFailing,
            why: format!("{eni} is attached but cannot be set up on the host: {why}"),
            again_at: self.host.hold(now).map(|hold| hold.until),
        })
    }

    /// The first ENI whose side of the host fails, and why.
    fn broken_link(&self) -> Option<(&EniId, &str)> {
        self.pool.enis.values().find_map(|eni| Some((&eni.id, eni.link_failure()?)))
    }

    /// The counts: `no free address: 9 of 9 in use, 2 resting, … on 3 of 3 ENIs, in subnet-… (40 free …)`.
    fn stock(&self, family: Family, now: Timestamp) -> String {
        let counts = self.counts(family, now);
        let address = match (self.site.policy.families, family) {
            (Families::V4(_) | Families::V6(_), _) => "address",
            (Families::Dual { .. }, Family::V4) => "IPv4 address",
            (Families::Dual { .. }, Family::V6) => "IPv6 address",
        };
        let subnet = self.inventory.subnet_of_pods(self.site.at(now));
        let facts = subnet.as_ref().and_then(|subnet| self.inventory.subnets.get(subnet));
        let free = facts.and_then(|facts| facts.free_addresses).map_or_else(
            || "free addresses unknown".to_owned(),
            |free| format!("{free} free in EC2's last answer"),
        );
        let subnet = subnet.as_ref().map_or("a subnet yet unknown", |subnet| subnet.as_str());
        format!(
            "no free {address}: {} of {} in use, {} resting, {} quarantined, {} waiting, on {} of {} ENIs, in {subnet} ({free})",
            counts.assigned,
            counts.total,
            counts.cooling,
            counts.quarantined,
            counts.waiting,
            self.pool.enis.len(),
            self.capacity().enis,
        )
    }
}

fn starting(who: &str, failure: Option<Hold>) -> Cause {
    let unknown = format!("{who} has not yet said what this node holds");
    match failure {
        Some(hold) => Cause {
            code: hold.code,
            why: format!("{unknown}: {}", hold.why),
            again_at: Some(hold.until),
        },
        None => Cause { code: RefusalCode::Starting, why: unknown, again_at: None },
    }
}

//! A token bucket for each action. Its rate follows from EC2's throttling.
//!
//! EC2 has one bucket per account, region and action. All nodes share it, and none can see it. So each node
//! finds its share: every refusal doubles the time between its calls, every grant divides it by four. The
//! two balance where EC2 grants a third of the calls. That leaves no token unused and keeps the refused
//! calls few, however many nodes there are.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::call::Action;
use crate::event::RefusalCode;
use crate::jitter::Jitter;
use crate::retry::Hold;
use crate::time::Timestamp;

/// The time between two calls after a first refusal.
const FIRST: Duration = Duration::from_secs(1);
/// The longest time between two calls. With it 450 nodes make 15 calls a second, three times as many as EC2
/// grants. A longer time would leave the last nodes waiting when all others are served.
const LONGEST: Duration = Duration::from_secs(30);
/// A refusal multiplies the time between two calls by this.
const SLOWER: u32 = 2;
/// A grant divides the time between two calls by this.
const FASTER: u32 = 4;
/// A call for which no pod waits takes every fourth turn only. The other turns are for pods of other nodes.
const TURNS_LEFT_TO_PODS: u32 = 4;
/// A bucket is forgotten after this time without a refusal.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// Whether a pod waits for the effect of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    PodsWait,
    Background,
}

/// An action that EC2 has throttled lately. It has one token, which returns after `gap`.
#[derive(Debug, Clone)]
struct Bucket {
    gap: Duration,
    /// When the last token was taken, or EC2 last refused a call.
    since: Timestamp,
    /// About `gap`, drawn anew for each token.
    drawn: Duration,
    n_drawn: u64,
    refused_at: Timestamp,
    n_refused: u32,
    why: String,
}

/// The actions that EC2 has throttled lately. All others have no bound.
#[derive(Debug, Clone)]
pub(crate) struct Buckets {
    jitter: Jitter,
    by_action: BTreeMap<Action, Bucket>,
    /// The pauses of each action that have ended, together.
    held_back: BTreeMap<Action, Duration>,
}

impl Buckets {
    pub(crate) fn new(jitter: Jitter) -> Self {
        Self { jitter, by_action: BTreeMap::new(), held_back: BTreeMap::new() }
    }

    /// Notes that EC2 has throttled a call of `action`.
    pub(crate) fn refused(&mut self, action: Action, why: String, now: Timestamp) {
        let held_back = &mut self.held_back;
        for (action, bucket) in self.by_action.extract_if(.., |_, bucket| bucket.is_forgotten(now))
        {
            *held_back.entry(action).or_default() += bucket.pause(now);
        }
        let bucket = self.by_action.entry(action).or_insert_with(|| Bucket {
            gap: FIRST / SLOWER,
            since: now,
            drawn: Duration::ZERO,
            n_drawn: 0,
            refused_at: Timestamp::default(),
            n_refused: 0,
            why: String::new(),
        });
        // The next call leaves half a gap later at the earliest. A call refused sooner left together with
        // the one before, so the two count as one refusal.
        if now >= bucket.refused_at + bucket.gap / 2 || bucket.n_refused == 0 {
            bucket.gap = (bucket.gap * SLOWER).min(LONGEST);
            bucket.refused_at = now;
        }
        bucket.n_refused = bucket.n_refused.saturating_add(1);
        bucket.why = why;
        *held_back.entry(action).or_default() += bucket.pause(now);
        bucket.draw(action, self.jitter, now);
    }

    /// Notes that EC2 has carried out a call of `action`.
    pub(crate) fn granted(&mut self, action: Action) {
        if let Some(bucket) = self.by_action.get_mut(&action) {
            bucket.gap /= FASTER;
            bucket.drawn /= FASTER;
            if bucket.gap < FIRST / SLOWER {
                self.by_action.remove(&action);
            }
        }
    }

    /// Takes the token for a call of `action`.
    pub(crate) fn take(&mut self, action: Action, now: Timestamp) {
        if let Some(bucket) = self.by_action.get_mut(&action) {
            *self.held_back.entry(action).or_default() += bucket.pause(now);
            bucket.draw(action, self.jitter, now);
        }
    }

    /// Why a call of `action` must wait, if it must.
    pub(crate) fn hold(&self, action: Action, urgency: Urgency, now: Timestamp) -> Option<Hold> {
        let bucket = self.by_action.get(&action).filter(|bucket| !bucket.is_forgotten(now))?;
        Some(bucket.hold(urgency)).filter(|hold| hold.until > now)
    }

    /// For how long each action has been held back, without the pause that has yet to end.
    pub(crate) fn held_back(&self) -> &BTreeMap<Action, Duration> {
        &self.held_back
    }

    /// The holds of all actions that must wait.
    pub(crate) fn holds(
        &self,
        urgency: impl Fn(Action) -> Urgency,
        now: Timestamp,
    ) -> impl Iterator<Item = Hold> {
        let actions = self.by_action.keys();
        actions.filter_map(move |action| self.hold(*action, urgency(*action), now))
    }
}

impl Bucket {
    fn is_forgotten(&self, now: Timestamp) -> bool {
        self.refused_at + FORGOTTEN <= now
    }

    /// How much of the last pause has passed at `now`.
    fn pause(&self, now: Timestamp) -> Duration {
        now.since(self.since).min(self.drawn)
    }

    fn draw(&mut self, action: Action, jitter: Jitter, now: Timestamp) {
        self.n_drawn += 1;
        self.since = now;
        self.drawn = jitter.about(self.gap, [action as u64, self.n_drawn]);
    }

    fn hold(&self, urgency: Urgency) -> Hold {
        let turns = match urgency {
            Urgency::PodsWait => 1,
            Urgency::Background => TURNS_LEFT_TO_PODS,
        };
        Hold {
            code: RefusalCode::Throttled,
            why: self.why.clone(),
            until: self.since + self.drawn * turns,
            attempts: self.n_refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATE: Action = Action::CreateEni;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn buckets() -> Buckets {
        Buckets::new(Jitter::new("i-1"))
    }

    fn wait(buckets: &Buckets, urgency: Urgency, now: u64) -> u64 {
        let hold = buckets.hold(CREATE, urgency, at(now));
        hold.map_or(0, |hold| hold.until.as_millis() - now)
    }

    #[test]
    fn refusals_slow_down_and_grants_speed_up() {
        let mut buckets = buckets();
        buckets.take(CREATE, at(0));
        assert_eq!(wait(&buckets, Urgency::PodsWait, 0), 0, "no bounds before a refusal");
        let mut now = 0;
        for gap in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            buckets.refused(CREATE, String::new(), at(now));
            let waited = wait(&buckets, Urgency::PodsWait, now);
            assert!((gap / 2..=gap * 3 / 2).contains(&waited), "{waited} ms, about {gap}");
            now += waited;
            assert_eq!(wait(&buckets, Urgency::PodsWait, now), 0);
            buckets.take(CREATE, at(now));
            assert!(wait(&buckets, Urgency::PodsWait, now) >= gap / 2, "one token at a time");
        }
        for gap in [7_500, 1_875] {
            buckets.granted(CREATE);
            buckets.take(CREATE, at(now));
            let waited = wait(&buckets, Urgency::PodsWait, now);
            assert!((gap / 2..=gap * 3 / 2 + 2).contains(&waited), "{waited} ms, about {gap}");
        }
        buckets.granted(CREATE);
        assert!(buckets.by_action.is_empty(), "the action has no bound again");
    }

    #[test]
    fn pauses_are_summed_once_they_have_ended() {
        let mut buckets = buckets();
        // In whole milliseconds, as the waits.
        let held = |buckets: &Buckets| buckets.held_back().get(&CREATE).map(Duration::as_millis);
        buckets.take(CREATE, at(0));
        assert_eq!(held(&buckets), None, "an action without a bucket is never held back");
        buckets.refused(CREATE, String::new(), at(0));
        let first = u128::from(wait(&buckets, Urgency::PodsWait, 0));
        assert_eq!(held(&buckets), Some(0));
        // Nobody wants a call for six minutes. The pause is no longer for that.
        buckets.take(CREATE, at(360_000));
        assert_eq!(held(&buckets), Some(first));
        buckets.refused(CREATE, String::new(), at(360_000));
        assert_eq!(held(&buckets), Some(first));
        buckets.refused(Action::AttachEni, String::new(), at(7_200_000));
        assert!(held(&buckets) > Some(first), "a forgotten bucket counts");
    }

    #[test]
    fn calls_under_way_together_count_as_one_refusal() {
        let mut buckets = buckets();
        for millis in [0, 100, 400] {
            buckets.refused(CREATE, String::new(), at(millis));
        }
        assert_eq!(buckets.by_action[&CREATE].gap, FIRST);
    }

    #[test]
    fn background_work_leaves_the_tokens_to_pods() {
        let mut buckets = buckets();
        buckets.refused(CREATE, String::new(), at(0));
        let (pods, background) =
            (wait(&buckets, Urgency::PodsWait, 0), wait(&buckets, Urgency::Background, 0));
        // Rounding loses less than a millisecond in each.
        assert_eq!(background / u64::from(TURNS_LEFT_TO_PODS), pods);
    }

    #[test]
    fn refusals_are_forgotten_after_ten_minutes() {
        let mut buckets = buckets();
        for millis in [0, 30_000, 60_000] {
            buckets.refused(CREATE, String::new(), at(millis));
        }
        buckets.take(CREATE, at(659_999));
        assert!(wait(&buckets, Urgency::PodsWait, 659_999) > 0);
        assert_eq!(wait(&buckets, Urgency::PodsWait, 660_000), 0);
        buckets.refused(CREATE, String::new(), at(660_000));
        assert_eq!(buckets.by_action[&CREATE].gap, FIRST, "the bucket starts over");
    }

    /// Independent nodes share a bucket of 5 tokens a second.
    #[test]
    fn many_nodes_share_the_rate_limit() {
        let check = |n_nodes: usize, least_granted: u32, most_refused: u32| {
            let mut nodes: Vec<_> =
                (0..n_nodes).map(|node| Buckets::new(Jitter::new(&format!("i-{node}")))).collect();
            let (mut tokens, mut granted, mut refused) = (50.0_f64, 0_u32, 0_u32);
            for step in 0..6_000 {
                let now = at(step * 100);
                tokens = (tokens + 0.5).min(50.0);
                for node in &mut nodes {
                    if node.hold(CREATE, Urgency::PodsWait, now).is_some() {
                        continue;
                    }
                    node.take(CREATE, now);
                    if tokens >= 1.0 {
                        tokens -= 1.0;
                        granted += 1;
                        node.granted(CREATE);
                    } else {
                        refused += 1;
                        node.refused(CREATE, String::new(), now);
                    }
                }
            }
            // 600 seconds with 5 tokens each, and 50 tokens at the start.
            assert!(granted >= least_granted, "{n_nodes} nodes: {granted} granted of 3050");
            assert!(refused <= most_refused, "{n_nodes} nodes: {refused} refused");
        };
        check(20, 3_000, 9_000);
        check(150, 3_000, 9_000);
        // More nodes than the longest gap is made for: they make fifty calls a second.
        check(1_500, 3_000, 45_000);
    }
}

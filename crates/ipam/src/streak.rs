//! "Seen without a break since then": how long an observation has held. Knows nothing of what is observed.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Timestamp;

/// One observation that is made again and again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Streak(Option<Timestamp>);

impl Streak {
    /// Takes in whether the observation holds at `at`. The first break ends the streak.
    pub(crate) fn observe(&mut self, holds: bool, at: Timestamp) {
        self.0 = holds.then(|| self.0.unwrap_or(at));
    }

    /// When the streak began; `None` if there is none.
    pub(crate) fn since(self) -> Option<Timestamp> {
        self.0
    }

    /// Whether the streak is at least `span` long at `at`.
    pub(crate) fn has_lasted(self, span: Duration, at: Timestamp) -> bool {
        self.0.is_some_and(|since| since + span <= at)
    }
}

/// The same observation of many things, by key.
#[derive(Debug, Clone)]
pub(crate) struct Streaks<K>(BTreeMap<K, Timestamp>);

impl<K> Default for Streaks<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Streaks<K> {
    /// Takes in all keys that show at `at`. The streak of every other key ends.
    pub(crate) fn observe_all<'a>(&mut self, keys: impl IntoIterator<Item = &'a K>, at: Timestamp)
    where
        K: 'a,
    {
        let before = std::mem::take(&mut self.0);
        for key in keys {
            self.0.insert(key.clone(), before.get(key).copied().unwrap_or(at));
        }
    }

    /// Begins the streak of `key` at `at`, unless it goes on already.
    pub(crate) fn begin(&mut self, key: K, at: Timestamp) {
        self.0.entry(key).or_insert(at);
    }

    /// Begins the streak of `key` at `at`, even if one goes on.
    pub(crate) fn begin_anew(&mut self, key: K, at: Timestamp) {
        self.0.insert(key, at);
    }

    /// Ends every streak whose key and beginning `keep` denies.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&K, Timestamp) -> bool) {
        self.0.retain(|key, since| keep(key, *since));
    }

    /// When the streak of `key` began; `None` if there is none.
    pub(crate) fn since(&self, key: &K) -> Option<Timestamp> {
        self.0.get(key).copied()
    }

    /// Whether `key` has a streak of at least `span` at `at`.
    pub(crate) fn has_lasted(&self, key: &K, span: Duration, at: Timestamp) -> bool {
        self.since(key).is_some_and(|since| since + span <= at)
    }

    /// Whether `key` has a streak.
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(10);

    fn at(second: u64) -> Timestamp {
        Timestamp::from_millis(second * 1000)
    }

    #[test]
    fn streak_with_a_break_starts_over() {
        let check = |observed: &[(bool, u64)], now: u64, expect: bool| {
            let mut streak = Streak::default();
            observed.iter().for_each(|(holds, second)| streak.observe(*holds, at(*second)));
            assert_eq!(streak.has_lasted(SPAN, at(now)), expect, "{observed:?} at {now}");
        };
        check(&[], 100, false);
        check(&[(true, 0)], 9, false);
        check(&[(true, 0)], 10, true);
        check(&[(true, 0), (true, 5)], 10, true);
        check(&[(true, 0), (false, 5)], 100, false);
        check(&[(true, 0), (false, 5), (true, 6)], 15, false);
        check(&[(true, 0), (false, 5), (true, 6)], 16, true);
    }

    #[test]
    fn streak_of_one_key_ends_without_the_others() {
        let mut streaks = Streaks::default();
        streaks.observe_all(&["a", "b"], at(0));
        streaks.observe_all(&["b", "c"], at(5));
        streaks.observe_all(&["a", "b", "c"], at(8));
        let since = ["a", "b", "c"].map(|key| streaks.since(&key));
        assert_eq!(since, [Some(at(8)), Some(at(0)), Some(at(5))]);
        assert!(streaks.has_lasted(&"b", SPAN, at(10)));
        assert!(!streaks.has_lasted(&"c", SPAN, at(10)));
        streaks.begin("b", at(20));
        assert_eq!(streaks.since(&"b"), Some(at(0)));
        streaks.begin_anew("b", at(20));
        assert_eq!(streaks.since(&"b"), Some(at(20)));
        streaks.retain(|key, _| *key != "c");
        assert!(!streaks.contains(&"c"));
    }
}

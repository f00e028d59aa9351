//! The log of calls, and their counts.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use crate::time::SimTime;

/// One logged call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CallRecord {
    /// Numbers all calls from 1, including those that the log has dropped.
    pub number: u64,
    /// The action's name as the client sent it.
    pub action: String,
    /// The account that called.
    pub account: String,
    /// The parameters as the client sent them.
    pub parameters: BTreeMap<String, String>,
    /// The error code, or `None` for success.
    pub error: Option<String>,
    /// Whether a fault rule dropped the answer.
    pub reply_lost: bool,
    /// When the call arrived.
    pub at: SimTime,
    /// When the client may see the answer.
    pub answered_at: SimTime,
}

/// The latest calls, and counts of all.
#[derive(Debug, Clone)]
pub struct CallLog {
    capacity: usize,
    n_calls: u64,
    records: VecDeque<CallRecord>,
    counts: BTreeMap<String, BTreeMap<String, u64>>,
}

/// The key under which successful calls are counted.
pub const SUCCESS: &str = "Success";

impl CallLog {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, n_calls: 0, records: VecDeque::new(), counts: BTreeMap::new() }
    }

    /// The latest calls, oldest first.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = &CallRecord> {
        self.records.iter()
    }

    /// Number of calls by action, then by error code or [`SUCCESS`].
    #[must_use]
    pub fn counts(&self) -> &BTreeMap<String, BTreeMap<String, u64>> {
        &self.counts
    }

    /// Number of calls of one action, successful or not.
    #[must_use]
    pub fn n_of(&self, action: &str) -> u64 {
        self.counts.get(action).map_or(0, |codes| codes.values().sum())
    }

    /// Clears records and counts. Numbering continues.
    pub fn clear(&mut self) {
        self.records.clear();
        self.counts.clear();
    }

    /// Numbers a record and appends it.
    pub(crate) fn push(&mut self, record: CallRecord) {
        self.n_calls += 1;
        let code = record.error.as_deref().unwrap_or(SUCCESS).to_owned();
        *self.counts.entry(record.action.clone()).or_default().entry(code).or_default() += 1;
        self.records.push_back(CallRecord { number: self.n_calls, ..record });
        while self.records.len() > self.capacity {
            self.records.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(action: &str, error: Option<&str>) -> CallRecord {
        CallRecord {
            number: 0,
            action: action.to_owned(),
            account: "111122223333".to_owned(),
            parameters: BTreeMap::new(),
            error: error.map(str::to_owned),
            reply_lost: false,
            at: SimTime::default(),
            answered_at: SimTime::default(),
        }
    }

    #[test]
    fn call_log_is_bounded_and_counts_all() {
        let mut log = CallLog::new(2);
        for error in [None, Some("Unavailable"), None] {
            log.push(record("DescribeVpcs", error));
        }
        log.push(record("CreateVpc", None));
        assert_eq!(log.records().map(|call| call.number).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(log.n_of("DescribeVpcs"), 3);
        assert_eq!(log.counts()["DescribeVpcs"]["Unavailable"], 1);
        assert_eq!(log.counts()["DescribeVpcs"][SUCCESS], 2);
        log.clear();
        assert_eq!((log.records().count(), log.n_of("CreateVpc")), (0, 0));
    }
}

//! Lines that the agent's caller adds to the View, for instance that a service it needs is away. No decision
//! depends on them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// One line for each matter. The View shows them among the obstacles. Clones share the lines.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Notes {
    /// Shows `line` for `matter` from now on, in place of its former line.
    pub fn say(&self, matter: &'static str, line: String) {
        self.with(|notes| notes.insert(matter, line));
    }

    /// Removes the line for `matter`.
    pub fn settle(&self, matter: &'static str) {
        self.with(|notes| notes.remove(matter));
    }

    /// `matter: line` for each matter, ascending.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.with(|notes| notes.iter().map(|(matter, line)| format!("{matter}: {line}")).collect())
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<&'static str, String>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

//! What whoever runs the agent has to say to people who look at the pool: that something it depends
//! on is away. Nothing is decided by it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// One line about each matter, shown with what is in the pool's way. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Notes {
    /// Says `line` about `matter` from now on, in place of what was said before.
    pub fn say(&self, matter: &'static str, line: String) {
        self.with(|notes| notes.insert(matter, line));
    }

    /// There is nothing to say about `matter` any more.
    pub fn settle(&self, matter: &'static str) {
        self.with(|notes| notes.remove(matter));
    }

    /// `matter: line` for each, ascending.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.with(|notes| notes.iter().map(|(matter, line)| format!("{matter}: {line}")).collect())
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<&'static str, String>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

//! What `ipamd run --install` does beside serving: plugin, then conflist, each as soon as that is possible.

use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

use agent::Notes;
use installer::Placed;
use tracing::{error, info};

use super::Files;
use crate::asking;

/// How often the daemon is asked whether a pod could get an address. The node waits for it.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// How long to wait after a failed attempt: a disk that is full or read-only may change.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// How often the directory of conflists is searched for those of others.
const SEARCH_EVERY: Duration = Duration::from_secs(60);
/// The matter of the note in `ipamd status`.
const MATTER: &str = "INSTALL";

/// Installs, then watches for conflists that come before ours. Both files stay when the daemon ends: the runtime needs
/// them to take pods down, and to wait for the next daemon.
///
/// A daemon that cannot install serves all the same, since an earlier version's files may be in place.
pub(crate) async fn keep(files: Files, socket: &Path, notes: Notes) -> Infallible {
    let mut entry = Entry { files, notes, trouble: None };
    entry.until_done("the plugin cannot be installed", Files::put_plugin).await;
    // An earlier conflist stays meanwhile. Without one the node is not ready, so no pod is put on it.
    while !matches!(asking::ready_now(socket).await, Ok(None)) {
        tokio::time::sleep(ASK_EVERY).await;
    }
    entry.until_done("the conflist cannot be installed", Files::put_conflist).await;
    loop {
        let rival = entry.in_background(Files::rival).await.flatten();
        entry.report(rival);
        tokio::time::sleep(SEARCH_EVERY).await;
    }
}

struct Entry {
    files: Files,
    notes: Notes,
    /// What has been said last, so that it is logged once.
    trouble: Option<String>,
}

impl Entry {
    /// Tries one step until it succeeds.
    async fn until_done(&mut self, fault: &str, step: fn(&Files) -> anyhow::Result<Placed>) {
        loop {
            match self.in_background(step).await {
                Some(Ok(placed)) => {
                    let (plugins, conflists) = (&self.files.plugins, &self.files.conflists);
                    info!(?placed, plugins = %plugins.display(), conflists = %conflists.display(), "installed");
                    return self.report(None);
                }
                Some(Err(error)) => self.report(Some(format!("{fault}: {error:#}"))),
                // It has panicked, which its hook has logged.
                None => {}
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// Disks are slow at times, and other tasks run on this thread. `None` if `act` has panicked.
    async fn in_background<T: Send + 'static>(&self, act: fn(&Files) -> T) -> Option<T> {
        let files = self.files.clone();
        tokio::task::spawn_blocking(move || act(&files)).await.ok()
    }

    /// Shows `trouble` in the log, and in `ipamd status` for as long as it lasts.
    fn report(&mut self, trouble: Option<String>) {
        if trouble == self.trouble {
            return;
        }
        match &trouble {
            Some(line) => {
                error!(fault = line, "installation");
                self.notes.say(MATTER, line.clone());
            }
            None => self.notes.settle(MATTER),
        }
        self.trouble = trouble;
    }
}

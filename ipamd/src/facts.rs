//! Which instance this node is, from the metadata service. If the service does not answer, from what
//! it answered an earlier start in the same boot. It must not know what the facts are for.

use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::{Notes, checked_file, error_chain};
use anyhow::anyhow;
use aws::{Imds, NodeFacts};
use ipam::id::BootId;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

/// How long a start waits for the service if there are kept facts to go by. The service answers all
/// questions within some milliseconds.
const TIMEOUT: Duration = Duration::from_millis(300);
/// The pause between two attempts to reach the service: it doubles from the first to the last.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// The code of the line in `ipamd status` while the service is away.
const NOTE: &str = "METADATA_AWAY";
/// In the state directory.
const FILE: &str = "tidepool-node.json";
/// Goes up when [`NodeFacts`] changes.
const VERSION: u32 = 2;

/// The contents of the file.
#[derive(Debug, Serialize, Deserialize)]
struct FactsFile {
    version: u32,
    /// Facts of another boot are not used: a machine made from this one's disk has a boot of its own.
    boot: BootId,
    facts: NodeFacts,
}

/// Learns the node's facts and keeps them for later starts.
#[derive(Debug)]
pub(crate) struct Identity {
    imds: Imds,
    boot: BootId,
    file: PathBuf,
}

/// The facts, and where they come from.
#[derive(Debug)]
pub(crate) struct Learnt {
    pub(crate) facts: NodeFacts,
    pub(crate) source: FactsSource,
}

/// Where the facts of a start come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FactsSource {
    /// The metadata service; no earlier start in this boot has kept an answer.
    FirstAnswer,
    /// The metadata service; an earlier start in this boot has kept an answer too.
    LaterAnswer,
    /// What an earlier start in this boot has kept; the service does not answer.
    Kept,
}

impl Identity {
    pub(crate) fn new(boot: BootId, state_directory: &Path) -> Self {
        Self { imds: Imds::connect(), boot, file: state_directory.join(FILE) }
    }

    /// The node's facts. Without kept facts this waits until the service answers, since there is
    /// nothing to serve before.
    pub(crate) async fn learn(&self) -> Learnt {
        let Some(facts) = self.kept() else {
            let facts = self.answer().await;
            self.keep(&facts);
            return Learnt { facts, source: FactsSource::FirstAnswer };
        };
        let why = match tokio::time::timeout(TIMEOUT, self.imds.node_facts()).await {
            Ok(Ok(answer)) => {
                if answer != facts {
                    self.keep(&answer);
                }
                return Learnt { facts: answer, source: FactsSource::LaterAnswer };
            }
            Ok(Err(fault)) => error_chain(&fault),
            Err(_late) => format!("no answer within {TIMEOUT:?}"),
        };
        let file = self.file.display();
        warn!(why, %file, "metadata service is away; starting with kept facts");
        Learnt { facts, source: FactsSource::Kept }
    }

    /// Compares `facts`, which an earlier start has kept, with the service's answer, once there is
    /// one. Ready only if they are another instance's.
    pub(crate) async fn refuted(&self, facts: &NodeFacts, notes: &Notes) -> anyhow::Error {
        let away = "the metadata service does not answer; its last answer in this boot is in use";
        notes.say(NOTE, away.to_owned());
        let answer = self.answer().await;
        notes.settle(NOTE);
        self.keep(&answer);
        if answer.instance != facts.instance {
            return anyhow!(
                "{} names instance {}, but the metadata service names {}; the next start uses the \
                 service's answer",
                self.file.display(),
                facts.instance,
                answer.instance,
            );
        }
        if answer == *facts {
            info!("metadata service is back and confirms the kept facts");
        } else {
            warn!(?answer, in_force = ?facts, "node's facts have changed; restart to use them");
        }
        std::future::pending().await
    }

    async fn answer(&self) -> NodeFacts {
        retry_until_answer("who this is", async || self.imds.node_facts().await).await
    }

    /// The service's last answer in this boot.
    fn kept(&self) -> Option<NodeFacts> {
        let kept = match checked_file::read::<FactsFile>(&self.file) {
            Ok(kept) => kept?,
            Err(fault) => {
                warn!(fault = format!("{fault:#}"), "kept facts of the node cannot be used");
                return None;
            }
        };
        ((kept.version, &kept.boot) == (VERSION, &self.boot)).then_some(kept.facts)
    }

    fn keep(&self, facts: &NodeFacts) {
        let kept = FactsFile { version: VERSION, boot: self.boot.clone(), facts: facts.clone() };
        if let Err(fault) = checked_file::write(&self.file, &kept) {
            warn!(fault = format!("{fault:#}"), "node's facts cannot be kept for the next start");
        }
    }
}

/// The metadata service's answer to `ask`, which is repeated until there is one. `what` is the
/// question, in a few words for the log.
pub(crate) async fn retry_until_answer<T, E: std::error::Error>(
    what: &str,
    ask: impl AsyncFn() -> Result<T, E>,
) -> T {
    let mut pause = FIRST_RETRY;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(fault) => {
                let fault = error_chain(&fault);
                warn!(what, fault, retry_in = ?pause, "no answer from the metadata service");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_RETRY);
    }
}

#[cfg(test)]
mod stale;
#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> NodeFacts {
        serde_json::from_value(serde_json::json!({
            "instance": "i-0123456789abcdef0", "instance_type": "m5.large",
            "region": "us-east-1", "availability_zone": "us-east-1a",
            "vpc": "vpc-1", "primary_mac": "02:00:00:00:00:01",
        }))
        .unwrap()
    }

    #[test]
    fn kept_facts_of_another_boot_or_version_are_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let identity = |boot: &str| Identity::new(BootId(boot.to_owned()), directory.path());
        assert_eq!(identity("a").kept(), None);
        identity("a").keep(&facts());
        assert_eq!(identity("a").kept(), Some(facts()));
        assert_eq!(identity("b").kept(), None);
        let boot = BootId("a".to_owned());
        let newer = FactsFile { version: VERSION + 1, boot, facts: facts() };
        checked_file::write(&directory.path().join(FILE), &newer).unwrap();
        assert_eq!(identity("a").kept(), None);
        std::fs::write(directory.path().join(FILE), "[\"00000000\",{}]\n").unwrap();
        assert_eq!(identity("a").kept(), None);
    }
}

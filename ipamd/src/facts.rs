//! Who and where this node is: by the metadata service's word, or, where that does not answer, by
//! what it said to an earlier start in the same boot. It must not know what the facts are for.

use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::{Notes, checked_file, error_chain};
use anyhow::anyhow;
use aws::{Imds, NodeFacts};
use ipam::id::BootId;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

/// How long the service may hold up the start where there is something to go by. It answers all
/// questions within some milliseconds.
const PATIENCE: Duration = Duration::from_millis(300);
/// Between two attempts to learn from it: doubled from the first to the last.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// What `ipamd status` calls it.
const MATTER: &str = "METADATA_AWAY";
/// In the state directory.
const FILE: &str = "tidepool-node.json";
/// Goes up when [`NodeFacts`] changes.
const VERSION: u32 = 2;

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    version: u32,
    /// A machine that is made from this one's disk boots anew.
    boot: BootId,
    facts: NodeFacts,
}

/// Learns who the node is, and keeps it.
#[derive(Debug)]
pub(crate) struct Identity {
    imds: Imds,
    boot: BootId,
    file: PathBuf,
}

/// The facts, and by whose word.
#[derive(Debug)]
pub(crate) struct Learnt {
    pub(crate) facts: NodeFacts,
    pub(crate) word: Word,
}

/// Who has told what a start goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// The metadata service, for the first time in this boot.
    First,
    /// The metadata service, as an earlier start before.
    Again,
    /// An earlier start.
    Kept,
}

impl Identity {
    pub(crate) fn new(boot: BootId, state_directory: &Path) -> Self {
        Self { imds: Imds::connect(), boot, file: state_directory.join(FILE) }
    }

    /// The node's facts. Waits as long as it takes where nothing is kept: without them there is
    /// nothing to serve.
    pub(crate) async fn learn(&self) -> Learnt {
        let Some(facts) = self.kept() else {
            let facts = self.until_told().await;
            self.keep(&facts);
            return Learnt { facts, word: Word::First };
        };
        let why = match tokio::time::timeout(PATIENCE, self.imds.node_facts()).await {
            Ok(Ok(told)) => {
                if told != facts {
                    self.keep(&told);
                }
                return Learnt { facts: told, word: Word::Again };
            }
            Ok(Err(fault)) => error_chain(&fault),
            Err(_late) => format!("it does not answer within {PATIENCE:?}"),
        };
        let file = self.file.display();
        warn!(why, %file, "metadata service is away; starting with what it said before");
        Learnt { facts, word: Word::Kept }
    }

    /// Sees that `facts`, with which the daemon has started untold, are this node's. Ready only if
    /// they are another's.
    pub(crate) async fn belied(&self, facts: &NodeFacts, notes: &Notes) -> anyhow::Error {
        let away = "the metadata service does not answer; what it said before in this boot holds";
        notes.say(MATTER, away.to_owned());
        let told = self.until_told().await;
        notes.settle(MATTER);
        self.keep(&told);
        if told.instance != facts.instance {
            return anyhow!(
                "{} says that this is {}, but it is {} by the metadata service's word; the next \
                 start goes by that",
                self.file.display(),
                facts.instance,
                told.instance,
            );
        }
        if told == *facts {
            info!("metadata service is back and confirms the node's facts");
        } else {
            warn!(?told, in_force = ?facts, "node's facts have changed; restart to use them");
        }
        std::future::pending().await
    }

    async fn until_told(&self) -> NodeFacts {
        until_learnt("who this is", async || self.imds.node_facts().await).await
    }

    /// What the service said in this boot.
    fn kept(&self) -> Option<NodeFacts> {
        let kept = match checked_file::read::<Kept>(&self.file) {
            Ok(kept) => kept?,
            Err(fault) => {
                warn!(fault = format!("{fault:#}"), "kept facts of the node cannot be used");
                return None;
            }
        };
        ((kept.version, &kept.boot) == (VERSION, &self.boot)).then_some(kept.facts)
    }

    fn keep(&self, facts: &NodeFacts) {
        let kept = Kept { version: VERSION, boot: self.boot.clone(), facts: facts.clone() };
        if let Err(fault) = checked_file::write(&self.file, &kept) {
            warn!(fault = format!("{fault:#}"), "node's facts cannot be kept for the next start");
        }
    }
}

/// What `ask` answers at last.
pub(crate) async fn until_learnt<T, E: std::error::Error>(
    what: &str,
    ask: impl AsyncFn() -> Result<T, E>,
) -> T {
    let mut pause = FIRST_RETRY;
    loop {
        match ask().await {
            Ok(learnt) => return learnt,
            Err(fault) => {
                let fault = error_chain(&fault);
                warn!(what, fault, again_in = ?pause, "metadata service does not tell");
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
    fn only_what_was_kept_in_this_boot_by_this_version_is_used() {
        let directory = tempfile::tempdir().unwrap();
        let identity = |boot: &str| Identity::new(BootId(boot.to_owned()), directory.path());
        assert_eq!(identity("a").kept(), None);
        identity("a").keep(&facts());
        assert_eq!(identity("a").kept(), Some(facts()));
        assert_eq!(identity("b").kept(), None);
        let boot = BootId("a".to_owned());
        let newer = Kept { version: VERSION + 1, boot, facts: facts() };
        checked_file::write(&directory.path().join(FILE), &newer).unwrap();
        assert_eq!(identity("a").kept(), None);
        std::fs::write(directory.path().join(FILE), "[\"00000000\",{}]\n").unwrap();
        assert_eq!(identity("a").kept(), None);
    }
}

//! What the daemon takes from the API server, and what it reports there: the ENIConfig of this node, settings, and events. The
//! last ENIConfig is kept on disk, so that a start without the API server knows it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use agent::{Inlet, Notes, checked_file, error_chain};
use ipam::call::{CallError, Ec2Call};
use ipam::eni_config::EniConfigAnswer;
use ipam::event::{Event, Refusal};
use ipam::id::Pod;
use ipam::policy::Placement;
use ipam::trouble::{Trouble, trouble};
use k8s::{About, Access, Cluster, News, Queue, Report, Reports, Wanted, send_events};
use serde::{Deserialize, Serialize};
use settings::{ApiServer, ConfigMaps, Settings};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

/// The file of the last answer, in the state directory.
const FILE: &str = "tidepool-eni-config.json";
const VERSION: u32 = 1;
/// How long the head of an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long to wait before a client is made again that could not be made, or that has panicked.
const PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize, Deserialize)]
struct EniConfigFile {
    version: u32,
    answer: EniConfigAnswer,
}

/// The ENIConfig that an earlier run has kept in `state_directory`, if that can be used.
pub(crate) fn kept_eni_config(state_directory: &Path) -> Option<EniConfigAnswer> {
    match checked_file::read::<EniConfigFile>(&state_directory.join(FILE)) {
        Ok(kept) => kept.filter(|kept| kept.version == VERSION).map(|kept| kept.answer),
        Err(fault) => {
            warn!(fault = format!("{fault:#}"), "kept ENIConfig cannot be used");
            None
        }
    }
}

/// Where new ENIs go, as far as an earlier run has kept it, for people.
pub(crate) fn eni_config_text(state_directory: &Path) -> String {
    match kept_eni_config(state_directory) {
        Some(EniConfigAnswer::Found(config)) => config.to_string(),
        Some(EniConfigAnswer::Missing { name }) => format!("there is no ENIConfig {name}"),
        Some(EniConfigAnswer::Unusable { name, why }) => {
            format!("ENIConfig {name} cannot be used: {why}")
        }
        None => "where the node's ENIConfig says; no answer of the API server is kept".to_owned(),
    }
}

/// What other parts of the daemon hand to the API server.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// Pods that have got no address.
    pub(crate) refusals: mpsc::Receiver<(Pod, Refusal)>,
    /// The queue of all reports, and its other end.
    pub(crate) reports: (Reports, Queue),
    /// Who takes the cluster's settings. It gets the newest ones.
    pub(crate) maps: watch::Sender<Option<ConfigMaps>>,
}

/// Works at the API server for as long as the daemon runs, if the settings want that. Whatever the API server does, the
/// daemon goes on.
pub(crate) async fn attend(settings: Settings, outbox: Outbox, inlet: Inlet, notes: Notes) {
    let (url, service_account, node) = match settings.api_server {
        ApiServer::Used { url, service_account, node_name } => (url, service_account, node_name),
        ApiServer::Unused(why) => {
            info!(why, "the API server is not used");
            return;
        }
    };
    let access =
        Access { url: url.as_str().to_owned(), service_account, answer_within: ANSWER_WITHIN };
    info!(?access, node, "working at the API server");
    let Outbox { refusals, reports: (reports, queue), maps } = outbox;
    let desk = Desk {
        file: settings.state_directory.join(FILE),
        last: None,
        faults: Faults::default(),
        inlet,
        notes,
        maps,
    };
    let keys = settings.eni_config_keys;
    let wanted = Wanted {
        eni_config: (settings.placement == Placement::ByEniConfig).then_some(keys),
        settings: settings.settings_maps.map(|maps| k8s::SettingsMaps {
            namespace: maps.namespace,
            name: maps.name,
            group_label: maps.group_label,
        }),
    };
    let following = follow(&wanted, desk.clone(), &access, &node);
    // Without a receiver, whoever hands something in drops it.
    let queue = settings.events.then_some(queue);
    tokio::join!(
        following,
        report_refusals(refusals, reports),
        report(queue, desk, &access, &node)
    );
}

/// Follows the objects that are wanted.
async fn follow(wanted: &Wanted, mut desk: Desk, access: &Access, node: &str) {
    if wanted.eni_config.is_none() && wanted.settings.is_none() {
        return;
    }
    if wanted.eni_config.is_some() {
        desk.recall();
    }
    loop {
        let (mut clerk, access) = (desk.clone(), access.clone());
        let (node, wanted) = (node.to_owned(), wanted.clone());
        let work = tokio::spawn(async move {
            if let Some(cluster) = clerk.connect(&access) {
                match k8s::follow(&cluster, &node, &wanted, |news| clerk.take(news)).await {}
            }
        });
        pause_after(work).await;
    }
}

/// Sends the reports of `queue` as events, if they are wanted.
async fn report(queue: Option<Queue>, desk: Desk, access: &Access, node: &str) {
    let Some(queue) = queue else { return };
    let queue = Arc::new(Mutex::new(queue));
    loop {
        let (mut clerk, access) = (desk.clone(), access.clone());
        let (node, queue) = (node.to_owned(), Arc::clone(&queue));
        let work = tokio::spawn(async move {
            let mut queue = queue.lock().await;
            if let Some(cluster) = clerk.connect(&access) {
                match send_events(&cluster, &node, &mut queue, |news| clerk.take(news)).await {}
            }
        });
        pause_after(work).await;
    }
}

/// Makes a report of each pod without an address.
async fn report_refusals(mut refusals: mpsc::Receiver<(Pod, Refusal)>, reports: Reports) {
    while let Some((pod, refusal)) = refusals.recv().await {
        let Pod { namespace, name, uid } = pod;
        reports.tell(Report {
            about: About::Pod { namespace, name, uid },
            reason: refusal.code.as_str(),
            action: "ADD",
            note: refusal.message,
        });
    }
}

/// Reports a failed call, if somebody must act.
pub(crate) fn report_call(call: &Ec2Call, fault: &CallError, reports: &Reports) {
    if let Some(Trouble { code, action, note }) = trouble(call, fault) {
        reports.tell(Report { about: About::Node, reason: code.as_str(), action, note });
    }
}

/// Waits for the end of work that ends only for want of a client, or by a panic. Then waits before it is taken up again.
async fn pause_after(work: JoinHandle<()>) {
    if let Err(panic) = work.await {
        error!(%panic, "the client of the API server has panicked; it is made again");
    }
    tokio::time::sleep(PAUSE).await;
}

/// Where news of the API server go.
#[derive(Debug, Clone)]
struct Desk {
    file: PathBuf,
    last: Option<EniConfigAnswer>,
    faults: Faults,
    inlet: Inlet,
    notes: Notes,
    maps: watch::Sender<Option<ConfigMaps>>,
}

/// What fails at present, each part with the reason. Clones share it, so that each cause is said once.
#[derive(Debug, Clone, Default)]
struct Faults(Arc<std::sync::Mutex<BTreeMap<&'static str, String>>>);

impl Faults {
    /// Whether `fault` is another one than before.
    fn note(&self, of: &'static str, fault: &str) -> bool {
        let before = self.lock().insert(of, fault.to_owned());
        before.as_deref() != Some(fault)
    }

    /// Whether there was one.
    fn settle(&self, of: &'static str) -> bool {
        self.lock().remove(of).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk {
    /// A client for the API server; `None` if there can be none at present.
    fn connect(&mut self, access: &Access) -> Option<Cluster> {
        match Cluster::connect(access) {
            Ok(cluster) => {
                self.take(News::Health { of: "client", fault: None });
                Some(cluster)
            }
            Err(fault) => {
                self.take(News::Health { of: "client", fault: Some(error_chain(&fault)) });
                None
            }
        }
    }

    /// Takes the answer that an earlier run has kept.
    fn recall(&mut self) {
        let directory = self.file.parent().unwrap_or_else(|| Path::new("/"));
        self.last = kept_eni_config(directory);
        if let Some(answer) = self.last.clone() {
            info!(?answer, "ENIConfig as an earlier run has kept it");
            self.inlet.send(Event::EniConfig(answer));
        }
    }

    fn take(&mut self, news: News) {
        match news {
            News::EniConfig(answer) => self.take_answer(answer),
            News::Settings { cluster, group } => {
                self.maps.send_replace(Some(ConfigMaps { cluster, group }));
            }
            News::Health { of, fault: Some(fault) } => {
                if self.faults.note(of, &fault) {
                    warn!(of, fault, "no answer from the API server; what it said last holds");
                    let line = format!("not at the API server; pods are served: {fault}");
                    self.notes.say(of, line);
                }
            }
            News::Health { of, fault: None } => {
                if self.faults.settle(of) {
                    info!(of, "the API server answers again");
                    self.notes.settle(of);
                }
            }
        }
    }

    fn take_answer(&mut self, answer: EniConfigAnswer) {
        if self.last.as_ref() == Some(&answer) {
            return;
        }
        let before = self.last.replace(answer.clone());
        match &answer {
            EniConfigAnswer::Found(config) => {
                info!(%config, ?before, "ENIConfig has changed; new ENIs follow it");
            }
            EniConfigAnswer::Missing { name } => {
                warn!(name, ?before, "there is no such ENIConfig; no new ENI is created");
            }
            EniConfigAnswer::Unusable { name, why } => {
                warn!(name, why, ?before, "ENIConfig cannot be used; no new ENI is created");
            }
        }
        let kept = EniConfigFile { version: VERSION, answer: answer.clone() };
        // The disk may be slow, and other tasks run on this thread.
        let written = tokio::task::block_in_place(|| checked_file::write(&self.file, &kept));
        if let Err(fault) = written {
            warn!(fault = format!("{fault:#}"), "ENIConfig cannot be kept for the next start");
        }
        self.inlet.send(Event::EniConfig(answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(name: &str) -> EniConfigAnswer {
        EniConfigAnswer::Missing { name: name.to_owned() }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn changed_answer_is_kept_for_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let (inlet, _inbox) = agent::channel();
        let file = directory.path().join(FILE);
        let (faults, notes) = (Faults::default(), Notes::default());
        let (maps, _) = watch::channel(None);
        let mut desk = Desk { file, last: None, faults, inlet, notes, maps };
        assert_eq!(kept_eni_config(directory.path()), None);
        for name in ["a", "b"] {
            desk.take(News::EniConfig(missing(name)));
            assert_eq!(kept_eni_config(directory.path()), Some(missing(name)));
        }
        // An answer that has not changed is not written again.
        std::fs::remove_file(&desk.file).unwrap();
        desk.take(News::EniConfig(missing("b")));
        assert_eq!(kept_eni_config(directory.path()), None);
        std::fs::write(&desk.file, "[\"00000000\",{}]\n").unwrap();
        assert_eq!(kept_eni_config(directory.path()), None);
    }
}

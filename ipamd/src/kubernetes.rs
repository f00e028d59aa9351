//! What the daemon takes from the API server, and what it reports there: the ENIConfig of this node, whether it is cordoned,
//! settings, pods that are about to start, events, and what the Node and its pods show. The last ENIConfig is kept on disk, so that a start without
//! the API server knows it.

mod node;
mod permission;
mod pod_annotations;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use agent::{Inlet, Notes, PodNews, checked_file, error_chain};
use ipam::call::{CallError, Ec2Call};
use ipam::eni_config::EniConfigAnswer;
use ipam::event::Event;
use ipam::id::Pod;
use ipam::policy::Placement;
use ipam::trouble::{Trouble, trouble};
use k8s::{About, Access, Cluster, Fault, News, Queue, Report, Reports, Wanted, send_events};
use serde::{Deserialize, Serialize};
use settings::{ApiServer, ConfigMaps, Settings};
use tokio::sync::{Mutex, mpsc, watch};
use tracing::{error, info, warn};

use self::node::Herald;
use self::pod_annotations::Pending;

/// The file of the last answer, in the state directory.
const FILE: &str = "tidepool-eni-config.json";
const VERSION: u32 = 1;
/// How long the head of an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long one watch lasts. So a connection that somebody cuts without a word is noticed after about a minute. A watch of a
/// node's own objects is answered from the API server's cache.
const WATCH_FOR: Duration = Duration::from_secs(60);
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
    /// What pods have got, or not got.
    pub(crate) pod_news: mpsc::Receiver<(Pod, PodNews)>,
    /// The queue of all reports, and its other end.
    pub(crate) reports: (Reports, Queue),
    /// Who takes the cluster's settings. It gets the newest ones.
    pub(crate) maps: watch::Sender<Option<ConfigMaps>>,
}

/// Works at the API server for as long as the daemon runs, if the settings want that. Whatever the API server does, the
/// daemon goes on.
pub(crate) async fn attend(settings: Settings, outbox: Outbox, inlet: Inlet, notes: Notes) {
    let (url, service_account, node) = match settings.api_server.clone() {
        ApiServer::Used { url, service_account, node_name } => (url, service_account, node_name),
        ApiServer::Unused(why) => {
            info!(why, "the API server is not used");
            return;
        }
    };
    let access = Access {
        url: url.as_str().to_owned(),
        service_account,
        answer_within: ANSWER_WITHIN,
        watch_for: WATCH_FOR,
    };
    info!(?access, node, "working at the API server");
    let Outbox { pod_news, reports: (reports, queue), maps } = outbox;
    let desk = Desk {
        file: settings.state_directory.join(FILE),
        last: None,
        faults: Faults::default(),
        inlet,
        notes,
        maps,
        reports: reports.clone(),
        may_be_forbidden: permission::may_be_missing(&settings),
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
    let on_node = settings.on_node;
    let pending = Pending::default();
    let annotated = on_node.pod_annotations.then(|| pending.clone());
    let office = Office { desk, access, node };
    // Without a receiver, whoever hands something in drops it.
    let queue = settings.events.then_some(queue);
    tokio::join!(
        follow(&office, wanted),
        expect_pods(&office, on_node.early_demand),
        node::keep(&office, Herald::new(&on_node, settings.socket)),
        pod_annotations::keep(&office, annotated.clone()),
        pass_on(pod_news, reports, annotated),
        report(&office, queue),
    );
}

/// What each part of the work at the API server needs.
#[derive(Debug, Clone)]
struct Office {
    desk: Desk,
    access: Access,
    node: String,
}

impl Office {
    /// Works with a client for ever. Begins again after a pause if there can be no client, or if the work panics.
    async fn work<F>(&self, work: impl Fn(Cluster, String, Desk) -> F) -> Infallible
    where
        F: Future<Output = Infallible> + Send + 'static,
    {
        loop {
            let Self { mut desk, access, node } = self.clone();
            if let Some(cluster) = desk.connect(&access) {
                let working = tokio::spawn(work(cluster, node, desk));
                match working.await {
                    Ok(never) => match never {},
                    Err(panic) => {
                        error!(%panic, "the client of the API server has panicked; it is made again");
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Follows the Node and the objects that are wanted.
async fn follow(office: &Office, wanted: Wanted) {
    let mut office = office.clone();
    if wanted.eni_config.is_some() {
        office.desk.recall();
    }
    let work = |cluster: Cluster, node: String, mut desk: Desk| {
        let wanted = wanted.clone();
        async move { k8s::follow(&cluster, &node, &wanted, |news| desk.take(news)).await }
    };
    match office.work(work).await {}
}

/// Follows the node's pods, if they are wanted.
async fn expect_pods(office: &Office, is_wanted: bool) {
    if is_wanted {
        let work = |cluster: Cluster, node: String, mut desk: Desk| async move {
            k8s::follow_pods(&cluster, &node, |news| desk.take(news)).await
        };
        match office.work(work).await {}
    }
}

/// Sends the reports of `queue` as events, if they are wanted.
async fn report(office: &Office, queue: Option<Queue>) {
    let Some(queue) = queue else { return };
    let queue = Arc::new(Mutex::new(queue));
    let work = |cluster: Cluster, node: String, mut desk: Desk| {
        let queue = Arc::clone(&queue);
        async move {
            let mut queue = queue.lock().await;
            send_events(&cluster, &node, &mut queue, |news| desk.take(news)).await
        }
    };
    match office.work(work).await {}
}

/// Makes a report of each pod without an address, and notes the others if they are annotated.
async fn pass_on(
    mut news: mpsc::Receiver<(Pod, PodNews)>,
    reports: Reports,
    annotated: Option<Pending>,
) {
    while let Some((pod, news)) = news.recv().await {
        match (news, &annotated) {
            (PodNews::Refused(refusal), _) => {
                let Pod { namespace, name, uid } = pod;
                reports.tell(Report {
                    about: About::Pod { namespace, name, uid },
                    reason: refusal.code.as_str(),
                    action: "ADD",
                    note: refusal.message,
                });
            }
            (PodNews::Granted(addresses), Some(pending)) => pending.granted(pod, &addresses),
            (PodNews::Released(addresses), Some(pending)) => pending.released(pod, &addresses),
            (PodNews::Granted(_) | PodNews::Released(_), None) => {}
        }
    }
}

/// Reports a failed call, if somebody must act.
pub(crate) fn report_call(call: &Ec2Call, fault: &CallError, reports: &Reports) {
    if let Some(Trouble { code, action, note }) = trouble(call, fault) {
        reports.tell(Report { about: About::Node, reason: code.as_str(), action, note });
    }
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
    reports: Reports,
    /// The parts that nobody has asked for. The permission for them may be missing.
    may_be_forbidden: BTreeSet<&'static str>,
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
                self.take(News::Health { of: "client", fault: Some(error_chain(&fault).into()) });
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
            News::Cordoned(is_cordoned) => {
                info!(is_cordoned, "what the Node shows of its cordon");
                self.inlet.send(Event::Cordoned(is_cordoned));
            }
            News::PodsExpected(pods) => self.inlet.send(Event::PodsExpected(pods)),
            News::Health { of, fault: Some(fault) } => self.note(of, &fault),
            News::Health { of, fault: None } => {
                if self.faults.settle(of) {
                    info!(of, "the API server answers again");
                    self.notes.settle(of);
                }
            }
        }
    }

    /// Notes a fault in the log and in `ipamd status`. A permission that is missing is named, also in an event, unless nobody
    /// has asked for what needs it.
    fn note(&self, of: &'static str, Fault { why, is_forbidden }: &Fault) {
        if !self.faults.note(of, why) {
            return;
        }
        if *is_forbidden && self.may_be_forbidden.contains(of) {
            info!(of, fault = why, "not permitted at the API server, and not needed");
            return self.notes.settle(of);
        }
        warn!(of, fault = why, "no answer from the API server; what it said last holds");
        let rule = permission::rule(of).filter(|_| *is_forbidden);
        let line = format!("not at the API server; pods are served: {why}");
        let Some(rule) = rule else { return self.notes.say(of, line) };
        let note = format!("{of}: the ClusterRole of ipamd lacks {rule}");
        self.reports.tell(Report {
            about: About::Node,
            reason: permission::REASON,
            action: "Request",
            note: note.clone(),
        });
        self.notes.say(of, format!("{line}; {note}"));
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
        let (reports, _queue) = Reports::queue();
        let may_be_forbidden = BTreeSet::new();
        let mut desk =
            Desk { file, last: None, faults, inlet, notes, maps, reports, may_be_forbidden };
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

//! The ENIConfig of a node as it is followed through an API server that behaves, and one that does not.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fmt::Write as _;
use std::time::Duration;

use ipam::eni_config::{EniConfigAnswer, EniConfigKeys};
use k8s::{Access, Cluster, News, SettingsMaps, Wanted, follow};
use kube_sim::{KubeSim, Mood};
use serde_json::{Value, json};
use tokio::sync::mpsc;

const NODES: &str = "/api/v1/nodes";
const MAPS: &str = "/api/v1/namespaces/kube-system/configmaps";
const CONFIGS: &str = "/apis/crd.k8s.amazonaws.com/v1alpha1/eniconfigs";
/// Longer than a back-off of some failures.
const PATIENCE: Duration = Duration::from_secs(30);

/// A follower of the ENIConfig of node `n1`, and its server.
struct Following {
    sim: KubeSim,
    news: mpsc::UnboundedReceiver<News>,
    seen: Vec<News>,
}

impl Following {
    async fn start(sim: KubeSim) -> Self {
        let address = sim.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let access = Access {
            url: format!("http://{address}"),
            service_account: "/none".into(),
            answer_within: Duration::from_secs(1),
            watch_for: Duration::from_secs(2),
        };
        let cluster = Cluster::connect(&access).unwrap();
        let keys = EniConfigKeys { annotation: "an/pods".to_owned(), label: "zone".to_owned() };
        let maps = SettingsMaps {
            namespace: "kube-system".to_owned(),
            name: "settings".to_owned(),
            group_label: "group".to_owned(),
        };
        let wanted = Wanted { eni_config: Some(keys), settings: Some(maps) };
        let (tell, news) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let tell = |news| drop(tell.send(news));
            match follow(&cluster, "n1", &wanted, tell).await {}
        });
        Self { sim, news, seen: Vec::new() }
    }

    /// Waits for news that fit.
    async fn until(&mut self, what: &str, fits: impl Fn(&News) -> bool) {
        let waiting = async {
            loop {
                let news = self.news.recv().await.unwrap();
                self.seen.push(news.clone());
                if fits(&news) {
                    return;
                }
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            let mut state = String::new();
            for news in &self.seen {
                writeln!(state, "{news:?}").unwrap();
            }
            panic!(
                "no {what} within {PATIENCE:?}; requests {:#?}; news:\n{state}",
                self.sim.requests()
            );
        }
    }

    async fn until_subnet(&mut self, subnet: &str) {
        let names = |news: &News| match news {
            News::EniConfig(EniConfigAnswer::Found(config)) => {
                config.subnets.iter().any(|id| id.as_str() == subnet)
            }
            _ => false,
        };
        self.until(subnet, names).await;
    }

    async fn until_missing(&mut self, name: &str) {
        let wanted = News::EniConfig(EniConfigAnswer::Missing { name: name.to_owned() });
        self.until("missing ENIConfig", |news| *news == wanted).await;
    }

    async fn until_settings(&mut self, of_cluster: &str, of_group: &str) {
        let map = |text: &str| {
            let set = text.split_whitespace().filter_map(|set| set.split_once('='));
            set.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        let wanted = News::Settings { cluster: map(of_cluster), group: map(of_group) };
        self.until("settings", |news| *news == wanted).await;
    }

    async fn until_fault(&mut self, text: &str) {
        let says = |news: &News| match news {
            News::Health { fault: Some(fault), .. } => fault.why.contains(text),
            _ => false,
        };
        self.until(text, says).await;
    }
}

fn node(annotations: Value) -> Value {
    json!({
        "kind": "Node", "apiVersion": "v1",
        "metadata": { "name": "n1", "labels": { "zone": "a" }, "annotations": annotations },
    })
}

fn config(name: &str, subnet: &str) -> Value {
    json!({
        "kind": "ENIConfig", "apiVersion": "crd.k8s.amazonaws.com/v1alpha1",
        "metadata": { "name": name }, "spec": { "subnet": subnet },
    })
}

fn served() -> KubeSim {
    let sim = KubeSim::default();
    sim.put(NODES, node(json!({})));
    sim.put(NODES, json!({ "kind": "Node", "metadata": { "name": "n2" } }));
    sim.put(CONFIGS, config("a", "subnet-a"));
    sim.put(CONFIGS, config("b", "subnet-b"));
    sim
}

#[tokio::test]
async fn eni_config_is_that_which_the_node_names() {
    let mut following = Following::start(served()).await;
    following.until_subnet("subnet-a").await;
    following.sim.put(CONFIGS, config("a", "subnet-c"));
    following.until_subnet("subnet-c").await;
    following.sim.put(NODES, node(json!({ "an/pods": "b" })));
    following.until_subnet("subnet-b").await;
    following.sim.delete(CONFIGS, "b");
    following.until_missing("b").await;
    following.sim.put(CONFIGS, config("b", "subnet-d"));
    following.until_subnet("subnet-d").await;
    following.sim.put(NODES, node(json!({ "an/pods": "a,b" })));
    following.until_missing("a,b").await;
}

fn map(name: &str, data: Value) -> Value {
    json!({ "kind": "ConfigMap", "apiVersion": "v1", "metadata": { "name": name }, "data": data })
}

#[tokio::test]
async fn settings_are_those_of_cluster_and_group() {
    let mut following = Following::start(served()).await;
    following.until_settings("", "").await;
    following.sim.put(MAPS, map("settings", json!({ "A": "1" })));
    following.until_settings("A=1", "").await;
    let mut node = node(json!({}));
    node["metadata"]["labels"]["group"] = json!("gpu");
    following.sim.put(MAPS, map("settings-gpu", json!({ "B": "2" })));
    following.sim.put(NODES, node.clone());
    following.until_settings("A=1", "B=2").await;
    following.sim.delete(MAPS, "settings");
    following.until_settings("", "B=2").await;
    node["metadata"]["labels"]["group"] = json!("No_Name");
    following.sim.put(NODES, node);
    following.until_settings("", "").await;
}

/// Lists and watches name this node and its ENIConfig, so the answers do not grow with the cluster.
#[tokio::test]
async fn requests_select_this_node_alone() {
    let mut following = Following::start(served()).await;
    following.until_subnet("subnet-a").await;
    let requests = following.sim.requests();
    assert!(
        requests.iter().all(|it| it.contains("fieldSelector=metadata.name%3D")),
        "{requests:#?}"
    );
    let of_other = |it: &&String| it.contains("n2") || it.contains("%3Db");
    assert_eq!(requests.iter().find(of_other), None);
}

#[tokio::test]
async fn node_that_is_not_there_is_named() {
    let sim = KubeSim::default();
    let mut following = Following::start(sim).await;
    following.until_fault("there is no Node n1").await;
    following.sim.put(NODES, node(json!({})));
    following.until_missing("a").await;
}

/// Each trouble is named, and everything goes on afterwards by itself.
#[tokio::test]
async fn trouble_is_named_and_passes() {
    for (mood, text) in [
        (Mood::Refusing(401), "Unauthorized"),
        (Mood::Refusing(403), "Forbidden"),
        (Mood::Refusing(500), "refuses"),
        (Mood::Garbled, "initial object list"),
    ] {
        let sim = served();
        sim.set_mood(mood);
        let mut following = Following::start(sim).await;
        following.until_fault(text).await;
        following.sim.set_mood(Mood::Well);
        following.until_subnet("subnet-a").await;
    }
}

#[tokio::test]
async fn watch_goes_on_after_trouble_in_its_midst() {
    for mood in [
        Mood::Refusing(401),
        Mood::Refusing(503),
        Mood::Forgetful,
        Mood::Garbled,
        Mood::Slow(Duration::from_millis(300)),
    ] {
        let mut following = Following::start(served()).await;
        following.until_subnet("subnet-a").await;
        following.sim.set_mood(mood);
        following.sim.put(CONFIGS, config("a", "subnet-c"));
        if matches!(mood, Mood::Refusing(_) | Mood::Garbled) {
            following.until_fault("").await;
            following.sim.set_mood(Mood::Well);
        }
        following.until_subnet("subnet-c").await;
    }
}

/// A fault that is over is no fault any more, though the object has not changed meanwhile.
#[tokio::test]
async fn end_of_trouble_is_news_though_nothing_changes() {
    let mut following = Following::start(served()).await;
    following.until_subnet("subnet-a").await;
    following.sim.set_mood(Mood::Refusing(503));
    let of_config = |news: &News, is_well: bool| match news {
        News::Health { of: "its ENIConfig", fault } => fault.is_none() == is_well,
        _ => false,
    };
    following.until("fault", |news| of_config(news, false)).await;
    following.sim.set_mood(Mood::Well);
    following.until("end of the fault", |news| of_config(news, true)).await;
}

/// Somebody cuts the connections of the watches without a word, as a firewall does.
#[tokio::test]
async fn connection_that_is_cut_in_silence_is_given_up() {
    let mut following = Following::start(served()).await;
    following.until_subnet("subnet-a").await;
    following.sim.set_mood(Mood::Cut);
    following.sim.put(CONFIGS, config("a", "subnet-c"));
    following.until_subnet("subnet-c").await;
    let faults = following.seen.iter();
    let faults = faults.filter(|news| matches!(news, News::Health { fault: Some(_), .. }));
    assert_eq!(faults.count(), 0, "it goes on without a fault: {:?}", following.seen);
}

/// The API server takes connections and never answers, at first or later.
#[tokio::test]
async fn silent_server_is_named_and_followed_later() {
    let sim = served();
    sim.set_mood(Mood::Silent);
    let mut following = Following::start(sim).await;
    following.until_fault("timed out").await;
    following.sim.set_mood(Mood::Well);
    following.until_subnet("subnet-a").await;
    following.sim.set_mood(Mood::Silent);
    following.sim.put(CONFIGS, config("a", "subnet-c"));
    following.until_fault("timed out").await;
    following.sim.set_mood(Mood::Well);
    following.until_subnet("subnet-c").await;
}

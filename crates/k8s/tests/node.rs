//! The pods of a node, and what the daemon changes at the API server.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::BTreeMap;
use std::time::Duration;

use ipam::id::Pod;
use k8s::{Access, Cluster, NetworkCondition, News, PatchFault, follow_pods};
use kube_sim::{KubeSim, Mood};
use serde_json::{Value, json};
use tokio::sync::mpsc;

const NODES: &str = "/api/v1/nodes";
const PODS: &str = "/api/v1/namespaces/default/pods";
const PATIENCE: Duration = Duration::from_secs(30);

async fn cluster(sim: &KubeSim) -> Cluster {
    let address = sim.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let access = Access {
        url: format!("http://{address}"),
        service_account: "/none".into(),
        answer_within: Duration::from_secs(5),
        watch_for: Duration::from_secs(2),
    };
    Cluster::connect(&access).unwrap()
}

fn pod(name: &str, node: &str, ip: &str) -> Value {
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": { "namespace": "default", "name": name, "uid": format!("u-{name}") },
        "spec": { "nodeName": node }, "status": { "phase": "Pending", "podIP": ip },
    })
}

/// Waits until the pods that are expected are these.
async fn until(news: &mut mpsc::UnboundedReceiver<News>, expect: &[&str]) {
    let mut last = None;
    let waiting = async {
        loop {
            if let News::PodsExpected(pods) = news.recv().await.unwrap() {
                let names: Vec<_> = pods.into_iter().map(|pod| pod.name).collect();
                let is_met = names == expect;
                last = Some(names);
                if is_met {
                    return;
                }
            }
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(in_time.is_ok(), "{expect:?} are expected, not {last:?}");
}

#[tokio::test]
async fn pods_of_this_node_that_have_not_started_are_followed() {
    let sim = KubeSim::default();
    sim.put(PODS, pod("old", "n1", "10.0.0.1"));
    sim.put(PODS, pod("new", "n1", ""));
    sim.put(PODS, pod("other", "n2", ""));
    let cluster = cluster(&sim).await;
    let (tell, mut news) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        match follow_pods(&cluster, "n1", |news| drop(tell.send(news))).await {}
    });
    until(&mut news, &["new"]).await;
    sim.put(PODS, pod("next", "n1", ""));
    until(&mut news, &["new", "next"]).await;
    sim.put(PODS, pod("new", "n1", "10.0.0.2"));
    until(&mut news, &["next"]).await;
    sim.set_mood(Mood::Cut);
    sim.delete(PODS, "next");
    until(&mut news, &[]).await;
    sim.set_mood(Mood::Refusing(503));
    sim.put(PODS, pod("late", "n1", ""));
    sim.set_mood(Mood::Well);
    until(&mut news, &["late"]).await;
    let requests = sim.requests();
    assert!(
        requests.iter().all(|it| it.contains("fieldSelector=spec.nodeName%3Dn1")),
        "{requests:#?}"
    );
}

fn node() -> Value {
    json!({
        "kind": "Node", "apiVersion": "v1",
        "metadata": { "name": "n1", "annotations": { "other": "stays" } },
        "spec": { "taints": [
            { "key": "a.io/ours", "effect": "NoSchedule" },
            { "key": "a.io/theirs", "effect": "NoExecute" },
            { "key": "a.io/ours", "effect": "NoExecute" },
        ] },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
    })
}

fn shown(sim: &KubeSim, collection: &str) -> Value {
    sim.objects(collection).pop().unwrap()
}

#[tokio::test]
async fn annotations_taint_and_condition_leave_those_of_others() {
    let sim = KubeSim::default();
    sim.put(NODES, node());
    let cluster = cluster(&sim).await;
    let annotations = BTreeMap::from([("a.io/pods", "29".to_owned())]);
    cluster.annotate_node("n1", &annotations).await.unwrap();
    assert_eq!(cluster.remove_taint("n1", "a.io/ours").await, Ok(true));
    assert_eq!(cluster.remove_taint("n1", "a.io/ours").await, Ok(false));
    let condition = |is_unavailable| NetworkCondition {
        is_unavailable,
        reason: "Because",
        message: "of a test".to_owned(),
    };
    for is_unavailable in [true, false] {
        cluster.set_network_condition("n1", &condition(is_unavailable)).await.unwrap();
    }
    let node = shown(&sim, NODES);
    assert_eq!(node["metadata"]["annotations"], json!({ "other": "stays", "a.io/pods": "29" }));
    assert_eq!(node["spec"]["taints"], json!([{ "key": "a.io/theirs", "effect": "NoExecute" }]));
    let conditions = node["status"]["conditions"].as_array().unwrap();
    let mut texts: Vec<_> = conditions.iter().map(|it| (&it["type"], &it["status"])).collect();
    texts.sort_by_key(|(kind, _)| kind.to_string());
    assert_eq!(
        texts,
        [(&json!("NetworkUnavailable"), &json!("False")), (&json!("Ready"), &json!("True"))]
    );
    assert_eq!(cluster.annotate_node("n2", &annotations).await, Err(PatchFault::Gone));
    sim.set_mood(Mood::Refusing(403));
    match cluster.annotate_node("n1", &annotations).await {
        Err(PatchFault::Failed(fault)) => assert!(fault.is_forbidden, "{fault:?}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn annotation_is_of_this_pod_and_of_no_other_of_its_name() {
    let sim = KubeSim::default();
    sim.put(PODS, pod("a", "n1", ""));
    let cluster = cluster(&sim).await;
    let pod = |uid: &str| Pod {
        namespace: "default".to_owned(),
        name: "a".to_owned(),
        uid: uid.to_owned(),
    };
    let value = || shown(&sim, PODS)["metadata"]["annotations"]["ip"].clone();
    cluster.annotate_pod(&pod("u-a"), "ip", "10.0.0.1").await.unwrap();
    assert_eq!(value(), "10.0.0.1");
    assert_eq!(cluster.annotate_pod(&pod("u-b"), "ip", "10.0.0.2").await, Err(PatchFault::Gone));
    for (uid, before) in [("u-b", "10.0.0.1"), ("u-a", "10.0.0.2")] {
        let emptied = cluster.empty_pod_annotation(&pod(uid), "ip", before).await;
        assert_eq!(emptied, Err(PatchFault::Gone), "{uid} {before}");
    }
    assert_eq!(value(), "10.0.0.1");
    cluster.empty_pod_annotation(&pod("u-a"), "ip", "10.0.0.1").await.unwrap();
    assert_eq!(value(), "");
    let path = Pod { namespace: "../nodes".to_owned(), ..pod("") };
    assert_eq!(cluster.annotate_pod(&path, "ip", "").await, Err(PatchFault::Gone));
}

//! Events as the API server gets them.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::time::{Duration, Instant};

use k8s::{About, Access, Cluster, News, Report, Reports, send_events};
use kube_sim::{KubeSim, Mood};
use serde_json::Value;
use tokio::sync::mpsc;

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
const PATIENCE: Duration = Duration::from_secs(30);

async fn sending() -> (KubeSim, Reports, mpsc::UnboundedReceiver<News>) {
    let sim = KubeSim::default();
    let address = sim.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let access = Access {
        url: format!("http://{address}"),
        service_account: "/none".into(),
        answer_within: Duration::from_secs(1),
        watch_for: Duration::from_secs(2),
    };
    let cluster = Cluster::connect(&access).unwrap();
    let (reports, mut queue) = Reports::queue();
    let (tell, news) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let tell = |news| drop(tell.send(news));
        match send_events(&cluster, "n1", &mut queue, tell).await {}
    });
    (sim, reports, news)
}

fn pod(name: &str) -> About {
    let (namespace, uid) = ("default".to_owned(), "uid-1".to_owned());
    About::Pod { namespace, name: name.to_owned(), uid }
}

fn report(about: About, reason: &'static str) -> Report {
    Report { about, reason, action: "ADD", note: format!("why {reason}") }
}

async fn next_fault(news: &mut mpsc::UnboundedReceiver<News>) -> Option<String> {
    match tokio::time::timeout(PATIENCE, news.recv()).await.unwrap().unwrap() {
        News::Health { of: "events", fault } => fault.map(|fault| fault.why),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn event_is_on_the_pod_or_the_node() {
    let (sim, reports, mut news) = sending().await;
    for about in [pod("web"), pod("web"), About::Node] {
        reports.tell(report(about, "SUBNET_EXHAUSTED"));
    }
    for _ in 0..2 {
        assert_eq!(next_fault(&mut news).await, None);
    }
    let events = sim.objects(EVENTS);
    let mut on: Vec<_> = events.iter().map(|event| event["regarding"].clone()).collect();
    on.sort_by_key(|object| object["kind"].to_string());
    let fields = |object: &Value| ["kind", "name", "uid"].map(|key| object[key].clone());
    assert_eq!(fields(&on[0]), ["Node", "n1", "n1"]);
    assert_eq!(fields(&on[1]), ["Pod", "web", "uid-1"]);
    assert_eq!(on.len(), 2, "the second report of one cause is left out: {events:#?}");
    for event in events {
        assert_eq!(event["reason"], "SUBNET_EXHAUSTED");
        assert_eq!(event["note"], "why SUBNET_EXHAUSTED");
        assert_eq!(
            (&event["type"], &event["reportingController"]),
            (&"Warning".into(), &"aws-node".into())
        );
    }
}

/// Handing in never waits, and what cannot be sent is dropped.
#[tokio::test]
async fn trouble_at_the_server_holds_up_nobody() {
    let (sim, reports, mut news) = sending().await;
    for (mood, text) in [(Mood::Refusing(403), "Forbidden"), (Mood::Silent, "timed out")] {
        sim.set_mood(mood);
        let start = Instant::now();
        for n in 0..1_000 {
            reports
                .tell(report(pod(&format!("p{n}")), if text == "Forbidden" { "A" } else { "B" }));
        }
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        let fault = next_fault(&mut news).await.unwrap();
        assert!(fault.contains(text), "{fault}");
    }
    sim.set_mood(Mood::Well);
    reports.tell(report(About::Node, "ACCESS_DENIED"));
    let sent = async {
        while !sim.objects(EVENTS).iter().any(|event| event["reason"] == "ACCESS_DENIED") {
            reports.tell(report(About::Node, "ACCESS_DENIED"));
            news.recv().await.unwrap();
        }
    };
    tokio::time::timeout(3 * PATIENCE, sent).await.unwrap();
}

//! Spans as a collector gets them, and collectors that are dead, slow or refuse.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use prost::Message as _;
use tokio::sync::oneshot;
use trace_context::TraceContext;

use crate::wire::collector::trace::v1::ExportTraceServiceRequest;
use crate::wire::common::v1::any_value::Value as Any;
use crate::wire::common::v1::{AnyValue, KeyValue};
use crate::wire::trace::v1;
use crate::{Counts, Kind, QUEUE, Resource, Sampler, Tracer, Transport};

const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

const ALWAYS: fn() -> Sampler = || Sampler::new(true, 1.0);

fn caller() -> TraceContext {
    TraceContext::parse(CALLER, Some("vendor=x")).unwrap()
}

fn resource() -> Resource {
    Resource(vec![("service.name".to_owned(), "ipamd".to_owned())])
}

/// A transport whose collector keeps each message.
fn kept() -> (Transport, Arc<Mutex<Vec<ExportTraceServiceRequest>>>) {
    let messages = Arc::<Mutex<Vec<_>>>::default();
    let to = Arc::clone(&messages);
    let post = move |body: Vec<u8>| {
        let to = Arc::clone(&to);
        let message = ExportTraceServiceRequest::decode(&*body).map_err(|e| e.to_string());
        Box::pin(async move {
            to.lock().unwrap().push(message?);
            Ok(())
        }) as _
    };
    (Transport::Http(Box::new(post)), messages)
}

/// A transport that ends in `answer`, or never.
fn bad(answer: Option<&'static str>) -> Transport {
    Transport::Http(Box::new(move |_| {
        Box::pin(async move {
            match answer {
                Some(why) => Err(why.to_owned()),
                None => std::future::pending().await,
            }
        })
    }))
}

/// Lets `trace` make spans, and sends them by `transport`.
async fn export(transport: Transport, sampler: Sampler, trace: impl FnOnce(&Tracer)) -> Counts {
    let (tracer, exporter) = Tracer::new(sampler, resource(), transport);
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(exporter.run(async { drop(stopped.await) }));
    trace(&tracer);
    drop(stop);
    running.await.unwrap();
    tracer.counts()
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|it| it.key == key)?;
    match &found.value {
        Some(AnyValue { value: Some(Any::StringValue(text)) }) => Some(text.clone()),
        Some(AnyValue { value: Some(Any::IntValue(number)) }) => Some(number.to_string()),
        _ => None,
    }
}

fn spans(messages: &Mutex<Vec<ExportTraceServiceRequest>>) -> Vec<v1::Span> {
    let messages = std::mem::take(&mut *messages.lock().unwrap());
    let resources = messages.into_iter().flat_map(|message| message.resource_spans);
    resources.flat_map(|it| it.scope_spans).flat_map(|it| it.spans).collect()
}

#[tokio::test]
async fn span_and_child_arrive_with_what_they_say() {
    let (transport, messages) = kept();
    let counts = export(transport, ALWAYS(), |tracer| {
        let mut root = tracer.start("ADD", Kind::Server, Some(&caller())).unwrap();
        root.set("k8s.pod.name", "web");
        root.set("attempt", 2);
        let child = root.child("wait", Kind::Internal, SystemTime::now());
        root.link(child.context());
        child.end(Some("SUBNET_EXHAUSTED".to_owned()));
        root.end(None);
    });
    assert_eq!(counts.await, Counts { exported: 2, lost: 0 });
    let of_resource = messages.lock().unwrap()[0].resource_spans[0].resource.clone().unwrap();
    assert_eq!(text(&of_resource.attributes, "service.name").as_deref(), Some("ipamd"));
    let found = spans(&messages);
    let [child, root] = &*found else { panic!("{found:?}") };
    assert_eq!(root.trace_id, caller().trace.bytes());
    assert_eq!(child.trace_id, root.trace_id);
    assert_eq!(root.parent_span_id, caller().span.bytes());
    assert_eq!(child.parent_span_id, root.span_id);
    assert_ne!(child.span_id, root.span_id);
    assert_eq!((&*root.name, root.kind()), ("ADD", v1::span::SpanKind::Server));
    assert_eq!((&*child.name, child.kind()), ("wait", v1::span::SpanKind::Internal));
    assert_eq!(root.trace_state, "vendor=x");
    assert_eq!(text(&root.attributes, "k8s.pod.name").as_deref(), Some("web"));
    assert_eq!(text(&root.attributes, "attempt").as_deref(), Some("2"));
    assert_eq!(root.links[0].span_id, child.span_id);
    assert_eq!(root.status, None);
    let status = child.status.clone().unwrap();
    assert_eq!(
        (&*status.message, status.code()),
        ("SUBNET_EXHAUSTED", v1::status::StatusCode::Error)
    );
    assert!(root.start_time_unix_nano <= child.start_time_unix_nano);
    assert!(child.end_time_unix_nano <= root.end_time_unix_nano);
}

#[tokio::test]
async fn spans_arrive_while_the_process_runs() {
    let (transport, messages) = kept();
    let (tracer, exporter) = Tracer::new(ALWAYS(), resource(), transport);
    let running = tokio::spawn(exporter.run(std::future::pending()));
    for _ in 0..2 {
        tracer.start("ADD", Kind::Server, None).unwrap().end(None);
        let until = Instant::now() + Duration::from_secs(60);
        while spans(&messages).is_empty() {
            assert!(Instant::now() < until, "no span arrives");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    running.abort();
}

/// More spans than the queue has room for, and nobody takes one. Each is made and lost at once.
#[tokio::test]
async fn collector_that_takes_nothing_costs_a_bounded_queue() {
    for answer in [None, Some("503 Service Unavailable")] {
        let n = 3 * QUEUE as u64;
        let counts = export(bad(answer), ALWAYS(), |tracer| {
            for _ in 0..n {
                tracer.start("ADD", Kind::Server, None).unwrap().end(None);
            }
            assert_eq!(tracer.counts(), Counts { exported: 0, lost: n - QUEUE as u64 });
        });
        let counts = counts.await;
        assert_eq!(counts.exported, 0);
        assert!(counts.lost > n - QUEUE as u64, "{counts:?}, {answer:?}");
    }
}

#[tokio::test]
async fn link_to_every_pod_of_a_crowd_is_bounded() {
    let (transport, messages) = kept();
    export(transport, ALWAYS(), |tracer| {
        let mut span = tracer.start("AssignPrivateIpAddresses", Kind::Client, None).unwrap();
        (0..100).for_each(|_| span.link(&caller()));
        span.end(None);
    })
    .await;
    let found = spans(&messages);
    assert_eq!((found[0].links.len(), found[0].dropped_links_count), (32, 68));
}

#[test]
fn sampler_decides_by_caller_or_by_share() {
    let unsampled = TraceContext::parse(&format!("{}00", &CALLER[..53]), None).unwrap();
    let check = |by_parent: bool, share: f64, expect: [bool; 3]| {
        let (tracer, _exporter) =
            Tracer::new(Sampler::new(by_parent, share), resource(), bad(None));
        let parents = [None, Some(&caller()), Some(&unsampled)];
        let sampled = parents.map(|parent| tracer.start("ADD", Kind::Server, parent).is_some());
        assert_eq!(sampled, expect, "{by_parent} {share}");
    };
    check(false, 1.0, [true, true, true]);
    check(false, 0.0, [false, false, false]);
    check(true, 1.0, [true, true, false]);
    check(true, 0.0, [false, true, false]);
}

#[test]
fn share_of_traces_is_about_the_ratio() {
    let (tracer, _exporter) = Tracer::new(Sampler::new(false, 0.25), resource(), bad(None));
    let n = (0..10_000).filter(|_| tracer.start("ADD", Kind::Server, None).is_some()).count();
    assert!((2_000..3_000).contains(&n), "{n} of 10000");
}

#[test]
fn tracer_that_is_off_makes_no_span() {
    assert!(Tracer::off().start("ADD", Kind::Server, Some(&caller())).is_none());
    assert_eq!(Tracer::off().counts(), Counts::default());
}

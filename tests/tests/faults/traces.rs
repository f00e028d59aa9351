//! A runtime that traces: its trace goes on in the plugin, the daemon and the call to EC2. A collector that is away or
//! silent costs no pod anything.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use tests::collector::{Collector, Collects, Span};
use tests::exec::{ExecCluster, ExecNode};
use tests::k8s::certificates::Authority;
use tests::process::{PATIENCE, eventually};

use crate::{ASSIGN, lean};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const RUNTIME: &str = "00f067aa0ba902b7";
const PORT: u16 = 4318;

fn settings(protocol: &'static str) -> [(&'static str, &'static str); 4] {
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ("OTEL_EXPORTER_OTLP_HEADERS", "X-Key=open%20sesame,x-team=net"),
        ("OTEL_RESOURCE_ATTRIBUTES", "team=net"),
    ]
}

/// The value of a sample that counts spans.
async fn n_spans(node: &ExecNode, outcome: &str) -> Result<u64> {
    let sample = format!("tidepool_spans_total{{outcome=\"{outcome}\"}}");
    Ok(node.scrape().await?.get(&sample).context("no sample")?.parse()?)
}

/// The only span of this name.
fn one<'a>(spans: &'a [Span], name: &str) -> Result<&'a Span> {
    let mut found = spans.iter().filter(|span| span.name == name);
    let first = found.next().with_context(|| format!("no span {name}: {spans:#?}"))?;
    ensure!(found.next().is_none(), "several spans {name}: {spans:#?}");
    Ok(first)
}

/// The only span of this name that has not failed.
fn that_succeeded<'a>(spans: &'a [Span], name: &str) -> Result<&'a Span> {
    let mut found = spans.iter().filter(|span| span.name == name && !span.failed);
    let first = found.next().with_context(|| format!("no span {name}: {spans:#?}"))?;
    ensure!(found.next().is_none(), "several spans {name}: {spans:#?}");
    Ok(first)
}

/// Starts a pod for which the pool must grow, and checks its spans from the runtime's on.
async fn trace_of_a_pod(cluster: &ExecCluster, collector: &Collector) -> Result<()> {
    let node = &cluster.nodes[0];
    // The pool has one free address. The first call that replaces it fails, whether or not somebody waits yet.
    cluster.sim.fail(ASSIGN, 1, "RequestLimitExceeded").await?;
    node.runtime.run("untraced").await?;
    let traceparent = format!("00-{TRACE}-{RUNTIME}-01");
    let variables = [("TRACEPARENT", traceparent.as_str()), ("TRACESTATE", "vendor=x")];
    let pod = node.runtime.pod("traced").await?;
    let address = node.runtime.add_with(&pod, &variables).await?;

    let spans = eventually("spans", PATIENCE, async || {
        let spans = collector.of_trace(TRACE);
        one(&spans, "ADD")?;
        that_succeeded(&spans, ASSIGN)?;
        Ok(spans)
    })
    .await?;
    let (add, wait, call) =
        (one(&spans, "ADD")?, one(&spans, "wait")?, that_succeeded(&spans, ASSIGN)?);
    let (assign, disk) = (one(&spans, "assign")?, one(&spans, "disk")?);
    ensure!(add.parent == RUNTIME, "{add:?}");
    for phase in [wait, assign, disk] {
        ensure!(phase.parent == add.id, "{phase:?}");
        ensure!(add.nanoseconds.0 <= phase.nanoseconds.0, "{phase:?} {add:?}");
        ensure!(phase.nanoseconds.1 <= add.nanoseconds.1, "{phase:?} {add:?}");
    }
    ensure!(call.parent == wait.id, "{call:?} is no child of {wait:?}");
    let failed = spans.iter().filter(|span| span.failed);
    ensure!(failed.clone().all(|span| span.name == ASSIGN), "{spans:#?}");
    ensure!(failed.clone().all(|span| span.parent == wait.id), "{spans:#?}");
    let has = |of: &BTreeMap<String, String>, key: &str, value: &str| -> Result<()> {
        ensure!(of.get(key).is_some_and(|found| found == value), "{key}={value}: {of:?}");
        Ok(())
    };
    has(&add.attributes, "k8s.pod.name", "traced")?;
    has(&add.attributes, "container.id", "traced")?;
    has(&add.attributes, "tidepool.addresses", &address)?;
    has(&add.attributes, "tidepool.outcome", "granted")?;
    has(&call.attributes, "rpc.service", "EC2")?;
    has(&call.attributes, "rpc.method", ASSIGN)?;
    // The first attempt was the one that failed.
    has(&call.attributes, "tidepool.attempt", "2")?;
    has(&add.headers, "x-key", "open sesame")?;
    has(&add.headers, "x-team", "net")?;
    has(&add.resource, "service.name", "ipamd")?;
    has(&add.resource, "team", "net")?;
    has(&add.resource, "cloud.availability_zone", "us-east-1a")
}

/// The lines of a log that name the trace.
fn lines_of_trace(log: &std::path::Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(log).with_context(|| log.display().to_string())?;
    let field = format!("\"trace_id\":\"{TRACE}\"");
    Ok(text.lines().filter(|line| line.contains(&field)).map(str::to_owned).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn trace_of_the_runtime_leads_to_the_call_of_ec2() -> Result<()> {
    let mut spec = lean("ftrace");
    let more = settings("http/protobuf").map(|(key, value)| (key, value.to_owned()));
    spec.nodes[0].settings.extend(more);
    ExecCluster::with(spec, async |cluster| {
        let node = &cluster.nodes[0];
        // Nobody has listened since the start.
        eventually("lost spans", PATIENCE, async || {
            ensure!(n_spans(node, "lost").await? > 0, "none is lost");
            Ok(())
        })
        .await?;
        let collector = Collector::start(&node.netns, PORT, Collects::Http).await?;
        trace_of_a_pod(cluster, &collector).await?;
        ensure!(n_spans(node, "exported").await? > 0, "no span is counted");
        let daemon = lines_of_trace(&node.log())?;
        ensure!(daemon.iter().any(|line| line.contains("calling EC2")), "{daemon:?}");
        let plugin = lines_of_trace(&node.state_directory().join("plugin.log"))?;
        ensure!(!plugin.is_empty(), "the plugin's log lacks the trace");

        // A collector that hangs takes nothing, and pods start.
        drop(collector);
        let before = n_spans(node, "lost").await?;
        let silent = Collector::start(&node.netns, PORT, Collects::Nothing).await?;
        let pods = node.runtime.run_all("p", 4).await?;
        node.runtime.remove_all(&pods).await?;
        drop(silent);
        eventually("lost spans", PATIENCE, async || {
            ensure!(n_spans(node, "lost").await? > before, "none is lost");
            Ok(())
        })
        .await?;
        cluster.books_agree(&[]).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn trace_of_the_runtime_goes_by_grpc_too() -> Result<()> {
    let mut spec = lean("fgrpc");
    spec.nodes[0].settings.extend(settings("grpc").map(|(key, value)| (key, value.to_owned())));
    ExecCluster::with(spec, async |cluster| {
        let node = &cluster.nodes[0];
        let collector = Collector::start(&node.netns, PORT, Collects::Grpc).await?;
        trace_of_a_pod(cluster, &collector).await
    })
    .await
}

/// By TLS too, if the certificate is trusted. The headers are shown nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn trace_goes_by_grpc_and_tls_to_whom_it_may() -> Result<()> {
    let mut spec = lean("fgtls");
    spec.nodes[0].settings.extend(settings("grpc").map(|(key, value)| (key, value.to_owned())));
    ExecCluster::with(spec, async |cluster| {
        let node = &mut cluster.nodes[0];
        let directory = node.state_directory().join("collector");
        std::fs::create_dir_all(&directory)?;
        let ours = Authority::make(directory.join("ours")).await?;
        let other = Authority::make(directory.join("other")).await?;
        for authority in [&ours, &other] {
            authority.issue("collector", "/CN=collector", "IP:127.0.0.1").await?;
        }
        node.stop_ipamd().await?;
        let bundle = ours.file("ca.crt").display().to_string();
        node.configure(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:4318"),
            ("AWS_CA_BUNDLE", &bundle),
        ]);
        let (netns, files) = (node.netns.clone(), "collector.crt");
        let untrusted = Collector::start_by_tls(&netns, PORT, &other.file(files)).await?;
        node.start_ipamd().await?;
        eventually("lost spans", PATIENCE, async || {
            ensure!(n_spans(node, "lost").await? > 0, "none is lost");
            Ok(())
        })
        .await?;
        drop(untrusted);
        let collector = eventually("collector's port", PATIENCE, async || {
            Collector::start_by_tls(&netns, PORT, &ours.file(files)).await
        })
        .await?;
        trace_of_a_pod(cluster, &collector).await?;
        let node = &cluster.nodes[0];
        let (_, shown, _) = node.ipamd(&["check-config"]).await?;
        ensure!(shown.contains("OTEL_EXPORTER_OTLP_HEADERS"), "{shown}");
        let log = std::fs::read_to_string(node.log()).context("read the log")?;
        ensure!(!shown.contains("sesame") && !log.contains("sesame"), "the key is shown");
        Ok(())
    })
    .await
}

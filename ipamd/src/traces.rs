//! The export of traces, if the settings name a collector.

use aws::{ConnectError, NodeFacts, Post, Proxies, Roots};
use otlp::{Resource, Sampler, Tracer, Transport};
use settings::{Collector, Settings, TraceSettings};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Why no span can be sent.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    /// By HTTP, or the certificates.
    #[error(transparent)]
    Http(#[from] ConnectError),
    /// By gRPC.
    #[error("set up gRPC to the collector")]
    Grpc(#[from] otlp::GrpcError),
}

/// What makes spans, and the task that sends them.
#[derive(Debug)]
pub(crate) struct Traces {
    /// Off without a collector.
    pub(crate) tracer: Tracer,
    exporting: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Traces {
    /// Starts to send spans, if the settings name a collector. Pods do not depend on it, so a collector that cannot be
    /// used is a warning.
    pub(crate) fn start(settings: &Settings, facts: &NodeFacts) -> Self {
        let Some(collector) = &settings.traces.collector else {
            return Self { tracer: Tracer::off(), exporting: None };
        };
        let transport = match transport(collector, settings) {
            Ok(transport) => transport,
            Err(fault) => {
                let fault = format!("{:#}", anyhow::Error::from(fault));
                tracing::warn!(fault, "no traces are exported");
                return Self { tracer: Tracer::off(), exporting: None };
            }
        };
        let TraceSettings { by_parent, share, .. } = settings.traces;
        let sampler = Sampler::new(by_parent, share);
        let (tracer, exporter) = Tracer::new(sampler, resource(settings, facts), transport);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(exporter.run(async { drop(stopped.await) }));
        tracing::info!(?collector, "traces are exported");
        Self { tracer, exporting: Some((stop, task)) }
    }

    /// Sends what is left. It takes a second at most.
    pub(crate) async fn flush(self) {
        if let Some((stop, task)) = self.exporting {
            drop(stop);
            let _ = task.await;
        }
    }
}

fn transport(collector: &Collector, settings: &Settings) -> Result<Transport, ExportError> {
    let (headers, roots) =
        (settings.traces.headers.0.clone(), Roots::of(settings.ca_bundle.clone()));
    let url = match collector {
        Collector::Grpc(url) => {
            let by_tls = url.as_str().starts_with("https://");
            let tls = by_tls.then(|| roots.client()).transpose()?;
            return Ok(Transport::grpc(url.as_str(), &headers, tls)?);
        }
        Collector::Http(url) => url.clone(),
    };
    let post = Post::new(url, otlp::CONTENT_TYPE, headers, &proxies(settings), &roots)?;
    Ok(Transport::Http(Box::new(move |body| {
        let post = post.clone();
        Box::pin(async move { post.send(body).await })
    })))
}

/// By which proxy requests go.
pub(crate) fn proxies(settings: &Settings) -> Proxies {
    Proxies {
        http: settings.http_proxy.clone(),
        https: settings.https_proxy.clone(),
        except: settings.no_proxy.clone(),
    }
}

/// What every span says about where it comes from. What the user says counts.
fn resource(settings: &Settings, facts: &NodeFacts) -> Resource {
    let mut attributes = settings.traces.attributes.clone();
    let known = [
        ("service.version", Some(proto::VERSION)),
        ("cloud.provider", Some("aws")),
        ("cloud.region", Some(&*facts.region)),
        ("cloud.availability_zone", Some(&*facts.availability_zone)),
        ("host.id", Some(facts.instance.as_str())),
        ("host.type", Some(&*facts.instance_type)),
        ("k8s.node.name", settings.node_name.as_deref()),
        ("k8s.cluster.name", settings.cluster.as_deref()),
    ];
    for (key, value) in known {
        if let Some(value) = value
            && attributes.iter().all(|(other, _)| other != key)
        {
            attributes.push((key.to_owned(), value.to_owned()));
        }
    }
    Resource(attributes)
}

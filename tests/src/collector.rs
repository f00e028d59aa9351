//! A collector of traces on a node, by HTTP and by gRPC. It decodes what it gets by OpenTelemetry's own definitions.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::TcpListener as StdListener;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use prost::Message as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use self::otlp::opentelemetry::proto;
use self::proto::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use self::proto::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use self::proto::common::v1::any_value::Value;
use self::proto::common::v1::{AnyValue, KeyValue};

mod otlp {
    #![expect(
        unreachable_pub,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        clippy::enum_variant_names,
        reason = "all of it is generated"
    )]
    pub(super) mod opentelemetry {
        pub(crate) mod proto {
            pub(crate) mod common {
                pub(crate) mod v1 {
                    tonic::include_proto!("opentelemetry.proto.common.v1");
                }
            }
            pub(crate) mod resource {
                pub(crate) mod v1 {
                    tonic::include_proto!("opentelemetry.proto.resource.v1");
                }
            }
            pub(crate) mod trace {
                pub(crate) mod v1 {
                    tonic::include_proto!("opentelemetry.proto.trace.v1");
                }
            }
            pub(crate) mod collector {
                pub(crate) mod trace {
                    pub(crate) mod v1 {
                        tonic::include_proto!("opentelemetry.proto.collector.trace.v1");
                    }
                }
            }
        }
    }
}

/// A span as it has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Hexadecimal.
    pub trace: String,
    /// Hexadecimal.
    pub id: String,
    /// Hexadecimal; empty if it is the first of its trace.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// Its own attributes.
    pub attributes: BTreeMap<String, String>,
    /// Those of the process.
    pub resource: BTreeMap<String, String>,
    /// Start and end, in nanoseconds since 1970.
    pub nanoseconds: (u64, u64),
    /// Whether it has failed.
    pub failed: bool,
}

/// The spans that have arrived.
type Spans = Arc<Mutex<Vec<Span>>>;

/// How the collector behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collects {
    /// It takes what comes by HTTP.
    Http,
    /// It takes what comes by gRPC.
    Grpc,
    /// It accepts connections and never answers.
    Nothing,
}

/// A running collector. Dropping it ends it.
#[derive(Debug)]
pub struct Collector {
    spans: Spans,
    task: JoinHandle<Result<()>>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Collector {
    /// Listens at `127.0.0.1:port` in the network namespace `netns`.
    ///
    /// # Errors
    ///
    /// If it cannot listen.
    pub async fn start(netns: &str, port: u16, how: Collects) -> Result<Self> {
        let path = format!("/run/netns/{netns}");
        // A thread of its own, since the namespace is the thread's.
        let listening = tokio::task::spawn_blocking(move || {
            std::thread::spawn(move || listen(&path, port)).join().expect("it does not panic")
        });
        let listener = TcpListener::from_std(listening.await??)?;
        let spans = Spans::default();
        let task = tokio::spawn(collect(listener, how, Arc::clone(&spans)));
        Ok(Self { spans, task })
    }

    /// The spans of a trace that have arrived until now.
    #[must_use]
    pub fn of_trace(&self, trace: &str) -> Vec<Span> {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.iter().filter(|span| span.trace == trace).cloned().collect()
    }
}

fn listen(netns: &str, port: u16) -> Result<StdListener> {
    let netns = File::open(netns)?;
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
    let listener = StdListener::bind(("127.0.0.1", port)).context("listen as a collector")?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn collect(listener: TcpListener, how: Collects, spans: Spans) -> Result<()> {
    if how == Collects::Grpc {
        let service = TraceServiceServer::new(ByGrpc(spans));
        let router = tonic::transport::Server::builder().add_service(service);
        return Ok(router.serve_with_incoming(TcpIncoming::from(listener)).await?);
    }
    // What ends this task ends its connections too.
    let (mut silent, mut answering) = (Vec::new(), JoinSet::new());
    loop {
        let (stream, _) = listener.accept().await?;
        match how {
            Collects::Http => drop(answering.spawn(answer(stream, Arc::clone(&spans)))),
            Collects::Nothing | Collects::Grpc => silent.push(stream),
        }
    }
}

struct ByGrpc(Spans);

#[tonic::async_trait]
impl TraceService for ByGrpc {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        take(request.into_inner(), &self.0);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// As much of HTTP/1.1 as an exporter needs.
async fn answer(stream: TcpStream, spans: Spans) -> Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut head, mut length) = (Vec::new(), 0);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            head.push(line);
        }
        let is_export = head.first().is_some_and(|line| line == "post /v1/traces http/1.1");
        let is_protobuf = head.iter().any(|line| line == "content-type: application/x-protobuf");
        if !is_export || !is_protobuf {
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await?;
            bail!("{head:?}");
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        take(ExportTraceServiceRequest::decode(&*body)?, &spans);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
    }
}

fn take(request: ExportTraceServiceRequest, to: &Spans) {
    let mut spans = to.lock().unwrap_or_else(PoisonError::into_inner);
    for of_resource in request.resource_spans {
        let resource = texts(&of_resource.resource.unwrap_or_default().attributes);
        let of_scopes = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.extend(of_scopes.map(|span| Span {
            trace: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            name: span.name,
            attributes: texts(&span.attributes),
            resource: resource.clone(),
            nanoseconds: (span.start_time_unix_nano, span.end_time_unix_nano),
            failed: span.status.is_some_and(|status| status.code == 2),
        }));
    }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|it| it.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes.iter().map(|it| (it.key.clone(), text(&it.value))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

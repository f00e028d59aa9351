//! A collector of traces on a node, by HTTP and by gRPC. It decodes what it gets by OpenTelemetry's own definitions.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::TcpListener as StdListener;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{self, Poll};

use anyhow::{Context, Result, bail};
use otlp::wire::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use otlp::wire::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use otlp::wire::common::v1::any_value::Value;
use otlp::wire::common::v1::{AnyValue, KeyValue};
use prost::Message as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
    ReadBuf,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::metadata::KeyAndValueRef;
use tonic::transport::server::{Connected, TcpIncoming};
use tonic::{Request, Response, Status};

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
    /// The headers of the request, by name in lower case.
    pub headers: BTreeMap<String, String>,
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
        Self::start_with(netns, port, how, None).await
    }

    /// As [`start`](Self::start), by gRPC and TLS with the certificate `NAME.crt` and its key `NAME.key`; `files` is the path
    /// without its end.
    ///
    /// # Errors
    ///
    /// As there, or if the certificate cannot be used.
    pub async fn start_by_tls(netns: &str, port: u16, files: &Path) -> Result<Self> {
        let acceptor = acceptor(files).context("use the collector's certificate")?;
        Self::start_with(netns, port, Collects::Grpc, Some(acceptor)).await
    }

    async fn start_with(
        netns: &str,
        port: u16,
        how: Collects,
        tls: Option<TlsAcceptor>,
    ) -> Result<Self> {
        let path = format!("/run/netns/{netns}");
        // A thread of its own, since the namespace is the thread's.
        let listening = tokio::task::spawn_blocking(move || {
            std::thread::spawn(move || listen(&path, port)).join().expect("it does not panic")
        });
        let listener = TcpListener::from_std(listening.await??)?;
        let spans = Spans::default();
        let task = tokio::spawn(collect(listener, how, tls, Arc::clone(&spans)));
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

fn acceptor(files: &Path) -> Result<TlsAcceptor> {
    let certificates = CertificateDer::pem_file_iter(files.with_extension("crt"))?;
    let certificates = certificates.collect::<std::result::Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(files.with_extension("key"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = config.with_no_client_auth().with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A connection by TLS, as tonic wants it.
struct Secured(TlsStream<TcpStream>);

impl Connected for Secured {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

async fn collect(
    listener: TcpListener,
    how: Collects,
    tls: Option<TlsAcceptor>,
    spans: Spans,
) -> Result<()> {
    let service = || TraceServiceServer::new(ByGrpc(Arc::clone(&spans)));
    if let Some(tls) = tls {
        let router = tonic::transport::Server::builder().add_service(service());
        let connections = futures::stream::unfold(listener, async |listener| {
            loop {
                let (stream, _) = listener.accept().await.ok()?;
                // A client that does not trust the certificate is no end.
                if let Ok(stream) = tls.accept(stream).await {
                    return Some((io::Result::Ok(Secured(stream)), listener));
                }
            }
        });
        return Ok(router.serve_with_incoming(Box::pin(connections)).await?);
    }
    if how == Collects::Grpc {
        let router = tonic::transport::Server::builder().add_service(service());
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
        let texts = request.metadata().iter().filter_map(|header| match header {
            KeyAndValueRef::Ascii(name, value) => {
                Some((name.to_string(), value.to_str().ok()?.to_owned()))
            }
            KeyAndValueRef::Binary(..) => None,
        });
        let headers = texts.collect();
        take(request.into_inner(), &headers, &self.0);
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
            if line.trim().is_empty() {
                break;
            }
            head.push(line.trim().to_owned());
        }
        let header = |line: &String| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let headers: BTreeMap<_, _> = head.iter().filter_map(header).collect();
        if let Some(value) = headers.get("content-length") {
            length = value.parse()?;
        }
        let is_export = head.first().is_some_and(|line| line == "POST /v1/traces HTTP/1.1");
        let content_type = headers.get("content-type").map(String::as_str);
        if !is_export || content_type != Some("application/x-protobuf") {
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await?;
            bail!("{head:?}");
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        take(ExportTraceServiceRequest::decode(&*body)?, &headers, &spans);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
    }
}

fn take(request: ExportTraceServiceRequest, headers: &BTreeMap<String, String>, to: &Spans) {
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
            headers: headers.clone(),
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

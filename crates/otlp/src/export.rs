//! Sends spans to a collector: some at a time, one message after the other, each for a bounded time.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prost::Message as _;
use rustls::ClientConfig;
use tokio::sync::mpsc;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::Recorder;
use crate::message::{Resource, message};
use crate::span::Ended;
use crate::tls::ByTls;
use crate::wire::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};

/// How long a span waits for others of its message.
const DELAY: Duration = Duration::from_secs(1);
/// Spans in one message, at most: `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`'s default.
const BATCH: usize = 512;
/// How long a message may take: `OTEL_EXPORTER_OTLP_TIMEOUT`'s default.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last messages may take when the process ends.
const LAST: Duration = Duration::from_secs(1);
/// Of OTLP: the one method of `TraceService`.
const EXPORT: PathAndQuery =
    PathAndQuery::from_static("/opentelemetry.proto.collector.trace.v1.TraceService/Export");

/// The result of one message: why the collector does not have it, if it does not.
type Sent = Result<(), String>;

/// Sends a body to a fixed URL by POST.
pub type Post = Box<dyn Fn(Vec<u8>) -> Pin<Box<dyn Future<Output = Sent> + Send>> + Send + Sync>;

/// The content type of a message by HTTP.
pub const CONTENT_TYPE: &str = "application/x-protobuf";

/// Why nothing can be sent by gRPC.
#[derive(Debug, thiserror::Error)]
pub enum GrpcError {
    /// The text is no URL.
    #[error("parse the URL")]
    Url(#[from] tonic::transport::Error),
    /// A header has a name or a value that no header may have. Neither is shown.
    #[error("header {0} of all is none")]
    Header(usize),
}

/// How messages get to the collector.
pub enum Transport {
    /// `http/protobuf`, by a client of the caller's.
    Http(Post),
    /// `grpc`, with these headers.
    Grpc(Channel, MetadataMap),
}

impl Transport {
    /// A connection by gRPC to `http://host:port`, or with `tls` to `https://host:port`. It is made when there is something to
    /// send. Names of headers are in lower case.
    ///
    /// # Errors
    ///
    /// If the text is no URL, or a header is none.
    pub fn grpc(
        url: &str,
        headers: &[(String, String)],
        tls: Option<ClientConfig>,
    ) -> Result<Self, GrpcError> {
        let mut metadata = MetadataMap::new();
        for (n, (name, value)) in headers.iter().enumerate() {
            let bad = || GrpcError::Header(n + 1);
            let name = AsciiMetadataKey::from_bytes(name.as_bytes()).map_err(|_| bad())?;
            let mut value = AsciiMetadataValue::try_from(value.as_str()).map_err(|_| bad())?;
            value.set_sensitive(true);
            metadata.insert(name, value);
        }
        let endpoint = Endpoint::from_shared(url.to_owned())?;
        let endpoint = endpoint.connect_timeout(TIMEOUT).timeout(TIMEOUT);
        let channel = match tls {
            None => endpoint.connect_lazy(),
            Some(config) => endpoint.connect_with_connector_lazy(ByTls::new(config)),
        };
        Ok(Self::Grpc(channel, metadata))
    }

    async fn send(&self, message: ExportTraceServiceRequest) -> Sent {
        match self {
            Transport::Http(post) => post(message.encode_to_vec()).await,
            Transport::Grpc(channel, headers) => {
                let mut client = Grpc::new(channel.clone());
                client.ready().await.map_err(|fault| error_chain(&fault))?;
                let codec = ProstCodec::<_, ExportTraceServiceResponse>::default();
                let mut request = tonic::Request::new(message);
                request.metadata_mut().clone_from(headers);
                let answer = client.unary(request, EXPORT, codec).await;
                answer.map(drop).map_err(|status| error_chain(&status))
            }
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Http(_) => "Http",
            Transport::Grpc(..) => "Grpc",
        })
    }
}

/// Sends the spans of one tracer.
#[derive(Debug)]
pub struct Exporter {
    ended: mpsc::Receiver<Ended>,
    resource: Resource,
    transport: Transport,
    recorder: Arc<Recorder>,
    /// The spans of the next message. They are here, so that a stop does not lose them.
    batch: Vec<Ended>,
    /// Whether the collector has refused or missed the last message.
    fails: bool,
}

impl Exporter {
    pub(crate) fn new(
        ended: mpsc::Receiver<Ended>,
        resource: Resource,
        transport: Transport,
        recorder: Arc<Recorder>,
    ) -> Self {
        Self { ended, resource, transport, recorder, batch: Vec::new(), fails: false }
    }

    /// Sends spans until `stop` is ready, and then for at most a second what is left. A message that the collector
    /// does not take is lost: to keep it would need memory without bound.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::select! {
            never = self.send_forever() => match never {},
            () = stop => {}
        }
        let _ = tokio::time::timeout(LAST, self.send_rest()).await;
    }

    async fn send_forever(&mut self) -> std::convert::Infallible {
        loop {
            // The recorder holds a sender, so the queue does not end.
            self.ended.recv_many(&mut self.batch, BATCH).await;
            if self.batch.len() < BATCH {
                tokio::time::sleep(DELAY).await;
                self.fill();
            }
            self.send().await;
        }
    }

    async fn send_rest(&mut self) {
        self.fill();
        while !self.batch.is_empty() {
            self.send().await;
            self.fill();
        }
    }

    /// Takes as many spans as there are and a message may have.
    fn fill(&mut self) {
        while self.batch.len() < BATCH
            && let Ok(span) = self.ended.try_recv()
        {
            self.batch.push(span);
        }
    }

    /// Sends one message. A change between success and failure is one line in the log.
    async fn send(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let count = Count { recorder: Arc::clone(&self.recorder), n: batch.len() as u64 };
        let message = message(&self.resource, batch);
        let sent = tokio::time::timeout(TIMEOUT, self.transport.send(message)).await;
        let sent = sent.unwrap_or_else(|_| Err(format!("no answer within {TIMEOUT:?}")));
        match (&sent, self.fails) {
            (Err(why), false) => {
                tracing::warn!(why, "the collector does not take spans; they are lost")
            }
            (Ok(()), true) => tracing::info!("the collector takes spans again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        self.fails = sent.is_err();
        if sent.is_ok() {
            count.exported();
        }
    }
}

/// Spans on their way. They are lost unless the collector takes them.
struct Count {
    recorder: Arc<Recorder>,
    n: u64,
}

impl Count {
    fn exported(mut self) {
        self.recorder.exported.fetch_add(self.n, Ordering::Relaxed);
        self.n = 0;
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        let lost: &AtomicU64 = &self.recorder.lost;
        lost.fetch_add(self.n, Ordering::Relaxed);
    }
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

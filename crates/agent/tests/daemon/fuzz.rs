//! Sends damaged input over the socket. The daemon continues to serve and keeps nothing of the input.

use std::error::Error as _;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use mangle::{Document, hostile};
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message as _;
use proto::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::transport::Channel;
use tonic::{Code, TimeoutExpired};
use tower::ServiceExt as _;

use crate::crowd::until_few_descriptors;
use crate::node::{Daemon, TestNode, add_request, attachment, connect};

/// When a test counts as hung.
const DEADLINE: Duration = Duration::from_secs(90);

const PATHS: [&str; 8] = [
    "/tidepool.ipam.v1.Ipam/Add",
    "/tidepool.ipam.v1.Ipam/Del",
    "/tidepool.ipam.v1.Ipam/Check",
    "/tidepool.ipam.v1.Ipam/Gc",
    "/tidepool.ipam.v1.Ipam/Ready",
    "/tidepool.ipam.v1.Ipam/View",
    "/grpc.health.v1.Health/Check",
    "/tidepool.ipam.v1.Ipam/Nothing",
];

const TIMEOUTS: [&str; 10] =
    ["", "0n", "1n", "1m", "15S", "99999999H", "99999999M", "+1S", "123456789S", "x"];

/// One gRPC call. Its body may be damaged.
#[derive(Debug, Clone)]
struct Call {
    path: &'static str,
    timeout: &'static str,
    body: Document,
}

/// A message after the five bytes of gRPC's frame header.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat()
}

/// Messages of every method: as the plugin sends them, and with every field beyond its bounds.
fn messages() -> Vec<Vec<u8>> {
    let client_version = proto::VERSION.to_owned();
    let long = "x".repeat(2000);
    let keys = [attachment("c1"), attachment("c2"), attachment(&long), v1::Attachment::default()];
    let mut messages = vec![
        v1::ReadyRequest { client_version: client_version.clone() }.encode_to_vec(),
        v1::ReadyRequest { client_version: "4294967296.1.x".to_owned() }.encode_to_vec(),
    ];
    for key in keys {
        let (attachment, client_version) = (Some(key.clone()), client_version.clone());
        let add = add_request("c1");
        messages.extend([
            v1::AddRequest { attachment: attachment.clone(), ..add.clone() }.encode_to_vec(),
            v1::AddRequest { netns: long.clone(), pod: None, ..add }.encode_to_vec(),
            v1::CheckRequest { attachment, client_version: client_version.clone() }.encode_to_vec(),
            v1::GcRequest { network: key.network.clone(), valid: vec![key; 100], client_version }
                .encode_to_vec(),
        ]);
    }
    messages
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let messages = messages();
    let frames = messages.iter().map(|message| framed(message)).collect();
    let body = prop_oneof![
        3 => hostile(messages).prop_map(|message| Document(framed(&message))),
        1 => hostile(frames),
    ];
    let timeout = prop_oneof![2 => Just(""), 1 => select(&TIMEOUTS[..])];
    let call = (select(&PATHS[..]), timeout, body).prop_map(|(path, timeout, body)| Call {
        path,
        timeout,
        body,
    });
    prop::collection::vec(call, 1..6)
}

/// The call's gRPC status and its message.
async fn answer(channel: Channel, call: Call) -> (Code, String) {
    let Call { path, timeout, body } = call;
    let mut request = http::Request::post(format!("http://ipamd{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if !timeout.is_empty() {
        request = request.header("grpc-timeout", timeout);
    }
    let request = request.body(Body::new(Full::new(body.0.into()))).unwrap();
    let reply = match channel.oneshot(request).await {
        // The client also ends the call at its timeout.
        Err(fault) if fault.source().is_some_and(|why| why.is::<TimeoutExpired>()) => {
            return (Code::DeadlineExceeded, String::new());
        }
        reply => reply.expect("an answer, not a broken connection"),
    };
    let (head, body) = reply.into_parts();
    let body = body.collect().await.expect("a whole answer");
    let trailers = body.trailers().cloned().unwrap_or_default();
    let field = |name: &str| head.headers.get(name).or_else(|| trailers.get(name)).cloned();
    let text = field("grpc-message").map(|text| text.to_str().unwrap().to_owned());
    let code = field("grpc-status").expect("a gRPC status");
    (Code::from_bytes(code.as_bytes()), text.unwrap_or_default())
}

async fn in_time<T>(doing: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, doing).await.expect("no hang")
}

/// A daemon with a very short ADD timeout and its record in memory, so that many cases run fast.
struct FuzzDaemon {
    runtime: Runtime,
    node: TestNode,
    daemon: Daemon,
    _memory: tempfile::TempDir,
}

impl FuzzDaemon {
    fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let memory = tempfile::tempdir_in("/dev/shm").unwrap();
        let mut node = TestNode::new();
        memory.path().clone_into(&mut node.state_directory);
        node.config.policy.timing.add_wait = Duration::from_millis(50);
        let daemon = runtime.block_on(node.start());
        Self { runtime, node, daemon, _memory: memory }
    }

    /// Checks that no ADD waits, that a GC leaves nothing, and that the daemon stops without an error.
    fn end(self) {
        let Self { runtime, node, daemon, _memory } = self;
        runtime.block_on(async {
            let client = node.client().await;
            client.until_waiting(0).await;
            let network = attachment("").network;
            let release_all =
                v1::GcRequest { network, valid: vec![], client_version: proto::VERSION.into() };
            client.0.clone().gc(release_all).await.unwrap();
            assert_eq!(client.check("last").await, []);
            assert!(client.view().await.in_flight.len() < 20);
            daemon.stop().await.unwrap();
        });
    }
}

#[test]
fn fuzz_grpc() {
    let lab = FuzzDaemon::new();
    let channel = lab.runtime.block_on(connect(lab.node.socket()));
    proptest!(|(calls in calls())| {
        for call in calls {
            let answer = in_time(answer(channel.clone(), call.clone()));
            let (code, text) = lab.runtime.block_on(answer);
            // These two codes would mean that the loop has ended, or that a handler has panicked.
            prop_assert!(![Code::Unavailable, Code::Unknown].contains(&code), "{call:?}: {text}");
            prop_assert!(!text.contains("is for another kind of request"), "{call:?}: {text}");
        }
    });
    lab.end();
}

/// The first bytes of clients: of gRPC clients (preface, settings, headers), and of other protocols.
fn openings() -> Vec<Vec<u8>> {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64";
    let headers = b"\0\0\x03\x01\x04\0\0\0\x01\x83\x86\x84";
    let data = b"\0\0\x05\0\x01\0\0\0\x01\0\0\0\0\0";
    let ping = b"\0\0\x08\x06\0\0\0\0\0tidepool";
    let reset = b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08";
    let window = b"\0\0\x04\x08\0\0\0\0\0\x7f\xff\xff\xff";
    vec![
        [&preface[..], settings].concat(),
        [&preface[..], settings, headers, data, ping].concat(),
        [&preface[..], settings, headers, reset, window, window].concat(),
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(),
    ]
}

/// Sends `bytes` and reads until the daemon closes the connection.
async fn exchange(node: &TestNode, bytes: &[u8]) {
    let mut connection = UnixStream::connect(node.socket()).await.unwrap();
    // The daemon may hang up at any byte.
    let _ = connection.write_all(bytes).await;
    let _ = connection.shutdown().await;
    let _ = connection.read_to_end(&mut Vec::new()).await;
}

#[test]
fn fuzz_socket() {
    let lab = FuzzDaemon::new();
    proptest!(|(bytes in hostile(openings()))| {
        lab.runtime.block_on(in_time(exchange(&lab.node, &bytes)));
    });
    lab.runtime.block_on(until_few_descriptors());
    lab.end();
}

#[test]
fn message_of_many_megabytes_is_refused() {
    let lab = FuzzDaemon::new();
    lab.runtime.block_on(async {
        let channel = connect(lab.node.socket()).await;
        let valid = vec![attachment(&"x".repeat(1000)); 8000];
        let request = v1::GcRequest { valid, ..v1::GcRequest::default() };
        let body = Document(framed(&request.encode_to_vec()));
        let call = Call { path: "/tidepool.ipam.v1.Ipam/Gc", timeout: "", body };
        let (code, text) = answer(channel, call).await;
        assert_eq!(code, Code::OutOfRange, "{text}");
    });
    lab.end();
}

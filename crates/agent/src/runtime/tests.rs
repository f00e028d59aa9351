//! Healthy and broken runtimes, each on its own socket.

use std::future::{Ready, ready};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::stream::Stream;
use prost::Message as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::{NamedService, UnaryService};
use tonic::transport::Server;

use super::*;

/// When a test counts as hung. It is above [`TIMEOUT`], so a poll that waits for a silent runtime ends earlier.
const DEADLINE: Duration = Duration::from_secs(90);

/// A runtime with this answer.
#[derive(Clone)]
struct Fake(Result<Listed, tonic::Status>);

impl NamedService for Fake {
    const NAME: &'static str = "runtime.v1.RuntimeService";
}

impl UnaryService<()> for Fake {
    type Response = Listed;
    type Future = Ready<Result<tonic::Response<Listed>, tonic::Status>>;

    fn call(&mut self, _: tonic::Request<()>) -> Self::Future {
        ready(self.0.clone().map(tonic::Response::new))
    }
}

impl tower::Service<Request<Body>> for Fake {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        assert_eq!(request.uri().path(), "/runtime.v1.RuntimeService/ListPodSandbox");
        let fake = self.clone();
        let codec = ProstCodec::<Listed, ()>::default();
        Box::pin(async { Ok(tonic::server::Grpc::new(codec).unary(fake, request).await) })
    }
}

/// What `ask` gets from the runtime that `serve` runs. Its socket has a space in its name.
async fn asked<F, T>(serve: impl FnOnce(UnixListener) -> F, ask: impl AsyncFnOnce(&Path) -> T) -> T
where
    F: Future<Output = ()> + Send + 'static,
{
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("a runtime's 100%.sock");
    let serving = tokio::spawn(serve(UnixListener::bind(&socket).unwrap()));
    let asked = tokio::time::timeout(DEADLINE, ask(&socket)).await;
    serving.abort();
    asked.expect("the runtime delays the poll")
}

/// The sandboxes that the poll gets from the runtime that `serve` runs.
async fn listed_by<F>(serve: impl FnOnce(UnixListener) -> F) -> Option<BTreeSet<String>>
where
    F: Future<Output = ()> + Send + 'static,
{
    asked(serve, async |socket| sandboxes(Some(socket)).await).await
}

/// The same from a runtime with this answer, without [`TIMEOUT`]: on a busy machine a long list may take longer.
async fn answered(answer: Result<Listed, tonic::Status>) -> anyhow::Result<BTreeSet<String>> {
    let serve = |listener| async {
        let server = Server::builder().add_service(Fake(answer));
        server.serve_with_incoming(connections(listener)).await.unwrap();
    };
    asked(serve, ask).await
}

fn connections(listener: UnixListener) -> impl Stream<Item = std::io::Result<UnixStream>> {
    futures::stream::unfold(listener, async |listener| {
        let accepted = listener.accept().await.map(|(connection, _)| connection);
        Some((accepted, listener))
    })
}

fn listed(ids: impl IntoIterator<Item = String>) -> Listed {
    Listed { items: ids.into_iter().map(|id| Sandbox { id }).collect() }
}

#[tokio::test]
async fn runtime_lists_all_sandboxes() {
    let check = async |n: usize| {
        let ids: BTreeSet<_> = (0..n).map(|n| format!("{n:064x}")).collect();
        assert_eq!(answered(Ok(listed(ids.clone()))).await.unwrap(), ids);
    };
    check(0).await;
    check(2).await;
    check(1000).await;
}

/// One sandbox with its id. Metadata and state are present, but not read.
#[test]
fn answer_has_the_field_numbers_of_the_cri() {
    let bytes = b"\x0a\x0f\x0a\x04c1c1\x12\x05\x0a\x03web\x18\x01";
    assert_eq!(Listed::decode(&bytes[..]), Ok(listed(["c1c1".to_owned()])));
}

#[tokio::test]
async fn silent_runtime_leaves_sandboxes_unknown() {
    assert_eq!(sandboxes(None).await, None);
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("containerd.sock");
    assert_eq!(sandboxes(Some(&socket)).await, None, "there is none");
    drop(UnixListener::bind(&socket).unwrap());
    assert_eq!(sandboxes(Some(&socket)).await, None, "it has died");

    let refusal = tonic::Status::unavailable("server is not initialized yet");
    answered(Err(refusal)).await.unwrap_err();
    let too_much = listed([String::from("c").repeat(5 << 20)]);
    answered(Ok(too_much)).await.unwrap_err();

    let hangs = listed_by(|listener| async move {
        let _connection = listener.accept().await;
        std::future::pending().await
    });
    assert_eq!(hangs.await, None);
    let never_accepts = listed_by(|listener| async move {
        let _listener = listener;
        std::future::pending().await
    });
    assert_eq!(never_accepts.await, None);
    let hangs_up = listed_by(|listener| async move {
        drop(listener.accept().await);
        std::future::pending().await
    });
    assert_eq!(hangs_up.await, None);
    let talks_rubbish = listed_by(|listener| async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        // It ends with the connection.
        while connection.write_all(&[0xff; 4096]).await.is_ok() {}
        std::future::pending().await
    });
    assert_eq!(talks_rubbish.await, None);
}

//! A container runtime that forgets sandboxes, as one does whose store was lost in part. It tells which
//! it has, and nothing else.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::BoxFuture;
use futures::{TryStreamExt as _, stream};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic_prost::ProstCodec;

use crate::containerd::cri;
use crate::process::eventually;

/// The daemon asks every minute at least.
const PATIENCE: Duration = Duration::from_secs(90);

/// The runtime; it ends when it is dropped.
#[derive(Debug)]
pub struct Forgetful {
    books: Arc<Mutex<Books>>,
    serving: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Books {
    sandboxes: BTreeSet<String>,
    n_asked: u64,
}

impl Forgetful {
    /// Serves at `socket`.
    ///
    /// # Errors
    ///
    /// If it cannot listen there.
    pub fn start(socket: &Path) -> Result<Self> {
        let books = Arc::<Mutex<Books>>::default();
        let listener = UnixListener::bind(socket).context("listen as the runtime")?;
        let connections = stream::try_unfold(listener, async |listener| {
            let (connection, _) = listener.accept().await?;
            Ok::<_, std::io::Error>(Some((connection, listener)))
        });
        let server = Server::builder().add_service(Answers(Arc::clone(&books)));
        let serving = async { drop(server.serve_with_incoming(connections.into_stream()).await) };
        Ok(Self { books, serving: tokio::spawn(serving) })
    }

    /// From now on it has these sandboxes, and waits until somebody has learnt it.
    ///
    /// # Errors
    ///
    /// If nobody asks.
    pub async fn has(&self, sandboxes: impl IntoIterator<Item = &str>) -> Result<()> {
        let sandboxes = sandboxes.into_iter().map(str::to_owned).collect();
        *self.books.lock().unwrap_or_else(PoisonError::into_inner) =
            Books { sandboxes, n_asked: 0 };
        eventually("question to the runtime", PATIENCE, async || {
            let books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
            ensure!(books.n_asked > 0, "nobody has asked");
            Ok(())
        })
        .await
    }
}

impl Drop for Forgetful {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

#[derive(Debug, Clone)]
struct Answers(Arc<Mutex<Books>>);

impl NamedService for Answers {
    const NAME: &'static str = "runtime.v1.RuntimeService";
}

impl UnaryService<cri::ListPodSandboxRequest> for Answers {
    type Response = cri::ListPodSandboxResponse;
    type Future = Ready<Result<tonic::Response<Self::Response>, tonic::Status>>;

    fn call(&mut self, _: tonic::Request<cri::ListPodSandboxRequest>) -> Self::Future {
        let mut books = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        books.n_asked += 1;
        let sandbox = |id: &String| cri::PodSandbox { id: id.clone(), metadata: None };
        let items = books.sandboxes.iter().map(sandbox).collect();
        ready(Ok(tonic::Response::new(cri::ListPodSandboxResponse { items })))
    }
}

impl tower::Service<Request<Body>> for Answers {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answers = self.clone();
        Box::pin(async move {
            if request.uri().path() != "/runtime.v1.RuntimeService/ListPodSandbox" {
                return Ok(tonic::Status::unimplemented("").into_http());
            }
            let codec = ProstCodec::<cri::ListPodSandboxResponse, _>::default();
            Ok(Grpc::new(codec).unary(answers, request).await)
        })
    }
}

//! Asks the container runtime, over the CRI, which sandboxes it has. Where it cannot be asked, as in a
//! container into which nobody has mounted its socket, nothing is known, and nothing depends on it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

use crate::chain;

/// It answers within milliseconds, and the look does not wait longer for it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Of `runtime.v1`; without a filter it tells of all, in whatever state.
const LIST: PathAndQuery = PathAndQuery::from_static("/runtime.v1.RuntimeService/ListPodSandbox");

/// `runtime.v1.ListPodSandboxResponse`, as far as it matters.
#[derive(Clone, PartialEq, prost::Message)]
struct Listed {
    #[prost(message, repeated, tag = "1")]
    items: Vec<Sandbox>,
}

/// `runtime.v1.PodSandbox`, as far as it matters.
#[derive(Clone, PartialEq, prost::Message)]
struct Sandbox {
    #[prost(string, tag = "1")]
    id: String,
}

/// The ids of its sandboxes, by the runtime that listens on `socket`; `None` if it does not answer, or
/// if nobody is to be asked.
pub(crate) async fn sandboxes(socket: Option<&Path>) -> Option<BTreeSet<String>> {
    let socket = socket?;
    let why = match tokio::time::timeout(PATIENCE, ask(socket.to_owned())).await {
        Ok(Ok(sandboxes)) => return Some(sandboxes),
        Ok(Err(fault)) => chain(&*fault),
        Err(_late) => "it takes too long".to_owned(),
    };
    tracing::debug!(socket = %socket.display(), why, "the container runtime cannot be asked");
    None
}

async fn ask(
    socket: PathBuf,
) -> Result<BTreeSet<String>, Box<dyn std::error::Error + Send + Sync>> {
    let dial = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://runtime").connect_with_connector(dial).await?;
    let mut client = Grpc::new(channel);
    client.ready().await?;
    let codec = ProstCodec::<(), Listed>::default();
    let listed = client.unary(tonic::Request::new(()), LIST, codec).await?.into_inner();
    Ok(listed.items.into_iter().map(|sandbox| sandbox.id).collect())
}

#[cfg(test)]
mod tests;

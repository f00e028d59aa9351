//! Asks the container runtime, over the CRI, which sandboxes it has. The runtime may be out of reach, as
//! in a container without its socket; then its sandboxes are unknown, and nothing depends on them.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

/// A runtime answers within milliseconds, and the poll of the pods waits no longer for it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Without a filter it lists all sandboxes, in whatever state. Source: `runtime.v1` of the CRI.
const LIST: PathAndQuery = PathAndQuery::from_static("/runtime.v1.RuntimeService/ListPodSandbox");

/// `runtime.v1.ListPodSandboxResponse`: the part that matters here.
#[derive(Clone, PartialEq, prost::Message)]
struct Listed {
    #[prost(message, repeated, tag = "1")]
    items: Vec<Sandbox>,
}

/// `runtime.v1.PodSandbox`: the part that matters here.
#[derive(Clone, PartialEq, prost::Message)]
struct Sandbox {
    #[prost(string, tag = "1")]
    id: String,
}

/// The ids of the sandboxes that the runtime on `socket` lists. `None` if it does not answer, or without
/// a socket.
pub(crate) async fn sandboxes(socket: Option<&Path>) -> Option<BTreeSet<String>> {
    let socket = socket?;
    let why = match tokio::time::timeout(PATIENCE, ask(socket)).await {
        Ok(Ok(sandboxes)) => return Some(sandboxes),
        Ok(Err(fault)) => format!("{fault:#}"),
        Err(_late) => "it takes too long".to_owned(),
    };
    tracing::debug!(socket = %socket.display(), why, "the container runtime cannot be asked");
    None
}

async fn ask(socket: &Path) -> anyhow::Result<BTreeSet<String>> {
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
    let mut client = Grpc::new(endpoint.connect().await?);
    client.ready().await?;
    let codec = ProstCodec::<(), Listed>::default();
    let listed = client.unary(tonic::Request::new(()), LIST, codec).await?.into_inner();
    Ok(listed.items.into_iter().map(|sandbox| sandbox.id).collect())
}

#[cfg(test)]
mod tests;

//! Asks the container runtime, over the CRI, which sandboxes it has. The runtime may be out of reach, for
//! instance in a container without its socket. Then its sandboxes are unknown, and nothing depends on them.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

/// A runtime answers within milliseconds. The pod poll waits at most this long.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Without a filter the call lists all sandboxes, in every state. Source: `runtime.v1` of the CRI.
const LIST: PathAndQuery = PathAndQuery::from_static("/runtime.v1.RuntimeService/ListPodSandbox");

/// `runtime.v1.ListPodSandboxResponse`: only the fields that are used here.
#[derive(Clone, PartialEq, prost::Message)]
struct Listed {
    #[prost(message, repeated, tag = "1")]
    items: Vec<Sandbox>,
}

/// `runtime.v1.PodSandbox`: only the fields that are used here.
#[derive(Clone, PartialEq, prost::Message)]
struct Sandbox {
    #[prost(string, tag = "1")]
    id: String,
}

/// The ids of the sandboxes that the runtime on `socket` lists. `None` without a socket, and if the runtime
/// does not answer.
pub(crate) async fn sandboxes(socket: Option<&Path>) -> Option<BTreeSet<String>> {
    let socket = socket?;
    let why = match tokio::time::timeout(TIMEOUT, ask(socket)).await {
        Ok(Ok(sandboxes)) => return Some(sandboxes),
        Ok(Err(fault)) => format!("{fault:#}"),
        Err(_late) => format!("no answer within {TIMEOUT:?}"),
    };
    tracing::debug!(socket = %socket.display(), why, "the container runtime does not list its sandboxes");
    None
}

async fn ask(socket: &Path) -> anyhow::Result<BTreeSet<String>> {
    proto::socket::check_owner(socket)?;
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
    let mut client = Grpc::new(endpoint.connect().await?);
    client.ready().await?;
    let codec = ProstCodec::<(), Listed>::default();
    let listed = client.unary(tonic::Request::new(()), LIST, codec).await?.into_inner();
    Ok(listed.items.into_iter().map(|sandbox| sandbox.id).collect())
}

#[cfg(test)]
mod tests;

//! AWS's network policy agent as the daemon meets it on a node: it takes calls at its socket, and asks how to work.

use std::fs::File;
use std::io;
use std::net::TcpStream as StdStream;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use futures::stream;
use hyper_util::rt::TokioIo;
use proto::policy_agent::config_server_backend_client::ConfigServerBackendClient;
use proto::policy_agent::np_backend_server::{NpBackend, NpBackendServer};
use proto::policy_agent::{
    DeleteNpReply, DeleteNpRequest, EnforceNpReply, EnforceNpRequest, NetworkPolicyAgentConfigReply,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::{TcpStream, UnixListener};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint, Server, Uri};
use tonic::{Request, Response, Status};
use tower::service_fn;

use crate::process::{in_netns, output};

/// How the agent behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaves {
    /// It does what it is asked for.
    Well,
    /// It fails each call.
    Fails,
    /// It answers each call without success.
    Declines,
    /// It takes each call and never answers.
    Hangs,
}

/// A call that has come, with the pod's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// A pod begins.
    Enforce {
        /// Its namespace and name.
        pod: String,
        /// As sent.
        mode: String,
        /// As sent.
        links: i32,
    },
    /// A pod has ended.
    Delete(String),
}

/// A running agent. Dropping it ends it.
#[derive(Debug)]
pub struct PolicyAgent {
    calls: Arc<Mutex<Vec<Call>>>,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Drop for PolicyAgent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl PolicyAgent {
    /// Listens at `npa.sock` beside the daemon's socket, on the node whose network namespace is `netns`.
    ///
    /// # Errors
    ///
    /// If it cannot listen.
    pub fn start(daemon: &Path, netns: &str, behaves: Behaves) -> Result<Self> {
        let socket = daemon.with_file_name("npa.sock");
        // As the agent does.
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).context("listen as the policy agent")?;
        let calls = Arc::default();
        let service = Service { calls: Arc::clone(&calls), netns: netns.to_owned(), behaves };
        let accepting = stream::unfold(listener, |listener| async move {
            let accepted = listener.accept().await.map(|(connection, _)| connection);
            Some((accepted, listener))
        });
        let server = Server::builder().add_service(NpBackendServer::new(service));
        let task = tokio::spawn(server.serve_with_incoming(accepting));
        Ok(Self { calls, task })
    }

    /// The calls that have come since the last time.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What an agent of version 1.4.1 or later learns when it starts.
///
/// # Errors
///
/// If the daemon does not serve it.
pub async fn ask(daemon: &Path) -> Result<NetworkPolicyAgentConfigReply> {
    let endpoint = Endpoint::from_shared(format!("unix://{}", daemon.display()))?;
    asked(endpoint.connect().await?).await
}

/// What an earlier agent learns on the node whose network namespace is `netns`.
///
/// # Errors
///
/// If the daemon does not serve it.
pub async fn ask_by_tcp(netns: &str) -> Result<NetworkPolicyAgentConfigReply> {
    let path = format!("/run/netns/{netns}");
    let connector = service_fn(move |_: Uri| {
        let path = path.clone();
        async move {
            // A thread of its own, since the namespace is the thread's.
            let connecting = std::thread::spawn(move || connect_in(&path));
            let stream = connecting.join().expect("it does not panic")?;
            io::Result::Ok(TokioIo::new(TcpStream::from_std(stream)?))
        }
    });
    asked(Endpoint::from_static("http://ipamd").connect_with_connector(connector).await?).await
}

fn connect_in(netns: &str) -> io::Result<StdStream> {
    let netns = File::open(netns)?;
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
    let stream = StdStream::connect(("127.0.0.1", 50051))?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

async fn asked(channel: Channel) -> Result<NetworkPolicyAgentConfigReply> {
    let mut client = ConfigServerBackendClient::new(channel);
    Ok(client.get_network_policy_configs(()).await?.into_inner())
}

struct Service {
    calls: Arc<Mutex<Vec<Call>>>,
    netns: String,
    behaves: Behaves,
}

impl Service {
    async fn take(&self, call: Call) -> Result<bool, Status> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
        match self.behaves {
            Behaves::Well => Ok(true),
            Behaves::Fails => Err(Status::unknown("attach failed")),
            Behaves::Declines => Ok(false),
            Behaves::Hangs => std::future::pending().await,
        }
    }
}

#[tonic::async_trait]
impl NpBackend for Service {
    async fn enforce_np_to_pod(
        &self,
        request: Request<EnforceNpRequest>,
    ) -> Result<Response<EnforceNpReply>, Status> {
        let EnforceNpRequest { pod_name, pod_namespace, mode, interface_count: links } =
            request.into_inner();
        let pod = format!("{pod_namespace}.{pod_name}");
        find_link(&self.netns, &pod)
            .await
            .map_err(|fault| Status::unknown(format!("{fault:#}")))?;
        let success = self.take(Call::Enforce { pod, mode, links }).await?;
        Ok(Response::new(EnforceNpReply { success }))
    }

    async fn delete_pod_np(
        &self,
        request: Request<DeleteNpRequest>,
    ) -> Result<Response<DeleteNpReply>, Status> {
        let DeleteNpRequest { pod_name, pod_namespace } = request.into_inner();
        let success = self.take(Call::Delete(format!("{pod_namespace}.{pod_name}"))).await?;
        Ok(Response::new(DeleteNpReply { success }))
    }
}

/// The agent computes the name of a pod's link, and attaches to nothing else.
/// Source: aws-network-policy-agent v1.4.3, `pkg/utils/utils.go`, `GetHostVethName`.
async fn find_link(netns: &str, pod: &str) -> Result<()> {
    let sum = output(Command::new("sh").args(["-c", "printf %s \"$0\" | sha1sum", pod])).await?;
    let name = format!("eni{}", sum.get(..11).context("no sum")?);
    let links = output(in_netns(netns, "ip").args(["-o", "link"])).await?;
    ensure!(links.contains(&format!(" {name}@")), "there is no link {name}");
    Ok(())
}

//! How a subcommand asks the daemon on this node one question.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use command_line::{Exit, Failure, Output};
use proto::v1::ipam_client::IpamClient;
use proto::v1::{ReadyRequest, Refused, ViewReply, ViewRequest};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

/// A running daemon answers within milliseconds.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Whom to ask, and how to print the answer.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Arguments {
    /// Where the daemon listens. By default the value of `TIDEPOOL_SOCKET`, or its default.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

/// The daemon's answer to `question`. Without a `socket` the settings name it.
///
/// # Errors
///
/// [`Exit::NoAnswer`] if nobody answers in time, or if the socket is another user's.
pub(crate) fn ask<T>(
    socket: Option<&Path>,
    question: impl AsyncFnOnce(IpamClient<Channel>) -> Result<Response<T>, Status>,
) -> Result<T, Failure> {
    let socket = path(socket)?;
    let runtime = runtime()?;
    let asking = async {
        let client = connect(&socket).await?;
        question(client).await.map_err(|status| fault(&status))
    };
    let answer = runtime.block_on(async { tokio::time::timeout(TIMEOUT, asking).await });
    let no_answer = |why: &str| {
        let socket = socket.display();
        Failure::new(Exit::NoAnswer, format!("no ipamd answers on {socket}: {why}"))
    };
    answer
        .map_err(|_late| no_answer("no answer within 5 s"))?
        .map(Response::into_inner)
        .map_err(|why| no_answer(&why))
}

/// The refusal that an ADD would get now; `None` if a pod would get an address.
///
/// # Errors
///
/// As [`ask`].
pub(crate) fn ready(socket: &Path) -> Result<Option<Refused>, Failure> {
    let reply = ask(Some(socket), async |mut client| client.ready(ready_request()).await)?;
    Ok(reply.not_ready)
}

/// As [`ready`], for a caller that has a runtime. The error is one line.
pub(crate) async fn ready_now(socket: &Path) -> Result<Option<Refused>, String> {
    let asking = async {
        let mut client = connect(socket).await?;
        let reply = client.ready(ready_request()).await;
        reply.map_err(|status| fault(&status))
    };
    let reply = tokio::time::timeout(TIMEOUT, asking).await;
    let reply = reply.map_err(|_late| format!("no answer within {} s", TIMEOUT.as_secs()))??;
    Ok(reply.into_inner().not_ready)
}

/// The daemon's view of its pool, for a caller that has a runtime. The error is one line.
pub(crate) async fn view_now(socket: &Path) -> Result<ViewReply, String> {
    let asking = async {
        let mut client = connect(socket).await?;
        client.view(ViewRequest {}).await.map_err(|status| fault(&status))
    };
    let reply = tokio::time::timeout(TIMEOUT, asking).await;
    let reply = reply.map_err(|_late| format!("no answer within {} s", TIMEOUT.as_secs()))??;
    Ok(reply.into_inner())
}

fn ready_request() -> ReadyRequest {
    ReadyRequest { client_version: proto::VERSION.to_owned() }
}

/// A refusal in one line.
pub(crate) fn refusal(Refused { code, message, .. }: Refused) -> String {
    format!("{code}: {message}")
}

/// The daemon's socket: `given`, or the one that the settings name.
pub(crate) fn path(given: Option<&Path>) -> Result<PathBuf, Failure> {
    Ok(given.map_or_else(settings::socket_of_process, |socket| Ok(socket.to_owned()))?)
}

/// A runtime for one question.
pub(crate) fn runtime() -> Result<Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.context("start the runtime")?)
}

/// Whose daemon listens on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listener {
    /// That of this container, or any daemon if the caller is in no container.
    Here,
    /// That of another container.
    Elsewhere,
}

/// Who listens on `socket`; `None` if nobody does, or if the socket is another user's.
pub(crate) fn listener(socket: &Path) -> Result<Option<Listener>, Failure> {
    if proto::socket::check_owner(socket).is_err() {
        return Ok(None);
    }
    let peer = async { UnixStream::connect(socket).await?.peer_cred() };
    let peer = runtime()?.block_on(async { tokio::time::timeout(TIMEOUT, peer).await });
    let Ok(Ok(peer)) = peer else { return Ok(None) };
    Ok(Some(if is_here(peer.pid()) { Listener::Here } else { Listener::Elsewhere }))
}

/// Whether a process is in this container. The kernel shows pid 0 for one in another PID namespace. With the node's
/// PID namespace the containers still have mount namespaces of their own. A caller that shares that of pid 1 is in
/// no container, or is the only one in it.
fn is_here(pid: Option<i32>) -> bool {
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    let own = namespace("self");
    pid.filter(|pid| *pid > 0)
        .is_some_and(|pid| own == namespace(&pid.to_string()) || own == namespace("1"))
}

async fn connect(socket: &Path) -> Result<IpamClient<Channel>, String> {
    proto::socket::check_owner(socket).map_err(|fault| fault.to_string())?;
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()));
    let connecting = async { endpoint?.connect().await };
    connecting.await.map(IpamClient::new).map_err(|fault| cause(&fault))
}

/// Why the daemon has answered without an answer.
fn fault(status: &Status) -> String {
    match status.code() {
        Code::Unimplemented => {
            "it is older than this command, and does not know the question".to_owned()
        }
        _ => status.message().to_owned(),
    }
}

/// The innermost cause. The errors that the transport wraps around it add nothing.
pub(crate) fn cause(fault: &dyn std::error::Error) -> String {
    std::iter::successors(Some(fault), |fault| fault.source())
        .last()
        .map_or_else(String::new, ToString::to_string)
}

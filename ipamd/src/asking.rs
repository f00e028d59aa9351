//! How a subcommand asks the daemon on this node one question.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use command_line::{Exit, Failure};
use proto::v1::ipam_client::IpamClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

/// A running daemon answers within milliseconds.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The daemon's answer to `question`. Without a `socket` the settings name it.
///
/// # Errors
///
/// [`Exit::NoAnswer`] if nobody answers in time, or if the socket is another user's.
pub(crate) fn ask<T>(
    socket: Option<&Path>,
    question: impl AsyncFnOnce(IpamClient<Channel>) -> Result<Response<T>, Status>,
) -> Result<T, Failure> {
    let socket = socket.map_or_else(settings::socket_of_process, |socket| Ok(socket.to_owned()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let asking = async {
        let client = connect(&socket).await?;
        question(client).await.map_err(|status| status.message().to_owned())
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

async fn connect(socket: &Path) -> Result<IpamClient<Channel>, String> {
    proto::socket::check_owner(socket).map_err(|fault| fault.to_string())?;
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()));
    let connecting = async { endpoint?.connect().await };
    connecting.await.map(IpamClient::new).map_err(|fault| cause(&fault))
}

/// The innermost cause. The errors that the transport wraps around it add nothing.
fn cause(fault: &dyn std::error::Error) -> String {
    std::iter::successors(Some(fault), |fault| fault.source())
        .last()
        .map_or_else(String::new, ToString::to_string)
}

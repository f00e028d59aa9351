//! `ipamd status`: the pool of the daemon on this node, as a table or as JSON.

mod json;
mod table;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use command_line::{Exit, Failure, Output};
use proto::v1::ipam_client::IpamClient;
use proto::v1::{ViewReply, ViewRequest};
use tonic::transport::Endpoint;

/// A running daemon answers within milliseconds.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The arguments of `status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where the daemon listens. By default the value of `TIDEPOOL_SOCKET`, or its default.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Asks the daemon for its pool and prints it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let socket = arguments.socket.clone().map_or_else(settings::socket_of_process, Ok)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let asking = async { tokio::time::timeout(TIMEOUT, ask(&socket)).await };
    let no_answer = |why: &str| {
        let socket = socket.display();
        Failure::new(Exit::NoAnswer, format!("no ipamd answers on {socket}: {why}"))
    };
    let view = runtime
        .block_on(asking)
        .map_err(|_late| no_answer("no answer within 5 s"))?
        .map_err(|why| no_answer(&why))?;
    let text = match arguments.output {
        Output::Table => table::render(&view, SystemTime::now()),
        Output::Json => json::render(&view).context("write the pool as JSON")?,
    };
    std::io::stdout().write_all(text.as_bytes()).context("print the pool")?;
    Ok(())
}

async fn ask(socket: &Path) -> Result<ViewReply, String> {
    proto::socket::check_owner(socket).map_err(|fault| fault.to_string())?;
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()));
    let connecting = async { endpoint?.connect().await };
    let channel = connecting.await.map_err(|fault| cause(&fault))?;
    let reply = IpamClient::new(channel).view(ViewRequest {}).await;
    reply.map(tonic::Response::into_inner).map_err(|status| status.message().to_owned())
}

/// The innermost cause. The errors that the transport wraps around it add nothing.
fn cause(fault: &dyn std::error::Error) -> String {
    std::iter::successors(Some(fault), |fault| fault.source())
        .last()
        .map_or_else(String::new, ToString::to_string)
}

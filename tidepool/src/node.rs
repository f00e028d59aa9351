//! `tidepool node`: a question to the daemon of one node, from a desk.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::Context as _;
use command_line::Failure;

use crate::kubectl;

/// The API server answers within a second.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The arguments of `node`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    kubectl: kubectl::Arguments,
    /// The node.
    #[arg(value_name = "NODE")]
    node: String,
    /// What to ask: a command of ipamd with its arguments, such as `why default/web-0`.
    #[arg(
        value_name = "COMMAND",
        default_value = "status",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<OsString>,
}

/// Becomes `kubectl exec`, so output and exit code are those of the node's `ipamd`.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { kubectl, node, command } = arguments;
    let daemons = kubectl.daemons(Some(node), TIMEOUT)?;
    let daemon = daemons.into_iter().find(|daemon| daemon.node == *node);
    let daemon = daemon.with_context(|| {
        format!("no pod of the daemon is on node {node}; `kubectl get nodes` lists the nodes")
    })?;
    Err(kubectl::become_command(kubectl.ipamd(&daemon, command)).into())
}

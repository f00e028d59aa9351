//! `ipamd why`: which address a pod has, or why it has none.

mod json;
mod text;

use anyhow::Context as _;
use command_line::{Exit, Failure, Output};
use proto::v1::why_request::Whom;
use proto::v1::{Pod, WhyReply, WhyRequest};

use crate::asking;
use crate::status::{json::pretty, print};

/// The arguments of `why`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// `namespace/name` of a pod, or the id of a container or sandbox, or its start.
    #[arg(value_name = "POD", value_parser = parse)]
    whom: Asked,
    #[command(flatten)]
    asking: asking::Arguments,
}

/// Whose address is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    /// A pod's.
    Pod { namespace: String, name: String },
    /// A container's; this is its id or the start of that.
    Container(String),
}

fn parse(text: &str) -> Result<Asked, String> {
    match text.split_once('/') {
        None if text.is_empty() => Err("expected namespace/name or a container id".to_owned()),
        None => Ok(Asked::Container(text.to_owned())),
        Some((namespace, name)) if namespace.is_empty() || name.is_empty() => {
            Err("expected namespace/name".to_owned())
        }
        Some((_, name)) if name.contains('/') => {
            Err("expected one slash: namespace/name".to_owned())
        }
        Some((namespace, name)) => {
            Ok(Asked::Pod { namespace: namespace.to_owned(), name: name.to_owned() })
        }
    }
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pod { namespace, name } => write!(f, "pod {namespace}/{name}"),
            Self::Container(id) => write!(f, "container {id}"),
        }
    }
}

impl From<Asked> for WhyRequest {
    fn from(asked: Asked) -> Self {
        let whom = match asked {
            Asked::Pod { namespace, name } => {
                Whom::Pod(Pod { namespace, name, uid: String::new() })
            }
            Asked::Container(id) => Whom::ContainerId(id),
        };
        Self { whom: Some(whom) }
    }
}

/// Asks the daemon about one pod and prints the answer.
///
/// # Errors
///
/// [`Exit::UnknownPod`] if the daemon knows nothing of it, with what that means. JSON is printed all the same.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { whom, asking } = arguments;
    let reply = asking::ask(asking.socket.as_deref(), async |mut client| {
        client.why(WhyRequest::from(whom.clone())).await
    })?;
    let is_known = !reply.attachments.is_empty() || reply.last_refusal.is_some();
    match asking.output {
        Output::Json => {
            print(&pretty(&json::shape(&reply)).context("write the answer as JSON")?)?;
        }
        Output::Table if is_known => print(&text::render(&reply))?,
        Output::Table => {}
    }
    if is_known { Ok(()) } else { Err(unknown(whom, &reply)) }
}

fn unknown(whom: &Asked, reply: &WhyReply) -> Failure {
    let since = text::span(reply.started_ms, reply.now_ms);
    let ready = match &reply.not_ready {
        None => "this node serves pods now".to_owned(),
        Some(refused) => {
            format!("this node serves no pod now ({}: {})", refused.code, refused.message)
        }
    };
    let bound = match reply.expected_ms {
        0 => String::new(),
        at => format!(
            "the API server has shown it on this node for {}, and it counts as demand for the first minute of that; ",
            text::span(at, reply.now_ms)
        ),
    };
    let message = format!(
        "the daemon has never heard of {whom}: it has no address on record, and no ADD has come since the \
         daemon's start {since} ago. Either the pod is not bound to this node, or the container runtime has not \
         called the plugin for it yet, or it is on the host network; see `kubectl describe pod`; {bound}{ready}"
    );
    Failure::new(Exit::UnknownPod, message)
}

#[cfg(test)]
mod tests;

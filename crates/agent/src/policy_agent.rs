//! AWS's network policy agent on this node: it is told which pods begin and end, and it asks how it has to work.
//!
//! The agent answers in its own time, and may be dead or hung. So every call has a bound, an ADD without the agent's
//! answer fails, and a DEL goes on.

mod config;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use hyper_util::rt::TokioIo;
use ipam::id::{AttachmentKey, Pod};
use ipam::record::Assignment;
use ipam::standing::Whom;
use proto::policy_agent::np_backend_client::NpBackendClient;
use proto::policy_agent::{DeleteNpRequest, EnforceNpRequest};
use proto::v1;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};
use tower::service_fn;

pub(crate) use self::config::{ConfigService, serve_forever};
use crate::error_chain;
use crate::handle::Handle;
use crate::metrics::{PolicyCall, PolicyCalls, PolicyOutcome};
use crate::service::MAIN_INTERFACE;

/// How long an ADD waits for an agent that does not listen. amazon-vpc-cni-k8s v1.23.1 waits as long.
const AWAY_FOR: Duration = Duration::from_secs(2);
/// The pause between two attempts to reach it.
const RETRY_EVERY: Duration = Duration::from_millis(50);
/// How long an ADD waits for the agent in all. The first pod of a set of policies takes it some 0.1 s, and it serves many
/// pods one after the other.
const ENFORCE_WITHIN: Duration = Duration::from_secs(10);
/// How long a DEL waits for the agent in all. The plugin allows two seconds for taking a failed ADD back.
const DELETE_WITHIN: Duration = Duration::from_secs(1);
/// The number of pods of one GC about which the agent is called at once.
const AT_ONCE: usize = 32;
/// Bytes of the agent's own words that go on to the runtime.
const LONGEST_ANSWER: usize = 500;

/// How pods start under network policies: `NETWORK_POLICY_ENFORCING_MODE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnforcingMode {
    /// A pod may send and receive everything until its policies are known.
    Standard,
    /// A pod may send and receive nothing until then.
    Strict,
}

impl EnforcingMode {
    fn as_str(self) -> &'static str {
        match self {
            EnforcingMode::Standard => "standard",
            EnforcingMode::Strict => "strict",
        }
    }
}

/// How the agent is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyAgentConfig {
    /// What the agent is told about pods and about itself.
    pub mode: EnforcingMode,
    /// The node's region. The agent is told it.
    pub region: String,
}

/// The agent at a socket. Clones share what is known of it.
#[derive(Debug, Clone)]
pub(crate) struct PolicyAgent(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    socket: PathBuf,
    mode: EnforcingMode,
    calls: PolicyCalls,
    /// The attachments whose links the agent polices, as far as this daemon has heard it say so.
    policed: Mutex<BTreeSet<AttachmentKey>>,
}

/// Whether the agent was asked for a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policed {
    /// Just now, with success.
    Now,
    /// It was not asked: it had said so before, or it polices no such attachment.
    Unasked,
}

/// Why the agent has not done what it was asked for.
#[derive(Debug, thiserror::Error)]
enum CallFault {
    #[error("nobody answers at {}: {cause}", socket.display())]
    Away { socket: PathBuf, cause: String },
    #[error("the agent at {} does not answer in time", socket.display())]
    Silent { socket: PathBuf },
    #[error("the agent at {} refuses: {answer}", socket.display())]
    Refuses { socket: PathBuf, answer: String },
}

impl CallFault {
    fn outcome(&self) -> PolicyOutcome {
        match self {
            CallFault::Away { .. } => PolicyOutcome::Away,
            CallFault::Silent { .. } => PolicyOutcome::Silent,
            CallFault::Refuses { .. } => PolicyOutcome::Refused,
        }
    }

    /// What the runtime shows. docs/errors.md lists the codes.
    fn refusal(&self) -> v1::Refused {
        let code = match self {
            CallFault::Away { .. } | CallFault::Silent { .. } => "POLICY_AGENT_AWAY",
            CallFault::Refuses { .. } => "POLICY_AGENT_REFUSES",
        };
        let message = format!("network policies: {self}; see the log of aws-eks-nodeagent");
        v1::Refused { code: code.to_owned(), message, retry_after_ms: 0 }
    }
}

impl PolicyAgent {
    /// The agent whose socket is beside that of the daemon.
    pub(crate) fn beside(socket: &Path, mode: EnforcingMode, calls: PolicyCalls) -> Self {
        let socket = socket.with_file_name("npa.sock");
        Self(Arc::new(Shared { socket, mode, calls, policed: Mutex::default() }))
    }

    /// The attachment gets a new link, which the agent does not know.
    pub(crate) fn begin(&self, key: &AttachmentKey) {
        self.policed(|policed| policed.remove(key));
    }

    /// Has the agent police the link of the attachment, unless it does so already. The link exists. If the caller gives up
    /// after `patience`, there is an answer before that.
    ///
    /// # Errors
    ///
    /// A refusal as the details of a status, if the agent does not answer or refuses.
    pub(crate) async fn police(
        &self,
        key: &AttachmentKey,
        pod: &Pod,
        patience: Option<Duration>,
    ) -> Result<Policed, Status> {
        let mut known = self.policed(|policed| policed.contains(key));
        known |= !is_policed(key, pod);
        if known {
            return Ok(Policed::Unasked);
        }
        // A tenth is for the way of the answer.
        let within = ENFORCE_WITHIN.min(patience.unwrap_or(ENFORCE_WITHIN) * 9 / 10);
        let request = EnforceNpRequest {
            pod_name: pod.name.clone(),
            pod_namespace: pod.namespace.clone(),
            mode: self.0.mode.as_str().to_owned(),
            interface_count: 1,
        };
        let made = self.call(within, AWAY_FOR, async |mut client| {
            Ok(client.enforce_np_to_pod(request).await?.into_inner().success)
        });
        let made = made.await;
        self.0.calls.count(PolicyCall::Enforce, outcome(&made));
        match made {
            Ok(()) => {
                self.policed(|policed| policed.insert(key.clone()));
                Ok(Policed::Now)
            }
            Err(fault) => {
                tracing::warn!(%key, fault = error_chain(&fault), "a pod's network policies are not enforced");
                Err(proto::refusal::status(&fault.refusal()))
            }
        }
    }

    /// Tells the agent that the pod of a released attachment has ended. A fault is logged.
    pub(crate) async fn forget(&self, handle: &Handle, key: &AttachmentKey, pod: &Pod) {
        self.begin(key);
        if !is_policed(key, pod) || has_other(handle, key, pod).await {
            return;
        }
        let request =
            DeleteNpRequest { pod_name: pod.name.clone(), pod_namespace: pod.namespace.clone() };
        let made = self.call(DELETE_WITHIN, Duration::ZERO, async |mut client| {
            Ok(client.delete_pod_np(request).await?.into_inner().success)
        });
        let made = made.await;
        self.0.calls.count(PolicyCall::Delete, outcome(&made));
        if let Err(fault) = made {
            let fault = error_chain(&fault);
            tracing::warn!(%key, fault, "the network policy agent does not know that a pod has ended");
        }
    }

    /// As [`forget`](Self::forget) for each of the attachments that a GC has released.
    pub(crate) async fn forget_all(
        &self,
        handle: &Handle,
        released: &[(AttachmentKey, Assignment)],
    ) {
        for some in released.chunks(AT_ONCE) {
            let forgetting = some.iter().map(|(key, held)| self.forget(handle, key, &held.pod));
            join_all(forgetting.collect::<Vec<_>>()).await;
        }
    }

    /// Makes a call `within` its bound. An agent that does not listen is tried again for `away`.
    async fn call(
        &self,
        within: Duration,
        away: Duration,
        call: impl AsyncFnOnce(NpBackendClient<Channel>) -> Result<bool, Status>,
    ) -> Result<(), CallFault> {
        let socket = || self.0.socket.clone();
        let made = async {
            let client = self.reach(Instant::now() + away).await?;
            match call(client).await {
                Ok(true) => Ok(()),
                Ok(false) => Err("it has answered without success".to_owned()),
                Err(status) if status.code() == Code::Unavailable => {
                    let cause = status.message().to_owned();
                    return Err(CallFault::Away { socket: socket(), cause });
                }
                Err(status) => Err(format!("{:?}: {}", status.code(), status.message())),
            }
            .map_err(|answer| CallFault::Refuses { socket: socket(), answer: clipped(answer) })
        };
        let made = timeout_at(Instant::now() + within, made).await;
        made.unwrap_or_else(|_late| Err(CallFault::Silent { socket: socket() }))
    }

    async fn reach(&self, until: Instant) -> Result<NpBackendClient<Channel>, CallFault> {
        loop {
            let cause = match connect(&self.0.socket).await {
                Ok(channel) => return Ok(NpBackendClient::new(channel)),
                Err(cause) => cause,
            };
            if Instant::now() + RETRY_EVERY >= until {
                return Err(CallFault::Away { socket: self.0.socket.clone(), cause });
            }
            sleep(RETRY_EVERY).await;
        }
    }

    fn policed<T>(&self, change: impl FnOnce(&mut BTreeSet<AttachmentKey>) -> T) -> T {
        change(&mut self.0.policed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether the agent polices the link of the attachment. It finds a link by the pod's names. So it polices no pod without
/// names, and only the first of a pod's links.
fn is_policed(key: &AttachmentKey, pod: &Pod) -> bool {
    key.ifname == MAIN_INTERFACE && !pod.name.is_empty() && !pod.namespace.is_empty()
}

/// Whether another sandbox of the pod is served. The agent knows the names alone, so it would forget that one.
async fn has_other(handle: &Handle, key: &AttachmentKey, pod: &Pod) -> bool {
    let whom = Whom::Pod { namespace: pod.namespace.clone(), name: pod.name.clone() };
    let Ok(standings) = handle.why(whom).await else { return false };
    standings.attachments.iter().any(|other| other.key.ifname == key.ifname && other.key != *key)
}

fn outcome(made: &Result<(), CallFault>) -> PolicyOutcome {
    made.as_ref().map_or_else(CallFault::outcome, |()| PolicyOutcome::Ok)
}

async fn connect(socket: &Path) -> Result<Channel, String> {
    // Another user's socket could answer anything.
    proto::socket::check_owner(socket).map_err(|fault| error_chain(&fault))?;
    let path = socket.to_owned();
    let connector = service_fn(move |_: Uri| {
        let path = path.clone();
        async move { io::Result::Ok(TokioIo::new(UnixStream::connect(path).await?)) }
    });
    // The connector ignores this name and connects to the socket.
    let endpoint = Endpoint::from_static("http://npa");
    endpoint.connect_with_connector(connector).await.map_err(|fault| error_chain(&fault))
}

fn clipped(mut answer: String) -> String {
    let end =
        (0..=LONGEST_ANSWER.min(answer.len())).rev().find(|end| answer.is_char_boundary(*end));
    answer.truncate(end.unwrap_or_default());
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_answer_is_clipped_between_characters() {
        assert_eq!(clipped("short".to_owned()), "short");
        assert_eq!(clipped("é".repeat(400)), "é".repeat(250));
        assert_eq!(clipped(format!("a{}", "é".repeat(400))), format!("a{}", "é".repeat(249)));
    }
}

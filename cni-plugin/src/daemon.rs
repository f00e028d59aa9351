//! The connection to `ipamd`: gRPC over its Unix socket. Every call has a deadline.
//!
//! A daemon that restarts is away for some seconds, and a runtime that gets an error comes again after
//! ten or more. So ADD and CHECK go on asking for a part of their time, see [`Daemon::wait_for`].

use std::error::Error as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cni::{Attachment, CniError, ErrorCode, Pod};
use datapath::pod::Rank;
use hyper_util::rt::TokioIo;
use proto::v1::ipam_client::IpamClient;
use proto::v1::{self, add_reply::Outcome};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Response, Status};
use tower::service_fn;

use crate::failure::{Failure, error_chain};
use crate::pod::rank;
use crate::trace;

/// How long ADD and CHECK go on asking from when they find no daemon. An upgrade takes some seconds;
/// the rest of the verb's time is for the pod.
const PATIENCE: Duration = Duration::from_secs(15);

/// The pauses between two attempts, each twice as long as the one before.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

/// The daemon at a socket.
#[derive(Debug)]
pub(crate) struct Daemon {
    socket: PathBuf,
    /// `None` until it is needed again, after the daemon was away.
    client: Option<IpamClient<Channel>>,
}

/// Why the daemon has not served a call.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonError {
    /// No process listens.
    #[error("connect to ipamd at {}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// The transport's error.
        #[source]
        source: tonic::transport::Error,
    },
    /// Another user has made the socket, and could answer anything.
    #[error(transparent)]
    Others(#[from] proto::socket::OthersSocket),
    /// The deadline passed.
    #[error("ipamd at {} has not answered {call} in time", socket.display())]
    Silent {
        /// The socket.
        socket: PathBuf,
        /// The gRPC method.
        call: &'static str,
    },
    /// The daemon answered with an error, or the connection broke.
    #[error("ipamd at {} failed {call}: {} ({:?})", socket.display(), status.message(), status.code())]
    Status {
        /// The socket.
        socket: PathBuf,
        /// The gRPC method.
        call: &'static str,
        /// The gRPC status.
        status: Box<Status>,
    },
}

impl DaemonError {
    /// Whether no daemon was there, or it went away before its answer.
    fn is_absence(&self) -> bool {
        match self {
            DaemonError::Connect { .. } => true,
            DaemonError::Others(_) | DaemonError::Silent { .. } => false,
            // A status with a source is the transport's own, whatever its code.
            DaemonError::Status { status, .. } => {
                let code = status.code();
                status.source().is_some()
                    || matches!(code, Code::Unavailable | Code::Cancelled | Code::Unknown)
            }
        }
    }

    /// Whether the daemon has rejected the request. Otherwise it is absent, hung, of another version,
    /// or about to stop.
    pub(crate) fn is_rejection(&self) -> bool {
        match self {
            DaemonError::Connect { .. } | DaemonError::Others(_) | DaemonError::Silent { .. } => {
                false
            }
            DaemonError::Status { status, .. } => {
                let code = status.code();
                !self.is_absence() && !matches!(code, Code::DeadlineExceeded | Code::Unimplemented)
            }
        }
    }

    /// The error with code 11, since a daemon is restarted.
    pub(crate) fn try_again(&self) -> CniError {
        self.with_code(ErrorCode::TryAgainLater)
    }

    /// The error of a check: the daemon's own refusal if it gives one, otherwise code 11.
    pub(crate) fn of_check(&self) -> CniError {
        if let DaemonError::Status { status, .. } = self
            && let Some(refused) = proto::refusal::of_status(status)
        {
            return crate::failure::unpoliced(&refused);
        }
        self.try_again()
    }

    /// The error for the runtime, with this code.
    pub(crate) fn with_code(&self, code: ErrorCode) -> CniError {
        CniError::new(code, "ipamd does not serve", error_chain(self) + self.advice())
    }

    fn advice(&self) -> &'static str {
        match self {
            DaemonError::Status { status, .. } if status.code() == Code::Unimplemented => {
                "; it is older than this plugin: update the daemon"
            }
            DaemonError::Others(_) => "; remove it, and ipamd makes its own",
            DaemonError::Connect { .. }
            | DaemonError::Silent { .. }
            | DaemonError::Status { .. } => "; see the log of the aws-node pod on this node",
        }
    }
}

impl Daemon {
    /// Connects to the daemon at `socket`, if one listens.
    ///
    /// # Errors
    ///
    /// [`DaemonError::Connect`], or [`DaemonError::Silent`] at `until`.
    pub(crate) async fn connect(socket: &Path, until: Instant) -> Result<Daemon, DaemonError> {
        let mut daemon = Daemon { socket: socket.to_owned(), client: None };
        daemon.client(until).await?;
        Ok(daemon)
    }

    /// Connects to the daemon at `socket`, or waits for one: for [`PATIENCE`], but not beyond `until`.
    ///
    /// # Errors
    ///
    /// As for [`Daemon::connect`].
    pub(crate) async fn wait_for(socket: &Path, until: Instant) -> Result<Daemon, DaemonError> {
        let mut daemon = Daemon { socket: socket.to_owned(), client: None };
        daemon.insist(until, async |daemon| daemon.client(until).await.map(drop)).await?;
        Ok(daemon)
    }

    /// The connection, made anew if the daemon was away.
    async fn client(&mut self, until: Instant) -> Result<&mut IpamClient<Channel>, DaemonError> {
        if self.client.is_none() {
            self.client = Some(open(&self.socket, until).await?);
        }
        Ok(self.client.as_mut().expect("it was just set"))
    }

    /// Repeats `attempt` while the daemon is away: for [`PATIENCE`], but not beyond `until`.
    async fn insist<T>(
        &mut self,
        until: Instant,
        attempt: impl AsyncFn(&mut Daemon) -> Result<T, DaemonError>,
    ) -> Result<T, DaemonError> {
        let (mut pause, longest) = PAUSES;
        let mut ends = None;
        loop {
            let error = match attempt(self).await {
                Err(error) if error.is_absence() => error,
                done => return done,
            };
            let now = Instant::now();
            let ends = *ends.get_or_insert_with(|| {
                tracing::info!(why = error_chain(&error), "waiting for ipamd");
                until.min(now + PATIENCE)
            });
            let next = now + pause;
            if next >= ends {
                return Err(error);
            }
            sleep_until(next).await;
            pause = longest.min(pause * 2);
        }
    }

    /// Asks for the attachment's addresses. If the daemon goes away, the next one is asked again: it
    /// gives an attachment the addresses that it has.
    ///
    /// # Errors
    ///
    /// Code 11 if the daemon does not answer, otherwise see [`crate::failure::refused`].
    pub(crate) async fn add(
        &mut self,
        attachment: &Attachment,
        pod: &Pod,
        netns: &Path,
        until: Instant,
    ) -> Result<v1::Granted, CniError> {
        let request = v1::AddRequest {
            attachment: Some(wire_attachment(attachment)),
            pod: Some(wire_pod(pod)),
            netns: netns.to_string_lossy().into_owned(),
            client_version: proto::VERSION.to_owned(),
            // Two interfaces of one pod would have two default routes.
            takes_node_local: rank(attachment.ifname.as_str()) == Rank::First,
        };
        let reply = self.insist(until, async |daemon| {
            let request = request.clone();
            daemon
                .call("Add", until, request, async |client, request| client.add(request).await)
                .await
        });
        match reply.await.map_err(|e| e.try_again())?.outcome {
            Some(Outcome::Granted(granted)) => Ok(granted),
            Some(Outcome::Refused(refused)) => Err(crate::failure::refused(&refused)),
            None => Err(Failure::BadAnswer.error("ipamd neither granted nor refused")),
        }
    }

    /// Releases the attachment's addresses and returns them. If the daemon cannot record the release,
    /// it retries, and the reply says so.
    pub(crate) async fn del(
        &mut self,
        attachment: &Attachment,
        pod: &Pod,
        until: Instant,
    ) -> Result<v1::DelReply, DaemonError> {
        let request = v1::DelRequest {
            attachment: Some(wire_attachment(attachment)),
            pod: Some(wire_pod(pod)),
            client_version: proto::VERSION.to_owned(),
        };
        self.call("Del", until, request, async |client, request| client.del(request).await).await
    }

    /// What the daemon has on record for the attachment. If the daemon goes away, the next
    /// one is asked again.
    pub(crate) async fn check(
        &mut self,
        attachment: &Attachment,
        until: Instant,
    ) -> Result<v1::CheckReply, DaemonError> {
        let request = v1::CheckRequest {
            attachment: Some(wire_attachment(attachment)),
            client_version: proto::VERSION.to_owned(),
        };
        let reply = self.insist(until, async |daemon| {
            let request = request.clone();
            daemon
                .call("Check", until, request, async |client, request| client.check(request).await)
                .await
        });
        reply.await
    }

    /// Whether an [`add`](Self::add) would be served.
    pub(crate) async fn ready(&mut self, until: Instant) -> Result<v1::ReadyReply, DaemonError> {
        let request = v1::ReadyRequest { client_version: proto::VERSION.to_owned() };
        self.call("Ready", until, request, async |client, request| client.ready(request).await)
            .await
    }

    /// Releases the addresses of the network's attachments that are not listed.
    pub(crate) async fn gc(
        &mut self,
        network: &str,
        valid: Vec<v1::Attachment>,
        until: Instant,
    ) -> Result<Vec<v1::Collected>, DaemonError> {
        let client_version = proto::VERSION.to_owned();
        let request = v1::GcRequest { network: network.to_owned(), valid, client_version };
        let reply =
            self.call("Gc", until, request, async |client, request| client.gc(request).await);
        Ok(reply.await?.collected)
    }

    async fn call<Q, A>(
        &mut self,
        call: &'static str,
        until: Instant,
        message: Q,
        method: impl AsyncFnOnce(&mut IpamClient<Channel>, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, DaemonError> {
        let client = self.client(until).await?;
        let mut request = Request::new(message);
        // The daemon answers before this, and names what it waits for.
        request.set_timeout(until.saturating_duration_since(Instant::now()));
        trace::pass_on(trace::context().as_ref(), &mut request);
        let answer = timeout_at(until, method(client, request)).await;
        let socket = self.socket.clone();
        let error = match answer {
            Ok(Ok(response)) => return Ok(response.into_inner()),
            Ok(Err(status)) => DaemonError::Status { socket, call, status: Box::new(status) },
            Err(_) => DaemonError::Silent { socket, call },
        };
        if error.is_absence() {
            self.client = None;
        }
        Err(error)
    }
}

async fn open(socket: &Path, until: Instant) -> Result<IpamClient<Channel>, DaemonError> {
    proto::socket::check_owner(socket)?;
    // Not tonic's own `unix://`: it brings tonic's TCP and DNS client, 105 kB (3.5 %) of the static plugin.
    let path = socket.to_owned();
    let connector = service_fn(move |_: Uri| {
        let path = path.clone();
        async move { io::Result::Ok(TokioIo::new(UnixStream::connect(path).await?)) }
    });
    // The connector ignores this name and connects to the socket.
    let endpoint = Endpoint::from_static("http://ipamd");
    let socket = socket.to_owned();
    match timeout_at(until, endpoint.connect_with_connector(connector)).await {
        Ok(Ok(channel)) => Ok(IpamClient::new(channel)),
        Ok(Err(source)) => Err(DaemonError::Connect { socket, source }),
        Err(_) => Err(DaemonError::Silent { socket, call: "connect" }),
    }
}

/// The attachment as the contract has it.
pub(crate) fn wire_attachment(attachment: &Attachment) -> v1::Attachment {
    v1::Attachment {
        network: attachment.network.as_str().to_owned(),
        container_id: attachment.container_id.as_str().to_owned(),
        ifname: attachment.ifname.as_str().to_owned(),
    }
}

fn wire_pod(pod: &Pod) -> v1::Pod {
    let Pod { namespace, name, uid } = pod.clone();
    v1::Pod { namespace, name, uid }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_about_the_request_is_a_rejection() {
        let error = |code| DaemonError::Status {
            socket: PathBuf::new(),
            call: "Del",
            status: Box::new(Status::new(code, "")),
        };
        assert!(error(Code::Internal).is_rejection());
        assert!(error(Code::InvalidArgument).is_rejection());
        assert!(!error(Code::Unavailable).is_rejection());
        assert!(!error(Code::Unimplemented).is_rejection());
        let transport = DaemonError::Status {
            socket: PathBuf::new(),
            call: "Del",
            status: Box::new(Status::from_error(Box::new(io::Error::other("broken")))),
        };
        assert!(!transport.is_rejection() && transport.is_absence());
        assert!(!error(Code::Unimplemented).is_absence() && !error(Code::Internal).is_absence());
    }
}

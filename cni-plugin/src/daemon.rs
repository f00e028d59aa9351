//! The connection to `ipamd`: gRPC over its Unix socket. Every call has a deadline.

use std::io;
use std::path::{Path, PathBuf};

use cni::{Attachment, CniError, ErrorCode, Pod};
use hyper_util::rt::TokioIo;
use proto::v1::ipam_client::IpamClient;
use proto::v1::{self, add_reply::Outcome};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Response, Status};
use tower::service_fn;

use crate::failure::{Failure, error_chain};

/// A connection to the daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    client: IpamClient<Channel>,
    socket: PathBuf,
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
    /// Whether the daemon has rejected the request. Otherwise it is absent, hung, of another version,
    /// or about to stop.
    pub(crate) fn is_rejection(&self) -> bool {
        match self {
            DaemonError::Connect { .. } | DaemonError::Silent { .. } => false,
            DaemonError::Status { status, .. } => !matches!(
                status.code(),
                Code::Unavailable
                    | Code::DeadlineExceeded
                    | Code::Cancelled
                    | Code::Unknown
                    | Code::Unimplemented
            ),
        }
    }

    /// The error with code 11, since a daemon is restarted.
    pub(crate) fn try_again(&self) -> CniError {
        self.with_code(ErrorCode::TryAgainLater)
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
            DaemonError::Connect { .. }
            | DaemonError::Silent { .. }
            | DaemonError::Status { .. } => "; see the log of the aws-node pod on this node",
        }
    }
}

impl Daemon {
    /// Connects to the daemon at `socket`.
    ///
    /// # Errors
    ///
    /// [`DaemonError::Connect`], or [`DaemonError::Silent`] at `until`.
    pub(crate) async fn connect(socket: &Path, until: Instant) -> Result<Daemon, DaemonError> {
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
            Ok(Ok(channel)) => Ok(Daemon { client: IpamClient::new(channel), socket }),
            Ok(Err(source)) => Err(DaemonError::Connect { socket, source }),
            Err(_) => Err(DaemonError::Silent { socket, call: "connect" }),
        }
    }

    /// Asks for the attachment's addresses.
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
        };
        let reply =
            self.call("Add", until, request, async |client, request| client.add(request).await);
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

    /// The addresses that the daemon has on record for the attachment.
    pub(crate) async fn check(
        &mut self,
        attachment: &Attachment,
        until: Instant,
    ) -> Result<Vec<v1::PodAddress>, DaemonError> {
        let request = v1::CheckRequest {
            attachment: Some(wire_attachment(attachment)),
            client_version: proto::VERSION.to_owned(),
        };
        let reply =
            self.call("Check", until, request, async |client, request| client.check(request).await);
        Ok(reply.await?.addresses)
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
        let mut request = Request::new(message);
        // The daemon answers before this, and names what it waits for.
        request.set_timeout(until.saturating_duration_since(Instant::now()));
        match timeout_at(until, method(&mut self.client, request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => {
                let (socket, status) = (self.socket.clone(), Box::new(status));
                Err(DaemonError::Status { socket, call, status })
            }
            Err(_) => Err(DaemonError::Silent { socket: self.socket.clone(), call }),
        }
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
    }
}

//! The gRPC service: each method checks its message, asks the loop and converts the answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ipam::event::{Answer, Refusal};
use ipam::id::Pod;
use ipam::policy::Node;
use proto::v1;
use proto::v1::add_reply::Outcome;
use proto::v1::ipam_server::Ipam;
use tokio::sync::mpsc;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status};

use crate::PodLinks;
use crate::adding::Adding;
use crate::handle::{Handle, Stopped};
use crate::metrics::Counters;
use crate::notes::Notes;
use crate::wire;

/// The timeout of an ADD whose caller sends none. It is longer than any setting lets an ADD wait for an
/// address.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// Serves one node's pool.
#[derive(Debug)]
pub(crate) struct Service {
    handle: Handle,
    counters: Arc<Counters>,
    adding: Adding,
    pod_links: PodLinks,
    told: Told,
}

/// What the agent's caller has told of the node, and wants to be told.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) node: Node,
    pub(crate) limits_from: String,
    pub(crate) notes: Notes,
    pub(crate) refusals: mpsc::Sender<(Pod, Refusal)>,
}

impl Service {
    pub(crate) fn new(
        handle: Handle,
        counters: Arc<Counters>,
        pod_links: PodLinks,
        told: Told,
    ) -> Self {
        Self { handle, counters, adding: Adding::default(), pod_links, told }
    }
}

#[tonic::async_trait]
impl Ipam for Service {
    async fn add(
        &self,
        request: Request<v1::AddRequest>,
    ) -> Result<Response<v1::AddReply>, Status> {
        let timeout = wire::timeout(request.metadata()).unwrap_or(DEFAULT_TIMEOUT);
        let connection = request.extensions().get::<UdsConnectInfo>().cloned();
        let v1::AddRequest { attachment, pod, netns, client_version, takes_node_local } =
            request.into_inner();
        wire::check_version(&client_version)?;
        let (key, pod) = (wire::key(attachment)?, wire::pod(pod)?);
        let netns = wire::text("netns", netns)?;
        self.adding.begin(key.clone(), connection.as_ref());
        drop(connection);
        self.counters.add_arrived();
        let arrived = Instant::now();
        let node_local = wire::node_local(takes_node_local);
        let answer = self.handle.add(key, pod.clone(), netns, node_local, timeout).await?;
        self.counters.add_answered(&answer, arrived.elapsed());
        let outcome = match answer {
            Answer::Granted(assignment) => {
                let PodLinks { mtu, disable_ipv6 } = self.pod_links;
                let (addresses, mtu) = (wire::addresses(&assignment), mtu.into());
                let node_local = wire::text_of(assignment.node_local);
                Outcome::Granted(v1::Granted { addresses, mtu, node_local, disable_ipv6 })
            }
            Answer::Refused(refusal) => {
                // Dropped if nobody takes reports, or too many wait.
                let _ = self.told.refusals.try_send((pod, refusal.clone()));
                Outcome::Refused(wire::refused(refusal))
            }
            answer @ (Answer::Released(_) | Answer::Collected(_)) => return Err(mismatch(&answer)),
        };
        failpoint::pass("replying", "add");
        Ok(Response::new(v1::AddReply { outcome: Some(outcome) }))
    }

    async fn del(
        &self,
        request: Request<v1::DelRequest>,
    ) -> Result<Response<v1::DelReply>, Status> {
        let v1::DelRequest { attachment, pod: _, client_version } = request.into_inner();
        wire::check_version(&client_version)?;
        let key = wire::key(attachment)?;
        self.counters.del_arrived();
        match self.handle.del(key).await? {
            Answer::Released(held) => {
                let released = held.iter().flat_map(wire::addresses).collect();
                failpoint::pass("replying", "del");
                Ok(Response::new(del_reply(released, String::new())))
            }
            Answer::Refused(refusal) => Ok(Response::new(del_reply(Vec::new(), refusal.message))),
            answer @ (Answer::Granted(_) | Answer::Collected(_)) => Err(mismatch(&answer)),
        }
    }

    async fn check(
        &self,
        request: Request<v1::CheckRequest>,
    ) -> Result<Response<v1::CheckReply>, Status> {
        let v1::CheckRequest { attachment, client_version } = request.into_inner();
        wire::check_version(&client_version)?;
        let held = self.handle.check(wire::key(attachment)?).await?;
        let node_local = wire::text_of(held.as_ref().and_then(|held| held.node_local));
        let addresses = held.iter().flat_map(wire::addresses).collect();
        Ok(Response::new(v1::CheckReply { addresses, node_local }))
    }

    async fn gc(&self, request: Request<v1::GcRequest>) -> Result<Response<v1::GcReply>, Status> {
        let v1::GcRequest { network, valid, client_version } = request.into_inner();
        wire::check_version(&client_version)?;
        let (network, valid) = (wire::network(network)?, wire::valid(valid)?);
        match self.handle.gc(network, valid, self.adding.attachments()).await? {
            Answer::Collected(garbage) => {
                self.counters.collected(garbage.len());
                let collected = garbage.into_iter().map(|(key, held)| wire::collected(key, &held));
                failpoint::pass("replying", "gc");
                Ok(Response::new(v1::GcReply { collected: collected.collect() }))
            }
            Answer::Refused(refusal) => Err(wire::unavailable(&refusal)),
            answer @ (Answer::Granted(_) | Answer::Released(_)) => Err(mismatch(&answer)),
        }
    }

    async fn ready(
        &self,
        request: Request<v1::ReadyRequest>,
    ) -> Result<Response<v1::ReadyReply>, Status> {
        wire::check_version(&request.into_inner().client_version)?;
        let not_ready = self.handle.ready().await?.err().map(wire::refused);
        let server_version = proto::VERSION.to_owned();
        Ok(Response::new(v1::ReadyReply { not_ready, server_version }))
    }

    async fn view(
        &self,
        _request: Request<v1::ViewRequest>,
    ) -> Result<Response<v1::ViewReply>, Status> {
        let mut view = self.handle.view().await?;
        let Told { node, limits_from, notes, refusals: _ } = &self.told;
        view.blocked.extend(notes.lines());
        Ok(Response::new(wire::view(node, limits_from.clone(), view)))
    }
}

impl From<Stopped> for Status {
    fn from(stopped: Stopped) -> Self {
        Status::unavailable(stopped.to_string())
    }
}

/// [`crate::cleanup`] removes the links.
fn del_reply(released: Vec<v1::PodAddress>, unrecorded: String) -> v1::DelReply {
    v1::DelReply { released, unrecorded, removes_links: true }
}

fn mismatch(answer: &Answer) -> Status {
    Status::internal(format!("the engine's answer is for another kind of request: {answer:?}"))
}

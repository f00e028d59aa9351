//! The gRPC service: each method checks its message, asks the loop and converts the answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipam::event::{Answer, Refusal};
use ipam::id::{AttachmentKey, Pod};
use ipam::policy::Node;
use ipam::record::{Assignment, PodIpv6};
use ipam::time::Timestamp;
use otlp::Tracer;
use proto::v1;
use proto::v1::add_reply::Outcome;
use proto::v1::ipam_server::Ipam;
use tokio::sync::mpsc;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status};

use crate::adding::Adding;
use crate::differences;
use crate::handle::{Handle, RequestKind, Stopped};
use crate::metrics::Counters;
use crate::notes::Notes;
use crate::policy_agent::{Policed, PolicyAgent};
use crate::refusals::Refusals;
use crate::traces::RequestTrace;
use crate::wire::{self, questions};

/// The timeout of an ADD whose caller sends none. It is longer than any setting lets an ADD wait for an
/// address.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// The interface of a pod's default network. Source: Kubernetes, CRI runtimes' `CNI_IFNAME`.
pub(crate) const MAIN_INTERFACE: &str = "eth0";

/// Serves one node's pool.
#[derive(Debug)]
pub(crate) struct Service {
    handle: Handle,
    counters: Arc<Counters>,
    adding: Adding,
    pod_mtu: u16,
    views: Arc<Views>,
    refusals: Refusals,
    /// Where the outcome of each ADD and DEL is reported.
    pod_news: mpsc::Sender<(Pod, PodNews)>,
    tracer: Tracer,
    started: Timestamp,
    /// `None` if network policies are not used.
    policy_agent: Option<PolicyAgent>,
}

/// The outcome of an ADD or a DEL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodNews {
    /// Its main interface has got these addresses in the VPC, one of each family at most; never empty.
    Granted(Vec<IpAddr>),
    /// It has got none.
    Refused(Refusal),
    /// It has given these addresses back.
    Released(Vec<IpAddr>),
}

/// Makes the whole view of the pool.
#[derive(Debug)]
pub(crate) struct Views {
    pub(crate) node: Node,
    pub(crate) limits_from: String,
    pub(crate) notes: Notes,
}

impl Views {
    /// The pool now.
    pub(crate) async fn view(&self, handle: &Handle) -> Result<v1::ViewReply, Stopped> {
        let view = handle.view().await?;
        Ok(wire::view(&self.node, self.limits_from.clone(), view, &self.notes))
    }
}

impl Service {
    pub(crate) fn new(
        handle: Handle,
        counters: Arc<Counters>,
        pod_mtu: u16,
        views: Arc<Views>,
        pod_news: mpsc::Sender<(Pod, PodNews)>,
        tracer: Tracer,
        policy_agent: Option<PolicyAgent>,
    ) -> Self {
        let (adding, refusals, started) = (Adding::default(), Refusals::default(), handle.now());
        Self {
            handle,
            counters,
            adding,
            pod_mtu,
            views,
            refusals,
            pod_news,
            tracer,
            started,
            policy_agent,
        }
    }

    /// The news are dropped if nobody takes them, or if too many wait.
    fn tell(&self, pod: &Pod, news: PodNews) {
        let _ = self.pod_news.try_send((pod.clone(), news));
    }

    /// What the record has for an attachment. Its pod's link exists if it has something: the plugin asks at the end of an
    /// ADD, and for CHECK. So the network policy agent is asked first, unless it polices the link already.
    async fn held(
        &self,
        key: AttachmentKey,
        patience: Option<Duration>,
    ) -> Result<Option<Assignment>, Status> {
        let held = self.handle.check(key.clone()).await?;
        let (Some(agent), Some(held)) = (&self.policy_agent, &held) else { return Ok(held) };
        match agent.police(&key, &held.pod, patience).await? {
            Policed::Unasked => Ok(Some(held.clone())),
            // A DEL may have come meanwhile.
            Policed::Now => Ok(self.handle.check(key).await?),
        }
    }
}

#[tonic::async_trait]
impl Ipam for Service {
    async fn add(
        &self,
        request: Request<v1::AddRequest>,
    ) -> Result<Response<v1::AddReply>, Status> {
        let timeout = wire::timeout(request.metadata()).unwrap_or(DEFAULT_TIMEOUT);
        let caller = wire::trace_context(request.metadata());
        let connection = request.extensions().get::<UdsConnectInfo>().cloned();
        let v1::AddRequest { attachment, pod, netns, client_version, takes_node_local } =
            request.into_inner();
        wire::check_version(&client_version)?;
        let (key, pod) = (wire::key(attachment)?, wire::pod(pod)?);
        let netns = wire::text("netns", netns)?;
        let is_main = key.ifname == MAIN_INTERFACE;
        self.adding.begin(key.clone(), connection.as_ref());
        if let Some(agent) = &self.policy_agent {
            agent.begin(&key);
        }
        drop(connection);
        self.counters.add_arrived();
        let node_local = wire::node_local(takes_node_local);
        let mut trace = RequestTrace::begin(&self.tracer, RequestKind::Add, caller);
        trace.about(&key);
        trace.of_pod(&pod);
        let asking = self.handle.add(key.clone(), pod.clone(), netns, node_local, timeout, trace);
        let answer = asking.await?;
        self.refusals.note(&key, &pod, &answer, self.handle.now());
        let outcome = match answer {
            Answer::Granted(assignment) => {
                let (addresses, mtu) = (wire::addresses(&assignment), self.pod_mtu.into());
                let node_local = wire::text_of(assignment.node_local);
                let disable_ipv6 = is_off(assignment.ipv6);
                if is_main {
                    self.tell(&pod, PodNews::Granted(in_vpc(&assignment)));
                }
                Outcome::Granted(v1::Granted { addresses, mtu, node_local, disable_ipv6 })
            }
            Answer::Refused(refusal) => {
                self.tell(&pod, PodNews::Refused(refusal.clone()));
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
        let caller = wire::trace_context(request.metadata());
        let v1::DelRequest { attachment, pod: _, client_version } = request.into_inner();
        wire::check_version(&client_version)?;
        let key = wire::key(attachment)?;
        self.counters.del_arrived();
        let mut trace = RequestTrace::begin(&self.tracer, RequestKind::Del, caller);
        trace.about(&key);
        match self.handle.del(key.clone(), trace).await? {
            Answer::Released(held) => {
                if let Some(held) = &held {
                    self.tell(&held.pod, PodNews::Released(in_vpc(held)));
                    if let Some(agent) = &self.policy_agent {
                        agent.forget(&self.handle, &key, &held.pod).await;
                    }
                }
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
        let patience = wire::timeout(request.metadata());
        let v1::CheckRequest { attachment, client_version } = request.into_inner();
        wire::check_version(&client_version)?;
        let held = self.held(wire::key(attachment)?, patience).await?;
        let node_local = wire::text_of(held.as_ref().and_then(|held| held.node_local));
        let ipv6_is_off = held.as_ref().is_some_and(|held| is_off(held.ipv6));
        let addresses = held.iter().flat_map(wire::addresses).collect();
        Ok(Response::new(v1::CheckReply { addresses, node_local, ipv6_is_off }))
    }

    async fn gc(&self, request: Request<v1::GcRequest>) -> Result<Response<v1::GcReply>, Status> {
        let caller = wire::trace_context(request.metadata());
        let v1::GcRequest { network, valid, client_version } = request.into_inner();
        wire::check_version(&client_version)?;
        let (network, valid) = (wire::network(network)?, wire::valid(valid)?);
        let trace = RequestTrace::begin(&self.tracer, RequestKind::Gc, caller);
        match self.handle.gc(network, valid, self.adding.attachments(), trace).await? {
            Answer::Collected(garbage) => {
                self.counters.collected(garbage.len());
                for (_, held) in &garbage {
                    self.tell(&held.pod, PodNews::Released(in_vpc(held)));
                }
                if let Some(agent) = &self.policy_agent {
                    agent.forget_all(&self.handle, &garbage).await;
                }
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
        Ok(Response::new(self.views.view(&self.handle).await?))
    }

    async fn why(
        &self,
        request: Request<v1::WhyRequest>,
    ) -> Result<Response<v1::WhyReply>, Status> {
        let whom = questions::whom(request.into_inner())?;
        let standings = self.handle.why(whom.clone()).await?;
        let reply = questions::why(standings, self.refusals.last(&whom));
        let now_ms = self.handle.now().as_millis();
        Ok(Response::new(v1::WhyReply { now_ms, started_ms: self.started.as_millis(), ..reply }))
    }

    async fn subnets(
        &self,
        _request: Request<v1::SubnetsRequest>,
    ) -> Result<Response<v1::SubnetsReply>, Status> {
        Ok(Response::new(questions::subnets(self.handle.subnets().await?)))
    }

    async fn differences(
        &self,
        _request: Request<v1::DifferencesRequest>,
    ) -> Result<Response<v1::DifferencesReply>, Status> {
        let (view, sources) = (self.handle.view().await?, self.handle.sources().await?);
        Ok(Response::new(questions::differences(differences::of(&view), sources)))
    }
}

impl From<Stopped> for Status {
    fn from(stopped: Stopped) -> Self {
        Status::unavailable(stopped.to_string())
    }
}

fn in_vpc(held: &Assignment) -> Vec<IpAddr> {
    held.addresses.iter().map(|ip| ip.address).collect()
}

/// [`crate::cleanup`] removes the links.
fn is_off(ipv6: PodIpv6) -> bool {
    match ipv6 {
        PodIpv6::AsItIs => false,
        PodIpv6::Off => true,
    }
}

fn del_reply(released: Vec<v1::PodAddress>, unrecorded: String) -> v1::DelReply {
    v1::DelReply { released, unrecorded, removes_links: true }
}

fn mismatch(answer: &Answer) -> Status {
    Status::internal(format!("the engine's answer is for another kind of request: {answer:?}"))
}

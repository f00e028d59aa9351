//! The callers' side of the loop: requests, which get one answer each, and queries of the state.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ipam::event::{Answer, Event, NodeLocal, Refusal, RequestId};
use ipam::id::{AttachmentKey, Network, Pod};
use ipam::record::Assignment;
use ipam::standing::{Sources, Standings, Whom};
use ipam::subnet_list::SubnetList;
use ipam::time::Timestamp;
use ipam::view::PoolView;
use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::traces::RequestTrace;

/// A message to the loop.
#[derive(Debug)]
pub(crate) enum Message {
    /// Something has happened.
    Event(Event),
    /// A request of the plugin; its answer goes to `reply`.
    Request {
        /// The same as in `event`.
        request: RequestId,
        kind: RequestKind,
        /// The attachment; a GC has none.
        key: Option<AttachmentKey>,
        event: Event,
        reply: oneshot::Sender<Answer>,
        trace: RequestTrace,
    },
    /// A query; its answer goes to the query's own channel.
    Query(Query),
    /// Refuse the ADDs that wait, and every later ADD.
    Stop,
    /// End the loop.
    End,
}

/// What happens to a request when the daemon stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestKind {
    /// An ADD may wait for EC2, so the loop refuses it.
    Add,
    /// A DEL waits only for the disk, so the loop carries it out.
    Del,
    /// So does a GC.
    Gc,
}

impl RequestKind {
    /// The verb as metrics write it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            RequestKind::Add => "add",
            RequestKind::Del => "del",
            RequestKind::Gc => "gc",
        }
    }
}

/// A query that changes nothing.
#[derive(Debug)]
pub(crate) enum Query {
    /// Whether an ADD would be served, and why not.
    Ready(oneshot::Sender<Result<(), Refusal>>),
    /// The attachment's assignment, if it has one.
    Check(AttachmentKey, oneshot::Sender<Option<Assignment>>),
    /// The state of the pool.
    View(oneshot::Sender<PoolView>),
    /// How a pod stands with the pool.
    Why(Whom, oneshot::Sender<Standings>),
    /// The subnets.
    Subnets(oneshot::Sender<SubnetList>),
    /// When EC2, the kernel and the container runtime were last seen.
    Sources(oneshot::Sender<Sources>),
}

/// The loop has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("ipamd is stopping")]
pub(crate) struct Stopped;

/// The sending end for events from outside. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Inlet(mpsc::UnboundedSender<Message>);

/// The receiving end of an [`Inlet`], for [`run`](crate::run).
#[derive(Debug)]
pub struct Inbox {
    receiver: mpsc::UnboundedReceiver<Message>,
    inlet: Inlet,
}

/// A connected pair.
#[must_use]
pub fn channel() -> (Inlet, Inbox) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Inlet(sender.clone()), Inbox { receiver, inlet: Inlet(sender) })
}

impl Inbox {
    /// Another sending end.
    pub(crate) fn inlet(&self) -> Inlet {
        self.inlet.clone()
    }

    /// The next message. Messages arrive in the order in which they were sent.
    pub(crate) async fn receive(&mut self) -> Message {
        self.receiver.recv().await.expect("the inbox itself holds a sender")
    }
}

impl Inlet {
    /// Sends `event`. Has no effect after the loop has ended.
    pub fn send(&self, event: Event) {
        self.send_message(Message::Event(event));
    }

    /// Ready as soon as the loop has ended or panicked.
    pub(crate) async fn closed(&self) {
        self.0.closed().await;
    }

    pub(crate) fn send_message(&self, message: Message) {
        // After the end of the loop, every sender ends soon too.
        let _ = self.0.send(message);
    }
}

/// Sends requests and queries to the loop. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    inlet: Inlet,
    clock: Clock,
    next_request: Arc<AtomicU64>,
}

impl Handle {
    pub(crate) fn new(inlet: Inlet, clock: Clock) -> Self {
        Self { inlet, clock, next_request: Arc::default() }
    }

    /// The time on the engine's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Adds an attachment. The caller waits for `timeout` and gets its answer before that. Dropping the
    /// future cancels the request.
    pub(crate) async fn add(
        &self,
        key: AttachmentKey,
        pod: Pod,
        netns: String,
        node_local: NodeLocal,
        timeout: Duration,
        trace: RequestTrace,
    ) -> Result<Answer, Stopped> {
        let request = self.new_request_id();
        let deadline = self.clock.now() + timeout;
        let of = Some(key.clone());
        let event = Event::Add { request, key, pod, netns, node_local, deadline };
        let mut cancel = CancelOnDrop { inlet: &self.inlet, request: Some(request) };
        let answer = self.ask(request, RequestKind::Add, of, event, trace).await;
        cancel.request = None;
        answer
    }

    pub(crate) async fn del(
        &self,
        key: AttachmentKey,
        trace: RequestTrace,
    ) -> Result<Answer, Stopped> {
        let request = self.new_request_id();
        let (of, event) = (Some(key.clone()), Event::Del { request, key });
        self.ask(request, RequestKind::Del, of, event, trace).await
    }

    /// `valid` and `adding` are pairs of container id and interface name, as [`Event::Gc`] has them.
    pub(crate) async fn gc(
        &self,
        network: Network,
        valid: BTreeSet<(String, String)>,
        adding: BTreeSet<(String, String)>,
        trace: RequestTrace,
    ) -> Result<Answer, Stopped> {
        let request = self.new_request_id();
        let event = Event::Gc { request, network, valid, adding };
        self.ask(request, RequestKind::Gc, None, event, trace).await
    }

    pub(crate) async fn ready(&self) -> Result<Result<(), Refusal>, Stopped> {
        self.query(Query::Ready).await
    }

    pub(crate) async fn check(&self, key: AttachmentKey) -> Result<Option<Assignment>, Stopped> {
        self.query(|reply| Query::Check(key, reply)).await
    }

    pub(crate) async fn view(&self) -> Result<PoolView, Stopped> {
        self.query(Query::View).await
    }

    pub(crate) async fn why(&self, whom: Whom) -> Result<Standings, Stopped> {
        self.query(|reply| Query::Why(whom, reply)).await
    }

    pub(crate) async fn subnets(&self) -> Result<SubnetList, Stopped> {
        self.query(Query::Subnets).await
    }

    pub(crate) async fn sources(&self) -> Result<Sources, Stopped> {
        self.query(Query::Sources).await
    }

    fn new_request_id(&self) -> RequestId {
        RequestId(self.next_request.fetch_add(1, Ordering::Relaxed))
    }

    async fn ask(
        &self,
        request: RequestId,
        kind: RequestKind,
        key: Option<AttachmentKey>,
        event: Event,
        trace: RequestTrace,
    ) -> Result<Answer, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.inlet.send_message(Message::Request { request, kind, key, event, reply, trace });
        answer.await.map_err(|_| Stopped)
    }

    async fn query<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Query) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.inlet.send_message(Message::Query(make(reply)));
        answer.await.map_err(|_| Stopped)
    }
}

struct CancelOnDrop<'a> {
    inlet: &'a Inlet,
    request: Option<RequestId>,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(request) = self.request {
            self.inlet.send(Event::Cancel { request });
        }
    }
}

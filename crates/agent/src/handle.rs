//! The callers' side of the loop: requests that are answered once, and questions about the state.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ipam::event::{Answer, Event, Refusal, RequestId};
use ipam::id::{AttachmentKey, Network, Pod};
use ipam::record::Assignment;
use ipam::time::Timestamp;
use ipam::view::PoolView;
use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;

/// What the loop is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// Something has happened.
    Event(Event),
    /// Something is wanted; the answer goes to `reply`.
    Request {
        /// As in `event`.
        request: RequestId,
        kind: RequestKind,
        event: Event,
        reply: oneshot::Sender<Answer>,
    },
    /// Somebody wants to know.
    Query(Query),
    /// No Add shall wait any longer.
    Stop,
    /// The loop shall end.
    End,
}

/// What becomes of a request when the daemon stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestKind {
    /// It may wait for EC2, so it is refused.
    Add,
    /// It waits for the disk at most, so it is carried out.
    Release,
}

/// A question that changes nothing.
#[derive(Debug)]
pub(crate) enum Query {
    /// Would an Add be served?
    Ready(oneshot::Sender<Result<(), Refusal>>),
    /// What does the attachment hold?
    Check(AttachmentKey, oneshot::Sender<Option<Assignment>>),
    /// The pool.
    View(oneshot::Sender<PoolView>),
}

/// The loop has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("ipamd is stopping")]
pub(crate) struct Stopped;

/// Where events from the outside go in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Inlet(mpsc::UnboundedSender<Message>);

/// The other end of an [`Inlet`], for [`run`](crate::run).
#[derive(Debug)]
pub struct Inbox {
    receiver: mpsc::UnboundedReceiver<Message>,
    inlet: Inlet,
}

/// A new pair.
#[must_use]
pub fn channel() -> (Inlet, Inbox) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Inlet(sender.clone()), Inbox { receiver, inlet: Inlet(sender) })
}

impl Inbox {
    /// Another way in.
    pub(crate) fn inlet(&self) -> Inlet {
        self.inlet.clone()
    }

    /// The next message, in the order of their sending.
    pub(crate) async fn receive(&mut self) -> Message {
        self.receiver.recv().await.expect("the inbox itself holds a sender")
    }
}

impl Inlet {
    /// Tells of `event`; without effect once the loop has ended.
    pub fn send(&self, event: Event) {
        self.tell(Message::Event(event));
    }

    /// Ready once the loop has ended, or has died.
    pub(crate) async fn closed(&self) {
        self.0.closed().await;
    }

    pub(crate) fn tell(&self, message: Message) {
        // Whoever still has something to tell ends with the loop.
        let _ = self.0.send(message);
    }
}

/// Asks the loop. Cheap to clone.
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

    /// The engine's time.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// For a caller that goes away after `patience`; it is answered before. When the future is
    /// dropped, the request is taken back.
    pub(crate) async fn add(
        &self,
        key: AttachmentKey,
        pod: Pod,
        netns: String,
        patience: Duration,
    ) -> Result<Answer, Stopped> {
        let request = self.number();
        let deadline = self.clock.now() + patience;
        let event = Event::Add { request, key, pod, netns, deadline };
        let mut cancel = CancelOnDrop { inlet: &self.inlet, request: Some(request) };
        let answer = self.ask(request, RequestKind::Add, event).await;
        cancel.request = None;
        answer
    }

    pub(crate) async fn del(&self, key: AttachmentKey) -> Result<Answer, Stopped> {
        let request = self.number();
        self.ask(request, RequestKind::Release, Event::Del { request, key }).await
    }

    /// `valid` and `adding` are pairs of container id and interface name, as [`Event::Gc`] has them.
    pub(crate) async fn gc(
        &self,
        network: Network,
        valid: BTreeSet<(String, String)>,
        adding: BTreeSet<(String, String)>,
    ) -> Result<Answer, Stopped> {
        let request = self.number();
        self.ask(request, RequestKind::Release, Event::Gc { request, network, valid, adding }).await
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

    fn number(&self) -> RequestId {
        RequestId(self.next_request.fetch_add(1, Ordering::Relaxed))
    }

    async fn ask(
        &self,
        request: RequestId,
        kind: RequestKind,
        event: Event,
    ) -> Result<Answer, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.inlet.tell(Message::Request { request, kind, event, reply });
        answer.await.map_err(|_| Stopped)
    }

    async fn query<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Query,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.inlet.tell(Message::Query(question(reply)));
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

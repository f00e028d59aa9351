//! Owns the engine: takes one message after the other and carries out what the engine returns. It
//! waits for nothing but the next message, so one slow party delays no other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use ipam::Engine;
use ipam::call::{CallId, Ec2Call};
use ipam::event::{Answer, Effect, Event, HostPicture, Refusal, RefusalCode, RequestId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::cleanup::Cleanup;
use crate::clock::Clock;
use crate::handle::{Inbox, Message, Query, RequestKind};
use crate::metrics::Counters;
use crate::writer::Writer;

/// Where effects leave to. Whoever holds the other ends sends the results back through an
/// [`Inlet`](crate::Inlet).
#[derive(Debug)]
pub struct Edges {
    /// Calls to make at once and side by side; each is answered by [`Event::CallDone`].
    pub calls: mpsc::UnboundedSender<(CallId, Ec2Call)>,
    /// The wanted host network; only the newest picture counts. Each of its ENIs is answered by
    /// [`Event::EniLink`]. `None` until there is a picture, within milliseconds of the start.
    pub host: watch::Sender<Option<HostPicture>>,
}

/// Keeps a timer that is due already from starving everything else.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);
/// When a runtime may try again after a refusal because of a stop: a restart takes about as long.
const AFTER_RESTART: Duration = Duration::from_secs(2);

/// The engine and what it acts through.
pub(crate) struct EventLoop {
    engine: Engine,
    clock: Clock,
    writer: Writer,
    edges: Edges,
    cleanup: mpsc::UnboundedSender<Cleanup>,
    counters: Arc<Counters>,
    pending: BTreeMap<RequestId, Pending>,
    stopping: bool,
}

struct Pending {
    kind: RequestKind,
    reply: oneshot::Sender<Answer>,
}

impl EventLoop {
    /// A loop that has done what the engine wants at its start.
    pub(crate) fn start(
        engine: Engine,
        first: Vec<Effect>,
        clock: Clock,
        writer: Writer,
        edges: Edges,
        cleanup: mpsc::UnboundedSender<Cleanup>,
        counters: Arc<Counters>,
    ) -> Self {
        let pending = BTreeMap::new();
        let mut event_loop =
            Self { engine, clock, writer, edges, cleanup, counters, pending, stopping: false };
        event_loop.carry_out(first);
        event_loop
    }

    /// Runs until [`Message::End`]; then the returned thread ends once all is on disk.
    pub(crate) async fn run(mut self, mut inbox: Inbox) -> JoinHandle<()> {
        loop {
            tokio::select! {
                message = inbox.receive() => match message {
                    Message::End => return self.writer.finish(),
                    message => self.take(message),
                },
                () = sleep(self.until_wake()) => self.handle(Event::Tick),
            }
        }
    }

    fn until_wake(&self) -> Option<Duration> {
        self.engine.wake_at().map(|when| self.clock.until(when).max(SHORTEST_SLEEP))
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Event(event) => self.handle(event),
            Message::Request { kind: RequestKind::Add, reply, .. } if self.stopping => {
                answer(reply, refused_at_stop());
            }
            Message::Request { request, kind, event, reply } => {
                self.pending.insert(request, Pending { kind, reply });
                self.handle(event);
            }
            Message::Query(query) => self.tell(query),
            Message::Stop => self.stop(),
            Message::End => unreachable!("the loop has ended before"),
        }
    }

    fn handle(&mut self, event: Event) {
        let now = self.clock.now();
        if let Event::Cancel { request } = &event {
            self.pending.remove(request);
        }
        if let Event::CallDone { id, result } = &event {
            self.counters.call_done(*id, result, now);
        }
        let effects = self.engine.handle(event, now);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Save { seq, changes } => self.writer.save(seq, changes),
                Effect::Reply { request, answer: given } => {
                    if let Some(pending) = self.pending.remove(&request) {
                        answer(pending.reply, given);
                    }
                }
                Effect::Call { id, call, why } => {
                    tracing::info!(id = id.0, %why, ?call, "calling EC2");
                    self.counters.call_made(id, &call, self.clock.now());
                    if self.edges.calls.send((id, call)).is_err() {
                        tracing::error!(id = id.0, "nobody makes EC2 calls any more");
                    }
                }
                Effect::SyncHost(picture) => {
                    self.edges.host.send_replace(Some(picture));
                }
                Effect::TakeDown(links) => self.clean_up(Cleanup::TakeDown(links)),
                Effect::ForgetConnections(addresses) => {
                    self.clean_up(Cleanup::ForgetConnections(addresses));
                }
            }
        }
    }

    fn clean_up(&self, order: Cleanup) {
        // The daemon ends if the receiving task does.
        let _ = self.cleanup.send(order);
    }

    fn tell(&self, query: Query) {
        let now = self.clock.now();
        // An asker that has gone away needs no answer.
        match query {
            Query::Ready(reply) => drop(reply.send(self.engine.ready(now))),
            Query::View(reply) => drop(reply.send(self.engine.view(now))),
            Query::Check(key, reply) => {
                drop(reply.send(self.engine.held_by(key).cloned()));
            }
        }
    }

    /// Refuses the Adds that wait and all that still come.
    fn stop(&mut self) {
        self.stopping = true;
        let adds = self.pending.iter().filter(|(_, pending)| pending.kind == RequestKind::Add);
        let adds: Vec<RequestId> = adds.map(|(request, _)| *request).collect();
        for request in adds {
            if let Some(pending) = self.pending.remove(&request) {
                answer(pending.reply, refused_at_stop());
            }
            self.handle(Event::Cancel { request });
        }
    }
}

impl std::fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventLoop").field("pending", &self.pending.len()).finish_non_exhaustive()
    }
}

/// A caller that has gone away in this very moment is no fault: it asks again, and gets the same.
fn answer(reply: oneshot::Sender<Answer>, answer: Answer) {
    let _ = reply.send(answer);
}

fn refused_at_stop() -> Answer {
    Answer::Refused(Refusal {
        code: RefusalCode::Starting,
        message: "ipamd is stopping; try again when it is back".to_owned(),
        retry_after: Some(AFTER_RESTART),
    })
}

async fn sleep(span: Option<Duration>) {
    match span {
        Some(span) => tokio::time::sleep(span).await,
        None => std::future::pending().await,
    }
}

//! Owns the engine: takes one message after the other and carries out the engine's effects. It waits for
//! nothing but the next message, so a slow caller, disk or EC2 call delays no other.

mod drift;
mod requests;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use ipam::Engine;
use ipam::call::{CallId, Ec2Call};
use ipam::event::{Answer, Effect, Event, HostPicture, Reason, Refusal, RefusalCode};
use otlp::Tracer;
use tokio::sync::{Notify, mpsc, watch};

use self::drift::Drift;
use self::requests::{Requests, reply};
use crate::cleanup::Cleanup;
use crate::clock::Clock;
use crate::handle::{Inbox, Message, Query, RequestKind};
use crate::metrics::Counters;
use crate::restore::Restoring;
use crate::traces::CallTraces;
use crate::writer::Writer;

/// The channels for effects outside the agent. The receivers send results back through an
/// [`Inlet`](crate::Inlet).
#[derive(Debug)]
pub struct Edges {
    /// Calls to make at once and concurrently, and describes that the metadata service answers in place of EC2.
    /// [`Event::CallDone`] answers each.
    pub calls: mpsc::UnboundedSender<(CallId, Ec2Call)>,
    /// The wanted host network; only the newest picture counts. [`Event::EniLink`] answers each of its
    /// ENIs. `None` until the first picture, which comes within milliseconds of the start.
    pub host: watch::Sender<Option<HostPicture>>,
}

/// The channels for effects that other tasks of the agent carry out.
pub(crate) struct Orders {
    pub(crate) cleanup: mpsc::UnboundedSender<Cleanup>,
    pub(crate) restoring: mpsc::UnboundedSender<Restoring>,
    /// Makes the next poll of the kernel begin.
    pub(crate) kernel_poll: Arc<Notify>,
}

/// A timer that is already due waits this long, so that it does not starve the messages.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);
/// When a runtime may retry after a stop has refused its ADD. A restart takes about as long.
const AFTER_RESTART: Duration = Duration::from_secs(2);

/// The engine, and everything that its effects act on.
pub(crate) struct EventLoop {
    engine: Engine,
    clock: Clock,
    writer: Writer,
    edges: Edges,
    orders: Orders,
    counters: Arc<Counters>,
    requests: Requests,
    call_traces: CallTraces,
    drift: Drift,
    stopping: bool,
}

impl EventLoop {
    /// A loop that has carried out the engine's first effects.
    pub(crate) fn start(
        (engine, first): (Engine, Vec<Effect>),
        clock: Clock,
        writer: Writer,
        edges: Edges,
        orders: Orders,
        counters: Arc<Counters>,
        tracer: Tracer,
    ) -> Self {
        let requests = Requests::new(Arc::clone(&counters));
        let mut event_loop = Self {
            engine,
            clock,
            writer,
            edges,
            orders,
            counters,
            requests,
            call_traces: CallTraces::new(tracer),
            drift: Drift::default(),
            stopping: false,
        };
        event_loop.carry_out(first, SystemTime::now());
        event_loop
    }

    /// Runs until [`Message::End`]. The returned thread ends as soon as all changes are on disk.
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
                self::reply(reply, refused_at_stop());
            }
            Message::Request { request, kind, key, event, reply, trace } => {
                self.requests.begin(request, kind, key, reply, trace);
                self.handle(event);
            }
            Message::Query(query) => self.answer_query(query),
            Message::Stop => self.stop(),
            Message::End => unreachable!("the loop ends at this message"),
        }
    }

    fn handle(&mut self, event: Event) {
        let (now, since) = (self.clock.now(), SystemTime::now());
        if let Event::Cancel { request } = &event {
            self.requests.cancel(*request);
        }
        if let Event::CallDone { id, result } = &event {
            self.counters.call_done(*id, result, now);
            self.call_traces.done(*id, result);
        }
        let before = Drift::may_show(&event).then(|| self.engine.view(now));
        let effects = self.engine.handle(event, now);
        if let Some(before) = before {
            self.drift.count(&before, &self.engine.view(now), &self.counters);
        }
        self.carry_out(effects, since);
    }

    /// Carries out the effects of an event that came at `since`.
    fn carry_out(&mut self, effects: Vec<Effect>, since: SystemTime) {
        for effect in effects {
            match effect {
                Effect::Save { seq, changes } => {
                    self.requests.decided(&changes, since);
                    self.writer.save(seq, changes);
                }
                Effect::Reply { request, answer } => self.requests.answer(request, answer),
                Effect::Call { id, call, why } => self.call(id, call, &why),
                // It is no call of EC2, so it counts as none.
                Effect::ReadMetadata { id, call } => self.hand_out(id, call),
                Effect::SyncHost(picture) => {
                    self.edges.host.send_replace(Some(picture));
                }
                Effect::TakeDown(links) => self.clean_up(Cleanup::TakeDown(links)),
                Effect::ReadKernel => self.orders.kernel_poll.notify_one(),
                Effect::RestorePods(pods) => self.restore(Restoring::Pods(pods)),
                Effect::RemoveHostAddresses(addresses) => {
                    self.restore(Restoring::RemoveHostAddresses(addresses));
                }
                Effect::ForgetConnections(addresses) => {
                    self.clean_up(Cleanup::ForgetConnections(addresses));
                }
            }
        }
    }

    fn call(&mut self, id: CallId, call: Ec2Call, why: &Reason) {
        let causes = self.requests.traces(self.engine.waits_for(call.action()));
        let trace_id = causes.first().map(|cause| tracing::field::display(cause.trace));
        tracing::info!(id = id.0, %why, ?call, trace_id, "calling EC2");
        self.counters.call_made(id, &call, self.clock.now());
        self.call_traces.made(id, &call, why, &causes);
        self.hand_out(id, call);
    }

    fn hand_out(&self, id: CallId, call: Ec2Call) {
        if self.edges.calls.send((id, call)).is_err() {
            tracing::error!(id = id.0, "the caller has ended, so the call is not made");
        }
    }

    fn clean_up(&self, order: Cleanup) {
        // If the receiving task has ended, the daemon ends too.
        let _ = self.orders.cleanup.send(order);
    }

    fn restore(&self, order: Restoring) {
        // If the receiving task has ended, the daemon ends too.
        let _ = self.orders.restoring.send(order);
    }

    fn answer_query(&mut self, query: Query) {
        let now = self.clock.now();
        // A caller that has hung up needs no answer.
        match query {
            Query::Ready(reply) => drop(reply.send(self.engine.ready(now))),
            Query::View(reply) => drop(reply.send(self.engine.view(now))),
            Query::Why(whom, reply) => drop(reply.send(self.engine.standings(&whom, now))),
            Query::Subnets(reply) => drop(reply.send(self.engine.subnets(now))),
            Query::Sources(reply) => drop(reply.send(self.engine.sources())),
            Query::Check(key, reply) => {
                self.requests.checked(&key);
                drop(reply.send(self.engine.held_by(key).cloned()));
            }
        }
    }

    /// Refuses the ADDs that wait, and every later ADD.
    fn stop(&mut self) {
        self.stopping = true;
        for request in self.requests.adds() {
            self.requests.refuse(request, refused_at_stop());
            self.handle(Event::Cancel { request });
        }
    }
}

impl std::fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventLoop").field("pending", &self.requests.len()).finish_non_exhaustive()
    }
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

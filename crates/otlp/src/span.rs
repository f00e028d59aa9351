//! A span: a named stretch of time in a trace, with facts about it.

use std::sync::Arc;
use std::time::SystemTime;

use trace_context::{SpanId, TraceContext};

use crate::Recorder;

/// How many other spans one may name. An EC2 call can serve all pods of a burst.
const MOST_LINKS: usize = 32;

/// The place of a span in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A step of this process.
    Internal,
    /// The answer to a request.
    Server,
    /// A request to another process.
    Client,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}

impl From<u64> for Value {
    /// The protocol has no numbers above `i64::MAX`.
    fn from(number: u64) -> Self {
        Value::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// A span that has not ended. A span that is dropped is never sent.
#[derive(Debug)]
pub struct Span {
    recorder: Arc<Recorder>,
    body: Box<Ended>,
}

/// A span with nothing to come but its end.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) context: TraceContext,
    pub(crate) parent: Option<SpanId>,
    pub(crate) started: SystemTime,
    pub(crate) ended: SystemTime,
    pub(crate) attributes: Vec<(&'static str, Value)>,
    pub(crate) links: Vec<TraceContext>,
    pub(crate) n_links_dropped: u32,
    /// Why it failed, if it did.
    pub(crate) fault: Option<String>,
}

impl Span {
    pub(crate) fn new(
        recorder: Arc<Recorder>,
        name: &'static str,
        kind: Kind,
        context: TraceContext,
        parent: Option<SpanId>,
        started: SystemTime,
    ) -> Self {
        let (attributes, links) = Default::default();
        let body = Ended {
            name,
            kind,
            context,
            parent,
            started,
            ended: started,
            attributes,
            links,
            n_links_dropped: 0,
            fault: None,
        };
        Self { recorder, body: Box::new(body) }
    }

    /// The parent of what this span causes.
    #[must_use]
    pub fn context(&self) -> &TraceContext {
        &self.body.context
    }

    /// Starts a child, which is recorded since this span is.
    #[must_use]
    pub fn child(&self, name: &'static str, kind: Kind, at: SystemTime) -> Self {
        let context = self.body.context.child(self.recorder.new_span());
        let parent = Some(self.body.context.span);
        Self::new(Arc::clone(&self.recorder), name, kind, context, parent, at)
    }

    /// Adds a fact.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        self.body.attributes.push((name, value.into()));
    }

    /// Names a span of any trace that has caused this one too. Further ones than 32 are only counted.
    pub fn link(&mut self, other: &TraceContext) {
        if self.body.links.len() < MOST_LINKS {
            self.body.links.push(other.clone());
        } else {
            self.body.n_links_dropped = self.body.n_links_dropped.saturating_add(1);
        }
    }

    /// Ends the span now. `fault` says why it has failed, if it has.
    pub fn end(self, fault: Option<String>) {
        self.end_at(SystemTime::now(), fault);
    }

    /// As [`end`](Self::end), at `at`.
    pub fn end_at(self, at: SystemTime, fault: Option<String>) {
        let Self { recorder, mut body } = self;
        (body.ended, body.fault) = (at.max(body.started), fault);
        recorder.take(*body);
    }
}

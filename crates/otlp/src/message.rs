//! Spans as OTLP has them.

use std::time::{SystemTime, UNIX_EPOCH};

use trace_context::TraceContext;

use crate::span::{Ended, Kind, Value};
use crate::wire::collector::trace::v1::ExportTraceServiceRequest;
use crate::wire::common::v1::any_value::Value as Any;
use crate::wire::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use crate::wire::resource::v1::Resource as WireResource;
use crate::wire::trace::v1::{self, ResourceSpans, ScopeSpans, Status, span, status};

/// What all spans of a process have in common: its attributes, such as `service.name`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resource(pub Vec<(String, String)>);

/// One message with `spans`.
pub(crate) fn message(resource: &Resource, spans: Vec<Ended>) -> ExportTraceServiceRequest {
    let of_resource = resource.0.iter();
    let attributes =
        of_resource.map(|(key, value)| attribute(key.clone(), Value::Text(value.clone())));
    let scope = InstrumentationScope {
        name: "tidepool".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Default::default()
    };
    let spans = spans.into_iter().map(wire_span).collect();
    let scope_spans = ScopeSpans { scope: Some(scope), spans, ..Default::default() };
    let resource = WireResource { attributes: attributes.collect(), ..Default::default() };
    let resource_spans = ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![scope_spans],
        ..Default::default()
    };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
}

fn wire_span(ended: Ended) -> v1::Span {
    let Ended {
        name,
        kind,
        context,
        parent,
        started,
        ended,
        attributes,
        links,
        n_links_dropped,
        fault,
    } = ended;
    let kind = match kind {
        Kind::Internal => span::SpanKind::Internal,
        Kind::Server => span::SpanKind::Server,
        Kind::Client => span::SpanKind::Client,
    };
    let attributes = attributes.into_iter().map(|(name, value)| attribute(name.to_owned(), value));
    v1::Span {
        trace_id: context.trace.bytes().to_vec(),
        span_id: context.span.bytes().to_vec(),
        trace_state: state(&context),
        parent_span_id: parent.map(|id| id.bytes().to_vec()).unwrap_or_default(),
        name: name.to_owned(),
        kind: kind.into(),
        start_time_unix_nano: nanoseconds(started),
        end_time_unix_nano: nanoseconds(ended),
        attributes: attributes.collect(),
        links: links.iter().map(link).collect(),
        dropped_links_count: n_links_dropped,
        status: fault.map(|message| Status { message, code: status::StatusCode::Error.into() }),
        ..Default::default()
    }
}

fn link(context: &TraceContext) -> span::Link {
    span::Link {
        trace_id: context.trace.bytes().to_vec(),
        span_id: context.span.bytes().to_vec(),
        trace_state: state(context),
        ..Default::default()
    }
}

fn state(context: &TraceContext) -> String {
    context.tracestate().unwrap_or_default().to_owned()
}

fn attribute(key: String, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => Any::StringValue(text),
        Value::Number(number) => Any::IntValue(number),
    };
    KeyValue { key, value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

/// Since 1970. A clock before that says 0.
fn nanoseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

//! The trace that this invocation belongs to. The plugin makes no span: it passes the runtime's context on to the
//! daemon, and logs the trace's id.

use tonic::Request;
use trace_context::{TRACEPARENT, TRACESTATE, TraceContext};

/// The context in the runtime's environment; `None` if there is none, or an invalid one. The environment is that of
/// one request, so whoever needs the context reads it.
pub(crate) fn context() -> Option<TraceContext> {
    let variable = |name: &str| std::env::var(name.to_ascii_uppercase()).ok();
    TraceContext::parse(&variable(TRACEPARENT)?, variable(TRACESTATE).as_deref())
}

/// Gives `request` the context.
pub(crate) fn pass_on<T>(context: Option<&TraceContext>, request: &mut Request<T>) {
    let Some(context) = context else { return };
    let texts = [
        (TRACEPARENT, Some(context.traceparent())),
        (TRACESTATE, context.tracestate().map(str::to_owned)),
    ];
    for (key, text) in texts {
        // Both texts are printable ASCII, so each is a value.
        if let Some(value) = text.and_then(|text| text.parse().ok()) {
            request.metadata_mut().insert(key, value);
        }
    }
}

//! A W3C trace context: which trace a request belongs to, and which span of it has sent the request.
//!
//! A container runtime gives it to a plugin in the environment, and a caller gives it to a server in the metadata of
//! gRPC. Both have the same two texts. Source: W3C, "Trace Context" level 2, and OpenTelemetry, "Environment Variables
//! as Context Propagation Carriers".

use std::fmt::{self, Write as _};

/// The metadata key of [`TraceContext::traceparent`]. The environment has it in upper case.
pub const TRACEPARENT: &str = "traceparent";
/// The metadata key of [`TraceContext::tracestate`]. The environment has it in upper case.
pub const TRACESTATE: &str = "tracestate";

/// What version 00 has: two digits, 32, 16 and two, with hyphens between them.
const LENGTH: usize = 55;
/// How long the state may be. A longer one is dropped: W3C asks for 512 characters at least.
const LONGEST_STATE: usize = 512;
/// The flags that level 2 defines.
const SAMPLED: u8 = 1;
const RANDOM: u8 = 2;

/// A trace's id, never 0. It is written as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId([u8; 16]);

/// A span's id, never 0. It is written as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId([u8; 8]);

impl TraceId {
    /// `None` for 0.
    #[must_use]
    pub fn new(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// Big-endian, as it is written.
    #[must_use]
    pub fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl SpanId {
    /// `None` for 0.
    #[must_use]
    pub fn new(bytes: [u8; 8]) -> Option<Self> {
        (bytes != [0; 8]).then_some(Self(bytes))
    }

    /// Big-endian, as it is written.
    #[must_use]
    pub fn bytes(self) -> [u8; 8] {
        self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// A trace, and the span of it that is the parent of whatever the request causes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace: TraceId,
    /// The parent.
    pub span: SpanId,
    flags: u8,
    state: Option<String>,
}

impl TraceContext {
    /// Reads what a caller has sent. `None` without a valid `traceparent`: W3C then asks for a new trace. An invalid
    /// `tracestate` is dropped alone.
    #[must_use]
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let text = traceparent.trim();
        let parts = text.get(..LENGTH)?;
        let rest = text.get(LENGTH..)?;
        let mut parts = parts.split('-');
        let [version] = hex(parts.next()?)?;
        let (trace, span) = (TraceId::new(hex(parts.next()?)?)?, SpanId::new(hex(parts.next()?)?)?);
        let [flags] = hex(parts.next()?)?;
        // A later version may have more parts, each after a hyphen.
        let is_known = match version {
            0 => rest.is_empty(),
            u8::MAX => false,
            _ => rest.is_empty() || rest.starts_with('-'),
        };
        if !is_known || parts.next().is_some() {
            return None;
        }
        let state = tracestate.map(str::trim).filter(|text| is_state(text)).map(str::to_owned);
        Some(Self { trace, span, flags: flags & (SAMPLED | RANDOM), state })
    }

    /// The first span of a new trace.
    #[must_use]
    pub fn root(trace: TraceId, span: SpanId) -> Self {
        Self { trace, span, flags: SAMPLED | RANDOM, state: None }
    }

    /// The context of a recorded span in the same trace.
    #[must_use]
    pub fn child(&self, span: SpanId) -> Self {
        Self { span, flags: self.flags | SAMPLED, ..self.clone() }
    }

    /// Whether the caller records its spans.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// As it is sent on, in version 00: `00-<trace>-<span>-<flags>`.
    #[must_use]
    pub fn traceparent(&self) -> String {
        let Self { trace, span, flags, state: _ } = self;
        let mut text = String::with_capacity(LENGTH);
        // Writing to a string does not fail.
        let _ = write!(text, "00-{trace}-{span}-{flags:02x}");
        text
    }

    /// What tracing systems have added, to be sent on unchanged.
    #[must_use]
    pub fn tracestate(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

/// Lower case alone, as W3C has it.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    let is_digit = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != 2 * N || !digits.iter().all(is_digit) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// Whether gRPC's metadata and a log line can have the text. Its list is the business of whoever reads it.
fn is_state(text: &str) -> bool {
    let is_printable = |byte: u8| matches!(byte, b' '..=b'~');
    (1..=LONGEST_STATE).contains(&text.len()) && text.bytes().all(is_printable)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn traceparent_is_read_as_w3c_has_it() {
        let check = |text: &str, expect: Option<&str>| {
            let context = TraceContext::parse(text, None);
            let sent = context.as_ref().map(TraceContext::traceparent);
            assert_eq!(sent.as_deref(), expect, "{text:?}");
        };
        let with = |version: &str, flags: &str| format!("{version}-{TRACE}-{SPAN}-{flags}");
        check(&with("00", "01"), Some(&with("00", "01")));
        check(&with("00", "00"), Some(&with("00", "00")));
        check(&with("00", "ff"), Some(&with("00", "03")));
        check(&format!(" {}\n", with("00", "01")), Some(&with("00", "01")));
        check(&with("cc", "01"), Some(&with("00", "01")));
        check(&with("cc", "01-later"), Some(&with("00", "01")));
        check(&with("cc", "01.later"), None);
        check(&with("00", "01-later"), None);
        check(&with("ff", "01"), None);
        check(&with("0", "01"), None);
        check(&with("00", "0x"), None);
        check(&with("00", "1"), None);
        check("", None);
        check("00", None);
        check(&with("00", "01").to_uppercase(), None);
        check(&format!("00-{}-{SPAN}-01", "0".repeat(32)), None);
        check(&format!("00-{TRACE}-{}-01", "0".repeat(16)), None);
        check(&format!("00-{TRACE}_{SPAN}-01"), None);
        check(&format!("é0-{TRACE}-{SPAN}-01"), None);
        check(&format!("00-{TRACE}-{SPAN}-é"), None);
    }

    #[test]
    fn bad_state_is_dropped_alone() {
        let check = |state: &str, expect: Option<&str>| {
            let context =
                TraceContext::parse(&format!("00-{TRACE}-{SPAN}-01"), Some(state)).unwrap();
            assert_eq!(context.tracestate(), expect, "{state:?}");
            assert_eq!(context.trace.to_string(), TRACE);
        };
        check(
            "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7",
            Some("congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"),
        );
        check("", None);
        check("a=\x1b[2J", None);
        check("a=é", None);
        check(&"a".repeat(513), None);
    }

    #[test]
    fn child_is_in_the_same_trace_and_sampled() {
        let parent = TraceContext::parse(&format!("00-{TRACE}-{SPAN}-00"), Some("a=b")).unwrap();
        let child = parent.child(SpanId::new([0, 0, 0, 0, 0, 0, 0, 9]).unwrap());
        assert!(!parent.is_sampled());
        assert_eq!(child.traceparent(), format!("00-{TRACE}-0000000000000009-01"));
        assert_eq!(child.tracestate(), Some("a=b"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,60}", tail in "[0-9a-f-]{0,60}") {
            let _ = TraceContext::parse(&text, Some(&text));
            if let Some(context) = TraceContext::parse(&tail, None) {
                prop_assert_eq!(TraceContext::parse(&context.traceparent(), None), Some(context));
            }
        }
    }
}

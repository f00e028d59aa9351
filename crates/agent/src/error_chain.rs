//! An error with all of its causes in one line, for logs and messages.

/// The whole chain of an error in one line, outermost first.
#[must_use]
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |source| source.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

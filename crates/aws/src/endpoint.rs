//! Checks the URLs of services that people set.

/// Whether `text` is one of `schemes` (for example `http://`) followed by a possible host.
///
/// The SDK accepts any text and then fails at each request.
pub(crate) fn is_url(text: &str, schemes: &[&str]) -> bool {
    let host = schemes.iter().find_map(|scheme| text.strip_prefix(scheme));
    host.is_some_and(|host| {
        host.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '[')
            && !host.contains(char::is_whitespace)
    })
}

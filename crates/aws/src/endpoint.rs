//! Addresses of services as people write them.

/// Whether `text` is one of `schemes` (`http://`) and something that can be a host after it.
///
/// The SDK would take anything and fail at each request.
pub(crate) fn is_url(text: &str, schemes: &[&str]) -> bool {
    let host = schemes.iter().find_map(|scheme| text.strip_prefix(scheme));
    host.is_some_and(|host| {
        host.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '[')
            && !host.contains(char::is_whitespace)
    })
}

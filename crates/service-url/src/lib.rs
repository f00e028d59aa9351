//! The URL of a service or of a proxy, parsed once. So whoever checks the settings refuses what whoever sends the
//! requests could not use.

mod no_proxy;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

pub use no_proxy::NoProxy;

/// In bytes.
const LONGEST: usize = 2_048;
/// The longest host name, in bytes. Source: RFC 1035, section 2.3.4.
const LONGEST_HOST: usize = 253;
/// What a hidden user and password read as.
const HIDDEN: &str = "***";

/// How a service is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Without encryption.
    Http,
    /// By TLS.
    Https,
}

/// Why a text is no such URL; it reads as what is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Another scheme, or no host or port that could exist.
    #[error("expected http://HOST[:PORT] or https://…")]
    Form,
    /// A user or a password in the URL of a service.
    #[error("expected no user and no password in it")]
    User,
    /// More than a path behind the host, or a character that no URL has.
    #[error("expected nothing behind the host but a path")]
    Rest,
    /// A proxy of another kind, or no host or port that could exist.
    #[error("expected http://[USER:PASSWORD@]HOST[:PORT] or https://…")]
    ProxyForm,
    /// More than 2,048 bytes.
    #[error("expected at most {LONGEST} bytes")]
    TooLong,
}

/// Where a service listens: `http://HOST[:PORT][/PATH]`, or the same with `https`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceUrl {
    text: String,
    scheme: Scheme,
}

impl ServiceUrl {
    /// Parses `text`.
    ///
    /// # Errors
    /// If it is not of that form, or has a user, a query or a fragment.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = split_scheme(text)?.ok_or(UrlError::Form)?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(UrlError::User);
        }
        if !is_host_and_port(authority) {
            return Err(UrlError::Form);
        }
        match path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#')) {
            true => Ok(Self { text: text.to_owned(), scheme }),
            false => Err(UrlError::Rest),
        }
    }

    /// The text as it was.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its name or address; that of IPv6 is in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        let rest = self.text.split_once("://").map_or("", |(_, rest)| rest);
        let authority = rest.split('/').next().unwrap_or(rest);
        match authority.find(']') {
            Some(end) => &authority[..=end],
            None => authority.split(':').next().unwrap_or(authority),
        }
    }

    /// How the service is spoken to.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Where a proxy listens, and as whom to use it. It prints without user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl(String);

impl ProxyUrl {
    /// Parses `[http://][USER:PASSWORD@]HOST[:PORT][/]`, or the same with `https`.
    ///
    /// # Errors
    /// If it is not of that form.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let url = match text.contains("://") {
            true => text.to_owned(),
            false => format!("http://{text}"),
        };
        let (_, rest) = split_scheme(&url)?.ok_or(UrlError::ProxyForm)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, authority) = rest.rsplit_once('@').unwrap_or(("", rest));
        let is_user = user.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
        match is_user && is_host_and_port(authority) {
            true => Ok(Self(url)),
            false => Err(UrlError::ProxyForm),
        }
    }

    /// The whole URL, with user and password.
    #[must_use]
    pub fn with_password(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_password(&self.0))
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxyUrl({self})")
    }
}

/// `text` with each user and password in it hidden, whether or not it is a URL.
#[must_use]
pub fn without_password(text: &str) -> String {
    let (scheme, rest) = match text.find("://") {
        Some(at) => text.split_at(at + 3),
        None => ("", text),
    };
    // A password may have slashes that somebody has not encoded, so this looks at the whole rest.
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}{HIDDEN}@{host}"),
        None => text.to_owned(),
    }
}

fn split_scheme(text: &str) -> Result<Option<(Scheme, &str)>, UrlError> {
    if text.len() > LONGEST {
        return Err(UrlError::TooLong);
    }
    let http = text.strip_prefix("http://").map(|rest| (Scheme::Http, rest));
    Ok(http.or_else(|| text.strip_prefix("https://").map(|rest| (Scheme::Https, rest))))
}

fn is_host_and_port(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) if host.parse::<Ipv6Addr>().is_ok() => (None, port),
        Some(_) => return false,
        None => {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            (Some(host), port)
        }
    };
    host.is_none_or(is_host) && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
        && text.parse::<u16>().is_ok_and(|port| port != 0)
}

fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (1..=63).contains(&label.len()) && label.bytes().all(is_inner) && !label.starts_with('-')
    };
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_address = name.rsplit('.').next().is_some_and(is_number);
    match is_address {
        true => text.parse::<Ipv4Addr>().is_ok(),
        false => name.len() <= LONGEST_HOST && name.split('.').all(is_label),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_url_has_a_host_that_may_exist() {
        for good in [
            "http://localhost",
            "http://127.0.0.1:4000",
            "https://ec2.eu-central-1.amazonaws.com",
            "https://ec2.eu-central-1.amazonaws.com./",
            "http://[fd00:ec2::254]:80/a/b",
            "https://my_proxy.internal:65535/path",
        ] {
            let url = ServiceUrl::parse(good).unwrap_or_else(|error| panic!("{good}: {error}"));
            assert_eq!(url.as_str(), good);
            assert_eq!(url.scheme() == Scheme::Https, good.starts_with("https"));
        }
        let host = |url| ServiceUrl::parse(url).unwrap().host().to_owned();
        assert_eq!(host("http://a.b:1/c:d"), "a.b");
        assert_eq!(host("https://[fd00::1]:1/c"), "[fd00::1]");
        for (bad, expect) in [
            ("", UrlError::Form),
            ("127.0.0.1:4000", UrlError::Form),
            ("ftp://localhost", UrlError::Form),
            ("HTTP://localhost", UrlError::Form),
            ("http://", UrlError::Form),
            ("http:///x", UrlError::Form),
            ("http://a b", UrlError::Form),
            ("http://a..b", UrlError::Form),
            ("http://-a", UrlError::Form),
            ("http://256.0.0.1", UrlError::Form),
            ("http://1.2.3", UrlError::Form),
            ("http://[::g]", UrlError::Form),
            ("http://::1", UrlError::Form),
            ("http://a:", UrlError::Form),
            ("http://a:0", UrlError::Form),
            ("http://a:+80", UrlError::Form),
            ("http://a:65536", UrlError::Form),
            ("http://user:secret@a", UrlError::User),
            ("http://a/x?y", UrlError::Rest),
            ("http://a#x", UrlError::Rest),
            ("http://a/\u{e9}", UrlError::Rest),
            ("http://a/x y", UrlError::Rest),
        ] {
            assert_eq!(ServiceUrl::parse(bad), Err(expect), "{bad}");
        }
        assert_eq!(
            ServiceUrl::parse(&format!("http://a/{}", "x".repeat(2_048))),
            Err(UrlError::TooLong)
        );
    }

    #[test]
    fn proxy_url_may_have_a_password_and_hides_it() {
        for (good, whole, shown) in [
            ("proxy:3128", "http://proxy:3128", "http://proxy:3128"),
            ("http://10.0.0.1:3128/", "http://10.0.0.1:3128/", "http://10.0.0.1:3128/"),
            ("https://[::1]:3128", "https://[::1]:3128", "https://[::1]:3128"),
            ("http://u:p%40x@proxy", "http://u:p%40x@proxy", "http://***@proxy"),
            ("u:p@proxy:1", "http://u:p@proxy:1", "http://***@proxy:1"),
        ] {
            let url = ProxyUrl::parse(good).unwrap_or_else(|error| panic!("{good}: {error}"));
            assert_eq!((url.with_password(), &*url.to_string()), (whole, shown));
            assert!(format!("{url:?}").contains(shown));
        }
        for bad in
            ["", "socks5://proxy", "http://", "http://p/x", "http://u:p@", "proxy:port", "a b"]
        {
            assert_eq!(ProxyUrl::parse(bad), Err(UrlError::ProxyForm), "{bad}");
        }
    }

    #[test]
    fn password_is_hidden_in_any_text() {
        assert_eq!(without_password("http://u:p/q@h:1"), "http://***@h:1");
        assert_eq!(without_password("u:p@h"), "***@h");
        assert_eq!(without_password("http://h"), "http://h");
    }
}

//! Which requests go by no proxy: the text of `NO_PROXY`, read as Go reads it.
//! Source: `golang.org/x/net/http/httpproxy`, `Config.NoProxy`.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{is_host, is_port, without_password};

/// Hosts, networks and ports that are reached without a proxy. This machine is always one of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NoProxy {
    entries: Vec<Entry>,
    without_effect: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    hosts: Hosts,
    /// Without one the entry is about every port.
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    All,
    In(IpNet),
    /// The names that end in this one, which begins with a dot. It is in lower case.
    Below(String),
    /// This name, and those below it.
    Domain(String),
}

/// The host and the port of a request.
struct Target {
    host: String,
    address: Option<IpAddr>,
    port: u16,
}

impl NoProxy {
    /// Reads `*`, addresses and CIDRs, and names with those below them, separated by commas. `.NAME` and `*.NAME`
    /// are the names below alone. All but `*` and a CIDR may have a port.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut this = Self::default();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            match Entry::parse(&entry.to_ascii_lowercase()) {
                Some(entry) => this.entries.push(entry),
                None => this.without_effect.push(without_password(entry)),
            }
        }
        this
    }

    /// What is excepted here or in `other`.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.entries.extend(other.entries);
        self.without_effect.extend(other.without_effect);
        self
    }

    /// Whether a request to `url`, `http://…` or `https://…`, goes by no proxy. A URL without a host does.
    #[must_use]
    pub fn covers(&self, url: &str) -> bool {
        let Some(target) = Target::of(url) else { return true };
        target.is_this_machine() || self.entries.iter().any(|entry| entry.covers(&target))
    }

    /// The entries that no request can match.
    #[must_use]
    pub fn without_effect(&self) -> &[String] {
        &self.without_effect
    }
}

impl Entry {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self { hosts: Hosts::All, port: None });
        }
        if let Ok(network) = text.parse::<IpNet>() {
            return Some(Self { hosts: Hosts::In(network), port: None });
        }
        let (host, port) = host_and_port(text)?;
        let hosts = match host.parse::<IpAddr>() {
            Ok(address) => Hosts::In(IpNet::from(address.to_canonical())),
            Err(_) => Hosts::named(host)?,
        };
        Some(Self { hosts, port })
    }

    fn covers(&self, target: &Target) -> bool {
        let is_host = match (&self.hosts, target.address) {
            (Hosts::All, _) => true,
            (Hosts::In(network), Some(address)) => network.contains(&address),
            (Hosts::Below(end), None) => target.host.ends_with(end),
            (Hosts::Domain(name), None) => {
                let above = target.host.strip_suffix(&**name);
                above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
            }
            (Hosts::In(_), None) | (Hosts::Below(_) | Hosts::Domain(_), Some(_)) => false,
        };
        is_host && self.port.is_none_or(|port| port == target.port)
    }
}

impl Hosts {
    fn named(name: &str) -> Option<Self> {
        match name.strip_prefix('*').unwrap_or(name).strip_prefix('.') {
            Some(rest) => is_host(rest).then(|| Self::Below(format!(".{rest}"))),
            None => is_host(name).then(|| Self::Domain(name.to_owned())),
        }
    }
}

impl Target {
    fn of(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let (host, port) = host_and_port(authority)?;
        let default = if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 };
        let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        let host = Some(host.to_ascii_lowercase()).filter(|host| !host.is_empty())?;
        Some(Self { host, address, port: port.unwrap_or(default) })
    }

    fn is_this_machine(&self) -> bool {
        self.host == "localhost" || self.address.is_some_and(|address| address.is_loopback())
    }
}

/// The parts of `HOST[:PORT]`; the brackets of an IPv6 address are left out. `None` if the port is none.
fn host_and_port(text: &str) -> Option<(&str, Option<u16>)> {
    if text.parse::<IpAddr>().is_ok() {
        return Some((text, None));
    }
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some(parts) => parts,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    match port {
        "" | ":" => Some((host, None)),
        port => {
            let port = port.strip_prefix(':').filter(|port| is_port(port))?;
            Some((host, port.parse().ok()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines are those of Go's own test, and some about ports.
    /// Source: `golang.org/x/net/http/httpproxy/proxy_test.go`, `UseProxyTests`.
    #[test]
    fn no_proxy_covers_what_go_has_it_cover() {
        let list = "foobar.com, .barbaz.net, *.quux.dev, 192.168.1.1, 192.168.1.2:81, 192.168.1.3:80, 10.0.0.0/30, \
                    2001:db8::52:0:1, [2001:db8::52:0:2]:443, [2001:db8::52:0:3]:80, 2002:db8:a::45/64, API.example:8443";
        let no_proxy = NoProxy::parse(list);
        for (host, covered) in [
            ("localhost", true),
            ("127.0.0.1", true),
            ("127.0.0.2", true),
            ("[::1]", true),
            ("[::2]", false),
            ("192.168.1.1", true),
            ("[::ffff:192.168.1.1]", true),
            ("192.168.1.2", false),
            ("192.168.1.2:81", true),
            ("192.168.1.3", true),
            ("192.168.1.4", false),
            ("10.0.0.2", true),
            ("10.0.0.4", false),
            ("[2001:db8::52:0:1]", true),
            ("[2001:db8::52:0:2]", false),
            ("[2001:db8::52:0:2]:443", true),
            ("[2001:db8::52:0:3]", true),
            ("[2002:db8:a::123]", true),
            ("[fe80::424b:c8be:1643:a1b6]", false),
            ("www.barbaz.net", true),
            ("barbaz.net", false),
            ("www.quux.dev", true),
            ("quux.dev", false),
            ("foobar.com", true),
            ("www.FOOBAR.com", true),
            ("foofoobar.com", false),
            ("baz.com", false),
            ("localhost.net", false),
            ("local.localhost", false),
            ("api.example", false),
            ("api.example:8443", true),
            ("v1.api.example:8443", true),
        ] {
            assert_eq!(no_proxy.covers(&format!("http://{host}/x?y")), covered, "{host}");
        }
        assert!(no_proxy.without_effect().is_empty());
    }

    #[test]
    fn port_of_a_url_without_one_is_its_schemes() {
        let no_proxy = NoProxy::parse("a.example:443");
        assert!(no_proxy.covers("https://a.example/"));
        assert!(!no_proxy.covers("http://a.example/"));
        assert!(NoProxy::parse("*").covers("https://b.example"));
        assert!(!NoProxy::default().covers("https://b.example"));
        assert!(NoProxy::parse("a").and(NoProxy::parse("b")).covers("http://b"));
    }

    #[test]
    fn entry_that_matches_nothing_is_named() {
        let list = "a:b, :80, *:80, 10.0.0.0/33, a b, http://c, a.example:0, , fine.example";
        let expect = ["a:b", ":80", "*:80", "10.0.0.0/33", "a b", "http://c", "a.example:0"];
        assert_eq!(NoProxy::parse(list).without_effect(), expect);
    }
}

//! What the kernel has beside what the daemon wants, for people. Nothing here changes the kernel.

use std::fmt::Write as _;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use rustix::io::Errno;

use crate::host::kernel_rules;
use crate::link::{self, Link};
use crate::nat::ListedMainRule;
use crate::netlink::{KernelError, Netlink};
use crate::rule::{self, FROM_POD, ListedRule};
use crate::sysctl::{self, SysctlReadError};
use crate::{MacAddr, route};

/// The kernel could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ExamineError {
    /// Netlink cannot be used.
    #[error("open a netlink socket")]
    Socket(#[source] std::io::Error),
    /// A list could not be read.
    #[error("list the {what}")]
    List {
        /// What was to be listed.
        what: &'static str,
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
    /// A sysctl could not be read.
    #[error(transparent)]
    Sysctl(#[from] SysctlReadError),
}

/// A sysctl that has another value than a node with pods needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SysctlDifference {
    /// As below `/proc/sys`: `net/ipv4/ip_forward`.
    pub key: String,
    /// Its value.
    pub value: String,
    /// The value that it should have.
    pub wanted: &'static str,
}

/// The sysctls that differ from what [`crate::host::sync`] sets. `primary` is the primary ENI's hardware address.
///
/// # Errors
///
/// [`ExamineError`] if the links or a sysctl cannot be read.
pub async fn sysctls(
    primary: MacAddr,
    has_ipv6: bool,
) -> Result<Vec<SysctlDifference>, ExamineError> {
    let netlink = Netlink::open().map_err(ExamineError::Socket)?;
    let device = link::by_mac(&netlink, primary).await;
    let device = device.map_err(|source| ExamineError::List { what: "links", source })?;
    let mut wanted = vec![("net/ipv4/ip_forward".to_owned(), "1")];
    if has_ipv6 {
        wanted.push(("net/ipv6/conf/all/forwarding".to_owned(), "1"));
        wanted.push(("net/ipv6/conf/all/disable_ipv6".to_owned(), "0"));
    }
    let mut differences = Vec::new();
    if let Some(name) = device.map(|device| device.name) {
        differences.extend(reverse_path_filter(&name)?);
        if has_ipv6 {
            wanted.push((format!("net/ipv6/conf/{name}/accept_ra"), "2"));
        }
    }
    for (key, wanted) in wanted {
        let value = sysctl::get(&key)?;
        if value != wanted {
            differences.push(SysctlDifference { key, value, wanted });
        }
    }
    Ok(differences)
}

/// A strict filter drops answers to pods of other ENIs. The kernel uses the greater of the two values.
fn reverse_path_filter(name: &str) -> Result<Option<SysctlDifference>, SysctlReadError> {
    let key = format!("net/ipv4/conf/{name}/rp_filter");
    let value = sysctl::get("net/ipv4/conf/all/rp_filter")?.max(sysctl::get(&key)?);
    Ok((value == "1").then_some(SysctlDifference { key, value, wanted: "2" }))
}

/// The rules of others that count before a pod's own, one line each as `ip rule` orders them. They may send packets of
/// pods another way.
///
/// # Errors
///
/// [`ExamineError`] if the rules cannot be listed.
pub async fn foreign_rules() -> Result<Vec<String>, ExamineError> {
    let netlink = Netlink::open().map_err(ExamineError::Socket)?;
    let mut lines = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let rules = match rule::messages(&netlink, family).await {
            // IPv6 may be switched off at boot.
            Err(error) if error.is(Errno::AFNOSUPPORT) => continue,
            rules => rules.map_err(|source| ExamineError::List { what: "rules", source })?,
        };
        lines.extend(rules.iter().filter(|rule| is_foreign(rule)).map(line));
    }
    Ok(lines)
}

/// The kernel's network as text, one line for each object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelState {
    /// `7: eth0 02:00:00:00:00:01 mtu 9001 up`, with the mark of a pod's link.
    pub links: Vec<String>,
    /// The rules of both families, as `ip rule` orders them.
    pub rules: Vec<String>,
    /// The unicast routes of both families in all tables.
    pub routes: Vec<String>,
    /// The sysctls that matter to pods: `net/ipv4/ip_forward = 1`. Those that this kernel lacks are left out.
    pub sysctls: Vec<String>,
}

/// The sysctls of the node that matter to pods.
const SYSCTLS: [&str; 11] = [
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/default/rp_filter",
    "net/ipv4/neigh/default/gc_thresh1",
    "net/ipv4/neigh/default/gc_thresh2",
    "net/ipv4/neigh/default/gc_thresh3",
    "net/ipv4/ip_local_port_range",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/all/disable_ipv6",
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_count",
];

/// Reads the kernel's network. Costs a dump of all links, and two of rules and routes.
///
/// # Errors
///
/// [`ExamineError`] if a list cannot be read.
pub async fn state() -> Result<KernelState, ExamineError> {
    let netlink = Netlink::open().map_err(ExamineError::Socket)?;
    let failed = |what| move |source| ExamineError::List { what, source };
    let links = link::list(&netlink).await.map_err(failed("links"))?;
    let mut state = KernelState::default();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let rules = match rule::messages(&netlink, family).await {
            Err(error) if error.is(Errno::AFNOSUPPORT) => continue,
            rules => rules.map_err(failed("rules"))?,
        };
        state.rules.extend(rules.iter().map(line));
        for route in route::list_all(&netlink, family).await.map_err(failed("routes"))? {
            let device = links.iter().find(|link| link.index == route.device);
            let device = device.map_or("?", |link| link.name.as_str());
            state.routes.push(format!("{route} dev {device}"));
        }
    }
    let of_links = links.iter().filter(|link| !link.is_veth);
    let of_links = of_links.map(|link| format!("net/ipv4/conf/{}/rp_filter", link.name));
    for key in SYSCTLS.map(str::to_owned).into_iter().chain(of_links) {
        if let Ok(value) = sysctl::get(&key) {
            state.sysctls.push(format!("{key} = {value}"));
        }
    }
    state.links = links.iter().map(link_line).collect();
    Ok(state)
}

fn link_line(link: &Link) -> String {
    let Link { index, name, mac, mtu, up, owner, .. } = link;
    let up = if *up { "up" } else { "down" };
    let mark = owner.as_ref().map_or_else(String::new, |mark| format!(" mark {mark:?}"));
    format!("{index}: {name} {mac} mtu {mtu} {up}{mark}")
}

fn is_foreign(message: &RuleMessage) -> bool {
    let of_a_pod = ListedRule::from_message(message).is_some_and(|listed| listed.is_of_a_pod());
    priority(message) < FROM_POD
        && !of_a_pod
        && !kernel_rules::is_own(message)
        && ListedMainRule::from_message(message).is_none()
}

fn priority(message: &RuleMessage) -> u32 {
    let priority = |attribute: &RuleAttribute| match attribute {
        RuleAttribute::Priority(number) => Some(*number),
        _ => None,
    };
    message.attributes.iter().find_map(priority).unwrap_or_default()
}

/// `100: from 10.0.0.0/8 fwmark 0x1 lookup 7`.
fn line(message: &RuleMessage) -> String {
    let header = &message.header;
    let mut line = format!("{}:", priority(message));
    let mut table = u32::from(header.table);
    for attribute in &message.attributes {
        let written = match attribute {
            RuleAttribute::Source(address) => write!(line, " from {address}/{}", header.src_len),
            RuleAttribute::Destination(address) => write!(line, " to {address}/{}", header.dst_len),
            RuleAttribute::Iifname(name) => write!(line, " iif {name}"),
            RuleAttribute::Oifname(name) => write!(line, " oif {name}"),
            RuleAttribute::FwMark(mark) => write!(line, " fwmark {mark:#x}"),
            RuleAttribute::Table(number) => {
                table = *number;
                Ok(())
            }
            _ => Ok(()),
        };
        written.expect("a String takes everything");
    }
    write!(line, " lookup {table}").expect("a String takes everything");
    line
}

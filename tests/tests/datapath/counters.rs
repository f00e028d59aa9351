//! The kernel's counts of packets that it has dropped in a network namespace.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};

use crate::probe::inside;

/// The counters of `/proc/net/snmp` and `/proc/net/netstat` that grow if a packet is dropped, refused or cut into
/// fragments. `IPReversePathFilter` counts martians.
const OF_IPV4: [&str; 20] = [
    "Ip:InHdrErrors",
    "Ip:InAddrErrors",
    "Ip:InUnknownProtos",
    "Ip:InDiscards",
    "Ip:OutDiscards",
    "Ip:OutNoRoutes",
    "Ip:ReasmReqds",
    "Ip:ReasmFails",
    "Ip:FragCreates",
    "Ip:FragFails",
    "IpExt:InNoRoutes",
    "IpExt:InTruncatedPkts",
    "IpExt:InCsumErrors",
    "TcpExt:IPReversePathFilter",
    "TcpExt:ListenDrops",
    "TcpExt:TCPBacklogDrop",
    "Tcp:InErrs",
    "Udp:InErrors",
    "Udp:NoPorts",
    "Udp:RcvbufErrors",
];
/// The same of `/proc/net/snmp6`.
const OF_IPV6: [&str; 12] = [
    "Ip6InHdrErrors",
    "Ip6InTooBigErrors",
    "Ip6InAddrErrors",
    "Ip6InUnknownProtos",
    "Ip6InTruncatedPkts",
    "Ip6OutDiscards",
    "Ip6OutNoRoutes",
    "Ip6ReasmReqds",
    "Ip6FragFails",
    "Ip6FragCreates",
    "Udp6InErrors",
    "Udp6NoPorts",
];
/// The columns of `/proc/net/stat/nf_conntrack`.
const OF_CONNTRACK: [&str; 3] = ["insert_failed", "drop", "early_drop"];

/// What was dropped so far, by counter.
pub(crate) type Drops = BTreeMap<String, u64>;

/// The counts in the network namespace at `netns`.
pub(crate) fn drops(netns: &str) -> Result<Drops> {
    inside(netns, || {
        let read = |name: &str| {
            let path = format!("/proc/thread-self/net/{name}");
            fs::read_to_string(&path).with_context(|| format!("read {path}"))
        };
        let mut all = pairs_of_lines(&(read("snmp")? + &read("netstat")?));
        all.retain(|name, _| OF_IPV4.contains(&name.as_str()));
        let found = all.len();
        ensure!(found == OF_IPV4.len(), "the kernel has only {found} of the counters: {all:?}");
        all.extend(of_ipv6(&read("snmp6")?));
        all.extend(of_conntrack(&read("stat/nf_conntrack")?));
        all.extend(of_links(&read("dev")?));
        Ok(all)
    })
}

/// The counters that have grown.
pub(crate) fn grown(before: &Drops, after: &Drops) -> Vec<String> {
    let grown = after.iter().filter_map(|(name, after)| {
        let before = before.get(name).copied().unwrap_or_default();
        (*after > before).then(|| format!("{name}: {before} to {after}"))
    });
    grown.collect()
}

/// Of each two lines that begin alike, the first has the names and the second the numbers.
fn pairs_of_lines(text: &str) -> Drops {
    let lines: Vec<_> = text.lines().collect();
    let mut all = Drops::new();
    for [names, numbers] in lines.as_chunks().0 {
        let (Some((group, names)), Some((_, numbers))) =
            (names.split_once(':'), numbers.split_once(':'))
        else {
            continue;
        };
        for (name, number) in names.split_whitespace().zip(numbers.split_whitespace()) {
            all.insert(format!("{group}:{name}"), number.parse().unwrap_or_default());
        }
    }
    all
}

fn of_ipv6(text: &str) -> Drops {
    let pairs = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (name, number) = (words.next()?, words.next()?);
        let number = OF_IPV6.contains(&name).then(|| number.parse().ok())??;
        Some((name.to_owned(), number))
    });
    pairs.collect()
}

/// A line for each processor, in hexadecimal.
fn of_conntrack(text: &str) -> Drops {
    let mut lines = text.lines();
    let names: Vec<_> = lines.next().unwrap_or_default().split_whitespace().collect();
    let mut all = Drops::new();
    for line in lines {
        for (name, number) in names.iter().zip(line.split_whitespace()) {
            if OF_CONNTRACK.contains(name) {
                let number = u64::from_str_radix(number, 16).unwrap_or_default();
                *all.entry(format!("conntrack {name}")).or_default() += number;
            }
        }
    }
    all
}

/// Columns: errors and drops of what came in, then of what went out.
fn of_links(text: &str) -> Drops {
    let mut all = Drops::new();
    for line in text.lines() {
        let Some((link, numbers)) = line.split_once(':') else { continue };
        let numbers: Vec<_> = numbers.split_whitespace().collect();
        let columns = [("rx errors", 2), ("rx dropped", 3), ("tx errors", 10), ("tx dropped", 11)];
        for (name, column) in columns {
            let number = numbers.get(column).and_then(|number| number.parse().ok());
            all.insert(format!("{} {name}", link.trim()), number.unwrap_or_default());
        }
    }
    all
}

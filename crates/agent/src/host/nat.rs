//! The wanted translation of pods' packets in the form of `datapath`, and the kernel's notifications about it.

use std::collections::BTreeSet;

use datapath::nat::{self, Egress, NatPicture};
use futures::Stream;
use ipam::event::{HostEgress, HostNat, Nat, SourceNat};
use ipam::node_local;
use ipam::policy::SourcePorts;
use ipnet::IpNet;

/// The translation for the kernel.
pub(super) fn picture(wanted: &HostNat) -> NatPicture {
    match wanted {
        HostNat::Absent => NatPicture::Absent,
        HostNat::Unknown(_) => NatPicture::Unknown,
        HostNat::Wanted(Nat { pod_links, mark, source, node_ports, by_main_table }) => {
            NatPicture::Wanted(nat::Nat {
                pod_links: pod_links.clone(),
                mark: *mark,
                source: source.as_ref().map(self::source),
                node_ports: *node_ports,
                by_main_table: by_main_table.clone(),
            })
        }
    }
}

fn source(source: &SourceNat) -> nat::SourceNat {
    nat::SourceNat {
        address: source.address,
        ports: ports(source.ports),
        untranslated: source.untranslated.clone(),
    }
}

fn ports(ports: SourcePorts) -> nat::SourcePorts {
    match ports {
        SourcePorts::Kept => nat::SourcePorts::Kept,
        SourcePorts::Hashed => nat::SourcePorts::Hashed,
        SourcePorts::Random => nat::SourcePorts::Random,
    }
}

/// The translation of node-local addresses for the kernel.
pub(super) fn egress(wanted: &HostEgress) -> Egress {
    let ranges = wanted.families.iter().map(|family| node_local::range(*family));
    Egress { ranges: ranges.collect(), ports: ports(wanted.ports) }
}

/// What people should know of ranges whose packets cannot leave; `None` if all can.
pub(super) fn stranded_line(ranges: &BTreeSet<IpNet>) -> Option<String> {
    let family = |range: &IpNet| match range {
        IpNet::V4(_) => "IPv4",
        IpNet::V6(_) => "IPv6",
    };
    let families: Vec<_> = ranges.iter().map(family).collect();
    (!families.is_empty()).then(|| {
        format!(
            "pods have node-local addresses, but the primary ENI's device has no global {} address, so they \
             reach none; give the primary ENI one, or set ENABLE_V4_EGRESS or ENABLE_V6_EGRESS to false",
            families.join(" and ")
        )
    })
}

/// Every change of our table. Empty, with an error line, if they cannot be followed: then the syncs of each minute
/// remain.
pub(super) fn changes() -> Box<dyn Stream<Item = ()> + Send + Unpin> {
    match nat::changes() {
        Ok(changes) => Box::new(changes),
        Err(fault) => {
            tracing::error!(%fault, "changes of nftables cannot be followed");
            Box::new(futures::stream::empty())
        }
    }
}

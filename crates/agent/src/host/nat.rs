//! The wanted translation of pods' packets in the form of `datapath`, and the kernel's notifications about it.

use datapath::nat::{self, NatPicture};
use futures::Stream;
use ipam::event::{HostNat, Nat, SourceNat};
use ipam::policy::SourcePorts;

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
        ports: match source.ports {
            SourcePorts::Kept => nat::SourcePorts::Kept,
            SourcePorts::Hashed => nat::SourcePorts::Hashed,
            SourcePorts::Random => nat::SourcePorts::Random,
        },
        untranslated: source.untranslated.clone(),
    }
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

//! Which table a [`Nat`] needs. Whether a packet leaves by the primary ENI is decided once for each connection, and kept in
//! the connection's mark: a change of the ranges breaks no connection that exists.

use ipnet::Ipv4Net;

use super::table::{Chain, Place, Statement, Table};
use super::{Nat, SourceNat};

/// The table on a node whose primary ENI is the device `primary`.
pub(super) fn table(nat: &Nat, primary: &str) -> Table {
    let node_ports = nat.node_ports.then(|| node_ports(nat, primary));
    let from_pods = (nat.node_ports || nat.source.is_some()).then(|| from_pods(nat));
    let translate = nat.source.as_ref().map(|source| translate(nat, source));
    let untranslated = |source: &SourceNat| {
        let ranges: Vec<_> = source.untranslated.iter().copied().collect();
        Ipv4Net::aggregate(&ranges)
    };
    Table {
        untranslated: nat.source.as_ref().map(untranslated),
        chains: [node_ports, from_pods, translate].into_iter().flatten().collect(),
    }
}

/// What comes in by the primary ENI for an address of it is marked, so that its answers leave there. A connection from
/// before the table is marked by its next packet.
fn node_ports(nat: &Nat, primary: &str) -> Chain {
    let rule = vec![
        Statement::FromDevice(primary.to_owned()),
        Statement::ConnectionLacks(nat.mark),
        Statement::ToDevice,
        Statement::MarkConnection(nat.mark),
    ];
    Chain { name: "node-ports", place: Place::BeforeServices, rules: vec![rule] }
}

/// A pod's new connection to somewhere outside is marked. Each packet of a pod gets its connection's mark, by which a
/// rule sends it to the main route table.
fn from_pods(nat: &Nat) -> Chain {
    let is_pods = || Statement::FromDevices(nat.pod_links.clone());
    let outward = nat.source.as_ref().map(|_| {
        vec![
            is_pods(),
            Statement::IsNew,
            Statement::ToElsewhere,
            Statement::NotToHost,
            Statement::MarkConnection(nat.mark),
        ]
    });
    let marked =
        vec![is_pods(), Statement::ConnectionHas(nat.mark), Statement::MarkPacket(nat.mark)];
    let rules = outward.into_iter().chain([marked]).collect();
    Chain { name: "from-pods", place: Place::AfterServices, rules }
}

/// The kernel asks only at the first packet of a connection. Of those only a pod's has the mark itself: what comes to a
/// node port has it on the connection alone.
fn translate(nat: &Nat, source: &SourceNat) -> Chain {
    let rule =
        vec![Statement::PacketHas(nat.mark), Statement::Translate(source.address, source.ports)];
    Chain { name: "translate", place: Place::Leaving, rules: vec![rule] }
}

//! Which table a [`Nat`] needs. Whether a packet leaves by the primary ENI is decided once for each connection, and kept in
//! the connection's mark: a change of the ranges breaks no connection that exists.

use ipnet::Ipv4Net;

use super::table::{Chain, Family, Place, Statement, Table};
use super::{Egress, Nat, SourceNat, egress};

/// The table of a family. `nat` comes with the name of the primary ENI's device, and concerns IPv4.
pub(super) fn table(family: Family, nat: Option<(&Nat, &str)>, egress: &Egress) -> Table {
    let nat = nat.map(|(nat, primary)| of_vpc_addresses(nat, primary));
    let (untranslated, chains) = nat.unwrap_or_default();
    let chains = chains.into_iter().chain(egress::chains(egress, family)).collect();
    Table { family, untranslated, chains }
}

/// The set and the chains for pods' addresses of the VPC.
fn of_vpc_addresses(nat: &Nat, primary: &str) -> (Option<Vec<Ipv4Net>>, Vec<Chain>) {
    let node_ports = nat.node_ports.then(|| node_ports(nat, primary));
    let from_pods = (nat.node_ports || nat.source.is_some()).then(|| from_pods(nat));
    let translate = nat.source.as_ref().map(|source| translate(nat, source));
    let untranslated = |source: &SourceNat| {
        let ranges: Vec<_> = source.untranslated.iter().copied().collect();
        Ipv4Net::aggregate(&ranges)
    };
    let chains = [node_ports, from_pods, translate].into_iter().flatten().collect();
    (nat.source.as_ref().map(untranslated), chains)
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

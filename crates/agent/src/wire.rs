//! Converts between the messages of the socket and the types of the engine. It checks each incoming message
//! once.

pub(crate) mod questions;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use datapath::RouteTable;
use ipam::block::Block;
use ipam::event::{NodeLocal, Refusal};
use ipam::id::{AttachmentKey, EniId, Network, Pod};
use ipam::policy::{Limits, Node};
use ipam::record::{Assignment, PodIp, Via};
use ipam::view::{BlockUse, Counts, EniView, PoolView};
use proto::v1;
use proto::v1::pod_address::Reach;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use trace_context::{TRACEPARENT, TRACESTATE, TraceContext};

use crate::Notes;

/// The longest text that is accepted, in bytes: far above what any runtime sends, and small enough to record.
const MAX_TEXT: usize = 1024;

/// The key of `attachment`.
///
/// # Errors
///
/// `INVALID_ARGUMENT` if a part is missing or beyond [`MAX_TEXT`].
pub(crate) fn key(attachment: Option<v1::Attachment>) -> Result<AttachmentKey, Status> {
    let v1::Attachment { network, container_id, ifname } =
        attachment.ok_or_else(|| Status::invalid_argument("attachment is missing"))?;
    Ok(AttachmentKey {
        network: self::network(network)?,
        container: name("container_id", container_id)?,
        ifname: name("ifname", ifname)?,
    })
}

/// The network of a request.
///
/// # Errors
///
/// `INVALID_ARGUMENT` if it is empty or beyond [`MAX_TEXT`].
pub(crate) fn network(text: String) -> Result<Network, Status> {
    name("network", text).map(Network::Named)
}

/// The pod. A field is empty if the runtime did not send it.
///
/// # Errors
///
/// `INVALID_ARGUMENT` if a field is beyond [`MAX_TEXT`].
pub(crate) fn pod(pod: Option<v1::Pod>) -> Result<Pod, Status> {
    let v1::Pod { namespace, name, uid } = pod.unwrap_or_default();
    Ok(Pod {
        namespace: text("pod namespace", namespace)?,
        name: text("pod name", name)?,
        uid: text("pod uid", uid)?,
    })
}

/// The (container id, interface name) pairs of `valid`, whatever their network.
///
/// # Errors
///
/// `INVALID_ARGUMENT` if an attachment has an empty part, since it must not count as garbage.
pub(crate) fn valid(valid: Vec<v1::Attachment>) -> Result<BTreeSet<(String, String)>, Status> {
    let pair = |attachment: v1::Attachment| {
        let container = name("container_id", attachment.container_id)?;
        Ok((container, name("ifname", attachment.ifname)?))
    };
    valid.into_iter().map(pair).collect()
}

/// `value`, unless it is empty or too long.
///
/// # Errors
///
/// `INVALID_ARGUMENT` that names `field`.
pub(crate) fn name(field: &str, value: String) -> Result<String, Status> {
    if value.is_empty() {
        return Err(Status::invalid_argument(format!("{field} is empty")));
    }
    text(field, value)
}

/// `value`, unless it is too long to record.
///
/// # Errors
///
/// `INVALID_ARGUMENT` that names `field`.
pub(crate) fn text(field: &str, value: String) -> Result<String, Status> {
    if value.len() > MAX_TEXT {
        return Err(Status::invalid_argument(format!("{field} is longer than {MAX_TEXT} bytes")));
    }
    Ok(value)
}

/// Checks that the client's version `client` is at most one minor version away.
///
/// # Errors
///
/// `FAILED_PRECONDITION` that names both versions.
pub(crate) fn check_version(client: &str) -> Result<(), Status> {
    let ours = major_minor(proto::VERSION);
    match (major_minor(client), ours) {
        (Some((major, minor)), Some((our_major, our_minor)))
            if major == our_major && minor.abs_diff(our_minor) <= 1 =>
        {
            Ok(())
        }
        _ => Err(Status::failed_precondition(format!(
            "client version {client:?} and ipamd version {:?} are more than one minor version apart",
            proto::VERSION
        ))),
    }
}

fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The trace of the caller, if it sends one.
pub(crate) fn trace_context(metadata: &MetadataMap) -> Option<TraceContext> {
    let text = |key| metadata.get(key).and_then(|value| value.to_str().ok());
    TraceContext::parse(text(TRACEPARENT)?, text(TRACESTATE))
}

/// How long the caller waits, if it sends that.
/// Source: gRPC over HTTP/2, `grpc-timeout`: at most eight digits and a unit.
pub(crate) fn timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let n: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(n * 3600)),
        "M" => Some(Duration::from_secs(n * 60)),
        "S" => Some(Duration::from_secs(n)),
        "m" => Some(Duration::from_millis(n)),
        "u" => Some(Duration::from_micros(n)),
        "n" => Some(Duration::from_nanos(n)),
        _ => None,
    }
}

/// Whether the plugin of a request can set up a node-local address.
pub(crate) fn node_local(is_taken: bool) -> NodeLocal {
    if is_taken { NodeLocal::Taken } else { NodeLocal::NotTaken }
}

/// An address as messages have it; empty for none.
pub(crate) fn text_of(address: Option<IpAddr>) -> String {
    address.map(|address| address.to_string()).unwrap_or_default()
}

/// The addresses of an assignment in the VPC, IPv4 first.
pub(crate) fn addresses(assignment: &Assignment) -> Vec<v1::PodAddress> {
    assignment.addresses.iter().map(address).collect()
}

/// The address and its route. `table` and `eni` occur twice, since older plugins do not read `reach`.
fn address(ip: &PodIp) -> v1::PodAddress {
    let (table, reach) = match &ip.via {
        Via::Eni { eni, card, index } => {
            let table = RouteTable::of(*card, *index).number();
            let (network_card, device_index) = ((*card).into(), (*index).into());
            let id = eni.to_string();
            (table, Reach::ByEni(v1::EniReach { id, network_card, device_index, table }))
        }
        Via::Branch { eni, vlan, trunk, trunk_mac, mac, gateway } => {
            let branch = v1::BranchReach {
                id: eni.to_string(),
                vlan_id: (*vlan).into(),
                mac: mac.to_string(),
                gateway: gateway.to_string(),
                trunk: trunk.to_string(),
                trunk_mac: trunk_mac.to_string(),
            };
            (0, Reach::ByBranch(branch))
        }
    };
    let (address, eni) = (ip.address.to_string(), ip.via.eni().to_string());
    v1::PodAddress { address, table, eni, reach: Some(reach) }
}

/// The refusal, its delay rounded up to whole milliseconds.
pub(crate) fn refused(refusal: Refusal) -> v1::Refused {
    let Refusal { code, message, retry_after } = refusal;
    let retry_after_ms = retry_after
        .map_or(0, |span| u64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX));
    v1::Refused { code: code.as_str().to_owned(), message, retry_after_ms }
}

/// The record could not be written. The request had no effect and may be repeated.
pub(crate) fn unavailable(refusal: &Refusal) -> Status {
    Status::new(Code::Unavailable, format!("{}: {}", refusal.code.as_str(), refusal.message))
}

/// An attachment that a GC has released.
pub(crate) fn collected(key: AttachmentKey, assignment: &Assignment) -> v1::Collected {
    v1::Collected {
        attachment: Some(attachment(key)),
        pod: Some(pod_message(&assignment.pod)),
        released: addresses(assignment),
    }
}

/// The whole pool.
pub(crate) fn view(
    node: &Node,
    limits_from: String,
    view: PoolView,
    notes: &Notes,
) -> v1::ViewReply {
    let blocked = obstacles(&view, notes);
    let PoolView {
        kind,
        limits,
        changes,
        enis,
        foreign,
        unused_blocks: _,
        assignments,
        // `blocked` names each of these with the reason.
        quarantined: _,
        host_addresses: _,
        lost: _,
        other_groups: _,
        sandboxes: _,
        refuted_hints: _,
        counts,
        second,
        eni_config: _,
        capacity,
        subnets: _,
        held_back: _,
        in_flight,
        blocked: _,
    } = view;
    let pods = assignments.into_iter().map(|(key, assignment)| v1::PodView {
        attachment: Some(attachment(key)),
        pod: Some(pod_message(&assignment.pod)),
        address: Some(address(assignment.addresses.first())),
        second_address: assignment.addresses.iter().nth(1).map(address),
        since_ms: assignment.since.as_millis(),
        node_local: text_of(assignment.node_local),
    });
    v1::ViewReply {
        instance_id: node.instance.to_string(),
        instance_type: node.instance_type.clone(),
        mode: match second {
            None => kind.mode().to_owned(),
            Some(second) => format!("{}+{}", kind.mode(), second.kind.mode()),
        },
        enis: enis.into_iter().map(eni).collect(),
        foreign_enis: foreign.keys().map(ToString::to_string).collect(),
        pods: pods.collect(),
        counts: Some(pool_counts(counts)),
        ipv6_counts: second.map(|second| pool_counts(second.counts)),
        in_flight,
        blocked,
        server_version: proto::VERSION.to_owned(),
        limits: Some(instance_limits(limits, limits_from)),
        capacity: Some(v1::Capacity { addresses: capacity.addresses, pods: capacity.pods }),
        changes: changes.as_str().to_owned(),
    }
}

/// Each obstacle in one line. Most lines begin with a code: `CODE: text`.
pub(crate) fn obstacles(view: &PoolView, notes: &Notes) -> Vec<String> {
    let differs = |(eni, blocks): (&EniId, &BTreeSet<Block>)| {
        format!(
            "METADATA_DIFFERS: metadata service and EC2 differ on {} addresses or prefixes of {eni}; \
             EC2's answer counts",
            blocks.len()
        )
    };
    let blocked = view.blocked.iter().cloned().chain(notes.lines());
    blocked.chain(view.refuted_hints.iter().map(differs)).collect()
}

/// The limits in force, and their source.
fn instance_limits(limits: Limits, from: String) -> v1::InstanceLimits {
    let Limits { enis, addresses_per_eni, prefixes } = limits;
    v1::InstanceLimits {
        enis: enis.into(),
        addresses_per_eni: addresses_per_eni.into(),
        prefixes,
        from,
    }
}

fn attachment(key: AttachmentKey) -> v1::Attachment {
    let AttachmentKey { network, container, ifname } = key;
    v1::Attachment { network: network.into(), container_id: container, ifname }
}

fn pod_message(pod: &Pod) -> v1::Pod {
    let Pod { namespace, name, uid } = pod.clone();
    v1::Pod { namespace, name, uid }
}

fn eni(eni: EniView) -> v1::EniView {
    // No table has a route to an ENI that is not attached yet.
    let table = eni.device_index.map_or(0, |device| match eni.primary {
        true => RouteTable::MAIN.number(),
        false => RouteTable::of(eni.network_card, device).number(),
    });
    v1::EniView {
        id: eni.id.to_string(),
        device_index: eni.device_index.unwrap_or_default().into(),
        network_card: eni.network_card.into(),
        mac: eni.mac.to_string(),
        subnet: eni.subnet.to_string(),
        primary_address: eni.primary_address.to_string(),
        primary: eni.primary,
        state: eni.stage.as_str().to_owned(),
        table,
        blocks: eni.blocks.iter().map(|(cidr, used)| block(*cidr, used)).collect(),
        delegated: eni.delegated.iter().map(ToString::to_string).collect(),
        subnet_cidr: eni.subnet_cidr.map(|cidr| cidr.to_string()).unwrap_or_default(),
    }
}

fn block(cidr: Block, used: &BlockUse) -> v1::BlockView {
    v1::BlockView {
        cidr: cidr.to_string(),
        assigned: count(used.assigned.len()),
        cooling: count(used.cooling.len()),
        free: used.free,
        quarantined: count(used.quarantined.len()),
    }
}

fn pool_counts(counts: Counts) -> v1::PoolCounts {
    v1::PoolCounts {
        total: counts.total,
        assigned: counts.assigned,
        cooling: counts.cooling,
        free: counts.free,
        prefixes: counts.prefixes,
        waiting: counts.waiting,
        quarantined: counts.quarantined,
        delegated: counts.delegated,
        expected: counts.expected,
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_skew_of_one_minor_is_accepted() {
        let (major, minor) = major_minor(proto::VERSION).unwrap();
        let check = |client: &str| check_version(client).map_err(|status| status.code());
        for good in [(major, minor), (major, minor + 1), (major, minor.saturating_sub(1))] {
            assert_eq!(check(&format!("{}.{}.77-rc1", good.0, good.1)), Ok(()), "{good:?}");
        }
        for bad in [format!("{major}.{}.0", minor + 2), format!("{}.{minor}.0", major + 1)] {
            assert_eq!(check(&bad), Err(Code::FailedPrecondition), "{bad}");
        }
        for bad in ["", "v1", "1", "one.two", "-1.0.0"] {
            assert_eq!(check(bad), Err(Code::FailedPrecondition), "{bad}");
        }
        let message = check_version("9.9.9").unwrap_err().message().to_owned();
        assert!(message.contains("9.9.9") && message.contains(proto::VERSION), "{message}");
    }

    #[test]
    fn timeout_parses_every_grpc_unit() {
        let check = |text: &str, expect: Option<Duration>| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            assert_eq!(timeout(&metadata), expect, "{text}");
        };
        check("2H", Some(Duration::from_secs(7200)));
        check("3M", Some(Duration::from_secs(180)));
        check("15S", Some(Duration::from_secs(15)));
        check("15000m", Some(Duration::from_secs(15)));
        check("99999999u", Some(Duration::from_micros(99_999_999)));
        check("5n", Some(Duration::from_nanos(5)));
        for bad in ["", "S", "15", "15s", "-1S", "123456789S", "1.5S"] {
            check(bad, None);
        }
        assert_eq!(timeout(&MetadataMap::new()), None);
    }

    #[test]
    fn incomplete_attachment_is_refused() {
        let whole = || v1::Attachment {
            network: "aws-cni".into(),
            container_id: "c1".into(),
            ifname: "eth0".into(),
        };
        assert!(key(Some(whole())).is_ok());
        let bad = [
            None,
            Some(v1::Attachment { network: String::new(), ..whole() }),
            Some(v1::Attachment { container_id: String::new(), ..whole() }),
            Some(v1::Attachment { ifname: "e".repeat(MAX_TEXT + 1), ..whole() }),
        ];
        for attachment in bad {
            assert_eq!(key(attachment).unwrap_err().code(), Code::InvalidArgument);
        }
        let nameless = v1::Attachment { container_id: String::new(), ..whole() };
        assert_eq!(valid(vec![whole(), nameless]).unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(valid(vec![whole()]).unwrap().len(), 1);
    }

    #[test]
    fn address_fills_reach_and_the_fields_of_older_plugins() {
        let eni = ipam::id::EniId::try_from("eni-0a".to_owned()).unwrap();
        let via = Via::Eni { eni, card: 1, index: 1 };
        let ip = PodIp { address: "10.0.2.20".parse().unwrap(), via };
        let v1::PodAddress { address, table, eni, reach } = address(&ip);
        assert_eq!((&*address, table, &*eni), ("10.0.2.20", 10_101, "eni-0a"));
        let expected =
            v1::EniReach { id: "eni-0a".into(), network_card: 1, device_index: 1, table: 10_101 };
        assert_eq!(reach, Some(Reach::ByEni(expected)));
    }

    #[test]
    fn retry_delay_is_rounded_up() {
        let refusal = |retry_after| Refusal {
            code: ipam::event::RefusalCode::Throttled,
            message: String::new(),
            retry_after,
        };
        assert_eq!(refused(refusal(None)).retry_after_ms, 0);
        assert_eq!(refused(refusal(Some(Duration::from_nanos(1)))).retry_after_ms, 1);
        assert_eq!(refused(refusal(Some(Duration::from_secs(2)))).retry_after_ms, 2000);
    }
}

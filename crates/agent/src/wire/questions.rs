//! Converts the answers to the questions of people: why a pod has no address, which subnets there are, and what
//! differs.

use ipam::block::BlockKind;
use ipam::standing::{Sources, Stage, Standing, Standings, UnreadyEni, Whom};
use ipam::subnet_list::{ListedSubnet, SubnetList};
use proto::v1;
use proto::v1::why_request::Whom as Asked;
use tonic::Status;

use super::{addresses, attachment, name, pod_message, pool_counts, refused, text_of};
use crate::differences::Difference;
use crate::refusals::Refused;

/// The number of differences in one answer.
const MOST_DIFFERENCES: usize = 256;

/// Whose standing is asked for.
///
/// # Errors
///
/// `INVALID_ARGUMENT` if nobody is named, or if a part is empty or too long.
pub(crate) fn whom(request: v1::WhyRequest) -> Result<Whom, Status> {
    match request.whom {
        Some(Asked::Pod(v1::Pod { namespace, name: pod, uid: _ })) => Ok(Whom::Pod {
            namespace: name("pod namespace", namespace)?,
            name: name("pod name", pod)?,
        }),
        Some(Asked::ContainerId(id)) => Ok(Whom::Container(name("container_id", id)?)),
        None => Err(Status::invalid_argument("neither a pod nor a container is named")),
    }
}

/// How a pod stands, without the times of the answer.
pub(crate) fn why(standings: Standings, last: Option<Refused>) -> v1::WhyReply {
    let Standings { attachments, in_flight, unready_enis, not_ready, expected } = standings;
    v1::WhyReply {
        attachments: attachments.into_iter().map(standing).collect(),
        last_refusal: last.map(last_refusal),
        in_flight,
        unready_enis: unready_enis.into_iter().map(unready_eni).collect(),
        not_ready: not_ready.map(refused),
        expected_ms: expected.map_or(0, |at| at.as_millis()),
        now_ms: 0,
        started_ms: 0,
    }
}

fn standing(standing: Standing) -> v1::Standing {
    let Standing { key, pod, stage } = standing;
    let (attachment, pod) = (Some(attachment(key)), Some(pod_message(&pod)));
    let stage = match stage {
        Stage::Waiting { since, n_ahead, until, refusal } => v1::Standing {
            stage: "waiting".to_owned(),
            since_ms: since.as_millis(),
            refused: Some(refused(refusal)),
            until_ms: until.as_millis(),
            n_ahead: super::count(n_ahead),
            ..v1::Standing::default()
        },
        Stage::Recording { since, addresses } => {
            let bare = |address: std::net::IpAddr| v1::PodAddress {
                address: address.to_string(),
                ..v1::PodAddress::default()
            };
            v1::Standing {
                stage: "recording".to_owned(),
                since_ms: since.as_millis(),
                addresses: addresses.into_iter().map(bare).collect(),
                ..v1::Standing::default()
            }
        }
        Stage::Holding { assignment, doubts } => v1::Standing {
            stage: "holding".to_owned(),
            since_ms: assignment.since.as_millis(),
            addresses: addresses(&assignment),
            node_local: text_of(assignment.node_local),
            doubts,
            ..v1::Standing::default()
        },
        Stage::Releasing { assignment } => v1::Standing {
            stage: "releasing".to_owned(),
            since_ms: assignment.since.as_millis(),
            addresses: addresses(&assignment),
            node_local: text_of(assignment.node_local),
            ..v1::Standing::default()
        },
    };
    v1::Standing { attachment, pod, ..stage }
}

fn last_refusal(last: Refused) -> v1::LastRefusal {
    let Refused { key, pod, refusal, at, n, first } = last;
    v1::LastRefusal {
        attachment: Some(attachment(key)),
        pod: Some(pod_message(&pod)),
        at_ms: at.as_millis(),
        refused: Some(refused(refusal)),
        n_refused: n,
        first_ms: first.as_millis(),
    }
}

fn unready_eni(eni: UnreadyEni) -> v1::UnreadyEni {
    let UnreadyEni { id, stage, fault } = eni;
    v1::UnreadyEni {
        id: id.to_string(),
        state: stage.as_str().to_owned(),
        fault: fault.unwrap_or_default(),
    }
}

/// The subnets.
pub(crate) fn subnets(list: SubnetList) -> v1::SubnetsReply {
    let SubnetList { described_at, subnets } = list;
    v1::SubnetsReply {
        described_ms: described_at.map_or(0, |at| at.as_millis()),
        subnets: subnets.into_iter().map(subnet).collect(),
    }
}

fn subnet(subnet: ListedSubnet) -> v1::SubnetView {
    let ListedSubnet { id, cidr, free_addresses, role, n_enis, counts, refusals } = subnet;
    let refusals = refusals.into_iter().map(|(kind, (code, until))| v1::SubnetRefusal {
        of: match kind {
            BlockKind::V4Address => "address",
            BlockKind::V4Prefix => "prefix",
            BlockKind::V6Prefix => "ipv6-prefix",
        }
        .to_owned(),
        code: code.as_str().to_owned(),
        until_ms: until.as_millis(),
    });
    v1::SubnetView {
        id: id.to_string(),
        cidr: cidr.map(|cidr| cidr.to_string()).unwrap_or_default(),
        free_addresses,
        role: role.as_str().to_owned(),
        enis: n_enis,
        counts: Some(pool_counts(counts)),
        refusals: refusals.collect(),
    }
}

/// What differs, and what was compared.
pub(crate) fn differences(all: Vec<Difference>, sources: Sources) -> v1::DifferencesReply {
    let n_more = super::count(all.len().saturating_sub(MOST_DIFFERENCES));
    let differences = all.into_iter().take(MOST_DIFFERENCES).map(|difference| {
        let Difference { kind, subject, found, advice } = difference;
        let (kind, advice) = (kind.to_owned(), advice.to_owned());
        v1::Difference { kind, subject, found, advice }
    });
    let Sources { ec2, kernel, kernel_unread, is_runtime_seen } = sources;
    let source = |name: &str, seen: Option<ipam::time::Timestamp>, fault: Option<String>| {
        let seen_ms = seen.map_or(0, |at| at.as_millis());
        v1::Source { name: name.to_owned(), seen_ms, fault: fault.unwrap_or_default() }
    };
    let never = |seen: bool, why: &str| (!seen).then(|| why.to_owned());
    let ec2_fault = never(ec2.is_some(), "EC2 has not described the ENIs since the daemon's start");
    let kernel_fault = kernel_unread.or_else(|| {
        never(kernel.is_some(), "the kernel has not been read since the daemon's start")
    });
    let runtime_fault =
        never(is_runtime_seen, "the container runtime has not answered, or is not asked");
    let sources = vec![
        source("ec2", ec2, ec2_fault),
        source("kernel", kernel, kernel_fault),
        source("runtime", None, runtime_fault),
    ];
    v1::DifferencesReply { differences: differences.collect(), n_more, sources }
}

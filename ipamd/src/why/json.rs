//! The answer of `ipamd why` as JSON. Keys are added, never renamed or removed. Times are milliseconds since the Unix
//! epoch, by the daemon's clock.

use proto::v1;
use serde::Serialize;

/// The whole answer.
#[derive(Serialize)]
pub(super) struct Why<'a> {
    /// `waiting`, `recording`, `holding` or `releasing`: the stage of the first attachment. Without any, `refused` if
    /// the last ADD was refused, else `unknown`.
    state: &'a str,
    now_ms: u64,
    /// When the API server first showed that the pod is bound to this node and has not started; `null` if it does not.
    expected_ms: Option<u64>,
    /// When the daemon started.
    started_ms: u64,
    attachments: Vec<Attachment<'a>>,
    /// `null` if no ADD was refused, or if one succeeded later.
    last_refusal: Option<LastRefusal<'a>>,
    /// Calls to EC2 in flight, one phrase each.
    in_flight: &'a [String],
    /// ENIs whose addresses no new pod gets.
    unready_enis: Vec<UnreadyEni<'a>>,
    /// Why no ADD would be served now; `null` if the node serves pods.
    not_ready: Option<Reason<'a>>,
}

#[derive(Serialize)]
struct Attachment<'a> {
    namespace: &'a str,
    name: &'a str,
    uid: &'a str,
    network: &'a str,
    container_id: &'a str,
    ifname: &'a str,
    /// `waiting`, `recording`, `holding` or `releasing`.
    stage: &'a str,
    /// When the ADD came, or when the addresses were chosen.
    since_ms: u64,
    /// What a waiting ADD would be refused with now; else `null`.
    reason: Option<Reason<'a>>,
    /// When a waiting ADD is answered at the latest; else `null`.
    until_ms: Option<u64>,
    /// How many ADDs get an address before a waiting one.
    ahead: u64,
    addresses: Vec<Address<'a>>,
    /// Empty if the pod has none.
    node_local: &'a str,
    /// What keeps packets from the pod, one phrase each.
    doubts: &'a [String],
}

#[derive(Serialize)]
struct Address<'a> {
    address: &'a str,
    /// Empty while the address is not on record.
    eni: &'a str,
}

#[derive(Serialize)]
struct Reason<'a> {
    /// As in docs/errors.md.
    code: &'a str,
    message: &'a str,
    /// When trying again makes sense; `null` if nothing is on its way.
    retry_at_ms: Option<u64>,
}

#[derive(Serialize)]
struct LastRefusal<'a> {
    namespace: &'a str,
    name: &'a str,
    container_id: &'a str,
    at_ms: u64,
    /// The number of refusals since the pod's last success.
    refusals: u32,
    /// When the first of these was given.
    first_ms: u64,
    reason: Option<Reason<'a>>,
}

#[derive(Serialize)]
struct UnreadyEni<'a> {
    id: &'a str,
    /// `attaching`, `linking` or `draining`.
    state: &'a str,
    /// Why the host's side of it cannot be set up; empty if that has not failed.
    fault: &'a str,
}

/// The answer with its stable keys.
pub(super) fn shape(reply: &v1::WhyReply) -> Why<'_> {
    let state = match (reply.attachments.first(), &reply.last_refusal) {
        (Some(first), _) => first.stage.as_str(),
        (None, Some(_)) => "refused",
        (None, None) => "unknown",
    };
    Why {
        state,
        expected_ms: (reply.expected_ms > 0).then_some(reply.expected_ms),
        now_ms: reply.now_ms,
        started_ms: reply.started_ms,
        attachments: reply.attachments.iter().map(|it| attachment(it, reply.now_ms)).collect(),
        last_refusal: reply.last_refusal.as_ref().map(last_refusal),
        in_flight: &reply.in_flight,
        unready_enis: reply.unready_enis.iter().map(unready_eni).collect(),
        not_ready: reply.not_ready.as_ref().map(|refused| reason(refused, reply.now_ms)),
    }
}

fn attachment(standing: &v1::Standing, now_ms: u64) -> Attachment<'_> {
    let (pod, key) = (standing.pod.as_ref(), standing.attachment.as_ref());
    let addresses = standing.addresses.iter();
    let addresses = addresses.map(|held| Address { address: &held.address, eni: &held.eni });
    Attachment {
        namespace: pod.map_or("", |pod| &pod.namespace),
        name: pod.map_or("", |pod| &pod.name),
        uid: pod.map_or("", |pod| &pod.uid),
        network: key.map_or("", |key| &key.network),
        container_id: key.map_or("", |key| &key.container_id),
        ifname: key.map_or("", |key| &key.ifname),
        stage: &standing.stage,
        since_ms: standing.since_ms,
        reason: standing.refused.as_ref().map(|refused| reason(refused, now_ms)),
        until_ms: Some(standing.until_ms).filter(|at| *at > 0),
        ahead: standing.n_ahead,
        addresses: addresses.collect(),
        node_local: &standing.node_local,
        doubts: &standing.doubts,
    }
}

fn last_refusal(last: &v1::LastRefusal) -> LastRefusal<'_> {
    let (pod, key) = (last.pod.as_ref(), last.attachment.as_ref());
    LastRefusal {
        namespace: pod.map_or("", |pod| &pod.namespace),
        name: pod.map_or("", |pod| &pod.name),
        container_id: key.map_or("", |key| &key.container_id),
        at_ms: last.at_ms,
        refusals: last.n_refused,
        first_ms: last.first_ms,
        reason: last.refused.as_ref().map(|refused| reason(refused, last.at_ms)),
    }
}

fn reason(refused: &v1::Refused, at_ms: u64) -> Reason<'_> {
    let v1::Refused { code, message, retry_after_ms } = refused;
    let retry_at_ms = Some(*retry_after_ms).filter(|after| *after > 0);
    Reason { code, message, retry_at_ms: retry_at_ms.map(|after| at_ms.saturating_add(after)) }
}

fn unready_eni(eni: &v1::UnreadyEni) -> UnreadyEni<'_> {
    let v1::UnreadyEni { id, state, fault } = eni;
    UnreadyEni { id, state, fault }
}

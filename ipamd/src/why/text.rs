//! The answer of `ipamd why` as text for people.

use std::time::{Duration, UNIX_EPOCH};

use command_line::printable;
use proto::v1;

use crate::status::table::age;

/// One paragraph for each attachment, else one for the last refusal; then what is under way.
pub(super) fn render(reply: &v1::WhyReply) -> String {
    let mut lines = Vec::new();
    for standing in &reply.attachments {
        lines.extend(attachment(standing, reply.now_ms));
    }
    if let Some(last) = &reply.last_refusal {
        lines.extend(last_refusal(last, reply));
    }
    let waits = reply.attachments.iter().all(|standing| standing.stage == "waiting");
    if waits {
        lines.extend(reply.in_flight.iter().map(|call| format!("call of EC2: {call}")));
        lines.extend(reply.unready_enis.iter().map(unready_eni));
        lines.push(match &reply.not_ready {
            None => "node: it serves pods now".to_owned(),
            Some(refused) => format!("node: it serves no pod now: {}", reason(refused)),
        });
    }
    lines.iter().map(|line| printable(line) + "\n").collect()
}

fn attachment(standing: &v1::Standing, now_ms: u64) -> Vec<String> {
    let pod = pod(standing.pod.as_ref(), standing.attachment.as_ref());
    let since = span(standing.since_ms, now_ms);
    let addresses: Vec<_> = standing.addresses.iter().map(address).collect();
    let addresses = addresses.join(", ");
    let mut lines = vec![match standing.stage.as_str() {
        "waiting" => format!("{pod}: has waited for an address for {since}"),
        "recording" => {
            format!("{pod}: gets {addresses}, which has been on its way to the disk for {since}")
        }
        "holding" => format!("{pod}: has had {addresses} for {since}"),
        "releasing" => format!("{pod}: gives {addresses} back; that is on its way to the disk"),
        other => format!("{pod}: {other}"),
    }];
    if let Some(refused) = &standing.refused {
        lines.push(format!("  reason: {}", reason(refused)));
        lines.push(format!("  tried again: {}", retry(refused.retry_after_ms)));
        let left = span(now_ms, standing.until_ms);
        let ahead = match standing.n_ahead {
            0 => "it is the first of those that wait".to_owned(),
            1 => "1 other pod is served first".to_owned(),
            n => format!("{n} other pods are served first"),
        };
        lines.push(format!("  answered: in {left} at the latest; {ahead}"));
    }
    if !standing.node_local.is_empty() {
        lines.push(format!("  node-local address: {}", standing.node_local));
    }
    lines.extend(standing.doubts.iter().map(|doubt| format!("  problem: {doubt}")));
    lines
}

fn last_refusal(last: &v1::LastRefusal, reply: &v1::WhyReply) -> Vec<String> {
    let pod = pod(last.pod.as_ref(), last.attachment.as_ref());
    let ago = span(last.at_ms, reply.now_ms);
    let count = match last.n_refused {
        0 | 1 => String::new(),
        n => format!(", the last of {n} refusals in {}", span(last.first_ms, last.at_ms)),
    };
    let mut lines = vec![format!("{pod}: its ADD was refused {ago} ago{count}")];
    if let Some(refused) = &last.refused {
        lines.push(format!("  reason: {}", reason(refused)));
        let left = (last.at_ms + refused.retry_after_ms).saturating_sub(reply.now_ms);
        let again = match (refused.retry_after_ms, left) {
            (0, _) => retry(0),
            (_, 0) => {
                "the time for it has come; the runtime's next ADD is served if there is an address"
                    .to_owned()
            }
            (_, left) => retry(left),
        };
        lines.push(format!("  tried again: {again}"));
    }
    lines
}

fn retry(after_ms: u64) -> String {
    match after_ms {
        0 => "when something changes; no address is on its way yet (docs/errors.md)".to_owned(),
        ms => format!("in {}", span(0, ms)),
    }
}

fn reason(refused: &v1::Refused) -> String {
    format!("{}: {}", refused.code, refused.message)
}

fn unready_eni(eni: &v1::UnreadyEni) -> String {
    let v1::UnreadyEni { id, state, fault } = eni;
    match fault.is_empty() {
        true => format!("ENI: {id} is {state}"),
        false => format!("ENI: {id} is {state}: {fault}"),
    }
}

fn pod(pod: Option<&v1::Pod>, attachment: Option<&v1::Attachment>) -> String {
    let v1::Attachment { container_id, ifname, .. } = attachment.cloned().unwrap_or_default();
    let container: String = container_id.chars().take(12).collect();
    match pod.filter(|pod| !pod.name.is_empty()) {
        Some(v1::Pod { namespace, name, .. }) => {
            format!("{namespace}/{name} (container {container}, {ifname})")
        }
        None => format!("container {container} ({ifname})"),
    }
}

fn address(held: &v1::PodAddress) -> String {
    match held.eni.is_empty() {
        true => held.address.clone(),
        false => format!("{} of {}", held.address, held.eni),
    }
}

/// The two largest units of the time between two moments: `3h 12m`.
pub(super) fn span(from_ms: u64, to_ms: u64) -> String {
    age(from_ms, UNIX_EPOCH + Duration::from_millis(to_ms))
}

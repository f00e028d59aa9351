//! The pool as text for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use comfy_table::{Table, presets};
use command_line::printable;
use proto::v1;

/// The pool, with ages as of `now`.
pub(super) fn render(view: &v1::ViewReply, now: SystemTime) -> String {
    let v1::ViewReply { instance_id, instance_type, server_version, mode, .. } = view;
    let node = format!("{instance_id} ({instance_type}), ipamd {server_version}, mode {mode}");
    let node = [node].into_iter().chain(view.limits.as_ref().map(limits)).chain(changes(view));
    let node = node.map(|line| printable(&line)).collect::<Vec<_>>();
    let mut paragraphs = vec![node.join("\n"), enis(view).to_string()];
    if view.enis.iter().flat_map(|eni| &eni.blocks).any(is_prefix) {
        paragraphs.push(prefixes(view).to_string());
    }
    if !view.pods.is_empty() {
        paragraphs.push(pods(&view.pods, now).to_string());
    }
    paragraphs.push(sums(view));
    paragraphs.join("\n\n") + "\n"
}

fn limits(limits: &v1::InstanceLimits) -> String {
    let v1::InstanceLimits { enis, addresses_per_eni, prefixes, from } = limits;
    let prefixes = if *prefixes { "prefixes" } else { "no prefixes" };
    format!("limits: {enis} ENIs, {addresses_per_eni} addresses on each, {prefixes} ({from})")
}

/// Why the pool does not follow its targets, if it does not.
fn changes(view: &v1::ViewReply) -> Option<String> {
    let phrase = match view.changes.as_str() {
        "" | "by_targets" => return None,
        "cordoned" => {
            "as pods want, since the node is cordoned; no ENI goes back (AWS_MANAGE_ENIS_NON_SCHEDULABLE)"
        }
        "off" => "none (DISABLE_NETWORK_RESOURCE_PROVISIONING)",
        "imds_only" => {
            "none, and the metadata service answers in place of EC2 (ENABLE_IMDS_ONLY_MODE)"
        }
        newer => newer,
    };
    Some(format!("changes at EC2: {phrase}"))
}

/// The sums, then one line for each foreign ENI, call in flight and obstacle.
fn sums(view: &v1::ViewReply) -> String {
    let v1::PoolCounts {
        total,
        assigned,
        cooling,
        free,
        prefixes,
        waiting,
        quarantined,
        delegated: _,
        expected,
    } = view.counts.unwrap_or_default();
    let mut text = format!(
        "{total} addresses: {assigned} used, {cooling} cooling, {quarantined} quarantined, {free} free; \
         {prefixes} prefixes; {waiting} pods waiting"
    );
    if expected > 0 {
        text.push_str(&format!(", {expected} about to start"));
    }
    if let Some(v1::PoolCounts { assigned, cooling, quarantined, prefixes, .. }) = view.ipv6_counts
    {
        text.push_str(&format!(
            "\nIPv6: {assigned} used, {cooling} cooling, {quarantined} quarantined; {prefixes} prefixes"
        ));
    }
    for eni in &view.enis {
        let id = &eni.id;
        let prefixes = eni.delegated.iter().map(|prefix| format!("{prefix} on {id}"));
        text.extend(prefixes.map(|phrase| format!("\ndelegated: {}", printable(&phrase))));
    }
    for (name, phrases) in [
        ("foreign ENI", &view.foreign_enis),
        ("in flight", &view.in_flight),
        ("blocked", &view.blocked),
    ] {
        text.extend(phrases.iter().map(|phrase| format!("\n{name}: {}", printable(phrase))));
    }
    text
}

/// An empty table with this header.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

/// Names come from pods and from EC2, so a row shows only what is printable of them.
pub(crate) fn add_row<const N: usize>(table: &mut Table, cells: [String; N]) {
    table.add_row(cells.map(|cell| printable(&cell)));
}

/// One row for each ENI.
pub(crate) fn enis(view: &v1::ViewReply) -> Table {
    let mut table =
        table(&["ENI", "DEVICE", "TABLE", "SUBNET", "ADDRESS", "STATE", "USED", "COOLING", "FREE"]);
    // Beside IPv4, the 2^48 addresses of an IPv6 prefix would hide what is short.
    let counts = |block: &&v1::BlockView| view.ipv6_counts.is_none() || !is_ipv6(block);
    for eni in &view.enis {
        let sum = |count: fn(&v1::BlockView) -> u64| {
            eni.blocks.iter().filter(counts).map(count).sum::<u64>().to_string()
        };
        // Table 0 means that the ENI is not attached.
        let (device, route_table) = match eni.table {
            0 => ("-".to_owned(), "-".to_owned()),
            254 => (device(eni), "main".to_owned()),
            number => (device(eni), number.to_string()),
        };
        add_row(
            &mut table,
            [
                eni.id.clone(),
                device,
                route_table,
                eni.subnet.clone(),
                eni.primary_address.clone(),
                eni.state.clone(),
                sum(|block| block.assigned),
                sum(|block| block.cooling),
                sum(|block| block.free),
            ],
        );
    }
    table
}

fn device(eni: &v1::EniView) -> String {
    match eni.network_card {
        0 => eni.device_index.to_string(),
        card => format!("{card}/{}", eni.device_index),
    }
}

/// One row for each prefix.
pub(crate) fn prefixes(view: &v1::ViewReply) -> Table {
    let mut table = table(&["PREFIX", "ENI", "USED", "COOLING", "FREE"]);
    for eni in &view.enis {
        for block in eni.blocks.iter().filter(|block| is_prefix(block)) {
            add_row(
                &mut table,
                [
                    block.cidr.clone(),
                    eni.id.clone(),
                    block.assigned.to_string(),
                    block.cooling.to_string(),
                    block.free.to_string(),
                ],
            );
        }
    }
    table
}

fn is_ipv6(block: &v1::BlockView) -> bool {
    block.cidr.contains(':')
}

/// Whether the block is a prefix.
pub(crate) fn is_prefix(block: &v1::BlockView) -> bool {
    !(block.cidr.ends_with("/32") || block.cidr.ends_with("/128"))
}

/// One row for each attachment, with ages as of `now`.
pub(crate) fn pods<'a>(pods: impl IntoIterator<Item = &'a v1::PodView>, now: SystemTime) -> Table {
    let mut table = table(&["POD", "ADDRESS", "ENI", "AGE", "CONTAINER", "INTERFACE"]);
    for view in pods {
        let pod = view.pod.clone().unwrap_or_default();
        let v1::PodAddress { address, eni, .. } = view.address.clone().unwrap_or_default();
        let address = match &view.second_address {
            None => address,
            Some(second) => format!("{address}, {}", second.address),
        };
        let attachment = view.attachment.clone().unwrap_or_default();
        let name = match pod.name.is_empty() {
            true => "-".to_owned(),
            false => format!("{}/{}", pod.namespace, pod.name),
        };
        add_row(
            &mut table,
            [
                name,
                address,
                eni,
                age(view.since_ms, now),
                attachment.container_id.chars().take(12).collect(),
                attachment.ifname,
            ],
        );
    }
    table
}

/// The two largest units of the age, in whole seconds: `3h 12m`.
pub(crate) fn age(since_ms: u64, now: SystemTime) -> String {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let age = now.saturating_sub(Duration::from_millis(since_ms)).as_secs();
    let text = humantime::format_duration(Duration::from_secs(age)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;

//! The pool as JSON. Scripts rely on the keys: keys are added, never renamed or removed. Numbers are
//! counts of addresses unless the key says otherwise.

use proto::v1;
use serde::Serialize;

#[derive(Serialize)]
struct Status<'a> {
    instance_id: &'a str,
    instance_type: &'a str,
    /// The daemon's version, `major.minor.patch`.
    version: &'a str,
    /// `secondary-ip`, `prefix` or `ipv6`; with both families `secondary-ip+ipv6` or `prefix+ipv6`.
    mode: &'a str,
    /// `null` from a daemon too old to send it.
    limits: Option<Limits<'a>>,
    /// What the daemon may change at EC2: `by_targets`, `cordoned`, `off` or `imds_only`; empty from an older daemon.
    changes: &'a str,
    enis: Vec<Eni<'a>>,
    /// Ids of ENIs on this instance that the daemon does not manage.
    foreign_enis: &'a [String],
    pods: Vec<Pod<'a>>,
    /// Those of IPv4 with both families.
    counts: Counts,
    /// Those of IPv6 with both families; else `null`.
    ipv6_counts: Option<Counts>,
    /// Calls to EC2 in flight, one phrase each.
    in_flight: &'a [String],
    /// What keeps the pool from its targets, one phrase each.
    blocked: &'a [String],
}

/// What EC2 allows the instance, as far as the daemon knows.
#[derive(Serialize)]
struct Limits<'a> {
    /// The most ENIs, the primary included.
    enis: u32,
    /// The most on one ENI: primary address, secondary addresses and prefixes together.
    addresses_per_eni: u32,
    prefixes: bool,
    /// Where the limits come from, in a few words for people.
    from: &'a str,
}

/// One ENI, as `status` and `enis` print it.
#[derive(Serialize)]
pub(crate) struct Eni<'a> {
    id: &'a str,
    device_index: u32,
    network_card: u32,
    mac: &'a str,
    subnet: &'a str,
    primary_address: &'a str,
    primary: bool,
    /// `attaching`, `linking`, `ready` or `draining`.
    state: &'a str,
    /// Number of the kernel's route table; 0 while the ENI is not attached.
    table: u32,
    /// Secondary addresses and prefixes.
    blocks: Vec<Block<'a>>,
    /// Prefixes that containers beside the pods use; they are in no other list and in no count.
    delegated: &'a [String],
    /// The range of its subnet; empty while the daemon does not know it.
    subnet_cidr: &'a str,
}

#[derive(Serialize)]
struct Block<'a> {
    cidr: &'a str,
    assigned: u64,
    cooling: u64,
    /// In use without a record, so no pod gets them.
    quarantined: u64,
    free: u64,
}

/// One attachment, as `status` and `pods` print it.
#[derive(Serialize)]
pub(crate) struct Pod<'a> {
    namespace: &'a str,
    name: &'a str,
    uid: &'a str,
    network: &'a str,
    container_id: &'a str,
    ifname: &'a str,
    address: &'a str,
    eni: &'a str,
    table: u32,
    /// The IPv6 address of a pod that has an IPv4 address too; else `null`.
    second_address: Option<&'a str>,
    /// Empty if the pod has none.
    node_local: &'a str,
    /// Milliseconds since the Unix epoch.
    since_ms: u64,
}

/// Sums of addresses.
#[derive(Serialize)]
pub(crate) struct Counts {
    total: u64,
    assigned: u64,
    cooling: u64,
    /// In use without a record, so no pod gets them.
    quarantined: u64,
    free: u64,
    /// A count of prefixes.
    prefixes: u64,
    /// A count of prefixes.
    delegated: u64,
    /// A count of ADDs that wait for an address.
    waiting: u64,
    /// A count of pods that are bound to the node and ask for an address soon.
    expected: u64,
}

/// The pool, indented, with a newline at the end.
pub(crate) fn render(view: &v1::ViewReply) -> serde_json::Result<String> {
    let status = Status {
        instance_id: &view.instance_id,
        instance_type: &view.instance_type,
        version: &view.server_version,
        mode: &view.mode,
        limits: view.limits.as_ref().map(|limits| Limits {
            enis: limits.enis,
            addresses_per_eni: limits.addresses_per_eni,
            prefixes: limits.prefixes,
            from: &limits.from,
        }),
        changes: &view.changes,
        enis: view.enis.iter().map(eni).collect(),
        foreign_enis: &view.foreign_enis,
        pods: view.pods.iter().map(pod).collect(),
        counts: sums(view.counts.unwrap_or_default()),
        ipv6_counts: view.ipv6_counts.map(sums),
        in_flight: &view.in_flight,
        blocked: &view.blocked,
    };
    pretty(&status)
}

/// `value`, indented, with a newline at the end.
pub(crate) fn pretty(value: &impl Serialize) -> serde_json::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// The sums.
pub(crate) fn sums(counts: v1::PoolCounts) -> Counts {
    Counts {
        total: counts.total,
        assigned: counts.assigned,
        cooling: counts.cooling,
        quarantined: counts.quarantined,
        free: counts.free,
        prefixes: counts.prefixes,
        delegated: counts.delegated,
        waiting: counts.waiting,
        expected: counts.expected,
    }
}

/// One ENI.
pub(crate) fn eni(eni: &v1::EniView) -> Eni<'_> {
    let blocks = eni.blocks.iter().map(|block| Block {
        cidr: &block.cidr,
        assigned: block.assigned,
        cooling: block.cooling,
        quarantined: block.quarantined,
        free: block.free,
    });
    Eni {
        id: &eni.id,
        device_index: eni.device_index,
        network_card: eni.network_card,
        mac: &eni.mac,
        subnet: &eni.subnet,
        primary_address: &eni.primary_address,
        primary: eni.primary,
        state: &eni.state,
        table: eni.table,
        blocks: blocks.collect(),
        delegated: &eni.delegated,
        subnet_cidr: &eni.subnet_cidr,
    }
}

/// One attachment.
pub(crate) fn pod(view: &v1::PodView) -> Pod<'_> {
    let pod = view.pod.as_ref();
    let attachment = view.attachment.as_ref();
    let address = view.address.as_ref();
    Pod {
        namespace: pod.map_or("", |pod| &pod.namespace),
        name: pod.map_or("", |pod| &pod.name),
        uid: pod.map_or("", |pod| &pod.uid),
        network: attachment.map_or("", |key| &key.network),
        container_id: attachment.map_or("", |key| &key.container_id),
        ifname: attachment.map_or("", |key| &key.ifname),
        address: address.map_or("", |held| &held.address),
        eni: address.map_or("", |held| &held.eni),
        table: address.map_or(0, |held| held.table),
        second_address: view.second_address.as_ref().map(|held| held.address.as_str()),
        node_local: &view.node_local,
        since_ms: view.since_ms,
    }
}

//! The pool as amazon-vpc-cni-k8s shows its own. Names are those of Go's fields. What this daemon does not have is
//! empty, as it is there: an ENI is never a trunk, and containers have no names.

use std::collections::BTreeMap;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use datapath::RouteTable;
use ipam::block::{Block, Family};
use ipam::id::AttachmentKey;
use ipam::record::{Assignment, Via};
use ipam::view::{BlockUse, EniView, PoolView};
use ipnet::IpNet;
use serde_json::{Map, Value, json};

/// Go's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// `/v1/enis`: by network card.
pub(super) fn enis(view: &PoolView) -> Value {
    let holders = holders(view);
    let mut cards: BTreeMap<u16, Vec<&EniView>> = BTreeMap::new();
    for eni in view.enis.iter().filter(|eni| eni.device_index.is_some()) {
        cards.entry(eni.network_card).or_default().push(eni);
    }
    let card = |enis: &[&EniView]| {
        let blocks = || enis.iter().flat_map(|eni| &eni.blocks);
        let of_family = || blocks().filter(|(block, _)| block.family() == view.kind.family());
        let shown = enis.iter().map(|eni| (eni.id.to_string(), self::eni(eni, &holders)));
        json!({
            "TotalIPs": of_family().map(|(block, _)| block.size()).sum::<u64>(),
            "AssignedIPs": of_family().map(|(_, used)| used.assigned.len()).sum::<usize>(),
            "ENIs": shown.collect::<Map<_, _>>(),
        })
    };
    cards.into_iter().map(|(number, enis)| (number.to_string(), card(&enis))).collect()
}

/// `/v1/pods`: address and device number by name, namespace and container.
pub(super) fn pods(view: &PoolView) -> Value {
    let pods = view.assignments.iter().map(|(key, assignment)| {
        let first = assignment.addresses.first();
        let device_number = match &first.via {
            Via::Eni { index, .. } => i32::from(*index),
            // As amazon-vpc-cni-k8s numbers the device of a branch ENI.
            Via::Branch { .. } => -1,
        };
        let pod = &assignment.pod;
        let name = [&*pod.name, &*pod.namespace, &*key.container].join("_");
        (name, json!({"IP": first.address.to_string(), "DeviceNumber": device_number}))
    });
    pods.collect()
}

/// Which attachment has each address.
fn holders(view: &PoolView) -> BTreeMap<IpAddr, (&AttachmentKey, &Assignment)> {
    let held = view.assignments.iter().flat_map(|(key, assignment)| {
        assignment.addresses.iter().map(move |ip| (ip.address, (key, assignment)))
    });
    held.collect()
}

fn eni(eni: &EniView, holders: &BTreeMap<IpAddr, (&AttachmentKey, &Assignment)>) -> Value {
    let cidrs = |family: Family| -> Map<String, Value> {
        let blocks = eni.blocks.iter().filter(|(block, _)| block.family() == family);
        let shown = |(block, used): (&Block, &BlockUse)| {
            (block.cidr().to_string(), self::block(*block, used, holders))
        };
        blocks.map(shown).collect()
    };
    let table = match (eni.primary, eni.device_index) {
        (true, _) | (false, None) => RouteTable::MAIN,
        (false, Some(index)) => RouteTable::of(eni.network_card, index),
    };
    json!({
        "ID": eni.id.to_string(),
        "IsPrimary": eni.primary,
        "IsTrunk": false,
        "IsEFA": false,
        "DeviceNumber": eni.device_index,
        "AvailableIPv4Cidrs": cidrs(Family::V4),
        "IPv6Cidrs": cidrs(Family::V6),
        "IsExcludedForPodIPs": eni.is_excluded,
        "RouteTableID": table.number(),
        "SubnetID": eni.subnet.to_string(),
    })
}

/// A block with the addresses that pods have; others are only counted there.
fn block(
    block: Block,
    used: &BlockUse,
    holders: &BTreeMap<IpAddr, (&AttachmentKey, &Assignment)>,
) -> Value {
    let cidr = block.cidr();
    let address = |ip: &IpAddr| {
        let (key, assignment) = holders.get(ip)?;
        let Assignment { pod, since, .. } = assignment;
        let shown = json!({
            "Address": ip.to_string(),
            "IPAMKey": {"networkName": String::from(key.network.clone()), "containerID": "", "ifName": ""},
            "IPAMMetadata": {
                "k8sPodNamespace": pod.namespace, "k8sPodName": pod.name, "interfacesCount": 1,
            },
            "AssignedTime": since.to_rfc3339(),
            "UnassignedTime": NEVER,
        });
        Some((ip.to_string(), shown))
    };
    json!({
        "Cidr": {"IP": cidr.network().to_string(), "Mask": mask(cidr)},
        "IPAddresses": used.assigned.iter().filter_map(address).collect::<Map<_, _>>(),
        "IsPrefix": block.is_prefix(),
        "AddressFamily": "",
    })
}

/// The mask as Go writes bytes.
fn mask(cidr: IpNet) -> String {
    match cidr.netmask() {
        IpAddr::V4(mask) => STANDARD.encode(mask.octets()),
        IpAddr::V6(mask) => STANDARD.encode(mask.octets()),
    }
}

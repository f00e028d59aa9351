//! Where record, EC2, kernel and metadata service differ, one item for each fact, with what to do. The metric
//! `tidepool_disagreements` counts the same facts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipam::id::EniId;
use ipam::view::{EniStage, PoolView};

/// One fact on which two sources differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// As the label of the metric, or a word of its own.
    pub(crate) kind: &'static str,
    /// The address, the prefix or the ENI.
    pub(crate) subject: String,
    /// What differs, for people.
    pub(crate) found: String,
    /// What to do.
    pub(crate) advice: &'static str,
}

/// All differences in `view`, by kind.
pub(crate) fn of(view: &PoolView) -> Vec<Difference> {
    let ours: BTreeSet<_> = view.enis.iter().map(|eni| &eni.id).collect();
    let pods = pods(view);
    let lost = view.lost.iter().map(|(address, eni)| {
        let pod = pods.get(address).map_or("a pod", String::as_str);
        Difference {
            kind: "lost_address",
            subject: address.to_string(),
            found: format!("the record gives it to {pod} on {eni}; EC2 describes it on no ENI of this instance"),
            advice: "delete the pod, whose packets go nowhere; look in CloudTrail for who took the address",
        }
    });
    let lost_enis: BTreeSet<_> = view.lost.values().filter(|eni| !ours.contains(eni)).collect();
    let lost_enis = lost_enis.into_iter().map(|eni: &EniId| Difference {
        kind: "lost_eni",
        subject: eni.to_string(),
        found: "the record has pods on it; EC2 describes it not on this instance".to_owned(),
        advice: "delete the pods named under lost_address; look in CloudTrail for who detached the ENI",
    });
    let quarantined = view.quarantined.iter().map(|(address, link)| Difference {
        kind: "quarantined_address",
        subject: address.to_string(),
        found: format!("the kernel's link {link} uses it; the record gives it to no pod, or to another"),
        advice: "wait two minutes; if it lasts, find the link's pod by its routes and delete that pod",
    });
    let on_host = view.host_addresses.iter().map(|(address, link)| Difference {
        kind: "host_address",
        subject: address.to_string(),
        found: format!("EC2 has assigned it for pods; the host itself has it on its link {link}"),
        advice: "remove it from that link, and stop the program that puts it there",
    });
    let unlinked = view.enis.iter().filter(|eni| eni.stage == EniStage::Linking);
    let unlinked = unlinked.map(|eni| Difference {
        kind: "unlinked_eni",
        subject: eni.id.to_string(),
        found: "EC2 describes it as attached; the kernel's side of it is not set up".to_owned(),
        advice: "wait three minutes; if it lasts, see the line of that ENI in ipamd status",
    });
    let hints = view.refuted_hints.iter().flat_map(|(eni, blocks)| {
        blocks.iter().map(move |block| Difference {
            kind: "metadata_block",
            subject: block.to_string(),
            found: format!(
                "metadata service and EC2 differ about it on {eni}; EC2's answer counts"
            ),
            advice: "nothing for ten minutes; if it lasts, report it to AWS with the instance's id",
        })
    });
    let unused = view.unused_blocks.iter().map(|block| Difference {
        kind: "foreign_block",
        subject: block.to_string(),
        found: "EC2 describes it on an ENI of ours; the daemon did not ask for it, and gives it to no pod"
            .to_owned(),
        advice: "unassign it at EC2 if nobody uses it",
    });
    let groups = view.other_groups.iter().map(|(eni, groups)| {
        let groups: Vec<_> = groups.iter().map(ToString::to_string).collect();
        Difference {
            kind: "other_security_groups",
            subject: eni.to_string(),
            found: format!("it has {}; the primary ENI has others", groups.join(", ")),
            advice: "wait three minutes; if it lasts, allow ec2:ModifyNetworkInterfaceAttribute (docs/iam.md)",
        }
    });
    lost.chain(lost_enis)
        .chain(quarantined)
        .chain(on_host)
        .chain(unlinked)
        .chain(hints)
        .chain(unused)
        .chain(groups)
        .collect()
}

/// Each address with the name of its pod, or with its container's id.
fn pods(view: &PoolView) -> BTreeMap<IpAddr, String> {
    let held = view.assignments.iter();
    let named = held.flat_map(|(key, held)| {
        let name = match held.pod.name.is_empty() {
            true => format!("container {}", key.container),
            false => format!("{}/{}", held.pod.namespace, held.pod.name),
        };
        held.ips().map(move |address| (address, name.clone()))
    });
    named.collect()
}

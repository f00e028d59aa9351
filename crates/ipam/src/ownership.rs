//! Which ENIs are ours, and the tags that mark them for later runs. Judges by EC2's description alone.

use std::collections::BTreeMap;

use crate::call::{CLUSTER_TAG, EniFacts, EniKind, INSTANCE_TAG};
use crate::eni::Origin;
use crate::place::Place;
use crate::policy::Node;
use crate::time::Timestamp;
use crate::view::ForeignReason;

/// Tag with which a user keeps the daemon off an ENI (value `true`).
const NO_MANAGE_TAG: &str = "node.k8s.amazonaws.com/no_manage";
const CREATED_TAG: &str = "node.k8s.amazonaws.com/createdAt";
const OWNER_TAG: (&str, &str) = ("eks:eni:owner", "amazon-vpc-cni");

/// What an ENI is to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ownership {
    Ours(Origin),
    /// On this instance, but not ours to manage.
    Foreign(ForeignReason),
}

/// Judges an ENI that is attached to this instance.
/// Source: amazon-vpc-cni-k8s v1.23.1, `pkg/ipamd/ipamd.go`. One difference: an ENI with another instance's
/// mark is foreign here even if untagged ones are managed.
pub(crate) fn of_attached(eni: &EniFacts, node: &Node) -> Ownership {
    let place = eni.attachment.as_ref().map(Place::from);
    if eni.is_primary(node.primary_mac) {
        return Ownership::Ours(Origin::Primary);
    }
    if has_no_manage(&eni.tags) {
        return Ownership::Foreign(ForeignReason::NoManageTag);
    }
    // Index 0 is not the primary ENI's on some managed instances. The ENI there belongs to whoever manages them.
    if eni.kind == EniKind::Other || place == Some(Place::FIRST) {
        return Ownership::Foreign(ForeignReason::Kind);
    }
    if place.is_some_and(|place| !place.is_on_our_card()) {
        return Ownership::Foreign(ForeignReason::NetworkCard);
    }
    match eni.tags.get(INSTANCE_TAG) {
        Some(instance) if instance == node.instance.as_str() => Ownership::Ours(Origin::Tagged),
        Some(_) => Ownership::Foreign(ForeignReason::OtherInstance),
        None if node.manage_untagged => Ownership::Ours(Origin::Untagged),
        None => Ownership::Foreign(ForeignReason::Untagged),
    }
}

/// Whether a user keeps the daemon off the ENI with these tags.
pub(crate) fn has_no_manage(tags: &BTreeMap<String, String>) -> bool {
    tags.get(NO_MANAGE_TAG).is_some_and(|value| value == "true")
}

/// Whether an earlier run on this very instance has left the unattached ENI.
pub(crate) fn is_unattached_own(eni: &EniFacts, node: &Node) -> bool {
    eni.attachment.is_none()
        && eni.kind == EniKind::Interface
        && !has_no_manage(&eni.tags)
        && eni.tags.get(INSTANCE_TAG).is_some_and(|tag| tag == node.instance.as_str())
}

/// When another instance of this node's cluster created the unattached ENI. That instance has left it, or is
/// about to attach it. `None` for every other ENI, and without a readable time of creation.
/// amazon-vpc-cni-k8s uses the same tags, so nodes of either kind remove the ENIs that either kind leaves.
pub(crate) fn left_by_another(eni: &EniFacts, node: &Node) -> Option<Timestamp> {
    let tag = |key: &str| eni.tags.get(key).map(String::as_str);
    let is_of_cluster = node.cluster.is_some() && tag(CLUSTER_TAG) == node.cluster.as_deref();
    let is_of_another = tag(INSTANCE_TAG).is_some_and(|id| id != node.instance.as_str());
    let is_left = eni.attachment.is_none()
        && eni.kind == EniKind::Interface
        && tag(NO_MANAGE_TAG) != Some("true")
        && tag(OWNER_TAG.0) == Some(OWNER_TAG.1);
    let is_ours_to_remove = is_of_cluster && is_of_another && is_left;
    Timestamp::from_rfc3339(tag(CREATED_TAG)?).filter(|_| is_ours_to_remove)
}

/// The tags of a new ENI. The user's own go first, so that they do not override our marks.
pub(crate) fn tags(node: &Node, now: Timestamp) -> BTreeMap<String, String> {
    let mut tags = node.eni_tags.clone();
    let mut mark = |key: &str, value: &str| tags.insert(key.to_owned(), value.to_owned());
    mark(INSTANCE_TAG, node.instance.as_str());
    mark(CREATED_TAG, &now.to_rfc3339());
    if let Some(cluster) = &node.cluster {
        mark(CLUSTER_TAG, cluster);
        mark(OWNER_TAG.0, OWNER_TAG.1);
    }
    tags
}

/// The description of a new ENI. Leak searches of other tools recognize this form.
pub(crate) fn description(node: &Node) -> String {
    format!("aws-K8S-{}", node.instance)
}

#[cfg(test)]
mod tests {
    use mac::MacAddr;

    use super::*;
    use crate::call::MOST_OWN_TAGS;
    use crate::id::{BootId, InstanceId};

    /// The settings leave room for so many beside the user's own.
    #[test]
    fn own_tags_are_as_many_as_is_said() {
        let node = Node {
            instance: InstanceId::try_from("i-1").unwrap(),
            boot: BootId("a boot".to_owned()),
            primary_mac: MacAddr::NONE,
            subnet_cidr: None,
            instance_type: "any".to_owned(),
            cluster: Some("mine".to_owned()),
            eni_tags: BTreeMap::new(),
            manage_untagged: true,
        };
        assert_eq!(tags(&node, Timestamp::default()).len(), MOST_OWN_TAGS);
    }
}

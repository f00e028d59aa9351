//! The node as the engine needs to know it.

use aws::NodeFacts;
use ipam::id::BootId;
use ipam::policy::Node;
use settings::Settings;

/// The node, from the metadata service's `facts` and from `settings`.
pub(crate) fn node(settings: &Settings, facts: &NodeFacts, boot: &BootId) -> Node {
    Node {
        instance: facts.instance.clone(),
        boot: boot.clone(),
        primary_mac: facts.primary_mac,
        subnet_cidr: facts.subnet_cidr,
        instance_type: facts.instance_type.clone(),
        cluster: settings.cluster.clone(),
        eni_tags: settings.eni_tags.clone(),
        manage_untagged: settings.manage_untagged,
    }
}

//! Who holds an interface: a cluster's node, a pod, a load balancer, a gateway, an endpoint, or another.
//!
//! EC2 names only the kind of an interface. Descriptions and tags say the rest.

use ipam::call::{CLUSTER_TAG, INSTANCE_TAG};
use ipam::id::InstanceId;
use serde::Serialize;

use crate::inventory::{Instance, Interface, Tags};

/// The tag that EKS gives to the nodes of its node groups.
const EKS_TAG: &str = "eks:cluster-name";
/// The tag by which tools of Kubernetes mark what belongs to a cluster, with the name after it.
const KUBERNETES_TAG: &str = "kubernetes.io/cluster/";
/// How amazon-vpc-cni-k8s and ipamd begin the descriptions of interfaces that they create.
const CNI: &str = "aws-K8S-";
/// How the controller of security groups for pods describes an interface.
const BRANCH: &str = "aws-k8s-branch-eni";

/// Who holds an interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holder {
    /// A node of a cluster, for itself and its pods.
    Node {
        /// The cluster.
        cluster: String,
    },
    /// A pod with an interface of its own.
    PodInterface,
    /// The control plane of a cluster.
    ControlPlane {
        /// The cluster.
        cluster: String,
    },
    /// An instance that is of no cluster.
    Instance,
    /// A load balancer.
    LoadBalancer,
    /// A NAT gateway.
    NatGateway,
    /// An endpoint of a service, in the VPC.
    Endpoint,
    /// A Lambda function.
    Lambda,
    /// A transit gateway.
    TransitGateway,
    /// Attached to nothing.
    Unattached,
    /// Another service.
    Other,
}

impl Holder {
    /// Its name, and that of its cluster.
    #[must_use]
    pub fn names(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::Node { cluster } => ("node", Some(cluster)),
            Self::PodInterface => ("pod with an interface", None),
            Self::ControlPlane { cluster } => ("control plane", Some(cluster)),
            Self::Instance => ("instance", None),
            Self::LoadBalancer => ("load balancer", None),
            Self::NatGateway => ("NAT gateway", None),
            Self::Endpoint => ("endpoint", None),
            Self::Lambda => ("Lambda", None),
            Self::TransitGateway => ("transit gateway", None),
            Self::Unattached => ("unattached", None),
            Self::Other => ("other", None),
        }
    }
}

/// Who holds `interface`. `instance` is what it is attached to, if that is known.
pub(crate) fn holder(interface: &Interface, instance: Option<&Instance>) -> Holder {
    let description = interface.description.as_str();
    match interface.kind.as_str() {
        "nat_gateway" => return Holder::NatGateway,
        "network_load_balancer" | "gateway_load_balancer" | "load_balancer" => {
            return Holder::LoadBalancer;
        }
        "vpc_endpoint" | "gateway_load_balancer_endpoint" => return Holder::Endpoint,
        "lambda" => return Holder::Lambda,
        "transit_gateway" => return Holder::TransitGateway,
        "branch" | "trunk" => return Holder::PodInterface,
        _ => {}
    }
    if let Some(cluster) = description.strip_prefix("Amazon EKS ") {
        return Holder::ControlPlane { cluster: cluster.to_owned() };
    }
    if description.starts_with("ELB ") {
        return Holder::LoadBalancer;
    }
    if description == BRANCH {
        return Holder::PodInterface;
    }
    let Some(attachment) = &interface.attachment else { return Holder::Unattached };
    let own = cluster(&interface.tags);
    let cluster = own.or_else(|| cluster(&instance?.tags));
    match (cluster, &attachment.instance) {
        (Some(cluster), Some(_)) => Holder::Node { cluster: cluster.to_owned() },
        // A node whose cluster no tag names.
        (None, Some(_)) if is_of_cni(interface) => Holder::Node { cluster: "?".to_owned() },
        (None, Some(_)) => Holder::Instance,
        (_, None) => Holder::Other,
    }
}

/// The cluster that tags name.
pub(crate) fn cluster(tags: &Tags) -> Option<&str> {
    let exact = [CLUSTER_TAG, EKS_TAG].into_iter().find_map(|key| tags.get(key));
    let marked = || tags.keys().find_map(|key| key.strip_prefix(KUBERNETES_TAG));
    exact.map(String::as_str).or_else(marked)
}

/// Whether a CNI plugin has created it for pods.
pub(crate) fn is_of_cni(interface: &Interface) -> bool {
    interface.description.starts_with(CNI) || interface.tags.contains_key(INSTANCE_TAG)
}

/// The instance for which a CNI plugin has created it, while it is attached to none.
pub(crate) fn left_by(interface: &Interface) -> Option<InstanceId> {
    let id = interface.tags.get(INSTANCE_TAG)?;
    InstanceId::try_from(id.as_str()).ok().filter(|_| interface.attachment.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Attachment;

    #[test]
    fn descriptions_and_tags_name_the_holder() {
        let check =
            |kind: &str, description: &str, tags: &[(&str, &str)], attached, expect: Holder| {
                let pairs =
                    tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
                let interface = Interface {
                    id: "eni-1".try_into().unwrap(),
                    subnet: "subnet-1".try_into().unwrap(),
                    kind: kind.to_owned(),
                    description: description.to_owned(),
                    attachment: attached,
                    addresses: vec![],
                    prefixes: vec![],
                    tags: pairs.collect(),
                };
                assert_eq!(holder(&interface, None), expect, "{kind} {description} {tags:?}");
            };
        let to = |instance: Option<&str>| {
            let instance = instance.map(|id| id.try_into().unwrap());
            Some(Attachment { instance, device_index: 1 })
        };
        let node = |cluster: &str| Holder::Node { cluster: cluster.to_owned() };
        check("nat_gateway", "", &[], to(None), Holder::NatGateway);
        check("network_load_balancer", "ELB net/a/1", &[], to(None), Holder::LoadBalancer);
        check("interface", "ELB app/a/1", &[], to(None), Holder::LoadBalancer);
        check(
            "interface",
            "Amazon EKS blue",
            &[],
            to(None),
            Holder::ControlPlane { cluster: "blue".to_owned() },
        );
        check("interface", "aws-k8s-branch-eni", &[], None, Holder::PodInterface);
        check("interface", "aws-K8S-i-1", &[(CLUSTER_TAG, "blue")], to(Some("i-1")), node("blue"));
        check("interface", "aws-K8S-i-1", &[], to(Some("i-1")), node("?"));
        check(
            "interface",
            "",
            &[("kubernetes.io/cluster/red", "owned")],
            to(Some("i-1")),
            node("red"),
        );
        check("interface", "", &[], to(Some("i-1")), Holder::Instance);
        check("interface", "aws-K8S-i-1", &[(CLUSTER_TAG, "blue")], None, Holder::Unattached);
        check("efs", "", &[], to(None), Holder::Other);
    }
}

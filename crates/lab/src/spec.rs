//! What a simulation runs in: a VPC, its subnets, and the nodes' types.

use ec2_model::config::{AddressChoice, Consistency, Latency, Throttling};
use ipam::policy::Policy;
use ipnet::Ipv4Net;

/// A VPC of one account, in one availability zone. VPC and subnets have IPv6 blocks too.
#[derive(Debug, Clone, PartialEq)]
pub struct VpcSpec {
    /// Never empty, disjoint, all within 10.0.0.0/16, each a /16 to /28.
    pub subnets: Vec<Subnet>,
    /// Whether VPC and subnets have IPv6 blocks too.
    pub ipv6: bool,
    /// The account's token buckets.
    pub throttling: Throttling,
    /// How long EC2's operations take.
    pub latency: Latency,
    /// How late EC2 shows changes.
    pub consistency: Consistency,
    /// How EC2 chooses addresses.
    pub address_choice: AddressChoice,
}

impl VpcSpec {
    /// With the token buckets that AWS documents, and delays that users have published.
    #[must_use]
    pub fn realistic(subnets: Vec<Subnet>) -> Self {
        Self {
            subnets,
            ipv6: false,
            throttling: Throttling::Documented,
            latency: Latency::realistic(),
            consistency: Consistency::realistic(),
            address_choice: AddressChoice::Random,
        }
    }

    /// One subnet over the whole VPC, with realistic throttling and delays.
    #[must_use]
    pub fn wide() -> Self {
        let all = Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 0, 0, 0), 16);
        Self::realistic(vec![Subnet::for_nodes(all)])
    }
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// Its CIDR block.
    pub cidr: Ipv4Net,
    /// Addresses that others use.
    pub used: Vec<Ipv4Net>,
    /// Its purpose.
    pub purpose: Purpose,
}

impl Subnet {
    /// An empty subnet for nodes.
    #[must_use]
    pub fn for_nodes(cidr: Ipv4Net) -> Self {
        Self { cidr, used: Vec::new(), purpose: Purpose::Nodes }
    }

    /// A subnet for nodes in which every `every`th address is used. Below 32 it has no free /28.
    #[must_use]
    pub fn fragmented(cidr: Ipv4Net, every: usize) -> Self {
        // EC2 reserves the first four addresses.
        let used = cidr.hosts().skip(5).step_by(every.max(1)).map(Ipv4Net::from).collect();
        Self { used, ..Self::for_nodes(cidr) }
    }
}

/// The purpose of a subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Nodes start in it, in turn with the other subnets for nodes.
    Nodes,
    /// Tagged `kubernetes.io/role/cni=1`: for additional ENIs of any node.
    Pods,
}

/// A type of node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// For example `m5.large`.
    pub instance_type: String,
    /// The daemon's policy. `max_pods` includes the two pods that every node runs in the host
    /// network, so two fewer are scheduled to it.
    pub policy: Policy,
}

impl NodeSpec {
    /// The most pods with their own address on such a node.
    pub(crate) fn n_places(&self) -> u32 {
        self.policy.max_pods.saturating_sub(HOST_NETWORK_PODS)
    }
}

/// Pods of a node without their own address: the CNI's and kube-proxy's.
const HOST_NETWORK_PODS: u32 = 2;

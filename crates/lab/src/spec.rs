//! What a simulation is about: a VPC, its subnets, the nodes in them.

use ec2_model::config::{AddressChoice, Consistency, Latency, Throttling};
use ipam::policy::Policy;
use ipnet::Ipv4Net;

/// A VPC of one account, in one availability zone.
#[derive(Debug, Clone, PartialEq)]
pub struct VpcSpec {
    /// Never empty, disjoint, all within 10.0.0.0/16, each a /16 to /28.
    pub subnets: Vec<Subnet>,
    /// The account's token buckets.
    pub throttling: Throttling,
    /// How long EC2 takes.
    pub latency: Latency,
    /// How late EC2 shows what has changed.
    pub consistency: Consistency,
    /// Which addresses EC2 gives.
    pub address_choice: AddressChoice,
}

impl VpcSpec {
    /// With buckets as AWS documents them, and delays that users have published.
    #[must_use]
    pub fn realistic(subnets: Vec<Subnet>) -> Self {
        Self {
            subnets,
            throttling: Throttling::Documented,
            latency: Latency::realistic(),
            consistency: Consistency::realistic(),
            address_choice: AddressChoice::Random,
        }
    }

    /// One subnet that takes the whole VPC, as AWS documents and users have seen it behave.
    #[must_use]
    pub fn wide() -> Self {
        let all = Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 0, 0, 0), 16);
        Self::realistic(vec![Subnet::for_nodes(all)])
    }
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// Its range.
    pub cidr: Ipv4Net,
    /// What others have of it.
    pub used: Vec<Ipv4Net>,
    /// What it is for.
    pub purpose: Purpose,
}

impl Subnet {
    /// An empty subnet in which nodes are started.
    #[must_use]
    pub fn for_nodes(cidr: Ipv4Net) -> Self {
        Self { cidr, used: Vec::new(), purpose: Purpose::Nodes }
    }

    /// A subnet for nodes in which `every`th address is somebody's: below 32 no /28 is free.
    #[must_use]
    pub fn fragmented(cidr: Ipv4Net, every: usize) -> Self {
        // The first four addresses are EC2's own.
        let used = cidr.hosts().skip(5).step_by(every.max(1)).map(Ipv4Net::from).collect();
        Self { used, ..Self::for_nodes(cidr) }
    }
}

/// What a subnet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Nodes are started in it, in turn with the others of the kind.
    Nodes,
    /// Tagged `kubernetes.io/role/cni=1`: for additional ENIs of any node.
    Pods,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// For example `m5.large`.
    pub instance_type: String,
    /// How their daemons are set. `max_pods` counts the two pods that every node runs in its own
    /// network: so many fewer are scheduled to it.
    pub policy: Policy,
}

impl NodeSpec {
    /// How many pods with an address are scheduled to such a node at most.
    pub(crate) fn n_places(&self) -> u32 {
        self.policy.max_pods.saturating_sub(HOST_NETWORK_PODS)
    }
}

/// Pods of a node that need no address of their own: the CNI's and kube-proxy's.
const HOST_NETWORK_PODS: u32 = 2;

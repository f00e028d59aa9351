//! What exists in an account and Region, as a discovery finds it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ec2_api::SimTime;
use ec2_api::tag::Tags;
use ipnet::IpNet;

use crate::id::ResourceId;
use crate::request::ResourceKind;
use crate::response::Holder;

/// All resources of one account in one Region at one time. It is the whole truth and not a change:
/// what it lacks does not exist.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// In any order.
    pub resources: Vec<Resource>,
}

/// One resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Its id in EC2.
    pub id: ResourceId,
    /// The VPC that it is in. A VPC is in itself.
    pub vpc: Option<ResourceId>,
    /// The id of its availability zone, for example `use1-az1`.
    pub zone_id: Option<String>,
    /// Its tags.
    pub tags: Tags,
    /// What it is, with its addresses.
    pub detail: Detail,
}

/// The kind of a resource, with its addresses.
#[derive(Debug, Clone, PartialEq)]
pub enum Detail {
    /// A VPC.
    Vpc {
        /// The associated CIDRs of both families.
        cidrs: BTreeSet<IpNet>,
    },
    /// A subnet.
    Subnet {
        /// At most one of each family.
        cidrs: BTreeSet<IpNet>,
        /// IPv4 addresses that are not available, with those that EC2 reserves.
        n_in_use: u64,
    },
    /// A network interface.
    Eni {
        /// Primary and secondary addresses of both families.
        addresses: BTreeSet<IpAddr>,
        /// Delegated prefixes of both families.
        prefixes: BTreeSet<IpNet>,
        /// The instance, if it is attached to one.
        instance: Option<ResourceId>,
    },
    /// An Elastic IP address.
    Eip {
        /// The public address.
        address: IpAddr,
        /// Whether it is associated with an ENI that is attached.
        in_use: bool,
    },
}

impl Resource {
    /// `resourceType`
    #[must_use]
    pub const fn kind(&self) -> ResourceKind {
        match self.detail {
            Detail::Vpc { .. } => ResourceKind::Vpc,
            Detail::Subnet { .. } => ResourceKind::Subnet,
            Detail::Eni { .. } => ResourceKind::Eni,
            Detail::Eip { .. } => ResourceKind::Eip,
        }
    }

    /// Its CIDRs, each once.
    #[must_use]
    pub fn cidrs(&self) -> BTreeSet<IpNet> {
        match &self.detail {
            Detail::Vpc { cidrs } | Detail::Subnet { cidrs, .. } => cidrs.clone(),
            Detail::Eni { addresses, prefixes, .. } => {
                let addresses = addresses.iter().copied().map(IpNet::from);
                addresses.chain(prefixes.iter().copied()).collect()
            }
            Detail::Eip { address, .. } => BTreeSet::from([IpNet::from(*address)]),
        }
    }

    /// As what it holds an allocation. An ENI never does.
    #[must_use]
    pub fn holder(&self) -> Option<Holder> {
        match self.detail {
            Detail::Vpc { .. } => Some(Holder::Vpc(self.id.clone())),
            Detail::Subnet { .. } => Some(Holder::Subnet(self.id.clone())),
            Detail::Eip { .. } => Some(Holder::Eip(self.id.clone())),
            Detail::Eni { .. } => None,
        }
    }
}

/// A sample that the API shows, with its time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shown {
    pub(crate) sample: Sample,
    pub(crate) taken_at: SimTime,
}

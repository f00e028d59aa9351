//! What Amazon VPC IPAM finds in the region: a sample of all resources of one account.

use std::net::IpAddr;

use address_plan::id::ResourceId;
use address_plan::resource::{Detail, Resource, Sample};
use ipnet::IpNet;

use super::View;
use crate::public_address::Holder;
use crate::resources::{Eni, Subnet};
use crate::response::{AttachmentStatus, Tags, Vpc};

impl View<'_> {
    /// All VPCs, subnets, ENIs and Elastic IP addresses of an account. Elastic IP addresses belong
    /// to the region's own account.
    pub(crate) fn sample(self, account: &str) -> Sample {
        let resources = self.resources;
        let vpcs = resources.vpcs.values().filter(|it| it.owner_id == account).map(vpc);
        let subnets = resources.subnets.values().filter(|it| it.owner == account);
        let enis = resources.enis.values().filter(|it| it.owner == account);
        let public = resources.public.iter().filter(|_| self.config.account == account);
        let resources = vpcs
            .chain(subnets.map(|it| self.sampled_subnet(it)))
            .chain(enis.map(|it| self.sampled_eni(it)))
            .chain(public.filter_map(|(address, holder)| self.elastic(address.into(), holder)));
        Sample { resources: resources.collect() }
    }

    fn sampled_subnet(self, subnet: &Subnet) -> Resource {
        let shown = self.subnet(subnet);
        let size = shown.cidr_block.map_or(0, |cidr| 1u64 << (32 - cidr.prefix_len()));
        let n_available = u64::from(shown.available_ip_address_count);
        Resource {
            id: id(subnet.id.as_str()),
            vpc: Some(id(subnet.vpc.as_str())),
            zone_id: Some(shown.availability_zone_id),
            tags: subnet.tags.clone(),
            detail: Detail::Subnet {
                cidrs: subnet.cidrs().collect(),
                n_in_use: size.saturating_sub(n_available),
            },
        }
    }

    fn sampled_eni(self, eni: &Eni) -> Resource {
        let subnet = self.resources.subnet_of(eni);
        let v4 = eni.primary.iter().chain(&eni.v4.addresses).copied().map(IpAddr::V4);
        let v6 = eni.v6.addresses.iter().copied().map(IpAddr::V6);
        let v4_prefixes = eni.v4.prefixes.iter().copied().map(IpNet::V4);
        let v6_prefixes = eni.v6.prefixes.iter().copied().map(IpNet::V6);
        let attached = attached_to(eni);
        Resource {
            id: id(eni.id.as_str()),
            vpc: Some(id(subnet.vpc.as_str())),
            zone_id: Some(self.zone_id(subnet.zone)),
            tags: eni.tags.clone(),
            detail: Detail::Eni {
                addresses: v4.chain(v6).collect(),
                prefixes: v4_prefixes.chain(v6_prefixes).collect(),
                instance: attached,
            },
        }
    }

    fn elastic(self, address: IpAddr, holder: &Holder) -> Option<Resource> {
        let allocation = holder.allocation()?;
        let eni = holder.association().and_then(|it| self.resources.enis.get(&it.eni));
        let in_use = eni.is_some_and(|eni| attached_to(eni).is_some());
        Some(Resource {
            id: id(allocation.as_str()),
            vpc: eni.map(|eni| id(self.resources.subnet_of(eni).vpc.as_str())),
            zone_id: None,
            tags: Tags::new(),
            detail: Detail::Eip { address, in_use },
        })
    }
}

fn vpc(vpc: &Vpc) -> Resource {
    Resource {
        id: id(vpc.id.as_str()),
        vpc: Some(id(vpc.id.as_str())),
        zone_id: None,
        tags: vpc.tags.clone(),
        // A block on its way in or out is the VPC's: nobody else may get it.
        detail: Detail::Vpc { cidrs: vpc.associations.iter().map(|it| it.cidr).collect() },
    }
}

/// The instance that has the ENI now.
fn attached_to(eni: &Eni) -> Option<ResourceId> {
    let attachment = eni.attachment()?;
    match attachment.status {
        AttachmentStatus::Attached | AttachmentStatus::Detaching => {
            Some(id(attachment.instance_id.as_str()))
        }
        AttachmentStatus::Attaching => None,
    }
}

fn id(text: &str) -> ResourceId {
    text.parse().expect("EC2's ids end in hexadecimal digits")
}

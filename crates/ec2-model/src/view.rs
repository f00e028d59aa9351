//! The API's view of resources: entities of the model turned into data of answers.

mod routes;
mod sample;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::address_space::AddressSpace;
use crate::config::Config;
use crate::fabric::{FabricEni, FabricInstance};
use crate::family::V4;
use crate::id::SecurityGroupId;
use crate::resources::{self, FamilyFields, Resources};
use crate::response::{
    AddressAssociation, AvailabilityZone, GroupIdentifier, Instance, InstanceState,
    NetworkInterface, PrivateIpAddress, Subnet,
};
use crate::zone;

/// Read access to resources and configuration, to render answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) resources: &'a Resources,
    pub(crate) config: &'a Config,
}

impl View<'_> {
    pub(crate) fn network_interface(self, eni: &resources::Eni) -> NetworkInterface {
        let subnet = self.resources.subnet_of(eni);
        NetworkInterface {
            id: eni.id.clone(),
            subnet_id: subnet.id.clone(),
            vpc_id: subnet.vpc.clone(),
            availability_zone: self.zone_name(subnet.zone),
            availability_zone_id: self.zone_id(subnet.zone),
            description: eni.description.clone(),
            owner_id: eni.owner.clone(),
            requester_id: eni.owner.clone(),
            requester_managed: false,
            status: eni.state.status(),
            mac_address: eni.mac,
            private_ip_address: eni.primary,
            private_dns_name: eni.primary.map(|address| self.host_name(address)),
            source_dest_check: eni.source_dest_check,
            interface_type: eni.interface_type,
            groups: self.groups(&eni.groups),
            attachment: eni.attachment().cloned(),
            tags: eni.tags.clone(),
            private_ip_addresses: self.private_ip_addresses(eni),
            ipv4_prefixes: eni.v4.prefixes.clone(),
            ipv6_addresses: eni.v6.addresses.clone(),
            primary_ipv6: eni.primary_ipv6,
            ipv6_prefixes: eni.v6.prefixes.clone(),
            connection_tracking: eni.connection_tracking,
        }
    }

    fn private_ip_addresses(self, eni: &resources::Eni) -> Vec<PrivateIpAddress> {
        let show = |(address, primary): (Ipv4Addr, bool)| PrivateIpAddress {
            address,
            association: self.association(eni, address),
            private_dns_name: self.host_name(address),
            primary,
        };
        let secondaries = eni.v4.addresses.iter().map(|address| (*address, false));
        eni.primary
            .map(|primary| (primary, true))
            .into_iter()
            .chain(secondaries)
            .map(show)
            .collect()
    }

    fn association(self, eni: &resources::Eni, private: Ipv4Addr) -> Option<AddressAssociation> {
        let (public_ip, holder) = self.resources.public.of(&eni.id, private)?;
        let allocation_id = holder.allocation().cloned();
        // EC2 owns what it gave to a new instance.
        let owner = if allocation_id.is_some() { eni.owner.as_str() } else { "amazon" };
        Some(AddressAssociation {
            public_ip,
            owner_id: owner.to_owned(),
            association_id: holder.association()?.id.clone(),
            allocation_id,
        })
    }

    /// The ENI's public addresses by private address.
    pub(crate) fn public_addresses(self, eni: &resources::Eni) -> BTreeMap<Ipv4Addr, Ipv4Addr> {
        let all = self.resources.public.iter();
        all.filter_map(|(public, holder)| {
            let association = holder.association().filter(|it| it.eni == eni.id)?;
            Some((association.private, public))
        })
        .collect()
    }

    fn groups(self, ids: &[SecurityGroupId]) -> Vec<GroupIdentifier> {
        let identify =
            |id| self.resources.groups.get(id).map(|group| (group.id.clone(), &group.name));
        ids.iter()
            .filter_map(identify)
            .map(|(id, name)| GroupIdentifier { id, name: name.clone() })
            .collect()
    }

    pub(crate) fn instance(self, instance: &resources::Instance) -> Instance {
        let subnet = self.resources.subnets.get(&instance.subnet).expect(resources::OUTLIVES);
        let primary = instance.primary_eni(self.resources);
        Instance {
            id: instance.id.clone(),
            image_id: instance.image_id.clone(),
            instance_type: instance.instance_type,
            state: instance.state,
            launch_time: instance.launch_time,
            availability_zone: self.zone_name(subnet.zone),
            subnet_id: subnet.id.clone(),
            vpc_id: subnet.vpc.clone(),
            private_ip_address: primary.and_then(|eni| eni.primary),
            private_dns_name: primary.map(|eni| self.host_name_on(instance, eni)),
            public_ip_address: primary
                .and_then(|eni| self.association(eni, eni.primary?))
                .map(|association| association.public_ip),
            ipv6_address: primary.and_then(|eni| eni.v6.addresses.first().copied()),
            source_dest_check: primary.map(|eni| eni.source_dest_check),
            groups: primary.map(|eni| self.groups(&eni.groups)).unwrap_or_default(),
            tags: instance.tags.clone(),
            network_interfaces: self
                .resources
                .enis_of(instance)
                .map(|eni| self.network_interface(eni))
                .collect(),
            metadata_options: instance.metadata_options,
            iam_instance_profile: instance.profile.clone(),
            client_token: instance.client_token.clone(),
        }
    }

    pub(crate) fn subnet(self, subnet: &resources::Subnet) -> Subnet {
        let space = V4::space(subnet);
        let n_set_aside = match self.config.reservations_reduce_available_count {
            true => space.map_or(0, AddressSpace::n_free_set_aside),
            false => 0,
        };
        let n_free = space.map_or(0, AddressSpace::n_free) - n_set_aside;
        Subnet {
            id: subnet.id.clone(),
            arn: self.arn(&subnet.owner, "subnet", subnet.id.as_str()),
            owner_id: subnet.owner.clone(),
            vpc_id: subnet.vpc.clone(),
            cidr_block: subnet.ipv4_cidr(),
            ipv6: subnet.v6.as_ref().map(|(association, _)| association.clone()),
            available_ip_address_count: u32::try_from(n_free).expect("at most a /16"),
            availability_zone: self.zone_name(subnet.zone),
            availability_zone_id: self.zone_id(subnet.zone),
            assign_ipv6_address_on_creation: subnet.assign_ipv6_address_on_creation,
            map_public_ip_on_launch: subnet.map_public_ip_on_launch,
            tags: subnet.tags.clone(),
        }
    }

    pub(crate) fn zones(self) -> Vec<AvailabilityZone> {
        let show = |letter: &char| AvailabilityZone {
            name: self.zone_name(*letter),
            id: self.zone_id(*letter),
            region: self.config.region.clone(),
        };
        self.config.zones.iter().map(show).collect()
    }

    /// The network of an instance. `None` once it is shutting down or terminated.
    pub(crate) fn fabric_instance(self, instance: &resources::Instance) -> Option<FabricInstance> {
        match instance.state {
            InstanceState::Pending | InstanceState::Running => {}
            InstanceState::ShuttingDown | InstanceState::Terminated => return None,
        }
        let subnet = self.resources.subnets.get(&instance.subnet)?;
        Some(FabricInstance {
            id: instance.id.clone(),
            vpc_id: subnet.vpc.clone(),
            vpc_cidrs: self.resources.vpc_cidrs(&subnet.vpc),
            enis: self
                .resources
                .enis_of(instance)
                .filter(|eni| eni.is_on(&instance.id))
                .filter_map(|eni| self.fabric_eni(eni))
                .collect(),
        })
    }

    fn fabric_eni(self, eni: &resources::Eni) -> Option<FabricEni> {
        let attachment = eni.attachment()?;
        let subnet = self.resources.subnet_of(eni);
        Some(FabricEni {
            id: eni.id.clone(),
            mac: eni.mac,
            device_index: attachment.device_index,
            network_card: attachment.network_card_index,
            is_primary: self.resources.is_primary(eni),
            subnet_id: subnet.id.clone(),
            subnet_cidr: subnet.ipv4_cidr(),
            subnet_ipv6_cidr: subnet.ipv6_cidr(),
            primary: eni.primary,
            public: self.public_addresses(eni),
            secondaries: eni.v4.addresses.clone(),
            prefixes: eni.v4.prefixes.clone(),
            ipv6_addresses: eni.v6.addresses.clone(),
            ipv6_prefixes: eni.v6.prefixes.clone(),
            source_dest_check: eni.source_dest_check,
        })
    }

    pub(crate) fn zone_name(self, letter: char) -> String {
        zone::zone_name(&self.config.region, letter)
    }

    pub(crate) fn zone_id(self, letter: char) -> String {
        zone::zone_id(&self.config.region, letter)
    }

    pub(crate) fn host_name(self, address: Ipv4Addr) -> String {
        zone::host_name(&self.config.region, address)
    }

    /// The host name that an ENI gives its instance. An IPv6-only instance is named by its id.
    pub(crate) fn host_name_on(
        self,
        instance: &resources::Instance,
        eni: &resources::Eni,
    ) -> String {
        match eni.primary {
            Some(address) => self.host_name(address),
            None => zone::resource_name(&self.config.region, &instance.id),
        }
    }

    pub(crate) fn arn(self, account: &str, resource: &str, id: &str) -> String {
        zone::arn(&self.config.region, account, resource, id)
    }
}

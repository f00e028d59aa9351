//! Seeding: resources that exist from the start. They pass the same checks as the calls.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use crate::address_space::{Holder, TakeError};
use crate::allocate::AddressRequest;
use crate::error::ApiError;
use crate::family::V4;
use crate::id::{InstanceId, SecurityGroupId, SubnetId, VpcId};
use crate::launch_options::InstanceProfile;
use crate::metadata_options::MetadataOptions;
use crate::model::{Caller, Model};
use crate::operation::address::no_block;
use crate::operation::instance::{InterfaceDraft, Launch};
use crate::operation::interface::EniDraft;
use crate::operation::network::SubnetDraft;
use crate::operation::pool_draw::Block;
use crate::resources::FamilyFields;
use crate::response::InstanceState;
use crate::seed::{InstanceSeed, SecurityGroupSeed, SubnetSeed, VpcSeed};
use crate::time::SimTime;

impl Model {
    /// Adds a VPC with its default security group.
    ///
    /// # Errors
    /// The errors of CreateVpc, or if the id is taken.
    pub fn add_vpc(&mut self, seed: VpcSeed) -> Result<VpcId, ApiError> {
        let fresh = VpcId::from_number(self.next_id());
        let id = free_id(seed.id, fresh, |id| self.resources.vpcs.contains_key(id))?;
        let owner = self.config.account.clone();
        let ipv4 = seed.cidrs.into_iter().map(IpNet::V4);
        let blocks = ipv4.chain(seed.ipv6_cidrs.into_iter().map(IpNet::V6)).map(Block::named);
        let blocks: Vec<Block> = blocks.collect();
        self.make_vpc(id.clone(), &owner, &blocks, &seed.tags)?;
        Ok(id)
    }

    /// Adds a subnet.
    ///
    /// # Errors
    /// The errors of CreateSubnet, or if the id is taken, or if a used address is outside or
    /// reserved.
    pub fn add_subnet(&mut self, seed: SubnetSeed) -> Result<SubnetId, ApiError> {
        let fresh = SubnetId::from_number(self.next_id());
        let id = free_id(seed.id, fresh, |id| self.resources.subnets.contains_key(id))?;
        let owner = self.config.account.clone();
        let is_in_no_block = seed.cidr.is_none() && !seed.used.is_empty();
        if is_in_no_block {
            return Err(no_block::<V4>(&id));
        }
        seed.cidr.map_or(Ok(()), |cidr| check_used(cidr, &seed.used))?;
        let draft = SubnetDraft {
            id: id.clone(),
            vpc: seed.vpc,
            zone: self.zone_named(&seed.availability_zone)?,
            cidr: seed.cidr.map(|cidr| cidr.trunc()),
            ipv6_cidr: seed.ipv6_cidr.map(|cidr| cidr.trunc()),
            assign_ipv6_address_on_creation: seed.assign_ipv6_address_on_creation,
            map_public_ip_on_launch: seed.map_public_ip_on_launch,
            tags: seed.tags,
        };
        self.make_subnet(&owner, draft)?;
        let Some(space) = V4::space_mut(self.resources.subnet_mut(&id)) else { return Ok(id) };
        for address in seed.used.iter().flat_map(addresses) {
            // Ranges may overlap each other and EC2's reserved addresses, which are used anyway.
            match space.take_address(address, Holder::Other) {
                Ok(()) | Err(TakeError::Reserved | TakeError::Held(_)) => {}
                Err(TakeError::Outside | TakeError::Misaligned) => {
                    unreachable!("checked before the subnet was made")
                }
            }
        }
        Ok(id)
    }

    /// Adds a security group.
    ///
    /// # Errors
    /// If the VPC does not exist, or if the id or the name is taken.
    pub fn add_security_group(
        &mut self,
        seed: SecurityGroupSeed,
    ) -> Result<SecurityGroupId, ApiError> {
        let fresh = SecurityGroupId::from_number(self.next_id());
        let id = free_id(seed.id, fresh, |id| self.resources.groups.contains_key(id))?;
        self.resources.vpc(&seed.vpc)?;
        let mut siblings = self.resources.groups.values().filter(|group| group.vpc_id == seed.vpc);
        if siblings.any(|group| group.name == seed.name) {
            let text =
                format!("The security group '{}' already exists for VPC '{}'", seed.name, seed.vpc);
            return Err(ApiError::new("InvalidGroup.Duplicate", text));
        }
        let owner = self.config.account.clone();
        self.make_group(id.clone(), &owner, &seed.vpc, seed.name, seed.description, seed.tags);
        Ok(id)
    }

    /// Adds a running instance with its primary ENI. Termination deletes that ENI.
    ///
    /// # Errors
    /// The errors of RunInstances, or if the id is taken.
    pub fn add_instance(
        &mut self,
        seed: InstanceSeed,
        now: SimTime,
    ) -> Result<InstanceId, ApiError> {
        self.advance(now);
        let fresh = InstanceId::from_number(self.next_id());
        let id = free_id(seed.id, fresh, |id| self.resources.instances.contains_key(id))?;
        seed.public_address.map_or(Ok(()), |address| self.check_public(address))?;
        let account = self.config.account.clone();
        let primary = EniDraft {
            primary: seed.primary_address,
            v6: seed.ipv6_address.map(|address| AddressRequest::Addresses(vec![address])),
            groups: seed.groups,
            ..EniDraft::in_subnet(seed.subnet)
        };
        let role = self.config.iam_role.as_ref();
        let launch = Launch {
            image_id: "ami-00000000000000000".to_owned(),
            instance_type: self.instance_type(&seed.instance_type)?,
            interfaces: vec![InterfaceDraft {
                slot: (0, seed.device_index),
                ..InterfaceDraft::primary(primary)
            }],
            metadata_options: MetadataOptions::default(),
            profile: role.map(|role| InstanceProfile::named(role, &self.config.region, &account)),
            user_data: None,
            tags: seed.tags,
            client_token: None,
        };
        let reservation = self.next_reservation_id();
        self.launch(Caller { account: &account, now }, &launch, id.clone(), &reservation)?;
        if let Some(instance) = self.resources.instances.get_mut(&id) {
            instance.state = InstanceState::Running;
        }
        if let Some(address) = seed.public_address {
            self.seed_elastic_address(&id, address)?;
        }
        Ok(id)
    }
}

impl Model {
    /// Associates a free public address with the primary address of an instance.
    fn seed_elastic_address(
        &mut self,
        instance: &InstanceId,
        address: Ipv4Addr,
    ) -> Result<(), ApiError> {
        let eni = self.resources.instance(instance)?.primary_eni(&self.resources);
        let Some((id, private)) = eni.and_then(|eni| Some((eni.id.clone(), eni.primary?))) else {
            let text = format!("Instance '{instance}' has no IPv4 address");
            return Err(ApiError::parameter_value(text));
        };
        let allocation = self.allocate(address);
        self.associate(&allocation, id, private).map(|_response| ())
    }
}

/// The wanted id, or the generated one.
fn free_id<T: std::fmt::Display>(
    wanted: Option<T>,
    fresh: T,
    taken: impl Fn(&T) -> bool,
) -> Result<T, ApiError> {
    match wanted {
        Some(id) if taken(&id) => {
            Err(ApiError::new("InvalidID", format!("The ID '{id}' is already taken")))
        }
        Some(id) => Ok(id),
        None => Ok(fresh),
    }
}

/// Used ranges must lie within the subnet. A single used address must not be one that EC2 reserves:
/// that would be a mistake in the topology.
fn check_used(subnet: Ipv4Net, used: &[Ipv4Net]) -> Result<(), ApiError> {
    for range in used {
        if !subnet.contains(range) {
            let text = format!("Address {range} does not fall within the subnet's address range");
            return Err(ApiError::parameter_value(text));
        }
        let offset = u32::from(range.addr()) - u32::from(subnet.network());
        let reserved = offset < 4 || range.addr() == subnet.broadcast();
        if range.prefix_len() == 32 && reserved {
            let text = format!("Address {} is in subnet's reserved address range", range.addr());
            return Err(ApiError::parameter_value(text));
        }
    }
    Ok(())
}

/// All addresses of a range, including its first and last.
fn addresses(range: &Ipv4Net) -> impl Iterator<Item = std::net::Ipv4Addr> + use<> {
    (u32::from(range.network())..=u32::from(range.broadcast())).map(std::net::Ipv4Addr::from)
}

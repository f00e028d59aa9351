//! VPCs, their CIDR blocks, and subnets.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use address_plan::AddressPlan;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::address_space::AddressSpace;
use crate::error::ApiError;
use crate::id::{
    ResourceType, SecurityGroupId, SubnetCidrAssociationId, SubnetId, VpcCidrAssociationId, VpcId,
};
use crate::model::{Caller, Model};
use crate::operation::pool_draw::{
    Block, Owner, PoolDraw, added_block, check_families, subnet_blocks, vpc_blocks,
};
use crate::operation::tag::tags_for_one;
use crate::request::{AssociateVpcCidrBlock, CreateSubnet, CreateVpc};
use crate::resources::Subnet;
use crate::response::{
    CidrState, Response, SecurityGroup, SubnetIpv6Association, Tags, Vpc, VpcAttributes,
    VpcCidrAssociation,
};
use crate::transition::Transition;

/// Allowed prefix lengths of a VPC's or subnet's IPv4 block.
const IPV4_LENGTHS: std::ops::RangeInclusive<u8> = 16..=28;
/// Prefix length of the IPv6 block that Amazon provides to a VPC.
const AMAZON_IPV6_LEN: u8 = 56;
const SUBNET_IPV6_LEN: u8 = 64;

/// A subnet to create.
#[derive(Debug, Clone)]
pub(super) struct SubnetDraft {
    pub(super) id: SubnetId,
    pub(super) vpc: VpcId,
    pub(super) zone: char,
    /// IPv6 only if absent.
    pub(super) cidr: Option<Ipv4Net>,
    pub(super) ipv6_cidr: Option<Ipv6Net>,
    pub(super) assign_ipv6_address_on_creation: bool,
    pub(super) map_public_ip_on_launch: bool,
    pub(super) tags: Tags,
}

impl Model {
    pub(super) fn create_vpc(
        &mut self,
        plan: &mut AddressPlan,
        caller: Caller<'_>,
        request: &CreateVpc,
    ) -> Result<Response, ApiError> {
        let tags = tags_for_one(&request.tag_specifications, ResourceType::Vpc)?;
        let amazon = request.amazon_provided_ipv6_cidr_block.then(|| self.next_ipv6_block());
        let id = VpcId::from_number(self.next_id());
        let mut draw = PoolDraw::new(plan, self, caller, Owner::Vpc(&id), &tags);
        let blocks = vpc_blocks(&mut draw, request, amazon);
        let made =
            blocks.and_then(|blocks| self.make_vpc(id.clone(), caller.account, &blocks, &tags));
        draw.settle(made).map(Response::Vpc)
    }

    /// Creates a VPC and its default security group. The first block must be IPv4.
    pub(super) fn make_vpc(
        &mut self,
        id: VpcId,
        owner: &str,
        blocks: &[Block],
        tags: &Tags,
    ) -> Result<Vpc, ApiError> {
        let Some(IpNet::V4(primary)) = blocks.first().map(|block| block.cidr) else {
            return Err(ApiError::missing_parameter("cidrBlock"));
        };
        if self.resources.vpcs.len() >= self.config.quotas.vpcs {
            let text = "The maximum number of VPCs has been reached.";
            return Err(ApiError::new("VpcLimitExceeded", text));
        }
        let mut vpc = Vpc {
            id: id.clone(),
            owner_id: owner.to_owned(),
            cidr_block: primary,
            associations: Vec::new(),
            is_default: false,
            attributes: VpcAttributes::default(),
            tags: tags.clone(),
        };
        for block in blocks {
            self.check_vpc_block(&vpc, block.cidr)?;
            let association = self.association_of(block, CidrState::Associated);
            vpc.associations.push(association);
        }
        self.resources.vpcs.insert(id.clone(), vpc.clone());
        let group = SecurityGroupId::from_number(self.next_id());
        let (name, description) = ("default".to_owned(), "default VPC security group".to_owned());
        self.make_group(group, owner, &id, name, description, Tags::new());
        Ok(vpc)
    }

    pub(super) fn make_group(
        &mut self,
        id: SecurityGroupId,
        owner: &str,
        vpc: &VpcId,
        name: String,
        description: String,
        tags: Tags,
    ) {
        let group = SecurityGroup {
            arn: self.view().arn(owner, "security-group", id.as_str()),
            id: id.clone(),
            name,
            description,
            owner_id: owner.to_owned(),
            vpc_id: vpc.clone(),
            tags,
        };
        self.resources.groups.insert(id, group);
    }

    fn check_vpc_block(&self, vpc: &Vpc, block: IpNet) -> Result<(), ApiError> {
        let fits = match block {
            IpNet::V4(block) => IPV4_LENGTHS.contains(&block.prefix_len()),
            IpNet::V6(block) => {
                (44..=60).contains(&block.prefix_len()) && block.prefix_len() % 4 == 0
            }
        };
        if !fits {
            let text = format!("The CIDR '{block}' is invalid.");
            return Err(ApiError::new("InvalidVpc.Range", text));
        }
        if vpc.associations.iter().any(|it| overlap(it.cidr, block)) {
            let text = format!("The CIDR '{block}' conflicts with another CIDR of {}", vpc.id);
            return Err(ApiError::new("CidrConflict", text));
        }
        let same_family =
            |it: &&VpcCidrAssociation| it.cidr.addr().is_ipv4() == block.addr().is_ipv4();
        let n_most = self.config.quotas.cidrs_per_vpc;
        if vpc.associations.iter().filter(same_family).count() >= n_most {
            return Err(ApiError::new(
                "CidrLimitExceeded",
                format!(
                    "This network {} has met its maximum number of allowed CIDRs: {n_most}",
                    vpc.id
                ),
            ));
        }
        Ok(())
    }

    /// A /56 that no VPC has, from Amazon's range in us-east-1.
    fn next_ipv6_block(&mut self) -> Ipv6Net {
        loop {
            let [a, b, c, ..] = self.rng.next().to_be_bytes();
            let addr = Ipv6Addr::from_bits(
                (0x2600_1f13 << 96)
                    | (u128::from(u16::from_be_bytes([a, b])) << 80)
                    | (u128::from(c) << 72),
            );
            let block = Ipv6Net::new_assert(addr, AMAZON_IPV6_LEN);
            let mut taken = self.resources.vpcs.values().flat_map(|vpc| &vpc.associations);
            if !taken.any(|it| overlap(it.cidr, block.into())) {
                return block;
            }
        }
    }

    fn association_of(&mut self, block: &Block, state: CidrState) -> VpcCidrAssociation {
        VpcCidrAssociation {
            id: VpcCidrAssociationId::from_number(self.next_id()),
            cidr: block.cidr,
            state,
            pool: block.pool.clone(),
        }
    }

    pub(super) fn associate_vpc_cidr_block(
        &mut self,
        plan: &mut AddressPlan,
        caller: Caller<'_>,
        request: &AssociateVpcCidrBlock,
    ) -> Result<Response, ApiError> {
        let vpc = self.resources.vpc(&request.vpc_id)?;
        let (vpc_id, tags) = (vpc.id.clone(), vpc.tags.clone());
        let amazon = request.amazon_provided_ipv6_cidr_block.then(|| self.next_ipv6_block());
        let mut draw = PoolDraw::new(plan, self, caller, Owner::Vpc(&vpc_id), &tags);
        let block = added_block(&mut draw, request, amazon);
        let checked = block.and_then(|block| {
            self.check_vpc_block(self.resources.vpc(&vpc_id)?, block.cidr)?;
            Ok(block)
        });
        let block = draw.settle(checked)?;
        let association = self.association_of(&block, CidrState::Associating);
        if let Some(vpc) = self.resources.vpcs.get_mut(&vpc_id) {
            vpc.associations.push(association.clone());
        }
        let associated = caller.now + self.config.latency.associate.sample(&mut self.rng);
        self.transitions
            .schedule(associated, Transition::Associated(vpc_id.clone(), association.id.clone()));
        Ok(Response::CidrAssociated { vpc_id, association })
    }

    pub(super) fn create_subnet(
        &mut self,
        plan: &mut AddressPlan,
        caller: Caller<'_>,
        request: &CreateSubnet,
    ) -> Result<Response, ApiError> {
        self.resources.vpc(&request.vpc_id)?;
        let id = SubnetId::from_number(self.next_id());
        let zone = self.zone_of(request)?;
        check_families(request)?;
        let tags = tags_for_one(&request.tag_specifications, ResourceType::Subnet)?;
        let mut draw = PoolDraw::new(plan, self, caller, Owner::Subnet(&id), &tags);
        let made = subnet_blocks(&mut draw, request).and_then(|(cidr, ipv6_cidr)| {
            let draft = SubnetDraft {
                id: id.clone(),
                vpc: request.vpc_id.clone(),
                zone,
                cidr,
                ipv6_cidr,
                assign_ipv6_address_on_creation: false,
                map_public_ip_on_launch: false,
                tags: tags.clone(),
            };
            self.make_subnet(caller.account, draft)
        });
        let id = draw.settle(made)?;
        Ok(Response::Subnet(self.view().subnet(self.resources.subnet(&id)?)))
    }

    /// The zone that the request names. The first zone if it names none.
    fn zone_of(&self, request: &CreateSubnet) -> Result<char, ApiError> {
        if let Some(name) = &request.availability_zone {
            return self.zone_named(name);
        }
        let view = self.view();
        let wanted = request.availability_zone_id.as_deref();
        let found = self
            .config
            .zones
            .iter()
            .find(|letter| wanted.is_none_or(|id| view.zone_id(**letter) == id));
        found.copied().ok_or_else(|| {
            ApiError::invalid_value(wanted.unwrap_or_default(), "availabilityZoneId", "")
        })
    }

    pub(super) fn zone_named(&self, name: &str) -> Result<char, ApiError> {
        let view = self.view();
        let found = self.config.zones.iter().find(|letter| view.zone_name(**letter) == name);
        found.copied().ok_or_else(|| {
            let zones: Vec<String> = view.zones().into_iter().map(|zone| zone.name).collect();
            let why = format!(
                "Subnets can currently only be created in the following availability zones: {}.",
                zones.join(", ")
            );
            ApiError::invalid_value(name, "availabilityZone", &why)
        })
    }

    /// Creates a subnet. The VPC must exist.
    pub(super) fn make_subnet(
        &mut self,
        owner: &str,
        draft: SubnetDraft,
    ) -> Result<SubnetId, ApiError> {
        self.check_subnet(&draft)?;
        let v6 = draft.ipv6_cidr.map(|cidr| {
            let association_id = SubnetCidrAssociationId::from_number(self.next_id());
            (SubnetIpv6Association { association_id, cidr }, AddressSpace::new(cidr))
        });
        let subnet = Subnet {
            id: draft.id.clone(),
            vpc: draft.vpc,
            owner: owner.to_owned(),
            zone: draft.zone,
            // Every ENI of an IPv6-only subnet gets an address.
            assign_ipv6_address_on_creation: draft.assign_ipv6_address_on_creation
                || draft.cidr.is_none(),
            v4: draft.cidr.map(|cidr| (cidr, AddressSpace::new(cidr))),
            v6,
            map_public_ip_on_launch: draft.map_public_ip_on_launch,
            routes: BTreeMap::new(),
            tags: draft.tags,
        };
        self.resources.subnets.insert(subnet.id.clone(), subnet);
        Ok(draft.id)
    }

    fn check_subnet(&self, draft: &SubnetDraft) -> Result<(), ApiError> {
        let vpc = self.resources.vpc(&draft.vpc)?;
        let siblings = || self.resources.subnets.values().filter(|subnet| subnet.vpc == draft.vpc);
        if siblings().count() >= self.config.quotas.subnets_per_vpc {
            let text = "The maximum number of subnets for this VPC has been reached.";
            return Err(ApiError::new("SubnetLimitExceeded", text));
        }
        let right_size = [
            draft.cidr.is_none_or(|cidr| IPV4_LENGTHS.contains(&cidr.prefix_len())),
            draft.ipv6_cidr.is_none_or(|cidr| cidr.prefix_len() == SUBNET_IPV6_LEN),
        ];
        let blocks = [draft.cidr.map(IpNet::V4), draft.ipv6_cidr.map(IpNet::V6)];
        if blocks == [None, None] {
            return Err(ApiError::missing_parameter("ipv6CidrBlock"));
        }
        for (block, right_size) in blocks.into_iter().zip(right_size) {
            let Some(block) = block else { continue };
            if !right_size || !is_in(vpc, block) {
                let text = format!("The CIDR '{block}' is invalid.");
                return Err(ApiError::new("InvalidSubnet.Range", text));
            }
            if siblings().any(|subnet| has_part_of(subnet, block)) {
                let text = format!("The CIDR '{block}' conflicts with another subnet");
                return Err(ApiError::new("InvalidSubnet.Conflict", text));
            }
        }
        Ok(())
    }
}

/// Whether `block` lies in an associated block of the VPC.
fn is_in(vpc: &Vpc, block: IpNet) -> bool {
    vpc.associations.iter().any(|it| it.state == CidrState::Associated && it.cidr.contains(&block))
}

fn has_part_of(subnet: &Subnet, block: IpNet) -> bool {
    subnet.cidrs().any(|net| overlap(net, block))
}

pub(super) fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

//! The end of VPCs, of their CIDR blocks, and of subnets.
//!
//! Nothing goes while something depends on it.

use ipnet::IpNet;

use crate::address_space::AddressSpace;
use crate::error::ApiError;
use crate::family::V4;
use crate::id::{SubnetId, VpcCidrAssociationId, VpcId};
use crate::model::{Caller, Model};
use crate::public_address::Holder;
use crate::request::{DeleteSubnet, DeleteVpc, DisassociateVpcCidrBlock};
use crate::resources::Subnet;
use crate::response::{CidrState, Response};
use crate::routing::Target;
use crate::transition::Transition;

impl Model {
    /// Deletes a VPC with its default security group. Routes of its peers to it go too.
    pub(super) fn delete_vpc(&mut self, request: &DeleteVpc) -> Result<Response, ApiError> {
        let id = &request.vpc_id;
        self.resources.vpc(id)?;
        let has_subnet = self.resources.subnets.values().any(|it| it.vpc == *id);
        let mut groups = self.resources.groups.values().filter(|it| it.vpc_id == *id);
        if has_subnet || groups.any(|it| it.name != "default") {
            return Err(has_dependencies("vpc", id.as_str()));
        }
        self.resources.vpcs.remove(id);
        self.resources.groups.retain(|_, it| it.vpc_id != *id);
        let peered = Target::Peering(id.clone());
        for subnet in self.resources.subnets.values_mut() {
            subnet.routes.retain(|_, target| *target != peered);
        }
        Ok(Response::Done)
    }

    /// Deletes a subnet with its reservations. Instances that are terminated are no longer listed.
    pub(super) fn delete_subnet(&mut self, request: &DeleteSubnet) -> Result<Response, ApiError> {
        let id = &request.subnet_id;
        let subnet = self.resources.subnet(id)?;
        let has_eni = self.resources.enis.values().any(|it| it.subnet == *id);
        if has_eni || self.has_nat_gateway(id) || has_other_addresses(subnet) {
            return Err(has_dependencies("subnet", id.as_str()));
        }
        self.resources.subnets.remove(id);
        self.resources.cidr_reservations.retain(|_, it| it.subnet_id != *id);
        self.resources.instances.retain(|_, it| it.subnet != *id);
        Ok(Response::Done)
    }

    fn has_nat_gateway(&self, id: &SubnetId) -> bool {
        let gateway = Holder::NatGateway(id.clone());
        self.resources.public.iter().any(|(_, holder)| *holder == gateway)
    }

    pub(super) fn disassociate_vpc_cidr_block(
        &mut self,
        caller: Caller<'_>,
        request: &DisassociateVpcCidrBlock,
    ) -> Result<Response, ApiError> {
        let id = &request.association_id;
        let vpc_id = self.vpc_of_removable(id)?;
        let gone = caller.now + self.config.latency.associate.sample(&mut self.rng);
        let transition = Transition::Disassociated(vpc_id.clone(), id.clone());
        self.transitions.schedule(gone, transition);
        let vpc = self.resources.vpcs.get_mut(&vpc_id);
        let mut blocks = vpc.into_iter().flat_map(|vpc| &mut vpc.associations);
        let association = blocks.find(|it| it.id == *id).ok_or_else(|| no_such_association(id))?;
        association.state = CidrState::Disassociating;
        Ok(Response::CidrAssociated { vpc_id, association: association.clone() })
    }

    /// The VPC of a block that nothing depends on.
    fn vpc_of_removable(&self, id: &VpcCidrAssociationId) -> Result<VpcId, ApiError> {
        let all = self.resources.vpcs.values();
        let mut all = all.flat_map(|vpc| vpc.associations.iter().map(move |it| (vpc, it)));
        let (vpc, association) =
            all.find(|(_, it)| it.id == *id).ok_or_else(|| no_such_association(id))?;
        if association.cidr == IpNet::V4(vpc.cidr_block) {
            let text = format!(
                "The vpc CIDR block with association ID {id} may not be disassociated. It is the \
                 primary IPv4 CIDR block of the VPC"
            );
            return Err(ApiError::new("OperationNotPermitted", text));
        }
        if association.state != CidrState::Associated {
            let text = format!("The state of {id} is {}.", association.state.as_str());
            return Err(ApiError::new("IncorrectState", text));
        }
        let mut subnets = self.resources.subnets.values().filter(|it| it.vpc == vpc.id);
        if subnets.any(|subnet| subnet.cidrs().any(|cidr| association.cidr.contains(&cidr))) {
            return Err(has_dependencies("vpc CIDR block", id.as_str()));
        }
        Ok(vpc.id.clone())
    }
}

/// Whether something else than an ENI of the model has an address of the subnet.
fn has_other_addresses(subnet: &Subnet) -> bool {
    let is_used = |(cidr, space): &(_, AddressSpace<V4>)| {
        space.n_free() < AddressSpace::<V4>::new(*cidr).n_free()
    };
    subnet.v4.as_ref().is_some_and(is_used)
}

fn has_dependencies(kind: &str, id: &str) -> ApiError {
    let text = format!("The {kind} '{id}' has dependencies and cannot be deleted.");
    ApiError::new("DependencyViolation", text)
}

fn no_such_association(id: &VpcCidrAssociationId) -> ApiError {
    let text = format!("The vpc CIDR block association ID '{id}' does not exist");
    ApiError::new("InvalidVpcCidrBlockAssociationID.NotFound", text)
}

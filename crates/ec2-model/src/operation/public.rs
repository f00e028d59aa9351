//! Public addresses: Elastic IP addresses, and those that EC2 gives to new instances.

use std::net::Ipv4Addr;

use crate::error::ApiError;
use crate::id::{AddressAssociationId, AllocationId, EniId, ResourceId};
use crate::model::Model;
use crate::public_address::{Association, Holder};
use crate::request::{AssociateAddress, DisassociateAddress};
use crate::resources::{Eni, no_such};
use crate::response::Response;
use crate::routing::Target;

impl Model {
    pub(super) fn allocate_address(&mut self) -> Result<Response, ApiError> {
        let public_ip = self.free_public_address()?;
        let allocation_id = self.allocate(public_ip);
        Ok(Response::Allocated { public_ip, allocation_id })
    }

    /// Makes a free public address an Elastic IP address.
    pub(super) fn allocate(&mut self, address: Ipv4Addr) -> AllocationId {
        let allocation = AllocationId::from_number(self.next_id());
        let holder = Holder::Elastic { allocation: allocation.clone(), association: None };
        self.resources.public.insert(address, holder);
        allocation
    }

    fn free_public_address(&self) -> Result<Ipv4Addr, ApiError> {
        self.resources.public.lowest_free().ok_or_else(|| {
            let text = "The maximum number of addresses has been reached.";
            ApiError::new("AddressLimitExceeded", text)
        })
    }

    /// Checks that a public address to seed is one, and free.
    pub(super) fn check_public(&self, address: Ipv4Addr) -> Result<(), ApiError> {
        if self.resources.public.is_free(address) {
            return Ok(());
        }
        let text = format!("Address {address} is not a free address of 203.0.113.0/24");
        Err(ApiError::new("InvalidAddress.NotFound", text))
    }

    /// Gives the primary address of a new instance's ENI a public one.
    pub(super) fn give_public_address(&mut self, eni: &EniId) -> Result<(), ApiError> {
        let Some(private) = self.resources.eni(eni)?.primary else { return Ok(()) };
        let address = self.free_public_address()?;
        let id = AddressAssociationId::from_number(self.next_id());
        let association = Association { id, eni: eni.clone(), private };
        self.resources.public.insert(address, Holder::Launch(association));
        Ok(())
    }

    pub(super) fn associate_address(
        &mut self,
        request: &AssociateAddress,
    ) -> Result<Response, ApiError> {
        let allocation = &request.allocation_id;
        let Some(holder) = self.resources.public.elastic(allocation) else {
            let text = format!("The allocation ID '{allocation}' does not exist");
            return Err(ApiError::new("InvalidAllocationID.NotFound", text));
        };
        if let (Some(before), false) = (holder.association(), request.allow_reassociation) {
            let text = format!(
                "resource {allocation} is already associated with associate-id {}",
                before.id
            );
            return Err(ApiError::new("Resource.AlreadyAssociated", text));
        }
        let (eni, private) = self.private_address(request)?;
        self.associate(allocation, eni, private)
    }

    /// Associates an Elastic IP address, wherever it was associated before.
    pub(super) fn associate(
        &mut self,
        allocation: &AllocationId,
        eni: EniId,
        private: Ipv4Addr,
    ) -> Result<Response, ApiError> {
        let id = AddressAssociationId::from_number(self.next_id());
        let association = Association { id: id.clone(), eni, private };
        let associated = self.resources.public.associate(allocation, association);
        debug_assert!(associated, "the caller has found the address");
        Ok(Response::AddressAssociated(id))
    }

    /// The ENI and the private address that a client names.
    fn private_address(&self, request: &AssociateAddress) -> Result<(EniId, Ipv4Addr), ApiError> {
        let eni = match (&request.network_interface_id, &request.instance_id) {
            (Some(id), None) => self.visible_eni(id)?,
            (None, Some(id)) => {
                let instance = self.resources.instance(id)?;
                let primary = instance.primary_eni(&self.resources);
                primary.ok_or_else(|| no_such(&ResourceId::Instance(id.clone())))?
            }
            (None, None) => return Err(ApiError::missing_parameter("networkInterfaceId")),
            (Some(_), Some(_)) => {
                let text = "You may specify either an instance or a network interface.";
                return Err(ApiError::parameter_combination(text));
            }
        };
        self.check_internet_gateway(eni)?;
        let private = request.private_ip_address.or(eni.primary);
        match private.filter(|private| eni.has_ipv4(*private)) {
            Some(private) => Ok((eni.id.clone(), private)),
            None => Err(ApiError::parameter_value(format!(
                "The private address is not assigned to interface {}",
                eni.id
            ))),
        }
    }

    fn check_internet_gateway(&self, eni: &Eni) -> Result<(), ApiError> {
        let vpc = &self.resources.subnet_of(eni).vpc;
        let mut subnets = self.resources.subnets.values().filter(|subnet| subnet.vpc == *vpc);
        let leads_out = subnets
            .any(|subnet| subnet.routes.values().any(|target| *target == Target::InternetGateway));
        if leads_out {
            return Ok(());
        }
        let text = format!("Network {vpc} is not attached to any internet gateway");
        Err(ApiError::new("Gateway.NotAttached", text))
    }

    pub(super) fn disassociate_address(
        &mut self,
        request: &DisassociateAddress,
    ) -> Result<Response, ApiError> {
        let id = &request.association_id;
        if !self.resources.public.has_association(id) {
            let text = format!("The association ID '{id}' does not exist");
            return Err(ApiError::new("InvalidAssociationID.NotFound", text));
        }
        self.resources.public.end(|association| association.id == *id);
        Ok(Response::Done)
    }
}

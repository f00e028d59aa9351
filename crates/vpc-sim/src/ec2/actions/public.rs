//! Public addresses on the wire.

use std::net::Ipv4Addr;

use ec2_model::ApiError;
use ec2_model::id::AllocationId;
use ec2_model::request::{AllocateAddress, AssociateAddress, DisassociateAddress};
use ec2_model::response::AddressAssociation;

use super::{Params, Read, Xml, dry_run};

impl Read for AllocateAddress {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        match params.text("Domain").as_deref() {
            None | Some("vpc") => Ok(Self { dry_run: dry_run(params)? }),
            Some(other) => Err(ApiError::invalid_value(other, "domain", "It must be vpc.")),
        }
    }
}

impl Read for AssociateAddress {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            allocation_id: params.required_as("AllocationId")?,
            network_interface_id: params.parsed("NetworkInterfaceId")?,
            instance_id: params.parsed("InstanceId")?,
            private_ip_address: params.address("PrivateIpAddress")?,
            allow_reassociation: params.flag("AllowReassociation")?.unwrap_or(true),
            dry_run: dry_run(params)?,
        })
    }
}

impl Read for DisassociateAddress {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self { association_id: params.required_as("AssociationId")?, dry_run: dry_run(params)? })
    }
}

pub(super) fn allocated(xml: &mut Xml, public_ip: Ipv4Addr, allocation_id: &AllocationId) {
    xml.text("publicIp", public_ip);
    xml.text("allocationId", allocation_id);
    xml.text("domain", "vpc");
    xml.text("publicIpv4Pool", "amazon");
}

/// The public address as DescribeNetworkInterfaces shows it.
pub(super) fn association(xml: &mut Xml, association: &AddressAssociation) {
    association_of_instance(xml, association);
    xml.text("associationId", &association.association_id);
    xml.optional("allocationId", association.allocation_id.as_ref());
}

/// The public address as DescribeInstances shows it: without ids.
pub(super) fn association_of_instance(xml: &mut Xml, association: &AddressAssociation) {
    xml.text("publicIp", association.public_ip);
    xml.text("publicDnsName", "");
    xml.text("ipOwnerId", &association.owner_id);
}

//! Attributes of VPCs and subnets, each read and changed by a call of its own.

use crate::error::ApiError;
use crate::model::Model;
use crate::request::{DescribeVpcAttribute, ModifySubnetAttribute, ModifyVpcAttribute};
use crate::response::Response;

impl Model {
    pub(super) fn describe_vpc_attribute(
        &self,
        request: &DescribeVpcAttribute,
    ) -> Result<Response, ApiError> {
        let vpc = self.resources.vpc(&request.vpc_id)?;
        let attribute = request.attribute;
        let value = *vpc.attributes.clone().get_mut(attribute);
        Ok(Response::VpcAttribute { vpc_id: vpc.id.clone(), attribute, value })
    }

    pub(super) fn modify_vpc_attribute(
        &mut self,
        request: &ModifyVpcAttribute,
    ) -> Result<Response, ApiError> {
        self.resources.vpc(&request.vpc_id)?;
        let [(attribute, value)] = request.changes.as_slice() else {
            return Err(one_attribute(request.changes.len()));
        };
        if let Some(vpc) = self.resources.vpcs.get_mut(&request.vpc_id) {
            *vpc.attributes.get_mut(*attribute) = *value;
        }
        Ok(Response::Done)
    }

    pub(super) fn modify_subnet_attribute(
        &mut self,
        request: &ModifySubnetAttribute,
    ) -> Result<Response, ApiError> {
        let ModifySubnetAttribute {
            subnet_id,
            assign_ipv6_address_on_creation: assign_ipv6,
            map_public_ip_on_launch: map_public,
        } = request;
        let has_ipv6 = self.resources.subnet(subnet_id)?.v6.is_some();
        match (*assign_ipv6, *map_public) {
            (Some(true), None) if !has_ipv6 => {
                let why = "The subnet has no IPv6 CIDR block.";
                return Err(ApiError::invalid_value("true", "assignIpv6AddressOnCreation", why));
            }
            (Some(value), None) => {
                self.resources.subnet_mut(subnet_id).assign_ipv6_address_on_creation = value;
            }
            (None, Some(value)) => {
                self.resources.subnet_mut(subnet_id).map_public_ip_on_launch = value;
            }
            (None, None) => return Err(one_attribute(0)),
            (Some(_), Some(_)) => return Err(one_attribute(2)),
        }
        Ok(Response::Done)
    }
}

/// EC2 changes one attribute in one call:
/// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifySubnetAttribute.html>
fn one_attribute(n: usize) -> ApiError {
    match n {
        0 => ApiError::missing_parameter("attribute"),
        _ => ApiError::parameter_combination("Fields for multiple attribute types specified"),
    }
}

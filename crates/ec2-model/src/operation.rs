//! The operations: what each call checks and changes, one file per group.
//!
//! Each operation checks in EC2's observed order: the named resources exist, the parameters fit
//! together, states allow the change, limits, free addresses in the subnet. An operation that
//! returns an error has changed nothing.

mod acl;
mod address;
mod attachment;
mod attribute;
mod describe;
mod instance;
mod interface;
mod network;
mod pool_draw;
mod public;
mod removal;
mod reservation;
mod route;
mod seed;
mod tag;
mod transition;

use address_plan::AddressPlan;

use crate::error::ApiError;
use crate::model::{Caller, Model};
use crate::request::Request;
use crate::response::Response;

impl Model {
    /// Executes a request.
    pub(crate) fn operate(
        &mut self,
        plan: &mut AddressPlan,
        caller: Caller<'_>,
        request: &Request,
    ) -> Result<Response, ApiError> {
        match request {
            Request::DescribeInstances(r) => self.describe_instances(r),
            Request::DescribeInstanceTypes(r) => self.describe_instance_types(r),
            Request::DescribeSubnets(r) => self.describe_subnets(r),
            Request::DescribeVpcs(r) => self.describe_vpcs(r),
            Request::DescribeSecurityGroups(r) => self.describe_security_groups(r),
            Request::DescribeAvailabilityZones(r) => self.describe_availability_zones(r),
            Request::CreateNetworkInterface(r) => self.create_network_interface(caller, r),
            Request::AttachNetworkInterface(r) => self.attach_network_interface(caller, r),
            Request::ModifyNetworkInterfaceAttribute(r) => self.modify_interface(caller, r),
            Request::DetachNetworkInterface(r) => self.detach_network_interface(caller, r),
            Request::DeleteNetworkInterface(r) => self.delete_network_interface(r),
            Request::DescribeNetworkInterfaces(r) => self.describe_network_interfaces(r),
            Request::AssignPrivateIpAddresses(r) => self.assign_private_ip_addresses(caller, r),
            Request::UnassignPrivateIpAddresses(r) => self.unassign_private_ip_addresses(caller, r),
            Request::AssignIpv6Addresses(r) => self.assign_ipv6_addresses(caller, r),
            Request::UnassignIpv6Addresses(r) => self.unassign_ipv6_addresses(caller, r),
            Request::CreateTags(r) => self.create_tags(plan, caller, r),
            Request::DeleteTags(r) => self.delete_tags(plan, caller, r),
            Request::DescribeTags(r) => self.describe_tags(plan, caller, r),
            Request::CreateSubnetCidrReservation(r) => self.create_cidr_reservation(caller, r),
            Request::GetSubnetCidrReservations(r) => self.get_cidr_reservations(r),
            Request::DeleteSubnetCidrReservation(r) => self.delete_cidr_reservation(r),
            Request::CreateVpc(r) => self.create_vpc(plan, caller, r),
            Request::CreateSubnet(r) => self.create_subnet(plan, caller, r),
            Request::AssociateVpcCidrBlock(r) => self.associate_vpc_cidr_block(plan, caller, r),
            Request::DisassociateVpcCidrBlock(r) => self.disassociate_vpc_cidr_block(caller, r),
            Request::DeleteVpc(r) => self.delete_vpc(r),
            Request::DeleteSubnet(r) => self.delete_subnet(r),
            Request::DescribeVpcAttribute(r) => self.describe_vpc_attribute(r),
            Request::ModifyVpcAttribute(r) => self.modify_vpc_attribute(r),
            Request::ModifySubnetAttribute(r) => self.modify_subnet_attribute(r),
            Request::DescribeNetworkAcls(r) => self.describe_network_acls(r),
            Request::RunInstances(r) => self.run_instances(caller, r),
            Request::TerminateInstances(r) => self.terminate_instances(caller, r),
            Request::DescribeRouteTables(r) => self.describe_route_tables(r),
            Request::AllocateAddress(_) => self.allocate_address(),
            Request::AssociateAddress(r) => self.associate_address(r),
            Request::DisassociateAddress(r) => self.disassociate_address(r),
            Request::Plan(r) => {
                let caller = self.plan_caller(caller)?;
                plan.call(&caller, r.request.clone()).map(Response::Plan)
            }
        }
    }
}

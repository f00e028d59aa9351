//! Addresses and prefixes on the wire: assign and unassign, both families.

use std::net::{Ipv4Addr, Ipv6Addr};

use ec2_model::ApiError;
use ec2_model::id::EniId;
use ec2_model::request::{
    AssignIpv6Addresses, AssignPrivateIpAddresses, UnassignIpv6Addresses,
    UnassignPrivateIpAddresses, Wanted,
};
use ipnet::{Ipv4Net, Ipv6Net};

use super::{Params, Read, Xml};

impl Read for AssignPrivateIpAddresses {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            network_interface_id: params.required_as("NetworkInterfaceId")?,
            wanted: Wanted {
                addresses: params.addresses("PrivateIpAddress")?,
                address_count: params.number("SecondaryPrivateIpAddressCount")?,
                prefixes: params.addresses("Ipv4Prefix")?,
                prefix_count: params.number("Ipv4PrefixCount")?,
            },
            allow_reassignment: params.flag("AllowReassignment")?.unwrap_or_default(),
        })
    }
}

impl Read for UnassignPrivateIpAddresses {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            network_interface_id: params.required_as("NetworkInterfaceId")?,
            addresses: params.addresses("PrivateIpAddress")?,
            prefixes: params.addresses("Ipv4Prefix")?,
        })
    }
}

impl Read for AssignIpv6Addresses {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            network_interface_id: params.required_as("NetworkInterfaceId")?,
            wanted: Wanted {
                addresses: params.addresses("Ipv6Addresses")?,
                address_count: params.number("Ipv6AddressCount")?,
                prefixes: params.addresses("Ipv6Prefix")?,
                prefix_count: params.number("Ipv6PrefixCount")?,
            },
        })
    }
}

impl Read for UnassignIpv6Addresses {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            network_interface_id: params.required_as("NetworkInterfaceId")?,
            addresses: params.addresses("Ipv6Addresses")?,
            prefixes: params.addresses("Ipv6Prefix")?,
        })
    }
}

pub(super) fn assigned_ipv4(
    xml: &mut Xml,
    eni: &EniId,
    addresses: &[Ipv4Addr],
    prefixes: &[Ipv4Net],
) {
    xml.text("networkInterfaceId", eni);
    xml.set("assignedPrivateIpAddressesSet", addresses, |xml, address| {
        xml.text("privateIpAddress", address);
    });
    xml.set("assignedIpv4PrefixSet", prefixes, |xml, prefix| xml.text("ipv4Prefix", prefix));
}

pub(super) fn assigned_ipv6(
    xml: &mut Xml,
    eni: &EniId,
    addresses: &[Ipv6Addr],
    prefixes: &[Ipv6Net],
) {
    xml.text("networkInterfaceId", eni);
    xml.texts("assignedIpv6Addresses", addresses);
    xml.texts("assignedIpv6PrefixSet", prefixes);
}

pub(super) fn unassigned_ipv6(
    xml: &mut Xml,
    eni: &EniId,
    addresses: &[Ipv6Addr],
    prefixes: &[Ipv6Net],
) {
    xml.text("networkInterfaceId", eni);
    xml.texts("unassignedIpv6Addresses", addresses);
    xml.texts("unassignedIpv6PrefixSet", prefixes);
}

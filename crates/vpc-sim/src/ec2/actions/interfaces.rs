//! Network interfaces on the wire.

use std::net::Ipv4Addr;

use ec2_model::ApiError;
use ec2_model::connection_tracking::ConnectionTracking;
use ec2_model::request::{
    AttachNetworkInterface, AttachmentChange, CreateNetworkInterface, DeleteNetworkInterface,
    DescribeNetworkInterfaces, DetachNetworkInterface, ModifyNetworkInterfaceAttribute,
    PrivateIpAddressSpecification, Wanted,
};
use ec2_model::response::{AddressAssociation, Attachment, GroupIdentifier, NetworkInterface};

use super::public::{association, association_of_instance};
use super::{
    Params, Read, Xml, dry_run, include_managed_resources, listing, tag_set, tag_specifications,
};

impl Read for CreateNetworkInterface {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            subnet_id: params.required_as("SubnetId")?,
            private_ip_address: params.address("PrivateIpAddress")?,
            private_ip_addresses: private_ip_addresses(params)?,
            secondary_private_ip_address_count: params.number("SecondaryPrivateIpAddressCount")?,
            ipv4_prefixes: params
                .items("Ipv4Prefix", |prefix| prefix.required_address("Ipv4Prefix"))?,
            ipv4_prefix_count: params.number("Ipv4PrefixCount")?,
            ipv6: Wanted {
                addresses: params
                    .items("Ipv6Addresses", |address| address.required_address("Ipv6Address"))?,
                address_count: params.number("Ipv6AddressCount")?,
                prefixes: params
                    .items("Ipv6Prefix", |prefix| prefix.required_address("Ipv6Prefix"))?,
                prefix_count: params.number("Ipv6PrefixCount")?,
            },
            groups: params.list("SecurityGroupId")?,
            description: params.text("Description").unwrap_or_default(),
            interface_type: params.parsed("InterfaceType")?.unwrap_or_default(),
            connection_tracking: connection_tracking(params)?,
            enable_primary_ipv6: params.flag("EnablePrimaryIpv6")?.unwrap_or_default(),
            tag_specifications: tag_specifications(params)?,
            client_token: params.text("ClientToken"),
            dry_run: dry_run(params)?,
        })
    }
}

pub(super) fn connection_tracking(
    params: &mut Params,
) -> Result<Option<ConnectionTracking>, ApiError> {
    let mut seconds = |name| params.number(&format!("ConnectionTrackingSpecification.{name}"));
    let wanted = ConnectionTracking {
        tcp_established_timeout: seconds("TcpEstablishedTimeout")?,
        udp_stream_timeout: seconds("UdpStreamTimeout")?,
        udp_timeout: seconds("UdpTimeout")?,
    };
    Ok((!wanted.is_empty()).then_some(wanted))
}

fn private_ip_addresses(
    params: &mut Params,
) -> Result<Vec<PrivateIpAddressSpecification>, ApiError> {
    params.items("PrivateIpAddresses", |item| {
        Ok(PrivateIpAddressSpecification {
            address: item.required_address::<Ipv4Addr>("PrivateIpAddress")?,
            primary: item.flag("Primary")?.unwrap_or_default(),
        })
    })
}

impl Read for AttachNetworkInterface {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            network_interface_id: params.required_as("NetworkInterfaceId")?,
            instance_id: params.required_as("InstanceId")?,
            device_index: params.required_number("DeviceIndex")?,
            network_card_index: params.number("NetworkCardIndex")?.unwrap_or_default(),
            ena_queue_count: params.number("EnaQueueCount")?,
            dry_run: dry_run(params)?,
        })
    }
}

impl Read for ModifyNetworkInterfaceAttribute {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            network_interface_id: params.required_as("NetworkInterfaceId")?,
            attachment: attachment_change(params)?,
            description: params.text("Description.Value"),
            groups: params.list("SecurityGroupId")?,
            source_dest_check: params.flag("SourceDestCheck.Value")?,
            connection_tracking: connection_tracking(params)?,
            enable_primary_ipv6: params.flag("EnablePrimaryIpv6")?,
            dry_run: dry_run(params)?,
        })
    }
}

fn attachment_change(params: &mut Params) -> Result<Option<AttachmentChange>, ApiError> {
    let (id, delete) = ("Attachment.AttachmentId", "Attachment.DeleteOnTermination");
    match (params.parsed(id)?, params.flag(delete)?) {
        (None, None) => Ok(None),
        (Some(attachment_id), Some(delete_on_termination)) => {
            Ok(Some(AttachmentChange { attachment_id, delete_on_termination }))
        }
        (None, Some(_)) => Err(params.missing(id)),
        (Some(_), None) => Err(params.missing(delete)),
    }
}

impl Read for DetachNetworkInterface {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            attachment_id: params.required_as("AttachmentId")?,
            force: params.flag("Force")?.unwrap_or_default(),
            dry_run: dry_run(params)?,
        })
    }
}

impl Read for DeleteNetworkInterface {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            network_interface_id: params.required_as("NetworkInterfaceId")?,
            dry_run: dry_run(params)?,
        })
    }
}

impl Read for DescribeNetworkInterfaces {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            network_interface_ids: params.list("NetworkInterfaceId")?,
            listing: listing(params)?,
            include_managed_resources: include_managed_resources(params)?,
            dry_run: dry_run(params)?,
        })
    }
}

/// An ENI as DescribeNetworkInterfaces and CreateNetworkInterface show it.
pub(super) fn interface(xml: &mut Xml, eni: &NetworkInterface) {
    described_everywhere(xml, eni, association);
    xml.text("availabilityZone", &eni.availability_zone);
    xml.text("availabilityZoneId", &eni.availability_zone_id);
    xml.text("requesterId", &eni.requester_id);
    xml.text("requesterManaged", eni.requester_managed);
    xml.text("denyAllIgwTraffic", false);
    tag_set(xml, &eni.tags);
    if let Some(attachment) = &eni.attachment {
        xml.node("attachment", |xml| {
            attachment_everywhere(xml, attachment);
            xml.text("instanceId", &attachment.instance_id);
            xml.text("instanceOwnerId", &attachment.instance_owner_id);
        });
    }
}

/// An ENI as shown inside its instance: with fewer fields, and without the instance in its
/// attachment.
pub(super) fn interface_of_instance(xml: &mut Xml, eni: &NetworkInterface) {
    described_everywhere(xml, eni, association_of_instance);
    if let Some(attachment) = &eni.attachment {
        xml.node("attachment", |xml| attachment_everywhere(xml, attachment));
    }
}

fn described_everywhere(
    xml: &mut Xml,
    eni: &NetworkInterface,
    association: fn(&mut Xml, &AddressAssociation),
) {
    xml.text("networkInterfaceId", &eni.id);
    xml.text("subnetId", &eni.subnet_id);
    xml.text("vpcId", &eni.vpc_id);
    xml.text("description", &eni.description);
    xml.text("ownerId", &eni.owner_id);
    xml.text("status", eni.status.as_str());
    xml.text("macAddress", eni.mac_address);
    xml.optional("privateIpAddress", eni.private_ip_address);
    xml.optional("privateDnsName", eni.private_dns_name.as_ref());
    xml.text("sourceDestCheck", eni.source_dest_check);
    xml.text("interfaceType", eni.interface_type.as_str());
    group_set(xml, &eni.groups);
    if let Some(public) = eni.association() {
        xml.node("association", |xml| association(xml, public));
    }
    xml.set("privateIpAddressesSet", &eni.private_ip_addresses, |xml, address| {
        xml.text("privateIpAddress", address.address);
        xml.text("privateDnsName", &address.private_dns_name);
        xml.text("primary", address.primary);
        if let Some(public) = &address.association {
            xml.node("association", |xml| association(xml, public));
        }
    });
    xml.set("ipv4PrefixSet", &eni.ipv4_prefixes, |xml, prefix| xml.text("ipv4Prefix", prefix));
    xml.set("ipv6AddressesSet", &eni.ipv6_addresses, |xml, address| {
        xml.text("ipv6Address", address);
        xml.text("isPrimaryIpv6", eni.primary_ipv6.as_ref() == Some(address));
    });
    xml.set("ipv6PrefixSet", &eni.ipv6_prefixes, |xml, prefix| xml.text("ipv6Prefix", prefix));
    if let Some(timeouts) = &eni.connection_tracking {
        xml.node("connectionTrackingConfiguration", |xml| {
            xml.optional("tcpEstablishedTimeout", timeouts.tcp_established_timeout);
            xml.optional("udpStreamTimeout", timeouts.udp_stream_timeout);
            xml.optional("udpTimeout", timeouts.udp_timeout);
        });
    }
    xml.node("operator", |xml| xml.text("managed", false));
}

fn attachment_everywhere(xml: &mut Xml, attachment: &Attachment) {
    xml.text("attachmentId", &attachment.id);
    xml.text("deviceIndex", attachment.device_index);
    xml.text("networkCardIndex", attachment.network_card_index);
    xml.text("status", attachment.status.as_str());
    xml.text("attachTime", attachment.attach_time);
    xml.text("deleteOnTermination", attachment.delete_on_termination);
    xml.optional("enaQueueCount", attachment.ena_queue_count);
}

pub(super) fn group_set(xml: &mut Xml, groups: &[GroupIdentifier]) {
    xml.set("groupSet", groups, |xml, group| {
        xml.text("groupId", &group.id);
        xml.text("groupName", &group.name);
    });
}

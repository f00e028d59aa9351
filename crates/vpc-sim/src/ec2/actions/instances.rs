//! Instances and instance types on the wire.

use ec2_model::ApiError;
use ec2_model::request::{
    DescribeInstanceTypes, DescribeInstances, InstanceNetworkInterface, RunInstances,
    TerminateInstances,
};
use ec2_model::response::{Instance, InstanceState, InstanceStateChange, Reservation};
use instance_types::{Hypervisor, InstanceType};

use super::interfaces::{group_set, interface_of_instance};
use super::{Params, Read, Xml, dry_run, listing, tag_set, tag_specifications};

impl Read for DescribeInstances {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            instance_ids: params.list("InstanceId")?,
            listing: listing(params)?,
            dry_run: dry_run(params)?,
        })
    }
}

impl Read for DescribeInstanceTypes {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            instance_types: params.texts("InstanceType"),
            listing: listing(params)?,
            dry_run: dry_run(params)?,
        })
    }
}

impl Read for RunInstances {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            image_id: params.required("ImageId")?,
            instance_type: params.text("InstanceType").unwrap_or_else(|| "m1.small".to_owned()),
            min_count: params.required_number("MinCount")?,
            max_count: params.required_number("MaxCount")?,
            subnet_id: params.parsed("SubnetId")?,
            groups: params.list("SecurityGroupId")?,
            private_ip_address: params.address("PrivateIpAddress")?,
            network_interfaces: params.items("NetworkInterface", network_interface)?,
            tag_specifications: tag_specifications(params)?,
            client_token: params.text("ClientToken"),
            dry_run: dry_run(params)?,
        })
    }
}

fn network_interface(params: &mut Params) -> Result<InstanceNetworkInterface, ApiError> {
    Ok(InstanceNetworkInterface {
        device_index: params.required_number("DeviceIndex")?,
        network_card_index: params.number("NetworkCardIndex")?.unwrap_or_default(),
        network_interface_id: params.parsed("NetworkInterfaceId")?,
        subnet_id: params.parsed("SubnetId")?,
        groups: params.list("SecurityGroupId")?,
        private_ip_address: params.address("PrivateIpAddress")?,
        secondary_private_ip_address_count: params.number("SecondaryPrivateIpAddressCount")?,
        ipv4_prefix_count: params.number("Ipv4PrefixCount")?,
        ipv6_address_count: params.number("Ipv6AddressCount")?,
        ipv6_prefix_count: params.number("Ipv6PrefixCount")?,
        description: params.text("Description").unwrap_or_default(),
        delete_on_termination: params.flag("DeleteOnTermination")?,
    })
}

impl Read for TerminateInstances {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        let instance_ids = params.list("InstanceId")?;
        if instance_ids.is_empty() {
            return Err(params.missing("InstanceId"));
        }
        Ok(Self { instance_ids, dry_run: dry_run(params)? })
    }
}

pub(super) fn reservation(xml: &mut Xml, reservation: &Reservation) {
    xml.text("reservationId", &reservation.id);
    xml.text("ownerId", &reservation.owner_id);
    xml.node("groupSet", |_ec2_classic| {});
    xml.set("instancesSet", reservation.instances.iter().enumerate(), |xml, (index, one)| {
        xml.text("amiLaunchIndex", index);
        instance(xml, one);
    });
}

fn instance(xml: &mut Xml, instance: &Instance) {
    xml.text("instanceId", &instance.id);
    xml.text("imageId", &instance.image_id);
    xml.text("instanceType", instance.instance_type.name);
    xml.node("instanceState", |xml| state(xml, instance.state));
    xml.text("launchTime", instance.launch_time);
    xml.node("placement", |xml| {
        xml.text("availabilityZone", &instance.availability_zone);
        xml.text("groupName", "");
        xml.text("tenancy", "default");
    });
    xml.node("monitoring", |xml| xml.text("state", "disabled"));
    xml.text("subnetId", &instance.subnet_id);
    xml.text("vpcId", &instance.vpc_id);
    xml.optional("privateIpAddress", instance.private_ip_address);
    xml.text("privateDnsName", instance.private_dns_name.as_deref().unwrap_or_default());
    xml.text("dnsName", "");
    xml.optional("ipv6Address", instance.ipv6_address);
    xml.optional("sourceDestCheck", instance.source_dest_check);
    xml.optional("architecture", instance.instance_type.architectures.first());
    xml.text("reason", "");
    xml.node("productCodes", |_none| {});
    xml.text("ebsOptimized", false);
    xml.node("blockDeviceMapping", |_none| {});
    xml.text("rootDeviceType", "ebs");
    xml.text("rootDeviceName", "/dev/xvda");
    xml.text("virtualizationType", "hvm");
    // DescribeInstances has only `ovm` and `xen`, and shows Nitro instances as `xen`.
    xml.text("hypervisor", "xen");
    xml.text("enaSupport", true);
    xml.optional("clientToken", instance.client_token.as_ref());
    group_set(xml, &instance.groups);
    tag_set(xml, &instance.tags);
    xml.set("networkInterfaceSet", &instance.network_interfaces, interface_of_instance);
}

fn state(xml: &mut Xml, state: InstanceState) {
    xml.text("code", state.code());
    xml.text("name", state.as_str());
}

pub(super) fn state_change(xml: &mut Xml, change: &InstanceStateChange) {
    xml.text("instanceId", &change.instance_id);
    xml.node("currentState", |xml| state(xml, change.current));
    xml.node("previousState", |xml| state(xml, change.previous));
}

pub(super) fn instance_type(xml: &mut Xml, kind: &InstanceType) {
    xml.text("instanceType", kind.name);
    xml.text("bareMetal", kind.bare_metal);
    match kind.hypervisor {
        Hypervisor::Nitro => xml.text("hypervisor", "nitro"),
        Hypervisor::Xen => xml.text("hypervisor", "xen"),
        Hypervisor::Unknown => {}
    }
    if let Some(vcpus) = kind.vcpus {
        xml.node("vCpuInfo", |xml| xml.text("defaultVCpus", vcpus));
    }
    xml.node("processorInfo", |xml| xml.texts("supportedArchitectures", &kind.architectures));
    xml.node("networkInfo", |xml| network_info(xml, kind));
}

fn network_info(xml: &mut Xml, kind: &InstanceType) {
    xml.text("maximumNetworkInterfaces", kind.max_enis_all_cards());
    xml.text("maximumNetworkCards", kind.cards.len());
    xml.text("defaultNetworkCardIndex", kind.default_card);
    xml.set("networkCards", &kind.cards, |xml, card| {
        xml.text("networkCardIndex", card.index);
        xml.text("maximumNetworkInterfaces", card.max_enis);
    });
    xml.text("ipv4AddressesPerInterface", kind.ipv4_per_eni);
    xml.optional("ipv6AddressesPerInterface", kind.ipv6_per_eni);
    xml.optional("ipv6Supported", kind.ipv6_supported);
    // Every Nitro type requires ENA. The table does not say which Xen types support it.
    if kind.supports_prefixes() {
        xml.text("enaSupport", "required");
    }
}

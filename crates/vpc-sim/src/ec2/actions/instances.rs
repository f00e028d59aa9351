//! Instances and instance types on the wire.

use ec2_model::ApiError;
use ec2_model::launch_options::{IamInstanceProfile, InstanceProfile};
use ec2_model::metadata_options::{MetadataOptions, MetadataOptionsRequest};
use ec2_model::request::{
    DescribeInstanceTypes, DescribeInstances, InstanceNetworkInterface, RunInstances,
    TerminateInstances, Wanted,
};
use ec2_model::response::{Instance, InstanceState, InstanceStateChange, Reservation};
use instance_types::{Hypervisor, InstanceType};

use super::interfaces::{connection_tracking, group_set, interface_of_instance};
use super::{
    Params, Read, Xml, dry_run, include_managed_resources, listing, tag_set, tag_specifications,
};

impl Read for DescribeInstances {
    fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            instance_ids: params.list("InstanceId")?,
            listing: listing(params)?,
            include_managed_resources: include_managed_resources(params)?,
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
            ipv6: Wanted {
                addresses: params
                    .items("Ipv6Address", |address| address.required_address("Ipv6Address"))?,
                address_count: params.number("Ipv6AddressCount")?,
                ..Wanted::default()
            },
            enable_primary_ipv6: params.flag("EnablePrimaryIpv6")?.unwrap_or_default(),
            network_interfaces: params.items("NetworkInterface", network_interface)?,
            metadata_options: metadata_options(params)?,
            iam_instance_profile: iam_instance_profile(params),
            user_data: params.text("UserData"),
            tag_specifications: tag_specifications(params)?,
            client_token: params.text("ClientToken"),
            dry_run: dry_run(params)?,
        })
    }
}

fn metadata_options(params: &mut Params) -> Result<MetadataOptionsRequest, ApiError> {
    Ok(MetadataOptionsRequest {
        http_endpoint: params.parsed("MetadataOptions.HttpEndpoint")?,
        http_tokens: params.parsed("MetadataOptions.HttpTokens")?,
        hop_limit: params.number("MetadataOptions.HttpPutResponseHopLimit")?,
        http_protocol_ipv6: params.parsed("MetadataOptions.HttpProtocolIpv6")?,
        instance_metadata_tags: params.parsed("MetadataOptions.InstanceMetadataTags")?,
    })
}

fn iam_instance_profile(params: &mut Params) -> Option<IamInstanceProfile> {
    let arn = params.text("IamInstanceProfile.Arn");
    let name = params.text("IamInstanceProfile.Name");
    (arn.is_some() || name.is_some()).then_some(IamInstanceProfile { arn, name })
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
        primary_ipv6: params.flag("PrimaryIpv6")?.unwrap_or_default(),
        connection_tracking: connection_tracking(params)?,
        description: params.text("Description").unwrap_or_default(),
        ena_queue_count: params.number("EnaQueueCount")?,
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
    xml.optional("ipAddress", instance.public_ip_address);
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
    xml.node("metadataOptions", |xml| shown_options(xml, &instance.metadata_options));
    if let Some(profile) = &instance.iam_instance_profile {
        xml.node("iamInstanceProfile", |xml| {
            xml.text("arn", &profile.arn);
            xml.text("id", InstanceProfile::ID);
        });
    }
    xml.node("operator", |xml| xml.text("managed", false));
    group_set(xml, &instance.groups);
    tag_set(xml, &instance.tags);
    xml.set("networkInterfaceSet", &instance.network_interfaces, interface_of_instance);
}

fn shown_options(xml: &mut Xml, options: &MetadataOptions) {
    xml.text("state", "applied");
    xml.text("httpTokens", options.http_tokens.as_str());
    xml.text("httpPutResponseHopLimit", options.hop_limit);
    xml.text("httpEndpoint", options.http_endpoint.as_str());
    xml.text("httpProtocolIpv6", options.http_protocol_ipv6.as_str());
    xml.text("instanceMetadataTags", options.instance_metadata_tags.as_str());
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

//! Translates the engine's calls to the model's requests, and the model's answers back.
//!
//! `aws` does the same over the SDK, which takes minutes to compile and needs tokio. The requests
//! here are those that `aws` puts on the wire. `aws` classifies all of EC2's error codes; this
//! module classifies those that the model returns.

use std::collections::{BTreeMap, BTreeSet};

use ec2_model::connection_tracking;
use ec2_model::error::ApiError;
use ec2_model::id::{EniId, InstanceId, ResourceType};
use ec2_model::request::{
    AssignIpv6Addresses, AssignPrivateIpAddresses, AttachNetworkInterface, AttachmentChange,
    CreateNetworkInterface, DeleteNetworkInterface, DescribeNetworkInterfaces, DescribeSubnets,
    DetachNetworkInterface, Filter, InterfaceType, Listing, ModifyNetworkInterfaceAttribute,
    Request, Tag, TagSpecification, UnassignIpv6Addresses, UnassignPrivateIpAddresses, WantedIpv4,
    WantedIpv6,
};
use ec2_model::response::{self, NetworkInterface, Response};
use ipam::block::{Block, BlockCount, BlockKind};
use ipam::call::{
    AttachmentStatus, CLUSTER_TAG, CallError, CallErrorKind, CallOutput, Ec2Call, EniAttachment,
    EniFacts, EniKind, INSTANCE_TAG, SubnetFacts,
};
use ipam::connection_tracking::ConnectionTracking;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::cloud::Site;

/// EC2's largest page size.
const PAGE_SIZE: i32 = 1000;

/// The requests that one call consists of. DescribeEnis has two: the ENIs with the instance's tag,
/// then those attached to the instance. All other calls have one.
pub fn requests(call: &Ec2Call, site: &Site) -> Vec<Request> {
    let request = match call {
        Ec2Call::DescribeEnis => {
            return vec![
                describe_enis(&format!("tag:{INSTANCE_TAG}"), site),
                describe_enis("attachment.instance-id", site),
            ];
        }
        Ec2Call::DescribeUnattached { cluster } => describe_unattached(cluster, site),
        Ec2Call::DescribeSubnets => describe_subnets(site),
        Ec2Call::CreateEni {
            subnet,
            security_groups,
            connection_tracking,
            blocks,
            description,
            tags,
            client_token,
        } => {
            let (secondary_private_ip_address_count, ipv4_prefix_count) = counts(*blocks);
            Request::from(CreateNetworkInterface {
                secondary_private_ip_address_count,
                ipv4_prefix_count,
                groups: security_groups.iter().map(|id| model_id(id.as_str())).collect(),
                description: description.clone(),
                tag_specifications: vec![tag_specification(tags)],
                client_token: Some(client_token.clone()),
                connection_tracking: asked_tracking(*connection_tracking),
                ..CreateNetworkInterface::in_subnet(model_id(subnet.as_str()))
            })
        }
        Ec2Call::AttachEni { eni, device_index } => Request::from(AttachNetworkInterface {
            network_interface_id: model_id(eni.as_str()),
            instance_id: site.instance.clone(),
            device_index: i32::from(*device_index),
            network_card_index: 0,
            ena_queue_count: None,
            dry_run: false,
        }),
        Ec2Call::SetDeleteOnTermination { eni, attachment } => {
            let attachment_id = model_id(attachment.as_str());
            Request::from(ModifyNetworkInterfaceAttribute {
                attachment: Some(AttachmentChange { attachment_id, delete_on_termination: true }),
                ..ModifyNetworkInterfaceAttribute::of(model_id(eni.as_str()))
            })
        }
        Ec2Call::SetSecurityGroups { eni, security_groups } => {
            Request::from(ModifyNetworkInterfaceAttribute {
                groups: security_groups.iter().map(|id| model_id(id.as_str())).collect(),
                ..ModifyNetworkInterfaceAttribute::of(model_id(eni.as_str()))
            })
        }
        Ec2Call::Assign { eni, blocks } => assign(model_id(eni.as_str()), *blocks),
        Ec2Call::Unassign { eni, blocks } => unassign(model_id(eni.as_str()), blocks),
        Ec2Call::DetachEni { eni: _, attachment } => Request::from(DetachNetworkInterface {
            attachment_id: model_id(attachment.as_str()),
            force: false,
            dry_run: false,
        }),
        Ec2Call::DeleteEni { eni } => Request::from(DeleteNetworkInterface {
            network_interface_id: model_id(eni.as_str()),
            dry_run: false,
        }),
    };
    vec![request]
}

/// The result of a call from its last answer. `before` has the ENIs of the answers before it.
///
/// # Errors
///
/// If the answer belongs to no call of the engine.
pub fn output(
    response: Response,
    before: Vec<EniFacts>,
    instance: &InstanceId,
) -> Result<CallOutput, CallError> {
    match response {
        Response::Done => Ok(CallOutput::Done),
        Response::NetworkInterfaces(page) => {
            let mut enis: BTreeMap<_, _> =
                before.into_iter().map(|eni| (eni.id.clone(), eni)).collect();
            enis.extend(enis_of(&page.items, instance).map(|eni| (eni.id.clone(), eni)));
            Ok(CallOutput::Enis(enis.into_values().collect()))
        }
        Response::Subnets(page) => {
            Ok(CallOutput::Subnets(page.items.into_iter().map(subnet_facts).collect()))
        }
        Response::Created { network_interface, .. } => {
            Ok(CallOutput::Created(eni_facts(&network_interface)))
        }
        Response::Attached { attachment_id, .. } => {
            Ok(CallOutput::Attached(ipam_id(attachment_id.as_str())))
        }
        Response::AssignedIpv4 { addresses, prefixes, .. } => {
            Ok(CallOutput::Assigned(blocks(&addresses, &prefixes, &[])))
        }
        Response::AssignedIpv6 { prefixes, .. } => {
            Ok(CallOutput::Assigned(blocks(&[], &[], &prefixes)))
        }
        Response::UnassignedIpv6 { .. } => Ok(CallOutput::Done),
        other => Err(CallError {
            kind: CallErrorKind::OutcomeUnknown,
            code: "UnexpectedAnswer".to_owned(),
            message: format!("{other:?}"),
        }),
    }
}

/// The ENIs of a list that are attached to this instance or unattached.
pub fn enis_of(enis: &[NetworkInterface], instance: &InstanceId) -> impl Iterator<Item = EniFacts> {
    let is_elsewhere = |eni: &NetworkInterface| {
        eni.attachment.as_ref().is_some_and(|attachment| attachment.instance_id != *instance)
    };
    enis.iter().filter(move |eni| !is_elsewhere(eni)).map(eni_facts)
}

/// Classifies an error of EC2.
pub fn error(error: ApiError) -> CallError {
    let kind = match error.code.as_str() {
        "RequestLimitExceeded" => CallErrorKind::Throttled,
        "InsufficientFreeAddressesInSubnet" => CallErrorKind::SubnetExhausted,
        "InsufficientCidrBlocks" => CallErrorKind::SubnetFragmented,
        "PrivateIpAddressLimitExceeded" | "InvalidInterface.IpAddressLimitExceeded" => {
            CallErrorKind::AddressLimit
        }
        "AttachmentLimitExceeded" => CallErrorKind::EniLimit,
        "InvalidNetworkInterface.InUse" => CallErrorKind::InUse,
        "InvalidNetworkInterfaceID.NotFound" | "InvalidAttachmentID.NotFound" => {
            CallErrorKind::NotFound
        }
        "UnauthorizedOperation" | "AuthFailure" => CallErrorKind::AccessDenied,
        "InvalidParameterValue" => parameter_error(&error.message),
        "InvalidGroup.NotFound" | "InvalidSubnetID.NotFound" => CallErrorKind::Lasting,
        code if code.ends_with("LimitExceeded") => CallErrorKind::Lasting,
        _ if error.status >= 500 => CallErrorKind::OutcomeUnknown,
        _ => CallErrorKind::Rejected,
    };
    CallError { kind, code: error.code, message: error.message }
}

fn parameter_error(message: &str) -> CallErrorKind {
    if message.contains("sufficient free Ipv4 addresses or prefixes") {
        CallErrorKind::SubnetExhausted
    } else if message.contains("already has an interface attached at device index") {
        CallErrorKind::DeviceIndexTaken
    } else if message.contains("is currently in use") {
        CallErrorKind::InUse
    } else {
        CallErrorKind::Rejected
    }
}

/// The DescribeSubnets of both daemons: the subnets of the node's VPC and zone.
pub(crate) fn describe_subnets(site: &Site) -> Request {
    let filters =
        vec![filter("vpc-id", site.vpc.as_str()), filter("availability-zone", &site.zone)];
    let listing = Listing { filters, ..Listing::default() };
    DescribeSubnets { listing, ..DescribeSubnets::default() }.into()
}

/// `Filter.N` with one value.
pub(crate) fn filter(name: &str, value: &str) -> Filter {
    Filter { name: name.to_owned(), values: vec![value.to_owned()] }
}

/// `TagSpecification` of a new ENI.
pub(crate) fn tag_specification(tags: &BTreeMap<String, String>) -> TagSpecification {
    let tag =
        |(key, value): (&String, &String)| Tag { key: key.clone(), value: Some(value.clone()) };
    TagSpecification {
        resource_type: ResourceType::NetworkInterface,
        tags: tags.iter().map(tag).collect(),
    }
}

fn describe_unattached(cluster: &str, site: &Site) -> Request {
    let filters = vec![
        filter(&format!("tag:{CLUSTER_TAG}"), cluster),
        filter("tag-key", INSTANCE_TAG),
        filter("status", "available"),
        filter("vpc-id", site.vpc.as_str()),
    ];
    let listing = Listing { filters, max_results: Some(PAGE_SIZE), next_token: None };
    DescribeNetworkInterfaces { listing, ..DescribeNetworkInterfaces::default() }.into()
}

fn describe_enis(name: &str, site: &Site) -> Request {
    let filters = vec![filter(name, site.instance.as_str())];
    let listing = Listing { filters, max_results: Some(PAGE_SIZE), next_token: None };
    DescribeNetworkInterfaces { listing, ..DescribeNetworkInterfaces::default() }.into()
}

fn assign(network_interface_id: EniId, blocks: BlockCount) -> Request {
    match blocks.kind {
        BlockKind::V4Address | BlockKind::V4Prefix => {
            let (address_count, prefix_count) = counts(blocks);
            let wanted = WantedIpv4 { address_count, prefix_count, ..WantedIpv4::default() };
            let allow_reassignment = false;
            AssignPrivateIpAddresses { network_interface_id, wanted, allow_reassignment }.into()
        }
        BlockKind::V6Prefix => {
            let prefix_count = Some(i32::from(blocks.n));
            let wanted = WantedIpv6 { prefix_count, ..WantedIpv6::default() };
            AssignIpv6Addresses { network_interface_id, wanted }.into()
        }
    }
}

/// All blocks are of one family.
fn unassign(network_interface_id: EniId, blocks: &BTreeSet<Block>) -> Request {
    let nets = || blocks.iter().filter_map(|block| ipv4(block.cidr()));
    if nets().next().is_none() {
        let prefixes = blocks.iter().filter_map(|block| ipv6(block.cidr())).collect();
        let addresses = Vec::new();
        return UnassignIpv6Addresses { network_interface_id, addresses, prefixes }.into();
    }
    UnassignPrivateIpAddresses {
        network_interface_id,
        addresses: nets().filter(is_single).map(|net| net.addr()).collect(),
        prefixes: nets().filter(|net| !is_single(net)).collect(),
    }
    .into()
}

/// The address and prefix counts of a request. EC2 refuses a count of zero, so it becomes none.
fn counts(blocks: BlockCount) -> (Option<i32>, Option<i32>) {
    let count = (blocks.n > 0).then(|| i32::from(blocks.n));
    match blocks.kind {
        BlockKind::V4Address => (count, None),
        BlockKind::V4Prefix => (None, count),
        BlockKind::V6Prefix => unreachable!("IPv6 is on primary ENIs, which no daemon creates"),
    }
}

/// [`Spec`](crate::spec::Spec) has no other subnets.
const IPV4_SUBNET: &str = "each subnet of the lab has IPv4";

fn eni_facts(eni: &NetworkInterface) -> EniFacts {
    let own = eni.private_ip_address;
    let secondaries = eni.private_ip_addresses.iter().map(|it| it.address);
    let secondaries: Vec<_> = secondaries.filter(|address| Some(*address) != own).collect();
    EniFacts {
        id: ipam_id(eni.id.as_str()),
        mac: eni.mac_address,
        subnet: ipam_id(eni.subnet_id.as_str()),
        connection_tracking: eni.connection_tracking.map_or_else(Default::default, shown_tracking),
        security_groups: eni.groups.iter().map(|group| ipam_id(group.id.as_str())).collect(),
        primary_address: own.expect(IPV4_SUBNET).into(),
        blocks: blocks(&secondaries, &eni.ipv4_prefixes, &eni.ipv6_prefixes),
        kind: match eni.interface_type {
            InterfaceType::Interface => EniKind::Interface,
            InterfaceType::Efa
            | InterfaceType::EfaOnly
            | InterfaceType::Branch
            | InterfaceType::Trunk => EniKind::Other,
        },
        attachment: eni.attachment.as_ref().map(attachment),
        tags: eni.tags.clone(),
    }
}

fn asked_tracking(wanted: ConnectionTracking) -> Option<connection_tracking::ConnectionTracking> {
    let seconds = |seconds: Option<u32>| seconds.and_then(|seconds| i32::try_from(seconds).ok());
    (!wanted.is_default()).then(|| connection_tracking::ConnectionTracking {
        tcp_established_timeout: seconds(wanted.tcp_established),
        udp_stream_timeout: seconds(wanted.udp_stream),
        udp_timeout: seconds(wanted.udp),
    })
}

fn shown_tracking(shown: connection_tracking::ConnectionTracking) -> ConnectionTracking {
    let seconds = |seconds: Option<i32>| seconds.and_then(|seconds| u32::try_from(seconds).ok());
    ConnectionTracking {
        tcp_established: seconds(shown.tcp_established_timeout),
        udp_stream: seconds(shown.udp_stream_timeout),
        udp: seconds(shown.udp_timeout),
    }
}

fn attachment(attachment: &response::Attachment) -> EniAttachment {
    EniAttachment {
        id: ipam_id(attachment.id.as_str()),
        device_index: attachment.device_index,
        network_card: attachment.network_card_index,
        status: match attachment.status {
            response::AttachmentStatus::Attaching => AttachmentStatus::Attaching,
            response::AttachmentStatus::Attached => AttachmentStatus::Attached,
            response::AttachmentStatus::Detaching => AttachmentStatus::Detaching,
        },
        delete_on_termination: attachment.delete_on_termination,
    }
}

fn subnet_facts(subnet: response::Subnet) -> SubnetFacts {
    SubnetFacts {
        id: ipam_id(subnet.id.as_str()),
        cidr: subnet.cidr_block.expect(IPV4_SUBNET).into(),
        free_addresses: Some(subnet.available_ip_address_count),
        tags: subnet.tags,
    }
}

fn blocks(
    addresses: &[std::net::Ipv4Addr],
    prefixes: &[Ipv4Net],
    ipv6_prefixes: &[Ipv6Net],
) -> BTreeSet<Block> {
    let aligned = "EC2 assigns aligned prefixes of the one length there is";
    let singles = addresses.iter().map(|address| Block::address(*address));
    let prefixes = prefixes.iter().map(|net| Block::try_from(*net).expect(aligned));
    let of_ipv6 = ipv6_prefixes.iter().map(|net| Block::try_from(*net).expect(aligned));
    singles.chain(prefixes).chain(of_ipv6).collect()
}

fn ipv4(net: IpNet) -> Option<Ipv4Net> {
    match net {
        IpNet::V4(net) => Some(net),
        IpNet::V6(_) => None,
    }
}

fn ipv6(net: IpNet) -> Option<Ipv6Net> {
    match net {
        IpNet::V4(_) => None,
        IpNet::V6(net) => Some(net),
    }
}

fn is_single(net: &Ipv4Net) -> bool {
    net.prefix_len() == 32
}

/// The model's form of an id that the engine returns.
pub fn model_id<T: std::str::FromStr>(id: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    id.parse().expect("the engine has its ids from the model")
}

/// The engine's form of an id of the model.
pub fn ipam_id<'a, T: TryFrom<&'a str>>(id: &'a str) -> T
where
    T::Error: std::fmt::Debug,
{
    T::try_from(id).expect("the model's ids begin with the prefix of their kind")
}

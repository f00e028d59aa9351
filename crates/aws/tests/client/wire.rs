//! Every call as EC2 receives it, and every way in which an answer can fail.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::slice::from_ref;
use std::time::Duration;

use aws::{ConnectOptions, Ec2, Proxies, instance_limits};
use aws_sdk_ec2::config::Credentials;
use ipam::block::{Block, BlockCount, BlockKind};
use ipam::call::{
    AttachmentStatus, CallErrorKind, CallOutput, Ec2Call, EniAttachment, EniFacts, EniKind,
    SubnetFacts,
};
use ipam::connection_tracking::ConnectionTracking;
use ipam::policy::Limits;
use ipnet::IpNet;
use mac::MacAddr;
use service_url::ServiceUrl;

use super::server::{Answer, Request, Server};

/// When a call counts as hung.
const HANG: Duration = Duration::from_secs(60);

/// Options for a server of EC2 at `endpoint`.
pub(crate) fn options(endpoint: &str) -> ConnectOptions {
    ConnectOptions {
        region: "us-east-1".to_owned(),
        endpoint: Some(ServiceUrl::parse(endpoint).expect("a URL")),
        proxies: Proxies::default(),
        roots: aws::Roots::System,
        instance: id("i-1"),
        vpc: id("vpc-1"),
        primary_mac: MacAddr::NONE,
        availability_zone: "us-east-1a".to_owned(),
        http_timeout: HANG,
        credentials: Some(Credentials::new("AKIDEXAMPLE", "secret", None, None, "test")),
    }
}

pub(crate) fn id<T: for<'a> TryFrom<&'a str>>(text: &str) -> T {
    T::try_from(text).ok().unwrap_or_else(|| panic!("{text} is no id of that kind"))
}

pub(crate) fn blocks(cidrs: &[&str]) -> BTreeSet<Block> {
    let block = |cidr: &&str| {
        let cidr: IpNet = cidr.parse().expect("a CIDR");
        Block::try_from(cidr).expect("a block")
    };
    cidrs.iter().map(block).collect()
}

pub(crate) fn tags(tags: &[(&str, &str)]) -> BTreeMap<String, String> {
    tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn create(blocks: BlockCount) -> Ec2Call {
    create_tracking(blocks, ConnectionTracking::default())
}

fn create_tracking(blocks: BlockCount, connection_tracking: ConnectionTracking) -> Ec2Call {
    Ec2Call::CreateEni {
        subnet: id("subnet-1"),
        security_groups: [id("sg-2"), id("sg-1")].into(),
        connection_tracking,
        blocks,
        description: "aws-K8S-i-1".to_owned(),
        tags: tags(&[("node.k8s.amazonaws.com/instance_id", "i-1"), ("team", "a&b")]),
        client_token: "token-1".to_owned(),
    }
}

fn attach() -> Ec2Call {
    Ec2Call::AttachEni { eni: id("eni-1"), device_index: 1 }
}

fn set_delete_on_termination() -> Ec2Call {
    Ec2Call::SetDeleteOnTermination { eni: id("eni-1"), attachment: id("eni-attach-1") }
}

fn set_security_groups() -> Ec2Call {
    let security_groups = [id("sg-2"), id("sg-1")].into();
    Ec2Call::SetSecurityGroups { eni: id("eni-1"), security_groups }
}

fn assign(blocks: BlockCount) -> Ec2Call {
    Ec2Call::Assign { eni: id("eni-1"), blocks }
}

fn unassign(cidrs: &[&str]) -> Ec2Call {
    Ec2Call::Unassign { eni: id("eni-1"), blocks: blocks(cidrs) }
}

fn detach() -> Ec2Call {
    Ec2Call::DetachEni { eni: id("eni-1"), attachment: id("eni-attach-1") }
}

fn unattached() -> Ec2Call {
    Ec2Call::DescribeUnattached { cluster: "blue".to_owned() }
}

fn delete() -> Ec2Call {
    Ec2Call::DeleteEni { eni: id("eni-1") }
}

/// One of each.
fn all_calls() -> [Ec2Call; 12] {
    [
        Ec2Call::DescribeEnis,
        Ec2Call::DescribeSubnets,
        unattached(),
        create(BlockKind::V4Address.times(1)),
        set_delete_on_termination(),
        attach(),
        assign(BlockKind::V4Address.times(1)),
        assign(BlockKind::V6Prefix.times(1)),
        unassign(&["10.0.0.9/32"]),
        unassign(&["2001:db8::/80"]),
        detach(),
        delete(),
    ]
}

/// An ENI in EC2's XML; `rest` comes after the common fields.
fn eni_xml(id: &str, rest: &str) -> String {
    format!(
        "<networkInterfaceId>{id}</networkInterfaceId><subnetId>subnet-1</subnetId>\
         <macAddress>02:AA:bb:cc:dd:ee</macAddress><privateIpAddress>10.0.0.10</privateIpAddress>\
         <interfaceType>interface</interfaceType>\
         <groupSet><item><groupId>sg-2</groupId></item><item><groupId>sg-1</groupId></item></groupSet>\
         {rest}"
    )
}

const ADDRESSES: &str = "<privateIpAddressesSet>\
    <item><privateIpAddress>10.0.0.10</privateIpAddress><primary>true</primary></item>\
    <item><privateIpAddress>10.0.0.11</privateIpAddress><primary>false</primary></item>\
    </privateIpAddressesSet>\
    <ipv4PrefixSet><item><ipv4Prefix>10.0.0.32/28</ipv4Prefix></item></ipv4PrefixSet>\
    <ipv6AddressesSet><item><ipv6Address>2001:db8::7</ipv6Address></item></ipv6AddressesSet>\
    <ipv6PrefixSet><item><ipv6Prefix>2001:db8:0:0:a::/80</ipv6Prefix></item></ipv6PrefixSet>";

fn attachment_xml(instance: &str, status: &str) -> String {
    format!(
        "<attachment><attachmentId>eni-attach-1</attachmentId><instanceId>{instance}</instanceId>\
         <deviceIndex>1</deviceIndex><networkCardIndex>0</networkCardIndex>\
         <status>{status}</status><deleteOnTermination>true</deleteOnTermination></attachment>"
    )
}

fn facts(id_text: &str) -> EniFacts {
    EniFacts {
        id: id(id_text),
        mac: [0x02, 0xaa, 0xbb, 0xcc, 0xdd, 0xee].into(),
        subnet: id("subnet-1"),
        security_groups: [id("sg-1"), id("sg-2")].into(),
        connection_tracking: ConnectionTracking::default(),
        primary_address: Ipv4Addr::new(10, 0, 0, 10).into(),
        blocks: BTreeSet::new(),
        kind: EniKind::Interface,
        attachment: None,
        tags: BTreeMap::new(),
    }
}

/// `call` sends `requests`, and returns `output` if the server sends `answers`.
async fn check(call: Ec2Call, requests: &[&str], answers: &[Answer], output: CallOutput) {
    let server = Server::start(answers.to_vec()).await;
    let outcome = server.client().await.execute(&call).await;
    let seen: Vec<_> = server.seen().iter().map(|request| request.form()).collect();
    assert_eq!(seen, requests, "{call:?}");
    assert_eq!(outcome, Ok(output), "{call:?}");
}

#[tokio::test]
async fn create_sends_the_count_of_blocks_unless_zero() {
    let request = |count: &str| {
        format!(
            "Action=CreateNetworkInterface\nClientToken=token-1\nDescription=aws-K8S-i-1\n{count}\
             SecurityGroupId.1=sg-1\nSecurityGroupId.2=sg-2\nSubnetId=subnet-1\n\
             TagSpecification.1.ResourceType=network-interface\n\
             TagSpecification.1.Tag.1.Key=node.k8s.amazonaws.com/instance_id\n\
             TagSpecification.1.Tag.1.Value=i-1\n\
             TagSpecification.1.Tag.2.Key=team\nTagSpecification.1.Tag.2.Value=a&b"
        )
    };
    let tag_set = "<tagSet><item><key>team</key><value>a&amp;b</value></item></tagSet>";
    let eni = eni_xml("eni-1", &format!("{ADDRESSES}{tag_set}"));
    let answer = Answer::ok(
        "CreateNetworkInterface",
        &format!("<networkInterface>{eni}<status>pending</status></networkInterface>"),
    );
    let created = CallOutput::Created(EniFacts {
        blocks: blocks(&["10.0.0.11/32", "10.0.0.32/28", "2001:db8:0:0:a::/80"]),
        tags: tags(&[("team", "a&b")]),
        ..facts("eni-1")
    });
    for (blocks, count) in [
        (BlockKind::V4Address.times(9), "SecondaryPrivateIpAddressCount=9\n"),
        (BlockKind::V4Prefix.times(2), "Ipv4PrefixCount=2\n"),
        (BlockKind::V6Prefix.times(1), "Ipv6PrefixCount=1\n"),
        (BlockKind::V4Address.times(0), ""),
        (BlockKind::V4Prefix.times(0), ""),
    ] {
        check(create(blocks), &[&request(count)], from_ref(&answer), created.clone()).await;
    }
}

/// A time-out that EC2 does not show is the instance type's.
#[tokio::test]
async fn create_sends_time_outs_that_differ_and_reads_them() {
    let check = async |connection_tracking: ConnectionTracking, sent: &str, shown: &str| {
        let request = format!(
            "Action=CreateNetworkInterface\nClientToken=token-1\n{sent}Description=aws-K8S-i-1\n\
             SecurityGroupId.1=sg-1\nSecurityGroupId.2=sg-2\nSubnetId=subnet-1\n\
             TagSpecification.1.ResourceType=network-interface\n\
             TagSpecification.1.Tag.1.Key=node.k8s.amazonaws.com/instance_id\n\
             TagSpecification.1.Tag.1.Value=i-1\n\
             TagSpecification.1.Tag.2.Key=team\nTagSpecification.1.Tag.2.Value=a&b"
        );
        let eni = eni_xml("eni-1", shown);
        let answer = Answer::ok(
            "CreateNetworkInterface",
            &format!("<networkInterface>{eni}</networkInterface>"),
        );
        let created = CallOutput::Created(EniFacts { connection_tracking, ..facts("eni-1") });
        let call = create_tracking(BlockKind::V4Address.times(0), connection_tracking);
        self::check(call, &[&request], &[answer], created).await;
    };
    let all =
        ConnectionTracking { tcp_established: Some(350), udp_stream: Some(60), udp: Some(31) };
    check(
        all,
        "ConnectionTrackingSpecification.TcpEstablishedTimeout=350\n\
         ConnectionTrackingSpecification.UdpStreamTimeout=60\n\
         ConnectionTrackingSpecification.UdpTimeout=31\n",
        "<connectionTrackingConfiguration><tcpEstablishedTimeout>350</tcpEstablishedTimeout>\
         <udpStreamTimeout>60</udpStreamTimeout><udpTimeout>31</udpTimeout>\
         </connectionTrackingConfiguration>",
    )
    .await;
    check(
        ConnectionTracking { tcp_established: Some(432_000), ..ConnectionTracking::default() },
        "ConnectionTrackingSpecification.TcpEstablishedTimeout=432000\n",
        "<connectionTrackingConfiguration><tcpEstablishedTimeout>432000</tcpEstablishedTimeout>\
         </connectionTrackingConfiguration>",
    )
    .await;
    let default = ConnectionTracking::default();
    check(default, "", "<connectionTrackingConfiguration></connectionTrackingConfiguration>").await;
}

#[tokio::test]
async fn attach_names_the_instance_and_returns_the_attachment() {
    check(
        attach(),
        &["Action=AttachNetworkInterface\nDeviceIndex=1\nInstanceId=i-1\nNetworkInterfaceId=eni-1"],
        &[Answer::ok("AttachNetworkInterface", "<attachmentId>eni-attach-1</attachmentId>")],
        CallOutput::Attached(id("eni-attach-1")),
    )
    .await;
}

#[tokio::test]
async fn assign_returns_the_added_blocks() {
    let request = |count: &str| {
        format!("Action=AssignPrivateIpAddresses\n{count}")
            .replace("{eni}", "NetworkInterfaceId=eni-1")
    };
    check(
        assign(BlockKind::V4Address.times(2)),
        &[&request("{eni}\nSecondaryPrivateIpAddressCount=2")],
        &[Answer::ok(
            "AssignPrivateIpAddresses",
            "<assignedPrivateIpAddressesSet>\
             <item><privateIpAddress>10.0.0.7</privateIpAddress></item>\
             <item><privateIpAddress>10.0.0.5</privateIpAddress></item>\
             </assignedPrivateIpAddressesSet><assignedIpv4PrefixSet/>",
        )],
        CallOutput::Assigned(blocks(&["10.0.0.5/32", "10.0.0.7/32"])),
    )
    .await;
    check(
        assign(BlockKind::V4Prefix.times(1)),
        &[&request("Ipv4PrefixCount=1\n{eni}")],
        &[Answer::ok(
            "AssignPrivateIpAddresses",
            "<assignedIpv4PrefixSet><item><ipv4Prefix>10.0.0.48/28</ipv4Prefix></item>\
             </assignedIpv4PrefixSet>",
        )],
        CallOutput::Assigned(blocks(&["10.0.0.48/28"])),
    )
    .await;
    check(
        assign(BlockKind::V6Prefix.times(1)),
        &["Action=AssignIpv6Addresses\nIpv6PrefixCount=1\nNetworkInterfaceId=eni-1"],
        &[Answer::ok(
            "AssignIpv6Addresses",
            "<networkInterfaceId>eni-1</networkInterfaceId><assignedIpv6Addresses/>\
             <assignedIpv6PrefixSet><item>2001:db8:0:0:a::/80</item></assignedIpv6PrefixSet>",
        )],
        CallOutput::Assigned(blocks(&["2001:db8:0:0:a::/80"])),
    )
    .await;
}

#[tokio::test]
async fn unassign_names_the_addresses_or_prefixes() {
    let done = Answer::ok("UnassignPrivateIpAddresses", "<return>true</return>");
    check(
        unassign(&["10.0.0.5/32", "10.0.0.7/32"]),
        &["Action=UnassignPrivateIpAddresses\nNetworkInterfaceId=eni-1\n\
           PrivateIpAddress.1=10.0.0.5\nPrivateIpAddress.2=10.0.0.7"],
        from_ref(&done),
        CallOutput::Done,
    )
    .await;
    check(
        unassign(&["10.0.0.48/28"]),
        &["Action=UnassignPrivateIpAddresses\nIpv4Prefix.1=10.0.0.48/28\nNetworkInterfaceId=eni-1"],
        &[done],
        CallOutput::Done,
    )
    .await;
}

#[tokio::test]
async fn unassign_names_the_ipv6_prefixes() {
    check(
        unassign(&["2001:db8:0:0:a::/80", "2001:db8:0:0:b::/80"]),
        &["Action=UnassignIpv6Addresses\nIpv6Prefix.1=2001:db8:0:0:a::/80\n\
           Ipv6Prefix.2=2001:db8:0:0:b::/80\nNetworkInterfaceId=eni-1"],
        &[Answer::ok("UnassignIpv6Addresses", "<return>true</return>")],
        CallOutput::Done,
    )
    .await;
}

#[tokio::test]
async fn unassign_of_mixed_families_sends_nothing() {
    let server = Server::start([]).await;
    let mixed = unassign(&["10.0.0.5/32", "2001:db8::/80"]);
    let error = server.client().await.execute(&mixed).await.unwrap_err();
    assert_eq!((error.kind, &*error.code), (CallErrorKind::Rejected, "UnsupportedBlock"));
    assert!(server.seen().is_empty());
}

/// A throttled call needs no advice on subnets.
#[tokio::test]
async fn refused_ipv6_prefix_carries_advice_on_the_subnet() {
    let check = async |answer: Answer, message: &str| {
        let server = Server::start([answer]).await;
        let call = assign(BlockKind::V6Prefix.times(1));
        let error = server.client().await.execute(&call).await.unwrap_err();
        assert_eq!(error.message, message);
    };
    check(
        Answer::error(400, "InvalidParameterValue", "No IPv6 there."),
        "No IPv6 there.; IPv6 pods need a subnet with an IPv6 CIDR block: associate one with the \
         subnet of eni-1",
    )
    .await;
    check(Answer::throttled(), "Request limit exceeded.").await;
}

#[tokio::test]
async fn other_calls_return_done() {
    let cases = [
        (
            set_delete_on_termination(),
            "ModifyNetworkInterfaceAttribute\nAttachment.AttachmentId=eni-attach-1\n\
             Attachment.DeleteOnTermination=true\nNetworkInterfaceId=eni-1",
        ),
        (
            set_security_groups(),
            "ModifyNetworkInterfaceAttribute\nNetworkInterfaceId=eni-1\n\
             SecurityGroupId.1=sg-1\nSecurityGroupId.2=sg-2",
        ),
        (detach(), "DetachNetworkInterface\nAttachmentId=eni-attach-1"),
        (delete(), "DeleteNetworkInterface\nNetworkInterfaceId=eni-1"),
    ];
    for (call, request) in cases {
        let action = request.lines().next().unwrap();
        let answer = Answer::ok(action, "<return>true</return>");
        check(call, &[&format!("Action={request}")], &[answer], CallOutput::Done).await;
    }
}

const BY_TAG: &str = "Action=DescribeNetworkInterfaces\n\
    Filter.1.Name=tag:node.k8s.amazonaws.com/instance_id\nFilter.1.Value.1=i-1\nMaxResults=1000";
const BY_ATTACHMENT: &str = "Action=DescribeNetworkInterfaces\n\
    Filter.1.Name=attachment.instance-id\nFilter.1.Value.1=i-1\nMaxResults=1000";

fn enis_page(enis: &[String], next: &str) -> Answer {
    let items: String = enis.iter().map(|eni| format!("<item>{eni}</item>")).collect();
    let set = format!("<networkInterfaceSet>{items}</networkInterfaceSet>");
    Answer::ok("DescribeNetworkInterfaces", &format!("{set}<nextToken>{next}</nextToken>"))
}

#[tokio::test]
async fn describe_enis_merges_tag_and_attachment_over_all_pages() {
    let attached = |status| EniFacts {
        attachment: Some(EniAttachment {
            id: id("eni-attach-1"),
            device_index: 1,
            network_card: 0,
            status,
            delete_on_termination: true,
        }),
        ..facts("eni-1")
    };
    let next_page = format!("{BY_ATTACHMENT}\nNextToken=page-2");
    let trunk = eni_xml("eni-3", "").replace(">interface<", ">trunk<");
    check(
        Ec2Call::DescribeEnis,
        &[BY_TAG, BY_ATTACHMENT, &next_page],
        &[
            enis_page(
                &[
                    eni_xml("eni-9", ""),
                    eni_xml("eni-5", &attachment_xml("i-other", "attached")),
                    eni_xml("eni-1", &attachment_xml("i-1", "attaching")),
                ],
                "",
            ),
            enis_page(&[], "page-2"),
            enis_page(&[trunk, eni_xml("eni-1", &attachment_xml("i-1", "attached"))], ""),
        ],
        CallOutput::Enis(vec![
            attached(AttachmentStatus::Attached),
            EniFacts { kind: EniKind::Other, ..facts("eni-3") },
            facts("eni-9"),
        ]),
    )
    .await;
}

/// An EFA-only ENI has no address, and an ENI in an IPv6-only subnet has no IPv4 address.
#[tokio::test]
async fn describe_with_an_eni_without_ipv4_succeeds() {
    let bare = |id: &str, rest: &str| {
        let rest = format!("{}{rest}", attachment_xml("i-1", "attached"));
        eni_xml(id, &rest).replace("<privateIpAddress>10.0.0.10</privateIpAddress>", "")
    };
    let efa = bare("eni-3", "").replace(">interface<", ">efa-only<");
    let of_ipv6 = "<ipv6AddressesSet><item><ipv6Address>2001:db8::7</ipv6Address></item>\
        </ipv6AddressesSet>";
    let expect = |id_text: &str, primary_address: IpAddr| EniFacts {
        kind: EniKind::Other,
        primary_address,
        attachment: Some(EniAttachment {
            id: id("eni-attach-1"),
            device_index: 1,
            network_card: 0,
            status: AttachmentStatus::Attached,
            delete_on_termination: true,
        }),
        ..facts(id_text)
    };
    check(
        Ec2Call::DescribeEnis,
        &[BY_TAG, BY_ATTACHMENT],
        &[enis_page(&[], ""), enis_page(&[efa, bare("eni-4", of_ipv6)], "")],
        CallOutput::Enis(vec![
            expect("eni-3", Ipv4Addr::UNSPECIFIED.into()),
            expect("eni-4", "2001:db8::7".parse().unwrap()),
        ]),
    )
    .await;
}

#[tokio::test]
async fn leak_search_filters_by_tags_state_and_vpc_over_all_pages() {
    let request = "Action=DescribeNetworkInterfaces\n\
        Filter.1.Name=tag:cluster.k8s.amazonaws.com/name\nFilter.1.Value.1=blue\n\
        Filter.2.Name=tag-key\nFilter.2.Value.1=node.k8s.amazonaws.com/instance_id\n\
        Filter.3.Name=status\nFilter.3.Value.1=available\n\
        Filter.4.Name=vpc-id\nFilter.4.Value.1=vpc-1\nMaxResults=1000";
    check(
        unattached(),
        &[request, &format!("{request}\nNextToken=page-2")],
        &[enis_page(&[eni_xml("eni-9", "")], "page-2"), enis_page(&[eni_xml("eni-1", "")], "")],
        CallOutput::Enis(vec![facts("eni-9"), facts("eni-1")]),
    )
    .await;
}

/// EC2 leaves out what is of IPv4 there. A subnet that has no range yet is left out.
#[tokio::test]
async fn ipv6_only_subnet_has_its_ipv6_range() {
    check(
        Ec2Call::DescribeSubnets,
        &["Action=DescribeSubnets\nFilter.1.Name=vpc-id\nFilter.1.Value.1=vpc-1\n\
           Filter.2.Name=availability-zone\nFilter.2.Value.1=us-east-1a\nMaxResults=1000"],
        &[Answer::ok(
            "DescribeSubnets",
            "<subnetSet><item><subnetId>subnet-6</subnetId><ipv6Native>true</ipv6Native></item>\
             <item><subnetId>subnet-7</subnetId><ipv6Native>true</ipv6Native>\
             <ipv6CidrBlockAssociationSet><item><ipv6CidrBlock>2001:db8:1::/64</ipv6CidrBlock>\
             <ipv6CidrBlockState><state>disassociating</state></ipv6CidrBlockState></item>\
             <item><ipv6CidrBlock>2001:db8:2::/64</ipv6CidrBlock>\
             <ipv6CidrBlockState><state>associated</state></ipv6CidrBlockState></item>\
             </ipv6CidrBlockAssociationSet></item>\
             <item><subnetId>subnet-2</subnetId><cidrBlock>10.0.2.0/24</cidrBlock>\
             <availableIpAddressCount>250</availableIpAddressCount>\
             <tagSet><item><key>kubernetes.io/role/cni</key><value>1</value></item></tagSet></item>\
             <item><subnetId>subnet-1</subnetId><cidrBlock>10.0.1.0/24</cidrBlock>\
             <availableIpAddressCount>0</availableIpAddressCount></item></subnetSet>",
        )],
        CallOutput::Subnets(vec![
            SubnetFacts {
                id: id("subnet-1"),
                cidr: "10.0.1.0/24".parse().unwrap(),
                free_addresses: Some(0),
                tags: tags(&[]),
            },
            SubnetFacts {
                id: id("subnet-2"),
                cidr: "10.0.2.0/24".parse().unwrap(),
                free_addresses: Some(250),
                tags: tags(&[("kubernetes.io/role/cni", "1")]),
            },
            SubnetFacts {
                id: id("subnet-7"),
                cidr: "2001:db8:2::/64".parse().unwrap(),
                free_addresses: Some(0),
                tags: tags(&[]),
            },
        ]),
    )
    .await;
}

/// The first VPC comes from the metadata service, and EC2's answer about the primary ENI replaces it. That is the
/// ENI of the hardware address that the metadata name, at any device index.
#[tokio::test]
async fn vpc_of_the_described_primary_eni_replaces_the_configured() {
    let at_0 = attachment_xml("i-1", "attached").replace("<deviceIndex>1", "<deviceIndex>0");
    let of = |vpc: &str, rest: &str| eni_xml("eni-1", &format!("<vpcId>{vpc}</vpcId>{rest}"));
    let strange = of("vpc-3", &at_0).replace("02:AA:bb", "02:AA:00");
    let primary = of("vpc-2", &attachment_xml("i-1", "attached"));
    let subnets = Answer::ok(
        "DescribeSubnets",
        "<subnetSet><item><subnetId>subnet-1</subnetId><cidrBlock>10.0.1.0/24</cidrBlock>\
         <availableIpAddressCount>9</availableIpAddressCount></item></subnetSet>",
    );
    let none = Answer::ok("DescribeSubnets", "<subnetSet/>");
    let page = |eni: &str| enis_page(&[eni.to_owned()], "");
    let answers = [none, page(&strange), page(&primary), subnets, enis_page(&[], "")];
    let server = Server::start(answers).await;
    let ec2 = server.client_with(|options| options.primary_mac = facts("eni-1").mac).await;
    let error = ec2.execute(&Ec2Call::DescribeSubnets).await.unwrap_err();
    assert_eq!((error.kind, &*error.code), (CallErrorKind::OutcomeUnknown, "MalformedAnswer"));
    for call in [Ec2Call::DescribeEnis, Ec2Call::DescribeSubnets, unattached()] {
        ec2.clone().execute(&call).await.unwrap();
    }
    let by_vpc = |request: &Request| {
        let form = request.form();
        let vpc =
            form.lines().find_map(|line| line.split_once("=vpc-").filter(|(_, n)| *n != "id"));
        vpc.map(|(_, n)| n.to_owned())
    };
    let asked_by: Vec<_> = server.seen().iter().map(by_vpc).collect();
    let asked_by: Vec<_> = asked_by.iter().map(Option::as_deref).collect();
    assert_eq!(asked_by, [Some("1"), None, None, Some("2"), Some("2")]);
}

const TYPE: &str = "<hypervisor>nitro</hypervisor><networkInfo>\
    <defaultNetworkCardIndex>0</defaultNetworkCardIndex>\
    <ipv4AddressesPerInterface>50</ipv4AddressesPerInterface>\
    <maximumNetworkInterfaces>60</maximumNetworkInterfaces><networkCards>\
    <item><networkCardIndex>1</networkCardIndex>\
    <maximumNetworkInterfaces>45</maximumNetworkInterfaces></item>\
    <item><networkCardIndex>0</networkCardIndex>\
    <maximumNetworkInterfaces>15</maximumNetworkInterfaces></item></networkCards></networkInfo>";

#[tokio::test]
async fn limits_are_those_of_the_default_network_card() {
    let check = async |info: &str, limits: Limits| {
        let set = format!("<instanceTypeSet><item>{info}</item></instanceTypeSet>");
        let server = Server::start([Answer::ok("DescribeInstanceTypes", &set)]).await;
        let answer = instance_limits(&server.client().await, "p4d.24xlarge").await;
        assert_eq!(answer, Ok(limits), "{info}");
        let request = "Action=DescribeInstanceTypes\nInstanceType.1=p4d.24xlarge";
        assert_eq!(server.seen()[0].form(), request);
    };
    let limits = Limits { enis: 15, addresses_per_eni: 50, prefixes: true };
    check(TYPE, limits).await;
    check(&TYPE.replace("nitro", "xen"), Limits { prefixes: false, ..limits }).await;
    check(&TYPE.replace("<hypervisor>nitro</hypervisor>", ""), limits).await;
}

#[tokio::test]
async fn request_names_the_product_and_is_signed() {
    let server = Server::start([Answer::throttled()]).await;
    server.client().await.execute(&delete()).await.unwrap_err();
    let request = &server.seen()[0];
    let product = concat!("lib/tidepool/", env!("CARGO_PKG_VERSION"));
    let agent = request.header("user-agent").unwrap();
    assert!(agent.split(' ').any(|part| part == product), "{agent}");
    let scope = request.header("authorization").unwrap();
    assert!(scope.contains("/us-east-1/ec2/aws4_request"), "{scope}");
}

#[tokio::test]
async fn failed_call_is_not_retried() {
    let cases = [
        (Answer::throttled(), CallErrorKind::Throttled),
        (Answer::error(500, "InternalError", "oops"), CallErrorKind::OutcomeUnknown),
        (Answer::error(503, "Unavailable", "later"), CallErrorKind::OutcomeUnknown),
        (Answer::error(403, "UnauthorizedOperation", "no"), CallErrorKind::AccessDenied),
    ];
    for (answer, kind) in cases {
        for call in all_calls() {
            let server = Server::start([answer.clone()]).await;
            let error = server.client().await.execute(&call).await.unwrap_err();
            assert_eq!((error.kind, server.seen().len()), (kind, 1), "{call:?}");
        }
    }
}

#[tokio::test]
async fn second_create_carries_the_same_token_and_succeeds() {
    let eni = eni_xml("eni-1", "");
    let created = Answer::ok(
        "CreateNetworkInterface",
        &format!("<networkInterface>{eni}</networkInterface>"),
    );
    for lost in [Answer::throttled(), Answer::HangUp] {
        let server = Server::start([lost, created.clone()]).await;
        let client = server.client().await;
        client.execute(&create(BlockKind::V4Address.times(1))).await.unwrap_err();
        let outcome = client.execute(&create(BlockKind::V4Address.times(1))).await;
        assert_eq!(outcome, Ok(CallOutput::Created(facts("eni-1"))));
        let seen = server.seen();
        assert_eq!((seen.len(), seen[0].form()), (2, seen[1].form()));
        assert!(seen[0].form().contains("ClientToken=token-1"));
    }
}

/// A call that may have had its effect is `OutcomeUnknown`, and is sent once.
async fn check_lost(answer: Answer, http_timeout: Duration, code: &str) {
    let server = Server::start([answer]).await;
    let client = server.client_with(|options| options.http_timeout = http_timeout).await;
    let call = assign(BlockKind::V4Address.times(1));
    let outcome = tokio::time::timeout(HANG, client.execute(&call)).await;
    let error = outcome.expect("an end, though silent").expect_err("no answer, no success");
    assert_eq!((error.kind, &*error.code), (CallErrorKind::OutcomeUnknown, code), "{error}");
    assert!(error.message.starts_with("AssignPrivateIpAddresses: "), "{error}");
    assert_eq!(server.seen().len(), 1, "{error}");
}

#[tokio::test]
async fn lost_answer_leaves_the_outcome_unknown() {
    let answer = "<AssignPrivateIpAddressesResponse></AssignPrivateIpAddressesResponse>";
    check_lost(Answer::Hang, Duration::from_millis(300), "TimedOut").await;
    check_lost(Answer::HangUp, HANG, "ConnectionFailed").await;
    check_lost(Answer::CutShort(answer.to_owned()), HANG, "AnswerLost").await;
    check_lost(Answer::Send(200, "<html>all is well".to_owned()), HANG, "UnreadableAnswer").await;
    check_lost(Answer::Send(200, String::new()), HANG, "UnreadableAnswer").await;
    check_lost(Answer::Send(502, "<html>bad gateway".to_owned()), HANG, "UnreadableAnswer").await;
    check_lost(Answer::Send(200, answer.to_owned()), HANG, "MalformedAnswer").await;
}

#[tokio::test]
async fn refusal_without_a_code_is_rejected() {
    let server = Server::start([Answer::Send(407, "<html>who are you".to_owned())]).await;
    let error = server.client().await.execute(&attach()).await.unwrap_err();
    assert_eq!((error.kind, &*error.code), (CallErrorKind::Rejected, "UnreadableAnswer"));
}

/// The attempt had no effect, but an earlier attempt of the same call may have had one.
#[tokio::test]
async fn refused_connection_leaves_the_outcome_unknown() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = Ec2::connect(options(&endpoint)).await.unwrap();
    let error = client.execute(&attach()).await.unwrap_err();
    assert_eq!((error.kind, &*error.code), (CallErrorKind::OutcomeUnknown, "ConnectionFailed"));
    assert!(error.message.contains("onnection refused"), "{error}");
}

/// `call` fails at `field` if the good answer is changed `from` one text `to` another.
async fn check_bad_field(call: &Ec2Call, good: &Answer, (from, to): (&str, &str), field: &str) {
    let Answer::Send(200, good) = good else { panic!("not an answer: {good:?}") };
    assert!(good.contains(from), "{from:?} is not in {good}");
    let server = Server::start([Answer::Send(200, good.replace(from, to))]).await;
    let error = server.client().await.execute(call).await.expect_err(field);
    assert_eq!((error.kind, &*error.code), (CallErrorKind::OutcomeUnknown, "MalformedAnswer"));
    let text = format!("{}: {field}: ", call.action().as_str());
    assert!(error.message.starts_with(&text), "{error}");
}

#[tokio::test]
async fn missing_or_invalid_field_is_named() {
    let eni = eni_xml("eni-1", &format!("{ADDRESSES}{}", attachment_xml("i-1", "attached")));
    let enis = enis_page(&[eni], "");
    for (change, field) in [
        (("networkInterfaceId>", "x>"), "networkInterfaceId"),
        ((">eni-1<", "><"), "networkInterfaceId"),
        (("macAddress>", "x>"), "macAddress"),
        ((":ee<", ":eg<"), "macAddress"),
        (("subnetId>", "x>"), "subnetId"),
        ((">sg-1<", "><"), "groupId"),
        (
            ("</macAddress><privateIpAddress>10.0.0.10</privateIpAddress>", "</macAddress>"),
            "privateIpAddress",
        ),
        ((">10.0.0.11<", ">10.0.0.311<"), "privateIpAddressesSet"),
        ((">10.0.0.32/28<", ">10.0.0.33/28<"), "ipv4PrefixSet"),
        ((">10.0.0.32/28<", ">10.0.0.32/32<"), "ipv4PrefixSet"),
        ((">2001:db8:0:0:a::/80<", ">2001:db8:0:0:a::/64<"), "ipv6PrefixSet"),
        ((">2001:db8:0:0:a::/80<", ">10.0.0.48/28<"), "ipv6PrefixSet"),
        (("interfaceType>", "x>"), "interfaceType"),
        (("attachmentId>", "x>"), "attachment.attachmentId"),
        ((">eni-attach-1<", ">eni-1<"), "attachment.attachmentId"),
        (("deviceIndex>", "x>"), "attachment.deviceIndex"),
        (("<deviceIndex>1", "<deviceIndex>-1"), "attachment.deviceIndex"),
        (("<networkCardIndex>0", "<networkCardIndex>70000"), "attachment.networkCardIndex"),
        (("status>", "x>"), "attachment.status"),
        ((">attached<", ">melting<"), "attachment.status"),
        (("deleteOnTermination>", "x>"), "attachment.deleteOnTermination"),
    ] {
        check_bad_field(&Ec2Call::DescribeEnis, &enis, change, field).await;
    }
    let assigned = Answer::ok(
        "AssignPrivateIpAddresses",
        "<assignedPrivateIpAddressesSet><item><privateIpAddress>10.0.0.5</privateIpAddress></item>\
         </assignedPrivateIpAddressesSet>",
    );
    let assign = assign(BlockKind::V4Address.times(1));
    check_bad_field(&assign, &assigned, (">10.0.0.5<", ">fish<"), "assignedPrivateIpAddress").await;
    let assigned = Answer::ok(
        "AssignIpv6Addresses",
        "<assignedIpv6PrefixSet><item>2001:db8::/80</item></assignedIpv6PrefixSet>",
    );
    let assign = self::assign(BlockKind::V6Prefix.times(1));
    for change in [("item>", "x>"), ("/80<", "/128<"), (">2001:db8::/80<", "><")] {
        check_bad_field(&assign, &assigned, change, "assignedIpv6PrefixSet").await;
    }
    let subnets = Answer::ok(
        "DescribeSubnets",
        "<subnetSet><item><subnetId>subnet-2</subnetId><cidrBlock>10.0.2.0/24</cidrBlock>\
         <availableIpAddressCount>250</availableIpAddressCount></item></subnetSet>",
    );
    for (change, field) in [
        (("subnetSet>", "x>"), "subnetSet"),
        (("cidrBlock>", "x>"), "cidrBlock"),
        (("/24", "/33"), "cidrBlock"),
        ((">250<", ">-29<"), "availableIpAddressCount"),
    ] {
        check_bad_field(&Ec2Call::DescribeSubnets, &subnets, change, field).await;
    }
    let attached =
        Answer::ok("AttachNetworkInterface", "<attachmentId>eni-attach-1</attachmentId>");
    check_bad_field(&attach(), &attached, ("attachmentId>", "x>"), "attachmentId").await;
    let created = Answer::ok("CreateNetworkInterface", "<networkInterface/>");
    let change = ("<networkInterface/>", "");
    check_bad_field(&create(BlockKind::V4Address.times(1)), &created, change, "networkInterface")
        .await;
}

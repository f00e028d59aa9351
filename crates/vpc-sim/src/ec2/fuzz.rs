//! Any Query request gets an XML document with a code that EC2 has, and the model continues.

use mangle::{Document, hostile};
use proptest::prelude::*;
use quick_xml::Reader;
use quick_xml::events::Event;

use super::*;
use crate::clock::{Clock, Pace};
use crate::seed::{home, seed};
use crate::topology::Topology;

const TOPOLOGY: &str = "
region: us-east-1
account: '111122223333'
anonymous: true
vpcs:
  - id: vpc-0aaaaaaaaaaaaaaa1
    cidrs: [10.0.0.0/16]
    ipv6_cidrs: ['2600:1f13:abc:de00::/56']
    subnets:
      - {name: a, id: subnet-0aaaaaaaaaaaaaaa1, az: us-east-1a, cidr: 10.0.2.0/24,
         ipv6_cidr: '2600:1f13:abc:de00::/64', routes: {0.0.0.0/0: internet-gateway}}
instances:
  - {id: i-0aaaaaaaaaaaaaaa1, type: m5.large, subnet: a, address: 10.0.2.157}
";

/// Requests to damage. `%` stands for an existing ENI.
const FORMS: &[&str] = &[
    "DescribeInstances&InstanceId.1=i-0aaaaaaaaaaaaaaa1&Filter.1.Name=tag:a*&Filter.1.Value.1=*?\\",
    "DescribeInstanceTypes&InstanceType.1=m5.large&MaxResults=5&NextToken=x",
    "DescribeSubnets&SubnetId.1=subnet-0aaaaaaaaaaaaaaa1&Filter.1.Name=vpc-id&Filter.1.Value.1=v",
    "DescribeVpcs&VpcId.1=vpc-0aaaaaaaaaaaaaaa1",
    "DescribeSecurityGroups&MaxResults=1000",
    "DescribeAvailabilityZones&ZoneName.1=us-east-1a",
    "CreateNetworkInterface&SubnetId=subnet-0aaaaaaaaaaaaaaa1&SecondaryPrivateIpAddressCount=5\
     &ClientToken=t&TagSpecification.1.ResourceType=network-interface\
     &TagSpecification.1.Tag.1.Key=k&TagSpecification.1.Tag.1.Value=v&Description=d",
    "CreateNetworkInterface&SubnetId=subnet-0aaaaaaaaaaaaaaa1&Ipv4PrefixCount=1&Ipv6AddressCount=1",
    "AttachNetworkInterface&NetworkInterfaceId=%&InstanceId=i-0aaaaaaaaaaaaaaa1&DeviceIndex=1",
    "ModifyNetworkInterfaceAttribute&NetworkInterfaceId=%&SourceDestCheck.Value=false",
    "DetachNetworkInterface&AttachmentId=eni-attach-0000000000000000a&Force=true",
    "DeleteNetworkInterface&NetworkInterfaceId=%",
    "DescribeNetworkInterfaces&NetworkInterfaceId.1=%&Filter.1.Name=attachment.device-index\
     &Filter.1.Value.1=0",
    "AssignPrivateIpAddresses&NetworkInterfaceId=%&SecondaryPrivateIpAddressCount=2",
    "AssignPrivateIpAddresses&NetworkInterfaceId=%&PrivateIpAddress.1=10.0.2.9&AllowReassignment=true",
    "AssignPrivateIpAddresses&NetworkInterfaceId=%&Ipv4Prefix.1=10.0.2.16/28",
    "AssignPrivateIpAddresses&NetworkInterfaceId=%&Ipv4PrefixCount=1",
    "UnassignPrivateIpAddresses&NetworkInterfaceId=%&PrivateIpAddress.1=10.0.2.9",
    "AssignIpv6Addresses&NetworkInterfaceId=%&Ipv6PrefixCount=1",
    "UnassignIpv6Addresses&NetworkInterfaceId=%&Ipv6Addresses.1=2600:1f13:abc:de00::9",
    "CreateTags&ResourceId.1=%&Tag.1.Key=k&Tag.1.Value=v",
    "DeleteTags&ResourceId.1=%&Tag.1.Key=k",
    "DescribeTags&Filter.1.Name=key&Filter.1.Value.1=k",
    "CreateSubnetCidrReservation&SubnetId=subnet-0aaaaaaaaaaaaaaa1&Cidr=10.0.2.64/28\
     &ReservationType=prefix",
    "GetSubnetCidrReservations&SubnetId=subnet-0aaaaaaaaaaaaaaa1",
    "DeleteSubnetCidrReservation&SubnetCidrReservationId=scr-00000000000000001",
    "CreateVpc&CidrBlock=10.9.0.0/16",
    "CreateSubnet&VpcId=vpc-0aaaaaaaaaaaaaaa1&CidrBlock=10.0.9.0/24",
    "AssociateVpcCidrBlock&VpcId=vpc-0aaaaaaaaaaaaaaa1&CidrBlock=100.64.0.0/16",
    "RunInstances&ImageId=ami-1&InstanceType=m5.large&MinCount=1&MaxCount=2\
     &NetworkInterface.1.DeviceIndex=0&NetworkInterface.1.SubnetId=subnet-0aaaaaaaaaaaaaaa1\
     &NetworkInterface.1.SecondaryPrivateIpAddressCount=3",
    "TerminateInstances&InstanceId.1=i-0aaaaaaaaaaaaaaa1",
    "CreateSubnet&VpcId=vpc-0aaaaaaaaaaaaaaa1&Ipv6Native=true&Ipv6CidrBlock=2600:1f13:abc:de09::/64",
    "DescribeRouteTables&RouteTableId.1=rtb-0aaaaaaaaaaaaaaa1&Filter.1.Name=association.main\
     &Filter.1.Value.1=true",
    "AllocateAddress&Domain=vpc",
    "DeleteVpc&VpcId=vpc-0aaaaaaaaaaaaaaa1",
    "DeleteSubnet&SubnetId=subnet-0aaaaaaaaaaaaaaa1",
    "DisassociateVpcCidrBlock&AssociationId=vpc-cidr-assoc-0000000000000000a",
    "DescribeVpcAttribute&VpcId=vpc-0aaaaaaaaaaaaaaa1&Attribute=enableDnsSupport",
    "ModifyVpcAttribute&VpcId=vpc-0aaaaaaaaaaaaaaa1&EnableDnsHostnames.Value=true",
    "ModifySubnetAttribute&SubnetId=subnet-0aaaaaaaaaaaaaaa1&MapPublicIpOnLaunch.Value=true",
    "DescribeNetworkAcls&Filter.1.Name=default&Filter.1.Value.1=true",
    "CreateIpam&OperatingRegion.1.RegionName=us-east-1&Tier=advanced&ClientToken=t\
     &TagSpecification.1.ResourceType=ipam&TagSpecification.1.Tag.1.Key=k",
    "ModifyIpam&IpamId=ipam-0000000000000000a&AddOperatingRegion.1.RegionName=eu-west-1",
    "DescribeIpams&MaxResults=5&Filter.1.Name=tag:k&Filter.1.Value.1=*",
    "CreateIpamPool&IpamScopeId=ipam-scope-0000000000000000a&AddressFamily=ipv4&Locale=us-east-1\
     &AllocationMinNetmaskLength=16&AllocationResourceTag.1.Key=k&AllocationResourceTag.1.Value=v\
     &SourceResource.ResourceId=vpc-0aaaaaaaaaaaaaaa1&SourceResource.ResourceType=vpc\
     &SourceResource.ResourceRegion=us-east-1&SourceResource.ResourceOwner=111122223333",
    "ProvisionIpamPoolCidr&IpamPoolId=ipam-pool-0000000000000000a&Cidr=10.0.0.0/8\
     &CidrAuthorizationContext.Message=m&CidrAuthorizationContext.Signature=s",
    "AllocateIpamPoolCidr&IpamPoolId=ipam-pool-0000000000000000a&NetmaskLength=24\
     &AllowedCidr.1=10.0.0.0/16&DisallowedCidr.1=10.0.1.0/24&PreviewNextCidr=true",
    "GetIpamResourceCidrs&IpamScopeId=ipam-scope-0000000000000000a&ResourceTag.Key=k\
     &ResourceType=vpc&ResourceOwner=111122223333",
    "ModifyIpamResourceCidr&ResourceId=vpc-0aaaaaaaaaaaaaaa1&ResourceCidr=10.0.0.0/16\
     &ResourceRegion=us-east-1&CurrentIpamScopeId=ipam-scope-0000000000000000a&Monitored=false",
    "GetIpamAddressHistory&Cidr=10.0.0.0/16&IpamScopeId=ipam-scope-0000000000000000a\
     &StartTime=2026-11-21T00:00:00Z&EndTime=2026-11-22T00:00:00Z",
    "GetIpamDiscoveredResourceCidrs&IpamResourceDiscoveryId=ipam-res-disco-0000000000000000a\
     &ResourceRegion=us-east-1",
    "CreateVpc&Ipv4IpamPoolId=ipam-pool-0000000000000000a&Ipv4NetmaskLength=20",
    "AssociateAddress&AllocationId=eipalloc-0000000000000000a&NetworkInterfaceId=%\
     &PrivateIpAddress=10.0.2.157&AllowReassociation=false",
    "DisassociateAddress&AssociationId=eipassoc-0000000000000000a",
];

fn api() -> (Arc<Api>, String) {
    let topology = Topology::parse(TOPOLOGY).unwrap();
    let clock = Clock::start(Pace::Manual);
    let (mut world, instances) = seed(&topology, clock.now()).unwrap();
    let fabric = world.home_mut().fabric(clock.now());
    assert_eq!(fabric.instances[0].id, instances[0]);
    let eni = fabric.instances[0].enis[0].id.to_string();
    let access = Access {
        home: home(&topology),
        regions: [home(&topology).region].into(),
        access_keys: Default::default(),
        anonymous: true,
    };
    let simulator = Arc::new(Simulator::new(world, clock, None));
    (Arc::new(Api { simulator, access, n_requests: AtomicU64::new(0) }), eni)
}

/// The requests as a client sends them, for an existing ENI.
fn forms() -> Vec<Vec<u8>> {
    let (_, eni) = api();
    let form = |form: &&str| format!("Action={form}&Version=2016-11-15").replace('%', &eni);
    FORMS.iter().map(|text| form(text).into_bytes()).collect()
}

/// Checks that elements are nested correctly below one root.
fn check_xml(text: &str) {
    let mut reader = Reader::from_str(text);
    while reader.read_event().unwrap_or_else(|fault| panic!("{fault}: {text}")) != Event::Eof {}
}

async fn ask(api: &Arc<Api>, form: &Document) {
    let query = RawQuery(None);
    let body = Bytes::copy_from_slice(form);
    let reply = handle(State(Arc::clone(api)), query, None, HeaderMap::new(), body).await;
    assert!(reply.status().is_success() || reply.status().is_client_error(), "{}", reply.status());
    let text = axum::body::to_bytes(reply.into_body(), 1 << 24).await.unwrap();
    check_xml(std::str::from_utf8(&text).unwrap());
}

proptest! {
    #[test]
    fn fuzz_query(forms in prop::collection::vec(hostile(forms()), 1..8)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (api, _) = api();
        for form in &forms {
            runtime.block_on(ask(&api, form));
        }
    }
}

#[test]
fn undamaged_requests_are_decoded() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for form in forms() {
        let refusal = match runtime.block_on(api().0.answer(&form, &HeaderMap::new(), None)) {
            Ok(_) => continue,
            Err(Failure::Refused(refusal)) => refusal,
            Err(Failure::ReplyLost) => panic!("nothing is lost here"),
        };
        let text = String::from_utf8(form).unwrap();
        let of_reading = ["Missing", "Unknown", "Malformed", "InvalidAction", "NoSuch"];
        let is_understood = !of_reading.iter().any(|start| refusal.code.starts_with(start));
        assert!(is_understood, "{text}: {refusal}");
    }
}

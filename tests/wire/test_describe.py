"""What boto3 reads: every Describe operation, filters, pages, dry runs, ids that are not there."""

import unittest

from harness import WireTest
from topologies import (
    GROUP,
    NODE_A,
    NODE_B,
    SUBNET_A,
    SUBNET_B,
    TWO_NODES,
    VPC,
    XEN_NODE,
)


class Describe(WireTest):
    topology = TWO_NODES

    def test_instances(self):
        answer = self.ec2.describe_instances(InstanceIds=[NODE_A])
        (reservation,) = answer["Reservations"]
        self.assertEqual(reservation["OwnerId"], "111122223333")
        (node,) = reservation["Instances"]
        self.assertEqual(node["InstanceId"], NODE_A)
        self.assertEqual(node["InstanceType"], "m5.large")
        self.assertEqual(node["State"], {"Code": 16, "Name": "running"})
        self.assertEqual((node["SubnetId"], node["VpcId"]), (SUBNET_A, VPC))
        self.assertEqual(node["Placement"]["AvailabilityZone"], "us-east-1a")
        self.assertEqual(node["PrivateIpAddress"], "10.0.2.157")
        self.assertEqual(node["PrivateDnsName"], "ip-10-0-2-157.ec2.internal")
        self.assertEqual(node["SecurityGroups"], [{"GroupId": GROUP, "GroupName": "nodes"}])
        self.assertEqual(node["Tags"], [{"Key": "Name", "Value": "node-a"}])
        (eni,) = node["NetworkInterfaces"]
        self.assertEqual(eni["Attachment"]["DeviceIndex"], 0)
        self.assertEqual(eni["Attachment"]["NetworkCardIndex"], 0)
        self.assertEqual(eni["Attachment"]["Status"], "attached")
        self.assertTrue(eni["Attachment"]["DeleteOnTermination"])
        self.assertEqual(eni["Ipv6Addresses"][0]["Ipv6Address"], "2600:1f13:abc:de00::a1")

    def test_instances_by_filter(self):
        def ids(*filters):
            answer = self.ec2.describe_instances(
                Filters=[{"Name": name, "Values": values} for name, values in filters]
            )
            return {i["InstanceId"] for r in answer["Reservations"] for i in r["Instances"]}

        self.assertEqual(ids(("subnet-id", [SUBNET_B])), {NODE_B})
        self.assertEqual(ids(("tag:Name", ["node-*"])), {NODE_A})
        self.assertEqual(ids(("instance-type", ["t2.*", "m5.x?arge"])), {XEN_NODE})
        self.assertEqual(ids(("subnet-id", [SUBNET_A]), ("instance-type", ["m5.large"])), {NODE_A})
        self.assertEqual(ids(("instance-state-name", ["stopped"])), set())
        with self.refused("InvalidParameterValue", "The filter 'colour' is invalid"):
            ids(("colour", ["red"]))

    def test_instance_types(self):
        answer = self.ec2.describe_instance_types(InstanceTypes=["m5.large", "p4d.24xlarge", "t2.micro"])
        types = {kind["InstanceType"]: kind for kind in answer["InstanceTypes"]}
        self.assertEqual(set(types), {"m5.large", "p4d.24xlarge", "t2.micro"})
        m5 = types["m5.large"]
        self.assertEqual(m5["Hypervisor"], "nitro")
        self.assertEqual(m5["NetworkInfo"]["MaximumNetworkInterfaces"], 3)
        self.assertEqual(m5["NetworkInfo"]["Ipv4AddressesPerInterface"], 10)
        self.assertEqual(m5["VCpuInfo"]["DefaultVCpus"], 2)
        self.assertEqual(types["t2.micro"]["Hypervisor"], "xen")
        cards = types["p4d.24xlarge"]["NetworkInfo"]["NetworkCards"]
        self.assertEqual([card["NetworkCardIndex"] for card in cards], [0, 1, 2, 3])
        self.assertEqual(sum(card["MaximumNetworkInterfaces"] for card in cards), 60)
        with self.refused("InvalidInstanceType", "[m5.enormous]"):
            self.ec2.describe_instance_types(InstanceTypes=["m5.enormous"])

    def test_all_instance_types_by_pages(self):
        pages = list(
            self.ec2.get_paginator("describe_instance_types").paginate(
                PaginationConfig={"PageSize": 100}
            )
        )
        names = [kind["InstanceType"] for page in pages for kind in page["InstanceTypes"]]
        self.assertEqual(len(names), 1418)
        self.assertEqual(len(set(names)), 1418)
        self.assertEqual(len(pages), 15)

    def test_subnets(self):
        answer = self.ec2.describe_subnets(SubnetIds=[SUBNET_A, SUBNET_B])
        subnets = {subnet["SubnetId"]: subnet for subnet in answer["Subnets"]}
        a, b = subnets[SUBNET_A], subnets[SUBNET_B]
        self.assertEqual(a["CidrBlock"], "10.0.2.0/24")
        self.assertEqual(a["AvailabilityZone"], "us-east-1a")
        self.assertEqual(a["AvailabilityZoneId"], "use1-az1")
        self.assertEqual(a["AvailableIpAddressCount"], 249)
        self.assertEqual(b["AvailableIpAddressCount"], 247)
        self.assertEqual(a["State"], "available")
        (association,) = a["Ipv6CidrBlockAssociationSet"]
        self.assertEqual(association["Ipv6CidrBlock"], "2600:1f13:abc:de00::/64")
        self.assertEqual(association["Ipv6CidrBlockState"], {"State": "associated"})
        self.assertEqual(b["Ipv6CidrBlockAssociationSet"], [])
        self.assertEqual(a["SubnetArn"], f"arn:aws:ec2:us-east-1:111122223333:subnet/{SUBNET_A}")
        self.assertEqual(a["Tags"], [{"Key": "kubernetes.io/role/cni", "Value": "1"}])
        found = self.ec2.describe_subnets(
            Filters=[
                {"Name": "vpc-id", "Values": [VPC]},
                {"Name": "availability-zone", "Values": ["us-east-1b"]},
            ]
        )
        self.assertEqual([subnet["SubnetId"] for subnet in found["Subnets"]], [SUBNET_B])

    def test_vpcs(self):
        (vpc,) = self.ec2.describe_vpcs(VpcIds=[VPC])["Vpcs"]
        self.assertEqual(vpc["CidrBlock"], "10.0.0.0/16")
        blocks = [entry["CidrBlock"] for entry in vpc["CidrBlockAssociationSet"]]
        self.assertEqual(blocks, ["10.0.0.0/16", "100.64.0.0/16"])
        states = {entry["CidrBlockState"]["State"] for entry in vpc["CidrBlockAssociationSet"]}
        self.assertEqual(states, {"associated"})
        (ipv6,) = vpc["Ipv6CidrBlockAssociationSet"]
        self.assertEqual(ipv6["Ipv6CidrBlock"], "2600:1f13:abc:de00::/56")
        self.assertEqual(vpc["Tags"], [{"Key": "Name", "Value": "demo"}])
        with self.refused("InvalidVpcID.NotFound", "vpc-00000001"):
            self.ec2.describe_vpcs(VpcIds=["vpc-00000001"])

    def test_security_groups(self):
        answer = self.ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [VPC]}])
        names = {group["GroupName"] for group in answer["SecurityGroups"]}
        self.assertEqual(names, {"default", "nodes"})
        (nodes,) = self.ec2.describe_security_groups(GroupIds=[GROUP])["SecurityGroups"]
        self.assertEqual((nodes["VpcId"], nodes["Description"]), (VPC, "the nodes"))
        with self.refused("InvalidGroup.NotFound"):
            self.ec2.describe_security_groups(GroupIds=["sg-0fffffffffffffff1"])

    def test_availability_zones(self):
        zones = self.ec2.describe_availability_zones()["AvailabilityZones"]
        names = [(zone["ZoneName"], zone["ZoneId"]) for zone in zones]
        self.assertEqual(
            names,
            [("us-east-1a", "use1-az1"), ("us-east-1b", "use1-az2"), ("us-east-1c", "use1-az3")],
        )
        (one,) = self.ec2.describe_availability_zones(ZoneIds=["use1-az2"])["AvailabilityZones"]
        self.assertEqual((one["ZoneName"], one["State"]), ("us-east-1b", "available"))

    def test_network_interfaces_of_an_instance(self):
        answer = self.ec2.describe_network_interfaces(
            Filters=[{"Name": "attachment.instance-id", "Values": [NODE_A]}]
        )
        (eni,) = answer["NetworkInterfaces"]
        self.assertEqual(eni["Status"], "in-use")
        self.assertEqual(eni["Attachment"]["InstanceId"], NODE_A)
        self.assertEqual(eni["Attachment"]["InstanceOwnerId"], "111122223333")
        self.assertEqual(eni["PrivateIpAddress"], "10.0.2.157")
        self.assertEqual(eni["InterfaceType"], "interface")
        self.assertTrue(eni["SourceDestCheck"])
        self.assertEqual(
            eni["PrivateIpAddresses"],
            [
                {
                    "Primary": True,
                    "PrivateDnsName": "ip-10-0-2-157.ec2.internal",
                    "PrivateIpAddress": "10.0.2.157",
                }
            ],
        )

    def test_network_interfaces_by_pages(self):
        made = {
            self.ec2.create_network_interface(SubnetId=SUBNET_A)["NetworkInterface"]["NetworkInterfaceId"]
            for _ in range(12)
        }
        paginator = self.ec2.get_paginator("describe_network_interfaces")
        pages = list(
            paginator.paginate(
                Filters=[{"Name": "status", "Values": ["available"]}],
                PaginationConfig={"PageSize": 5},
            )
        )
        found = [eni["NetworkInterfaceId"] for page in pages for eni in page["NetworkInterfaces"]]
        self.assertEqual([len(page["NetworkInterfaces"]) for page in pages], [5, 5, 2])
        self.assertEqual((len(found), set(found)), (12, made))

    def test_pages_have_their_rules(self):
        with self.refused("InvalidParameterValue"):
            self.sim.client(parameter_validation=False).describe_subnets(MaxResults=4)
        with self.refused("InvalidParameterCombination"):
            self.ec2.describe_subnets(SubnetIds=[SUBNET_A], MaxResults=5)
        with self.refused("InvalidNextToken"):
            self.ec2.describe_subnets(NextToken="junk", MaxResults=5)

    def test_ids_that_are_not_there(self):
        with self.refused("InvalidInstanceID.NotFound", "The instance ID 'i-0fffffffffffffff1' does not exist"):
            self.ec2.describe_instances(InstanceIds=["i-0fffffffffffffff1"])
        with self.refused("InvalidInstanceID.Malformed", 'Invalid id: "foo"'):
            self.ec2.describe_instances(InstanceIds=["foo"])
        with self.refused("InvalidNetworkInterfaceID.NotFound", "'eni-0fffffffffffffff1'"):
            self.ec2.describe_network_interfaces(
                NetworkInterfaceIds=["eni-0fffffffffffffff1", "eni-0fffffffffffffff2"]
            )
        with self.refused("InvalidNetworkInterfaceId.Malformed"):
            self.ec2.describe_network_interfaces(NetworkInterfaceIds=["eni-1"])

    def test_dry_runs_change_nothing(self):
        for call, arguments in (
            ("describe_instances", {}),
            ("describe_instance_types", {}),
            ("describe_subnets", {}),
            ("describe_vpcs", {}),
            ("describe_security_groups", {}),
            ("describe_availability_zones", {}),
            ("describe_network_interfaces", {}),
            ("describe_tags", {}),
            ("get_subnet_cidr_reservations", {"SubnetId": SUBNET_A}),
            ("create_network_interface", {"SubnetId": SUBNET_A}),
            ("create_vpc", {"CidrBlock": "10.9.0.0/16"}),
            ("create_subnet", {"VpcId": VPC, "CidrBlock": "10.0.9.0/24"}),
            ("create_tags", {"Resources": [VPC], "Tags": [{"Key": "k", "Value": "v"}]}),
            ("delete_tags", {"Resources": [VPC], "Tags": [{"Key": "Name"}]}),
            ("terminate_instances", {"InstanceIds": [NODE_A]}),
        ):
            with self.subTest(call), self.refused("DryRunOperation") as caught:
                getattr(self.ec2, call)(DryRun=True, **arguments)
            status = caught.exception.response["ResponseMetadata"]["HTTPStatusCode"]
            self.assertEqual(status, 412, call)
        self.assertEqual(len(self.ec2.describe_network_interfaces()["NetworkInterfaces"]), 3)
        self.assertEqual(len(self.ec2.describe_vpcs()["Vpcs"]), 1)
        self.assertEqual(len(self.ec2.describe_subnets()["Subnets"]), 2)


if __name__ == "__main__":
    unittest.main()

"""VPCs, subnets, reservations, tags and instances, from boto3."""

import ipaddress
import unittest

from harness import WireTest
from topologies import NODE_A, SUBNET_A, SUBNET_B, TWO_NODES, VPC


def tags_for(kind, **tags):
    pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
    return [{"ResourceType": kind, "Tags": pairs}]


class Vpcs(WireTest):
    topology = TWO_NODES

    def test_a_vpc_from_nothing(self):
        vpc = self.ec2.create_vpc(
            CidrBlock="172.16.0.0/16",
            AmazonProvidedIpv6CidrBlock=True,
            TagSpecifications=tags_for("vpc", Name="new"),
        )["Vpc"]
        self.assertEqual(vpc["CidrBlock"], "172.16.0.0/16")
        self.assertEqual(vpc["Tags"], [{"Key": "Name", "Value": "new"}])
        associated = self.ec2.associate_vpc_cidr_block(VpcId=vpc["VpcId"], CidrBlock="172.17.0.0/16")
        self.assertEqual(associated["VpcId"], vpc["VpcId"])
        self.assertEqual(associated["CidrBlockAssociation"]["CidrBlock"], "172.17.0.0/16")
        self.assertRegex(associated["CidrBlockAssociation"]["AssociationId"], "^vpc-cidr-assoc-")
        seen = self.ec2.describe_vpcs(VpcIds=[vpc["VpcId"]])["Vpcs"][0]
        ipv6 = ipaddress.ip_network(seen["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"])
        self.assertEqual(ipv6.prefixlen, 56)
        subnet = self.ec2.create_subnet(
            VpcId=vpc["VpcId"],
            CidrBlock="172.17.0.18/18",
            Ipv6CidrBlock=str(next(ipv6.subnets(new_prefix=64))),
            AvailabilityZoneId="use1-az3",
            TagSpecifications=tags_for("subnet", role="pods"),
        )["Subnet"]
        self.assertEqual(subnet["CidrBlock"], "172.17.0.0/18", "host bits are cleared")
        self.assertEqual(subnet["AvailabilityZone"], "us-east-1c")
        self.assertEqual(subnet["AvailableIpAddressCount"], 16379)
        self.assertEqual(subnet["Tags"], [{"Key": "role", "Value": "pods"}])
        groups = self.ec2.describe_security_groups(
            Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}]
        )["SecurityGroups"]
        self.assertEqual([group["GroupName"] for group in groups], ["default"])

    def test_more_ipv6_for_a_vpc(self):
        answer = self.ec2.associate_vpc_cidr_block(VpcId=VPC, AmazonProvidedIpv6CidrBlock=True)
        block = answer["Ipv6CidrBlockAssociation"]["Ipv6CidrBlock"]
        self.assertEqual(ipaddress.ip_network(block).prefixlen, 56)

    def test_an_ipv6_only_subnet(self):
        block = "2600:1f13:abc:de77::/64"
        made = self.ec2.create_subnet(VpcId=VPC, Ipv6Native=True, Ipv6CidrBlock=block)["Subnet"]
        self.assertTrue(made["Ipv6Native"])
        self.assertNotIn("CidrBlock", made)
        self.assertEqual(made["AvailableIpAddressCount"], 0)
        filters = [{"Name": "ipv6-native", "Values": ["true"]}]
        found = self.ec2.describe_subnets(Filters=filters)["Subnets"]
        self.assertEqual([subnet["SubnetId"] for subnet in found], [made["SubnetId"]])
        eni = self.ec2.create_network_interface(SubnetId=made["SubnetId"], Ipv6PrefixCount=1)["NetworkInterface"]
        self.assertNotIn("PrivateIpAddress", eni)
        self.assertEqual(eni["PrivateIpAddresses"], [])
        self.assertEqual(len(eni["Ipv6Prefixes"]), 1)
        with self.refused("InvalidParameterCombination"):
            self.ec2.create_subnet(VpcId=VPC, Ipv6Native=True, Ipv6CidrBlock=block, CidrBlock="10.0.77.0/24")
        with self.refused("MissingParameter"):
            self.ec2.create_subnet(VpcId=VPC, Ipv6CidrBlock=block)

    def test_blocks_that_do_not_fit(self):
        for call, arguments, code in (
            ("create_vpc", {"CidrBlock": "10.0.0.0/8"}, "InvalidVpc.Range"),
            ("create_subnet", {"VpcId": VPC, "CidrBlock": "10.0.2.128/25"}, "InvalidSubnet.Conflict"),
            ("create_subnet", {"VpcId": VPC, "CidrBlock": "10.1.0.0/24"}, "InvalidSubnet.Range"),
            ("create_subnet", {"VpcId": VPC, "CidrBlock": "10.0.9.0/29"}, "InvalidSubnet.Range"),
            (
                "create_subnet",
                {"VpcId": VPC, "CidrBlock": "10.0.9.0/24", "AvailabilityZone": "us-east-1z"},
                "InvalidParameterValue",
            ),
            ("create_subnet", {"VpcId": "vpc-0fffffffffffffff1", "CidrBlock": "10.0.9.0/24"}, "InvalidVpcID.NotFound"),
        ):
            with self.subTest(call + str(arguments)), self.refused(code):
                getattr(self.ec2, call)(**arguments)

    def test_a_block_is_not_usable_at_once(self):
        delay = {"min_ms": 3600000, "max_ms": 3600000}
        self.sim.admin("PATCH", "switches", {"latency": {"custom": {"associate": delay}}})
        answer = self.ec2.associate_vpc_cidr_block(VpcId=VPC, CidrBlock="10.3.0.0/16")
        state = answer["CidrBlockAssociation"]["CidrBlockState"]["State"]
        self.assertEqual(state, "associating")
        with self.refused("InvalidSubnet.Range"):
            self.ec2.create_subnet(VpcId=VPC, CidrBlock="10.3.0.0/24")
        self.sim.admin("POST", "clock", {"advance_ms": 3600000})
        self.ec2.create_subnet(VpcId=VPC, CidrBlock="10.3.0.0/24")


class Reservations(WireTest):
    topology = TWO_NODES

    def test_the_life_of_a_reservation(self):
        made = self.ec2.create_subnet_cidr_reservation(
            SubnetId=SUBNET_A,
            Cidr="10.0.2.64/26",
            ReservationType="prefix",
            Description="pods",
            TagSpecifications=tags_for("subnet-cidr-reservation", Name="pods"),
        )["SubnetCidrReservation"]
        self.assertRegex(made["SubnetCidrReservationId"], "^scr-[0-9a-f]{17}$")
        self.assertEqual((made["Cidr"], made["ReservationType"]), ("10.0.2.64/26", "prefix"))
        ipv6 = self.ec2.create_subnet_cidr_reservation(
            SubnetId=SUBNET_A, Cidr="2600:1f13:abc:de00:8000::/66", ReservationType="explicit"
        )["SubnetCidrReservation"]
        seen = self.ec2.get_subnet_cidr_reservations(SubnetId=SUBNET_A)
        self.assertEqual(seen["SubnetIpv4CidrReservations"], [made])
        self.assertEqual(seen["SubnetIpv6CidrReservations"], [ipv6])
        prefix = self.ec2.create_network_interface(SubnetId=SUBNET_A, Ipv4PrefixCount=1)
        prefix = prefix["NetworkInterface"]["Ipv4Prefixes"][0]["Ipv4Prefix"]
        reserved = ipaddress.ip_network("10.0.2.64/26")
        self.assertTrue(ipaddress.ip_network(prefix).subnet_of(reserved), prefix)
        gone = self.ec2.delete_subnet_cidr_reservation(
            SubnetCidrReservationId=made["SubnetCidrReservationId"]
        )
        self.assertEqual(gone["DeletedSubnetCidrReservation"], made)
        with self.refused("InvalidSubnetCidrReservationID.NotFound"):
            self.ec2.delete_subnet_cidr_reservation(
                SubnetCidrReservationId=made["SubnetCidrReservationId"]
            )

    def test_a_reservation_of_the_topology(self):
        seen = self.ec2.get_subnet_cidr_reservations(SubnetId=SUBNET_B)
        (reservation,) = seen["SubnetIpv4CidrReservations"]
        self.assertEqual(reservation["Cidr"], "10.0.3.128/26")
        self.assertEqual(reservation["Description"], "pods")
        with self.refused("InvalidParameterValue", "overlap"):
            self.ec2.create_subnet_cidr_reservation(
                SubnetId=SUBNET_B, Cidr="10.0.3.160/28", ReservationType="explicit"
            )

    def test_pages(self):
        for block in range(1, 8):
            self.ec2.create_subnet_cidr_reservation(
                SubnetId=SUBNET_A, Cidr=f"10.0.2.{block * 16}/28", ReservationType="explicit"
            )
        n_seen, token = 0, {}
        while token is not None:
            page = self.ec2.get_subnet_cidr_reservations(SubnetId=SUBNET_A, MaxResults=5, **token)
            n_seen += len(page["SubnetIpv4CidrReservations"])
            token = {"NextToken": page["NextToken"]} if page.get("NextToken") else None
        self.assertEqual(n_seen, 7)


class Tags(WireTest):
    topology = TWO_NODES

    def tags(self, *filters):
        pages = self.ec2.get_paginator("describe_tags").paginate(
            Filters=[{"Name": name, "Values": values} for name, values in filters]
        )
        return [tag for page in pages for tag in page["Tags"]]

    def test_the_life_of_a_tag(self):
        self.ec2.create_tags(Resources=[SUBNET_B, NODE_A], Tags=[{"Key": "team", "Value": "net"}])
        self.assertEqual(
            sorted((tag["ResourceId"], tag["ResourceType"], tag["Value"]) for tag in self.tags(("key", ["team"]))),
            [(NODE_A, "instance", "net"), (SUBNET_B, "subnet", "net")],
        )
        self.ec2.create_tags(Resources=[SUBNET_B], Tags=[{"Key": "team", "Value": "other"}])
        found = self.ec2.describe_subnets(Filters=[{"Name": "tag:team", "Values": ["other"]}])
        self.assertEqual([subnet["SubnetId"] for subnet in found["Subnets"]], [SUBNET_B])
        self.ec2.delete_tags(Resources=[SUBNET_B], Tags=[{"Key": "team", "Value": "net"}])
        self.assertEqual(len(self.tags(("resource-id", [SUBNET_B]))), 1, "another value stays")
        self.ec2.delete_tags(Resources=[SUBNET_B], Tags=[{"Key": "team"}])
        self.assertEqual(self.tags(("resource-id", [SUBNET_B])), [])

    def test_refusals(self):
        for resource, key, code in (
            ("eni-0fffffffffffffff1", "k", "InvalidNetworkInterfaceID.NotFound"),
            ("rubbish", "k", "InvalidID"),
            (SUBNET_A, "aws:k", "InvalidParameterValue"),
        ):
            with self.subTest(resource + key), self.refused(code):
                self.ec2.create_tags(Resources=[resource], Tags=[{"Key": key, "Value": "v"}])
        many = [{"Key": f"k{n}", "Value": ""} for n in range(51)]
        with self.refused("TagLimitExceeded"):
            self.ec2.create_tags(Resources=[SUBNET_A], Tags=many)


class Instances(WireTest):
    topology = TWO_NODES

    def test_run_and_terminate(self):
        reservation = self.ec2.run_instances(
            ImageId="ami-0123456789abcdef0",
            InstanceType="m5.large",
            MinCount=2,
            MaxCount=2,
            SubnetId=SUBNET_A,
            TagSpecifications=tags_for("instance", Name="new") + tags_for("network-interface", Name="eni"),
        )
        ids = [instance["InstanceId"] for instance in reservation["Instances"]]
        self.assertEqual(len(set(ids)), 2)
        self.ec2.get_waiter("instance_running").wait(
            InstanceIds=ids, WaiterConfig={"Delay": 0, "MaxAttempts": 3}
        )
        described = self.ec2.describe_instances(InstanceIds=ids)["Reservations"]
        self.assertEqual(len(described), 1)
        first = described[0]["Instances"][0]
        self.assertEqual(first["Tags"], [{"Key": "Name", "Value": "new"}])
        kept = self.ec2.create_network_interface(SubnetId=SUBNET_A)["NetworkInterface"]
        self.ec2.attach_network_interface(
            NetworkInterfaceId=kept["NetworkInterfaceId"], InstanceId=ids[0], DeviceIndex=1
        )
        answer = self.ec2.terminate_instances(InstanceIds=ids)
        self.assertEqual({change["InstanceId"] for change in answer["TerminatingInstances"]}, set(ids))
        self.assertEqual(answer["TerminatingInstances"][0]["PreviousState"], {"Code": 16, "Name": "running"})
        self.ec2.get_waiter("instance_terminated").wait(
            InstanceIds=ids, WaiterConfig={"Delay": 0, "MaxAttempts": 3}
        )
        primary = first["NetworkInterfaces"][0]["NetworkInterfaceId"]
        with self.refused("InvalidNetworkInterfaceID.NotFound"):
            self.ec2.describe_network_interfaces(NetworkInterfaceIds=[primary])
        seen = self.ec2.describe_network_interfaces(
            NetworkInterfaceIds=[kept["NetworkInterfaceId"]]
        )["NetworkInterfaces"][0]
        self.assertEqual(seen["Status"], "available", "made separately, so it outlives the instance")

    def test_interfaces_in_the_same_call(self):
        there = self.ec2.create_network_interface(SubnetId=SUBNET_A)["NetworkInterface"]
        reservation = self.ec2.run_instances(
            ImageId="ami-0123456789abcdef0",
            InstanceType="m5.large",
            MinCount=1,
            MaxCount=1,
            NetworkInterfaces=[
                {"DeviceIndex": 0, "SubnetId": SUBNET_A, "SecondaryPrivateIpAddressCount": 1},
                {"DeviceIndex": 1, "NetworkInterfaceId": there["NetworkInterfaceId"]},
                {"DeviceIndex": 2, "SubnetId": SUBNET_A, "Ipv4PrefixCount": 1},
            ],
        )
        enis = reservation["Instances"][0]["NetworkInterfaces"]
        self.assertEqual([eni["Attachment"]["DeviceIndex"] for eni in enis], [0, 1, 2])
        self.assertEqual(enis[1]["NetworkInterfaceId"], there["NetworkInterfaceId"])
        self.assertEqual(len(enis[0]["PrivateIpAddresses"]), 2)
        self.assertEqual(len(enis[2]["Ipv4Prefixes"]), 1)

    def test_what_is_not_simulated_is_not_ignored(self):
        with self.refused("UnknownParameter", "KeyName"):
            self.ec2.run_instances(
                ImageId="ami-1", InstanceType="m5.large", MinCount=1, MaxCount=1, KeyName="mine"
            )
        with self.refused("InvalidAction", "DescribeVolumes"):
            self.ec2.describe_volumes()


if __name__ == "__main__":
    unittest.main()

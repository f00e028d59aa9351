"""The life of an ENI, from boto3: create, attach, modify, detach, delete, and what is refused."""

import unittest

from harness import WireTest
from topologies import GROUP, NODE_A, NODE_B, SUBNET_A, SUBNET_B, TWO_NODES, VPC, XEN_NODE


class Interfaces(WireTest):
    topology = TWO_NODES

    def create(self, **arguments):
        arguments.setdefault("SubnetId", SUBNET_A)
        return self.ec2.create_network_interface(**arguments)["NetworkInterface"]

    def look(self, eni):
        answer = self.ec2.describe_network_interfaces(NetworkInterfaceIds=[eni["NetworkInterfaceId"]])
        return answer["NetworkInterfaces"][0]

    def attach(self, eni, instance=NODE_A, index=1, **arguments):
        return self.ec2.attach_network_interface(
            NetworkInterfaceId=eni["NetworkInterfaceId"],
            InstanceId=instance,
            DeviceIndex=index,
            **arguments,
        )

    def test_the_life_of_an_interface(self):
        answer = self.ec2.create_network_interface(
            SubnetId=SUBNET_A,
            Description="aws-K8S-" + NODE_A,
            Groups=[GROUP],
            SecondaryPrivateIpAddressCount=2,
            ClientToken="token-1",
            TagSpecifications=[
                {
                    "ResourceType": "network-interface",
                    "Tags": [{"Key": "node.k8s.amazonaws.com/instance_id", "Value": NODE_A}],
                }
            ],
        )
        self.assertEqual(answer["ClientToken"], "token-1")
        eni = answer["NetworkInterface"]
        self.assertEqual(eni["Status"], "pending")
        self.assertEqual((eni["SubnetId"], eni["VpcId"]), (SUBNET_A, VPC))
        self.assertEqual(len(eni["PrivateIpAddresses"]), 3)
        self.assertEqual([a["Primary"] for a in eni["PrivateIpAddresses"]], [True, False, False])
        self.assertRegex(eni["MacAddress"], r"^.[26ae](:[0-9a-f]{2}){5}$")
        self.assertEqual(eni["Groups"], [{"GroupId": GROUP, "GroupName": "nodes"}])
        self.assertEqual(eni["TagSet"], [{"Key": "node.k8s.amazonaws.com/instance_id", "Value": NODE_A}])
        self.assertEqual(self.look(eni)["Status"], "available")

        attached = self.attach(eni)
        self.assertRegex(attached["AttachmentId"], r"^eni-attach-[0-9a-f]{17}$")
        self.assertEqual(attached["NetworkCardIndex"], 0)
        seen = self.look(eni)
        self.assertEqual((seen["Status"], seen["Attachment"]["Status"]), ("in-use", "attached"))
        self.assertFalse(seen["Attachment"]["DeleteOnTermination"])
        instance = self.ec2.describe_instances(InstanceIds=[NODE_A])["Reservations"][0]["Instances"][0]
        indexes = [e["Attachment"]["DeviceIndex"] for e in instance["NetworkInterfaces"]]
        self.assertEqual(indexes, [0, 1])

        with self.refused("InvalidParameterValue", "is currently in use"):
            self.ec2.delete_network_interface(NetworkInterfaceId=eni["NetworkInterfaceId"])
        self.ec2.detach_network_interface(AttachmentId=attached["AttachmentId"])
        self.assertNotIn("Attachment", self.look(eni))
        self.ec2.delete_network_interface(NetworkInterfaceId=eni["NetworkInterfaceId"])
        with self.refused("InvalidNetworkInterfaceID.NotFound", eni["NetworkInterfaceId"]):
            self.look(eni)

    def test_every_key_of_the_documented_samples(self):
        """What the sample answers of the API reference have, each of ours has."""
        created = self.ec2.create_network_interface(
            SubnetId=SUBNET_A, Ipv4PrefixCount=1, Ipv6AddressCount=1,
            TagSpecifications=[{"ResourceType": "network-interface", "Tags": [{"Key": "k", "Value": "v"}]}],
        )
        eni = created["NetworkInterface"]
        of_an_interface = set(
            "AvailabilityZone AvailabilityZoneId Description Groups InterfaceType Ipv4Prefixes"
            " Ipv6Addresses Ipv6Prefixes MacAddress NetworkInterfaceId OwnerId PrivateDnsName"
            " PrivateIpAddress PrivateIpAddresses RequesterId RequesterManaged SourceDestCheck"
            " Status SubnetId TagSet VpcId DenyAllIgwTraffic".split()
        )
        self.assertEqual(of_an_interface - eni.keys(), set())
        self.assertIn("ClientToken", created)
        self.assertEqual(eni["Ipv6Addresses"][0].keys(), {"Ipv6Address", "IsPrimaryIpv6"})
        self.assertEqual(
            eni["PrivateIpAddresses"][0].keys(), {"Primary", "PrivateDnsName", "PrivateIpAddress"}
        )
        self.attach(eni)
        seen = self.look(eni)
        self.assertEqual(of_an_interface - seen.keys(), set())
        of_an_attachment = set(
            "AttachTime AttachmentId DeleteOnTermination DeviceIndex InstanceId InstanceOwnerId"
            " NetworkCardIndex Status".split()
        )
        self.assertEqual(seen["Attachment"].keys(), of_an_attachment)
        subnet = self.ec2.describe_subnets(SubnetIds=[SUBNET_A])["Subnets"][0]
        of_a_subnet = set(
            "AssignIpv6AddressOnCreation AvailabilityZone AvailabilityZoneId CidrBlock"
            " AvailableIpAddressCount DefaultForAz Ipv6CidrBlockAssociationSet Ipv6Native"
            " MapPublicIpOnLaunch OwnerId State SubnetArn SubnetId Tags VpcId".split()
        )
        self.assertEqual(of_a_subnet - subnet.keys(), set())

    def test_everything_that_create_can_be_told(self):
        eni = self.create(
            PrivateIpAddress="10.0.2.60", Ipv4Prefixes=[{"Ipv4Prefix": "10.0.2.80/28"}]
        )
        self.assertEqual(eni["Ipv4Prefixes"], [{"Ipv4Prefix": "10.0.2.80/28"}])
        eni = self.create(
            PrivateIpAddresses=[
                {"PrivateIpAddress": "10.0.2.70", "Primary": True},
                {"PrivateIpAddress": "10.0.2.71"},
            ],
            Ipv6Addresses=[{"Ipv6Address": "2600:1f13:abc:de00::77"}],
        )
        self.assertEqual(eni["PrivateIpAddress"], "10.0.2.70")
        self.assertEqual(eni["Ipv6Addresses"][0]["Ipv6Address"], "2600:1f13:abc:de00::77")
        eni = self.create(Ipv4PrefixCount=2, Ipv6PrefixCount=1)
        self.assertEqual(len(eni["Ipv4Prefixes"]), 2)
        self.assertTrue(eni["Ipv6Prefixes"][0]["Ipv6Prefix"].endswith("/80"))
        eni = self.create(PrivateIpAddress="10.0.2.100", Ipv6AddressCount=1)
        self.assertEqual((eni["PrivateIpAddress"], len(eni["Ipv6Addresses"])), ("10.0.2.100", 1))
        eni = self.create(Ipv6Prefixes=[{"Ipv6Prefix": "2600:1f13:abc:de00:4c1e::/80"}])
        self.assertEqual(eni["Ipv6Prefixes"], [{"Ipv6Prefix": "2600:1f13:abc:de00:4c1e::/80"}])
        self.assertEqual(self.create(InterfaceType="efa")["InterfaceType"], "efa")

    def test_create_is_refused(self):
        for arguments, code in (
            ({"SubnetId": "subnet-0fffffffffffffff1"}, "InvalidSubnetID.NotFound"),
            ({"Groups": ["sg-0fffffffffffffff1"]}, "InvalidGroup.NotFound"),
            ({"PrivateIpAddress": "10.0.2.157"}, "InvalidIPAddress.InUse"),
            ({"PrivateIpAddress": "10.0.9.9"}, "InvalidParameterValue"),
            ({"PrivateIpAddress": "10.0.2.1"}, "InvalidParameterValue"),
            ({"PrivateIpAddress": "10.0.2"}, "InvalidParameterValue"),
            ({"Ipv4PrefixCount": 1, "SecondaryPrivateIpAddressCount": 1}, "InvalidParameterCombination"),
            ({"Ipv4PrefixCount": 15}, "InsufficientCidrBlocks"),
        ):
            with self.subTest(arguments), self.refused(code):
                self.create(**arguments)

    def test_client_tokens(self):
        one = self.create(ClientToken="t", Description="d")
        again = self.create(ClientToken="t", Description="d")
        self.assertEqual(one["NetworkInterfaceId"], again["NetworkInterfaceId"])
        with self.refused("IdempotentParameterMismatch"):
            self.create(ClientToken="t", Description="other")

    def test_attach_is_refused(self):
        eni = self.create()
        with self.refused("InvalidParameterValue", "already has an interface attached at device index '0'"):
            self.attach(eni, index=0)
        with self.refused("InvalidInstanceID.NotFound"):
            self.attach(eni, instance="i-0fffffffffffffff1")
        with self.refused("InvalidNetworkInterfaceID.NotFound"):
            self.attach({"NetworkInterfaceId": "eni-0fffffffffffffff1"})
        self.attach(eni)
        with self.refused("InvalidNetworkInterface.InUse", "in use"):
            self.attach(eni, index=2)
        self.attach(self.create(), index=2)
        with self.refused("AttachmentLimitExceeded", "m5.large"):
            self.attach(self.create(), index=3)
        crowded = self.create(SecondaryPrivateIpAddressCount=4)
        with self.refused("InvalidInterface.IpAddressLimitExceeded", "t2.micro"):
            self.attach(crowded, instance=XEN_NODE)

    def test_detach_is_refused(self):
        with self.refused("InvalidAttachmentID.NotFound"):
            self.ec2.detach_network_interface(AttachmentId="eni-attach-0fffffffffffffff1")
        instance = self.ec2.describe_instances(InstanceIds=[NODE_A])["Reservations"][0]["Instances"][0]
        primary = instance["NetworkInterfaces"][0]["Attachment"]["AttachmentId"]
        with self.refused("OperationNotPermitted", "device index 0"):
            self.ec2.detach_network_interface(AttachmentId=primary, Force=True)

    def test_every_attribute_can_be_modified(self):
        eni = self.create()
        attachment = self.attach(eni)["AttachmentId"]
        modify = self.ec2.modify_network_interface_attribute
        name = {"NetworkInterfaceId": eni["NetworkInterfaceId"]}
        modify(**name, Attachment={"AttachmentId": attachment, "DeleteOnTermination": True})
        modify(**name, Description={"Value": "mine & yours"})
        modify(**name, SourceDestCheck={"Value": False})
        modify(**name, Groups=[GROUP])
        seen = self.look(eni)
        self.assertTrue(seen["Attachment"]["DeleteOnTermination"])
        self.assertEqual(seen["Description"], "mine & yours")
        self.assertFalse(seen["SourceDestCheck"])
        self.assertEqual([group["GroupId"] for group in seen["Groups"]], [GROUP])
        with self.refused("InvalidGroup.NotFound"):
            modify(**name, Groups=[GROUP, "sg-0dddddddddddddddd"])
        self.assertEqual([group["GroupId"] for group in self.look(eni)["Groups"]], [GROUP])
        with self.refused("InvalidAttachmentID.NotFound"):
            modify(
                **name,
                Attachment={"AttachmentId": "eni-attach-0fffffffffffffff1", "DeleteOnTermination": True},
            )
        with self.refused("UnknownParameter", "AssociatedSubnetId.1"):
            modify(**name, AssociatedSubnetIds=[SUBNET_A])

    def test_connection_tracking(self):
        """An ENI shows the timeouts that were asked for, and none that were not."""
        self.assertNotIn("ConnectionTrackingConfiguration", self.create())
        timeouts = {"TcpEstablishedTimeout": 350, "UdpStreamTimeout": 120}
        eni = self.create(ConnectionTrackingSpecification=timeouts)
        self.assertEqual(eni["ConnectionTrackingConfiguration"], timeouts)
        name = {"NetworkInterfaceId": eni["NetworkInterfaceId"]}
        modify = self.ec2.modify_network_interface_attribute
        modify(**name, ConnectionTrackingSpecification={"UdpTimeout": 45})
        timeouts["UdpTimeout"] = 45
        self.assertEqual(self.look(eni)["ConnectionTrackingConfiguration"], timeouts)
        with self.refused("InvalidParameterValue", "udpTimeout"):
            modify(**name, ConnectionTrackingSpecification={"UdpTimeout": 61})

    def test_the_primary_ipv6_address(self):
        eni = self.create(Ipv6AddressCount=2, EnablePrimaryIpv6=True)
        self.assertEqual([a["IsPrimaryIpv6"] for a in eni["Ipv6Addresses"]], [True, False])
        with self.refused("InvalidParameterValue", "primary"):
            self.ec2.unassign_ipv6_addresses(
                NetworkInterfaceId=eni["NetworkInterfaceId"],
                Ipv6Addresses=[eni["Ipv6Addresses"][0]["Ipv6Address"]],
            )
        later = self.create(Ipv6AddressCount=1)
        self.ec2.modify_network_interface_attribute(
            NetworkInterfaceId=later["NetworkInterfaceId"], EnablePrimaryIpv6=True
        )
        self.assertTrue(self.look(later)["Ipv6Addresses"][0]["IsPrimaryIpv6"])

    def test_queues_of_an_attachment(self):
        run = self.ec2.run_instances(
            ImageId="ami-1", InstanceType="m6i.xlarge", MinCount=1, MaxCount=1, SubnetId=SUBNET_A
        )
        eni = self.create()
        there = {
            "NetworkInterfaceId": eni["NetworkInterfaceId"],
            "InstanceId": run["Instances"][0]["InstanceId"],
            "DeviceIndex": 1,
        }
        with self.refused("InvalidParameterValue", "power of two up to 4 on m6i.xlarge"):
            self.ec2.attach_network_interface(EnaQueueCount=8, **there)
        self.ec2.attach_network_interface(EnaQueueCount=4, **there)
        self.assertEqual(self.look(eni)["Attachment"]["EnaQueueCount"], 4)
        with self.refused("UnsupportedOperation"):
            self.attach(self.create(), EnaQueueCount=2)

    def test_managed_resources_may_be_asked_for(self):
        answer = self.ec2.describe_network_interfaces(IncludeManagedResources=True)
        self.assertEqual({e["Operator"]["Managed"] for e in answer["NetworkInterfaces"]}, {False})
        answer = self.ec2.describe_instances(IncludeManagedResources=True)
        self.assertEqual(len(answer["Reservations"]), 3)

    def test_what_the_leak_sweep_of_a_cni_asks(self):
        tags = [{"ResourceType": "network-interface", "Tags": [{"Key": "node.k8s.amazonaws.com/instance_id", "Value": NODE_B}]}]
        leaked = self.create(SubnetId=SUBNET_B, TagSpecifications=tags)
        kept = self.create(SubnetId=SUBNET_B, TagSpecifications=tags)
        self.attach(kept, instance=NODE_B)
        found = self.ec2.describe_network_interfaces(
            Filters=[
                {"Name": "tag-key", "Values": ["node.k8s.amazonaws.com/instance_id"]},
                {"Name": "status", "Values": ["available"]},
                {"Name": "vpc-id", "Values": [VPC]},
            ],
            MaxResults=1000,
        )
        self.assertEqual(
            [eni["NetworkInterfaceId"] for eni in found["NetworkInterfaces"]],
            [leaked["NetworkInterfaceId"]],
        )

    def test_states_take_their_time(self):
        delay = {"min_ms": 3600000, "max_ms": 3600000}
        self.sim.admin("PATCH", "switches", {"latency": {"custom": {"attach": delay, "detach": delay}}})
        eni = self.create()
        attachment = self.attach(eni)["AttachmentId"]
        seen = self.look(eni)
        self.assertEqual(seen["Attachment"]["Status"], "attaching")
        self.sim.admin("POST", "clock", {"advance_ms": 3600000})
        seen = self.look(eni)
        self.assertEqual((seen["Status"], seen["Attachment"]["Status"]), ("in-use", "attached"))
        self.ec2.detach_network_interface(AttachmentId=attachment)
        self.assertEqual(self.look(eni)["Attachment"]["Status"], "detaching")
        with self.refused("InvalidParameterValue", "is currently in use"):
            self.ec2.delete_network_interface(NetworkInterfaceId=eni["NetworkInterfaceId"])
        self.sim.admin("POST", "clock", {"advance_ms": 3600000})
        self.ec2.delete_network_interface(NetworkInterfaceId=eni["NetworkInterfaceId"])

    def test_a_new_interface_may_be_unknown_at_first(self):
        always = {"hidden_permille": 1000, "hidden": {"min_ms": 3600000, "max_ms": 3600000}}
        self.sim.admin("PATCH", "switches", {"consistency": {"custom": always}})
        eni = self.create()
        with self.refused("InvalidNetworkInterfaceID.NotFound"):
            self.look(eni)
        self.sim.admin("POST", "clock", {"advance_ms": 3600000})
        self.assertEqual(self.look(eni)["Status"], "available")

    def test_detached_behind_the_back(self):
        eni = self.create()
        self.attach(eni)
        self.sim.admin("POST", "disturb", {"detach_eni": {"eni": eni["NetworkInterfaceId"]}})
        self.assertEqual(self.look(eni)["Status"], "available")


if __name__ == "__main__":
    unittest.main()

"""Addresses and prefixes, both families, from boto3."""

import ipaddress
import unittest

from harness import WireTest
from topologies import NODE_A, SUBNET_A, SUBNET_B, TWO_NODES, XEN_NODE


class Addresses(WireTest):
    topology = TWO_NODES

    def setUp(self):
        super().setUp()
        eni = self.ec2.create_network_interface(SubnetId=SUBNET_A)["NetworkInterface"]
        self.eni = eni["NetworkInterfaceId"]
        self.ec2.attach_network_interface(
            NetworkInterfaceId=self.eni, InstanceId=NODE_A, DeviceIndex=1
        )

    def look(self):
        answer = self.ec2.describe_network_interfaces(NetworkInterfaceIds=[self.eni])
        return answer["NetworkInterfaces"][0]

    def assign(self, **arguments):
        return self.ec2.assign_private_ip_addresses(NetworkInterfaceId=self.eni, **arguments)

    def unassign(self, **arguments):
        return self.ec2.unassign_private_ip_addresses(NetworkInterfaceId=self.eni, **arguments)

    def free(self, subnet):
        return self.ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["AvailableIpAddressCount"]

    def test_secondary_addresses(self):
        before = self.free(SUBNET_A)
        answer = self.assign(SecondaryPrivateIpAddressCount=2)
        self.assertEqual(answer["NetworkInterfaceId"], self.eni)
        new = [entry["PrivateIpAddress"] for entry in answer["AssignedPrivateIpAddresses"]]
        self.assertEqual(len(set(new)), 2, "only what this call assigned")
        self.assertEqual(answer["AssignedIpv4Prefixes"], [])
        self.assertEqual(self.free(SUBNET_A), before - 2)
        held = [entry["PrivateIpAddress"] for entry in self.look()["PrivateIpAddresses"]]
        self.assertEqual(held[1:], new)
        self.unassign(PrivateIpAddresses=new)
        self.assertEqual(self.free(SUBNET_A), before)
        answer = self.assign(PrivateIpAddresses=["10.0.2.77"])
        self.assertEqual(answer["AssignedPrivateIpAddresses"], [{"PrivateIpAddress": "10.0.2.77"}])

    def test_prefixes(self):
        before = self.free(SUBNET_A)
        answer = self.assign(Ipv4PrefixCount=1)
        (prefix,) = [entry["Ipv4Prefix"] for entry in answer["AssignedIpv4Prefixes"]]
        self.assertEqual(ipaddress.ip_network(prefix).prefixlen, 28)
        self.assertEqual(self.free(SUBNET_A), before - 16)
        self.assertEqual(self.look()["Ipv4Prefixes"], [{"Ipv4Prefix": prefix}])
        self.unassign(Ipv4Prefixes=[prefix])
        self.assertEqual(self.look()["Ipv4Prefixes"], [])
        answer = self.assign(Ipv4Prefixes=["10.0.2.96/28"])
        self.assertEqual(answer["AssignedIpv4Prefixes"], [{"Ipv4Prefix": "10.0.2.96/28"}])

    def test_refusals(self):
        for arguments, code in (
            ({}, "InvalidParameterCombination"),
            ({"SecondaryPrivateIpAddressCount": 1, "Ipv4PrefixCount": 1}, "InvalidParameterCombination"),
            ({"SecondaryPrivateIpAddressCount": 0}, "InvalidParameterValue"),
            ({"SecondaryPrivateIpAddressCount": 10}, "PrivateIpAddressLimitExceeded"),
            ({"Ipv4PrefixCount": 10}, "PrivateIpAddressLimitExceeded"),
            ({"PrivateIpAddresses": ["10.0.2.157"]}, "InvalidParameterValue"),
            ({"PrivateIpAddresses": ["10.0.2.2"]}, "InvalidParameterValue"),
            ({"PrivateIpAddresses": ["x"]}, "InvalidParameterValue"),
            ({"Ipv4Prefixes": ["10.0.2.97/28"]}, "InvalidParameterValue"),
            ({"Ipv4Prefixes": ["10.0.2.96/27"]}, "InvalidParameterValue"),
        ):
            with self.subTest(arguments), self.refused(code):
                self.assign(**arguments)
        with self.refused("InvalidParameterValue", "not assigned to interface " + self.eni):
            self.unassign(PrivateIpAddresses=["10.0.2.77"])
        primary = self.look()["PrivateIpAddress"]
        with self.refused("InvalidParameterValue", "primary IP address of an interface cannot be unassigned"):
            self.unassign(PrivateIpAddresses=[primary])

    def test_an_address_moves_only_if_it_may(self):
        self.assign(PrivateIpAddresses=["10.0.2.77"])
        other = self.ec2.create_network_interface(SubnetId=SUBNET_A)["NetworkInterface"]
        name = {"NetworkInterfaceId": other["NetworkInterfaceId"]}
        with self.refused("InvalidParameterValue", "[10.0.2.77] assigned, but move is not allowed."):
            self.ec2.assign_private_ip_addresses(**name, PrivateIpAddresses=["10.0.2.77"])
        self.ec2.assign_private_ip_addresses(
            **name, PrivateIpAddresses=["10.0.2.77"], AllowReassignment=True
        )
        self.assertEqual(len(self.look()["PrivateIpAddresses"]), 1)

    def test_a_xen_instance_takes_no_prefixes(self):
        found = self.ec2.describe_network_interfaces(
            Filters=[{"Name": "attachment.instance-id", "Values": [XEN_NODE]}]
        )
        eni = found["NetworkInterfaces"][0]["NetworkInterfaceId"]
        with self.refused("UnsupportedOperation"):
            self.ec2.assign_private_ip_addresses(NetworkInterfaceId=eni, Ipv4PrefixCount=1)

    def test_ipv6(self):
        name = {"NetworkInterfaceId": self.eni}
        answer = self.ec2.assign_ipv6_addresses(**name, Ipv6AddressCount=2)
        addresses = answer["AssignedIpv6Addresses"]
        self.assertEqual(len(addresses), 2)
        answer = self.ec2.assign_ipv6_addresses(**name, Ipv6PrefixCount=1)
        (prefix,) = answer["AssignedIpv6Prefixes"]
        self.assertEqual(ipaddress.ip_network(prefix).prefixlen, 80)
        answer = self.ec2.assign_ipv6_addresses(**name, Ipv6Addresses=["2600:1f13:abc:de00::b1"])
        self.assertEqual(answer["AssignedIpv6Addresses"], ["2600:1f13:abc:de00::b1"])
        answer = self.ec2.assign_ipv6_addresses(**name, Ipv6Prefixes=["2600:1f13:abc:de00:5::/80"])
        self.assertEqual(answer["AssignedIpv6Prefixes"], ["2600:1f13:abc:de00:5::/80"])
        answer = self.ec2.unassign_ipv6_addresses(
            **name, Ipv6Addresses=addresses, Ipv6Prefixes=[prefix]
        )
        self.assertEqual(sorted(answer["UnassignedIpv6Addresses"]), sorted(addresses))
        self.assertEqual(answer["UnassignedIpv6Prefixes"], [prefix])
        seen = self.look()
        self.assertEqual([a["Ipv6Address"] for a in seen["Ipv6Addresses"]], ["2600:1f13:abc:de00::b1"])
        self.assertEqual([p["Ipv6Prefix"] for p in seen["Ipv6Prefixes"]], ["2600:1f13:abc:de00:5::/80"])

    def test_a_partial_assign(self):
        """A fault rule makes EC2 give fewer addresses than asked, and say so."""
        rule = {"when": {"next": 1}, "effect": {"partial_assign": {"at_most": 2}}}
        rule["action"] = "AssignPrivateIpAddresses"
        self.sim.admin("POST", "faults", rule)
        answer = self.ec2.assign_private_ip_addresses(
            NetworkInterfaceId=self.eni, SecondaryPrivateIpAddressCount=5
        )
        self.assertEqual(len(answer["AssignedPrivateIpAddresses"]), 2)

    def test_taken_behind_the_back(self):
        self.assign(PrivateIpAddresses=["10.0.2.77"])
        self.sim.admin("POST", "disturb", {"unassign": {"eni": self.eni, "addresses": ["10.0.2.77"]}})
        self.assertEqual(len(self.look()["PrivateIpAddresses"]), 1)


class Fragmented(WireTest):
    """A subnet with many free addresses and no free block."""

    topology = f"""
region: us-east-1
account: "111122223333"
switches: {{address_choice: lowest-first}}
vpcs:
  - cidrs: [10.0.0.0/16]
    subnets:
      - name: small
        id: {SUBNET_B}
        az: us-east-1a
        cidr: 10.0.3.0/26
        used: [10.0.3.20, 10.0.3.40]
"""

    def create(self, **arguments):
        return self.ec2.create_network_interface(SubnetId=SUBNET_B, **arguments)["NetworkInterface"]

    def test_blocks_run_out_before_addresses(self):
        with self.refused("InsufficientCidrBlocks", "does not have enough free cidr blocks"):
            self.create(Ipv4PrefixCount=1)
        with self.refused("InsufficientFreeAddressesInSubnet", "does not have enough free addresses"):
            self.create(SecondaryPrivateIpAddressCount=57)
        self.assertEqual(self.create()["PrivateIpAddress"], "10.0.3.4", "the lowest that is free")


if __name__ == "__main__":
    unittest.main()

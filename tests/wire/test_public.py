"""Public addresses and route tables, from boto3."""

import unittest

from harness import WireTest
from topologies import NODE_A, NODE_B, SUBNET_A, SUBNET_B, TWO_NODES, VPC

PUBLIC = "203.0.113.10"

# Subnet a leads to an internet gateway, b to a NAT gateway there and to a second VPC.
ROUTED = (
    TWO_NODES.replace(
        '        tags: {kubernetes.io/role/cni: "1"}\n',
        "        nat_gateway: 203.0.113.200\n"
        '        routes: {0.0.0.0/0: internet-gateway, "::/0": internet-gateway}\n',
    )
    .replace(
        "instances:\n",
        "        routes: {0.0.0.0/0: {nat-gateway: a}, 10.9.0.0/16: peering}\n"
        "  - {cidrs: [10.9.0.0/16], subnets: []}\n"
        "instances:\n",
    )
    .replace("address: 10.0.2.157,", f"address: 10.0.2.157, public_address: {PUBLIC},")
)


class Addresses(WireTest):
    topology = ROUTED

    def primary(self, node):
        return self.ec2.describe_instances(InstanceIds=[node])["Reservations"][0]["Instances"][0]["NetworkInterfaces"][0]

    def test_an_address_of_the_topology(self):
        instance = self.ec2.describe_instances(InstanceIds=[NODE_A])["Reservations"][0]["Instances"][0]
        self.assertEqual(instance["PublicIpAddress"], PUBLIC)
        self.assertEqual(instance["NetworkInterfaces"][0]["Association"]["PublicIp"], PUBLIC)
        filters = [{"Name": "association.public-ip", "Values": [PUBLIC]}]
        (eni,) = self.ec2.describe_network_interfaces(Filters=filters)["NetworkInterfaces"]
        self.assertEqual(eni["PrivateIpAddress"], "10.0.2.157")
        self.assertEqual(eni["Association"]["IpOwnerId"], "111122223333")
        self.assertEqual(eni["PrivateIpAddresses"][0]["Association"], eni["Association"])

    def test_the_life_of_an_association(self):
        eni = self.primary(NODE_B)["NetworkInterfaceId"]
        self.ec2.assign_private_ip_addresses(NetworkInterfaceId=eni, SecondaryPrivateIpAddressCount=1)
        second = self.primary(NODE_B)["PrivateIpAddresses"][1]["PrivateIpAddress"]
        made = self.ec2.allocate_address(Domain="vpc")
        self.assertRegex(made["AllocationId"], "^eipalloc-")
        answer = self.ec2.associate_address(
            AllocationId=made["AllocationId"], NetworkInterfaceId=eni, PrivateIpAddress=second
        )
        seen = self.primary(NODE_B)["PrivateIpAddresses"]
        self.assertNotIn("Association", seen[0])
        self.assertEqual(seen[1]["Association"]["PublicIp"], made["PublicIp"])
        with self.refused("Resource.AlreadyAssociated"):
            self.ec2.associate_address(
                AllocationId=made["AllocationId"], InstanceId=NODE_B, AllowReassociation=False
            )
        self.ec2.associate_address(AllocationId=made["AllocationId"], InstanceId=NODE_B)
        self.assertEqual(self.primary(NODE_B)["Association"]["PublicIp"], made["PublicIp"])
        with self.refused("InvalidAssociationID.NotFound"):
            self.ec2.disassociate_address(AssociationId=answer["AssociationId"])
        described = self.ec2.describe_network_interfaces(NetworkInterfaceIds=[eni])["NetworkInterfaces"][0]
        self.ec2.disassociate_address(AssociationId=described["Association"]["AssociationId"])
        self.assertNotIn("Association", self.primary(NODE_B))

    def test_refusals(self):
        with self.refused("InvalidAllocationID.NotFound"):
            self.ec2.associate_address(AllocationId="eipalloc-0fffffffffffffff1", InstanceId=NODE_A)
        with self.refused("InvalidParameterValue", "domain"):
            self.ec2.allocate_address(Domain="standard")


class RouteTables(WireTest):
    topology = ROUTED

    def tables(self, name, value):
        return self.ec2.describe_route_tables(Filters=[{"Name": name, "Values": [value]}])["RouteTables"]

    def test_the_table_of_each_subnet(self):
        (public,) = self.tables("association.subnet-id", SUBNET_A)
        routes = {route.get("DestinationCidrBlock", route.get("DestinationIpv6CidrBlock")): route for route in public["Routes"]}
        self.assertEqual(routes["10.0.0.0/16"]["GatewayId"], "local")
        self.assertEqual(routes["100.64.0.0/16"]["GatewayId"], "local")
        self.assertRegex(routes["0.0.0.0/0"]["GatewayId"], "^igw-")
        self.assertRegex(routes["::/0"]["GatewayId"], "^igw-")
        (private,) = self.tables("association.subnet-id", SUBNET_B)
        routes = {route.get("DestinationCidrBlock"): route for route in private["Routes"]}
        self.assertRegex(routes["0.0.0.0/0"]["NatGatewayId"], "^nat-")
        self.assertRegex(routes["10.9.0.0/16"]["VpcPeeringConnectionId"], "^pcx-")
        self.assertEqual(private["VpcId"], VPC)
        self.assertFalse(private["Associations"][0]["Main"])

    def test_the_main_table(self):
        tables = self.tables("association.main", "true")
        self.assertEqual(len(tables), 2, "one for each VPC")
        for table in tables:
            self.assertEqual({route["GatewayId"] for route in table["Routes"]}, {"local"})
        one = self.ec2.describe_route_tables(RouteTableIds=[tables[0]["RouteTableId"]])["RouteTables"]
        self.assertEqual(one, tables[:1])
        with self.refused("InvalidRouteTableID.NotFound"):
            self.ec2.describe_route_tables(RouteTableIds=["rtb-0fffffffffffffff1"])


if __name__ == "__main__":
    unittest.main()

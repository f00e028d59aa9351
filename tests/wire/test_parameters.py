"""Every parameter that botocore can send to the simulated operations: understood, or refused.

The wire names come from botocore's serializer. What is refused as UnknownParameter must be on the
list below, and what is on the list must be refused: so the list is what the simulator lacks.
"""

import unittest
import xml.etree.ElementTree as ElementTree

import botocore.serialize

from harness import WireTest
from topologies import NODE_A, SUBNET_A, TWO_NODES, VPC

VALUES = {"boolean": True, "integer": 1, "long": 1, "timestamp": "2026-11-21T00:00:00Z", "blob": b"x"}

# What a call cannot do without, so that the parameter under test is reached.
REQUIRED = {
    "AllocateAddress": {},
    "AssignIpv6Addresses": {"NetworkInterfaceId": "eni-00000001"},
    "AssignPrivateIpAddresses": {"NetworkInterfaceId": "eni-00000001"},
    "AssociateAddress": {"AllocationId": "eipalloc-00000001"},
    "AssociateVpcCidrBlock": {"VpcId": VPC},
    "AttachNetworkInterface": {
        "NetworkInterfaceId": "eni-00000001", "InstanceId": NODE_A, "DeviceIndex": 1,
    },
    "CreateNetworkInterface": {"SubnetId": SUBNET_A},
    "CreateSubnet": {"VpcId": VPC, "CidrBlock": "10.0.9.0/24"},
    "CreateSubnetCidrReservation": {
        "SubnetId": SUBNET_A, "Cidr": "10.0.2.64/28", "ReservationType": "prefix",
    },
    "CreateTags": {"Resources": [VPC], "Tags": [{"Key": "k", "Value": "v"}]},
    "CreateVpc": {"CidrBlock": "10.9.0.0/16"},
    "DeleteNetworkInterface": {"NetworkInterfaceId": "eni-00000001"},
    "DeleteSubnetCidrReservation": {"SubnetCidrReservationId": "scr-00000001"},
    "DeleteTags": {"Resources": [VPC]},
    "DescribeAvailabilityZones": {},
    "DescribeInstanceTypes": {},
    "DescribeInstances": {},
    "DescribeNetworkInterfaces": {},
    "DescribeRouteTables": {},
    "DescribeSecurityGroups": {},
    "DescribeSubnets": {},
    "DescribeTags": {},
    "DescribeVpcs": {},
    "DetachNetworkInterface": {"AttachmentId": "eni-attach-00000001"},
    "DisassociateAddress": {"AssociationId": "eipassoc-00000001"},
    "GetSubnetCidrReservations": {"SubnetId": SUBNET_A},
    "ModifyNetworkInterfaceAttribute": {"NetworkInterfaceId": "eni-00000001"},
    "RunInstances": {"ImageId": "ami-1", "InstanceType": "m5.large", "MinCount": 1, "MaxCount": 1},
    "TerminateInstances": {"InstanceIds": ["i-00000001"]},
    "UnassignIpv6Addresses": {"NetworkInterfaceId": "eni-00000001"},
    "UnassignPrivateIpAddresses": {"NetworkInterfaceId": "eni-00000001"},
}

# The same for an item of a list, by what its parameters begin with.
REQUIRED_IN_ITEM = {
    "Filter.1.": {"Filter.1.Name": "vpc-id"},
    "Ipv6Address.1.": {"Ipv6Address.1.Ipv6Address": "2600::1"},
    "Ipv6Addresses.1.": {"Ipv6Addresses.1.Ipv6Address": "2600::1"},
    "NetworkInterface.1.": {"NetworkInterface.1.DeviceIndex": 0},
    "PrivateIpAddresses.1.": {"PrivateIpAddresses.1.PrivateIpAddress": "10.0.2.9"},
    "Tag.1.": {"Tag.1.Key": "k"},
    "TagSpecification.1.": {"TagSpecification.1.ResourceType": "instance"},
}

# What the simulator has no model of; a name stands for all below it.
LACKING = {
    "AllocateAddress": "Address CustomerOwnedIpv4Pool IpamPoolId NetworkBorderGroup PublicIpv4Pool"
    " TagSpecifications",
    "AssociateAddress": "PublicIp",
    "AssociateVpcCidrBlock": "Ipv4IpamPoolId Ipv4NetmaskLength Ipv6CidrBlock"
    " Ipv6CidrBlockNetworkBorderGroup Ipv6IpamPoolId Ipv6NetmaskLength Ipv6Pool",
    "AttachNetworkInterface": "EnaSrdSpecification",
    "CreateNetworkInterface": "Ipv6Addresses.IsPrimaryIpv6 Operator",
    "CreateSubnet": "Ipv4IpamPoolId Ipv4NetmaskLength Ipv6IpamPoolId Ipv6NetmaskLength OutpostArn",
    "CreateVpc": "InstanceTenancy Ipv4IpamPoolId Ipv4NetmaskLength Ipv6CidrBlock"
    " Ipv6CidrBlockNetworkBorderGroup Ipv6IpamPoolId Ipv6NetmaskLength Ipv6Pool"
    " VpcEncryptionControl",
    "DescribeInstanceTypes": "IncludeUnsupportedInRegion",
    "DisassociateAddress": "PublicIp",
    "ModifyNetworkInterfaceAttribute": "AssociatePublicIpAddress AssociatedSubnetIds"
    " Attachment.DefaultEnaQueueCount Attachment.EnaQueueCount EnaSrdSpecification",
    "RunInstances": "AdditionalInfo BlockDeviceMappings CapacityReservationSpecification"
    " CpuOptions CreditSpecification DisableApiStop DisableApiTermination EbsOptimized"
    " ElasticGpuSpecification ElasticInferenceAccelerators EnclaveOptions"
    " HibernationOptions InstanceInitiatedShutdownBehavior InstanceMarketOptions"
    " Ipv6Addresses.IsPrimaryIpv6 KernelId KeyName LaunchTemplate"
    " LicenseSpecifications MaintenanceOptions Monitoring"
    " NetworkInterfaces.AssociateCarrierIpAddress NetworkInterfaces.AssociatePublicIpAddress"
    " NetworkInterfaces.EnaSrdSpecification NetworkInterfaces.InterfaceType"
    " NetworkInterfaces.Ipv4Prefixes NetworkInterfaces.Ipv6Addresses"
    " NetworkInterfaces.Ipv6Prefixes NetworkInterfaces.PrivateIpAddresses"
    " NetworkPerformanceOptions Operator Placement PrivateDnsNameOptions RamdiskId"
    " SecondaryInterfaces SecurityGroups",
    "TerminateInstances": "Force SkipOsShutdown",
}


def leaves(shape, path=()):
    """The paths of all scalar parameters below `shape`; a list is one with an item."""
    if shape.type_name == "structure":
        for name, member in shape.members.items():
            yield from leaves(member, path + (name,))
    elif shape.type_name == "list":
        yield from leaves(shape.member, path + (0,))
    else:
        yield path, VALUES.get(shape.type_name, "x")


def nested(path, value):
    """Arguments that hold `value` at `path` and nothing else."""
    for step in reversed(path):
        value = [value] if step == 0 else {step: value}
    return value


def wire(serializer, operation, arguments):
    """The form that botocore sends."""
    return serializer.serialize_to_request(arguments, operation)["body"]


class Parameters(WireTest):
    topology = TWO_NODES

    def code(self, form):
        _, _, body = self.sim.post(form)
        return ElementTree.fromstring(body).findtext("Errors/Error/Code")

    def understood(self, name):
        """Every parameter of one operation, and whether the simulator knows it."""
        model = self.ec2.meta.service_model.operation_model(name)
        serializer = botocore.serialize.create_serializer("ec2", include_validation=False)
        required = wire(serializer, model, REQUIRED[name])
        for path, value in leaves(model.input_shape):
            own = wire(serializer, model, nested(path, value))
            beside = {}
            for start, keys in REQUIRED_IN_ITEM.items():
                if any(key.startswith(start) for key in own):
                    beside |= keys
            known = self.code(required | beside | own) != "UnknownParameter"
            yield ".".join(step for step in path if step != 0), known

    def test_every_parameter_is_known_or_listed(self):
        for name in REQUIRED:
            lacking = LACKING.get(name, "").split()
            covered = tuple(entry + "." for entry in lacking)
            with self.subTest(name):
                for parameter, known in self.understood(name):
                    listed = parameter in lacking or parameter.startswith(covered)
                    self.assertNotEqual(known, listed, parameter)


if __name__ == "__main__":
    unittest.main()

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
    "DeleteSubnet": {"SubnetId": "subnet-00000001"},
    "DeleteSubnetCidrReservation": {"SubnetCidrReservationId": "scr-00000001"},
    "DeleteTags": {"Resources": [VPC]},
    "DeleteVpc": {"VpcId": "vpc-00000001"},
    "DescribeAvailabilityZones": {},
    "DescribeInstanceTypes": {},
    "DescribeInstances": {},
    "DescribeNetworkAcls": {},
    "DescribeNetworkInterfaces": {},
    "DescribeRouteTables": {},
    "DescribeSecurityGroups": {},
    "DescribeSubnets": {},
    "DescribeTags": {},
    "DescribeVpcAttribute": {"VpcId": VPC, "Attribute": "enableDnsSupport"},
    "DescribeVpcs": {},
    "DetachNetworkInterface": {"AttachmentId": "eni-attach-00000001"},
    "DisassociateAddress": {"AssociationId": "eipassoc-00000001"},
    "DisassociateVpcCidrBlock": {"AssociationId": "vpc-cidr-assoc-00000001"},
    "GetSubnetCidrReservations": {"SubnetId": SUBNET_A},
    "ModifyNetworkInterfaceAttribute": {"NetworkInterfaceId": "eni-00000001"},
    "ModifySubnetAttribute": {"SubnetId": SUBNET_A},
    "ModifyVpcAttribute": {"VpcId": VPC},
    "RunInstances": {"ImageId": "ami-1", "InstanceType": "m5.large", "MinCount": 1, "MaxCount": 1},
    "TerminateInstances": {"InstanceIds": ["i-00000001"]},
    "UnassignIpv6Addresses": {"NetworkInterfaceId": "eni-00000001"},
    "UnassignPrivateIpAddresses": {"NetworkInterfaceId": "eni-00000001"},
}

# The same for Amazon VPC IPAM. No id exists, so a call ends before it changes anything.
IPAM = "ipam-00000001"
SCOPE = "ipam-scope-00000001"
POOL = "ipam-pool-00000001"
ALLOCATION = "ipam-pool-alloc-00000001"
DISCOVERY = "ipam-res-disco-00000001"
ASSOCIATION = "ipam-res-disco-assoc-00000001"
REQUIRED |= {
    "AllocateIpamPoolCidr": {"IpamPoolId": POOL},
    "AssociateIpamResourceDiscovery": {"IpamId": IPAM, "IpamResourceDiscoveryId": DISCOVERY},
    "CreateIpam": {},
    "CreateIpamPool": {"IpamScopeId": SCOPE, "AddressFamily": "ipv4"},
    "CreateIpamResourceDiscovery": {},
    "CreateIpamScope": {"IpamId": IPAM},
    "DeleteIpam": {"IpamId": IPAM},
    "DeleteIpamPool": {"IpamPoolId": POOL},
    "DeleteIpamResourceDiscovery": {"IpamResourceDiscoveryId": DISCOVERY},
    "DeleteIpamScope": {"IpamScopeId": SCOPE},
    "DeprovisionIpamPoolCidr": {"IpamPoolId": POOL},
    "DescribeIpamPoolAllocations": {},
    "DescribeIpamPools": {},
    "DescribeIpamResourceDiscoveries": {},
    "DescribeIpamResourceDiscoveryAssociations": {},
    "DescribeIpamScopes": {},
    "DescribeIpams": {},
    "DisableIpamOrganizationAdminAccount": {"DelegatedAdminAccountId": "444455556666"},
    "DisassociateIpamResourceDiscovery": {"IpamResourceDiscoveryAssociationId": ASSOCIATION},
    "EnableIpamOrganizationAdminAccount": {"DelegatedAdminAccountId": "444455556666"},
    "GetIpamAddressHistory": {"Cidr": "10.0.0.0/16", "IpamScopeId": SCOPE},
    "GetIpamDiscoveredAccounts": {
        "IpamResourceDiscoveryId": DISCOVERY, "DiscoveryRegion": "us-east-1",
    },
    "GetIpamDiscoveredResourceCidrs": {
        "IpamResourceDiscoveryId": DISCOVERY, "ResourceRegion": "us-east-1",
    },
    "GetIpamPoolAllocations": {"IpamPoolId": POOL},
    "GetIpamPoolCidrs": {"IpamPoolId": POOL},
    "GetIpamResourceCidrs": {"IpamScopeId": SCOPE},
    "ModifyIpam": {"IpamId": IPAM},
    "ModifyIpamPool": {"IpamPoolId": POOL},
    "ModifyIpamPoolAllocation": {"IpamPoolAllocationId": ALLOCATION},
    "ModifyIpamResourceCidr": {
        "ResourceId": VPC, "ResourceCidr": "10.0.0.0/16", "ResourceRegion": "us-east-1",
        "CurrentIpamScopeId": SCOPE, "Monitored": True,
    },
    "ModifyIpamResourceDiscovery": {"IpamResourceDiscoveryId": DISCOVERY},
    "ModifyIpamScope": {"IpamScopeId": SCOPE},
    "ProvisionIpamPoolCidr": {"IpamPoolId": POOL},
    "ReleaseIpamPoolAllocation": {
        "IpamPoolId": POOL, "Cidr": "10.0.0.0/24", "IpamPoolAllocationId": ALLOCATION,
    },
}

# The same for an item of a list, by what its parameters begin with.
REQUIRED_IN_ITEM = {
    "Filter.1.": {"Filter.1.Name": "vpc-id"},
    "Ipv6Address.1.": {"Ipv6Address.1.Ipv6Address": "2600::1"},
    "Ipv6Addresses.1.": {"Ipv6Addresses.1.Ipv6Address": "2600::1"},
    "NetworkInterface.1.": {"NetworkInterface.1.DeviceIndex": 0},
    "PrivateIpAddresses.1.": {"PrivateIpAddresses.1.PrivateIpAddress": "10.0.2.9"},
    "Tag.1.": {"Tag.1.Key": "k"},
    "AddAllocationResourceTag.1.": {"AddAllocationResourceTag.1.Key": "k"},
    "AllocationResourceTag.1.": {"AllocationResourceTag.1.Key": "k"},
    "RemoveAllocationResourceTag.1.": {"RemoveAllocationResourceTag.1.Key": "k"},
    "TagSpecification.1.": {"TagSpecification.1.ResourceType": "instance"},
}

# What the simulator has no model of; a name stands for all below it.
LACKING = {
    "AllocateAddress": "Address CustomerOwnedIpv4Pool IpamPoolId NetworkBorderGroup PublicIpv4Pool"
    " TagSpecifications",
    "AssociateAddress": "PublicIp",
    "AssociateVpcCidrBlock": "Ipv6CidrBlockNetworkBorderGroup Ipv6Pool",
    "AttachNetworkInterface": "EnaSrdSpecification",
    "CreateIpamScope": "ExternalAuthorityConfiguration",
    "CreateNetworkInterface": "Ipv6Addresses.IsPrimaryIpv6 Operator",
    "CreateSubnet": "OutpostArn",
    "CreateVpc": "Ipv6CidrBlockNetworkBorderGroup Ipv6Pool VpcEncryptionControl",
    "DescribeInstanceTypes": "IncludeUnsupportedInRegion",
    "DisassociateAddress": "PublicIp",
    "ModifyIpamResourceDiscovery": "AddOrganizationalUnitExclusions"
    " RemoveOrganizationalUnitExclusions",
    "ModifyIpamScope": "ExternalAuthorityConfiguration RemoveExternalAuthorityConfiguration",
    "ModifyNetworkInterfaceAttribute": "AssociatePublicIpAddress AssociatedSubnetIds"
    " Attachment.DefaultEnaQueueCount Attachment.EnaQueueCount EnaSrdSpecification",
    "ModifySubnetAttribute": "CustomerOwnedIpv4Pool DisableLniAtDeviceIndex EnableDns64"
    " EnableLniAtDeviceIndex EnableResourceNameDnsAAAARecordOnLaunch"
    " EnableResourceNameDnsARecordOnLaunch MapCustomerOwnedIpOnLaunch"
    " PrivateDnsHostnameTypeOnLaunch",
    "ProvisionIpamPoolCidr": "IpamExternalResourceVerificationTokenId VerificationMethod",
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

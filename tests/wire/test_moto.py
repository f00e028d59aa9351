"""The same boto3 calls to vpc-sim and to moto's server, and both answers compared.

moto is another people's reading of EC2: what a client finds in moto's answer it must find in ours.
The exceptions are named below. moto's instance types are recorded from EC2, so their limits are
compared, too; other values of moto are not to be relied on.
"""

import logging
import unittest

import boto3
import moto.server

from harness import CREDENTIALS, REGION, WireTest
from topologies import TWO_NODES

# What lies at or below these paths has no model in the simulator: elastic addresses, volumes,
# the options of an instance, and all of an instance type that does not bear on networking.
NOT_SIMULATED = {
    "CreateNetworkInterface": ["NetworkInterface.Association"],
    "DescribeInstances": [
        "Reservations.Instances." + key
        for key in (
            "BlockDeviceMappings",
            "HibernationOptions",
            "MetadataOptions",
            "NetworkInterfaces.Association",
            "Platform",
            "SriovNetSupport",
            "StateReason",
        )
    ],
    "DescribeInstanceTypes": [
        "InstanceTypes." + key
        for key in (
            "AutoRecoverySupported",
            "BurstablePerformanceSupported",
            "CurrentGeneration",
            "DedicatedHostsSupported",
            "EbsInfo",
            "FreeTierEligible",
            "HibernationSupported",
            "InstanceStorageSupported",
            "MemoryInfo",
            "NetworkInfo.ConnectionTrackingConfiguration",
            "NetworkInfo.EfaSupported",
            "NetworkInfo.EnaSrdSupported",
            "NetworkInfo.EncryptionInTransitSupported",
            "NetworkInfo.FlexibleEnaQueuesSupport",
            "NetworkInfo.NetworkCards.BaselineBandwidthInGbps",
            "NetworkInfo.NetworkCards.DefaultEnaQueueCountPerInterface",
            "NetworkInfo.NetworkCards.NetworkPerformance",
            "NetworkInfo.NetworkCards.PeakBandwidthInGbps",
            "NetworkInfo.NetworkPerformance",
            "NetworkInfo.SecondaryNetworkSupported",
            "NitroEnclavesSupport",
            "NitroTpmInfo",
            "NitroTpmSupport",
            "PhcSupport",
            "PlacementGroupInfo",
            "ProcessorInfo.Manufacturer",
            "ProcessorInfo.SustainedClockSpeedInGhz",
            "RebootMigrationSupport",
            "SupportedBootModes",
            "SupportedRootDeviceTypes",
            "SupportedUsageClasses",
            "SupportedVirtualizationTypes",
            "VCpuInfo.DefaultCores",
            "VCpuInfo.DefaultThreadsPerCore",
            "VCpuInfo.ValidCores",
            "VCpuInfo.ValidThreadsPerCore",
        )
    ],
    # Rules of security groups.
    "DescribeSecurityGroups": ["SecurityGroups.IpPermissionsEgress"],
}
NOT_SIMULATED["RunInstances"] = [
    path.removeprefix("Reservations.") for path in NOT_SIMULATED["DescribeInstances"]
]


def key_paths(value, path=""):
    """Every key of a parsed answer as a dotted path, the items of a list merged."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key != "ResponseMetadata":
                yield f"{path}.{key}".lstrip(".")
                yield from key_paths(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from key_paths(inner, path)


def story(ec2):
    """What an ENI goes through, from an empty VPC on; returns the answers by operation."""
    told = {}

    def tell(operation, method, **arguments):
        told[operation] = getattr(ec2, method)(**arguments)
        return told[operation]

    tags = [{"Key": "k", "Value": "v"}]
    vpc = tell("CreateVpc", "create_vpc", CidrBlock="172.16.0.0/16")["Vpc"]["VpcId"]
    tell("AssociateVpcCidrBlock", "associate_vpc_cidr_block", VpcId=vpc, CidrBlock="172.17.0.0/16")
    subnet = tell(
        "CreateSubnet", "create_subnet",
        VpcId=vpc, CidrBlock="172.16.1.0/24", AvailabilityZone="us-east-1a",
        TagSpecifications=[{"ResourceType": "subnet", "Tags": tags}],
    )["Subnet"]["SubnetId"]
    instance = tell(
        "RunInstances", "run_instances",
        ImageId="ami-12c6146b", InstanceType="m5.large", MinCount=1, MaxCount=1, SubnetId=subnet,
    )["Instances"][0]["InstanceId"]
    eni = tell(
        "CreateNetworkInterface", "create_network_interface",
        SubnetId=subnet, Description="d", SecondaryPrivateIpAddressCount=1,
        TagSpecifications=[{"ResourceType": "network-interface", "Tags": tags}],
    )["NetworkInterface"]["NetworkInterfaceId"]
    attachment = tell(
        "AttachNetworkInterface", "attach_network_interface",
        NetworkInterfaceId=eni, InstanceId=instance, DeviceIndex=1,
    )["AttachmentId"]
    assigned = tell(
        "AssignPrivateIpAddresses", "assign_private_ip_addresses",
        NetworkInterfaceId=eni, SecondaryPrivateIpAddressCount=1,
    )["AssignedPrivateIpAddresses"]
    tell(
        "ModifyNetworkInterfaceAttribute", "modify_network_interface_attribute",
        NetworkInterfaceId=eni, SourceDestCheck={"Value": False},
    )
    tell("CreateTags", "create_tags", Resources=[eni], Tags=tags)
    tell("DescribeNetworkInterfaces", "describe_network_interfaces", NetworkInterfaceIds=[eni])
    tell("DescribeInstances", "describe_instances", InstanceIds=[instance])
    tell("DescribeInstanceTypes", "describe_instance_types", InstanceTypes=["m5.large", "t2.micro"])
    tell("DescribeSubnets", "describe_subnets", SubnetIds=[subnet])
    tell("DescribeVpcs", "describe_vpcs", VpcIds=[vpc])
    in_vpc = [{"Name": "vpc-id", "Values": [vpc]}]
    tell("DescribeSecurityGroups", "describe_security_groups", Filters=in_vpc)
    tell("DescribeAvailabilityZones", "describe_availability_zones")
    of_eni = [{"Name": "resource-id", "Values": [eni]}]
    tell("DescribeTags", "describe_tags", Filters=of_eni)
    tell("DeleteTags", "delete_tags", Resources=[eni], Tags=[{"Key": "k"}])
    tell(
        "CreateSubnetCidrReservation", "create_subnet_cidr_reservation",
        SubnetId=subnet, Cidr="172.16.1.64/28", ReservationType="prefix", Description="pods",
    )
    tell("GetSubnetCidrReservations", "get_subnet_cidr_reservations", SubnetId=subnet)
    tell(
        "UnassignPrivateIpAddresses", "unassign_private_ip_addresses",
        NetworkInterfaceId=eni, PrivateIpAddresses=[assigned[-1]["PrivateIpAddress"]],
    )
    tell("DetachNetworkInterface", "detach_network_interface", AttachmentId=attachment)
    tell("DeleteNetworkInterface", "delete_network_interface", NetworkInterfaceId=eni)
    tell("TerminateInstances", "terminate_instances", InstanceIds=[instance])
    return told


# EC2 tells none, as of other metal; amazon-vpc-cni-k8s has recorded `nitro`.
HYPERVISOR_DISPUTED = {"c7g.metal"}


def limits(kind):
    """What EC2 publishes about the networking of one instance type."""
    name = kind["InstanceType"]
    network = kind["NetworkInfo"]
    cards = [(c["NetworkCardIndex"], c["MaximumNetworkInterfaces"]) for c in network["NetworkCards"]]
    return {
        "interfaces": network["MaximumNetworkInterfaces"],
        "ipv4": network["Ipv4AddressesPerInterface"],
        "ipv6": network.get("Ipv6AddressesPerInterface"),
        "cards": sorted(cards),
        "default card": network["DefaultNetworkCardIndex"],
        "hypervisor": None if name in HYPERVISOR_DISPUTED else kind.get("Hypervisor"),
        "bare metal": kind["BareMetal"],
        "vcpus": kind.get("VCpuInfo", {}).get("DefaultVCpus"),
    }


class AgainstMoto(WireTest):
    topology = TWO_NODES

    @classmethod
    def setUpClass(cls):
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        cls.server = moto.server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        cls.server.start()
        host, port = cls.server.get_host_and_port()
        cls.moto = boto3.client(
            "ec2", region_name=REGION, endpoint_url=f"http://{host}:{port}", **CREDENTIALS
        )

    @classmethod
    def tearDownClass(cls):
        cls.moto.close()
        cls.server.stop()

    def test_every_key_of_moto_is_in_ours(self):
        ours, theirs = story(self.ec2), story(self.moto)
        self.assertEqual(set(ours), set(theirs))
        for operation, answer in theirs.items():
            with self.subTest(operation):
                excused = tuple(NOT_SIMULATED.get(operation, ()))
                missing = set(key_paths(answer)) - set(key_paths(ours[operation]))
                self.assertEqual({path for path in missing if not path.startswith(excused)}, set())

    def test_the_limits_of_every_instance_type(self):
        def types(ec2):
            pages = ec2.get_paginator("describe_instance_types").paginate()
            kinds = (kind for page in pages for kind in page["InstanceTypes"])
            return {kind["InstanceType"]: kind for kind in kinds}

        ours, theirs = types(self.ec2), types(self.moto)
        self.assertGreater(len(theirs), 1000)
        for name in sorted(theirs.keys() & ours.keys()):
            with self.subTest(name):
                got, want = limits(ours[name]), limits(theirs[name])
                # A few types were recorded without these.
                for key in ("ipv6", "vcpus"):
                    if got[key] is None:
                        del got[key], want[key]
                self.assertEqual(got, want)
        self.assertEqual(theirs.keys() - ours.keys(), set())


if __name__ == "__main__":
    unittest.main()

"""VPCs and subnets that take their blocks from IPAM pools, and what IPAM sees of them, from boto3."""

import unittest

from harness import WireTest
from topologies import NODE_A, SUBNET_A, TWO_NODES, VPC

# A manual clock: what is made and what is gone are apart in time. Released blocks do not rest.
TOPOLOGY = TWO_NODES.replace("seed: 7", """seed: 7
clock: manual
switches: {quotas: {vpcs: 50}, ipam: {rest: {advanced: {min_ms: 0, max_ms: 0}}}}
""")


class IpamTest(WireTest):
    topology = TOPOLOGY

    def setUp(self):
        super().setUp()
        ipam = self.ec2.create_ipam()["Ipam"]
        self.ipam = ipam["IpamId"]
        self.scope = ipam["PrivateDefaultScopeId"]

    def pool(self, cidr, **more):
        more.setdefault("Locale", "us-east-1")
        more.setdefault("AddressFamily", "ipv6" if ":" in cidr else "ipv4")
        pool = self.ec2.create_ipam_pool(IpamScopeId=self.scope, **more)["IpamPool"]["IpamPoolId"]
        self.ec2.provision_ipam_pool_cidr(IpamPoolId=pool, Cidr=cidr)
        return pool

    def later(self):
        self.sim.admin("POST", "clock", {"advance_ms": 1})

    def allocations(self, pool):
        """Resource, type and CIDR of each allocation."""
        found = self.ec2.get_ipam_pool_allocations(IpamPoolId=pool)["IpamPoolAllocations"]
        return sorted((it.get("ResourceId", ""), it["ResourceType"], it["Cidr"]) for it in found)

    def resource(self, resource, cidr, scope=None):
        found = self.ec2.get_ipam_resource_cidrs(IpamScopeId=scope or self.scope, ResourceId=resource)
        (it,) = [it for it in found["IpamResourceCidrs"] if it["ResourceCidr"] == cidr]
        return it

    def statuses(self, resource, cidr):
        it = self.resource(resource, cidr)
        return it["ManagementState"], it["ComplianceStatus"], it["OverlapStatus"]


class Blocks(IpamTest):
    def test_a_vpc_is_an_allocation_until_it_is_deleted(self):
        pool = self.pool("172.16.0.0/12", AllocationDefaultNetmaskLength=20)
        made = [
            self.ec2.create_vpc(Ipv4IpamPoolId=pool, Ipv4NetmaskLength=16),
            self.ec2.create_vpc(Ipv4IpamPoolId=pool),
            self.ec2.create_vpc(Ipv4IpamPoolId=pool, CidrBlock="172.20.0.0/24"),
        ]
        vpcs = [it["Vpc"] for it in made]
        blocks = [vpc["CidrBlock"] for vpc in vpcs]
        self.assertEqual(blocks, ["172.16.0.0/16", "172.17.0.0/20", "172.20.0.0/24"])
        expect = sorted((vpc["VpcId"], "vpc", vpc["CidrBlock"]) for vpc in vpcs)
        self.assertEqual(self.allocations(pool), expect)
        self.assertEqual(self.statuses(vpcs[0]["VpcId"], blocks[0]), ("managed", "compliant", "nonoverlapping"))
        self.later()
        self.ec2.delete_vpc(VpcId=vpcs[0]["VpcId"])
        self.assertEqual(self.allocations(pool), [it for it in expect if it[0] != vpcs[0]["VpcId"]])
        again = self.ec2.create_vpc(Ipv4IpamPoolId=pool, Ipv4NetmaskLength=16)["Vpc"]
        self.assertEqual(again["CidrBlock"], "172.16.0.0/16")

    def test_a_further_block_is_an_allocation_until_it_is_disassociated(self):
        pool = self.pool("172.16.0.0/12")
        answer = self.ec2.associate_vpc_cidr_block(VpcId=VPC, Ipv4IpamPoolId=pool, Ipv4NetmaskLength=24)
        association = answer["CidrBlockAssociation"]
        self.assertEqual(self.allocations(pool), [(VPC, "vpc", "172.16.0.0/24")])
        subnet = self.ec2.create_subnet(VpcId=VPC, CidrBlock="172.16.0.0/25")["Subnet"]["SubnetId"]
        with self.refused("DependencyViolation"):
            self.ec2.disassociate_vpc_cidr_block(AssociationId=association["AssociationId"])
        self.ec2.delete_subnet(SubnetId=subnet)
        self.later()
        gone = self.ec2.disassociate_vpc_cidr_block(AssociationId=association["AssociationId"])
        self.assertEqual(gone["CidrBlockAssociation"]["CidrBlockState"]["State"], "disassociating")
        self.assertEqual(self.allocations(pool), [])
        with self.refused("InvalidVpcCidrBlockAssociationID.NotFound"):
            self.ec2.disassociate_vpc_cidr_block(AssociationId=association["AssociationId"])
        (vpc,) = self.ec2.describe_vpcs(VpcIds=[VPC])["Vpcs"]
        blocks = [it["CidrBlock"] for it in vpc["CidrBlockAssociationSet"]]
        self.assertEqual(blocks, ["10.0.0.0/16", "100.64.0.0/16"])
        with self.refused("OperationNotPermitted"):
            self.ec2.disassociate_vpc_cidr_block(AssociationId=vpc["CidrBlockAssociationSet"][0]["AssociationId"])

    def test_ipv6_from_a_pool(self):
        pool = self.pool("fd00:1::/40")
        vpc = self.ec2.create_vpc(CidrBlock="172.16.0.0/16", Ipv6IpamPoolId=pool, Ipv6NetmaskLength=56)["Vpc"]
        (block,) = vpc["Ipv6CidrBlockAssociationSet"]
        self.assertEqual((block["Ipv6CidrBlock"], block["Ipv6Pool"]), ("fd00:1::/56", "IPAM Managed"))
        more = self.ec2.associate_vpc_cidr_block(
            VpcId=vpc["VpcId"], Ipv6IpamPoolId=pool, Ipv6CidrBlock="fd00:1:0:1000::/56"
        )["Ipv6CidrBlockAssociation"]
        self.assertEqual(more["Ipv6CidrBlock"], "fd00:1:0:1000::/56")
        expect = [(vpc["VpcId"], "vpc", block) for block in ("fd00:1:0:1000::/56", "fd00:1::/56")]
        self.assertEqual(self.allocations(pool), expect)

    def test_a_subnet_from_a_planning_pool(self):
        top = self.pool("172.16.0.0/12")
        vpc = self.ec2.create_vpc(Ipv4IpamPoolId=top, Ipv4NetmaskLength=16)["Vpc"]
        source = {
            "ResourceId": vpc["VpcId"], "ResourceType": "vpc",
            "ResourceRegion": "us-east-1", "ResourceOwner": "111122223333",
        }
        pool = self.pool(vpc["CidrBlock"], SourceIpamPoolId=top, SourceResource=source)
        subnet = self.ec2.create_subnet(VpcId=vpc["VpcId"], Ipv4IpamPoolId=pool, Ipv4NetmaskLength=24)["Subnet"]
        self.assertEqual(subnet["CidrBlock"], "172.16.0.0/24")
        self.assertEqual(self.allocations(pool), [(subnet["SubnetId"], "subnet", "172.16.0.0/24")])
        self.later()
        self.ec2.delete_subnet(SubnetId=subnet["SubnetId"])
        self.assertEqual(self.allocations(pool), [])
        with self.refused("InvalidParameterCombination", "missing a source resource"):
            self.ec2.create_subnet(VpcId=vpc["VpcId"], Ipv4IpamPoolId=top, Ipv4NetmaskLength=24)

    def test_a_block_that_is_still_associating_stays_allocated(self):
        delay = {"min_ms": 3600000, "max_ms": 3600000}
        self.sim.admin("PATCH", "switches", {"latency": {"custom": {"associate": delay}}})
        pool = self.pool("172.16.0.0/12")
        self.ec2.associate_vpc_cidr_block(VpcId=VPC, Ipv4IpamPoolId=pool, Ipv4NetmaskLength=24)
        self.later()
        self.assertEqual(self.allocations(pool), [(VPC, "vpc", "172.16.0.0/24")])

    def test_what_fails_takes_nothing(self):
        pool = self.pool("172.16.0.0/12", AllocationResourceTags=[{"Key": "env", "Value": "test"}])
        tags = [{"ResourceType": "vpc", "Tags": [{"Key": "env", "Value": "test"}]}]
        ipv6 = self.pool("fd00:1::/40")
        for arguments, code in (
            ({"Ipv4IpamPoolId": pool, "Ipv4NetmaskLength": 16}, "InvalidParameterValue"),
            ({"Ipv4IpamPoolId": pool, "TagSpecifications": tags}, "InvalidParameterCombination"),
            ({"Ipv4IpamPoolId": pool, "Ipv4NetmaskLength": 14, "TagSpecifications": tags}, "InvalidVpc.Range"),
            ({"Ipv4IpamPoolId": pool, "CidrBlock": "10.0.0.0/16", "TagSpecifications": tags}, "InvalidParameterValue"),
            ({"Ipv4IpamPoolId": ipv6, "Ipv4NetmaskLength": 48}, "InvalidParameterCombination"),
            ({"Ipv4NetmaskLength": 16}, "InvalidParameterCombination"),
            ({"CidrBlock": "172.16.0.0/16", "Ipv6CidrBlock": "fd00:1::/56"}, "InvalidParameterCombination"),
            ({"CidrBlock": "172.16.0.0/16", "Ipv6IpamPoolId": ipv6, "Ipv6NetmaskLength": 57}, "InvalidVpc.Range"),
            ({"CidrBlock": "172.16.0.0/16", "Ipv6IpamPoolId": ipv6, "Ipv6NetmaskLength": 56,
              "AmazonProvidedIpv6CidrBlock": True}, "InvalidParameterCombination"),
            ({}, "MissingParameter"),
            ({"Ipv4IpamPoolId": "ipam-pool-00000001", "Ipv4NetmaskLength": 16}, "InvalidIpamPoolId.NotFound"),
        ):
            with self.subTest(arguments), self.refused(code):
                self.ec2.create_vpc(**arguments)
        with self.refused("CidrConflict"):
            # The pool does not know of the VPC's own block, since nobody imported it.
            self.ec2.associate_vpc_cidr_block(VpcId=VPC, Ipv4IpamPoolId=self.pool("10.0.0.0/16"), Ipv4NetmaskLength=24)
        pools = self.ec2.describe_ipam_pools()["IpamPools"]
        self.assertEqual([self.allocations(it["IpamPoolId"]) for it in pools], [[]] * len(pools))


class Seen(IpamTest):
    def test_overlap_compliance_and_usage_follow_the_vpcs(self):
        self.assertEqual(self.statuses(VPC, "10.0.0.0/16"), ("unmanaged", "unmanaged", "nonoverlapping"))
        rival = self.ec2.create_vpc(CidrBlock="10.0.128.0/17")["Vpc"]["VpcId"]
        self.assertEqual(self.statuses(VPC, "10.0.0.0/16"), ("unmanaged", "unmanaged", "overlapping"))
        self.later()
        self.ec2.delete_vpc(VpcId=rival)
        self.assertEqual(self.statuses(VPC, "10.0.0.0/16"), ("unmanaged", "unmanaged", "nonoverlapping"))
        pool = self.pool("10.0.0.0/8", AutoImport=True, AllocationMinNetmaskLength=20)
        self.later()
        self.ec2.create_tags(Resources=[VPC], Tags=[{"Key": "seen", "Value": "again"}])
        self.assertEqual(self.statuses(VPC, "10.0.0.0/16"), ("managed", "noncompliant", "nonoverlapping"))
        self.assertEqual(self.allocations(pool), [(VPC, "vpc", "10.0.0.0/16")])

    def test_usage_of_a_subnet_counts_its_addresses(self):
        before = self.resource(SUBNET_A, "10.0.2.0/24")["IpUsage"]
        self.ec2.create_network_interface(SubnetId=SUBNET_A, Ipv4PrefixCount=1)
        after = self.resource(SUBNET_A, "10.0.2.0/24")["IpUsage"]
        self.assertAlmostEqual(after - before, 17 / 256)
        self.assertNotIn("IpUsage", self.resource(SUBNET_A, "2600:1f13:abc:de00::/64", self.public()))

    def public(self):
        return self.ec2.describe_ipams()["Ipams"][0]["PublicDefaultScopeId"]

    def test_interfaces_and_elastic_addresses_are_seen(self):
        address = self.ec2.allocate_address()
        seen = self.resource(address["AllocationId"], address["PublicIp"] + "/32", self.public())
        self.assertEqual(seen["ResourceType"], "eip")
        kinds = {"vpc": 2, "subnet": 2, "eni": 3}
        for kind, n in kinds.items():
            found = self.ec2.get_ipam_resource_cidrs(IpamScopeId=self.scope, ResourceType=kind)
            self.assertEqual(len(found["IpamResourceCidrs"]), n, kind)

    def test_history_has_beginning_and_end(self):
        vpc = self.ec2.create_vpc(CidrBlock="172.16.0.0/16")["Vpc"]["VpcId"]
        self.sim.admin("POST", "clock", {"advance_ms": 3600000})
        self.ec2.delete_vpc(VpcId=vpc)
        (record,) = self.ec2.get_ipam_address_history(Cidr="172.16.0.0/16", IpamScopeId=self.scope)["HistoryRecords"]
        self.assertEqual(record["ResourceId"], vpc)
        self.assertEqual((record["SampledEndTime"] - record["SampledStartTime"]).total_seconds(), 3600)

    def test_ignored_frees_the_allocation(self):
        pool = self.pool("172.16.0.0/12")
        vpc = self.ec2.create_vpc(Ipv4IpamPoolId=pool, Ipv4NetmaskLength=16)["Vpc"]["VpcId"]
        self.later()
        self.ec2.modify_ipam_resource_cidr(
            ResourceId=vpc, ResourceCidr="172.16.0.0/16", ResourceRegion="us-east-1",
            CurrentIpamScopeId=self.scope, Monitored=False,
        )
        self.later()
        self.assertEqual(self.allocations(pool), [])
        self.assertEqual(self.statuses(vpc, "172.16.0.0/16"), ("ignored", "ignored", "ignored"))

    def test_discovery_may_lag(self):
        """The allocation of a VPC goes when the lag is over, and not before."""
        hour = 3600000
        discovery = {"custom": {"period_ms": hour, "lag": {"min_ms": hour, "max_ms": hour}}}
        ipam = self.sim.admin("GET", "switches")["ipam"] | {"discovery": discovery}
        self.sim.admin("PATCH", "switches", {"ipam": ipam})
        pool = self.pool("172.16.0.0/12")
        vpc = self.ec2.create_vpc(Ipv4IpamPoolId=pool, Ipv4NetmaskLength=16)["Vpc"]["VpcId"]
        self.later()
        self.ec2.delete_vpc(VpcId=vpc)
        n_polls = 0
        while self.allocations(pool):
            n_polls += 1
            self.assertLess(n_polls, 13)
            self.sim.admin("POST", "clock", {"advance_ms": hour // 4})
        self.assertGreaterEqual(n_polls, 4)


class Removal(WireTest):
    topology = TWO_NODES

    def test_nothing_goes_while_something_depends_on_it(self):
        for call, arguments in (
            ("delete_vpc", {"VpcId": VPC}),
            ("delete_subnet", {"SubnetId": SUBNET_A}),
        ):
            with self.subTest(call), self.refused("DependencyViolation"):
                getattr(self.ec2, call)(**arguments)
        with self.refused("InvalidVpcID.NotFound"):
            self.ec2.delete_vpc(VpcId="vpc-00000001")
        with self.refused("InvalidSubnetID.NotFound"):
            self.ec2.delete_subnet(SubnetId="subnet-00000001")

    def test_a_subnet_goes_after_its_instances(self):
        subnet = self.ec2.create_subnet(VpcId=VPC, CidrBlock="10.0.9.0/24")["Subnet"]["SubnetId"]
        started = self.ec2.run_instances(
            ImageId="ami-1", InstanceType="m5.large", MinCount=1, MaxCount=1, SubnetId=subnet
        )["Instances"][0]["InstanceId"]
        reservation = self.ec2.create_subnet_cidr_reservation(
            SubnetId=subnet, Cidr="10.0.9.128/25", ReservationType="prefix"
        )["SubnetCidrReservation"]["SubnetCidrReservationId"]
        with self.refused("DependencyViolation"):
            self.ec2.delete_subnet(SubnetId=subnet)
        self.ec2.terminate_instances(InstanceIds=[started])
        self.ec2.delete_subnet(SubnetId=subnet)
        with self.refused("InvalidSubnetCidrReservationID.NotFound"):
            self.ec2.delete_subnet_cidr_reservation(SubnetCidrReservationId=reservation)
        listed = [it["InstanceId"] for r in self.ec2.describe_instances()["Reservations"] for it in r["Instances"]]
        self.assertIn(NODE_A, listed)
        self.assertNotIn(started, listed)


if __name__ == "__main__":
    unittest.main()

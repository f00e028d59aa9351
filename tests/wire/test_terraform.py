"""The calls that Terraform's AWS provider makes, in its order and with its waits, from boto3.

The provider itself is not here: see docs/design/simulator.md. Each class below is one of its resources:
create, read, update, delete, as far as its source (`internal/service/ec2`) was at hand. A wait polls
until a state is reached, and refuses any state that the provider does not expect. Between two polls
the clock moves on.
"""

import unittest

import botocore.exceptions

from harness import REGION, WireTest
from topologies import TWO_NODES

TOPOLOGY = TWO_NODES.replace("seed: 7", """seed: 7
clock: manual
switches:
  latency: {custom: {associate: {min_ms: 3000, max_ms: 3000}}}
  ipam: {transitions: realistic, discovery: realistic}
""")

CREATED = ({"create-in-progress"}, "create-complete")
MODIFIED = ({"create-complete", "modify-in-progress"}, "modify-complete")
DELETED = ({"create-complete", "modify-complete", "delete-in-progress"}, None)


def specification(kind, tags):
    return [{"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}]


class Provider:
    """What all resources of the provider have."""

    def __init__(self, test):
        self.test, self.sim, self.ec2 = test, test.sim, test.ec2

    def wait(self, find, states, minutes):
        """Polls every five seconds. `find` returns an object and its state, or None if it is gone."""
        pending, target = states
        for _ in range(minutes * 12):
            found = find()
            if found is None:
                self.test.assertIsNone(target, "it is gone")
                return None
            thing, state = found
            if state == target:
                return thing
            self.test.assertIn(state, pending)
            self.sim.admin("POST", "clock", {"advance_ms": 5000})
        self.test.fail(f"{find()} after {minutes} minutes")

    def unless(self, code, call):
        """The answer, or None for an error with this code."""
        try:
            return call()
        except botocore.exceptions.ClientError as error:
            self.test.assertEqual(error.response["Error"]["Code"], code, error)
            return None

    def one(self, code, call, member):
        answer = self.unless(code, call)
        items = answer[member] if answer else []
        self.test.assertLessEqual(len(items), 1)
        return items[0] if items else None

    def update_tags(self, resource, tags):
        self.ec2.create_tags(Resources=[resource], Tags=[{"Key": key, "Value": value} for key, value in tags.items()])


class VpcIpam(Provider):
    def find(self, ipam):
        found = self.one("InvalidIpamId.NotFound", lambda: self.ec2.describe_ipams(IpamIds=[ipam]), "Ipams")
        return found and (found, found["State"])

    def create(self, **arguments):
        made = self.ec2.create_ipam(
            ClientToken="ipam", OperatingRegions=[{"RegionName": REGION}], TagSpecifications=specification("ipam", {"a": "b"}),
            **arguments,
        )["Ipam"]["IpamId"]
        return self.wait(lambda: self.find(made), CREATED, 3)

    def update(self, ipam, **arguments):
        self.ec2.modify_ipam(IpamId=ipam, **arguments)
        return self.wait(lambda: self.find(ipam), MODIFIED, 3)

    def delete(self, ipam):
        self.ec2.delete_ipam(IpamId=ipam, Cascade=False)
        self.wait(lambda: self.find(ipam), DELETED, 3)


class VpcIpamScope(Provider):
    def find(self, scope):
        call = lambda: self.ec2.describe_ipam_scopes(IpamScopeIds=[scope])
        found = self.one("InvalidIpamScopeId.NotFound", call, "IpamScopes")
        return found and (found, found["State"])

    def create(self, ipam):
        made = self.ec2.create_ipam_scope(ClientToken="scope", IpamId=ipam, Description="labs")
        made = made["IpamScope"]["IpamScopeId"]
        return self.wait(lambda: self.find(made), CREATED, 3)

    def delete(self, scope):
        self.ec2.delete_ipam_scope(IpamScopeId=scope)
        self.wait(lambda: self.find(scope), DELETED, 3)


class VpcIpamPool(Provider):
    def find(self, pool):
        call = lambda: self.ec2.describe_ipam_pools(IpamPoolIds=[pool])
        found = self.one("InvalidIpamPoolId.NotFound", call, "IpamPools")
        return found and (found, found["State"])

    def create(self, scope, **arguments):
        (found,) = self.ec2.describe_ipam_scopes(IpamScopeIds=[scope])["IpamScopes"]
        self.test.assertEqual(found["IpamScopeType"], "private")
        source = arguments.get("SourceResource")
        if source:
            self.wait(lambda: self.resource_cidr(scope, source["ResourceId"]), ({"unmanaged", "unseen"}, "managed"), 35)
        made = self.ec2.create_ipam_pool(IpamScopeId=scope, AddressFamily="ipv4", **arguments)
        made = made["IpamPool"]["IpamPoolId"]
        pool = self.wait(lambda: self.find(made), CREATED, 3)
        # The provider cuts the scope's id from the ARN.
        self.test.assertEqual(pool["IpamScopeArn"].split("/")[1], scope)
        return pool

    def resource_cidr(self, scope, resource):
        found = self.ec2.get_ipam_resource_cidrs(IpamScopeId=scope, ResourceId=resource)["IpamResourceCidrs"]
        return (found[0], found[0]["ManagementState"]) if found else (None, "unseen")

    def update(self, pool, **arguments):
        self.ec2.modify_ipam_pool(IpamPoolId=pool, **arguments)
        return self.wait(lambda: self.find(pool), MODIFIED, 3)

    def delete(self, pool):
        self.ec2.delete_ipam_pool(IpamPoolId=pool)
        self.wait(lambda: self.find(pool), DELETED, 3)


class VpcIpamPoolCidr(Provider):
    def find(self, pool, pool_cidr):
        filters = [{"Name": "ipam-pool-cidr-id", "Values": [pool_cidr]}]
        call = lambda: self.ec2.get_ipam_pool_cidrs(IpamPoolId=pool, Filters=filters)
        found = self.one("InvalidIpamPoolId.NotFound", call, "IpamPoolCidrs")
        return found and (found, found["State"])

    def create(self, pool, **arguments):
        made = self.ec2.provision_ipam_pool_cidr(IpamPoolId=pool, ClientToken=pool, **arguments)
        made = made["IpamPoolCidr"]["IpamPoolCidrId"]
        return self.wait(lambda: self.find(pool, made), ({"pending-provision"}, "provisioned"), 10)

    def delete(self, pool, cidr):
        """Tries again after `failed-deprovision`: IPAM may not have seen yet that all in it is gone."""
        for _ in range(32):
            deprovision = lambda: self.ec2.deprovision_ipam_pool_cidr(IpamPoolId=pool, Cidr=cidr["Cidr"])
            self.unless("IncorrectState", deprovision)
            pending = {"pending-deprovision", "provisioned"}
            if self.wait(lambda: self.outcome(pool, cidr), (pending, "settled"), 10) == "gone":
                return
            self.sim.admin("POST", "clock", {"advance_ms": 60000})
        self.test.fail(f"{cidr} after 32 attempts")

    def outcome(self, pool, cidr):
        found = self.find(pool, cidr["IpamPoolCidrId"])
        if found is None:
            return "gone", "settled"
        return ("stays", "settled") if found[1] == "failed-deprovision" else found


class VpcIpamPoolCidrAllocation(Provider):
    def create(self, pool, **arguments):
        made = self.ec2.allocate_ipam_pool_cidr(IpamPoolId=pool, ClientToken="allocation", **arguments)
        made = made["IpamPoolAllocation"]["IpamPoolAllocationId"]
        call = lambda: self.ec2.get_ipam_pool_allocations(IpamPoolId=pool, IpamPoolAllocationId=made)
        return self.one("InvalidIpamPoolAllocationId.NotFound", call, "IpamPoolAllocations")

    def delete(self, pool, allocation):
        released = self.ec2.release_ipam_pool_allocation(
            IpamPoolId=pool, Cidr=allocation["Cidr"], IpamPoolAllocationId=allocation["IpamPoolAllocationId"]
        )
        self.test.assertTrue(released["Success"])


class Vpc(Provider):
    def find(self, vpc):
        found = self.one("InvalidVpcID.NotFound", lambda: self.ec2.describe_vpcs(VpcIds=[vpc]), "Vpcs")
        return found and (found, found["State"])

    def create(self, **arguments):
        made = self.ec2.create_vpc(
            AmazonProvidedIpv6CidrBlock=False, InstanceTenancy="default",
            TagSpecifications=specification("vpc", {"Name": "new"}), **arguments,
        )["Vpc"]["VpcId"]
        vpc = self.wait(lambda: self.find(made), ({"pending"}, "available"), 10)
        self.ec2.modify_vpc_attribute(VpcId=made, EnableDnsHostnames={"Value": True})
        self.wait(lambda: (made, self.attributes(made)["EnableDnsHostnames"]), ({False}, True), 5)
        return vpc

    def attributes(self, vpc):
        values = {}
        for name in ("enableDnsHostnames", "enableDnsSupport", "enableNetworkAddressUsageMetrics"):
            answer = self.ec2.describe_vpc_attribute(VpcId=vpc, Attribute=name)
            key = name[0].upper() + name[1:]
            values[key] = answer[key]["Value"]
        return values

    def read(self, vpc):
        """What the provider reads besides the VPC: its default ACL, main table and default group."""
        def filters(**values):
            return [{"Name": name.replace("_", "-"), "Values": [value]} for name, value in values.items()]
        (acl,) = self.ec2.describe_network_acls(Filters=filters(default="true", vpc_id=vpc))["NetworkAcls"]
        main = [{"Name": "association.main", "Values": ["true"]}] + filters(vpc_id=vpc)
        (table,) = self.ec2.describe_route_tables(Filters=main)["RouteTables"]
        (group,) = self.ec2.describe_security_groups(Filters=filters(group_name="default", vpc_id=vpc))["SecurityGroups"]
        self.test.assertTrue(table["Associations"][0]["Main"])
        return acl["NetworkAclId"], table["RouteTableId"], group["GroupId"]

    def delete(self, vpc, pool):
        self.ec2.delete_vpc(VpcId=vpc)
        self.wait(lambda: self.find(vpc), ({"available"}, None), 5)
        self.wait(lambda: self.allocation(pool, vpc), ({"allocated"}, None), 35)

    def allocation(self, pool, vpc):
        found = self.ec2.get_ipam_pool_allocations(IpamPoolId=pool)["IpamPoolAllocations"]
        own = [it for it in found if it["ResourceType"] == "vpc" and it["ResourceId"] == vpc]
        return (own[0], "allocated") if own else None


class Subnet(Provider):
    def find(self, subnet):
        found = self.one("InvalidSubnetID.NotFound", lambda: self.ec2.describe_subnets(SubnetIds=[subnet]), "Subnets")
        return found and (found, found["State"])

    def create(self, vpc, **arguments):
        made = self.ec2.create_subnet(VpcId=vpc, TagSpecifications=specification("subnet", {"Name": "new"}), **arguments)
        made = made["Subnet"]["SubnetId"]
        self.wait(lambda: self.find(made), ({"pending"}, "available"), 10)
        self.ec2.modify_subnet_attribute(SubnetId=made, MapPublicIpOnLaunch={"Value": True})
        is_set = lambda: (made, self.find(made)[0]["MapPublicIpOnLaunch"])
        self.wait(is_set, ({False}, True), 5)
        return self.find(made)[0]

    def delete(self, subnet):
        filters = [{"Name": "subnet-id", "Values": [subnet]}]
        lingering = self.ec2.describe_network_interfaces(Filters=filters)["NetworkInterfaces"]
        self.test.assertEqual(lingering, [])
        self.ec2.delete_subnet(SubnetId=subnet)
        self.wait(lambda: self.find(subnet), ({"available"}, None), 10)


class Ipv4CidrBlockAssociation(Provider):
    def find(self, association):
        filters = [{"Name": "cidr-block-association.association-id", "Values": [association]}]
        for vpc in self.ec2.describe_vpcs(Filters=filters)["Vpcs"]:
            for block in vpc["CidrBlockAssociationSet"]:
                if block["AssociationId"] == association:
                    return block, block["CidrBlockState"]["State"]
        return None

    def create(self, vpc, **arguments):
        made = self.ec2.associate_vpc_cidr_block(VpcId=vpc, **arguments)
        made = made["CidrBlockAssociation"]["AssociationId"]
        return self.wait(lambda: self.find(made), ({"associating"}, "associated"), 10)

    def delete(self, association):
        self.ec2.disassociate_vpc_cidr_block(AssociationId=association)
        pending = {"associated", "disassociating"}
        self.wait(lambda: self.find(association), (pending, None), 10)


class Terraform(WireTest):
    topology = TOPOLOGY

    def setUp(self):
        super().setUp()
        for resource in (
            VpcIpam, VpcIpamScope, VpcIpamPool, VpcIpamPoolCidr, VpcIpamPoolCidrAllocation, Vpc, Subnet,
            Ipv4CidrBlockAssociation,
        ):
            setattr(self, resource.__name__, resource(self))

    def plan(self):
        """An IPAM, a top pool without locale, and a pool below it."""
        ipam = self.VpcIpam.create(Description="plan", Tier="advanced", EnablePrivateGua=False)
        scope = ipam["PrivateDefaultScopeId"]
        top = self.VpcIpamPool.create(scope, Description="top")
        self.assertEqual(top["Locale"], "None")
        top_cidr = self.VpcIpamPoolCidr.create(top["IpamPoolId"], Cidr="172.16.0.0/12")
        pool = self.VpcIpamPool.create(scope, SourceIpamPoolId=top["IpamPoolId"], Locale=REGION)
        cidr = self.VpcIpamPoolCidr.create(pool["IpamPoolId"], NetmaskLength=16)
        return ipam, [(top["IpamPoolId"], top_cidr), (pool["IpamPoolId"], cidr)]

    def destroy(self, ipam, pools):
        for pool, cidr in reversed(pools):
            self.VpcIpamPoolCidr.delete(pool, cidr)
            self.VpcIpamPool.delete(pool)
        self.VpcIpam.delete(ipam["IpamId"])

    def test_a_plan_by_hand(self):
        ipam, pools = self.plan()
        self.assertEqual(self.VpcIpam.update(ipam["IpamId"], Description="new")["Description"], "new")
        self.VpcIpam.update_tags(ipam["IpamId"], {"a": "c"})
        self.assertEqual(self.VpcIpam.find(ipam["IpamId"])[0]["Tags"], [{"Key": "a", "Value": "c"}])
        scope = self.VpcIpamScope.create(ipam["IpamId"])
        self.assertEqual(scope["IpamArn"], ipam["IpamArn"])
        pool = pools[-1][0]
        self.VpcIpamPool.update(pool, AllocationDefaultNetmaskLength=24)
        allocation = self.VpcIpamPoolCidrAllocation.create(pool, NetmaskLength=24, DisallowedCidrs=["172.16.0.0/24"])
        self.assertEqual(allocation["Cidr"], "172.16.1.0/24")
        self.VpcIpamPoolCidrAllocation.delete(pool, allocation)
        self.VpcIpamScope.delete(scope["IpamScopeId"])
        self.destroy(ipam, pools)

    def test_a_vpc_and_a_subnet_from_pools(self):
        ipam, pools = self.plan()
        scope, pool = ipam["PrivateDefaultScopeId"], pools[-1][0]
        vpc = self.Vpc.create(Ipv4IpamPoolId=pool, Ipv4NetmaskLength=20)
        self.assertEqual(vpc["CidrBlock"], "172.16.0.0/20")
        expect = {"EnableDnsHostnames": True, "EnableDnsSupport": True, "EnableNetworkAddressUsageMetrics": False}
        self.assertEqual(self.Vpc.attributes(vpc["VpcId"]), expect)
        for part, kind in zip(self.Vpc.read(vpc["VpcId"]), ("acl-", "rtb-", "sg-")):
            self.assertRegex(part, kind)
        source = {
            "ResourceId": vpc["VpcId"], "ResourceType": "vpc", "ResourceRegion": REGION, "ResourceOwner": vpc["OwnerId"],
        }
        planning = self.VpcIpamPool.create(scope, SourceIpamPoolId=pool, SourceResource=source, Locale=REGION)["IpamPoolId"]
        planned = self.VpcIpamPoolCidr.create(planning, Cidr=vpc["CidrBlock"])
        subnet = self.Subnet.create(vpc["VpcId"], Ipv4IpamPoolId=planning, Ipv4NetmaskLength=24)
        self.assertEqual(subnet["CidrBlock"], "172.16.0.0/24")
        block = self.Ipv4CidrBlockAssociation.create(vpc["VpcId"], Ipv4IpamPoolId=pool, Ipv4NetmaskLength=24)
        self.assertEqual(block["CidrBlock"], "172.16.16.0/24")
        self.Ipv4CidrBlockAssociation.delete(block["AssociationId"])
        self.Subnet.delete(subnet["SubnetId"])
        self.VpcIpamPoolCidr.delete(planning, planned)
        self.VpcIpamPool.delete(planning)
        self.Vpc.delete(vpc["VpcId"], pool)
        self.destroy(ipam, pools)
        self.assertEqual(self.ec2.describe_ipams()["Ipams"], [])


if __name__ == "__main__":
    unittest.main()

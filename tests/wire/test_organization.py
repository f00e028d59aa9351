"""Several Regions and accounts in one simulator: each has VPCs of its own, and one address plan spans them."""

import unittest
import urllib.error

import boto3
import botocore.config

from harness import CREDENTIALS, REGION, WireTest, check_answer
from topologies import STANDING_STILL, VPC

HOME, MEMBER = "111122223333", "444455556666"
ELSEWHERE = "eu-west-1"

TOPOLOGY = STANDING_STILL.replace("seed: 7", f"""seed: 7
regions: [{ELSEWHERE}]
organization: {{members: ["{MEMBER}"]}}
""")


class Organization(WireTest):
    topology = TOPOLOGY

    def client(self, key_id="AKIDEXAMPLE", region=REGION):
        client = boto3.client(
            "ec2", endpoint_url=self.sim.url, region_name=region,
            config=botocore.config.Config(retries={"total_max_attempts": 1}),
            **CREDENTIALS | {"aws_access_key_id": key_id},
        )
        client.meta.events.register("after-call.ec2", check_answer)
        return client

    def test_each_account_and_region_has_its_own_vpcs(self):
        places = [(key, region) for key in ("AKIDEXAMPLE", "AKIDOTHER") for region in (REGION, ELSEWHERE)]
        made = {}
        for key, region in places:
            vpc = self.client(key, region).create_vpc(CidrBlock="172.16.0.0/16")["Vpc"]
            self.assertEqual(vpc["OwnerId"], HOME if key == "AKIDEXAMPLE" else MEMBER)
            made[key, region] = vpc["VpcId"]
        self.assertEqual(len(set(made.values())), 4)
        for place in places:
            seen = {vpc["VpcId"] for vpc in self.client(*place).describe_vpcs()["Vpcs"]}
            of_the_file = {VPC} if place == ("AKIDEXAMPLE", REGION) else set()
            self.assertEqual(seen, {made[place]} | of_the_file)
        zones = self.client(region=ELSEWHERE).describe_availability_zones()["AvailabilityZones"]
        self.assertEqual({zone["RegionName"] for zone in zones}, {ELSEWHERE})
        with self.refused("AuthFailure", "eu-west-1', 'us-east-1"):
            self.client(region="ap-south-1").describe_vpcs()

    def test_the_log_names_account_and_region(self):
        self.client("AKIDOTHER", ELSEWHERE).describe_vpcs()
        self.client().describe_subnets()
        self.client("AKIDOTHER").describe_vpcs()
        calls = self.sim.admin("GET", "calls")
        seen = [(call["number"], call["account"], call["region"], call["action"]) for call in calls]
        self.assertEqual(seen, [
            (1, MEMBER, ELSEWHERE, "DescribeVpcs"), (2, HOME, REGION, "DescribeSubnets"), (3, MEMBER, REGION, "DescribeVpcs"),
        ])
        self.assertEqual(self.sim.admin("GET", "counters")["DescribeVpcs"], {"Success": 2})

    def test_one_plan_spans_regions(self):
        home, elsewhere = self.client(), self.client(region=ELSEWHERE)
        ipam = home.create_ipam(OperatingRegions=[{"RegionName": REGION}, {"RegionName": ELSEWHERE}])["Ipam"]
        scope = ipam["PrivateDefaultScopeId"]
        pool = home.create_ipam_pool(IpamScopeId=scope, AddressFamily="ipv4", Locale=ELSEWHERE)["IpamPool"]["IpamPoolId"]
        home.provision_ipam_pool_cidr(IpamPoolId=pool, Cidr="10.0.0.0/16")
        with self.refused("InvalidParameterValue", ELSEWHERE):
            home.create_vpc(Ipv4IpamPoolId=pool, Ipv4NetmaskLength=20)
        vpc = elsewhere.create_vpc(Ipv4IpamPoolId=pool, Ipv4NetmaskLength=20)["Vpc"]
        seen = {it["ResourceId"]: it for it in home.get_ipam_resource_cidrs(IpamScopeId=scope, ResourceType="vpc")["IpamResourceCidrs"]
                if it["ResourceCidr"].startswith("10.")}
        self.assertEqual(seen[vpc["VpcId"]]["ResourceRegion"], ELSEWHERE)
        self.assertEqual(seen[vpc["VpcId"]]["ManagementState"], "managed")
        self.assertEqual({it["OverlapStatus"] for it in seen.values()}, {"overlapping"})
        # An IPAM is managed in its home Region alone. The pool is seen in its locale too.
        self.assertEqual(elsewhere.describe_ipams()["Ipams"], [])
        self.assertEqual(elsewhere.describe_ipam_pools()["IpamPools"][0]["IpamPoolId"], pool)

    def test_the_administrator_sees_the_whole_organisation(self):
        management, administrator = self.client(), self.client("AKIDOTHER")
        with self.refused("UnauthorizedOperation"):
            administrator.enable_ipam_organization_admin_account(DelegatedAdminAccountId=MEMBER)
        ipam = administrator.create_ipam()["Ipam"]
        scope = ipam["PrivateDefaultScopeId"]
        owners = lambda: {
            it["ResourceOwnerId"]
            for it in administrator.get_ipam_resource_cidrs(IpamScopeId=scope, ResourceType="vpc")["IpamResourceCidrs"]
        }
        self.assertEqual(owners(), set())
        management.enable_ipam_organization_admin_account(DelegatedAdminAccountId=MEMBER)
        administrator.create_vpc(CidrBlock="172.16.0.0/16")
        self.assertEqual(owners(), {HOME, MEMBER})
        found = administrator.get_ipam_discovered_accounts(
            IpamResourceDiscoveryId=ipam["DefaultResourceDiscoveryId"], DiscoveryRegion=REGION
        )["IpamDiscoveredAccounts"]
        self.assertEqual({it["AccountId"] for it in found}, {HOME, MEMBER})

    def test_a_member_takes_a_block_of_a_shared_pool(self):
        management, administrator = self.client(), self.client("AKIDOTHER")
        management.enable_ipam_organization_admin_account(DelegatedAdminAccountId=MEMBER)
        scope = administrator.create_ipam()["Ipam"]["PrivateDefaultScopeId"]
        pool = administrator.create_ipam_pool(IpamScopeId=scope, AddressFamily="ipv4", Locale=REGION)["IpamPool"]["IpamPoolId"]
        administrator.provision_ipam_pool_cidr(IpamPoolId=pool, Cidr="172.16.0.0/12")
        create = lambda: management.create_vpc(Ipv4IpamPoolId=pool, Ipv4NetmaskLength=20)["Vpc"]
        with self.refused("InvalidIpamPoolId.NotFound"):
            create()
        self.sim.admin("PUT", f"shares/{pool}/{HOME}")
        self.assertEqual(create()["OwnerId"], HOME)
        (allocation,) = administrator.get_ipam_pool_allocations(IpamPoolId=pool)["IpamPoolAllocations"]
        self.assertEqual(allocation["ResourceOwner"], HOME)
        management.disable_ipam_organization_admin_account(DelegatedAdminAccountId=MEMBER)
        with self.refused("UnsupportedOperation", "is not monitored by IPAM"):
            create()
        self.sim.admin("DELETE", f"shares/{pool}/{HOME}")
        with self.assertRaises(urllib.error.HTTPError) as caught:
            self.sim.admin("PUT", f"shares/ipam-pool-00000001/{HOME}")
        self.assertEqual(caught.exception.code, 404)
        with self.refused("InvalidIpamPoolId.NotFound"):
            create()

    def test_fault_rules_of_another_place(self):
        rule = {"action": "DescribeVpcs", "when": "each", "effect": {"fail": {"code": "InternalError"}}}
        place = f"account={MEMBER}&region={ELSEWHERE}"
        number = self.sim.admin("POST", f"faults?{place}", rule)["id"]
        elsewhere = self.client("AKIDOTHER", ELSEWHERE)
        with self.refused("InternalError"):
            elsewhere.describe_vpcs()
        self.client("AKIDOTHER").describe_vpcs()
        self.client().describe_vpcs()
        self.assertEqual([it["hits"] for it in self.sim.admin("GET", f"faults?{place}")], [1])
        self.assertEqual(self.sim.admin("GET", "faults"), [])
        self.sim.admin("DELETE", f"faults/{number}?{place}")
        elsewhere.describe_vpcs()
        with self.assertRaises(urllib.error.HTTPError) as caught:
            self.sim.admin("GET", "faults?region=ap-south-1")
        self.assertIn("there is no 111122223333 in ap-south-1", caught.exception.read().decode())

    def test_switches_reach_all_places(self):
        self.sim.admin("PATCH", "switches", {"throttling": "documented"})
        elsewhere = self.client("AKIDOTHER", ELSEWHERE)
        with self.refused("RequestLimitExceeded"):
            for _ in range(300):
                elsewhere.describe_vpcs()


if __name__ == "__main__":
    unittest.main()

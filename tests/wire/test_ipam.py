"""Every operation of Amazon VPC IPAM that the simulator serves, from boto3 and from the AWS CLI.

One table has a scenario that calls each operation. Both clients play it. An operation of the service
model that is neither in the table nor on the list below it fails the test.
"""

import json
import unittest

import botocore.exceptions
import botocore

from harness import WireTest
from test_cli import run_cli
from topologies import STANDING_STILL, TWO_NODES, VPC

MEMBER = "444455556666"

# Transitions take a minute, so that both clients see the states in between.
DELAY = {"min_ms": 60000, "max_ms": 60000}
SLOW = TWO_NODES.replace("seed: 7", f"""seed: 7
clock: manual
organization: {{members: ["{MEMBER}"]}}
switches:
  ipam:
    transitions:
      custom: {{create: {DELAY}, modify: {DELAY}, delete: {DELAY}, provision: {DELAY}, deprovision: {DELAY}}}
""")


def tagged(kind, **tags):
    pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
    return [{"ResourceType": kind, "Tags": pairs}]


# Operation, parameters, what to keep of the answer, what the answer must have. `$name` is what was
# kept. Paths are those of the answer in boto3. After each step a minute passes.
STEPS = (
    ("CreateIpam", {
        "Description": "plan", "OperatingRegions": [{"RegionName": "us-east-1"}], "Tier": "advanced",
        "TagSpecifications": tagged("ipam", Name="plan"), "ClientToken": "one",
    }, {"ipam": "Ipam.IpamId", "private": "Ipam.PrivateDefaultScopeId", "public": "Ipam.PublicDefaultScopeId",
        "found": "Ipam.DefaultResourceDiscoveryId"},
     {"Ipam.State": "create-in-progress", "Ipam.ScopeCount": 2, "Ipam.Tags.0.Key": "Name",
      "Ipam.IpamRegion": "us-east-1", "Ipam.MeteredAccount": "ipam-owner", "Ipam.Tier": "advanced"}),
    ("DescribeIpams", {"IpamIds": ["$ipam"]}, {}, {"Ipams.0.State": "create-complete"}),
    ("ModifyIpam", {"IpamId": "$ipam", "Description": "new", "AddOperatingRegions": [{"RegionName": "eu-west-1"}]}, {},
     {"Ipam.State": "modify-in-progress", "Ipam.Description": "new", "Ipam.OperatingRegions.0.RegionName": "eu-west-1"}),
    ("DescribeIpams", {"Filters": [{"Name": "state", "Values": ["modify-complete"]}]}, {}, {"Ipams.0.IpamId": "$ipam"}),
    ("CreateIpamScope", {"IpamId": "$ipam", "Description": "labs"}, {"scope": "IpamScope.IpamScopeId"},
     {"IpamScope.State": "create-in-progress", "IpamScope.IpamScopeType": "private", "IpamScope.IsDefault": False}),
    ("ModifyIpamScope", {"IpamScopeId": "$scope", "Description": "more labs"}, {},
     {"IpamScope.State": "modify-in-progress", "IpamScope.Description": "more labs"}),
    ("DescribeIpamScopes", {"IpamScopeIds": ["$scope"]}, {},
     {"IpamScopes.0.State": "modify-complete", "IpamScopes.0.PoolCount": 0}),
    ("CreateIpamPool", {
        "IpamScopeId": "$private", "AddressFamily": "ipv4", "Description": "top",
        "TagSpecifications": tagged("ipam-pool", Name="top"), "ClientToken": "top",
    }, {"top": "IpamPool.IpamPoolId"},
     {"IpamPool.State": "create-in-progress", "IpamPool.Locale": "None", "IpamPool.PoolDepth": 1,
      "IpamPool.IpamScopeType": "private"}),
    ("ProvisionIpamPoolCidr", {"IpamPoolId": "$top", "Cidr": "10.0.0.0/8"}, {},
     {"IpamPoolCidr.State": "pending-provision", "IpamPoolCidr.Cidr": "10.0.0.0/8"}),
    ("CreateIpamPool", {
        "IpamScopeId": "$private", "AddressFamily": "ipv4", "SourceIpamPoolId": "$top", "Locale": "us-east-1",
        "AllocationMinNetmaskLength": 16, "AllocationMaxNetmaskLength": 28, "AllocationDefaultNetmaskLength": 24,
        "AllocationResourceTags": [{"Key": "env", "Value": "test"}],
    }, {"pool": "IpamPool.IpamPoolId"},
     {"IpamPool.SourceIpamPoolId": "$top", "IpamPool.Locale": "us-east-1", "IpamPool.PoolDepth": 2,
      "IpamPool.AllocationDefaultNetmaskLength": 24, "IpamPool.AllocationResourceTags.0.Value": "test"}),
    ("ProvisionIpamPoolCidr", {"IpamPoolId": "$pool", "NetmaskLength": 16}, {"cidr": "IpamPoolCidr.Cidr"},
     {"IpamPoolCidr.NetmaskLength": 16, "IpamPoolCidr.Cidr": "10.0.0.0/16"}),
    ("GetIpamPoolCidrs", {"IpamPoolId": "$pool"}, {}, {"IpamPoolCidrs.0.State": "provisioned", "IpamPoolCidrs.0.Cidr": "$cidr"}),
    ("ProvisionIpamPoolCidr", {"IpamPoolId": "$pool", "Cidr": "192.168.0.0/16"}, {}, {"IpamPoolCidr.State": "pending-provision"}),
    ("GetIpamPoolCidrs", {"IpamPoolId": "$pool", "Filters": [{"Name": "cidr", "Values": ["192.168.0.0/16"]}]}, {},
     {"IpamPoolCidrs.0.State": "failed-provision", "IpamPoolCidrs.0.FailureReason.Code": "cidr-not-available"}),
    ("ModifyIpamPool", {
        "IpamPoolId": "$pool", "Description": "vpcs", "ClearAllocationDefaultNetmaskLength": True,
        "AddAllocationResourceTags": [{"Key": "team", "Value": "net"}],
        "RemoveAllocationResourceTags": [{"Key": "env"}],
    }, {}, {"IpamPool.State": "modify-in-progress", "IpamPool.AllocationResourceTags.0.Key": "team"}),
    ("DescribeIpamPools", {"Filters": [{"Name": "ipam-pool-id", "Values": ["$pool"]}]}, {},
     {"IpamPools.0.State": "modify-complete", "IpamPools.0.Description": "vpcs"}),
    ("AllocateIpamPoolCidr", {"IpamPoolId": "$pool", "NetmaskLength": 24, "PreviewNextCidr": True}, {"next": "IpamPoolAllocation.Cidr"}, {}),
    ("AllocateIpamPoolCidr", {
        "IpamPoolId": "$pool", "NetmaskLength": 24, "Description": "by hand", "ClientToken": "first",
        "TagSpecifications": tagged("ipam-pool-allocation", Name="first"),
    }, {"allocation": "IpamPoolAllocation.IpamPoolAllocationId"},
     {"IpamPoolAllocation.Cidr": "$next", "IpamPoolAllocation.ResourceType": "custom",
      "IpamPoolAllocation.ResourceOwner": "111122223333", "IpamPoolAllocation.Tags.0.Value": "first"}),
    ("AllocateIpamPoolCidr", {
        "IpamPoolId": "$pool", "NetmaskLength": 24, "AllowedCidrs": ["10.0.128.0/17"], "DisallowedCidrs": ["10.0.128.0/24"],
    }, {}, {"IpamPoolAllocation.Cidr": "10.0.129.0/24"}),
    ("ModifyIpamPoolAllocation", {"IpamPoolAllocationId": "$allocation", "Description": "known"}, {},
     {"IpamPoolAllocation.Description": "known"}),
    ("GetIpamPoolAllocations", {"IpamPoolId": "$pool", "IpamPoolAllocationId": "$allocation"}, {},
     {"IpamPoolAllocations.0.Description": "known", "IpamPoolAllocations.0.Cidr": "$next"}),
    ("DescribeIpamPoolAllocations", {"IpamPoolAllocationIds": ["$allocation"]}, {}, {"IpamPoolAllocations.0.Cidr": "$next"}),
    ("ReleaseIpamPoolAllocation", {"IpamPoolId": "$pool", "Cidr": "$next", "IpamPoolAllocationId": "$allocation"}, {}, {"Success": True}),
    ("GetIpamResourceCidrs", {"IpamScopeId": "$private", "ResourceId": VPC, "ResourceType": "vpc", "ResourceTag": {"Key": "Name", "Value": "demo"}}, {},
     {"IpamResourceCidrs.0.ResourceCidr": "10.0.0.0/16", "IpamResourceCidrs.0.ResourceName": "demo",
      "IpamResourceCidrs.0.IpUsage": 0.0078125, "IpamResourceCidrs.0.ManagementState": "unmanaged",
      "IpamResourceCidrs.0.ComplianceStatus": "unmanaged", "IpamResourceCidrs.0.OverlapStatus": "nonoverlapping"}),
    ("ModifyIpamResourceCidr", {
        "ResourceId": VPC, "ResourceCidr": "100.64.0.0/16", "ResourceRegion": "us-east-1", "CurrentIpamScopeId": "$private",
        "DestinationIpamScopeId": "$scope", "Monitored": True,
    }, {}, {"IpamResourceCidr.IpamScopeId": "$scope"}),
    ("GetIpamAddressHistory", {"Cidr": "10.0.0.0/16", "IpamScopeId": "$private", "VpcId": VPC, "StartTime": "2020-01-01T00:00:00Z"}, {},
     {"HistoryRecords.0.ResourceId": VPC, "HistoryRecords.0.ResourceType": "vpc", "HistoryRecords.0.ResourceName": "demo"}),
    ("CreateIpamResourceDiscovery", {"Description": "all", "OperatingRegions": [{"RegionName": "us-east-1"}]},
     {"discovery": "IpamResourceDiscovery.IpamResourceDiscoveryId"},
     {"IpamResourceDiscovery.State": "create-in-progress", "IpamResourceDiscovery.IsDefault": False}),
    ("ModifyIpamResourceDiscovery", {"IpamResourceDiscoveryId": "$discovery", "AddOperatingRegions": [{"RegionName": "eu-west-1"}]}, {},
     {"IpamResourceDiscovery.State": "modify-in-progress"}),
    ("DescribeIpamResourceDiscoveries", {"IpamResourceDiscoveryIds": ["$discovery"]}, {},
     {"IpamResourceDiscoveries.0.State": "modify-complete", "IpamResourceDiscoveries.0.OperatingRegions.1.RegionName": "us-east-1"}),
    ("AssociateIpamResourceDiscovery", {"IpamId": "$ipam", "IpamResourceDiscoveryId": "$discovery"},
     {"association": "IpamResourceDiscoveryAssociation.IpamResourceDiscoveryAssociationId"},
     {"IpamResourceDiscoveryAssociation.IpamId": "$ipam", "IpamResourceDiscoveryAssociation.ResourceDiscoveryStatus": "active"}),
    ("DescribeIpamResourceDiscoveryAssociations", {"IpamResourceDiscoveryAssociationIds": ["$association"]}, {},
     {"IpamResourceDiscoveryAssociations.0.State": "associate-complete"}),
    ("GetIpamDiscoveredAccounts", {"IpamResourceDiscoveryId": "$found", "DiscoveryRegion": "us-east-1"}, {},
     {"IpamDiscoveredAccounts.0.AccountId": "111122223333"}),
    ("GetIpamDiscoveredResourceCidrs", {
        "IpamResourceDiscoveryId": "$found", "ResourceRegion": "us-east-1",
        "Filters": [{"Name": "resource-type", "Values": ["subnet"]}],
    }, {}, {"IpamDiscoveredResourceCidrs.0.VpcId": VPC, "IpamDiscoveredResourceCidrs.0.AvailabilityZoneId": "use1-az1"}),
    ("EnableIpamOrganizationAdminAccount", {"DelegatedAdminAccountId": MEMBER}, {}, {"Success": True}),
    ("DisableIpamOrganizationAdminAccount", {"DelegatedAdminAccountId": MEMBER}, {}, {"Success": True}),
    ("DisassociateIpamResourceDiscovery", {"IpamResourceDiscoveryAssociationId": "$association"}, {},
     {"IpamResourceDiscoveryAssociation.State": "disassociate-in-progress"}),
    ("DeleteIpamResourceDiscovery", {"IpamResourceDiscoveryId": "$discovery"}, {}, {"IpamResourceDiscovery.State": "delete-in-progress"}),
    ("DeprovisionIpamPoolCidr", {"IpamPoolId": "$pool", "Cidr": "192.168.0.0/16"}, {}, {"IpamPoolCidr.State": "pending-deprovision"}),
    ("DeleteIpamPool", {"IpamPoolId": "$pool", "Cascade": True}, {}, {"IpamPool.State": "delete-in-progress"}),
    ("DeleteIpamScope", {"IpamScopeId": "$scope"}, {}, {"IpamScope.State": "delete-in-progress"}),
    ("DeleteIpam", {"IpamId": "$ipam", "Cascade": True}, {}, {"Ipam.State": "delete-in-progress"}),
    ("DescribeIpams", {}, {}, {"Ipams": []}),
)

# What the simulator does not serve, by a part of the operation's name.
LACKING = (
    "IpamPolic", "IpamPrefixListResolver", "IpamByoasn", "ByoipCidrToIpam", "IpamDiscoveredPublicAddresses",
    "IpamExternalResourceVerificationToken",
)


def at(answer, path):
    for step in path.split("."):
        answer = answer[int(step) if step.isdigit() else step]
    return answer


def filled(value, kept):
    """`value` with what was kept in place of each `$name`."""
    if isinstance(value, str) and value.startswith("$"):
        return kept[value[1:]]
    if isinstance(value, list):
        return [filled(item, kept) for item in value]
    if isinstance(value, dict):
        return {key: filled(item, kept) for key, item in value.items()}
    return value


def words(operation, parameters):
    """A call as a person types it."""
    typed = [botocore.xform_name(operation, "-")]
    for name, value in parameters.items():
        option = "--" + botocore.xform_name(name, "-")
        if isinstance(value, bool):
            typed.append(option if value else option.replace("--", "--no-", 1))
        else:
            typed += [option, value if isinstance(value, str) else json.dumps(value)]
    return typed


class Operations(WireTest):
    topology = SLOW

    def play(self, call):
        kept = {}
        for number, (operation, parameters, keep, expect) in enumerate(STEPS):
            with self.subTest(operation, number=number):
                answer = call(operation, filled(parameters, kept))
                kept |= {name: at(answer, path) for name, path in keep.items()}
                for path, value in expect.items():
                    self.assertEqual(at(answer, path), filled(value, kept), path)
            self.sim.admin("POST", "clock", {"advance_ms": 60000})

    def test_boto3_plays_the_table(self):
        self.play(lambda operation, parameters: getattr(self.ec2, botocore.xform_name(operation))(**parameters))

    def test_aws_cli_plays_the_table(self):
        def call(operation, parameters):
            done = run_cli(self.sim.url, *words(operation, parameters))
            self.assertEqual(done.returncode, 0, done.stderr)
            return json.loads(done.stdout)
        self.play(call)

    def test_no_operation_is_missing(self):
        model = self.ec2.meta.service_model
        of_ipam = {name for name in model.operation_names if "Ipam" in name}
        played = {operation for operation, *_ in STEPS}
        lacking = {name for name in of_ipam if any(part in name for part in LACKING)}
        self.assertEqual(of_ipam - lacking, played)
        for part in LACKING:
            self.assertTrue(any(part in name for name in of_ipam), f"{part}: no such operation")
        for name in lacking:
            _, _, body = self.sim.post({"Action": name, "Version": "2016-11-15"})
            self.assertIn("<Code>InvalidAction</Code>", body, name)


class Behaviour(WireTest):
    topology = STANDING_STILL

    def test_dry_run_changes_nothing(self):
        with self.refused("DryRunOperation"):
            self.ec2.create_ipam(DryRun=True)
        self.assertEqual(self.ec2.describe_ipams()["Ipams"], [])

    def test_codes_of_refusals(self):
        ipam = self.ec2.create_ipam()["Ipam"]
        pool = self.ec2.create_ipam_pool(
            IpamScopeId=ipam["PrivateDefaultScopeId"], AddressFamily="ipv4", Locale="us-east-1"
        )["IpamPool"]["IpamPoolId"]
        self.ec2.provision_ipam_pool_cidr(IpamPoolId=pool, Cidr="10.0.0.0/16")
        unknown = "0123456789abcdef0"
        for call, arguments, code in (
            ("delete_ipam", {"IpamId": f"ipam-{unknown}"}, "InvalidIpamId.NotFound"),
            ("delete_ipam", {"IpamId": "ipam-x"}, "InvalidIpamId.Malformed"),
            ("delete_ipam_scope", {"IpamScopeId": f"ipam-scope-{unknown}"}, "InvalidIpamScopeId.NotFound"),
            ("delete_ipam_pool", {"IpamPoolId": f"ipam-pool-{unknown}"}, "InvalidIpamPoolId.NotFound"),
            ("delete_ipam_pool", {"IpamPoolId": pool}, "DependencyViolation"),
            (
                "get_ipam_pool_allocations", {"IpamPoolId": pool, "IpamPoolAllocationId": "ipam-pool-alloc-00000001"},
                "InvalidIpamPoolAllocationId.NotFound",
            ),
            ("allocate_ipam_pool_cidr", {"IpamPoolId": pool}, "InvalidParameterCombination"),
            ("allocate_ipam_pool_cidr", {"IpamPoolId": pool, "NetmaskLength": 8}, "InvalidParameterValue"),
            ("allocate_ipam_pool_cidr", {"IpamPoolId": pool, "Cidr": "10.0.0.0"}, "InvalidParameterValue"),
            ("create_ipam", {}, "ResourceLimitExceeded"),
            ("describe_ipams", {"Filters": [{"Name": "moon", "Values": ["x"]}]}, "InvalidParameterValue"),
            ("describe_ipams", {"NextToken": "junk"}, "InvalidNextToken"),
            (
                "create_ipam_pool",
                {"IpamScopeId": ipam["PrivateDefaultScopeId"], "AddressFamily": "ipv4", "Locale": "eu-west-1"},
                "InvalidParameterValue",
            ),
            (
                "create_ipam_pool",
                {
                    "IpamScopeId": ipam["PrivateDefaultScopeId"], "AddressFamily": "ipv4",
                    "SourceResource": {"ResourceId": VPC, "ResourceType": "vpc"},
                },
                "MissingParameter",
            ),
        ):
            with self.subTest(call, **arguments), self.refused(code):
                getattr(self.ec2, call)(**arguments)

    def test_pages(self):
        ipam = self.ec2.create_ipam()["Ipam"]
        for _ in range(7):
            self.ec2.create_ipam_pool(IpamScopeId=ipam["PrivateDefaultScopeId"], AddressFamily="ipv4")
        pages = list(self.ec2.get_paginator("describe_ipam_pools").paginate(PaginationConfig={"PageSize": 5}))
        self.assertEqual([len(page["IpamPools"]) for page in pages], [5, 2])

    def test_eventual_consistency_can_be_switched_on(self):
        delay = {"min_ms": 3600000, "max_ms": 3600000}
        consistency = {"custom": {"hidden_permille": 1000, "hidden": delay}}
        ipam = self.sim.admin("GET", "switches")["ipam"] | {"consistency": consistency}
        self.sim.admin("PATCH", "switches", {"ipam": ipam})
        made = self.ec2.create_ipam()["Ipam"]["IpamId"]
        with self.refused("InvalidIpamId.NotFound"):
            self.ec2.describe_ipams(IpamIds=[made])
        self.sim.admin("POST", "clock", {"advance_ms": 3600000})
        self.assertEqual(self.ec2.describe_ipams(IpamIds=[made])["Ipams"][0]["IpamId"], made)

    def test_client_token_creates_once(self):
        one, other = (self.ec2.create_ipam(ClientToken="t")["Ipam"]["IpamId"] for _ in range(2))
        self.assertEqual(one, other)
        with self.refused("IdempotentParameterMismatch"):
            self.ec2.create_ipam(ClientToken="t", Description="other")

    def test_tags_change(self):
        ipam = self.ec2.create_ipam()["Ipam"]
        scope = ipam["PrivateDefaultScopeId"]
        self.ec2.create_tags(Resources=[ipam["IpamId"], scope, VPC], Tags=[{"Key": "team", "Value": "net"}])
        seen = self.ec2.describe_ipam_scopes(Filters=[{"Name": "tag:team", "Values": ["net"]}])["IpamScopes"]
        self.assertEqual([it["IpamScopeId"] for it in seen], [scope])
        tags = self.ec2.describe_tags(Filters=[{"Name": "tag:team", "Values": ["net"]}])["Tags"]
        kinds = sorted(tag["ResourceType"] for tag in tags)
        self.assertEqual(kinds, ["ipam", "ipam-scope", "vpc"])
        self.ec2.delete_tags(Resources=[scope], Tags=[{"Key": "team"}])
        self.assertEqual(self.ec2.describe_ipam_scopes(IpamScopeIds=[scope])["IpamScopes"][0]["Tags"], [])
        with self.refused("InvalidIpamPoolId.NotFound"):
            self.ec2.create_tags(Resources=["ipam-pool-0123456789abcdef0"], Tags=[{"Key": "k"}])

    def test_faults_throttling_and_log_cover_ipam(self):
        rule = {"action": "CreateIpam", "when": {"nth": 1}, "effect": {"fail": {"code": "InternalError"}}}
        self.sim.admin("POST", "faults", rule)
        with self.refused("InternalError"):
            self.ec2.create_ipam()
        self.ec2.create_ipam()
        self.sim.admin("PATCH", "switches", {"throttling": "documented"})
        with self.assertRaises(botocore.exceptions.ClientError) as caught:
            for _ in range(300):
                self.ec2.describe_ipams()
        self.assertEqual(caught.exception.response["Error"]["Code"], "RequestLimitExceeded")
        calls = self.sim.admin("GET", "calls?action=CreateIpam")
        self.assertEqual([call["error"] for call in calls], ["InternalError", None])


if __name__ == "__main__":
    unittest.main()

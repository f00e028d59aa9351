"""IMDS, read by botocore's own clients for it."""

import unittest

import botocore.utils

from harness import WireTest
from topologies import NODE_A, NODE_B, SUBNET_A, TWO_NODES


class Metadata(WireTest):
    topology = "iam_role: node-role\n" + TWO_NODES

    def fetcher(self, kind, node):
        return kind(timeout=5, num_attempts=1, base_url=self.sim.imds[node] + "/")

    def test_the_region(self):
        fetcher = self.fetcher(botocore.utils.InstanceMetadataRegionFetcher, NODE_A)
        self.assertEqual(fetcher.retrieve_region(), "us-east-1")

    def test_the_credentials_of_the_role(self):
        fetcher = self.fetcher(botocore.utils.InstanceMetadataFetcher, NODE_B)
        credentials = fetcher.retrieve_iam_role_credentials()
        self.assertEqual(credentials["role_name"], "node-role")
        self.assertTrue(credentials["access_key"] and credentials["secret_key"])
        self.assertRegex(credentials["expiry_time"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")

    def test_options_at_the_start_of_an_instance(self):
        shown = self.ec2.run_instances(
            ImageId="ami-0123456789abcdef0", InstanceType="m5.large", MinCount=1, MaxCount=1,
            SubnetId=SUBNET_A, Ipv6AddressCount=1, UserData="#cloud-config",
            IamInstanceProfile={"Name": "other-role"},
            MetadataOptions={"HttpTokens": "optional", "HttpPutResponseHopLimit": 1},
        )["Instances"][0]
        self.assertEqual(
            shown["MetadataOptions"],
            {
                "State": "applied", "HttpTokens": "optional", "HttpPutResponseHopLimit": 1,
                "HttpEndpoint": "enabled", "HttpProtocolIpv6": "disabled",
                "InstanceMetadataTags": "disabled",
            },
        )
        arn = shown["IamInstanceProfile"]["Arn"]
        self.assertEqual(arn, "arn:aws:iam::111122223333:instance-profile/other-role")
        self.assertEqual(len(shown["NetworkInterfaces"][0]["Ipv6Addresses"]), 1)
        again = self.ec2.describe_instances(InstanceIds=[shown["InstanceId"]])
        seen = again["Reservations"][0]["Instances"][0]
        self.assertEqual(seen["MetadataOptions"], shown["MetadataOptions"])

    def test_options_of_an_instance_are_refused(self):
        def start(**arguments):
            self.ec2.run_instances(
                ImageId="ami-0123456789abcdef0", InstanceType="m5.large", MinCount=1, MaxCount=1,
                SubnetId=SUBNET_A, **arguments,
            )

        with self.refused("InvalidParameterValue", "httpPutResponseHopLimit"):
            start(MetadataOptions={"HttpPutResponseHopLimit": 65})
        with self.refused("InvalidParameterValue", "iamInstanceProfile.arn"):
            start(IamInstanceProfile={"Arn": "arn:aws:iam::111122223333:role/node"})
        with self.refused("InvalidParameterValue", "16384"):
            start(UserData="x" * 16385)
        tags = [{"ResourceType": "instance", "Tags": [{"Key": "a/b", "Value": ""}]}]
        with self.refused("InvalidParameterValue", "not a valid tag key"):
            start(MetadataOptions={"InstanceMetadataTags": "enabled"}, TagSpecifications=tags)

    def test_silence_is_told_as_such(self):
        self.sim.admin("PUT", "imds/" + NODE_A, {"mode": "disabled"})
        fetcher = self.fetcher(botocore.utils.InstanceMetadataFetcher, NODE_A)
        self.assertEqual(fetcher.retrieve_iam_role_credentials(), {})


if __name__ == "__main__":
    unittest.main()

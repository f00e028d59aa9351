"""IMDS, read by botocore's own clients for it."""

import unittest

import botocore.utils

from harness import WireTest
from topologies import NODE_A, NODE_B, TWO_NODES


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

    def test_silence_is_told_as_such(self):
        self.sim.admin("PUT", "imds/" + NODE_A, {"mode": "disabled"})
        fetcher = self.fetcher(botocore.utils.InstanceMetadataFetcher, NODE_A)
        self.assertEqual(fetcher.retrieve_iam_role_credentials(), {})


if __name__ == "__main__":
    unittest.main()

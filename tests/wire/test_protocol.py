"""The Query protocol itself: statuses, headers, refusals of what is not understood, retries."""

import re
import unittest
import xml.etree.ElementTree as ElementTree

import boto3
import botocore.auth
import botocore.awsrequest
import botocore.credentials

from harness import CREDENTIALS, REGION, WireTest, http
from topologies import NODE_A, SUBNET_A, TWO_NODES, VPC

VERSION = "2016-11-15"


class Protocol(WireTest):
    topology = TWO_NODES

    def check_refusal(self, form, status, code, signed=True):
        got, headers, body = self.sim.post(form, signed)
        root = ElementTree.fromstring(body)
        self.assertEqual((got, root.findtext("Errors/Error/Code")), (status, code), body)
        self.assertEqual(root.tag, "Response")
        self.assertEqual(headers["x-amzn-requestid"], root.findtext("RequestID"))
        self.assertTrue(headers["content-type"].startswith("text/xml"), headers)
        return root.findtext("Errors/Error/Message")

    def test_refusals_and_their_statuses(self):
        describe = {"Action": "DescribeVpcs", "Version": VERSION}
        text = self.check_refusal({"Action": "MakeCoffee", "Version": VERSION}, 400, "InvalidAction")
        self.assertEqual(text, "The action MakeCoffee is not valid for this web service.")
        self.check_refusal({"Version": VERSION}, 400, "MissingAction")
        self.check_refusal({"Action": "DescribeVpcs"}, 400, "MissingParameter")
        self.check_refusal({"Action": "DescribeVpcs", "Version": "1999-01-01"}, 400, "NoSuchVersion")
        self.check_refusal(describe, 403, "MissingAuthenticationToken", signed=False)
        text = self.check_refusal(describe | {"VpcIdd.1": VPC}, 400, "UnknownParameter")
        self.assertEqual(text, "The parameter VpcIdd.1 is not recognized")
        self.check_refusal(describe | {"Filter.1.Value.1": "x"}, 400, "MissingParameter")
        self.check_refusal(describe | {"MaxResults": "many"}, 400, "InvalidParameterValue")
        self.check_refusal(describe | {"DryRun": "perhaps"}, 400, "InvalidParameterValue")
        self.check_refusal(describe | {"DryRun": "true"}, 412, "DryRunOperation")
        self.check_refusal(describe | {"VpcId.1": "vpc-x"}, 400, "InvalidVpcID.Malformed")
        self.check_refusal(describe | {"VpcId.1": "vpc-00000001"}, 400, "InvalidVpcID.NotFound")
        self.check_refusal(describe | {"NextToken": "junk"}, 400, "InvalidNextToken")

    def test_get_with_a_presigned_query_is_answered_too(self):
        request = botocore.awsrequest.AWSRequest(
            "GET", f"{self.sim.url}/?Action=DescribeVpcs&Version={VERSION}"
        )
        credentials = botocore.credentials.Credentials("AKIDEXAMPLE", "secret", "session-token")
        botocore.auth.SigV4QueryAuth(credentials, "ec2", REGION).add_auth(request)
        status, _, body = http("GET", request.url)
        self.assertEqual(status, 200, body)
        self.assertIn(VPC, body)

    def test_a_region_of_its_own(self):
        elsewhere = boto3.client(
            "ec2", endpoint_url=self.sim.url, region_name="eu-west-1", **CREDENTIALS
        )
        with self.refused("AuthFailure", "us-east-1"):
            elsewhere.describe_vpcs()

    def test_the_call_log_has_what_was_sent(self):
        self.ec2.describe_subnets(SubnetIds=[SUBNET_A])
        with self.refused("InvalidSubnetID.NotFound"):
            self.ec2.describe_subnets(SubnetIds=["subnet-0ffffffffffffffff"])
        calls = self.sim.admin("GET", "calls")
        self.assertEqual([call["action"] for call in calls], ["DescribeSubnets"] * 2)
        self.assertEqual(calls[0]["parameters"], {"SubnetId.1": SUBNET_A})
        self.assertEqual([call["result"] for call in calls], ["ok", "InvalidSubnetID.NotFound"])
        counters = self.sim.admin("GET", "counters")
        self.assertEqual(counters["DescribeSubnets"], {"calls": 2, "errors": {"InvalidSubnetID.NotFound": 1}})
        self.sim.admin("POST", "reset")
        self.assertEqual(self.sim.admin("GET", "calls"), [])
        self.assertEqual(self.sim.admin("GET", "counters"), {})


if __name__ == "__main__":
    unittest.main()

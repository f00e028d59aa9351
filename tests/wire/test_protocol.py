"""The Query protocol itself: statuses, headers, refusals of what is not understood, retries."""

import unittest
import xml.etree.ElementTree as ElementTree

import boto3
import botocore.auth
import botocore.awsrequest
import botocore.credentials
import botocore.exceptions

from harness import CREDENTIALS, REGION, WireTest, http
from topologies import SUBNET_A, STANDING_STILL, VPC

VERSION = "2016-11-15"


class Protocol(WireTest):
    topology = STANDING_STILL

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

    def test_the_operator_sees_what_boto3_sent(self):
        self.ec2.describe_subnets(SubnetIds=[SUBNET_A])
        with self.refused("InvalidSubnetID.NotFound", "The subnet ID 'subnet-0fffffffffffffff1' does not exist"):
            self.ec2.describe_subnets(SubnetIds=["subnet-0fffffffffffffff1"])
        calls = self.sim.admin("GET", "calls")
        self.assertEqual([call["action"] for call in calls], ["DescribeSubnets"] * 2)
        self.assertEqual(calls[0]["parameters"], {"SubnetId.1": SUBNET_A})
        self.assertEqual([call["error"] for call in calls], [None, "InvalidSubnetID.NotFound"])

    def test_throttling_is_retried_and_then_told(self):
        rule = {"action": "DescribeVpcs", "when": {"next": 2}, "effect": {"fail": {"code": "RequestLimitExceeded"}}}
        self.sim.admin("POST", "faults", rule)
        patient = self.sim.client(retries={"mode": "standard", "total_max_attempts": 3})
        answer = patient.describe_vpcs()
        self.assertEqual(answer["ResponseMetadata"]["RetryAttempts"], 2)
        self.sim.admin("POST", "faults", rule | {"when": "each"})
        with self.refused("RequestLimitExceeded") as caught:
            patient.describe_vpcs()
        self.assertEqual(caught.exception.response["ResponseMetadata"]["RetryAttempts"], 2)
        self.assertEqual(caught.exception.response["ResponseMetadata"]["HTTPStatusCode"], 503)

    def test_the_documented_buckets(self):
        """50 unfiltered DescribeNetworkInterfaces at once, and not many more."""
        self.sim.admin("PATCH", "switches", {"throttling": "documented"})
        codes = []
        for _ in range(80):
            try:
                self.ec2.describe_network_interfaces()
                codes.append("Success")
            except botocore.exceptions.ClientError as error:
                codes.append(error.response["Error"]["Code"])
        self.assertEqual(codes[:50], ["Success"] * 50)
        self.assertIn("RequestLimitExceeded", codes[50:])
        self.assertEqual(set(codes), {"Success", "RequestLimitExceeded"})

    def test_a_lost_reply_is_retried_by_the_client_token(self):
        self.sim.admin("POST", "faults", {"action": "CreateNetworkInterface", "when": {"nth": 1}, "effect": "lose_reply"})
        patient = self.sim.client(retries={"mode": "standard", "total_max_attempts": 2})
        eni = patient.create_network_interface(SubnetId=SUBNET_A, Description="once")["NetworkInterface"]
        calls = self.sim.admin("GET", "calls?action=CreateNetworkInterface")
        self.assertEqual([call["reply_lost"] for call in calls], [True, False])
        found = self.ec2.describe_network_interfaces(Filters=[{"Name": "description", "Values": ["once"]}])
        self.assertEqual([e["NetworkInterfaceId"] for e in found["NetworkInterfaces"]], [eni["NetworkInterfaceId"]])

    def test_accounts_by_key_id(self):
        other = self.sim.client(key_id="AKIDOTHER")
        other.describe_vpcs()
        self.ec2.describe_vpcs()
        accounts = [call["account"] for call in self.sim.admin("GET", "calls")]
        self.assertEqual(accounts, ["444455556666", "111122223333"])


if __name__ == "__main__":
    unittest.main()

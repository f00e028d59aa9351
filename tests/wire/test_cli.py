"""The AWS CLI, as a person would type it."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import unittest

from harness import CREDENTIALS, REGION, WireTest
from topologies import GROUP, NODE_A, SUBNET_A, TWO_NODES, VPC

DEADLINE_S = 60


def cli():
    """The AWS CLI of the interpreter that runs the tests, or else that of the path."""
    beside = os.path.join(os.path.dirname(sys.executable), "aws")
    found = beside if os.path.exists(beside) else shutil.which("aws")
    assert found, "no AWS CLI: install requirements.txt"
    return found


def run_cli(url, *words):
    """One command of the AWS CLI, at an endpoint."""
    environment = os.environ | {
        "AWS_ACCESS_KEY_ID": CREDENTIALS["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": CREDENTIALS["aws_secret_access_key"],
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": url,
        "AWS_PAGER": "",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    return subprocess.run(
        [cli(), "ec2", *words, "--output", "json"],
        env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )


class Cli(WireTest):
    topology = TWO_NODES

    def aws(self, *words):
        """A command that must succeed; returns its JSON."""
        done = run_cli(self.sim.url, *words)
        self.assertEqual(done.returncode, 0, f"{words}: {done.stderr}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def aws_refused(self, code, *words):
        done = run_cli(self.sim.url, *words)
        # 254 or 255, depending on the release.
        self.assertGreaterEqual(done.returncode, 254, done.stdout)
        self.assertIn(f"({code})", done.stderr)

    def test_an_interface_from_create_to_delete(self):
        created = self.aws(
            "create-network-interface", "--subnet-id", SUBNET_A, "--groups", GROUP,
            "--description", "from the command line", "--ipv4-prefix-count", "1",
            "--tag-specifications", "ResourceType=network-interface,Tags=[{Key=k,Value=v}]",
        )["NetworkInterface"]
        eni = created["NetworkInterfaceId"]
        self.assertEqual(created["TagSet"], [{"Key": "k", "Value": "v"}])
        attachment = self.aws(
            "attach-network-interface", "--network-interface-id", eni,
            "--instance-id", NODE_A, "--device-index", "1",
        )["AttachmentId"]
        self.aws(
            "modify-network-interface-attribute", "--network-interface-id", eni,
            "--attachment", f"AttachmentId={attachment},DeleteOnTermination=true",
        )
        self.aws("modify-network-interface-attribute", "--network-interface-id", eni, "--no-source-dest-check")
        assigned = self.aws(
            "assign-private-ip-addresses", "--network-interface-id", eni,
            "--secondary-private-ip-address-count", "2",
        )["AssignedPrivateIpAddresses"]
        self.assertEqual(len(assigned), 2)
        self.aws("assign-ipv6-addresses", "--network-interface-id", eni, "--ipv6-address-count", "1")
        (seen,) = self.aws(
            "describe-network-interfaces", "--filters",
            f"Name=attachment.instance-id,Values={NODE_A}", "Name=attachment.device-index,Values=1",
        )["NetworkInterfaces"]
        self.assertEqual(seen["NetworkInterfaceId"], eni)
        self.assertEqual(len(seen["PrivateIpAddresses"]), 3)
        self.assertFalse(seen["SourceDestCheck"])
        self.assertTrue(seen["Attachment"]["DeleteOnTermination"])
        self.aws(
            "unassign-private-ip-addresses", "--network-interface-id", eni,
            "--private-ip-addresses", *[entry["PrivateIpAddress"] for entry in assigned],
        )
        self.aws_refused("InvalidParameterValue", "delete-network-interface", "--network-interface-id", eni)
        self.aws("detach-network-interface", "--attachment-id", attachment, "--force")
        self.aws("delete-network-interface", "--network-interface-id", eni)
        self.aws_refused(
            "InvalidNetworkInterfaceID.NotFound", "describe-network-interfaces", "--network-interface-ids", eni
        )

    def test_reading(self):
        self.assertEqual(len(self.aws("describe-instances")["Reservations"]), 3)
        self.assertEqual(self.aws("describe-vpcs")["Vpcs"][0]["VpcId"], VPC)
        self.assertEqual(len(self.aws("describe-subnets", "--page-size", "5")["Subnets"]), 2)
        self.assertEqual(len(self.aws("describe-availability-zones")["AvailabilityZones"]), 3)
        self.assertEqual(len(self.aws("describe-security-groups")["SecurityGroups"]), 2)
        types = self.aws("describe-instance-types", "--instance-types", "m5.large", "t3.small")
        self.assertEqual(len(types["InstanceTypes"]), 2)
        self.assertEqual(len(self.aws("describe-tags")["Tags"]), 3)

    def test_building(self):
        vpc = self.aws("create-vpc", "--cidr-block", "172.16.0.0/16")["Vpc"]["VpcId"]
        self.aws("associate-vpc-cidr-block", "--vpc-id", vpc, "--cidr-block", "172.17.0.0/16")
        subnet = self.aws(
            "create-subnet", "--vpc-id", vpc, "--cidr-block", "172.17.0.0/24",
            "--availability-zone", "us-east-1b",
        )["Subnet"]["SubnetId"]
        reservation = self.aws(
            "create-subnet-cidr-reservation", "--subnet-id", subnet,
            "--cidr", "172.17.0.128/25", "--reservation-type", "prefix",
        )["SubnetCidrReservation"]["SubnetCidrReservationId"]
        seen = self.aws("get-subnet-cidr-reservations", "--subnet-id", subnet)
        self.assertEqual(seen["SubnetIpv4CidrReservations"][0]["SubnetCidrReservationId"], reservation)
        self.aws("delete-subnet-cidr-reservation", "--subnet-cidr-reservation-id", reservation)
        self.aws("create-tags", "--resources", subnet, "--tags", "Key=a,Value=b")
        self.aws("delete-tags", "--resources", subnet, "--tags", "Key=a")
        instance = self.aws(
            "run-instances", "--image-id", "ami-0123456789abcdef0", "--instance-type", "t3.small",
            "--subnet-id", subnet, "--count", "1", "--user-data", "#!/bin/sh",
            "--metadata-options", "HttpTokens=required,HttpPutResponseHopLimit=1",
            "--iam-instance-profile", "Name=node-role",
        )["Instances"][0]["InstanceId"]
        changes = self.aws("terminate-instances", "--instance-ids", instance)
        self.assertEqual(changes["TerminatingInstances"][0]["InstanceId"], instance)
        self.aws("modify-subnet-attribute", "--subnet-id", subnet, "--map-public-ip-on-launch")
        self.aws("modify-vpc-attribute", "--vpc-id", vpc, "--enable-dns-hostnames")
        shown = self.aws("describe-vpc-attribute", "--vpc-id", vpc, "--attribute", "enableDnsHostnames")
        self.assertTrue(shown["EnableDnsHostnames"]["Value"])
        (acl,) = self.aws("describe-network-acls", "--filters", f"Name=vpc-id,Values={vpc}")["NetworkAcls"]
        self.assertEqual([it["SubnetId"] for it in acl["Associations"]], [subnet])
        self.aws_refused("DependencyViolation", "delete-vpc", "--vpc-id", vpc)
        self.aws("delete-subnet", "--subnet-id", subnet)
        (seen,) = self.aws("describe-vpcs", "--vpc-ids", vpc)["Vpcs"]
        (block,) = [it for it in seen["CidrBlockAssociationSet"] if it["CidrBlock"] == "172.17.0.0/16"]
        self.aws("disassociate-vpc-cidr-block", "--association-id", block["AssociationId"])
        self.aws("delete-vpc", "--vpc-id", vpc)
        self.aws_refused("InvalidVpcID.NotFound", "describe-vpcs", "--vpc-ids", vpc)

    def test_the_commands_of_the_readme(self):
        """They need nothing from the environment but what they set."""
        readme = (pathlib.Path(__file__).parents[2] / "README.md").read_text()
        (block,) = [text for text in readme.split("```sh\n") if text.startswith("vpc-sim --config")]
        _started, *commands = block.split("\n```")[0].splitlines()
        script = "\n".join(commands).replace("http://127.0.0.1:8773", self.sim.url)
        self.assertIn(self.sim.url, script)
        environment = {
            "PATH": os.path.dirname(cli()) + os.pathsep + os.environ["PATH"],
            "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true", "AWS_PAGER": "",
        }
        done = subprocess.run(
            ["sh", "-ec", script], env=environment, capture_output=True, text=True,
            timeout=DEADLINE_S, check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(json.loads(done.stdout)["Subnets"]), 2)

    def test_refusals(self):
        self.aws_refused("DryRunOperation", "describe-vpcs", "--dry-run")
        self.aws_refused("InvalidAction", "describe-volumes")


if __name__ == "__main__":
    unittest.main()

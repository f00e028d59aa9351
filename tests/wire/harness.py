"""What the wire tests share: a vpc-sim of their own, boto3 clients, and a strict look at every answer.

The answers are judged by botocore's service model, which is AWS's own description of EC2.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import unittest
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ElementTree
from contextlib import contextmanager

import boto3
import botocore.config
import botocore.exceptions

REGION = "us-east-1"
CREDENTIALS = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "secret"}
DEADLINE_S = 60
# One for all clients: it keeps the service model, which takes long to read.
SESSION = boto3.session.Session(region_name=REGION)
XMLNS = "{http://ec2.amazonaws.com/doc/2016-11-15/}"


def vpc_sim():
    """The path of the binary under test."""
    path = os.environ.get("VPC_SIM")
    if not path:
        sys.exit("set VPC_SIM to the path of the vpc-sim binary")
    return path


class Simulator:
    """A running vpc-sim with a topology of its own, on ports of its own."""

    def __init__(self, topology):
        self.folder = tempfile.TemporaryDirectory(prefix="tp-wire-")
        folder = pathlib.Path(self.folder.name)
        config = folder / "topology.yaml"
        config.write_text(topology)
        self.log = open(folder / "log", "w+b")
        command = [vpc_sim(), "--config", str(config), "--listen", "127.0.0.1:0"]
        command += ["--imds-listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        self.ready = self._await_ready()
        self.url = self.ready["ec2"]
        self.imds = self.ready["imds"]

    def _await_ready(self):
        """What the `ready` line says; a simulator that ends before it is an error at once."""
        for line in self.process.stdout:
            if line.startswith("ready "):
                return json.loads(line.removeprefix("ready "))
        raise AssertionError("vpc-sim did not become ready:\n" + self.output())

    def output(self):
        self.log.seek(0)
        return self.log.read().decode()

    def stop(self):
        """Ends the simulator; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=DEADLINE_S)

    def client(self, key_id=CREDENTIALS["aws_access_key_id"], **config):
        """A boto3 client whose every answer is checked against the service model."""
        config.setdefault("retries", {"total_max_attempts": 1})
        credentials = CREDENTIALS | {"aws_access_key_id": key_id}
        client = SESSION.client(
            "ec2", endpoint_url=self.url, config=botocore.config.Config(**config), **credentials
        )
        client.meta.events.register("after-call.ec2", check_answer)
        return client

    def admin(self, method, path, body=None):
        """One call of the admin endpoint; returns its JSON."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(
            self.url + "/_sim/" + path, data=data, method=method, headers=headers
        )
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            return json.loads(answer.read() or b"null")

    def post(self, form, signed=True):
        """A hand-written Query request; returns status, headers and body."""
        return http("POST", self.url + "/", form, AUTHORIZATION if signed else {})


AUTHORIZATION = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261121/us-east-1/ec2/aws4_request, "
    "SignedHeaders=host, Signature=0000"
}


def http(method, url, form=None, headers=None):
    """One HTTP exchange; an error status is an answer like any other."""
    data = None if form is None else urllib.parse.urlencode(form).encode()
    request = urllib.request.Request(url, data=data, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def check_answer(http_response, parsed, model, **_):
    """Fails on an element that the service model does not know or whose text is of another type."""
    if http_response.status_code >= 300:
        return
    root = ElementTree.fromstring(http_response.content)
    expected = XMLNS + model.name + "Response"
    assert root.tag == expected, f"root is {root.tag}, not {expected}"
    request_id = root.findtext(XMLNS + "requestId")
    assert request_id, f"{model.name}: no requestId"
    assert http_response.headers["x-amzn-requestid"] == request_id, f"{model.name}: two request ids"
    for child in list(root):
        if child.tag in (XMLNS + "requestId", XMLNS + "return"):
            root.remove(child)
    if model.output_shape is None:
        assert not list(root), f"{model.name}: no output expected, got {[c.tag for c in root]}"
    else:
        check_element(model.name, root, model.output_shape)


def check_element(path, element, shape):
    """One element of an answer against its shape, recursively."""
    children = list(element)
    if shape.type_name == "structure":
        members = {
            member.serialization.get("name", name): member for name, member in shape.members.items()
        }
        tags = [child.tag for child in children]
        assert len(tags) == len(set(tags)), f"{path}: an element twice in {tags}"
        for child in children:
            name = child.tag.removeprefix(XMLNS)
            assert name in members, f"{path}: unknown element {name}"
            check_element(f"{path}/{name}", child, members[name])
    elif shape.type_name == "list":
        for child in children:
            assert child.tag == XMLNS + "item", f"{path}: {child.tag} in a list"
            check_element(f"{path}/item", child, shape.member)
    else:
        assert not children, f"{path}: elements inside a {shape.type_name}"
        check_text(path, element.text or "", shape)


PATTERNS = {
    "boolean": r"true|false",
    "integer": r"-?\d+",
    "long": r"-?\d+",
    "float": r"-?\d+(\.\d+)?",
    "double": r"-?\d+(\.\d+)?",
    "timestamp": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z",
}


# The API reference shows it in the sample answer; the model's enumeration lacks it.
BESIDE_THE_ENUMERATION = {("CreateNetworkInterface/networkInterface/status", "pending")}


def check_text(path, text, shape):
    """The text of a scalar element against its type and enumeration."""
    pattern = PATTERNS.get(shape.type_name, r"(?s).*")
    assert re.fullmatch(pattern, text), f"{path}: {text!r} is no {shape.type_name}"
    values = getattr(shape, "enum", None)
    known = not values or text in values or (path, text) in BESIDE_THE_ENUMERATION
    # New instance types appear all the time: clients must take names that are newer than they are.
    assert known or shape.name == "InstanceType", f"{path}: {text!r} is no {shape.name}"


class WireTest(unittest.TestCase):
    """Tests that each have a simulator of their own, started from the class's topology."""

    topology = None

    def setUp(self):
        self.sim = Simulator(self.topology)
        self.addCleanup(self.end)
        self.ec2 = self.sim.client()

    def end(self):
        code = self.sim.stop()
        output = self.sim.output()
        self.sim.log.close()
        self.sim.folder.cleanup()
        self.assertEqual(code, 0, output)
        self.assertNotIn("panicked", output)

    @contextmanager
    def refused(self, code, text=None):
        """The block must end in this EC2 error."""
        with self.assertRaises(botocore.exceptions.ClientError) as caught:
            yield caught
        error = caught.exception.response["Error"]
        self.assertEqual(error["Code"], code, error)
        if text:
            self.assertIn(text, error["Message"])

"""The VPC that most wire tests run in, with fixed ids so that a test can name what it touches."""

VPC = "vpc-0aaaaaaaaaaaaaaa1"
SUBNET_A = "subnet-0aaaaaaaaaaaaaaa1"
SUBNET_B = "subnet-0bbbbbbbbbbbbbbb1"
GROUP = "sg-0aaaaaaaaaaaaaaa1"
NODE_A = "i-0aaaaaaaaaaaaaaa1"
NODE_B = "i-0bbbbbbbbbbbbbbb1"
XEN_NODE = "i-0ccccccccccccccc1"

TWO_NODES = f"""
region: us-east-1
account: "111122223333"
access_keys:
  AKIDOTHER: "444455556666"
seed: 7
vpcs:
  - id: {VPC}
    cidrs: [10.0.0.0/16, 100.64.0.0/16]
    ipv6_cidrs: ["2600:1f13:abc:de00::/56"]
    tags: {{Name: demo}}
    security_groups:
      - {{name: nodes, id: {GROUP}, description: the nodes}}
    subnets:
      - name: a
        id: {SUBNET_A}
        az: us-east-1a
        cidr: 10.0.2.0/24
        ipv6_cidr: "2600:1f13:abc:de00::/64"
        tags: {{kubernetes.io/role/cni: "1"}}
      - name: b
        id: {SUBNET_B}
        az: us-east-1b
        cidr: 10.0.3.0/24
        used: [10.0.3.20, 10.0.3.40-10.0.3.41]
        reservations:
          - {{cidr: 10.0.3.128/26, type: prefix, description: pods}}
instances:
  - {{id: {NODE_A}, type: m5.large, subnet: a, address: 10.0.2.157, ipv6_address: "2600:1f13:abc:de00::a1", security_groups: [nodes], tags: {{Name: node-a}}}}
  - {{id: {NODE_B}, type: m5.large, subnet: b, address: 10.0.3.157}}
  - {{id: {XEN_NODE}, type: t2.micro, subnet: a, address: 10.0.2.200}}
"""

# The same without time, for tests that count the tokens of a bucket: a slow machine refills none.
STANDING_STILL = TWO_NODES.replace("seed: 7", "seed: 7\nclock: manual")

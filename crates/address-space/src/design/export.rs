//! A plan as Terraform's JSON and as commands of the AWS CLI. Names in a plan have only letters, digits and dashes, so
//! nothing has to be quoted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::steps::{Make, Scope, Step, steps, subject, tags};
use super::{Design, LaidPool, LaidSubnet, LaidVpc};

/// The plan for Terraform's provider `hashicorp/aws`, in the syntax of `.tf.json` files. With the id of a scope of Amazon
/// VPC IPAM, pools become pools there, from which the VPCs draw.
#[must_use]
pub fn terraform(design: &Design, ipam_scope: Option<&str>) -> Value {
    let regions: BTreeSet<&str> = design.pools.iter().map(|pool| pool.region.as_str()).collect();
    let provider = |region: &&str| json!({"alias": region, "region": region});
    let mut resources = Resources::default();
    for pool in &design.pools {
        if let Some(scope) = ipam_scope {
            resources.pool(pool, scope);
        }
        for vpc in &pool.vpcs {
            resources.vpc(pool, vpc, ipam_scope.is_some());
            vpc.subnets.iter().for_each(|subnet| resources.subnet(pool, vpc, subnet));
        }
    }
    let mut document = json!({
        "terraform": {"required_providers": {"aws": {"source": "hashicorp/aws"}}},
        "provider": {"aws": regions.iter().map(provider).collect::<Vec<_>>()},
    });
    // Terraform refuses an empty block.
    if !resources.0.is_empty() {
        document["resource"] = json!(resources.0);
    }
    document
}

/// Resources by type and name.
#[derive(Default)]
struct Resources(BTreeMap<&'static str, BTreeMap<String, Value>>);

impl Resources {
    fn add(&mut self, kind: &'static str, name: String, value: Value) {
        self.0.entry(kind).or_default().insert(name, value);
    }

    fn pool(&mut self, pool: &LaidPool, scope: &str) {
        let provider = format!("aws.{}", pool.region);
        let own = json!({
            "provider": provider, "address_family": "ipv4", "ipam_scope_id": scope, "locale": pool.region,
            "tags": tags(pool, &pool.name, &pool.name),
        });
        self.add("aws_vpc_ipam_pool", pool.name.clone(), own);
        let id = format!("${{aws_vpc_ipam_pool.{}.id}}", pool.name);
        let cidr = json!({"provider": provider, "ipam_pool_id": id, "cidr": pool.cidr});
        self.add("aws_vpc_ipam_pool_cidr", pool.name.clone(), cidr);
    }

    fn vpc(&mut self, pool: &LaidPool, vpc: &LaidVpc, draws_from_pool: bool) {
        let mut own = json!({
            "provider": format!("aws.{}", pool.region), "cidr_block": vpc.cidr,
            "tags": tags(pool, &vpc.name, &subject(pool, &vpc.name)),
        });
        if draws_from_pool {
            own["ipv4_ipam_pool_id"] = json!(format!("${{aws_vpc_ipam_pool.{}.id}}", pool.name));
            own["depends_on"] = json!([format!("aws_vpc_ipam_pool_cidr.{}", pool.name)]);
        }
        self.add("aws_vpc", vpc_key(pool, vpc), own);
    }

    fn subnet(&mut self, pool: &LaidPool, vpc: &LaidVpc, subnet: &LaidSubnet) {
        let provider = format!("aws.{}", pool.region);
        let key = format!("{}_{}", vpc_key(pool, vpc), subnet.name);
        let own = json!({
            "provider": provider, "vpc_id": format!("${{aws_vpc.{}.id}}", vpc_key(pool, vpc)),
            "availability_zone": subnet.zone, "cidr_block": subnet.cidr,
            "tags": tags(pool, &subnet.name, &format!("{}/{}", subject(pool, &vpc.name), subnet.name)),
        });
        let id = format!("${{aws_subnet.{key}.id}}");
        for (n, cidr) in subnet.for_prefixes.iter().enumerate() {
            let one = json!({"provider": provider, "subnet_id": id, "cidr_block": cidr, "reservation_type": "prefix"});
            self.add("aws_ec2_subnet_cidr_reservation", format!("{key}_{n}"), one);
        }
        self.add("aws_subnet", key, own);
    }
}

/// No name has an underscore, so no two keys are alike.
fn vpc_key(pool: &LaidPool, vpc: &LaidVpc) -> String {
    format!("{}_{}", pool.name, vpc.name)
}

const HEAD: &str =
    "#!/bin/sh\n# Makes VPCs, subnets and their reservations for prefixes.\nset -eu\n";
/// Waits for a state, five minutes at most.
const UNTIL_IS: &str = r#"until_is() {
  want=$1; shift; n=0
  until [ "$("$@")" = "$want" ]; do
    n=$((n + 1)); [ "$n" -lt 60 ]; sleep 5
  done
}
"#;

/// The plan as a script for `sh`: each step as a command. It stops at the first command that fails. A second run makes
/// everything again. With a scope of Amazon VPC IPAM, it makes pools there, from which the VPCs draw.
#[must_use]
pub fn commands(design: &Design, scope: Option<&Scope>) -> String {
    let mut script = HEAD.to_owned();
    if scope.is_some() {
        script.push_str(UNTIL_IS);
    }
    for (n, step) in steps(design, scope).iter().enumerate() {
        // The shell knows what a step has made by the number of the step.
        let Some(make) = step.make.inside_of(|before| Some(format!("\"$id{before}\""))) else {
            continue;
        };
        if matches!(make, Make::Vpc { .. } | Make::Pool { .. }) {
            writeln!(script, "\n# {}", step.subject).expect("a String takes everything");
        }
        writeln!(script, "{}", command(n, step, &make)).expect("a String takes everything");
    }
    script
}

fn command(n: usize, step: &Step, make: &Make<String>) -> String {
    let region = &step.region;
    let tags = |kind: &str| {
        let pairs = step.tags.iter().map(|(key, value)| format!("{{Key={key},Value={value}}}"));
        let pairs: Vec<_> = pairs.collect();
        format!("--tag-specifications 'ResourceType={kind},Tags=[{}]'", pairs.join(","))
    };
    match make {
        Make::Pool { scope, locale } => format!(
            "id{n}=$(aws ec2 create-ipam-pool --region {region} --ipam-scope-id {scope} --address-family ipv4 \
             --locale {locale} {} --query IpamPool.IpamPoolId --output text)\n\
             until_is create-complete aws ec2 describe-ipam-pools --region {region} --ipam-pool-ids \"$id{n}\" \
             --query 'IpamPools[0].State' --output text",
            tags("ipam-pool")
        ),
        Make::PoolRange { pool, cidr } => format!(
            "id{n}={pool}\n\
             aws ec2 provision-ipam-pool-cidr --region {region} --ipam-pool-id {pool} --cidr {cidr}\n\
             until_is provisioned aws ec2 get-ipam-pool-cidrs --region {region} --ipam-pool-id {pool} \
             --query \"IpamPoolCidrs[?Cidr=='{cidr}'].State\" --output text"
        ),
        Make::Vpc { pool, cidr } => format!(
            "id{n}=$(aws ec2 create-vpc --region {region} --cidr-block {cidr}{} {} --query Vpc.VpcId --output text)",
            pool.as_ref().map_or(String::new(), |pool| format!(" --ipv4-ipam-pool-id {pool}")),
            tags("vpc")
        ),
        Make::Subnet { vpc, zone, cidr } => format!(
            "id{n}=$(aws ec2 create-subnet --region {region} --vpc-id {vpc} --availability-zone {zone} \
             --cidr-block {cidr} {} --query Subnet.SubnetId --output text)",
            tags("subnet")
        ),
        Make::Reservation { subnet, cidr } => format!(
            "aws ec2 create-subnet-cidr-reservation --region {region} --subnet-id {subnet} --cidr {cidr} \
             --reservation-type prefix"
        ),
    }
}

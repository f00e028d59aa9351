//! Two servers of EC2 as child processes: `vpc-sim`, and moto's, which has other authors.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_ec2::types::{Filter, InstanceType};
use ipam::id::{InstanceId, SecurityGroupId, SubnetId, VpcId};
use ipnet::Ipv6Net;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::wire::id;

/// Python starts slowly on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const REGION: &str = "us-east-1";
pub(crate) const ZONE: &str = "us-east-1a";
/// Three ENIs with ten addresses each.
pub(crate) const TYPE: &str = "m5.large";

/// A running server. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Process {
    /// The line in which it names its address.
    pub(crate) ready: String,
    _child: Child,
}

impl Process {
    /// `vpc-sim` with the topology in `file`.
    async fn vpc_sim(file: &Path) -> Self {
        let program = vpc_sim_program();
        let mut command = Command::new(&program);
        command.arg("--config").arg(file).args(["--listen", "127.0.0.1:0"]);
        command.args(["--imds-listen", "127.0.0.1:0"]);
        let help = "build it with `cargo build -p vpc-sim`, or set TIDEPOOL_VPC_SIM to its path";
        Self::start(command, |line| line.strip_prefix("ready "), help).await
    }

    /// Python with `program`, which prints one line when it is ready.
    pub(crate) async fn python(program: &str, argument: &str) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", program, argument]);
        Self::start(command, |line| Some(line), "install Python 3").await
    }

    /// moto's server.
    pub(crate) async fn moto() -> Self {
        let program =
            std::env::var_os("TIDEPOOL_MOTO_SERVER").unwrap_or_else(|| "moto_server".into());
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", "0"]);
        let help = "install `moto[server,ec2]` from PyPI, or set TIDEPOOL_MOTO_SERVER to the path \
                    of its moto_server";
        Self::start(command, |line| Some(line.split_once("Running on ")?.1), help).await
    }

    async fn start(mut command: Command, ready: fn(&str) -> Option<&str>, help: &str) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}; {help}"));
        let (lines, mut said) = mpsc::unbounded_channel();
        drain(child.stdout.take().expect("piped"), lines.clone());
        drain(child.stderr.take().expect("piped"), lines);
        let mut log = Vec::new();
        let ready = tokio::time::timeout(PATIENCE, async {
            while let Some(line) = said.recv().await {
                if let Some(ready) = ready(&line) {
                    return ready.to_owned();
                }
                log.push(line);
            }
            String::new()
        })
        .await
        .unwrap_or_default();
        let log = log.join("\n");
        assert!(!ready.is_empty(), "{command:?} did not come up within {PATIENCE:?}:\n{log}");
        Self { ready, _child: child }
    }
}

/// Reads to the end even when nobody listens any more: a full pipe would stop the process.
fn drain(stream: impl AsyncRead + Unpin + Send + 'static, to: mpsc::UnboundedSender<String>) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            to.send(line).ok();
        }
    });
}

/// Beside this test in the build folder, unless the environment names another.
fn vpc_sim_program() -> PathBuf {
    if let Some(path) = std::env::var_os("TIDEPOOL_VPC_SIM") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a running test has a program");
    let folder = test.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
    folder.expect("a program lies in a folder").join("vpc-sim")
}

/// A VPC with subnets and idle instances, made through EC2's API on whichever server.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) endpoint: String,
    pub(crate) vpc: VpcId,
    /// A /17: so large that moto, which picks at random and forgets, hardly ever picks one
    /// address twice. The only one with IPv6.
    pub(crate) subnet: SubnetId,
    /// A /28: 11 addresses.
    pub(crate) tiny_subnet: SubnetId,
    /// A /27: 27 addresses, but each of its two /28 holds reserved ones.
    pub(crate) unaligned_subnet: SubnetId,
    pub(crate) group: SecurityGroupId,
    pub(crate) instances: Vec<InstanceId>,
}

impl Site {
    /// Makes it on the server at `endpoint`.
    pub(crate) async fn build(endpoint: &str, instances: i32) -> Self {
        let ec2 = plain_client(endpoint);
        let (vpc, ipv6_cidr) = vpc(&ec2).await;
        let subnet = subnet(&ec2, &vpc, "10.0.128.0/17", Some(ipv6_cidr)).await;
        Self {
            endpoint: endpoint.to_owned(),
            tiny_subnet: self::subnet(&ec2, &vpc, "10.0.8.0/28", None).await,
            unaligned_subnet: self::subnet(&ec2, &vpc, "10.0.9.0/27", None).await,
            group: default_group(&ec2, &vpc).await,
            instances: run_instances(&ec2, &subnet, instances).await,
            vpc,
            subnet,
        }
    }
}

/// The SDK as it comes, for what the daemon never does.
pub(crate) fn plain_client(endpoint: &str) -> Client {
    let config = aws_sdk_ec2::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static(REGION))
        .endpoint_url(endpoint)
        .credentials_provider(Credentials::new("AKIDEXAMPLE", "secret", None, None, "test"))
        .http_client(aws_smithy_http_client::Builder::new().build_http());
    Client::from_conf(config.build())
}

/// With the first /64 of its IPv6 block.
async fn vpc(ec2: &Client) -> (VpcId, String) {
    let request = ec2.create_vpc().cidr_block("10.0.0.0/16").amazon_provided_ipv6_cidr_block(true);
    let answer = request.send().await.expect("CreateVpc");
    let vpc = answer.vpc().expect("a VPC");
    let ipv6 = vpc.ipv6_cidr_block_association_set().first().and_then(|it| it.ipv6_cidr_block());
    let ipv6: Ipv6Net = ipv6.expect("an IPv6 block").parse().expect("an IPv6 block");
    let first = Ipv6Net::new(ipv6.network(), 64).expect("64 is a length");
    (id(vpc.vpc_id().expect("an id")), first.to_string())
}

async fn subnet(ec2: &Client, vpc: &VpcId, cidr: &str, ipv6_cidr: Option<String>) -> SubnetId {
    let request = ec2.create_subnet().vpc_id(vpc.as_str()).cidr_block(cidr);
    let request = request.set_ipv6_cidr_block(ipv6_cidr);
    let answer = request.availability_zone(ZONE).send().await.expect("CreateSubnet");
    id(answer.subnet().and_then(|subnet| subnet.subnet_id()).expect("a subnet"))
}

async fn default_group(ec2: &Client, vpc: &VpcId) -> SecurityGroupId {
    let of_vpc = Filter::builder().name("vpc-id").values(vpc.as_str()).build();
    let answer = ec2.describe_security_groups().filters(of_vpc).send().await;
    let answer = answer.expect("DescribeSecurityGroups");
    id(answer.security_groups().first().and_then(|group| group.group_id()).expect("a group"))
}

async fn run_instances(ec2: &Client, subnet: &SubnetId, count: i32) -> Vec<InstanceId> {
    let answer = ec2
        .run_instances()
        .image_id("ami-12c6146b")
        .instance_type(InstanceType::from(TYPE))
        .subnet_id(subnet.as_str())
        .min_count(count)
        .max_count(count)
        .send()
        .await
        .expect("RunInstances");
    let instances = answer.instances().iter();
    instances.map(|instance| id(instance.instance_id().expect("an id"))).collect()
}

const TOPOLOGY: &str = r#"
region: us-east-1
account: "111122223333"
vpcs:
  - id: vpc-0aaaaaaaaaaaaaaa1
    cidrs: [10.1.0.0/16, 100.64.0.0/16]
    security_groups: [{name: nodes, id: sg-0aaaaaaaaaaaaaaa1}, {name: pods, id: sg-0aaaaaaaaaaaaaaa2}]
    subnets: [{name: a, id: subnet-0aaaaaaaaaaaaaaa1, az: us-east-1a, cidr: 10.1.2.0/24}]
instances:
  - {id: i-0aaaaaaaaaaaaaaa1, type: m5.large, subnet: a, address: 10.1.2.157, security_groups: [nodes]}
"#;

/// A running `vpc-sim` with [`TOPOLOGY`].
#[derive(Debug)]
pub(crate) struct VpcSim {
    /// Where its EC2 is.
    pub(crate) ec2: String,
    /// Where the metadata service of the topology's instance is.
    pub(crate) imds: String,
    _process: Process,
}

impl VpcSim {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("topology.yaml");
        std::fs::write(&file, TOPOLOGY).expect("write the topology");
        let process = Process::vpc_sim(&file).await;
        let ready: Value = serde_json::from_str(&process.ready).expect("JSON");
        let url = |value: &Value| value.as_str().expect("a URL").to_owned();
        let imds = url(&ready["imds"]["i-0aaaaaaaaaaaaaaa1"]);
        Self { ec2: url(&ready["ec2"]), imds, _process: process }
    }

    /// One call of the operator's endpoint.
    pub(crate) async fn operate(&self, method: &str, path: &str, body: &Value) {
        let host = self.ec2.strip_prefix("http://").expect("a URL of HTTP");
        let body = body.to_string();
        let request = format!(
            "{method} /_sim/{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(host).await.expect("connect to vpc-sim");
        stream.write_all(request.as_bytes()).await.expect("send");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{method} {path} {body}: {answer}");
    }
}

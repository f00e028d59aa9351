//! The `vpc-sim` command as scripts use it, and with root as a VPC of real devices.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, getuid, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use tempfile::TempDir;

const TOPOLOGY: &str = "\
region: us-east-1
account: '111122223333'
anonymous: true
fabric_netns: FABRIC
vpcs:
  - cidrs: [10.0.0.0/16]
    ipv6_cidrs: ['2600:1f:0:100::/56']
    subnets:
      - {name: a, id: subnet-0aaaaaaaaaaaaaaa1, az: us-east-1a, cidr: 10.0.1.0/24, ipv6_cidr: '2600:1f:0:100::/64'}
instances:
  - {id: i-0aaaaaaaaaaaaaaa1, type: m5.large, subnet: a, address: 10.0.1.10, ipv6_address: '2600:1f:0:100::10', netns: NODE-a}
  - {id: i-0bbbbbbbbbbbbbbb1, type: m5.large, subnet: a, address: 10.0.1.11, netns: NODE-b}
";

/// A simulator in its own process, with a topology whose namespaces are its own.
struct Sim {
    child: Child,
    ready: Value,
    announced: Vec<String>,
    folder: TempDir,
    id: String,
}

impl Sim {
    fn start(test: &str, arguments: &[&str]) -> Self {
        let id = format!("tp-{test}-{}", std::process::id());
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("topology.yaml");
        let fabric = format!("{id}-fabric");
        std::fs::write(&config, TOPOLOGY.replace("FABRIC", &fabric).replace("NODE", &id)).unwrap();
        let child = vpc_sim(&config)
            .args(["--listen", "127.0.0.1:0", "--ready-file"])
            .arg(folder.path().join("ready.json"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut sim = Self { child, ready: Value::Null, announced: Vec::new(), folder, id };
        let lines = BufReader::new(sim.child.stdout.take().unwrap()).lines();
        for line in lines.map(Result::unwrap) {
            if let Some(json) = line.strip_prefix("ready ") {
                sim.ready = serde_json::from_str(json).unwrap();
                return sim;
            }
            sim.announced.push(line);
        }
        panic!("ended before it was ready: {:?}", sim.announced);
    }

    fn stop(&mut self, signal: Signal) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap()
    }

    /// The body of the answer to a request sent from inside a namespace of this test.
    fn ask_in(&self, node: &str, server: &str, request: &str) -> String {
        body(&self.try_in(node, server, request).unwrap())
    }

    /// The whole answer to such a request. An error if nothing comes for a second.
    fn try_in(&self, node: &str, server: &str, request: &str) -> std::io::Result<String> {
        let netns = File::open(format!("/run/netns/{}-{node}", self.id)).unwrap();
        let ask = || {
            move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&netns),
                Some(LinkNameSpaceType::Network),
            )
            .unwrap();
            exchange(server, request, Some(Duration::from_secs(1)))
        };
        // A separate thread, which never leaves the namespace.
        std::thread::scope(|scope| scope.spawn(ask).join().unwrap())
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.stop(Signal::TERM);
        }
    }
}

fn vpc_sim(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vpc-sim"));
    command.arg("--config").arg(config);
    command
}

fn ask(server: &str, request: &str) -> String {
    body(&exchange(server, request, None).unwrap())
}

fn body(answer: &str) -> String {
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
}

/// One request on a new connection, and the whole answer. The pause is how long nothing may come.
fn exchange(server: &str, request: &str, pause: Option<Duration>) -> std::io::Result<String> {
    let (head, body) = request.split_once("\n\n").unwrap_or((request, ""));
    let head = head.replace('\n', "\r\n");
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(pause)?;
    let length = body.len();
    write!(
        stream,
        "{head}\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn command_prints_its_endpoints() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut sim = Sim::start("ready", &["--imds-listen", "127.0.0.1:0"]);
        let ec2 = sim.ready["ec2"].as_str().unwrap().to_owned();
        let imds: Vec<&str> = sim.ready["imds"]
            .as_object()
            .unwrap()
            .values()
            .map(|url| url.as_str().unwrap())
            .collect();
        assert_eq!(imds.len(), 2);
        assert_ne!(imds[0], imds[1]);
        assert_eq!(sim.announced[0], format!("ec2 {ec2}"));
        assert_eq!(sim.announced[1], format!("imds {} i-0aaaaaaaaaaaaaaa1", imds[0]));
        let file = std::fs::read_to_string(sim.folder.path().join("ready.json")).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&file).unwrap(), sim.ready);
        let server = ec2.strip_prefix("http://").unwrap();
        let answer = ask(server, "POST / HTTP/1.1\n\nAction=DescribeVpcs&Version=2016-11-15");
        assert!(answer.contains("<cidrBlock>10.0.0.0/16</cidrBlock>"), "{answer}");
        assert_eq!(sim.stop(signal).code(), Some(0));
        assert!(TcpStream::connect(server).is_err(), "nobody listens any more");
    }
}

#[test]
fn check_reads_topology_only() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("bad.yaml");
    let check = |text: &str, code: i32, error: &str| {
        std::fs::write(&config, text).unwrap();
        let done = vpc_sim(&config).arg("--check").output().unwrap();
        let stderr = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(code), "{stderr}");
        assert_eq!(stderr, error.replace("FILE", config.to_str().unwrap()));
    };
    check(TOPOLOGY, 0, "");
    check(
        &TOPOLOGY.replace("subnet: a, address: 10.0.1.11", "subnet: b"),
        1,
        "vpc-sim: FILE:12: there is no subnet `b`; use one of: a\n",
    );
}

#[test]
fn address_in_use_is_named() {
    let sim = Sim::start("taken", &[]);
    let taken = sim.ready["ec2"].as_str().unwrap().strip_prefix("http://").unwrap();
    let config = sim.folder.path().join("topology.yaml");
    let done = vpc_sim(&config).args(["--listen", taken]).output().unwrap();
    let stderr = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(&format!("listen on {taken} for EC2: ")), "{stderr}");
}

/// Instances use EC2 and IMDS at their addresses in a VPC. The source address identifies the
/// instance. A new ENI appears as a device, and nothing is left at the end.
#[test]
fn command_serves_instances_in_fabric() {
    if std::env::var("TIDEPOOL_SKIP_ROOT_TESTS").is_ok_and(|skip| skip == "1") {
        return;
    }
    assert!(getuid().is_root(), "needs root; TIDEPOOL_SKIP_ROOT_TESTS=1 skips it");
    let mut sim = Sim::start("body", &["--fabric"]);
    assert_eq!(sim.ready["imds"], serde_json::json!({}));
    assert_eq!(sim.ready["fabric"]["ec2"], "http://169.254.169.254:8773");
    let metadata = |node: &str, path: &str| {
        let ttl = "x-aws-ec2-metadata-token-ttl-seconds: 60";
        let imds = "169.254.169.254:80";
        let token = sim.ask_in(node, imds, &format!("PUT /latest/api/token HTTP/1.1\n{ttl}"));
        let get = format!("GET /latest/{path} HTTP/1.1\nx-aws-ec2-metadata-token: {token}");
        sim.ask_in(node, imds, &get)
    };
    assert_eq!(metadata("a", "meta-data/instance-id"), "i-0aaaaaaaaaaaaaaa1");
    assert_eq!(metadata("b", "meta-data/instance-id"), "i-0bbbbbbbbbbbbbbb1");

    let ec2 = |form: &str| {
        let form = format!("POST / HTTP/1.1\n\n{form}&Version=2016-11-15");
        sim.ask_in("a", "169.254.169.254:8773", &form)
    };
    let created = ec2("Action=CreateNetworkInterface&SubnetId=subnet-0aaaaaaaaaaaaaaa1");
    let (eni, mac) = (element(&created, "networkInterfaceId"), element(&created, "macAddress"));
    let attached = ec2(&format!(
        "Action=AttachNetworkInterface&NetworkInterfaceId={eni}&DeviceIndex=1&\
         InstanceId=i-0aaaaaaaaaaaaaaa1"
    ));
    assert!(macs_in(&sim, "a").contains(&mac.to_owned()), "the device is there with the answer");
    assert!(metadata("a", "meta-data/network/interfaces/macs").contains(mac));
    ec2(&format!(
        "Action=DetachNetworkInterface&AttachmentId={}",
        element(&attached, "attachmentId")
    ));
    assert!(!macs_in(&sim, "a").contains(&mac.to_owned()));

    let admin = sim.ask_in("a", "169.254.169.254:8773", "GET /_sim/calls HTTP/1.1");
    assert_eq!(admin, "", "an instance is no operator");
    assert_eq!(sim.stop(Signal::TERM).code(), Some(0));
    let left: Vec<_> =
        std::fs::read_dir("/run/netns").unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(&sim.id)), "{left:?}");
}

/// A VPC, a subnet and an instance that clients make while the simulator runs are served as those of the topology are.
#[test]
fn instance_of_a_client_gets_a_namespace() {
    if std::env::var("TIDEPOOL_SKIP_ROOT_TESTS").is_ok_and(|skip| skip == "1") {
        return;
    }
    let mut sim = Sim::start("place", &["--fabric"]);
    let ec2 = |form: &str| {
        let form = format!("POST / HTTP/1.1\n\n{form}&Version=2016-11-15");
        sim.ask_in("a", "169.254.169.254:8773", &form)
    };
    let vpc = ec2("Action=CreateVpc&CidrBlock=10.7.0.0/24");
    let vpc = element(&vpc, "vpcId");
    let subnet = ec2(&format!("Action=CreateSubnet&VpcId={vpc}&CidrBlock=10.7.0.0/28"));
    let subnet = element(&subnet, "subnetId");
    let run = "Action=RunInstances&ImageId=ami-1&InstanceType=t3.small&MinCount=1&MaxCount=1";
    let run = ec2(&format!("{run}&PrivateIpAddress=10.7.0.9&SubnetId={subnet}"));
    let instance = element(&run, "instanceId");

    let address = sim.ready["ec2"].as_str().unwrap().trim_start_matches("http://").to_owned();
    let place = |instance: &str, netns: &str| {
        let body = serde_json::json!({ "netns": netns });
        let put = format!("PUT /_sim/netns/{instance} HTTP/1.1\n\n{body}");
        ask(&address, &put)
    };
    let name = |of: &str| format!("{}-{of}", sim.id);
    let (own, taken, fabric) = (name("c"), name("a"), name("fabric"));
    for (instance, netns, why) in [
        ("i-0ccccccccccccccc1", own.as_str(), "there is no such instance"),
        (instance, &taken, "is in use"),
        (instance, &fabric, "is in use"),
        (instance, &format!("{fabric}-outside"), "is in use"),
        (instance, "a/b", "is not 1 to 64 letters"),
    ] {
        let answer = place(instance, netns);
        assert!(answer.contains(why), "{instance} in {netns}: {answer}");
    }
    assert_eq!(place(instance, &own), "{}");
    assert_eq!(place(instance, &own), "{}", "the same again");
    assert!(place(instance, &name("d")).contains(&format!("has the namespace {own}")));
    let ttl = "x-aws-ec2-metadata-token-ttl-seconds: 60";
    let token = format!("PUT /latest/api/token HTTP/1.1\n{ttl}");
    let token = sim.ask_in("c", "169.254.169.254:80", &token);
    let get = "GET /latest/meta-data/instance-id HTTP/1.1\nx-aws-ec2-metadata-token:";
    assert_eq!(sim.ask_in("c", "169.254.169.254:80", &format!("{get} {token}")), instance);
    assert_eq!(sim.stop(Signal::TERM).code(), Some(0));
    assert!(!Path::new("/run/netns").join(&own).exists());
}

/// A pod behind an instance, on the network as a CNI plugin makes it. Removed when dropped.
struct Pod {
    netns: String,
}

impl Pod {
    fn start(sim: &Sim, node: &str, address: &str) -> Self {
        let (netns, node) = (format!("{}-pod", sim.id), format!("{}-{node}", sim.id));
        ip(&["netns", "add", &netns]);
        let pod = Self { netns };
        let pair = ["pod0", "up", "type", "veth", "peer", "name", "eth0", "netns", &pod.netns];
        ip(&[&["-n", &node, "link", "add"], &pair[..]].concat());
        ip(&["-n", &pod.netns, "link", "set", "eth0", "up"]);
        ip(&["-n", &pod.netns, "address", "add", address, "dev", "eth0"]);
        let router = ["default", "via", "169.254.1.1", "dev", "eth0", "onlink"];
        ip(&[&["-n", &pod.netns, "route", "add"], &router[..]].concat());
        ip(&["-n", &node, "route", "add", address, "dev", "pod0"]);
        let forwarding =
            ["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.pod0.proxy_arp=1"];
        ip(&[&["netns", "exec", &node], &forwarding[..]].concat());
        pod
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.netns]).status();
    }
}

fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(output.status.success(), "ip {args:?}: {output:?}");
}

/// A token travels as far as the instance's options say. Other answers of IMDS reach every pod.
#[test]
fn token_beyond_hop_limit_never_arrives() {
    if std::env::var("TIDEPOOL_SKIP_ROOT_TESTS").is_ok_and(|skip| skip == "1") {
        return;
    }
    let sim = Sim::start("hops", &["--fabric"]);
    let operator = sim.ready["ec2"].as_str().unwrap().strip_prefix("http://").unwrap();
    let eni = "Action=DescribeNetworkInterfaces&Filter.1.Name=private-ip-address\
               &Filter.1.Value.1=10.0.1.10";
    let version = "Version=2016-11-15";
    let eni = ask(operator, &format!("POST / HTTP/1.1\n\n{eni}&{version}"));
    let eni = element(&eni, "networkInterfaceId");
    let assign = format!(
        "Action=AssignPrivateIpAddresses&NetworkInterfaceId={eni}&PrivateIpAddress.1=10.0.1.50"
    );
    ask(operator, &format!("POST / HTTP/1.1\n\n{assign}&{version}"));
    let _pod = Pod::start(&sim, "a", "10.0.1.50/32");

    let imds = "169.254.169.254:80";
    let put = "PUT /latest/api/token HTTP/1.1\nx-aws-ec2-metadata-token-ttl-seconds: 60";
    let get = "GET /latest/meta-data/mac HTTP/1.1";
    let limit = |n: u8| {
        let body = format!(r#"{{"hop_limit": {n}}}"#);
        let path = "/_sim/imds/i-0aaaaaaaaaaaaaaa1";
        assert_eq!(ask(operator, &format!("PUT {path} HTTP/1.1\n\n{body}")), "{}");
    };
    let refused = |answer: String| answer.contains("401 Unauthorized");
    limit(1);
    assert!(sim.ask_in("a", imds, put).starts_with("AQAEA"), "the instance itself");
    assert!(refused(sim.ask_in("pod", imds, get)), "an answer without a token travels far");
    let waits = sim.try_in("pod", imds, put).unwrap_err();
    assert_eq!(waits.kind(), std::io::ErrorKind::WouldBlock, "no answer at all");
    limit(2);
    assert!(sim.ask_in("pod", imds, put).starts_with("AQAEA"));
}

/// IMDS has an IPv6 address only for instances whose options say so.
#[test]
fn imds_over_ipv6_is_an_option() {
    if std::env::var("TIDEPOOL_SKIP_ROOT_TESTS").is_ok_and(|skip| skip == "1") {
        return;
    }
    let sim = Sim::start("imds6", &["--fabric"]);
    let operator = sim.ready["ec2"].as_str().unwrap().strip_prefix("http://").unwrap();
    let get = "GET /latest/meta-data/mac HTTP/1.1";
    let imds = "[fd00:ec2::254]:80";
    assert_eq!(sim.try_in("a", imds, get).unwrap(), "", "closed without an answer");
    let path = "/_sim/imds/i-0aaaaaaaaaaaaaaa1";
    ask(operator, &format!("PUT {path} HTTP/1.1\n\n{{\"ipv6\": true}}"));
    assert!(sim.try_in("a", imds, get).unwrap().contains("401 Unauthorized"));
}

fn element<'a>(xml: &'a str, name: &str) -> &'a str {
    let after = xml.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("{xml}")).1;
    after.split_once('<').unwrap().0
}

fn macs_in(sim: &Sim, node: &str) -> Vec<String> {
    let netns = format!("{}-{node}", sim.id);
    let links = Command::new("ip").args(["-n", &netns, "-br", "link"]).output().unwrap();
    let links = String::from_utf8(links.stdout).unwrap();
    links.lines().filter_map(|line| line.split_whitespace().nth(2)).map(str::to_owned).collect()
}

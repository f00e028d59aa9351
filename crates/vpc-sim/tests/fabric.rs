//! The fabric against the kernel: what is delivered, what is dropped, and what is left behind.
//!
//! Needs root. Everything happens in network namespaces whose names contain the test and the
//! process id. The observers are iproute2 and ping, which share no code with the fabric.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net};
use vpc_sim::fabric::{
    AttachedEni, Fabric, FabricConfig, Instance, NetnsName, Routing, StartError, SyncError,
    VpcSnapshot,
};

const ROUTER: &str = "10.0.1.1";
const A0: &str = "10.0.1.10";
const A1: &str = "10.0.1.11";
const B0: &str = "10.0.2.20";
const POD: &str = "10.0.1.50";

/// A fabric with two instances of two ENIs each: `a` in 10.0.1.0/24, `b` in 10.0.2.0/24.
struct Lab {
    fabric: Fabric,
    snapshot: VpcSnapshot,
    id: String,
}

impl Lab {
    async fn start(test: &str) -> Self {
        let mut lab = Self::empty(test).await;
        lab.snapshot = two_instances(&lab.id);
        lab.sync().await;
        lab
    }

    async fn empty(test: &str) -> Self {
        let id = format!("tp-{test}-{}", std::process::id());
        let fabric = Fabric::start(config(&id)).await.unwrap();
        Self { fabric, snapshot: VpcSnapshot::default(), id }
    }

    async fn sync(&mut self) {
        self.fabric.sync(&self.snapshot).await.unwrap();
    }

    fn netns(&self, name: &str) -> String {
        format!("{}-{name}", self.id)
    }

    /// The `index`th ENI of instance `a`.
    fn eni(&mut self, index: usize) -> &mut AttachedEni {
        &mut self.snapshot.instances[0].enis[index]
    }

    async fn assign(&mut self, eni: usize, net: &str) {
        self.eni(eni).assigned.insert(net.parse().unwrap());
        self.sync().await;
    }

    async fn unassign(&mut self, eni: usize, net: &str) {
        self.eni(eni).assigned.remove(&net.parse().unwrap());
        self.sync().await;
    }

    /// Configures the node for pods on the second ENI of `a`, as a node agent does. The node itself
    /// answers to `local`.
    fn use_second_eni(&self, local: &str) {
        let a = self.netns("a");
        ip(&["-n", &a, "link", "set", "ens6", "up"]);
        ip(&["-n", &a, "address", "add", &format!("{A1}/32"), "dev", "ens6"]);
        let table = ["table", "100", "default", "via", ROUTER, "dev", "ens6", "onlink"];
        ip(&[&["-n", &a, "route", "add"], &table[..]].concat());
        ip(&["-n", &a, "rule", "add", "from", local, "lookup", "100"]);
        ip(&["-n", &a, "route", "add", "local", local, "dev", "lo"]);
    }

    fn pings(&self, from: &str, to: &str) -> bool {
        pings(&self.netns(from), &[to])
    }

    fn is_silent(&self, from: &str, to: &str) -> bool {
        is_silent(&self.netns(from), &[to])
    }

    /// Packets that the fabric dropped because they came from the wrong device.
    fn n_reverse_path_drops(&self) -> u64 {
        let text = stdout(&exec(&self.id, &["cat", "/proc/net/netstat"]));
        let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let mut columns = names.split(' ').zip(values.split(' '));
        columns.find(|(name, _)| *name == "IPReversePathFilter").unwrap().1.parse().unwrap()
    }
}

fn config(id: &str) -> FabricConfig {
    FabricConfig { netns: id.parse().unwrap() }
}

fn two_instances(id: &str) -> VpcSnapshot {
    let instance = |name: &str, enis: Vec<AttachedEni>| Instance {
        netns: format!("{id}-{name}").parse().unwrap(),
        enis,
    };
    let cidrs = ["10.0.0.0/16".parse().unwrap(), "2600:1f:0:100::/56".parse().unwrap()];
    let mut routing = Routing::default();
    routing.pass_within(&cidrs);
    VpcSnapshot {
        routing,
        cidrs: BTreeSet::from(cidrs),
        instances: vec![
            instance("a", vec![eni(0, [10, 0, 1, 10]), eni(1, [10, 0, 1, 11])]),
            instance("b", vec![eni(0, [10, 0, 2, 20]), eni(1, [10, 0, 2, 21])]),
        ],
    }
}

fn eni(device_index: u16, primary: [u8; 4]) -> AttachedEni {
    let [_, _, subnet, host] = primary;
    AttachedEni {
        id: format!("eni-{subnet:08x}{host:09x}"),
        mac: [2, 0, 0, 0, subnet, host],
        network_card: 0,
        device_index,
        is_primary: device_index == 0,
        ipv4: Some(Ipv4Net::new_assert(primary.into(), 24)),
        assigned: BTreeSet::new(),
        in_ipv6_subnet: false,
        source_dest_check: true,
    }
}

/// A pod's namespace, linked to an instance as by a CNI plugin. Removed when dropped.
struct Pod(String);

impl Pod {
    fn start(lab: &Lab, instance: &str, address: &str) -> Self {
        let (pod, node) = (Self(lab.netns("pod")), lab.netns(instance));
        let name = &pod.0;
        let default = ["default", "via", "169.254.1.1", "dev", "eth0", "onlink"];
        ip(&["netns", "add", name]);
        let pair = ["type", "veth", "peer", "name", "eth0", "netns", name];
        ip(&[&["-n", &node, "link", "add", "pod0", "up"], &pair[..]].concat());
        ip(&["-n", name, "link", "set", "eth0", "up"]);
        ip(&["-n", name, "address", "add", &format!("{address}/32"), "dev", "eth0"]);
        ip(&[&["-n", name, "route", "add"], &default[..]].concat());
        ip(&["-n", &node, "route", "add", address, "dev", "pod0"]);
        must(&node, &["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.pod0.proxy_arp=1"]);
        pod
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

fn command(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn ip(args: &[&str]) -> String {
    let output = command("ip", args);
    assert!(output.status.success(), "ip {args:?}: {output:?}");
    stdout(&output)
}

fn exec(netns: &str, args: &[&str]) -> Output {
    command("ip", &[&["netns", "exec", netns], args].concat())
}

fn must(netns: &str, args: &[&str]) -> String {
    let output = exec(netns, args);
    assert!(output.status.success(), "in {netns}: {args:?}: {output:?}");
    stdout(&output)
}

/// Whether a ping is answered. On a busy machine that takes its time.
fn pings(netns: &str, args: &[&str]) -> bool {
    exec(netns, &[&["ping", "-n", "-c", "1", "-w", "20"], args].concat()).status.success()
}

/// Whether a ping is not answered for a second.
fn is_silent(netns: &str, args: &[&str]) -> bool {
    !exec(netns, &[&["ping", "-n", "-c", "1", "-W", "1"], args].concat()).status.success()
}

/// Names of the veth devices in a namespace. Some kernels add tunnel devices to each namespace.
fn devices(netns: &str) -> Vec<String> {
    let text = ip(&["-n", netns, "-brief", "link", "show", "type", "veth"]);
    let first = |line: &str| line.split([' ', '@']).next().unwrap().to_owned();
    text.lines().map(first).collect()
}

fn namespaces_of(id: &str) -> Vec<String> {
    let text = ip(&["netns", "list"]);
    let names = text.lines().filter_map(|line| line.split(' ').next());
    let mut names: Vec<String> =
        names.filter(|name| name.starts_with(id)).map(str::to_owned).collect();
    names.sort();
    names
}

/// True if tests that need root are skipped. Otherwise they fail without root.
fn skipped() -> bool {
    std::env::var("TIDEPOOL_SKIP_ROOT_TESTS").is_ok_and(|value| value == "1")
}

#[tokio::test]
async fn primary_addresses_reach_each_other() {
    if skipped() {
        return;
    }
    let lab = Lab::start("primaries").await;
    assert!(lab.pings("a", B0));
    assert!(lab.pings("b", A0));
    let jumbo = [B0, "-M", "do", "-s", "8973"];
    assert!(pings(&lab.netns("a"), &jumbo), "9001 bytes with both headers");
    lab.fabric.stop().await.unwrap();
}

#[tokio::test]
async fn router_and_imds_do_not_answer_ping() {
    if skipped() {
        return;
    }
    let mut lab = Lab::empty("silent").await;
    lab.snapshot = two_instances(&lab.id);
    let a6 = "2600:1f:0:101::10".parse::<IpAddr>().unwrap();
    lab.eni(0).assigned.insert(a6.into());
    lab.sync().await;
    for address in [ROUTER, "169.254.169.254", "fe80:ec2::1%ens5", "fd00:ec2::254"] {
        assert!(lab.is_silent("a", address), "{address}");
    }
    let a = lab.netns("a");
    for (family, router) in [("-4", ROUTER), ("-6", "fe80:ec2::1")] {
        let neighbour = ip(&["-n", &a, family, "neighbour", "show", router]);
        assert!(neighbour.contains("lladdr"), "it is there all the same: {neighbour}");
    }
}

#[tokio::test]
async fn instance_without_ipv4_reaches_others_by_ipv6() {
    if skipped() {
        return;
    }
    let mut lab = Lab::empty("native").await;
    lab.snapshot = two_instances(&lab.id);
    let (a6, b6) = ("2600:1f:0:101::10", "2600:1f:0:102::20");
    for (instance, address) in lab.snapshot.instances.iter_mut().zip([a6, b6]) {
        instance.enis.truncate(1);
        let eni = &mut instance.enis[0];
        eni.assigned.insert(address.parse::<IpAddr>().unwrap().into());
        eni.ipv4 = None;
    }
    lab.sync().await;
    let a = lab.netns("a");
    assert_eq!(ip(&["-n", &a, "-4", "address", "show", "dev", "ens5"]), "");
    assert_eq!(ip(&["-n", &a, "-4", "route"]), "");
    assert!(lab.pings("a", b6));
    assert!(lab.pings("b", a6));
    assert!(lab.fabric.sync(&lab.snapshot).await.unwrap().is_unchanged());
}

#[tokio::test]
async fn router_advertises_itself_in_ipv6_subnets() {
    if skipped() {
        return;
    }
    let mut lab = Lab::empty("advertised").await;
    lab.snapshot = two_instances(&lab.id);
    lab.eni(1).in_ipv6_subnet = true;
    lab.sync().await;
    let (a, b) = (lab.netns("a"), lab.netns("b"));
    assert_eq!(must(&a, &["cat", "/proc/sys/net/ipv6/conf/ens5/accept_ra"]).trim(), "0");
    for netns in [&a, &b] {
        let soon = "net.ipv6.conf.ens6.router_solicitation_delay=0";
        must(netns, &["sysctl", "-qw", "net.ipv6.conf.ens6.accept_dad=0", soon]);
        ip(&["-n", netns, "link", "set", "ens6", "up"]);
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    let learnt = loop {
        let routes = ip(&["-n", &a, "-6", "route", "show", "default"]);
        if routes.contains("ra") || Instant::now() > deadline {
            break routes;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(learnt.contains("default via fe80:ec2::1 dev ens6 proto ra"), "{learnt}");
    let elsewhere = ip(&["-n", &b, "-6", "route", "show", "default"]);
    assert_eq!(elsewhere, "", "its subnet has no IPv6 block");
}

#[tokio::test]
async fn instances_in_one_subnet_reach_each_other() {
    if skipped() {
        return;
    }
    let mut lab = Lab::start("one-subnet").await;
    let id = lab.id.clone();
    let enis = vec![eni(0, [10, 0, 1, 30])];
    let netns: NetnsName = format!("{id}-c").parse().unwrap();
    lab.snapshot.instances.push(Instance { netns, enis });
    lab.sync().await;
    assert!(lab.pings("a", "10.0.1.30"), "the router answers ARP for the neighbour");
    assert!(lab.pings("c", A0));
}

#[tokio::test]
async fn new_instance_is_configured_as_by_cloud_image() {
    if skipped() {
        return;
    }
    let lab = Lab::start("boot").await;
    let a = lab.netns("a");
    assert_eq!(devices(&a), ["ens5", "ens6"]);
    let ens5 = ip(&["-n", &a, "address", "show", "ens5"]);
    for part in ["mtu 9001", ",UP", "02:00:00:00:01:0a", "inet 10.0.1.10/24"] {
        assert!(ens5.contains(part), "{part} in {ens5}");
    }
    let ens6 = ip(&["-n", &a, "address", "show", "ens6"]);
    for part in ["mtu 9001", "state DOWN", "02:00:00:00:01:0b"] {
        assert!(ens6.contains(part), "{part} in {ens6}");
    }
    assert!(!ens6.contains("inet"), "nothing is configured: {ens6}");
    let routes = ip(&["-n", &a, "route"]);
    assert!(routes.contains("default via 10.0.1.1 dev ens5"), "{routes}");
    assert_eq!(must(&a, &["cat", "/proc/sys/net/ipv4/ip_forward"]).trim(), "0");
}

#[tokio::test]
async fn only_assigned_addresses_are_delivered() {
    if skipped() {
        return;
    }
    let mut lab = Lab::start("assigned").await;
    lab.use_second_eni(POD);
    assert!(lab.is_silent("b", POD), "not assigned yet");
    lab.assign(1, "10.0.1.50/32").await;
    assert!(lab.pings("b", POD));
    lab.unassign(1, "10.0.1.50/32").await;
    assert!(lab.is_silent("b", POD), "not assigned any more");
}

#[tokio::test]
async fn packet_from_wrong_eni_is_dropped() {
    if skipped() {
        return;
    }
    let mut lab = Lab::start("wrong-eni").await;
    lab.use_second_eni(POD);
    lab.assign(1, "10.0.1.50/32").await;
    let a = lab.netns("a");
    assert!(pings(&a, &["-I", POD, B0]), "through its own ENI");
    assert!(lab.pings("a", B0), "and the primary's own packets");
    assert_eq!(lab.n_reverse_path_drops(), 0);
    ip(&["-n", &a, "rule", "delete", "from", POD, "lookup", "100"]);
    assert!(is_silent(&a, &["-I", POD, B0]), "through the primary ENI");
    assert_ne!(lab.n_reverse_path_drops(), 0);

    lab.eni(0).source_dest_check = false;
    lab.sync().await;
    assert!(pings(&a, &["-I", POD, B0]), "allowed without the check");
    lab.eni(0).source_dest_check = true;
    lab.sync().await;
    assert!(is_silent(&a, &["-I", POD, B0]));
}

#[tokio::test]
async fn reassigned_address_moves_to_other_eni() {
    if skipped() {
        return;
    }
    let mut lab = Lab::start("moves").await;
    lab.use_second_eni(POD);
    lab.assign(0, "10.0.1.50/32").await;
    assert!(lab.is_silent("b", POD), "it is the first ENI's, the answer leaves by the second");
    lab.eni(0).assigned.clear();
    lab.assign(1, "10.0.1.50/32").await;
    // It asked in vain for its router with this source address, and would ask again after a second.
    ip(&["-n", &lab.netns("a"), "neigh", "flush", "dev", "ens6"]);
    assert!(lab.pings("b", POD));
}

#[tokio::test]
async fn prefix_delivers_all_its_addresses() {
    if skipped() {
        return;
    }
    let mut lab = Lab::start("prefix").await;
    lab.use_second_eni("10.0.1.64/27");
    lab.assign(1, "10.0.1.64/28").await;
    for host in 64..80 {
        assert!(lab.pings("b", &format!("10.0.1.{host}")), "10.0.1.{host}");
    }
    assert!(lab.is_silent("b", "10.0.1.80"), "the next one is not in the prefix");
}

#[tokio::test]
async fn ipv6_is_delivered_and_source_checked() {
    if skipped() {
        return;
    }
    let mut lab = Lab::empty("ipv6").await;
    lab.snapshot = two_instances(&lab.id);
    let (a6, b6, pod6) = ("2600:1f:0:101::10", "2600:1f:0:102::20", "2600:1f:0:101:a::7");
    lab.eni(0).assigned.insert(a6.parse::<IpAddr>().unwrap().into());
    lab.snapshot.instances[1].enis[0].assigned.insert(b6.parse::<IpAddr>().unwrap().into());
    lab.assign(1, "2600:1f:0:101:a::/80").await;
    assert!(lab.pings("a", b6));
    assert!(lab.pings("b", a6));

    let a = lab.netns("a");
    must(&a, &["sysctl", "-qw", "net.ipv6.conf.ens6.accept_dad=0"]);
    ip(&["-n", &a, "link", "set", "ens6", "up"]);
    ip(&["-n", &a, "route", "add", "local", pod6, "dev", "lo"]);
    assert!(lab.is_silent("b", pod6), "the answer leaves through the primary ENI");
    lab.eni(0).source_dest_check = false;
    lab.sync().await;
    assert!(lab.fabric.sync(&lab.snapshot).await.unwrap().is_unchanged());
    assert!(lab.pings("b", pod6), "allowed without the check");
    lab.eni(0).source_dest_check = true;
    lab.sync().await;
    assert!(lab.is_silent("b", pod6));
    ip(&["-n", &a, "-6", "rule", "add", "from", pod6, "lookup", "100"]);
    let table = ["table", "100", "default", "via", "fe80:ec2::1", "dev", "ens6"];
    ip(&[&["-n", &a, "-6", "route", "add"], &table[..]].concat());
    assert!(lab.pings("b", pod6));
    lab.unassign(1, "2600:1f:0:101:a::/80").await;
    assert!(lab.is_silent("b", pod6));
}

#[tokio::test]
async fn addresses_outside_vpc_are_unreachable() {
    if skipped() {
        return;
    }
    let lab = Lab::start("outside").await;
    let outside = exec(&lab.netns("a"), &["ping", "-n", "-c", "1", "-W", "1", "198.51.100.1"]);
    assert!(stdout(&outside).contains("Destination Net Unreachable"), "{outside:?}");
    let nobody = exec(&lab.netns("a"), &["ping", "-n", "-c", "1", "-W", "1", "10.0.3.9"]);
    assert!(stdout(&nobody).contains("0 received"), "{nobody:?}");
    assert!(!stdout(&nobody).contains("Unreachable"), "a VPC drops in silence: {nobody:?}");
}

#[tokio::test]
async fn devices_follow_their_enis() {
    if skipped() {
        return;
    }
    let mut lab = Lab::start("devices").await;
    assert!(lab.fabric.sync(&lab.snapshot).await.unwrap().is_unchanged());

    let detached = lab.snapshot.instances[0].enis.pop().unwrap();
    let report = lab.fabric.sync(&lab.snapshot).await.unwrap();
    assert_eq!(report.detached, [detached.id.as_str()]);
    assert_eq!(devices(&lab.netns("a")), ["ens5"]);

    let moved = AttachedEni { device_index: 2, ..detached };
    lab.snapshot.instances[1].enis.push(moved.clone());
    let report = lab.fabric.sync(&lab.snapshot).await.unwrap();
    assert_eq!(report.attached, [moved.id.as_str()]);
    assert_eq!(devices(&lab.netns("b")), ["ens5", "ens6", "ens7"]);

    lab.snapshot.instances[1].enis.pop();
    lab.snapshot.instances[0].enis.push(AttachedEni { device_index: 1, ..moved });
    let report = lab.fabric.sync(&lab.snapshot).await.unwrap();
    assert_eq!((report.detached.len(), report.attached.len()), (1, 1), "moved in one go");
    assert_eq!(devices(&lab.netns("a")), ["ens5", "ens6"]);

    lab.snapshot.instances.remove(0);
    lab.sync().await;
    assert_eq!(namespaces_of(&lab.id), [lab.id.clone(), lab.netns("b")]);
}

#[tokio::test]
async fn sync_repairs_fabric_and_keeps_node_changes() {
    if skipped() {
        return;
    }
    let mut lab = Lab::start("drift").await;
    let a = lab.netns("a");
    ip(&["-n", &a, "address", "add", "10.0.1.99/32", "dev", "ens5"]);
    ip(&["-n", &a, "route", "replace", "default", "via", ROUTER, "dev", "ens5", "metric", "7"]);
    assert!(lab.fabric.sync(&lab.snapshot).await.unwrap().is_unchanged());
    assert!(ip(&["-n", &a, "address"]).contains("10.0.1.99/32"));

    ip(&["-n", &lab.id, "route", "delete", B0]);
    ip(&["-n", &lab.id, "route", "add", "unreachable", "10.0.1.77"]);
    ip(&["-n", &lab.id, "route", "add", "blackhole", "10.0.1.78", "proto", "static"]);
    assert!(lab.is_silent("a", B0));
    let report = lab.fabric.sync(&lab.snapshot).await.unwrap();
    assert_eq!((report.n_added, report.n_deleted), (1, 1));
    assert!(lab.pings("a", B0));

    ip(&["-n", &a, "link", "delete", "ens6"]);
    let report = lab.fabric.sync(&lab.snapshot).await.unwrap();
    assert_eq!(report.attached.len(), 1);
    assert_eq!(devices(&a), ["ens5", "ens6"]);
}

#[tokio::test]
async fn failed_attachment_does_not_stop_others() {
    if skipped() {
        return;
    }
    let mut lab = Lab::empty("clash").await;
    let own = Netns::add(&lab.netns("a"));
    ip(&["-n", &own.0, "link", "add", "ens6", "type", "veth", "peer", "name", "mine"]);
    lab.snapshot = two_instances(&lab.id);
    let Err(SyncError::Attach { first, others, report }) = lab.fabric.sync(&lab.snapshot).await
    else {
        panic!("ens6 is taken")
    };
    assert_eq!((first.device.as_str(), others.len(), report.attached.len()), ("ens6", 0, 3));
    assert!(lab.pings("a", B0));
    ip(&["-n", &own.0, "link", "delete", "ens6"]);
    lab.sync().await;
    assert_eq!(devices(&own.0), ["ens5", "ens6"]);
}

#[tokio::test]
async fn listener_sees_pod_address() {
    if skipped() {
        return;
    }
    let mut lab = Lab::start("listener").await;
    lab.assign(0, "10.0.1.50/32").await;
    let pod = Pod::start(&lab, "a", POD);
    for port in [80, 8773] {
        let address = SocketAddr::from((Ipv4Addr::new(169, 254, 169, 254), port));
        let listener = lab.fabric.tcp_listener(address).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let ask = format!("exec 3<>/dev/tcp/169.254.169.254/{port}; cat <&3");
        let asked = pod.0.clone();
        let client = tokio::task::spawn_blocking(move || {
            must(&asked, &["timeout", "10", "bash", "-c", &ask])
        });
        let (stream, peer) = listener.accept().await.unwrap();
        let mut stream = stream.into_std().unwrap();
        write!(stream, "you are {}", peer.ip()).unwrap();
        drop(stream);
        assert_eq!(client.await.unwrap(), format!("you are {POD}"));
    }
    let elsewhere = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 80));
    assert!(lab.fabric.tcp_listener(elsewhere).is_err(), "not the fabric's address");
}

/// A namespace of this test.
struct Netns(String);

impl Netns {
    fn add(name: &str) -> Self {
        ip(&["netns", "add", name]);
        Self(name.to_owned())
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

#[tokio::test]
async fn stop_removes_everything() {
    if skipped() {
        return;
    }
    for by_drop in [false, true] {
        let lab = Lab::empty("leftovers").await;
        let own = Netns::add(&lab.netns("b"));
        let mut lab = Lab { snapshot: two_instances(&lab.id), ..lab };
        lab.sync().await;
        assert_eq!(devices(&own.0), ["ens5", "ens6"]);
        let address = SocketAddr::from((Ipv4Addr::new(169, 254, 169, 254), 80));
        let _keeps_the_namespace_alive = lab.fabric.tcp_listener(address).unwrap();
        if by_drop {
            drop(lab.fabric);
        } else {
            lab.fabric.stop().await.unwrap();
        }
        assert_eq!(namespaces_of(&lab.id), [own.0.as_str()], "only what was there before");
        assert_eq!(devices(&own.0), [""; 0]);
    }
}

#[tokio::test]
async fn namespace_name_in_use_is_refused() {
    if skipped() {
        return;
    }
    let lab = Lab::start("in-use").await;
    let second = Fabric::start(config(&lab.id)).await;
    assert!(matches!(second, Err(StartError::InUse(_))), "{second:?}");
    assert!(lab.pings("a", B0), "the first one is unharmed");

    let foreign = Netns::add(&lab.netns("foreign"));
    let third = Fabric::start(config(&foreign.0)).await;
    assert!(matches!(third, Err(StartError::NotOurs(_))), "{third:?}");
    assert!(namespaces_of(&lab.id).contains(&foreign.0));
}

#[test]
fn fabric_without_root_fails_clearly() {
    if skipped() {
        return;
    }
    let nobody = rustix::process::Uid::from_raw(65534);
    let start = move || {
        // Changes this thread only.
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(Fabric::start(config("tp-no-root")))
    };
    let started = std::thread::spawn(start).join().unwrap();
    assert!(matches!(started, Err(StartError::NotRoot)), "{started:?}");
}

const CRASHES: &str = "FABRIC_TEST_CRASHES";

#[tokio::test]
#[ignore = "no test: the process that a_crashed_fabric_is_replaced starts"]
async fn crashes() {
    let Ok(id) = std::env::var(CRASHES) else { return };
    let mut fabric = Fabric::start(config(&id)).await.unwrap();
    fabric.sync(&two_instances(&id)).await.unwrap();
    std::process::abort();
}

#[tokio::test]
async fn crashed_fabric_is_replaced() {
    if skipped() {
        return;
    }
    let id = format!("tp-crash-{}", std::process::id());
    let own = Netns::add(&format!("{id}-b"));
    let crash = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crashes", "--ignored"])
        .env(CRASHES, &id)
        .output()
        .unwrap();
    assert!(!crash.status.success());
    assert_eq!(devices(&own.0), ["ens5", "ens6"], "left behind by {crash:?}");

    let mut lab = Lab::empty("crash").await;
    assert_eq!(namespaces_of(&id), [id.as_str(), own.0.as_str()]);
    assert_eq!(devices(&own.0), [""; 0]);
    lab.snapshot = two_instances(&id);
    lab.sync().await;
    assert!(lab.pings("a", B0));
}

#[tokio::test]
async fn fabric_attaches_thirty_enis() {
    if skipped() {
        return;
    }
    let mut lab = Lab::empty("thirty").await;
    let enis =
        |instance: u8| (0..15).map(move |i| eni(i.into(), [10, 0, instance, 10 + i])).collect();
    for instance in [1, 2] {
        let netns: NetnsName = lab.netns(&format!("n{instance}")).parse().unwrap();
        lab.snapshot.instances.push(Instance { netns, enis: enis(instance) });
    }
    for eni in lab.snapshot.instances.iter_mut().flat_map(|instance| &mut instance.enis) {
        let [.., subnet, host] = eni.ipv4.unwrap().addr().octets();
        let base = 128 + (host - 10) * 8;
        let assigned = (0..8).map(|i| IpNet::from(IpAddr::from([10, 0, subnet, base + i])));
        eni.assigned.extend(assigned);
    }
    let started = Instant::now();
    lab.sync().await;
    let attached = started.elapsed();
    let started = Instant::now();
    assert!(lab.fabric.sync(&lab.snapshot).await.unwrap().is_unchanged());
    let unchanged = started.elapsed();
    assert_eq!(devices(&lab.netns("n2")).len(), 15);
    let started = Instant::now();
    lab.fabric.stop().await.unwrap();
    let stopped = started.elapsed();
    println!("30 ENIs, 240 addresses: {attached:?}, again {unchanged:?}, stop {stopped:?}");
}

//! The ways out of a VPC, in the kernel: what leaves by a gateway and as what, and what does not.
//!
//! Needs root. The observers are sockets in the instances' namespaces and ping, which share no code
//! with the fabric. Each test has a simulator of its own.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use ec2_model::id::{AddressAssociationId, EniId};
use ec2_model::request::{
    AllocateAddress, AssignPrivateIpAddresses, AssociateAddress, AssociateVpcCidrBlock,
    DisassociateAddress, Request, WantedIpv4,
};
use ec2_model::response::Response;
use vpc_sim::server::{OutsideEndpoint, Server, Settings};
use vpc_sim::simulator::Caller;
use vpc_sim::world::Place;

/// In the public subnet, with a public address.
const A: &str = "10.0.1.10";
const A_PUBLIC: &str = "203.0.113.10";
const A6: &str = "2600:1f13:abc:de01::10";
/// Another address of the same ENI, as pods have it.
const POD: &str = "10.0.1.50";
/// In the subnet that leads to the NAT gateway.
const B: &str = "10.0.2.10";
const NAT: &str = "203.0.113.200";
/// In a subnet without a way out.
const C: &str = "10.0.3.10";
/// In the peered VPC.
const P: &str = "10.1.1.10";
/// In a VPC that has no peering.
const S: &str = "10.2.1.10";

/// Seconds in which a busy machine answers.
const PATIENCE: usize = 20;

struct World {
    server: Server,
    id: String,
    outside: OutsideEndpoint,
}

fn topology(id: &str) -> String {
    format!(
        "
region: us-east-1
account: '111122223333'
fabric_netns: {id}
vpcs:
  - cidrs: [10.0.0.0/16]
    ipv6_cidrs: ['2600:1f13:abc:de00::/56']
    subnets:
      - {{name: public, az: us-east-1a, cidr: 10.0.1.0/24, ipv6_cidr: '2600:1f13:abc:de01::/64', nat_gateway: {NAT},
         routes: {{0.0.0.0/0: internet-gateway, '::/0': internet-gateway, 10.1.0.0/16: peering}}}}
      - {{name: private, az: us-east-1a, cidr: 10.0.2.0/24, ipv6_cidr: '2600:1f13:abc:de02::/64',
         routes: {{0.0.0.0/0: {{nat-gateway: public}}}}}}
      - {{name: isolated, az: us-east-1a, cidr: 10.0.3.0/24}}
  - cidrs: [10.1.0.0/16]
    subnets:
      - {{name: peer, az: us-east-1a, cidr: 10.1.1.0/24, routes: {{10.0.0.0/16: peering}}}}
  - cidrs: [10.2.0.0/16]
    subnets:
      - {{name: stranger, az: us-east-1a, cidr: 10.2.1.0/24}}
instances:
  - {{type: m5.large, subnet: public, address: {A}, ipv6_address: '{A6}', public_address: {A_PUBLIC}, netns: {id}-a}}
  - {{type: m5.large, subnet: private, address: {B}, ipv6_address: '2600:1f13:abc:de02::10', netns: {id}-b}}
  - {{type: m5.large, subnet: isolated, address: {C}, netns: {id}-c}}
  - {{type: m5.large, subnet: peer, address: {P}, netns: {id}-p}}
  - {{type: m5.large, subnet: stranger, address: {S}, netns: {id}-s}}
"
    )
}

impl World {
    async fn start(test: &str) -> Self {
        let id = format!("tp-{test}-{}", std::process::id());
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("topology.yaml");
        std::fs::write(&config, topology(&id)).unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let settings = Settings { config, listen, imds_listen: None, fabric: true };
        let server = Server::start(&settings).await.unwrap();
        let outside = server.endpoints().fabric.clone().unwrap().outside.unwrap();
        assert_eq!(outside.netns, format!("{id}-outside"));
        Self { server, id, outside }
    }

    async fn stop(self) {
        self.server.stop().await.unwrap();
        let left = Command::new("ip").args(["netns", "list"]).output().unwrap();
        assert!(!String::from_utf8_lossy(&left.stdout).contains(&self.id));
    }

    fn netns(&self, name: &str) -> String {
        format!("{}-{name}", self.id)
    }

    /// The address that the outside sees of a client at `source`, by UDP.
    fn seen(&self, instance: &str, source: &str) -> Option<IpAddr> {
        asks(&self.netns(instance), source, self.server_of(source), PATIENCE)
    }

    /// Whether the outside does not answer a client at `source` for a second.
    fn is_unseen(&self, instance: &str, source: &str) -> bool {
        asks(&self.netns(instance), source, self.server_of(source), 1).is_none()
    }

    fn server_of(&self, client: &str) -> SocketAddr {
        let family = usize::from(client.contains(':'));
        SocketAddr::new(self.outside.addresses[family], self.outside.port)
    }

    fn pings(&self, from: &str, to: &str) -> bool {
        ping(&self.netns(from), &["-w", "20", to])
    }

    /// Whether no ping is answered for a second.
    fn is_silent(&self, from: &str, to: &str) -> bool {
        !ping(&self.netns(from), &["-W", "1", to])
    }

    async fn call(&self, request: impl Into<Request>) -> Response {
        let request = request.into();
        let caller = Caller {
            place: Place {
                account: "111122223333".parse().unwrap(),
                region: "us-east-1".parse().unwrap(),
            },
            key_id: None,
            address: None,
        };
        let action = request.action().as_str();
        let simulator = self.server.simulator();
        let answer = simulator.call(caller, action, BTreeMap::new(), Ok(request)).await;
        answer.unwrap().unwrap()
    }

    fn eni(&self, address: &str) -> EniId {
        let address: std::net::Ipv4Addr = address.parse().unwrap();
        let fabric = self.server.simulator().with(|model, now| model.fabric(now));
        let mut enis = fabric.instances.into_iter().flat_map(|instance| instance.enis);
        enis.find(|eni| eni.primary == Some(address)).unwrap().id
    }

    /// Gives the ENI of `a` a second address and configures it, as for a pod.
    async fn add_pod(&self) -> EniId {
        let eni = self.eni(A);
        let wanted = WantedIpv4 { addresses: vec![POD.parse().unwrap()], ..WantedIpv4::default() };
        self.call(AssignPrivateIpAddresses {
            network_interface_id: eni.clone(),
            wanted,
            allow_reassignment: false,
        })
        .await;
        let address = format!("{POD}/32");
        let a = self.netns("a");
        let added = ["-n", &a, "address", "add", &address, "dev", "ens5"];
        assert!(Command::new("ip").args(added).status().unwrap().success());
        eni
    }
}

fn ping(netns: &str, args: &[&str]) -> bool {
    let start = ["netns", "exec", netns, "ping", "-n", "-c", "1"];
    let output = Command::new("ip").args(start).args(args).output().unwrap();
    output.status.success()
}

/// Runs `work` on a thread in a namespace.
fn within<T: Send>(netns: &str, work: impl FnOnce() -> T + Send) -> T {
    let file = File::open(format!("/run/netns/{netns}")).unwrap();
    std::thread::scope(|scope| {
        let enter = || {
            rustix::thread::move_into_link_name_space(file.as_fd(), None).unwrap();
            work()
        };
        scope.spawn(enter).join().unwrap()
    })
}

/// The address in the answer of `server` to a datagram from `source`. `None` if none comes within so
/// many seconds.
fn asks(netns: &str, source: &str, server: SocketAddr, n_seconds: usize) -> Option<IpAddr> {
    let source: IpAddr = source.parse().unwrap();
    within(netns, || {
        let socket = UdpSocket::bind((source, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut answer = [0; 64];
        (0..n_seconds).find_map(|_| {
            socket.send_to(b"?", server).ok()?;
            let (n, _) = socket.recv_from(&mut answer).ok()?;
            let text = std::str::from_utf8(&answer[..n]).unwrap();
            Some(text.split(' ').next().unwrap().parse().unwrap())
        })
    })
}

fn address(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

/// True if tests that need root are skipped. Otherwise they fail without root.
fn skipped() -> bool {
    std::env::var("TIDEPOOL_SKIP_ROOT_TESTS").is_ok_and(|value| value == "1")
}

#[tokio::test(flavor = "multi_thread")]
async fn internet_gateway_passes_public_addresses_alone() {
    if skipped() {
        return;
    }
    let world = World::start("igw").await;
    assert_eq!(world.seen("a", A), address(A_PUBLIC));
    assert!(world.pings("a", "198.51.100.10"));
    let server = SocketAddr::new(world.outside.addresses[0], world.outside.port);
    let mut line = String::new();
    within(&world.netns("a"), || {
        TcpStream::connect(server).unwrap().read_to_string(&mut line).unwrap();
    });
    assert!(line.starts_with(&format!("{A_PUBLIC} ")), "over TCP: {line}");
    assert!(world.pings("outside", A_PUBLIC), "it is reached from outside");
    assert!(world.is_silent("outside", A), "a private address is not");

    let eni = world.add_pod().await;
    assert!(world.is_unseen("a", POD), "it has no public address");
    let Response::Allocated { public_ip, allocation_id } =
        world.call(AllocateAddress::default()).await
    else {
        panic!("an address")
    };
    let associate = AssociateAddress {
        allocation_id,
        network_interface_id: Some(eni),
        instance_id: None,
        private_ip_address: Some(POD.parse().unwrap()),
        allow_reassociation: false,
        dry_run: false,
    };
    let Response::AddressAssociated(association_id) = world.call(associate).await else {
        panic!("an association")
    };
    assert_eq!(world.seen("a", POD), Some(public_ip.into()));
    assert_eq!(world.seen("a", A), address(A_PUBLIC), "each has its own");
    end(&world, association_id).await;
    assert!(world.is_unseen("a", POD));
    world.stop().await;
}

async fn end(world: &World, association_id: AddressAssociationId) {
    world.call(DisassociateAddress { association_id, dry_run: false }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nat_gateway_gives_its_own_address() {
    if skipped() {
        return;
    }
    let world = World::start("nat").await;
    assert_eq!(world.seen("b", B), address(NAT));
    assert!(world.pings("b", "198.51.100.10"));
    assert!(world.is_silent("outside", NAT), "nobody reaches anything through it");
    assert!(world.is_silent("outside", B));
    assert!(world.is_unseen("b", "2600:1f13:abc:de02::10"), "it has no IPv6");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subnet_without_routes_reaches_its_vpc_alone() {
    if skipped() {
        return;
    }
    let world = World::start("isolated").await;
    assert!(world.is_unseen("c", C));
    assert!(world.is_silent("c", "198.51.100.10"));
    for other in [A, B] {
        assert!(world.pings("c", other), "{other}");
    }
    assert!(world.is_silent("c", S), "another VPC");
    assert!(world.is_silent("s", A));
    assert!(world.is_silent("outside", "169.254.169.254"));
    let metadata = SocketAddr::from(([169, 254, 169, 254], 80));
    within(&world.netns("outside"), || {
        let refused = TcpStream::connect_timeout(&metadata, Duration::from_secs(1));
        assert!(refused.is_err(), "the outside reads metadata");
    });
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peered_vpc_sees_true_addresses() {
    if skipped() {
        return;
    }
    let world = World::start("peering").await;
    world.add_pod().await;
    let peer = within(&world.netns("p"), || UdpSocket::bind((P, 0)).unwrap());
    let server = peer.local_addr().unwrap();
    let echo = std::thread::spawn(move || {
        peer.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut sources = Vec::new();
        while sources.len() < 2 && Instant::now() < deadline {
            let Ok((_, source)) = peer.recv_from(&mut [0; 8]) else { continue };
            let line = format!("{} {}\n", source.ip(), source.port());
            peer.send_to(line.as_bytes(), source).unwrap();
            sources.push(source.ip());
        }
        sources
    });
    assert_eq!(asks(&world.netns("a"), POD, server, PATIENCE), address(POD));
    assert_eq!(asks(&world.netns("a"), A, server, PATIENCE), address(A));
    echo.join().unwrap();
    assert!(world.pings("p", POD), "from the other side");
    assert!(world.is_silent("b", P), "its subnet has no route there");
    assert!(world.is_silent("p", "198.51.100.10"), "no way out through a peer");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv6_leaves_as_it_is() {
    if skipped() {
        return;
    }
    let world = World::start("six").await;
    assert_eq!(world.seen("a", A6), address(A6));
    assert!(world.pings("outside", A6));
    assert!(world.is_silent("outside", "2600:1f13:abc:de02::10"), "its subnet has no route");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn block_added_to_a_vpc_stays_within_it() {
    if skipped() {
        return;
    }
    let world = World::start("block").await;
    let vpc_id = world.server.simulator().with(|model, now| {
        let vpcs = model.fabric(now).vpcs;
        vpcs.into_iter().find(|vpc| vpc.cidrs[0].to_string() == "10.0.0.0/16").unwrap().id
    });
    let cidr_block = Some("100.64.0.0/16".parse().unwrap());
    world.call(AssociateVpcCidrBlock { cidr_block, ..AssociateVpcCidrBlock::with(vpc_id) }).await;
    let rules = Command::new("ip")
        .args(["netns", "exec", &world.id, "nft", "list", "table", "inet", "vpc"])
        .output()
        .unwrap();
    let rules = String::from_utf8(rules.stdout).unwrap();
    assert!(rules.contains("10.0.0.0/16 . 100.64.0.0/16"), "{rules}");
    assert_eq!(world.seen("a", A), address(A_PUBLIC), "the rules still work");
    world.stop().await;
}

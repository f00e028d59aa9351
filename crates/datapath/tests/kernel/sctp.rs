//! SCTP by a port of the node and out of the VPC. Packets are made by hand and pass raw sockets: so the kernel needs to
//! track and translate SCTP, and no more.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use rustix::net::{AddressFamily, SocketType, ipproto, socket};

use crate::lab::{Namespace, on_node};
use crate::nat::{HANG, attach_client, default_nat, synced, two_pods};
use crate::ports::{close, open};
use crate::traffic::attach_to_vpc;

/// The node's address in the VPC of [`attach_to_vpc`].
const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
/// The client's of [`attach_client`].
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);

/// Bytes of an IPv4 header without options.
const IP: usize = 20;
/// Bytes of the header that all SCTP packets have.
const COMMON: usize = 12;

/// The first two packets of an association (RFC 9260, section 5.1). The number is the chunk's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    Init = 1,
    InitAck = 2,
}

/// A packet as its receiver sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Packet {
    from: SocketAddrV4,
    to: SocketAddrV4,
    /// The verification tag: 0 in an INIT, the other end's in its answer.
    tag: u32,
    chunk: Chunk,
}

/// A raw socket that gets and sends every SCTP packet of a namespace.
struct Wire(UdpSocket);

impl Wire {
    fn of(namespace: &Namespace) -> Self {
        let raw = || socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::SCTP));
        let raw = UdpSocket::from(namespace.enter(raw).unwrap());
        raw.set_read_timeout(Some(HANG)).unwrap();
        Self(raw)
    }

    fn send(&self, from_port: u16, to: SocketAddrV4, tag: u32, chunk: Chunk) {
        let mut packet = [from_port.to_be_bytes(), to.port().to_be_bytes()].concat();
        packet.extend(tag.to_be_bytes());
        packet.extend([0; 4]);
        // Kind, flags and length of the chunk; own tag, window, streams in and out, first number.
        packet.extend([chunk as u8, 0, 0, 20]);
        packet.extend([own_tag(from_port), 65_536, 0x0001_0001, 1].map(u32::to_be_bytes).concat());
        let checksum = checksum(&packet);
        packet[8..COMMON].copy_from_slice(&checksum);
        self.0.send_to(&packet, (*to.ip(), 0)).unwrap();
    }

    /// The next packet, whose checksum is right.
    fn next(&self) -> Packet {
        let mut bytes = [0; 1500];
        let length = self.0.recv(&mut bytes).unwrap();
        let (ip, sctp) = bytes[..length].split_at(IP);
        let mut zeroed = sctp.to_vec();
        zeroed[8..COMMON].fill(0);
        assert_eq!(sctp[8..COMMON], checksum(&zeroed), "{sctp:?}");
        let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&ip[at..at + 4]).unwrap());
        let port = |at: usize| u16::from_be_bytes([sctp[at], sctp[at + 1]]);
        Packet {
            from: SocketAddrV4::new(address(12), port(0)),
            to: SocketAddrV4::new(address(16), port(2)),
            tag: u32::from_be_bytes(sctp[4..8].try_into().unwrap()),
            chunk: if sctp[COMMON] == Chunk::Init as u8 { Chunk::Init } else { Chunk::InitAck },
        }
    }
}

/// The tag that the end at `port` wants in each packet to it.
fn own_tag(port: u16) -> u32 {
    0x5C79_0000 + u32::from(port)
}

/// CRC32c (RFC 9260, appendix A).
fn checksum(packet: &[u8]) -> [u8; 4] {
    const REVERSED_POLYNOMIAL: u32 = 0x82F6_3B78;
    let crc = packet.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ REVERSED_POLYNOMIAL } else { crc >> 1 }
        })
    });
    (!crc).to_le_bytes()
}

fn at(address: Ipv4Addr, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(address, port)
}

#[test]
fn checksum_is_that_of_the_published_example() {
    // RFC 3720, appendix B.4: 32 bytes of zeroes.
    assert_eq!(checksum(&[0; 32]), [0xaa, 0x36, 0x91, 0x8a]);
}

#[test]
fn sctp_port_of_the_node_leads_to_each_pod_and_back() {
    on_node(|node| {
        let router = attach_to_vpc(node);
        let client = Namespace::new("client");
        attach_client(&router, &client);
        synced(node, &default_nat());
        let (on_client, on_node) = (Wire::of(&client), Wire::of(node));
        let ask = |port| on_client.send(port, at(NODE, 7), 0, Chunk::Init);
        let asked = |port, to| Packet { from: at(CLIENT, port), to, tag: 0, chunk: Chunk::Init };
        let pods = two_pods(node);
        let addresses = [Ipv4Addr::new(10, 0, 0, 20), Ipv4Addr::new(10, 0, 1, 20)];
        for ((pod, address), port) in pods.iter().zip(addresses).zip([4000, 4100]) {
            let on_pod = Wire::of(&pod.namespace);
            ask(port);
            assert_eq!(on_node.next(), asked(port, at(NODE, 7)), "nothing translates yet");
            let port = port + 1;
            open(node, pod, &["sctp 7:7000"]);
            ask(port);
            assert_eq!(on_pod.next(), asked(port, at(address, 7000)));
            on_pod.send(7000, at(CLIENT, port), own_tag(port), Chunk::InitAck);
            let (from, to) = (at(NODE, 7), at(CLIENT, port));
            let expect = Packet { from, to, tag: own_tag(port), chunk: Chunk::InitAck };
            assert_eq!(on_client.next(), expect);
            close(node, pod);
        }
    });
}

#[test]
fn sctp_out_of_the_vpc_has_the_nodes_address() {
    on_node(|node| {
        let router = attach_to_vpc(node);
        let client = Namespace::new("client");
        attach_client(&router, &client);
        synced(node, &default_nat());
        let on_client = Wire::of(&client);
        let addresses = [Ipv4Addr::new(10, 0, 0, 20), Ipv4Addr::new(10, 0, 1, 20)];
        for (pod, address) in two_pods(node).iter().zip(addresses) {
            let on_pod = Wire::of(&pod.namespace);
            on_pod.send(5000, at(CLIENT, 9), 0, Chunk::Init);
            let seen = on_client.next();
            assert_eq!((*seen.from.ip(), seen.to, seen.tag), (NODE, at(CLIENT, 9), 0));
            on_client.send(9, seen.from, own_tag(5000), Chunk::InitAck);
            let (from, to) = (at(CLIENT, 9), at(address, 5000));
            let expect = Packet { from, to, tag: own_tag(5000), chunk: Chunk::InitAck };
            assert_eq!(on_pod.next(), expect);
        }
    });
}

//! Messages of the version before `PodAddress.reach` existed, in both directions.
//!
//! The old readers below are that version's messages. The hexadecimal texts are what its ends sent.

use prost::Message;

use crate::v1;

/// That version's `AddRequest`: attachment (aws-cni, c1, eth0), pod default/web, a netns, 0.1.0.
const OLD_ADD_REQUEST: &str = "0a130a076177732d636e69120263311a0465746830120e0a0764656661756c7412037765\
                               621a0c2f72756e2f6e65746e732f632205302e312e30";
/// That version's `AddReply`: granted 10.0.2.20, table 2, eni-0a.
const OLD_ADD_REPLY: &str = "0a170a150a0931302e302e322e323010021a06656e692d3061";
/// That version's `DelReply` and `CheckReply`, with the same address.
const OLD_ADDRESSES: &str = "0a150a0931302e302e322e323010021a06656e692d3061";

#[derive(Clone, PartialEq, Message)]
struct OldPodAddress {
    #[prost(string, tag = "1")]
    address: String,
    #[prost(uint32, tag = "2")]
    table: u32,
    #[prost(string, tag = "3")]
    eni: String,
}

/// `Granted`, `DelReply` and `CheckReply` alike, as far as addresses go.
#[derive(Clone, PartialEq, Message)]
struct OldAddresses {
    #[prost(message, repeated, tag = "1")]
    addresses: Vec<OldPodAddress>,
}

#[derive(Clone, PartialEq, Message)]
struct OldAddReply {
    #[prost(message, optional, tag = "1")]
    granted: Option<OldAddresses>,
}

fn bytes(hex: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

fn old_address() -> OldPodAddress {
    OldPodAddress { address: "10.0.2.20".into(), table: 2, eni: "eni-0a".into() }
}

/// As the daemon fills it today.
fn address() -> v1::PodAddress {
    let by_eni = v1::EniReach { id: "eni-0a".into(), network_card: 0, device_index: 1, table: 2 };
    v1::PodAddress {
        address: "10.0.2.20".into(),
        table: 2,
        eni: "eni-0a".into(),
        reach: Some(v1::pod_address::Reach::ByEni(by_eni)),
    }
}

#[test]
fn old_plugins_request_decodes_in_this_version() {
    let request = v1::AddRequest::decode(&*bytes(OLD_ADD_REQUEST)).unwrap();
    let expected = v1::AddRequest {
        attachment: Some(v1::Attachment {
            network: "aws-cni".into(),
            container_id: "c1".into(),
            ifname: "eth0".into(),
        }),
        pod: Some(v1::Pod { namespace: "default".into(), name: "web".into(), uid: String::new() }),
        netns: "/run/netns/c".into(),
        client_version: "0.1.0".into(),
        takes_node_local: false,
    };
    assert_eq!(request, expected);
    assert_eq!(expected.encode_to_vec(), bytes(OLD_ADD_REQUEST), "old daemons read ours alike");
}

#[test]
fn old_daemons_address_decodes_without_reach() {
    let expected = v1::PodAddress { reach: None, ..address() };
    let reply = v1::AddReply::decode(&*bytes(OLD_ADD_REPLY)).unwrap();
    let granted = v1::Granted { addresses: vec![expected.clone()], ..Default::default() };
    assert_eq!(reply.outcome, Some(v1::add_reply::Outcome::Granted(granted)));
    let reply = v1::DelReply::decode(&*bytes(OLD_ADDRESSES)).unwrap();
    assert!(!reply.removes_links, "so the plugin removes them");
    assert_eq!((reply.released, reply.unrecorded), (vec![expected.clone()], String::new()));
    let reply = v1::CheckReply::decode(&*bytes(OLD_ADDRESSES)).unwrap();
    assert_eq!((reply.addresses, &*reply.node_local), (vec![expected], ""));
}

#[test]
fn old_plugin_reads_address_and_table_from_this_version() {
    let node_local = || "169.254.172.2".to_owned();
    let addresses = vec![address()];
    let granted =
        v1::Granted { addresses, mtu: 1500, node_local: node_local(), disable_ipv6: false };
    let reply = v1::AddReply { outcome: Some(v1::add_reply::Outcome::Granted(granted)) };
    let reply = OldAddReply::decode(&*reply.encode_to_vec()).unwrap();
    assert_eq!(reply.granted.unwrap().addresses, [old_address()]);
    let addresses = vec![address()];
    let reply = v1::CheckReply { addresses, node_local: node_local(), ipv6_is_off: true };
    let reply = OldAddresses::decode(&*reply.encode_to_vec()).unwrap();
    assert_eq!(reply.addresses, [old_address()]);
    let reply =
        v1::DelReply { released: vec![address()], removes_links: true, ..Default::default() };
    let reply = OldAddresses::decode(&*reply.encode_to_vec()).unwrap();
    assert_eq!(reply.addresses, [old_address()]);
}

/// Field 15 of `PodAddress` is a later version's way to reach an address without table and ENI.
#[test]
fn unknown_reach_decodes_as_unset_with_table_zero() {
    let message = bytes("0a0931302e302e322e32307a020801");
    let address = v1::PodAddress::decode(&*message).unwrap();
    assert_eq!((&*address.address, address.table, address.reach), ("10.0.2.20", 0, None));
}

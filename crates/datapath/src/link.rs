//! Links: read, create as a veth pair, set, delete.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoIpVlan, InfoKind, InfoVeth, IpVlanMode, LinkAttribute, LinkExtentMask, LinkFlags,
    LinkInfo, LinkMessage,
};
use rustix::io::Errno;

use crate::netlink::{KernelError, Netlink};
use crate::netns::Netns;
use crate::{InterfaceName, MacAddr, Mtu, Owner, nsid, retired};

/// A link as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// [`MacAddr::NONE`] for links without an Ethernet address.
    pub(crate) mac: MacAddr,
    /// In bytes.
    pub(crate) mtu: u32,
    /// Whether it was set up. The carrier is not read: if both ends of a pair have the same index, the
    /// kernel reports it a second late, while packets pass already.
    pub(crate) up: bool,
    /// Whether it has a queue for packets. Without one, until it was up with a carrier, it drops them.
    pub(crate) has_queue: bool,
    pub(crate) is_veth: bool,
    /// The mode of an `ipvlan` child.
    pub(crate) ipvlan: Option<IpVlanMode>,
    /// Index of the pair's other end, in that end's namespace. Of an `ipvlan` child, its parent's.
    pub(crate) peer: Option<u32>,
    /// The number of that namespace, if it is another one: in the namespace of the socket, see [`crate::nsid`].
    pub(crate) peer_nsid: Option<i32>,
    /// Its owner's mark, if it has one.
    pub(crate) owner: Option<String>,
    pub(crate) group: u32,
}

impl Link {
    /// Whether this is the host's end of the owner's link: by its mark, or, as long as it has none, by
    /// the hardware address that the link got with its creation.
    pub(crate) fn is_of(&self, owner: &Owner) -> bool {
        let by_mac = || self.mac == owner.host_mac();
        self.is_veth && self.owner.as_ref().map_or_else(by_mac, |mark| mark == owner.as_str())
    }

    /// Whether it waits for removal, see [`retired`]. Then it is no pod's.
    pub(crate) fn is_retired(&self) -> bool {
        self.is_veth && self.group == retired::GROUP && self.owner.as_deref() == Some(retired::MARK)
    }

    pub(crate) fn from_message(message: &LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: MacAddr::NONE,
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            has_queue: false,
            is_veth: false,
            ipvlan: None,
            peer: None,
            peer_nsid: None,
            owner: None,
            group: 0,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(octets) => {
                    link.mac = MacAddr::from_slice(octets).unwrap_or(MacAddr::NONE);
                }
                LinkAttribute::Mtu(bytes) => link.mtu = *bytes,
                LinkAttribute::Qdisc(kind) => link.has_queue = kind != "noop",
                LinkAttribute::Link(index) => link.peer = Some(*index),
                LinkAttribute::LinkNetNsId(number) => link.peer_nsid = Some(*number),
                LinkAttribute::IfAlias(alias) => link.owner = Some(alias.clone()),
                LinkAttribute::Group(number) => link.group = *number,
                LinkAttribute::LinkInfo(infos) => {
                    link.is_veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth));
                    link.ipvlan = infos.iter().find_map(ipvlan_mode);
                }
                _ => {}
            }
        }
        link
    }

    fn from_answer(answer: &RouteNetlinkMessage) -> Option<Self> {
        match answer {
            RouteNetlinkMessage::NewLink(message) => Some(Self::from_message(message)),
            _ => None,
        }
    }
}

fn ipvlan_mode(info: &LinkInfo) -> Option<IpVlanMode> {
    let LinkInfo::Data(InfoData::IpVlan(attributes)) = info else { return None };
    attributes.iter().find_map(|attribute| match attribute {
        InfoIpVlan::Mode(mode) => Some(*mode),
        _ => None,
    })
}

/// The link called `name`; one lookup, however many links there are.
pub(crate) async fn by_name(netlink: &Netlink, name: &str) -> Result<Option<Link>, KernelError> {
    let mut wanted = LinkMessage::default();
    wanted.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]),
    ];
    get(netlink, wanted).await
}

/// The link with this index; one lookup, however many links there are.
pub(crate) async fn by_index(netlink: &Netlink, index: u32) -> Result<Option<Link>, KernelError> {
    let mut wanted = LinkMessage::default();
    wanted.header.index = index;
    wanted.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    get(netlink, wanted).await
}

async fn get(netlink: &Netlink, wanted: LinkMessage) -> Result<Option<Link>, KernelError> {
    match netlink.get(RouteNetlinkMessage::GetLink(wanted)).await {
        Ok(answer) => Ok(Link::from_answer(&answer)),
        Err(error) if error.is(Errno::NODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The link with this hardware address; the oldest, since a VLAN may have taken over its device's.
/// Costs as much as there are links: the kernel has no lookup by hardware address.
pub(crate) async fn by_mac(netlink: &Netlink, mac: MacAddr) -> Result<Option<Link>, KernelError> {
    let with_mac = list(netlink).await?.into_iter().filter(|link| link.mac == mac);
    Ok(with_mac.min_by_key(|link| link.index))
}

/// All links.
pub(crate) async fn list(netlink: &Netlink) -> Result<Vec<Link>, KernelError> {
    dump(netlink, LinkMessage::default()).await
}

/// All links of another namespace, by its number, see [`crate::nsid`].
pub(crate) async fn list_in(netlink: &Netlink, nsid: i32) -> Result<Vec<Link>, KernelError> {
    let mut wanted = LinkMessage::default();
    wanted.attributes.push(LinkAttribute::IfNetnsId(nsid));
    dump(netlink, wanted).await
}

async fn dump(netlink: &Netlink, mut wanted: LinkMessage) -> Result<Vec<Link>, KernelError> {
    wanted.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let found = netlink.dump(RouteNetlinkMessage::GetLink(wanted)).await?;
    Ok(found.iter().filter_map(Link::from_answer).collect())
}

/// A pair to create.
#[derive(Debug)]
pub(crate) struct VethPair<'a> {
    pub(crate) host: &'a InterfaceName,
    pub(crate) host_mac: MacAddr,
    pub(crate) pod: &'a InterfaceName,
    pub(crate) netns: &'a Netns,
    pub(crate) mtu: Mtu,
}

/// Creates a pair, both ends down, each in its namespace from the start. Moving an end afterwards
/// costs tens of milliseconds of grace periods in the kernel.
///
/// The caller chooses the host end's hardware address. systemd-udevd replaces one that the kernel
/// chose, and then the pod's neighbour entry would be wrong.
pub(crate) async fn create_veth(netlink: &Netlink, pair: &VethPair<'_>) -> Result<(), KernelError> {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(pair.pod.to_string()),
        LinkAttribute::Mtu(pair.mtu.bytes()),
        LinkAttribute::NetNsFd(pair.netns.raw_fd()),
    ];
    let mut host = LinkMessage::default();
    host.attributes = vec![
        LinkAttribute::IfName(pair.host.to_string()),
        LinkAttribute::Address(pair.host_mac.octets().to_vec()),
        LinkAttribute::Mtu(pair.mtu.bytes()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    netlink.change(RouteNetlinkMessage::NewLink(host), NLM_F_CREATE | NLM_F_EXCL).await
}

/// An `ipvlan` child to create.
#[derive(Debug)]
pub(crate) struct IpvlanChild<'a> {
    pub(crate) name: &'a str,
    /// Index of the parent, in the namespace of the socket.
    pub(crate) parent: u32,
    pub(crate) netns: &'a Netns,
    pub(crate) mode: IpVlanMode,
    /// In bytes.
    pub(crate) mtu: u32,
}

/// Creates a child, down, in its namespace from the start. Some kernels refuse a name that a link of the
/// socket's own namespace has.
///
/// The mode is the parent's: all its children change with it.
pub(crate) async fn create_ipvlan(
    netlink: &Netlink,
    child: &IpvlanChild<'_>,
) -> Result<(), KernelError> {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(child.name.to_owned()),
        LinkAttribute::Link(child.parent),
        LinkAttribute::Mtu(child.mtu),
        LinkAttribute::NetNsFd(child.netns.raw_fd()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::IpVlan),
            LinkInfo::Data(InfoData::IpVlan(vec![InfoIpVlan::Mode(child.mode)])),
        ]),
    ];
    netlink.change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL).await
}

/// Gives link `index`, which is down, its name and the owner's mark.
pub(crate) async fn name_and_mark(
    netlink: &Netlink,
    index: u32,
    name: &InterfaceName,
    owner: &Owner,
) -> Result<(), KernelError> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes =
        vec![LinkAttribute::IfName(name.to_string()), LinkAttribute::IfAlias(owner.to_string())];
    netlink.change(RouteNetlinkMessage::SetLink(message), 0).await
}

/// Sets link `index` up.
pub(crate) async fn set_up(netlink: &Netlink, index: u32) -> Result<(), KernelError> {
    set(netlink, index, Vec::new()).await
}

/// Marks link `index` as the owner's and sets it up.
pub(crate) async fn mark_and_set_up(
    netlink: &Netlink,
    index: u32,
    owner: &Owner,
) -> Result<(), KernelError> {
    set(netlink, index, vec![LinkAttribute::IfAlias(owner.to_string())]).await
}

/// Sets the MTU of link `index`.
pub(crate) async fn set_mtu(netlink: &Netlink, index: u32, mtu: Mtu) -> Result<(), KernelError> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::Mtu(mtu.bytes()));
    netlink.change(RouteNetlinkMessage::SetLink(message), 0).await
}

async fn set(
    netlink: &Netlink,
    index: u32,
    attributes: Vec<LinkAttribute>,
) -> Result<(), KernelError> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes = attributes;
    netlink.change(RouteNetlinkMessage::SetLink(message), 0).await
}

/// Deletes link `index`, and with it the pair's other end. It may be gone already.
pub(crate) async fn delete(netlink: &Netlink, index: u32) -> Result<(), KernelError> {
    delete_one(netlink, index, Vec::new()).await
}

/// As [`delete`], in another namespace by its number, see [`crate::nsid`]. The namespace may be gone too.
pub(crate) async fn delete_in(netlink: &Netlink, nsid: i32, index: u32) -> Result<(), KernelError> {
    match delete_one(netlink, index, vec![LinkAttribute::IfNetnsId(nsid)]).await {
        Err(error) if nsid::is_gone(&error) => Ok(()),
        other => other,
    }
}

/// Whether a request for a link was refused since the link has gone.
pub(crate) fn is_gone(error: &KernelError) -> bool {
    error.is(Errno::NODEV)
}

async fn delete_one(
    netlink: &Netlink,
    index: u32,
    attributes: Vec<LinkAttribute>,
) -> Result<(), KernelError> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes;
    match netlink.change(RouteNetlinkMessage::DelLink(message), 0).await {
        Err(error) if error.is(Errno::NODEV) => Ok(()),
        other => other,
    }
}

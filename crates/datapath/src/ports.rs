//! Host ports: connections to a port of the node that lead to a pod. An nftables table of its own, `inet tidepool-ports`,
//! beside that of [`nat`](crate::nat).
//!
//! The table's rules are the same on every node. Pods are elements of its maps, each with its owner's mark as comment: so
//! an ADD or a DEL changes only elements of that pod, in one transaction. The kernel itself refuses a port that is taken.
//! `element` has the maps, `frame` the rules, `kernel` reads and writes both, `note` has the text of a pod's ports. It must
//! not know CNI, the daemon or where notes are kept.

mod changes;
mod element;
mod frame;
mod kernel;
mod note;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;

use rustix::io::Errno;

pub use self::changes::changes;
use self::element::{Element, Place};
use self::kernel::{Kept, Seen, open};
pub use self::note::NoteError;
use crate::connections::{self, Forwarded};
use crate::netlink::{KernelError, Netlink};
use crate::{InterfaceName, Owner, link, sysctl};

/// How often a write is tried that others overtake. Each of them has then written meanwhile, so a crowd of writers gets
/// through one by one.
const ATTEMPTS: usize = 100;

/// A transport protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
}

/// A port of the node that a container asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortMapping {
    /// Of both ports.
    pub protocol: Protocol,
    /// The address of the node; `None` or an unspecified one for all. An unspecified one restricts the family.
    pub host: Option<IpAddr>,
    /// The node's port.
    pub host_port: NonZeroU16,
    /// The pod's port.
    pub pod_port: NonZeroU16,
}

/// Leads connections from one port of the node to one of a pod. Printed as `tcp 10.0.0.10:8080 10.0.0.20:80`, with `*` for
/// all addresses of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Forward {
    /// Of both ports.
    pub protocol: Protocol,
    /// The address of the node, of the pod's family; `None` for all of that family.
    pub host: Option<IpAddr>,
    /// The node's port.
    pub host_port: NonZeroU16,
    /// The pod's address and port.
    pub pod: SocketAddr,
}

/// What leads to one pod by one link. Each port of the node is there once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodPorts {
    owner: Owner,
    forwards: BTreeSet<Forward>,
}

/// The mappings lead one port of the node to two ports of the pod.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("host port {0} is asked for twice, also as {1}")]
pub struct AskedTwice(Forward, Forward);

/// A mapping cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// Two mappings exclude each other.
    #[error(transparent)]
    AskedTwice(#[from] AskedTwice),
    /// The kernel has no way to lead the answers of a pod back to clients of this address.
    #[error(
        "host port {host_port} is asked for at {host}, where no pod can answer: leave hostIP out, or name another address of the node"
    )]
    Confined {
        /// `::1`, or a link-local address of IPv6.
        host: Ipv6Addr,
        /// The node's port.
        host_port: NonZeroU16,
    },
}

impl PodPorts {
    /// What `mappings` amount to for a pod with these `addresses`. A mapping without an address of the node is for each
    /// family of the pod. One for a family that the pod lacks is left out.
    ///
    /// # Errors
    ///
    /// [`MappingError`]. A note of an older version may say what is refused here.
    pub fn new(
        owner: Owner,
        mappings: &[PortMapping],
        addresses: &[IpAddr],
    ) -> Result<Self, MappingError> {
        if let Some(confined) = mappings.iter().find_map(PortMapping::confined) {
            return Err(confined);
        }
        let forwards = mappings.iter().flat_map(|mapping| {
            let fits = |pod: &&IpAddr| mapping.host.is_none_or(|it| it.is_ipv4() == pod.is_ipv4());
            addresses.iter().filter(fits).map(|pod| mapping.to(*pod))
        });
        Ok(Self::of(owner, forwards)?)
    }

    fn of(owner: Owner, forwards: impl Iterator<Item = Forward>) -> Result<Self, AskedTwice> {
        let mut by_port: BTreeMap<_, Forward> = BTreeMap::new();
        for forward in forwards {
            let Forward { protocol, host, host_port, pod } = forward;
            let other = by_port.insert((protocol, host, host_port, pod.is_ipv4()), forward);
            if let Some(other) = other.filter(|other| *other != forward) {
                return Err(AskedTwice(forward, other));
            }
        }
        Ok(Self { owner, forwards: by_port.into_values().collect() })
    }

    /// The mark of the pod's link.
    #[must_use]
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// What leads to the pod; may be empty.
    #[must_use]
    pub fn forwards(&self) -> &BTreeSet<Forward> {
        &self.forwards
    }
}

impl PortMapping {
    /// Clients of such an address send from it, or from one of its kind. IPv4 has `route_localnet` for that.
    fn confined(&self) -> Option<MappingError> {
        let Some(IpAddr::V6(host)) = self.host else { return None };
        let is_confined = host.is_loopback() || host.is_unicast_link_local();
        is_confined.then_some(MappingError::Confined { host, host_port: self.host_port })
    }

    fn to(&self, pod: IpAddr) -> Forward {
        Forward {
            protocol: self.protocol,
            host: self.host.filter(|host| !host.is_unspecified()),
            host_port: self.host_port,
            pod: SocketAddr::new(pod, self.pod_port.get()),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Forward { protocol, host, host_port, pod } = self;
        match host {
            Some(host) => write!(f, "{protocol} {} {pod}", SocketAddr::new(*host, host_port.get())),
            None => write!(f, "{protocol} *:{host_port} {pod}"),
        }
    }
}

/// Why the node's ports do not lead to a pod, or still do.
#[derive(Debug, thiserror::Error)]
pub enum PortsError {
    /// Another pod has the port. Nothing was changed.
    #[error("host port {forward} is taken by {owner}")]
    Taken {
        /// What was asked for.
        forward: Forward,
        /// The mark of the other pod's link.
        owner: String,
    },
    /// Netlink cannot be used.
    #[error("open a netlink socket")]
    Socket(#[source] std::io::Error),
    /// The links could not be listed, by which it is known whose ports are in use.
    #[error("list the links")]
    Links(#[source] KernelError),
    /// The table could not be read.
    #[error("read nftables table inet {}", frame::NAME)]
    Read(#[source] KernelError),
    /// The table could not be written.
    #[error(
        "write nftables table inet {}; the kernel needs nf_tables with nft_fib_inet, nft_nat and nft_masq",
        frame::NAME
    )]
    Write(#[source] KernelError),
    /// Others have changed the table at each of several attempts.
    #[error("nftables table inet {} does not stay as it was written", frame::NAME)]
    NotKept,
    /// The node's connections to its own loopback address do not lead to the pod.
    #[error("let the node reach the pod by its loopback address")]
    Sysctl(#[source] crate::SysctlError),
    /// Connections from before the change could not be forgotten.
    #[error("forget earlier UDP connections")]
    Connections(#[source] KernelError),
}

impl PortsError {
    fn is_overtaken(&self) -> bool {
        match self {
            PortsError::Read(error) => matches!(error, KernelError::Interrupted),
            PortsError::Write(error) => error.is(Errno::RESTART),
            PortsError::Taken { .. }
            | PortsError::Socket(_)
            | PortsError::Links(_)
            | PortsError::NotKept
            | PortsError::Sysctl(_)
            | PortsError::Connections(_) => false,
        }
    }
}

/// Leads the ports to the pod whose link's host end is `host_name`. It may be repeated. Blocks for one transaction, and
/// costs as much for any number of other pods. Only a port that is taken costs a list of all of them: the ports of a pod
/// without a link are free.
///
/// # Errors
///
/// [`PortsError`]. No port leads to the pod then, unless [`PortsError::Connections`] says that older connections do not.
pub async fn add(ports: &PodPorts, host_name: &InterfaceName) -> Result<(), PortsError> {
    if ports.forwards.is_empty() {
        return Ok(());
    }
    if ports.forwards.iter().any(|forward| forward.pod.is_ipv4()) {
        // The pod's answer comes in by this link, and goes to the loopback address.
        let key = format!("net/ipv4/conf/{host_name}/route_localnet");
        sysctl::set(&key, "1").map_err(PortsError::Sysctl)?;
    }
    let wanted = element::elements(&ports.forwards);
    for _ in 0..ATTEMPTS {
        match kernel::insert(&open()?, &ports.owner, &wanted) {
            Ok(()) => return forget_connections(ports.forwards.iter(), Forwarded::NotYet),
            Err(error) if error.is(Errno::NOENT) => {
                unless_overtaken(kernel::ensure_frame().map(drop))?
            }
            // Older kernels say BUSY if the port leads elsewhere.
            Err(error) if error.is(Errno::EXIST) || error.is(Errno::BUSY) => {
                unless_overtaken(make_room(ports, &wanted).await)?
            }
            Err(error) => return Err(PortsError::Write(error)),
        };
    }
    Err(PortsError::NotKept)
}

/// `None` if others have changed nftables since it was read: then nothing was written, and the attempt must be repeated.
fn unless_overtaken<T>(attempt: Result<T, PortsError>) -> Result<Option<T>, PortsError> {
    match attempt {
        Err(error) if error.is_overtaken() => Ok(None),
        other => other.map(Some),
    }
}

/// Removes what is in the way: older elements of this owner, and those of pods that have no link any more.
async fn make_room(ports: &PodPorts, wanted: &BTreeSet<Element>) -> Result<(), PortsError> {
    let read_at = kernel::generation()?;
    let live = live_owners().await?;
    let seen = kernel::list(read_at)?;
    let kept = &seen.kept;
    let is_others = |kept: &&Kept| kept.owner != ports.owner.as_str() && live.contains(&kept.owner);
    for forward in &ports.forwards {
        let asked = Element::of(forward);
        let mut others = kept.iter().filter(is_others);
        if let Some(other) = others.find(|kept| asked.place() == kept.element.place()) {
            let owner = other.owner.clone();
            return Err(PortsError::Taken { forward: *forward, owner });
        }
    }
    let is_in_the_way =
        |kept: &&Kept| wanted.iter().any(|wanted| wanted.place() == kept.element.place());
    let owners: BTreeSet<&str> =
        kept.iter().filter(is_in_the_way).map(|kept| kept.owner.as_str()).collect();
    let of_them = kept.iter().filter(|kept| owners.contains(kept.owner.as_str()));
    let removed = of_them.cloned().collect();
    kernel::delete(&seen, &removed)?;
    forget_connections(forwards(&removed).iter(), Forwarded::ToPod)
}

/// The marks of all pods' links that do not wait for removal.
async fn live_owners() -> Result<BTreeSet<String>, PortsError> {
    let netlink = Netlink::open().map_err(PortsError::Socket)?;
    let links = link::list(&netlink).await.map_err(PortsError::Links)?;
    let live = links.into_iter().filter(|link| link.is_veth && !link.is_retired());
    Ok(live.filter_map(|link| link.owner).collect())
}

/// Removes what `ports` says, as far as it leads to that pod: another one may have a port of it now. It may be repeated,
/// and needs no link. Returns what there was. Costs as much for any number of other pods.
///
/// # Errors
///
/// [`PortsError`].
pub fn remove(ports: &PodPorts) -> Result<BTreeSet<Forward>, PortsError> {
    let wanted = element::elements(&ports.forwards);
    remove_from(|| kernel::find(&wanted), &ports.owner)
}

/// Removes all that leads to the owner's pod, as [`remove`] does. Costs a list of all pods' ports.
///
/// # Errors
///
/// [`PortsError`].
pub fn remove_all(owner: &Owner) -> Result<BTreeSet<Forward>, PortsError> {
    remove_from(|| kernel::list(kernel::generation()?), owner)
}

fn remove_from(
    read: impl Fn() -> Result<Seen, PortsError>,
    owner: &Owner,
) -> Result<BTreeSet<Forward>, PortsError> {
    let attempt = || {
        let seen = read()?;
        let ours = seen.kept.iter().filter(|kept| kept.owner == owner.as_str());
        let ours = ours.cloned().collect();
        kernel::delete(&seen, &ours).map(|()| ours)
    };
    for _ in 0..ATTEMPTS {
        if let Some(removed) = unless_overtaken(attempt())? {
            let removed = forwards(&removed);
            forget_connections(removed.iter(), Forwarded::ToPod)?;
            return Ok(removed);
        }
    }
    Err(PortsError::NotKept)
}

fn forwards(kept: &BTreeSet<Kept>) -> BTreeSet<Forward> {
    kept.iter().filter_map(|kept| kept.element.forward()).collect()
}

/// UDP has no end that the kernel sees, so a connection would go on as it was.
fn forget_connections<'a>(
    forwards: impl Iterator<Item = &'a Forward>,
    which: Forwarded,
) -> Result<(), PortsError> {
    let udp = forwards.filter(|forward| forward.protocol == Protocol::Udp);
    let udp = udp.map(|forward| (forward.host_port.get(), forward.pod)).collect();
    connections::forget_udp(&udp, which).map(drop).map_err(PortsError::Connections)
}

/// What of `ports` is not in the kernel. Costs as much for any number of other pods.
///
/// # Errors
///
/// [`PortsError::Read`] or [`PortsError::Socket`].
pub fn missing(ports: &PodPorts) -> Result<BTreeSet<Forward>, PortsError> {
    if ports.forwards.is_empty() {
        return Ok(BTreeSet::new());
    }
    let kept = kernel::find(&element::elements(&ports.forwards))?.kept;
    let has = |forward: &&Forward| {
        let wanted = Element::of(forward);
        kept.iter().any(|kept| kept.owner == ports.owner.as_str() && kept.element == wanted)
    };
    Ok(ports.forwards.iter().filter(|forward| !has(forward)).copied().collect())
}

/// What a sync has done.
#[derive(Debug, Default)]
pub struct PortsReport {
    /// Whether the rules were written.
    pub frame_written: bool,
    /// What was put back.
    pub restored: BTreeSet<Forward>,
    /// What was removed, since its pod has no link, or does not ask for it.
    pub removed: BTreeSet<Forward>,
    /// Owners of `wanted` without a link.
    pub gone: BTreeSet<Owner>,
    /// Pods whose ports could not be put back, each with the reason.
    pub failures: Vec<(Owner, PortsError)>,
}

/// Makes the kernel lead the ports of `wanted` to their pods, as far as these have links, and none to pods without a link.
/// The ports of other pods stay. `wanted` must have been read before, and a link be there before its ports are wanted: so no
/// pod that has just been added is taken for gone. Nothing is written while no port is wanted and there is no table.
///
/// # Errors
///
/// [`PortsError`] if the kernel cannot be read, or the rules cannot be written.
pub async fn sync(wanted: &[PodPorts]) -> Result<PortsReport, PortsError> {
    if wanted.is_empty() && !kernel::has_frame()? {
        return Ok(PortsReport::default());
    }
    for _ in 0..ATTEMPTS {
        if let Some(report) = unless_overtaken(sync_once(wanted).await)? {
            let forget = |forwards: &BTreeSet<_>, which| forget_connections(forwards.iter(), which);
            forget(&report.removed, Forwarded::ToPod)?;
            forget(&report.restored, Forwarded::NotYet)?;
            return Ok(report);
        }
    }
    Err(PortsError::NotKept)
}

async fn sync_once(wanted: &[PodPorts]) -> Result<PortsReport, PortsError> {
    let read_at = kernel::generation()?;
    let live = live_owners().await?;
    let seen = kernel::list(read_at)?;
    let changes = decide(wanted, &live, &seen.kept);
    let (removed, added) = (&changes.removed, &changes.added);
    let frame_written = kernel::apply(&seen, removed, added)?;
    Ok(PortsReport {
        frame_written,
        restored: forwards(added),
        removed: forwards(removed),
        gone: changes.gone,
        failures: changes.failures,
    })
}

/// What a sync has to do.
struct Changes {
    removed: BTreeSet<Kept>,
    added: BTreeSet<Kept>,
    gone: BTreeSet<Owner>,
    failures: Vec<(Owner, PortsError)>,
}

/// Owners in `live` have a link. All others' elements go, and so do those that an owner of `wanted` does not ask for.
fn decide(wanted: &[PodPorts], live: &BTreeSet<String>, kept: &BTreeSet<Kept>) -> Changes {
    let is_live = |ports: &&PodPorts| live.contains(ports.owner.as_str());
    let gone = wanted.iter().filter(|ports| !is_live(ports));
    let gone = gone.map(|ports| ports.owner.clone()).collect();
    let wanted: BTreeMap<&str, (&PodPorts, BTreeSet<Element>)> = wanted
        .iter()
        .filter(is_live)
        .map(|ports| (ports.owner.as_str(), (ports, element::elements(&ports.forwards))))
        .collect();
    let is_stale = |kept: &&Kept| match wanted.get(kept.owner.as_str()) {
        Some((_, asked)) => !asked.contains(&kept.element),
        None => !live.contains(&kept.owner),
    };
    let removed: BTreeSet<_> = kept.iter().filter(is_stale).cloned().collect();
    let mut changes = Changes { removed, added: BTreeSet::new(), gone, failures: Vec::new() };
    let stays = kept.difference(&changes.removed);
    let mut holders: BTreeMap<Place, &str> =
        stays.map(|kept| (kept.element.place(), kept.owner.as_str())).collect();
    for (owner, (ports, asked)) in &wanted {
        let other = |place| holders.get(&place).copied().filter(|other| other != owner);
        let taken = |forward: &Forward| Some((*forward, other(Element::of(forward).place())?));
        if let Some((forward, other)) = ports.forwards.iter().find_map(taken) {
            let taken = PortsError::Taken { forward, owner: other.to_owned() };
            changes.failures.push((ports.owner.clone(), taken));
            continue;
        }
        let missing = asked.iter().filter(|element| !holders.contains_key(&element.place()));
        let missing: Vec<_> = missing.cloned().collect();
        holders.extend(missing.iter().map(|element| (element.place(), *owner)));
        let of_owner = |element| Kept { element, owner: (*owner).to_owned() };
        changes.added.extend(missing.into_iter().map(of_owner));
    }
    changes
}

/// The table's rules as `nft list` prints them, without any pod, for tests and documents.
#[must_use]
pub fn text() -> &'static str {
    frame::TEXT
}

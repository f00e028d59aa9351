//! A VPC in the Linux kernel: real devices for ENIs, and a router between them.
//!
//! One network namespace, the fabric, routes for the whole VPC. An attached ENI is a veth pair: one
//! end in the instance's namespace with the ENI's MAC, the other in the fabric. The fabric's end
//! answers ARP for every address that the fabric routes elsewhere. The fabric routes exactly the
//! assigned addresses. So:
//!
//! * An address is delivered to the ENI that has it. If no ENI has it, it is delivered nowhere.
//! * A packet whose source address does not belong to its ENI is dropped, unless the ENI's
//!   source/destination check is off. Strict reverse path filtering does this for IPv4, policy
//!   rules for IPv6.
//! * The fabric itself is the VPC router (subnet base + 1, and `fe80:ec2::1`) and IMDS
//!   (169.254.169.254 and `fd00:ec2::254`). It sees the pod's own source address. It does not answer
//!   ping, and advertises itself in subnets with an IPv6 block.
//! * Packets between VPCs and to the outside pass as the route tables say. Gateways translate
//!   addresses. The outside is one more namespace, with a host.
//!
//! The kernel holds all state. Each device's alias names its ENI, and each namespace made here has
//! a mark on `lo`. So a [`Fabric`] that starts after a crash finds and removes the remains.
//!
//! The fabric knows neither EC2 nor HTTP: its input is a [`VpcSnapshot`]. It needs root.

mod error;
mod gateway;
mod kernel_state;
mod message;
mod netns;
mod router_advert;
mod rtnl;
mod snapshot;

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::thread;

pub use self::error::{
    AttachError, KernelError, ListenError, NameError, StartError, StopError, SyncError,
};
pub use self::gateway::{OUTSIDE_V4, OUTSIDE_V6, Outside, Routing};
use self::kernel_state::{Entry, KernelState, Label, Link};
pub use self::netns::NetnsName;
use self::netns::{Claim, Netns};
use self::router_advert::Advertiser;
use self::rtnl::{Devices, Rtnl};
pub use self::snapshot::{AttachedEni, Instance, VpcSnapshot};

/// First interface index of the fabric's ends. It is far above the indexes of a new namespace, so
/// the two ends of a pair have different indexes.
const FIRST_INDEX: u32 = 1000;

/// Settings of the fabric that must not depend on the machine. A new namespace starts with a copy
/// of the machine's IPv4 settings.
const FABRIC_SYSCTLS: [(&str, &str); 15] = [
    ("ipv4/ip_forward", "1"),
    // Neither the VPC's router nor IMDS answers ping.
    ("ipv4/icmp_echo_ignore_all", "1"),
    ("ipv6/icmp/echo_ignore_all", "1"),
    ("ipv4/conf/default/proxy_arp", "1"),
    // The kernel uses the greater of `all` and the device's value, and loose (2) is greater than
    // strict (1).
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "1"),
    ("ipv4/conf/all/arp_ignore", "0"),
    ("ipv4/conf/default/arp_ignore", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
];

/// The settings of a freshly booted Debian, whatever the machine has.
const INSTANCE_SYSCTLS: [(&str, &str); 7] = [
    ("ipv4/ip_forward", "0"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/arp_ignore", "0"),
    ("ipv4/conf/default/arp_ignore", "0"),
    ("ipv4/conf/all/arp_announce", "0"),
    ("ipv4/conf/default/arp_announce", "0"),
];

/// What distinguishes fabrics on the same machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FabricConfig {
    /// Name of the fabric's own namespace.
    pub netns: NetnsName,
}

impl Default for FabricConfig {
    /// `vpc-fabric`.
    fn default() -> Self {
        Self { netns: "vpc-fabric".parse().expect("a plain name") }
    }
}

/// A running fabric. Dropping it removes all that it made, as [`Fabric::stop`] does.
#[derive(Debug)]
pub struct Fabric {
    netns: Netns,
    advertiser: Advertiser,
    mark: String,
    /// The rules of route tables that the kernel has.
    rules: String,
    stopped: bool,
}

/// What [`Fabric::sync`] changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Ids of the ENIs with a new device, in the order of the snapshot.
    pub attached: Vec<String>,
    /// Ids of the ENIs whose device was deleted, in the order of their MAC addresses.
    pub detached: Vec<String>,
    /// Addresses, neighbours, routes and rules added to the fabric.
    pub n_added: usize,
    /// Addresses, neighbours, routes and rules deleted from the fabric.
    pub n_deleted: usize,
}

impl Report {
    /// Whether the kernel already matched the snapshot.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        *self == Self::default()
    }
}

impl Fabric {
    /// Makes an empty fabric: the addresses of router and IMDS answer, nothing is attached. First
    /// removes what a crashed fabric of the same name left. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// The user can fix [`StartError::NotRoot`], [`StartError::InUse`] and [`StartError::NotOurs`].
    /// The other errors are the kernel's. After an error nothing is left.
    pub async fn start(config: FabricConfig) -> Result<Self, StartError> {
        if !rustix::process::geteuid().is_root() {
            return Err(StartError::NotRoot);
        }
        let mark = format!("vpc-sim {}", config.netns);
        replace_stale(&config.netns, &mark).await?;
        let netns = Netns::unnamed()?;
        // Nobody else knows the namespace yet.
        netns.claim()?;
        set_up(&netns, &mark).await?;
        let advertiser = Advertiser::start(&netns)?;
        netns.publish(&config.netns)?;
        Ok(Self { netns, advertiser, mark, rules: String::new(), stopped: false })
    }

    /// Makes the kernel match the snapshot: reads the kernel, and changes what differs. Changes
    /// that a node's programs made in an instance's namespace stay.
    ///
    /// # Errors
    ///
    /// [`SyncError`]. The next call continues where this one failed.
    pub async fn sync(&mut self, snapshot: &VpcSnapshot) -> Result<Report, SyncError> {
        // The rules come first, so that no packet finds a device without them.
        self.apply_rules(snapshot)?;
        let wanted = KernelState::of(snapshot);
        let rtnl = Rtnl::open(&self.netns)?;
        let mut report = Report::default();
        self.detach(&rtnl, &wanted.links, &mut report).await?;
        let failed = self.attach(&rtnl, &wanted.links, &mut report).await?;
        let devices = rtnl.devices().await?;
        let advertised = wanted.links.iter().filter(|link| link.advertised);
        let advertised = advertised.filter_map(|link| Some(devices.get(&link.name)?.index));
        self.advertiser.set_links(advertised.collect());
        let links = wanted.links.iter().filter(|link| devices.contains_key(&link.name));
        self.netns.write_sysctls(&links.flat_map(Link::sysctls).collect::<Vec<_>>())?;
        sync_entries(&rtnl, &devices, wanted.entries, &mut report).await?;
        let mut failed = failed.into_iter();
        match failed.next() {
            None => Ok(report),
            Some(first) => {
                Err(SyncError::Attach { first: Box::new(first), others: failed.collect(), report })
            }
        }
    }

    fn apply_rules(&mut self, snapshot: &VpcSnapshot) -> Result<(), KernelError> {
        let rules = snapshot.routing.rules(&snapshot.cidrs);
        let nothing = Routing::default().rules(&BTreeSet::new());
        let has_nothing_yet = self.rules.is_empty() && rules == nothing;
        if rules != self.rules && !has_nothing_yet {
            gateway::apply(&self.netns, &rules)?;
            self.rules = rules;
        }
        Ok(())
    }

    /// Opens sockets of TCP and UDP on a port of the outside, for both families. They are
    /// non-blocking.
    ///
    /// # Errors
    ///
    /// [`ListenError::Bind`] if the port is taken or there is no outside.
    pub fn outside_sockets(
        &self,
        outside: &NetnsName,
        port: u16,
    ) -> Result<(TcpListener, UdpSocket), ListenError> {
        let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let missing = || ListenError::Bind { address, source: io::ErrorKind::NotFound.into() };
        let netns = Netns::open(outside)?.ok_or_else(missing)?;
        let open = || {
            let (tcp, udp) = (TcpListener::bind(address)?, UdpSocket::bind(address)?);
            tcp.set_nonblocking(true)?;
            udp.set_nonblocking(true)?;
            Ok((tcp, udp))
        };
        netns.run(open)?.map_err(|source| ListenError::Bind { address, source })
    }

    /// Opens a listener that instances and pods reach at `address`. The address must be one of the
    /// fabric's; 169.254.169.254 and `fd00:ec2::254` always are. The listener is non-blocking, as
    /// `tokio::net::TcpListener::from_std` needs it, and any thread may use it.
    ///
    /// # Errors
    ///
    /// [`ListenError::Bind`] if the address is taken or not the fabric's.
    pub fn tcp_listener(&self, address: SocketAddr) -> Result<TcpListener, ListenError> {
        let listen = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        self.netns.run(listen)?.map_err(|source| ListenError::Bind { address, source })
    }

    /// Removes every device and namespace that the fabric has made.
    ///
    /// # Errors
    ///
    /// [`StopError`] if something remains.
    pub async fn stop(mut self) -> Result<(), StopError> {
        let torn_down = tear_down(&self.netns, &self.mark).await;
        self.stopped = true;
        torn_down
    }

    /// Deletes devices that are unwanted, have another label, or were not set up completely.
    async fn detach(
        &self,
        rtnl: &Rtnl,
        wanted: &[Link],
        report: &mut Report,
    ) -> Result<(), KernelError> {
        let mut vacated = BTreeSet::new();
        for (name, device) in rtnl.devices().await? {
            let as_wanted =
                |link: &Link| link.name == name && link.label.to_string() == device.alias;
            if wanted.iter().any(as_wanted) {
                continue;
            }
            rtnl.delete_link(&name, device.index).await?;
            if let Ok(label) = device.alias.parse::<Label>() {
                report.detached.push(label.eni);
                vacated.insert(label.netns);
            }
        }
        for link in wanted {
            vacated.remove(&link.label.netns);
        }
        for netns in vacated {
            remove_if_marked(&netns, &self.mark).await?;
        }
        Ok(())
    }

    /// Adds the missing devices. One failure does not stop the others.
    async fn attach(
        &self,
        rtnl: &Rtnl,
        wanted: &[Link],
        report: &mut Report,
    ) -> Result<Vec<AttachError>, KernelError> {
        let devices = rtnl.devices().await?;
        let first_free = devices.values().map(|device| device.index + 1).max();
        let indexes = first_free.unwrap_or_default().max(FIRST_INDEX)..;
        let missing = wanted.iter().filter(|link| !devices.contains_key(&link.name));
        let mut failed = Vec::new();
        for (link, index) in missing.zip(indexes) {
            let Label { eni, netns, device } = link.label.clone();
            match self.attach_one(rtnl, link, index).await {
                Ok(()) => report.attached.push(eni),
                Err(source) => failed.push(AttachError { eni, netns, device, source }),
            }
        }
        Ok(failed)
    }

    async fn attach_one(&self, rtnl: &Rtnl, link: &Link, index: u32) -> Result<(), KernelError> {
        let instance = self.instance(&link.label.netns).await?;
        rtnl.add_link(link, index, &instance).await?;
        let configured = configure(rtnl, link, index, &instance).await;
        if configured.is_err() {
            // The first error is more useful. A device that stays has no alias, so the next sync
            // deletes it.
            let _ = rtnl.delete_link(&link.name, index).await;
        }
        configured
    }

    /// The instance's namespace, which is made if it does not exist.
    async fn instance(&self, name: &NetnsName) -> Result<Netns, KernelError> {
        if let Some(netns) = Netns::open(name)? {
            return Ok(netns);
        }
        let netns = Netns::unnamed()?;
        netns.write_sysctls(&INSTANCE_SYSCTLS)?;
        Rtnl::open(&netns)?.set_mark(&self.mark).await?;
        netns.publish(name)?;
        Ok(netns)
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        if self.stopped {
            return;
        }
        let torn_down = thread::scope(|scope| {
            let blocking = || -> std::io::Result<Result<(), StopError>> {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
                Ok(runtime.block_on(tear_down(&self.netns, &self.mark)))
            };
            scope.spawn(blocking).join()
        });
        if !matches!(torn_down, Ok(Ok(Ok(())))) {
            tracing::error!(?torn_down, "fabric not removed");
        }
    }
}

/// Removes a fabric of this name whose owner has died.
async fn replace_stale(name: &NetnsName, mark: &str) -> Result<(), StartError> {
    let Some(stale) = Netns::open(name)? else { return Ok(()) };
    if Rtnl::open(&stale)?.mark().await? != mark {
        return Err(StartError::NotOurs(name.clone()));
    }
    match stale.claim()? {
        Claim::Theirs => Err(StartError::InUse(name.clone())),
        Claim::Ours => {
            tracing::warn!(fabric = %name, "removing what a crashed simulator left");
            tear_down(&stale, mark).await.map_err(StartError::Stale)
        }
    }
}

/// Sets up a new namespace as an empty fabric.
async fn set_up(netns: &Netns, mark: &str) -> Result<(), KernelError> {
    netns.write_sysctls(&FABRIC_SYSCTLS)?;
    let rtnl = Rtnl::open(netns)?;
    rtnl.set_mark(mark).await?;
    rtnl.set_loopback_up().await?;
    rtnl.add_source_check_rules().await?;
    let empty = KernelState::of(&VpcSnapshot::default()).entries;
    sync_entries(&rtnl, &Devices::default(), empty, &mut Report::default()).await
}

/// One-time setup of a device. The alias comes last and marks the setup as complete.
async fn configure(
    rtnl: &Rtnl,
    link: &Link,
    index: u32,
    instance: &Netns,
) -> Result<(), KernelError> {
    rtnl.add_router_v6(&link.name, index).await?;
    if let Some(boot) = &link.boot {
        instance.write_sysctls(&boot.sysctls(&link.label.device))?;
        Rtnl::open(instance)?.boot(&link.label.device, boot).await?;
    }
    rtnl.set_alias(&link.name, index, &link.label.to_string()).await
}

/// Makes the fabric's tables hold these entries, except those of missing devices.
async fn sync_entries(
    rtnl: &Rtnl,
    devices: &Devices,
    mut wanted: BTreeSet<Entry>,
    report: &mut Report,
) -> Result<(), KernelError> {
    let index = |entry: &Entry| match entry.device() {
        Some(name) => devices.get(name).map(|device| device.index),
        None => Some(0),
    };
    wanted.retain(|entry| index(entry).is_some());
    let present = rtnl.entries(devices).await?;
    for entry in present.difference(&wanted) {
        rtnl.delete_entry(entry, index(entry).unwrap_or_default()).await?;
        report.n_deleted += 1;
    }
    for entry in wanted.difference(&present) {
        rtnl.add_entry(entry, index(entry).unwrap_or_default()).await?;
        report.n_added += 1;
    }
    Ok(())
}

/// Removes the devices and all namespaces with this mark, including the fabric's own.
///
/// Devices are deleted explicitly, because open listeners keep the fabric's namespace alive.
async fn tear_down(netns: &Netns, mark: &str) -> Result<(), StopError> {
    let mut errors = Vec::new();
    match Rtnl::open(netns) {
        Ok(rtnl) => errors.extend(rtnl.delete_links().await.err()),
        Err(error) => errors.push(error),
    }
    match netns::published() {
        Ok(names) => {
            for name in names {
                errors.extend(remove_if_marked(&name, mark).await.err());
            }
        }
        Err(error) => errors.push(error),
    }
    StopError::check(errors)
}

/// Removes a namespace that has this mark. Other namespaces and files stay.
async fn remove_if_marked(name: &NetnsName, mark: &str) -> Result<(), KernelError> {
    let Ok(Some(netns)) = Netns::open(name) else { return Ok(()) };
    if Rtnl::open(&netns)?.mark().await? == mark {
        netns::unpublish(name)?;
    }
    Ok(())
}

//! ADD: asks the daemon for an address, makes the pod's link, and returns the result.

use std::fs::File;
use std::io::{self, Read as _};
use std::time::Duration;

use cni::{Add, AddResult, CniError, ErrorCode, Interface, IpConfig, Route};
use datapath::netns::{Netns, NetnsError};
use datapath::pod::{
    AddPodError, LinkEnd, MadeLink, PodAddress, PodIpv6, PodLink, PodLinkState, gateways,
};
use datapath::{InterfaceName, Mtu, MtuError, NameError, RouteTable};
use proto::v1;
use tokio::time::{Instant, timeout_at};

use crate::daemon::Daemon;
use crate::failure::{Failure, error_chain};
use crate::pod::Identity;
use crate::stopwatch::Stopwatch;
use crate::{del, ipvlan, pending, ports, shaping, socket};

/// Bytes of the list of a pod's interfaces, which the pod may add to. A line has some 130.
const LONGEST_TABLE: u64 = 1 << 20;

/// Connects the pod. What can be refused without the daemon is refused before the daemon is asked.
///
/// # Errors
///
/// Any of docs/errors.md for ADD. Then no link is left and the address is given back, unless another
/// ADD of the attachment has made the link. If the daemon does not take the address back, a DEL is
/// left on disk. If the grant itself was lost on its way, only the runtime's DEL releases it.
pub(crate) async fn add(add: Add) -> Result<AddResult, CniError> {
    let until = Instant::now() + add.conf.ipamd_timeout;
    let identity = Identity::of(&add.conf.veth_prefix, &add.attachment, &add.pod)?;
    ipvlan::refuse_unfit(&add)?;
    refuse_unusable_netns(&add).await?;
    // The last tenth is for making the link, or for undoing it.
    let asking_until = until - add.conf.ipamd_timeout / 10;
    let socket = socket(&add.conf);
    let mut watch = Stopwatch::start();
    let mut daemon = Daemon::wait_for(socket, asking_until).await.map_err(|e| e.try_again())?;
    failpoint::pass("add", "connected");
    pending::withdraw(socket, &add.attachment).map_err(|e| {
        CniError::new(ErrorCode::Io, "cannot withdraw an earlier DEL", e.to_string())
    })?;
    let connect_us = watch.lap();
    let granted = daemon.add(&add.attachment, &add.pod, &add.netns, asking_until).await?;
    let daemon_us = watch.lap();
    failpoint::pass("add", "granted");
    let made = match link(&add, identity, &granted) {
        Ok(link) => match ipvlan::mode(add.conf.data_path) {
            None => make(link).await,
            Some(mode) => {
                let time = (until, &mut watch);
                return ipvlan::connect(add, (link, mode), &granted, &mut daemon, time).await;
            }
        },
        Err(error) => Err(Unmade::Failed(error)),
    };
    match made {
        Ok((made, link)) => {
            let ipv6 = ipv6_of_pod(&granted, &link);
            match finish(&add, (&made, &link, ipv6), &mut daemon, until, &mut watch).await {
                Ok(Finished { state, link_us, confirm_us }) => {
                    tracing::info!(
                        host = %link.host_name, addresses = ?link.addresses, node_local = ?link.node_local,
                        connect_us, daemon_us, link_us, confirm_us, "pod connected",
                    );
                    Ok(result(add, &link, &state))
                }
                Err(error) => {
                    undo(&add, made, &link, &mut daemon).await;
                    Err(error)
                }
            }
        }
        Err(Unmade::ByAnother(error)) => Err(error),
        Err(Unmade::Failed(error)) => {
            give_back(&add, &mut daemon).await;
            Err(error)
        }
    }
}

/// Why there is no link of this ADD.
enum Unmade {
    /// Another ADD of the attachment has made it. Link and record are that one's.
    ByAnother(CniError),
    /// Nobody has made it.
    Failed(CniError),
}

/// Code 8 for the plugin's own namespace, and an error if the interface exists. That interface may
/// belong to a running pod: the daemon would grant its address, and the failed ADD would release it.
/// The interface of a DEL that has just been is no obstacle.
async fn refuse_unusable_netns(add: &Add) -> Result<(), CniError> {
    let netns = Netns::open(&add.netns).map_err(|e| bad_netns(&e))?;
    let own = Netns::current().map_err(|e| bad_netns(&e))?;
    if !add.own_netns_allowed && netns.is_same(&own).map_err(|e| bad_netns(&e))? {
        let details = format!("CNI_NETNS {} is the node's own", add.netns.display());
        return Err(CniError::new(ErrorCode::OwnNamespace, "wrong network namespace", details));
    }
    let ifname = add.attachment.ifname.as_str();
    let exists = netns.run(|| interface_exists(ifname)).map_err(|e| bad_netns(&e))?;
    let exists = exists
        .map_err(|e| CniError::new(ErrorCode::Io, "cannot list interfaces", e.to_string()))?;
    if exists && !waits_for_removal(add).await? {
        let details = format!("{ifname} exists already in {}", add.netns.display());
        return Err(Failure::InterfaceExists.error(details));
    }
    Ok(())
}

async fn waits_for_removal(add: &Add) -> Result<bool, CniError> {
    let waits = datapath::pod::waits_for_removal(&add.netns, &ifname(add)?).await;
    waits.map_err(|e| Failure::LinkSetup.error(error_chain(&e)))
}

fn ifname(add: &Add) -> Result<InterfaceName, CniError> {
    let parsed = add.attachment.ifname.as_str().parse();
    parsed.map_err(|e: NameError| Failure::LinkSetup.error(error_chain(&e)))
}

fn bad_netns(error: &NetnsError) -> CniError {
    CniError::new(ErrorCode::InvalidEnvironment, "CNI_NETNS cannot be used", error_chain(error))
}

/// Whether the calling thread's namespace has the interface. `/sys` would show the namespace in which
/// it was mounted.
fn interface_exists(ifname: &str) -> io::Result<bool> {
    let mut table = String::new();
    File::open("/proc/thread-self/net/dev")?.take(LONGEST_TABLE + 1).read_to_string(&mut table)?;
    if table.len() as u64 > LONGEST_TABLE {
        return Err(io::Error::other("the pod's namespace has too many interfaces to read"));
    }
    let mut rows = table.lines().filter_map(|line| line.rsplit_once(": "));
    Ok(rows.any(|(name, _)| name.trim() == ifname))
}

/// The conflist's MTU, or what the node's ENIs carry if that is less. An older daemon does not say.
fn mtu(add: &Add, granted: &v1::Granted) -> Result<Mtu, MtuError> {
    let carried = Some(granted.mtu).filter(|bytes| *bytes != 0);
    Mtu::try_from(carried.map_or(add.conf.mtu, |bytes| bytes.min(add.conf.mtu)))
}

fn link(add: &Add, identity: Identity, granted: &v1::Granted) -> Result<PodLink, CniError> {
    Ok(PodLink {
        netns: add.netns.clone(),
        ifname: ifname(add)?,
        rank: crate::pod::rank(add.attachment.ifname.as_str()),
        host_name: identity.host_name,
        owner: identity.owner,
        mtu: mtu(add, granted).map_err(|e| Failure::LinkSetup.error(error_chain(&e)))?,
        addresses: crate::pod::granted(&granted.addresses)?,
        node_local: crate::pod::node_local(&granted.node_local)?,
    })
}

/// Makes the ends of the link. The kernel does so at once or not at all, so there is no deadline after
/// which nobody would know.
async fn make(link: PodLink) -> Result<(MadeLink, PodLink), Unmade> {
    match datapath::pod::make(link.clone()).await {
        Ok(made) => Ok((made, link)),
        Err(error @ AddPodError::MadeAlready { .. }) => {
            Err(Unmade::ByAnother(Failure::InterfaceExists.error(error_chain(&error))))
        }
        Err(error @ AddPodError::IfnameExists { .. }) => {
            Err(Unmade::Failed(Failure::InterfaceExists.error(error_chain(&error))))
        }
        Err(error) => Err(Unmade::Failed(Failure::LinkSetup.error(error_chain(&error)))),
    }
}

/// A link that is ready, and how long its last two steps took.
struct Finished {
    state: PodLinkState,
    /// From the grant to the end of the link's setup.
    link_us: u64,
    confirm_us: u64,
}

/// What the daemon's `DISABLE_POD_V6` asks for. A pod with an IPv6 address keeps it.
pub(crate) fn ipv6_of_pod(granted: &v1::Granted, link: &PodLink) -> PodIpv6 {
    let mut addresses = link.addresses.iter().map(|pod| pod.address).chain(link.node_local);
    let has_ipv6 = addresses.any(|address| address.is_ipv6());
    if granted.disable_ipv6 && !has_ipv6 { PodIpv6::Off } else { PodIpv6::AsItIs }
}

async fn finish(
    add: &Add,
    (made, link, ipv6): (&MadeLink, &PodLink, PodIpv6),
    daemon: &mut Daemon,
    until: Instant,
    watch: &mut Stopwatch,
) -> Result<Finished, CniError> {
    if ipv6 == PodIpv6::Off {
        let off = made.switch_ipv6_off();
        off.map_err(|error| Failure::LinkSetup.error(error_chain(&error)))?;
    }
    let state = in_time(until, made.furnish()).await?;
    let state = state.map_err(|error| Failure::LinkSetup.error(error_chain(&error)))?;
    shaping::limit(&add.conf.bandwidth, made).await?;
    ports::open(&add.conf, link).await?;
    let link_us = watch.lap();
    confirm(add, &link.addresses, daemon, until).await?;
    Ok(Finished { state, link_us, confirm_us: watch.lap() })
}

/// What the kernel has done. A request to it cannot be given up, so a late one ends here all the same.
///
/// # Errors
///
/// [`Failure::LinkSetup`] if that was not before `until`.
pub(crate) async fn in_time<T>(
    until: Instant,
    work: impl Future<Output = T>,
) -> Result<T, CniError> {
    match timeout_at(until, work).await {
        Ok(done) if Instant::now() < until => Ok(done),
        Ok(_) | Err(_) => Err(Failure::LinkSetup.error("the kernel took too long")),
    }
}

/// Asks the daemon again once the link is made. Since the grant the address may have been released:
/// by a DEL, or by a GC of a restarted daemon, which does not know of this ADD. A later DEL or GC
/// finds the link and removes it.
///
/// The daemon has the network policy agent police the link before it answers, if network policies are used.
///
/// The addresses are compared as read, since a newer daemon may have taken over and fill more fields. The node-local one
/// goes with them, and an older daemon does not know it.
pub(crate) async fn confirm(
    add: &Add,
    granted: &[PodAddress],
    daemon: &mut Daemon,
    until: Instant,
) -> Result<(), CniError> {
    let held = daemon.check(&add.attachment, until).await.map_err(|e| e.of_check())?;
    let held = crate::pod::addresses(&held.addresses)?;
    if held == granted {
        return Ok(());
    }
    let details = format!("granted: {granted:?}, on record now: {held:?}");
    Err(CniError::new(ErrorCode::TryAgainLater, "the address was released meanwhile", details))
}

/// How long the release of the address may take, beyond the bound of the ADD.
const UNDO_PATIENCE: Duration = Duration::from_secs(2);

/// Gives the address back first, while the link keeps any other ADD of the attachment from making its
/// own. After that nothing of such an ADD would be undone.
async fn undo(add: &Add, made: MadeLink, link: &PodLink, daemon: &mut Daemon) {
    give_back(add, daemon).await;
    if let Err(error) = ports::close(&add.conf, &link.owner) {
        tracing::error!(error, "host ports of a failed ADD are left");
    }
    if let Err(error) = made.undo().await {
        tracing::error!(%error, "kernel objects of a failed ADD are left");
    }
}

pub(crate) async fn give_back(add: &Add, daemon: &mut Daemon) {
    let until = Instant::now() + UNDO_PATIENCE;
    if let Err(error) = daemon.del(&add.attachment, &add.pod, until).await {
        del::remember(socket(&add.conf), &add.attachment, &error).unwrap_or_else(
            |error| tracing::error!(%error, "the address of a failed ADD is left on record"),
        );
    }
}

/// The chain's result so far, with the interfaces, addresses and routes made here.
fn result(add: Add, link: &PodLink, state: &PodLinkState) -> AddResult {
    let mut result = add.prev_result;
    let sandbox = add.netns.to_string_lossy().into_owned();
    let LinkEnd { name, mac, mtu } = &state.host;
    result.interfaces.push(Interface::on_host(name.to_string(), mac.to_string(), *mtu));
    let LinkEnd { name, mac, mtu } = &state.pod;
    let place = result.interfaces.len();
    let pod = Interface::in_sandbox(name.to_string(), mac.to_string(), *mtu, sandbox);
    result.interfaces.push(pod);
    result.ips.extend(link.addresses.iter().map(|pod| IpConfig::host(place, pod.address)));
    // The route to the gateway itself is a detail of the link. So are routes for packets from its own
    // addresses: readers would take them for the pod's default route. The node-local address and its route are left out
    // too, since whoever reads the result would take the address for one that others can reach.
    let gateways = gateways(&link.addresses);
    let in_main = state.routes.iter().filter(|route| route.table == RouteTable::MAIN);
    let by_gateway = in_main.filter_map(|route| {
        let gateway = route.gateway.filter(|gateway| gateways.contains(gateway))?;
        Some(Route::via(route.destination, gateway))
    });
    result.routes.extend(by_gateway);
    result
}

//! ADD: an address from the daemon, a link in the pod, and the result that says so.

use std::time::Duration;

use cni::{Add, AddResult, CniError, ErrorCode, Interface, IpConfig, Route};
use datapath::netns::{Netns, NetnsError};
use datapath::pod::{AddPodError, LinkEnd, PodLink, PodLinkState};
use datapath::{InterfaceName, Mtu};
use proto::v1;
use tokio::time::{Instant, timeout_at};

use crate::daemon::Daemon;
use crate::failure::{Failure, chain};
use crate::pod::Identity;
use crate::{del, pending, socket};

/// Connects the pod. All that can be refused without the daemon is refused before it is asked.
///
/// # Errors
///
/// Any of docs/errors.md for ADD. No link is left then, and no address kept; where the daemon
/// cannot be told so, a DEL lies on disk for it. Of an address whose grant got lost on the way only
/// the runtime's DEL can tell it.
pub(crate) async fn add(add: Add) -> Result<AddResult, CniError> {
    let until = Instant::now() + add.conf.ipamd_timeout;
    let identity = Identity::of(&add.conf.veth_prefix, &add.attachment, &add.pod)?;
    refuse_unusable_netns(&add)?;
    // What is left at the end makes the link, or undoes what was done.
    let asking_until = until - add.conf.ipamd_timeout / 10;
    let socket = socket(&add.conf);
    let mut daemon = Daemon::connect(socket, asking_until).await.map_err(|e| e.try_again())?;
    failpoint::pass("add", "connected");
    pending::withdraw(socket, &add.attachment).map_err(|e| {
        CniError::new(ErrorCode::Io, "cannot withdraw an earlier DEL", e.to_string())
    })?;
    let granted = daemon.add(&add.attachment, &add.pod, &add.netns, asking_until).await?;
    failpoint::pass("add", "granted");
    let made = match make_link(&add, identity.clone(), &granted, until).await {
        Ok(made) => confirm(&add, &granted, &mut daemon, until).await.map(|()| made),
        Err(error) => Err(error),
    };
    match made {
        Ok((link, state)) => {
            tracing::info!(host = %link.host_name, addresses = ?link.addresses, "pod connected");
            Ok(result(add, &link, &state))
        }
        Err(error) => {
            undo(&add, identity, &granted, &mut daemon).await;
            Err(error)
        }
    }
}

/// Code 8 for the plugin's own namespace, and an error if the interface exists: it may be a living
/// pod's, whose address the daemon would return and a failed ADD would then give back.
fn refuse_unusable_netns(add: &Add) -> Result<(), CniError> {
    let netns = Netns::open(&add.netns).map_err(|e| bad_netns(&e))?;
    let own = Netns::current().map_err(|e| bad_netns(&e))?;
    if !add.own_netns_allowed && netns.is_same(&own).map_err(|e| bad_netns(&e))? {
        let details = format!("CNI_NETNS {} is the node's own", add.netns.display());
        return Err(CniError::new(ErrorCode::OwnNamespace, "wrong network namespace", details));
    }
    let ifname = add.attachment.ifname.as_str();
    let exists = netns.run(|| interface_exists(ifname)).map_err(|e| bad_netns(&e))?;
    if exists.map_err(|e| CniError::new(ErrorCode::Io, "cannot list interfaces", e.to_string()))? {
        let details = format!("{ifname} exists already in {}", add.netns.display());
        return Err(Failure::InterfaceExists.error(details));
    }
    Ok(())
}

fn bad_netns(error: &NetnsError) -> CniError {
    CniError::new(ErrorCode::InvalidEnvironment, "CNI_NETNS cannot be used", chain(error))
}

/// Whether the calling thread's namespace has the interface. `/sys` would answer for the namespace
/// that it was mounted in.
fn interface_exists(ifname: &str) -> std::io::Result<bool> {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    let mut rows = table.lines().filter_map(|line| line.rsplit_once(": "));
    Ok(rows.any(|(name, _)| name.trim() == ifname))
}

async fn make_link(
    add: &Add,
    identity: Identity,
    granted: &[v1::PodAddress],
    until: Instant,
) -> Result<(PodLink, PodLinkState), CniError> {
    let ifname: Result<InterfaceName, _> = add.attachment.ifname.as_str().parse();
    let link = PodLink {
        netns: add.netns.clone(),
        ifname: ifname.map_err(|e| Failure::LinkSetup.error(chain(&e)))?,
        host_name: identity.host_name,
        owner: identity.owner,
        mtu: Mtu::try_from(add.conf.mtu).map_err(|e| Failure::LinkSetup.error(chain(&e)))?,
        addresses: crate::pod::addresses(granted)?,
    };
    match timeout_at(until, datapath::pod::add(&link)).await {
        Ok(Ok(state)) => Ok((link, state)),
        Ok(Err(error @ AddPodError::IfnameExists { .. })) => {
            Err(Failure::InterfaceExists.error(chain(&error)))
        }
        Ok(Err(error)) => Err(Failure::LinkSetup.error(chain(&error))),
        Err(_) => Err(Failure::LinkSetup.error("the kernel took too long")),
    }
}

/// Asks again now that the link is there. A DEL, or a GC of a daemon that was started anew and does
/// not know of this ADD, may have taken the address since the grant; whoever does so from now on
/// finds the link and takes it down.
async fn confirm(
    add: &Add,
    granted: &[v1::PodAddress],
    daemon: &mut Daemon,
    until: Instant,
) -> Result<(), CniError> {
    let held = daemon.check(&add.attachment, until).await.map_err(|e| e.try_again())?;
    if held == granted {
        return Ok(());
    }
    let details = format!("granted: {granted:?}, held now: {held:?}");
    Err(CniError::new(ErrorCode::TryAgainLater, "the address was taken back meanwhile", details))
}

/// How long giving an address back may take beyond the bound of the ADD.
const UNDO_PATIENCE: Duration = Duration::from_secs(2);

async fn undo(add: &Add, identity: Identity, granted: &[v1::PodAddress], daemon: &mut Daemon) {
    let removal = identity.removal(del::parsed(granted));
    if let Err(error) = datapath::pod::del(&removal).await {
        tracing::error!(%error, "failed ADD leaves kernel objects");
    }
    let until = Instant::now() + UNDO_PATIENCE;
    if let Err(error) = daemon.del(&add.attachment, &add.pod, until).await {
        del::remember(socket(&add.conf), &add.attachment, &error)
            .unwrap_or_else(|error| tracing::error!(%error, "failed ADD leaves its address"));
    }
}

/// The chain's result so far, and what was made here.
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
    // The way to the gateway itself is the link's own business.
    let by_gateway =
        state.routes.iter().filter_map(|route| Some(Route::via(route.destination, route.gateway?)));
    result.routes.extend(by_gateway);
    result
}

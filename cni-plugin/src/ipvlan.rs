//! The data path `ipvlan`: a pod's interface is a child of its ENI's device, and the node has nothing of the pod.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use cni::{
    Add, AddResult, Check, CniError, DataPath, ErrorCode, Interface, IpConfig, IpvlanMode, Route,
};
use datapath::pod::{
    self, AddPodError, ChildState, LinkEnd, MadeChild, ParentError, PodExpectation, PodIpv6,
    PodLink, Rank,
};
use proto::pending::directory;
use proto::v1;
use tokio::time::{Instant, timeout_at};

use crate::add::{confirm, give_back, in_time, ipv6_of_pod};
use crate::daemon::Daemon;
use crate::failure::{Failure, error_chain};
use crate::pod::rank;
use crate::socket;
use crate::stopwatch::Stopwatch;

/// The mode, if the configuration asks for the data path.
pub(crate) fn mode(data_path: DataPath) -> Option<pod::IpvlanMode> {
    match data_path {
        DataPath::Veth => None,
        DataPath::Ipvlan(IpvlanMode::L2) => Some(pod::IpvlanMode::L2),
        DataPath::Ipvlan(IpvlanMode::L3s) => Some(pod::IpvlanMode::L3s),
    }
}

/// The mode of the pod that a CHECK is for. A result that names a host's end is of a pair, whatever the configuration
/// says by now.
pub(crate) fn mode_of(check: &Check) -> Option<pod::IpvlanMode> {
    let is_pair = crate::pod::has_host_end(&check.prev_result, check.attachment.ifname.as_str());
    mode(check.conf.data_path).filter(|_| !is_pair)
}

/// Refuses what needs rules of the node, before the daemon is asked.
///
/// # Errors
///
/// [`Failure::IpvlanUnfit`] with all that is asked for in vain.
pub(crate) fn refuse_unfit(add: &Add) -> Result<(), CniError> {
    if mode(add.conf.data_path).is_none() {
        return Ok(());
    }
    let bandwidth = add.conf.bandwidth;
    let is_limited = bandwidth.ingress.is_some() || bandwidth.egress.is_some();
    let needs = [
        (!add.conf.port_mappings.is_empty(), "host ports: packets do not pass the node's rules"),
        (is_limited, "limits of bandwidth: the pod has no interface on the node"),
        (rank(add.attachment.ifname.as_str()) == Rank::Further, "a further interface of the pod"),
    ];
    unfit(needs.iter().filter(|(is_needed, _)| *is_needed).map(|(_, what)| *what))
}

/// Refuses what the daemon has granted beyond the VPC's addresses.
fn refuse_node_local(link: &PodLink) -> Result<(), CniError> {
    let Some(address) = link.node_local else { return Ok(()) };
    let what = format!(
        "egress by the node-local address {address}: the node does not translate for the pod"
    );
    unfit([what.as_str()].into_iter())
}

fn unfit<'a>(needs: impl Iterator<Item = &'a str>) -> Result<(), CniError> {
    let needs: Vec<_> = needs.collect();
    if needs.is_empty() {
        return Ok(());
    }
    Err(Failure::IpvlanUnfit.error(format!("ipvlan has no {}", needs.join("; no "))))
}

/// Connects the pod with what the daemon has granted.
///
/// # Errors
///
/// [`Failure::IpvlanUnfit`], [`Failure::InterfaceExists`], [`Failure::LinkSetup`], or code 11 if the address was
/// released meanwhile. Then no child is left and the address is given back, unless another ADD of the attachment has
/// made the child.
pub(crate) async fn connect(
    add: Add,
    (link, mode): (PodLink, pod::IpvlanMode),
    granted: &v1::Granted,
    daemon: &mut Daemon,
    (until, watch): (Instant, &mut Stopwatch),
) -> Result<AddResult, CniError> {
    let made = match refuse_node_local(&link) {
        Ok(()) => make(&add, &link, mode, until).await,
        Err(error) => Err((error, Undo::GiveBack)),
    };
    let made = match made {
        Ok(made) => made,
        Err((error, Undo::Nothing)) => return Err(error),
        Err((error, Undo::GiveBack)) => {
            give_back(&add, daemon).await;
            return Err(error);
        }
    };
    let ipv6 = ipv6_of_pod(granted, &link);
    match finish(&add, (&made, &link, ipv6), daemon, until).await {
        Ok(state) => {
            let PodLink { ifname, addresses, .. } = &link;
            let link_us = watch.lap();
            tracing::info!(%ifname, ?mode, ?addresses, link_us, "pod connected by ipvlan");
            Ok(result(add, &state))
        }
        Err(error) => {
            // As for a pair: the address first, while the child keeps any other ADD from making its own.
            give_back(&add, daemon).await;
            if let Err(error) = made.undo().await {
                tracing::error!(%error, "the ipvlan child of a failed ADD is left");
            }
            Err(error)
        }
    }
}

/// Makes the child while no other ADD of the node makes one. An ADD of another mode must see it, since the kernel would
/// give it that mode.
async fn make(
    add: &Add,
    link: &PodLink,
    mode: pod::IpvlanMode,
    until: Instant,
) -> Result<MadeChild, (CniError, Undo)> {
    let lock = directory(socket(&add.conf)).join(LOCK);
    let turn = timeout_at(until, turn(&lock)).await.unwrap_or_else(|late| Err(late.into()));
    let _turn = turn.map_err(|error| {
        let what = format!("cannot lock {}, which each ADD by ipvlan locks", lock.display());
        (CniError::new(ErrorCode::Io, what, error.to_string()), Undo::GiveBack)
    })?;
    pod::make_child(link.clone(), mode).await.map_err(|error| failure(&error))
}

/// Beside the DELs for the daemon, where only root writes.
const LOCK: &str = "ipvlan.lock";
/// Making a child takes about a millisecond.
const AGAIN: Duration = Duration::from_millis(1);

/// Returns the locked file. The lock ends with it.
async fn turn(lock: &Path) -> io::Result<File> {
    if let Some(directory) = lock.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let file =
        fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(lock)?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(AGAIN).await,
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// What a failed attempt to make a child has to take back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Undo {
    /// The address is given back.
    GiveBack,
    /// Another ADD of the attachment has the address.
    Nothing,
}

fn failure(error: &AddPodError) -> (CniError, Undo) {
    let details = error_chain(error);
    if matches!(error, AddPodError::MadeAlready { .. }) {
        return (Failure::InterfaceExists.error(details), Undo::Nothing);
    }
    let failure = if matches!(error, AddPodError::IfnameExists { .. }) {
        Failure::InterfaceExists
    } else if is_unfit(error) {
        Failure::IpvlanUnfit
    } else {
        Failure::LinkSetup
    };
    (failure.error(details), Undo::GiveBack)
}

/// Whether the same ADD by a pair could succeed.
fn is_unfit(error: &AddPodError) -> bool {
    matches!(
        error,
        AddPodError::NoIpvlan(_)
            | AddPodError::Parent(
                ParentError::TwoParents { .. }
                    | ParentError::NotOnPrimary { .. }
                    | ParentError::OtherMode { .. }
            )
    )
}

async fn finish(
    add: &Add,
    (made, link, ipv6): (&MadeChild, &PodLink, PodIpv6),
    daemon: &mut Daemon,
    until: Instant,
) -> Result<ChildState, CniError> {
    if ipv6 == PodIpv6::Off {
        made.switch_ipv6_off().map_err(|error| failure(&error).0)?;
    }
    let state = in_time(until, made.furnish()).await?.map_err(|error| failure(&error).0)?;
    confirm(add, &link.addresses, daemon, until).await?;
    Ok(state)
}

/// The chain's result so far, with the child, its addresses and default routes.
fn result(add: Add, state: &ChildState) -> AddResult {
    let mut result = add.prev_result;
    let sandbox = add.netns.to_string_lossy().into_owned();
    let LinkEnd { name, mac, mtu } = &state.pod;
    let place = result.interfaces.len();
    result.interfaces.push(Interface::in_sandbox(name.to_string(), mac.to_string(), *mtu, sandbox));
    let addresses = state.addresses.iter();
    result.ips.extend(addresses.map(|(net, gateway)| IpConfig::in_network(place, *net, *gateway)));
    // The others follow from the addresses.
    let defaults = state.routes.iter().filter(|route| route.destination.prefix_len() == 0);
    result.routes.extend(defaults.map(|route| match route.gateway {
        Some(gateway) => Route::via(route.destination, gateway),
        None => Route::on_link(route.destination),
    }));
    result
}

/// Compares the kernel with what was made.
///
/// # Errors
///
/// [`Failure::LinkChanged`] with the first difference.
pub(crate) async fn check(
    expectation: &PodExpectation,
    mode: pod::IpvlanMode,
) -> Result<(), CniError> {
    let checked = pod::check_child(expectation, mode).await;
    checked.map_err(|error| Failure::LinkChanged.error(error_chain(&error)))
}

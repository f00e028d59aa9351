//! CHECK: compares the ADD's result, the daemon's record and the kernel.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni::{AddResult, Check, CniError, Interface};
use datapath::pod::{PodAddress, PodExpectation, PodIpv6, PodRoutes, Rank};
use proto::v1;
use tokio::time::Instant;

use crate::daemon::Daemon;
use crate::failure::{Failure, error_chain};
use crate::pod::{Identity, rank};
use crate::{ipvlan, ports, shaping, socket};

/// Checks the pod's link and changes nothing.
///
/// # Errors
///
/// Code 11 if the daemon does not answer, 170 or 171 if the network policy agent does not police the pod, [`Failure::RecordDiffers`] or [`Failure::LinkChanged`]
/// with the first difference.
pub(crate) async fn check(check: &Check) -> Result<(), CniError> {
    let interface = interface(check)?;
    let recorded = recorded(check).await?;
    let addresses = crate::pod::addresses(&recorded.addresses)?;
    agree(check, &addresses)?;
    let identity = Identity::of(&check.conf.veth_prefix, &check.attachment, &check.pod)?;
    let ifname = check.attachment.ifname.as_str();
    let Identity { host_name, owner } = identity.recorded_in(&check.prev_result, ifname);
    let expectation = PodExpectation {
        netns: check.netns.clone(),
        ifname: ifname.parse().map_err(|e| Failure::LinkChanged.error(error_chain(&e)))?,
        host_name,
        owner,
        // Results of amazon-vpc-cni-k8s have the route table here, which does not parse.
        mac: interface.mac.as_deref().and_then(|mac| mac.parse().ok()),
        mtu: interface.mtu,
        routes: routes(&check.prev_result, ifname, &addresses),
        addresses,
        node_local: crate::pod::node_local(&recorded.node_local)?,
        ipv6: if recorded.ipv6_is_off { PodIpv6::Off } else { PodIpv6::AsItIs },
    };
    if let Some(mode) = ipvlan::mode_of(check) {
        return ipvlan::check(&expectation, mode).await;
    }
    datapath::pod::check(&expectation)
        .await
        .map_err(|error| Failure::LinkChanged.error(error_chain(&error)))?;
    let PodExpectation { ifname, host_name, owner, addresses, .. } = &expectation;
    shaping::check(check, ifname, host_name).await?;
    ports::check(&check.conf, owner, addresses)
}

/// Where the ADD made the pod's routes. Its result has those of the main table.
fn routes(result: &AddResult, ifname: &str, addresses: &[PodAddress]) -> PodRoutes {
    let gateways = datapath::pod::gateways(addresses);
    let is_ours = |route: &cni::Route| {
        route.dst.prefix_len() == 0 && route.gw.is_some_and(|gateway| gateways.contains(&gateway))
    };
    match rank(ifname) {
        Rank::First => PodRoutes::Main,
        Rank::Further if result.routes.iter().any(is_ours) => PodRoutes::Main,
        Rank::Further => PodRoutes::BySource,
    }
}

/// The pod's end in the ADD's result.
fn interface(check: &Check) -> Result<&Interface, CniError> {
    let ifname = check.attachment.ifname.as_str();
    let mut interfaces = check.prev_result.interfaces.iter();
    interfaces
        .find(|interface| interface.name == ifname && interface.is_in_sandbox())
        .ok_or_else(|| Failure::RecordDiffers.error(format!("prevResult has no {ifname}")))
}

async fn recorded(check: &Check) -> Result<v1::CheckReply, CniError> {
    let until = Instant::now() + check.conf.ipamd_timeout;
    let daemon = Daemon::wait_for(socket(&check.conf), until).await;
    let mut daemon = daemon.map_err(|e| e.try_again())?;
    daemon.check(&check.attachment, until).await.map_err(|e| e.of_check())
}

/// Chained plugins may have added addresses to the result, so the record may have fewer. An empty
/// record means that the daemon does not know the attachment.
fn agree(check: &Check, recorded: &[PodAddress]) -> Result<(), CniError> {
    let ifname = check.attachment.ifname.as_str();
    let result: BTreeSet<IpAddr> = check.prev_result.addresses_of(ifname).collect();
    let recorded: BTreeSet<IpAddr> = recorded.iter().map(|pod| pod.address).collect();
    if !recorded.is_empty() && recorded.is_subset(&result) {
        return Ok(());
    }
    let details = format!("prevResult has {result:?} for {ifname}, ipamd has {recorded:?}");
    Err(Failure::RecordDiffers.error(details))
}

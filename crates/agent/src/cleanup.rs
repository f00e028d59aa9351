//! Cleans up after pods that have ended, as the engine orders it: removes links, and deletes connections from
//! the kernel's tracking. It runs in a task of its own, since each may take some tenths of a second.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use datapath::pod::{self, Goes, PodRemoval};
use ipam::kernel_report::PodLink;
use tokio::sync::mpsc;

use crate::error_chain;

/// An order of the engine.
#[derive(Debug)]
pub(crate) enum Cleanup {
    /// See [`Effect::TakeDown`](ipam::event::Effect::TakeDown).
    TakeDown(BTreeMap<IpAddr, PodLink>),
    /// See [`Effect::ForgetConnections`](ipam::event::Effect::ForgetConnections).
    ForgetConnections(BTreeSet<IpAddr>),
}

/// Carries out the orders, one after the other, until their sender is dropped.
pub(crate) async fn carry_out_forever(mut orders: mpsc::UnboundedReceiver<Cleanup>) {
    while let Some(order) = orders.recv().await {
        match order {
            Cleanup::TakeDown(links) => take_down(&links).await,
            Cleanup::ForgetConnections(addresses) => forget_connections(addresses).await,
        }
    }
}

/// Retires links as a DEL does; [`crate::retired`] removes them. After a failure, the engine repeats the order at the
/// next kernel report.
async fn take_down(links: &BTreeMap<IpAddr, PodLink>) {
    for (address, link) in links {
        let Some(removal) = removal(*address, link) else { continue };
        let link = &link.name;
        match pod::del(&removal).await {
            Ok(_) => tracing::info!(%address, link, "removed the link of a forgotten sandbox"),
            Err(fault) => tracing::warn!(
                %address, link, fault = error_chain(&fault), "link of a forgotten sandbox cannot be removed",
            ),
        }
    }
}

/// `None` if the link's name or mark cannot be parsed. The kernel reports no such link with a mark.
fn removal(address: IpAddr, link: &PodLink) -> Option<PodRemoval> {
    let host_name = link.name.parse().ok()?;
    let owner = link.mark.as_ref()?.parse().ok()?;
    Some(PodRemoval { host_name, owner, addresses: vec![address], netns: None, goes: Goes::Later })
}

async fn forget_connections(addresses: BTreeSet<IpAddr>) {
    // In a blocking thread, since the kernel walks through all connections of the node.
    let forgetting = tokio::task::spawn_blocking(move || {
        match datapath::connections::forget(&addresses) {
            Ok(0) => {}
            Ok(n) => tracing::info!(n, ?addresses, "deleted connections of pods that have ended"),
            Err(fault) => tracing::warn!(
                fault = error_chain(&fault),
                ?addresses,
                "connections of pods that have ended cannot be deleted; they may reach the next pods",
            ),
        }
    });
    if let Err(fault) = forgetting.await {
        tracing::error!(%fault, "deleting connections has panicked");
    }
}

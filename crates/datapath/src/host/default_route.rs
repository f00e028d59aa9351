//! The main table's default route, by which pods of the primary ENI leave the VPC.

use netlink_packet_route::AddressFamily;

use super::{Families, HostPicture, ListError, Snapshot, list};
use crate::netlink::{KernelError, Netlink};
use crate::route::{self, DefaultRoute};
use crate::{Applied, Route, RouteTable};

/// The main table's default route does not lead out of the primary ENI.
#[derive(Debug, thiserror::Error)]
pub enum DefaultRouteError {
    /// Something could not be read.
    #[error(transparent)]
    List(#[from] ListError),
    /// The route is another program's, on a device that is no ENI of the picture.
    #[error(
        "the main table's {route} dev {device} with metric {metric} comes before the primary ENI's: pods of the \
         primary ENI would leave there; remove it, or give it a greater metric"
    )]
    Elsewhere {
        /// The route that the kernel prefers.
        route: Route,
        /// Its device's name.
        device: String,
        /// Its metric.
        metric: u32,
    },
    /// The route leads out of a secondary ENI, and the kernel refused to remove it.
    #[error("remove the main table's {route} dev {device}")]
    Remove {
        /// The route.
        route: Route,
        /// Its device's name.
        device: String,
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
}

/// Removes default routes that lead out of a secondary ENI from the main table, where they come before that of
/// the primary ENI. DHCP clients add such routes. A node without a default route stays as it is.
pub(super) async fn sync(
    netlink: &Netlink,
    snapshot: &Snapshot,
    wanted: &HostPicture,
) -> Result<Applied, DefaultRouteError> {
    let mut applied = sync_family(netlink, snapshot, wanted, AddressFamily::Inet).await?;
    match wanted.families {
        Families::Ipv4 => {}
        Families::Ipv6 => {
            let ipv6 = sync_family(netlink, snapshot, wanted, AddressFamily::Inet6).await?;
            applied = applied.max(ipv6);
        }
    }
    Ok(applied)
}

async fn sync_family(
    netlink: &Netlink,
    snapshot: &Snapshot,
    wanted: &HostPicture,
    family: AddressFamily,
) -> Result<Applied, DefaultRouteError> {
    let Some(primary) = snapshot.device(wanted.primary_mac) else { return Ok(Applied::Unchanged) };
    let defaults = route::defaults(netlink, family, RouteTable::MAIN)
        .await
        .map_err(list("the default routes"))?;
    let own = defaults.iter().filter(|found| found.route.device == primary.index);
    let Some(own_metric) = own.map(|found| found.metric).min() else {
        return Ok(Applied::Unchanged);
    };
    let mut applied = Applied::Unchanged;
    let before =
        |found: &&DefaultRoute| found.metric < own_metric && found.route.device != primary.index;
    for DefaultRoute { route, metric } in defaults.iter().filter(before) {
        let device = snapshot.links.iter().find(|link| link.index == route.device);
        let name = device.map_or_else(|| route.device.to_string(), |link| link.name.clone());
        let is_enis = device.is_some_and(|link| wanted.enis.iter().any(|eni| eni.mac == link.mac));
        if !is_enis {
            let (route, metric) = (route.clone(), *metric);
            return Err(DefaultRouteError::Elsewhere { route, device: name, metric });
        }
        route::remove(netlink, route).await.map_err(|source| DefaultRouteError::Remove {
            route: route.clone(),
            device: name,
            source,
        })?;
        applied = Applied::Updated;
    }
    Ok(applied)
}

//! The limits of the pod's bandwidth that the runtime asks for.

use std::num::NonZeroU64;

use cni::{Bandwidth, Check, CniError, Rate};
use datapath::InterfaceName;
use datapath::pod::MadeLink;
use datapath::shaping::{self, Limit, Limits};

use crate::failure::{Failure, error_chain};

/// Sets the limits on a link.
///
/// # Errors
///
/// [`Failure::LinkSetup`].
pub(crate) async fn limit(bandwidth: &Bandwidth, made: &MadeLink) -> Result<(), CniError> {
    let set = shaping::limit(made, &limits(bandwidth)).await;
    set.map_err(|error| Failure::LinkSetup.error(error_chain(&error)))
}

/// Compares the kernel with what the runtime asks for.
///
/// # Errors
///
/// [`Failure::LinkChanged`] with the first limit that is missing.
pub(crate) async fn check(
    check: &Check,
    ifname: &InterfaceName,
    host_name: &InterfaceName,
) -> Result<(), CniError> {
    let limits = limits(&check.conf.bandwidth);
    let checked = shaping::check(&check.netns, ifname, host_name, &limits).await;
    checked.map_err(|error| Failure::LinkChanged.error(error_chain(&error)))
}

fn limits(Bandwidth { ingress, egress }: &Bandwidth) -> Limits {
    Limits { to_pod: ingress.map(limit_of), from_pod: egress.map(limit_of) }
}

/// In bytes. Runtimes count bits.
fn limit_of(Rate { bits_per_second, burst_bits }: Rate) -> Limit {
    let burst = burst_bits.map(|bits| u32::try_from(bits.get() / 8).unwrap_or(u32::MAX));
    let rate = NonZeroU64::new(bits_per_second.get() / 8);
    Limit { rate: rate.unwrap_or(NonZeroU64::MIN), burst }
}

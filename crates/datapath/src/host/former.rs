//! The rules of ENIs that the picture lacks. Their routes went with their devices.
//!
//! Such a rule does harm if a pod on the primary ENI gets the address. The rule would send the pod's
//! packets out of the ENI that has the rule's table by then.

use std::net::IpAddr;

use super::{FormerEnis, HostEni, ListError, Snapshot};
use crate::netlink::{KernelError, Netlink};
use crate::rule::{self, ListedRule};
use crate::{MacAddr, Rule};

/// Why rules of former ENIs are left.
#[derive(Debug, thiserror::Error)]
pub enum FormerError {
    /// The kernel could not be read.
    #[error(transparent)]
    List(#[from] ListError),
    /// The kernel refused to remove this rule, the first of those that are left.
    #[error("remove rule {rule}")]
    Remove {
        /// The rule.
        rule: Rule,
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
}

/// Removes the rules with our mark whose address neither an ENI of `wanted` nor any link has.
///
/// Rules without the mark stay. They may be an administrator's: the kernel gives the same priority to
/// rules that are added without one.
pub(super) async fn sync(
    netlink: &Netlink,
    before: &Snapshot,
    wanted: &[HostEni],
) -> Result<FormerEnis, FormerError> {
    let is_wanted = |rule: &Rule| {
        wanted.iter().any(|eni| rule.rivals(&Rule::from_eni(eni.primary_address.into(), eni.table)))
    };
    let mut former = FormerEnis::default();
    let mut first_error = None;
    for listed in &before.rules {
        let ListedRule { rule, protocol } = *listed;
        let Some(address) = rule.eni_address() else { continue };
        if protocol != rule::OURS || is_wanted(&rule) {
            continue;
        }
        if let Some(device) = device_with(before, address) {
            former.devices.insert(device);
            continue;
        }
        match rule::remove(netlink, listed).await {
            Ok(()) => former.n_removed += 1,
            Err(source) => {
                first_error.get_or_insert(FormerError::Remove { rule, source });
            }
        }
    }
    first_error.map_or(Ok(former), Err)
}

fn device_with(snapshot: &Snapshot, address: IpAddr) -> Option<MacAddr> {
    let (index, _) = snapshot.addresses.iter().find(|(_, net)| net.addr() == address)?;
    snapshot.links.iter().find(|link| link.index == *index).map(|link| link.mac)
}

//! What a pod's link is called and whose it is: from the request's words to `datapath`'s.

use std::net::IpAddr;

use cni::{AddResult, Attachment, CniError, ErrorCode, Pod};
use datapath::pod::{PodAddress, PodRemoval};
use datapath::{InterfaceName, Owner, host_veth_name};
use proto::v1;

use crate::failure::{Failure, chain};

/// What a pod's link is found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Name of the host's end.
    pub(crate) host_name: InterfaceName,
    /// The mark of the host's end.
    pub(crate) owner: Owner,
}

impl Identity {
    /// The link of a request's attachment.
    pub(crate) fn of(
        veth_prefix: &str,
        attachment: &Attachment,
        pod: &Pod,
    ) -> Result<Identity, CniError> {
        let Attachment { network: _, container_id, ifname } = attachment;
        Self::named(
            veth_prefix,
            (&pod.namespace, &pod.name),
            container_id.as_str(),
            ifname.as_str(),
        )
    }

    /// The link of an attachment that the daemon names.
    pub(crate) fn of_collected(
        veth_prefix: &str,
        collected: &v1::Collected,
    ) -> Result<Identity, CniError> {
        let attachment = collected.attachment.clone().unwrap_or_default();
        let pod = collected.pod.clone().unwrap_or_default();
        let pod = (pod.namespace.as_str(), pod.name.as_str());
        Self::named(veth_prefix, pod, &attachment.container_id, &attachment.ifname)
    }

    fn named(
        veth_prefix: &str,
        (namespace, pod): (&str, &str),
        container_id: &str,
        ifname: &str,
    ) -> Result<Identity, CniError> {
        let host_name = host_veth_name(veth_prefix, namespace, pod, container_id);
        let owner = format!("{container_id}/{ifname}").parse();
        Ok(Identity {
            host_name: host_name.map_err(|e| unusable(&e))?,
            owner: owner.map_err(|e| unusable(&e))?,
        })
    }

    /// With the name that the ADD's result has for the host's end: the prefix in the configuration
    /// may have changed since.
    pub(crate) fn recorded_in(self, result: &AddResult) -> Identity {
        let host_name = recorded_host_name(result, &self.host_name).unwrap_or(self.host_name);
        Identity { host_name, owner: self.owner }
    }

    /// What to take down.
    pub(crate) fn removal(self, addresses: Vec<IpAddr>) -> PodRemoval {
        PodRemoval { host_name: self.host_name, owner: self.owner, addresses }
    }
}

/// Number of hexadecimal digits at the end of a host end's name.
const HASH_DIGITS: usize = 11;

fn recorded_host_name(result: &AddResult, expected: &InterfaceName) -> Option<InterfaceName> {
    let expected = expected.as_str();
    let hash = expected.get(expected.len().checked_sub(HASH_DIGITS)?..)?;
    let mut on_host = result.interfaces.iter().filter(|interface| !interface.is_in_sandbox());
    on_host.find(|interface| interface.name.ends_with(hash))?.name.parse().ok()
}

fn unusable(error: &dyn std::error::Error) -> CniError {
    CniError::new(ErrorCode::InvalidEnvironment, "the pod's link cannot be named", chain(error))
}

/// The daemon's addresses as `datapath` takes them.
pub(crate) fn addresses(wire: &[v1::PodAddress]) -> Result<Vec<PodAddress>, CniError> {
    let address = |wire: &v1::PodAddress| {
        let address = wire.address.parse().map_err(|_| {
            Failure::BadAnswer.error(format!("ipamd says {:?} for an address", wire.address))
        })?;
        Ok(PodAddress { address, table: wire.table.into() })
    };
    wire.iter().map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(pod: (&str, &str), ifname: &str) -> Identity {
        Identity::named("eni", pod, "c1", ifname).unwrap()
    }

    #[test]
    fn a_link_is_named_after_its_pod_and_marked_with_its_sandbox() {
        let link = identity(("default", "sample-pod"), "eth0");
        assert_eq!(link.host_name.as_str(), "enicc21c2d7785");
        assert_eq!(link.owner.as_str(), "c1/eth0");
    }

    #[test]
    fn a_recorded_name_wins_over_a_new_prefix() {
        let prev: AddResult = serde_json::from_str(
            r#"{"interfaces": [
                {"name": "veth0123"}, {"name": "cc21c2d7785", "sandbox": "/x"},
                {"name": "oldcc21c2d7785"}
            ]}"#,
        )
        .unwrap();
        let ours = identity(("default", "sample-pod"), "eth0").recorded_in(&prev);
        assert_eq!(ours.host_name.as_str(), "oldcc21c2d7785");
        let other = identity(("default", "other-pod"), "eth0");
        assert_eq!(other.clone().recorded_in(&prev), other);
    }

    #[test]
    fn an_address_that_is_none_is_a_bad_answer() {
        let wire = |address: &str| v1::PodAddress {
            address: address.into(),
            table: 2,
            ..Default::default()
        };
        assert_eq!(addresses(&[wire("10.0.2.20")]).unwrap()[0].table.number(), 2);
        assert!(addresses(&[wire("10.0.2.20/32")]).is_err());
    }
}

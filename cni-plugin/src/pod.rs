//! From the request and the daemon's answer to the types of `datapath`: a link's name, its owner, and
//! the pod's addresses.

use std::net::IpAddr;

use cni::{AddResult, Attachment, CniError, ErrorCode, Interface, Pod};
use datapath::pod::{Goes, PodAddress, PodRemoval, Rank};
use datapath::{InterfaceName, Owner, host_veth_name};
use proto::v1;
use proto::v1::pod_address::Reach;

use crate::failure::{Failure, error_chain};

/// The name and mark that identify a pod's link.
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

    /// The link of an attachment that the daemon collected.
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
        let host_name = host_veth_name(veth_prefix, namespace, pod, container_id, further(ifname));
        let owner = format!("{container_id}/{ifname}").parse();
        Ok(Identity {
            host_name: host_name.map_err(|e| unusable(&e))?,
            owner: owner.map_err(|e| unusable(&e))?,
        })
    }

    /// Takes the host end's name from the ADD's result. The prefix in the configuration may have
    /// changed since, and runtimes may name the pod otherwise.
    pub(crate) fn recorded_in(self, result: &AddResult, ifname: &str) -> Identity {
        let host_name = recorded_host_name(result, ifname).unwrap_or(self.host_name);
        Identity { host_name, owner: self.owner }
    }

    /// The link as `datapath` removes it, at once.
    pub(crate) fn removal(self, addresses: Vec<IpAddr>) -> PodRemoval {
        let Identity { host_name, owner } = self;
        PodRemoval { host_name, owner, addresses, netns: None, goes: Goes::Now }
    }
}

/// The interface that runtimes ask for first. Its link is named as amazon-vpc-cni-k8s names it.
const FIRST: &str = "eth0";

/// Which of the pod's interfaces `ifname` is.
pub(crate) fn rank(ifname: &str) -> Rank {
    if ifname == FIRST { Rank::First } else { Rank::Further }
}

fn further(ifname: &str) -> Option<&str> {
    match rank(ifname) {
        Rank::First => None,
        Rank::Further => Some(ifname),
    }
}

/// Whether the result of an ADD names the host's end of the link to `ifname`.
pub(crate) fn has_host_end(result: &AddResult, ifname: &str) -> bool {
    recorded_host_name(result, ifname).is_some()
}

/// The host's end is listed just before the pod's, also by amazon-vpc-cni-k8s.
fn recorded_host_name(result: &AddResult, ifname: &str) -> Option<InterfaceName> {
    let is_pods = |at: &Interface| at.is_in_sandbox() && at.name == ifname;
    let place = result.interfaces.iter().position(is_pods)?;
    let before = result.interfaces.get(place.checked_sub(1)?)?;
    if before.is_in_sandbox() { None } else { before.name.parse().ok() }
}

fn unusable(error: &dyn std::error::Error) -> CniError {
    CniError::new(
        ErrorCode::InvalidEnvironment,
        "the pod's link cannot be named",
        error_chain(error),
    )
}

/// The addresses of a grant: one, or one of each family, on ENIs.
///
/// # Errors
///
/// [`Failure::UnsupportedGrant`] if there are others or no ENI carries one, [`Failure::BadAnswer`] if
/// there is none or one is malformed.
pub(crate) fn granted(wire: &[v1::PodAddress]) -> Result<Vec<PodAddress>, CniError> {
    let granted = addresses(wire)?;
    match granted.as_slice() {
        [] => Err(Failure::BadAnswer.error("ipamd granted no address")),
        [_] => Ok(granted),
        [one, other] if one.address.is_ipv4() != other.address.is_ipv4() => Ok(granted),
        [_, _, ..] => {
            let addresses: Vec<_> = wire.iter().map(|wire| wire.address.as_str()).collect();
            Err(unsupported(&format!("{} addresses ({})", wire.len(), addresses.join(", "))))
        }
    }
}

/// The daemon's addresses as `datapath` takes them.
///
/// # Errors
///
/// As for [`granted`], but any addresses are fine.
pub(crate) fn addresses(wire: &[v1::PodAddress]) -> Result<Vec<PodAddress>, CniError> {
    wire.iter().map(address).collect()
}

/// The node-local address of an answer; empty text for none.
///
/// # Errors
///
/// [`Failure::BadAnswer`] if it is malformed.
pub(crate) fn node_local(wire: &str) -> Result<Option<IpAddr>, CniError> {
    match wire {
        "" => Ok(None),
        text => parsed(text).map(Some),
    }
}

fn address(wire: &v1::PodAddress) -> Result<PodAddress, CniError> {
    let v1::PodAddress { address, table, eni: _, reach } = wire;
    let table = match reach {
        Some(Reach::ByEni(eni)) => eni.table,
        // Daemons without `reach` know ENIs only.
        None => *table,
        Some(Reach::ByBranch(v1::BranchReach { id, vlan_id, trunk, .. })) => {
            let branch = format!("{address} on branch ENI {id} (VLAN {vlan_id} of trunk {trunk})");
            return Err(unsupported(&branch));
        }
    };
    let parsed = parsed(address)?;
    // The way of a later version, which looks unset here.
    if table == 0 {
        return Err(unsupported(&format!("{address} without a route table")));
    }
    Ok(PodAddress { address: parsed, table: table.into() })
}

fn parsed(address: &str) -> Result<IpAddr, CniError> {
    address.parse().map_err(|_| {
        Failure::BadAnswer.error(format!("ipamd sent {address:?} where an address is expected"))
    })
}

fn unsupported(what: &str) -> CniError {
    let details =
        format!("ipamd granted {what}; this plugin sets up one address of each family, on an ENI");
    Failure::UnsupportedGrant.error(details)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(pod: (&str, &str), ifname: &str) -> Identity {
        Identity::named("eni", pod, "c1", ifname).unwrap()
    }

    #[test]
    fn identity_has_the_pods_name_and_the_sandboxs_mark() {
        let link = identity(("default", "sample-pod"), "eth0");
        assert_eq!(link.host_name.as_str(), "enicc21c2d7785");
        assert_eq!(link.owner.as_str(), "c1/eth0");
    }

    #[test]
    fn recorded_host_name_replaces_the_one_of_today() {
        let prev: AddResult = serde_json::from_str(
            r#"{"interfaces": [
                {"name": "veth0123"}, {"name": "oldcc21c2d7785"}, {"name": "eth0", "sandbox": "/x"},
                {"name": "net1", "sandbox": "/x"}, {"name": "lo", "sandbox": "/x"}
            ]}"#,
        )
        .unwrap();
        let ours = identity(("default", "other-pod"), "eth0");
        assert_eq!(ours.clone().recorded_in(&prev, "eth0").host_name.as_str(), "oldcc21c2d7785");
        for other in ["net1", "net2"] {
            assert_eq!(ours.clone().recorded_in(&prev, other), ours, "{other}");
        }
    }

    fn on_eni(address: &str, table: u32) -> v1::PodAddress {
        let by_eni = v1::EniReach { id: "eni-1".into(), network_card: 0, device_index: 1, table };
        v1::PodAddress {
            address: address.into(),
            table,
            eni: "eni-1".into(),
            reach: Some(Reach::ByEni(by_eni)),
        }
    }

    /// The address and table, or the code and a part of the details.
    fn check(wire: &[v1::PodAddress], expect: Result<(&str, u32), (u32, &str)>) {
        match (granted(wire), expect) {
            (Ok(granted), Ok(expect)) => {
                let [PodAddress { address, table }] = granted[..] else { panic!("{granted:?}") };
                assert_eq!((&*address.to_string(), table.number()), expect);
            }
            (Err(error), Err((code, part))) => {
                assert_eq!(error.code.number(), code, "{error}");
                assert!(error.details.contains(part), "{error}");
            }
            (found, expect) => panic!("{found:?} is not {expect:?}"),
        }
    }

    #[test]
    fn grant_on_an_eni_is_read_with_and_without_reach() {
        let new = on_eni("10.0.2.20", 2);
        let old = v1::PodAddress { reach: None, ..new.clone() };
        check(std::slice::from_ref(&new), Ok(("10.0.2.20", 2)));
        check(&[old], Ok(("10.0.2.20", 2)));
        // Fields for older plugins need not be filled for ever.
        let later = v1::PodAddress { table: 0, eni: String::new(), ..new };
        check(&[later], Ok(("10.0.2.20", 2)));
    }

    #[test]
    fn grant_that_cannot_be_set_up_is_unsupported() {
        let branch = v1::BranchReach {
            id: "eni-b".into(),
            vlan_id: 7,
            mac: "02:00:00:00:00:07".into(),
            gateway: "10.0.2.1".into(),
            trunk: "eni-t".into(),
            trunk_mac: "02:00:00:00:00:08".into(),
        };
        let branch = v1::PodAddress {
            address: "10.0.2.20".into(),
            reach: Some(Reach::ByBranch(branch)),
            ..Default::default()
        };
        check(&[branch], Err((156, "10.0.2.20 on branch ENI eni-b (VLAN 7 of trunk eni-t)")));
        let unknown = v1::PodAddress { address: "10.0.2.20".into(), ..Default::default() };
        check(&[unknown], Err((156, "10.0.2.20 without a route table")));
        let two = [on_eni("10.0.2.20", 2), on_eni("10.0.3.20", 3)];
        check(&two, Err((156, "2 addresses (10.0.2.20, 10.0.3.20)")));
    }

    #[test]
    fn grant_of_both_families_is_set_up_whole() {
        let wire = [on_eni("10.0.2.20", 2), on_eni("2001:db8::20", 254)];
        let granted = granted(&wire).unwrap();
        let read: Vec<_> =
            granted.iter().map(|pod| (pod.address.to_string(), pod.table.number())).collect();
        assert_eq!(read, [("10.0.2.20".to_owned(), 2), ("2001:db8::20".to_owned(), 254)]);
        let three = [wire[0].clone(), wire[1].clone(), on_eni("2001:db8::21", 254)];
        check(&three, Err((156, "3 addresses (10.0.2.20, 2001:db8::20, 2001:db8::21)")));
    }

    #[test]
    fn grant_without_a_proper_address_is_a_bad_answer() {
        check(&[], Err((155, "no address")));
        check(&[on_eni("10.0.2.20/32", 2)], Err((155, "\"10.0.2.20/32\"")));
    }
}

//! Names, marks and MTUs of links: what can be validated without the kernel.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use mac::MacAddr;
use sha1::{Digest as _, Sha1};

/// Longest interface name in bytes (`IFNAMSIZ` of the kernel's `if.h`, less the final zero).
const LONGEST_NAME: usize = 15;

/// Longest mark in bytes (`IFALIASZ` of the kernel's `if.h`, less the final zero).
const LONGEST_OWNER: usize = 255;

/// Hexadecimal digits of the hash that make a host veth's name.
const HASH_DIGITS: usize = 11;

/// A name that the kernel accepts for an interface: 1 to 15 bytes, neither `.` nor `..`, without
/// `/`, `:` and white space (the kernel's `dev_valid_name`). Also without `%`: the kernel would put a
/// number in `%d` (`dev_alloc_name`), and the link would have another name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(String);

/// The text is not an interface name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an interface name: 1 to 15 bytes without '/', ':', '%' and white space")]
pub struct NameError(String);

impl InterfaceName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let length = (1..=LONGEST_NAME).contains(&name.len());
        let forbidden = |c: char| "/:%\0".contains(c) || c.is_whitespace();
        if !length || name == "." || name == ".." || name.contains(forbidden) {
            return Err(NameError(name.to_owned()));
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of the host end of a pod's link, as amazon-vpc-cni-k8s has it: the prefix and the first
/// 11 hexadecimal digits of SHA-1 over `<namespace>.<pod>`. If the runtime does not name the pod, the
/// container id is hashed instead, so that two such sandboxes do not clash. `further` is the name of
/// the pod's interface if it is not the pod's first one. Then it is hashed too, after a slash, which
/// no other name has.
///
/// # Errors
///
/// [`NameError`] if `prefix` makes the name too long (more than 4 bytes) or illegal.
pub fn host_veth_name(
    prefix: &str,
    namespace: &str,
    pod: &str,
    container_id: &str,
    further: Option<&str>,
) -> Result<InterfaceName, NameError> {
    let mut hashed =
        if pod.is_empty() { container_id.to_owned() } else { format!("{namespace}.{pod}") };
    if let Some(ifname) = further {
        hashed += &format!("/{ifname}");
    }
    format!("{prefix}{}", hash_suffix(&hashed)).parse()
}

fn hash_suffix(hashed: &str) -> String {
    let mut hex = String::new();
    for byte in Sha1::digest(hashed) {
        write!(hex, "{byte:02x}").expect("writing to a string does not fail");
    }
    hex.truncate(HASH_DIGITS);
    hex
}

/// The mark of the attachment that owns a pod's link, written on the host end as its alias (`ip link`).
/// A late removal by an earlier sandbox of the same pod finds another mark and leaves the link alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(String);

/// The text cannot be a link's mark.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot mark a link: 1 to 255 printable bytes")]
pub struct OwnerError(String);

impl Owner {
    /// The mark.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host end's hardware address, derived from the mark. So it needs no randomness, differs
    /// between sandboxes, and shows the owner of a link that has no mark yet.
    pub(crate) fn host_mac(&self) -> MacAddr {
        let [a, b, c, d, e, f, ..] = <[u8; 20]>::from(Sha1::digest(&self.0));
        MacAddr::local([a, b, c, d, e, f])
    }

    /// The name of an `ipvlan` child that does not have the mark yet, derived from it.
    pub(crate) fn first_name(&self) -> String {
        format!("ipv{}", hash_suffix(&self.0))
    }
}

impl FromStr for Owner {
    type Err = OwnerError;

    fn from_str(owner: &str) -> Result<Self, OwnerError> {
        let length = (1..=LONGEST_OWNER).contains(&owner.len());
        if !length || owner.contains(char::is_control) {
            return Err(OwnerError(owner.to_owned()));
        }
        Ok(Self(owner.to_owned()))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The largest packet of a link in bytes: from 576, which every IPv4 host accepts (RFC 791), to 9001,
/// the largest in a VPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mtu(u32);

/// The number is out of range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("MTU {0} is not between 576 and 9001")]
pub struct MtuError(u32);

impl Mtu {
    /// Jumbo frames of a VPC.
    pub const JUMBO: Self = Self(9001);

    /// In bytes.
    #[must_use]
    pub fn bytes(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Mtu {
    type Error = MtuError;

    fn try_from(bytes: u32) -> Result<Self, MtuError> {
        if (576..=Self::JUMBO.0).contains(&bytes) { Ok(Self(bytes)) } else { Err(MtuError(bytes)) }
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_veth_name_equals_the_incumbents() {
        for (namespace, pod, suffix) in [
            ("kube-system", "coredns-57ff979f67-qqbdh", "b5faff8a083"),
            ("kube-system", "coredns-57ff979f67-8ns9b", "9571956a6cc"),
            ("default", "sample-pod", "cc21c2d7785"),
        ] {
            let name = host_veth_name("eni", namespace, pod, "c1", None).unwrap();
            assert_eq!(name.as_str(), format!("eni{suffix}"));
        }
        assert_eq!(hash_suffix("."), "3a52ce78095");
        assert_eq!(hash_suffix("..1"), "ce799470a46");
    }

    #[test]
    fn host_veth_name_without_pod_differs_by_container() {
        let of = |container_id| host_veth_name("eni", "", "", container_id, None).unwrap();
        assert_ne!(of("c1"), of("c2"));
        assert_eq!(of("c1"), of("c1"));
    }

    #[test]
    fn host_veth_name_differs_by_further_interface() {
        let of = |pod, further| host_veth_name("eni", "default", pod, "c1", further).unwrap();
        let names = [of("a", None), of("a", Some("net1")), of("a", Some("net2")), of("", None)];
        let names = names.into_iter().chain([of("", Some("net1")), of("a.net1", None)]);
        assert_eq!(names.collect::<std::collections::BTreeSet<_>>().len(), 6);
    }

    #[test]
    fn host_veth_name_with_bad_prefix_is_refused() {
        assert!(host_veth_name("vlan", "default", "sample-pod", "", None).is_ok());
        assert!(host_veth_name("vlan5", "default", "sample-pod", "", None).is_err());
        assert!(host_veth_name("e/", "default", "sample-pod", "", None).is_err());
    }

    #[test]
    fn interface_name_parses_only_what_the_kernel_accepts() {
        for good in ["e", "eth0", "vlan.eth.17", "123456789012345"] {
            assert!(good.parse::<InterfaceName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "a\nb", "a\0b", "a%d", "1234567890123456"] {
            assert!(bad.parse::<InterfaceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn owner_and_mtu_out_of_range_are_refused() {
        assert!("c1/eth0".parse::<Owner>().is_ok());
        assert!("x".repeat(255).parse::<Owner>().is_ok());
        for bad in ["", "a\nb", "a\0b", &"x".repeat(256)] {
            assert!(bad.parse::<Owner>().is_err(), "{bad:?}");
        }
        assert!([576, 1500, 9001].into_iter().all(|mtu| Mtu::try_from(mtu).is_ok()));
        assert!([0, 575, 9002].into_iter().all(|mtu| Mtu::try_from(mtu).is_err()));
    }
}

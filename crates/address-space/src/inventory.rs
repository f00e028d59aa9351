//! The inventory: all that an audit, a bill or a plan is decided from. As a file it is JSON, so that they are repeatable.
//!
//! It must not know what is decided.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipam::id::{EniId, InstanceId, SubnetId, VpcId};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// The version of the file. It goes up with every new key, since a reader refuses what it does not know.
pub const VERSION: u32 = 2;

/// Tags by key.
pub type Tags = BTreeMap<String, String>;

/// What exists, in any number of accounts and Regions. Each list may be empty. No order is needed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Inventory {
    /// VPCs.
    pub vpcs: Vec<Vpc>,
    /// Their subnets.
    pub subnets: Vec<Subnet>,
    /// Network interfaces, attached or not.
    pub interfaces: Vec<Interface>,
    /// Instances that are not terminated.
    pub instances: Vec<Instance>,
    /// Public IPv4 addresses, in use or not.
    pub public_addresses: Vec<PublicAddress>,
    /// Peerings that are active.
    pub peerings: Vec<Peering>,
    /// Pools of Amazon VPC IPAM.
    pub pools: Vec<Pool>,
    /// What could not be read.
    pub gaps: Vec<Gap>,
}

/// Whose something is, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The number of the account: `111122223333`.
    pub account: String,
    /// For example `eu-central-1`.
    pub region: String,
}

/// A VPC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vpc {
    /// Its id.
    pub id: VpcId,
    /// Its owner and Region.
    pub place: Place,
    /// Its ranges of both families, the primary first.
    pub cidrs: Vec<IpNet>,
    /// Whether AWS has made it with the account. All of them have the same range.
    #[serde(default)]
    pub is_default: bool,
    /// Its tags.
    #[serde(default)]
    pub tags: Tags,
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subnet {
    /// Its id.
    pub id: SubnetId,
    /// Its VPC.
    pub vpc: VpcId,
    /// Its owner and Region.
    pub place: Place,
    /// Its zone: `eu-central-1a`.
    pub zone: String,
    /// Its IPv4 range; `None` if it has IPv6 alone.
    pub cidr: Option<Ipv4Net>,
    /// Its IPv6 range.
    #[serde(default)]
    pub ipv6_cidr: Option<Ipv6Net>,
    /// Free IPv4 addresses by EC2's count; `None` if nobody has asked EC2.
    #[serde(default)]
    pub free_addresses: Option<u32>,
    /// Its CIDR reservations.
    #[serde(default)]
    pub reservations: Vec<Reservation>,
    /// Its tags.
    #[serde(default)]
    pub tags: Tags,
}

/// A part of a subnet from which EC2 takes only some kinds of blocks by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reservation {
    /// Its range.
    pub cidr: IpNet,
    /// What EC2 takes from it.
    pub kind: ReservationKind,
}

/// The kinds of a [`Reservation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReservationKind {
    /// EC2 takes prefixes from it and no single addresses.
    Prefix,
    /// EC2 takes nothing from it by itself.
    Explicit,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// Its id.
    pub id: EniId,
    /// Its subnet.
    pub subnet: SubnetId,
    /// EC2's word for its kind: `interface`, `nat_gateway`, `branch`.
    pub kind: String,
    /// Its description. Services of AWS say here whose it is.
    #[serde(default)]
    pub description: String,
    /// What it is attached to; `None` if it is not.
    #[serde(default)]
    pub attachment: Option<Attachment>,
    /// Its addresses of both families. The first of IPv4 is the primary one.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Its prefixes of both families.
    #[serde(default)]
    pub prefixes: Vec<IpNet>,
    /// Its tags.
    #[serde(default)]
    pub tags: Tags,
}

/// An attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// The instance; `None` if it is a service of AWS.
    pub instance: Option<InstanceId>,
    /// The device index.
    pub device_index: u32,
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// For example `m5.large`.
    pub instance_type: String,
    /// The name that its node has in Kubernetes unless somebody sets another.
    #[serde(default)]
    pub private_dns_name: String,
    /// Its tags.
    #[serde(default)]
    pub tags: Tags,
}

/// A public IPv4 address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicAddress {
    /// The address.
    pub address: Ipv4Addr,
    /// Its owner and Region.
    pub place: Place,
    /// Who uses it; `None` if nobody does.
    pub interface: Option<EniId>,
}

/// A peering of two VPCs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peering {
    /// Its id: `pcx-0123456789abcdef0`.
    pub id: String,
    /// Both VPCs. One of them may be outside of the inventory.
    pub vpcs: [VpcId; 2],
}

/// A pool of Amazon VPC IPAM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Its id: `ipam-pool-0123456789abcdef0`.
    pub id: String,
    /// Whose it is, and the home Region of its IPAM.
    pub place: Place,
    /// Its scope: two scopes may have the same range.
    pub scope: String,
    /// The pool that it draws from.
    #[serde(default)]
    pub source: Option<String>,
    /// The Region that it serves; `None` if only pools draw from it.
    #[serde(default)]
    pub locale: Option<String>,
    /// What its allocations must obey.
    #[serde(default)]
    pub rules: PoolRules,
    /// The ranges that are provisioned.
    #[serde(default)]
    pub cidrs: Vec<IpNet>,
    /// What is taken from it.
    #[serde(default)]
    pub allocations: Vec<Allocation>,
    /// Its own tags.
    #[serde(default)]
    pub tags: Tags,
}

/// The rules of a [`Pool`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoolRules {
    /// The shortest netmask, in bits: the largest allocation.
    pub min_netmask: Option<u8>,
    /// The longest netmask, in bits: the smallest allocation.
    pub max_netmask: Option<u8>,
    /// Tags that a resource must have.
    pub tags: Tags,
}

/// A range that is taken from a [`Pool`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allocation {
    /// The range.
    pub cidr: IpNet,
    /// `vpc`, `ipam-pool`, `custom` and others.
    pub kind: String,
    /// The id of the resource; `None` for `custom`.
    #[serde(default)]
    pub resource: Option<String>,
    /// The Region of the resource.
    #[serde(default)]
    pub region: Option<String>,
}

/// A question that was not answered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gap {
    /// Where it was asked.
    pub place: Place,
    /// The operation of EC2.
    pub operation: String,
    /// Why there is no answer, and what is left out for that.
    pub why: String,
}

impl std::fmt::Display for Gap {
    /// One line for people. An account without VPCs has no number, since no answer names it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { place: Place { account, region }, operation, why } = self;
        let of = if account.is_empty() { String::new() } else { format!(" of {account}") };
        write!(f, "not read: {operation}{of} in {region}: {why}")
    }
}

/// Why a text is no inventory.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// It is no JSON, or a value is wrong.
    #[error("read it as JSON")]
    Json(#[from] serde_json::Error),
    /// A newer program has written it.
    #[error("it has version {0}, and this program reads version {VERSION}")]
    Version(u32),
}

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    inventory: &'a Inventory,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    #[serde(rename = "version")]
    _version: u32,
    inventory: Inventory,
}

/// Only the version, since a newer file may have any other keys.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl Inventory {
    /// The inventory in the text of a file.
    ///
    /// # Errors
    ///
    /// If it is no inventory of this version.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let Version { version } = serde_json::from_str(text)?;
        if version != VERSION {
            return Err(ParseError::Version(version));
        }
        let Read { _version, inventory } = serde_json::from_str(text)?;
        Ok(inventory)
    }

    /// The text of its file.
    ///
    /// # Errors
    ///
    /// None that can happen: all keys of its maps are text.
    pub fn to_json(&self) -> serde_json::Result<String> {
        let written = Written { version: VERSION, inventory: self };
        Ok(serde_json::to_string_pretty(&written)? + "\n")
    }

    /// Adds what another reader has seen. What both have seen is kept once. Readers of two accounts both see a
    /// shared VPC.
    pub fn add(&mut self, other: Self) {
        let Self { vpcs, subnets, interfaces, instances, public_addresses, peerings, pools, gaps } =
            other;
        merge(&mut self.vpcs, vpcs, |one| one.id.clone());
        merge(&mut self.subnets, subnets, |one| one.id.clone());
        merge(&mut self.interfaces, interfaces, |one| one.id.clone());
        merge(&mut self.instances, instances, |one| one.id.clone());
        merge(&mut self.public_addresses, public_addresses, |one| one.address);
        merge(&mut self.peerings, peerings, |one| one.id.clone());
        merge(&mut self.pools, pools, |one| one.id.clone());
        merge(&mut self.gaps, gaps, Clone::clone);
    }
}

/// All of both by key, in the order of the keys. Of two with one key the first stays.
fn merge<T, K: Ord>(into: &mut Vec<T>, more: Vec<T>, key: impl Fn(&T) -> K) {
    into.extend(more);
    into.sort_by_key(&key);
    into.dedup_by_key(|one| key(one));
}

/// The tag `Name`, or the id without one.
#[must_use]
pub fn name<'a>(tags: &'a Tags, id: &'a str) -> &'a str {
    tags.get("Name").filter(|name| !name.is_empty()).map_or(id, String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_of_another_version_or_with_a_typing_error_is_refused() {
        let check = |text: &str, expect: &str| {
            let error = Inventory::parse(text).unwrap_err();
            let chain = format!("{error}: {:?}", std::error::Error::source(&error));
            assert!(chain.contains(expect), "{text}: {chain}");
        };
        check("{}", "missing field `version`");
        check(r#"{"version": 3, "tomorrow": {}}"#, "version 3, and this program reads version 2");
        check(r#"{"version": 2, "inventory": {"vpc": []}}"#, "unknown field `vpc`");
        let vpc = |id: &str, cidr: &str| {
            format!(
                r#"{{"version": 2, "inventory": {{"vpcs": [{{"id": "{id}", "cidrs": ["{cidr}"],
                    "place": {{"account": "1", "region": "r"}}}}]}}}}"#
            )
        };
        check(&vpc("subnet-1", "10.0.0.0/16"), "no VPC id");
        check(&vpc("vpc-1", "10.0.0.0/33"), "invalid");
        let inventory = Inventory::parse(&vpc("vpc-1", "10.0.0.0/16")).unwrap();
        assert_eq!(Inventory::parse(&inventory.to_json().unwrap()).unwrap(), inventory);
    }

    #[test]
    fn what_two_readers_see_is_kept_once() {
        let gap = |operation: &str| Gap {
            place: Place::default(),
            operation: operation.to_owned(),
            why: String::new(),
        };
        let mut one = Inventory { gaps: vec![gap("b"), gap("a")], ..Inventory::default() };
        one.add(Inventory { gaps: vec![gap("a"), gap("c")], ..Inventory::default() });
        assert_eq!(one.gaps, [gap("a"), gap("b"), gap("c")]);
    }
}

//! The topology file: the shape of its YAML, and errors that name the line.
//!
//! This module checks what can be seen in the file alone: its shape, unknown names and names used
//! twice. The model checks EC2's rules, which this module must not know.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use address_plan::id::Region;
use ec2_model::id::{InstanceId, SecurityGroupId, SubnetId, VpcId};
use ec2_model::metadata_options::HopLimit;
use ec2_model::request::ReservationType;
use ec2_model::response::Tags;
use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net};
use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use crate::clock::Pace;
use crate::fabric::{NameError, NetnsName};
use crate::imds::Mode;
use crate::switches::Switches;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// The Region of all VPCs and instances of this file, such as `us-east-1`.
    pub region: Spanned<String>,
    /// The account that owns everything in this file; 12 digits.
    pub account: Spanned<String>,
    /// Further Regions, which begin without VPCs.
    #[serde(default)]
    pub regions: Vec<Spanned<String>>,
    /// The organisation that `account` manages. If absent, all accounts see the same resources.
    #[serde(default)]
    pub organization: Option<Organization>,
    /// Accounts of further access key ids. Every other key id belongs to `account`.
    #[serde(default)]
    pub access_keys: BTreeMap<String, Spanned<String>>,
    /// Seed of every id, address choice and latency. The same seed gives the same run.
    #[serde(default = "one")]
    pub seed: u64,
    /// Letters of the region's availability zones, ascending.
    #[serde(default = "three_zones")]
    pub zones: Vec<char>,
    /// Whether virtual time passes by itself.
    #[serde(default)]
    pub clock: Pace,
    /// Whether requests without authorisation are accepted.
    #[serde(default)]
    pub anonymous: bool,
    /// Name of the role whose credentials IMDS serves. None if absent.
    #[serde(default)]
    pub iam_role: Option<String>,
    /// Name of the fabric's network namespace, with `--fabric`.
    #[serde(default)]
    pub fabric_netns: Option<Spanned<String>>,
    /// How EC2 differs from a perfect, instant one.
    #[serde(default)]
    pub switches: Switches,
    /// None in an account that begins without VPCs.
    #[serde(default)]
    pub vpcs: Vec<Spanned<Vpc>>,
    /// Instances that run from the start.
    #[serde(default)]
    pub instances: Vec<Spanned<Instance>>,
}

/// An organisation of AWS Organizations. Each of its accounts has VPCs of its own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Organization {
    /// All accounts but the managing one, 12 digits each. They begin without VPCs.
    pub members: Vec<Spanned<String>>,
}

/// A VPC with its security groups and subnets.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vpc {
    /// `vpc-` and 17 hex digits; chosen from the seed if absent.
    #[serde(default)]
    pub id: Option<VpcId>,
    /// IPv4 blocks, the primary first; /16 to /28.
    pub cidrs: Vec<Spanned<Ipv4Net>>,
    /// IPv6 blocks; /56.
    #[serde(default)]
    pub ipv6_cidrs: Vec<Spanned<Ipv6Net>>,
    /// Tags.
    #[serde(default)]
    pub tags: Tags,
    /// Security groups in addition to the VPC's default group.
    #[serde(default)]
    pub security_groups: Vec<Spanned<SecurityGroup>>,
    /// Subnets.
    pub subnets: Vec<Spanned<Subnet>>,
}

/// A security group.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecurityGroup {
    /// Name; instances refer to it.
    pub name: Spanned<String>,
    /// `sg-` and 17 hex digits; chosen from the seed if absent.
    #[serde(default)]
    pub id: Option<SecurityGroupId>,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Tags.
    #[serde(default)]
    pub tags: Tags,
}

/// A subnet.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subnet {
    /// Name within this file, to which instances refer. EC2 never sees it.
    pub name: Spanned<String>,
    /// `subnet-` and 17 hex digits; chosen from the seed if absent.
    #[serde(default)]
    pub id: Option<SubnetId>,
    /// Availability zone, such as `us-east-1a`.
    pub az: Spanned<String>,
    /// IPv4 block inside one of the VPC's. The subnet is IPv6 only if absent.
    #[serde(default)]
    pub cidr: Option<Spanned<Ipv4Net>>,
    /// IPv6 block inside one of the VPC's; /64.
    #[serde(default)]
    pub ipv6_cidr: Option<Spanned<Ipv6Net>>,
    /// Whether a new instance gets a public address.
    #[serde(default)]
    pub map_public_ip_on_launch: bool,
    /// Public address of a NAT gateway in the subnet; none if absent.
    #[serde(default)]
    pub nat_gateway: Option<Spanned<Ipv4Addr>>,
    /// Routes that lead out of the VPC, by destination.
    #[serde(default)]
    pub routes: BTreeMap<IpNet, Spanned<Via>>,
    /// Tags.
    #[serde(default)]
    pub tags: Tags,
    /// Addresses that are already in use: `10.0.2.10` or `10.0.2.32-10.0.2.63`.
    #[serde(default)]
    pub used: Vec<Spanned<AddressRange>>,
    /// Subnet CIDR reservations.
    #[serde(default)]
    pub reservations: Vec<Spanned<Reservation>>,
}

/// The target of a route.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// The VPC's internet gateway, for `0.0.0.0/0` or `::/0`.
    InternetGateway,
    /// The NAT gateway in the subnet of this name, for `0.0.0.0/0`.
    NatGateway(String),
    /// The peering with the VPC that has the destination.
    Peering,
}

/// A subnet CIDR reservation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reservation {
    /// Block inside the subnet.
    pub cidr: Ipv4Net,
    /// Who may take addresses from it.
    #[serde(rename = "type")]
    pub kind: ReservationType,
    /// Free text.
    #[serde(default)]
    pub description: String,
}

/// An instance that runs from the start.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// `i-` and 17 hex digits; chosen from the seed if absent.
    #[serde(default)]
    pub id: Option<InstanceId>,
    /// Instance type, such as `m5.large`.
    #[serde(rename = "type")]
    pub instance_type: Spanned<String>,
    /// Name of a subnet of this file.
    pub subnet: Spanned<String>,
    /// Device index of its primary ENI; 1 as on SageMaker HyperPod.
    #[serde(default)]
    pub device_index: u16,
    /// Primary IPv4 address; chosen from the seed if absent.
    #[serde(default)]
    pub address: Option<Ipv4Addr>,
    /// IPv6 address of the primary ENI. If absent, EC2 chooses one in an IPv6-only subnet, and none
    /// elsewhere.
    #[serde(default)]
    pub ipv6_address: Option<Ipv6Addr>,
    /// Elastic IP address of the primary address, of 203.0.113.0/24; none if absent.
    #[serde(default)]
    pub public_address: Option<Ipv4Addr>,
    /// Names of security groups of the subnet's VPC; its default group if empty.
    #[serde(default)]
    pub security_groups: Vec<Spanned<String>>,
    /// Tags.
    #[serde(default)]
    pub tags: Tags,
    /// Which requests its IMDS answers.
    #[serde(default)]
    pub imds: Mode,
    /// How many hops the answer to a token request may travel, 1 to 64. With 1 pods get no token.
    #[serde(default)]
    pub imds_hop_limit: Option<HopLimit>,
    /// Whether its IMDS has an IPv6 address too.
    #[serde(default)]
    pub imds_ipv6: bool,
    /// Port of its IMDS on the address of `--imds-listen`. If absent, the port given there plus the
    /// number of instances before this one.
    #[serde(default)]
    pub imds_port: Option<Spanned<u16>>,
    /// Network namespace (`ip netns`) of its ENIs, with `--fabric`.
    #[serde(default)]
    pub netns: Option<Spanned<String>>,
}

/// An inclusive range of IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct AddressRange {
    first: Ipv4Addr,
    last: Ipv4Addr,
}

impl AddressRange {
    /// The fewest blocks that cover exactly these addresses, ascending.
    pub fn blocks(self) -> impl Iterator<Item = Ipv4Net> {
        Ipv4Subnets::new(self.first, self.last, 0)
    }
}

impl TryFrom<String> for AddressRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((&text, &text));
        let address = |part: &str| part.trim().parse::<Ipv4Addr>().ok();
        match (address(first), address(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(format!(
                "`{text}` is no address and no range; write 10.0.2.10 or 10.0.2.32-10.0.2.63"
            )),
        }
    }
}

fn one() -> u64 {
    1
}

fn three_zones() -> Vec<char> {
    vec!['a', 'b', 'c']
}

/// Why a topology file cannot be used: the place, the problem and the fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologyError {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1. `None` if the file cannot be read at all.
    pub line: Option<u64>,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub fix: String,
}

impl fmt::Display for TopologyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}; {}", self.what, self.fix)
    }
}

impl std::error::Error for TopologyError {}

/// An error in one line of the file, before the file's name is known.
#[derive(Debug)]
pub(crate) struct LineError {
    line: u64,
    what: String,
    fix: String,
}

impl LineError {
    pub(crate) fn new(at: Location, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { line: at.line(), what: what.into(), fix: fix.into() }
    }

    pub(crate) fn in_file(self, file: &Path) -> TopologyError {
        let Self { line, what, fix } = self;
        TopologyError { file: file.to_owned(), line: Some(line), what, fix }
    }
}

impl Topology {
    /// Reads and checks `file`.
    ///
    /// # Errors
    /// If the file cannot be read, is not YAML of this shape, or contradicts itself.
    pub fn read(file: &Path) -> Result<Self, TopologyError> {
        let text = std::fs::read_to_string(file).map_err(|error| TopologyError {
            file: file.to_owned(),
            line: None,
            what: format!("cannot be read: {error}"),
            fix: "give the path of a readable topology file".to_owned(),
        })?;
        Self::parse(&text).map_err(|error| error.in_file(file))
    }

    pub(crate) fn parse(text: &str) -> Result<Self, LineError> {
        let topology: Self = serde_saphyr::from_str(text).map_err(|error| line_error(&error))?;
        topology.check()?;
        Ok(topology)
    }

    fn check(&self) -> Result<(), LineError> {
        self.check_accounts()?;
        self.check_regions()?;
        let vpcs = || self.vpcs.iter().map(|vpc| &vpc.value);
        let subnets = || vpcs().flat_map(|vpc| &vpc.subnets).map(|subnet| &subnet.value);
        unique("subnet", subnets().map(|subnet| &subnet.name))?;
        for vpc in vpcs() {
            unique("security group", vpc.security_groups.iter().map(|group| &group.value.name))?;
        }
        let instances = || self.instances.iter().map(|instance| &instance.value);
        unique("IMDS port", instances().filter_map(|i| i.imds_port.as_ref()))?;
        let netns = instances().filter_map(|i| i.netns.as_ref()).chain(self.fabric_netns.iter());
        unique("network namespace", netns.clone())?;
        netns.clone().try_for_each(check_netns)?;
        self.fabric_netns.iter().try_for_each(check_fabric_netns)?;
        subnets().try_for_each(|subnet| self.check_routes(subnet))?;
        instances().try_for_each(|instance| self.check_instance(instance))
    }

    fn check_accounts(&self) -> Result<(), LineError> {
        let members = self.organization.iter().flat_map(|it| &it.members);
        for account in self.access_keys.values().chain([&self.account]).chain(members.clone()) {
            let digits = account.value.bytes().all(|byte| byte.is_ascii_digit());
            if !digits || account.value.len() != 12 {
                let what = format!("`{}` is no account id", account.value);
                return Err(LineError::new(account.referenced, what, "write 12 digits, quoted"));
            }
        }
        unique("account", members.clone().chain([&self.account]))?;
        let belongs = |account: &Spanned<String>| {
            let mut all = members.clone().chain([&self.account]);
            self.organization.is_none() || all.any(|it| it.value == account.value)
        };
        match self.access_keys.values().find(|account| !belongs(account)) {
            None => Ok(()),
            Some(account) => {
                let what = format!("`{}` is no account of the organisation", account.value);
                let fix = "add it under `organization.members`";
                Err(LineError::new(account.referenced, what, fix))
            }
        }
    }

    fn check_regions(&self) -> Result<(), LineError> {
        let all = || self.regions.iter().chain([&self.region]);
        unique("region", all())?;
        for region in all() {
            if region.value.parse::<Region>().is_err() {
                let what = format!("`{}` is no region", region.value);
                return Err(LineError::new(region.referenced, what, "write one such as us-east-1"));
            }
        }
        Ok(())
    }

    fn check_instance(&self, instance: &Instance) -> Result<(), LineError> {
        let Some(vpc) = self.vpc_of(&instance.subnet.value) else {
            let subnets = self.vpcs.iter().flat_map(|vpc| &vpc.value.subnets);
            return Err(unknown_name("subnet", &instance.subnet, subnets.map(|s| &s.value.name)));
        };
        let names = || vpc.security_groups.iter().map(|group| &group.value.name);
        for group in &instance.security_groups {
            if !names().any(|name| name.value == group.value) {
                return Err(unknown_name("security group", group, names()));
            }
        }
        Ok(())
    }

    fn check_routes(&self, subnet: &Subnet) -> Result<(), LineError> {
        for via in subnet.routes.values() {
            match &via.value {
                Via::NatGateway(name) if self.vpc_of(name).is_none() => {
                    let what = format!("there is no subnet `{name}`");
                    let fix = "name the subnet that has the NAT gateway";
                    return Err(LineError::new(via.referenced, what, fix));
                }
                Via::NatGateway(_) | Via::InternetGateway | Via::Peering => {}
            }
        }
        Ok(())
    }

    /// The VPC that holds the subnet of that name.
    fn vpc_of(&self, subnet: &str) -> Option<&Vpc> {
        let holds = |vpc: &Vpc| vpc.subnets.iter().any(|s| s.value.name.value == subnet);
        self.vpcs.iter().map(|vpc| &vpc.value).find(|vpc| holds(vpc))
    }
}

fn line_error(error: &serde_saphyr::Error) -> LineError {
    let at = error.location().unwrap_or(Location::UNKNOWN);
    let rendered = error.without_snippet().to_string();
    // The line number is printed first, as compilers do it, so it is cut here.
    let what = rendered.split(" at line ").next().unwrap_or_default();
    LineError::new(at, what, "see examples/two-nodes.yaml for all keys")
}

fn check_netns(name: &Spanned<String>) -> Result<(), LineError> {
    let fix = "write a name such as node-a";
    let line_error = |error: <NetnsName as FromStr>::Err| {
        LineError::new(name.referenced, error.to_string(), fix)
    };
    name.value.parse::<NetnsName>().map(|_name| ()).map_err(line_error)
}

/// The namespace of the outside gets its name from the fabric's.
fn check_fabric_netns(name: &Spanned<String>) -> Result<(), LineError> {
    let line_error = |error: <NetnsName as FromStr>::Err| {
        LineError::new(name.referenced, error.to_string(), "write a shorter name")
    };
    let fabric = name.value.parse().map_err(line_error)?;
    outside_netns(&fabric).map(|_name| ()).map_err(line_error)
}

/// The namespace of the outside.
pub(crate) fn outside_netns(fabric: &NetnsName) -> Result<NetnsName, NameError> {
    format!("{fabric}-outside").parse()
}

fn unique<'a, T: Ord + fmt::Display + 'a>(
    kind: &str,
    names: impl Iterator<Item = &'a Spanned<T>>,
) -> Result<(), LineError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(&name.value) {
            let what = format!("a second {kind} `{}`", name.value);
            return Err(LineError::new(name.referenced, what, "give each its own"));
        }
    }
    Ok(())
}

fn unknown_name<'a>(
    kind: &str,
    name: &Spanned<String>,
    there_are: impl Iterator<Item = &'a Spanned<String>>,
) -> LineError {
    let there_are: Vec<&str> = there_are.map(|name| name.value.as_str()).collect();
    let what = format!("there is no {kind} `{}`", name.value);
    LineError::new(name.referenced, what, format!("use one of: {}", there_are.join(", ")))
}

#[cfg(test)]
mod fuzz;

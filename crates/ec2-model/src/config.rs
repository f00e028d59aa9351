//! The configuration of the model. By default EC2 has no delays, no staleness and no throttling.

use serde::{Deserialize, Serialize};

use crate::delay::Delay;
use crate::request::Action;

/// The configuration of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Seeds all ids, MAC and automatic addresses, delays and random faults.
    pub seed: u64,
    /// The owner of all seeded resources.
    pub account: String,
    /// The only region of the model.
    pub region: String,
    /// Letters of the availability zones, ascending: `a` is `us-east-1a`, id `use1-az1`.
    pub zones: Vec<char>,
    /// How EC2 chooses addresses and prefixes.
    pub address_choice: AddressChoice,
    /// The error of a subnet that has too few free addresses.
    pub insufficient_error: InsufficientError,
    /// Whether reserved ranges reduce `availableIpAddressCount`. EC2 does not document it.
    pub reservations_reduce_available_count: bool,
    /// The token buckets.
    pub throttling: Throttling,
    /// How long operations take.
    pub latency: Latency,
    /// How late the API and IMDS show changes.
    pub consistency: Consistency,
    /// The limits of an account.
    pub quotas: Quotas,
    /// Name of the IAM role, and of the instance profile, of seeded instances. They have none if
    /// absent.
    pub iam_role: Option<String>,
    /// How many calls the log keeps. It drops the oldest first.
    pub log_capacity: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 0,
            account: "111122223333".to_owned(),
            region: "us-east-1".to_owned(),
            zones: vec!['a', 'b', 'c'],
            address_choice: AddressChoice::default(),
            insufficient_error: InsufficientError::default(),
            reservations_reduce_available_count: false,
            throttling: Throttling::default(),
            latency: Latency::default(),
            consistency: Consistency::default(),
            quotas: Quotas::default(),
            iam_role: None,
            log_capacity: 10_000,
        }
    }
}

/// How EC2 chooses addresses and prefixes. AWS does not document it; addresses in real accounts
/// look random.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddressChoice {
    /// Anywhere in the subnet. It fragments early, as real subnets do.
    #[default]
    Random,
    /// The lowest free address.
    LowestFirst,
    /// In strides over the whole subnet: the worst case for prefixes.
    Spread,
}

/// The error of a subnet that has fewer free addresses than requested.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InsufficientError {
    /// `InsufficientFreeAddressesInSubnet`
    #[default]
    Classic,
    /// `InvalidParameterValue` "There aren't sufficient free Ipv4 addresses or prefixes"
    InvalidParameterValue,
}

/// Whether calls take tokens from buckets of the documented sizes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Throttling {
    /// No throttling.
    #[default]
    Off,
    /// <https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html>
    Documented,
}

/// How long operations take. All delays are zero by default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Latency {
    /// From a Describe or Get request to its answer.
    pub describe: Delay,
    /// From a CreateNetworkInterface request to its answer.
    pub create: Delay,
    /// From an Assign or Unassign request to its answer.
    pub assign: Delay,
    /// From an AttachNetworkInterface request to its answer.
    pub attach_call: Delay,
    /// From any other request to its answer.
    pub other_call: Delay,
    /// From the creation of an ENI until it is `available`.
    pub available: Delay,
    /// From the attach request until the ENI is `attached` and its device is there.
    pub attach: Delay,
    /// From the detach request until the ENI is `available`.
    pub detach: Delay,
    /// From the start of an instance until it is `running`.
    pub launch: Delay,
    /// From the termination of an instance until it is `terminated`.
    pub terminate: Delay,
    /// From AssociateVpcCidrBlock until the block is `associated`, and from
    /// DisassociateVpcCidrBlock until it is gone.
    pub associate: Delay,
}

impl Latency {
    /// Delays from AWS documents and from logs that users have published.
    #[must_use]
    pub fn realistic() -> Self {
        Self {
            describe: Delay::between(50, 200),
            create: Delay::between(200, 600),
            assign: Delay::between(150, 500),
            attach_call: Delay::between(300, 900),
            other_call: Delay::between(100, 400),
            available: Delay::between(200, 1_000),
            attach: Delay::between(1_000, 3_000).with_tail(50, 10_000),
            detach: Delay::between(1_000, 5_000).with_tail(50, 30_000),
            launch: Delay::between(5_000, 20_000),
            terminate: Delay::between(20_000, 60_000),
            associate: Delay::between(1_000, 5_000),
        }
    }
}

impl Latency {
    /// The delay from a request of `action` to its answer.
    pub(crate) fn of(&self, action: Action) -> Delay {
        match action {
            Action::DescribeInstances
            | Action::DescribeInstanceTypes
            | Action::DescribeSubnets
            | Action::DescribeVpcs
            | Action::DescribeSecurityGroups
            | Action::DescribeAvailabilityZones
            | Action::DescribeNetworkInterfaces
            | Action::DescribeTags
            | Action::DescribeRouteTables
            | Action::DescribeVpcAttribute
            | Action::DescribeNetworkAcls
            | Action::GetSubnetCidrReservations => self.describe,
            Action::Plan(_) if action.only_reads() => self.describe,
            Action::CreateNetworkInterface => self.create,
            Action::AttachNetworkInterface => self.attach_call,
            Action::AssignPrivateIpAddresses
            | Action::UnassignPrivateIpAddresses
            | Action::AssignIpv6Addresses
            | Action::UnassignIpv6Addresses => self.assign,
            Action::ModifyNetworkInterfaceAttribute
            | Action::DetachNetworkInterface
            | Action::DeleteNetworkInterface
            | Action::CreateTags
            | Action::DeleteTags
            | Action::CreateSubnetCidrReservation
            | Action::DeleteSubnetCidrReservation
            | Action::CreateVpc
            | Action::AllocateAddress
            | Action::AssociateAddress
            | Action::DisassociateAddress
            | Action::CreateSubnet
            | Action::AssociateVpcCidrBlock
            | Action::RunInstances
            | Action::TerminateInstances
            | Action::DeleteVpc
            | Action::DeleteSubnet
            | Action::DisassociateVpcCidrBlock
            | Action::ModifyVpcAttribute
            | Action::ModifySubnetAttribute
            | Action::Plan(_) => self.other_call,
        }
    }
}

/// How late the API and IMDS show changes. Nothing is late by default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Consistency {
    /// How often, in thousandths, a new ENI is not found at first.
    pub hidden_permille: u16,
    /// How long it is not found.
    pub hidden: Delay,
    /// How often, in thousandths, DescribeNetworkInterfaces shows an ENI as it was before a change.
    pub stale_permille: u16,
    /// How long it shows the old state.
    pub stale: Delay,
    /// From the attach or detach of an ENI until IMDS shows it.
    pub imds_interface: Delay,
    /// From a change of an ENI's addresses or groups until IMDS shows it; for a new ENI, after
    /// `imds_interface`.
    pub imds_addresses: Delay,
}

impl Consistency {
    /// Delays from logs that users have published.
    #[must_use]
    pub fn realistic() -> Self {
        Self {
            hidden_permille: 20,
            hidden: Delay::between(100, 1_000),
            stale_permille: 50,
            stale: Delay::between(100, 1_000),
            imds_interface: Delay::between(200, 1_000),
            imds_addresses: Delay::between(500, 2_000).with_tail(20, 30_000),
        }
    }
}

/// The limits of an account. The defaults are those of a new account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    /// ENIs in the region.
    pub network_interfaces: usize,
    /// Security groups on one ENI.
    pub groups_per_network_interface: usize,
    /// VPCs in the region.
    pub vpcs: usize,
    /// CIDR blocks of each family in one VPC.
    pub cidrs_per_vpc: usize,
    /// Subnets in one VPC.
    pub subnets_per_vpc: usize,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            network_interfaces: 5_000,
            groups_per_network_interface: 5,
            vpcs: 5,
            cidrs_per_vpc: 5,
            subnets_per_vpc: 200,
        }
    }
}

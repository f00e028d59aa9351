//! Address translation for pods' IPv4 packets: one nftables table of our own, and rules that lead to the main route
//! table.
//!
//! [`table`](self::table) has the words of nftables, `description` says which table a [`Nat`] needs, `kernel` compares it
//! with the kernel's and replaces it whole. It must not know the VPC, EC2 or the settings.

pub(crate) mod changes;
mod description;
pub(crate) mod encode;
mod incumbent;
pub(crate) mod kernel;
mod rules;
mod table;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;

use ipnet::Ipv4Net;

pub use self::changes::changes;
pub(crate) use self::rules::ListedMainRule;
pub use self::rules::MainRule;
use self::table::Table;
use crate::Applied;
use crate::host::{HostPicture, ListError, Snapshot};
use crate::netfilter::Netfilter;
use crate::netlink::{KernelError, Netlink};

/// What the node's address translation must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NatPicture {
    /// Not known yet. The kernel keeps what it has.
    Unknown,
    /// No table and no rules of ours.
    Absent,
    /// As this says.
    Wanted(Nat),
}

/// The wanted translation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nat {
    /// With what the names of pods' host links start; 1 to 4 characters.
    pub pod_links: String,
    /// The bits that mark a connection that leaves by the primary ENI, and each packet of it.
    pub mark: NonZeroU32,
    /// How packets of pods leave the VPC; `None` if something outside translates them.
    pub source: Option<SourceNat>,
    /// Whether answers to connections to the primary ENI's addresses leave by it.
    pub node_ports: bool,
    /// Ranges that pods of all ENIs reach by the main route table.
    pub by_main_table: BTreeSet<Ipv4Net>,
}

/// How packets of pods leave the VPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceNat {
    /// The source address that they get: the primary ENI's own.
    pub address: Ipv4Addr,
    /// How their source ports are chosen.
    pub ports: SourcePorts,
    /// The ranges to which they keep their addresses; they may overlap.
    pub untranslated: BTreeSet<Ipv4Net>,
}

/// How source ports are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourcePorts {
    /// The pod's own port if it is free.
    Kept,
    /// By a hash of both ends.
    Hashed,
    /// By the kernel's random numbers.
    Random,
}

/// What a sync has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NatReport {
    /// What was changed of our own table and rules.
    pub applied: Applied,
    /// How many rules and chains of amazon-vpc-cni-k8s were removed.
    pub n_of_incumbent: usize,
    /// Whether rules of amazon-vpc-cni-k8s may be left where nftables cannot remove them: in legacy iptables.
    pub legacy: bool,
}

/// Why the translation is not as wanted.
#[derive(Debug, thiserror::Error)]
pub enum NatError {
    /// The kernel could not be read.
    #[error(transparent)]
    List(#[from] ListError),
    /// No device has the primary ENI's hardware address.
    #[error("no link has the primary ENI's hardware address, whose name nftables needs")]
    NoPrimary,
    /// Something of ours could not be read.
    #[error("read nftables table ip {}", table::NAME)]
    Read(#[source] KernelError),
    /// The kernel refused our table. The one before is still there.
    #[error(
        "write nftables table ip {}; the kernel needs nf_tables with nft_ct, nft_fib_ipv4 and nft_nat",
        table::NAME
    )]
    Write(#[source] KernelError),
    /// The kernel took our table, but something else has changed it.
    #[error("nftables table ip {} does not stay as it was written", table::NAME)]
    NotKept,
    /// The kernel refused one of the rules.
    #[error("{verb} rule {rule}")]
    Rule {
        /// `add` or `remove`.
        verb: &'static str,
        /// The rule.
        rule: MainRule,
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
    /// What amazon-vpc-cni-k8s has left could not be read or removed.
    #[error("remove what amazon-vpc-cni-k8s has left in nftables")]
    Incumbent(#[source] KernelError),
    /// The process is about to end.
    #[error("the task that writes nftables was stopped")]
    Stopped,
}

/// Makes our table and rules match, and removes those of amazon-vpc-cni-k8s.
pub(crate) async fn sync(
    netlink: &Netlink,
    before: &Snapshot,
    wanted: &HostPicture,
) -> Result<NatReport, NatError> {
    let nat = match &wanted.nat {
        NatPicture::Unknown => {
            return Ok(NatReport { applied: Applied::Unchanged, n_of_incumbent: 0, legacy: false });
        }
        NatPicture::Absent => None,
        NatPicture::Wanted(nat) => Some(nat),
    };
    let rules = rules::sync(netlink, &before.main_rules, nat).await?;
    let primary = before.device(wanted.primary_mac);
    let table = match (nat, primary) {
        (Some(nat), Some(primary)) => {
            Some(description::table(nat, &primary.name)).filter(|table| !table.chains.is_empty())
        }
        (Some(_), None) => return Err(NatError::NoPrimary),
        (None, _) => None,
    };
    let legacy = incumbent::has_legacy(&before.main_rules);
    // A socket belongs to the namespace of the thread that opens it.
    let netfilter = [Netfilter::open(), Netfilter::open()].map(|it| it.map_err(NatError::Read));
    let [ours, incumbents] = netfilter;
    let (ours, incumbents) = (ours?, incumbents?);
    // In a blocking thread, since the kernel waits for all its processors to see a new table.
    let written = tokio::task::spawn_blocking(move || {
        let applied = kernel::sync(&ours, table.as_ref())?;
        let n = incumbent::remove(&incumbents).map_err(NatError::Incumbent)?;
        Ok::<_, NatError>((applied, n))
    });
    let (applied, n_of_incumbent) = written.await.map_err(|_| NatError::Stopped)??;
    Ok(NatReport { applied: applied.max(rules), n_of_incumbent, legacy })
}

/// Removes our table from the calling thread's namespace. The rules stay: amazon-vpc-cni-k8s replaces them at its start.
/// Blocks for some milliseconds.
///
/// # Errors
///
/// [`NatError`] if the kernel refuses.
pub fn remove_table() -> Result<Applied, NatError> {
    let netfilter = Netfilter::open().map_err(NatError::Read)?;
    kernel::sync(&netfilter, None)
}

/// The text of the wanted table as `nft list` prints it, for logs and tests.
#[must_use]
pub fn text(nat: &Nat, primary: &str) -> String {
    Table::to_string(&description::table(nat, primary))
}

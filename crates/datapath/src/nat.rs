//! Address translation for pods' packets: one nftables table of our own for each family, and rules that lead to the main
//! route table.
//!
//! [`table`](self::table) has the words of nftables, `description` says which table a [`Nat`] needs, `kernel` compares it
//! with the kernel's and replaces it whole. It must not know the VPC, EC2 or the settings.

pub(crate) mod changes;
mod description;
mod egress;
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
pub use self::egress::Egress;
pub(crate) use self::egress::stranded;
pub use self::incumbent::LEGACY_REMOVAL;
pub(crate) use self::rules::ListedMainRule;
pub use self::rules::MainRule;
use self::table::{Family, Table};
use crate::Applied;
use crate::host::{HostPicture, ListError, Snapshot};
use crate::netfilter::Netfilter;
use crate::netlink::{KernelError, Netlink};

/// What the node's address translation must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NatPicture {
    /// Not known yet. The kernel keeps what it has of IPv4.
    Unknown,
    /// No translation of VPC addresses, and no rules of ours.
    Absent,
    /// As this says.
    Wanted(Nat),
}

/// The wanted translation of IPv4 addresses of the VPC.
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
    /// Our table of this family (`ip` or `ip6`) could not be read.
    #[error("read nftables table {0} {name}", name = table::NAME)]
    Read(&'static str, #[source] KernelError),
    /// The kernel refused our table of this family. The one before is still there.
    #[error(
        "write nftables table {0} {name}; the kernel needs nf_tables with nft_ct, nft_fib_ipv4, nft_nat, nft_masq and nft_reject",
        name = table::NAME
    )]
    Write(&'static str, #[source] KernelError),
    /// The kernel took our table of this family, but something else has changed it.
    #[error("nftables table {0} {name} does not stay as it was written", name = table::NAME)]
    NotKept(&'static str),
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

/// Makes our tables and rules match, and removes those of amazon-vpc-cni-k8s.
pub(crate) async fn sync(
    netlink: &Netlink,
    before: &Snapshot,
    wanted: &HostPicture,
) -> Result<NatReport, NatError> {
    let table = |family, nat| (family, description::table(family, nat, &wanted.egress));
    let mut tables = vec![table(Family::Ip6, None)];
    let nat = match &wanted.nat {
        NatPicture::Unknown => return write(tables, Former::Kept).await,
        NatPicture::Absent => None,
        NatPicture::Wanted(nat) => Some(nat),
    };
    let applied = rules::sync(netlink, &before.main_rules, nat).await?;
    let primary = before.device(wanted.primary_mac);
    let nat = match (nat, primary) {
        (Some(nat), Some(primary)) => Some((nat, primary.name.as_str())),
        (Some(_), None) => return Err(NatError::NoPrimary),
        (None, _) => None,
    };
    tables.push(table(Family::Ip, nat));
    let legacy = incumbent::has_legacy(&before.main_rules);
    let report = write(tables, Former::Removed).await?;
    Ok(NatReport { applied: applied.max(report.applied), legacy, ..report })
}

/// What becomes of the rules of amazon-vpc-cni-k8s.
enum Former {
    /// They go once ours are written.
    Removed,
    /// Ours are not known yet.
    Kept,
}

/// Makes tables match. One without chains goes.
async fn write(tables: Vec<(Family, Table)>, former: Former) -> Result<NatReport, NatError> {
    // A socket belongs to the namespace of the thread that opens it.
    let incumbents = match former {
        Former::Removed => Some(Netfilter::open().map_err(NatError::Incumbent)?),
        Former::Kept => None,
    };
    let tables = tables.into_iter().map(|(family, table)| Ok((family, open(family)?, table)));
    let tables = tables.collect::<Result<Vec<_>, NatError>>()?;
    // In a blocking thread, since the kernel waits for all its processors to see a new table.
    let written = tokio::task::spawn_blocking(move || {
        let mut applied = Applied::Unchanged;
        for (family, netfilter, table) in &tables {
            let table = Some(table).filter(|table| !table.chains.is_empty());
            applied = applied.max(kernel::sync(netfilter, *family, table)?);
        }
        let n = incumbents.as_ref().map(incumbent::remove).transpose();
        Ok::<_, NatError>((applied, n.map_err(NatError::Incumbent)?.unwrap_or(0)))
    });
    let (applied, n_of_incumbent) = written.await.map_err(|_| NatError::Stopped)??;
    Ok(NatReport { applied, n_of_incumbent, legacy: false })
}

fn open(family: Family) -> Result<Netfilter, NatError> {
    Netfilter::open_for(family.number()).map_err(|error| NatError::Read(family.name(), error))
}

/// Removes our tables from the calling thread's namespace. The rules stay: amazon-vpc-cni-k8s replaces them at its start.
/// Blocks for some milliseconds.
///
/// # Errors
///
/// [`NatError`] if the kernel refuses.
pub fn remove_tables() -> Result<Applied, NatError> {
    let mut applied = Applied::Unchanged;
    for family in [Family::Ip, Family::Ip6] {
        applied = applied.max(kernel::sync(&open(family)?, family, None)?);
    }
    Ok(applied)
}

/// The text of the wanted table as `nft list` prints it, for logs and tests.
#[must_use]
pub fn text(nat: &Nat, primary: &str) -> String {
    description::table(Family::Ip, Some((nat, primary)), &Egress::default()).to_string()
}

/// The text of the tables for node-local addresses alone, IPv4 first.
#[must_use]
pub fn egress_text(egress: &Egress) -> String {
    let tables = [Family::Ip, Family::Ip6].map(|family| description::table(family, None, egress));
    let tables = tables.iter().filter(|table| !table.chains.is_empty());
    tables.map(Table::to_string).collect()
}

//! The subnets at one moment, for people: `ipamd subnets`.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::block::BlockKind;
use crate::event::RefusalCode;
use crate::id::SubnetId;
use crate::time::Timestamp;
use crate::view::Counts;

/// The subnets at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetList {
    /// When EC2 was asked for them; `None` if it has not answered yet.
    pub described_at: Option<Timestamp>,
    /// Those that EC2 has described and those of our ENIs, by id.
    pub subnets: Vec<ListedSubnet>,
}

/// One subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedSubnet {
    /// Its id.
    pub id: SubnetId,
    /// Its range; `None` until EC2 has described it.
    pub cidr: Option<IpNet>,
    /// Its free single IPv4 addresses in EC2's last answer, less those that it has granted since; `None` without an
    /// answer.
    pub free_addresses: Option<u32>,
    /// What it is for.
    pub role: SubnetRole,
    /// The number of our ENIs in it.
    pub n_enis: u64,
    /// The addresses for pods on these ENIs. Only `total`, `assigned`, `cooling`, `quarantined`, `free`, `prefixes`
    /// and `delegated` count.
    pub counts: Counts,
    /// The kinds of blocks that it has refused lately: how, and when a waiting pod makes the engine ask again.
    pub refusals: BTreeMap<BlockKind, (RefusalCode, Timestamp)>,
}

/// What a subnet is for, by its tags and EC2's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SubnetRole {
    /// New ENIs may go there.
    NewEnis,
    /// A tag keeps the cluster's pods off it.
    Excluded,
    /// No tag offers it to pods and it is not the primary ENI's; with an ENIConfig, that does not choose it.
    Unused,
}

impl SubnetRole {
    /// One word for machines.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            SubnetRole::NewEnis => "new-enis",
            SubnetRole::Excluded => "excluded",
            SubnetRole::Unused => "unused",
        }
    }
}

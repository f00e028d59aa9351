//! A plan of address space: what somebody wants, laid out into ranges, checked, compared with what is there, exported.
//!
//! It must not know how many addresses a node holds: the caller says so, by simulation.

pub mod diff;
pub mod export;
mod intent;
mod layout;
pub mod steps;

use ipnet::Ipv4Net;
use serde::Serialize;

pub use self::intent::{Cluster, Family, Intent, NamedRange, Netmask, Pool, Vpc};
pub use self::layout::{NodeNeed, lay_out};

use crate::audit::Finding;
use crate::inventory::{Inventory, Place, Subnet, Vpc as InventoryVpc};

/// A plan that is laid out as far as it can be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Design {
    /// The pools, in the order of the plan. One without room is left out.
    pub pools: Vec<LaidPool>,
    /// What is wrong, the worst first.
    pub findings: Vec<Finding>,
}

/// A pool with its range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LaidPool {
    /// Its name.
    pub name: String,
    /// Its Region.
    pub region: String,
    /// Its environment and team, as tags.
    pub tags: Vec<(String, String)>,
    /// Its range.
    pub cidr: Ipv4Net,
    /// Its VPCs.
    pub vpcs: Vec<LaidVpc>,
}

/// A VPC with its range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LaidVpc {
    /// Its name.
    pub name: String,
    /// Its range.
    pub cidr: Ipv4Net,
    /// Its subnets: one for each cluster and zone.
    pub subnets: Vec<LaidSubnet>,
}

/// A subnet with its range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LaidSubnet {
    /// Its name: cluster and zone.
    pub name: String,
    /// Its zone: `eu-central-1a`.
    pub zone: String,
    /// Its range.
    pub cidr: Ipv4Net,
    /// Addresses that its nodes hold at the beginning, and at the end of the plan's horizon.
    pub need: [u64; 2],
    /// Ranges to reserve for prefixes, so that single addresses do not scatter over them.
    pub for_prefixes: Vec<Ipv4Net>,
    /// For how many whole years it has room; [`FOREVER`] for that many or more.
    pub lasts_years: u32,
}

/// Years after which nobody asks any more.
pub const FOREVER: u32 = 30;

impl Design {
    /// The planned VPCs and subnets as an inventory, with the addresses of the end in use: for the map.
    ///
    /// # Panics
    ///
    /// Never: the ids have the prefixes of their kinds.
    #[must_use]
    pub fn inventory(&self) -> Inventory {
        let mut inventory = Inventory::default();
        for pool in &self.pools {
            let place = Place { account: pool.name.clone(), region: pool.region.clone() };
            for vpc in &pool.vpcs {
                let id = ipam::id::VpcId::try_from(format!("vpc-{}-{}", pool.name, vpc.name));
                let id = id.expect("it has the prefix of its kind");
                let tags = |name: &str| [("Name".to_owned(), name.to_owned())].into();
                for subnet in &vpc.subnets {
                    let own = format!("subnet-{}-{}-{}", pool.name, vpc.name, subnet.name);
                    let usable = crate::span::size(subnet.cidr).saturating_sub(5);
                    let free = usable.saturating_sub(subnet.need[1]);
                    inventory.subnets.push(Subnet {
                        id: own.try_into().expect("it has the prefix of its kind"),
                        vpc: id.clone(),
                        place: place.clone(),
                        zone: subnet.zone.clone(),
                        cidr: Some(subnet.cidr),
                        ipv6_cidr: None,
                        free_addresses: u32::try_from(free).ok(),
                        reservations: vec![],
                        tags: tags(&subnet.name),
                    });
                }
                inventory.vpcs.push(InventoryVpc {
                    id,
                    place: place.clone(),
                    cidrs: vec![vpc.cidr.into()],
                    is_default: false,
                    tags: tags(&vpc.name),
                });
            }
        }
        inventory
    }
}

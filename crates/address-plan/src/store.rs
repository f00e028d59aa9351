//! All objects of the model, and who may see which.

use std::collections::{BTreeMap, BTreeSet};

use ec2_api::{ApiError, SimTime};
use ipnet::IpNet;

use crate::block::Block;
use crate::id::{
    Account, AllocationId, AssociationId, DiscoveryId, IpamId, PoolId, Region, ResourceId, ScopeId,
};
use crate::plan::Caller;
use crate::pool::PoolRecord;
use crate::request::Tier;
use crate::resource::Shown;
use crate::response::{Association, Discovery, HistoryRecord, Ipam, Scope, ScopeType, Source};

/// An organisation: who manages it, and who belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    /// The only account that may name an administrator. It cannot be one.
    pub management: Account,
    /// All other accounts.
    pub members: BTreeSet<Account>,
}

/// What an owner has decided about one CIDR of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) scope: ScopeId,
    pub(crate) monitored: bool,
}

/// All objects.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) ipams: BTreeMap<IpamId, Ipam>,
    pub(crate) scopes: BTreeMap<ScopeId, Scope>,
    pub(crate) pools: BTreeMap<PoolId, PoolRecord>,
    pub(crate) discoveries: BTreeMap<DiscoveryId, Discovery>,
    pub(crate) associations: BTreeMap<AssociationId, Association>,
    /// Pools and discoveries that AWS Resource Access Manager shares: id and account.
    pub(crate) shares: BTreeSet<(String, Account)>,
    pub(crate) organization: Option<Organization>,
    /// The delegated administrator of the organisation.
    pub(crate) administrator: Option<Account>,
    /// What the API shows of each account and Region.
    pub(crate) samples: BTreeMap<(Account, Region), Shown>,
    pub(crate) decisions: BTreeMap<(IpamId, ResourceId, IpNet), Decision>,
    pub(crate) history: BTreeMap<(ScopeId, IpNet), Vec<HistoryRecord>>,
    /// New objects that no call finds until then.
    hidden: BTreeMap<String, SimTime>,
}

impl Store {
    /// Hides a new object until `until`.
    pub(crate) fn hide(&mut self, id: String, until: SimTime) {
        self.hidden.insert(id, until);
    }

    pub(crate) fn is_hidden(&self, id: &str) -> bool {
        self.hidden.contains_key(id)
    }

    /// Shows what was hidden until `now`.
    pub(crate) fn reveal(&mut self, now: SimTime) {
        self.hidden.retain(|_, until| *until > now);
    }

    /// Whether the object is shared with the account.
    fn is_shared(&self, id: &str, account: &Account) -> bool {
        self.shares.contains(&(id.to_owned(), account.clone()))
    }

    /// An IPAM of the caller, in its home Region.
    pub(crate) fn ipam(&self, caller: &Caller, id: &IpamId) -> Result<&Ipam, ApiError> {
        let found = self.ipams.get(id).filter(|it| {
            !self.is_hidden(id.as_str()) && it.owner == caller.account && it.region == caller.region
        });
        found.ok_or_else(|| no_such("InvalidIpamId.NotFound", "ipam", id.as_str()))
    }

    /// A scope of the caller, in its home Region.
    pub(crate) fn scope(&self, caller: &Caller, id: &ScopeId) -> Result<&Scope, ApiError> {
        let found = self.scopes.get(id).filter(|it| {
            !self.is_hidden(id.as_str()) && it.owner == caller.account && it.region == caller.region
        });
        found.ok_or_else(|| no_such("InvalidIpamScopeId.NotFound", "ipam-scope", id.as_str()))
    }

    /// Whether the caller sees a pool: its owner and those with whom it is shared do, in its home
    /// Region and in its locale.
    pub(crate) fn sees_pool(&self, caller: &Caller, record: &PoolRecord) -> bool {
        let pool = &record.pool;
        let here = pool.region == caller.region || pool.locale.as_ref() == Some(&caller.region);
        let mine =
            pool.owner == caller.account || self.is_shared(pool.id.as_str(), &caller.account);
        here && mine && !self.is_hidden(pool.id.as_str())
    }

    /// A pool that the caller sees.
    pub(crate) fn pool(&self, caller: &Caller, id: &PoolId) -> Result<&PoolRecord, ApiError> {
        let found = self.pools.get(id).filter(|record| self.sees_pool(caller, record));
        found.ok_or_else(|| no_such_pool(id))
    }

    /// A pool that the caller may change: as its owner, in its home Region.
    pub(crate) fn own_pool(&self, caller: &Caller, id: &PoolId) -> Result<&PoolRecord, ApiError> {
        let record = self.pool(caller, id)?;
        if record.pool.owner != caller.account {
            let text = "You are not authorized to perform this operation.";
            return Err(ApiError::new("UnauthorizedOperation", text));
        }
        Some(record).filter(|it| it.pool.region == caller.region).ok_or_else(|| no_such_pool(id))
    }

    pub(crate) fn pool_mut(&mut self, id: &PoolId) -> &mut PoolRecord {
        self.pools.get_mut(id).expect("the pool was found before")
    }

    /// An allocation of a pool that the caller sees, and the pool.
    pub(crate) fn allocation(
        &self,
        caller: &Caller,
        id: &AllocationId,
    ) -> Result<&PoolRecord, ApiError> {
        let mut pools = self.pools.values().filter(|record| self.sees_pool(caller, record));
        let found = pools.find(|record| {
            let allocation = record.allocation(id);
            allocation
                .is_some_and(|it| it.owner == caller.account || record.pool.owner == caller.account)
        });
        found.filter(|_| !self.is_hidden(id.as_str())).ok_or_else(|| no_such_allocation(id))
    }

    /// A discovery that the caller sees: its owner, and those with whom it is shared.
    pub(crate) fn discovery(
        &self,
        caller: &Caller,
        id: &DiscoveryId,
    ) -> Result<&Discovery, ApiError> {
        let found = self.discoveries.get(id).filter(|it| {
            !self.is_hidden(id.as_str())
                && it.region == caller.region
                && (it.owner == caller.account || self.is_shared(id.as_str(), &caller.account))
        });
        let code = "InvalidIpamResourceDiscoveryId.NotFound";
        found.ok_or_else(|| no_such(code, "ipam-resource-discovery", id.as_str()))
    }

    /// An association of an IPAM of the caller.
    pub(crate) fn association(
        &self,
        caller: &Caller,
        id: &AssociationId,
    ) -> Result<&Association, ApiError> {
        let found = self.associations.get(id).filter(|it| {
            !self.is_hidden(id.as_str()) && it.owner == caller.account && it.region == caller.region
        });
        let code = "InvalidIpamResourceDiscoveryAssociationId.NotFound";
        found.ok_or_else(|| no_such(code, "ipam-resource-discovery-association", id.as_str()))
    }

    pub(crate) fn pools_of_scope(&self, id: &ScopeId) -> impl Iterator<Item = &PoolRecord> {
        self.pools.values().filter(move |record| record.pool.scope == *id)
    }

    pub(crate) fn children_of(&self, id: &PoolId) -> impl Iterator<Item = &PoolRecord> {
        self.pools.values().filter(move |record| record.pool.source.pool() == Some(id))
    }

    /// Whether pools that draw from the same place as `pool` already claim a part of `range`.
    pub(crate) fn is_claimed_beside(&self, pool: &PoolRecord, range: Block) -> bool {
        let pool = &pool.pool;
        let beside = self.pools_of_scope(&pool.scope).filter(|other| {
            other.pool.family == pool.family
                && match (&pool.source, &other.pool.source) {
                    (Source::Plan, Source::Plan) => true,
                    (
                        Source::Resource { resource: a, .. },
                        Source::Resource { resource: b, .. },
                    ) => a == b,
                    (Source::Plan | Source::Pool(_) | Source::Resource { .. }, _) => false,
                }
        });
        beside.flat_map(PoolRecord::claimed).any(|cidr| Block::from(cidr).overlaps(range))
    }

    /// The scope in which a CIDR belongs unless its owner decides otherwise. Public: Elastic IP
    /// addresses, and global IPv6 ranges unless the IPAM takes them as private.
    pub(crate) fn scope_of<'a>(&self, ipam: &'a Ipam, cidr: IpNet, is_eip: bool) -> &'a ScopeId {
        let global = match cidr {
            IpNet::V4(_) => false,
            // fc00::/7 are the unique local addresses.
            IpNet::V6(cidr) => cidr.addr().octets()[0] & 0xfe != 0xfc && !ipam.enable_private_gua,
        };
        if is_eip || global { &ipam.public_scope } else { &ipam.private_scope }
    }

    /// Where a discovery looks: accounts and Regions.
    pub(crate) fn places_of(&self, discovery: &Discovery) -> BTreeSet<(Account, Region)> {
        let mut accounts = BTreeSet::from([discovery.owner.clone()]);
        if self.administrator.as_ref() == Some(&discovery.owner)
            && let Some(organization) = &self.organization
        {
            accounts.insert(organization.management.clone());
            accounts.extend(organization.members.iter().cloned());
        }
        let regions = &discovery.operating_regions;
        let places = |account: Account| regions.iter().map(move |it| (account.clone(), it.clone()));
        accounts.into_iter().flat_map(places).collect()
    }

    /// Where an IPAM sees resources: what its discoveries find in its operating Regions. In the
    /// Free Tier that is its own account and Region.
    pub(crate) fn places_seen_by(&self, ipam: &Ipam) -> BTreeSet<(Account, Region)> {
        if ipam.tier == Tier::Free {
            return BTreeSet::from([(ipam.owner.clone(), ipam.region.clone())]);
        }
        let associations = self.associations.values().filter(|it| it.ipam == ipam.id);
        let discoveries = associations.filter_map(|it| self.discoveries.get(&it.discovery));
        let places = discoveries.flat_map(|discovery| self.places_of(discovery));
        places.filter(|(_, region)| ipam.operating_regions.contains(region)).collect()
    }

    /// Brings the numbers of scopes, pools and associations up to date.
    pub(crate) fn count(&mut self) {
        for ipam in self.ipams.values_mut() {
            ipam.n_scopes = self.scopes.values().filter(|it| it.ipam == ipam.id).count();
            ipam.n_associations =
                self.associations.values().filter(|it| it.ipam == ipam.id).count();
        }
        for scope in self.scopes.values_mut() {
            scope.n_pools = self.pools.values().filter(|it| it.pool.scope == scope.id).count();
        }
    }

    /// Whether a pool of an IPAM is in a public scope.
    pub(crate) fn has_public_pool(&self, ipam: &IpamId) -> bool {
        self.pools.values().any(|it| {
            it.pool.ipam == *ipam
                && self
                    .scopes
                    .get(&it.pool.scope)
                    .is_some_and(|scope| scope.scope_type == ScopeType::Public)
        })
    }
}

/// The form of `InvalidIpamPoolId.NotFound`, quoted in
/// <https://github.com/hashicorp/terraform-provider-aws/issues/28095>.
fn no_such(code: &str, kind: &str, id: &str) -> ApiError {
    ApiError::new(code, format!("The {kind} ID '{id}' does not exist"))
}

pub(crate) fn no_such_pool(id: &PoolId) -> ApiError {
    no_such("InvalidIpamPoolId.NotFound", "ipam-pool", id.as_str())
}

/// Quoted in <https://github.com/hashicorp/terraform-provider-aws/issues/28913>.
pub(crate) fn no_such_allocation(id: &AllocationId) -> ApiError {
    let text = format!("The IPAM pool allocation ({id}) does not exist.");
    ApiError::new("InvalidIpamPoolAllocationId.NotFound", text)
}

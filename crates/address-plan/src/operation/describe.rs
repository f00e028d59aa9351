//! The Describe and Get operations: what a caller sees, filtered and in pages.

use ec2_api::ApiError;
use ec2_api::filter::Filters;
use ec2_api::page::{Listing, Page, Paging};

use crate::plan::{AddressPlan, Caller};
use crate::pool::PoolRecord;
use crate::request::{
    Action, DescribeIpamPoolAllocations, DescribeIpamPools, DescribeIpamResourceDiscoveries,
    DescribeIpamResourceDiscoveryAssociations, DescribeIpamScopes, DescribeIpams,
    GetIpamDiscoveredAccounts, GetIpamDiscoveredResourceCidrs, GetIpamPoolAllocations,
    GetIpamPoolCidrs,
};
use crate::response::{
    Allocation, Association, DiscoveredAccount, DiscoveredResourceCidr, Discovery, Ipam, Pool,
    PoolCidr, ResourceCidr, Response, Scope,
};
use crate::store::no_such_allocation;
use crate::usage::found_in;

const IPAM_FILTERS: Filters<Ipam> = Filters {
    by_name: &[
        ("description", |it| it.description.clone().into_iter().collect()),
        ("ipam-id", |it| vec![it.id.to_string()]),
        ("ipam-region", |it| vec![it.region.to_string()]),
        ("owner-id", |it| vec![it.owner.to_string()]),
        ("state", |it| vec![it.state.as_str().to_owned()]),
        ("tier", |it| vec![it.tier.as_str().to_owned()]),
    ],
    tags: Some(|it| &it.tags),
};

const SCOPE_FILTERS: Filters<Scope> = Filters {
    by_name: &[
        ("description", |it| it.description.clone().into_iter().collect()),
        ("ipam-id", |it| vec![it.ipam.to_string()]),
        ("ipam-scope-id", |it| vec![it.id.to_string()]),
        ("ipam-scope-type", |it| vec![it.scope_type.as_str().to_owned()]),
        ("is-default", |it| vec![it.is_default.to_string()]),
        ("owner-id", |it| vec![it.owner.to_string()]),
        ("state", |it| vec![it.state.as_str().to_owned()]),
    ],
    tags: Some(|it| &it.tags),
};

const POOL_FILTERS: Filters<Pool> = Filters {
    by_name: &[
        ("address-family", |it| vec![it.family.as_str().to_owned()]),
        ("auto-import", |it| vec![it.auto_import.to_string()]),
        ("description", |it| it.description.clone().into_iter().collect()),
        ("ipam-id", |it| vec![it.ipam.to_string()]),
        ("ipam-pool-id", |it| vec![it.id.to_string()]),
        ("ipam-scope-id", |it| vec![it.scope.to_string()]),
        ("locale", |it| vec![it.locale.as_ref().map_or("None", |it| it.as_str()).to_owned()]),
        ("owner-id", |it| vec![it.owner.to_string()]),
        ("pool-depth", |it| vec![it.depth.to_string()]),
        ("source-ipam-pool-id", |it| {
            it.source.pool().map(ToString::to_string).into_iter().collect()
        }),
        ("state", |it| vec![it.state.as_str().to_owned()]),
    ],
    tags: Some(|it| &it.tags),
};

const POOL_CIDR_FILTERS: Filters<PoolCidr> = Filters {
    by_name: &[
        ("cidr", |it| it.cidr.map(|cidr| cidr.to_string()).into_iter().collect()),
        ("ipam-pool-cidr-id", |it| vec![it.id.to_string()]),
        ("state", |it| vec![it.state.as_str().to_owned()]),
    ],
    tags: None,
};

const ALLOCATION_FILTERS: Filters<Allocation> = Filters {
    by_name: &[
        ("cidr", |it| vec![it.cidr.to_string()]),
        ("description", |it| it.description.clone().into_iter().collect()),
        ("ipam-pool-allocation-id", |it| vec![it.id.to_string()]),
        ("resource-id", |it| it.holder.id().map(str::to_owned).into_iter().collect()),
        ("resource-owner", |it| vec![it.owner.to_string()]),
        ("resource-region", |it| vec![it.region.to_string()]),
        ("resource-type", |it| vec![it.holder.kind().to_owned()]),
    ],
    tags: Some(|it| &it.tags),
};

/// The filters of GetIpamResourceCidrs.
pub(super) const RESOURCE_FILTERS: Filters<ResourceCidr> = Filters {
    by_name: &[
        ("compliance-status", |it| vec![it.compliance.as_str().to_owned()]),
        ("management-state", |it| vec![it.management.as_str().to_owned()]),
        ("overlap-status", |it| vec![it.overlap.as_str().to_owned()]),
        ("resource-cidr", |it| vec![it.cidr.to_string()]),
        ("resource-id", |it| vec![it.resource.to_string()]),
        ("resource-owner-id", |it| vec![it.owner.to_string()]),
        ("resource-region", |it| vec![it.region.to_string()]),
        ("resource-type", |it| vec![it.kind.as_str().to_owned()]),
        ("vpc-id", |it| it.vpc.as_ref().map(ToString::to_string).into_iter().collect()),
    ],
    tags: Some(|it| &it.tags),
};

const DISCOVERY_FILTERS: Filters<Discovery> = Filters {
    by_name: &[
        ("description", |it| it.description.clone().into_iter().collect()),
        ("ipam-resource-discovery-id", |it| vec![it.id.to_string()]),
        ("ipam-resource-discovery-region", |it| vec![it.region.to_string()]),
        ("is-default", |it| vec![it.is_default.to_string()]),
        ("owner-id", |it| vec![it.owner.to_string()]),
        ("state", |it| vec![it.state.as_str().to_owned()]),
    ],
    tags: Some(|it| &it.tags),
};

const ASSOCIATION_FILTERS: Filters<Association> = Filters {
    by_name: &[
        ("ipam-id", |it| vec![it.ipam.to_string()]),
        ("ipam-resource-discovery-association-id", |it| vec![it.id.to_string()]),
        ("ipam-resource-discovery-id", |it| vec![it.discovery.to_string()]),
        ("is-default", |it| vec![it.is_default.to_string()]),
        ("owner-id", |it| vec![it.owner.to_string()]),
    ],
    tags: Some(|it| &it.tags),
};

const ACCOUNT_FILTERS: Filters<DiscoveredAccount> =
    Filters { by_name: &[("account-id", |it| vec![it.account.to_string()])], tags: None };

const DISCOVERED_FILTERS: Filters<DiscoveredResourceCidr> = Filters {
    by_name: &[
        ("resource-cidr", |it| vec![it.cidr.to_string()]),
        ("resource-id", |it| vec![it.resource.to_string()]),
        ("resource-owner-id", |it| vec![it.owner.to_string()]),
        ("resource-type", |it| vec![it.kind.as_str().to_owned()]),
    ],
    tags: Some(|it| &it.tags),
};

/// Lists objects: those that the request names, or all that the caller sees.
struct Listed<'a, T> {
    action: Action,
    /// The name of the id parameter, if the request names ids.
    ids: Option<&'static str>,
    key: fn(&T) -> String,
    listing: &'a Listing,
}

impl<T> Listed<'_, T> {
    fn page(self, items: Vec<T>, filters: &Filters<T>) -> Result<Page<T>, ApiError>
    where
        T: 'static,
    {
        let (action, ids) = (self.action.as_str(), self.ids);
        let paging = Paging { action, allowed: 5..=1000, ids, key: self.key, weight: |_| 1 };
        paging.cut(filters.apply(items, &self.listing.filters)?, self.listing)
    }
}

fn allocation_page(
    action: Action,
    ids: Option<&'static str>,
    items: Vec<Allocation>,
    listing: &Listing,
) -> Result<Response, ApiError> {
    let paging = Paging {
        action: action.as_str(),
        allowed: 1_000..=100_000,
        ids,
        key: |it: &Allocation| it.id.to_string(),
        weight: |_| 1,
    };
    let items = ALLOCATION_FILTERS.apply(items, &listing.filters)?;
    Ok(Response::Allocations(paging.cut(items, listing)?))
}

impl AddressPlan {
    pub(super) fn describe_ipams(
        &self,
        caller: &Caller,
        request: &DescribeIpams,
    ) -> Result<Response, ApiError> {
        let named = request.ipam_ids.iter().map(|id| self.store.ipam(caller, id).cloned());
        let mut items = named.collect::<Result<Vec<_>, _>>()?;
        if items.is_empty() {
            let ids = self.store.ipams.keys();
            items = ids.filter_map(|id| self.store.ipam(caller, id).ok().cloned()).collect();
        }
        let ids = (!request.ipam_ids.is_empty()).then_some("ipamIds");
        let (action, key) = (Action::DescribeIpams, |it: &Ipam| it.id.to_string());
        let listed = Listed { action, ids, key, listing: &request.listing };
        Ok(Response::Ipams(listed.page(items, &IPAM_FILTERS)?))
    }

    pub(super) fn describe_scopes(
        &self,
        caller: &Caller,
        request: &DescribeIpamScopes,
    ) -> Result<Response, ApiError> {
        let named = request.ipam_scope_ids.iter().map(|id| self.store.scope(caller, id).cloned());
        let mut items = named.collect::<Result<Vec<_>, _>>()?;
        if items.is_empty() {
            let ids = self.store.scopes.keys();
            items = ids.filter_map(|id| self.store.scope(caller, id).ok().cloned()).collect();
        }
        let ids = (!request.ipam_scope_ids.is_empty()).then_some("ipamScopeIds");
        let (action, key) = (Action::DescribeIpamScopes, |it: &Scope| it.id.to_string());
        let listed = Listed { action, ids, key, listing: &request.listing };
        Ok(Response::Scopes(listed.page(items, &SCOPE_FILTERS)?))
    }

    pub(super) fn describe_pools(
        &self,
        caller: &Caller,
        request: &DescribeIpamPools,
    ) -> Result<Response, ApiError> {
        let named = request.ipam_pool_ids.iter();
        let named = named.map(|id| self.store.pool(caller, id).map(|it| it.pool.clone()));
        let mut items = named.collect::<Result<Vec<_>, _>>()?;
        if items.is_empty() {
            let all = self.store.pools.values();
            let seen = all.filter(|it| self.store.sees_pool(caller, it));
            items = seen.map(|it| it.pool.clone()).collect();
        }
        let ids = (!request.ipam_pool_ids.is_empty()).then_some("ipamPoolIds");
        let (action, key) = (Action::DescribeIpamPools, |it: &Pool| it.id.to_string());
        let listed = Listed { action, ids, key, listing: &request.listing };
        Ok(Response::Pools(listed.page(items, &POOL_FILTERS)?))
    }

    pub(super) fn get_pool_cidrs(
        &self,
        caller: &Caller,
        request: &GetIpamPoolCidrs,
    ) -> Result<Response, ApiError> {
        let record = self.store.pool(caller, &request.ipam_pool_id)?;
        let items = record.cidrs.values().cloned().collect();
        let (action, key) = (Action::GetIpamPoolCidrs, |it: &PoolCidr| it.id.to_string());
        let listed = Listed { action, ids: None, key, listing: &request.listing };
        Ok(Response::PoolCidrs(listed.page(items, &POOL_CIDR_FILTERS)?))
    }

    /// The owner of a pool sees all allocations, others see their own.
    pub(super) fn get_allocations(
        &self,
        caller: &Caller,
        request: &GetIpamPoolAllocations,
    ) -> Result<Response, ApiError> {
        let record = self.store.pool(caller, &request.ipam_pool_id)?;
        let is_owner = record.pool.owner == caller.account;
        let seen = |it: &&Allocation| {
            (is_owner || it.owner == caller.account) && !self.store.is_hidden(it.id.as_str())
        };
        let items: Vec<Allocation> = match &request.ipam_pool_allocation_id {
            Some(id) => {
                let found = record.allocation(id).filter(seen).cloned();
                vec![found.ok_or_else(|| no_such_allocation(id))?]
            }
            None => record.allocations().filter(seen).cloned().collect(),
        };
        allocation_page(Action::GetIpamPoolAllocations, None, items, &request.listing)
    }

    /// A caller sees its own allocations here, not all those of its pools.
    pub(super) fn describe_allocations(
        &self,
        caller: &Caller,
        request: &DescribeIpamPoolAllocations,
    ) -> Result<Response, ApiError> {
        let wanted = &request.ipam_pool_allocation_ids;
        let pools = self.store.pools.values().filter(|it| self.store.sees_pool(caller, it));
        let own = pools
            .flat_map(PoolRecord::allocations)
            .filter(|it| it.owner == caller.account && !self.store.is_hidden(it.id.as_str()));
        let items: Vec<Allocation> =
            own.filter(|it| wanted.is_empty() || wanted.contains(&it.id)).cloned().collect();
        if let Some(id) = wanted.iter().find(|id| items.iter().all(|it| it.id != **id)) {
            return Err(no_such_allocation(id));
        }
        let ids = (!wanted.is_empty()).then_some("ipamPoolAllocationIds");
        allocation_page(Action::DescribeIpamPoolAllocations, ids, items, &request.listing)
    }

    pub(super) fn describe_discoveries(
        &self,
        caller: &Caller,
        request: &DescribeIpamResourceDiscoveries,
    ) -> Result<Response, ApiError> {
        let named = request.ipam_resource_discovery_ids.iter();
        let named = named.map(|id| self.store.discovery(caller, id).cloned());
        let mut items = named.collect::<Result<Vec<_>, _>>()?;
        if items.is_empty() {
            let ids = self.store.discoveries.keys();
            items = ids.filter_map(|id| self.store.discovery(caller, id).ok().cloned()).collect();
        }
        let is_named = !request.ipam_resource_discovery_ids.is_empty();
        let listed = Listed {
            action: Action::DescribeIpamResourceDiscoveries,
            ids: is_named.then_some("ipamResourceDiscoveryIds"),
            key: |it: &Discovery| it.id.to_string(),
            listing: &request.listing,
        };
        Ok(Response::Discoveries(listed.page(items, &DISCOVERY_FILTERS)?))
    }

    pub(super) fn describe_associations(
        &self,
        caller: &Caller,
        request: &DescribeIpamResourceDiscoveryAssociations,
    ) -> Result<Response, ApiError> {
        let named = request.ipam_resource_discovery_association_ids.iter();
        let named = named.map(|id| self.store.association(caller, id).cloned());
        let mut items = named.collect::<Result<Vec<_>, _>>()?;
        if items.is_empty() {
            let ids = self.store.associations.keys();
            items = ids.filter_map(|id| self.store.association(caller, id).ok().cloned()).collect();
        }
        let is_named = !request.ipam_resource_discovery_association_ids.is_empty();
        let listed = Listed {
            action: Action::DescribeIpamResourceDiscoveryAssociations,
            ids: is_named.then_some("ipamResourceDiscoveryAssociationIds"),
            key: |it: &Association| it.id.to_string(),
            listing: &request.listing,
        };
        Ok(Response::Associations(listed.page(items, &ASSOCIATION_FILTERS)?))
    }

    pub(super) fn get_discovered_accounts(
        &self,
        caller: &Caller,
        request: &GetIpamDiscoveredAccounts,
    ) -> Result<Response, ApiError> {
        let discovery = self.store.discovery(caller, &request.ipam_resource_discovery_id)?;
        let places = self.store.places_of(discovery);
        let here = |(account, region): &(_, _)| {
            let shown = self.store.samples.get(&(Clone::clone(account), Clone::clone(region)))?;
            Some(DiscoveredAccount {
                account: Clone::clone(account),
                region: Clone::clone(region),
                sampled_at: shown.taken_at,
            })
        };
        let items = places.iter().filter(|(_, region)| *region == request.discovery_region);
        let items: Vec<DiscoveredAccount> = items.filter_map(here).collect();
        let listed = Listed {
            action: Action::GetIpamDiscoveredAccounts,
            ids: None,
            key: |it: &DiscoveredAccount| it.account.to_string(),
            listing: &request.listing,
        };
        Ok(Response::DiscoveredAccounts(listed.page(items, &ACCOUNT_FILTERS)?))
    }

    pub(super) fn get_discovered_resource_cidrs(
        &self,
        caller: &Caller,
        request: &GetIpamDiscoveredResourceCidrs,
    ) -> Result<Response, ApiError> {
        let discovery = self.store.discovery(caller, &request.ipam_resource_discovery_id)?;
        let places = self.store.places_of(discovery);
        let mut items = Vec::new();
        for ((owner, region), shown) in &self.store.samples {
            let place = (owner.clone(), region.clone());
            if *region != request.resource_region || !places.contains(&place) {
                continue;
            }
            items.extend(found_in(&shown.sample, owner, region).into_iter().map(|it| {
                DiscoveredResourceCidr {
                    discovery: discovery.id.clone(),
                    region: region.clone(),
                    owner: owner.clone(),
                    resource: it.resource.id.clone(),
                    kind: it.resource.kind(),
                    cidr: it.cidr,
                    tags: it.resource.tags.clone(),
                    usage: it.usage,
                    vpc: it.resource.vpc.clone(),
                    zone_id: it.resource.zone_id.clone(),
                    sampled_at: shown.taken_at,
                }
            }));
        }
        let listed = Listed {
            action: Action::GetIpamDiscoveredResourceCidrs,
            ids: None,
            key: |it: &DiscoveredResourceCidr| format!("{}/{}", it.resource, it.cidr),
            listing: &request.listing,
        };
        Ok(Response::DiscoveredResourceCidrs(listed.page(items, &DISCOVERED_FILTERS)?))
    }
}

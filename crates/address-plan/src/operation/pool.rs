//! Pools: where they may lie, what they may demand, and when they may go.

use ec2_api::ApiError;

use crate::block::{Block, Family};
use crate::id::{PoolId, Region};
use crate::operation::{
    check_settled, demanded_tags, in_use, limit_exceeded, nothing_to_modify, tags_for,
};
use crate::plan::{AddressPlan, Caller, Due};
use crate::pool::PoolRecord;
use crate::request::{
    CreateIpamPool, DeleteIpamPool, ModifyIpamPool, PublicIpSource, SourceResource, Tier,
};
use crate::response::{
    Holder, Ipam, Pool, PoolCidrState, PublicPool, Response, Scope, ScopeType, Source, State,
};
use crate::rules::{Lengths, Rules};

impl AddressPlan {
    pub(super) fn create_pool(
        &mut self,
        caller: &Caller,
        request: &CreateIpamPool,
    ) -> Result<Response, ApiError> {
        let scope = self.store.scope(caller, &request.ipam_scope_id)?.clone();
        let ipam = self.store.ipams.get(&scope.ipam).cloned();
        let ipam = ipam.expect("a scope has its IPAM");
        let source = self.source_of(caller, request, &scope)?;
        let parent = source.pool().map(|id| &self.store.pools[id].pool);
        let tags = tags_for(&request.tag_specifications, "ipam-pool")?;
        let public = public_part(request, scope.scope_type)?;
        let locale = locale_of(request, &ipam, parent)?;
        let demanded = demanded_tags(&request.allocation_resource_tags)?;
        let rules = Rules::new(request.address_family, request.lengths, demanded)?;
        check_auto_import(request.auto_import, locale.as_ref())?;
        check_settled(scope.state, scope.id.as_str())?;
        let parent_state = parent.map_or(State::CreateComplete, |parent| parent.state);
        check_settled(parent_state, source.pool().map_or("", PoolId::as_str))?;
        if ipam.tier == Tier::Free && public.is_none() && request.address_family == Family::Ipv4 {
            let text = "The Free Tier has no private IPv4 pools.";
            return Err(ApiError::new("OperationNotPermitted", text));
        }
        let depth = parent.map_or(1, |parent| parent.depth + 1);
        self.check_pool_quotas(&scope, depth)?;
        let pool = Pool {
            id: PoolId::from_number(self.next_id()),
            ipam: ipam.id,
            scope: scope.id,
            owner: caller.account.clone(),
            region: caller.region.clone(),
            source,
            public,
            family: request.address_family,
            locale,
            depth,
            description: request.description.clone(),
            auto_import: request.auto_import,
            rules,
            state: State::CreateInProgress,
            tags,
        };
        self.store.pools.insert(pool.id.clone(), PoolRecord::new(pool.clone()));
        let due = Due::Pool(pool.id.clone());
        self.finish_after(caller.now, self.config.transitions.create, due);
        self.maybe_hide(pool.id.as_str(), caller.now);
        Ok(Response::Pool(pool))
    }

    /// Where the pool's CIDRs come from.
    fn source_of(
        &self,
        caller: &Caller,
        request: &CreateIpamPool,
        scope: &Scope,
    ) -> Result<Source, ApiError> {
        let Some(id) = &request.source_ipam_pool_id else {
            return match &request.source_resource {
                None => Ok(Source::Plan),
                Some(_) => Err(ApiError::parameter_combination(
                    "The request must contain SourceIpamPoolId if it contains SourceResource.",
                )),
            };
        };
        let parent = self.store.own_pool(caller, id)?;
        if parent.pool.scope != scope.id {
            let text = format!("The source pool {id} is not in the scope {}.", scope.id);
            return Err(ApiError::parameter_value(text));
        }
        if parent.pool.family != request.address_family {
            let text = "The address family of a pool must be that of its source pool.";
            return Err(ApiError::parameter_value(text));
        }
        match &request.source_resource {
            None if parent.pool.source.resource().is_some() => {
                let text = format!("The pool {id} has a source resource, and cannot be a source.");
                Err(ApiError::parameter_value(text))
            }
            None => Ok(Source::Pool(id.clone())),
            Some(resource) => {
                check_managed(parent, resource)?;
                Ok(Source::Resource { pool: id.clone(), resource: resource.clone() })
            }
        }
    }

    fn check_pool_quotas(&self, scope: &Scope, depth: usize) -> Result<(), ApiError> {
        let quotas = &self.config.quotas;
        if depth > quotas.pool_depth {
            return Err(limit_exceeded("pool levels", depth - 1, quotas.pool_depth));
        }
        let n_pools = self.store.pools_of_scope(&scope.id).count();
        match n_pools < quotas.pools_per_scope {
            true => Ok(()),
            false => Err(limit_exceeded("pools", n_pools, quotas.pools_per_scope)),
        }
    }

    pub(super) fn modify_pool(
        &mut self,
        caller: &Caller,
        request: &ModifyIpamPool,
    ) -> Result<Response, ApiError> {
        let pool = self.store.own_pool(caller, &request.ipam_pool_id)?.pool.clone();
        if !names_a_change(request) {
            return Err(nothing_to_modify("ipam pool"));
        }
        if request.clear_default_netmask_length && request.lengths.default.is_some() {
            let text = "The request cannot both set and clear AllocationDefaultNetmaskLength.";
            return Err(ApiError::parameter_combination(text));
        }
        let before = pool.rules.lengths();
        let lengths = Lengths {
            min: request.lengths.min.or_else(|| before.min.map(i32::from)),
            max: request.lengths.max.or_else(|| before.max.map(i32::from)),
            default: match request.clear_default_netmask_length {
                true => None,
                false => request.lengths.default.or_else(|| before.default.map(i32::from)),
            },
        };
        let mut tags = pool.rules.tags().clone();
        tags.extend(demanded_tags(&request.add_allocation_resource_tags)?);
        for tag in &request.remove_allocation_resource_tags {
            let is_it = |value: &String| tag.value.as_ref().is_none_or(|it| it == value);
            if tags.get(&tag.key).is_some_and(is_it) {
                tags.remove(&tag.key);
            }
        }
        let rules = Rules::new(pool.family, lengths, tags)?;
        let auto_import = request.auto_import.unwrap_or(pool.auto_import);
        check_auto_import(auto_import, pool.locale.as_ref())?;
        check_settled(pool.state, pool.id.as_str())?;
        let description = request.description.clone().or_else(|| pool.description.clone());
        let state = State::ModifyInProgress;
        let after = Pool { description, auto_import, rules, state, ..pool };
        self.store.pool_mut(&after.id).pool = after.clone();
        let due = Due::Pool(after.id.clone());
        self.finish_after(caller.now, self.config.transitions.modify, due);
        Ok(Response::Pool(after))
    }

    pub(super) fn delete_pool(
        &mut self,
        caller: &Caller,
        request: &DeleteIpamPool,
    ) -> Result<Response, ApiError> {
        let record = self.store.own_pool(caller, &request.ipam_pool_id)?;
        let pool = record.pool.clone();
        if request.cascade && pool.public.is_some() && pool.source.resource().is_none() {
            let text =
                "Cascade is for pools in private scopes, and for pools with a source resource.";
            return Err(ApiError::parameter_combination(text));
        }
        check_settled(pool.state, pool.id.as_str())?;
        if !request.cascade {
            if self.store.children_of(&pool.id).next().is_some() {
                let why = "There are one or more pools that use the pool as their source.";
                return Err(in_use(pool.id.as_str(), why));
            }
            let failed =
                |state: &PoolCidrState| matches!(state, PoolCidrState::FailedProvision(..));
            if record.cidrs.values().any(|it| !failed(&it.state)) {
                let why = "There are one or more pool cidrs provisioned in the pool.";
                return Err(in_use(pool.id.as_str(), why));
            }
        }
        self.empty_pool(&pool.id, caller);
        let after = Pool { state: State::DeleteInProgress, ..pool };
        self.store.pool_mut(&after.id).pool = after.clone();
        let due = Due::Pool(after.id.clone());
        self.finish_after(caller.now, self.config.transitions.delete, due);
        Ok(Response::Pool(after))
    }

    /// Removes all pools below, all allocations and all CIDRs. The CIDRs go back to the source.
    fn empty_pool(&mut self, id: &PoolId, caller: &Caller) {
        let children: Vec<PoolId> =
            self.store.children_of(id).map(|it| it.pool.id.clone()).collect();
        for child in children {
            self.empty_pool(&child, caller);
            self.store.pools.remove(&child);
        }
        let cidrs: Vec<_> = self.store.pools[id].claimed().collect();
        for cidr in cidrs {
            self.give_back(id, cidr, caller.now);
        }
        let pool = self.store.pools[id].pool.clone();
        self.store.pools.insert(id.clone(), PoolRecord::new(pool));
    }
}

/// A resource planning pool divides a VPC that has an allocation of the source pool.
fn check_managed(parent: &PoolRecord, resource: &SourceResource) -> Result<(), ApiError> {
    let holder = Holder::Vpc(resource.resource_id.clone());
    let mut allocations = parent.allocations();
    let managed = allocations.any(|it| {
        it.holder == holder
            && it.region == resource.resource_region
            && it.owner == resource.resource_owner
    });
    match managed {
        true => Ok(()),
        false => {
            let text = format!(
                "The resource {} has no allocation of the pool {}.",
                resource.resource_id, parent.pool.id
            );
            Err(ApiError::parameter_value(text))
        }
    }
}

/// Checks what only pools of the public scope have.
fn public_part(
    request: &CreateIpamPool,
    scope_type: ScopeType,
) -> Result<Option<PublicPool>, ApiError> {
    let (service, source) = (request.aws_service, request.public_ip_source);
    let advertisable = request.publicly_advertisable;
    if scope_type == ScopeType::Private {
        let given = [
            ("AwsService", service.is_some()),
            ("PublicIpSource", source.is_some()),
            ("PubliclyAdvertisable", advertisable.is_some()),
        ];
        return match given.iter().find(|(_, given)| *given) {
            None => Ok(None),
            Some((name, _)) => Err(ApiError::parameter_combination(format!(
                "The request can only contain {name} if the scope is public."
            ))),
        };
    }
    let source = source.unwrap_or(PublicIpSource::Byoip);
    let brought_ipv6 = request.address_family == Family::Ipv6 && source == PublicIpSource::Byoip;
    if advertisable.is_some() && !brought_ipv6 {
        // Quoted in https://github.com/hashicorp/terraform-provider-aws/issues/39967.
        return Err(ApiError::parameter_combination(
            "The request can only contain PubliclyAdvertisable if the AddressFamily is IPv6 and \
             PublicIpSource is byoip.",
        ));
    }
    let top = request.source_ipam_pool_id.is_none();
    if brought_ipv6 && top && advertisable.is_none() {
        return Err(ApiError::missing_parameter("PubliclyAdvertisable"));
    }
    Ok(Some(PublicPool {
        aws_service: service,
        public_ip_source: source,
        publicly_advertisable: advertisable,
    }))
}

/// A child has the locale of its source pool, if that has one. Any locale is an operating Region.
fn locale_of(
    request: &CreateIpamPool,
    ipam: &Ipam,
    parent: Option<&Pool>,
) -> Result<Option<Region>, ApiError> {
    let of_parent = parent.and_then(|parent| parent.locale.clone());
    let locale = match (&request.locale, of_parent) {
        (Some(named), Some(of_parent)) if *named != of_parent => {
            let why = format!("The source pool has the locale {of_parent}.");
            return Err(ApiError::invalid_value(named.as_str(), "locale", &why));
        }
        (Some(named), _) => Some(named.clone()),
        (None, of_parent) => of_parent,
    };
    if let Some(locale) = locale.as_ref().filter(|it| !ipam.operating_regions.contains(it)) {
        let why = "It is no operating Region of the IPAM.";
        return Err(ApiError::invalid_value(locale.as_str(), "locale", why));
    }
    if let Some(resource) = &request.source_resource
        && locale.as_ref() != Some(&resource.resource_region)
    {
        let text = "The locale of the pool must be the Region of its source resource.";
        return Err(ApiError::parameter_value(text));
    }
    Ok(locale)
}

fn check_auto_import(auto_import: bool, locale: Option<&Region>) -> Result<(), ApiError> {
    match auto_import && locale.is_none() {
        true => Err(ApiError::parameter_combination("AutoImport needs a pool with a locale.")),
        false => Ok(()),
    }
}

fn names_a_change(request: &ModifyIpamPool) -> bool {
    let ModifyIpamPool {
        ipam_pool_id: _,
        description,
        auto_import,
        lengths,
        clear_default_netmask_length,
        add_allocation_resource_tags,
        remove_allocation_resource_tags,
    } = request;
    description.is_some()
        || auto_import.is_some()
        || *lengths != Lengths::default()
        || *clear_default_netmask_length
        || !add_allocation_resource_tags.is_empty()
        || !remove_allocation_resource_tags.is_empty()
}

/// The VPC's allocation of the source pool that contains a range of the planning pool.
pub(super) fn lies_in_resource(
    parent: &PoolRecord,
    resource: &SourceResource,
    range: Block,
) -> bool {
    let holder = Holder::Vpc(resource.resource_id.clone());
    parent.allocations().any(|it| it.holder == holder && Block::from(it.cidr).contains(range))
}

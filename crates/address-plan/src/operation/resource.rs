//! Resources: what samples change, their statuses, their scope, their history.

use std::collections::BTreeSet;
use std::time::Duration;

use ec2_api::page::{Page, Paging};
use ec2_api::tag::Tags;
use ec2_api::{ApiError, SimTime};
use ipnet::IpNet;

use crate::block::{Block, Family};
use crate::id::{Account, AllocationId, IpamId, PoolId, Region, ResourceId, ScopeId};
use crate::operation::describe::RESOURCE_FILTERS;
use crate::plan::{AddressPlan, Caller};
use crate::pool::PoolRecord;
use crate::request::{
    Action, GetIpamAddressHistory, GetIpamResourceCidrs, ModifyIpamResourceCidr, ResourceKind, Tier,
};
use crate::response::{HistoryRecord, Holder, Ipam, ResourceCidr, Response, ScopeType, State};
use crate::store::Decision;

/// How long history is kept.
/// <https://docs.aws.amazon.com/vpc/latest/ipam/view-history-cidr-ipam.html>
const HISTORY: Duration = Duration::from_secs(3 * 365 * 86_400);

impl AddressPlan {
    /// The API shows the next sample of a place, and acts on it.
    pub(super) fn show_sample(&mut self, place: (Account, Region), now: SimTime) {
        let Some(unseen) = self.unseen.get_mut(&place).filter(|it| !it.is_empty()) else { return };
        let shown = unseen.remove(0);
        self.store.samples.insert(place.clone(), shown);
        let ipams: Vec<IpamId> = self.store.ipams.keys().cloned().collect();
        for id in ipams {
            let ipam = self.store.ipams[&id].clone();
            if self.store.places_seen_by(&ipam).contains(&place) {
                self.release_what_is_gone(&id, &place, now);
                self.release_what_is_ignored(&ipam, now);
                self.import(&ipam, now);
                self.remember(&ipam, now);
            }
        }
    }

    /// Ends the allocations of resources that the place no longer has. An allocation that is newer
    /// than the sample stays. So does that of a place that the IPAM does not see.
    fn release_what_is_gone(&mut self, ipam: &IpamId, place: &(Account, Region), now: SimTime) {
        let shown = &self.store.samples[place];
        let exists: BTreeSet<(&ResourceId, IpNet)> = shown
            .sample
            .resources
            .iter()
            .flat_map(|it| it.cidrs().into_iter().map(move |cidr| (&it.id, cidr)))
            .collect();
        let (account, region) = place;
        let mut gone: Vec<(PoolId, AllocationId)> = Vec::new();
        for record in self.store.pools.values().filter(|it| it.pool.ipam == *ipam) {
            for it in record.allocations() {
                let here = it.owner == *account && it.region == *region;
                let resource = it.holder.resource().filter(|_| here && it.made_at < shown.taken_at);
                if resource.is_some_and(|resource| !exists.contains(&(resource, it.cidr))) {
                    gone.push((record.pool.id.clone(), it.id.clone()));
                }
            }
        }
        for (pool, allocation) in gone {
            self.end_allocation(&pool, &allocation, now);
        }
    }

    /// Ends the allocations of resources whose monitoring is switched off.
    fn release_what_is_ignored(&mut self, ipam: &Ipam, now: SimTime) {
        let ignored = self.store.decisions.iter().filter(|(_, decision)| !decision.monitored);
        let ignored: BTreeSet<(ResourceId, IpNet)> = ignored
            .filter(|((id, ..), _)| *id == ipam.id)
            .map(|((_, resource, cidr), _)| (resource.clone(), *cidr))
            .collect();
        let mut ended: Vec<(PoolId, AllocationId)> = Vec::new();
        for record in self.store.pools.values().filter(|it| it.pool.ipam == ipam.id) {
            for it in record.allocations() {
                let resource = it.holder.resource().cloned();
                if resource.is_some_and(|resource| ignored.contains(&(resource, it.cidr))) {
                    ended.push((record.pool.id.clone(), it.id.clone()));
                }
            }
        }
        for (pool, allocation) in ended {
            self.end_allocation(&pool, &allocation, now);
        }
    }

    /// Pools with `AutoImport` adopt what lies in their CIDRs, the largest first, then by id.
    fn import(&mut self, ipam: &Ipam, now: SimTime) {
        let importing: Vec<PoolId> = self
            .store
            .pools
            .values()
            .filter(|it| it.pool.ipam == ipam.id && it.pool.auto_import)
            .filter(|it| it.pool.state != State::DeleteInProgress)
            .map(|it| it.pool.id.clone())
            .collect();
        if importing.is_empty() {
            return;
        }
        let mut found = self.store.resource_cidrs(ipam);
        found.sort_by(|a, b| {
            (a.cidr.prefix_len(), &a.resource).cmp(&(b.cidr.prefix_len(), &b.resource))
        });
        for id in importing {
            for resource in &found {
                self.import_one(&id, resource, now);
            }
        }
    }

    fn import_one(&mut self, id: &PoolId, found: &ResourceCidr, now: SimTime) {
        let record = &self.store.pools[id];
        let holder = match adopts(record, found) {
            Some(holder) => holder,
            None => return,
        };
        let managed = self.store.pools.values().any(|it| {
            it.pool.ipam == found.ipam && it.allocation_of(&holder, found.cidr).is_some()
        });
        if managed {
            return;
        }
        let finder = Caller {
            account: found.owner.clone(),
            region: found.region.clone(),
            now,
            dry_run: false,
        };
        // What is allocated already, or rests, is not imported now.
        let _ = self.make_allocation(&finder, id, found.cidr, holder, None, Tags::new());
    }

    /// Writes down what uses each CIDR now, where that has changed.
    fn remember(&mut self, ipam: &Ipam, now: SimTime) {
        if ipam.tier == Tier::Free {
            return;
        }
        let current = self.store.resource_cidrs(ipam);
        let seen: BTreeSet<(&ScopeId, IpNet, &ResourceId)> =
            current.iter().map(|it| (&it.scope, it.cidr, &it.resource)).collect();
        let scopes = &self.store.scopes;
        for ((scope, cidr), records) in &mut self.store.history {
            if scopes.get(scope).is_some_and(|it| it.ipam == ipam.id) {
                let open = records.iter_mut().filter(|it| it.end.is_none());
                for record in open {
                    if !seen.contains(&(scope, *cidr, &record.resource)) {
                        record.end = Some(now);
                    }
                }
                records.retain(|it| it.end.is_none_or(|end| now.since(end) < HISTORY));
            }
        }
        self.store.history.retain(|_, records| !records.is_empty());
        for it in current {
            let records = self.store.history.entry((it.scope.clone(), it.cidr)).or_default();
            let record = history_record(it, now);
            let open =
                records.iter_mut().find(|old| old.end.is_none() && old.resource == record.resource);
            match open {
                Some(old) if *old == (HistoryRecord { start: old.start, ..record.clone() }) => {}
                Some(old) => {
                    old.end = Some(now);
                    records.push(record);
                }
                None => records.push(record),
            }
        }
    }

    pub(super) fn get_resource_cidrs(
        &self,
        caller: &Caller,
        request: &GetIpamResourceCidrs,
    ) -> Result<Response, ApiError> {
        let scope = self.store.scope(caller, &request.ipam_scope_id)?;
        if let Some(pool) = &request.ipam_pool_id {
            self.store.pool(caller, pool)?;
        }
        let ipam = &self.store.ipams[&scope.ipam];
        let mut found = self.store.resource_cidrs(ipam);
        found.retain(|it| {
            let tagged = |tag: &ec2_api::tag::Tag| match (it.tags.get(&tag.key), &tag.value) {
                (None, _) => false,
                (Some(_), None) => true,
                (Some(value), Some(wanted)) => value == wanted,
            };
            it.scope == scope.id
                && request.ipam_pool_id.as_ref().is_none_or(|id| it.pool.as_ref() == Some(id))
                && request.resource_id.as_ref().is_none_or(|id| it.resource == *id)
                && request.resource_type.is_none_or(|kind| it.kind == kind)
                && request.resource_owner.as_ref().is_none_or(|owner| it.owner == *owner)
                && request.resource_tag.as_ref().is_none_or(tagged)
        });
        let paging = Paging {
            action: Action::GetIpamResourceCidrs.as_str(),
            allowed: 5..=1000,
            ids: None,
            key: |it: &ResourceCidr| format!("{}/{}", it.resource, it.cidr),
            weight: |_| 1,
        };
        let found = RESOURCE_FILTERS.apply(found, &request.listing.filters)?;
        Ok(Response::ResourceCidrs(paging.cut(found, &request.listing)?))
    }

    pub(super) fn modify_resource_cidr(
        &mut self,
        caller: &Caller,
        request: &ModifyIpamResourceCidr,
    ) -> Result<Response, ApiError> {
        let scope = self.store.scope(caller, &request.current_ipam_scope_id)?;
        let ipam = self.store.ipams[&scope.ipam].clone();
        let target = match &request.destination_ipam_scope_id {
            Some(id) => self.store.scope(caller, id)?,
            None => scope,
        };
        if target.ipam != ipam.id || target.scope_type != scope.scope_type {
            let why = "A CIDR moves between scopes of one type and IPAM.";
            let id = target.id.as_str();
            return Err(ApiError::invalid_value(id, "destinationIpamScopeId", why));
        }
        if scope.scope_type == ScopeType::Public && !request.monitored {
            let text = "Public resource CIDRs cannot be ignored.";
            return Err(ApiError::parameter_value(text));
        }
        let is_it = |it: &ResourceCidr| {
            it.resource == request.resource_id
                && it.cidr == request.resource_cidr
                && it.region == request.resource_region
                && it.scope == scope.id
        };
        let found = self.store.resource_cidrs(&ipam).into_iter().find(is_it);
        let Some(found) = found else {
            let why = format!("It has no CIDR {} in {}.", request.resource_cidr, scope.id);
            let id = request.resource_id.as_str();
            return Err(ApiError::invalid_value(id, "resourceId", &why));
        };
        if !request.monitored && target.id != scope.id {
            let text = "An ignored CIDR cannot move to another scope.";
            return Err(ApiError::parameter_combination(text));
        }
        if let Some(pool) = found.pool.filter(|_| target.id != scope.id) {
            let text = format!("The CIDR has an allocation of the pool {pool}, and cannot move.");
            return Err(ApiError::new("DependencyViolation", text));
        }
        let decision = Decision { scope: target.id.clone(), monitored: request.monitored };
        let key = (ipam.id.clone(), request.resource_id.clone(), request.resource_cidr);
        self.store.decisions.insert(key, decision);
        let after = self.store.resource_cidrs(&ipam).into_iter().find(|it| {
            it.resource == request.resource_id
                && it.cidr == request.resource_cidr
                && it.region == request.resource_region
        });
        Ok(Response::ResourceCidr(after.expect("it was found before")))
    }

    pub(super) fn get_address_history(
        &self,
        caller: &Caller,
        request: &GetIpamAddressHistory,
    ) -> Result<Response, ApiError> {
        let scope = self.store.scope(caller, &request.ipam_scope_id)?;
        if self.store.ipams[&scope.ipam].tier == Tier::Free {
            let text = "The Free Tier has no address history.";
            return Err(ApiError::new("OperationNotPermitted", text));
        }
        let (start, end) = (request.start_time.unwrap_or_default(), request.end_time);
        if end.is_some_and(|end| end < start) {
            let text = "The end time cannot be before the start time.";
            return Err(ApiError::parameter_combination(text));
        }
        let end = end.unwrap_or(caller.now);
        let records = self.store.history.get(&(scope.id.clone(), request.cidr));
        let within = |it: &&HistoryRecord| {
            it.start <= end
                && it.end.is_none_or(|it| it >= start)
                && (request.vpc_id.is_none() || it.vpc == request.vpc_id)
        };
        let found: Vec<HistoryRecord> =
            records.into_iter().flatten().filter(within).cloned().collect();
        let paging = Paging {
            action: Action::GetIpamAddressHistory.as_str(),
            allowed: 1..=1000,
            ids: None,
            key: |it: &HistoryRecord| format!("{:020}/{}", it.start.unix_millis(), it.resource),
            weight: |_| 1,
        };
        let page: Page<HistoryRecord> = paging.cut(found, &request.listing)?;
        Ok(Response::AddressHistory(page))
    }
}

/// As what a pool adopts a found CIDR, if it does: VPCs in its scope and locale, or subnets of the
/// VPC that it divides.
fn adopts(record: &PoolRecord, found: &ResourceCidr) -> Option<Holder> {
    let pool = &record.pool;
    let holder = match (found.kind, pool.source.resource()) {
        (ResourceKind::Vpc, None) => Holder::Vpc(found.resource.clone()),
        (ResourceKind::Subnet, Some(source)) if found.vpc.as_ref() == Some(&source.resource_id) => {
            Holder::Subnet(found.resource.clone())
        }
        (ResourceKind::Vpc | ResourceKind::Subnet | ResourceKind::Eip | ResourceKind::Eni, _) => {
            return None;
        }
    };
    let here = pool.scope == found.scope
        && pool.locale.as_ref() == Some(&found.region)
        && pool.family == Family::of(found.cidr)
        && found.management == crate::response::ManagementState::Unmanaged
        && record.space().range_around(Block::from(found.cidr)).is_some();
    here.then_some(holder)
}

fn history_record(it: ResourceCidr, start: SimTime) -> HistoryRecord {
    HistoryRecord {
        owner: it.owner,
        region: it.region,
        kind: it.kind,
        resource: it.resource,
        cidr: it.cidr,
        name: it.tags.get("Name").cloned(),
        compliance: it.compliance,
        overlap: it.overlap,
        vpc: it.vpc,
        start,
        end: None,
    }
}

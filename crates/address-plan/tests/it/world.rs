//! A world with one IPAM, and short ways to call it.

use std::collections::BTreeSet;
use std::time::Duration;

use address_plan::block::Family;
use address_plan::config::Config;
use address_plan::id::{Account, PoolId, Region, ResourceId, ScopeId};
use address_plan::request::{
    AllocateIpamPoolCidr, CreateIpam, CreateIpamPool, GetIpamPoolAllocations, GetIpamPoolCidrs,
    GetIpamResourceCidrs, ProvisionIpamPoolCidr, ReleaseIpamPoolAllocation, Request,
};
use address_plan::resource::{Detail, Resource, Sample};
use address_plan::response::{Allocation, Ipam, Pool, PoolCidr, ResourceCidr, Response};
use address_plan::{AddressPlan, Caller};
use ec2_api::filter::Filter;
use ec2_api::page::Listing;
use ec2_api::tag::{Tag, Tags};
use ec2_api::{ApiError, SimTime};
use ipnet::IpNet;

pub(crate) const OWNER: &str = "111122223333";
pub(crate) const OTHER: &str = "444455556666";
pub(crate) const MANAGEMENT: &str = "999999999999";
pub(crate) const HOME: &str = "eu-west-1";
pub(crate) const AWAY: &str = "us-east-1";

pub(crate) fn account(text: &str) -> Account {
    text.parse().unwrap()
}

pub(crate) fn region(text: &str) -> Region {
    text.parse().unwrap()
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(crate) fn resource_id(text: &str) -> ResourceId {
    text.parse().unwrap()
}

pub(crate) fn tag(key: &str, value: &str) -> Tag {
    Tag { key: key.to_owned(), value: Some(value.to_owned()) }
}

pub(crate) fn tags(pairs: &[(&str, &str)]) -> Tags {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn filter(name: &str, value: &str) -> Listing {
    let filter = Filter { name: name.to_owned(), values: vec![value.to_owned()] };
    Listing { filters: vec![filter], ..Listing::default() }
}

/// A plan with an IPAM in [`HOME`] that operates in [`AWAY`] too, and a caller.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: AddressPlan,
    pub(crate) caller: Caller,
    pub(crate) ipam: Ipam,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(crate) fn with(config: Config) -> Self {
        let mut plan = AddressPlan::new(config);
        let caller = Caller {
            account: account(OWNER),
            region: region(HOME),
            now: SimTime::from_unix_millis(1_000_000),
            dry_run: false,
        };
        let request = CreateIpam { operating_regions: vec![region(AWAY)], ..CreateIpam::default() };
        let Response::Ipam(ipam) = plan.call(&caller, request).unwrap() else { unreachable!() };
        Self { plan, caller, ipam }
    }

    pub(crate) fn call(&mut self, request: impl Into<Request>) -> Result<Response, ApiError> {
        self.plan.call(&self.caller, request)
    }

    /// A call of another account, or to another Region.
    pub(crate) fn call_as(
        &mut self,
        owner: &str,
        at: &str,
        request: impl Into<Request>,
    ) -> Result<Response, ApiError> {
        let caller = Caller { account: account(owner), region: region(at), ..self.caller.clone() };
        self.plan.call(&caller, request)
    }

    pub(crate) fn code(&mut self, request: impl Into<Request>) -> String {
        self.call(request).map_or_else(|error| error.code, |response| format!("{response:?}"))
    }

    pub(crate) fn wait(&mut self, span: Duration) {
        self.caller.now = self.caller.now + span;
        self.plan.advance(self.caller.now);
    }

    pub(crate) fn private(&self) -> ScopeId {
        self.ipam.private_scope.clone()
    }

    /// A request for a private IPv4 pool with a locale.
    pub(crate) fn regional(&self, parent: Option<&PoolId>) -> CreateIpamPool {
        CreateIpamPool {
            locale: Some(region(HOME)),
            source_ipam_pool_id: parent.cloned(),
            ..CreateIpamPool::new(self.private(), Family::Ipv4)
        }
    }

    pub(crate) fn pool(&mut self, request: CreateIpamPool) -> PoolId {
        let Response::Pool(Pool { id, .. }) = self.call(request).unwrap() else { unreachable!() };
        id
    }

    /// A top-level pool with a locale and one CIDR.
    pub(crate) fn pool_with(&mut self, cidr: &str) -> PoolId {
        let pool = self.pool(self.regional(None));
        self.provision(&pool, cidr);
        pool
    }

    pub(crate) fn provision(&mut self, pool: &PoolId, cidr: &str) -> PoolCidr {
        self.provision_any(pool, Some(net(cidr)), None)
    }

    pub(crate) fn provision_any(
        &mut self,
        pool: &PoolId,
        cidr: Option<IpNet>,
        netmask_length: Option<i32>,
    ) -> PoolCidr {
        let request = provision(pool, cidr, netmask_length);
        let Response::PoolCidr(it) = self.call(request).unwrap() else { unreachable!() };
        it
    }

    pub(crate) fn cidrs(&mut self, pool: &PoolId) -> Vec<PoolCidr> {
        let request = GetIpamPoolCidrs { ipam_pool_id: pool.clone(), listing: Listing::default() };
        let Response::PoolCidrs(page) = self.call(request).unwrap() else { unreachable!() };
        page.items
    }

    /// The states of a pool's CIDRs, as text.
    pub(crate) fn cidr_states(&mut self, pool: &PoolId) -> Vec<String> {
        let show = |it: PoolCidr| {
            let cidr = it.cidr.map_or_else(|| "-".to_owned(), |cidr| cidr.to_string());
            format!("{cidr} {}", it.state.as_str())
        };
        let mut shown: Vec<String> = self.cidrs(pool).into_iter().map(show).collect();
        shown.sort();
        shown
    }

    pub(crate) fn allocate(
        &mut self,
        request: AllocateIpamPoolCidr,
    ) -> Result<Allocation, ApiError> {
        match self.call(request)? {
            Response::Allocation(allocation) => Ok(allocation),
            other => panic!("{other:?}"),
        }
    }

    /// Allocates a range of this length, and says which.
    pub(crate) fn allocate_len(&mut self, pool: &PoolId, len: i32) -> Result<String, String> {
        let request = AllocateIpamPoolCidr {
            netmask_length: Some(len),
            ..AllocateIpamPoolCidr::new(pool.clone())
        };
        let allocated = self.allocate(request);
        allocated.map(|it| it.cidr.to_string()).map_err(|error| error.code)
    }

    pub(crate) fn allocate_cidr(
        &mut self,
        pool: &PoolId,
        cidr: &str,
    ) -> Result<Allocation, ApiError> {
        let cidr = Some(net(cidr));
        self.allocate(AllocateIpamPoolCidr { cidr, ..AllocateIpamPoolCidr::new(pool.clone()) })
    }

    pub(crate) fn release(&mut self, pool: &PoolId, it: &Allocation) -> Result<Response, ApiError> {
        self.call(ReleaseIpamPoolAllocation {
            ipam_pool_id: pool.clone(),
            cidr: it.cidr,
            ipam_pool_allocation_id: it.id.clone(),
        })
    }

    pub(crate) fn allocations(&mut self, pool: &PoolId) -> Vec<Allocation> {
        let request = GetIpamPoolAllocations {
            ipam_pool_id: pool.clone(),
            ipam_pool_allocation_id: None,
            listing: Listing::default(),
        };
        let Response::Allocations(page) = self.call(request).unwrap() else { unreachable!() };
        page.items
    }

    /// The allocations of a pool as text, ascending by CIDR.
    pub(crate) fn holders(&mut self, pool: &PoolId) -> Vec<String> {
        let mut allocations = self.allocations(pool);
        allocations.sort_by_key(|it| it.cidr);
        let show = |it: &Allocation| {
            let id = it.holder.id().map_or_else(String::new, |id| format!(" {id}"));
            format!("{} {}{id}", it.cidr, it.holder.kind())
        };
        allocations.iter().map(show).collect()
    }

    pub(crate) fn resource_cidrs(&mut self, scope: &ScopeId) -> Vec<ResourceCidr> {
        let request = GetIpamResourceCidrs::new(scope.clone());
        let Response::ResourceCidrs(page) = self.call(request).unwrap() else { unreachable!() };
        page.items
    }

    /// The statuses of all resource CIDRs of a scope, one line each.
    pub(crate) fn statuses(&mut self, scope: &ScopeId) -> Vec<String> {
        let show = |it: ResourceCidr| {
            let (management, compliance) = (it.management.as_str(), it.compliance.as_str());
            format!("{} {} {management} {compliance} {}", it.resource, it.cidr, it.overlap.as_str())
        };
        self.resource_cidrs(scope).into_iter().map(show).collect()
    }

    /// Shows the model what exists in an account and Region.
    pub(crate) fn observe(&mut self, owner: &str, at: &str, resources: Vec<Resource>) {
        let sample = Sample { resources };
        self.plan.observe(&account(owner), &region(at), sample, self.caller.now);
    }
}

pub(crate) fn provision(
    pool: &PoolId,
    cidr: Option<IpNet>,
    netmask_length: Option<i32>,
) -> ProvisionIpamPoolCidr {
    ProvisionIpamPoolCidr {
        ipam_pool_id: pool.clone(),
        cidr,
        netmask_length,
        authorized: false,
        client_token: None,
    }
}

pub(crate) fn vpc(id: &str, cidrs: &[&str]) -> Resource {
    Resource {
        id: resource_id(id),
        vpc: Some(resource_id(id)),
        zone_id: None,
        tags: Tags::new(),
        detail: Detail::Vpc { cidrs: cidrs.iter().map(|cidr| net(cidr)).collect() },
    }
}

pub(crate) fn subnet(id: &str, vpc: &str, cidr: &str, n_in_use: u64) -> Resource {
    Resource {
        id: resource_id(id),
        vpc: Some(resource_id(vpc)),
        zone_id: Some("euw1-az1".to_owned()),
        tags: Tags::new(),
        detail: Detail::Subnet { cidrs: BTreeSet::from([net(cidr)]), n_in_use },
    }
}

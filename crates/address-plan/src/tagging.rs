//! Tags of the model's objects, after their creation.

use std::str::FromStr;

use ec2_api::ApiError;
use ec2_api::tag::Tags;

use crate::id::{AllocationId, AssociationId, DiscoveryId, IpamId, PoolId, ScopeId};
use crate::plan::{AddressPlan, Caller};
use crate::pool::PoolRecord;

/// The id of an object that can have tags.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaggableId {
    /// `ipam`
    Ipam(IpamId),
    /// `ipam-scope`
    Scope(ScopeId),
    /// `ipam-pool`
    Pool(PoolId),
    /// `ipam-pool-allocation`
    Allocation(AllocationId),
    /// `ipam-resource-discovery`
    Discovery(DiscoveryId),
    /// `ipam-resource-discovery-association`
    Association(AssociationId),
}

impl TaggableId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Ipam(id) => id.as_str(),
            Self::Scope(id) => id.as_str(),
            Self::Pool(id) => id.as_str(),
            Self::Allocation(id) => id.as_str(),
            Self::Discovery(id) => id.as_str(),
            Self::Association(id) => id.as_str(),
        }
    }

    /// `ResourceType` of its tags.
    #[must_use]
    pub const fn resource_type(&self) -> &'static str {
        match self {
            Self::Ipam(_) => "ipam",
            Self::Scope(_) => "ipam-scope",
            Self::Pool(_) => "ipam-pool",
            Self::Allocation(_) => "ipam-pool-allocation",
            Self::Discovery(_) => "ipam-resource-discovery",
            Self::Association(_) => "ipam-resource-discovery-association",
        }
    }
}

impl FromStr for TaggableId {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        match text.rsplit_once('-').map_or("", |(prefix, _)| prefix) {
            IpamId::PREFIX => text.parse().map(Self::Ipam),
            ScopeId::PREFIX => text.parse().map(Self::Scope),
            PoolId::PREFIX => text.parse().map(Self::Pool),
            AllocationId::PREFIX => text.parse().map(Self::Allocation),
            DiscoveryId::PREFIX => text.parse().map(Self::Discovery),
            AssociationId::PREFIX => text.parse().map(Self::Association),
            _ => Err(ApiError::new("InvalidID", format!("The ID '{text}' is not valid"))),
        }
    }
}

impl AddressPlan {
    /// The tags of an object that the caller owns, to change them.
    ///
    /// # Errors
    /// The `NotFound` error of the object.
    pub fn tags_mut(&mut self, caller: &Caller, id: &TaggableId) -> Result<&mut Tags, ApiError> {
        self.advance(caller.now);
        let found_before = "it was found";
        Ok(match id {
            TaggableId::Ipam(id) => {
                self.store.ipam(caller, id)?;
                &mut self.store.ipams.get_mut(id).expect(found_before).tags
            }
            TaggableId::Scope(id) => {
                self.store.scope(caller, id)?;
                &mut self.store.scopes.get_mut(id).expect(found_before).tags
            }
            TaggableId::Pool(id) => {
                self.store.own_pool(caller, id)?;
                &mut self.store.pool_mut(id).pool.tags
            }
            TaggableId::Allocation(id) => {
                let pool = self.store.allocation(caller, id)?.pool.id.clone();
                let allocation = self.store.pool_mut(&pool).allocation_mut(id);
                &mut allocation.expect(found_before).tags
            }
            TaggableId::Discovery(id) => {
                self.store.discovery(caller, id)?;
                &mut self.store.discoveries.get_mut(id).expect(found_before).tags
            }
            TaggableId::Association(id) => {
                self.store.association(caller, id)?;
                &mut self.store.associations.get_mut(id).expect(found_before).tags
            }
        })
    }

    /// The objects that the caller may tag, with their tags.
    pub fn tagged(&self, caller: &Caller) -> impl Iterator<Item = (TaggableId, &Tags)> {
        use TaggableId::{Allocation, Association, Discovery, Ipam, Pool, Scope};
        let store = &self.store;
        let records = || store.pools.values();
        let ipams = store.ipams.values();
        let ipams = ipams.map(|it| (Ipam(it.id.clone()), &it.owner, &it.region, &it.tags));
        let scopes = store.scopes.values();
        let scopes = scopes.map(|it| (Scope(it.id.clone()), &it.owner, &it.region, &it.tags));
        let pools = records().map(|it| &it.pool);
        let pools = pools.map(|it| (Pool(it.id.clone()), &it.owner, &it.region, &it.tags));
        let allocations = records().flat_map(PoolRecord::allocations);
        let allocations =
            allocations.map(|it| (Allocation(it.id.clone()), &it.owner, &it.region, &it.tags));
        let discoveries = store.discoveries.values();
        let discoveries =
            discoveries.map(|it| (Discovery(it.id.clone()), &it.owner, &it.region, &it.tags));
        let associations = store.associations.values();
        let associations =
            associations.map(|it| (Association(it.id.clone()), &it.owner, &it.region, &it.tags));
        let all = ipams.chain(scopes).chain(pools).chain(allocations);
        all.chain(discoveries).chain(associations).filter_map(|(id, owner, region, tags)| {
            let mine = *owner == caller.account && *region == caller.region;
            (mine && !store.is_hidden(id.as_str())).then_some((id, tags))
        })
    }
}

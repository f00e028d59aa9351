//! IPAMs: creation with two scopes and a discovery, change, deletion.

use std::collections::BTreeSet;

use ec2_api::ApiError;
use ec2_api::tag::Tags;

use crate::block::Family;
use crate::id::{AssociationId, DiscoveryId, IpamId, Region, ScopeId};
use crate::operation::{check_settled, in_use, limit_exceeded, nothing_to_modify, tags_for};
use crate::plan::{AddressPlan, Caller, Due};
use crate::request::{CreateIpam, DeleteIpam, MeteredAccount, ModifyIpam, Tier};
use crate::response::{Association, Discovery, Ipam, Response, Scope, ScopeType, State};

impl AddressPlan {
    pub(super) fn create_ipam(
        &mut self,
        caller: &Caller,
        request: &CreateIpam,
    ) -> Result<Response, ApiError> {
        let tags = tags_for(&request.tag_specifications, "ipam")?;
        let tier = request.tier.unwrap_or(Tier::Advanced);
        let mut regions: BTreeSet<Region> = request.operating_regions.iter().cloned().collect();
        regions.insert(caller.region.clone());
        check_tier(tier, &regions, &caller.region)?;
        let mine = |it: &&Ipam| it.owner == caller.account && it.region == caller.region;
        let n = self.store.ipams.values().filter(mine).count();
        if n >= self.config.quotas.ipams {
            return Err(limit_exceeded("ipams", n, self.config.quotas.ipams));
        }
        let id = IpamId::from_number(self.next_id());
        let discovery = self.make_discovery(caller, regions.clone(), None, true, Tags::new());
        let association = self.make_association(caller, &id, &discovery, true, Tags::new());
        let ipam = Ipam {
            id: id.clone(),
            owner: caller.account.clone(),
            region: caller.region.clone(),
            operating_regions: regions,
            public_scope: self.make_scope(caller, &id, ScopeType::Public, true, None, Tags::new()),
            private_scope: self.make_scope(
                caller,
                &id,
                ScopeType::Private,
                true,
                None,
                Tags::new(),
            ),
            n_scopes: 2,
            default_discovery: discovery,
            default_association: association,
            n_associations: 1,
            description: request.description.clone(),
            tier,
            enable_private_gua: request.enable_private_gua,
            metered_account: request.metered_account.unwrap_or(MeteredAccount::IpamOwner),
            state: State::CreateInProgress,
            tags,
        };
        self.store.ipams.insert(id.clone(), ipam.clone());
        self.finish_after(caller.now, self.config.transitions.create, Due::Ipam(id.clone()));
        self.maybe_hide(id.as_str(), caller.now);
        Ok(Response::Ipam(ipam))
    }

    /// Creates a scope, still in progress.
    pub(super) fn make_scope(
        &mut self,
        caller: &Caller,
        ipam: &IpamId,
        scope_type: ScopeType,
        is_default: bool,
        description: Option<String>,
        tags: Tags,
    ) -> ScopeId {
        let id = ScopeId::from_number(self.next_id());
        let scope = Scope {
            id: id.clone(),
            ipam: ipam.clone(),
            owner: caller.account.clone(),
            region: caller.region.clone(),
            scope_type,
            is_default,
            n_pools: 0,
            description,
            state: State::CreateInProgress,
            tags,
        };
        self.store.scopes.insert(id.clone(), scope);
        self.finish_after(caller.now, self.config.transitions.create, Due::Scope(id.clone()));
        id
    }

    /// Creates a discovery, still in progress.
    pub(super) fn make_discovery(
        &mut self,
        caller: &Caller,
        operating_regions: BTreeSet<Region>,
        description: Option<String>,
        is_default: bool,
        tags: Tags,
    ) -> DiscoveryId {
        let id = DiscoveryId::from_number(self.next_id());
        let discovery = Discovery {
            id: id.clone(),
            owner: caller.account.clone(),
            region: caller.region.clone(),
            operating_regions,
            is_default,
            description,
            state: State::CreateInProgress,
            tags,
        };
        self.store.discoveries.insert(id.clone(), discovery);
        self.finish_after(caller.now, self.config.transitions.create, Due::Discovery(id.clone()));
        id
    }

    /// Associates a discovery with an IPAM of the caller.
    pub(super) fn make_association(
        &mut self,
        caller: &Caller,
        ipam: &IpamId,
        discovery: &DiscoveryId,
        is_default: bool,
        tags: Tags,
    ) -> AssociationId {
        let id = AssociationId::from_number(self.next_id());
        let association = Association {
            id: id.clone(),
            owner: caller.account.clone(),
            ipam: ipam.clone(),
            region: caller.region.clone(),
            discovery: discovery.clone(),
            is_default,
            tags,
        };
        self.store.associations.insert(id.clone(), association);
        id
    }

    pub(super) fn modify_ipam(
        &mut self,
        caller: &Caller,
        request: &ModifyIpam,
    ) -> Result<Response, ApiError> {
        let before = self.store.ipam(caller, &request.ipam_id)?;
        let mut ipam = before.clone();
        for region in &request.add_operating_regions {
            if request.remove_operating_regions.contains(region) {
                let text = format!("The Region {region} cannot be both added and removed.");
                return Err(ApiError::parameter_combination(text));
            }
            ipam.operating_regions.insert(region.clone());
        }
        for region in &request.remove_operating_regions {
            self.check_removable(&ipam, region)?;
            ipam.operating_regions.remove(region);
        }
        ipam.description = request.description.clone().or(ipam.description);
        ipam.tier = request.tier.unwrap_or(ipam.tier);
        ipam.enable_private_gua = request.enable_private_gua.unwrap_or(ipam.enable_private_gua);
        ipam.metered_account = request.metered_account.unwrap_or(ipam.metered_account);
        if !names_a_change(request) {
            return Err(nothing_to_modify("ipam"));
        }
        check_settled(before.state, before.id.as_str())?;
        self.check_downgrade(before, &ipam)?;
        ipam.state = State::ModifyInProgress;
        if let Some(discovery) = self.store.discoveries.get_mut(&ipam.default_discovery) {
            discovery.operating_regions.clone_from(&ipam.operating_regions);
        }
        self.store.ipams.insert(ipam.id.clone(), ipam.clone());
        self.finish_after(caller.now, self.config.transitions.modify, Due::Ipam(ipam.id.clone()));
        Ok(Response::Ipam(ipam))
    }

    fn check_removable(&self, ipam: &Ipam, region: &Region) -> Result<(), ApiError> {
        if *region == ipam.region {
            let text = format!("The home Region {region} of {} cannot be removed.", ipam.id);
            return Err(ApiError::parameter_value(text));
        }
        if !ipam.operating_regions.contains(region) {
            let why = "It is no operating Region of the IPAM.";
            return Err(ApiError::invalid_value(region.as_str(), "removeOperatingRegions", why));
        }
        let mut pools = self.store.pools.values().map(|it| &it.pool);
        match pools.find(|it| it.ipam == ipam.id && it.locale.as_ref() == Some(region)) {
            Some(pool) => {
                let why = format!("The pool {} has the locale {region}.", pool.id);
                Err(in_use(ipam.id.as_str(), &why))
            }
            None => Ok(()),
        }
    }

    /// The Free Tier has no private IPv4 pools, and one Region only.
    fn check_downgrade(&self, before: &Ipam, after: &Ipam) -> Result<(), ApiError> {
        check_tier(after.tier, &after.operating_regions, &after.region)?;
        let mut pools = self.store.pools.values().map(|it| &it.pool);
        let advanced = pools
            .find(|it| it.ipam == before.id && it.public.is_none() && it.family == Family::Ipv4);
        match (after.tier, advanced) {
            (Tier::Free, Some(pool)) => {
                let why = format!("The Free Tier has no private IPv4 pools such as {}.", pool.id);
                Err(in_use(before.id.as_str(), &why))
            }
            (Tier::Free, None) | (Tier::Advanced, _) => Ok(()),
        }
    }

    pub(super) fn delete_ipam(
        &mut self,
        caller: &Caller,
        request: &DeleteIpam,
    ) -> Result<Response, ApiError> {
        let ipam = self.store.ipam(caller, &request.ipam_id)?.clone();
        check_settled(ipam.state, ipam.id.as_str())?;
        if request.cascade {
            if self.store.has_public_pool(&ipam.id) {
                let why = "There are one or more pools in its public scope.";
                return Err(in_use(ipam.id.as_str(), why));
            }
            self.store.pools.retain(|_, it| it.pool.ipam != ipam.id);
            self.store.scopes.retain(|_, it| it.ipam != ipam.id || it.is_default);
        } else {
            let has_pool = self.store.pools.values().any(|it| it.pool.ipam == ipam.id);
            let has_scope =
                self.store.scopes.values().any(|it| it.ipam == ipam.id && !it.is_default);
            if has_pool || has_scope {
                let why = "There are one or more pools or scopes in the IPAM.";
                return Err(in_use(ipam.id.as_str(), why));
            }
        }
        let after = Ipam { state: State::DeleteInProgress, ..ipam };
        self.store.ipams.insert(after.id.clone(), after.clone());
        self.finish_after(caller.now, self.config.transitions.delete, Due::Ipam(after.id.clone()));
        Ok(Response::Ipam(after))
    }
}

fn check_tier(tier: Tier, regions: &BTreeSet<Region>, home: &Region) -> Result<(), ApiError> {
    let only_home = regions.iter().all(|region| region == home);
    match tier {
        Tier::Free if !only_home => {
            let text = "The Free Tier has no operating Region but the home Region.";
            Err(ApiError::parameter_combination(text))
        }
        Tier::Free | Tier::Advanced => Ok(()),
    }
}

fn names_a_change(request: &ModifyIpam) -> bool {
    let ModifyIpam {
        ipam_id: _,
        description,
        add_operating_regions,
        remove_operating_regions,
        tier,
        enable_private_gua,
        metered_account,
    } = request;
    description.is_some()
        || !add_operating_regions.is_empty()
        || !remove_operating_regions.is_empty()
        || tier.is_some()
        || enable_private_gua.is_some()
        || metered_account.is_some()
}

//! Resource discoveries, their associations with IPAMs, and the organisation's administrator.

use std::collections::BTreeSet;

use ec2_api::ApiError;

use crate::id::{DiscoveryId, Region};
use crate::operation::{check_settled, in_use, limit_exceeded, nothing_to_modify, tags_for};
use crate::plan::{AddressPlan, Caller, Due};
use crate::request::{
    AssociateIpamResourceDiscovery, CreateIpamResourceDiscovery, DeleteIpamResourceDiscovery,
    DisableIpamOrganizationAdminAccount, DisassociateIpamResourceDiscovery,
    EnableIpamOrganizationAdminAccount, ModifyIpamResourceDiscovery,
};
use crate::response::{Discovery, Response, State};

impl AddressPlan {
    pub(super) fn create_discovery(
        &mut self,
        caller: &Caller,
        request: &CreateIpamResourceDiscovery,
    ) -> Result<Response, ApiError> {
        let tags = tags_for(&request.tag_specifications, "ipam-resource-discovery")?;
        let mine = |it: &&Discovery| {
            it.owner == caller.account && it.region == caller.region && !it.is_default
        };
        let n = self.store.discoveries.values().filter(mine).count();
        if n >= self.config.quotas.discoveries {
            return Err(limit_exceeded("resource discoveries", n, self.config.quotas.discoveries));
        }
        let mut regions: BTreeSet<Region> = request.operating_regions.iter().cloned().collect();
        regions.insert(caller.region.clone());
        let id = self.make_discovery(caller, regions, request.description.clone(), false, tags);
        self.maybe_hide(id.as_str(), caller.now);
        Ok(Response::Discovery(self.store.discoveries[&id].clone()))
    }

    pub(super) fn modify_discovery(
        &mut self,
        caller: &Caller,
        request: &ModifyIpamResourceDiscovery,
    ) -> Result<Response, ApiError> {
        let discovery = self.own_discovery(caller, &request.ipam_resource_discovery_id)?.clone();
        if request.description.is_none()
            && request.add_operating_regions.is_empty()
            && request.remove_operating_regions.is_empty()
        {
            return Err(nothing_to_modify("ipam resource discovery"));
        }
        let mut operating_regions = discovery.operating_regions.clone();
        operating_regions.extend(request.add_operating_regions.iter().cloned());
        for region in &request.remove_operating_regions {
            if *region == discovery.region || !operating_regions.remove(region) {
                let why = "It is the home Region, or no operating Region.";
                return Err(ApiError::invalid_value(
                    region.as_str(),
                    "removeOperatingRegions",
                    why,
                ));
            }
        }
        check_settled(discovery.state, discovery.id.as_str())?;
        let description = request.description.clone().or_else(|| discovery.description.clone());
        let state = State::ModifyInProgress;
        let after = Discovery { operating_regions, description, state, ..discovery };
        self.store.discoveries.insert(after.id.clone(), after.clone());
        let due = Due::Discovery(after.id.clone());
        self.finish_after(caller.now, self.config.transitions.modify, due);
        Ok(Response::Discovery(after))
    }

    pub(super) fn delete_discovery(
        &mut self,
        caller: &Caller,
        request: &DeleteIpamResourceDiscovery,
    ) -> Result<Response, ApiError> {
        let discovery = self.own_discovery(caller, &request.ipam_resource_discovery_id)?.clone();
        if discovery.is_default {
            let text = format!("The default resource discovery {} stays.", discovery.id);
            return Err(ApiError::new("OperationNotPermitted", text));
        }
        check_settled(discovery.state, discovery.id.as_str())?;
        if self.store.associations.values().any(|it| it.discovery == discovery.id) {
            let why = "It is associated with one or more IPAMs.";
            return Err(in_use(discovery.id.as_str(), why));
        }
        let after = Discovery { state: State::DeleteInProgress, ..discovery };
        self.store.discoveries.insert(after.id.clone(), after.clone());
        let due = Due::Discovery(after.id.clone());
        self.finish_after(caller.now, self.config.transitions.delete, due);
        Ok(Response::Discovery(after))
    }

    fn own_discovery(&self, caller: &Caller, id: &DiscoveryId) -> Result<&Discovery, ApiError> {
        let discovery = self.store.discovery(caller, id)?;
        match discovery.owner == caller.account {
            true => Ok(discovery),
            false => {
                let text = "You are not authorized to perform this operation.";
                Err(ApiError::new("UnauthorizedOperation", text))
            }
        }
    }

    pub(super) fn associate_discovery(
        &mut self,
        caller: &Caller,
        request: &AssociateIpamResourceDiscovery,
    ) -> Result<Response, ApiError> {
        let ipam = self.store.ipam(caller, &request.ipam_id)?.clone();
        let discovery =
            self.store.discovery(caller, &request.ipam_resource_discovery_id)?.id.clone();
        let tags = tags_for(&request.tag_specifications, "ipam-resource-discovery-association")?;
        check_settled(ipam.state, ipam.id.as_str())?;
        let mut associations = self.store.associations.values();
        if associations.any(|it| it.ipam == ipam.id && it.discovery == discovery) {
            let why = format!("It is already associated with {}.", ipam.id);
            let id = discovery.as_str();
            return Err(ApiError::invalid_value(id, "ipamResourceDiscoveryId", &why));
        }
        let (n, most) = (ipam.n_associations - 1, self.config.quotas.associations);
        if n >= most {
            return Err(limit_exceeded("resource discovery associations", n, most));
        }
        let id = self.make_association(caller, &ipam.id, &discovery, false, tags);
        Ok(Response::Association(self.store.associations[&id].clone()))
    }

    pub(super) fn disassociate_discovery(
        &mut self,
        caller: &Caller,
        request: &DisassociateIpamResourceDiscovery,
    ) -> Result<Response, ApiError> {
        let id = &request.ipam_resource_discovery_association_id;
        let association = self.store.association(caller, id)?.clone();
        if association.is_default {
            let text = format!("The default association {id} stays.");
            return Err(ApiError::new("OperationNotPermitted", text));
        }
        self.store.associations.remove(id);
        Ok(Response::Association(association))
    }

    pub(super) fn enable_administrator(
        &mut self,
        caller: &Caller,
        request: &EnableIpamOrganizationAdminAccount,
    ) -> Result<Response, ApiError> {
        let account = &request.delegated_admin_account_id;
        self.check_management(caller)?;
        let organization = self.store.organization.as_ref();
        let why = match organization {
            Some(it) if it.management == *account => {
                Some("The management account cannot be the IPAM account.")
            }
            Some(it) if !it.members.contains(account) => Some("It is no member account."),
            Some(_) | None => None,
        };
        if let Some(why) = why {
            let id = account.as_str();
            return Err(ApiError::invalid_value(id, "delegatedAdminAccountId", why));
        }
        self.store.administrator = Some(account.clone());
        Ok(Response::Success)
    }

    pub(super) fn disable_administrator(
        &mut self,
        caller: &Caller,
        request: &DisableIpamOrganizationAdminAccount,
    ) -> Result<Response, ApiError> {
        self.check_management(caller)?;
        if self.store.administrator.as_ref() != Some(&request.delegated_admin_account_id) {
            let text = format!(
                "The account {} is not registered as a delegated administrator.",
                request.delegated_admin_account_id
            );
            return Err(ApiError::new("IpamOrganizationAccountNotRegistered", text));
        }
        self.store.administrator = None;
        Ok(Response::Success)
    }

    fn check_management(&self, caller: &Caller) -> Result<(), ApiError> {
        let organization = self.store.organization.as_ref();
        match organization.is_some_and(|it| it.management == caller.account) {
            true => Ok(()),
            false => {
                let text = "Only the management account of an organisation may do this.";
                Err(ApiError::new("UnauthorizedOperation", text))
            }
        }
    }
}

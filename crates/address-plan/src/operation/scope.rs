//! Scopes: private ones come and go, default ones stay with their IPAM.

use ec2_api::ApiError;

use crate::operation::{check_settled, in_use, limit_exceeded, nothing_to_modify, tags_for};
use crate::plan::{AddressPlan, Caller, Due};
use crate::request::{CreateIpamScope, DeleteIpamScope, ModifyIpamScope, Tier};
use crate::response::{Response, Scope, ScopeType, State};

impl AddressPlan {
    pub(super) fn create_scope(
        &mut self,
        caller: &Caller,
        request: &CreateIpamScope,
    ) -> Result<Response, ApiError> {
        let ipam = self.store.ipam(caller, &request.ipam_id)?.clone();
        let tags = tags_for(&request.tag_specifications, "ipam-scope")?;
        check_settled(ipam.state, ipam.id.as_str())?;
        if ipam.tier == Tier::Free {
            let text = "The Free Tier has no private scopes but the default one.";
            return Err(ApiError::new("OperationNotPermitted", text));
        }
        if ipam.n_scopes >= self.config.quotas.scopes {
            return Err(limit_exceeded("scopes", ipam.n_scopes, self.config.quotas.scopes));
        }
        let description = request.description.clone();
        let id = self.make_scope(caller, &ipam.id, ScopeType::Private, false, description, tags);
        self.maybe_hide(id.as_str(), caller.now);
        Ok(Response::Scope(self.store.scopes[&id].clone()))
    }

    pub(super) fn modify_scope(
        &mut self,
        caller: &Caller,
        request: &ModifyIpamScope,
    ) -> Result<Response, ApiError> {
        let scope = self.store.scope(caller, &request.ipam_scope_id)?.clone();
        let Some(description) = request.description.clone() else {
            return Err(nothing_to_modify("ipam scope"));
        };
        check_settled(scope.state, scope.id.as_str())?;
        let description = Some(description);
        let after = Scope { description, state: State::ModifyInProgress, ..scope };
        self.store.scopes.insert(after.id.clone(), after.clone());
        let due = Due::Scope(after.id.clone());
        self.finish_after(caller.now, self.config.transitions.modify, due);
        Ok(Response::Scope(after))
    }

    pub(super) fn delete_scope(
        &mut self,
        caller: &Caller,
        request: &DeleteIpamScope,
    ) -> Result<Response, ApiError> {
        let scope = self.store.scope(caller, &request.ipam_scope_id)?.clone();
        if scope.is_default {
            let text = format!("The default scope {} cannot be deleted.", scope.id);
            return Err(ApiError::new("OperationNotPermitted", text));
        }
        check_settled(scope.state, scope.id.as_str())?;
        if self.store.pools_of_scope(&scope.id).next().is_some() {
            return Err(in_use(scope.id.as_str(), "There are one or more pools in the scope."));
        }
        let after = Scope { state: State::DeleteInProgress, ..scope };
        self.store.scopes.insert(after.id.clone(), after.clone());
        let due = Due::Scope(after.id.clone());
        self.finish_after(caller.now, self.config.transitions.delete, due);
        Ok(Response::Scope(after))
    }
}

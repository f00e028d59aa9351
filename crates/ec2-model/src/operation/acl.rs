//! Network ACLs: each VPC has its default one, which lets everything pass.

use crate::error::ApiError;
use crate::filter::Filters;
use crate::id::{NetworkAclAssociationId, NetworkAclId};
use crate::model::Model;
use crate::page::Paging;
use crate::request::{Action, DescribeNetworkAcls};
use crate::response::{NetworkAcl, Response, Vpc};

const FILTERS: Filters<NetworkAcl> = Filters {
    by_name: &[
        ("association.association-id", |it| {
            it.subnets.iter().map(|(id, _)| id.to_string()).collect()
        }),
        ("association.network-acl-id", |it| vec![it.id.to_string()]),
        ("association.subnet-id", |it| it.subnets.iter().map(|(_, id)| id.to_string()).collect()),
        ("default", |_| vec![true.to_string()]),
        ("network-acl-id", |it| vec![it.id.to_string()]),
        ("owner-id", |it| vec![it.owner_id.clone()]),
        ("vpc-id", |it| vec![it.vpc_id.to_string()]),
    ],
    tags: None,
};

impl Model {
    pub(super) fn describe_network_acls(
        &self,
        request: &DescribeNetworkAcls,
    ) -> Result<Response, ApiError> {
        let ids = &request.network_acl_ids;
        let mut acls: Vec<NetworkAcl> =
            self.resources.vpcs.values().map(|vpc| self.default_acl(vpc)).collect();
        if let Some(missing) = ids.iter().find(|id| acls.iter().all(|acl| acl.id != **id)) {
            let text = format!("The networkAcl ID '{missing}' does not exist");
            return Err(ApiError::new("InvalidNetworkAclID.NotFound", text));
        }
        acls.retain(|acl| ids.is_empty() || ids.contains(&acl.id));
        let found = FILTERS.apply(acls, &request.listing.filters)?;
        let paging = Paging {
            action: Action::DescribeNetworkAcls.as_str(),
            allowed: 5..=1000,
            ids: (!ids.is_empty()).then_some("networkAclIds"),
            key: |acl: &NetworkAcl| acl.id.to_string(),
            weight: |_| 1,
        };
        Ok(Response::NetworkAcls(paging.cut(found, &request.listing)?))
    }

    fn default_acl(&self, vpc: &Vpc) -> NetworkAcl {
        let subnets = self.resources.subnets.values().filter(|it| it.vpc == vpc.id);
        let associated = |id: &crate::id::SubnetId| {
            (NetworkAclAssociationId::with_digits_of(id.as_str()), id.clone())
        };
        NetworkAcl {
            id: NetworkAclId::with_digits_of(vpc.id.as_str()),
            vpc_id: vpc.id.clone(),
            owner_id: vpc.owner_id.clone(),
            has_ipv6: vpc.associations.iter().any(|it| it.cidr.addr().is_ipv6()),
            subnets: subnets.map(|subnet| associated(&subnet.id)).collect(),
        }
    }
}

//! Tags: at creation, and by CreateTags and DeleteTags.

use std::collections::BTreeMap;

use address_plan::AddressPlan;
use ec2_api::tag::put_tags;

use crate::error::ApiError;
use crate::filter::Filters;
use crate::id::{ResourceId, ResourceType};
use crate::model::{Caller, Model};
use crate::page::Paging;
use crate::request::{Action, CreateTags, DeleteTags, DescribeTags, TagSpecification};
use crate::response::{Response, TagDescription, Tags};

/// <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateTags.html>
const MAX_RESOURCES: usize = 1000;

/// The tags of a request, by resource type.
pub(super) fn tags_for(
    specifications: &[TagSpecification],
    allowed: &[ResourceType],
) -> Result<BTreeMap<ResourceType, Tags>, ApiError> {
    let mut by_kind: BTreeMap<ResourceType, Tags> = BTreeMap::new();
    for TagSpecification { resource_type, tags } in specifications {
        if !allowed.contains(resource_type) {
            let why = "not a valid taggable resource type for this operation.";
            let text = format!("'{}' is {why}", resource_type.as_str());
            return Err(ApiError::parameter_value(text));
        }
        put_tags(by_kind.entry(*resource_type).or_default(), tags)?;
    }
    Ok(by_kind)
}

/// The tags of a request that creates one type of resource.
pub(super) fn tags_for_one(
    specifications: &[TagSpecification],
    kind: ResourceType,
) -> Result<Tags, ApiError> {
    Ok(tags_for(specifications, &[kind])?.remove(&kind).unwrap_or_default())
}

const FILTERS: Filters<TagDescription> = Filters {
    by_name: &[
        ("key", |tag| vec![tag.key.clone()]),
        ("resource-id", |tag| vec![tag.resource.to_string()]),
        ("resource-type", |tag| vec![tag.resource.resource_type().to_owned()]),
        ("value", |tag| vec![tag.value.clone()]),
    ],
    tags: None,
};

impl Model {
    pub(super) fn create_tags(
        &mut self,
        plan: &mut AddressPlan,
        caller: Caller<'_>,
        request: &CreateTags,
    ) -> Result<Response, ApiError> {
        if request.tags.is_empty() {
            return Err(ApiError::missing_parameter("Tag"));
        }
        let put = |tags: &mut Tags| put_tags(tags, &request.tags);
        self.change_tags(plan, caller, &request.resources, put)
    }

    pub(super) fn delete_tags(
        &mut self,
        plan: &mut AddressPlan,
        caller: Caller<'_>,
        request: &DeleteTags,
    ) -> Result<Response, ApiError> {
        let goes = |key: &str, value: &str| {
            request.tags.is_empty()
                || request.tags.iter().any(|tag| {
                    tag.key == key && tag.value.as_deref().is_none_or(|wanted| wanted == value)
                })
        };
        self.change_tags(plan, caller, &request.resources, |tags| {
            tags.retain(|key, value| !goes(key, value));
            Ok(())
        })
    }

    /// Changes the tags of all resources, or of none.
    fn change_tags(
        &mut self,
        plan: &mut AddressPlan,
        caller: Caller<'_>,
        resources: &[ResourceId],
        change: impl Fn(&mut Tags) -> Result<(), ApiError>,
    ) -> Result<Response, ApiError> {
        if resources.is_empty() {
            return Err(ApiError::missing_parameter("resourceIdSet"));
        }
        if resources.len() > MAX_RESOURCES {
            let text = "The maximum number of resources in one request is 1000.";
            return Err(ApiError::parameter_value(text));
        }
        for id in resources {
            if let ResourceId::NetworkInterface(eni) = id {
                self.visible_eni(eni)?;
            }
            change(&mut self.tags_mut(plan, caller, id)?.clone())?;
        }
        for id in resources {
            change(self.tags_mut(plan, caller, id)?)?;
        }
        Ok(Response::Done)
    }

    fn tags_mut<'a>(
        &'a mut self,
        plan: &'a mut AddressPlan,
        caller: Caller<'_>,
        id: &ResourceId,
    ) -> Result<&'a mut Tags, ApiError> {
        match id {
            ResourceId::Plan(id) => plan.tags_mut(&self.plan_caller(caller)?, id),
            ResourceId::Instance(_)
            | ResourceId::NetworkInterface(_)
            | ResourceId::SecurityGroup(_)
            | ResourceId::Subnet(_)
            | ResourceId::SubnetCidrReservation(_)
            | ResourceId::Vpc(_) => self.resources.tags_mut(id),
        }
    }

    pub(super) fn describe_tags(
        &self,
        plan: &AddressPlan,
        caller: Caller<'_>,
        request: &DescribeTags,
    ) -> Result<Response, ApiError> {
        // The filter `tag:<key>` compares the value of one key.
        let (by_key, filters): (Vec<_>, Vec<_>) =
            request.listing.filters.iter().partition(|filter| filter.name.starts_with("tag:"));
        let filters: Vec<_> = filters.into_iter().cloned().collect();
        // A caller that the plan cannot know has nothing there.
        let plan_caller = self.plan_caller(caller).ok();
        let of_plan = plan_caller.iter().flat_map(|caller| plan.tagged(caller));
        let of_plan = of_plan.map(|(id, tags)| (ResourceId::Plan(id), tags));
        let all = self.tagged().chain(of_plan).flat_map(descriptions).collect();
        let mut tags = FILTERS.apply(all, &filters)?;
        tags.retain(|tag| {
            by_key.iter().all(|it| it.name[4..] == tag.key && it.matches(&tag.value))
        });
        let paging = Paging {
            action: Action::DescribeTags.as_str(),
            allowed: 5..=1000,
            ids: None,
            key: |tag: &TagDescription| format!("{}/{}", tag.resource, tag.key),
            weight: |_| 1,
        };
        Ok(Response::Tags(paging.cut(tags, &request.listing)?))
    }

    fn tagged(&self) -> impl Iterator<Item = (ResourceId, &Tags)> {
        let resources = &self.resources;
        let instances =
            resources.instances.values().map(|it| (ResourceId::Instance(it.id.clone()), &it.tags));
        let enis = resources.enis.values().filter(|it| !self.visibility.is_hidden(&it.id));
        let enis = enis.map(|it| (ResourceId::NetworkInterface(it.id.clone()), &it.tags));
        let groups = resources
            .groups
            .values()
            .map(|it| (ResourceId::SecurityGroup(it.id.clone()), &it.tags));
        let subnets =
            resources.subnets.values().map(|it| (ResourceId::Subnet(it.id.clone()), &it.tags));
        let reservations = resources
            .cidr_reservations
            .values()
            .map(|it| (ResourceId::SubnetCidrReservation(it.id.clone()), &it.tags));
        let vpcs = resources.vpcs.values().map(|it| (ResourceId::Vpc(it.id.clone()), &it.tags));
        let all = instances.chain(enis).chain(groups).chain(subnets).chain(reservations);
        all.chain(vpcs)
    }
}

fn descriptions(
    (resource, tags): (ResourceId, &Tags),
) -> impl Iterator<Item = TagDescription> + use<'_> {
    tags.iter().map(move |(key, value)| TagDescription {
        resource: resource.clone(),
        key: key.clone(),
        value: value.clone(),
    })
}

//! The Describe operations and their filters.

mod filters;

use std::collections::BTreeMap;

use crate::error::ApiError;
use crate::id::{InstanceId, ReservationId};
use crate::model::Model;
use crate::page::Paging;
use crate::request::{
    Action, DescribeAvailabilityZones, DescribeInstanceTypes, DescribeInstances,
    DescribeNetworkInterfaces, DescribeSecurityGroups, DescribeSubnets, DescribeVpcs, Listing,
};
use crate::resources;
use crate::response::{
    AvailabilityZone, Instance, NetworkInterface, Reservation, Response, SecurityGroup, Subnet, Vpc,
};

/// The usual paging. `ids` is the name of the id parameter if the request has ids.
fn paging<T>(action: Action, ids: Option<&'static str>, key: fn(&T) -> String) -> Paging<T> {
    Paging { action: action.as_str(), allowed: 5..=1000, ids, key, weight: |_| 1 }
}

/// The parameter's name, if the parameter was given.
fn given<T>(ids: &[T], name: &'static str) -> Option<&'static str> {
    (!ids.is_empty()).then_some(name)
}

impl Model {
    pub(super) fn describe_network_interfaces(
        &self,
        request: &DescribeNetworkInterfaces,
    ) -> Result<Response, ApiError> {
        let ids = &request.network_interface_ids;
        for id in ids {
            self.visible_eni(id)?;
        }
        let enis: Vec<&resources::Eni> = match ids.is_empty() {
            true => self.candidates(&request.listing),
            false => ids.iter().filter_map(|id| self.resources.enis.get(id)).collect(),
        };
        let shown = enis.into_iter().filter(|eni| !self.visibility.is_hidden(&eni.id));
        let view = self.view();
        let show = |eni: &resources::Eni| {
            let snapshot = self.visibility.stale_snapshot(&eni.id).cloned();
            snapshot.unwrap_or_else(|| view.network_interface(eni))
        };
        let found =
            filters::INTERFACES.apply(shown.map(show).collect(), &request.listing.filters)?;
        let ids = given(ids, "networkInterfaceIdSet");
        let paging = paging(Action::DescribeNetworkInterfaces, ids, |eni: &NetworkInterface| {
            eni.id.to_string()
        });
        Ok(Response::NetworkInterfaces(paging.cut(found, &request.listing)?))
    }

    /// The ENIs to filter. The filter by instance is by far the most frequent, and its index avoids
    /// a scan of all ENIs. With stale snapshots the index would miss some, so then all are scanned.
    fn candidates(&self, listing: &Listing) -> Vec<&resources::Eni> {
        let by_instance = listing.filters.iter().find(|it| it.name == "attachment.instance-id");
        let instances: Option<Vec<&resources::Instance>> = by_instance.and_then(|filter| {
            let find = |value: &String| self.resources.instances.get(&value.parse().ok()?);
            filter.values.iter().map(find).collect()
        });
        match instances {
            Some(instances) if !self.visibility.has_stale() => {
                instances.into_iter().flat_map(|it| self.resources.enis_of(it)).collect()
            }
            Some(_) | None => self.resources.enis.values().collect(),
        }
    }

    pub(super) fn describe_instances(
        &self,
        request: &DescribeInstances,
    ) -> Result<Response, ApiError> {
        let ids = &request.instance_ids;
        self.check_instances(ids)?;
        let instances: Vec<&resources::Instance> = match ids.is_empty() {
            true => self.resources.instances.values().collect(),
            false => ids.iter().filter_map(|id| self.resources.instances.get(id)).collect(),
        };
        let view = self.view();
        let shown = instances
            .into_iter()
            .map(|it| (it.reservation.clone(), it.owner.clone(), view.instance(it)));
        let found = filters::INSTANCES.apply(shown.collect(), &request.listing.filters)?;
        let paging = Paging {
            action: Action::DescribeInstances.as_str(),
            allowed: 5..=1000,
            ids: given(ids, "instancesSet"),
            key: |it: &Reservation| it.id.to_string(),
            weight: |it| it.instances.len(),
        };
        Ok(Response::Reservations(paging.cut(by_reservation(found), &request.listing)?))
    }

    pub(super) fn describe_instance_types(
        &self,
        request: &DescribeInstanceTypes,
    ) -> Result<Response, ApiError> {
        let names = &request.instance_types;
        let missing: Vec<&str> = names
            .iter()
            .filter(|name| instance_types::lookup(name).is_none())
            .map(String::as_str)
            .collect();
        if !missing.is_empty() {
            return Err(ApiError::new(
                "InvalidInstanceType",
                format!(
                    "The following supplied instance types do not exist: [{}]",
                    missing.join(", ")
                ),
            ));
        }
        if names.len() > 100 {
            let text = "The maximum number of instance types in one request is 100.";
            return Err(ApiError::parameter_value(text));
        }
        let wanted = |name: &str| names.is_empty() || names.iter().any(|it| it == name);
        let types = instance_types::all().filter(|row| wanted(row.name)).collect();
        let found = filters::INSTANCE_TYPES.apply(types, &request.listing.filters)?;
        let paging = Paging {
            action: Action::DescribeInstanceTypes.as_str(),
            allowed: 5..=100,
            ids: given(names, "instanceTypes"),
            key: |row: &&'static instance_types::InstanceType| row.name.to_owned(),
            weight: |_| 1,
        };
        Ok(Response::InstanceTypes(paging.cut(found, &request.listing)?))
    }

    pub(super) fn describe_subnets(&self, request: &DescribeSubnets) -> Result<Response, ApiError> {
        let ids = &request.subnet_ids;
        for id in ids {
            self.resources.subnet(id)?;
        }
        let all = self.resources.subnets.values();
        let wanted = all.filter(|it| ids.is_empty() || ids.contains(&it.id));
        let view = self.view();
        let shown = wanted.map(|it| view.subnet(it)).collect();
        let found = filters::SUBNETS.apply(shown, &request.listing.filters)?;
        let paging = paging(Action::DescribeSubnets, given(ids, "subnetIds"), |subnet: &Subnet| {
            subnet.id.to_string()
        });
        Ok(Response::Subnets(paging.cut(found, &request.listing)?))
    }

    pub(super) fn describe_vpcs(&self, request: &DescribeVpcs) -> Result<Response, ApiError> {
        let ids = &request.vpc_ids;
        for id in ids {
            self.resources.vpc(id)?;
        }
        let all = self.resources.vpcs.values();
        let wanted = all.filter(|it| ids.is_empty() || ids.contains(&it.id)).cloned();
        let found = filters::VPCS.apply(wanted.collect(), &request.listing.filters)?;
        let ids = given(ids, "vpcIds");
        let paging = paging(Action::DescribeVpcs, ids, |vpc: &Vpc| vpc.id.to_string());
        Ok(Response::Vpcs(paging.cut(found, &request.listing)?))
    }

    pub(super) fn describe_security_groups(
        &self,
        request: &DescribeSecurityGroups,
    ) -> Result<Response, ApiError> {
        let (ids, names) = (&request.group_ids, &request.group_names);
        for id in ids {
            self.resources.group(id)?;
        }
        let all = || self.resources.groups.values();
        if let Some(name) = names.iter().find(|name| all().all(|it| it.name != **name)) {
            let text = format!("The security group '{name}' does not exist");
            return Err(ApiError::new("InvalidGroup.NotFound", text));
        }
        let wanted = |it: &&SecurityGroup| {
            let unnamed = ids.is_empty() && names.is_empty();
            unnamed || ids.contains(&it.id) || names.contains(&it.name)
        };
        let wanted = all().filter(wanted).cloned().collect();
        let found = filters::SECURITY_GROUPS.apply(wanted, &request.listing.filters)?;
        let paging = paging(
            Action::DescribeSecurityGroups,
            given(ids, "groupIds").or_else(|| given(names, "groupNames")),
            |group: &SecurityGroup| group.id.to_string(),
        );
        Ok(Response::SecurityGroups(paging.cut(found, &request.listing)?))
    }

    pub(super) fn describe_availability_zones(
        &self,
        request: &DescribeAvailabilityZones,
    ) -> Result<Response, ApiError> {
        let zones = self.view().zones();
        let names = (&request.zone_names, (|it| &it.name) as fn(&AvailabilityZone) -> &String);
        let ids = (&request.zone_ids, (|it| &it.id) as fn(&AvailabilityZone) -> &String);
        for (wanted, part) in [names, ids] {
            if let Some(bad) = wanted.iter().find(|it| zones.iter().all(|zone| part(zone) != *it)) {
                return Err(ApiError::parameter_value(format!(
                    "Invalid availability zone: [{bad}]"
                )));
            }
        }
        let wanted = |zone: &AvailabilityZone| {
            (request.zone_names.is_empty() || request.zone_names.contains(&zone.name))
                && (request.zone_ids.is_empty() || request.zone_ids.contains(&zone.id))
        };
        let zones = zones.into_iter().filter(wanted).collect();
        Ok(Response::AvailabilityZones(filters::ZONES.apply(zones, &request.filters)?))
    }
}

/// A reservation's id and owner, and one of its instances.
type Reserved = (ReservationId, String, Instance);

fn by_reservation(instances: Vec<Reserved>) -> Vec<Reservation> {
    let mut reservations: BTreeMap<ReservationId, Reservation> = BTreeMap::new();
    for (id, owner_id, instance) in instances {
        let empty = || Reservation { id: id.clone(), owner_id, instances: Vec::new() };
        reservations.entry(id.clone()).or_insert_with(empty).instances.push(instance);
    }
    let sort_key = |instance: &Instance| -> InstanceId { instance.id.clone() };
    for reservation in reservations.values_mut() {
        reservation.instances.sort_by_key(sort_key);
    }
    reservations.into_values().collect()
}

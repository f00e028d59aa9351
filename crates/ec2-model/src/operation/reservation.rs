//! Subnet CIDR reservations.

use ipnet::IpNet;

use crate::error::ApiError;
use crate::family::{V4, V6};
use crate::filter::Filters;
use crate::id::{CidrReservationId, ResourceId, ResourceType};
use crate::model::{Caller, Model};
use crate::operation::tag::tags_for_one;
use crate::page::Paging;
use crate::request::{
    Action, CreateSubnetCidrReservation, DeleteSubnetCidrReservation, GetSubnetCidrReservations,
};
use crate::resources::{FamilyFields, no_such};
use crate::response::{Response, SubnetCidrReservation};

const FILTERS: Filters<SubnetCidrReservation> = Filters {
    by_name: &[
        ("reservationType", |it| vec![it.reservation_type.as_str().to_owned()]),
        ("subnet-id", |it| vec![it.subnet_id.to_string()]),
    ],
    tags: Some(|it| &it.tags),
};

impl Model {
    pub(super) fn create_cidr_reservation(
        &mut self,
        caller: Caller<'_>,
        request: &CreateSubnetCidrReservation,
    ) -> Result<Response, ApiError> {
        let subnet = self.resources.subnet(&request.subnet_id)?;
        let kind = ResourceType::SubnetCidrReservation;
        let tags = tags_for_one(&request.tag_specifications, kind)?;
        let cidr = request.cidr;
        if cidr != cidr.trunc() || !subnet.cidrs().any(|net| net.contains(&cidr)) {
            let why = "It must be a block within the subnet.";
            return Err(ApiError::invalid_value(&cidr.to_string(), "cidr", why));
        }
        let subnet = self.resources.subnet_mut(&request.subnet_id);
        let fits =
            match cidr {
                IpNet::V4(cidr) => V4::space_mut(subnet)
                    .map(|space| space.set_aside(cidr, request.reservation_type)),
                IpNet::V6(cidr) => V6::space_mut(subnet)
                    .map(|space| space.set_aside(cidr, request.reservation_type)),
            };
        if !fits.expect("the block lies within the subnet") {
            return Err(ApiError::parameter_value(format!(
                "Reservation CIDR {cidr} has overlap with existing reserved CIDR block"
            )));
        }
        let reservation = SubnetCidrReservation {
            id: CidrReservationId::from_number(self.next_id()),
            subnet_id: request.subnet_id.clone(),
            cidr,
            reservation_type: request.reservation_type,
            owner_id: caller.account.to_owned(),
            description: request.description.clone(),
            tags,
        };
        self.resources.cidr_reservations.insert(reservation.id.clone(), reservation.clone());
        Ok(Response::CidrReservation(reservation))
    }

    pub(super) fn get_cidr_reservations(
        &self,
        request: &GetSubnetCidrReservations,
    ) -> Result<Response, ApiError> {
        self.resources.subnet(&request.subnet_id)?;
        let all = self.resources.cidr_reservations.values();
        let of_subnet = all.filter(|it| it.subnet_id == request.subnet_id).cloned().collect();
        let paging = Paging {
            action: Action::GetSubnetCidrReservations.as_str(),
            allowed: 5..=1000,
            ids: None,
            key: |it: &SubnetCidrReservation| it.id.to_string(),
            weight: |_| 1,
        };
        let found = FILTERS.apply(of_subnet, &request.listing.filters)?;
        Ok(Response::CidrReservations(paging.cut(found, &request.listing)?))
    }

    pub(super) fn delete_cidr_reservation(
        &mut self,
        request: &DeleteSubnetCidrReservation,
    ) -> Result<Response, ApiError> {
        let id = &request.reservation_id;
        let Some(reservation) = self.resources.cidr_reservations.remove(id) else {
            return Err(no_such(&ResourceId::SubnetCidrReservation(id.clone())));
        };
        let subnet = self.resources.subnet_mut(&reservation.subnet_id);
        let restored = match reservation.cidr {
            IpNet::V4(cidr) => V4::space_mut(subnet).map(|space| space.restore(cidr)),
            IpNet::V6(cidr) => V6::space_mut(subnet).map(|space| space.restore(cidr)),
        };
        restored.expect("the block lay within the subnet");
        Ok(Response::CidrReservation(reservation))
    }
}

//! Subnet CIDR reservations.

use ipnet::IpNet;

use crate::error::ApiError;
use crate::filter::Filters;
use crate::id::{CidrReservationId, ResourceId, ResourceType};
use crate::model::{Caller, Model};
use crate::operation::tag::tags_for_one;
use crate::page::Paging;
use crate::request::{
    Action, CreateSubnetCidrReservation, DeleteSubnetCidrReservation, GetSubnetCidrReservations,
};
use crate::resources::no_such;
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
        let ipv6 = subnet.v6.as_ref().map(|(association, _)| IpNet::V6(association.cidr));
        let whole = [Some(IpNet::V4(subnet.cidr)), ipv6];
        if cidr != cidr.trunc() || !whole.into_iter().flatten().any(|net| net.contains(&cidr)) {
            let why = "It must be a block within the subnet.";
            return Err(ApiError::invalid_value(&cidr.to_string(), "cidr", why));
        }
        let subnet = self.resources.subnet_mut(&request.subnet_id);
        let fits = match (cidr, &mut subnet.v6) {
            (IpNet::V4(cidr), _) => subnet.v4.set_aside(cidr, request.reservation_type),
            (IpNet::V6(cidr), Some((_, space))) => space.set_aside(cidr, request.reservation_type),
            (IpNet::V6(_), None) => unreachable!("it lies within the subnet"),
        };
        if !fits {
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
            action: Action::GetSubnetCidrReservations,
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
        match (reservation.cidr, &mut subnet.v6) {
            (IpNet::V4(cidr), _) => subnet.v4.restore(cidr),
            (IpNet::V6(cidr), Some((_, space))) => space.restore(cidr),
            (IpNet::V6(_), None) => unreachable!("it lay within the subnet"),
        }
        Ok(Response::CidrReservation(reservation))
    }
}

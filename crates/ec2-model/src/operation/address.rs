//! Assigning and unassigning addresses and prefixes, for both families.

use crate::address_space::{Holder, TakeError};
use crate::allocate::{AddressRequest, AllocateError, Allocator, Holdings};
use crate::config::InsufficientError;
use crate::error::ApiError;
use crate::family::{Family, V4, V6};
use crate::id::{EniId, SubnetId};
use crate::model::{Caller, Model};
use crate::operation::interface::{MAX_SLOTS_UNATTACHED, over_limit};
use crate::request::{
    AssignIpv6Addresses, AssignPrivateIpAddresses, UnassignIpv6Addresses,
    UnassignPrivateIpAddresses, Wanted,
};
use crate::resources::{Eni, FamilyFields};
use crate::response::Response;

/// What the addresses are for. EC2's error texts differ between the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Creation,
    Assignment,
}

/// An address, and the ENI that it moves from.
type Move<F> = (<F as Family>::Addr, EniId);

/// EC2's error if a subnet cannot serve a request.
pub(super) fn allocate_error<F: Family>(
    error: &AllocateError<F>,
    purpose: Purpose,
    errors: InsufficientError,
) -> ApiError {
    match error {
        AllocateError::Address(addr, error) => refused(&addr.to_string(), error, purpose),
        AllocateError::Prefix(prefix, error) => refused(&prefix.to_string(), error, purpose),
        AllocateError::TooFewAddresses => match errors {
            InsufficientError::Classic => ApiError::new(
                "InsufficientFreeAddressesInSubnet",
                "The specified subnet does not have enough free addresses to satisfy the request.",
            ),
            InsufficientError::InvalidParameterValue => {
                ApiError::parameter_value("There aren't sufficient free Ipv4 addresses or prefixes")
            }
        },
        AllocateError::TooFewBlocks => ApiError::new(
            "InsufficientCidrBlocks",
            "The specified subnet does not have enough free cidr blocks to satisfy the request.",
        ),
    }
}

fn refused(what: &str, error: &TakeError, purpose: Purpose) -> ApiError {
    match (error, purpose) {
        (TakeError::Outside, _) => ApiError::parameter_value(format!(
            "Address {what} does not fall within the subnet's address range"
        )),
        (TakeError::Reserved, _) => {
            ApiError::parameter_value("Address is in subnet's reserved address range")
        }
        (TakeError::Misaligned, _) => {
            ApiError::invalid_value(what, "prefix", "It is not a prefix of the supported length.")
        }
        (TakeError::Held(_), Purpose::Creation) => {
            ApiError::new("InvalidIPAddress.InUse", "The specified address is already in use.")
        }
        (TakeError::Held(_), Purpose::Assignment) => not_movable(what),
    }
}

fn not_movable(what: &str) -> ApiError {
    ApiError::parameter_value(format!("[{what}] assigned, but move is not allowed."))
}

pub(super) fn no_block<F: Family>(subnet: &SubnetId) -> ApiError {
    let text = format!("The subnet '{subnet}' has no {} CIDR block.", F::NAME);
    ApiError::parameter_value(text)
}

pub(super) fn not_assigned(id: &EniId) -> ApiError {
    let text = format!("Some of the specified addresses are not assigned to interface {id}");
    ApiError::parameter_value(text)
}

impl Model {
    pub(super) fn assign_private_ip_addresses(
        &mut self,
        caller: Caller<'_>,
        request: &AssignPrivateIpAddresses,
    ) -> Result<Response, ApiError> {
        let network_interface_id = request.network_interface_id.clone();
        let may_move = request.allow_reassignment;
        let Holdings { addresses, prefixes } =
            self.assign::<V4>(caller, &network_interface_id, &request.wanted, may_move)?;
        Ok(Response::AssignedIpv4 { network_interface_id, addresses, prefixes })
    }

    pub(super) fn assign_ipv6_addresses(
        &mut self,
        caller: Caller<'_>,
        request: &AssignIpv6Addresses,
    ) -> Result<Response, ApiError> {
        let network_interface_id = request.network_interface_id.clone();
        let Holdings { addresses, prefixes } =
            self.assign::<V6>(caller, &network_interface_id, &request.wanted, false)?;
        Ok(Response::AssignedIpv6 { network_interface_id, addresses, prefixes })
    }

    pub(super) fn unassign_private_ip_addresses(
        &mut self,
        caller: Caller<'_>,
        request: &UnassignPrivateIpAddresses,
    ) -> Result<Response, ApiError> {
        let part =
            Holdings { addresses: request.addresses.clone(), prefixes: request.prefixes.clone() };
        self.unassign::<V4>(caller, &request.network_interface_id, &part)?;
        Ok(Response::Done)
    }

    pub(super) fn unassign_ipv6_addresses(
        &mut self,
        caller: Caller<'_>,
        request: &UnassignIpv6Addresses,
    ) -> Result<Response, ApiError> {
        let network_interface_id = request.network_interface_id.clone();
        let part =
            Holdings { addresses: request.addresses.clone(), prefixes: request.prefixes.clone() };
        self.unassign::<V6>(caller, &network_interface_id, &part)?;
        let Holdings { addresses, prefixes } = part;
        Ok(Response::UnassignedIpv6 { network_interface_id, addresses, prefixes })
    }

    /// Assigns what is wanted, all of it or nothing. Returns what the ENI did not have before.
    fn assign<F: FamilyFields>(
        &mut self,
        caller: Caller<'_>,
        id: &EniId,
        wanted: &Wanted<F::Addr, F::Net>,
        may_move: bool,
    ) -> Result<Holdings<F>, ApiError> {
        let eni = self.visible_eni(id)?;
        let nothing_given = || ApiError::parameter_combination(F::NOTHING_GIVEN);
        let request = AddressRequest::<F>::from_wanted(wanted)?.ok_or_else(nothing_given)?;
        if request.n_slots() == 0 {
            let [_, count, _, prefix_count] = F::PARAMETERS;
            let parameter = if request.is_for_prefixes() { prefix_count } else { count };
            let why = "Value must be a positive number.";
            return Err(ApiError::invalid_value("0", parameter, why));
        }
        self.check_support::<F>(eni, request.is_for_prefixes())?;
        let (request, moves) = self.split_moves(eni, request, may_move)?;
        self.check_limit::<F>(eni, request.n_slots() + moves.len())?;
        self.maybe_show_stale(caller, id);
        let mut given = self.take_for(id, &request)?;
        for (addr, from) in moves {
            self.move_address::<F>(caller, addr, &from, id)?;
            given.addresses.push(addr);
        }
        F::holdings_mut(self.resources.eni_mut(id)?).extend(&given);
        self.show_addresses_later(caller.now, id);
        Ok(given)
    }

    /// Refuses IPv6 addresses or prefixes if the ENI's instance type does not support them.
    fn check_support<F: FamilyFields>(&self, eni: &Eni, prefixes: bool) -> Result<(), ApiError> {
        let Some(attachment) = eni.attachment() else { return Ok(()) };
        let instance_type = self.resources.instance(&attachment.instance_id)?.instance_type;
        let what = match () {
            () if F::limit(instance_type) == 0 => "IPv6 addresses",
            () if prefixes && !instance_type.supports_prefixes() => "IP prefixes",
            () => return Ok(()),
        };
        let text = format!("{what} are not supported on {}", instance_type.name);
        Err(ApiError::new("UnsupportedOperation", text))
    }

    fn check_limit<F: FamilyFields>(&self, eni: &Eni, n_more: usize) -> Result<(), ApiError> {
        let limit = match eni.attachment() {
            Some(attachment) => {
                F::limit(self.resources.instance(&attachment.instance_id)?.instance_type)
            }
            None => *MAX_SLOTS_UNATTACHED,
        };
        if eni.n_slots::<F>() + n_more > limit { Err(over_limit()) } else { Ok(()) }
    }

    /// Splits named addresses into those to take from the subnet and those to move from other ENIs.
    /// Addresses that the ENI already has are dropped.
    fn split_moves<F: FamilyFields>(
        &self,
        eni: &Eni,
        request: AddressRequest<F>,
        may_move: bool,
    ) -> Result<(AddressRequest<F>, Vec<Move<F>>), ApiError> {
        let AddressRequest::Addresses(addresses) = request else {
            return Ok((request, Vec::new()));
        };
        let (mut to_take, mut moves) = (Vec::new(), Vec::new());
        for addr in addresses {
            match self.holder_in_subnet_of::<F>(eni, addr) {
                None => to_take.push(addr),
                Some(Holder::Eni(id)) if id == eni.id && may_move => {}
                Some(Holder::Eni(id)) if id == eni.id => {
                    let text = format!("The address {addr} is already assigned to {id}");
                    return Err(ApiError::new("Resource.AlreadyAssigned", text));
                }
                Some(Holder::Eni(_)) if moves.iter().any(|(moved, _)| *moved == addr) => {}
                Some(Holder::Eni(id)) if may_move => {
                    self.check_movable::<F>(addr, &id)?;
                    moves.push((addr, id));
                }
                Some(Holder::Eni(_) | Holder::Other) => return Err(not_movable(&addr.to_string())),
            }
        }
        Ok((AddressRequest::Addresses(to_take), moves))
    }

    fn holder_in_subnet_of<F: FamilyFields>(&self, eni: &Eni, addr: F::Addr) -> Option<Holder> {
        F::space(self.resources.subnet_of(eni))?.holder(addr).cloned()
    }

    /// Only single secondary addresses can move.
    fn check_movable<F: FamilyFields>(&self, addr: F::Addr, from: &EniId) -> Result<(), ApiError> {
        let eni = self.resources.eni(from)?;
        if F::primary(eni) == Some(addr) {
            return Err(ApiError::parameter_value("secondary-addresses"));
        }
        match F::holdings(eni).addresses.contains(&addr) {
            true => Ok(()),
            false => Err(not_movable(&addr.to_string())),
        }
    }

    fn move_address<F: FamilyFields>(
        &mut self,
        caller: Caller<'_>,
        addr: F::Addr,
        from: &EniId,
        to: &EniId,
    ) -> Result<(), ApiError> {
        let part = Holdings { addresses: vec![addr], prefixes: Vec::new() };
        self.drop_from::<F>(from, &part)?;
        self.show_addresses_later(caller.now, from);
        self.take_for::<F>(to, &AddressRequest::Addresses(vec![addr]))?;
        Ok(())
    }

    /// Takes addresses from the ENI's subnet.
    fn take_for<F: FamilyFields>(
        &mut self,
        id: &EniId,
        request: &AddressRequest<F>,
    ) -> Result<Holdings<F>, ApiError> {
        let subnet = self.resources.eni(id)?.subnet.clone();
        let mut allocator = Allocator { choice: self.config.address_choice, rng: &mut self.rng };
        let space = F::space_mut(self.resources.subnet_mut(&subnet))
            .ok_or_else(|| no_block::<F>(&subnet))?;
        let errors = self.config.insufficient_error;
        let taken = allocator.allocate(space, request, id);
        taken.map_err(|error| allocate_error(&error, Purpose::Assignment, errors))
    }

    /// Unassigns a part of an ENI's holdings, after all checks.
    fn unassign<F: FamilyFields>(
        &mut self,
        caller: Caller<'_>,
        id: &EniId,
        part: &Holdings<F>,
    ) -> Result<(), ApiError> {
        let eni = self.visible_eni(id)?;
        if part.n_slots() == 0 {
            let [addresses, _, prefixes, _] = F::PARAMETERS;
            return Err(ApiError::missing_parameter(&format!("{addresses} or {prefixes}")));
        }
        if let Some(primary) = F::fixed(eni).filter(|it| part.addresses.contains(it)) {
            let why = "The primary IP address of an interface cannot be unassigned.";
            return Err(ApiError::invalid_value(&primary.to_string(), F::ADDRESS, why));
        }
        if !F::holdings(eni).contains(part) {
            return Err(not_assigned(id));
        }
        self.maybe_show_stale(caller, id);
        self.drop_from(id, part)?;
        self.show_addresses_later(caller.now, id);
        Ok(())
    }

    /// Unassigns a part of an ENI's holdings without checks.
    pub(super) fn drop_from<F: FamilyFields>(
        &mut self,
        id: &EniId,
        part: &Holdings<F>,
    ) -> Result<(), ApiError> {
        let eni = self.resources.eni_mut(id)?;
        F::holdings_mut(eni).remove(part);
        let subnet = eni.subnet.clone();
        if let Some(space) = F::space_mut(self.resources.subnet_mut(&subnet)) {
            part.release(space);
        }
        self.resources.end_lost_associations();
        Ok(())
    }
}

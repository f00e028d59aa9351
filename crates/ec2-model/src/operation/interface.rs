//! Creating, modifying and deleting ENIs.

use std::net::Ipv4Addr;
use std::sync::LazyLock;

use mac::MacAddr;

use crate::allocate::{AddressRequest, Allocator, Holdings};
use crate::connection_tracking::ConnectionTracking;
use crate::error::ApiError;
use crate::family::{V4, V6};
use crate::id::{EniId, ResourceType, SecurityGroupId, SubnetId, VpcId};
use crate::model::{Caller, Model};
use crate::operation::address::{Purpose, allocate_error, no_block};
use crate::operation::tag::tags_for_one;
use crate::request::{
    CreateNetworkInterface, DeleteNetworkInterface, InterfaceType, ModifyNetworkInterfaceAttribute,
    WantedIpv4,
};
use crate::resources::{Eni, EniState, FamilyFields, no_such_attachment, no_such_eni};
use crate::response::{Response, SecurityGroup, Tags};
use crate::transition::Transition;

/// The first bytes of EC2's MAC addresses: locally administered, unicast.
const MAC_STARTS: [u8; 4] = [0x02, 0x06, 0x0a, 0x0e];

/// How many addresses an unattached ENI may have: as many as the largest instance type allows.
pub(super) static MAX_SLOTS_UNATTACHED: LazyLock<usize> = LazyLock::new(|| {
    instance_types::all().map(|row| usize::from(row.ipv4_per_eni)).max().unwrap_or(0)
});

/// An ENI to create.
#[derive(Debug, Clone)]
pub(crate) struct EniDraft {
    pub(crate) subnet: SubnetId,
    /// EC2 chooses one if absent.
    pub(crate) primary: Option<Ipv4Addr>,
    pub(crate) v4: AddressRequest<V4>,
    /// As the subnet's `AssignIpv6AddressOnCreation` says if absent.
    pub(crate) v6: Option<AddressRequest<V6>>,
    /// If empty, the VPC's default group.
    pub(crate) groups: Vec<SecurityGroupId>,
    pub(crate) description: String,
    pub(crate) interface_type: InterfaceType,
    pub(crate) connection_tracking: Option<ConnectionTracking>,
    /// Whether the first IPv6 address becomes the primary one.
    pub(crate) primary_ipv6: bool,
    pub(crate) tags: Tags,
}

impl EniDraft {
    /// A plain ENI with a primary address only.
    pub(crate) fn in_subnet(subnet: SubnetId) -> Self {
        Self {
            subnet,
            primary: None,
            v4: AddressRequest::NONE,
            v6: None,
            groups: Vec::new(),
            description: String::new(),
            interface_type: InterfaceType::Interface,
            connection_tracking: None,
            primary_ipv6: false,
            tags: Tags::new(),
        }
    }

    fn check_options(&self, v6: &AddressRequest<V6>) -> Result<(), ApiError> {
        if self.primary_ipv6 && (v6.is_for_prefixes() || v6.n_slots() == 0) {
            return Err(no_primary_ipv6());
        }
        self.connection_tracking.as_ref().map_or(Ok(()), ConnectionTracking::check)
    }
}

impl Model {
    pub(super) fn create_network_interface(
        &mut self,
        caller: Caller<'_>,
        request: &CreateNetworkInterface,
    ) -> Result<Response, ApiError> {
        let draft = self.draft(request)?;
        let id = self.make_eni(caller, &draft)?;
        let available = self.config.latency.available.sample(&mut self.rng);
        self.transitions.schedule(caller.now + available, Transition::EniAvailable(id.clone()));
        if self.rng.chance(self.config.consistency.hidden_permille) {
            let hidden = self.config.consistency.hidden.sample(&mut self.rng);
            self.visibility.hide(id.clone(), caller.now + hidden);
        }
        let network_interface = Box::new(self.view().network_interface(self.resources.eni(&id)?));
        Ok(Response::Created { network_interface, client_token: request.client_token.clone() })
    }

    fn draft(&self, request: &CreateNetworkInterface) -> Result<EniDraft, ApiError> {
        self.resources.subnet(&request.subnet_id)?;
        let (primary, v4) = ipv4_of(request)?;
        Ok(EniDraft {
            subnet: request.subnet_id.clone(),
            primary,
            v4,
            v6: AddressRequest::from_wanted(&request.ipv6)?,
            groups: request.groups.clone(),
            description: request.description.clone(),
            interface_type: request.interface_type,
            connection_tracking: request.connection_tracking,
            primary_ipv6: request.enable_primary_ipv6,
            tags: tags_for_one(&request.tag_specifications, ResourceType::NetworkInterface)?,
        })
    }

    /// Creates an ENI, still pending, with all requested addresses.
    pub(super) fn make_eni(
        &mut self,
        caller: Caller<'_>,
        draft: &EniDraft,
    ) -> Result<EniId, ApiError> {
        let subnet = self.resources.subnet(&draft.subnet)?;
        let unasked = match subnet.assign_ipv6_address_on_creation {
            true => AddressRequest::AddressCount(1),
            false => AddressRequest::NONE,
        };
        let wanted_v6 = draft.v6.clone().unwrap_or(unasked);
        let groups = self.groups_in(&subnet.vpc, &draft.groups)?;
        draft.check_options(&wanted_v6)?;
        self.check_eni_quota(draft, &wanted_v6)?;
        let id = EniId::from_number(self.next_id());
        let (primary, v4) = self.take_ipv4(&id, draft)?;
        let v6 = match self.take_for_new(&id, &draft.subnet, &wanted_v6) {
            Ok(v6) => v6,
            Err(error) => {
                if let Some(space) = V4::space_mut(self.resources.subnet_mut(&draft.subnet)) {
                    if let Some(primary) = primary {
                        space.release_address(primary);
                    }
                    v4.release(space);
                }
                return Err(error);
            }
        };
        let eni = Eni {
            id: id.clone(),
            subnet: draft.subnet.clone(),
            owner: caller.account.to_owned(),
            mac: self.next_mac(),
            description: draft.description.clone(),
            interface_type: draft.interface_type,
            groups,
            source_dest_check: true,
            tags: draft.tags.clone(),
            primary,
            v4,
            primary_ipv6: v6.addresses.first().copied().filter(|_| draft.primary_ipv6),
            v6,
            connection_tracking: draft.connection_tracking,
            state: EniState::Pending,
        };
        self.resources.enis.insert(id.clone(), eni);
        Ok(id)
    }

    fn check_eni_quota(&self, draft: &EniDraft, v6: &AddressRequest<V6>) -> Result<(), ApiError> {
        let n_most = self.config.quotas.network_interfaces;
        if self.resources.enis.len() >= n_most {
            let text = format!("The maximum number of network interfaces ({n_most}) is reached.");
            return Err(ApiError::new("NetworkInterfaceLimitExceeded", text));
        }
        let n_most = *MAX_SLOTS_UNATTACHED;
        if 1 + draft.v4.n_slots() > n_most || v6.n_slots() > n_most {
            return Err(over_limit());
        }
        Ok(())
    }

    /// Takes the primary address and all other IPv4 addresses that the draft requests. An IPv6-only
    /// subnet has no primary address to give.
    fn take_ipv4(
        &mut self,
        id: &EniId,
        draft: &EniDraft,
    ) -> Result<(Option<Ipv4Addr>, Holdings<V4>), ApiError> {
        let subnet = self.resources.subnet(&draft.subnet)?;
        if subnet.v4.is_none() && draft.primary.is_none() && draft.v4.n_slots() == 0 {
            return Ok((None, Holdings::default()));
        }
        let primary = match draft.primary {
            Some(addr) => AddressRequest::Addresses(vec![addr]),
            None => AddressRequest::AddressCount(1),
        };
        // EC2 chooses the primary last, so that it does not take an address that the request names.
        let is_primary_last = draft.primary.is_none() && draft.v4.is_named();
        let (first, last) =
            if is_primary_last { (&draft.v4, &primary) } else { (&primary, &draft.v4) };
        let first = self.take_for_new::<V4>(id, &draft.subnet, first)?;
        let last = match self.take_for_new::<V4>(id, &draft.subnet, last) {
            Ok(last) => last,
            Err(error) => {
                if let Some(space) = V4::space_mut(self.resources.subnet_mut(&draft.subnet)) {
                    first.release(space);
                }
                return Err(error);
            }
        };
        let (primary, rest) = if is_primary_last { (last, first) } else { (first, last) };
        Ok((primary.addresses.first().copied(), rest))
    }

    /// Takes addresses for an ENI that is being created.
    fn take_for_new<F: FamilyFields>(
        &mut self,
        id: &EniId,
        subnet: &SubnetId,
        request: &AddressRequest<F>,
    ) -> Result<Holdings<F>, ApiError> {
        let errors = self.config.insufficient_error;
        let mut allocator = Allocator { choice: self.config.address_choice, rng: &mut self.rng };
        match F::space_mut(self.resources.subnet_mut(subnet)) {
            Some(space) => allocator
                .allocate(space, request, id)
                .map_err(|error| allocate_error(&error, Purpose::Creation, errors)),
            None if request.n_slots() == 0 => Ok(Holdings::default()),
            None => Err(no_block::<F>(subnet)),
        }
    }

    fn next_mac(&mut self) -> MacAddr {
        let [start, .., b, c, d, e, f] = self.rng.next().to_be_bytes();
        let start = MAC_STARTS[usize::from(start) % MAC_STARTS.len()];
        MacAddr::from([start, b, c, d, e, f])
    }

    /// The named groups, if all belong to this VPC and there are not too many. Without names, the
    /// VPC's default group.
    pub(super) fn groups_in(
        &self,
        vpc: &VpcId,
        groups: &[SecurityGroupId],
    ) -> Result<Vec<SecurityGroupId>, ApiError> {
        if groups.is_empty() {
            let is_default =
                |group: &&SecurityGroup| group.vpc_id == *vpc && group.name == "default";
            let default = self.resources.groups.values().find(is_default);
            return Ok(default.map(|group| group.id.clone()).into_iter().collect());
        }
        for id in groups {
            if self.resources.group(id)?.vpc_id != *vpc {
                let text = format!("The security group '{id}' does not exist in VPC '{vpc}'");
                return Err(ApiError::new("InvalidGroup.NotFound", text));
            }
        }
        if groups.len() > self.config.quotas.groups_per_network_interface {
            let text = "You have exceeded the number of security groups allowed per network \
                        interface.";
            return Err(ApiError::new("SecurityGroupsPerInterfaceLimitExceeded", text));
        }
        Ok(groups.to_vec())
    }

    /// An ENI that clients can already see.
    pub(super) fn visible_eni(&self, id: &EniId) -> Result<&Eni, ApiError> {
        if self.visibility.is_hidden(id) {
            return Err(no_such_eni(id));
        }
        self.resources.eni(id)
    }

    /// Called just before a change. With the configured probability, Describe calls keep showing
    /// the ENI's current state for a while.
    pub(super) fn maybe_show_stale(&mut self, caller: Caller<'_>, id: &EniId) {
        if self.rng.chance(self.config.consistency.stale_permille)
            && let Ok(eni) = self.resources.eni(id)
        {
            let snapshot = self.view().network_interface(eni);
            let until = caller.now + self.config.consistency.stale.sample(&mut self.rng);
            self.visibility.show_stale(snapshot, until);
        }
    }

    pub(super) fn modify_interface(
        &mut self,
        caller: Caller<'_>,
        request: &ModifyNetworkInterfaceAttribute,
    ) -> Result<Response, ApiError> {
        let id = &request.network_interface_id;
        let eni = self.visible_eni(id)?;
        check_one_attribute(request)?;
        let vpc = self.resources.subnet_of(eni).vpc.clone();
        if let Some(change) = &request.attachment {
            let attachment = eni.attachment().map(|attachment| &attachment.id);
            if attachment != Some(&change.attachment_id) {
                return Err(no_such_attachment(&change.attachment_id));
            }
        }
        let groups = self.groups_in(&vpc, &request.groups)?;
        request.connection_tracking.as_ref().map_or(Ok(()), ConnectionTracking::check)?;
        check_primary_ipv6(eni, request.enable_primary_ipv6)?;
        self.maybe_show_stale(caller, id);
        let eni = self.resources.eni_mut(id)?;
        if let Some(description) = &request.description {
            eni.description.clone_from(description);
        }
        if let Some(check) = request.source_dest_check {
            eni.source_dest_check = check;
        }
        if let Some(change) = &request.connection_tracking {
            eni.connection_tracking =
                Some(eni.connection_tracking.unwrap_or_default().changed(change));
        }
        if request.enable_primary_ipv6 == Some(true) && eni.primary_ipv6.is_none() {
            eni.primary_ipv6 = eni.v6.addresses.first().copied();
        }
        if let (Some(change), Some(attachment)) = (&request.attachment, eni.attachment_mut()) {
            attachment.delete_on_termination = change.delete_on_termination;
        }
        if !request.groups.is_empty() {
            eni.groups = groups;
            self.show_addresses_later(caller.now, id);
        }
        Ok(Response::Done)
    }

    pub(super) fn delete_network_interface(
        &mut self,
        request: &DeleteNetworkInterface,
    ) -> Result<Response, ApiError> {
        let id = &request.network_interface_id;
        if self.visible_eni(id)?.attachment().is_some() {
            let text = format!("Network interface '{id}' is currently in use.");
            return Err(ApiError::parameter_value(text));
        }
        self.resources.delete_eni(id);
        Ok(Response::Done)
    }
}

pub(super) fn over_limit() -> ApiError {
    let text = "Number of private addresses will exceed limit.";
    ApiError::new("PrivateIpAddressLimitExceeded", text)
}

/// EC2's code for this is not documented.
fn no_primary_ipv6() -> ApiError {
    let text = "A primary IPv6 address requires that the interface has an IPv6 address.";
    ApiError::parameter_combination(text)
}

/// A primary IPv6 address needs an address, and stays until the ENI is detached.
fn check_primary_ipv6(eni: &Eni, enable: Option<bool>) -> Result<(), ApiError> {
    match enable {
        Some(true) if eni.v6.addresses.is_empty() => Err(no_primary_ipv6()),
        Some(false) if eni.primary_ipv6.is_some() => {
            let text = "The primary IPv6 address of an interface cannot be disabled.";
            Err(ApiError::new("OperationNotPermitted", text))
        }
        Some(_) | None => Ok(()),
    }
}

fn check_one_attribute(request: &ModifyNetworkInterfaceAttribute) -> Result<(), ApiError> {
    let given = [
        ("attachment", request.attachment.is_some()),
        ("description", request.description.is_some()),
        ("groupSet", !request.groups.is_empty()),
        ("sourceDestCheck", request.source_dest_check.is_some()),
        ("connectionTrackingSpecification", request.connection_tracking.is_some()),
        ("enablePrimaryIpv6", request.enable_primary_ipv6.is_some()),
    ];
    let names: Vec<&str> =
        given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect();
    match names.as_slice() {
        [_] => Ok(()),
        [] => Err(ApiError::parameter_combination("No attributes specified.")),
        several => Err(ApiError::parameter_combination(format!(
            "Fields for multiple attribute types specified: {}",
            several.join(", ")
        ))),
    }
}

/// The primary address, if the client names one, and the other IPv4 addresses that it requests.
fn ipv4_of(
    request: &CreateNetworkInterface,
) -> Result<(Option<Ipv4Addr>, AddressRequest<V4>), ApiError> {
    let named = &request.private_ip_addresses;
    let mut primaries = named.iter().filter(|it| it.primary).map(|it| it.address);
    let (primary_named, second) = (primaries.next(), primaries.next());
    if second.is_some() {
        let text = "Only one primary private IP address can be specified.";
        return Err(ApiError::parameter_combination(text));
    }
    if primary_named.is_some() && request.private_ip_address.is_some() {
        let text = "You may not specify both privateIpAddress and a primary address in \
                    privateIpAddressesSet.";
        return Err(ApiError::parameter_combination(text));
    }
    let wanted = WantedIpv4 {
        addresses: named.iter().filter(|it| !it.primary).map(|it| it.address).collect(),
        address_count: request.secondary_private_ip_address_count,
        prefixes: request.ipv4_prefixes.clone(),
        prefix_count: request.ipv4_prefix_count,
    };
    let secondaries = AddressRequest::from_wanted(&wanted)?.unwrap_or(AddressRequest::NONE);
    Ok((request.private_ip_address.or(primary_named), secondaries))
}

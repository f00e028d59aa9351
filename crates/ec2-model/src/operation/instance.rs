//! Starting and terminating instances.

use std::collections::BTreeMap;

use instance_types::InstanceType;

use crate::allocate::AddressRequest;
use crate::error::ApiError;
use crate::id::{AttachmentId, EniId, InstanceId, ReservationId, ResourceType};
use crate::launch_options::{self, InstanceProfile};
use crate::metadata_options::MetadataOptions;
use crate::model::{Caller, Model};
use crate::operation::attachment::{check_carried, check_slot, queues, slot};
use crate::operation::interface::EniDraft;
use crate::operation::tag::tags_for;
use crate::request::{
    InstanceNetworkInterface, RunInstances, TerminateInstances, Wanted, WantedIpv6,
};
use crate::resources::{EniState, Instance, PRIMARY, Slot, no_such_instances};
use crate::response::{
    Attachment, AttachmentStatus, InstanceState, InstanceStateChange, Reservation, Response, Tags,
};
use crate::transition::Transition;

/// One ENI of an instance to start.
#[derive(Debug, Clone)]
pub(super) struct InterfaceDraft {
    pub(super) slot: Slot,
    pub(super) source: InterfaceSource,
    pub(super) delete_on_termination: bool,
    pub(super) ena_queue_count: Option<i32>,
}

/// Where the ENI comes from.
#[derive(Debug, Clone)]
pub(super) enum InterfaceSource {
    Existing(EniId),
    New(Box<EniDraft>),
}

impl InterfaceDraft {
    /// The primary ENI of an instance whose request describes no ENIs.
    pub(super) fn primary(draft: EniDraft) -> Self {
        let source = InterfaceSource::New(Box::new(draft));
        Self { slot: PRIMARY, source, delete_on_termination: true, ena_queue_count: None }
    }
}

/// An instance to start.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    pub(super) image_id: String,
    pub(super) instance_type: &'static InstanceType,
    /// The primary ENI first.
    pub(super) interfaces: Vec<InterfaceDraft>,
    pub(super) metadata_options: MetadataOptions,
    pub(super) profile: Option<InstanceProfile>,
    pub(super) user_data: Option<Vec<u8>>,
    pub(super) tags: Tags,
    pub(super) client_token: Option<String>,
}

impl Model {
    pub(super) fn instance_type(&self, name: &str) -> Result<&'static InstanceType, ApiError> {
        instance_types::lookup(name).ok_or_else(|| {
            let text = format!("Invalid value '{name}' for InstanceType.");
            ApiError::parameter_value(text)
        })
    }

    pub(super) fn next_reservation_id(&mut self) -> ReservationId {
        ReservationId::from_number(self.next_id())
    }

    pub(super) fn run_instances(
        &mut self,
        caller: Caller<'_>,
        request: &RunInstances,
    ) -> Result<Response, ApiError> {
        let (least, most) = counts(request)?;
        let launch = self.launch_of(caller, request, most)?;
        let id = self.next_reservation_id();
        let mut started: Vec<InstanceId> = Vec::new();
        while started.len() < most {
            let instance = InstanceId::from_number(self.next_id());
            match self.launch(caller, &launch, instance.clone(), &id) {
                Ok(()) => started.push(instance),
                Err(_) if started.len() >= least => break,
                Err(error) => {
                    started.iter().for_each(|instance| self.undo_launch(&launch, instance));
                    return Err(error);
                }
            }
        }
        for instance in &started {
            let running = caller.now + self.config.latency.launch.sample(&mut self.rng);
            self.transitions.schedule(running, Transition::Running(instance.clone()));
        }
        let view = self.view();
        let instances = started.iter().filter_map(|id| self.resources.instances.get(id));
        Ok(Response::Started(Reservation {
            id,
            owner_id: caller.account.to_owned(),
            instances: instances.map(|instance| view.instance(instance)).collect(),
        }))
    }

    fn launch_of(
        &self,
        caller: Caller<'_>,
        request: &RunInstances,
        n_most: usize,
    ) -> Result<Launch, ApiError> {
        let kinds = [ResourceType::Instance, ResourceType::NetworkInterface];
        let mut tags = tags_for(&request.tag_specifications, &kinds)?;
        let mut interfaces = self.interfaces_of(request, n_most)?;
        for interface in &mut interfaces {
            if let InterfaceSource::New(draft) = &mut interface.source {
                draft.tags = tags.get(&ResourceType::NetworkInterface).cloned().unwrap_or_default();
            }
        }
        let tags = tags.remove(&ResourceType::Instance).unwrap_or_default();
        let profile = request
            .iam_instance_profile
            .as_ref()
            .map(|wanted| InstanceProfile::of(wanted, &self.config.region, caller.account));
        Ok(Launch {
            image_id: request.image_id.clone(),
            instance_type: self.instance_type(&request.instance_type)?,
            interfaces,
            metadata_options: MetadataOptions::default()
                .changed(&request.metadata_options, &tags)?,
            profile: profile.transpose()?,
            user_data: request.user_data.as_deref().map(launch_options::user_data).transpose()?,
            tags,
            client_token: request.client_token.clone(),
        })
    }

    fn interfaces_of(
        &self,
        request: &RunInstances,
        n_most: usize,
    ) -> Result<Vec<InterfaceDraft>, ApiError> {
        let on_instance = request.subnet_id.is_some()
            || request.private_ip_address.is_some()
            || request.ipv6 != WantedIpv6::default()
            || request.enable_primary_ipv6
            || !request.groups.is_empty();
        if request.network_interfaces.is_empty() {
            let subnet = request.subnet_id.clone().ok_or_else(no_subnet)?;
            let v6 = AddressRequest::from_wanted(&request.ipv6)?;
            let draft = EniDraft {
                primary: request.private_ip_address,
                v6,
                groups: request.groups.clone(),
                primary_ipv6: request.enable_primary_ipv6,
                ..EniDraft::in_subnet(subnet)
            };
            return Ok(vec![InterfaceDraft::primary(draft)]);
        }
        if on_instance {
            let text = "Network interfaces and an instance-level subnet ID, address or security \
                        groups may not be specified on the same request";
            return Err(ApiError::parameter_combination(text));
        }
        let drafts = request.network_interfaces.iter().map(|it| self.interface_draft(it, n_most));
        let mut drafts = drafts.collect::<Result<Vec<_>, _>>()?;
        drafts.sort_by_key(|draft| draft.slot);
        if drafts.first().map(|draft| draft.slot) != Some(PRIMARY) {
            let text = "When specifying network interfaces, you must include a device at index 0.";
            return Err(ApiError::parameter_combination(text));
        }
        Ok(drafts)
    }

    fn interface_draft(
        &self,
        wanted: &InstanceNetworkInterface,
        n_most: usize,
    ) -> Result<InterfaceDraft, ApiError> {
        let slot = slot(wanted.network_card_index, wanted.device_index)?;
        let source = match &wanted.network_interface_id {
            Some(id) if n_most > 1 => {
                let text = format!("Network interface '{id}' can be attached to one instance only");
                return Err(ApiError::parameter_combination(text));
            }
            Some(id) if has_details(wanted) => {
                let text = format!("Nothing else may be specified for existing interface '{id}'");
                return Err(ApiError::parameter_combination(text));
            }
            Some(id) => InterfaceSource::Existing(self.visible_eni(id)?.id.clone()),
            None => InterfaceSource::New(Box::new(new_interface(wanted)?)),
        };
        let is_new = matches!(source, InterfaceSource::New(_));
        let delete_on_termination = wanted.delete_on_termination.unwrap_or(is_new);
        let ena_queue_count = wanted.ena_queue_count;
        Ok(InterfaceDraft { slot, source, delete_on_termination, ena_queue_count })
    }

    /// Starts one instance with all its ENIs, or nothing.
    pub(super) fn launch(
        &mut self,
        caller: Caller<'_>,
        launch: &Launch,
        id: InstanceId,
        reservation: &ReservationId,
    ) -> Result<(), ApiError> {
        let primary = launch.interfaces.first().expect("every launch has a primary ENI");
        let subnet = match &primary.source {
            InterfaceSource::Existing(eni) => self.resources.eni(eni)?.subnet.clone(),
            InterfaceSource::New(draft) => self.resources.subnet(&draft.subnet)?.id.clone(),
        };
        let instance = Instance {
            id: id.clone(),
            reservation: reservation.clone(),
            owner: caller.account.to_owned(),
            image_id: launch.image_id.clone(),
            instance_type: launch.instance_type,
            state: InstanceState::Pending,
            launch_time: caller.now,
            subnet,
            primary: primary.slot,
            slots: BTreeMap::new(),
            metadata_options: launch.metadata_options,
            profile: launch.profile.clone(),
            user_data: launch.user_data.clone(),
            tags: launch.tags.clone(),
            client_token: launch.client_token.clone(),
        };
        self.resources.instances.insert(id.clone(), instance);
        let attached =
            launch.interfaces.iter().try_for_each(|it| self.attach_at_launch(caller, &id, it));
        if attached.is_err() {
            self.undo_launch(launch, &id);
        }
        attached?;
        self.give_at_launch(launch, &id)?;
        self.show_all(&id)
    }

    /// Gives a new instance with one new ENI a public address, if its subnet does so.
    fn give_at_launch(&mut self, launch: &Launch, id: &InstanceId) -> Result<(), ApiError> {
        let [InterfaceDraft { source: InterfaceSource::New(draft), .. }] = &launch.interfaces[..]
        else {
            return Ok(());
        };
        if !self.resources.subnet(&draft.subnet)?.map_public_ip_on_launch {
            return Ok(());
        }
        let primary = self.resources.instance(id)?.primary_eni(&self.resources);
        let given = match primary.map(|eni| eni.id.clone()) {
            Some(eni) => self.give_public_address(&eni),
            None => Ok(()),
        };
        if given.is_err() {
            self.undo_launch(launch, id);
        }
        given
    }

    /// Attaches one ENI to an instance that is being started.
    fn attach_at_launch(
        &mut self,
        caller: Caller<'_>,
        instance: &InstanceId,
        wanted: &InterfaceDraft,
    ) -> Result<(), ApiError> {
        let there = self.resources.instance(instance)?;
        check_slot(there, wanted.slot)?;
        let ena_queue_count = queues(wanted.ena_queue_count, there.instance_type)?;
        let eni = match &wanted.source {
            InterfaceSource::Existing(eni) => eni.clone(),
            InterfaceSource::New(draft) => self.make_eni(caller, draft)?,
        };
        if let Err(error) = self.check_attach_at_launch(instance, &eni) {
            if let InterfaceSource::New(_) = wanted.source {
                self.resources.delete_eni(&eni);
            }
            return Err(error);
        }
        let attachment = Attachment {
            id: AttachmentId::from_number(self.next_id()),
            instance_id: instance.clone(),
            instance_owner_id: caller.account.to_owned(),
            device_index: wanted.slot.1,
            network_card_index: wanted.slot.0,
            status: AttachmentStatus::Attached,
            attach_time: caller.now,
            delete_on_termination: wanted.delete_on_termination,
            ena_queue_count,
        };
        self.resources.attach(&eni, attachment);
        Ok(())
    }

    fn check_attach_at_launch(&self, instance: &InstanceId, eni: &EniId) -> Result<(), ApiError> {
        let (instance, eni) = (self.resources.instance(instance)?, self.resources.eni(eni)?);
        if let EniState::Attached(_) = eni.state {
            let text = format!("Interface: [{}] in use.", eni.id);
            return Err(ApiError::new("InvalidNetworkInterface.InUse", text));
        }
        self.check_place(eni, instance)?;
        check_carried(eni, instance)
    }

    /// Removes an instance that no answer has shown, and the ENIs created for it.
    fn undo_launch(&mut self, launch: &Launch, id: &InstanceId) {
        let Some(instance) = self.resources.instances.get(id) else { return };
        let slots = instance.slots.clone();
        for interface in &launch.interfaces {
            let Some(eni) = slots.get(&interface.slot) else { continue };
            self.resources.detach(eni);
            match interface.source {
                InterfaceSource::Existing(_) => {}
                InterfaceSource::New(_) => self.resources.delete_eni(eni),
            }
        }
        self.imds.forget(id);
        self.resources.instances.remove(id);
    }

    pub(super) fn terminate_instances(
        &mut self,
        caller: Caller<'_>,
        request: &TerminateInstances,
    ) -> Result<Response, ApiError> {
        if request.instance_ids.is_empty() {
            return Err(ApiError::missing_parameter("InstanceId"));
        }
        self.check_instances(&request.instance_ids)?;
        let changes = request.instance_ids.iter().map(|id| self.terminate(caller, id));
        Ok(Response::StateChanges(changes.collect::<Result<_, _>>()?))
    }

    /// Checks that all instances exist. EC2's error names all that do not.
    pub(super) fn check_instances(&self, ids: &[InstanceId]) -> Result<(), ApiError> {
        let missing: Vec<&InstanceId> =
            ids.iter().filter(|id| !self.resources.instances.contains_key(id)).collect();
        if missing.is_empty() { Ok(()) } else { Err(no_such_instances(&missing)) }
    }

    fn terminate(
        &mut self,
        caller: Caller<'_>,
        id: &InstanceId,
    ) -> Result<InstanceStateChange, ApiError> {
        let previous = self.resources.instance(id)?.state;
        let current = match previous {
            InstanceState::Pending | InstanceState::Running => InstanceState::ShuttingDown,
            InstanceState::ShuttingDown | InstanceState::Terminated => previous,
        };
        if current != previous {
            let gone = caller.now + self.config.latency.terminate.sample(&mut self.rng);
            self.transitions.schedule(gone, Transition::Terminated(id.clone()));
            if let Some(instance) = self.resources.instances.get_mut(id) {
                instance.state = current;
            }
        }
        Ok(InstanceStateChange { instance_id: id.clone(), previous, current })
    }
}

/// `MinCount` and `MaxCount`.
fn counts(request: &RunInstances) -> Result<(usize, usize), ApiError> {
    let check = |n: i32, parameter| {
        usize::try_from(n)
            .ok()
            .filter(|n| *n > 0)
            .ok_or_else(|| ApiError::invalid_value(&n.to_string(), parameter, ""))
    };
    let least = check(request.min_count, "minCount")?;
    let most = check(request.max_count, "maxCount")?;
    if least > most {
        let text = "maxCount must be equal to or greater than minCount";
        return Err(ApiError::parameter_combination(text));
    }
    let named = request.private_ip_address.is_some() || !request.ipv6.addresses.is_empty();
    if most > 1 && named {
        let text = "An IP address can be specified for one instance only";
        return Err(ApiError::parameter_combination(text));
    }
    Ok((least, most))
}

fn no_subnet() -> ApiError {
    let text = "No default VPC is modelled. Please specify a subnet.";
    ApiError::new("MissingInput", text)
}

/// Whether the request describes a new ENI.
fn has_details(wanted: &InstanceNetworkInterface) -> bool {
    wanted.subnet_id.is_some()
        || !wanted.groups.is_empty()
        || wanted.private_ip_address.is_some()
        || wanted.secondary_private_ip_address_count.is_some()
        || wanted.ipv4_prefix_count.is_some()
        || wanted.ipv6_address_count.is_some()
        || wanted.ipv6_prefix_count.is_some()
        || wanted.primary_ipv6
        || wanted.connection_tracking.is_some()
        || !wanted.description.is_empty()
}

fn new_interface(wanted: &InstanceNetworkInterface) -> Result<EniDraft, ApiError> {
    let v4 = Wanted {
        address_count: wanted.secondary_private_ip_address_count,
        prefix_count: wanted.ipv4_prefix_count,
        ..Wanted::default()
    };
    let v6 = Wanted {
        address_count: wanted.ipv6_address_count,
        prefix_count: wanted.ipv6_prefix_count,
        ..Wanted::default()
    };
    Ok(EniDraft {
        primary: wanted.private_ip_address,
        v4: AddressRequest::from_wanted(&v4)?.unwrap_or(AddressRequest::NONE),
        v6: AddressRequest::from_wanted(&v6)?,
        groups: wanted.groups.clone(),
        description: wanted.description.clone(),
        connection_tracking: wanted.connection_tracking,
        primary_ipv6: wanted.primary_ipv6,
        ..EniDraft::in_subnet(wanted.subnet_id.clone().ok_or_else(no_subnet)?)
    })
}

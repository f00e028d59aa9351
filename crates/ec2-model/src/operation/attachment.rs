//! Attaching and detaching ENIs.

use instance_types::InstanceType;

use crate::error::ApiError;
use crate::family::{V4, V6};
use crate::id::{AttachmentId, EniId};
use crate::model::{Caller, Model};
use crate::request::{AttachNetworkInterface, DetachNetworkInterface, InterfaceType};
use crate::resources::{Eni, FamilyFields, Instance, Slot, no_such_attachment};
use crate::response::{Attachment, AttachmentStatus, InstanceState, Response};
use crate::time::SimTime;
use crate::transition::Transition;

impl Model {
    pub(super) fn attach_network_interface(
        &mut self,
        caller: Caller<'_>,
        request: &AttachNetworkInterface,
    ) -> Result<Response, ApiError> {
        let id = &request.network_interface_id;
        let eni = self.visible_eni(id)?;
        let instance = self.resources.instance(&request.instance_id)?;
        let slot = slot_of(request)?;
        let ena_queue_count = queues(request.ena_queue_count, instance.instance_type)?;
        self.check_attach(eni, instance, slot)?;
        let attachment = Attachment {
            id: AttachmentId::from_number(0),
            instance_id: instance.id.clone(),
            instance_owner_id: instance.owner.clone(),
            device_index: slot.1,
            network_card_index: slot.0,
            status: AttachmentStatus::Attaching,
            attach_time: caller.now,
            delete_on_termination: false,
            ena_queue_count,
        };
        let attachment_id = AttachmentId::from_number(self.next_id());
        self.maybe_show_stale(caller, id);
        self.resources.attach(id, Attachment { id: attachment_id.clone(), ..attachment });
        let attached = self.config.latency.attach.sample(&mut self.rng);
        self.transitions
            .schedule(caller.now + attached, Transition::Attached(attachment_id.clone()));
        Ok(Response::Attached { attachment_id, network_card_index: slot.0 })
    }

    fn check_attach(&self, eni: &Eni, instance: &Instance, slot: Slot) -> Result<(), ApiError> {
        if eni.attachment().is_some() {
            let text = format!("Interface: [{}] in use.", eni.id);
            return Err(ApiError::new("InvalidNetworkInterface.InUse", text));
        }
        if instance.state != InstanceState::Running {
            let text = format!("Instance '{}' is not 'running'.", instance.id);
            return Err(ApiError::new("IncorrectState", text));
        }
        match eni.interface_type {
            InterfaceType::Efa | InterfaceType::EfaOnly => {
                let text = "EFA interfaces cannot be attached to a running instance.";
                return Err(ApiError::new("UnsupportedOperation", text));
            }
            InterfaceType::Interface | InterfaceType::Branch | InterfaceType::Trunk => {}
        }
        self.check_place(eni, instance)?;
        check_slot(instance, slot)?;
        check_carried(eni, instance)
    }

    pub(super) fn check_place(&self, eni: &Eni, instance: &Instance) -> Result<(), ApiError> {
        let here = self.resources.subnet_of(eni);
        let there = self.resources.subnet(&instance.subnet)?;
        let what = match () {
            () if here.vpc != there.vpc => "VPC",
            () if here.zone != there.zone => "availability zone",
            () => return Ok(()),
        };
        Err(ApiError::parameter_combination(format!(
            "You may not attach a network interface to an instance if they are not in the same \
             {what}"
        )))
    }

    pub(super) fn detach_network_interface(
        &mut self,
        caller: Caller<'_>,
        request: &DetachNetworkInterface,
    ) -> Result<Response, ApiError> {
        let id = &request.attachment_id;
        let eni = self.eni_of_attachment(id)?;
        self.check_detachable(eni)?;
        let eni = eni.id.clone();
        self.maybe_show_stale(caller, &eni);
        let was = self.begin_detach(&eni)?;
        if request.force || was != AttachmentStatus::Detaching {
            let detached = match request.force {
                true => caller.now,
                false => caller.now + self.config.latency.detach.sample(&mut self.rng),
            };
            self.transitions.schedule(detached, Transition::Detached(id.clone()));
        }
        Ok(Response::Done)
    }

    fn eni_of_attachment(&self, id: &AttachmentId) -> Result<&Eni, ApiError> {
        let eni = self.resources.attachments.get(id).ok_or_else(|| no_such_attachment(id))?;
        self.resources.eni(eni)
    }

    /// Sets the status to detaching and returns the previous one.
    fn begin_detach(&mut self, eni: &EniId) -> Result<AttachmentStatus, ApiError> {
        let attachment = self.resources.eni_mut(eni)?.attachment_mut();
        let attachment = attachment.expect("the attachment led to this ENI");
        Ok(std::mem::replace(&mut attachment.status, AttachmentStatus::Detaching))
    }

    /// Detaches an ENI at once.
    pub(super) fn detach_now(&mut self, eni: &EniId, now: SimTime) -> Result<(), ApiError> {
        let eni = self.resources.eni(eni)?;
        self.check_detachable(eni)?;
        let Some(attachment) = eni.attachment() else {
            let text = format!("Interface '{}' is not attached.", eni.id);
            return Err(ApiError::new("IncorrectState", text));
        };
        let id = attachment.id.clone();
        self.transitions.schedule(now, Transition::Detached(id));
        Ok(())
    }

    fn check_detachable(&self, eni: &Eni) -> Result<(), ApiError> {
        let Some(attachment) = eni.attachment().filter(|_| self.resources.is_primary(eni)) else {
            return Ok(());
        };
        let (card, device) = attachment.slot();
        let text = format!(
            "The network interface at device index {device} and networkCard index {card} cannot be \
             detached."
        );
        Err(ApiError::new("OperationNotPermitted", text))
    }
}

fn slot_of(request: &AttachNetworkInterface) -> Result<Slot, ApiError> {
    slot(request.network_card_index, request.device_index)
}

/// The number of ENA queues that a client names: a power of two within the limit of one ENI. EC2's
/// codes are not documented, and the model does not add up the queues of an instance.
pub(super) fn queues(
    count: Option<i32>,
    instance_type: &InstanceType,
) -> Result<Option<u16>, ApiError> {
    let Some(n) = count else { return Ok(None) };
    let Some(n_most) = instance_type.max_ena_queues() else {
        let text = format!("ENA queues cannot be configured on {}", instance_type.name);
        return Err(ApiError::new("UnsupportedOperation", text));
    };
    let valid = u16::try_from(n).ok().filter(|n| n.is_power_of_two() && u32::from(*n) <= n_most);
    let why = || {
        let why = format!("It must be a power of two up to {n_most} on {}.", instance_type.name);
        ApiError::invalid_value(&n.to_string(), "enaQueueCount", &why)
    };
    valid.map(Some).ok_or_else(why)
}

/// The slot that a client names.
pub(super) fn slot(card: i32, device: i32) -> Result<Slot, ApiError> {
    let check = |n: i32, parameter| {
        u16::try_from(n).map_err(|_| ApiError::invalid_value(&n.to_string(), parameter, ""))
    };
    Ok((check(card, "networkCardIndex")?, check(device, "deviceIndex")?))
}

/// Checks that the instance has this card, that the slot is free, and that the card has room.
pub(super) fn check_slot(instance: &Instance, slot: Slot) -> Result<(), ApiError> {
    let (card_index, device) = slot;
    let instance_type = instance.instance_type;
    let Some(card) = instance_type.cards.iter().find(|card| card.index == card_index) else {
        let why = format!("{} has no such network card.", instance_type.name);
        return Err(ApiError::invalid_value(&card_index.to_string(), "networkCardIndex", &why));
    };
    if instance.slots.contains_key(&slot) {
        return Err(ApiError::parameter_value(format!(
            "Instance '{}' already has an interface attached at device index '{device}'.",
            instance.id
        )));
    }
    let n = instance.slots.range((card_index, 0)..=(card_index, u16::MAX)).count() + 1;
    if n > usize::from(card.max_enis) {
        let text = format!("Interface count {n} exceeds the limit for {}", instance_type.name);
        return Err(ApiError::new("AttachmentLimitExceeded", text));
    }
    Ok(())
}

/// Checks that the instance type supports the ENI's addresses and prefixes. Only Nitro types run
/// without IPv4 (<https://docs.aws.amazon.com/vpc/latest/userguide/subnet-basics.html>); EC2's code
/// for others is not documented.
pub(super) fn check_carried(eni: &Eni, instance: &Instance) -> Result<(), ApiError> {
    let instance_type = instance.instance_type;
    let has_prefixes = !eni.v4.prefixes.is_empty() || !eni.v6.prefixes.is_empty();
    if has_prefixes && !instance_type.supports_prefixes() {
        let text = format!("IP prefixes are not supported on {}", instance_type.name);
        return Err(ApiError::new("UnsupportedOperation", text));
    }
    if eni.primary.is_none() && !instance_type.supports_prefixes() {
        let text = format!("IPv6-only subnets are not supported on {}", instance_type.name);
        return Err(ApiError::new("UnsupportedOperation", text));
    }
    let too_many = [
        (eni.n_slots::<V4>(), V4::limit(instance_type)),
        (eni.n_slots::<V6>(), V6::limit(instance_type)),
    ]
    .into_iter()
    .find(|(n, limit)| n > limit);
    let Some((n, _)) = too_many else { return Ok(()) };
    Err(ApiError::new(
        "InvalidInterface.IpAddressLimitExceeded",
        format!(
            "Address count {n} on interface-{} exceeds the limit for {}",
            eni.id.as_str().trim_start_matches("eni-"),
            instance_type.name
        ),
    ))
}

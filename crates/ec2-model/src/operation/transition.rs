//! Scheduled state changes, and changes behind the client's back.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::allocate::Holdings;
use crate::error::ApiError;
use crate::family::{V4, V6};
use crate::fault::Disturbance;
use crate::id::{AttachmentId, EniId, InstanceId, VpcCidrAssociationId, VpcId};
use crate::model::Model;
use crate::operation::address::not_assigned;
use crate::resources::EniState;
use crate::response::{AttachmentStatus, CidrState, InstanceState};
use crate::time::SimTime;
use crate::transition::Transition;

/// EC2 shows a terminated instance "for a short while (usually less than one hour)".
const TERMINATED_SHOWN: Duration = Duration::from_secs(3600);

impl Model {
    /// Applies one scheduled change, if its resource still exists.
    pub(crate) fn apply(&mut self, transition: Transition, at: SimTime) {
        match transition {
            Transition::EniAvailable(id) => self.become_available(&id),
            Transition::Attached(id) => self.finish_attach(&id, at),
            Transition::Detached(id) => self.finish_detach(&id, at),
            Transition::Associated(vpc, id) => self.finish_association(&vpc, &id),
            Transition::Disassociated(vpc, id) => self.finish_disassociation(&vpc, &id),
            Transition::Running(id) => {
                self.set_state(&id, InstanceState::Pending, InstanceState::Running)
            }
            Transition::Terminated(id) => self.finish_termination(&id, at),
            Transition::Forgotten(id) => drop(self.resources.instances.remove(&id)),
            Transition::ShowInterface(instance, eni) => {
                self.imds.show_interface(&instance, &eni, self.resources.enis.get(&eni));
            }
            Transition::ShowAddresses(instance, eni) => {
                if let Some(eni) = self.resources.enis.get(&eni) {
                    self.imds.show_addresses(&instance, eni);
                }
            }
        }
    }

    fn become_available(&mut self, id: &EniId) {
        if let Some(eni) = self.resources.enis.get_mut(id)
            && eni.state == EniState::Pending
        {
            eni.state = EniState::Available;
        }
    }

    fn finish_attach(&mut self, id: &AttachmentId, at: SimTime) {
        let Some(eni) = self.resources.attachments.get(id) else { return };
        let eni = self.resources.enis.get_mut(eni).expect("an attachment names an ENI");
        let attachment = eni.attachment_mut().expect("an attachment names an attached ENI");
        if attachment.status != AttachmentStatus::Attaching {
            return;
        }
        attachment.status = AttachmentStatus::Attached;
        let (instance, eni) = (attachment.instance_id.clone(), eni.id.clone());
        let shown = at + self.config.consistency.imds_interface.sample(&mut self.rng);
        self.transitions.schedule(shown, Transition::ShowInterface(instance, eni.clone()));
        self.show_addresses_later(shown, &eni);
    }

    fn finish_detach(&mut self, id: &AttachmentId, at: SimTime) {
        let Some(eni) = self.resources.attachments.get(id).cloned() else { return };
        if let Some(attachment) = self.resources.detach(&eni) {
            let hidden = at + self.config.consistency.imds_interface.sample(&mut self.rng);
            self.transitions
                .schedule(hidden, Transition::ShowInterface(attachment.instance_id, eni));
        }
    }

    fn finish_association(&mut self, vpc: &VpcId, id: &VpcCidrAssociationId) {
        let associations = self.resources.vpcs.get_mut(vpc).map(|vpc| vpc.associations.iter_mut());
        let association = associations.into_iter().flatten().find(|it| it.id == *id);
        if let Some(association) = association.filter(|it| it.state == CidrState::Associating) {
            association.state = CidrState::Associated;
        }
    }

    fn finish_disassociation(&mut self, vpc: &VpcId, id: &VpcCidrAssociationId) {
        if let Some(vpc) = self.resources.vpcs.get_mut(vpc) {
            vpc.associations.retain(|it| it.id != *id);
        }
    }

    fn set_state(&mut self, id: &InstanceId, from: InstanceState, to: InstanceState) {
        if let Some(instance) = self.resources.instances.get_mut(id)
            && instance.state == from
        {
            instance.state = to;
        }
    }

    /// Deletes the ENIs with `DeleteOnTermination`. The others become available.
    fn finish_termination(&mut self, id: &InstanceId, at: SimTime) {
        let Some(instance) = self.resources.instances.get_mut(id) else { return };
        instance.state = InstanceState::Terminated;
        let enis: Vec<EniId> = instance.slots.values().cloned().collect();
        for eni in enis {
            let attachment = self.resources.detach(&eni);
            if attachment.is_some_and(|attachment| attachment.delete_on_termination) {
                self.resources.delete_eni(&eni);
            }
        }
        self.imds.forget(id);
        self.transitions.schedule(at + TERMINATED_SHOWN, Transition::Forgotten(id.clone()));
    }

    /// Schedules IMDS to show the ENI's addresses and groups, if the ENI is attached.
    pub(super) fn show_addresses_later(&mut self, from: SimTime, id: &EniId) {
        let attachment = self.resources.enis.get(id).and_then(|eni| eni.attachment());
        let Some(instance) = attachment.map(|attachment| attachment.instance_id.clone()) else {
            return;
        };
        let shown = from + self.config.consistency.imds_addresses.sample(&mut self.rng);
        self.transitions.schedule(shown, Transition::ShowAddresses(instance, id.clone()));
    }

    /// Applies a change behind the client's back.
    ///
    /// # Errors
    /// The error of the call that would do the same. Then nothing has changed.
    pub fn disturb(&mut self, disturbance: Disturbance, now: SimTime) -> Result<(), ApiError> {
        self.advance(now);
        match disturbance {
            Disturbance::FreezeImds { instance } => {
                self.resources.instance(&instance)?;
                self.imds.freeze(&instance);
            }
            Disturbance::ThawImds { instance } => {
                self.imds.thaw(&instance);
                self.show_all(&instance)?;
            }
            Disturbance::DetachEni { eni } => self.detach_now(&eni, now)?,
            Disturbance::Unassign { eni, addresses, prefixes } => {
                let (v4, v6) = by_family(&addresses, &prefixes);
                let held = self.resources.eni(&eni)?;
                if !held.v4.contains(&v4) || !held.v6.contains(&v6) {
                    return Err(not_assigned(&eni));
                }
                self.drop_from(&eni, &v4)?;
                self.drop_from(&eni, &v6)?;
                self.show_addresses_later(now, &eni);
            }
        }
        self.advance(now);
        Ok(())
    }

    /// Makes IMDS show the current state of all ENIs of an instance.
    pub(super) fn show_all(&mut self, id: &InstanceId) -> Result<(), ApiError> {
        let instance = self.resources.instance(id)?;
        self.imds.show_all(id, self.resources.enis_of(instance));
        Ok(())
    }
}

fn by_family(addresses: &[IpAddr], prefixes: &[IpNet]) -> (Holdings<V4>, Holdings<V6>) {
    let (mut v4, mut v6) = (Holdings::default(), Holdings::default());
    for address in addresses {
        match address {
            IpAddr::V4(address) => v4.addresses.push(*address),
            IpAddr::V6(address) => v6.addresses.push(*address),
        }
    }
    for prefix in prefixes {
        match prefix {
            IpNet::V4(prefix) => v4.prefixes.push(*prefix),
            IpNet::V6(prefix) => v6.prefixes.push(*prefix),
        }
    }
    (v4, v6)
}

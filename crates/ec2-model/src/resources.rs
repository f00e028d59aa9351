//! All resources of the region, and lookup by id.
//!
//! This module keeps them consistent with each other. Whether a call may change them is decided in
//! `operation`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use instance_types::InstanceType;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mac::MacAddr;

use crate::address_space::{AddressSpace, Holder};
use crate::allocate::Holdings;
use crate::connection_tracking::ConnectionTracking;
use crate::error::ApiError;
use crate::family::{Family, V4, V6};
use crate::id::{
    AttachmentId, CidrReservationId, EniId, InstanceId, ReservationId, ResourceId, SecurityGroupId,
    SubnetId, VpcId,
};
use crate::launch_options::InstanceProfile;
use crate::metadata_options::MetadataOptions;
use crate::public_address::PublicAddresses;
use crate::request::InterfaceType;
use crate::response::{
    Attachment, AttachmentStatus, InstanceState, InterfaceStatus, SecurityGroup,
    SubnetCidrReservation, SubnetIpv6Association, Tags, Vpc,
};
use crate::routing::Target;
use crate::time::SimTime;

/// A subnet with its address space per family.
#[derive(Debug)]
pub(crate) struct Subnet {
    pub(crate) id: SubnetId,
    pub(crate) vpc: VpcId,
    pub(crate) owner: String,
    /// The zone's letter.
    pub(crate) zone: char,
    /// `None` in an IPv6-only subnet. Every subnet has a block of at least one family.
    pub(crate) v4: Option<(Ipv4Net, AddressSpace<V4>)>,
    pub(crate) v6: Option<(SubnetIpv6Association, AddressSpace<V6>)>,
    pub(crate) assign_ipv6_address_on_creation: bool,
    pub(crate) map_public_ip_on_launch: bool,
    /// All but the local ones.
    pub(crate) routes: BTreeMap<IpNet, Target>,
    pub(crate) tags: Tags,
}

impl Subnet {
    /// Its blocks, IPv4 first.
    pub(crate) fn cidrs(&self) -> impl Iterator<Item = IpNet> {
        [self.ipv4_cidr().map(IpNet::V4), self.ipv6_cidr().map(IpNet::V6)].into_iter().flatten()
    }

    pub(crate) fn ipv4_cidr(&self) -> Option<Ipv4Net> {
        self.v4.as_ref().map(|(cidr, _)| *cidr)
    }

    pub(crate) fn ipv6_cidr(&self) -> Option<Ipv6Net> {
        self.v6.as_ref().map(|(association, _)| association.cidr)
    }
}

/// The state of an ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EniState {
    Pending,
    Available,
    /// The attachment holds its own status: attaching, attached or detaching.
    Attached(Attachment),
}

impl EniState {
    pub(crate) fn status(&self) -> InterfaceStatus {
        match self {
            Self::Pending => InterfaceStatus::Pending,
            Self::Available => InterfaceStatus::Available,
            Self::Attached(attachment) => match attachment.status {
                AttachmentStatus::Attaching => InterfaceStatus::Attaching,
                AttachmentStatus::Attached => InterfaceStatus::InUse,
                AttachmentStatus::Detaching => InterfaceStatus::Detaching,
            },
        }
    }
}

/// A network interface.
#[derive(Debug, Clone)]
pub(crate) struct Eni {
    pub(crate) id: EniId,
    pub(crate) subnet: SubnetId,
    pub(crate) owner: String,
    pub(crate) mac: MacAddr,
    pub(crate) description: String,
    pub(crate) interface_type: InterfaceType,
    pub(crate) groups: Vec<SecurityGroupId>,
    pub(crate) source_dest_check: bool,
    pub(crate) tags: Tags,
    /// `None` in an IPv6-only subnet.
    pub(crate) primary: Option<Ipv4Addr>,
    /// Without the primary.
    pub(crate) v4: Holdings<V4>,
    pub(crate) v6: Holdings<V6>,
    /// One of `v6`, which then stays until the ENI is detached.
    pub(crate) primary_ipv6: Option<Ipv6Addr>,
    pub(crate) connection_tracking: Option<ConnectionTracking>,
    pub(crate) state: EniState,
}

impl Eni {
    /// Whether this is its primary address, or a secondary one.
    pub(crate) fn has_ipv4(&self, address: Ipv4Addr) -> bool {
        self.primary == Some(address) || self.v4.addresses.contains(&address)
    }

    pub(crate) fn attachment(&self) -> Option<&Attachment> {
        match &self.state {
            EniState::Attached(attachment) => Some(attachment),
            EniState::Pending | EniState::Available => None,
        }
    }

    pub(crate) fn attachment_mut(&mut self) -> Option<&mut Attachment> {
        match &mut self.state {
            EniState::Attached(attachment) => Some(attachment),
            EniState::Pending | EniState::Available => None,
        }
    }

    /// Whether the ENI is attached to `instance`, so that its device is there.
    pub(crate) fn is_on(&self, instance: &InstanceId) -> bool {
        self.attachment().is_some_and(|attachment| {
            attachment.instance_id == *instance && attachment.status == AttachmentStatus::Attached
        })
    }

    /// Slots of one family in use. The primary address, each other address and each prefix take
    /// one.
    pub(crate) fn n_slots<F: FamilyFields>(&self) -> usize {
        usize::from(F::primary(self).is_some()) + F::holdings(self).n_slots()
    }
}

/// A place for an ENI on an instance: network card, then device index.
pub(crate) type Slot = (u16, u16);

/// The slot of the primary ENI of every instance that RunInstances starts.
pub(crate) const PRIMARY: Slot = (0, 0);

/// An instance.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) id: InstanceId,
    pub(crate) reservation: ReservationId,
    pub(crate) owner: String,
    pub(crate) image_id: String,
    pub(crate) instance_type: &'static InstanceType,
    pub(crate) state: InstanceState,
    pub(crate) launch_time: SimTime,
    pub(crate) subnet: SubnetId,
    /// The slot of the primary ENI. On some managed instances it is not [`PRIMARY`].
    pub(crate) primary: Slot,
    /// ENIs that are attaching, attached or detaching, one per slot.
    pub(crate) slots: BTreeMap<Slot, EniId>,
    pub(crate) metadata_options: MetadataOptions,
    pub(crate) profile: Option<InstanceProfile>,
    pub(crate) user_data: Option<Vec<u8>>,
    pub(crate) tags: Tags,
    pub(crate) client_token: Option<String>,
}

impl Instance {
    /// `None` once the instance is terminated.
    pub(crate) fn primary_eni<'a>(&self, resources: &'a Resources) -> Option<&'a Eni> {
        resources.enis.get(self.slots.get(&self.primary)?)
    }
}

/// The fields of a subnet and an ENI that belong to one address family.
pub(crate) trait FamilyFields: Family {
    /// `None` if the subnet has no addresses of the family.
    fn space(subnet: &Subnet) -> Option<&AddressSpace<Self>>;
    fn space_mut(subnet: &mut Subnet) -> Option<&mut AddressSpace<Self>>;
    fn holdings(eni: &Eni) -> &Holdings<Self>;
    fn holdings_mut(eni: &mut Eni) -> &mut Holdings<Self>;
    /// The primary address, which the ENI keeps for its whole life.
    fn primary(eni: &Eni) -> Option<Self::Addr>;
    /// The address that cannot be unassigned now.
    fn fixed(eni: &Eni) -> Option<Self::Addr>;
    /// How many addresses and prefixes together one ENI of this instance type may have.
    fn limit(instance_type: &InstanceType) -> usize;
}

impl FamilyFields for V4 {
    fn space(subnet: &Subnet) -> Option<&AddressSpace<V4>> {
        subnet.v4.as_ref().map(|(_, space)| space)
    }

    fn space_mut(subnet: &mut Subnet) -> Option<&mut AddressSpace<V4>> {
        subnet.v4.as_mut().map(|(_, space)| space)
    }

    fn holdings(eni: &Eni) -> &Holdings<V4> {
        &eni.v4
    }

    fn holdings_mut(eni: &mut Eni) -> &mut Holdings<V4> {
        &mut eni.v4
    }

    fn primary(eni: &Eni) -> Option<Ipv4Addr> {
        eni.primary
    }

    fn fixed(eni: &Eni) -> Option<Ipv4Addr> {
        eni.primary
    }

    fn limit(instance_type: &InstanceType) -> usize {
        instance_type.ipv4_per_eni.into()
    }
}

impl FamilyFields for V6 {
    fn space(subnet: &Subnet) -> Option<&AddressSpace<V6>> {
        subnet.v6.as_ref().map(|(_, space)| space)
    }

    fn space_mut(subnet: &mut Subnet) -> Option<&mut AddressSpace<V6>> {
        subnet.v6.as_mut().map(|(_, space)| space)
    }

    fn holdings(eni: &Eni) -> &Holdings<V6> {
        &eni.v6
    }

    fn holdings_mut(eni: &mut Eni) -> &mut Holdings<V6> {
        &mut eni.v6
    }

    fn primary(_: &Eni) -> Option<Ipv6Addr> {
        None
    }

    fn fixed(eni: &Eni) -> Option<Ipv6Addr> {
        eni.primary_ipv6
    }

    /// EC2's number for IPv6. Where EC2 publishes none, the IPv4 number: all published pairs are
    /// equal.
    fn limit(instance_type: &InstanceType) -> usize {
        match instance_type.ipv6_supported {
            Some(false) => 0,
            Some(true) | None => {
                instance_type.ipv6_per_eni.unwrap_or(instance_type.ipv4_per_eni).into()
            }
        }
    }
}

/// DeleteSubnet refuses a subnet with ENIs, and forgets its terminated instances.
pub(crate) const OUTLIVES: &str = "a subnet outlives its ENIs and instances";

/// All resources of the region.
#[derive(Debug, Default)]
pub(crate) struct Resources {
    pub(crate) vpcs: BTreeMap<VpcId, Vpc>,
    pub(crate) subnets: BTreeMap<SubnetId, Subnet>,
    pub(crate) groups: BTreeMap<SecurityGroupId, SecurityGroup>,
    pub(crate) cidr_reservations: BTreeMap<CidrReservationId, SubnetCidrReservation>,
    pub(crate) enis: BTreeMap<EniId, Eni>,
    /// The ENI of each attachment.
    pub(crate) attachments: BTreeMap<AttachmentId, EniId>,
    pub(crate) instances: BTreeMap<InstanceId, Instance>,
    pub(crate) public: PublicAddresses,
}

impl Resources {
    pub(crate) fn vpc(&self, id: &VpcId) -> Result<&Vpc, ApiError> {
        self.vpcs.get(id).ok_or_else(|| no_such(&ResourceId::Vpc(id.clone())))
    }

    pub(crate) fn subnet(&self, id: &SubnetId) -> Result<&Subnet, ApiError> {
        self.subnets.get(id).ok_or_else(|| no_such(&ResourceId::Subnet(id.clone())))
    }

    pub(crate) fn group(&self, id: &SecurityGroupId) -> Result<&SecurityGroup, ApiError> {
        self.groups.get(id).ok_or_else(|| no_such(&ResourceId::SecurityGroup(id.clone())))
    }

    pub(crate) fn eni(&self, id: &EniId) -> Result<&Eni, ApiError> {
        self.enis.get(id).ok_or_else(|| no_such_eni(id))
    }

    pub(crate) fn eni_mut(&mut self, id: &EniId) -> Result<&mut Eni, ApiError> {
        self.enis.get_mut(id).ok_or_else(|| no_such_eni(id))
    }

    pub(crate) fn instance(&self, id: &InstanceId) -> Result<&Instance, ApiError> {
        self.instances.get(id).ok_or_else(|| no_such_instances(&[id]))
    }

    /// The subnet of an ENI. A subnet outlives its ENIs and instances.
    pub(crate) fn subnet_of(&self, eni: &Eni) -> &Subnet {
        self.subnets.get(&eni.subnet).expect(OUTLIVES)
    }

    pub(crate) fn subnet_mut(&mut self, id: &SubnetId) -> &mut Subnet {
        self.subnets.get_mut(id).expect(OUTLIVES)
    }

    /// The tags of any taggable resource of the region.
    pub(crate) fn tags_mut(&mut self, id: &ResourceId) -> Result<&mut Tags, ApiError> {
        let tags = match id {
            ResourceId::Instance(id) => self.instances.get_mut(id).map(|it| &mut it.tags),
            ResourceId::NetworkInterface(id) => self.enis.get_mut(id).map(|it| &mut it.tags),
            ResourceId::SecurityGroup(id) => self.groups.get_mut(id).map(|it| &mut it.tags),
            ResourceId::Subnet(id) => self.subnets.get_mut(id).map(|it| &mut it.tags),
            ResourceId::SubnetCidrReservation(id) => {
                self.cidr_reservations.get_mut(id).map(|it| &mut it.tags)
            }
            ResourceId::Vpc(id) => self.vpcs.get_mut(id).map(|it| &mut it.tags),
            ResourceId::Plan(_) => None,
        };
        tags.ok_or_else(|| no_such(id))
    }

    /// Whether the ENI is its instance's primary one.
    pub(crate) fn is_primary(&self, eni: &Eni) -> bool {
        eni.attachment().is_some_and(|attachment| {
            let instance = self.instances.get(&attachment.instance_id);
            instance.is_some_and(|instance| instance.primary == attachment.slot())
        })
    }

    /// The ENIs of an instance, by slot.
    pub(crate) fn enis_of<'a>(&'a self, instance: &'a Instance) -> impl Iterator<Item = &'a Eni> {
        let eni = |id| self.enis.get(id).expect("an ENI in a slot is not deleted");
        instance.slots.values().map(eni)
    }

    /// The ENI that has `address`, alone or in a prefix. VPCs may overlap; the first subnet with a
    /// holder counts.
    pub(crate) fn eni_with(&self, address: IpAddr) -> Option<&Eni> {
        let holder = |subnet: &Subnet| match address {
            IpAddr::V4(addr) => subnet.v4.as_ref()?.1.holder(addr).cloned(),
            IpAddr::V6(addr) => subnet.v6.as_ref()?.1.holder(addr).cloned(),
        };
        self.subnets.values().find_map(|subnet| match holder(subnet)? {
            Holder::Eni(id) => self.enis.get(&id),
            Holder::Other => None,
        })
    }

    /// Attaches an ENI. The caller has checked that the slot is free and the ENI unattached.
    pub(crate) fn attach(&mut self, eni: &EniId, attachment: Attachment) {
        let slot = attachment.slot();
        let instance = self.instances.get_mut(&attachment.instance_id);
        let slots = &mut instance.expect("the caller looked it up").slots;
        let before = slots.insert(slot, eni.clone());
        debug_assert_eq!(before, None, "{slot:?} was free");
        self.attachments.insert(attachment.id.clone(), eni.clone());
        self.enis.get_mut(eni).expect("the caller looked it up").state =
            EniState::Attached(attachment);
    }

    /// Detaches an ENI. Returns the attachment if there was one.
    pub(crate) fn detach(&mut self, eni: &EniId) -> Option<Attachment> {
        let eni = self.enis.get_mut(eni)?;
        let EniState::Attached(attachment) = std::mem::replace(&mut eni.state, EniState::Available)
        else {
            return None;
        };
        eni.primary_ipv6 = None;
        self.attachments.remove(&attachment.id);
        let slot = attachment.slot();
        if let Some(instance) = self.instances.get_mut(&attachment.instance_id) {
            instance.slots.remove(&slot);
        }
        Some(attachment)
    }

    /// Removes an unattached ENI and returns its addresses to the subnet.
    pub(crate) fn delete_eni(&mut self, id: &EniId) {
        let Some(eni) = self.enis.remove(id) else { return };
        let subnet = self.subnet_mut(&eni.subnet);
        if let Some((_, space)) = &mut subnet.v4 {
            if let Some(primary) = eni.primary {
                space.release_address(primary);
            }
            eni.v4.release(space);
        }
        if let Some((_, space)) = &mut subnet.v6 {
            eni.v6.release(space);
        }
        self.end_lost_associations();
    }

    /// Ends the public addresses of private ones that their ENI no longer has.
    pub(crate) fn end_lost_associations(&mut self) {
        let enis = &self.enis;
        self.public.end(|association| {
            let eni = enis.get(&association.eni);
            !eni.is_some_and(|eni| eni.has_ipv4(association.private))
        });
    }

    /// All CIDR blocks of a VPC, primary first, including those that are still associating.
    pub(crate) fn vpc_cidrs(&self, id: &VpcId) -> Vec<IpNet> {
        let associations = self.vpcs.get(id).map(|vpc| vpc.associations.as_slice());
        associations.unwrap_or_default().iter().map(|association| association.cidr).collect()
    }
}

/// The error for an unknown resource.
pub(crate) fn no_such(id: &ResourceId) -> ApiError {
    let (code, what) = match id {
        ResourceId::Instance(_) => ("InvalidInstanceID.NotFound", "instance ID"),
        ResourceId::NetworkInterface(_) => {
            ("InvalidNetworkInterfaceID.NotFound", "networkInterface ID")
        }
        ResourceId::SecurityGroup(_) => ("InvalidGroup.NotFound", "security group"),
        ResourceId::Subnet(_) => ("InvalidSubnetID.NotFound", "subnet ID"),
        ResourceId::SubnetCidrReservation(_) => {
            ("InvalidSubnetCidrReservationID.NotFound", "subnet CIDR reservation ID")
        }
        ResourceId::Vpc(_) => ("InvalidVpcID.NotFound", "vpc ID"),
        ResourceId::Plan(_) => ("InvalidID", "ID"),
    };
    ApiError::new(code, format!("The {what} '{id}' does not exist"))
}

pub(crate) fn no_such_eni(id: &EniId) -> ApiError {
    no_such(&ResourceId::NetworkInterface(id.clone()))
}

pub(crate) fn no_such_attachment(id: &AttachmentId) -> ApiError {
    let text = format!("The attachment ID '{id}' does not exist");
    ApiError::new("InvalidAttachmentID.NotFound", text)
}

/// The error for unknown instances. EC2 names all of them.
pub(crate) fn no_such_instances(ids: &[&InstanceId]) -> ApiError {
    if let [id] = ids {
        return no_such(&ResourceId::Instance((*id).clone()));
    }
    let ids: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
    let text = format!("The instance IDs '{}' do not exist", ids.join(", "));
    ApiError::new("InvalidInstanceID.NotFound", text)
}

//! A small fake EC2 with a memory: ENIs, limits, subnets with a finite supply, client tokens.
//!
//! It is not `ec2-model`: a test sets limits that no instance type has, says how many addresses a subnet has
//! left, and knows every id before it exists.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipam::block::{Block, BlockCount, BlockKind, Family};
use ipam::call::{
    AttachmentStatus, CallError, CallErrorKind, CallOutput, Ec2Call, EniAttachment, EniFacts,
    EniKind, SubnetFacts,
};
use ipam::connection_tracking::ConnectionTracking;
use ipam::id::{EniAttachmentId, EniId, SecurityGroupId, SubnetId};
use ipam::policy::Limits;
use ipnet::{IpNet, Ipv4Net};
use mac::MacAddr;

/// The ENI with which the instance was launched.
pub(crate) const PRIMARY: &str = "eni-0000";
/// The subnet of the first ENI.
pub(crate) const SUBNET: &str = "subnet-0";

pub(crate) fn eni_id(text: &str) -> EniId {
    EniId::try_from(text).unwrap()
}

pub(crate) fn subnet_id(text: &str) -> SubnetId {
    SubnetId::try_from(text).unwrap()
}

pub(crate) fn security_groups(names: &[&str]) -> BTreeSet<SecurityGroupId> {
    names.iter().map(|name| SecurityGroupId::try_from(*name).unwrap()).collect()
}

/// The failures that certainly had no effect.
pub(crate) const REFUSALS: [CallErrorKind; 12] = [
    CallErrorKind::Throttled,
    CallErrorKind::SubnetExhausted,
    CallErrorKind::SubnetFragmented,
    CallErrorKind::AddressLimit,
    CallErrorKind::EniLimit,
    CallErrorKind::DeviceIndexTaken,
    CallErrorKind::NotFound,
    CallErrorKind::InUse,
    CallErrorKind::AccessDenied,
    CallErrorKind::NoCredentials,
    CallErrorKind::Lasting,
    CallErrorKind::Rejected,
];

pub(crate) fn error(kind: CallErrorKind) -> CallError {
    CallError { kind, code: format!("{kind:?}"), message: "from the fake".to_owned() }
}

#[derive(Debug, Clone)]
pub(crate) struct Subnet {
    pub(crate) facts: SubnetFacts,
    /// Free single addresses.
    pub(crate) n_addresses: u16,
    /// Free IPv4 prefixes.
    pub(crate) n_prefixes: u16,
    /// Free IPv6 prefixes.
    pub(crate) n_ipv6: u16,
}

#[derive(Debug, Clone)]
pub(crate) struct Ec2 {
    pub(crate) enis: BTreeMap<EniId, EniFacts>,
    pub(crate) subnets: BTreeMap<SubnetId, Subnet>,
    /// The limits that EC2 enforces on the instance.
    pub(crate) limits: Limits,
    /// Every call so far.
    pub(crate) calls: Vec<Ec2Call>,
    /// The calls that are refused without effect, each with its kind of error.
    pub(crate) refuses: fn(&Ec2Call) -> Option<CallErrorKind>,
    tokens: BTreeMap<String, EniId>,
    n_made: u16,
}

impl Ec2 {
    pub(crate) fn new(limits: Limits) -> Self {
        let mut ec2 = Self {
            enis: BTreeMap::new(),
            subnets: BTreeMap::new(),
            limits,
            calls: Vec::new(),
            refuses: |_| None,
            tokens: BTreeMap::new(),
            n_made: 0,
        };
        ec2.add_subnet(SUBNET, 0, &[]);
        let primary = ec2.make_eni(&subnet_id(SUBNET), BTreeMap::new());
        ec2.attach_at(&primary, 0, true);
        ec2
    }

    pub(crate) fn add_subnet(&mut self, id: &str, third_byte: u8, tags: &[(&str, &str)]) {
        let facts = SubnetFacts {
            id: subnet_id(id),
            cidr: Ipv4Net::new(Ipv4Addr::new(10, third_byte, 0, 0), 16).unwrap().into(),
            free_addresses: Some(60_000),
            tags: tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        };
        let subnet = Subnet { facts, n_addresses: 10_000, n_prefixes: 2_000, n_ipv6: 2_000 };
        self.subnets.insert(subnet_id(id), subnet);
    }

    pub(crate) fn subnet(&mut self, id: &str) -> &mut Subnet {
        self.subnets.get_mut(&subnet_id(id)).unwrap()
    }

    /// Adds an ENI that somebody else has attached at `device_index`.
    pub(crate) fn attach_foreign(&mut self, device_index: u16, tags: &[(&str, &str)]) -> EniId {
        let tags = tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let eni = self.make_eni(&subnet_id(SUBNET), tags);
        self.attach_at(&eni, device_index, false);
        eni
    }

    /// Adds an ENI that is not attached.
    pub(crate) fn add_unattached_eni(&mut self, tags: &[(&str, &str)]) -> EniId {
        let tags = tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.make_eni(&subnet_id(SUBNET), tags)
    }

    pub(crate) fn n_attached(&self) -> usize {
        self.enis.values().filter(|eni| eni.attachment.is_some()).count()
    }

    /// Blocks on each attached ENI, by device index.
    pub(crate) fn n_blocks(&self) -> Vec<usize> {
        let mut enis: Vec<_> = self.enis.values().filter(|eni| eni.attachment.is_some()).collect();
        enis.sort_by_key(|eni| eni.attachment.as_ref().map(|a| a.device_index));
        enis.iter().map(|eni| eni.blocks.len()).collect()
    }

    /// Calls that change something.
    pub(crate) fn n_mutating(&self) -> usize {
        self.calls.iter().filter(|call| !call.reads()).count()
    }

    pub(crate) fn execute(&mut self, call: &Ec2Call) -> Result<CallOutput, CallError> {
        self.calls.push(call.clone());
        if let Some(kind) = (self.refuses)(call) {
            return Err(error(kind));
        }
        match call {
            Ec2Call::DescribeEnis => Ok(CallOutput::Enis(self.enis.values().cloned().collect())),
            // More than the filter asks for: the caller must judge.
            Ec2Call::DescribeUnattached { .. } => {
                let unattached = self.enis.values().filter(|eni| eni.attachment.is_none());
                Ok(CallOutput::Enis(unattached.cloned().collect()))
            }
            Ec2Call::DescribeSubnets => {
                Ok(CallOutput::Subnets(self.subnets.values().map(|s| s.facts.clone()).collect()))
            }
            Ec2Call::CreateEni {
                subnet,
                security_groups,
                connection_tracking,
                blocks,
                tags,
                client_token,
                ..
            } => {
                let wanted = (*blocks, security_groups, *connection_tracking);
                self.create(subnet, wanted, tags, client_token)
            }
            Ec2Call::AttachEni { eni, device_index } => self.attach(eni, *device_index),
            Ec2Call::SetDeleteOnTermination { eni, attachment } => {
                self.attachment_of(eni, attachment)?.delete_on_termination = true;
                Ok(CallOutput::Done)
            }
            Ec2Call::SetSecurityGroups { eni, security_groups } => {
                let eni = self.enis.get_mut(eni).ok_or_else(|| error(CallErrorKind::NotFound))?;
                eni.security_groups.clone_from(security_groups);
                Ok(CallOutput::Done)
            }
            Ec2Call::Assign { eni, blocks } => self.assign(eni, *blocks),
            Ec2Call::Unassign { eni, blocks } => {
                let eni = self.enis.get_mut(eni).ok_or_else(|| error(CallErrorKind::NotFound))?;
                if !blocks.is_subset(&eni.blocks) {
                    return Err(error(CallErrorKind::Rejected));
                }
                eni.blocks.retain(|block| !blocks.contains(block));
                let subnet = self.subnets.get_mut(&eni.subnet).unwrap();
                for block in blocks {
                    match block.kind() {
                        BlockKind::V4Address => subnet.n_addresses += 1,
                        BlockKind::V4Prefix => subnet.n_prefixes += 1,
                        BlockKind::V6Prefix => subnet.n_ipv6 += 1,
                    }
                }
                Ok(CallOutput::Done)
            }
            Ec2Call::DetachEni { eni, attachment } => {
                if self.attachment_of(eni, attachment)?.device_index == 0 {
                    return Err(error(CallErrorKind::Rejected));
                }
                self.enis.get_mut(eni).unwrap().attachment = None;
                Ok(CallOutput::Done)
            }
            Ec2Call::DeleteEni { eni } => match self.enis.get(eni) {
                None => Err(error(CallErrorKind::NotFound)),
                Some(found) if found.attachment.is_some() => Err(error(CallErrorKind::InUse)),
                Some(_) => {
                    self.enis.remove(eni);
                    Ok(CallOutput::Done)
                }
            },
        }
    }

    fn create(
        &mut self,
        subnet: &SubnetId,
        (blocks, groups, tracking): (BlockCount, &BTreeSet<SecurityGroupId>, ConnectionTracking),
        tags: &BTreeMap<String, String>,
        token: &str,
    ) -> Result<CallOutput, CallError> {
        let known = self.tokens.get(token).and_then(|id| self.enis.get(id));
        if let Some(eni) = known {
            return Ok(CallOutput::Created(eni.clone()));
        }
        let blocks = self.supply(subnet, blocks)?;
        let eni = self.make_eni(subnet, tags.clone());
        self.tokens.insert(token.to_owned(), eni.clone());
        let found = self.enis.get_mut(&eni).unwrap();
        found.blocks = blocks;
        found.security_groups.clone_from(groups);
        found.connection_tracking = tracking;
        Ok(CallOutput::Created(found.clone()))
    }

    fn attach(&mut self, eni: &EniId, device_index: u16) -> Result<CallOutput, CallError> {
        let found = self.enis.get(eni).ok_or_else(|| error(CallErrorKind::NotFound))?;
        if found.attachment.is_some() {
            return Err(error(CallErrorKind::InUse));
        }
        if n_of_family(found, Family::V4) > usize::from(self.limits.blocks_per_eni()) {
            return Err(error(CallErrorKind::AddressLimit));
        }
        // Each network card has indexes and a limit of its own.
        let on_card = self.enis.values().filter_map(|eni| eni.attachment.as_ref());
        let on_card: Vec<_> = on_card.filter(|place| place.network_card == 0).collect();
        if on_card.iter().any(|place| place.device_index == device_index) {
            return Err(error(CallErrorKind::DeviceIndexTaken));
        }
        if on_card.len() >= usize::from(self.limits.enis) {
            return Err(error(CallErrorKind::EniLimit));
        }
        Ok(CallOutput::Attached(self.attach_at(eni, device_index, false)))
    }

    fn assign(&mut self, eni: &EniId, blocks: BlockCount) -> Result<CallOutput, CallError> {
        let found = self.enis.get(eni).ok_or_else(|| error(CallErrorKind::NotFound))?;
        let carried = n_of_family(found, blocks.kind.family());
        if carried + usize::from(blocks.n) > usize::from(self.limits.blocks_per_eni()) {
            return Err(error(CallErrorKind::AddressLimit));
        }
        let subnet = found.subnet.clone();
        let blocks = self.supply(&subnet, blocks)?;
        self.enis.get_mut(eni).unwrap().blocks.extend(&blocks);
        Ok(CallOutput::Assigned(blocks))
    }

    /// All requested blocks or none. The lowest free blocks come first, so that blocks that were given back
    /// come again.
    fn supply(&mut self, id: &SubnetId, count: BlockCount) -> Result<BTreeSet<Block>, CallError> {
        let taken: BTreeSet<Block> =
            self.enis.values().flat_map(|eni| eni.blocks.iter().copied()).collect();
        let subnet = self.subnets.get_mut(id).ok_or_else(|| error(CallErrorKind::Rejected))?;
        let base = base(&subnet.facts);
        let (left, kind, len, first) = match count.kind {
            BlockKind::V4Address => {
                (&mut subnet.n_addresses, CallErrorKind::SubnetExhausted, 32, 16)
            }
            BlockKind::V4Prefix => {
                (&mut subnet.n_prefixes, CallErrorKind::SubnetFragmented, 28, 32_768)
            }
            BlockKind::V6Prefix => {
                let left = subnet.n_ipv6.checked_sub(count.n);
                subnet.n_ipv6 = left.ok_or_else(|| error(CallErrorKind::SubnetFragmented))?;
                let all = (0..).map(|n: u128| Ipv6Addr::from((0xfd << 120) + (n << 48)));
                let all =
                    all.map(|ip| Block::try_from(IpNet::new(ip.into(), 80).unwrap()).unwrap());
                return Ok(all
                    .filter(|block| !taken.contains(block))
                    .take(count.n.into())
                    .collect());
            }
        };
        *left = left.checked_sub(count.n).ok_or_else(|| error(kind))?;
        let step = 1 << (32 - len);
        let all = (0..).map(|n| Ipv4Addr::from(base + first + n * step));
        let blocks = all.map(|ip| Block::try_from(IpNet::new(ip.into(), len).unwrap()).unwrap());
        Ok(blocks.filter(|block| !taken.contains(block)).take(usize::from(count.n)).collect())
    }

    fn make_eni(&mut self, subnet: &SubnetId, tags: BTreeMap<String, String>) -> EniId {
        let n = self.n_made;
        self.n_made += 1;
        let id = eni_id(&format!("eni-{n:04}"));
        let base = base(&self.subnets[subnet].facts);
        let facts = EniFacts {
            id: id.clone(),
            mac: mac_of(n),
            subnet: subnet.clone(),
            security_groups: security_groups(&["sg-1"]),
            connection_tracking: ConnectionTracking::default(),
            primary_address: Ipv4Addr::from(base + 65_000 - u32::from(n)).into(),
            blocks: BTreeSet::new(),
            kind: EniKind::Interface,
            attachment: None,
            tags,
        };
        self.enis.insert(id.clone(), facts);
        id
    }

    fn attach_at(
        &mut self,
        eni: &EniId,
        device_index: u16,
        delete_on_termination: bool,
    ) -> EniAttachmentId {
        let id =
            EniAttachmentId::try_from(format!("eni-attach-{}-{device_index}", self.calls.len()))
                .unwrap();
        self.enis.get_mut(eni).unwrap().attachment = Some(EniAttachment {
            id: id.clone(),
            device_index,
            network_card: 0,
            status: AttachmentStatus::Attached,
            delete_on_termination,
        });
        id
    }

    fn attachment_of(
        &mut self,
        eni: &EniId,
        attachment: &EniAttachmentId,
    ) -> Result<&mut EniAttachment, CallError> {
        let eni = self.enis.get_mut(eni);
        let found = eni.and_then(|eni| eni.attachment.as_mut());
        found.filter(|found| found.id == *attachment).ok_or_else(|| error(CallErrorKind::NotFound))
    }
}

/// Each family has a limit of its own.
fn n_of_family(eni: &EniFacts, family: Family) -> usize {
    eni.blocks.iter().filter(|block| block.family() == family).count()
}

/// The hardware address of the ENI that was made as the `n`th; the primary ENI is the first, 0.
pub(crate) fn mac_of(n: u16) -> MacAddr {
    let [high, low] = n.to_be_bytes();
    MacAddr::from([2, 0, 0, 0, high, low])
}

/// The first address of the subnet. It does not matter in a subnet without IPv4, where only prefixes are assigned.
fn base(subnet: &SubnetFacts) -> u32 {
    match subnet.cidr {
        IpNet::V4(range) => range.network().into(),
        IpNet::V6(_) => 0,
    }
}

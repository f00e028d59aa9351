//! An EC2 with one endless subnet that carries out every sensible call. It enforces no limit: the engine's
//! own tests show that it keeps to the limits.
//!
//! It is not `ec2-model`, since this crate knows no other and forecasts for types that nobody knows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, Ipv6Net};
use mac::MacAddr;

use crate::block::{Block, BlockCount, BlockKind, IPV4_PREFIX_LEN, IPV6_PREFIX_LEN};
use crate::call::{
    AttachmentStatus, CallError, CallErrorKind, CallOutput, Ec2Call, EniAttachment, EniFacts,
    EniKind, SubnetFacts,
};
use crate::connection_tracking::ConnectionTracking;
use crate::eni_config::EniConfig;
use crate::id::{EniAttachmentId, EniId, SubnetId};

/// 10.0.0.0/8, in three parts: prefixes from its start, then single addresses, then primary ones.
const PREFIXES: u32 = 10 << 24;
const SINGLES: u32 = PREFIXES + (1 << 22);
const PRIMARIES: u32 = PREFIXES + (1 << 23);
/// fd00::/8.
const IPV6_PREFIXES: u128 = 0xfd << 120;

/// The ENIs by id, and how much of each part is used up. No address is assigned twice.
pub(super) struct Ec2 {
    enis: BTreeMap<EniId, EniFacts>,
    n_enis: u32,
    n_prefixes: u32,
    n_singles: u32,
}

fn subnet() -> SubnetId {
    SubnetId::try_from("subnet-0").expect("it has the prefix of its kind")
}

/// An ENIConfig that names the subnet.
pub(super) fn eni_config() -> EniConfig {
    let name = "default".to_owned();
    let (subnet_tags, groups) = Default::default();
    EniConfig { name, subnets: BTreeSet::from([subnet()]), subnet_tags, groups }
}

impl Ec2 {
    /// An instance with an empty primary ENI.
    pub(super) fn new() -> Self {
        let mut ec2 = Self { enis: BTreeMap::new(), n_enis: 0, n_prefixes: 0, n_singles: 0 };
        let primary = ec2.make(BlockKind::V4Address.times(0), BTreeMap::new());
        let attachment = Some(attachment(&primary.id, 0));
        ec2.enis.insert(primary.id.clone(), EniFacts { attachment, ..primary });
        ec2
    }

    pub(super) fn execute(&mut self, call: Ec2Call) -> Result<CallOutput, CallError> {
        match call {
            Ec2Call::DescribeEnis => Ok(CallOutput::Enis(self.enis.values().cloned().collect())),
            Ec2Call::DescribeUnattached { .. } => Ok(CallOutput::Enis(Vec::new())),
            Ec2Call::DescribeSubnets => Ok(CallOutput::Subnets(vec![subnet_facts()])),
            Ec2Call::CreateEni { blocks, tags, .. } => {
                Ok(CallOutput::Created(self.make(blocks, tags)))
            }
            Ec2Call::AttachEni { eni, device_index } => {
                let attachment = attachment(&eni, device_index);
                let id = attachment.id.clone();
                self.eni(&eni)?.attachment = Some(attachment);
                Ok(CallOutput::Attached(id))
            }
            Ec2Call::SetDeleteOnTermination { eni, .. } => {
                if let Some(attachment) = &mut self.eni(&eni)?.attachment {
                    attachment.delete_on_termination = true;
                }
                Ok(CallOutput::Done)
            }
            Ec2Call::Assign { eni, blocks } => {
                let blocks = self.supply(blocks);
                self.eni(&eni)?.blocks.extend(&blocks);
                Ok(CallOutput::Assigned(blocks))
            }
            Ec2Call::Unassign { eni, blocks } => {
                self.eni(&eni)?.blocks.retain(|block| !blocks.contains(block));
                Ok(CallOutput::Done)
            }
            Ec2Call::DetachEni { eni, .. } => {
                self.eni(&eni)?.attachment = None;
                Ok(CallOutput::Done)
            }
            Ec2Call::DeleteEni { eni } => {
                self.enis.remove(&eni);
                Ok(CallOutput::Done)
            }
            Ec2Call::SetSecurityGroups { eni, security_groups } => {
                self.eni(&eni)?.security_groups = security_groups;
                Ok(CallOutput::Done)
            }
        }
    }

    /// The number of addresses for pods on all ENIs.
    pub(super) fn n_addresses(&self) -> u64 {
        self.enis.values().flat_map(|eni| &eni.blocks).map(|block| block.size()).sum()
    }

    fn eni(&mut self, id: &EniId) -> Result<&mut EniFacts, CallError> {
        self.enis.get_mut(id).ok_or_else(|| CallError {
            kind: CallErrorKind::NotFound,
            code: "InvalidNetworkInterfaceID.NotFound".to_owned(),
            message: format!("there is no {id}"),
        })
    }

    fn make(&mut self, count: BlockCount, tags: BTreeMap<String, String>) -> EniFacts {
        let number = next(&mut self.n_enis);
        let facts = EniFacts {
            id: EniId::try_from(format!("eni-{number:06}")).expect("it has the prefix of its kind"),
            mac: mac_of(number),
            subnet: subnet(),
            security_groups: BTreeSet::new(),
            connection_tracking: ConnectionTracking::default(),
            primary_address: Ipv4Addr::from(PRIMARIES + number).into(),
            blocks: self.supply(count),
            kind: EniKind::Interface,
            attachment: None,
            tags,
        };
        self.enis.insert(facts.id.clone(), facts.clone());
        facts
    }

    fn supply(&mut self, count: BlockCount) -> BTreeSet<Block> {
        let block = |_| match count.kind {
            BlockKind::V4Address => Block::address(address(SINGLES + next(&mut self.n_singles))),
            BlockKind::V4Prefix => prefix(PREFIXES + 16 * next(&mut self.n_prefixes)),
            BlockKind::V6Prefix => ipv6_prefix(next(&mut self.n_prefixes)),
        };
        (0..count.n).map(block).collect()
    }
}

fn next(counter: &mut u32) -> u32 {
    let number = *counter;
    *counter += 1;
    number
}

/// The hardware address of the ENI that was made as the `number`th; the primary ENI is the first, 0.
pub(super) fn mac_of(number: u32) -> MacAddr {
    let [_, high, middle, low] = number.to_be_bytes();
    MacAddr::from([2, 0, 0, high, middle, low])
}

fn address(bits: u32) -> Ipv4Addr {
    Ipv4Addr::from(bits)
}

fn prefix(bits: u32) -> Block {
    let net = Ipv4Net::new_assert(bits.into(), IPV4_PREFIX_LEN);
    Block::try_from(net).expect("multiples of 16 are aligned")
}

fn ipv6_prefix(number: u32) -> Block {
    let bits = IPV6_PREFIXES + (u128::from(number) << (128 - IPV6_PREFIX_LEN));
    let net = Ipv6Net::new_assert(bits.into(), IPV6_PREFIX_LEN);
    Block::try_from(net).expect("multiples of 2^48 are aligned")
}

fn attachment(eni: &EniId, device_index: u16) -> EniAttachment {
    let id = EniAttachmentId::try_from(format!("eni-attach-{eni}"));
    EniAttachment {
        id: id.expect("it has the prefix of its kind"),
        device_index,
        network_card: 0,
        status: AttachmentStatus::Attached,
        delete_on_termination: device_index == 0,
    }
}

fn subnet_facts() -> SubnetFacts {
    SubnetFacts {
        id: subnet(),
        cidr: Ipv4Net::new_assert(PREFIXES.into(), 8).into(),
        // The free addresses of the largest possible subnet, a /16, when it is empty.
        free_addresses: Some(65_531),
        tags: BTreeMap::new(),
    }
}

//! Answers in place of EC2: the describes, as far as the metadata service can answer them. It shows what is attached to this
//! instance, without tags, without the kind of an ENI, and without what is left in a subnet.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipam::block::{Block, BlockKind};
use ipam::call::{
    AttachmentStatus, CallError, CallErrorKind, CallOutput, Ec2Call, EniAttachment, EniFacts,
    EniKind, SubnetFacts,
};
use ipam::connection_tracking::ConnectionTracking;
use ipam::id::{EniAttachmentId, EniId, SubnetId};
use ipnet::{IpNet, Ipv6Net};
use mac::MacAddr;

use super::{Imds, ImdsError, MACS, ShownEni, id, malformed, parse, subnet_range};

impl Imds {
    /// Answers [`Ec2Call::DescribeEnis`] with the attached ENIs and [`Ec2Call::DescribeSubnets`] with their subnets.
    ///
    /// # Errors
    /// If the service does not answer, or if the call is any other.
    pub async fn describe(&self, call: &Ec2Call) -> Result<CallOutput, CallError> {
        match call {
            Ec2Call::DescribeEnis => self.eni_facts().await.map(CallOutput::Enis).map_err(away),
            Ec2Call::DescribeSubnets => {
                self.subnet_facts().await.map(CallOutput::Subnets).map_err(away)
            }
            Ec2Call::DescribeUnattached { .. }
            | Ec2Call::CreateEni { .. }
            | Ec2Call::AttachEni { .. }
            | Ec2Call::SetDeleteOnTermination { .. }
            | Ec2Call::Assign { .. }
            | Ec2Call::Unassign { .. }
            | Ec2Call::DetachEni { .. }
            | Ec2Call::DeleteEni { .. }
            | Ec2Call::SetSecurityGroups { .. } => Err(CallError {
                kind: CallErrorKind::Rejected,
                code: "MetadataOnly".to_owned(),
                message: "the metadata service stands in for EC2, and changes nothing".to_owned(),
            }),
        }
    }

    async fn eni_facts(&self) -> Result<Vec<EniFacts>, ImdsError> {
        let mut facts = Vec::new();
        for shown in self.enis().await? {
            let subnet = self.subnet_of(shown.mac).await?;
            let own_ipv6 = self.own_ipv6(shown.mac).await?;
            let attachment = attachment_id(&shown.id);
            let attachment =
                attachment.map_err(|it| malformed(MACS, shown.id.as_str(), it.to_string()))?;
            facts.push(eni_facts(shown, subnet, own_ipv6, attachment));
        }
        Ok(facts)
    }

    async fn subnet_facts(&self) -> Result<Vec<SubnetFacts>, ImdsError> {
        let macs: Vec<MacAddr> = self.macs().await?;
        let mut ranges = BTreeMap::new();
        for mac in macs {
            let subnet = self.subnet_of(mac).await?;
            if let Some(range) = self.range_of_subnet(mac).await? {
                ranges.insert(subnet, range);
            }
        }
        let facts =
            |(id, cidr)| SubnetFacts { id, cidr, free_addresses: None, tags: BTreeMap::new() };
        Ok(ranges.into_iter().map(facts).collect())
    }

    async fn subnet_of(&self, mac: MacAddr) -> Result<SubnetId, ImdsError> {
        self.value(&format!("{MACS}/{mac}/subnet-id"), id).await
    }

    /// The ENI's first IPv6 address; `None` if it has none.
    async fn own_ipv6(&self, mac: MacAddr) -> Result<Option<Ipv6Addr>, ImdsError> {
        let path = format!("{MACS}/{mac}/ipv6s");
        let text = self.if_there(&path).await?.unwrap_or_default();
        let first = text.lines().next().map(|line| parse(line.trim()));
        first.transpose().map_err(|problem| malformed(&path, &text, problem))
    }

    /// The subnet's IPv4 range, or the IPv6 range of a subnet without IPv4; `None` if it has no range yet.
    async fn range_of_subnet(&self, mac: MacAddr) -> Result<Option<IpNet>, ImdsError> {
        let at = |key: &str| format!("{MACS}/{mac}/{key}");
        let (v4, v6) = (at("subnet-ipv4-cidr-block"), at("subnet-ipv6-cidr-blocks"));
        if let Some(text) = self.if_there(&v4).await? {
            let range = subnet_range(&text).map_err(|problem| malformed(&v4, &text, problem))?;
            return Ok(Some(range.into()));
        }
        let text = self.if_there(&v6).await?.unwrap_or_default();
        let first = text.lines().next().map(|line| parse::<Ipv6Net>(line.trim()));
        let first = first.transpose().map_err(|problem| malformed(&v6, &text, problem))?;
        Ok(first.map(IpNet::from))
    }
}

/// The facts about an attached ENI. Its first single IPv4 address is its own.
/// Source: amazon-vpc-cni-k8s v1.23.1, `pkg/awsutils/awsutils.go`.
fn eni_facts(
    shown: ShownEni,
    subnet: SubnetId,
    own_ipv6: Option<Ipv6Addr>,
    attachment: EniAttachmentId,
) -> EniFacts {
    let ShownEni { id, mac, device_index, network_card, blocks, security_groups } = shown;
    let own = blocks.iter().copied().find(|block| block.kind() == BlockKind::V4Address);
    let is_others = |block: &Block| Some(*block) != own;
    let blocks: BTreeSet<_> = blocks.into_iter().filter(is_others).collect();
    EniFacts {
        id,
        mac,
        subnet,
        security_groups,
        connection_tracking: ConnectionTracking::default(),
        primary_address: match own {
            Some(own) => own.bounds().0,
            None => own_ipv6.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6),
        },
        blocks,
        // The service shows no kind. As EC2's own answers: without IPv4 it is of no use to pods on IPv4.
        kind: if own.is_some() { EniKind::Interface } else { EniKind::Other },
        attachment: Some(EniAttachment {
            id: attachment,
            device_index,
            network_card,
            status: AttachmentStatus::Attached,
            // Nobody may mark it, so nobody asks.
            delete_on_termination: true,
        }),
        tags: BTreeMap::new(),
    }
}

/// The service does not show the attachment's id, and only calls that change something need it. This one stands for it: each
/// ENI has one of its own.
fn attachment_id(eni: &EniId) -> Result<EniAttachmentId, impl std::fmt::Display> {
    let digits = eni.as_str().trim_start_matches("eni-");
    EniAttachmentId::try_from(&*format!("eni-attach-{digits}"))
}

/// The service has not answered, and may do so later.
fn away(fault: ImdsError) -> CallError {
    let mut message = fault.to_string();
    let mut next = fault.source();
    while let Some(cause) = next {
        message = format!("{message}: {cause}");
        next = cause.source();
    }
    CallError { kind: CallErrorKind::OutcomeUnknown, code: "MetadataAway".to_owned(), message }
}

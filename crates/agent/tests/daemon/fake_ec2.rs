//! An EC2 for one instance, in memory. It outlives the daemons that use it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use agent::Inlet;
use ipam::block::Block;
use ipam::call::{
    Ask, AttachmentStatus, CallError, CallErrorKind, CallId, CallOutput, Ec2Call, EniAttachment,
    EniFacts, EniKind, SubnetFacts,
};
use ipam::event::Event;
use ipam::id::{EniAttachmentId, EniId, SecurityGroupId, SubnetId};
use tokio::sync::{mpsc, watch};

/// A handle; clones are the same EC2.
#[derive(Clone)]
pub(crate) struct FakeEc2 {
    state: Arc<Mutex<State>>,
    answers: Arc<watch::Sender<bool>>,
}

struct State {
    enis: BTreeMap<EniId, EniFacts>,
    next: u32,
    n_calls: BTreeMap<&'static str, usize>,
}

impl FakeEc2 {
    /// An instance with its primary ENI and nothing else.
    pub(crate) fn new() -> Self {
        let primary = EniFacts {
            attachment: Some(attachment(0)),
            primary_address: Ipv4Addr::new(10, 0, 0, 10),
            ..eni(0, BTreeMap::new())
        };
        let enis = BTreeMap::from([(primary.id.clone(), primary)]);
        let state = State { enis, next: 1, n_calls: BTreeMap::new() };
        Self { state: Arc::new(Mutex::new(state)), answers: Arc::new(watch::Sender::new(true)) }
    }

    /// Whether calls are answered; those that are not wait until it is switched on again.
    pub(crate) fn answers(&self, answers: bool) {
        self.answers.send_replace(answers);
    }

    /// How many calls of this kind have had their effect.
    pub(crate) fn n_calls(&self, kind: &str) -> usize {
        self.state.lock().unwrap().n_calls.get(kind).copied().unwrap_or_default()
    }

    /// Every address that EC2 has assigned for pods.
    pub(crate) fn secondary_addresses(&self) -> BTreeSet<String> {
        let state = self.state.lock().unwrap();
        let blocks = state.enis.values().flat_map(|eni| eni.blocks.iter());
        blocks
            .flat_map(|block| block.addresses_from(0))
            .map(|address| address.to_string())
            .collect()
    }

    /// Carries out calls until their sender is gone, each in a task of its own.
    pub(crate) async fn serve(
        self,
        mut calls: mpsc::UnboundedReceiver<(CallId, Ec2Call)>,
        inlet: Inlet,
    ) {
        while let Some((id, call)) = calls.recv().await {
            let (ec2, inlet, mut answers) = (self.clone(), inlet.clone(), self.answers.subscribe());
            tokio::spawn(async move {
                answers.wait_for(|answers| *answers).await.unwrap();
                inlet.send(Event::CallDone {
                    id,
                    result: ec2.state.lock().unwrap().carry_out(call),
                });
            });
        }
    }
}

impl State {
    fn carry_out(&mut self, call: Ec2Call) -> Result<CallOutput, CallError> {
        *self.n_calls.entry(kind(&call)).or_default() += 1;
        match call {
            Ec2Call::DescribeEnis => Ok(CallOutput::Enis(self.enis.values().cloned().collect())),
            Ec2Call::DescribeUnattached { .. } => Ok(CallOutput::Enis(Vec::new())),
            Ec2Call::DescribeSubnets => Ok(CallOutput::Subnets(vec![subnet()])),
            Ec2Call::CreateEni { ask, tags, .. } => {
                let n = self.number();
                let mut eni = eni(n, tags);
                eni.blocks = self.blocks(ask);
                self.enis.insert(eni.id.clone(), eni.clone());
                Ok(CallOutput::Created(eni))
            }
            Ec2Call::AttachEni { eni, device_index } => {
                let attachment = attachment(device_index);
                self.eni(&eni)?.attachment = Some(attachment.clone());
                Ok(CallOutput::Attached(attachment.id))
            }
            Ec2Call::SetDeleteOnTermination { .. } => Ok(CallOutput::Done),
            Ec2Call::Assign { eni, ask } => {
                let blocks = self.blocks(ask);
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
        }
    }

    fn eni(&mut self, id: &EniId) -> Result<&mut EniFacts, CallError> {
        self.enis.get_mut(id).ok_or_else(|| CallError {
            kind: CallErrorKind::NotFound,
            code: "InvalidNetworkInterfaceID.NotFound".to_owned(),
            message: id.to_string(),
        })
    }

    fn blocks(&mut self, ask: Ask) -> BTreeSet<Block> {
        assert!(matches!(ask, Ask::Addresses(_)), "these tests use single addresses");
        let address = |n: u32| Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 1, 0)) + n);
        (0..ask.count()).map(|_| Block::address(address(self.number()).into())).collect()
    }

    fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }
}

fn kind(call: &Ec2Call) -> &'static str {
    match call {
        Ec2Call::DescribeEnis => "describe-enis",
        Ec2Call::DescribeUnattached { .. } => "describe-unattached",
        Ec2Call::DescribeSubnets => "describe-subnets",
        Ec2Call::CreateEni { .. } => "create-eni",
        Ec2Call::AttachEni { .. } => "attach-eni",
        Ec2Call::SetDeleteOnTermination { .. } => "set-delete-on-termination",
        Ec2Call::Assign { .. } => "assign",
        Ec2Call::Unassign { .. } => "unassign",
        Ec2Call::DetachEni { .. } => "detach-eni",
        Ec2Call::DeleteEni { .. } => "delete-eni",
    }
}

pub(crate) fn subnet_id() -> SubnetId {
    SubnetId::try_from("subnet-a").unwrap()
}

fn subnet() -> SubnetFacts {
    SubnetFacts {
        id: subnet_id(),
        cidr: "10.0.0.0/16".parse().unwrap(),
        free_addresses: 60_000,
        tags: BTreeMap::new(),
    }
}

fn eni(n: u32, tags: BTreeMap<String, String>) -> EniFacts {
    EniFacts {
        id: EniId::try_from(format!("eni-{n:04x}")).unwrap(),
        mac: format!("02:00:00:00:{:02x}:{:02x}", n / 256, n % 256),
        subnet: subnet_id(),
        security_groups: BTreeSet::from([SecurityGroupId::try_from("sg-a").unwrap()]),
        primary_address: Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 100, 0)) + n),
        blocks: BTreeSet::new(),
        kind: EniKind::Interface,
        attachment: None,
        tags,
    }
}

fn attachment(device_index: u16) -> EniAttachment {
    EniAttachment {
        id: EniAttachmentId::try_from(format!("eni-attach-{device_index}")).unwrap(),
        device_index,
        network_card: 0,
        status: AttachmentStatus::Attached,
        delete_on_termination: true,
    }
}

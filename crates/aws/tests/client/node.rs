//! A node for the tests: an instance, its client, and a method for each call.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws::{ConnectOptions, Ec2};
use ipam::block::{Block, BlockCount};
use ipam::call::{
    AttachmentStatus, CallError, CallOutput, Ec2Call, EniFacts, INSTANCE_TAG, SubnetFacts,
};
use ipam::connection_tracking::ConnectionTracking;
use ipam::id::{EniAttachmentId, EniId, SubnetId};

use super::servers::{Site, ZONE};
use super::wire::{options, tags};

/// How long EC2 may take to reach a state.
const PATIENCE: Duration = Duration::from_secs(60);

/// An instance and its client.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) site: Arc<Site>,
    pub(crate) ec2: Ec2,
    pub(crate) instance: String,
}

/// One for each instance of the site.
pub(crate) async fn nodes(site: &Arc<Site>) -> Vec<Node> {
    let mut nodes = Vec::new();
    for instance in &site.instances {
        let options = ConnectOptions {
            instance: instance.clone(),
            vpc: site.vpc.clone(),
            availability_zone: ZONE.to_owned(),
            ..options(&site.endpoint)
        };
        let ec2 = Ec2::connect(options).await.expect("the server's address is a URL");
        nodes.push(Node { site: Arc::clone(site), ec2, instance: instance.to_string() });
    }
    nodes
}

/// Whether it is at the primary ENI's usual place.
pub(crate) fn is_at_index_0(eni: &EniFacts) -> bool {
    eni.attachment.as_ref().is_some_and(|it| (it.network_card, it.device_index) == (0, 0))
}

/// The block that holds only `address`.
pub(crate) fn single(address: IpAddr) -> Block {
    match address {
        IpAddr::V4(address) => Block::address(address),
        IpAddr::V6(address) => panic!("{address} is no block"),
    }
}

impl Node {
    pub(crate) async fn call(&self, call: Ec2Call) -> CallOutput {
        let outcome = self.ec2.execute(&call).await;
        outcome.unwrap_or_else(|error| panic!("{call:?}: {error}"))
    }

    pub(crate) async fn refused(&self, call: Ec2Call) -> CallError {
        match self.ec2.execute(&call).await {
            Ok(output) => panic!("{call:?} was not refused: {output:?}"),
            Err(error) => error,
        }
    }

    pub(crate) fn creation(&self, subnet: &SubnetId, blocks: BlockCount, token: &str) -> Ec2Call {
        Ec2Call::CreateEni {
            subnet: subnet.clone(),
            security_groups: [self.site.group.clone()].into(),
            connection_tracking: ConnectionTracking::default(),
            blocks,
            description: format!("aws-K8S-{}", self.instance),
            tags: tags(&[(INSTANCE_TAG, &self.instance), ("odd", "a&b <c> \u{fc}")]),
            client_token: format!("{}-{token}", self.instance),
        }
    }

    pub(crate) async fn create(&self, blocks: BlockCount, token: &str) -> EniFacts {
        match self.call(self.creation(&self.site.subnet, blocks, token)).await {
            CallOutput::Created(facts) => facts,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn attach(&self, eni: &EniId, device_index: u16) -> EniAttachmentId {
        match self.call(Ec2Call::AttachEni { eni: eni.clone(), device_index }).await {
            CallOutput::Attached(attachment) => attachment,
            other => panic!("{other:?}"),
        }
    }

    /// A new ENI at device index 1.
    pub(crate) async fn attached(&self, blocks: BlockCount) -> (EniId, EniAttachmentId) {
        let eni = self.create(blocks, "attached").await.id;
        let attachment = self.attach(&eni, 1).await;
        self.eventually("the ENI is attached", &eni, |facts| {
            let attachment = facts.and_then(|facts| facts.attachment.as_ref());
            attachment.is_some_and(|a| a.status == AttachmentStatus::Attached)
        })
        .await;
        (eni, attachment)
    }

    pub(crate) async fn assign(&self, eni: &EniId, blocks: BlockCount) -> BTreeSet<Block> {
        match self.call(Ec2Call::Assign { eni: eni.clone(), blocks }).await {
            CallOutput::Assigned(blocks) => blocks,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn enis(&self) -> BTreeMap<EniId, EniFacts> {
        match self.call(Ec2Call::DescribeEnis).await {
            CallOutput::Enis(enis) => enis.into_iter().map(|eni| (eni.id.clone(), eni)).collect(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn eni(&self, eni: &EniId) -> EniFacts {
        let enis = self.enis().await;
        enis.get(eni).unwrap_or_else(|| panic!("{eni} is not among {enis:?}")).clone()
    }

    pub(crate) async fn subnets(&self) -> BTreeMap<SubnetId, SubnetFacts> {
        match self.call(Ec2Call::DescribeSubnets).await {
            CallOutput::Subnets(subnets) => {
                subnets.into_iter().map(|subnet| (subnet.id.clone(), subnet)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn eventually(
        &self,
        what: &str,
        eni: &EniId,
        is: impl Fn(Option<&EniFacts>) -> bool,
    ) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let enis = self.enis().await;
            if is(enis.get(eni)) {
                return;
            }
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}; {enis:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

//! EC2 for one instance, in memory. It outlives the daemons of a test.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use agent::{Config, Inlet};
use datapath::MacAddr;
use ipam::call::{CallId, CallOutput, Ec2Call};
use ipam::event::Event;
use lab::node_ec2::NodeEc2;
use lab::spec::NodeSpec;
use tokio::sync::{mpsc, watch};

/// A handle to EC2. Clones share the same EC2.
#[derive(Clone)]
pub(crate) struct FakeEc2 {
    ec2: Arc<Mutex<NodeEc2>>,
    answers: Arc<watch::Sender<bool>>,
}

impl FakeEc2 {
    /// The node's instance with its primary ENI and nothing else.
    pub(crate) fn new(config: &Config) -> Self {
        let instance = config.node.instance.as_str().parse().unwrap();
        let instance_type = config.node.instance_type.clone();
        let spec = NodeSpec { instance_type, policy: config.policy.clone() };
        let ec2 = NodeEc2::new(instance, &spec).unwrap();
        assert_eq!(ec2.site().limits, config.limits, "the daemon knows the instance's limits");
        Self { ec2: Arc::new(Mutex::new(ec2)), answers: Arc::new(watch::Sender::new(true)) }
    }

    /// The hardware address of the instance's primary ENI.
    pub(crate) fn primary_mac(&self) -> MacAddr {
        self.ec2.lock().unwrap().site().primary_mac
    }

    /// Sets whether EC2 answers. While it does not, calls wait.
    pub(crate) fn answers(&self, answers: bool) {
        self.answers.send_replace(answers);
    }

    /// How many requests of this action, by EC2's name, were executed.
    pub(crate) fn n_requests(&self, action: &str) -> u64 {
        self.ec2.lock().unwrap().n_requests(action)
    }

    /// All addresses that EC2 has assigned for pods.
    pub(crate) fn secondary_addresses(&self) -> BTreeSet<String> {
        let described = self.ec2.lock().unwrap().execute(&Ec2Call::DescribeEnis).unwrap();
        let CallOutput::Enis(enis) = described else { panic!("{described:?}") };
        let blocks = enis.iter().flat_map(|eni| &eni.blocks);
        let addresses = blocks.flat_map(|block| block.addresses_from(0));
        addresses.map(|address| address.to_string()).collect()
    }

    /// Executes calls until their sender is dropped, each in its own task.
    pub(crate) async fn serve(
        self,
        mut calls: mpsc::UnboundedReceiver<(CallId, Ec2Call)>,
        inlet: Inlet,
    ) {
        while let Some((id, call)) = calls.recv().await {
            let (ec2, inlet, mut answers) =
                (self.ec2.clone(), inlet.clone(), self.answers.subscribe());
            tokio::spawn(async move {
                answers.wait_for(|answers| *answers).await.unwrap();
                let result = ec2.lock().unwrap().execute(&call);
                inlet.send(Event::CallDone { id, result });
            });
        }
    }
}

//! A region for tests: one VPC, subnets in two zones, and a client.

use std::collections::BTreeMap;
use std::time::Duration;

use ec2_model::config::Config;
use ec2_model::fabric::FabricInstance;
use ec2_model::id::{AttachmentId, EniId, InstanceId, SubnetId, VpcId};
use ec2_model::request::{
    AssignPrivateIpAddresses, AttachNetworkInterface, CreateNetworkInterface,
    DescribeNetworkInterfaces, DescribeSubnets, DetachNetworkInterface, Request, WantedIpv4,
};
use ec2_model::response::{NetworkInterface, Page, Response};
use ec2_model::seed::{InstanceSeed, SubnetSeed, VpcSeed};
use ec2_model::{ApiError, Context, Model, Reply, SimTime};
use ipnet::Ipv4Net;

/// 2026-11-21T08:12:04Z
pub(crate) const START: SimTime = SimTime::from_unix_millis(1_795_248_724_000);

#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) model: Model,
    pub(crate) now: SimTime,
    pub(crate) vpc: VpcId,
    /// 10.0.2.0/24 and an IPv6 /64 in us-east-1a.
    pub(crate) subnet: SubnetId,
    /// 10.0.3.0/24, IPv4 only, in us-east-1b.
    pub(crate) other_zone: SubnetId,
}

impl Region {
    pub(crate) fn new() -> Self {
        Self::with(Config::default())
    }

    pub(crate) fn with(config: Config) -> Self {
        let mut model = Model::new(config);
        let vpc = VpcSeed {
            cidrs: vec!["10.0.0.0/16".parse().unwrap()],
            ipv6_cidrs: vec!["2600:1f13:abc:de00::/56".parse().unwrap()],
            ..VpcSeed::default()
        };
        let vpc = model.add_vpc(vpc).unwrap();
        let seed = SubnetSeed {
            cidr: Some("10.0.2.0/24".parse().unwrap()),
            ipv6_cidr: Some("2600:1f13:abc:de00::/64".parse().unwrap()),
            ..SubnetSeed::in_zone(vpc.clone(), "us-east-1a")
        };
        let subnet = model.add_subnet(seed).unwrap();
        let other_zone = SubnetSeed {
            cidr: Some("10.0.3.0/24".parse().unwrap()),
            ..SubnetSeed::in_zone(vpc.clone(), "us-east-1b")
        };
        let other_zone = model.add_subnet(other_zone).unwrap();
        Self { model, now: START, vpc, subnet, other_zone }
    }

    /// Adds a subnet in us-east-1a in which `used` is taken.
    pub(crate) fn add_subnet(&mut self, cidr: &str, used: &[&str]) -> SubnetId {
        let seed = SubnetSeed {
            cidr: Some(cidr.parse().unwrap()),
            used: used.iter().map(|range| range.parse().unwrap()).collect(),
            ..SubnetSeed::in_zone(self.vpc.clone(), "us-east-1a")
        };
        self.model.add_subnet(seed).unwrap()
    }

    pub(crate) fn add_instance(&mut self, instance_type: &str) -> InstanceId {
        let seed = InstanceSeed::in_subnet(instance_type, self.subnet.clone());
        self.model.add_instance(seed, self.now).unwrap()
    }

    pub(crate) fn context(&self) -> Context {
        Context {
            account: self.model.config().account.clone(),
            region: self.model.config().region.clone(),
            now: self.now,
            parameters: BTreeMap::new(),
        }
    }

    pub(crate) fn reply(&mut self, request: impl Into<Request>) -> Reply {
        let context = self.context();
        self.model.call(&context, request.into())
    }

    pub(crate) fn call(&mut self, request: impl Into<Request>) -> Result<Response, ApiError> {
        self.reply(request).result
    }

    /// `Success` or the error code.
    pub(crate) fn code(&mut self, request: impl Into<Request>) -> String {
        self.call(request).err().map_or_else(|| "Success".to_owned(), |error| error.code)
    }

    /// The error text.
    pub(crate) fn text(&mut self, request: impl Into<Request>) -> String {
        self.call(request).expect_err("an error").message
    }

    pub(crate) fn wait(&mut self, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
    }

    pub(crate) fn create(&mut self, request: CreateNetworkInterface) -> NetworkInterface {
        match self.call(request).unwrap() {
            Response::Created { network_interface, .. } => *network_interface,
            other => panic!("{other:?}"),
        }
    }

    /// An ENI with a primary address only.
    pub(crate) fn create_eni(&mut self) -> EniId {
        self.create(CreateNetworkInterface::in_subnet(self.subnet.clone())).id
    }

    pub(crate) fn attach(
        &mut self,
        eni: &EniId,
        instance: &InstanceId,
        device_index: i32,
    ) -> Result<AttachmentId, ApiError> {
        match self.call(attach(eni, instance, device_index))? {
            Response::Attached { attachment_id, .. } => Ok(attachment_id),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn detach(&mut self, attachment_id: &AttachmentId) -> Result<Response, ApiError> {
        let attachment_id = attachment_id.clone();
        self.call(DetachNetworkInterface { attachment_id, force: false, dry_run: false })
    }

    pub(crate) fn enis(&mut self) -> Vec<NetworkInterface> {
        match self.call(DescribeNetworkInterfaces::default()).unwrap() {
            Response::NetworkInterfaces(Page { items, .. }) => items,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn eni(&mut self, id: &EniId) -> NetworkInterface {
        self.enis().into_iter().find(|eni| eni.id == *id).expect("the ENI is listed")
    }

    pub(crate) fn n_free(&mut self, subnet: &SubnetId) -> u32 {
        match self.call(DescribeSubnets::default()).unwrap() {
            Response::Subnets(page) => {
                let found = page.items.iter().find(|it| it.id == *subnet);
                found.expect("the subnet is listed").available_ip_address_count
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn primary_eni(&mut self, instance: &InstanceId) -> EniId {
        self.fabric_of(instance).enis[0].id.clone()
    }

    pub(crate) fn fabric_of(&mut self, instance: &InstanceId) -> FabricInstance {
        let fabric = self.model.fabric(self.now);
        fabric.instances.into_iter().find(|it| it.id == *instance).expect("the instance is up")
    }

    pub(crate) fn imds(&mut self, instance: &InstanceId, path: &str) -> Option<String> {
        self.model.imds(instance, path, self.now)
    }
}

pub(crate) fn attach(
    eni: &EniId,
    instance: &InstanceId,
    device_index: i32,
) -> AttachNetworkInterface {
    AttachNetworkInterface {
        network_interface_id: eni.clone(),
        instance_id: instance.clone(),
        device_index,
        network_card_index: 0,
        ena_queue_count: None,
        dry_run: false,
    }
}

pub(crate) fn assign(eni: &EniId, wanted: WantedIpv4) -> AssignPrivateIpAddresses {
    AssignPrivateIpAddresses {
        network_interface_id: eni.clone(),
        wanted,
        allow_reassignment: false,
    }
}

pub(crate) fn n_addresses(n: i32) -> WantedIpv4 {
    WantedIpv4 { address_count: Some(n), ..WantedIpv4::default() }
}

pub(crate) fn n_prefixes(n: i32) -> WantedIpv4 {
    WantedIpv4 { prefix_count: Some(n), ..WantedIpv4::default() }
}

pub(crate) fn addresses(list: &[&str]) -> WantedIpv4 {
    let addresses = list.iter().map(|addr| addr.parse().unwrap()).collect();
    WantedIpv4 { addresses, ..WantedIpv4::default() }
}

pub(crate) fn prefixes(list: &[&str]) -> WantedIpv4 {
    let prefixes: Vec<Ipv4Net> = list.iter().map(|net| net.parse().unwrap()).collect();
    WantedIpv4 { prefixes, ..WantedIpv4::default() }
}

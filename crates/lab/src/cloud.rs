//! The model of EC2 for a simulation, with a ledger of each instance's holdings and of the daemons'
//! calls. It knows no pods.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ec2_model::config::{Config, Consistency, Latency};
use ec2_model::error::ApiError;
use ec2_model::fabric::FabricEni;
use ec2_model::id::{EniId, InstanceId, ResourceType, SecurityGroupId, SubnetId, VpcId};
use ec2_model::request::{
    Action, AttachNetworkInterface, CreateNetworkInterface, DeleteNetworkInterface,
    DescribeInstanceTypes, DescribeInstances, DescribeNetworkInterfaces, Filter, Listing,
    ModifyNetworkInterfaceAttribute, Request, Tag, TagSpecification, TerminateInstances,
};
use ec2_model::response::{Instance, Response};
use ec2_model::seed::{InstanceSeed, SecurityGroupSeed, SubnetSeed, VpcSeed};
use ec2_model::{Context, Delivery, Model};
use ipam::call::INSTANCE_TAG;
use ipam::policy::{Limits, Policy};
use ipam::time::Timestamp;
use ipnet::{Ipv4Net, Ipv6Net};
use mac::MacAddr;

use crate::daemon::MetadataEni;
use crate::load::Holding;
use crate::spec::{NodeSpec, Purpose, VpcSpec};

/// Marks a subnet for additional ENIs of any node.
const ROLE_TAG: (&str, &str) = ("kubernetes.io/role/cni", "1");
/// Marks an ENI that daemons must not manage.
const NO_MANAGE_TAG: (&str, &str) = ("node.k8s.amazonaws.com/no_manage", "true");
/// The account that starts and ends instances and uses subnets for other purposes. It must not take
/// tokens from the cluster's account.
const OTHER_ACCOUNT: &str = "444455556666";
/// How long a client waits for an answer.
const HTTP_TIMEOUT: Duration = Duration::from_secs(10);
/// Addresses per ENI that others create to occupy a subnet.
const FILLER_SIZE: u32 = 50;
const PREFIX_SIZE: u64 = 16;

/// Why a simulation cannot start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// EC2 refuses to create a VPC, subnet or instance.
    #[error("make {what}")]
    Refused {
        /// The resource.
        what: String,
        /// EC2's error.
        #[source]
        source: ApiError,
    },
    /// The instance type is not in the model's table.
    #[error("instance type {0} is unknown")]
    UnknownInstanceType(String),
    /// No subnet is meant for nodes.
    #[error("no subnet is for nodes")]
    NoSubnetForNodes,
}

/// A node: its instance, its place in the VPC, and the settings of its daemon.
#[derive(Debug, Clone)]
pub struct Site {
    /// The instance, which is running.
    pub instance: InstanceId,
    /// For example `m5.large`.
    pub instance_type: String,
    /// The instance's primary ENI.
    pub primary_eni: EniId,
    /// Its hardware address.
    pub primary_mac: MacAddr,
    /// The subnet of the primary ENI.
    pub subnet: SubnetId,
    /// The VPC of the subnet.
    pub vpc: VpcId,
    /// The subnet's availability zone, by name.
    pub zone: String,
    /// The security groups of the primary ENI.
    pub security_groups: Vec<SecurityGroupId>,
    /// EC2's limits for the instance type.
    pub limits: Limits,
    /// The daemon's policy.
    pub policy: Policy,
}

/// The blocks of an ENI, and the instance that it was created for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    instance: InstanceId,
    /// Counts ENIs by age. The primary ENI of an instance is its first.
    number: u64,
    blocks: u16,
    addresses: u64,
}

/// The results of the calls of one action.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CallCounts {
    pub(crate) granted: u64,
    pub(crate) throttled: u64,
    pub(crate) refused: u64,
}

/// EC2 in one region, as all nodes of a simulation use it.
#[derive(Debug)]
pub struct Cloud {
    model: Model,
    account: String,
    region: String,
    vpc: VpcId,
    /// In the order of [`VpcSpec::subnets`].
    subnets: Vec<(SubnetId, Purpose)>,
    n_joined: usize,
    held: BTreeMap<EniId, Held>,
    n_seen: u64,
    /// Addresses that all nodes hold for pods.
    n_held: u64,
    calls: BTreeMap<Action, CallCounts>,
    /// ENIs of others, by the index of their subnet.
    fillers: BTreeMap<usize, Vec<EniId>>,
}

impl Cloud {
    /// A VPC with the subnets of `spec`, and no instance. `seed` determines all of EC2's random
    /// choices.
    ///
    /// # Errors
    ///
    /// If the model refuses a subnet.
    pub fn new(spec: &VpcSpec, seed: u64) -> Result<Self, SetupError> {
        let config = Config {
            seed,
            throttling: spec.throttling,
            latency: spec.latency.clone(),
            consistency: spec.consistency.clone(),
            address_choice: spec.address_choice,
            quotas: ec2_model::config::Quotas {
                network_interfaces: 50_000,
                ..ec2_model::config::Quotas::default()
            },
            log_capacity: 0,
            ..Config::default()
        };
        let (account, region) = (config.account.clone(), config.region.clone());
        let mut model = Model::new(config);
        let cidrs = vec![Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 16)];
        let ipv6_cidrs = spec.ipv6.then(|| ipv6_cidr(0, 56)).into_iter().collect();
        let vpc = model.add_vpc(VpcSeed { cidrs, ipv6_cidrs, ..VpcSeed::default() });
        let vpc = vpc.map_err(|error| refused("the VPC", error))?;
        let mut cloud = Self {
            model,
            account,
            region,
            vpc,
            subnets: Vec::new(),
            n_joined: 0,
            held: BTreeMap::new(),
            n_seen: 0,
            n_held: 0,
            calls: BTreeMap::new(),
            fillers: BTreeMap::new(),
        };
        for subnet in &spec.subnets {
            cloud.add_subnet(subnet, spec.ipv6)?;
        }
        Ok(cloud)
    }

    fn add_subnet(&mut self, subnet: &crate::spec::Subnet, ipv6: bool) -> Result<(), SetupError> {
        let (key, value) = ROLE_TAG;
        let is_for_pods = subnet.purpose == Purpose::Pods;
        let seed = SubnetSeed {
            cidr: Some(subnet.cidr),
            ipv6_cidr: ipv6.then(|| ipv6_cidr(self.subnets.len(), 64)),
            used: subnet.used.clone(),
            tags: is_for_pods.then(|| (key.to_owned(), value.to_owned())).into_iter().collect(),
            ..SubnetSeed::in_zone(self.vpc.clone(), format!("{}a", self.region))
        };
        let id = self.model.add_subnet(seed);
        let id = id.map_err(|error| refused(&format!("subnet {}", subnet.cidr), error))?;
        self.subnets.push((id, subnet.purpose));
        Ok(())
    }

    /// Starts a node. Its instance runs at once.
    ///
    /// # Errors
    ///
    /// If the instance type is unknown, if no subnet is for nodes, or if EC2 refuses.
    pub fn join(&mut self, spec: &NodeSpec, now: Timestamp) -> Result<Site, SetupError> {
        self.join_as(None, spec, now)
    }

    /// As [`join`](Self::join), with this instance id. The model generates one if it is `None`.
    pub(crate) fn join_as(
        &mut self,
        id: Option<InstanceId>,
        spec: &NodeSpec,
        now: Timestamp,
    ) -> Result<Site, SetupError> {
        let limits = self.limits(&spec.instance_type, now)?;
        let homes = self.subnets.iter().filter(|(_, purpose)| *purpose == Purpose::Nodes);
        let homes: Vec<_> = homes.map(|(id, _)| id.clone()).collect();
        let turn = self.n_joined.checked_rem(homes.len()).ok_or(SetupError::NoSubnetForNodes)?;
        let seed = InstanceSeed {
            id,
            ..InstanceSeed::in_subnet(spec.instance_type.clone(), homes[turn].clone())
        };
        let instance = self.model.add_instance(seed, ec2_time(now));
        let instance = instance.map_err(|error| refused("an instance", error))?;
        self.n_joined += 1;
        let shown = self.show(&instance, now)?;
        let primary = shown.network_interfaces.first();
        let primary = primary.expect("an instance has a primary ENI");
        let (primary_eni, primary_mac) = (primary.id.clone(), primary.mac_address);
        self.record_eni(&primary_eni, &instance);
        Ok(Site {
            instance,
            instance_type: spec.instance_type.clone(),
            primary_eni,
            primary_mac,
            subnet: shown.subnet_id,
            vpc: shown.vpc_id,
            zone: shown.availability_zone,
            security_groups: shown.groups.into_iter().map(|group| group.id).collect(),
            limits,
            policy: spec.policy.clone(),
        })
    }

    /// EC2's limits for an instance type.
    pub(crate) fn limits(&mut self, name: &str, now: Timestamp) -> Result<Limits, SetupError> {
        let unknown = || SetupError::UnknownInstanceType(name.to_owned());
        let request = DescribeInstanceTypes {
            instance_types: vec![name.to_owned()],
            ..DescribeInstanceTypes::default()
        };
        let Ok(Response::InstanceTypes(page)) = self.call_as_other(request.into(), now) else {
            return Err(unknown());
        };
        let found = page.items.first().ok_or_else(unknown)?;
        Ok(Limits {
            enis: found.max_enis(),
            addresses_per_eni: found.ipv4_per_eni,
            prefixes: found.supports_prefixes(),
        })
    }

    fn show(&mut self, instance: &InstanceId, now: Timestamp) -> Result<Instance, SetupError> {
        let instance_ids = vec![instance.clone()];
        let request = DescribeInstances { instance_ids, ..DescribeInstances::default() };
        let response = self.call_as_other(request.into(), now);
        match response.map_err(|error| refused("an instance", error))? {
            Response::Reservations(page) => {
                let instances = page.items.into_iter().flat_map(|it| it.instances);
                Ok(instances.last().expect("it has just been started"))
            }
            other => unreachable!("not an answer to DescribeInstances: {other:?}"),
        }
    }

    /// Terminates an instance. The ledger drops its ENIs at once.
    pub fn terminate(&mut self, instance: &InstanceId, now: Timestamp) {
        let instance_ids = vec![instance.clone()];
        let request = TerminateInstances { instance_ids, dry_run: false };
        let ended = self.call_as_other(request.into(), now);
        debug_assert!(ended.is_ok(), "{ended:?}");
        let gone = self.held.extract_if(.., |_, held| held.instance == *instance);
        self.n_held -= gone.map(|(_, held)| held.addresses).sum::<u64>();
    }

    /// Others take `n_addresses` addresses of a subnet, or all that are free.
    pub fn occupy(&mut self, subnet: usize, n_addresses: u32, now: Timestamp) {
        let Some((id, _)) = self.subnets.get(subnet).cloned() else { return };
        let mut left = n_addresses;
        while left > 0 {
            let size = left.min(FILLER_SIZE);
            let request = CreateNetworkInterface {
                secondary_private_ip_address_count: i32::try_from(size - 1).ok().filter(|n| *n > 0),
                ..CreateNetworkInterface::in_subnet(id.clone())
            };
            match self.call_as_other(request.into(), now) {
                Ok(Response::Created { network_interface, .. }) => {
                    self.fillers.entry(subnet).or_default().push(network_interface.id);
                    left -= size;
                }
                Ok(_) | Err(_) if size == 1 => return,
                // EC2 serves all of a request or nothing, so the rest is taken one by one.
                Ok(_) | Err(_) => left = left.min(size - 1),
            }
        }
    }

    /// Others release the addresses that they took from a subnet.
    pub fn vacate(&mut self, subnet: usize, now: Timestamp) {
        for eni in self.fillers.remove(&subnet).unwrap_or_default() {
            let request =
                DeleteNetworkInterface { network_interface_id: eni.clone(), dry_run: false };
            if self.call_as_other(request.into(), now).is_err() {
                self.fillers.entry(subnet).or_default().push(eni);
            }
        }
    }

    /// Makes a call of the daemon on `instance`. Returns EC2's answer and its delay.
    pub fn call(
        &mut self,
        instance: &InstanceId,
        request: &Request,
        now: Timestamp,
    ) -> (Result<Box<Response>, ApiError>, Duration) {
        let reply = self.model.call(&self.context(&self.account, now), request.clone());
        let ends = self.calls.entry(request.action()).or_default();
        match &reply.result {
            Ok(response) => {
                ends.granted += 1;
                self.record(instance, request, response);
            }
            Err(error) if is_throttling(error) => ends.throttled += 1,
            Err(_) => ends.refused += 1,
        }
        match reply.delivery {
            Delivery::After(latency) => (reply.result.map(Box::new), latency),
            Delivery::Lost => {
                let text = "no answer came";
                (Err(ApiError::new("InternalError", text)), HTTP_TIMEOUT)
            }
        }
    }

    /// Records the effect of a successful call.
    fn record(&mut self, instance: &InstanceId, request: &Request, response: &Response) {
        match (request, response) {
            (Request::CreateNetworkInterface(_), Response::Created { network_interface, .. }) => {
                let singles = network_interface.private_ip_addresses.len() - 1;
                let prefixes = network_interface.ipv4_prefixes.len();
                if self.record_eni(&network_interface.id, instance) {
                    self.record_assigned(&network_interface.id, singles, prefixes);
                }
            }
            (
                Request::AssignPrivateIpAddresses(_),
                Response::AssignedIpv4 { network_interface_id, addresses, prefixes },
            ) => self.record_assigned(network_interface_id, addresses.len(), prefixes.len()),
            (Request::UnassignPrivateIpAddresses(request), Response::Done) => {
                let (singles, prefixes) = (request.addresses.len(), request.prefixes.len());
                self.record_unassigned(&request.network_interface_id, singles, prefixes);
            }
            (Request::DeleteNetworkInterface(request), Response::Done) => {
                if let Some(held) = self.held.remove(&request.network_interface_id) {
                    self.n_held -= held.addresses;
                }
            }
            _ => {}
        }
    }

    /// Records a new ENI. False for a known one: a repeated call returns the ENI of the first call.
    fn record_eni(&mut self, eni: &EniId, instance: &InstanceId) -> bool {
        let is_new = !self.held.contains_key(eni);
        if is_new {
            self.n_seen += 1;
            let (instance, number) = (instance.clone(), self.n_seen);
            self.held.insert(eni.clone(), Held { instance, number, blocks: 0, addresses: 0 });
        }
        is_new
    }

    fn record_assigned(&mut self, eni: &EniId, singles: usize, prefixes: usize) {
        let Some(held) = self.held.get_mut(eni) else { return };
        let (blocks, addresses) = sizes(singles, prefixes);
        held.blocks += blocks;
        held.addresses += addresses;
        self.n_held += addresses;
    }

    fn record_unassigned(&mut self, eni: &EniId, singles: usize, prefixes: usize) {
        let Some(held) = self.held.get_mut(eni) else { return };
        let (blocks, addresses) = sizes(singles, prefixes);
        held.blocks -= blocks;
        held.addresses -= addresses;
        self.n_held -= addresses;
    }

    /// The instance's ENIs as IMDS shows them.
    pub(crate) fn metadata(&mut self, instance: &InstanceId, now: Timestamp) -> Vec<MetadataEni> {
        let macs = self.read_metadata(instance, "", now);
        let read = |mac: &String| {
            let mut lines = |key: &str| self.read_metadata(instance, &format!("{mac}{key}"), now);
            let id = lines("interface-id").first()?.parse().ok()?;
            let singles = lines("local-ipv4s").into_iter().skip(1);
            let singles = singles.filter_map(|text| text.parse::<Ipv4Addr>().ok());
            let addresses = singles.map(Ipv4Net::from).collect();
            let prefixes = lines("ipv4-prefix").into_iter().filter_map(|text| text.parse().ok());
            Some(MetadataEni { id, addresses, prefixes: prefixes.collect() })
        };
        macs.iter().filter_map(read).collect()
    }

    fn read_metadata(&mut self, instance: &InstanceId, path: &str, now: Timestamp) -> Vec<String> {
        let path = format!("/latest/meta-data/network/interfaces/macs/{path}");
        let text = self.model.imds(instance, &path, ec2_time(now)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The model itself, for what no daemon calls.
    pub fn model(&mut self) -> &mut Model {
        &mut self.model
    }

    /// The attached ENIs of an instance, the primary first.
    pub fn attached(&mut self, instance: &InstanceId, now: Timestamp) -> Vec<FabricEni> {
        let instances = self.model.fabric(ec2_time(now)).instances;
        let found = instances.into_iter().find(|found| found.id == *instance);
        found.map(|found| found.enis).unwrap_or_default()
    }

    /// The unattached ENIs for pods, each with the instance that it was created for.
    pub fn unattached(&mut self, now: Timestamp) -> Vec<(EniId, Option<InstanceId>)> {
        let status = Filter { name: "status".to_owned(), values: vec!["available".to_owned()] };
        let listing = Listing { filters: vec![status], ..Listing::default() };
        let request = DescribeNetworkInterfaces { listing, ..DescribeNetworkInterfaces::default() };
        let Ok(Response::NetworkInterfaces(page)) = self.call_as_other(request.into(), now) else {
            return Vec::new();
        };
        let marked = page.items.into_iter().filter_map(|eni| {
            let instance = eni.tags.get(INSTANCE_TAG)?.parse().ok();
            Some((eni.id, instance))
        });
        marked.collect()
    }

    /// Adds a security group to the VPC, beside its default one.
    ///
    /// # Errors
    ///
    /// If the model refuses it.
    pub fn add_security_group(&mut self, id: SecurityGroupId) -> Result<(), SetupError> {
        let seed = SecurityGroupSeed {
            name: id.to_string(),
            description: String::new(),
            vpc: self.vpc.clone(),
            id: Some(id),
            tags: BTreeMap::new(),
        };
        let added = self.model.add_security_group(seed);
        added.map(|_id| ()).map_err(|error| refused("a security group", error))
    }

    /// Somebody replaces the security groups of an ENI. A fault of the simulation may prevent it.
    pub fn set_security_groups(
        &mut self,
        eni: EniId,
        groups: Vec<SecurityGroupId>,
        now: Timestamp,
    ) {
        let change =
            ModifyNetworkInterfaceAttribute { groups, ..ModifyNetworkInterfaceAttribute::of(eni) };
        let _prevented = self.call_as_other(change.into(), now);
    }

    /// The security groups of each ENI in EC2's answer, in ascending order.
    pub fn security_groups(&mut self, now: Timestamp) -> BTreeMap<EniId, Vec<SecurityGroupId>> {
        let request = DescribeNetworkInterfaces::default();
        let Ok(Response::NetworkInterfaces(page)) = self.call_as_other(request.into(), now) else {
            return BTreeMap::new();
        };
        let groups = page.items.into_iter().map(|eni| {
            let mut groups: Vec<_> = eni.groups.into_iter().map(|group| group.id).collect();
            groups.sort();
            (eni.id, groups)
        });
        groups.collect()
    }

    /// The number of successful calls of daemons that changed something.
    pub fn n_changes(&self) -> u64 {
        let reads = [Action::DescribeNetworkInterfaces, Action::DescribeSubnets];
        let changes = self.calls.iter().filter(|(action, _)| !reads.contains(action));
        changes.map(|(_, ends)| ends.granted).sum()
    }

    /// The instance that an ENI was created for, if a daemon or a launch created it.
    pub fn owner(&self, eni: &EniId) -> Option<InstanceId> {
        self.held.get(eni).map(|held| held.instance.clone())
    }

    /// Attaches an ENI to the instance that its tag marks as not managed. Returns its id.
    pub fn attach_foreign_eni(
        &mut self,
        instance: &InstanceId,
        subnet: &SubnetId,
        now: Timestamp,
    ) -> Option<EniId> {
        let (key, value) = NO_MANAGE_TAG;
        let tag = Tag { key: key.to_owned(), value: Some(value.to_owned()) };
        let resource_type = ResourceType::NetworkInterface;
        let request = CreateNetworkInterface {
            tag_specifications: vec![TagSpecification { resource_type, tags: vec![tag] }],
            ..CreateNetworkInterface::in_subnet(subnet.clone())
        };
        let account = self.account.clone();
        // Without delays, as if the ENI had been there for long.
        let config = self.model.config().clone();
        let (latency, consistency) = (Latency::default(), Consistency::default());
        self.model.reconfigure(Config { latency, consistency, ..config.clone() });
        let created = self.call_as(&account, request.into(), now);
        let Ok(Response::Created { network_interface, .. }) = created else { return None };
        let request = AttachNetworkInterface {
            network_interface_id: network_interface.id.clone(),
            instance_id: instance.clone(),
            device_index: 1,
            network_card_index: 0,
            ena_queue_count: None,
            dry_run: false,
        };
        let attached = self.call_as(&account, request.into(), now);
        debug_assert!(attached.is_ok(), "{attached:?}");
        self.model.reconfigure(config);
        Some(network_interface.id)
    }

    /// Applies EC2's scheduled changes until `now`. Returns the time of the next one.
    pub(crate) fn advance(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.model.advance(ec2_time(now));
        self.model.wake_at().map(|at| Timestamp::from_millis(at.unix_millis()))
    }

    /// Whether EC2 delivers packets to `address` to this instance.
    pub fn reaches(
        &mut self,
        instance: &InstanceId,
        address: impl Into<IpAddr>,
        now: Timestamp,
    ) -> bool {
        let found = self.model.instance_of(address.into(), ec2_time(now));
        found.as_ref() == Some(instance)
    }

    /// Addresses that all nodes hold for pods.
    pub(crate) fn n_held(&self) -> u64 {
        self.n_held
    }

    /// What an instance holds. ENIs that were created for it count from the start.
    pub(crate) fn holding(&self, instance: &InstanceId) -> Holding {
        let ours = self.held.values().filter(|held| held.instance == *instance);
        let zero = Holding { enis: 0, addresses: 0 };
        ours.fold(zero, |sum, held| Holding {
            enis: sum.enis + 1,
            addresses: sum.addresses + held.addresses,
        })
    }

    /// The number of blocks on each ENI of an instance, the primary first, then by age.
    pub(crate) fn blocks(&self, instance: &InstanceId) -> Vec<u16> {
        let ours = self.held.values().filter(|held| held.instance == *instance);
        let by_age: BTreeMap<_, _> = ours.map(|held| (held.number, held.blocks)).collect();
        by_age.into_values().collect()
    }

    /// The calls of all daemons since the last [`forget_calls`](Self::forget_calls).
    pub(crate) fn calls(&self) -> &BTreeMap<Action, CallCounts> {
        &self.calls
    }

    pub(crate) fn forget_calls(&mut self) {
        self.calls.clear();
    }

    fn context(&self, account: &str, now: Timestamp) -> Context {
        Context {
            account: account.to_owned(),
            region: self.region.clone(),
            now: ec2_time(now),
            parameters: BTreeMap::new(),
        }
    }

    fn call_as_other(&mut self, request: Request, now: Timestamp) -> Result<Response, ApiError> {
        self.call_as(OTHER_ACCOUNT, request, now)
    }

    fn call_as(
        &mut self,
        account: &str,
        request: Request,
        now: Timestamp,
    ) -> Result<Response, ApiError> {
        // Many of these calls at one time would be throttled, which is not their purpose.
        let config = self.model.config().clone();
        let throttling = ec2_model::config::Throttling::Off;
        self.model.reconfigure(Config { throttling, ..config.clone() });
        let result = self.model.call(&self.context(account, now), request).result;
        self.model.reconfigure(config);
        result
    }
}

/// Whether EC2 refused the call for lack of tokens.
pub(crate) fn is_throttling(error: &ApiError) -> bool {
    error.code == "RequestLimitExceeded"
}

/// The IPv6 block of the VPC, or that of a subnet by the subnet's place. No instance gets an address of it by itself.
fn ipv6_cidr(subnet: usize, length: u8) -> Ipv6Net {
    let subnet = u16::try_from(subnet).expect("a VPC has few subnets");
    Ipv6Net::new_assert(Ipv6Addr::new(0x2600, 0x1f13, 0xabc, 0xde00 + subnet, 0, 0, 0, 0), length)
}

fn refused(what: &str, source: ApiError) -> SetupError {
    SetupError::Refused { what: what.to_owned(), source }
}

fn sizes(singles: usize, prefixes: usize) -> (u16, u64) {
    let few = "an ENI carries at most 100 of them";
    let blocks = u16::try_from(singles + prefixes).expect(few);
    let singles = u64::try_from(singles).expect(few);
    (blocks, singles + PREFIX_SIZE * u64::try_from(prefixes).expect(few))
}

/// A time of the simulation on the model's clock.
#[must_use]
pub fn ec2_time(now: Timestamp) -> ec2_model::SimTime {
    ec2_model::SimTime::from_unix_millis(now.as_millis())
}

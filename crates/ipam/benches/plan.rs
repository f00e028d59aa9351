//! The cost of decisions on the largest node: 15 ENIs with 50 addresses each. One of the 50 is the ENI's
//! primary address, the others are prefixes or single addresses. `cargo bench -p ipam`. One plan must take
//! less than 50 µs.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use ipam::block::{Block, BlockKind};
use ipam::call::{
    AttachmentStatus, CallOutput, Ec2Call, EniAttachment, EniFacts, EniKind, SubnetFacts,
};
use ipam::connection_tracking::ConnectionTracking;
use ipam::event::{Effect, Event, LinkState, NodeLocal, RefusalCode, RequestId};
use ipam::id::{AttachmentKey, BootId, EniAttachmentId, EniId, InstanceId, Pod, SubnetId};
use ipam::plan::{
    Allowance, Blocked, EniSupply, Scope, Situation, SubnetSupply, SupplyState, Tally, plan,
};
use ipam::policy::{
    Families, FamilyPolicy, Limits, Node, Placement, Policy, Provisioning, Targets, Timing,
    WarmSettings,
};
use ipam::record::{Addresses, Assignment, Change, PodIp, PodIpv6, Record, Via};
use ipam::time::Timestamp;
use ipam::{Boot, Engine};
use ipnet::Ipv4Net;
use mac::MacAddr;

const N_ENIS: u16 = 15;
const N_BLOCKS: u16 = 49;
const LIMITS: Limits = Limits { enis: N_ENIS, addresses_per_eni: N_BLOCKS + 1, prefixes: true };

criterion_group!(benches, plans, events);
criterion_main!(benches);

/// The planner alone, from its input.
fn plans(criterion: &mut Criterion) {
    for (name, kind) in MODES {
        let policy = policy(kind);
        let situation = situation(kind).expect("the ids are well-formed");
        criterion.bench_function(&format!("plan, {name}"), |bencher| {
            bencher.iter(|| plan(black_box(&situation), &policy, &LIMITS, now()));
        });
    }
}

/// The full handling of one event on a node with one free address: an Add that gets the address, a Tick, and
/// the Del that gives it back.
fn events(criterion: &mut Criterion) {
    for (name, kind) in MODES {
        let mut node = FullNode::start(kind).expect("ids and blocks are well-formed");
        for (event, pick) in [("add", 0), ("tick", 1), ("del", 2)] {
            criterion.bench_function(&format!("{event} on a full node, {name}"), |bencher| {
                bencher.iter_custom(|rounds| (0..rounds).map(|_| node.round()[pick]).sum());
            });
        }
    }
}

const MODES: [(&str, BlockKind); 2] =
    [("15 x 49 prefixes", BlockKind::V4Prefix), ("15 x 49 addresses", BlockKind::V4Address)];

fn now() -> Timestamp {
    Timestamp::from_millis(1_000_000)
}

fn policy(kind: BlockKind) -> Policy {
    // More than the node can have, so that the planner visits every ENI.
    let targets = Targets::Ip { warm: 100_000, minimum: 0 };
    let family = FamilyPolicy { targets, ..FamilyPolicy::new(kind, WarmSettings::default()) };
    Policy {
        families: Families::single(family),
        placement: Placement::LikePrimary,
        provisioning: Provisioning::Always,
        max_enis: None,
        max_pods: 100_000,
        delegated_prefixes: None,
        connection_tracking: ipam::connection_tracking::ConnectionTracking::default(),
        mtu: 9001,
        pod_ipv6: PodIpv6::AsItIs,
        nat: ipam::policy::NatPolicy::default(),
        timing: Timing {
            // The address of one round serves in the next.
            cooldown: Duration::ZERO,
            add_wait: Duration::from_secs(10),
            grow_delay: Duration::ZERO,
            shrink_delay: Duration::from_secs(30),
            min_eni_age: Duration::from_secs(60),
            leak_age: None,
        },
    }
}

/// Every ENI has room for five more blocks, and the targets want all of them.
fn situation(kind: BlockKind) -> Result<Situation, Box<dyn Error>> {
    let open = Allowance::Open(u16::MAX);
    let subnet = SubnetSupply {
        id: SubnetId::try_from("subnet-0")?,
        addresses: open,
        prefixes: open,
        free: None,
        create_hold: None,
    };
    let n = N_BLOCKS - 5;
    let addresses = kind.size() * u64::from(n);
    let (prefixes, singles) = if kind == BlockKind::V4Prefix { (n, 0) } else { (0, n) };
    let tally = Tally { prefixes, singles, addresses, live: addresses, ..Tally::default() };
    let eni = |n: u16| -> Result<EniSupply, Box<dyn Error>> {
        Ok(EniSupply {
            id: eni_id(n)?,
            subnet: subnet.clone(),
            state: SupplyState::Attached,
            removable_from: None,
            busy: false,
            pending: None,
            hold: None,
            limit: u16::MAX,
            at_once: u16::MAX,
            tally,
        })
    };
    Ok(Situation {
        scope: Scope::All,
        family: policy(kind).families.policy(),
        enis: (0..N_ENIS).map(eni).collect::<Result<_, _>>()?,
        creating: Vec::new(),
        n_foreign: 0,
        n_waiting: 20,
        n_expected: 0,
        n_soon: None,
        n_to_delegate: 0,
        subnets: vec![subnet.clone()],
        no_subnet: Blocked {
            code: RefusalCode::SubnetExhausted,
            why: String::new(),
            until: None,
            passes_at: None,
        },
        create_at_most: u16::MAX,
        assign_hold: None,
        create_hold: None,
    })
}

/// An engine with full ENIs. Its saves succeed, and pods have all addresses but one.
struct FullNode {
    engine: Engine,
    n_requests: u64,
}

impl FullNode {
    fn start(kind: BlockKind) -> Result<Self, Box<dyn Error>> {
        let node = Node {
            instance: InstanceId::try_from("i-0")?,
            boot: BootId("a boot".to_owned()),
            primary_mac: MacAddr::from([2, 0, 0, 0, 0, 0]),
            subnet_cidr: None,
            instance_type: "p3dn.24xlarge".to_owned(),
            cluster: None,
            eni_tags: BTreeMap::new(),
            manage_untagged: true,
        };
        let enis = (0..N_ENIS).map(|n| eni(n, kind)).collect::<Result<Vec<_>, _>>()?;
        let record = record(&enis)?;
        let boot = Boot { node, limits: LIMITS, policy: policy(kind), record };
        let (engine, effects) = Engine::new(boot, now());
        let mut node = Self { engine, n_requests: 0 };
        for effect in effects {
            if let Effect::Call { id, call, why: _ } = effect {
                let output = match call {
                    Ec2Call::DescribeSubnets => CallOutput::Subnets(vec![subnet()?]),
                    _ => CallOutput::Enis(enis.clone()),
                };
                node.handle(Event::CallDone { id, result: Ok(output) });
            }
        }
        for eni in enis {
            node.handle(Event::EniLink { eni: eni.id, link: LinkState::Ready });
        }
        assert_eq!(node.engine.view(now()).counts.free, 1, "one address is free");
        Ok(node)
    }

    /// Times an Add, a Tick and a Del.
    fn round(&mut self) -> [Duration; 3] {
        let add = Event::Add {
            request: self.request(),
            key: key("one more"),
            pod: Pod::default(),
            netns: String::new(),
            node_local: NodeLocal::NotTaken,
            deadline: now() + Duration::from_secs(60),
        };
        let del = Event::Del { request: self.request(), key: key("one more") };
        [add, Event::Tick, del].map(|event| self.handle(event))
    }

    fn request(&mut self) -> RequestId {
        self.n_requests += 1;
        RequestId(self.n_requests)
    }

    /// Times the engine's handling of `event`, without the saves that follow.
    fn handle(&mut self, event: Event) -> Duration {
        let started = Instant::now();
        let effects = black_box(self.engine.handle(event, now()));
        let took = started.elapsed();
        for effect in effects {
            if let Effect::Save { seq, .. } = effect {
                self.handle(Event::Saved { seq, result: Ok(()) });
            }
        }
        took
    }
}

/// A record with a pod for every address of these ENIs but the last.
fn record(enis: &[EniFacts]) -> Result<Record, Box<dyn Error>> {
    let addresses = enis.iter().flat_map(|eni| {
        eni.blocks
            .iter()
            .flat_map(|block| block.addresses_from(0))
            .map(move |address| (eni, address))
    });
    let mut addresses: Vec<_> = addresses.collect();
    addresses.pop();
    let mut record = Record::default();
    for (eni, address) in addresses {
        let attachment = eni.attachment.as_ref().ok_or("every ENI is attached")?;
        let (card, index) = (attachment.network_card, attachment.device_index);
        let via = Via::Eni { eni: eni.id.clone(), card, index };
        let addresses = Addresses::one(PodIp { address, via });
        let (pod, netns) = (Pod::default(), String::new());
        let assignment = Assignment {
            addresses,
            node_local: None,
            ipv6: PodIpv6::AsItIs,
            pod,
            netns,
            since: now(),
        };
        record.apply(&Change::Assigned { key: key(&address.to_string()), assignment })?;
    }
    Ok(record)
}

fn key(container: &str) -> AttachmentKey {
    AttachmentKey {
        network: "aws-cni".into(),
        container: container.to_owned(),
        ifname: "eth0".to_owned(),
    }
}

fn subnet() -> Result<SubnetFacts, Box<dyn Error>> {
    Ok(SubnetFacts {
        id: SubnetId::try_from("subnet-0")?,
        cidr: Ipv4Net::new(Ipv4Addr::new(10, 0, 0, 0), 8)?.into(),
        free_addresses: Some(100_000),
        tags: BTreeMap::new(),
    })
}

fn eni_id(n: u16) -> Result<EniId, Box<dyn Error>> {
    Ok(EniId::try_from(format!("eni-{n}"))?)
}

fn eni(n: u16, kind: BlockKind) -> Result<EniFacts, Box<dyn Error>> {
    let [high, low] = n.to_be_bytes();
    let block = |m: u16| -> Result<Block, Box<dyn Error>> {
        let address = Ipv4Addr::from((10 << 24) | (u32::from(n) << 16) | (u32::from(m) << 4));
        let length = if kind == BlockKind::V4Prefix { 28 } else { 32 };
        Ok(Block::try_from(Ipv4Net::new(address, length)?)?)
    };
    Ok(EniFacts {
        id: eni_id(n)?,
        mac: MacAddr::from([2, 0, 0, 0, high, low]),
        subnet: SubnetId::try_from("subnet-0")?,
        security_groups: BTreeSet::new(),
        connection_tracking: ConnectionTracking::default(),
        primary_address: Ipv4Addr::new(10, 255, high, low).into(),
        blocks: (0..N_BLOCKS).map(block).collect::<Result<_, _>>()?,
        kind: EniKind::Interface,
        attachment: Some(EniAttachment {
            id: EniAttachmentId::try_from(format!("eni-attach-{n}"))?,
            device_index: n,
            network_card: 0,
            status: AttachmentStatus::Attached,
            delete_on_termination: true,
        }),
        tags: BTreeMap::new(),
    })
}

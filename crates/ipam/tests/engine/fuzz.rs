//! An EC2, a kernel and a disk that answer anything. The engine neither panics nor spins, gives no address
//! to two pods, and makes no more calls than a node can need.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use ipam::block::{Block, BlockKind};
use ipam::call::{
    AttachmentStatus, CallErrorKind, CallId, CallOutput, EniAttachment, EniFacts, EniKind,
    SubnetFacts,
};
use ipam::connection_tracking::ConnectionTracking;
use ipam::event::{Answer, Effect, Event, LinkState, MetadataEni, NodeLocal, RequestId, SaveSeq};
use ipam::id::{AttachmentKey, EniAttachmentId, EniId, Pod};
use ipam::policy::Targets;
use ipam::record::Record;
use ipam::time::Timestamp;
use ipam::{Boot, Engine};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::ec2::{REFUSALS, SUBNET, eni_id, error, mac_of, security_groups, subnet_id};
use crate::node::{INSTANCE, OURS, OnEni as _, Setup, key, limits, node_facts, warm_ip};

#[derive(Debug, Clone)]
enum FuzzStep {
    Add { pod: usize, patience_ms: u64 },
    Del(usize),
    Gc,
    Answer { which: Index, output: CallEnd },
    Link(u8, LinkState),
    Hint(BTreeMap<EniId, MetadataEni>),
    Saved { which: Index, well: bool },
    Pass(u64),
}

/// How a call ends.
#[derive(Debug, Clone)]
enum CallEnd {
    Answer(CallOutput),
    Refusal(CallErrorKind),
}

fn block() -> impl Strategy<Value = Block> {
    let prefix = |net: IpNet| Block::try_from(net).unwrap();
    let v4 = |host: u16| Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + u32::from(host));
    prop_oneof![
        4 => (0..48_u16).prop_map(move |host| Block::address(v4(host))),
        2 => (0..4_u16).prop_map(move |n| prefix(Ipv4Net::new(v4(16 * n), 28).unwrap().into())),
        1 => any::<u8>().prop_map(move |n| {
            let network = (u128::from(n) << 48).into();
            prefix(Ipv6Net::new(network, 80).unwrap().into())
        }),
        1 => any::<u32>().prop_map(|ip| Block::address(ip.into())),
    ]
}

fn tags() -> impl Strategy<Value = BTreeMap<String, String>> {
    let ours = (OURS.0.to_owned(), OURS.1.to_owned());
    let other = (OURS.0.to_owned(), format!("{INSTANCE}0"));
    let kept_off = ("node.k8s.amazonaws.com/no_manage".to_owned(), "true".to_owned());
    let none = BTreeMap::new();
    select(vec![none, BTreeMap::from([ours]), BTreeMap::from([other, kept_off])])
}

/// One of a few ENIs or, more rarely, one of a thousand.
fn eni() -> impl Strategy<Value = EniFacts> {
    let number = prop_oneof![9 => 0..6_u16, 1 => 0..1000_u16];
    let status = select(vec![
        AttachmentStatus::Attaching,
        AttachmentStatus::Attached,
        AttachmentStatus::Detaching,
    ]);
    let index = prop_oneof![8 => 0..5_u16, 1 => any::<u16>()];
    let attachment =
        (0..9_u8, index, prop_oneof![9 => Just(0_u16), 1 => any::<u16>()], status, any::<bool>())
            .prop_map(|(id, device_index, network_card, status, delete_on_termination)| {
                EniAttachment {
                    id: attachment_id(id),
                    device_index,
                    network_card,
                    status,
                    delete_on_termination,
                }
            });
    let blocks = prop::collection::btree_set(block(), 0..8);
    let place = (select(vec![SUBNET, "subnet-foreign"]), 0..64_u8);
    let kind = prop_oneof![8 => Just(EniKind::Interface), 1 => Just(EniKind::Other)];
    let groups = prop::collection::btree_set(select(vec!["sg-1", "sg-2"]), 0..3);
    let groups = groups.prop_map(|names| security_groups(&names.into_iter().collect::<Vec<_>>()));
    let carried = (blocks, groups);
    (number, prop::option::weighted(0.8, attachment), carried, place, kind, tags()).prop_map(
        |(number, attachment, (blocks, security_groups), (subnet, host), kind, tags)| EniFacts {
            id: eni_id(&format!("eni-{number:04}")),
            mac: mac_of(number),
            subnet: subnet_id(subnet),
            security_groups,
            connection_tracking: ConnectionTracking::default(),
            primary_address: Ipv4Addr::new(10, 0, 0, host).into(),
            blocks,
            kind,
            attachment,
            tags,
        },
    )
}

fn attachment_id(n: u8) -> EniAttachmentId {
    EniAttachmentId::try_from(format!("eni-attach-{n}")).unwrap()
}

fn subnet() -> impl Strategy<Value = SubnetFacts> {
    let role = BTreeMap::from([("kubernetes.io/role/cni".to_owned(), "1".to_owned())]);
    (0..3_u8, any::<u32>(), 0..=32_u8, any::<u32>(), any::<bool>()).prop_map(
        move |(id, network, length, free_addresses, has_role)| SubnetFacts {
            id: subnet_id(&format!("subnet-{id}")),
            cidr: Ipv4Net::new(network.into(), length).unwrap().into(),
            free_addresses: Some(free_addresses),
            tags: if has_role { role.clone() } else { BTreeMap::new() },
        },
    )
}

fn output() -> impl Strategy<Value = CallEnd> {
    let enis = |size| prop::collection::vec(eni(), size).prop_map(CallOutput::Enis);
    let answer = prop_oneof![
        60 => enis(0..8),
        1 => enis(1000..1001),
        10 => prop::collection::vec(subnet(), 0..4).prop_map(CallOutput::Subnets),
        10 => eni().prop_map(CallOutput::Created),
        10 => (0..9_u8).prop_map(|id| CallOutput::Attached(attachment_id(id))),
        20 => prop::collection::btree_set(block(), 0..20).prop_map(CallOutput::Assigned),
        10 => Just(CallOutput::Done),
    ];
    prop_oneof![6 => answer.prop_map(CallEnd::Answer), 1 => select(REFUSALS.to_vec()).prop_map(CallEnd::Refusal)]
}

fn steps() -> impl Strategy<Value = Vec<FuzzStep>> {
    let link = prop_oneof![
        4 => Just(LinkState::Ready),
        1 => Just(LinkState::Absent),
        1 => Just(LinkState::Failed(String::new())),
    ];
    let patience = prop_oneof![4 => 0..60_000_u64, 1 => any::<u64>()];
    let pass = prop_oneof![4 => 0..60_000_u64, 1 => 0..1_u64 << 40];
    let step = prop_oneof![
        4 => (0..8_usize, patience).prop_map(|(pod, patience_ms)| FuzzStep::Add { pod, patience_ms }),
        2 => (0..8_usize).prop_map(FuzzStep::Del),
        1 => Just(FuzzStep::Gc),
        8 => (any::<Index>(), output()).prop_map(|(which, output)| FuzzStep::Answer { which, output }),
        3 => (0..6_u8, link).prop_map(|(n, link)| FuzzStep::Link(n, link)),
        3 => prop::collection::vec(eni(), 0..8).prop_map(|enis| {
            let shown = |eni: EniFacts| MetadataEni {
                blocks: eni.blocks,
                security_groups: eni.security_groups,
            };
            FuzzStep::Hint(enis.into_iter().map(|eni| (eni.id.clone(), shown(eni))).collect())
        }),
        6 => (any::<Index>(), prop::bool::weighted(0.9))
            .prop_map(|(which, well)| FuzzStep::Saved { which, well }),
        3 => pass.prop_map(FuzzStep::Pass),
    ];
    prop::collection::vec(step, 1..60)
}

fn policies() -> impl Strategy<Value = Setup> {
    let targets = prop_oneof![
        (0..3_u16).prop_map(Targets::WarmEni),
        (0..3_u16).prop_map(Targets::WarmPrefix),
        (0..9_u32, 0..9_u32).prop_map(|(warm, minimum)| Targets::Ip { warm, minimum }),
    ];
    let kinds = vec![BlockKind::V4Address, BlockKind::V4Prefix, BlockKind::V6Prefix];
    (select(kinds), targets).prop_map(|(kind, targets)| Setup { kind, targets, ..warm_ip(0, 0) })
}

/// An engine, with its calls and saves that have not ended.
struct FuzzedNode {
    engine: Engine,
    now: Timestamp,
    calls: BTreeSet<CallId>,
    saves: BTreeSet<SaveSeq>,
    record: Record,
    adds: BTreeMap<RequestId, AttachmentKey>,
    n_requests: u64,
}

impl FuzzedNode {
    fn new(policy: Setup) -> Self {
        let boot = Boot {
            node: node_facts(),
            limits: limits("m5.large"),
            policy: policy.into(),
            record: Record::default(),
        };
        let now = Timestamp::from_millis(1_000_000);
        let (engine, effects) = Engine::new(boot, now);
        let mut node = Self {
            engine,
            now,
            calls: BTreeSet::new(),
            saves: BTreeSet::new(),
            record: Record::default(),
            adds: BTreeMap::new(),
            n_requests: 0,
        };
        node.absorb(effects);
        node
    }

    fn send(&mut self, event: Event) {
        let effects = self.engine.handle(event, self.now);
        self.absorb(effects);
    }

    fn absorb(&mut self, effects: Vec<Effect>) {
        // The node has at most three ENIs and eight pods.
        assert!(effects.len() < 100, "{} effects of one event", effects.len());
        for effect in effects {
            match effect {
                Effect::Save { seq, changes } => {
                    // The record refuses an address that two attachments would share.
                    changes.iter().for_each(|change| self.record.apply(change).unwrap());
                    self.saves.insert(seq);
                }
                Effect::Call { id, .. } => {
                    assert!(self.calls.insert(id), "{id:?} is made twice");
                }
                Effect::Reply { request, answer: Answer::Granted(granted) } => {
                    let key = &self.adds[&request];
                    assert_eq!(self.record.owner(granted.address()), Some(key));
                }
                Effect::Reply { .. }
                | Effect::ReadMetadata { .. }
                | Effect::SyncHost(_)
                | Effect::TakeDown(_)
                | Effect::ReadKernel
                | Effect::RestorePods(_)
                | Effect::RemoveHostAddresses(_)
                | Effect::ForgetConnections(_) => {}
            }
        }
    }

    fn request(&mut self) -> RequestId {
        self.n_requests += 1;
        RequestId(self.n_requests)
    }

    fn take(&mut self, step: FuzzStep) {
        match step {
            FuzzStep::Add { pod, patience_ms } => {
                let (request, key) = (self.request(), key(pod));
                self.adds.insert(request, key.clone());
                let deadline = self.now + Duration::from_millis(patience_ms);
                let (pod, netns) = (Pod::default(), String::new());
                let node_local = NodeLocal::Taken;
                self.send(Event::Add { request, key, pod, netns, node_local, deadline });
            }
            FuzzStep::Del(pod) => {
                let (request, key) = (self.request(), key(pod));
                self.send(Event::Del { request, key });
            }
            FuzzStep::Gc => {
                let (request, network) = (self.request(), key(0).network);
                let (valid, adding) = (BTreeSet::new(), BTreeSet::new());
                self.send(Event::Gc { request, network, valid, adding });
            }
            FuzzStep::Answer { which, output } => {
                let Some(id) = pick(&self.calls, which) else { return };
                self.calls.remove(&id);
                let result = match output {
                    CallEnd::Answer(output) => Ok(output),
                    CallEnd::Refusal(kind) => Err(error(kind)),
                };
                self.send(Event::CallDone { id, result });
            }
            FuzzStep::Link(n, link) => {
                let eni = eni_id(&format!("eni-{n:04}"));
                self.send(Event::EniLink { eni, link });
            }
            FuzzStep::Hint(shown) => self.send(Event::Hint(shown)),
            FuzzStep::Saved { which, well } => {
                let Some(seq) = pick(&self.saves, which) else { return };
                self.saves.remove(&seq);
                let result = if well { Ok(()) } else { Err("the disk is full".to_owned()) };
                self.send(Event::Saved { seq, result });
            }
            FuzzStep::Pass(ms) => {
                self.now = self.now + Duration::from_millis(ms);
                self.send(Event::Tick);
                let wake_at = self.engine.wake_at();
                assert!(wake_at.is_none_or(|at| at > self.now), "{wake_at:?} at {:?}", self.now);
            }
        }
    }

    fn check(&self) {
        let view = self.engine.view(self.now);
        let mut owners = BTreeMap::new();
        for (key, assignment) in &view.assignments {
            assert_eq!(owners.insert(assignment.address(), key), None, "{}", assignment.address());
        }
        assert!(view.in_flight.len() < 100, "{:?}", view.in_flight);
        let _ = self.engine.ready(self.now);
    }
}

fn pick<T: Copy>(among: &BTreeSet<T>, which: Index) -> Option<T> {
    let all: Vec<T> = among.iter().copied().collect();
    (!all.is_empty()).then(|| *which.get(&all))
}

proptest! {
    #[test]
    fn fuzz_answers(policy in policies(), steps in steps()) {
        let mut node = FuzzedNode::new(policy);
        for step in steps {
            node.take(step);
            node.check();
        }
    }
}

//! How long planning takes on the largest node, 15 ENIs with 49 prefixes each and 700 pods:
//! `cargo run --release -p ipam --example plan_timing`.

#![expect(clippy::print_stdout, reason = "it is there to print figures")]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ipam::block::Block;
use ipam::call::{
    AttachmentStatus, CallOutput, Ec2Call, EniAttachment, EniFacts, EniKind, SubnetFacts,
};
use ipam::event::{Effect, Event, LinkState, RequestId};
use ipam::id::{AttachmentKey, EniAttachmentId, EniId, InstanceId, Pod, SubnetId};
use ipam::plan::{Allowance, EniSupply, Situation, SubnetSupply, SupplyState, Tally, plan};
use ipam::policy::{Limits, Mode, Node, Policy, Targets};
use ipam::record::Record;
use ipam::time::Timestamp;
use ipam::{Boot, Engine};
use ipnet::{IpNet, Ipv4Net};

const N_ENIS: u16 = 15;
const N_PREFIXES: u16 = 49;
const N_PODS: u64 = 700;

const LIMITS: Limits = Limits { enis: N_ENIS, addresses_per_eni: N_PREFIXES + 1, prefixes: true };

fn main() -> Result<(), Box<dyn Error>> {
    let now = Timestamp::from_millis(1_000_000);
    let (policy, situation) = (policy(), situation()?);
    report("plan, from its input", 2_000, || {
        black_box(plan(&situation, &policy, &LIMITS, now));
    });
    let mut node = FullNode::settled(policy, now)?;
    report("tick: all that an event leads to", 2_000, || {
        black_box(node.engine.handle(Event::Tick, now));
    });
    report("add, with its save", 500, || node.add());
    Ok(())
}

fn report(what: &str, rounds: u32, mut run: impl FnMut()) {
    let started = Instant::now();
    (0..rounds).for_each(|_| run());
    println!("{what}: {:?}", started.elapsed() / rounds);
}

fn policy() -> Policy {
    Policy {
        mode: Mode::Prefix,
        // More than there is, so that the planner looks everywhere.
        targets: Targets::WarmPrefix(N_ENIS * N_PREFIXES),
        max_enis: None,
        max_pods: 100_000,
        cooldown: Duration::from_secs(30),
        add_wait: Duration::from_secs(10),
        grow_delay: Duration::ZERO,
        shrink_delay: Duration::from_secs(30),
        min_eni_age: Duration::from_secs(60),
    }
}

fn situation() -> Result<Situation, Box<dyn Error>> {
    let open = Allowance::Open(u16::MAX);
    let subnet =
        SubnetSupply { id: SubnetId::try_from("subnet-0")?, addresses: open, prefixes: open };
    let tally = Tally {
        prefixes: N_PREFIXES - 5,
        idle_prefixes: 1,
        addresses: 16 * u64::from(N_PREFIXES - 5),
        live: 600,
        ..Tally::default()
    };
    let eni = |n: u16| -> Result<EniSupply, Box<dyn Error>> {
        Ok(EniSupply {
            id: EniId::try_from(format!("eni-{n}"))?,
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
        enis: (0..N_ENIS).map(eni).collect::<Result<_, _>>()?,
        creating: Vec::new(),
        n_foreign: 0,
        n_waiting: 20,
        subnets: vec![subnet.clone()],
        create_at_most: u16::MAX,
        assign_hold: None,
        create_hold: None,
    })
}

/// An engine with full ENIs, whose saves succeed.
struct FullNode {
    engine: Engine,
    now: Timestamp,
    n_added: u64,
}

impl FullNode {
    fn settled(policy: Policy, now: Timestamp) -> Result<Self, Box<dyn Error>> {
        let node = Node {
            instance: InstanceId::try_from("i-0")?,
            instance_type: "p3dn.24xlarge".to_owned(),
            subnet: SubnetId::try_from("subnet-0")?,
            security_groups: BTreeSet::new(),
            cluster: None,
            eni_tags: BTreeMap::new(),
            manage_untagged: true,
        };
        let boot = Boot { node, limits: LIMITS, policy, record: Record::default() };
        let (engine, effects) = Engine::new(boot, now);
        let mut node = Self { engine, now, n_added: 0 };
        for effect in effects {
            if let Effect::Call { id, call } = effect {
                let output = match call {
                    Ec2Call::DescribeSubnets => CallOutput::Subnets(vec![subnet()?]),
                    _ => CallOutput::Enis((0..N_ENIS).map(eni).collect::<Result<_, _>>()?),
                };
                node.send(Event::CallDone { id, result: Ok(output) });
            }
        }
        for n in 0..N_ENIS {
            let eni = EniId::try_from(format!("eni-{n}"))?;
            node.send(Event::EniLink { eni, link: LinkState::Ready });
        }
        (0..N_PODS).for_each(|_| node.add());
        Ok(node)
    }

    fn send(&mut self, event: Event) {
        for effect in self.engine.handle(event, self.now) {
            if let Effect::Save { seq, .. } = effect {
                self.send(Event::Saved { seq, result: Ok(()) });
            }
        }
    }

    fn add(&mut self) {
        self.n_added += 1;
        let key = AttachmentKey {
            network: "aws-cni".to_owned(),
            container: format!("{:x}", self.n_added),
            ifname: "eth0".to_owned(),
        };
        self.send(Event::Add {
            request: RequestId(self.n_added),
            key,
            pod: Pod::default(),
            netns: String::new(),
            deadline: self.now + Duration::from_secs(60),
        });
    }
}

fn subnet() -> Result<SubnetFacts, Box<dyn Error>> {
    Ok(SubnetFacts {
        id: SubnetId::try_from("subnet-0")?,
        cidr: Ipv4Net::new(Ipv4Addr::new(10, 0, 0, 0), 8)?,
        free_addresses: 100_000,
        tags: BTreeMap::new(),
    })
}

fn eni(n: u16) -> Result<EniFacts, Box<dyn Error>> {
    let [high, low] = n.to_be_bytes();
    let prefix = |m: u16| -> Result<Block, Box<dyn Error>> {
        let base = (10 << 24) | (u32::from(n) << 16) | (u32::from(m) << 4);
        Ok(Block::try_from(IpNet::new(Ipv4Addr::from(base).into(), 28)?)?)
    };
    Ok(EniFacts {
        id: EniId::try_from(format!("eni-{n}"))?,
        mac: format!("02:00:00:00:{high:02x}:{low:02x}"),
        subnet: SubnetId::try_from("subnet-0")?,
        primary_address: Ipv4Addr::new(10, 255, high, low),
        blocks: (0..N_PREFIXES).map(prefix).collect::<Result<_, _>>()?,
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

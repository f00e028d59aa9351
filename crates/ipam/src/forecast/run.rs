//! A node in virtual time on which everything succeeds at once. The engine makes all decisions.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::ec2::{Ec2, mac_of};
use crate::call::Action;
use crate::eni_config::EniConfigAnswer;
use crate::event::{Answer, Effect, Event, LinkState, NodeLocal, Refusal, RequestId};
use crate::id::{AttachmentKey, BootId, InstanceId, Pod};
use crate::policy::{Limits, Node, Placement, Policy, Timing};
use crate::record::Record;
use crate::time::Timestamp;
use crate::view::PoolView;
use crate::{Boot, Engine};

/// How long a pod waits at most: longer than any wait that ends by itself.
const PATIENCE: Duration = Duration::from_secs(3600);

pub(super) struct Run {
    engine: Engine,
    ec2: Ec2,
    now: Timestamp,
    /// After this time the pool gives nothing more back.
    rest: Duration,
    effects: VecDeque<Effect>,
    answer: Option<Answer>,
    calls: BTreeMap<Action, u32>,
}

impl Run {
    /// A node without pods that has settled.
    pub(super) fn start(limits: Limits, policy: Policy) -> Self {
        let timing = policy.timing;
        let timing = Timing { add_wait: PATIENCE, grow_delay: Duration::ZERO, ..timing };
        let policy = Policy { timing, ..policy };
        // An ENI must first reach its minimum age and then be surplus for long enough.
        let rest = timing.min_eni_age.saturating_add(timing.shrink_delay * 10).saturating_mul(2);
        let now = Timestamp::from_millis(0);
        let by_eni_config = policy.placement == Placement::ByEniConfig;
        let boot = Boot { node: node(), limits, policy, record: Record::default() };
        let (engine, effects) = Engine::new(boot, now);
        let mut run = Self {
            engine,
            ec2: Ec2::new(),
            now,
            rest,
            effects: effects.into(),
            answer: None,
            calls: BTreeMap::new(),
        };
        run.settle();
        if by_eni_config {
            run.send(Event::EniConfig(EniConfigAnswer::Found(super::ec2::eni_config())));
            run.settle();
        }
        run
    }

    pub(super) fn view(&self) -> PoolView {
        self.engine.view(self.now)
    }

    /// The addresses at EC2 without a pod. On a settled pool without resting addresses this is the view's sum
    /// of free addresses, but it spares the view's copy of every assignment.
    pub(super) fn n_unused(&self) -> u64 {
        self.ec2.n_addresses() - self.engine.record().assignments().len() as u64
    }

    pub(super) fn into_calls(self) -> BTreeMap<Action, u32> {
        self.calls
    }

    /// Adds the pod with this number and settles.
    pub(super) fn add_pod(&mut self, number: u32) -> Result<(), Refusal> {
        self.send(Event::Add {
            request: RequestId(number.into()),
            key: AttachmentKey {
                network: "aws-cni".into(),
                container: format!("{number:08x}"),
                ifname: "eth0".to_owned(),
            },
            pod: Pod::default(),
            netns: String::new(),
            node_local: NodeLocal::NotTaken,
            deadline: self.now + PATIENCE,
        });
        self.settle();
        while self.answer.is_none() {
            self.now = self.engine.wake_at().expect("an Add that waits has a deadline");
            self.send(Event::Tick);
            self.settle();
        }
        match self.answer.take() {
            Some(Answer::Refused(refusal)) => Err(refusal),
            Some(Answer::Granted(_) | Answer::Released(_) | Answer::Collected(_)) | None => Ok(()),
        }
    }

    /// Lets time pass until nothing more goes back.
    pub(super) fn rest(&mut self) {
        let end = self.now + self.rest;
        while let Some(at) = self.engine.wake_at().filter(|at| *at <= end) {
            self.now = at;
            self.send(Event::Tick);
            self.settle();
        }
        self.now = end;
    }

    fn send(&mut self, event: Event) {
        let effects = self.engine.handle(event, self.now);
        self.effects.extend(effects);
    }

    /// Carries out every effect, and the effects that follow from it, without letting time pass.
    fn settle(&mut self) {
        while let Some(effect) = self.effects.pop_front() {
            match effect {
                Effect::Save { seq, .. } => self.send(Event::Saved { seq, result: Ok(()) }),
                Effect::Reply { answer, .. } => self.answer = Some(answer),
                Effect::ReadMetadata { id, call } => {
                    let result = self.ec2.execute(call);
                    self.send(Event::CallDone { id, result });
                }
                Effect::Call { id, call, why: _ } => {
                    *self.calls.entry(call.action()).or_default() += 1;
                    let result = self.ec2.execute(call);
                    self.send(Event::CallDone { id, result });
                }
                Effect::SyncHost(picture) => {
                    for eni in picture.enis {
                        self.send(Event::EniLink { eni: eni.eni, link: LinkState::Ready });
                    }
                }
                // The forecast has no kernel, and an engine without any report asks for none.
                Effect::TakeDown(_)
                | Effect::ReadKernel
                | Effect::RestorePods(_)
                | Effect::RemoveHostAddresses(_)
                | Effect::ForgetConnections(_) => {}
            }
        }
    }
}

fn node() -> Node {
    Node {
        instance: InstanceId::try_from("i-0").expect("it has the prefix of its kind"),
        boot: BootId("a boot".to_owned()),
        primary_mac: mac_of(0),
        subnet_cidr: None,
        instance_type: "any".to_owned(),
        cluster: None,
        eni_tags: BTreeMap::new(),
        manage_untagged: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::BlockKind;
    use crate::policy::{Families, FamilyPolicy, Targets, WarmSettings};

    #[test]
    fn n_unused_equals_the_views_free_addresses() {
        for (kind, targets) in [
            (BlockKind::V4Address, Targets::WarmEni(1)),
            (BlockKind::V4Prefix, Targets::WarmPrefix(1)),
            (BlockKind::V4Prefix, Targets::Ip { warm: 3, minimum: 20 }),
            (BlockKind::V6Prefix, Targets::Ip { warm: 1, minimum: 0 }),
        ] {
            let family =
                FamilyPolicy { targets, ..FamilyPolicy::new(kind, WarmSettings::default()) };
            let policy = Policy {
                families: Families::single(family),
                placement: Placement::LikePrimary,
                provisioning: crate::policy::Provisioning::Always,
                max_enis: None,
                max_pods: 1000,
                delegated_prefixes: None,
                connection_tracking: crate::connection_tracking::ConnectionTracking::default(),
                mtu: 9001,
                pod_ipv6: crate::record::PodIpv6::AsItIs,
                nat: crate::policy::NatPolicy::default(),
                timing: Timing {
                    cooldown: Duration::from_secs(30),
                    add_wait: PATIENCE,
                    grow_delay: Duration::ZERO,
                    shrink_delay: Duration::ZERO,
                    min_eni_age: Duration::ZERO,
                    leak_age: None,
                },
            };
            let mut run =
                Run::start(Limits { enis: 3, addresses_per_eni: 4, prefixes: true }, policy);
            let (mut shown, mut unused) = (vec![], vec![]);
            for number in 0..200 {
                shown.push(run.view().counts.free);
                unused.push(run.n_unused());
                if run.add_pod(number).is_err() {
                    break;
                }
            }
            assert!(shown.len() >= 9, "{kind:?} {targets:?}: {shown:?}");
            assert_eq!(unused, shown, "{kind:?} {targets:?}");
        }
    }
}

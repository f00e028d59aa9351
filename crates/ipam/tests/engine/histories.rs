//! Random histories against a model of what pods, the log and EC2 have seen. After every step:
//!
//! * an address belongs to one pod, and is on an attached ENI as long as it does;
//! * a new grant is on an ENI whose host side was ready, and on record before it is answered;
//! * a call that changes something is on record before it is made, and none gives back an address
//!   that a pod has or that rests;
//! * an address whose link the kernel has shown without a word of it on record is neither granted
//!   nor given back;
//! * each request is answered once, Adds by their deadline;
//! * what is on record of the ENIs is true;
//! * as long as EC2 is silent after a start, nothing is asked of it but what is here;
//! * nobody waits without a reason while nothing is under way.
//!
//! In the end all comes to rest, nothing has leaked, and the same history has the same effects.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipam::block::Block;
use ipam::call::{CallErrorKind, CallId, CallOutput, Ec2Call};
use ipam::event::{Answer, Event, LinkState, RequestId};
use ipam::id::{AttachmentKey, BootId, EniId};
use ipam::policy::{Limits, Mode, Policy, WarmSettings};
use ipam::record::{Assignment, Change, KnownEni, Record};
use ipam::time::Timestamp;
use ipam::view::{EniStage, PoolView};
use proptest::prelude::*;

use crate::ec2::{Ec2, REFUSALS, SUBNET, error};
use crate::node::{Node, key, limits, policy};
use crate::settings::policies;

const PODS: usize = 12;

#[derive(Debug, Clone)]
enum Step {
    Add {
        pod: usize,
        patience_ms: u64,
    },
    Cancel {
        which: usize,
    },
    Del {
        pod: usize,
    },
    Gc {
        alive: Vec<usize>,
    },
    EndCall {
        which: usize,
        end: End,
    },
    EndSync(LinkState),
    EndSave(SaveEnd),
    Pass {
        ms: u64,
    },
    /// The process dies. Of what is under way the first so many take effect all the same.
    Restart {
        n_saves: usize,
        n_calls: usize,
        record: Fate,
        /// For so long EC2 does not answer the next one, while disk and host do; pods come meanwhile.
        silent_ms: u64,
        /// Whether the machine boots as well.
        reboot: bool,
    },
    /// The sandbox ends without a word to the daemon.
    Die {
        pod: usize,
    },
    /// The link goes, if its pod has been ended.
    Unlink {
        pod: usize,
    },
    /// The kernel is read.
    Look,
}

/// What becomes of the record when the process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Lost,
}

/// How a call ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Done,
    /// Readings tell what was true when they were asked for.
    Early,
    Refused(CallErrorKind),
    /// The answer is lost.
    Lost {
        after_effect: bool,
    },
}

#[derive(Debug, Clone, Copy)]
enum SaveEnd {
    /// The so many oldest at once.
    Durable(usize),
    /// It is reported as failed, but may be in the file.
    Failed { in_file: bool },
}

#[derive(Debug, Clone)]
struct Setting {
    policy: Policy,
    /// What the engine believes, and what EC2 does.
    limits: (Limits, Limits),
    n_addresses: u16,
    n_prefixes: u16,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind = prop::sample::select(REFUSALS.to_vec());
    let end = prop_oneof![
        8 => Just(End::Done),
        1 => Just(End::Early),
        2 => kind.prop_map(End::Refused),
        1 => any::<bool>().prop_map(|after_effect| End::Lost { after_effect }),
    ];
    let link = prop_oneof![
        6 => Just(LinkState::Ready),
        1 => Just(LinkState::Absent),
        1 => Just(LinkState::Failed("no such device".to_owned())),
    ];
    let save = prop_oneof![
        8 => (1..4_usize).prop_map(SaveEnd::Durable),
        1 => any::<bool>().prop_map(|in_file| SaveEnd::Failed { in_file }),
    ];
    let step = prop_oneof![
        6 => (0..PODS, 0..20_000_u64).prop_map(|(pod, patience_ms)| Step::Add { pod, patience_ms }),
        1 => (0..8_usize).prop_map(|which| Step::Cancel { which }),
        4 => (0..PODS).prop_map(|pod| Step::Del { pod }),
        1 => prop::collection::vec(0..PODS, 0..PODS).prop_map(|alive| Step::Gc { alive }),
        9 => (0..4_usize, end).prop_map(|(which, end)| Step::EndCall { which, end }),
        4 => link.prop_map(Step::EndSync),
        12 => save.prop_map(Step::EndSave),
        4 => prop_oneof![1..1_000_u64, 1_000..40_000_u64, 40_000..400_000_u64]
            .prop_map(|ms| Step::Pass { ms }),
        1 => (
            (0..3_usize, 0..3_usize),
            prop::sample::select(vec![Fate::Kept, Fate::Lost]),
            0..2_000_u64,
            prop::bool::weighted(0.1),
        )
            .prop_map(|((n_saves, n_calls), record, silent_ms, reboot)| {
                Step::Restart { n_saves, n_calls, record, silent_ms, reboot }
            }),
        1 => (0..PODS).prop_map(|pod| Step::Die { pod }),
        4 => (0..PODS).prop_map(|pod| Step::Unlink { pod }),
        4 => Just(Step::Look),
    ];
    prop::collection::vec(step, 1..120)
}

fn settings() -> impl Strategy<Value = Setting> {
    let policies = policies(vec![Mode::SecondaryIp, Mode::Prefix]);
    let limits =
        (any::<bool>(), 1..4_u16, 2..5_u16).prop_map(|(prefixes, enis, addresses_per_eni)| {
            let believed = Limits { prefixes, ..limits("t3.small") };
            (believed, Limits { enis, addresses_per_eni, ..believed })
        });
    (policies, limits, 0..16_u16, 0..6_u16).prop_map(|(policy, limits, n_addresses, n_prefixes)| {
        Setting { policy, limits, n_addresses, n_prefixes }
    })
}

/// What an open request is.
#[derive(Debug, Clone)]
enum Open {
    Add { key: AttachmentKey, deadline: Timestamp },
    Release,
}

/// What has been seen from outside.
struct World {
    node: Node,
    /// What the pods have been told.
    live: BTreeMap<AttachmentKey, IpAddr>,
    /// Those whose end has been asked for, whether or not it was granted.
    ending: BTreeSet<AttachmentKey>,
    open: BTreeMap<RequestId, Open>,
    /// The links that the last look has shown although nothing on record explains them.
    strange: BTreeMap<IpAddr, AttachmentKey>,
    /// The record that the log holds, and how much of the log is in it.
    durable: Record,
    n_log: usize,
    /// ENIs that were ready in this run, and attachments that it found on record.
    ready: BTreeSet<EniId>,
    known: BTreeSet<AttachmentKey>,
    seen_calls: BTreeSet<CallId>,
}

impl World {
    fn new(setting: &Setting) -> Self {
        let (believed, real) = setting.limits;
        let mut ec2 = Ec2::new(real);
        ec2.subnet(SUBNET).n_addresses = setting.n_addresses;
        ec2.subnet(SUBNET).n_prefixes = setting.n_prefixes;
        let mut world = Self {
            node: Node::start_with(ec2, believed, setting.policy.clone()),
            live: BTreeMap::new(),
            ending: BTreeSet::new(),
            open: BTreeMap::new(),
            strange: BTreeMap::new(),
            durable: Record::default(),
            n_log: 0,
            ready: BTreeSet::new(),
            known: BTreeSet::new(),
            seen_calls: BTreeSet::new(),
        };
        world.check();
        world
    }

    fn take(&mut self, step: &Step) {
        match step {
            // No runtime adds what it has added.
            Step::Add { pod, .. } if self.runs_unrecorded(*pod) => {}
            Step::Add { pod, patience_ms } => {
                self.node.ended.remove(&key(*pod));
                let deadline = self.node.now + Duration::from_millis(*patience_ms);
                let request = self.node.add_until(*pod, deadline);
                self.open.insert(request, Open::Add { key: key(*pod), deadline });
            }
            Step::Cancel { which } => {
                let adds = self.open.iter().filter(|(_, open)| matches!(open, Open::Add { .. }));
                let request = adds.map(|(request, _)| *request).nth(*which);
                if let Some(request) = request {
                    self.open.remove(&request);
                    self.node.cancel(request);
                }
            }
            Step::Del { pod } => {
                self.ending.insert(key(*pod));
                let request = self.node.del(*pod);
                self.open.insert(request, Open::Release);
            }
            Step::Gc { alive } => {
                let dead = (0..PODS).filter(|pod| !alive.contains(pod)).map(key);
                let adding = |key: &AttachmentKey| {
                    self.open
                        .values()
                        .any(|open| matches!(open, Open::Add { key: k, .. } if k == key))
                };
                let dead: Vec<_> = dead.filter(|key| !adding(key)).collect();
                self.ending.extend(dead);
                let request = self.node.gc(alive);
                self.open.insert(request, Open::Release);
            }
            Step::EndCall { which, end } => self.end_call(*which, *end),
            Step::EndSync(state) => {
                if *state == LinkState::Ready {
                    self.ready.extend(self.node.host.iter().flatten().map(|eni| eni.eni.clone()));
                }
                self.node.end_sync(state);
            }
            Step::EndSave(SaveEnd::Durable(n)) => self.make_durable(*n),
            Step::EndSave(SaveEnd::Failed { in_file }) => {
                if *in_file && let Some((_, changes)) = self.node.saves.front() {
                    self.node.log.extend(changes.clone());
                }
                self.node.end_save(Err("disk full".to_owned()));
            }
            Step::Pass { ms } => self.pass(*ms),
            Step::Restart { n_saves, n_calls, record, silent_ms, reboot } => {
                self.restart(*n_saves, *n_calls, *record, *reboot);
                self.be_silent(*silent_ms);
            }
            Step::Die { pod } => {
                self.ending.insert(key(*pod));
                self.node.ended.insert(key(*pod));
                self.node.links.retain(|_, owner| *owner != key(*pod));
            }
            Step::Unlink { pod } if self.ending.contains(&key(*pod)) => {
                self.node.links.retain(|_, owner| *owner != key(*pod));
            }
            Step::Unlink { .. } => {}
            Step::Look => self.look(),
        }
        self.check();
    }

    fn end_call(&mut self, which: usize, end: End) {
        if self.node.calls.is_empty() {
            return;
        }
        let (id, call) = self.node.calls.remove(which % self.node.calls.len()).unwrap();
        let reads = call.reads();
        let result = match end {
            End::Done => self.node.ec2.execute(&call),
            End::Early => {
                match self.node.early.get(&id).filter(|_| call == Ec2Call::DescribeEnis) {
                    Some(output) => Ok(output.clone()),
                    None => self.node.ec2.execute(&call),
                }
            }
            End::Refused(kind) if reads && kind != CallErrorKind::AccessDenied => {
                Err(error(CallErrorKind::Throttled))
            }
            End::Refused(kind) => Err(error(kind)),
            End::Lost { after_effect } => {
                if after_effect {
                    let _: Result<CallOutput, _> = self.node.ec2.execute(&call);
                }
                Err(error(CallErrorKind::OutcomeUnknown))
            }
        };
        self.node.send(Event::CallDone { id, result });
    }

    /// The oldest `n` saves become durable, and the last of them is reported.
    fn make_durable(&mut self, n: usize) {
        let n = n.min(self.node.saves.len());
        let durable: Vec<_> = self.node.saves.drain(..n).collect();
        let Some((seq, _)) = durable.last() else { return };
        let seq = *seq;
        self.node.log.extend(durable.into_iter().flat_map(|(_, changes)| changes));
        self.node.send(Event::Saved { seq, result: Ok(()) });
    }

    fn pass(&mut self, ms: u64) {
        let end = self.node.now + Duration::from_millis(ms);
        while let Some(at) = self.node.engine.wake_at().filter(|at| *at <= end) {
            assert!(at > self.node.now, "woken for the past");
            self.node.now = at;
            self.node.send(Event::Tick);
            self.check();
        }
        self.node.now = end;
    }

    /// Two pods come as soon as they may. What EC2 said before is all that the engine has.
    fn be_silent(&mut self, ms: u64) {
        let end = self.node.now + Duration::from_millis(ms);
        for pod in 0..2 {
            self.take(&Step::Add { pod, patience_ms: 20_000 });
        }
        loop {
            if !self.node.saves.is_empty() {
                self.make_durable(1);
            } else if self.node.host.is_some() {
                self.take(&Step::EndSync(LinkState::Ready));
            } else if let Some(at) = self.node.engine.wake_at().filter(|at| *at <= end) {
                self.take(&Step::Pass { ms: at.as_millis() - self.node.now.as_millis() });
            } else {
                break;
            }
            self.check();
        }
        let made = self.node.calls.iter().find(|(_, call)| !call.reads());
        assert_eq!(made, None, "EC2 has not said what is here");
    }

    fn restart(&mut self, n_saves: usize, n_calls: usize, record: Fate, reboot: bool) {
        for _ in 0..n_saves {
            if let Some((_, changes)) = self.node.saves.pop_front() {
                self.node.log.extend(changes);
            }
        }
        for _ in 0..n_calls {
            if let Some((_, call)) = self.node.calls.pop_front() {
                let _: Result<CallOutput, _> = self.node.ec2.execute(&call);
            }
        }
        self.open.clear();
        self.ready.clear();
        self.seen_calls.clear();
        self.catch_up();
        if record == Fate::Lost {
            self.node.log.clear();
            self.n_log = 0;
            self.durable = Record::default();
        }
        self.known = self.durable.assignments().keys().map(AttachmentKey::nameless).collect();
        if reboot {
            self.node.boot.node.boot = BootId(format!("after {} lines", self.n_log));
        }
        // Else the same moment is before and after the look at the kernel.
        self.node.now = self.node.now + Duration::from_millis(1);
        self.node.restart();
        self.note_strange();
    }

    fn runs_unrecorded(&self, pod: usize) -> bool {
        let key = key(pod);
        self.live.contains_key(&key)
            && !self.ending.contains(&key)
            && self.on_record(&key).is_none()
    }

    /// What the log has for `key`, be it that it knows its link alone.
    fn on_record(&self, key: &AttachmentKey) -> Option<&Assignment> {
        let assignments = self.durable.assignments();
        assignments.get(key).or_else(|| assignments.get(&key.nameless()))
    }

    fn look(&mut self) {
        // Else the same moment is before and after the look.
        self.pass(1);
        self.node.look();
        self.note_strange();
    }

    fn note_strange(&mut self) {
        let record = self.node.engine.record();
        let view = self.node.view();
        let blocks = view.enis.iter().flat_map(|eni| eni.blocks.values());
        let promised: BTreeSet<_> = blocks.flat_map(|block| block.assigned.clone()).collect();
        let leaving = self.leaving(&view);
        let stays = |ip: &IpAddr| !leaving.iter().any(|block| block.contains(*ip));
        let links = self.node.links.iter().filter(|(ip, _)| stays(ip));
        let strange = links.filter(|(ip, owner)| match record.owner(**ip) {
            Some(other) => other.mark() != owner.mark(),
            None => !promised.contains(*ip),
        });
        self.strange = strange.map(|(ip, owner)| (*ip, owner.clone())).collect();
    }

    /// What is on its way back to EC2 already: too late for a link that shows now, after its pod was
    /// released and its address had rested.
    fn leaving(&self, view: &PoolView) -> BTreeSet<Block> {
        let draining = view.enis.iter().filter(|eni| eni.stage == EniStage::Draining);
        let of_enis = draining.flat_map(|eni| eni.blocks.keys().copied());
        let intents = self.node.engine.record().intents().values();
        let saves = self.node.saves.iter().flat_map(|(_, changes)| changes);
        let intended = saves.filter_map(|change| match change {
            Change::Intended { call, .. } => Some(call),
            _ => None,
        });
        let of_calls = intents.chain(intended).filter_map(|call| match call {
            Ec2Call::Unassign { blocks, .. } => Some(blocks.iter().copied()),
            _ => None,
        });
        of_calls.flatten().chain(of_enis).collect()
    }

    /// The addresses of those of them that are still there.
    fn withheld(&self) -> impl Iterator<Item = IpAddr> {
        let there = self.strange.iter().filter(|(ip, key)| self.node.links.get(*ip) == Some(*key));
        there.map(|(ip, _)| *ip)
    }

    fn catch_up(&mut self) {
        for change in &self.node.log[self.n_log..] {
            self.durable.apply(change).expect("the log can be replayed");
        }
        self.n_log = self.node.log.len();
    }

    fn check(&mut self) {
        self.catch_up();
        for (request, answer) in std::mem::take(&mut self.node.replies) {
            let open = self.open.remove(&request).unwrap_or_else(|| {
                panic!("{request:?} is cancelled or answered, and now {answer:?}")
            });
            self.check_answer(&open, answer);
        }
        self.check_live();
        self.check_known();
        self.check_calls();
        for (request, open) in &self.open {
            if let Open::Add { deadline, .. } = open {
                assert!(*deadline > self.node.now, "{request:?} is not answered in time");
            }
        }
        let view = self.node.view();
        let under_way = !view.in_flight.is_empty()
            || !self.node.calls.is_empty()
            || !self.node.saves.is_empty()
            || self.node.host.is_some();
        assert!(
            view.counts.waiting == 0 || under_way || !view.blocked.is_empty(),
            "pods wait for nothing: {view:#?}"
        );
    }

    fn check_answer(&mut self, open: &Open, answer: Answer) {
        match (open, answer) {
            (Open::Add { key, .. }, Answer::Granted(assignment)) => {
                self.check_grant(key, &assignment)
            }
            (Open::Release, Answer::Released(None)) | (_, Answer::Refused(_)) => {}
            (Open::Release, Answer::Released(Some(assignment))) => {
                let key = self.live.iter().find(|(_, ip)| **ip == assignment.address);
                if let Some(key) = key.map(|(key, _)| key.clone()) {
                    assert!(self.ending.contains(&key), "{key} lost its address unasked");
                    self.live.remove(&key);
                }
            }
            (Open::Release, Answer::Collected(collected)) => {
                for (collected, _) in collected {
                    let mut pods = (0..PODS).map(key);
                    let Some(key) = pods.find(|key| key.mark() == collected.mark()) else {
                        panic!("{collected} was never added");
                    };
                    assert!(self.ending.contains(&key), "{key} was collected alive");
                    self.live.remove(&key);
                }
            }
            (open, answer) => panic!("{open:?} is answered by {answer:?}"),
        }
    }

    fn check_grant(&mut self, key: &AttachmentKey, assignment: &Assignment) {
        let on_record = self.on_record(key);
        assert_eq!(on_record, Some(assignment), "{key} is answered before it is on record");
        if let Some(before) = self.live.get(key).filter(|_| !self.ending.contains(key)) {
            assert_eq!(*before, assignment.address, "{key} got a second address");
        }
        // What was on record at the start, or has come back since, is answered again.
        let is_known = self.known.contains(&key.nameless())
            || self.durable.assignments().contains_key(&key.nameless());
        assert!(
            is_known || self.ready.contains(&assignment.eni),
            "{key} is on {}, which was never ready",
            assignment.eni
        );
        // Whoever's link is still there.
        let is_new = self.live.get(key) != Some(&assignment.address) && !is_known;
        assert!(
            !is_new || !self.withheld().any(|ip| ip == assignment.address),
            "{key} got {}, which the kernel has shown to be in use",
            assignment.address
        );
        self.node.links.insert(assignment.address, key.clone());
        self.ending.remove(key);
        self.live.insert(key.clone(), assignment.address);
    }

    fn check_live(&self) {
        let mut taken = BTreeMap::new();
        for (key, address) in self.truly_live() {
            let other = taken.insert(address, key);
            assert_eq!(other, None, "{address} is also {key}'s");
            let on_eni = self.node.ec2.enis.values().any(|eni| {
                eni.attachment.is_some() && eni.blocks.iter().any(|block| block.contains(*address))
            });
            assert!(on_eni, "{key} has {address}, which is on no ENI");
        }
    }

    /// Pods that have not been ended; an end that was asked for and is on record counts even if it
    /// was reported as failed.
    fn truly_live(&self) -> impl Iterator<Item = (&AttachmentKey, &IpAddr)> {
        self.live.iter().filter(|(key, address)| {
            let recorded = self.on_record(key);
            !self.ending.contains(*key) || recorded.is_some_and(|found| found.address == **address)
        })
    }

    /// Nobody takes anything away here but the engine, so what it has on record for the next start is
    /// true all the time. Of an earlier boot nothing is used.
    fn check_known(&self) {
        if self.durable.boot() != Some(&self.node.boot.node.boot) {
            return;
        }
        for KnownEni { facts, .. } in self.durable.enis().values() {
            let real = self.node.ec2.enis.get(&facts.id);
            let real = real.filter(|eni| eni.attachment.is_some());
            let is_there = real.is_some_and(|eni| facts.blocks.is_subset(&eni.blocks));
            assert!(is_there, "the log has {facts:?}, EC2 {real:?}");
        }
    }

    fn check_calls(&mut self) {
        for (id, call) in &self.node.calls {
            if call.reads() || !self.seen_calls.insert(*id) {
                continue;
            }
            assert!(
                self.durable.intents().contains_key(id),
                "{call} is made before it is on record"
            );
            let given_back = match call {
                Ec2Call::Unassign { blocks, .. } => blocks.clone(),
                Ec2Call::DetachEni { eni, .. } | Ec2Call::DeleteEni { eni } => {
                    self.node.ec2.enis.get(eni).map(|eni| eni.blocks.clone()).unwrap_or_default()
                }
                _ => continue,
            };
            let gone = |ip: &IpAddr| given_back.iter().any(|block| block.contains(*ip));
            let lost = self.truly_live().find(|(_, ip)| gone(ip));
            assert_eq!(lost, None, "{call} takes a pod's address");
            let withheld = self.withheld().find(gone);
            assert_eq!(withheld, None, "{call} takes an address that is withheld");
            let on_record = self.durable.owners().keys().find(|ip| gone(ip));
            assert_eq!(on_record, None, "{call} takes an address that is on record");
            let cooldown = self.node.boot.policy.cooldown;
            let resting = self.durable.cooling().iter();
            let resting = resting.filter(|(_, since)| **since + cooldown > self.node.now);
            let resting = resting.map(|(ip, _)| ip).find(|ip| gone(ip));
            assert_eq!(resting, None, "{call} takes an address that rests");
        }
    }

    /// From now on everything goes well, for two hours; then all that was ended goes, and again.
    fn heal(&mut self) {
        self.take(&Step::Look);
        self.come_to_rest();
        let live: BTreeMap<_, _> = self.truly_live().map(|(key, ip)| (*ip, key.clone())).collect();
        self.node.links.retain(|ip, key| live.get(ip) == Some(key));
        self.take(&Step::Look);
        self.come_to_rest();
        // Those that have died without a word are off the record now, and have no link.
        let linked = self.node.links.keys();
        let unrecorded: BTreeSet<_> =
            linked.filter(|ip| self.durable.owner(**ip).is_none()).copied().collect();
        let quarantined = self.node.view().quarantined.into_keys().collect::<BTreeSet<_>>();
        assert_eq!(quarantined, unrecorded, "withheld is what runs without a record, no more");
    }

    fn come_to_rest(&mut self) {
        let end = self.node.now + Duration::from_secs(2 * 3600);
        for _ in 0..20_000 {
            if !self.node.saves.is_empty() {
                self.take(&Step::EndSave(SaveEnd::Durable(usize::MAX)));
            } else if !self.node.calls.is_empty() {
                self.take(&Step::EndCall { which: 0, end: End::Done });
            } else if self.node.host.is_some() {
                self.take(&Step::EndSync(LinkState::Ready));
            } else if let Some(at) = self.node.engine.wake_at().filter(|at| *at <= end) {
                self.take(&Step::Pass { ms: at.as_millis() - self.node.now.as_millis() });
            } else {
                return;
            }
        }
        panic!("the node does not come to rest: {:#?}", self.node.view());
    }

    fn check_rest(&self) {
        assert!(self.open.is_empty(), "never answered: {:?}", self.open);
        assert!(self.durable.intents().is_empty(), "left open: {:?}", self.durable.intents());
        let enis = self.node.ec2.enis.values();
        let leaked: Vec<_> = enis.filter(|eni| eni.attachment.is_none()).collect();
        assert!(leaked.is_empty(), "leaked: {leaked:?}");
        let view = self.node.view();
        let held: BTreeMap<_, BTreeSet<_>> =
            view.enis.iter().map(|eni| (&eni.id, eni.blocks.keys().copied().collect())).collect();
        let enis = self.node.ec2.enis.values();
        let real: BTreeMap<_, _> = enis.map(|eni| (&eni.id, eni.blocks.clone())).collect();
        assert_eq!(held, real, "the engine and EC2 disagree");
        assert_eq!(&self.durable, self.node.engine.record(), "the engine and its log disagree");
        let noted = self.durable.enis();
        let noted: BTreeMap<_, _> =
            noted.iter().map(|(id, known)| (id, known.facts.blocks.clone())).collect();
        assert_eq!(noted, real, "the log and EC2 disagree");
    }
}

fn run(setting: &Setting, steps: &[Step]) -> World {
    let mut world = World::new(setting);
    for step in steps {
        world.take(step);
    }
    world.heal();
    world.check_rest();
    world
}

proptest! {
    #[test]
    fn any_history_is_sound(setting in settings(), steps in steps()) {
        let first = run(&setting, &steps);
        let second = run(&setting, &steps);
        prop_assert_eq!(first.node.log, second.node.log);
        prop_assert_eq!(first.node.ec2.calls, second.node.ec2.calls);
        prop_assert_eq!(first.live, second.live);
    }
}

#[test]
fn a_history_that_once_failed() {
    let believed = limits("t3.small");
    let policy = Policy {
        max_pods: 2,
        cooldown: Duration::from_secs(5),
        shrink_delay: Duration::ZERO,
        min_eni_age: Duration::ZERO,
        ..policy(Mode::SecondaryIp, WarmSettings { warm_eni: 0, ..WarmSettings::default() })
    };
    let limits = (believed, Limits { enis: 1, ..believed });
    let setting = Setting { policy, limits, n_addresses: 3, n_prefixes: 0 };
    let add = |pod, patience_ms| Step::Add { pod, patience_ms };
    let end_call = |which| Step::EndCall { which, end: End::Done };
    let save = || Step::EndSave(SaveEnd::Durable(1));
    run(
        &setting,
        &[
            end_call(1),
            save(),
            end_call(0),
            end_call(0),
            add(0, 0),
            Step::EndSync(LinkState::Ready),
            add(0, 501),
            add(3, 501),
            save(),
            save(),
            add(1, 501),
            Step::Gc { alive: vec![] },
            save(),
            save(),
            add(2, 501),
        ],
    );
}

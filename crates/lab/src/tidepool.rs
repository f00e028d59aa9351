//! Our daemon: the real engine, and an agent that does in virtual time what the real agent does.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ec2_model::error::ApiError;
use ec2_model::response::Response;
use ipam::call::{CallError, CallId, CallOutput, Ec2Call, EniFacts};
use ipam::event::{Answer, Effect, Event, HostEni, LinkState, NodeLocal, RequestId, SaveSeq};
use ipam::id::{AttachmentKey, BootId, Pod};
use ipam::policy::Node;
use ipam::record::Record;
use ipam::time::Timestamp;
use ipam::{Boot, Engine};

use crate::cloud::Site;
use crate::daemon::{Command, Daemon, FSYNC, Input, Retryer, SandboxId, Timer};
use crate::ec2::{self, ipam_id, model_id};

/// No retries: the engine repeats what it still wants.
const RETRYER: Retryer = Retryer { attempts: 1, first_wait: Duration::ZERO };

/// An engine and the state of its agent.
pub(crate) struct Tidepool {
    site: Site,
    engine: Engine,
    /// The engine's first effects, until the daemon starts.
    at_start: Vec<Effect>,
    /// DescribeEnis calls in flight, each with the first of its two answers.
    polls: BTreeMap<CallId, Option<Vec<EniFacts>>>,
    tick_at: Option<Timestamp>,
}

impl Tidepool {
    pub(crate) fn new(site: Site, now: Timestamp) -> Self {
        let boot = Boot {
            node: Node {
                instance: ipam_id(site.instance.as_str()),
                boot: BootId("the only one".to_owned()),
                primary_mac: site.primary_mac,
                subnet_cidr: None,
                instance_type: site.instance_type.clone(),
                cluster: None,
                eni_tags: BTreeMap::new(),
                manage_untagged: true,
            },
            limits: site.limits,
            policy: site.policy.clone(),
            record: Record::default(),
        };
        let (engine, at_start) = Engine::new(boot, now);
        Self { site, engine, at_start, polls: BTreeMap::new(), tick_at: None }
    }

    /// The engine's event for an input, if there is one.
    fn event(&mut self, input: Input, now: Timestamp) -> Option<Event> {
        match input {
            Input::Start | Input::Metadata { .. } => None,
            Input::Add { sandbox, deadline } => Some(Event::Add {
                request: add_request(sandbox),
                key: key(sandbox),
                pod: pod(sandbox.pod),
                netns: format!("/run/netns/{}-{}", sandbox.pod, sandbox.attempt),
                node_local: NodeLocal::Taken,
                deadline,
            }),
            Input::Bound(pods) => Some(Event::PodsExpected(pods.into_iter().map(pod).collect())),
            Input::Cancel(sandbox) => Some(Event::Cancel { request: add_request(sandbox) }),
            Input::Del(sandbox) => {
                Some(Event::Del { request: del_request(sandbox), key: key(sandbox) })
            }
            Input::Reply { tag, result } => {
                let id = CallId(tag);
                self.call_result(id, result).map(|result| Event::CallDone { id, result })
            }
            Input::Timer(Timer::Saved(seq)) => {
                Some(Event::Saved { seq: SaveSeq(seq), result: Ok(()) })
            }
            Input::Timer(Timer::Tick) => {
                (self.tick_at == Some(now)).then(|| self.tick_at = None).map(|()| Event::Tick)
            }
            Input::Timer(Timer::Slept(_)) => None,
            Input::Device { eni, is_there } => {
                let link = if is_there { LinkState::Ready } else { LinkState::Absent };
                Some(Event::EniLink { eni: ipam_id(eni.as_str()), link })
            }
        }
    }

    /// The result of a call. `None` while another answer is missing.
    fn call_result(
        &mut self,
        id: CallId,
        result: Result<Box<Response>, ApiError>,
    ) -> Option<Result<CallOutput, CallError>> {
        let poll = self.polls.remove(&id);
        match (result, poll) {
            (Ok(response), Some(None)) => {
                let Response::NetworkInterfaces(page) = *response else { return None };
                let enis = ec2::enis_of(&page.items, &self.site.instance).collect();
                self.polls.insert(id, Some(enis));
                None
            }
            (Ok(response), before) => {
                let before = before.flatten().unwrap_or_default();
                Some(ec2::output(*response, before, &self.site.instance))
            }
            (Err(error), _) => Some(Err(ec2::error(error))),
        }
    }

    fn commands(&mut self, effects: Vec<Effect>, now: Timestamp) -> Vec<Command> {
        effects.into_iter().flat_map(|effect| self.command(effect, now)).collect()
    }

    fn command(&mut self, effect: Effect, now: Timestamp) -> Vec<Command> {
        match effect {
            Effect::Save { seq, changes: _ } => {
                vec![Command::Timer { timer: Timer::Saved(seq.0), at: now + FSYNC }]
            }
            Effect::Reply { request, answer } => answered(request, answer).into_iter().collect(),
            Effect::Call { id, call, why: _ } => {
                if call == Ec2Call::DescribeEnis {
                    self.polls.insert(id, None);
                }
                vec![self.call(id, &call, 0)]
            }
            Effect::SyncHost(picture) => picture.enis.iter().map(await_device).collect(),
            // No pod of the lab has a link, no node a kernel, and no policy goes by metadata alone.
            Effect::ReadMetadata { .. }
            | Effect::TakeDown(_)
            | Effect::ReadKernel
            | Effect::RestorePods(_)
            | Effect::RemoveHostAddresses(_)
            | Effect::ForgetConnections(_) => Vec::new(),
        }
    }

    /// The `n`th request of a call.
    fn call(&self, id: CallId, call: &Ec2Call, n: usize) -> Command {
        let request = ec2::requests(call, &self.site).swap_remove(n);
        Command::Call { tag: id.0, request: Box::new(request), retryer: RETRYER }
    }

    /// A timer for the engine's next wake-up, unless that timer already runs.
    fn tick(&mut self) -> Option<Command> {
        let wake_at = self.engine.wake_at();
        if wake_at == self.tick_at {
            return None;
        }
        self.tick_at = wake_at;
        wake_at.map(|at| Command::Timer { timer: Timer::Tick, at })
    }
}

impl Daemon for Tidepool {
    fn handle(&mut self, input: Input, now: Timestamp) -> Vec<Command> {
        let reply_to = match &input {
            Input::Reply { tag, .. } => Some(CallId(*tag)),
            _ => None,
        };
        let effects = match self.event(input, now) {
            Some(event) => self.engine.handle(event, now),
            None => std::mem::take(&mut self.at_start),
        };
        let mut commands = self.commands(effects, now);
        if let Some(id) = reply_to.filter(|id| self.polls.contains_key(id)) {
            commands.push(self.call(id, &Ec2Call::DescribeEnis, 1));
        }
        commands.extend(self.tick());
        commands
    }

    fn ready(&self, now: Timestamp) -> bool {
        self.engine.ready(now).is_ok()
    }
}

fn pod(n: usize) -> Pod {
    Pod { name: format!("pod-{n}"), ..Pod::default() }
}

fn key(sandbox: SandboxId) -> AttachmentKey {
    AttachmentKey {
        network: "aws-cni".into(),
        container: format!("{}-{}", sandbox.pod, sandbox.attempt),
        ifname: "eth0".to_owned(),
    }
}

/// Request ids of Adds are even and those of Dels are odd, so that answers can be told apart.
fn add_request(sandbox: SandboxId) -> RequestId {
    let pod = u64::try_from(sandbox.pod).expect("usize is at most 64 bits wide");
    RequestId((pod << 32) | (u64::from(sandbox.attempt) << 1))
}

fn del_request(sandbox: SandboxId) -> RequestId {
    RequestId(add_request(sandbox).0 | 1)
}

fn answered(request: RequestId, answer: Answer) -> Option<Command> {
    if request.0 & 1 == 1 {
        return None;
    }
    let pod = usize::try_from(request.0 >> 32).expect("it was a usize");
    let attempt = u32::try_from((request.0 >> 1) & 0x7fff_ffff).expect("31 bits are left");
    let answer = match answer {
        Answer::Granted(assignment) => Ok(ipv4(assignment.addresses.first().address)),
        Answer::Refused(refusal) => Err(refusal.code.as_str()),
        Answer::Released(_) | Answer::Collected(_) => return None,
    };
    let sandbox = SandboxId { pod, attempt };
    Some(Command::Answer { sandbox, answer, after: Duration::ZERO })
}

fn ipv4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => unreachable!("{address} on a node without IPv6"),
    }
}

fn await_device(eni: &HostEni) -> Command {
    Command::AwaitDevice { eni: model_id(eni.eni.as_str()), address: ipv4(eni.primary_address) }
}

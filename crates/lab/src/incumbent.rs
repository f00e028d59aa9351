//! The daemon of amazon-vpc-cni-k8s v1.23.1, rebuilt from the rules of its code: a loop every five
//! seconds, one step of growth per turn, Adds that fail at once.
//!
//! The loop is a sequence of calls and sleeps, and is written as such ([`pool`], a [`script`]). Not
//! included: IPv6, several network cards, trunk ENIs, custom networking, excluded subnets, the API
//! server, and a restart of the daemon. Where the rules leave a choice, the incumbent gets the
//! better one: an ENI's device is there with the ENI, and a failed start is repeated after ten
//! seconds, without limit.

mod enis;
mod pool;
mod reconcile;
mod script;
mod store;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ec2_model::Rng;
use ipam::policy::Targets;
use ipam::time::Timestamp;

use self::script::{Given, Script, Wish};
use self::store::Store;
use crate::cloud::Site;
use crate::daemon::{Command, Daemon, FSYNC, Input, Retryer, SandboxId, Timer};

/// The standard retryer of the SDK for Go, for every call. It counts its waits from 1, so the first
/// is up to two seconds. The daemon also asks for ten attempts, but a configuration with its own
/// retryer ignores that number. Sources: amazon-vpc-cni-k8s, `pkg/awsutils/awssession/session.go`;
/// aws-sdk-go-v2, `config/resolve.go` (`resolveRetryer`) and `aws/retry/jitter_backoff.go`.
const RETRYER: Retryer = Retryer { attempts: 3, first_wait: Duration::from_secs(2) };
/// The error code of every failed Add. The protocol has no other.
const NO_ADDRESS: &str = "NO_ADDRESS";

/// The incumbent's daemon.
pub(crate) struct Incumbent {
    shared: Rc<Shared>,
    /// The pool loop and the search for leaked ENIs, which run independently.
    scripts: Vec<Script>,
}

/// The state that the loops and the Adds share.
struct Shared {
    site: Site,
    targets: Warm,
    store: RefCell<Store>,
    rng: RefCell<Rng>,
    ready: Cell<bool>,
}

/// The targets in force. Unused ones are 0.
#[derive(Debug, Clone, Copy, Default)]
struct Warm {
    enis: u64,
    prefixes: u64,
    ips: u64,
    minimum: u64,
}

impl Warm {
    fn new(targets: Targets) -> Self {
        let none = Self::default();
        match targets {
            Targets::WarmEni(n) => Self { enis: n.into(), ..none },
            Targets::WarmPrefix(n) => Self { prefixes: n.into(), ..none },
            Targets::Ip { warm, minimum } => {
                Self { ips: warm.into(), minimum: minimum.into(), ..none }
            }
        }
    }

    /// Whether the targets count addresses.
    fn are_ips(self) -> bool {
        self.ips != 0 || self.minimum != 0
    }
}

impl Incumbent {
    pub(crate) fn new(site: Site, rng: Rng) -> Self {
        let store = Store::new(&site.policy, site.limits);
        let shared = Rc::new(Shared {
            targets: Warm::new(site.policy.families.policy().targets),
            store: RefCell::new(store),
            rng: RefCell::new(rng),
            ready: Cell::new(false),
            site,
        });
        let (pool, leaks) = (Rc::clone(&shared), Rc::clone(&shared));
        let scripts = vec![
            Script::new(|port| pool::Manager::new(port, pool).run()),
            Script::new(|port| enis::search_for_leaks(port, leaks)),
        ];
        Self { shared, scripts }
    }

    fn add(&self, sandbox: SandboxId, now: Timestamp) -> Command {
        let (mut store, mut rng) = (self.shared.store.borrow_mut(), self.shared.rng.borrow_mut());
        match store.assign(sandbox, &mut rng, now) {
            Some(address) => Command::Answer { sandbox, answer: Ok(address), after: FSYNC },
            None => Command::Answer { sandbox, answer: Err(NO_ADDRESS), after: Duration::ZERO },
        }
    }

    fn resume(&mut self, tag: u64, given: Given, now: Timestamp) -> Vec<Command> {
        let place = usize::try_from(tag).expect("tags are places in the list of scripts");
        let wish = self.scripts[place].resume(given, now);
        wish.map(|wish| command(tag, wish, now)).into_iter().collect()
    }
}

fn command(tag: u64, wish: Wish, now: Timestamp) -> Command {
    match wish {
        Wish::Sleep(span) => Command::Timer { timer: Timer::Slept(tag), at: now + span },
        Wish::Call(request) => Command::Call { tag, request, retryer: RETRYER },
        Wish::Metadata => Command::ReadMetadata { tag },
    }
}

impl Daemon for Incumbent {
    fn handle(&mut self, input: Input, now: Timestamp) -> Vec<Command> {
        match input {
            Input::Start => {
                let tags = 0..u64::try_from(self.scripts.len()).expect("there are two");
                tags.flat_map(|tag| self.resume(tag, Given::Started, now)).collect()
            }
            Input::Add { sandbox, .. } => vec![self.add(sandbox, now)],
            Input::Del(sandbox) => {
                self.shared.store.borrow_mut().unassign(sandbox, now);
                Vec::new()
            }
            Input::Reply { tag, result } => self.resume(tag, Given::Answer(result), now),
            Input::Metadata { tag, enis } => self.resume(tag, Given::Metadata(enis), now),
            Input::Timer(Timer::Slept(tag)) => self.resume(tag, Given::Slept, now),
            // The daemon answers an Add at once, before its caller can give up.
            // It does not ask the API server for pods.
            Input::Bound(_) | Input::Cancel(_) | Input::Device { .. } => Vec::new(),
            Input::Timer(Timer::Saved(_) | Timer::Tick) => Vec::new(),
        }
    }

    fn ready(&self, _now: Timestamp) -> bool {
        self.shared.ready.get()
    }
}

//! Restores the node's side of pods' links after another program has removed or changed a part: routes, rules,
//! or the link's state. It must not know why a pod is wanted.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::RouteProtocol;

use super::{PodAddress, objects, remove_rules};
use crate::link::{self, Link};
use crate::netlink::{KernelError, Netlink};
use crate::route::{self, Filter};
use crate::rule::{self, ListedRule};
use crate::{InterfaceName, Owner, Route, RouteTable, Rule, retired};

/// In bytes: what is left of an interface's name.
const LONGEST_PREFIX: usize = 4;

/// A pod whose link must be in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningPod {
    /// The mark of the link's host end.
    pub owner: Owner,
    /// The name of the host's end without its prefix, if the link has no mark: amazon-vpc-cni-k8s sets none. Its
    /// prefix is a setting of the time when the link was made.
    pub unmarked_name: Option<InterfaceName>,
    /// The pod's addresses of the VPC.
    pub addresses: Vec<PodAddress>,
    /// The pod's node-local address.
    pub node_local: Option<IpAddr>,
}

impl RunningPod {
    fn may_be_named(&self, link: &Link) -> bool {
        let prefix =
            self.unmarked_name.as_ref().and_then(|name| link.name.strip_suffix(name.as_str()));
        prefix.is_some_and(|prefix| prefix.len() <= LONGEST_PREFIX)
    }
}

/// A pod's link that differed.
#[derive(Debug)]
pub struct Restored {
    /// The name of the host's end.
    pub host_name: String,
    /// Whose link it is.
    pub owner: Owner,
    /// What was changed; never empty. If `failure` is set, its last step was refused.
    pub steps: Vec<PodStep>,
    /// The kernel's answer to the last step, if the kernel refused it.
    pub failure: Option<KernelError>,
}

/// One change of the kernel for a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodStep {
    /// Sets the host's end up.
    SetUp,
    /// Routes an address to the host's end.
    ReplaceRoute(Route),
    /// Adds a rule for an address.
    AddRule(Rule),
    /// Removes a rule that sends an address's packets elsewhere.
    RemoveRule(ListedRule),
}

impl fmt::Display for PodStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetUp => f.write_str("set up"),
            Self::ReplaceRoute(route) => write!(f, "replace route {route}"),
            Self::AddRule(rule) => write!(f, "add rule {rule}"),
            Self::RemoveRule(listed) => write!(f, "remove rule {}", listed.rule),
        }
    }
}

/// The kernel could not be read, so nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Netlink cannot be used.
    #[error("open a netlink socket")]
    Socket(#[source] std::io::Error),
    /// The kernel does not list something.
    #[error("list {what}")]
    List {
        /// What was listed.
        what: &'static str,
        /// The kernel's answer.
        #[source]
        source: KernelError,
    },
}

/// What differs between the kernel and pods that must be in place, as of one reading.
#[derive(Debug)]
pub struct Damage {
    netlink: Netlink,
    damaged: Vec<(RunningPod, Link, Vec<PodStep>)>,
}

impl Damage {
    /// Reads the kernel, and finds the routes and rules of these pods that it lacks, and links that are down. Pods
    /// without a link are left out: an ADD or a DEL may be under way. An address that is routed to another veth
    /// belongs to another pod, and is left out too.
    ///
    /// Costs five lists of the kernel.
    ///
    /// # Errors
    ///
    /// [`RestoreError`] if the kernel cannot be read.
    pub async fn find(pods: &[RunningPod]) -> Result<Self, RestoreError> {
        let netlink = Netlink::open().map_err(RestoreError::Socket)?;
        let kernel = Kernel::read(&netlink).await?;
        let damaged = pods.iter().filter_map(|pod| {
            let link = kernel.link(pod)?;
            let steps = kernel.steps_to(pod, link);
            (!steps.is_empty()).then(|| (pod.clone(), link.clone(), steps))
        });
        let damaged = damaged.collect();
        Ok(Self { netlink, damaged })
    }

    /// Restores what was found. Returns the links that differed. If a DEL has removed or retired a link since the
    /// reading, what was restored of it goes again.
    ///
    /// Costs one request for each change, and one for each link.
    pub async fn repair(self) -> Vec<Restored> {
        let mut all = Vec::new();
        for (pod, link, steps) in self.damaged {
            all.extend(apply(&self.netlink, &pod, &link, steps).await);
        }
        all
    }
}

/// What the kernel has of all pods.
struct Kernel {
    links: Vec<Link>,
    /// The main table's routes to single addresses.
    routes: BTreeMap<IpAddr, Vec<Route>>,
    /// The rules for the packets of single addresses.
    rules: BTreeMap<IpAddr, Vec<ListedRule>>,
}

impl Kernel {
    async fn read(netlink: &Netlink) -> Result<Self, RestoreError> {
        let list = |what| move |source| RestoreError::List { what, source };
        let (mut routes, mut rules) = (BTreeMap::new(), BTreeMap::new());
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let filter = Filter { family, table: RouteTable::MAIN, device: None };
            for route in route::list(netlink, filter).await.map_err(list("the main table"))? {
                let net = route.destination;
                if net.prefix_len() == net.max_prefix_len() {
                    routes.entry(net.addr()).or_insert_with(Vec::new).push(route);
                }
            }
            for listed in rule::list(netlink, family).await.map_err(list("the rules"))? {
                rules.entry(listed.rule.address()).or_insert_with(Vec::new).push(listed);
            }
        }
        let links = link::list(netlink).await.map_err(list("the links"))?;
        Ok(Self { links, routes, rules })
    }

    fn link(&self, pod: &RunningPod) -> Option<&Link> {
        let veths = || self.links.iter().filter(|link| link.is_veth);
        let marked = veths().find(|link| link.owner.as_deref() == Some(pod.owner.as_str()));
        let unmarked = || veths().filter(|link| link.owner.is_none() && pod.may_be_named(link));
        // Of several, the one that has a route of the pod.
        let routed = || unmarked().find(|link| self.routes_to(pod, link));
        marked.or_else(routed).or_else(|| unmarked().next())
    }

    fn routes_to(&self, pod: &RunningPod, link: &Link) -> bool {
        let mut routes =
            pod.addresses.iter().filter_map(|pod| self.routes.get(&pod.address)).flatten();
        routes.any(|route| route.device == link.index)
    }

    /// What differs, in an order in which it can be changed: a link that is down takes no route.
    fn steps_to(&self, pod: &RunningPod, link: &Link) -> Vec<PodStep> {
        let mut steps: Vec<_> = (!link.up).then_some(PodStep::SetUp).into_iter().collect();
        for address in pod.addresses.iter().filter(|pod| !self.is_anothers(pod.address, link)) {
            steps.extend(self.route_step(address.address, link));
            steps.extend(self.rule_steps(address));
        }
        let node_local = pod.node_local.filter(|address| !self.is_anothers(*address, link));
        steps.extend(node_local.and_then(|address| self.route_step(address, link)));
        steps
    }

    fn route_step(&self, address: IpAddr, link: &Link) -> Option<PodStep> {
        let route = Route::to_host(address, link.index);
        let has = |routes: &Vec<Route>| routes.contains(&route);
        let is_there = self.routes.get(&address).is_some_and(has);
        (!is_there).then_some(PodStep::ReplaceRoute(route))
    }

    fn is_anothers(&self, address: IpAddr, link: &Link) -> bool {
        let routes = self.routes.get(&address).into_iter().flatten();
        let is_veth = |index| self.links.iter().any(|other| other.index == index && other.is_veth);
        routes.map(|route| route.device).any(|device| device != link.index && is_veth(device))
    }

    /// The right rule is added before a wrong one goes, so that there is one at any time.
    fn rule_steps(&self, address: &PodAddress) -> Vec<PodStep> {
        let found = self.rules.get(&address.address).map(Vec::as_slice).unwrap_or_default();
        let wanted: Vec<_> = objects::rules(address).collect();
        let has = |rule: &Rule| found.iter().any(|listed| listed.rule == *rule);
        let missing = wanted.iter().filter(|rule| !has(rule)).map(|rule| PodStep::AddRule(*rule));
        let wrong = found.iter().filter(|listed| {
            objects::is_of_pod(&listed.rule, address.address) && !wanted.contains(&listed.rule)
        });
        missing.chain(wrong.copied().map(PodStep::RemoveRule)).collect()
    }
}

/// `None` if a DEL has removed or retired the link meanwhile.
async fn apply(
    netlink: &Netlink,
    pod: &RunningPod,
    link: &Link,
    steps: Vec<PodStep>,
) -> Option<Restored> {
    let (mut done, mut failure) = (Vec::new(), None);
    for step in steps {
        let result = apply_step(netlink, link.index, &step).await;
        done.push(step);
        if let Err(source) = result {
            failure = Some(source);
            break;
        }
    }
    let (host_name, owner) = (link.name.clone(), pod.owner.clone());
    let is_in_place = match link::by_index(netlink, link.index).await {
        Ok(now) => now.is_some_and(|now| !now.is_retired()),
        Err(_unreadable) => true,
    };
    if is_in_place {
        return Some(Restored { host_name, owner, steps: done, failure });
    }
    let failure = withdraw(netlink, pod, link).await.err()?;
    Some(Restored { host_name, owner, steps: done, failure: Some(failure) })
}

/// Takes back what was restored for a pod whose DEL has been. The routes go as the link goes down.
async fn withdraw(netlink: &Netlink, pod: &RunningPod, link: &Link) -> Result<(), KernelError> {
    for PodAddress { address, .. } in &pod.addresses {
        remove_rules(netlink, *address).await?;
    }
    retired::retire(netlink, link.index).await
}

async fn apply_step(netlink: &Netlink, device: u32, step: &PodStep) -> Result<(), KernelError> {
    match step {
        PodStep::SetUp => link::set_up(netlink, device).await,
        PodStep::ReplaceRoute(route) => route::replace(netlink, route).await,
        PodStep::AddRule(rule) => rule::add(netlink, rule, RouteProtocol::Unspec).await.map(drop),
        PodStep::RemoveRule(listed) => rule::remove(netlink, listed).await,
    }
}

//! Network namespaces for tests, and the commands that a person would type there.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use datapath::netns::Netns;
use datapath::pod::{
    AddPodError, Goes, PodAddress, PodExpectation, PodLink, PodLinkState, PodRemoval, PodRoutes,
    Rank,
};
use datapath::{Mtu, RouteTable};

/// Runs `test` on an empty node, unless the environment says to skip tests that need root.
pub(crate) fn on_node(test: impl FnOnce(&Namespace)) {
    if std::env::var("TIDEPOOL_SKIP_ROOT_TESTS").is_ok_and(|value| value == "1") {
        return;
    }
    let node = Namespace::new("node");
    // Otherwise both ends of the first pair would have the same index, and the kernel would report
    // their carrier a second late.
    node.ip("link add pad type veth peer name pad-peer");
    test(&node);
}

/// A network namespace, removed when dropped. IPv6 is off, since its automatic addresses appear and
/// vanish at any time; but see [`Namespace::with_ipv6`].
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn new(role: &str) -> Self {
        let namespace = Self::with_ipv6(role);
        namespace.set_sysctl("net/ipv6/conf/all/disable_ipv6", "1");
        namespace.set_sysctl("net/ipv6/conf/default/disable_ipv6", "1");
        namespace
    }

    pub(crate) fn with_ipv6(role: &str) -> Self {
        let name = fresh_name(role);
        run("ip", &format!("netns add {name}"));
        Self { name }
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/var/run/netns").join(&self.name)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip <arguments>` inside.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        run("ip", &format!("-n {} {arguments}", self.name))
    }

    /// Runs a command inside.
    pub(crate) fn exec(&self, command: &str) -> String {
        run("ip", &format!("netns exec {} {command}", self.name))
    }

    /// Whether the first echo request to `address` is answered, however slow the machine is.
    pub(crate) fn pings(&self, address: &str) -> bool {
        self.ping(&format!("-W 10 {address}"))
    }

    /// Whether one of several echo requests to `address` is answered. The kernel may see a new link's carrier a second
    /// late, and drops what is sent before.
    pub(crate) fn reaches(&self, address: &str) -> bool {
        (0..30).any(|_| self.ping(&format!("-W 1 {address}")))
    }

    /// Whether an echo request to `address` stays without an answer for a second.
    pub(crate) fn misses(&self, address: &str) -> bool {
        !self.ping(&format!("-W 1 {address}"))
    }

    fn ping(&self, arguments: &str) -> bool {
        try_run("ip", &format!("netns exec {} ping -c 1 {arguments}", self.name)).is_ok()
    }

    pub(crate) fn sysctl(&self, key: &str) -> String {
        let read = || fs::read_to_string(Path::new("/proc/sys").join(key));
        self.enter(read).unwrap().trim().to_owned()
    }

    pub(crate) fn set_sysctl(&self, key: &str, value: &str) {
        self.enter(|| fs::write(Path::new("/proc/sys").join(key), value)).unwrap();
    }

    pub(crate) fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        Netns::open(&self.path()).unwrap().run(work).unwrap()
    }

    /// Runs `work` with this as the node's namespace.
    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        self.enter(|| runtime.block_on(work))
    }

    /// Runs `work` with this as the node's namespace, on several threads.
    pub(crate) fn block_on_threads<T>(&self, work: impl Future<Output = T>) -> T {
        // A thread starts in the namespace of the thread that creates it.
        self.enter(|| {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(4).enable_all().build().unwrap().block_on(work)
        })
    }

    /// All that `ip` prints of this namespace, without the carrier: the kernel notices that a few
    /// milliseconds later.
    pub(crate) fn dump(&self) -> String {
        let dumps = [
            "-d link",
            "addr",
            "route show table all",
            "-6 route show table all",
            "rule",
            "-6 rule",
            "neigh show nud permanent",
        ];
        let dump = dumps.map(|arguments| self.ip(arguments)).join("\n");
        dump.replace("NO-CARRIER,", "")
            .replace(",LOWER_UP", "")
            .replace(" linkdown", "")
            .replace(",M-DOWN", "")
            .replace("state UP", "state DOWN")
            .replace("state LOWERLAYERDOWN", "state DOWN")
            .replace("state UNKNOWN", "state DOWN")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = try_run("ip", &format!("netns del {}", self.name));
    }
}

fn fresh_name(role: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("tp-{role}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn run(program: &str, arguments: &str) -> String {
    try_run(program, arguments)
        .unwrap_or_else(|error| panic!("{program} {arguments}: {error} (root is needed)"))
}

fn try_run(program: &str, arguments: &str) -> Result<String, String> {
    let output = Command::new(program).args(arguments.split_whitespace()).output();
    let output = output.map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8(output.stdout).unwrap();
    Ok(text.lines().map(|line| line.trim_end().to_owned() + "\n").collect())
}

/// A pod in `namespace`, connected or not. It is gone when this is dropped.
#[must_use]
pub(crate) struct Pod {
    pub(crate) namespace: Namespace,
    pub(crate) link: PodLink,
}

impl Pod {
    /// The pod `default/<name>`, not connected yet. Its addresses are written `address@table`.
    pub(crate) fn planned(name: &str, addresses: &[&str]) -> Self {
        Self::planned_in(Namespace::new("pod"), name, addresses)
    }

    pub(crate) fn planned_in(namespace: Namespace, name: &str, addresses: &[&str]) -> Self {
        // Runtimes set lo up before the plugin runs.
        namespace.ip("link set lo up");
        let link = PodLink {
            netns: namespace.path(),
            ifname: "eth0".parse().unwrap(),
            rank: Rank::First,
            host_name: datapath::host_veth_name("eni", "default", name, "", None).unwrap(),
            owner: format!("{}/eth0", namespace.name()).parse().unwrap(),
            mtu: Mtu::JUMBO,
            addresses: addresses.iter().map(|text| address(text)).collect(),
            node_local: None,
        };
        Self { namespace, link }
    }

    pub(crate) fn add(&self, node: &Namespace) -> PodLinkState {
        node.block_on(add(&self.link)).unwrap()
    }

    /// The pod `default/<name>`, connected to `node`.
    pub(crate) fn added(node: &Namespace, name: &str, addresses: &[&str]) -> Self {
        let pod = Self::planned(name, addresses);
        pod.add(node);
        pod
    }

    pub(crate) fn removal(&self) -> PodRemoval {
        PodRemoval {
            host_name: self.link.host_name.clone(),
            owner: self.link.owner.clone(),
            addresses: self.link.addresses.iter().map(|pod| pod.address).collect(),
            netns: (self.link.rank == Rank::Further).then(|| self.link.netns.clone()),
            goes: Goes::Now,
        }
    }

    /// A removal that leaves the link to a sweep.
    pub(crate) fn retirement(&self) -> PodRemoval {
        PodRemoval { goes: Goes::Later, ..self.removal() }
    }

    pub(crate) fn expectation(&self, state: &PodLinkState) -> PodExpectation {
        PodExpectation {
            netns: self.link.netns.clone(),
            ifname: self.link.ifname.clone(),
            host_name: self.link.host_name.clone(),
            owner: self.link.owner.clone(),
            mac: Some(state.pod.mac),
            mtu: Some(state.pod.mtu),
            addresses: self.link.addresses.clone(),
            node_local: self.link.node_local,
            routes: PodRoutes::Main,
            ipv6: datapath::pod::PodIpv6::AsItIs,
        }
    }
}

/// Connects a pod, or leaves nothing.
pub(crate) async fn add(link: &PodLink) -> Result<PodLinkState, AddPodError> {
    let made = datapath::pod::make(link.clone()).await?;
    let furnished = made.furnish().await;
    if furnished.is_err() {
        made.undo().await.unwrap();
    }
    furnished
}

/// Parses `10.0.2.20@2`: the address, and its table's number or `main`.
pub(crate) fn address(text: &str) -> PodAddress {
    let (address, table) = text.split_once('@').unwrap();
    let table = match table {
        "main" => RouteTable::MAIN,
        number => RouteTable::from(number.parse::<u32>().unwrap()),
    };
    PodAddress { address: address.parse().unwrap(), table }
}

/// An error with all its sources, as it is logged.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text += &format!(": {source}");
        next = source.source();
    }
    text
}

//! Rules of Services as kube-proxy has written them: recordings of the real one (`tests/kube-proxy`), with the addresses
//! of this cluster.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result};
use tests::exec::ExecNode;

use crate::shell;

/// Names of the pods that the recorded Services lead to. The first two are on the first node.
pub(crate) const PODS: [&str; 3] = ["one", "two", "three"];

/// Through what kube-proxy writes its rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Nftables,
    /// Beside rules of other programs in legacy iptables.
    NftablesBesideLegacy,
    IptablesNft,
    IptablesLegacy,
    /// With rules in iptables-nft beside.
    Ipvs,
}

/// A Service of the recordings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    /// All pods.
    All,
    /// All pods; the same one for the same client.
    Sticky,
    /// One pod. Its node port has `externalTrafficPolicy: Cluster`.
    Cluster(usize),
    /// One pod. Its node port has `externalTrafficPolicy: Local`.
    Local(usize),
}

impl Service {
    fn number(self) -> usize {
        match self {
            Self::All => 10,
            Self::Sticky => 20,
            Self::Cluster(pod) => 11 + pod,
            Self::Local(pod) => 21 + pod,
        }
    }

    /// Its cluster address of the family of `of`.
    pub(crate) fn address(self, of: IpAddr) -> Result<SocketAddr> {
        let address = match of {
            IpAddr::V4(_) => format!("172.20.0.{}", self.number()),
            IpAddr::V6(_) => format!("fd00:20::{}", self.number()),
        };
        Ok(SocketAddr::new(address.parse()?, 80))
    }

    /// Its node port at `node`.
    pub(crate) fn node_port(self, node: IpAddr) -> SocketAddr {
        SocketAddr::new(node, u16::try_from(30_000 + self.number()).unwrap_or(u16::MAX))
    }
}

impl Mode {
    /// Beside the recordings in this mode: what kube-proxy or another program has set.
    fn extras(self) -> &'static str {
        match self {
            Mode::Nftables | Mode::Ipvs => "",
            Mode::NftablesBesideLegacy => {
                "iptables-legacy -w -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
                 iptables-legacy -w -A FORWARD -o docker0 -j ACCEPT"
            }
            Mode::IptablesNft | Mode::IptablesLegacy => "sysctl -qw net.ipv4.conf.all.route_localnet=1",
        }
    }

    /// The command that takes a recording on stdin, as kube-proxy does beside the rules of others.
    fn loader(self, family: &str) -> String {
        let iptables = if family == "ipv4" { "iptables" } else { "ip6tables" };
        match self {
            Mode::Nftables | Mode::NftablesBesideLegacy => "nft -f -".to_owned(),
            Mode::IptablesNft => format!("{iptables}-nft-restore -w --noflush"),
            Mode::IptablesLegacy => format!("{iptables}-legacy-restore -w --noflush"),
            // This recording is a script.
            Mode::Ipvs => "bash -euo pipefail".to_owned(),
        }
    }

    fn recording(self) -> &'static str {
        match self {
            Mode::Nftables | Mode::NftablesBesideLegacy => "nftables",
            Mode::IptablesNft | Mode::IptablesLegacy => "iptables",
            Mode::Ipvs => "ipvs",
        }
    }
}

/// kube-proxy on the first or second node (`index`) writes its rules for `pods`, in the order of [`PODS`].
pub(crate) async fn write(
    node: &ExecNode,
    index: usize,
    mode: Mode,
    pods: &[IpAddr; 3],
) -> Result<()> {
    let family = if node.address.is_ipv4() { "ipv4" } else { "ipv6" };
    let name = format!("{}-{family}-n{index}", mode.recording());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kube-proxy/recordings");
    let mut rules = std::fs::read_to_string(folder.join(&name))
        .with_context(|| format!("read the recording {name}"))?;
    rules = rules.replace("@node@", &node.address.to_string());
    for (name, address) in PODS.iter().zip(pods) {
        rules = rules.replace(&format!("@{name}@"), &address.to_string());
    }
    let file = node.state_directory().join("kube-proxy-rules");
    std::fs::write(&file, rules).context("write the rules")?;
    let script = format!("{} < {}\n{}", mode.loader(family), file.display(), mode.extras());
    shell(&node.netns, &script).await.with_context(|| format!("load {name}")).map(|_| ())
}

/// Removes every rule of the node, those of the daemon too.
pub(crate) async fn forget_all(node: &ExecNode) -> Result<()> {
    let script = "
        nft flush ruleset
        if ip link delete kube-ipvs0 2>/dev/null; then
            ipvsadm --clear
            ipset destroy
        fi
        for command in iptables ip6tables; do
            printf '*%s\\nCOMMIT\\n' mangle nat filter | $command-legacy-restore -w
        done
        for rule in '1024' '1535'; do
            while ip rule del priority $rule 2>/dev/null; do :; done
        done";
    shell(&node.netns, script).await.map(|_| ())
}

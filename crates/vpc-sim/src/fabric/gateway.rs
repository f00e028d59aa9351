//! What passes between VPCs and to the outside, as nftables rules.
//!
//! The kernel's routes deliver all assigned addresses, of whatever VPC. These rules drop what no
//! route table allows, and translate addresses as gateways do. The `nft` command makes each change
//! in one transaction. A fabric of one VPC without a way out needs no rules and no `nft`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Write};
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::error::KernelError;
use super::kernel_state::fabric_device;
use super::netns::{Netns, NetnsName};
use super::snapshot::{AttachedEni, Instance};

/// The host of the outside, in a net of documents (RFC 5737). The fabric answers as its router.
pub const OUTSIDE_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(198, 51, 100, 10), 24);
/// The same host (RFC 3849).
pub const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x10);
/// No ENI has it: EC2's MAC addresses begin differently.
pub(super) const OUTSIDE_MAC: [u8; 6] = [0x12, 0, 0, 0, 0, 1];

/// How much of what `nft` says an error shows, in characters.
const SHOWN: usize = 500;

/// What passes beside the packets within one VPC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routing {
    /// Sources and destinations of packets that stay in VPCs. Other packets between blocks of VPCs
    /// are dropped.
    pub passes: BTreeSet<(IpNet, IpNet)>,
    /// The way out. `None` if no subnet has one.
    pub outside: Option<Outside>,
}

/// What passes between VPCs and the outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside {
    /// Its network namespace, which is made if it does not exist.
    pub netns: NetnsName,
    /// The public address of each source that may leave. All other IPv4 packets are dropped.
    pub leaving: BTreeMap<Ipv4Net, Ipv4Addr>,
    /// Private addresses by the public address at which the outside reaches them.
    pub reachable: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// The IPv6 blocks that the outside reaches and that reach it.
    pub open: BTreeSet<Ipv6Net>,
}

impl Outside {
    /// The outside as one more instance of the fabric.
    pub(super) fn instance(&self) -> Instance {
        let eni = AttachedEni {
            id: "outside".to_owned(),
            mac: OUTSIDE_MAC,
            network_card: 0,
            device_index: 0,
            is_primary: true,
            ipv4: Some(OUTSIDE_V4),
            assigned: BTreeSet::from([IpNet::from(std::net::IpAddr::V6(OUTSIDE_V6))]),
            in_ipv6_subnet: false,
            source_dest_check: false,
        };
        Instance { netns: self.netns.clone(), enis: vec![eni] }
    }

    /// The fabric's device that leads there.
    pub(super) fn device() -> String {
        fabric_device(OUTSIDE_MAC)
    }
}

impl Routing {
    /// Lets all packets between blocks of one VPC pass.
    pub fn pass_within(&mut self, cidrs: &[IpNet]) {
        for from in cidrs {
            let same_family =
                cidrs.iter().filter(|to| to.addr().is_ipv4() == from.addr().is_ipv4());
            self.passes.extend(same_family.map(|to| (*from, *to)));
        }
    }

    /// The rules for VPCs with these blocks, as input of `nft`. They replace all earlier ones.
    pub(super) fn rules(&self, cidrs: &BTreeSet<IpNet>) -> String {
        let mut rules = "table inet vpc\ndelete table inet vpc\n".to_owned();
        if self.lets_all_pass(cidrs) {
            return rules;
        }
        let (blocks4, blocks6) = by_family(cidrs.iter().map(|cidr| (*cidr, cidr)));
        let (pairs4, pairs6) = by_family(self.passes.iter().map(|pair| (pair.0, pair)));
        let pairs = |pairs: Vec<&(IpNet, IpNet)>| {
            pairs.into_iter().map(|(from, to)| format!("{from} . {to}")).collect::<Vec<_>>()
        };
        rules += "table inet vpc {\n";
        rules += &elements("set", "vpcs4", "ipv4_addr", &blocks4);
        rules += &elements("set", "vpcs6", "ipv6_addr", &blocks6);
        rules += &elements("set", "passes4", "ipv4_addr . ipv4_addr", &pairs(pairs4));
        rules += &elements("set", "passes6", "ipv6_addr . ipv6_addr", &pairs(pairs6));
        if let Some(outside) = &self.outside {
            rules += &outside.translation();
        }
        rules += "  chain pass {\n    type filter hook forward priority filter; policy accept;\n";
        for (ip, family) in [("ip", 4), ("ip6", 6)] {
            let _infallible = writeln!(
                rules,
                "    {ip} saddr @vpcs{family} {ip} daddr @vpcs{family} \
                 {ip} saddr . {ip} daddr != @passes{family} drop"
            );
        }
        if self.outside.is_some() {
            rules += &Outside::filter();
        }
        rules + "  }\n}\n"
    }

    /// Whether there is one VPC alone.
    fn lets_all_pass(&self, cidrs: &BTreeSet<IpNet>) -> bool {
        let is_allowed = |(from, to): (&IpNet, &IpNet)| {
            from.addr().is_ipv4() != to.addr().is_ipv4() || self.passes.contains(&(*from, *to))
        };
        self.outside.is_none()
            && cidrs.iter().all(|from| cidrs.iter().all(|to| is_allowed((from, to))))
    }
}

impl Outside {
    /// Sets and chains that translate addresses. Packets within VPCs are not tracked.
    fn translation(&self) -> String {
        let device = Self::device();
        let map = |from: &dyn Display, to: &dyn Display| format!("{from} : {to}");
        let sources: Vec<&Ipv4Net> = self.leaving.keys().collect();
        let public: Vec<String> = self.leaving.iter().map(|(from, to)| map(from, to)).collect();
        let private: Vec<String> = self.reachable.iter().map(|(from, to)| map(from, to)).collect();
        let open: Vec<&Ipv6Net> = self.open.iter().collect();
        let sets = [
            elements("set", "leaving4", "ipv4_addr", &sources),
            elements("set", "leaving6", "ipv6_addr", &open),
            elements("map", "public", "ipv4_addr : ipv4_addr", &public),
            elements("map", "private", "ipv4_addr : ipv4_addr", &private),
        ];
        sets.concat()
            + &format!(
                "  chain untracked {{
    type filter hook prerouting priority raw; policy accept;
    iifname != \"{device}\" ip daddr @vpcs4 notrack
    iifname != \"{device}\" ip6 daddr @vpcs6 notrack
  }}
  chain inward {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname \"{device}\" dnat ip to ip daddr map @private
  }}
  chain outward {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname \"{device}\" snat ip to ip saddr map @public
  }}
  chain services {{
    type filter hook input priority filter; policy accept;
    iifname \"{device}\" meta l4proto {{ tcp, udp }} drop
  }}
"
            )
    }

    /// Rules of the chain for packets that pass through.
    fn filter() -> String {
        let device = Self::device();
        format!(
            "    iifname \"{device}\" oifname \"{device}\" drop
    oifname \"{device}\" ip saddr != @leaving4 drop
    oifname \"{device}\" ip6 saddr != @leaving6 drop
    iifname \"{device}\" ct status dnat accept
    iifname \"{device}\" ct state established,related accept
    iifname \"{device}\" ip6 daddr @leaving6 accept
    iifname \"{device}\" drop
"
        )
    }
}

fn by_family<T>(items: impl Iterator<Item = (IpNet, T)>) -> (Vec<T>, Vec<T>) {
    let (ipv4, ipv6): (Vec<_>, Vec<_>) = items.partition(|(net, _)| net.addr().is_ipv4());
    let values = |items: Vec<(IpNet, T)>| items.into_iter().map(|(_, item)| item).collect();
    (values(ipv4), values(ipv6))
}

/// A set or a map. Its elements may be ranges.
fn elements(kind: &str, name: &str, of: &str, elements: &[impl Display]) -> String {
    let mut text = format!("  {kind} {name} {{\n    type {of}; flags interval;\n");
    if !elements.is_empty() {
        let all: Vec<String> = elements.iter().map(ToString::to_string).collect();
        let _infallible = writeln!(text, "    elements = {{ {} }}", all.join(", "));
    }
    text + "  }\n"
}

/// Gives the rules to the kernel: all of them or none.
pub(super) fn apply(netns: &Netns, rules: &str) -> Result<(), KernelError> {
    let run = || {
        let mut nft = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = nft.stdin.take().expect("it was piped");
        // If `nft` ends early, its own error says more than the broken pipe.
        let written = stdin.write_all(rules.as_bytes());
        drop(stdin);
        let output = nft.wait_with_output()?;
        if output.status.success() { written.map(|()| None) } else { Ok(Some(output.stderr)) }
    };
    match netns.run(run)? {
        Ok(None) => Ok(()),
        Ok(Some(stderr)) => {
            let text = String::from_utf8_lossy(&stderr);
            Err(KernelError::Rules(text.trim().chars().take(SHOWN).collect()))
        }
        Err(error) => Err(KernelError::Nft(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> BTreeSet<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn passes(pairs: &[(&str, &str)]) -> BTreeSet<(IpNet, IpNet)> {
        pairs.iter().map(|(from, to)| (from.parse().unwrap(), to.parse().unwrap())).collect()
    }

    #[test]
    fn one_vpc_without_outside_needs_no_rules() {
        let cidrs = nets(&["10.0.0.0/16", "100.64.0.0/16", "2600:1f:0:100::/56"]);
        let mut routing = Routing::default();
        routing.pass_within(&cidrs.iter().copied().collect::<Vec<_>>());
        assert_eq!(routing.passes.len(), 5, "families do not mix");
        assert_eq!(routing.rules(&cidrs), "table inet vpc\ndelete table inet vpc\n");
        routing.passes.pop_first();
        assert!(routing.rules(&cidrs).contains("chain pass"));
    }

    #[test]
    fn rules_name_what_leaves_and_as_what() {
        let outside = Outside {
            netns: "outside".parse().unwrap(),
            leaving: BTreeMap::from([
                ("10.0.1.10/32".parse().unwrap(), Ipv4Addr::new(203, 0, 113, 10)),
                ("10.0.2.0/24".parse().unwrap(), Ipv4Addr::new(203, 0, 113, 200)),
            ]),
            reachable: BTreeMap::from([(
                Ipv4Addr::new(203, 0, 113, 10),
                Ipv4Addr::new(10, 0, 1, 10),
            )]),
            open: BTreeSet::new(),
        };
        let pairs = [("10.0.0.0/16", "10.0.0.0/16"), ("10.0.1.0/24", "10.1.0.0/16")];
        let routing = Routing { passes: passes(&pairs), outside: Some(outside) };
        let rules = routing.rules(&nets(&["10.0.0.0/16", "10.1.0.0/16"]));
        for expect in [
            "elements = { 10.0.0.0/16, 10.1.0.0/16 }",
            "elements = { 10.0.0.0/16 . 10.0.0.0/16, 10.0.1.0/24 . 10.1.0.0/16 }",
            "elements = { 10.0.1.10/32, 10.0.2.0/24 }",
            "elements = { 10.0.1.10/32 : 203.0.113.10, 10.0.2.0/24 : 203.0.113.200 }",
            "elements = { 203.0.113.10 : 10.0.1.10 }",
            "set leaving6 {\n    type ipv6_addr; flags interval;\n  }",
            "oifname \"f-120000000001\" snat ip to ip saddr map @public",
        ] {
            assert!(rules.contains(expect), "{expect}: {rules}");
        }
    }
}

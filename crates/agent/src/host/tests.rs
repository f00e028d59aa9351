//! Each test runs in a network namespace of its own, as root.

use std::cell::RefCell;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread;

use datapath::netns::Netns;
use ipam::event::HostEgress;
use ipam::policy::SourcePorts;

use super::*;
use crate::handle::{Inbox, Message, channel};

const PRIMARY: &str = "02:00:00:00:00:01";
const SECONDARY: &str = "02:00:00:00:00:02";
/// When a test counts as hung.
const DEADLINE: Duration = Duration::from_secs(90);

pub(crate) struct TestNetns(String);

impl TestNetns {
    pub(crate) fn new(test: &str) -> Self {
        let netns = Self(format!("tp-{test}-{}", std::process::id()));
        run(&format!("ip netns add {}", netns.0));
        netns
    }

    pub(crate) fn inside(&self) -> Netns {
        Netns::open(format!("/var/run/netns/{}", self.0).as_ref()).unwrap()
    }

    /// Runs `ip` inside.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        run(&format!("ip -n {} {arguments}", self.0))
    }

    fn sysctl(&self, key: &str) -> String {
        run(&format!("ip netns exec {} sysctl -n {key}", self.0)).trim_end().to_owned()
    }

    fn set_sysctl(&self, assignment: &str) {
        run(&format!("ip netns exec {} sysctl -q -w {assignment}", self.0));
    }

    fn add_device(&self, name: &str, mac: &str) {
        self.ip(&format!("link add {name} address {mac} type veth peer name {name}-peer"));
        self.ip(&format!("link set {name}-peer up"));
    }
}

impl Drop for TestNetns {
    fn drop(&mut self) {
        // A failure here must not hide why the test failed.
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn eni(n: u8, mac: &str) -> HostEni {
    HostEni {
        eni: EniId::try_from(format!("eni-{n}")).unwrap(),
        mac: mac.parse().unwrap(),
        device_index: u16::from(n),
        network_card: 0,
        primary_address: Ipv4Addr::new(10, 0, 0, 10 + n).into(),
        subnet_cidr: "10.0.0.0/24".parse().unwrap(),
    }
}

/// Something else translates pods' packets, so there is nothing to be known first.
fn outside() -> ipam::event::Nat {
    ipam::event::Nat {
        pod_links: "eni".to_owned(),
        mark: 0x80.try_into().unwrap(),
        source: None,
        node_ports: true,
        by_main_table: BTreeSet::new(),
    }
}

fn no_egress() -> HostEgress {
    HostEgress { families: BTreeSet::new(), ports: SourcePorts::Random }
}

fn picture_of(enis: Vec<HostEni>) -> HostPicture {
    let nat = HostNat::Wanted(outside());
    let (primary_mac, families) = (PRIMARY.parse().unwrap(), [Family::V4].into());
    let egress = no_egress();
    HostPicture { primary_mac, mtu: 9001, families, nat, egress, neighbours: 300, enis }
}

/// The next ENI and its state that the inbox gets.
async fn sent(inbox: &mut Inbox) -> (String, LinkState) {
    let message = tokio::time::timeout(DEADLINE, inbox.receive()).await.unwrap();
    let Message::Event(Event::EniLink { eni, link }) = message else { panic!("{message:?}") };
    (eni.to_string(), link)
}

/// Runs [`keep`] in a namespace of its own, while `test` changes the list of ENIs and the namespace.
fn check(
    name: &str,
    first: Vec<HostEni>,
    prepare: impl FnOnce(&TestNetns),
    test: impl AsyncFnOnce(&TestNetns, &watch::Sender<Option<HostPicture>>, &mut Inbox),
) {
    check_reports(name, first, prepare, async |netns, list, inbox, _| {
        test(netns, list, inbox).await
    });
}

/// As [`check`], with what the keeper says.
fn check_reports(
    name: &str,
    first: Vec<HostEni>,
    prepare: impl FnOnce(&TestNetns),
    test: impl AsyncFnOnce(&TestNetns, &watch::Sender<Option<HostPicture>>, &mut Inbox, &Reports),
) {
    if std::env::var_os("TIDEPOOL_SKIP_ROOT_TESTS").is_some_and(|skip| skip == "1") {
        return;
    }
    let netns = TestNetns::new(name);
    prepare(&netns);
    let inside = netns.inside();
    let (inlet, mut inbox) = channel();
    let (list, mut wanted) = watch::channel(Some(picture_of(first)));
    wanted.mark_changed();
    let reports = Reports::default();
    let of_keeper = reports.clone();
    let keeper = thread::spawn(move || {
        inside.run(|| {
            runtime().block_on(keep(wanted, inlet, of_keeper, NeighbourLimits::Raise));
        })
    });
    runtime().block_on(test(&netns, &list, &mut inbox, &reports));
    drop(list);
    keeper.join().unwrap().unwrap();
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Waits until `ip rule` has or lacks `text`.
async fn until_rules(netns: &TestNetns, text: &str, expected: bool) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while netns.ip("rule").contains(text) != expected {
        assert!(tokio::time::Instant::now() < deadline, "{text:?}: {}", netns.ip("rule"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn keep_follows_the_device_of_each_wanted_eni() {
    let enis = vec![eni(0, PRIMARY), eni(1, SECONDARY)];
    let with_primary = |netns: &TestNetns| netns.add_device("eth0", PRIMARY);
    check("agent-host", enis, with_primary, async |netns, list, inbox| {
        assert_eq!(sent(inbox).await, ("eni-0".to_owned(), LinkState::Ready));
        assert_eq!(sent(inbox).await, ("eni-1".to_owned(), LinkState::Absent));

        netns.add_device("eth1", SECONDARY);
        assert_eq!(sent(inbox).await, ("eni-1".to_owned(), LinkState::Ready));
        assert!(netns.ip("route show table 2").contains("default via 10.0.0.1 dev eth1"));
        assert!(netns.ip("rule").contains("from 10.0.0.11 lookup 2"), "{}", netns.ip("rule"));

        netns.ip("link del eth1");
        assert_eq!(sent(inbox).await, ("eni-1".to_owned(), LinkState::Absent));

        list.send_replace(Some(picture_of(vec![eni(0, PRIMARY)])));
        assert_eq!(sent(inbox).await, ("eni-0".to_owned(), LinkState::Ready));
        assert!(!netns.ip("rule").contains("10.0.0.11"), "{}", netns.ip("rule"));
    });
}

/// The program that names devices may run after the first sync. The translation names the primary ENI's device.
#[test]
fn keep_follows_a_device_that_gets_another_name() {
    let with_both = |netns: &TestNetns| {
        netns.add_device("eth0", PRIMARY);
        netns.add_device("eth1", SECONDARY);
    };
    let enis = vec![eni(0, PRIMARY), eni(1, SECONDARY)];
    check("agent-renamed", enis, with_both, async |netns, _list, inbox| {
        assert_eq!(sent(inbox).await, ("eni-0".to_owned(), LinkState::Ready));
        assert_eq!(sent(inbox).await, ("eni-1".to_owned(), LinkState::Ready));
        assert!(nft(netns, "list ruleset").contains("\"eth0\""), "{}", nft(netns, "list ruleset"));
        let is_whole = || {
            nft(netns, "list ruleset").contains("\"ens5\"")
                && netns.ip("route show table 2").contains("default via 10.0.0.1 dev ens6")
                && netns.ip("addr show ens6").contains("10.0.0.11/24")
        };
        // An older kernel renames only a device that is down.
        for (from, to) in [("eth0", "ens5"), ("eth1", "ens6")] {
            netns.ip(&format!("link set {from} down"));
            netns.ip(&format!("link set {from} name {to}"));
        }
        netns.ip("link set ens5 up");
        // Sooner than the sync of the next minute.
        let deadline = tokio::time::Instant::now() + SYNC_EVERY * 3 / 4;
        while !is_whole() {
            let state = [nft(netns, "list ruleset"), netns.ip("route show table 2")].concat();
            assert!(tokio::time::Instant::now() < deadline, "{state}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn keep_restores_what_another_program_takes_from_an_eni() {
    let with_both = |netns: &TestNetns| {
        netns.add_device("eth0", PRIMARY);
        netns.add_device("eth1", SECONDARY);
    };
    let enis = vec![eni(0, PRIMARY), eni(1, SECONDARY)];
    check("agent-taken", enis, with_both, async |netns, _list, inbox| {
        assert_eq!(sent(inbox).await, ("eni-0".to_owned(), LinkState::Ready));
        assert_eq!(sent(inbox).await, ("eni-1".to_owned(), LinkState::Ready));
        let is_whole = || {
            netns.ip("rule").contains("from 10.0.0.11 lookup 2")
                && netns.ip("route show table 2").contains("default via 10.0.0.1 dev eth1")
                && !netns.ip("addr show eth1").contains("10.0.0.99")
                && netns.ip("addr show eth1").contains("10.0.0.11")
                && netns.sysctl("net.ipv4.ip_forward") == "1"
                && netns.sysctl("net.ipv4.conf.eth0.rp_filter") == "2"
        };
        netns.set_sysctl("net.ipv4.conf.all.rp_filter=1");
        for damage in [
            "rule del from 10.0.0.11",
            "route flush table 2",
            "addr add 10.0.0.99/24 dev eth1",
            "addr flush dev eth1",
            "net.ipv4.ip_forward=0",
            "net.ipv4.conf.eth0.rp_filter=1",
        ] {
            match damage.contains('=') {
                true => netns.set_sysctl(damage),
                false => drop(netns.ip(damage)),
            }
            // Sooner than the sync of the next minute.
            let deadline = tokio::time::Instant::now() + SYNC_EVERY * 3 / 4;
            while !is_whole() {
                assert!(tokio::time::Instant::now() < deadline, "{damage}: {}", netns.ip("rule"));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
}

/// The engine drops an ENI from its list before EC2 detaches it.
#[test]
fn keep_removes_the_rule_once_a_dropped_enis_device_goes() {
    let with_both = |netns: &TestNetns| {
        netns.add_device("eth0", PRIMARY);
        netns.add_device("eth1", SECONDARY);
    };
    let enis = vec![eni(0, PRIMARY), eni(1, SECONDARY)];
    check("agent-former", enis, with_both, async |netns, list, inbox| {
        assert_eq!(sent(inbox).await, ("eni-0".to_owned(), LinkState::Ready));
        assert_eq!(sent(inbox).await, ("eni-1".to_owned(), LinkState::Ready));
        list.send_replace(Some(picture_of(vec![eni(0, PRIMARY)])));
        assert_eq!(sent(inbox).await, ("eni-0".to_owned(), LinkState::Ready));
        assert!(netns.ip("rule").contains("from 10.0.0.11 lookup 2"), "{}", netns.ip("rule"));
        netns.ip("link del eth1");
        until_rules(netns, "10.0.0.11", false).await;
    });
}

#[test]
fn no_eni_is_ready_while_the_primary_device_is_missing() {
    let without_primary = |netns: &TestNetns| netns.add_device("eth1", SECONDARY);
    let enis = vec![eni(0, PRIMARY), eni(1, SECONDARY)];
    check("agent-noprim", enis, without_primary, async |netns, _list, inbox| {
        let failed = LinkState::Failed(format!("no link has hardware address {PRIMARY}"));
        assert_eq!(sent(inbox).await, ("eni-0".to_owned(), failed.clone()));
        assert_eq!(sent(inbox).await, ("eni-1".to_owned(), failed));
        assert!(netns.ip("rule").contains("from 10.0.0.11 lookup 2"), "it is set up all the same");
        netns.add_device("eth0", PRIMARY);
        assert_eq!(sent(inbox).await, ("eni-0".to_owned(), LinkState::Ready));
        assert_eq!(sent(inbox).await, ("eni-1".to_owned(), LinkState::Ready));
    });
}

/// Runs `nft` inside.
fn nft(netns: &TestNetns, arguments: &str) -> String {
    run(&format!("ip netns exec {} nft {arguments}", netns.0))
}

#[test]
fn keep_puts_back_the_nat_that_another_program_removes() {
    let with_primary = |netns: &TestNetns| netns.add_device("eth0", PRIMARY);
    let enis = vec![eni(0, PRIMARY)];
    check_reports("agent-nat", enis, with_primary, async |netns, _list, inbox, reports| {
        assert_eq!(sent(inbox).await, ("eni-0".to_owned(), LinkState::Ready));
        let is_whole = || {
            netns.ip("rule").contains("fwmark 0x80/0x80 lookup main")
                && nft(netns, "list ruleset").contains("iifname \"eni*\" ct mark")
        };
        assert!(is_whole());
        let damages = [
            "nft flush ruleset",
            "ip rule del priority 1024",
            "nft flush chain ip tidepool from-pods",
        ];
        for (n_before, damage) in (0..).zip(damages) {
            run(&format!("ip netns exec {} {damage}", netns.0));
            // Sooner than the sync of the next minute. The count comes after the repair: without it, one sync could
            // repair the next damage too.
            let deadline = tokio::time::Instant::now() + SYNC_EVERY * 3 / 4;
            while !is_whole() || reports.repairs.n("nat") <= n_before {
                assert!(tokio::time::Instant::now() < deadline, "{damage}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        assert_eq!(reports.repairs.n("eni"), 0);
    });
}

#[test]
fn keep_brings_the_kernels_rules_back() {
    let with_primary = |netns: &TestNetns| netns.add_device("eth0", PRIMARY);
    let enis = vec![eni(0, PRIMARY)];
    check_reports("agent-rules", enis, with_primary, async |netns, _list, inbox, reports| {
        assert_eq!(sent(inbox).await, ("eni-0".to_owned(), LinkState::Ready));
        for (damage, rules) in [("rule flush", "rule"), ("-6 rule flush", "-6 rule")] {
            let n_before = reports.repairs.n("kernel_rules");
            netns.ip(damage);
            // Sooner than the sync of the next minute.
            let deadline = tokio::time::Instant::now() + SYNC_EVERY * 3 / 4;
            while !netns.ip(rules).contains("lookup main") {
                assert!(tokio::time::Instant::now() < deadline, "{damage}: {}", netns.ip(rules));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            while reports.repairs.n("kernel_rules") == n_before {
                assert!(tokio::time::Instant::now() < deadline, "{damage} is not counted");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
}

/// Another program owns a table of our name, so the kernel refuses ours.
#[test]
fn no_eni_is_ready_while_its_nat_cannot_be_written() {
    let owner = RefCell::new(None);
    let prepare = |netns: &TestNetns| {
        netns.add_device("eth0", PRIMARY);
        netns.add_device("eth1", SECONDARY);
        let mut nft = Command::new("ip");
        nft.args(["netns", "exec", &netns.0, "nft", "-i"]);
        let mut nft = nft.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let stdin = nft.stdin.as_mut().unwrap();
        stdin.write_all(b"add table ip tidepool { flags owner; }\n").unwrap();
        while !self::nft(netns, "list tables").contains("ip tidepool") {
            thread::yield_now();
        }
        owner.replace(Some(nft));
    };
    let enis = vec![eni(0, PRIMARY), eni(1, SECONDARY)];
    check("agent-denied", enis, prepare, async |_netns, _list, inbox| {
        for eni in ["eni-0", "eni-1"] {
            let (found, state) = sent(inbox).await;
            let LinkState::Failed(why) = state else { panic!("{state:?}") };
            assert!(found == eni && why.contains("write nftables table ip tidepool"), "{why}");
            assert!(why.contains("Operation not permitted"), "{why}");
        }
        let mut owner = owner.take().unwrap();
        drop(owner.stdin.take());
        owner.wait().unwrap();
        assert_eq!(sent(inbox).await, ("eni-0".to_owned(), LinkState::Ready));
        assert_eq!(sent(inbox).await, ("eni-1".to_owned(), LinkState::Ready));
    });
}

#[test]
fn no_eni_is_ready_before_its_nat_is_known() {
    let with_primary = |netns: &TestNetns| netns.add_device("eth0", PRIMARY);
    check("agent-nonat", vec![eni(0, PRIMARY)], with_primary, async |netns, list, inbox| {
        assert_eq!(sent(inbox).await, ("eni-0".to_owned(), LinkState::Ready));
        let before = nft(netns, "list ruleset");
        let unknown = HostNat::Unknown("nobody knows the VPC");
        let picture = picture_of(vec![eni(0, PRIMARY)]);
        list.send_replace(Some(HostPicture { nat: unknown, ..picture.clone() }));
        let failed = LinkState::Failed("nobody knows the VPC".to_owned());
        assert_eq!(sent(inbox).await, ("eni-0".to_owned(), failed));
        assert_eq!(nft(netns, "list ruleset"), before, "what is there stays");
        list.send_replace(Some(picture));
        assert_eq!(sent(inbox).await, ("eni-0".to_owned(), LinkState::Ready));
    });
}

#[test]
fn legacy_rules_of_the_incumbent_are_in_the_view() {
    let with_legacy = |netns: &TestNetns| {
        netns.add_device("eth0", PRIMARY);
        netns.ip("rule add fwmark 0x80/0x80 lookup main priority 1024");
        let inside = format!("ip netns exec {} iptables-legacy -t nat", netns.0);
        run(&format!("{inside} -A POSTROUTING -j ACCEPT"));
    };
    let enis = vec![eni(0, PRIMARY)];
    check_reports("agent-legacy", enis, with_legacy, async |_netns, _list, inbox, reports| {
        assert_eq!(sent(inbox).await, ("eni-0".to_owned(), LinkState::Ready));
        let lines = reports.notes.lines();
        let names_it = |line: &String| {
            line.starts_with("LEGACY_IPTABLES: ") && line.ends_with(datapath::nat::LEGACY_REMOVAL)
        };
        assert!(lines.iter().any(names_it), "{lines:?}");
    });
}

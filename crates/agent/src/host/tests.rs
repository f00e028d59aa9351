//! In a network namespace of their own, as root.

use std::process::Command;
use std::thread;

use datapath::netns::Netns;

use super::*;
use crate::handle::{Inbox, Message, channel};

const PRIMARY: &str = "02:00:00:00:00:01";
const SECONDARY: &str = "02:00:00:00:00:02";
const DEADLINE: Duration = Duration::from_secs(20);

struct TestNetns(String);

impl TestNetns {
    fn new(test: &str) -> Self {
        let netns = Self(format!("tp-{test}-{}", std::process::id()));
        run(&format!("ip netns add {}", netns.0));
        netns
    }

    /// `ip` inside.
    fn ip(&self, arguments: &str) -> String {
        run(&format!("ip -n {} {arguments}", self.0))
    }

    fn add_device(&self, name: &str, mac: &str) {
        self.ip(&format!("link add {name} address {mac} type veth peer name {name}-peer"));
        self.ip(&format!("link set {name}-peer up"));
    }
}

impl Drop for TestNetns {
    fn drop(&mut self) {
        // Part of what a failing test leaves; it must not hide why that failed.
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
        mac: mac.to_owned(),
        device_index: u16::from(n),
        network_card: 0,
        primary_address: Ipv4Addr::new(10, 0, 0, 10 + n),
        subnet_cidr: "10.0.0.0/24".parse().unwrap(),
    }
}

/// The next thing that is told of an ENI.
async fn told(inbox: &mut Inbox) -> (String, LinkState) {
    let message = tokio::time::timeout(DEADLINE, inbox.receive()).await.unwrap();
    let Message::Event(Event::EniLink { eni, link }) = message else { panic!("{message:?}") };
    (eni.to_string(), link)
}

#[test]
fn an_eni_is_set_up_when_its_device_appears_and_forgotten_when_it_goes() {
    if std::env::var_os("TIDEPOOL_SKIP_ROOT_TESTS").is_some_and(|skip| skip == "1") {
        return;
    }
    let netns = TestNetns::new("agent-host");
    netns.add_device("eth0", PRIMARY);
    let inside = Netns::open(format!("/var/run/netns/{}", netns.0).as_ref()).unwrap();
    let (inlet, mut inbox) = channel();
    let (list, wanted) = watch::channel(vec![eni(0, PRIMARY), eni(1, SECONDARY), eni(2, "no mac")]);
    let mut wanted = wanted;
    wanted.mark_changed();
    let keeper = thread::spawn(move || {
        inside.run(|| {
            let settings = Settings { mtu: Mtu::JUMBO, ipv6: false };
            let keeping = keep(PRIMARY.to_owned(), settings, wanted, inlet);
            runtime().block_on(keeping);
        })
    });

    runtime().block_on(async {
        assert_eq!(told(&mut inbox).await, ("eni-0".to_owned(), LinkState::Ready));
        assert_eq!(told(&mut inbox).await, ("eni-1".to_owned(), LinkState::Absent));
        let failed = LinkState::Failed("\"no mac\" is no hardware address".to_owned());
        assert_eq!(told(&mut inbox).await, ("eni-2".to_owned(), failed));

        netns.add_device("eth1", SECONDARY);
        assert_eq!(told(&mut inbox).await, ("eni-1".to_owned(), LinkState::Ready));
        assert!(netns.ip("route show table 2").contains("default via 10.0.0.1 dev eth1"));
        assert!(netns.ip("rule").contains("from 10.0.0.11 lookup 2"), "{}", netns.ip("rule"));

        netns.ip("link del eth1");
        assert_eq!(told(&mut inbox).await, ("eni-1".to_owned(), LinkState::Absent));

        list.send_replace(vec![eni(0, PRIMARY)]);
        assert_eq!(told(&mut inbox).await, ("eni-0".to_owned(), LinkState::Ready));
    });
    drop(list);
    keeper.join().unwrap().unwrap();
    assert!(!netns.ip("rule").contains("10.0.0.11"), "{}", netns.ip("rule"));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

//! The kernel check: the daemon compares its record with the kernel's links. The test needs root and runs in a
//! network namespace of its own.

use std::process::Command;

use datapath::netns::Netns;

use crate::node::{TestNode, until};

struct TestNetns(String);

impl TestNetns {
    fn new() -> Self {
        let name = format!("tp-kernel-check-{}", std::process::id());
        let added = Command::new("ip").args(["netns", "add", &name]).status().unwrap();
        assert!(added.success(), "root is needed");
        Self(name)
    }

    /// Runs `ip` inside.
    fn ip(&self, arguments: &str) {
        let mut command = Command::new("ip");
        let output = command.args(["-n", &self.0]).args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {arguments}: {output:?}");
    }
}

impl Drop for TestNetns {
    fn drop(&mut self) {
        // A failure here must not hide why the test failed.
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// Two pods outlive the record: one with a mark on its link, and one without.
async fn check_pods_after_record_loss(netns: &TestNetns) {
    let node = TestNode::new();
    let daemon = node.start().await;
    let client = node.client().await;
    let [unmarked, marked] = [client.add("unmarked").await, client.add("marked").await];
    let (unmarked, marked) = (unmarked.unwrap(), marked.unwrap());
    for (link, address) in [("eni1", &unmarked), ("eni2", &marked)] {
        netns.ip(&format!("link add {link} type veth peer name {link}-peer"));
        netns.ip(&format!("link set {link} up"));
        netns.ip(&format!("route add {address} dev {link}"));
    }
    netns.ip("link set eni2 alias marked/eth0");
    daemon.kill(&node).await;
    std::fs::remove_file(node.state_directory.join("tidepool.jsonl")).unwrap();

    let daemon = node.start().await;
    let client = node.client().await;
    client.until_warm(1).await;
    let back = async || client.view().await.pods.first().cloned();
    let pod = until("the marked pod to come back", back).await;
    assert_eq!(pod.address.unwrap().address, marked);
    let view = client.view().await;
    assert_eq!((view.counts.unwrap().quarantined, view.pods.len()), (1, 1));
    let expect = format!("{unmarked} is quarantined: eni1 uses it without a record");
    assert!(view.blocked.contains(&expect), "{:?}", view.blocked);
    assert_eq!(client.check("marked").await[0].address, marked);
    for n in 0..12 {
        let new = client.add(&format!("new{n}")).await.unwrap();
        assert!(new != unmarked && new != marked, "{new} is allocated twice");
    }

    netns.ip("link del eni1");
    let cools = async || {
        let counts = client.counts().await;
        (counts.quarantined == 0 && counts.cooling == 1).then_some(())
    };
    until("the address to cool down", cools).await;
    assert_eq!(client.del("marked").await.unwrap(), [marked.as_str()]);
    daemon.stop().await.unwrap();
}

#[test]
fn lost_record_keeps_addresses_of_running_pods() {
    if std::env::var_os("TIDEPOOL_SKIP_ROOT_TESTS").is_some_and(|skip| skip == "1") {
        return;
    }
    let netns = TestNetns::new();
    let inside = Netns::open(format!("/var/run/netns/{}", netns.0).as_ref()).unwrap();
    // A thread starts in the namespace of its parent thread, so the daemon's threads are inside.
    let test = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(check_pods_after_record_loss(&netns));
    };
    inside.run(test).unwrap();
}

//! The kernel as a witness, in a network namespace of its own, as root.

use std::process::Command;

use datapath::netns::Netns;

use crate::node::{TestNode, until};

struct TestNetns(String);

impl TestNetns {
    fn new() -> Self {
        let name = format!("tp-witness-{}", std::process::id());
        let added = Command::new("ip").args(["netns", "add", &name]).status().unwrap();
        assert!(added.success(), "root is needed");
        Self(name)
    }

    /// `ip` inside.
    fn ip(&self, arguments: &str) {
        let mut command = Command::new("ip");
        let output = command.args(["-n", &self.0]).args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {arguments}: {output:?}");
    }
}

impl Drop for TestNetns {
    fn drop(&mut self) {
        // Part of what a failing test leaves; it must not hide why that failed.
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

async fn a_pod_outlives_the_record(netns: &TestNetns) {
    let node = TestNode::new();
    let daemon = node.start().await;
    let old = node.client().await.add("old").await.unwrap();
    netns.ip("link add eni1 type veth peer name eni1-peer");
    netns.ip("link set eni1 alias old/eth0 up");
    netns.ip(&format!("route add {old} dev eni1"));
    daemon.kill(&node).await;
    std::fs::remove_file(node.config.state_directory.join("tidepool.jsonl")).unwrap();

    let daemon = node.start().await;
    let client = node.client().await;
    client.until_warm(1).await;
    let view = client.view().await;
    assert_eq!((view.counts.unwrap().quarantined, view.pods.len()), (1, 0));
    let expect = format!("{old} is used by eni1 of which there is no record: quarantined");
    assert!(view.blocked.contains(&expect), "{:?}", view.blocked);
    for n in 0..12 {
        assert_ne!(client.add(&format!("new{n}")).await.unwrap(), old);
    }

    netns.ip("link del eni1");
    let rests = async || {
        let counts = client.counts().await;
        (counts.quarantined == 0 && counts.cooling == 1).then_some(())
    };
    until("the address to rest", rests).await;
    daemon.stop().await.unwrap();
}

#[test]
fn a_pod_that_runs_keeps_its_address_without_the_record() {
    if std::env::var_os("TIDEPOOL_SKIP_ROOT_TESTS").is_some_and(|skip| skip == "1") {
        return;
    }
    let netns = TestNetns::new();
    let inside = Netns::open(format!("/var/run/netns/{}", netns.0).as_ref()).unwrap();
    // Threads are born in the namespace of the thread that starts them, so the daemon's are inside.
    let test = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(a_pod_outlives_the_record(&netns));
    };
    inside.run(test).unwrap();
}

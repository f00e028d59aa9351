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

/// A pod with a link of which nobody has written down whose it is, and one with a mark.
async fn pods_outlive_the_record(netns: &TestNetns) {
    let node = TestNode::new();
    let daemon = node.start().await;
    let client = node.client().await;
    let [nobodys, marked] = [client.add("nobodys").await, client.add("marked").await];
    let (nobodys, marked) = (nobodys.unwrap(), marked.unwrap());
    for (link, address) in [("eni1", &nobodys), ("eni2", &marked)] {
        netns.ip(&format!("link add {link} type veth peer name {link}-peer"));
        netns.ip(&format!("link set {link} up"));
        netns.ip(&format!("route add {address} dev {link}"));
    }
    netns.ip("link set eni2 alias marked/eth0");
    daemon.kill(&node).await;
    std::fs::remove_file(node.config.state_directory.join("tidepool.jsonl")).unwrap();

    let daemon = node.start().await;
    let client = node.client().await;
    client.until_warm(1).await;
    let back = async || client.view().await.pods.first().cloned();
    let pod = until("the marked pod to come back", back).await;
    assert_eq!(pod.address.unwrap().address, marked);
    let view = client.view().await;
    assert_eq!((view.counts.unwrap().quarantined, view.pods.len()), (1, 1));
    let expect = format!("{nobodys} is quarantined: eni1 uses it without a record");
    assert!(view.blocked.contains(&expect), "{:?}", view.blocked);
    assert_eq!(client.check("marked").await[0].address, marked);
    for n in 0..12 {
        let new = client.add(&format!("new{n}")).await.unwrap();
        assert!(new != nobodys && new != marked, "{new} is given twice");
    }

    netns.ip("link del eni1");
    let rests = async || {
        let counts = client.counts().await;
        (counts.quarantined == 0 && counts.cooling == 1).then_some(())
    };
    until("the address to rest", rests).await;
    assert_eq!(client.del("marked").await.unwrap(), [marked.as_str()]);
    daemon.stop().await.unwrap();
}

#[test]
fn pods_that_run_keep_their_addresses_without_the_record() {
    if std::env::var_os("TIDEPOOL_SKIP_ROOT_TESTS").is_some_and(|skip| skip == "1") {
        return;
    }
    let netns = TestNetns::new();
    let inside = Netns::open(format!("/var/run/netns/{}", netns.0).as_ref()).unwrap();
    // Threads are born in the namespace of the thread that starts them, so the daemon's are inside.
    let test = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(pods_outlive_the_record(&netns));
    };
    inside.run(test).unwrap();
}

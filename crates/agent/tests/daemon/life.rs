//! Starts, stops and crashes. The record survives all of them.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::Duration;

use ipam::id::BootId;
use proto::pending::{PendingDel, directory};
use proto::v1;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::node::{Client, TestNode, until};

async fn add_all(client: &Client, n: usize) -> BTreeMap<String, String> {
    let mut addresses = BTreeMap::new();
    for n in 0..n {
        let container = format!("c{n}");
        addresses.insert(container.clone(), client.add(&container).await.unwrap());
    }
    addresses
}

async fn assert_kept(client: &Client, addresses: &BTreeMap<String, String>) {
    for (container, address) in addresses {
        let held = client.check(container).await;
        assert_eq!(held.len(), 1, "{container}");
        assert_eq!(held[0].address, *address, "{container}");
    }
    // A repeated ADD gets the same address, even before EC2's first answer.
    for (container, address) in addresses {
        assert_eq!(client.add(container).await.unwrap(), *address);
    }
}

#[tokio::test]
async fn restart_keeps_every_address() {
    let node = TestNode::new();
    let daemon = node.start().await;
    let mut addresses = add_all(&node.client().await, 12).await;
    let resting = addresses.remove("c3").unwrap();
    node.client().await.del("c3").await.unwrap();
    daemon.stop().await.unwrap();
    assert!(!node.socket().exists());

    let daemon = node.start().await;
    let client = node.client().await;
    assert_kept(&client, &addresses).await;
    assert_eq!(client.check("c3").await, []);
    client.until_warm(5).await;
    assert_eq!(client.counts().await.cooling, 1);
    let fresh = client.add("new").await.unwrap();
    assert!(fresh != resting && addresses.values().all(|address| *address != fresh));
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn crash_keeps_every_granted_address() {
    let node = TestNode::new();
    let mut addresses = BTreeMap::new();
    for n in 0..4 {
        let daemon = node.start().await;
        let client = node.client().await;
        assert_kept(&client, &addresses).await;
        let container = format!("round{n}");
        addresses.insert(container.clone(), client.add(&container).await.unwrap());
        daemon.kill(&node).await;
    }
    let distinct: std::collections::BTreeSet<_> = addresses.values().collect();
    assert_eq!(distinct.len(), 4);
}

#[tokio::test]
async fn restart_while_ec2_is_silent_serves_known_pods() {
    let node = TestNode::new();
    let daemon = node.start().await;
    let addresses = add_all(&node.client().await, 3).await;
    daemon.kill(&node).await;
    node.ec2.answers(false);
    let daemon = node.start().await;
    let client = node.client().await;
    assert_kept(&client, &addresses).await;
    assert_eq!(client.del("c0").await.unwrap(), [addresses["c0"].clone()]);
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn warm_start_while_ec2_is_silent_serves_new_pods() {
    let mut node = TestNode::new();
    let daemon = node.start().await;
    let client = node.client().await;
    let mut addresses = add_all(&client, 3).await;
    client.until_warm(5).await;
    daemon.kill(&node).await;

    node.ec2.answers(false);
    let daemon = node.start().await;
    let client = node.client().await;
    // EC2 answers nothing here, so what is served does not wait for EC2.
    let fresh = client.add("fresh").await.unwrap();
    assert!(node.ec2.secondary_addresses().contains(&fresh));
    assert!(addresses.values().all(|address| *address != fresh));
    assert_eq!(client.del("c0").await.unwrap(), [addresses["c0"].clone()]);
    addresses.remove("c0");
    addresses.insert("fresh".to_owned(), fresh);
    assert_kept(&client, &addresses).await;
    daemon.kill(&node).await;

    // After a boot of the machine, the ENIs in the record do not count.
    node.config.node.boot = BootId("another boot".to_owned());
    node.config.policy.timing.add_wait = Duration::from_millis(600);
    let daemon = node.start().await;
    let client = node.client().await;
    assert_kept(&client, &addresses).await;
    let (code, message) = client.add("needs EC2").await.unwrap_err();
    assert_eq!(code, "STARTING", "{message}");
    node.ec2.answers(true);
    until("an address from EC2", || async { client.add("needs EC2").await.ok() }).await;
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn stop_refuses_waiting_adds() {
    let node = TestNode::new();
    node.ec2.answers(false);
    let daemon = node.start().await;
    let client = node.client().await;
    let add = client.spawn_add("c1");
    client.until_waiting(1).await;
    // The end shows that the stop does not wait for EC2, which never answers. The refusal's message shows that
    // the stop has ended the ADD.
    daemon.stop().await.unwrap();
    let (code, message) = add.await.unwrap().unwrap_err();
    assert_eq!(code, "STARTING");
    assert!(message.contains("stopping"), "{message}");
    assert!(!node.socket().exists());
}

#[tokio::test]
async fn dels_from_files_are_applied_once() {
    let node = TestNode::new();
    let daemon = node.start().await;
    let addresses = add_all(&node.client().await, 3).await;
    daemon.kill(&node).await;

    let remembered = directory(node.socket());
    std::fs::create_dir_all(&remembered).unwrap();
    let pending = |container: &str| PendingDel {
        network: "aws-cni".into(),
        container_id: container.into(),
        ifname: "eth0".into(),
    };
    for container in ["c1", "never-seen"] {
        let pending = pending(container);
        let text = serde_json::to_vec(&pending).unwrap();
        std::fs::write(remembered.join(pending.file_name()), text).unwrap();
    }
    std::fs::write(remembered.join("torn.json"), "{\"network\":").unwrap();
    std::fs::write(remembered.join("draft.json.77"), "{").unwrap();

    let daemon = node.start().await;
    let client = node.client().await;
    until("the files of DELs to be gone", || async {
        let gone = |container| !remembered.join(pending(container).file_name()).exists();
        (gone("c1") && gone("never-seen")).then_some(())
    })
    .await;
    assert_eq!(client.check("c1").await, []);
    assert_eq!(client.check("c2").await[0].address, addresses["c2"]);
    until("the torn file to be set aside", || async {
        remembered.join("torn.unreadable").exists().then_some(())
    })
    .await;
    assert!(remembered.join("draft.json.77").exists());
    daemon.stop().await.unwrap();
}

/// Notes that another user has written, or that are no files at all, harm no pod and hinder no other note.
#[tokio::test]
async fn dels_that_another_user_may_have_left_are_refused() {
    let node = TestNode::new();
    let daemon = node.start().await;
    let addresses = add_all(&node.client().await, 4).await;
    daemon.kill(&node).await;

    let notes = directory(node.socket());
    std::fs::create_dir_all(&notes).unwrap();
    let note = |container: &str, mode: u32| {
        let (network, ifname) = ("aws-cni".into(), "eth0".into());
        let pending = PendingDel { network, container_id: container.into(), ifname };
        let path = notes.join(pending.file_name());
        std::fs::write(&path, serde_json::to_vec(&pending).unwrap()).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    };
    note("c0", 0o666);
    std::os::unix::fs::chown(note("c1", 0o644), Some(65_534), None).unwrap();
    let fifo = notes.join("a-first.json");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
    let genuine = note("c2", 0o644);
    std::fs::write(notes.join("b-large.json"), vec![b' '; 1 << 20]).unwrap();
    std::fs::set_permissions(&notes, Permissions::from_mode(0o777)).unwrap();

    let daemon = node.start().await;
    let client = node.client().await;
    until("the genuine note to be applied", || async { (!genuine.exists()).then_some(()) }).await;
    until("the other notes to be set aside", || async {
        let names = std::fs::read_dir(&notes).unwrap().map(|entry| entry.unwrap().path());
        let mut left = names.filter(|path| path.extension().is_some_and(|kind| kind == "json"));
        left.next().is_none().then_some(())
    })
    .await;
    assert_eq!(client.check("c2").await, []);
    for container in ["c0", "c1", "c3"] {
        assert_eq!(client.check(container).await[0].address, addresses[container], "{container}");
    }
    assert_eq!(std::fs::metadata(&notes).unwrap().mode() & 0o777, 0o755);
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn ready_only_after_ec2_answers() {
    let node = TestNode::new();
    node.ec2.answers(false);
    let daemon = node.start().await;
    let client = node.client().await;
    let ready = || {
        let mut client = client.0.clone();
        let request = v1::ReadyRequest { client_version: proto::VERSION.into() };
        async move { client.ready(request).await.unwrap().into_inner() }
    };
    let reply = ready().await;
    assert_eq!(reply.not_ready.unwrap().code, "STARTING");
    assert_eq!(reply.server_version, proto::VERSION);
    node.ec2.answers(true);
    until("the daemon to be ready", || async { ready().await.not_ready.is_none().then_some(()) })
        .await;
    daemon.stop().await.unwrap();
}

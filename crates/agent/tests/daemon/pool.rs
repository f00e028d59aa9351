//! ADD, DEL, CHECK, GC and View over the socket.

use std::collections::BTreeSet;
use std::time::Duration;

use proto::v1;
use tonic::Request;

use crate::node::{TestNode, add_request, attachment, until};

#[tokio::test]
async fn repeated_add_and_del_have_the_same_result() {
    let node = TestNode::new();
    let daemon = node.start().await;
    let client = node.client().await;
    let address = client.add("c1").await.unwrap();
    assert!(node.ec2.secondary_addresses().contains(&address));
    assert_eq!(client.add("c1").await.unwrap(), address);

    let held = client.check("c1").await;
    assert_eq!((held.len(), &held[0].address, held[0].table), (1, &address, 254));
    assert!(held[0].eni.starts_with("eni-"));

    assert_eq!(client.del("c1").await.unwrap(), std::slice::from_ref(&address));
    assert_eq!(client.del("c1").await.unwrap(), Vec::<String>::new());
    assert_eq!(client.check("c1").await, []);
    assert_ne!(client.add("c2").await.unwrap(), address, "the address cools down");
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn secondary_eni_has_its_own_table() {
    let node = TestNode::new();
    let daemon = node.start().await;
    let client = node.client().await;
    for n in 0..29 {
        client.add(&format!("c{n}")).await.unwrap();
    }
    client.add("next").await.unwrap();
    let tables: BTreeSet<u32> = client.view().await.enis.iter().map(|eni| eni.table).collect();
    assert!(tables.is_superset(&BTreeSet::from([254, 2])), "{tables:?}");
    let held = client.check("next").await;
    assert_eq!(held[0].table, 2);
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn view_shows_pods_and_counts() {
    let node = TestNode::new();
    let daemon = node.start().await;
    let client = node.client().await;
    let address = client.add("c1").await.unwrap();
    client.add("c2").await.unwrap();
    client.del("c2").await.unwrap();
    client.until_warm(5).await;
    let view = client.view().await;
    assert_eq!((&*view.instance_id, &*view.mode), ("i-0123456789abcdef0", "secondary-ip"));
    assert_eq!(view.server_version, proto::VERSION);
    let pods: Vec<_> = view.pods.iter().map(|pod| pod.address.clone().unwrap().address).collect();
    assert_eq!(pods, [address]);
    assert_eq!(view.pods[0].attachment, Some(attachment("c1")));
    assert_eq!(view.pods[0].pod.as_ref().unwrap().name, "web");
    let counts = view.counts.unwrap();
    assert_eq!((counts.assigned, counts.cooling, counts.waiting), (1, 1, 0));
    assert_eq!(counts.total, counts.assigned + counts.cooling + counts.free);
    let blocks = view.enis.iter().flat_map(|eni| &eni.blocks);
    assert_eq!(blocks.map(|block| block.assigned).sum::<u64>(), 1);
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn gc_collects_unlisted_attachments_only() {
    let node = TestNode::new();
    let daemon = node.start().await;
    let client = node.client().await;
    // Each over its own connection, as plugins do.
    let kept = node.client().await.add("alive").await.unwrap();
    let lost = node.client().await.add("dead").await.unwrap();
    let adding = node.client().await;
    adding.add("coming").await.unwrap();
    let request = v1::GcRequest {
        network: "aws-cni".into(),
        valid: vec![attachment("alive")],
        client_version: proto::VERSION.into(),
    };
    let gc = |request: v1::GcRequest| {
        let mut client = client.0.clone();
        async move { client.gc(request).await.unwrap().into_inner().collected }
    };
    let other = v1::GcRequest { network: "other".into(), valid: vec![], ..request.clone() };
    assert_eq!(gc(other).await, []);
    let collects = async || gc(request.clone()).await.pop();
    let collected = until("the dead attachment to be collected", &collects).await;
    assert_eq!(collected.attachment, Some(attachment("dead")));
    assert_eq!(collected.released[0].address, lost);
    assert_eq!(
        gc(request.clone()).await,
        [],
        "an attachment that is being added is not listed yet"
    );
    drop(adding);
    let collected = until("the end of the add", &collects).await;
    assert_eq!(collected.attachment, Some(attachment("coming")));
    assert_eq!(client.check("alive").await[0].address, kept);
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn add_without_free_address_waits_for_ec2() {
    let node = TestNode::new();
    node.ec2.answers(false);
    let daemon = node.start().await;
    let client = node.client().await;
    let add = client.spawn_add("c1");
    client.until_waiting(1).await;
    assert!(!add.is_finished());
    node.ec2.answers(true);
    let address = add.await.unwrap().unwrap();
    assert!(node.ec2.secondary_addresses().contains(&address));
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn add_is_answered_before_its_timeout() {
    let node = TestNode::new();
    node.ec2.answers(false);
    let daemon = node.start().await;
    let client = node.client().await;
    // On a busy machine the caller may give up before it reads the answer. Then it calls again.
    let answered = || async { client.add_within("c1", Duration::from_millis(1500)).await.ok() };
    let (code, message) = until("an answer within the timeout", answered).await.unwrap_err();
    assert_eq!(code, "STARTING", "{message}");
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn add_of_vanished_caller_is_cancelled() {
    let node = TestNode::new();
    node.ec2.answers(false);
    let daemon = node.start().await;
    let client = node.client().await;
    let add = client.spawn_add("gone");
    client.until_waiting(1).await;
    add.abort();
    client.until_waiting(0).await;
    node.ec2.answers(true);
    client.until_warm(5).await;
    assert_eq!(client.counts().await.assigned, 0);
    assert_eq!(client.check("gone").await, []);
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn hung_ec2_delays_neither_del_nor_view() {
    let node = TestNode::new();
    let daemon = node.start().await;
    let client = node.client().await;
    let address = client.add("c1").await.unwrap();
    client.until_warm(5).await;
    node.ec2.answers(false);
    let adds: Vec<_> = (0..40).map(|n| client.spawn_add(&format!("more{n}"))).collect();
    client.until_waiting(35).await;
    assert_eq!(client.del("c1").await.unwrap(), [address]);
    node.ec2.answers(true);
    for add in adds {
        add.await.unwrap().unwrap();
    }
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn two_hundred_concurrent_adds_share_no_address() {
    let node = TestNode::new();
    let daemon = node.start().await;
    let client = node.client().await;
    let adds: Vec<_> = (0..200).map(|n| client.spawn_add(&format!("c{n}"))).collect();
    let mut addresses = BTreeSet::new();
    for add in adds {
        let address = add.await.unwrap().unwrap();
        assert!(addresses.insert(address.clone()), "{address} was given twice");
    }
    assert!(addresses.is_subset(&node.ec2.secondary_addresses()));
    assert_eq!(client.counts().await.assigned, 200);
    // 200 pods and 5 warm addresses need seven ENIs beside the primary, with 29 addresses each.
    let n_created = node.ec2.n_requests("CreateNetworkInterface");
    assert!(n_created <= 8, "{n_created}");
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn add_with_unwritable_record_is_refused() {
    let mut node = TestNode::new();
    let blocked = node.directory.path().join("blocked");
    std::fs::write(&blocked, "a file where the directory should be").unwrap();
    node.state_directory = blocked.clone();
    node.config.policy.timing.add_wait = Duration::from_secs(1);
    let daemon = node.start().await;
    let client = node.client().await;
    let (code, message) = client.add("c1").await.unwrap_err();
    assert_eq!(code, "STATE_UNWRITABLE", "{message}");
    assert!(message.contains("blocked"), "{message}");
    assert_eq!(client.del("c1").await.unwrap(), Vec::<String>::new());

    std::fs::remove_file(&blocked).unwrap();
    until("an address once the disk is back", || async { client.add("c1").await.ok() }).await;
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn request_of_distant_version_names_both_versions() {
    let node = TestNode::new();
    let daemon = node.start().await;
    let mut client = node.client().await.0;
    let request = v1::AddRequest { client_version: "7.0.0".into(), ..add_request("c1") };
    let status = client.add(Request::new(request)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    assert!(status.message().contains("7.0.0") && status.message().contains(proto::VERSION));
    let request = v1::AddRequest { attachment: None, ..add_request("c1") };
    let status = client.add(Request::new(request)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    daemon.stop().await.unwrap();
}

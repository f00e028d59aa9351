//! Socket, record and notes on one disk that takes nothing new. The daemon runs all the same.

use std::path::PathBuf;
use std::process::Command;

use proto::v1;
use proto::v1::ipam_client::IpamClient;

use crate::node::{Client, TestNode, attachment, try_connect, until};

/// A small file system, mounted on a directory of its own.
struct Disk(PathBuf);

impl Disk {
    fn mount(node: &TestNode, options: &str) -> Self {
        let path = node.directory.path().join("disk");
        std::fs::create_dir(&path).unwrap();
        let disk = Self(path);
        disk.run("mount", &["-t", "tmpfs", "-o", options, "tmpfs"]);
        disk
    }

    fn remount(&self, options: &str) {
        self.run("mount", &["-o", &format!("remount,{options}")]);
    }

    /// Makes empty files until there is no inode for another.
    fn use_up_inodes(&self) {
        let file = |n: u32| std::fs::File::create(self.0.join(format!("filler-{n}")));
        assert!((0..1000).map(file).any(|made| made.is_err()), "the disk takes 1000 files");
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let status = Command::new(program).args(arguments).arg(&self.0).status().unwrap();
        assert!(status.success(), "{program} {arguments:?}: {status}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A failure here must not hide why the test failed.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn node_on_a_disk(options: &str) -> (TestNode, Disk) {
    let mut node = TestNode::new();
    let disk = Disk::mount(&node, options);
    node.config.socket = disk.0.join("ipamd.sock");
    node.state_directory.clone_from(&disk.0);
    (node, disk)
}

/// The address of `container`, from a daemon that answers. `None` if nobody answers.
async fn held(node: &TestNode, container: &str) -> Option<String> {
    let mut client = IpamClient::new(try_connect(node.socket()).await?);
    let client_version = proto::VERSION.into();
    let request = v1::CheckRequest { attachment: Some(attachment(container)), client_version };
    let reply = client.check(request).await.ok()?.into_inner();
    Some(reply.addresses.first().map(|held| held.address.clone()).unwrap_or_default())
}

#[tokio::test]
async fn daemon_on_a_read_only_disk_runs_and_answers_later() {
    let (mut node, disk) = node_on_a_disk("size=1m");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    node.config.metrics_port = Some(port);
    let daemon = node.start().await;
    let address = node.client().await.add("c1").await.unwrap();
    daemon.kill(&node).await;

    disk.remount("ro");
    let daemon = node.launch();
    // The port shows that the daemon runs, though nothing can be written.
    until("the metrics of the daemon without a socket", || async {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
    })
    .await;
    assert_eq!(held(&node, "c1").await, None);
    disk.remount("rw");
    assert_eq!(until("the daemon's socket", || held(&node, "c1")).await, address);
    let client = node.client().await;
    assert_eq!(client.del("c1").await.unwrap(), [address]);
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn daemon_on_a_disk_without_inodes_answers() {
    let (mut node, disk) = node_on_a_disk("size=1m,nr_inodes=24");
    node.config.policy.timing.add_wait = std::time::Duration::from_secs(1);
    let daemon = node.start().await;
    let address = node.client().await.add("c1").await.unwrap();
    daemon.kill(&node).await;

    disk.use_up_inodes();
    let daemon = node.start().await;
    let client: Client = node.client().await;
    assert_eq!(client.check("c1").await[0].address, address);
    let (code, message) = client.add("c2").await.unwrap_err();
    assert_eq!(code, "STATE_UNWRITABLE", "{message}");
    // The DEL is answered, and its address stays taken until it can be recorded.
    client.del("c1").await.unwrap();
    for entry in std::fs::read_dir(&disk.0).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains("filler-") {
            std::fs::remove_file(path).unwrap();
        }
    }
    until("the DEL on record", || async { client.check("c1").await.is_empty().then_some(()) })
        .await;
    daemon.stop().await.unwrap();
}

//! Who may use the socket, and which daemon may own it.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use proto::v1;
use proto::v1::ipam_client::IpamClient;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::node::{TestNode, attachment, connect, try_connect, until};

/// The variable with the socket's path for the child process, which runs as another user.
const SOCKET_VARIABLE: &str = "TIDEPOOL_TEST_OTHER_USER_SOCKET";
const NOBODY: u32 = 65_534;

#[tokio::test]
async fn socket_is_accessible_to_root_only() {
    let node = TestNode::new();
    let daemon = node.start().await;
    let socket = std::fs::metadata(node.socket()).unwrap();
    assert_eq!((socket.mode() & 0o777, socket.uid()), (0o600, 0), "run the tests as root");
    let directory = std::fs::metadata(node.socket().parent().unwrap()).unwrap();
    assert_eq!(directory.mode() & 0o777, 0o755);
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn other_user_is_refused_despite_open_socket_mode() {
    let node = TestNode::new();
    let daemon = node.start().await;
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(node.directory.path(), 0o755);
    open(node.socket(), 0o666);
    // The other user may not be able to read the binary in its directory, hence the copy.
    let program = node.directory.path().join("other-user");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    open(&program, 0o755);
    let mut command = Command::new(program);
    command.args(["--exact", "socket::other_user_in_child_process", "--ignored", "--nocapture"]);
    command.env(SOCKET_VARIABLE, node.socket()).current_dir("/").uid(NOBODY).gid(NOBODY);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
    daemon.stop().await.unwrap();
}

#[tokio::test]
#[ignore = "runs as another user, started by the test above"]
async fn other_user_in_child_process() {
    let channel = connect(std::env::var_os(SOCKET_VARIABLE).unwrap().as_ref()).await;
    let view = IpamClient::new(channel.clone()).view(v1::ViewRequest {}).await;
    let health = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
    for status in [view.unwrap_err(), health.unwrap_err()] {
        assert_eq!(status.code(), tonic::Code::PermissionDenied);
        assert!(status.message().contains("65534"), "{status}");
    }
}

#[tokio::test]
async fn files_of_daemon_are_closed_whatever_the_umask() {
    let this = "socket::daemon_with_umask_0_in_child_process";
    let mut command = Command::new("sh");
    command.args(["-c", "umask 0; exec \"$0\" --exact \"$1\" --ignored"]);
    command.arg(std::env::current_exe().unwrap()).arg(this);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
}

#[tokio::test]
#[ignore = "runs without a umask, started by the test above"]
async fn daemon_with_umask_0_in_child_process() {
    let node = TestNode::new();
    let daemon = node.start().await;
    node.client().await.add("c1").await.unwrap();
    let mut directories = vec![node.directory.path().to_owned()];
    let mut n_files = 0;
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let (path, metadata) = entry.map(|e| (e.path(), e.metadata().unwrap())).unwrap();
            let expect = if metadata.is_dir() { 0o755 } else { 0o600 };
            assert_eq!(metadata.mode() & 0o7777, expect, "{}", path.display());
            if metadata.is_dir() {
                directories.push(path);
            } else {
                n_files += 1;
            }
        }
    }
    assert!(n_files >= 3, "lock, log and socket; {n_files}");
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn health_check_reports_serving() {
    let node = TestNode::new();
    let daemon = node.start().await;
    let mut client = HealthClient::new(connect(node.socket()).await);
    for service in ["", "tidepool.ipam.v1.Ipam"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let status = client.check(request).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service:?}");
    }
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn socket_of_dead_daemon_is_replaced() {
    let node = TestNode::new();
    let daemon = node.start().await;
    daemon.kill(&node).await;
    assert!(node.socket().exists());
    let daemon = node.start().await;
    node.client().await.add("c1").await.unwrap();
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn socket_of_running_daemon_is_kept() {
    let node = TestNode::new();
    let first = node.start().await;
    let mut second = TestNode::new();
    second.config.socket = node.config.socket.clone();
    let fault = second.launch().end().await.unwrap_err();
    assert!(fault.to_string().contains("another ipamd listens on"), "{fault}");
    node.client().await.add("c1").await.unwrap();
    first.stop().await.unwrap();
}

/// As two pods of one DaemonSet, while a rollout with `maxSurge` replaces one by the other.
#[tokio::test]
async fn second_daemon_takes_over_when_the_first_ends() {
    let node = TestNode::new();
    let mut addresses = Vec::new();
    let mut running = node.start().await;
    for round in ["stopped", "killed", "stopped again"] {
        addresses.push((round, node.client().await.add(round).await.unwrap()));
        let next = node.launch();
        until_lock_waits(&node).await;
        if round == "killed" {
            running.kill_silently();
        } else {
            running.stop().await.unwrap();
        }
        // The daemon that was killed may still take a connection.
        let held = until("the second daemon", || async {
            let client = IpamClient::new(try_connect(node.socket()).await?);
            let check = |container: &str| {
                let (mut client, client_version) = (client.clone(), proto::VERSION.into());
                let attachment = Some(attachment(container));
                async move { client.check(v1::CheckRequest { attachment, client_version }).await }
            };
            let mut held = Vec::new();
            for (container, _) in &addresses {
                let reply = check(container).await.ok()?.into_inner();
                held.push((*container, reply.addresses[0].address.clone()));
            }
            Some(held)
        })
        .await;
        assert_eq!(held, addresses);
        running = next;
    }
    running.stop().await.unwrap();
    assert!(!node.socket().exists());
}

#[tokio::test]
async fn waiting_daemon_ends_when_it_is_asked_to() {
    let node = TestNode::new();
    let first = node.start().await;
    let second = node.launch();
    until_lock_waits(&node).await;
    second.stop().await.unwrap();
    node.client().await.add("c1").await.unwrap();
    first.stop().await.unwrap();
}

/// Waits until a daemon waits for the lock of the node's state directory.
async fn until_lock_waits(node: &TestNode) {
    let lock = std::fs::metadata(node.state_directory.join("tidepool.lock")).unwrap();
    let inode = format!(":{} ", lock.ino());
    until("a daemon that waits for the lock", || async {
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        let waits = |line: &str| line.contains("-> FLOCK") && line.contains(&inode);
        locks.lines().any(waits).then_some(())
    })
    .await;
}

#[tokio::test]
async fn removed_socket_is_made_anew() {
    let node = TestNode::new();
    let daemon = node.start().await;
    for _ in 0..2 {
        std::fs::remove_file(node.socket()).unwrap();
        until("the new socket", || try_connect(node.socket())).await;
        node.client().await.add("c1").await.unwrap();
        assert_eq!(std::fs::metadata(node.socket()).unwrap().mode() & 0o777, 0o600);
    }
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn socket_of_another_user_is_replaced() {
    let node = TestNode::new();
    std::fs::create_dir_all(node.socket().parent().unwrap()).unwrap();
    let _others = std::os::unix::net::UnixListener::bind(node.socket()).unwrap();
    std::os::unix::fs::chown(node.socket(), Some(NOBODY), None).unwrap();
    let daemon = node.launch();
    until("the daemon's own socket", || async {
        let metadata = std::fs::metadata(node.socket()).ok()?;
        (metadata.uid() == 0).then_some(())
    })
    .await;
    node.client().await.add("c1").await.unwrap();
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn file_at_socket_path_is_kept() {
    let node = TestNode::new();
    std::fs::create_dir_all(node.socket().parent().unwrap()).unwrap();
    std::fs::write(node.socket(), "precious").unwrap();
    let fault = node.launch().end().await.unwrap_err();
    assert!(fault.to_string().contains("is not a socket"), "{fault}");
    assert_eq!(std::fs::read_to_string(node.socket()).unwrap(), "precious");
}

//! Who may use the socket, and whose socket it is.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use proto::v1;
use proto::v1::ipam_client::IpamClient;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::node::{TestNode, connect};

/// Holds the socket's path in the process that plays the stranger.
const STRANGER: &str = "TIDEPOOL_TEST_STRANGER_SOCKET";
const NOBODY: u32 = 65_534;

#[tokio::test]
async fn only_root_can_open_the_socket() {
    let node = TestNode::new();
    let daemon = node.start().await;
    let socket = std::fs::metadata(node.socket()).unwrap();
    assert_eq!((socket.mode() & 0o777, socket.uid()), (0o600, 0), "run the tests as root");
    let directory = std::fs::metadata(node.socket().parent().unwrap()).unwrap();
    assert_eq!(directory.mode() & 0o777, 0o755);
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn a_stranger_is_refused_even_if_the_socket_lets_him_in() {
    let node = TestNode::new();
    let daemon = node.start().await;
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(node.directory.path(), 0o755);
    open(node.socket(), 0o666);
    // The binary may lie where the stranger cannot go, hence the copy.
    let program = node.directory.path().join("stranger");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    open(&program, 0o755);
    let mut command = Command::new(program);
    command.args(["--exact", "socket::the_stranger", "--ignored", "--nocapture"]);
    command.env(STRANGER, node.socket()).current_dir("/").uid(NOBODY).gid(NOBODY);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
    daemon.stop().await.unwrap();
}

#[tokio::test]
#[ignore = "runs as another user, started by the test above"]
async fn the_stranger() {
    let channel = connect(std::env::var_os(STRANGER).unwrap().as_ref()).await;
    let view = IpamClient::new(channel.clone()).view(v1::ViewRequest {}).await;
    let health = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
    for status in [view.unwrap_err(), health.unwrap_err()] {
        assert_eq!(status.code(), tonic::Code::PermissionDenied);
        assert!(status.message().contains("65534"), "{status}");
    }
}

#[tokio::test]
async fn the_daemon_is_healthy() {
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
async fn a_dead_daemons_socket_is_replaced() {
    let node = TestNode::new();
    let daemon = node.start().await;
    daemon.kill(&node).await;
    assert!(node.socket().exists());
    let daemon = node.start().await;
    node.client().await.add("c1").await.unwrap();
    daemon.stop().await.unwrap();
}

#[tokio::test]
async fn a_living_daemons_socket_is_not() {
    let node = TestNode::new();
    let first = node.start().await;
    let fault = node.launch().end().await.unwrap_err();
    assert!(fault.to_string().contains("another ipamd listens on"), "{fault}");
    node.client().await.add("c1").await.unwrap();
    first.stop().await.unwrap();
}

#[tokio::test]
async fn a_living_daemons_state_is_not_shared() {
    let node = TestNode::new();
    let first = node.start().await;
    let mut second = TestNode::new();
    second.config.state_directory = node.config.state_directory.clone();
    let fault = second.launch().end().await.unwrap_err();
    assert!(fault.to_string().contains("another ipamd uses this state directory"), "{fault}");
    assert!(!second.socket().exists());
    first.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let node = TestNode::new();
    std::fs::create_dir_all(node.socket().parent().unwrap()).unwrap();
    std::fs::write(node.socket(), "precious").unwrap();
    let fault = node.launch().end().await.unwrap_err();
    assert!(fault.to_string().contains("is no socket"), "{fault}");
    assert_eq!(std::fs::read_to_string(node.socket()).unwrap(), "precious");
}

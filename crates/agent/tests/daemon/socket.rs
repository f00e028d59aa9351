//! Who may use the socket, and which daemon may own it.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use proto::v1;
use proto::v1::ipam_client::IpamClient;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::node::{TestNode, connect};

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
    let fault = node.launch().end().await.unwrap_err();
    assert!(fault.to_string().contains("another ipamd listens on"), "{fault}");
    node.client().await.add("c1").await.unwrap();
    first.stop().await.unwrap();
}

#[tokio::test]
async fn state_of_running_daemon_is_not_shared() {
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
async fn file_at_socket_path_is_kept() {
    let node = TestNode::new();
    std::fs::create_dir_all(node.socket().parent().unwrap()).unwrap();
    std::fs::write(node.socket(), "precious").unwrap();
    let fault = node.launch().end().await.unwrap_err();
    assert!(fault.to_string().contains("is not a socket"), "{fault}");
    assert_eq!(std::fs::read_to_string(node.socket()).unwrap(), "precious");
}
